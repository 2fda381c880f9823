//! Stores that each break the contract in one way, and the rule that notices.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use cloakroom::store::{
    Create, Digest, Record, SessionStore, StoreError, Timestamp, Update, Version, conformance,
};
use cloakroom::{MemoryStore, SessionId, conformance_tests};

const EPOCH: Timestamp = Timestamp::from_millis(0);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bug {
    None,
    // What is kept of a record.
    DropsThePreviousDigest,
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
    UpdateKeepsTheOwner,
    UpdateNeverShortens,
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
    DeleteByOwnerSparesOne,
    DeleteByOwnerTakesAll,
    OwnersFoldCase,
    OwnersAreTrimmed,
}

/// A [`MemoryStore`] with a bug.
struct Broken {
    bug: Bug,
    store: MemoryStore,
    /// Each session's first record.
    first: Mutex<HashMap<SessionId, Record>>,
}

impl Broken {
    fn new(bug: Bug) -> Self {
        Self {
            bug,
            store: MemoryStore::new(),
            first: Mutex::default(),
        }
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
}

/// What becomes of a version in a language that knows floating-point numbers alone.
#[allow(clippy::cast_possible_truncation)]
fn as_float(version: Version) -> Version {
    Version::new(version.get() as f64 as u64)
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
        self.first
            .lock()
            .unwrap()
            .entry(id)
            .or_insert_with(|| record.clone());
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
        match self.bug {
            Bug::UpdateKeepsTheOwner => record.owner = record.owner.or(current.owner.clone()),
            Bug::UpdateNeverShortens => record.expires = record.expires.max(current.expires),
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
        expires: Timestamp,
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

    async fn delete_by_owner(
        &self,
        owner: &str,
        keep: Option<SessionId>,
    ) -> Result<usize, StoreError> {
        let mut owner = self.owner(owner);
        let ids: Vec<_> = self.first.lock().unwrap().keys().copied().collect();
        let (mut spared, mut removed) = (0, 0);
        for id in ids {
            let Some(record) = self.store.load(id, EPOCH).await? else {
                continue;
            };
            match self.bug {
                Bug::DeleteByOwnerTakesAll => owner = record.owner.as_deref().unwrap_or("").into(),
                _ if record.owner.as_deref() != Some(owner.as_str()) => continue,
                _ => {}
            }
            if Some(id) == keep && self.bug != Bug::DeleteByOwnerIgnoresKeep {
                removed += usize::from(self.bug == Bug::DeleteByOwnerCountsTheKept);
            } else if self.bug == Bug::DeleteByOwnerSparesOne && spared == 0 {
                spared = 1;
                removed += 1;
            } else {
                removed += usize::from(self.store.delete(id).await?);
            }
        }
        Ok(removed)
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
        DropsThePreviousDigest CutsTimesToSeconds KeepsVersionsAsFloats;
    create_never_overwrites:
        CreateOverwrites CreateChecksThenWrites;
    load_of_an_unknown_id_is_none:
        LoadInventsARecord LoadFailsOnUnknownIds;
    expired_is_absent:
        LoadsExpired UpdatesExpired TouchesExpired ListsExpired ExpiredStandsInTheWay
        ExpiresAMillisecondLate ExpiresAMillisecondEarly;
    update_swaps_only_the_expected_version:
        UpdateIgnoresTheVersion UpdateTakesOlderVersions UpdateKeepsTheOwner UpdateNeverShortens
        KeepsVersionsAsFloats;
    update_conflict_returns_the_current_record:
        ConflictCarriesTheFirstRecord ConflictCarriesTheRefusedRecord ConflictWrites
        UpdateIgnoresTheVersion;
    update_never_creates:
        UpdateCreates UpdateChecksThenWrites;
    concurrent_updates_lose_nothing:
        UpdateChecksThenWrites UpdateIgnoresTheVersion ConflictCarriesTheFirstRecord;
    touch_only_extends:
        TouchShortens TouchUnmovedIsFalse;
    touch_keeps_everything_else:
        TouchCounts TouchWritesBackWhatItRead;
    touch_never_creates:
        TouchCreates TouchWritesBackWhatItRead;
    delete_removes_for_good:
        DeleteMisses DeleteIsAlwaysTrue DeleteSparesExpired;
    delete_expired_is_bounded:
        SweepIgnoresTheLimit SweepTakesTheLive SweepDoesNothing SweepSaysTheLimit;
    list_by_owner_shows_live_sessions:
        ListsExpired ListKnowsTheFirstOwner ListShowsTheFirstRecord;
    delete_by_owner_spares_only_the_kept:
        DeleteByOwnerIgnoresKeep DeleteByOwnerCountsTheKept DeleteByOwnerSparesOne
        DeleteByOwnerTakesAll;
    data_is_opaque:
        CutsDataAt64KiB TakesDataForText OwnersFoldCase OwnersAreTrimmed ListMatchesPrefixes;
}
