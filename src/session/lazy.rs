//! Loading a session when somebody asks for it.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::HeaderValue;
use tokio::sync::Notify;

use super::Session;
use super::client::recognise;
use crate::clock::Timestamp;
use crate::commit::Stored;
use crate::context::Context;
use crate::cookie::Candidates;
use crate::data::Data;
use crate::error::{Error, Result, StoreError};
use crate::event::SessionEvent;
use crate::id::SessionId;
use crate::record::Record;
use crate::seal::Ticket;
use crate::token::Token;
use crate::transport::Carried;
use crate::visit::Visit;

/// A session that is loaded when somebody asks for it.
///
/// The layer puts one into the extensions of every request. Until [`load`](Self::load) is called
/// nothing is parsed and the store is not asked. Clones are cheap and share the session.
///
/// With axum, take [`Session`] in the handler instead: its extractor does this. In a plain Tower
/// service, where one that signs somebody in loads it *before* it looks at the password, so that
/// [`Sessions::revoke_all`](crate::Sessions::revoke_all) meanwhile stops it:
///
/// ```
/// use cloakroom::{LazySession, MemoryStore, SessionLayer};
/// use http::{Request, Response};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// async fn visit(request: Request<String>) -> cloakroom::Result<Response<String>> {
///     let lazy = request.extensions().get::<LazySession>().expect("the layer is there");
///     let session = lazy.load().await?;
///     let n = session.update("visits", |n: &mut u64| {
///         *n += 1;
///         *n
///     })?;
///     Ok(Response::new(format!("visit {n}")))
/// }
///
/// let service = ServiceBuilder::new()
///     .layer(SessionLayer::new(MemoryStore::new()))
///     .service_fn(visit);
/// let response = service.oneshot(Request::new(String::new())).await?;
/// assert_eq!(response.body(), "visit 1");
/// assert!(response.headers().contains_key("set-cookie"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct LazySession(Arc<Pending>);

struct Pending {
    context: Arc<Context>,
    carried: Carried,
    visit: Option<Box<Visit>>,
    progress: Mutex<Progress>,
    // Apart from it, so that a request that does not use its session gets by without the lock. Whoever sets one of
    // these looks at the progress, or at another one, after that, so one of two sees what the other has set.
    /// Somebody asked, so the response depends on the session.
    asked: AtomicBool,
    /// The request does not count as use of the session.
    no_touch: AtomicBool,
    /// The response is ready: what is loaded from now on can only be read.
    closed: AtomicBool,
    /// A browser sent the request over plain http.
    plain_http: AtomicBool,
}

/// How far a request has come with its session.
#[derive(Default)]
enum Progress {
    #[default]
    Idle,
    /// A handler got what it can load it with, then.
    Given(Timestamp),
    /// Somebody loads it; this wakes those who wait for that, if there are any.
    Loading(Option<Arc<Notify>>),
    Loaded(Session),
}

/// What becomes of somebody who asks for the session.
enum Asked<'a> {
    Has(Session),
    Loads(Loading<'a>),
    Waits,
}

impl Pending {
    fn progress(&self) -> MutexGuard<'_, Progress> {
        // No code of the application runs under the lock, so a panic left it whole.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self) -> Asked<'_> {
        self.asked.store(true, Ordering::SeqCst);
        let mut progress = self.progress();
        let given = match &*progress {
            Progress::Loaded(session) => return Asked::Has(session.clone()),
            Progress::Loading(_) => return Asked::Waits,
            Progress::Idle => None,
            Progress::Given(then) => Some(*then),
        };
        *progress = Progress::Loading(None);
        Asked::Loads(Loading {
            pending: self,
            given,
            session: None,
        })
    }

    /// Waits until nobody loads the session.
    async fn wait(&self) {
        let waiting;
        // Made under the lock: what happens from then on wakes it.
        let woken = match &mut *self.progress() {
            Progress::Loading(some) => {
                waiting = Arc::clone(some.get_or_insert_default());
                waiting.notified()
            }
            _ => return,
        };
        woken.await;
    }
}

/// Somebody loads the session, until this is dropped: with it, or without, and then the next one may try.
struct Loading<'a> {
    pending: &'a Pending,
    given: Option<Timestamp>,
    session: Option<Session>,
}

impl Drop for Loading<'_> {
    fn drop(&mut self) {
        let Pending {
            no_touch, closed, ..
        } = self.pending;
        let mut progress = self.pending.progress();
        let next = match self.session.take() {
            Some(session) => {
                // Before anybody has it.
                if no_touch.load(Ordering::SeqCst) {
                    session.no_touch();
                }
                if closed.load(Ordering::SeqCst) {
                    session.close();
                }
                Progress::Loaded(session)
            }
            None => self.given.map_or(Progress::Idle, Progress::Given),
        };
        let before = mem::replace(&mut *progress, next);
        drop(progress);
        if let Progress::Loading(Some(waiting)) = before {
            waiting.notify_waiters();
        }
    }
}

impl LazySession {
    #[inline]
    pub(crate) fn new(context: Arc<Context>, carried: Carried, visit: Option<Box<Visit>>) -> Self {
        Self(Arc::new(Pending {
            context,
            carried,
            visit,
            progress: Mutex::default(),
            asked: AtomicBool::new(false),
            no_touch: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            plain_http: AtomicBool::new(false),
        }))
    }

    /// Loads the session: one call of the store however many ask; none if the client has no
    /// well-formed token.
    ///
    /// A client without a live session gets an empty one, which is stored once it has a value.
    ///
    /// # Errors
    ///
    /// [`Error::is_store`](crate::Error::is_store) if the store fails or does not answer in time, and
    /// [`Error::is_random`](crate::Error::is_random) if [clients are
    /// watched](crate::SessionLayerBuilder::watch_client) and the operating system gives no random bytes; the next
    /// call tries again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn load(&self) -> Result<Session> {
        let pending = &*self.0;
        let mut loading = loop {
            match pending.ask() {
                Asked::Has(session) => return Ok(session),
                Asked::Loads(loading) => break loading,
                // In a box, as all that is rare: what is not is part of every handler's future.
                Asked::Waits => Box::pin(pending.wait()).await,
            }
        };
        let Pending {
            context,
            carried,
            visit,
            ..
        } = pending;
        let session = load(context, carried, visit.as_deref()).await?;
        if let Some(given) = loading.given {
            session.begin(given);
        }
        loading.session = Some(session.clone());
        Ok(session)
    }

    /// Notes that a handler has it from now on, and may sign somebody in once it has looked at a password: a revocation
    /// from now on counts, also before the session is loaded.
    #[cfg(feature = "axum")]
    pub(crate) fn give(&self) {
        let now = self.0.context.now();
        let mut progress = self.0.progress();
        // The first one counts.
        if let Progress::Idle = *progress {
            *progress = Progress::Given(now);
        }
    }

    /// This request does not count as use of the session, as [`Session::no_touch`] has it, whether or
    /// not it is loaded yet. [`NoTouch`](crate::NoTouch) marks whole routes.
    pub fn no_touch(&self) {
        self.0.no_touch.store(true, Ordering::SeqCst);
        if let Some(session) = self.loaded() {
            session.no_touch();
        }
    }

    /// Notes that a browser sent the request over plain http.
    #[cfg(feature = "axum")]
    pub(crate) fn note_plain_http(&self) {
        self.0.plain_http.store(true, Ordering::SeqCst);
    }

    /// Says once if the client drops the cookie that it is given.
    pub(crate) fn check_scheme(&self) {
        if self.0.plain_http.load(Ordering::SeqCst) {
            self.0.context.warn_of_plain_http();
        }
    }

    /// What all requests of the layer share. This does not ask for the session.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.0.context
    }

    /// Where somebody who looks at a page is sent instead of this error.
    pub(crate) fn sign_in_location(&self, error: &Error) -> Option<HeaderValue> {
        let config = &self.0.context.config;
        let step_up = config.step_up_page.as_ref();
        let step_up = step_up.filter(|_| error.is_step_up_needed());
        let page = step_up.or(config.sign_in_page.as_ref())?;
        self.0.visit.as_ref()?.location(page)
    }

    /// The response is ready. A session that is loaded already is closed by whoever finishes it.
    #[inline]
    pub(crate) fn close(&self) {
        self.0.closed.store(true, Ordering::SeqCst);
    }

    /// Whether anybody asked for the session.
    #[inline]
    pub(crate) fn asked(&self) -> bool {
        self.0.asked.load(Ordering::SeqCst)
    }

    /// The session, if it is loaded.
    pub(crate) fn loaded(&self) -> Option<Session> {
        match &*self.0.progress() {
            Progress::Loaded(session) => Some(session.clone()),
            _ => None,
        }
    }
}

impl fmt::Debug for LazySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LazySession")
            .field("loaded", &self.loaded())
            .finish()
    }
}

/// Finds the session of a request: that of its one live token (S-30).
async fn load(context: &Arc<Context>, carried: &Carried, visit: Option<&Visit>) -> Result<Session> {
    let candidates = carried.candidates(&context.config.carrier, &context.seal);
    let found = if candidates.overflow() {
        context.tell(&SessionEvent::TooManyCookies {});
        None
    } else {
        context.deadline(find_one(context, &candidates)).await?
    };
    let client = recognise(context, visit, found.as_ref().map(|(_, session)| session))?;
    let found = found.filter(|_| !client.refused);
    let session = match found {
        Some((id, session)) => {
            context.tell(&SessionEvent::Loaded { session: id });
            session
        }
        None => Session::new(context, Data::new(), context.now(), false),
    };
    session.note_client(client);
    Ok(session)
}

/// Looks up the one live session among those that a request has tokens of.
async fn find_one(
    context: &Arc<Context>,
    candidates: &Candidates<'_>,
) -> Result<Option<(SessionId, Session)>> {
    let mut found: Option<(SessionId, Session)> = None;
    // By number, since an iterator would be kept while waiting.
    let mut at = 0;
    while let Some(value) = candidates.get(at) {
        at += 1;
        let Some(mut ticket) = context.seal.open(value) else {
            context.tell(&SessionEvent::Forged {});
            continue;
        };
        let Some(session) = find(context, &mut ticket, false).await? else {
            continue;
        };
        let id = ticket.token.id();
        match &found {
            Some((first, _)) if *first != id => {
                let sessions = [*first, id];
                context.tell(&SessionEvent::DuplicateCookies { sessions });
                return Ok(None);
            }
            // A replaced token in its grace, besides the current one.
            Some(_) if !session.has_current_token() => {}
            _ => found = Some((id, session)),
        }
    }
    Ok(found)
}

/// Looks up the live session that a ticket opens, in the store unless it comes along: then it is
/// taken out.
pub(super) async fn find(
    context: &Arc<Context>,
    // By reference, and nothing made of it is kept while waiting: see `Deadline`.
    ticket: &mut Ticket,
    reopened: bool,
) -> Result<Option<Session>> {
    let now = context.now();
    let loaded = match ticket.record.take() {
        Some(record) => Ok(Some(*record)),
        None => context.store.load(ticket.token.id(), now).await,
    };
    open(context, ticket.token, loaded, now, reopened)
}

/// The session of what a store answered, if the token opens it.
// Not part of the future around it: what is moved about there is handed over here.
#[inline(never)]
fn open(
    context: &Arc<Context>,
    token: Token,
    loaded: Result<Option<Record>, StoreError>,
    now: Timestamp,
    reopened: bool,
) -> Result<Option<Session>> {
    let session = token.id();
    // Reported, and nobody's session (S-74).
    let damaged = |error: StoreError| {
        let error = Error::from(error);
        context.tell(&SessionEvent::Corrupt { session, error });
    };
    // By reference until it has its place: a record is large, and each name it gets is a move.
    let record = match loaded {
        Ok(Some(ref record)) => record,
        Ok(None) => {
            context.tell(&SessionEvent::Unknown { session });
            return Ok(None);
        }
        Err(error) if error.is_corrupt() => {
            damaged(error);
            return Ok(None);
        }
        Err(error) => return Err(error.into()),
    };
    let digest = token.digest(&context.config.namespace);
    // Checked here whatever the store did, so that its mistakes cannot open a session (S-47).
    if !record.accepts(digest, now) {
        let event = if record.had(digest) {
            SessionEvent::StaleToken { session }
        } else {
            SessionEvent::WrongSecret { session }
        };
        context.tell(&event);
        return Ok(None);
    }
    if !record.is_live(context.config.limits_of(record), now) {
        context.tell(&SessionEvent::Expired { session });
        return Ok(None);
    }
    match Data::parse(record.data.clone()) {
        Ok(data) => {
            let Ok(Some(record)) = loaded else {
                return Ok(None);
            };
            let stored = Stored {
                record,
                token,
                digest,
            };
            Ok(Some(
                Session::new(context, data, now, reopened).with(stored),
            ))
        }
        Err(error) => {
            damaged(StoreError::corrupt(error));
            Ok(None)
        }
    }
}
