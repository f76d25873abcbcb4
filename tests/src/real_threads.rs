//! The log with real threads on the real disk: what several suites share, and what the planted
//! bugs are shown to as well.
//!
//! A wait that never ends hangs: whoever runs these has patience of their own.

use std::collections::HashMap;
use std::future::Future;
use std::ops::ControlFlow;
use std::path::Path;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use bulla_recovery::{Range, Recovery};
use bulla_storage::io::Io;
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_wal::{Error, Level, Log, Method, Options};
use tempfile::TempDir;

use crate::temp_dir;
use crate::wrap::{Knobs, WrapIo};

/// Far beyond anything that a healthy log needs, on any machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Options of a log that rotates soon.
pub fn small() -> Options {
    Options::new().segment_len(256 * 1024).ring_len(64 * 1024)
}

/// A new log over a backend with knobs.
///
/// # Panics
/// When it can't be created.
#[must_use]
pub fn wrapped_on(io: &Arc<dyn Io>, name: &str, options: Options) -> (TempDir, Log, Arc<Knobs>) {
    let dir = temp_dir(name);
    let (io, knobs) = WrapIo::over(Arc::clone(io));
    let log = Log::create(dir.path().join("log"), &options.io(io)).unwrap();
    (dir, log, knobs)
}

/// The backends of this machine; says which one it lacks.
///
/// # Panics
/// When that can't be told.
#[must_use]
pub fn backends() -> Vec<Arc<dyn Io>> {
    let mut backends: Vec<Arc<dyn Io>> = vec![Arc::new(StdIo::new())];
    match UringIo::refusal() {
        None => backends.extend([Arc::new(UringIo::new()) as _, Arc::new(UringIo::eager()) as _]),
        Some(reason) => crate::skipped(reason),
    }
    backends
}

/// The number and the bytes of every entry, after a recovery.
///
/// # Panics
/// When it fails.
#[must_use]
pub fn recovered(dir: &Path) -> Vec<(u64, Vec<u8>)> {
    let recovery = Recovery::run(&dir.join("log"), &small()).unwrap();
    let mut entries = Vec::new();
    recovery
        .replay(Range::ALL, |entry| {
            entries.push((entry.seq.0, entry.payload.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    entries
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The smallest executor there is.
///
/// # Panics
/// When the future is not woken.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let start = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "the future was never woken");
        thread::park_timeout(PATIENCE);
    }
}

/// Eight threads append at all levels, and wait for some; all of it is recovered.
///
/// # Panics
/// When that is not so.
pub fn threads_at_mixed_levels_are_all_recovered_in_order() {
    for io in backends() {
        for method in [Method::Direct, Method::Buffered] {
            let (dir, log, _) = wrapped_on(&io, "mixed", small().method(method));
            let appended = Mutex::new(HashMap::new());
            thread::scope(|scope| {
                for thread in 0..8_u8 {
                    let (log, appended) = (&log, &appended);
                    scope.spawn(move || {
                        for entry in 0..300_u16 {
                            let level = Level::ALL[usize::from(entry) % 3];
                            // Some take long to copy, while others want the frame sealed.
                            let filler = if entry % 7 == 0 { &[7; 12_000][..] } else { &[7; 100] };
                            let payload = [&[thread][..], &entry.to_le_bytes(), filler].concat();
                            let receipt = log.append_with(1, &payload, level).unwrap();
                            if entry % 5 == 0 {
                                log.wait(receipt).unwrap();
                                assert!(log.is_ready(receipt).unwrap());
                            }
                            appended.lock().unwrap().insert(receipt.seq.0, payload);
                        }
                    });
                }
            });
            assert!(log.stats().rotations > 0, "the test is to rotate");
            log.close().unwrap();
            let appended = appended.into_inner().unwrap();
            let recovered = recovered(dir.path());
            assert_eq!(recovered.len(), appended.len());
            for (index, (seq, payload)) in recovered.iter().enumerate() {
                assert_eq!(*seq, index as u64 + 1);
                assert_eq!(appended.get(seq), Some(payload));
            }
        }
    }
}

/// Futures get ready at every level, with nobody else there to drive.
///
/// # Panics
/// When that is not so.
pub fn future_of_a_receipt_is_woken_without_anyone_waiting() {
    for io in backends() {
        let (_dir, log, _) = wrapped_on(&io, "future", small());
        for level in Level::ALL {
            let receipt = log.append_with(1, b"entry", level).unwrap();
            block_on(log.ready(receipt)).unwrap();
            assert!(log.is_ready(receipt).unwrap());
        }
    }
}

/// A log whose flusher has ended writes and syncs what is appended, though nobody waits.
///
/// # Panics
/// When that is not so.
pub fn flusher_that_has_ended_starts_again() {
    /// Longer than a flusher waits for more to do. Where it is not, the test shows less.
    const IDLE: Duration = Duration::from_millis(1_500);
    let sync = Duration::from_millis(50);
    let logs: Vec<_> =
        backends().iter().map(|io| wrapped_on(io, "ended", small().sync_interval(sync))).collect();
    for level in Level::ALL {
        for (_, log, _) in &logs {
            let receipt = log.append_with(1, b"entry", level).unwrap();
            let start = Instant::now();
            while log.durable() <= receipt.lsn {
                assert!(start.elapsed() < PATIENCE, "never durable: {level}");
                thread::sleep(Duration::from_millis(1));
            }
        }
        thread::sleep(IDLE);
        for (_, log, _) in &logs {
            let receipt = log.append_with(1, b"entry", level).unwrap();
            block_on(log.ready(receipt)).unwrap();
        }
    }
}

/// Threads and futures that wait for a write which fails hear of it.
///
/// # Panics
/// When that is not so.
pub fn failed_write_wakes_every_waiter_and_nothing_is_acknowledged_after() {
    for io in backends() {
        let (_dir, log, knobs) = wrapped_on(&io, "poison", small());
        let good = log.append_with(1, b"good", Level::Strict).unwrap();
        log.wait(good).unwrap();
        let durable = log.durable();
        knobs.delay_us.store(20_000, Ordering::Relaxed);
        knobs.fail.store(true, Ordering::Relaxed);
        thread::scope(|scope| {
            for thread in 0..16 {
                let log = &log;
                scope.spawn(move || {
                    let level = [Level::Balanced, Level::Strict][thread % 2];
                    let outcome = log.append_with(1, b"bad", level).and_then(|receipt| {
                        if thread % 4 < 2 {
                            log.wait(receipt)
                        } else {
                            block_on(log.ready(receipt))
                        }
                    });
                    let Err(Error::Poisoned { durable: shown, .. }) = outcome else {
                        panic!("{outcome:?}")
                    };
                    assert_eq!(shown, durable);
                });
            }
        });
        knobs.fail.store(false, Ordering::Relaxed);
        assert!(matches!(log.append(b"after"), Err(Error::Poisoned { .. })));
        assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
        assert!(log.is_ready(good).unwrap(), "what was durable stays so");
        assert_eq!(log.durable(), durable);
        assert!(matches!(log.close(), Err(Error::Poisoned { .. })));
    }
}
