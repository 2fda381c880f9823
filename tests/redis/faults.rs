//! What a server can do to its clients. S-68.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::RedisStore;
use cloakroom::store::{Admission, Create, Record, SessionStore as _, SignIn, Version};
use futures_util::future::join_all;
use http::StatusCode;
use http::header::SET_COOKIE;
use redis::Commands as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::{DEADLINE, RedisServer, app, id, now, record, send, text, under, visitor};

/// A server that forgets nothing which it acknowledged.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// The answer is a 503 that is not later than the deadline, and the client keeps its cookie.
pub(super) async fn assert_unavailable(app: &Router, cookie: &str) {
    for path in ["/read", "/"] {
        let asked = Instant::now();
        let response = send(app, path, cookie).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
        let took = asked.elapsed();
        assert!(took < DEADLINE + Duration::from_millis(500), "{took:?}");
    }
}

/// Asks until the answer is not a 503 any more, which must be so after a few deadlines.
pub(super) async fn recovered(app: &Router, path: &str, cookie: &str) -> String {
    let asked = Instant::now();
    loop {
        let response = send(app, path, cookie).await;
        if response.status() == StatusCode::OK {
            return text(response).await;
        }
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(asked.elapsed() < DEADLINE * 5, "it does not recover");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_and_started_again_is_used_again() {
    let server = RedisServer::start(DURABLE);
    let app = app(under(&server, "s:").await);
    let cookie = visitor(&app).await;
    server.kill();
    assert_unavailable(&app, &cookie).await;
    server.restart();
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    assert_eq!(recovered(&app, "/", &cookie).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_load_loses_nothing_that_was_acknowledged() {
    let server = RedisServer::start(DURABLE);
    let store = under(&server, "s:").await;
    let mut writers = JoinSet::new();
    let mut seen = Vec::new();
    let (report, mut reports) = tokio::sync::mpsc::unbounded_channel();
    for writer in 0..16 {
        let (store, report) = (store.clone(), report.clone());
        writers.spawn(async move {
            for n in 0_u32.. {
                let mut bytes = [writer; 16];
                bytes[..4].copy_from_slice(&n.to_be_bytes());
                let id = cloakroom::SessionId::from_bytes(bytes);
                match store.create(id, &record(None), now()).await {
                    Ok(Create::Done) => report.send(id).unwrap(),
                    Ok(Create::Taken) => panic!("no id is used twice"),
                    Err(_) => return,
                }
            }
        });
    }
    drop(report);
    while let Some(id) = reports.recv().await {
        seen.push(id);
        if seen.len() == 1_000 {
            server.kill();
        }
    }
    writers.join_all().await;
    server.restart();
    let store = under(&server, "s:").await;
    for id in seen {
        assert!(store.load(id, now()).await.unwrap().is_some(), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_paused_longer_than_the_deadline_is_used_again() {
    let server = RedisServer::start(&[]);
    let app = app(under(&server, "s:").await);
    let cookie = visitor(&app).await;
    server.pause();
    assert_unavailable(&app, &cookie).await;
    server.wake();
    // What was given up on may be carried out or not, but not twice.
    let n: u32 = recovered(&app, "/read", &cookie).await.parse().unwrap();
    assert!(n == 1 || n == 2, "{n}");
    let next = recovered(&app, "/", &cookie).await.parse::<u32>().unwrap();
    assert!(next > n && next <= 3, "{next} after {n}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_what_is_new_and_keeps_what_it_has() {
    let server = RedisServer::start(&["--maxmemory", "6mb", "--maxmemory-policy", "noeviction"]);
    let store = under(&server, "s:").await;
    let app = app(store.clone());
    let cookie = visitor(&app).await;
    let leaving = visitor(&app).await;
    let signed_in = sign_in(&store, 255).await.unwrap();
    assert_eq!(signed_in, SignIn::Done);

    let mut big = record(None);
    big.data = vec![b' '; 256 << 10].into();
    let mut kept = Vec::new();
    let refused = loop {
        let id = id(kept.len().try_into().unwrap());
        match store.create(id, &big, now()).await {
            Ok(created) => assert_eq!(created, Create::Done),
            Err(error) => break error,
        }
        kept.push(id);
    };
    assert!(!refused.is_corrupt());
    assert!(
        super::chain(&refused).contains("OOM"),
        "{}",
        super::chain(&refused)
    );
    assert!(!kept.is_empty());
    // Not even room for something small.
    let mut admin = server.connection();
    let mut set_memory = |bytes: &str| {
        let mut command = redis::cmd("CONFIG");
        let command = command.arg(&["SET", "maxmemory", bytes]);
        command.exec(&mut admin).unwrap();
    };
    set_memory("1");

    let changed = send(&app, "/", &cookie).await;
    assert_eq!(changed.status(), StatusCode::SERVICE_UNAVAILABLE);
    let new = send(&app, "/", "").await;
    assert_eq!(new.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!new.headers().contains_key(SET_COOKIE));
    assert!(sign_in(&store, 254).await.is_err());
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    for id in kept {
        assert_eq!(store.load(id, now()).await.unwrap(), Some(big.clone()));
    }
    let left = send(&app, "/logout", &leaving).await;
    assert_eq!(left.status(), StatusCode::OK);
    assert_eq!(text(send(&app, "/read", &leaving).await).await, "new");
    assert_eq!(store.list_by_owner("ada", now()).await.unwrap().len(), 1);
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 1);
    // Nor is it forgotten who was revoked.
    assert_eq!(store.delete_by_owner("bob", None, now()).await.unwrap(), 0);
    let revoked: bool = admin.exists("s:revoked:{626f62}").unwrap();
    assert!(revoked);

    let mut set_memory = |bytes: &str| {
        let mut command = redis::cmd("CONFIG");
        let command = command.arg(&["SET", "maxmemory", bytes]);
        command.exec(&mut admin).unwrap();
    };
    set_memory("0");
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
}

async fn sign_in(store: &RedisStore, n: u8) -> Result<SignIn, cloakroom::store::StoreError> {
    let new: Record = record(Some("ada"));
    let admission = Admission::new(now());
    store.sign_in(id(n), &new, None, admission, now()).await
}

/// An address in front of servers.
#[derive(Clone)]
struct Proxy {
    url: String,
    /// The port that it leads to.
    to: Arc<AtomicU16>,
    /// How many more bytes of answers get through before the connection is cut.
    left: Arc<AtomicU64>,
}

impl Proxy {
    async fn new(server: &RedisServer) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Self {
            url: format!("redis://127.0.0.1:{port}"),
            to: Arc::new(server.port.into()),
            left: Arc::new(u64::MAX.into()),
        };
        let this = proxy.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(this.clone().serve(client));
            }
        });
        proxy
    }

    async fn serve(self, client: TcpStream) -> io::Result<()> {
        let server = TcpStream::connect(("127.0.0.1", self.to.load(Ordering::SeqCst))).await?;
        let (mut questions, mut to_client) = client.into_split();
        let (mut answers, mut to_server) = server.into_split();
        let asking =
            tokio::spawn(async move { tokio::io::copy(&mut questions, &mut to_server).await });
        let mut bytes = [0; 4096];
        loop {
            let n = answers.read(&mut bytes).await?;
            let left = self.left.load(Ordering::SeqCst);
            let through = n.min(left.try_into().unwrap_or(usize::MAX));
            to_client.write_all(&bytes[..through]).await?;
            if n == 0 || through < n {
                asking.abort();
                return Ok(());
            }
            if left < u64::MAX {
                self.left.fetch_sub(through as u64, Ordering::SeqCst);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_short_is_no_answer() {
    let server = RedisServer::start(&[]);
    let proxy = Proxy::new(&server).await;
    let store = RedisStore::connect(&proxy.url).await.unwrap();
    let behind = under(&server, "cloakroom:").await;
    let app = app(store);
    let cookie = visitor(&app).await;
    // Nothing of it, some of its length, and some of the record, which is about 80 bytes.
    for (allowed, n) in [(0, 1), (2, 2), (50, 3)] {
        assert_eq!(recovered(&app, "/read", &cookie).await, n.to_string());
        proxy.left.store(allowed, Ordering::SeqCst);
        let response = send(&app, "/read", &cookie).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        proxy.left.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(recovered(&app, "/", &cookie).await, (n + 1).to_string());
    }
    // A write whose answer is lost was carried out, and is not repeated.
    let id = super::id_of(&cookie);
    let before = behind.load(id, now()).await.unwrap().unwrap();
    let bytes = before.encode().len() as u64 + "$99\r\n\r\n".len() as u64;
    proxy.left.store(bytes, Ordering::SeqCst);
    let response = send(&app, "/", &cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    proxy.left.store(u64::MAX, Ordering::SeqCst);
    let after = behind.load(id, now()).await.unwrap().unwrap();
    assert_eq!(after.version, before.version.next());
    assert_eq!(recovered(&app, "/read", &cookie).await, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_over_the_address_of_a_demoted_one_is_found() {
    let (old, new) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let proxy = Proxy::new(&old).await;
    let app = app(RedisStore::connect(&proxy.url).await.unwrap());
    let cookie = visitor(&app).await;
    let mut admin = old.connection();
    redis::cmd("REPLICAOF")
        .arg(&["127.0.0.1", &new.port.to_string()])
        .exec(&mut admin)
        .unwrap();
    proxy.to.store(new.port, Ordering::SeqCst);
    let response = send(&app, "/", &cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    let fresh = recovered(&app, "/", "").await;
    assert_eq!(fresh, "1");
    let held: usize = redis::cmd("DBSIZE").query(&mut new.connection()).unwrap();
    assert_eq!(held, 1);
}

/// A connection that is still to the demoted server is ended, and once, so that the next one is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn many_who_are_refused_end_the_connection_once() {
    let server = RedisServer::start(&[]);
    let store = under(&server, "s:").await;
    let mut admin = server.connection();
    let mut follow = |of: [&str; 2]| redis::cmd("REPLICAOF").arg(&of).exec(&mut admin).unwrap();
    follow(["127.0.0.1", "1"]);
    let refused = join_all((0..100).map(|n| store.delete(id(n)))).await;
    assert!(refused.iter().all(Result::is_err), "{refused:?}");
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query(&mut server.connection())
        .unwrap();
    let quit = stats
        .lines()
        .find(|line| line.starts_with("cmdstat_quit:calls=1,"));
    assert!(quit.is_some(), "{stats}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_a_replica_refuses_is_taken_for_done() {
    let server = RedisServer::start(&[]);
    let store = under(&server, "s:").await;
    let (here, new) = (id(1), id(2));
    let (guest, ada, expected) = (record(None), record(Some("ada")), Version::FIRST);
    let created = store.create(here, &guest, now()).await;
    assert_eq!(created.unwrap(), Create::Done);
    let mut admin = server.connection();
    let follow = redis::cmd("REPLICAOF")
        .arg(&["127.0.0.1", "1"])
        .exec(&mut admin);
    follow.unwrap();
    let later = guest.expires.saturating_add(Duration::from_secs(1));
    let admission = Admission::new(now());
    assert!(store.create(new, &guest, now()).await.is_err());
    assert!(store.update(here, &guest, expected, now()).await.is_err());
    assert!(store.touch(here, later, now()).await.is_err());
    assert!(
        store
            .sign_in(here, &ada, Some(expected), admission, now())
            .await
            .is_err()
    );
    assert!(store.delete(here).await.is_err());
    assert!(store.delete_by_owner("ada", None, now()).await.is_err());
    assert!(store.delete_all().await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_became_a_replica_is_read_and_refuses_to_write() {
    let server = RedisServer::start(&[]);
    let app = app(under(&server, "s:").await);
    let cookie = visitor(&app).await;
    let mut admin = server.connection();
    let mut follow = |of: [&str; 2]| redis::cmd("REPLICAOF").arg(&of).exec(&mut admin).unwrap();
    follow(["127.0.0.1", "1"]);
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    let response = send(&app, "/", &cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    follow(["NO", "ONE"]);
    assert_eq!(recovered(&app, "/", &cookie).await, "2");
}
