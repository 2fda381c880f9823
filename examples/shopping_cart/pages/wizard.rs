//! The checkout.

use maud::{Markup, html};

use crate::catalogue::Cents;
use crate::checkout::{Address, Choice, Delivery, Mistakes, Order, Payment, Step};
use crate::pages::{Field, field, page};
use crate::visitor::Visitor;

pub(crate) fn address(visitor: &Visitor, address: &Address, mistakes: &Mistakes) -> Markup {
    let fields = [
        ("name", "Name", "text", "name", &address.name),
        ("email", "Email", "email", "email", &address.email),
        (
            "street",
            "Street and number",
            "text",
            "street-address",
            &address.street,
        ),
        (
            "postcode",
            "Postcode",
            "text",
            "postal-code",
            &address.postcode,
        ),
        (
            "city",
            "Town or city",
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
                    (field(&Field {
                        name,
                        label,
                        kind,
                        autocomplete,
                        value,
                        mistake: mistakes.of(name),
                        autofocus: mistakes.first() == Some(name),
                    }))
                }
                p.actions {
                    a href="/cart" { "Back to the cart" }
                    button { "Continue" }
                }
            }
        },
    )
}

pub(crate) fn delivery(visitor: &Visitor, choice: &Choice, mistakes: &Mistakes) -> Markup {
    let deliveries = Delivery::ALL.map(|offer| Offer {
        value: offer.value(),
        name: offer.name(),
        price: Some(offer.price()),
        chosen: choice.delivery == Some(offer),
    });
    let payments = Payment::ALL.map(|offer| Offer {
        value: offer.value(),
        name: offer.name(),
        price: None,
        chosen: choice.payment == Some(offer),
    });
    step(
        visitor,
        Step::Delivery,
        &html! {
            form.sheet method="post" {
                (offers("delivery", "Delivery", &deliveries, mistakes))
                (offers("payment", "Payment", &payments, mistakes))
                p.actions {
                    a href=(Step::Address.path()) { "Back to the address" }
                    button { "Continue" }
                }
            }
        },
    )
}

struct Offer {
    value: &'static str,
    name: &'static str,
    price: Option<Cents>,
    chosen: bool,
}

fn offers(name: &str, legend: &str, offers: &[Offer], mistakes: &Mistakes) -> Markup {
    let mistake = mistakes.of(name);
    let mistake_id = format!("{name}-mistake");
    html! {
        fieldset aria-describedby=[mistake.map(|_| &mistake_id)] {
            legend { (legend) }
            @if let Some(mistake) = mistake {
                p.mistake id=(mistake_id) { (mistake) }
            }
            @for (index, offer) in offers.iter().enumerate() {
                div.choice {
                    input id=(offer.value) type="radio" name=(name) value=(offer.value) required
                        checked[offer.chosen] autofocus[index == 0 && mistakes.first() == Some(name)];
                    label for=(offer.value) {
                        (offer.name)
                        @if let Some(price) = offer.price {
                            " " strong { (price_or_free(price)) }
                        }
                    }
                }
            }
        }
    }
}

fn price_or_free(price: Cents) -> Markup {
    html! {
        @if price == Cents(0) { "free" } @else { (price) }
    }
}

pub(crate) fn summary(visitor: &Visitor, order: &Order) -> Markup {
    step(
        visitor,
        Step::Summary,
        &html! {
            (receipt(order))
            form method="post" {
                input type="hidden" name="total" value=(order.total().0);
                p.actions {
                    a href=(Step::Delivery.path()) { "Back to delivery and payment" }
                    button { "Order for " (order.total()) }
                }
            }
        },
    )
}

pub(crate) fn thanks(visitor: &Visitor, order: &Order) -> Markup {
    page(
        visitor,
        "Thank you",
        "/",
        &html! {
            h1 { "Thank you!" }
            p {
                "Your order is number " strong { (order.number) }
                ". Please write it down: this page is shown once."
            }
            (receipt(order))
            p.actions { a href="/" { "Back to the shop" } }
        },
    )
}

fn receipt(order: &Order) -> Markup {
    let Order {
        lines,
        address,
        delivery,
        payment,
        ..
    } = order;
    html! {
        table.receipt {
            caption.hidden { "What you order" }
            thead.hidden { tr { th scope="col" { "Product" } th scope="col" { "Price" } } }
            tbody {
                @for line in lines {
                    tr { th scope="row" { (line.quantity) " × " (line.name) } td { (line.price) } }
                }
                tr { th scope="row" { (delivery.name()) } td { (price_or_free(delivery.price())) } }
            }
            tfoot { tr { th scope="row" { "Total" } td { (order.total()) } } }
        }
        dl.facts {
            dt { "For" }
            dd {
                (address.name) br;
                (address.street) br;
                (address.postcode) " " (address.city) br;
                (address.email)
            }
            dt { "Payment" }
            dd { (payment.name()) }
        }
    }
}

fn step(visitor: &Visitor, current: Step, content: &Markup) -> Markup {
    page(
        visitor,
        current.name(),
        current.path(),
        &html! {
            nav.steps aria-label="Checkout" {
                ol {
                    @for step in Step::ALL {
                        li aria-current=[(step == current).then_some("step")] {
                            @if step < current {
                                a href=(step.path()) { (step.name()) }
                            } @else {
                                (step.name())
                            }
                        }
                    }
                }
            }
            h1 { (current.name()) }
            (content)
        },
    )
}
