//! How often a call waits for the server, counted between the two.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom::PostgresStore;
use cloakroom::store::{Admission, SessionStore as _, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

use super::postgres_server::url;
use super::{NOW, app, id, record, send, server, store, table, visitor};

/// Stands between the store and the server.
struct Proxy {
    port: u16,
    trips: Arc<AtomicUsize>,
}

impl Proxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let trips = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&trips);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, Arc::clone(&counter)));
            }
        });
        Self { port, trips }
    }

    /// Of what it can read.
    fn url(&self) -> String {
        format!("{}?sslmode=disable", url(self.port))
    }

    /// The trips since the last time.
    fn trips(&self) -> usize {
        self.trips.swap(0, Ordering::SeqCst)
    }
}

/// Counts the messages after which a client waits for an answer: `Sync` and `Query`.
async fn pass_on(client: TcpStream, trips: Arc<AtomicUsize>) {
    let server = TcpStream::connect(("127.0.0.1", server().port()));
    let (mut from_server, mut to_server) = server.await.unwrap().into_split();
    let (mut from_client, mut to_client) = client.into_split();
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    // The first message has no type.
    let mut kind = None;
    while let Ok(len) = from_client.read_u32().await {
        let mut message = Vec::from_iter(kind);
        message.extend(len.to_be_bytes());
        let body = message.len();
        message.resize(body + len as usize - 4, 0);
        from_client.read_exact(&mut message[body..]).await.unwrap();
        if matches!(kind, Some(b'S' | b'Q')) {
            trips.fetch_add(1, Ordering::SeqCst);
        }
        to_server.write_all(&message).await.unwrap();
        match from_client.read_u8().await {
            Ok(next) => kind = Some(next),
            Err(_) => return,
        }
    }
}

async fn store_behind(proxy: &Proxy, table: &str) -> PostgresStore {
    store(table).await;
    // With one connection, all statements are prepared after their first use.
    let builder = PostgresStore::builder().table(table).connections(1);
    builder.connect(&proxy.url()).await.unwrap()
}

#[tokio::test]
async fn each_call_is_one_trip_and_the_first_one_two() {
    let proxy = Proxy::start().await;
    let store = store_behind(&proxy, &table()).await;
    // The first time it is prepared.
    assert_trips(&proxy, &store, [2, 1]).await;
}

#[tokio::test]
async fn before_a_pooler_each_call_is_one_trip_from_the_first_one_on() {
    let (proxy, table) = (Proxy::start().await, table());
    store(&table).await;
    let builder = PostgresStore::builder().table(table).transaction_pooling();
    let store = builder.connect(&proxy.url()).await.unwrap();
    assert_trips(&proxy, &store, [1, 1]).await;
}

/// Makes each call twice, with so many trips.
async fn assert_trips(proxy: &Proxy, store: &PostgresStore, trips: [usize; 2]) {
    let mut owned = record(Some("ada"));
    owned.version = Version::new(2);
    for (round, expected) in trips.into_iter().enumerate() {
        proxy.trips();
        let counted = |what: &str| assert_eq!(proxy.trips(), expected, "{what}");
        let _ = store.create(id(1), &record(None), NOW).await.unwrap();
        counted("create");
        store.load(id(1), NOW).await.unwrap().unwrap();
        counted("load");
        store.touch(id(1), owned.expires, NOW).await.unwrap();
        counted("touch");
        let first = Some(Version::FIRST);
        let admission = Admission::new(owned.created);
        let _ = store
            .sign_in(id(1), &owned, first, admission, NOW)
            .await
            .unwrap();
        counted("sign_in");
        let _ = store
            .update(id(1), &owned, Version::FIRST, NOW)
            .await
            .unwrap();
        counted("update that meets a conflict");
        store.list_by_owner("ada", NOW).await.unwrap();
        counted("list_by_owner");
        store.delete(id(1)).await.unwrap();
        counted("delete");
        store
            .delete_by_owner(&format!("bob{round}"), None, NOW)
            .await
            .unwrap();
        counted("delete_by_owner");
        store.delete_expired(NOW, 10).await.unwrap();
        counted("delete_expired");
        store.delete_all().await.unwrap();
        counted("delete_all");
    }
}

#[tokio::test]
async fn a_request_makes_as_few_trips_as_it_can() {
    let proxy = Proxy::start().await;
    let app = app(store_behind(&proxy, &table()).await);
    let cookie = visitor(&app).await;
    send(&app, "/", &cookie).await;
    proxy.trips();
    visitor(&app).await;
    assert_eq!(proxy.trips(), 1, "a new session");
    send(&app, "/read", &cookie).await;
    assert_eq!(proxy.trips(), 1, "a read");
    send(&app, "/", &cookie).await;
    assert_eq!(proxy.trips(), 2, "a write");
}
