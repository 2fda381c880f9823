//! In the place of `tls` without the feature `postgres-tls`.

use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};

use super::problem::Problem;

pub(super) type Connector = NoTls;

#[derive(Clone, Debug, Default)]
pub(super) enum Trust {
    /// As there is nothing to trust.
    #[default]
    Nobody,
}

impl Trust {
    #[allow(clippy::unused_self)]
    pub(super) fn connector(&self, config: &mut Config) -> Result<Connector, Problem> {
        match config.get_ssl_mode() {
            SslMode::Require => Err(Problem::NoTls),
            _ => Ok(NoTls),
        }
    }
}

pub(super) fn is_certificate(_: &tokio_postgres::Error) -> bool {
    false
}
