//! The cart: which products, how many, what they cost.

use std::collections::BTreeMap;

use cloakroom::SessionValue;
use serde::{Deserialize, Serialize};

use crate::catalogue::{CATALOGUE, Product};
use crate::preferences::{Cents, Currency};

/// The most of one product in a cart.
pub(crate) const MAX_QUANTITY: u32 = 99;

/// Quantities by the product's slug. Prices are looked up when they are shown, so that a cart never
/// holds an old one, and a product that is sold no more drops out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cart(BTreeMap<String, u32>);

impl SessionValue for Cart {
    const KEY: &'static str = "cart";
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    pub(crate) product: &'static Product,
    pub(crate) quantity: u32,
}

impl Line {
    pub(crate) fn price(&self, currency: Currency) -> Cents {
        currency.price(self.product.price).times(self.quantity)
    }
}

impl Cart {
    /// So many more of a product; `false` if not all of them fit.
    pub(crate) fn add(&mut self, product: &Product, more: u32) -> bool {
        let quantity = self.0.entry(product.slug.to_owned()).or_default();
        let wanted = quantity.saturating_add(more);
        *quantity = wanted.min(MAX_QUANTITY);
        wanted <= MAX_QUANTITY
    }

    /// All that is in another cart as well.
    pub(crate) fn merge(&mut self, other: &Self) {
        for line in other.lines() {
            self.add(line.product, line.quantity);
        }
    }

    /// So many of a product; none removes it.
    pub(crate) fn set(&mut self, product: &Product, quantity: u32) {
        if quantity == 0 {
            self.0.remove(product.slug);
        } else {
            self.0.insert(product.slug.to_owned(), quantity);
        }
    }

    /// Takes out what has been ordered; what came in meanwhile stays.
    pub(crate) fn take_out(&mut self, ordered: &Self) {
        self.0.retain(|slug, quantity| {
            *quantity = quantity.saturating_sub(ordered.0.get(slug).copied().unwrap_or(0));
            *quantity > 0
        });
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = Line> {
        CATALOGUE.iter().filter_map(|product| {
            let quantity = *self.0.get(product.slug)?;
            Some(Line { product, quantity })
        })
    }

    pub(crate) fn count(&self) -> u32 {
        self.lines().map(|line| line.quantity).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count() == 0
    }

    pub(crate) fn total(&self, currency: Currency) -> Cents {
        self.lines().map(|line| line.price(currency)).sum()
    }
}

/// The quantity that somebody typed, if it is one.
pub(crate) fn parse_quantity(typed: &str) -> Option<u32> {
    typed
        .trim()
        .parse()
        .ok()
        .filter(|quantity| *quantity <= MAX_QUANTITY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::find;

    fn product(slug: &str) -> &'static Product {
        find(slug).expect("the catalogue has it")
    }

    #[test]
    fn totals_are_exact_to_the_cent() {
        let mut cart = Cart::default();
        cart.set(product("flask"), 3);
        cart.add(product("umbrella"), 1);
        assert_eq!(cart.count(), 4);
        assert_eq!(cart.total(Currency::Eur), Cents(3 * 19_95 + 24_50));
        assert_eq!(cart.total(Currency::Gbp), Cents(3 * 16_96 + 20_83));
    }

    #[test]
    fn adding_stops_at_the_largest_quantity() {
        let mut cart = Cart::default();
        cart.set(product("hat"), MAX_QUANTITY - 1);
        assert!(cart.add(product("hat"), 1));
        assert!(!cart.add(product("hat"), 1));
        assert!(!cart.add(product("bag"), u32::MAX));
        assert_eq!(cart.count(), 2 * MAX_QUANTITY);
    }

    #[test]
    fn the_fullest_cart_has_a_total() {
        let mut cart = Cart::default();
        for product in &CATALOGUE {
            cart.set(product, MAX_QUANTITY);
        }
        let each = |currency: Currency| -> u64 {
            let price = |product: &Product| u64::from(currency.price(product.price).0);
            CATALOGUE.iter().map(price).sum()
        };
        for currency in Currency::ALL {
            let total = u64::from(cart.total(currency).0);
            assert_eq!(total, each(currency) * u64::from(MAX_QUANTITY));
        }
    }

    #[test]
    fn quantity_zero_removes_the_line() {
        let mut cart = Cart::default();
        cart.add(product("hat"), 1);
        cart.set(product("hat"), 0);
        assert_eq!(cart, Cart::default());
    }

    #[test]
    fn taking_out_what_was_ordered_leaves_what_came_in_meanwhile() {
        let mut ordered = Cart::default();
        ordered.set(product("hat"), 2);
        let mut cart = Cart::default();
        cart.set(product("hat"), 3);
        cart.add(product("bag"), 1);
        cart.take_out(&ordered);
        let left: Vec<_> = cart
            .lines()
            .map(|line| (line.product.slug, line.quantity))
            .collect();
        assert_eq!(left, [("hat", 1), ("bag", 1)]);
        cart.take_out(&ordered);
        assert_eq!(cart.count(), 1);
    }

    #[test]
    fn two_carts_become_one() {
        let mut cart = Cart::default();
        cart.set(product("hat"), 2);
        let mut kept = Cart::default();
        kept.set(product("hat"), 98);
        kept.add(product("bag"), 1);
        cart.merge(&kept);
        let lines: Vec<_> = cart
            .lines()
            .map(|line| (line.product.slug, line.quantity))
            .collect();
        assert_eq!(lines, [("hat", MAX_QUANTITY), ("bag", 1)]);
    }

    #[test]
    fn a_product_that_is_sold_no_more_drops_out() {
        let cart = Cart([("gramophone".to_owned(), 1)].into());
        assert!(cart.is_empty());
    }

    #[test]
    fn only_whole_numbers_in_range_are_quantities() {
        assert_eq!(parse_quantity(" 7 "), Some(7));
        assert_eq!(parse_quantity("0"), Some(0));
        assert_eq!(parse_quantity("99"), Some(99));
        for typed in [
            "",
            "-1",
            "1.5",
            "100",
            "99999999999999999999",
            "NaN",
            "1e2",
            "seven",
        ] {
            assert_eq!(parse_quantity(typed), None, "{typed}");
        }
    }
}
