//! Two processes of the application on one server.

use axum::Router;
use axum::extract::Path;
use axum::routing::any;
use cloakroom::{PostgresStore, Session};
use http::StatusCode;
use http::header::SET_COOKIE;
use tokio::task::JoinSet;

use super::other_process::{Other, part, say, wait_for_go};
use super::visitors::cookie as set_cookie;
use super::{patient, routes, send, server, store, store_at, table, text, visitor};

/// This test in another process, with the same table and cookie.
fn start(test: &str, table: &str, cookie: &str) -> Other {
    let test = format!("processes::{test}");
    Other::start(&test, &[&server().url(), table, cookie])
}

fn app(store: PostgresStore) -> Router {
    routes()
        .route("/set/{key}", any(set))
        .route("/get/{key}", any(get))
        .route("/slow", any(slow))
        .layer(patient(store))
}

async fn set(Path(key): Path<String>, session: Session) -> cloakroom::Result<()> {
    session.insert(key, 1)
}

async fn get(Path(key): Path<String>, session: Session) -> cloakroom::Result<String> {
    let value = session.get::<u64>(&key)?;
    Ok(value.unwrap_or_default().to_string())
}

/// Changes the session, says so, and waits before it is stored.
async fn slow(session: Session) -> cloakroom::Result<()> {
    session.update("n", |n: &mut u64| *n += 100)?;
    session.insert("slow", 1)?;
    say("changed", "");
    tokio::task::spawn_blocking(wait_for_go).await.unwrap();
    Ok(())
}

/// Sends 64 requests at once.
async fn send_64(app: &Router, cookie: &str, path: impl Fn(usize) -> String) {
    let mut requests = JoinSet::new();
    for n in 0..64 {
        let (app, cookie, path) = (app.clone(), cookie.to_owned(), path(n));
        requests.spawn(async move { send(&app, &path, &cookie).await.status() });
    }
    assert_eq!(requests.join_all().await, [StatusCode::OK; 64]);
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn processes_that_count_in_one_session_lose_no_count_and_no_key() {
    let requests = async |app: &Router, cookie: &str, process: &str| {
        send_64(app, cookie, |_| "/".to_owned()).await;
        send_64(app, cookie, |n| format!("/set/{process}{n}")).await;
    };
    if let Some([url, table, cookie]) = part() {
        let app = app(store_at(&url, &table).await);
        say("ready", "");
        wait_for_go();
        return requests(&app, &cookie, "there").await;
    }
    let table = table();
    let app = app(store(&table).await);
    let cookie = visitor(&app).await;
    let test = "processes_that_count_in_one_session_lose_no_count_and_no_key";
    let mut other = start(test, &table, &cookie);
    other.hear("ready");
    other.go();
    requests(&app, &cookie, "here").await;
    other.end();
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "129");
    for process in ["here", "there"] {
        for n in 0..64 {
            let key = format!("/get/{process}{n}");
            assert_eq!(text(send(&app, &key, &cookie).await).await, "1", "{key}");
        }
    }
}

/// In the other process a request has changed the session when in this one another request to `path` is
/// answered; then it stores what it changed. The application, and the answer to `path`.
async fn slow_write_across(test: &str, path: &str) -> Option<(Router, String, String)> {
    if let Some([url, table, cookie]) = part() {
        let app = app(store_at(&url, &table).await);
        let response = send(&app, "/slow", &cookie).await;
        let sets_cookie = response.headers().contains_key(SET_COOKIE);
        say(
            "answer",
            &format!("{} {sets_cookie}", response.status().as_u16()),
        );
        return None;
    }
    let table = table();
    let app = app(store(&table).await);
    let cookie = visitor(&app).await;
    let mut other = start(test, &table, &cookie);
    other.hear("changed");
    let answer = send(&app, path, &cookie).await;
    assert_eq!(answer.status(), StatusCode::OK);
    other.go();
    // Nothing is announced.
    assert_eq!(other.hear("answer"), "200 false");
    other.end();
    Some((app, cookie, set_cookie(&answer)))
}

/// S-62.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_write_of_another_process_does_not_bring_a_session_back() {
    let test = "a_slow_write_of_another_process_does_not_bring_a_session_back";
    let Some((app, cookie, removal)) = slow_write_across(test, "/logout").await else {
        return;
    };
    assert!(removal.ends_with('='), "{removal}");
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "new");
}

/// S-63.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_write_of_another_process_from_before_a_sign_in_is_dropped() {
    let test = "a_slow_write_of_another_process_from_before_a_sign_in_is_dropped";
    let Some((app, before, after)) = slow_write_across(test, "/login").await else {
        return;
    };
    assert_eq!(text(send(&app, "/read", &before).await).await, "new");
    assert_eq!(text(send(&app, "/read", &after).await).await, "1");
    assert_eq!(text(send(&app, "/get/slow", &after).await).await, "0");
}

/// S-65. The counterpart: without a sign-in or sign-out, what both did is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_write_of_another_process_is_merged_with_what_came_meanwhile() {
    let test = "a_slow_write_of_another_process_is_merged_with_what_came_meanwhile";
    if let Some([url, table, cookie]) = part() {
        let app = app(store_at(&url, &table).await);
        send(&app, "/slow", &cookie).await;
        return;
    }
    let table = table();
    let app = app(store(&table).await);
    let cookie = visitor(&app).await;
    let mut other = start(test, &table, &cookie);
    other.hear("changed");
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
    other.go();
    other.end();
    assert_eq!(text(send(&app, "/read", &cookie).await).await, "102");
    assert_eq!(text(send(&app, "/get/slow", &cookie).await).await, "1");
}
