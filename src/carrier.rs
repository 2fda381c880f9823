//! Where a token stands in a message: in a cookie, or in headers of its own.

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderName, HeaderValue};

use crate::cookie::{Candidates, Template};

/// The response header that gives a client its token, where there is no cookie.
pub(crate) const SESSION_TOKEN: HeaderName = HeaderName::from_static("session-token");

/// How tokens travel: one way or the other, never both (S-11).
#[derive(Clone, Debug)]
pub(crate) enum Carrier {
    /// In `Cookie`, given by `Set-Cookie`.
    Cookie(Box<Template>),
    /// In `Authorization: Bearer`, given by [`SESSION_TOKEN`].
    Bearer,
}

impl Carrier {
    /// The name that a token holds under (S-76). That of `Bearer` cannot be a cookie's.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Cookie(template) => template.name(),
            Self::Bearer => "Authorization: Bearer",
        }
    }

    /// The request header that is read, and no other.
    pub(crate) const fn header(&self) -> &'static HeaderName {
        static BY_COOKIE: HeaderName = COOKIE;
        static BY_AUTHORIZATION: HeaderName = AUTHORIZATION;
        match self {
            Self::Cookie(_) => &BY_COOKIE,
            Self::Bearer => &BY_AUTHORIZATION,
        }
    }

    /// The same as `Vary` names it.
    pub(crate) fn vary(&self) -> HeaderValue {
        const BY_COOKIE: HeaderValue = HeaderValue::from_static("Cookie");
        const BY_AUTHORIZATION: HeaderValue = HeaderValue::from_static("Authorization");
        match self {
            Self::Cookie(_) => BY_COOKIE,
            Self::Bearer => BY_AUTHORIZATION,
        }
    }

    /// Reads all lines of that header; `fits` says which values have the form of a token's.
    pub(crate) fn candidates<'a>(
        &self,
        mut lines: impl Iterator<Item = &'a [u8]>,
        fits: impl Fn(&[u8]) -> bool,
    ) -> Candidates<'a> {
        match self {
            Self::Cookie(template) => Candidates::read(lines, template.finder(), fits),
            // One field line (RFC 9110 section 5.3): of two, a proxy may have checked the other.
            Self::Bearer => match (lines.next(), lines.next()) {
                (Some(line), None) => Candidates::of(bearer(line).filter(|value| fits(value))),
                _ => Candidates::default(),
            },
        }
    }
}

/// The token of credentials of the scheme `Bearer` (RFC 6750 section 2.1), in whatever case (RFC 9110
/// section 11.1).
fn bearer(line: &[u8]) -> Option<&[u8]> {
    let (scheme, mut token) = line.split_at_checked(b"Bearer ".len())?;
    while let [b' ', rest @ ..] = token {
        token = rest;
    }
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S-11.
    #[test]
    fn one_line_of_the_bearer_scheme_is_read() {
        let table: &[(&[&str], Option<&str>)] = &[
            (&["Bearer TOKEN"], Some("TOKEN")),
            (&["bearer TOKEN"], Some("TOKEN")),
            (&["BEARER   TOKEN"], Some("TOKEN")),
            (&["BearerTOKEN"], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Bearer\tTOKEN"], None),
            (&["Bearer \tTOKEN"], None),
            (&["Bearer TOKEN, Bearer TOKEN"], None),
            (&["Bearer token=TOKEN"], None),
            (&["Bearer TOKEN x=1"], None),
            (&["Basic TOKEN"], None),
            (&["TOKEN"], None),
            (&[""], None),
            (&[], None),
            (&["Bearer TOKEN", "Bearer TOKEN"], None),
            (&["Basic x", "Bearer TOKEN"], None),
            (&["Bearer TOKEN", ""], None),
        ];
        for (lines, expected) in table {
            let lines_read = lines.iter().map(|line| line.as_bytes());
            let found = Carrier::Bearer.candidates(lines_read, |value| value == b"TOKEN");
            let found: Vec<_> = found.iter().collect();
            let expected: Vec<_> = expected.iter().map(|token| token.as_bytes()).collect();
            assert_eq!(found, expected, "{lines:?}");
        }
    }
}
