//! What the session says about who is looking: it is at the head of every page.

use cloakroom::{Session, Typed};
use serde::{Deserialize, Serialize};

use crate::cart::Cart;

pub(crate) const THEME: &str = "theme";
const NOTE: &str = "note";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Theme {
    Light,
    Dark,
}

impl Theme {
    pub(crate) fn value(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// Somebody with an account.
#[derive(Debug)]
pub(crate) struct User {
    /// The session's owner.
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
}

/// The password of both accounts, and shown on the sign-in page. A real shop keeps a slow salted hash
/// of each password (Argon2id) and counts wrong tries.
pub(crate) const DEMO_PASSWORD: &str = "demo-password";

static USERS: [User; 2] = [
    User {
        id: "ada",
        name: "Ada",
    },
    User {
        id: "grace",
        name: "Grace",
    },
];

impl User {
    pub(crate) fn with_password(id: &str, password: &str) -> Option<&'static Self> {
        Self::find(id).filter(|_| password == DEMO_PASSWORD)
    }

    fn find(id: &str) -> Option<&'static Self> {
        USERS.iter().find(|user| user.id == id)
    }
}

/// What every page shows.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// `None` leaves it to the browser.
    pub(crate) theme: Option<Theme>,
    pub(crate) user: Option<&'static User>,
    /// How many things are in the cart.
    pub(crate) items: u32,
    /// What the last form has done.
    pub(crate) note: Option<String>,
}

impl Visitor {
    /// For a page that is about to be shown: its note will not be shown again.
    pub(crate) fn of(session: &Session) -> cloakroom::Result<Self> {
        Ok(Self {
            theme: session.get(THEME)?,
            user: session.owner().and_then(|id| User::find(&id)),
            items: Typed::<Cart>::new(session)?.count(),
            note: session.take(NOTE)?,
        })
    }
}

/// Leaves a note for the next page.
pub(crate) fn note(session: &Session, text: impl Into<String>) -> cloakroom::Result<()> {
    session.insert(NOTE, text.into())
}
