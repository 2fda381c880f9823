//! A session's values: a JSON object kept as raw JSON until a handler asks for a key.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::fmt;
use std::mem;
use std::ops::{Deref, Range};
use std::sync::Arc;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::InvalidJson;

mod json;
mod scan;

pub(crate) use json::Json;
use scan::Member;

/// A key as the application names it.
pub(crate) type Key = Cow<'static, str>;

/// Keys that begin so are the crate's own: applications neither see nor set them.
const RESERVED: &str = "cloakroom.";

/// Whether a key is the crate's own.
pub(crate) fn is_reserved(key: &str) -> bool {
    key.starts_with(RESERVED)
}

/// Runs `write` on a buffer that the thread keeps, and returns what it wrote as it is to be kept.
pub(crate) fn written<T, E>(write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>) -> Result<T, E>
where
    T: for<'a> From<&'a [u8]>,
{
    /// What a thread keeps; a larger buffer is given back.
    const KEEP: usize = 16 * 1024;
    thread_local!(static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) });
    // Taken, not borrowed: serializing may come back here.
    let mut buffer = BUFFER.take();
    let result = write(&mut buffer).map(|()| T::from(&buffer));
    buffer.clear();
    if buffer.capacity() <= KEEP {
        BUFFER.set(buffer);
    }
    result
}

/// Fails for what is no JSON, or has space around it: `Serialize` can be made to write anything.
pub(crate) fn check_value(text: &[u8]) -> serde_json::Result<()> {
    if scan::is_value(text) {
        return Ok(());
    }
    if text.trim_ascii().len() < text.len() {
        return Err(serde::de::Error::custom("there is space around the value"));
    }
    serde_json::from_slice(text).map(|IgnoredAny| ())
}

/// The values of a session as a store keeps them: bytes, opaque to it.
///
/// They dereference to `[u8]`, and clones share them. A store that hands out the `Content` that it was
/// given, as one in memory does, spares the next request to check it again.
///
/// ```
/// use cloakroom::store::Content;
///
/// let content = Content::from(br#"{"theme":"dark"}"#.to_vec());
/// assert_eq!(content.len(), 16);
/// assert_eq!(format!("{content:?}"), "Content { len: 16, .. }");
/// ```
#[derive(Clone)]
pub struct Content {
    bytes: Arc<[u8]>,
    /// This process wrote them: an object, its keys in order.
    checked: bool,
}

impl Content {
    /// What [`Data::encode`] made.
    pub(crate) fn written(bytes: Arc<[u8]>) -> Self {
        let checked = true;
        Self { bytes, checked }
    }

    /// Without values.
    pub(crate) fn empty() -> Self {
        Self::written(EMPTY.into())
    }
}

impl Deref for Content {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl From<Arc<[u8]>> for Content {
    fn from(bytes: Arc<[u8]>) -> Self {
        let checked = false;
        Self { bytes, checked }
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        Arc::<[u8]>::from(bytes).into()
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Content {}

/// Without the values (S-10).
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The values of a session.
///
/// Loaded values stay where they are, in the record's bytes. What is set first is put among them, in a text of their
/// own; once the members are noted, it is kept beside them until they are encoded.
#[derive(Clone)]
pub(crate) struct Data {
    /// An object as this crate writes it; no text at all is one as well, without members.
    source: Arc<[u8]>,
    /// Sorted by key. What is known to be an object is not looked through before it must be.
    entries: OnceCell<Vec<Entry>>,
    /// A key was looked for without them.
    searched: Cell<bool>,
    /// The length of the encoded object.
    size: usize,
    /// The source is the encoded object.
    encoded: bool,
}

#[derive(Clone)]
enum Entry {
    Loaded(Member),
    Own(Key, Json),
}

impl Entry {
    fn key<'a>(&'a self, source: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Loaded(member) => &source[member.key()],
            Self::Own(key, _) => key.as_bytes(),
        }
    }

    fn value<'a>(&'a self, source: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Loaded(member) => &source[member.value()],
            Self::Own(_, json) => json,
        }
    }

    /// How many bytes the member takes.
    fn len(&self, source: &[u8]) -> usize {
        member_len(self.key(source), self.value(source).len())
    }
}

/// The encoded object without members.
pub(crate) const EMPTY: &[u8] = b"{}";

/// In so few bytes some keys are sooner found one by one than all members are noted.
const SMALL: usize = 256;

/// A key's value, or that there is none, for longer than the data is borrowed.
pub(crate) enum Held {
    /// In the source, of which nothing else was known: the value, or where the member would begin.
    Source(Arc<[u8]>, Result<Range<usize>, usize>),
    /// In the source, of the entry at this place.
    Loaded(Arc<[u8]>, Range<usize>, usize),
    /// Of the entry at this place.
    Own(Json, usize),
    Nothing,
}

impl Held {
    /// The value's JSON text.
    pub(crate) fn json(&self) -> Option<&[u8]> {
        match self {
            Self::Source(source, Ok(value)) | Self::Loaded(source, value, _) => {
                Some(&source[value.clone()])
            }
            Self::Own(json, _) => Some(json),
            Self::Source(_, Err(_)) | Self::Nothing => None,
        }
    }
}

/// Where a value that was held stands by now, or would stand.
enum Place {
    /// In the source, of which nothing else is known.
    Source(Result<Range<usize>, usize>),
    Entry(usize),
    Unknown,
}

impl Data {
    /// No values.
    pub(crate) fn new() -> Self {
        Self {
            source: Arc::default(),
            entries: OnceCell::new(),
            searched: Cell::new(false),
            size: EMPTY.len(),
            encoded: false,
        }
    }

    fn of(entries: Vec<Entry>) -> Self {
        let members: usize = entries.iter().map(|entry| entry.len(&[])).sum();
        Self {
            source: Arc::default(),
            size: EMPTY.len() + members + entries.len().saturating_sub(1),
            entries: entries.into(),
            searched: Cell::new(false),
            encoded: false,
        }
    }

    /// Takes a stored JSON object, after a look whether it is one if this process did not write it. Values are skipped
    /// over, not built.
    ///
    /// Skipping uses neither recursion nor memory in proportion to what the bytes claim, so damaged
    /// or hostile data costs no more than its length (S-74).
    pub(crate) fn parse(content: Content) -> Result<Self, InvalidJson> {
        let Content { bytes, checked } = content;
        let entries = if checked || (bytes.len() <= SMALL && is_as_we_write(&bytes)) {
            OnceCell::new()
        } else {
            match index(&bytes) {
                Some(entries) => entries.into(),
                None => return Ok(Self::of(rewrite(&bytes)?)),
            }
        };
        Ok(Self {
            size: bytes.len(),
            source: bytes,
            entries,
            searched: Cell::new(false),
            encoded: true,
        })
    }

    fn entries(&self) -> &Vec<Entry> {
        self.entries.get_or_init(|| {
            if self.source.is_empty() {
                return Vec::new();
            }
            // What this process wrote is an object.
            let entries = index(&self.source).or_else(|| rewrite(&self.source).ok());
            entries.unwrap_or_default()
        })
    }

    fn entries_mut(&mut self) -> (&mut Vec<Entry>, &[u8]) {
        self.entries();
        let entries = self.entries.get_mut().expect("they were just made");
        (entries, &self.source)
    }

    /// Where a key is, or where it would be.
    fn position(&self, key: &str) -> Result<usize, usize> {
        match self.find(key) {
            Some(at) => Ok(at),
            None => self.search(key),
        }
    }

    fn search(&self, key: &str) -> Result<usize, usize> {
        self.entries()
            .binary_search_by(|entry| entry.key(&self.source).cmp(key.as_bytes()))
    }

    /// Where a key is.
    fn find(&self, key: &str) -> Option<usize> {
        /// So many keys are sooner compared one by one: nearly all differ in length.
        const FEW: usize = 16;
        let entries = self.entries();
        if entries.len() > FEW {
            return self.search(key).ok();
        }
        let same = |entry: &Entry| entry.key(&self.source) == key.as_bytes();
        entries.iter().position(same)
    }

    /// The JSON text of a key's value.
    pub(crate) fn get(&self, key: &str) -> Option<&[u8]> {
        if let Some(place) = self.seek(key) {
            return Some(&self.source[place.ok()?]);
        }
        let at = self.find(key)?;
        Some(self.entries()[at].value(&self.source))
    }

    /// Where a key's value is in the source, or where its member would begin; `None` if the members have to tell.
    ///
    /// For one key it is enough to read as far as that. For the next all are noted, so that nothing is read more
    /// than twice, unless that costs more than it spares.
    fn seek(&self, key: &str) -> Option<Result<Range<usize>, usize>> {
        let is_first = || self.source.len() <= SMALL || !self.searched.replace(true);
        if self.entries.get().is_some() || !is_first() {
            return None;
        }
        let found = scan::find(&self.source, key.as_bytes())?;
        Some(found.map(|member| member.value()))
    }

    /// A key's value, or that there is none, for longer than the data is borrowed.
    pub(crate) fn hold(&self, key: &str) -> Held {
        if let Some(place) = self.seek(key) {
            return Held::Source(Arc::clone(&self.source), place);
        }
        let Some(at) = self.find(key) else {
            return Held::Nothing;
        };
        match &self.entries()[at] {
            Entry::Loaded(member) => Held::Loaded(Arc::clone(&self.source), member.value(), at),
            Entry::Own(_, json) => Held::Own(json.clone(), at),
        }
    }

    /// Whether a key still has the value that was held, or still none.
    pub(crate) fn still_has(&self, key: &str, held: &Held) -> bool {
        match self.place(key, held) {
            Place::Source(_) => true,
            Place::Entry(at) => Some(self.entries()[at].value(&self.source)) == held.json(),
            Place::Unknown => self.get(key) == held.json(),
        }
    }

    /// Where a value stands that was held.
    fn place(&self, key: &str, held: &Held) -> Place {
        match held {
            Held::Source(source, place)
                if self.entries.get().is_none() && Arc::ptr_eq(source, &self.source) =>
            {
                Place::Source(place.clone())
            }
            Held::Loaded(_, _, at) | Held::Own(_, at) => {
                let entry = self.entries().get(*at);
                match entry.is_some_and(|entry| entry.key(&self.source) == key.as_bytes()) {
                    true => Place::Entry(*at),
                    false => Place::Unknown,
                }
            }
            Held::Source(..) | Held::Nothing => Place::Unknown,
        }
    }

    pub(crate) fn set(&mut self, key: Key, json: Json) {
        let held = self.hold(&key);
        self.replace(&held, key, json);
    }

    /// The same for a key whose value was held.
    pub(crate) fn replace(&mut self, held: &Held, key: Key, json: Json) {
        match self.place(&key, held) {
            Place::Source(place) => self.splice(place, &key, &json),
            Place::Entry(at) => self.set_at(Ok(at), key, json),
            Place::Unknown => {
                let position = self.position(&key);
                self.set_at(position, key, json);
            }
        }
    }

    /// Puts a value where it was found that it belongs, without the others being noted.
    fn splice(&mut self, place: Result<Range<usize>, usize>, key: &str, json: &[u8]) {
        let source = match &*self.source {
            [] => EMPTY,
            source => source,
        };
        let Ok(spliced) = written(|out| {
            let rest = match place {
                Ok(value) => {
                    out.extend_from_slice(&source[..value.start]);
                    out.extend_from_slice(json);
                    &source[value.end..]
                }
                Err(at) => {
                    let (before, after) = source.split_at(at.max(1));
                    out.extend_from_slice(before);
                    let is_last = after.len() == 1;
                    if is_last {
                        begin_member(out);
                    }
                    write_member(out, key, json);
                    if !is_last {
                        out.push(b',');
                    }
                    after
                }
            };
            out.extend_from_slice(rest);
            Ok::<_, Infallible>(())
        });
        self.source = spliced;
        self.size = self.source.len();
        self.encoded = true;
    }

    fn set_at(&mut self, position: Result<usize, usize>, key: Key, json: Json) {
        self.encoded = false;
        let (entries, source) = self.entries_mut();
        match position {
            Ok(at) => {
                let len = json.len();
                let old = mem::replace(&mut entries[at], Entry::Own(key, json));
                let old = old.value(source).len();
                self.size = self.size + len - old;
            }
            Err(at) => {
                let entry = Entry::Own(key, json);
                let len = entry.len(source) + usize::from(!entries.is_empty());
                entries.insert(at, entry);
                self.size += len;
            }
        }
    }

    /// Removes a key; whether it was there.
    pub(crate) fn remove(&mut self, key: &str) -> bool {
        if let Some(Err(_)) = self.seek(key) {
            return false;
        }
        let Some(at) = self.find(key) else {
            return false;
        };
        self.encoded = false;
        let (entries, source) = self.entries_mut();
        let entry = entries.remove(at);
        let len = entry.len(source) + usize::from(!entries.is_empty());
        self.size -= len;
        true
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::new();
    }

    /// Removes all keys but one.
    pub(crate) fn clear_but(&mut self, key: &str) {
        let kept = self.find(key).map(|at| self.entries_mut().0.remove(at));
        self.encoded = false;
        self.size = EMPTY.len() + kept.as_ref().map_or(0, |entry| entry.len(&self.source));
        self.entries = Vec::from_iter(kept).into();
    }

    pub(crate) fn len(&self) -> usize {
        self.entries().len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.size == EMPTY.len()
    }

    /// The application's keys.
    pub(crate) fn own_keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        self.keys().filter(|key| !is_reserved(key))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = Cow<'_, str>> {
        // Keys come from JSON text or from `str`, so nothing is ever replaced here.
        self.entries()
            .iter()
            .map(|entry| String::from_utf8_lossy(entry.key(&self.source)))
    }

    /// How many bytes [`encode`](Self::encode) would make.
    pub(crate) fn encoded_len(&self) -> usize {
        self.size
    }

    /// How many bytes [`encode`](Self::encode) would make once `key` has a value of `len` bytes in the
    /// place of the one `before`.
    pub(crate) fn encoded_len_with(&self, key: &str, before: Option<&[u8]>, len: usize) -> usize {
        match before {
            Some(before) => self.size - before.len() + len,
            None => self.size + member_len(key.as_bytes(), len) + usize::from(!self.is_empty()),
        }
    }

    /// The object as JSON text, keys in order: equal values have equal text.
    pub(crate) fn encode(&self) -> Arc<[u8]> {
        if self.encoded {
            return Arc::clone(&self.source);
        }
        let Ok(object) = written(|out| {
            out.push(b'{');
            // Members that stand together as loaded are copied together.
            let mut run = 0..0;
            for entry in self.entries() {
                match entry {
                    Entry::Loaded(member) if run.end + 1 == member.start && !run.is_empty() => {
                        run.end = member.end;
                    }
                    Entry::Loaded(member) => {
                        copy_run(out, &self.source[run]);
                        run = member.start..member.end;
                    }
                    Entry::Own(key, json) => {
                        copy_run(out, &self.source[mem::take(&mut run)]);
                        begin_member(out);
                        write_member(out, key, json);
                    }
                }
            }
            copy_run(out, &self.source[run]);
            out.push(b'}');
            Ok::<_, Infallible>(())
        });
        object
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Data")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// Separates a member from the one before it.
fn begin_member(out: &mut Vec<u8>) {
    if out.len() > 1 {
        out.push(b',');
    }
}

fn write_member(out: &mut Vec<u8>, key: &str, json: &[u8]) {
    write_quoted(out, key.as_bytes());
    out.push(b':');
    out.extend_from_slice(json);
}

fn copy_run(out: &mut Vec<u8>, members: &[u8]) {
    if !members.is_empty() {
        begin_member(out);
        out.extend_from_slice(members);
    }
}

/// A JSON string of this text; valid UTF-8, as all keys are.
fn write_quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..=0x1f => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend([HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// How many bytes a member takes.
fn member_len(key: &[u8], value: usize) -> usize {
    quoted_len(key) + 1 + value
}

fn quoted_len(text: &[u8]) -> usize {
    let extra = |byte: &u8| match byte {
        b'"' | b'\\' => 1,
        0..=0x1f => 5,
        _ => 0,
    };
    2 + text.len() + text.iter().map(extra).sum::<usize>()
}

/// The members of an object that is written as this crate writes it: without spaces, its keys in order
/// and without escapes.
fn index(source: &[u8]) -> Option<Vec<Entry>> {
    // Most sessions have a few keys: one allocation.
    let mut entries = Vec::with_capacity(12);
    members(source, |member| entries.push(Entry::Loaded(member))).then_some(entries)
}

/// Whether it is such an object.
fn is_as_we_write(source: &[u8]) -> bool {
    members(source, |_| ())
}

/// Hands out the members of such an object, or some of another one; whether it is one.
#[inline]
fn members(source: &[u8], mut each: impl FnMut(Member)) -> bool {
    let (mut sorted, mut before) = (true, None);
    let read = scan::members(source, |member| {
        let key = &source[member.key()];
        sorted &= before.is_none_or(|before| scan::order(before, key).is_lt());
        before = Some(key);
        each(member);
    });
    sorted && read.is_some()
}

/// The members of an object that this crate would write otherwise: another writer's.
#[cold]
fn rewrite(source: &[u8]) -> Result<Vec<Entry>, InvalidJson> {
    let read = || -> serde_json::Result<_> {
        let mut json = serde_json::Deserializer::from_slice(source);
        let mut entries = json.deserialize_map(Members)?;
        json.end()?;
        let by_key = |a: &Entry, b: &Entry| a.key(&[]).cmp(b.key(&[]));
        entries.sort_by(by_key);
        let mut pairs = entries.windows(2);
        if pairs.any(|pair| by_key(&pair[0], &pair[1]).is_eq()) {
            return Err(serde::de::Error::custom("the object names a key twice"));
        }
        Ok(entries)
    };
    read().map_err(|error| InvalidJson::new(&error))
}

/// Collects the members of any object.
struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Vec<Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            let json = value.get().as_bytes().into();
            members.push(Entry::Own(key.into(), json));
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Result<Data, InvalidJson> {
        Data::parse(json.as_bytes().into())
    }

    fn json(text: &str) -> Json {
        text.as_bytes().into()
    }

    fn encoded(data: &Data) -> String {
        let bytes = data.encode();
        assert_eq!(bytes.len(), data.encoded_len());
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn values_are_found_where_they_stand() {
        let data = parse(r#" {"b" : [1, {"c": 2}] , "a":"x"} "#).unwrap();
        assert_eq!(data.get("a"), Some(br#""x""#.as_slice()));
        assert_eq!(data.get("b"), Some(br#"[1, {"c": 2}]"#.as_slice()));
        assert_eq!(data.get("c"), None);
        assert_eq!(data.keys().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_stands_as_it_would_be_encoded_is_not_written_anew() {
        let shared = |text: &str, change: fn(&mut Data)| {
            let source = Arc::<[u8]>::from(text.as_bytes());
            let mut data = Data::parse(Arc::clone(&source).into()).unwrap();
            change(&mut data);
            Arc::ptr_eq(&data.encode(), &source)
        };
        let text = r#"{"a":1,"b":2}"#;
        assert!(shared(text, |_| ()));
        assert!(shared(text, |data| assert!(!data.remove("c"))));
        assert!(!shared(text, |data| assert!(data.remove("a"))));
        assert!(!shared(text, |data| data.set("b".into(), json("3"))));
        assert!(!shared(text, Data::clear));
        assert!(!shared(r#"{"b":2,"a":1}"#, |_| ()));
        assert!(!shared(r#"{"a": 1,"b":2}"#, |_| ()));
        assert!(!shared(r#"{"\u000A":1}"#, |_| ()));
    }

    #[test]
    fn encoding_is_canonical_and_leaves_untouched_values_alone() {
        let mut data = parse(r#"{"b":1.50,"a":"\u0041"}"#).unwrap();
        assert_eq!(encoded(&data), r#"{"a":"\u0041","b":1.50}"#);
        data.set("c".into(), json("3"));
        data.set("a".into(), json("1"));
        assert_eq!(encoded(&data), r#"{"a":1,"b":1.50,"c":3}"#);
        assert!(data.remove("b"));
        assert!(!data.remove("b"));
        assert_eq!(encoded(&data), r#"{"a":1,"c":3}"#);
        data.clear();
        assert_eq!(encoded(&data), "{}");
    }

    #[test]
    fn any_text_can_be_a_key() {
        let keys = ["", "\"", "\\", "\u{0}\u{1f}\u{7f}", "ключ", "a\nb", "🎩"];
        let mut data = Data::new();
        for key in keys {
            let expected = data.encoded_len_with(key, data.get(key), 4);
            data.set(key.into(), json("true"));
            assert_eq!(data.encoded_len(), expected);
            assert_eq!(data.encoded_len_with(key, data.get(key), 5), expected + 1);
        }
        let again = parse(&encoded(&data)).unwrap();
        for key in keys {
            assert_eq!(again.get(key), Some(b"true".as_slice()), "{key:?}");
        }
        assert_eq!(
            again.keys().collect::<Vec<_>>(),
            data.keys().collect::<Vec<_>>()
        );
    }

    proptest! {
        /// Whatever is set and removed, the data is what a map would be.
        #[test]
        fn changes_are_those_of_a_map(
            // About half of them are small.
            loaded in prop::collection::btree_map("[a-d]{0,2}|[a-d]{3}", 0..200_u8, 0..60),
            reversed in any::<bool>(),
            kept_in_memory in any::<bool>(),
            sought in prop::collection::vec("[a-e\"]{0,2}", 0..3),
            changes in prop::collection::vec(("[a-e\"]{0,2}", prop::option::of(0..200_u8)), 0..12),
            kept in prop::option::of("[a-e]"),
        ) {
            let mut members: Vec<_> = loaded.iter().map(|(k, v)| format!("\"{k}\":{v}")).collect();
            if reversed {
                members.reverse();
            }
            let mut data = parse(&format!("{{{}}}", members.join(","))).unwrap();
            let mut map: BTreeMap<String, u8> = loaded;
            if kept_in_memory {
                data = Data::parse(Content::written(data.encode())).unwrap();
                prop_assert!(data.entries.get().is_none());
            }
            for key in sought {
                let held = data.hold(&key);
                let expected = map.get(&key).map(u8::to_string);
                prop_assert_eq!(held.json(), expected.as_deref().map(str::as_bytes));
                prop_assert!(data.still_has(&key, &held));
            }
            for (key, value) in changes {
                if let Some(value) = value {
                    let json = json(&value.to_string());
                    let held = data.hold(&key);
                    let expected = data.encoded_len_with(&key, held.json(), json.len());
                    data.replace(&held, key.clone().into(), json);
                    prop_assert_eq!(data.encoded_len(), expected);
                    let is_other = map.insert(key.clone(), value) != Some(value);
                    prop_assert!(data.still_has(&key, &held) != is_other);
                } else {
                    prop_assert_eq!(data.remove(&key), map.remove(&key).is_some());
                }
            }
            if let Some(kept) = kept {
                data.clear_but(&kept);
                map.retain(|key, _| *key == kept);
            }
            prop_assert_eq!(encoded(&data), serde_json::to_string(&map).unwrap());
            prop_assert_eq!(data.len(), map.len());
            prop_assert!(data.keys().eq(map.keys().map(String::as_str)));
            for (key, value) in &map {
                let value = value.to_string();
                prop_assert_eq!(data.get(key), Some(value.as_bytes()));
                let held = data.hold(key);
                prop_assert_eq!(held.json(), Some(value.as_bytes()));
            }
        }
    }

    #[test]
    fn what_is_kept_in_memory_is_read_as_far_as_it_is_asked_for() {
        let object = |length| {
            let filler = "2".repeat(length);
            let text = format!(r#"{{"b":1,"d":{filler},"f":3}}"#);
            let written = Content::written(parse(&text).unwrap().encode());
            (filler, written)
        };
        for (is_small, (filler, written)) in [(true, object(1)), (false, object(SMALL))] {
            for (key, value) in [("d", Some(&*filler)), ("a", None), ("c", None), ("g", None)] {
                let data = Data::parse(written.clone()).unwrap();
                assert_eq!(data.hold(key).json(), value.map(str::as_bytes));
                assert!(data.entries.get().is_none(), "{key}");
                // For a second one it is read to its end, once for all, if it is long.
                assert!(data.hold("f").json().is_some());
                assert_eq!(data.entries.get().is_none(), is_small);
                assert_eq!(data.len(), 3);
            }
            // What a store has kept as bytes is looked through before anybody has it, and a long one noted.
            let loaded = Data::parse(Content::from(&*written)).unwrap();
            assert_eq!(loaded.entries.get().is_none(), is_small);
        }
    }

    #[test]
    fn one_value_is_set_without_the_others_being_noted() {
        let written = |text: &str| Content::written(parse(text).unwrap().encode());
        let three = written(r#"{"b":1,"d":"two","f":3}"#);
        for (before, key, value, after) in [
            (&three, "b", "12345", r#"{"b":12345,"d":"two","f":3}"#),
            (&three, "d", "2", r#"{"b":1,"d":2,"f":3}"#),
            (&three, "f", "[]", r#"{"b":1,"d":"two","f":[]}"#),
            (&three, "a", "0", r#"{"a":0,"b":1,"d":"two","f":3}"#),
            (&three, "e", "0", r#"{"b":1,"d":"two","e":0,"f":3}"#),
            (&three, "g\"", "0", r#"{"b":1,"d":"two","f":3,"g\"":0}"#),
            (&written("{}"), "a", "0", r#"{"a":0}"#),
        ] {
            let mut data = Data::parse(before.clone()).unwrap();
            let held = data.hold(key);
            let expected = data.encoded_len_with(key, held.json(), value.len());
            data.replace(&held, key.into(), json(value));
            assert!(data.entries.get().is_none(), "{key}");
            assert_eq!(encoded(&data), after);
            assert_eq!(data.encoded_len(), expected);
            assert!(!data.still_has(key, &held));
            let held = data.hold(key);
            assert_eq!(held.json(), Some(value.as_bytes()));
            data.replace(&held, key.into(), json("null"));
            assert_eq!(data.get(key), Some(b"null".as_slice()));
            assert!(data.remove(key));
            let others = parse(std::str::from_utf8(before).unwrap()).unwrap();
            assert!(data.keys().eq(others.keys().filter(|other| other != key)));
        }
        assert_eq!(&*three, br#"{"b":1,"d":"two","f":3}"#);
    }

    #[test]
    fn the_first_value_is_the_object() {
        let data = Data::new();
        assert!(data.is_empty() && data.hold("a").json().is_none());
        assert_eq!(data.keys().count(), 0);
        assert_eq!(encoded(&data), "{}");
        let mut data = Data::new();
        let held = data.hold("a");
        data.replace(&held, "a".into(), json("1"));
        assert!(data.entries.get().is_none() && !data.is_empty());
        assert_eq!(encoded(&data), r#"{"a":1}"#);
        assert!(Arc::ptr_eq(&data.encode(), &data.encode()));
        data.set("b".into(), json("2"));
        assert!(data.remove("a"));
        assert_eq!(encoded(&data), r#"{"b":2}"#);
        assert!(data.remove("b") && data.is_empty());
    }

    #[test]
    fn a_value_is_still_there_until_it_is_changed_or_moved() {
        let mut data = parse(r#"{"b":1,"d":2}"#).unwrap();
        let (held, nothing) = (data.hold("d"), Held::Nothing);
        assert!(data.still_has("d", &held));
        assert!(!data.still_has("d", &nothing) && data.still_has("c", &nothing));
        data.set("a".into(), json("0"));
        assert!(data.still_has("d", &held), "at another place");
        data.replace(&held, "d".into(), json("3"));
        assert_eq!(encoded(&data), r#"{"a":0,"b":1,"d":3}"#);
        assert!(!data.still_has("d", &held));
        data.set("d".into(), json("2"));
        assert!(data.still_has("d", &held), "the same again");
    }

    /// S-74.
    #[test]
    fn what_is_no_object_is_refused() {
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        let bad = [
            "",
            "{",
            "[]",
            "null",
            "1",
            "{}x",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{"a":1,"a":2}"#,
            r#"{"b":0,"a":1,"a":2}"#,
            &deep,
        ];
        for text in bad {
            assert!(parse(text).is_err(), "{}", &text[..text.len().min(40)]);
        }
        assert!(Data::parse(b"{\"a\":\"\xff\"}".as_slice().into()).is_err());
        assert!(Data::parse(b"{\"\xff\":1}".as_slice().into()).is_err());
    }

    /// S-74: skipping a value does not recurse, so depth costs no stack.
    #[test]
    fn a_deep_value_is_carried_without_being_built() {
        let deep = format!(
            "{{\"a\":{}{},\"b\":1}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        let data = parse(&deep).unwrap();
        assert_eq!(data.get("b"), Some(b"1".as_slice()));
        let value = data.get("a").unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(value).is_err());
    }
}
