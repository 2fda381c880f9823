//! Redis servers that the tests start themselves.
#![allow(dead_code)]

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use redis::Commands as _;

const MISSING: &str = "the Redis tests start a server: install `redis-server` (Debian: \
                       `apt-get install redis-server`; elsewhere the package `redis` or `valkey`, with \
                       `redis-server` in the path; or a program that `REDIS_SERVER` names) and `setpriv` \
                       (package `util-linux`)";

/// A server on a port of its own, with an empty database in an own folder. It ends when this is
/// dropped, and with the test process in any case.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    /// The port for TLS, if the settings name a certificate.
    pub(crate) tls_port: Option<u16>,
    folder: PathBuf,
    arguments: Vec<String>,
    pid: Mutex<Option<u32>>,
}

impl RedisServer {
    /// The server that all tests share which do it no harm.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<RedisServer> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(&[]))
    }

    /// A server for one test, with further settings such as `--maxmemory 8mb`.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_at(free_port, arguments)
    }

    /// A node of a cluster, whose other port is higher by 10 000.
    pub(crate) fn start_node(arguments: &[&str]) -> Self {
        Self::start_at(free_ports, arguments)
    }

    fn start_at(port: fn() -> u16, arguments: &[&str]) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folders = Path::new(env!("CARGO_TARGET_TMPDIR")).join("redis");
        if n == 0 {
            remove_left_behind(&folders);
        }
        let folder = folders.join(format!("{}-{n}", std::process::id()));
        let mut log = String::new();
        // Another process may take the port between the two: then another one is tried.
        for _ in 0..5 {
            fs::create_dir_all(&folder).expect("the target folder can be written");
            let server = Self {
                port: port(),
                tls_port: arguments.contains(&"--tls-cert-file").then(port),
                folder: folder.clone(),
                arguments: arguments.iter().map(ToString::to_string).collect(),
                pid: Mutex::new(None),
            };
            if server.run() {
                return server;
            }
            log = fs::read_to_string(folder.join("log")).unwrap_or_default();
        }
        panic!("no Redis server answers; its log:\n{log}\n{MISSING}");
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A connection to look behind the store's back.
    pub(crate) fn connection(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("the URL is one");
        client.get_connection().expect("the server answers")
    }

    /// Kills the server; what it holds is lost unless it was told to save it.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid.lock().expect("no panic").take() {
            signal("KILL", pid);
            let gone = Instant::now() + Duration::from_secs(10);
            while Path::new(&format!("/proc/{pid}")).exists() && Instant::now() < gone {
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Starts the server again, on the same port.
    pub(crate) fn restart(&self) {
        self.kill();
        let again = (0..50).any(|_| self.run());
        assert!(again, "the server does not start again");
    }

    /// Stops the server's process until [`wake`](Self::wake); connections stay open.
    pub(crate) fn pause(&self) {
        let pid = self.pid.lock().expect("no panic").expect("it runs");
        signal("STOP", pid);
        // It takes effect a little later than it is sent.
        let halted = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(10));
            state(pid).starts_with('T')
        });
        assert!(halted, "the server does not stop");
    }

    pub(crate) fn wake(&self) {
        signal("CONT", self.pid.lock().expect("no panic").expect("it runs"));
    }

    /// Whether a server runs and answers.
    fn run(&self) -> bool {
        let mut command = Command::new("setpriv");
        let log = fs::File::create(self.folder.join("log")).expect("the folder can be written");
        command
            .args(["--pdeathsig", "KILL", &program()])
            .args(["--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .args(["--dir", self.folder.to_str().expect("UTF-8")])
            .args(self.tls_port.map(|_| "--tls-port"))
            .args(self.tls_port.map(|port| port.to_string()))
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("the log can be shared"))
            .stdout(log);
        let pid = keep(command);
        *self.pid.lock().expect("no panic") = Some(pid);
        let client = redis::Client::open(self.url()).expect("the URL is one");
        let give_up = Instant::now() + Duration::from_secs(10);
        while Instant::now() < give_up && Path::new(&format!("/proc/{pid}")).exists() {
            if let Ok(mut connection) = client.get_connection()
                && connection.ping::<String>().is_ok()
                && redis::cmd("INFO")
                    .query::<String>(&mut connection)
                    .is_ok_and(|info| info.contains(&format!("process_id:{pid}\r\n")))
            {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
        false
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the folders of test processes that are over.
fn remove_left_behind(folders: &Path) {
    for folder in fs::read_dir(folders).into_iter().flatten().flatten() {
        let name = folder.file_name().into_string().unwrap_or_default();
        if let Some((pid, _)) = name.split_once('-')
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(folder.path());
        }
    }
}

/// Starts a process and keeps it until the test process ends. The kernel kills a process with the
/// thread that started it, so that is done by one which lives as long as all tests.
fn keep(command: Command) -> u32 {
    type Started = mpsc::SyncSender<std::io::Result<u32>>;
    static KEEPER: OnceLock<mpsc::Sender<(Command, Started)>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<(Command, Started)>();
        thread::spawn(move || {
            for (mut command, started) in receiver {
                let pid = command.spawn().map(|mut child| {
                    let pid = child.id();
                    thread::spawn(move || child.wait());
                    pid
                });
                let _ = started.send(pid);
            }
        });
        sender
    });
    let (started, pid) = mpsc::sync_channel(1);
    keeper.send((command, started)).expect("the keeper lives");
    let pid = pid.recv().expect("the keeper lives");
    pid.unwrap_or_else(|error| panic!("no server: {error}; {MISSING}"))
}

fn state(pid: u32) -> String {
    let ps = Command::new("ps")
        .args(["-o", "stat=", "-p", &pid.to_string()])
        .output();
    String::from_utf8_lossy(&ps.expect("`ps` can be run").stdout).into_owned()
}

fn signal(signal: &str, pid: u32) {
    let _ = Command::new("kill")
        .args([format!("-{signal}"), pid.to_string()])
        .status();
}

fn program() -> String {
    std::env::var("REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned())
}

fn free_ports() -> u16 {
    loop {
        let mut bytes = [0; 2];
        getrandom::fill(&mut bytes).expect("there is entropy");
        // Below those that connections are given.
        let port = 10_000 + u16::from_be_bytes(bytes) % 12_000;
        let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free(port) && is_free(port + 10_000) {
            return port;
        }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
