//! Parallel writers, and a server that fails and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloakroom::PostgresStore;
use cloakroom::store::{Create, SessionStore as _};
use http::StatusCode;
use http::header::SET_COOKIE;
use tokio::task::JoinSet;

use super::{
    NOW, PostgresServer, app, chain, eventually, id, psql, record, send, server, store, store_at,
    table, text, visitor,
};

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_that_count_in_one_session_lose_nothing() {
    let table = table();
    let apps = [app(store(&table).await), app(store(&table).await)];
    let cookie = visitor(&apps[0]).await;
    let mut counting = JoinSet::new();
    for app in apps.clone() {
        for _ in 0..64 {
            let (app, cookie) = (app.clone(), cookie.clone());
            counting.spawn(async move { send(&app, "/", &cookie).await.status() });
        }
    }
    let answers = counting.join_all().await;
    assert_eq!(answers, vec![StatusCode::OK; 128]);
    for app in &apps {
        assert_eq!(text(send(app, "/read", &cookie).await).await, "129");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_under_load_cost_errors_and_nothing_that_was_acknowledged() {
    let (psql, table) = (psql().await, table());
    let url = format!("{}?application_name={table}", server().url());
    let store = store_at(&url, &table).await;
    let stop = Arc::<AtomicBool>::default();
    let mut writing = JoinSet::new();
    for n in 0..16_u8 {
        let (store, stop) = (store.clone(), Arc::clone(&stop));
        writing.spawn(async move {
            let (mut stored, mut errors) = (Vec::new(), 0);
            for m in 0.. {
                if stop.load(Ordering::SeqCst) {
                    break;
                }
                let mut bytes = [n; 16];
                bytes[8..].copy_from_slice(&u64::to_be_bytes(m));
                let id = cloakroom::SessionId::from_bytes(bytes);
                match store.create(id, &record(None), NOW).await {
                    Ok(created) => {
                        assert_eq!(created, Create::Done, "not stored twice");
                        stored.push(id);
                    }
                    Err(error) => {
                        assert!(!error.is_corrupt(), "{}", chain(&error));
                        errors += 1;
                    }
                }
            }
            (stored, errors)
        });
    }
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = $1 AND pid <> pg_backend_pid()";
    let mut times = 0;
    eventually("connections come back to be cut", async || {
        let cut: i64 = psql.query_one(cut, &[&table]).await.unwrap().get(0);
        times += i32::from(cut > 0);
        times == 5
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let (stored, errors): (Vec<_>, Vec<i32>) = writing.join_all().await.into_iter().unzip();
    assert!(errors.iter().sum::<i32>() > 0);
    // Without a break: a call waits until a connection is there again.
    for id in stored.concat() {
        assert!(store.load(id, NOW).await.unwrap().is_some());
    }
}

/// S-71.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_down_clients_get_503_and_keep_their_session() {
    let server = tokio::task::spawn_blocking(PostgresServer::start)
        .await
        .unwrap();
    let app = app(store_at(&server.url(), "sessions").await);
    let cookie = visitor(&app).await;

    tokio::task::block_in_place(|| server.kill());
    for _ in 0..4 {
        for path in ["/read", "/"] {
            let response = send(&app, path, &cookie).await;
            assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(!response.headers().contains_key(SET_COOKIE));
        }
    }
    let error = PostgresStore::connect(&server.url()).await.unwrap_err();
    assert!(
        chain(&error).contains("cannot connect"),
        "{}",
        chain(&error)
    );

    tokio::task::block_in_place(|| server.start_again());
    eventually("it works again", async || {
        send(&app, "/read", &cookie).await.status() == StatusCode::OK
    })
    .await;
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
}

#[tokio::test]
async fn a_store_that_is_dropped_closes_its_connections() {
    let (psql, table) = (psql().await, table());
    let url = format!("{}?application_name={table}", server().url());
    let count = async || -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        psql.query_one(count, &[&table]).await.unwrap().get(0)
    };
    let store = store_at(&url, &table).await;
    eventually("two connections", async || count().await == 2).await;
    let _ = store.clone().load(id(1), NOW).await.unwrap();
    drop(store);
    eventually("no connection", async || count().await == 0).await;
}
