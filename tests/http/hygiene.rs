//! What leaves the server, and what does not: tokens, secrets and digests in stores, logs, messages and
//! caches.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::{AppendHeaders, IntoResponse};
use cloakroom::store::{SessionStore as _, Update};
use cloakroom::test_util::{Fault, Operation};
use cloakroom::{Error, LazySession, OnConflict, Session, SessionLayer, Typed};
use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode};
use tower::{Layer as _, Service as _};

use crate::support::{Client, Log, Seen, Server, Told, bytes_of, id_of};

const MINUTE: Duration = Duration::from_secs(60);

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(bytes)
}

/// The spellings in which a secret could turn up in a text: as itself, in hexadecimal, in both
/// alphabets of base64 at any alignment, and as a list of numbers.
pub(crate) fn spellings(secret: &[u8]) -> Vec<String> {
    let mut spellings = vec![hex(secret), hex(secret).to_uppercase()];
    for skip in 0..3 {
        let whole = base64(&secret[skip..]);
        // The last character may share its bits with what follows.
        let whole = &whole[..whole.len() - 1];
        spellings.push(whole.to_owned());
        spellings.push(whole.replace('+', "-").replace('/', "_"));
    }
    let numbers = format!("{secret:?}");
    spellings.push(numbers[1..numbers.len() - 1].to_owned());
    spellings
}

/// Everything that must not be seen of a token.
pub(crate) fn secrets_of(token: &str) -> Vec<String> {
    let bytes = bytes_of(token);
    let mut secrets = spellings(&bytes[16..]);
    secrets.push(token.to_owned());
    secrets
}

#[track_caller]
pub(crate) fn assert_absent(secrets: &[String], text: &str) {
    for secret in secrets {
        assert!(!text.contains(secret.as_str()), "`{secret}` in {text}");
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// The search finds what it is to find.
#[test]
fn the_spellings_are_those_that_a_mistake_would_make() {
    let token = "AY9cHnorfD2OTwEjRWeJq-Dh4uPk5ebn6Onq6-zt7u_w8fLz";
    let secret = &bytes_of(token)[16..];
    for leak in [
        format!("token={token}"),
        format!("Secret({secret:?})"),
        format!("Secret({secret:02x?})").replace(", ", ""),
        hex(secret),
        format!(
            "{:X?}",
            u128::from_be_bytes(secret[..16].try_into().unwrap())
        ) + &format!(
            "{:X?}",
            u32::from_be_bytes(secret[16..].try_into().unwrap())
        ),
        base64(secret),
        base64(&bytes_of(token)),
        base64(&[b"x", secret].concat()),
        base64(&[b"xy", secret].concat())
            .replace('+', "-")
            .replace('/', "_"),
    ] {
        assert!(
            secrets_of(token)
                .iter()
                .any(|spelled| leak.contains(spelled)),
            "{leak}"
        );
    }
}

/// S-08: every record of the store, in the form that stores of keys and values keep.
#[tokio::test]
async fn the_store_never_holds_a_secret() {
    let server = Server::with(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let client = server.client();
    let mut tokens = vec![];
    let keep = |tokens: &mut Vec<String>, client: &Client| tokens.extend(client.token());
    for path in ["/write", "/login", "/stepup"] {
        client.get(path).await.ok();
        keep(&mut tokens, &client);
    }
    // Derived from the token.
    client.act(|s| s.csrf_token().map(drop)).await.ok();
    server.clock.advance(10 * MINUTE);
    client.get("/read").await.ok();
    keep(&mut tokens, &client);
    server.visitor().await;

    let now = server.clock.now();
    let mut rows = server.memory.list_by_owner("ada", now).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert!(rows[0].1.previous.is_some(), "the renewal's grace is in it");
    for token in &tokens {
        rows.extend(
            server
                .record(token)
                .await
                .map(|record| (id_of(token), record)),
        );
    }
    for (id, record) in rows {
        let row = [id.as_bytes(), &*record.encode()].concat();
        assert!(
            contains(&row, b"ada") && contains(&row, br#""n":1"#),
            "the dump is a dump"
        );
        for token in &tokens {
            assert!(!contains(&row, &bytes_of(token)[16..]));
            for secret in secrets_of(token) {
                assert!(!contains(&row, secret.as_bytes()));
            }
        }
        assert!(
            tokens
                .iter()
                .any(|token| contains(&row, &bytes_of(token)[..16]))
        );
    }
}

/// S-10: a whole life, with all that can go wrong in it.
#[tokio::test]
async fn the_log_never_shows_a_token_a_secret_or_a_digest() {
    let log = Log::capture();
    let server = Server::with(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let elsewhere = server.beside(|b| b);
    let mut secrets = vec![];
    let client = server.client();
    let mut note = async |client: &Client| {
        secrets.extend(secrets_of(&client.the_token()));
        let record = client.record().await.unwrap();
        secrets.extend(spellings(record.digest.as_bytes()));
    };
    for path in ["/write", "/read", "/login", "/stepup", "/boom"] {
        client.get(path).await;
        note(&client).await;
    }
    server.clock.advance(10 * MINUTE);
    client.get("/read").await.ok();
    note(&client).await;
    let superseded = client.twin();
    client.get("/stepup").await.ok();
    note(&client).await;
    superseded.get("/read").await.ok();
    // Every kind of outage, on every kind of request.
    for fault in [Fault::Fail, Fault::FailAfter] {
        for operation in [
            Operation::Load,
            Operation::Create,
            Operation::Update,
            Operation::Delete,
        ] {
            server.store.always(operation, fault.clone());
            let client = client.twin();
            for path in ["/read", "/write", "/login", "/logout"] {
                server.client().get(path).await;
                client.get(path).await;
            }
            server.store.heal();
            let seen = server.client().get("/write").await;
            assert_eq!(seen.told(), Told::Cookie);
        }
    }
    // Cookies of all kinds of nonsense.
    let client = server.visitor().await;
    let other = server.visitor().await;
    note(&client).await;
    note(&other).await;
    let (a, b) = (client.the_token(), other.the_token());
    let mut forged = a.clone();
    forged.replace_range(47.., if a.ends_with('A') { "B" } else { "A" });
    for line in [
        format!("__Host-id={a}x"),
        format!("__Host-id=\"{a}\""),
        format!("__Host-id={forged}"),
        format!("__Host-id={a}; __Host-id={b}"),
        (0..5)
            .map(|i| format!("__Host-id={}{i}; ", &a[..47]))
            .collect(),
    ] {
        let mut request = Request::post("/write")
            .body(axum::body::Body::empty())
            .unwrap();
        request.headers_mut().insert(COOKIE, line.parse().unwrap());
        server.send(request).await.ok();
    }
    // Writers that come too late, conflicts, and a damaged record.
    for path in ["/write", "/login", "/logout"] {
        let client = server.visitor().await;
        note(&client).await;
        let other = client.twin_at(&elsewhere);
        let seen = client.run(async move |s: Session| {
            other.get(path).await.ok();
            s.update("n", |n: &mut u64| *n += 1)
        });
        seen.await.ok();
    }
    let damaged = client.id().to_string();
    let mut record = client.record().await.unwrap();
    record.data = b"{".as_slice().into();
    let now = server.clock.now();
    let done = server
        .memory
        .update(client.id(), &record, record.version, now)
        .await
        .unwrap();
    assert_eq!(done, Update::Done);
    client.get("/write").await.ok();

    let log = log.take();
    for expected in [
        "token is not accepted",
        "session store failed",
        "renewed meanwhile",
        "ended meanwhile",
        "session is damaged",
        "two live sessions",
        "too many session cookies",
        &damaged,
    ] {
        assert!(
            log.contains(expected),
            "the log is a log: {expected} not in {log}"
        );
    }
    assert_absent(&secrets, &log);
}

/// S-84 in part: what an operator wants to know is said once, with the session's public id.
#[tokio::test]
async fn events_are_logged_with_their_session() {
    let log = Log::capture();
    let server = Server::new();
    let late = |path: &'static str| {
        let server = server.clone();
        async move {
            let client = server.visitor().await;
            let other = client.twin();
            let write = client.run(async move |s: Session| {
                other.get(path).await.ok();
                s.insert("n", 2)
            });
            write.await.ok();
            client
        }
    };
    let check = |client: &Client, level: &str, message: &str| {
        let log = log.take();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(message)).collect();
        assert_eq!(lines.len(), 1, "{message}: {log}");
        assert!(lines[0].contains(level), "{}", lines[0]);
        assert!(lines[0].contains(&client.id().to_string()), "{}", lines[0]);
    };
    let client = late("/logout").await;
    check(&client, "INFO", "session ended meanwhile; changes dropped");
    let client = late("/login").await;
    check(
        &client,
        "WARN",
        "token was renewed meanwhile; changes dropped",
    );
    let client = server.visitor().await;
    let superseded = client.twin();
    client.get("/login").await.ok();
    superseded.get("/read").await.ok();
    check(&client, "DEBUG", "token is not accepted");
    let mut record = client.record().await.unwrap();
    record.data = b"{".as_slice().into();
    let now = server.clock.now();
    let _ = server
        .memory
        .update(client.id(), &record, record.version, now)
        .await
        .unwrap();
    client.get("/read").await.ok();
    check(&client, "ERROR", "stored session is damaged");
}

/// S-10.
#[tokio::test]
async fn debug_of_no_public_type_shows_a_secret() {
    let client = Server::new().client();
    client.get("/login").await.ok();
    client.act(|s| s.insert("pin", "hunter2")).await.ok();
    let record = client.record().await.unwrap();
    let mut secrets = secrets_of(&client.the_token());
    secrets.extend(spellings(record.digest.as_bytes()));
    secrets.push("hunter2".to_owned());

    let builder = SessionLayer::builder(client.server.store.clone()).persistent(true);
    let layer = builder
        .clone()
        .clock(client.server.clock.clone())
        .build()
        .unwrap();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let inner = tower::service_fn(move |request: Request<axum::body::Body>| {
        let lazy = request.extensions().get::<LazySession>().unwrap().clone();
        *keep.lock().unwrap() = Some(lazy.clone());
        async move {
            lazy.load().await?.renew()?;
            Ok::<_, Error>(axum::response::Response::<axum::body::Body>::default())
        }
    });
    let future = layer.layer(inner).call(client.request("/"));
    let mut shown = vec![format!("{builder:?} {layer:?} {future:?}")];
    let response = future.await.unwrap();
    let lazy = kept.lock().unwrap().take().unwrap();
    let session = lazy.load().await.unwrap();
    fn debug(shown: &mut Vec<String>, value: impl Debug) {
        shown.push(format!("{value:?} {value:#?}"));
    }
    debug(&mut shown, &lazy);
    debug(&mut shown, &session);
    debug(
        &mut shown,
        Typed::<Pin>::new(&session).map(|typed| typed.session().clone()),
    );
    debug(&mut shown, session.get::<u64>("n").unwrap());
    debug(&mut shown, &record);
    debug(&mut shown, Update::Conflict(record.clone()));
    debug(&mut shown, record.digest);
    debug(&mut shown, record.previous);
    debug(&mut shown, &client.server.store);
    debug(&mut shown, &client.server.memory);
    debug(&mut shown, response.headers());
    debug(&mut shown, session.insert("late", 1).unwrap_err());
    assert!(shown[2].contains(&client.id().to_string()), "{}", shown[2]);
    let renewed = response.headers()[SET_COOKIE].to_str().unwrap();
    secrets.extend(secrets_of(&crate::support::SetCookie::read(renewed).token));
    for text in shown {
        assert_absent(&secrets, &text);
    }
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Pin(String);

impl cloakroom::SessionValue for Pin {
    const KEY: &'static str = "pin";
}

/// S-11: the token leaves in `Set-Cookie` and nowhere else.
#[tokio::test]
async fn no_body_and_no_other_header_carries_the_token() {
    let client = Server::new().client();
    let mut tokens = vec![];
    for path in [
        "/write", "/read", "/login", "/stepup", "/boom", "/nowhere", "/", "/logout",
    ] {
        tokens.extend(client.token());
        let seen = client.get(path).await;
        tokens.extend(client.token());
        let mut headers = seen.headers.clone();
        headers.remove(SET_COOKIE);
        let text = format!("{headers:?} {}", seen.text());
        for token in &tokens {
            assert_absent(&secrets_of(token), &text);
        }
    }
    assert!(tokens.len() > 8);
}

/// S-68: 20 000 requests with tokens that nobody gave out.
#[tokio::test]
async fn guessing_creates_no_rows_and_no_cookies() {
    let server = Server::new();
    for _ in 0..10_000 {
        let mut bytes = [0; 36];
        getrandom::fill(&mut bytes).unwrap();
        let token = base64(&bytes).replace('+', "-").replace('/', "_");
        for path in ["/read", "/logout"] {
            let mut request = Request::post(path).body(axum::body::Body::empty()).unwrap();
            let line = format!("__Host-id={token}");
            request.headers_mut().insert(COOKIE, line.parse().unwrap());
            assert_eq!(server.send(request).await.ok().told(), Told::Vary);
        }
    }
    assert!(server.memory.is_empty());
    assert_eq!(server.store.calls(Operation::Load), 20_000);
    assert_eq!(server.store.total_calls(), 20_000);
}

/// S-78: a rule for the code, since times are too noisy to tell. Tokens and digests, CSRF tokens, what is known of a
/// client, and signatures.
#[test]
fn secrets_are_compared_in_constant_time() {
    for (code, comparison, times) in [
        (include_str!("../../src/token.rs"), ".ct_eq(", 2),
        (include_str!("../../src/csrf.rs"), ".ct_eq(", 1),
        (include_str!("../../src/session/client.rs"), ".ct_eq(", 1),
        (
            include_str!("../../src/seal/signed.rs"),
            ".verify_truncated_left(",
            1,
        ),
    ] {
        assert_eq!(code.matches(comparison).count(), times, "{comparison}");
    }
}

/// S-78: no answer tells what was wrong with a token.
#[tokio::test]
async fn unknown_expired_revoked_and_forged_tokens_get_the_same_answer() {
    let server = Server::new();
    let token = server.visitor().await.the_token();
    let expired = server.holding(&token);
    server.clock.advance(60 * MINUTE);
    let client = server.visitor().await;
    let (superseded, mut forged) = (client.twin(), client.the_token());
    forged.replace_range(40..42, if &forged[40..42] == "AA" { "BB" } else { "AA" });
    client.get("/login").await.ok();
    let out = server.visitor().await;
    let signed_out = out.twin();
    out.get("/logout").await.ok();
    let revoked = server.visitor().await;
    server.memory.delete(revoked.id()).await.unwrap();
    let damaged = server.visitor().await;
    let mut record = damaged.record().await.unwrap();
    record.data = b"".as_slice().into();
    let now = server.clock.now();
    let _ = server
        .memory
        .update(damaged.id(), &record, record.version, now)
        .await
        .unwrap();
    let mut unknown = token.clone();
    unknown.replace_range(..2, "zz");

    for path in ["/read", "/logout", "/stepup", "/write"] {
        let mut answers = vec![];
        for (what, client) in [
            ("unknown", server.holding(&unknown)),
            ("forged", server.holding(&forged)),
            ("expired", expired.twin()),
            ("superseded", superseded.twin()),
            ("signed out", signed_out.twin()),
            ("revoked", revoked.twin()),
            ("damaged", damaged.twin()),
        ] {
            let seen = client.get(path).await;
            let attributes = seen.cookie().map(|cookie| cookie.attributes);
            let mut headers = seen.headers.clone();
            headers.remove(SET_COOKIE);
            answers.push((
                what,
                format!(
                    "{} {headers:?} {:?} {attributes:?} {}",
                    seen.status, seen.body, seen.calls
                ),
            ));
        }
        for (what, answer) in &answers {
            assert_eq!(answer, &answers[0].1, "{what} {path}");
        }
    }
}

/// S-80: every kind of access says `Vary: Cookie`; every cookie comes with `no-store`.
#[tokio::test]
async fn every_access_is_marked_and_every_cookie_is_uncacheable() {
    type Access = fn(&Session);
    let rows: [(&str, Access, Told); 22] = [
        ("nothing at all", |_| (), Told::Vary),
        ("get", |s| drop(s.get::<u64>("n")), Told::Vary),
        ("contains", |s| _ = s.contains("n"), Told::Vary),
        ("keys", |s| drop(s.keys()), Told::Vary),
        ("len", |s| _ = s.len(), Told::Vary),
        ("is_empty", |s| _ = s.is_empty(), Told::Vary),
        ("is_new", |s| _ = s.is_new(), Told::Vary),
        ("id", |s| _ = s.id(), Told::Vary),
        ("owner", |s| drop(s.owner()), Told::Vary),
        ("created_at", |s| _ = s.created_at(), Told::Vary),
        ("expires_at", |s| _ = s.expires_at(), Told::Vary),
        ("authenticated_at", |s| _ = s.authenticated_at(), Told::Vary),
        ("insert", |s| s.insert("a", 1).unwrap(), Told::Vary),
        (
            "update",
            |s| s.update("n", |n: &mut u64| *n += 1).unwrap(),
            Told::Vary,
        ),
        ("take", |s| drop(s.take::<u64>("n")), Told::Vary),
        ("remove", |s| drop(s.remove("n")), Told::Vary),
        ("clear", |s| s.clear().unwrap(), Told::Vary),
        ("renew", |s| s.renew().unwrap(), Told::Cookie),
        ("sign_in", |s| s.sign_in("ada").unwrap(), Told::Cookie),
        (
            "remember",
            |s| s.remember(60 * MINUTE).unwrap(),
            Told::Cookie,
        ),
        ("destroy", |s| s.destroy().unwrap(), Told::Removal),
        (
            "again",
            |s| s.destroy().and(s.insert("a", 1)).unwrap(),
            Told::Cookie,
        ),
    ];
    for (what, access, told) in rows {
        for touch_due in [false, true] {
            let client = Server::new().visitor().await;
            if touch_due {
                client.server.clock.advance(30 * MINUTE);
            }
            let seen = client.act(move |s| {
                access(s);
                AppendHeaders([
                    (VARY, "accept-encoding"),
                    (CACHE_CONTROL, "public, max-age=3600"),
                    (CACHE_CONTROL, "immutable"),
                ])
            });
            let seen = seen.await.ok();
            assert_eq!(seen.told(), told, "{what}");
            let lines = |name: HeaderName| -> Vec<_> {
                seen.headers
                    .get_all(name)
                    .iter()
                    .map(|line| line.to_str().unwrap())
                    .collect()
            };
            assert_eq!(lines(VARY), ["accept-encoding", "Cookie"], "{what}");
            let expected: &[&str] = match told {
                Told::Vary => &["public, max-age=3600", "immutable"],
                _ => &["no-store"],
            };
            assert_eq!(lines(CACHE_CONTROL), expected, "{what}");
        }
    }
}

/// S-80: a shared cache of the simplest kind that RFC 9111 allows, in front of the application.
struct Cache {
    server: Server,
    stored: HashMap<String, Vec<(HeaderMap, HeaderMap, String)>>,
}

impl Cache {
    async fn get(
        &mut self,
        client: &Client,
        page: fn(&Session) -> cloakroom::Result<String>,
    ) -> String {
        let url = "the page".to_owned();
        let request = client.running(async move |s: Session| {
            let body = page(&s)?;
            Ok::<_, Error>(([(CACHE_CONTROL, "public, max-age=3600")], body))
        });
        let asked = request.headers().clone();
        for (stored_for, headers, body) in self.stored.get(&url).into_iter().flatten() {
            let mut fields = headers.get_all(VARY).iter();
            if fields.all(|name| {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                stored_for.get(&name) == asked.get(&name)
            }) {
                client.take(headers);
                return body.clone();
            }
        }
        let Seen {
            status,
            headers,
            body,
            ..
        } = self.server.send(request).await;
        assert_eq!(status, StatusCode::OK);
        client.take(&headers);
        let body = String::from_utf8(body.to_vec()).unwrap();
        let public = headers
            .get_all(CACHE_CONTROL)
            .iter()
            .any(|v| v.as_bytes().starts_with(b"public"));
        if public
            && !headers
                .get_all(CACHE_CONTROL)
                .iter()
                .any(|v| v == "no-store")
        {
            let entry = (asked, headers, body.clone());
            self.stored.entry(url).or_default().push(entry);
        }
        body
    }
}

/// S-80: behind such a cache, B never receives A's cookie or A's page.
#[tokio::test]
async fn a_shared_cache_hands_nobody_anothers_session() {
    fn page(session: &Session) -> cloakroom::Result<String> {
        let visits = session.update("visits", |n: &mut u64| {
            *n = (*n + 1).min(2);
            *n
        })?;
        Ok(format!("{:?}: {visits}", session.id()))
    }

    let server = Server::new();
    let (a, b) = (server.client(), server.client());
    let mut cache = Cache {
        server,
        stored: HashMap::new(),
    };
    for _ in 0..3 {
        cache.get(&a, page).await;
        cache.get(&b, page).await;
    }
    assert_ne!(a.id(), b.id());
    for client in [&a, &b] {
        let id = client.id();
        assert_eq!(cache.get(client, page).await, format!("{:?}: 2", Some(id)));
        assert_eq!(client.value("visits").await, Some(2));
    }
    assert!(!cache.stored.is_empty(), "the cache is a cache");
}

/// The header value in a request's own `Debug` is the application's affair; that of the response is not.
#[tokio::test]
async fn the_cookie_header_is_marked_sensitive_in_every_case() {
    let server = Server::with(|b| b.persistent(true));
    let client = server.client();
    for path in ["/write", "/write", "/login", "/logout"] {
        server.clock.advance(10 * MINUTE);
        let seen = client.get(path).await.ok();
        let lines: Vec<&HeaderValue> = seen.headers.get_all(SET_COOKIE).iter().collect();
        assert!(lines.len() == 1 && lines[0].is_sensitive(), "{path}");
    }
}

/// S-50 is the application's: a request that does not ask for the session is no use of it.
#[tokio::test]
async fn a_request_without_the_session_is_no_activity() {
    let client = Server::new().visitor().await;
    for _ in 0..60 {
        client.server.clock.advance(MINUTE);
        client.get("/").await.ok();
    }
    assert!(!client.is_known().await);
}

/// A plain string is a fine response, and the layer leaves it whole.
#[tokio::test]
async fn bodies_and_headers_of_the_handler_pass_unchanged() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        s.renew()?;
        Ok::<_, Error>((StatusCode::IM_A_TEAPOT, [("own-header", "1")], "tea").into_response())
    });
    let seen = seen.await;
    assert_eq!((seen.status, seen.text()), (StatusCode::IM_A_TEAPOT, "tea"));
    assert_eq!(seen.headers["own-header"], "1");
}

/// A key that a client has made up, with a line end, makes no line of its own in the log.
#[tokio::test]
async fn a_key_forges_no_line_of_the_log() {
    let server = Server::with(|b| b.on_conflict(OnConflict::Reject));
    let client = server.visitor().await;
    const KEY: &str = "x\n2026-01-01T00:00:00Z ERROR forged";
    client.act(|s| s.insert(KEY, "text")).await.ok();
    let other = client.twin();
    let log = Log::capture();
    let decode = client.look(|s| s.get::<u32>(KEY).unwrap_err()).await;
    let encode = client
        .look(|s| {
            s.insert(KEY, [((), 1)].into_iter().collect::<HashMap<_, _>>())
                .unwrap_err()
        })
        .await;
    let conflict = client.run(async move |s: Session| {
        let _ = s.get::<String>(KEY)?;
        other.act(|s| s.insert(KEY, "other")).await.ok();
        s.insert(KEY, "mine")
    });
    let conflict = conflict.await;
    assert_eq!(conflict.status, StatusCode::CONFLICT);
    let conflict = conflict.extensions.get::<Error>().unwrap();
    for error in [&decode, &encode, conflict] {
        for text in [error.to_string(), format!("{error:?}")] {
            assert!(text.contains(r"x\n2026") && !text.contains('\n'), "{text}");
        }
    }
    let log = log.take();
    assert!(log.contains("ERROR forged"), "{log}");
    assert!(!log.contains("\n2026-01-01"), "{log}");
}

/// What a `Serialize` says of its failure may quote the value.
#[tokio::test]
async fn an_error_of_encoding_shows_no_value() {
    struct Card;
    impl serde::Serialize for Card {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("cannot write hunter2"))
        }
    }
    let client = Server::new().visitor().await;
    let error = client.look(|s| s.insert("card", Card).unwrap_err()).await;
    assert!(error.is_encode());
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("Card"), "{cause}");
    let text = format!("{error} {error:?} {cause}");
    assert!(!text.contains("hunter2"), "{text}");
    // What serde_json itself says is shown.
    let keys = HashMap::from([(vec![1], 1)]);
    let error = client.look(|s| s.insert("keys", keys).unwrap_err()).await;
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "key must be a string");
}
