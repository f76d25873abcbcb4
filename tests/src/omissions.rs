//! Which sync or check can't be missed on this machine.

use bulla_wal::io::uring::UringIo;
use bulla_wal::omit::Point;
use bulla_wal::planted::Bug;

/// Why no suite can notice this point on this machine, if so.
#[must_use]
pub fn not_here(point: Point) -> Option<&'static str> {
    match point {
        Point::UringErrorCheck | Point::UringShortCheck => UringIo::refusal(),
        _ => None,
    }
}

/// Why no suite can notice this bug on this machine, if so.
#[must_use]
pub fn bug_not_here(bug: Bug) -> Option<&'static str> {
    match bug {
        Bug::UringIndexIgnored | Bug::UringPiecesSwapped => UringIo::refusal(),
        _ => None,
    }
}
