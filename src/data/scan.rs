//! A fast path through JSON as this crate writes it: one object, without spaces or escaped keys.
//!
//! What it accepts is valid JSON, and `serde_json` would find the same members in it. At anything else
//! it gives up, and `serde_json` decides. [`find`] alone believes what it is told of a text. No recursion, and no
//! memory besides the members.

use std::cmp::Ordering;
use std::ops::Range;

/// Where a member of an object stands in its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Member {
    pub(super) start: usize,
    colon: usize,
    pub(super) end: usize,
}

impl Member {
    /// The key, without its quotes.
    pub(super) fn key(&self) -> Range<usize> {
        self.start + 1..self.colon - 1
    }

    pub(super) fn value(&self) -> Range<usize> {
        self.colon + 1..self.end
    }
}

/// Calls `found` for each member of the object that `text` is; `None` if this is not for us.
#[inline]
pub(super) fn members(text: &[u8], mut found: impl FnMut(Member)) -> Option<()> {
    let mut scan = Scan { text, at: 0 };
    scan.expect(b'{')?;
    if !scan.eat(b'}') {
        loop {
            let start = scan.at;
            scan.key()?;
            let colon = scan.at - 1;
            scan.value()?;
            let end = scan.at;
            found(Member { start, colon, end });
            match scan.next()? {
                b',' => {}
                b'}' => break,
                _ => return None,
            }
        }
    }
    (scan.at == text.len()).then_some(())
}

/// Where a key is, or else where its member would begin, in an object that is known to be as this crate writes it: by
/// this process, or as [`members`] found. Nothing is checked, and values are passed over by their brackets and quotes.
/// `None` if this is not for us: on the way there is a key with escapes.
pub(super) fn find(text: &[u8], key: &[u8]) -> Option<Result<Member, usize>> {
    let mut scan = Scan { text, at: 1 };
    while scan.eat(b'"') {
        let start = scan.at - 1;
        scan.pass_key()?;
        let colon = scan.at;
        let order = order(&text[start + 1..colon - 1], key);
        if order.is_gt() {
            return Some(Err(start));
        }
        scan.at += 1;
        scan.pass_value()?;
        let end = scan.at;
        if order.is_eq() {
            return Some(Ok(Member { start, colon, end }));
        }
        // Or the closing brace.
        scan.at += 1;
    }
    Some(Err(text.len().saturating_sub(1)))
}

/// The order of keys; most differ in their first byte.
pub(super) fn order(a: &[u8], b: &[u8]) -> Ordering {
    match (a, b) {
        ([a, ..], [b, ..]) if a != b => a.cmp(b),
        _ => a.cmp(b),
    }
}

/// Whether `text` is a value; if not, this may not be for us.
pub(super) fn is_value(text: &[u8]) -> bool {
    let mut scan = Scan { text, at: 0 };
    scan.value().is_some() && scan.at == text.len()
}

/// What is usual is inlined. What is rare takes a copy and returns where it ends, so that the usual can
/// stay in registers.
#[derive(Clone, Copy)]
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
}

impl Scan<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.at += 1;
        }
        there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    /// Reads `"key":`; a key with escapes is not for us.
    #[inline(always)]
    fn key(&mut self) -> Option<()> {
        self.expect(b'"')?;
        if self.string()? {
            return None;
        }
        self.expect(b':')
    }

    #[inline(always)]
    fn value(&mut self) -> Option<()> {
        match self.next()? {
            first @ (b'{' | b'[') => self.at = self.nested(first)?,
            first => self.scalar(first)?,
        }
        Some(())
    }

    /// Reads a value whose opening bracket has been read, in which at most 62 are open at once.
    #[inline(never)]
    fn nested(mut self, mut first: u8) -> Option<usize> {
        // The brackets that are open, the innermost in the lowest bit, set for an object; above them
        // a bit that is always set.
        let mut open: u64 = 1;
        loop {
            match first {
                b'{' if !self.eat(b'}') => {
                    open = deeper(open)? | 1;
                    self.key()?;
                    first = self.next()?;
                    continue;
                }
                b'[' if !self.eat(b']') => {
                    open = deeper(open)?;
                    first = self.next()?;
                    continue;
                }
                b'{' | b'[' => {}
                _ => self.scalar(first)?,
            }
            // A value is over, and with it whatever ends here.
            while open > 1 {
                let object = open & 1 == 1;
                match self.next()? {
                    b',' if object => {
                        self.key()?;
                        break;
                    }
                    b',' => break,
                    b'}' if object => open >>= 1,
                    b']' if !object => open >>= 1,
                    _ => return None,
                }
            }
            if open == 1 {
                return Some(self.at);
            }
            first = self.next()?;
        }
    }

    /// Reads a value without brackets whose first byte has been read.
    #[inline(always)]
    fn scalar(&mut self, first: u8) -> Option<()> {
        match first {
            b'"' => self.string().map(|_| ()),
            b't' => self.literal(b"rue"),
            b'f' => self.literal(b"alse"),
            b'n' => self.literal(b"ull"),
            b'-' => {
                let first = self.next()?;
                self.number(first)
            }
            _ => self.number(first),
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        let there = self.text[self.at..].starts_with(rest);
        self.at += rest.len();
        there.then_some(())
    }

    /// Reads a number without sign whose first byte has been read.
    #[inline(always)]
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        // After a zero this may be another digit, which what comes next does not accept.
        if let Some(b'.' | b'e' | b'E') = self.peek() {
            self.at = self.fraction()?;
        }
        Some(())
    }

    /// Reads what a number has behind its integer.
    #[inline(never)]
    fn fraction(mut self) -> Option<usize> {
        if self.eat(b'.') {
            self.some_digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.some_digits()?;
        }
        Some(self.at)
    }

    fn some_digits(&mut self) -> Option<()> {
        self.next()?.is_ascii_digit().then_some(())?;
        self.digits();
        Some(())
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    /// Reads a string behind its opening quote; whether it has escapes.
    #[inline(always)]
    fn string(&mut self) -> Option<bool> {
        // Most keys and many values are short.
        self.at += self.word().map_or(0, text_len);
        if self.eat(b'"') {
            return Some(false);
        }
        let escapes;
        (self.at, escapes) = self.long_string()?;
        Some(escapes)
    }

    /// Reads a string from any place in it: where it ends, and whether there were escapes.
    #[inline(never)]
    fn long_string(mut self) -> Option<(usize, bool)> {
        // Another word costs less than a search does to begin.
        self.at += self.word().map_or(0, text_len);
        let mut escapes = false;
        loop {
            if self.eat(b'"') {
                return Some((self.at, escapes));
            }
            if self.eat(b'\\') {
                self.escape()?;
                escapes = true;
                continue;
            }
            let rest = &self.text[self.at..];
            let len = memchr::memchr2(b'"', b'\\', rest)?;
            if !is_text(&rest[..len]) {
                return None;
            }
            self.at += len;
        }
    }

    /// Goes behind a key whose opening quote has been read.
    #[inline(always)]
    fn pass_key(&mut self) -> Option<()> {
        self.at += self.word().map_or(0, text_len);
        if !self.eat(b'"') {
            self.at += memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
            self.expect(b'"')?;
        }
        Some(())
    }

    /// Goes behind a value of a member.
    #[inline(always)]
    fn pass_value(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                self.at += 1;
                self.pass_string()?;
            }
            b'{' | b'[' => self.at = self.pass_nested()?,
            _ => {
                while !matches!(self.peek()?, b',' | b'}') {
                    self.at += 1;
                }
            }
        }
        Some(())
    }

    /// Where the brackets are closed that are opened next.
    #[inline(never)]
    fn pass_nested(mut self) -> Option<usize> {
        let mut open = 0_usize;
        loop {
            match self.next()? {
                b'"' => self.pass_string()?,
                b'{' | b'[' => open += 1,
                b'}' | b']' if open == 1 => return Some(self.at),
                b'}' | b']' => open -= 1,
                _ => {}
            }
        }
    }

    /// Goes behind a string whose opening quote has been read.
    #[inline(always)]
    fn pass_string(&mut self) -> Option<()> {
        self.at += self.word().map_or(0, text_len);
        if !self.eat(b'"') {
            self.at = self.pass_long_string()?;
        }
        Some(())
    }

    #[inline(never)]
    fn pass_long_string(mut self) -> Option<usize> {
        while !self.eat(b'"') {
            if self.eat(b'\\') {
                self.at += 1;
            }
            self.at += memchr::memchr2(b'"', b'\\', self.text.get(self.at..)?)?;
        }
        Some(self.at)
    }

    /// The next eight bytes.
    #[inline(always)]
    fn word(&self) -> Option<u64> {
        let bytes = self.text.get(self.at..)?.first_chunk()?;
        Some(u64::from_le_bytes(*bytes))
    }

    /// Reads an escape behind its backslash. One of a surrogate is not for us: it may lack the other.
    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let code = self.text.get(self.at..self.at + 4)?;
                self.at += 4;
                let fine = code.iter().all(u8::is_ascii_hexdigit);
                let surrogate = code[0].eq_ignore_ascii_case(&b'd') && code[1] > b'7';
                (fine && !surrogate).then_some(())
            }
            _ => None,
        }
    }
}

/// How many bytes of a word stand before the first that is not printable ASCII, or is a quote or a
/// backslash.
///
/// In each byte the highest bit tells whether it is one of those. The subtractions can borrow from
/// the byte above, so only the lowest of these bits is to be trusted.
#[inline]
fn text_len(word: u64) -> usize {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES);
    let equal = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
    let others = (word | below(word, 0x20) | equal(b'"') | equal(b'\\')) & TOPS;
    others.trailing_zeros() as usize / 8
}

/// Whether these bytes can stand in a string as they are, quotes and backslashes aside.
fn is_text(bytes: &[u8]) -> bool {
    let is_utf8 = || std::str::from_utf8(bytes).is_ok();
    is_printable(bytes) || is_utf8() && bytes.iter().all(|&byte| byte >= 0x20)
}

/// Whether all bytes are from 0x20 to 0x7f. Without an early exit, so that many are compared at once.
fn is_printable(bytes: &[u8]) -> bool {
    let outside = |most: u8, &byte: &u8| byte.wrapping_sub(0x20).max(most);
    bytes.iter().fold(0, outside) < 0x60
}

/// Room for one more open bracket.
fn deeper(open: u64) -> Option<u64> {
    (open < 1 << 62).then_some(open << 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde_json::value::RawValue;

    use super::*;

    type Found<'a> = Vec<(&'a [u8], &'a [u8])>;

    fn scan(text: &[u8]) -> Option<Found<'_>> {
        let mut all = Vec::new();
        members(text, |m| all.push((&text[m.key()], &text[m.value()])))?;
        Some(all)
    }

    /// What is accepted is what `serde_json` accepts, with the same members.
    fn agrees(text: &[u8]) -> bool {
        let Some(found) = scan(text) else {
            return false;
        };
        let theirs: BTreeMap<&str, &RawValue> = serde_json::from_slice(text).unwrap();
        let ours: BTreeMap<_, _> = found.into_iter().collect();
        let theirs: BTreeMap<_, _> = theirs
            .into_iter()
            .map(|(key, value)| (key.as_bytes(), value.get().as_bytes()))
            .collect();
        assert_eq!(ours, theirs, "{}", String::from_utf8_lossy(text));
        true
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,80}".prop_map(Into::into),
            "[a-z]{0,80}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(".{0,8}", inner, 0..6)
                    .prop_map(|map| map.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::btree_map("[a-z_]{1,12}", value(), 0..6)
            .prop_map(|map| serde_json::to_vec(&map).unwrap())
    }

    proptest! {
        /// In an object of ours a key is found where reading all finds it.
        #[test]
        fn a_key_is_found_without_reading_all(
            object in prop::collection::btree_map("[ !#a-c]{0,3}|[a-z]{1,12}|[^\u{0}-\u{1f}\"\\\\]{0,9}", value(), 0..8),
            absent in "[a-c]{0,3}|.{0,9}",
        ) {
            let mut text = b"{".to_vec();
            let mut starts = Vec::new();
            for (key, value) in &object {
                if !starts.is_empty() {
                    text.push(b',');
                }
                starts.push((key, text.len()));
                let key = serde_json::to_string(key).unwrap();
                text.extend_from_slice(format!("{key}:{value}").as_bytes());
            }
            let end = text.len();
            text.push(b'}');
            for key in object.keys().chain([&absent]) {
                let found = find(&text, key.as_bytes()).unwrap();
                match object.get(key) {
                    Some(value) => {
                        let found = found.unwrap();
                        prop_assert_eq!(&text[found.key()], key.as_bytes());
                        let value = value.to_string();
                        prop_assert_eq!(&text[found.value()], value.as_bytes());
                    }
                    None => {
                        let next = starts.iter().find(|(there, _)| *there > key);
                        prop_assert_eq!(found.unwrap_err(), next.map_or(end, |(_, at)| *at));
                    }
                }
            }
        }

        #[test]
        fn what_we_write_is_read_without_help(text in object()) {
            // A key in a value may need escapes.
            let plain = !text.contains(&b'\\');
            prop_assert!(agrees(&text) || !plain);
        }

        /// S-74.
        #[test]
        fn what_is_accepted_of_damaged_text_is_valid(
            text in object(),
            cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut text = text;
            for (at, byte) in cuts {
                let at = at.index(text.len());
                if byte % 3 == 0 {
                    text.truncate(at.max(1));
                } else {
                    text[at] = byte;
                }
            }
            agrees(&text);
        }

        /// S-74.
        #[test]
        fn what_is_accepted_of_syntax_in_any_order_is_valid(
            text in r#"\{("a":)?[-"\\{}\[\],:.eE+0-9a-f\x00\u{e9}truelsn]{0,12}\}"#,
        ) {
            agrees(text.as_bytes());
        }
    }

    #[test]
    fn keys_are_sought_as_they_read_and_not_as_they_are_written() {
        let text = br#"{"":0," ":1,"!":2,"a":3}"#;
        for (key, value) in [(&b""[..], b"0"), (b" ", b"1"), (b"!", b"2"), (b"a", b"3")] {
            let found = find(text, key).unwrap().unwrap();
            assert_eq!(&text[found.value()], value);
        }
        for (key, at) in [("\n", 6), ("\"", 18), ("\\", 18), ("a\"", 23), ("b", 23)] {
            assert_eq!(find(text, key.as_bytes()), Some(Err(at)), "{key:?}");
        }
        assert_eq!(find(b"{}", b"a"), Some(Err(1)));
        assert_eq!(find(br#"{"\n":1,"a":2}"#, b"a"), None);
        assert_eq!(find(br#"{"twelve bytes\"x":1,"u":2}"#, b"u"), None);
    }

    /// S-74: strings of any length, with any character that matters at any place, and little or much
    /// behind them.
    #[test]
    fn strings_are_checked_to_the_last_byte() {
        let others: [&[u8]; 12] = [
            b"\x00",
            b"\x1f",
            b" ",
            b"!",
            b"\"",
            b"#",
            b"[",
            b"]",
            b"\x7f",
            b"\x80",
            b"\xff",
            b"\xc3\xa9",
        ];
        for len in 0..40 {
            let plain = vec![b'~'; len];
            assert!(agrees(&[b"{\"", &*plain, b"\":0}"].concat()));
            for (at, other) in (0..len).flat_map(|at| others.map(|other| (at, other))) {
                let string = [&plain[..at], other, &plain[at..]].concat();
                for (before, behind) in [
                    ("{\"", "\":0}"),
                    ("{\"", "\":12345678901234567890}"),
                    ("{\"a\":\"", "\"}"),
                    ("{\"a\":[\"", "\",1234567890]}"),
                ] {
                    let text = [before.as_bytes(), &string, behind.as_bytes()].concat();
                    let fine = !matches!(other, [0..0x20 | b'"' | 0x80..]);
                    assert_eq!(agrees(&text), fine, "{}", String::from_utf8_lossy(&text));
                }
            }
        }
    }

    /// S-74.
    #[test]
    fn text_that_ends_early_is_refused() {
        let text = br#"{"a":-10.25e+3,"b":"eight bytes\n","twelve bytes":[true,{"c":null}],"d":"12345678"}"#;
        assert!(agrees(text));
        for end in 0..text.len() {
            assert_eq!(scan(&text[..end]), None, "{end}");
        }
    }

    #[test]
    fn the_usual_forms_are_read_without_help() {
        for text in [
            "{}",
            r#"{"a":1}"#,
            r#"{"a":-0.5e+7,"b":[],"c":{},"d":[1,[{"x":null},true]],"e":false}"#,
            r#"{"a":"\u00e9\n\"\\","ключ":"значение, и довольно длинное"}"#,
        ] {
            assert!(agrees(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn what_is_not_for_us_is_left_to_others() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(64), "]".repeat(64));
        for text in [
            "",
            "{",
            " {}",
            "{} ",
            "[]",
            r#"{"a": 1}"#,
            r#"{"\u0061":1}"#,
            r#"{"a":01}"#,
            r#"{"a":-}"#,
            r#"{"a":1.}"#,
            r#"{"a":1e}"#,
            r#"{"a":.5}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\u00g0"}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":[1,]}"#,
            r#"{"a":[1}}"#,
            r#"{"a":1,}"#,
            r#"{"a":nul}"#,
            &deep,
        ] {
            assert_eq!(scan(text.as_bytes()), None, "{text}");
        }
        assert_eq!(scan(b"{\"a\":\"\xff\"}"), None);
        assert_eq!(scan(b"{\"\xff\":1}"), None);
    }
}
