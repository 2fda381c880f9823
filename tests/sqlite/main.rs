//! The SQLite store: the contract, what a file and its rows can be, and several processes on one file.
#![cfg(all(feature = "sqlite", feature = "axum"))]

mod opening;
mod processes;
mod rows;
mod transactions;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use cloakroom::store::{Digest, Record, StoreError, Timestamp};
use cloakroom::{Session, SessionId, SessionLayer, SqliteStore, Synchronous, conformance_tests};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

conformance_tests!(file, async { SqliteStore::open(database()).unwrap() });
conformance_tests!(memory, async { SqliteStore::in_memory().unwrap() });
conformance_tests!(other_settings, async {
    let builder = SqliteStore::builder()
        .table("order")
        .synchronous(Synchronous::Normal);
    builder.open(database()).unwrap()
});

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// An empty directory for this test, which stays until the next run of it.
fn directory() -> PathBuf {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("main").replace("::", "-");
    let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join("sqlite")
        .join(test);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    directory
}

/// The path of a file that does not exist.
fn database() -> PathBuf {
    directory().join("sessions.db")
}

fn id(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn random_id() -> SessionId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    SessionId::from_bytes(bytes)
}

fn record(owner: Option<&str>) -> Record {
    let mut record = Record::new(Digest::from_bytes([7; 32]), NOW, Timestamp::MAX);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| NOW);
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

/// An application whose `/` counts in `n`, and whose `/read` says `n`, or that the session is new.
fn app(store: SqliteStore) -> Router {
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
        .layer(SessionLayer::new(store))
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

/// The cookie of a new visitor, whose `n` is 1.
async fn visitor(app: &Router) -> String {
    let response = send(app, "/", "").await;
    let cookie = response.headers()[SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// What a cookie's token spells: 16 bytes of the id, 20 of the secret.
fn token(cookie: &str) -> Vec<u8> {
    use base64::Engine as _;
    let (_, token) = cookie.split_once('=').unwrap();
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .unwrap()
}
