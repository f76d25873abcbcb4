//! Full disks, and purges of logs that are not open, step by step.

use std::io::ErrorKind;
use std::path::PathBuf;

use bulla_storage::io::sim::{CrashKind, FaultOp, SimDisk};
use bulla_tests::full_disk;
use bulla_wal::format::Content;
use bulla_wal::{Error, Level, Log, Options};

#[test]
fn log_lacks_space_at_any_step_and_loses_nothing() {
    full_disk::log_lacks_space_at_any_step().unwrap();
}

#[test]
fn log_on_a_full_disk_is_read_purged_and_closed() {
    full_disk::log_on_a_full_disk_is_read_purged_and_closed().unwrap();
}

#[test]
fn store_lacks_space_at_any_step_and_loses_nothing() {
    full_disk::store_lacks_space_at_any_step().unwrap();
}

#[test]
fn purge_of_a_log_is_cut_short_at_every_step() {
    full_disk::purge_of_a_log_is_cut_short_at_every_step().unwrap();
}

#[test]
fn purge_of_a_store_is_cut_short_at_every_step() {
    full_disk::purge_of_a_store_is_cut_short_at_every_step().unwrap();
}

/// What a creation does, in every way in which it can lack space.
#[test]
fn creation_that_lacks_space_is_typed_and_stops_no_other() {
    let ops = [
        FaultOp::Create,
        FaultOp::Preallocate,
        FaultOp::Write,
        FaultOp::Sync,
        FaultOp::Rename,
        FaultOp::SyncDir,
    ];
    let (mut begun, mut free) = (0, 0);
    for (op, kind) in ops.into_iter().flat_map(|op| {
        [ErrorKind::StorageFull, ErrorKind::QuotaExceeded, ErrorKind::FileTooLarge]
            .map(|kind| (op, kind))
    }) {
        for step in 0.. {
            let disk = SimDisk::new(step);
            disk.fail_next(op, kind, "", step);
            let Err(error) = Log::open("/log", &Options::simulated(&disk)) else { break };
            let failed = format!("{op:?} {step}, {kind:?}: {error:?}");
            assert_eq!(error.is_out_of_space(), kind != ErrorKind::FileTooLarge, "{failed}");
            let paths = disk.paths();
            let is_temporary = |path: &PathBuf| path.extension().is_some_and(|end| end == "tmp");
            assert!(!paths.iter().any(is_temporary), "{failed}: {paths:?}");
            let is_segment = |path: &PathBuf| path.extension().is_some_and(|end| end == "seg");
            // That none was created is said only where there is none.
            let is_begun = paths.iter().any(is_segment);
            match &error {
                Error::NotCreated { .. } if !is_begun => {}
                Error::NoSpaceToOpen { .. } if is_begun && error.is_out_of_space() => {}
                Error::Io { .. } if is_begun && !error.is_out_of_space() => {}
                _ => panic!("{failed}, begun: {is_begun}"),
            }
            // A power loss may bring back what was removed: then the log is of the same kind.
            let lost = disk.fork(step);
            lost.power_loss();
            drop(Log::open("/log", &Options::simulated(&lost)).expect(&failed));
            disk.kill();
            // Where no segment has its name, the next creation need not be of the same kind.
            let options = if is_begun {
                begun += 1;
                Options::simulated(&disk)
            } else {
                free += 1;
                Options::simulated(&disk).sector(1024).content(Content::new("other", 1, 1))
            };
            let (log, report) = Log::open("/log", &options).expect(&failed);
            assert_eq!(report.entries, 0, "{failed}");
            log.wait(log.append_with(1, b"kept", Level::Strict).unwrap()).unwrap();
            log.close().unwrap();
        }
    }
    assert!(begun > 0 && free > 0, "{begun} and {free}");
}

#[test]
fn creation_that_a_crash_cut_short_lacks_space_until_there_is_some() {
    for step in 0.. {
        let disk = SimDisk::new(step);
        disk.crash_after(step, CrashKind::Kill);
        let created = Log::open("/log", &Options::simulated(&disk)).map(drop);
        disk.disarm();
        if created.is_ok() {
            assert!(step > 5, "{step}");
            break;
        }
        let used: usize = disk.paths().iter().map(|path| disk.read_file(path).len()).sum();
        disk.set_capacity(Some(used as u64));
        match Log::open("/log", &Options::simulated(&disk)).map(drop) {
            Ok(()) | Err(Error::NotCreated { .. } | Error::NoSpaceToOpen { .. }) => {}
            Err(error) => panic!("step {step}: {error:?}"),
        }
        disk.set_capacity(None);
        drop(Log::open("/log", &Options::simulated(&disk)).unwrap());
    }
}
