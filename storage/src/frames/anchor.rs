//! Anchors: frame boundaries that stay where they are, for a caller that keeps a state of its
//! own and replays only what came after it.
//!
//! Owns how a boundary is found from a position, and how it is recognised again: the frame
//! that ends there must still have the CRC that it had. Never says that what lies below is
//! durable; `Log::persist_durable_mark` does. Tested by
//! `recovery/tests/with_log.rs`.

use crate::error::{Corruption, CorruptionKind, Error, FrameDamage, Result};
use crate::files::dir::{self, Directory};
use crate::files::purge::Floor;
use crate::format::{Frame, Header, LogId, LowWater, MAX_SECTOR};
use crate::frames::read_buffer::ReadBuffer;
use crate::frames::reader::{Cursor, End, FrameReader, Start};
use crate::position::{Epoch, Lsn};

/// Headers are read in pieces of this many bytes.
const CHUNK: u64 = 64 * 1024;

/// The last frame boundary at or below a position, and everything needed to recognise it
/// again and to read on from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    /// Which log it is in.
    pub log_id: LogId,
    /// The epoch that wrote the frame before it, and the entries up to `upto`.
    pub epoch: Epoch,
    /// That epoch's nonce.
    pub nonce: u64,
    /// The position that it was made for.
    pub upto: Lsn,
    /// Where its segment starts: the low-water mark once everything before that is purged.
    pub segment: LowWater,
    /// The boundary: what the frame there continues.
    pub at: Cursor,
    /// Where the frame that ends there starts; none at the start of an epoch-start segment.
    pub last: Option<Lsn>,
}

/// Finds the anchor of a position in the segment that starts at `segment`, at or below
/// `end_lsn`.
///
/// # Errors
/// [`Error::Io`]; [`Error::Corrupt`] when a frame below the position is not intact.
pub fn find(
    dir: &Directory,
    segment: LowWater,
    end_lsn: Lsn,
    upto: Lsn,
    direct: bool,
) -> Result<Anchor> {
    let name = dir::segment_name(segment.segment);
    let mut read_buffer = ReadBuffer::open(dir, &name, direct)?.with_chunk(CHUNK);
    let header = Header::decode(read_buffer.bytes(0, u64::from(MAX_SECTOR))?)
        .map_err(|damage| fault(segment, 0, CorruptionKind::SegmentHeader(damage)))?;
    let start = Start::At { base: segment.lsn, cursor: Cursor::from(&segment) };
    let mut frame_reader = FrameReader::new(read_buffer, &header, start, end_lsn);
    let mut last = None;
    let end = loop {
        match frame_reader.skip()? {
            Ok(located) => last = Some(located.frame.lsn),
            Err(end) => break end,
        }
    };
    match end {
        // The position is a boundary itself, or inside the frame that comes next.
        End::Ceiling | End::Damage(FrameDamage::Boundary) => {}
        End::Damage(damage) => {
            return Err(fault(segment, frame_reader.offset(), CorruptionKind::Frame(damage)));
        }
        End::Rotated | End::Closed => {
            let kind = CorruptionKind::Frame(FrameDamage::Boundary);
            return Err(fault(segment, frame_reader.offset(), kind));
        }
    }
    let at = frame_reader.at().unwrap_or(Cursor::from(&segment));
    let (log_id, epoch, nonce) = (header.log_id, header.epoch, header.nonce);
    Ok(Anchor { log_id, epoch, nonce, upto, segment, at, last })
}

impl Anchor {
    /// Returns what a purge keeps so that it stands.
    #[must_use]
    pub fn floor(&self) -> Floor {
        Floor { lsn: self.segment.lsn, segment: self.segment.segment }
    }

    /// Returns whether it is still there, in the segment with this header. Reads no other
    /// frame than the one that ends there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn is_in(&self, header: &Header, read_buffer: &mut ReadBuffer) -> Result<bool> {
        let Self { segment, at, .. } = self;
        let same = header.log_id == self.log_id
            && header.number == segment.segment
            && (header.epoch, header.nonce) == (self.epoch, self.nonce)
            && segment.epoch == self.epoch
            && segment.lsn <= at.lsn
            && at.lsn <= self.upto;
        let Some(last) = self.last.filter(|_| same) else {
            let opens = header.epoch_start.as_ref().is_some_and(|epoch_start| {
                epoch_start.base == at.lsn
                    && epoch_start.first_seq == at.seq
                    && segment.lsn == at.lsn
            });
            return Ok(same && opens);
        };
        if last < segment.lsn || last >= at.lsn {
            return Ok(false);
        }
        let sector = u64::from(header.sector);
        let offset = sector.saturating_add(last.distance_from(segment.lsn));
        let bytes = read_buffer.bytes(offset, sector)?;
        let Ok((frame, crc)) = Frame::decode(bytes, header.seed(), header.epoch, header.sector)
        else {
            return Ok(false);
        };
        Ok(crc == at.prev_crc
            && frame.lsn == last
            && frame.end(header.sector) == at.lsn
            && frame.next_seq() == at.seq)
    }
}

fn fault(segment: LowWater, offset: u64, kind: CorruptionKind) -> Error {
    Error::from(Box::new(Corruption {
        segment: Some(segment.segment),
        offset: Some(offset),
        lsn: None,
        durable: None,
        kind,
    }))
}
