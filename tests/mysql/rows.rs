//! Rows that somebody else wrote or damaged.

use std::time::Duration;

use cloakroom::SessionLayer;
use cloakroom::store::{Create, SessionStore as _, Timestamp, Version};
use mysql_async::prelude::Queryable as _;

use super::{
    NOW, app, chain, client, cookie, id, id_of, number, record, routes, run, send, store, table,
    text, token, visitor,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

/// S-74.
#[tokio::test]
async fn a_damaged_row_is_corrupt_and_nobodys_session() {
    let mut client = client().await;
    for damage in [
        "created = 253402300800000",
        "expires = 18446744073709551615",
        "seen = 9223372036854775808",
        "authenticated = 253402300800000",
        "renewed = 18446744073709551615",
        "previous_digest = NULL, previous_until = renewed",
        "previous_digest = digest, previous_until = NULL",
        "idle = 60000, absolute = NULL",
        "idle = NULL, absolute = 1",
        "owner = X'61FF'",
    ] {
        let table = table();
        let store = store(&table).await;
        let app = app(store.clone());
        let cookie = visitor(&app).await;
        let id = id_of(&cookie);
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");

        let update = format!("UPDATE `{table}` SET {damage}");
        assert_eq!(run(&mut client, &update).await, 1);
        let now = std::time::SystemTime::now().into();
        let error = store.load(id, now).await.unwrap_err();
        assert!(error.is_corrupt(), "{damage}: {}", chain(&error));
        let error = store
            .update(id, &record(None), Version::new(99), now)
            .await
            .unwrap_err();
        assert!(error.is_corrupt(), "{damage}: {}", chain(&error));
        let read = text(send(&app, "/read", &cookie).await).await;
        assert_eq!(read, "new", "{damage}");
    }
}

/// S-74: one that is damaged hides no other.
#[tokio::test]
async fn a_list_leaves_out_what_is_damaged() {
    let (mut client, table) = (client().await, table());
    let store = store(&table).await;
    let owned = record(Some("ada"));
    for n in [1, 2] {
        let created = store.create(id(n), &owned, NOW).await.unwrap();
        assert_eq!(created, Create::Done);
    }
    let id_of_one = hex(id(1).as_bytes());
    let damage =
        format!("UPDATE `{table}` SET created = 253402300800000 WHERE id = X'{id_of_one}'");
    assert_eq!(run(&mut client, &damage).await, 1);
    let list = store.list_by_owner("ada", NOW).await.unwrap();
    assert_eq!(list, [(id(2), owned)]);
    assert_eq!(store.delete_by_owner("ada", None, NOW).await.unwrap(), 2);
}

/// S-74.
#[tokio::test]
async fn columns_of_other_types_are_corrupt_and_not_quoted() {
    let mut client = client().await;
    for (column, change) in [
        ("digest", "digest VARBINARY(99)"),
        ("digest", "digest VARBINARY(16)"),
        ("version", "version VARCHAR(9) NOT NULL"),
        ("version", "version BIGINT"),
        ("data", "data DATETIME(3) NOT NULL"),
    ] {
        let table = table();
        let store = store(&table).await;
        let _ = store.create(id(1), &record(None), NOW).await.unwrap();
        let alter = format!("ALTER TABLE `{table}` DROP {column}, ADD {change} AFTER id");
        run(&mut client, &alter).await;
        let value = match column {
            "digest" => "'hunter2'",
            "data" => "'2001-02-03'",
            _ if change.contains("BIGINT") => "-20010203",
            _ => "'20010203'",
        };
        run(
            &mut client,
            &format!("UPDATE `{table}` SET {column} = {value}"),
        )
        .await;
        let error = store.load(id(1), NOW).await.unwrap_err();
        assert!(error.is_corrupt(), "{change}: {}", chain(&error));
        for text in [chain(&error), format!("{error:?}")] {
            assert!(
                !text.contains("hunter2") && !text.contains("2001"),
                "{text}"
            );
        }
    }
}

/// S-74.
#[tokio::test]
async fn damaged_data_is_loaded_and_nobodys_session() {
    let mut client = client().await;
    let deep = "[".repeat(100_000);
    for data in ["X'7BFF'", "''", "'{\"n\":1'", &format!("'{{\"n\":{deep}'")] {
        let table = table();
        let app = app(store(&table).await);
        let cookie = visitor(&app).await;
        let update = format!("UPDATE `{table}` SET data = {data}");
        assert_eq!(run(&mut client, &update).await, 1);
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "new");
    }
}

/// S-75.
#[tokio::test]
async fn a_row_copied_to_another_id_opens_for_nobody() {
    let (mut client, table) = (client().await, table());
    let app = app(store(&table).await);
    let (ada, bob) = (visitor(&app).await, visitor(&app).await);
    let of = |cookie: &str| hex(&token(cookie)[..16]);
    let splice = format!(
        "UPDATE `{table}` AS b JOIN `{table}` AS a ON a.id = X'{}' \
         SET b.digest = a.digest, b.data = a.data WHERE b.id = X'{}'",
        of(&ada),
        of(&bob)
    );
    assert_eq!(run(&mut client, &splice).await, 1);
    assert_eq!(text(send(&app, "/read", &bob).await).await, "new");
    assert_eq!(text(send(&app, "/read", &ada).await).await, "1");
}

/// S-76.
#[tokio::test]
async fn tables_and_cookies_of_other_names_are_other_sessions() {
    let store_one = store(&table()).await;
    let (one, other) = (app(store_one.clone()), app(store(&table()).await));
    let layer = SessionLayer::builder(store_one).cookie_name("admin");
    let admin = routes().layer(layer.build().unwrap());
    let user = visitor(&one).await;
    assert_eq!(text(send(&one, "/read", &user).await).await, "1");
    assert_eq!(text(send(&other, "/read", &user).await).await, "new");

    let (_, token) = user.split_once('=').unwrap();
    let (name, _) = cookie(&send(&admin, "/", "").await)
        .split_once('=')
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .unwrap();
    let moved = format!("{name}={token}");
    assert_eq!(text(send(&admin, "/read", &moved).await).await, "new");
}

/// S-08.
#[tokio::test]
async fn the_tables_hold_no_secret() {
    let (mut client, table) = (client().await, table());
    let app = app(store(&table).await);
    let guest = visitor(&app).await;
    let ada = cookie(&send(&app, "/login", &guest).await);
    let columns = "SELECT GROUP_CONCAT(CONCAT('HEX(COALESCE(`', column_name, '`, 0))') \
                   SEPARATOR ', ') FROM information_schema.columns \
                   WHERE table_schema = DATABASE() AND table_name = ";
    let mut dump = String::new();
    for table in [table.clone(), format!("{table}_revoked")] {
        let columns: Option<String> = client
            .query_first(format!("{columns}'{table}'"))
            .await
            .unwrap();
        let all = format!("SELECT CONCAT_WS(' ', {}) FROM `{table}`", columns.unwrap());
        let rows: Vec<String> = client.query(all).await.unwrap();
        dump += &rows.join("\n");
    }
    for cookie in [guest, ada] {
        let bytes = token(&cookie);
        let (id, secret) = bytes.split_at(16);
        assert!(dump.contains(&hex(id)), "it is the session");
        let text = &cookie[cookie.len() - 20..];
        for form in [
            hex(&secret[..8]),
            hex(text.as_bytes()),
            hex(hex(&secret[..8]).as_bytes()),
            hex(hex(&secret[..8]).to_lowercase().as_bytes()),
        ] {
            assert!(!dump.contains(&form));
        }
    }
}

#[tokio::test]
async fn versions_up_to_the_largest_are_kept() {
    let store = store(&table()).await;
    let mut record = record(None);
    record.version = Version::new(u64::MAX);
    let _ = store.create(id(1), &record, NOW).await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(record));
}

/// A touch that moves nothing changes no row, which must not look as if there were none.
#[tokio::test]
async fn a_touch_that_comes_to_nothing_finds_the_session() {
    let store = store(&table()).await;
    let start = Timestamp::from_millis(0);
    let mut first = record(None);
    (first.seen, first.expires) = (start, NOW);
    let _ = store.create(id(1), &first, start).await.unwrap();
    for _ in 0..2 {
        assert!(store.touch(id(1), start, start).await.unwrap());
        assert!(!store.touch(id(2), NOW, start).await.unwrap());
        assert!(!store.touch(id(1), NOW, NOW).await.unwrap());
    }
    assert_eq!(store.load(id(1), start).await.unwrap(), Some(first));
}

#[tokio::test]
async fn a_revocation_is_forgotten_after_an_hour_and_an_idle_lock_at_once() {
    let (mut client, table) = (client().await, table());
    let store = store(&table).await;
    store.delete_by_owner("ada", None, NOW).await.unwrap();
    store
        .delete_by_owner("bob", Some(id(1)), NOW)
        .await
        .unwrap();
    let count = format!("SELECT COUNT(*) FROM `{table}_revoked`");
    assert_eq!(number(&mut client, &count).await, 3);
    let hour = NOW.saturating_add(Duration::from_secs(60 * 60));
    let just_before = Timestamp::from_millis(hour.as_millis() - 1);
    store.delete_expired(just_before, 9).await.unwrap();
    assert_eq!(number(&mut client, &count).await, 2);
    store.delete_expired(hour, 9).await.unwrap();
    assert_eq!(number(&mut client, &count).await, 0);
}

/// Several cleaners, and those who use what they are about to remove.
#[tokio::test]
async fn expired_rows_that_somebody_else_is_at_are_left_to_them() {
    let (mut client, table) = (client().await, table());
    let store = store(&table).await;
    let mut expired = record(None);
    expired.expires = NOW;
    for n in 0..10 {
        let _ = store
            .create(id(n), &expired, Timestamp::from_millis(1))
            .await
            .unwrap();
    }
    run(&mut client, "START TRANSACTION").await;
    let lock = format!(
        "SELECT * FROM `{table}` WHERE id = X'{}' FOR UPDATE",
        "03".repeat(16)
    );
    run(&mut client, &lock).await;
    let removed = tokio::time::timeout(Duration::from_secs(5), store.delete_expired(NOW, 20));
    assert_eq!(removed.await.unwrap().unwrap(), 9);
    run(&mut client, "ROLLBACK").await;
    assert_eq!(store.delete_expired(NOW, 20).await.unwrap(), 1);
}
