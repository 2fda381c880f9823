//! How many allocations a session adds to a request, and what it takes while it rests in memory.
//!
//! ```text
//! cargo bench --bench allocations
//! ```

#[path = "requests/ours.rs"]
mod ours;
mod requests;

use std::alloc::System;
use std::env;

use axum::Router;
use cloakroom::MemoryStore;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

use crate::requests::{Requests, SCENARIOS, Scenario, bare, filled};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let sessions = if measured { 1_000_000 } else { 1 };
    let requests = if measured { 100 } else { 1 };

    println!("| allocations a request | bare router | session adds |");
    println!("|---|--:|--:|");
    for scenario in SCENARIOS {
        let bare = allocations(&bare(), scenario, requests).await;
        let ours = ours::application(MemoryStore::new());
        let ours = allocations(&ours, scenario, requests).await;
        println!("| {} | {bare} | {} |", scenario.name, ours - bare);
    }
    let heap = heap_of_a_session(sessions).await;
    println!("\n{heap} bytes of live heap a session of five small keys, at {sessions} sessions");
}

/// The least of several requests, so that a table that happens to grow does not count.
async fn allocations(app: &Router, scenario: Scenario, requests: usize) -> usize {
    let prepared = Requests::prepare(app, scenario, requests).await;
    let mut least = usize::MAX;
    for _ in 0..requests {
        let request = prepared.request();
        let region = Region::new(ALLOCATOR);
        let response = requests::send(app, request).await;
        drop(response);
        let change = region.change();
        least = least.min(change.allocations + change.reallocations);
    }
    least
}

async fn heap_of_a_session(sessions: usize) -> usize {
    let store = MemoryStore::builder()
        .max_sessions(usize::MAX)
        .max_bytes(usize::MAX)
        .build();
    let app = ours::application(store);
    let region = Region::new(ALLOCATOR);
    for _ in 0..sessions {
        filled(&app, "/fill").await;
    }
    let change = region.change();
    (change.bytes_allocated - change.bytes_deallocated) / sessions
}
