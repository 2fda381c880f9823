//! Reading and counting on a small layer over our store that keeps the promises which counting meets: what it costs to lose nothing,
//! if that is all that a layer can do. An example to compare with and no proof: somebody may write a smaller one.
//!
//! As `floor.rs`, and: the cookie is found among others, and decoded; there is one session, which can be shared, is
//! read and changed without waiting, and is closed by the response; values are JSON by key, limited in size; what was
//! changed is written when the handler is done, by compare-and-swap, and done again on what a parallel request has
//! written meanwhile; the store is waited for so long and no longer. There are no sign-ins, renewals, touches, settings
//! and events, nobody else asks for the session of a request, no line of those who write to one, and what is stored is
//! believed to be an object.

use std::cell::Cell;
use std::convert::Infallible;
use std::mem;
use std::ops::Range;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response};
use axum::routing::{get, post};
use cloakroom::store::{
    Content, Create, Digest, Record, SessionStore, StoreError, Timestamp, Update, Version,
};
use cloakroom::{MemoryStore, SessionId};
use pin_project_lite::pin_project;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use tokio::time::Sleep;
use tower::{Layer, Service};

use crate::requests::{FILLS, SMALL, answer, large_keys, large_value};

// Those of the crate, since it has no others that are cheaper.
#[allow(dead_code, unused_imports)]
#[path = "../../src/base64url.rs"]
mod base64url;
#[allow(dead_code, unused_imports)]
#[path = "../../src/data/scan.rs"]
mod scan;

/// Where it does what ours does.
pub(crate) const SCENARIOS: [&str; 4] = ["read", "read, 4 KiB", "increment", "new"];

const NAME: &[u8] = b"__Host-id=";
const ATTRIBUTES: &str = "; HttpOnly; SameSite=Lax; Secure; Path=/";
const IDLE: Duration = Duration::from_secs(3_600);
const ABSOLUTE: Duration = Duration::from_secs(86_400);
const PATIENCE: Duration = Duration::from_secs(5);
const MAX_SIZE: usize = 65_536;

/// Sixteen bytes name the session, the others are its secret.
#[derive(Clone, Copy)]
struct Token([u8; 36]);

impl Token {
    /// That of a line's one cookie of the name.
    fn parse(line: &HeaderValue) -> Option<Self> {
        let mut found = None;
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let end = memchr::memchr(b';', rest).unwrap_or(rest.len());
            if let Some(text) = rest[..end].trim_ascii().strip_prefix(NAME)
                && found.replace(text).is_some()
            {
                return None;
            }
            rest = rest.get(end + 1..).unwrap_or_default();
        }
        base64url::decode(found?).map(Self)
    }

    fn id(&self) -> SessionId {
        SessionId::from_bytes(*self.0.first_chunk().expect("it is longer"))
    }

    fn digest(&self) -> Digest {
        Digest::from_bytes(Sha256::digest(self.0).into())
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Answer<'a, T> = Boxed<'a, Result<T, StoreError>>;

/// What is asked of a store, behind a pointer.
trait Store: Send + Sync {
    fn create<'a>(&'a self, id: SessionId, new: &'a Record, now: Timestamp) -> Answer<'a, Create>;
    fn load(&self, id: SessionId, now: Timestamp) -> Answer<'_, Option<Record>>;
    fn update<'a>(
        &'a self,
        id: SessionId,
        new: &'a Record,
        before: Version,
        now: Timestamp,
    ) -> Answer<'a, Update>;
}

impl<S: SessionStore> Store for S {
    fn create<'a>(&'a self, id: SessionId, new: &'a Record, now: Timestamp) -> Answer<'a, Create> {
        Box::pin(SessionStore::create(self, id, new, now))
    }

    fn load(&self, id: SessionId, now: Timestamp) -> Answer<'_, Option<Record>> {
        Box::pin(SessionStore::load(self, id, now))
    }

    fn update<'a>(
        &'a self,
        id: SessionId,
        new: &'a Record,
        before: Version,
        now: Timestamp,
    ) -> Answer<'a, Update> {
        Box::pin(SessionStore::update(self, id, new, before, now))
    }
}

pin_project! {
    /// Work on the store, for so long and no longer.
    struct InTime<F> {
        #[pin]
        work: F,
        timer: Option<Pin<Box<Sleep>>>,
    }
}

fn in_time<F: Future>(work: F) -> InTime<F> {
    InTime { work, timer: None }
}

impl<F: Future> Future for InTime<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(done) = this.work.poll(cx) {
            return Poll::Ready(done);
        }
        let sleep = || Box::pin(tokio::time::sleep(PATIENCE));
        let timer = this.timer.get_or_insert_with(sleep);
        timer
            .as_mut()
            .poll(cx)
            .map(|()| panic!("the store is late"))
    }
}

fn is_live(record: &Record, now: Timestamp) -> bool {
    now < record.expires && now < record.created.saturating_add(ABSOLUTE)
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Where the value of a key is, or else where the member would be.
fn find(data: &[u8], key: &str) -> Result<Range<usize>, usize> {
    let found = scan::find(data, key.as_bytes());
    found.expect("no key has escapes").map(|m| m.value())
}

/// The object with this value for the key, which is no other than letters.
fn with(data: &[u8], place: &Result<Range<usize>, usize>, key: &str, json: &[u8]) -> Content {
    let mut out = BUFFER.take();
    match place {
        Ok(value) => {
            out.extend_from_slice(&data[..value.start]);
            out.extend_from_slice(json);
            out.extend_from_slice(&data[value.end..]);
        }
        Err(at) => {
            let at = *at;
            out.extend_from_slice(&data[..at]);
            let is_first = data.len() == 2;
            let is_last = at == data.len() - 1;
            if is_last && !is_first {
                out.push(b',');
            }
            out.push(b'"');
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            out.extend_from_slice(json);
            if !is_last {
                out.push(b',');
            }
            out.extend_from_slice(&data[at..]);
        }
    }
    let object = Content::from(&*out);
    out.clear();
    BUFFER.set(out);
    object
}

thread_local! {
    static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// For a value.
    static TEXT: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

type Again = Box<dyn FnMut(Option<&[u8]>) -> Vec<u8> + Send>;

/// What a handler did, and how to do it again on other data.
struct Change {
    key: &'static str,
    again: Again,
}

struct State {
    token: Option<Token>,
    record: Option<Record>,
    data: Content,
    first: Option<Change>,
    further: Vec<Change>,
    closed: bool,
}

#[derive(Clone)]
struct Session(Arc<Mutex<State>>);

impl Session {
    fn get<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let data = self.0.lock().expect("no panic").data.clone();
        let value = find(&data, key).ok()?;
        Some(serde_json::from_slice(&data[value]).expect("a value"))
    }

    fn update<T, R>(
        &self,
        key: &'static str,
        mut change: impl FnMut(&mut T) -> R + Send + 'static,
    ) -> R
    where
        T: Default + Serialize + DeserializeOwned,
    {
        let mut run = move |json: Option<&[u8]>| {
            let value = json.map(|json| serde_json::from_slice(json).expect("a value"));
            let mut value: T = value.unwrap_or_default();
            let result = change(&mut value);
            let mut json = TEXT.take();
            json.clear();
            serde_json::to_writer(&mut json, &value).expect("JSON");
            (result, json)
        };
        let mut state = self.0.lock().expect("no panic");
        assert!(!state.closed);
        let data = state.data.clone();
        // Without the lock, so that the closure may use the session.
        drop(state);
        let place = find(&data, key);
        let (result, json) = run(place.clone().ok().map(|value| &data[value]));
        let changed = with(&data, &place, key, &json);
        TEXT.set(json);
        assert!(changed.len() <= MAX_SIZE);
        state = self.0.lock().expect("no panic");
        assert!(!state.closed && std::ptr::eq(&*state.data, &*data));
        state.data = changed;
        let again = Box::new(move |json: Option<&[u8]>| run(json).1);
        let change = Change { key, again };
        match state.first {
            None => state.first = Some(change),
            Some(_) => state.further.push(change),
        }
        result
    }
}

/// A request's session, once somebody asked for it.
struct Pending {
    store: Arc<dyn Store>,
    cookie: Option<HeaderValue>,
    asked: AtomicBool,
    session: OnceLock<Session>,
}

#[derive(Clone)]
struct Lazy(Arc<Pending>);

impl Lazy {
    async fn load(&self) -> Session {
        let Pending {
            store,
            cookie,
            asked,
            session,
        } = &*self.0;
        assert!(!asked.swap(true, Ordering::SeqCst), "nobody else asks");
        let (mut token, now) = (cookie.as_ref().and_then(Token::parse), now());
        let mut record = match &token {
            Some(token) => in_time(store.load(token.id(), now))
                .await
                .expect("it answers"),
            None => None,
        };
        if let (Some(found), Some(token)) = (&record, &token)
            && found.digest == token.digest()
            && is_live(found, now)
        {
        } else {
            (token, record) = (None, None);
        }
        let data = match &record {
            Some(record) => record.data.clone(),
            None => b"{}".as_slice().into(),
        };
        let (first, further, closed) = (None, Vec::new(), false);
        let loaded = Session(Arc::new(Mutex::new(State {
            token,
            record,
            data,
            first,
            further,
            closed,
        })));
        session.get_or_init(|| loaded).clone()
    }
}

/// Writes what was changed; the client's new token, if there is one.
async fn commit(
    store: Arc<dyn Store>,
    token: Option<Token>,
    record: Option<Record>,
    mut data: Content,
    mut first: Option<Change>,
    mut further: Vec<Change>,
) -> Option<Token> {
    let now = now();
    let ends = now.saturating_add(IDLE);
    let Some((token, mut record)) = token.zip(record) else {
        let mut token = Token([0; 36]);
        getrandom::fill(&mut token.0).expect("the system has some");
        let mut record = Record::new(token.digest(), now, ends);
        record.data = data;
        let created = in_time(store.create(token.id(), &record, now)).await;
        assert_eq!(created.expect("there is room"), Create::Done);
        return Some(token);
    };
    loop {
        let before = record.version;
        record.version = before.next();
        (record.seen, record.expires) = (now, ends);
        record.data = data;
        let updated = in_time(store.update(token.id(), &record, before, now)).await;
        match updated.expect("there is room") {
            Update::Done => return None,
            Update::Gone => panic!("nobody signs out"),
            Update::Conflict(current) => {
                assert_eq!(current.digest, record.digest);
                record = current;
                data = record.data.clone();
                for Change { key, again } in first.iter_mut().chain(&mut further) {
                    let place = find(&data, key);
                    let json = again(place.clone().ok().map(|value| &data[value]));
                    data = with(&data, &place, key, &json);
                    TEXT.set(json);
                }
            }
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let lazy: Option<&Lazy> = parts.extensions.get();
        Ok(lazy.expect("the layer is there").load().await)
    }
}

async fn increment(session: Session) -> String {
    answer(session.update("visits", |n: &mut u64| {
        *n += 1;
        *n
    }))
}

async fn read(session: Session) -> String {
    answer(session.get("a").unwrap_or(7))
}

async fn fill(session: Session, large: usize) {
    for key in SMALL {
        session.update(key, |n: &mut u64| *n = 1);
    }
    for key in large_keys(large) {
        session.update(key.leak(), |text: &mut String| *text = large_value());
    }
}

pub(crate) fn application() -> Router {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let router = Router::new()
        .route("/read", get(read))
        .route("/increment", post(increment));
    FILLS
        .into_iter()
        .fold(router, |router, (path, large)| {
            router.route(path, post(async move |session| fill(session, large).await))
        })
        .layer(Small(store))
        .with_state(())
}

#[derive(Clone)]
struct Small(Arc<dyn Store>);

impl<S> Layer<S> for Small {
    type Service = SmallService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let store = Arc::clone(&self.0);
        SmallService { inner, store }
    }
}

#[derive(Clone)]
struct SmallService<S> {
    inner: S,
    store: Arc<dyn Store>,
}

impl<S, B> Service<Request> for SmallService<S>
where
    S: Service<Request, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = SmallFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let lazy = Lazy(Arc::new(Pending {
            store: Arc::clone(&self.store),
            cookie: request.headers().get(COOKIE).cloned(),
            asked: AtomicBool::new(false),
            session: OnceLock::new(),
        }));
        request.extensions_mut().insert(lazy.clone());
        let inner = self.inner.call(request);
        let state = Phase::Running { inner };
        SmallFuture { state, lazy }
    }
}

pin_project! {
    struct SmallFuture<F, B> {
        #[pin]
        state: Phase<F, B>,
        lazy: Lazy,
    }
}

pin_project! {
    #[project = PhaseProj]
    enum Phase<F, B> {
        Running {
            #[pin]
            inner: F,
        },
        Committing {
            commit: Boxed<'static, Option<Token>>,
            response: Option<Response<B>>,
        },
    }
}

impl<F, B, E> Future for SmallFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let commit = match this.state.as_mut().project() {
                PhaseProj::Running { inner } => {
                    let polled = inner.poll(cx);
                    let Some(session) = this.lazy.0.session.get() else {
                        return polled;
                    };
                    let mut response = ready!(polled)?;
                    let vary = HeaderValue::from_static("Cookie");
                    response.headers_mut().insert(VARY, vary);
                    let mut state = session.0.lock().expect("no panic");
                    state.closed = true;
                    if state.first.is_none() {
                        return Poll::Ready(Ok(response));
                    }
                    let store = Arc::clone(&this.lazy.0.store);
                    let first = state.first.take();
                    let further = mem::take(&mut state.further);
                    let data = state.data.clone();
                    let record = state.record.clone();
                    Phase::Committing {
                        commit: Box::pin(commit(store, state.token, record, data, first, further)),
                        response: Some(response),
                    }
                }
                PhaseProj::Committing { commit, response } => {
                    let given = ready!(commit.as_mut().poll(cx));
                    let mut response = response.take().expect("polled once");
                    if let Some(token) = given {
                        let mut line = String::from_utf8(NAME.to_vec()).expect("ASCII");
                        base64url::encode(&token.0, &mut line);
                        line.push_str(ATTRIBUTES);
                        let line = HeaderValue::try_from(line).expect("text");
                        response.headers_mut().append(SET_COOKIE, line);
                        let no_store = HeaderValue::from_static("no-store");
                        response.headers_mut().insert(CACHE_CONTROL, no_store);
                    }
                    return Poll::Ready(Ok(response));
                }
            };
            this.state.set(commit);
        }
    }
}
