//! Any bytes as the log of the store before Bulla. What must hold is in
//! `bulla_tests::fuzzing::legacy`.

#![no_main]

use bulla_tests::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    fuzzing::legacy(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    // One in two stays as it is: what a checksum refuses is searched through.
    if seed.is_multiple_of(2) {
        fuzzing::mend_legacy(&mut data[..size]);
    }
    size
});
