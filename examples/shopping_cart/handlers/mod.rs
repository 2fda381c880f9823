//! What each request does with the session. A form answers with 303 to the page that shows what it
//! did, so that reloading that page does not do it again; a form with a mistake answers with itself.

use axum::response::{IntoResponse, Redirect, Response};

pub(crate) mod account;
pub(crate) mod goods;
pub(crate) mod wizard;

pub(crate) type Answer<T = Response> = Result<T, Refusal>;

/// Why a handler does not do what it was asked.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The layer makes the page, see `app::session_failed`.
    Session(cloakroom::Error),
    NotFound,
    /// Something else has to be done first, there.
    Elsewhere(&'static str),
}

impl From<cloakroom::Error> for Refusal {
    fn from(error: cloakroom::Error) -> Self {
        Self::Session(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        match self {
            Self::Session(error) => error.into_response(),
            Self::NotFound => crate::app::not_found(),
            Self::Elsewhere(path) => Redirect::to(path).into_response(),
        }
    }
}
