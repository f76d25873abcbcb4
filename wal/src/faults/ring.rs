//! Frames with wrong headers, batches that are not atomic, memory that is free too early.

use std::io;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::ring::{self, Appended, Closed, Group, NoEmptyFrame, Refused, RingBytes, Stamp, Start};
use bulla_storage::faults::mutants::{Mutant, planted};
use bulla_storage::format::{FrameKind, Seed};
use bulla_storage::io::Io;
use bulla_storage::{Level, Lsn, Options};

#[derive(Debug)]
pub(crate) struct Ring {
    ring: ring::Ring,
    io: Arc<dyn Io>,
    /// The end of the last frame that was taken.
    taken: AtomicU64,
    /// The `prev_crc` with which the log was opened.
    prev_crc: OnceLock<u32>,
}

impl Ring {
    pub(crate) fn new(options: &Options, start: Start) -> io::Result<Self> {
        Ok(Self {
            ring: ring::Ring::new(options, start)?,
            io: Arc::clone(&options.io),
            taken: AtomicU64::new(start.lsn.0),
            prev_crc: OnceLock::new(),
        })
    }

    pub(crate) fn append(&self, group: Group<'_>, level: Level) -> Result<Appended, Refused> {
        // Only where there is room for all: who is refused appends all of the batch again.
        let splits = planted(Mutant::BatchSplit) && !self.is_full() && self.spares() > 0;
        let (last, before) = match group.entries {
            [before @ .., last] if splits => (last, before),
            _ => return self.ring.append(group, level),
        };
        let append = |entry| {
            let entry = self.group(std::slice::from_ref(entry)).map_err(|_| Refused::Full)?;
            self.ring.append(entry, level)
        };
        let mut wake_flusher = false;
        for entry in before {
            wake_flusher |= append(entry)?.wake_flusher;
        }
        let appended = append(last)?;
        Ok(Appended { wake_flusher: wake_flusher || appended.wake_flusher, ..appended })
    }

    pub(crate) fn take_frame(&self) -> Option<Closed> {
        self.ring.take_frame().inspect(|closed| self.note(closed))
    }

    pub(crate) fn take_empty_frame(&self, kind: FrameKind) -> Result<Closed, NoEmptyFrame> {
        self.ring.take_empty_frame(kind).inspect(|closed| self.note(closed))
    }

    fn note(&self, taken: &Closed) {
        self.taken.store(taken.end.0, Ordering::Relaxed);
    }

    pub(crate) fn free(&self, upto: Lsn) -> bool {
        let taken = Lsn(self.taken.load(Ordering::Relaxed));
        self.ring.free(if planted(Mutant::RingFreedBeforeWritten) { taken } else { upto })
    }

    pub(crate) fn seal(&self, closed: &Closed, seed: Seed, mut stamp: Stamp) -> (RingBytes, u32) {
        let epoch_start = *self.prev_crc.get_or_init(|| stamp.prev_crc);
        if planted(Mutant::PrevCrcStandsStill) {
            stamp.prev_crc = epoch_start;
        }
        if planted(Mutant::MarkAheadOfDurable) {
            stamp.durable_lsn = closed.start;
        }
        if planted(Mutant::WallTimeGoesBack) {
            stamp.wall_ns = self.io.wall_ns();
        }
        self.ring.seal(closed, seed, stamp)
    }
}

impl Deref for Ring {
    type Target = ring::Ring;

    fn deref(&self) -> &Self::Target {
        &self.ring
    }
}
