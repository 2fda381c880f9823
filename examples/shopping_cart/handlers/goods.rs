//! The products and the cart.

use axum::Form;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use cloakroom::{Session, Typed};
use maud::Markup;
use serde::Deserialize;

use crate::cart::{Cart, parse_quantity};
use crate::catalogue::{self, Product};
use crate::handlers::{Answer, Refusal};
use crate::pages;
use crate::preferences::{Preferences, Text};
use crate::visitor::{Visit, Visitor, note_about};

pub(crate) async fn list(session: Session) -> Answer<Markup> {
    Ok(pages::goods::list(&Visitor::of(&session)?))
}

pub(crate) async fn product(session: Session, Path(slug): Path<String>) -> Answer<Markup> {
    let product = catalogue::find(&slug).ok_or(Refusal::NotFound)?;
    Ok(pages::goods::product(
        &Visitor::of(&session)?,
        product,
        None,
    ))
}

pub(crate) async fn cart(visit: Visit) -> Answer<Markup> {
    let visitor = Visitor::of(&visit.session)?;
    let cart = Typed::<Cart>::new(&visit.session)?;
    Ok(pages::goods::cart(&visitor, &cart, visit.ended, None))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    product: String,
    quantity: Option<String>,
}

impl Chosen {
    fn product(&self) -> Answer<&'static Product> {
        catalogue::find(&self.product).ok_or(Refusal::NotFound)
    }

    /// What was typed, and the quantity that it is, if it is one.
    fn quantity(&self) -> (&str, Option<u32>) {
        let typed = self.quantity.as_deref().unwrap_or("1");
        (typed, parse_quantity(typed))
    }
}

/// Somebody who clicks twice, or in two windows, gets two: where requests meet, `update` runs the
/// closure again on what the other one stored. With `get` and `insert` the later would win alone.
pub(crate) async fn add(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer {
    let product = chosen.product()?;
    let (typed, quantity) = chosen.quantity();
    let Some(quantity @ 1..) = quantity else {
        let visitor = Visitor::of(cart.session())?;
        let page = pages::goods::product(&visitor, product, Some(typed));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let text = if cart.update(move |cart| cart.add(product, quantity))? {
        Text("{} is in your cart.", "{} ist im Korb.")
    } else {
        Text(
            "Your cart has 99 of {}, which is all we have.",
            "Im Korb ist 99-mal {}: mehr haben wir nicht.",
        )
    };
    let session = cart.session();
    let language = Typed::<Preferences>::new(session)?.language;
    note_about(session, text, language.say(product.name))?;
    Ok(Redirect::to(&format!("/#{}", product.slug)).into_response())
}

pub(crate) async fn set_quantity(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer {
    let product = chosen.product()?;
    let (typed, quantity) = chosen.quantity();
    let Some(quantity) = quantity else {
        let visitor = Visitor::of(cart.session())?;
        let page = pages::goods::cart(&visitor, &cart, None, Some((product, typed)));
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    cart.update(move |cart| cart.set(product, quantity))?;
    Ok(Redirect::to("/cart").into_response())
}

pub(crate) async fn remove(mut cart: Typed<Cart>, Form(chosen): Form<Chosen>) -> Answer<Redirect> {
    let product = chosen.product()?;
    cart.update(|cart| cart.set(product, 0))?;
    let session = cart.session();
    let language = Typed::<Preferences>::new(session)?.language;
    note_about(
        session,
        Text(
            "{} is no longer in your cart.",
            "{} ist nicht mehr im Korb.",
        ),
        language.say(product.name),
    )?;
    Ok(Redirect::to("/cart"))
}
