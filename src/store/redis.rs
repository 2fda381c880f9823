//! Sessions on a Redis server, or on a cluster.

#[cfg(feature = "redis-cluster")]
mod cluster;
mod command;
mod connection;
#[cfg(feature = "redis-cluster")]
mod nodes;

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, ConnectionInfo, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError,
    RedisResult, ServerErrorKind, Value,
};

use self::command::{Part, Script, command, joined, unhex};
use self::connection::{Asked, Connection, Way};
use crate::clock::{Timestamp, whole_millis};
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};

/// Keeps sessions on a Redis server or cluster, 6.2 or later, or one that speaks like it, such as Valkey.
///
/// Sessions outlive the process, and any number of processes share them. Clones share one connection (to
/// each node), over which all requests go at once, and under load together; it is made anew by itself when it
/// breaks.
///
/// ```no_run
/// use cloakroom::{RedisStore, SessionLayer};
///
/// # async fn connect() -> Result<(), cloakroom::store::StoreError> {
/// let layer = SessionLayer::new(RedisStore::connect("redis://127.0.0.1:6379").await?);
/// # Ok(())
/// # }
/// ```
///
/// # Server
///
/// A single primary, with replicas or without. If another server takes over at the same address, as it does
/// behind a proxy or with a managed service, the store follows. Sentinel is not asked. Or a
/// [cluster](#cluster).
///
/// A session is a key that expires when the session does, so there is nothing to clean up and no
/// [`Cleaner`](crate::Cleaner) is needed; one does nothing. The servers' clocks must be roughly right: what
/// they take for expired is gone.
///
/// **Memory.** Give each server `maxmemory-policy noeviction`: with another one it ends sessions when memory
/// is short, or forgets which sessions an owner has, **so that they cannot be revoked**. `connect` warns of
/// that in the log. Full, it refuses new sessions and changes, which clients see as a 503; to sign out
/// and to revoke is still possible.
///
/// **Rights.** `~cloakroom:* +@read +@write +@scripting +@connection +info +time` are enough for the user; on a
/// cluster also `+cluster +asking`.
///
/// **Restarts.** What survives one is what the server was told to save: `appendonly yes` with the default
/// `appendfsync everysec` loses up to a second, **logouts and revocations too**.
///
/// **Replication** is asynchronous: a replica that takes its primary's place may lack what that
/// acknowledged last, so a change of the last moments may be lost, a session that was ended may be back, and a new
/// one may be missing, or be missing only from its owner's index, where a revocation looks. With
/// `min-replicas-to-write 1` and a small `min-replicas-max-lag` a primary that lost touch with its replicas
/// soon takes no more writes, which bounds the loss. `WAIT` would shorten the gap at the price of a
/// trip to a replica, and the store does not send it. Who must not lose a logout keeps sessions in
/// PostgreSQL with synchronous replication.
///
/// # Cluster
///
/// With the feature `redis-cluster`, [`connect`](Self::connect) takes
/// `redis+cluster://user:password@host:port,host:port`, or `connect_cluster` the URLs of some nodes; the
/// others are asked for. Slots that move to other nodes are followed, and so is a replica that takes over.
/// Until it does, requests for the sessions of a failed master end as a 503 at the layer's timeout; those
/// for other masters go on, if the nodes have the setting `cluster-require-full-coverage no`.
///
/// An operation on a session is one trip, as on a single server. What concerns an owner touches the owner's key
/// and those of the sessions, which lie on different nodes:
///
/// * A **sign-in** takes two trips, where a single server needs one: the owner's key decides on it
///   (revocations, the limit), the session's key holds it, and no script sees both. Only one that
///   finds more entries than the limit allows looks at the sessions, which takes two more trips, another one to
///   drop stale entries, and another two to evict. Wherever it is interrupted, it has happened wholly or not at all: no session escapes a
///   revocation or exceeds the limit, and what may be left is an entry that is dropped later.
/// * A **revocation** takes three: it is remembered on the owner's key, which refuses sign-ins from then on;
///   then the sessions end, all at once; then their entries go. If that is interrupted, or a node does not answer
///   (it is then an error), some sessions may be left: revoke again.
/// * **`delete_all`** goes through all masters. What moves to another one meanwhile may be missed.
///
/// Who signs in while the slot of the owner or the session is being moved may wait up to a second.
///
/// # Keys
///
/// Under the prefix, `cloakroom:` by default:
///
/// | Key | Type | Holds | Expires |
/// |---|---|---|---|
/// | `session:{ID}` | string | [`Record::encode`]'s bytes | with the session |
/// | `owner:{OWNER}`, in hex | sorted set | ids by time of sign-in | after the last session, not before 90 days after the last sign-in |
/// | `revoked:{OWNER}` | hash | when the owner was last revoked | after two hours |
/// | `fence:{ID}`, cluster only | hash | sign-ins that must not be completed | after two hours |
///
/// The second is corrected as it is used: what is in it and not this owner's session any more is
/// dropped when the owner signs in, is listed or is revoked. A session that ends more than 90 days after
/// its sign-in has it kept longer, at the price of one more trip when it is written or touched.
///
/// # TLS
///
/// With the feature `redis-tls`, `rediss://` and `rediss+cluster://` are for encrypted connections. The
/// server's certificate must be one that the machine trusts (`SSL_CERT_FILE` names other authorities). The
/// cryptography is what the process chose as rustls's default, or else `ring`, which becomes it. To trust
/// other certificates or show one of the client's, make the connection yourself and use
/// [`new`](Self::new).
#[derive(Clone)]
pub struct RedisStore {
    link: Link,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
}

impl RedisStore {
    /// Connects to the server at a URL: `redis://user:password@host:6379/0`, most of which may be left
    /// out; or to a [cluster](#cluster).
    ///
    /// # Errors
    ///
    /// The text is no such URL, no server answers there, it refuses the user or the password, is too old,
    /// or is part of a cluster and the URL does not say so; [`source`](StdError::source) says which. The password is in none of them.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Some(urls) = urls_of_cluster(url) {
            return Self::connect_cluster(&urls).await;
        }
        let store = Self::new(open(url).await?);
        store.check().await?;
        Ok(store)
    }

    /// Connects to the cluster of which these are some nodes: of several it is enough that one answers. User,
    /// password and TLS of the first URL are used for all nodes, also those found later.
    ///
    /// ```no_run
    /// use cloakroom::RedisStore;
    ///
    /// # async fn connect() -> Result<(), cloakroom::store::StoreError> {
    /// let store = RedisStore::connect_cluster(&["redis://10.0.0.1:6379", "redis://10.0.0.2:6379"]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect), or the server is no part of a cluster.
    #[cfg(feature = "redis-cluster")]
    pub async fn connect_cluster(urls: &[impl AsRef<str>]) -> Result<Self, StoreError> {
        let nodes = urls.iter().map(|url| connection_info(url.as_ref()));
        let nodes = nodes::Nodes::connect(nodes.collect::<Result<_, _>>()?).await;
        let store = Self::over(Link::Cluster(nodes.map_err(
            |error| match error.code() {
                Some("ERR") => explained(NO_CLUSTER, error),
                _ => failed(error),
            },
        )?));
        store.check().await?;
        Ok(store)
    }

    /// A store over a connection that was made and set up elsewhere.
    ///
    /// Nothing is asked of the server; one that does not fit shows when the store is used. To be called on the
    /// runtime that the connection was made on: outside of one commands go one by one, however many there are.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self::over(Link::Server(Connection::new(connection)))
    }

    fn over(link: Link) -> Self {
        Self {
            link,
            keys: Arc::new(Keys::new("cloakroom:")),
            scripts: Arc::new(Scripts::new()),
        }
    }

    /// The same connection under another prefix than `cloakroom:`, for several applications on one
    /// server: 1 to 64 visible ASCII characters other than `{` and `}`.
    ///
    /// # Errors
    ///
    /// The text is no such prefix.
    pub fn with_prefix(mut self, prefix: &str) -> Result<Self, StoreError> {
        let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '{' | '}');
        if prefix.is_empty() || prefix.len() > 64 || !prefix.chars().all(fits) {
            let message = format!(
                "{prefix:?} is no prefix for keys; use 1 to 64 ASCII letters, digits and signs, no \
                 space and neither `{{` nor `}}`, such as `shop:`"
            );
            return Err(StoreError::new(message));
        }
        self.keys = Arc::new(Keys::new(prefix));
        Ok(self)
    }

    /// Whether the servers are such as the store can use.
    async fn check(&self) -> Result<(), StoreError> {
        for server in self.link.primaries()? {
            let info: String = read(server.ask(Way::Alone, redis::cmd("INFO")).await)?;
            self.link.fits(&info)?;
        }
        Ok(())
    }

    async fn run<T: FromRedisValue>(&self, way: Way, command: Cmd) -> Result<T, StoreError> {
        read(self.query(way, command).await)
    }

    /// Not an `async fn`: one keeps the command, and the answer of each step, besides what it makes of them.
    fn query(&self, way: Way, command: Cmd) -> Query<'_> {
        match &self.link {
            Link::Server(connection) => Query::Server(connection.ask(way, command)),
            #[cfg(feature = "redis-cluster")]
            Link::Cluster(nodes) => Query::Cluster(nodes.query(way, command)),
        }
    }

    /// Runs a script by its hash. A server that does not know it yet has done nothing, and is sent it.
    async fn evaluate(
        &self,
        way: Way,
        script: &Script,
        keys: &[Part<'_>],
        arguments: &[Part<'_>],
    ) -> RedisResult<Value> {
        let answer = self.query(way, script.by_hash(keys, arguments)).await;
        let unknown = ErrorKind::Server(ServerErrorKind::NoScript);
        if answer.as_ref().is_err_and(|error| error.kind() == unknown) {
            // Or it would be kept while the second answer is waited for.
            drop(answer);
            return self.query(way, script.whole(keys, arguments)).await;
        }
        answer
    }

    async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[Part<'_>],
        arguments: &[Part<'_>],
    ) -> Result<T, StoreError> {
        read(self.evaluate(Way::Alone, script, keys, arguments).await)
    }

    /// Drops from an owner's index what is not this owner's session.
    async fn prune(&self, owner: &str) -> Result<(), StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Link::Cluster(_) = &self.link {
            return self
                .prune_on_cluster(owner, Timestamp::from_millis(0))
                .await;
        }
        let keys = [self.keys.index(owner)];
        let arguments = [Part::text(owner), Part::text(&self.keys.sessions)];
        self.call(&self.scripts.prune, &keys, &arguments).await
    }

    /// Keeps an owner's index at least as long as a session that ends then.
    async fn extend(&self, owner: &str, ends: Timestamp) -> Result<(), StoreError> {
        let keys = [self.keys.index(owner)];
        self.call(&self.scripts.extend, &keys, &[Part::time(ends)])
            .await
    }

    /// What is in a session's key.
    async fn value(&self, id: SessionId) -> Result<Option<Vec<u8>>, StoreError> {
        loop {
            let value = self.run(Way::Together, self.get(id)).await?;
            if self.carries_out(id, &value).await? {
                continue;
            }
            return redis::from_redis_value(value).map_err(StoreError::new);
        }
    }

    fn get(&self, id: SessionId) -> Cmd {
        command(&[Part::text("GET"), self.keys.session(id)])
    }

    /// Stores a record where there is none.
    fn set_new(&self, id: SessionId, record: &Record) -> Cmd {
        command(&[
            Part::text("SET"),
            self.keys.session(id),
            Part::Record(record),
            Part::text("NX"),
            Part::text("PXAT"),
            Part::time(end(record)),
        ])
    }

    /// Runs a script on a session's key.
    async fn at(
        &self,
        id: SessionId,
        script: &Script,
        arguments: &[Part<'_>],
    ) -> Result<Value, StoreError> {
        loop {
            let keys = [self.keys.session(id)];
            let answer = self.evaluate(Way::Together, script, &keys, arguments).await;
            let answer = answer.map_err(failed)?;
            if !self.carries_out(id, &answer).await? {
                return Ok(answer);
            }
        }
    }

    /// On one server nobody meets a sign-in half-way.
    #[cfg(not(feature = "redis-cluster"))]
    async fn carries_out(&self, _: SessionId, _: &Value) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn unlink(&self, keys: &[Part<'_>]) -> Result<usize, StoreError> {
        if keys.is_empty() {
            return Ok(0);
        }
        match &self.link {
            Link::Server(_) => {
                let all = joined(&[&[Part::text("UNLINK")], keys]);
                self.run(Way::Alone, all).await
            }
            #[cfg(feature = "redis-cluster")]
            Link::Cluster(_) => self.unlink_on_cluster(keys).await,
        }
    }

    /// Hands what comes after `start` and before the closing brace, in the keys of all servers that begin
    /// with `start`, to `each`, some at a time.
    async fn scan<F>(
        &self,
        start: &str,
        mut each: impl FnMut(Vec<String>) -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), StoreError>>,
    {
        for server in self.link.primaries()? {
            let mut cursor = 0_u64;
            loop {
                let mut command = redis::cmd("SCAN");
                command
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(pattern(start))
                    .arg("COUNT")
                    .arg(1_000);
                let (next, keys): (_, Vec<Vec<u8>>) = read(server.ask(Way::Alone, command).await)?;
                let rest = |key: &Vec<u8>| {
                    let key = std::str::from_utf8(key).ok()?;
                    Some(key.strip_prefix(start)?.strip_suffix('}')?.to_owned())
                };
                each(keys.iter().filter_map(rest).collect()).await?;
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
        }
        Ok(())
    }
}

fn read<T: FromRedisValue>(answer: RedisResult<Value>) -> Result<T, StoreError> {
    redis::from_redis_value(answer.map_err(failed)?).map_err(StoreError::new)
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").finish_non_exhaustive()
    }
}

/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(2);

/// How long what was sent may stay unacknowledged by the other machine, before the connection counts as
/// broken. The operating system alone would wait for a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long an owner's index is kept after a sign-in, even if all sessions end before. Sessions that end
/// later, by use or by a policy of their own, have it kept longer before they are stored; so that costs the
/// others nothing.
const INDEXED: Duration = Duration::from_secs(90 * 24 * 60 * 60);

const NOT_A_CLUSTER: &str = "the server is part of a cluster; with the feature `redis-cluster`, give its nodes as \
                             `redis+cluster://HOST:PORT,HOST:PORT`";

#[cfg(feature = "redis-cluster")]
const NO_CLUSTER: &str = "the server does not answer as part of a cluster; if it is none, its URL is \
                          `redis://` and so on";

/// What the server, or the cluster, says to a command.
#[must_use = "the answer is lost unless it is awaited"]
enum Query<'a> {
    Server(Asked<'a>),
    #[cfg(feature = "redis-cluster")]
    Cluster(connection::Boxed<'a>),
}

impl Future for Query<'_> {
    type Output = RedisResult<Value>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Server(asked) => Pin::new(asked).poll(context),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(query) => query.as_mut().poll(context),
        }
    }
}

#[derive(Clone)]
enum Link {
    Server(Connection),
    #[cfg(feature = "redis-cluster")]
    Cluster(Arc<nodes::Nodes>),
}

impl Link {
    fn primaries(&self) -> Result<Vec<Connection>, StoreError> {
        match self {
            Self::Server(connection) => Ok(vec![connection.clone()]),
            #[cfg(feature = "redis-cluster")]
            Self::Cluster(nodes) => nodes.masters().map_err(failed),
        }
    }

    /// Whether what a server says of itself is as it must be.
    fn fits(&self, info: &str) -> Result<(), StoreError> {
        let field = |name: &str| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == name).then(|| value.trim())
            })
        };
        if matches!(self, Self::Server(_)) && field("cluster_enabled") == Some("1") {
            return Err(StoreError::new(NOT_A_CLUSTER));
        }
        if let Some(version) = field("redis_version")
            && is_older_than_6_2(version)
        {
            let message = format!("the server is Redis {version}; the store needs 6.2 or later");
            return Err(StoreError::new(message));
        }
        if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
            tracing::warn!(
                target: "cloakroom",
                policy,
                "the Redis server may evict sessions, and what is needed to revoke them; set its \
                 `maxmemory-policy` to `noeviction`"
            );
        }
        Ok(())
    }
}

const NO_URL: &str = "no URL of a Redis server; it looks like `redis://user:password@host:6379/0`";

const NO_TLS: &str = "`rediss:` needs cloakroom's feature `redis-tls`, which is not enabled";

/// A URL for each node, from one for all: `redis+cluster://user:password@host:port,host:port`.
#[cfg(feature = "redis-cluster")]
fn urls_of_cluster(url: &str) -> Option<Vec<String>> {
    let (scheme, rest) = url.split_once("+cluster://")?;
    let (hosts, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (user, hosts) = hosts.split_at(hosts.rfind('@').map_or(0, |at| at + 1));
    let url = |host| format!("{scheme}://{user}{host}{path}");
    Some(hosts.split(',').map(url).collect())
}

/// The driver asks the process which cryptography to use, and panics if that cannot tell.
#[cfg(feature = "redis-tls")]
fn choose_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // If it fails, somebody else was faster.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// How to connect to what a URL names.
fn connection_info(url: &str) -> Result<ConnectionInfo, StoreError> {
    #[cfg(feature = "redis-tls")]
    if url.starts_with("rediss:") {
        choose_cryptography();
    }
    let info = url.into_connection_info().map_err(|error| {
        let plain = url
            .strip_prefix("rediss:")
            .map(|rest| format!("redis:{rest}"));
        let is_refused_for_tls = plain.is_some_and(|plain| plain.into_connection_info().is_ok());
        let what = match is_refused_for_tls && cfg!(not(feature = "redis-tls")) {
            true => NO_TLS,
            false => NO_URL,
        };
        explained(what, error)
    })?;
    #[cfg(target_os = "linux")]
    let info = {
        let tcp = info.tcp_settings().clone().set_user_timeout(UNACKNOWLEDGED);
        info.set_tcp_settings(tcp)
    };
    Ok(info)
}

/// The caller bounds how long an operation may take. Few attempts in a row, so that while the server
/// is down the cause comes back and not just a timeout; the next operation makes the next attempt.
fn patience() -> ConnectionManagerConfig {
    ConnectionManagerConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(Some(CONNECT))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500))
}

async fn open(url: &str) -> Result<ConnectionManager, StoreError> {
    let client = Client::open(connection_info(url)?).map_err(|error| explained(NO_URL, error))?;
    ConnectionManager::new_with_config(client, patience())
        .await
        .map_err(failed)
}

fn is_older_than_6_2(version: &str) -> bool {
    let mut numbers = version.split('.').map_while(|part| part.parse().ok());
    let version: (u32, u32) = (
        numbers.next().unwrap_or(u32::MAX),
        numbers.next().unwrap_or_default(),
    );
    version < (6, 2)
}

impl SessionStore for RedisStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        if self.run(Way::Together, self.set_new(id, record)).await? {
            return Ok(Create::Done);
        }
        // Something is there. What is over by `now` makes room.
        let keys = [self.keys.session(id)];
        let arguments = [
            Part::Record(record),
            Part::time(end(record)),
            Part::time(now),
        ];
        match Box::pin(self.call(&self.scripts.create, &keys, &arguments)).await? {
            1 => Ok(Create::Done),
            0 => Ok(Create::Taken),
            other => Err(unexpected(&Value::Int(other))),
        }
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let bytes = self.value(id).await?;
        let record = bytes.map(|bytes| Record::decode(&bytes)).transpose()?;
        Ok(record.filter(|record| record.expires > now))
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        if let Some(owner) = &record.owner
            && record.expires > signed_in(record).saturating_add(INDEXED)
        {
            Box::pin(self.extend(owner, record.expires)).await?;
        }
        let arguments = [
            Part::Record(record),
            Part::time(end(record)),
            Part::time(now),
            Part::Beginning(expected),
        ];
        match self.at(id, &self.scripts.update, &arguments).await? {
            Value::Int(1) => Ok(Update::Done),
            Value::Int(0) => Ok(Update::Gone),
            Value::BulkString(current) => Record::decode(&current).map(Update::Conflict),
            other => Err(unexpected(&other)),
        }
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Link::Cluster(_) = &self.link {
            let answer = self.sign_in_on_cluster(id, record, expected, admission, now);
            return answer.await;
        }
        let owner = record.owner.as_deref().unwrap_or_default();
        let keys = [
            self.keys.session(id),
            self.keys.index(owner),
            self.keys.revoked(owner),
        ];
        let refuse = admission
            .limit
            .is_some_and(|limit| limit.when_full == WhenFull::Refuse);
        let arguments = [
            Part::Record(record),
            Part::time(end(record)),
            Part::time(now),
            expected.map_or(Part::EMPTY, Part::Beginning),
            Part::Id(id),
            Part::text(owner),
            record.authenticated.map_or(Part::text("-1"), Part::time),
            Part::time(admission.began),
            most(admission),
            Part::Number(refuse.into()),
            Part::text(&self.keys.sessions),
            Part::time(indexed_until(record)),
        ];
        let answer = self.call(&self.scripts.sign_in, &keys, &arguments).await?;
        match answer {
            Value::Int(1) => Ok(SignIn::Done),
            Value::Int(0) => Ok(SignIn::Gone),
            Value::Int(2) => Ok(SignIn::Taken),
            Value::Int(3) => Ok(SignIn::Revoked),
            Value::Int(4) => Ok(SignIn::Full),
            Value::BulkString(current) => Record::decode(&current).map(SignIn::Conflict),
            other => Err(unexpected(&other)),
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut is_extended = false;
        loop {
            let indexed = match is_extended {
                true => Part::EMPTY,
                false => Part::Number(whole_millis(INDEXED)),
            };
            let arguments = [Part::time(expires), Part::time(now), indexed];
            return match self.at(id, &self.scripts.touch, &arguments).await? {
                Value::Int(1) => Ok(true),
                Value::Int(0) => Ok(false),
                Value::Array(owner) if !is_extended => {
                    let owner = redis::from_redis_value::<Vec<String>>(Value::Array(owner));
                    for owner in owner.map_err(StoreError::corrupt)? {
                        Box::pin(self.extend(&owner, expires)).await?;
                    }
                    is_extended = true;
                    continue;
                }
                Value::BulkString(damaged) => match Record::decode(&damaged) {
                    Err(error) => Err(error),
                    Ok(_) => Err(unexpected(&Value::BulkString(Vec::new()))),
                },
                other => Err(unexpected(&other)),
            };
        }
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        let unlink = command(&[Part::text("UNLINK"), self.keys.session(id)]);
        self.run(Way::Together, unlink).await
    }

    /// Answers 0: the server removes expired sessions by itself.
    async fn delete_expired(&self, _: Timestamp, _: usize) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Link::Cluster(_) = &self.link {
            return self.list_on_cluster(owner, now).await;
        }
        let (first, last) = (Part::Number(0), Part::text("-1"));
        let index = [Part::text("ZRANGE"), self.keys.index(owner), first, last];
        let ids: Vec<String> = self.run(Way::Alone, command(&index)).await?;
        let ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = ids.iter().map(|id| self.keys.session(*id)).collect();
        let all = joined(&[&[Part::text("MGET")], &keys]);
        let records: Vec<Option<Vec<u8>>> = self.run(Way::Alone, all).await?;
        let mut found = Vec::new();
        let mut is_clean = true;
        for (id, bytes) in ids.into_iter().zip(records) {
            match listed(owner, bytes)? {
                Some(record) if record.expires > now => found.push((id, record)),
                Some(_) => {}
                None => is_clean = false,
            }
        }
        if !is_clean {
            // If that fails, the next one does it; the list is right either way.
            let _ = self.prune(owner).await;
        }
        Ok(found)
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        #[cfg(feature = "redis-cluster")]
        if let Link::Cluster(_) = &self.link {
            return self.delete_by_owner_on_cluster(owner, keep, now).await;
        }
        let keys = [self.keys.index(owner), self.keys.revoked(owner)];
        let arguments = [
            Part::text(owner),
            keep.map_or(Part::EMPTY, Part::Id),
            Part::time(now),
            Part::text(&self.keys.sessions),
        ];
        let script = &self.scripts.delete_by_owner;
        self.call(script, &keys, &arguments).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        let removed = AtomicUsize::new(0);
        self.scan(&self.keys.sessions, async |ids| {
            let ids = ids.iter().filter_map(|id| id.parse().ok());
            let keys: Vec<_> = ids.map(|id| self.keys.session(id)).collect();
            removed.fetch_add(self.unlink(&keys).await?, Ordering::Relaxed);
            Ok(())
        })
        .await?;
        // What is signed in meanwhile stays in its index.
        self.scan(&self.keys.owners, async |owners| {
            for owner in owners.iter().filter_map(|hex| unhex(hex)) {
                self.prune(&owner).await?;
            }
            Ok(())
        })
        .await?;
        Ok(removed.into_inner())
    }
}

/// The record of an owner's session in the list of its owner. None if it is not that: a damaged one is
/// nobody's session.
fn listed(owner: &str, bytes: Option<Vec<u8>>) -> Result<Option<Record>, StoreError> {
    match bytes.map(|bytes| Record::decode(&bytes)) {
        Some(Err(error)) if !error.is_corrupt() => Err(error),
        Some(Ok(record)) if record.owner.as_deref() == Some(owner) => Ok(Some(record)),
        _ => Ok(None),
    }
}

/// What keys begin with.
struct Keys {
    sessions: String,
    #[cfg(feature = "redis-cluster")]
    fences: String,
    owners: String,
    revoked: String,
}

/// The braces tell a cluster which keys belong together.
impl Keys {
    fn new(prefix: &str) -> Self {
        Self {
            sessions: format!("{prefix}session:{{"),
            #[cfg(feature = "redis-cluster")]
            fences: format!("{prefix}fence:{{"),
            owners: format!("{prefix}owner:{{"),
            revoked: format!("{prefix}revoked:{{"),
        }
    }

    fn session(&self, id: SessionId) -> Part<'_> {
        Part::OfSession(&self.sessions, id)
    }

    #[cfg(feature = "redis-cluster")]
    fn fence(&self, id: SessionId) -> Part<'_> {
        Part::OfSession(&self.fences, id)
    }

    fn index<'a>(&'a self, owner: &'a str) -> Part<'a> {
        Part::OfOwner(&self.owners, owner)
    }

    fn revoked<'a>(&'a self, owner: &'a str) -> Part<'a> {
        Part::OfOwner(&self.revoked, owner)
    }
}

/// The pattern of all keys that begin with `start`.
fn pattern(start: &str) -> String {
    let mut pattern = String::new();
    for c in start.chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '^' | '-' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "*"
}

struct Scripts {
    create: Script,
    update: Script,
    touch: Script,
    sign_in: Script,
    delete_by_owner: Script,
    prune: Script,
    extend: Script,
    #[cfg(feature = "redis-cluster")]
    cluster: cluster::Scripts,
}

impl Scripts {
    fn new() -> Self {
        Self {
            create: Script::new(include_str!("redis/create.lua")),
            update: Script::at_once(
                include_str!("redis/update_at_once.lua"),
                include_str!("redis/update.lua"),
            ),
            touch: Script::new(include_str!("redis/touch.lua")),
            sign_in: Script::new(include_str!("redis/sign_in.lua")),
            delete_by_owner: Script::new(include_str!("redis/delete_by_owner.lua")),
            prune: Script::new(include_str!("redis/prune.lua")),
            extend: Script::new(include_str!("redis/extend.lua")),
            #[cfg(feature = "redis-cluster")]
            cluster: cluster::Scripts::new(),
        }
    }
}

/// When the server drops a record. It does not take 0 for a time.
fn end(record: &Record) -> Timestamp {
    record.expires.max(Timestamp::from_millis(1))
}

/// How many sessions the owner may have; 0 for any number.
fn most(admission: Admission) -> Part<'static> {
    let most = admission.limit.map_or(0, |limit| limit.max.get());
    Part::Number(most as u64)
}

/// When the owner of a record signed in.
fn signed_in(record: &Record) -> Timestamp {
    record.authenticated.unwrap_or(record.created)
}

/// Until when a sign-in keeps the owner's index at least.
fn indexed_until(record: &Record) -> Timestamp {
    signed_in(record)
        .saturating_add(INDEXED)
        .max(record.expires)
}

fn failed(error: RedisError) -> StoreError {
    match (error.kind(), error.code()) {
        (_, Some("WRONGTYPE")) => StoreError::corrupt(error),
        (ErrorKind::Server(kind), _) => match kind {
            ServerErrorKind::Moved | ServerErrorKind::Ask | ServerErrorKind::CrossSlot => {
                explained(NOT_A_CLUSTER, error)
            }
            ServerErrorKind::NoPerm => explained(
                "the user lacks rights; give it `~` and the prefix and `*`, and `+@read +@write \
                 +@scripting +@connection +info +time`",
                error,
            ),
            _ => StoreError::new(error),
        },
        _ => StoreError::new(error),
    }
}

fn explained(what: &'static str, source: RedisError) -> StoreError {
    StoreError::new(Explained { what, source })
}

fn unexpected(answer: &Value) -> StoreError {
    // Not the answer itself, which may hold a session's data.
    let kind = match answer {
        Value::Int(n) => return StoreError::new(format!("a script answers {n}")),
        Value::Nil => "nothing",
        _ => "something else than a number",
    };
    StoreError::new(format!("a script answers {kind}"))
}

/// An error of the driver, and what to make of it.
#[derive(Debug)]
struct Explained {
    what: &'static str,
    source: RedisError,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }
}

impl StdError for Explained {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each request has one of these allocated while it waits, and under load there are many.
    #[tokio::test]
    async fn what_is_awaited_is_small() {
        let client = Client::open("redis://127.0.0.1:9").unwrap();
        let driver = ConnectionManager::new_lazy_with_config(client, patience());
        let store = RedisStore::new(driver.unwrap());
        let (id, now) = (SessionId::from_bytes([1; 16]), Timestamp::from_millis(1));
        let record = Record::new(crate::token::Digest::from_bytes([7; 32]), now, now);
        let load = size_of_val(&store.load(id, now));
        let create = size_of_val(&store.create(id, &record, now));
        let update = size_of_val(&store.update(id, &record, Version::FIRST, now));
        assert!(load <= 300 && create <= 300, "{load}, {create}");
        assert!(update <= 700, "{update}");
    }

    #[test]
    fn a_pattern_means_its_characters() {
        assert_eq!(pattern("a*[b]?\\:"), "a\\*\\[b\\]\\?\\\\:*");
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for old in ["2.8.0", "6.0.16", "6.1.240"] {
            assert!(is_older_than_6_2(old), "{old}");
        }
        for new in ["6.2.0", "6.10.1", "7.0.15", "255.255.255", "unknown"] {
            assert!(!is_older_than_6_2(new), "{new}");
        }
    }
}
