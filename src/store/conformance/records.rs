//! What the rules have stored: records, ids and owners that nobody else has.

use std::num::NonZeroUsize;
use std::time::{Duration, SystemTime};

use crate::clock::Timestamp;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, OwnerLimit, WhenFull};
use crate::token::Digest;

pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// Neighbours of this number are the same to a store that computes with floating-point numbers.
pub(super) const LARGE: u64 = 1 << 53;

/// A record with as few fields set as can be, that lives for an hour.
pub(super) fn record(now: Timestamp) -> Record {
    Record::new(digest(), now, after(now, 60 * MINUTE))
}

/// A record with all fields set, an owner of its own, that lives for an hour.
pub(super) fn full(now: Timestamp) -> Record {
    let mut record = record(now);
    record.previous = Some(Previous::new(digest(), after(now, MINUTE)));
    record.owner = Some(format!("owner of {}", session_id()).into());
    record.authenticated = Some(before(now, Duration::from_millis(1)));
    record.renewed = before(now, Duration::from_millis(2));
    record.created = before(now, Duration::from_millis(3));
    record.policy = Some(ExpiryPolicy::new(
        Duration::from_millis(1_001),
        400 * 24 * 60 * MINUTE,
    ));
    record.data = format!("{{\"of\":\"{}\"}}", session_id())
        .into_bytes()
        .into();
    record
}

/// A record with all fields set but the owner.
pub(super) fn unowned(now: Timestamp) -> Record {
    Record {
        owner: None,
        ..full(now)
    }
}

/// A record with all fields set and the same owner.
pub(super) fn another(of: &Record, now: Timestamp) -> Record {
    Record {
        owner: of.owner.clone(),
        ..full(now)
    }
}

/// A record with all fields set and the same owner that replaces the first one of a session.
pub(super) fn second(of: &Record, now: Timestamp) -> Record {
    versioned(Version::FIRST.next(), another(of, now))
}

/// Admission of a sign-in that began then, of an owner with at most `max` sessions.
pub(super) fn limited(began: Timestamp, max: usize, when_full: WhenFull) -> Admission {
    let max = NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
    Admission {
        limit: Some(OwnerLimit::new(max, when_full)),
        ..Admission::new(began)
    }
}

pub(super) fn versioned(version: Version, record: Record) -> Record {
    Record { version, ..record }
}

pub(super) fn ending(expires: Timestamp, record: Record) -> Record {
    Record { expires, ..record }
}

/// The name of a record's owner, if it has one.
pub(super) fn name(record: &Record) -> &str {
    record.owner.as_deref().unwrap_or_default()
}

pub(super) fn now() -> Timestamp {
    SystemTime::now().into()
}

pub(super) fn after(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by)
}

pub(super) fn before(time: Timestamp, by: Duration) -> Timestamp {
    let since_epoch = time.saturating_since(Timestamp::from_millis(0));
    Timestamp::from_millis(0).saturating_add(since_epoch.saturating_sub(by))
}

pub(super) fn session_id() -> SessionId {
    SessionId::from_bytes(random())
}

pub(super) fn digest() -> Digest {
    Digest::from_bytes(random())
}

pub(super) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
