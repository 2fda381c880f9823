//! What happens to sessions, told to the log and to an observer.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tracing::Level;

use crate::error::{Chain, Error};
use crate::id::SessionId;

/// Something that happened to a session, or to a request that came with a token.
///
/// Each is told once, when it has happened, to `tracing` under the target `cloakroom`, and to the
/// observer that [`on_event`](crate::SessionLayerBuilder::on_event) sets: to count them, to raise an
/// alarm, to keep an audit trail (ASVS 16.3.3 and 16.3.4; OWASP Session Management, "Logging Sessions
/// Life Cycle").
///
/// None holds a token, a secret, a digest or a value. [`SessionId`]s are public names and open
/// nothing. An owner may be personal data, such as a mail address: the observer is given it where the
/// event is about the owner, and `Debug` shows it; the log line, which is what `Display` writes, does
/// not.
///
/// ```
/// use cloakroom::{MemoryStore, SessionEvent, SessionLayer};
///
/// let layer = SessionLayer::builder(MemoryStore::new())
///     .on_event(|event| match event {
///         SessionEvent::SignedIn { session, owner, .. } => println!("{owner} signed in: {session}"),
///         event => println!("{}", event.name()),
///     })
///     .build()?;
/// # Ok::<(), cloakroom::ConfigError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SessionEvent {
    /// A session was stored for the first time.
    #[non_exhaustive]
    Created {
        /// The new session.
        session: SessionId,
    },
    /// A request came with the token of a live session and asked for it.
    #[non_exhaustive]
    Loaded {
        /// The request's session.
        session: SessionId,
    },
    /// A session got a new token, by [`renew`](crate::Session::renew) or the
    /// [periodic renewal](crate::SessionLayerBuilder::renew_every).
    #[non_exhaustive]
    Renewed {
        /// The session.
        session: SessionId,
    },
    /// An owner [signed in](crate::Session::sign_in), for the first time or again; the session has a
    /// new token. If the session is new, it was created just before.
    #[non_exhaustive]
    SignedIn {
        /// The session, which is now the owner's.
        session: SessionId,
        /// Who it is.
        owner: Arc<str>,
    },
    /// A handler ended the session with [`destroy`](crate::Session::destroy), as for a sign-out.
    #[non_exhaustive]
    Destroyed {
        /// The session that was.
        session: SessionId,
    },
    /// A token's session is past its end although the store has it still, as after a shortened
    /// timeout. Stores show no expired sessions, so what ends by the clock is otherwise
    /// [`Unknown`](Self::Unknown).
    #[non_exhaustive]
    Expired {
        /// The session.
        session: SessionId,
    },
    /// [`Sessions::revoke`](crate::Sessions::revoke) ended a session that was there.
    #[non_exhaustive]
    Revoked {
        /// The session that was.
        session: SessionId,
    },
    /// The sessions of an owner were ended, by [`Sessions`](crate::Sessions).
    #[non_exhaustive]
    OwnerRevoked {
        /// Whose sessions they were.
        owner: Arc<str>,
        /// The one that was spared.
        kept: Option<SessionId>,
        /// How many it was.
        count: usize,
    },
    /// All sessions of everybody were ended, by [`Sessions`](crate::Sessions).
    #[non_exhaustive]
    AllRevoked {
        /// How many it was.
        count: usize,
    },
    /// A [`Cleaner`](crate::Cleaner) removed expired sessions from the store.
    #[non_exhaustive]
    Swept {
        /// How many it was.
        count: usize,
    },
    /// A well-formed token names no live session: it has ended, or there never was one. Many of them
    /// are somebody guessing.
    #[non_exhaustive]
    Unknown {
        /// The id in the token.
        session: SessionId,
    },
    /// A token names a live session but has not its secret: a sign-in or a renewal has replaced it,
    /// or it is made up.
    #[non_exhaustive]
    WrongSecret {
        /// The id in the token.
        session: SessionId,
    },
    /// A token was used that the periodic renewal has replaced, after its grace.
    #[non_exhaustive]
    StaleToken {
        /// The session.
        session: SessionId,
    },
    /// A [signed](crate::SessionLayerBuilder::signed) or
    /// [encrypted](crate::SessionLayerBuilder::encrypted) token was not made with a key of the ring. The
    /// store was not asked.
    #[non_exhaustive]
    Forged {},
    /// A request has the tokens of two live sessions, so neither is used: another host of the domain
    /// may have planted one.
    #[non_exhaustive]
    DuplicateCookies {
        /// The first two that were found.
        sessions: [SessionId; 2],
    },
    /// A request has more tokens than are looked up, so none is used.
    #[non_exhaustive]
    TooManyCookies {},
    /// A session came from another client than before, as
    /// [`watch_client`](crate::SessionLayerBuilder::watch_client) tells them apart.
    #[non_exhaustive]
    AnotherClient {
        /// The session.
        session: SessionId,
        /// Whether the application decided to refuse the request its session.
        refused: bool,
    },
    /// A record cannot be read; it is nobody's session.
    #[non_exhaustive]
    Corrupt {
        /// The session.
        session: SessionId,
        /// What is wrong with it.
        error: Error,
    },
    /// Other requests changed the session at the same time, and the changes were done again on top of
    /// theirs.
    #[non_exhaustive]
    Replayed {
        /// The session.
        session: SessionId,
        /// How often.
        count: usize,
    },
    /// Changes were not stored, since they do not go together with those of another request.
    #[non_exhaustive]
    Conflict {
        /// The session.
        session: Option<SessionId>,
        /// Which, as [`Error::is_conflict`] says.
        error: Error,
    },
    /// A session ended while a request used it; the request's changes were dropped.
    #[non_exhaustive]
    Gone {
        /// The session that was.
        session: SessionId,
    },
    /// A request's token was replaced while it used the session; its changes were dropped.
    #[non_exhaustive]
    Superseded {
        /// The session.
        session: SessionId,
    },
    /// Data was refused, since it exceeds [`max_size`](crate::SessionLayerBuilder::max_size).
    #[non_exhaustive]
    TooLarge {
        /// The session, if it was stored before.
        session: Option<SessionId>,
        /// By how much.
        error: Error,
    },
    /// A sign-in was refused, since the owner has as many sessions as
    /// [allowed](crate::SessionLayerBuilder::max_sessions_per_owner).
    #[non_exhaustive]
    TooManySessions {
        /// Who wanted to sign in.
        owner: Arc<str>,
    },
    /// A sign-in was refused, since all sessions of the owner were ended after its request came for the session; what
    /// the request changed was dropped. If one request does both, see
    /// [`Sessions::revoke_all`](crate::Sessions::revoke_all).
    #[non_exhaustive]
    SignInRevoked {
        /// The session, if it was stored before.
        session: Option<SessionId>,
        /// Who wanted to sign in.
        owner: Arc<str>,
    },
    /// A request was refused, since it has no [CSRF token](crate::Session::csrf_token) of its session:
    /// the page is an old one, or somebody else's.
    #[non_exhaustive]
    CsrfRefused {
        /// The session; without one, as after its end, there is no token that would do.
        session: Option<SessionId>,
    },
    /// A session was not stored for another reason.
    #[non_exhaustive]
    NotStored {
        /// The session, if it was stored before.
        session: Option<SessionId>,
        /// The reason.
        error: Error,
    },
    /// The store failed or did not answer in time.
    #[non_exhaustive]
    StoreFailed {
        /// What it said.
        error: Error,
    },
    /// A [`Cleaner`](crate::Cleaner) could not remove expired sessions; it tries again.
    #[non_exhaustive]
    SweepFailed {
        /// What the store said.
        error: Error,
    },
}

impl SessionEvent {
    /// The event's name, such as `signed_in`: for the label of a counter. It does not change.
    ///
    /// ```
    /// use cloakroom::{MemoryStore, SessionEvent, SessionLayer};
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    ///
    /// static REVOKED: AtomicUsize = AtomicUsize::new(0);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let count = |event: &SessionEvent| {
    ///     if event.name() == "owner_revoked" {
    ///         REVOKED.fetch_add(1, Ordering::Relaxed);
    ///     }
    /// };
    /// let layer = SessionLayer::builder(MemoryStore::new()).on_event(count).build()?;
    /// layer.sessions().revoke_all("ada").await?;
    /// assert_eq!(REVOKED.load(Ordering::Relaxed), 1);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.facts().0
    }

    /// The session that it is about, if it is about one; of
    /// [`DuplicateCookies`](Self::DuplicateCookies) the first.
    #[must_use]
    pub fn session(&self) -> Option<SessionId> {
        match *self {
            Self::Created { session }
            | Self::Loaded { session }
            | Self::Renewed { session }
            | Self::SignedIn { session, .. }
            | Self::Destroyed { session }
            | Self::Expired { session }
            | Self::Revoked { session }
            | Self::Unknown { session }
            | Self::WrongSecret { session }
            | Self::StaleToken { session }
            | Self::AnotherClient { session, .. }
            | Self::Corrupt { session, .. }
            | Self::Replayed { session, .. }
            | Self::Gone { session }
            | Self::Superseded { session }
            | Self::DuplicateCookies {
                sessions: [session, _],
            } => Some(session),
            Self::Conflict { session, .. }
            | Self::TooLarge { session, .. }
            | Self::SignInRevoked { session, .. }
            | Self::CsrfRefused { session }
            | Self::NotStored { session, .. } => session,
            _ => None,
        }
    }

    fn error(&self) -> Option<&Error> {
        match self {
            Self::Corrupt { error, .. }
            | Self::Conflict { error, .. }
            | Self::TooLarge { error, .. }
            | Self::NotStored { error, .. }
            | Self::StoreFailed { error }
            | Self::SweepFailed { error } => Some(error),
            _ => None,
        }
    }

    fn count(&self) -> Option<usize> {
        match self {
            Self::OwnerRevoked { count, .. }
            | Self::AllRevoked { count }
            | Self::Swept { count }
            | Self::Replayed { count, .. } => Some(*count),
            _ => None,
        }
    }

    /// The event's name, level and message.
    fn facts(&self) -> (&'static str, Level, &'static str) {
        match self {
            Self::Created { .. } => ("created", Level::DEBUG, "session created"),
            Self::Loaded { .. } => ("loaded", Level::TRACE, "session loaded"),
            Self::Renewed { .. } => ("renewed", Level::DEBUG, "session has a new token"),
            Self::SignedIn { .. } => ("signed_in", Level::INFO, "owner signed in"),
            Self::Destroyed { .. } => ("destroyed", Level::INFO, "session destroyed"),
            Self::Expired { .. } => (
                "expired",
                Level::DEBUG,
                "token is not accepted: its session has expired",
            ),
            Self::Revoked { .. } => ("revoked", Level::INFO, "session revoked"),
            Self::OwnerRevoked { .. } => {
                ("owner_revoked", Level::INFO, "sessions of an owner revoked")
            }
            Self::AllRevoked { .. } => ("all_revoked", Level::INFO, "all sessions revoked"),
            Self::Swept { .. } => ("swept", Level::DEBUG, "expired sessions removed"),
            Self::Unknown { .. } => (
                "unknown",
                Level::DEBUG,
                "token is not accepted: it names no live session",
            ),
            Self::WrongSecret { .. } => (
                "wrong_secret",
                Level::DEBUG,
                "token is not accepted: it has another secret",
            ),
            Self::StaleToken { .. } => (
                "stale_token",
                Level::DEBUG,
                "token is not accepted: it was replaced",
            ),
            Self::Forged { .. } => (
                "forged",
                Level::DEBUG,
                "token is not accepted: it was not made with a key of the ring",
            ),
            Self::DuplicateCookies { .. } => (
                "duplicate_cookies",
                Level::WARN,
                "request has cookies of two live sessions; none is used",
            ),
            Self::TooManyCookies { .. } => (
                "too_many_cookies",
                Level::WARN,
                "request has too many session cookies; none is used",
            ),
            Self::AnotherClient { .. } => (
                "another_client",
                Level::WARN,
                "session comes from another client",
            ),
            Self::Corrupt { .. } => ("corrupt", Level::ERROR, "stored session is damaged"),
            Self::Replayed { .. } => (
                "replayed",
                Level::DEBUG,
                "changes done again after a conflict",
            ),
            Self::Conflict { .. } => ("conflict", Level::WARN, "session not stored: conflict"),
            Self::Gone { .. } => (
                "gone",
                Level::INFO,
                "session ended meanwhile; changes dropped",
            ),
            Self::Superseded { .. } => (
                "superseded",
                Level::WARN,
                "token was renewed meanwhile; changes dropped",
            ),
            Self::TooLarge { .. } => ("too_large", Level::WARN, "session not stored: too large"),
            Self::TooManySessions { .. } => (
                "too_many_sessions",
                Level::WARN,
                "sign-in refused: the owner has too many sessions",
            ),
            Self::SignInRevoked { .. } => (
                "sign_in_revoked",
                Level::WARN,
                "sign-in refused: the owner's sessions were ended meanwhile",
            ),
            Self::CsrfRefused { session: None } => (
                "csrf_refused",
                Level::DEBUG,
                "request refused: it has no session, so no CSRF token is right",
            ),
            Self::CsrfRefused { session: Some(_) } => (
                "csrf_refused",
                Level::WARN,
                "request refused: it has no token of its session",
            ),
            Self::NotStored { .. } => ("not_stored", Level::ERROR, "session not stored"),
            Self::StoreFailed { .. } => {
                ("store_failed", Level::ERROR, "a call of the store failed")
            }
            Self::SweepFailed { .. } => {
                ("sweep_failed", Level::WARN, "expired sessions not removed")
            }
        }
    }

    fn log(&self) {
        let (name, level, message) = self.facts();
        // The level is part of what `tracing` knows of a place in the code before it runs.
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "cloakroom",
                    event = name,
                    session = self.session().map(display),
                    count = self.count(),
                    error = self.error().map(|error| display(Chain(error))),
                    "{message}"
                )
            };
        }
        match level {
            Level::ERROR => log!(error),
            Level::WARN => log!(warn),
            Level::INFO => log!(info),
            Level::DEBUG => log!(debug),
            Level::TRACE => log!(trace),
        }
    }
}

/// What the log says, without its fields. Shows no owner.
impl fmt::Display for SessionEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().2)
    }
}

type Observe = dyn Fn(&SessionEvent) + Send + Sync;

/// Where events go besides the log.
#[derive(Clone, Default)]
pub(crate) struct Observer(Option<Arc<Observe>>);

impl Observer {
    pub(crate) fn new(observe: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(observe)))
    }

    /// Tells of an event. No lock may be held: the observer is code of the application.
    ///
    /// Its panics end here, since events happen half-way through a commit: what is stored by then
    /// has to be announced to the client (S-53).
    pub(crate) fn tell(&self, event: &SessionEvent) {
        event.log();
        let Some(observe) = &self.0 else { return };
        if catch_unwind(AssertUnwindSafe(|| observe(event))).is_err() {
            tracing::error!(target: "cloakroom", event = event.name(), "the observer of events panicked");
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&self.0.is_some()).finish()
    }
}
