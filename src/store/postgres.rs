//! Sessions in a PostgreSQL database.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OnceCell, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::NoTlsStream;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_postgres::{Client, Config, Connection, IsolationLevel, NoTls, Row, Socket, Statement};
use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};
use crate::token::Digest;

/// Keeps sessions in a PostgreSQL database, version 11 or later.
///
/// Clones share one store, and any number of processes can share a database.
///
/// ```no_run
/// use cloakroom::{PostgresStore, SessionLayer};
///
/// # async fn run() -> Result<(), cloakroom::store::StoreError> {
/// let store = PostgresStore::connect("postgres://app:secret@db.internal/app").await?;
/// store.migrate().await?;
/// let layer = SessionLayer::new(store);
/// # drop(layer);
/// # Ok(())
/// # }
/// ```
///
/// # Connections
///
/// All calls share a few connections, two unless
/// [`connections`](PostgresStoreBuilder::connections) says otherwise, and do not wait for each other's
/// answers. Each call is one trip to the server, and a whole transaction of its own. The statements are
/// prepared on a connection when it is first asked for them, which takes one more trip.
///
/// A connection that breaks is made anew, at once and then ever more slowly, up to once in two seconds.
/// Calls that it had taken fail, since nobody knows whether they were carried out; others wait for the
/// first try to connect, and fail with its error once it has failed. The connections live on the
/// runtime on which [`connect`](Self::connect) was called.
///
/// A pooler between this store and the server must give each connection a server process of its own (in
/// PgBouncer's words, session pooling).
///
/// # Encryption
///
/// There is none yet: use it over a Unix socket, a private network or a tunnel. A URL with
/// `sslmode=require` is refused.
///
/// # Tables
///
/// [`migrate`](Self::migrate) makes them; `src/store/postgres.sql` has them for those who run their own
/// migrations. They are made and found by the connection's `search_path`. Ids are of type `uuid`, times
/// `timestamptz`, digests and data `bytea`.
///
/// Expired sessions stay until a [`Cleaner`](crate::Cleaner) removes them.
#[derive(Clone)]
pub struct PostgresStore(Arc<Links>);

impl PostgresStore {
    /// Connects to the server that the URL names: `postgres://user:password@host:port/database`.
    ///
    /// The URL may have the options that [`tokio_postgres::Config`] knows, such as
    /// `?connect_timeout=2`.
    ///
    /// # Errors
    ///
    /// The URL is none, or the server cannot be reached or refuses;
    /// [`source`](StdError::source) says which, and how to mend it.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::builder().connect(url).await
    }

    /// Connects as `config` says.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_with(config: Config) -> Result<Self, StoreError> {
        Self::builder().connect_with(config).await
    }

    /// Sets other than the defaults.
    pub fn builder() -> PostgresStoreBuilder {
        PostgresStoreBuilder {
            table: "sessions".to_owned(),
            connections: 2,
        }
    }

    /// Makes the tables if they are not there, and sees whether they are as they should be.
    ///
    /// Safe to call whenever the service starts, also if many instances start at once.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or refuses, or there are tables of the same name that are not this
    /// store's or are of a later release; [`source`](StdError::source) says which, and how to mend it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = self.0.migrate().await;
        migrated.map_err(|problem| StoreError::new(problem.or_rights(&self.0.table)))
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

/// Settings of a [`PostgresStore`].
///
/// ```no_run
/// use cloakroom::PostgresStore;
///
/// # async fn run() -> Result<(), cloakroom::store::StoreError> {
/// let store = PostgresStore::builder()
///     .table("admin_sessions")
///     .connections(4)
///     .connect("postgres://app:secret@db.internal/app")
///     .await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `connect` or `connect_with` is called"]
pub struct PostgresStoreBuilder {
    table: String,
    connections: usize,
}

impl PostgresStoreBuilder {
    /// The name of the table, in place of `sessions`: 1 to 48 letters of ASCII, digits and `_`, no
    /// digit first. The names of the store's other table, its indexes and its functions begin with it.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// How many connections to keep; 0 counts as 1. The default is 2. More than 4 seldom help.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number;
        self
    }

    /// As [`PostgresStore::connect`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`]; or the table's name is not one.
    pub async fn connect(&self, url: &str) -> Result<PostgresStore, StoreError> {
        let config = parse(url).map_err(StoreError::new)?;
        self.connect_with(config).await
    }

    /// As [`PostgresStore::connect_with`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect_with`]; or the table's name is not one.
    pub async fn connect_with(&self, config: Config) -> Result<PostgresStore, StoreError> {
        let links = Links::connect(&self.table, self.connections.max(1), config).await;
        links
            .map(|links| PostgresStore(Arc::new(links)))
            .map_err(StoreError::new)
    }
}

/// The version of the tables in `postgres.sql`.
const SCHEMA: i32 = 1;

/// How long a revocation is remembered, in milliseconds: longer than any sign-in is under way.
const REVOKED_FOR: u64 = 60 * 60 * 1000;

/// How long to wait until a server has let us in, if the configuration does not say.
const CONNECT: Duration = Duration::from_secs(5);

/// How long to wait for a host that has vanished without a word, if the configuration does not say.
const VANISHED: Duration = Duration::from_secs(10);

/// Pauses between attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

fn parse(url: &str) -> Result<Config, Problem> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !is_url {
        return Err(Problem::Url(None));
    }
    url.parse().map_err(|error| {
        // With one `@`, what is behind it is no password, and the parser's message may quote it.
        let quotes_no_secret = url.matches('@').count() == 1 && !url.contains("password");
        Problem::Url(quotes_no_secret.then_some(error))
    })
}

type Param<'a> = &'a (dyn ToSql + Sync);

/// Values as a slice of `Param`.
macro_rules! params {
    ($($value:expr),*) => {
        &[$(&$value as Param<'_>),*][..]
    };
}

impl SessionStore for PostgresStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        let columns = Columns::of(id, record);
        let now = time(now);
        let params = columns.and(params![now]);
        Ok(match self.0.execute(Operation::Create, &params).await? {
            0 => Create::Taken,
            _ => Create::Done,
        })
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let (id, now) = (Uuid::from(id), time(now));
        let rows = self.0.query(Operation::Load, params![id, now]).await?;
        rows.first().map(decode).transpose()
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let columns = Columns::of(id, record);
        let (expected, now) = (expected.get().cast_signed(), time(now));
        let params = columns.and(params![expected, now]);
        let row = self.0.query_one(Operation::Update, &params).await?;
        match get::<&str>(&row, "answer")? {
            "done" => Ok(Update::Done),
            "conflict" => Ok(Update::Conflict(decode(&row)?)),
            "gone" => Ok(Update::Gone),
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
        let columns = Columns::of(id, record);
        let expected = expected.map(|version| version.get().cast_signed());
        let (now, began, limit) = (time(now), time(admission.began), admission.limit);
        let most = limit.map(|limit| integer(limit.max.get()));
        let evict = limit.map(|limit| limit.when_full == WhenFull::EvictOldest);
        let params = columns.and(params![expected, now, began, most, evict]);
        let row = self.0.query_one(Operation::SignIn, &params).await?;
        match get::<&str>(&row, "answer")? {
            "done" => Ok(SignIn::Done),
            "taken" => Ok(SignIn::Taken),
            "conflict" => Ok(SignIn::Conflict(decode(&row)?)),
            "gone" => Ok(SignIn::Gone),
            "revoked" => Ok(SignIn::Revoked),
            "full" => Ok(SignIn::Full),
            _ => Err(StoreError::new(Problem::Answer)),
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let (id, expires, now) = (Uuid::from(id), time(expires), time(now));
        let params = params![id, expires, now];
        Ok(self.0.execute(Operation::Touch, params).await? > 0)
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        let id = Uuid::from(id);
        Ok(self.0.execute(Operation::Delete, params![id]).await? > 0)
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let forgotten = now.as_millis().saturating_sub(REVOKED_FOR);
        let forgotten = time(Timestamp::from_millis(forgotten));
        let (now, limit) = (time(now), integer(limit));
        let params = params![now, limit, forgotten];
        count(self.0.execute(Operation::DeleteExpired, params).await?)
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let now = time(now);
        let rows = self.0.query(Operation::List, params![owner, now]).await?;
        rows.iter()
            .map(|row| Ok((get::<Uuid>(row, "id")?.into(), decode(row)?)))
            .collect()
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let (keep, now) = (keep.map(Uuid::from), time(now));
        let params = params![owner, keep, now];
        let row = self.0.query_one(Operation::DeleteByOwner, params).await?;
        count(get::<i64>(&row, "deleted")?.cast_unsigned())
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        count(self.0.execute(Operation::DeleteAll, &[]).await?)
    }
}

/// A record as it is in the table.
struct Columns<'a> {
    id: Uuid,
    version: i64,
    digest: &'a [u8],
    previous_digest: Option<&'a [u8]>,
    previous_until: Option<SystemTime>,
    owner: Option<&'a str>,
    created: SystemTime,
    authenticated: Option<SystemTime>,
    renewed: SystemTime,
    seen: SystemTime,
    expires: SystemTime,
    idle: Option<i64>,
    absolute: Option<i64>,
    data: &'a [u8],
}

impl<'a> Columns<'a> {
    fn of(id: SessionId, record: &'a Record) -> Self {
        let previous = record.previous.as_ref();
        let policy = record.policy.as_ref();
        Self {
            id: id.into(),
            version: record.version.get().cast_signed(),
            digest: record.digest.as_bytes(),
            previous_digest: previous.map(|previous| &previous.digest.as_bytes()[..]),
            previous_until: previous.map(|previous| time(previous.until)),
            owner: record.owner.as_deref(),
            created: time(record.created),
            authenticated: record.authenticated.map(time),
            renewed: time(record.renewed),
            seen: time(record.seen),
            expires: time(record.expires),
            idle: policy.map(|policy| integer(policy.idle.as_millis())),
            absolute: policy.map(|policy| integer(policy.absolute.as_millis())),
            data: &record.data,
        }
    }

    /// These and then others.
    fn and<'b>(&'b self, others: &[Param<'b>]) -> Vec<Param<'b>> {
        let own: [Param<'b>; 14] = [
            &self.id,
            &self.version,
            &self.digest,
            &self.previous_digest,
            &self.previous_until,
            &self.owner,
            &self.created,
            &self.authenticated,
            &self.renewed,
            &self.seen,
            &self.expires,
            &self.idle,
            &self.absolute,
            &self.data,
        ];
        [&own, others].concat()
    }
}

/// Reads the `COLUMNS`.
fn decode(row: &Row) -> Result<Record, StoreError> {
    let moment = |column| moment(get(row, column)?);
    let mut record = Record::new(
        digest(get(row, "digest")?)?,
        moment("created")?,
        moment("expires")?,
    );
    record.version = Version::new(get::<i64>(row, "version")?.cast_unsigned());
    if let Some(previous) = get(row, "previous_digest")? {
        record.previous = Some(Previous::new(digest(previous)?, moment("previous_until")?));
    }
    record.owner = get::<Option<&str>>(row, "owner")?.map(Into::into);
    if get::<Option<SystemTime>>(row, "authenticated")?.is_some() {
        record.authenticated = Some(moment("authenticated")?);
    }
    record.renewed = moment("renewed")?;
    record.seen = moment("seen")?;
    if let Some(idle) = get(row, "idle")? {
        let (idle, absolute) = (duration(idle)?, duration(get(row, "absolute")?)?);
        record.policy = Some(ExpiryPolicy::new(idle, absolute));
    }
    record.data = get::<&[u8]>(row, "data")?.into();
    Ok(record)
}

fn get<'a, T: FromSql<'a>>(row: &'a Row, column: &str) -> Result<T, StoreError> {
    row.try_get(column).map_err(StoreError::corrupt)
}

fn digest(bytes: &[u8]) -> Result<Digest, StoreError> {
    let bytes: [u8; 32] = bytes.try_into().map_err(StoreError::corrupt)?;
    Ok(Digest::from_bytes(bytes))
}

fn duration(millis: i64) -> Result<Duration, StoreError> {
    let millis = u64::try_from(millis).map_err(StoreError::corrupt)?;
    Ok(Duration::from_millis(millis))
}

/// A time as a `Timestamp`, if it is one: of whole milliseconds, from 1970 to 9999.
fn moment(time: SystemTime) -> Result<Timestamp, StoreError> {
    let moment = Timestamp::from(time);
    if SystemTime::from(moment) == time {
        Ok(moment)
    } else {
        Err(StoreError::corrupt(
            "a time is not from 1970 to 9999, in whole milliseconds",
        ))
    }
}

fn time(moment: Timestamp) -> SystemTime {
    moment.into()
}

/// As PostgreSQL has it, or else the largest that it has.
fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
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

/// All but the id, in the table's order.
const COLUMNS: &str = "version, digest, previous_digest, previous_until, owner, created, \
                       authenticated, renewed, seen, expires, idle, absolute, data";
const VALUES: &str = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14";

/// The statements, in the order of `Operation`.
fn statements(table: &str) -> [String; OPERATIONS] {
    let [t, revoked, update, sign_in, delete_by_owner] =
        ["", "_revoked", "_update", "_sign_in", "_delete_by_owner"]
            // Quoted because it may be a keyword.
            .map(|suffix| format!("\"{table}{suffix}\""));
    let excluded = COLUMNS
        .split(", ")
        .map(|column| format!("EXCLUDED.{column}"))
        .collect::<Vec<_>>()
        .join(", ");
    [
        format!(
            "INSERT INTO {t} AS old (id, {COLUMNS}) VALUES ({VALUES}) \
             ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({excluded}) WHERE old.expires <= $15"
        ),
        format!("SELECT {COLUMNS} FROM {t} WHERE id = $1 AND expires > $2"),
        format!("SELECT answer, (stored).* FROM {update}(ROW({VALUES})::{t}, $15, $16)"),
        format!(
            "SELECT answer, (stored).* FROM {sign_in}(ROW({VALUES})::{t}, $15, $16, $17, $18, $19)"
        ),
        format!(
            "UPDATE {t} SET expires = greatest(expires, $2), seen = greatest(seen, $3) \
             WHERE id = $1 AND expires > $3"
        ),
        format!("DELETE FROM {t} WHERE id = $1"),
        // Rows that somebody else is at are left to them: no instance waits for another. The arrays are
        // computed once, whatever the planner thinks.
        format!(
            "WITH forgotten AS (\
             DELETE FROM {revoked} WHERE ctid = ANY (ARRAY(\
             SELECT ctid FROM {revoked} WHERE at <= $3 LIMIT $2 FOR UPDATE SKIP LOCKED))) \
             DELETE FROM {t} WHERE id = ANY (ARRAY(\
             SELECT id FROM {t} WHERE expires <= $1 \
             ORDER BY expires LIMIT $2 FOR UPDATE SKIP LOCKED)) AND expires <= $1"
        ),
        format!("SELECT id, {COLUMNS} FROM {t} WHERE owner = $1 AND expires > $2"),
        format!("SELECT {delete_by_owner}($1, $2, $3) AS deleted"),
        format!(
            "DELETE FROM {t} WHERE id = ANY (ARRAY(SELECT id FROM {t} ORDER BY id FOR UPDATE))"
        ),
    ]
}

/// The connections, each looked after by a task.
struct Links {
    table: String,
    statements: [String; OPERATIONS],
    config: Config,
    links: Vec<watch::Receiver<State>>,
    next: AtomicUsize,
    /// End when this is dropped, and their connections with them.
    _tasks: JoinSet<()>,
}

#[derive(Clone)]
enum State {
    /// Broke, and is about to be made anew.
    Connecting,
    Up(Arc<Link>),
    /// Could not be made, and is tried again from time to time.
    Down(Arc<Problem>),
}

struct Link {
    client: Client,
    prepared: [OnceCell<Statement>; OPERATIONS],
}

impl Links {
    async fn connect(table: &str, number: usize, mut config: Config) -> Result<Self, Problem> {
        let starts_well = table.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_word = table.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !starts_well || !is_word || table.len() > 48 {
            return Err(Problem::Table(table.to_owned()));
        }
        if config.get_ssl_mode() == SslMode::Require {
            return Err(Problem::Tls);
        }
        if config.get_application_name().is_none() {
            config.application_name("cloakroom");
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(VANISHED);
        }
        // What waits for a lock has to see what was done under it.
        let options = config.get_options().unwrap_or_default();
        let options = format!(r"{options} -c default_transaction_isolation=read\ committed");
        config.options(options.trim_start());

        // The first one shows whether it works at all.
        let mut first = Some(connect(&config).await?);
        let mut tasks = JoinSet::new();
        let links = (0..number).map(|_| {
            let (sender, state) = watch::channel(State::Connecting);
            tasks.spawn(look_after(config.clone(), first.take(), sender));
            state
        });
        Ok(Self {
            table: table.to_owned(),
            statements: statements(table),
            links: links.collect(),
            config,
            next: AtomicUsize::new(0),
            _tasks: tasks,
        })
    }

    async fn execute(&self, operation: Operation, params: &[Param<'_>]) -> Result<u64, StoreError> {
        let (link, statement) = self.prepare(operation).await?;
        let done = link.client.execute(&statement, params).await;
        done.map_err(StoreError::new)
    }

    async fn query(
        &self,
        operation: Operation,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let (link, statement) = self.prepare(operation).await?;
        let rows = link.client.query(&statement, params).await;
        rows.map_err(StoreError::new)
    }

    async fn query_one(
        &self,
        operation: Operation,
        params: &[Param<'_>],
    ) -> Result<Row, StoreError> {
        let (link, statement) = self.prepare(operation).await?;
        let row = link.client.query_one(&statement, params).await;
        row.map_err(StoreError::new)
    }

    /// A connection that works, as far as one can know, and the statement on it.
    async fn prepare(&self, operation: Operation) -> Result<(Arc<Link>, Statement), StoreError> {
        loop {
            let link = self.link().await.map_err(StoreError::new)?;
            let prepared = link.prepared[operation as usize]
                .get_or_try_init(|| link.client.prepare(&self.statements[operation as usize]));
            match prepared.await {
                // Nothing was carried out yet: another connection will do.
                _ if link.client.is_closed() => {}
                Ok(statement) => {
                    let statement = statement.clone();
                    return Ok((link, statement));
                }
                Err(error) if is_missing(&error) => {
                    let table = self.table.clone();
                    return Err(StoreError::new(Problem::NotMigrated(table, error)));
                }
                Err(error) => return Err(StoreError::new(error)),
            }
        }
    }

    /// The next connection that is up, or else about to be.
    async fn link(&self) -> Result<Arc<Link>, Arc<Problem>> {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let links =
            (0..self.links.len()).map(|n| &self.links[first.wrapping_add(n) % self.links.len()]);
        let mut about_to_be = None;
        let mut problem = None;
        for link in links {
            match &*link.borrow() {
                State::Up(link) if !link.client.is_closed() => return Ok(Arc::clone(link)),
                State::Up(_) | State::Connecting => about_to_be = Some(link.clone()),
                State::Down(why) => problem = Some(Arc::clone(why)),
            }
        }
        if let Some(mut link) = about_to_be {
            let state = link
                .wait_for(|state| match state {
                    State::Up(link) => !link.client.is_closed(),
                    State::Connecting => false,
                    State::Down(_) => true,
                })
                .await;
            match state.as_deref() {
                Ok(State::Up(link)) => return Ok(Arc::clone(link)),
                Ok(State::Down(why)) => problem = Some(Arc::clone(why)),
                Ok(State::Connecting) | Err(_) => {}
            }
        }
        Err(problem.unwrap_or_else(|| Arc::new(Problem::Stopped)))
    }
}

type Connected = (Client, Connection<Socket, NoTlsStream>);

async fn connect(config: &Config) -> Result<Connected, Problem> {
    let limit = config.get_connect_timeout().copied().unwrap_or(CONNECT);
    let hosts = u32::try_from(config.get_hosts().len().max(1)).unwrap_or(u32::MAX);
    match timeout(limit.saturating_mul(hosts), config.connect(NoTls)).await {
        Ok(connected) => connected.map_err(|error| Problem::Connect(servers(config), Some(error))),
        Err(_) => Err(Problem::Connect(servers(config), None)),
    }
}

/// Keeps a connection up, until it is aborted.
async fn look_after(config: Config, mut first: Option<Connected>, sender: watch::Sender<State>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let connected = match first.take() {
            Some(first) => Ok(first),
            None => connect(&config).await,
        };
        match connected {
            Ok((client, connection)) => {
                let since = Instant::now();
                sender.send_replace(State::Up(Arc::new(Link {
                    client,
                    prepared: Default::default(),
                })));
                // Why it broke is told to the calls that it had taken.
                let _ = connection.await;
                sender.send_replace(State::Connecting);
                if since.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                    continue;
                }
            }
            Err(problem) => {
                sender.send_replace(State::Down(Arc::new(problem)));
            }
        }
        sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Three quarters of it to all of it, so that not all instances come back in the same moment.
fn jittered(pause: Duration) -> Duration {
    let mut random = [0];
    // Without random bytes they do, which is no harm.
    let _ = getrandom::fill(&mut random);
    pause - pause / 4 * u32::from(random[0]) / 255
}

/// The schema.
impl Links {
    /// On a connection of its own: this takes more than one statement.
    async fn migrate(&self) -> Result<(), Problem> {
        let (mut client, connection) = connect(&self.config).await?;
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await?;
        // Of all instances, and for all tables, since `cloakroom_schema` is there for all.
        let lock = "SELECT pg_advisory_xact_lock(hashtextextended('cloakroom_schema', 0))";
        transaction.batch_execute(lock).await?;
        if !self.is_migrated(&transaction).await? {
            let encoding = transaction.query_one("SHOW server_encoding", &[]).await?;
            let encoding: String = encoding.try_get(0)?;
            if encoding != "UTF8" {
                return Err(Problem::Encoding(encoding));
            }
            let tables = include_str!("postgres.sql").replace("sessions", &self.table);
            transaction.batch_execute(&tables).await?;
        }
        transaction.commit().await?;
        for statement in &self.statements {
            client
                .prepare(statement)
                .await
                .map_err(|error| Problem::Changed(self.table.clone(), error))?;
        }
        Ok(())
    }

    /// Whether the tables are there.
    async fn is_migrated(
        &self,
        transaction: &tokio_postgres::Transaction<'_>,
    ) -> Result<bool, Problem> {
        let exists = async |name: String| -> Result<bool, tokio_postgres::Error> {
            let exists = "SELECT to_regclass($1) IS NOT NULL";
            transaction.query_one(exists, &[&name]).await?.try_get(0)
        };
        let version = if exists("cloakroom_schema".to_owned()).await? {
            let version = "SELECT version FROM cloakroom_schema WHERE \"table\" = $1";
            transaction.query_opt(version, &[&self.table]).await?
        } else {
            None
        };
        match version.map(|row| row.try_get(0)).transpose()? {
            Some(SCHEMA) => Ok(true),
            Some(version) => Err(Problem::Version(self.table.clone(), version)),
            None if exists(format!("\"{}\"", self.table)).await? => {
                Err(Problem::Foreign(self.table.clone()))
            }
            None => Ok(false),
        }
    }
}

/// Whether a table or a function is not there.
fn is_missing(error: &tokio_postgres::Error) -> bool {
    [
        SqlState::UNDEFINED_TABLE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::UNDEFINED_OBJECT,
    ]
    .iter()
    .any(|missing| error.code() == Some(missing))
}

/// Where the configuration leads.
fn servers(config: &Config) -> String {
    let ports = config.get_ports();
    let mut servers = Vec::new();
    for (n, host) in config.get_hosts().iter().enumerate() {
        let port = ports.get(n).or(ports.first()).unwrap_or(&5432);
        servers.push(match host {
            Host::Tcp(host) => format!("{host}:{port}"),
            #[cfg(unix)]
            Host::Unix(folder) => format!("{}:{port}", folder.display()),
        });
    }
    servers.join(", ")
}

/// Why the store cannot be used.
#[derive(Debug)]
enum Problem {
    Table(String),
    Url(Option<tokio_postgres::Error>),
    Tls,
    Connect(String, Option<tokio_postgres::Error>),
    Stopped,
    NotMigrated(String, tokio_postgres::Error),
    Version(String, i32),
    Foreign(String),
    Rights(String, tokio_postgres::Error),
    Encoding(String),
    Changed(String, tokio_postgres::Error),
    Server(tokio_postgres::Error),
    Answer,
}

impl Problem {
    /// What the server forbids while the table is made or looked at has a remedy of its own.
    fn or_rights(self, table: &str) -> Self {
        match self {
            Self::Server(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Self::Rights(table.to_owned(), error)
            }
            other => other,
        }
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
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
                "this is no URL of a PostgreSQL server; write \
                 `postgres://user:password@host:port/database`, with special characters as `%40`",
            ),
            Self::Tls => f.write_str(
                "`sslmode=require` asks for TLS, which the PostgreSQL store does not have yet; use \
                 `sslmode=disable` over a Unix socket, a private network or a tunnel",
            ),
            Self::Connect(servers, Some(_)) => {
                write!(f, "cannot connect to the PostgreSQL server at `{servers}`")
            }
            Self::Connect(servers, None) => write!(
                f,
                "the PostgreSQL server at `{servers}` did not answer in time; see that it runs and can \
                 be reached, or give it longer with `connect_timeout`"
            ),
            Self::Stopped => f.write_str(
                "the runtime on which the PostgreSQL store was connected has ended; connect on the one \
                 that serves",
            ),
            Self::NotMigrated(table, _) => write!(
                f,
                "the table `{table}` or what belongs to it is not there; call \
                 `PostgresStore::migrate` first, or look at the `search_path`"
            ),
            Self::Version(table, version) => write!(
                f,
                "the table `{table}` has schema version {version}, and this release of cloakroom knows \
                 version {SCHEMA}; use the release that made it or a later one"
            ),
            Self::Foreign(table) => write!(
                f,
                "there is a table `{table}` already that cloakroom did not make; choose another name \
                 with `PostgresStoreBuilder::table`, or another database"
            ),
            Self::Rights(table, _) => write!(
                f,
                "this role may not make the table `{table}`, or not read `cloakroom_schema`; grant it \
                 the right to create in the schema and to read that table, or let the role that may \
                 run `postgres.sql`"
            ),
            Self::Encoding(encoding) => write!(
                f,
                "the database has the encoding `{encoding}`, which does not know every character; \
                 use one with `UTF8`"
            ),
            Self::Changed(table, _) => write!(
                f,
                "the table `{table}`, or what belongs to it, is not as cloakroom made it; compare it \
                 with `postgres.sql`"
            ),
            Self::Server(_) => f.write_str("the PostgreSQL server failed"),
            Self::Answer => f.write_str(
                "a function of the PostgreSQL store is not as cloakroom made it; compare it with \
                 `postgres.sql`",
            ),
        }
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(Some(error))
            | Self::Connect(_, Some(error))
            | Self::NotMigrated(_, error)
            | Self::Rights(_, error)
            | Self::Changed(_, error)
            | Self::Server(error) => Some(error),
            Self::Table(_)
            | Self::Url(None)
            | Self::Tls
            | Self::Connect(_, None)
            | Self::Stopped
            | Self::Version(..)
            | Self::Foreign(_)
            | Self::Encoding(_)
            | Self::Answer => None,
        }
    }
}
