//! Replay of a log on the real disk, where several threads read ahead.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bulla_recovery::{Error, Inspection, Range, Recovery};
use bulla_storage::files::dir::segment_path;
use bulla_storage::io::sim::SimDisk;
use bulla_storage::io::std::StdIo;
use bulla_tests::temp_dir;
use bulla_tests::wrap::WrapIo;
use bulla_wal::{CorruptionKind, Level, Log, Method, Options, Receipt, SegmentNumber, Seq};

fn options() -> Options {
    Options::new().io(Arc::new(StdIo::new())).segment_len(8 << 20)
}

/// What entry `seq` holds.
fn payload(seq: u64) -> Vec<u8> {
    let len = if seq.is_multiple_of(5_000) { 300_000 } else { 8 + seq % 90 };
    let mut payload = vec![seq as u8; len as usize];
    payload[..8].copy_from_slice(&seq.to_le_bytes());
    payload
}

/// A closed log of some segments, with frames of one entry up to 1 MiB.
fn filled(dir: &Path) -> u64 {
    let log = Log::create(dir, &options()).unwrap();
    let count = 250_000;
    for seq in 1..=count {
        let receipt = log.append_with(1, &payload(seq), Level::Relaxed).unwrap();
        assert_eq!(receipt.seq, Seq(seq));
        if seq % 100_000 < 200 {
            log.sync().unwrap();
        }
    }
    log.close().unwrap();
    count
}

/// The number of entries that a replay gives, in order, from `first` on; then how it ended.
fn replayed(inspection: &Inspection, range: Range, first: u64) -> (u64, Result<(), Error>) {
    let mut next = first;
    let result = inspection.replay(range, |entry| {
        assert_eq!((entry.seq.0, entry.payload), (next, &payload(next)[..]));
        next += 1;
        ControlFlow::Continue(())
    });
    (next - first, result.map(|stats| assert_eq!(stats.entries, next - first)))
}

#[test]
fn every_entry_is_given_in_order_and_no_further_than_asked() {
    let temp = temp_dir("replay");
    let dir = temp.path().join("log");
    let count = filled(&dir);
    for method in [Method::Direct, Method::Buffered] {
        let inspection = Inspection::read(&dir, &options().method(method)).unwrap();
        assert!(inspection.segments().len() > 3);
        let (found, result) = replayed(&inspection, Range::ALL, 1);
        result.unwrap();
        assert_eq!(found, count);
        for (from, to) in [(1, 2), (70_000, 190_001), (count, count + 1), (99_999, 99_999)] {
            let range = Range::from(Seq(from)..Seq(to));
            let (found, result) = replayed(&inspection, range, from);
            result.unwrap();
            assert_eq!(found, to - from);
        }
        for stop in [1, 77_777, 200_000, count] {
            let stats = inspection.replay(Range::ALL, |entry| match entry.seq.0 == stop {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            });
            let stats = stats.unwrap();
            assert_eq!((stats.entries, stats.stopped), (stop, true));
        }
    }
}

#[test]
fn damage_comes_after_all_entries_before_it_and_says_where_it_is() {
    let temp = temp_dir("replay");
    let dir = temp.path().join("log");
    let count = filled(&dir);
    let inspection = Inspection::read(&dir, &options()).unwrap();
    let sector = u64::from(inspection.report().sector);
    for segment in inspection.segments().iter().filter(|segment| segment.entries > 0) {
        let path = segment_path(&dir, segment.number);
        let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let (from, to) = segment.live.unwrap();
        let live = to.distance_from(from);
        for part in 0..4 {
            let offset = sector + (live / 4 * part + 1001 * part) % live;
            let mut byte = [0];
            file.read_exact_at(&mut byte, offset).unwrap();
            file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
            let (found, result) = replayed(&inspection, Range::ALL, 1);
            file.write_all_at(&byte, offset).unwrap();
            let error = result.expect_err("every byte of a frame is covered by a CRC");
            let corruption = error.corruption().unwrap_or_else(|| panic!("{error}"));
            assert!(matches!(corruption.kind, CorruptionKind::Frame(_)), "{error}");
            assert_eq!(corruption.segment, Some(segment.number));
            let frame = corruption.offset.unwrap();
            assert!(frame <= offset && offset < frame + (2 << 20));
            assert!(found < count);
        }
        // A file that was cut short.
        let len = file.metadata().unwrap().len();
        let bytes = fs::read(&path).unwrap();
        file.set_len(sector + live / 2).unwrap();
        let (found, result) = replayed(&inspection, Range::ALL, 1);
        fs::write(&path, bytes).unwrap();
        assert_eq!(file.metadata().unwrap().len(), len);
        let corruption = result.expect_err("cut short").corruption().cloned().unwrap();
        assert_eq!((corruption.segment, found < count), (Some(segment.number), true));
    }
}

#[test]
fn visitor_that_panics_ends_the_replay() {
    let temp = temp_dir("replay");
    let dir = temp.path().join("log");
    filled(&dir);
    let inspection = Inspection::read(&dir, &options()).unwrap();
    let result = catch_unwind(AssertUnwindSafe(|| {
        inspection.replay(Range::ALL, |entry| {
            assert!(entry.seq.0 < 1000, "the visitor's own");
            ControlFlow::Continue(())
        })
    }));
    assert!(result.is_err());
}

/// A page of such a segment in the cache would fail the writer's next sync.
#[test]
fn look_beside_a_writer_leaves_what_it_may_write_out_of_the_page_cache() {
    let disk = SimDisk::new(3);
    let dir = Path::new("/log");
    let options = Options::new().segment_len(16 * 1024).ring_len(16 * 1024).sector(512);
    let log = Log::create(dir, &options.clone().manual().io(disk.process())).unwrap();
    for _ in 0..300 {
        let receipt = log.append_with(1, &[7; 200], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    let (io, knobs) = WrapIo::over(disk.process());
    let options = options.io(io);
    let path = |number| segment_path(dir, number);
    let inspection = Inspection::read(dir, &options).unwrap();
    let cached = knobs.read_cached();
    let segments = inspection.segments();
    let (older, last) = segments.split_at(segments.len() - 3);
    assert!(older.iter().all(|segment| cached.contains(&path(segment.number))));
    assert!(last.iter().all(|segment| !cached.contains(&path(segment.number))));
    let go_on = |_: &bulla_recovery::EntryView<'_>| ControlFlow::Continue(());
    let after_the_look = || inspection.replay(Range::ALL, go_on);
    let in_one_pass = || bulla_recovery::replay(dir, &options, Range::ALL, go_on);
    for replay in [&after_the_look as &dyn Fn() -> _, &in_one_pass] {
        assert_eq!(replay().unwrap().entries, 300);
        let cached = knobs.read_cached();
        for segment in segments {
            assert_eq!(cached.contains(&path(segment.number)), segment.seal.is_some());
        }
    }
    drop(log);
    // Recovery holds the lock. What it goes on in may be written while it is replayed.
    let recovery = Recovery::run(dir, &options).unwrap();
    knobs.read_cached();
    let newest = recovery.report().segments.last().unwrap().number.next();
    recovery.replay(Range::ALL, |_| ControlFlow::Continue(())).unwrap();
    let cached = knobs.read_cached();
    assert!(!cached.contains(&path(newest)));
    assert!(older.iter().all(|segment| cached.contains(&path(segment.number))));
}

#[test]
fn log_that_was_closed_is_looked_at_through_the_page_cache() {
    let disk = SimDisk::new(4);
    let dir = Path::new("/log");
    let options = Options::new().segment_len(16 * 1024).ring_len(16 * 1024).sector(512);
    let log = Log::create(dir, &options.clone().manual().io(disk.process())).unwrap();
    let append = |log: &Log| log.wait(log.append_with(1, &[7; 200], Level::Strict).unwrap());
    append(&log).unwrap();
    log.close().unwrap();
    let (io, knobs) = WrapIo::over(disk.process());
    let options = options.io(io);
    let inspection = Inspection::read(dir, &options).unwrap();
    let cached = knobs.read_cached();
    assert!(inspection.segments().iter().all(|s| cached.contains(&segment_path(dir, s.number))));
    // A writer that goes on does so in a new one.
    let recovered = bulla_recovery::open(dir, &options.clone().manual()).unwrap().0;
    let log = Log::start(recovered).unwrap();
    append(&log).unwrap();
    knobs.read_cached();
    let inspection = Inspection::read(dir, &options).unwrap();
    let cached = knobs.read_cached();
    let written = inspection.segments().iter().filter(|s| s.epoch == Some(log.epoch()));
    assert!(written.clone().count() > 0);
    assert!(written.map(|s| s.number).all(|number| !cached.contains(&segment_path(dir, number))));
}

/// A page that a write could not replace keeps what the file had before. Its sync failed.
#[test]
fn end_of_a_log_is_read_from_the_disk() {
    let disk = SimDisk::new(3);
    let dir = Path::new("/log");
    let options = Options::new().segment_len(64 * 1024).ring_len(16 * 1024).sector(512);
    let log = Log::create(dir, &options.clone().manual().io(disk.process())).unwrap();
    let append = |count| {
        for _ in 0..count {
            let receipt = log.append_with(1, &[7; 200], Level::Strict).unwrap();
            log.wait(receipt).unwrap();
        }
    };
    append(5);
    let (path, stale) = (segment_path(dir, SegmentNumber(1)), Path::new("/stale"));
    disk.write_file(stale, &disk.read_file(&path));
    append(5);
    disk.kill();
    drop(log);
    let (io, knobs) = WrapIo::over(disk.process());
    *knobs.stale.lock().unwrap() = Some((path, stale.to_owned()));
    let options = options.io(io);
    let inspection = Inspection::read(dir, &options).unwrap();
    let given = |entry: &bulla_recovery::EntryView<'_>| {
        assert_eq!(entry.payload, [7; 200]);
        ControlFlow::Continue(())
    };
    assert_eq!(inspection.replay(Range::ALL, given).unwrap().entries, 10);
    assert_eq!(bulla_recovery::replay(dir, &options, Range::ALL, given).unwrap().entries, 10);
    let recovery = Recovery::run(dir, &options).unwrap();
    assert_eq!(recovery.report().entries, 10);
    assert_eq!(recovery.replay(Range::ALL, given).unwrap().entries, 10);
}

#[test]
fn look_at_a_log_that_is_purged_meanwhile_is_not_disturbed() {
    let temp = temp_dir("purged-meanwhile");
    let dir = temp.path().join("log");
    let log = Log::create(&dir, &options().segment_len(64 << 10).ring_len(64 << 10)).unwrap();
    let append = |_| log.append_with(1, &[7; 4_000], Level::Relaxed).unwrap();
    let receipts: Vec<Receipt> = (0..400).map(append).collect();
    log.sync().unwrap();
    let last = (receipts[399].lsn, receipts[399].seq);
    let log = Arc::new(log);
    let (io, knobs) = WrapIo::new(StdIo::new());
    let looking = Options::new().io(io);
    for round in 0..10 {
        let (purger, reads, upto) =
            (Arc::clone(&log), AtomicUsize::new(0), receipts[35 * round + 40].lsn);
        knobs.meddle.by(Some(Arc::new(move |path: &Path| {
            let is_segment = path.extension().is_some_and(|extension| extension == "seg");
            if is_segment && reads.fetch_add(1, Ordering::Relaxed) == round % 2 {
                purger.purge(upto).unwrap();
            }
        })));
        let inspection = Inspection::read(&dir, &looking).unwrap();
        assert!(inspection.report().first_lsn <= log.low_water(), "{round}");
        assert_eq!(inspection.report().last_entry, Some(last), "{round}");
    }
    assert!(log.low_water() > receipts[330].lsn, "each round has purged");
}
