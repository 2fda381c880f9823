//! The commits of one session, one after the other within this process.
//!
//! Without it, parallel requests of one client would race each other through the store, every loser
//! paying a round trip for each that wins. Here commits that overlap wait in line, and the next is
//! handed the record that the one before it wrote, so that it meets no conflict.
//!
//! To stand in line has a price as well: each who does is woken by the one before, and while they are nobody
//! commits, however many processors there are. With a store in memory that takes longer than the commit, and the line
//! would never end. So whoever comes lets others run a few times first, and stands in line if that was not enough, as it
//! hardly ever is with a server to wait for.
//!
//! The line is forgotten with the last who stands in it. A request that loaded the session before a
//! commit and ends after it therefore meets one conflict, of one round trip; sparing it that would
//! make every request that only reads pay for a place in the line.

use std::collections::hash_map::{Entry, VacantEntry};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot::{self, Receiver, Sender};

use crate::id::SessionId;
use crate::record::Record;

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue(Arc<Mutex<Lines>>);

/// How often somebody lets others run before standing in line. More did not help, with a store in memory and with up to
/// sixty-four tasks on one session.
const YIELDS: u32 = 2;

/// Those who wait behind each session's turn. Some may have given up since.
type Lines = HashMap<SessionId, VecDeque<Sender<Turn>>, BuildHasherDefault<IdHasher>>;

impl Queue {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        // The map is whole after every statement, so a panic elsewhere does not matter to it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to commit a session, unless somebody in this process commits it already.
    pub(crate) fn turn(&self, id: SessionId) -> Option<Turn> {
        match self.lines().entry(id) {
            Entry::Vacant(nobody) => Some(self.begin(nobody)),
            Entry::Occupied(_) => None,
        }
    }

    /// The same, once whoever commits it has done so, and those who stand in line by then.
    ///
    /// Dropping the future gives the place up.
    pub(crate) async fn wait(&self, id: SessionId) -> Turn {
        for _ in 0..YIELDS {
            tokio::task::yield_now().await;
            if let Some(turn) = self.turn(id) {
                return turn;
            }
        }
        match self.place(id) {
            Ok(turn) => turn,
            Err(place) => place.await.expect("a turn is passed on, never lost"),
        }
    }

    /// The right to commit a session, or a place in the line of those who wait for it. To drop the place is to give
    /// it up.
    fn place(&self, id: SessionId) -> Result<Turn, Receiver<Turn>> {
        let mut given_up = VecDeque::new();
        let mut lines = self.lines();
        let line = match lines.entry(id) {
            Entry::Vacant(nobody) => return Ok(self.begin(nobody)),
            Entry::Occupied(line) => line.into_mut(),
        };
        if line.len() == line.capacity() {
            // Sooner than the line grows: a turn may last, and places be given up behind it.
            let all = mem::take(line).into_iter();
            (*line, given_up) = all.partition(|turn| !turn.is_closed());
        }
        let (turn, place) = oneshot::channel();
        line.push_back(turn);
        drop(lines);
        // Without the lock: each may be the last to know of the task that gave it up.
        drop(given_up);
        Err(place)
    }

    fn begin(&self, nobody: VacantEntry<'_, SessionId, VecDeque<Sender<Turn>>>) -> Turn {
        let id = *nobody.key();
        nobody.insert(VecDeque::new());
        Turn::new(self.clone(), id)
    }

    /// The first of those who wait. If there is nobody, the line is forgotten.
    fn next(&self, id: SessionId) -> Option<Sender<Turn>> {
        let mut lines = self.lines();
        let Entry::Occupied(mut line) = lines.entry(id) else {
            return None;
        };
        let next = line.get_mut().pop_front();
        if next.is_none() {
            line.remove();
        }
        next
    }
}

/// The right to commit a session; dropping it lets the next one through.
#[derive(Debug)]
pub(crate) struct Turn {
    /// `None` once the turn is over.
    queue: Option<Queue>,
    id: SessionId,
    latest: Option<Box<Record>>,
}

impl Turn {
    fn new(queue: Queue, id: SessionId) -> Self {
        Self {
            queue: Some(queue),
            id,
            latest: None,
        }
    }

    /// The session.
    pub(crate) fn id(&self) -> SessionId {
        self.id
    }

    /// What the turns before this one left in the store, as far as this process knows.
    pub(crate) fn latest(&self) -> Option<&Record> {
        self.latest.as_deref()
    }

    /// Ends the turn, and hands a record to whoever waits for that. Who comes later is handed nothing:
    /// by then the record may be out of date.
    pub(crate) fn leave(mut self, record: &Record) {
        self.pass_on(Some(record));
    }

    fn pass_on(&mut self, record: Option<&Record>) {
        let Some(queue) = self.queue.take() else {
            return;
        };
        while let Some(next) = queue.next(self.id) {
            if !next.is_closed() {
                let mut turn = Self::new(queue, self.id);
                turn.latest = record.or(self.latest()).cloned().map(Box::new);
                // If its place is given up in this moment, the turn is dropped, and so passed on.
                drop(next.send(turn));
                return;
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.pass_on(None);
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
        let first = queue.turn(id).unwrap();
        assert!(first.latest().is_none());
        let mut second = queue.place(id).unwrap_err();
        assert!(second.try_recv().is_err());
        first.leave(&record(7));
        let second = second.await.unwrap();
        assert_eq!(second.latest(), Some(&record(7)));
    }

    #[tokio::test]
    async fn who_waits_takes_a_turn_that_ends_soon_and_else_stands_in_line() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let standing = || queue.lines().get(&id).map(VecDeque::len);
        let first = queue.turn(id).unwrap();
        assert!(queue.turn(id).is_none());
        let end = async { first.leave(&record(7)) };
        let (second, ()) = tokio::join!(queue.wait(id), end);
        // It was not in line when the record was there to be handed on.
        assert!(second.latest().is_none());
        let third = tokio::spawn({
            let queue = queue.clone();
            async move { queue.wait(id).await }
        });
        for _ in 0..=YIELDS {
            assert_eq!(standing(), Some(0));
            tokio::task::yield_now().await;
        }
        assert_eq!(standing(), Some(1));
        second.leave(&record(8));
        assert_eq!(third.await.unwrap().latest(), Some(&record(8)));
        assert_eq!(standing(), None);
    }

    #[tokio::test]
    async fn a_record_is_handed_on_by_a_turn_that_wrote_nothing() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let first = queue.turn(id).unwrap();
        let second = queue.place(id).unwrap_err();
        let third = queue.place(id).unwrap_err();
        first.leave(&record(7));
        drop(second.await.unwrap());
        assert_eq!(third.await.unwrap().latest(), Some(&record(7)));
    }

    #[tokio::test]
    async fn nobody_is_handed_a_record_that_the_turn_before_has_replaced() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let first = queue.turn(id).unwrap();
        let second = queue.place(id).unwrap_err();
        first.leave(&record(7));
        // Nobody waits yet.
        second.await.unwrap().leave(&record(8));
        assert!(queue.turn(id).unwrap().latest().is_none());
    }

    #[tokio::test]
    async fn a_line_is_forgotten_when_nobody_stands_in_it() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let first = queue.turn(id).unwrap();
        drop(queue.place(id).unwrap_err());
        assert_eq!(queue.lines().len(), 1);
        drop(first);
        assert_eq!(queue.lines().len(), 0);
        assert!(queue.turn(id).unwrap().latest().is_none());
    }

    #[tokio::test]
    async fn a_turn_goes_past_those_who_gave_up() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let first = queue.turn(id).unwrap();
        let before = queue.place(id).unwrap_err();
        let given_a_turn = queue.place(id).unwrap_err();
        let last = queue.place(id).unwrap_err();
        drop(before);
        drop(first);
        // Before it looked.
        drop(given_a_turn);
        drop(last.await.unwrap());
        assert_eq!(queue.lines().len(), 0);
    }

    #[test]
    fn places_that_are_given_up_take_no_room() {
        let (queue, id) = (Queue::default(), SessionId::from_bytes([1; 16]));
        let _first = queue.turn(id).unwrap();
        let _waiting: Vec<_> = (0..10).map(|_| queue.place(id).unwrap_err()).collect();
        for _ in 0..1000 {
            drop(queue.place(id).unwrap_err());
        }
        let standing = queue.lines().get(&id).map_or(0, VecDeque::len);
        assert!((10..50).contains(&standing), "{standing}");
    }

    #[test]
    fn sessions_do_not_wait_for_each_other() {
        let queue = Queue::default();
        let one = queue.turn(SessionId::from_bytes([1; 16])).unwrap();
        let two = queue.turn(SessionId::from_bytes([2; 16])).unwrap();
        drop((one, two));
    }
}
