//! The CSRF token: a secret of the session, masked each time it is made visible.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq as _;

use crate::data::Json;
use crate::entropy::Entropy;
use crate::error::Result;
use crate::token::Token;

/// The session's key that the secret is kept under.
pub(crate) const CSRF_KEY: &str = "cloakroom.csrf";

const LEN: usize = 24;

/// 192 bits that only the session and the application's own pages know. Its strength is that of
/// the token it is made of: 160 bits.
#[derive(Clone, Copy)]
pub(crate) struct CsrfSecret([u8; LEN]);

impl CsrfSecret {
    pub(crate) fn random(entropy: &Entropy) -> Result<Self> {
        let mut secret = [0; LEN];
        entropy.fill(&mut secret)?;
        Ok(Self(secret))
    }

    /// The secret that each of several requests with one token makes, so that it does not matter whose
    /// is stored.
    pub(crate) fn of(token: &Token) -> Self {
        let derived = token.derive(b"csrf of cloakroom");
        let (secret, _) = derived.split_first_chunk().expect("24 of 32 bytes");
        Self(*secret)
    }

    /// As a session's value: base64url in quotes.
    pub(crate) fn to_json(self) -> Json {
        let quoted = format!("\"{}\"", URL_SAFE_NO_PAD.encode(self.0));
        quoted.as_bytes().into()
    }

    pub(crate) fn from_json(json: &[u8]) -> Option<Self> {
        let text = json.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
        decode(text).map(Self)
    }

    /// The secret under a mask of its own.
    pub(crate) fn mask(self, entropy: &Entropy) -> Result<CsrfToken> {
        let mut masked = [0; 2 * LEN];
        let (mask, rest) = masked.split_at_mut(LEN);
        entropy.fill(mask)?;
        for (byte, (secret, mask)) in rest.iter_mut().zip(self.0.iter().zip(mask)) {
            *byte = secret ^ *mask;
        }
        Ok(CsrfToken(URL_SAFE_NO_PAD.encode(masked)))
    }

    /// Whether this is the secret under some mask. Takes the same time wherever they differ (S-78).
    pub(crate) fn matches(self, sent: &str) -> bool {
        let Some(masked) = decode::<{ 2 * LEN }>(sent.as_bytes()) else {
            return false;
        };
        let (mask, rest) = masked.split_at(LEN);
        let mut secret = [0; LEN];
        for (byte, (mask, rest)) in secret.iter_mut().zip(mask.iter().zip(rest)) {
            *byte = mask ^ rest;
        }
        secret.ct_eq(&self.0).into()
    }
}

/// Exactly `N` bytes, in their only spelling.
fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != N.div_ceil(3) * 4 {
        return None;
    }
    let mut bytes = [0; N];
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    (len == N).then_some(bytes)
}

/// What a page sends back to prove that it is one of the application's own: the session's CSRF secret
/// under a mask that is new in each response.
///
/// Made by [`Session::csrf_token`](crate::Session::csrf_token), where everything is explained; with
/// axum it is an extractor as well. `Display` and [`as_str`](Self::as_str) show 64 characters that need
/// no escaping in HTML, JSON or a header. The mask keeps a page that is compressed and shows what an
/// attacker wrote from giving the secret away by its length (BREACH).
///
/// ```
/// # let session = cloakroom::test_util::session();
/// let token = session.csrf_token()?;
/// let form = format!(r#"<input type="hidden" name="csrf_token" value="{token}">"#);
/// assert!(form.contains(token.as_str()));
/// assert_eq!(format!("{token:?}"), "CsrfToken(..)");
/// # Ok::<(), cloakroom::Error>(())
/// ```
#[derive(Clone)]
pub struct CsrfToken(String);

impl CsrfToken {
    /// The name of the form field that [`CsrfForm`](crate::CsrfForm) reads: `csrf_token`.
    pub const FIELD: &'static str = "csrf_token";

    /// The name of the header that scripts send it in: `x-csrf-token`.
    pub const HEADER: &'static str = "x-csrf-token";

    /// The token's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CsrfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CsrfToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CsrfToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn secret() -> CsrfSecret {
        CsrfSecret::random(&Entropy::System).unwrap()
    }

    /// S-83.
    #[test]
    fn masked_tokens_differ_and_all_match_their_secret_alone() {
        let (a, b) = (secret(), secret());
        let masked: Vec<_> = (0..50).map(|_| a.mask(&Entropy::System).unwrap()).collect();
        for (i, token) in masked.iter().enumerate() {
            assert_eq!(token.as_str().len(), 64);
            assert!(a.matches(token.as_str()));
            assert!(!b.matches(token.as_str()));
            assert!(masked[i + 1..].iter().all(|other| other.0 != token.0));
            // Neither half is the secret.
            let bytes = decode::<48>(token.0.as_bytes()).unwrap();
            assert_ne!(bytes[..24], a.0);
            assert_ne!(bytes[24..], a.0);
        }
    }

    /// S-83.
    #[test]
    fn a_changed_token_does_not_match() {
        let secret = secret();
        let text = secret.mask(&Entropy::System).unwrap().0;
        for at in 0..text.len() {
            let mut changed = text.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            assert!(!secret.matches(std::str::from_utf8(&changed).unwrap()));
        }
        let json = secret.to_json();
        let unmasked = std::str::from_utf8(&json).unwrap().trim_matches('"');
        for other in [
            "",
            "=",
            unmasked,
            &text[1..],
            &format!("{text}="),
            &format!("{text}A"),
        ] {
            assert!(!secret.matches(other), "{other}");
        }
    }

    /// S-83: every bit of secret and mask is set in half of the tokens, within six standard deviations.
    #[test]
    fn every_bit_is_a_fair_coin() {
        const TOKENS: i32 = 4_000;
        let id = Token::generate(&Entropy::System, Timestamp::from_millis(1))
            .unwrap()
            .id();
        let derived = || CsrfSecret::of(&Token::renew(id, &Entropy::System).unwrap());
        let makers: [&dyn Fn() -> CsrfSecret; 2] = [&secret, &derived];
        for make in makers {
            let mut ones = [0i32; 3 * LEN * 8];
            for _ in 0..TOKENS {
                let secret = make();
                let masked = secret.mask(&Entropy::System).unwrap();
                let masked: [u8; 2 * LEN] = decode(masked.as_str().as_bytes()).unwrap();
                let bytes = secret.0.iter().chain(&masked);
                for (byte, ones) in bytes.zip(ones.chunks_mut(8)) {
                    for (bit, ones) in ones.iter_mut().enumerate() {
                        *ones += i32::from(byte >> bit & 1);
                    }
                }
            }
            for (bit, ones) in ones.into_iter().enumerate() {
                assert!(
                    (ones - TOKENS / 2).abs() < 190,
                    "bit {bit} was set {ones} times"
                );
            }
        }
    }

    #[test]
    fn a_secret_is_read_back_from_its_value() {
        let secret = secret();
        assert_eq!(
            CsrfSecret::from_json(&secret.to_json()).unwrap().0,
            secret.0
        );
        for json in [
            "",
            "\"",
            "\"\"",
            "null",
            "\"AAAA\"",
            "\"!AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"",
        ] {
            assert!(CsrfSecret::from_json(json.as_bytes()).is_none(), "{json}");
        }
    }

    /// Requests that run at once agree, and what is derived shows nothing of the token.
    #[test]
    fn a_derived_secret_depends_on_the_token_alone() {
        let token = || Token::generate(&Entropy::System, Timestamp::from_millis(1)).unwrap();
        let (a, b) = (token(), token());
        assert_eq!(CsrfSecret::of(&a).0, CsrfSecret::of(&a).0);
        assert_ne!(CsrfSecret::of(&a).0, CsrfSecret::of(&b).0);
        let renewed = Token::renew(a.id(), &Entropy::System).unwrap();
        assert_ne!(CsrfSecret::of(&a).0, CsrfSecret::of(&renewed).0);
        let (derived, held) = (CsrfSecret::of(&a).0, a.to_bytes());
        let shown = |part: &[u8]| held.windows(4).any(|of| of == part);
        assert!(!derived.windows(4).any(shown));
    }
}
