//! The checkout, step by step.

use axum::Form;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use cloakroom::{Session, SessionValue, Typed};
use maud::Markup;
use serde::Deserialize;

use crate::cart::Cart;
use crate::checkout::{Address, Choice, Mistakes, Order, Step, first_open};
use crate::handlers::{Answer, Refusal, Shop};
use crate::pages;
use crate::preferences::{Preferences, Text};
use crate::visitor::{Visitor, note};

const ORDER: &str = "order";
const THANKS: &str = "/checkout/thanks";

/// What the session has of a checkout.
struct Checkout {
    cart: Typed<Cart>,
    address: Typed<Address>,
    choice: Typed<Choice>,
    preferences: Typed<Preferences>,
}

impl Checkout {
    /// Opens a step, unless something is missing that comes before it.
    fn open(session: &Session, step: Step) -> Answer<Self> {
        let cart = Typed::<Cart>::new(session)?;
        if cart.is_empty() {
            return Err(Refusal::Elsewhere("/cart"));
        }
        let address = Typed::<Address>::new(session)?;
        let choice = Typed::<Choice>::new(session)?;
        let open = first_open(&address, &choice);
        if step > open {
            return Err(Refusal::Elsewhere(open.path()));
        }
        Ok(Self {
            cart,
            address,
            choice,
            preferences: Typed::new(session)?,
        })
    }

    fn order(&self) -> Answer<Order> {
        let Preferences {
            language, currency, ..
        } = *self.preferences;
        Order::new(&self.cart, &self.address, &self.choice, language, currency)
            .ok_or(Refusal::Elsewhere(Step::Delivery.path()))
    }
}

pub(crate) async fn address(session: Session) -> Answer<Markup> {
    let Checkout { address, .. } = Checkout::open(&session, Step::Address)?;
    Ok(pages::wizard::address(
        &Visitor::of(&session)?,
        &address,
        &Mistakes::default(),
    ))
}

pub(crate) async fn save_address(session: Session, Form(address): Form<Address>) -> Answer {
    Checkout::open(&session, Step::Address)?;
    let address = address.tidy();
    // Right or wrong, it is there when they come back. What was typed last counts, so this is not
    // an `update`.
    session.insert(Address::KEY, &address)?;
    let mistakes = address.check();
    if mistakes.is_empty() {
        return Ok(Redirect::to(Step::Delivery.path()).into_response());
    }
    let page = pages::wizard::address(&Visitor::of(&session)?, &address, &mistakes);
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

pub(crate) async fn delivery(session: Session) -> Answer<Markup> {
    choice_page(&session, Step::Delivery)
}

pub(crate) async fn payment(session: Session) -> Answer<Markup> {
    choice_page(&session, Step::Payment)
}

fn choice_page(session: &Session, step: Step) -> Answer<Markup> {
    let Checkout { choice, .. } = Checkout::open(session, step)?;
    let visitor = Visitor::of(session)?;
    Ok(pages::wizard::choice(
        &visitor,
        step,
        &choice,
        &Mistakes::default(),
    ))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ChoiceForm {
    delivery: String,
    payment: String,
}

pub(crate) async fn save_delivery(session: Session, Form(form): Form<ChoiceForm>) -> Answer {
    let choose = move |choice: &mut Choice| choice.deliver(&form.delivery);
    save_choice(&session, Step::Delivery, choose, Step::Payment)
}

pub(crate) async fn save_payment(
    session: Session,
    State(shop): State<Shop>,
    Form(form): Form<ChoiceForm>,
) -> Answer {
    // Not in the closure, which may run more than once.
    let number = shop.numbers.next();
    let choose = move |choice: &mut Choice| {
        choice.pay(&form.payment);
        choice.order.get_or_insert(number);
    };
    save_choice(&session, Step::Payment, choose, Step::Summary)
}

fn save_choice(
    session: &Session,
    step: Step,
    choose: impl FnMut(&mut Choice) + Send + 'static,
    next: Step,
) -> Answer {
    let Checkout { mut choice, .. } = Checkout::open(session, step)?;
    choice.update(choose)?;
    let mistakes = choice.check(step);
    if mistakes.is_empty() {
        return Ok(Redirect::to(next.path()).into_response());
    }
    let page = pages::wizard::choice(&Visitor::of(session)?, step, &choice, &mistakes);
    Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response())
}

pub(crate) async fn summary(session: Session) -> Answer<Markup> {
    let order = Checkout::open(&session, Step::Summary)?.order()?;
    Ok(pages::wizard::summary(&Visitor::of(&session)?, &order))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Confirmation {
    /// The total that the customer saw.
    #[serde(default)]
    seen: String,
}

pub(crate) async fn confirm(session: Session, Form(form): Form<Confirmation>) -> Answer<Redirect> {
    let checkout = match Checkout::open(&session, Step::Summary) {
        // The second of two clicks: the first has emptied the cart.
        Err(Refusal::Elsewhere(_)) if session.contains(ORDER) => return Ok(Redirect::to(THANKS)),
        other => other?,
    };
    let order = checkout.order()?;
    if form.seen != order.seen() {
        let text = Text(
            "Your cart has changed meanwhile. Please have another look.",
            "Ihr Korb hat sich inzwischen geändert. Bitte sehen Sie noch einmal hin.",
        );
        note(&session, text)?;
        return Ok(Redirect::to(Step::Summary.path()));
    }
    // A real shop stores the order here, its number being unique: where two confirmations of one
    // checkout meet, both have the same number and the second stores nothing.
    tracing::info!(number = order.number, total = order.seen(), "order placed");
    session.insert(ORDER, &order)?;
    let Checkout {
        mut cart,
        mut choice,
        ..
    } = checkout;
    let ordered = Cart::clone(&cart);
    cart.update(move |cart| cart.take_out(&ordered))?;
    choice.remove()?;
    Ok(Redirect::to(THANKS))
}

/// Shows an order once: it is taken out of the session.
pub(crate) async fn thanks(session: Session) -> Answer<Markup> {
    let order = session
        .take::<Order>(ORDER)?
        .ok_or(Refusal::Elsewhere("/"))?;
    Ok(pages::wizard::thanks(&Visitor::of(&session)?, &order))
}
