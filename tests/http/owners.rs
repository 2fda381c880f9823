//! The sessions of one owner, seen from outside: listed, ended, limited.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::Body;
use axum::routing::post;
use axum::{Extension, Router};
use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Error, LazySession, Result, Session, SessionInfo, SessionLayer, WhenFull};
use http::{Request, StatusCode};
use tokio::task::JoinSet;
use tower::ServiceExt as _;

use crate::support::{Client, Log, Server, Told, device};

const MINUTE: Duration = Duration::from_secs(60);

async fn devices<const N: usize>(server: &Server, owner: &'static str) -> [Client; N] {
    let mut clients = Vec::new();
    for _ in 0..N {
        server.clock.advance(MINUTE);
        clients.push(device(server, owner).await);
    }
    clients.try_into().unwrap_or_else(|_| unreachable!())
}

async fn owners(clients: &[Client]) -> Vec<Option<String>> {
    let mut owners = Vec::new();
    for client in clients {
        owners.push(client.owner().await.map(|owner| owner.to_string()));
    }
    owners
}

/// S-58: what a "your devices" page needs, and nothing that opens a session.
#[tokio::test]
async fn an_owner_sees_their_live_sessions_the_last_used_first() {
    let server = Server::new();
    let [first, second] = devices(&server, "ada").await;
    device(&server, "grace").await;
    second.act(|s| s.insert("browser", "Lynx")).await.ok();
    server.clock.advance(10 * MINUTE);
    let used = server.clock.now();
    first.get("/read").await.ok();

    let list = server.sessions.list("ada").await.unwrap();
    let ids: Vec<_> = list.iter().map(SessionInfo::id).collect();
    assert_eq!(ids, [first.id(), second.id()]);
    assert_eq!(list[0].last_seen_at(), SystemTime::from(used));
    assert!(list[1].last_seen_at() < list[0].last_seen_at());
    for (info, client) in list.iter().zip([&first, &second]) {
        let record = client.record().await.unwrap();
        assert_eq!(info.created_at(), SystemTime::from(record.created));
        assert_eq!(
            info.authenticated_at(),
            record.authenticated.map(SystemTime::from)
        );
        assert_eq!(info.expires_at(), SystemTime::from(record.expires));
        // Neither token nor digest, under whatever name (S-10).
        let shown = format!("SessionInfo {{ id: {:?}, .. }}", client.id());
        assert_eq!(format!("{info:?}"), shown);
    }
    assert_eq!(
        list[1].get::<String>("browser").unwrap().as_deref(),
        Some("Lynx")
    );
    assert_eq!(list[0].get::<String>("browser").unwrap(), None);
    assert!(list[1].get::<u64>("browser").unwrap_err().is_decode());

    server.clock.advance(55 * MINUTE);
    let left: Vec<_> = server.sessions.list("ada").await.unwrap();
    assert_eq!(left.len(), 1, "the other one has expired");
}

/// S-56, S-57: an account is disabled, a device is lost, everybody has to go.
#[tokio::test]
async fn one_session_or_all_of_an_owner_or_all_can_be_ended() {
    let server = Server::new();
    let ada: [Client; 3] = devices(&server, "ada").await;
    let grace: [Client; 2] = devices(&server, "grace").await;
    let guest = server.visitor().await;
    let ada_is = |owner: Option<&str>| vec![owner.map(str::to_owned); 2];

    assert!(server.sessions.revoke(ada[0].id()).await.unwrap());
    assert!(!server.sessions.revoke(ada[0].id()).await.unwrap());
    assert!(!ada[0].is_known().await);
    assert_eq!(owners(&ada[1..]).await, ada_is(Some("ada")));

    assert_eq!(server.sessions.revoke_all("ada").await.unwrap(), 2);
    assert_eq!(owners(&ada[1..]).await, ada_is(None));
    assert_eq!(owners(&grace).await, ada_is(Some("grace")));
    assert_eq!(server.sessions.revoke_all("nobody").await.unwrap(), 0);

    assert_eq!(server.sessions.revoke_everyone().await.unwrap(), 3);
    assert_eq!(owners(&grace).await, ada_is(None));
    assert!(!guest.is_known().await);
    assert!(server.memory.is_empty());
}

/// S-55: the password was changed on one device of five.
#[tokio::test]
async fn all_other_sessions_of_an_owner_end_and_this_one_gets_a_new_token() {
    let server = Server::new();
    let ada: [Client; 5] = devices(&server, "ada").await;
    let grace = device(&server, "grace").await;
    let stolen = ada[2].twin();
    let sessions = server.sessions.clone();
    let seen = ada[2].run(async move |s: Session| {
        assert_eq!(sessions.revoke_others(&s).await?, 4);
        Ok::<_, cloakroom::Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    for (i, client) in ada.iter().enumerate() {
        assert_eq!(client.is_known().await, i == 2);
    }
    assert!(!stolen.is_known().await, "its token was renewed");
    assert!(grace.is_known().await);
    assert_eq!(server.sessions.list("ada").await.unwrap().len(), 1);
}

#[tokio::test]
async fn without_an_owner_there_are_no_others() {
    let server = Server::new();
    let [ada] = devices(&server, "ada").await;
    let guest = server.visitor().await;
    let sessions = server.sessions.clone();
    let seen = guest.run(async move |s: Session| {
        assert_eq!(sessions.revoke_others(&s).await?, 0);
        Ok::<_, cloakroom::Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Vary);
    assert!(ada.is_known().await && guest.is_known().await);
}

/// S-60: whoever had got past the password before the revocation is not let in after it.
#[tokio::test]
async fn a_revocation_beats_a_sign_in_that_is_under_way() {
    for guest in [false, true] {
        let server = Server::new();
        let thief = if guest {
            server.visitor().await
        } else {
            server.client()
        };
        let sessions = server.sessions.clone();
        let clock = server.clock.clone();
        let seen = thief.run(async move |s: Session| {
            clock.advance(MINUTE);
            assert_eq!(sessions.revoke_all("ada").await?, 0);
            clock.advance(MINUTE);
            s.sign_in("ada")
        });
        assert_eq!(seen.await.ok().told(), Told::Vary);
        assert_eq!(thief.owner().await, None);
        assert!(server.sessions.list("ada").await.unwrap().is_empty());
        // Who signs in from now on is welcome, and so was anybody else.
        assert!(device(&server, "ada").await.owner().await.is_some());
        assert!(device(&server, "grace").await.owner().await.is_some());
    }
}

/// The same when the revocation comes between the check and the writing.
#[tokio::test]
async fn a_revocation_beats_a_sign_in_whose_call_is_in_flight() {
    let server = Server::new();
    let thief = server.visitor().await;
    let pause = Pause::new();
    server
        .store
        .inject(Operation::SignIn, 1, Fault::Pause(pause.clone()));
    let slow = {
        let thief = thief.clone();
        tokio::spawn(async move { thief.act(|s| s.sign_in("ada")).await })
    };
    pause.reached().await;
    server.clock.advance(MINUTE);
    server.sessions.revoke_all("ada").await.unwrap();
    pause.release();
    assert_eq!(slow.await.unwrap().told(), Told::Vary);
    assert!(server.sessions.list("ada").await.unwrap().is_empty());
}

/// S-60: a password change that signs in anew and ends all others does not end itself, on whatever
/// session it comes.
#[tokio::test]
async fn a_revocation_of_the_others_spares_a_sign_in_of_the_same_request() {
    let server = Server::new();
    for first in [Operation::SignIn, Operation::DeleteByOwner] {
        let [ada, other] = devices(&server, "ada").await;
        for client in [ada, server.visitor().await, server.client()] {
            server.clock.advance(MINUTE);
            let sessions = server.sessions.clone();
            let seen = client.run(async move |s: Session| {
                if first == Operation::SignIn {
                    s.sign_in("ada")?;
                    sessions.revoke_others(&s).await?;
                } else {
                    sessions.revoke_others(&s).await?;
                    s.sign_in("ada")?;
                }
                Ok::<_, cloakroom::Error>(())
            });
            assert_eq!(seen.await.ok().told(), Told::Cookie);
            assert_eq!(client.owner().await.as_deref(), Some("ada"));
        }
        assert!(!other.is_known().await);
    }
}

/// S-62, S-64: nor does a write or a touch bring a revoked session back.
#[tokio::test]
async fn a_revoked_session_stays_gone_whatever_is_in_flight() {
    for (path, operation) in [
        ("/write", Operation::Update),
        ("/read", Operation::Touch),
        ("/stepup", Operation::SignIn),
    ] {
        let server = Server::new();
        let [ada] = devices(&server, "ada").await;
        server.clock.advance(30 * MINUTE);
        let pause = Pause::new();
        server
            .store
            .inject(operation, 1, Fault::Pause(pause.clone()));
        let slow = {
            let ada = ada.clone();
            tokio::spawn(async move { ada.get(path).await })
        };
        pause.reached().await;
        server.sessions.revoke_all("ada").await.unwrap();
        pause.release();
        assert_eq!(slow.await.unwrap().told(), Told::Vary, "{path}");
        assert!(server.memory.is_empty(), "{path}");
    }
}

/// S-59: exact, however many sign in at once, in two processes.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_never_has_more_sessions_than_the_limit() {
    for when_full in [WhenFull::EvictOldest, WhenFull::Refuse] {
        let server = Server::with(|b| b.max_sessions_per_owner(3, when_full));
        let beside = server.beside(|b| b.max_sessions_per_owner(3, when_full));
        let mut logins = JoinSet::new();
        for i in 0..50 {
            let client = [&server, &beside][i % 2].client();
            logins.spawn(async move { client.act(|s| s.sign_in("ada")).await });
        }
        let mut welcome = 0;
        while let Some(seen) = logins.join_next().await {
            let seen = seen.unwrap();
            match seen.status {
                StatusCode::OK => welcome += 1,
                _ => assert!(seen.error().is_full() && seen.told() == Told::Vary),
            }
        }
        let expected = if when_full == WhenFull::Refuse { 3 } else { 50 };
        assert_eq!(welcome, expected);
        assert_eq!(server.sessions.list("ada").await.unwrap().len(), 3);
        assert_eq!(server.memory.len(), 3);
    }
}

#[tokio::test]
async fn the_sessions_that_signed_in_earliest_make_room() {
    let server = Server::with(|b| b.max_sessions_per_owner(2, WhenFull::EvictOldest));
    let [first, second] = devices(&server, "ada").await;
    server.clock.advance(MINUTE);
    // A device that signs in again is not one more, and not the oldest any longer.
    first.get("/stepup").await.ok();
    assert!(second.is_known().await);
    server.clock.advance(MINUTE);
    let third = device(&server, "ada").await;
    assert!(first.is_known().await && third.is_known().await);
    assert!(!second.is_known().await);
}

#[tokio::test]
async fn a_refused_sign_in_leaves_the_guest_a_guest() {
    let server = Server::with(|b| b.max_sessions_per_owner(1, WhenFull::Refuse));
    let ada = device(&server, "ada").await;
    let guest = server.visitor().await;
    let seen = guest.act(|s| s.sign_in("ada")).await;
    assert_eq!(
        (seen.status, &*seen.calls),
        (StatusCode::CONFLICT, "load sign_in")
    );
    assert!(seen.error().is_full());
    assert_eq!(
        (guest.value("n").await, guest.owner().await),
        (Some(1), None)
    );
    ada.get("/logout").await.ok();
    assert_eq!(
        guest.act(|s| s.sign_in("ada")).await.ok().told(),
        Told::Cookie
    );
}

#[tokio::test]
async fn a_store_that_fails_is_said() {
    let server = Server::new();
    let ada = device(&server, "ada").await;
    for operation in [
        Operation::ListByOwner,
        Operation::Delete,
        Operation::DeleteByOwner,
        Operation::DeleteAll,
    ] {
        server.store.always(operation, Fault::Fail);
    }
    let sessions = &server.sessions;
    assert!(sessions.list("ada").await.unwrap_err().is_store());
    assert!(sessions.revoke(ada.id()).await.unwrap_err().is_store());
    assert!(sessions.revoke_all("ada").await.unwrap_err().is_store());
    assert!(sessions.revoke_everyone().await.unwrap_err().is_store());
    server.store.heal();
    assert!(ada.is_known().await);
}

/// S-72.
#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_given_up() {
    let server = Server::new();
    let ada = device(&server, "ada").await;
    for operation in [
        Operation::ListByOwner,
        Operation::Delete,
        Operation::DeleteByOwner,
    ] {
        server.store.always(operation, Fault::Hang);
    }
    let sessions = &server.sessions;
    let given_up = async {
        assert!(sessions.list("ada").await.unwrap_err().is_timeout());
        assert!(sessions.revoke(ada.id()).await.unwrap_err().is_timeout());
        assert!(sessions.revoke_all("ada").await.unwrap_err().is_timeout());
        let session = ada.look(Session::clone).await;
        server.store.always(Operation::Load, Fault::Hang);
        assert!(session.reopen().await.unwrap_err().is_timeout());
    };
    tokio::time::timeout(MINUTE, given_up).await.unwrap();
}

/// Those that end sooner under this layer have ended for it.
#[tokio::test]
async fn a_list_goes_by_the_timeouts_of_its_layer() {
    let server = Server::new();
    device(&server, "ada").await;
    let strict = server.beside(|b| b.idle_timeout(10 * MINUTE));
    server.clock.advance(20 * MINUTE);
    assert_eq!(server.sessions.list("ada").await.unwrap().len(), 1);
    assert!(strict.sessions.list("ada").await.unwrap().is_empty());
}

/// Whatever the handler makes of the error.
#[tokio::test]
async fn a_sign_in_that_save_refuses_signs_nobody_in() {
    for owner in [None, Some("grace")] {
        let server = Server::new();
        let client = match owner {
            Some(owner) => device(&server, owner).await,
            None => server.visitor().await,
        };
        let sessions = server.sessions.clone();
        let seen = client.run(async move |s: Session| {
            sessions.revoke(s.id().unwrap()).await?;
            s.sign_in("ada")?;
            assert_eq!(s.owner().as_deref(), Some("ada"));
            assert!(s.save().await.unwrap_err().is_gone());
            assert_eq!(s.owner().as_deref(), owner);
            Ok::<_, Error>(())
        });
        assert_eq!(seen.await.ok().told(), Told::Vary);
        assert_eq!(client.owner().await, None);
    }
}

/// The password is changed while another request looks at the old one, before it loads its session.
#[tokio::test]
async fn a_revocation_stops_a_sign_in_whose_handler_has_its_session_still_to_load() {
    async fn login(lazy: LazySession, Extension(server): Extension<Arc<Server>>) -> Result<()> {
        // The old one is right, which takes a while to find out.
        server.clock.advance(Duration::from_millis(150));
        server.sessions.revoke_all("ada").await?;
        server.clock.advance(Duration::from_millis(150));
        lazy.load().await?.sign_in("ada")
    }
    let server = Arc::new(Server::new());
    let layer = SessionLayer::builder(server.store.clone()).clock(server.clock.clone());
    let app = Router::new()
        .route("/", post(login))
        .layer(layer.build().unwrap())
        .layer(Extension(Arc::clone(&server)));
    let request = Request::post("/").body(Body::empty()).unwrap();
    assert_eq!(app.oneshot(request).await.unwrap().status(), StatusCode::OK);
    assert!(server.sessions.list("ada").await.unwrap().is_empty());
}

/// A request cannot end all of somebody's sessions and sign them in: the sign-in may have begun before,
/// and is refused as one that was under way. That is said; the other order does it.
#[tokio::test]
async fn a_sign_in_refused_by_a_revocation_is_a_warning_of_its_own() {
    for guest in [false, true] {
        let server = Server::new();
        let thief = device(&server, "ada").await;
        let client = if guest {
            server.visitor().await
        } else {
            server.client()
        };
        let sessions = server.sessions.clone();
        let log = Log::capture();
        let both = client.run(async move |s: Session| {
            sessions.revoke_all("ada").await?;
            s.sign_in("ada")
        });
        both.await.ok();
        let log = log.take();
        assert!(
            log.contains("WARN") && log.contains("sign_in_revoked"),
            "{log}"
        );
        assert!(!log.contains("gone"), "{log}");
        assert!(!thief.is_known().await);
        assert_eq!(client.owner().await, None);

        server.clock.advance(Duration::from_secs(1));
        let thief = device(&server, "ada").await;
        let sessions = server.sessions.clone();
        let both = client.run(async move |s: Session| {
            s.sign_in("ada")?;
            sessions.revoke_others(&s).await.map(|_| ())
        });
        both.await.ok();
        assert!(!thief.is_known().await);
        assert_eq!(client.owner().await.as_deref(), Some("ada"));
    }
}
