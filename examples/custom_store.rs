//! A store of your own: the whole contract over a map behind a mutex, and the test that it keeps it.
//!
//! A database takes the place of the map: each method is then one statement or script, so that it
//! happens wholly or not at all. The contract's rules are in the docs of `SessionStore`; what to mind is in
//! those of `cloakroom::guide::writing_a_store`.
//!
//! ```sh
//! cargo test --example custom_store --features test-util
//! cargo run --example custom_store
//! ```

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom::SessionId;
use cloakroom::store::{
    Admission, Create, Record, SessionStore, SignIn, StoreError, Timestamp, Update, Version,
    WhenFull,
};

#[derive(Clone, Debug, Default)]
struct MapStore(Arc<Mutex<Tables>>);

#[derive(Debug, Default)]
struct Tables {
    records: HashMap<SessionId, Record>,
    /// When an owner's sessions were last revoked, except a certain one.
    revoked: HashMap<(String, Option<SessionId>), Timestamp>,
}

impl MapStore {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An expired record counts as absent, whether or not it was swept.
fn is_live(record: &Record, now: Timestamp) -> bool {
    now < record.expires
}

impl SessionStore for MapStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        let records = &mut self.tables().records;
        if records.get(&id).is_some_and(|record| is_live(record, now)) {
            return Ok(Create::Taken);
        }
        records.insert(id, record.clone());
        Ok(Create::Done)
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        Ok(self
            .tables()
            .records
            .get(&id)
            .filter(|record| is_live(record, now))
            .cloned())
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        match self.tables().records.get_mut(&id) {
            Some(current) if is_live(current, now) => {
                if current.version != expected {
                    return Ok(Update::Conflict(current.clone()));
                }
                let mut next = record.clone();
                // A touch that came in since the record was loaded stays.
                if record.seen < now && record.seen < current.seen {
                    next.seen = current.seen;
                    next.expires = record.expires.max(current.expires);
                }
                *current = next;
                Ok(Update::Done)
            }
            _ => Ok(Update::Gone),
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        match self.tables().records.get_mut(&id) {
            Some(record) if is_live(record, now) => {
                record.expires = record.expires.max(expires);
                record.seen = record.seen.max(now);
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.tables().records.remove(&id).is_some())
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        let Tables { records, revoked } = &mut *self.tables();
        revoked.retain(|_, at| now.saturating_since(*at) < Duration::from_secs(3_600));
        let expired = records.iter().filter(|(_, record)| !is_live(record, now));
        let ids: Vec<_> = expired.map(|(id, _)| *id).take(limit).collect();
        Ok(ids.iter().filter_map(|id| records.remove(id)).count())
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let records = &self.tables().records;
        let live = records.iter().filter(|(_, record)| is_live(record, now));
        let owned = live.filter(|(_, record)| record.owner.as_deref() == Some(owner));
        Ok(owned.map(|(id, record)| (*id, record.clone())).collect())
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let Tables { records, revoked } = &mut *self.tables();
        let at = revoked.entry((owner.to_owned(), keep)).or_insert(now);
        *at = now.max(*at);
        let theirs = |id: &SessionId, record: &mut Record| {
            record.owner.as_deref() == Some(owner) && Some(*id) != keep
        };
        let removed = records.extract_if(theirs);
        Ok(removed.filter(|(_, record)| record.expires > now).count())
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        Ok(self.tables().records.drain().count())
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let Tables { records, revoked } = &mut *self.tables();
        match (
            records.get(&id).filter(|current| is_live(current, now)),
            expected,
        ) {
            (None, Some(_)) => return Ok(SignIn::Gone),
            (Some(_), None) => return Ok(SignIn::Taken),
            (Some(current), Some(expected)) if current.version != expected => {
                return Ok(SignIn::Conflict(current.clone()));
            }
            _ => {}
        }
        let is_revoked = revoked.iter().any(|((owner, kept), at)| {
            record.owner.as_deref() == Some(owner) && *kept != Some(id) && admission.began <= *at
        });
        if is_revoked {
            return Ok(SignIn::Revoked);
        }
        if let Some(limit) = admission.limit {
            let live = records.iter().filter(|(_, other)| is_live(other, now));
            let others = live.filter(|(other, r)| **other != id && r.owner == record.owner);
            let mut others: Vec<_> = others.map(|(id, r)| (r.authenticated, *id)).collect();
            let surplus = (others.len() + 1).saturating_sub(limit.max.get());
            if surplus > 0 && limit.when_full == WhenFull::Refuse {
                return Ok(SignIn::Full);
            }
            others.sort_unstable();
            for (_, oldest) in &others[..surplus] {
                records.remove(oldest);
            }
        }
        records.insert(id, record.clone());
        Ok(SignIn::Done)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    use axum::{Router, routing::post};
    use cloakroom::{Session, SessionLayer};

    async fn visit(session: Session) -> cloakroom::Result<String> {
        let n = session.update("visits", |n: &mut u64| {
            *n += 1;
            *n
        })?;
        Ok(format!("visit {n}\n"))
    }

    let layer = SessionLayer::builder(MapStore::default())
        .insecure_http()
        .build()?;
    let app = Router::new().route("/", post(visit)).layer(layer);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    println!("POST to http://{}/", listener.local_addr()?);
    axum::serve(listener, app).await?;
    Ok(())
}

#[cfg(test)]
cloakroom::conformance_tests!(map_store, async { super::MapStore::default() });
