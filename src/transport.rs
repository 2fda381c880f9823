//! The client's token, in and out of HTTP messages.

use std::time::Duration;

use http::header::{CACHE_CONTROL, Entry, SET_COOKIE, VARY, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::carrier::{Carrier, SESSION_TOKEN};
use crate::cookie::{Candidates, Template, sensitive};
use crate::seal::{Seal, Ticket};

/// The lines of a request's header that can carry a token, kept by reference count and read only when
/// a handler asks for the session.
#[derive(Clone)]
pub(crate) struct Carried {
    line: Option<HeaderValue>,
    // Rare, so no more than a word.
    #[allow(clippy::box_collection)]
    more: Option<Box<Vec<HeaderValue>>>,
}

impl Carried {
    #[inline]
    pub(crate) fn new(headers: &HeaderMap, carrier: &Carrier) -> Self {
        let name = carrier.header();
        // Some field, whichever it is, has more than one line.
        let has_more = headers.len() > headers.keys_len();
        Self {
            line: headers.get(name).cloned(),
            more: if has_more { more(headers, name) } else { None },
        }
    }

    pub(crate) fn candidates(&self, carrier: &Carrier, seal: &Seal) -> Candidates<'_> {
        let lines = self
            .line
            .iter()
            .chain(self.more.iter().flat_map(|more| more.iter()));
        carrier.candidates(lines.map(HeaderValue::as_bytes), |value| seal.fits(value))
    }
}

/// The lines of a field after the first.
#[cold]
#[allow(clippy::box_collection)]
fn more(headers: &HeaderMap, name: &HeaderName) -> Option<Box<Vec<HeaderValue>>> {
    let lines: Vec<_> = headers.get_all(name).iter().skip(1).cloned().collect();
    (!lines.is_empty()).then(|| Box::new(lines))
}

/// What the client is told about its token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Notice {
    /// Nothing.
    #[default]
    None,
    /// Keep this, for the browser's session or for this long.
    Issue(Ticket, Option<Duration>),
    /// Drop the token.
    Remove,
}

/// Marks a response as depending on the session, and carries the notice (S-80).
pub(crate) fn write(headers: &mut HeaderMap, carrier: &Carrier, seal: &Seal, notice: &Notice) {
    vary(headers, carrier.vary());
    if *notice == Notice::None {
        return;
    }
    match carrier {
        Carrier::Cookie(cookie) => {
            give(headers, cookie, set_cookie(cookie, seal, notice));
        }
        Carrier::Bearer => {
            headers.insert(SESSION_TOKEN, session_token(seal, notice));
        }
    }
    forbid_storing(headers);
}

/// Completes a refusal of somebody who is to sign in, who is sent to a page instead if they look at one
/// and there is such a page.
pub(crate) fn challenge(headers: &mut HeaderMap, carrier: &Carrier, has_page: bool) {
    if has_page {
        vary(headers, HeaderValue::from_static("Accept"));
    }
    if let Carrier::Bearer = carrier
        && let Some(value) = headers.get_mut(WWW_AUTHENTICATE)
        && let Some(bearer) = bearer_challenge(value)
    {
        *value = bearer;
    }
}

/// The same challenge in the scheme `Bearer`, which needs a parameter (RFC 6750 section 3).
fn bearer_challenge(value: &HeaderValue) -> Option<HeaderValue> {
    let parameters = value.to_str().ok()?.strip_prefix("Session")?.trim_start();
    let parameters = match parameters {
        "" => "realm=\"session\"",
        some => some,
    };
    HeaderValue::try_from(format!("Bearer {parameters}")).ok()
}

fn set_cookie(cookie: &Template, seal: &Seal, notice: &Notice) -> HeaderValue {
    match notice {
        Notice::Issue(ticket, max_age) => {
            cookie.issue(seal.len(), |out| seal.write(ticket, out), *max_age)
        }
        Notice::Remove | Notice::None => cookie.remove(),
    }
}

/// The client's new token; empty if it is to drop the one it has.
fn session_token(seal: &Seal, notice: &Notice) -> HeaderValue {
    let mut value = String::new();
    if let Notice::Issue(ticket, _) = notice {
        seal.write(ticket, &mut value);
    }
    sensitive(value).expect("a token is base64url")
}

/// Says `no-store`, and drops what would tell some caches otherwise: fields such as
/// `CDN-Cache-Control` (RFC 9213) take precedence over `Cache-Control`.
fn forbid_storing(headers: &mut HeaderMap) {
    let targeted = |name: &&HeaderName| {
        let name = name.as_str();
        name.ends_with("-cache-control") || name == "surrogate-control"
    };
    while let Some(name) = headers.keys().find(targeted).cloned() {
        headers.remove(name);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Adds the request header to `Vary`, unless it is said already.
fn vary(headers: &mut HeaderMap, header: HeaderValue) {
    if !headers.contains_key(VARY) {
        headers.insert(VARY, header);
        return;
    }
    let says_so = |line: &HeaderValue| {
        let mut names = line
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii);
        names.any(|name| name.eq_ignore_ascii_case(header.as_bytes()) || name == b"*")
    };
    if !headers.get_all(VARY).iter().any(says_so) {
        headers.append(VARY, header);
    }
}

/// Adds a `Set-Cookie` line in the place of those of the session's own name: a response carries one at
/// most (RFC 6265bis section 4.1.1; S-21). Other cookies stay.
fn give(headers: &mut HeaderMap, cookie: &Template, line: HeaderValue) {
    let lines = match headers.entry(SET_COOKIE) {
        Entry::Vacant(none) => {
            none.insert(line);
            return;
        }
        Entry::Occupied(lines) => lines,
    };
    let other = |line: &&HeaderValue| !cookie.sets_this(line.as_bytes());
    let others: Vec<_> = lines.iter().filter(other).cloned().collect();
    lines.remove();
    for line in others.into_iter().chain([line]) {
        headers.append(SET_COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Settings;
    use crate::entropy::Entropy;
    use crate::token::Token;

    fn cookie() -> Carrier {
        Settings::default().check().unwrap().carrier
    }

    fn write(headers: &mut HeaderMap, notice: &Notice) {
        super::write(headers, &cookie(), &Seal::Plain, notice);
    }

    fn issue() -> Notice {
        let token = Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap();
        Notice::Issue(token.into(), None)
    }

    fn lines(headers: &HeaderMap, name: HeaderName) -> Vec<&str> {
        headers
            .get_all(name)
            .iter()
            .map(|line| line.to_str().unwrap())
            .collect()
    }

    /// S-80.
    #[test]
    fn vary_is_added_to_what_is_there_and_said_once() {
        for (before, after) in [
            (vec![], vec!["Cookie"]),
            (vec!["accept-encoding"], vec!["accept-encoding", "Cookie"]),
            (vec!["Accept, cookie"], vec!["Accept, cookie"]),
            (vec!["*"], vec!["*"]),
            (vec!["Accept", "COOKIE"], vec!["Accept", "COOKIE"]),
        ] {
            let mut headers = HeaderMap::new();
            for line in before {
                headers.append(VARY, HeaderValue::from_static(line));
            }
            write(&mut headers, &Notice::None);
            assert_eq!(lines(&headers, VARY), after);
            assert!(!headers.contains_key(CACHE_CONTROL));
        }
    }

    /// S-80: `public` on a response with the session's cookie would hand it to the next client.
    #[test]
    fn a_cookie_forbids_storing_whatever_the_handler_said() {
        for notice in [issue(), Notice::Remove] {
            let mut headers = HeaderMap::new();
            headers.append(
                CACHE_CONTROL,
                HeaderValue::from_static("public, max-age=60"),
            );
            headers.append(CACHE_CONTROL, HeaderValue::from_static("immutable"));
            headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=60"));
            headers.insert("surrogate-control", HeaderValue::from_static("max-age=60"));
            write(&mut headers, &notice);
            assert_eq!(lines(&headers, CACHE_CONTROL), ["no-store"]);
            assert!(!headers.contains_key("cdn-cache-control"));
            assert!(!headers.contains_key("surrogate-control"));
        }
    }

    /// S-21.
    #[test]
    fn one_session_cookie_leaves_and_all_others_stay() {
        let mut headers = HeaderMap::new();
        for line in ["a=1", "__Host-id=handmade; Path=/", "__Host-id2=x", "b=2"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        write(&mut headers, &issue());
        let lines = lines(&headers, SET_COOKIE);
        assert_eq!(lines[..3], ["a=1", "__Host-id2=x", "b=2"]);
        assert!(lines[3].starts_with("__Host-id=") && !lines[3].contains("handmade"));
        assert_eq!(lines.len(), 4);
    }
}
