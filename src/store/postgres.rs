//! Sessions in a PostgreSQL database.

mod links;
mod problem;
mod schema;
mod sql;
#[cfg(feature = "postgres-tls")]
mod tls;
// Says why there is none.
#[cfg(not(feature = "postgres-tls"))]
#[path = "postgres/no_tls.rs"]
mod tls;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio_postgres::config::Host;
use tokio_postgres::types::FromSql;
use tokio_postgres::{Config, Row};
use uuid::Uuid;

use self::links::{Links, Param};
use self::problem::Problem;
use self::sql::{Names, Operation};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};
use crate::token::Digest;

/// Values as a slice of `Param`.
macro_rules! params {
    ($($value:expr),*) => {
        &[$(&$value as Param<'_>),*][..]
    };
}

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
/// first try to connect, and fail with its error once it has failed. One on which the server refuses to
/// write, as it does after a failover to another server, is replaced in the same way, and used until
/// then. The connections live on the runtime on which [`connect`](Self::connect) was called.
///
/// A pooler between this store and the server must give each connection a server process of its own (in
/// PgBouncer's words, session pooling), unless the store is told about it with
/// [`transaction_pooling`](PostgresStoreBuilder::transaction_pooling).
///
/// # Encryption
///
/// It takes the feature `postgres-tls`, and depends on the URL's `sslmode`:
///
/// | `sslmode` | With the feature | Without |
/// |---|---|---|
/// | `disable` | no TLS | no TLS |
/// | `prefer`, the default | TLS if the server offers it, which somebody on the way can prevent | no TLS |
/// | `require`, `verify-full` | TLS, or no connection | an error |
///
/// Where there is TLS, the server's certificate has to be valid, for the name of the host in the URL, and
/// from an authority that this machine trusts; or from
/// [`root_certificates`](PostgresStoreBuilder::root_certificates), or as
/// [`tls`](PostgresStoreBuilder::tls) says. Unlike `libpq`, the store has no mode which encrypts and does
/// not look at the certificate.
///
/// # Tables
///
/// [`migrate`](Self::migrate) makes them; `src/store/postgres.sql` has them for those who run their own
/// migrations. They are made and found by the connection's `search_path`, unless a
/// [`schema`](PostgresStoreBuilder::schema) is set. Ids are of type `uuid`, times `timestamptz`, digests
/// and data `bytea`.
///
/// Expired sessions stay until a [`Cleaner`](crate::Cleaner) removes them.
#[derive(Clone)]
pub struct PostgresStore(Arc<Links>);

impl PostgresStore {
    /// Connects to the server that the URL names: `postgres://user:password@host:port/database`.
    ///
    /// The URL may have the options that [`tokio_postgres::Config`] knows, such as
    /// `?connect_timeout=2`, and `sslmode=verify-full`.
    ///
    /// # Errors
    ///
    /// The URL is none, or the server cannot be reached or refuses;
    /// [`source`](std::error::Error::source) says which, and how to mend it.
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
            names: Names {
                schema: None,
                table: "sessions".to_owned(),
            },
            connections: 2,
            transaction_pooling: false,
            trust: tls::Trust::default(),
        }
    }

    /// Makes the tables if they are not there, and the schema if one is set, and sees whether they are as
    /// they should be.
    ///
    /// Safe to call whenever the service starts, also if many instances start at once.
    ///
    /// # Errors
    ///
    /// The server cannot be reached or refuses, or there are tables of the same name that are not this
    /// store's or are of a later release; [`source`](std::error::Error::source) says which, and how to mend it.
    pub async fn migrate(&self) -> Result<(), StoreError> {
        let migrated = self.0.migrate().await;
        migrated.map_err(|problem| StoreError::new(problem.or_rights(&self.0.names)))
    }
}

impl PostgresStore {
    /// Removes up to `limit` of the sessions that have expired, from this time on; how many, and the last
    /// time at which one had expired.
    async fn sweep(
        &self,
        from: Option<SystemTime>,
        now: Timestamp,
        limit: usize,
    ) -> Result<(usize, SystemTime), StoreError> {
        let forgotten = now.as_millis().saturating_sub(REVOKED_FOR);
        let forgotten = time(Timestamp::from_millis(forgotten));
        let (now, limit) = (time(now), integer(limit));
        let params = params![now, limit, forgotten, from];
        let row = self.0.query_one(Operation::DeleteExpired, params).await?;
        let deleted = count(get::<i64>(&row, "deleted")?.cast_unsigned())?;
        Ok((deleted, get(&row, "until")?))
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
///     .schema("web")
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
    names: Names,
    connections: usize,
    transaction_pooling: bool,
    trust: tls::Trust,
}

impl PostgresStoreBuilder {
    /// The schema in which the tables are, whatever the `search_path`: 1 to 63 letters of ASCII, digits
    /// and `_`, no digit first, and not `pg_`.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.names.schema = Some(name.into());
        self
    }

    /// The name of the table, in place of `sessions`: 1 to 48 letters of ASCII, digits and `_`, no
    /// digit first. The names of the store's other table, its indexes and its functions begin with it.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.names.table = name.into();
        self
    }

    /// How many connections to keep; 0 counts as 1. The default is 2. More than 4 seldom help.
    pub fn connections(mut self, number: usize) -> Self {
        self.connections = number;
        self
    }

    /// Makes the store fit for a pooler that gives each transaction whichever server process is free, as
    /// PgBouncer does with `pool_mode = transaction`.
    ///
    /// Nothing is then left on a connection: no statement is prepared, so the server plans each one again.
    /// A call is one trip, the first one too. The role's `default_transaction_isolation` has to be
    /// `read committed`, as it is unless somebody changed it. Set a [`schema`](Self::schema) if others
    /// behind the same pooler set the `search_path`.
    pub fn transaction_pooling(mut self) -> Self {
        self.transaction_pooling = true;
        self
    }

    /// Accepts certificates from the authorities in this PEM text, and from no others.
    ///
    /// With it, connections are encrypted as if the URL said `sslmode=require`, unless it says
    /// `sslmode=disable`.
    ///
    /// ```no_run
    /// use cloakroom::PostgresStore;
    ///
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let store = PostgresStore::builder()
    ///     .root_certificates(std::fs::read("/etc/ssl/db-ca.pem")?)
    ///     .connect("postgres://app:secret@db.internal/app")
    ///     .await?;
    /// # drop(store);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "postgres-tls")]
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.trust = tls::Trust::Roots(pem.into());
        self
    }

    /// Encrypts as `config` says, in place of [`root_certificates`](Self::root_certificates): with a
    /// certificate of the client, for example.
    ///
    /// With it, connections are encrypted as if the URL said `sslmode=require`, unless it says
    /// `sslmode=disable`.
    #[cfg(feature = "postgres-tls")]
    pub fn tls(mut self, config: rustls::ClientConfig) -> Self {
        self.trust = tls::Trust::Config(Box::new(config));
        self
    }

    /// As [`PostgresStore::connect`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect`]; or a setting is not as it has to be.
    pub async fn connect(&self, url: &str) -> Result<PostgresStore, StoreError> {
        let config = parse(url).map_err(StoreError::new)?;
        self.connect_with(config).await
    }

    /// As [`PostgresStore::connect_with`].
    ///
    /// # Errors
    ///
    /// As [`PostgresStore::connect_with`]; or a setting is not as it has to be.
    pub async fn connect_with(&self, config: Config) -> Result<PostgresStore, StoreError> {
        let links = Links::connect(self, config).await;
        links
            .map(|links| PostgresStore(Arc::new(links)))
            .map_err(StoreError::new)
    }
}

/// How long a revocation is remembered, in milliseconds: longer than any sign-in is under way.
const REVOKED_FOR: u64 = 60 * 60 * 1000;

fn parse(url: &str) -> Result<Config, Problem> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| url.starts_with(scheme));
    if !is_url {
        return Err(Problem::Url(None));
    }
    // It always is, where TLS is required.
    let url = url.replace("sslmode=verify-full", "sslmode=require");
    let config: Config = url.parse().map_err(|error| {
        // With one `@`, what is behind it is no password, and the parser's message may quote it.
        let quotes_no_secret = url.matches('@').count() == 1 && !url.contains("password");
        Problem::Url(quotes_no_secret.then_some(error))
    })?;
    // The end of a password with an `@` of its own: hosts are in messages.
    let is_secret = |host: &Host| matches!(host, Host::Tcp(host) if host.contains('@'));
    if config.get_hosts().iter().any(is_secret) {
        return Err(Problem::Url(None));
    }
    Ok(config)
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
        // Deleted rows stay in the index until it is vacuumed. After a full batch the next one begins where
        // that ended, so as not to walk past all of them each time.
        let from = self.0.take_swept();
        let (mut deleted, mut until) = self.sweep(from, now, limit).await?;
        if from.is_some() && deleted < limit {
            let (more, last) = self.sweep(None, now, limit - deleted).await?;
            (deleted, until) = (deleted + more, last);
        }
        if deleted == limit {
            self.0.set_swept(until);
        }
        Ok(deleted)
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
