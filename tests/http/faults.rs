//! Stores that fail, hang or lie, handlers that panic, clients that go away: what is then in the store,
//! and what the client is told.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::store::{
    Admission, Create, Digest, Record, SessionStore, SignIn, StoreError, Timestamp, Update, Version,
};
use cloakroom::test_util::{Fault, Operation, Pause};
use cloakroom::{Error, Session, SessionId, SessionLayer};
use http::StatusCode;

use crate::support::{Client, Seen, Server, Store, Told, bytes_of, id_of};

const MINUTE: Duration = Duration::from_secs(60);

const ON_THE_PATH: [Operation; 6] = [
    Operation::Create,
    Operation::Load,
    Operation::Update,
    Operation::SignIn,
    Operation::Touch,
    Operation::Delete,
];

/// What a client's cookie opens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Nothing,
    Anonymous(Vec<String>),
    SignedIn(Vec<String>),
}

fn anonymous<const N: usize>(keys: [&str; N]) -> State {
    State::Anonymous(keys.map(str::to_owned).to_vec())
}

fn signed_in<const N: usize>(keys: [&str; N]) -> State {
    State::SignedIn(keys.map(str::to_owned).to_vec())
}

impl State {
    async fn of(client: &Client) -> Self {
        let look = |s: &Session| match (s.is_new(), s.owner()) {
            (true, _) => Self::Nothing,
            (false, None) => Self::Anonymous(s.keys()),
            (false, Some(_)) => Self::SignedIn(s.keys()),
        };
        client.look(look).await
    }
}

type Work = fn(&Session) -> Result<(), Error>;

/// S-42, S-71, S-72: every store call on the path of a request, and each way in which it can go wrong.
#[tokio::test(start_paused = true)]
async fn a_store_call_that_goes_wrong_is_a_503_that_announces_nothing() {
    let unchanged = || anonymous(["n"]);
    // What the client's cookie opens afterwards if the call did its work before it failed. Where
    // that made a token, which only this process knows, the layer looks whether it is stored.
    let rows: [(&str, Operation, Work, State); 7] = [
        ("read", Operation::Load, |_| Ok(()), unchanged()),
        ("touch", Operation::Touch, |_| Ok(()), unchanged()),
        (
            "write",
            Operation::Update,
            |s| s.insert("a", 1),
            anonymous(["a", "n"]),
        ),
        ("renew", Operation::Update, Session::renew, unchanged()),
        (
            "sign in",
            Operation::SignIn,
            |s| s.sign_in("ada"),
            signed_in(["n"]),
        ),
        (
            "sign out",
            Operation::Delete,
            Session::destroy,
            State::Nothing,
        ),
        (
            "start over",
            Operation::Create,
            |s| s.destroy().and(s.insert("a", 1)),
            anonymous(["a"]),
        ),
    ];
    for (what, operation, work, done) in rows {
        for fault in [Fault::Fail, Fault::Hang, Fault::FailAfter] {
            let client = Server::new().visitor().await;
            let server = client.server.clone();
            if operation == Operation::Touch {
                server.clock.advance(30 * MINUTE);
            }
            server.store.always(operation, fault.clone());
            let before = server.store.calls(operation);
            let seen = client.act(work).await;
            let new_token = matches!(what, "renew" | "sign in" | "start over");
            if new_token && matches!(fault, Fault::FailAfter) {
                assert_eq!(seen.ok().told(), Told::Cookie, "{what}");
                server.store.heal();
                assert_eq!(State::of(&client).await, done, "{what}");
                continue;
            }
            assert_eq!(
                seen.status,
                StatusCode::SERVICE_UNAVAILABLE,
                "{what} {fault:?}"
            );
            assert_eq!(seen.told(), Told::Vary, "{what} {fault:?}");
            assert!(seen.error().is_store());
            assert_eq!(seen.error().is_timeout(), matches!(fault, Fault::Hang));
            // No retry storm. But a client whose token may be dead is not left without another for one late answer.
            let doubtful = matches!(what, "renew" | "sign in") && matches!(fault, Fault::Hang);
            let calls = server.store.calls(operation) - before;
            assert_eq!(calls, 1 + u64::from(doubtful), "{what} {fault:?}");

            let seen = client.get("/").await.ok();
            assert_eq!(
                (seen.text(), &*seen.calls, seen.told()),
                ("hello", "", Told::Nothing)
            );

            server.store.heal();
            let expected = match (&fault, operation) {
                (Fault::FailAfter, _) => done.clone(),
                // The deletion came first, and it stays.
                (_, Operation::Create) => State::Nothing,
                _ => unchanged(),
            };
            assert_eq!(State::of(&client).await, expected, "{what} {fault:?}");
            client.get("/write").await.ok();
            assert!(client.value("n").await.is_some());
        }
    }
}

/// S-72: no cookie for a session that may not be stored.
#[tokio::test(start_paused = true)]
async fn a_session_that_cannot_be_created_gets_no_cookie() {
    for fault in [Fault::Fail, Fault::Hang, Fault::FailAfter] {
        for (path, operation, call) in [
            ("/write", Operation::Create, "create"),
            ("/login", Operation::SignIn, "sign_in"),
        ] {
            let client = Server::new().client();
            client.server.store.inject(operation, 1, fault.clone());
            let looked = format!("load {call}");
            let seen = client.get(path).await;
            if matches!(fault, Fault::FailAfter) {
                // It is stored, as the layer finds out.
                let seen = seen.ok();
                assert_eq!((seen.calls.clone(), seen.told()), (looked, Told::Cookie));
                continue;
            }
            let calls = if matches!(fault, Fault::Hang) {
                call
            } else {
                &looked
            };
            assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!((&*seen.calls, seen.told()), (calls, Told::Vary));
            assert_eq!(client.get("/write").await.ok().told(), Told::Cookie);
            assert_eq!(client.get("/read").await.text(), "[null,1]");
        }
    }
}

/// S-71: closed while the store is down, and as before when it is back.
#[tokio::test]
async fn an_outage_signs_nobody_out() {
    let client = Server::new().client();
    client.get("/login").await.ok();
    let token = client.the_token();
    for operation in ON_THE_PATH {
        client.server.store.always(operation, Fault::Fail);
    }
    for path in ["/read", "/write", "/login", "/logout"] {
        let seen = client.get(path).await;
        assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!((&*seen.calls, seen.told()), ("load", Told::Vary));
    }
    assert_eq!(client.get("/").await.ok().told(), Told::Nothing);
    client.server.store.heal();
    assert_eq!(client.the_token(), token);
    assert_eq!(client.get("/read").await.text(), r#"["ada",null]"#);
}

/// S-72: the deadline holds for all calls of a commit together, the handler's time aside.
#[tokio::test(start_paused = true)]
async fn a_slow_store_has_the_configured_time_and_not_more() {
    let timeout = Duration::from_secs(2);
    for (delay, status) in [(1_900, 200), (2_100, 503)] {
        let client = Server::with(|b| b.store_timeout(timeout)).visitor().await;
        let delay = Fault::Delay(Duration::from_millis(delay));
        client.server.store.always(Operation::Load, delay.clone());
        client.server.store.always(Operation::Update, delay);
        let seen = client.run(async |s: Session| {
            tokio::time::sleep(MINUTE).await;
            s.insert("a", 1)
        });
        let start = tokio::time::Instant::now();
        assert_eq!(seen.await.status, status);
        assert!(start.elapsed() < MINUTE + 2 * timeout);
    }
    let client = Server::with(|b| b.store_timeout(timeout)).visitor().await;
    let half = Fault::Delay(Duration::from_millis(1_100));
    client.server.store.always(Operation::Delete, half.clone());
    client.server.store.always(Operation::Create, half);
    let seen = client.act(|s| s.destroy().and(s.insert("a", 1))).await;
    assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(seen.error().is_timeout());
}

/// S-33, S-72: also for all cookies of one request together.
#[tokio::test(start_paused = true)]
async fn the_lookups_of_several_cookies_share_one_deadline() {
    let server = Server::with(|b| b.store_timeout(Duration::from_secs(2)));
    let token = server.visitor().await.the_token();
    let stale = server.visitor().await.the_token();
    server.memory.delete(id_of(&stale)).await.unwrap();
    for (delay, status) in [
        (900, StatusCode::OK),
        (1_100, StatusCode::SERVICE_UNAVAILABLE),
    ] {
        let delay = Fault::Delay(Duration::from_millis(delay));
        server.store.always(Operation::Load, delay);
        let client = server.client();
        let mut request = client.request("/read");
        let line = format!("__Host-id={stale}; __Host-id={token}");
        request
            .headers_mut()
            .insert(http::header::COOKIE, line.parse().unwrap());
        assert_eq!(client.send(request).await.status, status);
    }
}

/// S-74: whatever a record's data has become, it is nobody's session, and its client can go on.
#[tokio::test]
async fn a_damaged_record_is_nobodys_session_and_never_a_panic() {
    let deep = format!("{{\"n\":{}", "[".repeat(100_000));
    let damages: [&[u8]; 12] = [
        b"",
        b"{",
        b"null",
        b"[]",
        b"1",
        b"\"text\"",
        b"{\"n\":1",
        b"{\"n\":1}}",
        b"{\"n\":1,\"n\":2}",
        b"{\"n\":\"\xff\"}",
        b"\xff\xff\xff\xff{\"n\":1}",
        deep.as_bytes(),
    ];
    for damage in damages {
        let client = Server::new().visitor().await;
        let memory = &client.server.memory;
        let now = client.server.clock.now();
        let mut record = client.record().await.unwrap();
        record.data = damage.into();
        let done = memory
            .update(client.id(), &record, record.version, now)
            .await
            .unwrap();
        assert_eq!(done, Update::Done);

        let shown = String::from_utf8_lossy(&damage[..damage.len().min(20)]);
        let seen = client.get("/read").await.ok();
        assert_eq!(
            (seen.text(), seen.told()),
            ("anonymous", Told::Vary),
            "{shown}"
        );
        let id = client.id();
        assert_eq!(
            client.get("/write").await.ok().told(),
            Told::Cookie,
            "{shown}"
        );
        assert_ne!(client.id(), id);
        assert_eq!(client.get("/read").await.text(), "[null,1]");
    }
}

/// S-74: depth that our own encoder could not have made costs one key, not the stack.
#[tokio::test]
async fn a_value_of_great_depth_is_an_error_for_its_key_alone() {
    let client = Server::new().visitor().await;
    let mut record = client.record().await.unwrap();
    let (open, close) = ("[".repeat(100_000), "]".repeat(100_000));
    record.data = format!("{{\"deep\":{open}{close},\"n\":1}}")
        .into_bytes()
        .into();
    let now = client.server.clock.now();
    let done = client
        .server
        .memory
        .update(client.id(), &record, record.version, now)
        .await;
    assert_eq!(done.unwrap(), Update::Done);
    let seen = client.act(|s| {
        assert!(s.get::<serde_json::Value>("deep").unwrap_err().is_decode());
        assert_eq!(s.get::<u64>("n")?, Some(1));
        s.insert("n", 2)
    });
    seen.await.ok();
    client.act(|s| s.remove("deep").map(drop)).await.ok();
    assert_eq!(State::of(&client).await, anonymous(["n"]));
    assert_eq!(client.value("n").await, Some(2));
}

/// A store whose answers are bent on the way out.
#[derive(Clone)]
struct LyingStore {
    truth: Store,
    lies: Arc<Lies>,
}

type Loaded = Result<Option<Record>, StoreError>;

/// What is said instead of the truth; an update is not even passed on.
#[derive(Default)]
struct Lies {
    load: Option<Box<dyn Fn(Option<Record>) -> Loaded + Send + Sync>>,
    update: Option<Box<dyn Fn() -> Result<Update, StoreError> + Send + Sync>>,
    /// Sends each update again, as a driver may whose connection breaks: the first is not heard of.
    sends_again: bool,
    create: Option<Create>,
}

impl SessionStore for LyingStore {
    async fn create(
        &self,
        id: SessionId,
        r: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        match self.lies.create {
            Some(lie) => Ok(lie),
            None => self.truth.create(id, r, now).await,
        }
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let truth = self.truth.load(id, now).await?;
        self.lies
            .load
            .as_ref()
            .map_or(Ok(truth.clone()), |lie| lie(truth))
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        if self.lies.sends_again {
            let _unheard = self.truth.update(id, record, expected, now).await?;
        }
        match &self.lies.update {
            Some(lie) => lie(),
            None => self.truth.update(id, record, expected, now).await,
        }
    }

    async fn touch(
        &self,
        id: SessionId,
        at: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.truth.touch(id, at, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.truth.delete(id).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.truth.delete_expired(now, limit).await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        self.truth.list_by_owner(owner, now).await
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.truth.delete_by_owner(owner, keep, now).await
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        match (&self.lies.update, self.lies.create, expected) {
            (Some(lie), _, Some(_)) => Ok(match lie()? {
                Update::Done => SignIn::Done,
                Update::Conflict(record) => SignIn::Conflict(record),
                Update::Gone => SignIn::Gone,
            }),
            (_, Some(Create::Taken), None) => Ok(SignIn::Taken),
            (_, Some(Create::Done), None) => Ok(SignIn::Done),
            _ => {
                self.truth
                    .sign_in(id, record, expected, admission, now)
                    .await
            }
        }
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        self.truth.delete_all().await
    }
}

/// The same server on a store that lies.
fn lying(server: &Server, lies: Lies) -> Server {
    server.under(SessionLayer::builder(LyingStore {
        truth: server.store.clone(),
        lies: Arc::new(lies),
    }))
}

fn loads(lie: impl Fn(Option<Record>) -> Loaded + Send + Sync + 'static) -> Lies {
    Lies {
        load: Some(Box::new(lie)),
        ..Lies::default()
    }
}

fn updates(lie: impl Fn() -> Update + Send + Sync + 'static) -> Lies {
    Lies {
        update: Some(Box::new(move || Ok(lie()))),
        ..Lies::default()
    }
}

/// S-47, S-74, S-75: the layer trusts no record that the client's token does not open here and now.
#[tokio::test]
async fn a_record_that_should_not_have_been_loaded_opens_nothing() {
    let server = Server::new();
    let victim = server.client();
    victim.get("/login").await.ok();
    let stolen = victim.record().await.unwrap();
    let now = server.clock.now();
    let with = |change: fn(&mut Record, Timestamp)| {
        loads(move |truth| {
            Ok(truth.map(|mut record| {
                change(&mut record, now);
                record
            }))
        })
    };
    let lies = [
        ("another's", loads(move |_| Ok(Some(stolen.clone())))),
        ("expired", with(|r, now| r.expires = now)),
        (
            "ended long ago",
            with(|r, _| r.expires = Timestamp::from_millis(0)),
        ),
        (
            "beyond its absolute end",
            with(|r, _| r.created = Timestamp::from_millis(0)),
        ),
        (
            "another digest",
            with(|r, _| r.digest = Digest::from_bytes([0; 32])),
        ),
        (
            "damaged",
            loads(|_| Err(StoreError::corrupt("row cut short"))),
        ),
        ("damaged data", with(|r, _| r.data = b"{".as_slice().into())),
    ];
    for (what, lies) in lies {
        let client = server.visitor().await;
        let client = client.twin_at(&lying(&server, lies));
        let id = client.id();
        let seen = client.get("/read").await.ok();
        assert_eq!(
            (seen.text(), seen.told()),
            ("anonymous", Told::Vary),
            "{what}"
        );
        assert_eq!(
            client.get("/write").await.ok().told(),
            Told::Cookie,
            "{what}"
        );
        assert_ne!(client.id(), id, "{what}");
    }
}

/// S-75: the digest binds the id. Who can write to the store still cannot open another's session with a
/// secret of their own.
#[tokio::test]
async fn a_record_copied_under_another_id_is_refused() {
    let server = Server::new();
    let (ada, other) = (server.client(), server.visitor().await);
    ada.get("/login").await.ok();
    let record = ada.record().await.unwrap();
    server.memory.delete(other.id()).await.unwrap();
    let copied = server
        .memory
        .create(other.id(), &record, server.clock.now());
    assert_eq!(copied.await.unwrap(), Create::Done);
    server.memory.delete(ada.id()).await.unwrap();
    let (id, secret) = (bytes_of(&other.the_token()), bytes_of(&ada.the_token()));
    let spliced = server.holding(&URL_SAFE_NO_PAD.encode([&id[..16], &secret[16..]].concat()));
    for client in [ada, other, spliced] {
        assert_eq!(State::of(&client).await, State::Nothing);
    }
}

/// S-12: what a store says of itself is for the log.
#[tokio::test]
async fn a_store_error_reaches_the_client_as_a_status() {
    const DETAILS: &str = "postgres://shop:hunter2@db.internal/shop: SELECT data FROM sessions";
    let server = Server::new();
    let client = server.visitor().await;
    let fails = || StoreError::new(DETAILS);
    let lies = [
        loads(move |_| Err(fails())),
        Lies {
            update: Some(Box::new(move || Err(fails()))),
            ..Lies::default()
        },
    ];
    for lies in lies {
        let client = client.twin_at(&lying(&server, lies));
        let saving = client.run(async |s: Session| {
            s.insert("a", 1)?;
            s.save().await
        });
        for seen in [client.get("/write").await, saving.await] {
            assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE);
            let told = format!("{:?} {}", seen.headers, seen.text());
            for detail in DETAILS
                .split([':', '/', '@', ' '])
                .filter(|part| part.len() > 3)
            {
                assert!(!told.contains(detail), "{told}");
            }
            assert!(
                format!("{:?}", seen.error()).contains(DETAILS),
                "the log has it"
            );
        }
    }
}

/// S-74: during a rolling upgrade another instance can read it, so nobody's session is given up.
#[tokio::test]
async fn a_record_of_a_later_release_is_a_503_and_the_cookie_stays() {
    let client = Server::new().visitor().await;
    let older = client.twin_at(&lying(
        &client.server,
        loads(|truth| {
            let mut bytes = truth.expect("a record").encode();
            bytes[0] += 1;
            Record::decode(&bytes).map(Some)
        }),
    ));
    for path in ["/read", "/write", "/logout"] {
        let seen = older.get(path).await;
        assert_eq!(
            (seen.status, seen.told()),
            (StatusCode::SERVICE_UNAVAILABLE, Told::Vary)
        );
    }
    assert_eq!(client.get("/read").await.text(), "[null,1]");
}

/// A store that says "done" and did nothing has lost the write; it has not opened anything.
#[tokio::test]
async fn a_store_that_lies_about_its_writes_authenticates_nobody() {
    let server = Server::new();
    let client = server.visitor().await;
    let record = client.record().await.unwrap();
    let foreign = {
        let mut record = record.clone();
        record.digest = Digest::from_bytes([1; 32]);
        record.version = Version::new(99);
        record.owner = Some("mallory".into());
        record
    };
    let dead = {
        let mut record = record.clone();
        record.version = Version::new(99);
        record.expires = server.clock.now();
        record
    };
    let lies = [
        ("done", updates(|| Update::Done), Told::Cookie),
        ("gone", updates(|| Update::Gone), Told::Vary),
        (
            "another's record",
            updates(move || Update::Conflict(foreign.clone())),
            Told::Vary,
        ),
        (
            "a dead record",
            updates(move || Update::Conflict(dead.clone())),
            Told::Vary,
        ),
    ];
    for (what, lies, told) in lies {
        let liar = client.twin_at(&lying(&server, lies));
        let seen = liar.get("/login").await.ok();
        assert_eq!(seen.told(), told, "{what}");
        let expected = if told == Told::Cookie {
            State::Nothing
        } else {
            anonymous(["n"])
        };
        assert_eq!(State::of(&liar).await, expected, "{what}");
        assert_eq!(client.record().await.unwrap(), record, "{what}");
    }
}

/// Retries are bounded in count, and in time as every commit is.
#[tokio::test(start_paused = true)]
async fn a_store_that_always_answers_conflict_is_given_up() {
    let server = Server::new();
    let client = server.visitor().await;
    let record = client.record().await.unwrap();
    let asked = Arc::new(Mutex::new(0));
    let count = Arc::clone(&asked);
    let lies = updates(move || {
        let mut count = count.lock().unwrap();
        *count += 1;
        let mut newer = record.clone();
        newer.version = Version::new(1 + *count);
        Update::Conflict(newer)
    });
    let liar = client.twin_at(&lying(&server, lies));
    let start = tokio::time::Instant::now();
    let seen = liar.get("/write").await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::SERVICE_UNAVAILABLE, Told::Vary)
    );
    assert!(seen.error().is_conflict() && !seen.error().is_store());
    assert!(start.elapsed() < Duration::from_secs(5));
    let asked = *asked.lock().unwrap();
    assert!((2..=512).contains(&asked), "asked {asked} times");
    assert_eq!(client.value("n").await, Some(1));
}

/// S-42: a conflict with the own renewal does not hide its token from the client.
#[tokio::test]
async fn a_renewal_that_was_sent_twice_is_announced() {
    let server = Server::new();
    let store = LyingStore {
        truth: server.store.clone(),
        lies: Arc::new(Lies {
            sends_again: true,
            ..Lies::default()
        }),
    };
    let builder = SessionLayer::builder(store).renew_every(MINUTE);
    let server = server.under(builder.renewal_grace(Duration::from_millis(5)));
    let client = server.visitor().await;
    server.clock.advance(2 * MINUTE);
    let seen = client.get("/read").await.ok();
    assert_eq!(seen.told(), Told::Cookie);
    server.clock.advance(MINUTE);
    assert!(client.is_known().await);
}

/// S-02: a session is created or it is not; it never becomes another's.
#[tokio::test]
async fn an_id_that_is_taken_is_never_overwritten() {
    let repeats = Arc::new(Mutex::new(0_u32));
    let left = Arc::clone(&repeats);
    let server = Server::with(|b| {
        b.entropy(move |bytes| {
            let mut left = left.lock().unwrap();
            match *left {
                0 => getrandom::fill(bytes).map_err(io::Error::other)?,
                _ => bytes.fill(7),
            }
            *left = left.saturating_sub(1);
            Ok(())
        })
    });
    *repeats.lock().unwrap() = 1;
    let ada = server.client();
    ada.get("/login").await.ok();
    let record = ada.record().await.unwrap();

    *repeats.lock().unwrap() = 1;
    let other = server.client();
    let seen = other.get("/write").await.ok();
    assert_eq!((&*seen.calls, seen.told()), ("create create", Told::Cookie));
    assert_ne!(other.id(), ada.id());

    *repeats.lock().unwrap() = u32::MAX;
    let unlucky = server.client();
    let seen = unlucky.get("/write").await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::SERVICE_UNAVAILABLE, Told::Vary)
    );
    assert!(seen.error().is_random());
    assert_eq!(server.memory.len(), 2);
    assert_eq!(ada.record().await.unwrap(), record);
}

/// S-02: the same from the store's side, when it says so.
#[tokio::test]
async fn a_create_that_is_always_taken_is_given_up() {
    let server = Server::new();
    let lies = Lies {
        create: Some(Create::Taken),
        ..Lies::default()
    };
    let seen = lying(&server, lies).client().get("/write").await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::SERVICE_UNAVAILABLE, Told::Vary)
    );
}

/// S-03: no token without random numbers, and no weak one instead.
#[tokio::test]
async fn without_random_numbers_no_token_is_made() {
    let broken = Arc::new(Mutex::new(false));
    let flag = Arc::clone(&broken);
    let server = Server::with(|b| {
        b.entropy(move |bytes| {
            if *flag.lock().unwrap() {
                return Err(io::Error::other("no entropy"));
            }
            getrandom::fill(bytes).map_err(io::Error::other)
        })
    });
    let client = server.visitor().await;
    *broken.lock().unwrap() = true;
    let stranger = server.client();
    for (who, path) in [
        (&stranger, "/write"),
        (&stranger, "/login"),
        (&client, "/login"),
    ] {
        let seen = who.get(path).await;
        assert_eq!(
            (seen.status, seen.told()),
            (StatusCode::SERVICE_UNAVAILABLE, Told::Vary)
        );
        assert!(seen.error().is_random());
    }
    assert_eq!(server.memory.len(), 1);
    // What needs no token goes on.
    assert_eq!(client.get("/write").await.ok().told(), Told::Vary);
    *broken.lock().unwrap() = false;
    assert_eq!(State::of(&client).await, anonymous(["n"]));
    assert_eq!(client.get("/login").await.ok().told(), Told::Cookie);
}

async fn panics(response: impl Future<Output = Seen> + Send + 'static) -> bool {
    let response = tokio::spawn(response);
    response.await.is_err_and(|error| error.is_panic())
}

/// S-67.
#[tokio::test]
async fn a_handler_that_panics_changes_nothing_and_the_session_goes_on() {
    #[derive(Default, serde::Deserialize)]
    struct Bomb;

    impl serde::Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("while serializing")
        }
    }

    let client = Server::new().visitor().await;
    let asking = client.clone();
    assert!(panics(async move { asking.get("/panic").await }).await);
    assert_eq!(State::of(&client).await, anonymous(["n"]));
    let works: [fn(&Session); 5] = [
        |s| {
            s.sign_in("ada").unwrap();
            panic!("after signing in")
        },
        |s| {
            s.destroy().unwrap();
            panic!("after signing out")
        },
        |s| s.update("n", |_: &mut u64| panic!("in an update")).unwrap(),
        |s| s.insert("a", Bomb).unwrap(),
        |s| s.update("a", |_: &mut Bomb| ()).unwrap(),
    ];
    for (row, work) in works.into_iter().enumerate() {
        client.server.store.reset_counts();
        let asking = client.clone();
        assert!(panics(async move { asking.act(work).await }).await, "{row}");
        assert_eq!(client.server.store.total_calls(), 1, "{row}");
        assert_eq!(State::of(&client).await, anonymous(["n"]), "{row}");
    }
    // A panic that the handler itself survives leaves the handle usable.
    let seen = client.act(|s| {
        let handle = std::panic::AssertUnwindSafe(s);
        let update = || handle.update("n", |_: &mut u64| panic!("in an update"));
        std::panic::catch_unwind(update).unwrap_err();
        s.update("n", |n: &mut u64| *n += 1)
    });
    seen.await.ok();
    assert_eq!(client.value("n").await, Some(2));
}

/// S-67: the same when a closure panics as it runs again, in the middle of the commit.
#[tokio::test]
async fn a_closure_that_panics_on_its_second_run_changes_nothing() {
    let client = Server::new().visitor().await;
    for elsewhere in [client.server.clone(), client.server.beside(|b| b)] {
        let slow = client.clone();
        let other = client.twin_at(&elsewhere);
        let request = tokio::spawn(async move {
            let handler = async move |s: Session| {
                let mut runs = 0;
                s.insert("a", 1)?;
                s.update("n", move |n: &mut u64| {
                    runs += 1;
                    assert!(runs < 2, "again");
                    *n = 99;
                })?;
                other.get("/write").await.ok();
                Ok::<_, Error>(())
            };
            slow.run(handler).await
        });
        assert!(request.await.unwrap_err().is_panic());
        assert_eq!(State::of(&client).await, anonymous(["n"]));
    }
    client.get("/write").await.ok();
    assert_eq!(client.value("n").await, Some(4));
}

/// S-67: closures may hold the session, which holds them until somebody lets go of them.
#[tokio::test]
async fn a_request_dropped_while_its_changes_are_done_again_keeps_nothing_alive() {
    let client = Server::new().visitor().await;
    let other = client.twin_at(&client.server.beside(|b| b));
    let pause = Pause::new();
    let gate = Fault::Pause(pause.clone());
    client.server.store.inject(Operation::Update, 1, gate);
    let value = Arc::new(());
    let held = Arc::clone(&value);
    let request = Arc::new(Mutex::new(
        None::<Pin<Box<dyn Future<Output = Seen> + Send>>>,
    ));
    let dropped = Arc::clone(&request);
    let slow = client.clone();
    let mut sent = Box::pin(async move {
        let handler = async move |s: Session| {
            s.insert("a", 1)?;
            let saving = s.clone();
            tokio::spawn(async move { saving.save().await });
            tokio::task::yield_now().await;
            let (inner, mut runs) = (s.clone(), 0);
            s.update("b", move |b: &mut u64| {
                let _held = (&held, &inner);
                *b += 1;
                runs += 1;
                if runs == 2 {
                    drop(dropped.lock().unwrap().take());
                }
            })?;
            pending::<cloakroom::Result<()>>().await
        };
        slow.run(handler).await
    });
    // Up to where it waits for ever.
    let soon = Duration::from_millis(50);
    assert!(tokio::time::timeout(soon, &mut sent).await.is_err());
    *request.lock().unwrap() = Some(sent);
    // The save meets this, and then does what came after it again.
    other.get("/write").await.ok();
    pause.release();
    let freed = async {
        while Arc::strong_count(&value) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let freed = tokio::time::timeout(Duration::from_secs(10), freed).await;
    assert!(freed.is_ok(), "the closure is still there");
    assert!(
        request.lock().unwrap().is_none(),
        "it was dropped on the way"
    );
}

/// Polls a request through `stops` waits at `gate`; it is then dropped unless it is done.
async fn drop_after(
    stops: usize,
    gate: &Pause,
    request: impl Future<Output = Seen>,
) -> Option<Seen> {
    let mut request = std::pin::pin!(tokio::task::unconstrained(request));
    for _ in 0..=stops {
        match request
            .as_mut()
            .poll(&mut TaskContext::from_waker(Waker::noop()))
        {
            Poll::Ready(seen) => return Some(seen),
            Poll::Pending => gate.release(),
        }
    }
    None
}

/// S-42, S-67: a client that goes away while any of the store's calls is about to begin, or has just
/// been carried out, finds the session as it was or as it was to become.
#[tokio::test]
async fn a_request_dropped_at_any_await_leaves_the_old_state_or_the_new() {
    type Handler = fn(Session) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;
    let old = || anonymous(["n"]);
    let new_cookie = State::Nothing;
    // The last column: what the old cookie opens afterwards, besides what it opened before.
    let rows: [(&str, Handler, Vec<State>); 8] = [
        (
            "write",
            |s| Box::pin(async move { s.insert("a", 1).and(s.insert("b", 1)) }),
            vec![anonymous(["a", "b", "n"])],
        ),
        ("touch", |_| Box::pin(async { Ok(()) }), vec![]),
        (
            "renew",
            |s| Box::pin(async move { s.insert("a", 1).and(s.renew()) }),
            vec![new_cookie.clone()],
        ),
        (
            "sign in",
            |s| Box::pin(async move { s.insert("a", 1).and(s.sign_in("ada")) }),
            vec![new_cookie.clone()],
        ),
        (
            "sign out",
            |s| Box::pin(async move { s.destroy() }),
            vec![State::Nothing],
        ),
        (
            "start over",
            |s| Box::pin(async move { s.destroy().and(s.insert("a", 1)) }),
            vec![State::Nothing],
        ),
        (
            "save",
            |s| {
                Box::pin(async move {
                    s.insert("a", 1).and(s.insert("b", 1))?;
                    s.save().await?;
                    s.insert("c", 1).and(s.insert("d", 1))
                })
            },
            vec![
                anonymous(["a", "b", "n"]),
                anonymous(["a", "b", "c", "d", "n"]),
            ],
        ),
        (
            "save and sign in",
            |s| {
                Box::pin(async move {
                    s.insert("a", 1)?;
                    s.sign_in("ada")?;
                    s.save().await?;
                    s.insert("b", 1)
                })
            },
            vec![new_cookie],
        ),
    ];
    let gates: [fn(Pause) -> Fault; 2] = [Fault::Pause, Fault::PauseAfter];
    for (what, handler, allowed) in rows {
        for gate in gates {
            let mut reached = vec![];
            for stops in 0.. {
                assert!(stops < 20, "{what} never ends");
                let client = Server::new().visitor().await;
                let server = client.server.clone();
                server.clock.advance(30 * MINUTE);
                let pause = Pause::new();
                for operation in ON_THE_PATH {
                    server.store.always(operation, gate(pause.clone()));
                }
                let left = Arc::new(Mutex::new(None));
                let kept = Arc::clone(&left);
                let request = client.running(async move |s: Session| {
                    *kept.lock().unwrap() = Some(s.clone());
                    handler(s).await
                });
                let done = drop_after(stops, &pause, server.send(request)).await;
                server.store.heal();

                let late = left.lock().unwrap().take();
                if let Some(late) = late {
                    for error in [late.insert("late", 1), late.destroy(), late.save().await] {
                        assert!(error.unwrap_err().is_committed(), "{what}");
                    }
                }
                let state = State::of(&client).await;
                assert!(
                    state == old() || allowed.contains(&state),
                    "{what} after {stops} stops: {state:?}"
                );
                assert_ne!(
                    state,
                    signed_in(["a", "n"]),
                    "never signed in under the old token"
                );
                assert!(server.memory.len() <= 1, "{what} after {stops} stops");
                // Nothing of it stands in the way of the next.
                client.get("/write").await.ok();
                if reached.last() != Some(&state) {
                    reached.push(state.clone());
                }
                if let Some(seen) = done {
                    seen.ok();
                    let last = allowed.last().cloned().unwrap_or_else(old);
                    assert_eq!(state, last, "{what}");
                    break;
                }
            }
            // From the old state over the intermediate ones to the new: never back.
            let mut expected = vec![old()];
            expected.extend(allowed.iter().cloned());
            assert_eq!(reached, expected, "{what}");
        }
    }
}

/// What a handler took back after a `save` that failed, or that it gave up, is not in the store, whether or not
/// the `save` got there.
#[tokio::test(start_paused = true)]
async fn what_is_taken_back_after_a_failed_save_is_not_stored() {
    for fault in [
        Fault::Fail,
        Fault::FailAfter,
        Fault::PauseAfter(Pause::new()),
    ] {
        for gives_up in [false, true] {
            let server = Server::new();
            let client = server.visitor().await;
            client.act(|s| s.insert("paid", false)).await.ok();
            server.store.inject(Operation::Update, 1, fault.clone());
            let work = async move |s: Session| {
                s.insert("paid", true)?;
                s.insert("new", 1)?;
                s.remember(90 * 24 * 60 * MINUTE)?;
                let patience = if gives_up { 1 } else { 1_000_000 };
                let save = tokio::time::timeout(Duration::from_millis(patience), s.save());
                assert!(!matches!(save.await, Ok(Ok(()))));
                s.insert("paid", false)?;
                s.remove("new")?;
                s.forget()
            };
            client.run(work).await.ok();
            let paid = client.look(|s| s.get::<bool>("paid").unwrap()).await;
            assert_eq!(paid, Some(false), "{fault:?}");
            assert_eq!(client.value("new").await, None, "{fault:?}");
            assert_eq!(client.record().await.unwrap().policy, None, "{fault:?}");
        }
    }
}
