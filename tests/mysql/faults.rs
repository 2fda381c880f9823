//! Parallel writers, calls that are given up, and what a server can do to its clients. S-71.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{
    Admission, Create, OwnerLimit, SessionStore as _, SignIn, StoreError, Timestamp, Update,
    Version, WhenFull,
};
use cloakroom::{MysqlStore, SessionId};
use http::StatusCode;
use http::header::SET_COOKIE;
use mysql_async::Conn;
use mysql_async::prelude::Queryable as _;
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

use super::mysql_server::url;
use super::proxy::Proxy;
use super::{
    DEADLINE, MysqlServer, NOW, app, chain, client, client_of, cookie, eventually, id, id_of,
    number, record, run, send, server, store, store_at, table, text, visitor,
};

/// The answer is a 503 that is not later than the deadline, and the client keeps its cookie.
async fn assert_unavailable(app: &Router, path: &str, cookie: &str) {
    let asked = Instant::now();
    let response = send(app, path, cookie).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
    assert!(!response.headers().contains_key(SET_COOKIE), "{path}");
    let took = asked.elapsed();
    assert!(took < DEADLINE + Duration::from_secs(1), "{took:?}");
}

/// Asks until the answer is not a 503 any more, which must be so after a few deadlines.
async fn recovered(app: &Router, path: &str, cookie: &str) -> String {
    let asked = Instant::now();
    loop {
        let response = send(app, path, cookie).await;
        if response.status() == StatusCode::OK {
            return text(response).await;
        }
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(asked.elapsed() < DEADLINE * 10, "it does not recover");
        tokio::task::yield_now().await;
    }
}

/// What the transaction after it locks is rows alone.
const NO_GAPS: &str = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED";

fn random_id() -> SessionId {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    SessionId::from_bytes(bytes)
}

/// A user of its own, so that its connections can be told from those of others.
async fn user(server: &MysqlServer) -> (String, String) {
    let (mut client, user) = (client_of(server).await, table().to_lowercase());
    run(&mut client, &format!("CREATE USER '{user}'@'%'")).await;
    run(
        &mut client,
        &format!("GRANT ALL ON mysql.* TO '{user}'@'%'"),
    )
    .await;
    let url = server.url().replace("root@", &format!("{user}@"));
    (user, url)
}

async fn connections(client: &mut Conn, user: &str) -> Vec<u64> {
    let ids = format!("SELECT id FROM information_schema.processlist WHERE user = '{user}'");
    client.query(ids).await.unwrap()
}

async fn kill(client: &mut Conn, what: &str, connections: Vec<u64>) -> usize {
    let mut killed = 0;
    for connection in connections {
        // It may have ended meanwhile.
        let done = client.query_drop(format!("KILL {what} {connection}")).await;
        killed += usize::from(done.is_ok());
    }
    killed
}

/// How many transactions are open on a table; a test has it to itself.
async fn open_transactions(client: &mut Conn, user: &str) -> u64 {
    let open = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx AS t \
         JOIN information_schema.processlist AS p ON p.id = t.trx_mysql_thread_id \
         WHERE p.user = '{user}'"
    );
    number(client, &open).await
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

/// Whatever waits for whatever: where the server ends one of two, the caller does not hear of it.
#[tokio::test(flavor = "multi_thread")]
async fn operations_of_all_kinds_at_once_do_not_fail() {
    const OWNERS: [&str; 3] = ["ada", "bob", "eve"];
    let table = table();
    let stores = [store(&table).await, store(&table).await];
    let mut admission = Admission::new(NOW.saturating_add(Duration::from_secs(1)));
    let two = NonZeroUsize::new(2).unwrap();
    admission.limit = Some(OwnerLimit::new(two, WhenFull::EvictOldest));
    let mut working = JoinSet::new();
    for n in 0..16_usize {
        let store = stores[n % 2].clone();
        working.spawn(async move {
            for m in 0..60_usize {
                let (owner, id) = (OWNERS[(n + m) % 3], id((m % 7).try_into().unwrap()));
                let done = match (n + m / 3) % 8 {
                    0..4 => sign_in_over(&store, id, owner, admission).await,
                    4 => store.delete(id).await.map(drop),
                    5 => store.delete_by_owner(owner, None, NOW).await.map(drop),
                    6 => store.delete_expired(NOW, 10).await.map(drop),
                    _ => store.delete_all().await.map(drop),
                };
                done.unwrap_or_else(|error| panic!("{}", chain(&error)));
            }
        });
    }
    working.join_all().await;
    for owner in OWNERS {
        let sessions = stores[0].list_by_owner(owner, NOW).await.unwrap();
        assert!(sessions.len() <= 2, "{owner}: {}", sessions.len());
    }
}

/// Which index the server takes, in a table where the wrong one is as good.
#[tokio::test]
async fn no_call_waits_for_the_session_of_somebody_else() {
    for (others_expire, last) in [(NOW, 9), (Timestamp::MAX, 9), (Timestamp::MAX, 1)] {
        let (mut client, table) = (client().await, table());
        let store = store(&table).await;
        let long_ago = Timestamp::from_millis(1);
        let mut bob = record(Some("bob"));
        bob.expires = others_expire;
        let admission = Admission::new(long_ago);
        let signed_in = store.sign_in(id(5), &bob, None, admission, long_ago).await;
        assert_eq!(signed_in.unwrap(), SignIn::Done);
        run(&mut client, NO_GAPS).await;
        run(&mut client, "START TRANSACTION").await;
        run(&mut client, &format!("UPDATE `{table}` SET seen = 0")).await;

        let mine = async |id: SessionId| {
            let mut ada = record(Some("ada"));
            assert!(!store.touch(id, ada.expires, NOW).await.unwrap());
            let gone = store.update(id, &record(None), ada.version, NOW).await;
            assert_eq!(gone.unwrap(), Update::Gone);
            let _ = store.create(id, &record(None), NOW).await.unwrap();
            store.load(id, NOW).await.unwrap().unwrap();
            assert!(store.touch(id, ada.expires, NOW).await.unwrap());
            ada.version = ada.version.next();
            let (first, admission) = (Some(record(None).version), Admission::new(NOW));
            let signed_in = store.sign_in(id, &ada, first, admission, NOW).await;
            assert_eq!(signed_in.unwrap(), SignIn::Done);
            let updated = store.update(id, &ada, ada.version, NOW).await.unwrap();
            assert_eq!(updated, Update::Conflict(ada.clone()));
            let gone = store
                .sign_in(super::id(6), &ada, first, admission, NOW)
                .await;
            assert_eq!(gone.unwrap(), SignIn::Gone);
            ada.version = record(None).version;
            let signed_in = store
                .sign_in(super::id(7), &ada, None, admission, NOW)
                .await;
            assert_eq!(signed_in.unwrap(), SignIn::Done);
            assert!(store.delete(super::id(7)).await.unwrap());
            assert_eq!(store.delete_expired(NOW, 9).await.unwrap(), 0);
            assert_eq!(store.delete_by_owner("ada", None, NOW).await.unwrap(), 1);
        };
        let done = timeout(Duration::from_secs(8), mine(id(last))).await;
        let waiting = "SELECT trx_query FROM information_schema.innodb_trx \
                       WHERE trx_state = 'LOCK WAIT'";
        let waiting: Vec<Option<String>> = client.query(waiting).await.unwrap();
        done.unwrap_or_else(|_| panic!("{others_expire:?} {last}: {waiting:?} waits"));
    }
}

/// S-64: the session is somebody else's by the time that it is its turn to go.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_changes_hands_meanwhile_does_not_end_with_those_of_its_old_owner() {
    let mut client = client().await;
    let mut admission = Admission::new(NOW);
    let one = NonZeroUsize::new(1).unwrap();
    admission.limit = Some(OwnerLimit::new(one, WhenFull::EvictOldest));
    for evicts in [true, false] {
        // Its own, or else one could take the waiting of the first round for that of the second.
        let table = table();
        let store = store(&table).await;
        let ada = record(Some("ada"));
        let signed_in = store.sign_in(id(1), &ada, None, admission, NOW).await;
        assert_eq!(signed_in.unwrap(), SignIn::Done);
        run(&mut client, NO_GAPS).await;
        run(&mut client, "START TRANSACTION").await;
        run(&mut client, &format!("UPDATE `{table}` SET owner = 'bob'")).await;
        let ending = {
            let store = store.clone();
            tokio::spawn(async move {
                if evicts {
                    let signed_in = store.sign_in(id(2), &ada, None, admission, NOW).await;
                    assert_eq!(signed_in.unwrap(), SignIn::Done);
                } else {
                    let ended = store.delete_by_owner("ada", None, NOW).await;
                    assert_eq!(ended.unwrap(), 0);
                }
            })
        };
        let waits = format!(
            "SELECT COUNT(*) FROM information_schema.innodb_trx \
             WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%{table}%'"
        );
        eventually("it waits for the session", async || {
            number(&mut client, &waits).await > 0
        })
        .await;
        run(&mut client, "COMMIT").await;
        ending.await.unwrap();
        let bob = store.list_by_owner("bob", NOW).await.unwrap();
        assert_eq!(bob, [(id(1), record(Some("bob")))]);
    }
}

/// Signs an owner in over whatever session has the id.
async fn sign_in_over(
    store: &MysqlStore,
    id: SessionId,
    owner: &str,
    admission: Admission,
) -> Result<(), StoreError> {
    let present = store.load(id, NOW).await?.map(|record| record.version);
    let mut new = record(Some(owner));
    new.version = present.map_or(new.version, Version::next);
    let _ = store.sign_in(id, &new, present, admission, NOW).await?;
    Ok(())
}

/// Writes new sessions, 16 at once, until it is told to stop; which were acknowledged, and how many calls
/// failed.
fn write(store: &MysqlStore, stop: &Arc<AtomicBool>) -> JoinSet<(Vec<SessionId>, usize)> {
    let mut writing = JoinSet::new();
    for n in 0..16_usize {
        let (store, stop) = (store.clone(), Arc::clone(stop));
        writing.spawn(async move {
            let (mut stored, mut errors) = (Vec::new(), 0);
            while !stop.load(Ordering::SeqCst) {
                let id = random_id();
                let done = if n % 2 == 0 {
                    let created = store.create(id, &record(None), NOW).await;
                    created.map(|created| assert_eq!(created, Create::Done, "not stored twice"))
                } else {
                    let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
                    let signed_in = store.sign_in(id, &ada, None, admission, NOW).await;
                    signed_in.map(|done| assert_eq!(done, SignIn::Done, "not stored twice"))
                };
                match done {
                    Ok(()) => stored.push(id),
                    Err(error) => {
                        assert!(!error.is_corrupt(), "{}", chain(&error));
                        errors += 1;
                        tokio::task::yield_now().await;
                    }
                }
            }
            (stored, errors)
        });
    }
    writing
}

async fn assert_all_are_there(store: &MysqlStore, ids: Vec<SessionId>) {
    for id in ids {
        assert!(store.load(id, NOW).await.unwrap().is_some(), "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_killed_under_load_cost_errors_and_nothing_that_was_acknowledged() {
    for what in ["CONNECTION", "QUERY"] {
        let (user, url) = user(server()).await;
        let (mut client, table) = (client().await, table());
        let store = store_at(&url, &table).await;
        let stop = Arc::<AtomicBool>::default();
        let writing = write(&store, &stop);
        let mut times = 0;
        eventually("connections come back to be killed", async || {
            let ids = connections(&mut client, &user).await;
            times += i32::from(kill(&mut client, what, ids).await > 0);
            times == 8
        })
        .await;
        stop.store(true, Ordering::SeqCst);
        let (stored, errors): (Vec<_>, Vec<usize>) = writing.join_all().await.into_iter().unzip();
        assert!(errors.iter().sum::<usize>() > 0, "KILL {what}");
        // Without a break, and with no transaction left open on a connection that is used again.
        assert_all_are_there(&store, stored.concat()).await;
        eventually("no transaction is open", async || {
            open_transactions(&mut client, &user).await == 0
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_under_load_loses_nothing_that_was_acknowledged() {
    let server = block_in_place(|| MysqlServer::start(&[]));
    let store = store_at(&server.url(), "sessions").await;
    let stop = Arc::<AtomicBool>::default();
    let writing = write(&store, &stop);
    let mut client = client_of(&server).await;
    eventually("there is something to lose", async || {
        number(&mut client, "SELECT COUNT(*) FROM sessions").await > 500
    })
    .await;
    block_in_place(|| server.kill());
    stop.store(true, Ordering::SeqCst);
    let (stored, errors): (Vec<_>, Vec<usize>) = writing.join_all().await.into_iter().unzip();
    assert!(errors.iter().sum::<usize>() > 0);
    block_in_place(|| server.start_again());
    assert_all_are_there(&store, stored.concat()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_clients_get_503_and_keep_their_session() {
    let server = block_in_place(|| MysqlServer::start(&[]));
    let app = app(store_at(&server.url(), "sessions").await);
    let (guest, leaving) = (visitor(&app).await, visitor(&app).await);
    let ada = cookie(&send(&app, "/login", &guest).await);
    send(&app, "/logout", &leaving).await;

    block_in_place(|| server.kill());
    for path in ["/read", "/", "/login", "/logout", "/read"] {
        assert_unavailable(&app, path, &ada).await;
    }
    let error = MysqlStore::connect(&server.url()).await.unwrap_err();
    let error = chain(&error);
    assert!(error.contains("cannot connect"), "{error}");

    block_in_place(|| server.start_again());
    // The connections from before are noticed, not tried.
    assert_eq!(text(send(&app, "/read", &ada).await).await, "1");
    assert_eq!(text(send(&app, "/", &ada).await).await, "2");
    for ended in [&guest, &leaving] {
        assert_eq!(text(send(&app, "/read", ended).await).await, "new");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_paused_longer_than_the_deadline_is_used_again() {
    let server = block_in_place(|| MysqlServer::start(&[]));
    let app = app(store_at(&server.url(), "sessions").await);
    let (cookie, leaving) = (visitor(&app).await, visitor(&app).await);
    send(&app, "/logout", &leaving).await;
    server.pause();
    let mut asking = JoinSet::new();
    // More than there are connections.
    for n in 0..24 {
        let (app, cookie) = (app.clone(), cookie.clone());
        let path = if n % 2 == 0 { "/read" } else { "/" };
        asking.spawn(async move { assert_unavailable(&app, path, &cookie).await });
    }
    while let Some(asked) = asking.join_next().await {
        asked.unwrap();
    }
    server.wake();
    // What was given up on may be carried out or not, but not twice.
    let n: u32 = recovered(&app, "/read", &cookie).await.parse().unwrap();
    assert!((1..=13).contains(&n), "{n}");
    let next: u32 = recovered(&app, "/", &cookie).await.parse().unwrap();
    assert!((n + 1..=14).contains(&next), "{next} after {n}");
    assert_eq!(recovered(&app, "/read", &leaving).await, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_cut_short_is_no_answer() {
    let table = table();
    let behind = store(&table).await;
    let proxy = Proxy::start(server()).await;
    let app = app(store_at(&url(proxy.port), &table).await);
    let cookie = visitor(&app).await;
    // Nothing of it, some of its head, and some of the record, which is about 120 bytes.
    for (allowed, n) in [(0, 1), (3, 2), (20, 3), (100, 4)] {
        assert_eq!(recovered(&app, "/read", &cookie).await, n.to_string());
        proxy.left.store(allowed, Ordering::SeqCst);
        assert_unavailable(&app, "/read", &cookie).await;
        proxy.left.store(u64::MAX, Ordering::SeqCst);
        assert_eq!(recovered(&app, "/", &cookie).await, (n + 1).to_string());
    }
    // A write whose answer is lost was carried out, and is not repeated.
    let (id, now) = (id_of(&cookie), std::time::SystemTime::now().into());
    let before = behind.load(id, now).await.unwrap().unwrap();
    let builder = MysqlStore::builder().table(&table).connections(1);
    let through = builder.connect(&url(proxy.port)).await.unwrap();
    let mut next = before.clone();
    next.version = before.version.next();
    through.load(id, now).await.unwrap();
    // The statement is prepared by then.
    let conflict = through.update(id, &next, next.version, now).await.unwrap();
    assert_eq!(conflict, Update::Conflict(before.clone()));
    proxy.left.store(5, Ordering::SeqCst);
    let lost = through.update(id, &next, before.version, now).await;
    assert!(lost.is_err());
    proxy.left.store(u64::MAX, Ordering::SeqCst);
    assert_eq!(behind.load(id, now).await.unwrap(), Some(next));
    assert_eq!(recovered(&app, "/read", &cookie).await, "5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_reads_is_read_and_refuses_to_write() {
    let server = block_in_place(|| MysqlServer::start(&[]));
    let mut client = client_of(&server).await;
    // The user who may do everything may write all the same.
    let (user, url) = user(&server).await;
    let store = store_at(&url, "sessions").await;
    let app = app(store.clone());
    let (guest, cookie) = (visitor(&app).await, visitor(&app).await);
    let ada = super::cookie(&send(&app, "/login", &guest).await);

    run(&mut client, "SET GLOBAL read_only = 1").await;
    for path in ["/", "/login", "/logout"] {
        assert_unavailable(&app, path, &ada).await;
    }
    assert_unavailable(&app, "/", "").await;
    assert!(store.delete_by_owner("ada", None, NOW).await.is_err());
    assert_eq!(text(send(&app, "/read", &ada).await).await, "1");
    let error = store.create(id(1), &record(None), NOW).await.unwrap_err();
    assert!(chain(&error).contains("read-only"), "{}", chain(&error));
    // It may be a primary no longer: whoever was refused connects anew the next time.
    eventually("no connection is kept", async || {
        store.delete(id(1)).await.unwrap_err();
        connections(&mut client, &user).await.is_empty()
    })
    .await;

    run(&mut client, "SET GLOBAL read_only = 0").await;
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
    let left = send(&app, "/logout", &ada).await;
    assert_eq!(left.status(), StatusCode::OK);
    assert_eq!(text(send(&app, "/read", &ada).await).await, "new");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_what_is_new_and_keeps_what_it_has() {
    let server = block_in_place(|| {
        MysqlServer::start(&[
            "--innodb-file-per-table=0",
            "--innodb-data-file-path=ibdata1:12M:autoextend:max:24M",
        ])
    });
    let store = store_at(&server.url(), "sessions").await;
    let app = app(store.clone());
    let (cookie, leaving) = (visitor(&app).await, visitor(&app).await);
    let mut big = record(None);
    big.data = vec![b' '; 256 << 10].into();
    let mut kept = Vec::new();
    let refused = loop {
        let id = random_id();
        match store.create(id, &big, NOW).await {
            Ok(created) => assert_eq!(created, Create::Done),
            Err(error) => break error,
        }
        kept.push(id);
    };
    assert!(!refused.is_corrupt());
    assert!(chain(&refused).contains("is full"), "{}", chain(&refused));
    assert!(kept.len() > 10);
    let mut ada = big.clone();
    ada.owner = Some("ada".into());
    let admission = Admission::new(NOW);
    let refused = store.sign_in(id(1), &ada, None, admission, NOW).await;
    assert!(refused.is_err());
    assert_eq!(store.list_by_owner("ada", NOW).await.unwrap(), []);

    for id in &kept {
        assert_eq!(store.load(*id, NOW).await.unwrap(), Some(big.clone()));
    }
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");
    // To delete takes room too, and may be refused; then it is not announced.
    let left = send(&app, "/logout", &leaving).await;
    let expected = match left.status() {
        StatusCode::OK => "new",
        status => {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(!left.headers().contains_key(SET_COOKIE));
            "1"
        }
    };
    assert_eq!(text(send(&app, "/read", &leaving).await).await, expected);

    block_in_place(|| {
        server.kill();
        server.start_again_with("--innodb-data-file-path=ibdata1:12M:autoextend");
    });
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
    send(&app, "/logout", &leaving).await;
    assert_eq!(text(send(&app, "/read", &leaving).await).await, "new");
    assert_all_are_there(&store, kept).await;
}

/// Whether at the lock or on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_given_up_leaves_neither_a_transaction_nor_a_spoiled_connection() {
    let (user, url) = user(server()).await;
    let (mut client, table) = (client().await, table());
    store_at(&url, &table).await;
    let builder = MysqlStore::builder().table(&table).connections(1);
    let store = builder.connect(&url).await.unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    let (mut ada, admission) = (record(Some("ada")), Admission::new(NOW));
    ada.version = ada.version.next();
    let first = record(None).version;
    for round in 0..3 {
        run(&mut client, "START TRANSACTION").await;
        run(&mut client, &format!("SELECT id FROM `{table}` FOR UPDATE")).await;
        let given_up = Duration::from_millis(300);
        let signing_in = store.sign_in(id(1), &ada, Some(first), admission, NOW);
        assert!(timeout(given_up, signing_in).await.is_err(), "{round}");
        // The only connection was given up with it: this has one of its own.
        let loaded = timeout(given_up * 10, store.load(id(1), NOW)).await;
        assert_eq!(loaded.unwrap().unwrap(), Some(record(None)));
        run(&mut client, "ROLLBACK").await;
        eventually("no transaction is open", async || {
            open_transactions(&mut client, &user).await == 0
        })
        .await;
        // The server may have carried it out, wholly.
        let expected = if store.list_by_owner("ada", NOW).await.unwrap().is_empty() {
            record(None)
        } else {
            ada.clone()
        };
        assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(expected));
        store.delete(id(1)).await.unwrap();
        let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    }
    // At any point: one connection serves whoever is patient.
    let mut big = record(None);
    big.data = vec![b' '; 1 << 20].into();
    let given_up = AtomicUsize::new(0);
    for n in 0..100_u64 {
        let id = random_id();
        let patience = Duration::from_micros(n * 100);
        let call = async {
            let created = store.create(id, &big, NOW).await.unwrap();
            assert_eq!(created, Create::Done);
            assert!(store.load(id, NOW).await.unwrap().is_some());
        };
        if timeout(patience, call).await.is_err() {
            given_up.fetch_add(1, Ordering::SeqCst);
        }
        let loaded = timeout(Duration::from_secs(10), store.load(id, NOW)).await;
        if let Some(loaded) = loaded.expect("there is a connection").unwrap() {
            assert_eq!(loaded, big);
        }
    }
    assert!(given_up.load(Ordering::SeqCst) > 0);
}

/// As after a restart or `wait_timeout`: of TCP the driver notices, of Unix sockets the store.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_that_the_server_has_closed_cost_no_error() {
    let mut client = client().await;
    let socket: Option<String> = client.query_first("SELECT @@socket").await.unwrap();
    for option in [String::new(), format!("?socket={}", socket.unwrap())] {
        let (user, url) = user(server()).await;
        let table = table();
        let store = store_at(&format!("{url}{option}"), &table).await;
        let mut all = JoinSet::new();
        for n in 0..64 {
            let store = store.clone();
            all.spawn(async move {
                let _ = store.create(id(n), &record(None), NOW).await.unwrap();
            });
        }
        all.join_all().await;
        let idle = connections(&mut client, &user).await;
        assert!(idle.len() > 1, "{idle:?}");
        kill(&mut client, "CONNECTION", idle).await;
        eventually("all are closed", async || {
            connections(&mut client, &user).await.is_empty()
        })
        .await;
        for n in 0..64 {
            let updated = store
                .update(id(n), &record(None), record(None).version.next(), NOW)
                .await;
            let updated = updated.unwrap_or_else(|error| panic!("{option} {}", chain(&error)));
            assert_eq!(updated, Update::Conflict(record(None)));
        }
    }
}

#[tokio::test]
async fn a_store_that_is_dropped_closes_its_connections() {
    let (user, url) = user(server()).await;
    let mut client = client().await;
    let store = store_at(&url, &table()).await;
    let _ = store.clone().load(id(1), NOW).await.unwrap();
    assert!(!connections(&mut client, &user).await.is_empty());
    drop(store);
    eventually("no connection", async || {
        connections(&mut client, &user).await.is_empty()
    })
    .await;
}

/// S-71: as clients do that leave in the moment in which a connection is there for them.
#[tokio::test]
async fn who_leaves_while_waiting_for_a_connection_leaves_it_to_the_next() {
    let table = table();
    store(&table).await;
    let builder = MysqlStore::builder().table(&table).connections(1);
    let store = builder.connect(&server().url()).await.unwrap();
    let pause = || tokio::time::sleep(Duration::from_millis(50));
    for _ in 0..5 {
        pause().await;
        let mut has = Box::pin(store.load(id(1), NOW));
        let mut leaves = Box::pin(store.load(id(2), NOW));
        let mut waits = Box::pin(store.load(id(3), NOW));
        for load in [&mut has, &mut leaves, &mut waits] {
            assert!(futures_util::poll!(load).is_pending());
        }
        assert_eq!(has.await.unwrap(), None);
        // It is called, and not polled any more.
        pause().await;
        drop(leaves);
        let waited = timeout(Duration::from_secs(1), waits).await;
        assert_eq!(waited.expect("it is called").unwrap(), None);
    }
}

/// S-71: nobody waits longer for that, and nobody after it.
#[tokio::test(flavor = "multi_thread")]
async fn bursts_of_clients_that_leave_hold_up_no_others() {
    let table = table();
    store(&table).await;
    let builder = MysqlStore::builder().table(&table).connections(2);
    let store = builder.connect(&server().url()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let stays = {
        let (store, over) = (store.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let asked = Instant::now();
                store.load(id(1), NOW).await.unwrap();
                longest = longest.max(asked.elapsed());
            }
            longest
        })
    };
    for _ in 0..100 {
        let mut leaving = JoinSet::new();
        for n in 0..50 {
            let store = store.clone();
            let patience = Duration::from_micros(n * 40);
            leaving.spawn(async move { timeout(patience, store.load(id(2), NOW)).await.is_ok() });
        }
        leaving.join_all().await;
    }
    over.store(true, Ordering::Relaxed);
    let longest = stays.await.unwrap();
    assert!(longest < Duration::from_secs(2), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_wait_for_a_connection_get_one() {
    let table = table();
    store(&table).await;
    let builder = MysqlStore::builder().table(&table).connections(2);
    let store = builder.connect(&server().url()).await.unwrap();
    let mut creating = JoinSet::new();
    for _ in 0..500 {
        let store = store.clone();
        creating.spawn(async move {
            let id = random_id();
            let created = store.create(id, &record(None), NOW).await.unwrap();
            assert_eq!(created, Create::Done);
            id
        });
    }
    let ids: HashSet<_> = creating.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 500);
    assert_eq!(store.delete_all().await.unwrap(), 500);
}
