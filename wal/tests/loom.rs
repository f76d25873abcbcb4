//! Every interleaving (within a preemption bound) of small programs on the real log:
//! appending while others seal, handing the lead over, waking everyone on poison, closing.
//!
//! Run: `RUSTFLAGS="--cfg loom" cargo test -p bulla-wal --release --test loom`
//! `LOOM_MAX_PREEMPTIONS` (default here: 2) bounds the search. Loom reports a deadlock
//! when a waiter is never woken. `BULLA_BROKEN=PoisonWakesNobody`, or another bug of
//! `storage/src/faults/mutants.rs`, shows what a model does when it fails.
#![cfg(loom)]

use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bulla_storage::faults::mutants::{Mutant, models};
use bulla_storage::io::{
    Access, Completion, Dir, DirEntry, File, Io, Lock, Queue, Request, Ticket,
};
use bulla_wal::{Error, Level, Log, Options};

fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.max_branches = 20_000;
    models::plant_what_is_asked_for();
    builder.check(run);
}

/// A log without threads of its own: loom forgets an `unpark` of a thread that is waiting
/// for a lock, which std does not.
fn log(io: &Arc<MemoryIo>) -> Arc<Log> {
    Arc::new(Log::create(Path::new("/log"), &options(io)).unwrap())
}

fn options(io: &Arc<MemoryIo>) -> Options {
    let options = Options::new().io(Arc::clone(io) as Arc<dyn Io>).sector(512);
    options.segment_len(16 * 1024).ring_len(16 * 1024).manual()
}

#[test]
fn appends_while_another_thread_seals_are_all_written() {
    model(|| {
        let io = Arc::new(MemoryIo::default());
        let log = log(&io);
        let other = {
            let log = Arc::clone(&log);
            loom::thread::spawn(move || log.append_with(1, b"other", Level::Relaxed).unwrap())
        };
        let mine = log.append_with(2, b"mine", Level::Strict).unwrap();
        log.wait(mine).unwrap();
        let other = other.join().unwrap();
        assert_ne!(mine.lsn, other.lsn);
        assert_eq!(mine.seq.0 + other.seq.0, 3, "the numbers are dense");
        let end = log.sync().unwrap();
        assert!(mine.lsn < end && other.lsn < end);
        io.assert_has(&[b"mine", b"other"]);
    });
}

#[test]
fn leader_hands_over_so_that_no_waiter_is_left() {
    model(|| {
        let io = Arc::new(MemoryIo::default());
        let log = log(&io);
        let receipt = log.append_with(1, b"entry", Level::Strict).unwrap();
        let threads = [true, false].map(|appends| {
            let log = Arc::clone(&log);
            loom::thread::spawn(move || {
                let receipt = if appends {
                    log.append_with(1, b"entry", Level::Strict).unwrap()
                } else {
                    receipt
                };
                log.wait(receipt).unwrap();
                assert!(receipt.lsn < log.durable());
            })
        });
        log.wait(receipt).unwrap();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(io.unsynced_acknowledged(), 0);
    });
}

#[test]
fn strict_and_balanced_waiters_are_released_by_their_own_watermark() {
    model(|| {
        let io = Arc::new(MemoryIo::default());
        let log = log(&io);
        let strict = {
            let log = Arc::clone(&log);
            loom::thread::spawn(move || {
                let receipt = log.append_with(1, b"strict", Level::Strict).unwrap();
                log.wait(receipt).unwrap();
                assert!(receipt.lsn < log.durable());
            })
        };
        let receipt = log.append_with(1, b"balanced", Level::Balanced).unwrap();
        log.wait(receipt).unwrap();
        assert!(receipt.lsn < log.written());
        strict.join().unwrap();
    });
}

#[test]
fn poison_wakes_every_waiter() {
    model(|| {
        let io = Arc::new(MemoryIo::default());
        let log = log(&io);
        let fail = |log: &Log| match log.append_with(1, b"entry", Level::Strict) {
            Ok(receipt) => {
                let error = log.wait(receipt).unwrap_err();
                assert!(matches!(error, Error::Poisoned { .. }), "{error}");
            }
            Err(error) => assert!(matches!(error, Error::Poisoned { .. }), "{error}"),
        };
        io.fail.store(true, Ordering::Relaxed);
        let threads: Vec<_> = (0..2)
            .map(|_| {
                let log = Arc::clone(&log);
                loom::thread::spawn(move || fail(&log))
            })
            .collect();
        fail(&log);
        for thread in threads {
            thread.join().unwrap();
        }
    });
}

/// Whoever has the last handle closes: the type of `close` lets nobody append meanwhile, but a
/// waiter may just be leaving, and what it left to others is theirs to write.
#[test]
fn close_makes_durable_what_threads_appended_that_have_just_left() {
    model(|| {
        let io = Arc::new(MemoryIo::default());
        let log = loom::sync::Arc::new(Log::create(Path::new("/log"), &options(&io)).unwrap());
        let strict = log.append_with(1, b"strict", Level::Strict).unwrap();
        let leave = move |log: loom::sync::Arc<Log>, payload: &[u8]| {
            log.wait(strict).unwrap();
            let _ = log.append_with(1, payload, Level::Relaxed).unwrap();
            // Of two that look at once neither is the last: then the log is dropped.
            if let Ok(log) = loom::sync::Arc::try_unwrap(log) {
                log.close().unwrap();
            }
        };
        let other = {
            let log = loom::sync::Arc::clone(&log);
            loom::thread::spawn(move || leave(log, b"other"))
        };
        leave(log, b"mine");
        other.join().unwrap();
        assert_eq!(io.unsynced_acknowledged(), 0);
        io.assert_has(&[b"strict", b"mine", b"other"]);
    });
}

#[test]
fn each_of_these_models_can_fail() {
    const CLOSE: &str = "close_makes_durable_what_threads_appended_that_have_just_left";
    models::assert_each_fails(&[
        ("appends_while_another_thread_seals_are_all_written", Mutant::SealerDoesNotWait),
        ("poison_wakes_every_waiter", Mutant::PoisonWakesNobody),
        (CLOSE, Mutant::CloseDoesNotDrain),
    ]);
}

/// Files in memory. Its locks are std's: they are never held across a point where loom
/// switches threads.
#[derive(Clone, Debug, Default)]
struct MemoryIo {
    files: Arc<Mutex<HashMap<String, Arc<MemoryFile>>>>,
    fail: Arc<AtomicBool>,
}

impl MemoryIo {
    /// The log's first segment has these payloads.
    fn assert_has(&self, payloads: &[&[u8]]) {
        let files = self.files.lock().unwrap();
        let bytes =
            files.get("00000000000000000001.seg").expect("the file exists").bytes.lock().unwrap();
        for payload in payloads {
            let is_there = bytes.windows(payload.len()).any(|bytes| bytes == *payload);
            assert!(is_there, "{} is lost", payload.escape_ascii());
        }
    }

    /// Writes to segments, without DSYNC, that no sync followed.
    fn unsynced_acknowledged(&self) -> usize {
        let files = self.files.lock().unwrap();
        let segments = files.iter().filter(|(name, _)| name.ends_with(".seg"));
        segments.map(|(_, file)| *file.unsynced.lock().unwrap()).sum()
    }
}

#[derive(Debug, Default)]
struct MemoryFile {
    bytes: Mutex<Vec<u8>>,
    unsynced: Mutex<usize>,
    fail: Arc<AtomicBool>,
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn is_direct(&self) -> bool {
        true
    }

    fn read_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.write_pieces_at([bytes, &[]], offset, false)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        // Others go on while the disk works.
        loom::thread::yield_now();
        if self.fail.load(Ordering::Relaxed) {
            return Err(io::Error::other("injected"));
        }
        let mut file = self.bytes.lock().unwrap();
        let written = pieces.concat();
        let start = usize::try_from(offset).unwrap();
        let end = start + written.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[start..end].copy_from_slice(&written);
        *self.unsynced.lock().unwrap() += usize::from(!dsync);
        Ok(written.len())
    }

    fn sync(&self) -> io::Result<()> {
        *self.unsynced.lock().unwrap() = 0;
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

impl Io for MemoryIo {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn create_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn open_dir(&self, _path: &Path) -> io::Result<Arc<dyn Dir>> {
        Ok(Arc::new(MemoryDir(self.clone())))
    }

    fn queue(&self, _depth: usize) -> io::Result<Box<dyn Queue>> {
        Ok(Box::new(MemoryQueue { waiting: VecDeque::new() }))
    }

    fn now_ns(&self) -> u64 {
        0
    }

    fn wall_ns(&self) -> u64 {
        0
    }

    fn sleep_ns(&self, _ns: u64) {}

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        bytes.fill(7);
        Ok(())
    }
}

/// The one directory of a [`MemoryIo`].
#[derive(Debug)]
struct MemoryDir(MemoryIo);

impl Dir for MemoryDir {
    fn create_dir(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn open_dir(&self, _name: &str) -> io::Result<Arc<dyn Dir>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn list(&self) -> io::Result<Vec<DirEntry>> {
        Ok(Vec::new())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut files = self.0.files.lock().unwrap();
        let file = files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        files.insert(to.to_owned(), file);
        Ok(())
    }

    fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        self.rename(from, to)
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let removed = self.0.files.lock().unwrap().remove(name);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn create(&self, name: &str, _direct: bool) -> io::Result<Arc<dyn File>> {
        let fail = Arc::clone(&self.0.fail);
        let file = Arc::new(MemoryFile { fail, ..MemoryFile::default() });
        self.0.files.lock().unwrap().insert(name.to_owned(), Arc::clone(&file));
        Ok(file)
    }

    fn open(&self, _name: &str, _access: Access) -> io::Result<Arc<dyn File>> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn create_as(&self, _name: &str) -> io::Result<()> {
        Ok(())
    }

    fn try_lock(&self, _name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(MemoryLock)))
    }

    fn try_lock_file(&self, _name: &str) -> io::Result<Option<Box<dyn Lock>>> {
        Ok(Some(Box::new(MemoryLock)))
    }

    fn physical_sector(&self) -> Option<u32> {
        None
    }
}

#[derive(Debug)]
struct MemoryLock;

impl Lock for MemoryLock {}

/// Its operations are for whoever takes them, without the driver's lock.
#[derive(Debug)]
struct MemoryQueue {
    waiting: VecDeque<(Ticket, Request)>,
}

// SAFETY: requests are only given out by `take`; none is ever reported.
unsafe impl Queue for MemoryQueue {
    fn depth(&self) -> usize {
        2
    }

    fn submit(&mut self, ticket: Ticket, request: Request) {
        self.waiting.push_back((ticket, request));
    }

    fn take(&mut self) -> Option<(Ticket, Request)> {
        self.waiting.pop_front()
    }

    fn complete(&mut self, _wait: bool) -> Option<Completion> {
        None
    }
}
