//! The read-only look at a log: takes no lock, changes nothing.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_storage::Corruption;
use bulla_storage::CorruptionKind;
use bulla_storage::Error as LogError;
use bulla_storage::Options;
use bulla_storage::files::control;
use bulla_storage::files::dir;
use bulla_storage::format::Control;
use bulla_storage::frames::anchor::Landmark;

use crate::analysis::{Analysis, LogDir, Piece};
use crate::chain::Segment;
use crate::error::{Error, Result};
use crate::map::{self, SegmentBytes};
use crate::replay::{self, Bound, EntryView, Range, ReplayStats};
use crate::report::{Report, SegmentReport, Status};
use crate::scan::Bodies;
use bulla_storage::frames::reader::Cursor;

/// A log that is being written is looked at so often at most.
const MAX_LOOKS: u32 = 8;

/// What a read-only look at a log found.
///
/// What it shows may not be durable yet: a power loss can take back what lies above
/// [`Report::durable_lsn`]. Only [`Recovery`](crate::Recovery) makes it so. Of a log
/// that is open for writing it shows a state that the log had, or its beginning.
#[derive(Debug)]
pub struct Inspection {
    log: LogDir,
    analysis: Analysis,
    report: Report,
    pieces: Vec<Piece>,
    start: Cursor,
}

impl Inspection {
    /// Looks at the log in `dir`. A corrupt one is no error: the report says so.
    ///
    /// # Errors
    /// [`NotALog`](LogError::NotALog), [`Unsupported`](LogError::Unsupported) for a newer
    /// format, [`Corrupt`](LogError::Corrupt) when CONTROL can't be read,
    /// [`Io`](LogError::Io), which is never taken for the log's end.
    pub fn read(dir: &Path, options: &Options) -> Result<Self> {
        let (log, analysis) = settled(dir, options, Bodies::Checked)?;
        Ok(Self::of(log, analysis))
    }

    /// As [`read`](Self::read), but looks at no frame below the first landmark that still
    /// stands, as [`Recovery::run_above`](crate::Recovery::run_above) does: then entries
    /// below it can't be replayed, and the report counts none.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    #[doc(hidden)]
    pub fn read_above(dir: &Path, options: &Options, landmarks: &[Landmark]) -> Result<Self> {
        for landmark in landmarks {
            let (log, analysis) = settled_above(dir, options, Some(landmark), Bodies::Checked)?;
            if analysis.is_sound_above(&log, landmark)? {
                return Ok(Self::of(log, analysis));
            }
        }
        Self::read(dir, options)
    }

    fn of(log: LogDir, analysis: Analysis) -> Self {
        let (report, pieces) = (analysis.report(), analysis.pieces());
        Self { report, pieces, start: analysis.start(), log, analysis }
    }

    /// What was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The segments, in order of number.
    #[must_use]
    pub fn segments(&self) -> &[SegmentReport] {
        &self.report.segments
    }

    /// Reads the segments' files again, and says what their bytes are good for, in the
    /// order of [`segments`](Self::segments). `None` for one that was purged meanwhile.
    ///
    /// # Errors
    /// [`Io`](LogError::Io).
    pub fn measure(&self) -> Result<Vec<Option<SegmentBytes>>> {
        let segments = self.segments();
        // The segment in which the log ends, and what was made behind it.
        let last = self.pieces.last().map(|piece| piece.header.number);
        segments
            .iter()
            .map(|segment| {
                let mut pieces = self.pieces.iter();
                let piece = pieces.find(|piece| piece.header.number == segment.number);
                let open = last.is_none_or(|last| segment.number >= last);
                map::measure(&self.log, &self.report.status, open, segment, piece)
            })
            .collect()
    }

    /// Those of the landmarks that are in this log, with everything up to what they were made
    /// for, in their order.
    ///
    /// # Errors
    /// [`Io`](LogError::Io).
    #[doc(hidden)]
    pub fn standing(&self, landmarks: &[Landmark]) -> Result<Vec<Landmark>> {
        self.analysis.sift(&self.log, landmarks)
    }

    /// Gives the entries in `range` that can be read in order (of a corrupt log: up to
    /// the damage) to `visitor`, which may break off.
    ///
    /// # Errors
    /// [`Purged`](crate::Error::Purged) when the range starts below the log;
    /// [`Io`](LogError::Io); [`Corrupt`](LogError::Corrupt) when what was promised is not there
    /// any more; [`Changed`](crate::Error::Changed) when that is so of what was not.
    pub fn replay(
        &self,
        range: Range,
        visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> Result<ReplayStats> {
        replay::replay(&self.log, &self.pieces, self.start, range, visitor)
            .map_err(|error| told(&self.analysis, error))
    }
}

/// Gives the entries of the log in `dir` that are in `range`, in order, to `visitor`, which
/// may break off. Takes no lock, changes nothing.
///
/// Without a `from` it is the fastest way through a log: headers first, then every frame is
/// read and verified once, just before its entries are given. [`Inspection`] verifies all of
/// them before it shows the first one, and then again; so does this one when there is a
/// `from`, as nothing is given from behind damage. Corruption is told in its place, as an
/// error after the entries before it. What is given may not be durable yet, as with
/// [`Inspection`].
///
/// # Errors
/// [`Corrupt`](LogError::Corrupt) after everything that can be read in order, unless the
/// visitor or the range ends before; otherwise as [`Inspection::read`] and
/// [`Inspection::replay`].
pub fn replay(
    dir: &Path,
    options: &Options,
    range: Range,
    visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<ReplayStats> {
    let bodies = match range.from {
        Bound::Unbounded => Bodies::Unread,
        Bound::Lsn(_) | Bound::Seq(_) | Bound::Time(_) => Bodies::Checked,
    };
    let (log, analysis) = settled(dir, options, bodies)?;
    let stats = replay::replay(&log, &analysis.pieces(), analysis.start(), range, visitor)
        .map_err(|error| told(&analysis, error))?;
    // Nobody asked for what lies behind the range.
    let ended = stats.stopped || replay::is_reached(range.to, analysis.chain.end);
    match analysis.status {
        Status::Corrupt(fault) if !ended => Err(fault.into()),
        _ => Ok(stats),
    }
}

/// What it means that a frame is not valid (any more). One that was promised, as all of the
/// older epochs were, is corruption. Of the others the bodies were checked before, so the
/// log has changed: another open takes them over into its own epoch, or cuts them off.
fn told(analysis: &Analysis, error: Error) -> Error {
    let Some((segment, lsn)) = error.corruption().and_then(|found| found.segment.zip(found.lsn))
    else {
        return error;
    };
    let durable = analysis.chain.durable;
    let is_newest = |newest: &Segment| newest.newest && newest.number == segment;
    if lsn < durable {
        error.proved_durable(durable)
    } else if analysis.plan.segments.iter().any(is_newest) {
        Error::Changed { lsn }
    } else {
        error
    }
}

/// A look that no writer disturbed.
///
/// A log that is open for writing changes while it is read: a promise that is read late
/// covers frames that were not there when their place was read early. So a corruption is
/// believed only when it is found twice; frames that a second look finds at or above the
/// first one's promises show that nothing was lost.
pub(crate) fn settled(dir: &Path, options: &Options, bodies: Bodies) -> Result<(LogDir, Analysis)> {
    settled_above(dir, options, None, bodies)
}

/// As [`settled`], from a landmark on if it stands.
fn settled_above(
    dir: &Path,
    options: &Options,
    landmark: Option<&Landmark>,
    bodies: Bodies,
) -> Result<(LogDir, Analysis)> {
    let mut first: Option<Analysis> = None;
    let mut looks = 0;
    loop {
        looks += 1;
        let control = read_control(dir, options)?;
        let mut log = LogDir::new(dir, &options.clone().sector(control.sector));
        let mut now = match Analysis::read_from(&mut log, control, landmark, bodies) {
            // A segment was purged, or a temporary file renamed, after it was listed.
            Err(error) if looks < MAX_LOOKS && error.is_not_found() => continue,
            now => now?,
        };
        now.look_again_for_successor(&log)?;
        if let Some(before) = &first {
            now.disregard_later_promises(before);
        }
        let confirmed = first.as_ref().is_some_and(|before| before.status == now.status);
        if !matches!(now.status, Status::Corrupt(_)) || confirmed || looks == MAX_LOOKS {
            return Ok((log, now));
        }
        first = Some(now);
    }
}

/// Reads CONTROL, telling "no log here" from "its CONTROL is gone".
pub(crate) fn read_control(path: &Path, options: &Options) -> Result<Control> {
    let io = options.io.as_ref();
    let listing = match dir::list(io, path) {
        Err(LogError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(LogError::NotALog { path: path.to_owned() }.into());
        }
        listing => listing?,
    };
    if listing.has_control {
        return Ok(control::read(io, path)?);
    }
    match listing.segments.first() {
        None => Err(LogError::NotALog { path: path.to_owned() }.into()),
        Some(segment) => Err(Corruption {
            segment: Some(segment.number),
            offset: None,
            lsn: None,
            durable: None,
            kind: CorruptionKind::ControlMissing,
        }
        .into()),
    }
}
