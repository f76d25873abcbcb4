//! Decoding of arbitrary bytes. What must hold is in `bulla_tests::fuzzing::decode`.

#![no_main]

use bulla_tests::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    fuzzing::decode(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    // One in four stays as it is: what a checksum refuses is an input, too.
    if !seed.is_multiple_of(4) {
        fuzzing::mend_decoded(&mut data[..size]);
    }
    size
});
