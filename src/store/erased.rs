//! The contract behind a pointer, so that sessions do not carry the store's type.

use std::fmt;
use std::pin::Pin;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Create, SessionStore, Update};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What the request's path asks of a store.
pub(crate) trait ErasedStore: Send + Sync {
    fn create<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        now: Timestamp,
    ) -> Answer<'a, Create>;
    fn load(&self, id: SessionId, now: Timestamp) -> Answer<'_, Option<Record>>;
    fn update<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        expected: Version,
        now: Timestamp,
    ) -> Answer<'a, Update>;
    fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Answer<'_, bool>;
    fn delete(&self, id: SessionId) -> Answer<'_, bool>;
}

impl<S: SessionStore> ErasedStore for S {
    fn create<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        now: Timestamp,
    ) -> Answer<'a, Create> {
        Box::pin(SessionStore::create(self, id, record, now))
    }

    fn load(&self, id: SessionId, now: Timestamp) -> Answer<'_, Option<Record>> {
        Box::pin(SessionStore::load(self, id, now))
    }

    fn update<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        expected: Version,
        now: Timestamp,
    ) -> Answer<'a, Update> {
        Box::pin(SessionStore::update(self, id, record, expected, now))
    }

    fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Answer<'_, bool> {
        Box::pin(SessionStore::touch(self, id, expires, now))
    }

    fn delete(&self, id: SessionId) -> Answer<'_, bool> {
        Box::pin(SessionStore::delete(self, id))
    }
}

impl fmt::Debug for dyn ErasedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionStore")
    }
}
