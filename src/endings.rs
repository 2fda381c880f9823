//! Who waits in this process for the end of which session.
//!
//! Whatever may have ended a session makes those who wait for it look at the store, at once. They
//! decide for themselves; here nothing is known of sessions but who has to look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::id::SessionId;

/// A session, and whose it was when somebody began to wait for its end.
type Key = (SessionId, Option<Arc<str>>);

#[derive(Debug, Default)]
pub(crate) struct Endings {
    waiting: Mutex<BTreeMap<Key, Arc<Notify>>>,
}

impl Endings {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<Key, Arc<Notify>>> {
        // The map is whole after every statement, so a panic elsewhere does not matter to it.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place among those who wait for the end of a session.
    pub(crate) fn place(&self, id: SessionId, owner: Option<Arc<str>>) -> Place<'_> {
        let key = (id, owner);
        let look = Arc::clone(self.waiting().entry(key.clone()).or_default());
        Place {
            endings: self,
            key,
            look,
        }
    }

    /// The session may have ended, or its token is another.
    pub(crate) fn look(&self, id: SessionId) {
        let waiting = self.waiting();
        let from_here = waiting.range((id, None)..);
        for (_, look) in from_here.take_while(|((other, _), _)| *other == id) {
            look.notify_waiters();
        }
    }

    /// Sessions of an owner may have ended.
    pub(crate) fn look_for(&self, owner: &str) {
        for ((_, other), look) in &*self.waiting() {
            if other.as_deref() == Some(owner) {
                look.notify_waiters();
            }
        }
    }

    /// Any session may have ended.
    pub(crate) fn look_all(&self) {
        for look in self.waiting().values() {
            look.notify_waiters();
        }
    }
}

/// A place among those who wait for the end of a session; dropping it gives it up.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    endings: &'a Endings,
    key: Key,
    look: Arc<Notify>,
}

impl Place<'_> {
    /// Whose the session was when this place was taken.
    pub(crate) fn owner(&self) -> Option<&str> {
        self.key.1.as_deref()
    }

    /// Ready once there is reason to look, counted from this call.
    pub(crate) fn reason(&self) -> Notified<'_> {
        self.look.notified()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut waiting = self.endings.waiting();
        // All handles are cloned from the map under its lock, so two left are the map's and ours.
        if Arc::strong_count(&self.look) == 2 {
            waiting.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    const ONE: SessionId = SessionId::from_bytes([1; 16]);
    const TWO: SessionId = SessionId::from_bytes([2; 16]);

    fn is_ready(future: impl Future) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(future).poll(&mut context).is_ready()
    }

    #[test]
    fn those_look_who_are_concerned() {
        type Look = fn(&Endings);
        let rows: [(Look, [bool; 5]); 5] = [
            (|all| all.look(ONE), [true, true, true, true, false]),
            (|all| all.look(TWO), [false, false, false, false, true]),
            (|all| all.look_for("ada"), [true, true, false, false, false]),
            (
                |all| all.look_for("grace"),
                [false, false, true, false, true],
            ),
            (Endings::look_all, [true; 5]),
        ];
        for (look, expected) in rows {
            let endings = Endings::default();
            let places = [
                (ONE, Some("ada")),
                (ONE, Some("ada")),
                (ONE, Some("grace")),
                (ONE, None),
                (TWO, Some("grace")),
            ];
            let places = places.map(|(id, owner)| endings.place(id, owner.map(Into::into)));
            let reasons = places.each_ref().map(Place::reason);
            // Also if it comes before the first poll.
            look(&endings);
            assert_eq!(reasons.map(is_ready), expected);
            assert!(!is_ready(places[0].reason()), "a reason counts once");
        }
    }

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let endings = Endings::default();
        let (one, two) = (endings.place(ONE, None), endings.place(ONE, None));
        drop(one);
        assert_eq!(endings.waiting().len(), 1);
        drop(two);
        assert_eq!(endings.waiting().len(), 0);
        endings.look(ONE);
    }
}
