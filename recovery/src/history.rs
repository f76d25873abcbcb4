//! Which positions of earlier epochs are still valid: what every later epoch's cut says.

use std::collections::BTreeMap;

use bulla_wal::format::{Cut, Header, LowWater};
use bulla_wal::{Epoch, Lsn};

use crate::error::{Error, Result};
use crate::replay::Bound;

/// The cuts of a log's epochs, for positions that users keep together with their epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct History {
    low_water: LowWater,
    cuts: BTreeMap<Epoch, Lsn>,
}

impl History {
    pub(crate) fn new<'a>(
        low_water: LowWater,
        headers: impl IntoIterator<Item = &'a Header>,
    ) -> Self {
        let mut history = Self { low_water, cuts: BTreeMap::new() };
        for header in headers {
            if let Some(opening) = &header.opening {
                // The list carries the cuts of openings that were purged.
                for cut in &opening.cuts {
                    history.cuts.insert(cut.epoch, cut.cut_at);
                }
                history.cuts.insert(header.epoch, opening.cut_at);
            }
        }
        history
    }

    /// Adds the cut of a new epoch.
    pub(crate) fn push(&mut self, epoch: Epoch, cut_at: Lsn) {
        self.cuts.insert(epoch, cut_at);
    }

    /// The cuts above the low-water mark, oldest first: what a new opening records.
    /// Those at or below it are implied by the mark's own epoch and LSN.
    #[must_use]
    pub fn cuts(&self) -> Vec<Cut> {
        self.cuts
            .iter()
            .filter(|(_, cut_at)| **cut_at > self.low_water.lsn)
            .map(|(epoch, cut_at)| Cut { epoch: *epoch, cut_at: *cut_at })
            .collect()
    }

    /// Is the position still that of the entry it was given to?
    ///
    /// # Errors
    /// [`Error::Purged`] below the low-water mark; [`Error::Diverged`] when a later
    /// epoch cut it off, so that its entry was lost.
    pub fn check(&self, epoch: Epoch, lsn: Lsn) -> Result<()> {
        let low_water = self.low_water;
        if lsn < low_water.lsn {
            return Err(Error::Purged { position: Bound::Lsn(lsn), low_water: low_water.lsn });
        }
        for (by, cut_at) in self.cuts.range(epoch..).filter(|(by, _)| **by > epoch) {
            if lsn >= *cut_at {
                return Err(Error::Diverged { epoch, lsn, by: *by, cut_at: *cut_at });
            }
        }
        let implied = epoch < low_water.epoch && !self.cuts.contains_key(&low_water.epoch);
        if implied {
            let (by, cut_at) = (low_water.epoch, low_water.lsn);
            return Err(Error::Diverged { epoch, lsn, by, cut_at });
        }
        Ok(())
    }
}
