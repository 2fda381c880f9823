//! Who is looking, and what every page shows of them.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::{COOKIE, USER_AGENT};
use axum::http::request::Parts;
use cloakroom::{Session, SessionRejection, Typed};

use crate::cart::Cart;
use crate::preferences::{Cents, Currency, Preferences, Style, Text};

const NOTE: &str = "note";

/// What a handler takes: the session, and what the request says about it.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) session: Session,
    /// The browser has a session's cookie and the session is over: it was not used for too long, or was
    /// signed out from another device.
    pub(crate) ended: bool,
    /// "Firefox, Linux", for the list of devices.
    pub(crate) device: String,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, state).await?;
        let headers = &parts.headers;
        Ok(Self {
            ended: session.is_new() && headers.contains_key(COOKIE),
            device: device(headers),
            session,
        })
    }
}

/// Which browser it says it is, and on what. Good enough to know one's own devices again.
fn device(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT);
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or("");
    // Each of them also says that it is those below it.
    let browsers = [
        ("Edg/", "Edge"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    let systems = [
        ("Android", "Android"),
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Windows", "Windows"),
        ("Mac OS", "Mac"),
        ("Linux", "Linux"),
    ];
    let find = |list: &[(&str, &'static str)]| {
        let found = list.iter().find(|(mark, _)| agent.contains(mark));
        found.map(|(_, name)| *name)
    };
    match (find(&browsers), find(&systems)) {
        (Some(browser), Some(system)) => format!("{browser}, {system}"),
        (Some(one), None) | (None, Some(one)) => one.to_owned(),
        (None, None) => "?".to_owned(),
    }
}

/// What every page shows.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) preferences: Preferences,
    /// Who is signed in.
    pub(crate) user: Option<String>,
    /// How many things are in the cart.
    pub(crate) items: u32,
    /// What the last form has done.
    pub(crate) note: Option<String>,
}

impl Visitor {
    /// For a page that is about to be shown: its note will not be shown again.
    pub(crate) fn of(session: &Session) -> cloakroom::Result<Self> {
        Ok(Self {
            preferences: *Typed::<Preferences>::new(session)?,
            user: session.owner().map(|name| name.as_ref().to_owned()),
            items: Typed::<Cart>::new(session)?.count(),
            note: session.take(NOTE)?,
        })
    }

    pub(crate) fn say(&self, english: &'static str, german: &'static str) -> &'static str {
        self.text(Text(english, german))
    }

    pub(crate) fn text(&self, text: Text) -> &'static str {
        self.preferences.language.say(text)
    }

    pub(crate) fn currency(&self) -> Currency {
        self.preferences.currency
    }

    /// An amount that is in this visitor's currency already.
    pub(crate) fn write(&self, amount: Cents) -> String {
        Style(self.preferences.language, self.preferences.currency).write(amount)
    }
}

/// Leaves a note for the next page, in the visitor's language.
pub(crate) fn note(session: &Session, text: Text) -> cloakroom::Result<()> {
    let language = Typed::<Preferences>::new(session)?.language;
    session.insert(NOTE, language.say(text))
}

/// The same with the name of something in place of `{}`.
pub(crate) fn note_about(session: &Session, text: Text, name: &str) -> cloakroom::Result<()> {
    let language = Typed::<Preferences>::new(session)?.language;
    session.insert(NOTE, language.say(text).replace("{}", name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_browser_and_its_system() {
        let name = |agent: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(USER_AGENT, agent.parse().expect("a header's value"));
            device(&headers)
        };
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
        assert_eq!(name(firefox), "Firefox, Linux");
        let chrome = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                      Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(name(chrome), "Chrome, Windows");
        let safari = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/18.6 Mobile/15E148 Safari/604.1";
        assert_eq!(name(safari), "Safari, iPhone");
        assert_eq!(name("curl/8.5.0"), "curl");
        assert_eq!(device(&HeaderMap::new()), "?");
    }
}
