//! A PostgreSQL server for tests.
#![allow(dead_code)]

use std::fs;
use std::ops::Deref;
use std::path::PathBuf;

use super::server::Server;

/// After the port come the folder of the server's programs, and how large its files get, in blocks of 512
/// bytes.
const SPECIAL: &str = r#"
crash=QUIT
prepare() {
    "$2/initdb" -D "$home/data" -U test --auth=trust --encoding=UTF8 --locale=C --no-sync \
        --wal-segsize=1 || return
    # One role has to say a password.
    { echo "host all locked 127.0.0.1/32 scram-sha-256"; cat "$home/data/pg_hba.conf"; } >"$home/hba"
    mv "$home/hba" "$home/data/pg_hba.conf"
}
serve() {
    ulimit -S -f "$3"
    exec "$2/postgres" -D "$home/data" -k "$home" -p "$1" -c listen_addresses=127.0.0.1 \
        -c fsync=off -c full_page_writes=off -c max_connections=300
}
ready() {
    "$2/pg_isready" -q -h 127.0.0.1 -p "$1" -U test
}
"#;

/// A running server. It ends with this value, and with the test process in any case.
pub(crate) struct PostgresServer(Server);

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
        let arguments = [programs.to_str().expect("UTF-8"), blocks];
        let server = Server::start("postgres", SPECIAL, &arguments);
        Self(
            server.unwrap_or_else(|why| panic!("PostgreSQL in {programs:?} does not start: {why}")),
        )
    }

    /// The URL of its database.
    pub(crate) fn url(&self) -> String {
        url(self.port())
    }
}

impl Deref for PostgresServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

/// The URL of the database behind a port of this machine.
pub(crate) fn url(port: u16) -> String {
    format!("postgres://test@127.0.0.1:{port}/postgres")
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
