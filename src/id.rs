//! The public name of a session.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::clock::Timestamp;

/// The name of a session: a UUID, version 7, so that index inserts stay local.
///
/// It is **not secret** and opens nothing: fit for logs, "your devices" pages and admin URLs. It
/// tells its reader when the session began. It stays the same for the life of the session, also
/// when the token is renewed.
///
/// ```
/// use cloakroom::SessionId;
///
/// let id: SessionId = "018f5c1e-7a2b-7c3d-8e4f-0123456789ab".parse()?;
/// assert_eq!(id.to_string(), "018f5c1e-7a2b-7c3d-8e4f-0123456789ab");
/// assert_eq!(SessionId::from_bytes(*id.as_bytes()), id);
/// # Ok::<(), cloakroom::InvalidSessionId>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Uuid);

impl SessionId {
    /// The id with these bytes, in network order, as a store keeps them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// The id's bytes, in network order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    pub(crate) const fn new(now: Timestamp, random: &[u8; 10]) -> Self {
        Self(uuid::Builder::from_unix_timestamp_millis(now.as_millis(), random).into_uuid())
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl From<SessionId> for Uuid {
    fn from(id: SessionId) -> Self {
        id.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({})", self.0.hyphenated())
    }
}

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text)
            .map(Self)
            .map_err(|_| InvalidSessionId(()))
    }
}

impl Serialize for SessionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SessionId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A text that is not a [`SessionId`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidSessionId(());

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a session id is a UUID, such as 018f5c1e-7a2b-7c3d-8e4f-0123456789ab")
    }
}

impl std::error::Error for InvalidSessionId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_version_7_uuid_that_sorts_by_time() {
        let early = SessionId::new(Timestamp::from_millis(0x018f_5c1e_7a2b), &[0xff; 10]);
        let late = SessionId::new(Timestamp::from_millis(0x018f_5c1e_7a2c), &[0; 10]);
        assert_eq!(early.to_string(), "018f5c1e-7a2b-7fff-bfff-ffffffffffff");
        assert_eq!(late.to_string(), "018f5c1e-7a2c-7000-8000-000000000000");
        assert!(early < late);
    }

    #[test]
    fn an_id_travels_as_text_through_serde() {
        let id = SessionId::new(Timestamp::from_millis(1), &[7; 10]);
        let json = serde_json::to_string(&id).unwrap();
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<SessionId>(&json).unwrap(), id);
        assert!(serde_json::from_str::<SessionId>("\"x\"").is_err());
    }
}
