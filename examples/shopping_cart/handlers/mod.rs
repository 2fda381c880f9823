//! What each request does with the session. A form answers with 303 to the page that shows what it
//! did, so that reloading that page does not do it again; a form with a mistake answers with itself.

use std::sync::Arc;

use axum::response::{IntoResponse, Redirect, Response};
use cloakroom::Sessions;

use crate::accounts::Accounts;
use crate::checkout::OrderNumbers;
use crate::closing::Closing;
use crate::payments::Payments;

pub(crate) mod about;
pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod goods;
pub(crate) mod payment;
pub(crate) mod preferences;
pub(crate) mod session;
pub(crate) mod wizard;

/// What handlers work with, besides the session.
#[derive(Clone, Debug)]
pub(crate) struct Shop {
    pub(crate) accounts: Arc<Accounts>,
    pub(crate) numbers: Arc<OrderNumbers>,
    pub(crate) payments: Arc<Payments>,
    /// All sessions, not only the one of the request.
    pub(crate) sessions: Sessions,
    pub(crate) closing: Closing,
}

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
