//! Encrypted connections, to servers whose certificate is made here.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use cloakroom::RedisStore;
use cloakroom::store::SessionStore as _;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

use super::{RedisServer, chain, id, now, record};

/// Files with a certificate of an authority, one of it for a server at `localhost` and `127.0.0.1`, and the key.
struct Files {
    authority: String,
    settings: Vec<String>,
}

impl Files {
    fn make(name: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join("redis-tls")
            .join(name);
        fs::create_dir_all(&folder).unwrap();
        let write = |name: &str, pem: String| {
            let path = folder.join(name);
            fs::write(&path, pem).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = write("authority.pem", params.self_signed(&key).unwrap().pem());
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params
            .subject_alt_names
            .push(SanType::IpAddress([127, 0, 0, 1].into()));
        let certificate = write("server.pem", params.signed_by(&key, &issuer).unwrap().pem());
        let key = write("server.key", key.serialize_pem());
        let settings = [
            ["--tls-cert-file", &certificate],
            ["--tls-key-file", &key],
            ["--tls-ca-cert-file", &authority],
            ["--tls-auth-clients", "no"],
        ];
        let settings = settings.concat().into_iter().map(str::to_owned).collect();
        Self {
            authority,
            settings,
        }
    }

    fn settings(&self) -> Vec<&str> {
        self.settings.iter().map(String::as_str).collect()
    }
}

const URL: &str = "CLOAKROOM_TEST_URL";

/// Whether another process, which runs a test of this name, reaches the server; with these certificates for those
/// of the machine.
fn reaches(test: &str, url: &str, certificates: &str) -> Result<(), String> {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("tls::{test}")])
        .env(URL, url)
        .env("SSL_CERT_FILE", certificates)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}

async fn uses(url: &str) {
    let store = RedisStore::connect(url).await;
    let store = store.unwrap_or_else(|error| panic!("{}", chain(&error)));
    for n in 0..20 {
        let _ = store.create(id(n), &record(None), now()).await.unwrap();
        assert!(store.load(id(n), now()).await.unwrap().is_some());
        assert!(store.delete(id(n)).await.unwrap());
    }
}

#[tokio::test]
async fn a_server_is_reached_encrypted_if_its_certificate_is_one() {
    if let Ok(url) = std::env::var(URL) {
        return uses(&url).await;
    }
    let (files, others) = (Files::make("server"), Files::make("others"));
    let server = RedisServer::start(&files.settings());
    let port = server.tls_port.unwrap();
    let test = "a_server_is_reached_encrypted_if_its_certificate_is_one";
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("rediss://{host}:{port}");
        reaches(test, &url, &files.authority).unwrap();
        let error = reaches(test, &url, &others.authority).unwrap_err();
        assert!(error.contains("invalid peer certificate"), "{error}");
    }
    // Another name of the same machine.
    let error = reaches(
        test,
        &format!("rediss://127.0.0.2:{port}"),
        &files.authority,
    );
    let error = error.unwrap_err();
    assert!(
        error.contains("refused") || error.contains("certificate"),
        "{error}"
    );
    let insecure = format!("rediss://127.0.0.1:{port}#insecure");
    assert!(reaches(test, &insecure, &others.authority).is_err());
}

#[cfg(feature = "redis-cluster")]
#[tokio::test]
async fn all_nodes_of_a_cluster_are_reached_encrypted() {
    if let Ok(url) = std::env::var(URL) {
        return uses(&url).await;
    }
    let files = Files::make("cluster");
    let mut settings = files.settings();
    settings.extend(["--tls-cluster", "yes"]);
    let cluster = super::redis_cluster::RedisCluster::with(&settings);
    let url = format!(
        "rediss+cluster://localhost:{}",
        cluster.nodes[0].tls_port.unwrap()
    );
    let test = "all_nodes_of_a_cluster_are_reached_encrypted";
    reaches(test, &url, &files.authority).unwrap();
}
