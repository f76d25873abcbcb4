//! Checksums that leave something out.

use super::mutants::{Mutant, planted};

/// Returns what the CRC of a body covers of one of its pieces.
#[inline]
pub(crate) fn covered(piece: &[u8]) -> &[u8] {
    const LEFT_OUT: usize = 8;
    if planted(Mutant::BodyCrcStopsEarly) {
        piece.split_at(piece.len().saturating_sub(LEFT_OUT)).0
    } else {
        piece
    }
}
