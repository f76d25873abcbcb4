//! Logs and stores that are read while their program purges all the time: nothing that was purged
//! is reported as missing, and everything that is missing is reported.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulla_engine::{Store, StoreInspection, StoreOptions, Token, TokenId};
use bulla_recovery::{Inspection, Range, Status};
use bulla_storage::files::dir::segment_path;
use bulla_storage::format::FRAME_HEADER_LEN;
use bulla_storage::io::sim::SimDisk;
use bulla_tests::real_threads::small;
use bulla_tests::temp_dir;
use bulla_tests::wrap::{Knobs, WrapIo};
use bulla_wal::{
    CorruptionKind, Error, Level, Log, Lsn, Options, Position, Reader, SegmentNumber, Seq,
    Visibility,
};

/// How often each way to read is tried.
const READS: u64 = 300;
const PAYLOAD: [u8; 1_000] = [7; 1_000];

/// What a read of a log that is purged meanwhile may say: where it ends, or that it was purged.
fn is_honest<T>(result: &Result<T, Error>) -> bool {
    !matches!(result, Err(error) if !matches!(error, Error::Purged { .. }))
}

fn check(dir: &Path, disturbed: &AtomicU64) {
    for inspection in [Inspection::read(dir, &small()), Inspection::read_headers(dir, &small())] {
        let inspection = inspection.unwrap();
        let status = &inspection.report().status;
        assert!(!matches!(status, Status::Corrupt(_)), "{status:?}");
        inspection.measure().unwrap();
        let replayed = inspection.replay(Range::ALL, |_| ControlFlow::Continue(()));
        assert!(is_honest(&replayed), "{replayed:?}");
        disturbed.fetch_add(u64::from(replayed.is_err()), Ordering::Relaxed);
    }
    let replayed = bulla_recovery::replay(dir, &small(), .., |_| ControlFlow::Continue(()));
    assert!(is_honest(&replayed), "{replayed:?}");
    let mut reader = Reader::open(small().io, dir, .., Visibility::Durable).unwrap();
    loop {
        match reader.next() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            error => {
                assert!(is_honest(&error), "{error:?}");
                disturbed.fetch_add(1, Ordering::Relaxed);
                break;
            }
        }
    }
}

#[test]
fn log_that_purges_all_the_time_is_never_taken_for_a_damaged_one() {
    let dir = temp_dir("purging");
    let path = dir.path().join("log");
    let log = Log::create(&path, &small()).unwrap();
    let (ended, disturbed) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut purges = 0;
            while !ended.load(Ordering::Relaxed) {
                for _ in 0..40 {
                    log.wait(log.append_with(1, &PAYLOAD, Level::Balanced).unwrap()).unwrap();
                }
                let before = log.low_water();
                purges += u64::from(log.purge(log.durable()).unwrap() > before);
            }
            assert!(purges > READS, "{purges}");
        });
        (0..READS).for_each(|_| check(&path, &disturbed));
        ended.store(true, Ordering::Relaxed);
    });
    assert!(disturbed.into_inner() > 0, "no purge met a read");
}

/// A program that purges just before operations of somebody who reads its log: one segment before
/// each of `purges` operations, from the one with the number `first` on. It writes as much.
struct Purging {
    disk: SimDisk,
    log: Arc<Log>,
    options: Options,
    knobs: Arc<Knobs>,
}

impl Purging {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let log = Log::create("/log", &Options::simulated(&disk)).unwrap();
        (0..10).for_each(|_| fill_segment(&log));
        let (io, knobs) = WrapIo::over(disk.process());
        let options = Options::simulated(&disk).io(io);
        Self { disk, log: Arc::new(log), options, knobs }
    }

    /// Reads once; returns whether the reading had as many operations as that.
    fn read<T>(&self, first: u64, purges: u64, read: impl FnOnce(&Options) -> T) -> (T, bool) {
        let seen = Arc::new(AtomicU64::new(0));
        let (log, counter) = (Arc::clone(&self.log), Arc::clone(&seen));
        self.knobs.meddle.by(Some(Arc::new(move |_| {
            let seen = counter.fetch_add(1, Ordering::Relaxed);
            if (first..first + purges).contains(&seen) {
                fill_segment(&log);
                let before = log.low_water();
                // To the end of the first segment.
                let next = before.plus(1);
                let is_moved =
                    (0..64).any(|sectors| log.purge(next.plus(sectors * 512)).unwrap() > before);
                assert!(is_moved, "nothing was purged");
            }
        })));
        let found = read(&self.options);
        self.knobs.meddle.by(None);
        (found, seen.load(Ordering::Relaxed) > first)
    }
}

/// Appends until another segment is begun, and makes that durable.
fn fill_segment(log: &Log) {
    let before = log.written();
    while log.written().0 < before.0 + 14 * 1024 {
        log.wait(log.append_with(1, &PAYLOAD, Level::Strict).unwrap()).unwrap();
    }
}

fn replayed(inspection: &Inspection) -> Result<u64, Error> {
    let mut next = None;
    let stats = inspection.replay(Range::ALL, |entry| {
        assert!(next.is_none_or(|next| entry.seq == next));
        next = Some(Seq(entry.seq.0 + 1));
        ControlFlow::Continue(())
    })?;
    Ok(stats.entries)
}

#[test]
fn purges_between_any_two_operations_of_a_reader_are_never_taken_for_damage() {
    let path = Path::new("/log");
    let world = Purging::new();
    let mut purged = 0;
    for purges in [1, 2, 3, 20, 150] {
        let mut first = 0;
        loop {
            let context = format!("{purges} purges from operation {first} on");
            let mut more = false;
            for read in [Inspection::read, Inspection::read_headers] {
                let (found, is_met) = world.read(first, purges, |options| {
                    let inspection = read(path, options).expect(&context);
                    let status = &inspection.report().status;
                    assert!(!matches!(status, Status::Corrupt(_)), "{context}: {status:?}");
                    inspection.measure().expect(&context);
                    replayed(&inspection)
                });
                assert!(is_honest(&found), "{context}: {found:?}");
                purged += u64::from(found.is_err());
                more |= is_met;
            }
            let (found, is_met) = world.read(first, purges, |options| {
                bulla_recovery::replay(path, options, .., |_| ControlFlow::Continue(()))
            });
            assert!(is_honest(&found), "{context}: {found:?}");
            more |= is_met;
            let (found, is_met) = world.read(first, purges, |options| {
                let io = Arc::clone(&options.io);
                let mut reader = Reader::open(io, path, .., Visibility::Durable).expect(&context);
                loop {
                    match reader.next() {
                        Ok(Some(_)) => {}
                        Ok(None) => return Ok(()),
                        Err(error) => return Err(error),
                    }
                }
            });
            assert!(is_honest(&found), "{context}: {found:?}");
            more |= is_met;
            if !more {
                break;
            }
            first += 1;
        }
        assert!(first > 15, "{first}");
    }
    assert!(purged > 0, "no replay met a purge");
    drop(world.disk);
}

#[test]
fn store_that_purges_all_the_time_is_never_taken_for_a_damaged_one() {
    let dir = temp_dir("purging-store");
    let path = dir.path().join("store");
    let options = StoreOptions::new().log(small());
    let store = Store::open(&path, &options).unwrap();
    let token = |id| Token::builder(TokenId(id)).build().unwrap();
    let (ended, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                (1..200).for_each(|id| store.at(Level::Balanced).put(&token(id)).unwrap());
                store.checkpoint().unwrap();
                taken.fetch_add(1, Ordering::Relaxed);
            }
        });
        // From the third one on each lets a part of the log go.
        while taken.load(Ordering::Relaxed) < 3 {
            std::thread::yield_now();
        }
        for _ in 0..READS {
            let inspection = StoreInspection::<Token>::read(&path, &small()).unwrap();
            assert!(!matches!(inspection.report().status, Status::Corrupt(_)));
            assert_eq!(inspection.len(), 199);
        }
        ended.store(true, Ordering::Relaxed);
    });
    assert!(taken.into_inner() > 30, "no checkpoint met a read");
}

#[test]
fn segment_that_is_missing_is_reported_although_the_log_is_purged() {
    /// Segments that stay.
    const KEPT: u64 = 8;
    let dir = temp_dir("missing");
    let path = dir.path().join("log");
    let log = Log::create(&path, &small()).unwrap();
    let (mut starts, mut last) = (vec![Lsn(0)], 0);
    while starts.len() < 150 {
        let receipt = log.append_with(1, &PAYLOAD, Level::Balanced).unwrap();
        log.wait(receipt).unwrap();
        let count = std::fs::read_dir(&path).unwrap().count();
        if count > last {
            starts.push(receipt.lsn);
        }
        last = count;
    }
    log.sync().unwrap();
    let listed = Inspection::read_headers(&path, &small()).unwrap();
    let missing = SegmentNumber(listed.segments().last().unwrap().number.0 - KEPT);
    std::fs::remove_file(segment_path(&path, missing)).unwrap();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for start in &starts[..starts.len() - KEPT as usize - 8] {
                log.purge(*start).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            ended.store(true, Ordering::Relaxed);
        });
        let mut reads = 0;
        while !ended.load(Ordering::Relaxed) || reads < 20 {
            for read in [Inspection::read, Inspection::read_headers] {
                let inspection = read(&path, &small()).unwrap();
                let Status::Corrupt(fault) = &inspection.report().status else {
                    panic!("{:?}", inspection.report());
                };
                let found = (fault.kind, fault.segment);
                assert_eq!(found, (CorruptionKind::SegmentMissing, Some(missing)));
            }
            let refused = Reader::open(small().io, &path, .., Visibility::Durable).unwrap_err();
            assert_eq!(refused.corruption().unwrap().segment, Some(missing), "{refused:?}");
            // What follows is whole.
            let Error::Gap { whole_from, .. } = refused else { panic!("{refused:?}") };
            let from = Position::from(whole_from);
            let mut reader = Reader::open(small().io, &path, from, Visibility::Durable).unwrap();
            let entry = reader.next().unwrap().unwrap();
            assert_eq!(entry.lsn, whole_from.plus(FRAME_HEADER_LEN));
            reads += 1;
        }
    });
    assert!(log.low_water() > Lsn(0));
}
