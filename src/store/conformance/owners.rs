//! The rules about the sessions of one owner.

use std::time::Duration;

use super::races::{RACERS, RACES, ROUNDS, race, together};
use super::records::{
    LARGE, MINUTE, after, another, before, ending, full, limited, now, record, second, session_id,
    versioned,
};
use super::rule::Rule;
use crate::clock::Timestamp;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, SessionStore, SignIn, Update, WhenFull};

/// Checks rule 15 of [`SessionStore`].
pub async fn list_by_owner_shows_live_sessions<S: SessionStore>(store: S) {
    let rule = Rule::new("list_by_owner_shows_live_sessions", store);
    let now = now();
    let (ada, grace) = (full(now), full(now));
    rule.listed(&ada, &[], now, "of an unknown owner").await;

    let one = rule.new_session(&ada, now).await;
    let two = rule.new_session(&another(&ada, now), now).await;
    let expired = ending(after(now, MINUTE), another(&ada, now));
    rule.new_session(&expired, now).await;
    let anonymous = rule.new_session(&record(now), now).await;
    let other = rule.new_session(&grace, now).await;
    let now = expired.expires;
    rule.listed(&ada, &[one, two], now, "when one has expired")
        .await;
    rule.listed(&grace, &[other], now, "of one").await;

    rule.swap(one, &second(&ada, now), Version::FIRST, now)
        .await;
    rule.touch(two, after(now, 90 * MINUTE), now).await;
    rule.listed(&ada, &[one, two], now, "after an `update` and a `touch`")
        .await;
    let moved = versioned(Version::new(3), another(&grace, now));
    rule.admit(one, &moved, Some(Version::new(2)), now).await;
    rule.listed(&ada, &[two], now, "after one changed its owner")
        .await;
    rule.listed(&grace, &[one, other], now, "after one changed its owner")
        .await;
    rule.admit(anonymous, &second(&ada, now), Some(Version::FIRST), now)
        .await;
    rule.listed(&ada, &[two, anonymous], now, "after one more got it")
        .await;
    rule.delete(two).await;
    rule.listed(&ada, &[anonymous], now, "after one was deleted")
        .await;
    rule.delete(anonymous).await;
    rule.listed(&ada, &[], now, "after the last was deleted")
        .await;
}

/// Checks rule 16 of [`SessionStore`].
pub async fn delete_by_owner_spares_only_the_kept<S: SessionStore>(store: S) {
    // S-57.
    let rule = Rule::new("delete_by_owner_spares_only_the_kept", store);
    let now = now();
    let (ada, grace, anonymous) = (full(now), full(now), record(now));
    let kept = rule.new_session(&ada, now).await;
    let one = rule.new_session(&another(&ada, now), now).await;
    let two = rule.new_session(&another(&ada, now), now).await;
    let other = rule.new_session(&grace, now).await;
    let nobodys = rule.new_session(&anonymous, now).await;
    let moved = rule.new_session(&another(&ada, now), now).await;
    let at_grace = second(&grace, now);
    rule.admit(moved, &at_grace, Some(Version::FIRST), now)
        .await;

    let removes = async |owner: &Record, keep, expected: usize| {
        let removed = rule.delete_by_owner(owner, keep, now).await;
        rule.check(
            removed == expected,
            format_args!("`delete_by_owner` of {expected} sessions says {removed}"),
        );
    };
    removes(&full(now), Some(kept), 0).await;
    removes(&ada, Some(kept), 2).await;
    for id in [one, two] {
        rule.absent(id, now, "after `delete_by_owner`").await;
        let updated = rule
            .update(id, &second(&ada, now), Version::FIRST, now)
            .await;
        rule.check(
            updated == Update::Gone,
            "`update` after `delete_by_owner` is not `Gone`",
        );
    }
    rule.stored(kept, &ada, now, "of the session to keep").await;
    rule.stored(other, &grace, now, "of another owner").await;
    rule.stored(moved, &at_grace, now, "that was this owner's once")
        .await;
    rule.stored(nobodys, &anonymous, now, "of nobody").await;
    rule.listed(&ada, &[kept], now, "after `delete_by_owner`")
        .await;

    // Those that have ended are removed, too, and not counted.
    let brief = full(now);
    let ended = ending(after(now, MINUTE), another(&brief, now));
    rule.new_session(&brief, now).await;
    rule.new_session(&ended, now).await;
    let removed = rule
        .delete_by_owner(&brief, None, after(now, 2 * MINUTE))
        .await;
    rule.check(
        removed == 1,
        format_args!("`delete_by_owner` of a session, and one that has expired, says {removed}"),
    );

    // Whom the kept one belongs to plays no part.
    removes(&ada, Some(other), 1).await;
    rule.absent(kept, now, "after `delete_by_owner`").await;
    removes(&ada, None, 0).await;
    removes(&grace, None, 2).await;
    rule.absent(other, now, "after `delete_by_owner`").await;
    rule.absent(moved, now, "after `delete_by_owner`").await;
    rule.stored(nobodys, &anonymous, now, "of nobody").await;
}

/// Checks rule 17 of [`SessionStore`].
pub async fn sign_in_stores_like_create_and_update<S: SessionStore>(store: S) {
    let rule = Rule::new("sign_in_stores_like_create_and_update", store);
    let now = now();
    signs_in_like_create(&rule, now).await;
    signs_in_like_update(&rule, now).await;
}

async fn signs_in_like_create<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let admission = Admission::new(now);
    let (id, first, other) = (session_id(), full(now), full(now));
    rule.admit(id, &first, None, now).await;
    rule.stored(id, &first, now, "after a `sign_in`").await;
    rule.listed(&first, &[id], now, "after a `sign_in`").await;

    let answer = rule.sign_in(id, &other, None, admission, now).await;
    rule.check(
        answer == SignIn::Taken,
        "`sign_in` of a new session with the id of a live one is not `Taken`",
    );
    rule.stored(id, &first, now, "after a refused `sign_in`")
        .await;
    rule.listed(&other, &[], now, "after a refused `sign_in`")
        .await;

    let old = ending(after(now, MINUTE), full(now));
    let id = rule.new_session(&old, now).await;
    rule.admit(id, &other, None, old.expires).await;
    rule.stored(id, &other, old.expires, "in an expired one's place")
        .await;
    rule.listed(&old, &[], now, "after it was replaced").await;

    for _ in 0..RACES {
        let (id, first) = (session_id(), full(now));
        let done = together((0..RACERS).map(|_| {
            let (rule, record) = (rule.clone(), another(&first, now));
            async move {
                let answer = rule.sign_in(id, &record, None, admission, now).await;
                (answer == SignIn::Done).then_some(record)
            }
        }));
        let winner = rule.winner(done.await, "`sign_in`s");
        rule.stored(id, &winner, now, "after parallel `sign_in`s")
            .await;
        rule.listed(&winner, &[id], now, "after parallel `sign_in`s")
            .await;
    }
}

async fn signs_in_like_update<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let admission = Admission::new(now);
    let version = |n: u64| Version::new(LARGE + n);
    let first = versioned(version(0), record(now));
    let id = rule.new_session(&first, now).await;
    let ada = versioned(version(1), full(now));
    rule.admit(id, &ada, Some(version(0)), now).await;
    rule.stored(id, &ada, now, "after it got an owner").await;
    rule.listed(&ada, &[id], now, "after one got this owner")
        .await;
    let grace = versioned(version(2), full(now));
    rule.admit(id, &grace, Some(version(1)), now).await;
    rule.stored(id, &grace, now, "after it changed its owner")
        .await;
    rule.listed(&ada, &[], now, "after one changed its owner")
        .await;
    rule.listed(&grace, &[id], now, "after one changed its owner")
        .await;

    let refused = full(now);
    for expected in [version(0), version(1), version(3)] {
        let new = versioned(expected.next(), refused.clone());
        match rule.sign_in(id, &new, Some(expected), admission, now).await {
            SignIn::Conflict(carried) => rule.same(&carried, &grace, "in a conflict"),
            _ => rule.broken("`sign_in` with another version is not a `Conflict`"),
        }
        rule.stored(id, &grace, now, "after a conflict").await;
    }
    let deleted = rule.new_session(&record(now), now).await;
    rule.delete(deleted).await;
    let expired = ending(after(now, MINUTE), record(now));
    let expired_id = rule.new_session(&expired, now).await;
    for (id, now) in [
        (session_id(), now),
        (deleted, now),
        (expired_id, expired.expires),
    ] {
        let new = versioned(Version::FIRST.next(), refused.clone());
        let answer = rule.sign_in(id, &new, Some(Version::FIRST), admission, now);
        rule.check(
            answer.await == SignIn::Gone,
            "`sign_in` of a session that is not there is not `Gone`",
        );
        rule.absent(id, now, "after a `sign_in` too late").await;
    }
    rule.listed(&refused, &[], now, "after a refused `sign_in`")
        .await;

    // S-65: an `update` and a `sign_in` do not overwrite each other.
    for round in 0..RACES {
        let (id, owner) = (rule.new_session(&record(now), now).await, full(now));
        let done = together((0..RACERS).map(|n| {
            let of = if (n + round) % 2 == 0 {
                &owner
            } else {
                &record(now)
            };
            let (rule, new) = (rule.clone(), second(of, now));
            async move {
                let done = if new.owner.is_some() {
                    let answer = rule.sign_in(id, &new, Some(Version::FIRST), admission, now);
                    answer.await == SignIn::Done
                } else {
                    rule.update(id, &new, Version::FIRST, now).await == Update::Done
                };
                done.then_some(new)
            }
        }));
        let winner = rule.winner(done.await, "`sign_in`s and `update`s");
        rule.stored(id, &winner, now, "after parallel `sign_in`s and `update`s")
            .await;
        let ids = [id];
        let ids = &ids[..usize::from(winner.owner.is_some())];
        rule.listed(&owner, ids, now, "after parallel `sign_in`s and `update`s")
            .await;
    }
    // S-62.
    for round in 0..ROUNDS {
        let (id, new) = (
            rule.new_session(&record(now), now).await,
            second(&full(now), now),
        );
        let (one, other, raced) = (rule.clone(), rule.clone(), new.clone());
        let sign_in = async move {
            one.sign_in(id, &raced, Some(Version::FIRST), admission, now)
                .await
        };
        let delete = async move { other.delete(id).await };
        _ = race(round, sign_in, delete).await;
        rule.absent(id, now, "after a `sign_in` met a `delete`")
            .await;
        rule.listed(&new, &[], now, "after a `sign_in` met a `delete`")
            .await;
    }
}

/// Checks rule 18 of [`SessionStore`].
pub async fn sign_in_is_refused_after_a_revocation<S: SessionStore>(store: S) {
    let rule = Rule::new("sign_in_is_refused_after_a_revocation", store);
    let now = now();
    revokes_what_began_before(&rule, now).await;
    spares_what_every_revocation_kept(&rule, now).await;
    revokes_what_is_under_way(&rule, now).await;
}

async fn revokes_what_began_before<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let ada = full(now);
    let revoked = async |began, now, when| {
        let (id, new) = (session_id(), another(&ada, now));
        let answer = rule.sign_in(id, &new, None, Admission::new(began), now);
        rule.check(
            answer.await == SignIn::Revoked,
            format_args!("`sign_in` of a new session {when} is not `Revoked`"),
        );
        rule.absent(id, now, "after a revoked `sign_in`").await;

        let (first, new) = (record(now), versioned(Version::FIRST.next(), new));
        let id = rule.new_session(&first, now).await;
        let expected = Some(Version::FIRST);
        let answer = rule.sign_in(id, &new, expected, Admission::new(began), now);
        rule.check(
            answer.await == SignIn::Revoked,
            format_args!("`sign_in` {when} is not `Revoked`"),
        );
        rule.stored(id, &first, now, "after a revoked `sign_in`")
            .await;
    };
    let (a_millisecond, at) = (Duration::from_millis(1), now);
    rule.delete_by_owner(&ada, None, at).await;
    revoked(at, now, "that began when the owner was revoked").await;
    revoked(before(at, a_millisecond), now, "that began just before").await;
    let earlier = before(at, 30 * MINUTE);
    revoked(earlier, now, "that began long before").await;
    let later = after(now, 50 * MINUTE);
    revoked(at, later, "50 minutes after the revocation").await;
    rule.listed(&ada, &[], now, "after revoked `sign_in`s")
        .await;

    let grace = full(now);
    let welcome = [
        (
            &ada,
            after(at, a_millisecond),
            "that began after the revocation",
        ),
        (&grace, earlier, "of another owner than the revoked"),
    ];
    for (owner, began, when) in welcome {
        let (id, new) = (session_id(), another(owner, now));
        let answer = rule.sign_in(id, &new, None, Admission::new(began), now);
        rule.check(
            answer.await == SignIn::Done,
            format_args!("`sign_in` {when} is not `Done`"),
        );
        rule.stored(id, &new, now, "after a `sign_in`").await;
        rule.listed(owner, &[id], now, "after a `sign_in`").await;
    }

    // By a clock that is behind, or overtaken on the way.
    rule.delete_by_owner(&ada, None, earlier).await;
    revoked(at, now, "revoked, and then at an earlier time").await;
}

async fn spares_what_every_revocation_kept<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let earlier = before(now, 10 * MINUTE);
    let between = before(now, 5 * MINUTE);
    let ada = full(now);
    let kept = rule.new_session(&record(now), now).await;
    rule.delete_by_owner(&ada, Some(kept), now).await;
    let admission = Admission::new(earlier);
    let new = second(&ada, now);
    let answer = rule.sign_in(kept, &new, Some(Version::FIRST), admission, now);
    rule.check(
        answer.await == SignIn::Done,
        "`sign_in` of the kept session is not `Done`",
    );
    rule.stored(kept, &new, now, "of the session to keep").await;

    // What is refused makes no room for itself.
    let limited = limited(earlier, 1, WhenFull::EvictOldest);
    let new = another(&ada, now);
    let answer = rule.sign_in(session_id(), &new, None, limited, now);
    rule.check(
        answer.await == SignIn::Revoked,
        "`sign_in` beside the kept session is not `Revoked`",
    );
    rule.listed(&ada, &[kept], now, "after a revoked `sign_in`")
        .await;

    // Each revocation has its own session to keep, and one that comes later takes none back.
    let (id, other) = (session_id(), session_id());
    let (this, that) = (Some(id), Some(other));
    let twice = [
        ([(this, earlier), (this, now)], earlier, SignIn::Done),
        ([(None, earlier), (this, now)], between, SignIn::Done),
        ([(None, earlier), (this, now)], earlier, SignIn::Revoked),
        ([(this, now), (None, earlier)], earlier, SignIn::Revoked),
        ([(this, now), (that, earlier)], between, SignIn::Done),
        ([(this, now), (that, now)], now, SignIn::Revoked),
        ([(that, now), (this, now)], now, SignIn::Revoked),
        ([(this, earlier), (None, now)], between, SignIn::Revoked),
        ([(None, now), (this, earlier)], between, SignIn::Revoked),
    ];
    for (revocations, began, expected) in twice {
        let owner = full(now);
        for (keep, at) in revocations {
            rule.delete_by_owner(&owner, keep, at).await;
        }
        let answer = rule.sign_in(id, &owner, None, Admission::new(began), now);
        let answer = answer.await;
        rule.check(
            answer == expected,
            format_args!(
                "`sign_in` that began at {began:?} after revocations that keep and are at \
                 {revocations:?} is {answer:?}, not {expected:?}; its id is {id:?}"
            ),
        );
        rule.delete(id).await;
    }
}

async fn revokes_what_is_under_way<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    // S-60.
    let admission = Admission::new(now);
    for round in 0..ROUNDS {
        let owner = full(now);
        let first = record(now);
        // Every other one is there already.
        let (id, expected, new) = if round / 2 % 2 == 0 {
            (session_id(), None, another(&owner, now))
        } else {
            let id = rule.new_session(&first, now).await;
            (id, Some(Version::FIRST), second(&owner, now))
        };
        let (one, other, of) = (rule.clone(), rule.clone(), owner.clone());
        let sign_in = async move { one.sign_in(id, &new, expected, admission, now).await };
        let revoke = async move { other.delete_by_owner(&of, None, now).await };
        let (answer, removed) = race(round, sign_in, revoke).await;
        let when = "after a `sign_in` met a revocation";
        match (answer, removed, expected) {
            (SignIn::Done, 1, _) | (SignIn::Revoked, 0, None) => rule.absent(id, now, when).await,
            (SignIn::Revoked, 0, Some(_)) => rule.stored(id, &first, now, when).await,
            (answer, removed, _) => rule.broken(format_args!(
                "`sign_in` is {answer:?}, and the revocation at once with it removes {removed}"
            )),
        }
        rule.listed(&owner, &[], now, when).await;
    }
    for _ in 0..RACES {
        let owner = full(now);
        together((0..RACERS).map(|n| {
            let (rule, owner) = (rule.clone(), owner.clone());
            async move {
                if n == RACERS / 2 {
                    rule.delete_by_owner(&owner, None, now).await;
                } else {
                    let new = another(&owner, now);
                    let _ = rule.sign_in(session_id(), &new, None, admission, now).await;
                }
            }
        }))
        .await;
        rule.listed(&owner, &[], now, "after `sign_in`s met a revocation")
            .await;
    }
}

/// Checks rule 19 of [`SessionStore`].
pub async fn sign_in_keeps_the_limit<S: SessionStore>(store: S) {
    // S-59.
    let rule = Rule::new("sign_in_keeps_the_limit", store);
    let now = now();
    counts_the_live_of_one_owner(&rule, now).await;
    evicts_who_signed_in_earliest(&rule, now).await;
    keeps_the_limit_in_a_race(&rule, now).await;
}

/// An owner's three sessions, from the one that signed in earliest; two others are in the way of who
/// counts what is not live or not this owner's.
async fn three<S: SessionStore>(rule: &Rule<S>, owner: &Record, now: Timestamp) -> [SessionId; 3] {
    let mut ids = [(); 3].map(|()| session_id());
    ids.sort_unstable();
    // Neither the order of the ids, nor that in which they began or are stored.
    let [b, c, a] = ids;
    for (id, signed_in, began) in [(b, 8, 15), (a, 9, 10), (c, 7, 20)] {
        let mut record = another(owner, now);
        record.authenticated = Some(before(now, MINUTE * signed_in));
        record.created = before(now, MINUTE * began);
        rule.admit(id, &record, None, now).await;
    }
    let mut expired = ending(after(now, MINUTE), another(owner, now));
    expired.authenticated = Some(before(now, 6 * MINUTE));
    rule.new_session(&expired, now).await;
    rule.new_session(&full(now), now).await;
    [a, b, c]
}

async fn counts_the_live_of_one_owner<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let owner = full(now);
    let [a, b, c] = three(rule, &owner, now).await;
    // When one more has expired.
    let now = after(now, MINUTE);
    let sign_in = async |id, expected: Option<u64>, max, when_full| {
        let mut new = another(&owner, now);
        new.version = Version::new(expected.unwrap_or_default() + 1);
        let admission = limited(now, max, when_full);
        rule.sign_in(id, &new, expected.map(Version::new), admission, now)
            .await
    };
    let is = |what, got: SignIn, expected: SignIn| {
        rule.check(
            got == expected,
            format_args!("`sign_in` {what} answers {got:?}, not {expected:?}"),
        );
    };

    let refuse = WhenFull::Refuse;
    let (new, nobodys) = (session_id(), record(now));
    let nobodys_id = rule.new_session(&nobodys, now).await;
    is(
        "of a fourth",
        sign_in(new, None, 3, refuse).await,
        SignIn::Full,
    );
    let fourth = sign_in(nobodys_id, Some(1), 3, refuse).await;
    is("of a fourth that was there", fourth, SignIn::Full);
    rule.absent(new, now, "of an owner who has enough").await;
    rule.stored(nobodys_id, &nobodys, now, "of an owner who has enough")
        .await;
    rule.listed(&owner, &[a, b, c], now, "after a refused `sign_in`")
        .await;
    let third = sign_in(a, Some(1), 3, refuse).await;
    is("of the third again", third, SignIn::Done);
    let third = sign_in(a, Some(2), 2, refuse).await;
    is("of the third again, of two", third, SignIn::Full);

    // What is not stored evicts nobody.
    let evict = WhenFull::EvictOldest;
    is(
        "of an id that is taken",
        sign_in(a, None, 1, evict).await,
        SignIn::Taken,
    );
    let gone = sign_in(new, Some(1), 1, evict).await;
    is("of an unknown id", gone, SignIn::Gone);
    let conflict = sign_in(a, Some(1), 1, evict).await;
    rule.check(
        matches!(conflict, SignIn::Conflict(_)),
        "`sign_in` with another version is not a `Conflict`",
    );
    rule.listed(&owner, &[a, b, c], now, "after a refused `sign_in`")
        .await;

    is(
        "of a fourth, of four",
        sign_in(new, None, 4, refuse).await,
        SignIn::Done,
    );
    rule.listed(&owner, &[a, b, c, new], now, "with room for a fourth")
        .await;
}

async fn evicts_who_signed_in_earliest<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    let owner = full(now);
    let [a, b, c] = three(rule, &owner, now).await;
    let (began, now) = (now, after(now, MINUTE));
    let (d, e) = (session_id(), session_id());
    // Who, the version, how many minutes ago, how many at most, who is evicted, and who is left.
    let steps: [(_, _, u32, _, &[_], &[_]); 6] = [
        (c, Some(1), 7, 3, &[], &[a, b, c]),
        (d, None, 0, 4, &[], &[a, b, c, d]),
        // Even the one that signed in earliest, if it is the one that does so now.
        (a, Some(1), 9, 4, &[], &[a, b, c, d]),
        (e, None, 10, 4, &[a], &[b, c, d, e]),
        (c, Some(2), 7, 3, &[e], &[b, c, d]),
        (b, Some(1), 0, 1, &[c, d], &[b]),
    ];
    for (id, expected, signed_in, max, evicted, left) in steps {
        let mut new = another(&owner, now);
        new.version = Version::new(expected.unwrap_or_default() + 1);
        new.authenticated = Some(before(began, MINUTE * signed_in));
        let admission = limited(now, max, WhenFull::EvictOldest);
        let expected = expected.map(Version::new);
        let answer = rule.sign_in(id, &new, expected, admission, now).await;
        rule.check(
            answer == SignIn::Done,
            format_args!("`sign_in` that evicts answers {answer:?}"),
        );
        let when = format!("after a `sign_in` of at most {max}");
        rule.stored(id, &new, now, &when).await;
        rule.listed(&owner, left, now, &when).await;
        for id in evicted {
            rule.absent(*id, now, "of one that signed in earlier").await;
        }
    }
}

async fn keeps_the_limit_in_a_race<S: SessionStore>(rule: &Rule<S>, now: Timestamp) {
    const MAX: usize = 3;
    for when_full in [WhenFull::Refuse, WhenFull::EvictOldest].repeat(RACES) {
        let owner = full(now);
        let admission = limited(now, MAX, when_full);
        let mut racers = Vec::new();
        for n in 0..RACERS {
            // Every other one is there already.
            let (id, expected) = if n % 2 == 0 {
                (session_id(), None)
            } else {
                let id = rule.new_session(&record(now), now).await;
                (id, Some(Version::FIRST))
            };
            let (rule, new) = (rule.clone(), second(&owner, now));
            racers.push(async move {
                let answer = rule.sign_in(id, &new, expected, admission, now).await;
                (id, new, answer)
            });
        }
        let (mut done, mut live) = (0, Vec::new());
        for (id, new, answer) in together(racers).await {
            done += usize::from(answer == SignIn::Done);
            let found = rule.load(id, now).await;
            if let Some(found) = found.filter(|found| found.owner.is_some()) {
                rule.check(answer == SignIn::Done, "a refused `sign_in` is stored");
                rule.same(&found, &new, "after parallel `sign_in`s");
                live.push(id);
            }
        }
        let expected = if when_full == WhenFull::Refuse {
            MAX
        } else {
            RACERS
        };
        rule.check(
            (done, live.len()) == (expected, MAX),
            format_args!(
                "of {RACERS} parallel `sign_in`s with the limit {MAX} ({when_full:?}) {done} are \
                 done, and {} are live",
                live.len()
            ),
        );
        rule.listed(&owner, &live, now, "after parallel `sign_in`s")
            .await;
    }
}
