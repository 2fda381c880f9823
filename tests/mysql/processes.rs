//! Processes that share a database. Each test starts its own binary again to play the others, which an
//! environment variable tells their part.

use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::process::{Child, Command, Stdio};

use axum::Router;
use axum::extract::Path;
use axum::routing::any;
use cloakroom::store::{Admission, OwnerLimit, SessionStore as _, SignIn, WhenFull};
use cloakroom::{Session, SessionId, SessionLayer};
use http::StatusCode;
use tokio::task::JoinSet;

use super::{NOW, chain, cookie, record, send, server, store, store_at, table, text, visitor};

const PART: &str = "CLOAKROOM_TEST_PART";

/// This test in another process.
fn start(test: &str, part: &[&str]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(PART, part.join("\n"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn part<const N: usize>() -> Option<[String; N]> {
    let part = std::env::var(PART).ok()?;
    let part: Vec<_> = part.split('\n').map(str::to_owned).collect();
    Some(part.try_into().unwrap())
}

/// Two processes play the part, and succeed.
fn two(test: &str, parts: [&[&str]; 2]) -> String {
    let children = parts.map(|part| start(&format!("processes::{test}"), part));
    let mut said = String::new();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        said += std::str::from_utf8(&output.stdout).unwrap();
    }
    said
}

/// `/set/KEY` sets a key, `/keys/N` says how many of the keys 0 to N are set; the rest as elsewhere.
async fn app(url: &str, table: &str) -> Router {
    let set = async |Path(key): Path<String>, session: Session| session.insert(key, true);
    let keys = async |Path(n): Path<usize>, session: Session| {
        let is_set = |n: &usize| matches!(session.get::<bool>(&n.to_string()), Ok(Some(true)));
        (0..n).filter(is_set).count().to_string()
    };
    super::routes()
        .route("/set/{key}", any(set))
        .route("/keys/{n}", any(keys))
        .layer(SessionLayer::new(store_at(url, table).await))
}

async fn all_at_once(app: &Router, cookie: &str, paths: impl Iterator<Item = String>) {
    let mut requests = JoinSet::new();
    for path in paths {
        let (app, cookie) = (app.clone(), cookie.to_owned());
        requests.spawn(async move { send(&app, &path, &cookie).await.status() });
    }
    for status in requests.join_all().await {
        assert_eq!(status, StatusCode::OK);
    }
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_count_in_one_session_lose_no_count() {
    if let Some([url, table, cookie]) = part() {
        let app = app(&url, &table).await;
        return all_at_once(&app, &cookie, (0..64).map(|_| "/".to_owned())).await;
    }
    let (url, table) = (server().url(), table());
    let app = app(&url, &table).await;
    let cookie = visitor(&app).await;
    let part = [&*url, &table, &cookie];
    let test = "two_processes_that_count_in_one_session_lose_no_count";
    two(test, [&part, &part]);
    let n = text(send(&app, "/read", &cookie).await).await;
    assert_eq!(n, (1 + 2 * 64).to_string());
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_set_keys_of_one_session_lose_none() {
    if let Some([url, table, cookie, first]) = part() {
        let (app, first) = (app(&url, &table).await, first.parse::<usize>().unwrap());
        let paths = (first..first + 64).map(|key| format!("/set/{key}"));
        return all_at_once(&app, &cookie, paths).await;
    }
    let (url, table) = (server().url(), table());
    let app = app(&url, &table).await;
    let cookie = visitor(&app).await;
    let part = |first| [&*url, &*table, &*cookie, first];
    let test = "two_processes_that_set_keys_of_one_session_lose_none";
    two(test, [&part("0"), &part("64")]);
    let n = text(send(&app, "/keys/128", &cookie).await).await;
    assert_eq!(n, "128");
}

/// S-62: whatever writes of others are under way, in other processes too.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_while_another_process_writes_stays_ended() {
    if let Some([url, table, cookies]) = part() {
        let app = app(&url, &table).await;
        for _ in 0..8 {
            for cookie in cookies.split(' ') {
                // It is there, or it is not; it never is again.
                let status = send(&app, "/", cookie).await.status();
                assert_eq!(status, StatusCode::OK);
            }
        }
        return;
    }
    let (url, table) = (server().url(), table());
    let app = app(&url, &table).await;
    let mut cookies = Vec::new();
    for _ in 0..16 {
        let guest = visitor(&app).await;
        cookies.push(cookie(&send(&app, "/login", &guest).await));
    }
    let test = "processes::a_session_that_ends_while_another_process_writes_stays_ended";
    let writer = start(test, &[&url, &table, &cookies.join(" ")]);
    for cookie in &cookies[..8] {
        let left = send(&app, "/logout", cookie).await;
        assert_eq!(left.status(), StatusCode::OK);
        assert_eq!(text(send(&app, "/read", cookie).await).await, "new");
    }
    let store = store(&table).await;
    let now = std::time::SystemTime::now().into();
    assert_eq!(store.delete_by_owner("ada", None, now).await.unwrap(), 8);
    let output = writer.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(store.list_by_owner("ada", now).await.unwrap(), []);
    for cookie in &cookies {
        assert_eq!(text(send(&app, "/read", cookie).await).await, "new");
    }
}

/// S-59.
#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_in_two_processes_keep_the_limit() {
    if let Some([url, table]) = part() {
        let store = store_at(&url, &table).await;
        let mut admission = Admission::new(NOW);
        let three = NonZeroUsize::new(3).unwrap();
        admission.limit = Some(OwnerLimit::new(three, WhenFull::Refuse));
        let mut sign_ins = JoinSet::new();
        for _ in 0..32 {
            let store = store.clone();
            sign_ins.spawn(async move {
                let mut id = [0; 16];
                getrandom::fill(&mut id).unwrap();
                let id = SessionId::from_bytes(id);
                let ada = record(Some("ada"));
                match store.sign_in(id, &ada, None, admission, NOW).await {
                    Ok(SignIn::Done) => println!("\nsigned in: {id}"),
                    Ok(refused) => assert_eq!(refused, SignIn::Full),
                    Err(error) => panic!("{}", chain(&error)),
                }
            });
        }
        sign_ins.join_all().await;
        return;
    }
    let (url, table) = (server().url(), table());
    let store = store(&table).await;
    let part = [&*url, &table];
    let said = two("sign_ins_in_two_processes_keep_the_limit", [&part, &part]);
    let done: HashSet<_> = said
        .lines()
        .filter_map(|line| line.strip_prefix("signed in: "))
        .map(|id| id.parse().unwrap())
        .collect();
    assert_eq!(done.len(), 3);
    let listed = store.list_by_owner("ada", NOW).await.unwrap();
    let listed: HashSet<SessionId> = listed.into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, done);
}
