//! What a session holds while a handler works on it, and how it is handed to a commit and back.

use std::mem;
use std::sync::{Arc, MutexGuard};

use super::Session;
use crate::changes::{Change, Changes, Overwritten};
use crate::commit::{self, Actions, Draft, Occasion, Outcome, Plan, Stored};
use crate::csrf::CSRF_KEY;
use crate::data::{Data, Json};
use crate::error::{Error, Result};
use crate::transport::Notice;
use crate::watch::CLIENT_KEY;

/// A session while it is in a handler's hands.
pub(super) struct State {
    /// What is stored and what is to be done; its changes are applied to `data` already.
    pub(super) draft: Draft,
    pub(super) data: Data,
    /// How many calls of `save` and leases are under way.
    pub(super) saving: usize,
    /// Counts how often all values and changes were forgotten, and how often that was the session's
    /// end: what a `save` took along before then does not come back.
    pub(super) resets: u32,
    pub(super) ends: u32,
    /// Somebody signed in by this request.
    pub(super) signs_in: bool,
    /// The fingerprint of the request's client, if clients are watched.
    pub(super) client: Option<Json>,
    pub(super) is_new: bool,
    /// Who is signed in, a `sign_in` that is not stored yet included.
    pub(super) owner: Option<Arc<str>>,
    pub(super) notice: Notice,
    pub(super) closed: bool,
}

impl State {
    /// Makes a change of the values. Returns what it overwrites, as [`Changes::push`] does.
    #[must_use = "closures are dropped without a lock held"]
    pub(super) fn edit(&mut self, change: Change) -> Overwritten {
        match &change {
            Change::Set(key, json) => self.data.set(key.clone(), json.clone()),
            Change::Remove(key) => {
                self.data.remove(key);
            }
            Change::Clear => self.data.clear_but(CLIENT_KEY),
            // What an update makes is set by whoever notes it.
            Change::Update(..) => {}
        }
        self.draft.changes.push(change)
    }

    /// Forgets values and changes without recording that; returns the changes.
    #[must_use = "closures are dropped without a lock held"]
    pub(super) fn reset(&mut self) -> Changes {
        self.data.clear();
        self.resets += 1;
        mem::take(&mut self.draft.changes)
    }

    /// Lets a session that will be stored know its client.
    fn add_client(&mut self) {
        let Some(client) = &self.client else { return };
        let stays = !self.data.is_empty() || self.draft.actions.sign_in.is_some();
        let known = self.data.get(CLIENT_KEY).is_some();
        if stays && !known {
            let set = Change::Set(CLIENT_KEY.into(), client.clone());
            // Nothing of the application is overwritten.
            let _none = self.edit(set);
        }
    }

    /// Encodes the values for writing, if there are changes that count; returns those that do not.
    #[must_use = "closures are dropped without a lock held"]
    pub(super) fn prepare(&mut self, occasion: Occasion) -> Option<Changes> {
        let mut dropped = None;
        if occasion == Occasion::FailedResponse {
            dropped = Some(self.draft.drop_changes());
            if self.draft.actions.sign_in.is_some() {
                // It counts, and with it what every sign-in does to the values (S-40, S-85).
                self.data = self.draft.values();
                let _none = self.edit(Change::Remove(CSRF_KEY.into()));
            }
        }
        if !self.draft.changes.is_empty() && self.draft.content.is_none() {
            self.add_client();
            self.draft.content = Some(self.data.encode());
        }
        dropped
    }
}

/// Pending work, taken out of a session to be written. If it is not written, it goes back.
pub(super) struct Lease<'a> {
    session: &'a Session,
    draft: Draft,
    plan: Plan,
    occasion: Occasion,
    /// The work is done, and the session shows it.
    settled: bool,
    resets: u32,
    ends: u32,
}

impl<'a> Lease<'a> {
    /// Takes the work out of a state for which there is a plan.
    pub(super) fn take(
        session: &'a Session,
        state: &mut State,
        plan: Plan,
        occasion: Occasion,
    ) -> Self {
        state.saving += 1;
        Self {
            session,
            plan,
            occasion,
            draft: Draft {
                stored: state.draft.stored.clone(),
                content: state.draft.content.take(),
                changes: mem::take(&mut state.draft.changes),
                actions: mem::take(&mut state.draft.actions),
                at: state.draft.at,
                began: state.draft.began,
                no_touch: state.draft.no_touch,
                rebased: false,
                unsure: state.draft.unsure,
                unseen: state.draft.unseen.take(),
            },
            settled: false,
            resets: state.resets,
            ends: state.ends,
        }
    }

    pub(super) async fn commit(&mut self) -> Result<Outcome> {
        self.draft.begin();
        let context = &self.session.0.context;
        {
            // What is in this block is not kept while the second one waits.
            let done = commit::run(context, &mut self.draft, self.plan, self.occasion).await;
            if !self.is_doubtful(&done) {
                return self.conclude(done);
            }
        }
        // Once more, which either finds what was done or does it.
        self.draft.at = context.now();
        let again = commit::run(context, &mut self.draft, self.plan, self.occasion);
        let done = Box::pin(again).await;
        self.conclude(done)
    }

    fn conclude(&mut self, done: Result<Outcome>) -> Result<Outcome> {
        match &done {
            Ok(outcome) => self.settle(*outcome)?,
            Err(error) => {
                commit::failed(&self.session.0.context, &self.draft, error);
                self.announce();
            }
        }
        done
    }

    /// Whether the client's token may be dead by now, and nobody would tell it the new one: no other commit
    /// comes after this one.
    fn is_doubtful(&self, done: &Result<Outcome>) -> bool {
        done.as_ref().is_err_and(Error::is_timeout)
            && self.occasion != Occasion::Save
            && self.draft.may_have_renewed()
    }

    /// Lets the client know the token that an earlier `save` of this request turns out to have made, although
    /// nothing more is done.
    fn announce(&self) {
        let mut state = self.session.state();
        let before = state.draft.stored.as_ref().map(|stored| stored.digest);
        if state.ends == self.ends
            && let Some(current) = self.draft.current(&self.session.0.context)
            && before.is_some_and(|before| before != current.stored.digest)
        {
            state.notice = current.issue(self.draft.at);
        }
    }

    /// Makes the session show what is stored now. Fails if what came in meanwhile does not fit that.
    fn settle(&mut self, outcome: Outcome) -> Result<()> {
        let session = self.session;
        let context = &session.0.context;
        let dropped = matches!(outcome, Outcome::Gone | Outcome::Superseded);
        self.settled = true;
        let draft = &mut self.draft;
        let mut state = session.state();
        state.saving -= 1;
        if self.plan != Plan::Nothing {
            state.draft.unsure = false;
        }
        if state.ends != self.ends {
            // Destroyed meanwhile: what was just stored has to go.
            let id = draft.stored.as_ref().map(Stored::id);
            let destroy = &mut state.draft.actions.destroy;
            *destroy = destroy.or(id);
            return Ok(());
        }
        if outcome == Outcome::Unchanged {
            // Such as the policy of a session that will only begin to have values.
            let later = mem::take(&mut state.draft.actions);
            state.draft.actions = mem::take(&mut draft.actions).then(later);
        }
        let before = mem::take(&mut state.notice);
        let current = draft.current(context);
        state.notice = commit::notice(outcome, before, current, draft.at);
        state.draft.stored = draft.stored.take();
        if dropped && draft.actions.sign_in.is_some() && state.draft.actions.sign_in.is_none() {
            // Nobody was signed in.
            let stored = state.draft.stored.as_ref();
            state.owner = stored.and_then(|stored| stored.record.owner.clone());
        }
        let shown = !draft.rebased && !dropped;
        // After its end nothing came in.
        if state.resets == self.resets && !(state.closed && shown) {
            self.rejoin(state, dropped)
        } else {
            Ok(())
        }
    }

    /// Puts what came in meanwhile on top of what is stored now. What does not fit that is dropped.
    fn rejoin(&mut self, state: MutexGuard<'_, State>, dropped: bool) -> Result<()> {
        let session = self.session;
        let draft = &mut self.draft;
        // Dropped after the lock is let go of.
        let mut changes = if dropped {
            Changes::default()
        } else {
            draft.changes.take_reads()
        };
        let mut fits = Ok(());
        let mut later;
        let mut state = state;
        later = mem::take(&mut state.draft.changes);
        if draft.rebased || dropped {
            let stored = state.draft.stored.as_ref();
            let data = stored.map(|stored| Data::parse(stored.record.data.clone()));
            // What was just written or loaded parses.
            let Some(Ok(mut data)) = data else {
                return fits;
            };
            while !later.is_empty() {
                // Closures of the application run without the lock.
                drop(state);
                let mut redone = data.clone();
                let mut again = mem::take(&mut later);
                match again.replay(&mut redone) {
                    Ok(()) => {
                        data = redone;
                        drop(changes.extend(again));
                    }
                    Err(error) => {
                        drop(again);
                        fits = Err(error);
                    }
                }
                state = session.state();
                if state.resets != self.resets {
                    return fits;
                }
                later = mem::take(&mut state.draft.changes);
            }
            state.data = data;
        }
        // Once the response is on its way nobody would write them, nor drop them.
        if state.closed {
            return fits;
        }
        let overwritten = changes.extend(mem::take(&mut later));
        mem::swap(&mut state.draft.changes, &mut changes);
        drop(state);
        drop(overwritten);
        fits
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let draft = mem::take(&mut self.draft);
        let mut overwritten = Overwritten::default();
        let mut state = self.session.state();
        state.saving -= 1;
        state.draft.unsure |= self.plan != Plan::Nothing;
        state.draft.unseen = draft.unseen;
        // Once the response is on its way nobody would write what goes back.
        if state.resets == self.resets && !state.closed {
            let later = mem::replace(&mut state.draft.changes, draft.changes);
            overwritten = state.draft.changes.extend(later);
        }
        let later = mem::take(&mut state.draft.actions);
        state.draft.actions = if state.ends == self.ends {
            draft.actions.then(later)
        } else {
            let destroy = later.destroy.or(draft.actions.destroy);
            Actions { destroy, ..later }
        };
        // Without the lock, and then `draft`.
        drop(state);
        drop(overwritten);
    }
}
