//! The layer and its builder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use crate::clock::Clock;
use crate::config::{ConfigError, OnConflict, Settings};
use crate::context::Context;
use crate::cookie::SameSite;
use crate::entropy::Entropy;
use crate::queue::Queue;
use crate::response::DefaultErrorResponse;
use crate::service::SessionService;
use crate::sessions::Sessions;
use crate::store::contract::{SessionStore, WhenFull};
use crate::store::erased::ErasedStore;

/// Gives every request a session: a [`tower_layer::Layer`] for any service of HTTP requests.
///
/// [`new`](Self::new) is the safe default; [`builder`](Self::builder) has the settings. Cloning it,
/// and applying it, costs reference counts.
///
/// With axum, put it on the router with `.layer(...)`, outside of all that uses the session:
///
/// ```
/// use axum::{Router, routing::post};
/// use cloakroom::{MemoryStore, Session, SessionLayer};
///
/// async fn visit(session: Session) -> cloakroom::Result<String> {
///     let n = session.update("visits", |n: &mut u64| {
///         *n += 1;
///         *n
///     })?;
///     Ok(format!("visit {n}"))
/// }
///
/// # use axum::{body::Body, http::Request};
/// # use tower::ServiceExt;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let app: Router =
///     Router::new().route("/", post(visit)).layer(SessionLayer::new(MemoryStore::new()));
/// # let response = app.oneshot(Request::post("/").body(Body::empty()).unwrap()).await.unwrap();
/// # let cookie = response.headers()["set-cookie"].to_str().unwrap();
/// # assert!(cookie.starts_with("__Host-id="));
/// # }
/// ```
pub struct SessionLayer<S, E = DefaultErrorResponse> {
    context: Arc<Context>,
    store: Arc<S>,
    on_error: E,
}

impl<S: SessionStore> SessionLayer<S> {
    /// A layer with all defaults:
    ///
    /// * a cookie `__Host-id` that is `Secure`, `HttpOnly`, `SameSite=Lax`, and ends with the
    ///   browser's session;
    /// * sessions that end after one hour without use, and 24 hours after sign-in or creation;
    /// * at most 64 KiB of data in a session, and 5 seconds for the store.
    // It does not panic: a test builds the defaults.
    #[allow(clippy::missing_panics_doc)]
    pub fn new(store: S) -> Self {
        let layer = Self::builder(store).build();
        layer.expect("the defaults fit together")
    }

    /// A builder, for other settings than the defaults. [`build`](SessionLayerBuilder::build) makes the
    /// layer; the builder itself is none.
    ///
    /// ```
    /// use cloakroom::{MemoryStore, SessionLayer};
    /// use std::time::Duration;
    ///
    /// let layer = SessionLayer::builder(MemoryStore::new())
    ///     .idle_timeout(Duration::from_secs(15 * 60))
    ///     .absolute_timeout(Duration::from_secs(8 * 60 * 60))
    ///     .build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    pub fn builder(store: S) -> SessionLayerBuilder<S> {
        SessionLayerBuilder {
            store,
            settings: Settings::default(),
            on_error: DefaultErrorResponse,
            clock: Clock::default(),
            entropy: Entropy::default(),
        }
    }
}

impl<S, E> SessionLayer<S, E> {
    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// A handle to list and end sessions from outside of their requests.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(&self.context)
    }

    #[cfg(all(feature = "test-util", feature = "memory"))]
    pub(crate) fn empty_session(&self) -> crate::session::Session {
        crate::session::Session::empty(&self.context)
    }
}

// Not derived, since the store need not be `Clone`.
impl<S, E: Clone> Clone for SessionLayer<S, E> {
    fn clone(&self) -> Self {
        Self {
            context: Arc::clone(&self.context),
            store: Arc::clone(&self.store),
            on_error: self.on_error.clone(),
        }
    }
}

impl<S, E> fmt::Debug for SessionLayer<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayer")
            .field("config", &self.context.config)
            .finish_non_exhaustive()
    }
}

impl<S, E: Clone, I> Layer<I> for SessionLayer<S, E> {
    type Service = SessionService<I, E>;

    fn layer(&self, inner: I) -> Self::Service {
        SessionService::new(inner, Arc::clone(&self.context), self.on_error.clone())
    }
}

/// Settings of a [`SessionLayer`], checked by [`build`](Self::build).
#[derive(Clone)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SessionLayerBuilder<S, E = DefaultErrorResponse> {
    store: S,
    settings: Settings,
    on_error: E,
    clock: Clock,
    entropy: Entropy,
}

impl<S, E> fmt::Debug for SessionLayerBuilder<S, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLayerBuilder")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<S, E> SessionLayerBuilder<S, E> {
    /// The cookie's name. Default: `__Host-id`; with a [`domain`](Self::domain) or a
    /// [`path`](Self::path) `__Secure-id`; with [`insecure_http`](Self::insecure_http) `id`.
    ///
    /// The name is also what keeps apart the sessions of several layers on one store: a token holds
    /// under its own cookie's name only.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.settings.cookie_name = Some(name.into());
        self
    }

    /// The path below which the browser sends the cookie. Default: `/`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.settings.path = path.into();
        self
    }

    /// The domain whose hosts all get the cookie, also those of other applications. Default: none,
    /// only the host that set it.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.settings.domain = Some(domain.into());
        self
    }

    /// When the browser sends the cookie with requests that other sites start. Default:
    /// [`SameSite::Lax`].
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.settings.same_site = same_site;
        self
    }

    /// Whether a site that is embedded in others has one session in each of them. Default: no.
    pub fn partitioned(mut self, partitioned: bool) -> Self {
        self.settings.partitioned = partitioned;
        self
    }

    /// Whether the cookie outlives the browser's session, for as long as the server honours it (at
    /// most 400 days). Default: no; see also [`Session::remember`](crate::Session::remember).
    pub fn persistent(mut self, persistent: bool) -> Self {
        self.settings.persistent = persistent;
        self
    }

    /// For development over plain `http://`: a cookie without `Secure` that anyone on the network can
    /// read. Says so in the log, once.
    pub fn insecure_http(mut self) -> Self {
        self.settings.insecure_http = true;
        self
    }

    /// How long a session lives without use. Default: 1 hour (NIST SP 800-63B, AAL2).
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.settings.idle_timeout = time;
        self
    }

    /// How long a session lives at most, from its creation or its last sign-in. Default: 24 hours
    /// (NIST SP 800-63B, AAL2).
    pub fn absolute_timeout(mut self, time: Duration) -> Self {
        self.settings.absolute_timeout = time;
        self
    }

    /// Gives the client a new token when its token is this old. Default: never.
    ///
    /// Set a [`renewal_grace`](Self::renewal_grace) with it, or requests that are in flight at that
    /// moment find no session.
    pub fn renew_every(mut self, time: Duration) -> Self {
        self.settings.renew_every = Some(time);
        self
    }

    /// How long a token that was replaced by [`renew_every`](Self::renew_every) is still accepted.
    /// Default: not at all. A token replaced by `renew` or `sign_in` never is.
    pub fn renewal_grace(mut self, time: Duration) -> Self {
        self.settings.renewal_grace = time;
        self
    }

    /// How far a session's end must move before a request that changes nothing writes it. Default: a
    /// tenth of the idle timeout.
    ///
    /// A session can so end earlier after its last use than the idle timeout says, by this much,
    /// never later.
    pub fn touch_interval(mut self, time: Duration) -> Self {
        self.settings.touch_interval = Some(time);
        self
    }

    /// How long loading a session may take, and how long storing it, retries included. Default: 5
    /// seconds.
    pub fn store_timeout(mut self, time: Duration) -> Self {
        self.settings.store_timeout = time;
        self
    }

    /// How many bytes a session's data may take as JSON: 1 to 16 MiB. Default: 64 KiB.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.settings.max_size = bytes;
        self
    }

    /// What happens when a key was read, then set, and a parallel request changed it in between.
    /// Default: [`OnConflict::LastWriteWins`].
    pub fn on_conflict(mut self, on_conflict: OnConflict) -> Self {
        self.settings.on_conflict = on_conflict;
        self
    }

    /// How many live sessions an owner may have; one more sign-in then either ends those that signed
    /// in earliest, or is answered with an error ([`Error::is_full`](crate::Error::is_full), 409).
    /// Default: any number. Exact, also for sign-ins at the same moment.
    pub fn max_sessions_per_owner(mut self, max: usize, when_full: WhenFull) -> Self {
        self.settings.max_sessions_per_owner = Some((max, when_full));
        self
    }

    /// Loads the session before the inner service runs, and puts a [`Session`](crate::Session) into
    /// the request's extensions. Default: it is loaded when a handler asks.
    ///
    /// For services that cannot wait for it. Every request then pays for its session, and gets the
    /// error response if the store fails.
    pub fn eager(mut self) -> Self {
        self.settings.eager = true;
        self
    }

    /// Makes the responses of failures: of the layer itself, and those that handlers and extractors
    /// made of an [`Error`](crate::Error).
    ///
    /// ```
    /// use axum::response::{Html, IntoResponse, Response};
    /// use cloakroom::{Error, MemoryStore, SessionLayer};
    ///
    /// fn sorry(error: &Error) -> Response {
    ///     (error.status(), Html("<h1>We will be back in a moment</h1>")).into_response()
    /// }
    ///
    /// let layer = SessionLayer::builder(MemoryStore::new()).error_response(sorry).build()?;
    /// # let app: axum::Router = axum::Router::new().layer(layer);
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    pub fn error_response<F>(self, respond: F) -> SessionLayerBuilder<S, F> {
        let Self {
            store,
            settings,
            clock,
            entropy,
            on_error: _,
        } = self;
        SessionLayerBuilder {
            store,
            settings,
            on_error: respond,
            clock,
            entropy,
        }
    }

    /// Reads the time from a clock that a test moves.
    #[cfg(feature = "test-util")]
    pub fn clock(mut self, clock: crate::clock::TestClock) -> Self {
        self.clock = Clock::Test(clock);
        self
    }

    /// Takes random bytes from a test, which may fail or repeat itself.
    #[cfg(feature = "test-util")]
    pub fn entropy(
        mut self,
        fill: impl Fn(&mut [u8]) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.entropy = Entropy::Test(Arc::new(fill));
        self
    }
}

impl<S: SessionStore, E> SessionLayerBuilder<S, E> {
    /// Checks the settings and makes the layer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] for settings that browsers or the layer would not honour together; its
    /// message says how to mend it.
    pub fn build(self) -> Result<SessionLayer<S, E>, ConfigError> {
        let insecure = self.settings.insecure_http;
        let config = self.settings.check()?;
        if insecure {
            tracing::warn!("insecure_http: session cookies are sent over plain http");
        }
        let store = Arc::new(self.store);
        let erased: Arc<dyn ErasedStore> = store.clone();
        let context = Context {
            store: erased,
            config,
            clock: self.clock,
            entropy: self.entropy,
            queue: Queue::default(),
        };
        Ok(SessionLayer {
            context: Arc::new(context),
            store,
            on_error: self.on_error,
        })
    }
}
