//! A fast path through JSON as this crate writes it: one object, without spaces or escaped keys.
//!
//! What it accepts is valid JSON, and `serde_json` would find the same members in it. At anything else
//! it gives up, and `serde_json` decides. No recursion, and no memory besides the members.

use std::ops::Range;

/// Where the members of an object stand in its text.
#[derive(Debug, PartialEq)]
pub(super) struct Member {
    pub(super) key: Range<usize>,
    pub(super) value: Range<usize>,
}

/// Calls `found` for each member of the object that `text` is; `None` if this is not for us.
pub(super) fn members(text: &[u8], mut found: impl FnMut(Member)) -> Option<()> {
    let mut scan = Scan {
        text,
        at: 0,
        utf8: false,
    };
    scan.expect(b'{')?;
    if !scan.eat(b'}') {
        loop {
            let key = scan.key()?;
            let start = scan.at;
            scan.value()?;
            let value = start..scan.at;
            found(Member { key, value });
            if !scan.eat(b',') {
                break;
            }
        }
        scan.expect(b'}')?;
    }
    (scan.at == text.len()).then_some(())
}

struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// The text is known to be UTF-8.
    utf8: bool,
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
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.eat(byte).then_some(())
    }

    /// Reads `"key":`; a key with escapes is not for us.
    fn key(&mut self) -> Option<Range<usize>> {
        self.expect(b'"')?;
        let start = self.at;
        let escapes = self.string()?;
        let key = start..self.at - 1;
        self.expect(b':')?;
        (!escapes).then_some(key)
    }

    /// Reads a value, in which at most 62 brackets are open at once.
    fn value(&mut self) -> Option<()> {
        // The brackets that are open, the innermost in the lowest bit, set for an object; above them
        // a bit that is always set.
        let mut open: u64 = 1;
        loop {
            match self.next()? {
                b'"' => {
                    self.string()?;
                }
                b'{' if !self.eat(b'}') => {
                    open = deeper(open)? | 1;
                    self.key()?;
                    continue;
                }
                b'[' if !self.eat(b']') => {
                    open = deeper(open)?;
                    continue;
                }
                b'{' | b'[' => {}
                b't' => self.word(b"rue")?,
                b'f' => self.word(b"alse")?,
                b'n' => self.word(b"ull")?,
                b'-' => {
                    let first = self.next()?;
                    self.number(first)?;
                }
                first => self.number(first)?,
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
                return Some(());
            }
        }
    }

    fn word(&mut self, rest: &[u8]) -> Option<()> {
        let there = self.text[self.at..].starts_with(rest);
        self.at += rest.len();
        there.then_some(())
    }

    /// Reads a number without sign whose first byte has been read.
    fn number(&mut self, first: u8) -> Option<()> {
        match first {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            let _signed = self.eat(b'+') || self.eat(b'-');
            self.some_digits()?;
        }
        // After a zero this may be another digit, which what comes next does not accept.
        Some(())
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
    #[inline]
    fn string(&mut self) -> Option<bool> {
        // Keys and many values are short; what is long is worth a search.
        match short(&self.text[self.at..]) {
            Some(len) => {
                self.at += len + 1;
                Some(false)
            }
            None => self.long_string(),
        }
    }

    #[inline(never)]
    fn long_string(&mut self) -> Option<bool> {
        let mut escapes = false;
        loop {
            self.at += self.text_len()?;
            match self.next()? {
                b'"' => return Some(escapes),
                b'\\' => {
                    escapes = true;
                    self.escape()?;
                }
                _ => return None,
            }
        }
    }

    /// How many bytes there are before the next quote or backslash, all of them text.
    fn text_len(&mut self) -> Option<usize> {
        let rest = &self.text[self.at..];
        let len = memchr::memchr2(b'"', b'\\', rest)?;
        let string = &rest[..len];
        if is_printable(string) {
            return Some(len);
        }
        if !self.utf8 {
            std::str::from_utf8(self.text).ok()?;
            self.utf8 = true;
        }
        let control = string.iter().any(|&byte| byte < 0x20);
        (!control).then_some(len)
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

/// How many bytes there are before the next quote, if it is one of the next sixteen and all before it
/// are printable ASCII and no backslashes.
///
/// In each byte of a word the highest bit tells whether the byte is one of those looked for. The
/// subtractions can borrow from the byte above, so only the lowest of these bits is to be trusted.
#[inline]
fn short(rest: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    for at in [0, 8] {
        let word = u64::from_le_bytes(*rest.get(at..)?.first_chunk()?);
        let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word & TOPS;
        let equal = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
        let quotes = equal(b'"');
        let first = quotes & quotes.wrapping_neg();
        let others = equal(b'\\') | below(word, 0x20) | (word & TOPS);
        // Without a quote this is all bits.
        let before = first.wrapping_sub(1);
        if others & before != 0 {
            return None;
        }
        if first != 0 {
            return Some(at + first.trailing_zeros() as usize / 8);
        }
    }
    None
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
        members(text, |m| all.push((&text[m.key], &text[m.value])))?;
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
