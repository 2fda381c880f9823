//! What lies in the server's keys, and what may.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::num::NonZeroUsize;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloakroom::RedisStore;
use cloakroom::store::{
    Admission, Create, OwnerLimit, SessionStore as _, SignIn, Timestamp, Update, Version, WhenFull,
};
use http::StatusCode;
use redis::Commands as _;

use super::{
    RedisServer, app, chain, cookie, id, id_of, now, prefix, record, send, store, text, token,
    under, visitor,
};

/// S-48.
#[tokio::test]
async fn a_session_never_outlives_its_record_on_the_server() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = under(server, &prefix).await;
    let mut connection = server.connection();
    let key = format!("{prefix}session:{{{}}}", id(1));
    let mut assert_ends_at = |expires: Timestamp| {
        let before = now();
        let left: u64 = connection.pttl(&key).unwrap();
        let left = Duration::from_millis(left);
        assert!(left <= expires.saturating_since(before), "{left:?}");
        assert!(left >= expires.saturating_since(now()), "{left:?}");
    };
    let mut record = record(None);
    assert_eq!(
        store.create(id(1), &record, now()).await.unwrap(),
        Create::Done
    );
    assert_ends_at(record.expires);
    for _ in 0..100 {
        record.expires = record.expires.saturating_add(Duration::from_millis(7));
        assert!(store.touch(id(1), record.expires, now()).await.unwrap());
        assert_ends_at(record.expires);
    }
    assert!(store.touch(id(1), now(), now()).await.unwrap());
    assert_ends_at(record.expires);
    for is_use in [false, true] {
        let (expected, touched) = (record.version, record.expires);
        record.version = expected.next();
        record.expires = now().saturating_add(Duration::from_secs(60));
        record.seen = if is_use { now() } else { record.created };
        let updated = store.update(id(1), &record, expected, now()).await;
        assert_eq!(updated.unwrap(), Update::Done);
        if !is_use {
            record.expires = touched;
        }
        assert_ends_at(record.expires);
    }
    record.version = Version::new(4);
    record.owner = Some("ada".into());
    record.authenticated = Some(now());
    record.expires = now().saturating_add(Duration::from_secs(30));
    let admission = Admission::new(now());
    let expected = Some(Version::new(3));
    let answer = store.sign_in(id(1), &record, expected, admission, now());
    assert_eq!(answer.await.unwrap(), SignIn::Done);
    assert_ends_at(record.expires);

    store.delete_by_owner("ada", None, now()).await.unwrap();
    let left: i64 = connection
        .pttl(format!("{prefix}revoked:{{616461}}"))
        .unwrap();
    assert!(
        left >= 3_600_000,
        "a revocation is forgotten after {left} ms"
    );
}

/// An index that ended before one of its sessions would hide it from a revocation.
#[tokio::test]
async fn an_index_outlives_its_sessions() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = under(server, &prefix).await;
    let mut connection = server.connection();
    let index = format!("{prefix}owner:{{616461}}");
    assert_outlives(&store, || connection.pttl(&index).unwrap()).await;
}

/// Signs Ada in, moves the end of her sessions, and looks how long her index is still kept.
pub(super) async fn assert_outlives(
    store: &RedisStore,
    mut milliseconds_left: impl FnMut() -> u64,
) {
    let day = Duration::from_secs(24 * 60 * 60);
    let hour = day / 24;
    let mut left = || Duration::from_millis(milliseconds_left());
    let (start, admission) = (now(), Admission::new(now()));
    let mut record = record(Some("ada"));
    let signed_in = store.sign_in(id(1), &record, None, admission, start).await;
    assert_eq!(signed_in.unwrap(), SignIn::Done);
    let at_first = left();
    assert!(
        at_first > day * 90 && at_first <= day * 90 + hour * 2,
        "{at_first:?}"
    );

    // One that ends sooner shortens nothing.
    let mut earlier = record.clone();
    earlier.authenticated = Some(Timestamp::from_millis(1_000));
    let signed_in = store.sign_in(id(2), &earlier, None, admission, start).await;
    assert_eq!(signed_in.unwrap(), SignIn::Done);
    assert!(left() > day * 90);

    // Whatever moves a session's end, moves that of the index.
    assert!(
        store
            .touch(id(1), start.saturating_add(day * 95), start)
            .await
            .unwrap()
    );
    assert!(left() > day * 95 + hour, "{:?}", left());
    record.version = Version::new(2);
    record.expires = start.saturating_add(day * 100);
    let updated = store.update(id(1), &record, Version::FIRST, start).await;
    assert_eq!(updated.unwrap(), Update::Done);
    assert!(left() > day * 100 + hour, "{:?}", left());
    let mut long = earlier;
    long.expires = start.saturating_add(day * 105);
    let signed_in = store.sign_in(id(3), &long, None, admission, start).await;
    assert_eq!(signed_in.unwrap(), SignIn::Done);
    assert!(left() > day * 105 + hour, "{:?}", left());
    assert_eq!(store.delete_by_owner("ada", None, start).await.unwrap(), 3);
}

/// S-08.
#[tokio::test]
async fn no_key_and_no_value_holds_a_secret() {
    let server = RedisServer::start(&[]);
    let app = app(under(&server, "s:").await);
    let anonymous = visitor(&app).await;
    let signed_in = cookie(&send(&app, "/login", &visitor(&app).await).await);
    let store = under(&server, "s:").await;
    store.delete_by_owner("grace", None, now()).await.unwrap();

    let keys: usize = redis::cmd("DBSIZE")
        .query(&mut server.connection())
        .unwrap();
    assert_eq!(keys, 4, "two sessions, an index and a revocation");
    assert_no_secret(&dump(&server), &[anonymous, signed_in]);
}

/// All keys of a server and all that is in them.
pub(super) fn dump(server: &RedisServer) -> Vec<u8> {
    let mut connection = server.connection();
    let mut dump: Vec<Vec<u8>> = connection.keys("*").unwrap();
    for key in dump.clone() {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
        match &*kind {
            "string" => dump.push(connection.get(key).unwrap()),
            "zset" => dump.extend(connection.zrange::<_, Vec<_>>(key, 0, -1).unwrap()),
            "hash" => {
                let fields: Vec<(Vec<u8>, Vec<u8>)> = connection.hgetall(key).unwrap();
                dump.extend(fields.into_iter().flat_map(|(field, value)| [field, value]));
            }
            other => panic!("a key of the type {other}"),
        }
    }
    dump.concat()
}

/// The sessions of the cookies are in the dump, their secrets are not.
pub(super) fn assert_no_secret(dump: &[u8], cookies: &[String]) {
    let holds = |bytes: &[u8]| dump.windows(bytes.len()).any(|window| window == bytes);
    for cookie in cookies {
        let token = token(cookie);
        assert!(holds(id_of(cookie).to_string().as_bytes()));
        let secret = &token[16..];
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(!holds(secret));
        assert!(!holds(hex.as_bytes()));
        assert!(!holds(hex.to_uppercase().as_bytes()));
        // As part of the token, and by itself; without the last characters, which depend on what follows.
        for text in [
            cookie.split_once('=').unwrap().1[22..].to_owned(),
            STANDARD.encode(secret)[..24].to_owned(),
            URL_SAFE_NO_PAD.encode(secret)[..24].to_owned(),
        ] {
            assert!(!holds(text.as_bytes()));
        }
    }
}

/// S-74.
#[tokio::test]
async fn a_damaged_value_is_nobodys_session() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = under(server, &prefix).await;
    let app = app(store.clone());
    let mut connection = server.connection();
    let cookie = visitor(&app).await;
    let id = id_of(&cookie);
    let key = format!("{prefix}session:{{{id}}}");
    let whole: Vec<u8> = connection.get(&key).unwrap();
    let mut unknown_parts = whole.clone();
    unknown_parts[25] = 0xff;
    let mut never = whole.clone();
    never[0] = 0;
    let damaged: [&[u8]; 9] = [
        b"",
        b"\x01",
        &whole[..9],
        &whole[..24],
        &whole[..25],
        &whole[..60],
        &unknown_parts,
        &never,
        &b"\x01\xff".repeat(20)[..40],
    ];
    for bytes in damaged {
        let _: () = connection.set(&key, bytes).unwrap();
        let error = store.load(id, now()).await.unwrap_err();
        assert!(error.is_corrupt(), "{bytes:?}: {}", chain(&error));
        let response = send(&app, "/read", &cookie).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(text(response).await, "new");
    }
    for bytes in [&whole[..9], &whole[..24], &never] {
        let _: () = connection.set(&key, bytes).unwrap();
        let created = store.create(id, &record(None), now()).await.unwrap();
        assert_eq!(created, Create::Taken);
        let touched = store.touch(id, Timestamp::MAX, now()).await;
        assert!(touched.unwrap_err().is_corrupt());
        let updated = store.update(id, &record(None), Version::FIRST, now()).await;
        assert!(updated.unwrap_err().is_corrupt());
        let left: Vec<u8> = connection.get(&key).unwrap();
        assert_eq!(left, bytes);
    }

    // A key of another type.
    let _: () = connection.del(&key).unwrap();
    let _: () = connection.rpush(&key, "x").unwrap();
    assert!(store.load(id, now()).await.unwrap_err().is_corrupt());
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "new");
    let touched = store.touch(id, Timestamp::MAX, now()).await;
    assert!(touched.unwrap_err().is_corrupt());
    assert!(store.delete(id).await.unwrap());
}

/// During a rolling upgrade, another instance can read it.
#[tokio::test]
async fn a_value_of_a_later_release_is_left_alone_and_yet_revoked() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = under(server, &prefix).await;
    let app = app(store.clone());
    let mut connection = server.connection();
    let cookie = cookie(&send(&app, "/login", &visitor(&app).await).await);
    let id = id_of(&cookie);
    let key = format!("{prefix}session:{{{id}}}");
    let _: () = connection.setrange(&key, 0, "\u{2}").unwrap();
    let before: Vec<u8> = connection.get(&key).unwrap();

    for path in ["/read", "/"] {
        let response = send(&app, path, &cookie).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
    let version = Version::new(u64::from_be_bytes(before[1..9].try_into().unwrap()));
    let updated = store.update(id, &record(None), version, now()).await;
    assert!(!updated.unwrap_err().is_corrupt());
    let touched = store.touch(id, Timestamp::MAX, now()).await;
    assert!(!touched.unwrap_err().is_corrupt());
    assert!(store.list_by_owner("ada", now()).await.is_err());
    let limit = OwnerLimit::new(NonZeroUsize::MIN, WhenFull::Refuse);
    let mut admission = Admission::new(now());
    admission.limit = Some(limit);
    let new = record(Some("ada"));
    let answer = store.sign_in(super::id(1), &new, None, admission, now());
    assert_eq!(answer.await.unwrap(), SignIn::Full);
    let after: Vec<u8> = connection.get(&key).unwrap();
    assert_eq!(after, before);

    assert_eq!(store.delete_by_owner("ada", None, now()).await.unwrap(), 1);
    assert!(!connection.exists::<_, bool>(&key).unwrap());
}

/// S-75.
#[tokio::test]
async fn a_record_copied_to_another_session_opens_for_nobody() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let app = app(under(server, &prefix).await);
    let mut connection = server.connection();
    let (a, b) = (visitor(&app).await, visitor(&app).await);
    let key = |cookie| format!("{prefix}session:{{{}}}", id_of(cookie));
    let bytes: Vec<u8> = connection.get(key(&a)).unwrap();
    let _: () = connection.set(key(&b), bytes).unwrap();
    let _: () = connection.del(key(&a)).unwrap();
    assert_eq!(text(send(&app, "/read", &a).await).await, "new");
    assert_eq!(text(send(&app, "/read", &b).await).await, "new");
}

/// S-76.
#[tokio::test]
async fn stores_under_two_prefixes_do_not_see_each_other() {
    let server = RedisServer::start(&[]);
    let prefixes = [
        "s:",
        "*:",
        "s:session:",
        "s:owner:",
        "[a-z]:",
        "?\\",
        "s",
        "cloakroom:",
    ];
    let mut stores = Vec::new();
    for prefix in prefixes {
        stores.push(under(&server, prefix).await);
    }
    let admission = Admission::new(now());
    let (first, owned) = (record(None), record(Some("ada")));
    for store in &stores {
        assert_eq!(
            store.create(id(1), &first, now()).await.unwrap(),
            Create::Done
        );
        let answer = store.sign_in(id(2), &owned, None, admission, now()).await;
        assert_eq!(answer.unwrap(), SignIn::Done);
    }
    while let Some(store) = stores.pop() {
        assert_eq!(store.delete_all().await.unwrap(), 2);
        for other in &stores {
            assert!(other.load(id(1), now()).await.unwrap().is_some());
            assert_eq!(other.list_by_owner("ada", now()).await.unwrap().len(), 1);
        }
    }
    let left: Vec<String> = server.connection().keys("*").unwrap();
    assert_eq!(left, [""; 0]);
}

#[tokio::test]
async fn an_index_drops_what_is_gone_when_it_is_read() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let store = under(server, &prefix).await;
    let mut connection = server.connection();
    let index = format!("{prefix}owner:{{616461}}");
    let owned = record(Some("ada"));
    let admission = Admission::new(now());
    for n in 1..=4 {
        let answer = store.sign_in(id(n), &owned, None, admission, now()).await;
        assert_eq!(answer.unwrap(), SignIn::Done);
    }
    let _: () = connection
        .del(format!("{prefix}session:{{{}}}", id(1)))
        .unwrap();
    let _: () = connection
        .set(format!("{prefix}session:{{{}}}", id(2)), "\0 damaged")
        .unwrap();
    let other_type = format!("{prefix}session:{{{}}}", id(4));
    let _: () = connection.del(&other_type).unwrap();
    let _: () = connection.rpush(&other_type, "x").unwrap();
    let listed = store.list_by_owner("ada", now()).await.unwrap();
    assert_eq!(listed, [(id(3), owned.clone())]);
    assert_eq!(connection.zcard::<_, usize>(&index).unwrap(), 1);

    // A sign-in without a limit looks at a few, so what is gone is outnumbered in the end.
    for n in 0..200 {
        let _: () = connection.zadd(&index, format!("gone {n}"), 0).unwrap();
    }
    for n in 10..110 {
        let answer = store.sign_in(id(n), &owned, None, admission, now()).await;
        assert_eq!(answer.unwrap(), SignIn::Done);
    }
    let size: usize = connection.zcard(&index).unwrap();
    assert!(size < 200, "{size} entries for 101 sessions");
    // Revoking reads them all; nothing stays.
    assert_eq!(
        store.delete_by_owner("ada", None, now()).await.unwrap(),
        101
    );
    assert!(!connection.exists::<_, bool>(&index).unwrap());
}

/// The commands that clients send, of which scripts' own are no part.
#[tokio::test]
async fn each_operation_is_one_round_trip() {
    let server = RedisServer::start(&[]);
    let store = under(&server, "s:").await;
    // So that the server knows the scripts.
    cloakroom::store::conformance::delete_all_leaves_nothing(store.clone()).await;

    let mut stream = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    stream.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert_eq!(lines.next().unwrap(), "+OK");
    let mut admin = server.connection();
    let mut sent = || -> Vec<String> {
        let end = "that was all";
        let _: String = redis::cmd("ECHO").arg(end).query(&mut admin).unwrap();
        let seen = lines.by_ref().take_while(|line| !line.contains(end));
        let outside = seen.filter(|line| !line.contains(" lua] ") && !line.contains("\"CLIENT\""));
        let name = |line: String| line.split('"').nth(1).unwrap().to_owned();
        outside.map(name).collect()
    };
    sent();

    let (first, owned) = (record(None), record(Some("ada")));
    let admission = Admission::new(now());
    let _ = store.create(id(1), &first, now()).await.unwrap();
    assert_eq!(sent(), ["SET"]);
    store.load(id(1), now()).await.unwrap();
    assert_eq!(sent(), ["GET"]);
    let _ = store.update(id(1), &first, Version::FIRST, now()).await;
    assert_eq!(sent(), ["EVALSHA"]);
    let _ = store.update(id(1), &first, Version::new(9), now()).await;
    assert_eq!(sent(), ["EVALSHA"]);
    store.touch(id(1), Timestamp::MAX, now()).await.unwrap();
    assert_eq!(sent(), ["EVALSHA"]);
    let _ = store.sign_in(id(2), &owned, None, admission, now()).await;
    assert_eq!(sent(), ["EVALSHA"]);
    store.list_by_owner("ada", now()).await.unwrap();
    assert_eq!(sent(), ["ZRANGE", "MGET"]);
    store.delete(id(1)).await.unwrap();
    assert_eq!(sent(), ["UNLINK"]);
    store.delete_by_owner("ada", None, now()).await.unwrap();
    assert_eq!(sent(), ["EVALSHA"]);
    store.delete_expired(now(), 100).await.unwrap();
    assert_eq!(sent(), [""; 0]);
    // Step by step: no command holds the server up (S-57).
    store.delete_all().await.unwrap();
    let sent = sent();
    assert!(sent.iter().any(|name| name == "SCAN"), "{sent:?}");
    let blocks = |name: &String| name == "KEYS" || name.starts_with("FLUSH");
    assert!(!sent.iter().any(blocks), "{sent:?}");
}

#[tokio::test]
async fn debug_shows_no_connection() {
    assert_eq!(format!("{:?}", store().await), "RedisStore { .. }");
}
