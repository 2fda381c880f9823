//! A store that is chosen when the service starts.

use std::fmt;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};
#[cfg(feature = "memory")]
use crate::store::memory::MemoryStore;
#[cfg(feature = "mysql")]
use crate::store::mysql::MysqlStore;
#[cfg(feature = "postgres")]
use crate::store::postgres::PostgresStore;
#[cfg(feature = "redis")]
use crate::store::redis::RedisStore;
#[cfg(feature = "sqlite")]
use crate::store::sqlite::SqliteStore;

/// One of the stores, by its URL: for a service that reads from its configuration where sessions are
/// kept.
///
/// | URL | Store | Feature |
/// |---|---|---|
/// | `memory:` | `MemoryStore` | `memory` |
/// | `mysql://HOST/DATABASE` | `MysqlStore`, its tables made if need be | `mysql` |
/// | `postgres://HOST/DATABASE` | `PostgresStore`, its tables made if need be | `postgres` |
/// | `redis://HOST`, `rediss://HOST` | `RedisStore` | `redis`; `rediss` also `redis-tls` |
/// | `redis+cluster://HOST,HOST`, `rediss+cluster://HOST,HOST` | `RedisStore` on a cluster | `redis-cluster` |
/// | `sqlite:PATH`, `sqlite::memory:` | `SqliteStore` | `sqlite` |
///
/// The path of `sqlite:` is taken as it stands, without `//` in front and without options: `sqlite:foo.db`,
/// `sqlite:/var/lib/foo.db`. The case of a scheme does not matter.
///
/// Cloning is cheap, and clones share the store.
///
/// ```
/// use cloakroom::{AnyStore, SessionLayer};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::store::StoreError> {
/// let store = AnyStore::connect("memory:").await?;
/// let layer = SessionLayer::new(store);
/// # drop(layer);
///
/// let error = AnyStore::connect("carrier-pigeon://loft").await.unwrap_err();
/// let why = std::error::Error::source(&error).unwrap().to_string();
/// assert!(why.contains("`carrier-pigeon:` is no store"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AnyStore(Kind);

#[derive(Clone)]
enum Kind {
    #[cfg(feature = "memory")]
    Memory(MemoryStore),
    #[cfg(feature = "mysql")]
    Mysql(MysqlStore),
    #[cfg(feature = "postgres")]
    Postgres(PostgresStore),
    #[cfg(feature = "redis")]
    Redis(RedisStore),
    #[cfg(feature = "sqlite")]
    Sqlite(SqliteStore),
}

impl AnyStore {
    /// Opens the store that a URL names.
    ///
    /// # Errors
    ///
    /// The URL names no store, or one whose feature is not enabled, or the store cannot be used. The
    /// error does not repeat the URL, which may hold a password.
    // Without a store on the network nothing is awaited.
    #[cfg_attr(
        not(any(feature = "mysql", feature = "postgres", feature = "redis")),
        allow(clippy::unused_async)
    )]
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = split(url).ok_or_else(|| StoreError::new(no_scheme()))?;
        // Parsers of URLs differ in whether case matters to them.
        #[cfg(any(feature = "mysql", feature = "postgres", feature = "redis"))]
        let url = &*format!("{scheme}:{rest}");
        let kind = match &*scheme {
            #[cfg(feature = "memory")]
            "memory" if rest.is_empty() => Kind::Memory(MemoryStore::new()),
            #[cfg(feature = "mysql")]
            "mysql" => {
                let store = MysqlStore::connect(url).await?;
                store.migrate().await?;
                Kind::Mysql(store)
            }
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let store = PostgresStore::connect(url).await?;
                store.migrate().await?;
                Kind::Postgres(store)
            }
            #[cfg(feature = "redis")]
            "redis" | "rediss" => Kind::Redis(RedisStore::connect(url).await?),
            #[cfg(feature = "redis-cluster")]
            "redis+cluster" | "rediss+cluster" => Kind::Redis(RedisStore::connect(url).await?),
            #[cfg(feature = "sqlite")]
            "sqlite" => Kind::Sqlite(sqlite(rest)?),
            _ => return Err(StoreError::new(no_store(&scheme, rest))),
        };
        Ok(Self(kind))
    }
}

/// A URL's scheme in lower case (RFC 3986 section 3.1), and what follows its colon.
fn split(url: &str) -> Option<(String, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let of_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
    let is_scheme =
        scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.bytes().all(of_scheme);
    is_scheme.then(|| (scheme.to_ascii_lowercase(), rest))
}

/// Opens a path as it stands: URLs with an authority and options, as other libraries have them, would
/// make files of odd names in odd places.
#[cfg(feature = "sqlite")]
fn sqlite(path: &str) -> Result<SqliteStore, StoreError> {
    let wrong = match path {
        ":memory:" => return SqliteStore::in_memory(),
        "" => "a path comes after `sqlite:`; a database in memory is `sqlite::memory:`",
        _ if path.starts_with("//") => {
            "no `//` comes after `sqlite:`: write `sqlite:foo.db` or `sqlite:/var/lib/foo.db`"
        }
        _ if path.contains(['?', '#']) => {
            "`sqlite:` takes a path without options: remove what begins with `?` or `#`"
        }
        _ => return SqliteStore::open(path),
    };
    Err(StoreError::new(wrong))
}

const STORES: &str = "there are `memory:`, `sqlite:./foo.db`, `mysql://HOST/DATABASE`, \
     `postgres://HOST/DATABASE`, `redis://HOST`, `rediss://HOST` and `redis+cluster://HOST,HOST`";

/// Shows nothing of the URL: all of it may be a password.
fn no_scheme() -> String {
    format!("the URL begins with no scheme of a store; {STORES}")
}

fn no_store(scheme: &str, rest: &str) -> String {
    match scheme {
        "memory" if !rest.is_empty() => "nothing comes after `memory:`".to_owned(),
        "memory" | "mysql" | "postgres" | "postgresql" | "redis" | "rediss" | "redis+cluster"
        | "rediss+cluster" | "sqlite" => {
            let feature = match scheme {
                "postgresql" => "postgres",
                "rediss" => "redis",
                "redis+cluster" | "rediss+cluster" => "redis-cluster",
                same => same,
            };
            format!("`{scheme}:` needs cloakroom's feature `{feature}`, which is not enabled")
        }
        "mariadb" => "`mariadb:` is no scheme of a store: use `mysql:`, MariaDB's too".to_owned(),
        _ => format!("`{scheme}:` is no store; {STORES}"),
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            #[cfg(feature = "memory")]
            Kind::Memory(store) => store.fmt(f),
            #[cfg(feature = "mysql")]
            Kind::Mysql(store) => store.fmt(f),
            #[cfg(feature = "postgres")]
            Kind::Postgres(store) => store.fmt(f),
            #[cfg(feature = "redis")]
            Kind::Redis(store) => store.fmt(f),
            #[cfg(feature = "sqlite")]
            Kind::Sqlite(store) => store.fmt(f),
        }
    }
}

/// Calls a method of whichever store it is.
macro_rules! each {
    ($any:ident, $store:ident => $call:expr) => {
        match &$any.0 {
            #[cfg(feature = "memory")]
            Kind::Memory($store) => $call,
            #[cfg(feature = "mysql")]
            Kind::Mysql($store) => $call,
            #[cfg(feature = "postgres")]
            Kind::Postgres($store) => $call,
            #[cfg(feature = "redis")]
            Kind::Redis($store) => $call,
            #[cfg(feature = "sqlite")]
            Kind::Sqlite($store) => $call,
        }
    };
}

impl SessionStore for AnyStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        each!(self, store => store.create(id, record, now).await)
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        each!(self, store => store.load(id, now).await)
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        each!(self, store => store.update(id, record, expected, now).await)
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        each!(self, store => store.sign_in(id, record, expected, admission, now).await)
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        each!(self, store => store.touch(id, expires, now).await)
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        each!(self, store => store.delete(id).await)
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        each!(self, store => store.delete_expired(now, limit).await)
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        each!(self, store => store.list_by_owner(owner, now).await)
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        each!(self, store => store.delete_by_owner(owner, keep, now).await)
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        each!(self, store => store.delete_all().await)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    async fn refusal(url: &str) -> String {
        let error = AnyStore::connect(url).await.unwrap_err();
        let said = error.source().unwrap().to_string();
        assert!(!format!("{error:?} {said}").contains("hunter2"), "{said}");
        said
    }

    #[tokio::test]
    async fn what_is_no_store_is_said_without_its_secrets() {
        for (url, why) in [
            ("", "no scheme of a store"),
            ("memory:x", "nothing comes after `memory:`"),
            (
                "carrier-pigeon://ada:hunter2@loft",
                "`carrier-pigeon:` is no store",
            ),
            ("mariadb://ada:hunter2@db/sessions", "use `mysql:`"),
            ("hunter2", "no scheme of a store"),
            ("hunter2@db/sessions", "no scheme of a store"),
            ("ada hunter2@db:5432", "no scheme of a store"),
            ("//ada:hunter2@db", "no scheme of a store"),
            ("1hunter2:x", "no scheme of a store"),
            ("./foo.db", "`sqlite:./foo.db`"),
        ] {
            let said = refusal(url).await;
            assert!(said.contains(why), "{url}: {said}");
        }
    }

    #[cfg(feature = "memory")]
    #[tokio::test]
    async fn the_case_of_a_scheme_does_not_matter() {
        for url in ["memory:", "MEMORY:", "Memory:"] {
            AnyStore::connect(url).await.unwrap();
        }
        assert!(refusal("Memory:x").await.contains("after `memory:`"));
    }

    #[cfg(feature = "sqlite")]
    #[tokio::test]
    async fn sqlite_urls_of_other_libraries_make_no_odd_files() {
        let folder = std::env::temp_dir().join(format!("cloakroom-any-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("x.db");
        let path = path.to_str().unwrap();
        for (url, why) in [
            ("sqlite:".to_owned(), "`sqlite::memory:`"),
            (format!("sqlite://{path}"), "write `sqlite:foo.db`"),
            ("sqlite://foo.db".to_owned(), "write `sqlite:foo.db`"),
            (format!("sqlite:{path}?mode=rwc"), "without options"),
            (format!("sqlite:{path}#top"), "without options"),
            ("sqlite::memory:?cache=shared".to_owned(), "without options"),
        ] {
            let said = refusal(&url).await;
            assert!(said.contains(why), "{url}: {said}");
        }
        let stray = std::fs::read_dir(&folder).unwrap().count();
        let opened = AnyStore::connect(&format!("SQLite:{path}")).await;
        let made = folder.join("x.db").exists();
        drop(opened.unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((stray, made), (0, true));
    }
}
