//! Keys of the application: one that makes, and older ones that are still accepted.

use std::fmt;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::config::ConfigError;
use crate::error::{Error, Result};

/// 256 bits.
type Key = [u8; 32];

/// Below this length a key is refused: 256 bits if every byte is random.
const MIN_LEN: usize = 32;

/// What shows that a key was not drawn at random but written by a person, or copied from
/// documentation: letters and digits in lower case, whatever stands between them.
const TELLTALES: [&str; 13] = [
    "secret",
    "changeme",
    "changethis",
    "replaceme",
    "passwor",
    "passphrase",
    "insecure",
    "example",
    "thisis",
    "keyboardcat",
    // Rocket's guide and its tests.
    "hpryyvrimyxpw5sbb1xecmn1kfsdcqkvbi2qjxbvhqk",
    "itlymfr2vykromfhupminhyb6lycctxz4yaqx89xvg",
    // Flask's documentation.
    "192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
];

/// The keys of a layer: the first one makes what clients hold, and all of them open it.
///
/// To replace a key without signing anybody out, put the new one first and let the old one follow
/// until the last session under it has ended:
///
/// ```
/// use cloakroom::{ConfigError, KeyRing};
///
/// fn ring(key: &str, old: Option<&str>) -> Result<KeyRing, ConfigError> {
///     let ring = KeyRing::new(key)?; // from `openssl rand -base64 32`
///     match old {
///         Some(old) => ring.accept(old),
///         None => Ok(ring),
///     }
/// }
///
/// let copied = ring("change me to something long and secret", None);
/// assert!(copied.unwrap_err().to_string().contains("openssl rand -base64 32"));
/// ```
///
/// A key is any 32 bytes or more, taken as they are: text such as that of `openssl rand -base64 32`,
/// a line end at its end included, or raw bytes. Each use derives a key of its own from it by HKDF
/// (RFC 5869), bound to the cookie's name, so that a key may serve several layers and the
/// application besides. Keep it out of the source code (ASVS 13.3.1), the same in all processes.
///
/// `Debug` shows how many keys there are and nothing else.
#[derive(Clone)]
pub struct KeyRing(Ring<Key>);

impl KeyRing {
    /// A ring of one key.
    ///
    /// # Errors
    ///
    /// [`ConfigError::WeakKey`] for less than 32 bytes; for a repeated part, a run such as
    /// 0, 1, 2 … in bytes or in hexadecimal digits, or other bytes without variety; and for what a person wrote or copied: "change me",
    /// "secret", and keys that well-known documentation shows (as in CVE-2023-27524).
    pub fn new(key: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        let first = check(key.as_ref())?;
        let old = Vec::new();
        Ok(Self(Ring { first, old }))
    }

    /// The ring with an older key behind the others: what was made with it is still accepted.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn accept(mut self, old: impl AsRef<[u8]>) -> Result<Self, ConfigError> {
        self.0.old.push(check(old.as_ref())?);
        Ok(self)
    }

    /// A ring of one random key, for development and tests: what is made with it ends with the
    /// process, and no other process accepts it.
    ///
    /// # Errors
    ///
    /// [`Error::is_random`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self> {
        let mut first = Key::default();
        getrandom::fill(&mut first).map_err(Error::random)?;
        let old = Vec::new();
        Ok(Self(Ring { first, old }))
    }

    /// A key for a purpose and a name, of each key in the ring (RFC 5869, section 2.3: one block).
    pub(crate) fn derive(&self, purpose: &str, name: &str) -> Ring<Key> {
        // Neither has a NUL, so no two pairs run together.
        let info = [purpose.as_bytes(), b"\0", name.as_bytes(), b"\x01"].concat();
        self.0.map(|key| mac(key, &info))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing")
            .field("keys", &self.0.len())
            .finish()
    }
}

/// Refuses a weak key; of others extracts what keys are derived from (RFC 5869, section 2.2).
fn check(key: &[u8]) -> Result<Key, ConfigError> {
    let weak = |why| Err(ConfigError::WeakKey { why });
    if key.len() < MIN_LEN {
        return weak("has less than 32 bytes");
    }
    if is_monotonous(key) || hex(key).is_some_and(|key| is_monotonous(&key)) {
        return weak("repeats or counts instead of being random");
    }
    if is_written(key) {
        return weak("is a sample or was written by a person");
    }
    Ok(mac(b"cloakroom", key))
}

/// Whether a key counts, repeats itself or has too few different bytes: 32 random hexadecimal digits
/// have eight or more but for one in twenty million.
fn is_monotonous(key: &[u8]) -> bool {
    let mut seen = [false; 256];
    key.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let variety = seen.iter().filter(|seen| **seen).count();
    variety < 8 || counts(key) || repeats(key.trim_ascii_end())
}

/// Whether more than half of the steps from byte to byte are the same.
fn counts(key: &[u8]) -> bool {
    let mut steps = [0; 256];
    for pair in key.windows(2) {
        steps[usize::from(pair[1].wrapping_sub(pair[0]))] += 1;
    }
    steps.into_iter().any(|same: usize| same > key.len() / 2)
}

/// Whether a key is its own first half or less, again and again.
fn repeats(key: &[u8]) -> bool {
    (1..=key.len() / 2).any(|period| key[period..] == key[..key.len() - period])
}

/// The bytes that hexadecimal digits stand for.
fn hex(key: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0])? * 16 + digit(*pair.get(1)?)?).ok();
    key.trim_ascii_end().chunks(2).map(byte).collect()
}

fn is_written(key: &[u8]) -> bool {
    let letters = key.iter().filter(|byte| byte.is_ascii_alphanumeric());
    let squeezed: String = letters
        .map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect();
    TELLTALES.iter().any(|telltale| squeezed.contains(telltale))
}

fn mac(key: &[u8], message: &[u8]) -> Key {
    keyed(key)
        .chain_update(message)
        .finalize()
        .into_bytes()
        .into()
}

/// HMAC-SHA-256 under a key.
pub(crate) fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

/// What there is one of for each key, the first key's first.
#[derive(Clone)]
pub(crate) struct Ring<T> {
    pub(crate) first: T,
    old: Vec<T>,
}

impl<T> Ring<T> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.old)
    }

    pub(crate) fn map<U>(&self, f: impl Fn(&T) -> U) -> Ring<U> {
        Ring {
            first: f(&self.first),
            old: self.old.iter().map(f).collect(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        1 + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: &str = "7Qm2ZJx0vN5cT8rLwYp4Hd6UaKe1GsBf";

    /// S-79 (CVE-2023-27524): what anybody could guess is no key.
    #[test]
    fn weak_keys_are_refused() {
        let counting: Vec<u8> = (0..64).collect();
        let down: Vec<u8> = (0..64).rev().collect();
        let by_two: Vec<u8> = (0..64).step_by(2).collect();
        let weak: &[(&[u8], &str)] = &[
            (b"", "less than 32"),
            (b"secret", "less than 32"),
            (b"change me", "less than 32"),
            (&RANDOM.as_bytes()[..31], "less than 32"),
            (&[0; 32], "repeats"),
            (&[0; 64], "repeats"),
            (&[b'a'; 4096], "repeats"),
            (b"0123012301230123012301230123012301230123", "repeats"),
            (&counting, "counts"),
            (&down, "counts"),
            (&by_two, "counts"),
            (b"0123456789abcdef0123456789abcdef", "repeats"),
            (b"0123456789ABCDEF0123456789ABCDEF\n", "repeats"),
            (b"cdefghijklmnopqrstuvwxyz0123456789", "counts"),
            (
                b"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
                "counts",
            ),
            (b"7Qm2ZJx0vN5cT8rL7Qm2ZJx0vN5cT8rL", "repeats"),
            (b"7Qm2ZJx0vN5cT8rL7Qm2ZJx0vN5cT8rL7Qm2ZJ\r\n", "repeats"),
            (b"a very long secret that nobody will guess", "sample"),
            (b"CHANGE_ME_TO_A_COMPLEX_RANDOM_SECRET", "sample"),
            (b"please change-me, whoever you may be now", "sample"),
            (b"change me to something long and secret", "sample"),
            (
                b"\x02\x01thisismyscretkey\x01\x02\\e\\y\\y\\h0000000000",
                "sample",
            ),
            (b"django-insecure-0q#z8m!v2k$w5y^b7n(c1x)d3f", "sample"),
            (b"hPRYyVRiMyxpw5sBB1XeCMN1kFsDCqKvBi2QJxBVHQk=", "sample"),
            (b"itlYmFR2vYKrOmFhupMIn/hyB6lYCCTXz4yaQX89XVg=\n", "sample"),
            (
                b"192b9bdd22ab9ed4d12e236c78afcb9a393ec15f71bbf5dc987d54727823bcbf",
                "sample",
            ),
        ];
        let strong = KeyRing::new(RANDOM).unwrap();
        for (key, reason) in weak {
            let shown = key.escape_ascii();
            let refused = [KeyRing::new(key), strong.clone().accept(key)];
            for error in refused.map(|ring| ring.expect_err(&shown.to_string())) {
                let ConfigError::WeakKey { why } = error else {
                    panic!("{error:?}");
                };
                assert!(why.contains(reason), "{shown}: {why}");
                // How to mend it, without what it was.
                let message = error.to_string();
                assert!(message.contains("openssl rand -base64 32"), "{message}");
                assert!(key.is_empty() || !message.contains(&shown.to_string()));
            }
        }
    }

    #[test]
    fn random_keys_of_every_usual_form_are_accepted() {
        use base64::Engine as _;
        for _ in 0..1000 {
            let mut raw = [0; 32];
            getrandom::fill(&mut raw).unwrap();
            let hex: String = raw.iter().map(|byte| format!("{byte:02x}")).collect();
            let text = base64::engine::general_purpose::STANDARD.encode(raw);
            assert!(KeyRing::new(raw).is_ok());
            assert!(KeyRing::new(&hex[..32]).is_ok(), "{hex}");
            assert!(KeyRing::new(hex).is_ok());
            assert!(KeyRing::new(format!("{text}\n")).is_ok(), "{text}");
        }
    }

    /// Made by another implementation of HKDF.
    #[test]
    fn keys_are_derived_for_a_purpose_and_a_name() {
        let ring = KeyRing::new(RANDOM).unwrap();
        let derived = |purpose, name| ring.derive(purpose, name).first;
        let hex: String = derived("signed", "__Host-id")
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            hex,
            "2e3dd506d3191ee098fe9d2769e206cd020aeb07f1210e007db54ef8e93a269f"
        );
        assert_ne!(derived("signed", "a"), derived("signed", "b"));
        assert_ne!(derived("signed", "a"), derived("encrypted", "a"));
        let again = KeyRing::new(RANDOM).unwrap().derive("signed", "a").first;
        assert_eq!(derived("signed", "a"), again);
        assert_ne!(
            KeyRing::generate().unwrap().0.first,
            KeyRing::generate().unwrap().0.first
        );
    }

    /// S-10.
    #[test]
    fn debug_shows_how_many_keys_there_are() {
        let ring = KeyRing::generate().unwrap().accept(RANDOM).unwrap();
        assert_eq!(format!("{ring:?}"), "KeyRing { keys: 2 }");
    }
}
