//! Extractors of who is signed in.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, IntoResponseParts, Response, ResponseParts};
use http::request::Parts;
use http::{HeaderValue, StatusCode};

use super::{SessionRejection, load};
use crate::clear_site_data::ClearSiteData;
use crate::guard::{Refusal, SignedIn, admit, redirect};
use crate::session::LazySession;

/// Why a handler did not get its [`SignedIn`] or [`FreshlySignedIn`].
#[derive(Debug)]
#[non_exhaustive]
pub enum SignInRejection {
    /// Nobody is signed in ([`Error::is_sign_in_needed`](crate::Error::is_sign_in_needed)), or not
    /// recently enough ([`Error::is_step_up_needed`](crate::Error::is_step_up_needed)), or the session
    /// could not be read.
    Session(SessionRejection),
    /// The client looks at a page and is sent to this address, to sign in.
    Redirect(HeaderValue),
}

impl SignInRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Session(rejection) => rejection.status(),
            Self::Redirect(_) => StatusCode::SEE_OTHER,
        }
    }
}

impl From<Refusal> for SignInRejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::MissingLayer => Self::Session(SessionRejection::MissingLayer),
            Refusal::Failed(error) => Self::Session(error.into()),
            Refusal::Redirect(location) => Self::Redirect(location),
        }
    }
}

impl fmt::Display for SignInRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(rejection) => rejection.fmt(f),
            Self::Redirect(_) => f.write_str("the client is sent to the page to sign in at"),
        }
    }
}

impl std::error::Error for SignInRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(rejection) => std::error::Error::source(rejection),
            Self::Redirect(_) => None,
        }
    }
}

impl IntoResponse for SignInRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Session(rejection) => rejection.into_response(),
            Self::Redirect(location) => redirect(location),
        }
    }
}

fn lazy_in(parts: &Parts) -> Option<LazySession> {
    parts.extensions.get().cloned()
}

impl<S: Sync> FromRequestParts<S> for SignedIn {
    type Rejection = SignInRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(admit(lazy_in(parts), None).await?)
    }
}

/// `None` if nobody is signed in.
impl<S: Sync> OptionalFromRequestParts<S> for SignedIn {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>, Self::Rejection> {
        let session = load(parts).await?;
        Ok(Self::of(&session))
    }
}

/// Somebody who signed in at most `SECONDS` ago: for what a session that was left open must not do,
/// such as changing the password (ASVS 7.5.1, 7.5.3).
///
/// Others get a 401 that says so with `insufficient_user_authentication` (RFC 9470), or are sent to the
/// [`step_up_page`](crate::SessionLayerBuilder::step_up_page). Let them prove again who they are, and
/// call [`Session::sign_in`](crate::Session::sign_in). It dereferences to [`SignedIn`].
///
/// ```
/// use cloakroom::FreshlySignedIn;
///
/// async fn change_password(user: FreshlySignedIn<300>) -> String {
///     format!("{} may", user.owner())
/// }
/// # let _: axum::routing::MethodRouter = axum::routing::post(change_password);
/// ```
#[derive(Clone, Debug)]
// Nobody else makes one of somebody who has not signed in lately.
#[non_exhaustive]
pub struct FreshlySignedIn<const SECONDS: u64>(pub SignedIn);

impl<const SECONDS: u64> Deref for FreshlySignedIn<SECONDS> {
    type Target = SignedIn;

    fn deref(&self) -> &SignedIn {
        &self.0
    }
}

impl<S: Sync, const SECONDS: u64> FromRequestParts<S> for FreshlySignedIn<SECONDS> {
    type Rejection = SignInRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let within = Duration::from_secs(SECONDS);
        Ok(Self(admit(lazy_in(parts), Some(within)).await?))
    }
}

impl IntoResponseParts for ClearSiteData {
    type Error = std::convert::Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Self::Error> {
        parts.headers_mut().insert(Self::NAME, self.value());
        Ok(parts)
    }
}

impl IntoResponse for ClearSiteData {
    fn into_response(self) -> Response {
        (self, ()).into_response()
    }
}
