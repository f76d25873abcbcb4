//! Atomics, and how a thread lets others go on. The loom models bring their own.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Lets others go on, who will soon have done what is waited for.
pub(crate) fn pause(round: &mut u32) {
    /// Rounds that take less time than giving the processor away.
    const SPINS: u32 = 64;
    if *round < SPINS {
        *round += 1;
        std::hint::spin_loop();
    } else {
        std::thread::yield_now();
    }
}
