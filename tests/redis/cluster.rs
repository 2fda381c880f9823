//! The store on a cluster: the contract, what a call costs, and what an interruption leaves.

mod faults;
mod interrupted;

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::Duration;

use axum::Router;
use cloakroom::store::{Admission, OwnerLimit, SessionStore as _, SignIn, Version, WhenFull};
use cloakroom::test_util::TestClock;
use cloakroom::{AnyStore, RedisStore, SessionLayer, conformance_tests};
use redis::Commands as _;
use tokio::task::JoinSet;

use super::redis_cluster::RedisCluster;
use super::redis_server::RedisServer;
use super::workflows::workflows;
use super::{app, chain, cookie, id, now, prefix, record, routes, send, text, visitor};

conformance_tests!(contract, async {
    on(RedisCluster::shared(), &prefix()).await
});
workflows!(over_http, async {
    on(RedisCluster::shared(), &prefix()).await
});

async fn on(cluster: &RedisCluster, prefix: &str) -> RedisStore {
    let store = RedisStore::connect(&cluster.url()).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    store.with_prefix(prefix).unwrap()
}

fn at_most(max: usize, when_full: WhenFull) -> Admission {
    let mut admission = Admission::new(now());
    admission.limit = Some(OwnerLimit::new(NonZeroUsize::new(max).unwrap(), when_full));
    admission
}

async fn sign_in(store: &RedisStore, n: u8, admission: Admission) -> SignIn {
    let new = record(Some("ada"));
    store
        .sign_in(id(n), &new, None, admission, now())
        .await
        .unwrap()
}

/// What clients send to all nodes, of which scripts' own commands are no part.
struct Monitor {
    nodes: Vec<(redis::Connection, Lines<BufReader<TcpStream>>)>,
}

impl Monitor {
    fn of(cluster: &RedisCluster) -> Self {
        let monitor = |node: &RedisServer| {
            let mut stream = TcpStream::connect(("127.0.0.1", node.port)).unwrap();
            stream.write_all(b"MONITOR\r\n").unwrap();
            let mut lines = BufReader::new(stream).lines();
            assert_eq!(lines.next().unwrap().unwrap(), "+OK");
            (node.connection(), lines)
        };
        Self {
            nodes: cluster.nodes.iter().map(monitor).collect(),
        }
    }

    /// The names of the commands since the last time.
    fn sent(&mut self) -> Vec<String> {
        let mut sent = Vec::new();
        for (connection, lines) in &mut self.nodes {
            let end = "that was all";
            let _: String = redis::cmd("ECHO").arg(end).query(connection).unwrap();
            let seen = lines
                .map(Result::unwrap)
                .take_while(|line| !line.contains(end));
            let outside = seen.filter(|line| !line.contains(" lua] "));
            let name = |line: String| line.split('"').nth(1).unwrap().to_owned();
            let of_drivers = ["CLIENT", "CLUSTER", "COMMAND", "PING", "REPLCONF", "INFO"];
            sent.extend(
                outside
                    .map(name)
                    .filter(|name| !of_drivers.contains(&&**name)),
            );
        }
        sent
    }
}

/// Has all nodes know all scripts.
async fn warm(store: &RedisStore) {
    cloakroom::store::conformance::sign_in_keeps_the_limit(store.clone()).await;
    for n in 0..32 {
        let ada = format!("ada {n}");
        let (new, admission) = (record(Some(&ada)), at_most(1, WhenFull::EvictOldest));
        for m in 0..2 {
            let _ = store
                .sign_in(id(100 + 2 * n + m), &new, None, admission, now())
                .await
                .unwrap();
        }
        store.touch(id(101 + 2 * n), now(), now()).await.unwrap();
        let _ = store
            .update(id(101 + 2 * n), &new, Version::FIRST, now())
            .await
            .unwrap();
        store.list_by_owner(&ada, now()).await.unwrap();
        store.delete_by_owner(&ada, None, now()).await.unwrap();
        let _ = store
            .create(id(101 + 2 * n), &record(None), now())
            .await
            .unwrap();
    }
    store.delete_all().await.unwrap();
}

#[tokio::test]
async fn each_operation_makes_as_few_trips_as_it_can() {
    let cluster = RedisCluster::with(&[]);
    let store = on(&cluster, "s:").await;
    warm(&store).await;
    let mut monitor = Monitor::of(&cluster);
    let mut counted = |what: &str, expected: usize| {
        let sent = monitor.sent();
        assert_eq!(sent.len(), expected, "{what}: {sent:?}");
    };
    counted("nothing", 0);
    let (first, admission) = (record(None), Admission::new(now()));
    let _ = store.create(id(1), &first, now()).await.unwrap();
    counted("create", 1);
    store.load(id(1), now()).await.unwrap();
    counted("load", 1);
    let _ = store.update(id(1), &first, Version::FIRST, now()).await;
    counted("update", 1);
    store.touch(id(1), now(), now()).await.unwrap();
    counted("touch", 1);
    store.delete(id(1)).await.unwrap();
    counted("delete", 1);
    assert_eq!(sign_in(&store, 1, admission).await, SignIn::Done);
    counted("sign_in", 2);
    for n in 2..4 {
        assert_eq!(
            sign_in(&store, n, at_most(3, WhenFull::Refuse)).await,
            SignIn::Done
        );
        counted("sign_in under a limit", 2);
    }
    // The claim, then a look at three sessions at once.
    assert_eq!(
        sign_in(&store, 4, at_most(3, WhenFull::Refuse)).await,
        SignIn::Full
    );
    counted("sign_in of one too many", 1 + 3);
    // The claim again, the session, the end of the oldest, and then the new one counts.
    assert_eq!(
        sign_in(&store, 4, at_most(3, WhenFull::EvictOldest)).await,
        SignIn::Done
    );
    counted("sign_in that evicts", 1 + 3 + 4);
    // One entry is stale by now, and is dropped.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(
        sign_in(&store, 5, at_most(4, WhenFull::Refuse)).await,
        SignIn::Done
    );
    counted("sign_in after one was evicted", 1 + 4 + 1 + 2);
    store.list_by_owner("ada", now()).await.unwrap();
    counted("list_by_owner", 1 + 4);
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 4);
    counted("delete_by_owner", 1 + 4 + 1);
    store.delete_expired(now(), 100).await.unwrap();
    counted("delete_expired", 0);
}

#[tokio::test]
async fn each_request_makes_as_few_trips_as_it_can() {
    let cluster = RedisCluster::with(&[]);
    let store = on(&cluster, "s:").await;
    warm(&store).await;
    let clock = TestClock::new();
    let layer = SessionLayer::builder(store)
        .clock(clock.clone())
        .build()
        .unwrap();
    let app: Router = routes().layer(layer);
    let guest = visitor(&app).await;
    let mut monitor = Monitor::of(&cluster);
    monitor.sent();
    let mut counted = async |path: &str, cookie: &str, expected: usize| {
        let response = send(&app, path, cookie).await;
        assert_eq!(response.status(), 200);
        let sent = monitor.sent();
        assert_eq!(sent.len(), expected, "{path}: {sent:?}");
        response
    };
    counted("/", "", 1).await;
    counted("/read", &guest, 1).await;
    counted("/", &guest, 2).await;
    clock.advance(Duration::from_secs(15 * 60));
    counted("/read", &guest, 2).await;
    // One of these reads the session. The claim and the write concern two keys, so two nodes.
    let signed_in = cookie(&counted("/login", &guest, 3).await);
    counted("/login", "", 2).await;
    counted("/logout", &signed_in, 2).await;
}

#[tokio::test]
async fn an_index_outlives_its_sessions() {
    let (cluster, prefix) = (RedisCluster::shared(), prefix());
    let store = on(cluster, &prefix).await;
    let index = format!("{prefix}owner:{{616461}}");
    let mut connection = cluster.master_of(&index).connection();
    super::keys::assert_outlives(&store, || connection.pttl(&index).unwrap()).await;
}

#[tokio::test]
async fn an_index_drops_what_is_gone_when_it_is_read() {
    let (cluster, prefix) = (RedisCluster::shared(), prefix());
    let store = on(cluster, &prefix).await;
    let index = format!("{prefix}owner:{{616461}}");
    let mut connection = cluster.master_of(&index).connection();
    let admission = Admission::new(now());
    for n in 1..=3 {
        assert_eq!(sign_in(&store, n, admission).await, SignIn::Done);
        assert!(store.delete(id(n)).await.unwrap());
    }
    assert_eq!(sign_in(&store, 4, admission).await, SignIn::Done);
    let _: () = connection.zadd(&index, "no id", 1).unwrap();
    assert_eq!(connection.zcard::<_, usize>(&index).unwrap(), 5);
    // What is so young may be about to be written.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(store.list_by_owner("ada", now()).await.unwrap().len(), 1);
    assert_eq!(connection.zcard::<_, usize>(&index).unwrap(), 1);

    // Without a limit and without a list, sign-ins look through an index that has grown.
    for n in 0..200_u64 {
        let gone =
            cloakroom::SessionId::from_bytes([n.to_be_bytes(); 2].concat().try_into().unwrap());
        let _: () = connection.zadd(&index, gone.to_string(), 1).unwrap();
    }
    let before: usize = connection.zcard(&index).unwrap();
    for n in 10..70 {
        assert_eq!(sign_in(&store, n, admission).await, SignIn::Done);
    }
    let after: usize = connection.zcard(&index).unwrap();
    assert!(after < before, "{after} entries for 61 sessions");
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 61);
    assert!(!connection.exists::<_, bool>(&index).unwrap());
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_applications_lose_no_update_of_one_session() {
    let (cluster, prefix) = (RedisCluster::shared(), prefix());
    let apps = [
        app(on(cluster, &prefix).await),
        app(on(cluster, &prefix).await),
    ];
    let cookie = visitor(&apps[0]).await;
    let mut requests = JoinSet::new();
    for app in apps.iter().cycle().take(128) {
        let (app, cookie) = (app.clone(), cookie.clone());
        requests.spawn(async move { send(&app, "/", &cookie).await.status() });
    }
    assert!(
        requests
            .join_all()
            .await
            .iter()
            .all(|status| *status == 200)
    );
    for app in &apps {
        assert_eq!(text(send(app, "/read", &cookie).await).await, "129");
    }
}

/// S-76.
#[tokio::test]
async fn stores_under_two_prefixes_do_not_see_each_other() {
    let (cluster, prefix) = (RedisCluster::shared(), prefix());
    let [one, other] = [
        on(cluster, &prefix).await,
        on(cluster, &format!("{prefix}session:")).await,
    ];
    let admission = Admission::new(now());
    for store in [&one, &other] {
        assert_eq!(sign_in(store, 1, admission).await, SignIn::Done);
    }
    assert_eq!(one.delete_all().await.unwrap(), 1);
    assert!(one.load(id(1), now()).await.unwrap().is_none());
    assert_eq!(other.list_by_owner("ada", now()).await.unwrap().len(), 1);
    assert_eq!(other.delete_by_owner("ada", None, now()).await.unwrap(), 1);
}

/// S-08.
#[tokio::test]
async fn no_key_and_no_value_holds_a_secret() {
    let cluster = RedisCluster::with(&[]);
    let app = app(on(&cluster, "s:").await);
    let anonymous = visitor(&app).await;
    let signed_in = cookie(&send(&app, "/login", &visitor(&app).await).await);
    let dump: Vec<u8> = cluster.nodes.iter().flat_map(super::keys::dump).collect();
    super::keys::assert_no_secret(&dump, &[anonymous, signed_in]);
}

#[tokio::test]
async fn a_url_leads_to_a_cluster_or_says_why_not() {
    let (cluster, server) = (RedisCluster::shared(), RedisServer::shared());
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.port).collect();
    let gone = RedisServer::start(&[]);
    gone.kill();
    // One node that answers is enough.
    let url = format!(
        "redis+cluster://127.0.0.1:{},127.0.0.1:{}",
        gone.port, ports[1]
    );
    let store = AnyStore::connect(&url).await.unwrap();
    assert!(store.load(id(1), now()).await.unwrap().is_none());
    let urls = [format!("redis://127.0.0.1:{}", ports[2])];
    assert!(RedisStore::connect_cluster(&urls).await.is_ok());

    for (url, why) in [
        (
            server.url().replace("redis:", "redis+cluster:"),
            "does not answer as part of a cluster",
        ),
        (
            format!("redis+cluster://u:hunter2@127.0.0.1:{}", gone.port),
            "refused",
        ),
        (
            format!("redis+cluster://u:hunter2@127.0.0.1:{}", ports[0]),
            "uthentication",
        ),
        (
            "redis+cluster://u:hunter2@a:b,c".to_owned(),
            "no URL of a Redis server",
        ),
        (
            "http+cluster://u:hunter2@a".to_owned(),
            "no URL of a Redis server",
        ),
        (
            format!("redis+cluster://127.0.0.1:{}/1", ports[0]),
            "switch database",
        ),
    ] {
        let error = RedisStore::connect(&url).await.unwrap_err();
        assert!(chain(&error).contains(why), "{url}: {}", chain(&error));
        assert!(!chain(&error).contains("hunter2"));
    }
    let none: [&str; 0] = [];
    assert!(RedisStore::connect_cluster(&none).await.is_err());
}

/// A user with the rights that the documentation names, and no others.
#[tokio::test]
async fn the_rights_that_are_asked_for_are_enough() {
    let cluster = RedisCluster::with(&[]);
    for node in &cluster.nodes {
        let least = "SETUSER shop on >right ~cloakroom:* +@read +@write +@scripting +@connection \
                     +info +time +cluster +asking";
        let mut command = redis::cmd("ACL");
        let command = command.arg(least.split_whitespace().collect::<Vec<_>>());
        command.exec(&mut node.connection()).unwrap();
    }
    let url = cluster.url().replace("//", "//shop:right@");
    let store = RedisStore::connect(&url).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    cloakroom::store::conformance::sign_in_keeps_the_limit(store.clone()).await;
    cloakroom::store::conformance::delete_all_leaves_nothing(store).await;
}
