//! Recovery of damaged logs. What must hold is in `bulla_tests::fuzzing::segment`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::segment(input);
});
