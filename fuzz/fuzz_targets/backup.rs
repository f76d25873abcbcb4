//! Any bytes as the file of a hold, or as the manifest of a backup. What must hold is in
//! `bulla_tests::fuzzing::backups`.

#![no_main]

use bulla_tests::fuzzing;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

fuzz_target!(|input: &[u8]| {
    fuzzing::backup_file(input);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let size = fuzzer_mutate(data, size, max_size);
    // One in two stays as it is: without its checksum it must be refused.
    if seed.is_multiple_of(2) {
        fuzzing::mend_backup(&mut data[..size]);
    }
    size
});
