//! Sessions in this process's memory.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::hash::BuildHasher;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashlink::{DefaultHashBuilder, LinkedHashMap};

use crate::clock::Timestamp;
use crate::data::Content;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update, WhenFull};
use crate::token::Digest;

/// Keeps sessions in this process's memory.
///
/// For development, for tests, and for a service that runs as a single process and may sign its
/// users out when it restarts: **the sessions end with the process**. Clones share their sessions;
/// two stores made with [`new`](Self::new) do not.
///
/// # Bounds
///
/// The store holds at most [`max_sessions`](MemoryStoreBuilder::max_sessions) sessions and
/// [`max_bytes`](MemoryStoreBuilder::max_bytes) bytes. When it is full, a new or grown session
/// pushes out expired ones first, then those without an owner, and then those of signed-in users:
/// **they are signed out**. Within each kind those go first that were not used (loaded, updated or
/// touched) for longest. The session that needs the room is never refused, even if it alone exceeds a
/// bound. A flood of anonymous sessions so signs out no more users than the largest of them takes the room of
/// (ASVS 2.4.1): one where `max_sessions` is what is reached, and where it is `max_bytes`, as many as have
/// together what [`max_size`](crate::SessionLayerBuilder::max_size) lets one guest store. It does push out the
/// carts of guests: give the store room for more sessions than you expect to be live at once.
///
/// Operations remove a few expired sessions in passing, so that their memory is free soon. Without
/// traffic they stay until [`delete_expired`](SessionStore::delete_expired) is called.
///
/// ```
/// use cloakroom::{MemoryStore, SessionId};
/// use cloakroom::store::{Create, Digest, Record, SessionStore, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::store::StoreError> {
/// let store = MemoryStore::builder().max_sessions(2).build();
/// let now = Timestamp::from_millis(1_700_000_000_000);
/// let record = Record::new(Digest::from_bytes([7; 32]), now, Timestamp::MAX);
/// let [a, b, c] = [1, 2, 3].map(|n| SessionId::from_bytes([n; 16]));
///
/// assert_eq!(store.create(a, &record, now).await?, Create::Done);
/// assert_eq!(store.create(b, &record, now).await?, Create::Done);
/// store.load(a, now).await?; // Now `b` was not used for longest.
/// assert_eq!(store.create(c, &record, now).await?, Create::Done);
///
/// assert_eq!(store.len(), 2);
/// assert!(store.load(b, now).await?.is_none());
/// assert_eq!(store.load(a, now).await?, Some(record));
/// # Ok(())
/// # }
/// ```
// One lock for all. An operation holds it for some 100 ns while the tables fit into the caches, and
// for a microsecond at a million sessions: to find and copy a record that no cache has. It would be as
// much if a read did not move the session in the order of use. Two cores that do nothing else get five
// million requests a second through it; a lock for each would give three times that, but neither exact
// bounds nor one order of use.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<Sessions>>);

impl MemoryStore {
    /// What a session is counted as besides its data and its owner, in bytes: its row, its places
    /// in the tables, and what the allocator adds.
    // Measured with a counting allocator that rounds as glibc's does, over up to a million sessions,
    // at the worst moment (the table has just doubled) and the worst lengths: 365 bytes for a session
    // with an owner, 286 without.
    pub const SESSION_COST: usize = 366;

    /// What it is counted as more if it has a policy of its own, as `remember` gives it, or is in the grace
    /// of a renewal.
    pub const RARE_COST: usize = 96;

    /// A store with the default bounds: 100 000 sessions and 64 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Sets other bounds.
    pub fn builder() -> MemoryStoreBuilder {
        MemoryStoreBuilder {
            max_sessions: 100_000,
            max_anonymous_sessions: usize::MAX,
            max_bytes: 64 << 20,
        }
    }

    /// The number of sessions held, expired ones included that were not yet removed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().by_use.len()
    }

    /// Whether no session is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The bytes held: for each session the length of its data and of its owner and
    /// [`SESSION_COST`](Self::SESSION_COST), and [`RARE_COST`](Self::RARE_COST) for some.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

/// Sets the bounds of a [`MemoryStore`].
///
/// ```
/// use cloakroom::MemoryStore;
///
/// let store = MemoryStore::builder().max_sessions(10_000).max_bytes(16 << 20).build();
/// assert!(store.is_empty());
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct MemoryStoreBuilder {
    max_sessions: usize,
    max_anonymous_sessions: usize,
    max_bytes: usize,
}

impl MemoryStoreBuilder {
    /// How many sessions are held at most; 0 has room for one, too. The default is 100 000.
    pub fn max_sessions(mut self, max: usize) -> Self {
        self.max_sessions = max;
        self
    }

    /// How many of them may have no owner; 0 has room for one, too. The default is no bound of their
    /// own: all places that signed-in users do not need.
    pub fn max_anonymous_sessions(mut self, max: usize) -> Self {
        self.max_anonymous_sessions = max;
        self
    }

    /// How many [bytes](MemoryStore::bytes) are held at most; however few, there is room for one
    /// session. The default is 64 MiB.
    pub fn max_bytes(mut self, max: usize) -> Self {
        self.max_bytes = max;
        self
    }

    /// Makes the store.
    #[must_use]
    pub fn build(self) -> MemoryStore {
        MemoryStore(Arc::new(Mutex::new(Sessions::new(self))))
    }
}

impl SessionStore for MemoryStore {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        Ok(self.lock().create(id, record, now))
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        Ok(self.lock().live(id, now).map(|row| row.record()))
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        Ok(self.lock().update(id, record, expected, now))
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        Ok(self.lock().touch(id, expires, now))
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        Ok(self.lock().remove(id).is_some())
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        Ok(self.lock().delete_expired(now, limit))
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        Ok(self.lock().list_by_owner(owner, now))
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        Ok(self.lock().delete_by_owner(owner, keep, now))
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        Ok(self.lock().sign_in(id, record, expected, admission, now))
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        Ok(self.lock().delete_all())
    }
}

/// The records and two indexes over them.
struct Sessions {
    bounds: MemoryStoreBuilder,
    by_use: ByUse,
    /// The last to end comes first: there the search for a place begins, and a session that begins or
    /// goes on ends after most others.
    by_expiry: BTreeSet<Reverse<(Timestamp, SessionId)>>,
    /// By the hash of the owner, which is smaller and sooner compared. Two owners may have one hash: the
    /// record says whose the session is.
    by_owner: BTreeSet<(u64, SessionId)>,
    owner_hash: DefaultHashBuilder,
    /// When an owner's sessions were revoked, and which was spared.
    revoked: HashMap<Arc<str>, Revoked>,
    bytes: usize,
}

/// The records, anonymous ones apart, since they make room first.
#[derive(Default)]
struct ByUse {
    anonymous: Shelf,
    signed_in: Shelf,
}

impl ByUse {
    fn len(&self) -> usize {
        self.anonymous.rows.len() + self.signed_in.rows.len()
    }

    fn shelf_for(&mut self, row: &Row) -> &mut Shelf {
        match row.owner {
            Some(_) => &mut self.signed_in,
            None => &mut self.anonymous,
        }
    }

    fn get(&self, id: SessionId) -> Option<&Row> {
        let Self {
            anonymous,
            signed_in,
        } = self;
        let found = signed_in.rows.get(&id);
        found.or_else(|| anonymous.rows.get(&id))
    }

    /// The row, as the most recently used one.
    fn used(&mut self, id: SessionId) -> Option<&mut Row> {
        let Self {
            anonymous,
            signed_in,
        } = self;
        let found = signed_in.used(id);
        found.or_else(|| anonymous.used(id))
    }

    fn remove(&mut self, id: SessionId) -> Option<Row> {
        let removed = self.signed_in.remove(id);
        removed.or_else(|| self.anonymous.remove(id))
    }
}

/// Rows, from the least to the most recently used.
#[derive(Default)]
struct Shelf {
    rows: LinkedHashMap<SessionId, Row>,
    /// The most rows there were since the map was last shrunk.
    peak: usize,
}

impl Shelf {
    /// Up to this many rows the space is kept.
    const NOT_WORTH_SHRINKING: usize = 64;

    fn insert(&mut self, id: SessionId, row: Row) {
        self.rows.insert(id, row);
        self.peak = self.peak.max(self.rows.len());
    }

    fn used(&mut self, id: SessionId) -> Option<&mut Row> {
        // Asked of both shelves, and often one is empty: then nothing is hashed.
        if self.rows.is_empty() {
            return None;
        }
        self.rows.to_back(&id)
    }

    fn remove(&mut self, id: SessionId) -> Option<Row> {
        let removed = self.rows.remove(&id)?;
        // The map keeps the space of removed rows for new ones; after a flood it is given back.
        // Half the peak was removed since the last time: a removal's share of the work is constant.
        if self.rows.len() <= self.peak / 2 && self.peak > Self::NOT_WORTH_SHRINKING {
            self.rows.shrink_to_fit();
            self.peak = self.rows.len();
        }
        Some(removed)
    }

    /// Who was not used for longest, other than `newest`.
    fn oldest_but(&self, newest: SessionId) -> Option<SessionId> {
        let (&id, _) = self.rows.front()?;
        (id != newest).then_some(id)
    }
}

/// A record as it is kept: what most sessions have not takes a pointer's room.
struct Row {
    version: Version,
    digest: Digest,
    owner: Option<Arc<str>>,
    created: Timestamp,
    authenticated: Option<Timestamp>,
    renewed: Timestamp,
    seen: Timestamp,
    expires: Timestamp,
    data: Content,
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Copy)]
struct Rare {
    previous: Option<Previous>,
    policy: Option<ExpiryPolicy>,
}

impl Row {
    fn new(record: &Record) -> Self {
        let Record {
            version,
            digest,
            previous,
            owner,
            created,
            authenticated,
            renewed,
            seen,
            expires,
            policy,
            data,
        } = record;
        let rare = Rare {
            previous: *previous,
            policy: *policy,
        };
        Self {
            version: *version,
            digest: *digest,
            owner: owner.clone(),
            created: *created,
            authenticated: *authenticated,
            renewed: *renewed,
            seen: *seen,
            expires: *expires,
            data: data.clone(),
            rare: (previous.is_some() || policy.is_some()).then(|| Box::new(rare)),
        }
    }

    fn record(&self) -> Record {
        let rare = self.rare.as_deref();
        Record {
            version: self.version,
            digest: self.digest,
            previous: rare.and_then(|rare| rare.previous),
            owner: self.owner.clone(),
            created: self.created,
            authenticated: self.authenticated,
            renewed: self.renewed,
            seen: self.seen,
            expires: self.expires,
            policy: rare.and_then(|rare| rare.policy),
            data: self.data.clone(),
        }
    }

    /// Keeps a touch of `old`, in whose place it comes, that came in since its record was loaded.
    fn keep_touch(&mut self, old: &Self, now: Timestamp) {
        if self.seen < now && self.seen < old.seen {
            self.seen = old.seen;
            self.expires = self.expires.max(old.expires);
        }
    }

    /// What it is counted as.
    fn cost(&self) -> usize {
        let rare = self.rare.as_ref().map_or(0, |_| MemoryStore::RARE_COST);
        let owner = self.owner.as_ref().map_or(0, |owner| owner.len());
        MemoryStore::SESSION_COST + rare + self.data.len() + owner
    }
}

struct Revoked {
    at: Timestamp,
    kept: Option<SessionId>,
    /// The last revocation that did not spare `kept`.
    kept_not: Option<Timestamp>,
}

impl Revoked {
    fn again(&mut self, at: Timestamp, kept: Option<SessionId>) {
        if kept == self.kept {
            self.at = self.at.max(at);
        } else if at < self.at {
            self.kept_not = self.kept_not.max(Some(at));
        } else {
            let kept_not = Some(self.at);
            *self = Self { at, kept, kept_not };
        }
    }

    fn refuses(&self, id: SessionId, began: Timestamp) -> bool {
        let last = if self.kept == Some(id) {
            self.kept_not
        } else {
            Some(self.at)
        };
        last >= Some(began)
    }
}

impl Sessions {
    /// How long a revocation is remembered: longer than any sign-in is under way.
    const REVOKED_FOR: Duration = Duration::from_secs(60 * 60);

    /// How many expired sessions an operation removes. More than one, so that expired sessions
    /// become fewer even if every operation adds one.
    const SWEPT_AT_ONCE: usize = 4;

    fn new(bounds: MemoryStoreBuilder) -> Self {
        Self {
            bounds,
            by_use: ByUse::default(),
            by_expiry: BTreeSet::new(),
            by_owner: BTreeSet::new(),
            owner_hash: DefaultHashBuilder::default(),
            revoked: HashMap::new(),
            bytes: 0,
        }
    }

    fn create(&mut self, id: SessionId, record: &Record, now: Timestamp) -> Create {
        if self.live(id, now).is_some() {
            return Create::Taken;
        }
        self.insert(id, Row::new(record));
        self.evict(id, now);
        Create::Done
    }

    /// The row, if it is live, which counts as used.
    fn live(&mut self, id: SessionId, now: Timestamp) -> Option<&mut Row> {
        let swept = self.delete_expired(now, Self::SWEPT_AT_ONCE);
        // If fewer were found than may be removed, no expired one is left.
        if swept == Self::SWEPT_AT_ONCE && self.by_use.get(id)?.expires <= now {
            self.remove(id);
        }
        self.by_use.used(id)
    }

    fn update(
        &mut self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Update {
        match self.live(id, now) {
            None => return Update::Gone,
            Some(current) if current.version != expected => {
                return Update::Conflict(current.record());
            }
            Some(current) if current.owner == record.owner => {
                let mut new = Row::new(record);
                new.keep_touch(current, now);
                let (cost, expires) = (new.cost(), new.expires);
                let old = mem::replace(current, new);
                self.bytes = self.bytes + cost - old.cost();
                self.move_expiry(id, old.expires, expires);
            }
            Some(current) => {
                let mut new = Row::new(record);
                new.keep_touch(current, now);
                self.replace(id, new);
            }
        }
        self.evict(id, now);
        Update::Done
    }

    fn touch(&mut self, id: SessionId, expires: Timestamp, now: Timestamp) -> bool {
        let Some(row) = self.live(id, now) else {
            return false;
        };
        row.seen = row.seen.max(now);
        let from = row.expires;
        if expires > from {
            row.expires = expires;
            self.move_expiry(id, from, expires);
        }
        true
    }

    fn sign_in(
        &mut self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> SignIn {
        match (self.live(id, now), expected) {
            (None, Some(_)) => return SignIn::Gone,
            (Some(_), None) => return SignIn::Taken,
            (Some(current), Some(expected)) if current.version != expected => {
                return SignIn::Conflict(current.record());
            }
            _ => {}
        }
        let owner = record.owner.as_deref().unwrap_or_default();
        if let Some(revoked) = self.revoked.get(owner)
            && revoked.refuses(id, admission.began)
        {
            return SignIn::Revoked;
        }
        if let Some(limit) = admission.limit {
            let mut others: Vec<_> = self
                .sessions_of(owner)
                .filter(|(other, row)| *other != id && row.expires > now)
                .map(|(other, row)| (row.authenticated, other))
                .collect();
            let room = limit.max.get() - 1;
            let surplus = others.len().saturating_sub(room);
            if surplus > 0 && limit.when_full == WhenFull::Refuse {
                return SignIn::Full;
            }
            others.sort_unstable();
            for (_, oldest) in &others[..surplus] {
                self.remove(*oldest);
            }
        }
        self.replace(id, Row::new(record));
        self.evict(id, now);
        SignIn::Done
    }

    fn delete_expired(&mut self, now: Timestamp, limit: usize) -> usize {
        (0..limit)
            .take_while(|_| self.remove_first_expired(now))
            .count()
    }

    fn remove_first_expired(&mut self, now: Timestamp) -> bool {
        match self.by_expiry.last() {
            Some(Reverse((expires, _))) if *expires <= now => {}
            _ => return false,
        }
        let first = self.by_expiry.pop_last();
        first.and_then(|Reverse((_, id))| self.take(id)).is_some()
    }

    fn list_by_owner(&mut self, owner: &str, now: Timestamp) -> Vec<(SessionId, Record)> {
        self.delete_expired(now, Self::SWEPT_AT_ONCE);
        self.sessions_of(owner)
            .filter(|(_, row)| row.expires > now)
            .map(|(id, row)| (id, row.record()))
            .collect()
    }

    fn delete_by_owner(&mut self, owner: &str, keep: Option<SessionId>, now: Timestamp) -> usize {
        let remembered = |revoked: &Revoked| now.saturating_since(revoked.at) < Self::REVOKED_FOR;
        self.revoked.retain(|_, revoked| remembered(revoked));
        let revoked = self.revoked.entry(owner.into()).or_insert(Revoked {
            at: now,
            kept: keep,
            kept_not: None,
        });
        revoked.again(now, keep);
        let ids = self.sessions_of(owner).map(|(id, _)| id);
        let ids: Vec<_> = ids.filter(|id| Some(*id) != keep).collect();
        let rows = ids.into_iter().filter_map(|id| self.remove(id));
        rows.filter(|row| row.expires > now).count()
    }

    fn delete_all(&mut self) -> usize {
        let removed = self.by_use.len();
        self.by_use = ByUse::default();
        self.by_expiry.clear();
        self.by_owner.clear();
        self.bytes = 0;
        removed
    }

    fn sessions_of(&self, owner: &str) -> impl Iterator<Item = (SessionId, &Row)> {
        let hash = self.owner_hash.hash_one(owner);
        let [first, last] = [[0; 16], [0xff; 16]].map(|id| (hash, SessionId::from_bytes(id)));
        let listed = self.by_owner.range(first..=last);
        listed
            .filter_map(|(_, id)| Some((*id, self.by_use.get(*id)?)))
            .filter(move |(_, row)| row.owner.as_deref() == Some(owner))
    }

    /// Makes room for `newest`, which is the most recently used of its kind.
    fn evict(&mut self, newest: SessionId, now: Timestamp) {
        loop {
            let ByUse {
                anonymous,
                signed_in,
            } = &self.by_use;
            let full =
                self.by_use.len() > self.bounds.max_sessions || self.bytes > self.bounds.max_bytes;
            let crowded = anonymous.rows.len() > self.bounds.max_anonymous_sessions;
            if !full && !crowded {
                return;
            }
            let oldest = anonymous.oldest_but(newest);
            let oldest = oldest.or_else(|| signed_in.oldest_but(newest).filter(|_| full));
            if self.remove_first_expired(now) {
                continue;
            }
            match oldest {
                Some(id) => self.remove(id),
                None => return,
            };
        }
    }

    /// Stores the row of a session that has none, as the most recently used one.
    fn insert(&mut self, id: SessionId, row: Row) {
        self.bytes += row.cost();
        self.by_expiry.insert(Reverse((row.expires, id)));
        self.list(id, row.owner.as_ref());
        self.by_use.shelf_for(&row).insert(id, row);
    }

    /// Stores a row in the place of the session's earlier one, if it has one.
    fn replace(&mut self, id: SessionId, row: Row) {
        self.remove(id);
        self.insert(id, row);
    }

    fn remove(&mut self, id: SessionId) -> Option<Row> {
        let row = self.take(id)?;
        self.by_expiry.remove(&Reverse((row.expires, id)));
        Some(row)
    }

    /// Removes a session from everywhere but `by_expiry`.
    fn take(&mut self, id: SessionId) -> Option<Row> {
        let row = self.by_use.remove(id)?;
        self.bytes -= row.cost();
        self.unlist(id, row.owner.as_ref());
        Some(row)
    }

    fn move_expiry(&mut self, id: SessionId, from: Timestamp, to: Timestamp) {
        if from != to {
            self.by_expiry.insert(Reverse((to, id)));
            self.by_expiry.remove(&Reverse((from, id)));
        }
    }

    fn list(&mut self, id: SessionId, owner: Option<&Arc<str>>) {
        if let Some(owner) = owner {
            self.by_owner.insert((self.owner_hash.hash_one(owner), id));
        }
    }

    fn unlist(&mut self, id: SessionId, owner: Option<&Arc<str>>) {
        if let Some(owner) = owner {
            self.by_owner.remove(&(self.owner_hash.hash_one(owner), id));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::contract::OwnerLimit;

    const COST: usize = MemoryStore::SESSION_COST;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn id(n: u8) -> SessionId {
        SessionId::from_bytes([n; 16])
    }

    fn record(expires: u64, owner: Option<&str>, len: usize) -> Record {
        let mut record = Record::new(Digest::from_bytes([1; 32]), at(0), at(expires));
        record.owner = owner.map(Into::into);
        record.data = vec![b'x'; len].into();
        record
    }

    /// Stores sessions that expire at the given times.
    async fn fill(store: &MemoryStore, expires: impl IntoIterator<Item = u64>) {
        for (n, expires) in (0..).zip(expires) {
            let created = store
                .create(id(n), &record(expires, None, 0), at(0))
                .await
                .unwrap();
            assert_eq!(created, Create::Done);
        }
    }

    /// The rows, anonymous ones first, each kind from the least to the most recently used.
    fn rows(sessions: &Sessions) -> impl Iterator<Item = (&SessionId, &Row)> {
        let ByUse {
            anonymous,
            signed_in,
        } = &sessions.by_use;
        anonymous.rows.iter().chain(signed_in.rows.iter())
    }

    /// The ids held, in that order.
    fn held(store: &MemoryStore) -> Vec<SessionId> {
        rows(&store.lock()).map(|(id, _)| *id).collect()
    }

    /// The indexes and the count of bytes say what the rows say.
    fn assert_consistent(store: &MemoryStore) {
        let sessions = store.lock();
        let rows = || rows(&sessions);
        for (_, row) in &sessions.by_use.anonymous.rows {
            assert_eq!(row.owner, None);
        }
        assert_eq!(sessions.by_use.len(), rows().count());
        let mut signed_in = sessions.by_use.signed_in.rows.values();
        assert!(signed_in.all(|row| row.owner.is_some()));
        let by_expiry = rows().map(|(id, row)| Reverse((row.expires, *id)));
        let hash = |owner: &Arc<str>| sessions.owner_hash.hash_one(owner);
        let by_owner = rows().filter_map(|(id, row)| Some((hash(row.owner.as_ref()?), *id)));
        assert_eq!(sessions.by_expiry, by_expiry.collect());
        assert_eq!(sessions.by_owner, by_owner.collect());
        let bytes: usize = rows().map(|(_, row)| row.cost()).sum();
        assert_eq!(sessions.bytes, bytes);
    }

    #[tokio::test]
    async fn the_session_not_used_for_longest_makes_room() {
        for using in ["load", "update", "touch"] {
            let store = MemoryStore::builder().max_sessions(3).build();
            fill(&store, [9; 3]).await;
            match using {
                "load" => assert!(store.load(id(0), at(1)).await.unwrap().is_some()),
                "touch" => assert!(store.touch(id(0), at(9), at(1)).await.unwrap()),
                _ => {
                    let new = record(9, None, 0);
                    let done = store
                        .update(id(0), &new, Version::FIRST, at(1))
                        .await
                        .unwrap();
                    assert_eq!(done, Update::Done);
                }
            }
            let _ = store
                .create(id(3), &record(9, None, 0), at(1))
                .await
                .unwrap();
            assert_eq!(held(&store), [id(2), id(0), id(3)], "{using}");
            assert_consistent(&store);
        }
    }

    #[tokio::test]
    async fn the_bound_on_bytes_is_exact() {
        let store = MemoryStore::builder().max_bytes(3 * COST + 30).build();
        for n in 0..3 {
            let _ = store
                .create(id(n), &record(9, Some("ada"), 7), at(0))
                .await
                .unwrap();
        }
        assert_eq!((store.len(), store.bytes()), (3, 3 * COST + 30));

        let grown = record(9, Some("ada"), 8);
        let _ = store
            .update(id(0), &grown, Version::FIRST, at(0))
            .await
            .unwrap();
        assert_eq!(
            held(&store),
            [id(2), id(0)],
            "one byte more pushes out the oldest"
        );
        assert_eq!(store.bytes(), 2 * COST + 21);
        assert_consistent(&store);
    }

    #[tokio::test]
    async fn the_newest_session_is_kept_even_if_it_alone_exceeds_the_bounds() {
        let store = MemoryStore::builder().max_sessions(0).max_bytes(0).build();
        fill(&store, [9; 2]).await;
        assert_eq!(held(&store), [id(1)]);

        let store = MemoryStore::builder().max_bytes(3 * COST).build();
        fill(&store, [9; 3]).await;
        let large = record(9, None, 4 * COST);
        let _ = store
            .update(id(1), &large, Version::FIRST, at(1))
            .await
            .unwrap();
        assert_eq!(held(&store), [id(1)]);
        fill(&store, [9]).await;
        assert_eq!(held(&store), [id(0)]);
        assert_consistent(&store);
    }

    #[tokio::test]
    async fn expired_sessions_make_room_before_live_ones() {
        let store = MemoryStore::builder().max_bytes(20 * COST).build();
        fill(&store, [9].into_iter().chain([5; 19])).await;
        // More room than passing removals make.
        let _ = store
            .create(id(99), &record(9, None, 10 * COST), at(5))
            .await
            .unwrap();
        assert_eq!(held(&store).first(), Some(&id(0)));
        assert!(store.bytes() <= 20 * COST);
        assert_consistent(&store);
    }

    /// S-69.
    #[tokio::test]
    async fn anonymous_sessions_make_room_before_signed_in_ones() {
        let store = MemoryStore::builder().max_sessions(3).build();
        let put = async |n, owner, len| {
            let created = store.create(id(n), &record(9, owner, len), at(0)).await;
            assert_eq!(created.unwrap(), Create::Done);
            assert_consistent(&store);
            held(&store)
        };
        put(0, Some("ada"), 0).await;
        put(1, None, 0).await;
        put(2, None, 0).await;
        assert_eq!(put(3, None, 0).await, [2, 3, 0].map(id));
        assert_eq!(put(4, Some("grace"), 0).await, [3, 0, 4].map(id));
        assert_eq!(put(5, Some("adam"), 0).await, [0, 4, 5].map(id));
        // Nobody else is left to go for the newest one, but for a second one it is.
        assert_eq!(put(6, None, 0).await, [6, 4, 5].map(id));
        assert_eq!(put(7, None, 0).await, [7, 4, 5].map(id));
    }

    /// S-69.
    #[tokio::test]
    async fn anonymous_sessions_have_a_bound_of_their_own() {
        for (max, expected) in [(0, &[9][..]), (2, &[8, 9]), (usize::MAX, &[6, 7, 8, 9])] {
            let store = MemoryStore::builder()
                .max_sessions(5)
                .max_anonymous_sessions(max)
                .build();
            let ada = record(9, Some("ada"), 0);
            let _ = store.create(id(99), &ada, at(0)).await.unwrap();
            fill(&store, [9; 10]).await;
            let held = held(&store);
            let expected: Vec<_> = expected.iter().chain(&[99]).map(|n| id(*n)).collect();
            assert_eq!(held, expected);
            assert_consistent(&store);
        }
    }

    #[tokio::test]
    async fn operations_remove_expired_sessions_in_passing() {
        let store = MemoryStore::new();
        fill(&store, [9].into_iter().chain([5; 25])).await;
        assert!(store.load(id(100), at(5)).await.unwrap().is_none());
        assert_eq!(store.len(), 22);
        let gone = store
            .update(id(100), &record(9, None, 0), Version::FIRST, at(5))
            .await
            .unwrap();
        assert_eq!(gone, Update::Gone);
        assert_eq!(store.len(), 18);
        assert!(!store.touch(id(100), at(9), at(5)).await.unwrap());
        assert_eq!(store.len(), 14);
        assert!(store.list_by_owner("ada", at(5)).await.unwrap().is_empty());
        assert_eq!(store.len(), 10);
        let _ = store
            .create(id(100), &record(9, None, 0), at(5))
            .await
            .unwrap();
        assert_eq!(store.len(), 7);
        assert!(store.load(id(0), at(5)).await.unwrap().is_some());
        assert_eq!(store.len(), 3);
        assert_consistent(&store);
    }

    #[tokio::test]
    async fn an_expired_session_that_is_asked_for_is_removed() {
        let store = MemoryStore::new();
        fill(&store, 1..=8).await;
        assert!(store.load(id(7), at(8)).await.unwrap().is_none());
        assert_eq!(
            held(&store),
            [id(4), id(5), id(6)],
            "four in passing, and the one asked for"
        );
        assert_consistent(&store);
    }

    #[tokio::test]
    async fn expired_sessions_that_were_not_removed_yet_are_not_listed() {
        let store = MemoryStore::new();
        for n in 0..10 {
            let record = record(5, Some("ada"), 0);
            let _ = store.create(id(n), &record, at(0)).await.unwrap();
        }
        assert!(store.list_by_owner("ada", at(5)).await.unwrap().is_empty());
        assert_eq!(store.len(), 6);
    }

    #[tokio::test]
    async fn every_change_is_accounted() {
        let store = MemoryStore::new();
        let update = async |new: Record| {
            let done = store
                .update(id(1), &new, Version::FIRST, at(0))
                .await
                .unwrap();
            assert_eq!(done, Update::Done);
            assert_consistent(&store);
            store.bytes()
        };
        let _ = store
            .create(id(1), &record(9, None, 10), at(0))
            .await
            .unwrap();
        assert_eq!(store.bytes(), COST + 10);
        assert_eq!(update(record(9, None, 25)).await, COST + 25);
        assert_eq!(update(record(8, Some("ada"), 25)).await, COST + 28);
        assert_eq!(update(record(8, Some("grace"), 3)).await, COST + 8);
        assert_eq!(update(record(7, None, 3)).await, COST + 3);
        assert!(store.touch(id(1), at(20), at(0)).await.unwrap());
        assert_eq!(store.bytes(), COST + 3);
        assert_consistent(&store);
        assert!(store.delete(id(1)).await.unwrap());
        assert_eq!(store.bytes(), 0);

        fill(&store, 1..=10).await;
        assert_eq!(store.delete_expired(at(4), 3).await.unwrap(), 3);
        assert_eq!(store.delete_expired(at(4), 3).await.unwrap(), 1);
        assert_eq!(store.bytes(), 6 * COST);
        let _ = store
            .create(id(20), &record(9, Some("ada"), 7), at(0))
            .await
            .unwrap();
        assert_eq!(store.delete_by_owner("ada", None, at(0)).await.unwrap(), 1);
        assert_eq!(store.bytes(), 6 * COST);
        assert_consistent(&store);
    }

    #[tokio::test]
    async fn the_space_of_a_flood_is_given_back() {
        let store = MemoryStore::new();
        let wide = |n: u32| {
            let mut id = [0; 16];
            id[..4].copy_from_slice(&n.to_be_bytes());
            SessionId::from_bytes(id)
        };
        for n in 0..10_000 {
            let _ = store
                .create(wide(n), &record(9, None, 0), at(0))
                .await
                .unwrap();
        }
        assert!(store.lock().by_use.anonymous.rows.capacity() >= 10_000);
        assert_eq!(store.delete_expired(at(9), 9_990).await.unwrap(), 9_990);
        let sessions = store.lock();
        let Shelf { rows, peak } = &sessions.by_use.anonymous;
        assert!(rows.capacity() < 200, "{}", rows.capacity());
        assert!(*peak < 100, "{peak}");
    }

    /// The measured costs hold for rows of these sizes; after a change measure again.
    #[test]
    #[cfg(target_pointer_width = "64")]
    fn rows_have_the_size_that_was_measured() {
        assert_eq!(size_of::<(SessionId, Row)>(), 152);
        assert_eq!(size_of::<Rare>(), 80);
    }

    #[tokio::test]
    async fn clones_share_their_sessions() {
        let store = MemoryStore::new();
        let clone = store.clone();
        fill(&store, [9]).await;
        assert_eq!((clone.len(), clone.bytes()), (1, COST));
        assert!(MemoryStore::default().is_empty());
    }

    /// S-10.
    #[tokio::test]
    async fn debug_shows_no_contents() {
        let store = MemoryStore::new();
        fill(&store, [9]).await;
        assert_eq!(format!("{store:?}"), "MemoryStore { .. }");
    }

    #[tokio::test]
    async fn a_panic_elsewhere_does_not_close_the_store() {
        let store = MemoryStore::new();
        fill(&store, [9]).await;
        let clone = store.clone();
        let panicking = std::thread::spawn(move || {
            let _guard = clone.lock();
            panic!("with the lock held");
        });
        panicking.join().unwrap_err();
        assert!(store.0.is_poisoned());
        assert!(store.load(id(0), at(0)).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn two_owners_with_one_hash_have_each_their_own_sessions() {
        let store = MemoryStore::new();
        for (n, owner) in [(1, "ada"), (2, "grace")] {
            let record = record(9, Some(owner), 0);
            let _ = store.create(id(n), &record, at(0)).await.unwrap();
        }
        {
            let mut sessions = store.lock();
            let hash = sessions.owner_hash.hash_one("ada");
            sessions.by_owner.insert((hash, id(2)));
        }
        let listed = store.list_by_owner("ada", at(0)).await.unwrap();
        assert_eq!(listed.len(), 1);
        let mut new = record(9, Some("ada"), 0);
        new.authenticated = Some(at(1));
        let limit = OwnerLimit::new(2.try_into().unwrap(), WhenFull::Refuse);
        let admission = Admission {
            began: at(1),
            limit: Some(limit),
        };
        let done = store.sign_in(id(3), &new, None, admission, at(1)).await;
        assert_eq!(done.unwrap(), SignIn::Done);
        assert_eq!(store.delete_by_owner("ada", None, at(1)).await.unwrap(), 2);
        assert_eq!(held(&store), [id(2)]);
    }

    #[tokio::test]
    async fn a_revocation_is_forgotten_after_an_hour() {
        let store = MemoryStore::new();
        let hour = 60 * 60 * 1_000;
        for (owner, millis) in [("ada", 0), ("grace", 1), ("adam", hour - 1)] {
            store
                .delete_by_owner(owner, None, at(millis))
                .await
                .unwrap();
        }
        assert_eq!(store.lock().revoked.len(), 3);
        store.delete_by_owner("adam", None, at(hour)).await.unwrap();
        let mut owners: Vec<_> = store.lock().revoked.keys().cloned().collect();
        owners.sort();
        assert_eq!(owners, ["adam", "grace"].map(Arc::<str>::from));
    }

    /// The live sessions in their order of use, the slow and obvious way.
    struct Model {
        bounds: MemoryStoreBuilder,
        sessions: Vec<(SessionId, Record)>,
        revocations: Vec<(&'static str, Option<SessionId>, Timestamp)>,
    }

    impl Model {
        fn take(&mut self, id: SessionId) -> Option<Record> {
            let at = self.sessions.iter().position(|(held, _)| *held == id)?;
            Some(self.sessions.remove(at).1)
        }

        fn put(&mut self, id: SessionId, record: Record) {
            self.sessions.push((id, record));
            let bytes = |sessions: &[(_, Record)]| {
                let costs = sessions.iter().map(|(_, r)| Row::new(r).cost());
                costs.sum::<usize>()
            };
            while self.sessions.len() > 1
                && (self.sessions.len() > self.bounds.max_sessions
                    || bytes(&self.sessions) > self.bounds.max_bytes)
            {
                self.make_room(|_| true);
            }
            let anonymous = |sessions: &[(_, Record)]| {
                sessions.iter().filter(|(_, r)| r.owner.is_none()).count()
            };
            while anonymous(&self.sessions) > self.bounds.max_anonymous_sessions {
                self.make_room(|record| record.owner.is_none());
            }
        }

        /// Removes the first anonymous session, or else the first, but not the last.
        fn make_room(&mut self, may_go: fn(&Record) -> bool) {
            let (_, others) = self.sessions.split_last().unwrap();
            let anonymous = others.iter().position(|(_, r)| r.owner.is_none());
            let at = anonymous.unwrap_or(0);
            assert!(may_go(&self.sessions[at].1));
            self.sessions.remove(at);
        }

        fn sign_in(
            &mut self,
            id: SessionId,
            record: Record,
            expected: Option<Version>,
            admission: Admission,
        ) -> SignIn {
            let current = self.take(id);
            if let Some(current) = current.clone() {
                self.put(id, current);
            }
            match (current, expected) {
                (None, Some(_)) => return SignIn::Gone,
                (Some(_), None) => return SignIn::Taken,
                (Some(current), Some(expected)) if current.version != expected => {
                    return SignIn::Conflict(current);
                }
                _ => {}
            }
            let owner = record.owner.clone();
            if self.revocations.iter().any(|(revoked, kept, at)| {
                owner.as_deref() == Some(*revoked) && *kept != Some(id) && admission.began <= *at
            }) {
                return SignIn::Revoked;
            }
            while let Some(limit) = admission.limit {
                let others = self.sessions.iter().enumerate();
                let others = others.filter(|(_, (other, r))| *other != id && r.owner == owner);
                if others.clone().count() < limit.max.get() {
                    break;
                }
                if limit.when_full == WhenFull::Refuse {
                    return SignIn::Full;
                }
                let oldest = others.min_by_key(|(_, (id, record))| (record.authenticated, *id));
                let (at, _) = oldest.unwrap();
                self.sessions.remove(at);
            }
            self.take(id);
            self.put(id, record);
            SignIn::Done
        }
    }

    #[tokio::test]
    async fn a_hundred_thousand_random_operations_agree_with_a_slow_and_obvious_model() {
        let bounds = MemoryStore::builder()
            .max_sessions(24)
            .max_anonymous_sessions(5)
            .max_bytes(20 * (COST + 100));
        let store = bounds.clone().build();
        let mut model = Model {
            bounds,
            sessions: Vec::new(),
            revocations: Vec::new(),
        };
        let limits = [(2, WhenFull::EvictOldest), (3, WhenFull::Refuse)]
            .map(|(max, when_full)| OwnerLimit::new(max.try_into().unwrap(), when_full));
        let mut now = at(1_000);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 16) % below
        };
        let owners = [None, Some("ada"), Some("grace"), Some("adam")];
        for _ in 0..100_000 {
            now = now.saturating_add(Duration::from_millis(random(4)));
            model.sessions.retain(|(_, record)| record.expires > now);
            let id = id(u8::try_from(random(40)).unwrap());
            let expires = now.as_millis() + 1 + random(150);
            let owner = owners[usize::try_from(random(4)).unwrap()];
            let mut new = record(expires, owner, usize::try_from(random(200)).unwrap());
            match random(12) {
                0..=2 => {
                    let taken = model.sessions.iter().any(|(held, _)| *held == id);
                    let created = store.create(id, &new, now).await.unwrap();
                    assert_eq!(created == Create::Taken, taken);
                    if let Some(current) = model.take(id) {
                        model.put(id, current);
                    } else {
                        model.put(id, new);
                    }
                }
                3 => {
                    let expected = model.take(id);
                    assert_eq!(store.load(id, now).await.unwrap(), expected);
                    if let Some(current) = expected {
                        model.put(id, current);
                    }
                }
                4 | 5 => {
                    let updated = store.update(id, &new, Version::FIRST, now).await.unwrap();
                    let current = model.take(id);
                    assert_eq!(updated == Update::Done, current.is_some());
                    if let Some(current) = current {
                        if new.seen < now && new.seen < current.seen {
                            (new.seen, new.expires) =
                                (current.seen, new.expires.max(current.expires));
                        }
                        model.put(id, new);
                    }
                }
                6 => {
                    let current = model.take(id);
                    let touched = store.touch(id, at(expires), now).await.unwrap();
                    assert_eq!(touched, current.is_some());
                    if let Some(mut current) = current {
                        current.expires = current.expires.max(at(expires));
                        current.seen = current.seen.max(now);
                        model.put(id, current);
                    }
                }
                7 if random(50) == 0 => {
                    let removed = store.delete_all().await.unwrap();
                    assert!(removed >= model.sessions.len());
                    model.sessions.clear();
                }
                8..=10 => {
                    new.owner = Some(owner.unwrap_or("adam").into());
                    new.authenticated = Some(at(random(100)));
                    let expected = [None, Some(1), Some(2)][usize::try_from(random(3)).unwrap()];
                    let expected = expected.map(Version::new);
                    let began = at(now.as_millis() - random(300));
                    let limit = limits.get(usize::try_from(random(3)).unwrap()).copied();
                    let admission = Admission { began, limit };
                    let answer = store.sign_in(id, &new, expected, admission, now).await;
                    assert_eq!(answer.unwrap(), model.sign_in(id, new, expected, admission));
                }
                7 => {
                    let _ = store.delete(id).await.unwrap();
                    model.take(id);
                }
                _ => {
                    let owner = owner.unwrap_or("adam");
                    let mut listed = store.list_by_owner(owner, now).await.unwrap();
                    let mut expected = model.sessions.clone();
                    expected.retain(|(_, record)| record.owner.as_deref() == Some(owner));
                    listed.sort_by_key(|(id, _)| *id);
                    expected.sort_by_key(|(id, _)| *id);
                    assert_eq!(listed, expected);
                    if random(2) == 0 {
                        let time = at(now.as_millis() - random(100));
                        let keep = (random(2) == 0).then_some(id);
                        store.delete_by_owner(owner, keep, time).await.unwrap();
                        model.revocations.push((owner, keep, time));
                        model.sessions.retain(|(held, record)| {
                            record.owner.as_deref() != Some(owner) || Some(*held) == keep
                        });
                    }
                }
            }
            assert!(store.len() <= 24 && store.bytes() <= 20 * (COST + 100));
            let sessions = store.lock();
            let live = rows(&sessions).filter(|(_, row)| row.expires > now);
            let mut expected = model.sessions.clone();
            expected.sort_by_key(|(_, record)| record.owner.is_some());
            assert!(live.map(|(id, row)| (*id, row.record())).eq(expected));
            drop(sessions);
            assert_consistent(&store);
        }
    }

    /// S-69: by bytes as well, whatever their size.
    #[tokio::test]
    async fn guests_take_the_room_of_one_guest_from_those_who_signed_in() {
        let (users, small, large) = (50, 100, 3_000);
        let one = COST + "ada".len() + small;
        let store = MemoryStore::builder().max_bytes(usize::from(users) * one);
        let store = store.build();
        for n in 0..users {
            let user = record(9, Some("ada"), small);
            let _ = store.create(id(n), &user, at(0)).await.unwrap();
        }
        for n in users..=u8::MAX {
            let guest = record(9, None, large);
            let _ = store.create(id(n), &guest, at(0)).await.unwrap();
            let left = store.list_by_owner("ada", at(0)).await.unwrap().len();
            assert_eq!(left, usize::from(users) - (COST + large).div_ceil(one));
        }
    }
}
