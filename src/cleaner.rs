//! Removing expired sessions from stores that do not do so by themselves.

use std::fmt;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::clock::{Clock, scale};
use crate::entropy::Entropy;
use crate::error::{Error, StoreError};
use crate::event::{Observer, SessionEvent};
use crate::store::contract::SessionStore;

/// Removes expired sessions from a store, again and again.
///
/// Expired sessions open nothing, cleaned or not; this gives their space back. Run it on one instance
/// of a service or on all at once: each removes what the others have left. Stores whose records
/// vanish by themselves need none.
///
/// # Pace
///
/// It removes a hundred sessions at once, and then rests for nine times as long as that took, but not beyond
/// the time from round to round: it has the store work for it a tenth of the time, and slows down by itself
/// where the store is busy. So it needs no setting. Half a million sessions take a PostgreSQL server nearby about a minute.
///
/// ```
/// use cloakroom::{Cleaner, MemoryStore, SessionLayer};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let store = MemoryStore::new();
/// let cleaner = Cleaner::new(store.clone()).every(Duration::from_secs(300)).spawn();
/// let layer = SessionLayer::new(store);
/// // … serve …
/// drop(cleaner); // It stops.
/// # drop(layer);
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a cleaner does nothing until `spawn` is called"]
pub struct Cleaner<S> {
    store: S,
    every: Duration,
    clock: Clock,
    observer: Observer,
}

/// How many sessions one call of the store removes: few enough for the requests that wait behind it, on the
/// same connection to PostgreSQL or for the one writer of SQLite. In PostgreSQL a hundred take about half
/// a millisecond, a thousand several.
const BATCH: usize = 100;

/// How many times as long as a full batch the rest after it is. With 4 the slowest hundredth of reads takes
/// nearly three times as long as without a cleaner, with 9 not half as much longer
/// (`cargo bench --all-features --bench stores -- cleaning`).
const REST: u32 = 9;

/// The first wait after a failure; it doubles with each one.
const RETRY: Duration = Duration::from_secs(1);

impl<S: SessionStore> Cleaner<S> {
    /// A cleaner of a store, every ten minutes.
    pub fn new(store: S) -> Self {
        Self {
            store,
            every: Duration::from_secs(600),
            clock: Clock::default(),
            observer: Observer::default(),
        }
    }

    /// How long it waits between two rounds, give or take a tenth at random, so that instances which
    /// start together do not stay together; at least a second.
    pub fn every(mut self, time: Duration) -> Self {
        self.every = time.max(Duration::from_secs(1));
        self
    }

    /// Shows [`SessionEvent::Swept`] and [`SessionEvent::SweepFailed`] to `observe`, as
    /// [`SessionLayerBuilder::on_event`](crate::SessionLayerBuilder::on_event) does for all others.
    pub fn on_event(mut self, observe: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(observe);
        self
    }

    /// Reads the time from a clock that a test moves.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::TestClock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }

    /// Starts cleaning in a task of its own, until the handle is dropped.
    ///
    /// A store that fails is tried again after a second, then after two, four and so on up to the
    /// time between rounds.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime with timers.
    pub fn spawn(self) -> CleanerHandle {
        CleanerHandle(tokio::spawn(self.run()))
    }

    async fn run(self) {
        let mut failures = 0;
        loop {
            sleep(self.wait(failures)).await;
            match self.round().await {
                Ok(count) => {
                    failures = 0;
                    if count > 0 {
                        self.observer.tell(&SessionEvent::Swept { count });
                    }
                }
                Err(error) => {
                    failures += 1;
                    let error = Error::from(error);
                    self.observer.tell(&SessionEvent::SweepFailed { error });
                }
            }
        }
    }

    async fn round(&self) -> Result<usize, StoreError> {
        let mut removed = 0;
        loop {
            let start = Instant::now();
            let batch = self.store.delete_expired(self.clock.now(), BATCH).await?;
            removed += batch;
            if batch < BATCH {
                return Ok(removed);
            }
            sleep(start.elapsed().saturating_mul(REST).min(self.every)).await;
        }
    }

    fn wait(&self, failures: u32) -> Duration {
        let wait = match failures {
            0 => self.every,
            _ => self
                .every
                .min(RETRY.saturating_mul(1 << failures.min(20).saturating_sub(1))),
        };
        let mut random = [128];
        // Without randomness the instances go in step, which does no harm.
        let _ = Entropy::System.fill(&mut random);
        scale(wait, 0.9 + 0.2 * f64::from(random[0]) / 255.0)
    }
}

/// Keeps a [`Cleaner`] going; dropping it stops the cleaner.
#[must_use = "the cleaner stops when its handle is dropped"]
pub struct CleanerHandle(JoinHandle<()>);

impl Drop for CleanerHandle {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for CleanerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CleanerHandle").finish_non_exhaustive()
    }
}

#[cfg(all(test, feature = "memory", feature = "test-util"))]
mod tests {
    use super::*;
    use crate::clock::{TestClock, Timestamp};
    use crate::id::SessionId;
    use crate::record::Record;
    use crate::store::fault::{Fault, FaultStore, Operation};
    use crate::store::memory::MemoryStore;
    use crate::token::Digest;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn store_of(sessions: u16, expires: Timestamp) -> (MemoryStore, FaultStore<MemoryStore>) {
        let store = MemoryStore::new();
        let long_ago = Timestamp::from_millis(0);
        for n in 0..sessions {
            let record = Record::new(Digest::from_bytes([0; 32]), long_ago, expires);
            let mut id = [0; 16];
            id[..2].copy_from_slice(&n.to_be_bytes());
            let _ = store
                .create(SessionId::from_bytes(id), &record, long_ago)
                .await
                .unwrap();
        }
        (store.clone(), FaultStore::new(store))
    }

    #[tokio::test(start_paused = true)]
    async fn expired_sessions_go_in_batches_and_live_ones_stay() {
        let clock = TestClock::new();
        let (memory, store) = store_of(250, clock.now().saturating_add(5 * MINUTE)).await;
        let handle = Cleaner::new(store.clone())
            .every(MINUTE)
            .clock(clock.clone())
            .spawn();
        tokio::time::sleep(3 * MINUTE).await;
        assert_eq!(memory.len(), 250);
        clock.advance(5 * MINUTE);
        store.reset_counts();
        tokio::time::sleep(MINUTE * 11 / 10).await;
        assert!(memory.is_empty());
        // Three batches, and maybe the next round.
        let calls = store.calls(Operation::DeleteExpired);
        assert!((3..=4).contains(&calls), "{calls}");
        drop(handle);
    }

    #[tokio::test(start_paused = true)]
    async fn between_batches_it_rests_in_proportion_to_their_time_but_not_beyond_the_next_round() {
        let seconds = Duration::from_secs;
        for (batch, rest) in [(1, 9), (4, 36), (20, 60)] {
            let clock = TestClock::new();
            let (memory, store) = store_of(250, clock.now()).await;
            let delay = Fault::Delay(seconds(batch));
            store.always(Operation::DeleteExpired, delay);
            let _handle = Cleaner::new(store.clone())
                .every(MINUTE)
                .clock(clock)
                .spawn();
            let mut begun = Vec::new();
            while !memory.is_empty() {
                let calls = store.calls(Operation::DeleteExpired);
                sleep(seconds(1) / 10).await;
                if store.calls(Operation::DeleteExpired) > calls {
                    begun.push(Instant::now());
                }
            }
            let pauses: Vec<_> = begun.windows(2).map(|two| two[1] - two[0]).collect();
            assert_eq!(pauses.len(), 2);
            for pause in pauses {
                let expected = seconds(batch + rest);
                assert!(pause.abs_diff(expected) < seconds(1), "{pause:?}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_goes_on_after_failures_with_longer_and_longer_waits() {
        let clock = TestClock::new();
        let (memory, store) = store_of(10, clock.now()).await;
        store.always(Operation::DeleteExpired, Fault::Fail);
        let _handle = Cleaner::new(store.clone())
            .every(10 * MINUTE)
            .clock(clock)
            .spawn();
        // The first round comes after nine to eleven minutes.
        tokio::time::sleep(12 * MINUTE).await;
        // After 1, 2, 4, … seconds: some six tries in the first minute, and not one a second.
        let calls = store.calls(Operation::DeleteExpired);
        assert!((5..=9).contains(&calls), "{calls}");
        assert_eq!(memory.len(), 10);
        store.heal();
        tokio::time::sleep(11 * MINUTE).await;
        assert!(memory.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn it_stops_when_its_handle_is_dropped() {
        let (_, store) = store_of(0, Timestamp::MAX).await;
        drop(Cleaner::new(store.clone()).every(MINUTE).spawn());
        tokio::time::sleep(10 * MINUTE).await;
        assert_eq!(store.calls(Operation::DeleteExpired), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_may_wait_for_ever() {
        let (_, store) = store_of(0, Timestamp::MAX).await;
        for _ in 0..50 {
            let cleaner = Cleaner::new(store.clone()).every(Duration::MAX).spawn();
            tokio::task::yield_now().await;
            assert!(!cleaner.0.is_finished(), "it panicked");
        }
        assert_eq!(store.calls(Operation::DeleteExpired), 0);
    }
}
