//! The commits of one session, one after the other within this process.
//!
//! Without it, parallel requests of one client would race each other through the store, every loser
//! paying a round trip for each that wins. Here commits that overlap wait in line, and the next is
//! handed the record that the one before it wrote, so that it meets no conflict.
//!
//! The line is forgotten with the last who stands in it. A request that loaded the session before a
//! commit and ends after it therefore meets one conflict, of one round trip; sparing it that would
//! make every request that only reads pay for a place in the line.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

use crate::id::SessionId;
use crate::record::Record;

type Latest = tokio::sync::Mutex<Option<Record>>;

/// The random bits of an id are its hash: a store has them, so it was a server that chose them.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, id: &[u8]) {
        if let Some(random) = id.last_chunk() {
            let random = u64::from_le_bytes(*random);
            // Two of its bits are the same in every UUID.
            self.0 = random ^ random.rotate_left(32);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Who is committing, and who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    lines: Mutex<Lines>,
}

type Lines = HashMap<SessionId, Arc<Latest>, BuildHasherDefault<IdHasher>>;

impl Queue {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // The map is whole after every statement, so a panic elsewhere does not matter to it.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until nobody else in this process commits the session.
    ///
    /// Dropping the future gives up the place in the line.
    pub(crate) async fn turn(&self, id: SessionId) -> Turn<'_> {
        let line = Arc::clone(self.lines().entry(id).or_default());
        let mut turn = Turn {
            queue: self,
            id,
            latest: None,
            line: Some(Arc::clone(&line)),
        };
        turn.latest = Some(line.lock_owned().await);
        turn
    }
}

/// The right to commit a session; dropping it lets the next one through.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    queue: &'a Queue,
    id: SessionId,
    latest: Option<OwnedMutexGuard<Option<Record>>>,
    /// Given back when the turn is dropped.
    line: Option<Arc<Latest>>,
}

impl Turn<'_> {
    /// What the turns before this one left in the store, as far as this process knows.
    pub(crate) fn latest(&self) -> Option<&Record> {
        self.latest.as_deref()?.as_ref()
    }

    /// Hands a record to those who wait.
    pub(crate) fn leave(&mut self, record: &Record) {
        // Nobody does if the handles are the map's, ours and the guard's. Who comes after this look is
        // handed nothing: what an earlier turn left is out of date.
        let waited = self.line.as_ref().map_or(0, Arc::strong_count) > 3;
        if let Some(latest) = self.latest.as_deref_mut() {
            *latest = waited.then(|| record.clone());
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        // All handles come and go under the map's lock, so the last one is the map's.
        let mut lines = self.queue.lines();
        self.latest = None;
        self.line = None;
        if lines
            .get(&self.id)
            .is_some_and(|line| Arc::strong_count(line) == 1)
        {
            lines.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::record::Version;
    use crate::token::Digest;

    fn record(version: u64) -> Record {
        let now = Timestamp::from_millis(1);
        let mut record = Record::new(Digest::from_bytes([0; 32]), now, Timestamp::MAX);
        record.version = Version::new(version);
        record
    }

    #[tokio::test]
    async fn a_turn_begins_when_the_one_before_it_ends_and_is_handed_its_record() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let mut first = queue.turn(id).await;
        assert!(first.latest().is_none());
        let mut second = Box::pin(queue.turn(id));
        assert!(futures_poll(&mut second).is_none());
        first.leave(&record(7));
        drop(first);
        let second = second.await;
        assert_eq!(second.latest(), Some(&record(7)));
    }

    #[tokio::test]
    async fn nobody_is_handed_a_record_that_the_turn_before_has_replaced() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let mut first = queue.turn(id).await;
        let mut second = Box::pin(queue.turn(id));
        assert!(futures_poll(&mut second).is_none());
        first.leave(&record(7));
        drop(first);
        let mut second = second.await;
        // Nobody waits yet.
        second.leave(&record(8));
        let mut third = Box::pin(queue.turn(id));
        assert!(futures_poll(&mut third).is_none());
        drop(second);
        assert!(third.await.latest().is_none());
    }

    #[tokio::test]
    async fn a_line_is_forgotten_when_nobody_stands_in_it() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let first = queue.turn(id).await;
        let mut given_up = Box::pin(queue.turn(id));
        assert!(futures_poll(&mut given_up).is_none());
        drop(given_up);
        assert_eq!(queue.lines().len(), 1);
        drop(first);
        assert_eq!(queue.lines().len(), 0);
        assert!(queue.turn(id).await.latest().is_none());
    }

    #[tokio::test]
    async fn sessions_do_not_wait_for_each_other() {
        let queue = Queue::default();
        let one = queue.turn(SessionId::from_bytes([1; 16])).await;
        let two = queue.turn(SessionId::from_bytes([2; 16])).await;
        drop((one, two));
    }

    fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }
}
