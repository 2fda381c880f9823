//! Processes that are killed, and two that share a file. Each test starts its own binary again to play
//! the other process, which an environment variable tells its part.

use std::collections::HashSet;
use std::io::{BufRead as _, BufReader, Read as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cloakroom::SqliteStore;
use cloakroom::store::{Admission, Create, OwnerLimit, SessionStore as _, SignIn, WhenFull};
use http::StatusCode;
use tokio::task::JoinSet;

use super::{NOW, app, database, random_id, record, send, text, visitor};

const PART: &str = "CLOAKROOM_TEST_PART";

/// This test in another process.
fn start(test: &str, part: [&str; 2]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(PART, part.join("\n"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn part() -> Option<(String, String)> {
    let part = std::env::var(PART).ok()?;
    let (path, cookie) = part.split_once('\n').unwrap();
    Some((path.to_owned(), cookie.to_owned()))
}

#[tokio::test]
async fn what_a_reopened_file_holds_is_what_was_stored() {
    let path = database();
    let app_before = app(SqliteStore::open(&path).unwrap());
    let cookie = visitor(&app_before).await;
    drop(app_before);
    let app = app(SqliteStore::open(&path).unwrap());
    assert_eq!(text(send(&app, "/", &cookie).await).await, "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_no_session_that_was_acknowledged() {
    if let Some((path, _)) = part() {
        return store_for_ever(Path::new(&path)).await;
    }
    let path = database();
    let test = "processes::a_killed_process_loses_no_session_that_was_acknowledged";
    let mut child = start(test, [path.to_str().unwrap(), ""]);
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    while lines.matches("stored ").count() < 1_000 {
        assert_ne!(output.read_line(&mut lines).unwrap(), 0, "{lines}");
    }
    child.kill().unwrap();
    output.read_to_string(&mut lines).unwrap();
    child.wait().unwrap();

    let store = SqliteStore::open(&path).unwrap();
    for line in lines.lines() {
        let Some((_, id)) = line.split_once("stored ") else {
            continue;
        };
        let found = store.load(id.parse().unwrap(), NOW).await.unwrap();
        assert_eq!(found, Some(record(Some("ada"))), "{id} was acknowledged");
    }
}

/// Says of each session that it is stored as soon as the store says so.
async fn store_for_ever(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..32 {
        let store = store.clone();
        tasks.spawn(async move {
            loop {
                let id = random_id();
                let created = store.create(id, &record(Some("ada")), NOW).await.unwrap();
                assert_eq!(created, Create::Done);
                println!("stored {id}");
            }
        });
    }
    tasks.join_all().await;
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_that_count_in_one_session_lose_no_count() {
    if let Some((path, cookie)) = part() {
        return count_to_64(Path::new(&path), &cookie).await;
    }
    let path = database();
    let app = app(SqliteStore::open(&path).unwrap());
    let cookie = visitor(&app).await;
    let test = "processes::two_processes_that_count_in_one_session_lose_no_count";
    let children = [(); 2].map(|()| start(test, [path.to_str().unwrap(), &cookie]));
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    let n = text(send(&app, "/read", &cookie).await).await;
    assert_eq!(n, (1 + 2 * 64).to_string());
}

async fn count_to_64(path: &Path, cookie: &str) {
    let app = app(SqliteStore::open(path).unwrap());
    let mut requests = JoinSet::new();
    for _ in 0..64 {
        let (app, cookie) = (app.clone(), cookie.to_owned());
        requests.spawn(async move { send(&app, "/", &cookie).await.status() });
    }
    let statuses = requests.join_all().await;
    assert_eq!(statuses, [StatusCode::OK; 64]);
}

/// S-59.
#[tokio::test(flavor = "multi_thread")]
async fn sign_ins_through_two_stores_on_a_file_keep_the_limit() {
    let path = database();
    let stores = [(); 2].map(|()| SqliteStore::open(&path).unwrap());
    let mut admission = Admission::new(NOW);
    let three = NonZeroUsize::new(3).unwrap();
    admission.limit = Some(OwnerLimit::new(three, WhenFull::Refuse));
    let mut sign_ins = JoinSet::new();
    for store in stores.iter().cycle().take(50) {
        let store = store.clone();
        sign_ins.spawn(async move {
            let id = random_id();
            let ada = record(Some("ada"));
            match store.sign_in(id, &ada, None, admission, NOW).await.unwrap() {
                SignIn::Done => Some(id),
                refused => {
                    assert_eq!(refused, SignIn::Full);
                    None
                }
            }
        });
    }
    let done: HashSet<_> = sign_ins.join_all().await.into_iter().flatten().collect();
    assert_eq!(done.len(), 3);
    let listed = stores[0].list_by_owner("ada", NOW).await.unwrap();
    let listed: HashSet<_> = listed.into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, done);
}
