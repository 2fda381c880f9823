//! S-06, S-79: whatever a client sends as a signed or encrypted value, reading it does not panic and
//! opens nothing but what was made with the key; and what was made opens, until a byte of it changes.
//!
//! The first byte chooses the form. The next 36 are a token; then come a place and a change, and then
//! a record, for the form that carries one. All of it is also tried as a value.
#![no_main]

use cloakroom::fuzzing::{seal, unseal};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((&form, rest)) = bytes.split_first() else {
        return;
    };
    // If it opens, it is what is made of its content: nobody else could have made it.
    let _ = unseal(form, rest);

    let Some((token, rest)) = rest.split_first_chunk::<36>() else {
        return;
    };
    let Some((&[at, change], record)) = rest.split_first_chunk() else {
        return;
    };
    let Some(value) = seal(form, token, record) else {
        return;
    };
    assert_eq!(unseal(form, value.as_bytes()).as_ref(), Some(token));
    for other in [1, 2].map(|other| form % 3 + other) {
        assert!(unseal(other, value.as_bytes()).is_none());
    }
    let mut changed = value.into_bytes();
    let at = usize::from(at) * changed.len() / 256;
    changed[at] ^= change;
    assert_eq!(unseal(form, &changed).is_some(), change == 0);
});
