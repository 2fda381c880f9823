//! A caching proxy that a test starts itself.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MISSING: &str = "this test starts a caching proxy: install `nginx` (Debian: `apt-get install \
                       nginx-light`) and `setpriv` (package `util-linux`)";

/// nginx with its cache in an own folder, on a port of its own. It ends when this is dropped, and with
/// the thread that started it in any case.
pub(crate) struct Nginx {
    pub(crate) port: u16,
    folder: PathBuf,
    process: Option<Child>,
}

impl Nginx {
    /// In front of the server on port `upstream`, with further settings for its cache.
    pub(crate) fn start(upstream: u16, settings: &str) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = folder.join(format!("nginx-{}-{n}", std::process::id()));
        fs::create_dir_all(&folder).expect("the target folder can be written");
        let mut nginx = Self {
            port: 0,
            folder,
            process: None,
        };
        // Another process may take the port between the two: then another one is tried.
        for _ in 0..5 {
            nginx.port = free_port();
            if nginx.run(upstream, settings) {
                return nginx;
            }
        }
        let log = fs::read_to_string(nginx.folder.join("log")).unwrap_or_default();
        panic!("no nginx answers; its log:\n{log}\n{MISSING}");
    }

    fn run(&mut self, upstream: u16, settings: &str) -> bool {
        self.stop();
        let (port, folder) = (self.port, self.folder.to_str().expect("UTF-8"));
        let config = format!(
            "daemon off; master_process off; pid {folder}/pid; error_log {folder}/log;
            events {{}}
            http {{
                access_log off;
                client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
                fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
                scgi_temp_path {folder}/scgi;
                proxy_cache_path {folder}/cache keys_zone=pages:1m;
                server {{
                    listen 127.0.0.1:{port};
                    location / {{
                        proxy_pass http://127.0.0.1:{upstream};
                        proxy_cache pages;
                        proxy_cache_key $uri;
                        add_header X-Cache $upstream_cache_status;
                        {settings}
                    }}
                }}
            }}"
        );
        fs::write(self.folder.join("conf"), config).expect("the folder can be written");
        let process = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nginx"])
            .args(["-e", &format!("{folder}/log"), "-p", folder])
            .args(["-c", &format!("{folder}/conf")])
            // Debian keeps it where only root looks.
            .env(
                "PATH",
                std::env::var("PATH").unwrap_or_default() + ":/usr/sbin",
            )
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let process = process.unwrap_or_else(|error| panic!("no nginx: {error}; {MISSING}"));
        let process = self.process.insert(process);
        let give_up = Instant::now() + Duration::from_secs(20);
        while Instant::now() < give_up && process.try_wait().is_ok_and(|ended| ended.is_none()) {
            if TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok() {
                // It may be another process that answers, while ours gives up on the port.
                thread::sleep(Duration::from_millis(50));
                return process.try_wait().is_ok_and(|ended| ended.is_none());
            }
            thread::sleep(Duration::from_millis(5));
        }
        false
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
