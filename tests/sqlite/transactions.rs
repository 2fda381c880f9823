//! Operations that fail, wait or are given up half-way, and the end of the threads.

use std::num::NonZeroUsize;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cloakroom::SqliteStore;
use cloakroom::store::{Admission, Create, OwnerLimit, SessionStore as _, WhenFull};
use rusqlite::Connection;
use tokio::task::{JoinSet, yield_now};

use super::{NOW, chain, database, id, random_id, record};

#[tokio::test]
async fn a_sign_in_that_fails_half_way_ends_no_other_session() {
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let ada = record(Some("ada"));
    let _ = store.create(id(1), &ada, NOW).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch(
        "CREATE TRIGGER no BEFORE INSERT ON sessions BEGIN SELECT RAISE(ABORT, 'as asked'); END",
    )
    .unwrap();
    let mut admission = Admission::new(NOW);
    admission.limit = Some(OwnerLimit::new(NonZeroUsize::MIN, WhenFull::EvictOldest));
    let error = store
        .sign_in(id(2), &ada, None, admission, NOW)
        .await
        .unwrap_err();
    assert!(chain(&error).contains("as asked"), "{error:?}");
    assert!(!error.is_corrupt());
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(ada));
}

#[tokio::test]
async fn a_writer_elsewhere_holds_up_writes_and_not_reads() {
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    raw.execute_batch("BEGIN IMMEDIATE; DELETE FROM sessions")
        .unwrap();
    let mut create = pin!(async {
        let created = store.create(id(2), &record(None), NOW).await;
        created.unwrap()
    });
    let mut context = Context::from_waker(Waker::noop());
    assert_eq!(create.as_mut().poll(&mut context), Poll::Pending);
    for _ in 0..100 {
        assert!(store.load(id(1), NOW).await.unwrap().is_some());
    }
    assert_eq!(create.as_mut().poll(&mut context), Poll::Pending);
    raw.execute_batch("COMMIT").unwrap();
    assert_eq!(create.await, Create::Done);
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
}

/// S-67.
#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_gives_up_leaves_a_whole_session_or_none() {
    let store = SqliteStore::open(database()).unwrap();
    let ada = record(Some("ada"));
    let mut stored = 0;
    for round in 0..200 {
        let id = random_id();
        let mut create = Box::pin(store.create(id, &ada, NOW));
        let _ = create
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        for _ in 0..round % 20 {
            yield_now().await;
        }
        drop(create);
        // Comes after it, since the writer keeps the order.
        let is_stored = store.touch(id, NOW, NOW).await.unwrap();
        let found = store.load(id, NOW).await.unwrap();
        assert_eq!(found, is_stored.then(|| ada.clone()));
        stored += usize::from(is_stored);
    }
    let listed = store.list_by_owner("ada", NOW).await.unwrap();
    assert_eq!(listed.len(), stored);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_last_clone_closes_the_file() {
    let path = database();
    let log = path.with_extension("db-wal");
    let store = SqliteStore::open(&path).unwrap();
    let mut tasks = JoinSet::new();
    for n in 0..64 {
        let store = store.clone();
        tasks.spawn(async move {
            let _ = store.create(id(n), &record(None), NOW).await.unwrap();
            assert!(store.load(id(n), NOW).await.unwrap().is_some());
        });
    }
    tasks.join_all().await;
    assert!(log.exists());
    drop(store);
    assert!(!log.exists(), "the last connection removes it");
}
