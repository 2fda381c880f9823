//! The contract of every store.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};

/// Keeps records by the id of their session.
///
/// One meaning for all stores, in numbered rules. Each rule has a function of the same name in the
/// [conformance suite](crate::store::conformance) (feature `test-util`), which any store can run.
///
/// 1. `create_stores_the_record`: `create` answers [`Create::Done`], and `load` gives back every
///    field as it was.
/// 2. `create_never_overwrites`: while a live record has the id, `create` changes nothing and
///    answers [`Create::Taken`], also when many try at once: one is done, all others are taken.
/// 3. `load_of_an_unknown_id_is_none`.
/// 4. `expired_is_absent`: a record whose `expires` is at or before `now` is not loaded, updated,
///    touched or listed, whether or not it was swept, and does not stand in the way of a `create`.
/// 5. `update_swaps_only_the_expected_version`: [`Update::Done`] if the stored version is
///    `expected`; the record is replaced as a whole, but for rule 11.
/// 6. `update_conflict_returns_the_current_record`: otherwise nothing changes, and
///    [`Update::Conflict`] carries the record as it is.
/// 7. `update_never_creates`: without a live record, [`Update::Gone`].
/// 8. `concurrent_updates_lose_nothing`: of updates that expect one version exactly one is done.
/// 9. `touch_only_extends`: `touch` moves `expires` later, never earlier, and answers `true` for a
///    live record, moved or not.
/// 10. `touch_keeps_everything_else`: the version too, so that it does not disturb a parallel
///     `update`, nor undo one.
/// 11. `update_keeps_a_touch`: an `update` does not undo a `touch` that came in since its record was
///     loaded: if the record's `seen` is earlier than `now` and the stored one is later than it, that stays,
///     and so does the stored `expires` unless the record's is later. A record whose `seen` is `now` is
///     stored as it is, and may move the end earlier.
/// 12. `touch_never_creates`: without a live record, `false`.
/// 13. `delete_removes_for_good`: the record is gone for `load`, `update` and `touch`; the answer
///     says whether a record was there. Expiry plays no part, so that a clock that is ahead
///     cannot make a logout miss.
/// 14. `delete_expired_is_bounded`: removes at most `limit` records, expired ones only, and says how
///     many. A store whose records vanish by themselves answers 0 and does nothing.
/// 15. `list_by_owner_shows_live_sessions`: those and no others, with their current records; a
///     session whose owner changed is listed under the new one. One whose record is damaged is nobody's,
///     and left out.
/// 16. `delete_by_owner_spares_only_the_kept`: the sessions of that owner, except `keep`, and says
///     how many of them were live; nobody else's.
/// 17. `sign_in_stores_like_create_and_update`: without an expected version as `create` does, with one
///     as `update` does; the session is then listed under the record's owner.
/// 18. `sign_in_is_refused_after_a_revocation`: after a `delete_by_owner` at a time not before
///     [`Admission::began`], `sign_in` of that owner changes nothing and answers
///     [`SignIn::Revoked`], unless it is the kept session; if both run at once, the session is
///     refused or removed. Each revocation counts by itself, neither an earlier time nor another
///     `keep` takes one back, and is remembered for at least an hour.
/// 19. `sign_in_keeps_the_limit`: with a [limit](Admission::limit), its owner has at most that many
///     live sessions afterwards, also if many sign in at once: either the others whose
///     `authenticated` is earliest are deleted, or nothing changes and the answer is
///     [`SignIn::Full`]. Only a sign-in that is done evicts anybody.
/// 20. `delete_all_leaves_nothing`: all sessions are removed, and it says how many. Those that are
///     created while it runs may stay; revocations stay remembered.
/// 21. `data_is_opaque`: any bytes of any length up to 16 MiB, and any owner of 1 to 255 bytes of
///     UTF-8 without NUL, compared byte by byte.
///
/// The owner of a session changes by `sign_in` alone: the record given to `create` has none, and that
/// given to `update` has the stored one; that given to `sign_in` has one. Where several refusals apply,
/// any of them may be the answer.
///
/// The caller passes the time, so there is one clock and a store needs none. A future may be dropped
/// at any `await`; the operation has then happened wholly or not at all. Errors keep their cause as
/// [`source`](std::error::Error::source), and are not retried here: the caller bounds time and tries.
/// The layer checks digest and expiry again after `load`, so a mistake in a store cannot bring a
/// dead session to life.
///
/// The methods are written as `fn … -> impl Future + Send`; an implementation may say `async fn`.
/// `examples/custom_store.rs` has a whole one, and [the guide](crate::guide::writing_a_store) says what to
/// mind.
pub trait SessionStore: Send + Sync + 'static {
    /// Stores a new session.
    ///
    /// # Errors
    ///
    /// The store failed; whether the record was stored is then unknown.
    fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> impl Future<Output = Result<Create, StoreError>> + Send;

    /// Reads a live session.
    ///
    /// # Errors
    ///
    /// The store failed, or the record [is corrupt](StoreError::is_corrupt).
    fn load(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// Replaces a live session's record if its version is `expected`: compare-and-swap.
    ///
    /// # Errors
    ///
    /// The store failed; whether the record was replaced is then unknown.
    fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> impl Future<Output = Result<Update, StoreError>> + Send;

    /// Stores a session whose owner has just signed in: a new one if there is no `expected` version,
    /// else the live one with that version, if neither a revocation nor the limit forbid it.
    ///
    /// # Errors
    ///
    /// The store failed; whether the record was stored is then unknown.
    fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> impl Future<Output = Result<SignIn, StoreError>> + Send;

    /// Moves a live session's end to `expires` and its last use to `now`, if that is later; whether
    /// there is such a session.
    ///
    /// # Errors
    ///
    /// The store failed.
    fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes a session; whether it was there.
    ///
    /// # Errors
    ///
    /// The store failed; whether the record was removed is then unknown.
    fn delete(&self, id: SessionId) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Removes up to `limit` expired records; how many it was.
    ///
    /// # Errors
    ///
    /// The store failed; some records may have been removed.
    fn delete_expired(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// The live sessions of an owner, in no particular order.
    ///
    /// # Errors
    ///
    /// The store failed.
    fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<(SessionId, Record)>, StoreError>> + Send;

    /// Removes the sessions of an owner, except `keep`, and those whose sign-in is under way at `now`;
    /// how many it was.
    ///
    /// # Errors
    ///
    /// The store failed; some sessions may have been removed.
    fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send;

    /// Removes all sessions; how many it was.
    ///
    /// # Errors
    ///
    /// The store failed; some sessions may have been removed.
    fn delete_all(&self) -> impl Future<Output = Result<usize, StoreError>> + Send;
}

/// What a [`SessionStore::sign_in`] depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Admission {
    /// When the request came for its session in which the owner signs in: a revocation since then counts.
    pub began: Timestamp,
    /// How many sessions the owner may have.
    pub limit: Option<OwnerLimit>,
}

impl Admission {
    /// Admission of a sign-in that began then, without a limit.
    #[must_use]
    pub const fn new(began: Timestamp) -> Self {
        Self { began, limit: None }
    }
}

/// How many live sessions an owner may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnerLimit {
    /// The number, that of the session which signs in included.
    pub max: NonZeroUsize,
    /// What happens to one more.
    pub when_full: WhenFull,
}

impl OwnerLimit {
    /// A limit of `max` sessions.
    #[must_use]
    pub const fn new(max: NonZeroUsize, when_full: WhenFull) -> Self {
        Self { max, when_full }
    }
}

/// What happens when an owner signs in who has as many sessions as the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// The sessions that signed in earliest end.
    EvictOldest,
    /// The sign-in is refused.
    Refuse,
}

/// The answer of [`SessionStore::sign_in`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a sign-in that was refused or met a conflict has not been stored"]
// As in `Update`.
#[allow(clippy::large_enum_variant)]
pub enum SignIn {
    /// The record is stored.
    Done,
    /// As [`Create::Taken`].
    Taken,
    /// As [`Update::Conflict`].
    Conflict(Record),
    /// As [`Update::Gone`].
    Gone,
    /// The owner's sessions were revoked since the sign-in began. Nothing was changed.
    Revoked,
    /// The owner has as many sessions as the limit allows. Nothing was changed.
    Full,
}

/// The answer of [`SessionStore::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a session whose id was taken has not been stored"]
pub enum Create {
    /// The record is stored.
    Done,
    /// The id has a live record already; nothing was changed.
    Taken,
}

/// The answer of [`SessionStore::update`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an update that met a conflict or found nothing has not been stored"]
// The record is what callers want; boxing it would cost every conflict an allocation.
#[allow(clippy::large_enum_variant)]
pub enum Update {
    /// The record was replaced.
    Done,
    /// The stored version was not the expected one; this is the record as it is. Nothing was changed.
    Conflict(Record),
    /// There is no live record with the id.
    Gone,
}

impl<S: SessionStore> SessionStore for Arc<S> {
    fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> impl Future<Output = Result<Create, StoreError>> + Send {
        S::create(self, id, record, now)
    }

    fn load(
        &self,
        id: SessionId,
        now: Timestamp,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send {
        S::load(self, id, now)
    }

    fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> impl Future<Output = Result<Update, StoreError>> + Send {
        S::update(self, id, record, expected, now)
    }

    fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> impl Future<Output = Result<SignIn, StoreError>> + Send {
        S::sign_in(self, id, record, expected, admission, now)
    }

    fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        S::touch(self, id, expires, now)
    }

    fn delete(&self, id: SessionId) -> impl Future<Output = Result<bool, StoreError>> + Send {
        S::delete(self, id)
    }

    fn delete_expired(
        &self,
        now: Timestamp,
        limit: usize,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send {
        S::delete_expired(self, now, limit)
    }

    fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> impl Future<Output = Result<Vec<(SessionId, Record)>, StoreError>> + Send {
        S::list_by_owner(self, owner, now)
    }

    fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> impl Future<Output = Result<usize, StoreError>> + Send {
        S::delete_by_owner(self, owner, keep, now)
    }

    fn delete_all(&self) -> impl Future<Output = Result<usize, StoreError>> + Send {
        S::delete_all(self)
    }
}
