//! A log driven by bytes, against the model. What must hold is in `bulla_tests::fuzzing::operations`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::operations(input);
});
