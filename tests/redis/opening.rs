//! What `connect` says to a wrong URL, or about a server that does not fit.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cloakroom::RedisStore;
use cloakroom::store::{Admission, SessionStore as _, StoreError};

use super::{RedisServer, chain, id, now, record, store};

const PASSWORD: &str = "hunter2";

async fn refused(url: &str) -> StoreError {
    let error = RedisStore::connect(url).await.unwrap_err();
    for shown in [chain(&error), format!("{error:?}")] {
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
    assert!(!error.is_corrupt());
    error
}

#[track_caller]
fn assert_says(error: &StoreError, what: &str) {
    let said = chain(error);
    assert!(said.contains(what), "{said:?} does not say {what:?}");
}

#[tokio::test]
async fn a_text_that_is_no_url_is_refused_without_the_password() {
    for url in [
        "",
        "localhost",
        "http://localhost",
        "redis://:hunter2@",
        "redis://user:hunter2@localhost:port",
        "redis://user:hunter2@localhost/database",
        "redis://user:hunter2@localhost:6379/0?protocol=9",
        "redis:/user:hunter2@localhost",
    ] {
        let error = refused(url).await;
        assert_says(&error, "no URL of a Redis server; it looks like `redis://");
    }
}

#[cfg(not(feature = "redis-tls"))]
#[tokio::test]
async fn a_url_that_asks_for_encryption_says_what_it_needs() {
    for url in ["rediss://user:hunter2@localhost", "rediss://localhost:1/2"] {
        assert_says(&refused(url).await, "needs cloakroom's feature `redis-tls`");
    }
    assert_says(&refused("rediss://a:b").await, "no URL of a Redis server");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_soon() {
    let server = RedisServer::start(&[]);
    server.kill();
    let asked = Instant::now();
    let url = format!("redis://user:hunter2@127.0.0.1:{}", server.port);
    assert_says(&refused(&url).await, "refused");
    assert!(asked.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::start(&[]);
    let mut admin = server.connection();
    let mut set_user = |rules: &[&str]| {
        let mut command = redis::cmd("ACL");
        command.arg("SETUSER").arg(rules).exec(&mut admin).unwrap();
    };
    let address = format!("127.0.0.1:{}", server.port);
    assert_says(
        &refused(&format!("redis://shop:hunter2@{address}")).await,
        "uthentication",
    );

    // As the documentation says, and no more.
    let least = "on >right ~cloakroom:* +@read +@write +@scripting +@connection +info +time";
    set_user(
        &["shop"]
            .into_iter()
            .chain(least.split(' '))
            .collect::<Vec<_>>(),
    );
    let url = format!("redis://shop:right@{address}");
    let store = RedisStore::connect(&url).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    cloakroom::store::conformance::delete_all_leaves_nothing(store.clone()).await;
    cloakroom::store::conformance::sign_in_keeps_the_limit(store.clone()).await;

    let elsewhere = store.with_prefix("elsewhere:").unwrap();
    let error = elsewhere.load(id(1), now()).await.unwrap_err();
    assert_says(&error, "the user lacks rights; give it");
    set_user(&["shop", "-info"]);
    assert_says(&refused(&url).await, "the user lacks rights; give it");
}

#[tokio::test]
async fn a_cluster_is_refused() {
    let server = RedisServer::start(&["--cluster-enabled", "yes"]);
    let error = refused(&server.url()).await;
    assert_says(
        &error,
        "with the feature `redis-cluster`, give its nodes as",
    );

    // One that was not asked beforehand says so when it is used.
    let mut admin = server.connection();
    redis::cmd("CLUSTER")
        .arg("ADDSLOTS")
        .arg((0..16_384).collect::<Vec<_>>())
        .exec(&mut admin)
        .unwrap();
    let client = redis::Client::open(server.url()).unwrap();
    let store = RedisStore::new(client.get_connection_manager().await.unwrap());
    let (new, admission) = (record(Some("ada")), Admission::new(now()));
    let signed_in = store.sign_in(id(1), &new, None, admission, now()).await;
    let error = signed_in.unwrap_err();
    assert_says(
        &error,
        "with the feature `redis-cluster`, give its nodes as",
    );
}

/// What is in the log after `connect`.
async fn log_of_connecting(server: &RedisServer) -> String {
    let log = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(Log(Arc::clone(&log)).make())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    RedisStore::connect(&server.url()).await.unwrap();
    drop(guard);
    String::from_utf8(log.lock().unwrap().clone()).unwrap()
}

#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn make(self) -> impl Fn() -> Self {
        move || self.clone()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_server_that_may_evict_sessions_is_warned_of() {
    let evicting = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let log = log_of_connecting(&evicting).await;
    let warning = "the Redis server may evict sessions";
    assert!(
        log.contains(warning) && log.contains("allkeys-lru"),
        "{log}"
    );
    assert_eq!(log_of_connecting(RedisServer::shared()).await, "");
}

/// S-77.
#[tokio::test]
async fn a_prefix_that_is_none_is_refused() {
    let long = "x".repeat(65);
    for prefix in ["", "a b", "{a}", "a\n", "\u{e9}:", "a\0", &long] {
        let error = store().await.with_prefix(prefix).unwrap_err();
        assert_says(&error, "is no prefix for keys; use 1 to 64");
    }
    assert!(store().await.with_prefix(&long[1..]).is_ok());
}
