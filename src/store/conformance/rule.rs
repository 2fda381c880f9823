//! What a rule asks of the store, and what is said if that breaks it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::races::RACERS;
use super::records::{name, session_id};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

/// One rule and the store that is to keep it.
pub(super) struct Rule<S> {
    wording: Arc<str>,
    store: Arc<S>,
}

impl<S> Clone for Rule<S> {
    fn clone(&self) -> Self {
        Self {
            wording: Arc::clone(&self.wording),
            store: Arc::clone(&self.store),
        }
    }
}

impl<S: SessionStore> Rule<S> {
    pub(super) fn new(name: &str, store: S) -> Self {
        Self {
            wording: wording(name).into(),
            store: Arc::new(store),
        }
    }

    /// Says what the store did, and which rule that breaks.
    pub(super) fn broken(&self, what: impl fmt::Display) -> ! {
        panic!("the store breaks a rule: {what}\n\n  {}\n", self.wording)
    }

    pub(super) fn check(&self, kept: bool, what: impl fmt::Display) {
        if !kept {
            self.broken(what);
        }
    }

    /// The answer of an operation, which must not fail.
    pub(super) fn answer<T>(&self, operation: &str, result: Result<T, StoreError>) -> T {
        result.unwrap_or_else(|error| {
            let mut causes = String::new();
            let mut next = error.source();
            while let Some(cause) = next {
                causes += &format!(": {cause}");
                next = cause.source();
            }
            self.broken(format_args!("`{operation}` fails: {error}{causes}"))
        })
    }

    pub(super) async fn create(&self, id: SessionId, record: &Record, now: Timestamp) -> Create {
        self.answer("create", self.store.create(id, record, now).await)
    }

    pub(super) async fn load(&self, id: SessionId, now: Timestamp) -> Option<Record> {
        self.answer("load", self.store.load(id, now).await)
    }

    pub(super) async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Update {
        self.answer("update", self.store.update(id, record, expected, now).await)
    }

    pub(super) async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> bool {
        self.answer("touch", self.store.touch(id, expires, now).await)
    }

    pub(super) async fn delete(&self, id: SessionId) -> bool {
        self.answer("delete", self.store.delete(id).await)
    }

    pub(super) async fn delete_expired(&self, now: Timestamp, limit: usize) -> usize {
        self.answer(
            "delete_expired",
            self.store.delete_expired(now, limit).await,
        )
    }

    pub(super) async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Vec<(SessionId, Record)> {
        self.answer("list_by_owner", self.store.list_by_owner(owner, now).await)
    }

    /// Removes the sessions of `owner`'s owner.
    pub(super) async fn delete_by_owner(
        &self,
        owner: &Record,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> usize {
        self.answer(
            "delete_by_owner",
            self.store.delete_by_owner(name(owner), keep, now).await,
        )
    }

    pub(super) async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> SignIn {
        let result = self.store.sign_in(id, record, expected, admission, now);
        self.answer("sign_in", result.await)
    }

    pub(super) async fn delete_all(&self) -> usize {
        self.answer("delete_all", self.store.delete_all().await)
    }

    /// Stores a record under a new id.
    pub(super) async fn new_session(&self, record: &Record, now: Timestamp) -> SessionId {
        let id = session_id();
        self.have(id, record, now).await;
        id
    }

    /// Stores a new session, by `sign_in` if it has an owner.
    pub(super) async fn have(&self, id: SessionId, record: &Record, now: Timestamp) {
        if record.owner.is_some() {
            return self.admit(id, record, None, now).await;
        }
        let created = self.create(id, record, now).await;
        self.check(
            created == Create::Done,
            "`create` with a new id answers `Taken`",
        );
    }

    /// Signs in where nothing is in the way.
    pub(super) async fn admit(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        now: Timestamp,
    ) {
        let admission = Admission::new(now);
        let answer = self.sign_in(id, record, expected, admission, now).await;
        self.check(
            answer == SignIn::Done,
            format_args!("`sign_in` with nothing in the way answers {answer:?}"),
        );
    }

    /// The only one of `RACERS` that is done.
    pub(super) fn winner(&self, done: Vec<Option<Record>>, what: &str) -> Record {
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        match (done.pop(), done.len()) {
            (Some(winner), 0) => winner,
            (last, others) => self.broken(format_args!(
                "of {RACERS} parallel {what} {} are done",
                others + usize::from(last.is_some())
            )),
        }
    }

    /// Updates a record whose version is the expected one.
    pub(super) async fn swap(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) {
        let updated = self.update(id, record, expected, now).await;
        self.check(
            updated == Update::Done,
            "`update` of the expected version is not `Done`",
        );
    }

    pub(super) async fn stored(
        &self,
        id: SessionId,
        expected: &Record,
        now: Timestamp,
        when: &str,
    ) {
        match self.load(id, now).await {
            Some(record) => self.same(&record, expected, when),
            None => self.broken(format_args!("there is no record {when}")),
        }
    }

    pub(super) async fn absent(&self, id: SessionId, now: Timestamp, when: &str) {
        if self.load(id, now).await.is_some() {
            self.broken(format_args!("there is a record {when}"));
        }
    }

    /// The sessions of `owner`'s owner are `ids`, with the same records as `load` gives.
    pub(super) async fn listed(
        &self,
        owner: &Record,
        ids: &[SessionId],
        now: Timestamp,
        when: &str,
    ) {
        let mut listed = self.list_by_owner(name(owner), now).await;
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        listed.sort_unstable_by_key(|(id, _)| *id);
        self.check(
            listed.iter().map(|(id, _)| id).eq(&ids),
            format_args!(
                "`list_by_owner` shows {} sessions, or others, {when}: expected {}",
                listed.len(),
                ids.len()
            ),
        );
        for (id, record) in &listed {
            self.stored(*id, record, now, &format!("as listed {when}"))
                .await;
        }
    }

    /// Compares field by field, to name the one that differs.
    pub(super) fn same(&self, got: &Record, expected: &Record, when: impl fmt::Display) {
        let fields = [
            ("version", got.version == expected.version),
            ("digest", got.digest == expected.digest),
            ("previous", got.previous == expected.previous),
            ("owner", got.owner == expected.owner),
            ("created", got.created == expected.created),
            ("authenticated", got.authenticated == expected.authenticated),
            ("renewed", got.renewed == expected.renewed),
            ("seen", got.seen == expected.seen),
            ("expires", got.expires == expected.expires),
            ("policy", got.policy == expected.policy),
            ("data", got.data == expected.data),
            ("something", got == expected),
        ];
        if let Some((field, _)) = fields.iter().find(|(_, same)| !same) {
            self.broken(format_args!(
                "`{field}` is not the expected one {when}\n       got {got:?}\n  expected {expected:?}"
            ));
        }
    }
}

/// A rule with its number, as the contract words it.
pub(super) fn wording(name: &str) -> String {
    let begins = format!(". `{name}`");
    let mut docs = include_str!("../contract.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("/// "))
        .skip_while(|line| !line.contains(&begins));
    let Some(first) = docs.next() else {
        panic!("the contract has no rule `{name}`");
    };
    let rest = docs.take_while(|line| line.starts_with("   "));
    rest.fold(first.to_owned(), |wording, line| {
        wording + " " + line.trim_start()
    })
}
