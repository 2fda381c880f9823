//! A token and its MAC.

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::base64url;
use crate::keys::{KeyRing, Ring, keyed};
use crate::token::{TOKEN_LEN, Token};

/// 192 bits of HMAC-SHA-256. With the token these are 60 bytes, which leave no bits to spare in
/// base64, so a value has one spelling.
const MAC_LEN: usize = 24;

pub(super) const TEXT_LEN: usize = (TOKEN_LEN + MAC_LEN) / 3 * 4;

pub(crate) struct Signed(Ring<Hmac<Sha256>>);

impl Signed {
    pub(super) fn new(keys: &KeyRing, name: &str) -> Self {
        Self(keys.derive("signed", name).map(|key| keyed(key)))
    }

    pub(super) fn open(&self, value: &[u8]) -> Option<Token> {
        let bytes: [u8; TOKEN_LEN + MAC_LEN] = base64url::decode(value)?;
        let (token, mac) = bytes.split_first_chunk()?;
        // In constant time (S-78).
        let made_it = |key: &Hmac<Sha256>| {
            let key = key.clone().chain_update(token);
            key.verify_truncated_left(mac).is_ok()
        };
        self.0.iter().any(made_it).then(|| Token::from_bytes(token))
    }

    pub(super) fn write(&self, token: &Token, out: &mut String) {
        let token = token.to_bytes();
        let mac = self.0.first.clone().chain_update(token).finalize();
        let mut bytes = [0; TOKEN_LEN + MAC_LEN];
        bytes[..TOKEN_LEN].copy_from_slice(&token);
        bytes[TOKEN_LEN..].copy_from_slice(&mac.into_bytes()[..MAC_LEN]);
        base64url::encode(&bytes, out);
    }
}
