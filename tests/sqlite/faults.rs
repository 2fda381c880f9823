//! A disk that is full, and another process that does not let go of the file.

use std::path::Path;
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{Create, SessionStore as _};
use cloakroom::{SessionLayer, SqliteStore};
use http::StatusCode;
use http::header::SET_COOKIE;
use rusqlite::Connection;

use super::other_process::{Other, part, say, wait_for_go};
use super::{NOW, chain, database, id, random_id, record, routes, send, text, visitor};

/// The answer is a 503, and the client keeps its cookie.
async fn assert_unavailable(app: &Router, path: &str, cookie: &str) {
    let response = send(app, path, cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
}

/// The session counts to 2 and holds it.
async fn assert_counts_to_2(app: &Router, cookie: &str) {
    for path in ["/", "/read"] {
        assert_eq!(text(send(app, path, cookie).await).await, "2", "{path}");
    }
}

fn within(time: Duration, store: SqliteStore) -> Router {
    let layer = SessionLayer::builder(store).store_timeout(time);
    routes().layer(layer.build().unwrap())
}

/// S-71, S-72.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_held_elsewhere_for_longer_than_the_deadline_costs_writes_alone() {
    if let Some([path]) = part() {
        let raw = Connection::open(path).unwrap();
        raw.execute_batch("BEGIN IMMEDIATE").unwrap();
        say("locked", "");
        wait_for_go();
        raw.execute_batch("COMMIT").unwrap();
        return;
    }
    const DEADLINE: Duration = Duration::from_secs(1);
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let app = within(Duration::from_secs(60), store.clone());
    let cookie = visitor(&app).await;
    let impatient = within(DEADLINE, store);
    let test = "faults::a_lock_held_elsewhere_for_longer_than_the_deadline_costs_writes_alone";
    let mut other = Other::start(test, &[path.to_str().unwrap()]);
    other.hear("locked");
    for path in ["/", "/login", "/logout"] {
        let asked = Instant::now();
        assert_unavailable(&impatient, path, &cookie).await;
        assert!(asked.elapsed() < 3 * DEADLINE, "{:?}", asked.elapsed());
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    }
    assert_unavailable(&impatient, "/", "").await;
    other.go();
    other.end();
    // What was given up while it waited is not done.
    assert_counts_to_2(&app, &cookie).await;
}

/// S-71.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_costs_writes_alone_and_nothing_that_was_acknowledged() {
    if let Some([path]) = part() {
        return fill(Path::new(&path)).await;
    }
    let path = database();
    let test = "faults::a_full_disk_costs_writes_alone_and_nothing_that_was_acknowledged";
    let mut other = Other::start_limited(4096, test, &[path.to_str().unwrap()]);
    other.hear("full");
    other.lift_limit();
    other.go();
    other.end();
}

/// Writes until no file may grow any more, and again when it may.
async fn fill(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    let app = within(Duration::from_secs(60), store.clone());
    let cookie = visitor(&app).await;
    // While somebody reads, the log is not begun anew, which would make room.
    let reader = Connection::open(path).unwrap();
    let read = "BEGIN; SELECT count(*) FROM cloakroom_schema";
    reader.execute_batch(read).unwrap();
    let mut kept = Vec::new();
    let mut refused = Vec::new();
    // First what is large, and then what still fits in. A record takes more pages or fewer, as its id has
    // it; in the end there is no room for the fewest.
    for (size, last) in [(32 << 10, 1), (0, 64)] {
        let mut record = record(None);
        record.data = vec![b' '; size].into();
        let mut in_a_row = 0;
        while in_a_row < last {
            let id = random_id();
            match store.create(id, &record, NOW).await {
                Ok(created) => {
                    assert_eq!(created, Create::Done);
                    kept.push((id, record.clone()));
                    in_a_row = 0;
                }
                Err(error) => {
                    assert!(!error.is_corrupt(), "{}", chain(&error));
                    refused.push(id);
                    in_a_row += 1;
                }
            }
        }
    }
    assert!(kept.len() > 9);
    let assert_whole = async || {
        for (id, record) in &kept {
            assert_eq!(store.load(*id, NOW).await.unwrap().as_ref(), Some(record));
        }
        for id in &refused {
            assert_eq!(store.load(*id, NOW).await.unwrap(), None);
        }
    };
    for path in ["/", "/login", "/logout"] {
        assert_unavailable(&app, path, &cookie).await;
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    }
    assert_unavailable(&app, "/", "").await;
    assert_whole().await;

    say("full", "");
    tokio::task::spawn_blocking(wait_for_go).await.unwrap();
    assert_counts_to_2(&app, &cookie).await;
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    assert_whole().await;

    drop((app, store, reader));
    let again = SqliteStore::open(path).unwrap();
    assert_eq!(again.load(id(1), NOW).await.unwrap(), Some(record(None)));
    for (id, record) in kept {
        assert_eq!(again.load(id, NOW).await.unwrap(), Some(record));
    }
}
