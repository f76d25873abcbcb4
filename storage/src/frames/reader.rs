//! Frames of one segment in order, each validated, up to the first that is not valid.
//!
//! Owns what makes a frame valid in its place. Used by readers, and by recovery's scan,
//! replay and tail rewrite, so that all agree. It allocates no more than one frame's length,
//! once the header's CRC has confirmed it and the file is long enough.

use crate::error::{FrameDamage, Result};
use crate::format::{
    Entries, FRAME_HEADER_LEN, FormatError, Frame, FrameKind, Header, LowWater, Seed, all_zero,
};
use crate::frames::read_buffer::{Buffer, ReadBuffer, to_usize};
use crate::position::{Epoch, Lsn, Seq};

/// The largest number of frames in a batch.
pub const MAX_BATCH: usize = 1024;

/// Where the next frame must start, and what it must continue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cursor {
    /// The next frame's position.
    pub lsn: Lsn,
    /// Number of its first entry.
    pub seq: Seq,
    /// Header CRC of the last non-seal frame before.
    pub prev_crc: u32,
    /// The wall time of the frame before; not a validity check. In a segment it never goes back.
    pub wall_ns: u64,
}

impl Cursor {
    /// Returns why a frame that starts with `self` does not continue what ends with `end`.
    #[must_use]
    pub fn mismatch(&self, end: &Self) -> Option<FrameDamage> {
        if self.lsn != end.lsn {
            Some(FrameDamage::Lsn)
        } else if self.seq != end.seq {
            Some(FrameDamage::Seq)
        } else if self.prev_crc != end.prev_crc {
            Some(FrameDamage::PrevCrc)
        } else {
            None
        }
    }
}

impl From<&LowWater> for Cursor {
    fn from(low_water: &LowWater) -> Self {
        Self {
            lsn: low_water.lsn,
            seq: low_water.seq,
            prev_crc: low_water.prev_crc,
            wall_ns: low_water.wall_ns,
        }
    }
}

/// What is known about a segment's first frame before it is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Start {
    /// Everything; the segment's byte `sector` has LSN `base`.
    At {
        /// LSN of the segment's first byte after the header.
        base: Lsn,
        /// The first frame to be read.
        cursor: Cursor,
    },
    /// What an epoch-start segment says: its base, and the Seq there.
    EpochStart {
        /// LSN of the segment's first byte after the header.
        base: Lsn,
        /// Number of its first entry.
        seq: Seq,
    },
    /// Nothing: the frame itself tells, and its neighbours are compared later.
    FirstFrame,
}

/// How reading ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// No valid frame starts here.
    Damage(FrameDamage),
    /// From here on the bytes are replaced by a later epoch, or were not requested.
    Ceiling,
    /// The segment's end came before.
    Rotated,
    /// The clean shutdown of a closed log came before.
    Closed,
}

/// A valid frame.
#[derive(Debug)]
pub struct Found<'a> {
    /// Its header.
    pub frame: Frame,
    /// Its offset in the file.
    pub offset: u64,
    /// The body, and its padding.
    pub body: &'a [u8],
    /// What it continues.
    pub before: Cursor,
    /// What the next frame must continue.
    pub after: Cursor,
    /// Its last user entry.
    pub last_entry: Option<(Lsn, Seq)>,
}

/// A frame whose header is valid in its place. Its body was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Located {
    /// Its header.
    pub frame: Frame,
    /// Its offset in the file.
    pub offset: u64,
    /// What it continues.
    pub before: Cursor,
    /// What the next frame must continue.
    pub after: Cursor,
}

/// Located frames of one segment, and their bytes.
#[derive(Debug, Default)]
pub struct Batch {
    /// The frames, one after the other.
    pub frames: Vec<Located>,
    buffer: Buffer,
    segment: Option<(Seed, u32)>,
}

impl Batch {
    /// Returns the bytes of memory for its frames' bytes, used or not. A
    /// [`FrameReader::gather`] never reduces it.
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        self.buffer.memory_len()
    }

    /// Returns the body of one of its frames, and the padding; checked as
    /// [`FrameReader::step`] does.
    ///
    /// # Errors
    /// Returns what is wrong with it.
    pub fn check(&self, located: &Located) -> Result<(), FrameDamage> {
        let (seed, body) = self.segment.zip(self.body(located)).ok_or(FrameDamage::EndOfFile)?;
        check_body(&located.frame, body, seed.0).map(drop)
    }

    /// Returns the body of one of its frames, and the padding; `None` when the file is
    /// shorter than it was.
    #[must_use]
    pub fn body(&self, located: &Located) -> Option<&[u8]> {
        let (_, sector) = self.segment?;
        let len = located.frame.disk_len(sector) - FRAME_HEADER_LEN;
        let body = self.buffer.get(located.offset + FRAME_HEADER_LEN, len);
        Some(body).filter(|body| body.len() as u64 == len)
    }
}

/// One step of a frame reader.
#[derive(Debug)]
pub enum Step<'a> {
    /// A valid frame.
    Frame(Found<'a>),
    /// There is no further frame.
    End(End),
}

/// A reader of the frames of one segment.
#[derive(Debug)]
pub struct FrameReader {
    /// The segment's file.
    pub read_buffer: ReadBuffer,
    seed: Seed,
    epoch: Epoch,
    sector: u32,
    start: Start,
    at: Option<Cursor>,
    end_lsn: Lsn,
    offset: u64,
    sealed: Option<End>,
}

struct Checked {
    frame: Frame,
    crc: u32,
    last_entry: Option<(Lsn, Seq)>,
}

impl FrameReader {
    /// Creates a reader of the frames below `end_lsn`.
    #[must_use]
    pub fn new(read_buffer: ReadBuffer, header: &Header, start: Start, end_lsn: Lsn) -> Self {
        let sector = u64::from(header.sector);
        let (at, offset) = match start {
            Start::At { base, cursor } => {
                (Some(cursor), sector.saturating_add(cursor.lsn.distance_from(base)))
            }
            Start::EpochStart { .. } | Start::FirstFrame => (None, sector),
        };
        Self {
            read_buffer,
            seed: header.seed(),
            epoch: header.epoch,
            sector: header.sector,
            start,
            at,
            end_lsn,
            offset,
            sealed: None,
        }
    }

    /// Returns the file offset of the next frame.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns what the next frame must continue; `None` before the first frame when the
    /// start says nothing of it.
    #[must_use]
    pub fn at(&self) -> Option<Cursor> {
        self.at
    }

    /// Sets the end: from now on the reader returns frames below `end_lsn`.
    pub fn set_end_lsn(&mut self, end_lsn: Lsn) {
        self.end_lsn = end_lsn;
    }

    /// Returns the seed of the segment's frames.
    #[must_use]
    pub fn seed(&self) -> Seed {
        self.seed
    }

    /// Returns the next frame, or why there is none; after an end, the same end again.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn step(&mut self) -> Result<Step<'_>> {
        if let Some(end) = self.end_before_reading() {
            return Ok(Step::End(end));
        }
        let checked = match self.check()? {
            Ok(checked) => checked,
            Err(end) => return Ok(Step::End(end)),
        };
        let Checked { frame, crc, last_entry } = checked;
        let Located { offset, before, after, .. } = self.pass(frame, crc);
        let len = frame.disk_len(self.sector);
        let body = self.read_buffer.bytes(offset + FRAME_HEADER_LEN, len - FRAME_HEADER_LEN)?;
        Ok(Step::Frame(Found { frame, offset, body, before, after, last_entry }))
    }

    /// Returns the header of the next frame without reading its body, or why there is none.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn peek(&mut self) -> Result<Result<Frame, End>> {
        if let Some(end) = self.end_before_reading() {
            return Ok(Err(end));
        }
        Ok(self.check_header()?.map(|(frame, _)| frame))
    }

    /// Skips the next frame without reading its body, as [`step`](Self::step) does after
    /// reading it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn skip(&mut self) -> Result<Result<Located, End>> {
        if let Some(end) = self.end_before_reading() {
            return Ok(Err(end));
        }
        Ok(self.check_header()?.map(|(frame, crc)| self.pass(frame, crc)))
    }

    /// Skips the next frames without checking their bodies, and puts them into `batch`: as
    /// many as begin within the read buffer's chunk, at most [`MAX_BATCH`], and at least one
    /// if there is one. Returns the end once it is reached. After an error or an end, the
    /// batch holds the frames before it.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io).
    pub fn gather(&mut self, batch: &mut Batch) -> Result<Option<End>> {
        batch.frames.clear();
        batch.segment = Some((self.seed, self.sector));
        self.read_buffer.swap(&mut batch.buffer);
        self.read_buffer.forget();
        let gathered = self.gather_in_window(&mut batch.frames);
        self.read_buffer.swap(&mut batch.buffer);
        gathered
    }

    fn gather_in_window(&mut self, frames: &mut Vec<Located>) -> Result<Option<End>> {
        let chunk_end = self.offset.saturating_add(self.read_buffer.chunk());
        let sector = u64::from(self.sector);
        // Without the check of the chunk, blocks longer than a sector could lead from each
        // frame to the next one.
        while frames.len() < MAX_BATCH
            && (frames.is_empty()
                || (self.offset < chunk_end && self.read_buffer.holds(self.offset, sector)))
        {
            match self.skip()? {
                Ok(located) => {
                    // The header's CRC confirms the length, and the file holds it.
                    self.read_buffer.extend(located.offset, located.frame.disk_len(self.sector))?;
                    frames.push(located);
                }
                Err(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    fn pass(&mut self, frame: Frame, crc: u32) -> Located {
        let before = self.at.unwrap_or(Cursor {
            lsn: frame.lsn,
            seq: frame.first_seq,
            prev_crc: frame.prev_crc,
            wall_ns: 0,
        });
        let after = Cursor {
            lsn: frame.end(self.sector),
            seq: frame.next_seq(),
            prev_crc: if frame.kind.is_seal() { before.prev_crc } else { crc },
            wall_ns: if self.offset == u64::from(self.sector) {
                frame.wall_ns
            } else {
                before.wall_ns.max(frame.wall_ns)
            },
        };
        self.at = Some(after);
        let offset = self.offset;
        self.offset += frame.disk_len(self.sector);
        match frame.kind {
            FrameKind::SegmentEnd => self.sealed = Some(End::Rotated),
            FrameKind::CleanShutdown => self.sealed = Some(End::Closed),
            FrameKind::Data | FrameKind::DurableMark => {}
        }
        Located { frame, offset, before, after }
    }

    fn end_before_reading(&self) -> Option<End> {
        let known = match self.start {
            Start::EpochStart { base, .. } => Some(base),
            Start::At { .. } | Start::FirstFrame => None,
        };
        let lsn = self.at.map(|at| at.lsn).or(known);
        if lsn.is_some_and(|lsn| lsn >= self.end_lsn) {
            return Some(End::Ceiling);
        }
        self.sealed
    }

    /// Returns the frame at the reader's place, if it is valid there.
    fn check(&mut self) -> Result<Result<Checked, End>> {
        let (frame, crc) = match self.check_header()? {
            Ok(valid) => valid,
            Err(end) => return Ok(Err(end)),
        };
        // The header's CRC confirms the length, and the file holds it: read it only now.
        let len = frame.disk_len(self.sector);
        let seed = self.seed;
        let bytes = self.read_buffer.bytes(self.offset, len)?;
        let Some(body) =
            bytes.get(to_usize(FRAME_HEADER_LEN)..).filter(|_| bytes.len() as u64 == len)
        else {
            return Ok(Err(End::Damage(FrameDamage::EndOfFile)));
        };
        Ok(match check_body(&frame, body, seed) {
            Ok(last_entry) => Ok(Checked { frame, crc, last_entry }),
            Err(damage) => Err(End::Damage(damage)),
        })
    }

    fn check_header(&mut self) -> Result<Result<(Frame, u32), End>> {
        let (seed, epoch, sector) = (self.seed, self.epoch, self.sector);
        let bytes = self.read_buffer.bytes(self.offset, u64::from(sector))?;
        if bytes.is_empty() {
            return Ok(Err(End::Damage(FrameDamage::EndOfFile)));
        }
        let (frame, crc) = match Frame::decode(bytes, seed, epoch, sector) {
            Ok(valid) => valid,
            Err(_) if all_zero(bytes) => return Ok(Err(End::Damage(FrameDamage::Zeros))),
            Err(error) => return Ok(Err(End::Damage(FrameDamage::Header(error)))),
        };
        let found = Cursor {
            lsn: frame.lsn,
            seq: frame.first_seq,
            prev_crc: frame.prev_crc,
            wall_ns: frame.wall_ns,
        };
        let expected = match (self.at, self.start) {
            (Some(at), _) => at,
            (None, Start::EpochStart { base, seq }) => Cursor { lsn: base, seq, ..found },
            (None, _) => found,
        };
        if let Some(damage) = found.mismatch(&expected) {
            return Ok(Err(End::Damage(damage)));
        }
        if frame.lsn >= self.end_lsn {
            return Ok(Err(End::Ceiling));
        }
        if frame.end(sector) > self.end_lsn {
            return Ok(Err(End::Damage(FrameDamage::Boundary)));
        }
        let len = frame.disk_len(sector);
        if self.offset.saturating_add(len) > self.read_buffer.len() {
            return Ok(Err(End::Damage(FrameDamage::Length)));
        }
        Ok(Ok((frame, crc)))
    }
}

/// Checks CRC, entries and padding of a body; returns its last user entry.
fn check_body(frame: &Frame, body: &[u8], seed: Seed) -> Result<Option<(Lsn, Seq)>, FrameDamage> {
    if seed.body_crc(&[body]) != frame.body_crc {
        return Err(FrameDamage::BodyCrc);
    }
    let mut last = None;
    for entry in Entries::new(frame, body) {
        let entry = entry.map_err(FrameDamage::Body)?;
        last = Some((entry.lsn, entry.seq));
    }
    let padding = body.get(to_usize(u64::from(frame.body_len))..).unwrap_or(&[]);
    if !all_zero(padding) {
        return Err(FrameDamage::Body(FormatError::Reserved));
    }
    Ok(last)
}
