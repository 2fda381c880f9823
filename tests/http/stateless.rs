//! Sessions without a store, whole in their clients' cookies.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use cloakroom::{ConfigError, KeyRing, Session, SessionLayer, SessionValue, Sessions, Typed};
use http::header::SET_COOKIE;
use http::{Request, StatusCode};
use serde::{Deserialize, Serialize};
use tower::ServiceExt as _;

use crate::support::{Client, Log, Server, Stateless, Told, bytes_of};

const KEY: &str = "Wq7Lx2Nf9Rb4Tz6Kd1Vh8Yc3Mj5Ps0Ga";
const OTHER: &str = "k3Vw8ZrT1nXq6JmB0yHs5LcD9fGpQa2E";
const MINUTE: Duration = Duration::from_secs(60);

fn ring() -> KeyRing {
    KeyRing::new(KEY).unwrap()
}

fn server() -> Server {
    Server::stateless(ring(), |settings| settings)
}

fn with(settings: impl FnOnce(Stateless) -> Stateless) -> Server {
    Server::stateless(ring(), settings)
}

async fn anonymous(client: &Client) -> bool {
    client.get("/read").await.ok().text() == "anonymous"
}

/// The same moment for two servers.
fn same_time(one: &Server, other: &Server) {
    other.clock.set(one.clock.now());
}

#[tokio::test]
async fn a_session_lives_in_its_cookie() {
    let server = server();
    let client = server.client();
    assert_eq!(client.get("/").await.ok().told(), Told::Nothing);
    let seen = client.get("/read").await.ok();
    assert_eq!((seen.text(), seen.told()), ("anonymous", Told::Vary));

    // Whatever changes goes into the cookie, and nothing else does.
    let seen = client.get("/write").await.ok();
    assert_eq!(seen.told(), Told::Cookie);
    assert!(seen.headers[SET_COOKIE].is_sensitive());
    assert_eq!(client.get("/read").await.ok().told(), Told::Vary);
    assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    assert_eq!(client.get("/read").await.text(), "[null,2]");

    let (id, created) = client.look(|s| (s.id(), s.created_at())).await;
    assert!(id.is_some() && created.is_some());
    server.clock.advance(MINUTE);
    assert_eq!(client.get("/login").await.ok().told(), Told::Cookie);
    assert_eq!(client.get("/read").await.text(), r#"["ada",2]"#);
    let now = client.look(|s| (s.id(), s.created_at(), s.authenticated_at()));
    let authenticated = server.clock.now();
    assert_eq!(now.await, (id, created, Some(authenticated.into())));

    // Any process with the key reads it, which needs nothing else in common.
    let elsewhere = with(|settings| settings);
    same_time(&server, &elsewhere);
    let there = client.twin_at(&elsewhere);
    assert_eq!(there.get("/read").await.text(), r#"["ada",2]"#);

    assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
    assert_eq!(client.token(), None);
    assert!(anonymous(&client).await);
    assert_eq!(client.get("/logout").await.ok().told(), Told::Vary);
    for server in [server, elsewhere] {
        assert_eq!(server.store.total_calls(), 0);
    }
}

/// S-45, S-47: on the server, by the time inside, whatever the client keeps (CVE-2018-1000814).
#[tokio::test]
async fn a_session_ends_without_use() {
    let server = server();
    let client = server.visitor().await;
    server.clock.advance(60 * MINUTE - Duration::from_millis(1));
    assert!(!anonymous(&client.twin()).await);
    server.clock.advance(Duration::from_millis(1));
    assert!(anonymous(&client).await);
    assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    assert_eq!(client.value("n").await, Some(1), "another session");
}

/// S-46, S-43, S-51: use moves the end, by the tenth of the idle timeout, up to the absolute limit.
#[tokio::test]
async fn a_session_in_use_lives_to_the_absolute_limit() {
    let server = with(|settings| settings.anonymous_timeout(24 * 60 * MINUTE));
    let client = server.visitor().await;
    let mut sent = 0;
    for _ in 1..24 * 60 {
        server.clock.advance(MINUTE);
        let seen = client.get("/read").await.ok();
        assert_eq!(seen.text(), "[null,1]");
        sent += u32::from(seen.told() == Told::Cookie);
    }
    assert!((200..=240).contains(&sent), "{sent}");
    let replay = client.twin();
    server.clock.advance(MINUTE);
    assert!(anonymous(&client).await);
    assert!(anonymous(&replay).await);
}

/// S-49.
#[tokio::test]
async fn a_cookie_from_the_future_is_refused() {
    let server = server();
    server.clock.advance(100 * 60 * MINUTE);
    let client = server.visitor().await;
    server.clock.go_back(100 * 60 * MINUTE);
    assert!(anonymous(&client).await);
}

/// S-23, S-24.
#[tokio::test]
async fn a_remembered_session_has_a_cookie_with_an_age() {
    let day = 24 * 60 * MINUTE;
    let server = server();
    let client = server.client();
    let seen = client
        .act(move |s| s.sign_in("ada").and(s.remember(30 * day)))
        .await
        .ok();
    assert_eq!(seen.cookie().unwrap().max_age(), Some(30 * 86_400));
    server.clock.advance(10 * day);
    let seen = client.get("/read").await.ok();
    assert_eq!(seen.text(), r#"["ada",null]"#);
    server.clock.advance(20 * day - Duration::from_secs(1));
    assert!(!anonymous(&client.twin()).await);
    let seen = client.act(Session::forget).await.ok();
    assert_eq!(seen.told(), Told::Cookie);
    assert_eq!(seen.cookie().unwrap().max_age(), None);
    assert!(
        anonymous(&client).await,
        "the layer's own limit is long past"
    );

    let server = with(|settings| settings.persistent(true));
    let client = server.visitor().await;
    server.clock.advance(10 * MINUTE);
    let cookie = client.get("/read").await.ok().cookie().unwrap();
    assert_eq!(cookie.max_age(), Some(3600));
}

/// S-06, S-79: a cookie that was changed anywhere, cut, lengthened, or made with another key.
#[tokio::test]
async fn a_forged_cookie_is_no_session() {
    let server = server();
    let client = server.client();
    client.get("/login").await.ok();
    let value = client.the_token();
    let mut forged: Vec<String> = (0..value.len())
        .map(|at| {
            let other = if value[at..].starts_with('A') {
                "B"
            } else {
                "A"
            };
            [&value[..at], other, &value[at + 1..]].concat()
        })
        .collect();
    let stranger = Server::stateless(KeyRing::generate().unwrap(), |settings| settings);
    let with_store = server.beside(|settings| settings.encrypted(ring()));
    let plain = server.beside(|settings| settings);
    forged.extend([
        value[..value.len() - 4].into(),
        format!("{value}AAAA"),
        "A".repeat(value.len()),
        "A".repeat(4000),
        r#"{"owner":"ada"}"#.into(),
        String::new(),
        stranger.visitor().await.the_token(),
        // The same key, for tokens of sessions in a store.
        with_store.visitor().await.the_token(),
        plain.visitor().await.the_token(),
    ]);
    for value in forged {
        let seen = server.holding(&value).get("/read").await.ok();
        assert_eq!(
            (seen.text(), seen.told()),
            ("anonymous", Told::Vary),
            "{value}"
        );
    }
    assert_eq!(client.get("/read").await.text(), r#"["ada",null]"#);
    // And the other way round.
    for server in [with_store, plain] {
        let seen = server.holding(&value).get("/read").await.ok();
        assert_eq!((seen.text(), &*seen.calls), ("anonymous", ""));
    }
}

/// S-76.
#[tokio::test]
async fn a_session_holds_under_its_own_cookies_name() {
    let user = server();
    let admin = with(|settings| settings.cookie_name("__Host-admin"));
    let client = user.client();
    client.get("/login").await.ok();
    let moved = admin.client();
    moved.keep(&format!(
        "__Host-admin={}; Path=/; Secure",
        client.the_token()
    ));
    assert!(anonymous(&moved).await);
}

/// S-79.
#[tokio::test]
async fn keys_are_replaced_without_losing_sessions() {
    let old = Server::stateless(KeyRing::new(OTHER).unwrap(), |settings| settings);
    let both = Server::stateless(ring().accept(OTHER).unwrap(), |settings| settings);
    let new = server();
    same_time(&old, &both);
    same_time(&old, &new);
    let client = old.visitor().await;
    assert!(anonymous(&client.twin_at(&new)).await);
    let client = client.twin_at(&both);
    assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    assert!(anonymous(&client.twin_at(&old)).await);
    assert_eq!(client.twin_at(&new).get("/read").await.text(), "[null,2]");
}

/// S-22, S-70: name and value stay below the 4096 bytes that browsers keep, whatever is done.
#[tokio::test]
async fn what_does_not_fit_into_the_cookie_is_refused_at_once() {
    for len in [1, 9, 100, 255] {
        let name = "n".repeat(len);
        let server = with(|settings| settings.cookie_name(&name));
        let client = server.client();
        let seen = client
            .act(|session| {
                // The worst that goes in besides data.
                session.sign_in("o".repeat(255)).unwrap();
                session.remember(MINUTE).unwrap();
                let fits = |size: &usize| session.insert("a", "x".repeat(*size)).is_ok();
                let most = (0..4096).rev().find(fits).unwrap();
                let error = session.insert("b", 1).unwrap_err();
                assert!(error.is_too_large());
                assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
                assert_eq!(session.keys(), ["a"]);
                most.to_string()
            })
            .await
            .ok();
        let most: usize = seen.text().parse().unwrap();
        let cookie = seen.cookie().unwrap();
        let size = cookie.name.len() + cookie.token.len();
        assert!((4000..4096).contains(&size), "{size}");
        let kept = client
            .look(|s| s.get::<String>("a").unwrap().unwrap().len())
            .await;
        assert_eq!(kept, most);
    }
}

/// S-22.
#[test]
fn a_size_that_does_not_fit_into_the_cookie_is_refused() {
    let with = |size| SessionLayer::stateless(ring()).max_size(size).build();
    let Err(ConfigError::CookieRoom {
        size: 4096, room, ..
    }) = with(4096)
    else {
        panic!("4096 bytes of data fit nowhere");
    };
    assert!(room > 2500);
    assert!(with(room).is_ok());
    assert!(with(room + 1).is_err());
    assert_eq!(
        with(0).unwrap_err().to_string().find("`max_size(0)`"),
        Some(0)
    );
    let longest = SessionLayer::stateless(ring()).cookie_name("n".repeat(255));
    assert!(longest.max_size(room).build().is_err());
}

#[tokio::test]
async fn a_smaller_limit_counts() {
    let client = with(|settings| settings.max_size(20)).client();
    let refused = client
        .look(|s| s.insert("a", "more than fits").unwrap_err())
        .await;
    assert!(refused.is_too_large());
    client.act(|s| s.insert("a", "fits")).await.ok();
    assert!(client.is_known().await);
}

/// S-53, S-67: a response that fails takes its changes of values along, but not a sign-out.
#[tokio::test]
async fn a_failed_response_keeps_what_must_be_kept() {
    let client = server().visitor().await;
    let seen = client.get("/boom").await;
    assert_eq!((seen.status.as_u16(), seen.told()), (500, Told::Vary));
    assert_eq!(client.value("n").await, Some(1));
    let failing = client
        .act(|s| s.destroy().map(|()| StatusCode::INTERNAL_SERVER_ERROR))
        .await;
    assert_eq!(
        (failing.status.as_u16(), failing.told()),
        (500, Told::Removal)
    );
}

/// S-21: one cookie, with what came of it all.
#[tokio::test]
async fn what_was_saved_and_what_came_after_are_in_one_cookie() {
    let client = server().client();
    let seen = client
        .run(async |s: Session| {
            s.insert("a", 1)?;
            s.save().await?;
            s.insert("b", 2)?;
            s.save().await?;
            s.insert("c", 3)
        })
        .await
        .ok();
    assert_eq!(seen.told(), Told::Cookie);
    assert_eq!(client.look(Session::keys).await, ["a", "b", "c"]);
    // A save whose response then fails is sent all the same.
    let saved = async |s: Session| {
        s.insert("a", 10)?;
        s.save().await?;
        s.insert("b", 20)?;
        Ok::<_, cloakroom::Error>(StatusCode::BAD_GATEWAY)
    };
    assert_eq!(client.run(saved).await.told(), Told::Cookie);
    assert_eq!(
        (client.value("a").await, client.value("b").await),
        (Some(10), Some(2))
    );
}

#[tokio::test]
async fn destroy_then_insert_begins_another_session() {
    let client = server().visitor().await;
    let before = client.look(Session::id).await;
    let seen = client.act(|s| s.destroy().and(s.insert("a", 1))).await.ok();
    assert_eq!(seen.told(), Told::Cookie);
    assert_eq!(client.look(Session::keys).await, ["a"]);
    assert_ne!(client.look(Session::id).await, before);
}

/// What nobody could write later is an error, not silence.
#[tokio::test]
async fn a_session_cannot_be_reopened() {
    let client = server().visitor().await;
    let seen = client
        .run(async |s: Session| {
            let error = s.reopen().await.unwrap_err();
            assert!(error.is_invalid());
            error.to_string()
        })
        .await
        .ok();
    assert!(seen.text().contains("without a store"), "{}", seen.text());
}

/// S-40: what belongs to one owner is not another's.
#[tokio::test]
async fn the_values_of_another_owner_are_dropped() {
    let client = server().client();
    client
        .act(|s| s.sign_in("ada").and(s.insert("cart", 1)))
        .await
        .ok();
    client.act(|s| s.sign_in("grace")).await.ok();
    assert_eq!(client.owner().await.as_deref(), Some("grace"));
    assert!(client.look(Session::keys).await.is_empty());
}

/// The limits that the documentation names, so that it stays true: S-36 and S-52 need a store.
#[tokio::test]
async fn a_copy_of_a_cookie_outlives_what_comes_after_it() {
    let client = server().visitor().await;
    let anonymous_copy = client.twin();
    client.get("/login").await.ok();
    // It shows what was in it then, and nobody becomes the owner by it.
    assert_eq!(anonymous_copy.get("/read").await.text(), "[null,1]");
    let copy = client.twin();
    client.get("/logout").await.ok();
    assert_eq!(copy.get("/read").await.text(), r#"["ada",1]"#);
    // Until it expires, as any other.
    client.server.clock.advance(60 * MINUTE);
    assert!(anonymous(&copy).await);

    let client = server().visitor().await;
    let parallel = client.twin();
    client.act(|s| s.insert("a", 1)).await.ok();
    parallel.act(|s| s.insert("b", 2)).await.ok();
    assert_eq!(client.look(Session::keys).await, ["a", "n"]);
    assert_eq!(parallel.look(Session::keys).await, ["b", "n"]);
}

/// Nobody is told that a session was ended which still opens.
#[tokio::test]
async fn what_only_a_store_can_do_is_refused() {
    async fn ask(session: Session, sessions: Sessions) {
        assert!(sessions.list("ada").await.unwrap_err().is_invalid());
        let revoked = sessions.revoke(session.id().unwrap()).await;
        assert!(revoked.unwrap_err().is_invalid());
        assert!(sessions.revoke_all("ada").await.unwrap_err().is_invalid());
        let others = sessions.revoke_others(&session).await;
        assert!(others.unwrap_err().is_invalid());
        assert!(sessions.revoke_everyone().await.unwrap_err().is_invalid());
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let layer = SessionLayer::stateless(ring())
        .on_event(move |event| tell.lock().unwrap().push(format!("{event:?}")))
        .build()
        .unwrap();
    let app = Router::new()
        .route("/login", post(async |s: Session| s.sign_in("ada")))
        .route("/", post(ask))
        .layer(layer);
    let send = async |request: http::request::Builder| {
        let request = request.body(Body::empty()).unwrap();
        app.clone().oneshot(request).await.unwrap()
    };
    let signed_in = send(Request::post("/login")).await;
    let cookie = &signed_in.headers()[SET_COOKIE];
    let cookie = cookie.to_str().unwrap().split(';').next().unwrap();
    let asked = send(Request::post("/").header("cookie", cookie)).await;
    assert_eq!(asked.status(), StatusCode::OK);
    // Not even a renewal.
    assert!(!asked.headers().contains_key(SET_COOKIE));
    let told = told.lock().unwrap();
    assert!(
        !told.iter().any(|event| event.contains("Revoked")),
        "{told:?}"
    );
}

/// S-30.
#[tokio::test]
async fn cookies_of_two_sessions_open_neither() {
    let server = server();
    let mut pairs = vec![];
    for _ in 0..2 {
        pairs.push(format!("__Host-id={}", server.visitor().await.the_token()));
    }
    let client = server.client();
    let mut request = client.request("/read");
    let line = pairs.join("; ").parse().unwrap();
    request.headers_mut().insert(http::header::COOKIE, line);
    assert_eq!(client.send(request).await.text(), "anonymous");
}

/// S-03.
#[tokio::test]
async fn without_random_bytes_there_is_no_session() {
    let fails = |_: &mut [u8]| Err(std::io::Error::other("no random bytes"));
    let client = with(|settings| settings.entropy(fails)).client();
    let seen = client.get("/write").await;
    assert_eq!((seen.status.as_u16(), seen.told()), (503, Told::Vary));
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Theme {
    dark: bool,
}

impl SessionValue for Theme {
    const KEY: &'static str = "theme";
}

/// S-10: what is in the cookie shows neither to its client nor in the log.
#[tokio::test]
async fn the_client_and_the_log_see_nothing_of_the_content() {
    let log = Log::capture();
    let client = server().client();
    client
        .act(|s| {
            s.sign_in("ada-of-the-analytical-engine")?;
            s.insert("hidden-key", "hidden-value")?;
            Typed::<Theme>::new(s)?.update(|theme| theme.dark = true)
        })
        .await
        .ok();
    let value = client.the_token();
    let id = client.look(Session::id).await.unwrap();
    let bytes = bytes_of(&value);
    let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
    for hidden in ["ada-of-the", "hidden-key", "hidden-value", "theme"] {
        assert!(!contains(hidden.as_bytes()), "{hidden}");
    }
    assert!(!contains(id.as_bytes()));
    let other = if value.starts_with('A') { "B" } else { "A" };
    client
        .server
        .holding(&format!("{other}{}", &value[1..]))
        .get("/read")
        .await
        .ok();
    client.get("/logout").await.ok();
    let said = log.take();
    assert!(said.contains("not made with a key"), "{said}");
    for secret in [KEY, &value, &value[..40], "hidden-value"] {
        assert!(!said.contains(secret), "{said}");
    }
}
