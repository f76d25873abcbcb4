//! Crashes inside recovery, at every step, nested three times: what was durable is always
//! there, what was shown stays shown, and the next open succeeds.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{Inspection, Range, Recovery, Status};
use bulla_storage::io::sim::{CrashKind, SimDisk};
use bulla_storage::{Level, Lsn};
use bulla_wal::Log;

use super::image::{DIR, Image, options, segment};

/// Frames below the durable mark, a rewritten tail, a torn frame behind it, a spare, a dead segment
/// and a leftover.
fn torn() -> (Image, SimDisk) {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).frame(&[20]).seal().rotate().frame(&[33]).frame(&[44]).sync();
    image.frame(&[5, 6, 7]).frame(&[700]).frame(&[100]).frame(&[9]).spare();
    let disk = image.disk();
    let torn = image.frames[image.frames.len() - 2];
    disk.flip(segment(2), torn.offset + 66, 4);
    disk.write_file(Path::new(DIR).join("00000000000000000009.seg.tmp"), b"left over");
    (image, disk)
}

/// Entries that must be there, and the most that may be.
const MARKED: u64 = 5;
const READABLE: u64 = 9;

fn replayed(image: &Image, recovery: &Recovery) -> u64 {
    let mut next = 1;
    let stats = recovery.replay(Range::ALL, |entry| {
        assert_eq!(entry.seq.0, next);
        assert_eq!(entry.payload, image.payloads[&next]);
        next += 1;
        ControlFlow::Continue(())
    });
    stats.expect("replay").entries
}

/// Crashes recovery at every step; then the same again on what is left, at every third step and at
/// every ninth. Every pair of steps is gone through by `tests/tests/opening.rs`.
fn crash_everywhere(
    image: &Image,
    disk: &SimDisk,
    depth: u32,
    shown: u64,
    stride: u64,
    runs: &mut u64,
) {
    for kind in [CrashKind::Kill, CrashKind::PowerLoss] {
        let mut steps = 0;
        loop {
            let victim = disk.fork(steps * 7 + u64::from(depth));
            victim.crash_after(steps, kind);
            let outcome = Recovery::run(Path::new(DIR), &options(&victim));
            *runs += 1;
            let mut now_shown = shown;
            let done = match outcome {
                Ok(recovery) if !victim.is_crashed() => {
                    victim.disarm();
                    let entries = replayed(image, &recovery);
                    assert!((MARKED.max(shown)..=READABLE).contains(&entries));
                    now_shown = entries;
                    victim.power_loss();
                    true
                }
                // Struck in the last steps, whose results it does not need.
                Ok(_) => false,
                Err(error) => {
                    assert!(victim.is_crashed(), "depth {depth} step {steps}: {error}");
                    false
                }
            };
            check_survivors(image, &victim, now_shown, &format!("depth {depth} step {steps}"));
            if depth > 1 {
                crash_everywhere(image, &victim, depth - 1, now_shown, stride * 3, runs);
            }
            if done {
                break;
            }
            steps += stride;
        }
    }
}

fn check_survivors(image: &Image, disk: &SimDisk, shown: u64, context: &str) {
    let disk = disk.fork(99);
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let report = inspection.report();
    assert!(!matches!(report.status, Status::Corrupt(_)), "{context}: {report:#?}");
    assert!((MARKED.max(shown)..=READABLE).contains(&report.entries), "{context}: {report:#?}");
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let entries = replayed(image, &recovery);
    assert_eq!(entries, report.entries, "{context}");
    drop(recovery);
    disk.drop_pending();
    let again = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    assert_eq!(again.report().entries, entries, "{context}: {:#?}", again.report());
    assert_eq!(again.report().status, Status::Clean, "{context}");
}

#[test]
fn recovery_can_crash_three_deep() {
    let (image, disk) = torn();
    let mut runs = 0;
    crash_everywhere(&image, &disk, 3, 0, 1, &mut runs);
    assert!(runs > 1_000, "{runs} runs");
}

#[test]
fn cut_bytes_are_in_quarantine_before_they_are_gone() {
    let (image, disk) = torn();
    let torn = image.frames[image.frames.len() - 2];
    let cut = disk.read_file(segment(2))[torn.offset as usize..].to_vec();
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let report = recovery.report();
    assert_eq!(report.status, Status::TornTail);
    assert_eq!(report.bytes_cut, 1024);
    assert_eq!(report.last_lsn, torn.lsn);
    assert_eq!(report.rewritten, Some((Lsn(report.durable_lsn.0), torn.lsn)));
    let folder = report.quarantine.clone().expect("a quarantine");
    assert!(!disk.paths().iter().any(|path| path.ends_with("00000000000000000009.seg.tmp")));
    disk.drop_pending();
    let names: Vec<_> = disk.paths().into_iter().filter(|path| path.starts_with(&folder)).collect();
    assert_eq!(names, [folder.join(format!("1-2-{}.bin", torn.offset))]);
    let kept = disk.read_file(&names[0]);
    assert!(cut.starts_with(&kept) && cut[kept.len()..].iter().all(|byte| *byte == 0));
}

#[test]
fn closed_log_keeps_the_position_of_its_seal() {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).close().spare();
    let disk = image.disk();
    for open in 0..4 {
        let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
        assert_eq!(recovery.report().last_lsn, image.lsn, "open {open}");
        let recovered = recovery.into_recovered();
        assert_eq!((recovered.next_lsn, recovered.next_seq.0), (image.lsn, 3));
        assert_eq!(
            recovered.live.last().map(|live| live.start.segment),
            Some(recovered.header.number)
        );
        drop(recovered);
        disk.power_loss();
    }
}

#[test]
fn log_goes_on_after_a_closed_one() {
    let mut image = Image::new(512);
    image.frame(&[10, 300]).close().spare();
    let disk = image.disk();
    // In the epoch that takes over the seal's position.
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let log = Log::start(recovery.into_recovered()).expect("start");
    let receipt = log.append_with(5, b"after", Level::Strict).expect("append");
    log.wait(receipt).expect("wait");
    disk.power_loss();
    drop(log);
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    assert_eq!(recovery.report().entries, 3);
    assert_eq!(recovery.report().last_entry, Some((receipt.lsn, receipt.seq)));
}

#[test]
fn receipts_of_lost_entries_diverge_and_of_kept_ones_do_not() {
    let (image, disk) = torn();
    let torn = image.frames[image.frames.len() - 2];
    let old = bulla_storage::Epoch(1);
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let timeline = recovery.report().timeline.clone();
    timeline.check(old, Lsn(torn.lsn.0 - 512)).expect("kept");
    assert!(timeline.check(old, torn.lsn).is_err());
    timeline.check(recovery.report().epoch, torn.lsn).expect("new");
    drop(recovery);
    // Three epochs on it is still known.
    for _ in 0..3 {
        drop(Recovery::run(Path::new(DIR), &options(&disk)).expect("recover"));
    }
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    assert!(inspection.report().timeline.check(old, torn.lsn).is_err());
}
