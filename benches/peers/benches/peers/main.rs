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
//! what is printed. It takes some seven minutes, and starts Redis and PostgreSQL itself.

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
use std::process::Command;
use std::time::Duration;

use axum::Router;
use axum_session::SessionNullPool;
use axum_session_redispool::SessionRedisPool;
use axum_session_sqlx::SessionPgPool;
use cloakroom::{MemoryStore, PostgresStore, RedisStore};
use redis::aio::ConnectionManagerConfig;
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
const ROUNDS: usize = 15;

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
        ["http", ..] => {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            runtime.block_on(over_http());
        }
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
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(over_http());
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

async fn over_http() {
    let redis = RedisServer::start(&[]);
    let store = RedisStore::connect(&redis.url()).await.expect("it runs");
    let pool = Pool::new(
        Config::from_url(&redis.url()).expect("a URL"),
        None,
        None,
        None,
        6,
    );
    let pool = pool.expect("a pool");
    pool.connect();
    pool.wait_for_connect().await.expect("it runs");
    let client = redis::Client::open(redis.url()).expect("a URL");
    let patience = ConnectionManagerConfig::new().set_response_timeout(None);
    let alone = client.get_connection_manager_with_config(patience).await;
    let alone = alone.expect("it runs");
    let alone = [Stored::Set, Stored::Swapped].map(|how| apps::redis_alone(alone.clone(), how));
    let axum_session_pool = SessionRedisPool::from(redis_pool::RedisPool::from(client));
    compare(
        "Redis",
        [
            ours::application(store),
            apps::tower_sessions_for_stores(tower_sessions_redis_store::RedisStore::new(pool)),
            apps::axum_session(Some(axum_session_pool)).await,
        ],
    )
    .await;
    let what = "Redis without sessions, a GET, and to count a SET or compare and swap";
    compare(what, alone).await;

    let postgres = PostgresServer::start();
    // axum_session has a table of our default name.
    let builder = PostgresStore::builder().table("cloakroom_sessions");
    let store = builder.connect(&postgres.url()).await.expect("it runs");
    store.migrate().await.expect("the table can be made");
    let url = postgres.url();
    let pool = tower_sessions_sqlx_store::sqlx::PgPool::connect(&url);
    let tower = TowerPostgresStore::new(pool.await.expect("it runs"));
    tower.migrate().await.expect("the table can be made");
    let pool = sqlx::PgPool::connect(&postgres.url())
        .await
        .expect("it runs");
    compare(
        "PostgreSQL",
        [
            ours::application(store),
            apps::tower_sessions_for_stores(tower),
            apps::axum_session(Some(SessionPgPool::from(pool))).await,
        ],
    )
    .await;
}

/// Prints the requests a second as shares of those of the bare router.
async fn compare<const N: usize>(server: &str, apps: [Router; N]) {
    let bare = Server::start(bare()).await;
    let mut layers = Vec::new();
    for app in apps {
        layers.push(Server::start(app).await);
    }
    for (method, path) in [("GET", "/plain"), ("GET", "/read"), ("POST", "/increment")] {
        let mut before = bare.rate(method, path, ROUND).await;
        let mut wholes = vec![before];
        let mut shares = [const { Vec::new() }; N];
        for _ in 0..ROUNDS {
            for (layer, shares) in layers.iter().zip(&mut shares) {
                let rate = layer.rate(method, path, ROUND).await;
                let after = bare.rate(method, path, ROUND).await;
                shares.push(rate / f64::midpoint(before, after));
                wholes.push(after);
                before = after;
            }
        }
        let shares = shares.map(|shares| format!("{:.2}", median(shares)));
        println!(
            "| {server}, {path}: share of the bare router's requests a second | {:.0} | {} |",
            median(wholes),
            shares.join(" | ")
        );
    }
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}
