//! How a token is spelled where a client holds it: as it is, signed, or encrypted; and, without a
//! store, together with the record.
//!
//! | Form | Bytes, then base64url without padding |
//! |---|---|
//! | plain | token |
//! | signed | token, then the first 24 bytes of its HMAC-SHA-256 |
//! | encrypted | nonce, then the token in AES-256-GCM |
//! | whole | nonce, then token and record in AES-256-GCM |
//!
//! Keys are derived for the form and the carrier's name, so a value holds under one name and in one
//! form only (S-76). What does not verify is refused; there is no second way to read it (S-79).

#[cfg(feature = "encrypted")]
mod encrypted;
#[cfg(feature = "signed")]
mod signed;

use std::fmt;

#[cfg(feature = "encrypted")]
use self::encrypted::Encrypted;
#[cfg(feature = "signed")]
use self::signed::Signed;
use crate::base64url;
#[cfg(any(feature = "signed", feature = "encrypted"))]
use crate::keys::KeyRing;
use crate::record::Record;
#[cfg(feature = "encrypted")]
use crate::token::TOKEN_LEN;
use crate::token::{TEXT_LEN, Token};

/// What a client holds of its session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Ticket {
    pub(crate) token: Token,
    /// The session itself, where no store keeps it.
    pub(crate) record: Option<Box<Record>>,
}

impl From<Token> for Ticket {
    fn from(token: Token) -> Self {
        let record = None;
        Self { token, record }
    }
}

/// The form of the tokens, as configured.
#[derive(Clone, Debug, Default)]
pub(crate) enum Form {
    #[default]
    Plain,
    #[cfg(feature = "signed")]
    Signed(KeyRing),
    #[cfg(feature = "encrypted")]
    Encrypted(KeyRing),
    #[cfg(feature = "encrypted")]
    Whole(KeyRing),
}

impl Form {
    /// The seal for a carrier of this name.
    pub(crate) fn seal(&self, name: &str) -> Seal {
        // Without keys nothing depends on it.
        let _ = name;
        match self {
            Self::Plain => Seal::Plain,
            #[cfg(feature = "signed")]
            Self::Signed(keys) => Seal::Signed(Signed::new(keys, name)),
            #[cfg(feature = "encrypted")]
            Self::Encrypted(keys) => Seal::Encrypted(Encrypted::new(keys, "encrypted", name)),
            #[cfg(feature = "encrypted")]
            Self::Whole(keys) => Seal::Whole(Encrypted::new(keys, "whole", name)),
        }
    }
}

/// Spells and reads tokens of one form under one name.
pub(crate) enum Seal {
    Plain,
    #[cfg(feature = "signed")]
    Signed(Signed),
    #[cfg(feature = "encrypted")]
    Encrypted(Encrypted),
    #[cfg(feature = "encrypted")]
    Whole(Encrypted),
}

/// Browsers keep up to 4096 bytes of name and value (RFC 6265bis section 5.6).
#[cfg(feature = "encrypted")]
const MAX_PAIR: usize = 4095;

/// How many bytes of data a session may have that is kept whole in a cookie of this name, whoever
/// signs in (S-22).
#[cfg(feature = "encrypted")]
pub(crate) fn room(name: &str) -> usize {
    let bytes = (MAX_PAIR - name.len()) * 3 / 4;
    bytes - encrypted::OVERHEAD - TOKEN_LEN - Record::MAX_HEAD
}

impl Seal {
    /// How long a value is: exactly, or, if it holds a record, at least.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Plain => TEXT_LEN,
            #[cfg(feature = "signed")]
            Self::Signed(_) => signed::TEXT_LEN,
            #[cfg(feature = "encrypted")]
            Self::Encrypted(_) | Self::Whole(_) => encrypted::text_len(TOKEN_LEN),
        }
    }

    /// Whether a value has the length and the letters of this form. No more is asked of it before
    /// the number of candidates is known, so that many forged values cost little (S-33).
    pub(crate) fn fits(&self, value: &[u8]) -> bool {
        let len = match self {
            #[cfg(feature = "encrypted")]
            Self::Whole(_) => self.len()..=MAX_PAIR,
            _ => self.len()..=self.len(),
        };
        len.contains(&value.len()) && base64url::is_text(value)
    }

    /// Reads a value that was made with a key of the ring; any other is `None` (S-79).
    pub(crate) fn open(&self, value: &[u8]) -> Option<Ticket> {
        match self {
            Self::Plain => Token::parse(value).map(Ticket::from),
            #[cfg(feature = "signed")]
            Self::Signed(signed) => signed.open(value).map(Ticket::from),
            #[cfg(feature = "encrypted")]
            Self::Encrypted(cipher) => {
                let token = cipher.open(value)?;
                Some(Token::from_bytes(token.as_slice().try_into().ok()?).into())
            }
            #[cfg(feature = "encrypted")]
            Self::Whole(cipher) => {
                let bytes = cipher.open(value)?;
                let (token, record) = bytes.split_first_chunk()?;
                Some(Ticket {
                    token: Token::from_bytes(token),
                    record: Some(Box::new(Record::decode(record).ok()?)),
                })
            }
        }
    }

    /// Appends the value of a ticket, made with the first key.
    pub(crate) fn write(&self, ticket: &Ticket, out: &mut String) {
        match self {
            Self::Plain => ticket.token.write(out),
            #[cfg(feature = "signed")]
            Self::Signed(signed) => signed.write(&ticket.token, out),
            #[cfg(feature = "encrypted")]
            Self::Encrypted(cipher) => cipher.write(&ticket.token.to_bytes(), out),
            #[cfg(feature = "encrypted")]
            Self::Whole(cipher) => {
                let record = ticket.record.as_deref().map(Record::encode);
                let bytes = [&ticket.token.to_bytes(), &*record.unwrap_or_default()].concat();
                cipher.write(&bytes, out);
            }
        }
    }

    /// Whether clients hold their sessions' records, so that no store does.
    pub(crate) fn is_whole(&self) -> bool {
        match self {
            #[cfg(feature = "encrypted")]
            Self::Whole(_) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            #[cfg(feature = "signed")]
            Self::Signed(_) => "Signed",
            #[cfg(feature = "encrypted")]
            Self::Encrypted(_) => "Encrypted",
            #[cfg(feature = "encrypted")]
            Self::Whole(_) => "Whole",
        })
    }
}

#[cfg(all(test, feature = "signed", feature = "encrypted"))]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;
    use crate::clock::Timestamp;
    use crate::token::Digest;

    const NAME: &str = "__Host-id";

    fn ring() -> KeyRing {
        KeyRing::new("7Qm2ZJx0vN5cT8rLwYp4Hd6UaKe1GsBf").unwrap()
    }

    fn forms(keys: &KeyRing) -> [Form; 3] {
        [Form::Signed, Form::Encrypted, Form::Whole].map(|form| form(keys.clone()))
    }

    fn ticket(form: &Form) -> Ticket {
        let text = b"AY9cHnorfD2OTwEjRWeJq-Dh4uPk5ebn6Onq6-zt7u_w8fLz";
        let token = Token::parse(text).unwrap();
        let at = Timestamp::from_millis;
        let record = Record::new(Digest::from_bytes([0xd1; 32]), at(1_000), at(5_000));
        let record = matches!(form, Form::Whole(_)).then(|| Box::new(record));
        Ticket { token, record }
    }

    fn text(seal: &Seal, ticket: &Ticket) -> String {
        let mut text = String::new();
        seal.write(ticket, &mut text);
        text
    }

    /// A later release must still read these: never change the expected text. It was made by another
    /// implementation of HMAC and AES-GCM.
    #[test]
    fn values_keep_their_form() {
        let golden = [
            "AY9cHnorfD2OTwEjRWeJq-Dh4uPk5ebn6Onq6-zt7u_w8fLzNZoT1oVWopOQ8iUkgRJcFGOjzgq2mObP",
            "0D0dOCT2pcNQ5LZdAAAlKtHsjNDyUeJDYh7rwOC_9J3h4VVbszrFAw8pPDO6a97SDOKmm_sFIWAUisH_MKHKSw",
            "p2KroC9foaUWf84quucEJlr-LKzYIFGnUFeaoXekmHo5s55W5fY2FlwhmhBs6Ts3g6CH0nqfOAC-tWkOc5en1-N9\
             t21GpLZAqTC8YRiOBiteZYexoKet1KGdR7v_Ig9CCK8GT--6_-Fx4SJpsLqX5TRzaC3Fx3A_1mVZaFoXHfnbA5Nk\
             v5gsrw22Svg",
        ];
        for (form, golden) in forms(&ring()).iter().zip(golden) {
            let (seal, ticket) = (form.seal(NAME), ticket(form));
            assert_eq!(text(&seal, &ticket), golden);
            assert!(seal.fits(golden.as_bytes()));
            assert_eq!(seal.open(golden.as_bytes()), Some(ticket));
        }
    }

    /// S-76, S-79: a value holds for its own key, name and form.
    #[test]
    fn a_value_opens_under_its_own_key_name_and_form_only() {
        let other = KeyRing::generate().unwrap();
        for (i, form) in forms(&ring()).iter().enumerate() {
            let value = text(&form.seal(NAME), &ticket(form));
            for (j, key_form) in forms(&other).iter().enumerate() {
                assert_eq!(key_form.seal(NAME).open(value.as_bytes()), None);
                let same_key = &forms(&ring())[j];
                let opened = same_key.seal(NAME).open(value.as_bytes());
                assert_eq!(opened.is_some(), i == j, "{form:?} as {same_key:?}");
            }
            assert_eq!(form.seal("__Host-ie").open(value.as_bytes()), None);
            assert_eq!(Seal::Plain.open(value.as_bytes()), None);
        }
    }

    /// S-79: by every key of the ring, made by the first one.
    #[test]
    fn older_keys_open_and_the_first_one_makes() {
        let (old, new) = (
            "k3Vw8ZrT1nXq6JmB0yHs5LcD9fGpQa2E",
            "Wq7Lx2Nf9Rb4Tz6Kd1Vh8Yc3Mj5Ps0Ga",
        );
        let both = KeyRing::new(new).and_then(|ring| ring.accept(old)).unwrap();
        let [old, new] = [old, new].map(|key| KeyRing::new(key).unwrap());
        for ((old, new), both) in forms(&old).iter().zip(&forms(&new)).zip(&forms(&both)) {
            let ticket = ticket(both);
            let [old, new, both] = [old, new, both].map(|form| form.seal(NAME));
            let by_old = text(&old, &ticket);
            assert_eq!(both.open(by_old.as_bytes()), Some(ticket.clone()));
            assert_eq!(new.open(by_old.as_bytes()), None);
            assert_eq!(text(&both, &ticket), text(&new, &ticket));
        }
    }

    /// S-22: what fills the room fills the cookie and no more, whatever the name's length.
    #[test]
    fn a_whole_session_fits_into_its_cookie() {
        for len in 1..=255 {
            let name = "n".repeat(len);
            let form = Form::Whole(ring());
            let mut ticket = ticket(&form);
            let record = ticket.record.as_mut().unwrap();
            record.owner = Some("o".repeat(255).into());
            record.authenticated = Some(Timestamp::MAX);
            let hour = std::time::Duration::from_secs(3600);
            record.policy = Some(crate::expiry::ExpiryPolicy::new(hour, hour));
            record.data = vec![b'x'; room(&name)].into();
            let seal = form.seal(&name);
            let value = text(&seal, &ticket);
            let size = len + value.len();
            assert!(size < 4096, "{size}");
            // What a session without a store never has: a replaced token.
            assert!(size > 4095 - 60, "{size}");
            assert!(seal.fits(value.as_bytes()));
        }
    }

    /// AES-GCM gives its key away to who sees two texts under one nonce.
    #[test]
    fn different_texts_have_different_nonces() {
        for form in &forms(&ring())[1..] {
            let seal = form.seal(NAME);
            let nonces: std::collections::HashSet<String> = (0..1000u16)
                .map(|i| {
                    let mut ticket = ticket(form);
                    match &mut ticket.record {
                        Some(record) => record.data = i.to_string().into_bytes().into(),
                        None => {
                            let mut bytes = ticket.token.to_bytes();
                            bytes[20..22].copy_from_slice(&i.to_be_bytes());
                            ticket.token = Token::from_bytes(&bytes);
                        }
                    }
                    text(&seal, &ticket)[..16].to_owned()
                })
                .collect();
            assert_eq!(nonces.len(), 1000, "{form:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            failure_persistence: None,
            ..ProptestConfig::with_cases(2_000)
        })]

        /// S-79: whatever is changed, nothing opens.
        #[test]
        fn no_other_value_opens(at in any::<prop::sample::Index>(), flip in 1..=255u8, form in 0..3usize) {
            let form = &forms(&ring())[form];
            let seal = form.seal(NAME);
            let mut bytes = URL_SAFE_NO_PAD.decode(text(&seal, &ticket(form))).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(seal.open(URL_SAFE_NO_PAD.encode(&bytes).as_bytes()), None);
            bytes.truncate(at);
            prop_assert_eq!(seal.open(URL_SAFE_NO_PAD.encode(&bytes).as_bytes()), None);
        }

        /// S-06: nothing that is no value of this form panics, or opens.
        #[test]
        fn junk_does_not_open(junk in prop::collection::vec(any::<u8>(), 0..300), letters in "[A-Za-z0-9_-]{0,300}") {
            for form in forms(&ring()) {
                let seal = form.seal(NAME);
                prop_assert_eq!(seal.open(&junk), None);
                prop_assert_eq!(seal.open(letters.as_bytes()), None);
            }
        }
    }

    /// S-10.
    #[test]
    fn debug_shows_the_form_alone() {
        let shown = forms(&ring()).map(|form| format!("{:?}", form.seal(NAME)));
        assert_eq!(shown, ["Signed", "Encrypted", "Whole"]);
    }
}
