//! Cookies as bytes: reading the `Cookie` header, checking and writing attributes. Pure.

use std::time::Duration;

use http::HeaderValue;
use memchr::memmem::Finder;

/// The most tokens of one request that are looked up (S-30).
pub(crate) const MAX_CANDIDATES: usize = 4;

/// Browsers keep no cookie longer than 400 days (RFC 6265bis section 5.5; S-23).
pub(crate) const MAX_AGE: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// The distinct values that a request carries as its session's token and that have a token's form.
#[derive(Default)]
pub(crate) struct Candidates<'a> {
    values: [Option<&'a [u8]>; MAX_CANDIDATES],
    overflow: bool,
}

impl<'a> Candidates<'a> {
    pub(crate) fn of(value: Option<&'a [u8]>) -> Self {
        let mut found = Self::default();
        found.values[0] = value;
        found
    }

    /// Reads all `Cookie` header lines of a request.
    ///
    /// Names are matched byte for byte, without decoding and with only space and tab trimmed, so
    /// that no other cookie can pass for the session's (S-27 to S-29). Bytes that are no text in
    /// other cookies do not matter (S-32). One pass, no allocation, whatever comes (S-33, S-34).
    pub(crate) fn read(
        lines: impl Iterator<Item = &'a [u8]>,
        name: &Finder<'_>,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Self {
        let mut found = Self::default();
        for line in lines {
            let mut from = 0;
            // Cookies of other names are not even split: a line may have hundreds.
            while let Some(at) = find(name, &line[from..]) {
                let (before, rest) = line.split_at(from + at);
                let rest = first_pair(&rest[name.needle().len()..]);
                from = before.len() + name.needle().len() + rest.len();
                if begins_pair(before)
                    && let Some(value) = value(rest)
                    && fits(value)
                {
                    found.add(value);
                }
            }
        }
        found
    }

    fn add(&mut self, value: &'a [u8]) {
        for place in &mut self.values {
            match place {
                None => {
                    *place = Some(value);
                    return;
                }
                Some(known) if *known == value => return,
                Some(_) => {}
            }
        }
        self.overflow = true;
    }

    /// The values, in the order sent.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        self.values.into_iter().flatten()
    }

    /// The value at a place, counted from none.
    pub(crate) fn get(&self, at: usize) -> Option<&'a [u8]> {
        *self.values.get(at)?
    }

    /// Whether there were more than [`MAX_CANDIDATES`].
    pub(crate) fn overflow(&self) -> bool {
        self.overflow
    }
}

/// Where the name stands first.
fn find(name: &Finder<'_>, line: &[u8]) -> Option<usize> {
    // Often there is no other cookie, and no need to search.
    if line.starts_with(name.needle()) {
        return Some(0);
    }
    name.find(line)
}

/// What there is before the next `;`.
fn first_pair(line: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', line);
    &line[..end.unwrap_or(line.len())]
}

/// Whether a pair begins after this part of a line.
fn begins_pair(before: &[u8]) -> bool {
    let name = before
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'\t'));
    name.is_none_or(|at| before[at] == b';')
}

fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

/// The value of a pair of which this stands behind the name; `None` if the name goes on.
fn value(rest: &[u8]) -> Option<&[u8]> {
    let at = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t'))?;
    Some(trim(rest[at..].strip_prefix(b"=")?))
}

/// When a browser sends the cookie along with requests that other sites start.
///
/// ```
/// use cloakroom::{MemoryStore, SameSite, SessionLayer};
///
/// let layer = SessionLayer::builder(MemoryStore::new()).same_site(SameSite::Strict).build();
/// assert!(layer.is_ok());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SameSite {
    /// Never. Links from mail and returns from an identity provider then arrive without the session.
    Strict,
    /// When the user follows a link to the site: the default.
    #[default]
    Lax,
    /// Always: for a site that lives in other sites' frames. Needs `Secure`.
    None,
}

/// The attributes of the session cookie, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub(crate) name: String,
    pub(crate) path: String,
    pub(crate) domain: Option<String>,
    pub(crate) secure: bool,
    pub(crate) same_site: SameSite,
    pub(crate) partitioned: bool,
}

/// Writes the session cookie; all that does not change is rendered once.
#[derive(Clone, Debug)]
pub(crate) struct Template {
    name: String,
    finder: Finder<'static>,
    attributes: String,
    removal: HeaderValue,
    secure: bool,
}

impl Template {
    /// `attributes` must have passed [`crate::config`]'s checks.
    pub(crate) fn new(attributes: &Attributes) -> Option<Self> {
        let mut cookie = ::cookie::Cookie::build((&attributes.name, ""))
            .path(&attributes.path)
            .secure(attributes.secure)
            .http_only(true)
            .same_site(match attributes.same_site {
                SameSite::Strict => ::cookie::SameSite::Strict,
                SameSite::Lax => ::cookie::SameSite::Lax,
                SameSite::None => ::cookie::SameSite::None,
            })
            .partitioned(attributes.partitioned);
        if let Some(domain) = &attributes.domain {
            cookie = cookie.domain(domain);
        }
        let rendered = cookie.build().to_string();
        let tail = rendered
            .strip_prefix(&attributes.name)?
            .strip_prefix('=')?
            .to_owned();
        let removal = format!("{rendered}; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT");
        let removal = sensitive(removal)?;
        Some(Self {
            name: attributes.name.clone(),
            finder: Finder::new(&attributes.name).into_owned(),
            attributes: tail,
            removal,
            secure: attributes.secure,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Looks for the name.
    pub(crate) fn finder(&self) -> &Finder<'static> {
        &self.finder
    }

    /// Whether browsers keep it over https only.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// A cookie with the value that `write` appends, of about `len` bytes; a browser-session cookie
    /// unless it has an age.
    pub(crate) fn issue(
        &self,
        len: usize,
        write: impl FnOnce(&mut String),
        max_age: Option<Duration>,
    ) -> HeaderValue {
        let max_age = max_age.map(|age| format!("; Max-Age={}", age.min(MAX_AGE).as_secs()));
        let max_age = max_age.as_deref().unwrap_or_default();
        // As long as needed and no longer, so that the header takes the buffer over.
        let len = self.name.len() + 1 + len + self.attributes.len() + max_age.len();
        let mut text = String::with_capacity(len);
        text.push_str(&self.name);
        text.push('=');
        write(&mut text);
        text.push_str(&self.attributes);
        text.push_str(max_age);
        sensitive(text).expect("`new` tried the same parts, and a token is base64url")
    }

    /// A cookie that makes the browser drop the session's: same name, domain and path (S-25).
    pub(crate) fn remove(&self) -> HeaderValue {
        self.removal.clone()
    }

    /// Whether a `Set-Cookie` value sets the session's cookie.
    pub(crate) fn sets_this(&self, set_cookie: &[u8]) -> bool {
        let pair = set_cookie
            .split(|&byte| byte == b';')
            .next()
            .unwrap_or_default();
        let rest = trim(pair).strip_prefix(self.name.as_bytes());
        rest.and_then(value).is_some()
    }
}

/// A header's value that is shown to nobody (S-13).
pub(crate) fn sensitive(text: String) -> Option<HeaderValue> {
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::entropy::Entropy;
    use crate::token::Token;

    fn token() -> Token {
        Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap()
    }

    fn text(token: &Token) -> String {
        let mut text = String::new();
        token.write(&mut text);
        text
    }

    fn read(lines: &[&[u8]]) -> Vec<Token> {
        candidates(lines).iter().filter_map(Token::parse).collect()
    }

    fn candidates<'a>(lines: &[&'a [u8]]) -> Candidates<'a> {
        let fits = |value: &[u8]| Token::parse(value).is_some();
        Candidates::read(lines.iter().copied(), &Finder::new("__Host-id"), fits)
    }

    fn issue(token: &Token, max_age: Option<Duration>) -> HeaderValue {
        let template = Template::new(&attributes()).unwrap();
        template.issue(48, |out| token.write(out), max_age)
    }

    /// S-27, S-28, S-29, S-34: each line has `GOOD` and `EVIL` replaced by two tokens; whether the
    /// good one is found is said, the evil one never may be.
    #[test]
    fn only_the_exact_name_counts() {
        let table: &[(&str, bool)] = &[
            ("__Host-id=GOOD", true),
            (" \t__Host-id=GOOD\t ", true),
            ("a=b;__Host-id=GOOD;c=d", true),
            ("__Host-id \t=\t GOOD", true),
            ("__Host-id=GOOD; \u{2000}__Host-id=EVIL", true),
            ("__Host-id=GOOD; \u{a0}__Host-id=EVIL", true),
            ("__Host-id=GOOD; \u{85}__Host-id=EVIL", true),
            ("__Host-id=GOOD; \x0b__Host-id=EVIL", true),
            ("__Host-id=GOOD; \x0c__Host-id=EVIL", true),
            ("\u{2000}__Host-id=EVIL", false),
            ("__Host-id\u{a0}=EVIL", false),
            ("%5F%5FHost-id=EVIL", false),
            ("__Host-id=GOOD; __%48ost-id=EVIL", true),
            ("=__Host-id=EVIL", false),
            ("__Host-id", false),
            ("__Host-id;=EVIL", false),
            ("..Host-id=EVIL", false),
            ("__HOST-id=EVIL", false),
            ("__host-id=EVIL", false),
            ("__Host-id2=EVIL", false),
            ("x__Host-id=EVIL", false),
            ("$Version=1; $Path=/; __Host-id=GOOD", true),
            ("__Host-id=\"EVIL\"", false),
            ("__Host-id=", false),
            ("__Host-id==EVIL", false),
            (";;;=;;__Host-id=GOOD;;=", true),
            ("a=\"; __Host-id=GOOD; b=\"", true),
            ("__Host-id=EVIL,__Host-id=EVIL", false),
        ];
        let (good, evil) = (token(), token());
        for (line, found) in table {
            let line = line
                .replace("GOOD", &text(&good))
                .replace("EVIL", &text(&evil));
            let expected = if *found { vec![good] } else { vec![] };
            assert_eq!(read(&[line.as_bytes()]), expected, "{line:?}");
        }
    }

    proptest! {
        /// S-27 to S-29, S-34: what is found is what splitting the line at each `;` finds.
        #[test]
        fn pairs_are_those_between_semicolons(
            line in prop::collection::vec(
                prop::sample::select(vec!["id", "=", ";", " ", "\t", "a", "i", "\u{a0}", "\""]),
                0..24,
            ),
        ) {
            let line = line.concat().into_bytes();
            let mut expected: Vec<&[u8]> = Vec::new();
            for pair in line.split(|&byte| byte == b';') {
                let found = trim(pair).strip_prefix(b"id").and_then(value);
                expected.extend(found.filter(|value| !expected.contains(value)));
            }
            expected.truncate(MAX_CANDIDATES);
            let lines = [&*line].into_iter();
            let found = Candidates::read(lines, &Finder::new("id"), |_| true);
            prop_assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
    }

    /// S-32.
    #[test]
    fn bytes_that_are_no_text_in_another_cookie_do_not_matter() {
        let good = token();
        let line = [b"a=\xe9; __Host-id=".as_slice(), text(&good).as_bytes()].concat();
        assert_eq!(read(&[&line]), [good]);
    }

    /// S-30, S-31.
    #[test]
    fn distinct_tokens_are_collected_over_all_lines_up_to_the_bound() {
        let tokens: Vec<Token> = (0..5).map(|_| token()).collect();
        let lines: Vec<String> = tokens
            .iter()
            .map(|t| format!("__Host-id={0}; x=1; __Host-id={0}", text(t)))
            .collect();
        let lines: Vec<&[u8]> = lines.iter().map(String::as_bytes).collect();
        assert_eq!(read(&lines[..4]), tokens[..4]);
        assert!(!candidates(&lines[..4]).overflow());
        assert!(candidates(&lines).overflow());
    }

    fn attributes() -> Attributes {
        Attributes {
            name: "__Host-id".into(),
            path: "/".into(),
            domain: None,
            secure: true,
            same_site: SameSite::Lax,
            partitioned: false,
        }
    }

    /// S-13, S-15, S-16, S-17, S-24.
    #[test]
    fn the_default_cookie_has_exactly_the_safe_attributes() {
        let token = token();
        let template = Template::new(&attributes()).unwrap();
        let issued = issue(&token, None);
        assert!(issued.is_sensitive() && template.remove().is_sensitive());
        let issued = issued.to_str().unwrap();
        let mut parts: Vec<&str> = issued.split("; ").collect();
        parts[1..].sort_unstable();
        let pair = format!("__Host-id={}", text(&token));
        assert_eq!(
            parts,
            [&*pair, "HttpOnly", "Path=/", "SameSite=Lax", "Secure"]
        );
    }

    /// S-25: name, domain and path decide which cookie a browser drops; the rest is repeated, since
    /// browsers refuse a prefixed or partitioned cookie without it.
    #[test]
    fn the_removal_repeats_every_attribute() {
        let attributes = Attributes {
            name: "__Secure-id".into(),
            path: "/shop".into(),
            domain: Some("example.com".into()),
            same_site: SameSite::None,
            partitioned: true,
            ..attributes()
        };
        let removal = Template::new(&attributes).unwrap().remove();
        let mut parts: Vec<&str> = removal.to_str().unwrap().split("; ").collect();
        parts.sort_unstable();
        let expected = [
            "Domain=example.com",
            "Expires=Thu, 01 Jan 1970 00:00:00 GMT",
            "HttpOnly",
            "Max-Age=0",
            "Partitioned",
            "Path=/shop",
            "SameSite=None",
            "Secure",
            "__Secure-id=",
        ];
        assert_eq!(parts, expected);
    }

    /// S-23.
    #[test]
    fn the_age_is_capped_at_400_days() {
        let issued = issue(&token(), Some(Duration::MAX));
        assert!(issued.to_str().unwrap().ends_with("; Max-Age=34560000"));
    }
}
