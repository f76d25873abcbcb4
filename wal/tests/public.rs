//! What the public face says: refusals of options and directories, words and names.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bulla_storage::files::dir;
use bulla_storage::format::LogId;
use bulla_storage::io::sim::{ByPath, FaultOp, SimDisk};
use bulla_wal::{
    CorruptionKind, Error, Level, Log, Method, Options, PoisonCause, Position, Reader,
    SegmentNumber, Visibility,
};

use crate::common::{DIR, options};

#[test]
fn option_out_of_its_range_is_refused_by_its_name() {
    let small = || Options::new().ring_len(16 * 1024).segment_len(16 * 1024).sector(512);
    let ms = Duration::from_millis;
    let refused = [
        ("sector", small().sector(0)),
        ("sector", small().sector(768)),
        ("sector", small().sector(32 * 1024)),
        ("segment_len", small().segment_len(16 * 1024 - 512)),
        ("segment_len", small().segment_len(16 * 1024 + 1)),
        ("ring_len", small().ring_len(8 * 1024)),
        ("ring_len", small().ring_len(24 * 1024)),
        ("ring_len", small().ring_len(512 * 1024 * 1024)),
        ("max_frame_len", small().max_frame_len(64)),
        ("depth", small().depth(0)),
        ("depth", small().depth(1025)),
        ("flush_interval", small().flush_interval(Duration::ZERO)),
        ("flush_interval", small().flush_interval(ms(21)).balanced_interval(ms(20))),
        ("balanced_entries", small().balanced_entries(0)),
        ("balanced_max_unsynced", small().balanced_max_unsynced(4095)),
    ];
    for (name, options) in refused {
        let error = options.checked(options.sector).map(drop).unwrap_err();
        assert!(
            matches!(error, Error::Options { option, .. } if option == name),
            "{name}: {error}"
        );
    }
    let edges = [
        small().sector(16 * 1024).segment_len(64 * 1024).ring_len(256 * 1024),
        small().ring_len(256 * 1024 * 1024),
        small().depth(1),
        small().depth(1024),
        small().flush_interval(ms(20)).balanced_interval(ms(20)),
        small().balanced_entries(1),
        small().balanced_max_unsynced(4096),
    ];
    for options in edges {
        let _ = options.checked(options.sector).unwrap();
    }
}

#[test]
fn log_is_made_neither_over_another_nor_over_segments_without_control() {
    let disk = SimDisk::new(1);
    let log = Log::create(Path::new(DIR), &options(&disk)).unwrap();
    log.close().unwrap();
    let again = Log::create(Path::new(DIR), &options(&disk)).map(drop).unwrap_err();
    assert!(matches!(&again, Error::AlreadyExists { path } if path == Path::new(DIR)), "{again}");
    options(&disk).io.unlink(&Path::new(DIR).join(dir::CONTROL)).unwrap();
    let files = disk.paths();
    let over = Log::create(Path::new(DIR), &options(&disk)).map(drop).unwrap_err();
    assert_eq!(kind(&over), Some((CorruptionKind::ControlMissing, Some(SegmentNumber(1)))));
    assert_eq!(disk.paths(), files, "nothing is made");
}

#[test]
fn reader_says_which_segment_is_missing_or_not_its_own() {
    let made = |seed| {
        let disk = SimDisk::new(seed);
        let log = Log::create(Path::new(DIR), &options(&disk)).unwrap();
        for _ in 0..24 {
            let receipt = log.append_with(1, &[5; 2000], Level::Strict).unwrap();
            log.wait(receipt).unwrap();
        }
        log.close().unwrap();
        disk
    };
    let segment = |number| dir::segment_path(Path::new(DIR), SegmentNumber(number));
    let read = |disk: &SimDisk| {
        let io = Arc::clone(&options(disk).io);
        let error = Reader::open(io, Path::new(DIR), Position::Start, Visibility::Durable);
        kind(&error.map(drop).unwrap_err())
    };
    let other = made(2);

    let disk = made(1);
    options(&disk).io.unlink(&segment(2)).unwrap();
    assert_eq!(read(&disk), Some((CorruptionKind::SegmentMissing, Some(SegmentNumber(2)))));

    let disk = made(1);
    disk.write_file(segment(2), &other.read_file(segment(2)));
    assert_eq!(read(&disk), Some((CorruptionKind::ForeignSegment, Some(SegmentNumber(2)))));

    let disk = made(1);
    disk.write_file(segment(2), &disk.read_file(segment(3)));
    assert_eq!(read(&disk), Some((CorruptionKind::SegmentNumber, Some(SegmentNumber(2)))));

    let disk = made(1);
    for path in disk.paths().iter().filter(|path| path.extension().is_some()) {
        options(&disk).io.unlink(path).unwrap();
    }
    assert_eq!(read(&disk), Some((CorruptionKind::SegmentMissing, Some(SegmentNumber(1)))));
}

fn kind(error: &Error) -> Option<(CorruptionKind, Option<SegmentNumber>)> {
    // Of a log that is whole above the damage, too.
    error.corruption().map(|corruption| (corruption.kind, corruption.segment))
}

#[test]
fn entry_of_the_greatest_length_fits_and_one_byte_more_is_too_large() {
    let disk = SimDisk::new(1);
    let log = Log::create(Path::new(DIR), &options(&disk)).unwrap();
    let max = log.max_entry_len();
    let payload = vec![7; usize::try_from(max).unwrap() + 1];
    let refused = log.append_with(1, &payload, Level::Strict).map(drop).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { max: said, .. } if said == max + 8), "{refused}");
    let receipt = log.append_with(1, &payload[1..], Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    let _ = log.append_batch(&[(1, b"one"), (2, b"three")], Level::Relaxed).unwrap();
    assert_eq!((log.stats().entries, log.stats().payload_bytes), (3, max + 8));
}

#[test]
fn log_id_reads_as_a_uuid() {
    let id = LogId(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\xfe\xdc\xba\x98\x76\x54\x32\x10");
    assert_eq!(id.to_string(), "01234567-89ab-cdef-fedc-ba9876543210");
    assert_eq!(format!("{id:?}"), id.to_string());
}

#[test]
fn log_says_where_it_is_and_how_far() {
    let disk = SimDisk::new(1);
    let log = Log::create(Path::new(DIR), &options(&disk)).unwrap();
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    let words = format!("{log:?}");
    for part in [DIR, &log.log_id().to_string(), &format!("{:?}", log.durable())] {
        assert!(words.contains(part), "{words} does not say {part}");
    }
    assert_eq!(log.ring_len(), 16 * 1024);
}

/// Fills the first segment and begins the second one, whose sync fails. Returns the segment that
/// the error names, and whether the first one was not durable by then either.
fn failed_sync_of_the_second_segment(seed: u64) -> (SegmentNumber, bool) {
    let disk = SimDisk::new(seed);
    let options = options(&disk).method(Method::Buffered).depth(4);
    let log = Log::create(Path::new(DIR), &options).expect("a new log");
    let second = dir::segment_path(Path::new(DIR), SegmentNumber(2));
    // One frame to each entry; those of the first segment take 15 KiB.
    let frame = [7; 1500];
    let append = |level| log.append_with(0, &frame, level).expect("there is room");
    let mut first = append(Level::Balanced).lsn;
    (1..9).for_each(|_| first = append(Level::Balanced).lsn);
    while !disk.paths().contains(&second) {
        log.step();
    }
    disk.fail_next(FaultOp::Sync, std::io::ErrorKind::Other, "2.seg", 0);
    let last = append(Level::Strict);
    match log.wait(last) {
        Err(Error::Poisoned { durable, cause }) => match *cause {
            PoisonCause::Segment { operation: "sync", segment, .. } => (segment, durable <= first),
            ref other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn failed_sync_names_its_own_segment_though_the_one_before_is_unsynced_too() {
    let failed: Vec<_> = (0..64).map(failed_sync_of_the_second_segment).collect();
    assert!(failed.iter().any(|(_, two_unsynced)| *two_unsynced), "the first one was synced");
    let wrong = failed.iter().position(|(segment, _)| *segment != SegmentNumber(2));
    assert_eq!(wrong, None, "the seed with which another segment is named");
}
