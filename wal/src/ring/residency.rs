//! Which of the ring's memory the system has to provide: little for a log that is hardly used,
//! all of it ahead of the appends of one that is, and none for one that is idle.

use bulla_storage::Lsn;
use bulla_storage::io::ring_memory::POPULATED;

/// A log to which as many bytes were appended is used: it will come to the rest of its ring. Of a
/// shorter ring it is a quarter.
const USED: u64 = 1024 * 1024;

#[derive(Debug)]
pub(super) struct Residency {
    /// Where the log was idle last: the ring holds nothing from before.
    pub(super) idle_at: Lsn,
    /// The log is used.
    pub(super) is_used: bool,
    /// What is still to be populated, by the positions that come there next.
    next: Lsn,
    end: Lsn,
}

impl Residency {
    /// Returns that of a ring whose memory nobody has touched.
    pub(super) const fn untouched(start: Lsn) -> Self {
        Self { idle_at: start, is_used: false, next: start, end: start }
    }

    /// Takes note of how far a ring of `len` bytes was filled. Returns whether the log is used
    /// now, and was not before: then there is memory to populate.
    pub(super) fn note(&mut self, filled: Lsn, len: u64) -> bool {
        if self.is_used || filled.distance_from(self.idle_at) < USED.min(len / 4) {
            return false;
        }
        *self = Self { is_used: true, next: filled, end: filled.plus(len), ..*self };
        true
    }

    /// Takes the next part that lacks memory.
    pub(super) fn take_part(&mut self) -> Option<Lsn> {
        let at = self.next;
        self.next = at.plus(POPULATED).min(self.end);
        (at < self.end).then_some(at)
    }
}
