//! Steps of an open that come before the step that must precede them.

use std::path::PathBuf;

use bulla_storage::Result;
use bulla_storage::faults::mutants::{Mutant, planted};
use bulla_storage::files::control::ControlFile;
use bulla_storage::io::Lock;

use crate::analysis::Analysis;
use crate::log_dir::{LogDir, Piece};
use crate::tail_rewrite::{self, Committed, Tail, clip};
use crate::trim;

/// Begins a new epoch; see [`tail_rewrite::commit`].
#[inline]
pub(crate) fn commit(
    log: &LogDir,
    lock: Box<dyn Lock>,
    control: ControlFile,
    analysis: &Analysis,
    tail: Tail,
) -> Result<Committed> {
    if planted(Mutant::TrimBeforeCommit) {
        let kept = clip(&analysis.pieces(), analysis.start(), tail.start);
        trim::trim(log, analysis, &kept)?;
    }
    tail_rewrite::commit(log, lock, control, analysis, tail)
}

/// Copies what is cut off; see [`trim::keep_cut_bytes`].
#[inline]
pub(crate) fn keep_cut_bytes(
    log: &LogDir,
    analysis: &Analysis,
    pieces: &[Piece],
) -> Result<Vec<PathBuf>> {
    if planted(Mutant::TrimBeforeQuarantine) {
        trim::trim(log, analysis, pieces)?;
    }
    trim::keep_cut_bytes(log, analysis, pieces)
}
