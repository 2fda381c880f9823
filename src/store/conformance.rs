//! The suite that every store passes: one function for each rule of [`SessionStore`].
//!
//! [`conformance_tests!`](crate::conformance_tests) makes a test of each:
//!
//! ```
//! use cloakroom::MemoryStore;
//!
//! cloakroom::conformance_tests!(memory, async { MemoryStore::new() });
//! # fn main() {}
//! ```
//!
//! ```text
//! test memory::create_stores_the_record ... ok
//! test memory::create_never_overwrites ... ok
//! …
//! ```
//!
//! A function takes the store by value; give it a clone or an `Arc` to keep the store. It panics if
//! the store breaks its rule, and quotes it. To have races that are real, run it on a runtime with
//! several threads.
//!
//! Ids and owners are made anew for each run, so functions, processes and runs can share a server, and
//! nothing need be cleaned up. A function leaves all records alone that it did not make, with two
//! exceptions. [`delete_expired_is_bounded`] removes whatever ended before some moment between 1970 and
//! 2001, and [`update_keeps_a_touch`] what ended in the first millisecond of 1970.
//! [`delete_all_leaves_nothing`] removes everything: **it needs a store of its own**, such as a table or
//! a prefix that nothing else uses. The times that the store is told are around the present,
//! less than an hour off, or of those years. No record ends while a test runs, so it does no harm if a
//! store drops records by a clock of its own.
//!
//! ```
//! use cloakroom::MemoryStore;
//! use cloakroom::store::conformance;
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = MemoryStore::new();
//! conformance::touch_only_extends(store.clone()).await;
//! # }
//! ```

mod owners;
mod races;
mod records;
mod rule;

use std::time::Duration;

use self::races::{RACERS, RACES, ROUNDS, race, together};
use self::records::{
    LARGE, MINUTE, after, another, before, digest, ending, full, name, now, random, record, second,
    session_id, unowned, versioned,
};
use self::rule::Rule;
use crate::clock::Timestamp;
use crate::data::Content;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{Admission, Create, SessionStore, SignIn, Update};

pub use self::owners::{
    delete_by_owner_spares_only_the_kept, list_by_owner_shows_live_sessions,
    sign_in_is_refused_after_a_revocation, sign_in_keeps_the_limit,
    sign_in_stores_like_create_and_update,
};

/// Makes a module with one test for each rule of [`SessionStore`](crate::store::SessionStore).
///
/// The first argument names the module; the second is an expression for a future of a store, which
/// each test evaluates anew. It sees what is in scope around the macro. Since the tests run at once and
/// [one of them](crate::store::conformance::delete_all_leaves_nothing) removes all sessions, the
/// stores must not share any: on a server, let the expression make a table or choose a prefix that
/// nothing else uses. The crate that uses it needs tokio with the features `macros` and
/// `rt-multi-thread` among its (dev-)dependencies.
///
/// See [`store::conformance`](crate::store::conformance).
#[macro_export]
macro_rules! conformance_tests {
    (@each $then:ident $($argument:tt)*) => {
        $crate::conformance_tests! {
            @$then $($argument)*:
            create_stores_the_record
            create_never_overwrites
            load_of_an_unknown_id_is_none
            expired_is_absent
            update_swaps_only_the_expected_version
            update_conflict_returns_the_current_record
            update_never_creates
            concurrent_updates_lose_nothing
            touch_only_extends
            touch_keeps_everything_else
            update_keeps_a_touch
            touch_never_creates
            delete_removes_for_good
            delete_expired_is_bounded
            list_by_owner_shows_live_sessions
            delete_by_owner_spares_only_the_kept
            sign_in_stores_like_create_and_update
            sign_in_is_refused_after_a_revocation
            sign_in_keeps_the_limit
            delete_all_leaves_nothing
            data_is_opaque
        }
    };
    (@tests $store:tt: $($rule:ident)*) => {
        $(
            #[::tokio::test(flavor = "multi_thread")]
            async fn $rule() {
                $crate::store::conformance::$rule($store.await).await;
            }
        )*
    };
    (@names: $($rule:ident)*) => {
        [$(stringify!($rule)),*]
    };
    ($name:ident, $store:expr $(,)?) => {
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            $crate::conformance_tests! { @each tests $store }
        }
    };
}

/// Checks rule 1 of [`SessionStore`].
pub async fn create_stores_the_record<S: SessionStore>(store: S) {
    let rule = Rule::new("create_stores_the_record", store);
    let now = now();
    let long_ago = Timestamp::from_millis(0);
    let longest = Duration::from_millis(Timestamp::MAX.as_millis());
    let extreme = Record {
        version: Version::new(LARGE + 1),
        previous: Some(Previous::new(digest(), Timestamp::MAX)),
        authenticated: Some(long_ago),
        expires: Timestamp::MAX,
        policy: Some(ExpiryPolicy::new(Duration::ZERO, longest)),
        ..record(long_ago)
    };
    let records = [record(now), unowned(now), extreme].map(|record| (session_id(), record));

    for (id, record) in &records {
        let created = rule.create(*id, record, now).await;
        rule.check(
            created == Create::Done,
            "`create` with a new id answers `Taken`",
        );
    }
    for (id, record) in &records {
        rule.stored(*id, record, now, "after `create`").await;
    }
}

/// Checks rule 2 of [`SessionStore`].
pub async fn create_never_overwrites<S: SessionStore>(store: S) {
    // S-02.
    let rule = Rule::new("create_never_overwrites", store);
    let now = now();
    let (id, first, second) = (session_id(), unowned(now), unowned(now));
    rule.have(id, &first, now).await;
    let created = rule.create(id, &second, now).await;
    rule.check(
        created == Create::Taken,
        "`create` with the id of a live record answers `Done`",
    );
    rule.stored(id, &first, now, "after a refused `create`")
        .await;

    for _ in 0..RACES {
        let id = session_id();
        let done = together((0..RACERS).map(|_| {
            let (rule, record) = (rule.clone(), unowned(now));
            async move {
                let created = rule.create(id, &record, now).await;
                (created == Create::Done).then_some(record)
            }
        }));
        let winner = rule.winner(done.await, "`create`s");
        rule.stored(id, &winner, now, "after parallel `create`s")
            .await;
    }
}

/// Checks rule 3 of [`SessionStore`].
pub async fn load_of_an_unknown_id_is_none<S: SessionStore>(store: S) {
    let rule = Rule::new("load_of_an_unknown_id_is_none", store);
    let now = now();
    rule.absent(session_id(), now, "in a store that never had it")
        .await;
    let mut id = *rule.new_session(&record(now), now).await.as_bytes();
    id[15] ^= 1;
    rule.absent(
        SessionId::from_bytes(id),
        now,
        "beside an id that differs in a bit",
    )
    .await;
}

/// Checks rule 4 of [`SessionStore`].
pub async fn expired_is_absent<S: SessionStore>(store: S) {
    // S-47.
    let rule = Rule::new("expired_is_absent", store);
    let present = now();
    let (began, ended) = (before(present, 20 * MINUTE), before(present, 10 * MINUTE));
    let soon = after(present, 10 * MINUTE);
    // By the caller's clock alone, to the millisecond; and by the store's own clock, too.
    for (created, expires, now) in [(present, soon, soon), (began, ended, present)] {
        let expiring = || ending(expires, full(created));
        let gone = "once it has expired";

        let id = rule.new_session(&expiring(), created).await;
        rule.absent(id, now, gone).await;

        let old = expiring();
        let (id, next) = (rule.new_session(&old, created).await, another(&old, now));
        let updated = rule.update(id, &next, Version::FIRST, now).await;
        rule.check(
            updated == Update::Gone,
            "`update` of an expired record is not `Gone`",
        );
        rule.absent(id, now, "after an `update` too late").await;

        let id = rule.new_session(&expiring(), created).await;
        let touched = rule.touch(id, after(now, MINUTE), now).await;
        rule.check(!touched, "`touch` of an expired record answers `true`");
        rule.absent(id, now, "after a `touch` too late").await;

        let old = expiring();
        rule.new_session(&old, created).await;
        rule.listed(&old, &[], now, gone).await;

        let (old, new) = (expiring(), unowned(now));
        let id = rule.new_session(&old, created).await;
        let created = rule.create(id, &new, now).await;
        rule.check(
            created == Create::Done,
            "an expired record stands in the way of a `create`",
        );
        rule.stored(id, &new, now, "in an expired one's place")
            .await;
        rule.listed(&old, &[], now, "after it was replaced").await;
    }

    // A store may remove what has expired whenever it is told the time. Who shares it and does this
    // just now may tell it a later time; but one undisturbed try shows that it can keep the record.
    for _ in 0..10 {
        let [seconds] = random();
        let expires = after(soon, 10 * MINUTE + Duration::from_secs(u64::from(seconds)));
        let id = rule
            .new_session(&ending(expires, full(present)), present)
            .await;
        let last = before(expires, Duration::from_millis(1));
        if rule.load(id, last).await.is_some() {
            return;
        }
    }
    rule.broken("a record is absent in its last millisecond");
}

/// Checks rule 5 of [`SessionStore`].
pub async fn update_swaps_only_the_expected_version<S: SessionStore>(store: S) {
    let rule = Rule::new("update_swaps_only_the_expected_version", store);
    let now = now();
    let version = |n: u64| Version::new(LARGE + n);
    let first = versioned(version(0), record(now));
    let id = rule.new_session(&first, now).await;

    let fuller = versioned(version(1), unowned(now));
    rule.swap(id, &fuller, version(0), now).await;
    rule.stored(id, &fuller, now, "after an `update` that set fields")
        .await;

    let updated = rule.update(id, &first, version(0), now).await;
    rule.check(
        updated != Update::Done,
        "`update` of the version before is `Done`",
    );
    rule.stored(id, &fuller, now, "after an `update` too late")
        .await;

    let mut sparse = versioned(version(2), record(now));
    sparse.expires = after(now, 55 * MINUTE);
    rule.swap(id, &sparse, version(1), now).await;
    rule.stored(id, &sparse, now, "after an `update` that cleared fields")
        .await;
}

/// Checks rule 6 of [`SessionStore`].
pub async fn update_conflict_returns_the_current_record<S: SessionStore>(store: S) {
    let rule = Rule::new("update_conflict_returns_the_current_record", store);
    let now = now();
    let mut current = versioned(Version::new(LARGE + 1), full(now));
    let id = rule.new_session(&current, now).await;
    let refused = async |current: &Record, when| {
        for expected in [1, LARGE, LARGE + 2].map(Version::new) {
            let new = versioned(expected.next(), another(current, now));
            match rule.update(id, &new, expected, now).await {
                Update::Conflict(carried) => rule.same(&carried, current, when),
                _ => rule.broken("`update` of another version is not a `Conflict`"),
            }
            rule.stored(id, current, now, when).await;
            rule.listed(current, &[id], now, when).await;
        }
    };
    refused(&current, "in a conflict").await;

    current.expires = after(current.expires, MINUTE);
    current.seen = now;
    let touched = rule.touch(id, current.expires, now).await;
    rule.check(touched, "`touch` of a live record answers `false`");
    refused(&current, "in a conflict after a `touch`").await;

    let next = versioned(current.version.next(), another(&current, now));
    rule.swap(id, &next, current.version, now).await;
    match rule.update(id, &current, current.version, now).await {
        Update::Conflict(carried) => rule.same(&carried, &next, "in a conflict after an `update`"),
        _ => rule.broken("`update` of the version before is not a `Conflict`"),
    }
}

/// Checks rule 7 of [`SessionStore`].
pub async fn update_never_creates<S: SessionStore>(store: S) {
    let rule = Rule::new("update_never_creates", store);
    let now = now();
    let refused = async |id, new: Record, when| {
        for expected in [Version::FIRST, Version::FIRST.next(), Version::new(0)] {
            let updated = rule.update(id, &new, expected, now).await;
            rule.check(
                updated == Update::Gone,
                format_args!("`update` {when} is not `Gone`"),
            );
        }
        rule.absent(id, now, &format!("after an `update` {when}"))
            .await;
        rule.listed(&new, &[], now, &format!("after an `update` {when}"))
            .await;
    };
    refused(session_id(), full(now), "of an unknown id").await;
    let deleted = full(now);
    let id = rule.new_session(&deleted, now).await;
    rule.delete(id).await;
    refused(id, second(&deleted, now), "of a deleted record").await;

    // S-62: neither order of the two leaves anything behind.
    for round in 0..ROUNDS {
        let first = full(now);
        let id = rule.new_session(&first, now).await;
        let new = second(&first, now);
        let (one, other, raced) = (rule.clone(), rule.clone(), new.clone());
        let update = async move { one.update(id, &raced, Version::FIRST, now).await };
        let delete = async move { other.delete(id).await };
        _ = race(round, update, delete).await;
        rule.absent(id, now, "after an `update` met a `delete`")
            .await;
        rule.listed(&new, &[], now, "after an `update` met a `delete`")
            .await;
    }
}

/// Checks rule 8 of [`SessionStore`].
pub async fn concurrent_updates_lose_nothing<S: SessionStore>(store: S) {
    const INCREMENTS: usize = 4;
    // S-65.
    let rule = Rule::new("concurrent_updates_lose_nothing", store);
    let now = now();

    for _ in 0..RACES {
        let first = full(now);
        let id = rule.new_session(&first, now).await;
        let done = together((0..RACERS).map(|_| {
            let (rule, new) = (rule.clone(), second(&first, now));
            async move {
                let updated = rule.update(id, &new, Version::FIRST, now).await;
                (updated == Update::Done).then_some(new)
            }
        }));
        let winner = rule.winner(done.await, "`update`s");
        rule.stored(id, &winner, now, "after parallel `update`s")
            .await;
    }

    // The length of the data counts the updates.
    let first = Record {
        data: Content::from(Vec::new()),
        ..record(now)
    };
    let id = rule.new_session(&first, now).await;
    together((0..RACERS).map(|_| {
        let (rule, mut current) = (rule.clone(), first.clone());
        async move {
            let mut done = 0;
            // Each conflict is another's success, so there are no more tries than successes.
            for _ in 0..RACERS * INCREMENTS {
                let mut next = current.clone();
                next.version = current.version.next();
                next.data = vec![b'+'; current.data.len() + 1].into();
                match rule.update(id, &next, current.version, now).await {
                    Update::Done => {
                        done += 1;
                        current = next;
                    }
                    Update::Conflict(newer) => current = newer,
                    Update::Gone => rule.broken("an `update` in a race is `Gone`"),
                }
                if done == INCREMENTS {
                    return;
                }
            }
            rule.broken("an `update` meets more conflicts than there are other updates");
        }
    }))
    .await;
    let counted = rule.load(id, now).await.map(|record| record.data.len());
    let expected = RACERS * INCREMENTS;
    rule.check(
        counted == Some(expected),
        format_args!("{expected} increments of a counter, each done, come to {counted:?}"),
    );
}

/// Checks rule 9 of [`SessionStore`].
pub async fn touch_only_extends<S: SessionStore>(store: S) {
    let rule = Rule::new("touch_only_extends", store);
    let now = now();
    let mut current = full(now);
    let id = rule.new_session(&current, now).await;
    let end = current.expires;
    let later = after(end, 10 * MINUTE);
    let moves = [
        (
            after(end, Duration::from_millis(1)),
            1,
            "a millisecond later",
        ),
        (later, 60_000, "later"),
        (end, 120_000, "earlier"),
        (later, 120_000, "to where it is"),
        (before(now, MINUTE), 120_001, "into the past"),
        (after(later, MINUTE), 0, "later, by a clock that is behind"),
        (later, 60_000, "earlier, by a clock that is behind"),
        (Timestamp::MAX, 120_002, "to the last moment"),
    ];
    for (expires, millis, how) in moves {
        let seen = after(now, Duration::from_millis(millis));
        let touched = rule.touch(id, expires, seen).await;
        rule.check(touched, format_args!("`touch` {how} answers `false`"));
        current.expires = current.expires.max(expires);
        current.seen = current.seen.max(seen);
        rule.stored(id, &current, now, &format!("after a `touch` {how}"))
            .await;
    }
}

/// Checks rule 10 of [`SessionStore`].
pub async fn touch_keeps_everything_else<S: SessionStore>(store: S) {
    let rule = Rule::new("touch_keeps_everything_else", store);
    let now = now();
    for mut current in [full(now), record(now)] {
        let id = rule.new_session(&current, now).await;
        current.expires = after(current.expires, MINUTE);
        current.seen = now;
        rule.touch(id, current.expires, now).await;
        rule.stored(id, &current, now, "after a `touch`").await;

        let next = second(&current, now);
        rule.swap(id, &next, current.version, now).await;
    }
    for round in 0..ROUNDS {
        let first = full(now);
        let id = rule.new_session(&first, now).await;
        let mut next = second(&first, now);
        let later = after(next.expires, MINUTE);
        let (one, other, raced) = (rule.clone(), rule.clone(), next.clone());
        let update = async move {
            let updated = one.update(id, &raced, Version::FIRST, now).await;
            one.check(
                updated == Update::Done,
                "a parallel `touch` disturbs an `update`",
            );
        };
        let touch = async move {
            let touched = other.touch(id, later, now).await;
            other.check(touched, "a parallel `update` disturbs a `touch`");
        };
        race(round, update, touch).await;
        // The update sets the end, too, so either may have had the last word on it.
        let expires = rule.load(id, now).await.map(|record| record.expires);
        if expires == Some(later) {
            next.expires = later;
        }
        rule.stored(id, &next, now, "after an `update` met a `touch`")
            .await;
    }
}

/// Checks rule 11 of [`SessionStore`].
pub async fn update_keeps_a_touch<S: SessionStore>(store: S) {
    let rule = Rule::new("update_keeps_a_touch", store);
    let began = now();
    let [loaded, touched, now, ahead] =
        [1, 2, 3, 4].map(|millis| after(began, Duration::from_millis(millis)));
    let [early, late] = [60, 70].map(|minutes| after(began, minutes * MINUTE));
    let over = Timestamp::from_millis(1);
    // The last use and the end: as stored, as given, and as they are then.
    let cases = [
        ((touched, late), (loaded, early), (touched, late)),
        ((now, late), (touched, early), (now, late)),
        // The touch moved nothing but the last use.
        ((touched, early), (loaded, early), (touched, early)),
        ((touched, early), (loaded, late), (touched, late)),
        // By what was loaded, the session would be over.
        ((touched, late), (loaded, over), (touched, late)),
        // It was loaded after the touch, or counts as use.
        ((touched, late), (touched, early), (touched, early)),
        ((touched, late), (now, early), (now, early)),
        ((now, late), (now, early), (now, early)),
        // A touch by a clock that is ahead; S-49: it does not outlast the next use.
        ((ahead, late), (loaded, early), (ahead, late)),
        ((ahead, late), (now, early), (now, early)),
    ];
    let set = |record: &mut Record, (seen, expires)| {
        record.seen = seen;
        record.expires = expires;
    };
    for (stored, given, kept) in cases {
        for first in [full(began), unowned(began)] {
            let first = ending(early, first);
            let id = rule.new_session(&first, began).await;
            rule.touch(id, stored.1, stored.0).await;
            let mut next = second(&first, began);
            set(&mut next, given);
            rule.swap(id, &next, Version::FIRST, now).await;
            set(&mut next, kept);
            let when = format!("after an `update` to {given:?} of {stored:?}");
            rule.stored(id, &next, now, &when).await;
            rule.delete_expired(over, 1_000).await;
            rule.stored(id, &next, now, &format!("{when} and a sweep"))
                .await;
            if next.owner.is_some() {
                rule.listed(&next, &[id], now, &when).await;
            }
        }
    }

    // Whichever of the two is first.
    for round in 0..ROUNDS {
        let first = ending(early, full(began));
        let id = rule.new_session(&first, began).await;
        let mut next = ending(early, second(&first, began));
        let (one, other, raced) = (rule.clone(), rule.clone(), next.clone());
        let update = async move { one.swap(id, &raced, Version::FIRST, now).await };
        let touch = async move { other.touch(id, late, touched).await };
        race(round, update, touch).await;
        set(&mut next, (touched, late));
        rule.stored(id, &next, now, "after an `update` met a `touch`")
            .await;
    }
}

/// Checks rule 12 of [`SessionStore`].
pub async fn touch_never_creates<S: SessionStore>(store: S) {
    let rule = Rule::new("touch_never_creates", store);
    let now = now();
    let refused = async |id, when| {
        let touched = rule.touch(id, after(now, MINUTE), now).await;
        rule.check(!touched, format_args!("`touch` {when} answers `true`"));
        rule.absent(id, now, &format!("after a `touch` {when}"))
            .await;
    };
    refused(session_id(), "of an unknown id").await;
    let deleted = full(now);
    let id = rule.new_session(&deleted, now).await;
    rule.delete(id).await;
    refused(id, "of a deleted record").await;
    rule.listed(&deleted, &[], now, "after it was deleted")
        .await;

    // S-64: neither order of the two leaves anything behind.
    for round in 0..ROUNDS {
        let record = full(now);
        let id = rule.new_session(&record, now).await;
        let (one, other) = (rule.clone(), rule.clone());
        let touch = async move { one.touch(id, after(now, 60 * MINUTE), now).await };
        let delete = async move { other.delete(id).await };
        race(round, touch, delete).await;
        rule.absent(id, now, "after a `touch` met a `delete`").await;
        rule.listed(&record, &[], now, "after a `touch` met a `delete`")
            .await;
    }
}

/// Checks rule 13 of [`SessionStore`].
pub async fn delete_removes_for_good<S: SessionStore>(store: S) {
    // S-52.
    let rule = Rule::new("delete_removes_for_good", store);
    let now = now();
    let (record, other) = (full(now), full(now));
    let id = rule.new_session(&record, now).await;
    let other_id = rule.new_session(&other, now).await;
    rule.check(
        rule.delete(id).await,
        "`delete` of a live record answers `false`",
    );
    rule.absent(id, now, "after its `delete`").await;
    let updated = rule
        .update(id, &second(&record, now), Version::FIRST, now)
        .await;
    rule.check(
        updated == Update::Gone,
        "`update` of a deleted record is not `Gone`",
    );
    let touched = rule.touch(id, after(now, MINUTE), now).await;
    rule.check(!touched, "`touch` of a deleted record answers `true`");
    rule.absent(id, now, "deleted, updated and touched").await;
    rule.listed(&record, &[], now, "after its `delete`").await;
    rule.check(!rule.delete(id).await, "a second `delete` answers `true`");
    rule.check(
        !rule.delete(session_id()).await,
        "`delete` of an unknown id answers `true`",
    );
    rule.stored(other_id, &other, now, "after another was deleted")
        .await;
    rule.listed(&other, &[other_id], now, "after another was deleted")
        .await;

    // The caller's clock was set back after a store's clock saw the record expire.
    let began = before(now, 20 * MINUTE);
    let expired = ending(before(now, 10 * MINUTE), full(began));
    let id = rule.new_session(&expired, began).await;
    rule.delete(id).await;
    rule.absent(id, began, "deleted, at a time before it expired")
        .await;
    rule.listed(&expired, &[], began, "deleted, at a time before it expired")
        .await;
}

/// Checks rule 14 of [`SessionStore`].
///
/// Others may sweep the same table meanwhile, this function in another process for one. So what looks
/// wrong is tried again, and what is wrong every time breaks the rule.
pub async fn delete_expired_is_bounded<S: SessionStore>(store: S) {
    let rule = Rule::new("delete_expired_is_bounded", store);
    let mut outcome = Ok(());
    for _ in 0..10 {
        outcome = sweep(&rule).await;
        if outcome.is_ok() {
            break;
        }
    }
    if let Err(what) = outcome {
        rule.broken(what);
    }
}

/// One try of [`delete_expired_is_bounded`].
async fn sweep<S: SessionStore>(rule: &Rule<S>) -> Result<(), String> {
    const EXPIRED: usize = 5;
    let offset = Duration::from_millis(u64::from_be_bytes(random()) % 1_000_000_000_000);
    let sweep = Timestamp::from_millis(1_000).saturating_add(offset);
    let began = before(sweep, Duration::from_secs(1));
    let is = |what: &str, got: usize, expected: usize| {
        if got == expected {
            Ok(())
        } else {
            Err(format!("{what} {got}, not {expected}"))
        }
    };
    // What runs that failed left behind.
    for _ in 0..1_000 {
        if rule.delete_expired(sweep, 1_000).await == 0 {
            break;
        }
    }

    let mut expired = Vec::new();
    for age in 0..EXPIRED {
        let age = Duration::from_millis(age.try_into().unwrap_or_default());
        let record = ending(before(sweep, age), record(began));
        expired.push(rule.new_session(&record, began).await);
    }
    let last = ending(after(sweep, Duration::from_millis(1)), record(began));
    let last_id = rule.new_session(&last, began).await;
    let live = ending(after(now(), 60 * MINUTE), record(began));
    let live_id = rule.new_session(&live, began).await;
    // Whether a record was removed shows at a time when it would be live. A later one is not given to
    // the store but for the sweep: it may remove what has expired whenever it hears the time.
    let left = async || {
        let mut left = 0;
        for id in &expired {
            left += usize::from(rule.load(*id, began).await.is_some());
        }
        left
    };

    if left().await == 0 {
        // They vanished by themselves.
        is(
            "`delete_expired` without expired records removes",
            rule.delete_expired(sweep, 9).await,
            0,
        )?;
    } else {
        is(
            "of 5 expired records, before any was to be removed, there are",
            left().await,
            EXPIRED,
        )?;
        for (limit, removed, remaining) in [(0, 0, 5), (2, 2, 3), (2, 2, 1), (9, 1, 0), (9, 0, 0)] {
            let answer = rule.delete_expired(sweep, limit).await;
            let call = format!("`delete_expired` with the limit {limit}");
            is(&format!("{call} says that it removed"), answer, removed)?;
            is(
                &format!("{call} leaves, of {EXPIRED} expired records,"),
                left().await,
                remaining,
            )?;
        }
        let last_left = rule.load(last_id, began).await.is_some();
        is(
            "of records that expire a millisecond later there are",
            last_left.into(),
            1,
        )?;
    }
    rule.stored(live_id, &live, began, "after `delete_expired`")
        .await;
    rule.delete(last_id).await;
    Ok(())
}

/// Checks rule 20 of [`SessionStore`].
///
/// It removes all sessions there are: give it a store, a table or a prefix of its own, and run it
/// once at a time.
pub async fn delete_all_leaves_nothing<S: SessionStore>(store: S) {
    const SESSIONS: usize = 300;
    // S-57.
    let rule = Rule::new("delete_all_leaves_nothing", store);
    let now = now();
    // What runs that failed left behind.
    rule.delete_all().await;

    let revoked = full(now);
    rule.delete_by_owner(&revoked, None, now).await;
    let mut sessions = Vec::new();
    for n in 0..SESSIONS {
        // Some of nobody, some of one owner each, some of one together.
        let record = match (n % 3, sessions.last()) {
            (0, _) | (_, None) => record(now),
            (1, _) => full(now),
            (_, Some((_, last))) => another(last, now),
        };
        sessions.push((rule.new_session(&record, now).await, record));
    }
    let removed = rule.delete_all().await;
    rule.check(
        removed == SESSIONS,
        format_args!("`delete_all` of {SESSIONS} sessions says {removed}"),
    );
    for (id, record) in &sessions {
        rule.absent(*id, now, "after `delete_all`").await;
        rule.listed(record, &[], now, "after `delete_all`").await;
    }
    let removed = rule.delete_all().await;
    rule.check(
        removed == 0,
        format_args!("`delete_all` without sessions says {removed}"),
    );

    // Nothing stays that is in the way of a new session, and a revocation is no session.
    for (id, record) in sessions.iter().take(3) {
        rule.have(*id, record, now).await;
        rule.stored(*id, record, now, "made after `delete_all`")
            .await;
    }
    let answer = rule.sign_in(session_id(), &revoked, None, Admission::new(now), now);
    rule.check(
        answer.await == SignIn::Revoked,
        "`delete_all` takes a revocation back",
    );

    // Expired ones may have vanished by themselves, but none is left.
    let began = before(now, 20 * MINUTE);
    let expired = ending(before(now, 10 * MINUTE), full(began));
    let id = rule.new_session(&expired, began).await;
    rule.delete_all().await;
    rule.absent(id, began, "after `delete_all`, at a time before it expired")
        .await;

    // S-62, S-64.
    for round in 0..ROUNDS {
        let first = full(now);
        let id = rule.new_session(&first, now).await;
        let (one, other, new) = (rule.clone(), rule.clone(), second(&first, now));
        let write = async move {
            match round / 2 % 3 {
                0 => _ = one.touch(id, after(now, 90 * MINUTE), now).await,
                1 => _ = one.update(id, &new, Version::FIRST, now).await,
                _ => {
                    let admission = Admission::new(now);
                    _ = one
                        .sign_in(id, &new, Some(Version::FIRST), admission, now)
                        .await;
                }
            }
        };
        race(round, write, async move { other.delete_all().await }).await;
        rule.absent(id, now, "after `delete_all` met a write").await;
        rule.listed(&first, &[], now, "after `delete_all` met a write")
            .await;
    }
}

/// Checks rule 21 of [`SessionStore`].
pub async fn data_is_opaque<S: SessionStore>(store: S) {
    let rule = Rule::new("data_is_opaque", store);
    let now = now();
    let bytes: Vec<u8> = (0..=255).collect();
    let data = [
        ("no data", vec![]),
        ("one zero byte", vec![0]),
        ("every byte there is", bytes.clone()),
        ("text that ends in a line break", b"{\"a\": 1}\r\n".to_vec()),
        ("64 KiB of data", bytes.repeat(256)),
        ("16 MiB of data", bytes.repeat(65_536)),
    ];
    for (what, data) in data {
        let first = Record {
            data: data.into(),
            ..record(now)
        };
        let id = rule.new_session(&first, now).await;
        rule.stored(id, &first, now, &format!("with {what}")).await;
        let next = versioned(Version::FIRST.next(), first);
        let updated = rule.update(id, &next, Version::FIRST, now).await;
        rule.check(
            updated == Update::Done,
            format_args!("`update` with {what} is not `Done`"),
        );
        rule.stored(id, &next, now, &format!("updated with {what}"))
            .await;
        rule.delete(id).await;
    }

    // A store that folds case, trims, normalizes, cuts off or matches patterns takes some of these
    // for each other.
    let stem = name(&full(now)).to_owned();
    let mut owners: Vec<String> = [
        "",
        " ",
        "a",
        "A",
        "\u{e9}",
        "e\u{301}",
        "e",
        "\t",
        "%",
        "_",
        "*",
        "?",
        "[a-z]",
        "\\",
        "'",
        "\"",
        "{x}",
        ":",
        "/",
        "\u{1f9e5}",
        "\u{ff21}",
    ]
    .map(|tail| format!("{stem}{tail}"))
    .into();
    owners.push(format!(" {stem}"));
    owners.push(format!("{stem:x<254}y"));
    owners.push(format!("{stem:x<254}z"));
    // One byte each; others may have the same, so these are looked for among whatever is there.
    let short = ["x".to_owned(), "\u{1}".to_owned()];
    let mut sessions = Vec::new();
    for owner in owners.into_iter().chain(short) {
        let record = Record {
            owner: Some(owner.as_str().into()),
            ..full(now)
        };
        sessions.push((rule.new_session(&record, now).await, record));
    }
    for (id, record) in &sessions {
        let when = format!("of the owner {:?}", name(record));
        rule.stored(*id, record, now, &when).await;
        if name(record).len() > 1 {
            rule.listed(record, &[*id], now, &when).await;
        } else {
            let listed = rule.list_by_owner(name(record), now).await;
            rule.check(
                listed.iter().any(|(other, _)| other == id),
                format_args!("{when}: not listed"),
            );
        }
    }
    while let Some((id, record)) = sessions.pop() {
        if name(&record).len() > 1 {
            let removed = rule.delete_by_owner(&record, None, now).await;
            let owner = name(&record);
            rule.check(
                removed == 1,
                format_args!("`delete_by_owner` of {owner:?} removes {removed}"),
            );
        }
        rule.delete(id).await;
        for (other, record) in &sessions {
            rule.stored(*other, record, now, "of another owner").await;
        }
        // The revocation is this owner's alone, too.
        if let Some((_, next)) = sessions.last() {
            let id = rule.new_session(&another(next, now), now).await;
            rule.delete(id).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::rule::wording;

    #[test]
    fn the_suite_has_the_rules_of_the_contract_in_their_order() {
        let contract = include_str!("contract.rs");
        let numbered = contract.lines().filter_map(|line| {
            let (number, rule) = line.strip_prefix("/// ")?.split_once(". `")?;
            let number: usize = number.parse().ok()?;
            Some((number, rule.split('`').next()?))
        });
        assert!(numbered.eq((1..).zip(conformance_tests!(@each names))));
    }

    #[test]
    fn a_rule_is_quoted_whole_with_its_number() {
        assert_eq!(
            wording("update_conflict_returns_the_current_record"),
            "6. `update_conflict_returns_the_current_record`: otherwise nothing changes, and \
             [`Update::Conflict`] carries the record as it is."
        );
    }
}
