//! A pooler between the store and the server, which gives each transaction another server process.

use std::sync::OnceLock;

use cloakroom::store::{Admission, SessionStore as _};
use cloakroom::{PostgresStore, conformance_tests};
use http::StatusCode;
use tokio::task::JoinSet;

use super::pgbouncer::PgBouncer;
use super::postgres_server::url;
use super::{NOW, app, chain, id, psql, record, role, send, server, table, text, visitor};

conformance_tests!(pgbouncer, async { super::pooled().await });

/// The pooler that the tests share.
fn pgbouncer() -> &'static PgBouncer {
    static PGBOUNCER: OnceLock<PgBouncer> = OnceLock::new();
    PGBOUNCER.get_or_init(|| PgBouncer::start(server().port()))
}

async fn pooled_at(table: &str) -> PostgresStore {
    let builder = PostgresStore::builder().table(table).transaction_pooling();
    let store = builder.connect(&url(pgbouncer().port)).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    store.migrate().await.unwrap();
    store
}

async fn pooled() -> PostgresStore {
    pooled_at(&table()).await
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_behind_a_pooler_lose_no_count() {
    let table = table();
    let apps = [app(pooled_at(&table).await), app(pooled_at(&table).await)];
    let cookie = visitor(&apps[0]).await;
    let mut counting = JoinSet::new();
    for app in apps.iter().cycle().take(64) {
        let (app, cookie) = (app.clone(), cookie.clone());
        counting.spawn(async move { send(&app, "/", &cookie).await.status() });
    }
    assert_eq!(counting.join_all().await, vec![StatusCode::OK; 64]);
    assert_eq!(text(send(&apps[0], "/read", &cookie).await).await, "65");
}

#[tokio::test]
async fn a_pooler_that_the_store_does_not_know_of_is_refused_with_what_to_do() {
    let error = PostgresStore::connect(&url(pgbouncer().port)).await;
    let error = chain(&error.unwrap_err());
    assert!(
        error.contains("`PostgresStoreBuilder::transaction_pooling`"),
        "{error}"
    );
    assert!(
        error.contains("unsupported startup parameter: options"),
        "{error}"
    );
}

/// What a sign-in sees must be what is there when it is its turn (S-60). A pooler cannot be told so.
#[tokio::test]
async fn with_another_isolation_level_nobody_is_signed_in_or_revoked() {
    let psql = psql().await;
    let (role, url) = role(&psql).await;
    let own = format!(
        "CREATE SCHEMA {role} AUTHORIZATION {role};
         ALTER ROLE {role} SET default_transaction_isolation = 'repeatable read'"
    );
    psql.batch_execute(&own).await.unwrap();
    let builder = PostgresStore::builder().schema(&role).transaction_pooling();
    let store = builder.connect(&url).await.unwrap();
    store.migrate().await.unwrap();
    let (ada, admission) = (record(Some("ada")), Admission::new(NOW));
    for error in [
        store
            .sign_in(id(1), &ada, None, admission, NOW)
            .await
            .unwrap_err(),
        store.delete_by_owner("ada", None, NOW).await.unwrap_err(),
    ] {
        let error = chain(&error);
        assert!(error.contains("have to be READ COMMITTED"), "{error}");
        assert!(error.contains("ALTER ROLE"), "{error}");
    }
    assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
}
