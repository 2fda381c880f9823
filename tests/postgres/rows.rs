//! Rows that somebody else wrote or damaged.

use std::time::Duration;

use cloakroom::store::{Create, SessionStore as _, Timestamp, Version};

use super::{NOW, app, chain, id, psql, record, send, store, table, text, token, visitor};

/// S-74.
#[tokio::test]
async fn a_damaged_row_is_corrupt_and_nobodys_session() {
    let psql = psql().await;
    for damage in [
        r"digest = '\x07'",
        "digest = ''",
        "created = '1969-12-31 23:59:59Z'",
        "created = '-infinity'",
        "expires = 'infinity'",
        "expires = '12000-01-01Z'",
        "seen = '2020-01-01 00:00:00.000001Z'",
        "authenticated = '-infinity'",
        "previous_digest = '', previous_until = renewed",
        "previous_digest = digest, previous_until = NULL",
        "idle = 60000, absolute = NULL",
        "idle = -1, absolute = 1",
    ] {
        let table = table();
        let store = store(&table).await;
        let app = app(store.clone());
        let cookie = visitor(&app).await;
        let id = cloakroom::SessionId::from_bytes(token(&cookie)[..16].try_into().unwrap());
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "1");

        let update = format!("UPDATE \"{table}\" SET {damage}");
        assert_eq!(psql.execute(&update, &[]).await.unwrap(), 1);
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
    let (psql, table) = (psql().await, table());
    let store = store(&table).await;
    let owned = record(Some("ada"));
    for n in [1, 2] {
        let created = store.create(id(n), &owned, NOW).await.unwrap();
        assert_eq!(created, Create::Done);
    }
    let id_of_one = uuid::Uuid::from(id(1));
    let damage = format!("UPDATE \"{table}\" SET digest = '' WHERE id = '{id_of_one}'");
    assert_eq!(psql.execute(&damage, &[]).await.unwrap(), 1);
    let list = store.list_by_owner("ada", NOW).await.unwrap();
    assert_eq!(list, [(id(2), owned)]);
    assert_eq!(store.delete_by_owner("ada", None, NOW).await.unwrap(), 2);
}

/// S-74.
#[tokio::test]
async fn a_column_of_another_type_is_corrupt() {
    let (psql, table) = (psql().await, table());
    let store = store(&table).await;
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    let alter = format!("ALTER TABLE \"{table}\" ALTER data TYPE text USING 'x'");
    psql.batch_execute(&alter).await.unwrap();
    let error = store.load(id(1), NOW).await.unwrap_err();
    assert!(error.is_corrupt(), "{}", chain(&error));
}

/// S-74.
#[tokio::test]
async fn damaged_data_is_loaded_and_nobodys_session() {
    let (psql, table) = (psql().await, table());
    let app = app(store(&table).await);
    let cookie = visitor(&app).await;
    let update = format!(r#"UPDATE "{table}" SET data = '\x7bff'"#);
    assert_eq!(psql.execute(&update, &[]).await.unwrap(), 1);
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "new");
}

/// S-75.
#[tokio::test]
async fn a_row_copied_to_another_id_opens_for_nobody() {
    let (psql, table) = (psql().await, table());
    let app = app(store(&table).await);
    let (ada, bob) = (visitor(&app).await, visitor(&app).await);
    let uuid =
        |cookie: &str| uuid::Uuid::from_bytes(token(cookie)[..16].try_into().unwrap()).to_string();
    let splice = format!(
        "UPDATE \"{table}\" SET (digest, data) = \
         (SELECT digest, data FROM \"{table}\" WHERE id = '{}') WHERE id = '{}'",
        uuid(&ada),
        uuid(&bob)
    );
    assert_eq!(psql.execute(&splice, &[]).await.unwrap(), 1);
    assert_eq!(text(send(&app, "/read", &bob).await).await, "new");
    assert_eq!(text(send(&app, "/read", &ada).await).await, "1");
}

/// S-08.
#[tokio::test]
async fn the_table_holds_no_secret() {
    let (psql, table) = (psql().await, table());
    let app = app(store(&table).await);
    let cookie = visitor(&app).await;
    let dump = format!("SELECT string_agg(t::text, ' ') FROM \"{table}\" AS t");
    let dump: String = psql.query_one(&dump, &[]).await.unwrap().get(0);
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let token = token(&cookie);
    let (id, secret) = token.split_at(16);
    assert!(
        dump.replace('-', "").contains(&hex(id)),
        "it is the session"
    );
    assert!(!dump.contains(&hex(&secret[..8])));
    assert!(!dump.contains(&cookie[cookie.len() - 20..]));
}

#[tokio::test]
async fn a_version_beyond_those_of_postgresql_is_kept() {
    let store = store(&table()).await;
    let mut record = record(None);
    record.version = Version::new(u64::MAX);
    let _ = store.create(id(1), &record, NOW).await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), Some(record));
}

#[tokio::test]
async fn a_revocation_is_forgotten_after_an_hour() {
    let (psql, table) = (psql().await, table());
    let store = store(&table).await;
    store.delete_by_owner("ada", None, NOW).await.unwrap();
    let count = async || -> i64 {
        let count = format!("SELECT count(*) FROM \"{table}_revoked\"");
        psql.query_one(&count, &[]).await.unwrap().get(0)
    };
    let hour = NOW.saturating_add(Duration::from_secs(60 * 60));
    let just_before = Timestamp::from_millis(hour.as_millis() - 1);
    store.delete_expired(just_before, 9).await.unwrap();
    assert_eq!(count().await, 1);
    store.delete_expired(hour, 9).await.unwrap();
    assert_eq!(count().await, 0);
}

#[tokio::test]
async fn what_expired_before_the_last_batch_is_removed_with_the_next() {
    let store = store(&table()).await;
    let ago = |n: u64| Timestamp::from_millis(NOW.as_millis() - 1_000 * n);
    let create = async |n: u8| {
        let mut record = record(None);
        record.expires = ago(n.into());
        let created = store.create(id(n), &record, ago(9)).await;
        assert_eq!(created.unwrap(), Create::Done);
    };
    for n in [5, 4, 3, 2] {
        create(n).await;
    }
    assert_eq!(store.delete_expired(NOW, 2).await.unwrap(), 2);
    // As if it had been locked meanwhile.
    create(6).await;
    assert_eq!(store.delete_expired(NOW, 9).await.unwrap(), 3);
}

/// S-10. The server quotes the row that it refuses.
#[tokio::test]
async fn an_error_does_not_repeat_the_row() {
    let (psql, table) = (psql().await, table());
    let store = store(&table).await;
    let alter = format!("ALTER TABLE \"{table}\" ADD CONSTRAINT no CHECK (owner <> 'ada')");
    psql.batch_execute(&alter).await.unwrap();
    let ada = record(Some("ada"));
    let error = store.create(id(1), &ada, NOW).await.unwrap_err();
    let said = format!("{} {error:?}", chain(&error));
    assert!(said.contains("violates check constraint \"no\""), "{said}");
    assert!(said.contains("23514"), "{said}");
    let digest = "07".repeat(8);
    assert!(!said.contains(&digest) && !said.contains("ada"), "{said}");
}
