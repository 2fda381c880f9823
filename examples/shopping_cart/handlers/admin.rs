//! For the administrator: everybody's sessions.

use std::time::SystemTime;

use axum::extract::{FromRequestParts, OptionalFromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::{CsrfForm, SessionId, SignedIn};
use maud::Markup;
use serde::Deserialize;

use crate::app::not_found;
use crate::handlers::account::{ChosenDevice, Fresh, devices};
use crate::handlers::{Answer, Refusal, Shop};
use crate::pages;
use crate::pages::admin::Overview;
use crate::preferences::Text;
use crate::visitor::{Visitor, note, note_about};

/// The administrator, who has just shown their password. For anybody else there is no such page.
#[derive(Debug)]
pub(crate) struct Administrator(SignedIn);

impl FromRequestParts<Shop> for Administrator {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Response> {
        let user = <SignedIn as OptionalFromRequestParts<Shop>>::from_request_parts(parts, shop);
        let user = user.await.map_err(IntoResponse::into_response)?;
        if !user.is_some_and(|user| shop.accounts.is_administrator(user.owner())) {
            return Err(not_found());
        }
        let fresh = Fresh::from_request_parts(parts, shop).await;
        Ok(Self(fresh.map_err(IntoResponse::into_response)?.0))
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct Chosen {
    #[serde(default)]
    user: String,
}

pub(crate) async fn page(
    Administrator(admin): Administrator,
    State(shop): State<Shop>,
    Query(chosen): Query<Chosen>,
) -> Answer<Markup> {
    let session = admin.session();
    let devices = match shop.accounts.id(&chosen.user) {
        Some(id) => devices(&shop, &id, session).await?,
        None => Vec::new(),
    };
    let overview = Overview {
        names: shop.accounts.names(),
        devices,
        user: chosen.user,
        paid: shop.payments.paid(),
        now: SystemTime::now(),
    };
    let visitor = Visitor::of(session)?;
    Ok(pages::admin::page(
        &visitor,
        &session.csrf_token()?,
        &overview,
    ))
}

pub(crate) async fn sign_out_session(
    Administrator(admin): Administrator,
    State(shop): State<Shop>,
    CsrfForm(form): CsrfForm<ChosenDevice>,
) -> Answer<Redirect> {
    let id: SessionId = form.device.parse().map_err(|_| Refusal::NotFound)?;
    let text = if shop.sessions.revoke(id).await? {
        Text("The session is ended.", "Die Sitzung ist beendet.")
    } else {
        Text("It had ended already.", "Sie war schon beendet.")
    };
    tracing::warn!(by = admin.owner(), session = %id, "session ended");
    note(admin.session(), text)?;
    Ok(Redirect::to("/admin"))
}

pub(crate) async fn sign_out_user(
    Administrator(admin): Administrator,
    State(shop): State<Shop>,
    CsrfForm(chosen): CsrfForm<Chosen>,
) -> Answer<Redirect> {
    let id = shop.accounts.id(&chosen.user).ok_or(Refusal::NotFound)?;
    let text = if id == admin.owner() {
        shop.sessions.revoke_others(admin.session()).await?;
        Text(
            "{} is signed out everywhere else.",
            "{} ist sonst überall abgemeldet.",
        )
    } else {
        shop.sessions.revoke_all(&id).await?;
        Text("{} is signed out everywhere.", "{} ist überall abgemeldet.")
    };
    tracing::warn!(by = admin.owner(), user = id, "all sessions ended");
    note_about(admin.session(), text, &chosen.user)?;
    Ok(Redirect::to("/admin"))
}

pub(crate) async fn sign_out_everyone(
    Administrator(admin): Administrator,
    State(shop): State<Shop>,
    _: CsrfForm<()>,
) -> Answer<Markup> {
    let visitor = Visitor::of(admin.session())?;
    let count = shop.sessions.revoke_everyone().await?;
    tracing::warn!(by = admin.owner(), count, "everybody's sessions ended");
    admin.session().destroy()?;
    Ok(pages::admin::everybody_left(visitor.preferences))
}
