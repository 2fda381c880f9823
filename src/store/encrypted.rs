//! Data that the store cannot read.

use std::fmt;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};

use crate::clock::{Timestamp, whole_millis};
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

/// Seals the data of sessions before a store sees it.
///
/// For values that whoever reads the database, its backups or its replicas must not learn, and records
/// that whoever writes to it must not forge. It is XChaCha20-Poly1305 with a random nonce for each write.
///
/// ```
/// use cloakroom::{DataKeys, EncryptedStore, MemoryStore, SessionId};
/// use cloakroom::store::{Create, Digest, Record, SessionStore, Timestamp};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom::store::StoreError> {
/// # let mut key = [0; 32];
/// # getrandom::fill(&mut key).unwrap();
/// let database = MemoryStore::new();
/// let store = EncryptedStore::new(database.clone(), DataKeys::new(&key)?);
///
/// let (id, now) = (SessionId::from_bytes([7; 16]), Timestamp::from_millis(0));
/// let mut record = Record::new(Digest::from_bytes([7; 32]), now, Timestamp::MAX);
/// record.data = br#"{"iban":"DE02"}"#.as_slice().into();
/// assert_eq!(store.create(id, &record, now).await?, Create::Done);
///
/// assert_eq!(store.load(id, now).await?, Some(record));
/// let stored = database.load(id, now).await?.unwrap();
/// assert!(!stored.data.windows(4).any(|bytes| bytes == b"iban"));
/// # Ok(())
/// # }
/// ```
///
/// # What is protected
///
/// The data is secret; its length is not. It is bound to the session's id and to every field of the record
/// except `expires` and `seen`, which a touch moves: none can be changed, or taken from another row or
/// another version of it, without the key. Such a record is [corrupt](StoreError::is_corrupt): it is
/// reported, and nobody's session. So is data that was never sealed, which is not read in any other way;
/// **sessions of before the store was encrypted end**, and a [`Cleaner`](crate::Cleaner) removes them in
/// time.
///
/// # What is not
///
/// The other fields can be read: who is signed in, and since when. Whoever can write to the database
/// can still delete a record, prolong it up to its absolute timeout, and **put a whole row of before in its
/// place**: a session that was signed out or revoked, or the values it had. Against that only the
/// database's own rights help.
///
/// # What it costs
///
/// 41 bytes a session, which the store must have room for beyond
/// [`max_size`](crate::SessionLayerBuilder::max_size), and some microseconds a read or write for data of a
/// few kilobytes. No trip is added.
#[derive(Clone)]
pub struct EncryptedStore<S> {
    store: S,
    keys: Arc<DataKeys>,
}

impl<S: SessionStore> EncryptedStore<S> {
    /// Seals what goes into `store`, and opens what comes out of it.
    #[must_use]
    pub fn new(store: S, keys: DataKeys) -> Self {
        Self {
            store,
            keys: Arc::new(keys),
        }
    }

    fn seal(&self, id: SessionId, record: &Record) -> Result<Record, StoreError> {
        Ok(Record {
            data: self.keys.seal(&record.data, &bound_to(id, record))?.into(),
            ..record.clone()
        })
    }

    fn open(&self, id: SessionId, record: Record) -> Result<Record, StoreError> {
        Ok(Record {
            data: self.keys.open(&record.data, &bound_to(id, &record))?.into(),
            ..record
        })
    }
}

impl<S> fmt::Debug for EncryptedStore<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptedStore")
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

/// What a session's data is sealed together with. It stays as it is however records are encoded: what it
/// sealed would not open any more.
fn bound_to(id: SessionId, record: &Record) -> Vec<u8> {
    // All of them, so that a new field is not forgotten here.
    let Record {
        version,
        digest,
        previous,
        owner,
        created,
        authenticated,
        renewed,
        seen: _,
        expires: _,
        policy,
        data: _,
    } = record;
    let number = u64::to_be_bytes;
    let time = |time: &Timestamp| number(time.as_millis());
    let optional = |there: bool| [u8::from(there)];

    let mut out = b"cloakroom sealed data 1\0".to_vec();
    out.extend(id.as_bytes());
    out.extend(number(version.get()));
    out.extend(digest.as_bytes());
    out.extend([created, renewed].map(time).as_flattened());
    out.extend(optional(previous.is_some()));
    if let Some(previous) = previous {
        out.extend(previous.digest.as_bytes());
        out.extend(time(&previous.until));
    }
    out.extend(optional(authenticated.is_some()));
    out.extend(authenticated.as_ref().map(time).iter().flatten());
    out.extend(optional(policy.is_some()));
    if let Some(policy) = policy {
        out.extend(number(whole_millis(policy.idle)));
        out.extend(number(whole_millis(policy.absolute)));
    }
    // The last, so that its length needs no saying.
    out.extend(optional(owner.is_some()));
    out.extend(owner.as_deref().unwrap_or_default().as_bytes());
    out
}

/// The keys of an [`EncryptedStore`]: one that seals, and older ones that still open.
///
/// A key is 32 random bytes, as `openssl rand 32` makes them, kept where those who read the database
/// cannot. To change it, put the new one first and keep the old one until the sessions that it sealed
/// have been written again or have ended; those that are left end when it is taken away:
///
/// ```
/// use cloakroom::DataKeys;
/// # let [mut new_key, mut old_key] = [[0; 32]; 2];
/// # getrandom::fill(&mut new_key).unwrap();
/// # getrandom::fill(&mut old_key).unwrap();
///
/// let keys = DataKeys::new(&new_key)?.and_old(&old_key)?;
/// assert_eq!(format!("{keys:?}"), "DataKeys(2)");
///
/// let error = DataKeys::new(&[0; 32]).unwrap_err();
/// let why = std::error::Error::source(&error).unwrap().to_string();
/// assert!(why.contains("openssl rand 32"));
/// # Ok::<(), cloakroom::store::StoreError>(())
/// ```
///
/// They are wiped from memory when they are dropped. `Debug` shows how many there are.
// Ciphers, which wipe the key that they hold; the first one seals.
pub struct DataKeys(Vec<XChaCha20Poly1305>);

const KEY_LEN: usize = 32;
const NONCE_LEN: usize = 24;

/// What sealed data begins with. No JSON text does.
const FORMAT: u8 = 1;

impl DataKeys {
    /// Keys of which the only one is `key`.
    ///
    /// # Errors
    ///
    /// `key` is not 32 bytes long, or 32 times the same byte, and so not random.
    pub fn new(key: &[u8]) -> Result<Self, StoreError> {
        Self(Vec::new()).and_old(key)
    }

    /// Lets what `key` sealed be opened, too.
    ///
    /// # Errors
    ///
    /// As for [`new`](Self::new).
    pub fn and_old(mut self, key: &[u8]) -> Result<Self, StoreError> {
        let cipher = match XChaCha20Poly1305::new_from_slice(key) {
            Ok(cipher) if key.iter().any(|byte| *byte != key[0]) => cipher,
            Ok(_) => return Err(unusable("repeats one byte")),
            Err(_) => return Err(unusable(&format!("has {} bytes", key.len()))),
        };
        self.0.push(cipher);
        Ok(self)
    }

    fn seal(&self, data: &[u8], bound_to: &[u8]) -> Result<Arc<[u8]>, StoreError> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).map_err(StoreError::new)?;
        let payload = Payload {
            msg: data,
            aad: bound_to,
        };
        let sealed = self.0[0].encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| StoreError::new("the data is too long to be sealed"))?;
        Ok([&[FORMAT], &nonce[..], &sealed].concat().into())
    }

    fn open(&self, data: &[u8], bound_to: &[u8]) -> Result<Arc<[u8]>, StoreError> {
        let parts = data.split_first().and_then(|(format, rest)| {
            let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
            (*format == FORMAT).then_some((nonce, sealed))
        });
        let (nonce, sealed) =
            parts.ok_or_else(|| StoreError::corrupt("the session's data is not sealed"))?;
        let nonce = XNonce::from(*nonce);
        let payload = || Payload {
            msg: sealed,
            aad: bound_to,
        };
        let opened = self
            .0
            .iter()
            .find_map(|key| key.decrypt(&nonce, payload()).ok());
        let opened = opened.ok_or_else(|| {
            StoreError::corrupt(
                "the session's data does not open: its key is missing, or the record is not as it was \
                 sealed",
            )
        });
        opened.map(Into::into)
    }
}

fn unusable(why: &str) -> StoreError {
    StoreError::new(format!(
        "a key for session data {why}: use {KEY_LEN} random bytes, such as `openssl rand {KEY_LEN}` makes"
    ))
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DataKeys({})", self.0.len())
    }
}

impl<S: SessionStore> SessionStore for EncryptedStore<S> {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        let sealed = self.seal(id, record)?;
        self.store.create(id, &sealed, now).await
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let record = self.store.load(id, now).await?;
        record.map(|record| self.open(id, record)).transpose()
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let sealed = self.seal(id, record)?;
        Ok(match self.store.update(id, &sealed, expected, now).await? {
            Update::Conflict(current) => Update::Conflict(self.open(id, current)?),
            answer @ (Update::Done | Update::Gone) => answer,
        })
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let sealed = self.seal(id, record)?;
        let answer = self.store.sign_in(id, &sealed, expected, admission, now);
        Ok(match answer.await? {
            SignIn::Conflict(current) => SignIn::Conflict(self.open(id, current)?),
            answer => answer,
        })
    }

    async fn touch(
        &self,
        id: SessionId,
        expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.store.touch(id, expires, now).await
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        self.store.delete(id).await
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        self.store.delete_expired(now, limit).await
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let list = self.store.list_by_owner(owner, now).await?;
        let list = list.into_iter();
        list.map(|(id, record)| Ok((id, self.open(id, record)?)))
            // One that no key opens is nobody's session.
            .filter(|read| !matches!(read, Err(error) if StoreError::is_corrupt(error)))
            .collect()
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        self.store.delete_by_owner(owner, keep, now).await
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        self.store.delete_all().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::expiry::ExpiryPolicy;
    use crate::record::Previous;
    use crate::token::Digest;

    fn id() -> SessionId {
        SessionId::from_bytes([9; 16])
    }

    fn keys() -> DataKeys {
        let key: Vec<u8> = (0..32).collect();
        DataKeys::new(&key).unwrap()
    }

    /// A record with all fields set.
    fn full() -> Record {
        let at = Timestamp::from_millis;
        let mut record = Record::new(Digest::from_bytes([0xd1; 32]), at(1_000), at(5_000));
        record.version = Version::new(3);
        record.previous = Some(Previous::new(Digest::from_bytes([0xd0; 32]), at(3_000)));
        record.owner = Some("ada".into());
        record.authenticated = Some(at(2_000));
        record.renewed = at(2_500);
        record.seen = at(2_600);
        let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
        record.policy = Some(ExpiryPolicy::new(minute, hour));
        record.data = br#"{"a":1}"#.as_slice().into();
        record
    }

    /// Of this release; later ones open it, too.
    const SEALED: &str = "014cad21b42cbe27ad10c32f61e19ebea0cd8f5c016e218d4a0e56639f5e3609ee\
        89f8b64cc609b976aeb0f3dd7c7de5";

    #[test]
    fn what_an_earlier_release_sealed_opens() {
        let sealed: Vec<u8> = (0..SEALED.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&SEALED[at..at + 2], 16).unwrap())
            .collect();
        let opened = keys().open(&sealed, &bound_to(id(), &full()));
        assert_eq!(*opened.unwrap(), *full().data);
    }

    /// S-14.
    #[test]
    fn data_opens_only_with_the_record_that_it_was_sealed_with() {
        type Change = fn(&mut Record);
        let at = Timestamp::from_millis;
        let minimal = Record::new(Digest::from_bytes([1; 32]), at(0), at(1));
        let changes: [Change; 14] = [
            |r| r.version = r.version.next(),
            |r| r.digest = Digest::from_bytes([2; 32]),
            |r| r.created = Timestamp::from_millis(7),
            |r| r.renewed = Timestamp::from_millis(7),
            |r| r.previous = None,
            |r| r.previous = Some(Previous::new(r.digest, Timestamp::from_millis(3_000))),
            |r| r.previous = Some(Previous::new(Digest::from_bytes([0xd0; 32]), r.renewed)),
            |r| r.owner = None,
            |r| r.owner = Some("".into()),
            |r| r.owner = Some("adam".into()),
            |r| r.authenticated = None,
            |r| r.authenticated = Some(Timestamp::from_millis(7)),
            |r| r.policy = None,
            |r| {
                let hour = Duration::from_secs(3_600);
                r.policy = Some(ExpiryPolicy::new(Duration::ZERO, hour));
            },
        ];
        for record in [full(), minimal] {
            let sealed = keys().seal(&record.data, &bound_to(id(), &record)).unwrap();
            for (i, change) in changes.into_iter().enumerate() {
                let mut changed = record.clone();
                change(&mut changed);
                let opened = keys().open(&sealed, &bound_to(id(), &changed));
                assert_eq!(opened.is_ok(), changed == record, "change {i}");
            }
            let other = SessionId::from_bytes([8; 16]);
            let opened = keys().open(&sealed, &bound_to(other, &record));
            assert!(opened.unwrap_err().is_corrupt());
            // What a touch moves.
            let mut touched = record.clone();
            touched.expires = Timestamp::MAX;
            touched.seen = Timestamp::MAX;
            assert!(keys().open(&sealed, &bound_to(id(), &touched)).is_ok());
        }
    }

    #[test]
    fn data_that_was_cut_or_changed_does_not_open() {
        let bound = bound_to(id(), &full());
        let sealed = keys().seal(&full().data, &bound).unwrap();
        assert_eq!(sealed.len(), full().data.len() + 41);
        for at in 0..sealed.len() {
            let error = keys().open(&sealed[..at], &bound).unwrap_err();
            assert!(error.is_corrupt(), "cut at {at}");
            let mut changed = sealed.to_vec();
            changed[at] ^= 1;
            let error = keys().open(&changed, &bound).unwrap_err();
            assert!(error.is_corrupt(), "changed at {at}");
        }
    }

    /// S-14: all of the nonce is random.
    #[test]
    fn no_two_seals_are_alike() {
        let seal = || keys().seal(b"{}", b"").unwrap();
        assert_ne!(seal(), seal());
        let mut set = [0; NONCE_LEN];
        for _ in 0..64 {
            for (set, byte) in set.iter_mut().zip(&seal()[1..]) {
                *set |= byte;
            }
        }
        assert_eq!(set, [0xff; NONCE_LEN]);
    }

    /// S-79.
    #[test]
    fn a_key_that_is_not_random_is_refused_and_never_shown() {
        use std::error::Error as _;
        let why = |key: &[u8]| {
            let error = DataKeys::new(key).unwrap_err();
            assert!(keys().and_old(key).is_err());
            error.source().unwrap().to_string()
        };
        for len in [0, 16, 31, 33, 64] {
            let key: Vec<u8> = (0..len).collect();
            assert!(why(&key).contains(&format!("has {len} bytes")));
        }
        for byte in [0, 7, 255] {
            assert!(why(&[byte; 32]).contains("repeats one byte"));
        }
        assert_eq!(format!("{:?}", keys()), "DataKeys(1)");
    }
}
