//! Encrypted connections, to a server whose certificate is made here.

use std::process::Command;

use cloakroom::store::{SessionStore as _, StoreError};
use cloakroom::{PostgresStore, PostgresStoreBuilder, conformance_tests};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::sync::OnceCell;

use super::{NOW, PostgresServer, chain, eventually, id, psql_at, server, table};

conformance_tests!(encrypted, async {
    let tls = tls().await;
    let builder = tls.trusted().table(table());
    let store = builder.connect(&tls.url("require")).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    store.migrate().await.unwrap();
    store
});

/// A server with a certificate for `localhost`.
struct Tls {
    server: PostgresServer,
    /// That of the authority.
    root: String,
}

/// The server that the tests here share.
async fn tls() -> &'static Tls {
    static TLS: OnceCell<Tls> = OnceCell::const_new();
    TLS.get_or_init(Tls::start).await
}

fn authority() -> (String, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.distinguished_name.push(DnType::CommonName, table());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = params.self_signed(&key).unwrap().pem();
    (root, Issuer::new(params, key))
}

impl Tls {
    async fn start() -> Self {
        let server = tokio::task::spawn_blocking(PostgresServer::start)
            .await
            .unwrap();
        let (root, issuer) = authority();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().pem();

        let psql = psql_at(&server.url()).await;
        for (file, pem) in [("crt", certificate), ("key", key.serialize_pem())] {
            let write = format!(
                "COPY (SELECT unnest(string_to_array('{pem}', E'\\n'))) \
                 TO PROGRAM 'umask 077; cat >server.{file}'"
            );
            psql.batch_execute(&write).await.unwrap();
        }
        psql.batch_execute("ALTER SYSTEM SET ssl = on")
            .await
            .unwrap();
        psql.batch_execute("CREATE ROLE locked LOGIN PASSWORD 'right'; SELECT pg_reload_conf()")
            .await
            .unwrap();
        let this = Self { server, root };
        eventually("the server has read its settings", async || {
            this.trusted().connect(&this.url("require")).await.is_ok()
        })
        .await;
        this
    }

    /// A builder that trusts this authority.
    fn trusted(&self) -> PostgresStoreBuilder {
        PostgresStore::builder().root_certificates(self.root.clone())
    }

    fn url(&self, mode: &str) -> String {
        format!(
            "postgres://test@localhost:{}/postgres?sslmode={mode}",
            self.server.port()
        )
    }

    /// Whether the connections of the application with this name are encrypted.
    async fn is_encrypted(&self, name: &str) -> bool {
        let psql = psql_at(&self.server.url()).await;
        let encrypted = "SELECT bool_and(ssl), bool_or(ssl) FROM pg_stat_ssl \
                         JOIN pg_stat_activity USING (pid) WHERE application_name = $1";
        let row = psql.query_one(encrypted, &[&name]).await.unwrap();
        let (all, any): (bool, bool) = (row.get(0), row.get(1));
        assert_eq!(all, any, "all are alike");
        all
    }
}

fn refused(connected: Result<PostgresStore, StoreError>) -> String {
    chain(&connected.unwrap_err())
}

fn assert_certificate_refused(error: &str, why: &str) {
    assert!(
        error.contains("is not accepted; it has to be for the name"),
        "{error}"
    );
    assert!(
        error.contains("`PostgresStoreBuilder::root_certificates`"),
        "{error}"
    );
    assert!(error.contains(why), "{error}");
}

#[tokio::test]
async fn with_the_right_authority_all_connections_are_encrypted() {
    let tls = tls().await;
    for mode in ["require", "verify-full", "prefer"] {
        let name = table();
        let url = format!("{}&application_name={name}", tls.url(mode));
        let store = tls.trusted().table(&name).connect(&url).await.unwrap();
        store.migrate().await.unwrap();
        assert_eq!(store.load(id(1), NOW).await.unwrap(), None);
        assert!(tls.is_encrypted(&name).await, "{mode}");
    }
}

#[tokio::test]
async fn a_certificate_from_somebody_else_is_refused() {
    let tls = tls().await;
    let (wrong, _) = authority();
    for mode in ["prefer", "require", "verify-full"] {
        let builder = PostgresStore::builder().root_certificates(wrong.clone());
        let error = refused(builder.connect(&tls.url(mode)).await);
        assert_certificate_refused(&error, "UnknownIssuer");
        // This machine does not trust it either.
        let error = refused(PostgresStore::connect(&tls.url(mode)).await);
        assert_certificate_refused(&error, "UnknownIssuer");
    }
}

#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let tls = tls().await;
    for mode in ["prefer", "require", "verify-full"] {
        let url = tls.url(mode).replace("localhost", "127.0.0.1");
        let error = refused(tls.trusted().connect(&url).await);
        assert_certificate_refused(&error, "not valid for name");
    }
}

#[tokio::test]
async fn where_encryption_is_required_a_server_without_it_is_refused() {
    let (root, _) = authority();
    let trusting = PostgresStore::builder().root_certificates(root);
    for (builder, mode) in [
        (PostgresStore::builder(), "require"),
        (PostgresStore::builder(), "verify-full"),
        // Who says whom to trust wants to be safe from others.
        (trusting, "prefer"),
    ] {
        let url = format!("{}?sslmode={mode}", server().url());
        let error = refused(builder.connect(&url).await);
        assert!(
            error.contains("if it has no TLS, set `ssl = on` there"),
            "{error}"
        );
        assert!(error.contains("server does not support TLS"), "{error}");
    }
}

#[tokio::test]
async fn encryption_is_left_out_where_that_is_said_and_where_the_server_has_none() {
    let (tls, name) = (tls().await, table());
    let url = format!("{}&application_name={name}", tls.url("disable"));
    let _store = tls.trusted().connect(&url).await.unwrap();
    assert!(!tls.is_encrypted(&name).await);
    PostgresStore::connect(&server().url()).await.unwrap();
}

#[tokio::test]
async fn a_configuration_of_rustls_can_be_given() {
    let tls = tls().await;
    let mut roots = rustls::RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(tls.root.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = rustls::crypto::ring::default_provider();
    let config = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let builder = PostgresStore::builder().tls(config);
    builder.connect(&tls.url("require")).await.unwrap();
    builder.connect(&tls.url("prefer")).await.unwrap();
    let error = refused(builder.connect(&server().url()).await);
    assert!(error.contains("server does not support TLS"), "{error}");
}

#[tokio::test]
async fn root_certificates_that_are_none_are_refused() {
    let tls = tls().await;
    let (root, _) = authority();
    let cut = root[..root.len() / 2].to_owned();
    let other = root.replace("CERTIFICATE", "PRIVATE KEY");
    for pem in [String::new(), "x".to_owned(), cut, other] {
        let builder = PostgresStore::builder().root_certificates(pem);
        let error = refused(builder.connect(&tls.url("require")).await);
        assert!(
            error.contains("have to be certificates of authorities, in PEM"),
            "{error}"
        );
    }
}

/// The password is proved together with the certificate, so that nobody in between can pass it on.
#[tokio::test]
async fn a_password_is_bound_to_the_encrypted_channel() {
    let tls = tls().await;
    let url = tls.url("require").replace("test@", "locked:right@");
    let url = format!("{url}&channel_binding=require");
    tls.trusted().connect(&url).await.unwrap();
}

#[tokio::test]
async fn the_authorities_of_the_machine_are_trusted() {
    const URL: &str = "CLOAKROOM_TEST_URL";
    if let Ok(url) = std::env::var(URL) {
        PostgresStore::connect(&url).await.unwrap();
        return;
    }
    let tls = tls().await;
    let file = std::env::temp_dir().join(format!("{}.pem", table()));
    std::fs::write(&file, &tls.root).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tls::the_authorities_of_the_machine_are_trusted"])
        .env(URL, tls.url("verify-full"))
        .env("SSL_CERT_FILE", &file)
        .output()
        .unwrap();
    std::fs::remove_file(file).unwrap();
    assert!(output.status.success(), "{output:?}");
    let ran = String::from_utf8_lossy(&output.stdout);
    assert!(ran.contains("1 passed"), "{ran}");
}
