//! The theme, sign-in and sign-out.

use std::time::Duration;

use axum::Form;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use cloakroom::Session;
use maud::Markup;
use serde::Deserialize;

use crate::handlers::{Answer, Refusal};
use crate::pages;
use crate::visitor::{THEME, Theme, User, Visitor, note};

#[derive(Debug, Deserialize)]
pub(crate) struct ThemeForm {
    #[serde(default)]
    theme: String,
    #[serde(default)]
    back: String,
}

pub(crate) async fn set_theme(session: Session, Form(form): Form<ThemeForm>) -> Answer<Redirect> {
    match [Theme::Light, Theme::Dark]
        .into_iter()
        .find(|theme| theme.value() == form.theme)
    {
        Some(theme) => session.insert(THEME, theme)?,
        None => {
            session.remove(THEME)?;
        }
    }
    // One of our own pages: a form must not be able to send anybody elsewhere.
    let back = pages::PATHS.into_iter().find(|path| *path == form.back);
    Ok(Redirect::to(back.unwrap_or("/")))
}

const REMEMBERED: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Debug, Deserialize)]
pub(crate) struct Credentials {
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    /// Checkboxes send their name or nothing.
    remember: Option<String>,
}

pub(crate) async fn sign_in_form(session: Session) -> Answer<Markup> {
    if session.owner().is_some() {
        return Err(Refusal::Elsewhere("/"));
    }
    Ok(pages::account::sign_in(&Visitor::of(&session)?, None))
}

pub(crate) async fn sign_in(session: Session, Form(form): Form<Credentials>) -> Answer {
    let name = form.name.trim();
    let Some(user) = User::with_password(name, &form.password) else {
        let page = pages::account::sign_in(&Visitor::of(&session)?, Some(name));
        // Any 4xx keeps password managers from saving a wrong password. Not 401, which must name an
        // HTTP authentication scheme (RFC 9110 section 15.5.2), and this form is none.
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    // The guest's cart comes along, under a new token: one that somebody planted or saw before is
    // worth nothing from here on.
    session.sign_in(user.id)?;
    if form.remember.is_some() {
        session.remember(REMEMBERED)?;
    }
    let visitor = Visitor::of(&session)?;
    note(&session, format!("Welcome, {}.", user.name))?;
    Ok(Redirect::to(if visitor.items > 0 { "/cart" } else { "/" }).into_response())
}

pub(crate) async fn sign_out(session: Session) -> Answer<Redirect> {
    let theme = session.get::<Theme>(THEME)?;
    session.destroy()?;
    // From here on it is another session, under another id: nothing that was personal is in it.
    if let Some(theme) = theme {
        session.insert(THEME, theme)?;
    }
    note(&session, "You are signed out.")?;
    Ok(Redirect::to("/"))
}
