//! The client's token, in and out of HTTP messages.

use std::time::Duration;

use http::header::{CACHE_CONTROL, COOKIE, SET_COOKIE, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::cookie::{Candidates, Template};
use crate::token::Token;

/// The `Cookie` header lines of a request, kept by reference count and read only when a handler asks
/// for the session.
#[derive(Clone, Default)]
pub(crate) struct Carried {
    first: Option<HeaderValue>,
    // Several lines are rare; an empty `Vec` costs nothing.
    rest: Vec<HeaderValue>,
}

impl Carried {
    pub(crate) fn new(headers: &HeaderMap) -> Self {
        let mut lines = headers.get_all(COOKIE).into_iter().cloned();
        Self {
            first: lines.next(),
            rest: lines.collect(),
        }
    }

    pub(crate) fn candidates(&self, cookie: &Template) -> Candidates {
        let lines = self.first.iter().chain(&self.rest);
        Candidates::read(lines.map(HeaderValue::as_bytes), cookie.name())
    }
}

/// What the client is told about its token.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Notice {
    /// Nothing.
    #[default]
    None,
    /// Keep this token, for the browser's session or for this long.
    Issue(Token, Option<Duration>),
    /// Drop the token.
    Remove,
}

/// Marks a response as depending on the session, and carries the notice (S-80).
pub(crate) fn write(headers: &mut HeaderMap, cookie: &Template, notice: &Notice) {
    vary(headers);
    let set_cookie = match notice {
        Notice::None => return,
        Notice::Issue(token, max_age) => cookie.issue(token, *max_age),
        Notice::Remove => cookie.remove(),
    };
    drop_own(headers, cookie);
    headers.append(SET_COOKIE, set_cookie);
    forbid_storing(headers);
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

/// Adds `Vary: Cookie`, unless it is said already.
fn vary(headers: &mut HeaderMap) {
    let says_cookie = |line: &HeaderValue| {
        let mut names = line
            .as_bytes()
            .split(|&byte| byte == b',')
            .map(<[u8]>::trim_ascii);
        names.any(|name| name.eq_ignore_ascii_case(b"cookie") || name == b"*")
    };
    if !headers.get_all(VARY).iter().any(says_cookie) {
        headers.append(VARY, HeaderValue::from_static("Cookie"));
    }
}

/// Drops `Set-Cookie` lines of the session's own name: a response carries one at most (RFC 6265bis
/// section 4.1.1; S-21). Other cookies stay.
fn drop_own(headers: &mut HeaderMap, cookie: &Template) {
    let own = |line: &HeaderValue| cookie.sets_this(line.as_bytes());
    if headers.get_all(SET_COOKIE).iter().any(own) {
        let all: Vec<_> = headers.get_all(SET_COOKIE).iter().cloned().collect();
        headers.remove(SET_COOKIE);
        for line in all.into_iter().filter(|line| !own(line)) {
            headers.append(SET_COOKIE, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::config::Settings;
    use crate::entropy::Entropy;

    fn cookie() -> Template {
        Settings::default().check().unwrap().cookie
    }

    fn issue() -> Notice {
        let token = Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap();
        Notice::Issue(token, None)
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
            write(&mut headers, &cookie(), &Notice::None);
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
            write(&mut headers, &cookie(), &notice);
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
        write(&mut headers, &cookie(), &issue());
        let lines = lines(&headers, SET_COOKIE);
        assert_eq!(lines[..3], ["a=1", "__Host-id2=x", "b=2"]);
        assert!(lines[3].starts_with("__Host-id=") && !lines[3].contains("handmade"));
        assert_eq!(lines.len(), 4);
    }
}
