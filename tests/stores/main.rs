//! The stores against the contract, and the conformance suite against stores that break it.
#![cfg(feature = "memory")]

mod broken;
mod cached;
#[cfg(feature = "encrypted-store")]
mod encrypted;
mod fault;
#[cfg(feature = "axum")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(feature = "axum")]
#[path = "../support/workflows.rs"]
mod workflows;

use std::sync::Arc;

use cloakroom::store::conformance;
use cloakroom::test_util::FaultStore;
use cloakroom::{MemoryStore, conformance_tests};

#[cfg(feature = "axum")]
mod over_http {
    use cloakroom::AnyStore;

    use super::{Arc, FaultStore, MemoryStore};
    use crate::workflows::workflows;

    workflows!(memory, async { MemoryStore::new() });
    workflows!(memory_in_an_arc, async { Arc::new(MemoryStore::new()) });
    workflows!(memory_by_its_url, async {
        AnyStore::connect("memory:").await.unwrap()
    });
    workflows!(fault_store_without_faults, async {
        FaultStore::new(MemoryStore::new())
    });
}

conformance_tests!(memory, async { MemoryStore::new() });
conformance_tests!(memory_in_an_arc, async { Arc::new(MemoryStore::new()) });
conformance_tests!(fault_store_without_faults, async {
    FaultStore::new(MemoryStore::new())
});

/// As it is on a server on which several processes test at once. The one rule that they cannot share a
/// store for is `delete_all_leaves_nothing`.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_the_suite_can_share_a_store() {
    let store = MemoryStore::builder()
        .max_sessions(usize::MAX)
        .max_bytes(usize::MAX)
        .build();
    // On its own, because the memory store removes what has expired when it hears the present time.
    let swept = MemoryStore::new();
    let mut tasks = tokio::task::JoinSet::new();
    macro_rules! spawn {
        ($($rule:ident)*) => { $(tasks.spawn(conformance::$rule(store.clone()));)* };
    }
    for _ in 0..4 {
        spawn! {
            create_stores_the_record create_never_overwrites load_of_an_unknown_id_is_none
            expired_is_absent update_swaps_only_the_expected_version
            update_conflict_returns_the_current_record update_never_creates
            concurrent_updates_lose_nothing touch_only_extends touch_keeps_everything_else
            update_keeps_a_touch touch_never_creates delete_removes_for_good
            list_by_owner_shows_live_sessions delete_by_owner_spares_only_the_kept
            sign_in_stores_like_create_and_update sign_in_is_refused_after_a_revocation
            sign_in_keeps_the_limit data_is_opaque
        }
        tasks.spawn(conformance::delete_expired_is_bounded(swept.clone()));
    }
    tasks.join_all().await;
}
