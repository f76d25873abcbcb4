//! Linux's `io_uring` for the log's data; [`StdIo`] does everything else.
//!
//! Owns the probe for a usable ring. Where there is none (an old kernel, a container's
//! seccomp filter, no memory to lock, no descriptor left), the queue is that of `std` and
//! reports why: it must never fail an open that `std` could do. Tested by
//! `storage/tests/io_conformance.rs` and `tests/tests/uring.rs`.

mod queue;

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;

use self::queue::{LONG_WRITE, UringQueue};
use super::std::{StdIo, StdQueue};
use super::{Dir, Io, Queue};

/// The operating system's files, with the log's data written through `io_uring`.
///
/// The kernel reports the end of a direct write only once the thread that started it can be
/// interrupted: while that thread is stuck in the kernel (in a network file system that is
/// gone, or in `vfork` until the child's `exec`), all others that wait for the write wait as
/// long.
#[derive(Debug)]
pub struct UringIo {
    files: StdIo,
    /// Writes of at least this many bytes go into the ring even when it is empty.
    long_write: usize,
}

impl Default for UringIo {
    fn default() -> Self {
        Self { files: StdIo::new(), long_write: LONG_WRITE }
    }
}

/// Writes in flight by default.
const USUAL_DEPTH: usize = 8;

impl UringIo {
    /// Creates a handle; each queue finds out whether the kernel provides a ring.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a handle whose queues put every write into the ring, for tests.
    #[doc(hidden)]
    #[must_use]
    pub fn eager() -> Self {
        Self { long_write: 0, ..Self::default() }
    }

    /// Returns why there is no ring here, now; `None` when there is one.
    #[must_use]
    pub fn refusal() -> Option<&'static str> {
        UringQueue::new(1, LONG_WRITE).err().map(|error| reason(&error))
    }
}

/// Returns why the kernel provides no ring.
fn reason(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::NOSYS) => "this kernel has no io_uring",
        Some(Errno::PERM | Errno::ACCESS) => {
            "io_uring is forbidden here (a seccomp filter, or kernel.io_uring_disabled)"
        }
        Some(Errno::INVAL | Errno::OPNOTSUPP) => "this kernel's io_uring is too old",
        Some(Errno::NOMEM) => "io_uring gets no memory (RLIMIT_MEMLOCK)",
        Some(Errno::MFILE | Errno::NFILE) => "no descriptor is left for io_uring",
        _ => "io_uring fails when it is tried out",
    }
}

impl Io for UringIo {
    fn name(&self) -> &'static str {
        "uring"
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.files.create_dir(path)
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn Dir>> {
        self.files.open_dir(path)
    }

    fn queue(&self, depth: usize) -> io::Result<Box<dyn Queue>> {
        match UringQueue::new(depth, self.long_write) {
            Ok(queue) => Ok(Box::new(queue)),
            Err(error) => Ok(Box::new(StdQueue::instead(depth, reason(&error)))),
        }
    }

    fn usual_depth(&self) -> usize {
        USUAL_DEPTH
    }

    fn now_ns(&self) -> u64 {
        self.files.now_ns()
    }

    fn wall_ns(&self) -> u64 {
        self.files.wall_ns()
    }

    fn sleep_ns(&self, ns: u64) {
        self.files.sleep_ns(ns);
    }

    fn random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.files.random(bytes)
    }
}
