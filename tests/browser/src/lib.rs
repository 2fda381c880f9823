//! A browser and a shop, for tests: both are real processes, which end with the test.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

const MISSING: &str = "the browser tests start a browser: install Chromium and its driver (Debian: \
                       `apt-get install chromium chromium-driver`), with `chromium` and \
                       `chromedriver` in the path";

const PATIENCE: Duration = Duration::from_secs(60);

/// A process and those that it started; they end when this is dropped.
struct Group(Child);

impl Group {
    fn start(command: &mut Command, missing: &str) -> Self {
        // A group of its own, so that the browsers of the driver end with it.
        let child = command.process_group(0).stdin(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}; {missing}")))
    }

    fn kill(&mut self) {
        let group = format!("-{}", self.0.id());
        // It may have ended by itself.
        let _ = Command::new("kill")
            .args(["-KILL", "--", &group])
            .stderr(Stdio::null())
            .status();
        let _ = self.0.wait();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// A driver, which starts browsers: each has cookies of its own.
pub struct Driver {
    url: String,
    _group: Group,
}

impl Driver {
    pub async fn start() -> Self {
        // Another process may take the port in between: then another one is tried.
        for _ in 0..5 {
            let port = free_port();
            let mut command = Command::new("chromedriver");
            command
                .arg(format!("--port={port}"))
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            let mut group = Group::start(&mut command, MISSING);
            let end = Instant::now() + PATIENCE;
            while group.0.try_wait().is_ok_and(|status| status.is_none()) && Instant::now() < end {
                if tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                    .await
                    .is_ok()
                {
                    let url = format!("http://127.0.0.1:{port}");
                    return Self { url, _group: group };
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        panic!("chromedriver does not answer; {MISSING}");
    }

    pub async fn browser(&self) -> Browser {
        self.browser_with(json!({})).await
    }

    /// A browser in which scripts do not run.
    pub async fn browser_without_scripts(&self) -> Browser {
        self.browser_with(json!({ "profile.managed_default_content_settings.javascript": 2 }))
            .await
    }

    async fn browser_with(&self, preferences: Value) -> Browser {
        let options = json!({
            "binary": chromium(),
            // It runs as root in a container; what it opens are pages of this test.
            "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,900"],
            "prefs": preferences,
        });
        let mut wanted = serde_json::Map::new();
        wanted.insert("goog:chromeOptions".to_owned(), options);
        let mut builder = ClientBuilder::new(HttpConnector::new());
        let client = builder.capabilities(wanted).connect(&self.url).await;
        Browser(client.unwrap_or_else(|error| panic!("no browser starts: {error}; {MISSING}")))
    }
}

/// Chrome is fine as well.
fn chromium() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .filter(|file| file.is_file());
    found
        .next()
        .unwrap_or_else(|| panic!("no Chromium; {MISSING}"))
}

/// What somebody does with a browser.
pub struct Browser(pub Client);

impl Browser {
    pub async fn open(&self, url: &str) {
        self.0
            .goto(url)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    pub async fn find(&self, css: &str) -> Element {
        match self.0.find(Locator::Css(css)).await {
            Ok(element) => element,
            Err(error) => panic!("{css}: {error}\n{}", self.text().await),
        }
    }

    pub async fn count(&self, css: &str) -> usize {
        self.0
            .find_all(Locator::Css(css))
            .await
            .expect("the browser answers")
            .len()
    }

    /// Clicks, and waits for the page that this leads to.
    pub async fn follow(&self, css: &str) {
        let page = self.find("html").await;
        self.find(css)
            .await
            .click()
            .await
            .unwrap_or_else(|error| panic!("{css}: {error}"));
        self.leave(&page).await;
    }

    /// Waits until another page has taken the place of this one, and is complete.
    pub async fn leave(&self, page: &Element) {
        let end = Instant::now() + PATIENCE;
        while page.tag_name().await.is_ok() {
            assert!(
                Instant::now() < end,
                "no other page comes:\n{}",
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.until("document.readyState === 'complete'").await;
    }

    /// Waits until an expression is true.
    pub async fn until(&self, expression: &str) {
        let end = Instant::now() + PATIENCE;
        let script = format!("return {expression}");
        while self.0.execute(&script, vec![]).await.ok() != Some(Value::Bool(true)) {
            assert!(
                Instant::now() < end,
                "{expression} is not true:\n{}",
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn run(&self, script: &str) -> Value {
        let result = self.0.execute(script, vec![]).await;
        result.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Types into a field what it shall hold.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        field.clear().await.expect("it is a field");
        field.send_keys(text).await.expect("it takes keys");
    }

    /// What the page says.
    pub async fn text(&self) -> String {
        let text = self
            .0
            .execute("return document.body.innerText", vec![])
            .await;
        text.ok()
            .and_then(|text| text.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Waits until the page says so.
    pub async fn shows(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            let page = self.text().await;
            if page.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "{text:?} is not in:\n{page}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the page's markup holds this; needs no scripts in the page.
    pub async fn source_has(&self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            // In the middle of a change of pages there is none.
            let source = self.0.source().await.unwrap_or_default();
            if source.contains(text) {
                return;
            }
            assert!(Instant::now() < end, "{text:?} is not in:\n{source}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn hides(&self, text: &str) {
        let page = self.text().await;
        assert!(!page.contains(text), "{text:?} is in:\n{page}");
    }

    pub async fn path(&self) -> String {
        self.0
            .current_url()
            .await
            .expect("there is a page")
            .path()
            .to_owned()
    }

    /// The cookie, if the browser keeps one for this page.
    pub async fn cookie(&self, name: &str) -> Option<fantoccini::cookies::Cookie<'static>> {
        let cookies = self.0.get_all_cookies().await.expect("the browser answers");
        cookies.into_iter().find(|cookie| cookie.name() == name)
    }

    pub async fn close(self) {
        self.0.close().await.expect("the browser closes");
    }
}

/// The shopping cart as its users run it.
pub struct Shop {
    pub url: String,
    group: Group,
}

impl Shop {
    pub fn start(store: &str) -> Self {
        Self::start_at(0, store)
    }

    pub fn start_at(port: u16, store: &str) -> Self {
        let mut command = Command::new(program());
        command.args(["--port", &port.to_string(), "--store", store]);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut group = Group::start(&mut command, "the example was built a moment ago");
        let output = group.0.stdout.take().expect("it is piped");
        let mut url = String::new();
        BufReader::new(output)
            .read_line(&mut url)
            .expect("the shop says its address");
        let url = url.trim().to_owned();
        assert!(
            url.starts_with("http://"),
            "the shop does not start: {url:?}"
        );
        Self { url, group }
    }

    pub fn page(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub fn port(&self) -> u16 {
        let port = self
            .url
            .rsplit(':')
            .next()
            .and_then(|port| port.parse().ok());
        port.expect("the address has a port")
    }

    /// Ends it without a warning.
    pub fn kill(&mut self) {
        self.group.kill();
    }

    /// Asks it to stop, as Ctrl-C does; whether it then ended well.
    pub fn stop(&mut self) -> bool {
        let pid = self.group.0.id().to_string();
        Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .expect("`kill` is there");
        let end = Instant::now() + PATIENCE;
        loop {
            match self.group.0.try_wait().expect("it is our child") {
                Some(status) => return status.success(),
                None => assert!(Instant::now() < end, "the shop does not stop"),
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Builds the example once.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");
        let output = Command::new(env!("CARGO"))
            .args([
                "build",
                "--example",
                "shopping_cart",
                "--features",
                "postgres,redis,sqlite",
            ])
            .args([
                "--manifest-path",
                manifest,
                "--message-format",
                "json-render-diagnostics",
            ])
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo is there");
        assert!(output.status.success(), "the shop does not build");
        let lines = output.stdout.split(|byte| *byte == b'\n');
        let messages = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let programs = messages.filter(|message| message["target"]["name"] == "shopping_cart");
        let mut paths =
            programs.filter_map(|message| message["executable"].as_str().map(PathBuf::from));
        paths.next().expect("cargo names the program")
    })
}
