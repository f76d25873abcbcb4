//! Measures what every byte of a log's segment files is. Read-only.
//!
//! Owns nothing: it takes the live frames from an analysis and reads what lies behind them
//! again, sector by sector. Tested by `recovery/tests/files/maps.rs`.

use bulla_storage::format::all_zero;

use crate::log_dir::{LogDir, Piece};
use crate::report::{Seal, SegmentReport, SegmentState, Status};
use bulla_storage::Result;
use bulla_storage::frames::read_buffer::{READ_LEN, to_usize};

/// What the bytes of a segment's file are, in whole sectors; together they are its length.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SegmentBytes {
    /// The header.
    pub header: u64,
    /// Frames that count, and the seal.
    pub live: u64,
    /// Written once, and no longer a part of the log: replaced by a later epoch, below
    /// the low-water mark, or behind where the successor shows that the segment ends.
    pub dead: u64,
    /// Behind the end of the log, and never marked durable: a recovery cuts it off.
    pub torn: u64,
    /// Unknown: behind damage, or in a segment that does not fit.
    pub unread: u64,
    /// Zeros: not used yet.
    pub zero: u64,
}

/// Measures one segment; returns `None` when its file has gone since. `open` says that the log
/// ends in it, or before it.
pub(crate) fn measure(
    log: &LogDir,
    status: &Status,
    open: bool,
    segment: &SegmentReport,
    piece: Option<&Piece>,
) -> Result<Option<SegmentBytes>> {
    let mut read_buffer = match log.segment(segment.number, log.options.is_direct()) {
        Err(error) if error.is_not_found() => return Ok(None),
        read_buffer => read_buffer?,
    };
    let sector = u64::from(log.options.sector);
    let mut bytes = SegmentBytes::default();
    let mut at = 0;
    if segment.epoch.is_some() {
        bytes.header = sector.min(read_buffer.len());
        let seal = if segment.seal == Some(Seal::Rotated) { sector } else { 0 };
        let end = piece.map_or(sector, Piece::end_offset).saturating_add(seal);
        at = end.clamp(bytes.header, read_buffer.len());
        bytes.live = at - bytes.header;
    }
    let rest = match (segment.state, status) {
        (SegmentState::Dead | SegmentState::Replaced, _) => &mut bytes.dead,
        (SegmentState::Unread, _) => &mut bytes.unread,
        // The log continues in another segment: what lies behind this one's frames does not
        // belong to it.
        _ if !open => &mut bytes.dead,
        (_, Status::Corrupt(_)) => &mut bytes.unread,
        _ => &mut bytes.torn,
    };
    let mut zero = 0;
    loop {
        let chunk = read_buffer.bytes(at, READ_LEN)?;
        if chunk.is_empty() {
            break;
        }
        for sector in chunk.chunks(to_usize(sector)) {
            *(if all_zero(sector) { &mut zero } else { &mut *rest }) += sector.len() as u64;
        }
        at += chunk.len() as u64;
    }
    bytes.zero = zero;
    Ok(Some(bytes))
}
