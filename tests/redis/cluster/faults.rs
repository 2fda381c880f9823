//! What a cluster can do to its clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use cloakroom::store::{Admission, SessionStore as _, SignIn};
use cloakroom::{RedisStore, SessionLayer};
use http::StatusCode;
use redis::Commands as _;

use super::super::faults::{assert_unavailable, recovered};
use super::super::redis_cluster::RedisCluster;
use super::super::redis_server::RedisServer;
use super::super::{DEADLINE, app, id_of};
use super::{chain, id, now, on, record, routes, send, sign_in, text, visitor};

/// How long the applications here wait for the store, whose nodes have to take a failed one's place
/// on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long it may take until a replica has its master's place.
const FAILOVER: Duration = Duration::from_secs(60);

fn key(cookie: &str) -> String {
    format!("s:session:{{{}}}", id_of(cookie))
}

/// A visitor for each master, in the order of the nodes.
async fn visitors(cluster: &RedisCluster, app: &Router) -> Vec<String> {
    let mut found = vec![None; 3];
    while found.iter().any(Option::is_none) {
        let cookie = visitor(app).await;
        let master = cluster.master_of(&key(&cookie)).port;
        let at = cluster
            .nodes
            .iter()
            .position(|node| node.port == master)
            .unwrap();
        found[at] = Some(cookie);
    }
    found.into_iter().flatten().collect()
}

/// Counts in a session until told to stop; how often that was acknowledged, and tried.
async fn load(app: Router, cookie: String, is_over: Arc<AtomicBool>) -> (u32, u32) {
    let (mut done, mut tried) = (0, 0);
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let response = send(&app, "/", &cookie).await;
        tried += 1;
        match response.status() {
            StatusCode::OK => done += 1,
            status => assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE),
        }
        let took = asked.elapsed();
        assert!(took < PATIENCE + Duration::from_secs(1), "{took:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    (done, tried)
}

async fn counted(app: &Router, cookie: &str) -> u32 {
    let asked = Instant::now();
    loop {
        let response = send(app, "/read", cookie).await;
        if response.status() == StatusCode::OK {
            return text(response).await.parse().expect("the session is there");
        }
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(asked.elapsed() < FAILOVER, "it does not recover");
    }
}

/// Takes the first master away under load, and waits until its replica has its place.
async fn fails_over(cluster: &RedisCluster, take_away: impl FnOnce(&RedisServer)) -> RedisStore {
    // The node that is taken away is the only one the store was told of.
    let store = RedisStore::connect_cluster(&[cluster.nodes[0].url()]).await;
    let store = store.unwrap().with_prefix("s:").unwrap();
    let layer = SessionLayer::builder(store.clone()).store_timeout(PATIENCE);
    let app = routes().layer(layer.build().unwrap());
    let cookies = visitors(cluster, &app).await;
    // Replication is asynchronous: without this, even the sessions may be lost.
    for node in &cluster.nodes[..3] {
        let wait = redis::cmd("WAIT")
            .arg(1)
            .arg(10_000)
            .query::<u8>(&mut node.connection());
        assert_eq!(wait.unwrap(), 1);
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let loads: Vec<_> = cookies
        .iter()
        .map(|cookie| tokio::spawn(load(app.clone(), cookie.clone(), Arc::clone(&is_over))))
        .collect();
    let before = counted(&app, &cookies[0]).await;
    take_away(&cluster.nodes[0]);
    let unavailable = Instant::now();
    while send(&app, "/read", &cookies[0]).await.status() == StatusCode::OK {
        assert!(unavailable.elapsed() < FAILOVER, "its master is gone");
    }
    assert!(counted(&app, &cookies[0]).await >= 1);
    // And it can be written.
    assert!(recovered_by(FAILOVER, &app, "/", &cookies[0]).await >= 1);
    is_over.store(true, Ordering::Relaxed);
    for (n, load) in loads.into_iter().enumerate() {
        let (done, tried) = load.await.unwrap();
        let counted = counted(&app, &cookies[n]).await;
        assert!(counted <= tried + 2, "{counted} counted of {tried}");
        if n > 0 {
            assert_eq!(
                (done, counted),
                (tried, tried + 1),
                "the others go on all the time"
            );
        }
    }
    assert!(before >= 1);
    store
}

async fn recovered_by(limit: Duration, app: &Router, path: &str, cookie: &str) -> u32 {
    let asked = Instant::now();
    loop {
        let response = send(app, path, cookie).await;
        if response.status() == StatusCode::OK {
            return text(response).await.parse().unwrap();
        }
        assert!(asked.elapsed() < limit, "it does not recover");
    }
}

/// Without this, all nodes refuse everything while one of them is missing.
const PARTS: &[&str] = &["--cluster-require-full-coverage", "no"];

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_the_place_of_a_master_that_is_killed_under_load() {
    let cluster = RedisCluster::with_replicas(PARTS);
    let store = fails_over(&cluster, RedisServer::kill).await;
    assert_eq!(
        sign_in(&store, 1, Admission::new(now())).await,
        SignIn::Done
    );
    assert_eq!(store.list_by_owner("ada", now()).await.unwrap().len(), 1);
    cluster.nodes[0].restart();
    cluster.is_whole();
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 1);
    assert!(store.delete_all().await.unwrap() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_takes_the_place_of_a_master_that_hangs() {
    let cluster = RedisCluster::with_replicas(PARTS);
    let store = fails_over(&cluster, RedisServer::pause).await;
    cluster.nodes[0].wake();
    cluster.is_whole();
    assert!(store.delete_all().await.unwrap() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_hangs_longer_than_the_deadline_takes_no_others_with_it() {
    let cluster = RedisCluster::with(&[]);
    let store = on(&cluster, "s:").await;
    let app = app(store.clone());
    let cookies = visitors(&cluster, &app).await;
    cluster.nodes[0].pause();
    for n in 2..4 {
        assert_unavailable(&app, &cookies[0]).await;
        for cookie in &cookies[1..] {
            assert_eq!(text(send(&app, "/", cookie).await).await, n.to_string());
        }
    }
    // What ends sessions everywhere says that it could not.
    let deleting = store.delete_all();
    assert!(tokio::time::timeout(DEADLINE, deleting).await.is_err());
    cluster.nodes[0].wake();
    let n = recovered(&app, "/read", &cookies[0])
        .await
        .parse::<u32>()
        .unwrap();
    assert!((1..=3).contains(&n), "{n}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_node_refuses_what_is_new_and_still_ends_sessions() {
    let cluster = RedisCluster::with(&["--maxmemory-policy", "noeviction"]);
    let store = on(&cluster, "s:").await;
    let app = app(store.clone());
    let cookies = visitors(&cluster, &app).await;
    for n in 1..=20 {
        assert_eq!(
            sign_in(&store, n, Admission::new(now())).await,
            SignIn::Done
        );
    }
    let set_memory = |bytes: &str| {
        for node in &cluster.nodes {
            let mut command = redis::cmd("CONFIG");
            let command = command.arg(&["SET", "maxmemory", bytes]);
            command.exec(&mut node.connection()).unwrap();
        }
    };
    set_memory("1");
    for cookie in &cookies {
        let changed = send(&app, "/", cookie).await;
        assert_eq!(changed.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text(send(&app, "/read", cookie).await).await, "1");
    }
    let ada = record(Some("ada"));
    let refused = store
        .sign_in(id(30), &ada, None, Admission::new(now()), now())
        .await;
    assert!(chain(&refused.unwrap_err()).contains("OOM"));
    // Also of what is gone already, and of who never was there.
    assert!(store.delete(id(1)).await.unwrap());
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 19);
    assert_eq!(store.delete_by_owner("bob", None, now()).await.unwrap(), 0);
    set_memory("0");
    let mut late = Admission::new(now());
    late.began = cloakroom::store::Timestamp::from_millis(1_000);
    assert_eq!(sign_in(&store, 31, late).await, SignIn::Revoked);
    assert_eq!(text(send(&app, "/", &cookies[0]).await).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_forgets_its_scripts_all_the_time_fails_no_request() {
    let cluster = RedisCluster::with(&[]);
    let store = on(&cluster, "s:").await;
    let app = app(store.clone());
    let cookies = visitors(&cluster, &app).await;
    for n in 2..50 {
        for node in &cluster.nodes {
            redis::cmd("SCRIPT")
                .arg("FLUSH")
                .exec(&mut node.connection())
                .unwrap();
        }
        for cookie in &cookies {
            assert_eq!(text(send(&app, "/", cookie).await).await, n.to_string());
        }
        assert_eq!(
            sign_in(&store, n, Admission::new(now())).await,
            SignIn::Done
        );
    }
    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 48);
}

/// A slot that is being moved, from one node to another.
struct Move<'a> {
    slot: String,
    from: &'a RedisServer,
    to: &'a RedisServer,
}

impl<'a> Move<'a> {
    fn of(key: &str, cluster: &'a RedisCluster, to: &'a RedisServer) -> Self {
        let from = cluster.master_of(key);
        let slot = from.cluster::<u16>(&["KEYSLOT", key]).to_string();
        to.cluster::<()>(&["SETSLOT", &slot, "IMPORTING", &from.name()]);
        from.cluster::<()>(&["SETSLOT", &slot, "MIGRATING", &to.name()]);
        Self { slot, from, to }
    }

    fn keys(&self) -> Vec<String> {
        self.from.cluster(&["GETKEYSINSLOT", &self.slot, "1000"])
    }

    fn key(&self, key: &str) {
        let to = ["127.0.0.1", &self.to.port.to_string()].map(str::to_owned);
        let mut command = redis::cmd("MIGRATE");
        let command = command.arg(&to).arg(key).arg(0).arg(10_000);
        command.exec(&mut self.from.connection()).unwrap();
    }

    fn finish(self) {
        for key in self.keys() {
            self.key(&key);
        }
        for node in [self.to, self.from] {
            node.cluster::<()>(&["SETSLOT", &self.slot, "NODE", &self.to.name()]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_move_to_a_new_node_without_a_failed_request() {
    let mut cluster = RedisCluster::with(&[]);
    let store = on(&cluster, "s:").await;
    let app = app(store.clone());
    let cookie = visitor(&app).await;
    let new = RedisCluster::node("60000", &[]);
    new.meet(&cluster.nodes[0]);
    cluster.nodes.push(new);
    cluster.is_acquainted();
    let new = &cluster.nodes[3];

    // Half-way: this key has moved, and the slot has not.
    let slot = Move::of(&key(&cookie), &cluster, new);
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
    slot.key(&key(&cookie));
    assert_eq!(slot.keys(), [""; 0]);
    for n in 3..20 {
        assert_eq!(text(send(&app, "/", &cookie).await).await, n.to_string());
    }
    slot.finish();
    for n in 20..40 {
        assert_eq!(text(send(&app, "/", &cookie).await).await, n.to_string());
    }
    let held: usize = redis::cmd("DBSIZE").query(&mut new.connection()).unwrap();
    assert_eq!(held, 1);
    let exists: bool = new.connection().exists(key(&cookie)).unwrap();
    assert!(exists);

    // A sign-in waits while its owner's slot is on its way, of whose keys one has moved.
    for n in 1..=2 {
        assert_eq!(
            sign_in(&store, n, Admission::new(now())).await,
            SignIn::Done
        );
    }
    assert_eq!(
        store
            .delete_by_owner("ada", Some(id(1)), now())
            .await
            .unwrap(),
        1
    );
    let slot = Move::of("s:owner:{616461}", &cluster, new);
    slot.key("s:owner:{616461}");
    let mut late = Admission::new(now());
    late.began = now().saturating_add(Duration::from_secs(1));
    let waiting = tokio::spawn(async move { sign_in(&store, 3, late).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    slot.finish();
    assert_eq!(waiting.await.unwrap(), SignIn::Done);
    let store = on(&cluster, "s:").await;
    assert_eq!(store.list_by_owner("ada", now()).await.unwrap().len(), 2);
    assert_eq!(store.delete_all().await.unwrap(), 3);
}
