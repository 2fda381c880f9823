//! Another process of the application: a test starts its own binary again, with that test alone. An
//! environment variable tells the other one its part, and the two talk over its standard streams.
#![allow(dead_code)]

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const PART: &str = "CLOAKROOM_TEST_PART";

/// The other process, which ends with this value.
pub(crate) struct Other {
    process: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
}

impl Other {
    /// Starts the test in another process, which gets the lines of `part`.
    pub(crate) fn start(test: &str, part: &[&str]) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), test, part)
    }

    /// The same, with files of no more than so many blocks of 512 bytes, until
    /// [`lift_limit`](Self::lift_limit).
    pub(crate) fn start_limited(blocks: u32, test: &str, part: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        // A write beyond the limit is to fail, and not to end the process.
        let limit = format!("trap '' XFSZ; ulimit -S -f {blocks}; exec \"$0\" \"$@\"");
        shell.args(["-c", &limit]);
        shell.arg(std::env::current_exe().unwrap());
        Self::spawn(shell, test, part)
    }

    fn spawn(mut command: Command, test: &str, part: &[&str]) -> Self {
        let mut process = command
            .args(["--exact", "--nocapture", test])
            .env(PART, part.join("\n"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (process.stdin.take(), process.stdout.take());
        Self {
            process,
            to: to.unwrap(),
            from: BufReader::new(from.unwrap()),
        }
    }

    pub(crate) fn lift_limit(&self) {
        let pid = self.process.id().to_string();
        let lifted = Command::new("prlimit")
            .args(["--pid", &pid, "--fsize=unlimited:"])
            .status();
        let lifted = lifted.expect("`prlimit` can be run (in Debian's package `util-linux`)");
        assert!(lifted.success());
    }

    /// Waits until it says `word`; what it says about it.
    pub(crate) fn hear(&mut self, word: &str) -> String {
        let mut lines = String::new();
        loop {
            let before = lines.len();
            assert_ne!(self.from.read_line(&mut lines).unwrap(), 0, "{lines}");
            // The test harness leaves its own line open before.
            if let Some((_, rest)) = lines[before..].split_once(&format!("{word}:")) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Lets it go on.
    pub(crate) fn go(&mut self) {
        writeln!(self.to, "go").unwrap();
    }

    /// Waits for its end, which must be a success.
    pub(crate) fn end(mut self) {
        assert!(self.process.wait().unwrap().success());
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The part of the other process, if this is it.
pub(crate) fn part<const LINES: usize>() -> Option<[String; LINES]> {
    let part = std::env::var(PART).ok()?;
    let lines: Vec<_> = part.split('\n').map(str::to_owned).collect();
    Some(lines.try_into().unwrap())
}

/// Tells the process that started this one.
pub(crate) fn say(word: &str, rest: &str) {
    println!("{word}:{rest}");
}

/// Waits until that lets this one go on.
pub(crate) fn wait_for_go() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    assert_eq!(line, "go\n");
}
