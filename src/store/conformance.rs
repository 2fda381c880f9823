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

use std::error::Error;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Barrier;
use tokio::task::JoinHandle;

use crate::clock::Timestamp;
use crate::data::Content;
use crate::error::StoreError;
use crate::expiry::ExpiryPolicy;
use crate::id::SessionId;
use crate::record::{Previous, Record, Version};
use crate::store::contract::{
    Admission, Create, OwnerLimit, SessionStore, SignIn, Update, WhenFull,
};
use crate::token::Digest;

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

const MINUTE: Duration = Duration::from_secs(60);

/// Neighbours of this number are the same to a store that computes with floating-point numbers.
const LARGE: u64 = 1 << 53;

/// How many calls race, where many do.
const RACERS: usize = 16;

/// How many times many calls race: a store that is wrong may be lucky once.
const RACES: usize = 4;

/// How many times two calls race.
const ROUNDS: usize = 32;

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

/// One rule and the store that is to keep it.
struct Rule<S> {
    wording: Arc<str>,
    store: Arc<S>,
}

impl<S> Clone for Rule<S> {
    fn clone(&self) -> Self {
        Self {
            wording: Arc::clone(&self.wording),
            store: Arc::clone(&self.store),
        }
    }
}

impl<S: SessionStore> Rule<S> {
    fn new(name: &str, store: S) -> Self {
        Self {
            wording: wording(name).into(),
            store: Arc::new(store),
        }
    }

    /// Says what the store did, and which rule that breaks.
    fn broken(&self, what: impl fmt::Display) -> ! {
        panic!("the store breaks a rule: {what}\n\n  {}\n", self.wording)
    }

    fn check(&self, kept: bool, what: impl fmt::Display) {
        if !kept {
            self.broken(what);
        }
    }

    /// The answer of an operation, which must not fail.
    fn answer<T>(&self, operation: &str, result: Result<T, StoreError>) -> T {
        result.unwrap_or_else(|error| {
            let mut causes = String::new();
            let mut next = error.source();
            while let Some(cause) = next {
                causes += &format!(": {cause}");
                next = cause.source();
            }
            self.broken(format_args!("`{operation}` fails: {error}{causes}"))
        })
    }

    async fn create(&self, id: SessionId, record: &Record, now: Timestamp) -> Create {
        self.answer("create", self.store.create(id, record, now).await)
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Option<Record> {
        self.answer("load", self.store.load(id, now).await)
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Update {
        self.answer("update", self.store.update(id, record, expected, now).await)
    }

    async fn touch(&self, id: SessionId, expires: Timestamp, now: Timestamp) -> bool {
        self.answer("touch", self.store.touch(id, expires, now).await)
    }

    async fn delete(&self, id: SessionId) -> bool {
        self.answer("delete", self.store.delete(id).await)
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> usize {
        self.answer(
            "delete_expired",
            self.store.delete_expired(now, limit).await,
        )
    }

    async fn list_by_owner(&self, owner: &str, now: Timestamp) -> Vec<(SessionId, Record)> {
        self.answer("list_by_owner", self.store.list_by_owner(owner, now).await)
    }

    /// Removes the sessions of `owner`'s owner.
    async fn delete_by_owner(
        &self,
        owner: &Record,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> usize {
        self.answer(
            "delete_by_owner",
            self.store.delete_by_owner(name(owner), keep, now).await,
        )
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> SignIn {
        let result = self.store.sign_in(id, record, expected, admission, now);
        self.answer("sign_in", result.await)
    }

    async fn delete_all(&self) -> usize {
        self.answer("delete_all", self.store.delete_all().await)
    }

    /// Stores a record under a new id.
    async fn new_session(&self, record: &Record, now: Timestamp) -> SessionId {
        let id = session_id();
        self.have(id, record, now).await;
        id
    }

    /// Stores a new session, by `sign_in` if it has an owner.
    async fn have(&self, id: SessionId, record: &Record, now: Timestamp) {
        if record.owner.is_some() {
            return self.admit(id, record, None, now).await;
        }
        let created = self.create(id, record, now).await;
        self.check(
            created == Create::Done,
            "`create` with a new id answers `Taken`",
        );
    }

    /// Signs in where nothing is in the way.
    async fn admit(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        now: Timestamp,
    ) {
        let admission = Admission::new(now);
        let answer = self.sign_in(id, record, expected, admission, now).await;
        self.check(
            answer == SignIn::Done,
            format_args!("`sign_in` with nothing in the way answers {answer:?}"),
        );
    }

    /// The only one of `RACERS` that is done.
    fn winner(&self, done: Vec<Option<Record>>, what: &str) -> Record {
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        match (done.pop(), done.len()) {
            (Some(winner), 0) => winner,
            (last, others) => self.broken(format_args!(
                "of {RACERS} parallel {what} {} are done",
                others + usize::from(last.is_some())
            )),
        }
    }

    /// Updates a record whose version is the expected one.
    async fn swap(&self, id: SessionId, record: &Record, expected: Version, now: Timestamp) {
        let updated = self.update(id, record, expected, now).await;
        self.check(
            updated == Update::Done,
            "`update` of the expected version is not `Done`",
        );
    }

    async fn stored(&self, id: SessionId, expected: &Record, now: Timestamp, when: &str) {
        match self.load(id, now).await {
            Some(record) => self.same(&record, expected, when),
            None => self.broken(format_args!("there is no record {when}")),
        }
    }

    async fn absent(&self, id: SessionId, now: Timestamp, when: &str) {
        if self.load(id, now).await.is_some() {
            self.broken(format_args!("there is a record {when}"));
        }
    }

    /// The sessions of `owner`'s owner are `ids`, with the same records as `load` gives.
    async fn listed(&self, owner: &Record, ids: &[SessionId], now: Timestamp, when: &str) {
        let mut listed = self.list_by_owner(name(owner), now).await;
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        listed.sort_unstable_by_key(|(id, _)| *id);
        self.check(
            listed.iter().map(|(id, _)| id).eq(&ids),
            format_args!(
                "`list_by_owner` shows {} sessions, or others, {when}: expected {}",
                listed.len(),
                ids.len()
            ),
        );
        for (id, record) in &listed {
            self.stored(*id, record, now, &format!("as listed {when}"))
                .await;
        }
    }

    /// Compares field by field, to name the one that differs.
    fn same(&self, got: &Record, expected: &Record, when: impl fmt::Display) {
        let fields = [
            ("version", got.version == expected.version),
            ("digest", got.digest == expected.digest),
            ("previous", got.previous == expected.previous),
            ("owner", got.owner == expected.owner),
            ("created", got.created == expected.created),
            ("authenticated", got.authenticated == expected.authenticated),
            ("renewed", got.renewed == expected.renewed),
            ("seen", got.seen == expected.seen),
            ("expires", got.expires == expected.expires),
            ("policy", got.policy == expected.policy),
            ("data", got.data == expected.data),
            ("something", got == expected),
        ];
        if let Some((field, _)) = fields.iter().find(|(_, same)| !same) {
            self.broken(format_args!(
                "`{field}` is not the expected one {when}\n       got {got:?}\n  expected {expected:?}"
            ));
        }
    }
}

/// A rule with its number, as the contract words it.
fn wording(name: &str) -> String {
    let begins = format!(". `{name}`");
    let mut docs = include_str!("contract.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("/// "))
        .skip_while(|line| !line.contains(&begins));
    let Some(first) = docs.next() else {
        panic!("the contract has no rule `{name}`");
    };
    let rest = docs.take_while(|line| line.starts_with("   "));
    rest.fold(first.to_owned(), |wording, line| {
        wording + " " + line.trim_start()
    })
}

/// Runs two of different types at once. The second begins first, as a rule; which one that is changes
/// from round to round.
async fn race<A: Send + 'static, B: Send + 'static>(
    round: usize,
    one: impl Future<Output = A> + Send + 'static,
    other: impl Future<Output = B> + Send + 'static,
) -> (A, B) {
    let start = Arc::new(Barrier::new(2));
    if round.is_multiple_of(2) {
        let (one, other) = (begin(&start, one), begin(&start, other));
        (end(one).await, end(other).await)
    } else {
        let (other, one) = (begin(&start, other), begin(&start, one));
        (end(one).await, end(other).await)
    }
}

/// Runs all at once, on as many threads as there are.
async fn together<F>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let futures: Vec<_> = futures.into_iter().collect();
    let start = Arc::new(Barrier::new(futures.len()));
    let tasks: Vec<_> = futures.into_iter().map(|f| begin(&start, f)).collect();
    let mut outputs = Vec::new();
    for task in tasks {
        outputs.push(end(task).await);
    }
    outputs
}

/// Runs a future from when all others are there, too.
fn begin<F>(start: &Arc<Barrier>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let start = Arc::clone(start);
    tokio::spawn(async move {
        start.wait().await;
        future.await
    })
}

/// The outcome of a task; its panic is passed on.
async fn end<T>(task: JoinHandle<T>) -> T {
    task.await
        .unwrap_or_else(|error| resume_unwind(error.into_panic()))
}

/// A record with as few fields set as can be, that lives for an hour.
fn record(now: Timestamp) -> Record {
    Record::new(digest(), now, after(now, 60 * MINUTE))
}

/// A record with all fields set, an owner of its own, that lives for an hour.
fn full(now: Timestamp) -> Record {
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
fn unowned(now: Timestamp) -> Record {
    Record {
        owner: None,
        ..full(now)
    }
}

/// A record with all fields set and the same owner.
fn another(of: &Record, now: Timestamp) -> Record {
    Record {
        owner: of.owner.clone(),
        ..full(now)
    }
}

/// A record with all fields set and the same owner that replaces the first one of a session.
fn second(of: &Record, now: Timestamp) -> Record {
    versioned(Version::FIRST.next(), another(of, now))
}

/// Admission of a sign-in that began then, of an owner with at most `max` sessions.
fn limited(began: Timestamp, max: usize, when_full: WhenFull) -> Admission {
    let max = NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
    Admission {
        limit: Some(OwnerLimit::new(max, when_full)),
        ..Admission::new(began)
    }
}

fn versioned(version: Version, record: Record) -> Record {
    Record { version, ..record }
}

fn ending(expires: Timestamp, record: Record) -> Record {
    Record { expires, ..record }
}

/// The name of a record's owner, if it has one.
fn name(record: &Record) -> &str {
    record.owner.as_deref().unwrap_or_default()
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

fn after(time: Timestamp, by: Duration) -> Timestamp {
    time.saturating_add(by)
}

fn before(time: Timestamp, by: Duration) -> Timestamp {
    let since_epoch = time.saturating_since(Timestamp::from_millis(0));
    Timestamp::from_millis(0).saturating_add(since_epoch.saturating_sub(by))
}

fn session_id() -> SessionId {
    SessionId::from_bytes(random())
}

fn digest() -> Digest {
    Digest::from_bytes(random())
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

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
