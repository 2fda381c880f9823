//! The PostgreSQL store: the contract, what its rows and its server can be, and how many trips it makes.
#![cfg(all(feature = "postgres", feature = "axum"))]

mod connecting;
mod faults;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
mod rows;
mod trips;

use std::error::Error;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::any;
use cloakroom::store::{Digest, Record, StoreError, Timestamp};
use cloakroom::{PostgresStore, Session, SessionId, SessionLayer, conformance_tests};
use http::Request;
use http::header::{COOKIE, SET_COOKIE};
use http_body_util::BodyExt as _;
use tokio_postgres::{Client, NoTls};
use tower::ServiceExt as _;

use self::postgres_server::PostgresServer;

conformance_tests!(two_connections, async { store(&table()).await });
conformance_tests!(one_connection, async {
    let builder = PostgresStore::builder().table(table()).connections(1);
    let store = builder.connect(&server().url()).await.unwrap();
    store.migrate().await.unwrap();
    store
});

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// The server that the tests share.
fn server() -> &'static PostgresServer {
    static SERVER: OnceLock<PostgresServer> = OnceLock::new();
    SERVER.get_or_init(PostgresServer::start)
}

/// A name for a table that nobody else uses.
fn table() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    format!("Test_{:x}", u64::from_ne_bytes(bytes))
}

async fn store(table: &str) -> PostgresStore {
    store_at(&server().url(), table).await
}

async fn store_at(url: &str, table: &str) -> PostgresStore {
    let builder = PostgresStore::builder().table(table);
    let store = builder.connect(url).await.unwrap();
    store.migrate().await.unwrap();
    store
}

/// A connection beside the stores.
async fn psql() -> Client {
    let (client, connection) = tokio_postgres::connect(&server().url(), NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client
}

fn id(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
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
fn app(store: PostgresStore) -> Router {
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

/// Asks again and again until the answer is what it should be.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ask().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
