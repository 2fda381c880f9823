//! A cache in front of a store.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::clock::Timestamp;
use crate::error::{Chain, StoreError};
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

/// A store that answers reads from a cache for a bounded time.
///
/// **The default is no cache, and most applications need none**: one read by key is what every store
/// here does fastest. A cache is for reads that cost too much where they are answered, such as those of a
/// database in another place.
///
/// The cache is a store, too: a [`MemoryStore`](crate::MemoryStore) in the process, or a server that
/// several processes share. Not the store itself, nor a part of it: the cache has a prefix or a table of
/// its own. Clones are the same `CachedStore`.
///
/// ```
/// use std::time::Duration;
///
/// use cloakroom::{CachedStore, MemoryStore, SessionId};
/// use cloakroom::store::{Create, Digest, Record, SessionStore, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::store::StoreError> {
/// # let database = MemoryStore::new();
/// let cache = MemoryStore::builder().max_bytes(16 << 20).build();
/// let store = CachedStore::new(cache, database.clone(), Duration::from_secs(10))?;
/// let id = SessionId::from_bytes([7; 16]);
/// let at = |second: u64| Timestamp::from_millis(1_700_000_000_000 + 1_000 * second);
/// let record = Record::new(Digest::from_bytes([7; 32]), at(0), Timestamp::MAX);
/// assert_eq!(store.create(id, &record, at(0)).await?, Create::Done);
/// assert!(store.load(id, at(0)).await?.is_some());
///
/// // Another process ends the session. This one notices after ten seconds at the latest,
/// database.delete(id).await?;
/// assert!(store.load(id, at(9)).await?.is_some());
/// assert!(store.load(id, at(10)).await?.is_none());
///
/// // and what it ends itself at once.
/// assert_eq!(store.create(id, &record, at(11)).await?, Create::Done);
/// assert!(store.load(id, at(11)).await?.is_some());
/// store.delete(id).await?;
/// assert!(store.load(id, at(11)).await?.is_none());
/// # Ok(())
/// # }
/// ```
///
/// # What can be out of date, and how long
///
/// * **Through the same `CachedStore`** nothing: what it wrote, ended or revoked, its reads show at once,
///   whatever the cache holds or a slow read puts there afterwards.
/// * **Elsewhere**, at most the `bound`, counted from when the read began whose answer was cached, not from
///   when the answer came. A session that another process ended, renewed or changed may until then be
///   seen as it was. It can be read in that state, and that is all: every write goes to the store, whose
///   compare-and-swap meets the newer version, or none, and nothing comes back or is lost.
///
/// The other side of the second point is that a client with a **new token**, as after a sign-in, is a
/// stranger to a process that has the old state in a cache of its own. With more than one process either
/// share the cache, which every write purges, or lead each client to one process.
///
/// Processes that share a cache compare the time a read began with their own clocks. By what these
/// differ, the bound is longer.
///
/// # What it costs and wins
///
/// | Operation | Cache | Store |
/// |---|---|---|
/// | read, cached | 1 | – |
/// | read, not cached | 2: look and fill | 1 |
/// | create | – | 1 |
/// | write, sign-in, touch, delete | 1: purge | 1 |
/// | list | – | 1 |
/// | revoke all of an owner | 1 a session | 2: list and delete |
///
/// A request that changes its session thus asks the cache three times for nothing, if each does. In
/// memory it keeps some 150 bytes for each write of the last `bound`.
///
/// # When the cache fails
///
/// It is passed over: reads and writes go to the store. A call has
/// [100 milliseconds](Self::with_cache_timeout); after one that failed, the cache is left alone for a
/// second. Each such pause is logged at `warn`. A damaged entry counts as none. Whoever can write to the
/// cache can sign in as anybody, as with any store; around the cache, an
/// [`EncryptedStore`](crate::EncryptedStore) keeps both writers and readers out.
pub struct CachedStore<C, S> {
    inner: Arc<Inner<C, S>>,
    cache_timeout: Duration,
}

struct Inner<C, S> {
    cache: C,
    store: S,
    bound: Duration,
    /// Tells the entries that this value made from those of others.
    filler: u64,
    own: Mutex<Own>,
}

const CACHE_TIMEOUT: Duration = Duration::from_millis(100);

/// How long a cache that failed is left alone.
const REST: Duration = Duration::from_secs(1);

/// The longest bound: by default a session that nobody uses lives no longer.
const MAX_BOUND: Duration = Duration::from_secs(60 * 60);

const A_MILLISECOND: Duration = Duration::from_millis(1);

impl<C: SessionStore, S: SessionStore> CachedStore<C, S> {
    /// Puts `cache` in front of `store`.
    ///
    /// `bound` is how long a session that was ended elsewhere may still be read here: a millisecond to
    /// an hour. Take what you would answer for when a stolen session is revoked; a few seconds are
    /// enough to spare most reads of a page and what it loads.
    ///
    /// # Errors
    ///
    /// `bound` is out of range, or the operating system gives no random bytes.
    pub fn new(cache: C, store: S, bound: Duration) -> Result<Self, StoreError> {
        if !(A_MILLISECOND..=MAX_BOUND).contains(&bound) {
            let message = format!(
                "a `bound` of {bound:?} is out of range: use a millisecond to an hour, such as 5 seconds"
            );
            return Err(StoreError::new(message));
        }
        let mut filler = [0; 8];
        getrandom::fill(&mut filler).map_err(StoreError::new)?;
        let inner = Inner {
            cache,
            store,
            bound,
            filler: u64::from_ne_bytes(filler),
            own: Mutex::default(),
        };
        Ok(Self {
            inner: Arc::new(inner),
            cache_timeout: CACHE_TIMEOUT,
        })
    }

    /// Sets how long a call of the cache may take before it is passed over; the default is 100
    /// milliseconds. Stay well below [`store_timeout`](crate::SessionLayerBuilder::store_timeout), which
    /// the calls of the cache count towards.
    ///
    /// # Errors
    ///
    /// It is less than a millisecond.
    pub fn with_cache_timeout(self, cache_timeout: Duration) -> Result<Self, StoreError> {
        if cache_timeout < A_MILLISECOND {
            let message = "the cache's timeout is less than a millisecond: give it a longer one";
            return Err(StoreError::new(message));
        }
        Ok(Self {
            cache_timeout,
            ..self
        })
    }

    /// Asks the cache; `None` if it fails, is slow, or has just been so.
    async fn ask<T>(&self, question: impl Future<Output = Result<T, StoreError>>) -> Option<T> {
        if self.inner.own().rests() {
            return None;
        }
        match timeout(self.cache_timeout, question).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => {
                tracing::warn!(target: "cloakroom", error = %Chain(&error), "session cache failed");
            }
            Err(_) => tracing::warn!(target: "cloakroom", "session cache did not answer in time"),
        }
        self.inner.own().rest_until = Some(Instant::now() + REST);
        None
    }

    /// What the cache has of a session.
    async fn look(&self, id: SessionId, now: Timestamp) -> Held {
        let cache = &self.inner.cache;
        let question = async {
            match cache.load(id, now).await {
                Err(error) if error.is_corrupt() => {
                    tracing::warn!(target: "cloakroom", session = %id, error = %Chain(&error), "cached session is damaged");
                    cache.delete(id).await.map(|_| None)
                }
                answer => answer,
            }
        };
        match self.ask(question).await {
            None => Held::Unknown,
            Some(None) => Held::Nothing,
            Some(Some(cached)) => self.inner.judge(id, &cached, now),
        }
    }

    /// Caches what a read found that began at `now`.
    async fn fill(&self, held: &Held, entry: Entry, now: Timestamp) {
        let (id, cache) = (entry.id, &self.inner.cache);
        if self.inner.own().overrules(&entry, &self.inner) {
            return;
        }
        let cached = |version| entry.encode(version, self.inner.bound);
        // Whoever was faster may stay.
        match *held {
            Held::Nothing => {
                let record = cached(Version::FIRST);
                self.ask(cache.create(id, &record, now)).await;
            }
            Held::Stale(version) => {
                let record = cached(version.next());
                self.ask(cache.update(id, &record, version, now)).await;
            }
            Held::Fresh(_) | Held::Unknown => {}
        }
    }

    async fn purge(&self, id: SessionId) {
        self.ask(self.inner.cache.delete(id)).await;
    }

    /// Does `work`, which writes a session: what was read of it before counts no longer, whatever the
    /// answer is.
    async fn write<T>(
        &self,
        id: SessionId,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mark = self.inner.mark_at_the_end(Subject::Session(id));
        let answer = work.await;
        drop(mark);
        self.purge(id).await;
        answer
    }
}

impl<C, S> Inner<C, S> {
    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mark_at_the_end(&self, subject: Subject) -> Mark<'_> {
        Mark {
            own: &self.own,
            bound: self.bound,
            subject: Some(subject),
        }
    }

    /// Whether a record that the cache has under `id` can be used at `now`.
    fn judge(&self, id: SessionId, cached: &Record, now: Timestamp) -> Held {
        let stale = Held::Stale(cached.version);
        let entry = match Entry::decode(&cached.data) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(target: "cloakroom", session = %id, error = %Chain(&error), "cached session is damaged");
                return stale;
            }
        };
        // A beginning in the future is that of a clock which is wrong, and would last too long.
        let in_bound = entry.began <= now && now.saturating_since(entry.began) < self.bound;
        let own = self.own();
        // The end may have been moved meanwhile, which the store knows.
        let is_live = now.max(own.swept) < entry.record.expires;
        if entry.id == id && in_bound && is_live && !own.overrules(&entry, self) {
            Held::Fresh(entry.record)
        } else {
            stale
        }
    }
}

impl<C, S> Clone for CachedStore<C, S> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            cache_timeout: self.cache_timeout,
        }
    }
}

impl<C, S> fmt::Debug for CachedStore<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachedStore")
            .field("bound", &self.inner.bound)
            .field("cache_timeout", &self.cache_timeout)
            .finish_non_exhaustive()
    }
}

/// What the cache has of a session.
// The record is what most reads want.
#[allow(clippy::large_enum_variant)]
enum Held {
    Fresh(Record),
    /// Nothing that can be used, under a version.
    Stale(Version),
    Nothing,
    /// It did not answer.
    Unknown,
}

/// A record as it was read.
struct Entry {
    id: SessionId,
    filler: u64,
    /// [`Own::writes`] when the read began.
    writes: u64,
    began: Timestamp,
    record: Record,
}

impl Entry {
    /// As the cache keeps it: inside of the data of a record that ends with the bound and is nobody's.
    fn encode(&self, version: Version, bound: Duration) -> Record {
        let end = self.began.saturating_add(bound).min(self.record.expires);
        let mut cached = Record::new(self.record.digest, self.began, end);
        cached.version = version;
        let mut data = vec![Self::FORMAT];
        data.extend_from_slice(self.id.as_bytes());
        for number in [self.filler, self.writes, self.began.as_millis()] {
            data.extend_from_slice(&number.to_be_bytes());
        }
        data.extend_from_slice(&self.record.encode());
        cached.data = data.into();
        cached
    }

    fn decode(data: &[u8]) -> Result<Self, StoreError> {
        let mut rest = data;
        if Self::take(&mut rest)? != [Self::FORMAT] {
            return Err(StoreError::corrupt("the entry has an unknown format"));
        }
        let id = SessionId::from_bytes(Self::take(&mut rest)?);
        let mut number = || Self::take(&mut rest).map(u64::from_be_bytes);
        Ok(Self {
            id,
            filler: number()?,
            writes: number()?,
            began: Timestamp::from_millis(number()?),
            record: Record::decode(rest)?,
        })
    }

    fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], StoreError> {
        let short = || StoreError::corrupt("the entry is cut short");
        let (bytes, after) = rest.split_first_chunk().ok_or_else(short)?;
        *rest = after;
        Ok(*bytes)
    }

    const FORMAT: u8 = 1;
}

/// What a write is about.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Subject {
    Session(SessionId),
    Owner(Arc<str>),
    Everyone,
}

/// What this value wrote lately. It knows that better than the cache, which another process may fill with
/// what it read before, and which may have failed to be purged.
#[derive(Default)]
struct Own {
    /// How many writes have ended.
    writes: u64,
    /// For each subject of the last `bound` which write it was, and when.
    last: HashMap<Subject, (u64, Instant)>,
    /// The same, in the order of time.
    order: VecDeque<(Instant, Subject)>,
    /// What had ended by then may have been removed.
    swept: Timestamp,
    rest_until: Option<Instant>,
}

impl Own {
    fn rests(&self) -> bool {
        self.rest_until.is_some_and(|until| Instant::now() < until)
    }

    /// Notes the end of a write, and forgets those that are older than anything that can be used.
    fn mark(&mut self, subject: Subject, bound: Duration) {
        let now = Instant::now();
        while let Some((at, _)) = self.order.front()
            && now.duration_since(*at) > bound
            && let Some((at, subject)) = self.order.pop_front()
        {
            if self.last.get(&subject).is_some_and(|last| last.1 == at) {
                self.last.remove(&subject);
            }
        }
        self.writes += 1;
        self.last.insert(subject.clone(), (self.writes, now));
        self.order.push_back((now, subject));
    }

    fn swept_until(&mut self, now: Timestamp) {
        self.swept = self.swept.max(now);
    }

    /// Whether an entry may be older than a write through this value: one of its own if the read began
    /// before the write ended, one of another process for as long as that cannot be told.
    fn overrules<C, S>(&self, entry: &Entry, inner: &Inner<C, S>) -> bool {
        let after = |subject: &Subject| {
            let Some((write, at)) = self.last.get(subject) else {
                return true;
            };
            let own = entry.filler == inner.filler;
            (own && entry.writes >= *write) || at.elapsed() > inner.bound
        };
        let owner = entry.record.owner.clone().map(Subject::Owner);
        let subjects = [Subject::Session(entry.id), Subject::Everyone];
        !subjects.iter().chain(&owner).all(after)
    }
}

/// Marks its subject when it is dropped: at the end of a write, also if its future is dropped.
struct Mark<'a> {
    own: &'a Mutex<Own>,
    bound: Duration,
    subject: Option<Subject>,
}

impl Drop for Mark<'_> {
    fn drop(&mut self) {
        if let Some(subject) = self.subject.take() {
            let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.mark(subject, self.bound);
        }
    }
}

impl<C: SessionStore, S: SessionStore> SessionStore for CachedStore<C, S> {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        // Ids are not used twice, so the cache, and whoever shares it, has nothing to purge.
        let _mark = self.inner.mark_at_the_end(Subject::Session(id));
        self.inner.store.create(id, record, now).await
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let writes = self.inner.own().writes;
        let held = match self.look(id, now).await {
            Held::Fresh(record) => return Ok(Some(record)),
            held => held,
        };
        let Some(record) = self.inner.store.load(id, now).await? else {
            return Ok(None);
        };
        let entry = Entry {
            id,
            filler: self.inner.filler,
            writes,
            began: now,
            record: record.clone(),
        };
        self.fill(&held, entry, now).await;
        Ok(Some(record))
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let update = self.inner.store.update(id, record, expected, now);
        self.write(id, update).await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        // It may end other sessions of the owner; the store does not say which.
        let evicting = record.owner.clone().filter(|_| admission.limit.is_some());
        let sign_in = async {
            let _mark = evicting.map(|owner| self.inner.mark_at_the_end(Subject::Owner(owner)));
            let store = &self.inner.store;
            store.sign_in(id, record, expected, admission, now).await
        };
        self.write(id, sign_in).await
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.write(id, self.inner.store.touch(id, expires, now))
            .await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.write(id, self.inner.store.delete(id)).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.inner.own().swept_until(now);
        self.ask(self.inner.cache.delete_expired(now, limit)).await;
        self.inner.store.delete_expired(now, limit).await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        self.inner.store.list_by_owner(owner, now).await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let store = &self.inner.store;
        // For those who share the cache, and for a session that is cached as it was before its owner
        // signed in. The revocation does not depend on it.
        let listed = store.list_by_owner(owner, now).await;
        let listed = listed.unwrap_or_else(|error| {
            tracing::warn!(target: "cloakroom", error = %Chain(&error), "cached sessions of an owner not purged");
            Vec::new()
        });
        let ids = listed.into_iter().map(|(id, _)| id);
        let ids: Vec<_> = ids.filter(|id| Some(*id) != keep).collect();
        let sessions = ids.iter().copied().map(Subject::Session);
        let subjects = sessions.chain([Subject::Owner(owner.into())]);
        let marks: Vec<_> = subjects.map(|s| self.inner.mark_at_the_end(s)).collect();
        let answer = store.delete_by_owner(owner, keep, now).await;
        drop(marks);
        let cache = &self.inner.cache;
        let purge = async {
            for id in ids {
                cache.delete(id).await?;
            }
            Ok(())
        };
        self.ask(purge).await;
        answer
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        let mark = self.inner.mark_at_the_end(Subject::Everyone);
        let answer = self.inner.store.delete_all().await;
        drop(mark);
        self.ask(self.inner.cache.delete_all()).await;
        answer
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const BOUND: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn writes_are_remembered_for_the_bound_and_no_longer() {
        let subject = |n: u8| Subject::Session(SessionId::from_bytes([n; 16]));
        let mut own = Own::default();
        for n in 0..100 {
            own.mark(subject(n), BOUND);
        }
        advance(BOUND).await;
        own.mark(subject(7), BOUND);
        assert_eq!(own.last.len(), 100);
        advance(A_MILLISECOND).await;
        own.mark(Subject::Everyone, BOUND);
        assert_eq!((own.last.len(), own.order.len()), (2, 2));
        assert!(own.last.contains_key(&subject(7)), "it was written again");
    }
}
