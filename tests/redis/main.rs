//! The Redis store on a real server: the contract, what lies in its keys, and what a server can do.
#![cfg(all(feature = "redis", feature = "axum"))]

mod faults;
mod keys;
mod opening;
mod races;
#[path = "../support/redis_server.rs"]
mod redis_server;

use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use cloakroom::store::{Digest, Record, StoreError, Timestamp};
use cloakroom::{RedisStore, Session, SessionId, SessionLayer, conformance_tests};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::BodyExt as _;
use redis_server::RedisServer;
use tower::ServiceExt as _;

conformance_tests!(contract, async { store().await });

/// How long the applications here wait for the store.
const DEADLINE: Duration = Duration::from_secs(1);

/// A prefix that no other test uses.
fn prefix() -> String {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    format!("test-{}:", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A store of its own on the shared server.
async fn store() -> RedisStore {
    under(RedisServer::shared(), &prefix()).await
}

async fn under(server: &RedisServer, prefix: &str) -> RedisStore {
    let store = RedisStore::connect(&server.url()).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    store.with_prefix(prefix).unwrap()
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn id(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

/// A record that lives for an hour.
fn record(owner: Option<&str>) -> Record {
    let now = now();
    let end = now.saturating_add(Duration::from_secs(3600));
    let mut record = Record::new(Digest::from_bytes([7; 32]), now, end);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| now);
    record
}

/// An error and its causes.
fn chain(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

/// An application whose `/` counts in `n`; `/read` says `n`, or that the session is new; `/login` signs
/// Ada in.
fn app(store: RedisStore) -> Router {
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
    let layer = SessionLayer::builder(store).store_timeout(DEADLINE);
    Router::new()
        .route("/", any(count))
        .route("/read", any(read))
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route("/logout", any(async |s: Session| s.destroy()))
        .layer(layer.build().unwrap())
}

async fn send(app: &Router, path: &str, cookie: &str) -> Response {
    let request = Request::get(path)
        .header(COOKIE, cookie)
        .body(Body::empty())
        .unwrap();
    app.clone().oneshot(request).await.unwrap()
}

async fn text(response: Response) -> String {
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(body.to_vec()).unwrap()
}

/// The cookie that a response sets.
fn cookie(response: &Response) -> String {
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// The cookie of a new visitor, whose `n` is 1.
async fn visitor(app: &Router) -> String {
    cookie(&send(app, "/", "").await)
}

/// What a cookie's token spells: 16 bytes of the id, 20 of the secret.
fn token(cookie: &str) -> Vec<u8> {
    use base64::Engine as _;
    let (_, token) = cookie.split_once('=').unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .unwrap()
}

/// The id of the session behind a cookie.
fn id_of(cookie: &str) -> SessionId {
    SessionId::from_bytes(token(cookie)[..16].try_into().unwrap())
}
