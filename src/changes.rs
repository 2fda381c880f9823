//! What a handler did to the values, recorded so that it can be done again on newer data.

use std::fmt;

use crate::data::{Data, Json, Key};
use crate::error::Result;

/// An update closure with its types erased: from the key and the value's JSON to the new JSON.
pub(crate) type Update = Box<dyn FnMut(&Key, Option<&[u8]>) -> Result<Json> + Send>;

/// One recorded operation of a handler.
pub(crate) enum Change {
    Set(Key, Json),
    Remove(Key),
    Clear,
    Update(Key, Update),
}

impl Change {
    fn key(&self) -> Option<&str> {
        match self {
            Self::Set(key, _) | Self::Remove(key) | Self::Update(key, _) => Some(key),
            Self::Clear => None,
        }
    }

    /// Whether the outcome for the key does not depend on what was there.
    fn overwrites(&self) -> bool {
        !matches!(self, Self::Update(..))
    }
}

/// The log of a handler's changes, in order and without those that a later one overwrites, plus what
/// it read before where that matters.
#[derive(Default)]
pub(crate) struct Changes {
    log: Vec<Change>,
    /// Keys and the values that the handler saw, before any change of its own.
    reads: Vec<(Key, Option<Json>)>,
}

impl Changes {
    pub(crate) fn is_empty(&self) -> bool {
        self.log.is_empty()
    }

    /// Records a change that the visible data already shows.
    pub(crate) fn push(&mut self, change: Change) {
        match &change {
            Change::Clear => self.log.clear(),
            Change::Set(key, _) | Change::Remove(key) => {
                self.log.retain(|earlier| earlier.key() != Some(&**key));
            }
            Change::Update(..) => {}
        }
        self.log.push(change);
    }

    /// Whether an earlier change decides the key's value whatever the store holds. An update on top
    /// of it is then recorded as the value it made, so that a loop of them keeps the log short.
    pub(crate) fn decides(&self, key: &str) -> bool {
        self.log
            .iter()
            .any(|change| change.overwrites() && change.key().is_none_or(|changed| changed == key))
    }

    /// Notes the stored value of `key` that the handler sees.
    pub(crate) fn note_read(&mut self, key: &str, value: Option<&[u8]>) {
        if !self.concern(key) {
            self.reads.retain(|(read, _)| read != key);
            self.reads
                .push((key.to_owned().into(), value.map(Json::from)));
        }
    }

    /// Whether the log has a change of the key.
    fn concern(&self, key: &str) -> bool {
        self.log
            .iter()
            .any(|change| change.key().is_none_or(|changed| changed == key))
    }

    /// Does the changes again, on `data`.
    pub(crate) fn replay(&mut self, data: &mut Data) -> Result<()> {
        for change in &mut self.log {
            match change {
                Change::Set(key, json) => data.set(key.clone(), json.clone()),
                Change::Remove(key) => {
                    data.remove(key);
                }
                Change::Clear => data.clear(),
                Change::Update(key, update) => {
                    let json = update(key, data.get(key))?;
                    data.set(key.clone(), json);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn has_reads(&self) -> bool {
        !self.reads.is_empty()
    }

    /// A key that the handler read, then set or removed, and that has another value in `current`.
    pub(crate) fn clash(&self, current: &Data) -> Option<&str> {
        let changed = |(key, value): &&(Key, Option<Json>)| current.get(key) != value.as_deref();
        let rewritten = |(key, _): &&(Key, Option<Json>)| {
            let on_key = |change: &Change| change.key().is_none_or(|changed| changed == key);
            self.log
                .iter()
                .any(|change| change.overwrites() && on_key(change))
        };
        self.reads
            .iter()
            .filter(changed)
            .find(rewritten)
            .map(|(key, _)| &**key)
    }

    /// Puts `later` changes behind these.
    pub(crate) fn extend(&mut self, later: Self) {
        for (key, value) in later.reads {
            self.note_read(&key, value.as_deref());
        }
        for change in later.log {
            self.push(change);
        }
    }

    /// The changes are stored: what is left is what the handler read of other keys.
    pub(crate) fn stored(mut self) -> Self {
        let reads = std::mem::take(&mut self.reads);
        let reads = reads
            .into_iter()
            .filter(|(key, _)| !self.concern(key))
            .collect();
        Self {
            log: Vec::new(),
            reads,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.log.clear();
        self.reads.clear();
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes")
            .field("len", &self.log.len())
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
        changes.into_iter().for_each(|change| log.push(change));
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
    fn overwritten_changes_leave_the_log() {
        let mut log = Changes::default();
        for i in 0..1000 {
            log.push(set("a", &i.to_string()));
        }
        assert_eq!(log.log.len(), 1);
        assert!(log.decides("a") && !log.decides("b"));
        log.push(Change::Clear);
        assert!(log.decides("b"));
        assert_eq!(log.log.len(), 1);
    }

    #[test]
    fn a_clash_is_a_key_read_then_set_and_changed_meanwhile() {
        let current = data(r#"{"a":2,"b":1}"#);
        let clash = |reads: &[&str], changes: Vec<Change>| {
            let mut log = Changes::default();
            reads.iter().for_each(|key| log.note_read(key, Some(b"1")));
            changes.into_iter().for_each(|change| log.push(change));
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
        log.push(set("a", "1"));
        log.note_read("a", Some(b"1"));
        assert_eq!(log.clash(&data(r#"{"a":2}"#)), None);
    }

    #[test]
    fn what_was_read_and_not_changed_outlives_the_storing() {
        let mut log = Changes::default();
        log.note_read("a", Some(b"1"));
        log.note_read("b", Some(b"1"));
        log.push(set("b", "2"));
        let mut log = log.stored();
        log.push(set("a", "3"));
        log.push(set("b", "3"));
        assert_eq!(log.clash(&data(r#"{"a":1,"b":2}"#)), None);
        assert_eq!(log.clash(&data(r#"{"a":2,"b":2}"#)), Some("a"));
    }
}
