//! The cart: which products, how many, what they cost.

use std::collections::BTreeMap;

use cloakroom::SessionValue;
use serde::{Deserialize, Serialize};

use crate::catalogue::{CATALOGUE, Cents, Product};

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
    pub(crate) fn price(&self) -> Cents {
        self.product.price.times(self.quantity)
    }
}

impl Cart {
    /// One more of a product; `false` if there are as many as there may be.
    pub(crate) fn add(&mut self, product: &Product) -> bool {
        let quantity = self.0.entry(product.slug.to_owned()).or_default();
        let fits = *quantity < MAX_QUANTITY;
        *quantity += u32::from(fits);
        fits
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

    pub(crate) fn total(&self) -> Cents {
        self.lines().map(|line| line.price()).sum()
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
        cart.add(product("umbrella"));
        assert_eq!(cart.count(), 4);
        assert_eq!(cart.total(), Cents(3 * 19_95 + 24_50));
    }

    #[test]
    fn adding_stops_at_the_largest_quantity() {
        let mut cart = Cart::default();
        cart.set(product("hat"), MAX_QUANTITY - 1);
        assert!(cart.add(product("hat")));
        assert!(!cart.add(product("hat")));
        assert_eq!(cart.count(), MAX_QUANTITY);
    }

    #[test]
    fn the_fullest_cart_has_a_total() {
        let mut cart = Cart::default();
        for product in &CATALOGUE {
            cart.set(product, MAX_QUANTITY);
        }
        let each: u64 = CATALOGUE
            .iter()
            .map(|product| u64::from(product.price.0))
            .sum();
        assert_eq!(u64::from(cart.total().0), each * u64::from(MAX_QUANTITY));
    }

    #[test]
    fn quantity_zero_removes_the_line() {
        let mut cart = Cart::default();
        cart.add(product("hat"));
        cart.set(product("hat"), 0);
        assert_eq!(cart, Cart::default());
    }

    #[test]
    fn taking_out_what_was_ordered_leaves_what_came_in_meanwhile() {
        let mut ordered = Cart::default();
        ordered.set(product("hat"), 2);
        let mut cart = Cart::default();
        cart.set(product("hat"), 3);
        cart.add(product("bag"));
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
