//! The test server and its clients, in the vocabulary of the security checklist: routes `/` (asks for
//! no session), `/read`, `/write`, `/login`, `/stepup`, `/logout`, `/boom` (500) and `/panic`; and
//! `/act`, which runs whatever handler the test sends along. "Counting store" is a [`FaultStore`],
//! "clock" a [`TestClock`].
#![allow(dead_code)]

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Once};

use axum::body::{Body, Bytes};
use axum::extract::Extension;
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::{Json, Router};
use cloakroom::store::{Record, SessionStore};
use cloakroom::test_util::{FaultStore, Operation, TestClock};
use cloakroom::{
    DefaultErrorResponse, Error, ErrorResponse, MemoryStore, Session, SessionId, SessionLayer,
    SessionLayerBuilder, Sessions,
};
use cookie_store::CookieStore;
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{Extensions, HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tower::ServiceExt as _;
use url::Url;

pub(crate) type Store = FaultStore<MemoryStore>;
/// A builder before it is built.
pub(crate) type Settings<E = DefaultErrorResponse> = SessionLayerBuilder<Store, E>;

#[cfg(feature = "encrypted")]
pub(crate) type Stateless = SessionLayerBuilder<cloakroom::Stateless>;

/// The application on one layer: one process of it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) store: Store,
    /// What is under `store`, to look at without being counted.
    pub(crate) memory: MemoryStore,
    pub(crate) clock: TestClock,
    pub(crate) sessions: Sessions,
    pub(crate) router: Router,
}

impl Server {
    /// With default settings.
    pub(crate) fn new() -> Self {
        Self::with(|builder| builder)
    }

    pub(crate) fn with<E>(settings: impl FnOnce(Settings) -> Settings<E>) -> Self
    where
        E: ErrorResponse<Body> + Send + Sync + 'static,
    {
        listen();
        let memory = MemoryStore::new();
        let store = FaultStore::new(memory.clone());
        let settings = settings(SessionLayer::builder(store.clone()));
        Self::of(store, memory, TestClock::new(), settings)
    }

    /// Another process of the application, or another application, on the same store.
    pub(crate) fn beside<E>(&self, settings: impl FnOnce(Settings) -> Settings<E>) -> Self
    where
        E: ErrorResponse<Body> + Send + Sync + 'static,
    {
        self.under(settings(SessionLayer::builder(self.store.clone())))
    }

    /// The same application on another layer.
    pub(crate) fn under<S, E>(&self, settings: SessionLayerBuilder<S, E>) -> Self
    where
        S: SessionStore,
        E: ErrorResponse<Body> + Send + Sync + 'static,
    {
        let Self {
            store,
            memory,
            clock,
            ..
        } = self.clone();
        Self::of(store, memory, clock, settings)
    }

    /// The same application on a layer without a store. What the fields say of a store is not its.
    #[cfg(feature = "encrypted")]
    pub(crate) fn stateless(
        keys: cloakroom::KeyRing,
        settings: impl FnOnce(Stateless) -> Stateless,
    ) -> Self {
        let server = Self::new();
        let settings = settings(SessionLayer::stateless(keys)).clock(server.clock.clone());
        let layer = settings.build().expect("the settings fit together");
        Self {
            router: routes().layer(layer),
            ..server
        }
    }

    fn of<S, E>(
        store: Store,
        memory: MemoryStore,
        clock: TestClock,
        settings: SessionLayerBuilder<S, E>,
    ) -> Self
    where
        S: SessionStore,
        E: ErrorResponse<Body> + Send + Sync + 'static,
    {
        let layer = settings
            .clock(clock.clone())
            .build()
            .expect("the settings fit together");
        Self {
            store,
            memory,
            clock,
            sessions: layer.sessions(),
            router: routes().layer(layer),
        }
    }

    /// A client with an empty cookie jar.
    pub(crate) fn client(&self) -> Client {
        Client {
            server: self.clone(),
            jar: Arc::default(),
        }
    }

    /// A client that has set `n` to 1.
    pub(crate) async fn visitor(&self) -> Client {
        let client = self.client();
        client.act(|s| s.insert("n", 1)).await.ok();
        client
    }

    /// A client who sends this token, wherever it comes from.
    pub(crate) fn holding(&self, token: &str) -> Client {
        let client = self.client();
        client.keep(&format!("__Host-id={token}; Path=/; Secure"));
        client
    }

    /// Sends `request` and waits for the whole response.
    pub(crate) async fn send(&self, request: Request<Body>) -> Seen {
        let counted = |op| self.store.calls(op);
        let before = OPERATIONS.map(|(_, op)| counted(op));
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("axum does not fail");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("the body is whole").to_bytes();
        let mut calls = Vec::new();
        for ((name, op), before) in OPERATIONS.into_iter().zip(before) {
            calls.extend((before..counted(op)).map(|_| name));
        }
        Seen {
            status: parts.status,
            headers: parts.headers,
            extensions: parts.extensions,
            body,
            calls: calls.join(" "),
        }
    }

    /// What the store holds of the session behind a token.
    pub(crate) async fn record(&self, token: &str) -> Option<Record> {
        self.memory
            .load(id_of(token), self.clock.now())
            .await
            .expect("memory does not fail")
    }
}

/// In the order in which one request uses them.
const OPERATIONS: [(&str, Operation); 6] = [
    ("load", Operation::Load),
    ("touch", Operation::Touch),
    ("update", Operation::Update),
    ("delete", Operation::Delete),
    ("create", Operation::Create),
    ("sign_in", Operation::SignIn),
];

/// The id that a token names.
pub(crate) fn id_of(token: &str) -> SessionId {
    SessionId::from_bytes(bytes_of(token)[..16].try_into().expect("16 bytes"))
}

/// The bytes that a token spells: 16 of the id, 20 of the secret.
pub(crate) fn bytes_of(token: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(token)
        .expect("base64url")
}

fn routes() -> Router {
    Router::new()
        .route("/", any(async || "hello"))
        .route("/read", any(read))
        .route(
            "/write",
            any(async |s: Session| s.update("n", |n: &mut u64| *n += 1)),
        )
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route("/stepup", any(stepup))
        .route("/logout", any(async |s: Session| s.destroy()))
        .route("/boom", any(boom))
        .route("/panic", any(panic))
        .route("/act", any(act))
}

/// Who the client is, and its `n`.
async fn read(session: Session) -> Response {
    if session.is_new() {
        return "anonymous".into_response();
    }
    let n = session.get::<u64>("n").unwrap_or_default();
    Json((session.owner().as_deref(), n)).into_response()
}

async fn stepup(session: Session) -> cloakroom::Result<StatusCode> {
    match session.owner() {
        Some(owner) => session.sign_in(&*owner).map(|()| StatusCode::OK),
        None => Ok(StatusCode::FORBIDDEN),
    }
}

async fn boom(session: Session) -> cloakroom::Result<StatusCode> {
    session.insert("n", 99)?;
    Ok(StatusCode::INTERNAL_SERVER_ERROR)
}

async fn panic(session: Session) {
    session.insert("n", 99).expect("the session is open");
    panic!("as asked");
}

async fn act(Extension(handler): Extension<Handler>, session: Session) -> Response {
    let handler = handler
        .0
        .lock()
        .expect("no panic")
        .take()
        .expect("sent once");
    handler(session).await
}

type Boxed<T> = Pin<Box<dyn Future<Output = T> + Send>>;

type HandlerFn = Box<dyn FnOnce(Session) -> Boxed<Response> + Send>;

/// A handler on its way to `/act`.
#[derive(Clone)]
pub(crate) struct Handler(Arc<Mutex<Option<HandlerFn>>>);

impl Handler {
    pub(crate) fn new<R>(handler: impl FnOnce(Session) -> R + Send + 'static) -> Self
    where
        R: Future<Output: IntoResponse> + Send + 'static,
    {
        let handler = |session| -> Boxed<Response> {
            let future = handler(session);
            Box::pin(async { future.await.into_response() })
        };
        Self(Arc::new(Mutex::new(Some(Box::new(handler)))))
    }
}

/// A browser that does one thing after the other, or several at once: clones share the jar.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) server: Server,
    jar: Arc<Mutex<CookieStore>>,
}

impl Client {
    /// The request as this client sends it now.
    pub(crate) fn request(&self, path: &str) -> Request<Body> {
        let url = url(path);
        let jar = self.jar.lock().expect("no panic");
        let pairs: Vec<_> = jar
            .get_request_values(&url)
            .map(|(n, v)| format!("{n}={v}"))
            .collect();
        let mut request = Request::post(url.path())
            .body(Body::empty())
            .expect("a request");
        if !pairs.is_empty() {
            let line = HeaderValue::try_from(pairs.join("; ")).expect("a header");
            request.headers_mut().insert(COOKIE, line);
        }
        request
    }

    pub(crate) async fn get(&self, path: &str) -> Seen {
        self.send(self.request(path)).await
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Seen {
        let seen = self.server.send(request).await;
        self.take(&seen.headers);
        seen
    }

    /// Keeps and drops cookies as a response says.
    pub(crate) fn take(&self, headers: &HeaderMap) {
        for line in headers.get_all(SET_COOKIE) {
            self.keep(line.to_str().expect("ASCII"));
        }
    }

    pub(crate) fn keep(&self, set_cookie: &str) {
        // What the jar refuses, a browser does: the tests see it by the cookie's absence.
        let _ = self
            .jar
            .lock()
            .expect("no panic")
            .parse(set_cookie, &url("/"));
    }

    /// Runs an asynchronous handler on the session of this client.
    pub(crate) async fn run<R>(&self, handler: impl FnOnce(Session) -> R + Send + 'static) -> Seen
    where
        R: Future<Output: IntoResponse> + Send + 'static,
    {
        self.send(self.running(handler)).await
    }

    /// The request that [`run`](Self::run) sends.
    pub(crate) fn running<R>(
        &self,
        handler: impl FnOnce(Session) -> R + Send + 'static,
    ) -> Request<Body>
    where
        R: Future<Output: IntoResponse> + Send + 'static,
    {
        let mut request = self.request("/act");
        request.extensions_mut().insert(Handler::new(handler));
        request
    }

    /// Runs a synchronous handler on the session of this client.
    pub(crate) async fn act<R>(&self, handler: impl FnOnce(&Session) -> R + Send + 'static) -> Seen
    where
        R: IntoResponse + Send + 'static,
    {
        self.run(|session| std::future::ready(handler(&session)))
            .await
    }

    /// What a handler finds out about the session of this client.
    pub(crate) async fn look<R>(&self, look: impl FnOnce(&Session) -> R + Send + 'static) -> R
    where
        R: Send + 'static,
    {
        let (put, get) = std::sync::mpsc::channel();
        let seen = self
            .act(move |session| put.send(look(session)).expect("we wait"))
            .await;
        get.try_recv()
            .unwrap_or_else(|_| panic!("the handler did not run: {}", seen.status))
    }

    /// The value of a key, for this client.
    pub(crate) async fn value(&self, key: &'static str) -> Option<u64> {
        self.look(move |session| session.get(key).expect("a number"))
            .await
    }

    /// Whether the client has a live session.
    pub(crate) async fn is_known(&self) -> bool {
        self.look(|session| !session.is_new()).await
    }

    pub(crate) async fn owner(&self) -> Option<Arc<str>> {
        self.look(Session::owner).await
    }

    /// The session token in the jar; there is at most one cookie in it.
    pub(crate) fn token(&self) -> Option<String> {
        let jar = self.jar.lock().expect("no panic");
        let mut values = jar.iter_unexpired().map(|cookie| cookie.value().to_owned());
        let token = values.next();
        assert_eq!(values.next(), None, "more than one cookie in the jar");
        token
    }

    /// The token in the jar of a client that has one.
    pub(crate) fn the_token(&self) -> String {
        self.token().expect("the client has a cookie")
    }

    pub(crate) fn id(&self) -> SessionId {
        id_of(&self.the_token())
    }

    /// What the store holds for this client.
    pub(crate) async fn record(&self) -> Option<Record> {
        self.server.record(&self.the_token()).await
    }

    /// Another client with the same cookie, whose jar goes its own way from here.
    pub(crate) fn twin(&self) -> Self {
        self.twin_at(&self.server)
    }

    /// The same at another process.
    pub(crate) fn twin_at(&self, server: &Server) -> Self {
        let jar = self.jar.lock().expect("no panic").clone();
        Self {
            server: server.clone(),
            jar: Arc::new(Mutex::new(jar)),
        }
    }
}

fn url(path: &str) -> Url {
    Url::parse("https://shop.example.com")
        .and_then(|url| url.join(path))
        .expect("a path")
}

/// A client who signed in as `owner` on a device of its own.
pub(crate) async fn device(server: &Server, owner: &'static str) -> Client {
    let client = server.client();
    let signed_in = client.act(move |s| s.sign_in(owner)).await;
    assert_eq!(signed_in.ok().told(), Told::Cookie);
    client
}

/// Sends `count` requests at once, from each of `clients` in turn.
pub(crate) async fn at_once<R>(
    count: usize,
    clients: impl Into<Vec<Client>>,
    handler: impl Fn(usize, Session) -> R + Clone + Send + 'static,
) -> Vec<Seen>
where
    R: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut requests = JoinSet::new();
    for (i, client) in (0..count).zip(clients.into().into_iter().cycle()) {
        let handler = handler.clone();
        requests.spawn(async move { client.run(move |session| handler(i, session)).await });
    }
    requests.join_all().await
}

/// A request whose handler has done its work and returns when it is told to.
pub(crate) struct Slow {
    go: oneshot::Sender<()>,
    request: JoinHandle<Seen>,
}

impl Slow {
    pub(crate) async fn start(
        client: &Client,
        work: impl FnOnce(&Session) -> Result<(), Error> + Send + 'static,
    ) -> Self {
        let client = client.clone();
        let (go, told) = oneshot::channel();
        let (done, reached) = oneshot::channel();
        let request = tokio::spawn(async move {
            let handler = async move |session: Session| {
                work(&session)?;
                done.send(()).expect("the test waits");
                told.await.expect("the test goes on");
                Ok::<_, Error>(())
            };
            client.run(handler).await
        });
        reached.await.expect("the handler runs");
        Self { go, request }
    }

    pub(crate) async fn finish(self) -> Seen {
        self.go.send(()).expect("the handler waits");
        self.request.await.expect("no panic")
    }
}

/// A response, with the store calls that it took.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) extensions: Extensions,
    pub(crate) body: Bytes,
    /// As in `load update`. Meaningful only while nothing else runs on the store.
    pub(crate) calls: String,
}

/// What a response says about the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// It does not depend on it.
    Nothing,
    /// `Vary: Cookie` alone.
    Vary,
    /// `Vary: Cookie`, `Cache-Control: no-store` and a new cookie.
    Cookie,
    /// The same with a removal cookie.
    Removal,
}

impl Seen {
    /// Insists on a success.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{self:?}");
        self
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// Reads the three headers of the session, which must fit together (S-80).
    pub(crate) fn told(&self) -> Told {
        let vary = self
            .headers
            .get_all(VARY)
            .iter()
            .any(|line| line == "Cookie");
        let no_store = self
            .headers
            .get_all(CACHE_CONTROL)
            .iter()
            .any(|line| line == "no-store");
        match (vary, no_store, self.cookie()) {
            (false, false, None) => Told::Nothing,
            (true, false, None) => Told::Vary,
            (true, true, Some(cookie)) if cookie.token.is_empty() => Told::Removal,
            (true, true, Some(_)) => Told::Cookie,
            mixed => panic!("headers that do not fit together: {mixed:?}"),
        }
    }

    /// The session's cookie: whatever is set except the application's own cookies, `own…`.
    pub(crate) fn cookie(&self) -> Option<SetCookie> {
        let lines = self.headers.get_all(SET_COOKIE).iter();
        let mut lines = lines.filter(|line| !line.as_bytes().starts_with(b"own"));
        let cookie = lines
            .next()
            .map(|line| SetCookie::read(line.to_str().expect("ASCII")));
        assert_eq!(lines.next(), None, "S-21: more than one session cookie");
        cookie
    }

    /// The error that the response was made of.
    pub(crate) fn error(&self) -> &Error {
        self.extensions
            .get()
            .expect("the response was made of an error")
    }
}

/// A `Set-Cookie` line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetCookie {
    pub(crate) name: String,
    pub(crate) token: String,
    /// Sorted.
    pub(crate) attributes: Vec<String>,
}

impl SetCookie {
    /// As RFC 6265bis section 5.6 reads it.
    pub(crate) fn read(line: &str) -> Self {
        let mut parts = line.split(';').map(|part| part.trim_matches([' ', '\t']));
        let (name, token) = parts
            .next()
            .and_then(|p| p.split_once('='))
            .expect("a pair");
        let mut attributes: Vec<_> = parts.map(str::to_owned).collect();
        attributes.sort_unstable();
        Self {
            name: name.to_owned(),
            token: token.to_owned(),
            attributes,
        }
    }

    pub(crate) fn max_age(&self) -> Option<u64> {
        let age = self
            .attributes
            .iter()
            .find_map(|attribute| attribute.strip_prefix("Max-Age="));
        age.map(|age| age.parse().expect("a number"))
    }
}

thread_local! {
    static LOG: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// What this thread logs, at any level, from [`capture`](Self::capture) on.
pub(crate) struct Log(());

impl Log {
    pub(crate) fn capture() -> Self {
        listen();
        LOG.set(Some(Vec::new()));
        Self(())
    }

    /// What was logged since the last time.
    pub(crate) fn take(&self) -> String {
        let bytes = LOG.replace(Some(Vec::new())).unwrap_or_default();
        String::from_utf8(bytes).expect("text")
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        LOG.set(None);
    }
}

/// Passes what each thread logs to its [`Log`]. One subscriber for the whole process: `tracing` notes
/// once whether anybody wants an event, and would ask the thread that logs it first, which may be
/// another test's.
fn listen() {
    static LISTENING: Once = Once::new();

    struct ThisThread;

    impl io::Write for ThisThread {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            LOG.with_borrow_mut(|log| {
                if let Some(log) = log {
                    log.extend_from_slice(bytes);
                }
            });
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    LISTENING.call_once(|| {
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(|| ThisThread)
            .finish();
        tracing::subscriber::set_global_default(subscriber).expect("the only one");
    });
}
