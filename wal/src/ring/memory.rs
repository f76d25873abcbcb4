//! Populating the ring ahead of appends, and giving its memory back.

use super::Ring;
use super::residency::Residency;
use crate::sync::lock;

impl Ring {
    /// Has the system find memory for the next part of the ring, in the order in which appends
    /// will come to it. Returns whether there was one that lacked it.
    pub(crate) fn populate_next(&self) -> bool {
        let part = lock(&self.state).residency.take_part();
        let Some(at) = part else { return false };
        self.memory.populate(at);
        let is_used = lock(&self.state).residency.is_used;
        if !is_used {
            // The log became idle meanwhile.
            self.discard();
        }
        true
    }

    /// Gives the ring's memory back to the system, unless it holds something.
    pub(crate) fn give_memory_back(&self) {
        let is_untouched = {
            let state = lock(&self.state);
            state.residency.idle_at == state.start
        };
        if !is_untouched {
            self.discard();
        }
    }

    fn discard(&self) {
        let mut state = lock(&self.state);
        if state.is_open || !state.closed.is_empty() || state.freed < state.start {
            return;
        }
        state.residency = Residency::untouched(state.start);
        // SAFETY: no frame is open and every frame is written, so all of the ring is free. The
        // next thread that writes there must open a frame first, for which it takes the lock that
        // we hold, and no write in flight has a byte of the ring.
        unsafe { self.memory.discard() };
    }
}
