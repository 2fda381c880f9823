//! A PgBouncer for tests, which gives each transaction another server process of those that are free.

use std::io::Read as _;
use std::net::TcpStream;
use std::process::{Child, ChildStdin, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::server::{free_port, shell};

/// Looks after it until standard input ends, as it does with the test process.
///
/// `$1`: its port, `$2`: that of the server.
const KEEPER: &str = r#"
trap '' INT TERM HUP PIPE
cd / && umask 077 && home=$(mktemp -dt cloakroom-pgbouncer.XXXXXX) || exit 1
cat >"$home/ini" <<INI
[databases]
postgres = host=127.0.0.1 port=$2 user=test
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $1
unix_socket_dir =
auth_type = any
pool_mode = transaction
server_round_robin = 1
default_pool_size = 4
min_pool_size = 4
INI
PATH=$PATH:/usr/sbin:/usr/local/sbin
pgbouncer "$home/ini" >"$home/log" 2>&1 </dev/null &
pid=$!
cat >/dev/null
kill -INT "$pid" 2>/dev/null
wait "$pid" || cat "$home/log"
rm -rf "$home"
"#;

/// A running PgBouncer. It ends with this value, and with the test process in any case.
pub(crate) struct PgBouncer {
    pub(crate) port: u16,
    keeper: Child,
    alive: Option<ChildStdin>,
}

impl PgBouncer {
    /// Starts one before the server on this port, and waits until it listens.
    ///
    /// # Panics
    ///
    /// It is not installed, or does not start.
    pub(crate) fn start(server: u16) -> Self {
        let port = free_port();
        let mut keeper = shell("postgres")
            .args([
                "-c",
                KEEPER,
                "keeper",
                &port.to_string(),
                &server.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
        let alive = keeper.stdin.take();
        let mut this = Self {
            port,
            keeper,
            alive,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if Instant::now() > end {
                panic!(
                    "PgBouncer does not start; if it is missing, install it with `apt-get install \
                     pgbouncer` (Debian, Ubuntu) or `brew install pgbouncer` (macOS): {}",
                    this.stop()
                );
            }
            sleep(Duration::from_millis(20));
        }
        this
    }

    /// Ends it; what it said if it had failed.
    fn stop(&mut self) -> String {
        self.alive = None;
        let mut said = String::new();
        if let Some(mut output) = self.keeper.stdout.take() {
            let _ = output.read_to_string(&mut said);
        }
        let _ = self.keeper.wait();
        said
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.stop();
    }
}
