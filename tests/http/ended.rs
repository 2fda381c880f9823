//! S-61: what outlives its request learns of the session's end.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Session, WhenFull};
use tokio::time::{Instant, timeout};

use crate::support::{Client, Server};

const MINUTE: Duration = Duration::from_secs(60);
/// The default of `recheck_interval`.
const BOUND: Duration = Duration::from_secs(15);

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A socket that was opened by a request of this client, and waits for the end of its session.
async fn socket(client: &Client) -> Ended {
    let mut ended = ended(&handle(client).await);
    assert!(!is_over(&mut ended).await, "the session lives");
    ended
}

/// The session of a request of this client, after its response.
async fn handle(client: &Client) -> Session {
    let left = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&left);
    client
        .act(move |s| *kept.lock().unwrap() = Some(s.clone()))
        .await
        .ok();
    let session = left.lock().unwrap().take();
    session.expect("the handler ran")
}

fn ended(session: &Session) -> Ended {
    let session = session.clone();
    Box::pin(async move { session.ended().await })
}

/// Whether it is over now, or as soon as what is under way is done. Time stands still.
async fn is_over(ended: &mut Ended) -> bool {
    timeout(Duration::ZERO, ended).await.is_ok()
}

/// How long it takes, within ten minutes.
async fn takes(ended: &mut Ended) -> Option<Duration> {
    let start = Instant::now();
    let over = timeout(10 * MINUTE, ended).await;
    over.is_ok().then(|| start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn what_ends_a_session_in_this_process_is_noticed_at_once() {
    for path in ["/logout", "/login", "/stepup"] {
        let server = Server::new();
        let client = server.client();
        let before = if path == "/stepup" {
            "/login"
        } else {
            "/write"
        };
        client.get(before).await.ok();
        let mut one = socket(&client).await;
        let mut two = socket(&client).await;
        let stranger = server.visitor().await;
        let mut other = socket(&stranger).await;
        client.get(path).await.ok();
        assert!(is_over(&mut one).await && is_over(&mut two).await, "{path}");
        assert!(!is_over(&mut other).await, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn revocations_are_noticed_at_once_by_those_concerned() {
    let server = Server::new();
    let [ada, same, grace] = [server.client(), server.client(), server.client()];
    ada.get("/login").await.ok();
    same.get("/login").await.ok();
    grace.act(|s| s.sign_in("grace")).await.ok();
    let mut adas = socket(&ada).await;
    let mut sames = socket(&same).await;
    let mut graces = socket(&grace).await;
    server.sessions.revoke(ada.id()).await.unwrap();
    assert!(is_over(&mut adas).await);
    assert!(!is_over(&mut sames).await);
    server.sessions.revoke_all("ada").await.unwrap();
    assert!(is_over(&mut sames).await);
    assert!(!is_over(&mut graces).await);
    server.sessions.revoke_everyone().await.unwrap();
    assert!(is_over(&mut graces).await);
}

/// A thief who holds the same session is out as well, and so is the one who changed the password until
/// the page connects again.
#[tokio::test(start_paused = true)]
async fn a_changed_password_ends_the_sockets_of_all_devices() {
    let server = Server::new();
    let [here, there] = [server.client(), server.client()];
    here.get("/login").await.ok();
    there.get("/login").await.ok();
    let mut thief = socket(&here.twin()).await;
    let mut other = socket(&there).await;
    let sessions = server.sessions.clone();
    here.run(async move |s: Session| sessions.revoke_others(&s).await.map(|_| ()))
        .await
        .ok();
    assert!(is_over(&mut thief).await && is_over(&mut other).await);
    drop(socket(&here).await);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_has_to_make_room_is_noticed_at_once() {
    let server = Server::with(|b| b.max_sessions_per_owner(1, WhenFull::EvictOldest));
    let first = server.client();
    first.get("/login").await.ok();
    let mut ended = socket(&first).await;
    server.client().get("/login").await.ok();
    assert!(is_over(&mut ended).await);
}

/// The bound: never later than the interval, and not much sooner, so that the store is not asked more
/// often than that.
#[tokio::test(start_paused = true)]
async fn what_ends_a_session_elsewhere_is_noticed_within_the_interval() {
    for bound in [BOUND, Duration::from_secs(2)] {
        let server = Server::with(|b| b.recheck_interval(bound));
        let elsewhere = server.beside(|b| b);
        let mut latest = Duration::ZERO;
        for path in ["/logout", "/login"].into_iter().cycle().take(40) {
            let client = server.visitor().await;
            let mut ended = socket(&client).await;
            client.twin_at(&elsewhere).get(path).await.ok();
            assert!(!is_over(&mut ended).await);
            let taken = takes(&mut ended).await.unwrap();
            assert!(taken <= bound + Duration::from_millis(1), "{taken:?}");
            assert!(taken >= bound * 3 / 4, "{taken:?}");
            latest = latest.max(taken);
        }
        assert!(
            latest > bound * 9 / 10,
            "spread over the last quarter: {latest:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_is_no_use_of_the_session_and_costs_a_load_an_interval() {
    let server = Server::new();
    let client = server.visitor().await;
    let before = client.record().await.unwrap();
    server.store.reset_counts();
    let mut ended = socket(&client).await;
    // That of the request, and the first look.
    assert_eq!(server.store.calls(Operation::Load), 2);
    server.store.reset_counts();
    server.clock.advance(30 * MINUTE);
    assert!(timeout(5 * MINUTE, &mut ended).await.is_err());
    let loads = server.store.calls(Operation::Load);
    assert!((20..=27).contains(&loads), "{loads}");
    assert_eq!(server.store.total_calls(), loads);
    assert_eq!(client.record().await.unwrap(), before);
    // So it expires, though somebody waits.
    server.clock.advance(30 * MINUTE);
    assert!(takes(&mut ended).await.unwrap() <= BOUND);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_noticed_when_it_happens() {
    let server = Server::with(|b| b.recheck_interval(600 * MINUTE));
    let [idle, used] = [server.visitor().await, server.visitor().await];
    let mut ends = [socket(&idle).await, socket(&used).await];
    let clock = server.clock.clone();
    let second = Duration::from_secs(1);
    let ticking = tokio::spawn(async move {
        loop {
            tokio::time::sleep(second).await;
            clock.advance(second);
        }
    });
    let start = Instant::now();
    tokio::time::sleep(30 * MINUTE).await;
    used.get("/read").await.ok();
    for (ended, end) in ends.iter_mut().zip([60 * MINUTE, 90 * MINUTE]) {
        timeout(120 * MINUTE, ended).await.unwrap();
        let taken = start.elapsed();
        assert!((end..end + 3 * second).contains(&taken), "{taken:?}");
    }
    ticking.abort();
}

/// A renewal by the clock is not somebody signing in: who was connected stays connected.
#[tokio::test(start_paused = true)]
async fn a_periodic_renewal_is_followed() {
    let server = Server::with(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let elsewhere = server.beside(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let client = server.visitor().await;
    let mut ended = socket(&client).await;
    for other in [&server, &elsewhere, &server, &elsewhere] {
        server.clock.advance(10 * MINUTE);
        let twin = client.twin_at(other);
        let renewed = twin.get("/read").await.ok();
        client.take(&renewed.headers);
        assert!(renewed.cookie().is_some());
        assert!(timeout(MINUTE, &mut ended).await.is_err());
        // Its grace is over.
        server.clock.advance(2 * MINUTE);
        assert!(timeout(MINUTE, &mut ended).await.is_err());
    }
    client.get("/login").await.ok();
    assert!(is_over(&mut ended).await);
}

/// Where nobody looked within the grace, nothing tells such a renewal from a sign-in.
#[tokio::test(start_paused = true)]
async fn a_renewal_without_grace_ends_the_wait() {
    let server = Server::with(|b| b.renew_every(10 * MINUTE));
    let client = server.visitor().await;
    let mut ended = socket(&client).await;
    server.clock.advance(10 * MINUTE);
    client.get("/read").await.ok();
    assert!(is_over(&mut ended).await);
}

/// S-71: an outage ends nobody's connection before the session could have expired.
#[tokio::test(start_paused = true)]
async fn an_outage_is_survived_until_the_session_would_have_expired() {
    for fault in [Fault::Fail, Fault::Hang] {
        let server = Server::new();
        let client = server.visitor().await;
        let mut ended = socket(&client).await;
        server.store.always(Operation::Load, fault.clone());
        server.store.reset_counts();
        assert!(takes(&mut ended).await.is_none());
        let asked = server.store.calls(Operation::Load);
        assert!((30..=56).contains(&asked), "it goes on asking: {asked}");
        server.store.heal();
        assert!(takes(&mut ended).await.is_none());
        server.store.always(Operation::Load, fault);
        assert!(takes(&mut ended).await.is_none());
        server.clock.advance(60 * MINUTE);
        let taken = takes(&mut ended).await.unwrap();
        assert!(taken <= BOUND + Duration::from_secs(6), "{taken:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_session_that_is_not_there_has_ended() {
    let server = Server::new();
    let client = server.visitor().await;
    let session = handle(&client).await;
    server.sessions.revoke(client.id()).await.unwrap();
    assert!(is_over(&mut ended(&session)).await, "before the wait began");
    let nobody = handle(&server.client()).await;
    assert!(is_over(&mut ended(&nobody)).await, "it was never stored");
}

/// The handler that opens the socket may itself sign in or renew, before or after the wait begins.
#[tokio::test(start_paused = true)]
async fn the_requests_own_new_token_does_not_end_its_wait() {
    let server = Server::new();
    let client = server.visitor().await;
    for begins_early in [false, true] {
        let kept = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&kept);
        client
            .run(async move |s: Session| {
                let mut ended = ended(&s);
                if begins_early {
                    assert!(!is_over(&mut ended).await);
                }
                *keep.lock().unwrap() = Some(ended);
                s.sign_in("ada")
            })
            .await
            .ok();
        let mut ended = kept.lock().unwrap().take().unwrap();
        assert!(takes(&mut ended).await.is_none());
        client.get("/logout").await.ok();
        assert!(is_over(&mut ended).await);
        client.get("/write").await.ok();
    }
}

/// A handle that was opened again waits like any other.
#[tokio::test(start_paused = true)]
async fn a_reopened_session_can_be_waited_for() {
    let server = Server::new();
    let client = server.visitor().await;
    let session = handle(&client).await.reopen().await.unwrap();
    let mut ended = ended(&session);
    assert!(!is_over(&mut ended).await);
    session.destroy().unwrap();
    session.save().await.unwrap();
    assert!(is_over(&mut ended).await);
}

/// Cancel safety: dropped anywhere and begun anew, it misses nothing.
#[tokio::test(start_paused = true)]
async fn a_wait_that_is_begun_anew_each_time_misses_nothing() {
    let server = Server::new();
    let elsewhere = server.beside(|b| b);
    let client = server.visitor().await;
    let session = handle(&client).await;
    for _ in 0..100 {
        assert!(
            timeout(Duration::from_secs(1), session.ended())
                .await
                .is_err()
        );
    }
    client.twin_at(&elsewhere).get("/logout").await.ok();
    assert!(is_over(&mut ended(&session)).await);
}

/// Without a store nobody but the clock ends a session.
#[cfg(feature = "encrypted")]
#[tokio::test(start_paused = true)]
async fn a_session_without_a_store_ends_by_the_clock() {
    let keys = cloakroom::KeyRing::generate().unwrap();
    let server = Server::stateless(keys, |settings| settings);
    let client = server.client();
    client.get("/write").await.ok();
    let mut ended = socket(&client).await;
    for over in [false, true] {
        server.clock.advance(30 * MINUTE);
        tokio::time::advance(30 * MINUTE).await;
        assert_eq!(is_over(&mut ended).await, over);
    }
}

/// A look that sees the request's own new token before the request knows that it is stored.
#[tokio::test(start_paused = true)]
async fn a_new_token_whose_answer_is_late_ends_no_wait_of_its_own_request() {
    let handlers: [fn(&Session) -> cloakroom::Result<()>; 2] =
        [Session::renew, |s| s.sign_in("ada")];
    for (handler, operation) in handlers
        .into_iter()
        .zip([Operation::Update, Operation::SignIn])
    {
        let server = Server::new();
        let client = server.visitor().await;
        let pause = Pause::new();
        let late = Fault::PauseAfter(pause.clone());
        server.store.inject(operation, 1, late);
        let kept = Arc::new(Mutex::new(None));
        let keep = Arc::clone(&kept);
        let requester = client.clone();
        let request = tokio::spawn(async move {
            let handler = move |s: &Session| {
                *keep.lock().unwrap() = Some(s.clone());
                handler(s)
            };
            requester.act(handler).await
        });
        pause.reached().await;
        let session = kept.lock().unwrap().take().unwrap();
        let mut ended = ended(&session);
        assert!(!is_over(&mut ended).await, "while the answer is late");
        pause.release();
        request.await.unwrap().ok();
        assert!(!is_over(&mut ended).await, "after the answer");
        client.get("/logout").await.ok();
        assert!(takes(&mut ended).await < Some(Duration::from_secs(1)));
    }
}

/// Whoever keeps the wait for the response's body, and polls it no more until then.
#[tokio::test(start_paused = true)]
async fn a_wait_that_nobody_polls_holds_up_no_response() {
    let server = Server::new();
    let client = server.visitor().await;
    let slow = Fault::Delay(Duration::from_millis(100));
    server.store.inject(Operation::Update, 1, slow);
    let sessions = server.sessions.clone();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let start = Instant::now();
    let seen = client.run(async move |s: Session| {
        s.insert("a", 2)?;
        let saving = s.clone();
        let save = tokio::spawn(async move { saving.save().await });
        tokio::task::yield_now().await;
        sessions.revoke(s.id().unwrap()).await?;
        let mut ended = ended(&s);
        assert!(!is_over(&mut ended).await, "this request still writes");
        *keep.lock().unwrap() = Some(ended);
        assert!(save.await.unwrap().unwrap_err().is_gone());
        s.insert("a", 3)
    });
    seen.await.ok();
    assert!(start.elapsed() < Duration::from_secs(1));
    let mut ended = kept.lock().unwrap().take().unwrap();
    assert!(takes(&mut ended).await < Some(Duration::from_secs(1)));
}

/// Whose the session is, is known to who waits since before that as well.
#[tokio::test(start_paused = true)]
async fn a_revocation_reaches_who_waits_since_before_the_sign_in() {
    let server = Server::new();
    let client = server.visitor().await;
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let seen = client.run(async move |s: Session| {
        let mut ended = ended(&s);
        assert!(!is_over(&mut ended).await);
        *keep.lock().unwrap() = Some(ended);
        s.sign_in("ada")
    });
    seen.await.ok();
    let mut ended = kept.lock().unwrap().take().unwrap();
    assert!(!is_over(&mut ended).await, "it follows the sign-in");
    assert_eq!(server.sessions.revoke_all("ada").await.unwrap(), 1);
    assert!(is_over(&mut ended).await);
}

/// Where nobody wants to ask the store again, only what happens in this process is noticed.
#[tokio::test(start_paused = true)]
async fn an_interval_without_end_is_none() {
    let server = Server::with(|b| b.recheck_interval(Duration::MAX));
    let client = server.visitor().await;
    let session = handle(&client).await;
    for _ in 0..2_000 {
        assert!(!is_over(&mut ended(&session)).await);
    }
    let mut ended = ended(&session);
    assert!(!is_over(&mut ended).await);
    client.get("/logout").await.ok();
    assert!(is_over(&mut ended).await);
}
