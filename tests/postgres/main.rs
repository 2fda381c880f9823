//! The PostgreSQL store: the contract, what its rows and its server can be, and how many trips it makes.
#![cfg(all(feature = "postgres", feature = "axum", feature = "memory"))]

mod connecting;
mod faults;
#[path = "../support/other_process.rs"]
mod other_process;
#[path = "../support/pgbouncer.rs"]
mod pgbouncer;
mod pooling;
#[path = "../support/postgres_server.rs"]
mod postgres_server;
mod processes;
mod rows;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "postgres-tls")]
mod tls;
mod trips;
#[path = "../support/visitors.rs"]
mod visitors;
#[path = "../support/workflows.rs"]
mod workflows;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{Digest, Record, Timestamp};
use cloakroom::{PostgresStore, SessionId, SessionLayer, conformance_tests};
use tokio_postgres::{Client, NoTls};

use self::postgres_server::PostgresServer;
use self::visitors::{chain, id, routes, send, text, token, visitor};
use self::workflows::workflows;

conformance_tests!(two_connections, async { store(&table()).await });
conformance_tests!(one_connection, async {
    let builder = PostgresStore::builder().table(table()).connections(1);
    let store = builder.connect(&server().url()).await.unwrap();
    store.migrate().await.unwrap();
    store
});

workflows!(over_http, async { store(&table()).await });

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
    psql_at(&server().url()).await
}

async fn psql_at(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn record(owner: Option<&str>) -> Record {
    let mut record = Record::new(Digest::from_bytes([7; 32]), NOW, Timestamp::MAX);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| NOW);
    record
}

fn app(store: PostgresStore) -> Router {
    routes().layer(patient(store))
}

/// A layer that waits as long as it may take on a machine that has much else to do.
fn patient(store: PostgresStore) -> SessionLayer<PostgresStore> {
    let layer = SessionLayer::builder(store).store_timeout(Duration::from_secs(60));
    layer.build().unwrap()
}

/// The id of the session behind a cookie.
fn session_id(cookie: &str) -> SessionId {
    SessionId::from_bytes(token(cookie)[..16].try_into().unwrap())
}

/// A role, and the URL with which it connects.
async fn role(psql: &Client) -> (String, String) {
    let role = table().to_lowercase();
    let create = format!("CREATE ROLE {role} LOGIN; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    psql.batch_execute(&create).await.unwrap();
    let url = server().url().replace("test@", &format!("{role}@"));
    (role, url)
}

/// Asks again and again until the answer is what it should be.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ask().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
