//! The checkout: what is asked in each step, when an answer will do, and what comes of it.

use std::sync::atomic::{AtomicU32, Ordering};

use cloakroom::SessionValue;
use serde::{Deserialize, Serialize};

use crate::cart::Cart;
use crate::preferences::{Cents, Currency, Language, Text};

/// The steps, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    Address,
    Delivery,
    Payment,
    Summary,
}

impl Step {
    pub(crate) const ALL: [Self; 4] = [Self::Address, Self::Delivery, Self::Payment, Self::Summary];

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Address => "/checkout/address",
            Self::Delivery => "/checkout/delivery",
            Self::Payment => "/checkout/payment",
            Self::Summary => "/checkout/summary",
        }
    }

    pub(crate) fn name(self) -> Text {
        match self {
            Self::Address => Text("Address", "Adresse"),
            Self::Delivery => Text("Delivery", "Lieferung"),
            Self::Payment => Text("Payment", "Zahlung"),
            Self::Summary => Text("Summary", "Übersicht"),
        }
    }
}

/// What is wrong with the fields of a form, by the field's name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes(Vec<(&'static str, Text)>);

impl Mistakes {
    pub(crate) fn of(&self, field: &str) -> Option<Text> {
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

    pub(crate) fn note(&mut self, field: &'static str, text: Text) {
        self.0.push((field, text));
    }
}

/// The longest text of a field, in characters.
pub(crate) const MAX_LEN: usize = 100;
const TOO_LONG: Text = Text(
    "Please use at most 100 characters.",
    "Bitte höchstens 100 Zeichen.",
);

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
        let who = Text(
            "Please tell us who gets the parcel.",
            "Wer bekommt das Paket?",
        );
        check("name", name, true, who);
        let like = Text(
            "Please enter an address like ada@example.com.",
            "Bitte eine Adresse wie ada@example.com.",
        );
        check("email", email, is_email(email), like);
        let number = Text(
            "Please enter street and number.",
            "Bitte Straße und Hausnummer.",
        );
        check("street", street, true, number);
        let digits = Text(
            "Please enter 3 to 10 letters or digits.",
            "Bitte 3 bis 10 Buchstaben oder Ziffern.",
        );
        check("postcode", postcode, is_postcode(postcode), digits);
        let town = Text("Please enter a town or city.", "Bitte einen Ort.");
        check("city", city, true, town);
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

    pub(crate) fn name(self) -> Text {
        match self {
            Self::Standard => Text(
                "Standard, two or three days",
                "Standard, zwei bis drei Tage",
            ),
            Self::Express => Text("Express, tomorrow", "Express, morgen"),
            Self::Pickup => Text("Pick up at our counter", "Abholen am Tresen"),
        }
    }

    /// In euros.
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

    pub(crate) fn name(self) -> Text {
        match self {
            Self::Invoice => Text("Invoice, within 14 days", "Rechnung, binnen 14 Tagen"),
            Self::Transfer => Text("Bank transfer in advance", "Überweisung im Voraus"),
        }
    }
}

/// The second and the third step, and the order's number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Chooses the delivery that a form names; what nobody offers leaves it open.
    pub(crate) fn deliver(&mut self, value: &str) {
        self.delivery = Delivery::ALL
            .into_iter()
            .find(|offer| offer.value() == value);
    }

    pub(crate) fn pay(&mut self, value: &str) {
        self.payment = Payment::ALL
            .into_iter()
            .find(|offer| offer.value() == value);
    }

    /// What is missing in a step of choices.
    pub(crate) fn check(&self, step: Step) -> Mistakes {
        let mut mistakes = Mistakes::default();
        match step {
            Step::Delivery if self.delivery.is_none() => mistakes.note(
                "delivery",
                Text(
                    "Please choose how it gets to you.",
                    "Wie soll es zu Ihnen kommen?",
                ),
            ),
            Step::Payment if self.payment.is_none() => mistakes.note(
                "payment",
                Text("Please choose how you pay.", "Wie möchten Sie zahlen?"),
            ),
            _ => {}
        }
        mistakes
    }
}

/// The first step that is not done yet. Later ones are closed until it is.
pub(crate) fn first_open(address: &Address, choice: &Choice) -> Step {
    let done = |step| choice.check(step).is_empty();
    if !address.check().is_empty() {
        Step::Address
    } else if !done(Step::Delivery) {
        Step::Delivery
    } else if !done(Step::Payment) {
        Step::Payment
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
    pub(crate) shipping: Cents,
    pub(crate) payment: Payment,
    /// That of all amounts.
    pub(crate) currency: Currency,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OrderLine {
    pub(crate) name: String,
    pub(crate) quantity: u32,
    pub(crate) price: Cents,
}

impl Order {
    /// `None` while something is missing.
    pub(crate) fn new(
        cart: &Cart,
        address: &Address,
        choice: &Choice,
        language: Language,
        currency: Currency,
    ) -> Option<Self> {
        let open = cart.is_empty() || first_open(address, choice) != Step::Summary;
        let line = |line: crate::cart::Line| OrderLine {
            name: language.say(line.product.name).to_owned(),
            quantity: line.quantity,
            price: line.price(currency),
        };
        let delivery = choice.delivery?;
        (!open).then_some(Self {
            number: choice.order?,
            lines: cart.lines().map(line).collect(),
            address: address.clone(),
            delivery,
            shipping: currency.price(delivery.price()),
            payment: choice.payment?,
            currency,
        })
    }

    pub(crate) fn total(&self) -> Cents {
        self.lines.iter().map(|line| line.price).sum::<Cents>() + self.shipping
    }

    /// What a customer has seen when they confirm: the amount and its currency.
    pub(crate) fn seen(&self) -> String {
        format!("{} {}", self.total().0, self.currency.value())
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

    fn chosen() -> Choice {
        let mut choice = Choice {
            order: Some(7),
            ..Choice::default()
        };
        choice.deliver("standard");
        choice.pay("transfer");
        choice
    }

    #[test]
    fn steps_open_one_after_the_other() {
        let mut choice = Choice::default();
        assert_eq!(first_open(&Address::default(), &choice), Step::Address);
        assert_eq!(first_open(&ada(), &choice), Step::Delivery);
        choice.deliver("by-camel");
        assert_eq!(first_open(&ada(), &choice), Step::Delivery);
        choice.deliver("express");
        assert_eq!(first_open(&ada(), &choice), Step::Payment);
        choice.pay("in-kind");
        assert_eq!(choice.check(Step::Payment).first(), Some("payment"));
        choice.pay("invoice");
        assert_eq!(first_open(&ada(), &choice), Step::Summary);
        assert_eq!(first_open(&Address::default(), &choice), Step::Address);
    }

    #[test]
    fn an_order_needs_goods_and_every_step() {
        let order = |cart: &Cart, address: &Address, choice: &Choice| {
            Order::new(cart, address, choice, Language::English, Currency::Usd)
        };
        let mut cart = Cart::default();
        assert_eq!(order(&cart, &ada(), &chosen()), None);
        cart.set(find("hat").expect("the catalogue has it"), 2);
        assert_eq!(order(&cart, &Address::default(), &chosen()), None);
        for spoil in [
            |choice: &mut Choice| choice.order = None,
            |choice: &mut Choice| choice.delivery = None,
            |choice: &mut Choice| choice.payment = None,
        ] {
            let mut choice = chosen();
            spoil(&mut choice);
            assert_eq!(order(&cart, &ada(), &choice), None);
        }
        let order = order(&cart, &ada(), &chosen()).expect("nothing is missing");
        assert_eq!(order.total(), Cents(2 * 35_20 + 5_39));
        assert_eq!(order.seen(), "7579 usd");
    }
}
