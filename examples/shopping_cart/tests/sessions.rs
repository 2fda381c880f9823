//! What a page knows of its own session, and what becomes of sessions that nobody uses, that many begin, or
//! that turn up in another browser.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use cloakroom::test_util::TestClock;
use cloakroom::{MemoryStore, SessionEvent};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::client::Browser;
use super::{ADA, GRACE, app, app_by, app_on, badge, register, with_cart};
use crate::app::{Options, app_with};
use crate::closing::Closing;

const MINUTE: Duration = Duration::from_secs(60);
/// For what comes at once, on a machine under load.
const SOON: Duration = Duration::from_secs(60);

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const NEXT_FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:141.0) Gecko/20100101 Firefox/141.0";
const CURL: &str = "curl/8.5.0";

/// S-50: an hour without use is over after an hour, whatever the page asks by itself.
#[tokio::test]
async fn a_page_that_asks_by_itself_keeps_nobody_signed_in() {
    for path in ["/session/left", "/session/events"] {
        let clock = TestClock::new();
        let app = app_by(|sessions| sessions.clock(clock.clone()));
        let mut ada = Browser::new(&app);
        ada.post("/sign-in", &ADA).await;
        for _ in 0..11 {
            clock.advance(5 * MINUTE);
            assert_eq!(ada.fetch(Method::GET, path).await.status(), 200, "{path}");
        }
        clock.advance(5 * MINUTE);
        assert_eq!(ada.fetch(Method::GET, path).await.status(), 401, "{path}");
        ada.get("/account").await.sends_to("/sign-in?next=/account");
    }
}

/// S-50.
#[tokio::test]
async fn somebody_who_wants_to_stay_stays() {
    let clock = TestClock::new();
    let app = app_by(|sessions| sessions.clock(clock.clone()));
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    for _ in 0..4 {
        clock.advance(58 * MINUTE);
        let answer = ada.fetch(Method::POST, "/session/stay").await;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_is_told_whose_session_it_is_of_and_how_long_it_lasts() {
    let app = app_by(|sessions| sessions.idle_timeout(2 * MINUTE));
    let mut ada = Browser::new(&app);
    ada.get("/").await.hides(r#"id="ending""#);
    ada.post("/sign-in", &ADA).await;
    let page = ada.get("/").await;
    page.shows(r#"<div class="note" id="ending" role="alert" data-user="ada" hidden>"#);
    let answer = ada.get("/session/left").await;
    let left: serde_json::Value = serde_json::from_str(&answer.text).expect("JSON");
    assert_eq!(left["user"], "ada");
    let seconds = left["seconds"].as_u64().expect("a number");
    assert!((60..=120).contains(&seconds), "{seconds}");
}

#[tokio::test]
async fn pages_of_guests_have_nothing_to_ask() {
    let mut guest = with_cart(&app(), "hat").await;
    for (method, path) in [
        (Method::GET, "/session/left"),
        (Method::GET, "/session/events"),
        (Method::POST, "/session/stay"),
    ] {
        assert_eq!(guest.fetch(method, path).await.status(), 401, "{path}");
    }
}

async fn listen(browser: &mut Browser) -> Response {
    let response = browser.fetch(Method::GET, "/session/events").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    response
}

/// All that an event stream has to say, until its end.
async fn hear(response: Response) -> String {
    let body = timeout(SOON, response.into_body().collect()).await;
    let body = body.expect("it ends").expect("no error").to_bytes();
    String::from_utf8(body.into()).expect("UTF-8")
}

/// S-61: at once, long before the store would be asked again.
#[tokio::test]
async fn a_page_learns_that_it_was_signed_out_elsewhere() {
    let clock = TestClock::new();
    let app = app_by(|sessions| sessions.clock(clock.clone()).recheck_interval(60 * MINUTE));
    let mut here = register(&app, "grace").await;
    let ways: [(&str, &[(&str, &str)]); 3] = [
        ("/account/sign-out-others", &[]),
        (
            "/account/password",
            &[("current", GRACE[1].1), ("new", GRACE[1].1)],
        ),
        ("/account/close", &[]),
    ];
    for (path, form) in ways {
        // A sign-in of the moment of a revocation is revoked.
        clock.advance(MINUTE);
        let mut phone = Browser::new(&app);
        phone.post("/sign-in", &GRACE).await;
        let mut events = listen(&mut phone).await;
        let early = timeout(Duration::from_millis(50), events.body_mut().frame()).await;
        assert!(early.is_err(), "{path}: it has not ended yet");
        let answer = here.post_own(path, form).await;
        assert!(answer.status.as_u16() < 400, "{path} {}", answer.text);
        assert_eq!(hear(events).await, "data: ended\n\n", "{path}");
        assert_eq!(
            phone.fetch(Method::GET, "/session/left").await.status(),
            401
        );
    }
}

/// S-61: the page then asks, and hears that it is signed in as before.
#[tokio::test]
async fn a_page_learns_of_a_new_token_of_another_tab() {
    let app = app_by(|sessions| sessions.recheck_interval(60 * MINUTE));
    let mut grace = register(&app, "grace").await;
    let events = listen(&mut grace).await;
    grace.post_own("/account/confirm", &[GRACE[1]]).await;
    assert_eq!(hear(events).await, "data: ended\n\n");
    grace.get("/session/left").await.shows(r#""user":"grace""#);
}

/// S-61: an event stream would go on for ever.
#[tokio::test]
async fn a_page_that_listens_does_not_keep_the_shop_from_closing() {
    let closing = Closing::default();
    let options = Options {
        closing: closing.clone(),
        ..Options::default()
    };
    let app = app_with(MemoryStore::new(), options);
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a port is free");
    let address = listener.local_addr().expect("it has one");
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = axum::serve(listener, app).with_graceful_shutdown(async move {
        let _ = stopped.await;
        closing.begin();
    });
    let server = tokio::spawn(async move { server.await });

    let mut socket = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "GET /session/events HTTP/1.1\r\nhost: {address}\r\ncookie: {}\r\n\r\n",
        ada.cookies()
    );
    socket
        .write_all(request.as_bytes())
        .await
        .expect("it reads");
    let mut head = [0; 15];
    socket.read_exact(&mut head).await.expect("it answers");
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    stop.send(()).expect("it still runs");
    let end = timeout(SOON, server).await.expect("it closes");
    end.expect("no panic").expect("no error");
}

/// S-69.
#[tokio::test]
async fn guests_in_any_number_sign_nobody_out() {
    let store = MemoryStore::builder().max_sessions(20).build();
    let app = app_on(store.clone());
    let mut ada = Browser::new(&app);
    ada.post("/sign-in", &ADA).await;
    for _ in 0..200 {
        with_cart(&app, "hat").await;
    }
    assert!(store.len() <= 20);
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);
}

/// S-69: what a guest begins is kept for half as long, however busy they are.
#[tokio::test]
async fn a_guest_s_cart_is_kept_for_half_a_day() {
    let clock = TestClock::new();
    let app = app_by(|sessions| sessions.clock(clock.clone()));
    let mut guest = with_cart(&app, "hat").await;
    let mut ada = with_cart(&app, "hat").await;
    ada.post("/sign-in", &ADA).await;
    let mut quarters = 0;
    while badge(&guest.get("/").await) == "1" {
        clock.advance(15 * MINUTE);
        quarters += 1;
        assert_eq!(badge(&ada.get("/").await), "1");
    }
    assert_eq!(quarters, 12 * 4);
}

/// S-85.
#[tokio::test]
async fn a_session_that_turns_up_in_another_browser_is_asked_for_its_password() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let observer = Arc::clone(&told);
    let clock = TestClock::new();
    let app = app_by(|sessions| {
        let observe =
            move |event: &SessionEvent| observer.lock().expect("no panic").push(event.name());
        sessions.clock(clock.clone()).on_event(observe)
    });
    let mut ada = Browser::new(&app).named(FIREFOX);
    ada.post("/sign-in", &ADA).await;
    ada.get("/account").await.hides("We did not let it in");
    assert!(!told.lock().expect("no panic").contains(&"another_client"));

    let mut thief = ada.named(CURL);
    thief
        .get("/account")
        .await
        .sends_to("/sign-in?next=/account");
    assert!(told.lock().expect("no panic").contains(&"another_client"));
    let page = thief.get("/sign-in").await;
    page.shows("You signed in with another browser than this one.");
    page.hides("You were away");
    assert_eq!(
        thief.fetch(Method::GET, "/session/events").await.status(),
        401
    );

    // Hers goes on, and tells her until she has seen to it.
    for _ in 0..2 {
        ada.get("/account").await.shows("We did not let it in");
    }
    ada.post_own("/account/sign-out-others", &[]).await;
    ada.get("/account").await.hides("We did not let it in");

    // If it was she, she has a password: it makes another device.
    clock.advance(MINUTE);
    let page = thief.submit("/sign-in", &ADA).await;
    page.shows("Welcome, ada.");
    let page = thief.get("/account").await;
    page.shows("curl");
    page.shows("Firefox, Linux");
    assert_eq!(ada.get("/account").await.status, StatusCode::OK);
}

/// S-85.
#[tokio::test]
async fn an_update_of_the_browser_signs_nobody_out_and_a_guest_is_not_asked() {
    let app = app();
    let mut ada = Browser::new(&app).named(FIREFOX);
    ada.post("/sign-in", &ADA).await;
    let page = ada.named(NEXT_FIREFOX).get("/account").await;
    assert_eq!(page.status, StatusCode::OK);

    let guest = with_cart(&app, "hat").await;
    assert_eq!(badge(&guest.named(CURL).get("/cart").await), "1");
}

/// S-85.
#[tokio::test]
async fn what_a_client_says_of_its_way_here_changes_nothing() {
    let mut ada = Browser::new(&app()).named(FIREFOX);
    ada.post("/sign-in", &ADA).await;
    let mut thief = ada.named(CURL);
    for name in [
        "x-forwarded-for",
        "forwarded",
        "x-real-ip",
        "x-original-user-agent",
    ] {
        let headers = [(name, FIREFOX)];
        let page = ada.send(Method::GET, "/account", &headers, Body::empty());
        assert_eq!(page.await.status, StatusCode::OK, "{name}");
        let page = thief.send(Method::GET, "/account", &headers, Body::empty());
        page.await.sends_to("/sign-in?next=/account");
    }
}
