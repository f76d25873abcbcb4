//! The parts of an append and of a replay, each alone, for 64-byte entries.
//!
//! Run: `cargo bench -p bulla-benches`; the log is in the system's temporary directory.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use bulla_storage::format::{
    ENTRY_HEADER_LEN, Entries, FRAME_HEADER_BYTES, Frame, FrameKind, LogId, Seed,
};
use bulla_wal::{Epoch, Level, Log, Lsn, Options, SegmentNumber, Seq};
use criterion::{Criterion, Throughput};

const PAYLOAD: usize = 64;
const ENTRIES: u32 = 14_000;
const SECTOR: u32 = 4096;
/// Appends between two writes, which are not timed: less than the ring has room for.
const APPENDS: u64 = 10_000;

fn seed() -> Seed {
    Seed::new(LogId([7; 16]), SegmentNumber(1), Epoch(1), 5)
}

/// A frame of about 1 MiB, and its body.
fn frame() -> (Frame, Vec<u8>) {
    let mut entry = vec![0; ENTRY_HEADER_LEN as usize];
    entry[0] = PAYLOAD as u8;
    entry[4] = 1;
    entry.resize(entry.len() + PAYLOAD, 7);
    let body = entry.repeat(ENTRIES as usize);
    let frame = Frame {
        kind: FrameKind::Data,
        body_len: body.len() as u32,
        body_crc: seed().body_crc(&[&body]),
        lsn: Lsn(0),
        durable_lsn: Lsn(0),
        first_seq: Seq(1),
        entry_count: ENTRIES,
        epoch: Epoch(1),
        wall_ns: 1,
        prev_crc: 0,
    };
    (frame, body)
}

fn frames(c: &mut Criterion) {
    let (frame, body) = frame();
    let (mut sector, _) = frame.encode(seed());
    c.bench_function("frame header, encode", |b| b.iter(|| black_box(&frame).encode(seed())));
    c.bench_function("frame header, decode", |b| {
        b.iter(|| Frame::decode(black_box(&sector), seed(), Epoch(1), SECTOR).is_ok());
    });
    assert!(Frame::decode(&sector, seed(), Epoch(1), SECTOR).is_ok());
    sector[FRAME_HEADER_BYTES - 1] ^= 1;
    assert!(Frame::decode(&sector, seed(), Epoch(1), SECTOR).is_err());

    let mut group = c.benchmark_group("body of 1 MiB");
    group.throughput(Throughput::Elements(u64::from(ENTRIES)));
    group.bench_function("CRC", |b| b.iter(|| seed().body_crc(&[black_box(&body)])));
    group.bench_function("entries", |b| {
        b.iter(|| {
            let entries = Entries::new(&frame, black_box(&body)).map_while(Result::ok);
            let (count, sum) = entries
                .fold((0, 0), |(count, sum), entry| (count + 1, sum + u64::from(entry.payload[0])));
            assert_eq!(count, ENTRIES);
            sum
        });
    });
    group.finish();
}

/// Appends in memory: nothing is written while the time runs.
fn timed_appends(log: &Log, count: u64) -> Result<Duration, Box<dyn Error>> {
    let payload = [7; PAYLOAD];
    let (mut left, mut time) = (count, Duration::ZERO);
    while left > 0 {
        let now = left.min(APPENDS);
        let start = Instant::now();
        for _ in 0..now {
            let _ = black_box(log.append_with(1, &payload, Level::Relaxed)?);
        }
        time += start.elapsed();
        log.sync()?;
        left -= now;
    }
    Ok(time)
}

fn append(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let log = Log::create(dir.path(), &Options::new().manual()).expect("a log in it");
    // The ring goes round first, so that no append is the first to touch its memory.
    timed_appends(&log, 1_000_000).expect("append");
    let mut group = c.benchmark_group("append");
    // Each second of it would write gigabytes.
    group.warm_up_time(Duration::from_millis(20)).measurement_time(Duration::from_millis(100));
    group.bench_function("in memory", |b| {
        b.iter_custom(|count| timed_appends(&log, count).expect("append"));
    });
    group.finish();
    log.close().expect("close");
}

fn main() {
    let mut c = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .configure_from_args();
    frames(&mut c);
    append(&mut c);
    c.final_summary();
}
