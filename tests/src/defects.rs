//! What a build with `--cfg bulla_broken` can have wrong, one at a time, for a suite to notice.

use bulla_storage::faults::failpoints::Point;
use bulla_storage::faults::mutants::Mutant;
use bulla_storage::io::uring::UringIo;

/// Something wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Defect {
    /// A sync or a check is left out.
    Omission(Point),
    /// A bug is planted.
    Planted(Mutant),
}

impl Defect {
    /// Every omission, then every bug.
    pub fn all() -> impl Iterator<Item = Self> {
        let omissions = Point::ALL.iter().copied().map(Self::Omission);
        omissions.chain(Mutant::ALL.iter().copied().map(Self::Planted))
    }

    /// That of the point, or of the bug.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Omission(point) => format!("{point:?}"),
            Self::Planted(bug) => format!("{bug:?}"),
        }
    }

    /// Why no suite can notice it on this machine, if so.
    #[must_use]
    pub fn not_here(self) -> Option<&'static str> {
        match self {
            Self::Omission(Point::UringErrorCheck | Point::UringShortCheck)
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
        matches!(self, Self::Planted(Mutant::PoisonWakesNobody | Mutant::TasksNotWoken))
    }

    /// From now on this is wrong, and nothing else.
    #[cfg(bulla_broken)]
    pub fn apply(defect: Option<Self>) {
        let (omitted, planted) = match defect {
            None => (None, None),
            Some(Self::Omission(point)) => (Some(point), None),
            Some(Self::Planted(bug)) => (None, Some(bug)),
        };
        bulla_storage::faults::failpoints::set(omitted);
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
