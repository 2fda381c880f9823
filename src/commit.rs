//! What becomes of a session when its handler is done.
//!
//! [`plan`] decides, [`run`] carries out, [`notice`] says what the client is told. Nothing else in
//! the crate writes to a store on the request's path.

use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use crate::carrier::Carrier;
use crate::changes::Changes;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::context::Context;
use crate::data::{Content, Data, EMPTY};
use crate::error::{Error, Result, StoreError};
use crate::event::SessionEvent;
use crate::expiry::{ExpiryPolicy, Limits};
use crate::id::SessionId;
use crate::queue::Turn;
use crate::record::{Previous, Record};
use crate::seal::Ticket;
use crate::store::contract::{Admission, Create, SignIn, Update};
use crate::token::{Digest, Token};
use crate::transport::Notice;

/// Of writers in other processes one wins each round, so losing this often means that more of them
/// write to one session without pause than any client causes. Those who wait in line in another process
/// may win a hundred times in a row: they are handed the record, and meet no conflict.
const MAX_TRIES: u32 = 256;

/// A session that is in the store, as this request knows it.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) record: Record,
    /// What the request's client holds: it came with this token, or this request made it.
    pub(crate) token: Token,
    /// The token's digest. Writes count only while the record accepts it.
    pub(crate) digest: Digest,
}

impl Stored {
    pub(crate) fn id(&self) -> SessionId {
        self.token.id()
    }
}

/// What a handler asked for besides changes to the values.
#[derive(Clone, Debug, Default)]
pub(crate) struct Actions {
    pub(crate) renew: bool,
    pub(crate) sign_in: Option<Arc<str>>,
    /// Another owner signs in: values and policy of the one before are not theirs.
    pub(crate) other_owner: bool,
    /// The session's own expiry policy from now on; `Some(None)` for the layer's.
    pub(crate) policy: Option<Option<ExpiryPolicy>>,
    /// The stored session that was destroyed. What is stored next is another session.
    pub(crate) destroy: Option<SessionId>,
}

impl Actions {
    /// These actions, and then `later` ones.
    pub(crate) fn then(self, later: Self) -> Self {
        Self {
            renew: self.renew | later.renew,
            sign_in: later.sign_in.or(self.sign_in),
            other_owner: self.other_owner | later.other_owner,
            policy: later.policy.or(self.policy.filter(|_| !later.other_owner)),
            destroy: later.destroy.or(self.destroy),
        }
    }
}

/// When a commit happens, which bears on what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occasion {
    /// The handler asked for it with `save`.
    Save,
    /// The response is ready.
    Response,
    /// The response is ready and reports a failure of the server: its changes to values do not count.
    FailedResponse,
}

/// A session's pending work: what is stored, and what is to be done about it.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) stored: Option<Stored>,
    /// The values after the changes, encoded; absent when there are no changes.
    pub(crate) content: Option<Arc<[u8]>>,
    pub(crate) changes: Changes,
    pub(crate) actions: Actions,
    /// When it was decided what to do, and then when that was done.
    pub(crate) at: Timestamp,
    /// When the request came for its session.
    pub(crate) began: Timestamp,
    /// Whether the request does not count as use of the session.
    pub(crate) no_touch: bool,
    /// Whether `run` put the changes on newer data, so that `content` is not what the handler saw.
    pub(crate) rebased: bool,
    /// A write may have reached the store unseen: `stored` may be out of date.
    pub(crate) unsure: bool,
    /// What such writes gave the session, kept until one is seen to be done. In a box: few renew it.
    pub(crate) unseen: Option<Box<Unseen>>,
}

/// Tokens that were made for the session, of which one may be its own by now.
#[derive(Debug)]
pub(crate) struct Unseen {
    last: (Token, Digest),
    /// Nearly always none.
    earlier: Vec<(Token, Digest)>,
    /// How many of all were made by earlier commits, which had only those changes to store that there were by then.
    before: usize,
}

impl Unseen {
    fn all(&self) -> impl Iterator<Item = &(Token, Digest)> {
        self.earlier.iter().chain([&self.last])
    }

    fn count(&self) -> usize {
        self.earlier.len() + 1
    }
}

impl Draft {
    /// Nothing is to be done yet.
    pub(crate) fn new(began: Timestamp) -> Self {
        // Field by field: a default that is overwritten in part is made, moved and dropped.
        Self {
            stored: None,
            content: None,
            changes: Changes::default(),
            actions: Actions::default(),
            at: began,
            began,
            no_touch: false,
            rebased: false,
            unsure: false,
            unseen: None,
        }
    }
}

/// What [`plan`] decides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Situation {
    /// The session is in the store.
    pub(crate) exists: bool,
    /// The values, or the session's own expiry policy, differ from the stored ones.
    pub(crate) changed: bool,
    /// There are no values.
    pub(crate) empty: bool,
    /// `renew` was called.
    pub(crate) renew: bool,
    /// `sign_in` was called.
    pub(crate) sign_in: bool,
    /// A stored session was destroyed.
    pub(crate) destroyed: bool,
    /// The stored end lags behind by the touch interval.
    pub(crate) touch_due: bool,
    /// The stored end is ahead by as much, as when the clock was set back (S-49).
    pub(crate) end_ahead: bool,
    /// The token has reached the age for periodic renewal.
    pub(crate) renewal_due: bool,
    /// The cookie has an age that a later end must extend.
    pub(crate) persistent: bool,
}

/// What happens to the token in an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// It stays.
    Keep,
    /// A new one; the old one is dead at once.
    Replace,
    /// A new one; the old one is accepted for the configured grace.
    Grace,
}

/// What will be done in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Nothing,
    Touch,
    Update(Rotation),
    Create,
    Delete,
    DeleteThenCreate,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing was to be done.
    Unchanged,
    /// The end was moved.
    Touched,
    /// The record was replaced; the token stays, and the end.
    Updated,
    /// The record was replaced with a later end; the token stays.
    Extended,
    /// The record was replaced with another policy of its own; the token stays.
    Retimed,
    /// The record was replaced, with a new token.
    Renewed,
    /// A new session is stored.
    Created,
    /// The session is deleted.
    Deleted,
    /// The session had ended meanwhile, or the owner's sessions were revoked while they signed in;
    /// nothing was written.
    Gone,
    /// The request's token was replaced meanwhile; nothing was written.
    Superseded,
}

/// Decides what a commit does in the store. Pure.
pub(crate) fn plan(s: Situation) -> Plan {
    let store_new = s.sign_in || (s.changed && !s.empty);
    match (s.exists, s.destroyed) {
        (_, true) if store_new => Plan::DeleteThenCreate,
        (_, true) => Plan::Delete,
        (false, false) if store_new => Plan::Create,
        (false, false) => Plan::Nothing,
        (true, false) if s.renew || s.sign_in => Plan::Update(Rotation::Replace),
        (true, false) if s.renewal_due => Plan::Update(Rotation::Grace),
        (true, false) if s.changed => Plan::Update(Rotation::Keep),
        // A cookie goes out again here, and only compare-and-swap tells that its token was not
        // replaced meanwhile: a stale one would take the place of the new one in the browser.
        (true, false) if s.touch_due && s.persistent => Plan::Update(Rotation::Keep),
        // A touch only ever moves the end later.
        (true, false) if s.end_ahead => Plan::Update(Rotation::Keep),
        (true, false) if s.touch_due => Plan::Touch,
        (true, false) => Plan::Nothing,
    }
}

/// The stored session of a client that holds its current token.
#[derive(Clone, Copy)]
pub(crate) struct Current<'a> {
    pub(crate) stored: &'a Stored,
    /// The client is told how long to keep it.
    pub(crate) persistent: bool,
    /// There is no store: the client keeps the record.
    pub(crate) whole: bool,
}

impl Current<'_> {
    pub(crate) fn issue(self, now: Timestamp) -> Notice {
        let Stored { record, token, .. } = self.stored;
        let age = record.expires.saturating_since(now);
        let ticket = Ticket {
            token: *token,
            record: self.whole.then(|| Box::new(record.clone())),
        };
        Notice::Issue(ticket, self.persistent.then_some(age))
    }
}

/// Decides what the client is told: when is a token sent?
///
/// `before` is what an earlier `save` of this request left to be said.
pub(crate) fn notice(
    outcome: Outcome,
    before: Notice,
    current: Option<Current<'_>>,
    now: Timestamp,
) -> Notice {
    match (outcome, current) {
        (Outcome::Created | Outcome::Renewed | Outcome::Retimed, Some(current)) => {
            current.issue(now)
        }
        (Outcome::Extended, Some(current)) if current.persistent => current.issue(now),
        // Nobody else has what was written.
        (Outcome::Touched | Outcome::Updated | Outcome::Extended, Some(current))
            if current.whole =>
        {
            current.issue(now)
        }
        (Outcome::Deleted, _) => Notice::Remove,
        // What a save announced is dead as well.
        (Outcome::Gone | Outcome::Superseded, _) => Notice::None,
        (Outcome::Unchanged | Outcome::Touched | Outcome::Updated | Outcome::Extended, _) => before,
        (Outcome::Created | Outcome::Renewed | Outcome::Retimed, None) => before,
    }
}

/// How a session expires.
struct Terms {
    /// The session's own policy, as it will be stored.
    own: Option<ExpiryPolicy>,
    /// Those of that policy, or else of the layer's.
    limits: Limits,
    /// The client is told how long to keep its token: in a cookie.
    persistent: bool,
}

impl Terms {
    /// How the record's end compares with the one that use at `now` gives it, in whole touch intervals.
    fn compare_end(&self, record: &Record, config: &Config, now: Timestamp) -> Ordering {
        let end = self.limits.deadline(record.started(), now).as_millis();
        let stored = record.expires.as_millis();
        let interval = config.touch_interval(self.limits);
        if end.saturating_sub(stored) >= interval {
            Ordering::Less
        } else if stored.saturating_sub(end) >= interval {
            Ordering::Greater
        } else {
            Ordering::Equal
        }
    }
}

impl Draft {
    /// Takes back the changes to values of a response that reports a failure of the server.
    pub(crate) fn drop_changes(&mut self) -> Changes {
        self.content = None;
        self.actions.policy = None;
        mem::take(&mut self.changes)
    }

    /// How the session will expire. What another owner or a guest asked for before a sign-in does not
    /// count.
    fn terms(&self, config: &Config) -> Terms {
        let record = self.stored.as_ref().map(|stored| &stored.record);
        let has_owner = record.is_some_and(|record| record.owner.is_some());
        let signs_in = self.actions.sign_in.is_some();
        let theirs = !signs_in || (has_owner && !self.actions.other_owner);
        let stored = record.filter(|_| theirs).and_then(|record| record.policy);
        let own = self.actions.policy.unwrap_or(stored);
        Terms {
            own,
            limits: config.limits(own, signs_in || has_owner),
            persistent: (config.persistent || own.is_some())
                && matches!(config.carrier, Carrier::Cookie(_)),
        }
    }

    /// Decides what a commit does at `now`.
    pub(crate) fn plan(&mut self, config: &Config, occasion: Occasion, now: Timestamp) -> Plan {
        self.at = now;
        plan(self.situation(config, occasion, now))
    }

    fn situation(&self, config: &Config, occasion: Occasion, now: Timestamp) -> Situation {
        let terms = self.terms(config);
        let record = self.stored.as_ref().map(|stored| &stored.record);
        let stored_data = record.map_or(EMPTY, |record| &record.data);
        let content = self.content.as_deref();
        let other_policy = record.is_some_and(|record| record.policy != terms.own);
        // Then it says little to be as the record was.
        let unsure = record.is_some() && self.unsure;
        // Upkeep is for the end of the request: `save` does what it was asked, no more.
        let upkeep = record.filter(|_| occasion != Occasion::Save);
        let used = upkeep.filter(|_| !self.no_touch);
        let end = used.map_or(Ordering::Equal, |record| {
            terms.compare_end(record, config, now)
        });
        Situation {
            exists: record.is_some(),
            changed: content.is_some_and(|content| content != stored_data)
                || other_policy
                || (unsure && (content.is_some() || self.actions.policy.is_some())),
            empty: content.is_none_or(|content| content == EMPTY),
            renew: self.actions.renew,
            sign_in: self.actions.sign_in.is_some(),
            destroyed: self.actions.destroy.is_some(),
            touch_due: end == Ordering::Less,
            end_ahead: end == Ordering::Greater,
            renewal_due: upkeep.zip(config.renewal).is_some_and(|(record, renewal)| {
                now >= record.renewed.saturating_add(renewal.every)
            }),
            persistent: terms.persistent,
        }
    }

    /// What a sign-in depends on, if there is one.
    fn admission(&self, config: &Config) -> Option<Admission> {
        self.actions.sign_in.as_ref()?;
        let mut admission = Admission::new(self.began);
        admission.limit = config.owner_limit;
        Some(admission)
    }

    /// The values to store. Those of another owner do not count.
    fn data(&self) -> Content {
        let stored = self.stored.as_ref().filter(|_| !self.actions.other_owner);
        match (&self.content, stored) {
            (Some(content), _) => Content::written(Arc::clone(content)),
            (None, Some(stored)) => stored.record.data.clone(),
            (None, None) => Content::empty(),
        }
    }

    /// The same, to be changed.
    pub(crate) fn values(&self) -> Data {
        // They parsed when they were loaded.
        Data::parse(self.data()).unwrap_or_else(|_| Data::new())
    }

    /// Applies the actions to a record that is about to be written at `now`, with a new token if
    /// `anew`.
    ///
    /// A cookie with an age says what the record says, so moving the end means sending it again, and
    /// a response that is overtaken on its way then puts an old token in the place of a new one.
    /// Where the token stays, the end therefore moves as rarely as a touch would move it. A request
    /// that does not count as use does not move it at all.
    fn fill(&self, record: &mut Record, config: &Config, now: Timestamp, anew: bool) {
        let terms = self.terms(config);
        let other_policy = record.policy != terms.own;
        let signs_in = self.actions.sign_in.is_some();
        if self.no_touch && self.stored.is_some() && !signs_in && !other_policy {
            // A touch that came in since the load is kept by the store.
            return;
        }
        record.policy = terms.own;
        record.seen = now;
        if let Some(owner) = &self.actions.sign_in {
            record.owner = Some(Arc::clone(owner));
            record.authenticated = Some(now);
        }
        let moved = || terms.compare_end(record, config, now) != Ordering::Equal;
        if anew || other_policy || !terms.persistent || moved() {
            record.expires = terms.limits.deadline(record.started(), now);
        }
    }

    /// Puts the changes on the record as it is in the store now.
    fn rebase(&mut self, current: Record, context: &Context, now: Timestamp) -> Result<Rebased> {
        let Some(stored) = &mut self.stored else {
            return Ok(Rebased::Gone);
        };
        if !current.is_live(context.config.limits_of(&current), now) {
            return Ok(Rebased::Gone);
        }
        let made = self.unseen.iter().flat_map(|unseen| unseen.all());
        let own = made
            .enumerate()
            .find(|(_, (_, digest))| *digest == current.digest);
        let mut done = false;
        if let Some((at, own)) = own {
            // This request renewed it itself, and was not told. Nobody else can have written since the load, so
            // nobody changed what was read.
            (stored.token, stored.digest) = *own;
            self.changes.forget_reads();
            done = self.unseen.as_ref().is_some_and(|all| at >= all.before);
        }
        let own = own.is_some();
        if !current.accepts(stored.digest, now) {
            return Ok(Rebased::Superseded);
        }
        stored.record = current;
        if done {
            self.rebased = true;
            return Ok(Rebased::Done);
        }
        if !self.changes.is_empty() {
            let mut data = parse(&stored.record)?;
            if self.actions.other_owner {
                data.clear();
            }
            self.changes.replay(&mut data)?;
            self.content = Some(data.encode());
        }
        self.rebased = true;
        self.unsure = false;
        Ok(Rebased::Anew { own })
    }

    /// Fails if the values have grown beyond the limit, as they may with those of a parallel request.
    fn check_size(&self, config: &Config) -> Result<()> {
        let before = self
            .stored
            .as_ref()
            .map_or(0, |stored| stored.record.data.len());
        match &self.content {
            Some(content) if !config.allows(content.len(), before) => {
                Err(Error::too_large(content.len(), config.max_size, None))
            }
            _ => Ok(()),
        }
    }

    /// Fails if a key that the handler read and then set was changed meanwhile, here or before a
    /// `save`. Reads are noted under [`OnConflict::Reject`](crate::config::OnConflict) alone.
    fn check_reads(&self) -> Result<()> {
        let Some(stored) = self.stored.as_ref().filter(|_| self.changes.has_reads()) else {
            return Ok(());
        };
        match self.changes.clash(&parse(&stored.record)?) {
            Some(key) => Err(Error::conflict(key.to_owned())),
            None => Ok(()),
        }
    }

    /// The work is done.
    fn settle(&mut self, next: Next) {
        let Next { record, token, .. } = next;
        match &mut self.stored {
            Some(stored) if !next.new_token => stored.record = record,
            stored => {
                let digest = record.digest;
                *stored = Some(Stored {
                    record,
                    token,
                    digest,
                });
            }
        }
        self.settled();
    }

    /// There is nothing left to do, and nothing that was done unseen.
    fn settled(&mut self) {
        self.actions = Actions::default();
        self.unseen = None;
    }

    /// A commit begins.
    pub(crate) fn begin(&mut self) {
        if let Some(unseen) = &mut self.unseen {
            unseen.before = unseen.count();
        }
    }

    /// Whether the commit under way may have put another token in the place of the client's.
    pub(crate) fn may_have_renewed(&self) -> bool {
        let unseen = self.unseen.as_ref().filter(|_| self.stored.is_some());
        unseen.is_some_and(|unseen| unseen.count() > unseen.before)
    }

    /// Notes what is about to become the session's token, in case nobody sees that it does.
    fn expect(&mut self, made: (Token, Digest)) {
        match &mut self.unseen {
            Some(unseen) => unseen.earlier.push(mem::replace(&mut unseen.last, made)),
            none => {
                *none = Some(Box::new(Unseen {
                    last: made,
                    earlier: Vec::new(),
                    before: 0,
                }));
            }
        }
    }

    /// The stored session if its current token is the client's.
    pub(crate) fn current(&self, context: &Context) -> Option<Current<'_>> {
        let stored = self.stored.as_ref()?;
        let is_current = stored.record.digest == stored.digest;
        is_current.then(|| Current {
            stored,
            persistent: self.terms(&context.config).persistent,
            whole: context.seal.is_whole(),
        })
    }
}

fn parse(record: &Record) -> Result<Data> {
    Data::parse(record.data.clone()).map_err(|error| StoreError::corrupt(error).into())
}

enum Rebased {
    /// The changes are on the newer record.
    Anew {
        /// The current token is one that this request made.
        own: bool,
    },
    /// There is nothing left to do: it was this commit that wrote the newer record.
    Done,
    Gone,
    Superseded,
}

/// Carries out what [`plan`] has decided, and leaves the draft as it then stands in the store.
///
/// On an error, and when the future is dropped, nothing of the draft counts as done, except that a
/// deletion stays one. Each step is one operation of the store, which happens wholly or not at all.
pub(crate) fn run<'a>(
    context: &'a Context,
    draft: &'a mut Draft,
    plan: Plan,
    occasion: Occasion,
) -> impl Future<Output = Result<Outcome>> {
    context.deadline(steps(context, draft, plan, occasion))
}

/// Tells why nothing was stored.
pub(crate) fn failed(context: &Context, draft: &Draft, error: &Error) {
    // A failure of the store was told by `Context::deadline`.
    if !error.is_store() {
        context.tell(&not_stored(draft, error.clone()));
    }
}

fn not_stored(draft: &Draft, error: Error) -> SessionEvent {
    let session = draft.stored.as_ref().map(Stored::id);
    match &draft.actions.sign_in {
        Some(owner) if error.is_full() => SessionEvent::TooManySessions {
            owner: Arc::clone(owner),
        },
        _ if error.is_conflict() => SessionEvent::Conflict { session, error },
        _ if error.is_too_large() => SessionEvent::TooLarge { session, error },
        _ => SessionEvent::NotStored { session, error },
    }
}

async fn steps(
    context: &Context,
    draft: &mut Draft,
    plan: Plan,
    occasion: Occasion,
) -> Result<Outcome> {
    match plan {
        Plan::Nothing => Ok(Outcome::Unchanged),
        Plan::Touch => touch(context, draft).await,
        Plan::Update(rotation) => update(context, draft, occasion, rotation).await,
        Plan::Create => create(context, draft).await,
        Plan::Delete => delete(context, draft).await,
        Plan::DeleteThenCreate => {
            delete(context, draft).await?;
            draft.at = context.now();
            create(context, draft).await
        }
    }
}

async fn touch(context: &Context, draft: &mut Draft) -> Result<Outcome> {
    let Terms { limits, .. } = draft.terms(&context.config);
    let now = draft.at;
    let Some(stored) = &mut draft.stored else {
        return Ok(Outcome::Unchanged);
    };
    let expires = limits.deadline(stored.record.started(), now);
    if !context.store.touch(stored.id(), expires, now).await? {
        return Ok(gone(context, stored.id()));
    }
    stored.record.expires = expires;
    stored.record.seen = now;
    Ok(Outcome::Touched)
}

async fn create(context: &Context, draft: &mut Draft) -> Result<Outcome> {
    draft.check_size(&context.config)?;
    if draft.unseen.is_some() {
        Box::pin(delete_unseen(context, draft)).await?;
    }
    // An id is taken only if random numbers repeat (S-02).
    for _ in 0..3 {
        let next = first(context, draft)?;
        let id = next.token.id();
        if draft.actions.sign_in.is_some() {
            draft.expect((next.token, next.record.digest));
        }
        match write(context, draft, &next).await? {
            Written::Done => {
                context.tell(&SessionEvent::Created { session: id });
                new_token(context, draft, id, Outcome::Created);
                draft.settle(next);
                return Ok(Outcome::Created);
            }
            Written::Gone => return Ok(gone(context, id)),
            Written::Revoked => return Ok(revoked(context, draft)),
            Written::Full => return Err(Error::full()),
            Written::Taken | Written::Conflict(_) => {}
        }
    }
    Err(Error::random("session ids repeat"))
}

/// Ends what a `save` that was given up may have begun for the owner: nobody has a token for it, and it would
/// count as one of theirs.
async fn delete_unseen(context: &Context, draft: &mut Draft) -> Result<()> {
    let made = draft.unseen.iter().flat_map(|unseen| unseen.all());
    let ids: Vec<_> = made.map(|(token, _)| token.id()).collect();
    for id in ids {
        context.store.delete(id).await?;
    }
    draft.unseen = None;
    Ok(())
}

/// What is to be stored.
struct Next {
    record: Record,
    /// What the client will hold.
    token: Token,
    /// The token was made for this, and its digest is the record's.
    new_token: bool,
}

/// The session as it is stored for the first time.
fn first(context: &Context, draft: &Draft) -> Result<Next> {
    let now = draft.at;
    let token = Token::generate(&context.entropy, now)?;
    let digest = token.digest(&context.config.namespace);
    let mut record = Record::with_data(digest, now, now, draft.data());
    draft.fill(&mut record, &context.config, now, true);
    Ok(Next {
        record,
        token,
        new_token: true,
    })
}

async fn delete(context: &Context, draft: &mut Draft) -> Result<Outcome> {
    if let Some(session) = draft.actions.destroy {
        let deleted = context.store.delete(session).await;
        context.endings.look(session);
        deleted?;
        draft.actions.destroy = None;
        context.tell(&SessionEvent::Destroyed { session });
    }
    Ok(Outcome::Deleted)
}

/// Compare-and-swap until it is done or there is nothing left to do.
async fn update(
    context: &Context,
    draft: &mut Draft,
    occasion: Occasion,
    mut rotation: Rotation,
) -> Result<Outcome> {
    let Some(id) = draft.stored.as_ref().map(Stored::id) else {
        return Ok(Outcome::Unchanged);
    };
    let turn = match context.queue.turn(id) {
        Some(turn) => turn,
        None => {
            // In a box, as all that is rare.
            let turn = Box::pin(context.queue.wait(id)).await;
            draft.at = context.now();
            turn
        }
    };
    let mut newer = newer_in_line(&turn, draft, &context.config);
    for tries in 1.. {
        let now = draft.at;
        let rebased = match newer.take() {
            Some(current) => match draft.rebase(*current, context, now)? {
                Rebased::Anew { own } => Some(own),
                Rebased::Done => {
                    let id = turn.id();
                    if let Some(stored) = &draft.stored {
                        turn.leave(&stored.record);
                    }
                    new_token(context, draft, id, Outcome::Renewed);
                    draft.settled();
                    return Ok(Outcome::Renewed);
                }
                Rebased::Gone => return Ok(gone(context, turn.id())),
                Rebased::Superseded => return Ok(superseded(context, turn.id())),
            },
            None => None,
        };
        draft.check_reads()?;
        if let Some(own) = rebased {
            // What another writer did may leave nothing to do, such as a renewal; what this one did, too.
            let Plan::Update(still) = draft.plan(&context.config, occasion, now) else {
                draft.actions = Actions::default();
                return Ok(if own {
                    Outcome::Renewed
                } else {
                    Outcome::Unchanged
                });
            };
            rotation = still;
        }
        let Some(stored) = &draft.stored else {
            return Ok(Outcome::Unchanged);
        };
        // Its grace may have run out since it was loaded.
        if !stored.record.accepts(stored.digest, now) {
            return Ok(superseded(context, turn.id()));
        }
        draft.check_size(&context.config)?;
        let mut next = Next {
            record: stored.record.clone(),
            token: stored.token,
            new_token: false,
        };
        follow(context, draft, &mut next, rotation)?;
        let outcome = match rotation {
            Rotation::Replace | Rotation::Grace => Outcome::Renewed,
            Rotation::Keep if next.record.policy != stored.record.policy => Outcome::Retimed,
            Rotation::Keep if next.record.expires == stored.record.expires => Outcome::Updated,
            Rotation::Keep => Outcome::Extended,
        };
        if next.new_token {
            draft.expect((next.token, next.record.digest));
        }
        match write(context, draft, &next).await? {
            Written::Done => {
                let id = turn.id();
                turn.leave(&next.record);
                if tries > 1 {
                    let (session, count) = (id, tries as usize - 1);
                    context.tell(&SessionEvent::Replayed { session, count });
                }
                new_token(context, draft, id, outcome);
                draft.settle(next);
                return Ok(outcome);
            }
            Written::Gone | Written::Taken => return Ok(gone(context, turn.id())),
            Written::Revoked => return Ok(revoked(context, draft)),
            Written::Full => return Err(Error::full()),
            Written::Conflict(_) if tries == MAX_TRIES => break,
            Written::Conflict(current) => newer = Some(current),
        }
        if tries > 1 {
            // In a box, since it takes more room than a write.
            Box::pin(pause(context, tries)).await?;
        }
        draft.at = context.now();
    }
    Err(Error::contended())
}

/// What a store said to a record.
// A record in it is boxed, since it is kept while waiting, by every commit.
enum Written {
    Done,
    Taken,
    Conflict(Box<Record>),
    Gone,
    /// The owner's sessions were ended since the request came for its session.
    Revoked,
    /// The owner has as many sessions as they may have.
    Full,
}

impl From<Create> for Written {
    fn from(said: Create) -> Self {
        match said {
            Create::Done => Self::Done,
            Create::Taken => Self::Taken,
        }
    }
}

impl From<Update> for Written {
    fn from(said: Update) -> Self {
        match said {
            Update::Done => Self::Done,
            Update::Conflict(current) => Self::Conflict(Box::new(current)),
            Update::Gone => Self::Gone,
        }
    }
}

impl From<SignIn> for Written {
    fn from(said: SignIn) -> Self {
        match said {
            SignIn::Done => Self::Done,
            SignIn::Taken => Self::Taken,
            SignIn::Conflict(current) => Self::Conflict(Box::new(current)),
            SignIn::Gone => Self::Gone,
            SignIn::Revoked => Self::Revoked,
            SignIn::Full => Self::Full,
        }
    }
}

/// Writes `next`: a new session, or in the place of the draft's.
///
/// A write that made a new token may have been done although the store reports a failure, as when a
/// connection breaks before the answer. The client's old token is dead then and only this process
/// knows the new one, so it is worth a look.
// `&mut`, since a draft is not `Sync`: the closures in it are the application's.
async fn write(context: &Context, draft: &mut Draft, next: &Next) -> Result<Written> {
    let (store, record, now) = (&context.store, &next.record, draft.at);
    let expected = draft.stored.as_ref().map(|stored| stored.record.version);
    let said = match (draft.admission(&context.config), expected) {
        (Some(admission), _) => {
            let said = store.sign_in(next.token.id(), record, expected, admission, now);
            said.await.map(Written::from)
        }
        (None, Some(expected)) => {
            let said = store.update(next.token.id(), record, expected, now);
            said.await.map(Written::from)
        }
        (None, None) => {
            let said = store.create(next.token.id(), record, now);
            said.await.map(Written::from)
        }
    };
    if said.is_err() && next.new_token {
        let stored = store.load(next.token.id(), now).await;
        // No other writer can have made this digest.
        if matches!(stored, Ok(Some(stored)) if stored.digest == record.digest) {
            return Ok(Written::Done);
        }
    }
    Ok(said?)
}

/// The record that an earlier turn in this process left, if it is newer than the request's. Whether one that
/// is over was touched meanwhile, the store says.
fn newer_in_line(turn: &Turn, draft: &Draft, config: &Config) -> Option<Box<Record>> {
    let known = draft.stored.as_ref()?.record.version;
    turn.latest()
        .filter(|latest| latest.version > known)
        .filter(|latest| latest.is_live(config.limits_of(latest), draft.at))
        .map(|latest| Box::new(latest.clone()))
}

/// Makes of what is stored what an update will make of it.
fn follow(context: &Context, draft: &Draft, next: &mut Next, rotation: Rotation) -> Result<()> {
    let now = draft.at;
    let record = &mut next.record;
    record.version = record.version.next();
    record.previous = record.previous.filter(|previous| now < previous.until);
    if rotation != Rotation::Keep {
        let grace = match (rotation, context.config.renewal) {
            (Rotation::Grace, Some(renewal)) => renewal.grace,
            _ => Duration::ZERO,
        };
        record.previous =
            (!grace.is_zero()).then(|| Previous::new(record.digest, now.saturating_add(grace)));
        record.renewed = now;
        next.token = Token::renew(next.token.id(), &context.entropy)?;
        next.new_token = true;
        record.digest = next.token.digest(&context.config.namespace);
    }
    record.data = draft.data();
    draft.fill(record, &context.config, now, rotation != Rotation::Keep);
    Ok(())
}

/// Waits a random moment, so that processes that collide do not do so again. Not much longer than a trip to
/// the store, or those who do not wait would always be faster.
async fn pause(context: &Context, tries: u32) -> Result<()> {
    let mut random = [0; 2];
    context.entropy.fill(&mut random)?;
    let bound = 500 * u64::from(tries.min(4));
    let micros = bound * u64::from(u16::from_be_bytes(random)) / u64::from(u16::MAX);
    tokio::time::sleep(Duration::from_micros(micros)).await;
    Ok(())
}

/// Tells of a sign-in or a renewal that is stored, and makes those look who wait for the end of a
/// session that it may have ended.
fn new_token(context: &Context, draft: &Draft, session: SessionId, outcome: Outcome) {
    if let Some(owner) = &draft.actions.sign_in {
        if context.config.owner_limit.is_some() {
            context.endings.look_for(owner);
        }
        let owner = Arc::clone(owner);
        context.tell(&SessionEvent::SignedIn { session, owner });
    } else if outcome == Outcome::Renewed {
        context.tell(&SessionEvent::Renewed { session });
    }
    if outcome == Outcome::Renewed {
        context.endings.look(session);
    }
}

fn gone(context: &Context, session: SessionId) -> Outcome {
    context.endings.look(session);
    context.tell(&SessionEvent::Gone { session });
    Outcome::Gone
}

/// Nobody was signed in, and the request's changes were dropped.
fn revoked(context: &Context, draft: &Draft) -> Outcome {
    let session = draft.stored.as_ref().map(Stored::id);
    // It may be one of the owner's, who signs in again.
    if let Some(session) = session {
        context.endings.look(session);
    }
    if let Some(owner) = draft.actions.sign_in.clone() {
        context.tell(&SessionEvent::SignInRevoked { session, owner });
    }
    Outcome::Gone
}

fn superseded(context: &Context, session: SessionId) -> Outcome {
    context.tell(&SessionEvent::Superseded { session });
    Outcome::Superseded
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Situation = Situation {
        exists: false,
        changed: false,
        empty: true,
        renew: false,
        sign_in: false,
        destroyed: false,
        touch_due: false,
        end_ahead: false,
        renewal_due: false,
        persistent: false,
    };
    const STORED: Situation = Situation {
        exists: true,
        empty: false,
        ..NONE
    };

    #[test]
    fn the_plan_follows_the_table() {
        use Rotation::{Grace, Keep, Replace};
        let table = [
            // Without a stored session.
            (NONE, Plan::Nothing),
            (
                Situation {
                    changed: true,
                    empty: false,
                    ..NONE
                },
                Plan::Create,
            ),
            (
                Situation {
                    changed: true,
                    ..NONE
                },
                Plan::Nothing,
            ),
            (
                Situation {
                    renew: true,
                    ..NONE
                },
                Plan::Nothing,
            ),
            (
                Situation {
                    sign_in: true,
                    ..NONE
                },
                Plan::Create,
            ),
            // With one.
            (STORED, Plan::Nothing),
            (
                Situation {
                    persistent: true,
                    ..STORED
                },
                Plan::Nothing,
            ),
            (
                Situation {
                    touch_due: true,
                    ..STORED
                },
                Plan::Touch,
            ),
            (
                Situation {
                    touch_due: true,
                    persistent: true,
                    ..STORED
                },
                Plan::Update(Keep),
            ),
            (
                Situation {
                    end_ahead: true,
                    ..STORED
                },
                Plan::Update(Keep),
            ),
            (
                Situation {
                    renewal_due: true,
                    touch_due: true,
                    ..STORED
                },
                Plan::Update(Grace),
            ),
            (
                Situation {
                    changed: true,
                    ..STORED
                },
                Plan::Update(Keep),
            ),
            (
                Situation {
                    changed: true,
                    empty: true,
                    ..STORED
                },
                Plan::Update(Keep),
            ),
            (
                Situation {
                    changed: true,
                    renewal_due: true,
                    ..STORED
                },
                Plan::Update(Grace),
            ),
            (
                Situation {
                    renew: true,
                    renewal_due: true,
                    ..STORED
                },
                Plan::Update(Replace),
            ),
            (
                Situation {
                    sign_in: true,
                    renewal_due: true,
                    ..STORED
                },
                Plan::Update(Replace),
            ),
            // After `destroy`.
            (
                Situation {
                    destroyed: true,
                    ..NONE
                },
                Plan::Delete,
            ),
            (
                Situation {
                    destroyed: true,
                    changed: true,
                    ..NONE
                },
                Plan::Delete,
            ),
            (
                Situation {
                    destroyed: true,
                    renew: true,
                    ..NONE
                },
                Plan::Delete,
            ),
            (
                Situation {
                    destroyed: true,
                    changed: true,
                    empty: false,
                    ..NONE
                },
                Plan::DeleteThenCreate,
            ),
            (
                Situation {
                    destroyed: true,
                    sign_in: true,
                    ..NONE
                },
                Plan::DeleteThenCreate,
            ),
        ];
        for (situation, expected) in table {
            assert_eq!(plan(situation), expected, "{situation:?}");
        }
    }

    #[test]
    fn a_cookie_is_sent_when_the_token_or_its_age_changed() {
        let now = Timestamp::from_millis(1_000);
        let token = Token::generate(&crate::entropy::Entropy::System, now).unwrap();
        let digest = Digest::from_bytes([0; 32]);
        let record = Record::new(digest, now, Timestamp::from_millis(61_000));
        let stored = Stored {
            record,
            token,
            digest,
        };
        let minute = Some(Duration::from_secs(60));
        let held = |persistent, whole| {
            let stored = &stored;
            Some(Current {
                stored,
                persistent,
                whole,
            })
        };
        let short = held(false, false);
        let long = held(true, false);
        let whole = held(false, true);
        let issue = |age| Notice::Issue(token.into(), age);
        let record = Some(Box::new(stored.record.clone()));
        let issue_whole = || {
            Notice::Issue(
                Ticket {
                    token,
                    record: record.clone(),
                },
                None,
            )
        };
        let table = [
            (Outcome::Unchanged, long, Notice::None),
            (Outcome::Touched, long, Notice::None),
            (Outcome::Updated, long, Notice::None),
            (Outcome::Extended, short, Notice::None),
            (Outcome::Extended, long, issue(minute)),
            // The client's token was replaced and is in its grace: it has, or gets, a newer one.
            (Outcome::Extended, None, Notice::None),
            (Outcome::Retimed, short, issue(None)),
            (Outcome::Renewed, short, issue(None)),
            (Outcome::Renewed, long, issue(minute)),
            (Outcome::Created, short, issue(None)),
            (Outcome::Deleted, None, Notice::Remove),
            (Outcome::Gone, short, Notice::None),
            (Outcome::Superseded, short, Notice::None),
            // Without a store whatever is written goes to the client.
            (Outcome::Unchanged, whole, Notice::None),
            (Outcome::Touched, whole, issue_whole()),
            (Outcome::Updated, whole, issue_whole()),
            (Outcome::Extended, whole, issue_whole()),
            (Outcome::Created, whole, issue_whole()),
            (Outcome::Deleted, whole, Notice::Remove),
        ];
        for (outcome, current, expected) in table {
            assert_eq!(
                notice(outcome, Notice::None, current, now),
                expected,
                "{outcome:?}"
            );
        }
        // What an earlier `save` left to be said is said, unless it is dead.
        for (outcome, expected) in [
            (Outcome::Unchanged, Notice::Remove),
            (Outcome::Updated, Notice::Remove),
            (Outcome::Gone, Notice::None),
        ] {
            assert_eq!(notice(outcome, Notice::Remove, short, now), expected);
        }
    }
}
