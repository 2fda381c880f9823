//! Who is signed in: the extractors and guards, how fresh it is, what counts as use, and sign-out.

use std::time::{Duration, SystemTime};

use axum::Router;
use axum::middleware::map_response;
use axum::response::IntoResponse;
use axum::routing::{any, get};
use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{
    ClearSiteData, Error, FreshlySignedIn, LazySession, MemoryStore, NoTouch, RequireSignedIn,
    Session, SessionLayer, SignedIn,
};
use http::header::{ACCEPT, AUTHORIZATION, LOCATION, VARY, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use tower::{ServiceBuilder, ServiceExt as _};

use crate::extractors::routed;
use crate::support::{Client, Seen, Server, Settings, Slow, Told};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const MILLI: Duration = Duration::from_millis(1);

fn routes() -> Router {
    Router::new()
        .route(
            "/fresh",
            any(async |user: FreshlySignedIn<300>| user.owner().to_owned()),
        )
        .route("/who", any(async |user: SignedIn| user.owner().to_owned()))
        .route(
            "/perhaps",
            any(async |user: Option<SignedIn>| {
                user.map_or("nobody".to_owned(), |user| user.owner().to_owned())
            }),
        )
        .route("/layer", any(async || "in").layer(RequireSignedIn::new()))
        .route(
            "/layer/fresh",
            any(async || "in").layer(RequireSignedIn::new().within(5 * MINUTE)),
        )
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route("/act", any(async || StatusCode::NOT_FOUND))
}

fn server(settings: impl FnOnce(Settings) -> Settings) -> Server {
    routed(routes(), settings)
}

/// A browser's request for a page.
async fn visit(client: &Client, uri: &str) -> Seen {
    let mut request = client.request("/");
    *request.uri_mut() = uri.parse().unwrap();
    *request.method_mut() = Method::GET;
    let html = HeaderValue::from_static("text/html,application/xhtml+xml,*/*;q=0.8");
    request.headers_mut().insert(ACCEPT, html);
    client.send(request).await
}

#[tokio::test]
async fn somebody_who_is_not_signed_in_is_told_so() {
    let server = server(|b| b);
    let client = server.client();
    for path in ["/who", "/fresh", "/layer", "/layer/fresh"] {
        let seen = client.get(path).await;
        assert_eq!(seen.status, 401, "{path}");
        assert_eq!(seen.headers[WWW_AUTHENTICATE], "Session");
        assert_eq!(seen.told(), Told::Vary);
        assert!(seen.error().is_sign_in_needed());
        // Without a page to sign in at, a browser gets the same.
        assert_eq!(visit(&client, path).await.status, 401);
    }
    assert_eq!(client.get("/perhaps").await.ok().text(), "nobody");
    client.get("/login").await.ok();
    for (path, text) in [
        ("/who", "ada"),
        ("/perhaps", "ada"),
        ("/fresh", "ada"),
        ("/layer", "in"),
        ("/layer/fresh", "in"),
    ] {
        let seen = client.get(path).await.ok();
        assert_eq!((seen.text(), &*seen.calls), (text, "load"), "{path}");
    }
}

/// S-73: a step-up signal for clients (RFC 9470).
#[tokio::test]
async fn a_sign_in_that_is_too_long_ago_asks_for_another() {
    let server = server(|b| b);
    let client = server.client();
    client.get("/login").await.ok();
    for path in ["/fresh", "/layer/fresh"] {
        server.clock.advance(5 * MINUTE);
        client.get(path).await.ok();
        server.clock.advance(MILLI);
        let seen = client.get(path).await;
        assert_eq!(seen.status, 401);
        assert!(seen.error().is_step_up_needed());
        let challenge = seen.headers[WWW_AUTHENTICATE].to_str().unwrap();
        assert!(challenge.contains(r#"error="insufficient_user_authentication""#));
        assert!(challenge.contains(r#"max_age="300""#), "{challenge}");
        // The rest stays open to them.
        client.get("/who").await.ok();
        client.get("/layer").await.ok();
        client.get("/login").await.ok();
        client.get(path).await.ok();
    }
}

/// S-80: with a page to sign in at, what a cache may give to whom depends on what they accept.
#[tokio::test]
async fn a_refusal_that_could_have_been_a_page_says_so_to_caches() {
    let plain = server(|b| b);
    let paged = server(|b| b.sign_in_page("/login"));
    let in_languages = async |mut response: axum::response::Response| {
        let vary = HeaderValue::from_static("Accept-Language");
        response.headers_mut().append(VARY, vary);
        response
    };
    let translated = routed(routes().layer(map_response(in_languages)), |b| {
        b.sign_in_page("/login")
    });
    for path in ["/who", "/fresh", "/layer", "/layer/fresh"] {
        for (server, expected) in [
            (&plain, &["Cookie"][..]),
            (&paged, &["Accept", "Cookie"]),
            (&translated, &["Accept-Language", "Accept", "Cookie"]),
        ] {
            let seen = server.client().get(path).await;
            assert_eq!(seen.status, 401);
            let vary: Vec<_> = seen.headers.get_all(VARY).iter().collect();
            assert_eq!(vary, expected, "{path}");
        }
    }
}

/// RFC 6750 section 3.
#[tokio::test]
async fn clients_that_send_their_token_as_bearer_are_asked_for_that() {
    let server = server(Settings::bearer);
    for path in ["/who", "/layer"] {
        let seen = server.client().get(path).await;
        assert_eq!(seen.headers[WWW_AUTHENTICATE], r#"Bearer realm="session""#);
    }
    let token = server.client().get("/login").await.ok().headers["session-token"].clone();
    server.clock.advance(6 * MINUTE);
    for path in ["/fresh", "/layer/fresh"] {
        let mut request = server.client().request(path);
        let value = format!("Bearer {}", token.to_str().unwrap());
        let value = HeaderValue::try_from(value).unwrap();
        request.headers_mut().insert(AUTHORIZATION, value);
        let seen = server.client().send(request).await;
        let challenge = seen.headers[WWW_AUTHENTICATE].to_str().unwrap();
        let step_up = r#"Bearer error="insufficient_user_authentication", "#;
        assert!(challenge.starts_with(step_up), "{challenge}");
    }
}

/// S-73: pages lead to where they sign in, and back.
#[tokio::test]
async fn somebody_who_looks_at_a_page_is_sent_to_sign_in() {
    let client = server(|b| b.sign_in_page("/login").step_up_page("/confirm?a=1")).client();
    let location = async |uri: &str| {
        let seen = visit(&client, uri).await;
        assert_eq!((seen.status, seen.body.len()), (StatusCode::SEE_OTHER, 0));
        let vary: Vec<_> = seen.headers.get_all(VARY).iter().collect();
        assert_eq!(vary, ["Accept", "Cookie"]);
        seen.headers[LOCATION].to_str().unwrap().to_owned()
    };
    for path in ["/who", "/fresh", "/layer", "/layer/fresh"] {
        let uri = format!("{path}?tab=2");
        let expected = format!("/login?next={path}%3Ftab%3D2");
        assert_eq!(location(&uri).await, expected);
        // Scripts and forms.
        assert_eq!(client.get(path).await.status, 401);
    }
    client.get("/login").await.ok();
    client.server.clock.advance(6 * MINUTE);
    for path in ["/fresh", "/layer/fresh"] {
        let expected = format!("/confirm?a=1&next={path}");
        assert_eq!(location(path).await, expected);
    }
    visit(&client, "/layer").await.ok();
}

/// An address that leads elsewhere is not carried along.
#[tokio::test]
async fn a_path_that_browsers_read_as_another_host_is_not_come_back_to() {
    let routes = Router::new().fallback(async |_: SignedIn| "in");
    let client = routed(routes, |b| b.sign_in_page("/login")).client();
    let mut request = client.request("/");
    *request.uri_mut() = http::Uri::builder()
        .path_and_query("//evil.example/x")
        .build()
        .unwrap();
    *request.method_mut() = Method::GET;
    let html = HeaderValue::from_static("text/html");
    request.headers_mut().insert(ACCEPT, html);
    let seen = client.send(request).await;
    assert_eq!(seen.headers[LOCATION], "/login");
}

/// Under a nested router the whole path is come back to.
#[tokio::test]
async fn a_nested_page_is_come_back_to_by_its_whole_path() {
    let routes = Router::new().nest("/a", routes());
    let client = routed(routes, |b| b.sign_in_page("/login")).client();
    for path in ["/a/who", "/a/layer"] {
        let seen = visit(&client, path).await;
        assert_eq!(seen.headers[LOCATION], format!("/login?next={path}"));
    }
}

/// The application's error response takes the place of a 401, and not of a redirect.
#[tokio::test]
async fn the_error_response_styles_refusals() {
    fn sorry(error: &Error) -> axum::response::Response {
        (error.status(), "styled").into_response()
    }
    let server = Server::new();
    let layer = SessionLayer::builder(server.store.clone())
        .sign_in_page("/login")
        .error_response(sorry)
        .build()
        .unwrap();
    let server = Server {
        router: routes().layer(layer),
        ..server
    };
    for path in ["/who", "/layer"] {
        let seen = server.client().get(path).await;
        assert_eq!(
            (seen.status, seen.text()),
            (StatusCode::UNAUTHORIZED, "styled")
        );
        assert_eq!(visit(&server.client(), path).await.status, 303);
    }
}

/// S-71: a guard that cannot see the session lets nobody through.
#[tokio::test]
async fn a_store_that_is_down_lets_nobody_through() {
    let server = server(|b| b.sign_in_page("/login"));
    let client = server.client();
    client.get("/login").await.ok();
    server.store.always(Operation::Load, Fault::Fail);
    for path in ["/who", "/perhaps", "/fresh", "/layer", "/layer/fresh"] {
        assert_eq!(client.get(path).await.status, 503, "{path}");
        assert_eq!(visit(&client, path).await.status, 503, "{path}");
    }
}

/// In plain Tower, and with the layers in the wrong order.
#[tokio::test]
async fn the_guard_works_for_any_tower_service() {
    async fn hello(request: Request<String>) -> Result<Response<String>, std::convert::Infallible> {
        let user = request.extensions().get::<SignedIn>().unwrap();
        Ok(Response::new(format!("{user:?}")))
    }
    let layer = SessionLayer::new(MemoryStore::new());
    let login =
        ServiceBuilder::new()
            .layer(layer.clone())
            .service_fn(async |request: Request<String>| {
                let lazy = request.extensions().get::<LazySession>().unwrap();
                lazy.load().await?.sign_in("ada")?;
                Ok::<_, Error>(Response::new(String::new()))
            });
    let signed_in = login.oneshot(Request::default()).await.unwrap();
    let cookie = signed_in.headers()["set-cookie"].clone();
    let guarded = ServiceBuilder::new()
        .layer(layer.clone())
        .layer(RequireSignedIn::new())
        .service_fn(hello);
    let refused = guarded.clone().oneshot(Request::default()).await.unwrap();
    assert_eq!(refused.status(), 401);
    let request = Request::get("/")
        .header("cookie", cookie)
        .body(String::new());
    let response = guarded.oneshot(request.unwrap()).await.unwrap();
    assert!(response.body().starts_with(r#"SignedIn { owner: "ada""#));

    let outside = ServiceBuilder::new()
        .layer(RequireSignedIn::new())
        .layer(layer)
        .service_fn(hello);
    let response = outside.oneshot(Request::default()).await.unwrap();
    assert_eq!(response.status(), 500);
    let axum = Router::new().route("/", get(async |_: SignedIn| ()));
    let request = Request::get("/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(axum.oneshot(request).await.unwrap().status(), 500);
}

/// S-73: the time of authentication, by the server's clock.
#[tokio::test]
async fn freshness_is_counted_from_the_last_sign_in() {
    let client = Server::new().visitor().await;
    let clock = client.server.clock.clone();
    let fresh = async |time: Duration| client.look(move |s| s.authenticated_within(time)).await;
    assert!(!fresh(Duration::MAX).await, "nobody is signed in");
    client.get("/login").await.ok();
    let at = clock.now();
    clock.advance(MINUTE);
    assert!(fresh(MINUTE).await);
    assert!(!fresh(MINUTE - MILLI).await);
    client
        .look(move |s| {
            let user = SignedIn::of(s).unwrap();
            assert_eq!(user.owner(), "ada");
            assert_eq!(user.authenticated_at(), SystemTime::from(at));
            assert_eq!(user.session().id(), s.id());
            // Re-authentication counts at once.
            s.sign_in("ada").unwrap();
            assert!(s.authenticated_within(MILLI));
        })
        .await;
    // Neither use nor a renewal is a sign-in.
    clock.advance(MINUTE);
    client.act(Session::renew).await.ok();
    assert!(!fresh(MINUTE - MILLI).await);
}

/// S-49, S-73: a clock that is set back makes no sign-in fresh again.
#[tokio::test]
async fn a_clock_that_is_set_back_does_not_refresh_a_sign_in() {
    let client = Server::new().visitor().await;
    let clock = client.server.clock.clone();
    client.get("/login").await.ok();
    clock.advance(30 * MINUTE);
    client.get("/read").await.ok();
    clock.go_back(30 * MINUTE);
    let fresh = client.look(|s| s.authenticated_within(5 * MINUTE)).await;
    assert!(!fresh);
}

/// S-49, S-73.
#[tokio::test]
async fn a_sign_in_in_the_future_is_not_fresh() {
    let client = Server::new().visitor().await;
    client.get("/login").await.ok();
    client.server.clock.go_back(10 * MINUTE);
    client.get("/write").await.ok();
    let fresh = client.look(|s| s.authenticated_within(5 * MINUTE)).await;
    assert!(!fresh);
}

/// S-38: role, password, acting for somebody else: the pattern that the docs of `renew` give.
#[tokio::test]
async fn a_change_of_what_the_session_may_do_renews_its_token() {
    type Change = fn(Session) -> cloakroom::Result<()>;
    let changes: [(&str, Change); 4] = [
        ("role", |s| s.insert("role", "admin").and(s.renew())),
        ("acting for somebody", |s| {
            s.insert("acting_for", "grace").and(s.renew())
        }),
        ("acting ends", |s| s.remove("acting_for").and(s.renew())),
        ("password", |s| s.renew()),
    ];
    let client = Server::new().client();
    client.get("/login").await.ok();
    for (what, change) in changes {
        let before = client.twin();
        let seen = client.run(async move |s: Session| change(s)).await.ok();
        assert_eq!(seen.told(), Told::Cookie, "{what}");
        assert_ne!(client.the_token(), before.the_token(), "{what}");
        assert!(!before.is_known().await, "{what}: the old token is dead");
        assert_eq!(client.owner().await.as_deref(), Some("ada"));
    }
    // A password change that ends the other sessions as well.
    let (other, before) = (client.server.client(), client.twin());
    other.get("/login").await.ok();
    let sessions = client.server.sessions.clone();
    let seen = client.run(async move |s: Session| sessions.revoke_others(&s).await.map(drop));
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert!(!before.is_known().await && !other.is_known().await);
    assert_eq!(client.owner().await.as_deref(), Some("ada"));
}

/// Routes `/poll`, `/poll/write`, `/poll/login` that do not count, and the usual `/use`.
fn polled(settings: impl FnOnce(Settings) -> Settings) -> Server {
    let routes = Router::new()
        .route("/poll", any(async |_: Session| ()))
        .route(
            "/poll/lazy",
            any(async |lazy: LazySession| lazy.load().await.map(drop)),
        )
        .route(
            "/poll/write",
            any(async |s: Session| s.update("n", |n: &mut u64| *n += 1)),
        )
        .route("/poll/login", any(async |s: Session| s.sign_in("ada")))
        .route(
            "/poll/remember",
            any(async |s: Session| s.remember(5 * HOUR)),
        )
        .route_layer(NoTouch)
        .route("/use", any(async |s: Session| s.insert("a", 1)))
        .route(
            "/handler",
            any(async |s: Session| {
                s.no_touch();
                s.update("n", |n: &mut u64| *n += 1)
            }),
        )
        .route(
            "/known",
            any(async |s: Option<Session>| s.is_some().to_string()),
        )
        .route(
            "/known/quietly",
            any(async |s: Option<Session>| s.is_some().to_string()).layer(NoTouch),
        );
    routed(routes, settings)
}

/// S-50.
#[tokio::test]
async fn polling_does_not_keep_a_session_alive() {
    for path in ["/poll", "/poll/lazy", "/poll/write", "/handler"] {
        for persistent in [false, true] {
            let server = polled(|b| b.persistent(persistent));
            let client = server.client();
            client.get("/use").await.ok();
            let end = client.record().await.unwrap().expires;
            let replay = client.twin();
            for _ in 0..59 {
                server.clock.advance(MINUTE);
                let seen = replay.get(path).await.ok();
                assert_eq!(seen.told(), Told::Vary, "{path}");
                assert!(!seen.calls.contains("touch"));
                assert_eq!(client.record().await.unwrap().expires, end);
            }
            server.clock.advance(MINUTE - MILLI);
            assert_eq!(replay.get("/known/quietly").await.text(), "true");
            server.clock.advance(MILLI);
            assert_eq!(replay.get("/known").await.text(), "false", "{path}");
        }
    }
}

/// S-50: what they change is stored, and other requests count as ever.
#[tokio::test]
async fn a_poll_stores_what_it_changes_beside_requests_that_count() {
    let server = polled(|b| b);
    let client = server.client();
    // It can also be what makes the session.
    assert_eq!(client.get("/poll/write").await.ok().told(), Told::Cookie);
    for _ in 0..10 {
        server.clock.advance(30 * MINUTE);
        client.get("/poll/write").await.ok();
        client.get("/use").await.ok();
    }
    let record = client.record().await.unwrap();
    assert_eq!(&*record.data, br#"{"a":1,"n":11}"#);
    assert_eq!(record.expires, server.clock.now().saturating_add(HOUR));
}

/// S-50: a sign-in is somebody at work, wherever it comes from; and a renewal in between is none.
#[tokio::test]
async fn a_poll_moves_the_end_only_where_it_must() {
    let server = polled(|b| b.renew_every(20 * MINUTE));
    let client = server.client();
    client.get("/use").await.ok();
    let end = client.record().await.unwrap().expires;
    server.clock.advance(30 * MINUTE);
    assert_eq!(
        client.get("/poll").await.ok().told(),
        Told::Cookie,
        "renewed"
    );
    assert_eq!(client.record().await.unwrap().expires, end);
    client.get("/poll/login").await.ok();
    let record = client.record().await.unwrap();
    assert_eq!(record.expires, server.clock.now().saturating_add(HOUR));
    assert_eq!(record.seen, server.clock.now());
    client.get("/poll/remember").await.ok();
    let record = client.record().await.unwrap();
    assert_eq!(record.expires, server.clock.now().saturating_add(5 * HOUR));
}

/// What a poll does that has begun and not ended.
async fn slow_poll(client: &Client) -> Slow {
    let work = |s: &Session| {
        s.no_touch();
        s.update("n", |n: &mut u64| *n += 1)
    };
    Slow::start(client, work).await
}

/// S-50: nor does a poll undo what somebody at work does meanwhile.
#[tokio::test]
async fn a_poll_does_not_undo_a_use_of_the_session_while_it_was_under_way() {
    let server = Server::new();
    for elsewhere in [server.clone(), server.beside(|b| b)] {
        let client = server.visitor().await;
        let end = client.record().await.unwrap().expires;
        let poll = slow_poll(&client.twin_at(&elsewhere)).await;
        server.clock.advance(30 * MINUTE);
        assert_eq!(client.get("/read").await.ok().calls, "load touch");
        let touched = client.record().await.unwrap();
        server.clock.advance(MINUTE);
        poll.finish().await.ok();
        let record = client.record().await.unwrap();
        assert_eq!(
            (record.seen, record.expires),
            (touched.seen, touched.expires)
        );
        server.clock.set(end);
        assert_eq!(client.value("n").await, Some(2));
    }
}

/// The same for what waits in line behind the poll, which hands on a record that has ended.
#[tokio::test]
async fn a_poll_does_not_end_the_session_for_who_comes_after_it() {
    let server = Server::new();
    let client = server.visitor().await;
    let end = client.record().await.unwrap().expires;
    let poll = slow_poll(&client.twin()).await;
    server.clock.advance(30 * MINUTE);
    client.get("/read").await.ok();
    server.clock.set(end);
    let pause = Pause::new();
    server.store.reset_counts();
    server
        .store
        .inject(Operation::Update, 1, Fault::Pause(pause.clone()));
    let poll = tokio::spawn(poll.finish());
    pause.reached().await;
    let (seen, ()) = tokio::join!(client.get("/write"), async { pause.release() });
    seen.ok();
    poll.await.unwrap().ok();
    assert_eq!(
        server.store.calls(Operation::Update),
        3,
        "one meets a conflict"
    );
    assert_eq!(client.value("n").await, Some(3));
}

/// S-54.
#[tokio::test]
async fn a_sign_out_may_clear_what_the_site_left_in_the_browser() {
    let routes = Router::new()
        .route("/login", any(async |s: Session| s.sign_in("ada")))
        .route("/plain", any(async |s: Session| s.destroy()))
        .route(
            "/clear",
            any(async |s: Session| s.destroy().map(|()| ClearSiteData::new())),
        )
        .route(
            "/cache",
            any(async |s: Session| {
                s.destroy()
                    .map(|()| (ClearSiteData::new().cache(true), "bye"))
            }),
        );
    let server = routed(routes, |b| b);
    for (path, value) in [
        ("/plain", None),
        ("/clear", Some("\"cookies\", \"storage\"")),
        ("/cache", Some("\"cache\", \"cookies\", \"storage\"")),
    ] {
        let client = server.client();
        let seen = client.get("/login").await.ok();
        assert!(!seen.headers.contains_key("clear-site-data"));
        let seen = client.get(path).await.ok();
        assert_eq!(seen.told(), Told::Removal);
        let header = seen.headers.get("clear-site-data");
        assert_eq!(header.map(|value| value.to_str().unwrap()), value);
    }
    assert_eq!(server.memory.len(), 0);
}

/// Layers and extractors share one load.
#[tokio::test]
async fn a_guard_asks_once_for_all_that_use_the_session() {
    let routes = Router::new()
        .route(
            "/",
            any(
                async |user: SignedIn, s: Session, again: Option<SignedIn>| {
                    assert_eq!(again.unwrap().owner(), user.owner());
                    s.update("n", |n: &mut u64| *n += 1)
                },
            ),
        )
        .route_layer(RequireSignedIn::new().within(SECOND))
        .route_layer(RequireSignedIn::new())
        .route("/login", any(async |s: Session| s.sign_in("ada")));
    let client = routed(routes, |b| b).client();
    client.get("/login").await.ok();
    assert_eq!(client.get("/").await.ok().calls, "load update");
}
