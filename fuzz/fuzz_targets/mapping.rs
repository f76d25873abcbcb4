//! Any CSV file under any mapping. What must hold is in `bulla_tests::fuzzing::mapping`.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    bulla_tests::fuzzing::mapping(input);
});
