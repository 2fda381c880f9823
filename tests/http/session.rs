//! What handlers do with a session: values, owners, ends, and the errors that tell them no.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use cloakroom::store::{StoreError, Timestamp};
use cloakroom::test_util::{Fault, Operation};
use cloakroom::{Error, LazySession, OnConflict, Session, SessionValue, Typed};
use http::StatusCode;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize};

use crate::support::{Server, Settings, Told, id_of};

/// S-36: the token of before the sign-in is worth nothing after it.
#[tokio::test]
async fn a_sign_in_gives_a_new_token_and_the_old_one_is_dead() {
    let client = Server::new().visitor().await;
    let fixed = client.twin();
    client.get("/login").await.ok();
    assert_ne!(client.the_token(), fixed.the_token());
    assert_ne!(
        client.the_token()[24..],
        fixed.the_token()[24..],
        "the secret half, not just any"
    );
    assert_eq!(fixed.get("/read").await.text(), "anonymous");
    assert_eq!(client.server.memory.len(), 1);
    // What the attacker does with it makes a session of their own.
    fixed.get("/write").await.ok();
    assert_ne!(fixed.id(), client.id());
    assert_eq!(client.get("/read").await.text(), r#"["ada",1]"#);
}

/// S-37, S-38: as well at re-authentication, and when the application calls `renew`.
#[tokio::test]
async fn every_step_up_gives_a_new_token() {
    let client = Server::new().client();
    client.get("/login").await.ok();
    let id = client.id();
    for step in 0..3 {
        let before = client.twin();
        let seen = match step {
            2 => client.act(Session::renew).await,
            _ => client.get("/stepup").await,
        };
        assert_eq!(seen.ok().told(), Told::Cookie);
        assert_ne!(client.the_token(), before.the_token());
        assert!(!before.is_known().await);
        assert_eq!(
            (client.id(), client.owner().await.as_deref()),
            (id, Some("ada"))
        );
    }
}

/// S-39: setting the owner is the renewal; the handler sees both at once.
#[tokio::test]
async fn sign_in_sets_the_owner_and_the_time_and_renews_the_token() {
    let client = Server::new().visitor().await;
    let clock = client.server.clock.clone();
    clock.advance(Duration::from_secs(60));
    let now = clock.now();
    let seen = client.act(move |s| {
        assert_eq!((s.owner(), s.authenticated_at()), (None, None));
        s.sign_in("ada")?;
        assert_eq!(s.owner().as_deref(), Some("ada"));
        assert_eq!(s.authenticated_at().map(Timestamp::from), Some(now));
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    let record = client.record().await.unwrap();
    assert_eq!(
        (record.owner.as_deref(), record.authenticated),
        (Some("ada"), Some(now))
    );
}

#[tokio::test]
async fn an_owner_has_1_to_255_bytes_and_none_of_them_nul() {
    let client = Server::new().visitor().await;
    for bad in [
        String::new(),
        "a".repeat(256),
        "é".repeat(128),
        "a\0b".to_owned(),
    ] {
        let seen = client.act(move |s| {
            let error = s.sign_in(bad).unwrap_err();
            assert!(error.is_invalid());
            assert_eq!(s.owner(), None);
        });
        assert_eq!(seen.await.ok().calls, "load");
    }
    for good in [
        "a".to_owned(),
        "a".repeat(255),
        "Ада Лавлейс\r\n\u{1}\"".to_owned(),
    ] {
        let owner = good.clone();
        client.act(move |s| s.sign_in(owner)).await.ok();
        assert_eq!(client.owner().await.as_deref(), Some(&*good));
    }
}

/// S-40 in part: what one user left is not shown to the next; what a guest had, the user keeps.
#[tokio::test]
async fn values_follow_a_guest_to_their_account_and_nobody_else() {
    let client = Server::new().visitor().await;
    client.get("/login").await.ok();
    assert_eq!(client.look(Session::keys).await, ["n"]);
    client.act(|s| s.sign_in("ada")).await.ok();
    assert_eq!(client.look(Session::keys).await, ["n"]);
    let seen = client.act(|s| {
        s.insert("before", 1)?;
        s.sign_in("grace")?;
        assert!(s.is_empty());
        s.insert("after", 1)
    });
    assert_eq!(seen.await.ok().told(), Told::Cookie);
    assert_eq!(client.look(Session::keys).await, ["after"]);
    client.act(|s| s.sign_in("mary")).await.ok();
    assert!(client.look(Session::is_empty).await);
    // Also if a parallel request has just written more of them.
    client.act(|s| s.insert("marys", 1)).await.ok();
    let other = client.twin_at(&client.server.beside(|b| b));
    let seen = client.run(async move |s: Session| {
        s.sign_in("joan")?;
        other.act(|s| s.insert("marys own", 1)).await.ok();
        s.insert("joans", 1)
    });
    seen.await.ok();
    assert_eq!(client.look(Session::keys).await, ["joans"]);
    assert_eq!(client.owner().await.as_deref(), Some("joan"));
}

/// The same for "keep me signed in".
#[tokio::test]
async fn what_one_user_asked_to_be_remembered_does_not_bind_the_next() {
    let client = Server::new().client();
    let day = Duration::from_secs(24 * 60 * 60);
    client
        .act(move |s| s.sign_in("ada").and(s.remember(30 * day)))
        .await
        .ok();
    let seen = client.act(|s| s.sign_in("ada")).await.ok();
    assert_eq!(seen.cookie().unwrap().max_age(), Some(30 * day.as_secs()));
    let seen = client.act(|s| s.sign_in("grace")).await.ok();
    assert_eq!(seen.cookie().unwrap().max_age(), None);
    let record = client.record().await.unwrap();
    assert_eq!(record.policy, None);
    assert!(record.expires < client.server.clock.now().saturating_add(day));
}

/// S-41, S-52: nothing is left of a session that was signed out, and its token is not adopted.
#[tokio::test]
async fn a_signed_out_session_is_gone_for_good() {
    let client = Server::new().client();
    client.get("/login").await.ok();
    let replay = client.twin();
    let dead = client.the_token();
    assert_eq!(client.get("/logout").await.ok().told(), Told::Removal);
    assert!(client.server.memory.is_empty());
    assert_eq!(replay.get("/read").await.text(), "anonymous");
    assert_eq!(replay.get("/write").await.ok().told(), Told::Cookie);
    assert_ne!(replay.id(), id_of(&dead));
    assert!(client.server.record(&dead).await.is_none());
    assert!(!client.server.holding(&dead).is_known().await);
}

/// S-53: whatever the response is, and also if there is nothing in the session.
#[tokio::test]
async fn a_sign_out_takes_effect_whatever_the_response_says() {
    for status in [200, 204, 302, 400, 404, 500, 503] {
        for empty in [false, true] {
            let client = Server::new().visitor().await;
            if empty {
                client.act(Session::clear).await.ok();
            }
            let replay = client.twin();
            let status = StatusCode::from_u16(status).unwrap();
            let seen = client.act(move |s| s.destroy().map(|()| status)).await;
            assert_eq!((seen.status, seen.told()), (status, Told::Removal));
            assert!(!replay.is_known().await);
            assert!(client.server.memory.is_empty());
        }
    }
}

/// Clearing is not signing out.
#[tokio::test]
async fn a_cleared_session_lives_on_with_its_owner() {
    let client = Server::new().visitor().await;
    client.get("/login").await.ok();
    assert_eq!(client.act(Session::clear).await.ok().told(), Told::Vary);
    assert_eq!(client.get("/read").await.text(), r#"["ada",null]"#);
}

/// S-70: refused at once, before anything reaches the store, and the session is as it was.
#[tokio::test]
async fn data_beyond_the_limit_is_refused_at_once() {
    let client = Server::new().visitor().await;
    let before = client.record().await.unwrap();
    // `{"a":"…","n":1}` around it.
    let around = r#"{"a":"","n":1}"#.len();
    let seen = client.act(move |s| {
        let fitting = "x".repeat(64 * 1024 - around);
        let large = format!("{fitting}x");
        let set = s.insert("a", &large);
        let updated = {
            let large = large.clone();
            s.update("a", move |text: &mut String| text.clone_from(&large))
        };
        let grown = s.insert("n", "x".repeat(64 * 1024));
        for result in [set, updated, grown] {
            let error = result.unwrap_err();
            assert!(error.is_too_large());
            assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        assert_eq!(
            (s.keys(), s.get::<u64>("n")?),
            (vec!["n".to_owned()], Some(1))
        );
        // Exactly the limit fits; then not even an empty value does.
        s.insert("a", fitting)?;
        assert!(s.insert("", "").unwrap_err().is_too_large());
        s.remove("a").map(drop)
    });
    assert_eq!(seen.await.ok().calls, "load");
    assert_eq!(client.record().await.unwrap(), before);

    let seen = client.act(|s| s.insert("a", "x".repeat(65_537))).await;
    assert_eq!(
        (seen.status, seen.told()),
        (StatusCode::PAYLOAD_TOO_LARGE, Told::Vary)
    );
    assert_eq!(client.record().await.unwrap(), before);
}

/// S-70: two requests that each stay below the limit do not exceed it together.
#[tokio::test]
async fn parallel_requests_do_not_exceed_the_limit_together() {
    let client = Server::with(|b| b.max_size(1_000)).visitor().await;
    for elsewhere in [
        client.server.clone(),
        client.server.beside(|b| b.max_size(1_000)),
    ] {
        let other = client.twin_at(&elsewhere);
        let seen = client.run(async move |s: Session| {
            s.insert("mine", "x".repeat(600))?;
            other
                .act(|s| s.insert("theirs", "x".repeat(600)))
                .await
                .ok();
            Ok::<_, Error>(())
        });
        let seen = seen.await;
        assert_eq!(
            (seen.status, seen.told()),
            (StatusCode::PAYLOAD_TOO_LARGE, Told::Vary)
        );
        assert!(seen.error().is_too_large());
        assert_eq!(client.look(Session::keys).await, ["n", "theirs"]);
        client.act(|s| s.remove("theirs").map(drop)).await.ok();
    }
}

/// What was stored under a larger limit can still be read and made smaller.
#[tokio::test]
async fn a_lowered_limit_locks_nobody_out() {
    let client = Server::new().visitor().await;
    client.act(|s| s.insert("a", "x".repeat(5_000))).await.ok();
    let client = client.twin_at(&client.server.beside(|b| b.max_size(1_000)));
    assert_eq!(client.value("n").await, Some(1));
    assert_eq!(
        client.act(|s| s.insert("b", 1)).await.status,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    client.act(|s| s.insert("a", "x".repeat(4_000))).await.ok();
    client.act(|s| s.insert("a", "x")).await.ok();
    client.act(|s| s.insert("b", 1)).await.ok();
    assert_eq!(
        client
            .act(|s| s.insert("a", "x".repeat(5_000)))
            .await
            .status,
        413
    );
}

#[tokio::test]
async fn a_value_that_does_not_decode_is_an_error_for_its_key_alone() {
    let client = Server::new().visitor().await;
    client.act(|s| s.insert("old", "text")).await.ok();
    let seen = client.act(|s| {
        for error in [
            s.get::<u64>("old").unwrap_err(),
            s.take::<u64>("old").unwrap_err(),
            s.update("old", |n: &mut u64| *n += 1).unwrap_err(),
        ] {
            assert!(error.is_decode());
            assert!(error.to_string().contains("`old`"));
        }
        assert_eq!(s.get::<String>("old")?.as_deref(), Some("text"));
        s.update("n", |n: &mut u64| *n += 1)
    });
    seen.await.ok();
    assert_eq!(client.look(Session::keys).await, ["n", "old"]);
    assert_eq!(client.value("n").await, Some(2));
}

#[tokio::test]
async fn a_value_that_does_not_encode_leaves_the_session_as_it_was() {
    #[derive(Default, Deserialize)]
    struct Odd;

    impl Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("odd"))
        }
    }

    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let by_pair = BTreeMap::from([((1, 2), 3)]);
        let errors = [
            s.insert("n", by_pair).unwrap_err(),
            s.insert("n", Odd).unwrap_err(),
            s.update("odd", |_: &mut Odd| ()).unwrap_err(),
        ];
        assert!(errors.iter().all(Error::is_encode));
        assert_eq!(s.get::<u64>("n").unwrap(), Some(1));
        assert_eq!(s.keys(), ["n"]);
    });
    assert_eq!(seen.await.ok().calls, "load");
}

/// S-74: `serde_json` writes a raw value as it is, and anybody can say that theirs is one. It must not become
/// more than one member of the object.
#[tokio::test]
async fn a_value_that_writes_what_is_no_json_is_refused() {
    struct Raw(&'static str);

    impl Serialize for Raw {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            const NAME: &str = "$serde_json::private::RawValue";
            let mut raw = to.serialize_struct(NAME, 1)?;
            raw.serialize_field(NAME, self.0)?;
            raw.end()
        }
    }

    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        for text in ["", "{", "1,\"owner\":\"root\"", "[1]]", "\"", "nul", " 1"] {
            let error = s.insert("n", Raw(text)).unwrap_err();
            assert!(error.is_encode(), "{text}");
        }
        assert_eq!(s.get::<u64>("n").unwrap(), Some(1));
        for text in ["[1, 2]", r#"{"\ud83c\udfa9":null}"#] {
            s.insert("m", Raw(text)).unwrap();
        }
        assert_eq!(s.keys(), ["m", "n"]);
    });
    assert_eq!(seen.await.ok().calls, "load update");
}

#[tokio::test]
async fn any_text_is_a_key_and_any_serde_value_a_value() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    enum Step {
        Address {
            street: String,
            lines: Vec<Option<i128>>,
        },
        Paid(f64),
        Done,
    }

    let keys = [
        "",
        "\"",
        "\\u0041",
        "\0\u{1f}\u{7f}",
        "ключ",
        "a\r\nb",
        "🎩",
        "__proto__",
    ];
    let steps = [
        Step::Address {
            street: "Zürich \"\u{2028}\0".into(),
            lines: vec![None, Some(i128::MIN)],
        },
        Step::Paid(0.1),
        Step::Done,
    ];
    let client = Server::new().client();
    let written = steps.clone();
    let seen = client.act(move |s| {
        for (i, key) in keys.into_iter().enumerate() {
            s.insert(key.to_owned(), &written[i % 3])?;
        }
        Ok::<_, Error>(())
    });
    seen.await.ok();
    let seen = client.act(move |s| {
        let mut sorted = keys;
        sorted.sort_unstable();
        assert_eq!(
            (s.keys(), s.len()),
            (sorted.map(str::to_owned).to_vec(), keys.len())
        );
        for (i, key) in keys.into_iter().enumerate() {
            assert!(s.contains(key));
            assert_eq!(s.get::<Step>(key)?.as_ref(), Some(&steps[i % 3]));
            assert_eq!(s.take::<Step>(key)?.as_ref(), Some(&steps[i % 3]));
            assert!(!s.contains(key));
        }
        assert!(s.is_empty());
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().calls, "load update");
}

#[tokio::test]
async fn the_session_tells_who_and_since_when() {
    let server = Server::new();
    let client = server.client();
    let start = server.clock.now();
    let seen = client.act(|s| {
        assert!(s.is_new() && s.is_empty());
        assert_eq!((s.id(), s.created_at(), s.expires_at()), (None, None, None));
        s.insert("n", 1)
    });
    seen.await.ok();
    server.clock.advance(Duration::from_secs(120));
    let id = client.id();
    let seen = client.act(move |s| {
        assert!(!s.is_new() && !s.is_empty());
        assert_eq!(s.id(), Some(id));
        assert_eq!(s.created_at().map(Timestamp::from), Some(start));
        let end = start.saturating_add(Duration::from_secs(3600));
        assert_eq!(s.expires_at().map(Timestamp::from), Some(end));
    });
    seen.await.ok();
}

/// Style habit 7: a handle that can go anywhere, and all clones see the same data.
#[tokio::test]
async fn all_clones_see_the_same_data_also_on_other_tasks() {
    fn goes_anywhere<T: Clone + Send + Sync + 'static>() {}
    goes_anywhere::<Session>();
    goes_anywhere::<LazySession>();
    goes_anywhere::<Error>();

    let client = Server::new().client();
    let seen = client.run(async |s: Session| {
        let tasks: Vec<_> = (0..16)
            .map(|_| {
                let s = s.clone();
                tokio::spawn(async move { s.update("n", |n: &mut u64| *n += 1) })
            })
            .collect();
        for task in tasks {
            task.await.unwrap()?;
        }
        assert_eq!(s.get::<u64>("n")?, Some(16));
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().calls, "create");
    assert_eq!(client.value("n").await, Some(16));
}

/// The closure of an update runs without any lock held.
#[tokio::test]
async fn an_update_may_use_the_session_in_its_closure() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let inner = s.clone();
        s.update("sum", move |sum: &mut u64| {
            *sum += inner.get::<u64>("n").unwrap().unwrap_or_default();
            *sum += inner.len() as u64;
        })?;
        assert_eq!(s.get::<u64>("sum")?, Some(2));
        let inner = s.clone();
        s.update("n", move |n: &mut u64| {
            *n += 1;
            inner.insert("copy", *n).unwrap();
        })
    });
    seen.await.ok();
    assert_eq!(client.look(Session::keys).await, ["copy", "n", "sum"]);
    assert_eq!(
        (client.value("n").await, client.value("copy").await),
        (Some(2), Some(2))
    );
}

/// So are its captures dropped once they are stored: what they hold may use the session.
#[test]
fn what_a_closure_holds_may_use_the_session_when_it_is_dropped() {
    struct Last(Session, mpsc::Sender<Option<u32>>);

    impl Drop for Last {
        fn drop(&mut self) {
            self.1.send(self.0.get("a").unwrap()).ok();
        }
    }

    let (dropped, values) = mpsc::channel();
    // A thread that waits for itself is left behind.
    thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let client = Server::new().visitor().await;
            let seen = client.run(async move |session: Session| {
                let last = Last(session.clone(), dropped);
                session.update("a", move |n: &mut u32| {
                    let _held = &last;
                    *n += 1;
                })?;
                session.save().await
            });
            seen.await.ok();
        });
    });
    let value = values.recv_timeout(Duration::from_secs(30));
    assert_eq!(value, Ok(Some(1)), "the session's lock is held");
}

/// The same where each run of the closure changes another key: it must come to an end.
#[tokio::test]
async fn an_update_whose_closure_counts_elsewhere_comes_to_an_end() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let inner = s.clone();
        let mut runs = 0;
        s.update("n", move |n: &mut u64| {
            runs += 1;
            assert!(runs < 100, "it runs for ever");
            *n += 1;
            inner.update("runs", |n: &mut u64| *n += 1).unwrap();
        })
    });
    seen.await.ok();
    assert_eq!(client.value("n").await, Some(2));
}

/// A closure that spoils its own ground is told so.
#[tokio::test]
async fn an_update_whose_closure_changes_its_own_key_is_a_conflict() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let inner = s.clone();
        let changed = s.update("n", move |n: &mut u64| {
            inner.update("n", |n: &mut u64| *n += 1).unwrap();
            *n = 0;
        });
        assert!(changed.unwrap_err().is_conflict());
        s.insert("n", 7)
    });
    seen.await.ok();
    assert_eq!(client.value("n").await, Some(7));
}

/// Nor does a value hold a lock while it turns itself into JSON or back.
#[tokio::test]
async fn a_value_may_use_the_session_in_its_own_serde_code() {
    thread_local! {
        static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    }

    fn look() -> usize {
        SESSION.with_borrow(|session| session.as_ref().map_or(0, Session::len))
    }

    #[derive(Default)]
    struct Nosy(usize);

    impl Serialize for Nosy {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            look().serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Nosy {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            usize::deserialize(deserializer).map(|_| Self(look()))
        }
    }

    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        SESSION.set(Some(s.clone()));
        s.insert("nosy", Nosy(0))?;
        assert_eq!(s.get::<Nosy>("nosy")?.map(|nosy| nosy.0), Some(2));
        s.update("nosy", |nosy: &mut Nosy| assert_eq!(nosy.0, 2))?;
        assert_eq!(s.take::<Nosy>("nosy")?.map(|nosy| nosy.0), Some(2));
        SESSION.set(None);
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().calls, "load");
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cart {
    items: Vec<String>,
}

impl SessionValue for Cart {
    const KEY: &'static str = "cart";
}

#[tokio::test]
async fn a_typed_value_lives_under_its_own_key() {
    let client = Server::new().visitor().await;
    let seen = client.act(|s| {
        let mut cart = Typed::<Cart>::new(s)?;
        assert!(cart.items.is_empty());
        assert!(!s.contains("cart"), "reading a default stores nothing");
        let len = cart.update(|cart| {
            cart.items.push("umbrella".into());
            cart.items.len()
        })?;
        assert_eq!((len, &*cart.items), (1, &["umbrella".to_owned()][..]));
        assert_eq!(cart.session().keys(), ["cart", "n"]);
        Ok::<_, Error>(())
    });
    assert_eq!(seen.await.ok().calls, "load update");
    // Updates of it merge, as all updates do.
    let other = client.twin_at(&client.server.beside(|b| b));
    let seen = client.run(async move |s: Session| {
        let mut cart = Typed::<Cart>::new(&s)?;
        cart.update(|cart| cart.items.push("hat".into()))?;
        other
            .act(|s| Typed::<Cart>::new(s)?.update(|cart| cart.items.push("coat".into())))
            .await
            .ok();
        Ok::<_, Error>(())
    });
    seen.await.ok();
    let items = client
        .look(|s| Typed::<Cart>::new(s).unwrap().into_inner().items)
        .await;
    assert_eq!(items, ["umbrella", "coat", "hat"]);
    let seen = client.act(|s| {
        let mut cart = Typed::<Cart>::new(s)?;
        cart.remove()?;
        assert_eq!(*cart, Cart::default());
        assert!(!s.contains("cart"));
        let items = vec!["gloves".to_owned()];
        cart.set(Cart { items })?;
        assert_eq!(cart.items, ["gloves"]);
        assert_eq!(Typed::<Cart>::new(s)?.into_inner(), *cart);
        s.insert("cart", 7)?;
        assert!(Typed::<Cart>::new(s).unwrap_err().is_decode());
        s.remove("cart").map(drop)
    });
    seen.await.ok();
    assert_eq!(client.look(Session::keys).await, ["n"]);
}

/// Each error answers to its predicate, has its status, and keeps its cause.
#[tokio::test(start_paused = true)]
async fn errors_say_what_happened_and_why() {
    fn predicates(error: &Error) -> Vec<&'static str> {
        let all = [
            ("store", error.is_store()),
            ("timeout", error.is_timeout()),
            ("random", error.is_random()),
            ("encode", error.is_encode()),
            ("decode", error.is_decode()),
            ("too large", error.is_too_large()),
            ("conflict", error.is_conflict()),
            ("committed", error.is_committed()),
            ("gone", error.is_gone()),
            ("superseded", error.is_superseded()),
            ("invalid", error.is_invalid()),
        ];
        all.into_iter()
            .filter_map(|(name, holds)| holds.then_some(name))
            .collect()
    }

    async fn saving(fault: Fault) -> Error {
        let client = Server::new().client();
        client.server.store.inject(Operation::Create, 1, fault);
        client.act(|s| s.insert("a", 1)).await.error().clone()
    }

    /// What `save` says after another request has done something.
    async fn overtaken(other: &'static str, settings: fn(Settings) -> Settings) -> Error {
        let client = Server::with(settings).visitor().await;
        let (twin, (put, get)) = (client.twin(), tokio::sync::oneshot::channel());
        let seen = client.run(async move |s: Session| {
            s.get::<u64>("n").and(s.insert("n", 7)).unwrap();
            twin.get(other).await.ok();
            put.send(s.save().await.unwrap_err()).unwrap();
        });
        seen.await;
        get.await.unwrap()
    }

    let client = Server::new().visitor().await;
    let random = {
        let server = Server::with(|b| b.entropy(|_| Err(std::io::Error::other("no entropy"))));
        server.client().get("/write").await.error().clone()
    };
    let closed = client.look(Session::clone).await;
    let reject: fn(Settings) -> Settings = |b| b.on_conflict(OnConflict::Reject);
    // What happened, the predicates that hold, the status and the cause.
    type Row = (
        &'static str,
        Error,
        &'static [&'static str],
        u16,
        Option<&'static str>,
    );
    let rows: [Row; 11] = [
        (
            "failing",
            saving(Fault::Fail).await,
            &["store"],
            503,
            Some("the session store failed"),
        ),
        (
            "hanging",
            saving(Fault::Hang).await,
            &["store", "timeout"],
            503,
            None,
        ),
        ("no entropy", random, &["random"], 503, Some("no entropy")),
        (
            "pairs as keys",
            client
                .look(|s| s.insert("a", BTreeMap::from([((1, 2), 3)])).unwrap_err())
                .await,
            &["encode"],
            500,
            Some("key must be a string"),
        ),
        (
            "not a bool",
            client.look(|s| s.get::<bool>("n").unwrap_err()).await,
            &["decode"],
            500,
            Some("another type or shape at column 1, where `bool` was wanted"),
        ),
        (
            "large",
            client
                .look(|s| s.insert("a", "x".repeat(70_000)).unwrap_err())
                .await,
            &["too large"],
            413,
            None,
        ),
        (
            "rejected",
            overtaken("/write", reject).await,
            &["conflict"],
            409,
            None,
        ),
        (
            "signed out",
            overtaken("/logout", |b| b).await,
            &["gone"],
            409,
            None,
        ),
        (
            "signed in",
            overtaken("/login", |b| b).await,
            &["superseded"],
            409,
            None,
        ),
        (
            "late",
            closed.insert("a", 1).unwrap_err(),
            &["committed"],
            500,
            None,
        ),
        (
            "nobody",
            client.look(|s| s.sign_in("").unwrap_err()).await,
            &["invalid"],
            500,
            None,
        ),
    ];
    for (what, error, expected, status, source) in rows {
        assert_eq!(predicates(&error), expected, "{what}");
        assert_eq!(error.status(), status, "{what}");
        assert_eq!(
            error.source().map(ToString::to_string).as_deref(),
            source,
            "{what}"
        );
        assert!(!error.to_string().is_empty());
        assert_eq!(error.clone().to_string(), error.to_string());
    }
    // One word wide, and the driver's own error is at the end of the chain.
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    let error = saving(Fault::Fail).await;
    let store = error
        .source()
        .unwrap()
        .downcast_ref::<StoreError>()
        .unwrap();
    assert_eq!(
        store.source().unwrap().to_string(),
        "a fault was injected into Create"
    );
    let _: Arc<dyn std::error::Error + Send + Sync> = Arc::new(error);
}

/// Closures that hold their session would keep it, and themselves, for good.
#[tokio::test(start_paused = true)]
async fn a_request_that_comes_to_nothing_keeps_nothing_alive() {
    let server = Server::new();
    let client = server.visitor().await;
    server.store.always(Operation::Update, Fault::Fail);
    for is_given_up in [false, true] {
        let marker = Arc::new(());
        let held = Arc::clone(&marker);
        let request = client.run(async move |s: Session| {
            let session = s.clone();
            s.update("n", move |n: &mut u64| {
                let _ = (&session, &held);
                *n += 1;
            })?;
            if is_given_up {
                std::future::pending::<()>().await;
            }
            Ok::<_, Error>(())
        });
        match tokio::time::timeout(Duration::from_secs(1), request).await {
            Ok(seen) => assert_eq!(seen.status, StatusCode::SERVICE_UNAVAILABLE),
            Err(_) => assert!(is_given_up),
        }
        assert_eq!(Arc::strong_count(&marker), 1, "given up: {is_given_up}");
    }
}
