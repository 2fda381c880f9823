//! URLs, tables and servers that are not as they should be, and many that start at once.

use cloakroom::PostgresStore;
use cloakroom::store::{Admission, SessionStore as _, SignIn, Update};
use tokio::task::JoinSet;

use super::postgres_server::url;
use super::{NOW, chain, eventually, id, psql, record, role, server, store, table};

/// What `connect` says of a URL.
async fn refused(url: &str) -> String {
    chain(&PostgresStore::connect(url).await.unwrap_err())
}

/// S-77.
#[tokio::test]
async fn a_name_that_is_none_is_refused_before_it_reaches_the_server() {
    let long = "a".repeat(49);
    for name in [
        "", "1st", "a-b", "a b", "a\"; --", "a.b", "\u{e4}", "a\0", &long,
    ] {
        let builder = PostgresStore::builder().table(name);
        let error = builder.connect(&server().url()).await.unwrap_err();
        let expected = format!("{name:?} is no name for a table; use 1 to 48 ASCII letters");
        assert!(chain(&error).contains(&expected), "{}", chain(&error));
    }
}

/// S-77.
#[tokio::test]
async fn a_schema_that_is_none_is_refused_before_it_reaches_the_server() {
    let long = "a".repeat(64);
    for name in ["", "1st", "a\"; --", "a.b", "pg_temp", &long] {
        let builder = PostgresStore::builder().schema(name);
        let error = builder.connect(&server().url()).await.unwrap_err();
        let expected = format!("{name:?} is no name for a schema; use 1 to 63 ASCII letters");
        assert!(chain(&error).contains(&expected), "{}", chain(&error));
    }
}

#[tokio::test]
async fn with_a_schema_the_search_path_plays_no_part() {
    let (psql, schema) = (psql().await, table());
    // Others of the same name are in the path, and would be found first.
    let role = role(&psql).await;
    let path = format!(
        "GRANT CREATE ON DATABASE postgres TO {0}; CREATE SCHEMA decoy_{0};
         CREATE TABLE decoy_{0}.sessions (id integer);
         CREATE TABLE decoy_{0}.cloakroom_schema (\"table\" integer);
         ALTER ROLE {0} SET search_path = decoy_{0}",
        role.0
    );
    psql.batch_execute(&path).await.unwrap();
    for name in [schema.as_str(), "sessions", "select"] {
        let store = async || {
            let builder = PostgresStore::builder().schema(name);
            let store = builder.connect(&role.1).await.unwrap();
            store
                .migrate()
                .await
                .map_err(|error| chain(&error))
                .unwrap();
            store
        };
        let first = store().await;
        let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
        let signed_in = first.sign_in(id(1), &ada, None, admission, NOW).await;
        assert_eq!(signed_in.unwrap(), SignIn::Done);
        let found = format!("SELECT count(*) FROM \"{name}\".sessions");
        let found: i64 = psql.query_one(&found, &[]).await.unwrap().get(0);
        assert_eq!(found, 1);
        let again = store().await;
        let stored = again.load(id(1), NOW).await.unwrap().unwrap();
        let updated = again.update(id(1), &ada, stored.version, NOW).await;
        assert_eq!(updated.unwrap(), Update::Done);
        assert_eq!(again.list_by_owner("ada", NOW).await.unwrap().len(), 1);
        assert_eq!(again.delete_by_owner("ada", None, NOW).await.unwrap(), 1);
        assert_eq!(again.delete_expired(NOW, 1).await.unwrap(), 0);
        assert_eq!(again.delete_all().await.unwrap(), 0);
        let drop = format!("DROP SCHEMA \"{name}\" CASCADE");
        psql.batch_execute(&drop).await.unwrap();
    }
}

/// S-76.
#[tokio::test]
async fn stores_in_two_schemas_share_nothing() {
    let (one, other) = (table(), table());
    let store = async |schema: &str| {
        let builder = PostgresStore::builder().schema(schema);
        let store = builder.connect(&server().url()).await.unwrap();
        store.migrate().await.unwrap();
        store
    };
    let (users, admins) = (store(&one).await, store(&other).await);
    let ada = record(Some("ada"));
    let _ = users.create(id(1), &ada, NOW).await.unwrap();
    assert_eq!(admins.load(id(1), NOW).await.unwrap(), None);
    assert_eq!(admins.delete_by_owner("ada", None, NOW).await.unwrap(), 0);
    assert_eq!(admins.delete_all().await.unwrap(), 0);
    assert_eq!(users.load(id(1), NOW).await.unwrap(), Some(ada));
}

#[tokio::test]
async fn own_migrations_may_make_the_tables() {
    let (psql, schema) = (psql().await, table().to_lowercase());
    let tables = include_str!("../../src/store/postgres.sql");
    let make = format!("CREATE SCHEMA \"{schema}\"; SET search_path = \"{schema}\"; {tables}");
    psql.batch_execute(&make).await.unwrap();
    let url = format!("{}?options=-c%20search_path={schema}", server().url());
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let _ = store.create(id(1), &record(None), NOW).await.unwrap();
    assert!(store.load(id(1), NOW).await.unwrap().is_some());
}

#[tokio::test]
async fn a_name_may_be_a_keyword_and_as_long_as_it_gets() {
    let longest = format!("{}{}", table(), "x".repeat(48))[..48].to_owned();
    for name in ["order", "user", &longest] {
        let store = store(name).await;
        let _ = store.create(id(1), &record(None), NOW).await.unwrap();
        assert!(store.load(id(1), NOW).await.unwrap().is_some());
        store.migrate().await.unwrap();
    }
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_without_showing_the_password() {
    for url in [
        "",
        "mysql://u:hunter2@h/db",
        "host=h user=u password=hunter2 x",
        "postgres://u:hunter2@h:port/db",
        "postgres://u:@?hunter2=x@h",
        "postgres://u:x@hunter2@127.0.0.1:1/db",
        "postgres://u:hunter2@h?colour=red",
    ] {
        let error = refused(url).await;
        assert!(error.contains("postgres://user:password@host"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let error = refused("postgres://u:p@h?colour=red").await;
    assert!(error.contains("unknown option `colour`"), "{error}");
}

#[cfg(not(feature = "postgres-tls"))]
#[tokio::test]
async fn without_the_feature_for_tls_it_is_not_left_out_silently() {
    for mode in ["require", "verify-full"] {
        let error = refused(&format!("{}?sslmode={mode}", server().url())).await;
        let wanted = "asks for TLS, which needs cloakroom's feature `postgres-tls`";
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_configuration_is_as_good_as_a_url() {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(server().port());
    config.user("test").dbname("postgres");
    let builder = PostgresStore::builder().table(table());
    let store = builder.connect_with(config).await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
}

#[tokio::test]
async fn an_unreachable_server_is_named() {
    let error = refused("postgres://u:hunter2@127.0.0.1:1/db").await;
    assert!(error.contains("server at `127.0.0.1:1`"), "{error}");
    assert!(error.contains("refused"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_is_not_shown() {
    let psql = psql().await;
    psql.batch_execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        .await
        .unwrap();
    let url = |password: &str| {
        let user = format!("locked:{password}@");
        server().url().replace("test@", &user)
    };
    let error = refused(&url("hunter2")).await;
    assert!(error.contains("password authentication failed"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
    PostgresStore::connect(&url("right")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = refused(&format!("{}?connect_timeout=1", url(port))).await;
    assert!(error.contains("did not answer in time"), "{error}");
}

#[tokio::test]
async fn without_its_tables_the_store_says_what_to_call() {
    let builder = PostgresStore::builder().table(table());
    let store = builder.connect(&server().url()).await.unwrap();
    let update = store
        .update(id(1), &record(None), record(None).version, NOW)
        .await;
    for error in [
        store.load(id(1), NOW).await.unwrap_err(),
        update.unwrap_err(),
    ] {
        let error = chain(&error);
        assert!(error.contains("call `PostgresStore::migrate`"), "{error}");
    }
    store.migrate().await.unwrap();
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_start_at_once_make_the_tables_once() {
    // A database of its own, since the others have `cloakroom_schema` already.
    let database = table().to_lowercase();
    let psql = psql().await;
    let create = format!("CREATE DATABASE {database}");
    psql.batch_execute(&create).await.unwrap();
    let url = server().url().replace("/postgres", &format!("/{database}"));
    let mut starting = JoinSet::new();
    for n in 0..16 {
        let url = url.clone();
        starting.spawn(async move {
            // In the path, in a schema, and in that schema behind a pooler.
            let builder = PostgresStore::builder();
            let builder = match n % 3 {
                0 => builder,
                1 => builder.schema("own"),
                _ => builder.schema("own").transaction_pooling(),
            };
            let store = builder.connect(&url).await.unwrap();
            store.migrate().await.map_err(|error| chain(&error))
        });
    }
    let done = starting.join_all().await;
    assert_eq!(done, vec![Ok(()); 16]);
}

#[tokio::test]
async fn tables_of_others_and_of_later_releases_are_left_alone() {
    let (psql, foreign, later, changed) = (psql().await, table(), table(), table());
    let migrate = async |table: &str| {
        let builder = PostgresStore::builder().table(table);
        let store = builder.connect(&server().url()).await.unwrap();
        chain(&store.migrate().await.unwrap_err())
    };
    let create = format!("CREATE TABLE \"{foreign}\" (id integer)");
    psql.batch_execute(&create).await.unwrap();
    let error = migrate(&foreign).await;
    assert!(error.contains("that cloakroom did not make"), "{error}");

    store(&later).await;
    let update = "UPDATE cloakroom_schema SET version = 2 WHERE \"table\" = $1";
    assert_eq!(psql.execute(update, &[&later]).await.unwrap(), 1);
    let error = migrate(&later).await;
    assert!(error.contains("has schema version 2"), "{error}");

    store(&changed).await;
    let drop = format!("ALTER TABLE \"{changed}\" DROP idle");
    psql.batch_execute(&drop).await.unwrap();
    let error = migrate(&changed).await;
    assert!(error.contains("is not as cloakroom made it"), "{error}");
}

#[tokio::test]
async fn a_role_that_may_not_make_tables_is_told_so() {
    let (_, url) = role(&psql().await).await;
    let store = PostgresStore::connect(&url).await.unwrap();
    let error = chain(&store.migrate().await.unwrap_err());
    assert!(error.contains("this role may not make"), "{error}");
    assert!(error.contains("permission denied"), "{error}");
}

/// The answer of a sign-in must come from what is there when it is its turn, also for a role whose
/// transactions see what was there when they began (S-60).
#[tokio::test(flavor = "multi_thread")]
async fn another_isolation_level_of_the_role_does_no_harm() {
    let mut psql = psql().await;
    let (role, url) = role(&psql).await;
    let own = format!(
        "CREATE SCHEMA {role} AUTHORIZATION {role}; ALTER ROLE {role} SET search_path = {role};
         ALTER ROLE {role} SET default_transaction_isolation = 'repeatable read'"
    );
    psql.batch_execute(&own).await.unwrap();
    let store = PostgresStore::connect(&url).await.unwrap();
    store.migrate().await.unwrap();

    let revocation = psql.transaction().await.unwrap();
    let lock = format!(
        "SELECT pg_advisory_xact_lock(hashtextextended('ada', '{role}.sessions'::regclass::oid::bigint));
         INSERT INTO {role}.sessions_revoked VALUES ('ada', '{}', to_timestamp(1700000000))",
        uuid::Uuid::nil()
    );
    revocation.batch_execute(&lock).await.unwrap();
    let waiting = tokio::spawn(async move {
        let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
        store.sign_in(id(1), &ada, None, admission, NOW).await
    });
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity \
                 WHERE usename = $1 AND wait_event_type = 'Lock')";
    eventually("the sign-in waits for the revocation", async || {
        let waits = revocation.query_one(waits, &[&role]).await;
        waits.unwrap().get(0)
    })
    .await;
    revocation.commit().await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), SignIn::Revoked);
}
