//! The segments of a log as a short list: those that tell something one by one, the rest summed up.
//!
//! Owns which are summed up, so that a log of any length gives a page of bounded length.

use bulla_recovery::{FrameRun, SegmentBytes, SegmentReport, SegmentState};

use super::problems::{Problem, Severity};

/// The most rows of a list.
pub(super) const MAX_ROWS: usize = 48;
/// Of a longer list, these many rows at either end stay.
const KEPT_ROWS: usize = MAX_ROWS / 2 - 2;
/// Alike segments in a row are summed up if there are more than these.
const MAX_ALIKE: usize = 4;

/// The state of a segment with valid frames that can't be read in order.
const BEHIND: &str = "behind the damage";

/// What a row is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Segments in this state.
    Segments(&'static str),
    /// Segments in different states.
    Mixed,
    /// No file: these numbers are missing.
    Missing,
}

/// One segment, or several in a row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    /// The numbers of the first and the last.
    pub(super) numbers: (u64, u64),
    pub(super) count: u64,
    pub(super) epochs: Option<(u32, u32)>,
    /// Live positions: start, and exclusive end.
    pub(super) live: Option<(u64, u64)>,
    pub(super) frames: u64,
    pub(super) entries: u64,
    pub(super) file_len: u64,
    /// What the files' bytes are, if the files were still there.
    pub(super) bytes: Option<SegmentBytes>,
    /// Wall times of the first and the last frame, in ns.
    pub(super) written: Option<(u64, u64)>,
    pub(super) ended: Option<&'static str>,
    pub(super) severity: Severity,
}

impl Row {
    fn of_segment(
        segment: &SegmentReport,
        runs: &[FrameRun],
        bytes: Option<SegmentBytes>,
        problems: &[Problem],
    ) -> Self {
        let number = segment.number.0;
        let own = problems.iter().filter(|problem| problem.segment == Some(number));
        // One that a later epoch replaced was not read, so that it has no frames here.
        let is_behind = segment.live.is_none()
            && segment.frames > 0
            && problems.iter().any(|problem| problem.severity == Severity::Damage);
        let behind = |bytes: SegmentBytes| SegmentBytes {
            unread: bytes.unread + bytes.dead,
            dead: 0,
            ..bytes
        };
        let first = runs.first().map(|run| run.first_wall_ns);
        Self {
            kind: Kind::Segments(if is_behind { BEHIND } else { segment.state.name() }),
            numbers: (number, number),
            count: 1,
            epochs: segment.epoch.map(|epoch| (epoch.0, epoch.0)),
            live: segment.live.map(|(from, to)| (from.0, to.0)),
            frames: segment.frames,
            entries: segment.entries,
            file_len: segment.file_len,
            bytes: bytes.map(|bytes| if is_behind { behind(bytes) } else { bytes }),
            written: first.zip(runs.last().map(|run| run.last_wall_ns)),
            ended: segment.seal.map(bulla_recovery::Seal::name),
            severity: own.map(|problem| problem.severity).max().unwrap_or(Severity::Note),
        }
    }

    fn missing(first: u64, last: u64) -> Self {
        Self {
            kind: Kind::Missing,
            numbers: (first, last),
            count: (last - first).saturating_add(1),
            epochs: None,
            live: None,
            frames: 0,
            entries: 0,
            file_len: 0,
            bytes: None,
            written: None,
            ended: None,
            severity: Severity::Damage,
        }
    }

    /// Returns the name of its state.
    pub(super) const fn state(&self) -> &'static str {
        match self.kind {
            Kind::Segments(state) => state,
            Kind::Mixed => "several states",
            Kind::Missing => "missing",
        }
    }

    fn is_like(&self, other: &Self) -> bool {
        let parts = |row: &Self| row.bytes.map(|bytes| (bytes.torn > 0, bytes.unread > 0));
        let is_plain = |row: &Self| row.severity == Severity::Note;
        self.kind == other.kind && parts(self) == parts(other) && is_plain(self) && is_plain(other)
    }

    /// Adds the row that follows this one.
    fn extend(&mut self, next: &Self) {
        let ends = |a: Option<(u64, u64)>, b: Option<(u64, u64)>| match (a, b) {
            (Some((from, _)), Some((_, to))) => Some((from, to)),
            (a, b) => a.or(b),
        };
        if self.kind != next.kind {
            self.kind = Kind::Mixed;
        }
        self.numbers.1 = next.numbers.1;
        self.count = self.count.saturating_add(next.count);
        self.epochs = match (self.epochs, next.epochs) {
            (Some((a, b)), Some((c, d))) => Some((a.min(c), b.max(d))),
            (a, b) => a.or(b),
        };
        self.live = ends(self.live, next.live);
        self.written = ends(self.written, next.written);
        self.frames += next.frames;
        self.entries += next.entries;
        self.file_len += next.file_len;
        self.ended = None;
        self.severity = self.severity.max(next.severity);
        self.bytes = match (self.bytes, next.bytes) {
            (Some(a), Some(b)) => Some(sum(a, b)),
            (a, b) => a.or(b),
        };
    }
}

fn sum(a: SegmentBytes, b: SegmentBytes) -> SegmentBytes {
    SegmentBytes {
        header: a.header + b.header,
        live: a.live + b.live,
        dead: a.dead + b.dead,
        torn: a.torn + b.torn,
        unread: a.unread + b.unread,
        zero: a.zero + b.zero,
    }
}

/// What is known of each segment of a log, in order of number.
pub(super) struct Segments<'a> {
    pub(super) reports: &'a [SegmentReport],
    pub(super) runs: &'a [&'a [FrameRun]],
    pub(super) bytes: &'a [Option<SegmentBytes>],
}

/// Returns a row for each segment, and for each gap in their numbers.
pub(super) fn all(segments: &Segments<'_>, problems: &[Problem]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::with_capacity(segments.reports.len());
    let missing = problems.iter().filter(|problem| problem.is_missing_segment);
    let missing: Vec<u64> = missing.filter_map(|problem| problem.segment).collect();
    for (index, segment) in segments.reports.iter().enumerate() {
        let number = segment.number.0;
        // Those below the low-water mark are removed in any order.
        let is_dead = |row: &&Row| row.kind == Kind::Segments(SegmentState::Dead.name());
        match rows.last().filter(|row| !is_dead(row)).map(|row| row.numbers.1) {
            Some(last) if last + 1 < number => rows.push(Row::missing(last + 1, number - 1)),
            Some(_) => {}
            // Of those before the first nothing is known but what was found to be missing.
            None => {
                let first = missing.iter().copied().filter(|missing| *missing < number).min();
                rows.extend(first.map(|first| Row::missing(first, number - 1)));
            }
        }
        let runs = segments.runs.get(index).copied().unwrap_or_default();
        let bytes = segments.bytes.get(index).copied().flatten();
        rows.push(Row::of_segment(segment, runs, bytes, problems));
    }
    let last = rows.last().map_or(0, |row| row.numbers.1);
    let behind = missing.iter().copied().filter(|missing| *missing > last).max();
    rows.extend(behind.map(|behind| Row::missing(last + 1, behind)));
    rows
}

/// Returns the same in at most [`MAX_ROWS`] rows.
pub(super) fn summed_up(all: &[Row]) -> Vec<Row> {
    let mut rows = Vec::new();
    for alike in all.chunk_by(Row::is_like) {
        match alike {
            [first, middle @ .., last] if alike.len() > MAX_ALIKE => {
                rows.push(first.clone());
                rows.extend(joined(middle));
                rows.push(last.clone());
            }
            few => rows.extend_from_slice(few),
        }
    }
    if rows.len() <= MAX_ROWS {
        return rows;
    }
    // The first damage stays a row of its own, wherever it is.
    let end = rows.len() - KEPT_ROWS;
    let middle = rows.get(KEPT_ROWS..end).unwrap_or_default();
    let damage = middle.iter().position(|row| row.severity == Severity::Damage);
    let mut short: Vec<Row> = rows.iter().take(KEPT_ROWS).cloned().collect();
    let (before, rest) = middle.split_at(damage.unwrap_or(middle.len()));
    short.extend(joined(before));
    if let Some((damaged, after)) = rest.split_first() {
        short.push(damaged.clone());
        short.extend(joined(after));
    }
    short.extend_from_slice(rows.get(end..).unwrap_or_default());
    short
}

fn joined(rows: &[Row]) -> Option<Row> {
    let (first, rest) = rows.split_first()?;
    let mut row = first.clone();
    rest.iter().for_each(|next| row.extend(next));
    Some(row)
}
