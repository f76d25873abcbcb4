//! Recovery of directories of arbitrary bytes. What must hold is in
//! `bulla_tests::fuzzing::directory`.

#![no_main]

use bulla_tests::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    fuzzing::directory(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    // One in four stays as it is, as in `decode`; half are mended with their chains.
    if !seed.is_multiple_of(4) {
        fuzzing::mend_directory(&mut data[..size], seed % 4 != 1);
    }
    size
});
