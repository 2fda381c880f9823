//! What servers for tests have in common: each has its data in a folder of its own, is on a free port of
//! this machine, and is looked after by a shell which outlives the test process.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Does what the lines on its standard input say: `start`, maybe with one more argument, `kill`, `pause`,
/// `wake`. When that ends, because the test process did, however it did, the server and its folder are
/// gone.
///
/// It comes after what is special about a server: how to `prepare` the folder `$home`, how to `serve` by
/// replacing the shell, how to see that it is `ready`, and which signal is a `crash`. `$1` is the port.
const KEEPER: &str = r#"
# To answer a test process that has gone must not end the keeper before it has tidied up.
trap '' INT TERM HUP PIPE
export LC_ALL=C PATH="$PATH:/usr/sbin:/usr/local/sbin"
cd / && umask 077 && home=$(mktemp -dt cloakroom-server.XXXXXX) || exit 1
# MariaDB tidies up the folder for temporary files when it starts: also those of other servers.
export TMPDIR="$home"
pid=
# The server and those that it has started, each of which may have a process group of its own.
processes() {
    echo "$pid" $(ps -A -o pid= -o ppid= | awk -v pid="$pid" '$2 == pid { print $1 }')
}
signal() {
    kill "-$1" $(processes)
}
# A signal takes effect in each thread a little later than it is sent.
halt() {
    signal STOP
    tries=0
    while ps -L -o stat= -p "$(processes | tr ' ' ,)" | grep -qv '^T'; do
        [ $((tries += 1)) -lt 500 ] || break
        sleep 0.01
    done
}
down() {
    [ -n "$pid" ] && signal CONT 2>/dev/null
    [ -n "$pid" ] && kill "-$crash" "$pid" 2>/dev/null && wait "$pid" 2>/dev/null
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
    serve "$@" >>"$home/log" 2>&1 </dev/null &
    pid=$!
    tries=0
    until ready "$@" >/dev/null 2>&1; do
        kill -0 "$pid" 2>/dev/null && [ $((tries += 1)) -lt 600 ] || fail
        sleep 0.05
    done
    echo up
}
prepare "$@" >"$home/log" 2>&1 </dev/null || fail
while read -r command argument; do
    case $command in
        start) up "$@" $argument ;;
        kill) down; echo down ;;
        pause) halt; echo paused ;;
        wake) signal CONT; echo up ;;
    esac
done
down
rm -rf "$home"
"#;

/// A running server. It ends with this value, and with the test process in any case.
pub(crate) struct Server {
    port: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    process: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Server {
    /// Starts a server that refuses to be root, as `user` in that case, and waits until it is ready; or
    /// what it says for why it does not start.
    ///
    /// `special` and `arguments` are those of [`KEEPER`].
    pub(crate) fn start(user: &str, special: &str, arguments: &[&str]) -> Result<Self, String> {
        let mut why = String::new();
        // Somebody else may take the port before the server does.
        for _ in 0..3 {
            let server = Self::keep(user, special, arguments);
            match server.say("start") {
                Ok(()) => return Ok(server),
                Err(log) => why = log,
            }
        }
        Err(why)
    }

    fn keep(user: &str, special: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let mut process = shell(user)
            .args(["-c", &format!("{special}{KEEPER}"), "keeper"])
            .arg(port.to_string())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell can be started");
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

    /// The same with one more argument, this time.
    pub(crate) fn start_again_with(&self, argument: &str) {
        let start = format!("start {argument}");
        self.say(&start).expect("the server starts again");
    }

    /// Stops the server from doing anything until [`wake`](Self::wake), without its clients noticing.
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

impl Drop for Server {
    fn drop(&mut self) {
        let mut keeper = self.lock();
        keeper.commands = None;
        let _ = keeper.process.wait();
    }
}

/// A shell that is not root, but this user if the tests are.
pub(crate) fn shell(user: &str) -> Command {
    let uid = Command::new("id")
        .arg("-u")
        .output()
        .expect("`id` can be run");
    if uid.stdout.trim_ascii() != b"0" {
        return Command::new("sh");
    }
    let mut command = Command::new("setpriv");
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    command.args([&uid, &gid, "--clear-groups", "sh"]);
    command
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
