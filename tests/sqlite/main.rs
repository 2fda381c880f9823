//! The SQLite store: the contract, what a file and its rows can be, and several processes on one file.
#![cfg(all(feature = "sqlite", feature = "axum", feature = "memory"))]

#[cfg(feature = "encrypted-store")]
mod encrypted;
mod faults;
mod opening;
#[path = "../support/other_process.rs"]
mod other_process;
mod processes;
mod rows;
#[path = "../support/mod.rs"]
mod support;
mod transactions;
#[path = "../support/visitors.rs"]
mod visitors;
#[path = "../support/workflows.rs"]
mod workflows;

use std::fs;
use std::path::PathBuf;

use axum::Router;
use cloakroom::store::{Digest, Record, Timestamp};
use cloakroom::{SessionId, SessionLayer, SqliteStore, Synchronous, conformance_tests};

use self::visitors::{chain, id, routes, send, text, token, visitor};
use self::workflows::workflows;

conformance_tests!(file, async { SqliteStore::open(database()).unwrap() });
conformance_tests!(memory, async { SqliteStore::in_memory().unwrap() });
conformance_tests!(other_settings, async {
    let builder = SqliteStore::builder()
        .table("order")
        .synchronous(Synchronous::Normal);
    builder.open(database()).unwrap()
});

workflows!(over_http, async { SqliteStore::open(database()).unwrap() });

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

fn app(store: SqliteStore) -> Router {
    routes().layer(SessionLayer::new(store))
}
