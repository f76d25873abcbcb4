//! Anchors: recovery above one that stands is recovery of the whole log, and one that does
//! not stand is not used.

#![expect(clippy::cast_possible_truncation, reason = "logs of a few KiB")]

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{
    Evidence, Inspection, Proof, Range, Recovery, RepairPlan, Report, SegmentState, Status, open,
    repair,
};
use bulla_storage::files::dir::segment_path;
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::sim::{CrashKind, FaultOp, SimDisk};
use bulla_storage::{Level, Lsn, Method, Options};
use bulla_wal::Log;
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng, SeedableRng};

use crate::files::image::{self, DIR};

type Entries = Vec<(u64, u64, Vec<u8>)>;

fn options(disk: &SimDisk, seed: u64) -> Options {
    let method = if seed.is_multiple_of(2) { Method::Direct } else { Method::Buffered };
    image::options(disk).method(method)
}

fn below(end: u64, rng: &mut SplitMix64) -> u64 {
    rng.next_u64() % end
}

fn above(disk: &SimDisk, seed: u64, anchors: Vec<Anchor>) -> Recovery {
    let run = Recovery::run_above(Path::new(DIR), &options(disk, seed), |_| Ok(anchors));
    run.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"))
}

fn entries(recovery: &Recovery, from: Lsn) -> Entries {
    let mut found = Vec::new();
    let replayed = recovery.replay(from.., |entry| {
        found.push((entry.lsn.0, entry.seq.0, entry.payload.to_vec()));
        ControlFlow::Continue(())
    });
    replayed.expect("replay");
    found
}

/// Appends at random; returns the anchors that it took, the newest first.
fn live(log: &Log, rng: &mut SplitMix64) -> Vec<Anchor> {
    let mut anchors = Vec::new();
    for _ in 0..below(60, rng) {
        let payload = vec![below(256, rng) as u8; below(1500, rng) as usize];
        let level = Level::ALL[below(3, rng) as usize];
        let Ok(receipt) = log.append_with(1, &payload, level) else { break };
        if below(2, rng) == 0 && log.wait(receipt).is_err() {
            break;
        }
        if below(8, rng) == 0 {
            // At the end, or inside the last frame.
            let upto = if below(2, rng) == 0 { log.end() } else { receipt.lsn };
            let Ok(persisted_mark) = log.persist_durable_mark(upto) else { break };
            if persisted_mark < upto {
                // The segment is full to its last sector: there is no room for a mark.
                continue;
            }
            let Ok(anchor) = log.anchor(upto) else { break };
            assert!(anchor.at.lsn <= upto);
            anchors.insert(0, anchor);
            if let Some(older) = anchors.get(1)
                && log.purge_before(older).is_err()
            {
                break;
            }
        }
    }
    anchors
}

#[test]
fn recovery_above_a_persisted_anchor_is_that_of_the_whole_log() {
    let mut used = [0; 3];
    for seed in 0..300 {
        let mut rng = SplitMix64::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        let mut kept: Vec<Anchor> = Vec::new();
        for life in 0..4 {
            let log = if life == 0 {
                let (recovered, _) = open(Path::new(DIR), &options(&disk, seed)).expect("open");
                Log::start(recovered).expect("start")
            } else {
                let fork = disk.fork(seed);
                let whole = Recovery::run(Path::new(DIR), &options(&fork, seed)).expect("whole");
                let recovery = above(&disk, seed, kept.clone());
                let newest = kept.first().copied();
                assert_eq!(recovery.anchor(), newest.as_ref(), "seed {seed}, life {life}");
                let start = recovery.report().first_lsn;
                let from = newest.map_or(start, |anchor| anchor.upto);
                assert_eq!(entries(&recovery, from), entries(&whole, from), "seed {seed}");
                let end = |report: &Report| (report.last_lsn, report.next_seq);
                assert_eq!(end(recovery.report()), end(whole.report()), "seed {seed}");
                // What was not looked at is still there.
                let look = Inspection::read(Path::new(DIR), &options(&disk, seed)).expect("look");
                assert!(!matches!(look.report().status, Status::Corrupt(_)), "seed {seed}");
                let fork = disk.fork(1);
                fork.kill();
                let again = Recovery::run(Path::new(DIR), &options(&fork, seed)).expect("again");
                assert_eq!(entries(&again, start), entries(&whole, start), "seed {seed}");
                if let Some(anchor) = newest {
                    let fork = disk.fork(2);
                    fork.kill();
                    let recovered = above(&fork, seed, vec![anchor]).into_recovered();
                    let log = Log::start(recovered).expect("start");
                    let purged = log.purge_before(&anchor).expect("purged");
                    assert_eq!(purged, anchor.segment.lsn, "seed {seed}");
                    drop(log);
                    // Not a segment too many.
                    let recovery = above(&fork, seed, vec![anchor]);
                    assert_eq!(recovery.anchor(), Some(&anchor), "seed {seed}");
                }
                used[usize::from(newest.is_some())] += 1;
                Log::start(recovery.into_recovered()).expect("start")
            };
            let kind = if seed % 3 == 0 { CrashKind::Kill } else { CrashKind::PowerLoss };
            if below(3, &mut rng) > 0 {
                disk.crash_after(below(150, &mut rng), kind);
            }
            let mut taken = live(&log, &mut rng);
            taken.append(&mut kept);
            kept = taken;
            let closes = below(2, &mut rng) == 0;
            let closed = closes && log.close().is_ok();
            disk.disarm();
            if !closed {
                disk.power_loss();
                used[2] += 1;
            }
        }
    }
    assert!(used.iter().all(|count| *count > 50), "{used:?}");
}

/// A log with some segments, and an anchor in the middle of it.
fn with_anchor(disk: &SimDisk) -> Anchor {
    let (recovered, _) = open(Path::new(DIR), &options(disk, 0)).expect("open");
    let log = Log::start(recovered).expect("start");
    let append = |count| {
        for number in 0..count {
            let receipt = log.append_with(1, &[number; 900], Level::Strict).expect("append");
            log.wait(receipt).expect("wait");
        }
    };
    append(40);
    let upto = log.end();
    assert!(log.persist_durable_mark(upto).expect("secure") >= upto);
    let anchor = log.anchor(upto).expect("anchor");
    append(20);
    log.close().expect("close");
    anchor
}

fn is_used(disk: &SimDisk, anchor: Anchor) -> bool {
    let recovery = above(disk, 0, vec![anchor]);
    let used = recovery.anchor().is_some();
    assert_eq!(recovery.standing().contains(&anchor), used);
    assert_eq!(recovery.report().scanned_from > recovery.report().first_lsn, used);
    let segments = recovery.report().segments.iter();
    let mut covered = segments.filter(|segment| segment.state == SegmentState::Covered);
    assert!(covered.all(|segment| segment.frames == 0), "what is covered was read");
    used
}

#[test]
fn anchor_that_does_not_stand_is_not_used() {
    let disk = SimDisk::new(1);
    let anchor = with_anchor(&disk);
    assert!(is_used(&disk.fork(1), anchor));
    let mut wrong = vec![anchor; 9];
    wrong[0].at.prev_crc ^= 1;
    wrong[1].at.seq.0 += 1;
    wrong[2].nonce ^= 1;
    wrong[3].log_id.0[0] ^= 1;
    wrong[4].segment.segment = wrong[4].segment.segment.next();
    wrong[5].last = wrong[5].last.map(|last| Lsn(last.0 - 512));
    wrong[6].at.lsn.0 += 512;
    wrong[7].upto.0 += 1 << 20;
    wrong[8].last = None;
    for anchor in wrong {
        assert!(!is_used(&disk.fork(1), anchor), "{anchor:?}");
    }
}

#[test]
fn read_that_fails_under_an_anchor_is_told() {
    let disk = SimDisk::new(1);
    let anchor = with_anchor(&disk);
    let mut told = 0;
    for after in 0..50 {
        let fork = disk.fork(1);
        fork.fail_next(FaultOp::Read, ErrorKind::Other, ".seg", after);
        match Recovery::run_above(Path::new(DIR), &options(&fork, 0), |_| Ok(vec![anchor])) {
            Ok(recovery) => assert_eq!(recovery.anchor(), Some(&anchor), "{after}"),
            Err(_) => told += 1,
        }
    }
    assert!(told > 3, "{told}");
}

#[test]
fn anchor_of_a_timeline_that_was_truncated_is_not_used() {
    let disk = SimDisk::new(1);
    let anchor = with_anchor(&disk);
    let look = Inspection::read(Path::new(DIR), &options(&disk, 0)).expect("look");
    let mut cuts = Vec::new();
    look.replay(Range::ALL, |entry| {
        cuts.push(entry.lsn);
        ControlFlow::Continue(())
    })
    .expect("replay");
    // Frames begin a header before their first entry.
    let frames = cuts.into_iter().step_by(5).map(|entry| Lsn(entry.0 / 512 * 512));
    // Made for a position inside the next frame: the boundary can stay when that is cut.
    let inside = Anchor { upto: anchor.at.lsn.plus(1), ..anchor };
    for cut_at in frames.chain([anchor.at.lsn]) {
        let disk = disk.fork(1);
        repair(Path::new(DIR), &options(&disk, 0), RepairPlan { cut_at }).expect("repair");
        let (recovered, _) = open(Path::new(DIR), &options(&disk, 0)).expect("open");
        let log = Log::start(recovered).expect("start");
        for number in 0..60 {
            let receipt = log.append_with(1, &[number; 900], Level::Strict).expect("append");
            log.wait(receipt).expect("wait");
        }
        log.close().expect("close");
        for anchor in [anchor, inside] {
            let used = is_used(&disk.fork(1), anchor);
            assert_eq!(used, cut_at >= anchor.upto, "cut at {cut_at}");
        }
    }
}

#[test]
fn anchor_ahead_of_an_older_copy_of_the_log_is_not_used() {
    let disk = SimDisk::new(1);
    let (recovered, _) = open(Path::new(DIR), &options(&disk, 0)).expect("open");
    let log = Log::start(recovered).expect("start");
    let receipt = log.append_with(1, &[1; 900], Level::Strict).expect("append");
    log.wait(receipt).expect("wait");
    let older = disk.fork(1);
    let receipt = log.append_with(1, &[2; 900], Level::Strict).expect("append");
    log.wait(receipt).expect("wait");
    log.persist_durable_mark(log.end()).expect("secure");
    let anchor = log.anchor(log.end()).expect("anchor");
    older.kill();
    assert!(!is_used(&older, anchor));
    disk.kill();
    drop(log);
    assert!(is_used(&disk, anchor));
}

#[test]
fn what_no_frame_marks_is_proved_by_the_low_water_mark_or_the_anchor_from_which_a_scan_starts() {
    let disk = SimDisk::new(1);
    let (recovered, _) = open(Path::new(DIR), &options(&disk, 0)).expect("open");
    let proof = |anchors: &[Anchor]| {
        let options = options(&disk, 0);
        let look = Inspection::read_above(Path::new(DIR), &options, anchors).expect("look");
        match look.report().evidence[0] {
            Evidence::DurableMark { proof, durable } => (proof, durable),
            ref other => panic!("{other:?}"),
        }
    };
    assert_eq!(proof(&[]), (Proof::LowWater, Lsn(0)));
    let log = Log::start(recovered).expect("start");
    let receipt = log.append_with(1, &[1; 900], Level::Strict).expect("append");
    log.wait(receipt).expect("wait");
    let upto = log.end();
    log.persist_durable_mark(upto).expect("secure");
    let anchor = log.anchor(upto).expect("anchor");
    assert_eq!(proof(&[anchor]), (Proof::Anchor, anchor.at.lsn));
    assert!(matches!(proof(&[]), (Proof::Frame { .. }, durable) if durable == upto));
}

#[test]
fn damage_below_an_anchor_is_found_by_a_scan_of_the_whole_log() {
    let disk = SimDisk::new(1);
    let anchor = with_anchor(&disk);
    disk.flip(segment_path(Path::new(DIR), anchor.segment.segment), 700, 1);
    assert!(is_used(&disk.fork(1), anchor), "what is below is not looked at");
    let look = Inspection::read(Path::new(DIR), &options(&disk, 0)).expect("look");
    assert!(matches!(look.report().status, Status::Corrupt(_)));
    // Above it nothing is taken for the end of the log.
    let offset = 512 + anchor.at.lsn.distance_from(anchor.segment.lsn);
    disk.flip(segment_path(Path::new(DIR), anchor.segment.segment), offset + 20, 1);
    let run = Recovery::run_above(Path::new(DIR), &options(&disk, 0), |_| Ok(vec![anchor]));
    assert!(run.expect_err("refused").corruption().is_some());
}
