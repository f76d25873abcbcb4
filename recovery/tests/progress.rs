//! What an open and an inspection tell while they read, and how they are cancelled.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bulla_recovery::{Inspection, Recovery};
use bulla_storage::io::sim::SimDisk;
use bulla_storage::progress::{Phase, Progress};
use bulla_storage::{Error, Level, Options};
use bulla_wal::Log;

use crate::files::image::DIR;

const MIB: u64 = 1024 * 1024;

/// A log of a few segments, each of more than a step; it was killed.
fn log_of_mebibytes() -> SimDisk {
    let disk = SimDisk::new(3);
    let log = Log::create(DIR, &options(&disk)).expect("create");
    for _ in 0..60 {
        let receipt = log.append_with(1, &[7; 100_000], Level::Strict).expect("append");
        log.wait(receipt).expect("wait");
    }
    disk.kill();
    disk
}

fn options(disk: &SimDisk) -> Options {
    Options::simulated(disk).segment_len(2 * MIB).ring_len(2 * MIB)
}

fn files(disk: &SimDisk) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut paths = disk.paths();
    // An open makes it, if it is not there.
    paths.retain(|path| !path.ends_with("LOCK"));
    paths.into_iter().map(|path| (path.clone(), disk.read_file(&path))).collect()
}

#[test]
fn progress_never_falls_and_ends_at_its_total() {
    let disk = log_of_mebibytes();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&told);
    let options = options(&disk).on_progress(move |progress| {
        seen.lock().expect("no panic").push(progress);
        ControlFlow::Continue(())
    });
    Recovery::run(Path::new(DIR), &options).expect("recovery");
    let told = told.lock().expect("no panic");
    let total = told[0].total;
    assert!(total > 6 * MIB, "{told:?}");
    assert!(told.len() as u64 >= total / MIB, "it is told about once per MiB: {told:?}");
    assert!(told.iter().all(|progress| progress.phase == Phase::Scan && progress.total == total));
    assert!(told.is_sorted_by_key(|progress| progress.done), "{told:?}");
    assert_eq!(told.last().map(|last| last.done), Some(total));
}

#[test]
fn open_that_waits_for_another_writer_says_so_and_can_be_cancelled() {
    let disk = log_of_mebibytes();
    let writer = Recovery::run(Path::new(DIR), &options(&disk)).expect("the first writer");
    for patience in [usize::MAX, 3] {
        let told = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&told);
        let waiting =
            options(&disk).lock_timeout(Duration::from_secs(1)).on_progress(move |progress| {
                let mut seen = seen.lock().expect("no panic");
                seen.push(progress);
                if seen.len() < patience {
                    ControlFlow::Continue(())
                } else {
                    ControlFlow::Break(())
                }
            });
        let error = Recovery::run(Path::new(DIR), &waiting).map(drop).expect_err("locked");
        let told = told.lock().expect("no panic");
        if patience == 3 {
            assert!(matches!(error, Error::Cancelled) && told.len() == 3, "{error}");
        } else {
            assert!(matches!(error, Error::Locked { .. }), "{error}");
            assert!(told.last().is_some_and(|last| last.done > 900), "{told:?}");
        }
        let waits = |progress: &Progress| progress.phase == Phase::Wait && progress.total == 1_000;
        assert!(told.iter().all(waits) && told.is_sorted_by_key(|progress| progress.done));
    }
    drop(writer);
}

#[test]
fn cancelled_open_or_inspection_has_changed_nothing() {
    let disk = log_of_mebibytes();
    let before = files(&disk);
    for at in 0..8 {
        let cancelling = |disk: &SimDisk| {
            options(disk).on_progress(move |Progress { done, .. }| {
                if done >= at * MIB { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        };
        let inspected = Inspection::read(Path::new(DIR), &cancelling(&disk));
        assert!(matches!(inspected, Err(Error::Cancelled)), "{inspected:?}");
        let recovered = Recovery::run(Path::new(DIR), &cancelling(&disk));
        assert!(matches!(recovered, Err(Error::Cancelled)), "{recovered:?}");
        assert!(files(&disk) == before, "cancelled after {at} MiB");
    }
    let (log, report) = Log::open(DIR, &options(&disk)).expect("it is unlocked");
    assert_eq!(report.entries, 60);
    drop(log);
}

#[test]
fn cancelled_scan_asks_no_second_time() {
    let disk = log_of_mebibytes();
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let options = options(&disk).on_progress(move |_| {
        *counted.lock().expect("no panic") += 1;
        ControlFlow::Break(())
    });
    assert!(matches!(Inspection::read(Path::new(DIR), &options), Err(Error::Cancelled)));
    assert_eq!(*calls.lock().expect("no panic"), 1);
}
