//! The log with real threads on the real disk: waiting, futures, back-pressure, poison.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use bulla_recovery::Recovery;
use bulla_storage::files::dir::segment_path;
use bulla_storage::io::std::StdIo;
use bulla_tests::real_threads::{self, PATIENCE, backends, block_on, recovered, small, wrapped_on};
use bulla_tests::temp_dir;
use bulla_tests::wrap::Knobs;
use bulla_wal::{Error, Level, Log, Lsn, Options, Overflow, Receipt, SegmentNumber};
use tempfile::TempDir;

fn wrapped(name: &str, options: Options) -> (TempDir, Log, Arc<Knobs>) {
    wrapped_on(&(Arc::new(StdIo::new()) as _), name, options)
}

fn eventually(what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn append_that_must_not_wait_says_full_and_fits_once_there_is_room() {
    let dir = temp_dir("try");
    let log = Log::create(dir.path().join("log"), &small().manual()).unwrap();
    let payload = [7; 4096];
    let mut appended = 0;
    // Nobody else writes: only waiting for room makes some.
    while appended < 100 {
        match log.try_append_batch(&[(1, &payload)], Level::Relaxed) {
            Ok(_) => appended += 1,
            Err(Error::Full) => {
                assert!(appended >= 8, "full at {appended}");
                log.wait_for_room().unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    log.close().unwrap();
    assert_eq!(recovered(dir.path()).len(), 100);
    let options = small().manual().overflow(Overflow::Full);
    let log = Log::create(dir.path().join("other"), &options).unwrap();
    while log.try_append_batch(&[(1, &payload)], Level::Relaxed).is_ok() {}
    assert!(matches!(log.wait_for_room(), Err(Error::Full)));
}

#[test]
fn threads_at_mixed_levels_are_all_recovered_in_order() {
    real_threads::threads_at_mixed_levels_are_all_recovered_in_order();
}

#[test]
fn future_of_a_receipt_is_woken_without_anyone_waiting() {
    real_threads::future_of_a_receipt_is_woken_without_anyone_waiting();
}

#[test]
fn flusher_that_has_ended_starts_again() {
    real_threads::flusher_that_has_ended_starts_again();
}

#[test]
fn dropped_future_cancels_nothing() {
    for io in backends() {
        let (_dir, log, _) = wrapped_on(&io, "dropped-future", small());
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        {
            let mut future = pin!(log.ready(receipt));
            let _ = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        }
        log.wait(receipt).unwrap();
    }
}

#[test]
fn entries_get_durable_without_anyone_waiting() {
    for io in backends() {
        for level in Level::ALL {
            let options = small().sync_interval(Duration::from_millis(200));
            let (_dir, log, _) = wrapped_on(&io, "unwaited", options);
            let receipt = log.append_with(1, b"entry", level).unwrap();
            eventually("written", || log.written() > receipt.lsn);
            eventually("durable", || log.durable() > receipt.lsn);
        }
    }
}

#[test]
fn wait_with_a_timeout_gives_up_and_leaves_the_receipt_usable() {
    let (_dir, log, _) = wrapped("timeout", small());
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    assert!(!log.wait_timeout(receipt, Duration::ZERO).unwrap());
    assert!(log.wait_timeout(receipt, PATIENCE).unwrap());
    assert!(log.wait_timeout(receipt, Duration::ZERO).unwrap(), "ready is ready");
}

#[test]
fn receipt_of_another_epoch_is_refused() {
    let (_dir, log, _) = wrapped("foreign", small());
    let receipt = log.append(b"entry").unwrap();
    let foreign = Receipt { epoch: bulla_wal::Epoch(9), ..receipt };
    assert!(matches!(log.wait(foreign), Err(Error::ForeignReceipt { .. })));
    assert!(matches!(log.is_ready(foreign), Err(Error::ForeignReceipt { .. })));
    assert!(matches!(block_on(log.ready(foreign)), Err(Error::ForeignReceipt { .. })));
}

#[test]
fn bad_appends_are_refused_and_change_nothing() {
    let (dir, log, _) = wrapped("bad", small());
    let max = usize::try_from(log.max_entry_len()).unwrap();
    let end = log.end();
    assert!(matches!(log.append(&vec![0; max + 1]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.append_with(0xFF00, b"", Level::Strict), Err(Error::ReservedKind(_))));
    assert!(matches!(log.append_batch(&[], Level::Strict), Err(Error::EmptyBatch)));
    let entry = vec![0; max];
    let batch = [(0, &entry[..]), (0, &entry[..])];
    assert!(matches!(log.append_batch(&batch, Level::Strict), Err(Error::TooLarge { .. })));
    assert_eq!(log.end(), end);
    assert_eq!(log.append(&entry).unwrap().seq.0, 1);
    log.close().unwrap();
    assert_eq!(recovered(dir.path()), [(1, entry)]);
}

#[test]
fn full_ring_blocks_or_refuses_and_loses_nothing() {
    for io in backends() {
        for overflow in [Overflow::Block, Overflow::Full] {
            let (dir, log, knobs) = wrapped_on(&io, "full", small().overflow(overflow));
            knobs.delay_us.store(2_000, Ordering::Relaxed);
            let mut refused = 0;
            let mut appended = 0_u64;
            for _ in 0..300 {
                match log.append_with(1, &[9; 1_000], Level::Relaxed) {
                    Ok(receipt) => {
                        appended += 1;
                        assert_eq!(receipt.seq.0, appended);
                    }
                    Err(Error::Full) => {
                        refused += 1;
                        thread::sleep(Duration::from_micros(200));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            assert_eq!(refused > 0, overflow == Overflow::Full, "{overflow:?}: {refused} refused");
            log.close().unwrap();
            assert_eq!(recovered(dir.path()).len() as u64, appended);
        }
    }
}

#[test]
fn failed_write_wakes_every_waiter_and_nothing_is_acknowledged_after() {
    real_threads::failed_write_wakes_every_waiter_and_nothing_is_acknowledged_after();
}

#[test]
fn panic_of_the_driver_poisons_and_wakes_every_waiter() {
    for io in backends() {
        let (_dir, log, knobs) = wrapped_on(&io, "panic", small());
        knobs.delay_us.store(20_000, Ordering::Relaxed);
        knobs.panic.store(true, Ordering::Relaxed);
        let outcomes: Vec<_> = thread::scope(|scope| {
            let waiters: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let receipt = log.append_with(1, b"entry", Level::Strict)?;
                        log.wait(receipt)
                    })
                })
                .collect();
            waiters.into_iter().map(thread::ScopedJoinHandle::join).collect()
        });
        let poisoned = |outcome: &thread::Result<bulla_wal::Result<()>>| {
            matches!(outcome, Ok(Err(Error::Poisoned { .. })))
        };
        let panicked = outcomes.iter().filter(|outcome| outcome.is_err()).count();
        assert!(panicked <= 1, "only the driver panics (or the log's own thread did)");
        assert!(outcomes.iter().all(|outcome| outcome.is_err() || poisoned(outcome)));
    }
}

#[test]
fn write_that_never_goes_on_poisons() {
    for io in backends() {
        let (_dir, log, knobs) = wrapped_on(&io, "stall", small());
        knobs.stall.store(true, Ordering::Relaxed);
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let waited = log.wait_timeout(receipt, Duration::from_secs(20));
        if !matches!(waited, Err(Error::Poisoned { .. })) {
            // It would not close either.
            std::mem::forget(log);
            panic!("{waited:?}");
        }
    }
}

#[test]
fn closing_wakes_a_blocked_appender() {
    let (_dir, log, knobs) = wrapped("close", small());
    knobs.no_space.store(true, Ordering::Relaxed);
    // The segment that is ready and its spare take some; then the appends are refused.
    let refused = loop {
        match log.append_with(1, &[1; 8_000], Level::Relaxed) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace(_)), "{refused}");
    log.close().unwrap();
}

#[test]
fn full_disk_refuses_appends_until_there_is_space_again() {
    let (dir, log, knobs) = wrapped("no-space", small());
    knobs.no_space.store(true, Ordering::Relaxed);
    let mut appended = 0_u64;
    let last = loop {
        match log.append_with(1, &[1; 4_000], Level::Balanced) {
            Ok(receipt) => {
                appended += 1;
                log.wait(receipt).unwrap();
                assert!(appended < 10_000, "the log never gets full");
            }
            Err(Error::NoSpace(_)) => break log.end(),
            Err(error) => panic!("{error}"),
        }
    };
    for _ in 0..10 {
        assert!(matches!(log.append(&[1; 4_000]), Err(Error::NoSpace(_))));
    }
    assert_eq!(log.sync().unwrap(), last, "what was appended gets durable all the same");
    knobs.no_space.store(false, Ordering::Relaxed);
    let start = Instant::now();
    while let Err(error) = log.append(&[2; 4_000]) {
        assert!(matches!(error, Error::NoSpace(_) | Error::Full), "{error}");
        assert!(start.elapsed() < PATIENCE, "appending does not resume");
        thread::sleep(Duration::from_millis(1));
    }
    log.close().unwrap();
    assert_eq!(recovered(dir.path()).len() as u64, appended + 1);
}

#[test]
fn second_writer_is_refused_while_the_first_one_lives() {
    let (dir, log, _) = wrapped("lock", small());
    let options = small().lock_timeout(Duration::from_millis(30));
    let outcome = Recovery::run(&dir.path().join("log"), &options);
    assert!(matches!(outcome, Err(Error::Locked { .. })), "{outcome:?}");
    assert!(matches!(
        Log::create(dir.path().join("log"), &options),
        Err(Error::AlreadyExists { .. } | Error::Locked { .. })
    ));
    log.close().unwrap();
    Recovery::run(&dir.path().join("log"), &options).unwrap();
}

/// Files below a directory that this process has open.
fn open_below(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    let open = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    open.filter(|path| path.starts_with(dir)).collect()
}

#[test]
fn closed_log_that_others_share_has_no_file_open() {
    let dir = temp_dir("released");
    let log = Arc::new(Log::create(dir.path().join("log"), &small()).unwrap());
    let shared = Arc::clone(&log);
    log.wait(log.append_with(1, b"entry", Level::Strict).unwrap()).unwrap();
    assert!(!open_below(dir.path()).is_empty());
    log.close().unwrap();
    assert!(open_below(dir.path()).is_empty(), "{:?}", open_below(dir.path()));
    assert!(matches!(shared.append(b"more"), Err(Error::Closed)));
    assert!(matches!(shared.purge(Lsn::MAX), Err(Error::Closed)));
}

#[test]
fn closed_store_that_others_share_has_no_file_open_and_refuses_what_needs_one() {
    use bulla_engine::{Error, Store, StoreOptions, Token, TokenId};

    let dir = temp_dir("store-released");
    let options = StoreOptions::new().log(small());
    let open = || Arc::new(Store::open(dir.path().join("store"), &options).unwrap());
    let token = |id| Token::builder(TokenId(id)).build().unwrap();
    let far = 1 << 20;
    let store = open();
    store.put(&token(1)).unwrap();
    store.put(&token(far)).unwrap();
    store.checkpoint().unwrap();
    store.close().unwrap();
    // Its records are in the checkpoint, which it reads when they are needed.
    let store = open();
    let shared = Arc::clone(&store);
    let snapshot_before = |store: &Store| store.snapshot().map(|snapshot| snapshot.iter().count());
    assert_eq!(store.stats().checkpoints.waiting_slabs, 2);
    assert_eq!(store.get(TokenId(1)).unwrap(), Some(token(1)));
    let receipt = store.at(Level::Strict).begin().put(&token(2)).unwrap();
    assert!(!open_below(dir.path()).is_empty());
    store.close().unwrap();
    assert!(open_below(dir.path()).is_empty(), "{:?}", open_below(dir.path()));
    assert!(shared.is_ready(receipt).unwrap(), "what was written before the close is durable");
    shared.wait(receipt).unwrap();
    shared.sync().unwrap();
    for refused in [
        shared.put(&token(3)),
        shared.delete(TokenId(1)).map(drop),
        shared.checkpoint().map(drop),
        shared.get(TokenId(far)).map(drop),
        shared.load(1),
        shared.iter().map(drop),
        snapshot_before(&shared).map(drop),
    ] {
        assert!(matches!(refused, Err(Error::Closed)), "{refused:?}");
    }
    for (id, there) in [(1, true), (2, true), (3, false)] {
        assert_eq!(shared.get(TokenId(id)).unwrap().is_some(), there, "in memory");
    }
    shared.close().unwrap();
    // Of a store that has read everything nothing is missing.
    let again = open();
    again.load(1).unwrap();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let again = Arc::clone(&again);
            thread::spawn(move || again.close())
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    assert!(open_below(dir.path()).is_empty(), "{:?}", open_below(dir.path()));
    assert_eq!(again.iter().unwrap().count(), 3);
    assert_eq!(snapshot_before(&again).unwrap(), 3);
}

#[test]
fn dropped_log_is_closed_and_loses_nothing() {
    let (dir, log, _) = wrapped("drop", small());
    for _ in 0..100 {
        let _ = log.append_with(1, b"entry", Level::Relaxed).unwrap();
    }
    drop(log);
    assert_eq!(recovered(dir.path()).len(), 100);
}

#[test]
fn idle_log_marks_what_is_durable() {
    let (dir, log, _) = wrapped("idle", small());
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
    let end = log.end();
    eventually("the idle mark", || log.end() > end);
    eventually("it is durable", || log.durable() > end);
    let durable_mark = log.end();
    thread::sleep(Duration::from_millis(120));
    assert_eq!(log.end(), durable_mark, "a mark does not call for another");
    drop(log);
    let recovery = Recovery::run(&dir.path().join("log"), &small()).unwrap();
    assert!(recovery.report().durable_lsn >= end);
}

#[test]
fn purge_removes_whole_segments_below_and_keeps_the_rest() {
    let (dir, log, _) = wrapped("purge", small());
    let mut receipts = Vec::new();
    for _ in 0..400 {
        receipts.push(log.append_with(1, &[3; 4_000], Level::Relaxed).unwrap());
    }
    log.sync().unwrap();
    let keep = receipts[300];
    let first = segment_path(&dir.path().join("log"), SegmentNumber(1));
    assert!(first.exists());
    let low_water = log.purge(keep.lsn).unwrap();
    assert!(low_water > Lsn::ZERO && low_water <= keep.lsn);
    assert!(!first.exists(), "its space is free at once");
    assert_eq!(log.low_water(), low_water);
    assert_eq!(log.purge(Lsn::ZERO).unwrap(), low_water, "purging never goes back");
    let _ = log.append(b"after").unwrap();
    log.close().unwrap();
    let entries = recovered(dir.path());
    assert!(entries[0].0 > 1 && entries[0].0 <= keep.seq.0);
    assert_eq!(entries.last().unwrap(), &(401, b"after".to_vec()));
}

#[test]
fn bound_that_never_binds_is_a_bound() {
    let (_dir, log, _) = wrapped("unbounded", small().balanced_max_unsynced(u64::MAX));
    for level in [Level::Strict, Level::Balanced] {
        let receipt = log.append_with(1, b"entry", level).unwrap();
        log.wait(receipt).unwrap();
    }
    log.close().unwrap();
}

/// Two logs that were just created are both in epoch 1.
#[test]
fn receipt_past_the_end_is_refused_and_stops_nobody() {
    let (_dir, log, _) = wrapped("mine", small());
    let (_other_dir, other, _) = wrapped("other", small());
    let _ = other.append_with(1, &[0; 9_000], Level::Strict).unwrap();
    other.sync().unwrap();
    let foreign = other.append_with(1, b"there", Level::Strict).unwrap();
    assert!(matches!(log.wait(foreign), Err(Error::ForeignReceipt { .. })));
    assert!(matches!(block_on(log.ready(foreign)), Err(Error::ForeignReceipt { .. })));
    let receipt = log.append_with(1, b"here", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
}

/// A task that is owned by its wakers alone, of an executor that is gone.
struct Orphan(Mutex<Option<std::pin::Pin<Box<dyn Future<Output = ()> + Send>>>>);

impl Wake for Orphan {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn waker_may_drop_the_future_that_it_was_to_wake() {
    let (_dir, log, knobs) = wrapped("orphan", small());
    let log = Arc::new(log);
    knobs.delay_us.store(50_000, Ordering::Relaxed);
    let future = {
        let log = Arc::clone(&log);
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let twin = Arc::clone(&log);
        // Two futures in one task: the one that is woken first takes the other with it.
        async move {
            let mut first = pin!(log.ready(receipt));
            let mut second = pin!(twin.ready(receipt));
            std::future::poll_fn(|context| {
                let _ = first.as_mut().poll(context);
                second.as_mut().poll(context).map(drop)
            })
            .await;
        }
    };
    let task = Arc::new(Orphan(Mutex::new(Some(Box::pin(future)))));
    let waker = Waker::from(Arc::clone(&task));
    {
        let mut future = task.0.lock().unwrap();
        let poll = future.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(&waker));
        assert!(poll.is_pending());
    }
    drop((task, waker));
    let (done, ended) = std::sync::mpsc::channel();
    let waiter = Arc::clone(&log);
    thread::spawn(move || {
        let receipt = waiter.append_with(1, b"another", Level::Strict).unwrap();
        waiter.wait(receipt).unwrap();
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(20)).expect("the log hangs");
}

/// Tells when it is dropped.
struct Told(std::sync::mpsc::Sender<()>);

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

#[test]
fn waker_may_drop_the_last_handle_of_the_log() {
    let (dir, log, knobs) = wrapped("last-handle", small());
    knobs.delay_us.store(50_000, Ordering::Relaxed);
    let (dropped, told) = std::sync::mpsc::channel();
    let future = async move {
        let _told = Told(dropped);
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        log.ready(receipt).await.unwrap();
    };
    let task = Arc::new(Orphan(Mutex::new(Some(Box::pin(future)))));
    let waker = Waker::from(Arc::clone(&task));
    let mut future = task.0.lock().unwrap();
    let poll = future.as_mut().unwrap().as_mut().poll(&mut Context::from_waker(&waker));
    assert!(poll.is_pending());
    drop(future);
    // From here on the log's own list of waiters owns the task, and the task the log.
    drop((task, waker));
    told.recv_timeout(Duration::from_secs(20)).expect("the log's thread hangs");
    assert_eq!(recovered(dir.path()), [(1, b"entry".to_vec())], "it was closed in order");
}

/// What an executor does that runs a task where it is woken.
struct Inline<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Inline<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn polled_once(log: &Log, wake: impl Fn() + Send + Sync + 'static) {
    let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
    let mut future = Box::pin(log.ready(receipt));
    let waker = Waker::from(Arc::new(Inline(wake)));
    assert!(future.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // Its waker stays registered: the future is neither dropped nor polled again.
    std::mem::forget(future);
}

#[test]
fn waker_may_wait_for_the_log_itself() {
    let (_dir, log, knobs) = wrapped("inline", small());
    let log = Arc::new(log);
    knobs.delay_us.store(50_000, Ordering::Relaxed);
    let (done, ended) = std::sync::mpsc::channel();
    let twin = Arc::clone(&log);
    polled_once(&log, move || {
        let receipt = twin.append_with(1, b"another", Level::Strict).unwrap();
        twin.wait(receipt).unwrap();
        done.send(()).unwrap();
    });
    ended.recv_timeout(Duration::from_secs(20)).expect("the log hangs");
}

#[test]
fn waker_may_use_the_log_that_purges() {
    // Without threads of its own the log makes progress in `purge`, and wakes there.
    let (_dir, log, _) = wrapped("purging-waker", small().manual());
    let log = Arc::new(log);
    for _ in 0..100 {
        let _ = log.append_with(1, &[3; 4_000], Level::Relaxed).unwrap();
    }
    let keep = log.sync().unwrap();
    let (done, ended) = std::sync::mpsc::channel();
    let twin = Arc::clone(&log);
    polled_once(&log, move || done.send(twin.low_water()).unwrap());
    // Submit, do it (and, where that is another operation, the sync): what is left is to
    // tell those who wait.
    let operations = if log.stats().method == "direct" { 1 } else { 2 };
    for step in 0..2 * operations {
        assert!(log.step(), "step {step}");
    }
    assert!(ended.try_recv().is_err(), "the purge is to wake the task");
    let purging = Arc::clone(&log);
    let purge = thread::spawn(move || purging.purge(keep).unwrap());
    let seen = ended.recv_timeout(Duration::from_secs(20)).expect("the log hangs");
    assert_eq!(seen, purge.join().unwrap());
    assert!(seen > Lsn::ZERO, "the test is to purge");
}

#[test]
fn waker_that_panics_harms_nobody() {
    let (_dir, log, knobs) = wrapped("panicking-waker", small());
    knobs.delay_us.store(50_000, Ordering::Relaxed);
    let (woken, other) = std::sync::mpsc::channel();
    polled_once(&log, || panic!("a waker that panics"));
    polled_once(&log, move || woken.send(()).unwrap());
    other.recv_timeout(Duration::from_secs(20)).expect("the other task is never woken");
    let receipt = log.append_with(1, b"on", Level::Strict).unwrap();
    block_on(log.ready(receipt)).unwrap();
    log.close().unwrap();
}

#[test]
fn wait_while_unwinding_poisons_nothing() {
    struct WaitOnDrop<'a>(&'a Log);
    impl Drop for WaitOnDrop<'_> {
        fn drop(&mut self) {
            let receipt = self.0.append_with(1, b"farewell", Level::Strict).unwrap();
            self.0.wait(receipt).unwrap();
        }
    }
    let (_dir, log, _) = wrapped("unwinding", small());
    let panicked = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let _guard = WaitOnDrop(&log);
            std::panic::resume_unwind(Box::new("the user's own"));
        });
        thread.join().is_err()
    });
    assert!(panicked);
    let receipt = log.append_with(1, b"on", Level::Strict).unwrap();
    log.wait(receipt).unwrap();
}
