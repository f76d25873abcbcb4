//! A cursor that reads from one segment to the next, and from one epoch to the next.
//!
//! Owns the rules of where a segment's frames are continued. Never decides whether what
//! is missing is lost or not there yet.

use super::index::{Begin, Disk, SegmentIndex};
use bulla_storage::frames::reader::{Cursor, FrameReader, Start};
use bulla_storage::{Epoch, Lsn, Result, SegmentNumber};

/// A place among the live frames, and the segment that is open there.
#[derive(Debug)]
pub(super) struct ReadCursor {
    pub(super) frame_reader: FrameReader,
    pub(super) epoch: Epoch,
    begin: Begin,
    sector: u32,
    chunk: u64,
    /// Later epochs replace its frames from here on.
    end_lsn: Lsn,
    /// Bytes above it may still change.
    mark: Lsn,
}

impl ReadCursor {
    /// None when there is no such segment (any more).
    pub(super) fn open(
        disk: &Disk,
        index: &SegmentIndex,
        begin: Begin,
        chunk: u64,
    ) -> Result<Option<Self>> {
        let Some(header) = index.header(begin.number) else { return Ok(None) };
        let Some(read_buffer) = disk.read_buffer(begin.number, chunk)? else { return Ok(None) };
        let end_lsn = index.end_lsn(header.epoch);
        let start = Start::At { base: begin.base, cursor: begin.cursor };
        let frame_reader = FrameReader::new(read_buffer, header, start, end_lsn);
        let (epoch, sector) = (header.epoch, header.sector);
        Ok(Some(Self { frame_reader, epoch, begin, sector, chunk, end_lsn, mark: Lsn::MAX }))
    }

    /// What the next frame must continue.
    pub(super) fn at(&self) -> Cursor {
        self.frame_reader.at().unwrap_or(self.begin.cursor)
    }

    /// Where the next frame starts.
    pub(super) fn lsn(&self) -> Lsn {
        self.at().lsn
    }

    /// Returns whether the next frame is its segment's first one.
    pub(super) fn is_at_first(&self) -> bool {
        self.lsn() == self.begin.base
    }

    /// The segment that it is in.
    pub(super) fn number(&self) -> SegmentNumber {
        self.begin.number
    }

    /// Offset of the first frame of every segment.
    pub(super) fn first_offset(&self) -> u64 {
        u64::from(self.sector)
    }

    /// Where another cursor begins to start from the same place.
    pub(super) fn here(&self) -> Begin {
        Begin { cursor: self.at(), ..self.begin }
    }

    /// From now on frames below `mark` are given, and no byte above it is kept.
    pub(super) fn raise(&mut self, mark: Lsn) {
        self.mark = mark;
        self.frame_reader.set_end_lsn(self.end_lsn.min(mark));
        let below = mark.distance_from(self.begin.base);
        self.frame_reader.read_buffer.set_limit(below.saturating_add(u64::from(self.sector)));
    }

    /// There may be later epochs. Returns false when they replace what is before this place.
    pub(super) fn renew(&mut self, index: &SegmentIndex) -> bool {
        self.end_lsn = index.end_lsn(self.epoch);
        self.frame_reader.set_end_lsn(self.end_lsn);
        self.lsn() <= self.end_lsn
    }

    /// Goes on in the segment that continues here; false when none does (yet).
    pub(super) fn cross(&mut self, disk: &Disk, index: &SegmentIndex) -> Result<bool> {
        let at = self.at();
        let replaced = at.lsn == self.end_lsn;
        let number = if replaced {
            index.epoch_start_at(at.lsn)
        } else {
            let next = index.header(self.number().next());
            next.filter(|next| next.epoch_start.is_none()).map(|next| next.number)
        };
        let Some(number) = number else { return Ok(false) };
        let begin = Begin { number, base: at.lsn, cursor: at };
        let Some(mut next) = Self::open(disk, index, begin, self.chunk)? else { return Ok(false) };
        next.raise(self.mark);
        // Without its first frame a segment says nothing of where this one ends. The
        // opening of an epoch says it without one.
        if !replaced && next.frame_reader.peek()?.is_err() {
            return Ok(false);
        }
        *self = next;
        Ok(true)
    }
}
