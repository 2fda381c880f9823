//! Whether a session comes from the client that it came from before.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Session;
use crate::changes::Change;
use crate::context::Context;
use crate::data::Json;
use crate::error::Result;
use crate::event::SessionEvent;
use crate::visit::Visit;
use crate::watch::{CLIENT_KEY, ClientChange, OnClientChange};

const SALT_LEN: usize = 8;

/// The fingerprint of a client as a session's value: salted, so that rows do not show which of them
/// are of one kind of client.
fn fingerprint(client: &str, salt: [u8; SALT_LEN]) -> Json {
    let hash = Sha256::new().chain_update(salt).chain_update(client);
    let mut bytes = [0; SALT_LEN + 16];
    bytes[..SALT_LEN].copy_from_slice(&salt);
    bytes[SALT_LEN..].copy_from_slice(&hash.finalize()[..16]);
    let quoted = format!("\"{}\"", URL_SAFE_NO_PAD.encode(bytes));
    quoted.as_bytes().into()
}

fn is_of(client: &str, stored: &[u8]) -> bool {
    let text = stored
        .strip_prefix(b"\"")
        .and_then(|s| s.strip_suffix(b"\""));
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let salt = bytes.as_ref().and_then(|bytes| bytes.first_chunk());
    salt.is_some_and(|salt| fingerprint(client, *salt).ct_eq(stored).into())
}

/// What a request's client means for its session.
#[derive(Default)]
pub(super) struct Recognised {
    /// The fingerprint to keep; `None` if clients are not watched.
    pub(super) fingerprint: Option<Json>,
    /// The stored one is another client's.
    pub(super) changed: bool,
    /// The application wants no session for the request.
    pub(super) refused: bool,
}

/// Compares the client with the one that the session came from before (S-85).
pub(super) fn recognise(
    context: &Context,
    visit: Option<&Visit>,
    found: Option<&Session>,
) -> Result<Recognised> {
    let watch = context.config.watch_client.as_ref();
    let client = visit.and_then(|visit| visit.client.as_deref());
    let (Some(watch), Some(client)) = (watch, client) else {
        return Ok(Recognised::default());
    };
    let before = found.and_then(Session::client_before);
    if let Some((_, before)) = &before
        && is_of(client, before)
    {
        return Ok(Recognised {
            fingerprint: Some(before.clone()),
            ..Recognised::default()
        });
    }
    let mut salt = [0; SALT_LEN];
    context.entropy.fill(&mut salt)?;
    let mut recognised = Recognised {
        fingerprint: Some(fingerprint(client, salt)),
        ..Recognised::default()
    };
    if let Some((change, _)) = before {
        recognised.changed = true;
        recognised.refused = (watch.decide)(&change) == OnClientChange::Refuse;
        context.tell(&SessionEvent::AnotherClient {
            session: change.session,
            refused: recognised.refused,
        });
    }
    Ok(recognised)
}

impl Session {
    /// The fingerprint that is kept, and what the application is asked if it is another client's.
    fn client_before(&self) -> Option<(ClientChange, Json)> {
        let state = self.state();
        let fingerprint = state.data.get(CLIENT_KEY)?.into();
        let stored = state.draft.stored.as_ref()?;
        let change = ClientChange {
            session: stored.id(),
            owner: stored.record.owner.clone(),
        };
        Some((change, fingerprint))
    }

    /// Takes note of the client, to be stored with the first change.
    pub(super) fn note_client(&self, recognised: Recognised) {
        let Some(fingerprint) = recognised.fingerprint else {
            return;
        };
        let mut state = self.state();
        if recognised.changed && !recognised.refused {
            // Nothing of the application is overwritten.
            let _none = state.edit(Change::Set(CLIENT_KEY.into(), fingerprint.clone()));
        }
        state.client = Some(fingerprint);
    }
}
