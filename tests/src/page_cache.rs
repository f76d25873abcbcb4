//! What the page cache has of a file.
//!
//! Holds the `unsafe` of asking the kernel, in a call that no library has yet.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// `struct cachestat_range`, from the kernel's `linux/mman.h`; a length of 0 is up to the
/// end of the file.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// `struct cachestat`.
#[derive(Default)]
#[repr(C)]
struct Stat {
    cached: u64,
    dirty: u64,
    writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// The same on every architecture.
const SYS_CACHESTAT: libc::c_long = 451;

/// How many pages of a file are dirty in the page cache or on their way to the disk.
///
/// # Errors
/// `Unsupported` before Linux 6.5.
pub fn pages_not_on_disk(file: BorrowedFd<'_>) -> io::Result<u64> {
    let range = Range { offset: 0, len: 0 };
    let mut stat = Stat::default();
    // SAFETY: the call reads `range` and fills `stat`, which have the kernel's layout and
    // are alive here.
    let result = unsafe { libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), &range, &mut stat, 0) };
    if result == 0 { Ok(stat.dirty + stat.writeback) } else { Err(io::Error::last_os_error()) }
}
