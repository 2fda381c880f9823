//! What the shop sells, and how prices are counted.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// An amount of money in whole cents: sums of fractions do not add up.
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

impl fmt::Display for Cents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "€{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[derive(Debug)]
pub(crate) struct Product {
    /// Its name in forms and in stored carts.
    pub(crate) slug: &'static str,
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    pub(crate) price: Cents,
    /// The inside of an SVG of 64 by 64, drawn in the page's own colours.
    pub(crate) picture: &'static str,
}

pub(crate) fn find(slug: &str) -> Option<&'static Product> {
    CATALOGUE.iter().find(|product| product.slug == slug)
}

pub(crate) static CATALOGUE: [Product; 8] = [
    Product {
        slug: "umbrella",
        name: "Umbrella",
        text: "Opens with one hand and holds in a gale.",
        price: Cents(24_50),
        picture: r#"<path class="wash" d="M8 34a24 24 0 0 1 48 0q-6-5-12 0-6-5-12 0-6-5-12 0-6-5-12 0z"/><path d="M32 10V5M32 34v18a5 5 0 0 0 10 0"/>"#,
    },
    Product {
        slug: "raincoat",
        name: "Raincoat",
        text: "Waxed cotton, dry for a whole day out.",
        price: Cents(89_00),
        picture: r#"<path class="wash" d="M24 9h16l6 5 9 27-8 3-5-13v25H22V31l-5 13-8-3 9-27z"/><path d="M24 9l8 8 8-8M32 17v39"/><path d="M36 27h.1M36 36h.1M36 45h.1"/>"#,
    },
    Product {
        slug: "boots",
        name: "Rubber boots",
        text: "Up to the knee, for puddles of any depth.",
        price: Cents(54_50),
        picture: r#"<path class="wash" d="M20 8h17v28l13 6q5 2 5 9H20z"/><path d="M18 51h38v5H18zM20 15h17"/>"#,
    },
    Product {
        slug: "hat",
        name: "Felt hat",
        text: "Keeps its shape on the peg and on you.",
        price: Cents(32_00),
        picture: r#"<path class="wash" d="M18 42c0-16 2-28 8-28q6 4 12 0c6 0 8 12 8 28z"/><path class="wash" d="M6 42q26-6 52 0-6 8-26 8T6 42z"/><path d="M18 36q14 4 28 0"/>"#,
    },
    Product {
        slug: "scarf",
        name: "Scarf",
        text: "Two metres of merino wool.",
        price: Cents(18_90),
        picture: r#"<path class="wash" d="M36 22l12 22-11 6-11-22z"/><path class="wash" d="M20 24h14v28H20z"/><path class="wash" d="M16 10h32q4 8 0 16H16q-4-8 0-16z"/><path d="M22 52v5M27 52v5M32 52v5M39 49l2 4M43 47l2 4M47 44l2 4M20 44h14"/>"#,
    },
    Product {
        slug: "mittens",
        name: "Mittens",
        text: "Lined, and on a string so that both stay.",
        price: Cents(21_90),
        picture: r#"<path class="wash" d="M19 44V23a12 12 0 0 1 24 0v7l4-4c5-4 9 2 6 6L43 44z"/><path d="M18 44h26v10H18zM24 44v10M31 44v10M38 44v10"/>"#,
    },
    Product {
        slug: "bag",
        name: "Canvas bag",
        text: "Carries all of the above.",
        price: Cents(29_00),
        picture: r#"<path class="wash" d="M14 24h36l4 32H10z"/><path d="M23 31V19a9 9 0 0 1 18 0v12"/>"#,
    },
    Product {
        slug: "flask",
        name: "Flask",
        text: "Tea at noon as hot as at breakfast.",
        price: Cents(19_95),
        picture: r#"<path class="wash" d="M22 20h20v32a5 5 0 0 1-5 5H27a5 5 0 0 1-5-5z"/><path d="M25 7h14v13H25zM22 29h20M22 48h20"/>"#,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cents_always_show_two_digits() {
        assert_eq!(Cents(5).to_string(), "€0.05");
        assert_eq!(Cents(24_50).to_string(), "€24.50");
        assert_eq!((Cents(19_95) + Cents(5)).to_string(), "€20.00");
    }

    #[test]
    fn every_product_is_found_by_its_own_slug() {
        for product in &CATALOGUE {
            assert_eq!(
                find(product.slug).map(|found| found.name),
                Some(product.name)
            );
        }
        assert!(find("Umbrella").is_none());
    }
}
