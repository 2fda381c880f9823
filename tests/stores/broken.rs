//! Stores that each break the contract in one way, and the rule that notices.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use cloakroom::store::{
    Admission, Create, Digest, OwnerLimit, Record, SessionStore, SignIn, StoreError, Timestamp,
    Update, Version, WhenFull, conformance,
};
use cloakroom::{MemoryStore, SessionId, conformance_tests};

const EPOCH: Timestamp = Timestamp::from_millis(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    // What is kept of a record.
    DropsThePreviousDigest,
    DropsTheLastUse,
    CutsTimesToSeconds,
    KeepsVersionsAsFloats,
    CutsDataAt64KiB,
    TakesDataForText,
    // Expiry.
    LoadsExpired,
    UpdatesExpired,
    TouchesExpired,
    ListsExpired,
    ExpiredStandsInTheWay,
    ExpiresAMillisecondLate,
    ExpiresAMillisecondEarly,
    // create, load
    CreateOverwrites,
    CreateChecksThenWrites,
    LoadInventsARecord,
    LoadFailsOnUnknownIds,
    // update
    UpdateIgnoresTheVersion,
    UpdateTakesOlderVersions,
    UpdateKeepsThePreviousDigest,
    UpdateNeverShortens,
    UpdateUndoesATouch,
    UpdateForgetsTheUseOfATouch,
    UpdateKeepsTheEarlierEndOfATouch,
    UpdateKeepsATouchThatItKnows,
    UpdateKeepsATouchToCome,
    UpdateUndoesATouchToCome,
    UpdateLooksForATouchThenWrites,
    ConflictCarriesTheFirstRecord,
    ConflictCarriesTheRefusedRecord,
    ConflictWrites,
    UpdateCreates,
    UpdateChecksThenWrites,
    // touch
    TouchShortens,
    TouchUnmovedIsFalse,
    TouchCounts,
    TouchWritesBackWhatItRead,
    TouchCreates,
    TouchForgetsTheLastUse,
    TouchMovesTheLastUseBack,
    TouchUnmovedForgetsTheLastUse,
    // delete
    DeleteMisses,
    DeleteIsAlwaysTrue,
    DeleteSparesExpired,
    // delete_expired
    SweepIgnoresTheLimit,
    SweepTakesTheLive,
    SweepDoesNothing,
    SweepSaysTheLimit,
    // owners
    ListKnowsTheFirstOwner,
    ListShowsTheFirstRecord,
    ListMatchesPrefixes,
    DeleteByOwnerIgnoresKeep,
    DeleteByOwnerCountsTheKept,
    DeleteByOwnerCountsExpired,
    DeleteByOwnerSparesOne,
    DeleteByOwnerTakesAll,
    // sign_in
    SignInOverwrites,
    SignInIgnoresTheVersion,
    SignInChecksThenWrites,
    SignInCreates,
    SignInIsNotListed,
    SignInKeepsTheOwner,
    SignInConflictCarriesTheRefusedRecord,
    // Revocation.
    RevocationIsForgotten,
    RevocationIsForgottenSoon,
    RevocationSparesItsMillisecond,
    RevocationSparesNewSessions,
    RevocationIsOfAllOwners,
    RevocationForgetsTheKept,
    RevocationSparesWhoeverIsKeptLast,
    RevocationIsTakenBackByAnEarlierOne,
    RevocationIsCheckedBeforeTheWrite,
    RevokedIsStored,
    RevokedEvicts,
    // The limit.
    LimitIsIgnored,
    LimitRefusesAlways,
    LimitEvictsAlways,
    LimitEvictsOne,
    LimitEvictsTheNewest,
    LimitEvictsWhoBeganFirst,
    LimitEvictsFromTheListAlone,
    LimitCountsItself,
    LimitCountsExpired,
    LimitCountsAllOwners,
    LimitRefusesAndStores,
    LimitIsCheckedBeforeTheWrite,
    LimitComesBeforeTheVersion,
    // delete_all
    DeleteAllTakesAHundred,
    DeleteAllSparesNobodys,
    DeleteAllSparesExpired,
    DeleteAllDoesNotCount,
    DeleteAllForgetsRevocations,
    OwnersFoldCase,
    OwnersAreTrimmed,
}

/// A [`MemoryStore`] with a bug.
struct Broken {
    bug: Bug,
    store: MemoryStore,
    /// Each session's first record.
    first: Mutex<HashMap<SessionId, Record>>,
    /// What some bugs remember of revocations, instead of the store: the last one.
    revoked: Mutex<HashMap<String, (Timestamp, Option<SessionId>)>>,
    /// Held while it keeps the limit itself.
    limiting: tokio::sync::Mutex<()>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            store: MemoryStore::new(),
            first: Mutex::default(),
            revoked: Mutex::default(),
            limiting: tokio::sync::Mutex::default(),
        }
    }

    fn register(&self, id: SessionId, record: &Record) {
        let mut first = self.first.lock().unwrap();
        first.entry(id).or_insert_with(|| record.clone());
    }

    fn first(&self, id: SessionId) -> Option<Record> {
        self.first.lock().unwrap().get(&id).cloned()
    }

    /// The time that the store is told, where it should be `now`.
    fn time(&self, blind: Bug, now: Timestamp) -> Timestamp {
        let (millis, bug) = (now.as_millis(), self.bug);
        match bug {
            Bug::ExpiresAMillisecondLate => Timestamp::from_millis(millis - 1),
            Bug::ExpiresAMillisecondEarly => Timestamp::from_millis(millis + 1),
            _ if bug == blind => EPOCH,
            _ => now,
        }
    }

    fn kept(&self, record: &Record) -> Record {
        let mut kept = record.clone();
        match self.bug {
            Bug::DropsThePreviousDigest => kept.previous = None,
            Bug::DropsTheLastUse => kept.seen = kept.created,
            Bug::CutsTimesToSeconds => {
                kept.renewed = Timestamp::from_millis(kept.renewed.as_millis() / 1_000 * 1_000);
            }
            Bug::KeepsVersionsAsFloats => {
                kept.version = as_float(kept.version);
            }
            Bug::CutsDataAt64KiB => kept.data = kept.data[..kept.data.len().min(65_535)].into(),
            Bug::TakesDataForText => {
                kept.data = String::from_utf8_lossy(&kept.data).as_bytes().into();
            }
            _ => {}
        }
        kept.owner = kept.owner.map(|owner| match self.bug {
            Bug::OwnersFoldCase | Bug::OwnersAreTrimmed => self.owner(&owner).into(),
            _ => owner,
        });
        kept
    }

    fn owner(&self, owner: &str) -> String {
        match self.bug {
            Bug::OwnersFoldCase => owner.to_lowercase(),
            Bug::OwnersAreTrimmed => owner.trim_end().to_owned(),
            _ => owner.to_owned(),
        }
    }

    async fn overwrite(&self, id: SessionId, record: &Record) -> Result<(), StoreError> {
        self.store.delete(id).await?;
        let _ = self.store.create(id, record, EPOCH).await?;
        Ok(())
    }
    /// The sessions as they are, expired ones too.
    async fn all(&self) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let ids: Vec<_> = self.first.lock().unwrap().keys().copied().collect();
        let mut all = Vec::new();
        for id in ids {
            all.extend(self.store.load(id, EPOCH).await?.map(|record| (id, record)));
        }
        Ok(all)
    }

    /// Whether it remembers revocations itself, wrongly.
    fn forgetful(&self) -> bool {
        matches!(
            self.bug,
            Bug::RevocationIsOfAllOwners
                | Bug::RevocationSparesWhoeverIsKeptLast
                | Bug::RevocationIsTakenBackByAnEarlierOne
                | Bug::RevocationIsCheckedBeforeTheWrite
                | Bug::DeleteAllForgetsRevocations
        )
    }

    fn remember(&self, owner: &str, keep: Option<SessionId>, now: Timestamp) {
        let mut revoked = self.revoked.lock().unwrap();
        let last = revoked.entry(self.filed(owner)).or_insert((now, keep));
        if now >= last.0 || self.bug == Bug::RevocationIsTakenBackByAnEarlierOne {
            *last = (now, keep);
        }
    }

    fn is_revoked(&self, owner: &str, id: SessionId, began: Timestamp) -> bool {
        let revoked = self.revoked.lock().unwrap();
        let last = revoked.get(&self.filed(owner));
        last.is_some_and(|(at, kept)| began <= *at && *kept != Some(id))
    }

    fn filed(&self, owner: &str) -> String {
        if self.bug == Bug::RevocationIsOfAllOwners {
            String::new()
        } else {
            owner.to_owned()
        }
    }

    /// Whether it keeps the limit itself, wrongly.
    fn limits(&self) -> bool {
        matches!(
            self.bug,
            Bug::LimitRefusesAlways
                | Bug::LimitEvictsAlways
                | Bug::LimitEvictsOne
                | Bug::LimitEvictsTheNewest
                | Bug::LimitEvictsWhoBeganFirst
                | Bug::LimitEvictsFromTheListAlone
                | Bug::LimitCountsItself
                | Bug::LimitCountsExpired
                | Bug::LimitCountsAllOwners
                | Bug::LimitRefusesAndStores
                | Bug::LimitIsCheckedBeforeTheWrite
                | Bug::LimitComesBeforeTheVersion
        )
    }

    /// Makes room for one more session of `record`'s owner, with a bug; whether there is room.
    async fn limit(
        &self,
        id: SessionId,
        record: &Record,
        limit: OwnerLimit,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let mut others = self.all().await?;
        if self.bug == Bug::LimitCountsExpired {
            // The store has removed them by now.
            let first = self.first.lock().unwrap();
            let expired = first.iter().filter(|(_, found)| found.expires <= now);
            others.extend(expired.map(|(id, found)| (*id, found.clone())));
        }
        others.retain(|(other, found)| {
            (*other != id || self.bug == Bug::LimitCountsItself)
                && (found.expires > now || self.bug == Bug::LimitCountsExpired)
                && (found.owner == record.owner || self.bug == Bug::LimitCountsAllOwners)
        });
        others.sort_unstable_by_key(|(id, found)| match self.bug {
            Bug::LimitEvictsWhoBeganFirst => (Some(found.created), *id),
            _ => (found.authenticated, *id),
        });
        if self.bug == Bug::LimitEvictsTheNewest {
            others.reverse();
        }
        let mut surplus = (others.len() + 1).saturating_sub(limit.max.get());
        match self.bug {
            Bug::LimitEvictsAlways => {}
            Bug::LimitRefusesAlways if surplus > 0 => return Ok(false),
            _ if surplus > 0 && limit.when_full == WhenFull::Refuse => return Ok(false),
            Bug::LimitEvictsOne => surplus = surplus.min(1),
            Bug::LimitIsCheckedBeforeTheWrite => dawdle().await,
            _ => {}
        }
        for (other, _) in &others[..surplus] {
            if self.bug == Bug::LimitEvictsFromTheListAlone {
                self.first.lock().unwrap().remove(other);
            } else {
                self.store.delete(*other).await?;
            }
        }
        Ok(true)
    }
}

/// What becomes of a version in a language that knows floating-point numbers alone.
#[allow(clippy::cast_possible_truncation)]
fn as_float(version: Version) -> Version {
    Version::new(version.get() as f64 as u64)
}

/// Whether the expected version is there, or nothing if none is expected.
fn is_as_expected(current: Option<&Record>, expected: Option<Version>) -> bool {
    current.map(|current| current.version) == expected
}

/// Time for others to get in between.
async fn dawdle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl SessionStore for Broken {
    async fn create(
        &self,
        id: SessionId,
        record: &Record,
        now: Timestamp,
    ) -> Result<Create, StoreError> {
        self.register(id, record);
        match self.bug {
            Bug::CreateOverwrites => self.overwrite(id, record).await?,
            Bug::CreateChecksThenWrites => {
                if self.store.load(id, now).await?.is_some() {
                    return Ok(Create::Taken);
                }
                dawdle().await;
                self.overwrite(id, record).await?;
            }
            _ => {
                let now = self.time(Bug::ExpiredStandsInTheWay, now);
                return self.store.create(id, &self.kept(record), now).await;
            }
        }
        Ok(Create::Done)
    }

    async fn load(&self, id: SessionId, now: Timestamp) -> Result<Option<Record>, StoreError> {
        let found = self
            .store
            .load(id, self.time(Bug::LoadsExpired, now))
            .await?;
        match self.bug {
            Bug::LoadInventsARecord if found.is_none() => Ok(Some(Record::new(
                Digest::from_bytes([0; 32]),
                now,
                Timestamp::MAX,
            ))),
            Bug::LoadFailsOnUnknownIds if found.is_none() => Err(StoreError::new("no such row")),
            _ => Ok(found),
        }
    }

    async fn update(
        &self,
        id: SessionId,
        record: &Record,
        expected: Version,
        now: Timestamp,
    ) -> Result<Update, StoreError> {
        let now = self.time(Bug::UpdatesExpired, now);
        let Some(current) = self.store.load(id, now).await? else {
            if self.bug == Bug::UpdateCreates {
                self.overwrite(id, record).await?;
                return Ok(Update::Done);
            }
            return Ok(Update::Gone);
        };
        let mut record = self.kept(record);
        let expected = match self.bug {
            Bug::UpdateIgnoresTheVersion => current.version,
            Bug::UpdateTakesOlderVersions if expected < current.version => current.version,
            Bug::KeepsVersionsAsFloats => as_float(expected),
            _ => expected,
        };
        let keep_touch = |record: &mut Record| {
            record.seen = current.seen;
            record.expires = record.expires.max(current.expires);
        };
        let is_touched = record.seen < now && record.seen < current.seen;
        match self.bug {
            Bug::UpdateKeepsThePreviousDigest => {
                record.previous = record.previous.or(current.previous);
            }
            Bug::UpdateNeverShortens => record.expires = record.expires.max(current.expires),
            Bug::UpdateUndoesATouchToCome if is_touched && current.seen > now => {
                self.overwrite(id, &record).await?;
                return Ok(Update::Done);
            }
            Bug::UpdateUndoesATouch if is_touched => {
                self.overwrite(id, &record).await?;
                return Ok(Update::Done);
            }
            Bug::UpdateForgetsTheUseOfATouch if is_touched => {
                record.expires = record.expires.max(current.expires);
                self.overwrite(id, &record).await?;
                return Ok(Update::Done);
            }
            Bug::UpdateKeepsTheEarlierEndOfATouch if is_touched => {
                (record.seen, record.expires) = (current.seen, current.expires);
            }
            Bug::UpdateKeepsATouchThatItKnows if (record.seen..=now).contains(&current.seen) => {
                keep_touch(&mut record);
            }
            Bug::UpdateKeepsATouchToCome if record.seen < current.seen => keep_touch(&mut record),
            Bug::UpdateLooksForATouchThenWrites => {
                if is_touched {
                    keep_touch(&mut record);
                }
                dawdle().await;
                self.overwrite(id, &record).await?;
                return Ok(Update::Done);
            }
            Bug::UpdateChecksThenWrites if current.version == expected => {
                dawdle().await;
                self.overwrite(id, &record).await?;
                return Ok(Update::Done);
            }
            _ => {}
        }
        let updated = self.store.update(id, &record, expected, now).await?;
        let Update::Conflict(current) = updated else {
            return Ok(updated);
        };
        Ok(Update::Conflict(match self.bug {
            Bug::ConflictCarriesTheFirstRecord => self.first(id).unwrap(),
            Bug::ConflictCarriesTheRefusedRecord => record,
            Bug::ConflictWrites => {
                self.overwrite(id, &record).await?;
                current
            }
            _ => current,
        }))
    }

    async fn touch(
        &self,
        id: SessionId,
        mut expires: Timestamp,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let now = self.time(Bug::TouchesExpired, now);
        let Some(mut current) = self.store.load(id, now).await? else {
            if self.bug == Bug::TouchCreates {
                self.overwrite(id, &Record::new(Digest::from_bytes([0; 32]), now, expires))
                    .await?;
                return Ok(true);
            }
            return Ok(false);
        };
        match self.bug {
            Bug::TouchUnmovedIsFalse if expires <= current.expires => return Ok(false),
            Bug::TouchShortens => {}
            Bug::TouchCounts => current.version = current.version.next(),
            Bug::TouchForgetsTheLastUse => expires = expires.max(current.expires),
            Bug::TouchUnmovedForgetsTheLastUse if expires <= current.expires => return Ok(true),
            Bug::TouchMovesTheLastUseBack => {
                current.seen = now;
                expires = expires.max(current.expires);
            }
            Bug::TouchWritesBackWhatItRead => {
                dawdle().await;
                current.expires = current.expires.max(expires);
                self.overwrite(id, &current).await?;
                return Ok(true);
            }
            _ => return self.store.touch(id, expires, now).await,
        }
        current.expires = expires;
        self.overwrite(id, &current).await?;
        Ok(true)
    }

    async fn delete(&self, id: SessionId) -> Result<bool, StoreError> {
        let clock = Timestamp::from(SystemTime::now());
        match self.bug {
            Bug::DeleteMisses => Ok(self.store.load(id, EPOCH).await?.is_some()),
            Bug::DeleteIsAlwaysTrue => self.store.delete(id).await.map(|_| true),
            Bug::DeleteSparesExpired => {
                let record = self.store.load(id, EPOCH).await?;
                let live = record.is_some_and(|record| record.expires > clock);
                Ok(live && self.store.delete(id).await?)
            }
            _ => self.store.delete(id).await,
        }
    }

    async fn delete_expired(&self, now: Timestamp, limit: usize) -> Result<usize, StoreError> {
        match self.bug {
            Bug::SweepIgnoresTheLimit => self.store.delete_expired(now, usize::MAX).await,
            Bug::SweepTakesTheLive => self.store.delete_expired(Timestamp::MAX, limit).await,
            Bug::SweepDoesNothing => Ok(0),
            Bug::SweepSaysTheLimit => match self.store.delete_expired(now, limit).await? {
                0 => Ok(0),
                _ => Ok(limit),
            },
            _ => self.store.delete_expired(now, limit).await,
        }
    }

    async fn list_by_owner(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let ids: Vec<_> = self.first.lock().unwrap().keys().copied().collect();
        let mut listed = Vec::new();
        let now = self.time(Bug::ListsExpired, now);
        for id in ids {
            let Some(record) = self.store.load(id, now).await? else {
                continue;
            };
            let first = self.first(id).unwrap();
            let filed = match self.bug {
                Bug::ListKnowsTheFirstOwner => first.owner.clone(),
                _ => record.owner.clone(),
            };
            let matches = match self.bug {
                Bug::ListMatchesPrefixes => filed.is_some_and(|filed| filed.starts_with(owner)),
                _ => filed.is_some_and(|filed| *filed == self.owner(owner)),
            };
            if matches {
                let stale = self.bug == Bug::ListShowsTheFirstRecord;
                listed.push((id, if stale { first } else { record }));
            }
        }
        Ok(listed)
    }

    async fn sign_in(
        &self,
        id: SessionId,
        record: &Record,
        mut expected: Option<Version>,
        mut admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        if self.bug != Bug::SignInIsNotListed {
            self.register(id, record);
        }
        let mut record = self.kept(record);
        let owner = record.owner.clone().unwrap_or_default();
        let now = self.time(Bug::ExpiredStandsInTheWay, now);
        let began = admission.began;
        let _limiting = match self.bug {
            Bug::LimitIsCheckedBeforeTheWrite => None,
            _ if self.limits() => Some(self.limiting.lock().await),
            _ => None,
        };
        let current = self.store.load(id, now).await?;

        if self.forgetful() {
            if self.is_revoked(&owner, id, began) {
                return Ok(SignIn::Revoked);
            }
            admission.began = Timestamp::MAX;
        }
        match (self.bug, &current, expected) {
            (Bug::KeepsVersionsAsFloats, _, Some(version)) => expected = Some(as_float(version)),
            (Bug::SignInOverwrites, Some(_), None) => expected = current.map(|found| found.version),
            (Bug::SignInIgnoresTheVersion, Some(found), Some(_)) => expected = Some(found.version),
            (Bug::SignInCreates, None, _) => expected = None,
            (Bug::SignInKeepsTheOwner, Some(found), _) => {
                record.owner = found.owner.clone().or(record.owner);
            }
            (Bug::RevocationIsForgotten, ..) | (Bug::RevocationSparesNewSessions, _, None) => {
                admission.began = Timestamp::MAX;
            }
            (Bug::RevocationIsForgottenSoon, ..)
                if now.as_millis() > began.as_millis() + 60_000 * 40 =>
            {
                admission.began = Timestamp::MAX;
            }
            (Bug::RevocationSparesItsMillisecond, ..) => {
                admission.began = Timestamp::from_millis(began.as_millis() + 1);
            }
            (Bug::RevocationIsCheckedBeforeTheWrite, ..) => dawdle().await,
            (Bug::SignInChecksThenWrites, found, _) if is_as_expected(found.as_ref(), expected) => {
                dawdle().await;
                self.overwrite(id, &record).await?;
                return Ok(SignIn::Done);
            }
            (Bug::LimitIsIgnored, ..) => admission.limit = None,
            _ => {}
        }
        let fits = is_as_expected(self.store.load(id, now).await?.as_ref(), expected);
        let limited = match admission.limit {
            Some(limit)
                if self.limits() && (fits || self.bug == Bug::LimitComesBeforeTheVersion) =>
            {
                admission.limit = None;
                self.limit(id, &record, limit, now).await?
            }
            _ => true,
        };
        if !limited && self.bug != Bug::LimitRefusesAndStores {
            return Ok(SignIn::Full);
        }
        let limit = admission.limit;
        let answer = self
            .store
            .sign_in(id, &record, expected, admission, now)
            .await?;
        Ok(match (self.bug, answer) {
            (Bug::SignInConflictCarriesTheRefusedRecord, SignIn::Conflict(_)) => {
                SignIn::Conflict(record)
            }
            (Bug::RevokedIsStored, SignIn::Revoked) => {
                self.overwrite(id, &record).await?;
                SignIn::Revoked
            }
            (Bug::RevokedEvicts, SignIn::Revoked) => {
                if let Some(limit) = limit {
                    self.limit(id, &record, limit, now).await?;
                }
                SignIn::Revoked
            }
            (_, SignIn::Done) if !limited => SignIn::Full,
            (_, answer) => answer,
        })
    }

    async fn delete_by_owner(
        &self,
        owner: &str,
        mut keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let owner = self.owner(owner);
        if self.forgetful() {
            self.remember(&owner, keep, now);
        }
        let mut owned = self.all().await?;
        owned.retain(|(_, record)| record.owner.as_deref() == Some(owner.as_str()));
        // What is put back afterwards.
        let mut back: Vec<(SessionId, Record)> = Vec::new();
        match self.bug {
            Bug::DeleteByOwnerIgnoresKeep => keep = None,
            Bug::DeleteByOwnerSparesOne => {
                back.extend(owned.iter().find(|(id, _)| Some(*id) != keep).cloned());
            }
            Bug::DeleteByOwnerTakesAll => {
                for (id, record) in self.all().await? {
                    let others = record.owner.as_deref() != Some(owner.as_str());
                    if others && Some(id) != keep {
                        self.store.delete(id).await?;
                    }
                }
            }
            Bug::RevocationForgetsTheKept => {
                back.extend(owned.iter().find(|(id, _)| Some(*id) == keep).cloned());
                keep = None;
            }
            _ => {}
        }
        let mut removed = self.store.delete_by_owner(&owner, keep, now).await?;
        for (id, record) in back {
            self.overwrite(id, &record).await?;
            removed -= usize::from(self.bug == Bug::RevocationForgetsTheKept);
        }
        if self.bug == Bug::DeleteByOwnerCountsExpired {
            removed += owned.iter().filter(|(_, r)| r.expires <= now).count();
        }
        if self.bug == Bug::DeleteByOwnerCountsTheKept {
            removed += owned.iter().filter(|(id, _)| Some(*id) == keep).count();
        }
        Ok(removed)
    }

    async fn delete_all(&self) -> Result<usize, StoreError> {
        let clock = Timestamp::from(SystemTime::now());
        let mut some = self.all().await?;
        match self.bug {
            Bug::DeleteAllTakesAHundred => some.truncate(100),
            Bug::DeleteAllSparesNobodys => some.retain(|(_, record)| record.owner.is_some()),
            Bug::DeleteAllSparesExpired => some.retain(|(_, record)| record.expires > clock),
            Bug::DeleteAllDoesNotCount => return self.store.delete_all().await.map(|_| 0),
            Bug::DeleteAllForgetsRevocations => {
                self.revoked.lock().unwrap().clear();
                return self.store.delete_all().await;
            }
            _ => return self.store.delete_all().await,
        }
        for (id, _) in &some {
            self.store.delete(*id).await?;
        }
        Ok(some.len())
    }
}

conformance_tests!(without_a_bug, async { Broken::new(Bug::None) });

macro_rules! caught_by {
    ($($rule:ident: $($bug:ident)+;)*) => {
        mod caught_by {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $rule() {
                    for bug in [$(Bug::$bug),+] {
                        let check = tokio::spawn(conformance::$rule(Broken::new(bug)));
                        assert_quotes(stringify!($rule), bug, check.await);
                    }
                }
            )*

            #[test]
            fn each_rule_is_known_to_fail() {
                let tested = [$(stringify!($rule)),*];
                assert_eq!(tested, conformance_tests!(@each names));
            }
        }
    };
}

fn assert_quotes(rule: &str, bug: Bug, outcome: Result<(), tokio::task::JoinError>) {
    let panic = outcome
        .expect_err(&format!("{rule} does not notice {bug:?}"))
        .into_panic();
    let message = panic
        .downcast_ref::<String>()
        .expect("a panic with a message");
    assert!(
        message.contains(&format!(". `{rule}`")),
        "{bug:?}: {message}"
    );
}

caught_by! {
    create_stores_the_record:
        DropsThePreviousDigest DropsTheLastUse CutsTimesToSeconds KeepsVersionsAsFloats;
    create_never_overwrites:
        CreateOverwrites CreateChecksThenWrites;
    load_of_an_unknown_id_is_none:
        LoadInventsARecord LoadFailsOnUnknownIds;
    expired_is_absent:
        LoadsExpired UpdatesExpired TouchesExpired ListsExpired ExpiredStandsInTheWay
        ExpiresAMillisecondLate ExpiresAMillisecondEarly;
    update_swaps_only_the_expected_version:
        UpdateIgnoresTheVersion UpdateTakesOlderVersions UpdateKeepsThePreviousDigest
        UpdateNeverShortens KeepsVersionsAsFloats;
    update_conflict_returns_the_current_record:
        ConflictCarriesTheFirstRecord ConflictCarriesTheRefusedRecord ConflictWrites
        UpdateIgnoresTheVersion;
    update_never_creates:
        UpdateCreates UpdateChecksThenWrites;
    concurrent_updates_lose_nothing:
        UpdateChecksThenWrites UpdateIgnoresTheVersion ConflictCarriesTheFirstRecord;
    touch_only_extends:
        TouchShortens TouchUnmovedIsFalse TouchForgetsTheLastUse TouchMovesTheLastUseBack
        TouchUnmovedForgetsTheLastUse;
    touch_keeps_everything_else:
        TouchCounts TouchWritesBackWhatItRead;
    update_keeps_a_touch:
        UpdateUndoesATouch UpdateForgetsTheUseOfATouch UpdateKeepsTheEarlierEndOfATouch
        UpdateKeepsATouchThatItKnows UpdateKeepsATouchToCome UpdateUndoesATouchToCome
        UpdateNeverShortens
        UpdateLooksForATouchThenWrites;
    touch_never_creates:
        TouchCreates TouchWritesBackWhatItRead;
    delete_removes_for_good:
        DeleteMisses DeleteIsAlwaysTrue DeleteSparesExpired;
    delete_expired_is_bounded:
        SweepIgnoresTheLimit SweepTakesTheLive SweepDoesNothing SweepSaysTheLimit;
    list_by_owner_shows_live_sessions:
        ListsExpired ListKnowsTheFirstOwner ListShowsTheFirstRecord SignInIsNotListed;
    delete_by_owner_spares_only_the_kept:
        DeleteByOwnerIgnoresKeep DeleteByOwnerCountsTheKept DeleteByOwnerCountsExpired
        DeleteByOwnerSparesOne DeleteByOwnerTakesAll;
    sign_in_stores_like_create_and_update:
        SignInOverwrites SignInIgnoresTheVersion SignInChecksThenWrites SignInCreates
        SignInIsNotListed SignInKeepsTheOwner SignInConflictCarriesTheRefusedRecord
        UpdateChecksThenWrites ListKnowsTheFirstOwner ExpiredStandsInTheWay DropsTheLastUse
        KeepsVersionsAsFloats;
    sign_in_is_refused_after_a_revocation:
        RevocationIsForgotten RevocationIsForgottenSoon RevocationSparesItsMillisecond
        RevocationSparesNewSessions RevocationIsOfAllOwners RevocationForgetsTheKept
        RevocationSparesWhoeverIsKeptLast RevocationIsTakenBackByAnEarlierOne
        RevocationIsCheckedBeforeTheWrite RevokedIsStored RevokedEvicts;
    sign_in_keeps_the_limit:
        LimitIsIgnored LimitRefusesAlways LimitEvictsAlways LimitEvictsOne LimitEvictsTheNewest
        LimitEvictsWhoBeganFirst LimitEvictsFromTheListAlone LimitCountsItself LimitCountsExpired
        LimitCountsAllOwners LimitRefusesAndStores LimitIsCheckedBeforeTheWrite
        LimitComesBeforeTheVersion;
    delete_all_leaves_nothing:
        DeleteAllTakesAHundred DeleteAllSparesNobodys DeleteAllSparesExpired DeleteAllDoesNotCount
        DeleteAllForgetsRevocations;
    data_is_opaque:
        CutsDataAt64KiB TakesDataForText OwnersFoldCase OwnersAreTrimmed ListMatchesPrefixes;
}
