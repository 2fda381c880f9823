//! A renewal or a sign-in whose answer nobody waits for, or that comes too late: whatever happens then, the client
//! is not left with a token that was replaced already (S-42).

use std::time::Duration;

use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Error, OnConflict, Session, WhenFull};
use http::StatusCode;

use crate::support::{Server, Store, Told};

const MILLISECOND: Duration = Duration::from_millis(1);

/// A `save` that is given up after its `n`-th call from now on was carried out.
async fn give_up(session: &Session, store: &Store, operation: Operation, n: u64) {
    store.inject(operation, n, Fault::PauseAfter(Pause::new()));
    let save = tokio::time::timeout(MILLISECOND, session.save());
    assert!(save.await.is_err());
}

/// What renews the token, and the call of the store that does it.
fn renew(session: &Session, operation: Operation) -> cloakroom::Result<()> {
    match operation {
        Operation::SignIn => session.sign_in("ada"),
        _ => session.renew(),
    }
}

#[tokio::test(start_paused = true)]
async fn the_response_makes_up_for_it() {
    for (operation, saves) in [
        (Operation::Update, 1),
        (Operation::SignIn, 1),
        (Operation::Update, 3),
        (Operation::SignIn, 3),
    ] {
        let client = Server::new().visitor().await;
        let store = client.server.store.clone();
        let seen = client.run(async move |s: Session| {
            renew(&s, operation)?;
            for _ in 0..saves {
                give_up(&s, &store, operation, 1).await;
            }
            s.insert("after", 1)
        });
        assert_eq!(seen.await.ok().told(), Told::Cookie, "{operation:?}");
        let owner = (operation == Operation::SignIn).then_some("ada");
        assert_eq!(client.record().await.unwrap().owner.as_deref(), owner);
        assert_eq!(client.value("n").await, Some(1));
        assert_eq!(client.value("after").await, Some(1));
        assert_eq!(client.server.memory.len(), 1);
    }
}

/// The second meets what the first has done, and then does nothing itself.
#[tokio::test(start_paused = true)]
async fn a_second_save_may_fail_as_well() {
    for operation in [Operation::Update, Operation::SignIn] {
        for fault in [Fault::Fail, Fault::Hang] {
            let client = Server::new().visitor().await;
            let store = client.server.store.clone();
            let seen = client.run(async move |s: Session| {
                renew(&s, operation)?;
                give_up(&s, &store, operation, 1).await;
                store.inject(operation, 2, fault.clone());
                let save = tokio::time::timeout(MILLISECOND, s.save());
                assert!(!matches!(save.await, Ok(Ok(()))));
                Ok::<_, Error>(())
            });
            assert_eq!(seen.await.ok().told(), Told::Cookie, "{operation:?}");
            assert!(client.is_known().await, "{operation:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_that_fails_for_another_reason_announces_the_token() {
    for takes_back in [false, true] {
        let client = Server::with(|b| b.max_size(100)).visitor().await;
        let store = client.server.store.clone();
        let elsewhere = client.twin_at(&client.server.beside(|b| b.max_size(100)));
        let seen = client.run(async move |s: Session| {
            let large = "x".repeat(60);
            let theirs = large.clone();
            elsewhere
                .act(move |s| s.insert("theirs", &theirs))
                .await
                .ok();
            s.renew()?;
            // The first meets a conflict.
            give_up(&s, &store, Operation::Update, 2).await;
            s.insert("mine", &large)?;
            if takes_back {
                assert!(s.save().await.unwrap_err().is_too_large());
                s.remove("mine")?;
            }
            Ok::<_, Error>(())
        });
        let seen = seen.await;
        assert_eq!(seen.status == StatusCode::OK, takes_back);
        assert_eq!(seen.told(), Told::Cookie);
        assert!(client.is_known().await);
    }
}

/// Under `Reject`, a request is not refused for what it wrote itself.
#[tokio::test(start_paused = true)]
async fn its_own_write_is_no_conflict() {
    let client = Server::with(|b| b.on_conflict(OnConflict::Reject));
    let client = client.visitor().await;
    let store = client.server.store.clone();
    let seen = client.run(async move |s: Session| {
        let n = s.get::<u64>("n")?.unwrap_or_default();
        s.insert("n", n + 1)?;
        s.renew()?;
        give_up(&s, &store, Operation::Update, 1).await;
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert_eq!(client.value("n").await, Some(2));
}

/// A session that nobody has a token for is not one of its owner's.
#[tokio::test(start_paused = true)]
async fn a_sign_in_leaves_no_second_session_behind() {
    let server = Server::with(|b| b.max_sessions_per_owner(1, WhenFull::Refuse));
    let client = server.client();
    let store = server.store.clone();
    let seen = client.run(async move |s: Session| {
        s.sign_in("ada")?;
        give_up(&s, &store, Operation::SignIn, 1).await;
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert!(client.is_known().await);
    assert_eq!(server.memory.len(), 1);
}

/// The answer to the response's own commit is late, whether that was carried out or not: it is asked once more.
#[tokio::test(start_paused = true)]
async fn a_late_answer_is_asked_for_once_more() {
    let lost = || Fault::PauseAfter(Pause::new());
    for (operation, fault) in [
        (Operation::Update, lost()),
        (Operation::SignIn, lost()),
        (Operation::Update, Fault::Hang),
        (Operation::SignIn, Fault::Hang),
    ] {
        let client = Server::new().visitor().await;
        let server = client.server.clone();
        let before = client.the_token();
        server.store.inject(operation, 1, fault.clone());
        let seen = client.act(move |s| {
            s.update("n", |n: &mut u64| *n += 1)?;
            renew(s, operation)
        });
        let seen = seen.await.ok();
        assert_eq!(seen.told(), Told::Cookie, "{operation:?} {fault:?}");
        assert_eq!(server.store.calls(operation), 2);
        let owner = (operation == Operation::SignIn).then_some("ada");
        let record = client.record().await.unwrap();
        assert_eq!(record.owner.as_deref(), owner);
        assert_eq!(record.version.get(), 2, "written once");
        // Not twice, although it was asked twice.
        assert_eq!(client.value("n").await, Some(2), "{operation:?} {fault:?}");
        assert!(!server.holding(&before).is_known().await);
    }
}

/// Unless the second answer is late as well. What needs no other token is not asked again.
#[tokio::test(start_paused = true)]
async fn a_late_answer_is_asked_for_no_more_than_that() {
    let client = Server::new().visitor().await;
    let server = client.server.clone();
    server.store.always(Operation::Update, Fault::Hang);
    let began = tokio::time::Instant::now();
    let seen = client.act(Session::renew).await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(seen.told(), Told::Vary);
    assert_eq!(began.elapsed().as_secs(), 10, "twice the `store_timeout`");
    let seen = client.get("/write").await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(began.elapsed().as_secs(), 15);
    server.store.heal();
    assert!(client.is_known().await);
}

/// What an earlier `save` of the request did is one thing, what came after it another.
#[tokio::test(start_paused = true)]
async fn a_late_answer_after_a_save_that_was_given_up() {
    for fault in [Fault::Hang, Fault::PauseAfter(Pause::new())] {
        let client = Server::new().visitor().await;
        let store = client.server.store.clone();
        let late = fault.clone();
        let seen = client.run(async move |s: Session| {
            s.insert("before", 1)?;
            s.renew()?;
            give_up(&s, &store, Operation::Update, 1).await;
            s.insert("after", 1)?;
            // The next one meets a conflict.
            store.inject(Operation::Update, 2, late);
            s.update("n", |n: &mut u64| *n += 1)
        });
        assert_eq!(seen.await.ok().told(), Told::Cookie, "{fault:?}");
        for key in ["before", "after"] {
            assert_eq!(client.value(key).await, Some(1), "{key} {fault:?}");
        }
        assert_eq!(client.value("n").await, Some(2), "{fault:?}");
    }
}

/// Who was signed out by somebody else meanwhile stays so.
#[tokio::test(start_paused = true)]
async fn a_late_answer_brings_nothing_back() {
    let client = Server::new().visitor().await;
    let server = client.server.clone();
    let pause = Pause::new();
    let lost = Fault::PauseAfter(pause.clone());
    server.store.inject(Operation::Update, 1, lost);
    let id = client.id();
    let (seen, ()) = tokio::join!(client.act(Session::renew), async {
        pause.reached().await;
        server.sessions.revoke(id).await.unwrap();
    });
    assert_eq!(seen.ok().told(), Told::Vary);
    assert!(server.memory.is_empty());
}
