//! Applies a log's entries to a state, and tells the caller how far that is.

use std::ops::ControlFlow;

use bulla_recovery::{EntryView, Position, ReplayStats, Report};
use bulla_storage::Options;
use bulla_storage::progress::{Meter, Phase, Stretch};

use crate::error::Result;
use crate::record::Record;
use crate::state::State;

/// Applies what `replay` passes on of the log's entries from `from` on; returns how many these
/// are.
///
/// # Errors
/// Those of [`State::replay`], and `Cancelled`.
pub(crate) fn replay<R: Record>(
    state: &State<R>,
    report: &Report,
    from: Position,
    options: &Options,
    replay: impl FnOnce(
        &mut dyn FnMut(&EntryView<'_>) -> ControlFlow<()>,
    ) -> bulla_recovery::Result<ReplayStats>,
) -> Result<u64> {
    let start = match from {
        Position::Lsn { lsn, .. } => lsn,
        _ => report.first_lsn,
    };
    let total = report.last_lsn.distance_from(start);
    let meter = Meter::new(options.on_progress.as_ref(), Phase::Replay, total);
    let mut progress = Stretch::new(&meter, start.0);
    let mut told = Ok(());
    let replayed = state.replay(|visitor| {
        replay(&mut |entry| {
            if let Err(error) = progress.reach(entry.lsn.0) {
                told = Err(error);
                return ControlFlow::Break(());
            }
            visitor(entry)
        })
    })?;
    told?;
    progress.end(report.last_lsn.0)?;
    Ok(replayed)
}
