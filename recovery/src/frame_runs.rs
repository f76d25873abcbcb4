//! The frames of a segment summed up in runs, so that a log can be drawn from what a scan saw.
//!
//! Owns how long the runs are: as a segment's frames become more than it has runs, two
//! neighbours become one. So memory is bounded however many frames there are. Decides nothing.
//! Tested by `recovery/tests/files/maps.rs`.

use bulla_storage::Lsn;
use bulla_storage::format::FrameKind;
use bulla_storage::frames::reader::Located;

/// The most runs of one segment.
const MAX_RUNS: usize = 256;
/// The most runs of a log, as long as it has at most this many segments.
const MAX_RUNS_OF_LOG: usize = 2048;

/// Consecutive frames of one segment that a scan found valid, in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct FrameRun {
    /// Where the first of them is in the segment's file.
    pub offset: u64,
    /// Their length in bytes in the file.
    pub len: u64,
    /// The position of the first.
    pub lsn: Lsn,
    /// Their exclusive end.
    pub end: Lsn,
    /// The number of frames.
    pub frames: u64,
    /// Those of them that hold entries. The others only record what is durable, or end a segment.
    pub data_frames: u64,
    /// User entries in them.
    pub entries: u64,
    /// The highest durable mark in their headers.
    pub durable_lsn: Lsn,
    /// Wall time of the first, in ns since 1970.
    pub first_wall_ns: u64,
    /// Wall time of the last.
    pub last_wall_ns: u64,
}

impl FrameRun {
    fn of(located: &Located, len: u64) -> Self {
        let frame = &located.frame;
        Self {
            offset: located.offset,
            len,
            lsn: located.before.lsn,
            end: located.after.lsn,
            frames: 1,
            data_frames: u64::from(frame.kind == FrameKind::Data),
            entries: u64::from(frame.entry_count),
            durable_lsn: frame.durable_lsn,
            first_wall_ns: frame.wall_ns,
            last_wall_ns: frame.wall_ns,
        }
    }

    /// Adds the run that follows this one.
    pub fn append(&mut self, next: &Self) {
        self.len += next.len;
        self.end = next.end;
        self.frames += next.frames;
        self.data_frames += next.data_frames;
        self.entries += next.entries;
        self.durable_lsn = self.durable_lsn.max(next.durable_lsn);
        self.last_wall_ns = next.last_wall_ns;
    }
}

/// Returns how many runs a segment of a log with this many may have.
fn share(segments: usize) -> usize {
    MAX_RUNS_OF_LOG.checked_div(segments).unwrap_or(MAX_RUNS).clamp(1, MAX_RUNS)
}

/// The runs of one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameRuns {
    runs: Vec<FrameRun>,
    most: usize,
    /// Frames of each run but the last.
    frames_per_run: u64,
}

impl FrameRuns {
    /// Returns none yet, of a segment of a log with this many.
    pub(crate) fn of_log_with(segments: usize) -> Self {
        Self { runs: Vec::new(), most: share(segments), frames_per_run: 1 }
    }

    /// Joins runs until they are no more than those of a segment of a log with this many: they were
    /// made when the log had fewer.
    pub(crate) fn reduce_to_log_with(&mut self, segments: usize) {
        self.most = self.most.min(share(segments));
        self.reduce();
    }

    /// Adds the next frame, which takes `len` bytes in the file.
    pub(crate) fn push(&mut self, located: &Located, len: u64) {
        let frame = FrameRun::of(located, len);
        match self.runs.last_mut() {
            Some(last) if last.frames < self.frames_per_run => last.append(&frame),
            _ => self.runs.push(frame),
        }
        self.reduce();
    }

    fn reduce(&mut self) {
        while self.runs.len() > self.most {
            self.frames_per_run *= 2;
            self.join_neighbours();
        }
    }

    fn join_neighbours(&mut self) {
        let mut joined: Vec<FrameRun> = Vec::with_capacity(self.runs.len());
        for run in self.runs.drain(..) {
            match joined.last_mut() {
                Some(last) if last.frames < self.frames_per_run => last.append(&run),
                _ => joined.push(run),
            }
        }
        self.runs = joined;
    }

    pub(crate) fn runs(&self) -> &[FrameRun] {
        &self.runs
    }
}

#[cfg(test)]
mod tests {
    use bulla_storage::format::Frame;
    use bulla_storage::frames::reader::Cursor;
    use bulla_storage::{Epoch, Seq};

    use super::*;

    const LEN: u64 = 512;

    /// The frame with this number, of two entries; each marks the one before as durable.
    fn frame(number: u64) -> Located {
        let cursor = |number: u64| Cursor {
            lsn: Lsn(number * LEN),
            seq: Seq(1 + 2 * number),
            prev_crc: 0,
            wall_ns: number,
        };
        let frame = Frame {
            kind: FrameKind::Data,
            body_len: 16,
            body_crc: 0,
            lsn: Lsn(number * LEN),
            durable_lsn: Lsn(number.saturating_sub(1) * LEN),
            first_seq: Seq(1 + 2 * number),
            entry_count: 2,
            epoch: Epoch(1),
            wall_ns: number,
            prev_crc: 0,
        };
        let (before, after) = (cursor(number), cursor(number + 1));
        Located { frame, offset: LEN + number * LEN, before, after }
    }

    #[test]
    fn runs_of_many_frames_are_few_and_leave_none_out() {
        for (segments, most) in [(1, 256), (8, 256), (100, 20), (5_000, 1)] {
            for count in [0, 1, 2, 19, 20, 21, 255, 256, 257, 513, 4_000] {
                let mut runs = FrameRuns::of_log_with(segments);
                (0..count).for_each(|number| runs.push(&frame(number), LEN));
                let runs = runs.runs();
                assert!(runs.len() as u64 <= count.min(most), "{segments} {count}");
                assert!(runs.len() as u64 >= count.min(most / 2), "{segments} {count}");
                let mut number = 0;
                for run in runs {
                    assert_eq!(run.lsn, Lsn(number * LEN), "a gap");
                    assert_eq!((run.offset, run.first_wall_ns), (LEN + number * LEN, number));
                    number += run.frames;
                    assert_eq!((run.end, run.len), (Lsn(number * LEN), run.frames * LEN));
                    assert_eq!((run.entries, run.data_frames), (2 * run.frames, run.frames));
                    assert_eq!(run.last_wall_ns, number - 1);
                    assert_eq!(run.durable_lsn, Lsn((number.saturating_sub(2)) * LEN));
                }
                assert_eq!(number, count);
            }
        }
    }

    #[test]
    fn runs_of_a_log_that_grew_are_as_few_as_if_they_were_made_now() {
        for segments in [9, 100, 5_000] {
            let mut grown = FrameRuns::of_log_with(1);
            let mut made_now = FrameRuns::of_log_with(segments);
            for number in 0..300 {
                grown.push(&frame(number), LEN);
                made_now.push(&frame(number), LEN);
            }
            grown.reduce_to_log_with(segments);
            assert_eq!(grown, made_now, "{segments}");
        }
    }
}
