//! What a log on the simulated disk leaves in its files, and what it counts of that.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_storage::files::dir;
use bulla_storage::format::{Frame, FrameKind, Header};
use bulla_storage::io::sim::{FaultOp, SimDisk};
use bulla_wal::{
    Error, Level, Log, Lsn, Method, Options, PoisonCause, Position, Reader, SegmentNumber,
    Visibility,
};

use crate::common::{self, DIR};

const SECTOR: u32 = 512;
const SEGMENT: usize = 16 * 1024;
/// An entry of it makes a frame of one sector.
const PAYLOAD: [u8; 100] = [5; 100];

fn options(disk: &SimDisk) -> Options {
    common::options(disk).idle_mark(Duration::from_secs(3600))
}

fn create(disk: &SimDisk) -> Log {
    Log::create(Path::new(DIR), &options(disk)).expect("a new log")
}

fn commit(log: &Log) {
    let receipt = log.append_with(1, &PAYLOAD, Level::Strict).expect("room");
    log.wait(receipt).expect("a disk that works");
}

fn segment(disk: &SimDisk, number: u64) -> Vec<u8> {
    disk.read_file(dir::segment_path(Path::new(DIR), SegmentNumber(number)))
}

/// The kind of the frame in each sector after the header, as far as there are any.
fn frames(segment: &[u8]) -> Vec<FrameKind> {
    let header = Header::decode(segment).expect("a header");
    let frame = |bytes: &[u8]| Frame::decode(bytes, header.seed(), header.epoch, SECTOR);
    let sectors = segment.chunks(SECTOR as usize).skip(1);
    sectors.map_while(|bytes| Some(frame(bytes).ok()?.0.kind)).collect()
}

#[test]
fn segment_is_filled_with_frames_and_its_seal_and_its_successor_names_it() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    disk.advance(1_000_000_000);
    let made = options(&disk).io.wall_ns();
    while log.stats().rotations < 3 {
        commit(&log);
    }
    let in_segment = SEGMENT / SECTOR as usize - 2;
    for number in 1..=3 {
        let bytes = segment(&disk, number);
        assert_eq!(bytes.len(), SEGMENT, "segment {number}");
        let mut expected = vec![FrameKind::Data; in_segment];
        expected.push(FrameKind::SegmentEnd);
        assert_eq!(frames(&bytes), expected, "segment {number}");
    }
    assert_eq!((segment(&disk, 4).len(), frames(&segment(&disk, 4)).len()), (SEGMENT, 1));
    let headers = [1, 2, 3].map(|number| Header::decode(&segment(&disk, number)).unwrap());
    for pair in headers.windows(2) {
        assert_eq!(pair[1].number, pair[0].number.next());
        assert_eq!((pair[1].nonce, pair[1].previous_nonce), (pair[0].nonce, pair[0].nonce));
        assert!(pair[1].wall_ns >= made && pair[1].epoch_start.is_none(), "{:?}", pair[1]);
    }
}

#[test]
fn closed_log_ends_where_its_frames_do_and_its_spare_after_its_header() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    (0..40).for_each(|_| commit(&log));
    log.close().unwrap();
    let in_first = SEGMENT / SECTOR as usize - 2;
    let last = segment(&disk, 2);
    let mut expected = vec![FrameKind::Data; 40 - in_first];
    expected.push(FrameKind::CleanShutdown);
    assert_eq!(frames(&last), expected);
    assert_eq!(last.len(), (1 + expected.len()) * SECTOR as usize);
    assert_eq!(segment(&disk, 3).len(), SECTOR as usize);
}

#[test]
fn what_was_appended_at_any_level_is_read_back_in_order() {
    for method in [Method::Direct, Method::Buffered] {
        let disk = SimDisk::new(1);
        disk.configure(|config| config.short_write_ppm = 200_000);
        let log = Log::create(Path::new(DIR), &options(&disk).method(method)).unwrap();
        let payload = |number: u16| number.to_le_bytes().repeat(usize::from(number) * 7 % 900 + 1);
        for number in 0..200 {
            let level = Level::ALL[usize::from(number) % 3];
            let receipt = log.append_with(number, &payload(number), level).unwrap();
            assert_eq!(receipt.seq.0, u64::from(number) + 1);
            log.wait(receipt).unwrap();
        }
        log.close().unwrap();
        let io = Arc::clone(&options(&disk).io);
        let mut reader =
            Reader::open(io, Path::new(DIR), Position::Start, Visibility::Durable).unwrap();
        for number in 0..200 {
            let entry = reader.next().unwrap().expect("durable");
            assert_eq!((entry.kind, entry.payload), (number, &payload(number)[..]), "{method:?}");
        }
        assert!(reader.next().unwrap().is_none());
    }
}

#[test]
fn counters_say_what_was_done() {
    for (method, dsync_writes, syncs) in [(Method::Direct, 5, 0), (Method::Buffered, 0, 5)] {
        let disk = SimDisk::new(1);
        let log = Log::create(Path::new(DIR), &options(&disk).method(method)).unwrap();
        (0..5).for_each(|_| commit(&log));
        assert_eq!((log.written(), log.durable(), log.end()), (Lsn(2560), Lsn(2560), Lsn(2560)));
        let stats = log.stats();
        assert_eq!((stats.frames, stats.writes, stats.written_bytes), (5, 5, 5 * 512));
        assert_eq!((stats.dsync_writes, stats.syncs), (dsync_writes, syncs), "{method:?}");
        assert_eq!((stats.group_size.count, stats.group_size.max), (5, 1));
        assert_eq!((stats.commit_latency_ns.count, stats.short_writes), (5, 0));
        // A durable mark is a frame, and no group.
        log.persist_durable_mark(log.end()).unwrap();
        let stats = log.stats();
        assert_eq!((stats.frames, stats.group_size.count), (6, 5));
        assert_eq!((stats.rotations, stats.reserved_rotations), (0, 0));
    }
}

#[test]
fn log_goes_on_once_there_is_space_for_a_segment() {
    let disk = SimDisk::new(1);
    let log = create(&disk);
    disk.fail_next(FaultOp::Create, std::io::ErrorKind::StorageFull, "", 0);
    let mut refused = 0;
    while log.stats().rotations < 2 {
        match log.append_with(1, &PAYLOAD, Level::Strict) {
            Ok(receipt) => log.wait(receipt).unwrap(),
            Err(error) => {
                assert!(matches!(error, bulla_wal::Error::NoSpace(_)), "{error}");
                refused += 1;
                assert!(refused < 10, "it is not tried again");
            }
        }
    }
}

/// A segment is made when the one before it begins.
#[test]
fn segment_is_zeroed_ahead_where_commits_were_small_in_the_last_but_one_before_it() {
    let disk = SimDisk::new(1);
    let log = Log::create(Path::new(DIR), &options(&disk).zeros_pay_below(600)).unwrap();
    let fill = |payload: &[u8], rotations| {
        while log.stats().rotations < rotations {
            log.wait(log.append_with(1, payload, Level::Strict).unwrap()).unwrap();
        }
        log.stats().reserved_rotations
    };
    // A sector per commit, two, and one again.
    assert_eq!(fill(&PAYLOAD, 2), 0);
    assert_eq!(fill(&[5; 600], 4), 1, "the fifth segment");
    assert_eq!(fill(&PAYLOAD, 7), 2, "and the sixth");
}

/// Appends until an error, which comes within a few segments.
fn until_error(log: &Log) -> Error {
    for _ in 0..1_000 {
        match log.append_with(1, &PAYLOAD, Level::Strict) {
            Ok(receipt) => match log.wait(receipt) {
                Ok(()) => {}
                Err(error) => return error,
            },
            Err(error) => return error,
        }
    }
    panic!("no append failed")
}

#[test]
fn segment_that_cannot_be_made_says_why_and_only_lack_of_space_is_no_space() {
    use std::io::ErrorKind;
    for (op, kind, is_space) in [
        (FaultOp::Create, ErrorKind::StorageFull, true),
        (FaultOp::Preallocate, ErrorKind::StorageFull, true),
        (FaultOp::Create, ErrorKind::QuotaExceeded, true),
        (FaultOp::Create, ErrorKind::NotFound, false),
        (FaultOp::Create, ErrorKind::PermissionDenied, false),
        (FaultOp::Create, ErrorKind::ReadOnlyFilesystem, false),
        (FaultOp::Preallocate, ErrorKind::FileTooLarge, false),
        (FaultOp::Rename, ErrorKind::Other, false),
    ] {
        let disk = SimDisk::new(1);
        let log = create(&disk);
        // As often as it is tried, until the faults are cleared.
        for _ in 0..20 {
            disk.fail_next(op, kind, ".seg", 0);
        }
        let cause = match (until_error(&log), is_space) {
            (Error::NoSpace(cause), true) | (Error::NoSegment(cause), false) => cause,
            (error, _) => panic!("{op:?} {kind:?}: {error:?}"),
        };
        assert!(matches!(&*cause, Error::Io { source, .. } if source.kind() == kind), "{cause:?}");
        disk.clear_faults();
        let _ = log.append_with(1, &PAYLOAD, Level::Strict).expect("it is tried again");
        log.close().unwrap();
    }
}

#[test]
fn sync_of_a_spare_or_of_its_name_that_fails_poisons_the_log_and_is_not_tried_again() {
    for op in [FaultOp::Sync, FaultOp::SyncDir] {
        let disk = SimDisk::new(1);
        let log = create(&disk);
        let filter = if op == FaultOp::Sync { ".seg.tmp" } else { "" };
        disk.fail_next(op, std::io::ErrorKind::Other, filter, 0);
        let error = until_error(&log);
        let Error::Poisoned { cause, .. } = &error else { panic!("{op:?}: {error:?}") };
        assert!(matches!(&**cause, PoisonCause::Spare { operation: "sync", .. }), "{cause:?}");
        let syncs = disk.counts();
        assert!(matches!(log.append(&PAYLOAD), Err(Error::Poisoned { .. })));
        assert!(log.close().is_err());
        let now = disk.counts();
        assert_eq!(
            (now.dir_syncs, now.syncs, now.creates),
            (syncs.dir_syncs, syncs.syncs, syncs.creates),
            "nothing is synced again"
        );
    }
}
