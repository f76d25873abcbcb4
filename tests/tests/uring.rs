//! The `io_uring` backend where it differs from `std`: a ring that is refused, writes in
//! flight, and who holds the lock. The suite of all backends is `storage/tests/io_conformance.rs`.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bulla_storage::io::sim::ByPath;
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_storage::io::{AlignedBuf, File, Io, Queue, Request, Ticket, write_full};
use bulla_tests::layer::{Layer, Layered};
use bulla_tests::wrap::WrapIo;
use bulla_tests::{page_cache, seccomp, temp_dir, uring};
use bulla_wal::{Level, Log, Method, Options, RingBytes};
use rustix::pipe::{PipeFlags, pipe_with};
use tempfile::TempDir;

const BLOCK: usize = 4096;

/// A queue that puts everything into the ring, or a line that says why there is none.
fn queue(depth: usize) -> Option<Box<dyn Queue>> {
    if let Some(reason) = UringIo::refusal() {
        bulla_tests::skipped(reason);
        return None;
    }
    Some(UringIo::eager().queue(depth).unwrap())
}

/// A file of zeros that were written.
fn file(dir: &TempDir, blocks: usize, direct: bool) -> Arc<dyn File> {
    let file = StdIo::new().create(&dir.path().join("file"), direct).unwrap();
    write_full(file.as_ref(), &AlignedBuf::zeroed(blocks * BLOCK), 0).unwrap();
    file.sync().unwrap();
    file
}

fn write(file: &Arc<dyn File>, block: usize, dsync: bool) -> Request {
    let bytes = RingBytes::from_heap(AlignedBuf::copy_of(&[7; BLOCK]));
    Request::Write { file: Arc::clone(file), offset: (block * BLOCK) as u64, bytes, dsync }
}

fn reap_all(queue: &mut dyn Queue) -> usize {
    let completions = std::iter::from_fn(|| queue.complete(true));
    completions.map(|done| assert_eq!(done.result.unwrap(), BLOCK as u64)).count()
}

#[test]
fn failed_and_short_writes_are_told() {
    uring::failed_and_short_writes_are_told().unwrap();
}

#[test]
fn small_write_alone_is_a_call_of_the_thread_that_drives() {
    if queue(1).is_none() {
        return;
    }
    let mut queue = UringIo::new().queue(2).unwrap();
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
    let file: Arc<dyn File> = Arc::new(uring::Descriptor(null.into()));
    queue.submit(Ticket(0), write(&file, 0, false));
    let lone = queue.complete(true).unwrap().result;
    assert_eq!(lone.unwrap_err().kind(), std::io::ErrorKind::Unsupported);
}

#[test]
fn durable_write_leaves_nothing_in_the_page_cache() {
    let dir = temp_dir("dsync");
    let Some(mut queue) = queue(2) else { return };
    let file = file(&dir, 2, false);
    let mut dirty_after = |dsync| {
        (0..2).for_each(|block| queue.submit(Ticket(block as u64), write(&file, block, dsync)));
        assert_eq!(reap_all(queue.as_mut()), 2);
        page_cache::pages_not_on_disk(file.as_fd().unwrap())
    };
    match dirty_after(false) {
        Ok(0) => bulla_tests::skipped("this file system writes everything at once"),
        Ok(_) => assert_eq!(dirty_after(true).unwrap(), 0),
        Err(error) => {
            bulla_tests::skipped(format_args!("the page cache can't be looked at: {error}"));
        }
    }
}

#[test]
fn writes_outlive_the_thread_that_started_them() {
    let dir = temp_dir("outlive");
    let Some(mut queue) = queue(64) else { return };
    let file = file(&dir, 64, true);
    for round in 0..20 {
        queue = std::thread::spawn({
            let file = Arc::clone(&file);
            move || {
                for block in 0..64 {
                    queue.submit(Ticket(block as u64), write(&file, block, round % 2 == 0));
                }
                queue
            }
        })
        .join()
        .unwrap();
        assert_eq!(reap_all(queue.as_mut()), 64);
    }
}

#[test]
fn ring_holds_the_lock_until_it_is_gone() {
    uring::ring_holds_the_lock_until_it_is_gone();
}

#[test]
fn ring_is_gone_only_when_its_writes_are_done() {
    uring::ring_is_gone_only_when_its_writes_are_done();
}

#[test]
fn write_of_a_thread_that_is_gone_is_done_when_it_is_told_so() {
    uring::write_of_a_thread_that_is_gone_is_done_when_it_is_told_so();
}

/// The kernel refuses to go on, for good, while it has a write. Takes the 5 s for which the
/// ring hopes that it ends.
#[test]
fn ring_that_breaks_down_fails_everything_and_frees_nothing_that_the_kernel_has() {
    let Some(mut queue) = queue(2) else { return };
    let (pipe, file) = uring::FullPipe::new();
    queue.submit(Ticket(0), uring::block_write(&file));
    // A filter is its thread's for good.
    let refused = std::thread::spawn(move || {
        if let Err(error) = seccomp::refuse_in_this_thread(libc::SYS_io_uring_enter, libc::EIO) {
            bulla_tests::skipped(format_args!("this machine refuses seccomp: {error}"));
            pipe.make_room();
            return;
        }
        let expect_refusal = |queue: &mut dyn Queue, ticket| {
            let done = queue.complete(true).unwrap();
            assert_eq!(done.ticket, ticket);
            assert_eq!(done.result.unwrap_err().raw_os_error(), Some(libc::EIO));
        };
        expect_refusal(queue.as_mut(), Ticket(0));
        queue.submit(Ticket(1), uring::block_write(&file));
        expect_refusal(queue.as_mut(), Ticket(1));
        assert!(queue.complete(true).is_none(), "each is told once");
        let held = Arc::downgrade(&file);
        drop(file);
        drop(queue);
        assert!(held.upgrade().is_some(), "the kernel may still write to it");
        // And so it does, from memory that nobody else got meanwhile.
        let others = [9; 64].map(|byte| AlignedBuf::copy_of(&[byte; BLOCK]));
        pipe.make_room();
        assert!(pipe.take(BLOCK) == [7; BLOCK]);
        drop(others);
    });
    refused.join().unwrap();
}

/// Names and bytes of all files in a log's directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    paths.map(|path| (path.file_name().unwrap().into(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn logs_of_both_backends_are_the_same_bytes() {
    if queue(1).is_none() {
        return;
    }
    for method in [Method::Direct, Method::Buffered] {
        let backends: [Arc<dyn Io>; 2] = [Arc::new(StdIo::new()), Arc::new(UringIo::eager())];
        let [std, uring] = backends.map(|io| {
            let dir = temp_dir("same");
            let (io, knobs) = WrapIo::over(io);
            knobs.still.store(true, Ordering::Relaxed);
            let options = Options::new().io(io).method(method).depth(1).manual();
            let options = options.segment_len(256 * 1024).ring_len(64 * 1024);
            let log = Log::create(dir.path().join("log"), &options).unwrap();
            for entry in 0..500_u16 {
                let level = Level::ALL[usize::from(entry) % 3];
                let payload = entry.to_le_bytes().repeat(usize::from(entry) % 700 + 1);
                let receipt = log.append_with(entry, &payload, level).unwrap();
                // Bytes tell when frames were sealed and what was durable by then.
                if entry % 7 == 0 {
                    log.sync().unwrap();
                    assert!(log.is_ready(receipt).unwrap());
                }
            }
            log.sync().unwrap();
            assert!(log.stats().rotations > 0, "the test is to rotate");
            log.close().unwrap();
            files(&dir.path().join("log"))
        });
        assert_eq!(std.keys().collect::<Vec<_>>(), uring.keys().collect::<Vec<_>>());
        for (name, bytes) in &std {
            assert!(uring.get(name) == Some(bytes), "{} differs ({method:?})", name.display());
        }
    }
}

/// A file of which one write in the ring goes into a pipe, as far as it has room. Nothing
/// else makes the kernel tell of a short write and then take the rest.
#[derive(Debug)]
struct ShortFile {
    file: Arc<dyn File>,
    pipe: Arc<OwnedFd>,
    /// After this many reads of the descriptor it is the pipe's, once.
    looks: Arc<AtomicU64>,
}

impl Layer for ShortFile {
    fn file(&self) -> &dyn File {
        &*self.file
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        let looks = self.looks.load(Ordering::Relaxed);
        self.looks.store(looks.saturating_sub(1), Ordering::Relaxed);
        if looks == 1 { Some(self.pipe.as_fd()) } else { self.file.as_fd() }
    }
}

#[test]
fn log_goes_on_after_a_short_write_in_the_ring() {
    if queue(1).is_none() {
        return;
    }
    let dir = temp_dir("short");
    let path = dir.path().join("log");
    let (reader, pipe) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).unwrap();
    let (pipe, looks) = (Arc::new(pipe), Arc::new(AtomicU64::new(0)));
    let (io, knobs) = WrapIo::over(Arc::new(UringIo::eager()));
    let left = Arc::clone(&looks);
    knobs.replace.by(Box::new(move |file| {
        let (pipe, looks) = (Arc::clone(&pipe), Arc::clone(&left));
        Arc::new(Layered(ShortFile { file, pipe, looks }))
    }));
    // Plain writes: a pipe knows no DSYNC.
    let options = Options::new().io(io).method(Method::Buffered).manual();
    let options = options.idle_mark(Duration::from_secs(3600));
    let log = Log::create(&path, &options).unwrap();
    let payload: Vec<u8> = (0..700_000_u32).map(|at| at as u8 ^ (at >> 9) as u8).collect();
    // The queue looks whether there is one, then takes it.
    looks.store(2, Ordering::Relaxed);
    for len in [payload.len(), 10] {
        let receipt = log.append_with(1, &payload[..len], Level::Strict).unwrap();
        log.wait(receipt).unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.short_writes, stats.writes), (1, 3));
    log.close().unwrap();

    // What the pipe took is what the rest was written after.
    let mut taken = vec![0; 1 << 20];
    let count = rustix::io::read(&reader, &mut taken).unwrap();
    assert!((BLOCK..payload.len()).contains(&count));
    let segment = bulla_storage::files::dir::segment_path(&path, bulla_wal::SegmentNumber(1));
    let segment = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&segment, &taken[..count], BLOCK as u64).unwrap();
    let inspection = bulla_recovery::Inspection::read(&path, &Options::new()).unwrap();
    let mut entries = Vec::new();
    inspection
        .replay(bulla_recovery::Range::ALL, |entry| {
            entries.push(entry.payload.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert!(entries == [&payload[..], &payload[..10]], "not what was appended");
}

/// Runs itself in children in which the kernel refuses a ring, in each way it can.
#[test]
fn log_without_a_ring_is_one_of_std_and_says_so() {
    const CHILD: &str = "BULLA_NO_RING_CHILD";
    const NAME: &str = "uring::log_without_a_ring_is_one_of_std_and_says_so";
    if std::env::var_os(CHILD).is_some() {
        log_without_a_ring();
        return;
    }
    // No memory, no descriptor, and whatever else a kernel may say.
    let lacks = [libc::ENOMEM, libc::EMFILE, libc::ENFILE, libc::EIO];
    for errno in [libc::EPERM, libc::ENOSYS, libc::EINVAL].into_iter().chain(lacks) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", NAME]).env(CHILD, "1");
        seccomp::refuse_io_uring(&mut child, errno);
        match child.output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout);
                let has_run = text.contains("1 passed");
                assert!(output.status.success() && has_run, "errno {errno}: {text}");
            }
            Err(error) => {
                bulla_tests::skipped(format_args!("this machine refuses seccomp: {error}"));
            }
        }
    }
}

fn log_without_a_ring() {
    let dir = temp_dir("no-ring");
    assert!(UringIo::refusal().is_some(), "the filter does nothing");
    let options = Options::new().io(Arc::new(UringIo::new())).segment_len(256 * 1024);
    let log = Log::create(dir.path().join("log"), &options).unwrap();
    for level in Level::ALL {
        let receipt = log.append_with(1, b"entry", level).unwrap();
        log.wait(receipt).unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.backend, stats.depth), ("std", 2));
    let reason = stats.fallback.unwrap_or_default();
    assert!(reason.contains("io_uring"), "{reason}");
    log.close().unwrap();
}
