//! What the clients of an application meet, whatever its store is: one function for each workflow, and
//! [`workflows!`] that makes a test of each. Time is the test clock's and only ever moves forward, so that
//! a store may also drop records by a clock of its own.
#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::store::{Create, Record, SessionStore};
use cloakroom::test_util::{Fault, FaultStore, Operation, Pause};
use cloakroom::{Error, Session, SessionInfo, SessionLayer, SessionLayerBuilder, WhenFull};
use http::StatusCode;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Client, Server, Slow, Told, at_once, bytes_of, device, id_of};

/// Makes a module with one test for each workflow, as `conformance_tests!` does for each rule.
///
/// The first argument names the module; the second is an expression for a future of a store that can be
/// cloned and that nothing else uses, which each test evaluates anew.
macro_rules! workflows {
    ($name:ident, $store:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::workflows::workflows! {
                @tests $store:
                a_session_begins_with_its_first_value_and_keeps_what_it_is_given
                a_session_is_used_with_as_few_calls_as_documented
                values_of_all_kinds_and_sizes_come_back
                data_beyond_the_limit_is_refused
                a_remembered_session_keeps_its_own_time
                a_session_ends_when_it_is_idle
                a_session_in_use_ends_all_the_same
                a_renewal_replaces_the_token
                a_periodic_renewal_leaves_the_old_token_a_grace
                a_sign_in_takes_the_guest_along_and_ends_the_old_token
                a_sign_out_is_for_good
                a_session_after_the_sign_out_is_another
                a_failing_response_keeps_the_sign_out_and_drops_the_values
                a_token_that_was_never_issued_is_not_adopted
                strangers_leave_no_trace
                a_slow_write_does_not_bring_a_session_back
                a_slow_write_of_before_the_sign_in_writes_nothing
                a_slow_write_of_before_a_periodic_renewal_merges_within_the_grace
                a_touch_does_not_bring_a_session_back
                parallel_updates_of_one_key_are_all_counted
                parallel_inserts_of_different_keys_are_all_there
                an_owner_sees_their_sessions
                one_session_or_all_of_an_owner_or_all_can_be_ended
                all_other_sessions_of_an_owner_end
                a_revocation_beats_a_sign_in_under_way
                an_owner_never_has_more_sessions_than_the_limit
                two_applications_on_one_store_do_not_accept_each_others_tokens
                a_record_under_another_id_opens_for_nobody
                no_record_holds_a_secret
                a_store_that_fails_costs_nobody_their_session
                clients_that_leave_hold_up_nobody
            }
        }
    };
    (@tests $store:tt: $($workflow:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread")]
            async fn $workflow() {
                let store = $store.await;
                $crate::workflows::$workflow([store.clone(), store]).await;
            }
        )*
    };
}
pub(crate) use workflows;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

type Settings<S> = SessionLayerBuilder<FaultStore<S>>;

/// An application in two processes, each with a handle of the store.
struct App<S> {
    one: Server,
    two: Server,
    /// The handle of the first process, with its calls counted.
    store: FaultStore<S>,
}

impl<S: SessionStore> App<S> {
    fn new(handles: [S; 2]) -> Self {
        Self::with(handles, |settings| settings)
    }

    fn with(handles: [S; 2], settings: impl Fn(Settings<S>) -> Settings<S>) -> Self {
        let [store, other] = handles.map(FaultStore::new);
        let on = |store: FaultStore<S>| {
            // No test is about how fast a store is.
            settings(SessionLayer::builder(store).store_timeout(MINUTE))
        };
        let clock = Server::new();
        Self {
            one: clock.under(on(store.clone())),
            two: clock.under(on(other)),
            store,
        }
    }

    /// What the store has for a client.
    async fn record(&self, client: &Client) -> Option<Record> {
        let now = self.one.clock.now();
        self.store.load(client.id(), now).await.unwrap()
    }

    /// Asserts that the store holds no session, live or not, and leaves it like that.
    async fn assert_empty(&self) {
        assert_eq!(self.store.delete_all().await.unwrap(), 0);
    }

    /// The calls of a request: those of each operation that was called.
    async fn calls(&self, request: impl Future) -> Vec<(Operation, u64)> {
        self.store.reset_counts();
        request.await;
        let calls = OPERATIONS.map(|operation| (operation, self.store.calls(operation)));
        calls.into_iter().filter(|(_, n)| *n > 0).collect()
    }
}

const OPERATIONS: [Operation; 6] = [
    Operation::Load,
    Operation::Touch,
    Operation::Update,
    Operation::Delete,
    Operation::Create,
    Operation::SignIn,
];

fn increment(session: &Session) -> Result<(), Error> {
    session.update("n", |n: &mut u64| *n += 1)
}

pub(crate) async fn a_session_begins_with_its_first_value_and_keeps_what_it_is_given<S>(
    handles: [S; 2],
) where
    S: SessionStore,
{
    let app = App::new(handles);
    let client = app.one.client();
    assert_eq!(client.get("/").await.ok().told(), Told::Nothing);
    assert_eq!(client.get("/read").await.ok().told(), Told::Vary);
    app.assert_empty().await;
    assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    for n in 2..5 {
        assert_eq!(client.get("/write").await.ok().told(), Told::Vary);
        assert_eq!(client.get("/read").await.text(), format!("[null,{n}]"));
    }
    let change = client.act(|s| {
        s.insert("a", "x")?;
        s.remove("n").map(drop)
    });
    change.await.ok();
    assert_eq!(client.look(Session::keys).await, ["a"]);
    let taken = client.look(|s| s.take::<String>("a").unwrap()).await;
    assert_eq!(taken.as_deref(), Some("x"));
    assert!(client.look(Session::is_empty).await);
    client.act(|s| s.insert("n", 7)).await.ok();
    client.act(Session::clear).await.ok();
    assert!(client.is_known().await && client.look(Session::is_empty).await);
}

/// The table in the crate's documentation.
pub(crate) async fn a_session_is_used_with_as_few_calls_as_documented<S>(handles: [S; 2])
where
    S: SessionStore,
{
    use Operation::{Create, Delete, Load, SignIn, Touch, Update};
    let app = App::new(handles);
    let client = app.one.client();
    for (path, wait, calls) in [
        ("/", SECOND, &[][..]),
        ("/read", SECOND, &[]),
        ("/write", SECOND, &[Create]),
        ("/read", SECOND, &[Load]),
        ("/write", SECOND, &[Load, Update]),
        ("/read", 7 * MINUTE, &[Load, Touch]),
        ("/read", SECOND, &[Load]),
        ("/login", SECOND, &[Load, SignIn]),
        ("/logout", SECOND, &[Load, Delete]),
        ("/login", SECOND, &[SignIn]),
    ] {
        app.one.clock.advance(wait);
        let made = app.calls(client.get(path)).await;
        let calls: Vec<_> = calls.iter().map(|operation| (*operation, 1)).collect();
        assert_eq!(made, calls, "{path}");
    }
}

pub(crate) async fn values_of_all_kinds_and_sizes_come_back<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.client();
    let values = [
        "",
        "\0\u{1}\u{7f}\"\\'",
        "Zürich \u{2028} 🎩 ключ",
        "%00'; DROP TABLE sessions; --",
        &"x".repeat(60_000),
    ];
    for value in values.map(str::to_owned) {
        let written = value.clone();
        client.act(move |s| s.insert("a", written)).await.ok();
        let read = client.look(|s| s.get::<String>("a").unwrap()).await;
        assert_eq!(read, Some(value));
    }
    for owner in ["a", "Ада\r\n\u{1}'\"%", &"é".repeat(127)].map(str::to_owned) {
        let signed_in = owner.clone();
        client.act(move |s| s.sign_in(signed_in)).await.ok();
        assert_eq!(client.owner().await.as_deref(), Some(&*owner));
        assert_eq!(app.one.sessions.list(&owner).await.unwrap().len(), 1);
    }
}

/// S-70.
pub(crate) async fn data_beyond_the_limit_is_refused<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let before = app.record(&client).await.unwrap();
    let seen = client.act(|s| s.insert("a", "x".repeat(65_537))).await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::PAYLOAD_TOO_LARGE, Told::Vary)
    );
    assert_eq!(app.record(&client).await.unwrap(), before);
    let around = r#"{"a":"","n":1}"#.len();
    let fitting = "x".repeat(65_536 - around);
    client.act(|s| s.insert("a", fitting)).await.ok();
    assert_eq!(app.record(&client).await.unwrap().data.len(), 65_536);
}

pub(crate) async fn a_remembered_session_keeps_its_own_time<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.client();
    let signed_in = client.act(|s| s.sign_in("ada").and(s.remember(30 * DAY)));
    let cookie = signed_in.await.ok().cookie().unwrap();
    assert_eq!(cookie.max_age(), Some(30 * 24 * 60 * 60));
    app.one.clock.advance(29 * DAY);
    assert_eq!(client.owner().await.as_deref(), Some("ada"));
    app.one.clock.advance(DAY);
    assert!(!client.is_known().await);

    client
        .act(|s| s.sign_in("ada").and(s.remember(30 * DAY)))
        .await
        .ok();
    client.act(Session::forget).await.ok();
    app.one.clock.advance(HOUR);
    assert!(!client.is_known().await);
}

/// S-45.
pub(crate) async fn a_session_ends_when_it_is_idle<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let replay = client.twin();
    for _ in 0..3 {
        app.one.clock.advance(HOUR - SECOND);
        assert!(replay.is_known().await);
    }
    app.one.clock.advance(HOUR);
    for server in [&app.one, &app.two] {
        assert!(!replay.twin_at(server).is_known().await);
    }
    assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
    assert_ne!(client.id(), replay.id());
    // S-47: nor does it come back when what is left of it is cleared away, or stays.
    let now = app.one.clock.now();
    app.store.delete_expired(now, 100).await.unwrap();
    assert!(!replay.is_known().await && client.is_known().await);
}

/// S-46, S-48.
pub(crate) async fn a_session_in_use_ends_all_the_same<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let replay = client.twin();
    let end = app.one.clock.now().saturating_add(DAY);
    for step in 0..47 {
        app.one.clock.advance(30 * MINUTE);
        let path = ["/read", "/write"][step % 2];
        replay.get(path).await.ok();
        assert!(app.record(&replay).await.unwrap().expires <= end);
    }
    assert!(replay.is_known().await);
    app.one.clock.advance(30 * MINUTE);
    assert!(!replay.is_known().await);
}

/// S-37, S-38.
pub(crate) async fn a_renewal_replaces_the_token<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    client.get("/login").await.ok();
    for path in ["/stepup", "/act"] {
        let old = client.twin();
        let seen = match path {
            "/act" => client.act(Session::renew).await,
            path => client.get(path).await,
        };
        assert_eq!(seen.ok().told(), Told::Cookie);
        assert_eq!(client.id(), old.id());
        assert_ne!(client.the_token(), old.the_token());
        assert!(!old.is_known().await);
        assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
    }
}

/// S-44.
pub(crate) async fn a_periodic_renewal_leaves_the_old_token_a_grace<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::with(handles, |b| {
        b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND)
    });
    let client = app.one.visitor().await;
    let old = client.twin();
    app.one.clock.advance(15 * MINUTE);
    assert_eq!(client.get("/read").await.ok().told(), Told::Cookie);
    app.one.clock.advance(4 * SECOND);
    assert_eq!(old.get("/write").await.ok().told(), Told::Vary);
    assert_eq!(client.value("n").await, Some(2));
    app.one.clock.advance(SECOND);
    assert!(!old.is_known().await && client.is_known().await);

    // None after an authentication, also for a token that a renewal has just replaced.
    let old = client.twin();
    app.one.clock.advance(15 * MINUTE);
    assert_eq!(client.get("/read").await.ok().told(), Told::Cookie);
    assert!(old.is_known().await);
    client.get("/login").await.ok();
    assert!(!old.is_known().await && client.is_known().await);
}

/// S-36, S-39.
pub(crate) async fn a_sign_in_takes_the_guest_along_and_ends_the_old_token<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let fixed = client.twin();
    app.one.clock.advance(MINUTE);
    assert_eq!(client.get("/login").await.ok().told(), Told::Cookie);
    assert_eq!(client.id(), fixed.id());
    assert_eq!(fixed.get("/read").await.text(), "anonymous");
    assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
    let record = app.record(&client).await.unwrap();
    assert_eq!(record.owner.as_deref(), Some("ada"));
    assert_eq!(record.authenticated, Some(app.one.clock.now()));
    // What whoever planted the token does with it makes a session of their own.
    fixed.get("/write").await.ok();
    assert_ne!(fixed.id(), client.id());
    // Who signs in as somebody else is given nothing of theirs.
    client.act(|s| s.sign_in("grace")).await.ok();
    assert_eq!(client.get("/read").await.text(), r#"["grace",null]"#);
    assert!(app.one.sessions.list("ada").await.unwrap().is_empty());
}

/// S-41, S-52.
pub(crate) async fn a_sign_out_is_for_good<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    for signed_in in [false, true] {
        let client = app.one.visitor().await;
        if signed_in {
            client.get("/login").await.ok();
        }
        let replay = client.twin();
        assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
        assert_eq!(client.token(), None);
        for server in [&app.one, &app.two] {
            assert!(!replay.twin_at(server).is_known().await);
        }
        app.assert_empty().await;
        let dead = replay.the_token();
        assert_eq!(replay.get("/write").await.ok().told(), Told::Cookie);
        assert_ne!(replay.id(), id_of(&dead));
        replay.get("/logout").await.ok();
    }
}

pub(crate) async fn a_session_after_the_sign_out_is_another<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    client.get("/login").await.ok();
    let replay = client.twin();
    let seen = client.act(|s| {
        s.destroy()?;
        assert!(s.is_empty() && s.owner().is_none());
        s.insert("n", 7)
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert_ne!(client.id(), replay.id());
    assert!(!replay.is_known().await);
    assert_eq!(client.get("/read").await.text(), "[null,7]");
}

/// S-53.
pub(crate) async fn a_failing_response_keeps_the_sign_out_and_drops_the_values<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    let client = app.one.visitor().await;
    assert_eq!(client.get("/boom").await.status, 500);
    assert_eq!(client.value("n").await, Some(1));
    let replay = client.twin();
    let seen = client.act(|s| {
        s.insert("n", 99)?;
        s.destroy().map(|()| StatusCode::INTERNAL_SERVER_ERROR)
    });
    let seen = seen.await;
    assert_eq!((seen.status.as_u16(), seen.told()), (500, Told::Removal));
    assert!(!replay.is_known().await);
    app.assert_empty().await;
}

/// S-35.
pub(crate) async fn a_token_that_was_never_issued_is_not_adopted<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let victim = app.one.visitor().await;
    // An id of nobody's, and the id of a session with another secret.
    let known = &victim.the_token()[..24];
    for planted in ["A".repeat(48), format!("{known}{}", "A".repeat(24))] {
        let client = app.one.holding(&planted);
        assert_eq!(client.get("/read").await.text(), "anonymous");
        assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
        assert_ne!(client.id(), id_of(&planted));
        assert_ne!(client.id(), victim.id());
        assert!(!app.one.holding(&planted).is_known().await);
    }
    assert_eq!(victim.value("n").await, Some(1));
    assert_eq!(app.store.delete_all().await.unwrap(), 3);
}

/// S-68.
pub(crate) async fn strangers_leave_no_trace<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    for _ in 0..100 {
        let mut token = [0; 36];
        getrandom::fill(&mut token).unwrap();
        let stranger = app.one.holding(&URL_SAFE_NO_PAD.encode(token));
        assert_eq!(stranger.get("/read").await.ok().told(), Told::Vary);
        assert_ne!(stranger.get("/logout").await.ok().told(), Told::Cookie);
    }
    app.assert_empty().await;
}

/// S-62.
pub(crate) async fn a_slow_write_does_not_bring_a_session_back<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    for server in [&app.one, &app.two] {
        let client = app.one.visitor().await;
        let slow = client.twin_at(server);
        let write = Slow::start(&slow, increment).await;
        assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
        assert_eq!(write.finish().await.ok().told(), Told::Vary);
        assert!(!slow.is_known().await);
        app.assert_empty().await;
    }
}

/// S-63.
pub(crate) async fn a_slow_write_of_before_the_sign_in_writes_nothing<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    type Work = fn(&Session) -> Result<(), Error>;
    let works: [Work; 3] = [increment, Session::renew, |s| s.sign_in("mallory")];
    for server in [&app.one, &app.two] {
        for work in works {
            let client = app.one.visitor().await;
            let slow = client.twin_at(server);
            let write = Slow::start(&slow, work).await;
            client.get("/login").await.ok();
            assert_eq!(write.finish().await.ok().told(), Told::Vary);
            assert!(!slow.is_known().await);
            assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
        }
    }
}

/// S-63.
pub(crate) async fn a_slow_write_of_before_a_periodic_renewal_merges_within_the_grace<S>(
    handles: [S; 2],
) where
    S: SessionStore,
{
    let app = App::with(handles, |b| {
        b.renew_every(15 * MINUTE).renewal_grace(5 * SECOND)
    });
    for (wait, n) in [(4 * SECOND, 3), (5 * SECOND, 2)] {
        let client = app.one.visitor().await;
        let slow = client.twin();
        let write = Slow::start(&slow, increment).await;
        app.one.clock.advance(15 * MINUTE);
        assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
        app.one.clock.advance(wait);
        assert_eq!(write.finish().await.ok().told(), Told::Vary);
        assert_eq!(client.value("n").await, Some(n));
    }
}

/// S-64.
pub(crate) async fn a_touch_does_not_bring_a_session_back<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    app.one.clock.advance(30 * MINUTE);
    let pause = Pause::new();
    let paused = Fault::Pause(pause.clone());
    app.store.inject(Operation::Touch, 1, paused);
    let slow = {
        let client = client.clone();
        tokio::spawn(async move { client.get("/read").await })
    };
    pause.reached().await;
    assert!(app.two.sessions.revoke(client.id()).await.unwrap());
    pause.release();
    assert_eq!(slow.await.unwrap().ok().told(), Told::Vary);
    assert!(!client.is_known().await);
    app.assert_empty().await;
}

/// S-65.
pub(crate) async fn parallel_updates_of_one_key_are_all_counted<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.client();
    client.act(|s| s.insert("n", 0)).await.ok();
    let clients = [client.clone(), client.twin_at(&app.two)];
    let responses = at_once(64, clients, async |_, session: Session| {
        tokio::task::yield_now().await;
        increment(&session)
    });
    for seen in responses.await {
        assert_eq!(seen.ok().told(), Told::Vary);
    }
    assert_eq!(client.value("n").await, Some(64));
}

/// S-65.
pub(crate) async fn parallel_inserts_of_different_keys_are_all_there<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let clients = [client.clone(), client.twin_at(&app.two)];
    let responses = at_once(64, clients, async |i, session: Session| {
        tokio::task::yield_now().await;
        session.insert(format!("key {i}"), i)
    });
    for seen in responses.await {
        assert_eq!(seen.ok().told(), Told::Vary);
    }
    assert_eq!(client.look(Session::len).await, 65);
}

async fn devices<const N: usize>(server: &Server, owner: &'static str) -> [Client; N] {
    let mut clients = Vec::new();
    for _ in 0..N {
        server.clock.advance(SECOND);
        clients.push(device(server, owner).await);
    }
    clients.try_into().unwrap_or_else(|_| unreachable!())
}

/// Which of the clients have a live session.
async fn known(clients: &[Client]) -> Vec<bool> {
    let mut known = Vec::new();
    for client in clients {
        known.push(client.is_known().await);
    }
    known
}

/// S-58.
pub(crate) async fn an_owner_sees_their_sessions<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let [first, second] = devices(&app.one, "ada").await;
    device(&app.one, "adam").await;
    app.one.clock.advance(10 * MINUTE);
    first.act(|s| s.insert("browser", "Lynx")).await.ok();
    let list = app.two.sessions.list("ada").await.unwrap();
    let ids: Vec<_> = list.iter().map(SessionInfo::id).collect();
    assert_eq!(ids, [first.id(), second.id()], "the last used one first");
    let browser = list[0].get::<String>("browser").unwrap();
    assert_eq!(browser.as_deref(), Some("Lynx"));
    app.one.clock.advance(HOUR - 10 * MINUTE);
    let list = app.two.sessions.list("ada").await.unwrap();
    assert_eq!(list.len(), 1, "the other one has expired");
}

/// S-56, S-57.
pub(crate) async fn one_session_or_all_of_an_owner_or_all_can_be_ended<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    let sessions = &app.one.sessions;
    let ada: [Client; 3] = devices(&app.one, "ada").await;
    let grace: [Client; 2] = devices(&app.one, "grace").await;
    let guest = app.one.visitor().await;
    assert!(sessions.revoke(ada[0].id()).await.unwrap());
    assert!(!sessions.revoke(ada[0].id()).await.unwrap());
    assert_eq!(known(&ada).await, [false, true, true]);
    assert_eq!(sessions.revoke_all("ada").await.unwrap(), 2);
    assert_eq!(known(&ada).await, [false; 3]);
    assert_eq!(known(&grace).await, [true; 2]);
    assert_eq!(sessions.revoke_everyone().await.unwrap(), 3);
    assert_eq!(known(&grace).await, [false; 2]);
    assert!(!guest.is_known().await);
}

/// S-55.
pub(crate) async fn all_other_sessions_of_an_owner_end<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let ada: [Client; 5] = devices(&app.one, "ada").await;
    let adam = device(&app.one, "adam").await;
    let stolen = ada[2].twin();
    let sessions = app.one.sessions.clone();
    let seen = ada[2].run(async move |s: Session| {
        assert_eq!(sessions.revoke_others(&s).await?, 4);
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert_eq!(known(&ada).await, [false, false, true, false, false]);
    assert!(!stolen.is_known().await, "its token was renewed");
    assert!(adam.is_known().await);
}

/// S-60.
pub(crate) async fn a_revocation_beats_a_sign_in_under_way<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    for thief in [app.one.client(), app.one.visitor().await] {
        let (sessions, clock) = (app.two.sessions.clone(), app.one.clock.clone());
        let seen = thief.run(async move |s: Session| {
            clock.advance(SECOND);
            sessions.revoke_all("ada").await?;
            clock.advance(SECOND);
            s.sign_in("ada")
        });
        assert_eq!(seen.await.ok().told(), Told::Vary);
        assert_eq!(thief.owner().await, None);
        assert!(app.one.sessions.list("ada").await.unwrap().is_empty());
        let later = device(&app.one, "ada").await;
        assert!(later.is_known().await);
    }
}

/// S-59.
pub(crate) async fn an_owner_never_has_more_sessions_than_the_limit<S>(handles: [S; 2])
where
    S: SessionStore + Clone,
{
    for (when_full, owner, welcome) in [
        (WhenFull::EvictOldest, "ada", 24),
        (WhenFull::Refuse, "grace", 3),
    ] {
        let app = App::with(handles.clone(), |b| b.max_sessions_per_owner(3, when_full));
        let clients: Vec<_> = (0..24)
            .map(|i| [&app.one, &app.two][i % 2].client())
            .collect();
        let sign_in = move |_, s: Session| async move { s.sign_in(owner) };
        let logins = at_once(24, clients.clone(), sign_in).await;
        let done = logins.iter().filter(|seen| seen.status == 200).count();
        assert_eq!(done, welcome);
        assert_eq!(app.one.sessions.list(owner).await.unwrap().len(), 3);
        let known = known(&clients).await;
        assert_eq!(known.iter().filter(|known| **known).count(), 3);
    }
}

/// S-76.
pub(crate) async fn two_applications_on_one_store_do_not_accept_each_others_tokens<S>(
    handles: [S; 2],
) where
    S: SessionStore + Clone,
{
    let users = App::new(handles.clone());
    let admins = App::with(handles, |b| b.cookie_name("__Host-admin"));
    let user = users.one.visitor().await;
    let intruder = admins.one.client();
    intruder.keep(&format!(
        "__Host-admin={}; Path=/; Secure",
        user.the_token()
    ));
    assert_eq!(intruder.get("/read").await.text(), "anonymous");
    assert_eq!(intruder.get("/write").await.ok().told(), Told::Cookie);
    assert_ne!(intruder.id(), user.id());
    assert_eq!(user.get("/read").await.text(), "[null,1]");
}

/// S-75.
pub(crate) async fn a_record_under_another_id_opens_for_nobody<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let [a, b] = [app.one.visitor().await, app.one.visitor().await];
    let copied = app.record(&a).await.unwrap();
    assert!(app.store.delete(b.id()).await.unwrap());
    let now = app.one.clock.now();
    let created = app.store.create(b.id(), &copied, now).await.unwrap();
    assert_eq!(created, Create::Done);
    let mut spliced = b.id().as_bytes().to_vec();
    spliced.extend(&bytes_of(&a.the_token())[16..]);
    for token in [b.the_token(), URL_SAFE_NO_PAD.encode(spliced)] {
        assert!(!app.one.holding(&token).is_known().await);
    }
    assert!(a.is_known().await);
}

/// S-08: what a store is given; what lies in it is searched where it lies.
pub(crate) async fn no_record_holds_a_secret<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let client = app.one.visitor().await;
    for path in ["/read", "/login", "/write"] {
        client.get(path).await.ok();
        // Derived from the token.
        client.act(|s| s.csrf_token().map(drop)).await.ok();
        let bytes = app.record(&client).await.unwrap().encode();
        let token = bytes_of(&client.the_token());
        let secret = &token[16..];
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        // Without the last characters, which depend on what follows.
        let texts = [
            hex,
            client.the_token()[22..].to_owned(),
            STANDARD.encode(secret)[..24].to_owned(),
        ];
        let needles = texts.iter().map(String::as_bytes).chain([secret]);
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle);
            assert!(!found, "{path}");
        }
    }
}

/// S-71.
pub(crate) async fn a_store_that_fails_costs_nobody_their_session<S>(handles: [S; 2])
where
    S: SessionStore,
{
    let app = App::new(handles);
    let client = app.one.visitor().await;
    let token = client.the_token();
    for operation in OPERATIONS {
        app.store.always(operation, Fault::Fail);
    }
    assert_eq!(client.get("/").await.status, 200);
    for path in ["/read", "/write", "/login", "/logout"] {
        let seen = client.get(path).await;
        assert_eq!((seen.status.as_u16(), seen.cookie()), (503, None), "{path}");
    }
    app.store.heal();
    assert_eq!(client.the_token(), token);
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

/// S-71: whatever their requests had come to when they were dropped.
pub(crate) async fn clients_that_leave_hold_up_nobody<S: SessionStore>(handles: [S; 2]) {
    let app = App::new(handles);
    let (stays, leaves) = (app.one.visitor().await, app.one.visitor().await);
    let is_over = AtomicBool::new(false);
    let bursts = async {
        for _ in 0..20 {
            let mut burst = JoinSet::new();
            for n in 0..50 {
                let client = leaves.twin();
                let patience = Duration::from_micros(n * 40);
                burst.spawn(async move { timeout(patience, client.get("/write")).await.is_ok() });
            }
            burst.join_all().await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let counting = async {
        let mut counted = 0;
        while !is_over.load(Ordering::Relaxed) {
            let count = stays.act(|s| s.update("counted", |n: &mut u64| *n += 1));
            let seen = timeout(10 * SECOND, count).await;
            seen.expect("nobody is in the way").ok();
            counted += 1;
            // A store in memory never waits.
            tokio::task::yield_now().await;
        }
        counted
    };
    let ((), counted) = tokio::join!(bursts, counting);
    assert_eq!(stays.value("counted").await, Some(counted));
    assert!(leaves.is_known().await);
}
