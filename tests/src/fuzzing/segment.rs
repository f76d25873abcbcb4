//! Whatever the files hold, a recovery refuses and changes nothing, or it opens a log
//! that stays as it was shown.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use bulla_recovery::{Error, Inspection, Range, Recovery, Status};
use bulla_storage::io::sim::SimDisk;
use bulla_wal::{Level, Log, Method, Options};

use super::damage;
use super::logs::{self, DIR, Entry};
use crate::Rng;

/// Steps on the disk that looking, recovering and replaying may take for each file. The
/// intact logs take less than a tenth of it.
const MAX_STEPS: u64 = 400;

/// How a damaged log was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The recovery refused it and changed nothing.
    Refused,
    /// It was opened: only zeros followed its last frame.
    Clean,
    /// It was opened without its torn tail.
    Torn,
}

/// Damages one of several logs, looks at it, and opens it twice.
///
/// # Panics
/// When a refusal changes a file, when a look and a recovery differ, when more work is
/// done than the files are worth, when a power loss takes back what a recovery showed,
/// or when an entry that is appended then is not there.
pub fn segment(input: &[u8]) -> Outcome {
    let mut rng = Rng::from_script(input);
    let all = logs::all();
    let mut files = all[rng.below(all.len() as u64) as usize].files.clone();
    let method = if rng.one_in(2) { Method::Direct } else { Method::Buffered };
    damage::inflict(&mut rng, &mut files);
    check(&files, method)
}

/// Looks at a log of these files, and opens it twice.
pub(super) fn check(files: &[(PathBuf, Vec<u8>)], method: Method) -> Outcome {
    let disk = logs::disk(files);
    let options = Options::simulated(&disk).method(method);
    let before = logs::contents(&disk);
    let looked = look(&options);
    assert_unchanged(&before, &disk, "a look");
    let recovered = Recovery::run(Path::new(DIR), &options);
    let steps = disk.steps();
    assert!(
        steps <= MAX_STEPS * (files.len() as u64 + 1),
        "{steps} steps for {} files",
        files.len()
    );
    match recovered {
        Err(error) => {
            assert_unchanged(&before, &disk, &format!("a refusal ({error})"));
            check_refusal(&error, looked.as_ref());
            Outcome::Refused
        }
        Ok(recovery) => {
            let outcome = match recovery.report().status {
                Status::Clean => Outcome::Clean,
                Status::TornTail => Outcome::Torn,
                Status::Corrupt(_) => panic!("a corrupt log was opened"),
            };
            let shown = check_shown(&recovery, looked);
            let lost = disk.fork(3);
            lost.drop_pending();
            check_entries(&lost, method, &shown, "a power loss");
            goes_on(&disk, method, recovery, shown);
            outcome
        }
    }
}

/// What a read-only look shows: the entries, unless the log is found to be corrupt.
fn look(options: &Options) -> Result<Option<Vec<Entry>>, Error> {
    let inspection = Inspection::read(Path::new(DIR), options)?;
    let mut entries = Vec::new();
    inspection.replay(Range::ALL, |entry| {
        entries.push((entry.seq, entry.kind, entry.payload.to_vec()));
        ControlFlow::Continue(())
    })?;
    let is_corrupt = matches!(inspection.report().status, Status::Corrupt(_));
    check_one_pass(options, &entries, is_corrupt);
    Ok((!is_corrupt).then_some(entries))
}

/// A replay without a scan before it returns the same, and the corruption after it.
fn check_one_pass(options: &Options, looked: &[Entry], is_corrupt: bool) {
    let mut entries = Vec::new();
    let result = bulla_recovery::replay(Path::new(DIR), options, Range::ALL, |entry| {
        entries.push((entry.seq, entry.kind, entry.payload.to_vec()));
        ControlFlow::Continue(())
    });
    assert!(entries == looked, "{} and {} entries", entries.len(), looked.len());
    match result {
        Ok(_) => assert!(!is_corrupt, "one pass finds nothing wrong"),
        Err(Error::Corrupt(corruption)) => assert!(is_corrupt, "{corruption}"),
        Err(error) => panic!("the disk has no faults: {error:?}"),
    }
}

fn check_refusal(error: &Error, looked: Result<&Option<Vec<Entry>>, &Error>) {
    match error {
        Error::Corrupt(_) => {
            let found = matches!(looked, Ok(None) | Err(Error::Corrupt(_)));
            assert!(found, "the recovery finds {error}, a look {looked:?}");
        }
        // CONTROL may be gone, or say what the options or this build can't do.
        Error::NotALog { .. }
        | Error::Unsupported { .. }
        | Error::Options { .. }
        | Error::EpochsExhausted => {}
        error => panic!("the disk has no faults: {error:?}"),
    }
}

fn check_shown(recovery: &Recovery, looked: Result<Option<Vec<Entry>>, Error>) -> Vec<Entry> {
    let shown = logs::replayed(recovery).expect("what was recovered can be read");
    let looked = looked.expect("what can be recovered can be looked at");
    assert!(looked.as_ref() == Some(&shown), "a look showed other entries");
    let report = recovery.report();
    assert_eq!(report.entries, shown.len() as u64);
    for (at, (seq, ..)) in (report.first_seq.0..).zip(&shown) {
        assert_eq!(seq.0, at, "a hole or a duplicate");
    }
    assert!(report.first_lsn <= report.durable_lsn && report.durable_lsn <= report.last_lsn);
    shown
}

/// Appends to what was recovered: the entry must be there after another power loss.
fn goes_on(disk: &SimDisk, method: Method, recovery: Recovery, mut shown: Vec<Entry>) {
    let next = recovery.report().next_seq;
    let log = Log::start(recovery.into_recovered()).expect("what was recovered starts");
    let receipt = log.append_with(9, b"goes on", Level::Strict).expect("there is room");
    assert_eq!(receipt.seq, next);
    log.wait(receipt).expect("the disk has no faults");
    disk.drop_pending();
    drop(log);
    shown.push((next, 9, b"goes on".to_vec()));
    check_entries(disk, method, &shown, "an append and a power loss");
}

fn check_entries(disk: &SimDisk, method: Method, expected: &[Entry], after: &str) {
    let options = Options::simulated(disk).method(method);
    let recovery = Recovery::run(Path::new(DIR), &options)
        .unwrap_or_else(|error| panic!("after {after}: {error:?}"));
    let shown = logs::replayed(&recovery).expect("what was recovered can be read");
    let span = |entries: &[Entry]| (entries.first().map(|e| e.0), entries.last().map(|e| e.0));
    assert!(
        shown == expected,
        "after {after} entries {:?} are shown instead of {:?}: {:?}",
        span(&shown),
        span(expected),
        recovery.report().evidence
    );
}

fn assert_unchanged(before: &[(PathBuf, Vec<u8>)], disk: &SimDisk, what: &str) {
    let after = logs::contents(disk);
    let both = before.iter().chain(&after);
    let changed: Vec<_> =
        both.filter(|file| !(before.contains(file) && after.contains(file))).collect();
    let paths: BTreeSet<_> = changed.iter().map(|(path, _)| path).collect();
    assert!(changed.is_empty(), "{what} changed {paths:?}");
}
