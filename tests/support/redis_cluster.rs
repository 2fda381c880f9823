//! A Redis Cluster that the tests start themselves.
#![allow(dead_code)]

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use super::redis_server::RedisServer;

const SLOTS: usize = 16_384;

/// Three masters, and a replica of each if the test wants them to fail.
pub(crate) struct RedisCluster {
    pub(crate) nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// The cluster that all tests share which do it no harm: three masters.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisCluster> = OnceLock::new();
        // Nobody is to be taken for dead on a busy machine.
        SHARED.get_or_init(|| Self::start(3, "60000", &[]))
    }

    /// Three masters, each with a replica that takes over about two seconds after its master is gone.
    pub(crate) fn with_replicas(settings: &[&str]) -> Self {
        Self::start(6, "2000", settings)
    }

    /// Three masters with further settings.
    pub(crate) fn with(settings: &[&str]) -> Self {
        Self::start(3, "60000", settings)
    }

    fn start(nodes: usize, node_timeout: &str, settings: &[&str]) -> Self {
        let cluster = Self {
            nodes: (0..nodes)
                .map(|_| Self::node(node_timeout, settings))
                .collect(),
        };
        for (n, node) in cluster.nodes.iter().enumerate() {
            node.cluster::<()>(&["SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            let slots = n * SLOTS / 3..(n + 1) * SLOTS / 3;
            if n < 3 {
                let slots: Vec<_> = slots.map(|slot| slot.to_string()).collect();
                let slots = slots.iter().map(String::as_str);
                node.cluster::<()>(&["ADDSLOTS"].into_iter().chain(slots).collect::<Vec<_>>());
            }
            cluster.nodes[0].meet(node);
        }
        cluster.is_acquainted();
        for (master, replica) in cluster.nodes.iter().zip(&cluster.nodes[3..]) {
            replica.cluster::<()>(&["REPLICATE", &master.name()]);
        }
        cluster.is_whole();
        cluster
    }

    /// A node without slots, to which the others are to be introduced.
    pub(crate) fn node(node_timeout: &str, settings: &[&str]) -> RedisServer {
        let mut arguments = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            node_timeout,
            "--cluster-replica-validity-factor",
            "0",
            "--repl-diskless-sync",
            "yes",
            "--repl-diskless-sync-delay",
            "0",
        ];
        arguments.extend(settings);
        RedisServer::start_node(&arguments)
    }

    /// Waits until each node says that all is well, and each replica has what its master has.
    pub(crate) fn is_whole(&self) {
        let of_each = self.nodes.len() / 3;
        self.eventually("the cluster is whole", |node| {
            let slots: Vec<Vec<redis::Value>> = node.cluster(&["SLOTS"]);
            let replication: String = redis::cmd("INFO")
                .arg("replication")
                .query(&mut node.connection())
                .unwrap();
            node.info("cluster_state") == "ok"
                && slots.iter().all(|range| range.len() == 2 + of_each)
                && !replication.contains("master_link_status:down")
        });
    }

    /// Waits until all nodes know each other.
    pub(crate) fn is_acquainted(&self) {
        let nodes = self.nodes.len().to_string();
        self.eventually("all nodes know each other", |node| {
            node.info("cluster_known_nodes") == nodes && node.info("cluster_state") == "ok"
        });
    }

    fn eventually(&self, what: &str, is_so: impl Fn(&RedisServer) -> bool) {
        let give_up = Instant::now() + Duration::from_secs(60);
        while !self.nodes.iter().all(&is_so) {
            assert!(Instant::now() < give_up, "not within a minute: {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        let hosts: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// The master that has a key now, as the first other node says that answers.
    pub(crate) fn master_of(&self, key: &str) -> &RedisServer {
        let slot: usize = self.nodes[0].cluster(&["KEYSLOT", key]);
        let slots: Vec<Vec<redis::Value>> = self.nodes[0].cluster(&["SLOTS"]);
        for range in slots {
            let mut range = range.into_iter();
            let mut number = || redis::from_redis_value::<usize>(range.next().unwrap()).unwrap();
            if (number()..=number()).contains(&slot) {
                let master: Vec<redis::Value> =
                    redis::from_redis_value(range.next().unwrap()).unwrap();
                let port: u16 = redis::from_redis_value(master[1].clone()).unwrap();
                return self.nodes.iter().find(|node| node.port == port).unwrap();
            }
        }
        panic!("nobody has the slot {slot}");
    }
}

impl RedisServer {
    pub(crate) fn cluster<T: redis::FromRedisValue>(&self, arguments: &[&str]) -> T {
        let mut command = redis::cmd("CLUSTER");
        let answer = command.arg(arguments).query(&mut self.connection());
        answer.unwrap_or_else(|error| panic!("CLUSTER {}: {error}", arguments[0]))
    }

    pub(crate) fn name(&self) -> String {
        self.cluster(&["MYID"])
    }

    pub(crate) fn meet(&self, other: &RedisServer) {
        let port = other.tls_port.unwrap_or(other.port);
        self.cluster::<()>(&["MEET", "127.0.0.1", &port.to_string()]);
    }

    fn info(&self, field: &str) -> String {
        let info: String = self.cluster(&["INFO"]);
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_default().to_owned()
    }
}
