//! S-74: whatever a record holds as data, reading it does not panic, and what can be read is written
//! in a form that stays the same.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(encoded) = cloakroom::fuzzing::data(bytes) {
        assert_eq!(
            cloakroom::fuzzing::data(&encoded).as_deref(),
            Some(&*encoded)
        );
    }
});
