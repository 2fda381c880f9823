//! Extractors that give the CSRF token out and check it.

use std::borrow::Cow;
use std::fmt;

use axum_core::extract::rejection::BytesRejection;
use axum_core::extract::{FromRequest, FromRequestParts, Request};
use axum_core::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use serde::de::DeserializeOwned;

use super::{SessionRejection, load};
use crate::csrf::CsrfToken;
use crate::error::Result;
use crate::session::Session;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<S: Sync> FromRequestParts<S> for CsrfToken {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let session = load(parts).await?;
        Ok(session.csrf_token()?)
    }
}

fn sent_in_header(headers: &HeaderMap) -> Option<&str> {
    headers.get(CsrfToken::HEADER)?.to_str().ok()
}

/// Lets only requests through whose header `X-CSRF-Token` has a [`CsrfToken`] of their session: for what
/// scripts send. Others get a 403.
///
/// ```
/// use cloakroom::{CsrfHeader, Session};
///
/// async fn add_to_cart(_: CsrfHeader, session: Session) -> cloakroom::Result<()> {
///     session.update("items", |n: &mut u32| *n += 1)
/// }
/// # let _: axum::routing::MethodRouter = axum::routing::post(add_to_cart);
/// ```
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CsrfHeader;

impl<S: Sync> FromRequestParts<S> for CsrfHeader {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let session = load(parts).await?;
        session.verify_csrf(sent_in_header(&parts.headers).unwrap_or_default())?;
        Ok(Self)
    }
}

/// A form (`application/x-www-form-urlencoded`) whose field `csrf_token`, or whose header
/// `X-CSRF-Token`, has a [`CsrfToken`] of its session: axum's `Form` with the check in front.
///
/// Nothing of a form without it reaches the handler: the response is a 403. The URL's query is not looked
/// at. A header decides if there is one. The body is bounded by axum's `DefaultBodyLimit`.
///
/// `T` is the rest of the form: the field `csrf_token` is taken out of it.
///
/// ```
/// use axum::{Router, response::Html, routing::get};
/// use cloakroom::{CsrfForm, CsrfToken, MemoryStore, Session, SessionLayer};
/// use serde::Deserialize;
///
/// async fn show(token: CsrfToken) -> Html<String> {
///     Html(format!(
///         r#"<form method="post">
///              <input type="hidden" name="csrf_token" value="{token}">
///              <input name="name"><button>Save</button>
///            </form>"#
///     ))
/// }
///
/// #[derive(Deserialize)]
/// struct Profile {
///     name: String,
/// }
///
/// async fn save(session: Session, CsrfForm(form): CsrfForm<Profile>) -> cloakroom::Result<()> {
///     session.insert("name", form.name)
/// }
///
/// # use axum::{body::Body, http::Request};
/// # use tower::ServiceExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router = Router::new()
///     .route("/", get(show).post(save))
///     .layer(SessionLayer::new(MemoryStore::new()));
/// let forged = Request::post("/")
///     .header("content-type", "application/x-www-form-urlencoded")
///     .body(Body::from("name=Mallory"));
/// assert_eq!(app.oneshot(forged.unwrap()).await.unwrap().status(), 403);
/// # }
/// ```
///
/// A form of one button has no other field, and is a `CsrfForm<()>`:
///
/// ```
/// use axum::response::{Html, Redirect};
/// use cloakroom::{CsrfForm, CsrfToken, Session};
///
/// async fn button(token: CsrfToken) -> Html<String> {
///     Html(format!(
///         r#"<form method="post" action="/sign-out">
///              <input type="hidden" name="csrf_token" value="{token}">
///              <button>Sign out</button>
///            </form>"#
///     ))
/// }
///
/// async fn sign_out(session: Session, _: CsrfForm<()>) -> cloakroom::Result<Redirect> {
///     session.destroy()?;
///     Ok(Redirect::to("/"))
/// }
/// # let _: axum::Router = axum::Router::new()
/// #     .route("/", axum::routing::get(button))
/// #     .route("/sign-out", axum::routing::post(sign_out));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CsrfForm<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for CsrfForm<T> {
    type Rejection = CsrfFormRejection;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        let (mut parts, body) = request.into_parts();
        let session = Session::from_request_parts(&mut parts, state)
            .await
            .map_err(CsrfFormRejection::Session)?;
        if !is_form(&parts.headers) {
            return Err(CsrfFormRejection::ContentType);
        }
        let in_header = sent_in_header(&parts.headers).map(str::to_owned);
        let request = Request::from_parts(parts, body);
        let body = bytes::Bytes::from_request(request, state)
            .await
            .map_err(CsrfFormRejection::Body)?;
        let (in_form, form) = take_token(&body);
        let sent = in_header.or(in_form).unwrap_or_default();
        session
            .verify_csrf(&sent)
            .map_err(|error| CsrfFormRejection::Session(error.into()))?;
        serde_urlencoded::from_bytes(&form)
            .map(Self)
            .map_err(|error| CsrfFormRejection::Form(error.into()))
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    let essence = |line: &http::HeaderValue| {
        let essence = line.as_bytes().split(|&byte| byte == b';').next();
        let essence = essence.unwrap_or_default().trim_ascii();
        essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded")
    };
    headers.get(CONTENT_TYPE).is_some_and(essence)
}

/// The token that a form carries, and the form without it.
fn take_token(body: &[u8]) -> (Option<String>, Vec<u8>) {
    let mut tokens = Vec::new();
    let mut others = Vec::new();
    for pair in body.split(|&byte| byte == b'&') {
        match token_in(pair) {
            Some(token) => tokens.push(token),
            None => others.push(pair),
        }
    }
    (tokens.into_iter().next(), others.join(&b'&'))
}

/// The value of a form's field, if that is the token's.
fn token_in(pair: &[u8]) -> Option<String> {
    let fields: Vec<(Cow<'_, str>, String)> = serde_urlencoded::from_bytes(pair).ok()?;
    let (key, value) = fields.into_iter().next()?;
    (key == CsrfToken::FIELD).then_some(value)
}

/// Why a handler did not get its [`CsrfForm`].
#[derive(Debug)]
#[non_exhaustive]
pub enum CsrfFormRejection {
    /// The token is missing or not the session's ([`Error::is_csrf`](crate::Error::is_csrf): 403), or
    /// there is no session to be read.
    Session(SessionRejection),
    /// The body is not declared as a form: 415.
    ContentType,
    /// The body could not be read, or is too long.
    Body(BytesRejection),
    /// The form does not have the fields that are wanted: 422.
    Form(BoxError),
}

impl CsrfFormRejection {
    /// The status of the response.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Session(rejection) => rejection.status(),
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(rejection) => rejection.status(),
            Self::Form(_) => StatusCode::UNPROCESSABLE_ENTITY,
        }
    }
}

impl fmt::Display for CsrfFormRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Session(rejection) => rejection.fmt(f),
            Self::ContentType => {
                f.write_str("a form is sent as `application/x-www-form-urlencoded`")
            }
            Self::Body(rejection) => rejection.fmt(f),
            Self::Form(error) => write!(f, "the form's fields are not those wanted: {error}"),
        }
    }
}

impl std::error::Error for CsrfFormRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Session(rejection) => std::error::Error::source(rejection),
            Self::ContentType => None,
            Self::Body(rejection) => std::error::Error::source(rejection),
            Self::Form(error) => Some(&**error),
        }
    }
}

impl IntoResponse for CsrfFormRejection {
    fn into_response(self) -> Response {
        match self {
            Self::Session(rejection) => rejection.into_response(),
            Self::Body(rejection) => rejection.into_response(),
            Self::ContentType | Self::Form(_) => (self.status(), self.to_string()).into_response(),
        }
    }
}
