//! What a cache in front of a store may show, and for how long.

use std::error::Error as _;
use std::num::NonZeroUsize;
use std::time::Duration;

use cloakroom::store::{
    Admission, Create, Digest, OwnerLimit, Record, SessionStore, SignIn, StoreError, Timestamp,
    Update, Version, WhenFull,
};
use cloakroom::test_util::{Fault, FaultStore, Operation, Pause};
use cloakroom::{CachedStore, MemoryStore, SessionId, conformance_tests};
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance};

use Operation::{
    Create as CreateOp, Delete, DeleteAll, DeleteByOwner, Load, SignIn as SignInOp, Touch,
    Update as UpdateOp,
};

const BOUND: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

const ALL: [Operation; 10] = [
    CreateOp,
    Load,
    UpdateOp,
    Touch,
    Delete,
    Operation::DeleteExpired,
    Operation::ListByOwner,
    DeleteByOwner,
    SignInOp,
    DeleteAll,
];

type Faulty = FaultStore<MemoryStore>;
type Cached = CachedStore<Faulty, Faulty>;

fn cached<C: SessionStore, S: SessionStore>(cache: C, store: S) -> CachedStore<C, S> {
    CachedStore::new(cache, store, BOUND).unwrap()
}

conformance_tests!(in_front_of_memory, async {
    cached(MemoryStore::new(), MemoryStore::new())
});
conformance_tests!(with_a_cache_without_room, async {
    cached(
        MemoryStore::builder().max_sessions(1).build(),
        MemoryStore::new(),
    )
});
conformance_tests!(with_a_cache_that_is_down, async {
    let cache = Faulty::new(MemoryStore::new());
    for operation in ALL {
        cache.always(operation, Fault::Fail);
    }
    cached(cache, MemoryStore::new())
});
conformance_tests!(with_a_bound_that_is_over_at_once, async {
    CachedStore::new(MemoryStore::new(), MemoryStore::new(), MILLI).unwrap()
});
conformance_tests!(behind_another, async {
    let inner = cached(MemoryStore::new(), MemoryStore::new());
    cached(MemoryStore::new(), inner)
});

#[cfg(feature = "axum")]
mod over_http {
    use super::{MemoryStore, cached};
    use crate::workflows::{self, workflows};

    workflows!(in_one_process, async {
        cached(MemoryStore::new(), MemoryStore::new())
    });

    /// Those that ask for nothing which a cache of another process does not know yet.
    macro_rules! in_two_processes {
        ($($workflow:ident)*) => {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $workflow() {
                    let store = MemoryStore::new();
                    let process = || cached(MemoryStore::new(), store.clone());
                    workflows::$workflow([process(), process()]).await;
                }
            )*
        };
    }

    in_two_processes! {
        a_touch_does_not_bring_a_session_back
        parallel_updates_of_one_key_are_all_counted
        parallel_inserts_of_different_keys_are_all_there
        a_revocation_beats_a_sign_in_under_way
        an_owner_never_has_more_sessions_than_the_limit
    }
}

fn id() -> SessionId {
    SessionId::from_bytes([7; 16])
}

fn start() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn after(by: Duration) -> Timestamp {
    start().saturating_add(by)
}

fn record(owner: Option<&str>) -> Record {
    let mut record = Record::new(Digest::from_bytes([1; 32]), start(), Timestamp::MAX);
    record.owner = owner.map(Into::into);
    record.authenticated = owner.map(|_| start());
    record
}

fn written(version: u64, owner: Option<&str>) -> Record {
    let mut record = record(owner);
    record.version = Version::new(version);
    record
}

/// One process, with what is under it.
struct Process {
    cache: Faulty,
    store: Faulty,
    cached: Cached,
}

impl Process {
    fn on(cache: &MemoryStore, store: &MemoryStore) -> Self {
        let cache = FaultStore::new(cache.clone());
        let store = FaultStore::new(store.clone());
        Self {
            cached: cached(cache.clone(), store.clone()),
            cache,
            store,
        }
    }

    fn alone() -> Self {
        Self::on(&MemoryStore::new(), &MemoryStore::new())
    }

    /// With Ada's session in the store and in the cache.
    async fn having_read() -> Self {
        let process = Self::alone();
        sign_in(&process.cached, id(), "ada").await;
        assert!(process.read(start()).await.is_some());
        process.reset();
        process
    }

    async fn read(&self, now: Timestamp) -> Option<Record> {
        self.cached.load(id(), now).await.unwrap()
    }

    /// A read that the store has answered, and whose answer is on its way.
    async fn slow_read(&self, now: Timestamp) -> (Pause, JoinHandle<Option<Record>>) {
        let pause = Pause::new();
        self.store.inject(Load, 1, Fault::PauseAfter(pause.clone()));
        let cached = self.cached.clone();
        let read = tokio::spawn(async move { cached.load(id(), now).await.unwrap() });
        pause.reached().await;
        (pause, read)
    }

    fn reset(&self) {
        self.cache.reset_counts();
        self.store.reset_counts();
    }

    fn calls(&self) -> (u64, u64) {
        (self.cache.total_calls(), self.store.total_calls())
    }
}

async fn sign_in<S: SessionStore>(store: &S, id: SessionId, owner: &str) {
    let admission = Admission::new(start());
    let record = record(Some(owner));
    let answer = store.sign_in(id, &record, None, admission, start());
    assert_eq!(answer.await.unwrap(), SignIn::Done);
}

/// Does something to Ada's session, and asserts that it was done.
async fn write<S: SessionStore>(store: &S, operation: Operation) {
    let now = start();
    let next = written(2, Some("ada"));
    match operation {
        UpdateOp => {
            let updated = store.update(id(), &next, Version::FIRST, now).await;
            assert_eq!(updated.unwrap(), Update::Done);
        }
        Touch => {
            let mut short = written(2, Some("ada"));
            short.expires = after(BOUND);
            let updated = store.update(id(), &short, Version::FIRST, now).await;
            assert_eq!(updated.unwrap(), Update::Done);
            assert!(store.touch(id(), after(2 * BOUND), now).await.unwrap());
        }
        SignInOp => {
            let expected = Some(Version::FIRST);
            let signed_in = store.sign_in(id(), &next, expected, Admission::new(now), now);
            assert_eq!(signed_in.await.unwrap(), SignIn::Done);
        }
        Delete => assert!(store.delete(id()).await.unwrap()),
        DeleteByOwner => {
            let deleted = store.delete_by_owner("ada", None, now).await;
            assert_eq!(deleted.unwrap(), 1);
        }
        DeleteAll => assert_eq!(store.delete_all().await.unwrap(), 1),
        // Another session of Ada's takes the place of this one.
        CreateOp => {
            let limit = OwnerLimit::new(NonZeroUsize::MIN, WhenFull::EvictOldest);
            let mut admission = Admission::new(now);
            admission.limit = Some(limit);
            let other = SessionId::from_bytes([8; 16]);
            let first = record(Some("ada"));
            let signed_in = store.sign_in(other, &first, None, admission, now);
            assert_eq!(signed_in.await.unwrap(), SignIn::Done);
        }
        other => panic!("{other:?} writes no session"),
    }
}

const WRITES: [Operation; 7] = [
    UpdateOp,
    Touch,
    SignInOp,
    Delete,
    DeleteByOwner,
    DeleteAll,
    CreateOp,
];

/// S-66: a session is deleted at one process while another fills its cache from a paused read.
#[tokio::test]
async fn a_slow_read_elsewhere_outlives_a_delete_by_no_more_than_the_bound() {
    let store = MemoryStore::new();
    let [one, two] = [(); 2].map(|()| Process::on(&MemoryStore::new(), &store));
    sign_in(&one.cached, id(), "ada").await;

    let (pause, read) = two.slow_read(start()).await;
    assert!(one.cached.delete(id()).await.unwrap());
    pause.release();
    assert!(
        read.await.unwrap().is_some(),
        "the read began before the delete"
    );
    assert_eq!(one.read(start()).await, None);

    assert!(
        two.read(after(BOUND - MILLI)).await.is_some(),
        "it is the cache that answers"
    );
    // Counted from when the read began, however late its answer came.
    assert_eq!(two.read(after(BOUND)).await, None);
    assert_eq!(two.read(after(BOUND - MILLI)).await, None);
}

/// S-66: the answer comes when the bound is over.
#[tokio::test]
async fn a_read_that_took_longer_than_the_bound_is_not_used_again() {
    let store = MemoryStore::new();
    let [one, two] = [(); 2].map(|()| Process::on(&MemoryStore::new(), &store));
    sign_in(&one.cached, id(), "ada").await;
    let (pause, read) = two.slow_read(start()).await;
    assert!(one.cached.delete(id()).await.unwrap());
    pause.release();
    read.await.unwrap();
    assert_eq!(two.read(after(BOUND)).await, None);
}

/// S-66: the same with one cache for both. What the other process puts there after the purge is not
/// believed where the session was deleted, and only for the bound elsewhere.
#[tokio::test]
async fn what_a_slow_read_puts_into_a_shared_cache_does_not_undo_a_write() {
    for operation in WRITES {
        let (cache, store) = (MemoryStore::new(), MemoryStore::new());
        let [one, two] = [(); 2].map(|()| Process::on(&cache, &store));
        sign_in(&one.cached, id(), "ada").await;
        let (pause, read) = two.slow_read(start()).await;
        write(&one.cached, operation).await;
        pause.release();
        let old = read.await.unwrap();
        assert_eq!(two.read(start()).await, old, "{operation:?}: it is cached");
        let truth = store.load(id(), start()).await.unwrap();
        assert_ne!(truth, old);
        assert_eq!(one.read(start()).await, truth, "{operation:?}");
        let now = after(BOUND);
        let truth = store.load(id(), now).await.unwrap();
        assert_eq!(two.read(now).await, truth, "{operation:?}");
    }
}

/// S-66: the purge reaches whoever shares the cache.
#[tokio::test]
async fn a_write_shows_at_once_where_the_cache_is_shared() {
    for operation in WRITES {
        let (cache, store) = (MemoryStore::new(), MemoryStore::new());
        let [one, two] = [(); 2].map(|()| Process::on(&cache, &store));
        sign_in(&one.cached, id(), "ada").await;
        two.read(start()).await.unwrap();
        write(&one.cached, operation).await;
        if operation == CreateOp {
            // Nobody knows whom a sign-in evicts.
            continue;
        }
        let truth = store.load(id(), start()).await.unwrap();
        assert_eq!(two.read(start()).await, truth, "{operation:?}");
    }
}

/// S-66, S-62: in one process nothing old is seen after a write, wherever a read was when it happened.
#[tokio::test]
async fn a_read_in_flight_does_not_bring_back_what_a_write_changed() {
    for operation in WRITES {
        // The store has answered; or the cache is being filled.
        for in_the_cache in [false, true] {
            let process = Process::alone();
            sign_in(&process.cached, id(), "ada").await;
            let pause = Pause::new();
            let (place, at, fault) = match in_the_cache {
                true => (&process.cache, CreateOp, Fault::Pause(pause.clone())),
                false => (&process.store, Load, Fault::PauseAfter(pause.clone())),
            };
            place.inject(at, 1, fault);
            let cached = process.cached.clone();
            let read = tokio::spawn(async move { cached.load(id(), start()).await });
            pause.reached().await;
            write(&process.cached, operation).await;
            pause.release();
            let old = read.await.unwrap().unwrap();
            if !in_the_cache {
                // Nor would it mislead whoever shares the cache.
                let cached = process.cache.load(id(), start()).await.unwrap();
                assert_eq!(cached, None, "{operation:?}");
            }
            let truth = process.store.load(id(), start()).await.unwrap();
            assert_ne!(truth, old);
            for _ in 0..2 {
                assert_eq!(
                    process.read(start()).await,
                    truth,
                    "{operation:?}, {in_the_cache}"
                );
            }
        }
    }
}

/// S-66: nor what a purge that failed has left behind.
#[tokio::test(start_paused = true)]
async fn a_purge_that_fails_does_not_matter_to_who_wrote() {
    for operation in WRITES {
        let process = Process::having_read().await;
        process.cache.always(Delete, Fault::Fail);
        process.cache.always(DeleteAll, Fault::Fail);
        write(&process.cached, operation).await;
        // Until the cache is asked again.
        advance(2 * SECOND).await;
        let truth = process.store.load(id(), start()).await.unwrap();
        assert_eq!(process.read(start()).await, truth, "{operation:?}");
    }
}

/// S-66, S-67: nor whether anybody waits for the answer.
#[tokio::test(start_paused = true)]
async fn a_write_whose_future_is_dropped_counts() {
    for (operation, pause_in_the_cache) in [(Delete, false), (UpdateOp, false), (Delete, true)] {
        let process = Process::having_read().await;
        let pause = Pause::new();
        let place = match pause_in_the_cache {
            true => &process.cache,
            false => &process.store,
        };
        let fault = match pause_in_the_cache {
            true => Fault::Hang,
            false => Fault::PauseAfter(pause.clone()),
        };
        place.inject(operation, 1, fault);
        let dropped = tokio::time::timeout(50 * MILLI, write(&process.cached, operation)).await;
        assert!(dropped.is_err());
        let truth = process.store.load(id(), start()).await.unwrap();
        assert_eq!(process.read(start()).await, truth, "{operation:?}");
    }
}

/// A write whose answer got lost may have been done.
#[tokio::test]
async fn a_write_that_fails_counts() {
    let process = Process::having_read().await;
    process.store.inject(Delete, 1, Fault::FailAfter);
    assert!(process.cached.delete(id()).await.is_err());
    assert_eq!(process.read(start()).await, None);
}

/// A write based on what a cache has of a session meets the store's version, and the cache learns of it.
#[tokio::test]
async fn a_conflict_repairs_the_cache() {
    let store = MemoryStore::new();
    let [one, two] = [(); 2].map(|()| Process::on(&MemoryStore::new(), &store));
    sign_in(&one.cached, id(), "ada").await;
    let old = two.read(start()).await.unwrap();
    write(&one.cached, UpdateOp).await;
    assert_eq!(two.read(start()).await.unwrap(), old);

    let next = written(2, Some("ada"));
    let updated = two
        .cached
        .update(id(), &next, old.version, start())
        .await
        .unwrap();
    assert_eq!(updated, Update::Conflict(written(2, Some("ada"))));
    assert_eq!(
        two.read(start()).await.unwrap().version,
        Version::FIRST.next()
    );

    // As a write to a session that is gone does.
    assert!(one.cached.delete(id()).await.unwrap());
    assert!(two.read(start()).await.is_some());
    let updated = two
        .cached
        .update(id(), &next, Version::new(2), start())
        .await
        .unwrap();
    assert_eq!(updated, Update::Gone);
    assert_eq!(two.read(start()).await, None);
}

/// S-55: the session that is kept stays; others' are not touched at all.
#[tokio::test]
async fn a_revocation_leaves_the_cached_sessions_of_others() {
    let process = Process::having_read().await;
    let [kept, other] = [2, 3].map(|n| SessionId::from_bytes([n; 16]));
    sign_in(&process.cached, kept, "ada").await;
    sign_in(&process.cached, other, "adam").await;
    for id in [kept, other] {
        process.cached.load(id, start()).await.unwrap().unwrap();
    }
    let deleted = process
        .cached
        .delete_by_owner("ada", Some(kept), start())
        .await;
    assert_eq!(deleted.unwrap(), 1);
    assert_eq!(process.read(start()).await, None);
    process.reset();
    for (id, calls) in [(kept, (2, 1)), (other, (1, 0))] {
        process.reset();
        assert!(process.cached.load(id, start()).await.unwrap().is_some());
        assert_eq!(process.calls().1, calls.1);
    }
}

/// What the documentation says of calls, in its order: of the cache, of the store.
#[tokio::test]
async fn each_operation_makes_as_many_calls_as_documented() {
    let process = Process::having_read().await;
    let cached = &process.cached;
    let (other, now) = (SessionId::from_bytes([8; 16]), start());
    process.read(now).await.unwrap();
    assert_eq!(process.calls(), (1, 0), "a read, cached");
    process.reset();
    assert!(cached.load(other, now).await.unwrap().is_none());
    assert_eq!(process.calls(), (1, 1), "a read of nothing");
    process.reset();
    assert_eq!(
        cached.create(other, &record(None), now).await.unwrap(),
        Create::Done
    );
    assert_eq!(process.calls(), (0, 1), "create");
    process.reset();
    assert!(cached.load(other, now).await.unwrap().is_some());
    assert_eq!(process.calls(), (2, 1), "a read, not cached");
    for (operation, calls) in [(UpdateOp, (1, 1)), (Delete, (1, 1))] {
        process.reset();
        write(cached, operation).await;
        assert_eq!(process.calls(), calls, "{operation:?}");
    }
    sign_in(cached, id(), "ada").await;
    for (operation, calls) in [(SignInOp, (1, 1)), (DeleteByOwner, (1, 2))] {
        process.reset();
        write(cached, operation).await;
        assert_eq!(process.calls(), calls, "{operation:?}");
    }
    process.reset();
    assert!(cached.touch(other, Timestamp::MAX, now).await.unwrap());
    assert_eq!(process.calls(), (1, 1), "touch");
    process.reset();
    cached.list_by_owner("ada", now).await.unwrap();
    assert_eq!(process.calls(), (0, 1), "list");
}

/// A session that was written is cached anew by the next read.
#[tokio::test]
async fn a_read_after_a_write_fills_the_cache_again() {
    let process = Process::having_read().await;
    write(&process.cached, UpdateOp).await;
    for calls in [(2, 1), (1, 0), (1, 0)] {
        process.reset();
        assert_eq!(
            process.read(start()).await.unwrap().version,
            Version::new(2)
        );
        assert_eq!(process.calls(), calls);
    }
    // Also in the place of what is too old.
    for calls in [(2, 1), (1, 0)] {
        process.reset();
        process.read(after(BOUND)).await.unwrap();
        assert_eq!(process.calls(), calls);
    }
}

/// S-47, S-48: the end of a session is that of the record, of which a cache may not know yet.
#[tokio::test]
async fn a_cached_session_ends_with_its_record() {
    let process = Process::alone();
    let mut short = record(None);
    short.expires = after(SECOND);
    let created = process.cached.create(id(), &short, start()).await.unwrap();
    assert_eq!(created, Create::Done);
    assert_eq!(process.read(start()).await, Some(short.clone()));
    assert_eq!(process.read(after(SECOND - MILLI)).await, Some(short));
    // Another process has prolonged it.
    let touched = process.store.touch(id(), after(2 * SECOND), start()).await;
    assert!(touched.unwrap());
    assert!(process.read(after(SECOND)).await.is_some());
    assert!(process.read(after(2 * SECOND)).await.is_none());
}

/// A clock that goes back does not show what was swept before.
#[tokio::test(start_paused = true)]
async fn a_session_that_was_swept_is_gone() {
    let process = Process::alone();
    let mut short = record(None);
    short.expires = after(SECOND);
    let created = process.cached.create(id(), &short, start()).await.unwrap();
    assert_eq!(created, Create::Done);
    process.read(start()).await.unwrap();
    process.cache.always(Operation::DeleteExpired, Fault::Fail);
    let swept = process.cached.delete_expired(after(SECOND), 9).await;
    assert_eq!(swept.unwrap(), 1);
    advance(SECOND).await;
    assert_eq!(process.read(start()).await, None);
}

/// S-71: a cache that is down is no outage, and none is made of it by asking it all the time.
#[tokio::test(start_paused = true)]
async fn a_cache_that_fails_or_hangs_is_passed_over() {
    for fault in [
        Fault::Fail,
        Fault::FailAfter,
        Fault::Hang,
        Fault::Delay(BOUND),
    ] {
        for operation in [Load, CreateOp, UpdateOp, Delete, DeleteAll] {
            let process = Process::having_read().await;
            process.cache.always(operation, fault.clone());
            let began = Instant::now();
            for now in [start(), after(BOUND)] {
                assert!(process.read(now).await.is_some(), "{operation:?} {fault:?}");
            }
            write(&process.cached, UpdateOp).await;
            let read = process.read(after(BOUND)).await.unwrap();
            assert_eq!(read.version, Version::new(2), "{operation:?} {fault:?}");
            write(&process.cached, DeleteAll).await;
            assert_eq!(process.read(after(BOUND)).await, None);
            assert!(
                began.elapsed() <= 101 * MILLI,
                "one deadline: {:?}",
                began.elapsed()
            );

            // It is used again when it is well.
            process.cache.heal();
            advance(SECOND).await;
            let created = process.cached.create(id(), &record(None), start()).await;
            assert_eq!(created.unwrap(), Create::Done);
            process.read(after(BOUND)).await.unwrap();
            process.reset();
            process.read(after(BOUND)).await.unwrap();
            assert_eq!(process.calls(), (1, 0), "{operation:?} {fault:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_cache_can_be_set() {
    let process = Process::having_read().await;
    process.cache.always(Load, Fault::Hang);
    let patient = process.cached.clone().with_cache_timeout(SECOND).unwrap();
    let began = Instant::now();
    assert!(patient.load(id(), start()).await.unwrap().is_some());
    assert!(began.elapsed() >= SECOND && began.elapsed() <= SECOND + MILLI);
    let error = process.cached.with_cache_timeout(MILLI / 2).unwrap_err();
    assert!(why(&error).contains("less than a millisecond"));
}

/// S-74: what lies in the cache and is no entry of that session is none, and is replaced.
#[tokio::test]
async fn a_damaged_or_foreign_entry_counts_as_none() {
    let entry = |process: &Process| {
        let cache = process.cache.clone();
        async move { cache.load(id(), start()).await.unwrap().unwrap() }
    };
    // Somebody else's, under this id.
    let others = Process::alone();
    let other = SessionId::from_bytes([8; 16]);
    sign_in(&others.cached, other, "eve").await;
    others.cached.load(other, start()).await.unwrap();
    let foreign = others.cache.load(other, start()).await.unwrap().unwrap();
    // One of a clock that is ahead.
    let ahead = Process::alone();
    sign_in(&ahead.cached, id(), "eve").await;
    ahead.read(after(MILLI)).await.unwrap();
    let ahead = entry(&ahead).await;
    // One whose time is over, and which the cache should have dropped.
    let old = Process::alone();
    sign_in(&old.cached, id(), "eve").await;
    let long_ago = Timestamp::from_millis(start().as_millis() - 60_000);
    old.read(long_ago).await.unwrap();
    let old = old.cache.load(id(), long_ago).await.unwrap().unwrap();

    let whole = entry(&Process::having_read().await).await.data;
    let data = |data: &[u8]| {
        let mut entry = record(None);
        entry.data = data.into();
        entry
    };
    let mut entries = vec![foreign, ahead, old, record(Some("eve"))];
    entries.extend([0, 1, 17, 40, 41, 60, whole.len() - 8].map(|len| data(&whole[..len])));
    entries.extend([0, 2, 255].map(|format| data(&[&[format], &whole[1..]].concat())));
    entries.push(data(&record(Some("eve")).encode()));
    for (i, entry) in entries.into_iter().enumerate() {
        let process = Process::alone();
        sign_in(&process.store, id(), "ada").await;
        let mut cached = entry;
        cached.owner = None;
        cached.expires = Timestamp::MAX;
        let created = process.cache.create(id(), &cached, start()).await;
        assert_eq!(created.unwrap(), Create::Done);
        process.reset();
        for store_calls in [1, 0] {
            let read = process.read(start()).await.unwrap();
            assert_eq!(read, record(Some("ada")), "entry {i}");
            assert_eq!(process.calls().1, store_calls, "entry {i}");
            process.reset();
        }
    }
}

/// S-74: nor is one that the cache itself cannot read. It is removed.
#[tokio::test]
async fn an_entry_that_the_cache_cannot_read_counts_as_none() {
    let process = Process::having_read().await;
    let broken = cached(Damaged(process.cache.clone()), process.store.clone());
    assert!(broken.load(id(), start()).await.unwrap().is_some());
    assert_eq!(process.cache.calls(Delete), 1);
    assert_eq!(
        process.cache.calls(CreateOp),
        1,
        "the cache is not left alone for it"
    );
}

/// Loads nothing but damage.
struct Damaged(Faulty);

impl SessionStore for Damaged {
    async fn load(&self, _: SessionId, _: Timestamp) -> Result<Option<Record>, StoreError> {
        Err(StoreError::corrupt("as in the test"))
    }

    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        self.0.create(id, record, now).await
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        self.0.update(id, record, expected, now).await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        self.0.sign_in(id, record, expected, admission, now).await
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.0.touch(id, expires, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.0.delete(id).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.0.delete_expired(now, limit).await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        self.0.list_by_owner(owner, now).await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.0.delete_by_owner(owner, keep, now).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        self.0.delete_all().await
    }
}

/// What a cache is told of a session is data to it, and can be sealed: whoever writes there lets nobody in.
#[cfg(feature = "encrypted-store")]
#[tokio::test]
async fn an_encrypted_cache_believes_no_entry_that_it_did_not_seal() {
    let keys = cloakroom::DataKeys::new(b"thirty-two bytes, not all alike.").unwrap();
    let process = Process::having_read().await;
    let forged = process.cache.load(id(), start()).await.unwrap().unwrap();
    let memory = MemoryStore::new();
    let sealed = cloakroom::EncryptedStore::new(memory.clone(), keys);
    let wary = cached(sealed, process.store.clone());
    process.store.reset_counts();
    for calls in [1, 1] {
        assert!(wary.load(id(), start()).await.unwrap().is_some());
        assert_eq!(process.store.calls(Load), calls);
    }
    let entry = memory.load(id(), start()).await.unwrap().unwrap();
    let updated = memory.update(id(), &forged, entry.version, start()).await;
    assert_eq!(updated.unwrap(), Update::Done);
    assert!(wary.load(id(), start()).await.unwrap().is_some());
    assert_eq!(process.store.calls(Load), 2);
}

/// A corrupt record, or a store that is down, is not hidden by the cache.
#[tokio::test]
async fn what_the_store_says_of_a_read_is_passed_on() {
    let process = Process::having_read().await;
    process.store.always(Load, Fault::Fail);
    assert!(process.read(after(BOUND - MILLI)).await.is_some());
    assert!(process.cached.load(id(), after(BOUND)).await.is_err());
    let damaged = cached(MemoryStore::new(), Damaged(process.store.clone()));
    let error = damaged.load(id(), start()).await.unwrap_err();
    assert!(error.is_corrupt());
}

/// S-57: a revocation does not depend on the list that is purged by.
#[tokio::test]
async fn a_revocation_is_done_also_if_the_list_fails() {
    let process = Process::having_read().await;
    process.store.always(Operation::ListByOwner, Fault::Fail);
    write(&process.cached, DeleteByOwner).await;
    assert_eq!(process.read(start()).await, None);
}

fn why(error: &StoreError) -> String {
    error.source().unwrap().to_string()
}

#[test]
fn the_bound_has_a_range() {
    let hour = Duration::from_secs(3600);
    let new = |bound| CachedStore::new(MemoryStore::new(), MemoryStore::new(), bound);
    for bound in [Duration::ZERO, MILLI / 2, hour + MILLI, Duration::MAX] {
        let error = new(bound).unwrap_err();
        assert!(why(&error).contains("use a millisecond to an hour"));
    }
    for bound in [MILLI, hour] {
        assert!(new(bound).is_ok());
    }
    let shown = format!("{:?}", new(hour).unwrap());
    assert_eq!(
        shown,
        "CachedStore { bound: 3600s, cache_timeout: 100ms, .. }"
    );
}
