//! S-74: whatever lies in a store, decoding it does not panic, and what decodes is encoded alike.
#![no_main]

use cloakroom::store::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        let again = Record::decode(&record.encode()).expect("what was encoded decodes");
        assert_eq!(again, record);
    }
});
