//! Sessions on a Redis server.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{
    Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo as _, RedisError, ServerErrorKind,
    Value,
};

use crate::clock::{Timestamp, whole_millis};
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};

/// Keeps sessions on a Redis server, 6.2 or later, or one that speaks like it, such as Valkey.
///
/// Sessions outlive the process, and any number of processes share them. Clones share one connection,
/// over which all requests go at once; it is made anew by itself when it breaks.
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
/// A single primary, with replicas or without; **not a cluster**, which `connect` refuses. If another
/// server takes over at the same address, as it does behind a proxy or with a managed service, the store
/// follows. Sentinel is not asked.
///
/// A session is a key that expires when the session does, so there is nothing to clean up and no
/// [`Cleaner`](crate::Cleaner) is needed. The server's clock must be roughly right: what it takes for
/// expired is gone.
///
/// Give the server `maxmemory-policy noeviction`: with another one it ends sessions when memory is
/// short, or forgets which sessions an owner has, **so that they cannot be revoked**. `connect` warns of
/// that in the log. Full, it refuses new sessions and changes, which clients see as a 503.
///
/// A user with the rights `~cloakroom:* +@read +@write +@scripting +@connection +info` is enough.
///
/// What survives a restart is what the server was told to save: `appendonly yes` with the default
/// `appendfsync everysec` loses up to a second, **logouts too**, and so may a failover.
///
/// # Keys
///
/// Under the prefix, `cloakroom:` by default:
///
/// | Key | Type | Holds | Expires |
/// |---|---|---|---|
/// | `session:` and the id | string | [`Record::encode`]'s bytes | with the session |
/// | `owner:` and the owner in hex | sorted set | ids by time of sign-in | when its last session is found gone |
/// | `revoked:` and the owner in hex | hash | when the owner was last revoked | after two hours |
///
/// The second is corrected as it is used: what is in it and not this owner's session any more is
/// dropped when the owner signs in, is listed or is revoked. An owner who never comes back leaves one
/// small key.
///
/// # TLS
///
/// For a URL with `rediss://`, enable TLS in the driver: depend on the crate `redis` in the version used
/// here, with its feature `tokio-rustls-comp` or `tokio-native-tls-comp`.
#[derive(Clone)]
pub struct RedisStore {
    connection: ConnectionManager,
    keys: Arc<Keys>,
    scripts: Arc<Scripts>,
}

impl RedisStore {
    /// Connects to the server at a URL: `redis://user:password@host:6379/0`, most of which may be left
    /// out.
    ///
    /// # Errors
    ///
    /// The text is no such URL, no server answers there, it refuses the user or the password, is too old,
    /// or is part of a cluster; [`source`](StdError::source) says which. The password is in none of them.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let store = Self::new(open(url).await?);
        store.check().await?;
        Ok(store)
    }

    /// A store over a connection that was made and set up elsewhere.
    ///
    /// Nothing is asked of the server; one that does not fit shows when the store is used.
    #[must_use]
    pub fn new(connection: ConnectionManager) -> Self {
        Self {
            connection,
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

    /// Whether the server is one that the store can use.
    async fn check(&self) -> Result<(), StoreError> {
        let info: String = self.run(&redis::cmd("INFO")).await?;
        let field = |name: &str| {
            info.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key == name).then(|| value.trim())
            })
        };
        if field("cluster_enabled") == Some("1") {
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

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        self.query(command).await.map_err(failed)
    }

    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisError> {
        let mut connection = self.connection.clone();
        let answer = command.query_async(&mut connection).await;
        if let Err(error) = &answer
            && error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
        {
            // After a failover the address leads to another server, but the connection still to the one
            // that was demoted. To end it is how to have it made anew.
            let _ = redis::cmd("QUIT").exec_async(&mut connection).await;
        }
        answer
    }

    /// Runs a script by its hash. A server that does not know it yet has done nothing, and is sent it.
    async fn call<T: FromRedisValue>(
        &self,
        script: &Script,
        keys: &[&str],
        arguments: &[&[u8]],
    ) -> Result<T, StoreError> {
        let command = |verb, script: &str| {
            let mut command = redis::cmd(verb);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        let known = command("EVALSHA", &script.hash);
        match self.query(&known).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                self.run(&command("EVAL", &script.code)).await
            }
            answer => answer.map_err(failed),
        }
    }

    /// Drops from an owner's index what is not this owner's session.
    async fn prune(&self, owner: &str) -> Result<(), StoreError> {
        let keys = [&*self.keys.index(owner)];
        let arguments = [owner.as_bytes(), self.keys.sessions.as_bytes()];
        self.call(&self.scripts.prune, &keys, &arguments).await
    }

    /// One step over the keys that begin with `start`: where to go on, and what comes after `start` in
    /// those that were found.
    async fn scan(&self, start: &str, cursor: u64) -> Result<(u64, Vec<String>), StoreError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern(start));
        command.arg("COUNT").arg(1_000);
        let (cursor, keys): (u64, Vec<Vec<u8>>) = self.run(&command).await?;
        let rest = |key: &Vec<u8>| Some(std::str::from_utf8(key).ok()?.strip_prefix(start)?.into());
        Ok((cursor, keys.iter().filter_map(rest).collect()))
    }
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

/// How long a revocation is remembered: longer than any sign-in is under way, and than an hour.
const REVOKED_FOR: Duration = Duration::from_secs(2 * 60 * 60);

const NOT_A_CLUSTER: &str = "the server is part of a cluster; `RedisStore` needs a single primary";

async fn open(url: &str) -> Result<ConnectionManager, StoreError> {
    let what = "no URL of a Redis server; it looks like `redis://user:password@host:6379/0`";
    let info = url
        .into_connection_info()
        .map_err(|error| explained(what, error))?;
    #[cfg(target_os = "linux")]
    let info = {
        let tcp = info.tcp_settings().clone().set_user_timeout(UNACKNOWLEDGED);
        info.set_tcp_settings(tcp)
    };
    let client = Client::open(info).map_err(|error| explained(what, error))?;
    // The caller bounds how long an operation may take. Few attempts in a row, so that while the server
    // is down the cause comes back and not just a timeout; the next operation makes the next attempt.
    let config = ConnectionManagerConfig::new()
        .set_response_timeout(None)
        .set_connection_timeout(Some(CONNECT))
        .set_number_of_retries(1)
        .set_min_delay(Duration::from_millis(50))
        .set_max_delay(Duration::from_millis(500));
    ConnectionManager::new_with_config(client, config)
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
        let keys = [&*self.keys.session(id)];
        let arguments = [&*record.encode(), &end(record), &decimal(now)];
        let answer = self.call(&self.scripts.create, &keys, &arguments).await?;
        match answer {
            1 => Ok(Create::Done),
            0 => Ok(Create::Taken),
            other => Err(unexpected(&Value::Int(other))),
        }
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let bytes: Option<Vec<u8>> = self.run(&Cmd::get(self.keys.session(id))).await?;
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
        let keys = [&*self.keys.session(id)];
        let record = (record.encode(), end(record));
        let expected = begins(&record.0, expected);
        let arguments = [&*record.0, &record.1, &decimal(now), &expected];
        let answer = self.call(&self.scripts.update, &keys, &arguments).await?;
        match answer {
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
        let owner = record.owner.as_deref().unwrap_or_default();
        let keys = [
            &*self.keys.session(id),
            &self.keys.index(owner),
            &self.keys.revoked(owner),
        ];
        let bytes = record.encode();
        let id = id.to_string();
        let expected = expected.map(|expected| begins(&bytes, expected));
        let max = admission.limit.map_or(0, |limit| limit.max.get());
        let max = max.to_string();
        let refuse = admission
            .limit
            .is_some_and(|limit| limit.when_full == WhenFull::Refuse);
        let arguments = [
            &*bytes,
            &end(record),
            &decimal(now),
            expected.as_deref().unwrap_or_default(),
            id.as_bytes(),
            owner.as_bytes(),
            &record.authenticated.map_or(b"-1".to_vec(), decimal),
            &decimal(admission.began),
            max.as_bytes(),
            if refuse { b"1" } else { b"0" },
            self.keys.sessions.as_bytes(),
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
        let keys = [&*self.keys.session(id)];
        let arguments = [&*decimal(expires), &decimal(now)];
        let answer = self.call(&self.scripts.touch, &keys, &arguments).await?;
        match answer {
            Value::Int(1) => Ok(true),
            Value::Int(0) => Ok(false),
            Value::BulkString(damaged) => match Record::decode(&damaged) {
                Err(error) => Err(error),
                Ok(_) => Err(unexpected(&Value::BulkString(Vec::new()))),
            },
            other => Err(unexpected(&other)),
        }
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.run(&Cmd::unlink(self.keys.session(id))).await
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
        let ids: Vec<String> = self
            .run(&Cmd::zrange(self.keys.index(owner), 0, -1))
            .await?;
        let ids: Vec<SessionId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys: Vec<_> = ids.iter().map(|id| self.keys.session(*id)).collect();
        let records: Vec<Option<Vec<u8>>> = self.run(&Cmd::mget(&keys)).await?;
        let mut listed = Vec::new();
        let mut is_clean = true;
        for (id, bytes) in ids.into_iter().zip(records) {
            let record = match bytes.map(|bytes| Record::decode(&bytes)) {
                // A damaged one is nobody's session.
                Some(Err(error)) if !error.is_corrupt() => return Err(error),
                Some(Ok(record)) if record.owner.as_deref() == Some(owner) => record,
                _ => {
                    is_clean = false;
                    continue;
                }
            };
            if record.expires > now {
                listed.push((id, record));
            }
        }
        if !is_clean {
            // If that fails, the next one does it; the list is right either way.
            let _ = self.prune(owner).await;
        }
        Ok(listed)
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let keys = [&*self.keys.index(owner), &self.keys.revoked(owner)];
        let keep = keep.map_or(String::new(), |keep| keep.to_string());
        let remember = whole_millis(REVOKED_FOR).to_string();
        let arguments = [
            owner.as_bytes(),
            keep.as_bytes(),
            &decimal(now),
            self.keys.sessions.as_bytes(),
            remember.as_bytes(),
        ];
        let script = &self.scripts.delete_by_owner;
        self.call(script, &keys, &arguments).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        let mut cursor = 0;
        loop {
            let (next, found) = self.scan(&self.keys.sessions, cursor).await?;
            let ids = found.iter().filter_map(|id| id.parse().ok());
            let keys: Vec<_> = ids.map(|id| self.keys.session(id)).collect();
            if !keys.is_empty() {
                removed += self.run::<usize>(&Cmd::unlink(&keys)).await?;
            }
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        // What is signed in meanwhile stays in its index.
        loop {
            let (next, found) = self.scan(&self.keys.owners, cursor).await?;
            for owner in found.iter().filter_map(|hex| unhex(hex)) {
                self.prune(&owner).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }
}

/// What keys begin with.
struct Keys {
    sessions: String,
    owners: String,
    revoked: String,
}

impl Keys {
    fn new(prefix: &str) -> Self {
        Self {
            sessions: format!("{prefix}session:"),
            owners: format!("{prefix}owner:"),
            revoked: format!("{prefix}revoked:"),
        }
    }

    fn session(&self, id: SessionId) -> String {
        format!("{}{id}", self.sessions)
    }

    fn index(&self, owner: &str) -> String {
        self.owners.clone() + &hex(owner)
    }

    fn revoked(&self, owner: &str) -> String {
        self.revoked.clone() + &hex(owner)
    }
}

/// An owner is any text; hex keeps spaces, braces and line breaks out of keys.
fn hex(owner: &str) -> String {
    owner.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(hex: &str) -> Option<String> {
    let digit = |byte: u8| {
        char::from(byte)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    let bytes = hex
        .as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?));
    String::from_utf8(bytes.collect::<Option<_>>()?).ok()
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
}

impl Scripts {
    fn new() -> Self {
        Self {
            create: Script::new(include_str!("redis/create.lua")),
            update: Script::new(include_str!("redis/update.lua")),
            touch: Script::new(include_str!("redis/touch.lua")),
            sign_in: Script::new(include_str!("redis/sign_in.lua")),
            delete_by_owner: Script::new(include_str!("redis/delete_by_owner.lua")),
            prune: Script::new(include_str!("redis/prune.lua")),
        }
    }
}

struct Script {
    code: String,
    hash: String,
}

impl Script {
    fn new(code: &str) -> Self {
        let code = [include_str!("redis/common.lua"), code].concat();
        let hash = redis::Script::new(&code).get_hash().to_owned();
        Self { code, hash }
    }
}

fn decimal(time: Timestamp) -> Vec<u8> {
    time.as_millis().to_string().into_bytes()
}

/// When the server drops a record. It does not take 0 for a time.
fn end(record: &Record) -> Vec<u8> {
    decimal(record.expires.max(Timestamp::from_millis(1)))
}

/// What a record of the same format and of the expected version begins with.
fn begins(record: &[u8], expected: Version) -> Vec<u8> {
    [&record[..1], &expected.get().to_be_bytes()].concat()
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
                 +@scripting +@connection +info`",
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

    #[test]
    fn an_owner_comes_back_from_its_key() {
        for owner in ["a", "Ada Lovelace", "\u{1f9e5}{x}\n*"] {
            assert_eq!(unhex(&hex(owner)).as_deref(), Some(owner));
        }
        for no_owner in ["6", "6x", "ff", "session:61"] {
            assert_eq!(unhex(no_owner), None);
        }
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
