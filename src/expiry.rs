//! When a session ends: pure arithmetic on timestamps.

use std::time::Duration;

use crate::clock::{Timestamp, whole_millis};

/// How long a session lives: without activity, and at most.
///
/// Both hold together, on the server (ASVS 7.3.1, 7.3.2; NIST SP 800-63B section 2.2.3). The layer
/// has one for all sessions; [`Session::remember`](crate::Session::remember) gives a session its
/// own, which is stored in its record. An idle time beyond the absolute one is allowed and means
/// that only the absolute one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExpiryPolicy {
    /// The session ends when it has not been used for this long.
    pub idle: Duration,
    /// The session ends this long after its creation or its last sign-in, whatever happens.
    pub absolute: Duration,
}

impl ExpiryPolicy {
    /// A policy with these two limits; parts of a millisecond are dropped.
    #[must_use]
    pub const fn new(idle: Duration, absolute: Duration) -> Self {
        Self { idle, absolute }
    }
}

/// A policy in milliseconds, as times are counted: every request does arithmetic with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    idle: u64,
    absolute: u64,
}

impl From<ExpiryPolicy> for Limits {
    fn from(policy: ExpiryPolicy) -> Self {
        Self {
            idle: whole_millis(policy.idle),
            absolute: whole_millis(policy.absolute),
        }
    }
}

impl Limits {
    /// The idle timeout in milliseconds.
    pub(crate) fn idle(self) -> u64 {
        self.idle
    }

    /// The end of a session that began at `started` and is used at `now`.
    #[must_use]
    pub(crate) fn deadline(self, started: Timestamp, now: Timestamp) -> Timestamp {
        now.plus(self.idle).min(started.plus(self.absolute))
    }

    /// Whether a record with these times is live at `now`.
    ///
    /// Besides the stored deadline the policy is applied anew, so that shortened timeouts count at
    /// once, and so that a deadline which a wrong clock wrote does not. A start or a last use further
    /// in the future than the idle timeout cannot be true: the session is refused rather than left
    /// to live until then (S-49).
    #[must_use]
    pub(crate) fn is_live(self, times: Times, now: Timestamp) -> bool {
        let Times {
            started,
            seen,
            expires,
        } = times;
        now < expires
            && now < started.plus(self.absolute)
            && now < seen.plus(self.idle)
            && started.max(seen) <= now.plus(self.idle)
    }
}

/// The times of a record that decide whether it is live.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// What the absolute timeout counts from.
    pub(crate) started: Timestamp,
    /// When it was last used.
    pub(crate) seen: Timestamp,
    /// The stored deadline.
    pub(crate) expires: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const LIMITS: Limits = Limits {
        idle: 3_600_000,
        absolute: 24 * 3_600_000,
    };

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_millis(0).saturating_add(HOUR * u32::try_from(hours).unwrap())
    }

    #[test]
    fn the_earlier_of_idle_and_absolute_ends_a_session() {
        assert_eq!(LIMITS.deadline(at(100), at(100)), at(101));
        assert_eq!(LIMITS.deadline(at(100), at(123)), at(124));
        assert_eq!(
            LIMITS.deadline(at(100), Timestamp::from_millis(at(124).as_millis() - 1)),
            at(124)
        );
        let idle_beyond = Limits::from(ExpiryPolicy::new(Duration::MAX, HOUR));
        assert_eq!(idle_beyond.deadline(at(100), at(100)), at(101));
    }

    fn times(started: u64, seen: u64, expires: u64) -> Times {
        Times {
            started: at(started),
            seen: at(seen),
            expires: at(expires),
        }
    }

    #[test]
    fn a_session_is_live_until_its_deadline_and_not_at_it() {
        let just_before = Timestamp::from_millis(at(101).as_millis() - 1);
        assert!(LIMITS.is_live(times(100, 100, 101), just_before));
        assert!(!LIMITS.is_live(times(100, 100, 101), at(101)));
    }

    #[test]
    fn shortened_timeouts_count_for_stored_sessions() {
        assert!(LIMITS.is_live(times(100, 123, 200), at(123)));
        assert!(!LIMITS.is_live(times(100, 124, 200), at(124)));
        assert!(!LIMITS.is_live(times(100, 101, 200), at(102)));
    }

    /// S-49.
    #[test]
    fn a_time_far_in_the_future_is_refused_and_a_small_step_back_is_not() {
        let far = 87_660;
        assert!(LIMITS.is_live(times(101, 101, 102), at(100)));
        assert!(!LIMITS.is_live(times(far, far, far + 1), at(100)));
        assert!(!LIMITS.is_live(times(100, far, far + 1), at(100)));
        assert!(!LIMITS.is_live(times(100, 100, far), at(101)));
    }
}
