//! What the client holds and what the store keeps of it.

use std::fmt;

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::base64url;
use crate::clock::Timestamp;
use crate::entropy::Entropy;
use crate::error::Result;
use crate::id::SessionId;

const ID_LEN: usize = 16;
const SECRET_LEN: usize = 20;
pub(crate) const TOKEN_LEN: usize = ID_LEN + SECRET_LEN;

/// The length of a token as text: 36 bytes are 48 base64url characters with no bits to spare, so
/// that a token has one spelling.
pub(crate) const TEXT_LEN: usize = TOKEN_LEN / 3 * 4;

/// 160 random bits that only the client holds.
#[derive(Clone, Copy)]
struct Secret([u8; SECRET_LEN]);

/// The cookie's value: the session's id and its secret.
#[derive(Clone, Copy)]
pub(crate) struct Token {
    id: SessionId,
    secret: Secret,
}

impl Token {
    /// A token for a new session.
    pub(crate) fn generate(entropy: &Entropy, now: Timestamp) -> Result<Self> {
        // One call for both halves; the first ten bytes go into the id.
        let mut random = [0; 10 + SECRET_LEN];
        entropy.fill(&mut random)?;
        let (id, secret) = random.split_at(10);
        Ok(Self {
            id: SessionId::new(now, id.try_into().expect("ten bytes")),
            secret: Secret(secret.try_into().expect("the rest")),
        })
    }

    /// A new token for the same session.
    pub(crate) fn renew(id: SessionId, entropy: &Entropy) -> Result<Self> {
        let mut secret = [0; SECRET_LEN];
        entropy.fill(&mut secret)?;
        Ok(Self {
            id,
            secret: Secret(secret),
        })
    }

    /// Reads a token's only spelling; anything else is `None`.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        base64url::decode(text).map(|bytes| Self::from_bytes(&bytes))
    }

    /// Appends the token's text.
    pub(crate) fn write(&self, out: &mut String) {
        base64url::encode(&self.to_bytes(), out);
    }

    pub(crate) fn from_bytes(bytes: &[u8; TOKEN_LEN]) -> Self {
        let (mut id, mut secret) = ([0; ID_LEN], [0; SECRET_LEN]);
        id.copy_from_slice(&bytes[..ID_LEN]);
        secret.copy_from_slice(&bytes[ID_LEN..]);
        Self {
            id: SessionId::from_bytes(id),
            secret: Secret(secret),
        }
    }

    pub(crate) fn to_bytes(self) -> [u8; TOKEN_LEN] {
        let mut bytes = [0; TOKEN_LEN];
        bytes[..ID_LEN].copy_from_slice(self.id.as_bytes());
        bytes[ID_LEN..].copy_from_slice(&self.secret.0);
        bytes
    }

    pub(crate) const fn id(&self) -> SessionId {
        self.id
    }

    /// What the store may know of this token.
    ///
    /// Every part has a fixed length or its length in front, so no two inputs run together. With
    /// the default namespace the input is 55 bytes: one block of SHA-256.
    pub(crate) fn digest(&self, namespace: &Namespace) -> Digest {
        let mut hash = namespace.0.clone();
        hash.update(self.id.as_bytes());
        hash.update(self.secret.0);
        Digest(hash.finalize().into())
    }

    /// A secret that whoever holds the token can make, and nobody else. `purpose` tells one kind from
    /// another, and begins otherwise than what a digest begins with.
    pub(crate) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(purpose);
        let hash = hash.chain_update(self.id.as_bytes());
        hash.chain_update(self.secret.0).finalize().into()
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.secret.0.ct_eq(&other.secret.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Keeps the tokens of two layers on one store apart: a digest holds under one cookie name only.
#[derive(Clone)]
pub(crate) struct Namespace(Sha256);

impl Namespace {
    const TAG: &'static [u8] = b"cloakroom";

    pub(crate) fn new(cookie_name: &str) -> Self {
        // `ConfigError` keeps names far below 256 bytes; a longer one is cut in its length byte alone.
        let len = u8::try_from(cookie_name.len()).unwrap_or(u8::MAX);
        let hash = Sha256::new().chain_update(Self::TAG).chain_update([len]);
        Self(hash.chain_update(cookie_name))
    }
}

impl fmt::Debug for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Namespace")
    }
}

/// What a store keeps of a token: SHA-256 over a domain tag, the cookie's name, the id and the
/// secret.
///
/// Who reads it out of the store cannot make a cookie of it. Comparison takes the same time
/// whatever differs, and `Debug` shows nothing.
///
/// ```
/// use cloakroom::store::Digest;
///
/// let digest = Digest::from_bytes([7; 32]);
/// assert_eq!(digest, Digest::from_bytes([7; 32]));
/// assert_eq!(format!("{digest:?}"), "Digest(..)");
/// ```
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes, as a store kept them.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes to store.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        // By words, not by bytes; as little depends on what they are.
        let (ours, theirs) = (self.0.as_chunks::<8>().0, other.0.as_chunks::<8>().0);
        let differing = ours.iter().zip(theirs).fold(0, |any, (ours, theirs)| {
            any | (u64::from_ne_bytes(*ours) ^ u64::from_ne_bytes(*theirs))
        });
        differing.ct_eq(&0).into()
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Token {
        let mut secret = [0; SECRET_LEN];
        for (i, byte) in (0..).zip(&mut secret) {
            *byte = 0xe0 + i;
        }
        let id = "018f5c1e-7a2b-7c3d-8e4f-0123456789ab".parse().unwrap();
        Token {
            id,
            secret: Secret(secret),
        }
    }

    fn text(token: &Token) -> String {
        let mut out = String::new();
        token.write(&mut out);
        out
    }

    /// A later release must still read these: never change the expected text.
    #[test]
    fn a_token_and_its_digest_keep_their_form() {
        let token = golden();
        let spelled = "AY9cHnorfD2OTwEjRWeJq-Dh4uPk5ebn6Onq6-zt7u_w8fLz";
        assert_eq!(text(&token), spelled);
        assert_eq!(Token::parse(spelled.as_bytes()), Some(token));
        let digest = token.digest(&Namespace::new("__Host-id"));
        let hex: String = digest
            .as_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "78b51051aeafdea701e0c93c868f19403553496de4489485474494db0a74b4ef"
        );
    }

    /// S-76 at its root: the cookie's name, and with S-75 the id, are part of the digest.
    #[test]
    fn a_digest_binds_the_namespace_the_id_and_the_secret() {
        let token = golden();
        let host = Namespace::new("__Host-id");
        let other_id = Token {
            id: SessionId::from_bytes([1; 16]),
            ..token
        };
        let other_secret = Token {
            secret: Secret([1; SECRET_LEN]),
            ..token
        };
        assert_eq!(
            token.digest(&host),
            token.digest(&Namespace::new("__Host-id"))
        );
        assert_ne!(
            token.digest(&host),
            token.digest(&Namespace::new("__Host-admin"))
        );
        assert_ne!(token.digest(&host), other_id.digest(&host));
        assert_ne!(token.digest(&host), other_secret.digest(&host));
    }

    /// S-06: no second spelling of a live token, and no panic on anything else.
    #[test]
    fn only_the_one_spelling_is_read() {
        let good = text(&golden());
        let mut bad: Vec<Vec<u8>> = vec![
            vec![],
            good.as_bytes()[..47].to_vec(),
            [good.as_bytes(), b"="].concat(),
            [good.as_bytes(), b"A"].concat(),
            format!("\"{good}\"").into_bytes(),
            good.replace('-', "+").into_bytes(),
            good.replace('_', "/").into_bytes(),
            good.replace('q', "%").into_bytes(),
            vec![0xff; 48],
            vec![b'='; 48],
            [&good.as_bytes()[..46], b"=="].concat(),
        ];
        bad.extend(
            (0..=255u8)
                .filter(|b| !b.is_ascii_alphanumeric() && !b"-_".contains(b))
                .map(|byte| {
                    let mut text = good.clone().into_bytes();
                    text[20] = byte;
                    text
                }),
        );
        for text in bad {
            assert_eq!(
                Token::parse(&text),
                None,
                "{}",
                String::from_utf8_lossy(&text)
            );
        }
    }

    /// S-04.
    #[test]
    fn the_encoding_uses_its_whole_alphabet_and_round_trips() {
        let mut seen = std::collections::HashSet::new();
        for _ in 0..100_000 {
            let token = Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap();
            let text = text(&token);
            assert_eq!(Token::parse(text.as_bytes()), Some(token));
            seen.extend(text.into_bytes());
        }
        assert_eq!(seen.len(), 64);
    }

    /// S-01, S-05: every bit of the secret is set in half of the tokens, within four standard
    /// deviations (four sigma of 20 000 fair coins are 283; one false alarm in sixteen thousand a
    /// bit would be one in a hundred runs over 160 bits, so the bound here is six sigma).
    #[test]
    fn every_bit_of_the_secret_is_a_fair_coin() {
        const TOKENS: i32 = 20_000;
        let new: fn() -> Result<Token> =
            || Token::generate(&Entropy::System, Timestamp::from_millis(1));
        let renewed: fn() -> Result<Token> = || Token::renew(golden().id, &Entropy::System);
        for token in [new, renewed] {
            let mut ones = [0i32; SECRET_LEN * 8];
            for _ in 0..TOKENS {
                let token = token().unwrap();
                for (bit, ones) in ones.iter_mut().enumerate() {
                    *ones += i32::from(token.secret.0[bit / 8] >> (bit % 8) & 1);
                }
            }
            for (bit, ones) in ones.into_iter().enumerate() {
                assert!(
                    (ones - TOKENS / 2).abs() < 425,
                    "bit {bit} was set {ones} times"
                );
            }
        }
    }

    /// S-05: the id is public.
    #[test]
    fn the_id_has_no_part_of_the_secret() {
        for _ in 0..100 {
            let token = Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap();
            let shared = |part: &[u8]| token.id.as_bytes().windows(4).any(|of| of == part);
            assert!(!token.secret.0.windows(4).any(shared));
        }
    }

    /// S-07.
    #[test]
    fn tokens_stay_unique_under_load() {
        let threads: Vec<_> = (0..64)
            .map(|_| {
                std::thread::spawn(|| {
                    let now = Timestamp::from_millis(1);
                    (0..20_000)
                        .map(|_| Token::generate(&Entropy::System, now).unwrap())
                        .map(|token| (token.id, token.secret.0))
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        let all: Vec<_> = threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        let mut ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        let mut secrets: Vec<_> = all.iter().map(|(_, secret)| *secret).collect();
        ids.sort_unstable();
        secrets.sort_unstable();
        ids.dedup();
        secrets.dedup();
        assert_eq!((ids.len(), secrets.len()), (64 * 20_000, 64 * 20_000));
    }

    /// S-10.
    #[test]
    fn debug_shows_the_id_alone() {
        let token = golden();
        let shown = format!("{token:?}");
        assert_eq!(
            shown,
            "Token { id: SessionId(018f5c1e-7a2b-7c3d-8e4f-0123456789ab), .. }"
        );
    }
}
