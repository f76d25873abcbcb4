//! Purge without an open: what it keeps, what it removes, and that it needs no space.

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{
    Error, Floor, Inspection, Position, PurgeReport, Range, Recovery, Status, open, purge,
};
use bulla_storage::io::sim::{CrashKind, FaultOp, SimDisk};
use bulla_storage::{Epoch, Lsn, SegmentNumber, Seq};

use super::image::{DIR, Image, contents, options, segment};

/// Three segments with entries 1 to 3, 4 and 5, 6 to 8; the last entry is not durable.
fn three() -> Image {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).frame(&[3]).seal().rotate().frame(&[33]).frame(&[44]).seal().rotate();
    image.frame(&[5]).durable_lsn().frame(&[100]).sync().frame(&[4]);
    image
}

fn purged(disk: &SimDisk, keep_from: impl Into<Position>) -> PurgeReport {
    purge(DIR, keep_from, &options(disk)).expect("purge")
}

fn numbers(report: &PurgeReport) -> Vec<u64> {
    report.segments.iter().map(|number| number.0).collect()
}

/// Opens the log, and checks that its entries are those from `first` on.
fn opens_from(image: &Image, disk: &SimDisk, first: u64) {
    let recovery = Recovery::run(Path::new(DIR), &options(disk)).expect("recover");
    let mut next = first;
    let stats = recovery.replay(Range::ALL, |entry| {
        assert_eq!((entry.seq.0, entry.payload), (next, &image.payloads[&next][..]));
        next += 1;
        ControlFlow::Continue(())
    });
    assert_eq!(stats.expect("replay").entries, image.payloads.len() as u64 + 1 - first);
}

/// Returns where the frame with this index starts.
fn frame(image: &Image, index: usize) -> Lsn {
    image.frames[index].lsn
}

#[test]
fn purge_removes_whole_segments_below_the_position_and_begins_no_epoch() {
    let image = three();
    let second = frame(&image, 3);
    let third = frame(&image, 6);
    let time_of = |index: usize| Position::at_wall_ns(image.decode(&image.frames[index]).wall_ns);
    let cases: [(Position, u64, &[u64]); 13] = [
        (Position::Start, 1, &[]),
        (Lsn(0).into(), 1, &[]),
        (Lsn(second.0 - 1).into(), 1, &[]),
        (second.into(), 4, &[1]),
        (Lsn(third.0 - 1).into(), 4, &[1]),
        (third.into(), 6, &[1, 2]),
        (Seq(3).into(), 1, &[]),
        (Seq(4).into(), 4, &[1]),
        (Seq(7).into(), 6, &[1, 2]),
        (time_of(2), 1, &[]),
        (time_of(4), 4, &[1]),
        (time_of(7), 6, &[1, 2]),
        (Position::End, 6, &[1, 2]),
    ];
    for (keep_from, first, removed) in cases {
        let disk = image.disk();
        let before = contents(&disk);
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let preview = inspection.preview_purge(keep_from, &[]).expect("preview");
        assert!(contents(&disk) == before, "a preview changed something");
        let report = purged(&disk, keep_from);
        for report in [&preview, &report] {
            assert_eq!(numbers(report), removed, "{keep_from}");
            assert_eq!((report.first_seq, report.entries), (Seq(first), first - 1), "{keep_from}");
            assert_eq!(report.bytes, removed.len() as u64 * super::image::SEGMENT_LEN);
            assert_eq!(report.before.status, Status::Clean);
        }
        // All other segments are as they were.
        let mut expected = before;
        expected.retain(|path, _| !removed.iter().any(|number| *path == segment(*number)));
        let mut left = contents(&disk);
        for files in [&mut expected, &mut left] {
            files.remove(&Path::new(DIR).join("CONTROL"));
        }
        assert!(left == expected, "{keep_from}");
        let after = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let after = after.report();
        assert_eq!((after.epoch, after.first_lsn), (Epoch(1), report.first_lsn), "{keep_from}");
        assert_eq!(after.next_seq, Seq(9), "{keep_from}");
        disk.drop_pending();
        opens_from(&image, &disk, first);
    }
}

#[test]
fn floors_keep_their_segment_and_all_that_follow() {
    let image = three();
    for (floor, first) in [(1, 1), (2, 4), (3, 6)] {
        let disk = image.disk();
        let lsn = [0, frame(&image, 3).0, frame(&image, 6).0][floor - 1];
        let floors = [Floor { lsn: Lsn(lsn), segment: SegmentNumber(floor as u64) }];
        let none = |_: &_| Ok(Vec::new());
        let purge = bulla_recovery::Purge::prepare(Path::new(DIR), &options(&disk), none);
        let report = purge.expect("prepare").run(Position::End, &floors).expect("purge");
        assert_eq!(report.first_seq, Seq(first));
        opens_from(&image, &disk, first);
    }
}

#[test]
fn what_is_not_known_to_be_durable_is_not_purged() {
    // No seal and no mark tells that the first two segments are durable.
    let mut image = Image::new(512);
    image.frame(&[10]).rotate().frame(&[20]).rotate().frame(&[30]);
    let disk = image.disk();
    assert_eq!(numbers(&purged(&disk, Position::End)), []);
    opens_from(&image, &disk, 1);
    // The open has made them durable, and has copied them.
    let disk = image.disk();
    drop(Recovery::run(Path::new(DIR), &options(&disk)).expect("recover"));
    purged(&disk, Position::End);
    opens_from(&image, &disk, 1);
}

#[test]
fn purge_works_across_epochs_and_once_more() {
    let mut image = three();
    let durable = image.durable;
    image.reopen(durable).frame(&[6, 7]).seal().rotate().frame(&[9]).sync().frame(&[2]);
    let last = image.payloads.len() as u64;
    for first in 1..=last {
        let disk = image.disk();
        let mut start = Seq(1);
        for keep_from in 1..=first {
            let report = purged(&disk, Seq(keep_from));
            assert!(report.first_seq <= Seq(keep_from) && report.first_seq >= start);
            assert_eq!(report.before.first_seq, start);
            start = report.first_seq;
        }
        let once = image.disk();
        assert_eq!(purged(&once, Seq(first)).first_seq, start);
        disk.drop_pending();
        opens_from(&image, &disk, start.0);
    }
}

#[test]
fn purge_needs_no_space_and_removes_what_a_crash_left() {
    let image = three();
    let disk = image.disk();
    let temporary = Path::new(DIR).join("00000000000000000004.seg.tmp");
    disk.write_file(&temporary, &[1; 1024]);
    // Every allocation fails, and every new name.
    disk.set_capacity(Some(0));
    for _ in 0..100 {
        disk.fail_next(FaultOp::Create, ErrorKind::StorageFull, ".seg", 0);
        disk.fail_next(FaultOp::Rename, ErrorKind::StorageFull, "", 0);
    }
    assert_eq!(numbers(&purged(&disk, Seq(6))), [1, 2]);
    assert!(!disk.paths().contains(&temporary));
    disk.clear_faults();
    disk.set_capacity(None);
    opens_from(&image, &disk, 6);
}

#[test]
fn purge_can_crash_at_every_step() {
    let image = three();
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        for step in 0.. {
            let mut is_struck = false;
            for seed in 0..8 {
                let disk = image.disk().fork(seed);
                disk.crash_after(step, kind);
                let report = purge(DIR, Seq(4), &options(&disk));
                is_struck |= disk.is_crashed();
                if report.is_ok() {
                    disk.power_loss();
                }
                disk.disarm();
                let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("read");
                let first = inspection.report().first_seq;
                assert!(first == Seq(4) || first == Seq(1) && report.is_err(), "step {step}");
                // It can be done again, and what is left of it goes.
                assert_eq!(purged(&disk.fork(seed), Seq(4)).first_seq, Seq(4));
                opens_from(&image, &disk, first.0);
                assert!(first == Seq(1) || !disk.paths().contains(&segment(1)), "step {step}");
            }
            if !is_struck {
                break;
            }
        }
    }
}

#[test]
fn corrupt_log_is_not_purged() {
    let image = three();
    for index in [0, 3] {
        let disk = image.disk();
        let at = image.frames[index];
        disk.flip(segment(at.segment), at.offset + 70, 1);
        let before = contents(&disk);
        let error = purge(DIR, Position::End, &options(&disk)).expect_err("it is corrupt");
        assert!(error.corruption().is_some(), "{error:?}");
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let error = inspection.preview_purge(Position::End, &[]).expect_err("it is corrupt");
        assert!(error.corruption().is_some(), "{error:?}");
        assert!(contents(&disk) == before);
    }
}

#[test]
fn position_of_a_lost_entry_purges_nothing() {
    let mut image = Image::new(512);
    image.frame(&[1]).seal().rotate().frame(&[2]).sync();
    // A frame of the first epoch was there, and was lost in a crash.
    let (end, lost) = (image.lsn, Lsn(image.lsn.0 + 512));
    image.reopen(end).frame(&[3]).frame(&[4]).sync();
    let disk = image.disk();
    let keep_from = Position::from((Epoch(1), lost));
    let error = purge(DIR, keep_from, &options(&disk)).expect_err("it is not there");
    assert!(matches!(error, Error::Diverged { .. }), "{error:?}");
    assert_eq!(disk.paths().iter().filter(|path| **path == segment(1)).count(), 1);
}

#[test]
fn purge_takes_the_lock_and_wants_a_log() {
    let disk = three().disk();
    let options = options(&disk).lock_timeout(std::time::Duration::ZERO);
    let recovery = Recovery::run(Path::new(DIR), &options).expect("recover");
    let error = purge(DIR, Position::End, &options).expect_err("it is locked");
    assert!(matches!(error, Error::Locked { .. }), "{error:?}");
    drop(recovery);
    let error = purge("/elsewhere", Position::End, &options).expect_err("there is none");
    assert!(matches!(error, Error::NotALog { .. }), "{error:?}");
    let (empty, _) = open(Path::new("/new"), &options).expect("create");
    drop(empty);
    let report = purge("/new", Position::End, &options).expect("purge");
    assert_eq!((report.entries, report.segments.len(), report.first_seq), (0, 0, Seq(1)));
}

#[test]
fn open_without_space_changes_nothing_and_opens_after_a_purge() {
    let image = three();
    for (op, kind) in [
        (None, ErrorKind::StorageFull),
        (Some(FaultOp::Create), ErrorKind::StorageFull),
        (Some(FaultOp::Create), ErrorKind::QuotaExceeded),
        (Some(FaultOp::Preallocate), ErrorKind::StorageFull),
        (Some(FaultOp::Write), ErrorKind::StorageFull),
        (Some(FaultOp::Sync), ErrorKind::QuotaExceeded),
    ] {
        let disk = image.disk();
        let before = contents(&disk);
        let used: usize = before.values().map(Vec::len).sum();
        disk.set_capacity(Some(used as u64));
        if let Some(op) = op {
            disk.set_capacity(None);
            disk.fail_next(op, kind, ".seg.tmp", 0);
        }
        let error = Recovery::run(Path::new(DIR), &options(&disk)).expect_err("there is no space");
        let Error::NoSpaceToOpen { cause, .. } = &error else { panic!("{op:?}: {error:?}") };
        assert!(error.is_out_of_space(), "{error:?}");
        assert!(matches!(&**cause, Error::Io { source, .. } if source.kind() == kind), "{cause:?}");
        assert!(contents(&disk) == before, "{op:?}: something was changed, or was left");
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        assert_eq!(inspection.report().entries, 8);
        assert_eq!(numbers(&purged(&disk, Position::End)), [1, 2]);
        opens_from(&image, &disk, 6);
    }
}

#[test]
fn open_takes_the_space_of_what_a_crash_left() {
    let image = three();
    let disk = image.disk();
    let temporary = Path::new(DIR).join("00000000000000000009.seg.tmp");
    disk.write_file(&temporary, &[1; 20 * 1024]);
    let used: usize = contents(&disk).values().map(Vec::len).sum();
    disk.set_capacity(Some(used as u64));
    opens_from(&image, &disk, 1);
    assert!(!disk.paths().contains(&temporary));
}
