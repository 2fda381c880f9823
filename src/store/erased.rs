//! The contract behind a pointer, so that sessions do not carry the store's type.

use std::fmt;
use std::pin::Pin;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// What a layer and its sessions ask of a store.
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
    fn sign_in<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Answer<'a, SignIn>;
    fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> Answer<'_, bool>;
    fn delete(&self, id: SessionId) -> Answer<'_, bool>;
    fn list_by_owner<'a>(
        &'a self,
        owner: &'a str,
        now: Timestamp,
    ) -> Answer<'a, Vec<(SessionId, Record)>>;
    fn delete_by_owner<'a>(
        &'a self,
        owner: &'a str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Answer<'a, usize>;
    fn delete_all(&self) -> Answer<'_, usize>;
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

    fn sign_in<'a>(
        &'a self,
        id: SessionId,
        record: &'a Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Answer<'a, SignIn> {
        Box::pin(SessionStore::sign_in(
            self, id, record, expected, admission, now,
        ))
    }

    fn delete(&self, id: SessionId) -> Answer<'_, bool> {
        Box::pin(SessionStore::delete(self, id))
    }

    fn list_by_owner<'a>(
        &'a self,
        owner: &'a str,
        now: Timestamp,
    ) -> Answer<'a, Vec<(SessionId, Record)>> {
        Box::pin(SessionStore::list_by_owner(self, owner, now))
    }

    fn delete_by_owner<'a>(
        &'a self,
        owner: &'a str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Answer<'a, usize> {
        Box::pin(SessionStore::delete_by_owner(self, owner, keep, now))
    }

    fn delete_all(&self) -> Answer<'_, usize> {
        Box::pin(SessionStore::delete_all(self))
    }
}

impl fmt::Debug for dyn ErasedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionStore")
    }
}
