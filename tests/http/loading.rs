//! Several parts of a request that ask for its session while it is loaded.

use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{LazySession, Session};

use crate::extractors::routed;
use crate::support::{Client, Seen, Told};

type Load = Pin<Box<dyn Future<Output = cloakroom::Result<Session>> + Send>>;

fn load(lazy: &LazySession) -> Load {
    let lazy = lazy.clone();
    Box::pin(async move { lazy.load().await })
}

/// Three who ask at once: the first loads, the others wait.
async fn three(lazy: &LazySession) -> [Load; 3] {
    let mut loads = [load(lazy), load(lazy), load(lazy)];
    for load in &mut loads {
        assert!(waits(load).await);
    }
    loads
}

/// Polls once.
async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    let mut once = pin!(async {});
    tokio::select! {
        biased;
        _ = future => false,
        () = &mut once => true,
    }
}

/// A client with a session, whose requests to `/` are handled so. The first load has a fault.
async fn client<F>(
    fault: Fault,
    handler: impl Fn(LazySession) -> F + Clone + Send + Sync + 'static,
) -> Client
where
    F: Future<Output = cloakroom::Result<()>> + Send + 'static,
{
    let routes = Router::new()
        .route("/new", post(async |s: Session| s.insert("n", 1)))
        .route(
            "/",
            post(async move |lazy: LazySession| handler(lazy).await),
        );
    let timeout = Duration::from_secs(2);
    let client = routed(routes, |b| b.store_timeout(timeout)).client();
    client.get("/new").await.ok();
    client.server.store.inject(Operation::Load, 1, fault);
    client
}

/// One that waits forever fails.
async fn get(client: &Client) -> Seen {
    let patience = Duration::from_secs(30);
    let seen = tokio::time::timeout(patience, client.get("/")).await;
    seen.expect("it ends").ok()
}

fn outcome(seen: &Seen) -> (&str, Told) {
    (&seen.calls, seen.told())
}

#[tokio::test]
async fn those_who_ask_while_a_session_is_loaded_wait_and_share_it() {
    let pause = Pause::new();
    let fault = Fault::Pause(pause.clone());
    let handler = move |lazy: LazySession| {
        let pause = pause.clone();
        async move {
            let [first, second, last] = three(&lazy).await;
            pause.release();
            let loading = tokio::spawn(first);
            last.await?.insert("n", 2)?;
            assert_eq!(second.await?.get("n")?, Some(2));
            assert_eq!(loading.await.unwrap()?.get("n")?, Some(2));
            assert_eq!(lazy.load().await?.get("n")?, Some(2));
            Ok(())
        }
    };
    let client = client(fault, handler).await;
    let seen = get(&client).await;
    assert_eq!(outcome(&seen), ("load update", Told::Vary));
}

#[tokio::test]
async fn a_load_that_is_dropped_is_the_turn_of_the_next_who_waits() {
    let handler = |lazy: LazySession| async move {
        let [first, second, third] = three(&lazy).await;
        drop(first);
        let (second, third) = tokio::join!(second, third);
        second?.insert("n", 2)?;
        assert_eq!(third?.get("n")?, Some(2));
        Ok(())
    };
    let client = client(Fault::Pause(Pause::new()), handler).await;
    let seen = get(&client).await;
    assert_eq!(outcome(&seen), ("load load update", Told::Vary));
}

#[tokio::test(start_paused = true)]
async fn a_load_that_fails_is_the_turn_of_the_next_who_waits() {
    let handler = |lazy: LazySession| async move {
        let (first, second) = tokio::join!(load(&lazy), load(&lazy));
        assert!(first.unwrap_err().is_store());
        second?.insert("n", 2)
    };
    let client = client(Fault::Hang, handler).await;
    let seen = get(&client).await;
    assert_eq!(outcome(&seen), ("load load update", Told::Vary));
}

#[tokio::test]
async fn what_is_said_while_a_session_is_loaded_holds_for_it() {
    let pause = Pause::new();
    let fault = Fault::PauseAfter(pause.clone());
    let handler = move |lazy: LazySession| {
        let pause = pause.clone();
        async move {
            let mut load = load(&lazy);
            assert!(waits(&mut load).await);
            lazy.no_touch();
            pause.release();
            load.await.map(drop)
        }
    };
    let client = client(fault, handler).await;
    client.server.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(get(&client).await.calls, "load", "no touch");
}

/// Said of a session that is loaded already.
#[tokio::test]
async fn a_request_that_does_not_count_as_use_may_say_so_late() {
    let handler = |lazy: LazySession| async move {
        let session = lazy.load().await?;
        lazy.no_touch();
        session.get::<u64>("n").map(drop)
    };
    let client = client(Fault::Delay(Duration::ZERO), handler).await;
    client.server.clock.advance(Duration::from_secs(30 * 60));
    assert_eq!(get(&client).await.calls, "load", "no touch");
}

/// One that is kept and not polled takes its turn from nobody.
#[tokio::test]
async fn who_waits_and_is_not_polled_holds_up_nobody() {
    let handler = |lazy: LazySession| async move {
        let [first, second, third] = three(&lazy).await;
        drop(first);
        third.await?.insert("n", 2)?;
        drop(second);
        Ok(())
    };
    let client = client(Fault::Pause(Pause::new()), handler).await;
    assert_eq!(get(&client).await.calls, "load load update");
}

/// What asks while the end of its request waits for a `save` takes none of its changes away.
#[tokio::test]
async fn who_asks_while_the_response_is_made_up_changes_nothing() {
    let kept = Arc::new(Mutex::new(None));
    let handler = {
        let kept = Arc::clone(&kept);
        move |lazy: LazySession| {
            let kept = Arc::clone(&kept);
            async move {
                let session = lazy.load().await?;
                session.insert("saved", 1)?;
                let saving = session.clone();
                let mut save = Box::pin(async move { saving.save().await });
                assert!(waits(&mut save).await);
                session.insert("later", 1)?;
                *kept.lock().unwrap() = Some((lazy, save));
                Ok(())
            }
        }
    };
    let client = client(Fault::Delay(Duration::ZERO), handler).await;
    let pause = Pause::new();
    let fault = Fault::Pause(pause.clone());
    client.server.store.inject(Operation::Update, 1, fault);
    let late = async {
        pause.reached().await;
        let (lazy, save) = loop {
            let ready = kept.lock().unwrap().take();
            match ready {
                Some(ready) => break ready,
                None => tokio::task::yield_now().await,
            }
        };
        assert_eq!(lazy.load().await.unwrap().get("later").unwrap(), Some(1));
        pause.release();
        save.await.unwrap();
    };
    let (seen, ()) = tokio::join!(get(&client), late);
    assert_eq!(seen.calls, "load update update");
    assert_eq!(client.record().await.unwrap().version.get(), 3);
}

/// A request that nobody waits for any more, given up while its session was loaded.
#[tokio::test]
async fn a_session_that_is_loaded_after_its_request_was_given_up_is_closed() {
    let kept = Arc::new(Mutex::new(None));
    let handler = {
        let kept = Arc::clone(&kept);
        move |lazy: LazySession| {
            *kept.lock().unwrap() = Some(lazy.clone());
            async move { lazy.load().await.map(drop) }
        }
    };
    let client = client(Fault::Pause(Pause::new()), handler).await;
    let mut request = Box::pin(client.get("/"));
    assert!(waits(&mut request).await);
    drop(request);
    let lazy = kept.lock().unwrap().take().unwrap();
    let session = lazy.load().await.unwrap();
    assert!(session.insert("n", 2).unwrap_err().is_committed());
}

/// A session that is loaded too late can be read, and says that it can no longer be changed.
#[tokio::test]
async fn a_session_whose_request_ended_while_it_was_loaded_is_closed() {
    let pause = Pause::new();
    let late = Arc::new(Mutex::new(None));
    let fault = Fault::Pause(pause.clone());
    let handler = {
        let late = Arc::clone(&late);
        move |lazy: LazySession| {
            let late = Arc::clone(&late);
            async move {
                let mut load = load(&lazy);
                assert!(waits(&mut load).await);
                *late.lock().unwrap() = Some(load);
                Ok(())
            }
        }
    };
    let client = client(fault, handler).await;
    let seen = get(&client).await;
    assert_eq!(seen.told(), Told::Vary, "the session was asked for");
    pause.release();
    let late = late.lock().unwrap().take().unwrap();
    let session = late.await.unwrap();
    assert_eq!(session.get("n").unwrap(), Some(1));
    assert!(session.insert("n", 2).unwrap_err().is_committed());
}

/// On several threads, some of which give up.
#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_at_once_all_get_one_session() {
    const ASKING: u64 = 6;
    let handler = |lazy: LazySession| async move {
        let asking: Vec<_> = (0..ASKING)
            .map(|n| {
                let load = load(&lazy);
                tokio::spawn(async move {
                    let patience = Duration::from_micros(100 * n);
                    if n < 3 {
                        return tokio::time::timeout(patience, load).await.ok();
                    }
                    Some(load.await)
                })
            })
            .collect();
        for asking in asking {
            if let Some(session) = asking.await.unwrap() {
                session?.update("got", |n: &mut u64| *n += 1)?;
            }
        }
        let got = lazy.load().await?.get::<u64>("got")?;
        assert!(got >= Some(ASKING - 3), "{got:?}");
        Ok(())
    };
    let client = client(Fault::Delay(Duration::ZERO), handler).await;
    let late = Fault::Delay(Duration::ZERO);
    client.server.store.always(Operation::Load, late);
    for _ in 0..300 {
        let seen = get(&client.twin()).await;
        let loads = seen.calls.matches("load").count();
        assert!((1..=4).contains(&loads), "{}", seen.calls);
        assert!(seen.calls.ends_with("load update"), "{}", seen.calls);
    }
}
