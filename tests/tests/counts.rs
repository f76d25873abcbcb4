//! What an append and a commit cost, in counts that don't depend on the machine's speed.
//!
//! The allocator of this test binary counts; system calls are counted by the kernel: a
//! thread in strict seccomp mode is killed at the first one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bulla_tests::wrap::{TempDir, WrapIo};
use bulla_wal::io::Io;
use bulla_wal::io::sim::SimDisk;
use bulla_wal::io::std::StdIo;
use bulla_wal::io::uring::UringIo;
use bulla_wal::{Level, Log, Method, Options};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call goes on to the system's allocator unchanged; counting touches only
// a thread-local cell without a destructor, which never allocates.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations(run: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

#[test]
fn append_allocates_nothing() {
    let dir = TempDir::new("allocations");
    let log = Log::create(&dir.path().join("log"), &Options::new()).unwrap();
    for level in Level::ALL {
        log.append_with(1, &[1; 64], level).unwrap();
        // Below 4 MiB: no frame has to wait for a segment, none for the ring.
        let count = allocations(|| {
            for _ in 0..10_000 {
                log.append_with(1, &[1; 64], level).unwrap();
            }
        });
        assert_eq!(count, 0, "{level}");
    }
}

#[test]
fn waiting_alone_allocates_nothing() {
    let dir = TempDir::new("wait-allocations");
    // Stays within the opening segment: making spares is not what is counted.
    let log = Log::create(&dir.path().join("log"), &Options::new()).unwrap();
    let commit = || {
        let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    };
    (0..50).for_each(|_| commit());
    let count = allocations(|| (0..200).for_each(|_| commit()));
    assert_eq!(count, 0, "200 commits");
}

#[test]
fn lone_strict_writer_syncs_exactly_once_per_commit() {
    let backends: [fn() -> Arc<dyn Io>; 2] =
        [|| Arc::new(StdIo::new()), || Arc::new(UringIo::new())];
    let methods = [Method::Direct, Method::Buffered];
    for (backend, method) in backends.iter().flat_map(|io| methods.map(|method| (io, method))) {
        let dir = TempDir::new("lone");
        let options = Options::new()
            .io(backend())
            .method(method)
            .idle_promise(std::time::Duration::from_secs(3600));
        let log = Log::create(&dir.path().join("log"), &options).unwrap();
        let before = log.stats();
        for _ in 0..300 {
            let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
            log.wait(receipt).unwrap();
        }
        let after = log.stats();
        assert_eq!(after.durable_operations() - before.durable_operations(), 300, "{method:?}");
        assert_eq!(after.writes - before.writes, 300, "{method:?}");
        if let Some(reason) = after.fallback {
            println!("SKIPPED: counted {} and {} instead: {reason}", after.backend, after.method);
        }
    }
}

#[test]
fn many_strict_writers_share_syncs() {
    let dir = TempDir::new("many");
    let (io, knobs) = WrapIo::new(StdIo::new());
    let log = Log::create(&dir.path().join("log"), &Options::new().io(io)).unwrap();
    // As slow as a slow disk, so that grouping does not depend on this machine's.
    knobs.delay_us.store(2_000, Ordering::Relaxed);
    let before = log.stats();
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..30 {
                    let receipt = log.append_with(1, &[1; 64], Level::Strict).unwrap();
                    log.wait(receipt).unwrap();
                }
            });
        }
    });
    let after = log.stats();
    let syncs = after.durable_operations() - before.durable_operations();
    assert!(syncs * 10 < 32 * 30, "{syncs} syncs for {} commits", 32 * 30);
}

/// Bytes that reach the disk, per byte that the log writes to its segments.
fn write_amplification(level: Level) -> f64 {
    let disk = SimDisk::new(1);
    let options = Options::new().io(disk.process()).segment_len(1 << 20).ring_len(1 << 20).manual();
    let log = Log::create(Path::new("/log"), &options).unwrap();
    let append_8_mib = || {
        for _ in 0..128 {
            let receipt = log.append_with(1, &[1; 60_000], level).unwrap();
            log.wait(receipt).unwrap();
        }
        log.sync().unwrap();
        (disk.counts().written_bytes as f64, log.stats().written_bytes as f64)
    };
    let (before, after) = (append_8_mib(), append_8_mib());
    (after.0 - before.0) / (after.1 - before.1)
}

#[test]
fn zeros_are_written_ahead_while_commits_are_small_and_only_then() {
    let (small, large) = (write_amplification(Level::Strict), write_amplification(Level::Relaxed));
    assert!((1.9..2.2).contains(&small), "{small}");
    assert!((1.0..1.2).contains(&large), "{large}");
}

/// Runs itself in a child, in which one thread may do nothing but write to a pipe.
#[test]
fn relaxed_append_makes_no_system_call() {
    const CHILD: &str = "BULLA_COUNTS_CHILD";
    if std::env::var_os(CHILD).is_some() {
        append_under_seccomp();
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "relaxed_append_makes_no_system_call", "--nocapture"])
        .env(CHILD, "1")
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    if status.code() == Some(77) {
        println!("SKIPPED: this machine refuses seccomp");
        return;
    }
    assert!(status.success(), "the appending thread made a system call: {status}");
}

fn append_under_seccomp() -> ! {
    let dir = TempDir::new("seccomp");
    // No other thread: a contended lock would be a system call, and is not what this is
    // about.
    let log = Log::create(&dir.path().join("log"), &Options::new().manual()).unwrap();
    log.append_with(1, &[1; 64], Level::Relaxed).unwrap();
    let (mut reader, mut writer) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let strict = rustix::thread::SecureComputingMode::Strict;
            if rustix::thread::set_secure_computing_mode(strict).is_err() {
                std::process::exit(77);
            }
            for _ in 0..10_000 {
                if log.append_with(1, &[1; 64], Level::Relaxed).is_err() {
                    break;
                }
            }
            let appended = u8::from(log.end().0 > 10_000 * 64);
            let _ = writer.write_all(&[appended]);
            // Leaving the thread would take system calls: the process ends it.
            loop {
                std::hint::spin_loop();
            }
        });
        let mut appended = [0];
        let read = reader.read_exact(&mut appended);
        let _ = std::fs::remove_dir_all(dir.path());
        std::process::exit(if read.is_ok() && appended == [1] { 0 } else { 1 })
    })
}
