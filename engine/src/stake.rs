//! What a repair would do to the records of a store, before it is done.
//!
//! Reads two states one after the other, each with as much memory as the store has records: the one
//! that the store would open with after the cut, and the one that everything intact adds up to.
//! Takes no lock, changes nothing.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use bulla_recovery::{Inspection, Position, RepairPreview, ReplayStats};
use bulla_storage::files::dir::Directory;
use bulla_storage::frames::anchor::Anchor;
use bulla_wal::{Lsn, Options, Seq};

use crate::checkpoint::source::Fallback;
use crate::checkpoint::{Candidates, CheckpointDir, CheckpointSource, Choice};
use crate::error::Result;
use crate::quota::Quota;
use crate::record::Record;
use crate::state::{LOAD_THREADS, State};

/// The records that a repair would keep and lose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordsAtStake {
    /// Records that the store would have after the repair.
    pub kept: u64,
    /// Those of them that would be as they were before: what changed or deleted them would be lost.
    pub reverted: u64,
    /// Records that would be lost: the intact checkpoints and entries have them. Damaged entries,
    /// if any are lost, may hold others.
    pub lost: u64,
}

/// Returns what a repair would do to the records of the store in `dir`. `inspection` is of the same
/// directory as it is now.
///
/// # Errors
/// [`Error::Log`](crate::Error::Log) when the log can't be read,
/// [`Error::Entry`](crate::Error::Entry) when it holds something other than changes of such
/// records, [`Error::Memory`](crate::Error::Memory).
pub fn records_at_stake<R: Record>(
    dir: impl AsRef<Path>,
    options: &Options,
    inspection: &Inspection,
    repair: &RepairPreview,
) -> Result<RecordsAtStake> {
    let dir = Directory::open(options.io.as_ref(), dir.as_ref())?;
    let stake = Stake { dir, options, inspection, repair };
    let mut kept: HashMap<u32, u32> = HashMap::new();
    if let Some(state) = stake.kept::<R>()? {
        kept = state.iter().map(|record| (record.id().into(), fingerprint(&record))).collect();
    }
    let count = kept.len() as u64;
    let (mut unchanged, mut lost) = (0, 0);
    for record in stake.all::<R>()?.iter() {
        match kept.get(&record.id().into()) {
            Some(kept) => unchanged += u64::from(*kept == fingerprint(&record)),
            None => lost += 1,
        }
    }
    Ok(RecordsAtStake { kept: count, reverted: count - unchanged, lost })
}

fn fingerprint<R: Record>(record: &R) -> u32 {
    crc32fast::hash(record.as_bytes())
}

struct Stake<'a> {
    dir: Directory,
    options: &'a Options,
    inspection: &'a Inspection,
    repair: &'a RepairPreview,
}

impl Stake<'_> {
    fn is_from_start(&self) -> bool {
        self.inspection.report().first_seq == Seq(1)
    }

    /// Returns the state with which the store would open after the repair; `None` if it would not.
    fn kept<R: Record>(&self) -> Result<Option<State<R>>> {
        let candidates = Candidates::read(&CheckpointDir::of(&self.dir))?;
        let mut standing = self.inspection.standing(&candidates.anchors())?;
        standing.retain(|anchor| self.repair.keeps(anchor));
        let first = self.inspection.report().first_lsn;
        let Ok(choice) = candidates.choose(&standing, first, self.is_from_start()) else {
            return Ok(None);
        };
        let Choice { newest, fallback, .. } = choice;
        let from = newest.as_ref().map(|newest| newest.head.anchor.upto);
        let state = State::new(Quota::unlimited(), !self.options.is_manual());
        if let Some(newest) = newest {
            let (io, store) = (Arc::clone(&self.options.io), self.dir.clone());
            state.begin(CheckpointSource { newest, fallback, io, store });
            // A slab that can't be rebuilt is an error of the open, too.
            state.load_all(LOAD_THREADS)?;
        }
        self.replay_kept(&state, from)?;
        Ok(Some(state))
    }

    /// Returns the state that everything intact adds up to.
    fn all<R: Record>(&self) -> Result<State<R>> {
        let candidates = Candidates::read(&CheckpointDir::of(&self.dir))?;
        // Also those that the damage, or the cut, makes unusable; none of another history.
        let timeline = &self.inspection.report().timeline;
        let is_ours = |anchor: &Anchor| timeline.check_read(anchor.epoch, anchor.upto).is_ok();
        let anchors = candidates.anchors().into_iter().filter(is_ours);
        for anchor in anchors {
            let candidates = Candidates::read(&CheckpointDir::of(&self.dir))?;
            let Ok(choice) = candidates.choose(&[anchor], Lsn(0), false) else { continue };
            let Some(newest) = choice.newest else { continue };
            let state = State::new(Quota::unlimited(), !self.options.is_manual());
            let (io, store) = (Arc::clone(&self.options.io), self.dir.clone());
            let fallback = Fallback::Nothing;
            state.begin(CheckpointSource { newest, fallback, io, store });
            if state.load_all(LOAD_THREADS).is_ok() {
                self.replay_all(&state, Some(anchor.upto))?;
                return Ok(state);
            }
        }
        let state = State::new(Quota::unlimited(), !self.options.is_manual());
        self.replay_all(&state, None)?;
        Ok(state)
    }

    fn replay_kept<R: Record>(&self, state: &State<R>, from: Option<Lsn>) -> Result<()> {
        let cut_at = self.repair.cut_at;
        if from.is_some_and(|from| from >= cut_at) {
            return Ok(());
        }
        let from = from.map_or(Position::Start, Position::from);
        let range = bulla_recovery::Range { from, to: cut_at.into() };
        state.replay(|visitor| self.inspection.replay(range, visitor))?;
        Ok(())
    }

    fn replay_all<R: Record>(&self, state: &State<R>, from: Option<Lsn>) -> Result<()> {
        self.replay_kept(state, from)?;
        state.replay(|visitor| {
            self.repair.each_lost(self.inspection, |entry| match from {
                Some(from) if entry.lsn < from => std::ops::ControlFlow::Continue(()),
                _ => visitor(entry),
            })?;
            Ok(ReplayStats::default())
        })?;
        Ok(())
    }
}
