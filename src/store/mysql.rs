//! Sessions in a MySQL or MariaDB database.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::vec;

use mysql_async::prelude::Queryable as _;
use mysql_async::{
    Conn, DriverError, Opts, OptsBuilder, Params, Pool, PoolConstraints, PoolOpts, Row,
    ServerError, UrlError, Value,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};
use crate::token::Digest;

/// Keeps sessions in a database of MySQL, version 8.0 or later, or MariaDB, version 10.6 or later.
///
/// Clones share one store, and any number of processes can share a database.
///
/// ```no_run
/// use cloakroom::{MysqlStore, SessionLayer};
///
/// # async fn run() -> Result<(), cloakroom::store::StoreError> {
/// let store = MysqlStore::connect("mysql://app:secret@db.internal/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
///
/// # Connections
///
/// A call has a connection to itself for one trip to the server, out of up to ten unless
/// [`connections`](MysqlStoreBuilder::connections) says otherwise. They are made when they are needed,
/// and kept; the statements are prepared on a connection when it is first asked for them, which takes
/// one more trip. Taking one costs no trip: what the server has closed meanwhile is noticed and made
/// anew.
///
/// A call whose connection breaks fails, since nobody knows whether it was carried out; so does one that
/// finds no connection within five seconds. A call that the server ended because it and another waited
/// for each other was not carried out, and is made again. The connections live on the runtime on which
/// [`connect`](Self::connect) was called.
///
/// A proxy between this store and the server must keep a connection to one server.
///
/// # Cancel safety
///
/// When the future of a call is dropped, its connection is closed, and the operation happens wholly or
/// not at all. The server may still carry it out, and waits for a lock for up to ten seconds.
///
/// # Encryption
///
/// With `?require_ssl=true` in the URL the connection is encrypted, and the server must show a
/// certificate of a public authority for its name. For one of your own give
/// [`connect_with`](Self::connect_with) [`SslOpts`](mysql_async::SslOpts) with it. Without either nothing
/// is encrypted. If the application has not chosen a crypto provider for rustls by then, it will be
/// `ring`.
///
/// # Tables
///
/// [`migrate`](Self::migrate) makes them, and procedures for the operations of several steps;
/// `src/store/mysql.sql` has them for those who run their own migrations. They are in the database that
/// the URL names. Ids are `BINARY(16)`, times milliseconds in UTC. The engine is InnoDB.
///
/// Rights: `SELECT`, `INSERT`, `UPDATE`, `DELETE` and `EXECUTE` on the database; to migrate, `CREATE`,
/// `CREATE ROUTINE` and `ALTER ROUTINE` too. The procedures run with the rights of who calls them.
///
/// Expired sessions stay until a [`Cleaner`](crate::Cleaner) removes them.
///
/// # Durability
///
/// What is acknowledged has been committed. It outlives a crash of the machine if
/// `innodb_flush_log_at_trx_commit` is 1, the default of both servers; with 2 it outlives one of the server
/// alone, and with 0 not even that. Replicas lag behind, so a failover to one can lose what was
/// acknowledged last, and bring back a session that was just ended, unless replication is synchronous:
/// send all calls to one primary. On a cluster of several primaries (Galera, Group Replication) the answers
/// hold too, but instances should start with the tables made: such a cluster knows no lock to make them
/// under.
///
/// `binlog_format` must not be `STATEMENT`, which InnoDB refuses in transactions that are
/// `READ COMMITTED`. Data of up to 16 MiB needs a `max_allowed_packet` of 32 MiB or more on the server;
/// the default of MariaDB is 16 MiB, that of MySQL 64 MiB.
#[derive(Clone)]
pub struct MysqlStore(Arc<Inner>);

impl MysqlStore {
    /// Connects to the server that the URL names: `mysql://user:password@host:port/database`.
    ///
    /// The URL may have the options that [`mysql_async::Opts`] knows, such as `?require_ssl=true` or
    /// `?socket=/run/mysqld/mysqld.sock`, except those of a pool.
    ///
    /// # Errors
    ///
    /// The URL is none, or the server cannot be reached, refuses or is too old;
    /// [`source`](StdError::source) says which, and how to mend it.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Connects as `config` says, except for the size and the rules of its pool.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(config: Opts) -> Result<Self, StoreError> {
        Self::builder().connect_with(config).await
    }

    /// Sets other than the defaults.
    pub fn builder() -> MysqlStoreBuilder {
        MysqlStoreBuilder {
            table: "sessions".to_owned(),
            connections: 10,
        }
    }

    /// Makes the tables and procedures if they are not there, and sees whether they are as they should
    /// be.
    ///
    /// Safe to call whenever the service starts, also if many instances start at once, and again if it
    /// ended half-way.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or refuses, or there are tables of the same name that are not this
    /// store's or are of a later release; [`source`](StdError::source) says which, and how to mend it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        self.0.migrate().await.map_err(StoreError::new)
    }
}

impl fmt::Debug for MysqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlStore").finish_non_exhaustive()
    }
}

/// Settings of a [`MysqlStore`].
///
/// ```no_run
/// use cloakroom::MysqlStore;
///
/// # async fn run() -> Result<(), cloakroom::store::StoreError> {
/// let store = MysqlStore::builder()
///     .table("admin_sessions")
///     .connections(20)
///     .connect("mysql://app:secret@db.internal/app")
///     .await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` or `connect_with` is called"]
pub struct MysqlStoreBuilder {
    table: String,
    connections: usize,
}

impl MysqlStoreBuilder {
    /// The name of the table, in place of `sessions`: 1 to 48 letters of ASCII, digits and `_`, no
    /// digit first. The names of the store's other table and its procedures begin with it.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How many connections to keep at most; 0 counts as 1. The default is 10. As many calls are under
    /// way at once; more wait for their turn. The instances together need fewer than the server's
    /// `max_connections`.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number;
        self
    }

    /// As [`MysqlStore::connect`].
    ///
    /// # Errors
    ///
    /// As [`MysqlStore::connect`]; or the table's name is not one.
    pub async fn connect(&self, url: &str) -> Result<MysqlStore, StoreError> {
        let config = parse(url).map_err(StoreError::new)?;
        self.connect_with(config).await
    }

    /// As [`MysqlStore::connect_with`].
    ///
    /// # Errors
    ///
    /// As [`MysqlStore::connect_with`]; or the table's name is not one.
    pub async fn connect_with(&self, config: Opts) -> Result<MysqlStore, StoreError> {
        let inner = Inner::connect(&self.table, self.connections.max(1), config).await;
        inner
            .map(|inner| MysqlStore(Arc::new(inner)))
            .map_err(StoreError::new)
    }
}

/// The version of the tables in `mysql.sql`.
const SCHEMA: i32 = 1;

/// How long a revocation is remembered, in milliseconds: longer than any sign-in is under way.
const REVOKED_FOR: u64 = 60 * 60 * 1000;

/// How long to wait until there is a connection.
const CONNECT: Duration = Duration::from_secs(5);

/// How often a call is made that the server takes back.
const TRIES: usize = 10;

/// What every connection is told first, whatever the server's defaults. `READ COMMITTED` locks no gaps, for
/// which calls would wait that have nothing to do with each other, and sees what was done under a lock
/// that it waited for. What does not fit must not be cut to fit.
const SESSION: &str = "\
    SET SESSION autocommit = 1, innodb_lock_wait_timeout = 10, \
    sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'; \
    SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED";

fn parse(url: &str) -> Result<Opts, Problem> {
    Opts::from_url(url).map_err(|error| {
        // With one `@`, what is behind it is no password, and the parser's message may quote it.
        let quotes_no_secret = url.matches('@').count() == 1 && !url.contains("pass");
        Problem::Url(quotes_no_secret.then_some(error))
    })
}

impl SessionStore for MysqlStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        let params = || {
            let mut params = columns(id, record);
            params.extend(vec![time(now); COLUMNS.split(", ").count()]);
            params
        };
        // Inserted, an expired one replaced, or a live one left as it was: 1, 2 or 0.
        Ok(
            match self.0.run(Operation::Create, params).await?.affected {
                0 => Create::Taken,
                _ => Create::Done,
            },
        )
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let params = || vec![uuid(id), time(now)];
        let answer = self.0.run(Operation::Load, params).await?;
        answer.values().next().map(decode).transpose()
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let params = || {
            let mut params = columns(id, record);
            params.extend([expected.get().into(), time(now)]);
            params
        };
        let answer = self.0.run(Operation::Update, params).await?;
        let Some(mut values) = answer.values().next() else {
            return Ok(Update::Gone);
        };
        match &*values.bytes()? {
            b"done" => Ok(Update::Done),
            b"conflict" => decode(values).map(Update::Conflict),
            _ => Err(StoreError::new(Problem::Answer)),
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
        let params = || {
            let limit = admission.limit;
            let mut params = columns(id, record);
            params.extend([
                expected.map(Version::get).into(),
                time(now),
                time(admission.began),
                limit.map(|limit| integer(limit.max.get())).into(),
                limit
                    .map(|limit| limit.when_full == WhenFull::EvictOldest)
                    .into(),
            ]);
            params
        };
        let answer = self.0.run(Operation::SignIn, params).await?;
        let Some(mut values) = answer.values().next() else {
            return Ok(SignIn::Gone);
        };
        match &*values.bytes()? {
            b"done" => Ok(SignIn::Done),
            b"taken" => Ok(SignIn::Taken),
            b"conflict" => decode(values).map(SignIn::Conflict),
            b"gone" => Ok(SignIn::Gone),
            b"revoked" => Ok(SignIn::Revoked),
            b"full" => Ok(SignIn::Full),
            _ => Err(StoreError::new(Problem::Answer)),
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let params = || vec![time(expires), time(now), uuid(id), time(now)];
        let answer = self.0.run(Operation::Touch, params).await?;
        Ok(answer.last_insert_id.is_some())
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        let answer = self.0.run(Operation::Delete, || vec![uuid(id)]).await?;
        Ok(answer.affected > 0)
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let forgotten = now.as_millis().saturating_sub(REVOKED_FOR);
        let params = || vec![time(now), integer(limit).into(), forgotten.into()];
        let answer = self.0.run(Operation::DeleteExpired, params).await?;
        answer.count()
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let params = || vec![owner.into(), time(now)];
        let answer = self.0.run(Operation::List, params).await?;
        answer
            .values()
            .map(|mut values| {
                let id = SessionId::from_bytes(values.array()?);
                Ok((id, decode(values)?))
            })
            // A damaged one is nobody's session.
            .filter(|read| !matches!(read, Err(error) if StoreError::is_corrupt(error)))
            .collect()
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let params = || vec![owner.into(), keep.map_or(Value::NULL, uuid), time(now)];
        let answer = self.0.run(Operation::DeleteByOwner, params).await?;
        answer.count()
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        let answer = self.0.run(Operation::DeleteAll, Vec::new).await?;
        count(answer.affected)
    }
}

/// The id and the `COLUMNS` of a record.
fn columns(id: SessionId, record: &Record) -> Vec<Value> {
    let previous = record.previous.as_ref();
    let policy = record.policy.as_ref();
    vec![
        uuid(id),
        record.version.get().into(),
        record.digest.as_bytes().as_slice().into(),
        previous
            .map(|previous| previous.digest.as_bytes().as_slice())
            .into(),
        previous.map(|previous| previous.until.as_millis()).into(),
        record.owner.as_deref().into(),
        time(record.created),
        record.authenticated.map(Timestamp::as_millis).into(),
        time(record.renewed),
        time(record.seen),
        policy.map(|policy| integer(policy.idle.as_millis())).into(),
        policy
            .map(|policy| integer(policy.absolute.as_millis()))
            .into(),
        (&*record.data).into(),
        time(record.expires),
    ]
}

/// Reads the `COLUMNS`.
fn decode(mut values: Values) -> Result<Record, StoreError> {
    let version = Version::new(values.number()?);
    let digest = Digest::from_bytes(values.array()?);
    let previous_digest = values.optional(Values::array)?;
    let previous_until = values.optional(Values::moment)?;
    let owner = values.optional(Values::bytes)?;
    let created = values.moment()?;
    let authenticated = values.optional(Values::moment)?;
    let renewed = values.moment()?;
    let seen = values.moment()?;
    let idle = values.optional(Values::number)?;
    let absolute = values.optional(Values::number)?;
    let data = values.bytes()?;
    let expires = values.moment()?;

    let mut record = Record::new(digest, created, expires);
    record.version = version;
    record.previous = both(previous_digest, previous_until)?
        .map(|(digest, until)| Previous::new(Digest::from_bytes(digest), until));
    if let Some(owner) = owner {
        let owner = String::from_utf8(owner).map_err(|_| damaged())?;
        record.owner = Some(owner.into());
    }
    record.authenticated = authenticated;
    record.renewed = renewed;
    record.seen = seen;
    record.policy = both(idle, absolute)?.map(|(idle, absolute)| {
        ExpiryPolicy::new(Duration::from_millis(idle), Duration::from_millis(absolute))
    });
    record.data = data.into();
    Ok(record)
}

/// Two that are there together or not at all.
fn both<A, B>(one: Option<A>, other: Option<B>) -> Result<Option<(A, B)>, StoreError> {
    match (one, other) {
        (Some(one), Some(other)) => Ok(Some((one, other))),
        (None, None) => Ok(None),
        _ => Err(damaged()),
    }
}

/// The driver's own messages would quote the value.
fn damaged() -> StoreError {
    StoreError::corrupt("a column of the row has no value that this store writes there")
}

/// A row, read from left to right.
struct Values(vec::IntoIter<Value>);

impl Values {
    fn bytes(&mut self) -> Result<Vec<u8>, StoreError> {
        match self.0.next() {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            _ => Err(damaged()),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.bytes()?.try_into().map_err(|_| damaged())
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        match self.0.next() {
            Some(Value::UInt(number)) => Ok(number),
            Some(Value::Int(number)) => number.try_into().map_err(|_| damaged()),
            _ => Err(damaged()),
        }
    }

    /// A time, if it is from 1970 to 9999.
    fn moment(&mut self) -> Result<Timestamp, StoreError> {
        let millis = self.number()?;
        let moment = Timestamp::from_millis(millis);
        if moment.as_millis() == millis {
            Ok(moment)
        } else {
            Err(damaged())
        }
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        match self.0.as_slice().first() {
            Some(Value::NULL) => {
                self.0.next();
                Ok(None)
            }
            _ => read(self).map(Some),
        }
    }
}

fn uuid(id: SessionId) -> Value {
    id.as_bytes().as_slice().into()
}

fn time(moment: Timestamp) -> Value {
    moment.as_millis().into()
}

/// As MySQL has it, or else the largest that it has.
fn integer(number: impl TryInto<u64>) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn count(rows: u64) -> Result<usize, StoreError> {
    usize::try_from(rows).map_err(StoreError::new)
}

/// A statement, by its place in the list of them.
#[derive(Clone, Copy)]
enum Operation {
    Create,
    Load,
    Update,
    SignIn,
    Touch,
    Delete,
    DeleteExpired,
    List,
    DeleteByOwner,
    DeleteAll,
}

const OPERATIONS: usize = 10;

/// All but the id, in the table's order. `expires` comes last because `create` looks at the old one until
/// then.
const COLUMNS: &str = "version, digest, previous_digest, previous_until, owner, created, \
                       authenticated, renewed, seen, idle, absolute, data, expires";
const VALUES: &str = "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?";

/// The statements, in the order of `Operation`.
fn statements(table: &str) -> [String; OPERATIONS] {
    let [t, update, sign_in, delete_expired, delete_by_owner] = [
        "",
        "_update",
        "_sign_in",
        "_delete_expired",
        "_delete_by_owner",
    ]
    // Quoted because it may be a keyword.
    .map(|suffix| format!("`{table}{suffix}`"));
    let replace_if_expired = COLUMNS
        .split(", ")
        .map(|column| format!("{column} = IF(expires <= ?, VALUES({column}), {column})"))
        .collect::<Vec<_>>()
        .join(", ");
    [
        format!(
            "INSERT INTO {t} (id, {COLUMNS}) VALUES ({VALUES}) \
             ON DUPLICATE KEY UPDATE {replace_if_expired}"
        ),
        format!("SELECT {COLUMNS} FROM {t} WHERE id = ? AND expires > ?"),
        format!("CALL {update}({VALUES}, ?, ?)"),
        format!("CALL {sign_in}({VALUES}, ?, ?, ?, ?, ?)"),
        // Who is at the latest time already is not counted among the affected rows: the insert id, never
        // 0, tells of a live one.
        format!(
            "UPDATE {t} FORCE INDEX (PRIMARY) SET expires = GREATEST(expires, ?), \
             seen = LAST_INSERT_ID(GREATEST(seen, ?) + 1) - 1 WHERE id = ? AND expires > ?"
        ),
        format!("DELETE FROM {t} WHERE id = ?"),
        format!("CALL {delete_expired}(?, ?, ?)"),
        format!("SELECT id, {COLUMNS} FROM {t} WHERE owner = ? AND expires > ?"),
        format!("CALL {delete_by_owner}(?, ?, ?)"),
        format!("DELETE FROM {t}"),
    ]
}

/// What the server sends back in one trip.
struct Answer {
    rows: Vec<Row>,
    affected: u64,
    last_insert_id: Option<u64>,
}

impl Answer {
    fn values(self) -> impl Iterator<Item = Values> {
        let rows = self.rows.into_iter();
        rows.map(|row| Values(row.unwrap().into_iter()))
    }

    /// The one number that a procedure answers.
    fn count(self) -> Result<usize, StoreError> {
        let number = self.values().next().map(|mut values| values.number());
        count(number.ok_or_else(|| StoreError::new(Problem::Answer))??)
    }
}

/// A connection, which goes back to the pool.
struct Held {
    // It goes first, so that who comes next finds it on its way back.
    conn: Conn,
    _turn: OwnedSemaphorePermit,
}

/// A connection that is being given back by somebody else, or made. Whoever leaves the pool's line in the moment of being
/// called takes the call along, and nobody behind them is called any more, for as long as others join the line. So
/// this is carried on if it is dropped.
struct Taking<'a> {
    conn: Option<Connecting>,
    turn: Option<OwnedSemaphorePermit>,
    home: &'a Handle,
}

type Connecting = Pin<Box<dyn Future<Output = Result<Conn, mysql_async::Error>> + Send>>;

impl Future for Taking<'_> {
    type Output = Result<Held, mysql_async::Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let conn = self.conn.as_mut().expect(POLLED_AGAIN);
        let conn = ready!(conn.as_mut().poll(context));
        self.conn = None;
        let turn = self.turn.take().expect(POLLED_AGAIN);
        Poll::Ready(conn.map(|conn| Held { conn, _turn: turn }))
    }
}

const POLLED_AGAIN: &str = "the future is not polled after it was ready";

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let turn = self.turn.take();
        if let Some(conn) = self.conn.take() {
            self.home.spawn(async move {
                let _ = timeout(CONNECT, conn).await;
                drop(turn);
            });
        }
    }
}

/// The connections, and what is said on them.
struct Inner {
    table: String,
    statements: [String; OPERATIONS],
    config: Opts,
    pool: Pool,
    /// One for each connection that the pool may have.
    turns: Arc<Semaphore>,
    /// Where the pool has its tasks.
    home: Handle,
    /// The server's `max_allowed_packet` of when we connected.
    largest: usize,
}

impl Inner {
    async fn connect(table: &str, connections: usize, config: Opts) -> Result<Self, Problem> {
        let starts_well = table.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_word = table.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !starts_well || !is_word || table.len() > 48 {
            return Err(Problem::Table(table.to_owned()));
        }
        if config.db_name().is_none() {
            return Err(Problem::Database);
        }
        let config = configure(config, connections);
        let mut inner = Self {
            table: table.to_owned(),
            statements: statements(table),
            pool: Pool::new(config.clone()),
            turns: Arc::new(Semaphore::new(connections.max(1))),
            home: Handle::current(),
            config,
            largest: usize::MAX,
        };
        // The first one shows whether it works at all.
        let mut held = inner.conn().await?;
        let conn = &mut held.conn;
        let facts = "SELECT VERSION(), @@max_allowed_packet";
        let facts: Option<(String, usize)> = conn.query_first(facts).await?;
        let (version, largest) = facts.unwrap_or_default();
        if is_too_old(&version, conn.server_version()) {
            return Err(Problem::Old(version));
        }
        inner.largest = largest;
        Ok(inner)
    }

    /// A connection that works, as far as one can know without asking.
    async fn conn(&self) -> Result<Held, Problem> {
        match timeout(CONNECT, self.take()).await {
            Ok(Ok(held)) => Ok(held),
            Ok(Err(mysql_async::Error::Driver(DriverError::PoolDisconnected))) => {
                Err(Problem::Stopped)
            }
            Ok(Err(error)) => Err(Problem::Connect(server(&self.config), Some(error))),
            Err(_) => Err(Problem::Connect(server(&self.config), None)),
        }
    }

    /// Waits for a connection in a line of our own: that of the pool must not be left.
    async fn take(&self) -> Result<Held, mysql_async::Error> {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        let turn = turn.expect("it is never closed");
        let taking = Taking {
            conn: Some(Box::pin(self.pool.get_conn())),
            turn: Some(turn),
            home: &self.home,
        };
        taking.await
    }

    async fn run(
        &self,
        operation: Operation,
        params: impl Fn() -> Vec<Value>,
    ) -> Result<Answer, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mut held = self.conn().await.map_err(StoreError::new)?;
            let statement = &self.statements[operation as usize];
            let error = match ask(&mut held.conn, statement, params()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // It and another waited for each other, and the server has taken all of it back.
            if code(&error) == Some(DEADLOCK) && tries < TRIES {
                continue;
            }
            // A transaction may be open, or the server may be one that only reads by now: the next call
            // starts afresh. It is no matter whether the server hears of it.
            let _ = held.conn.disconnect().await;
            return Err(StoreError::new(self.explain(error, &params())));
        }
    }

    fn explain(&self, error: mysql_async::Error, params: &[Value]) -> Problem {
        let table = self.table.clone();
        match code(&error) {
            Some(NO_SUCH_TABLE | NO_SUCH_PROCEDURE) => Problem::NotMigrated(table, error),
            Some(code) if FORBIDDEN.contains(&code) => Problem::Rights(table, error),
            // The server hangs up before it has read it all, and seldom gets to say why.
            _ if size(params) > self.largest => Problem::TooLarge(self.largest, error),
            _ => Problem::Server(error),
        }
    }
}

/// About as many bytes as the server gets.
fn size(params: &[Value]) -> usize {
    let sizes = params.iter().map(|value| match value {
        Value::Bytes(bytes) => bytes.len(),
        _ => 8,
    });
    sizes.sum()
}

async fn ask(
    conn: &mut Conn,
    statement: &str,
    params: Vec<Value>,
) -> Result<Answer, mysql_async::Error> {
    let mut result = conn
        .exec_iter(statement, Params::Positional(params))
        .await?;
    let answer = Answer {
        affected: result.affected_rows(),
        last_insert_id: result.last_insert_id(),
        rows: result.collect().await?,
    };
    result.drop_result().await?;
    Ok(answer)
}

const ACCESS_TO_DATABASE_DENIED: u16 = 1044;
const ACCESS_TO_TABLE_DENIED: u16 = 1142;
const NO_SUCH_TABLE: u16 = 1146;
const DEADLOCK: u16 = 1213;
const NO_SUCH_PROCEDURE: u16 = 1305;
const ACCESS_TO_PROCEDURE_DENIED: u16 = 1370;

/// The user lacks a right.
const FORBIDDEN: [u16; 3] = [
    ACCESS_TO_DATABASE_DENIED,
    ACCESS_TO_TABLE_DENIED,
    ACCESS_TO_PROCEDURE_DENIED,
];

fn code(error: &mysql_async::Error) -> Option<u16> {
    match error {
        mysql_async::Error::Server(ServerError { code, .. }) => Some(*code),
        _ => None,
    }
}

/// What the store relies on, in place of what the configuration says.
fn configure(config: Opts, connections: usize) -> Opts {
    if config.ssl_opts().is_some() {
        // Unless the application has chosen one. The driver would panic if there were none.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    // Those that are in use at times are kept, since to make one takes many trips.
    let constraints = PoolConstraints::new(connections, connections).unwrap_or_default();
    let pool = PoolOpts::default()
        .with_constraints(constraints)
        // A trip after each call.
        .with_reset_connection(false);
    let mut setup = config.setup().to_vec();
    // They are run from the last to the first.
    setup.insert(0, SESSION.to_owned());
    OptsBuilder::from_opts(config)
        .pool_opts(pool)
        .setup(setup)
        .stmt_cache_size(2 * OPERATIONS)
        // Where the server's socket is on the server's own machine says nothing about this one.
        .prefer_socket(false)
        // `create` has to tell rows that were changed from those that were found.
        .client_found_rows(false)
        .into()
}

/// Where the configuration leads.
fn server(config: &Opts) -> String {
    match config.socket() {
        Some(socket) => socket.to_owned(),
        None => format!("{}:{}", config.ip_or_hostname(), config.tcp_port()),
    }
}

/// `SKIP LOCKED` is what older ones do not know.
fn is_too_old(text: &str, (major, minor, _): (u16, u16, u16)) -> bool {
    let oldest = if text.contains("MariaDB") {
        (10, 6)
    } else {
        (8, 0)
    };
    (major, minor) < oldest
}

/// The schema.
impl Inner {
    async fn migrate(&self) -> Result<(), Problem> {
        let mut held = self.conn().await?;
        let migrated = self.migrate_on(&mut held.conn).await;
        // The lock goes with it.
        let _ = held.conn.disconnect().await;
        migrated.map_err(|problem| problem.or_rights(&self.table))
    }

    async fn migrate_on(&self, conn: &mut Conn) -> Result<(), Problem> {
        if self.version(conn).await? != Some(SCHEMA) {
            // Of all instances, and for all tables, since `cloakroom_schema` is there for all.
            let lock = "SELECT GET_LOCK('cloakroom_schema', 60)";
            if conn.query_first(lock).await? != Some(Some(1)) {
                return Err(Problem::Locked);
            }
            self.make(conn).await?;
        }
        for statement in &self.statements {
            conn.prep(statement.as_str())
                .await
                .map_err(|error| Problem::Changed(self.table.clone(), error))?;
            check_procedure(conn, statement).await?;
        }
        Ok(())
    }

    /// Makes what another instance has not made meanwhile, from the start if it did not come to the end.
    async fn make(&self, conn: &mut Conn) -> Result<(), Problem> {
        match self.version(conn).await? {
            Some(SCHEMA) => return Ok(()),
            Some(0) => {}
            Some(version) => return Err(Problem::Version(self.table.clone(), version)),
            None if exists(conn, &self.table).await? => {
                return Err(Problem::Foreign(self.table.clone()));
            }
            None => {}
        }
        for statement in schema(&self.table) {
            conn.query_drop(statement).await?;
        }
        Ok(())
    }

    /// The version of the tables, as far as they are this store's.
    async fn version(&self, conn: &mut Conn) -> Result<Option<i32>, Problem> {
        if !exists(conn, "cloakroom_schema").await? {
            return Ok(None);
        }
        let version = "SELECT version FROM cloakroom_schema WHERE `table` = ?";
        Ok(conn.exec_first(version, (&self.table,)).await?)
    }
}

async fn exists(conn: &mut Conn, table: &str) -> Result<bool, mysql_async::Error> {
    let exists = "SELECT 1 FROM information_schema.tables \
                  WHERE table_schema = DATABASE() AND table_name = ?";
    let found: Option<u8> = conn.exec_first(exists, (table,)).await?;
    Ok(found.is_some())
}

/// Sees whether there is the procedure that a statement calls: to prepare it does not tell.
async fn check_procedure(conn: &mut Conn, statement: &str) -> Result<(), Problem> {
    let call = statement.strip_prefix("CALL `");
    let Some((procedure, arguments)) = call.and_then(|call| call.split_once('`')) else {
        return Ok(());
    };
    let parameters = "SELECT COUNT(*) FROM information_schema.parameters \
                      WHERE specific_schema = DATABASE() AND specific_name = ?";
    let parameters: Option<usize> = conn.exec_first(parameters, (procedure,)).await?;
    if parameters == Some(arguments.matches('?').count()) {
        Ok(())
    } else {
        Err(Problem::Procedure(procedure.to_owned()))
    }
}

/// The statements of `mysql.sql`.
fn schema(table: &str) -> Vec<String> {
    include_str!("mysql.sql")
        .replace("DELIMITER //", "")
        .replace("sessions", table)
        .split("//")
        .filter(|statement| !statement.trim().is_empty())
        .map(str::to_owned)
        .collect()
}

/// Why the store cannot be used.
#[derive(Debug)]
enum Problem {
    Table(String),
    Url(Option<UrlError>),
    Database,
    Connect(String, Option<mysql_async::Error>),
    Old(String),
    Stopped,
    NotMigrated(String, mysql_async::Error),
    Version(String, i32),
    Foreign(String),
    Locked,
    Rights(String, mysql_async::Error),
    Changed(String, mysql_async::Error),
    Procedure(String),
    TooLarge(usize, mysql_async::Error),
    Server(mysql_async::Error),
    Answer,
}

impl Problem {
    /// What the server forbids while the table is made or looked at has a remedy of its own.
    fn or_rights(self, table: &str) -> Self {
        match self {
            Self::Server(error) | Self::Changed(_, error)
                if code(&error).is_some_and(|code| FORBIDDEN.contains(&code)) =>
            {
                Self::Rights(table.to_owned(), error)
            }
            other => other,
        }
    }
}

impl From<mysql_async::Error> for Problem {
    fn from(error: mysql_async::Error) -> Self {
        Self::Server(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(
                f,
                "{table:?} is no name for a table; use 1 to 48 ASCII letters, digits and `_`, no \
                 digit first"
            ),
            Self::Url(_) => f.write_str(
                "this is no URL of a MySQL server; write \
                 `mysql://user:password@host:port/database`, with special characters as `%40`",
            ),
            Self::Database => f.write_str(
                "the URL of the MySQL server names no database; write \
                 `mysql://user:password@host:port/database`",
            ),
            Self::Connect(server, Some(_)) => {
                write!(f, "cannot connect to the MySQL server at `{server}`")
            }
            Self::Connect(server, None) => write!(
                f,
                "no connection to the MySQL server at `{server}` within {} s; see that it runs and can \
                 be reached, or if it is merely slow, allow more with `MysqlStoreBuilder::connections`",
                CONNECT.as_secs()
            ),
            Self::Old(version) => write!(
                f,
                "the server is of version `{version}`; the MySQL store needs MySQL 8.0 or MariaDB 10.6, \
                 or a later one"
            ),
            Self::Stopped => f.write_str(
                "the runtime on which the MySQL store was connected has ended; connect on the one that \
                 serves",
            ),
            Self::NotMigrated(table, _) => write!(
                f,
                "the table `{table}` or what belongs to it is not there; call `MysqlStore::migrate` \
                 first, or look which database the URL names"
            ),
            Self::Version(table, version) => write!(
                f,
                "the table `{table}` has schema version {version}, and this release of cloakroom knows \
                 version {SCHEMA}; use the release that made it or a later one"
            ),
            Self::Foreign(table) => write!(
                f,
                "there is a table `{table}` already that cloakroom did not make; choose another name \
                 with `MysqlStoreBuilder::table`, or another database"
            ),
            Self::Locked => f.write_str(
                "another instance has been making its tables for a minute; see what holds the lock \
                 `cloakroom_schema`, and start again",
            ),
            Self::Rights(table, _) => write!(
                f,
                "this user lacks a right on the table `{table}` or what belongs to it; grant it SELECT, \
                 INSERT, UPDATE, DELETE and EXECUTE on the database, and to migrate CREATE, CREATE \
                 ROUTINE and ALTER ROUTINE too, or let a user that may run `mysql.sql`"
            ),
            Self::Changed(table, _) => write!(
                f,
                "the table `{table}`, or what belongs to it, is not as cloakroom made it; compare it \
                 with `mysql.sql`"
            ),
            Self::Procedure(procedure) => write!(
                f,
                "the procedure `{procedure}` is not there, or not as cloakroom made it, or this user \
                 may not execute it; compare it with `mysql.sql`, and grant EXECUTE"
            ),
            Self::TooLarge(largest, _) => write!(
                f,
                "the session's data is more than the {largest} bytes that the MySQL server takes at \
                 once; raise its `max_allowed_packet`, or lower `max_size` of the session layer"
            ),
            Self::Server(_) => f.write_str("the MySQL server failed"),
            Self::Answer => f.write_str(
                "a procedure of the MySQL store is not as cloakroom made it; compare it with \
                 `mysql.sql`",
            ),
        }
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(Some(error)) => Some(error),
            Self::Connect(_, Some(error))
            | Self::NotMigrated(_, error)
            | Self::Rights(_, error)
            | Self::Changed(_, error)
            | Self::TooLarge(_, error)
            | Self::Server(error) => Some(error),
            Self::Table(_)
            | Self::Url(None)
            | Self::Database
            | Self::Connect(_, None)
            | Self::Old(_)
            | Self::Stopped
            | Self::Version(..)
            | Self::Foreign(_)
            | Self::Locked
            | Self::Procedure(_)
            | Self::Answer => None,
        }
    }
}
