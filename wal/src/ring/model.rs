//! Every interleaving (within a preemption bound) of small programs on the ring alone. Loom
//! also sees each access to the ring's memory: a byte that is read while it is written fails
//! the model.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p bulla-wal --release --lib model`
//! `LOOM_MAX_PREEMPTIONS` (default here: 3) bounds the search.

use super::*;
use crate::faults::Ring;
use crate::sync::{AtomicU64, Ordering};
use bulla_storage::Epoch;
use bulla_storage::faults::mutants::{Mutant, models};
use bulla_storage::format::LogId;
use loom::thread;

const SECTOR: u64 = 512;

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    models::plant_what_is_asked_for();
    builder.check(run);
}

fn ring(max_frame: u64) -> Arc<Ring> {
    let options = Options::new()
        .sector(512)
        .segment_len(1 << 20)
        .ring_len(16 * 1024)
        .max_frame_len(max_frame);
    let (segment, base) = (SegmentNumber(1), Lsn(0));
    let start = Start { lsn: Lsn(0), seq: Seq(1), segment, base, room: 1 << 19 };
    Arc::new(Ring::new(&options, start).unwrap())
}

const STAMP: Stamp = Stamp { durable_lsn: Lsn(0), epoch: Epoch(1), wall_ns: 0, prev_crc: 0 };

fn append(ring: &Ring, payload: &[u8], level: Level) -> Result<Appended, Refused> {
    ring.append(ring.group(&[(1, payload)]).unwrap(), level)
}

/// Takes a frame and reads all of it, as a write does; returns its numbers.
fn seal(ring: &Ring) -> Option<Vec<(u64, u8)>> {
    let closed = ring.take_frame()?;
    let seed = Seed::new(LogId([0; 16]), closed.segment, Epoch(1), 0);
    let (bytes, _) = ring.seal(&closed, seed, STAMP);
    let bytes = bytes.pieces().concat();
    let (frame, _) = Frame::decode(&bytes, seed, Epoch(1), 512).unwrap();
    let body = &bytes[FRAME_HEADER_BYTES..];
    assert_eq!(frame.body_crc, seed.body_crc(&[body]), "nothing changed after it was sealed");
    let entries = bulla_storage::format::Entries::new(&frame, body);
    Some(entries.map(|entry| entry.unwrap()).map(|e| (e.seq.0, e.payload[0])).collect())
}

/// One thread per string appends an entry of each of its bytes, while this one seals what
/// there is.
fn append_and_seal(ring: &Arc<Ring>, strings: &[&'static [u8]]) {
    let threads: Vec<_> = strings
        .iter()
        .map(|bytes| {
            let (ring, bytes) = (Arc::clone(ring), *bytes);
            thread::spawn(move || {
                let append_one = |byte: &u8| {
                    let appended = append(&ring, &[*byte; 8], Level::Strict).unwrap();
                    (appended.seq.0, *byte)
                };
                bytes.iter().map(append_one).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut sealed = seal(ring).unwrap_or_default();
    let mut appended: Vec<_> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    while let Some(more) = seal(ring) {
        sealed.extend(more);
    }
    appended.sort_unstable();
    assert_eq!(sealed, appended, "each entry once, where and what its appender was told");
    let numbers = appended.iter().map(|(seq, _)| *seq);
    assert!(numbers.eq(1..=strings.concat().len() as u64), "dense");
}

#[test]
fn entries_of_two_threads_are_whole_in_the_frame_that_is_sealed() {
    model(|| append_and_seal(&ring(4 * SECTOR), &[b"a", b"b"]));
}

#[test]
fn entry_is_whole_in_the_frame_that_is_sealed_though_its_thread_is_at_the_next_one() {
    model(|| append_and_seal(&ring(4 * SECTOR), &[b"ab"]));
}

/// Appends two entries from two threads to a ring that has one, with `between` in the
/// first thread before its append.
fn append_behind(max_frame: u64, first: usize, between: impl Fn(&Ring) -> Vec<(u64, u8)>) {
    let ring = ring(max_frame);
    append(&ring, &vec![b'f'; first], Level::Relaxed).unwrap();
    let other = {
        let ring = Arc::clone(&ring);
        thread::spawn(move || append(&ring, &[b'o'; 8], Level::Relaxed).unwrap())
    };
    let mut sealed = between(&ring);
    let mine = append(&ring, &[b'm'; 8], Level::Relaxed).unwrap();
    sealed.extend(seal(&ring).unwrap_or_default());
    let other = other.join().unwrap();
    while let Some(more) = seal(&ring) {
        sealed.extend(more);
    }
    assert_ne!(mine.lsn, other.lsn);
    let mut expected = vec![(1, b'f'), (mine.seq.0, b'm'), (other.seq.0, b'o')];
    expected.sort_unstable();
    assert_eq!(sealed, expected);
}

#[test]
fn entry_joins_the_frame_that_another_thread_opened_when_one_was_full() {
    let full = usize::try_from(SECTOR - FRAME_HEADER_LEN - ENTRY_HEADER_LEN).unwrap();
    model(move || append_behind(SECTOR, full, |_| Vec::new()));
}

#[test]
fn frame_filled_as_far_as_the_one_before_is_not_taken_for_it() {
    model(|| append_behind(4 * SECTOR, 8, |ring| seal(ring).unwrap()));
}

#[test]
fn nothing_is_appended_once_the_ring_is_shut() {
    model(|| {
        let ring = ring(4 * SECTOR);
        append(&ring, &[b'a'; 8], Level::Strict).unwrap();
        let other = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || append(&ring, &[b'b'; 8], Level::Strict).is_ok())
        };
        ring.shut();
        let refused = append(&ring, &[b'c'; 8], Level::Strict);
        assert!(matches!(refused, Err(Refused::Shut)));
        let mut sealed = 0;
        while let Some(frame) = seal(&ring) {
            sealed += frame.len();
        }
        assert_eq!(sealed, 1 + usize::from(other.join().unwrap()));
        assert!(seal(&ring).is_none());
    });
}

#[test]
fn cut_parts_what_threads_did_before_and_after_it() {
    model(|| {
        let ring = ring(4 * SECTOR);
        append(&ring, &[b'f'; 8], Level::Relaxed).unwrap();
        let marks = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
        let appender = {
            let (ring, marks) = (Arc::clone(&ring), Arc::clone(&marks));
            thread::spawn(move || {
                marks[0].store(1, Ordering::Relaxed);
                let appended = append(&ring, &[b'a'; 8], Level::Relaxed).unwrap();
                (appended.lsn, marks[1].load(Ordering::Relaxed))
            })
        };
        marks[1].store(1, Ordering::Relaxed);
        let cut = ring.cut();
        let before = marks[0].load(Ordering::Relaxed);
        let (lsn, after) = appender.join().unwrap();
        let seen = if lsn < cut { before } else { after };
        assert_eq!(seen, 1, "{lsn} {cut}");
    });
}

#[test]
fn freed_memory_is_written_only_after_it_was_read() {
    model(|| {
        const LEN: u64 = 16 * 1024;
        let ring = ring(4 * SECTOR);
        let append_len = |len: u64| {
            let payload = vec![b'f'; usize::try_from(len - ENTRY_HEADER_LEN).unwrap()];
            append(&ring, &payload, Level::Relaxed)
        };
        // The first frame is being written; the open one ends where the ring is full.
        append_len(SECTOR - FRAME_HEADER_LEN).unwrap();
        let first = ring.take_frame().unwrap();
        let seed = Seed::new(LogId([0; 16]), first.segment, Epoch(1), 0);
        let (bytes, _) = ring.seal(&first, seed, STAMP);
        while ring.end().0 < LEN - SECTOR {
            append_len(SECTOR - FRAME_HEADER_LEN).unwrap();
            ring.take_frame().unwrap();
        }
        append_len(SECTOR - FRAME_HEADER_LEN).unwrap();
        assert!(matches!(append_len(16), Err(Refused::Full)));
        let appenders = [b'a', b'b'].map(|byte| {
            let ring = Arc::clone(&ring);
            let payload = [byte; (SECTOR - FRAME_HEADER_LEN - ENTRY_HEADER_LEN) as usize];
            thread::spawn(move || append(&ring, &payload, Level::Relaxed).is_ok())
        });
        assert_ne!(bytes.pieces()[0].len(), 0);
        ring.free(first.end);
        let appended = appenders.map(|thread| usize::from(thread.join().unwrap()));
        assert!(appended.iter().sum::<usize>() <= 1, "one frame is free, and no more");
    });
}

#[test]
fn each_of_these_models_can_fail() {
    const SEAL: &str = "ring::model::entries_of_two_threads_are_whole_in_the_frame_that_is_sealed";
    const FREE: &str = "ring::model::freed_memory_is_written_only_after_it_was_read";
    models::assert_each_fails(&[
        (SEAL, Mutant::SealerDoesNotWait),
        (FREE, Mutant::RingFreedBeforeWritten),
    ]);
}
