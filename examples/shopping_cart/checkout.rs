//! The checkout: what is asked in each step, when an answer will do, and what comes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use cloakroom::SessionValue;
use serde::{Deserialize, Serialize};

use crate::cart::Cart;
use crate::catalogue::Cents;

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Address,
    Delivery,
    Summary,
}

impl Step {
    pub(crate) const ALL: [Self; 3] = [Self::Address, Self::Delivery, Self::Summary];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Address => "/checkout/address",
            Self::Delivery => "/checkout/delivery",
            Self::Summary => "/checkout/summary",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Address => "Address",
            Self::Delivery => "Delivery and payment",
            Self::Summary => "Summary",
        }
    }
}

/// What is wrong with the fields of a form, by the field's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes(Vec<(&'static str, &'static str)>);

impl Mistakes {
    pub(crate) fn of(&self, field: &str) -> Option<&'static str> {
        self.0
            .iter()
            .find(|(name, _)| *name == field)
            .map(|(_, text)| *text)
    }

    /// The field to begin with.
    pub(crate) fn first(&self) -> Option<&'static str> {
        self.0.first().map(|(name, _)| *name)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn note(&mut self, field: &'static str, text: &'static str) {
        self.0.push((field, text));
    }
}

/// The longest text of a field, in characters.
pub(crate) const MAX_LEN: usize = 100;
const TOO_LONG: &str = "Please use at most 100 characters.";

/// The first step as it was typed, right or wrong: it is kept either way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Address {
    pub(crate) name: String,
    pub(crate) email: String,
    pub(crate) street: String,
    pub(crate) postcode: String,
    pub(crate) city: String,
}

impl SessionValue for Address {
    const KEY: &'static str = "address";
}

impl Address {
    /// Without blanks around the fields, and cut off where they are too long anyway, so that nobody
    /// can fill the session with them.
    pub(crate) fn tidy(self) -> Self {
        let tidy = |text: String| text.trim().chars().take(MAX_LEN + 1).collect();
        Self {
            name: tidy(self.name),
            email: tidy(self.email),
            street: tidy(self.street),
            postcode: tidy(self.postcode),
            city: tidy(self.city),
        }
    }

    pub(crate) fn check(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        let mut check = |field, text: &str, looks_right: bool, advice| {
            if text.chars().count() > MAX_LEN {
                mistakes.note(field, TOO_LONG);
            } else if text.is_empty() || !looks_right {
                mistakes.note(field, advice);
            }
        };
        let Self {
            name,
            email,
            street,
            postcode,
            city,
        } = self;
        check("name", name, true, "Please tell us who gets the parcel.");
        check(
            "email",
            email,
            is_email(email),
            "Please enter an address like ada@example.com.",
        );
        check("street", street, true, "Please enter street and number.");
        check(
            "postcode",
            postcode,
            is_postcode(postcode),
            "Please enter 3 to 10 letters or digits.",
        );
        check("city", city, true, "Please enter a town or city.");
        mistakes
    }
}

/// Whether it can be one; only a message to it shows that it is.
fn is_email(text: &str) -> bool {
    text.split_once('@').is_some_and(|(name, host)| {
        !name.is_empty()
            && !host.is_empty()
            && !host.contains('@')
            && !text.contains(char::is_whitespace)
    })
}

fn is_postcode(text: &str) -> bool {
    (3..=10).contains(&text.len())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, ' ' | '-'))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Delivery {
    Standard,
    Express,
    Pickup,
}

impl Delivery {
    pub(crate) const ALL: [Self; 3] = [Self::Standard, Self::Express, Self::Pickup];

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Express => "express",
            Self::Pickup => "pickup",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Standard => "Standard, two or three days",
            Self::Express => "Express, tomorrow",
            Self::Pickup => "Pick up at our counter",
        }
    }

    pub(crate) fn price(self) -> Cents {
        match self {
            Self::Standard => Cents(4_90),
            Self::Express => Cents(9_90),
            Self::Pickup => Cents(0),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Payment {
    Invoice,
    Transfer,
}

impl Payment {
    pub(crate) const ALL: [Self; 2] = [Self::Invoice, Self::Transfer];

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Invoice => "invoice",
            Self::Transfer => "transfer",
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Invoice => "Invoice, within 14 days",
            Self::Transfer => "Bank transfer in advance",
        }
    }
}

/// The second step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) delivery: Option<Delivery>,
    pub(crate) payment: Option<Payment>,
    /// The number that the order will have. It is given before the order is placed, so that a
    /// confirmation that is sent twice is one order.
    pub(crate) order: Option<u32>,
}

impl SessionValue for Choice {
    const KEY: &'static str = "choice";
}

impl Choice {
    /// Makes the choices that a form names; what it does not name, or nobody offers, is open.
    pub(crate) fn choose(&mut self, delivery: &str, payment: &str) {
        self.delivery = Delivery::ALL
            .into_iter()
            .find(|offer| offer.value() == delivery);
        self.payment = Payment::ALL
            .into_iter()
            .find(|offer| offer.value() == payment);
    }

    pub(crate) fn check(&self) -> Mistakes {
        let mut mistakes = Mistakes::default();
        if self.delivery.is_none() {
            mistakes.note("delivery", "Please choose how it gets to you.");
        }
        if self.payment.is_none() {
            mistakes.note("payment", "Please choose how you pay.");
        }
        mistakes
    }
}

/// The first step that is not done yet. Later ones are closed until it is.
pub(crate) fn first_open(address: &Address, choice: &Choice) -> Step {
    if !address.check().is_empty() {
        Step::Address
    } else if !choice.check().is_empty() {
        Step::Delivery
    } else {
        Step::Summary
    }
}

/// An order as it was when it was placed.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) number: u32,
    pub(crate) lines: Vec<OrderLine>,
    pub(crate) address: Address,
    pub(crate) delivery: Delivery,
    pub(crate) payment: Payment,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderLine {
    pub(crate) name: String,
    pub(crate) quantity: u32,
    pub(crate) price: Cents,
}

impl Order {
    /// `None` while something is missing.
    pub(crate) fn new(cart: &Cart, address: &Address, choice: &Choice) -> Option<Self> {
        let open = cart.is_empty() || first_open(address, choice) != Step::Summary;
        let line = |line: crate::cart::Line| OrderLine {
            name: line.product.name.to_owned(),
            quantity: line.quantity,
            price: line.price(),
        };
        (!open).then_some(Self {
            number: choice.order?,
            lines: cart.lines().map(line).collect(),
            address: address.clone(),
            delivery: choice.delivery?,
            payment: choice.payment?,
        })
    }

    pub(crate) fn total(&self) -> Cents {
        self.lines.iter().map(|line| line.price).sum::<Cents>() + self.delivery.price()
    }
}

/// Gives out order numbers; a real shop's database does.
#[derive(Debug)]
pub(crate) struct OrderNumbers(AtomicU32);

impl Default for OrderNumbers {
    fn default() -> Self {
        Self(AtomicU32::new(1001))
    }
}

impl OrderNumbers {
    pub(crate) fn next(&self) -> u32 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::find;

    fn ada() -> Address {
        Address {
            name: "Ada Lovelace".into(),
            email: "ada@example.com".into(),
            street: "12 St James's Square".into(),
            postcode: "SW1Y 4JH".into(),
            city: "London".into(),
        }
    }

    #[test]
    fn a_complete_address_has_no_mistakes() {
        assert_eq!(ada().check(), Mistakes::default());
    }

    #[test]
    fn every_empty_field_is_named_and_the_first_one_comes_first() {
        let mistakes = Address::default().check();
        for field in ["name", "email", "street", "postcode", "city"] {
            assert!(mistakes.of(field).is_some(), "{field}");
        }
        assert_eq!(mistakes.first(), Some("name"));
    }

    #[test]
    fn only_the_field_with_the_mistake_is_named() {
        for email in [
            "ada",
            "@example.com",
            "ada@",
            "a@b@c",
            "ada lovelace@example.com",
        ] {
            let mistakes = Address {
                email: email.into(),
                ..ada()
            }
            .check();
            assert_eq!(mistakes.first(), Some("email"), "{email}");
            assert_eq!(mistakes.0.len(), 1, "{email}");
        }
        for postcode in ["12", "12345678901", "1234!", "Ⅷ123"] {
            let mistakes = Address {
                postcode: postcode.into(),
                ..ada()
            }
            .check();
            assert_eq!(mistakes.first(), Some("postcode"), "{postcode}");
        }
    }

    #[test]
    fn too_long_a_field_is_cut_off_and_still_found_too_long() {
        let address = Address {
            city: format!("  {}", "ß".repeat(50_000)),
            ..ada()
        }
        .tidy();
        assert_eq!(address.city.chars().count(), MAX_LEN + 1);
        assert_eq!(address.check().of("city"), Some(TOO_LONG));
        let address = Address {
            city: format!("  {}  ", "ß".repeat(MAX_LEN)),
            ..ada()
        }
        .tidy();
        assert!(address.check().is_empty());
    }

    #[test]
    fn steps_open_one_after_the_other() {
        let mut choice = Choice::default();
        assert_eq!(first_open(&Address::default(), &choice), Step::Address);
        assert_eq!(first_open(&ada(), &choice), Step::Delivery);
        choice.choose("express", "by-camel");
        assert_eq!(first_open(&ada(), &choice), Step::Delivery);
        assert_eq!(choice.check().first(), Some("payment"));
        choice.choose("express", "invoice");
        assert_eq!(first_open(&ada(), &choice), Step::Summary);
        assert_eq!(first_open(&Address::default(), &choice), Step::Address);
    }

    #[test]
    fn an_order_needs_goods_and_every_step() {
        let mut cart = Cart::default();
        let mut choice = Choice {
            order: Some(7),
            ..Choice::default()
        };
        choice.choose("standard", "transfer");
        assert_eq!(Order::new(&cart, &ada(), &choice), None);
        cart.set(find("hat").expect("the catalogue has it"), 2);
        assert_eq!(Order::new(&cart, &Address::default(), &choice), None);
        assert_eq!(
            Order::new(
                &cart,
                &ada(),
                &Choice {
                    order: None,
                    ..choice
                }
            ),
            None
        );
        let order = Order::new(&cart, &ada(), &choice).expect("nothing is missing");
        assert_eq!(order.total(), Cents(2 * 32_00 + 4_90));
    }
}
