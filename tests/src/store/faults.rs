//! What fails on the disk under the store's campaign, and what that excuses: errors while a fault
//! is planted, and of these only those that the documentation names. A checkpoint or a spare
//! segment that fails poisons nothing; a write or sync of the log that fails ends the life.

use std::io::ErrorKind;

use bulla_engine::{CheckpointError, Error, Level, Store, Token, TokenId};
use bulla_storage::io::sim::FaultOp;
use bulla_wal::Error as LogError;

use super::{UNBOUNDED, World};
use crate::model::Violation;

impl World {
    /// Makes some lives, and some opens, meet an operation that fails or a full disk.
    pub(super) fn plant_fault(&mut self) {
        const OPS: [FaultOp; 9] = [
            FaultOp::Write,
            FaultOp::Write,
            FaultOp::Sync,
            FaultOp::Sync,
            FaultOp::SyncDir,
            FaultOp::Create,
            FaultOp::Rename,
            FaultOp::Unlink,
            FaultOp::Preallocate,
        ];
        if self.rng.one_in(3) {
            let op = OPS[self.rng.below(OPS.len() as u64) as usize];
            // Of what is done seldom, one of the first times.
            let (path, most) = match self.rng.below(5) {
                0 => (".seg.tmp", 3),
                1 => ("CONTROL", 3),
                2 => ("checkpoints", 8),
                3 => (".seg", 10),
                _ => ("", 40),
            };
            let after = self.rng.below(most);
            self.note(format_args!("fault: {op:?} of *{path}* after {after}"));
            self.disk.fail_next(op, ErrorKind::Other, path, after);
            self.faulty = true;
        } else if self.rng.one_in(3) {
            let len = |path| self.disk.read_file(path).len() as u64;
            let used: u64 = self.disk.paths().into_iter().map(len).sum();
            let capacity = used + self.rng.below(4) * 8 * 1024;
            self.note(format_args!("capacity: {capacity}"));
            self.disk.set_capacity(Some(capacity));
            self.faulty = true;
            // A log notices a full disk when it has filled the segments that it has.
            self.disk.disarm();
        }
    }

    /// Nothing fails from here on.
    pub(super) fn heal(&mut self) {
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        self.faulty = false;
        self.poisoned = false;
    }

    /// May an operation fail so? Takes down what that means for the rest of this life.
    pub(super) fn is_excused(&mut self, error: &Error) -> bool {
        match error {
            _ if self.disk.is_crashed() => true,
            Error::Log(LogError::Poisoned { .. }) if self.faulty => {
                self.poisoned = true;
                true
            }
            Error::Log(LogError::NoSegment(_)) if self.faulty => true,
            Error::Log(LogError::NoSpace(_)) if self.faulty => {
                self.tally.no_space += 1;
                if self.rng.one_in(3) {
                    self.disk.set_capacity(None);
                }
                true
            }
            _ => false,
        }
    }

    /// May a checkpoint fail so?
    pub(super) fn is_checkpoint_excused(&mut self, error: &Error) -> bool {
        match error {
            // The segment is full to its last sector.
            Error::Checkpoint(CheckpointError::NotMarked { .. }) => true,
            Error::Checkpoint(CheckpointError::Io { .. }) | Error::Log(LogError::Io { .. })
                if self.faulty =>
            {
                self.tally.checkpoints_failed += 1;
                true
            }
            // It reads a snapshot, whose pages make way.
            Error::Expired(_) => self.max_pages < UNBOUNDED,
            error => self.is_excused(error),
        }
    }

    /// May an open fail so? Nothing but a damaged file is ever taken for damage.
    pub(super) fn is_open_excused(&self, error: &Error) -> bool {
        let io = match error {
            Error::Log(error) => {
                error.is_out_of_space()
                    || matches!(error, LogError::Io { .. } | LogError::NoSegment(_))
                    || matches!(error, LogError::Poisoned { .. })
            }
            Error::Checkpoint(CheckpointError::Io { .. }) => true,
            _ => false,
        };
        self.disk.is_crashed() || (self.faulty && io)
    }

    /// After a failure of the log nothing more is acknowledged, everything says so, and what the
    /// store shows is still there to be read.
    pub(super) fn look_at_poisoned(&mut self, store: &Store) -> Result<(), Violation> {
        self.note(format_args!("poisoned"));
        self.tally.poisoned += 1;
        self.compare(store)?;
        self.acknowledge(store);
        let acknowledged = (self.durable, self.written);
        for _ in 0..3 {
            self.disk.advance(2_000_000_000);
            store.step();
        }
        // In the place of one that is there: it can't exceed the quota.
        let id = self.map.keys().next().copied().unwrap_or(1);
        let token = Token::builder(TokenId(id)).build().expect("in range");
        match store.at(Level::Strict).begin().put(&token) {
            Err(Error::Log(LogError::Poisoned { .. })) => {}
            _ if self.disk.is_crashed() => return Ok(()),
            other => return Err(format!("I4: a put into a poisoned store: {other:?}")),
        }
        self.acknowledge(store);
        if acknowledged != (self.durable, self.written) {
            return Err(format!("I4: acknowledged after a failure, before it {acknowledged:?}"));
        }
        self.sync(store)?;
        self.checkpoint(store)?;
        if self.disk.is_crashed() { Ok(()) } else { self.compare(store) }
    }
}
