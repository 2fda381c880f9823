//! Extractors and rejections for axum.

mod csrf;
mod plain_http;
mod signed_in;

use std::fmt;

use axum_core::body::Body;
use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::request::Parts;

pub use self::csrf::{CsrfForm, CsrfFormRejection, CsrfHeader};
use self::plain_http::is_on_plain_http;
pub use self::signed_in::{FreshlySignedIn, SignInRejection};
use crate::error::Error;
use crate::response::MISSING_LAYER;
use crate::session::{LazySession, Session};
use crate::sessions::Sessions;
use crate::typed::{SessionValue, Typed};

/// Why a handler did not get its session.
#[derive(Debug)]
#[non_exhaustive]
pub enum SessionRejection {
    /// No [`SessionLayer`](crate::SessionLayer) is around the route: a mistake in the application.
    MissingLayer,
    /// The session or its value could not be read.
    Failed(Error),
}

impl SessionRejection {
    /// The status of the response: 500 for a missing layer, else [`Error::status`].
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::MissingLayer => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Failed(error) => error.status(),
        }
    }

    /// The text of the response.
    ///
    /// A missing layer shows on the first request of a developer, and says what to add; of other
    /// errors a client is told the status and no more.
    #[must_use]
    pub fn body_text(&self) -> String {
        match self {
            Self::MissingLayer => self.to_string(),
            Self::Failed(error) => plain(error.status()),
        }
    }
}

impl fmt::Display for SessionRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingLayer => f.write_str(MISSING_LAYER),
            Self::Failed(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SessionRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::MissingLayer => None,
            Self::Failed(error) => error.source(),
        }
    }
}

impl From<Error> for SessionRejection {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl IntoResponse for SessionRejection {
    fn into_response(self) -> Response {
        match self {
            Self::MissingLayer => {
                tracing::error!("{self}");
                (self.status(), self.body_text()).into_response()
            }
            Self::Failed(error) => error.into_response(),
        }
    }
}

/// A plain response with [`Error::status`]; the error is in its extensions.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = self.status();
        // Of failures of its store the layer has told.
        if status.is_server_error() && !self.is_store() {
            tracing::error!(error = %crate::error::Chain(&self), "session error in a handler");
        }
        let mut response = Response::new(Body::from(plain(status)));
        *response.status_mut() = status;
        let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
        response.headers_mut().insert(CONTENT_TYPE, text);
        if let Some(challenge) = self.challenge() {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        response
    }
}

fn plain(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().to_owned()
}

fn lazy(parts: &Parts) -> Result<&LazySession, SessionRejection> {
    let lazy = parts.extensions.get();
    lazy.ok_or(SessionRejection::MissingLayer)
}

async fn load(parts: &Parts) -> Result<Session, SessionRejection> {
    let lazy = lazy(parts)?;
    let session = lazy.load().await?;
    if session.is_new() && is_on_plain_http(&parts.headers) {
        lazy.note_plain_http();
    }
    Ok(session)
}

impl<S: Sync> FromRequestParts<S> for LazySession {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let lazy = lazy(parts)?;
        lazy.give();
        Ok(lazy.clone())
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        load(parts).await
    }
}

/// `None` for a client that has no live session.
impl<S: Sync> OptionalFromRequestParts<S> for Session {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        let session = load(parts).await?;
        Ok((!session.is_new()).then_some(session))
    }
}

/// The sessions of the layer around the route. The request's own is not asked for.
impl<S: Sync> FromRequestParts<S> for Sessions {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::new(lazy(parts)?.context()))
    }
}

impl<S: Sync, T: SessionValue + Send> FromRequestParts<S> for Typed<T> {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let session = load(parts).await?;
        Ok(Self::new(&session)?)
    }
}
