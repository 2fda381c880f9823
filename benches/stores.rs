//! The stores on real servers: what a million sessions cost a read and a write, what group commit is
//! worth, and whether cleaning up disturbs.
//!
//! Only ratios are told, each of two things that take turns in one run. The servers are started here,
//! in temporary folders.
//!
//! ```text
//! cargo bench --all-features --bench stores              all
//! cargo bench --all-features --bench stores -- growth    or `writes`, or `cleaning`, alone
//! ```
//!
//! It takes some eight minutes, most of them to fill the stores.

#[path = "../tests/support/mysql_server.rs"]
mod mysql_server;
#[path = "../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../tests/support/redis_server.rs"]
mod redis_server;
#[path = "../tests/support/server.rs"]
mod server;

use std::cell::LazyCell;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, fs};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use axum::routing::get;
use cloakroom::store::{Digest, Record, SessionStore, Timestamp, Update, Version};
use cloakroom::{
    Cleaner, MemoryStore, MysqlStore, PostgresStore, RedisStore, Session, SessionEvent, SessionId,
    SessionLayer, SqliteStore,
};
use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderValue, Request};
use tokio::time::{interval, sleep};
use tower::ServiceExt as _;

use self::mysql_server::MysqlServer;
use self::postgres_server::PostgresServer;
use self::redis_server::RedisServer;

/// How much is done: a benchmark's worth, or once through everything for `cargo test`.
#[derive(Clone, Copy)]
struct Size {
    small: u64,
    large: u64,
    operations: u64,
    rounds: usize,
    expired: u64,
    time: Duration,
}

const MEASURED: Size = Size {
    small: 1_000,
    large: 1_000_000,
    operations: 2_000,
    rounds: 5,
    expired: 500_000,
    time: Duration::from_secs(3),
};

const TRIED: Size = Size {
    small: 5,
    large: 10,
    operations: 5,
    rounds: 1,
    expired: 10,
    time: Duration::from_millis(10),
};

const CLIENTS: u64 = 64;

#[tokio::main]
async fn main() {
    let measured = env::args().any(|argument| argument == "--bench");
    let size = if measured { MEASURED } else { TRIED };
    let folder = Folder::new();
    // Only those that are wanted.
    let redis = LazyCell::new(|| RedisServer::start(&[]));
    let mysql = LazyCell::new(|| MysqlServer::start(&[]));
    let postgres = LazyCell::new(PostgresServer::start);

    if wanted("growth") {
        println!(
            "| {} sessions beside {} | read | write |",
            size.large, size.small
        );
        println!("|---|--:|--:|");
        // One line for each store.
        growth("memory", || async { memory() }, size).await;
        requests(size).await;
        growth("SQLite", || async { folder.sqlite() }, size).await;
        growth("Redis", || on_redis(&redis), size).await;
        growth("MariaDB", || on_mysql(&mysql), size).await;
        growth("PostgreSQL", || on_postgres(&postgres), size).await;
    }
    if wanted("writes") {
        group_commit(&folder, size).await;
    }
    if wanted("cleaning") {
        cleaning(on_postgres(&postgres).await, size).await;
    }
}

/// Whether the command line names this part, or none.
fn wanted(part: &str) -> bool {
    let mut named = env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .peekable();
    named.peek().is_none() || named.any(|name| name == part)
}

fn memory() -> MemoryStore {
    MemoryStore::builder()
        .max_sessions(usize::MAX)
        .max_bytes(usize::MAX)
        .build()
}

async fn on_redis(server: &RedisServer) -> RedisStore {
    let store = RedisStore::connect(&server.url()).await.expect("it runs");
    store.with_prefix(&fresh_name()).expect("a prefix")
}

async fn on_mysql(server: &MysqlServer) -> MysqlStore {
    let builder = MysqlStore::builder().table(fresh_name());
    let store = builder.connect(&server.url()).await.expect("it runs");
    store.migrate().await.expect("the table can be made");
    store
}

async fn on_postgres(server: &PostgresServer) -> PostgresStore {
    let builder = PostgresStore::builder().table(fresh_name());
    let store = builder.connect(&server.url()).await.expect("it runs");
    store.migrate().await.expect("the table can be made");
    store
}

fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("bench_{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A folder for database files that goes with this value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("stores-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the target folder can be written");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join(fresh_name())
    }

    fn sqlite(&self) -> SqliteStore {
        SqliteStore::open(self.file()).expect("a new file")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

/// Ids that are as scattered as those of real sessions are after a while.
fn id(n: u64) -> SessionId {
    let scattered = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    SessionId::from_bytes(scattered.to_be_bytes())
}

/// A session of five small keys.
fn record(expires: Timestamp) -> Record {
    let mut record = Record::new(Digest::from_bytes([7; 32]), now(), expires);
    record.data = br#"{"a":1,"b":1,"c":1,"d":1,"visits":1}"#.as_slice().into();
    record
}

/// Creates sessions, by many clients.
async fn fill<S: SessionStore>(store: &Arc<S>, numbers: Range<u64>, expires: Timestamp) {
    let clients = (0..CLIENTS).map(|client| {
        let (store, mine) = (Arc::clone(store), numbers.start + client..numbers.end);
        tokio::spawn(async move {
            for n in mine.step_by(64) {
                // What expires in the past is created before.
                let at = Timestamp::from_millis(expires.as_millis() - 1).min(now());
                let expires = expires.saturating_add(Duration::from_millis(n));
                let _created = store
                    .create(id(n), &record(expires), at)
                    .await
                    .expect("it is stored");
            }
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.expect("no panic");
    }
}

/// Prints how much longer reads and writes take in a large store than in a small one.
async fn growth<S, F>(name: &str, open: impl Fn() -> F, size: Size)
where
    S: SessionStore,
    F: Future<Output = S>,
{
    let (small, large) = (Arc::new(open().await), Arc::new(open().await));
    let later = now().saturating_add(Duration::from_secs(24 * 3600));
    fill(&small, 0..size.small, later).await;
    fill(&large, 0..size.large, later).await;
    let mut ratios = (Vec::new(), Vec::new());
    for round in 0..size.rounds as u64 {
        let (read, write) = latencies(&*small, size.small, size.operations, round).await;
        let (read_large, write_large) =
            latencies(&*large, size.large, size.operations, round).await;
        ratios.0.push(read_large.as_secs_f64() / read.as_secs_f64());
        ratios
            .1
            .push(write_large.as_secs_f64() / write.as_secs_f64());
    }
    println!(
        "| {name} | {:.2} | {:.2} |",
        median(ratios.0),
        median(ratios.1)
    );
}

/// The median time of a read and of a write.
async fn latencies<S: SessionStore>(
    store: &S,
    sessions: u64,
    operations: u64,
    round: u64,
) -> (Duration, Duration) {
    let (mut reads, mut writes) = (Vec::new(), Vec::new());
    for n in 0..operations {
        let id = id((n + round * operations).wrapping_mul(7919) % sessions);
        let start = Instant::now();
        let found = store.load(id, now()).await.expect("it is read");
        reads.push(start.elapsed());
        let mut record = found.expect("it is there");
        let expected = record.version;
        record.version = record.version.next();
        let start = Instant::now();
        let updated = store.update(id, &record, expected, now()).await;
        writes.push(start.elapsed());
        assert_eq!(updated.expect("it is written"), Update::Done);
    }
    (median(reads), median(writes))
}

/// The same for the requests of an application, since the memory store is in its process: an access
/// that misses the processor's caches is long beside one that does not, and short beside a request.
async fn requests(size: Size) {
    let (small, large) = (
        Visitors::new(size.small).await,
        Visitors::new(size.large).await,
    );
    let mut ratios = [Vec::new(), Vec::new()];
    for round in 0..size.rounds as u64 {
        for (path, ratios) in ["/read", "/write"].into_iter().zip(&mut ratios) {
            let few = small.latency(path, size.operations, round).await;
            let many = large.latency(path, size.operations, round).await;
            ratios.push(many.as_secs_f64() / few.as_secs_f64());
        }
    }
    let [read, write] = ratios.map(median);
    println!("| memory, a request | {read:.2} | {write:.2} |");
}

/// An application and the cookies of its visitors.
struct Visitors {
    app: Router,
    cookies: Vec<HeaderValue>,
}

impl Visitors {
    async fn new(count: u64) -> Self {
        let write = async |session: Session| session.update("visits", |n: &mut u64| *n += 1);
        let read = async |session: Session| {
            let visits = session.get::<u64>("visits");
            visits.map(|n| n.unwrap_or_default().to_string())
        };
        let app = Router::new()
            .route("/read", get(read))
            .route("/write", get(write))
            .layer(SessionLayer::new(memory()))
            .with_state(());
        let mut visitors = Self {
            app,
            cookies: Vec::new(),
        };
        for _ in 0..count {
            let response = visitors.send("/write", None).await;
            let cookie = response.headers()[SET_COOKIE].to_str().expect("ASCII");
            let pair = cookie.split(';').next().unwrap_or_default();
            visitors
                .cookies
                .push(HeaderValue::from_str(pair).expect("a cookie"));
        }
        visitors
    }

    async fn send(&self, path: &'static str, cookie: Option<&HeaderValue>) -> Response {
        let mut request = Request::get(path);
        if let Some(cookie) = cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Body::empty()).expect("a request");
        let response = self.app.clone().oneshot(request).await;
        response.expect("it answers")
    }

    /// The median time of a request.
    async fn latency(&self, path: &'static str, operations: u64, round: u64) -> Duration {
        let mut taken = Vec::new();
        for n in 0..operations {
            let visitor = (n + round * operations).wrapping_mul(7919) % self.cookies.len() as u64;
            let cookie = &self.cookies[usize::try_from(visitor).expect("it fits")];
            let start = Instant::now();
            let response = self.send(path, Some(cookie)).await;
            taken.push(start.elapsed());
            assert!(response.status().is_success());
        }
        median(taken)
    }
}

/// Prints how many more durable writes SQLite makes when those that wait share a transaction.
async fn group_commit(folder: &Folder, size: Size) {
    let store = Arc::new(folder.sqlite());
    let later = now().saturating_add(Duration::from_secs(24 * 3600));
    fill(&store, 0..CLIENTS, later).await;
    let alone = Alone::new(&folder.file());
    let mut ratios = Vec::new();
    for _ in 0..size.rounds {
        let alone = alone.rate(size.time);
        let together = writes(&store, size.time).await;
        ratios.push(together / alone);
    }
    println!(
        "\nSQLite, durable writes of {CLIENTS} clients: {:.1} times those with a transaction each",
        median(ratios)
    );
}

/// Writes a second of many clients, each to its own session.
async fn writes(store: &Arc<SqliteStore>, time: Duration) -> f64 {
    let start = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut record = store
                .load(id(client), now())
                .await
                .expect("it is read")
                .expect("it is there");
            let mut count = 0_u64;
            while start.elapsed() < time {
                let expected = record.version;
                record.version = Version::new(expected.get() + 1);
                let updated = store.update(id(client), &record, expected, now()).await;
                assert_eq!(updated.expect("it is written"), Update::Done);
                count += 1;
            }
            count
        })
    });
    let mut count = 0;
    for client in clients.collect::<Vec<_>>() {
        count += client.await.expect("no panic");
    }
    count as f64 / start.elapsed().as_secs_f64()
}

/// A table as simple as can be, written without any client to wait for.
struct Alone(rusqlite::Connection);

impl Alone {
    fn new(file: &Path) -> Self {
        let connection = rusqlite::Connection::open(file).expect("a new file");
        connection
            .execute_batch(
                "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
                 CREATE TABLE sessions (id BLOB PRIMARY KEY, version INTEGER, data BLOB) WITHOUT ROWID;",
            )
            .expect("a table");
        for client in 0..CLIENTS {
            let sql = "INSERT INTO sessions VALUES (?1, 1, ?2)";
            let data = record(Timestamp::MAX).encode();
            connection
                .execute(sql, (id(client).as_bytes(), data))
                .expect("a row");
        }
        Self(connection)
    }

    fn rate(&self, time: Duration) -> f64 {
        let sql = "UPDATE sessions SET version = version + 1, data = ?2 WHERE id = ?1";
        let mut update = self.0.prepare(sql).expect("it fits the table");
        let data = record(Timestamp::MAX).encode();
        let (start, mut count) = (Instant::now(), 0_u64);
        while start.elapsed() < time {
            let client = id(count % CLIENTS);
            update
                .execute((client.as_bytes(), &data))
                .expect("it is written");
            count += 1;
        }
        count as f64 / start.elapsed().as_secs_f64()
    }
}

/// Prints how much longer the slowest hundredth of reads takes while expired sessions are removed.
async fn cleaning(store: PostgresStore, size: Size) {
    let store = Arc::new(store);
    let later = now().saturating_add(Duration::from_secs(24 * 3600));
    fill(&store, 0..size.small, later).await;
    // Other sessions than those that are read.
    let expired = size.small..size.small + size.expired;
    fill(&store, expired, Timestamp::from_millis(1_000)).await;

    let swept = Arc::new(AtomicBool::new(false));
    let (mut ratios, mut time) = (Vec::new(), Duration::ZERO);
    while !swept.load(Ordering::Relaxed) {
        let quiet = slow_read(&store, size, &AtomicBool::new(false)).await;
        let tell = Arc::clone(&swept);
        let cleaner = Cleaner::new(Arc::clone(&store))
            .every(Duration::from_secs(1))
            .on_event(move |event| {
                let is_done = matches!(event, SessionEvent::Swept { .. });
                tell.fetch_or(is_done, Ordering::Relaxed);
            })
            .spawn();
        // It begins after a second, give or take a tenth.
        let start = Instant::now() + Duration::from_secs(1);
        sleep(Duration::from_millis(1_100)).await;
        let busy = slow_read(&store, size, &swept).await;
        time += start.elapsed();
        drop(cleaner);
        ratios.push(busy.as_secs_f64() / quiet.as_secs_f64());
    }
    let left = store.delete_expired(now(), 1).await;
    assert_eq!(left.expect("it is swept"), 0);
    println!(
        "PostgreSQL, {} expired sessions removed in {:.0} s: p99 of reads {:.2} times that of the pauses",
        size.expired,
        time.as_secs_f64(),
        median(ratios)
    );
}

/// The 99th percentile of what reads at a steady pace take, for some time or until something is done.
async fn slow_read(store: &PostgresStore, size: Size, done: &AtomicBool) -> Duration {
    let (start, mut taken) = (Instant::now(), Vec::new());
    let mut pace = interval(Duration::from_millis(1));
    for n in 0_u64.. {
        pace.tick().await;
        let begun = Instant::now();
        let found = store.load(id(n % size.small), now()).await;
        taken.push(begun.elapsed());
        assert!(found.expect("it is read").is_some());
        if start.elapsed() >= size.time || done.load(Ordering::Relaxed) {
            break;
        }
    }
    taken.sort_unstable();
    taken[taken.len() * 99 / 100]
}

fn median<T: PartialOrd + Copy>(mut of: Vec<T>) -> T {
    of.sort_by(|a, b| a.partial_cmp(b).expect("numbers"));
    of[of.len() / 2]
}
