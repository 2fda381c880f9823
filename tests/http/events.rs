//! What the observer and the log are told. S-84: each event once, and none with a secret.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::store::SessionStore as _;
use cloakroom::test_util::{Fault, Operation};
use cloakroom::{Cleaner, OnClientChange, OnConflict, Session, SessionEvent, SessionId, WhenFull};
use http::header::{COOKIE, USER_AGENT};
use http::request::Parts;

use crate::hygiene::{assert_absent, secrets_of, spellings};
use crate::support::{Client, Log, Server, Settings, id_of};

const MINUTE: Duration = Duration::from_secs(60);

/// Keeps all events of a layer.
#[derive(Clone, Default)]
struct Audit(Arc<Mutex<Vec<SessionEvent>>>);

impl Audit {
    fn observer(&self) -> impl Fn(&SessionEvent) + Send + Sync + 'static {
        let events = Arc::clone(&self.0);
        move |event| events.lock().unwrap().push(event.clone())
    }

    /// A server under this audit.
    fn server(&self, settings: impl FnOnce(Settings) -> Settings) -> Server {
        Server::with(|builder| settings(builder).on_event(self.observer()))
    }

    fn take(&self) -> Vec<SessionEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The names of the events since the last time.
    fn names(&self) -> String {
        let names: Vec<_> = self.take().iter().map(SessionEvent::name).collect();
        names.join(" ")
    }

    /// The same, insisting that all are about one session.
    #[track_caller]
    fn names_about(&self, id: SessionId) -> String {
        let events = self.take();
        let names: Vec<_> = events.iter().map(SessionEvent::name).collect();
        for event in &events {
            assert_eq!(event.session(), Some(id), "{event:?}");
        }
        names.join(" ")
    }
}

async fn damage(client: &Client) {
    let server = &client.server;
    let mut record = client.record().await.unwrap();
    record.data = b"{".as_slice().into();
    let now = server.clock.now();
    let _ = server
        .memory
        .update(client.id(), &record, record.version, now)
        .await
        .unwrap();
}

#[tokio::test]
async fn the_life_of_a_session_is_told() {
    let audit = Audit::default();
    let server = audit.server(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let client = server.client();
    let created = client.get("/write").await.ok();
    let id = id_of(&created.cookie().unwrap().token);
    assert_eq!(audit.names_about(id), "created");
    for (path, expected) in [
        ("/", ""),
        ("/read", "loaded"),
        ("/write", "loaded"),
        ("/boom", "loaded"),
        ("/login", "loaded signed_in"),
        ("/stepup", "loaded signed_in"),
        ("/logout", "loaded destroyed"),
        ("/logout", ""),
    ] {
        client.get(path).await;
        assert_eq!(audit.names_about(id), expected, "{path}");
    }

    let client = server.visitor().await;
    let id = client.id();
    client.act(Session::renew).await.ok();
    server.clock.advance(10 * MINUTE);
    client.get("/read").await.ok();
    assert_eq!(
        audit.names_about(id),
        "created loaded renewed loaded renewed"
    );
    let again = |s: &Session| s.destroy().and(s.insert("n", 1));
    client.act(again).await.ok();
    let events = audit.take();
    let about = |n: usize| (events[n].name(), events[n].session().unwrap());
    assert_eq!(events.len(), 3);
    assert_eq!(
        [about(0), about(1), about(2)],
        [("loaded", id), ("destroyed", id), ("created", client.id())]
    );
    server.client().get("/login").await.ok();
    assert_eq!(audit.names(), "created signed_in");
    // With a `save` on the way, still once.
    let saved = async |s: Session| {
        s.sign_in("ada")?;
        s.save().await?;
        s.insert("a", 1)
    };
    server.client().run(saved).await.ok();
    assert_eq!(audit.names(), "created signed_in");
}

#[tokio::test]
async fn the_owner_is_told_to_the_observer_and_not_to_the_log() {
    let log = Log::capture();
    let audit = Audit::default();
    let server = audit.server(|b| b.max_sessions_per_owner(1, WhenFull::Refuse));
    let sign_in = |s: &Session| s.sign_in("ada@example.com");
    let client = server.client();
    client.act(sign_in).await.ok();
    server.client().act(sign_in).await;
    server.sessions.revoke_all("ada@example.com").await.unwrap();
    let mut owners = vec![];
    for event in audit.take() {
        assert!(!event.to_string().contains("ada"), "{event}");
        match event {
            SessionEvent::SignedIn { owner, .. }
            | SessionEvent::TooManySessions { owner, .. }
            | SessionEvent::OwnerRevoked { owner, .. } => owners.push(owner),
            _ => {}
        }
    }
    let ada: Arc<str> = "ada@example.com".into();
    assert!(
        owners.len() == 3 && owners.iter().all(|owner| *owner == ada),
        "{owners:?}"
    );
    let log = log.take();
    assert!(
        log.contains("owner signed in") && !log.contains("ada"),
        "{log}"
    );
}

#[tokio::test]
async fn each_reason_to_refuse_a_token_is_told() {
    let audit = Audit::default();
    let server = audit.server(|b| b.renew_every(30 * MINUTE).renewal_grace(MINUTE));
    let client = server.visitor().await;
    let (id, token) = (client.id(), client.the_token());
    audit.take();

    let mut unknown = token.clone();
    unknown.replace_range(..2, "zz");
    server.holding(&unknown).get("/read").await.ok();
    assert_eq!(audit.names_about(id_of(&unknown)), "unknown");

    let mut guessed = token.clone();
    guessed.replace_range(40..42, if &token[40..42] == "AA" { "BB" } else { "AA" });
    server.holding(&guessed).get("/read").await.ok();
    assert_eq!(audit.names_about(id), "wrong_secret");

    let strict = Audit::default();
    let shortened = server.beside(|b| {
        b.idle_timeout(5 * MINUTE)
            .absolute_timeout(10 * MINUTE)
            .on_event(strict.observer())
    });
    server.clock.advance(20 * MINUTE);
    client.twin_at(&shortened).get("/read").await.ok();
    assert_eq!(strict.names_about(id), "expired");

    let stale = client.twin();
    server.clock.advance(10 * MINUTE);
    client.get("/read").await.ok();
    server.clock.advance(2 * MINUTE);
    audit.take();
    stale.get("/read").await.ok();
    assert_eq!(audit.names_about(id), "stale_token");
    client.get("/login").await.ok();
    audit.take();
    stale.get("/read").await.ok();
    assert_eq!(audit.names_about(id), "wrong_secret");

    damage(&client).await;
    client.get("/read").await.ok();
    let events = audit.take();
    assert!(
        matches!(&*events, [SessionEvent::Corrupt { session, error, .. }]
            if *session == id && error.is_store()),
        "{events:?}"
    );
    // What is no token is not worth a word.
    server.holding("nonsense").get("/read").await.ok();
    assert_eq!(audit.names(), "");
}

/// S-30, S-84.
#[tokio::test]
async fn ambiguous_cookies_are_told() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    let (a, b) = (server.visitor().await, server.visitor().await);
    let (one, two) = (a.the_token(), b.the_token());
    audit.take();
    let send = async |line: String| {
        let mut request = server.client().request("/read");
        request.headers_mut().insert(COOKIE, line.parse().unwrap());
        server.send(request).await.ok();
    };
    send(format!("__Host-id={one}; __Host-id={two}")).await;
    let events = audit.take();
    assert!(
        matches!(&*events, [SessionEvent::DuplicateCookies { sessions, .. }]
            if *sessions == [a.id(), b.id()]),
        "{events:?}"
    );
    let five = ["A", "B", "C", "D", "E"].map(|end| format!("__Host-id={}{end}", &one[..47]));
    send(five.join("; ")).await;
    assert_eq!(audit.names(), "too_many_cookies");
    let mut dead = one.clone();
    dead.replace_range(..2, "zz");
    send(format!("__Host-id={dead}; __Host-id={one}")).await;
    assert_eq!(audit.names(), "unknown loaded");
}

/// S-84, S-85.
#[tokio::test]
async fn another_client_is_told() {
    for decision in [OnClientChange::Keep, OnClientChange::Refuse] {
        let audit = Audit::default();
        let agent = |request: &Parts| format!("{:?}", request.headers.get(USER_AGENT));
        let server = audit.server(|b| b.watch_client(agent, move |_| decision));
        let client = server.visitor().await;
        audit.take();
        let mut request = client.request("/read");
        let mosaic = "Mosaic".parse().unwrap();
        request.headers_mut().insert(USER_AGENT, mosaic);
        server.send(request).await.ok();
        let events = audit.take();
        let SessionEvent::AnotherClient {
            session, refused, ..
        } = events[0]
        else {
            panic!("{events:?}")
        };
        let is_refused = decision == OnClientChange::Refuse;
        assert_eq!((session, refused), (client.id(), is_refused));
        assert_eq!(events.len(), if is_refused { 1 } else { 2 }, "{events:?}");
    }
}

/// S-84: "1 000 unknown ids raise a countable metric".
#[tokio::test]
async fn a_thousand_guesses_are_a_thousand_events() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    let mut token = server.visitor().await.the_token();
    audit.take();
    for n in 0..1_000 {
        token.replace_range(..4, &format!("g{n:03}"));
        server.holding(&token).get("/read").await.ok();
    }
    let events = audit.take();
    let unknown = |event: &&SessionEvent| event.name() == "unknown";
    assert_eq!(events.iter().filter(unknown).count(), 1_000);
    assert_eq!(events.len(), 1_000);
}

#[tokio::test]
async fn what_parallel_requests_do_to_each_other_is_told() {
    let audit = Audit::default();
    let server = audit.server(|b| b.on_conflict(OnConflict::Reject));
    let elsewhere = server.beside(|b| b);
    type Handler = fn(&Session) -> cloakroom::Result<()>;
    let rows: [(&str, Handler, &str); 4] = [
        ("/write", |s| s.insert("a", 1), "loaded replayed"),
        (
            "/write",
            |s| {
                let n = s.get::<u64>("n")?.unwrap_or_default();
                s.insert("n", n + 10)
            },
            "loaded conflict",
        ),
        ("/logout", |s| s.insert("a", 1), "loaded gone"),
        ("/login", |s| s.insert("a", 1), "loaded superseded"),
    ];
    for (path, handler, expected) in rows {
        let client = server.visitor().await;
        audit.take();
        let other = client.twin_at(&elsewhere);
        let id = client.id();
        let slow = client.run(async move |s: Session| {
            other.get(path).await.ok();
            handler(&s)
        });
        slow.await;
        assert_eq!(audit.names_about(id), expected, "{path}");
    }
}

#[tokio::test]
async fn what_is_not_stored_is_told() {
    let audit = Audit::default();
    let broken = Arc::new(AtomicBool::new(false));
    let no_entropy = Arc::clone(&broken);
    let server = audit.server(|b| {
        b.max_size(50)
            .max_sessions_per_owner(1, WhenFull::Refuse)
            .entropy(move |bytes| {
                if no_entropy.load(Ordering::Relaxed) {
                    return Err(io::Error::other("no entropy"));
                }
                getrandom::fill(bytes).map_err(io::Error::other)
            })
    });
    let client = server.visitor().await;
    let id = client.id();
    audit.take();

    let large = |s: &Session| s.insert("a", "x".repeat(50));
    client.act(large).await;
    assert_eq!(audit.names_about(id), "loaded too_large");
    // Each fits, and both do not.
    let other = client.twin();
    let slow = client.run(async move |s: Session| {
        other.act(|s| s.insert("a", "x".repeat(20))).await.ok();
        s.insert("b", "x".repeat(20))
    });
    slow.await;
    assert_eq!(audit.names_about(id), "loaded loaded too_large");

    server.client().get("/login").await.ok();
    audit.take();
    client.get("/login").await;
    assert_eq!(audit.names(), "loaded too_many_sessions");

    broken.store(true, Ordering::Relaxed);
    client.act(Session::renew).await;
    assert_eq!(audit.names_about(id), "loaded not_stored");
}

/// S-71, S-84: an outage is told once for each call that it breaks, whoever made it.
#[tokio::test]
async fn each_failure_of_the_store_is_told_once() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    let log = Log::capture();
    let rows: [(Operation, &str, &str); 6] = [
        (Operation::Load, "/read", "store_failed"),
        (Operation::Update, "/write", "loaded store_failed"),
        (Operation::SignIn, "/login", "loaded store_failed"),
        (Operation::Delete, "/logout", "loaded store_failed"),
        (Operation::Create, "/write", "store_failed"),
        (Operation::SignIn, "/login", "store_failed"),
    ];
    for (row, (operation, path, expected)) in rows.into_iter().enumerate() {
        let client = if row < 4 {
            server.visitor().await
        } else {
            server.client()
        };
        audit.take();
        log.take();
        server.store.always(operation, Fault::Fail);
        assert_eq!(client.get(path).await.status, 503);
        server.store.heal();
        assert_eq!(audit.names(), expected, "{operation:?}");
        let log = log.take();
        assert_eq!(log.matches("ERROR").count(), 1, "{log}");
        assert!(
            log.contains("the session could not be read or stored: the session store failed: "),
            "{log}"
        );
    }
    let (id, sessions) = (server.visitor().await.id(), &server.sessions);
    audit.take();
    for operation in [
        Operation::Delete,
        Operation::DeleteByOwner,
        Operation::DeleteAll,
        Operation::ListByOwner,
    ] {
        server.store.always(operation, Fault::Fail);
    }
    sessions.revoke(id).await.unwrap_err();
    sessions.revoke_all("ada").await.unwrap_err();
    sessions.revoke_everyone().await.unwrap_err();
    sessions.list("ada").await.unwrap_err();
    assert_eq!(audit.names(), ["store_failed"; 4].join(" "));
}

/// A write that was done although its answer was lost is no failure, and is told as what it was.
#[tokio::test]
async fn a_lost_answer_is_no_event() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    server.store.inject(Operation::Create, 1, Fault::FailAfter);
    server.visitor().await;
    assert_eq!(audit.names(), "created");
}

#[tokio::test]
async fn revocations_are_told() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    let devices = [(); 4].map(|()| server.client());
    for device in &devices {
        device.get("/login").await.ok();
    }
    audit.take();
    let (id, sessions) = (devices[0].id(), server.sessions.clone());
    assert!(sessions.revoke(id).await.unwrap());
    assert_eq!(audit.names_about(id), "revoked");
    assert!(!sessions.revoke(id).await.unwrap());
    assert_eq!(audit.names(), "");

    let others = devices[1]
        .run(async move |s: Session| sessions.revoke_others(&s).await.map(|n| n.to_string()));
    assert_eq!(others.await.ok().text(), "2");
    let events = audit.take();
    assert!(
        matches!(
            &*events,
            [
                SessionEvent::Loaded { .. },
                SessionEvent::OwnerRevoked { owner, kept, count: 2, .. },
                SessionEvent::Renewed { .. },
            ] if **owner == *"ada" && *kept == Some(devices[1].id())
        ),
        "{events:?}"
    );
    server.sessions.revoke_all("ada").await.unwrap();
    server.sessions.revoke_everyone().await.unwrap();
    let events = audit.take();
    assert!(
        matches!(
            &*events,
            [
                SessionEvent::OwnerRevoked {
                    count: 1,
                    kept: None,
                    ..
                },
                SessionEvent::AllRevoked { count: 0, .. },
            ]
        ),
        "{events:?}"
    );
}

#[tokio::test]
async fn a_damaged_session_in_a_list_is_told_when_it_is_read() {
    let audit = Audit::default();
    let server = audit.server(|b| b);
    let client = server.client();
    client.get("/login").await.ok();
    damage(&client).await;
    let list = server.sessions.list("ada").await.unwrap();
    audit.take();
    assert!(list[0].get::<u64>("n").unwrap_err().is_store());
    assert_eq!(audit.names_about(client.id()), "corrupt");
}

#[tokio::test(start_paused = true)]
async fn a_cleaner_tells_what_it_removed_and_what_it_could_not() {
    let server = Server::new();
    for _ in 0..3 {
        server.visitor().await;
    }
    server.clock.advance(61 * MINUTE);
    server
        .store
        .inject(Operation::DeleteExpired, 1, Fault::Fail);
    let audit = Audit::default();
    let _cleaner = Cleaner::new(server.store.clone())
        .every(MINUTE)
        .clock(server.clock.clone())
        .on_event(audit.observer())
        .spawn();
    tokio::time::sleep(5 * MINUTE).await;
    let events = audit.take();
    assert!(
        matches!(
            &*events,
            [
                SessionEvent::SweepFailed { .. },
                SessionEvent::Swept { count: 3, .. }
            ]
        ),
        "{events:?}"
    );
}

/// S-53: "also if a listener fails". What is stored when it panics is announced to the client.
#[tokio::test]
async fn an_observer_that_panics_changes_nothing() {
    let server = Server::with(|b| b.on_event(|event| panic!("at {}", event.name())));
    let log = Log::capture();
    let client = server.client();
    for path in ["/write", "/read", "/login", "/stepup"] {
        client.get(path).await.ok();
    }
    assert_eq!(client.get("/read").await.ok().text(), r#"["ada",1]"#);
    let replay = client.twin();
    client.get("/logout").await.ok();
    assert_eq!(client.token(), None);
    assert_eq!(replay.get("/read").await.ok().text(), "anonymous");
    server.sessions.revoke_everyone().await.unwrap();
    let log = log.take();
    assert!(log.contains("the observer of events panicked"), "{log}");
}

/// S-10, S-84: the log has each event once, under one target, and neither it nor an event has a secret.
#[tokio::test]
async fn the_log_and_the_observer_are_told_the_same_and_no_secret() {
    let log = Log::capture();
    let audit = Audit::default();
    let server = audit.server(|b| b.renew_every(10 * MINUTE).renewal_grace(MINUTE));
    let mut secrets = vec![];
    let mut note = async |client: &Client| {
        secrets.extend(secrets_of(&client.the_token()));
        let record = client.record().await.unwrap();
        secrets.extend(spellings(record.digest.as_bytes()));
    };
    let client = server.visitor().await;
    note(&client).await;
    let old = client.twin();
    for path in ["/read", "/login", "/write"] {
        client.get(path).await.ok();
        note(&client).await;
    }
    server.clock.advance(11 * MINUTE);
    client.get("/read").await.ok();
    note(&client).await;
    old.get("/read").await.ok();
    server.store.always(Operation::Load, Fault::Fail);
    client.get("/read").await;
    server.store.heal();
    damage(&client).await;
    client.get("/read").await.ok();
    server.sessions.revoke(client.id()).await.unwrap();
    client.get("/read").await.ok();

    let (log, events) = (log.take(), audit.take());
    let logged: Vec<_> = log
        .lines()
        .map(|line| {
            assert!(line.contains(" cloakroom: "), "{line}");
            let (_, rest) = line.split_once("event=\"").expect(line);
            rest.split_once('"').unwrap().0
        })
        .collect();
    let told: Vec<_> = events.iter().map(SessionEvent::name).collect();
    assert_eq!(logged, told);
    let expected = "created loaded loaded signed_in loaded loaded renewed wrong_secret store_failed \
                    corrupt revoked unknown";
    assert_eq!(told.join(" "), expected);
    assert_absent(&secrets, &log);
    for event in &events {
        assert_absent(&secrets, &format!("{event:?} {event:#?} {event}"));
    }
}
