//! What a handler did to the values, recorded so that it can be done again on newer data.

use std::fmt;
use std::mem;

use crate::data::{Data, Json, Key};
use crate::error::Result;
use crate::watch::CLIENT_KEY;

/// An update closure with its types erased: from the key and the value's JSON to the new JSON.
pub(crate) type Update = Box<dyn FnMut(&Key, Option<&[u8]>) -> Result<Json> + Send>;

/// One recorded operation of a handler.
pub(crate) enum Change {
    Set(Key, Json),
    Remove(Key),
    /// All keys but [`CLIENT_KEY`]: whose client it is, is no value of the application (S-85).
    Clear,
    Update(Key, Update),
}

/// Changes that a later one has made void. Closures of the application are among them, to be dropped where
/// that can do no harm.
pub(crate) type Overwritten = Vec<KeyChange>;

/// The changes of one key, in order.
#[derive(Default)]
pub(crate) struct KeyChange {
    /// What the key was set to (`None`: removed), whatever was there.
    set: Option<Option<Json>>,
    /// What was done after that; nearly always once, and a `Vec` would be an allocation.
    update: Option<Update>,
    updates: Vec<Update>,
}

impl KeyChange {
    fn push(&mut self, update: Update) {
        if self.update.is_none() {
            self.update = Some(update);
        } else {
            self.updates.push(update);
        }
    }
}

/// Values by key, in order. Of a few keys, which a map would keep in a node for eleven.
struct ByKey<T>(Vec<(Key, T)>);

impl<T> Default for ByKey<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> ByKey<T> {
    fn position(&self, key: &str) -> std::result::Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(key))
    }

    fn get(&self, key: &str) -> Option<&T> {
        let at = self.position(key).ok()?;
        Some(&self.0[at].1)
    }

    fn contains(&self, key: &str) -> bool {
        self.position(key).is_ok()
    }

    /// Room for two at first, since most handlers change no more: a `Vec` would begin with four.
    fn make_room(&mut self) {
        if self.0.capacity() == 0 {
            self.0.reserve_exact(2);
        }
    }

    /// Returns what was there.
    fn insert(&mut self, key: Key, value: T) -> Option<T> {
        match self.position(&key) {
            Ok(at) => Some(mem::replace(&mut self.0[at].1, value)),
            Err(at) => {
                self.make_room();
                self.0.insert(at, (key, value));
                None
            }
        }
    }

    /// Removes all keys but one; returns their values.
    fn clear_but(&mut self, key: &str) -> Vec<T> {
        let kept = self.position(key).ok().map(|at| self.0.remove(at));
        let all = mem::replace(&mut self.0, Vec::from_iter(kept));
        all.into_iter().map(|(_, value)| value).collect()
    }

    fn get_or_default(&mut self, key: Key) -> &mut T
    where
        T: Default,
    {
        let at = self.position(&key).unwrap_or_else(|at| {
            self.make_room();
            self.0.insert(at, (key, T::default()));
            at
        });
        &mut self.0[at].1
    }
}

/// A handler's changes, less those that a later one overwrites, plus what it read before where that
/// matters.
///
/// Keys do not depend on each other, so it is enough to keep the order within each.
#[derive(Default)]
pub(crate) struct Changes {
    cleared: bool,
    keys: ByKey<KeyChange>,
    /// Keys and the values that the handler saw, before any change of its own.
    reads: ByKey<Option<Json>>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        !self.cleared && self.keys.0.is_empty()
    }

    /// Takes out all, if there are any.
    pub(crate) fn take(&mut self) -> Option<Self> {
        (!self.is_empty()).then(|| mem::take(self))
    }

    /// Records a change that the visible data already shows. Returns what it overwrites.
    #[must_use = "closures are dropped without a lock held"]
    pub(crate) fn push(&mut self, change: Change) -> Overwritten {
        let mut set = |key: Key, json| {
            let change = KeyChange {
                set: Some(json),
                ..KeyChange::default()
            };
            match self.keys.insert(key, change) {
                Some(old) if old.update.is_some() => vec![old],
                _ => Vec::new(),
            }
        };
        match change {
            Change::Set(key, json) => set(key, Some(json)),
            Change::Remove(key) => set(key, None),
            Change::Clear => {
                self.cleared = true;
                self.keys.clear_but(CLIENT_KEY)
            }
            Change::Update(key, update) => {
                self.keys.get_or_default(key).push(update);
                Overwritten::default()
            }
        }
    }

    /// Whether an earlier change decides the key's value whatever the store holds. An update on top
    /// of it is then recorded as the value it made, so that a loop of them keeps the log short.
    pub(crate) fn decides(&self, key: &str) -> bool {
        self.cleared
            || self
                .keys
                .get(key)
                .is_some_and(|change| change.set.is_some())
    }

    /// Notes the stored value of `key` that the handler sees.
    pub(crate) fn note_read(&mut self, key: &str, value: Option<&[u8]>) {
        if !self.concern(key) {
            self.reads
                .insert(key.to_owned().into(), value.map(Json::from));
        }
    }

    /// Whether the key was changed.
    fn concern(&self, key: &str) -> bool {
        self.cleared || self.keys.contains(key)
    }

    /// Does the changes again, on `data`.
    pub(crate) fn replay(&mut self, data: &mut Data) -> Result<()> {
        if self.cleared {
            data.clear_but(CLIENT_KEY);
        }
        for (key, change) in &mut self.keys.0 {
            match &change.set {
                Some(Some(json)) => data.set(key.clone(), json.clone()),
                Some(None) => {
                    data.remove(key);
                }
                None => {}
            }
            for update in change.update.iter_mut().chain(&mut change.updates) {
                let held = data.hold(key);
                let json = update(key, held.json())?;
                data.replace(&held, key.clone(), json);
            }
        }
        Ok(())
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.0.is_empty()
    }

    /// A key that the handler read, then set or removed, and that has another value in `current`.
    pub(crate) fn clash(&self, current: &Data) -> Option<&str> {
        let mut rewritten = self.reads.0.iter().filter(|(key, _)| self.decides(key));
        let changed = rewritten.find(|(key, value)| current.get(key) != value.as_deref());
        changed.map(|(key, _)| &**key)
    }

    /// Puts `later` changes behind these. Returns what they overwrite.
    #[must_use = "closures are dropped without a lock held"]
    pub(crate) fn extend(&mut self, later: Self) -> Overwritten {
        let mut overwritten = Overwritten::default();
        for (key, value) in later.reads.0 {
            self.note_read(&key, value.as_deref());
        }
        if later.cleared {
            self.cleared = true;
            overwritten = self.keys.clear_but(CLIENT_KEY);
        }
        for (key, change) in later.keys.0 {
            let stands_alone = change.set.is_some() || !self.keys.contains(&key);
            if stands_alone {
                overwritten.extend(self.keys.insert(key, change));
            } else {
                let earlier = self.keys.get_or_default(key);
                let updates = change.update.into_iter().chain(change.updates);
                updates.for_each(|update| earlier.push(update));
            }
        }
        overwritten
    }

    /// Takes out what counts after these changes are stored: what the handler read of other keys.
    pub(crate) fn take_reads(&mut self) -> Self {
        self.forget_reads();
        Self {
            reads: mem::take(&mut self.reads),
            ..Self::default()
        }
    }

    /// Forgets what the handler read of keys that it changed.
    pub(crate) fn forget_reads(&mut self) {
        let mut reads = mem::take(&mut self.reads);
        reads.0.retain(|(key, _)| !self.concern(key));
        self.reads = reads;
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("keys", &self.keys.0.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(json: &str) -> Data {
        Data::parse(json.as_bytes().into()).unwrap()
    }

    fn json(text: &str) -> Json {
        text.as_bytes().into()
    }

    fn set(key: &'static str, value: &str) -> Change {
        Change::Set(key.into(), json(value))
    }

    fn add(key: &'static str, n: u64) -> Change {
        let update = move |_: &Key, old: Option<&[u8]>| {
            let old: u64 = old.map_or(0, |old| serde_json::from_slice(old).unwrap());
            Ok(json(&(old + n).to_string()))
        };
        Change::Update(key.into(), Box::new(update))
    }

    fn replayed(changes: impl IntoIterator<Item = Change>, onto: &str) -> String {
        let mut log = Changes::default();
        changes
            .into_iter()
            .for_each(|change| drop(log.push(change)));
        let mut data = data(onto);
        log.replay(&mut data).unwrap();
        String::from_utf8(data.encode().to_vec()).unwrap()
    }

    #[test]
    fn changes_are_redone_on_newer_data_without_touching_other_keys() {
        let changes = [set("a", "1"), Change::Remove("b".into()), add("n", 1)];
        assert_eq!(
            replayed(changes, r#"{"a":9,"b":9,"c":9,"n":9}"#),
            r#"{"a":1,"c":9,"n":10}"#
        );
    }

    #[test]
    fn updates_add_up_and_stand_on_what_was_set_before() {
        assert_eq!(
            replayed([add("n", 1), add("n", 2)], r#"{"n":10}"#),
            r#"{"n":13}"#
        );
        assert_eq!(
            replayed([set("n", "5"), add("n", 2)], r#"{"n":10}"#),
            r#"{"n":7}"#
        );
        assert_eq!(
            replayed([add("n", 2), set("n", "5")], r#"{"n":10}"#),
            r#"{"n":5}"#
        );
    }

    #[test]
    fn clear_drops_what_others_wrote_and_keeps_what_came_after() {
        let changes = [set("a", "1"), Change::Clear, set("b", "2")];
        assert_eq!(replayed(changes, r#"{"x":9}"#), r#"{"b":2}"#);
    }

    #[test]
    fn clear_keeps_the_client_that_is_stored_or_set() {
        let stored = r#"{"a":1,"cloakroom.client":2,"cloakroom.csrf":3}"#;
        let kept = r#"{"cloakroom.client":2}"#;
        assert_eq!(replayed([Change::Clear], stored), kept);
        let changes = || [set(CLIENT_KEY, "4"), set("a", "1"), Change::Clear];
        assert_eq!(replayed(changes(), stored), r#"{"cloakroom.client":4}"#);
        let mut log = Changes::default();
        for change in changes() {
            let mut later = Changes::default();
            drop(later.push(change));
            drop(log.extend(later));
        }
        let mut all = data(stored);
        log.replay(&mut all).unwrap();
        assert_eq!(&*all.encode(), br#"{"cloakroom.client":4}"#);
        assert_eq!(all.encoded_len(), all.encode().len());
    }

    #[test]
    fn later_changes_stand_on_earlier_ones() {
        let of = |changes: Vec<Change>| {
            let mut log = Changes::default();
            changes
                .into_iter()
                .for_each(|change| drop(log.push(change)));
            log
        };
        let mut log = of(vec![
            set("a", "1"),
            add("b", 1),
            set("c", "1"),
            set("x", "1"),
        ]);
        drop(log.extend(of(vec![
            add("a", 2),
            add("b", 2),
            set("c", "2"),
            Change::Remove("x".into()),
        ])));
        let mut all = data(r#"{"a":10,"b":10,"c":10,"x":10}"#);
        log.replay(&mut all).unwrap();
        assert_eq!(&*all.encode(), br#"{"a":3,"b":13,"c":2}"#);
        drop(log.extend(of(vec![Change::Clear, add("b", 5)])));
        log.replay(&mut all).unwrap();
        assert_eq!(&*all.encode(), br#"{"b":5}"#);
    }

    #[test]
    fn overwritten_changes_leave_the_log() {
        let mut log = Changes::default();
        for i in 0..1000 {
            drop(log.push(set("a", &i.to_string())));
        }
        assert_eq!(log.keys.0.len(), 1);
        assert!(log.decides("a") && !log.decides("b"));
        drop(log.push(Change::Clear));
        assert!(log.decides("b"));
        assert_eq!(log.keys.0.len(), 0);
    }

    #[test]
    fn a_clash_is_a_key_read_then_set_and_changed_meanwhile() {
        let current = data(r#"{"a":2,"b":1}"#);
        let clash = |reads: &[&str], changes: Vec<Change>| {
            let mut log = Changes::default();
            reads.iter().for_each(|key| log.note_read(key, Some(b"1")));
            changes
                .into_iter()
                .for_each(|change| drop(log.push(change)));
            log.clash(&current).map(str::to_owned)
        };
        assert_eq!(clash(&["a"], vec![set("a", "3")]).as_deref(), Some("a"));
        assert_eq!(clash(&["a"], vec![Change::Clear]).as_deref(), Some("a"));
        assert_eq!(clash(&["c"], vec![set("c", "3")]).as_deref(), Some("c"));
        assert_eq!(clash(&["b"], vec![set("b", "3")]), None);
        assert_eq!(clash(&["a"], vec![set("b", "3")]), None);
        assert_eq!(clash(&[], vec![set("a", "3")]), None);
        assert_eq!(clash(&["a"], vec![add("a", 3)]), None);
    }

    #[test]
    fn a_read_of_what_the_handler_itself_wrote_does_not_count() {
        let mut log = Changes::default();
        drop(log.push(set("a", "1")));
        log.note_read("a", Some(b"1"));
        assert_eq!(log.clash(&data(r#"{"a":2}"#)), None);
    }

    #[test]
    fn what_was_read_and_not_changed_outlives_the_storing() {
        let mut log = Changes::default();
        log.note_read("a", Some(b"1"));
        log.note_read("b", Some(b"1"));
        drop(log.push(set("b", "2")));
        let mut log = log.take_reads();
        drop(log.push(set("a", "3")));
        drop(log.push(set("b", "3")));
        assert_eq!(log.clash(&data(r#"{"a":1,"b":2}"#)), None);
        assert_eq!(log.clash(&data(r#"{"a":2,"b":2}"#)), Some("a"));
    }
}
