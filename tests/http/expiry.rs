//! When sessions end: on the server, by the test's clock, whatever the client keeps sending.

use std::time::Duration;

use cloakroom::Session;
use cloakroom::store::{SessionStore as _, Timestamp, Update};
use http::StatusCode;

use crate::support::{Client, Server, Told};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
const MILLI: Duration = Duration::from_millis(1);

/// Sends a request each `step` until the session has ended; how long that took. No response takes the
/// cookie back, so the client replays it for ever.
async fn lifetime(client: &Client, path: &str, step: Duration) -> Duration {
    let clock = client.server.clock.clone();
    let start = clock.now();
    loop {
        clock.advance(step);
        if !client.is_known().await {
            return clock.now().saturating_since(start);
        }
        client.get(path).await.ok();
        assert!(
            clock.now().saturating_since(start) < 10_000 * DAY,
            "it never ends"
        );
    }
}

/// S-45: by default after an hour.
#[tokio::test]
async fn a_session_that_is_not_used_ends_with_its_idle_timeout() {
    for (server, idle) in [
        (Server::new(), HOUR),
        (Server::with(|b| b.idle_timeout(5 * MINUTE)), 5 * MINUTE),
        (
            Server::with(|b| b.idle_timeout(5 * MINUTE).persistent(true)),
            5 * MINUTE,
        ),
    ] {
        let client = server.visitor().await;
        let replay = client.twin();
        server.clock.advance(idle - MILLI);
        assert!(replay.is_known().await);
        server.clock.advance(idle - MILLI);
        assert!(replay.is_known().await, "use keeps it");
        server.clock.advance(idle);
        assert!(!replay.is_known().await);
        let seen = client.get("/write").await.ok();
        assert_eq!(seen.told(), Told::Cookie, "a new session");
        assert_ne!(client.id(), replay.id());
    }
}

/// S-46: by default after 24 hours, together with the idle timeout.
#[tokio::test]
async fn a_session_in_use_ends_with_its_absolute_timeout() {
    for (path, server, absolute) in [
        ("/read", Server::new(), DAY),
        ("/write", Server::new(), DAY),
        (
            "/read",
            Server::with(|b| b.absolute_timeout(90 * MINUTE)),
            90 * MINUTE,
        ),
        (
            "/write",
            Server::with(|b| b.absolute_timeout(30 * MINUTE)),
            30 * MINUTE,
        ),
        ("/read", Server::with(|b| b.idle_timeout(2 * DAY)), DAY),
    ] {
        let client = server.visitor().await;
        client.get("/login").await.ok();
        assert_eq!(lifetime(&client, path, MINUTE).await, absolute);
    }
}

/// S-69: by default after half the absolute timeout.
#[tokio::test]
async fn an_anonymous_session_in_use_ends_earlier_than_a_signed_in_one() {
    for (path, server, absolute) in [
        ("/read", Server::new(), 12 * HOUR),
        ("/write", Server::new(), 12 * HOUR),
        (
            "/read",
            Server::with(|b| b.anonymous_timeout(2 * HOUR)),
            2 * HOUR,
        ),
        ("/read", Server::with(|b| b.anonymous_timeout(DAY)), DAY),
        (
            "/write",
            Server::with(|b| b.anonymous_timeout(30 * MINUTE)),
            30 * MINUTE,
        ),
    ] {
        let client = server.visitor().await;
        assert_eq!(lifetime(&client, path, MINUTE).await, absolute);
    }
    // A guest who signs in has the longer time, counted from then.
    let client = Server::with(|b| b.anonymous_timeout(HOUR)).visitor().await;
    client.server.clock.advance(59 * MINUTE);
    client.get("/login").await.ok();
    assert_eq!(lifetime(&client, "/read", MINUTE).await, DAY);
    // "Keep me signed in" for guests is a decision of the application.
    let client = Server::new().visitor().await;
    client.act(|s| s.remember(3 * DAY)).await.ok();
    assert_eq!(lifetime(&client, "/read", HOUR).await, 3 * DAY);
}

/// S-43: only a sign-in starts the absolute timeout anew, not a renewal, of either kind.
#[tokio::test]
async fn renewing_the_token_does_not_prolong_the_session() {
    let periodic = |b: crate::support::Settings| b.renew_every(2 * MINUTE).renewal_grace(SECOND);
    for server in [Server::new(), Server::with(periodic)] {
        let client = server.visitor().await;
        client.get("/login").await.ok();
        let (created, clock) = (client.record().await.unwrap().created, server.clock.clone());
        let mut tokens = 0;
        for _ in 1..24 * 60 {
            clock.advance(MINUTE);
            let seen = client.act(Session::renew).await.ok();
            tokens += u32::from(seen.told() == Told::Cookie);
        }
        assert_eq!(tokens, 24 * 60 - 1);
        assert_eq!(client.record().await.unwrap().created, created);
        clock.advance(MINUTE);
        assert!(!client.is_known().await);
    }
    let client = Server::with(periodic).visitor().await;
    client.get("/login").await.ok();
    assert_eq!(lifetime(&client, "/read", MINUTE).await, DAY);
}

/// S-37, S-43: a sign-in, the first as any later one, starts the absolute timeout anew.
#[tokio::test]
async fn a_sign_in_starts_the_absolute_timeout_anew() {
    let client = Server::with(|b| b.idle_timeout(DAY).anonymous_timeout(DAY))
        .visitor()
        .await;
    let clock = client.server.clock.clone();
    let created = client.record().await.unwrap().created;
    for path in ["/login", "/stepup"] {
        clock.advance(20 * HOUR);
        client.get(path).await.ok();
        let record = client.record().await.unwrap();
        assert_eq!(
            (record.created, record.authenticated),
            (created, Some(clock.now()))
        );
        let authenticated = client.look(Session::authenticated_at).await.unwrap();
        assert_eq!(Timestamp::from(authenticated), clock.now());
    }
    assert_eq!(lifetime(&client, "/read", HOUR).await, DAY);
}

/// S-48: the end that the store is told, also after a hundred touches.
#[tokio::test]
async fn the_stored_end_is_never_beyond_the_deadline() {
    for path in ["/read", "/write", "/stepup"] {
        let server = Server::with(|b| b.renew_every(HOUR).anonymous_timeout(DAY));
        let client = server.visitor().await;
        let start = server.clock.now();
        while client.is_known().await {
            client.get(path).await;
            let (record, now) = (client.record().await.unwrap(), server.clock.now());
            assert!(record.expires > now);
            assert!(record.expires <= now.saturating_add(HOUR));
            assert!(record.expires <= start.saturating_add(DAY));
            server.clock.advance(14 * MINUTE);
        }
        assert!(server.clock.now() >= start.saturating_add(DAY));
    }
}

/// S-48: also the end that a touch tells the store.
#[tokio::test]
async fn a_touch_does_not_move_the_end_beyond_the_deadline() {
    let server = Server::with(|b| b.anonymous_timeout(90 * MINUTE));
    let client = server.visitor().await;
    let deadline = server.clock.now().saturating_add(90 * MINUTE);
    server.clock.advance(50 * MINUTE);
    assert_eq!(client.get("/read").await.ok().calls, "load touch");
    assert_eq!(client.record().await.unwrap().expires, deadline);
}

/// S-45: a request that takes longer than its session lives does not bring it back.
#[tokio::test]
async fn a_session_may_end_while_a_request_is_under_way() {
    let client = Server::new().visitor().await;
    let clock = client.server.clock.clone();
    let seen = client.run(async move |s: Session| {
        clock.advance(HOUR);
        s.insert("n", 2)?;
        assert!(s.save().await.unwrap_err().is_gone());
        s.sign_in("ada")
    });
    assert_eq!(seen.await.ok().told(), Told::Vary);
    assert!(!client.is_known().await);
}

/// S-51: at most one write a step, and the step counts against the user.
#[tokio::test]
async fn a_thousand_reads_in_a_second_write_once_at_most() {
    let server = Server::new();
    let client = server.visitor().await;
    for wait in [SECOND, 6 * MINUTE] {
        server.clock.advance(wait);
        server.store.reset_counts();
        for _ in 0..1_000 {
            server.clock.advance(MILLI);
            client.get("/read").await.ok();
        }
        let touches = server.store.total_calls() - 1_000;
        assert_eq!(touches, u64::from(wait > SECOND));
    }
    // A use shortly after the touch does not move the end: too early, not too late.
    let replay = client.twin();
    server.clock.advance(6 * MINUTE - 2 * SECOND);
    assert_eq!(client.get("/read").await.ok().calls, "load");
    server.clock.advance(HOUR - 6 * MINUTE + SECOND + MILLI);
    assert!(!replay.is_known().await);
}

/// S-51: the step is configurable.
#[tokio::test]
async fn the_touch_interval_is_what_was_configured() {
    let server = Server::with(|b| b.touch_interval(10 * SECOND));
    let client = server.visitor().await;
    for (wait, calls) in [
        (9 * SECOND, "load"),
        (SECOND, "load touch"),
        (9 * SECOND, "load"),
    ] {
        server.clock.advance(wait);
        assert_eq!(client.get("/read").await.ok().calls, calls);
    }
}

/// "Keep me signed in": the session's own policy, stored with it, and a persistent cookie.
#[tokio::test]
async fn a_remembered_session_keeps_its_own_time() {
    let server = Server::new();
    let client = server.client();
    let seen = client
        .act(|s| s.sign_in("ada").and(s.remember(30 * DAY)))
        .await
        .ok();
    assert_eq!(seen.cookie().unwrap().max_age(), Some(30 * 24 * 60 * 60));
    server.clock.advance(29 * DAY);
    // The browser has a day left, as the server has.
    assert_eq!(client.get("/write").await.ok().told(), Told::Vary);
    let left = client.record().await.unwrap().expires;
    assert_eq!(left.saturating_since(server.clock.now()), DAY);
    // Also in another process, and under other settings of the layer.
    let other = client.twin_at(&server.beside(|b| b.idle_timeout(MINUTE).absolute_timeout(MINUTE)));
    assert_eq!(other.owner().await.as_deref(), Some("ada"));
    // A sign-in counts anew, under the same policy.
    client.get("/stepup").await.ok();
    server.clock.advance(30 * DAY - MILLI);
    assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
    server.clock.advance(MILLI);
    assert!(!client.is_known().await);
}

/// `remember` alone is a change of a session that exists, and none of one that does not.
#[tokio::test]
async fn remembering_is_for_sessions_that_exist() {
    let server = Server::new();
    let stranger = server.client();
    let seen = stranger.act(|s| s.remember(DAY)).await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("", Told::Vary));

    let client = server.visitor().await;
    let seen = client.act(|s| s.remember(2 * DAY)).await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("load update", Told::Cookie));
    assert_eq!(lifetime(&client, "/read", HOUR).await, 2 * DAY);
    for time in [Duration::ZERO, Duration::from_micros(999)] {
        let error = client.look(move |s| s.remember(time).unwrap_err()).await;
        assert!(error.is_invalid());
    }
}

/// `forget` takes it back: the layer's time counts, and the cookie is one as the layer's are.
#[tokio::test]
async fn a_forgotten_session_follows_the_layer_again() {
    for (persistent, age) in [(false, None), (true, Some(3600))] {
        let server = Server::with(|b| b.persistent(persistent));
        let client = server.client();
        client
            .act(|s| s.sign_in("ada").and(s.remember(30 * DAY)))
            .await
            .ok();
        server.clock.advance(2 * HOUR);
        let seen = client.act(Session::forget).await.ok();
        assert_eq!((&*seen.calls, seen.told()), ("load update", Told::Cookie));
        assert_eq!(seen.cookie().unwrap().max_age(), age);
        assert_eq!(client.record().await.unwrap().policy, None);
        assert_eq!(client.act(Session::forget).await.ok().calls, "load");
        server.clock.advance(HOUR - MILLI);
        let replay = client.twin();
        assert_eq!(client.owner().await.as_deref(), Some("ada"));
        server.clock.advance(HOUR);
        assert!(!replay.is_known().await);
    }
}

/// S-49.
#[tokio::test]
async fn a_clock_that_jumps_prolongs_nothing_and_breaks_nothing() {
    let years = 3_650 * DAY;
    // Back an hour, and forward again: the end stays where it was.
    let server = Server::new();
    let client = server.visitor().await;
    let end = client.record().await.unwrap().expires;
    server.clock.go_back(HOUR);
    for path in ["/read", "/write", "/login"] {
        client.get(path).await.ok();
    }
    assert!(
        client.is_known().await,
        "a small step back signs nobody out"
    );
    assert!(client.record().await.unwrap().expires <= end);
    server.clock.set(end);
    assert!(!client.is_known().await);

    // Forward ten years: what was live has ended; what is made then is not left to live until then.
    let client = server.visitor().await;
    server.clock.advance(years);
    assert!(!client.is_known().await);
    let future = server.visitor().await;
    server.clock.go_back(years);
    assert!(!future.is_known().await);
    assert_eq!(future.get("/write").await.ok().told(), Told::Cookie);

    // The beginning and the end of time.
    for now in [Timestamp::from_millis(0), Timestamp::MAX] {
        server.clock.set(now);
        let client = server.client();
        for path in ["/write", "/read", "/login", "/logout"] {
            client.get(path).await.ok();
        }
    }
}

/// S-49: use after the clock was set back counts from then: neither the step nor a time that the wrong
/// clock wrote is added to it.
#[tokio::test]
async fn a_clock_that_is_set_back_does_not_lengthen_idle_time() {
    for persistent in [false, true] {
        for path in ["/read", "/write"] {
            let server = Server::with(|b| b.persistent(persistent));
            let client = server.visitor().await;
            let replay = client.twin();
            server.clock.go_back(50 * MINUTE);
            let seen = client.get(path).await.ok();
            assert_eq!(seen.calls, "load update", "{path}");
            let end = server.clock.now().saturating_add(HOUR);
            assert_eq!(client.record().await.unwrap().expires, end);
            assert_eq!(client.record().await.unwrap().seen, server.clock.now());
            if persistent {
                assert_eq!(seen.cookie().unwrap().max_age(), Some(60 * 60));
            }
            assert_eq!(client.get("/read").await.ok().calls, "load", "once");
            server.clock.advance(HOUR);
            assert!(!replay.is_known().await);
        }
    }
    // Within the touch interval, as clocks of several machines differ, nothing is written.
    let client = Server::new().visitor().await;
    client.server.clock.go_back(5 * MINUTE);
    assert_eq!(client.get("/read").await.ok().calls, "load");
    // An end that a wrong clock wrote is none, whatever it says.
    for (wait, live) in [(HOUR - MILLI, true), (HOUR, false)] {
        let client = Server::new().visitor().await;
        let Server { clock, memory, .. } = client.server.clone();
        let mut record = client.record().await.unwrap();
        record.expires = clock.now().saturating_add(10 * HOUR);
        let version = record.version;
        let updated = memory.update(client.id(), &record, version, clock.now());
        assert_eq!(updated.await.unwrap(), Update::Done);
        clock.advance(wait);
        assert_eq!(client.is_known().await, live);
    }
}

/// S-49: times in a record that a wrong clock wrote do not carry a session beyond its absolute end.
#[tokio::test]
async fn a_record_from_the_future_is_refused_or_ends_in_time() {
    let server = Server::new();
    let now = server.clock.now();
    let later = now.saturating_add(3_650 * DAY);
    type Change = fn(&mut cloakroom::store::Record, Timestamp);
    let rows: [(&str, Change, bool); 5] = [
        ("seen", |record, later| record.seen = later, false),
        ("created", |record, later| record.created = later, false),
        (
            "authenticated",
            |record, later| record.authenticated = Some(later),
            false,
        ),
        ("renewed", |record, later| record.renewed = later, true),
        ("expires", |record, later| record.expires = later, true),
    ];
    for (what, change, live) in rows {
        server.clock.set(now);
        let client = server.visitor().await;
        let mut record = client.record().await.unwrap();
        record.expires = later;
        change(&mut record, later);
        let _ = server
            .memory
            .update(client.id(), &record, record.version, now)
            .await
            .unwrap();
        assert_eq!(client.is_known().await, live, "{what}");
        server.clock.advance(DAY);
        assert!(!client.is_known().await, "{what}");
    }
}

/// Whoever was a guest before somebody signed in did not ask for that somebody to be kept signed in.
#[tokio::test]
async fn what_a_guest_asked_to_be_remembered_does_not_bind_a_sign_in() {
    for failing in [false, true] {
        let server = Server::new();
        let client = server.visitor().await;
        client.act(|s| s.remember(365 * DAY)).await.ok();
        let status = if failing { 500 } else { 200 };
        let status = StatusCode::from_u16(status).unwrap();
        let seen = client.act(move |s| s.sign_in("ada").map(|()| status)).await;
        assert_eq!(seen.cookie().unwrap().max_age(), None);
        assert_eq!(client.record().await.unwrap().policy, None);
        assert_eq!(client.owner().await.as_deref(), Some("ada"));
        // Whose sign-in it is keeps what they asked for when they prove it again.
        client.act(|s| s.remember(30 * DAY)).await.ok();
        client.get("/stepup").await.ok();
        assert!(client.record().await.unwrap().policy.is_some());
    }
}

/// What is asked for in the request of the sign-in is the new owner's, unless another one's session
/// was there when it was asked for.
#[tokio::test]
async fn remembering_goes_with_the_sign_in_of_its_request() {
    type Handler = fn(&Session) -> cloakroom::Result<()>;
    let rows: [(Option<&str>, Handler, bool); 5] = [
        (None, |s| s.remember(DAY).and(s.sign_in("ada")), true),
        (None, |s| s.sign_in("ada").and(s.remember(DAY)), true),
        (Some("ada"), |s| s.remember(DAY).and(s.sign_in("ada")), true),
        (
            Some("grace"),
            |s| s.remember(DAY).and(s.sign_in("ada")),
            false,
        ),
        (
            Some("grace"),
            |s| s.sign_in("ada").and(s.remember(DAY)),
            true,
        ),
    ];
    for (row, (before, handler, remembered)) in rows.into_iter().enumerate() {
        let client = Server::new().visitor().await;
        if let Some(owner) = before {
            client.act(move |s| s.sign_in(owner)).await.ok();
        }
        let seen = client.act(handler).await.ok();
        assert_eq!(
            seen.cookie().unwrap().max_age().is_some(),
            remembered,
            "row {row}"
        );
    }
}

/// S-44, S-49.
#[tokio::test]
async fn a_clock_that_is_set_back_revives_no_token_whose_grace_was_seen_to_end() {
    let server = Server::with(|b| b.renew_every(HOUR / 2).renewal_grace(5 * SECOND));
    let client = server.visitor().await;
    let old = client.twin();
    server.clock.advance(HOUR / 2);
    client.get("/read").await.ok();
    assert!(old.twin().is_known().await, "in its grace");
    server.clock.advance(10 * MINUTE);
    assert_eq!(client.get("/read").await.ok().calls, "load touch");
    server.clock.go_back(10 * MINUTE);
    assert!(!old.is_known().await);
    assert!(client.is_known().await);
}

/// A `save` that has nothing to store forgets nothing.
#[tokio::test]
async fn a_policy_outlives_a_save_before_the_first_value() {
    let client = Server::new().client();
    let work = async |s: Session| {
        s.remember(Duration::from_secs(3600))?;
        s.save().await?;
        s.insert("a", 1)
    };
    let seen = client.run(work).await;
    assert_eq!(seen.cookie().unwrap().max_age(), Some(3600));
}
