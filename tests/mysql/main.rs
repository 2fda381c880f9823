//! The MySQL store on a real server: the contract, what its rows and its server can be, and how many
//! trips it makes.
#![cfg(all(feature = "mysql", feature = "axum", feature = "memory"))]

mod connecting;
mod faults;
#[path = "../support/mysql_server.rs"]
mod mysql_server;
mod processes;
mod proxy;
mod rows;
#[path = "../support/server.rs"]
mod server;
#[path = "../support/mod.rs"]
mod support;
mod trips;
#[path = "../support/visitors.rs"]
mod visitors;
#[path = "../support/workflows.rs"]
mod workflows;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{Digest, Record, Timestamp};
use cloakroom::{MysqlStore, SessionId, SessionLayer, conformance_tests};
use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};

use self::mysql_server::MysqlServer;
use self::visitors::{chain, cookie, id, routes, send, text, token, visitor};
use self::workflows::workflows;

conformance_tests!(ten_connections, async { store(&table()).await });
workflows!(over_http, async { store(&table()).await });
conformance_tests!(one_connection, async {
    let builder = MysqlStore::builder().table(table()).connections(1);
    let store = builder.connect(&server().url()).await.unwrap();
    store.migrate().await.unwrap();
    store
});

const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// How long the applications here wait for the store.
const DEADLINE: Duration = Duration::from_secs(2);

/// The server that the tests share. It takes data of 16 MiB, unlike one with the defaults.
fn server() -> &'static MysqlServer {
    static SERVER: OnceLock<MysqlServer> = OnceLock::new();
    SERVER.get_or_init(|| MysqlServer::start(&["--max-allowed-packet=32M"]))
}

/// A name for a table that nobody else uses.
fn table() -> String {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    format!("Test_{:x}", u64::from_ne_bytes(bytes))
}

async fn store(table: &str) -> MysqlStore {
    store_at(&server().url(), table).await
}

async fn store_at(url: &str, table: &str) -> MysqlStore {
    let store = MysqlStore::builder().table(table).connect(url).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let migrated = store.migrate().await;
    migrated.unwrap_or_else(|error| panic!("{}", chain(&error)));
    store
}

/// A connection beside the stores.
async fn client() -> Conn {
    client_of(server()).await
}

async fn client_of(server: &MysqlServer) -> Conn {
    let opts = Opts::from_url(&server.url()).unwrap();
    Conn::new(OptsBuilder::from_opts(opts).prefer_socket(false))
        .await
        .unwrap()
}

/// Runs a statement, and says how many rows it changed.
async fn run(client: &mut Conn, statement: &str) -> u64 {
    let done = client.query_drop(statement).await;
    done.unwrap_or_else(|error| panic!("{statement}: {error}"));
    client.affected_rows()
}

async fn number(client: &mut Conn, query: &str) -> u64 {
    client.query_first(query).await.unwrap().unwrap()
}

fn record(owner: Option<&str>) -> Record {
    let mut record = Record::new(Digest::from_bytes([7; 32]), NOW, Timestamp::MAX);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| NOW);
    record
}

fn app(store: MysqlStore) -> Router {
    let layer = SessionLayer::builder(store).store_timeout(DEADLINE);
    routes().layer(layer.build().unwrap())
}

/// The id of the session behind a cookie.
fn id_of(cookie: &str) -> SessionId {
    SessionId::from_bytes(token(cookie)[..16].try_into().unwrap())
}

/// Asks again and again until the answer is what it should be.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !ask().await {
        assert!(Instant::now() < end, "{what}");
        // InnoDB tells who asks more often what it told before.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}
