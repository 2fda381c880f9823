//! What a store keeps for one session, and its form as bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Timestamp, whole_millis};
use crate::data::Content;
use crate::error::StoreError;
use crate::expiry::{ExpiryPolicy, Limits, Times};
use crate::token::Digest;

/// Counts the writes of a record; what compare-and-swap compares.
///
/// A new record has [`Version::FIRST`], and each write adds one. A touch does not count.
///
/// ```
/// use cloakroom::store::Version;
///
/// assert_eq!(Version::FIRST.get(), 1);
/// assert_eq!(Version::FIRST.next(), Version::new(2));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(u64);

impl Version {
    /// The version of a record that was just created.
    pub const FIRST: Self = Self(1);

    /// The version with this number, as a store kept it.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number to store.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The version after this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// A digest that was replaced by a periodic renewal, and until when it is still accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Previous {
    /// The digest of the token that was replaced.
    pub digest: Digest,
    /// The end of its grace.
    pub until: Timestamp,
}

impl Previous {
    /// A replaced digest that is accepted before `until`.
    #[must_use]
    pub const fn new(digest: Digest, until: Timestamp) -> Self {
        Self { digest, until }
    }
}

/// What a store keeps for one session.
///
/// A store with columns reads and writes the fields; a store of keys and values keeps
/// [`encode`](Self::encode)'s bytes. Cloning is cheap: data and owner are shared. `Debug` shows
/// neither digests nor data.
///
/// ```
/// use cloakroom::store::{Digest, Record, Timestamp};
///
/// let now = Timestamp::from_millis(1_700_000_000_000);
/// let mut record = Record::new(Digest::from_bytes([7; 32]), now, Timestamp::MAX);
/// record.owner = Some("ada".into());
/// record.data = br#"{"theme":"dark"}"#.as_slice().into();
///
/// let bytes = record.encode();
/// assert_eq!(Record::decode(&bytes)?, record);
/// assert!(Record::decode(&bytes[..20]).unwrap_err().is_corrupt());
/// # Ok::<(), cloakroom::store::StoreError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// Counts the writes.
    pub version: Version,
    /// The digest of the current token.
    pub digest: Digest,
    /// The digest that a periodic renewal replaced, while it has grace.
    pub previous: Option<Previous>,
    /// The application's user id, once signed in: 1 to 255 bytes without NUL.
    pub owner: Option<Arc<str>>,
    /// When the session began.
    pub created: Timestamp,
    /// When its owner last signed in.
    pub authenticated: Option<Timestamp>,
    /// When the current token was made.
    pub renewed: Timestamp,
    /// When the session was last used, to within the touch interval.
    pub seen: Timestamp,
    /// When the session ends unless it is used: from then on the record counts as absent.
    pub expires: Timestamp,
    /// The session's own expiry policy, if it does not follow the layer's.
    pub policy: Option<ExpiryPolicy>,
    /// The session's values: a JSON object, one member a key. Opaque to a store.
    pub data: Content,
}

/// What [`Record::encode`] writes first. A form that older releases cannot read gets a new number.
const FORMAT: u8 = 1;

/// All that [`Record::encode`] writes besides the owner's text and the data.
const HEAD_LEN: usize = 139;

const HAS_PREVIOUS: u8 = 1;
const HAS_OWNER: u8 = 1 << 1;
const HAS_AUTHENTICATED: u8 = 1 << 2;
const HAS_POLICY: u8 = 1 << 3;

impl Record {
    /// The most that [`encode`](Self::encode) writes besides the data.
    #[cfg(feature = "encrypted")]
    pub(crate) const MAX_HEAD: usize = HEAD_LEN + 255;

    /// The first record of a session that begins now: no owner, data `{}`.
    #[must_use]
    pub fn new(digest: Digest, created: Timestamp, expires: Timestamp) -> Self {
        Self::with_data(digest, created, expires, Content::empty())
    }

    pub(crate) fn with_data(
        digest: Digest,
        created: Timestamp,
        expires: Timestamp,
        data: Content,
    ) -> Self {
        Self {
            version: Version::FIRST,
            digest,
            previous: None,
            owner: None,
            created,
            authenticated: None,
            renewed: created,
            seen: created,
            expires,
            policy: None,
            data,
        }
    }

    /// The record as bytes, for stores of keys and values.
    ///
    /// Numbers are big-endian and the version comes right after the format byte, where a script in
    /// the store finds it:
    ///
    /// | bytes | content |
    /// |---|---|
    /// | 1 | format: 1 |
    /// | 8 | version |
    /// | 8 | expires, in milliseconds since the epoch, like all times here |
    /// | 8 | seen |
    /// | 1 | which of the optional parts follow, from the lowest bit: previous, owner, authenticated, policy |
    /// | 32 | digest |
    /// | 8 + 8 | created, renewed |
    /// | 32 + 8 | previous digest and the end of its grace |
    /// | 1 + n | owner: its length and UTF-8 text |
    /// | 8 | authenticated |
    /// | 8 + 8 | policy: idle and absolute, in milliseconds |
    /// | rest | data |
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.encode_to(|part| out.extend_from_slice(part));
        out
    }

    /// How long the bytes get at most.
    pub(crate) fn encoded_len(&self) -> usize {
        HEAD_LEN + self.owner.as_deref().map_or(0, str::len) + self.data.len()
    }

    /// What all records of a version begin with.
    #[cfg(feature = "redis")]
    pub(crate) fn beginning(version: Version) -> [u8; 9] {
        let mut beginning = [FORMAT; 9];
        beginning[1..].copy_from_slice(&version.get().to_be_bytes());
        beginning
    }

    /// Hands out the bytes in parts, for who has a place for them.
    pub(crate) fn encode_to(&self, mut put: impl FnMut(&[u8])) {
        let mut flags = 0;
        for (present, flag) in [
            (self.previous.is_some(), HAS_PREVIOUS),
            (self.owner.is_some(), HAS_OWNER),
            (self.authenticated.is_some(), HAS_AUTHENTICATED),
            (self.policy.is_some(), HAS_POLICY),
        ] {
            flags |= if present { flag } else { 0 };
        }
        let bytes = |time: Timestamp| time.as_millis().to_be_bytes();
        put(&[FORMAT]);
        put(&self.version.get().to_be_bytes());
        put(&bytes(self.expires));
        put(&bytes(self.seen));
        put(&[flags]);
        put(self.digest.as_bytes());
        put(&bytes(self.created));
        put(&bytes(self.renewed));
        if let Some(previous) = &self.previous {
            put(previous.digest.as_bytes());
            put(&bytes(previous.until));
        }
        if let Some(owner) = &self.owner {
            // `sign_in` refuses longer ones.
            let len = u8::try_from(owner.len()).unwrap_or(u8::MAX);
            put(&[len]);
            put(&owner.as_bytes()[..usize::from(len)]);
        }
        if let Some(authenticated) = self.authenticated {
            put(&bytes(authenticated));
        }
        if let Some(policy) = self.policy {
            put(&whole_millis(policy.idle).to_be_bytes());
            put(&whole_millis(policy.absolute).to_be_bytes());
        }
        put(&self.data);
    }

    /// Reads what [`encode`](Self::encode) wrote, now or in an earlier release.
    ///
    /// # Errors
    ///
    /// [`StoreError::is_corrupt`] for bytes that are cut short or were never a record. Bytes in the
    /// format of a later release are an error that is *not* `is_corrupt`: during a rolling upgrade
    /// another instance can read them, so nobody's session is given up.
    pub fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let mut rest = Reader(bytes);
        match rest.byte()? {
            FORMAT => {}
            0 => {
                return Err(StoreError::corrupt(
                    "the record has format 0, which never was",
                ));
            }
            later => {
                let message =
                    format!("the record has format {later}; this release reads up to {FORMAT}");
                return Err(StoreError::new(message));
            }
        }
        let version = Version::new(rest.number()?);
        let expires = rest.time()?;
        let seen = rest.time()?;
        let flags = rest.byte()?;
        if flags & !(HAS_PREVIOUS | HAS_OWNER | HAS_AUTHENTICATED | HAS_POLICY) != 0 {
            return Err(StoreError::corrupt("the record has unknown parts"));
        }
        let has = |flag| flags & flag != 0;
        let digest = rest.digest()?;
        let created = rest.time()?;
        let renewed = rest.time()?;
        let previous = if has(HAS_PREVIOUS) {
            Some(Previous {
                digest: rest.digest()?,
                until: rest.time()?,
            })
        } else {
            None
        };
        let owner = if has(HAS_OWNER) {
            let len = rest.byte()?;
            let text = std::str::from_utf8(rest.take(usize::from(len))?);
            Some(text.map_err(StoreError::corrupt)?.into())
        } else {
            None
        };
        let authenticated = if has(HAS_AUTHENTICATED) {
            Some(rest.time()?)
        } else {
            None
        };
        let policy = if has(HAS_POLICY) {
            let idle = Duration::from_millis(rest.number()?);
            Some(ExpiryPolicy {
                idle,
                absolute: Duration::from_millis(rest.number()?),
            })
        } else {
            None
        };
        let data = rest.0.into();
        Ok(Self {
            version,
            digest,
            previous,
            owner,
            created,
            authenticated,
            renewed,
            seen,
            expires,
            policy,
            data,
        })
    }

    /// What the absolute timeout counts from: the last sign-in, or else the creation. A renewal does
    /// not move it (S-43).
    pub(crate) fn started(&self) -> Timestamp {
        self.authenticated.unwrap_or(self.created)
    }

    /// Whether the session lives at `now` within these limits.
    pub(crate) fn is_live(&self, limits: Limits, now: Timestamp) -> bool {
        let times = Times {
            started: self.started(),
            seen: self.seen,
            expires: self.expires,
        };
        limits.is_live(times, now)
    }

    /// Whether a client with a token of this digest may use the record at `now`.
    pub(crate) fn accepts(&self, digest: Digest, now: Timestamp) -> bool {
        // A clock that was set back starts no grace anew that was seen to end (S-49).
        let now = now.max(self.seen);
        // Both are compared, so that the time taken does not tell which one matched.
        let current = self.digest == digest;
        let in_grace = self
            .previous
            .is_some_and(|old| (old.digest == digest) & (now < old.until));
        current | in_grace
    }

    /// Whether the record still knows the digest as that of a replaced token, in its grace or not.
    pub(crate) fn had(&self, digest: Digest) -> bool {
        self.previous.is_some_and(|old| old.digest == digest)
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("version", &self.version)
            .field("owner", &self.owner)
            .field("created", &self.created)
            .field("authenticated", &self.authenticated)
            .field("renewed", &self.renewed)
            .field("seen", &self.seen)
            .field("expires", &self.expires)
            .field("policy", &self.policy)
            .field("data_len", &self.data.len())
            .finish_non_exhaustive()
    }
}

/// Takes fields from the front; never reads or allocates beyond what is there.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], StoreError> {
        let cut = || StoreError::corrupt("the record is cut short");
        let (head, tail) = self.0.split_at_checked(len).ok_or_else(cut)?;
        self.0 = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        self.array().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    fn time(&mut self) -> Result<Timestamp, StoreError> {
        self.number().map(Timestamp::from_millis)
    }

    fn digest(&mut self) -> Result<Digest, StoreError> {
        self.array().map(Digest::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Record {
        let at = Timestamp::from_millis;
        let mut record = Record::new(Digest::from_bytes([0xd1; 32]), at(1_000), at(5_000));
        record.version = Version::new(0x0102_0304_0506_0708);
        record.previous = Some(Previous::new(Digest::from_bytes([0xd0; 32]), at(3_000)));
        record.owner = Some("ada".into());
        record.authenticated = Some(at(2_000));
        record.renewed = at(2_500);
        record.seen = at(2_600);
        record.policy = Some(ExpiryPolicy::new(
            Duration::from_secs(60),
            Duration::from_secs(600),
        ));
        record.data = br#"{"a":1}"#.as_slice().into();
        record
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A later release must still read these: never change the expected bytes.
    #[test]
    fn the_stored_form_stays_readable() {
        let d = |byte: &str| byte.repeat(32);
        let least = Record::new(
            Digest::from_bytes([0xd1; 32]),
            Timestamp::from_millis(1_000),
            Timestamp::from_millis(5_000),
        );
        let least_hex = format!(
            "01 0000000000000001 0000000000001388 00000000000003e8 00 {} 00000000000003e8 00000000000003e8 7b7d",
            d("d1")
        );
        let full_hex = format!(
            "01 0102030405060708 0000000000001388 0000000000000a28 0f {} 00000000000003e8 00000000000009c4 \
             {} 0000000000000bb8 03616461 00000000000007d0 000000000000ea60 00000000000927c0 \
             7b2261223a317d",
            d("d1"),
            d("d0")
        );
        for (record, expected) in [(least, least_hex), (full(), full_hex)] {
            let bytes = record.encode();
            assert_eq!(hex(&bytes), expected.replace(' ', ""));
            assert_eq!(Record::decode(&bytes).unwrap(), record);
        }
    }

    /// S-74.
    #[test]
    fn damaged_bytes_are_corrupt_and_never_panic() {
        let bytes = full().encode();
        let fixed = bytes.len() - full().data.len();
        for len in 0..fixed {
            assert!(
                Record::decode(&bytes[..len]).unwrap_err().is_corrupt(),
                "cut at {len}"
            );
        }
        for (at, byte) in [(0, 0), (25, 0xff)] {
            let mut bytes = bytes.clone();
            bytes[at] = byte;
            assert!(Record::decode(&bytes).unwrap_err().is_corrupt());
        }
        let mut not_utf8 = bytes;
        let owner = fixed - 8 - 16 - 3;
        assert_eq!(not_utf8[owner..owner + 3], *b"ada");
        not_utf8[owner] = 0xff;
        assert!(Record::decode(&not_utf8).unwrap_err().is_corrupt());
    }

    #[test]
    fn a_later_format_is_refused_without_being_called_corrupt() {
        let mut bytes = full().encode();
        bytes[0] = 2;
        let error = Record::decode(&bytes).unwrap_err();
        assert!(!error.is_corrupt());
    }

    #[test]
    fn a_replaced_digest_is_accepted_in_its_grace_only() {
        let record = full();
        let before = Timestamp::from_millis(2_999);
        assert!(record.accepts(Digest::from_bytes([0xd1; 32]), Timestamp::MAX));
        assert!(record.accepts(Digest::from_bytes([0xd0; 32]), before));
        assert!(!record.accepts(
            Digest::from_bytes([0xd0; 32]),
            Timestamp::from_millis(3_000)
        ));
        assert!(!record.accepts(Digest::from_bytes([0xd2; 32]), before));
    }

    /// S-10.
    #[test]
    fn debug_shows_neither_digest_nor_data() {
        let shown = format!("{:?}", full());
        let expected = "Record { version: Version(72623859790382856), owner: Some(\"ada\"), \
             created: Timestamp(1000 ms), authenticated: Some(Timestamp(2000 ms)), \
             renewed: Timestamp(2500 ms), seen: Timestamp(2600 ms), expires: Timestamp(5000 ms), \
             policy: Some(ExpiryPolicy { idle: 60s, absolute: 600s }), data_len: 7, .. }";
        assert_eq!(shown, expected);
    }
}
