//! The checkout.

use maud::{Markup, html};

use crate::checkout::{Address, Choice, Delivery, Mistakes, Order, Payment, Step};
use crate::pages::{Field, field, page};
use crate::preferences::{Cents, Style, Text};
use crate::visitor::Visitor;

pub(crate) fn address(visitor: &Visitor, address: &Address, mistakes: &Mistakes) -> Markup {
    let street = Text("Street and number", "Straße und Hausnummer");
    let fields = [
        ("name", Text("Name", "Name"), "text", "name", &address.name),
        (
            "email",
            Text("Email", "E-Mail"),
            "email",
            "email",
            &address.email,
        ),
        ("street", street, "text", "street-address", &address.street),
        (
            "postcode",
            Text("Postcode", "Postleitzahl"),
            "text",
            "postal-code",
            &address.postcode,
        ),
        (
            "city",
            Text("Town or city", "Ort"),
            "text",
            "address-level2",
            &address.city,
        ),
    ];
    step(
        visitor,
        Step::Address,
        &html! {
            form.sheet method="post" {
                @for (name, label, kind, autocomplete, value) in fields {
                    (field(visitor, &Field { name, label, kind, autocomplete, value }, mistakes))
                }
                p.actions {
                    a href="/cart" { (visitor.say("Back to the cart", "Zurück zum Korb")) }
                    (go_on(visitor))
                }
            }
        },
    )
}

fn go_on(visitor: &Visitor) -> Markup {
    html! { button { (visitor.say("Continue", "Weiter")) } }
}

/// The steps in which one of several offers is chosen.
pub(crate) fn choice(
    visitor: &Visitor,
    current: Step,
    choice: &Choice,
    mistakes: &Mistakes,
) -> Markup {
    let (content, before) = match current {
        Step::Payment => (payments(visitor, choice, mistakes), Step::Delivery),
        _ => (deliveries(visitor, choice, mistakes), Step::Address),
    };
    step(
        visitor,
        current,
        &html! {
            form.sheet method="post" {
                (content)
                p.actions {
                    a href=(before.path()) { (visitor.say("Back", "Zurück")) }
                    (go_on(visitor))
                }
            }
        },
    )
}

fn deliveries(visitor: &Visitor, choice: &Choice, mistakes: &Mistakes) -> Markup {
    let offers = Delivery::ALL.map(|offer| Offer {
        value: offer.value(),
        name: offer.name(),
        price: Some(visitor.currency().price(offer.price())),
        chosen: choice.delivery == Some(offer),
    });
    radios(visitor, "delivery", Step::Delivery, &offers, mistakes)
}

fn payments(visitor: &Visitor, choice: &Choice, mistakes: &Mistakes) -> Markup {
    let offers = Payment::ALL.map(|offer| Offer {
        value: offer.value(),
        name: offer.name(),
        price: None,
        chosen: choice.payment == Some(offer),
    });
    radios(visitor, "payment", Step::Payment, &offers, mistakes)
}

struct Offer {
    value: &'static str,
    name: Text,
    price: Option<Cents>,
    chosen: bool,
}

fn radios(
    visitor: &Visitor,
    name: &str,
    current: Step,
    offers: &[Offer],
    mistakes: &Mistakes,
) -> Markup {
    let mistake = mistakes.of(name);
    let mistake_id = format!("{name}-mistake");
    html! {
        fieldset aria-describedby=[mistake.map(|_| &mistake_id)] {
            legend.hidden { (visitor.text(current.name())) }
            @if let Some(mistake) = mistake {
                p.mistake id=(mistake_id) { (visitor.text(mistake)) }
            }
            @for (index, offer) in offers.iter().enumerate() {
                div.choice {
                    input id=(offer.value) type="radio" name=(name) value=(offer.value) required
                        checked[offer.chosen] autofocus[index == 0 && mistakes.first() == Some(name)];
                    label for=(offer.value) {
                        (visitor.text(offer.name))
                        @if let Some(price) = offer.price {
                            " " strong { (price_or_free(visitor, visitor.write(price), price)) }
                        }
                    }
                }
            }
        }
    }
}

fn price_or_free(visitor: &Visitor, written: String, price: Cents) -> String {
    if price == Cents(0) {
        visitor.say("free", "kostenlos").to_owned()
    } else {
        written
    }
}

pub(crate) fn summary(visitor: &Visitor, order: &Order) -> Markup {
    step(
        visitor,
        Step::Summary,
        &html! {
            (receipt(visitor, order))
            form method="post" {
                input type="hidden" name="seen" value=(order.seen());
                p.actions {
                    a href=(Step::Payment.path()) { (visitor.say("Back", "Zurück")) }
                    button {
                        (visitor.say("Order for", "Bestellen für")) " " (visitor.write(order.total()))
                    }
                }
            }
        },
    )
}

pub(crate) fn thanks(visitor: &Visitor, order: &Order) -> Markup {
    page(
        visitor,
        visitor.say("Thank you", "Danke"),
        "/",
        &html! {
            h1 { (visitor.say("Thank you!", "Vielen Dank!")) }
            p {
                (visitor.say("Your order is number", "Ihre Bestellung hat die Nummer"))
                " " strong { (order.number) } ". "
                (visitor.say(
                    "Please write it down: this page is shown once.",
                    "Bitte notieren Sie sie: Diese Seite wird einmal gezeigt.",
                ))
            }
            (receipt(visitor, order))
            p.actions { a href="/" { (visitor.say("Back to the shop", "Zurück in den Laden")) } }
        },
    )
}

fn receipt(visitor: &Visitor, order: &Order) -> Markup {
    let Order {
        lines,
        address,
        delivery,
        shipping,
        payment,
        currency,
        ..
    } = order;
    // That of the order: the visitor may have chosen another one since.
    let style = Style(visitor.preferences.language, *currency);
    let total = style.write(order.total());
    html! {
        table.receipt {
            caption.hidden { (visitor.say("What you order", "Ihre Bestellung")) }
            thead.hidden {
                tr {
                    th scope="col" { (visitor.say("Product", "Ware")) }
                    th scope="col" { (visitor.say("Price", "Preis")) }
                }
            }
            tbody {
                @for line in lines {
                    tr {
                        th scope="row" { (line.quantity) " × " (line.name) }
                        td { (style.write(line.price)) }
                    }
                }
                tr {
                    th scope="row" { (visitor.text(delivery.name())) }
                    td { (price_or_free(visitor, style.write(*shipping), *shipping)) }
                }
            }
            tfoot { tr { th scope="row" { (visitor.say("Total", "Summe")) } td { (total) } } }
        }
        dl.facts {
            dt { (visitor.say("For", "Für")) }
            dd {
                (address.name) br;
                (address.street) br;
                (address.postcode) " " (address.city) br;
                (address.email)
            }
            dt { (visitor.say("Payment", "Zahlung")) }
            dd { (visitor.text(payment.name())) }
        }
    }
}

fn step(visitor: &Visitor, current: Step, content: &Markup) -> Markup {
    let name = visitor.text(current.name());
    page(
        visitor,
        name,
        current.path(),
        &html! {
            nav.steps aria-label=(visitor.say("Checkout", "Kasse")) {
                ol {
                    @for step in Step::ALL {
                        li aria-current=[(step == current).then_some("step")] {
                            @if step < current {
                                a href=(step.path()) { (visitor.text(step.name())) }
                            } @else {
                                (visitor.text(step.name()))
                            }
                        }
                    }
                }
            }
            h1 { (name) }
            (content)
        },
    )
}
