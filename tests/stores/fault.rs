//! What goes wrong with a `FaultStore`, and what does not.

use std::error::Error;
use std::time::Duration;

use cloakroom::store::{
    Admission, Create, Digest, Record, SessionStore, StoreError, Timestamp, Update, Version,
};
use cloakroom::test_util::{Fault, FaultStore, Operation, Pause};
use cloakroom::{MemoryStore, SessionId};
use tokio::time::{Instant, timeout};

const NOW: Timestamp = Timestamp::from_millis(1_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn id() -> SessionId {
    SessionId::from_bytes([7; 16])
}

fn record() -> Record {
    Record::new(Digest::from_bytes([1; 32]), NOW, Timestamp::MAX)
}

/// The store that misbehaves, and the one behind it.
fn stores() -> (FaultStore<MemoryStore>, MemoryStore) {
    let memory = MemoryStore::new();
    (FaultStore::new(memory.clone()), memory)
}

#[tokio::test]
async fn each_operation_has_its_own_faults_and_counts() {
    use Operation::*;
    const ALL: [Operation; 10] = [
        Create,
        Load,
        Update,
        Touch,
        Delete,
        DeleteExpired,
        ListByOwner,
        DeleteByOwner,
        SignIn,
        DeleteAll,
    ];
    for faulty in ALL {
        let (store, _) = stores();
        store.always(faulty, Fault::Fail);
        let failed = [
            store.create(id(), &record(), NOW).await.is_err(),
            store.load(id(), NOW).await.is_err(),
            store
                .update(id(), &record(), Version::FIRST, NOW)
                .await
                .is_err(),
            store.touch(id(), NOW, NOW).await.is_err(),
            store.delete(id()).await.is_err(),
            store.delete_expired(NOW, 1).await.is_err(),
            store.list_by_owner("ada", NOW).await.is_err(),
            store.delete_by_owner("ada", None, NOW).await.is_err(),
            store
                .sign_in(id(), &record(), None, Admission::new(NOW), NOW)
                .await
                .is_err(),
            store.delete_all().await.is_err(),
        ];
        assert_eq!(failed, ALL.map(|operation| operation == faulty));
        assert_eq!(ALL.map(|operation| store.calls(operation)), [1; 10]);
        assert_eq!(store.total_calls(), 10);
    }
}

#[tokio::test]
async fn a_planned_fault_meets_the_nth_call_from_now() {
    let (store, _) = stores();
    let failed = async || store.delete(id()).await.is_err();
    assert!(!failed().await);
    store.inject(Operation::Delete, 2, Fault::Fail);
    store.load(id(), NOW).await.unwrap();
    store.reset_counts();
    assert_eq!(
        [failed().await, failed().await, failed().await],
        [false, true, false]
    );
    store.inject(Operation::Delete, 0, Fault::Fail);
    assert!(failed().await, "0 is the next call, too");
    assert_eq!(
        (store.calls(Operation::Delete), store.total_calls()),
        (4, 4)
    );
}

#[tokio::test(start_paused = true)]
async fn a_planned_fault_comes_before_the_permanent_one_and_healing_ends_both() {
    let (store, _) = stores();
    store.always(Operation::Delete, Fault::Fail);
    store.inject(Operation::Delete, 2, Fault::Delay(HOUR));
    store.inject(Operation::Delete, 4, Fault::Hang);
    let before = Instant::now();
    store.delete(id()).await.unwrap_err();
    assert!(!store.delete(id()).await.unwrap());
    assert_eq!(before.elapsed(), HOUR);
    store.delete(id()).await.unwrap_err();
    store.heal();
    assert!(!store.delete(id()).await.unwrap());
}

#[tokio::test]
async fn a_failure_comes_before_the_work_or_after_it() {
    let (store, memory) = stores();
    store.inject(Operation::Create, 1, Fault::Fail);
    store.inject(Operation::Create, 2, Fault::FailAfter);
    let error = store.create(id(), &record(), NOW).await.unwrap_err();
    assert!(memory.is_empty());
    let cause = error.source().map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("a fault was injected into Create"));
    store.create(id(), &record(), NOW).await.unwrap_err();
    assert_eq!(memory.load(id(), NOW).await.unwrap(), Some(record()));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_does_nothing_and_never_answers() {
    let (store, memory) = stores();
    store.inject(Operation::Create, 1, Fault::Hang);
    timeout(HOUR, store.create(id(), &record(), NOW))
        .await
        .unwrap_err();
    assert!(memory.is_empty());
    assert_eq!(
        store.create(id(), &record(), NOW).await.unwrap(),
        Create::Done
    );
}

#[tokio::test]
async fn a_paused_call_works_when_it_is_released() {
    let (store, memory) = stores();
    let pause = Pause::new();
    store.always(Operation::Create, Fault::Pause(pause.clone()));
    let create = |n| {
        let store = store.clone();
        let id = SessionId::from_bytes([n; 16]);
        tokio::spawn(async move { store.create(id, &record(), NOW).await })
    };
    let both = [create(1), create(2)];
    pause.reached().await;
    pause.reached().await;
    assert!(memory.is_empty());
    for task in both {
        pause.release();
        let _ = task.await.unwrap().unwrap();
    }
    assert_eq!(memory.len(), 2);
    pause.release();
    let _ = create(3).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_paused_after_its_work_answers_what_was_then() {
    let (store, memory) = stores();
    let _ = memory.create(id(), &record(), NOW).await.unwrap();
    let pause = Pause::new();
    store.inject(Operation::Load, 1, Fault::PauseAfter(pause.clone()));
    let slow = tokio::spawn({
        let store = store.clone();
        async move { store.load(id(), NOW).await }
    });
    pause.reached().await;
    assert!(memory.delete(id()).await.unwrap());
    pause.release();
    assert_eq!(slow.await.unwrap().unwrap(), Some(record()));
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_leaves_the_gate_to_the_next() -> Result<(), StoreError> {
    let (store, memory) = stores();
    let _ = memory.create(id(), &record(), NOW).await?;
    let pause = Pause::new();
    store.always(Operation::Update, Fault::Pause(pause.clone()));
    let update = async || store.update(id(), &record(), Version::FIRST, NOW).await;
    timeout(HOUR, update()).await.unwrap_err();
    pause.release();
    assert_eq!(timeout(HOUR, update()).await.unwrap()?, Update::Done);
    timeout(HOUR, update()).await.unwrap_err();
    Ok(())
}
