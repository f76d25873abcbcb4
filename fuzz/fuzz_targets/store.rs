//! A store driven by bytes, against a map. What must hold is in
//! `bulla_tests::fuzzing::store_operations`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::store_operations(input);
});
