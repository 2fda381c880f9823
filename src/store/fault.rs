//! A store that misbehaves when a test tells it to.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, pending};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

/// Wraps a store, counts the calls, and lets chosen ones go wrong.
///
/// Without faults it is the store that it wraps. Clones share faults and counts, so a test keeps one
/// and gives the layer the other.
///
/// ```
/// use cloakroom::MemoryStore;
/// use cloakroom::SessionId;
/// use cloakroom::store::{SessionStore, Timestamp};
/// use cloakroom::test_util::{Fault, FaultStore, Operation};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::store::StoreError> {
/// let store = FaultStore::new(MemoryStore::new());
/// let (id, now) = (SessionId::from_bytes([7; 16]), Timestamp::from_millis(0));
///
/// store.inject(Operation::Load, 2, Fault::Fail);
/// assert!(store.load(id, now).await.is_ok());
/// assert!(store.load(id, now).await.is_err());
/// assert!(store.load(id, now).await.is_ok());
/// assert_eq!(store.calls(Operation::Load), 3);
///
/// store.always(Operation::Delete, Fault::Fail);
/// assert!(store.delete(id).await.is_err());
/// store.heal();
/// assert!(store.delete(id).await.is_ok());
/// assert_eq!(store.total_calls(), 5);
/// # Ok(())
/// # }
/// ```
pub struct FaultStore<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    calls: Mutex<BTreeMap<Operation, Calls>>,
}

/// What was and what will be with the calls of one operation.
#[derive(Default)]
struct Calls {
    seen: u64,
    /// `seen` when the counts were last reset.
    reset: u64,
    planned: BTreeMap<u64, Fault>,
    always: Option<Fault>,
}

/// A method of [`SessionStore`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// [`SessionStore::create`]
    Create,
    /// [`SessionStore::load`]
    Load,
    /// [`SessionStore::update`]
    Update,
    /// [`SessionStore::touch`]
    Touch,
    /// [`SessionStore::delete`]
    Delete,
    /// [`SessionStore::delete_expired`]
    DeleteExpired,
    /// [`SessionStore::list_by_owner`]
    ListByOwner,
    /// [`SessionStore::delete_by_owner`]
    DeleteByOwner,
    /// [`SessionStore::sign_in`]
    SignIn,
    /// [`SessionStore::delete_all`]
    DeleteAll,
}

/// What goes wrong with a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Fails without doing anything, like a store that is down.
    Fail,
    /// Does its work and then fails, like a connection that breaks before the answer.
    FailAfter,
    /// Does nothing and never answers.
    Hang,
    /// Waits, then does its work.
    Delay(Duration),
    /// Waits for [`Pause::release`], then does its work.
    Pause(Pause),
    /// Does its work, then waits for [`Pause::release`] before it answers. Never released, it is a
    /// call that was carried out and whose answer got lost.
    PauseAfter(Pause),
}

impl<S> FaultStore<S> {
    /// Wraps `store`; there are no faults yet.
    #[must_use]
    pub fn new(store: S) -> Self {
        Self(Arc::new(Inner {
            store,
            calls: Mutex::default(),
        }))
    }

    /// Plans a fault for the `n`-th call from now on; the next one is 1.
    ///
    /// The count is this operation's alone. A planned fault comes before one set with
    /// [`always`](Self::always).
    pub fn inject(&self, operation: Operation, n: u64, fault: Fault) {
        self.with(operation, |calls| {
            calls.planned.insert(calls.seen + n.max(1), fault)
        });
    }

    /// Lets every call from now on go wrong.
    pub fn always(&self, operation: Operation, fault: Fault) {
        self.with(operation, |calls| calls.always = Some(fault));
    }

    /// Takes all faults away, except from calls that are under way.
    pub fn heal(&self) {
        for calls in self.lock().values_mut() {
            calls.planned.clear();
            calls.always = None;
        }
    }

    /// How many calls of `operation` there were, failed ones included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.with(operation, |calls| calls.seen - calls.reset)
    }

    /// How many calls there were of all operations.
    #[must_use]
    pub fn total_calls(&self) -> u64 {
        self.lock()
            .values()
            .map(|calls| calls.seen - calls.reset)
            .sum()
    }

    /// Counts from zero again; planned faults stay.
    pub fn reset_counts(&self) {
        for calls in self.lock().values_mut() {
            calls.reset = calls.seen;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Operation, Calls>> {
        self.0.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, operation: Operation, f: impl FnOnce(&mut Calls) -> T) -> T {
        f(self.lock().entry(operation).or_default())
    }

    async fn call<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let fault = self.with(operation, |calls| {
            calls.seen += 1;
            calls
                .planned
                .remove(&calls.seen)
                .or_else(|| calls.always.clone())
        });
        let failure = || StoreError::new(format!("a fault was injected into {operation:?}"));
        match fault {
            None => work.await,
            Some(Fault::Fail) => Err(failure()),
            Some(Fault::FailAfter) => {
                work.await?;
                Err(failure())
            }
            Some(Fault::Hang) => pending().await,
            Some(Fault::Delay(duration)) => {
                tokio::time::sleep(duration).await;
                work.await
            }
            Some(Fault::Pause(pause)) => {
                pause.wait().await;
                work.await
            }
            Some(Fault::PauseAfter(pause)) => {
                let answer = work.await;
                pause.wait().await;
                answer
            }
        }
    }
}

impl<S> Clone for FaultStore<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S> fmt::Debug for FaultStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").finish_non_exhaustive()
    }
}

/// A gate at which a call waits until the test lets it pass.
///
/// Clones are the same gate.
///
/// ```
/// use cloakroom::MemoryStore;
/// use cloakroom::SessionId;
/// use cloakroom::store::SessionStore;
/// use cloakroom::test_util::{Fault, FaultStore, Operation, Pause};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = FaultStore::new(MemoryStore::new());
/// let pause = Pause::new();
/// store.inject(Operation::Delete, 1, Fault::Pause(pause.clone()));
///
/// let slow = tokio::spawn({
///     let store = store.clone();
///     async move { store.delete(SessionId::from_bytes([7; 16])).await }
/// });
/// pause.reached().await;
/// assert!(!slow.is_finished()); // Whatever should happen in between happens here.
/// pause.release();
/// assert!(slow.await.unwrap().is_ok());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Pause(Arc<Gate>);

#[derive(Debug)]
struct Gate {
    arrived: Semaphore,
    released: Semaphore,
}

impl Pause {
    /// A gate at which nobody waits yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Gate {
            arrived: Semaphore::new(0),
            released: Semaphore::new(0),
        }))
    }

    /// Waits until a call has arrived, and once more each time it is asked.
    pub async fn reached(&self) {
        take(&self.0.arrived).await;
    }

    /// Lets one call pass: one that waits, or else the next to arrive.
    pub fn release(&self) {
        self.0.released.add_permits(1);
    }

    async fn wait(&self) {
        self.0.arrived.add_permits(1);
        take(&self.0.released).await;
    }
}

impl Default for Pause {
    fn default() -> Self {
        Self::new()
    }
}

async fn take(permits: &Semaphore) {
    // Nobody closes these semaphores.
    if let Ok(permit) = permits.acquire().await {
        permit.forget();
    }
}

impl<S: SessionStore> SessionStore for FaultStore<S> {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        self.call(Operation::Create, self.0.store.create(id, record, now))
            .await
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        self.call(Operation::Load, self.0.store.load(id, now)).await
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        self.call(
            Operation::Update,
            self.0.store.update(id, record, expected, now),
        )
        .await
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.call(Operation::Touch, self.0.store.touch(id, expires, now))
            .await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.call(Operation::Delete, self.0.store.delete(id)).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.call(
            Operation::DeleteExpired,
            self.0.store.delete_expired(now, limit),
        )
        .await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        self.call(
            Operation::ListByOwner,
            self.0.store.list_by_owner(owner, now),
        )
        .await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let work = self.0.store.delete_by_owner(owner, keep, now);
        self.call(Operation::DeleteByOwner, work).await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let work = self.0.store.sign_in(id, record, expected, admission, now);
        self.call(Operation::SignIn, work).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        self.call(Operation::DeleteAll, self.0.store.delete_all())
            .await
    }
}
