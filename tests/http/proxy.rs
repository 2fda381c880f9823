//! S-80: behind a real caching proxy, whose operator and whose handlers make it cache what they can.

use std::collections::HashSet;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::get;
use cloakroom::{Error, MemoryStore, Session, SessionLayer};
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE};
use http::{HeaderMap, Request};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::nginx::Nginx;
use crate::support::SetCookie;

const PUBLIC: [(http::HeaderName, &str); 1] = [(CACHE_CONTROL, "public, max-age=3600")];

type Page = Result<([(http::HeaderName, &'static str); 1], String), Error>;

/// Who it is for.
fn page(session: &Session) -> Page {
    let n = session.get::<u64>("n")?;
    Ok((PUBLIC, format!("{:?} {n:?}", session.owner())))
}

/// Changes the session the first two times.
async fn visit(session: Session) -> Page {
    session.update("n", |n: &mut u64| *n = (*n + 1).min(2))?;
    page(&session)
}

async fn sign_in(session: Session) -> Page {
    session.sign_in(format!("user {}", rand()))?;
    page(&session)
}

async fn renew(session: Session) -> Page {
    session.renew()?;
    page(&session)
}

async fn sign_out(session: Session) -> Page {
    session.destroy()?;
    page(&session)
}

fn rand() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).unwrap();
    u64::from_be_bytes(bytes)
}

fn app() -> Router {
    Router::new()
        .route("/plain", get(async || (PUBLIC, "the same for all")))
        .route("/read", get(async |s: Session| page(&s)))
        .route("/visit", get(visit))
        .route("/sign-in", get(sign_in))
        .route("/renew", get(renew))
        .route("/sign-out", get(sign_out))
        .layer(SessionLayer::new(MemoryStore::new()))
}

async fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app()).await });
    port
}

/// A browser behind the proxy, with its token.
struct Visitor<'a> {
    proxy: &'a Nginx,
    token: Option<String>,
    /// All that it was ever given.
    given: HashSet<String>,
}

struct Answer {
    headers: HeaderMap,
    body: Bytes,
}

impl Answer {
    fn cache(&self) -> &str {
        self.headers["x-cache"].to_str().unwrap()
    }
}

impl<'a> Visitor<'a> {
    fn new(proxy: &'a Nginx) -> Self {
        Self {
            proxy,
            token: None,
            given: HashSet::new(),
        }
    }

    async fn get(&mut self, path: &str) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", self.proxy.port));
        let io = TokioIo::new(stream.await.unwrap());
        let (mut client, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::get(path).header("host", "localhost");
        if let Some(token) = &self.token {
            request = request.header(COOKIE, format!("__Host-id={token}"));
        }
        let request = request.body(Body::empty()).unwrap();
        let (parts, body) = client.send_request(request).await.unwrap().into_parts();
        assert_eq!(parts.status, 200, "{path}");
        for line in parts.headers.get_all(SET_COOKIE) {
            let token = SetCookie::read(line.to_str().unwrap()).token;
            self.token = Some(token.clone()).filter(|token| !token.is_empty());
            self.given.extend(self.token.clone());
        }
        Answer {
            headers: parts.headers,
            body: body.collect().await.unwrap().to_bytes(),
        }
    }
}

#[tokio::test]
async fn behind_a_caching_proxy_nobody_receives_anothers_cookie_or_page() {
    // As it comes, nginx caches no response that sets a cookie. RFC 9111 section 7.3 leaves that to the
    // application, and many operators and content networks switch it off.
    for settings in ["", "proxy_ignore_headers Set-Cookie;"] {
        let proxy = Nginx::start(serve().await, settings);
        let [mut a, mut b] = [Visitor::new(&proxy), Visitor::new(&proxy)];
        a.get("/plain").await;
        assert_eq!(b.get("/plain").await.cache(), "HIT", "the proxy is a cache");

        for path in ["/visit", "/sign-in"] {
            // From nobody to somebody: nothing in the two requests differs.
            [a.token, b.token] = [None, None];
            a.get(path).await;
            b.get(path).await;
            assert!(a.token.is_some() && b.token.is_some(), "{path}");
            for path in ["/visit", "/renew", "/read", "/visit", "/sign-in", "/read"] {
                let mine = a.get(path).await;
                let theirs = b.get(path).await;
                if path == "/sign-in" {
                    // The page names the user whom the request made.
                    assert_ne!(mine.body, theirs.body);
                }
            }
            let [mine, theirs] = [a.get("/read").await, b.get("/read").await];
            assert_ne!(mine.body, theirs.body, "two users");
            let again = a.get("/read").await;
            assert_eq!((again.cache(), &again.body), ("HIT", &mine.body));
            a.get("/sign-out").await;
            assert_eq!(a.token, None);
            assert_eq!(b.get("/read").await.body, theirs.body);
            let stranger = a.get("/read").await;
            assert_eq!(stranger.body, "None None");
        }
        assert!(a.given.len() > 4 && b.given.len() > 4);
        assert!(a.given.is_disjoint(&b.given));
    }
}
