//! A MariaDB server for tests: its own data in a folder of its own, on a free port of this machine.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Looks after the server, and does what the lines on its standard input say: `start`, maybe with one more
/// option, `kill`, `pause`, `wake`. When that ends, because the test process did, however it did, the server and its folder are
/// gone.
///
/// `$1`: the port; then further options of the server.
const KEEPER: &str = r#"
# To answer a test process that has gone must not end the keeper before it has tidied up.
trap '' INT TERM HUP PIPE
export LC_ALL=C PATH="$PATH:/usr/sbin:/usr/local/sbin"
cd / && umask 077 && home=$(mktemp -dt cloakroom-mysql.XXXXXX) || exit 1
port=$1
shift
pid=
down() {
    [ -n "$pid" ] && kill -KILL "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
    pid=
}
fail() {
    down
    tr '\n' ' ' <"$home/log"
    echo
    rm -rf "$home"
    exit 1
}
up() {
    mariadbd --no-defaults --datadir="$home/data" --socket="$home/socket" --port="$port" \
        --pid-file="$home/pid" --bind-address=127.0.0.1 --skip-name-resolve \
        --innodb-flush-log-at-trx-commit=2 --innodb-buffer-pool-size=64M \
        --max-connections=300 "$@" >>"$home/log" 2>&1 </dev/null &
    pid=$!
    tries=0
    until mariadb-admin --no-defaults --user=root --socket="$home/socket" ping >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null && [ $((tries += 1)) -lt 600 ] || fail
        sleep 0.05
    done
    echo up
}
mariadb-install-db --no-defaults --datadir="$home/data" --skip-test-db \
    --auth-root-authentication-method=normal >"$home/log" 2>&1 </dev/null || fail
while read -r command option; do
    case $command in
        start) up "$@" $option ;;
        kill) down; echo down ;;
        pause) kill -STOP "$pid"; echo paused ;;
        wake) kill -CONT "$pid"; echo up ;;
    esac
done
down
rm -rf "$home"
"#;

const MISSING: &str = "these tests start a MariaDB server: install it with `apt-get install \
                       mariadb-server` (Debian, Ubuntu) or `brew install mariadb` (macOS), so that \
                       `mariadbd`, `mariadb-install-db` and `mariadb-admin` are in the PATH or in \
                       /usr/sbin";

/// A running server. It ends with this value, and with the test process in any case.
pub(crate) struct MysqlServer {
    port: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl MysqlServer {
    /// Starts a server with further options, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// It is not installed, or does not start.
    pub(crate) fn start(options: &[&str]) -> Self {
        let mut why = String::new();
        // Somebody else may take the port before the server does.
        for _ in 0..3 {
            let server = Self::keep(free_port(), options);
            match server.say("start") {
                Ok(()) => return server,
                Err(log) => why = log,
            }
        }
        panic!("MariaDB does not start: {why}\n{MISSING}");
    }

    fn keep(port: u16, options: &[&str]) -> Self {
        let mut process = command();
        process
            .args(["-c", KEEPER, "keeper", &port.to_string()])
            .args(options);
        let process = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("a shell can be started");
        let commands = process.stdin.take();
        let answers = process.stdout.take().expect("it is piped");
        Self {
            port,
            keeper: Mutex::new(Keeper {
                process,
                commands,
                answers: BufReader::new(answers),
            }),
        }
    }

    /// The URL of its database, for the user who may do everything.
    pub(crate) fn url(&self) -> String {
        url(self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server at once, as a crash does. What it acknowledged is there after the next start.
    pub(crate) fn kill(&self) {
        self.say("kill").expect("the server ends");
    }

    /// Starts the server again, on the same port.
    pub(crate) fn start_again(&self) {
        self.say("start").expect("the server starts again");
    }

    /// The same with another option, in place of what it was started with at first.
    pub(crate) fn start_again_with(&self, option: &str) {
        let start = format!("start {option}");
        self.say(&start).expect("the server starts again");
    }

    /// Stops the server's process until [`wake`](Self::wake); connections stay open.
    pub(crate) fn pause(&self) {
        self.say("pause").expect("the server stops");
    }

    pub(crate) fn wake(&self) {
        self.say("wake").expect("the server goes on");
    }

    fn say(&self, command: &str) -> Result<(), String> {
        let mut keeper = self.lock();
        let commands = keeper.commands.as_mut().expect("open until it is dropped");
        // If the keeper has ended, it says why.
        let _ = writeln!(commands, "{command}");
        let mut answer = String::new();
        keeper
            .answers
            .read_line(&mut answer)
            .expect("the keeper writes text");
        match answer.trim() {
            "up" | "down" | "paused" => Ok(()),
            log => Err(log.to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Keeper> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for MysqlServer {
    fn drop(&mut self) {
        let mut keeper = self.lock();
        keeper.commands = None;
        let _ = keeper.process.wait();
    }
}

/// The URL of the database behind a port of this machine.
pub(crate) fn url(port: u16) -> String {
    format!("mysql://root@127.0.0.1:{port}/mysql")
}

/// A shell as a user under which the server runs: it refuses to be root.
fn command() -> Command {
    let uid = Command::new("id")
        .arg("-u")
        .output()
        .expect("`id` can be run");
    if uid.stdout.trim_ascii() != b"0" {
        return Command::new("sh");
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=mysql", "--regid=mysql", "--clear-groups", "sh"]);
    command
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
