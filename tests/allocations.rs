//! How many allocations a session adds to a request, so that they cannot creep up.
//!
//! Counted over the same router under a layer that does nothing (axum itself pays two allocations
//! for any layer), with a handler that answers the same, in one thread. A file of its own, since the
//! allocator counts for the whole process.

#![cfg(all(feature = "axum", feature = "memory"))]

use std::alloc::System;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use axum::routing::{get, post};
use cloakroom::test_util::{FaultStore, Operation};
use cloakroom::{MemoryStore, Session, SessionLayer};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::ServiceExt as _;
use tower::layer::util::Identity;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

async fn plain() -> String {
    format!("visit {}", 7)
}

async fn read(session: Session) -> cloakroom::Result<String> {
    Ok(format!("visit {}", session.get::<u64>("a")?.unwrap_or(7)))
}

async fn increment(session: Session) -> cloakroom::Result<String> {
    let n = session.update("visits", |n: &mut u64| {
        *n += 1;
        *n
    })?;
    Ok(format!("visit {n}"))
}

async fn fill(session: Session) -> cloakroom::Result<String> {
    for key in ["a", "b", "c", "d", "e"] {
        session.insert(key, 1)?;
    }
    Ok(String::new())
}

fn routes() -> Router {
    Router::new().route("/", get(plain))
}

fn with_sessions(store: FaultStore<MemoryStore>) -> Router {
    routes()
        .route("/read", get(read))
        .route("/increment", post(increment))
        .route("/fill", post(fill))
        .layer(SessionLayer::new(store))
        .with_state(())
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    app: Router,
    store: FaultStore<MemoryStore>,
}

impl Bench {
    fn send(&self, app: &Router, request: Request<Body>) -> Response<Body> {
        self.runtime.block_on(app.clone().oneshot(request)).unwrap()
    }

    /// The least allocations of several runs, so that a table that happens to grow does not count.
    fn least(&self, app: &Router, path: &str, cookie: Option<&HeaderValue>) -> usize {
        let run = |_| {
            let method = if path == "/increment" { "POST" } else { "GET" };
            let mut request = Request::builder().method(method).uri(path);
            if let Some(cookie) = cookie {
                // Shared, as the values that hyper makes are.
                request = request.header(header::COOKIE, cookie.clone());
            }
            let request = request.body(Body::empty()).unwrap();
            let region = Region::new(ALLOCATOR);
            let response = self.send(app, request);
            let change = region.change();
            assert!(response.status().is_success());
            change.allocations + change.reallocations
        };
        (0..32).map(run).min().unwrap()
    }

    /// Allocations over the bare router, and calls of the store.
    fn cost(&self, path: &str, cookie: Option<&HeaderValue>) -> (usize, u64) {
        let bare = self.least(&routes().layer(Identity::new()).with_state(()), "/", cookie);
        self.store.reset_counts();
        let ours = self.least(&self.app, path, cookie);
        (ours - bare, self.store.total_calls() / 32)
    }
}

#[test]
fn a_session_costs_no_more_than_it_did() {
    let store = FaultStore::new(MemoryStore::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = Bench {
        runtime,
        app: with_sessions(store.clone()),
        store,
    };
    let filled = bench.send(
        &bench.app,
        Request::post("/fill").body(Body::empty()).unwrap(),
    );
    let pair = filled.headers()[header::SET_COOKIE]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap();
    let cookie = HeaderValue::from_str(pair).unwrap();

    let untouched = bench.cost("/", Some(&cookie));
    let read = bench.cost("/read", Some(&cookie));
    let increment = bench.cost("/increment", Some(&cookie));
    let new = bench.cost("/increment", None);
    println!("untouched {untouched:?}, read {read:?}, increment {increment:?}, new {new:?}");

    assert!(
        untouched.0 <= 3 && untouched.1 == 0,
        "untouched: {untouched:?}"
    );
    assert!(read.0 <= 7 && read.1 == 1, "read: {read:?}");
    assert!(
        increment.0 <= 11 && increment.1 == 2,
        "increment: {increment:?}"
    );
    assert!(new.0 <= 12 && new.1 == 1, "new: {new:?}");
    assert_eq!(bench.store.calls(Operation::Touch), 0);
}
