//! Sealed data in a file.

use std::fs;

use cloakroom::store::SessionStore as _;
use cloakroom::{DataKeys, EncryptedStore, Session, SessionLayer, SqliteStore, conformance_tests};

use super::database;
use crate::support::Server;
use crate::workflows::workflows;

const KEY: &[u8; 32] = b"thirty-two bytes, not all alike.";

fn encrypted(store: SqliteStore) -> EncryptedStore<SqliteStore> {
    EncryptedStore::new(store, DataKeys::new(KEY).unwrap())
}

conformance_tests!(contract, async {
    encrypted(SqliteStore::in_memory().unwrap())
});
workflows!(over_http, async {
    encrypted(SqliteStore::in_memory().unwrap())
});

/// S-14, S-08: the file and its log are searched for what a session holds.
#[tokio::test]
async fn the_file_shows_no_plaintext_and_no_key() {
    let path = database();
    let dump = || {
        let directory = fs::read_dir(path.parent().unwrap()).unwrap();
        let files = directory.map(|file| fs::read(file.unwrap().path()).unwrap());
        files.collect::<Vec<_>>().concat()
    };
    let holds = |bytes: &[u8]| dump().windows(bytes.len()).any(|window| window == bytes);
    let plain = SqliteStore::open(&path).unwrap();
    let secret = "DE02 1203 0000 0000 2020 51";
    let write = move |s: &Session| {
        s.insert("iban", secret)?;
        s.sign_in("ada")
    };

    let server = Server::new().under(SessionLayer::builder(encrypted(plain.clone())));
    let client = server.client();
    client.act(write).await.ok();
    client.get("/write").await.ok();
    assert!(holds(client.id().as_bytes()), "the session is in the file");
    for hidden in [secret.as_bytes(), b"iban", KEY] {
        assert!(!holds(hidden));
    }
    let read = client.look(|s| s.get::<String>("iban").unwrap()).await;
    assert_eq!(read.as_deref(), Some(secret));

    // It would be found if it were there.
    let open = Server::new().under(SessionLayer::builder(plain.clone()));
    open.client().act(write).await.ok();
    assert!(holds(secret.as_bytes()));
    assert_eq!(plain.delete_all().await.unwrap(), 2);
}
