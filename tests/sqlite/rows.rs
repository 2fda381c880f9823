//! Rows that somebody else wrote or damaged.

use std::fs;

use cloakroom::SqliteStore;
use cloakroom::store::{Create, SessionStore as _, Update, Version};
use rusqlite::{Connection, params};

use super::{NOW, app, chain, database, id, record, send, text, token, visitor};

/// S-74.
#[tokio::test]
async fn a_damaged_row_is_corrupt_and_nobodys_session() {
    for damage in [
        "digest = x'07'",
        "created = -1",
        "expires = 9e99",
        "authenticated = -9223372036854775808",
        "previous_digest = x'', previous_until = 0",
        "previous_digest = digest, previous_until = NULL",
        "idle = 60000, absolute = NULL",
        "idle = -1, absolute = 1",
        "owner = CAST(x'ff' AS TEXT)",
        "data = '{}'",
    ] {
        let path = database();
        // Of the types that a row may have otherwise.
        let lax = include_str!("../../src/store/sqlite.sql").replace("STRICT, ", "");
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch(&lax).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        let app = app(store.clone());
        let cookie = visitor(&app).await;
        let id = token(&cookie)[..16].try_into().unwrap();
        let id = cloakroom::SessionId::from_bytes(id);
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");

        assert_eq!(
            raw.execute(&format!("UPDATE sessions SET {damage}"), []),
            Ok(1)
        );
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

/// S-74.
#[tokio::test]
async fn damaged_data_is_loaded_and_nobodys_session() {
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let app = app(store);
    let cookie = visitor(&app).await;
    let raw = Connection::open(&path).unwrap();
    assert_eq!(raw.execute("UPDATE sessions SET data = x'7bff'", []), Ok(1));
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "new");
}

/// S-74: one that is damaged hides no other.
#[tokio::test]
async fn a_list_leaves_out_what_is_damaged() {
    for damage in ["id = 'x'", "digest = x'07'", "created = -1"] {
        let path = database();
        let lax = include_str!("../../src/store/sqlite.sql").replace("STRICT, ", "");
        let raw = Connection::open(&path).unwrap();
        raw.execute_batch(&lax).unwrap();
        let store = SqliteStore::open(&path).unwrap();
        let owned = record(Some("ada"));
        for n in [1, 2] {
            let created = store.create(id(n), &owned, NOW).await.unwrap();
            assert_eq!(created, Create::Done);
        }
        let damaged = format!("UPDATE sessions SET {damage} WHERE id = ?1");
        assert_eq!(raw.execute(&damaged, [id(1).as_bytes()]), Ok(1));
        let list = store.list_by_owner("ada", NOW).await.unwrap();
        assert_eq!(list, [(id(2), owned)]);
        assert_eq!(store.delete_by_owner("ada", None, NOW).await.unwrap(), 2);
    }
}

#[tokio::test]
async fn the_tables_refuse_values_of_other_types() {
    let path = database();
    let store = SqliteStore::open(&path).unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    let raw = Connection::open(&path).unwrap();
    for wrong in ["id = 'x'", "digest = 'x'", "created = 'x'", "data = '{}'"] {
        raw.execute(&format!("UPDATE sessions SET {wrong}"), [])
            .unwrap_err();
    }
}

/// S-75.
#[tokio::test]
async fn a_row_copied_to_another_id_opens_for_nobody() {
    let path = database();
    let app = app(SqliteStore::open(&path).unwrap());
    let (ada, bob) = (visitor(&app).await, visitor(&app).await);
    let raw = Connection::open(&path).unwrap();
    let spliced = raw.execute(
        "UPDATE sessions SET (digest, data) = (SELECT digest, data FROM sessions WHERE id = ?1) \
         WHERE id = ?2",
        params![&token(&ada)[..16], &token(&bob)[..16]],
    );
    assert_eq!(spliced, Ok(1));
    assert_eq!(text(send(&app, "/read", &bob).await).await, "new");
    let mut forged = token(&bob)[..16].to_vec();
    forged.extend(&token(&ada)[16..]);
    use base64::Engine as _;
    let forged = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(forged);
    let name = ada.split('=').next().unwrap();
    let read = text(send(&app, "/read", &format!("{name}={forged}")).await).await;
    assert_eq!(read, "new");
    assert_eq!(text(send(&app, "/read", &ada).await).await, "1");
}

/// S-08.
#[tokio::test]
async fn the_files_hold_no_secret() {
    let path = database();
    let app = app(SqliteStore::open(&path).unwrap());
    let cookie = visitor(&app).await;
    let token = token(&cookie);
    let (id, secret) = token.split_at(16);
    let text = &cookie.as_bytes()[cookie.len() - 20..];
    let mut files = Vec::new();
    for file in fs::read_dir(path.parent().unwrap()).unwrap() {
        files.extend(fs::read(file.unwrap().path()).unwrap());
    }
    let holds = |part: &[u8]| files.windows(part.len()).any(|bytes| bytes == part);
    assert!(holds(id), "the files have the session");
    assert!(!holds(&secret[..8]) && !holds(text));
}

#[tokio::test]
async fn numbers_beyond_those_of_sqlite_are_kept() {
    let store = SqliteStore::in_memory().unwrap();
    let mut record = record(None);
    record.version = Version::new(u64::MAX);
    let _ = store.create(id(1), &record, NOW).await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(record.clone()));
    let next = {
        let mut next = record.clone();
        next.version = record.version.next();
        next
    };
    let updated = store
        .update(id(1), &next, record.version, NOW)
        .await
        .unwrap();
    assert_eq!(updated, Update::Done);
}
