//! A counting application and its visitors, for tests of a store over HTTP.
#![allow(dead_code)]

use std::error::Error;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::store::StoreError;
use cloakroom::{Session, SessionId};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

pub(crate) fn id(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

/// An error and its causes.
pub(crate) fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// `/` counts in `n`; `/read` says `n`, or that the session is new; `/login` signs Ada in, `/logout` ends
/// the session.
pub(crate) fn routes() -> Router {
    let count = async |session: Session| {
        session.update("n", |n: &mut u64| {
            *n += 1;
            n.to_string()
        })
    };
    let read = async |session: Session| match session.is_new() {
        true => Ok("new".to_owned()),
        false => session
            .get::<u64>("n")
            .map(|n| n.unwrap_or_default().to_string()),
    };
    Router::new()
        .route("/", any(count))
        .route("/read", any(read))
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route("/logout", any(async |s: Session| s.destroy()))
}

pub(crate) async fn send(app: &Router, path: &str, cookie: &str) -> Response {
    let request = Request::get(path)
        .header(COOKIE, cookie)
        .body(Body::empty())
        .unwrap();
    app.clone().oneshot(request).await.unwrap()
}

pub(crate) async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The cookie that a response sets.
pub(crate) fn cookie(response: &Response) -> String {
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// The cookie of a new visitor, whose `n` is 1.
pub(crate) async fn visitor(app: &Router) -> String {
    cookie(&send(app, "/", "").await)
}

/// What a cookie's token spells: 16 bytes of the id, 20 of the secret.
pub(crate) fn token(cookie: &str) -> Vec<u8> {
    let (_, token) = cookie.split_once('=').unwrap();
    URL_SAFE_NO_PAD.decode(token).unwrap()
}
