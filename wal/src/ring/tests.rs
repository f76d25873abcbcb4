use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::slots::OWN;
use super::*;
use crate::sync::slot_of_thread;
use bulla_storage::Epoch;

const SECTOR: u64 = 512;

fn ring(segment_room: u64) -> Ring {
    let options = Options::new().sector(512).segment_len(16 * 1024).ring_len(16 * 1024);
    let start = Start {
        lsn: Lsn(0),
        seq: Seq(1),
        segment: SegmentNumber(1),
        base: Lsn(0),
        room: segment_room,
    };
    Ring::new(&options, start).unwrap()
}

fn append_all(ring: &Ring, entries: &[(u16, &[u8])], level: Level) -> Result<Appended, Refused> {
    ring.append(ring.group(entries).unwrap(), level)
}

fn full_disk() -> Arc<Error> {
    Arc::new(Error::io("write", "2.seg.tmp")(std::io::ErrorKind::StorageFull.into()))
}

fn append(ring: &Ring, len: usize) -> Result<Appended, Refused> {
    append_all(ring, &[(1, &vec![9; len])], Level::Strict)
}

const STAMP: Stamp = Stamp { durable_lsn: Lsn(0), epoch: Epoch(1), wall_ns: 0, prev_crc: 0 };

fn seal(ring: &Ring) -> (Closed, Vec<u8>) {
    let closed = ring.take_frame().unwrap();
    let seed = Seed::new(bulla_storage::format::LogId([0; 16]), closed.segment, Epoch(1), 0);
    let (bytes, _) = ring.seal(&closed, seed, STAMP);
    (closed, bytes.pieces().concat())
}

#[test]
fn entries_of_a_batch_are_in_one_frame_with_dense_numbers() {
    let ring = ring(8 * 1024);
    let entries: Vec<(u16, &[u8])> = (0..10).map(|kind| (kind, &b"payload"[..])).collect();
    assert_eq!(append(&ring, 100).unwrap().seq, Seq(1));
    let appended = append_all(&ring, &entries, Level::Relaxed).unwrap();
    assert_eq!(appended.seq, Seq(11));
    assert_eq!(ring.counts(), AppendCounts { entries: 11, bytes: 170 });
    let (closed, bytes) = seal(&ring);
    assert_eq!((closed.first_seq, closed.entries, closed.relaxed), (Seq(1), 11, false));
    let seed = Seed::new(bulla_storage::format::LogId([0; 16]), closed.segment, Epoch(1), 0);
    let (frame, _) = Frame::decode(&bytes, seed, Epoch(1), 512).unwrap();
    assert_eq!(frame.body_crc, seed.body_crc(&[&bytes[64..]]));
    let seqs: Vec<u64> = bulla_storage::format::Entries::new(&frame, &bytes[64..])
        .map(|entry| entry.unwrap().seq.0)
        .collect();
    assert_eq!(seqs, (1..=11).collect::<Vec<_>>());
}

#[test]
fn frames_wrap_around_the_ring_intact() {
    let ring = ring(u64::MAX / 2);
    let mut seq = 0;
    for round in 0..200 {
        let len = 1 + (round * 37) % 900;
        let appended = append(&ring, len).unwrap();
        seq += 1;
        assert_eq!(appended.seq, Seq(seq));
        let (closed, bytes) = seal(&ring);
        assert_eq!(closed.end.distance_from(closed.start), bytes.len() as u64);
        assert_eq!(&bytes[72..72 + len], vec![9; len]);
        assert!(bytes[72 + len..].iter().all(|byte| *byte == 0), "padding is zero");
        ring.free(closed.end);
    }
}

#[test]
fn append_is_refused_before_it_would_overwrite_what_is_not_freed() {
    let ring = ring(u64::MAX / 2);
    let mut appended = 0;
    while append(&ring, 1000).is_ok() {
        appended += 1;
    }
    assert!(matches!(append(&ring, 1000), Err(Refused::Full)));
    assert!((12..=16).contains(&appended), "{appended} entries of 1,000 bytes in 16 KiB");
    let closed = ring.take_frame().unwrap();
    assert!(matches!(append(&ring, 1000), Err(Refused::Full)), "taken is not freed");
    ring.free(closed.end);
    assert_eq!(append(&ring, 1000).unwrap().seq, Seq(appended + 1), "a refusal takes no number");
}

#[test]
fn append_succeeds_only_where_a_segment_has_room() {
    let ring = ring(4 * SECTOR);
    for _ in 0..4 {
        append(&ring, 400).unwrap();
        let closed = ring.take_frame().unwrap();
        ring.free(closed.end);
    }
    assert!(matches!(append(&ring, 400), Err(Refused::NoSegment)));
    ring.spare_failed(full_disk());
    assert!(matches!(append(&ring, 400), Err(Refused::NoSpare(_))));
    assert_eq!(ring.spares(), 0);
    for number in 2..4 {
        ring.add_spare(Spare { number: SegmentNumber(number), room: 4 * SECTOR });
    }
    assert_eq!(ring.spares(), 2);
    assert_eq!(append(&ring, 400).unwrap().seq, Seq(5));
    assert_eq!(ring.spares(), 1);
    let closed = ring.take_frame().unwrap();
    assert_eq!((closed.segment, closed.base), (SegmentNumber(2), Lsn(4 * SECTOR)));
}

#[test]
fn open_frame_ends_where_its_segment_does() {
    let ring = ring(2 * SECTOR);
    ring.add_spare(Spare { number: SegmentNumber(2), room: 8 * SECTOR });
    append(&ring, 900).unwrap();
    append(&ring, 900).unwrap();
    let (first, second) = (ring.take_frame().unwrap(), ring.take_frame().unwrap());
    assert_eq!((first.segment, first.end), (SegmentNumber(1), Lsn(2 * SECTOR)));
    assert_eq!((second.segment, second.base), (SegmentNumber(2), Lsn(2 * SECTOR)));
}

#[test]
fn longest_entry_fills_a_frame_to_its_bound() {
    let ring = ring(16 * 1024);
    let max = usize::try_from(ring.max_payload()).unwrap();
    append(&ring, max).unwrap();
    let (closed, bytes) = seal(&ring);
    assert_eq!((closed.entries, closed.end, bytes.len()), (1, Lsn(4 * 1024), 4 * 1024));
}

#[test]
fn ring_takes_frames_until_its_last_byte_and_says_when_the_longest_may_not_fit() {
    let ring = ring(u64::MAX / 2);
    let max = usize::try_from(ring.max_payload()).unwrap();
    for frames in 0..4 {
        assert!(!ring.is_full(), "{frames} of 4 frames");
        append(&ring, max).unwrap();
    }
    assert!(ring.is_full());
    assert!(matches!(append(&ring, 0), Err(Refused::Full)));
    let first = ring.take_frame().unwrap();
    ring.free(first.end);
    assert!(!ring.is_full());
    append(&ring, 0).unwrap();
    assert!(ring.is_full(), "what is left is less than the longest frame");
    ring.shut();
    assert!(!ring.is_full(), "nobody is to wait for room any more");
}

#[test]
fn ring_lacks_a_segment_until_one_is_ready_or_none_can_be_made() {
    let ring = ring(8 * 1024);
    assert!(ring.lacks_segment());
    ring.spare_failed(full_disk());
    assert!(!ring.lacks_segment(), "nobody is to wait for one");
    ring.add_spare(Spare { number: SegmentNumber(2), room: 0 });
    assert!(!ring.lacks_segment(), "there is one");
    let ring = self::ring(8 * 1024);
    ring.shut();
    assert!(!ring.lacks_segment(), "nobody is to wait any more");
}

#[test]
fn empty_frame_is_zero_where_others_were() {
    let ring = ring(u64::MAX / 2);
    for _ in 0..4 {
        append(&ring, usize::try_from(ring.max_payload()).unwrap()).unwrap();
        let closed = ring.take_frame().unwrap();
        ring.free(closed.end);
    }
    let closed = ring.take_empty_frame(FrameKind::DurableMark).unwrap();
    let seed = Seed::new(bulla_storage::format::LogId([0; 16]), closed.segment, Epoch(1), 0);
    let (bytes, _) = ring.seal(&closed, seed, STAMP);
    assert!(bytes.pieces().concat()[64..] == [0; 448]);
}

#[test]
fn bytes_know_what_is_left_of_them_after_a_skip() {
    let ring = ring(u64::MAX / 2);
    // The second frame wraps around.
    for len in [3000, 3000, 3000, 3000, 3000] {
        append(&ring, len).unwrap();
        let closed = ring.take_frame().unwrap();
        ring.free(closed.end);
        let seed = Seed::new(bulla_storage::format::LogId([0; 16]), closed.segment, Epoch(1), 0);
        let (of_ring, _) = ring.seal(&closed, seed, STAMP);
        let all = of_ring.pieces().concat();
        let of_heap = RingBytes::from_heap(bulla_storage::io::AlignedBuf::copy_of(&all));
        for bytes in [of_ring, of_heap] {
            for count in [0, 1, 512, all.len() - 1, all.len(), all.len() + 1] {
                let left = all.get(count..).unwrap_or(&[]);
                let (once, twice) = (
                    bytes.clone().skip(count),
                    bytes.clone().skip(count / 2).skip(count.div_ceil(2)),
                );
                for skipped in [once, twice] {
                    assert_eq!(skipped.pieces().concat(), left, "{count} of {}", all.len());
                    assert_eq!((skipped.len(), skipped.is_empty()), (left.len(), left.is_empty()));
                }
            }
        }
    }
}

/// Which pages of the range of memory are there, by the kernel's account.
#[cfg(feature = "sim")]
fn pages_there(start: *const u8, len: usize) -> Vec<bool> {
    let pagemap = std::fs::File::open("/proc/self/pagemap").unwrap();
    let page = |at: usize| {
        let mut entry = [0; 8];
        let offset = (start.addr() + at) / 4096 * 8;
        std::os::unix::fs::FileExt::read_exact_at(&pagemap, &mut entry, offset as u64).unwrap();
        u64::from_le_bytes(entry) >> 63 == 1
    };
    (0..len).step_by(4096).map(page).collect()
}

#[cfg(feature = "sim")]
#[test]
fn populated_ring_has_all_its_memory_and_what_was_in_it() {
    const LEN: usize = 8 << 20;
    let lacks = memmap2::MmapMut::map_anon(4096).unwrap().advise(memmap2::Advice::PopulateWrite);
    if let Err(error) = lacks {
        let _ = writeln!(io::stderr(), "SKIPPED: this kernel populates nothing: {error}");
        return;
    }
    // Appends begin in the third of the four parts, and go on there.
    let ring = ring_of(LEN as u64, Lsn(9 << 19));
    write_and_free(&ring, Lsn((9 << 19) + (1 << 20)));
    let start = ring.memory.in_small_pages();
    append(&ring, 1000).unwrap();
    let there = || pages_there(start, LEN);
    assert!(there().iter().filter(|page| **page).count() < 300, "the test is to populate");
    assert!(ring.populate_next());
    let third = LEN / 4096 / 2..LEN / 4096 / 4 * 3;
    assert!(there()[third].iter().all(|page| *page), "first where appends go on");
    assert_eq!((0..).take_while(|_| ring.populate_next()).count(), 3);
    assert!(there().iter().all(|page| *page));
    ring.give_memory_back();
    assert!(there().iter().all(|page| *page), "an entry is not written");
    let (_, bytes) = seal(&ring);
    assert_eq!(&bytes[72..1072], &[9; 1000][..]);
}

#[cfg(feature = "sim")]
#[test]
fn ring_has_memory_for_what_is_appended_and_none_when_it_is_idle() {
    const LEN: usize = 4 << 20;
    let ring = ring_of(LEN as u64, Lsn(0));
    let start = ring.memory.in_small_pages();
    let there = || pages_there(start, LEN).iter().filter(|page| **page).count();
    assert_eq!(there(), 0, "nobody has appended");
    append(&ring, 1000).unwrap();
    assert!(!ring.populate_next(), "the log is hardly used");
    assert_eq!(there(), 1);
    write_and_free(&ring, Lsn(1 << 20));
    assert!(ring.populate_next(), "the log is used");
    ring.give_memory_back();
    assert_eq!(there(), 0);
    assert!(!ring.populate_next(), "as if it had just been opened");
    append(&ring, 1000).unwrap();
    assert_eq!(there(), 1);
    let (_, bytes) = seal(&ring);
    assert_eq!(&bytes[72..1072], &[9; 1000][..]);
}

#[cfg(feature = "sim")]
fn ring_of(len: u64, base: Lsn) -> Ring {
    let options = Options::new().segment_len(len).ring_len(len);
    let segment = SegmentNumber(1);
    Ring::new(&options, Start { lsn: base, seq: Seq(1), segment, base, room: len }).unwrap()
}

/// Appends up to a position, and frees all of it as if it were written.
#[cfg(feature = "sim")]
fn write_and_free(ring: &Ring, upto: Lsn) {
    while ring.end() < upto {
        append(ring, 1000).unwrap();
    }
    while let Some(closed) = ring.take_frame() {
        ring.free(closed.end);
    }
}

#[test]
fn entry_longer_than_an_open_frame_goes_alone() {
    let options = Options::new().sector(512).segment_len(8 << 20).ring_len(8 << 20);
    let start =
        Start { lsn: Lsn(0), seq: Seq(1), segment: SegmentNumber(1), base: Lsn(0), room: 8 << 20 };
    let ring = Ring::new(&options, start).unwrap();
    let len = usize::try_from(SOFT_FRAME_LEN).unwrap();
    append(&ring, len).unwrap();
    append(&ring, 10).unwrap();
    let (long, bytes) = seal(&ring);
    assert_eq!((long.entries, long.body_len as usize), (1, 8 + len));
    assert_eq!(&bytes[72..72 + len], vec![9; len]);
    let (short, _) = seal(&ring);
    assert_eq!((short.entries, short.start, short.first_seq), (1, long.end, Seq(2)));
}

#[test]
fn refused_append_leaves_the_open_frame_as_it_was() {
    let ring = ring(u64::MAX / 2);
    // A frame of one sector, three of 4 KiB: for the next one the ring has a sector too few.
    append(&ring, 10).unwrap();
    let first = ring.cut();
    let longest = usize::try_from(ring.max_payload()).unwrap();
    (0..3).for_each(|_| assert!(append(&ring, longest).is_ok()));
    let mut joined = append(&ring, 1000).unwrap();
    while let Ok(appended) = append(&ring, 1000) {
        joined = appended;
    }
    assert!(ring.take_frame().is_some());
    ring.free(first);
    let next = append(&ring, 500).unwrap();
    assert_eq!(next.lsn, joined.lsn.plus(8 + 1000), "right behind the one before it");
}

#[test]
fn frame_is_relaxed_only_when_all_its_entries_are() {
    let ring = ring(8 * 1024);
    let (relaxed, strict) = (Level::Relaxed, Level::Strict);
    let frames: [(&[Level], bool); 6] = [
        (&[relaxed], true),
        (&[strict], false),
        (&[relaxed, relaxed], true),
        (&[strict, strict], false),
        (&[relaxed, Level::Balanced], false),
        (&[strict, relaxed], false),
    ];
    for (levels, is_relaxed) in frames {
        for level in levels {
            append_all(&ring, &[(1, b"entry")], *level).unwrap();
        }
        let closed = ring.take_frame().unwrap();
        assert_eq!(closed.relaxed, is_relaxed, "{levels:?}");
        let bounded = if is_relaxed { 0 } else { levels.len() as u64 };
        assert_eq!(closed.bounded_entries(), bounded, "{levels:?}");
    }
}

/// Else a thread that is held up could reserve in a frame that it has not seen.
#[test]
fn frames_that_are_filled_alike_differ_by_their_generation() {
    let open = OpenFrame::new();
    let addition = Addition { len: 16, entries: 1, bound: true };
    let words: Vec<_> = (0..3)
        .map(|generation| {
            let (start, first_seq) = (Lsn(0), Seq(1));
            open.open(NewFrame { generation, start, first_seq, limit: 512 }, addition);
            let word = open.close(generation + 1);
            assert_eq!((word.len(), word.entries(), word.is_bound()), (64 + 16, 1, true));
            assert!(!open.word().is_open());
            word
        })
        .collect();
    assert!(words[0] != words[1] && words[1] != words[2] && words[0] != words[2], "{words:?}");
}

#[test]
fn empty_frame_is_taken_only_when_nothing_is_before_it() {
    let ring = ring(2 * SECTOR);
    append(&ring, 10).unwrap();
    let refused = Err(NoEmptyFrame::EntryBefore);
    assert_eq!(ring.take_empty_frame(FrameKind::DurableMark), refused);
    ring.take_frame().unwrap();
    let durable_lsn = ring.take_empty_frame(FrameKind::DurableMark).unwrap();
    assert_eq!(durable_lsn.end.distance_from(durable_lsn.start), SECTOR);
    let refused = Err(NoEmptyFrame::NoRoom);
    assert_eq!(ring.take_empty_frame(FrameKind::DurableMark), refused, "the segment is full");
    ring.add_spare(Spare { number: SegmentNumber(2), room: 8 * SECTOR });
    let durable_lsn = ring.take_empty_frame(FrameKind::DurableMark).unwrap();
    assert_eq!((durable_lsn.segment, durable_lsn.base), (SegmentNumber(2), Lsn(2 * SECTOR)));
}

#[test]
fn cut_is_after_every_earlier_entry_and_before_every_later_one() {
    let ring = ring(8 * 1024);
    assert_eq!(ring.cut(), Lsn(0));
    append(&ring, 10).unwrap();
    let before = append(&ring, 10).unwrap().lsn;
    let cut = ring.cut();
    assert!(before < cut && cut == ring.cut(), "{before} {cut}");
    let after = append(&ring, 10).unwrap();
    assert!(after.lsn >= cut && after.seq == Seq(3), "{after:?}");
    let (first, second) = (ring.take_frame().unwrap(), ring.take_frame().unwrap());
    assert_eq!((first.entries, first.end, second.start), (2, cut, cut));
}

#[test]
fn nothing_is_appended_after_the_ring_is_shut() {
    let ring = ring(8 * 1024);
    append(&ring, 1).unwrap();
    ring.shut();
    assert!(matches!(append(&ring, 1), Err(Refused::Shut)));
    assert!(ring.take_frame().is_some(), "what was appended can still be written");
}

#[test]
fn append_wakes_the_flusher_once() {
    let ring = ring(8 * 1024);
    assert!(ring.flusher_sleeps());
    assert!(!ring.tail().after_sleep);
    assert!(append(&ring, 1).unwrap().wake_flusher);
    assert!(!append(&ring, 1).unwrap().wake_flusher);
    assert!(ring.tail().after_sleep, "the next look is told of it");
    assert!(!ring.tail().after_sleep, "once");
    assert!(!ring.flusher_sleeps(), "there is something to write");
}

/// Runs a closure when its thread ends.
struct AtEnd(Cell<Option<Box<dyn FnOnce()>>>);

impl Drop for AtEnd {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(|run| run());
    }
}

thread_local! {
    static AT_END: AtEnd = const { AtEnd(Cell::new(None)) };
}

#[test]
fn sealer_waits_for_a_thread_that_copies_while_it_ends() {
    let slots = Arc::new(Slots::new());
    let copied = Arc::new(AtomicBool::new(false));
    let (begun, seen) = mpsc::channel();
    let (its_slots, its_copied) = (Arc::clone(&slots), Arc::clone(&copied));
    let copy = move || {
        let slot = its_slots.mine();
        slot.begin(Lsn(0));
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(100));
        its_copied.store(true, Ordering::Relaxed);
        slot.publish(0);
    };
    thread::spawn(move || {
        AT_END.with(|end| end.0.set(Some(Box::new(copy))));
        // Registered later, so it is given back before the closure runs.
        slot_of_thread();
    });
    seen.recv().unwrap();
    slots.wait_until_copied(Lsn(8));
    assert!(copied.load(Ordering::Relaxed));
}

#[test]
fn frame_is_taken_only_when_all_of_it_is_copied() {
    let ring = Arc::new(ring(8 * 1024));
    let at = append(&ring, 10).unwrap().lsn;
    let copied = Arc::new(AtomicBool::new(false));
    let (begun, seen) = mpsc::channel();
    let (its_ring, its_copied) = (Arc::clone(&ring), Arc::clone(&copied));
    let appender = thread::spawn(move || {
        let slot = its_ring.slots.mine();
        slot.begin(at);
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(100));
        its_copied.store(true, Ordering::Relaxed);
        slot.publish(0);
    });
    seen.recv().unwrap();
    ring.take_frame().unwrap();
    assert!(copied.load(Ordering::Relaxed));
    appender.join().unwrap();
}

#[test]
fn sealer_does_not_wait_for_a_reservation_that_was_withdrawn() {
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let slots = Slots::new();
        slots.mine().begin(Lsn(0));
        slots.mine().withdraw();
        slots.wait_until_copied(Lsn(8));
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(60)).expect("it waits");
}

#[test]
fn thread_has_a_slot_of_its_own_when_most_of_many_have_ended() {
    let (tell, told) = mpsc::channel();
    let mut threads: Vec<_> = (0..2 * OWN)
        .map(|_| {
            let (end, ended) = mpsc::channel::<()>();
            let tell = tell.clone();
            let thread = thread::spawn(move || {
                tell.send(slot_of_thread()).unwrap();
                let _ = ended.recv();
            });
            (told.recv().unwrap(), end, thread)
        })
        .collect();
    assert!(threads.iter().any(|(slot, ..)| *slot >= OWN), "the test is to use them up");
    threads.sort_by_key(|(slot, ..)| *slot);
    for (_, end, thread) in threads {
        drop(end);
        thread.join().unwrap();
    }
    let slot = thread::spawn(slot_of_thread).join().unwrap();
    assert!(slot < OWN, "it shares, though most are free");
}

#[test]
fn sealer_that_waits_long_leaves_the_processor_to_others() {
    let slots = Arc::new(Slots::new());
    let (begun, seen) = mpsc::channel();
    let its_slots = Arc::clone(&slots);
    let appender = thread::spawn(move || {
        let slot = its_slots.mine();
        slot.begin(Lsn(0));
        begun.send(()).unwrap();
        thread::sleep(Duration::from_millis(200));
        slot.publish(0);
    });
    seen.recv().unwrap();
    let processor_ms = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    };
    let before = processor_ms();
    slots.wait_until_copied(Lsn(8));
    let used = processor_ms() - before;
    assert!(used < 100, "{used} of 200 ms");
    appender.join().unwrap();
}
