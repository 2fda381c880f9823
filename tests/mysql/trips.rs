//! How often a call waits for the server, counted between the two.

use std::num::NonZeroUsize;
use std::time::Duration;

use cloakroom::store::{
    Admission, Create, OwnerLimit, SessionStore as _, SignIn, Update, Version, WhenFull,
};
use cloakroom::test_util::TestClock;
use cloakroom::{MysqlStore, SessionLayer};
use http::StatusCode;

use super::mysql_server::url;
use super::proxy::Proxy;
use super::{NOW, cookie, id, record, routes, send, server, store, table, text, visitor};

async fn store_behind(proxy: &Proxy, table: &str) -> MysqlStore {
    store(table).await;
    // With one connection, all statements are prepared after their first use.
    let builder = MysqlStore::builder().table(table).connections(1);
    let url = format!("{}?stmt_cache_size=0", url(proxy.port));
    builder.connect(&url).await.unwrap()
}

#[tokio::test]
async fn each_call_is_one_trip() {
    let proxy = Proxy::start(server()).await;
    let store = store_behind(&proxy, &table()).await;
    let mut owned = record(Some("ada"));
    owned.version = Version::new(2);
    let mut admission = Admission::new(NOW);
    let one = NonZeroUsize::new(1).unwrap();
    admission.limit = Some(OwnerLimit::new(one, WhenFull::EvictOldest));
    for round in 0..2 {
        proxy.trips();
        let counted = |what: &str| {
            // The first time it is prepared.
            let expected = if round == 0 { 2 } else { 1 };
            assert_eq!(proxy.trips(), expected, "{what}");
        };
        let created = store.create(id(1), &record(None), NOW).await.unwrap();
        assert_eq!(created, Create::Done);
        counted("create");
        store.load(id(1), NOW).await.unwrap().unwrap();
        counted("load");
        assert!(store.touch(id(1), owned.expires, NOW).await.unwrap());
        counted("touch");
        let first = Some(Version::FIRST);
        let signed_in = store.sign_in(id(1), &owned, first, admission, NOW).await;
        assert_eq!(signed_in.unwrap(), SignIn::Done);
        counted("sign_in");
        let updated = store.update(id(1), &owned, Version::FIRST, NOW).await;
        assert_eq!(updated.unwrap(), Update::Conflict(owned.clone()));
        counted("update that meets a conflict");
        assert_eq!(store.list_by_owner("ada", NOW).await.unwrap().len(), 1);
        counted("list_by_owner");

        // From here on the statements are known.
        let taken = store.create(id(1), &record(None), NOW).await.unwrap();
        assert_eq!((taken, proxy.trips()), (Create::Taken, 1));
        let evicting = store.sign_in(id(2), &owned, None, admission, NOW).await;
        assert_eq!((evicting.unwrap(), proxy.trips()), (SignIn::Done, 1));
        let gone = store.sign_in(id(1), &owned, first, admission, NOW).await;
        assert_eq!((gone.unwrap(), proxy.trips()), (SignIn::Gone, 1));
        let conflict = store.sign_in(id(2), &owned, first, admission, NOW).await;
        let expected = SignIn::Conflict(owned.clone());
        assert_eq!((conflict.unwrap(), proxy.trips()), (expected, 1));

        assert!(store.delete(id(2)).await.unwrap());
        counted("delete");
        let owner = format!("bob{round}");
        store.delete_by_owner(&owner, None, NOW).await.unwrap();
        counted("delete_by_owner");
        store.delete_expired(NOW, 10).await.unwrap();
        counted("delete_expired");
        store.delete_all().await.unwrap();
        counted("delete_all");
    }
}

#[tokio::test]
async fn a_request_makes_as_few_trips_as_it_can() {
    let proxy = Proxy::start(server()).await;
    let clock = TestClock::new();
    let layer = SessionLayer::builder(store_behind(&proxy, &table()).await).clock(clock.clone());
    let app = routes().layer(layer.build().unwrap());
    // The first round prepares the statements.
    for round in 0..2 {
        let counted = |what: &str, expected: usize| {
            let trips = proxy.trips();
            assert!(round == 0 || trips == expected, "{what}: {trips}");
        };
        proxy.trips();
        let guest = visitor(&app).await;
        counted("a new session", 1);
        assert_eq!(text(send(&app, "/read", &guest).await).await, "1");
        counted("a read", 1);
        assert_eq!(text(send(&app, "/", &guest).await).await, "2");
        counted("a write", 2);
        let ada = cookie(&send(&app, "/login", &guest).await);
        counted("a sign-in", 2);
        clock.advance(Duration::from_secs(15 * 60));
        assert_eq!(text(send(&app, "/read", &ada).await).await, "2");
        counted("a read when a touch is due", 2);
        let left = send(&app, "/logout", &ada).await;
        assert_eq!(left.status(), StatusCode::OK);
        counted("a sign-out", 2);
        assert_eq!(text(send(&app, "/read", &ada).await).await, "new");
    }
}
