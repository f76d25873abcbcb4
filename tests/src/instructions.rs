//! How many instructions a thread executes, counted by the processor.
//!
//! Holds the `unsafe` of asking the kernel for the counter. Virtual machines often have none,
//! and kernels often refuse it (`kernel.perf_event_paranoid`).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// `PERF_TYPE_HARDWARE` and the size of `struct perf_event_attr`, as its first 8 bytes.
const HARDWARE: u64 = 128 << 32;
const INSTRUCTIONS: u64 = 1;
/// `exclude_kernel` and `exclude_hv`.
const USER_ONLY: u64 = 1 << 5 | 1 << 6;

/// Counts the instructions of the thread that makes it, outside the kernel.
#[derive(Debug)]
pub struct Instructions(OwnedFd);

impl Instructions {
    /// Begins to count.
    ///
    /// # Errors
    /// Where there is no counter, or none for us.
    pub fn count() -> io::Result<Self> {
        let mut attributes = [0_u64; 16];
        (attributes[0], attributes[1], attributes[5]) = (HARDWARE, INSTRUCTIONS, USER_ONLY);
        // SAFETY: the kernel reads 128 bytes, the size that they say, and keeps none; on
        // success it gives a descriptor that nobody else has.
        unsafe {
            let none = -1_i32;
            let call = libc::SYS_perf_event_open;
            match libc::syscall(call, attributes.as_ptr(), 0, none, none, 0_u64) {
                fd @ 0.. => Ok(Self(OwnedFd::from_raw_fd(fd as i32))),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    /// How many there were so far.
    ///
    /// # Errors
    /// When the counter can't be read.
    pub fn so_far(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        rustix::io::read(&self.0, &mut count)?;
        Ok(u64::from_ne_bytes(count))
    }
}
