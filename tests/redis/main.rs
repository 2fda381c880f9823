//! The Redis store on a real server: the contract, what lies in its keys, and what a server can do.
#![cfg(all(feature = "redis", feature = "axum", feature = "memory"))]

#[cfg(feature = "redis-cluster")]
mod cluster;
mod faults;
mod keys;
mod opening;
mod processes;
mod races;
#[cfg(feature = "redis-cluster")]
#[path = "../support/redis_cluster.rs"]
mod redis_cluster;
#[path = "../support/redis_server.rs"]
mod redis_server;
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "redis-tls")]
mod tls;
mod together;
#[path = "../support/visitors.rs"]
mod visitors;
#[path = "../support/workflows.rs"]
mod workflows;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use axum::Router;
use cloakroom::store::{Digest, Record, Timestamp};
use cloakroom::{RedisStore, SessionId, SessionLayer, conformance_tests};

use self::redis_server::RedisServer;
use self::visitors::{chain, cookie, id, routes, send, text, token, visitor};
use self::workflows::workflows;

conformance_tests!(contract, async { store().await });
workflows!(over_http, async { store().await });

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

/// A record that lives for an hour.
fn record(owner: Option<&str>) -> Record {
    let now = now();
    let end = now.saturating_add(Duration::from_secs(3600));
    let mut record = Record::new(Digest::from_bytes([7; 32]), now, end);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| now);
    record
}

fn app(store: RedisStore) -> Router {
    let layer = SessionLayer::builder(store).store_timeout(DEADLINE);
    routes().layer(layer.build().unwrap())
}

/// The id of the session behind a cookie.
fn id_of(cookie: &str) -> SessionId {
    SessionId::from_bytes(token(cookie)[..16].try_into().unwrap())
}
