//! Base64url without padding (RFC 4648 section 5), for whole groups of three bytes: what a token is.
//!
//! The general engine of the `base64` crate takes three times the instructions for so short a text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// In the place of a byte that is not in the alphabet; no six bits have it.
const INVALID: u8 = 0x80;

const VALUES: [u8; 256] = {
    let mut values = [INVALID; 256];
    let mut n = 0;
    while n < ALPHABET.len() {
        #[allow(clippy::cast_possible_truncation)]
        let value = n as u8;
        values[ALPHABET[n] as usize] = value;
        n += 1;
    }
    values
};

/// Reads four characters for every three bytes of `out`; whether there are as many, and no others.
#[must_use]
pub(crate) fn decode(text: &[u8], out: &mut [u8]) -> bool {
    let (out, rest) = out.as_chunks_mut::<3>();
    let (text, more) = text.as_chunks::<4>();
    let mut seen = 0;
    for (bytes, group) in out.iter_mut().zip(text) {
        let [a, b, c, d] = group.map(|byte| VALUES[usize::from(byte)]);
        seen |= a | b | c | d;
        *bytes = [a << 2 | b >> 4, b << 4 | c >> 2, c << 6 | d];
    }
    out.len() == text.len() && rest.is_empty() && more.is_empty() && seen & INVALID == 0
}

/// Whether there are no other characters than the alphabet's.
pub(crate) fn is_text(text: &[u8]) -> bool {
    let seen = text
        .iter()
        .fold(0, |seen, &byte| seen | VALUES[usize::from(byte)]);
    seen & INVALID == 0
}

/// Appends four characters for every three of `bytes`; a rest of one or two bytes is left out.
pub(crate) fn encode(bytes: &[u8], out: &mut String) {
    const GROUPS: usize = 20;
    let (groups, rest) = bytes.as_chunks::<3>();
    debug_assert!(rest.is_empty());
    let mut text = [[0; 4]; GROUPS];
    for some in groups.chunks(GROUPS) {
        for (text, &[a, b, c]) in text.iter_mut().zip(some) {
            *text = [a >> 2, a << 4 | b >> 4, b << 2 | c >> 6, c]
                .map(|six| ALPHABET[usize::from(six & 63)]);
        }
        let text = text[..some.len()].as_flattened();
        out.push_str(std::str::from_utf8(text).expect("the alphabet is ASCII"));
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_does_as_the_general_engine_does(bytes in any::<[u8; 36]>()) {
            let text = URL_SAFE_NO_PAD.encode(bytes);
            let mut ours = String::new();
            encode(&bytes, &mut ours);
            prop_assert_eq!(&ours, &text);
            let mut back = [0; 36];
            prop_assert!(is_text(text.as_bytes()));
            prop_assert!(decode(text.as_bytes(), &mut back));
            prop_assert_eq!(back, bytes);
        }

        #[test]
        fn other_text_is_refused(
            bytes in any::<[u8; 36]>(),
            at in 0..48_usize,
            byte in any::<u8>(),
        ) {
            let mut text = URL_SAFE_NO_PAD.encode(bytes).into_bytes();
            text[at] = byte;
            let fine = URL_SAFE_NO_PAD.decode(&text).is_ok();
            prop_assert_eq!(is_text(&text), fine);
            prop_assert_eq!(decode(&text, &mut [0; 36]), fine);
            prop_assert!(!decode(&text[..at], &mut [0; 36]));
        }
    }
}
