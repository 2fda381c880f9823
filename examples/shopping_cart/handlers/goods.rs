//! The product list and the cart.

use axum::Form;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use cloakroom::{Session, Typed};
use maud::Markup;
use serde::Deserialize;

use crate::cart::{Cart, MAX_QUANTITY, parse_quantity};
use crate::catalogue::{self, Product};
use crate::handlers::{Answer, Refusal};
use crate::pages;
use crate::visitor::{Visitor, note};

pub(crate) async fn list(session: Session) -> Answer<Markup> {
    Ok(pages::goods::list(&Visitor::of(&session)?))
}

pub(crate) async fn cart(cart: Typed<Cart>) -> Answer<Markup> {
    let visitor = Visitor::of(cart.session())?;
    Ok(pages::goods::cart(&visitor, &cart, None))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    product: String,
    #[serde(default)]
    quantity: String,
}

impl Chosen {
    fn product(&self) -> Answer<&'static Product> {
        catalogue::find(&self.product).ok_or(Refusal::NotFound)
    }
}

/// Somebody who clicks twice, or in two windows, gets two: where requests meet, `update` runs the
/// closure again on what the other one stored. With `get` and `insert` the later would win alone.
pub(crate) async fn add(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer<Redirect> {
    let product = chosen.product()?;
    let text = if cart.update(|cart| cart.add(product))? {
        format!("{} is in your cart.", product.name)
    } else {
        format!(
            "Your cart has {MAX_QUANTITY} of {}, which is all we have.",
            product.name
        )
    };
    note(cart.session(), text)?;
    Ok(Redirect::to(&format!("/#{}", product.slug)))
}

pub(crate) async fn set_quantity(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer {
    let product = chosen.product()?;
    let Some(quantity) = parse_quantity(&chosen.quantity) else {
        let visitor = Visitor::of(cart.session())?;
        let page = pages::goods::cart(&visitor, &cart, Some((product, &chosen.quantity)));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    cart.update(move |cart| cart.set(product, quantity))?;
    Ok(Redirect::to("/cart").into_response())
}

pub(crate) async fn remove(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer<Redirect> {
    let product = chosen.product()?;
    cart.update(|cart| cart.set(product, 0))?;
    note(
        cart.session(),
        format!("{} is no longer in your cart.", product.name),
    )?;
    Ok(Redirect::to("/cart"))
}
