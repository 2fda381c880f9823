//! Sealed data: what opens it, and what is refused.

use cloakroom::store::{
    Admission, Create, Digest, Record, SessionStore, SignIn, Timestamp, Update, Version,
};
use cloakroom::{DataKeys, EncryptedStore, MemoryStore, SessionId, conformance_tests};

const OLD: &[u8; 32] = b"the old key, kept for some time.";
const NEW: &[u8; 32] = b"the new key, which seals from it";
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn encrypted<S: SessionStore>(store: S) -> EncryptedStore<S> {
    EncryptedStore::new(store, DataKeys::new(NEW).unwrap())
}

conformance_tests!(over_memory, async { encrypted(MemoryStore::new()) });
fn id(n: u8) -> SessionId {
    SessionId::from_bytes([n; 16])
}

fn record(data: &str) -> Record {
    let mut record = Record::new(Digest::from_bytes([1; 32]), NOW, Timestamp::MAX);
    record.data = data.as_bytes().into();
    record
}

fn next(data: &str) -> Record {
    let mut next = record(data);
    next.version = Version::FIRST.next();
    next
}

async fn create(store: &impl SessionStore, id: SessionId, record: &Record) {
    let created = store.create(id, record, NOW).await.unwrap();
    assert_eq!(created, Create::Done);
}

/// The record as the store under it has it.
async fn sealed(store: &MemoryStore, id: SessionId) -> Record {
    store.load(id, NOW).await.unwrap().unwrap()
}

async fn put(store: &MemoryStore, id: SessionId, record: &Record) {
    let expected = sealed(store, id).await.version;
    let updated = store.update(id, record, expected, NOW).await.unwrap();
    assert_eq!(updated, Update::Done);
}

async fn assert_corrupt(store: &impl SessionStore, id: SessionId) {
    assert!(store.load(id, NOW).await.unwrap_err().is_corrupt());
    // Nor is it given away by a conflict, of either kind.
    let mut stale = next("{}");
    stale.version = Version::new(9);
    let expected = Version::new(8);
    let updated = store.update(id, &stale, expected, NOW).await;
    assert!(updated.unwrap_err().is_corrupt());
    stale.owner = Some("ada".into());
    let admission = Admission::new(NOW);
    let signed_in = store.sign_in(id, &stale, Some(expected), admission, NOW);
    assert!(signed_in.await.unwrap_err().is_corrupt());
    // It can be ended all the same.
    assert!(store.delete(id).await.unwrap());
}

/// S-14.
#[tokio::test]
async fn data_is_sealed_by_each_kind_of_write() {
    let memory = MemoryStore::new();
    let store = encrypted(memory.clone());
    let assert_sealed = async |data: &str| {
        let sealed = sealed(&memory, id(1)).await;
        assert_eq!(sealed.data.len(), data.len() + 41);
        let found = sealed.data.windows(6).any(|bytes| bytes == b"secret");
        assert!(!found, "{data}");
        let opened = store.load(id(1), NOW).await.unwrap().unwrap();
        assert_eq!(&*opened.data, data.as_bytes());
    };
    create(&store, id(1), &record("secret one")).await;
    assert_sealed("secret one").await;
    let second = next("secret two");
    let updated = store.update(id(1), &second, Version::FIRST, NOW).await;
    assert_eq!(updated.unwrap(), Update::Done);
    assert_sealed("secret two").await;
    let mut third = next("secret three");
    third.version = Version::new(3);
    third.owner = Some("ada".into());
    let admission = Admission::new(NOW);
    let signed_in = store.sign_in(id(1), &third, Some(Version::new(2)), admission, NOW);
    assert_eq!(signed_in.await.unwrap(), SignIn::Done);
    assert_sealed("secret three").await;
    assert!(store.touch(id(1), Timestamp::MAX, NOW).await.unwrap());
    assert_sealed("secret three").await;

    let conflict = store.update(id(1), &next("{}"), Version::FIRST, NOW).await;
    assert_eq!(conflict.unwrap(), Update::Conflict(third.clone()));
    let conflict = store.sign_in(id(1), &third, Some(Version::FIRST), admission, NOW);
    assert_eq!(conflict.await.unwrap(), SignIn::Conflict(third.clone()));
    let list = store.list_by_owner("ada", NOW).await.unwrap();
    assert_eq!(list, [(id(1), third)]);
}

/// S-14, S-74: one that no key opens, as once the old key was taken away, hides no other.
#[tokio::test]
async fn a_list_leaves_out_what_no_key_opens() {
    let memory = MemoryStore::new();
    let old = EncryptedStore::new(memory.clone(), DataKeys::new(OLD).unwrap());
    let new = encrypted(memory);
    let mut owned = record("{}");
    owned.owner = Some("ada".into());
    create(&old, id(1), &owned).await;
    create(&new, id(2), &owned).await;
    let list = new.list_by_owner("ada", NOW).await.unwrap();
    assert_eq!(list, [(id(2), owned)]);
    assert_eq!(new.delete_by_owner("ada", None, NOW).await.unwrap(), 2);
}

/// S-14: nor do whole rows.
#[tokio::test]
async fn swapped_data_opens_for_neither_session() {
    let memory = MemoryStore::new();
    let store = encrypted(memory.clone());
    for whole in [false, true] {
        create(&store, id(1), &record("one")).await;
        create(&store, id(2), &record("two")).await;
        let [one, two] = [sealed(&memory, id(1)).await, sealed(&memory, id(2)).await];
        for (id, own, other) in [(id(1), &one, &two), (id(2), &two, &one)] {
            let mut spliced = if whole { other } else { own }.clone();
            spliced.data = other.data.clone();
            put(&memory, id, &spliced).await;
            assert_corrupt(&store, id).await;
        }
    }
}

/// S-14: whoever writes to the database does not become somebody else, or let themselves in.
#[tokio::test]
async fn a_record_that_was_changed_does_not_open() {
    type Change = fn(&mut Record);
    let changes: [Change; 5] = [
        |r| r.owner = Some("admin".into()),
        |r| r.digest = Digest::from_bytes([2; 32]),
        |r| r.version = r.version.next(),
        |r| r.authenticated = Some(NOW),
        |r| r.created = Timestamp::from_millis(1_600_000_000_000),
    ];
    for change in changes {
        let memory = MemoryStore::new();
        let store = encrypted(memory.clone());
        create(&store, id(1), &record("{}")).await;
        let mut changed = sealed(&memory, id(1)).await;
        change(&mut changed);
        put(&memory, id(1), &changed).await;
        assert_corrupt(&store, id(1)).await;
    }
}

/// S-79: there is no other way to read data than to open it.
#[tokio::test]
async fn data_that_was_never_sealed_is_corrupt() {
    let memory = MemoryStore::new();
    let store = encrypted(memory.clone());
    for data in [
        "{}",
        "",
        "\u{1}",
        r#"{"n":1,"text":"long enough for a seal"}"#,
    ] {
        create(&memory, id(1), &record(data)).await;
        assert_corrupt(&store, id(1)).await;
    }
}

/// S-79.
#[tokio::test]
async fn an_old_key_opens_until_it_is_taken_away_and_writes_use_the_new_one() {
    let memory = MemoryStore::new();
    let with = |keys| EncryptedStore::new(memory.clone(), keys);
    let before = with(DataKeys::new(OLD).unwrap());
    let during = with(DataKeys::new(NEW).unwrap().and_old(OLD).unwrap());
    let after = with(DataKeys::new(NEW).unwrap());
    for n in [1, 2] {
        create(&before, id(n), &record("{}")).await;
        assert_eq!(during.load(id(n), NOW).await.unwrap(), Some(record("{}")));
    }
    let updated = during.update(id(1), &next("{}"), Version::FIRST, NOW).await;
    assert_eq!(updated.unwrap(), Update::Done);
    assert_eq!(after.load(id(1), NOW).await.unwrap(), Some(next("{}")));
    assert!(before.load(id(1), NOW).await.unwrap_err().is_corrupt());
    assert_corrupt(&after, id(2)).await;
}

/// S-10.
#[test]
fn debug_shows_no_key() {
    let shown = format!("{:?}", encrypted(MemoryStore::new()));
    assert_eq!(shown, "EncryptedStore { keys: DataKeys(1), .. }");
}

#[cfg(feature = "axum")]
mod over_http {
    use cloakroom::store::SessionStore as _;
    use cloakroom::{MemoryStore, SessionLayer};

    use super::{encrypted, put};
    use crate::support::{Log, Server, Told};
    use crate::workflows::workflows;

    workflows!(over_memory, async { encrypted(MemoryStore::new()) });

    /// S-14, S-74: refused and reported, and nobody's session.
    #[tokio::test]
    async fn a_client_whose_data_was_swapped_is_a_stranger() {
        let memory = MemoryStore::new();
        let layer = SessionLayer::builder(encrypted(memory.clone()));
        let server = Server::new().under(layer);
        let (one, two) = (server.visitor().await, server.visitor().await);
        let now = server.clock.now();
        let mut record = memory.load(one.id(), now).await.unwrap().unwrap();
        let other = memory.load(two.id(), now).await.unwrap().unwrap();
        record.data = other.data;
        put(&memory, one.id(), &record).await;
        let log = Log::capture();
        let seen = one.get("/read").await.ok();
        assert_eq!((seen.text(), seen.told()), ("anonymous", Told::Vary));
        let said = log.take();
        assert!(
            said.contains("ERROR") && said.contains("does not open"),
            "{said}"
        );
        assert!(said.contains(&one.id().to_string()), "{said}");
        assert_eq!(two.get("/read").await.text(), "[null,1]");
    }
}
