//! The new epoch that an open begins, changed before it is written or passed to the log.

use bulla_storage::faults::mutants::{Mutant, planted};
use bulla_storage::format::{Frame, Header};
use bulla_storage::frames::reader::Cursor;
use bulla_storage::{Epoch, Recovered};

use crate::log_dir::Piece;

/// Returns the frames that are copied.
#[inline]
pub(crate) fn rewritten(mut rewritten: Vec<Piece>) -> Vec<Piece> {
    if planted(Mutant::TailRewriteDropsLastFrame) {
        rewritten.pop();
    }
    rewritten
}

/// Returns the copy of a frame; the first one continues `start`.
#[inline]
pub(crate) fn copied(mut frame: Frame, start: Cursor) -> Frame {
    if planted(Mutant::TailRewriteForgetsPrevCrc) {
        frame.prev_crc = start.prev_crc;
    }
    frame
}

/// Returns the header of the epoch-start segment, which takes over what ends at `end`.
#[inline]
pub(crate) fn header(mut header: Header, end: Cursor) -> Header {
    if planted(Mutant::EpochNotRaised) {
        header.epoch = Epoch(header.epoch.0.saturating_sub(1));
    }
    if let Some(epoch_start) = &mut header.epoch_start {
        if planted(Mutant::ReplacesFromEnd) {
            epoch_start.replaces_from = end.lsn;
        }
        if planted(Mutant::CutsForgotten) {
            epoch_start.truncations.clear();
        }
    }
    header
}

/// Returns the log that accepts appends; its epoch took over what begins at `start`.
#[inline]
pub(crate) fn recovered(mut recovered: Recovered, start: Cursor) -> Recovered {
    if planted(Mutant::PositionsReused) {
        recovered.next_lsn = start.lsn;
    }
    if planted(Mutant::NumbersReused) {
        recovered.next_seq = start.seq;
    }
    recovered
}
