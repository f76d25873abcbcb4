//! Decoding of arbitrary bytes. What must hold is in `bulla_tests::fuzzing::decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::decode(input);
});
