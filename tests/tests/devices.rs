//! Devices that deceive: what the log notices, and what nothing on the disk can tell. Each test
//! is a row of `docs/FAULT_MODEL.md`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bulla_recovery::{Range, Recovery};
use bulla_wal::io::sim::{Lie, SimConfig, SimDisk};
use bulla_wal::{Error, Level, Log, Method, Options};

const DIR: &str = "/log";
/// The segment that every test writes to.
const SEGMENT: &str = "00000000000000000001.seg";
/// Fewer than fill it.
const ENTRIES: u8 = 12;

fn options(disk: &SimDisk, method: Method) -> Options {
    Options::new()
        .io(disk.process())
        .sector(512)
        .segment_len(16 * 1024)
        .ring_len(16 * 1024)
        .method(method)
        .lock_timeout(Duration::ZERO)
        .manual()
}

/// A log with durable entries; the device lies about one of the operations after its creation.
fn written(lie: Lie, after: u64, method: Method) -> (SimDisk, Log) {
    let disk = SimDisk::new(after);
    let log = Log::create(Path::new(DIR), &options(&disk, method)).unwrap();
    disk.lie_next(lie, SEGMENT, after);
    for entry in 0..ENTRIES {
        let receipt = log.append_with(1, &[entry; 600], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    (disk, log)
}

/// How many entries a recovery shows; they must be the first that were appended.
fn shown(disk: &SimDisk, method: Method) -> Result<u64, bulla_recovery::Error> {
    let recovery = Recovery::run(Path::new(DIR), &options(disk, method))?;
    let mut next = 0;
    recovery.replay(Range::ALL, |entry| {
        assert_eq!(entry.seq.0, next + 1);
        assert_eq!(entry.payload, [next as u8; 600]);
        next += 1;
        ControlFlow::Continue(())
    })?;
    Ok(next)
}

fn is_corruption<T>(result: &Result<T, bulla_recovery::Error>) -> bool {
    matches!(result, Err(bulla_recovery::Error::Log(Error::Corrupt(_))))
}

#[test]
fn write_that_is_lost_or_goes_astray_is_refused_once_a_later_frame_has_promised_it() {
    for lie in [Lie::LostWrite, Lie::MisdirectedWrite] {
        for method in [Method::Direct, Method::Buffered] {
            // The frame after the last one but one promises it.
            for after in 0..u64::from(ENTRIES) - 1 {
                let (disk, log) = written(lie, after, method);
                assert!(disk.is_honest(), "the lie was told");
                log.close().unwrap();
                let result = shown(&disk, method);
                assert!(is_corruption(&result), "{lie:?} of write {after}: {result:?}");
            }
        }
    }
}

#[test]
fn lost_write_that_nothing_has_promised_looks_like_a_torn_tail() {
    for method in [Method::Direct, Method::Buffered] {
        let last = u64::from(ENTRIES) - 1;
        let (disk, log) = written(Lie::LostWrite, last, method);
        disk.kill();
        drop(log);
        // Strict was acknowledged: this is what the residual costs.
        assert_eq!(shown(&disk, method).unwrap(), last);
    }
}

#[test]
fn bit_that_rots_on_its_way_is_an_error_or_nothing_and_never_changes_a_closed_log() {
    let (mut refused, mut told) = (0, 0);
    for after in 0.. {
        let (disk, log) = written(Lie::RottenRead, u64::MAX, Method::Direct);
        log.close().unwrap();
        disk.clear_faults();
        disk.lie_next(Lie::RottenRead, ".seg", after);
        let first = shown(&disk, Method::Direct);
        if !disk.is_honest() {
            break;
        }
        told += 1;
        match &first {
            Ok(entries) => assert_eq!(*entries, u64::from(ENTRIES)),
            other => assert!(is_corruption(other), "read {after}: {other:?}"),
        }
        refused += u64::from(first.is_err());
        assert_eq!(shown(&disk, Method::Direct).unwrap(), u64::from(ENTRIES), "read {after}");
    }
    assert!(refused > 0 && told > refused, "{refused} of {told}");
}

#[test]
fn device_that_ignores_syncs_loses_acknowledged_entries_and_shows_no_wrong_ones() {
    let (mut lost, mut refused) = (0, 0);
    for seed in 0..200 {
        for method in [Method::Direct, Method::Buffered] {
            let config = SimConfig { lost_sync_ppm: 1_000_000, ..SimConfig::default() };
            let disk = SimDisk::with_config(seed, config);
            let log = Log::create(Path::new(DIR), &options(&disk, method)).unwrap();
            disk.settle();
            for entry in 0..ENTRIES {
                let receipt = log.append_with(1, &[entry; 600], Level::Strict).unwrap();
                log.wait(receipt).unwrap();
            }
            disk.power_loss();
            drop(log);
            match shown(&disk, method) {
                Ok(entries) => lost += u64::from(entries < u64::from(ENTRIES)),
                // A promise that survived tells.
                Err(bulla_recovery::Error::Log(Error::Corrupt(_))) => refused += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
    }
    assert!(lost > 0 && refused > 0, "{lost} lost silently, {refused} refused");
}
