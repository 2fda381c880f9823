//! Telling clients apart.

use std::fmt;
use std::sync::Arc;

use http::request::Parts;

use crate::id::SessionId;

/// The session's key that a client's fingerprint is kept under.
pub(crate) const CLIENT_KEY: &str = "cloakroom.client";

/// How clients are told apart, and what happens when a session's client is another one.
#[derive(Clone)]
pub(crate) struct WatchClient {
    pub(crate) name: Arc<dyn Fn(&Parts) -> String + Send + Sync>,
    pub(crate) decide: Arc<dyn Fn(&ClientChange) -> OnClientChange + Send + Sync>,
}

impl fmt::Debug for WatchClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WatchClient")
    }
}

/// A session that came from another client than before, as
/// [`watch_client`](crate::SessionLayerBuilder::watch_client) tells them apart.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ClientChange {
    /// The session.
    pub session: SessionId,
    /// Who is signed in.
    pub owner: Option<Arc<str>>,
}

/// What to do with a request whose session came from another client than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnClientChange {
    /// The request has its session, whose client is the new one from now on.
    Keep,
    /// The request has no session. The session itself stays for its own client.
    Refuse,
}
