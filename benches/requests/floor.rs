//! The measured routes on the least that any layer has to do which keeps our first promises: what a request
//! costs at least, however it is written.
//!
//! It stores digests and no tokens, asks a store behind a pointer that may take its time, refuses what has
//! ended, and says `Vary` and `no-store`. There is nothing else to it: tokens and data are not decoded, there
//! is one cookie and no other, and there are no settings, limits, events, conflicts or second attempts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{FromRequestParts, Request};
use axum::http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Response};
use axum::routing::{get, post};
use pin_project_lite::pin_project;
use sha2::{Digest as _, Sha256};
use tower::{Layer, Service};

use crate::requests::answer;

/// Where it does what ours does.
pub(crate) const SCENARIOS: [&str; 6] = [
    "untouched, no cookie",
    "untouched",
    "read",
    "increment",
    "new",
    "read, no session",
];

const NAME: &[u8] = b"__Host-id=";
const ATTRIBUTES: &[u8] = b"; HttpOnly; SameSite=Lax; Secure; Path=/";
const IDLE: Duration = Duration::from_secs(3600);

/// Sixteen characters name the session, the others are its secret.
type Token = [u8; 48];
type Id = [u8; 16];

/// As long as the five small values.
const DATA: &[u8; 38] = br#"{"a":1,"b":1,"c":1,"d":1,"visits":100}"#;

#[derive(Clone)]
struct Row {
    digest: [u8; 32],
    ends: Duration,
    data: Arc<[u8]>,
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

trait Store: Send + Sync {
    fn load(&self, id: Id) -> Answer<'_, Option<Row>>;
    fn save(&self, id: Id, row: Row) -> Answer<'_, ()>;
}

impl Store for Mutex<BTreeMap<Id, Row>> {
    fn load(&self, id: Id) -> Answer<'_, Option<Row>> {
        Box::pin(async move { self.lock().expect("no panic").get(&id).cloned() })
    }

    fn save(&self, id: Id, row: Row) -> Answer<'_, ()> {
        Box::pin(async move {
            self.lock().expect("no panic").insert(id, row);
        })
    }
}

fn now() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("it is later than 1970")
}

fn id_of(token: &Token) -> Id {
    *token.first_chunk().expect("it is longer")
}

/// A request's session, once somebody asked for it.
struct Pending {
    store: Arc<dyn Store>,
    cookie: Option<HeaderValue>,
    asked: AtomicBool,
    /// What was stored under a new token.
    given: Mutex<Option<Token>>,
}

#[derive(Clone)]
struct Session(Arc<Pending>);

impl Session {
    async fn load(&self) -> Option<(Token, Row)> {
        self.0.asked.store(true, Ordering::SeqCst);
        let token = self.0.cookie.as_ref()?.as_bytes().strip_prefix(NAME)?;
        let token = token.try_into().ok()?;
        let row = self.0.store.load(id_of(&token)).await?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        (digest == row.digest && now() < row.ends).then_some((token, row))
    }

    async fn save(&self, before: Option<(Token, Row)>) {
        let data = Arc::from(DATA.as_slice());
        let ends = now() + IDLE;
        let (token, digest) = match before {
            Some((token, row)) => (token, row.digest),
            None => {
                let token = random();
                *self.0.given.lock().expect("no panic") = Some(token);
                (token, Sha256::digest(token).into())
            }
        };
        let row = Row { digest, ends, data };
        self.0.store.save(id_of(&token), row).await;
    }

    fn finish<B>(&self, response: &mut Response<B>) {
        if !self.0.asked.load(Ordering::SeqCst) {
            return;
        }
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("Cookie"));
        if let Some(token) = *self.0.given.lock().expect("no panic") {
            let line = [NAME, &token, ATTRIBUTES].concat();
            let line = HeaderValue::try_from(line).expect("text");
            headers.append(SET_COOKIE, line);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        }
    }
}

/// A new token, of random letters.
fn random() -> Token {
    let mut random = [0; 30];
    getrandom::fill(&mut random).expect("the system has some");
    let mut token = [0; 48];
    for (n, letter) in token.iter_mut().enumerate() {
        *letter = b'A' + random[n % random.len()] % 16;
    }
    token
}

impl<S: Sync> FromRequestParts<S> for Session {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let session: Option<&Self> = parts.extensions.get();
        Ok(session.expect("the layer is there").clone())
    }
}

async fn read(session: Session) -> String {
    let found = session.load().await;
    answer(found.map_or(7, |(_, row)| row.data.len() as u64))
}

async fn increment(session: Session) -> String {
    let found = session.load().await;
    session.save(found).await;
    answer(7)
}

pub(crate) fn application() -> Router {
    let store: Arc<dyn Store> = Arc::new(Mutex::new(BTreeMap::new()));
    Router::new()
        .route("/plain", get(async || answer(7)))
        .route("/read", get(read))
        .route("/increment", post(increment))
        .route("/fill", post(increment))
        .layer(Floor(store))
        .with_state(())
}

#[derive(Clone)]
struct Floor(Arc<dyn Store>);

impl<S> Layer<S> for Floor {
    type Service = FloorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        let store = Arc::clone(&self.0);
        FloorService { inner, store }
    }
}

#[derive(Clone)]
struct FloorService<S> {
    inner: S,
    store: Arc<dyn Store>,
}

impl<S, B> Service<Request> for FloorService<S>
where
    S: Service<Request, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = FloorFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let session = Session(Arc::new(Pending {
            store: Arc::clone(&self.store),
            cookie: request.headers().get(COOKIE).cloned(),
            asked: AtomicBool::new(false),
            given: Mutex::new(None),
        }));
        request.extensions_mut().insert(session.clone());
        let inner = self.inner.call(request);
        FloorFuture { inner, session }
    }
}

pin_project! {
    struct FloorFuture<F> {
        #[pin]
        inner: F,
        session: Session,
    }
}

impl<F, B, E> Future for FloorFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        this.session.finish(&mut response);
        Poll::Ready(Ok(response))
    }
}
