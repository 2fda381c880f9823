//! Accounts: register, sign in and out, devices, password.

use std::time::{Duration, SystemTime};

use axum::Form;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::{
    ClearSiteData, CsrfForm, FreshlySignedIn, Session, SessionId, SessionValue as _, SignedIn,
    Typed,
};
use maud::Markup;
use serde::Deserialize;

use crate::accounts::{name_mistake, password_mistake};
use crate::app::MAX_DEVICES;
use crate::cart::Cart;
use crate::checkout::Mistakes;
use crate::handlers::{Answer, Refusal, Shop};
use crate::pages;
use crate::pages::account::{Account, Device};
use crate::preferences::{Preferences, Text};
use crate::visitor::{USER, Visit, Visitor, note, note_about};

const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Somebody who has shown their password in the last ten minutes may do what hurts if it was not them: a
/// borrowed telephone must not be enough to lock its owner out (ASVS 7.5.2, 7.5.3). Others are sent to
/// `/account/confirm`.
pub(crate) type Fresh = FreshlySignedIn<600>;

/// Somebody who is signed in to an account of this shop. A session may have begun at another one on the same
/// store, or before a restart: then they are asked to sign in here.
#[derive(Debug)]
pub(crate) struct Customer(SignedIn);

impl FromRequestParts<Shop> for Customer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Response> {
        let user = <SignedIn as FromRequestParts<Shop>>::from_request_parts(parts, shop);
        let user = user.await.map_err(IntoResponse::into_response)?;
        if !shop.accounts.has(user.owner()) {
            return Err(Redirect::to("/sign-in?next=/account").into_response());
        }
        Ok(Self(user))
    }
}

/// The same, when they have just shown their password.
#[derive(Debug)]
pub(crate) struct FreshCustomer(SignedIn);

impl FromRequestParts<Shop> for FreshCustomer {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Response> {
        Customer::from_request_parts(parts, shop).await?;
        let fresh = Fresh::from_request_parts(parts, shop).await;
        Ok(Self(fresh.map_err(IntoResponse::into_response)?.0))
    }
}

/// The key of the device's name. It is a value of each session, so that its owner can tell them apart.
const DEVICE: &str = "device";

const WRONG: Text = Text(
    "Name or password is not right.",
    "Name oder Passwort stimmt nicht.",
);
const WRONG_PASSWORD: Text = Text("This is not your password.", "Das ist nicht Ihr Passwort.");

#[derive(Debug, Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    /// Checkboxes send their name or nothing.
    remember: Option<String>,
    /// The page that asked for the sign-in.
    #[serde(default)]
    next: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Next {
    #[serde(default)]
    next: String,
}

pub(crate) async fn sign_in_form(
    visit: Visit,
    State(shop): State<Shop>,
    Query(Next { next }): Query<Next>,
) -> Answer<Markup> {
    if is_customer(&visit.session, &shop) {
        return Err(Refusal::Elsewhere("/account"));
    }
    let visitor = Visitor::of(&visit.session)?;
    let none = Mistakes::default();
    Ok(pages::account::sign_in(
        &visitor,
        "",
        &next,
        visit.ended,
        &none,
    ))
}

fn is_customer(session: &Session, shop: &Shop) -> bool {
    session.owner().is_some_and(|id| shop.accounts.has(&id))
}

pub(crate) async fn sign_in(
    visit: Visit,
    State(shop): State<Shop>,
    Form(form): Form<Credentials>,
) -> Answer {
    let name = form.name.trim();
    let Some(id) = shop.accounts.check(name, &form.password).await else {
        let mut mistakes = Mistakes::default();
        // Which of the two is wrong is nobody's business.
        mistakes.note("password", WRONG);
        let visitor = Visitor::of(&visit.session)?;
        let page = pages::account::sign_in(&visitor, name, &form.next, None, &mistakes);
        // Any 4xx keeps password managers from saving a wrong password. Not 401, which must name an
        // HTTP authentication scheme (RFC 9110 section 15.5.2), and this form is none.
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let there = begin(&visit, &shop, &id, name, form.remember.is_some())?;
    note_about(
        &visit.session,
        Text("Welcome, {}.", "Willkommen, {}."),
        name,
    )?;
    let there = match pages::back(&form.next) {
        "/" => there,
        asked => asked,
    };
    Ok(Redirect::to(there).into_response())
}

pub(crate) async fn register_form(session: Session, State(shop): State<Shop>) -> Answer<Markup> {
    if is_customer(&session, &shop) {
        return Err(Refusal::Elsewhere("/account"));
    }
    let visitor = Visitor::of(&session)?;
    Ok(pages::account::register(&visitor, "", &Mistakes::default()))
}

pub(crate) async fn register(
    visit: Visit,
    State(shop): State<Shop>,
    Form(form): Form<Credentials>,
) -> Answer {
    let name = form.name.trim();
    let mut mistakes = Mistakes::default();
    if let Some(mistake) = name_mistake(name) {
        mistakes.note("name", mistake);
    }
    if let Some(mistake) = password_mistake(&form.password) {
        mistakes.note("password", mistake);
    }
    let mut id = None;
    if mistakes.is_empty() {
        id = shop.accounts.register(name, &form.password).await;
        if id.is_none() {
            mistakes.note(
                "name",
                Text("This name is taken.", "Dieser Name ist vergeben."),
            );
        }
    }
    let Some(id) = id else {
        let page = pages::account::register(&Visitor::of(&visit.session)?, name, &mistakes);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let there = begin(&visit, &shop, &id, name, form.remember.is_some())?;
    let text = Text(
        "Welcome, {}. Your account is open.",
        "Willkommen, {}. Ihr Konto ist offen.",
    );
    note_about(&visit.session, text, name)?;
    Ok(Redirect::to(there).into_response())
}

/// Makes the session that of somebody who has just shown who they are; where they go from here.
fn begin(visit: &Visit, shop: &Shop, id: &str, name: &str, remember: bool) -> Answer<&'static str> {
    let session = &visit.session;
    // The guest's cart comes along, under a new token: one that somebody planted or saw before is
    // worth nothing from here on.
    session.sign_in(id)?;
    session.insert(USER, name)?;
    if remember {
        session.remember(REMEMBERED)?;
    }
    session.insert(DEVICE, &visit.device)?;
    // And what they had in it when they left, perhaps on another device.
    let kept = shop.accounts.take_cart(id);
    let mut cart = Typed::<Cart>::new(session)?;
    cart.update(move |cart| cart.merge(&kept))?;
    Ok(if cart.is_empty() { "/" } else { "/cart" })
}

pub(crate) async fn sign_out(session: Session, State(shop): State<Shop>) -> Answer<Redirect> {
    if let Some(id) = session.owner() {
        shop.accounts
            .keep_cart(&id, &*Typed::<Cart>::new(&session)?);
    }
    leave(
        &session,
        Text("You are signed out.", "Sie sind abgemeldet."),
    )?;
    Ok(Redirect::to("/"))
}

/// Ends the session. Of what was in it the next one gets the preferences and nothing that is personal.
fn leave(session: &Session, text: Text) -> Answer<()> {
    let preferences = *Typed::<Preferences>::new(session)?;
    session.destroy()?;
    // From here on it is another session, under another id.
    if preferences != Preferences::default() {
        session.insert(Preferences::KEY, preferences)?;
    }
    note(session, text)?;
    Ok(())
}

/// Others are sent to sign in first.
pub(crate) async fn account(Customer(user): Customer, State(shop): State<Shop>) -> Answer<Markup> {
    account_page(&user, &shop, &Mistakes::default()).await
}

async fn account_page(user: &SignedIn, shop: &Shop, mistakes: &Mistakes) -> Answer<Markup> {
    let session = user.session();
    let account = Account {
        devices: devices(shop, user.owner(), session).await?,
        max_devices: MAX_DEVICES,
        is_warned: shop.accounts.is_warned(user.owner()),
        is_administrator: shop.accounts.is_administrator(user.owner()),
        now: SystemTime::now(),
    };
    let visitor = Visitor::of(session)?;
    let token = session.csrf_token()?;
    Ok(pages::account::account(
        &visitor, &token, &account, mistakes,
    ))
}

/// Where somebody is signed in, as it is shown in the session `here`.
pub(crate) async fn devices(shop: &Shop, owner: &str, here: &Session) -> Answer<Vec<Device>> {
    let mut devices = Vec::new();
    for info in shop.sessions.list(owner).await? {
        devices.push(Device {
            id: info.id(),
            name: info.get(DEVICE)?.unwrap_or_default(),
            signed_in: info.authenticated_at(),
            seen: info.last_seen_at(),
            here: here.id() == Some(info.id()),
        });
    }
    devices.sort_by_key(|device| (!device.here, std::cmp::Reverse(device.seen)));
    Ok(devices)
}

pub(crate) async fn confirm_form(
    Customer(user): Customer,
    Query(Next { next }): Query<Next>,
) -> Answer<Markup> {
    confirm_page(user.session(), &next, &Mistakes::default())
}

fn confirm_page(session: &Session, next: &str, mistakes: &Mistakes) -> Answer<Markup> {
    let visitor = Visitor::of(session)?;
    let token = session.csrf_token()?;
    Ok(pages::account::confirm(&visitor, &token, next, mistakes))
}

pub(crate) async fn confirm(
    Customer(user): Customer,
    State(shop): State<Shop>,
    CsrfForm(form): CsrfForm<Credentials>,
) -> Answer {
    if !shop
        .accounts
        .check_password(user.owner(), &form.password)
        .await
    {
        let mut mistakes = Mistakes::default();
        mistakes.note("password", WRONG_PASSWORD);
        let page = confirm_page(user.session(), &form.next, &mistakes)?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    // The same user: values stay, the token is new and the time of authentication is now.
    user.session().sign_in(user.owner())?;
    let there = match pages::back(&form.next) {
        "/" => "/account",
        asked => asked,
    };
    Ok(Redirect::to(there).into_response())
}

#[derive(Debug, Deserialize)]
pub(crate) struct ChosenDevice {
    #[serde(default)]
    pub(crate) device: String,
}

pub(crate) async fn sign_out_device(
    FreshCustomer(user): FreshCustomer,
    State(shop): State<Shop>,
    CsrfForm(form): CsrfForm<ChosenDevice>,
) -> Answer<Redirect> {
    let id: SessionId = form.device.parse().map_err(|_| Refusal::NotFound)?;
    // Only their own: an id is no secret, and no permission either.
    let mine = shop.sessions.list(user.owner()).await?;
    if !mine.iter().any(|info| info.id() == id) {
        return Err(Refusal::NotFound);
    }
    shop.sessions.revoke(id).await?;
    let text = Text("The device is signed out.", "Das Gerät ist abgemeldet.");
    note(user.session(), text)?;
    Ok(Redirect::to("/account"))
}

pub(crate) async fn sign_out_others(
    FreshCustomer(user): FreshCustomer,
    State(shop): State<Shop>,
    _: CsrfForm<()>,
) -> Answer<Redirect> {
    // This one gets a new token: if one of the others knows the old one, that is over, too.
    shop.sessions.revoke_others(user.session()).await?;
    shop.accounts.calm(user.owner());
    let text = Text(
        "All your other devices are signed out.",
        "Alle anderen Geräte sind abgemeldet.",
    );
    note(user.session(), text)?;
    Ok(Redirect::to("/account"))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Passwords {
    current: String,
    new: String,
}

pub(crate) async fn change_password(
    Customer(user): Customer,
    State(shop): State<Shop>,
    CsrfForm(form): CsrfForm<Passwords>,
) -> Answer {
    let mut mistakes = Mistakes::default();
    if !shop
        .accounts
        .check_password(user.owner(), &form.current)
        .await
    {
        mistakes.note("current", WRONG_PASSWORD);
    }
    if let Some(mistake) = password_mistake(&form.new) {
        mistakes.note("new", mistake);
    }
    if !mistakes.is_empty() {
        let page = account_page(&user, &shop, &mistakes).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    shop.accounts.set_password(user.owner(), &form.new).await;
    // Whoever came in with the old password goes (ASVS 7.4.3).
    let session = user.session();
    shop.sessions.revoke_others(session).await?;
    session.sign_in(user.owner())?;
    shop.accounts.calm(user.owner());
    let text = Text(
        "Your password is changed, and your other devices are signed out.",
        "Das Passwort ist geändert, und Ihre anderen Geräte sind abgemeldet.",
    );
    note(session, text)?;
    Ok(Redirect::to("/account").into_response())
}

pub(crate) async fn close_account(
    FreshCustomer(user): FreshCustomer,
    State(shop): State<Shop>,
    _: CsrfForm<()>,
) -> Answer {
    let visitor = Visitor::of(user.session())?;
    shop.accounts.close(user.owner());
    // Every device of theirs is nobody's from now on (ASVS 7.4.2).
    shop.sessions.revoke_all(user.owner()).await?;
    user.session().destroy()?;
    // And this browser forgets what it kept of the shop.
    let goodbye = pages::account::goodbye(visitor.preferences);
    Ok((ClearSiteData::new(), goodbye).into_response())
}
