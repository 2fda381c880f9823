//! Sessions in an SQLite database.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Params, Row, Transaction,
    TransactionBehavior, params,
};
use tokio::sync::oneshot;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};
use crate::token::Digest;

/// Keeps sessions in an SQLite database: a file, or this process's memory.
///
/// SQLite is built in; there is nothing to install or to run. Sessions in a file outlive the
/// process. Clones share one store, and several processes of a machine can share a file. A file that
/// is new can be read by its user alone.
///
/// ```
/// use cloakroom::{SessionLayer, SqliteStore};
///
/// # let folder = std::env::temp_dir().join(format!("cloakroom-doc-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let path = folder.join("sessions.db");
/// let layer = SessionLayer::new(SqliteStore::open(path)?);
/// # drop(layer);
/// # std::fs::remove_dir_all(folder)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Threads
///
/// A thread of its own writes: it takes all writes that wait and commits them in one transaction, so
/// that they share one flush to the disk. A few others read, and are never held up by a write (the
/// database is in WAL mode). They end when the last clone is dropped, which waits for the writes that
/// are under way.
///
/// # Durability
///
/// A write that was answered survives a crash of the process, always; and a crash of the machine or a
/// power cut unless [`synchronous`](SqliteStoreBuilder::synchronous) says otherwise.
///
/// # Place
///
/// The file must be on a local disk: WAL mode does not work over a network file system. SQLite keeps
/// two more files beside it while it is in use, `-wal` and `-shm`, so the process needs the right to
/// write the folder. A database has one writer at a time: sessions do best in a file of their own.
///
/// The tables are made when they are not there; `src/store/sqlite.sql` has them for those who run
/// their own migrations.
#[derive(Clone)]
pub struct SqliteStore(Arc<Threads>);

impl SqliteStore {
    /// Opens the database in a file, and makes it if it does not exist.
    ///
    /// Blocks while it works on the file, so call it when the service starts.
    ///
    /// # Errors
    ///
    /// The file cannot be used, or has tables of the same name that are not this store's or are of a
    /// later release; [`source`](StdError::source) says which, and how to mend it.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        Self::builder().open(path)
    }

    /// A new database in memory, which ends with the store.
    ///
    /// # Errors
    ///
    /// The operating system gives no thread.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::builder().in_memory()
    }

    /// Sets other than the defaults.
    pub fn builder() -> SqliteStoreBuilder {
        SqliteStoreBuilder {
            table: "sessions".to_owned(),
            synchronous: Synchronous::Full,
        }
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

/// What a committed write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Synchronous {
    /// A power cut: each commit waits until it is on the disk.
    Full,
    /// A crash of the process, but the last moments before a power cut or a crash of the machine may
    /// be undone, **logouts too**. The database stays whole.
    Normal,
}

/// Settings of a [`SqliteStore`].
///
/// ```
/// use cloakroom::{SqliteStore, Synchronous};
///
/// let builder = SqliteStore::builder()
///     .table("admin_sessions")
///     .synchronous(Synchronous::Normal);
/// let store = builder.in_memory()?;
/// # drop(store);
/// # Ok::<(), cloakroom::store::StoreError>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `open` or `in_memory` is called"]
pub struct SqliteStoreBuilder {
    table: String,
    synchronous: Synchronous,
}

impl SqliteStoreBuilder {
    /// The name of the table, in place of `sessions`: 1 to 63 letters of ASCII, digits and `_`, no
    /// digit first. The store's other table and its indexes begin with it.
    pub fn table(mut self, name: impl Into<String>) -> Self {
        self.table = name.into();
        self
    }

    /// What a committed write survives. The default is [`Synchronous::Full`].
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// As [`SqliteStore::open`].
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::open`]; or the table's name is not one.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        let path = path.as_ref();
        if path.as_os_str().is_empty() || path.as_os_str() == ":memory:" {
            // SQLite would take them for a database of each connection's own.
            let message = format!(
                "`{}` names no file; for a database in memory use `in_memory`",
                path.display()
            );
            return Err(StoreError::new(message));
        }
        let sql = Arc::new(Sql::new(&self.table)?);
        let writer = self
            .open_file(path, &sql)
            .map_err(|problem| problem.at(path))?;
        let readers = (0..readers())
            .map(|_| open_reader(path, &sql))
            .collect::<Result<_, _>>()
            .map_err(|error| Problem::Sqlite(error).at(path))?;
        Threads::spawn(writer, readers)
    }

    /// As [`SqliteStore::in_memory`].
    ///
    /// # Errors
    ///
    /// As [`SqliteStore::in_memory`]; or the table's name is not one.
    pub fn in_memory(&self) -> Result<SqliteStore, StoreError> {
        let sql = Arc::new(Sql::new(&self.table)?);
        let here = Path::new(":memory:");
        let db = Connection::open_in_memory()
            .map_err(Problem::from)
            .and_then(|connection| {
                let db = Db::new(connection, sql);
                db.migrate()?;
                Ok(db)
            })
            .map_err(|problem| problem.at(here))?;
        Threads::spawn(db, Vec::new())
    }

    fn open_file(&self, path: &Path, sql: &Arc<Sql>) -> Result<Db, Problem> {
        let is_new = !path.exists();
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        if is_new {
            // Before there is anything in it; the files beside it get the same mode.
            make_private(path).map_err(Problem::Private)?;
        }
        connection.busy_timeout(BUSY)?;
        let db = Db::new(connection, Arc::clone(sql));
        // First, so that a database which is somebody else's is left as it is.
        let snapshot = db.connection.unchecked_transaction()?;
        db.is_migrated()?;
        drop(snapshot);
        db.use_wal()?;
        let synchronous = match self.synchronous {
            Synchronous::Full => "FULL",
            Synchronous::Normal => "NORMAL",
        };
        db.connection
            .pragma_update(None, "synchronous", synchronous)?;
        // On macOS the disk keeps what it was sent in its own cache unless it is told otherwise.
        let to_the_disk = self.synchronous == Synchronous::Full;
        db.connection
            .pragma_update(None, "fullfsync", to_the_disk)?;
        db.migrate()?;
        Ok(db)
    }
}

/// How long to wait for another process that writes.
const BUSY: Duration = Duration::from_secs(5);

/// The version of the tables in `sqlite.sql`.
const SCHEMA: i64 = 1;

/// How long a revocation is remembered, in milliseconds: longer than any sign-in is under way.
const REVOKED_FOR: i64 = 60 * 60 * 1000;

fn readers() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}

fn open_reader(path: &Path, sql: &Arc<Sql>) -> rusqlite::Result<Db> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    Ok(Db::new(connection, Arc::clone(sql)))
}

#[cfg(unix)]
fn make_private(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn make_private(_: &Path) -> std::io::Result<()> {
    Ok(())
}

impl SessionStore for SqliteStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        let record = record.clone();
        self.0.write(move |db| db.create(id, &record, now)).await
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.0.read(move |db| db.load(id, now)).await
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let record = record.clone();
        self.0
            .write(move |db| db.update(id, &record, expected, now))
            .await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let record = record.clone();
        self.0
            .write(move |db| db.wholly(|| db.sign_in(id, &record, expected, admission, now)))
            .await
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0.write(move |db| db.touch(id, expires, now)).await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.0.write(move |db| db.delete(id)).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.0
            .write(move |db| db.wholly(|| db.delete_expired(now, limit)))
            .await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let owner = owner.to_owned();
        self.0.read(move |db| db.list_by_owner(&owner, now)).await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let owner = owner.to_owned();
        self.0
            .write(move |db| db.wholly(|| db.delete_by_owner(&owner, keep, now)))
            .await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        self.0.write(|db| db.execute(&db.sql.delete_all, [])).await
    }
}

/// The statements, with the table's name in them.
struct Sql {
    table: String,
    create: String,
    load: String,
    update: String,
    touch: String,
    delete: String,
    delete_expired: String,
    list: String,
    delete_by_owner: String,
    delete_all: String,
    count_others: String,
    evict: String,
    revoke: String,
    is_revoked: String,
    forget_revoked: String,
}

/// All but the id, in the order in which they are bound and read.
const COLUMNS: &str = "version, digest, previous_digest, previous_until, owner, created, \
                       authenticated, renewed, seen, expires, idle, absolute, data";
const VALUES: &str = "?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14";

impl Sql {
    fn new(table: &str) -> Result<Self, StoreError> {
        let starts_well = table.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let is_word = table.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let reserved = table.len() >= 7 && table.is_char_boundary(7) && {
            table[..7].eq_ignore_ascii_case("sqlite_")
        };
        if !starts_well || !is_word || table.len() > 63 || reserved {
            let message = format!(
                "{table:?} is no name for a table; use 1 to 63 ASCII letters, digits and `_`, no \
                 digit first, and not `sqlite_`"
            );
            return Err(StoreError::new(message));
        }
        // What an update stores. Of `seen` and `expires` it keeps those of a touch that came in since the record
        // was loaded.
        let touched = "?10 < ?15 AND ?10 < seen";
        let merged = VALUES.replace(
            "?10, ?11",
            &format!("iif({touched}, seen, ?10), iif({touched}, max(expires, ?11), ?11)"),
        );
        // Quoted because it may be a keyword.
        let t = format!("\"{table}\"");
        let revoked = format!("\"{table}_revoked\"");
        Ok(Self {
            table: table.to_owned(),
            create: format!(
                "INSERT INTO {t} (id, {COLUMNS}) VALUES (?1, {VALUES}) \
                 ON CONFLICT (id) DO UPDATE SET ({COLUMNS}) = ({VALUES}) WHERE {t}.expires <= ?15"
            ),
            load: format!("SELECT {COLUMNS} FROM {t} WHERE id = ?1 AND expires > ?2"),
            update: format!(
                "UPDATE {t} SET ({COLUMNS}) = ({merged}) \
                 WHERE id = ?1 AND expires > ?15 AND version = ?16"
            ),
            touch: format!(
                "UPDATE {t} SET expires = max(expires, ?2), seen = max(seen, ?3) \
                 WHERE id = ?1 AND expires > ?3"
            ),
            delete: format!("DELETE FROM {t} WHERE id = ?1"),
            delete_expired: format!(
                "DELETE FROM {t} WHERE id IN (SELECT id FROM {t} WHERE expires <= ?1 LIMIT ?2)"
            ),
            list: format!("SELECT {COLUMNS}, id FROM {t} WHERE owner = ?1 AND expires > ?2"),
            delete_by_owner: format!(
                "DELETE FROM {t} WHERE owner = ?1 AND id <> ?2 RETURNING expires > ?3"
            ),
            delete_all: format!("DELETE FROM {t}"),
            count_others: format!(
                "SELECT count(*) FROM {t} WHERE owner = ?1 AND id <> ?2 AND expires > ?3"
            ),
            evict: format!(
                "DELETE FROM {t} WHERE id IN (\
                 SELECT id FROM {t} WHERE owner = ?1 AND id <> ?2 AND expires > ?3 \
                 ORDER BY authenticated, id LIMIT ?4)"
            ),
            // By a clock that is behind, an earlier time may come later.
            revoke: format!(
                "INSERT INTO {revoked} (owner, kept, at) VALUES (?1, ?2, ?3) \
                 ON CONFLICT (owner, kept) DO UPDATE SET at = max(at, ?3)"
            ),
            is_revoked: format!(
                "SELECT EXISTS (\
                 SELECT 1 FROM {revoked} WHERE owner = ?1 AND kept <> ?2 AND at >= ?3)"
            ),
            forget_revoked: format!(
                "DELETE FROM {revoked} WHERE (owner, kept) IN (\
                 SELECT owner, kept FROM {revoked} WHERE at <= ?1 LIMIT ?2)"
            ),
        })
    }

    fn all(&self) -> [&str; 14] {
        [
            &self.create,
            &self.load,
            &self.update,
            &self.touch,
            &self.delete,
            &self.delete_expired,
            &self.list,
            &self.delete_by_owner,
            &self.delete_all,
            &self.count_others,
            &self.evict,
            &self.revoke,
            &self.is_revoked,
            &self.forget_revoked,
        ]
    }
}

/// A connection, on the thread that works with it.
struct Db {
    connection: Connection,
    sql: Arc<Sql>,
}

/// What a session does with the database. Each method that writes runs in a transaction.
impl Db {
    fn new(connection: Connection, sql: Arc<Sql>) -> Self {
        // Room for all statements.
        connection.set_prepared_statement_cache_capacity(32);
        Self { connection, sql }
    }

    fn create(&self, id: SessionId, record: &Record, now: Timestamp) -> Result<Create, StoreError> {
        Ok(match self.put(&self.sql.create, id, record, now, None)? {
            0 => Create::Taken,
            _ => Create::Done,
        })
    }

    fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let found = self.select(&self.sql.load, params![id.as_bytes(), millis(now)], decode)?;
        Ok(found.into_iter().next())
    }

    fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        if self.put(&self.sql.update, id, record, now, Some(expected))? > 0 {
            return Ok(Update::Done);
        }
        Ok(self.load(id, now)?.map_or(Update::Gone, Update::Conflict))
    }

    fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        match (self.load(id, now)?, expected) {
            (None, Some(_)) => return Ok(SignIn::Gone),
            (Some(_), None) => return Ok(SignIn::Taken),
            (Some(current), Some(expected)) if current.version != expected => {
                return Ok(SignIn::Conflict(current));
            }
            _ => {}
        }
        let owner = record.owner.as_deref();
        let began = millis(admission.began);
        if self.number(&self.sql.is_revoked, params![owner, id.as_bytes(), began])? != 0 {
            return Ok(SignIn::Revoked);
        }
        if let Some(limit) = admission.limit {
            let others = params![owner, id.as_bytes(), millis(now)];
            let others = self.number(&self.sql.count_others, others)?;
            let surplus = others.saturating_sub(integer(limit.max.get() - 1));
            if surplus > 0 && limit.when_full == WhenFull::Refuse {
                return Ok(SignIn::Full);
            }
            if surplus > 0 {
                let oldest = params![owner, id.as_bytes(), millis(now), surplus];
                self.execute(&self.sql.evict, oldest)?;
            }
        }
        let statement = match expected {
            None => &self.sql.create,
            Some(_) => &self.sql.update,
        };
        self.put(statement, id, record, now, expected)?;
        Ok(SignIn::Done)
    }

    fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let touch = params![id.as_bytes(), millis(expires), millis(now)];
        Ok(self.execute(&self.sql.touch, touch)? > 0)
    }

    fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.execute(&self.sql.delete, params![id.as_bytes()])? > 0)
    }

    fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let (now, limit) = (millis(now), integer(limit));
        self.execute(&self.sql.forget_revoked, params![now - REVOKED_FOR, limit])?;
        self.execute(&self.sql.delete_expired, params![now, limit])
    }

    fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let listed = self.select(&self.sql.list, params![owner, millis(now)], |row| {
            let id = row.get("id").map_err(StoreError::corrupt);
            let read = id.and_then(|id| Ok((SessionId::from_bytes(id), decode(row)?)));
            // A damaged one is nobody's session.
            Ok(match read {
                Err(error) if error.is_corrupt() => None,
                read => Some(read?),
            })
        });
        Ok(listed?.into_iter().flatten().collect())
    }

    fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let keep = keep.as_ref().map_or(&[][..], |id| id.as_bytes());
        let now = millis(now);
        self.execute(&self.sql.revoke, params![owner, keep, now])?;
        let gone = params![owner, keep, now];
        let gone = self.select(&self.sql.delete_by_owner, gone, |row| {
            row.get(0).map_err(StoreError::new)
        })?;
        Ok(gone.into_iter().filter(|is_live: &bool| *is_live).count())
    }

    /// Runs `create` or `update`, which have the same parameters.
    fn put(
        &self,
        statement: &str,
        id: SessionId,
        record: &Record,
        now: Timestamp,
        expected: Option<Version>,
    ) -> Result<usize, StoreError> {
        let previous = record.previous.as_ref();
        let policy = record.policy.as_ref();
        let values = params![
            id.as_bytes(),
            record.version.get().cast_signed(),
            record.digest.as_bytes(),
            previous.map(|previous| previous.digest.as_bytes()),
            previous.map(|previous| millis(previous.until)),
            record.owner.as_deref(),
            millis(record.created),
            record.authenticated.map(millis),
            millis(record.renewed),
            millis(record.seen),
            millis(record.expires),
            policy.map(|policy| integer(policy.idle.as_millis())),
            policy.map(|policy| integer(policy.absolute.as_millis())),
            &*record.data,
            millis(now),
        ];
        match expected {
            None => self.execute(statement, values),
            Some(expected) => {
                let expected = expected.get().cast_signed();
                self.execute(statement, &[values, params![expected]].concat()[..])
            }
        }
    }

    /// Undoes `work` if it fails half-way, and nothing else that the transaction did.
    fn wholly<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.execute("SAVEPOINT one", [])?;
        let done = work();
        if done.is_err() && self.execute("ROLLBACK TO one", []).is_err() {
            // It must not be committed, so nothing is.
            let _ = self.execute("ROLLBACK", []);
        } else {
            self.execute("RELEASE one", [])?;
        }
        done
    }

    fn execute(&self, statement: &str, params: impl Params) -> Result<usize, StoreError> {
        self.try_execute(statement, params).map_err(StoreError::new)
    }

    fn try_execute(&self, statement: &str, params: impl Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(statement)?.execute(params)
    }

    fn number(&self, statement: &str, params: impl Params) -> Result<i64, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(statement)
            .map_err(StoreError::new)?;
        statement
            .query_row(params, |row| row.get(0))
            .map_err(StoreError::new)
    }

    /// The rows that a statement finds.
    fn select<T>(
        &self,
        statement: &str,
        params: impl Params,
        read: impl Fn(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(statement)
            .map_err(StoreError::new)?;
        let mut rows = statement.query(params).map_err(StoreError::new)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(StoreError::new)? {
            found.push(read(row)?);
        }
        Ok(found)
    }

    /// Runs the jobs in one transaction.
    fn commit(&self, jobs: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
        // Locks at once: what a job reads stays true until it has written, in all processes.
        self.try_execute("BEGIN IMMEDIATE", [])?;
        for job in jobs {
            job.run(self);
            if self.connection.is_autocommit() {
                // A full disk, for example, undoes the whole transaction, and `COMMIT` will say so.
                break;
            }
        }
        let committed = self.try_execute("COMMIT", []);
        if committed.is_err() && !self.connection.is_autocommit() {
            let _ = self.try_execute("ROLLBACK", []);
        }
        committed.map(drop)
    }
}

/// The schema.
impl Db {
    /// Whether the tables are there. To be asked in a transaction, as it takes several statements.
    fn is_migrated(&self) -> Result<bool, Problem> {
        let table = &self.sql.table;
        let exists = |name: &str| {
            self.connection.query_row(
                "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = ?1 COLLATE NOCASE)",
                [name],
                |row| row.get::<_, bool>(0),
            )
        };
        let version = if exists("cloakroom_schema")? {
            self.connection
                .query_row(
                    "SELECT version FROM cloakroom_schema WHERE \"table\" = ?1",
                    [table],
                    |row| row.get::<_, i64>(0),
                )
                .optional()?
        } else {
            None
        };
        match version {
            Some(SCHEMA) => Ok(true),
            Some(version) => Err(Problem::Version(table.clone(), version)),
            None if exists(table)? => Err(Problem::Foreign(table.clone())),
            None => Ok(false),
        }
    }

    /// Makes the tables if they are not there, and sees whether they are as they should be.
    fn migrate(&self) -> Result<(), Problem> {
        let immediate = TransactionBehavior::Immediate;
        let transaction = Transaction::new_unchecked(&self.connection, immediate)?;
        // Another process may have been faster.
        if !self.is_migrated()? {
            let tables = include_str!("sqlite.sql").replace("sessions", &self.sql.table);
            transaction.execute_batch(&tables)?;
        }
        transaction.commit()?;
        for statement in self.sql.all() {
            self.connection
                .prepare_cached(statement)
                .map_err(|error| Problem::Changed(self.sql.table.clone(), error))?;
        }
        Ok(())
    }

    /// Puts the database into WAL mode, where it stays.
    fn use_wal(&self) -> Result<(), Problem> {
        let mode = |pragma| {
            self.connection
                .query_row(pragma, [], |row| row.get::<_, String>(0))
        };
        let until = Instant::now() + BUSY;
        loop {
            let changed = mode("PRAGMA journal_mode = WAL");
            match changed {
                Ok(mode) if mode == "wal" => return Ok(()),
                Ok(_) => return Err(Problem::NoWal),
                // For this lock SQLite itself does not wait.
                Err(error) if is(&error, ErrorCode::DatabaseBusy) && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(10));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Reads the `COLUMNS`.
fn decode(row: &Row<'_>) -> Result<Record, StoreError> {
    record(row).map_err(StoreError::corrupt)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let digest = |column| row.get(column).map(Digest::from_bytes);
    let time = |column| row.get(column).map(Millis::timestamp);
    let mut record = Record::new(digest("digest")?, time("created")?, time("expires")?);
    record.version = Version::new(row.get::<_, i64>("version")?.cast_unsigned());
    if let Some(previous) = row.get("previous_digest")? {
        let until = time("previous_until")?;
        record.previous = Some(Previous::new(Digest::from_bytes(previous), until));
    }
    record.owner = row.get("owner")?;
    record.authenticated = row
        .get::<_, Option<_>>("authenticated")?
        .map(Millis::timestamp);
    record.renewed = time("renewed")?;
    record.seen = time("seen")?;
    if let Some(Millis(idle)) = row.get("idle")? {
        let Millis(absolute) = row.get("absolute")?;
        let [idle, absolute] = [idle, absolute].map(Duration::from_millis);
        record.policy = Some(ExpiryPolicy::new(idle, absolute));
    }
    record.data = row.get::<_, Arc<[u8]>>("data")?.into();
    Ok(record)
}

/// A number of milliseconds as it is in a column; less than none is refused.
struct Millis(u64);

impl Millis {
    fn timestamp(self) -> Timestamp {
        Timestamp::from_millis(self.0)
    }
}

impl FromSql for Millis {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        match u64::try_from(number) {
            Ok(millis) => Ok(Self(millis)),
            Err(_) => Err(FromSqlError::OutOfRange(number)),
        }
    }
}

fn millis(time: Timestamp) -> i64 {
    time.as_millis().cast_signed()
}

/// As SQLite has it, or else the largest that it has.
fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// The connections, each on a thread of its own.
struct Threads {
    // Dropped first, so that the writer closes the last connection, which tidies the file up.
    readers: Option<Pool>,
    writer: Pool,
}

impl Threads {
    /// Without readers the writer reads as well: a database in memory has one connection.
    fn spawn(writer: Db, readers: Vec<Db>) -> Result<SqliteStore, StoreError> {
        let write = |db: &Db, mut jobs: Vec<Box<dyn Job>>| {
            let committed = db.commit(&mut jobs).map_err(Arc::new);
            for job in jobs {
                job.answer(committed.clone());
            }
        };
        let read = |db: &Db, jobs: Vec<Box<dyn Job>>| {
            for mut job in jobs {
                job.run(db);
                job.answer(Ok(()));
            }
        };
        let writer = Pool::spawn("cloakroom-write", vec![writer], usize::MAX, write)?;
        let readers = match readers.is_empty() {
            true => None,
            false => Some(Pool::spawn("cloakroom-read", readers, 1, read)?),
        };
        Ok(SqliteStore(Arc::new(Self { readers, writer })))
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    {
        self.writer.run(work).await
    }

    async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    {
        self.readers
            .as_ref()
            .unwrap_or(&self.writer)
            .run(work)
            .await
    }
}

/// Threads that take jobs from one queue. Dropping it waits until they have done them all.
struct Pool {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn spawn(
        name: &str,
        dbs: Vec<Db>,
        at_once: usize,
        work: impl Fn(&Db, Vec<Box<dyn Job>>) + Copy + Send + 'static,
    ) -> Result<Self, StoreError> {
        let mut pool = Self {
            queue: Arc::default(),
            threads: Vec::new(),
        };
        for db in dbs {
            let queue = Closing(Arc::clone(&pool.queue));
            let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
                while let Some(jobs) = queue.0.take(at_once) {
                    work(&db, jobs);
                }
            });
            pool.threads.push(thread.map_err(StoreError::new)?);
        }
        Ok(pool)
    }

    async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Db) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.queue.push(Box::new(Call {
            work: Some(work),
            outcome: None,
            reply,
        }));
        answer
            .await
            .unwrap_or_else(|_| Err(StoreError::new("a thread of the SQLite store has panicked")))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.queue.close();
        for thread in self.threads.drain(..) {
            // A panic has been reported, to the standard error and to the callers.
            let _ = thread.join();
        }
    }
}

/// The jobs that wait for a thread.
#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Box<dyn Job>>,
    closed: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A closed queue drops the job, which its caller notices.
    fn push(&self, job: Box<dyn Job>) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.jobs.push_back(job);
            drop(waiting);
            self.changed.notify_one();
        }
    }

    /// Waits for jobs and takes as many as there are, `most` at most; none once the queue is closed
    /// and empty.
    fn take(&self, most: usize) -> Option<Vec<Box<dyn Job>>> {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() {
            if waiting.closed {
                return None;
            }
            waiting = self
                .changed
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = most.min(waiting.jobs.len());
        Some(waiting.jobs.drain(..count).collect())
    }

    fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Closes the queue when its thread ends, and drops the jobs that are left if that was a panic: no
/// caller waits for a thread that is gone.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
        if thread::panicking() {
            self.0.lock().jobs.clear();
        }
    }
}

/// Work for a connection, and the caller who waits for its outcome.
trait Job: Send {
    /// Does the work, unless the caller has gone.
    fn run(&mut self, db: &Db);

    /// Tells the caller the outcome, which counts if it was committed.
    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Call<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnOnce(&Db) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, db: &Db) {
        if !self.reply.is_closed() {
            self.outcome = self.work.take().map(|work| work(db));
        }
    }

    fn answer(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let outcome = match (self.outcome, committed) {
            (Some(outcome), Ok(())) => outcome,
            // Says more than that the transaction could not be committed.
            (Some(Err(error)), Err(_)) => Err(error),
            (_, Err(error)) => Err(StoreError::new(error)),
            (None, Ok(())) => return,
        };
        // The caller may have gone meanwhile.
        let _ = self.reply.send(outcome);
    }
}

/// Why a database cannot be used.
#[derive(Debug)]
enum Problem {
    Sqlite(rusqlite::Error),
    Private(std::io::Error),
    NoWal,
    Version(String, i64),
    Foreign(String),
    Changed(String, rusqlite::Error),
}

impl Problem {
    fn at(self, path: &Path) -> StoreError {
        StoreError::new(Unusable {
            path: path.to_owned(),
            problem: self,
        })
    }
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

fn is(error: &rusqlite::Error, code: ErrorCode) -> bool {
    error.sqlite_error_code() == Some(code)
}

/// The problem, and the file that has it.
#[derive(Debug)]
struct Unusable {
    path: PathBuf,
    problem: Problem,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.problem {
            Problem::Sqlite(error) if is(error, ErrorCode::NotADatabase) => write!(
                f,
                "`{path}` is not an SQLite database; name another file, or move it away"
            ),
            Problem::Sqlite(error) if is(error, ErrorCode::DatabaseBusy) => write!(
                f,
                "`{path}` is locked by another process; end it, or wait until it is done"
            ),
            Problem::Sqlite(_) if self.path.is_dir() => write!(
                f,
                "`{path}` is a directory; name a file in it, such as `{}`",
                self.path.join("sessions.db").display()
            ),
            Problem::Sqlite(_) if self.path.parent().is_some_and(is_missing) => {
                write!(f, "the directory of `{path}` does not exist; make it first")
            }
            Problem::Sqlite(_) | Problem::Private(_) => write!(
                f,
                "cannot use the database `{path}`; this process needs the right to read and write \
                 the file and its directory"
            ),
            Problem::NoWal => write!(
                f,
                "SQLite cannot keep a write-ahead log beside `{path}`; use a file on a local disk"
            ),
            Problem::Version(table, version) => write!(
                f,
                "the table `{table}` in `{path}` has schema version {version}, and this release of \
                 cloakroom knows version {SCHEMA}; use the release that made it or a later one"
            ),
            Problem::Foreign(table) => write!(
                f,
                "`{path}` has a table `{table}` already that cloakroom did not make; choose another \
                 name with `SqliteStoreBuilder::table`, or another file"
            ),
            Problem::Changed(table, _) => write!(
                f,
                "the table `{table}` in `{path}`, or one that belongs to it, is not as cloakroom made \
                 it; compare it with `sqlite.sql`"
            ),
        }
    }
}

fn is_missing(directory: &Path) -> bool {
    !directory.as_os_str().is_empty() && !directory.exists()
}

impl StdError for Unusable {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.problem {
            Problem::Sqlite(error) | Problem::Changed(_, error) => Some(error),
            Problem::Private(error) => Some(error),
            Problem::NoWal | Problem::Version(..) | Problem::Foreign(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    type Answer = oneshot::Receiver<Result<Create, StoreError>>;

    fn id(n: u8) -> SessionId {
        SessionId::from_bytes([n; 16])
    }

    /// A database that does this when bob's session is stored.
    fn db(raise: &str) -> Db {
        let sql = Arc::new(Sql::new("sessions").unwrap());
        let db = Db::new(Connection::open_in_memory().unwrap(), sql);
        db.migrate().unwrap();
        let trigger = format!(
            "CREATE TRIGGER bob BEFORE INSERT ON sessions WHEN NEW.owner = 'bob' \
             BEGIN SELECT RAISE({raise}, 'no bob'); END"
        );
        db.connection.execute_batch(&trigger).unwrap();
        db
    }

    fn create(n: u8, owner: &str) -> (Box<dyn Job>, Answer) {
        create_with(n, owner, 0)
    }

    /// With so many bytes of data.
    fn create_with(n: u8, owner: &str, size: usize) -> (Box<dyn Job>, Answer) {
        let mut record = Record::new(Digest::from_bytes([1; 32]), NOW, Timestamp::MAX);
        record.owner = Some(owner.into());
        record.data = vec![0; size].into();
        let (reply, answer) = oneshot::channel();
        let call = Call {
            work: Some(move |db: &Db| db.wholly(|| db.create(id(n), &record, NOW))),
            outcome: None,
            reply,
        };
        (Box::new(call), answer)
    }

    /// Runs the jobs and answers them; the answers, and the ids that are stored then.
    fn commit(
        db: &Db,
        calls: Vec<(Box<dyn Job>, Answer)>,
    ) -> (Vec<Result<Create, String>>, Vec<u8>) {
        let (mut jobs, answers): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let committed = db.commit(&mut jobs).map_err(Arc::new);
        for job in jobs {
            job.answer(committed.clone());
        }
        let text = |error: StoreError| error.source().map(ToString::to_string).unwrap();
        let answers = answers.into_iter().map(|mut answer| {
            let answer = answer.try_recv().expect("each job is answered");
            answer.map_err(text)
        });
        let stored = (0..9).filter(|n| db.load(id(*n), NOW).unwrap().is_some());
        (answers.collect(), stored.collect())
    }

    #[test]
    fn a_write_that_fails_leaves_the_others_of_its_transaction_alone() {
        let db = db("ABORT");
        let calls = [(1, "ada"), (2, "bob"), (3, "eve")].map(|(n, owner)| create(n, owner));
        let (answers, stored) = commit(&db, calls.into());
        let no_bob = Err("no bob".to_owned());
        assert_eq!(answers, [Ok(Create::Done), no_bob, Ok(Create::Done)]);
        assert_eq!(stored, [1, 3]);
    }

    #[test]
    fn if_the_transaction_is_undone_no_write_is_acknowledged_and_the_next_one_works() {
        let db = db("ROLLBACK");
        let calls = [(1, "ada"), (2, "bob"), (3, "eve")].map(|(n, owner)| create(n, owner));
        let (answers, stored) = commit(&db, calls.into());
        let undone = Err("cannot commit - no transaction is active".to_owned());
        assert_eq!(answers, [undone.clone(), Err("no bob".to_owned()), undone]);
        assert_eq!(stored, [0; 0]);
        let (answers, stored) = commit(&db, vec![create(4, "ada")]);
        assert_eq!((answers, stored), (vec![Ok(Create::Done)], vec![4]));
    }

    #[test]
    fn a_full_database_refuses_what_does_not_fit_and_takes_it_when_there_is_room() {
        let db = db("ABORT");
        let limit = |pages: i64| {
            let limited = db.connection.pragma_update(None, "max_page_count", pages);
            limited.unwrap();
        };
        let calls = || {
            vec![
                create(1, "ada"),
                create_with(2, "eve", 1 << 20),
                create(3, "ada"),
            ]
        };
        limit(db.number("PRAGMA page_count", []).unwrap());
        let (answers, stored) = commit(&db, calls());
        assert_eq!(answers[1], Err("database or disk is full".to_owned()));
        for (n, answer) in [(1, &answers[0]), (3, &answers[2])] {
            assert_eq!(stored.contains(&n), answer.is_ok(), "{answer:?}");
        }
        assert!(!stored.contains(&2));
        limit(1 << 20);
        let (answers, stored) = commit(&db, calls());
        assert_eq!(answers[1], Ok(Create::Done));
        assert_eq!(stored, [1, 2, 3]);
    }

    #[test]
    fn a_write_whose_caller_has_gone_before_it_began_is_not_done() {
        let db = db("ABORT");
        let (gone, answer) = create(1, "ada");
        drop(answer);
        let mut jobs = [gone];
        db.commit(&mut jobs).unwrap();
        assert_eq!(db.load(id(1), NOW).unwrap(), None);
    }

    #[test]
    fn a_revocation_is_forgotten_after_an_hour() {
        let db = db("ABORT");
        db.delete_by_owner("ada", None, NOW).unwrap();
        let count = || {
            let count = "SELECT count(*) FROM sessions_revoked";
            db.number(count, []).unwrap()
        };
        let hour = NOW.saturating_add(Duration::from_secs(60 * 60));
        db.delete_expired(Timestamp::from_millis(hour.as_millis() - 1), 9)
            .unwrap();
        assert_eq!(count(), 1);
        db.delete_expired(hour, 9).unwrap();
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_commit_waits_for_the_disk_unless_told_otherwise() {
        let directory = std::env::temp_dir().join(format!("cloakroom-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let builder = SqliteStore::builder();
        for (builder, expected) in [
            (builder.clone(), 2),
            (builder.synchronous(Synchronous::Normal), 1),
        ] {
            let sql = Arc::new(Sql::new("sessions").unwrap());
            let db = builder.open_file(&directory.join("sessions.db"), &sql);
            let synchronous = db.unwrap().number("PRAGMA synchronous", []);
            assert_eq!(synchronous.unwrap(), expected);
        }
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_thread_that_panics_leaves_no_caller_waiting() {
        let pool = Pool::spawn("panics", vec![db("ABORT")], usize::MAX, |db, mut jobs| {
            jobs.iter_mut().for_each(|job| job.run(db));
        });
        let pool = pool.unwrap();
        let call = || {
            let (reply, answer) = oneshot::channel::<Result<(), StoreError>>();
            let work = |_: &Db| -> Result<(), StoreError> { panic!("as asked") };
            pool.queue.push(Box::new(Call {
                work: Some(work),
                outcome: None,
                reply,
            }));
            answer
        };
        for answer in [call(), call()] {
            assert!(answer.blocking_recv().is_err());
        }
        assert!(call().blocking_recv().is_err());
    }
}
