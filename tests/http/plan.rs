//! The table of the design, "After the handler | Store | Response", row by row: each test has its row
//! as its first line. A client's every request is written as the store calls that it takes and what
//! the response tells the client.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use cloakroom::store::SessionStore as _;
use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Error, LazySession, Session, SessionLayer};
use http::{Request, Response, StatusCode};
use hyper::body::Frame;
use tokio::sync::oneshot;
use tower::{ServiceBuilder, ServiceExt as _};

use crate::support::{Client, Seen, Server, Told, id_of};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

const FAILED: StatusCode = StatusCode::INTERNAL_SERVER_ERROR;

#[track_caller]
fn assert_seen(seen: &Seen, calls: &str, told: Told) {
    assert_eq!((&*seen.calls, seen.told()), (calls, told), "{seen:?}");
}

/// | session never asked for | - | unchanged |
#[tokio::test]
async fn a_request_that_asks_for_no_session_passes_unchanged() {
    let client = Server::new().visitor().await;
    client.server.clock.advance(59 * MINUTE);
    let seen = client.get("/").await.ok();
    assert_seen(&seen, "", Told::Nothing);
    let names: Vec<_> = seen.headers.keys().map(http::HeaderName::as_str).collect();
    assert_eq!(names, ["content-type", "content-length"]);
}

/// | loaded, nothing changed, touch not due | - | `Vary: Cookie` |
#[tokio::test]
async fn a_read_costs_one_load_and_says_vary() {
    let client = Server::new().visitor().await;
    client.server.clock.advance(6 * MINUTE - SECOND);
    assert_seen(&client.get("/read").await.ok(), "load", Told::Vary);
    let stranger = client.server.client();
    assert_seen(&stranger.get("/read").await.ok(), "", Told::Vary);
}

/// | loaded, nothing changed, touch due | `touch` | cookie again only if it is persistent |
#[tokio::test]
async fn a_read_touches_once_a_tenth_of_the_idle_timeout_has_passed() {
    let client = Server::new().visitor().await;
    client.server.clock.advance(6 * MINUTE);
    assert_seen(&client.get("/read").await.ok(), "load touch", Told::Vary);
    assert_seen(&client.get("/read").await.ok(), "load", Told::Vary);
    let expires = client.record().await.unwrap().expires;
    assert_eq!(expires.saturating_since(client.server.clock.now()), HOUR);
}

/// The same row. A persistent cookie goes out again, and a compare-and-swap shows that its token was
/// not replaced meanwhile: the response could else put a dead token over the new one.
#[tokio::test]
async fn a_touch_with_a_persistent_cookie_is_an_update_and_renews_its_age() {
    let server = Server::with(|b| b.persistent(true));
    let client = server.visitor().await;
    server.clock.advance(6 * MINUTE);
    let token = client.the_token();
    let seen = client.get("/read").await.ok();
    assert_seen(&seen, "load update", Told::Cookie);
    let cookie = seen.cookie().unwrap();
    assert_eq!((cookie.max_age(), &cookie.token), (Some(3600), &token));

    server.clock.advance(6 * MINUTE);
    let other = client.twin();
    let seen = client
        .run(async move |_| drop(other.act(Session::renew).await))
        .await
        .ok();
    assert_seen(&seen, "load load update update", Told::Vary);
}

/// | loaded, periodic renewal due | `update` (new secret, old one in grace) | cookie |
#[tokio::test]
async fn a_read_renews_a_token_that_is_old_enough() {
    let server = Server::with(|b| b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND));
    let client = server.visitor().await;
    let before = client.twin();
    server.clock.advance(15 * MINUTE - SECOND);
    assert_eq!(client.get("/read").await.told(), Told::Vary);
    server.clock.advance(SECOND);
    assert_seen(&client.get("/read").await.ok(), "load update", Told::Cookie);
    assert_ne!(client.token(), before.token());
    assert_eq!(client.id(), before.id());
    assert_seen(&client.get("/read").await.ok(), "load", Told::Vary);

    server.clock.advance(5 * SECOND - Duration::from_millis(1));
    assert_eq!(before.value("n").await, Some(1));
    server.clock.advance(Duration::from_millis(1));
    assert!(!before.is_known().await);
    assert_eq!(client.value("n").await, Some(1));
}

/// | changed, session existed | `update`; on conflict replay and retry | cookie only if the token or a
/// persistent cookie's age changed |
#[tokio::test]
async fn a_change_updates_the_session_and_sends_no_cookie() {
    let client = Server::new().visitor().await;
    assert_seen(&client.get("/write").await.ok(), "load update", Told::Vary);
    assert_eq!(client.value("n").await, Some(2));
}

/// The same row, on conflict.
#[tokio::test]
async fn a_change_that_meets_a_conflict_is_redone_on_the_newer_data() {
    let client = Server::new().visitor().await;
    let elsewhere = client.twin_at(&client.server.beside(|b| b));
    let seen = client.run(async move |s: Session| {
        s.update("n", |n: &mut u64| *n += 1)?;
        s.insert("mine", 1)?;
        elsewhere
            .act(|s| {
                s.update("n", |n: &mut u64| *n *= 10)
                    .and(s.insert("theirs", 1))
            })
            .await;
        Ok::<_, Error>(())
    });
    assert_seen(
        &seen.await.ok(),
        "load load update update update",
        Told::Vary,
    );
    assert_eq!(client.value("n").await, Some(11));
    assert_eq!(client.look(Session::keys).await, ["mine", "n", "theirs"]);
}

/// The same row, with a persistent cookie: its age follows the end of the session.
#[tokio::test]
async fn a_change_renews_the_age_of_a_persistent_cookie() {
    let server = Server::with(|b| {
        b.persistent(true)
            .absolute_timeout(2 * HOUR)
            .anonymous_timeout(2 * HOUR)
    });
    let client = server.visitor().await;
    for (minutes, age) in [(30, Some(3600)), (45, Some(2700)), (1, None), (30, None)] {
        server.clock.advance(minutes * MINUTE);
        let seen = client.get("/write").await.ok();
        let told = age.map_or(Told::Vary, |_| Told::Cookie);
        assert_seen(&seen, "load update", told);
        assert_eq!(seen.cookie().and_then(|cookie| cookie.max_age()), age);
    }
}

/// | changed, session did not exist, not empty | `create` | cookie |
#[tokio::test]
async fn the_first_value_creates_the_session() {
    let client = Server::new().client();
    assert_seen(&client.get("/write").await.ok(), "create", Told::Cookie);
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

/// | changed, did not exist, empty again | - | - |
#[tokio::test]
async fn a_value_set_and_removed_again_creates_nothing() {
    let client = Server::new().client();
    let undo: [fn(&Session) -> cloakroom::Result<()>; 3] = [
        |s| s.remove("a").map(drop),
        |s| s.take::<u64>("a").map(drop),
        Session::clear,
    ];
    for undo in undo {
        let seen = client
            .act(move |s| s.insert("a", 1).and_then(|()| undo(s)))
            .await
            .ok();
        assert_seen(&seen, "", Told::Vary);
    }
    assert!(client.server.memory.is_empty());
}

/// | client's token unknown, forged, superseded or expired, and nothing stored | - | no cookie: a
/// removal could overtake and delete a newer cookie that a parallel request has just been given |
#[tokio::test]
async fn a_token_that_opens_nothing_is_answered_without_a_cookie() {
    let server = Server::new();
    let client = server.visitor().await;
    let token = client.the_token();
    let superseded = client.twin();
    client.act(Session::renew).await.ok();
    let flip = |at: usize| {
        let mut text = client.the_token();
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        text.replace_range(at..=at, other);
        server.holding(&text)
    };
    let (unknown, forged) = (flip(0), flip(47));
    assert_ne!(id_of(&unknown.the_token()), id_of(&token));
    assert_eq!(id_of(&forged.the_token()), id_of(&token));
    for (what, stale) in [
        ("unknown", unknown),
        ("forged", forged),
        ("superseded", superseded),
    ] {
        for path in ["/read", "/logout"] {
            let seen = stale.get(path).await.ok();
            assert_eq!(
                (&*seen.calls, seen.told()),
                ("load", Told::Vary),
                "{what} {path}"
            );
        }
    }
    server.clock.advance(HOUR);
    assert_seen(&client.get("/read").await.ok(), "load", Told::Vary);
}

/// | `renew()` | `update` (new secret, old one dead at once) … `renew` does nothing there | cookie |
#[tokio::test]
async fn renew_replaces_the_token_and_nothing_else() {
    let server = Server::with(|b| b.renew_every(HOUR).renewal_grace(MINUTE));
    let client = server.visitor().await;
    let (before, record) = (client.twin(), client.record().await.unwrap());
    assert_seen(
        &client.act(Session::renew).await.ok(),
        "load update",
        Told::Cookie,
    );
    assert!(
        !before.is_known().await,
        "no grace for what `renew` replaced"
    );
    let renewed = client.record().await.unwrap();
    assert_eq!(client.id(), before.id());
    assert_eq!(
        (renewed.data, renewed.created),
        (record.data, record.created)
    );

    let stranger = server.client();
    assert_seen(&stranger.act(Session::renew).await.ok(), "", Told::Vary);
}

/// | `sign_in(owner)` | `sign_in` (new secret, old one dead at once), which creates where there is no
/// session | cookie |
#[tokio::test]
async fn sign_in_replaces_the_token_or_creates_the_session() {
    let server = Server::new();
    let client = server.visitor().await;
    let before = client.twin();
    assert_seen(
        &client.get("/login").await.ok(),
        "load sign_in",
        Told::Cookie,
    );
    assert!(!before.is_known().await);
    assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);

    let stranger = server.client();
    assert_seen(&stranger.get("/login").await.ok(), "sign_in", Told::Cookie);
    assert_eq!(stranger.get("/read").await.text(), r#"["ada",null]"#);
}

/// | `destroy()` | `delete`, whatever the token's age | removal cookie, the only case that sends one |
#[tokio::test]
async fn destroy_deletes_the_session_and_the_cookie() {
    let client = Server::new().visitor().await;
    let before = client.twin();
    assert_seen(
        &client.get("/logout").await.ok(),
        "load delete",
        Told::Removal,
    );
    assert_eq!(client.token(), None);
    assert!(client.server.memory.is_empty());
    assert!(!before.is_known().await);
    assert_seen(&client.get("/logout").await.ok(), "", Told::Vary);
}

/// The same row: a sign-out in flight wins over a renewal that overtakes it.
#[tokio::test]
async fn destroy_does_its_work_even_if_the_token_was_replaced_meanwhile() {
    let client = Server::new().visitor().await;
    let other = client.twin();
    let renewing = other.clone();
    let seen = client.run(async move |s: Session| {
        renewing.act(Session::renew).await.ok();
        s.destroy()
    });
    assert_eq!(seen.await.ok().told(), Told::Removal);
    assert!(!other.is_known().await);
    assert!(client.server.memory.is_empty());
}

/// | `destroy()`, then `insert()` | `delete`, then `create` under a new id | cookie |
#[tokio::test]
async fn what_is_set_after_destroy_goes_into_another_session() {
    let client = Server::new().visitor().await;
    let before = client.twin();
    let seen = client.act(|s| {
        s.destroy()?;
        assert!(s.is_new() && s.is_empty() && s.id().is_none());
        s.insert("m", 2)
    });
    assert_seen(&seen.await.ok(), "load delete create", Told::Cookie);
    assert_ne!(client.id(), before.id());
    assert!(!before.is_known().await);
    assert_eq!(client.look(Session::keys).await, ["m"]);
}

/// | `update` says gone (logged out elsewhere) | -, never re-created | no cookie; the handler's response
/// stays; event |
#[tokio::test]
async fn a_change_to_a_session_that_has_ended_is_dropped_and_the_response_stays() {
    let changes: [fn(&Session) -> cloakroom::Result<()>; 3] =
        [|s| s.insert("a", 1), Session::renew, |s| s.sign_in("ada")];
    let calls = [
        "load load update delete",
        "load load update delete",
        "load load delete sign_in",
    ];
    for (change, calls) in changes.into_iter().zip(calls) {
        let client = Server::new().visitor().await;
        let elsewhere = client.twin();
        let seen = client.run(async move |s: Session| {
            elsewhere.get("/logout").await.ok();
            change(&s).map(|()| (StatusCode::CREATED, "done"))
        });
        let seen = seen.await;
        assert_seen(&seen, calls, Told::Vary);
        assert_eq!((seen.status, seen.text()), (StatusCode::CREATED, "done"));
        assert!(client.server.memory.is_empty());
    }
}

/// | `update` says the token was superseded meanwhile | -, changes dropped | unchanged; event |
///
/// Within one process the second in line is handed the first one's record, so the store is not asked.
#[tokio::test]
async fn a_change_under_a_superseded_token_is_dropped_and_the_response_stays() {
    let server = Server::new();
    for elsewhere in [server.clone(), server.beside(|b| b)] {
        let client = server.visitor().await;
        let other = client.twin_at(&elsewhere);
        let signing_in = other.clone();
        let seen = client.run(async move |s: Session| {
            signing_in.get("/login").await.ok();
            s.update("n", |n: &mut u64| *n += 1)?;
            Ok::<_, Error>((StatusCode::CREATED, "done"))
        });
        let seen = seen.await;
        assert_eq!((seen.status, seen.text()), (StatusCode::CREATED, "done"));
        assert_eq!(seen.told(), Told::Vary);
        assert_eq!(other.get("/read").await.text(), r#"["ada",1]"#);
    }
}

/// | inner response is 5xx | data changes dropped; `destroy`, `renew`, `sign_in` are carried out | as
/// above |
#[tokio::test]
async fn a_response_that_reports_a_failure_drops_values_and_keeps_actions() {
    type Row = (fn(&Session) -> cloakroom::Result<()>, &'static str, Told);
    let rows: [Row; 6] = [
        (|s| s.insert("n", 99), "load", Told::Vary),
        (|s| s.remember(DAY), "load", Told::Vary),
        (
            |s| s.insert("n", 99).and(s.renew()),
            "load update",
            Told::Cookie,
        ),
        (
            |s| s.insert("n", 99).and(s.sign_in("ada")),
            "load sign_in",
            Told::Cookie,
        ),
        (|s| s.destroy(), "load delete", Told::Removal),
        (
            |s| s.destroy().and(s.insert("n", 99)),
            "load delete",
            Told::Removal,
        ),
    ];
    for (row, (change, calls, told)) in rows.into_iter().enumerate() {
        let client = Server::new().visitor().await;
        let seen = client.act(move |s| change(s).map(|()| FAILED)).await;
        assert_eq!(
            (seen.status, &*seen.calls, seen.told()),
            (FAILED, calls, told),
            "{row}"
        );
        let expected = (told != Told::Removal).then_some(1);
        assert_eq!(client.value("n").await, expected, "{row}");
        let owner = client.owner().await;
        assert_eq!(owner.is_some(), row == 3, "{row}");
    }
    let stranger = Server::new().client();
    let seen = stranger.get("/boom").await;
    assert_eq!(
        (seen.status, &*seen.calls, seen.told()),
        (FAILED, "", Told::Vary)
    );
    let seen = stranger
        .act(|s| s.insert("n", 99).and(s.sign_in("ada")).map(|()| FAILED))
        .await;
    assert_eq!((&*seen.calls, seen.told()), ("sign_in", Told::Cookie));
    assert_eq!(stranger.get("/read").await.text(), r#"["ada",null]"#);
}

/// The same row: a client error is an answer like any other.
#[tokio::test]
async fn a_response_that_refuses_the_request_stores_what_changed() {
    let client = Server::new().visitor().await;
    let seen = client
        .act(|s| s.insert("n", 2).map(|()| StatusCode::UNPROCESSABLE_ENTITY))
        .await;
    assert_seen(&seen, "load update", Told::Vary);
    assert_eq!(client.value("n").await, Some(2));
}

/// | inner service returned `Err` | nothing | passed on unchanged |
#[tokio::test]
async fn an_error_of_the_inner_service_passes_unchanged_and_stores_nothing() {
    #[derive(Debug, PartialEq)]
    struct Broken(u8);

    let server = Server::new();
    let client = server.visitor().await;
    let layer = SessionLayer::builder(server.store.clone()).clock(server.clock.clone());
    let service = ServiceBuilder::new().layer(layer.build().unwrap());
    let service = service.service_fn(async |request: Request<Body>| {
        let lazy = request.extensions().get::<LazySession>().unwrap();
        let session = lazy.load().await.unwrap();
        session.insert("n", 99).unwrap();
        session.sign_in("ada").unwrap();
        Result::<Response<Body>, _>::Err(Broken(7))
    });
    server.store.reset_counts();
    let result = service.oneshot(client.request("/")).await;
    assert_eq!(result.unwrap_err(), Broken(7));
    assert_eq!(server.store.total_calls(), 1);
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

/// | store failed or timed out | nothing half-done is announced | replaced by the error response (503) |
#[tokio::test]
async fn a_store_that_fails_takes_the_place_of_the_response() {
    let client = Server::new().visitor().await;
    let store = client.server.store.clone();
    for (path, operation, calls) in [
        ("/read", Operation::Load, "load"),
        ("/write", Operation::Update, "load update"),
        // It looks whether the new token is stored all the same.
        ("/login", Operation::SignIn, "load load sign_in"),
        ("/logout", Operation::Delete, "load delete"),
    ] {
        store.inject(operation, 1, Fault::Fail);
        let seen = client.get(path).await;
        assert_seen(&seen, calls, Told::Vary);
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(seen.error().is_store());
        assert_eq!(client.get("/read").await.text(), "[null,1]", "{path}");
    }
}

/// "Setting a value equal to the stored one, or removing an absent key, is no change."
#[tokio::test]
async fn what_leaves_the_values_as_they_are_is_no_change() {
    let client = Server::new().visitor().await;
    let changes: [fn(&Session) -> cloakroom::Result<()>; 8] = [
        |s| s.insert("n", 1),
        |s| s.insert("n", 2).and(s.insert("n", 1)),
        |s| s.update("n", |_: &mut u64| ()),
        |s| {
            s.update("n", |n: &mut u64| *n += 1)
                .and(s.update("n", |n: &mut u64| *n -= 1))
        },
        |s| s.remove("absent").map(|there| assert!(!there)),
        |s| s.take::<u64>("absent").map(|value| assert_eq!(value, None)),
        |s| {
            s.insert("a", 1)
                .and(s.remove("a"))
                .map(|there| assert!(there))
        },
        |s| s.clear().and(s.insert("n", 1)),
    ];
    for (row, change) in changes.into_iter().enumerate() {
        let seen = client.act(change).await.ok();
        assert_eq!((&*seen.calls, seen.told()), ("load", Told::Vary), "{row}");
    }
    let stranger = client.server.client();
    let seen = stranger.act(|s| {
        s.clear()
            .and(s.remove("n"))
            .and(s.update("n", |_: &mut u64| ()))
    });
    // An update stores what its closure leaves, also the default.
    assert_seen(&seen.await.ok(), "create", Told::Cookie);
}

/// "`save()` during the handler makes its changes durable at once …"
#[tokio::test]
async fn what_was_saved_is_in_the_store_and_not_written_again() {
    let client = Server::new().visitor().await;
    let other = client.twin();
    let seen = client.run(async move |s: Session| {
        s.update("n", |n: &mut u64| *n += 1)?;
        s.save().await?;
        assert_eq!(other.value("n").await, Some(2));
        s.save().await
    });
    assert_seen(&seen.await.ok(), "load load update", Told::Vary);

    let stranger = client.server.client();
    let seen = stranger.run(async |s: Session| {
        s.insert("n", 1)?;
        s.save().await?;
        assert!(s.id().is_some() && s.created_at().is_some() && s.is_new());
        Ok::<_, Error>(())
    });
    assert_seen(&seen.await.ok(), "create", Told::Cookie);
    assert_eq!(stranger.value("n").await, Some(1));
}

/// "… and the commit at the end writes only what came after."
#[tokio::test]
async fn after_a_save_only_what_is_new_is_written() {
    let client = Server::new().client();
    let other = client.clone();
    let seen = client.run(async move |s: Session| {
        s.update("n", |n: &mut u64| *n += 1)?;
        s.save().await?;
        let id = s.id().unwrap();
        s.update("n", |n: &mut u64| *n += 1)?;
        s.save().await?;
        s.update("n", |n: &mut u64| *n += 1)?;
        assert_eq!(other.token(), None, "the cookie comes with the response");
        assert_eq!(s.id(), Some(id));
        Ok::<_, Error>(())
    });
    assert_seen(&seen.await.ok(), "update update create", Told::Cookie);
    assert_eq!(client.value("n").await, Some(3));
}

/// The cookie of what `save` did is sent even if the response then reports a failure.
#[tokio::test]
async fn what_was_saved_stays_when_the_response_then_reports_a_failure() {
    let client = Server::new().client();
    let seen = client.run(async |s: Session| {
        s.insert("saved", 1)?;
        s.save().await?;
        s.insert("lost", 1)?;
        Ok::<_, Error>(FAILED)
    });
    assert_seen(&seen.await, "create", Told::Cookie);
    assert_eq!(client.look(Session::keys).await, ["saved"]);
}

/// Each `save` acts on its own; the response tells what holds in the end.
#[tokio::test]
async fn the_response_announces_the_last_of_several_saves() {
    let client = Server::new().visitor().await;
    let before = client.twin();
    let seen = client.run(async |s: Session| {
        s.sign_in("ada")?;
        s.save().await?;
        s.renew()?;
        s.save().await
    });
    assert_seen(&seen.await.ok(), "load update sign_in", Told::Cookie);
    assert_eq!(client.owner().await.as_deref(), Some("ada"));

    let seen = client.run(async |s: Session| {
        s.renew()?;
        s.save().await?;
        s.destroy()?;
        s.save().await
    });
    assert_seen(&seen.await.ok(), "load update delete", Told::Removal);

    let seen = before.run(async |s: Session| {
        s.insert("a", 1)?;
        s.save().await?;
        s.destroy()?;
        s.save().await?;
        s.insert("b", 1)?;
        s.save().await
    });
    assert_seen(&seen.await.ok(), "load delete create create", Told::Cookie);
    assert_eq!(before.look(Session::keys).await, ["b"]);
    assert_eq!(before.server.memory.len(), 1);
}

/// What a `save` has announced and has ended since is not announced.
#[tokio::test]
async fn the_cookie_of_a_saved_session_that_has_ended_meanwhile_is_not_sent() {
    for visitor in [false, true] {
        let server = Server::new();
        let client = if visitor {
            server.visitor().await
        } else {
            server.client()
        };
        let memory = server.memory.clone();
        let seen = client.run(async move |s: Session| {
            s.sign_in("ada")?;
            s.save().await?;
            memory.delete(s.id().unwrap()).await.unwrap();
            s.insert("a", 1)
        });
        assert_eq!(seen.await.ok().told(), Told::Vary);
        assert!(server.memory.is_empty());
    }
}

#[tokio::test]
async fn a_save_on_a_session_that_has_ended_is_gone() {
    let client = Server::new().visitor().await;
    let elsewhere = client.twin();
    let seen = client.run(async move |s: Session| {
        elsewhere.get("/logout").await.ok();
        s.insert("a", 1)?;
        let error = s.save().await.unwrap_err();
        assert!(error.is_gone() && !error.is_superseded());
        assert!(!s.contains("a"), "the changes are dropped");
        s.insert("b", 1)?;
        assert!(s.reopen().await.unwrap_err().is_gone());
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Vary);
    assert!(client.server.memory.is_empty());
}

#[tokio::test]
async fn a_save_under_a_superseded_token_is_superseded() {
    let client = Server::new().visitor().await;
    let elsewhere = client.twin();
    let signing_in = elsewhere.clone();
    let seen = client.run(async move |s: Session| {
        signing_in.get("/login").await.ok();
        s.insert("n", 99)?;
        let error = s.save().await.unwrap_err();
        assert!(error.is_superseded() && !error.is_gone());
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Vary);
    assert_eq!(elsewhere.get("/read").await.text(), r#"["ada",1]"#);
}

/// A failed `save` leaves its changes pending, for the next or for the end.
#[tokio::test]
async fn a_save_that_fails_is_made_up_for_by_the_response() {
    let client = Server::new().visitor().await;
    let store = client.server.store.clone();
    let elsewhere = client.twin_at(&client.server.beside(|b| b));
    let seen = client.run(async move |s: Session| {
        store.inject(Operation::SignIn, 1, Fault::Fail);
        s.update("n", |n: &mut u64| *n += 1)?;
        s.sign_in("ada")?;
        assert!(s.save().await.unwrap_err().is_store());
        assert_eq!(s.get::<u64>("n")?, Some(2));
        // Also if they have to be done again on newer data.
        elsewhere.get("/write").await.ok();
        s.update("n", |n: &mut u64| *n += 1)
    });
    assert_seen(
        &seen.await.ok(),
        "load load load update sign_in sign_in sign_in",
        Told::Cookie,
    );
    assert_eq!(client.get("/read").await.text(), r#"["ada",4]"#);
}

/// S-53: the same for a sign-out.
#[tokio::test]
async fn a_sign_out_that_fails_in_a_save_is_made_up_for_by_the_response() {
    let client = Server::new().visitor().await;
    let store = client.server.store.clone();
    let seen = client.run(async move |s: Session| {
        store.inject(Operation::Delete, 1, Fault::Fail);
        s.destroy()?;
        assert!(s.save().await.unwrap_err().is_store());
        Ok::<_, Error>(())
    });
    assert_seen(&seen.await.ok(), "load delete delete", Told::Removal);
    assert!(client.server.memory.is_empty());
}

/// `save` does what it was asked; upkeep is for the end of the request.
#[tokio::test]
async fn a_save_neither_touches_nor_renews() {
    for (renew_every, calls) in [(DAY, "load touch"), (10 * MINUTE, "load update")] {
        let server = Server::with(|b| b.renew_every(renew_every));
        let client = server.visitor().await;
        server.clock.advance(30 * MINUTE);
        let store = server.store.clone();
        let before = store.total_calls();
        let seen = client.run(async move |s: Session| {
            s.save().await?;
            assert_eq!(store.total_calls(), before + 1);
            Ok::<_, Error>(())
        });
        assert_eq!(seen.await.ok().calls, calls);
    }
}

/// S-53: whatever else is under way, a session that was destroyed does not stay.
#[tokio::test]
async fn destroy_during_the_save_that_creates_the_session_ends_it() {
    let client = Server::new().client();
    let store = client.server.store.clone();
    let seen = client.run(async move |s: Session| {
        let pause = Pause::new();
        store.inject(Operation::Create, 1, Fault::Pause(pause.clone()));
        s.insert("n", 1)?;
        let destroying = async {
            pause.reached().await;
            let destroyed = s.destroy();
            pause.release();
            destroyed
        };
        let (saved, destroyed) = tokio::join!(s.save(), destroying);
        saved.and(destroyed)
    });
    let seen = seen.await.ok();
    assert_ne!(seen.told(), Told::Cookie, "{seen:?}");
    assert!(client.server.memory.is_empty());
}

/// Changes made while a `save` is under way are not part of it, and not lost.
#[tokio::test]
async fn a_change_during_a_save_is_written_by_the_next() {
    let client = Server::new().visitor().await;
    let store = client.server.store.clone();
    let seen = client.run(async move |s: Session| {
        let pause = Pause::new();
        store.inject(Operation::Update, 1, Fault::Pause(pause.clone()));
        s.update("n", |n: &mut u64| *n += 1)?;
        let changing = async {
            pause.reached().await;
            let changed = s.update("n", |n: &mut u64| *n += 1);
            pause.release();
            changed
        };
        let (saved, changed) = tokio::join!(s.save(), changing);
        saved.and(changed)
    });
    assert_seen(&seen.await.ok(), "load update update", Told::Vary);
    assert_eq!(client.value("n").await, Some(3));
}

/// The same where the save meets a conflict: everybody's changes are in it in the end.
#[tokio::test]
async fn a_change_during_a_save_survives_the_conflict_that_the_save_meets() {
    let client = Server::new().visitor().await;
    let store = client.server.store.clone();
    let elsewhere = client.twin_at(&client.server.beside(|b| b));
    let seen = client.run(async move |s: Session| {
        let pause = Pause::new();
        store.inject(Operation::Update, 1, Fault::Pause(pause.clone()));
        s.update("n", |n: &mut u64| *n += 1)?;
        s.insert("saved", 1)?;
        let changing = async {
            pause.reached().await;
            elsewhere.get("/write").await.ok();
            s.update("n", |n: &mut u64| *n += 1)?;
            s.remove("saved")?;
            pause.release();
            Ok(())
        };
        let (saved, changed) = tokio::join!(s.save(), changing);
        saved.and(changed)?;
        assert_eq!(s.get::<u64>("n")?, Some(4));
        assert_eq!(s.keys(), ["n"]);
        Ok::<_, Error>(())
    });
    seen.await.ok();
    assert_eq!(client.value("n").await, Some(4));
    assert_eq!(client.look(Session::keys).await, ["n"]);
}

/// Clones that save at once wait for each other; there is one write for what one of them could do.
#[tokio::test]
async fn two_saves_at_once_write_once() {
    let client = Server::new().visitor().await;
    let seen = client.run(async |s: Session| {
        s.update("n", |n: &mut u64| *n += 1)?;
        let (one, other) = tokio::join!(s.save(), s.save());
        one.and(other)
    });
    assert_seen(&seen.await.ok(), "load update", Told::Vary);
    assert_eq!(client.value("n").await, Some(2));
}

/// The handle of a response that has left.
async fn left_behind(client: &Client) -> Session {
    let (put, get) = oneshot::channel();
    client.act(move |s| drop(put.send(s.clone()))).await.ok();
    get.await.unwrap()
}

/// S-67: "After the response head is out a mutation is an `Error` of kind "committed", not silence."
#[tokio::test]
async fn a_change_after_the_head_is_refused_and_reading_goes_on() {
    let client = Server::new().visitor().await;
    let late = left_behind(&client).await;
    client.server.store.reset_counts();
    let refused = [
        late.insert("a", 1),
        late.insert("n", 1),
        late.update("a", |a: &mut u64| *a += 1),
        late.take::<u64>("n").map(drop),
        late.remove("n").map(drop),
        late.clear(),
        late.renew(),
        late.sign_in("ada"),
        late.destroy(),
        late.remember(DAY),
        late.save().await,
    ];
    for (row, result) in refused.into_iter().enumerate() {
        assert!(result.unwrap_err().is_committed(), "{row}");
    }
    assert_eq!(late.get::<u64>("n").unwrap(), Some(1));
    assert_eq!((late.len(), late.owner()), (1, None));
    assert_eq!(client.server.store.total_calls(), 0);
}

/// "… a stream, SSE or WebSocket task that must write later asks for `session.reopen().await`: a handle
/// of its own, loaded afresh, that writes with `save().await` …"
#[tokio::test]
async fn a_task_that_outlives_the_response_writes_through_a_reopened_session() {
    let client = Server::new().client();
    let (go, wait) = oneshot::channel::<()>();
    let (put, task) = oneshot::channel();
    let seen = client.run(async move |s: Session| {
        s.insert("n", 1)?;
        let late = s.clone();
        let task = tokio::spawn(async move {
            wait.await.unwrap();
            assert!(late.insert("n", 9).unwrap_err().is_committed());
            let session = late.reopen().await?;
            session.update("n", |n: &mut u64| *n += 1)?;
            session.save().await
        });
        put.send(task).unwrap();
        Ok::<_, Error>(())
    });
    assert_seen(&seen.await.ok(), "create", Told::Cookie);
    client.get("/write").await.ok();
    go.send(()).unwrap();
    task.await.unwrap().await.unwrap().unwrap();
    assert_eq!(client.value("n").await, Some(3));
}

/// The same in the body of a response, which begins when the head is out.
#[tokio::test]
async fn a_streaming_body_writes_through_a_reopened_session() {
    struct Late(Option<Pin<Box<dyn Future<Output = String> + Send>>>);

    impl HttpBody for Late {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut TaskContext<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            let Some(future) = &mut self.0 else {
                return Poll::Ready(None);
            };
            let text = ready!(future.as_mut().poll(cx));
            self.0 = None;
            Poll::Ready(Some(Ok(Frame::data(text.into()))))
        }
    }

    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let s = s.clone();
        Body::new(Late(Some(Box::pin(async move {
            assert!(s.insert("n", 9).unwrap_err().is_committed());
            let session = s.reopen().await.unwrap();
            session.insert("late", true).unwrap();
            session.save().await.unwrap();
            "written".to_owned()
        }))))
    });
    let seen = seen.await.ok();
    assert_eq!((seen.text(), seen.told()), ("written", Told::Vary));
    assert_eq!(client.look(Session::keys).await, ["late", "n"]);
}

/// "… by the same compare-and-swap": it builds on what requests have stored, and they on it.
#[tokio::test]
async fn a_reopened_session_merges_with_what_others_write() {
    let client = Server::new().visitor().await;
    let session = left_behind(&client).await.reopen().await.unwrap();
    for round in 1..=3 {
        session.update("n", |n: &mut u64| *n += 1).unwrap();
        client.get("/write").await.ok();
        session.insert("round", round).unwrap();
        session.save().await.unwrap();
        assert_eq!(client.value("n").await, Some(1 + 2 * round));
        assert_eq!(client.value("round").await, Some(round));
        assert_eq!(session.get::<u64>("n").unwrap(), Some(1 + 2 * round));
    }
}

/// "… and refuses `renew` and `sign_in`, whose cookie could no longer be sent."
#[tokio::test]
async fn a_reopened_session_refuses_what_needs_a_cookie() {
    let client = Server::new().visitor().await;
    let session = left_behind(&client).await.reopen().await.unwrap();
    for result in [
        session.renew(),
        session.sign_in("ada"),
        session.remember(DAY),
    ] {
        assert!(result.unwrap_err().is_committed());
    }
    session.save().await.unwrap();
    assert_eq!(client.get("/read").await.text(), "[null,1]");
    session.destroy().unwrap();
    session.save().await.unwrap();
    assert!(!client.is_known().await);
    // No client would have a token for what came after.
    assert!(session.insert("a", 1).unwrap_err().is_gone());
    session.save().await.unwrap();
    assert!(client.server.memory.is_empty());
}

/// Nothing keeps a task in a session that its client has left.
#[tokio::test]
async fn reopening_a_session_that_has_ended_or_changed_hands_is_gone() {
    let client = Server::new().visitor().await;
    let late = left_behind(&client).await;
    let open = late.reopen().await.unwrap();
    client.get("/login").await.ok();
    assert!(late.reopen().await.unwrap_err().is_gone());
    open.insert("n", 99).unwrap();
    assert!(open.save().await.unwrap_err().is_superseded());

    let late = left_behind(&client).await;
    let open = late.reopen().await.unwrap();
    client.get("/logout").await.ok();
    assert!(late.reopen().await.unwrap_err().is_gone());
    open.insert("n", 99).unwrap();
    assert!(open.save().await.unwrap_err().is_gone());
    assert!(client.server.memory.is_empty());

    let never_stored = left_behind(&client.server.client()).await;
    assert!(never_stored.reopen().await.unwrap_err().is_gone());
}
