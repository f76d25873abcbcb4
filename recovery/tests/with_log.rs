//! Recovery together with the log that appends: what was acknowledged comes back.

#![expect(clippy::cast_possible_truncation, reason = "images of a few KiB")]

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use bulla_recovery::{
    CutRefused, Inspection, Range, Recovery, RepairPlan, Seal, Status, open, preview_repair, replay,
};
use bulla_storage::io::Io;
use bulla_storage::io::sim::SimDisk;
use bulla_storage::{Level, Lsn, Method, Options};
use bulla_wal::Log;

use crate::files::image::{DIR, options};

fn entries(replay: impl FnOnce(&mut dyn FnMut(u64, &[u8]))) -> Vec<(u64, Vec<u8>)> {
    let mut found = Vec::new();
    replay(&mut |seq, payload| found.push((seq, payload.to_vec())));
    found
}

#[test]
fn strict_entries_survive_every_way_to_end_and_reopen() {
    let disk = SimDisk::new(7);
    let mut expected: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut lsn = 0;
    for round in 0..12_u64 {
        let (recovered, report) = open(Path::new(DIR), &options(&disk)).expect("open");
        assert!(!matches!(report.status, Status::Corrupt(_)), "{report:#?}");
        assert_eq!(report.entries, expected.len() as u64, "round {round}: {report:#?}");
        assert!(report.last_lsn.0 >= lsn);
        let log = Log::start(recovered).expect("start");
        for index in 0..20 {
            let payload = vec![round as u8; 30 + index * 40];
            let receipt = log.append_with(1, &payload, Level::Strict).expect("append");
            log.wait(receipt).expect("wait");
            expected.push((receipt.seq.0, payload));
            lsn = receipt.lsn.0;
        }
        match round % 3 {
            0 => log.close().expect("close"),
            1 => {
                disk.kill();
                drop(log);
            }
            _ => {
                disk.power_loss();
                drop(log);
            }
        }
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let seen = entries(|visit| {
            inspection
                .replay(Range::ALL, |entry| {
                    visit(entry.seq.0, entry.payload);
                    ControlFlow::Continue(())
                })
                .expect("replay");
        });
        assert_eq!(seen.len(), expected.len(), "round {round} {:#?}", inspection.report());
        assert!(seen == expected);
        if round % 3 == 0 {
            assert_eq!(inspection.report().status, Status::Clean, "{:#?}", inspection.report());
        }
    }
    let recovery = Recovery::run(Path::new(DIR), &options(&disk)).expect("recover");
    let seen = entries(|visit| {
        recovery
            .replay(Range::ALL, |entry| {
                visit(entry.seq.0, entry.payload);
                ControlFlow::Continue(())
            })
            .expect("replay");
    });
    assert!(seen == expected);
}

#[test]
fn segment_that_is_followed_ends_within_its_length_with_a_seal_that_counts() {
    let disk = SimDisk::new(7);
    let (recovered, _) = open(Path::new(DIR), &options(&disk)).expect("open");
    let log = Log::start(recovered).expect("start");
    for index in 0..100 {
        let level = Level::ALL[index % 3];
        let receipt = log.append_with(1, &[7; 900], level).expect("append");
        if index % 4 == 0 {
            log.wait(receipt).expect("wait");
        }
    }
    log.close().expect("close");
    let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
    let segments = inspection.segments().iter();
    assert!(segments.clone().all(|segment| segment.file_len <= 16 * 1024), "frames and seal fit");
    let written = segments.filter(|segment| segment.frames > 0);
    let mut seals: Vec<_> = written.map(|segment| segment.seal).collect();
    assert_eq!(seals.pop(), Some(Some(Seal::Closed)));
    assert!(seals.len() > 3 && seals.iter().all(|seal| *seal == Some(Seal::Rotated)), "{seals:?}");
}

#[test]
fn times_of_the_log_go_back_with_the_clock_by_more_than_an_hour_and_in_another_segment_only() {
    const MINUTE: i64 = 60_000_000_000;
    const YEARS: i64 = 365 * 24 * 60 * MINUTE * 40;
    let disk = SimDisk::new(7);
    let mut times: Vec<u64> = Vec::new();
    for (opening, offset) in [0, -59 * MINUTE, YEARS, MINUTE, 2 * MINUTE].into_iter().enumerate() {
        disk.set_wall_offset(offset);
        let (recovered, report) = open(Path::new(DIR), &options(&disk)).expect("open");
        assert_eq!(report.wall_ns, times.last().copied().unwrap_or(0), "opening {opening}");
        let log = Log::start(recovered).expect("start");
        for _ in 0..2 {
            let receipt = log.append_with(1, b"entry", Level::Strict).expect("append");
            log.wait(receipt).expect("wait");
            while log.step() {}
        }
        let clock = disk.process().wall_ns();
        // A kill, so that the entries are copied by the recovery that comes next.
        disk.kill();
        drop(log);
        let inspection = Inspection::read(Path::new(DIR), &options(&disk)).expect("inspect");
        let mut shown = Vec::new();
        let each = |entry: &bulla_recovery::EntryView<'_>| {
            shown.push(entry.wall_ns);
            ControlFlow::Continue(())
        };
        inspection.replay(Range::ALL, each).expect("replay");
        assert_eq!(shown.len(), 2 * opening + 2);
        assert_eq!(shown.last(), Some(&inspection.report().wall_ns));
        let last = times.last().copied().unwrap_or(0);
        let [first, second] = shown[2 * opening..] else { panic!("two were appended") };
        match opening {
            // Minutes behind.
            1 => assert!(clock < last && first == last && second == last),
            // Years behind: the first one still follows the frames that were copied.
            3 => assert!(clock < last && first == last && second.abs_diff(clock) < 1_000_000_000),
            _ => assert!(first > last && first.abs_diff(clock) < 1_000_000_000 && second >= first),
        }
        times = shown;
    }
    assert_eq!(times.iter().filter(|ns| **ns > disk.process().wall_ns()).count(), 3);
}

/// A look at a log that is being written, rotated and purged never sees damage, and
/// never disturbs the writer.
#[test]
fn inspection_of_a_running_log_finds_no_damage() {
    for method in [Method::Direct, Method::Buffered] {
        let temp = tempfile::tempdir().expect("a temporary directory");
        let dir = temp.path();
        let options = Options::new().method(method).segment_len(64 * 1024).ring_len(64 * 1024);
        let (recovered, _) = open(dir, &options).expect("open");
        let log = Log::start(recovered).expect("start");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut count = 0_u64;
                while !stop.load(Ordering::Relaxed) {
                    let level = Level::ALL[(count % 3) as usize];
                    let receipt = log.append_with(1, &[7; 500], level).expect("append");
                    log.wait(receipt).expect("wait");
                    count += 1;
                    if count.is_multiple_of(1000) {
                        log.purge(receipt.lsn).expect("purge");
                    }
                }
            });
            // Judged only when the writer has ended: a panic here would leave it running.
            let looks: Vec<_> = (0..60).map(|_| Inspection::read(dir, &options)).collect();
            let passes: Vec<_> = (0..60)
                .map(|_| {
                    let mut seqs = Vec::new();
                    let stats = replay(dir, &options, Range::ALL, |entry| {
                        seqs.push(entry.seq.0);
                        ControlFlow::Continue(())
                    });
                    (stats, seqs)
                })
                .collect();
            stop.store(true, Ordering::Relaxed);
            for inspection in looks {
                let inspection = inspection.unwrap_or_else(|error| panic!("{error:?}"));
                let report = inspection.report();
                assert!(!matches!(report.status, Status::Corrupt(_)), "{report:#?}");
            }
            for (stats, seqs) in passes {
                assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
                match stats {
                    Ok(stats) => assert_eq!(stats.entries, seqs.len() as u64),
                    // The writer purges: a segment was removed that the look had found.
                    Err(error) => assert_eq!(error.corruption(), None, "{error}"),
                }
            }
        });
        log.close().expect("close");
        assert_eq!(
            Inspection::read(dir, &options).expect("inspect").report().status,
            Status::Clean
        );
    }
}

/// So long that a look leaves marks in it, from which a search for a boundary goes on.
#[test]
fn every_boundary_of_a_long_segment_is_found_and_nothing_else() {
    let disk = SimDisk::new(9);
    let options = options(&disk).segment_len(8 << 20).ring_len(4 << 20);
    let log = Log::create(Path::new(DIR), &options).expect("create");
    let mut boundaries = vec![log.end()];
    for _ in 0..30 {
        let _ = log.append_with(1, &[7; 200_000], Level::Relaxed).expect("append");
        log.sync().expect("sync");
        boundaries.push(log.end());
    }
    disk.kill();
    drop(log);
    let options = options.io(disk.process());
    let preview = |cut_at| preview_repair(Path::new(DIR), &options, RepairPlan { cut_at });
    for (entries, pair) in boundaries.windows(2).enumerate() {
        let cut = preview(pair[0]).expect("a boundary");
        assert_eq!((cut.kept_entries, cut.first_lost.0), (entries as u64, entries as u64 + 1));
        let inside = preview(Lsn(pair[0].0 + 512));
        let frame = CutRefused::InsideFrame(pair[0]);
        assert!(
            matches!(inside, Err(bulla_recovery::RepairError::Cut { reason, .. }) if reason == frame),
            "{inside:?}"
        );
    }
    let recovery = Recovery::run(Path::new(DIR), &options).expect("recover");
    assert_eq!(recovery.report().entries, 30);
}
