//! Which positions of earlier epochs are still valid: every later epoch's truncation decides.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::format::{Header, LowWater, Truncation};
use crate::position::{Epoch, Lsn};
use crate::range::Position;

/// The truncations of a log's epochs, for positions that users keep together with their
/// epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Timeline {
    low_water: LowWater,
    truncations: BTreeMap<Epoch, Lsn>,
}

impl Timeline {
    /// Builds the timeline from the headers of the live segments.
    #[must_use]
    pub fn new<'a>(low_water: LowWater, headers: impl IntoIterator<Item = &'a Header>) -> Self {
        let mut timeline = Self { low_water, truncations: BTreeMap::new() };
        for header in headers {
            if let Some(epoch_start) = &header.epoch_start {
                // The list carries the truncations of epoch starts that were purged.
                for truncation in &epoch_start.truncations {
                    timeline.truncations.insert(truncation.epoch, truncation.truncated_at);
                }
                timeline.truncations.insert(header.epoch, epoch_start.truncated_at);
            }
        }
        timeline.note_start(&low_water);
        timeline
    }

    /// Notes that the headers before this start of a segment are not all known: an epoch start
    /// among them truncated the log at or below it.
    pub fn note_start(&mut self, start: &LowWater) {
        if start.epoch > Epoch(1) {
            self.truncations.entry(start.epoch).or_insert(start.lsn);
        }
    }

    /// Adds the truncation of a new epoch.
    pub fn push(&mut self, epoch: Epoch, truncated_at: Lsn) {
        self.truncations.insert(epoch, truncated_at);
    }

    /// Returns the truncations above the low-water mark, oldest first: what a new epoch start
    /// records. Of those at or below the mark the newest is enough: everything that an
    /// earlier epoch wrote above the mark was truncated. It must be recorded, because the
    /// mark may move to an epoch start that begins below its own truncation point.
    #[must_use]
    pub fn truncations(&self) -> Vec<Truncation> {
        let is_above = |truncated_at: Lsn| truncated_at > self.low_water.lsn;
        let below =
            self.truncations.iter().rev().find(|(_, truncated_at)| !is_above(**truncated_at));
        let below = below.map(|(epoch, _)| *epoch);
        self.truncations
            .iter()
            .filter(|(epoch, truncated_at)| is_above(**truncated_at) || Some(**epoch) == below)
            .map(|(epoch, truncated_at)| Truncation { epoch: *epoch, truncated_at: *truncated_at })
            .collect()
    }

    /// Checks that the position still belongs to the entry that first had it.
    ///
    /// # Errors
    /// [`Error::Purged`] below the low-water mark; [`Error::Diverged`] when a later epoch
    /// truncated it, so that its entry was lost.
    pub fn check(&self, epoch: Epoch, lsn: Lsn) -> Result<()> {
        let low_water = self.low_water;
        if lsn < low_water.lsn {
            let position = Position::Lsn { epoch: Some(epoch), lsn };
            return Err(Error::Purged { position, low_water: low_water.lsn });
        }
        self.check_cuts(epoch, lsn, |truncated_at| lsn >= truncated_at)
    }

    /// Checks that everything that was read below this position is still in the log. A
    /// position exactly at a later epoch's truncation point is fine: nothing at or above it
    /// was read.
    ///
    /// # Errors
    /// [`Error::Diverged`].
    pub fn check_read(&self, epoch: Epoch, lsn: Lsn) -> Result<()> {
        self.check_cuts(epoch, lsn, |truncated_at| lsn > truncated_at)
    }

    fn check_cuts(&self, epoch: Epoch, lsn: Lsn, is_lost: impl Fn(Lsn) -> bool) -> Result<()> {
        let mut later = self.truncations.range(epoch..).filter(|(by, _)| **by > epoch);
        match later.find(|(_, truncated_at)| is_lost(**truncated_at)) {
            Some((by, truncated_at)) => {
                Err(Error::Diverged { epoch, lsn, by: *by, truncated_at: *truncated_at })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Timeline;
    use crate::error::Error;
    use crate::format::LowWater;
    use crate::position::{Epoch, Lsn};

    /// Returns a timeline whose epochs 2, 3 and 4 truncated at 500, 900 and 2000.
    fn timeline(low_water: LowWater) -> Timeline {
        let mut timeline = Timeline::new(low_water, []);
        for (epoch, truncated_at) in [(2, 500), (3, 900), (4, 2000)] {
            timeline.push(Epoch(epoch), Lsn(truncated_at));
        }
        timeline
    }

    #[test]
    fn position_is_valid_below_the_cut_of_every_later_epoch() {
        let timeline = timeline(LowWater::START);
        for epoch in 1..=4 {
            for lsn in 0..3000 {
                let truncations = [(2, 500), (3, 900), (4, 2000)];
                let lost = truncations
                    .iter()
                    .any(|(by, truncated_at)| *by > epoch && lsn >= *truncated_at);
                let found = timeline.check(Epoch(epoch), Lsn(lsn));
                assert_eq!(found.is_err(), lost, "({epoch}, {lsn})");
            }
        }
    }

    #[test]
    fn cuts_below_the_low_water_mark_need_not_be_recorded() {
        // Epoch 3 wrote on to 1500, and everything below 1000 was purged.
        let low_water = LowWater { lsn: Lsn(1000), epoch: Epoch(3), ..LowWater::START };
        let whole = timeline(low_water);
        let recorded = whole.truncations();
        assert_eq!(recorded.len(), 2);
        let mut reopened = Timeline::new(low_water, []);
        for truncation in recorded {
            reopened.push(truncation.epoch, truncation.truncated_at);
        }
        for epoch in 1..=4 {
            for lsn in 0..3000 {
                let (whole, reopened) =
                    (whole.check(Epoch(epoch), Lsn(lsn)), reopened.check(Epoch(epoch), Lsn(lsn)));
                assert_eq!(whole.is_ok(), reopened.is_ok(), "({epoch}, {lsn})");
                let purged = matches!(whole, Err(Error::Purged { .. }));
                assert_eq!(purged, lsn < 1000);
            }
        }
    }

    #[test]
    fn cut_below_the_mark_is_still_known_when_the_mark_moves_to_the_next_opening() {
        // Epoch 3 truncated at 900 and wrote on; its epoch start was purged. Then epoch 4
        // took over from 1800 on, truncated at 2000, and everything below its epoch start was
        // purged.
        let mut before = Timeline::new(LowWater::START, []);
        before.push(Epoch(3), Lsn(900));
        let mark = LowWater { lsn: Lsn(1000), epoch: Epoch(3), ..LowWater::START };
        for before in [Timeline { low_water: mark, ..before }, Timeline::new(mark, [])] {
            let mark = LowWater { lsn: Lsn(1800), epoch: Epoch(4), ..LowWater::START };
            let mut after = Timeline::new(mark, []);
            for truncation in before.truncations() {
                after.push(truncation.epoch, truncation.truncated_at);
            }
            after.push(Epoch(4), Lsn(2000));
            for lsn in 1800..2200 {
                assert!(after.check(Epoch(2), Lsn(lsn)).is_err(), "cut at 900: {lsn}");
                assert_eq!(after.check(Epoch(3), Lsn(lsn)).is_ok(), lsn < 2000, "{lsn}");
            }
        }
    }
}
