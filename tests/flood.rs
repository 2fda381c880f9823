//! What a flood of sessions takes. A file of its own, since the allocator counts for the whole process.
#![cfg(feature = "memory")]

use std::alloc::System;

use cloakroom::store::{Create, Digest, Record, SessionStore, Timestamp};
use cloakroom::{MemoryStore, SessionId};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// S-69.
#[tokio::test]
async fn a_million_anonymous_sessions_stay_under_the_cap_and_a_signed_in_one_survives_them() {
    let now = Timestamp::from_millis(0);
    let id = |n: u128| SessionId::from_bytes(n.to_be_bytes());
    let mut record = Record::new(Digest::from_bytes([1; 32]), now, Timestamp::from_millis(1));
    record.data = br#"{"n":1}"#.as_slice().into();
    let mut signed_in = record.clone();
    signed_in.owner = Some("ada".into());
    for (store, max_sessions, max_bytes) in [
        (
            MemoryStore::builder().max_sessions(10_000),
            10_000,
            64 << 20,
        ),
        (MemoryStore::builder().max_bytes(4 << 20), 100_000, 4 << 20),
    ] {
        let region = Region::new(ALLOCATOR);
        let store = store.build();
        let _ = store.create(id(0), &signed_in, now).await.unwrap();
        for n in 1..=1_000_000 {
            let created = store.create(id(n), &record, now).await.unwrap();
            assert_eq!(created, Create::Done);
            if n % 10_000 == 0 {
                let heap = region.change();
                let held = heap.bytes_allocated - heap.bytes_deallocated;
                assert!(held <= max_bytes, "{held}");
                assert!(store.len() <= max_sessions && store.bytes() <= max_bytes);
            }
        }
        assert_eq!(
            store.load(id(0), now).await.unwrap(),
            Some(signed_in.clone())
        );
    }
}
