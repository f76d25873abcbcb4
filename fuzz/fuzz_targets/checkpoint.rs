//! Loading of damaged checkpoints. What must hold is in `bulla_tests::fuzzing::checkpoint`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::checkpoint(input);
});
