//! Parallel writers, and a server that fails and comes back.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{Create, SessionStore as _};
use cloakroom::{PostgresStore, SessionLayer};
use http::StatusCode;
use http::header::SET_COOKIE;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::postgres_server::url;
use super::{
    NOW, PostgresServer, app, chain, eventually, id, psql, psql_at, record, routes, send, server,
    session_id, store, store_at, table, text, visitor,
};

/// The answer is a 503, and the client keeps its cookie.
async fn assert_unavailable(app: &Router, path: &str, cookie: &str) {
    let response = send(app, path, cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
}

/// The session counts to `n` and holds it.
async fn assert_counts_to(app: &Router, cookie: &str, n: u32) {
    let counted = recovered(app, "/", cookie).await;
    assert_eq!(counted, n.to_string());
    // What the handler said is true.
    let read = text(send(app, "/read", cookie).await).await;
    assert_eq!(read, n.to_string());
}

/// Asks until the answer is not a 503 any more.
async fn recovered(app: &Router, path: &str, cookie: &str) -> String {
    let mut answer = String::new();
    eventually("it works again", async || {
        let response = send(app, path, cookie).await;
        let is_ok = response.status() == StatusCode::OK;
        assert!(is_ok || response.status() == StatusCode::SERVICE_UNAVAILABLE);
        answer = text(response).await;
        is_ok
    })
    .await;
    answer
}

async fn another_server() -> PostgresServer {
    tokio::task::spawn_blocking(PostgresServer::start)
        .await
        .unwrap()
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_count_in_one_session_lose_nothing() {
    let table = table();
    let apps = [app(store(&table).await), app(store(&table).await)];
    let cookie = visitor(&apps[0]).await;
    let mut counting = JoinSet::new();
    for app in apps.clone() {
        for _ in 0..64 {
            let (app, cookie) = (app.clone(), cookie.clone());
            counting.spawn(async move { send(&app, "/", &cookie).await.status() });
        }
    }
    let answers = counting.join_all().await;
    assert_eq!(answers, vec![StatusCode::OK; 128]);
    for app in &apps {
        assert_eq!(text(send(app, "/read", &cookie).await).await, "129");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_under_load_cost_errors_and_nothing_that_was_acknowledged() {
    let (psql, table) = (psql().await, table());
    let url = format!("{}?application_name={table}", server().url());
    let store = store_at(&url, &table).await;
    let stop = Arc::<AtomicBool>::default();
    let mut writing = JoinSet::new();
    for n in 0..16_u8 {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        writing.spawn(async move {
            let (mut stored, mut errors) = (Vec::new(), 0);
            for m in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let mut bytes = [n; 16];
                bytes[8..].copy_from_slice(&u64::to_be_bytes(m));
                let id = cloakroom::SessionId::from_bytes(bytes);
                match store.create(id, &record(None), NOW).await {
                    Ok(created) => {
                        assert_eq!(created, Create::Done, "not stored twice");
                        stored.push(id);
                    }
                    Err(error) => {
                        assert!(!error.is_corrupt(), "{}", chain(&error));
                        errors += 1;
                    }
                }
            }
            (stored, errors)
        });
    }
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = $1 AND pid <> pg_backend_pid()";
    let mut times = 0;
    eventually("connections come back to be cut", async || {
        let cut: i64 = psql.query_one(cut, &[&table]).await.unwrap().get(0);
        times += i32::from(cut > 0);
        times == 5
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let (stored, errors): (Vec<_>, Vec<i32>) = writing.join_all().await.into_iter().unzip();
    assert!(errors.iter().sum::<i32>() > 0);
    // Without a break: a call waits until a connection is there again.
    for id in stored.concat() {
        assert!(store.load(id, NOW).await.unwrap().is_some());
    }
}

/// S-71.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_clients_get_503_and_keep_their_session() {
    let server = another_server().await;
    let app = app(store_at(&server.url(), "sessions").await);
    let cookie = visitor(&app).await;

    tokio::task::block_in_place(|| server.kill());
    for _ in 0..4 {
        for path in ["/read", "/"] {
            let response = send(&app, path, &cookie).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!response.headers().contains_key(SET_COOKIE));
        }
    }
    let error = PostgresStore::connect(&server.url()).await.unwrap_err();
    assert!(
        chain(&error).contains("cannot connect"),
        "{}",
        chain(&error)
    );

    tokio::task::block_in_place(|| server.start_again());
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    assert_counts_to(&app, &cookie, 2).await;
}

#[tokio::test]
async fn a_store_that_is_dropped_closes_its_connections() {
    let (psql, table) = (psql().await, table());
    let url = format!("{}?application_name={table}", server().url());
    let count = async || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        psql.query_one(count, &[&table]).await.unwrap().get(0)
    };
    let store = store_at(&url, &table).await;
    eventually("two connections", async || count().await == 2).await;
    let _ = store.clone().load(id(1), NOW).await.unwrap();
    drop(store);
    eventually("no connection", async || count().await == 0).await;
}

/// S-71, S-72.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_paused_longer_than_the_deadline_is_used_again() {
    const DEADLINE: Duration = Duration::from_secs(1);
    let server = another_server().await;
    let builder = PostgresStore::builder().connections(1);
    let store = builder.connect(&server.url()).await.unwrap();
    store.migrate().await.unwrap();
    let app = app(store.clone());
    let cookie = visitor(&app).await;
    let impatient = SessionLayer::builder(store.clone()).store_timeout(DEADLINE);
    let impatient = routes().layer(impatient.build().unwrap());
    server.pause();
    for path in ["/read", "/", "/logout"] {
        let asked = Instant::now();
        assert_unavailable(&impatient, path, &cookie).await;
        assert!(asked.elapsed() < 3 * DEADLINE, "{:?}", asked.elapsed());
    }
    let given_up = tokio::time::timeout(DEADLINE, store.create(id(1), &record(None), NOW)).await;
    assert!(given_up.is_err());
    server.wake();
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    assert_counts_to(&app, &cookie, 2).await;
    // What was given up is carried out, once.
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(record(None)));
}

async fn make_read_only(server: &PostgresServer, read_only: bool) {
    let psql = psql_at(&server.url()).await;
    let set = format!("ALTER SYSTEM SET default_transaction_read_only = {read_only}");
    psql.batch_execute(&set).await.unwrap();
    psql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_to_write_is_read_and_written_again_later() {
    let server = another_server().await;
    let app = app(store_at(&server.url(), "sessions").await);
    let cookie = visitor(&app).await;
    make_read_only(&server, true).await;
    eventually("it refuses to write", async || {
        send(&app, "/", &cookie).await.status() == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let n = text(send(&app, "/read", &cookie).await).await;
    let mut reading = JoinSet::new();
    let stop = Arc::<AtomicBool>::default();
    for _ in 0..4 {
        let (app, cookie, n, stop) = (app.clone(), cookie.clone(), n.clone(), Arc::clone(&stop));
        reading.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                assert_eq!(text(send(&app, "/read", &cookie).await).await, n);
            }
        });
    }
    // Longer than it takes until a connection is replaced.
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for path in ["/", "/logout", "/login"] {
            assert_unavailable(&app, path, &cookie).await;
        }
        assert_unavailable(&app, "/", "").await;
    }
    stop.store(true, Ordering::SeqCst);
    reading.join_all().await;
    make_read_only(&server, false).await;
    let next = n.parse::<u32>().unwrap() + 1;
    assert_counts_to(&app, &cookie, next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_read_and_is_written_once_it_is_promoted() {
    let server = another_server().await;
    let app = app(store_at(&server.url(), "sessions").await);
    let cookie = visitor(&app).await;
    let psql = psql_at(&server.url()).await;
    psql.batch_execute("COPY (SELECT) TO PROGRAM 'touch standby.signal'")
        .await
        .unwrap();
    tokio::task::block_in_place(|| {
        server.kill();
        server.start_again();
    });
    assert_eq!(recovered(&app, "/read", &cookie).await, "1");
    for path in ["/", "/logout", "/login"] {
        assert_unavailable(&app, path, &cookie).await;
    }
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    let psql = psql_at(&server.url()).await;
    psql.batch_execute("SELECT pg_promote()").await.unwrap();
    assert_counts_to(&app, &cookie, 2).await;
}

/// An address before servers.
#[derive(Clone)]
struct Proxy {
    port: u16,
    /// The port that it leads to.
    to: Arc<AtomicU16>,
    /// How many bytes of answers came through.
    passed: Arc<AtomicU64>,
    /// How many more come through before the connection is cut.
    left: Arc<AtomicU64>,
}

impl Proxy {
    async fn start(server: &PostgresServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            port: listener.local_addr().unwrap().port(),
            to: Arc::new(server.port().into()),
            passed: Arc::default(),
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
        let asking = tokio::spawn(async move { copy(&mut questions, &mut to_server).await });
        let mut bytes = [0; 4096];
        loop {
            let n = answers.read(&mut bytes).await?;
            let left = self.left.load(Ordering::SeqCst);
            let through = n.min(left.try_into().unwrap_or(usize::MAX));
            to_client.write_all(&bytes[..through]).await?;
            self.passed.fetch_add(through as u64, Ordering::SeqCst);
            if n == 0 || through < n {
                asking.abort();
                return Ok(());
            }
            if left < u64::MAX {
                self.left.fetch_sub(through as u64, Ordering::SeqCst);
            }
        }
    }

    fn cut_after(&self, bytes: u64) {
        self.left.store(bytes, Ordering::SeqCst);
    }

    fn cut_no_more(&self) {
        self.left.store(u64::MAX, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_short_is_no_answer() {
    let (proxy, table) = (Proxy::start(server()).await, table());
    let behind = store(&table).await;
    let builder = PostgresStore::builder().table(&table).connections(1);
    let app = app(builder.connect(&url(proxy.port)).await.unwrap());
    let cookie = visitor(&app).await;
    let mut n = 1;
    // Nothing of it, some of its length, and some of the record.
    for allowed in [0, 3, 60] {
        assert_eq!(recovered(&app, "/read", &cookie).await, n.to_string());
        proxy.cut_after(allowed);
        assert_unavailable(&app, "/read", &cookie).await;
        proxy.cut_no_more();
        n += 1;
        assert_counts_to(&app, &cookie, n).await;
    }
    // The answer to a write that is carried out gets lost: it is not repeated.
    proxy.passed.store(0, Ordering::SeqCst);
    assert_eq!(
        text(send(&app, "/read", &cookie).await).await,
        n.to_string()
    );
    let answer_to_load = proxy.passed.load(Ordering::SeqCst);
    let now = || std::time::SystemTime::now().into();
    let id = session_id(&cookie);
    let before = behind.load(id, now()).await.unwrap().unwrap();
    proxy.cut_after(answer_to_load + 1);
    assert_unavailable(&app, "/", &cookie).await;
    proxy.cut_no_more();
    let after = behind.load(id, now()).await.unwrap().unwrap();
    assert_eq!(after.version, before.version.next());
    n += 1;
    assert_eq!(recovered(&app, "/read", &cookie).await, n.to_string());
}

/// As after a failover: the connections are still to the server that was demoted.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_over_the_address_of_a_demoted_one_is_found() {
    let (old, new) = (another_server().await, another_server().await);
    store_at(&new.url(), "sessions").await;
    let proxy = Proxy::start(&old).await;
    let app = app(store_at(&url(proxy.port), "sessions").await);
    assert_eq!(recovered(&app, "/", "").await, "1");
    make_read_only(&old, true).await;
    proxy.to.store(new.port(), Ordering::SeqCst);
    eventually("sessions are on the new server", async || {
        send(&app, "/", "").await;
        let count = "SELECT count(*) FROM sessions";
        let psql = psql_at(&new.url()).await;
        let count: i64 = psql.query_one(count, &[]).await.unwrap().get(0);
        count > 0
    })
    .await;
    // On every connection, with no break.
    let mut working = 0;
    eventually("it is written without a break", async || {
        let is_ok = send(&app, "/", "").await.status() == StatusCode::OK;
        working = if is_ok { working + 1 } else { 0 };
        working == 4
    })
    .await;
}

/// The table cannot grow any more, as on a disk that is full.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_what_is_new_and_keeps_what_it_has() {
    let server = tokio::task::spawn_blocking(PostgresServer::start_small)
        .await
        .unwrap();
    let psql = psql_at(&server.url()).await;
    psql.batch_execute("ALTER SYSTEM SET autovacuum = off")
        .await
        .unwrap();
    psql.batch_execute("SELECT pg_reload_conf()").await.unwrap();
    let store = store_at(&server.url(), "sessions").await;
    let app = app(store.clone());
    let (cookie, leaving) = (visitor(&app).await, visitor(&app).await);
    assert_eq!(
        send(&app, "/login", &leaving).await.status(),
        StatusCode::OK
    );
    let leaving = text(send(&app, "/read", &leaving).await).await;
    assert_eq!(leaving, "new", "it has another token now");

    // The room of old versions of rows is filled as well.
    psql.batch_execute("VACUUM sessions").await.unwrap();
    for rows in [4_000, 100, 1] {
        // What fails is undone, and its room not used again.
        let fill = format!(
            "INSERT INTO sessions SELECT gen_random_uuid(), 1, '', NULL, NULL, 'x', now(), NULL, \
             now(), now(), now(), NULL, NULL, '' FROM generate_series(1, {rows})"
        );
        let full = loop {
            if let Err(full) = psql.batch_execute(&fill).await {
                break full;
            }
        };
        let said = full.as_db_error().unwrap().message();
        assert!(said.contains("could not extend file"), "{said}");
    }

    let before = store.load(session_id(&cookie), NOW).await.unwrap();
    for path in ["/", "/login"] {
        assert_unavailable(&app, path, &cookie).await;
        assert_unavailable(&app, path, "").await;
    }
    let error = store.create(id(1), &record(None), NOW).await.unwrap_err();
    assert!(
        chain(&error).contains("could not extend file"),
        "{}",
        chain(&error)
    );
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
    assert_eq!(store.load(session_id(&cookie), NOW).await.unwrap(), before);
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    // To end sessions takes no room.
    assert_eq!(store.delete_by_owner("ada", None, NOW).await.unwrap(), 1);

    psql.batch_execute("DELETE FROM sessions WHERE owner = 'x'")
        .await
        .unwrap();
    psql.batch_execute("VACUUM sessions").await.unwrap();
    assert_counts_to(&app, &cookie, 2).await;
    visitor(&app).await;
}

/// Keeps what is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// S-10, S-84.
#[tokio::test]
async fn a_lost_and_a_regained_connection_are_logged_once_and_without_the_password() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _listening = tracing::subscriber::set_default(subscriber);

    let server = another_server().await;
    let url = server.url().replace("test@", "test:hunter2@");
    let builder = PostgresStore::builder().connections(1);
    let store = builder.connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    server.kill();
    // In its place is somebody who hangs up.
    let listener = TcpListener::bind(("127.0.0.1", server.port()))
        .await
        .unwrap();
    for _ in 0..3 {
        drop(listener.accept().await.unwrap());
    }
    drop(listener);
    server.start_again();
    eventually("it is back", async || store.load(id(1), NOW).await.is_ok()).await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let lines = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(lines("connection to PostgreSQL is lost"), 1, "{log}");
    assert_eq!(lines("connection to PostgreSQL is back"), 1, "{log}");
    assert_eq!(lines(&format!("127.0.0.1:{}", server.port())), 2, "{log}");
    assert!(log.contains("WARN") && log.contains("INFO"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
}
