//! A store that is chosen when the service starts.

use std::fmt;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};
#[cfg(feature = "memory")]
use crate::store::memory::MemoryStore;
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
/// | `postgres://HOST/DATABASE` | `PostgresStore`, its tables made if need be | `postgres` |
/// | `redis://HOST`, `rediss://HOST` | `RedisStore` | `redis` |
/// | `sqlite:PATH`, `sqlite::memory:` | `SqliteStore` | `sqlite` |
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
        not(any(feature = "postgres", feature = "redis")),
        allow(clippy::unused_async)
    )]
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
        let kind = match scheme {
            #[cfg(feature = "memory")]
            "memory" if rest.is_empty() => Kind::Memory(MemoryStore::new()),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                let store = PostgresStore::connect(url).await?;
                store.migrate().await?;
                Kind::Postgres(store)
            }
            #[cfg(feature = "redis")]
            "redis" | "rediss" => Kind::Redis(RedisStore::connect(url).await?),
            #[cfg(feature = "sqlite")]
            "sqlite" if rest == ":memory:" => Kind::Sqlite(SqliteStore::in_memory()?),
            #[cfg(feature = "sqlite")]
            "sqlite" => Kind::Sqlite(SqliteStore::open(rest)?),
            _ => return Err(StoreError::new(no_store(scheme, rest))),
        };
        Ok(Self(kind))
    }
}

fn no_store(scheme: &str, rest: &str) -> String {
    match scheme {
        "memory" if !rest.is_empty() => "nothing comes after `memory:`".to_owned(),
        "memory" | "postgres" | "postgresql" | "redis" | "rediss" | "sqlite" => {
            let feature = match scheme {
                "postgresql" => "postgres",
                "rediss" => "redis",
                same => same,
            };
            format!("`{scheme}:` needs cloakroom's feature `{feature}`, which is not enabled")
        }
        // Without a colon this may be all of a mistyped URL.
        _ if scheme.len() > 20 => "the URL begins with no scheme of a store".to_owned(),
        _ => format!(
            "`{scheme}:` is no store; there are `memory:`, `sqlite:PATH`, `postgres://HOST` and `redis://HOST`"
        ),
    }
}

impl fmt::Debug for AnyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            #[cfg(feature = "memory")]
            Kind::Memory(store) => store.fmt(f),
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

    #[tokio::test]
    async fn what_is_no_store_is_said_without_its_secrets() {
        for (url, why) in [
            ("", "is no store"),
            ("memory:x", "nothing comes after `memory:`"),
            (
                "carrier-pigeon://ada:hunter2@loft",
                "`carrier-pigeon:` is no store",
            ),
            ("ada-hunter2@my-long-database-host", "no scheme of a store"),
        ] {
            let error = AnyStore::connect(url).await.unwrap_err();
            let said = error.source().unwrap().to_string();
            assert!(said.contains(why), "{url}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}
