//! The CSRF token: whose it is, where it may come from, and how long it holds.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::DefaultBodyLimit;
use axum::routing::{any, get, post};
use cloakroom::{CsrfForm, CsrfHeader, CsrfToken, Error, Session, SessionLayer};
use http::header::{CONTENT_TYPE, COOKIE};
use http::{HeaderValue, Request, StatusCode};
use serde::Deserialize;
use tokio::sync::Barrier;

use crate::extractors::routed;
use crate::support::{Client, Log, Seen, Server, Told};

const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

#[derive(Debug, Deserialize)]
struct Named {
    name: String,
}

async fn save(session: Session, CsrfForm(form): CsrfForm<Named>) -> cloakroom::Result<()> {
    session.insert("name", form.name)
}

fn server() -> Server {
    let routes = Router::new()
        .route("/token", any(async |token: CsrfToken| token.to_string()))
        .route("/form", post(save).layer(DefaultBodyLimit::max(1_000)))
        .route(
            "/script",
            any(async |_: CsrfHeader, s: Session| s.insert("script", 1)),
        )
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route(
            "/login-fails",
            any(async |s: Session| s.sign_in("ada").map(|()| StatusCode::INTERNAL_SERVER_ERROR)),
        )
        .route("/logout", any(async |s: Session| s.destroy()))
        .route(
            "/name",
            get(async |s: Session| s.get::<String>("name").map(Option::unwrap_or_default)),
        );
    routed(routes, |b| b)
}

/// A page with a token, as the client sees it.
async fn token(client: &Client) -> String {
    client.get("/token").await.ok().text().to_owned()
}

async fn submit(client: &Client, body: impl Into<Body>) -> StatusCode {
    let mut request = client.request("/form");
    request.headers_mut().insert(CONTENT_TYPE, FORM);
    *request.body_mut() = body.into();
    client.send(request).await.status
}

async fn submit_with(client: &Client, token: &str) -> StatusCode {
    submit(client, format!("name=Ada&csrf_token={token}")).await
}

/// S-83: of the session, and of no other.
#[tokio::test]
async fn a_form_needs_a_token_of_its_own_session() {
    let server = server();
    let (ada, grace) = (server.client(), server.client());
    let (hers, other) = (token(&ada).await, token(&grace).await);
    assert_eq!(submit_with(&ada, &hers).await, 200);
    assert_eq!(submit_with(&ada, &other).await, 403);
    assert_eq!(submit(&ada, "name=Mallory").await, 403);
    assert_eq!(submit(&ada, "name=Mallory&csrf_token=").await, 403);
    assert_eq!(submit_with(&server.client(), &hers).await, 403);
    assert_eq!(server.memory.len(), 2, "a refused form makes no session");
}

/// S-83: two renders differ, and both verify, again and again.
#[tokio::test]
async fn each_page_masks_the_token_anew() {
    let client = server().client();
    let (one, another) = (token(&client).await, token(&client).await);
    assert_ne!(one, another);
    for _ in 0..3 {
        for token in [&one, &another] {
            assert_eq!(submit_with(&client, token).await, 200);
        }
    }
}

/// S-83: neither the URL nor a cookie counts.
#[tokio::test]
async fn a_token_counts_in_a_form_field_or_a_header_alone() {
    let client = server().client();
    let token = token(&client).await;
    let sent = async |path: &str, change: &dyn Fn(&mut Request<Body>)| {
        let mut request = client.request(path);
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        *request.body_mut() = Body::from("name=Ada");
        change(&mut request);
        client.send(request).await.status
    };
    let header = |name: &'static str| {
        let token = HeaderValue::try_from(&token).unwrap();
        move |request: &mut Request<Body>| {
            request.headers_mut().insert(name, token.clone());
        }
    };
    for path in ["/form", "/script"] {
        assert_eq!(sent(path, &header("x-csrf-token")).await, 200);
        assert_eq!(sent(path, &header("x-other")).await, 403);
        assert_eq!(sent(path, &|_| ()).await, 403);
        let in_query = |request: &mut Request<Body>| {
            let uri = format!("{path}?csrf_token={token}&x-csrf-token={token}");
            *request.uri_mut() = uri.parse().unwrap();
        };
        assert_eq!(sent(path, &in_query).await, 403);
        let in_cookie = |request: &mut Request<Body>| {
            let cookie = request.headers()[COOKIE].to_str().unwrap();
            let cookie = format!("{cookie}; csrf_token={token}; x-csrf-token={token}");
            let cookie = HeaderValue::try_from(cookie).unwrap();
            request.headers_mut().insert(COOKIE, cookie);
        };
        assert_eq!(sent(path, &in_cookie).await, 403);
    }
    // A wrong header is not mended by a right field.
    let both = |request: &mut Request<Body>| {
        let wrong = HeaderValue::from_static("wrong");
        request.headers_mut().insert("x-csrf-token", wrong);
        *request.body_mut() = Body::from(format!("name=Ada&csrf_token={token}"));
    };
    assert_eq!(sent("/form", &both).await, 403);
}

/// S-40, S-39, S-83: with the sign-in, the first as any later one, and with the sign-out.
#[tokio::test]
async fn a_token_does_not_outlive_a_sign_in_or_a_sign_out() {
    for path in ["/login", "/login-fails", "/logout"] {
        let client = server().client();
        for _ in 0..2 {
            let before = token(&client).await;
            assert_eq!(submit_with(&client, &before).await, 200);
            client.get(path).await;
            assert_eq!(submit_with(&client, &before).await, 403, "{path}");
            let after = token(&client).await;
            assert_eq!(submit_with(&client, &before).await, 403, "{path}");
            assert_eq!(submit_with(&client, &after).await, 200, "{path}");
        }
    }
}

/// S-40: a page of after the sign-in in the very response that signs in.
#[tokio::test]
async fn a_token_made_after_the_sign_in_of_its_request_holds_and_one_made_before_does_not() {
    let client = Server::new().visitor().await;
    let (before, after, seen) = client
        .look(|s| {
            let before = s.csrf_token().unwrap().to_string();
            s.sign_in("ada").unwrap();
            let seen = s.verify_csrf(&before).unwrap_err();
            (before, s.csrf_token().unwrap().to_string(), seen)
        })
        .await;
    assert!(seen.is_csrf());
    client
        .look(move |s| {
            s.verify_csrf(&after).unwrap();
            assert!(s.verify_csrf(&before).unwrap_err().is_csrf());
        })
        .await;
}

/// S-40: a parallel request stores the secret of before the sign-in while that is under way.
#[tokio::test]
async fn a_secret_that_a_parallel_request_stores_does_not_survive_the_sign_in() {
    for fails in [false, true] {
        let client = Server::new().visitor().await;
        let elsewhere = client.twin_at(&client.server.beside(|b| b));
        let (put, get) = std::sync::mpsc::channel();
        let seen = client.run(async move |s: Session| {
            s.sign_in("ada")?;
            let token = elsewhere
                .look(|s| s.csrf_token().unwrap().to_string())
                .await;
            put.send(token).unwrap();
            Ok::<_, Error>(if fails {
                StatusCode::INTERNAL_SERVER_ERROR
            } else {
                StatusCode::OK
            })
        });
        assert_eq!(seen.await.told(), Told::Cookie);
        let before = get.recv().unwrap();
        client
            .look(move |s| {
                assert_eq!(s.owner().as_deref(), Some("ada"));
                assert!(s.verify_csrf(&before).unwrap_err().is_csrf());
                s.csrf_token().unwrap();
                assert!(s.verify_csrf(&before).unwrap_err().is_csrf());
            })
            .await;
    }
}

/// Pages of one session that are made at once, by two processes: the tokens of all verify.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_first_pages_of_one_session_all_have_good_tokens() {
    for _ in 0..20 {
        let client = Server::new().visitor().await;
        let processes = [client.clone(), client.twin_at(&client.server.beside(|b| b))];
        let made = Arc::new(Barrier::new(8));
        let pages: Vec<_> = (0..8)
            .map(|i| {
                let (made, client) = (Arc::clone(&made), processes[i % 2].clone());
                tokio::spawn(async move {
                    let page = async move |s: Session| {
                        let token = s.csrf_token()?.to_string();
                        made.wait().await;
                        Ok::<_, Error>(token)
                    };
                    client.run(page).await.ok().text().to_owned()
                })
            })
            .collect();
        for page in pages {
            let token = page.await.unwrap();
            client.look(move |s| s.verify_csrf(&token).unwrap()).await;
        }
    }
}

/// The secret is stored with the session, so renewals of both kinds leave it alone.
#[tokio::test]
async fn a_token_outlives_a_renewal() {
    let minute = Duration::from_secs(60);
    let client = Server::with(|b| b.renew_every(minute)).visitor().await;
    let token = client.look(|s| s.csrf_token().unwrap()).await;
    for _ in 0..3 {
        client.server.clock.advance(minute);
        let sent = token.clone();
        let seen = client.act(move |s| s.verify_csrf(sent.as_str()).and(s.renew()));
        assert_eq!(seen.await.ok().told(), Told::Cookie);
    }
}

/// One write for the first page of a session, none after it.
#[tokio::test]
async fn only_the_first_token_is_written() {
    let client = server().client();
    let get = async || client.get("/token").await.ok();
    let first = get().await;
    assert_eq!((&*first.calls, first.told()), ("create", Told::Cookie));
    assert_eq!(get().await.calls, "load");
    let lost = client.server.client();
    let refused: Seen = lost.get("/script").await;
    assert_eq!(
        (refused.status, &*refused.calls),
        (StatusCode::FORBIDDEN, "")
    );
    assert!(refused.error().is_csrf());
}

#[tokio::test]
async fn a_form_is_refused_as_axum_refuses_it() {
    let client = server().client();
    let token = token(&client).await;
    assert_eq!(submit(&client, format!("csrf_token={token}")).await, 422);
    let long = format!("csrf_token={token}&name={}", "x".repeat(1_000));
    assert_eq!(submit(&client, long).await, 413);
    for content_type in ["text/plain", "application/json", ""] {
        let mut request = client.request("/form");
        let content_type = HeaderValue::from_static(content_type);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        *request.body_mut() = Body::from(format!("name=Ada&csrf_token={token}"));
        assert_eq!(client.send(request).await.status, 415);
    }
    let mut request = client.request("/form");
    let charset = HeaderValue::from_static("Application/X-WWW-Form-URLencoded; charset=utf-8");
    request.headers_mut().insert(CONTENT_TYPE, charset);
    *request.body_mut() = Body::from(format!("name=Ad%61&csrf_token={token}"));
    assert_eq!(client.send(request).await.status, 200);
    let mut request = client.request("/name");
    *request.method_mut() = http::Method::GET;
    assert_eq!(client.send(request).await.text(), "Ada");
}

/// The form of a button, and one that must have no field but those wanted.
#[tokio::test]
async fn the_token_is_no_field_of_the_form_that_is_wanted() {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        name: String,
    }

    let routes = Router::new()
        .route("/token", any(async |token: CsrfToken| token.to_string()))
        .route("/button", post(async |_: CsrfForm<()>| "pressed"))
        .route("/strict", post(async |form: CsrfForm<Strict>| form.0.name));
    let client = routed(routes, |b| b).client();
    let token = token(&client).await;
    let send = async |path: &str, body: String| {
        let mut request = client.request(path);
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        *request.body_mut() = Body::from(body);
        let seen = client.send(request).await;
        (seen.status.as_u16(), seen.text().to_owned())
    };
    let pressed = (200, "pressed".to_owned());
    assert_eq!(
        send("/button", format!("csrf_token={token}")).await,
        pressed
    );
    assert_eq!(send("/button", String::new()).await.0, 403);
    for body in [
        format!("name=A%26da&csrf_token={token}"),
        format!("csrf_token={token}&name=A%26da"),
        format!("csrf%5Ftoken={token}&name=A%26da&csrf_token=another"),
    ] {
        assert_eq!(send("/strict", body).await, (200, "A&da".to_owned()));
    }
    let other = format!("name=Ada&other=1&csrf_token={token}");
    assert_eq!(send("/strict", other).await.0, 422);
    let wrong_first = format!("csrf_token=another&name=Ada&csrf_token={token}");
    assert_eq!(send("/strict", wrong_first).await.0, 403);
}

/// S-83, S-10: the application neither sees the crate's own keys nor sets them.
#[tokio::test]
async fn reserved_keys_are_the_crates_own() {
    let client = Server::new().client();
    client
        .act(|s| s.csrf_token().map(|token| token.to_string()))
        .await
        .ok();
    client
        .look(|s| {
            assert_eq!((s.len(), s.is_empty(), s.keys()), (0, true, Vec::new()));
            for key in ["cloakroom.csrf", "cloakroom.", "cloakroom.mine"] {
                assert!(!s.contains(key));
                assert!(s.get::<String>(key).unwrap_err().is_invalid());
                assert!(s.take::<String>(key).unwrap_err().is_invalid());
                assert!(s.insert(key, 1).unwrap_err().is_invalid());
                assert!(
                    s.update(key, |n: &mut u8| *n += 1)
                        .unwrap_err()
                        .is_invalid()
                );
                assert!(s.remove(key).unwrap_err().is_invalid());
            }
            s.insert("cloakroom", 1).unwrap();
            assert_eq!(s.keys(), ["cloakroom"]);
        })
        .await;
    client.act(|s| s.sign_in("ada")).await.ok();
    client.act(|s| s.csrf_token().map(drop)).await.ok();
    let list = client.server.sessions.list("ada").await.unwrap();
    assert_eq!(list[0].get::<String>("cloakroom.csrf").unwrap(), None);
}

/// S-03: no weak token if the operating system gives no random bytes.
#[tokio::test]
async fn without_random_bytes_there_is_no_token() {
    let fill = |_: &mut [u8]| Err(std::io::Error::other("none"));
    let server = Server::new();
    let settings = SessionLayer::builder(server.store.clone()).entropy(fill);
    let client = server.under(settings).client();
    let seen = client
        .act(|s| s.csrf_token().map(|token| token.to_string()))
        .await;
    assert!(seen.error().is_random());
    assert_eq!(server.memory.len(), 0);
}

/// S-03, S-83: a page never shows the secret without its mask.
#[tokio::test]
async fn without_random_bytes_there_is_no_token_of_a_secret_either() {
    let fill = |_: &mut [u8]| Err(std::io::Error::other("none"));
    let client = Server::new().visitor().await;
    let settings = SessionLayer::builder(client.server.store.clone()).entropy(fill);
    let client = client.twin_at(&client.server.under(settings));
    let seen = client
        .act(|s| s.csrf_token().map(|token| token.to_string()))
        .await;
    assert!(seen.error().is_random());
}

/// `clear` drops the token for good: the next one is not derived from the client's token again.
#[tokio::test]
async fn the_token_of_before_a_clear_is_refused_after_it() {
    let clears: [fn(&Session) -> cloakroom::Result<()>; 2] = [Session::clear, |s| {
        s.clear().and_then(|()| s.csrf_token().map(drop))
    }];
    for clear in clears {
        let client = Server::new().visitor().await;
        let token = || client.look(|s| s.csrf_token().unwrap().to_string());
        let old = token().await;
        client.act(clear).await.ok();
        let new = token().await;
        let verify = |sent: String| client.look(move |s| s.verify_csrf(&sent).is_ok());
        assert!(!verify(old).await);
        assert!(verify(new).await);
    }
}

/// A refusal is in the log, and what it is about.
#[tokio::test]
async fn a_refusal_says_whether_there_was_a_session() {
    let server = server();
    let stranger = server.client();
    let client = server.client();
    let token = client.get("/token").await.ok().text().to_owned();
    let post = |client: &Client, header: Option<String>| {
        let mut request = client.request("/script");
        if let Some(header) = header {
            let header = HeaderValue::try_from(header).unwrap();
            request.headers_mut().insert(CsrfToken::HEADER, header);
        }
        request
    };
    let log = Log::capture();
    for (client, header, expected) in [
        (&stranger, Some(token), "it has no session"),
        (&stranger, None, "it has no session"),
        (
            &client,
            Some("A".repeat(64)),
            "it has no token of its session",
        ),
        (&client, None, "it has no token of its session"),
    ] {
        let seen = client.send(post(client, header)).await;
        assert_eq!(seen.status, StatusCode::FORBIDDEN);
        let log = log.take();
        assert_eq!(log.matches("csrf_refused").count(), 1, "{log}");
        assert!(log.contains(expected), "{log}");
    }
}
