//! Who drives when: logs on real threads, with a file whose writes a test lets begin and end.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bulla_storage::io::File;
use bulla_storage::io::std::StdIo;
use bulla_tests::layer::{Layer, Layered};
use bulla_tests::real_threads::{PATIENCE, recovered, small};
use bulla_tests::temp_dir;
use bulla_tests::wrap::{Knobs, WrapIo};
use bulla_wal::{Error, Level, Log, Method, Options, Overflow};
use tempfile::TempDir;

/// Long enough for a thread to come to where it sleeps; one that does not makes no test fail.
const A_WHILE: Duration = Duration::from_millis(200);

/// What a test knows and decides of the writes of frames and of the syncs after them, which are
/// numbered from 0.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: usize,
    held: BTreeSet<usize>,
    /// Bytes that the next writes take; later ones take all.
    takes: VecDeque<usize>,
    sync_fails: bool,
}

impl Gate {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
        self.changed.notify_all();
    }

    fn hold(&self, operations: impl IntoIterator<Item = usize>) {
        self.change(|state| state.held.extend(operations));
    }

    fn release(&self, operation: usize) {
        self.change(|state| {
            state.held.remove(&operation);
        });
    }

    fn release_all(&self) {
        self.change(|state| state.held.clear());
    }

    /// Returns whether this many operations begin within the time.
    fn have_begun(&self, count: usize) -> bool {
        let state = self.state.lock().unwrap();
        let short_of = |state: &mut State| state.begun < count;
        !self.changed.wait_timeout_while(state, PATIENCE / 3, short_of).unwrap().1.timed_out()
    }

    /// Begins an operation of `len` bytes, and waits until it may end; returns how many it takes.
    fn pass(&self, len: usize) -> usize {
        let mut state = self.state.lock().unwrap();
        let number = state.begun;
        state.begun += 1;
        self.changed.notify_all();
        let is_held = |state: &mut State| state.held.contains(&number);
        let mut state = self.changed.wait_while(state, is_held).unwrap();
        state.takes.pop_front().unwrap_or(len).min(len)
    }
}

/// A file that says whether it is direct, so that its writes are durable by themselves, whatever
/// the file system grants.
#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
    is_direct: bool,
    has_frames: AtomicBool,
}

impl Layer for GatedFile {
    fn file(&self) -> &dyn File {
        &*self.file
    }

    fn is_direct(&self) -> bool {
        self.is_direct
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.has_frames.store(true, Ordering::Relaxed);
        let bytes = pieces.concat();
        let count = self.gate.pass(bytes.len());
        self.file.write_pieces_at([&bytes[..count], &[]], offset, dsync)
    }

    fn sync(&self) -> io::Result<()> {
        if self.has_frames.load(Ordering::Relaxed) {
            self.gate.pass(0);
            if self.gate.state.lock().unwrap().sync_fails {
                return Err(io::Error::other("injected failure"));
            }
        }
        self.file.sync()
    }
}

/// Options of a log in which only the test's own threads drive.
fn manual() -> Options {
    small().manual().idle_mark(Duration::from_secs(3600))
}

fn gated(options: Options, is_direct: bool) -> (TempDir, Log, Arc<Gate>, Arc<Knobs>) {
    let dir = temp_dir("driving");
    let (io, knobs) = WrapIo::new(StdIo::new());
    let gate = Arc::new(Gate::default());
    let its_gate = Arc::clone(&gate);
    knobs.replace.by(Box::new(move |file| {
        let has_frames = AtomicBool::new(false);
        let gate = Arc::clone(&its_gate);
        Arc::new(Layered(GatedFile { file, gate, is_direct, has_frames }))
    }));
    let log = Log::create(dir.path().join("log"), &options.io(io).method(Method::Buffered));
    (dir, log.unwrap(), gate, knobs)
}

fn commit(log: &Log) {
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
}

/// Counts how often it is woken.
#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn leader_hands_over_what_waits_while_another_thread_is_in_the_disk() {
    let (_dir, log, gate, _) = gated(manual().depth(2), true);
    gate.hold([0, 1]);
    let begun = thread::scope(|scope| {
        let two = [1, 2].map(|count| {
            scope.spawn(|| commit(&log));
            gate.have_begun(count)
        });
        // Finds both in the disk, and sleeps.
        scope.spawn(|| commit(&log));
        thread::sleep(A_WHILE);
        gate.release(0);
        let third = gate.have_begun(3);
        gate.release_all();
        (two, third)
    });
    assert_eq!(begun.0, [true; 2], "the test is to have both in the disk");
    assert!(begun.1, "the third write waits for the second, though there is a thread for it");
}

#[test]
fn leader_hands_over_also_when_tasks_broke_its_turn_off() {
    let (_dir, log, gate, _) = gated(manual().depth(1), true);
    gate.hold([0]);
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let mut future = pin!(log.ready(receipt));
    assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let begun = thread::scope(|scope| {
        scope.spawn(|| log.wait(receipt).unwrap());
        gate.have_begun(1);
        scope.spawn(|| commit(&log));
        thread::sleep(A_WHILE);
        gate.release_all();
        let begun = gate.have_begun(2);
        if !begun {
            // Somebody who drives: so that the threads end.
            commit(&log);
        }
        begun
    });
    assert!(begun, "nobody drives for the thread that sleeps");
}

#[test]
fn operation_that_outlives_its_waiter_is_acknowledged_without_another() {
    // Held is the write that is durable by itself, or the sync after one that is not.
    for (is_direct, held) in [(true, 0), (false, 1)] {
        let (_dir, log, gate, _) = gated(small(), is_direct);
        gate.hold([held]);
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| assert!(!log.wait_timeout(receipt, A_WHILE).unwrap()));
            thread::sleep(2 * A_WHILE);
            gate.release_all();
        });
        let start = Instant::now();
        while !log.is_ready(receipt).unwrap() {
            assert!(start.elapsed() < PATIENCE / 3, "nobody ever says that it is durable");
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn log_looks_at_nothing_until_something_is_appended() {
    let (_dir, log, _, knobs) = gated(small().idle_mark(Duration::from_millis(1)), true);
    commit(&log);
    let start = Instant::now();
    loop {
        let looks = knobs.looks.load(Ordering::Relaxed);
        thread::sleep(A_WHILE);
        if knobs.looks.load(Ordering::Relaxed) == looks {
            break;
        }
        assert!(start.elapsed() < PATIENCE / 3, "its thread never sleeps");
    }
    // Whoever appends then wakes it.
    let receipt = log.append_with(1, b"entry", Level::Relaxed).unwrap();
    let start = Instant::now();
    while log.written() <= receipt.lsn {
        assert!(start.elapsed() < PATIENCE / 3, "it sleeps on");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn tasks_are_woken_by_the_thread_that_makes_them_ready() {
    for fails in [false, true] {
        let (_dir, log, _, knobs) = gated(manual(), true);
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let mut future = pin!(log.ready(receipt));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        knobs.fail.store(fails, Ordering::Relaxed);
        assert_eq!(log.wait(receipt).is_err(), fails);
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "fails: {fails}");
    }
}

#[test]
fn short_write_is_gone_on_with_where_a_sector_begins() {
    let (dir, log, gate, _) = gated(manual(), true);
    // A frame of four sectors.
    let payload: Vec<u8> = (0..15_000_u32).map(|at| (at % 251) as u8).collect();
    gate.change(|state| state.takes.extend([5000, 0, 7000]));
    let receipt = log.append_with(1, &payload, Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    let stats = log.stats();
    assert_eq!((stats.short_writes, stats.writes, stats.dsync_writes), (3, 4, 4));
    assert_eq!(stats.written_bytes, 5000 + 7000 + 2 * 4096);
    log.close().unwrap();
    assert_eq!(recovered(dir.path()), [(1, payload)]);
}

#[test]
fn write_may_stall_sixteen_times_and_no_more() {
    for (stalls, writes) in [(16, 17), (17, 17)] {
        let (_dir, log, gate, _) = gated(manual(), true);
        gate.change(|state| state.takes.extend(vec![0; stalls]));
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let waited = log.wait(receipt);
        assert_eq!(matches!(waited, Err(Error::Poisoned { .. })), stalls > 16, "{waited:?}");
        assert_eq!(log.stats().writes, writes);
    }
}

#[test]
fn tasks_are_woken_also_while_another_thread_is_in_the_disk() {
    let (_dir, log, gate, _) = gated(manual().depth(2), true);
    gate.hold([0, 1]);
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let mut future = pin!(log.ready(receipt));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(log.step(), "sealed and submitted");
    let woken = thread::scope(|scope| {
        let first = scope.spawn(|| log.step());
        gate.have_begun(1);
        scope.spawn(|| commit(&log));
        gate.have_begun(2);
        gate.release(0);
        first.join().unwrap();
        // The second is still in the disk. What is left to do is to say that the first is not.
        log.step();
        let woken = count.0.load(Ordering::Relaxed);
        gate.release_all();
        woken
    });
    assert_eq!(woken, 1);
}

#[test]
fn operation_is_done_without_the_lock_whoever_submitted_it() {
    let (_dir, log, gate, _) = gated(manual(), true);
    gate.hold([0]);
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let (told, hear) = std::sync::mpsc::channel();
    let heard = thread::scope(|scope| {
        let mut future = pin!(log.ready(receipt));
        assert!(future.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(log.step(), "sealed and submitted");
        scope.spawn(|| log.wait(receipt).unwrap());
        gate.have_begun(1);
        scope.spawn(|| told.send(log.stats()).unwrap());
        let heard = hear.recv_timeout(PATIENCE / 3);
        gate.release_all();
        heard
    });
    assert!(heard.is_ok(), "the lock is held");
}

#[test]
fn failed_sync_poisons_and_is_not_tried_again() {
    let (_dir, log, gate, _) = gated(manual(), false);
    gate.change(|state| state.sync_fails = true);
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let waited = log.wait(receipt);
    assert!(matches!(waited, Err(Error::Poisoned { .. })), "{waited:?}");
    assert_eq!(log.stats().syncs, 1);
}

/// Does what it is told when it is woken.
struct Told<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Told<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

/// It may hold a lock that a waker wants.
#[test]
fn thread_that_appends_runs_no_waker_though_it_drives() {
    let (_dir, log, ..) = gated(small().idle_mark(Duration::from_secs(3600)), true);
    let poll = |waker: Waker| {
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let mut future = Box::pin(log.ready(receipt));
        assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        future
    };
    // The flusher is kept in a waker, so that whoever appends to a full ring has to drive.
    let (kept, is_kept) = std::sync::mpsc::channel();
    let (let_go, go) = std::sync::mpsc::channel::<()>();
    let go = Mutex::new(go);
    let _first = poll(Waker::from(Arc::new(Told(move || {
        kept.send(()).unwrap();
        let _ = go.lock().unwrap().recv_timeout(PATIENCE / 3);
    }))));
    is_kept.recv_timeout(PATIENCE / 3).expect("the flusher wakes it");
    let (woken, by) = std::sync::mpsc::channel();
    let _second = poll(Waker::from(Arc::new(Told(move || {
        woken.send(thread::current().id()).unwrap();
    }))));
    for _ in 0..40 {
        let _ = log.append_with(1, &[7; 4000], Level::Relaxed).unwrap();
    }
    let_go.send(()).unwrap();
    let by = by.recv_timeout(PATIENCE / 3).expect("the flusher wakes it later");
    assert_ne!(by, thread::current().id());
}

#[test]
fn threads_of_the_log_make_its_segments_and_a_wait_lasts_as_long_as_it_may() {
    let (_dir, log, ..) = gated(small().overflow(Overflow::Full), false);
    let start = Instant::now();
    while log.stats().rotations < 2 {
        assert!(start.elapsed() < PATIENCE / 3, "nobody makes a segment");
        match log.append_with(1, &[7; 8000], Level::Strict) {
            Ok(receipt) => assert!(log.wait_timeout(receipt, PATIENCE / 3).unwrap()),
            Err(error) => {
                assert!(matches!(error, Error::Full), "{error}");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
