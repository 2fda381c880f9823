//! The requests that are measured. Every application under test has the same routes (see
//! [`bare`] for what they answer), so that what a session layer adds is the difference to [`bare`].
#![allow(dead_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::Body;
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue, Request, Response};
use axum::routing::{get, post};
use tower::ServiceExt as _;
use tower::layer::util::Identity;

/// One kind of request, and the session that it meets.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    path: &'static str,
    cookie: Cookie,
}

/// What the client sends.
#[derive(Clone, Copy)]
enum Cookie {
    Absent,
    /// The cookie of a session that this route has filled.
    Of(&'static str),
    /// The same, but every request has a session of its own.
    OfEach(&'static str),
    /// The cookie of a session that there is, with another secret.
    Forged,
    /// The cookie of a session behind that many KB of other cookies.
    Crowded(usize),
}

impl Scenario {
    const fn new(name: &'static str, path: &'static str, cookie: Cookie) -> Self {
        Self { name, path, cookie }
    }
}

pub(crate) const SCENARIOS: [Scenario; 13] = [
    Scenario::new("untouched, no cookie", "/plain", Cookie::Absent),
    Scenario::new("untouched", "/plain", Cookie::Of("/fill")),
    Scenario::new("read", "/read", Cookie::Of("/fill")),
    Scenario::new("read, 4 KiB", "/read", Cookie::Of("/fill/4")),
    Scenario::new("read, 32 KiB", "/read", Cookie::Of("/fill/32")),
    Scenario::new("increment", "/increment", Cookie::Of("/fill")),
    Scenario::new("increment, 4 KiB", "/increment", Cookie::Of("/fill/4")),
    Scenario::new("new", "/increment", Cookie::Absent),
    Scenario::new("sign-in", "/sign-in", Cookie::OfEach("/fill")),
    Scenario::new("read, no session", "/read", Cookie::Absent),
    Scenario::new("read, forged", "/read", Cookie::Forged),
    Scenario::new("read, 10 KB of others", "/read", Cookie::Crowded(10)),
    Scenario::new("read, 400 KB of others", "/read", Cookie::Crowded(400)),
];

pub(crate) fn scenario(name: &str) -> Scenario {
    let found = SCENARIOS.into_iter().find(|s| s.name == name);
    found.unwrap_or_else(|| panic!("no scenario `{name}`"))
}

/// Five small keys, and this many of a KiB besides.
pub(crate) const SMALL: [&str; 5] = ["a", "b", "c", "d", "visits"];
pub(crate) const FILLS: [(&str, usize); 3] = [("/fill", 0), ("/fill/4", 4), ("/fill/32", 32)];

pub(crate) fn large_keys(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|n| format!("large-{n:02}"))
}

/// A KiB of text.
pub(crate) fn large_value() -> String {
    "seventeen letters".chars().cycle().take(1024).collect()
}

/// What every handler answers.
pub(crate) fn answer(n: u64) -> String {
    format!("visit {n}")
}

/// The routes without any session, under a layer that does nothing: axum itself pays two allocations
/// and some 900 instructions for any layer, whatever it does.
pub(crate) fn bare() -> Router {
    let handler = async || answer(7);
    let router = Router::new()
        .route("/plain", get(handler))
        .route("/read", get(handler))
        .route("/increment", post(handler))
        .route("/sign-in", post(handler));
    FILLS
        .into_iter()
        .fold(router, |router, (path, _)| {
            router.route(path, post(handler))
        })
        .layer(Identity::new())
        .with_state(())
}

/// The requests of a scenario, ready to be sent to an application.
pub(crate) struct Requests {
    path: &'static str,
    cookies: Vec<HeaderValue>,
    next: AtomicUsize,
}

impl Requests {
    /// Fills the sessions that `count` requests need. Other counts than the one that is sent may be
    /// given, so that the work done here is the same whatever is sent.
    pub(crate) async fn prepare(app: &Router, scenario: Scenario, count: usize) -> Self {
        let mut cookies = Vec::new();
        match scenario.cookie {
            Cookie::Absent => {}
            Cookie::Of(fill) => cookies.push(filled(app, fill).await),
            Cookie::OfEach(fill) => {
                for _ in 0..count {
                    cookies.push(filled(app, fill).await);
                }
            }
            Cookie::Forged => {
                let cookie = filled(app, "/fill").await;
                let mut bytes = cookie.as_bytes().to_vec();
                if let Some(last) = bytes.last_mut() {
                    *last = if *last == b'A' { b'B' } else { b'A' };
                }
                cookies.push(HeaderValue::from_bytes(&bytes).expect("as it was"));
            }
            Cookie::Crowded(kilobytes) => {
                let cookie = filled(app, "/fill").await;
                let mut line = Vec::new();
                for n in 0..10 * kilobytes {
                    let value = "0123456789".repeat(9);
                    line.extend_from_slice(format!("cookie-{n:04}={value}; ").as_bytes());
                }
                line.extend_from_slice(cookie.as_bytes());
                cookies.push(HeaderValue::from_bytes(&line).expect("text"));
            }
        }
        Self {
            path: scenario.path,
            cookies,
            next: AtomicUsize::new(0),
        }
    }

    /// The next request.
    pub(crate) fn request(&self) -> Request<Body> {
        let mut request = if matches!(self.path, "/plain" | "/read") {
            Request::get(self.path)
        } else {
            Request::post(self.path)
        };
        if !self.cookies.is_empty() {
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            // Shared, as the values that hyper makes are.
            let cookie = self.cookies[n % self.cookies.len()].clone();
            request = request.header(COOKIE, cookie);
        }
        request.body(Body::empty()).expect("a request")
    }

    /// Sends `count` requests, one after the other.
    pub(crate) async fn send(&self, app: &Router, count: usize) {
        for _ in 0..count {
            let response = send(app, self.request()).await;
            assert!(response.status().is_success());
        }
    }
}

pub(crate) async fn send(app: &Router, request: Request<Body>) -> Response<Body> {
    let sent = app.clone().oneshot(request).await;
    sent.unwrap_or_else(|never| match never {})
}

/// The cookie of a session that a route has filled; of the bare application one that looks like it.
pub(crate) async fn filled(app: &Router, fill: &str) -> HeaderValue {
    let request = Request::post(fill).body(Body::empty()).expect("a request");
    let response = send(app, request).await;
    assert!(response.status().is_success());
    cookies_of(response.headers()).unwrap_or_else(|| {
        HeaderValue::from_static("__Host-id=AY9cHnorfD2OTwEjRWeJq-Dh4uPk5ebn6Onq6-zt7u_w8fLz")
    })
}

/// The cookies that a response sets, as a client sends them back.
pub(crate) fn cookies_of(headers: &HeaderMap) -> Option<HeaderValue> {
    let lines = headers.get_all(SET_COOKIE).iter();
    let pairs: Vec<_> = lines
        .map(|line| line.to_str().expect("ASCII"))
        .map(|line| line.split(';').next().unwrap_or_default())
        .collect();
    (!pairs.is_empty()).then(|| HeaderValue::try_from(pairs.join("; ")).expect("text"))
}
