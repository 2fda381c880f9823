//! How somebody likes the shop: its colours, its language, its currency.

use std::fmt::Write as _;
use std::iter::Sum;
use std::ops::Add;

use cloakroom::SessionValue;
use serde::{Deserialize, Serialize};

/// Kept under one key, since the three are chosen in one form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Preferences {
    /// `None` leaves it to the browser.
    pub(crate) theme: Option<Theme>,
    pub(crate) language: Language,
    pub(crate) currency: Currency,
}

impl SessionValue for Preferences {
    const KEY: &'static str = "preferences";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl Theme {
    pub(crate) const ALL: [Self; 2] = [Self::Light, Self::Dark];

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }

    pub(crate) fn name(self) -> Text {
        match self {
            Self::Light => Text("Light", "Hell"),
            Self::Dark => Text("Dark", "Dunkel"),
        }
    }
}

/// A text in English and in German.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Text(pub(crate) &'static str, pub(crate) &'static str);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Language {
    #[default]
    English,
    German,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::English, Self::German];

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::English => "english",
            Self::German => "german",
        }
    }

    /// As its speakers call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::English => "English",
            Self::German => "Deutsch",
        }
    }

    /// For the attribute `lang` (RFC 5646).
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::English => "en",
            Self::German => "de",
        }
    }

    pub(crate) fn say(self, text: Text) -> &'static str {
        match self {
            Self::English => text.0,
            Self::German => text.1,
        }
    }
}

/// An amount in whole cents, or pence: sums of fractions do not add up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cents(pub(crate) u32);

impl Cents {
    pub(crate) fn times(self, quantity: u32) -> Self {
        Self(self.0 * quantity)
    }
}

impl Add for Cents {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl Sum for Cents {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self(0), Add::add)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Currency {
    #[default]
    Eur,
    Gbp,
    Usd,
}

impl Currency {
    pub(crate) const ALL: [Self; 3] = [Self::Eur, Self::Gbp, Self::Usd];

    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Eur => "eur",
            Self::Gbp => "gbp",
            Self::Usd => "usd",
        }
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Eur => "€",
            Self::Gbp => "£",
            Self::Usd => "$",
        }
    }

    /// Hundredths of this for one euro. The shop's own, and fixed.
    fn rate(self) -> u32 {
        match self {
            Self::Eur => 100,
            Self::Gbp => 85,
            Self::Usd => 110,
        }
    }

    /// The price of one thing that costs so many euro cents. Prices are converted one by one and then
    /// added up, so that the sums that customers see are right.
    pub(crate) fn price(self, euro: Cents) -> Cents {
        Cents((euro.0 * self.rate()).div_ceil(100))
    }
}

/// How amounts are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style(pub(crate) Language, pub(crate) Currency);

impl Style {
    pub(crate) fn write(self, amount: Cents) -> String {
        let Self(language, currency) = self;
        let (whole, rest) = (amount.0 / 100, amount.0 % 100);
        let mut text = String::new();
        // A `String` takes what is written to it.
        let _ = match language {
            Language::English => write!(text, "{}{whole}.{rest:02}", currency.symbol()),
            // The space must not end a line.
            Language::German => write!(text, "{whole},{rest:02}\u{a0}{}", currency.symbol()),
        };
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_always_show_two_digits() {
        let english = Style(Language::English, Currency::Eur);
        assert_eq!(english.write(Cents(5)), "€0.05");
        assert_eq!(english.write(Cents(24_50)), "€24.50");
        let german = Style(Language::German, Currency::Gbp);
        assert_eq!(german.write(Cents(19_95) + Cents(5)), "20,00\u{a0}£");
    }

    #[test]
    fn prices_are_converted_one_by_one() {
        assert_eq!(Currency::Eur.price(Cents(24_50)), Cents(24_50));
        assert_eq!(Currency::Usd.price(Cents(24_50)), Cents(26_95));
        // 16.9575, and nobody pays a fraction of a penny.
        assert_eq!(Currency::Gbp.price(Cents(19_95)), Cents(16_96));
    }

    #[test]
    fn preferences_of_an_older_shop_are_still_read() {
        let old: Preferences = serde_json::from_str(r#"{"theme":"dark"}"#).expect("it is JSON");
        assert_eq!(old.theme, Some(Theme::Dark));
        assert_eq!(old.language, Language::English);
    }
}
