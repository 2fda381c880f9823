//! The product list and the cart.

use maud::{Markup, html};

use crate::cart::{Cart, Line, MAX_QUANTITY};
use crate::catalogue::{CATALOGUE, Product};
use crate::checkout::Step;
use crate::pages::{page, picture};
use crate::visitor::Visitor;

pub(crate) fn list(visitor: &Visitor) -> Markup {
    page(
        visitor,
        "Everything",
        "/",
        &html! {
            h1 { "Everything for rainy days" }
            ul.goods {
                @for product in &CATALOGUE {
                    li #(product.slug) {
                        (picture(product))
                        h2 { (product.name) }
                        p { (product.text) }
                        form method="post" action="/cart/add" {
                            strong { (product.price) }
                            button name="product" value=(product.slug) {
                                "Add" span.hidden { " " (product.name) } " to cart"
                            }
                        }
                    }
                }
            }
        },
    )
}

/// The cart. `refused` is a quantity that cannot be, as it was typed.
pub(crate) fn cart(visitor: &Visitor, cart: &Cart, refused: Option<(&Product, &str)>) -> Markup {
    page(
        visitor,
        "Cart",
        "/cart",
        &html! {
            h1 { "Your cart" }
            @if cart.is_empty() {
                p { "There is nothing in it yet." }
                p { a href="/" { "Look around" } }
            } @else {
                ul.lines {
                    @for line in cart.lines() {
                        (cart_line(line, refused))
                    }
                }
                p.total { "Total " strong { (cart.total()) } }
                p.actions {
                    a href="/" { "Keep looking" }
                    a.button href=(Step::Address.path()) { "Check out" }
                }
            }
        },
    )
}

fn cart_line(line: Line, refused: Option<(&Product, &str)>) -> Markup {
    let Line { product, quantity } = line;
    let refused = refused
        .filter(|(refused, _)| refused.slug == product.slug)
        .map(|(_, typed)| typed);
    let id = format!("quantity-{}", product.slug);
    let mistake_id = format!("{id}-mistake");
    html! {
        li {
            (picture(product))
            div.what {
                h2 { (product.name) }
                span { (product.price) " each" }
            }
            form.quantity method="post" action="/cart/quantity" {
                input type="hidden" name="product" value=(product.slug);
                // Phones have no room for the label.
                label for=(id) { "Quantity" }
                input id=(id) name="quantity" type="number" inputmode="numeric" min="0"
                    aria-label={ "Quantity of " (product.name) }
                    max=(MAX_QUANTITY) required value=(refused.unwrap_or(&quantity.to_string()))
                    autofocus[refused.is_some()] aria-invalid=[refused.map(|_| "true")]
                    aria-describedby=[refused.map(|_| &mistake_id)];
                button.quiet { "Update" span.hidden { " " (product.name) } }
                @if refused.is_some() {
                    p.mistake id=(mistake_id) {
                        "Please enter a whole number from 0 to " (MAX_QUANTITY) "."
                    }
                }
            }
            form.remove method="post" action="/cart/remove" {
                button.quiet name="product" value=(product.slug) {
                    "Remove" span.hidden { " " (product.name) }
                }
            }
            strong.price { (line.price()) }
        }
    }
}
