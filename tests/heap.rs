//! What a session in memory takes. A file of its own, since the allocator counts for the whole process.
#![cfg(feature = "memory")]

use std::alloc::System;

use cloakroom::store::{Digest, Record, SessionStore, Timestamp};
use cloakroom::{MemoryStore, SessionId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Just after the table has doubled is the worst moment.
#[tokio::test]
async fn a_session_in_memory_takes_no_more_heap_than_it_is_counted_as() {
    let now = Timestamp::from_millis(0);
    let store = MemoryStore::new();
    let region = Region::new(ALLOCATOR);
    for n in 0..14_337_u64 {
        let mut record = Record::new(
            Digest::from_bytes([1; 32]),
            now,
            Timestamp::from_millis(n + 1),
        );
        record.owner = Some(format!("{n:025}").into());
        record.data = vec![b'x'; 105].into();
        let _ = store
            .create(
                SessionId::from_bytes(u128::from(n).to_be_bytes()),
                &record,
                now,
            )
            .await
            .unwrap();
    }
    let heap = region.change();
    let held = heap.bytes_allocated - heap.bytes_deallocated;
    assert!(held <= store.bytes(), "{held} > {}", store.bytes());

    store
        .delete_expired(Timestamp::MAX, usize::MAX)
        .await
        .unwrap();
    let heap = region.change();
    assert!(heap.bytes_allocated - heap.bytes_deallocated < 20_000);
}
