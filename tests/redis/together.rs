//! Commands that are given at the same time share the way.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use cloakroom::store::{Create, Record, SessionStore as _, StoreError, Update, Version};
use cloakroom::{RedisStore, SessionId};
use futures_util::future::{MaybeDone, join_all, maybe_done};
use redis::Commands as _;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{RedisServer, id, now, prefix, record, under};

/// Enough that most of them do not go alone.
const MANY: u8 = 64;

type Asked<T> = MaybeDone<Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send>>>;

fn loaded(store: &RedisStore, id: SessionId) -> Asked<Option<Record>> {
    let store = store.clone();
    maybe_done(Box::pin(async move { store.load(id, now()).await }))
}

/// Asks for all of them, and waits for none.
fn ask<T>(asked: &mut [Asked<T>]) {
    for one in asked {
        let mut context = Context::from_waker(Waker::noop());
        let _ = Pin::new(one).poll(&mut context);
    }
}

async fn answers<T>(mut asked: Vec<Asked<T>>) -> Vec<Result<T, StoreError>> {
    let all = async {
        for one in &mut asked {
            one.await;
        }
    };
    let all = timeout(Duration::from_secs(10), all).await;
    assert!(all.is_ok(), "nobody waits for ever");
    let asked = asked.iter_mut().map(Pin::new);
    asked.map(|one| one.take_output().unwrap()).collect()
}

/// Loads a session many times at once.
async fn load(store: &RedisStore, id: SessionId) -> Vec<Result<Option<Record>, StoreError>> {
    let mut asked: Vec<_> = (0..MANY).map(|_| loaded(store, id)).collect();
    ask(&mut asked);
    answers(asked).await
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}

async fn create(store: &RedisStore, ids: std::ops::Range<u8>) {
    for n in ids {
        let created = store.create(id(n), &record(None), now()).await;
        assert_eq!(created.unwrap(), Create::Done);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn commands_of_the_same_moment_reach_the_server_together() {
    let server = RedisServer::start(&[]);
    let store = under(&server, "s:").await;
    let mut admin = server.connection();
    let mut count = || {
        let stats: redis::InfoDict = redis::cmd("INFO").arg("stats").query(&mut admin).unwrap();
        let [reads, commands] = ["total_reads_processed", "total_commands_processed"]
            .map(|name| stats.get::<u64>(name).unwrap());
        (reads, commands)
    };
    let before = count();
    // From the one worker, which begins none of them before all are there.
    let rounds = tokio::spawn(async move {
        for _ in 0..32 {
            let mut loads = JoinSet::new();
            for n in 0..MANY {
                let store = store.clone();
                loads.spawn(async move { store.load(id(n), now()).await });
            }
            for load in loads.join_all().await {
                assert!(load.unwrap().is_none());
            }
        }
    });
    rounds.await.unwrap();
    let after = count();
    let (reads, commands) = (after.0 - before.0, after.1 - before.1);
    assert!(commands >= 32 * u64::from(MANY));
    assert!(commands > 4 * reads, "{commands} commands in {reads} reads");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_gets_the_answer_to_its_own_command() {
    let server = RedisServer::shared();
    let prefix = prefix();
    let store = under(server, &prefix).await;
    let damaged = |n: u8| n % 8 == 3;
    let mut connection = server.connection();
    for n in (0..MANY).filter(|n| damaged(*n)) {
        let key = format!("{prefix}session:{{{}}}", id(n));
        let _: () = connection.rpush(key, "a list").unwrap();
    }
    let mut sessions = JoinSet::new();
    for n in 0..MANY {
        let store = store.clone();
        sessions.spawn(async move {
            if damaged(n) {
                for _ in 0..10 {
                    assert!(store.load(id(n), now()).await.unwrap_err().is_corrupt());
                }
                return;
            }
            let mut mine = record(None);
            mine.data = vec![n; usize::from(n)].into();
            assert_eq!(
                store.create(id(n), &mine, now()).await.unwrap(),
                Create::Done
            );
            for _ in 0..10 {
                let before = mine.version;
                mine.version = before.next();
                let written = store.update(id(n), &mine, before, now()).await.unwrap();
                assert_eq!(written, Update::Done);
                let found = store.load(id(n), now()).await.unwrap().unwrap();
                assert_eq!(found, mine);
                let refused = store.update(id(n), &mine, Version::new(99), now()).await;
                assert_eq!(refused.unwrap(), Update::Conflict(found));
            }
            assert!(store.delete(id(n)).await.unwrap());
        });
    }
    sessions.join_all().await;
}

#[tokio::test]
async fn who_gives_up_at_once_has_sent_nothing() {
    let store = under(RedisServer::shared(), &prefix()).await;
    create(&store, 0..MANY).await;
    let mut deletions: Vec<Asked<bool>> = (0..MANY)
        .map(|n| {
            let store = store.clone();
            maybe_done(Box::pin(async move { store.delete(id(n)).await }) as Pin<Box<_>>)
        })
        .collect();
    ask(&mut deletions);
    let given_up = deletions.split_off(usize::from(MANY / 2));
    drop(given_up);
    for deleted in answers(deletions).await {
        assert!(deleted.unwrap());
    }
    for n in 0..MANY {
        let is_there = store.load(id(n), now()).await.unwrap().is_some();
        assert_eq!(is_there, n >= MANY / 2, "{n}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_rests_holds_nobody_up() {
    let store = under(RedisServer::shared(), &prefix()).await;
    create(&store, 0..1).await;
    let mut first: Vec<_> = (0..MANY).map(|_| loaded(&store, id(0))).collect();
    let asked = thread::spawn(move || {
        let runtime = runtime();
        runtime.block_on(async { ask(&mut first) });
        (runtime, first)
    });
    let (resting, first) = asked.join().unwrap();
    for load in load(&store, id(0)).await {
        assert!(load.unwrap().is_some());
    }
    for load in answers(first).await {
        assert!(load.unwrap().is_some());
    }
    resting.shutdown_background();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_ends_takes_nobody_along() {
    let store = under(RedisServer::shared(), &prefix()).await;
    create(&store, 0..1).await;
    let mut first: Vec<_> = (0..MANY).map(|_| loaded(&store, id(0))).collect();
    let asked = thread::spawn(move || {
        runtime().block_on(async { ask(&mut first) });
        first
    });
    for load in answers(asked.join().unwrap()).await {
        assert!(load.unwrap().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_runtime_of_the_connection_may_end() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    create(&under(server, &prefix).await, 0..1).await;
    let connected = thread::spawn(move || {
        let runtime = runtime();
        let store = runtime.block_on(under(server, &prefix));
        let mut loads: Vec<_> = (0..MANY).map(|_| loaded(&store, id(0))).collect();
        runtime.block_on(async { ask(&mut loads) });
        (store, loads)
    });
    let (store, loads) = connected.join().unwrap();
    // They fail or are done by another connection.
    answers(loads).await;
    let mut tries = 0;
    while load(&store, id(0)).await.iter().any(Result::is_err) {
        tries += 1;
        assert!(tries < 100, "there is a new connection");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_gathers_no_tasks() {
    let server = RedisServer::start(&[]);
    let store = under(&server, "s:").await;
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    server.pause();
    for _ in 0..20 {
        let mut loads = JoinSet::new();
        for n in 0..MANY {
            let store = store.clone();
            let load = async move { store.load(id(n), now()).await };
            loads.spawn(timeout(Duration::from_millis(20), load));
        }
        for load in loads.join_all().await {
            assert!(load.is_err(), "it is paused");
        }
    }
    let asked = Instant::now();
    while tasks() > before {
        let waited = asked.elapsed();
        assert!(
            waited < Duration::from_secs(5),
            "{} tasks",
            tasks() - before
        );
        tokio::task::yield_now().await;
    }
    server.wake();
    assert!(store.load(id(0), now()).await.unwrap().is_none());
}

/// What waits for nothing but its waker.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_runtime_is_needed_to_ask() {
    let store = under(RedisServer::shared(), &prefix()).await;
    let loads = thread::spawn(move || {
        let load = |n| {
            let store = store.clone();
            async move { store.load(id(n), now()).await }
        };
        block_on(join_all((0..MANY).map(load)))
    });
    let loads = tokio::task::spawn_blocking(|| loads.join().unwrap());
    for load in loads.await.unwrap() {
        assert!(load.unwrap().is_none());
    }
}
