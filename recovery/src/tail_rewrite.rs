//! The commit point of a recovery: a segment that opens a new epoch with the tail rewritten.
//!
//! Owns what that segment holds: the frames from the durable end to the valid end, at the same
//! positions, under the new epoch. It appears under its name only when it is whole and synced.
//! Never touches an older segment. Tested by `recovery/tests/files/crashes.rs`.

use std::io;
use std::ops::ControlFlow;

use bulla_storage::faults::failpoints::Failpoint;
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::recovered::{LiveSegment, random_nonce};
use bulla_storage::files::segment::{self, NewSegment, UnnamedSegment};
use bulla_storage::format::{Control, EpochStart, Frame, FrameKind, Header, LowWater, Seed};
use bulla_storage::io::{AlignedBuf, File, Lock, write_full};
use bulla_storage::{Epoch, Lsn, Recovered};

use crate::analysis::Analysis;
use crate::faults;
use crate::log_dir::{LogDir, Piece};
use crate::plan::Plan;
use crate::replay;
use bulla_storage::frames::read_buffer::to_usize;
use bulla_storage::frames::reader::{Cursor, Found};
use bulla_storage::{Error, Result};

/// Rewritten frames are written in pieces of this many bytes.
const CHUNK_LEN: u64 = 1024 * 1024;

/// The frames that a new epoch rewrites: from its opening, which is the durable end or a
/// boundary below it, to the end of what it keeps.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
}

impl Tail {
    fn len(&self) -> u64 {
        self.end.lsn.distance_from(self.start.lsn)
    }
}

/// A new epoch, durable.
pub(crate) struct Committed {
    pub(crate) recovered: Recovered,
    /// The live frames: those of older segments below the tail, then the new segment's.
    pub(crate) pieces: Vec<Piece>,
}

/// Begins a new epoch: writes a segment with the tail's frames, then CONTROL, then names it.
pub(crate) fn commit(
    log: &LogDir,
    lock: Box<dyn Lock>,
    mut control: ControlFile,
    analysis: &Analysis,
    tail: Tail,
) -> Result<Committed> {
    let mut pieces = analysis.pieces();
    let rewritten = faults::epoch::rewritten(clip(&pieces, tail.start, tail.end));
    pieces = clip(&pieces, analysis.start(), tail.start);
    let header = faults::epoch::header(new_header(log, analysis, tail)?, tail.end);
    let low_water = LowWater {
        // Only a repair replaces the low-water mark's own segment.
        epoch: if analysis.plan.segments.is_empty() {
            header.epoch
        } else {
            analysis.plan.low_water.epoch
        },
        ..analysis.plan.low_water
    };
    let next = Control { epoch: header.epoch, nonce: header.nonce, low_water, ..analysis.control };
    let new = NewSegment {
        header: &header,
        len: log.options.epoch_start_len(tail.len()),
        direct: log.options.is_direct(),
        zeroed: true,
        // Only a repair begins an epoch at a number that a file still has.
        replaces: true,
        is_wanted: &|| true,
    };
    // What needs space comes first: on a full disk nothing was changed.
    let (segment, end) = write_segment(log, &new, &rewritten, tail)?;
    if let Err(error) = control.store(next, Failpoint::ControlEpochSync) {
        segment.remove();
        return Err(Error::io("write", control.path())(error));
    }
    let file = segment.name()?;
    let base = tail.start.lsn;
    pieces.push(Piece { header: header.clone(), base, start: tail.start, end, unsealed: true });
    let recovered = Recovered {
        options: log.options.clone(),
        dir: log.dir.clone(),
        lock,
        control,
        file,
        file_len: new.len,
        next_lsn: end.lsn,
        next_seq: end.seq,
        prev_crc: end.prev_crc,
        wall_ns: end.wall_ns,
        live: live_segments(&pieces, &analysis.plan),
        header,
    };
    Ok(Committed { recovered: faults::epoch::recovered(recovered, tail.start), pieces })
}

/// Returns the parts of `pieces` between two boundaries, without empty ones.
pub(crate) fn clip(pieces: &[Piece], from: Cursor, to: Cursor) -> Vec<Piece> {
    pieces
        .iter()
        .filter(|piece| piece.end.lsn > from.lsn && piece.start.lsn < to.lsn)
        .map(|piece| Piece {
            start: if piece.start.lsn < from.lsn { from } else { piece.start },
            end: if piece.end.lsn > to.lsn { to } else { piece.end },
            ..piece.clone()
        })
        .filter(|piece| piece.start.lsn < piece.end.lsn)
        .collect()
}

/// Returns the segments of the pieces, and the anchor's, even if there is nothing in it behind
/// the anchor: the log can be purged up to there.
fn live_segments(pieces: &[Piece], plan: &Plan) -> Vec<LiveSegment> {
    let first = LiveSegment { start: plan.first_start };
    let is_left_out = pieces.first().is_some_and(|piece| piece.start.lsn >= plan.first_start.lsn)
        && pieces.iter().all(|piece| piece.header.number != plan.first_start.segment);
    let first = is_left_out.then_some(first);
    first.into_iter().chain(pieces.iter().map(|piece| live_segment(piece, plan))).collect()
}

/// Returns the segment of a piece.
pub(crate) fn live_segment(piece: &Piece, plan: &Plan) -> LiveSegment {
    if piece.header.number == plan.first_start.segment {
        // The scan may have started in the middle of it.
        return LiveSegment { start: plan.first_start };
    }
    let start = piece.start;
    LiveSegment {
        start: LowWater {
            segment: piece.header.number,
            lsn: start.lsn,
            seq: start.seq,
            prev_crc: start.prev_crc,
            epoch: piece.header.epoch,
            wall_ns: start.wall_ns,
        },
    }
}

fn new_header(log: &LogDir, analysis: &Analysis, tail: Tail) -> Result<Header> {
    let last = analysis.plan.segments.last();
    let control = &analysis.control;
    let epoch = control.epoch.0.checked_add(1).ok_or(Error::EpochsExhausted)?;
    Ok(Header {
        log_id: control.log_id,
        number: last.map_or(control.low_water.segment, |last| last.number.next()),
        epoch: Epoch(epoch),
        nonce: random_nonce(&log.options, &log.dir)?,
        previous_nonce: last.map_or(0, |last| last.header.nonce),
        sector: control.sector,
        wall_ns: log.io.wall_ns(),
        epoch_start: Some(EpochStart {
            base: tail.start.lsn,
            first_seq: tail.start.seq,
            replaces_from: tail.start.lsn,
            truncated_at: tail.end.lsn,
            truncations: analysis.timeline().truncations(),
        }),
    })
}

/// Writes the segment. Returns it and what the next frame must continue.
fn write_segment(
    log: &LogDir,
    new: &NewSegment<'_>,
    rewritten: &[Piece],
    tail: Tail,
) -> Result<(UnnamedSegment, Cursor)> {
    let sector = new.header.sector;
    let seed = new.header.seed();
    let mut prev_crc = tail.start.prev_crc;
    let mut wall_ns = None;
    // An error of reading the tail is not one of writing the segment.
    let mut failure = None;
    let written = segment::write(&log.dir, new, |file| {
        let mut writer = TailWriter::new(file, u64::from(sector), tail.len());
        let copied = copy_frames(log, rewritten, |found| {
            let (mut frame, body_len) =
                renewed(found, new.header.epoch, tail.start.lsn, prev_crc, seed);
            // The frames may come from several segments. In one, times never go back.
            frame.wall_ns = frame.wall_ns.max(wall_ns.unwrap_or(0));
            wall_ns = Some(frame.wall_ns);
            let (bytes, crc) = faults::epoch::copied(frame, tail.start).encode(seed);
            prev_crc = crc;
            writer.push(&bytes)?;
            writer.push(found.body.get(..body_len).unwrap_or(&[]))
        });
        match copied.and_then(|()| Ok(writer.finish()?)) {
            Ok(end) => Ok(end),
            Err(CopyError::Write(error)) => Err(error),
            Err(CopyError::Read(error)) => {
                failure = Some(error);
                Err(io::Error::other("the tail can't be read"))
            }
        }
    });
    match (written, failure) {
        (_, Some(error)) => Err(error),
        (Err(error), None) => Err(error.into()),
        (Ok(segment), None) => {
            let wall_ns = wall_ns.unwrap_or(tail.end.wall_ns);
            Ok((segment, Cursor { prev_crc, wall_ns, ..tail.end }))
        }
    }
}

enum CopyError {
    Read(Error),
    Write(io::Error),
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

fn copy_frames(
    log: &LogDir,
    pieces: &[Piece],
    mut write: impl FnMut(&Found<'_>) -> io::Result<()>,
) -> Result<(), CopyError> {
    for piece in pieces {
        let mut failure = None;
        let read = replay::each_frame(log, piece, |_, found| {
            Ok(match write(found) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            })
        });
        if let Some(error) = failure {
            return Err(CopyError::Write(error));
        }
        let _ = read.map_err(CopyError::Read)?;
    }
    Ok(())
}

/// Returns the frame at the same position in the new epoch, and the length of its body.
///
/// The mark of a clean shutdown keeps its position, so that the position is not used again,
/// and becomes a durable mark: the log continues after it.
fn renewed(
    found: &Found<'_>,
    epoch: Epoch,
    durable: Lsn,
    prev_crc: u32,
    seed: Seed,
) -> (Frame, usize) {
    let kind = match found.frame.kind {
        FrameKind::CleanShutdown => FrameKind::DurableMark,
        kind => kind,
    };
    let body_crc = seed.body_crc(&[found.body]);
    let frame = Frame { kind, epoch, durable_lsn: durable, prev_crc, body_crc, ..found.frame };
    (frame, found.body.len())
}

/// Writes rewritten frames one after the other, in bounded and aligned chunks.
struct TailWriter<'a> {
    file: &'a dyn File,
    buf: AlignedBuf,
    used: usize,
    offset: u64,
}

impl<'a> TailWriter<'a> {
    fn new(file: &'a dyn File, offset: u64, tail_len: u64) -> Self {
        let buf = AlignedBuf::zeroed(to_usize(tail_len.min(CHUNK_LEN)));
        Self { file, buf, used: 0, offset }
    }

    fn push(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = self.buf.get_mut(self.used..).unwrap_or(&mut []);
            let len = room.len().min(bytes.len());
            if len == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            let (now, later) = bytes.split_at(len);
            if let Some(room) = room.get_mut(..len) {
                room.copy_from_slice(now);
            }
            self.used += len;
            bytes = later;
            if self.used == self.buf.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, self.buf.get(..self.used).unwrap_or(&[]), self.offset)?;
        self.offset += self.used as u64;
        self.used = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.flush()?;
        Ok(self.offset)
    }
}
