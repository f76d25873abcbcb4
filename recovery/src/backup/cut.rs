//! Where a restored log ends.
//!
//! Owns that rule: at the end of a whole frame, the last one of which everything is below the
//! target. Never past it.

use bulla_storage::frames::reader::Cursor;
use bulla_storage::{Lsn, Position, Seq};

use super::error::BackupError;
use crate::analysis::Analysis;
use crate::faults;
use crate::log_dir::{LogDir, damage, no_longer_valid};
use crate::replay::{Live, lsn_at};

/// Returns the last frame boundary at or below the target.
pub(super) fn boundary(
    log: &LogDir,
    analysis: &Analysis,
    to: Position,
) -> Result<Cursor, BackupError> {
    let (start, end) = (analysis.start(), analysis.chain.valid_end);
    let out_of_range = || BackupError::OutOfRange { position: to, first: start.lsn, end: end.lsn };
    let is_beyond = match to {
        Position::End => return Ok(end),
        Position::Lsn { lsn, .. } => lsn > end.lsn || lsn < start.lsn,
        Position::Seq(seq) => seq > end.seq || seq < start.seq,
        _ => false,
    };
    if is_beyond {
        return Err(out_of_range());
    }
    if let Position::Lsn { epoch: Some(epoch), lsn } = to {
        analysis.timeline().check_read(epoch, lsn)?;
    }
    let pieces = analysis.pieces();
    let timeline = analysis.timeline();
    let live = Live { log, pieces: &pieces, start, timeline: &timeline };
    let target = match to.lower_limit().wall_ns {
        Some(wall_ns) => lsn_at(&live, wall_ns)?.into(),
        None => to,
    };
    let mut at = start;
    for piece in &pieces {
        let mut frames = log.frames_of(piece)?;
        loop {
            let offset = frames.offset();
            let located = match frames.skip()? {
                Ok(located) => located,
                Err(_) if at.lsn >= piece.end.lsn => break,
                Err(end) => {
                    return Err(no_longer_valid(piece, offset, at.lsn, damage(end)).into());
                }
            };
            let below = is_below(target, located.after.lsn, located.after.seq);
            let begins = is_below(target, located.before.lsn, located.before.seq);
            if !faults::backup::is_below(below, begins) {
                // Of a log that was purged, what came before the target may be gone.
                let is_gone = at.lsn == start.lsn && start.seq > Seq(1) && is_time(to);
                return if is_gone { Err(out_of_range()) } else { Ok(at) };
            }
            at = located.after;
        }
    }
    Ok(at)
}

fn is_time(to: Position) -> bool {
    matches!(to, Position::Time(_))
}

/// Returns whether what ends here is below the target.
fn is_below(target: Position, end: Lsn, next: Seq) -> bool {
    match target {
        Position::Start => false,
        Position::Lsn { lsn, .. } => end <= lsn,
        Position::Seq(seq) => next <= seq,
        _ => true,
    }
}
