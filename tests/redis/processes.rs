//! Processes that share a server or a cluster. Each test starts its own binary again to play the other
//! process, which an environment variable tells its part.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use axum::Router;
use axum::extract::Path;
use axum::routing::any;
use cloakroom::{AnyStore, Session, SessionLayer};
use http::StatusCode;
use http::header::SET_COOKIE;
use tokio::task::JoinSet;

use super::{RedisServer, cookie, routes, send, text, visitor};

const PART: &str = "CLOAKROOM_TEST_PART";

/// Another process that runs a test of this name.
struct Process {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Process {
    fn start(test: &str, part: [&str; 2]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", &format!("processes::{test}")])
            .env(PART, part.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self {
            child,
            to,
            from: BufReader::new(from),
        }
    }

    fn part() -> Option<(String, String)> {
        let part = std::env::var(PART).ok()?;
        let (url, cookie) = part.split_once('\n').unwrap();
        Some((url.to_owned(), cookie.to_owned()))
    }

    /// Waits until it says so.
    fn says(&mut self, what: &str) {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            assert_ne!(
                self.from.read_line(&mut line).unwrap(),
                0,
                "it never said {what:?}"
            );
        }
    }

    fn go_on(&mut self) {
        writeln!(self.to, "go on").unwrap();
    }

    fn succeeds(mut self) {
        let mut left = String::new();
        std::io::Read::read_to_string(&mut self.from, &mut left).unwrap();
        assert!(self.child.wait().unwrap().success(), "{left}");
    }
}

/// What the other process waits for.
async fn told_to_go_on() {
    let read = || std::io::stdin().read_line(&mut String::new()).unwrap();
    assert_ne!(tokio::task::spawn_blocking(read).await.unwrap(), 0);
}

/// The application of all processes: `/set/KEY` sets that key, `/keys` says how many are set; `/slow` loads the
/// session, says so, and writes when it is told to.
async fn app(url: &str) -> Router {
    let layer = SessionLayer::new(AnyStore::connect(url).await.unwrap());
    let set = async |Path(key): Path<String>, session: Session| session.insert(key, 1);
    let keys = async |session: Session| {
        let is_set = |n: &usize| matches!(session.get::<u8>(&format!("key-{n}")), Ok(Some(1)));
        (0..128).filter(is_set).count().to_string()
    };
    let slow = async |session: Session| {
        println!("loaded");
        told_to_go_on().await;
        session.insert("n", 1_000)
    };
    routes()
        .route("/set/{key}", any(set))
        .route("/keys", any(keys))
        .route("/slow", any(slow))
        .layer(layer)
}

async fn all_at_once(app: &Router, cookie: &str, paths: impl Iterator<Item = String>) {
    let mut requests = JoinSet::new();
    for path in paths {
        let (app, cookie) = (app.clone(), cookie.to_owned());
        requests.spawn(async move { send(&app, &path, &cookie).await.status() });
    }
    assert!(
        requests
            .join_all()
            .await
            .iter()
            .all(|status| *status == StatusCode::OK)
    );
}

/// Where the sessions of these tests lie: on a server, and on a cluster if there is that.
fn places() -> Vec<String> {
    let places = vec![RedisServer::shared().url()];
    #[cfg(feature = "redis-cluster")]
    let places = [
        places,
        vec![super::redis_cluster::RedisCluster::shared().url()],
    ]
    .concat();
    places
}

/// S-65.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_lose_no_count_and_no_key() {
    if let Some((url, what)) = Process::part() {
        let (cookie, first) = what.split_once(' ').unwrap();
        let first: usize = first.parse().unwrap();
        let app = app(&url).await;
        println!("ready");
        told_to_go_on().await;
        all_at_once(&app, cookie, (0..64).map(|_| "/".to_owned())).await;
        let keys = (first..128).step_by(2).map(|n| format!("/set/key-{n}"));
        return all_at_once(&app, cookie, keys).await;
    }
    for url in places() {
        let app = app(&url).await;
        let cookie = visitor(&app).await;
        let test = "two_processes_lose_no_count_and_no_key";
        let mut processes =
            [0, 1].map(|first| Process::start(test, [&url, &format!("{cookie} {first}")]));
        processes
            .iter_mut()
            .for_each(|process| process.says("ready"));
        processes.iter_mut().for_each(Process::go_on);
        processes.into_iter().for_each(Process::succeeds);
        assert_eq!(text(send(&app, "/read", &cookie).await).await, "129");
        assert_eq!(text(send(&app, "/keys", &cookie).await).await, "128");
    }
}

/// S-62, S-63.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_write_of_another_process_changes_nothing_after_a_sign_out_or_a_sign_in() {
    if let Some((url, cookie)) = Process::part() {
        let response = send(&app(&url).await, "/slow", &cookie).await;
        assert!(!response.headers().contains_key(SET_COOKIE));
        return;
    }
    for url in places() {
        let app = app(&url).await;
        let test = "a_slow_write_of_another_process_changes_nothing_after_a_sign_out_or_a_sign_in";
        let leaving = visitor(&app).await;
        let mut process = Process::start(test, [&url, &leaving]);
        process.says("loaded");
        assert_eq!(
            send(&app, "/logout", &leaving).await.status(),
            StatusCode::OK
        );
        process.go_on();
        process.succeeds();
        assert_eq!(text(send(&app, "/read", &leaving).await).await, "new");

        let arriving = visitor(&app).await;
        let mut process = Process::start(test, [&url, &arriving]);
        process.says("loaded");
        let signed_in = cookie(&send(&app, "/login", &arriving).await);
        process.go_on();
        process.succeeds();
        assert_eq!(text(send(&app, "/read", &signed_in).await).await, "1");
        assert_eq!(text(send(&app, "/read", &arriving).await).await, "new");
    }
}

/// S-76.
#[tokio::test]
async fn two_cookies_of_one_store_are_two_sessions() {
    for url in places() {
        let store = AnyStore::connect(&url).await.unwrap();
        let named = |name: &str| {
            let layer = SessionLayer::builder(store.clone()).cookie_name(name);
            routes().layer(layer.build().unwrap())
        };
        let (users, admins) = (named("__Host-user"), named("__Host-admin"));
        let user = visitor(&users).await;
        assert_eq!(text(send(&users, "/read", &user).await).await, "1");
        let forged = user.replace("__Host-user", "__Host-admin");
        assert_eq!(text(send(&admins, "/read", &forged).await).await, "new");
        assert_eq!(text(send(&users, "/read", &user).await).await, "1");
    }
}
