//! Several requests of one client at once. What happens in between happens while a handler or a store
//! call waits for it; nothing here depends on how long anything takes.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Error, OnConflict, Session};
use http::StatusCode;
use tokio::sync::Barrier;

use crate::support::{Client, Server, Settings, Slow, Told, at_once};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

type Work = fn(&Session) -> Result<(), Error>;

fn increment(session: &Session) -> Result<(), Error> {
    session.update("n", |n: &mut u64| *n += 1)
}

/// A random pause.
async fn dawdle() {
    let random = RandomState::new().hash_one(0);
    for _ in 0..random % 4 {
        tokio::task::yield_now().await;
    }
    tokio::time::sleep(Duration::from_micros((random >> 8) % 1_500)).await;
}

/// The same client as seen by two processes.
fn at_two_processes(client: &Client) -> [Client; 2] {
    [client.clone(), client.twin_at(&client.server.beside(|b| b))]
}

/// S-65: from two processes, 200 runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_parallel_updates_of_one_key_count_to_sixty_four() {
    for run in 0..200 {
        let client = Server::new().client();
        client.act(|s| s.insert("n", 0)).await.ok();
        let responses = at_once(
            64,
            at_two_processes(&client),
            async |_, session: Session| {
                dawdle().await;
                increment(&session)?;
                dawdle().await;
                Ok(())
            },
        );
        for seen in responses.await {
            assert_eq!(seen.ok().told(), Told::Vary);
        }
        assert_eq!(client.value("n").await, Some(64), "run {run}");
    }
}

/// S-65.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_parallel_inserts_of_different_keys_are_all_there() {
    for run in 0..50 {
        let client = Server::new().visitor().await;
        let responses = at_once(
            64,
            at_two_processes(&client),
            async |i, session: Session| {
                dawdle().await;
                session.insert(format!("key {i}"), i)
            },
        );
        for seen in responses.await {
            seen.ok();
        }
        assert_eq!(client.look(Session::len).await, 65, "run {run}");
    }
}

/// S-65: A sets a, B sets b, and B overtakes A on the way to the store.
#[tokio::test]
async fn two_writers_of_different_keys_do_not_disturb_each_other() {
    let client = Server::new().visitor().await;
    let [a, b] = at_two_processes(&client);
    let pause = Pause::new();
    client
        .server
        .store
        .inject(Operation::Update, 1, Fault::Pause(pause.clone()));
    let slow = tokio::spawn(async move { a.act(|s| s.insert("a", 1)).await });
    pause.reached().await;
    b.act(|s| s.insert("b", 1)).await.ok();
    pause.release();
    slow.await.unwrap().ok();
    assert_eq!(client.look(Session::keys).await, ["a", "b", "n"]);
}

/// Within one process, commits that overlap wait in line, and each is handed what the one before it
/// wrote. One that was not in the line then meets one conflict.
// Time stands still until all wait: who comes when a commit ends is not in line.
#[tokio::test(start_paused = true)]
async fn parallel_updates_in_one_process_cost_one_store_call_or_two() {
    for (store_takes, calls) in [
        (Duration::from_millis(1), 64..=64),
        (Duration::ZERO, 64..=128),
    ] {
        let client = Server::new().visitor().await;
        let store = client.server.store.clone();
        if !store_takes.is_zero() {
            store.always(Operation::Update, Fault::Delay(store_takes));
        }
        let all_loaded = Arc::new(Barrier::new(64));
        let responses = at_once(64, [client.clone()], move |_, session| {
            let all_loaded = Arc::clone(&all_loaded);
            async move {
                all_loaded.wait().await;
                increment(&session)
            }
        });
        for seen in responses.await {
            seen.ok();
        }
        assert_eq!(client.value("n").await, Some(65));
        let called = store.calls(Operation::Update);
        assert!(
            calls.contains(&called),
            "{called} for a store that takes {store_takes:?}"
        );
    }
}

/// S-62: 1 000 of 1 000, half of them in another process than the sign-out.
#[tokio::test]
async fn a_slow_write_does_not_bring_a_session_back() {
    let server = Server::new();
    let elsewhere = server.beside(|b| b);
    for run in 0..1_000 {
        let client = server.visitor().await;
        let slow = client.twin_at(if run % 2 == 0 { &server } else { &elsewhere });
        let write = Slow::start(&slow, increment).await;
        assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
        assert_eq!(write.finish().await.ok().told(), Told::Vary, "run {run}");
        assert!(!slow.is_known().await);
        assert!(server.memory.is_empty());
    }
}

/// S-62, in any order that two threads find.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_sign_out_sticks_whatever_else_is_under_way() {
    let server = Server::new();
    for run in 0..300 {
        let client = server.visitor().await;
        let clients = at_two_processes(&client).map(|client| client.twin());
        let responses = at_once(8, clients, async |i, session: Session| {
            dawdle().await;
            match (i, session.is_new()) {
                (3, _) => session.destroy(),
                (_, false) => increment(&session),
                (_, true) => Ok(()),
            }
        });
        for seen in responses.await {
            assert_ne!(seen.ok().told(), Told::Cookie, "run {run}");
        }
        assert!(!client.is_known().await);
        assert!(server.memory.is_empty());
    }
}

/// S-63: what an in-flight request of before the sign-in does has no effect on the session after it.
#[tokio::test]
async fn a_slow_write_of_before_the_sign_in_writes_nothing() {
    let changes: [Work; 4] = [
        increment,
        |s| s.insert("planted", 1),
        Session::renew,
        |s| s.sign_in("mallory"),
    ];
    let server = Server::new();
    for elsewhere in [server.clone(), server.beside(|b| b)] {
        for change in changes {
            let client = server.visitor().await;
            let slow = client.twin_at(&elsewhere);
            let write = Slow::start(&slow, change).await;
            client.get("/login").await.ok();
            assert_eq!(write.finish().await.ok().told(), Told::Vary);
            assert!(!slow.is_known().await);
            assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
            assert_eq!(client.look(Session::keys).await, ["n"]);
        }
    }
}

/// A renewal that meets a conflict takes the newer values along.
#[tokio::test]
async fn a_sign_in_keeps_what_parallel_requests_wrote_before_it() {
    let server = Server::new();
    for elsewhere in [server.clone(), server.beside(|b| b)] {
        for (renewal, owner) in [("sign in", Some("ada")), ("renew", None)] {
            let client = server.visitor().await;
            let other = client.twin_at(&elsewhere);
            let slow = Slow::start(&client, move |s| match owner {
                Some(owner) => s.sign_in(owner),
                None => s.renew(),
            });
            let slow = slow.await;
            other.get("/write").await.ok();
            let seen = slow.finish().await.ok();
            assert_eq!(seen.told(), Told::Cookie, "{renewal}");
            assert_eq!(client.value("n").await, Some(2), "{renewal}");
            assert_eq!(client.owner().await.as_deref(), owner, "{renewal}");
            assert!(!other.is_known().await);
        }
    }
}

/// S-63: across a periodic renewal, within the grace, it merges.
#[tokio::test]
async fn a_slow_write_of_before_a_periodic_renewal_merges_within_the_grace() {
    let server = Server::with(|b| b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND));
    for (wait, expected, told) in [(4 * SECOND, 3, Told::Vary), (5 * SECOND, 2, Told::Vary)] {
        let client = server.visitor().await;
        let slow = client.twin();
        let write = Slow::start(&slow, increment).await;
        server.clock.advance(15 * MINUTE);
        assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
        server.clock.advance(wait);
        assert_eq!(write.finish().await.ok().told(), told);
        assert_eq!(client.value("n").await, Some(expected));
    }
}

/// S-63: "a write counts only while the token that its request came with is still accepted", also when
/// nobody else wrote in between.
#[tokio::test]
async fn a_slow_write_under_a_token_whose_grace_runs_out_meanwhile_writes_nothing() {
    let server = Server::with(|b| b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND));
    let works: [Work; 3] = [increment, Session::renew, |s| s.sign_in("ada")];
    for work in works {
        let client = server.visitor().await;
        let old = client.twin();
        server.clock.advance(15 * MINUTE);
        client.get("/read").await.ok();
        let write = Slow::start(&old, work).await;
        server.clock.advance(5 * SECOND);
        assert_eq!(write.finish().await.ok().told(), Told::Vary);
        assert_eq!(client.get("/read").await.text(), "[null,1]");
    }
}

/// S-44, S-63: many requests with one token when its renewal is due.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_requests_renew_a_token_once_and_all_of_them_pass() {
    for run in 0..50 {
        let settings = |b: Settings| b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND);
        let server = Server::with(settings);
        let client = server.visitor().await;
        let old = client.twin();
        server.clock.advance(15 * MINUTE);
        let clients = [client.clone(), client.twin_at(&server.beside(settings))];
        let responses = at_once(32, clients, async |i, session: Session| {
            assert!(!session.is_new());
            dawdle().await;
            if i % 4 < 2 {
                increment(&session)
            } else {
                Ok(())
            }
        });
        let tokens: Vec<_> = responses
            .await
            .into_iter()
            .filter_map(|s| s.ok().cookie())
            .collect();
        assert_eq!(tokens.len(), 1, "run {run}");
        let new = server.holding(&tokens[0].token);
        assert_eq!(new.value("n").await, Some(17));

        assert!(old.is_known().await);
        server.clock.advance(5 * SECOND);
        assert!(!old.is_known().await);
        assert!(new.is_known().await);
    }
}

/// S-44: a token in its grace is used up, not handed out again in the place of its successor.
#[tokio::test]
async fn a_token_in_its_grace_is_not_sent_again() {
    let settings = |b: Settings| {
        b.persistent(true)
            .renew_every(15 * MINUTE)
            .renewal_grace(10 * MINUTE)
            .touch_interval(30 * SECOND)
    };
    let client = Server::with(settings).visitor().await;
    let old = client.twin();
    client.server.clock.advance(15 * MINUTE);
    assert_eq!(client.get("/read").await.told(), Told::Cookie);
    for path in ["/write", "/read"] {
        client.server.clock.advance(MINUTE);
        assert_eq!(old.get(path).await.ok().told(), Told::Vary);
        client.server.clock.advance(MINUTE);
        // The same request with the current token renews the cookie's age.
        assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    }
    client.server.clock.advance(5 * MINUTE);
    let seen = old.get("/read").await.ok();
    assert_eq!(
        (&*seen.calls, seen.told()),
        ("load update", Told::Vary),
        "its touch is due"
    );
}

/// S-38, S-44: never any grace after an authentication, or what else the application renews the token for, also for
/// the one that a periodic renewal has just replaced.
#[tokio::test]
async fn a_sign_in_ends_the_grace_of_the_token_before_it() {
    let renewals: [fn(&Session) -> cloakroom::Result<()>; 2] =
        [|s| s.sign_in("ada"), Session::renew];
    for renew in renewals {
        let server = Server::with(|b| b.renew_every(15 * MINUTE).renewal_grace(MINUTE));
        let client = server.visitor().await;
        let first = client.twin();
        server.clock.advance(15 * MINUTE);
        assert_eq!(client.get("/read").await.told(), Told::Cookie);
        let second = client.twin();
        assert!(first.is_known().await && second.is_known().await);
        client.act(renew).await.ok();
        for dead in [first, second] {
            assert!(!dead.is_known().await);
        }
        assert!(client.is_known().await);
    }
}

/// Of several sign-ins with one token one holds; the others write nothing and get no cookie.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn parallel_sign_ins_leave_one_live_token() {
    for run in 0..100 {
        let client = Server::new().visitor().await;
        let all_loaded = Arc::new(Barrier::new(8));
        let responses = at_once(8, at_two_processes(&client), move |_, session| {
            let all_loaded = Arc::clone(&all_loaded);
            async move {
                all_loaded.wait().await;
                session.sign_in("ada")
            }
        });
        let seen: Vec<_> = responses.await.into_iter().map(|s| s.ok().told()).collect();
        let cookies = seen.iter().filter(|told| **told == Told::Cookie).count();
        assert_eq!(cookies, 1, "run {run}: {seen:?}");
        assert_eq!(client.server.memory.len(), 1);
    }
}

/// A client's first requests, all at once: each makes a session, and none gets another's.
#[tokio::test]
async fn parallel_first_visits_make_sessions_of_their_own() {
    let server = Server::new();
    let clients: Vec<_> = (0..64).map(|_| server.client()).collect();
    let responses = at_once(64, &*clients, async |i, session: Session| {
        session.insert("n", i)
    })
    .await;
    let tokens: HashSet<_> = responses
        .into_iter()
        .map(|s| s.ok().cookie().unwrap().token)
        .collect();
    assert_eq!((tokens.len(), server.memory.len()), (64, 64));
    for (i, client) in (0..).zip(clients) {
        assert_eq!(client.value("n").await, Some(i));
    }
}

/// S-64.
#[tokio::test]
async fn a_touch_in_flight_does_not_bring_a_session_back() {
    let client = Server::new().visitor().await;
    let server = client.server.clone();
    server.clock.advance(30 * MINUTE);
    let pause = Pause::new();
    server
        .store
        .inject(Operation::Touch, 1, Fault::Pause(pause.clone()));
    let reading = client.twin();
    let read = tokio::spawn(async move { reading.get("/read").await });
    pause.reached().await;
    client.twin().get("/logout").await.ok();
    pause.release();
    assert_eq!(read.await.unwrap().ok().told(), Told::Vary);
    assert!(server.memory.is_empty());
    assert!(!client.is_known().await);
}

/// `OnConflict::Reject`: 409 when a key that was read and then set has changed meanwhile.
#[tokio::test]
async fn a_set_that_builds_on_an_outdated_read_is_rejected_if_so_configured() {
    let read_then_set: Work = |s| {
        let n: u64 = s.get("n")?.unwrap_or_default();
        s.insert("n", n + 100)
    };
    let table: [(&str, Work, bool); 7] = [
        ("get, insert", read_then_set, true),
        (
            "contains, remove",
            |s| {
                s.contains("n")
                    .then(|| s.remove("n"))
                    .map_or(Ok(()), |_| Ok(()))
            },
            true,
        ),
        ("take", |s| s.take::<u64>("n").map(drop), true),
        ("get, clear", |s| s.get::<u64>("n").and(s.clear()), true),
        ("insert alone", |s| s.insert("n", 100), false),
        (
            "another key",
            |s| s.get::<u64>("n").and(s.insert("m", 100)),
            false,
        ),
        ("update", |s| s.get::<u64>("n").and(increment(s)), false),
    ];
    for (what, work, rejected) in table {
        for reject in [true, false] {
            let settings = |b: Settings| {
                let reject = if reject {
                    OnConflict::Reject
                } else {
                    OnConflict::LastWriteWins
                };
                b.on_conflict(reject)
            };
            let server = Server::with(settings);
            let client = server.visitor().await;
            for slow in [client.twin(), client.twin_at(&server.beside(settings))] {
                client.act(|s| s.insert("n", 1)).await.ok();
                let write = Slow::start(&slow, work).await;
                client.get("/write").await.ok();
                let seen = write.finish().await;
                if rejected && reject {
                    assert_eq!(seen.status, StatusCode::CONFLICT, "{what}");
                    assert!(seen.error().is_conflict());
                    assert_eq!(client.value("n").await, Some(2), "{what}");
                } else {
                    assert_eq!(seen.status, StatusCode::OK, "{what}");
                }
                assert_eq!(seen.told(), Told::Vary);
            }
        }
    }
}

/// The same when a `save` lies between the read and the set, on either side of the parallel write.
#[tokio::test]
async fn a_read_before_a_save_counts_for_a_set_after_it() {
    for (other_key, written_before_the_save) in
        [(false, false), (true, false), (false, true), (true, true)]
    {
        let client = Server::with(|b| b.on_conflict(OnConflict::Reject))
            .visitor()
            .await;
        let meanwhile = client.twin();
        let seen = client.run(async move |s: Session| {
            let n: u64 = s.get("n")?.unwrap_or_default();
            if other_key {
                s.insert("other", 1)?;
            }
            if written_before_the_save {
                meanwhile.get("/write").await.ok();
                s.save().await?;
            } else {
                s.save().await?;
                meanwhile.get("/write").await.ok();
            }
            s.insert("n", n + 100)
        });
        let row = (other_key, written_before_the_save);
        assert_eq!(seen.await.status, StatusCode::CONFLICT, "{row:?}");
        assert_eq!(client.value("n").await, Some(2), "{row:?}");
        assert_eq!(
            client.value("other").await,
            other_key.then_some(1),
            "{row:?}"
        );
    }
}

/// What a handler changes while a `save` is under way is not lost in silence if it does not fit what the
/// `save` found.
#[tokio::test]
async fn a_save_says_that_what_came_in_meanwhile_does_not_fit() {
    let server = Server::new();
    let client = server.visitor().await;
    let (other, store) = (client.twin(), server.store.clone());
    let work = async move |s: Session| {
        s.insert("x", 1).unwrap();
        other.act(|s| s.insert("b", "text")).await.ok();
        let pause = Pause::new();
        store.inject(Operation::Update, 2, Fault::Pause(pause.clone()));
        let save = tokio::spawn({
            let s = s.clone();
            async move { s.save().await }
        });
        pause.reached().await;
        s.update("b", |n: &mut u64| *n += 1).unwrap();
        pause.release();
        let error = save.await.unwrap().unwrap_err();
        assert!(error.is_decode(), "{error}");
        assert_eq!(s.get::<String>("b").unwrap().as_deref(), Some("text"));
    };
    client.run(work).await.ok();
    assert_eq!(client.value("x").await, Some(1));
}
