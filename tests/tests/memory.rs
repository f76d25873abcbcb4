//! What a look at a log and a replay take of memory, counted by the allocator of this test binary. One test
//! only: others beside it would be counted, too.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bulla_recovery::{EntryView, Inspection, Range, replay};
use bulla_tests::temp_dir;
use bulla_wal::{Level, Log, Options};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST_HELD: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes on to the system's allocator unchanged; counting touches only
// atomics.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST_HELD.fetch_max(held, Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's contract is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1 << 20;
/// Each frame holds one entry of this length.
const ENTRY: usize = 16 * MIB - 8 * 1024;
const ENTRIES: u64 = 9;

type Visitor<'a> = dyn FnMut(&EntryView<'_>) -> ControlFlow<()> + 'a;

#[test]
fn look_and_replay_hold_no_more_than_their_bound_however_long_the_frames() {
    let dir = temp_dir("memory");
    let path = dir.path().join("log");
    let options = Options::new().ring_len(64 * MIB as u64).segment_len(33 * MIB as u64);
    let log = Log::create(&path, &options).unwrap();
    for _ in 0..ENTRIES {
        let _ = log.append_with(1, &vec![1; ENTRY], Level::Relaxed).unwrap();
    }
    log.close().unwrap();

    let before = HELD.load(Ordering::Relaxed);
    MOST_HELD.store(before, Ordering::Relaxed);
    let inspection = Inspection::read(&path, &options).unwrap();
    let most = MOST_HELD.load(Ordering::Relaxed) - before;
    // One frame, and for each of eight threads a window of 1 MiB.
    assert!(most <= (16 + 8 + 2) * MIB, "{} MiB", most / MIB);

    let after_the_look =
        |visitor: &mut Visitor<'_>| inspection.replay(Range::ALL, |entry| visitor(entry));
    let in_one_pass =
        |visitor: &mut Visitor<'_>| replay(&path, &options, Range::ALL, |entry| visitor(entry));
    for replay in [&after_the_look as &dyn Fn(&mut Visitor<'_>) -> _, &in_one_pass] {
        let before = HELD.load(Ordering::Relaxed);
        MOST_HELD.store(before, Ordering::Relaxed);
        let mut seen = 0;
        replay(&mut |entry| {
            assert_eq!(entry.payload.len(), ENTRY);
            // Time for the others to read as far ahead as they may.
            std::thread::sleep(Duration::from_millis(if seen == 0 { 500 } else { 0 }));
            seen += 1;
            ControlFlow::Continue(())
        })
        .unwrap();
        let most = MOST_HELD.load(Ordering::Relaxed) - before;
        assert_eq!(seen, ENTRIES);
        // Two threads would hold six batches, of a frame and up to 1 MiB each, if they could.
        assert!(most <= (64 + 2 + 17 + 1) * MIB, "{} MiB", most / MIB);
        // And they are not to read one after the other.
        assert!(most > 2 * ENTRY, "{} MiB", most / MIB);
    }
}
