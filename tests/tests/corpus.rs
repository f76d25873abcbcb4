//! The committed corpus of the fuzz targets, replayed without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use bulla_tests::campaign::Tally;
use bulla_tests::fuzzing::{self, Decoded, Outcome};

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{} holds no input", dir.display());
    paths
        .into_iter()
        .map(|path| {
            let input = fs::read(&path).expect("a file");
            (path, input)
        })
        .collect()
}

/// Runs a target on its corpus; the file that breaks it is named before the panic.
fn replay<T>(target: &str, run: impl Fn(&[u8]) -> T) -> Vec<T> {
    corpus(target)
        .into_iter()
        .map(|(path, input)| {
            println!("{}", path.display());
            run(&input)
        })
        .collect()
}

#[test]
fn every_structure_is_decoded_or_refused() {
    let seen = replay("decode", fuzzing::decode);
    for expected in
        [Decoded::Refused, Decoded::Control, Decoded::Header, Decoded::Frame, Decoded::Entries]
    {
        assert!(seen.contains(&expected), "no input is {expected:?}: {seen:?}");
    }
}

#[test]
fn damaged_logs_are_refused_whole_or_opened_for_good() {
    let seen = replay("segment", fuzzing::segment);
    for expected in [Outcome::Refused, Outcome::Clean, Outcome::Torn] {
        assert!(seen.contains(&expected), "no input is {expected:?}: {seen:?}");
    }
}

#[test]
fn every_promise_holds_whatever_bytes_drive_the_log() {
    let mut total = Tally::default();
    for tally in replay("operations", fuzzing::operations) {
        total.add(&tally);
    }
    let counts = [
        total.crashes_in_recovery,
        total.strict,
        total.balanced,
        total.rotations,
        total.purges,
        total.poisoned,
        total.no_space,
        total.torn,
        total.rehomed,
        total.refused,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:#?}");
}
