//! Authenticated encryption: a nonce, then AES-256-GCM.
//!
//! The nonce is the start of an HMAC-SHA-256 of what is encrypted, under a key of its own: synthetic,
//! as in RFC 5297. Different plaintexts share a nonce as rarely as with random ones (NIST SP 800-38D
//! section 8.3 allows 2^32 of them a key), equal ones are encrypted alike, which tells no more than
//! that they are equal; and there is no generator that could fail after a session is stored (S-03).

use aes_gcm::aead::Aead as _;
use aes_gcm::{Aes256Gcm, KeyInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::keys::{KeyRing, Ring, keyed};

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// How many bytes longer encryption makes a text.
pub(super) const OVERHEAD: usize = NONCE_LEN + TAG_LEN;

/// How many letters spell so many bytes once they are encrypted.
pub(super) const fn text_len(bytes: usize) -> usize {
    ((OVERHEAD + bytes) * 4).div_ceil(3)
}

pub(crate) struct Encrypted {
    ciphers: Ring<Aes256Gcm>,
    /// Of the first key, which alone encrypts.
    nonces: Hmac<Sha256>,
}

impl Encrypted {
    pub(super) fn new(keys: &KeyRing, purpose: &str, name: &str) -> Self {
        let nonces = keys.derive(&format!("{purpose} nonce"), name);
        Self {
            ciphers: keys
                .derive(purpose, name)
                .map(|key| Aes256Gcm::new(key.into())),
            nonces: keyed(&nonces.first),
        }
    }

    /// Decrypts what a key of the ring encrypted.
    pub(super) fn open(&self, value: &[u8]) -> Option<Vec<u8>> {
        let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut opened = self
            .ciphers
            .iter()
            .map(|key| key.decrypt(nonce.into(), text));
        opened.find_map(Result::ok)
    }

    /// Appends `bytes`, encrypted with the first key.
    pub(super) fn write(&self, bytes: &[u8], out: &mut String) {
        let mac = self.nonces.clone().chain_update(bytes).finalize();
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&mac.into_bytes()[..NONCE_LEN]);
        let text = self.ciphers.first.encrypt(&nonce.into(), bytes);
        let text = text.expect("AES-GCM encrypts up to 64 GiB");
        URL_SAFE_NO_PAD.encode_string([&nonce, &*text].concat(), out);
    }
}
