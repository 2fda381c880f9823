//! The masters of a cluster: who has which slot, and a connection to each.
//!
//! Done here rather than by the driver's own client for clusters (redis 1.8), for two reasons. That one sends a
//! command again when its connection breaks, though the command may have been carried out: a
//! compare-and-swap would then meet its own write. And while it looks for slots it holds back the
//! commands for healthy nodes as well. Here each node has a connection of its own, and only what a node
//! refused to do, and so did not do, is sent to another one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, ConnectionManager};
use redis::{
    Arg, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisError, RedisResult,
    ServerErrorKind, Value,
};

use super::connection::{Boxed, Connection, Way};
use super::patience;

/// How often a command follows where nodes point to, or waits for a slot that is on its way.
const REDIRECTIONS: u32 = 8;

/// The first wait for a slot that is on its way; each one is twice as long as the one before.
const ON_ITS_WAY: Duration = Duration::from_millis(5);

/// How long a node may take to say who has which slot.
const SAY: Duration = Duration::from_millis(500);

/// How long it takes at least from one look at the slots to the next.
const REST: Duration = Duration::from_millis(50);

type Address = (String, u16);

pub(super) struct Nodes {
    /// How to connect: that of the first address given, with which all nodes share user, password and TLS.
    info: ConnectionInfo,
    given: Vec<Address>,
    known: Mutex<Known>,
    is_looking: AtomicBool,
    /// Somebody gave up waiting for an answer.
    is_suspect: AtomicBool,
}

#[derive(Default)]
struct Known {
    /// Who has which slots, by the last one of each range.
    masters: std::collections::BTreeMap<u16, (u16, Address)>,
    /// All nodes, replicas too.
    nodes: Vec<Address>,
    connections: HashMap<Address, Connection>,
    /// How often somebody looked.
    looks: usize,
}

/// Somebody looks, until this is dropped: also if the runtime ends meanwhile, or has.
struct Looking(Weak<Nodes>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(nodes) = self.0.upgrade() {
            nodes.is_looking.store(false, Ordering::Relaxed);
        }
    }
}

impl Nodes {
    /// Asks those at the addresses for the others.
    pub(super) async fn connect(addresses: Vec<ConnectionInfo>) -> RedisResult<Arc<Self>> {
        let given: Option<Vec<_>> = addresses.iter().map(|info| tcp(info.addr())).collect();
        let info = addresses.into_iter().next();
        let (Some(info), Some(given)) = (info, given) else {
            return Err(RedisError::from((
                ErrorKind::InvalidClientConfig,
                "a cluster is reached over TCP, at one address or more",
            )));
        };
        let nodes = Arc::new(Self {
            info,
            given,
            known: Mutex::default(),
            is_looking: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
        });
        nodes.look().await?;
        Ok(nodes)
    }

    /// Sends a command to the master that has its first key.
    pub(super) fn query(self: &Arc<Self>, way: Way, command: Cmd) -> Boxed<'_> {
        // In a box, to be no part of what is awaited where there is one server.
        Box::pin(async move { self.follow(way, &command).await })
    }

    async fn follow(self: &Arc<Self>, way: Way, command: &Cmd) -> RedisResult<Value> {
        if self.is_suspect.swap(false, Ordering::Relaxed) {
            self.look_soon();
        }
        let slot = slot(key(command));
        let mut to = self.master(slot);
        if to.is_none() {
            Box::pin(self.look()).await?;
            to = self.master(slot);
        }
        let nobody = RedisError::from((ErrorKind::Client, "no node of the cluster has the slot"));
        let mut to = to.ok_or(nobody)?;
        let mut asks = false;
        let mut tries = 0;
        loop {
            let waiting = Waiting(self);
            let answer = self.send(&to, way, command, asks).await;
            std::mem::forget(waiting);
            let Err(error) = answer else {
                return answer;
            };
            let kind = error.kind();
            let moved = kind == ErrorKind::Server(ServerErrorKind::Moved);
            if moved || is_sign_of_change(&error) {
                self.look_soon();
            }
            asks = kind == ErrorKind::Server(ServerErrorKind::Ask);
            let is_on_its_way = kind == ErrorKind::Server(ServerErrorKind::TryAgain);
            if tries == REDIRECTIONS || !(moved || asks || is_on_its_way) {
                return Err(error);
            }
            if is_on_its_way {
                tokio::time::sleep(ON_ITS_WAY * 2_u32.pow(tries)).await;
                to = self.master(slot).unwrap_or(to);
            } else if let Some(next) = error
                .redirect_node()
                .and_then(|(node, _)| address(node, &to))
            {
                to = next;
            }
            tries += 1;
        }
    }

    /// A connection to each master.
    pub(super) fn masters(&self) -> RedisResult<Vec<Connection>> {
        let mut masters: Vec<_> = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.masters.values().map(|(_, at)| at.clone()).collect()
        };
        masters.sort_unstable();
        masters.dedup();
        masters.iter().map(|at| self.connection(at)).collect()
    }

    async fn send(&self, to: &Address, way: Way, command: &Cmd, asks: bool) -> RedisResult<Value> {
        let connection = self.connection(to)?;
        if !asks {
            return connection.ask(way, command.clone()).await;
        }
        // The two must come one right after the other.
        let mut both = redis::pipe();
        both.cmd("ASKING").add_command(command.clone());
        let answers = connection.driver().req_packed_commands(&both, 1, 1).await?;
        answers
            .into_iter()
            .next()
            .unwrap_or(Value::Nil)
            .extract_error()
    }

    fn master(&self, slot: u16) -> Option<Address> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, (first, master)) = known.masters.range(slot..).next()?;
        (*first <= slot).then(|| master.clone())
    }

    fn connection(&self, to: &Address) -> RedisResult<Connection> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = known.connections.get(to) {
            return Ok(connection.clone());
        }
        let mut addr = self.info.addr().clone();
        if let ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } =
            &mut addr
        {
            (*host, *port) = to.clone();
        }
        let client = Client::open(self.info.clone().set_addr(addr))?;
        let driver = ConnectionManager::new_lazy_with_config(client, patience())?;
        let connection = Connection::new(driver);
        known.connections.insert(to.clone(), connection.clone());
        Ok(connection)
    }

    /// Has somebody look who has which slot, unless that is being done.
    fn look_soon(self: &Arc<Self>) {
        if self.is_looking.swap(true, Ordering::Relaxed) {
            return;
        }
        let looking = Looking(Arc::downgrade(self));
        tokio::spawn(async move {
            if let Some(this) = looking.0.upgrade() {
                if let Err(error) = this.look().await {
                    tracing::warn!(
                        target: "cloakroom",
                        error = &error as &dyn std::error::Error,
                        "no node of the Redis cluster says who has which slot"
                    );
                }
                tokio::time::sleep(REST).await;
            }
            drop(looking);
        });
    }

    /// Asks one node after the other who has which slot, until one says it.
    async fn look(&self) -> RedisResult<()> {
        let candidates = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let mut candidates = known.nodes.clone();
            // Another one each time: what the first one says may be outdated.
            if !candidates.is_empty() {
                let at = known.looks % candidates.len();
                candidates.rotate_left(at);
            }
            candidates.extend(self.given.iter().cloned());
            known.looks += 1;
            candidates
        };
        let mut slots = redis::cmd("CLUSTER");
        slots.arg("SLOTS");
        let mut why =
            RedisError::from((ErrorKind::Client, "no node of the cluster answers in time"));
        for node in candidates {
            match tokio::time::timeout(SAY, self.send(&node, Way::Alone, &slots, false)).await {
                Err(_) => {}
                Ok(Err(error)) => why = error,
                Ok(Ok(answer)) => {
                    if let Some((masters, nodes)) = ranges(answer, &node) {
                        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
                        known.connections.retain(|at, _| nodes.contains(at));
                        (known.masters, known.nodes) = (masters, nodes);
                        return Ok(());
                    }
                }
            }
        }
        Err(why)
    }
}

/// A master that does not answer is not heard of again. When a caller gives up, the next one has the
/// slots looked at.
struct Waiting<'a>(&'a Nodes);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.is_suspect.store(true, Ordering::Relaxed);
    }
}

/// Whether somebody else may have the slots by now.
fn is_sign_of_change(error: &RedisError) -> bool {
    let is_down = matches!(
        error.kind(),
        ErrorKind::Server(
            ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly
        )
    );
    is_down || error.is_io_error() || error.is_unrecoverable_error()
}

fn tcp(addr: &ConnectionAddr) -> Option<Address> {
    match addr {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// What a redirection says, in which no host means that of the node that sent it.
fn address(text: &str, from: &Address) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = if host.is_empty() { &from.0 } else { host };
    Some((host.to_owned(), port.parse().ok()?))
}

type Ranges = (
    std::collections::BTreeMap<u16, (u16, Address)>,
    Vec<Address>,
);

/// Reads the answer to `CLUSTER SLOTS`: first and last slot, then host and port of the master and of each
/// replica. None if there is no slot in it.
fn ranges(answer: Value, from: &Address) -> Option<Ranges> {
    let (mut masters, mut nodes) = Ranges::default();
    for range in redis::from_redis_value::<Vec<Vec<Value>>>(answer).ok()? {
        let mut parts = range.into_iter();
        let first = redis::from_redis_value(parts.next()?).ok()?;
        let last = redis::from_redis_value(parts.next()?).ok()?;
        let mut of_range = parts.filter_map(|node| node_address(node, from));
        let master = of_range.next()?;
        nodes.extend(of_range);
        nodes.push(master.clone());
        masters.insert(last, (first, master));
    }
    nodes.sort_unstable();
    nodes.dedup();
    (!masters.is_empty()).then_some((masters, nodes))
}

fn node_address(node: Value, from: &Address) -> Option<Address> {
    let mut parts = redis::from_redis_value::<Vec<Value>>(node)
        .ok()?
        .into_iter();
    let host: Option<String> = redis::from_redis_value(parts.next()?).ok()?;
    let host = host
        .filter(|host| !host.is_empty())
        .unwrap_or_else(|| from.0.clone());
    Some((host, redis::from_redis_value(parts.next()?).ok()?))
}

/// The first key of a command: a script's comes after its number of keys.
fn key(command: &Cmd) -> &[u8] {
    let mut parts = command.args_iter().map(|part| match part {
        Arg::Simple(part) => part,
        _ => b"",
    });
    let before = match parts.next() {
        Some(b"EVAL" | b"EVALSHA") => 2,
        _ => 0,
    };
    parts.nth(before).unwrap_or_default()
}

/// The slot of a key: CRC-16/XMODEM of what is in the first braces, or else of the whole key
/// (Redis Cluster specification, "Hash tags").
fn slot(key: &[u8]) -> u16 {
    let position = |bytes: &[u8], of| bytes.iter().position(|byte| *byte == of);
    let tag = position(key, b'{').and_then(|open| {
        let rest = &key[open + 1..];
        position(rest, b'}').map(|close| &rest[..close])
    });
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    let crc = hashed.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
            let carry = crc & 0x8000 != 0;
            crc << 1 ^ if carry { 0x1021 } else { 0 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_else_looks_after_a_runtime_has_ended() {
        let nodes = Arc::new(Nodes {
            info: redis::IntoConnectionInfo::into_connection_info("redis://127.0.0.1:1").unwrap(),
            given: vec![("127.0.0.1".into(), 1)],
            known: Mutex::default(),
            is_looking: AtomicBool::new(false),
            is_suspect: AtomicBool::new(false),
        });
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        for is_begun in [false, true] {
            runtime().block_on(async {
                nodes.look_soon();
                assert!(nodes.is_looking.load(Ordering::Relaxed));
                if is_begun {
                    tokio::task::yield_now().await;
                }
            });
            assert!(!nodes.is_looking.load(Ordering::Relaxed));
        }
    }

    #[test]
    fn a_key_has_the_slot_that_the_specification_says() {
        for (key, expected) in [
            ("123456789", 0x31c3),
            ("foo", 12_182),
            ("{foo}bar", 12_182),
            ("a{foo}{bar}", 12_182),
            ("", 0),
        ] {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
        assert_eq!(slot(b"{}foo"), slot(b"{}foo"));
        assert_ne!(slot(b"{}foo"), slot(b"foo"));
    }

    #[test]
    fn what_a_node_says_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port| Value::Array(vec![host, Value::Int(port), text("id")]);
        let range = |first, last, nodes: Vec<Value>| {
            let mut parts = vec![Value::Int(first), Value::Int(last)];
            parts.extend(nodes);
            Value::Array(parts)
        };
        let from = ("here".to_owned(), 1);
        let answer = Value::Array(vec![
            range(0, 9, vec![node(text("a"), 7), node(text("b"), 8)]),
            range(10, 16_383, vec![node(Value::Nil, 9)]),
        ]);
        let (masters, nodes) = ranges(answer, &from).unwrap();
        let at = |host: &str, port| (host.to_owned(), port);
        assert_eq!(masters[&9], (0, at("a", 7)));
        assert_eq!(masters[&16_383], (10, at("here", 9)));
        assert_eq!(nodes, [at("a", 7), at("b", 8), at("here", 9)]);
        assert!(ranges(Value::Array(Vec::new()), &from).is_none());
        assert_eq!(address("::1:7000", &from), Some(at("::1", 7000)));
        assert_eq!(address(":7000", &from), Some(at("here", 7000)));
        assert_eq!(address("nowhere", &from), None);
    }
}
