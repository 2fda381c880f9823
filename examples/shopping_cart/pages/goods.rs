//! The products and the cart.

use maud::{Markup, html};

use crate::cart::{Cart, Line, MAX_QUANTITY};
use crate::catalogue::{CATALOGUE, Product};
use crate::checkout::Step;
use crate::pages::{page, picture};
use crate::visitor::{Ended, Visitor};

pub(crate) fn list(visitor: &Visitor) -> Markup {
    page(
        visitor,
        visitor.say("Everything", "Alles"),
        "/",
        &html! {
            h1 { (visitor.say("Everything for rainy days", "Alles für Regentage")) }
            ul.goods {
                @for product in &CATALOGUE {
                    li #(product.slug) {
                        (picture(product))
                        h2 {
                            a href={ "/product/" (product.slug) } { (visitor.text(product.name)) }
                        }
                        p { (visitor.text(product.text)) }
                        form method="post" action="/cart/add" {
                            strong { (price(visitor, product)) }
                            button name="product" value=(product.slug) {
                                (visitor.say("Add", "In den Korb"))
                                span.hidden { ": " (visitor.text(product.name)) }
                            }
                        }
                    }
                }
            }
        },
    )
}

fn price(visitor: &Visitor, product: &Product) -> String {
    visitor.write(visitor.currency().price(product.price))
}

/// One product. `refused` is a quantity that cannot be, as it was typed.
pub(crate) fn product(visitor: &Visitor, product: &Product, refused: Option<&str>) -> Markup {
    let name = visitor.text(product.name);
    page(
        visitor,
        name,
        &format!("/product/{}", product.slug),
        &html! {
            article.product {
                (picture(product))
                div {
                    h1 { (name) }
                    p { strong { (visitor.text(product.text)) } }
                    p { (visitor.text(product.story)) }
                    p.total { (price(visitor, product)) }
                    form.quantity method="post" action="/cart/add" {
                        input type="hidden" name="product" value=(product.slug);
                        (quantity(visitor, "quantity", name, 1, refused.unwrap_or("1"), refused.is_some()))
                        button { (visitor.say("Add to cart", "In den Korb")) }
                        @if refused.is_some() { (quantity_mistake(visitor, "quantity", 1)) }
                    }
                    p.actions { a href="/" { (visitor.say("All products", "Alle Waren")) } }
                }
            }
        },
    )
}

fn quantity(visitor: &Visitor, id: &str, name: &str, min: u32, value: &str, wrong: bool) -> Markup {
    html! {
        // Phones have no room for the label.
        label for=(id) { (visitor.say("Quantity", "Menge")) }
        input id=(id) name="quantity" type="number" inputmode="numeric" min=(min) max=(MAX_QUANTITY)
            aria-label={ (visitor.say("Quantity of", "Menge von")) " " (name) }
            required value=(value) autofocus[wrong] aria-invalid=[wrong.then_some("true")]
            aria-describedby=[wrong.then(|| mistake_id(id))];
    }
}

fn mistake_id(id: &str) -> String {
    format!("{id}-mistake")
}

fn quantity_mistake(visitor: &Visitor, id: &str, min: u32) -> Markup {
    html! {
        p.mistake id=(mistake_id(id)) {
            (visitor.say("Please enter a whole number from", "Bitte eine ganze Zahl von")) " " (min) " "
            (visitor.say("to", "bis")) " " (MAX_QUANTITY) "."
        }
    }
}

/// The cart. `ended`: there may have been something in it before. `refused` is a quantity that cannot
/// be, as it was typed.
pub(crate) fn cart(
    visitor: &Visitor,
    cart: &Cart,
    ended: Option<Ended>,
    refused: Option<(&Product, &str)>,
) -> Markup {
    page(
        visitor,
        visitor.say("Cart", "Korb"),
        "/cart",
        &html! {
            h1 { (visitor.say("Your cart", "Ihr Korb")) }
            @if cart.is_empty() {
                @if let Some(ended) = ended { (no_session(visitor, ended)) }
                p { (visitor.say("There is nothing in it yet.", "Es ist noch nichts darin.")) }
                p { a href="/" { (visitor.say("Look around", "Sehen Sie sich um")) } }
            } @else {
                ul.lines {
                    @for line in cart.lines() {
                        (cart_line(visitor, line, refused))
                    }
                }
                p.total {
                    (visitor.say("Total", "Summe")) " "
                    strong { (visitor.write(cart.total(visitor.currency()))) }
                }
                p.actions {
                    a href="/" { (visitor.say("Keep looking", "Weiter umsehen")) }
                    a.button href=(Step::Address.path()) { (visitor.say("Check out", "Zur Kasse")) }
                }
            }
        },
    )
}

/// For those whose session is over.
/// Why somebody who had a session has none.
pub(crate) fn no_session(visitor: &Visitor, ended: Ended) -> Markup {
    let text = match ended {
        Ended::Away => visitor.say(
            "Good to see you again. You were away for a while, or signed out on another device, so we have \
             put everything back on its peg, and signed you out here.",
            "Schön, dass Sie wieder da sind. Sie waren eine Weile fort oder haben sich auf einem anderen \
             Gerät abgemeldet; da haben wir alles an seinen Haken zurückgehängt und Sie hier abgemeldet.",
        ),
        Ended::OtherBrowser => visitor.say(
            "You signed in with another browser than this one. Please sign in here as well, so that we \
             know that it is you.",
            "Angemeldet haben Sie sich mit einem anderen Browser. Bitte melden Sie sich auch hier an, \
             damit wir wissen, dass Sie es sind.",
        ),
    };
    html! { p.away { (text) } }
}

fn cart_line(visitor: &Visitor, line: Line, refused: Option<(&Product, &str)>) -> Markup {
    let Line {
        product,
        quantity: count,
    } = line;
    let name = visitor.text(product.name);
    let refused = refused
        .filter(|(refused, _)| refused.slug == product.slug)
        .map(|(_, typed)| typed);
    let id = format!("quantity-{}", product.slug);
    let shown = refused.map_or_else(|| count.to_string(), str::to_owned);
    html! {
        li {
            (picture(product))
            div.what {
                h2 { a href={ "/product/" (product.slug) } { (name) } }
                span { (price(visitor, product)) " " (visitor.say("each", "pro Stück")) }
            }
            form.quantity method="post" action="/cart/quantity" {
                input type="hidden" name="product" value=(product.slug);
                (quantity(visitor, &id, name, 0, &shown, refused.is_some()))
                button.quiet { (visitor.say("Update", "Ändern")) span.hidden { " " (name) } }
                @if refused.is_some() { (quantity_mistake(visitor, &id, 0)) }
            }
            form.remove method="post" action="/cart/remove" {
                button.quiet name="product" value=(product.slug) {
                    (visitor.say("Remove", "Entfernen")) span.hidden { " " (name) }
                }
            }
            strong.price { (visitor.write(line.price(visitor.currency()))) }
        }
    }
}
