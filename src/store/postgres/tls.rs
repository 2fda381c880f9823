//! Encryption, with rustls.

use std::error::Error as _;
use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::problem::Problem;

pub(super) type Connector = MakeRustlsConnect;

/// Which certificates of a server to accept.
#[derive(Clone, Debug, Default)]
pub(super) enum Trust {
    /// Those from the authorities that this machine trusts.
    #[default]
    Machine,
    /// Those from these authorities, in PEM.
    Roots(Vec<u8>),
    /// Those that it accepts.
    Config(Box<ClientConfig>),
}

impl Trust {
    /// What makes the connections of `config`, which is made to insist if trust was set by hand.
    pub(super) fn connector(&self, config: &mut Config) -> Result<Connector, Problem> {
        let is_by_hand = !matches!(self, Self::Machine);
        if is_by_hand && config.get_ssl_mode() == SslMode::Prefer {
            config.ssl_mode(SslMode::Require);
        }
        let client = match self {
            Self::Machine if config.get_ssl_mode() == SslMode::Disable => {
                accepting(RootCertStore::empty())
            }
            Self::Machine => {
                let mut roots = RootCertStore::empty();
                // What cannot be read is not trusted, and said to be unknown.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                accepting(roots)
            }
            Self::Roots(pem) => accepting(read(pem)?),
            Self::Config(config) => Ok(*config.clone()),
        };
        client.map(MakeRustlsConnect::new).map_err(Problem::Rustls)
    }
}

/// With a provider of its own, so that none has to be chosen for the process.
fn accepting(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(client.with_root_certificates(roots).with_no_client_auth())
}

fn read(pem: &[u8]) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| Problem::Roots(Some(Box::new(error))))?;
        let added = roots.add(certificate);
        added.map_err(|error| Problem::Roots(Some(Box::new(error))))?;
    }
    if roots.is_empty() {
        return Err(Problem::Roots(None));
    }
    Ok(roots)
}

/// Whether it was the server's certificate that was not accepted.
pub(super) fn is_certificate(error: &tokio_postgres::Error) -> bool {
    let cause = error
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    let cause = cause.and_then(|cause| cause.get_ref()?.downcast_ref());
    matches!(cause, Some(rustls::Error::InvalidCertificate(_)))
}
