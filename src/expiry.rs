//! When a session ends: pure arithmetic on timestamps.

use std::time::Duration;

use crate::clock::Timestamp;

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

    /// The end of a session that began at `started` and is used at `now`.
    #[must_use]
    pub(crate) fn deadline(self, started: Timestamp, now: Timestamp) -> Timestamp {
        now.saturating_add(self.idle)
            .min(started.saturating_add(self.absolute))
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
            && now < started.saturating_add(self.absolute)
            && now < seen.saturating_add(self.idle)
            && started.max(seen).saturating_since(now) <= self.idle
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
    const POLICY: ExpiryPolicy = ExpiryPolicy::new(HOUR, Duration::from_secs(24 * 3600));

    fn at(hours: u64) -> Timestamp {
        Timestamp::from_millis(0).saturating_add(HOUR * u32::try_from(hours).unwrap())
    }

    #[test]
    fn the_earlier_of_idle_and_absolute_ends_a_session() {
        assert_eq!(POLICY.deadline(at(100), at(100)), at(101));
        assert_eq!(POLICY.deadline(at(100), at(123)), at(124));
        assert_eq!(
            POLICY.deadline(at(100), Timestamp::from_millis(at(124).as_millis() - 1)),
            at(124)
        );
        let idle_beyond = ExpiryPolicy::new(Duration::MAX, HOUR);
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
        assert!(POLICY.is_live(times(100, 100, 101), just_before));
        assert!(!POLICY.is_live(times(100, 100, 101), at(101)));
    }

    #[test]
    fn shortened_timeouts_count_for_stored_sessions() {
        assert!(POLICY.is_live(times(100, 123, 200), at(123)));
        assert!(!POLICY.is_live(times(100, 124, 200), at(124)));
        assert!(!POLICY.is_live(times(100, 101, 200), at(102)));
    }

    /// S-49.
    #[test]
    fn a_time_far_in_the_future_is_refused_and_a_small_step_back_is_not() {
        let far = 87_660;
        assert!(POLICY.is_live(times(101, 101, 102), at(100)));
        assert!(!POLICY.is_live(times(far, far, far + 1), at(100)));
        assert!(!POLICY.is_live(times(100, far, far + 1), at(100)));
        assert!(!POLICY.is_live(times(100, 100, far), at(101)));
    }
}
