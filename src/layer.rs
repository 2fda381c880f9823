//! The layer and its builder.

use std::fmt;
use std::sync::{Arc, Once};
use std::time::Duration;

use tower_layer::Layer;

use crate::clock::Clock;
use crate::config::{ConfigError, OnConflict, Settings};
use crate::context::Context;
use crate::cookie::SameSite;
use crate::endings::Endings;
use crate::entropy::Entropy;
use crate::event::{Observer, SessionEvent};
#[cfg(any(feature = "signed", feature = "encrypted"))]
use crate::keys::KeyRing;
use crate::queue::Queue;
use crate::response::DefaultErrorResponse;
use crate::seal::Form;
use crate::service::SessionService;
use crate::sessions::Sessions;
#[cfg(feature = "encrypted")]
use crate::stateless::Stateless;
use crate::store::contract::{SessionStore, WhenFull};
use crate::store::erased::ErasedStore;
use crate::watch::{ClientChange, OnClientChange, WatchClient};

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
    /// * sessions that end after one hour without use, and 24 hours after the sign-in, or 12 hours after
    ///   their creation while nobody is signed in;
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
        SessionLayerBuilder::new(store)
    }
}

#[cfg(feature = "encrypted")]
impl SessionLayer<Stateless> {
    /// A builder for sessions that live in their clients' cookies, without a store. It has the
    /// settings that make sense then.
    ///
    /// Read in [`Stateless`] what such sessions cannot do: above all, they cannot be revoked.
    ///
    /// ```
    /// use cloakroom::{KeyRing, SessionLayer};
    ///
    /// # fn read_key() -> Vec<u8> { let mut key = vec![0; 32]; getrandom::fill(&mut key).unwrap(); key }
    /// let keys = KeyRing::new(read_key())?;
    /// let layer = SessionLayer::stateless(keys).build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    pub fn stateless(keys: KeyRing) -> SessionLayerBuilder<Stateless> {
        let mut builder = SessionLayerBuilder::new(Stateless);
        builder.form = Form::Whole(keys);
        builder.settings.room = Some(crate::seal::room);
        builder
    }
}

impl<S: SessionStore, E> SessionLayer<S, E> {
    /// The store.
    pub fn store(&self) -> &S {
        &self.store
    }

    /// A handle to list and end sessions from outside of their requests.
    #[must_use]
    pub fn sessions(&self) -> Sessions {
        Sessions::new(&self.context)
    }
}

impl<S, E> SessionLayer<S, E> {
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
    form: Form,
    on_error: E,
    clock: Clock,
    entropy: Entropy,
    observer: Observer,
}

impl<S> SessionLayerBuilder<S> {
    fn new(store: S) -> Self {
        Self {
            store,
            settings: Settings::default(),
            form: Form::default(),
            on_error: DefaultErrorResponse,
            clock: Clock::default(),
            entropy: Entropy::default(),
            observer: Observer::default(),
        }
    }
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
    /// The name is also what keeps apart the tokens of several layers on one store: each holds under
    /// its own cookie's name only. It does not keep owners apart: [`Sessions`] sees the
    /// sessions of all these layers, and so does [`max_sessions_per_owner`](Self::max_sessions_per_owner).
    /// Give owners of different kinds a prefix, such as `admin:1`, or each kind a store with a table or
    /// prefix of its own.
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

    /// How long a session lives at most, from its last sign-in. Default: 24 hours (NIST SP 800-63B,
    /// AAL2). For sessions without an owner see [`anonymous_timeout`](Self::anonymous_timeout).
    pub fn absolute_timeout(mut self, time: Duration) -> Self {
        self.settings.absolute_timeout = time;
        self
    }

    /// How long a session without an owner lives at most, from its creation. Default: half the
    /// [absolute timeout](Self::absolute_timeout).
    ///
    /// Anybody can make anonymous sessions, so they are kept for no longer than they are worth (ASVS
    /// 2.4.1). [`Session::remember`](crate::Session::remember) goes first.
    pub fn anonymous_timeout(mut self, time: Duration) -> Self {
        self.settings.anonymous_timeout = Some(time);
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

    /// How many bytes a session's data may take as JSON: 1 to 16 MiB. Default: 64 KiB.
    pub fn max_size(mut self, bytes: usize) -> Self {
        self.settings.max_size = Some(bytes);
        self
    }

    /// Shows every [`SessionEvent`] to `observe`: to count them, to raise an alarm, to keep an audit
    /// trail. Default: they go to the log alone; there they go in any case. Set again, the last one
    /// counts.
    ///
    /// It runs on the request's task, in the middle of its work: what takes time belongs into a
    /// channel. If it panics, that is logged, and the request goes on.
    ///
    /// ```
    /// use cloakroom::{MemoryStore, SessionLayer};
    /// use std::collections::HashMap;
    /// use std::sync::{Arc, Mutex};
    ///
    /// let counts = Arc::new(Mutex::new(HashMap::<&str, u64>::new()));
    /// let counter = Arc::clone(&counts);
    /// let layer = SessionLayer::builder(MemoryStore::new())
    ///     .on_event(move |event| {
    ///         *counter.lock().unwrap().entry(event.name()).or_default() += 1;
    ///     })
    ///     .build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    pub fn on_event(mut self, observe: impl Fn(&SessionEvent) + Send + Sync + 'static) -> Self {
        self.observer = Observer::new(observe);
        self
    }

    /// Where [`SignedIn`](crate::SignedIn) and [`RequireSignedIn`](crate::RequireSignedIn) send somebody
    /// who is to sign in: a path, or an `https://` address. Default: nowhere, the response is a 401.
    ///
    /// Only those who look at a page are sent there (their `Accept` has `text/html`) with a 303; scripts
    /// and API clients get the 401. A `GET` adds where to come back to, as this layer sees the path:
    /// `/login?next=/account`. Check it with [`local_path`](crate::local_path) before you follow it.
    pub fn sign_in_page(mut self, page: impl Into<String>) -> Self {
        self.settings.sign_in_page = Some(page.into());
        self
    }

    /// Where somebody is sent who is signed in, but not [recently enough](crate::FreshlySignedIn).
    /// Default: to the [`sign_in_page`](Self::sign_in_page), which must then ask them again although
    /// they are signed in.
    pub fn step_up_page(mut self, page: impl Into<String>) -> Self {
        self.settings.step_up_page = Some(page.into());
        self
    }

    /// Notices when a session comes from another client than before: a sign that its cookie was stolen
    /// (OWASP Cookie Theft Mitigation), though not a proof. Default: off.
    ///
    /// `name` says what to tell clients apart by, and runs for every request; a salted hash of it is
    /// stored with the session. `decide` runs when it differs, besides a warning in the log. What
    /// clients can choose at will, such as `X-Forwarded-For` where no proxy of yours overwrites it, tells
    /// nobody apart; addresses change under mobile users, and browsers change their names with each
    /// update, so [`Keep`](OnClientChange::Keep) and a notice to the owner is often the better answer.
    ///
    /// ```
    /// use cloakroom::{ClientChange, MemoryStore, OnClientChange, SessionLayer};
    /// use http::{header::USER_AGENT, request::Parts};
    ///
    /// fn browser(request: &Parts) -> String {
    ///     let agent = request.headers.get(USER_AGENT);
    ///     agent.map(|agent| String::from_utf8_lossy(agent.as_bytes()).into_owned()).unwrap_or_default()
    /// }
    ///
    /// fn decide(change: &ClientChange) -> OnClientChange {
    ///     if change.owner.is_some() { OnClientChange::Refuse } else { OnClientChange::Keep }
    /// }
    ///
    /// let layer = SessionLayer::builder(MemoryStore::new()).watch_client(browser, decide).build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    pub fn watch_client(
        mut self,
        name: impl Fn(&http::request::Parts) -> String + Send + Sync + 'static,
        decide: impl Fn(&ClientChange) -> OnClientChange + Send + Sync + 'static,
    ) -> Self {
        self.settings.watch_client = Some(WatchClient {
            name: Arc::new(name),
            decide: Arc::new(decide),
        });
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
            form,
            clock,
            entropy,
            observer,
            on_error: _,
        } = self;
        SessionLayerBuilder {
            store,
            settings,
            form,
            on_error: respond,
            clock,
            entropy,
            observer,
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
    /// How late [`Session::ended`](crate::Session::ended) may learn of an end that came about
    /// elsewhere: the store is asked this often, a little sooner at random. Default: 15 seconds.
    pub fn recheck_interval(mut self, time: Duration) -> Self {
        self.settings.recheck_interval = time;
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

    /// How long a token that was replaced by [`renew_every`](Self::renew_every) is still accepted; shorter than
    /// that. Default: not at all. A token replaced by `renew` or `sign_in` never is.
    pub fn renewal_grace(mut self, time: Duration) -> Self {
        self.settings.renewal_grace = time;
        self
    }

    /// How long loading a session may take, and how long storing it, retries included. Default: 5
    /// seconds.
    ///
    /// A response that is to give the client another token (after [`renew`](crate::Session::renew) or
    /// [`sign_in`](crate::Session::sign_in), or by [`renew_every`](Self::renew_every)) has this time twice: if the
    /// store has not answered by then, the old token may be dead and nobody else knows the new one, so it is tried
    /// once more.
    pub fn store_timeout(mut self, time: Duration) -> Self {
        self.settings.store_timeout = time;
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

    /// Sends the token in headers instead of a cookie: for clients of an API, which keep it themselves.
    ///
    /// A client sends its token as `Authorization: Bearer …` (RFC 6750), and is given a new one in a
    /// response header of its own, `Session-Token`, whenever a browser would be given a cookie: when
    /// its session is stored first, on sign-in and renewal. An empty `Session-Token` says that the
    /// session was destroyed. Responses say `Vary: Authorization`, and `Cache-Control: no-store` with
    /// a token. What stands in a `Cookie` header is not looked at, as without this setting nobody
    /// looks at `Authorization`.
    ///
    /// Browsers attach no such header by themselves, so cross-site requests carry no session; but a
    /// script must keep the token, where one that was smuggled in can read it: for a site of your own
    /// keep the cookie. For scripts of other origins, let the CORS layer expose `Session-Token`.
    ///
    /// The `WWW-Authenticate` of a 401 names the scheme `Bearer` (RFC 6750 section 3).
    ///
    /// Tokens hold under `bearer` or under a cookie's name, not both. Two layers with `bearer` accept
    /// each other's tokens if they have one store in common.
    ///
    /// ```
    /// use cloakroom::{ConfigError, MemoryStore, SessionLayer};
    ///
    /// let layer = SessionLayer::builder(MemoryStore::new()).bearer().build();
    /// assert!(layer.is_ok());
    ///
    /// let both = SessionLayer::builder(MemoryStore::new()).bearer().cookie_name("sid").build();
    /// assert!(matches!(both, Err(ConfigError::CookieSetting { .. })));
    /// ```
    pub fn bearer(mut self) -> Self {
        self.settings.bearer = true;
        self
    }

    /// Signs tokens, so that a forged one costs no call of the store. Default: not.
    ///
    /// This sheds load; it is not what makes sessions secure. A token holds 160 random bits, and
    /// nobody guesses one that the store knows, signed or not. In exchange there is a key to keep:
    /// see [`KeyRing`]. Tokens that were given out unsigned, or signed with no key of the ring, are
    /// refused from then on: their sessions are lost to their clients.
    ///
    /// Of this and `encrypted` the later call counts.
    ///
    /// ```
    /// use cloakroom::{KeyRing, MemoryStore, SessionLayer};
    ///
    /// # fn read_key() -> Vec<u8> { let mut key = vec![0; 32]; getrandom::fill(&mut key).unwrap(); key }
    /// let layer = SessionLayer::builder(MemoryStore::new())
    ///     .signed(KeyRing::new(read_key())?)
    ///     .build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    #[cfg(feature = "signed")]
    pub fn signed(mut self, keys: KeyRing) -> Self {
        self.form = Form::Signed(keys);
        self
    }

    /// Encrypts tokens (AES-256-GCM), so that a forged one costs no call of the store, and clients do
    /// not see their session's id, which tells when it began. Default: not.
    ///
    /// As for `signed`, this is not what makes sessions secure, and tokens that were given out in
    /// another form are refused. Of the two the later call counts.
    ///
    /// ```
    /// use cloakroom::{KeyRing, MemoryStore, SessionLayer};
    ///
    /// # fn read_key() -> Vec<u8> { let mut key = vec![0; 32]; getrandom::fill(&mut key).unwrap(); key }
    /// let layer = SessionLayer::builder(MemoryStore::new())
    ///     .encrypted(KeyRing::new(read_key())?)
    ///     .build()?;
    /// # Ok::<(), cloakroom::ConfigError>(())
    /// ```
    #[cfg(feature = "encrypted")]
    pub fn encrypted(mut self, keys: KeyRing) -> Self {
        self.form = Form::Encrypted(keys);
        self
    }

    /// Checks the settings and makes the layer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] for settings that browsers or the layer would not honour together; its
    /// message says how to mend it.
    pub fn build(self) -> Result<SessionLayer<S, E>, ConfigError> {
        finish(self)
    }
}

#[cfg(feature = "encrypted")]
impl<E> SessionLayerBuilder<Stateless, E> {
    /// Checks the settings and makes the layer.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] for settings that browsers or the layer would not honour together, such as
    /// a [`max_size`](Self::max_size) that a cookie has no room for.
    pub fn build(self) -> Result<SessionLayer<Stateless, E>, ConfigError> {
        finish(self)
    }
}

fn finish<S, E>(builder: SessionLayerBuilder<S, E>) -> Result<SessionLayer<S, E>, ConfigError>
where
    S: ErasedStore + 'static,
{
    let insecure = builder.settings.insecure_http;
    let config = builder.settings.check()?;
    if insecure {
        tracing::warn!("insecure_http: session cookies are sent over plain http");
    }
    let store = Arc::new(builder.store);
    let erased: Arc<dyn ErasedStore> = store.clone();
    let context = Context {
        store: erased,
        seal: builder.form.seal(config.carrier.name()),
        config,
        clock: builder.clock,
        entropy: builder.entropy,
        queue: Queue::default(),
        endings: Endings::default(),
        observer: builder.observer,
        doubled: Once::new(),
        dropped: Once::new(),
    };
    Ok(SessionLayer {
        context: Arc::new(context),
        store,
        on_error: builder.on_error,
    })
}
