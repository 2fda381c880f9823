//! What can be wrong, and how to mend it.

use std::error::Error as StdError;
use std::fmt;

use tokio_postgres::error::{DbError, SqlState};

use super::schema::SCHEMA;
use super::sql::Names;

/// What the server said, without the details: they may quote a row, and a digest in it.
#[derive(Debug)]
pub(super) struct Refusal {
    message: String,
    code: SqlState,
}

impl From<&DbError> for Refusal {
    fn from(error: &DbError) -> Self {
        Self {
            message: error.message().to_owned(),
            code: error.code().clone(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { message, code } = self;
        write!(
            f,
            "the PostgreSQL server refused: {message} (SQLSTATE {})",
            code.code()
        )
    }
}

impl StdError for Refusal {}

/// Why the store cannot be used.
#[derive(Debug)]
pub(super) enum Problem {
    Table(String),
    Schema(String),
    Url(Option<tokio_postgres::Error>),
    #[cfg(not(feature = "postgres-tls"))]
    NoTls,
    #[cfg(feature = "postgres-tls")]
    Roots(Option<Box<dyn StdError + Send + Sync>>),
    #[cfg(feature = "postgres-tls")]
    Rustls(rustls::Error),
    Connect(String, tokio_postgres::Error),
    Encryption(String, tokio_postgres::Error),
    Certificate(String, tokio_postgres::Error),
    Pooler(String, tokio_postgres::Error),
    Silent(String),
    Stopped,
    NotMigrated(Names, tokio_postgres::Error),
    Version(Names, i32),
    Foreign(Names),
    Rights(Names, tokio_postgres::Error),
    Encoding(String),
    Changed(Names, tokio_postgres::Error),
    Server(tokio_postgres::Error),
    Answer,
}

impl Problem {
    /// What the server forbids while the table is made or looked at has a remedy of its own.
    pub(super) fn or_rights(self, names: &Names) -> Self {
        match self {
            Self::Server(error) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Self::Rights(names.clone(), error)
            }
            other => other,
        }
    }
}

impl From<tokio_postgres::Error> for Problem {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Server(error)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(
                f,
                "{table:?} is no name for a table; use 1 to 48 ASCII letters, digits and `_`, no \
                 digit first"
            ),
            Self::Schema(schema) => write!(
                f,
                "{schema:?} is no name for a schema; use 1 to 63 ASCII letters, digits and `_`, no digit \
                 first, and not `pg_`"
            ),
            Self::Url(_) => f.write_str(
                "this is no URL of a PostgreSQL server; write \
                 `postgres://user:password@host:port/database`, with special characters as `%40`",
            ),
            #[cfg(not(feature = "postgres-tls"))]
            Self::NoTls => f.write_str(
                "`sslmode=require` asks for TLS, which needs cloakroom's feature `postgres-tls`; enable \
                 it, or use `sslmode=disable` over a Unix socket, a private network or a tunnel",
            ),
            #[cfg(feature = "postgres-tls")]
            Self::Roots(_) => f.write_str(
                "the `root_certificates` have to be certificates of authorities, in PEM: \
                 `-----BEGIN CERTIFICATE-----` and so on",
            ),
            #[cfg(feature = "postgres-tls")]
            Self::Rustls(_) => f.write_str("rustls cannot be used"),
            Self::Connect(server, _) => {
                write!(f, "cannot connect to the PostgreSQL server at `{server}`")
            }
            Self::Encryption(server, _) => write!(
                f,
                "cannot connect to the PostgreSQL server at `{server}` with `sslmode=require`; if it has \
                 no TLS, set `ssl = on` there, or use `sslmode=disable` over a Unix socket, a private \
                 network or a tunnel"
            ),
            Self::Certificate(server, _) => write!(
                f,
                "the certificate of the PostgreSQL server at `{server}` is not accepted; it has to be \
                 for the name of the host in the URL, and from an authority that this machine trusts, or \
                 that is given with `PostgresStoreBuilder::root_certificates`"
            ),
            Self::Pooler(server, _) => write!(
                f,
                "cannot connect to the PostgreSQL server at `{server}`; if there is a pooler before it, \
                 such as PgBouncer, use `PostgresStoreBuilder::transaction_pooling`"
            ),
            Self::Silent(server) => write!(
                f,
                "the PostgreSQL server at `{server}` did not answer in time; see that it runs and can \
                 be reached, or give it longer with `connect_timeout`"
            ),
            Self::Stopped => f.write_str(
                "the runtime on which the PostgreSQL store was connected has ended; connect on the one \
                 that serves",
            ),
            Self::NotMigrated(names, _) => write!(
                f,
                "the table `{names}` or what belongs to it is not there; call \
                 `PostgresStore::migrate` first, or look at the `search_path`"
            ),
            Self::Version(names, version) => write!(
                f,
                "the table `{names}` has schema version {version}, and this release of cloakroom knows \
                 version {SCHEMA}; use the release that made it or a later one"
            ),
            Self::Foreign(names) => write!(
                f,
                "there is a table `{names}` already that cloakroom did not make; choose another name \
                 with `PostgresStoreBuilder::table`, or another database"
            ),
            Self::Rights(names, _) => write!(
                f,
                "this role may not make the table `{names}`, or not read `cloakroom_schema`; grant it \
                 the right to create in the schema and to read that table, or let the role that may \
                 run `postgres.sql`"
            ),
            Self::Encoding(encoding) => write!(
                f,
                "the database has the encoding `{encoding}`, which does not know every character; \
                 use one with `UTF8`"
            ),
            Self::Changed(names, _) => write!(
                f,
                "the table `{names}`, or what belongs to it, is not as cloakroom made it; compare it \
                 with `postgres.sql`"
            ),
            Self::Server(_) => f.write_str("the PostgreSQL server failed"),
            Self::Answer => f.write_str(
                "a function of the PostgreSQL store is not as cloakroom made it; compare it with \
                 `postgres.sql`",
            ),
        }
    }
}

impl StdError for Problem {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Url(Some(error))
            | Self::Connect(_, error)
            | Self::Encryption(_, error)
            | Self::Certificate(_, error)
            | Self::Pooler(_, error)
            | Self::NotMigrated(_, error)
            | Self::Rights(_, error)
            | Self::Changed(_, error)
            | Self::Server(error) => Some(error),
            #[cfg(feature = "postgres-tls")]
            Self::Roots(Some(error)) => Some(&**error),
            #[cfg(feature = "postgres-tls")]
            Self::Rustls(error) => Some(error),
            _ => None,
        }
    }
}
