//! The times of frames: those of the wall clock, which somebody may set.
//!
//! Owns when they go back: in a segment never, and from one segment to the next where the clock was
//! set back by more than an hour. So small corrections leave a log's times in order, and a clock
//! that was far ahead once spoils the times of what was written meanwhile, not of all that follows.
//! Reads no clock.

/// The clock may be behind the last frame by this much without a step back.
const SLACK_NS: u64 = 3_600_000_000_000;
/// 2023-01-01. An earlier clock was never set, and says nothing.
const EARLIEST_NS: u64 = 1_672_531_200_000_000_000;

/// Gives every frame its time.
#[derive(Debug)]
pub(crate) struct FrameTimes {
    last_ns: u64,
    /// When a segment was last ended for a step back, on the clock that never goes back.
    ended_ns: Option<u64>,
}

impl FrameTimes {
    pub(crate) fn new(last_ns: u64) -> Self {
        Self { last_ns, ended_ns: None }
    }

    /// The time of the last frame.
    pub(crate) fn last_ns(&self) -> u64 {
        self.last_ns
    }

    /// Returns the time of the next frame, which may be the first one of a segment.
    pub(crate) fn next(&mut self, wall_ns: u64, is_first: bool) -> u64 {
        if wall_ns > self.last_ns || (is_first && self.is_set_back(wall_ns)) {
            self.last_ns = wall_ns;
        }
        self.last_ns
    }

    /// Returns whether the segment should end, so that the times can follow a clock that was set
    /// back. At most once an hour: a clock that is set all the time must not fill the disk.
    pub(crate) fn end_segment(&mut self, wall_ns: u64, now_ns: u64) -> bool {
        let is_due = self.ended_ns.is_none_or(|at| now_ns.saturating_sub(at) >= SLACK_NS);
        let ends = is_due && self.is_set_back(wall_ns);
        if ends {
            self.ended_ns = Some(now_ns);
        }
        ends
    }

    fn is_set_back(&self, wall_ns: u64) -> bool {
        wall_ns >= EARLIEST_NS && self.last_ns.saturating_sub(wall_ns) > SLACK_NS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = EARLIEST_NS + 1_000 * SLACK_NS;
    const FAR: u64 = NOW + 1_000 * SLACK_NS;

    #[test]
    fn times_follow_a_clock_that_was_set_back_from_the_next_segment_on() {
        let mut times = FrameTimes::new(0);
        assert_eq!(times.next(NOW, true), NOW);
        assert_eq!(times.next(NOW - SLACK_NS, true), NOW, "a small step");
        assert_eq!(times.next(FAR, false), FAR);
        assert_eq!(times.next(NOW + 1, false), FAR, "in the segment");
        assert_eq!(times.next(NOW + 2, true), NOW + 2);
        assert_eq!(times.next(NOW + 3, false), NOW + 3);
        assert_eq!(times.next(5, true), NOW + 3, "a clock that was never set");
        assert_eq!(times.last_ns(), NOW + 3);
    }

    #[test]
    fn segments_end_for_the_clock_once_an_hour_at_most() {
        let mut times = FrameTimes::new(FAR);
        assert!(!times.end_segment(FAR - SLACK_NS, 0));
        assert!(!times.end_segment(EARLIEST_NS - 1, 0));
        assert!(times.end_segment(NOW, 7));
        assert!(!times.end_segment(NOW, 6 + SLACK_NS));
        assert!(times.end_segment(NOW, 7 + SLACK_NS));
    }
}
