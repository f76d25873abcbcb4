//! Counts the calls that make something durable, without changing who makes them.
//!
//! The linker takes a definition in the program before the C library's, so every crate
//! of this program that calls `fsync` and the like calls these. They count and make the
//! system call. What makes system calls by itself (rustix, io_uring) or writes to files
//! opened with `O_DSYNC` is not seen: such a log tells its own count.

use std::ffi::{c_int, c_long, c_uint, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

/// Only ever added to; read when the threads that add have been joined.
static SYNCS: AtomicU64 = AtomicU64::new(0);

/// Calls of this process so far.
pub(crate) fn count() -> u64 {
    SYNCS.load(Ordering::Relaxed)
}

fn counted() {
    SYNCS.fetch_add(1, Ordering::Relaxed);
}

/// A system call's result as the C library gives it; it set `errno` if need be.
fn result(value: c_long) -> c_int {
    c_int::try_from(value).unwrap_or(-1)
}

// SAFETY: the name is the C library's; this has its signature and does what it does.
#[unsafe(no_mangle)]
extern "C" fn fsync(fd: c_int) -> c_int {
    counted();
    // SAFETY: the call takes a number and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_fsync, fd) })
}

// SAFETY: as `fsync`.
#[unsafe(no_mangle)]
extern "C" fn fdatasync(fd: c_int) -> c_int {
    counted();
    // SAFETY: the call takes a number and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_fdatasync, fd) })
}

// SAFETY: as `fsync`.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(fd: c_int, offset: i64, len: i64, flags: c_uint) -> c_int {
    counted();
    // SAFETY: the call takes numbers and touches no memory.
    result(unsafe { libc::syscall(libc::SYS_sync_file_range, fd, offset, len, flags) })
}

// SAFETY: as `fsync`.
#[unsafe(no_mangle)]
extern "C" fn msync(addr: *mut c_void, len: usize, flags: c_int) -> c_int {
    if flags & libc::MS_SYNC != 0 {
        counted();
    }
    // SAFETY: the caller's range, handed on as it is.
    result(unsafe { libc::syscall(libc::SYS_msync, addr, len, flags) })
}
