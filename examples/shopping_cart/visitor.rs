//! Who is looking, and what every page shows of them.

use axum::extract::FromRequestParts;
use axum::http::header::COOKIE;
use axum::http::request::Parts;
use cloakroom::{Session, SessionRejection, Typed};

use crate::cart::Cart;
use crate::client;
use crate::preferences::{Cents, Currency, Preferences, Style, Text};

const NOTE: &str = "note";
/// The key of the name of who is signed in. It is a value of the session, and not asked of the account, which
/// may be another shop's on the same store.
pub(crate) const USER: &str = "user";

/// What a handler takes: the session, and what the request says about it.
#[derive(Debug)]
pub(crate) struct Visit {
    pub(crate) session: Session,
    /// The browser has a session's cookie, and no session.
    pub(crate) ended: Option<Ended>,
    /// "Firefox, Linux", for the list of devices.
    pub(crate) device: String,
}

/// Why a browser's session is not there any more.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ended {
    /// It was not used for too long, or was signed out from another device.
    Away,
    /// It is another browser's.
    OtherBrowser,
}

impl<S: Sync> FromRequestParts<S> for Visit {
    type Rejection = SessionRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Self::Rejection> {
        let session = Session::from_request_parts(parts, state).await?;
        let headers = &parts.headers;
        Ok(Self {
            ended: match client::is_refused() {
                true => Some(Ended::OtherBrowser),
                false => (session.is_new() && headers.contains_key(COOKIE)).then_some(Ended::Away),
            },
            device: client::device(headers),
            session,
        })
    }
}

/// What every page shows.
#[derive(Debug)]
pub(crate) struct Visitor {
    pub(crate) preferences: Preferences,
    /// The name of who is signed in.
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
            user: session.get(USER)?,
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
