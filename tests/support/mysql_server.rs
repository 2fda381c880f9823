//! A MariaDB server for tests.
#![allow(dead_code)]

use std::ops::Deref;

use super::server::Server;

/// After the port come further options of the server.
const SPECIAL: &str = r#"
crash=KILL
prepare() {
    mariadb-install-db --no-defaults --datadir="$home/data" --skip-test-db \
        --auth-root-authentication-method=normal
}
serve() {
    port=$1
    shift
    exec mariadbd --no-defaults --datadir="$home/data" --socket="$home/socket" --port="$port" \
        --pid-file="$home/pid" --bind-address=127.0.0.1 --skip-name-resolve \
        --innodb-flush-log-at-trx-commit=2 --innodb-buffer-pool-size=64M \
        --max-connections=300 "$@"
}
ready() {
    mariadb-admin --no-defaults --user=root --socket="$home/socket" ping
}
"#;

const MISSING: &str = "these tests start a MariaDB server: install it with `apt-get install \
                       mariadb-server` (Debian, Ubuntu) or `brew install mariadb` (macOS), so that \
                       `mariadbd`, `mariadb-install-db` and `mariadb-admin` are in the PATH or in \
                       /usr/sbin";

/// A running server. It ends with this value, and with the test process in any case.
pub(crate) struct MysqlServer(Server);

impl MysqlServer {
    /// Starts a server with further options, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// It is not installed, or does not start.
    pub(crate) fn start(options: &[&str]) -> Self {
        let server = Server::start("mysql", SPECIAL, options);
        Self(server.unwrap_or_else(|why| panic!("MariaDB does not start: {why}\n{MISSING}")))
    }

    /// The URL of its database, for the user who may do everything.
    pub(crate) fn url(&self) -> String {
        url(self.port())
    }
}

impl Deref for MysqlServer {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.0
    }
}

/// The URL of the database behind a port of this machine.
pub(crate) fn url(port: u16) -> String {
    format!("mysql://root@127.0.0.1:{port}/mysql")
}
