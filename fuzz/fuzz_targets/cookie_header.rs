//! S-33, S-34: whatever a client sends as `Cookie` lines, reading them does not panic, and finds no
//! more than four tokens.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    assert!(cloakroom::fuzzing::cookie_header(&lines, "__Host-id") <= 4);
});
