//! Options of any value. What must hold is in `bulla_tests::fuzzing::settings`.

#![no_main]

use bulla_tests::fuzzing::{self, Settings};

libfuzzer_sys::fuzz_target!(|settings: Settings| {
    fuzzing::settings(&settings);
});
