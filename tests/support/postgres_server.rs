//! A PostgreSQL server for tests: its own data in a folder of its own, on a free port of this machine.
#![allow(dead_code)]

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Looks after the server, and does what the lines on its standard input say: `start`, `kill`, `pause`,
/// `wake`. When that ends, because the test process did, however it did, the server and its folder are
/// gone.
///
/// `$1`: the folder of the server's programs, `$2`: the port, `$3`: how large its files get, in blocks of
/// 512 bytes.
const KEEPER: &str = r#"
# To answer a test process that has gone must not end the keeper before it has tidied up.
trap '' INT TERM HUP PIPE
export LC_ALL=C
cd / && umask 077 && home=$(mktemp -dt cloakroom-postgres.XXXXXX) || exit 1
pid=
# To the server and the processes that it has started, each of which has a process group of its own.
signal() {
    kill "-$1" "$pid" $(ps -A -o pid= -o ppid= | awk -v pid="$pid" '$2 == pid { print $1 }')
}
down() {
    [ -n "$pid" ] && signal CONT 2>/dev/null
    [ -n "$pid" ] && kill -QUIT "$pid" 2>/dev/null && wait "$pid"
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
    ulimit -S -f "$3"
    "$1/postgres" -D "$home/data" -k "$home" -p "$2" -c listen_addresses=127.0.0.1 \
        -c fsync=off -c full_page_writes=off -c max_connections=300 \
        >>"$home/log" 2>&1 </dev/null &
    pid=$!
    tries=0
    until "$1/pg_isready" -q -h 127.0.0.1 -p "$2" -U test; do
        kill -0 "$pid" 2>/dev/null && [ $((tries += 1)) -lt 600 ] || fail
        sleep 0.05
    done
    echo up
}
"$1/initdb" -D "$home/data" -U test --auth=trust --encoding=UTF8 --locale=C --no-sync --wal-segsize=1 \
    >"$home/log" 2>&1 </dev/null || fail
# One role has to say a password.
{ echo "host all locked 127.0.0.1/32 scram-sha-256"; cat "$home/data/pg_hba.conf"; } >"$home/hba"
mv "$home/hba" "$home/data/pg_hba.conf"
while read -r command; do
    case $command in
        start) up "$@" ;;
        kill) down; echo down ;;
        pause) signal STOP; echo paused ;;
        wake) signal CONT; echo up ;;
    esac
done
down
rm -rf "$home"
"#;

/// A running server. It ends with this value, and with the test process in any case.
pub(crate) struct PostgresServer {
    port: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl PostgresServer {
    /// Starts a server, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// It is not installed, or does not start.
    pub(crate) fn start() -> Self {
        Self::with_files_of("unlimited")
    }

    /// Starts a server on a disk that is soon full: no file gets larger than four megabytes.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub(crate) fn start_small() -> Self {
        Self::with_files_of("8192")
    }

    fn with_files_of(blocks: &str) -> Self {
        let programs = programs();
        let mut why = String::new();
        // Somebody else may take the port before the server does.
        for _ in 0..3 {
            let server = Self::keep(&programs, free_port(), blocks);
            match server.say("start") {
                Ok(()) => return server,
                Err(log) => why = log,
            }
        }
        panic!("PostgreSQL in {programs:?} does not start: {why}");
    }

    fn keep(programs: &PathBuf, port: u16, blocks: &str) -> Self {
        let mut process = command();
        process
            .args(["-c", KEEPER, "keeper"])
            .arg(programs)
            .args([&port.to_string(), blocks]);
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

    /// The URL of its database.
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

    /// Stops the server from doing anything, without its clients noticing.
    pub(crate) fn pause(&self) {
        self.say("pause").expect("the server can be paused");
    }

    /// Lets it go on.
    pub(crate) fn wake(&self) {
        self.say("wake").expect("the server can go on");
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

impl Drop for PostgresServer {
    fn drop(&mut self) {
        let mut keeper = self.lock();
        keeper.commands = None;
        let _ = keeper.process.wait();
    }
}

/// The URL of the database behind a port of this machine.
pub(crate) fn url(port: u16) -> String {
    format!("postgres://test@127.0.0.1:{port}/postgres")
}

/// A shell as a user under which the server runs: it refuses to be root.
pub(crate) fn command() -> Command {
    let uid = Command::new("id")
        .arg("-u")
        .output()
        .expect("`id` can be run");
    if uid.stdout.trim_ascii() != b"0" {
        return Command::new("sh");
    }
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=postgres",
        "--regid=postgres",
        "--clear-groups",
        "sh",
    ]);
    command
}

/// The folder of `initdb` and `postgres`, the latest version if there are several.
fn programs() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut folders: Vec<_> = debian
        .filter_map(|entry| {
            let version = entry.ok()?.path();
            let number: u32 = version.file_name()?.to_str()?.parse().ok()?;
            Some((number, version.join("bin")))
        })
        .collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(folders.into_iter().rev().map(|(_, f)| f));
    folders
        .find(|folder| {
            let is_there = |program| folder.join(program).is_file();
            ["initdb", "postgres", "pg_isready"].into_iter().all(is_there)
        })
        .expect(
            "these tests need a PostgreSQL server, which they start themselves: install it with \
             `apt-get install postgresql` (Debian, Ubuntu) or `brew install postgresql` (macOS), so \
             that `initdb` and `postgres` are in /usr/lib/postgresql/*/bin or in the PATH",
        )
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
