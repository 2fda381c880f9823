//! Base64url without padding (RFC 4648 section 5), for whole groups of three bytes: what a token is.
//!
//! The general engine of the `base64` crate takes three times the instructions for so short a text.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Set in what [`six_of`] returns if the character is in the alphabet.
const KNOWN: u8 = 0x80;
const ALL_KNOWN: u128 = u128::from_ne_bytes([KNOWN; 16]);

/// The six bits of a character. Without table or branch, so that many are read at once.
fn six_of(byte: u8) -> u8 {
    // At most one of them is not zero.
    let given = |there: bool, six: u8| if there { KNOWN | six } else { 0 };
    given(byte.is_ascii_uppercase(), byte.wrapping_sub(b'A'))
        | given(byte.is_ascii_lowercase(), byte.wrapping_sub(b'a' - 26))
        | given(byte.is_ascii_digit(), byte.wrapping_add(52 - b'0'))
        | given(byte == b'-', 62)
        | given(byte == b'_', 63)
}

/// Reads `N` bytes, a multiple of twelve, if there are four characters for every three of them, and
/// no others.
pub(crate) fn decode<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    const { assert!(N.is_multiple_of(12)) };
    if text.len() != N / 3 * 4 {
        return None;
    }
    let mut out = [0; N];
    let mut known = u128::MAX;
    let blocks = text.as_chunks::<16>().0;
    for (out, block) in out.as_chunks_mut::<12>().0.iter_mut().zip(blocks) {
        let mut sixes = [0; 16];
        for (six, &byte) in sixes.iter_mut().zip(block) {
            *six = six_of(byte);
        }
        known &= u128::from_ne_bytes(sixes);
        let groups = sixes.as_chunks().0;
        for (out, &group) in out.as_chunks_mut::<6>().0.iter_mut().zip(groups) {
            out.copy_from_slice(&join(group).to_be_bytes()[..6]);
        }
    }
    (known & ALL_KNOWN == ALL_KNOWN).then_some(out)
}

/// Moves eight times six bits together, to the top.
fn join(sixes: [u8; 8]) -> u64 {
    let n = u64::from_le_bytes(sixes);
    let n = (n & 0x003f_003f_003f_003f) << 6 | n >> 8 & 0x003f_003f_003f_003f;
    let n = (n & 0x0000_0fff_0000_0fff) << 12 | n >> 16 & 0x0000_0fff_0000_0fff;
    n << 40 | n >> 32 << 16
}

/// Whether there are no other characters than the alphabet's.
pub(crate) fn is_text(text: &[u8]) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() | (byte == b'-') | (byte == b'_');
    // Without an early exit, so that many are compared at once.
    text.iter().fold(true, |all, &byte| all & known(byte))
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
            prop_assert!(is_text(text.as_bytes()));
            prop_assert_eq!(decode(text.as_bytes()), Some(bytes));
        }

        #[test]
        fn other_lengths_are_refused(bytes in any::<[u8; 60]>(), len in 0..80_usize) {
            let text = URL_SAFE_NO_PAD.encode(bytes);
            prop_assert_eq!(decode(text.as_bytes()), Some(bytes));
            prop_assert_eq!(decode::<60>(&text.as_bytes()[..len]), None);
            let is_shorter = decode::<36>(&text.as_bytes()[..len]).is_some();
            prop_assert_eq!(is_shorter, len == 48);
        }
    }

    #[test]
    fn other_text_is_refused() {
        for at in 0..48 {
            for byte in 0..=u8::MAX {
                let mut text = *b"AZaz09-_AZaz09-_AZaz09-_AZaz09-_AZaz09-_AZaz09-_";
                text[at] = byte;
                let expected = URL_SAFE_NO_PAD.decode(text).ok();
                assert_eq!(is_text(&text), expected.is_some(), "{byte} at {at}");
                let read = decode::<36>(&text).map(Vec::from);
                assert_eq!(read, expected, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn text_of_any_length_is_checked_to_its_end() {
        for len in 0..70 {
            let mut text = vec![b'_'; len];
            assert!(is_text(&text));
            for at in 0..len {
                text[at] = b'.';
                assert!(!is_text(&text), "{at} of {len}");
                text[at] = b'_';
            }
        }
    }
}
