//! What the layer notes of a request besides its token, where the settings ask for it.

use std::fmt::Write as _;

use http::header::ACCEPT;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request};

use crate::config::Config;

/// A request that a browser shows the response of, and what the layer's settings say about such ones.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// The client, as the application names it.
    pub(crate) client: Option<String>,
    /// Whether somebody looks at a page.
    page: bool,
    /// Where to come back to after a sign-in.
    back: Option<PathAndQuery>,
}

impl Visit {
    /// Notes what the settings ask for. The request comes back as it was.
    pub(crate) fn note<B>(request: Request<B>, config: &Config) -> (Request<B>, Box<Self>) {
        let (parts, body) = request.into_parts();
        let visit = Self {
            client: config
                .watch_client
                .as_ref()
                .map(|watch| (watch.name)(&parts)),
            page: accepts_html(&parts),
            back: may_come_back(&parts)
                .then(|| parts.uri.path_and_query().cloned())
                .flatten(),
        };
        (Request::from_parts(parts, body), Box::new(visit))
    }

    /// Where somebody who looks at a page is sent to sign in.
    pub(crate) fn location(&self, sign_in_page: &str) -> Option<HeaderValue> {
        if !self.page {
            return None;
        }
        let mut location = sign_in_page.to_owned();
        if let Some(back) = &self.back {
            let and = if location.contains('?') { '&' } else { '?' };
            location.push(and);
            location.push_str("next=");
            percent_encode(&mut location, back.as_str());
        }
        HeaderValue::try_from(location).ok()
    }
}

/// Browsers ask for pages so; scripts and API clients do not.
fn accepts_html(parts: &Parts) -> bool {
    let html = |line: &HeaderValue| {
        let line = line.as_bytes().to_ascii_lowercase();
        line.windows(9).any(|part| part == b"text/html")
    };
    parts.headers.get_all(ACCEPT).iter().any(html)
}

/// A form cannot be sent again by a redirect.
fn may_come_back(parts: &Parts) -> bool {
    let path = parts.uri.path_and_query().map_or("", PathAndQuery::as_str);
    matches!(parts.method, Method::GET | Method::HEAD) && local_path(path).is_some()
}

fn percent_encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(char::from(byte));
            }
            // Writing to a `String` does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

/// `next` if it is a path on this host, to be redirected to after a sign-in.
///
/// The [sign-in page](crate::SessionLayerBuilder::sign_in_page) gets it as `?next=`. Anybody can make a
/// link to that page, so an address that leads elsewhere must not be followed (ASVS 1.2.2, "open
/// redirect").
///
/// ```
/// use cloakroom::local_path;
///
/// assert_eq!(local_path("/account?tab=2"), Some("/account?tab=2"));
/// for elsewhere in ["https://evil.example/", "//evil.example/", "/\\evil.example", "/\t/evil.example", "account"] {
///     assert_eq!(local_path(elsewhere), None);
/// }
/// ```
#[must_use]
pub fn local_path(next: &str) -> Option<&str> {
    let rest = next.strip_prefix('/')?;
    // As browsers read an address: `\` is `/`, and tabs and line ends are not there.
    let elsewhere = rest.starts_with(['/', '\\']) || rest.contains(|c: char| c.is_control());
    (!elsewhere).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;

    fn location(method: Method, uri: &str, accept: &'static str) -> Option<String> {
        let settings = Settings {
            sign_in_page: Some("/login?from=here".into()),
            ..Settings::default()
        };
        let config = settings.check().unwrap();
        let request = Request::builder().method(method).uri(uri);
        let request = request.header(ACCEPT, accept).body(()).unwrap();
        let (_, visit) = Visit::note(request, &config);
        let page = config.sign_in_page.as_deref().unwrap();
        let location = visit.location(page)?;
        Some(location.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_page_leads_to_the_sign_in_page_and_back() {
        let html = "text/html,application/xhtml+xml,*/*;q=0.8";
        let to = |method, uri| location(method, uri, html).unwrap();
        assert_eq!(
            to(Method::GET, "/account?a=1&b=%20"),
            "/login?from=here&next=/account%3Fa%3D1%26b%3D%2520"
        );
        assert_eq!(to(Method::HEAD, "/"), "/login?from=here&next=/");
        assert_eq!(to(Method::POST, "/account"), "/login?from=here");
        assert_eq!(to(Method::GET, "//evil.example/"), "/login?from=here");
        assert_eq!(location(Method::GET, "/", "*/*"), None);
        assert_eq!(location(Method::GET, "/", "application/json"), None);
    }

    #[test]
    fn nothing_is_noted_unless_it_is_asked_for() {
        let config = Settings::default().check().unwrap();
        assert!(!config.notes_visits);
    }
}
