//! The memory store beside concurrent maps and caches that it could be built on.
//!
//! ```text
//! cd benches/peers && cargo bench --bench maps
//! ```
//!
//! Two threads work on one map of records. The maps have no bound and no order of use or of expiry,
//! which the store would have to add to them. The caches have a bound, which all but moka's keep
//! only on average, since they divide it among shards; of their policies the nearest to "not used for longest"
//! is chosen. Times are for comparison within this run alone. Bytes are what a session takes at 200 000.

use std::alloc::System;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cloakroom::store::{Digest, Record, SessionStore, Timestamp};
use cloakroom::{MemoryStore, SessionId};
use futures_util::FutureExt as _;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SESSIONS: u64 = 200_000;
const OPERATIONS: u64 = 200_000;
const THREADS: u64 = 2;
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// What a store needs of a map.
trait Map: Sync {
    fn get(&self, id: SessionId) -> Option<Record>;
    fn put(&self, id: SessionId, record: Record);
    /// Records held, once all work is done.
    fn held(&self) -> u64;
}

impl Map for MemoryStore {
    fn get(&self, id: SessionId) -> Option<Record> {
        let loaded = self.load(id, NOW).now_or_never().expect("at once");
        loaded.expect("memory does not fail")
    }
    fn put(&self, id: SessionId, record: Record) {
        let created = self
            .create(id, &record, NOW)
            .now_or_never()
            .expect("at once");
        if created.expect("memory does not fail") == cloakroom::store::Create::Taken {
            let updated = self.update(id, &record, record.version, NOW);
            let _done = updated.now_or_never().expect("at once");
        }
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

impl Map for moka::sync::Cache<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.get(&id)
    }
    fn put(&self, id: SessionId, record: Record) {
        self.insert(id, record);
    }
    fn held(&self) -> u64 {
        self.run_pending_tasks();
        self.entry_count()
    }
}

/// Its own expiry, as moka needs it.
struct Expires;

impl moka::Expiry<SessionId, Record> for Expires {
    fn expire_after_create(&self, _: &SessionId, record: &Record, _: Instant) -> Option<Duration> {
        Some(record.expires.saturating_since(NOW))
    }
}

impl Map for quick_cache::sync::Cache<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.get(&id)
    }
    fn put(&self, id: SessionId, record: Record) {
        self.insert(id, record);
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

impl Map for dashmap::DashMap<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.get(&id).map(|record| record.clone())
    }
    fn put(&self, id: SessionId, record: Record) {
        self.insert(id, record);
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

impl Map for scc::HashMap<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.read_sync(&id, |_, record| record.clone())
    }
    fn put(&self, id: SessionId, record: Record) {
        self.upsert_sync(id, record);
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

impl Map for scc::HashCache<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.get_sync(&id).map(|record| record.get().clone())
    }
    fn put(&self, id: SessionId, record: Record) {
        match self.entry_sync(id) {
            scc::hash_cache::Entry::Occupied(mut place) => *place.get_mut() = record,
            scc::hash_cache::Entry::Vacant(place) => drop(place.put_entry(record)),
        }
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

impl Map for papaya::HashMap<SessionId, Record> {
    fn get(&self, id: SessionId) -> Option<Record> {
        self.pin().get(&id).cloned()
    }
    fn put(&self, id: SessionId, record: Record) {
        self.pin().insert(id, record);
    }
    fn held(&self) -> u64 {
        self.len() as u64
    }
}

fn main() {
    println!(
        "| ns an operation, {THREADS} threads | read | write | new at the bound | bytes | held, of {SESSIONS} |"
    );
    println!("|---|--:|--:|--:|--:|--:|");
    let bound = usize::try_from(SESSIONS).expect("64 bits");
    measure("MemoryStore", || {
        MemoryStore::builder()
            .max_sessions(bound)
            .max_bytes(usize::MAX)
            .build()
    });
    measure("moka, LRU, with expiry", || {
        moka::sync::Cache::builder()
            .max_capacity(SESSIONS)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .expire_after(Expires)
            .build()
    });
    measure("quick_cache", || quick_cache::sync::Cache::new(bound));
    measure("scc::HashCache", || scc::HashCache::with_capacity(0, bound));
    measure("dashmap, no bound", dashmap::DashMap::new);
    measure("scc::HashMap, no bound", scc::HashMap::new);
    measure("papaya, no bound", papaya::HashMap::new);
}

fn measure<M: Map>(name: &str, new: impl Fn() -> M) {
    let region = Region::new(ALLOCATOR);
    let map = new();
    for n in 0..SESSIONS {
        map.put(id(n), record());
    }
    let held = map.held();
    let heap = region.change();
    let bytes = (heap.bytes_allocated - heap.bytes_deallocated) as u64 / held;
    let read = time(|n| {
        map.get(id(n));
    });
    let write = time(|n| map.put(id(n), record()));
    let fresh = AtomicU64::new(SESSIONS);
    let new = time(|_| map.put(id(fresh.fetch_add(1, Ordering::Relaxed)), record()));
    println!(
        "| {name} | {read} | {write} | {new} | {bytes} | {} |",
        map.held()
    );
}

/// Nanoseconds of an operation, by threads that do as many at the same time; the best of three.
fn time(operation: impl Fn(u64) + Sync) -> u128 {
    let once = |_| {
        let start = Barrier::new(THREADS as usize);
        std::thread::scope(|scope| {
            let threads = (0..THREADS).map(|thread| {
                let (start, operation) = (&start, &operation);
                scope.spawn(move || {
                    start.wait();
                    let before = Instant::now();
                    for n in 0..OPERATIONS {
                        operation((n * THREADS + thread).wrapping_mul(7919) % SESSIONS);
                    }
                    before.elapsed()
                })
            });
            let threads: Vec<_> = threads.collect();
            let taken = threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"));
            taken.max().unwrap_or_default().as_nanos() / u128::from(OPERATIONS)
        })
    };
    (0..3).map(once).min().unwrap_or_default()
}

fn id(n: u64) -> SessionId {
    let scattered = u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)) << 64 | u128::from(n);
    SessionId::from_bytes(scattered.to_be_bytes())
}

/// A session of five small keys.
fn record() -> Record {
    let expires = NOW.saturating_add(Duration::from_secs(3600));
    let mut record = Record::new(Digest::from_bytes([7; 32]), NOW, expires);
    record.data = br#"{"a":1,"b":1,"c":1,"d":1,"visits":1}"#.as_slice().into();
    record
}
