//! What a build with `--cfg bulla_broken` can have wrong, one at a time, for a suite to notice.

use bulla_storage::faults::failpoints::Failpoint;
use bulla_storage::faults::mutants::Mutant;
use bulla_storage::io::uring::UringIo;

/// Something wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// A sync or a check is left out.
    Skipped(Failpoint),
    /// A mutant is planted.
    Planted(Mutant),
}

impl Defect {
    /// Every failpoint, then every mutant.
    pub fn all() -> impl Iterator<Item = Self> {
        let failpoints = Failpoint::ALL.iter().copied().map(Self::Skipped);
        failpoints.chain(Mutant::ALL.iter().copied().map(Self::Planted))
    }

    /// Returns the name of the failpoint or of the mutant.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Skipped(failpoint) => format!("{failpoint:?}"),
            Self::Planted(mutant) => format!("{mutant:?}"),
        }
    }

    /// Why no suite can notice it on this machine, if so.
    #[must_use]
    pub fn not_here(self) -> Option<&'static str> {
        match self {
            Self::Skipped(Failpoint::UringErrorCheck | Failpoint::UringShortCheck)
            | Self::Planted(
                Mutant::UringIndexIgnored
                | Mutant::UringPiecesSwapped
                | Mutant::UringDropDoesNotWait
                | Mutant::UringLockNotKept
                | Mutant::UringCancelledIsDone
                | Mutant::UringSlotReusedEarly,
            ) => UringIo::refusal(),
            _ => None,
        }
    }

    /// Is it a thread that waits for good by which it is noticed? Of others a hang shows nothing
    /// but a slow machine.
    #[must_use]
    pub fn hangs(self) -> bool {
        matches!(
            self,
            Self::Planted(
                Mutant::PoisonWakesNobody | Mutant::TasksNotWoken | Mutant::ThreadEndsUntold
            )
        )
    }

    /// From now on this is wrong, and nothing else.
    #[cfg(bulla_broken)]
    pub fn apply(defect: Option<Self>) {
        let (skipped, planted) = match defect {
            None => (None, None),
            Some(Self::Skipped(failpoint)) => (Some(failpoint), None),
            Some(Self::Planted(mutant)) => (None, Some(mutant)),
        };
        bulla_storage::faults::failpoints::set(skipped);
        bulla_storage::faults::mutants::plant(planted);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_defects_have_the_same_name() {
        let names: HashSet<String> = Defect::all().map(Defect::name).collect();
        assert_eq!(names.len(), Defect::all().count());
    }
}
