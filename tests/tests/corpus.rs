//! The committed corpus of the fuzz targets, replayed without a fuzzer.

use std::fs;
use std::path::{Path, PathBuf};

use arbitrary::{Arbitrary, Unstructured};
use bulla_tests::campaign::Tally;
use bulla_tests::fuzzing::{self, Believed, Decoded, Loaded, Outcome, Read, Settings, Taken};
use bulla_tests::{Rng, store};

fn dir_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
}

/// The inputs of a target, in the order of their names.
fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let dir = dir_of(target);
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
fn every_invariant_holds_whatever_bytes_drive_the_log() {
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
        total.rewritten,
        total.refused,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:#?}");
}

#[test]
fn directories_of_any_bytes_are_refused_whole_or_opened_for_good() {
    let seen = replay("directory", fuzzing::directory);
    for expected in [Outcome::Refused, Outcome::Clean, Outcome::Torn] {
        assert!(seen.contains(&expected), "no input is {expected:?}: {seen:?}");
    }
}

/// `BULLA_BLESS=1` writes them.
#[test]
fn seeds_of_directories_are_logs_of_this_format() {
    for (name, seed) in fuzzing::directory_seeds() {
        let path = dir_of("directory").join(format!("seed-{name}"));
        if std::env::var_os("BULLA_BLESS").is_some() {
            fs::write(&path, &seed).expect("the corpus can be written to");
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert!(committed == seed, "{} is not what is made now", path.display());
    }
}

/// What the fuzzer's mutator does, in small: changes, and checksums that fit again.
#[test]
fn changed_directories_with_mended_checksums_are_refused_whole_or_opened_for_good() {
    let (mut refused, mut opened) = (0, 0);
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let seeds = fuzzing::directory_seeds();
        let mut input = seeds[rng.below(seeds.len() as u64) as usize].1.clone();
        fuzzing::disturb(&mut rng, &mut input);
        fuzzing::mend_directory(&mut input, rng.one_in(2));
        println!("seed {seed}");
        match fuzzing::directory(&input) {
            Outcome::Refused => refused += 1,
            Outcome::Clean | Outcome::Torn => opened += 1,
        }
    }
    assert!(refused > 300 && opened > 300, "{refused} refused, {opened} opened");
}

/// `BULLA_BLESS=1` writes them.
#[test]
fn seeds_of_holds_and_manifests_are_of_this_format() {
    for (name, seed) in fuzzing::backup_seeds() {
        let path = dir_of("backup").join(format!("seed-{name}"));
        if std::env::var_os("BULLA_BLESS").is_some() {
            fs::write(&path, &seed).expect("the corpus can be written to");
        }
        let committed = fs::read(&path).unwrap_or_default();
        assert!(committed == seed, "{} is not what is made now", path.display());
    }
}

#[test]
fn holds_and_manifests_of_any_bytes_are_believed_only_with_their_checksum() {
    let mut seen = replay("backup", fuzzing::backup_file);
    let seeds = fuzzing::backup_seeds();
    let mut mended = Vec::new();
    for seed in 0..1_500 {
        let mut rng = Rng::new(seed);
        let (_, intact) = &seeds[rng.below(seeds.len() as u64) as usize];
        let mut input = intact.clone();
        if rng.one_in(4) {
            input.truncate(rng.below(input.len() as u64) as usize);
        }
        fuzzing::disturb(&mut rng, &mut input);
        println!("seed {seed}");
        if rng.one_in(2) {
            fuzzing::mend_backup(&mut input);
            mended.push(fuzzing::backup_file(&input));
        } else {
            // A change of the first byte alone makes the one the other.
            let is_intact = input.get(1..) == intact.get(1..);
            let found = fuzzing::backup_file(&input);
            assert!(is_intact || found == Believed::Refused, "{found:?}");
            seen.push(found);
        }
    }
    for expected in [Believed::Refused, Believed::Hold, Believed::Manifest] {
        assert!(seen.contains(&expected), "no input is {expected:?}");
    }
    for expected in [Believed::Refused, Believed::Hold, Believed::Misfit] {
        assert!(mended.contains(&expected), "no mended input is {expected:?}");
    }
}

#[test]
fn store_is_what_its_log_says_whatever_bytes_drive_it() {
    let mut total = store::Tally::default();
    for tally in replay("store", fuzzing::store_operations) {
        total.add(&tally);
    }
    let counts = [
        total.crashes,
        total.acknowledged,
        total.batches,
        total.swaps,
        total.expired,
        total.refused_for_records,
        total.reclaimed,
    ];
    assert!(counts.iter().all(|count| *count > 0), "{total:#?}");
}

#[test]
fn settings_are_refused_by_name_or_give_a_store_that_keeps_the_contract() {
    let seen = replay("settings", |input| {
        let settings = Settings::arbitrary_take_rest(Unstructured::new(input));
        fuzzing::settings(&settings.expect("no input is invalid"))
    });
    for expected in [Taken::Refused, Taken::NoSpace, Taken::Used] {
        assert!(seen.contains(&expected), "no input is {expected:?}: {seen:?}");
    }
}

#[test]
fn legacy_logs_of_any_bytes_are_read_without_a_hole_and_lose_no_whole_record() {
    let seen = replay("legacy", fuzzing::legacy);
    let any = |has: fn(&Read) -> bool| seen.iter().any(has);
    assert!(any(|read| read.tokens > 0 && read.other_records > 0 && read.gaps > 1), "{seen:?}");
    assert!(any(|read| *read == Read::default()) && any(|read| read.gaps == 0), "{seen:?}");
    // What the fuzzer's mutator does, in small: changes, and checksums that fit again.
    let (mut seeds, mut mended) = (corpus("legacy"), Read::default());
    seeds.retain(|(_, input)| !input.is_empty());
    for seed in 0..3_000 {
        let mut rng = Rng::new(seed);
        let mut input = seeds[rng.below(seeds.len() as u64) as usize].1.clone();
        fuzzing::disturb(&mut rng, &mut input);
        if rng.one_in(2) {
            fuzzing::mend_legacy(&mut input);
        }
        println!("seed {seed}");
        let read = fuzzing::legacy(&input);
        mended.tokens += read.tokens;
        mended.other_records += read.other_records;
        mended.gaps += read.gaps;
    }
    assert!(mended.tokens.min(mended.other_records).min(mended.gaps) > 1_000, "{mended:?}");
}

#[test]
fn rows_of_any_file_become_valid_tokens_or_are_refused() {
    let seen = replay("mapping", fuzzing::mapping);
    assert!(seen.contains(&None) && seen.iter().any(|count| count.is_some_and(|count| count > 0)));
}

#[test]
fn store_with_damaged_checkpoints_shows_what_it_had_or_is_refused() {
    let mut seen = replay("checkpoint", fuzzing::checkpoint);
    for seed in 0..1_000 {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let len = rng.within(1, 60);
        let input: Vec<u8> = (0..len).map(|_| rng.below(256) as u8).collect();
        seen.push(fuzzing::checkpoint(&input));
    }
    let count = |loaded| seen.iter().filter(|seen| **seen == loaded).count();
    assert!(count(Loaded::Whole) > 100, "{} whole", count(Loaded::Whole));
    assert!(count(Loaded::Refused) > 0, "{} refused", count(Loaded::Refused));
}
