//! This crate beside its peers and beside the router without sessions, in one run and one table.
//!
//! ```text
//! cd benches/peers && cargo bench --bench peers            the whole table
//! cd benches/peers && cargo bench --bench peers -- http    requests over HTTP alone
//! ```
//!
//! Instructions are counted by valgrind's callgrind, as in `benches/instructions.rs`, and allocations by
//! a counting allocator, each in processes of its own; both are what a layer adds to the router under a layer that does
//! nothing. Requests a second over
//! HTTP say something beside each other only: the client runs on the same cores. So each short round of an
//! application lies between two of the bare router, of which it is a share; the median of the shares is
//! what is printed. It takes some fifteen minutes, and starts Redis and PostgreSQL itself.

mod allocator;
mod apps;
mod http;
#[path = "../../../requests/ours.rs"]
mod ours;
#[path = "../../../../tests/support/postgres_server.rs"]
mod postgres_server;
#[path = "../../../../tests/support/redis_server.rs"]
mod redis_server;
#[path = "../../../requests/mod.rs"]
mod requests;
#[path = "../../../../tests/support/server.rs"]
mod server;

use std::env;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use axum::Router;
use axum_session::SessionNullPool;
use axum_session_redispool::SessionRedisPool;
use axum_session_sqlx::SessionPgPool;
use cloakroom::{MemoryStore, PostgresStore, RedisStore};
use redis::aio::ConnectionManagerConfig;
use tokio::io::AsyncBufReadExt as _;
use tower_sessions_redis_store::fred::prelude::{ClientLike as _, Config, Pool};
use tower_sessions_sqlx_store::PostgresStore as TowerPostgresStore;

use crate::allocator::{Allocator, count};
use crate::apps::Stored;
use crate::http::Server;
use crate::postgres_server::PostgresServer;
use crate::redis_server::RedisServer;
use crate::requests::{Requests, SCENARIOS, Scenario, bare, filled, scenario};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

const LAYERS: [&str; 3] = ["cloakroom", "tower-sessions", "axum_session"];

/// Requests of the shorter run under valgrind.
const N: usize = 200;

/// Sessions whose memory is measured.
const SESSIONS: usize = 1_000_000;

/// How long one round of requests over HTTP takes, and how many there are for each application.
const ROUND: Duration = Duration::from_millis(400);
const ROUNDS: usize = 11;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["instructions", layer, name, count] => {
            let count = count.parse().expect("a number");
            alone(async {
                let app = in_memory(layer).await;
                let requests = Requests::prepare(&app, scenario(name), 2 * N).await;
                requests.send(&app, count).await;
            });
        }
        ["allocations", layer, name] => {
            println!("{}", alone(allocations(layer, scenario(name))));
        }
        ["http", database, layer, url] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(async { measure(on_server(database, layer, url).await).await });
            // It would wait for the thread that reads the input.
            runtime.shutdown_background();
        }
        ["http", ..] => over_http(),
        ["heap", layer] => println!("{}", alone(heap_of_a_session(layer))),
        _ => print_table(),
    }
}

fn alone<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("a runtime").block_on(work)
}

async fn in_memory(layer: &str) -> Router {
    match layer {
        "cloakroom" => {
            let store = MemoryStore::builder()
                .max_sessions(usize::MAX)
                .max_bytes(usize::MAX);
            ours::application(store.build())
        }
        "tower-sessions" => apps::tower_sessions(tower_sessions::MemoryStore::default()),
        "axum_session" => apps::axum_session::<SessionNullPool>(None).await,
        _ => bare(),
    }
}

fn print_table() {
    println!("| | bare router | {} |", LAYERS.join(" | "));
    println!("|---|--:|--:|--:|--:|");
    // Header lines so long that others take minutes over them are for our own benchmarks.
    for scenario in SCENARIOS.iter().filter(|s| !s.name.contains("400 KB")) {
        let cost = |layer| {
            let name = scenario.name;
            (
                instructions(layer, name),
                child(&["allocations", layer, name]),
            )
        };
        let bare = cost("bare");
        let added = LAYERS.map(|layer| {
            let (instructions, allocations) = cost(layer);
            let instructions = instructions.saturating_sub(bare.0);
            format!("{instructions} / {}", allocations.saturating_sub(bare.1))
        });
        println!(
            "| {}: instructions / allocations | {} / {} | {} |",
            scenario.name,
            bare.0,
            bare.1,
            added.join(" | ")
        );
    }
    let heap = LAYERS.map(|layer| child(&["heap", layer]).to_string());
    println!(
        "| live heap a session, of {SESSIONS}: bytes | | {} |",
        heap.join(" | ")
    );
    over_http();
}

/// Instructions of one request.
fn instructions(layer: &str, name: &str) -> u64 {
    let [once, twice] = [N, 2 * N].map(|count| {
        let run = Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(env::current_exe().expect("this program"))
            .args(["instructions", layer, name, &count.to_string()])
            .output()
            .expect("valgrind is installed (Debian: `apt-get install valgrind`)");
        let said = String::from_utf8_lossy(&run.stderr);
        let collected = said
            .lines()
            .find_map(|line| line.split("Collected : ").nth(1));
        let collected = collected.and_then(|n| n.trim().parse::<u64>().ok());
        collected
            .filter(|_| run.status.success())
            .unwrap_or_else(|| panic!("{said}"))
    });
    twice.saturating_sub(once) / N as u64
}

/// What another process of this program finds out.
fn child(arguments: &[&str]) -> u64 {
    let run = Command::new(env::current_exe().expect("this program"))
        .args(arguments)
        .output()
        .expect("it can be run");
    let said = String::from_utf8_lossy(&run.stdout);
    let number = said.trim().parse().ok();
    number.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&run.stderr)))
}

/// The least of several requests, so that a table that happens to grow does not count.
async fn allocations(layer: &str, scenario: Scenario) -> usize {
    let app = in_memory(layer).await;
    let requests = Requests::prepare(&app, scenario, 32).await;
    let mut least = usize::MAX;
    for _ in 0..32 {
        let request = requests.request();
        let counted = count();
        drop(requests::send(&app, request).await);
        let change = counted.change();
        least = least.min(change.allocations + change.reallocations);
    }
    least
}

async fn heap_of_a_session(layer: &str) -> usize {
    let app = in_memory(layer).await;
    let counted = count();
    for _ in 0..SESSIONS {
        filled(&app, "/fill").await;
    }
    let change = counted.change();
    (change.bytes_allocated - change.bytes_deallocated) / SESSIONS
}

fn over_http() {
    let redis = RedisServer::start(&[]);
    compare("Redis", &redis.url(), LAYERS);
    compare(
        "Redis",
        &redis.url(),
        [
            "a GET, and to count a SET",
            "a GET, and to count compare and swap",
        ],
    );
    drop(redis);
    let postgres = PostgresServer::start();
    compare("PostgreSQL", &postgres.url(), LAYERS);
}

/// Prints the requests a second as shares of those of the bare router. Each application is measured in a process of its
/// own, in turns, as it would run: all in one process were slower by up to a tenth.
fn compare<const N: usize>(database: &str, url: &str, layers: [&str; N]) {
    let mut measured = layers.map(|layer| Measured::start(&["http", database, layer, url]));
    println!("| {database} | bare router | {} |", layers.join(" | "));
    for path in ["GET /plain", "GET /read", "POST /increment"] {
        let mut wholes = Vec::new();
        let mut shares = [const { Vec::new() }; N];
        for _ in 0..ROUNDS {
            for (measured, shares) in measured.iter_mut().zip(&mut shares) {
                let [layer, bare] = measured.round(path);
                wholes.push(bare);
                shares.push(layer / bare);
            }
        }
        let shares = shares.map(|shares| format!("{:.2}", median(shares)));
        println!(
            "| {path}: share of the bare router's requests a second | {:.0} | {} |",
            median(wholes),
            shares.join(" | ")
        );
    }
}

/// An application in another process of this program, which measures it when it is told to.
struct Measured {
    process: Child,
    rates: Lines<BufReader<ChildStdout>>,
}

impl Measured {
    fn start(arguments: &[&str]) -> Self {
        let process = Command::new(env::current_exe().expect("this program"))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut process = process.expect("it can be run");
        let rates = process.stdout.take().expect("it is a pipe");
        let rates = BufReader::new(rates).lines();
        Self { process, rates }
    }

    /// The requests a second of the application and of the bare router.
    fn round(&mut self, path: &str) -> [f64; 2] {
        let pipe = self.process.stdin.as_mut().expect("it is a pipe");
        writeln!(pipe, "{path}").expect("it reads");
        let line = self.rates.next().expect("it runs").expect("text");
        let (layer, bare) = line.split_once(' ').expect("two numbers");
        [layer, bare].map(|rate| rate.parse().expect("a number"))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// Prints the rates of a round for each line of the input, which names a method and a path.
async fn measure(app: Router) {
    let (bare, layer) = (Server::start(bare()).await, Server::start(app).await);
    let mut lines = tokio::io::BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await.expect("text") {
        let (method, path) = line.split_once(' ').expect("a method and a path");
        let before = bare.rate(method, path, ROUND).await;
        let rate = layer.rate(method, path, ROUND).await;
        let after = bare.rate(method, path, ROUND).await;
        println!("{rate} {}", f64::midpoint(before, after));
    }
}

async fn on_server(database: &str, layer: &str, url: &str) -> Router {
    match (database, layer) {
        ("Redis", "cloakroom") => {
            ours::application(RedisStore::connect(url).await.expect("it runs"))
        }
        ("Redis", "tower-sessions") => {
            let config = Config::from_url(url).expect("a URL");
            let pool = Pool::new(config, None, None, None, 6).expect("a pool");
            pool.connect();
            pool.wait_for_connect().await.expect("it runs");
            apps::tower_sessions_for_stores(tower_sessions_redis_store::RedisStore::new(pool))
        }
        ("Redis", "axum_session") => {
            let client = redis::Client::open(url).expect("a URL");
            let pool = SessionRedisPool::from(redis_pool::RedisPool::from(client));
            apps::axum_session(Some(pool)).await
        }
        ("Redis", alone) => {
            let client = redis::Client::open(url).expect("a URL");
            let patience = ConnectionManagerConfig::new().set_response_timeout(None);
            let connection = client.get_connection_manager_with_config(patience).await;
            let stored = if alone.ends_with("SET") {
                Stored::Set
            } else {
                Stored::Swapped
            };
            apps::redis_alone(connection.expect("it runs"), stored)
        }
        (_, "cloakroom") => {
            // axum_session has a table of our default name.
            let builder = PostgresStore::builder().table("cloakroom_sessions");
            let store = builder.connect(url).await.expect("it runs");
            store.migrate().await.expect("the table can be made");
            ours::application(store)
        }
        (_, "tower-sessions") => {
            let pool = tower_sessions_sqlx_store::sqlx::PgPool::connect(url);
            let store = TowerPostgresStore::new(pool.await.expect("it runs"));
            store.migrate().await.expect("the table can be made");
            apps::tower_sessions_for_stores(store)
        }
        _ => {
            let pool = sqlx::PgPool::connect(url).await.expect("it runs");
            apps::axum_session(Some(SessionPgPool::from(pool))).await
        }
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
