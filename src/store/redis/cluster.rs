//! What takes several keys on one server takes several steps on a cluster, where a script sees the keys of
//! one slot only. Each step is one script on a session's key or on its owner's; what holds before and
//! after each of them, whoever is interrupted in between:
//!
//! 1. **A session is written only with a claim.** A sign-in first *claims* on its owner's key: the script
//!    checks revocations and the limit, and enters the session's id with the number of the claim, which is
//!    higher than any before. Then the session is written on its own key. An interruption in between leaves an
//!    entry without a session.
//! 2. **A claim can be made void** on the session's key, by its number in the *fence* beside it. A write that
//!    comes after that is refused, and the sign-in begins anew. So who ends the session of an entry, or drops an
//!    entry as stale, can be sure that no write is still to come: a revocation first enters itself on the
//!    owner's key, so that no claim follows, and then ends each session that has an entry or else makes its
//!    claim void.
//! 3. **All live sessions of an owner have entries**, so their number is no higher than that of the entries, and
//!    who claims under a limit mostly looks no further. If there are too many, the sessions are looked at and
//!    the stale entries dropped. An entry without a session that is so young that its write may be under way is
//!    waited for.
//! 4. **Who is evicted ends with the write of the new session, and not before.** The claim names them. The new
//!    session's value then begins with their ids, and does not count before they are removed: whoever meets
//!    it in that state removes them, and then takes the ids off.

use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;

use super::command::{Part, Script, command};
use super::connection::Way;
use super::{RedisStore, end, indexed_until, most, unexpected};
use crate::clock::Timestamp;
use crate::error::StoreError;
use crate::id::SessionId;
use crate::record::{Record, Version};
use crate::store::contract::{Admission, SignIn, WhenFull};

/// How long a claim may be without a session before it is made void; twice as long each time that a
/// sign-in begins anew, so that the slow come through, too.
const UNDER_WAY: Duration = Duration::from_millis(250);

/// How long to wait before one looks again for what is under way.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// How often a sign-in begins anew, or looks again.
const ROUNDS: usize = 1_000;

/// How many sessions are looked at at once.
const AT_ONCE: usize = 500;

/// From how many entries on the stale ones are looked for without a limit, each time that their number has
/// doubled.
const MANY: usize = 32;

/// The first byte of a value whose session evicts others.
const EVICTING: u8 = 224;

pub(super) struct Scripts {
    claim: Script,
    claims: Script,
    end: Script,
    forget: Script,
    look: Script,
    revoke: Script,
    settle: Script,
    write: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        let script = |code| Script::new(&[include_str!("cluster/common.lua"), code].concat());
        Self {
            claim: script(include_str!("cluster/claim.lua")),
            claims: script(include_str!("cluster/claims.lua")),
            end: script(include_str!("cluster/end.lua")),
            forget: script(include_str!("cluster/forget.lua")),
            look: script(include_str!("cluster/look.lua")),
            revoke: script(include_str!("cluster/revoke.lua")),
            settle: script(include_str!("cluster/settle.lua")),
            write: script(include_str!("cluster/write.lua")),
        }
    }
}

/// A sign-in, as its steps need it.
struct Attempt<'a> {
    id: SessionId,
    record: &'a Record,
    owner: &'a str,
    expected: Option<Version>,
    admission: Admission,
    now: Timestamp,
}

/// What is in an owner's index.
struct Entry {
    id: SessionId,
    claim: String,
    age: Duration,
}

enum Claim {
    Granted {
        number: String,
        entries: usize,
    },
    Revoked,
    /// These have to be looked at first.
    Full(Vec<Entry>),
}

/// What became of an entry's session.
enum Found {
    Live {
        signed_in: u64,
    },
    /// It counts as absent, but is still there.
    Over,
    /// There is none, and none will be written.
    Gone,
    /// It may yet be written.
    UnderWay,
}

/// Entries that do not count towards the limit.
#[derive(Default)]
struct Discounted {
    /// Those that end when this sign-in is done.
    evicted: Vec<Entry>,
    over: Vec<Entry>,
}

impl RedisStore {
    pub(super) async fn sign_in_on_cluster(
        &self,
        id: SessionId,
        record: &Record,
        expected: Option<Version>,
        admission: Admission,
        now: Timestamp,
    ) -> Result<SignIn, StoreError> {
        let owner = record.owner.as_deref().unwrap_or_default();
        let attempt = Attempt {
            id,
            record,
            owner,
            expected,
            admission,
            now,
        };
        let mut discounted = Discounted::default();
        let mut under_way = UNDER_WAY;
        for _ in 0..ROUNDS {
            match self.claim(&attempt, &discounted).await? {
                Claim::Revoked => return Ok(SignIn::Revoked),
                Claim::Granted { number, entries } => {
                    let evicted = discounted.evicted.iter().map(|entry| entry.id).collect();
                    if let Some(answer) = self.write(&attempt, &number, evicted).await? {
                        let is_done = answer == SignIn::Done;
                        if is_done && admission.limit.is_none() {
                            self.look_through_many(owner, entries, now).await;
                        }
                        return Ok(answer);
                    }
                    discounted = Discounted::default();
                    under_way *= 2;
                }
                Claim::Full(entries) => {
                    let Some(found) = self.discount(&attempt, entries, under_way).await? else {
                        return Ok(SignIn::Full);
                    };
                    discounted = found;
                }
            }
        }
        Err(StoreError::new(
            "the owner's sessions are changed all the time",
        ))
    }

    async fn claim(&self, attempt: &Attempt<'_>, not: &Discounted) -> Result<Claim, StoreError> {
        let Attempt {
            id,
            record,
            owner,
            admission,
            ..
        } = attempt;
        let keys = [self.keys.index(owner), self.keys.revoked(owner)];
        let mut arguments = vec![
            Part::Id(*id),
            Part::time(admission.began),
            most(*admission),
            Part::time(indexed_until(record)),
        ];
        arguments.extend(pairs(not.evicted.iter().chain(&not.over)));
        let answer = self
            .call(&self.scripts.cluster.claim, &keys, &arguments)
            .await?;
        let parts = match answer {
            Value::Int(3) => return Ok(Claim::Revoked),
            Value::Array(parts) => parts.try_into().unwrap_or([Value::Nil, Value::Nil]),
            other => return Err(unexpected(&other)),
        };
        match parts {
            [Value::BulkString(number), Value::Int(entries)] => {
                let number = String::from_utf8(number).map_err(StoreError::new)?;
                let entries = usize::try_from(entries).map_err(StoreError::new)?;
                Ok(Claim::Granted { number, entries })
            }
            [Value::Int(4), entries] => self.entries(owner, entries).await.map(Claim::Full),
            [other, _] => Err(unexpected(&other)),
        }
    }

    /// Writes the session for which there is a claim. None if the claim is void.
    async fn write(
        &self,
        attempt: &Attempt<'_>,
        claim: &str,
        evicted: Vec<SessionId>,
    ) -> Result<Option<SignIn>, StoreError> {
        let Attempt {
            id,
            record,
            owner,
            expected,
            now,
            ..
        } = attempt;
        let evicting = Evicting::new(evicted);
        let value = [
            evicting.as_ref().map_or(&[][..], |evicting| &evicting.head),
            &record.encode(),
        ]
        .concat();
        let arguments = [
            Part::Bytes(&value),
            Part::time(end(record)),
            Part::time(*now),
            expected.map_or(Part::EMPTY, Part::Beginning),
            Part::text(owner),
            Part::text(claim),
        ];
        let keys = [self.keys.session(*id), self.keys.fence(*id)];
        let refused = loop {
            match self
                .call(&self.scripts.cluster.write, &keys, &arguments)
                .await?
            {
                Value::Int(1) => {
                    if let Some(evicting) = &evicting {
                        self.carry_out(*id, owner, evicting).await?;
                    }
                    return Ok(Some(SignIn::Done));
                }
                Value::Int(5) => return Ok(None),
                Value::Int(0) => break SignIn::Gone,
                Value::Int(2) => break SignIn::Taken,
                there => {
                    if self.carries_out(*id, &there).await? {
                        continue;
                    }
                    match there {
                        Value::BulkString(current) => {
                            break SignIn::Conflict(Record::decode(&current)?);
                        }
                        other => return Err(unexpected(&other)),
                    }
                }
            }
        };
        Ok(Some(refused))
    }

    /// What does not count of an owner's entries when this session signs in. None if it is one too many.
    async fn discount(
        &self,
        attempt: &Attempt<'_>,
        mut entries: Vec<Entry>,
        under_way: Duration,
    ) -> Result<Option<Discounted>, StoreError> {
        let Attempt {
            id,
            owner,
            admission,
            now,
            ..
        } = attempt;
        entries.retain(|entry| entry.id != *id);
        let (mut live, mut discounted, mut is_clear) = (Vec::new(), Discounted::default(), true);
        for (entry, found) in self.look_through(owner, entries, *now, under_way).await? {
            match found {
                Found::Live { signed_in } => live.push((signed_in, entry)),
                Found::Over => discounted.over.push(entry),
                Found::Gone => {}
                Found::UnderWay => is_clear = false,
            }
        }
        if !is_clear {
            tokio::time::sleep(LOOK_AGAIN).await;
            return Ok(Some(Discounted::default()));
        }
        let Some(limit) = admission.limit else {
            return Ok(Some(discounted));
        };
        let surplus = (live.len() + 1).saturating_sub(limit.max.get());
        if surplus > 0 && limit.when_full == WhenFull::Refuse {
            return Ok(None);
        }
        live.sort_by_key(|(signed_in, _)| *signed_in);
        discounted.evicted = live
            .into_iter()
            .take(surplus)
            .map(|(_, entry)| entry)
            .collect();
        Ok(Some(discounted))
    }

    /// Looks what became of the sessions of an owner's entries, and drops the stale ones.
    async fn look_through(
        &self,
        owner: &str,
        entries: Vec<Entry>,
        now: Timestamp,
        under_way: Duration,
    ) -> Result<Vec<(Entry, Found)>, StoreError> {
        let mut seen = Vec::with_capacity(entries.len());
        for entry in &entries {
            seen.push(self.look_at(owner, entry, now, under_way));
        }
        let found: Vec<_> = entries.iter().zip(together(seen).await?).collect();
        let gone = found
            .iter()
            .filter(|(_, found)| matches!(found, Found::Gone));
        self.forget(owner, &pairs(gone.map(|(entry, _)| *entry)))
            .await?;
        let found: Vec<_> = found.into_iter().map(|(_, found)| found).collect();
        Ok(entries.into_iter().zip(found).collect())
    }

    async fn look_at(
        &self,
        owner: &str,
        entry: &Entry,
        now: Timestamp,
        under_way: Duration,
    ) -> Result<Found, StoreError> {
        let keys = [self.keys.session(entry.id), self.keys.fence(entry.id)];
        let is_old = entry.age >= under_way;
        let void = if is_old { &*entry.claim } else { "" };
        let arguments = [Part::text(owner), Part::time(now), Part::text(void)];
        loop {
            return match self
                .call(&self.scripts.cluster.look, &keys, &arguments)
                .await?
            {
                Value::BulkString(signed_in) => {
                    let text = std::str::from_utf8(&signed_in).ok();
                    let signed_in = text.and_then(|text| text.parse().ok()).unwrap_or_default();
                    Ok(Found::Live { signed_in })
                }
                Value::Int(0 | 2) if !is_old => Ok(Found::UnderWay),
                Value::Int(0) => Ok(Found::Gone),
                Value::Int(2) => Ok(Found::Over),
                Value::Array(value) => {
                    let value = value.into_iter().next().unwrap_or(Value::Nil);
                    if self.carries_out(entry.id, &value).await? {
                        continue;
                    }
                    Err(unexpected(&value))
                }
                other => Err(unexpected(&other)),
            };
        }
    }

    /// Drops stale entries, if there are so many that it is time.
    async fn look_through_many(&self, owner: &str, entries: usize, now: Timestamp) {
        if entries >= MANY && entries.is_power_of_two() {
            // If that fails, the session is signed in nevertheless.
            let _ = self.prune_on_cluster(owner, now).await;
        }
    }

    pub(super) async fn prune_on_cluster(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let keys = [self.keys.index(owner)];
        let entries = self.call(&self.scripts.cluster.claims, &keys, &[]).await?;
        let entries = self.entries(owner, entries).await?;
        self.look_through(owner, entries, now, UNDER_WAY).await?;
        Ok(())
    }

    pub(super) async fn list_on_cluster(
        &self,
        owner: &str,
        now: Timestamp,
    ) -> Result<Vec<(SessionId, Record)>, StoreError> {
        let keys = [self.keys.index(owner)];
        let entries = self.call(&self.scripts.cluster.claims, &keys, &[]).await?;
        let entries = self.entries(owner, entries).await?;
        let mut values = Vec::with_capacity(entries.len());
        for entry in &entries {
            values.push(self.value(entry.id));
        }
        let (mut listed, mut stale) = (Vec::new(), Vec::new());
        for (entry, bytes) in entries.into_iter().zip(together(values).await?) {
            match super::listed(owner, bytes)? {
                Some(record) if record.expires > now => listed.push((entry.id, record)),
                Some(_) => {}
                None => stale.push(entry),
            }
        }
        if !stale.is_empty() {
            // If that fails, the next one does it; the list is right either way.
            let _ = self.look_through(owner, stale, now, UNDER_WAY).await;
        }
        Ok(listed)
    }

    /// Every session is asked to end, also after one could not be reached.
    pub(super) async fn delete_by_owner_on_cluster(
        &self,
        owner: &str,
        keep: Option<SessionId>,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let keys = [self.keys.index(owner), self.keys.revoked(owner)];
        let arguments = [keep.map_or(Part::EMPTY, Part::Id), Part::time(now)];
        let entries = self
            .call(&self.scripts.cluster.revoke, &keys, &arguments)
            .await?;
        let mut entries = self.entries(owner, entries).await?;
        entries.retain(|entry| Some(entry.id) != keep);
        let mut ended = Vec::with_capacity(entries.len());
        for entry in &entries {
            ended.push(self.end(entry.id, owner, &entry.claim, now));
        }
        let ended = together(ended).await?;
        self.forget(owner, &pairs(&entries)).await?;
        Ok(ended.into_iter().sum())
    }

    async fn end(
        &self,
        id: SessionId,
        owner: &str,
        void: &str,
        now: Timestamp,
    ) -> Result<usize, StoreError> {
        let keys = [self.keys.session(id), self.keys.fence(id)];
        let arguments = [Part::text(owner), Part::text(void), Part::time(now)];
        self.call(&self.scripts.cluster.end, &keys, &arguments)
            .await
    }

    pub(super) async fn unlink_on_cluster(&self, keys: &[Part<'_>]) -> Result<usize, StoreError> {
        let mut unlinked = Vec::with_capacity(keys.len());
        for key in keys {
            unlinked.push(async move {
                let unlink = command(&[Part::text("UNLINK"), *key]);
                self.run::<usize>(Way::Alone, unlink).await
            });
        }
        Ok(together(unlinked).await?.into_iter().sum())
    }

    async fn forget(&self, owner: &str, pairs: &[Part<'_>]) -> Result<(), StoreError> {
        if pairs.is_empty() {
            return Ok(());
        }
        let keys = [self.keys.index(owner)];
        self.call(&self.scripts.cluster.forget, &keys, pairs).await
    }

    /// Reads what is in an owner's index; what is no entry is dropped from it.
    async fn entries(&self, owner: &str, claims: Value) -> Result<Vec<Entry>, StoreError> {
        let claims: Vec<String> = redis::from_redis_value(claims).map_err(StoreError::new)?;
        let (mut entries, mut none) = (Vec::new(), Vec::new());
        for claim in claims.chunks_exact(3) {
            let age = Duration::from_millis(claim[2].parse().unwrap_or_default());
            match claim[0].parse() {
                Ok(id) => entries.push(Entry {
                    id,
                    claim: claim[1].clone(),
                    age,
                }),
                Err(_) => none.extend(claim[..2].iter().map(|text| Part::text(text))),
            }
        }
        self.forget(owner, &none).await?;
        Ok(entries)
    }

    /// If that is the value of a session which evicts others: removes them, so that it counts.
    pub(super) async fn carries_out(
        &self,
        id: SessionId,
        value: &Value,
    ) -> Result<bool, StoreError> {
        let Value::BulkString(value) = value else {
            return Ok(false);
        };
        let Some((evicting, record)) = Evicting::read(value) else {
            return Ok(false);
        };
        let owner = Record::decode(record)?.owner;
        let owner = owner.as_deref().unwrap_or_default();
        Box::pin(self.carry_out(id, owner, &evicting)).await?;
        Ok(true)
    }

    async fn carry_out(
        &self,
        id: SessionId,
        owner: &str,
        evicting: &Evicting,
    ) -> Result<(), StoreError> {
        let mut ended = Vec::with_capacity(evicting.ids.len());
        for id in &evicting.ids {
            // Nobody asks how many of them were live.
            ended.push(self.end(*id, owner, "", Timestamp::MAX));
        }
        together(ended).await?;
        let keys = [self.keys.session(id)];
        let head = [Part::Bytes(&evicting.head)];
        self.call(&self.scripts.cluster.settle, &keys, &head).await
    }
}

/// The sessions that one evicts, and how its value begins meanwhile.
struct Evicting {
    ids: Vec<SessionId>,
    /// [`EVICTING`], the number of the ids in four bytes, and these.
    head: Vec<u8>,
}

impl Evicting {
    fn new(ids: Vec<SessionId>) -> Option<Self> {
        let count = u32::try_from(ids.len()).ok().filter(|count| *count > 0)?;
        let mut head = vec![EVICTING];
        head.extend(count.to_be_bytes());
        head.extend(ids.iter().flat_map(SessionId::as_bytes));
        Some(Self { ids, head })
    }

    /// Takes it from before a record.
    fn read(value: &[u8]) -> Option<(Self, &[u8])> {
        let (count, rest) = value.strip_prefix(&[EVICTING])?.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes(*count))
            .ok()?
            .checked_mul(16)?;
        let (ids, record) = rest.split_at_checked(len)?;
        let (ids, _) = ids.as_chunks();
        let ids = ids.iter().map(|id| SessionId::from_bytes(*id)).collect();
        let head = value[..value.len() - record.len()].to_vec();
        Some((Self { ids, head }, record))
    }
}

/// Waits for all, a number of them at once, also when one fails.
async fn together<T, F>(futures: Vec<F>) -> Result<Vec<T>, StoreError>
where
    F: Future<Output = Result<T, StoreError>>,
{
    let mut done = Vec::with_capacity(futures.len());
    let mut futures = futures.into_iter();
    loop {
        let some = join_all(futures.by_ref().take(AT_ONCE)).await;
        if some.is_empty() {
            return done.into_iter().collect();
        }
        done.extend(some);
    }
}

/// Id and claim of each entry, as scripts take them.
fn pairs<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Part<'a>> {
    let pair = |entry: &'a Entry| [Part::Id(entry.id), Part::text(&entry.claim)];
    entries.into_iter().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_evicted_are_read_from_before_the_record() {
        let ids = vec![
            SessionId::from_bytes([1; 16]),
            SessionId::from_bytes([2; 16]),
        ];
        let evicting = Evicting::new(ids.clone()).unwrap();
        let value = [&*evicting.head, b"record"].concat();
        let (read, record) = Evicting::read(&value).unwrap();
        assert_eq!(
            (read.ids, read.head, record),
            (ids, evicting.head, &b"record"[..])
        );
        assert!(Evicting::read(&value[..30]).is_none());
        assert!(Evicting::read(b"\x01record").is_none());
        assert!(Evicting::new(Vec::new()).is_none());
    }
}
