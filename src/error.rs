//! What can go wrong while a request runs, and what a store may report.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, StatusCode};

type BoxError = Box<dyn StdError + Send + Sync>;

/// A `Result` whose error is [`Error`] unless said otherwise.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a session.
///
/// Opaque and one word wide: ask the predicates what happened, and [`source`](StdError::source) why.
/// Returned from an axum handler it becomes a plain response with [`status`](Self::status)'s code
/// and no details; the error itself travels in the response's extensions, where the layer's
/// [`error_response`](crate::SessionLayerBuilder::error_response) and outer middleware find it.
/// Clones share the same error.
///
/// ```
/// # let session = cloakroom::test_util::session();
/// session.insert("n", "not a number")?;
/// let error = session.get::<u32>("n").unwrap_err();
/// assert!(error.is_decode());
/// assert_eq!(error.status(), 500);
/// assert_eq!(error.to_string(), "the session's value of `n` does not decode as the type asked for");
/// assert!(std::error::Error::source(&error).is_some());
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: Kind,
    source: Option<BoxError>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Store,
    Timeout,
    Random,
    Encode(Cow<'static, str>),
    Decode(Cow<'static, str>),
    TooLarge {
        size: usize,
        limit: usize,
        key: Option<Cow<'static, str>>,
    },
    Conflict(String),
    Contended,
    Committed,
    Gone,
    Superseded,
    Full,
    Csrf,
    SignIn,
    StepUp(Duration),
    Reserved(Cow<'static, str>),
    Invalid(&'static str),
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self(Arc::new(Inner { kind, source: None }))
    }

    fn with(kind: Kind, source: impl Into<BoxError>) -> Self {
        Self(Arc::new(Inner {
            kind,
            source: Some(source.into()),
        }))
    }

    pub(crate) fn timeout() -> Self {
        Self::new(Kind::Timeout)
    }

    pub(crate) fn random(source: impl Into<BoxError>) -> Self {
        Self::with(Kind::Random, source)
    }

    pub(crate) fn encode(key: Cow<'static, str>, source: NoJson) -> Self {
        Self::with(Kind::Encode(key), source)
    }

    pub(crate) fn decode(key: Cow<'static, str>, source: InvalidJson) -> Self {
        Self::with(Kind::Decode(key), source)
    }

    /// `key` is the one that would have been set.
    pub(crate) fn too_large(size: usize, limit: usize, key: Option<Cow<'static, str>>) -> Self {
        Self::new(Kind::TooLarge { size, limit, key })
    }

    pub(crate) fn conflict(key: String) -> Self {
        Self::new(Kind::Conflict(key))
    }

    pub(crate) fn contended() -> Self {
        Self::new(Kind::Contended)
    }

    pub(crate) fn committed() -> Self {
        Self::new(Kind::Committed)
    }

    pub(crate) fn gone() -> Self {
        Self::new(Kind::Gone)
    }

    pub(crate) fn superseded() -> Self {
        Self::new(Kind::Superseded)
    }

    pub(crate) fn full() -> Self {
        Self::new(Kind::Full)
    }

    pub(crate) fn csrf() -> Self {
        Self::new(Kind::Csrf)
    }

    pub(crate) fn sign_in() -> Self {
        Self::new(Kind::SignIn)
    }

    pub(crate) fn step_up(within: Duration) -> Self {
        Self::new(Kind::StepUp(within))
    }

    pub(crate) fn reserved(key: Cow<'static, str>) -> Self {
        Self::new(Kind::Reserved(key))
    }

    pub(crate) fn invalid(what: &'static str) -> Self {
        Self::new(Kind::Invalid(what))
    }

    /// The store failed or did not answer in time.
    #[must_use]
    pub fn is_store(&self) -> bool {
        matches!(self.0.kind, Kind::Store | Kind::Timeout)
    }

    /// The store did not answer within
    /// [`store_timeout`](crate::SessionLayerBuilder::store_timeout).
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        self.0.kind == Kind::Timeout
    }

    /// The operating system gave no random bytes, so no token was made.
    #[must_use]
    pub fn is_random(&self) -> bool {
        self.0.kind == Kind::Random
    }

    /// A value did not serialize.
    #[must_use]
    pub fn is_encode(&self) -> bool {
        matches!(self.0.kind, Kind::Encode(_))
    }

    /// A stored value did not deserialize as the type asked for; other keys are not affected.
    #[must_use]
    pub fn is_decode(&self) -> bool {
        matches!(self.0.kind, Kind::Decode(_))
    }

    /// The data would exceed [`max_size`](crate::SessionLayerBuilder::max_size).
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.0.kind, Kind::TooLarge { .. })
    }

    /// A parallel request changed the session in a way that cannot be merged: under
    /// [`OnConflict::Reject`](crate::OnConflict::Reject) a key that was read and then set has
    /// changed meanwhile; or other writers won every one of the bounded retries.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        matches!(self.0.kind, Kind::Conflict(_) | Kind::Contended)
    }

    /// The response head is out, or the operation would need a cookie that can no longer be sent.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.0.kind == Kind::Committed
    }

    /// The session has ended meanwhile (signed out, revoked or expired), or was never stored.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.kind == Kind::Gone
    }

    /// The token that the request came with is no longer accepted: another request renewed it.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.0.kind == Kind::Superseded
    }

    /// The owner has as many sessions as
    /// [`max_sessions_per_owner`](crate::SessionLayerBuilder::max_sessions_per_owner) allows, and
    /// nobody was signed in.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.kind == Kind::Full
    }

    /// The request carries no CSRF token of its session.
    #[must_use]
    pub fn is_csrf(&self) -> bool {
        self.0.kind == Kind::Csrf
    }

    /// Nobody is signed in, and the request needs somebody who is.
    #[must_use]
    pub fn is_sign_in_needed(&self) -> bool {
        self.0.kind == Kind::SignIn
    }

    /// The owner signed in too long ago for this request, and must do so again.
    #[must_use]
    pub fn is_step_up_needed(&self) -> bool {
        matches!(self.0.kind, Kind::StepUp(_))
    }

    /// The `WWW-Authenticate` that belongs to a 401; for a step-up that of RFC 9470 section 3.
    ///
    /// HTTP has no scheme for cookies, so this one is called `Session`; the layer says `Bearer` instead
    /// where tokens travel in headers. Browsers ignore a scheme that they do not know, and show the page.
    #[must_use]
    pub fn challenge(&self) -> Option<HeaderValue> {
        match self.0.kind {
            Kind::SignIn => Some(HeaderValue::from_static("Session")),
            Kind::StepUp(within) => {
                let challenge = format!(
                    "Session error=\"insufficient_user_authentication\", \
                     error_description=\"A more recent sign-in is required\", max_age=\"{}\"",
                    within.as_secs()
                );
                HeaderValue::try_from(challenge).ok()
            }
            _ => None,
        }
    }

    /// An argument is out of its documented range.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        matches!(self.0.kind, Kind::Invalid(_) | Kind::Reserved(_))
    }

    /// The status that tells a client of this error.
    ///
    /// 503 for a store or an operating system that does not answer and for lost races, 401 for somebody
    /// who must sign in first, 403 for a missing CSRF token, 409 for a conflict, a session that has
    /// changed hands meanwhile or one too many, 413 for too much data, 500 for values that do not encode
    /// or decode and for misuse.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.0.kind {
            Kind::Store | Kind::Timeout | Kind::Random | Kind::Contended => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Kind::Conflict(_) | Kind::Gone | Kind::Superseded | Kind::Full => StatusCode::CONFLICT,
            Kind::Csrf => StatusCode::FORBIDDEN,
            Kind::SignIn | Kind::StepUp(_) => StatusCode::UNAUTHORIZED,
            Kind::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Encode(_)
            | Kind::Decode(_)
            | Kind::Committed
            | Kind::Reserved(_)
            | Kind::Invalid(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        Self::with(Kind::Store, error)
    }
}

/// A key, which may come from a client, as text that begins no line of its own in a log (ASVS 16.4.1).
fn shown(key: &str) -> impl fmt::Display {
    key.escape_debug()
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.kind {
            Kind::Store => f.write_str("the session could not be read or stored"),
            Kind::Timeout => f.write_str("the session store did not answer in time"),
            Kind::Random => f.write_str("the operating system gave no random bytes"),
            Kind::Encode(key) => write!(f, "the value for `{}` does not serialize", shown(key)),
            Kind::Decode(key) => {
                write!(
                    f,
                    "the session's value of `{}` does not decode as the type asked for",
                    shown(key)
                )
            }
            Kind::TooLarge { size, limit, key } => {
                f.write_str("the session's data would take ")?;
                write!(
                    f,
                    "{size} bytes, more than the {limit} that `max_size` allows"
                )?;
                match key {
                    Some(key) => write!(f, ", with the new value of `{}`", shown(key)),
                    None => Ok(()),
                }
            }
            Kind::Conflict(key) => {
                write!(
                    f,
                    "`{}` was changed by a parallel request after this one read it",
                    shown(key)
                )
            }
            Kind::Contended => f.write_str("parallel requests won every try to store the session"),
            Kind::Committed => f.write_str(
                "the response is already on its way; to write later, use `session.reopen().await`",
            ),
            Kind::Gone => f.write_str("the session has ended, or was not stored yet"),
            Kind::Superseded => {
                f.write_str("the session's token was renewed by another request meanwhile")
            }
            Kind::Full => f.write_str("the owner has as many sessions as are allowed"),
            Kind::Csrf => f.write_str("the request carries no CSRF token of its session"),
            Kind::SignIn => f.write_str("nobody is signed in"),
            Kind::StepUp(within) => write!(
                f,
                "the owner signed in more than {} seconds ago",
                within.as_secs()
            ),
            Kind::Reserved(key) => write!(
                f,
                "`{}` cannot be used: keys that begin with `cloakroom.` are the crate's own",
                shown(key)
            ),
            Kind::Invalid(what) => f.write_str(what),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// What a [`SessionStore`](crate::store::SessionStore) reports when it cannot do what it was asked.
///
/// The cause stays reachable through [`source`](StdError::source); it is for logs and never reaches
/// a client.
///
/// ```
/// use cloakroom::store::StoreError;
/// use std::error::Error;
///
/// let down = StoreError::new("connection refused");
/// assert_eq!(down.to_string(), "the session store failed");
/// assert_eq!(down.source().unwrap().to_string(), "connection refused");
/// assert_eq!(format!("{down:?}"), "the session store failed: connection refused");
/// assert!(!down.is_corrupt());
/// assert!(StoreError::corrupt("row cut short").is_corrupt());
/// ```
pub struct StoreError {
    corrupt: bool,
    source: BoxError,
}

impl StoreError {
    /// The store is unreachable, refuses, or failed in any other way: the client sees 503 and keeps
    /// its cookie.
    pub fn new(source: impl Into<BoxError>) -> Self {
        Self {
            corrupt: false,
            source: source.into(),
        }
    }

    /// The record is there and damaged beyond reading: it is reported and nobody's session.
    pub fn corrupt(source: impl Into<BoxError>) -> Self {
        Self {
            corrupt: true,
            source: source.into(),
        }
    }

    /// Whether a damaged record is the cause.
    #[must_use]
    pub fn is_corrupt(&self) -> bool {
        self.corrupt
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.corrupt {
            "a stored session is damaged"
        } else {
            "the session store failed"
        })
    }
}

/// The message and those of its causes: it is what is printed of an error that `main` returns.
impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")?;
        let mut cause = self.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for StoreError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

/// Where JSON text does not fit, without what it says: serde's own message quotes the value, which
/// may be a secret.
#[derive(Debug)]
pub(crate) struct InvalidJson {
    what: &'static str,
    column: usize,
    wanted: Option<&'static str>,
}

impl InvalidJson {
    pub(crate) fn new(error: &serde_json::Error) -> Self {
        let what = match error.classify() {
            serde_json::error::Category::Data => "another type or shape",
            serde_json::error::Category::Eof => "an early end",
            _ => "no valid JSON",
        };
        Self {
            what,
            column: error.column(),
            wanted: None,
        }
    }

    /// Names the type that was wanted.
    pub(crate) fn wanted<T>(self) -> Self {
        Self {
            wanted: Some(std::any::type_name::<T>()),
            ..self
        }
    }
}

impl fmt::Display for InvalidJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at column {}", self.what, self.column)?;
        match self.wanted {
            Some(wanted) => write!(f, ", where `{wanted}` was wanted"),
            None => Ok(()),
        }
    }
}

impl StdError for InvalidJson {}

/// Why a value makes no JSON text, without what it says: the message of the value's own `Serialize` may
/// quote it.
#[derive(Debug)]
pub(crate) struct NoJson {
    /// What `serde_json` itself finds.
    found: Option<&'static str>,
    value: &'static str,
}

impl NoJson {
    /// Of a value of type `T`.
    pub(crate) fn new<T: ?Sized>(error: &serde_json::Error) -> Self {
        const FOUND: [&str; 2] = [
            "key must be a string",
            "float key must be finite (got NaN or +/-inf)",
        ];
        let error = error.to_string();
        Self {
            found: FOUND.into_iter().find(|found| *found == error),
            value: std::any::type_name::<T>(),
        }
    }
}

impl fmt::Display for NoJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found {
            Some(found) => f.write_str(found),
            None => write!(f, "`Serialize` of `{}` failed", self.value),
        }
    }
}

impl StdError for NoJson {}

/// Writes an error and its causes on one line, for logs.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn StdError + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            write!(f, ": {error}")?;
            next = error.source();
        }
        Ok(())
    }
}
