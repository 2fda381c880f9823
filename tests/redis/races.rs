//! Processes that share a server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use http::StatusCode;
use tokio::task::JoinSet;

use super::{RedisServer, app, prefix, send, text, under, visitor};

/// Sends `times` requests to `/` at once to each application, all of one session; the slowest of them
/// says what `n` came to.
async fn count(apps: &[Router], cookie: &str, times: usize) {
    let mut requests = JoinSet::new();
    for app in apps.iter().cycle().take(apps.len() * times) {
        let (app, cookie) = (app.clone(), cookie.to_owned());
        requests.spawn(async move { send(&app, "/", &cookie).await.status() });
    }
    for status in requests.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_applications_on_two_stores_lose_no_update_of_one_session() {
    let (server, prefix) = (RedisServer::shared(), prefix());
    let apps = [
        app(under(server, &prefix).await),
        app(under(server, &prefix).await),
    ];
    let cookie = visitor(&apps[0]).await;
    count(&apps, &cookie, 64).await;
    for app in &apps {
        assert_eq!(text(send(app, "/read", &cookie).await).await, "129");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_forgets_its_scripts_all_the_time_fails_no_request() {
    let server = RedisServer::start(&[]);
    let app = app(under(&server, "s:").await);
    let cookie = visitor(&app).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let flusher = {
        let (mut connection, is_over) = (server.connection(), Arc::clone(&is_over));
        std::thread::spawn(move || {
            let mut flushes = 0;
            while !is_over.load(Ordering::Relaxed) {
                redis::cmd("SCRIPT")
                    .arg("FLUSH")
                    .exec(&mut connection)
                    .unwrap();
                flushes += 1;
            }
            flushes
        })
    };
    for _ in 0..8 {
        count(std::slice::from_ref(&app), &cookie, 16).await;
    }
    is_over.store(true, Ordering::Relaxed);
    assert!(flusher.join().unwrap() > 10);
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "129");
}
