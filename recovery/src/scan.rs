//! Scans one segment: reads its frames in order to the first invalid one, then probes every
//! later sector boundary for headers whose durable marks still count.
//!
//! Owns nothing across segments; `chain` joins what the scans find. Memory is bounded by the
//! read buffer, and by one frame for all scans that share `LongFrames`. Tested by
//! `recovery/tests/files/every_flip.rs`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bulla_storage::format::{Frame, FrameKind, Header, MAX_SECTOR, all_zero};
use bulla_storage::{Lsn, Result, Seq};

use crate::faults;
use crate::frame_runs::FrameRuns;
use crate::plan::PlannedSegment;
use bulla_storage::frames::read_buffer::{READ_LEN, ReadBuffer, to_usize};
use bulla_storage::frames::reader::{Cursor, End, Found, FrameReader, Located, Start, Step};
use bulla_storage::progress::Stretch;

/// A durable mark, and the header that carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct DurableMark {
    pub(crate) durable: Lsn,
    pub(crate) offset: u64,
    pub(crate) lsn: Lsn,
}

/// Which bodies of frames a scan reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Bodies {
    /// All: a frame is valid when its body is.
    Checked,
    /// None of frames with entries: a valid header is enough. A replay checks the body when
    /// it uses it.
    Unread,
}

/// About how many waypoints a scan keeps for a segment.
const WAYPOINTS: u64 = 16;

/// Where no body is needed, only the headers of frames of at least this length are read.
const LONG_FRAME: u64 = 4 * MAX_SECTOR as u64;

/// What one segment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scan {
    /// What the first valid frame says it continues.
    pub(crate) first: Option<Cursor>,
    /// After the last valid frame.
    pub(crate) last: Option<Cursor>,
    /// File offset after the last valid frame.
    pub(crate) stop_offset: u64,
    /// Why it ends there.
    pub(crate) stop: End,
    pub(crate) frames: u64,
    pub(crate) entries: u64,
    /// The last user entry; none where no body was read.
    pub(crate) last_entry: Option<(Lsn, Seq)>,
    /// After the last valid frame with entries.
    pub(crate) data_end: Option<Lsn>,
    /// Where some of the frames start, in order, the last one among them: a search for a
    /// boundary starts there.
    pub(crate) waypoints: Vec<Cursor>,
    /// What the frames are, for pictures.
    pub(crate) frame_runs: FrameRuns,
    /// The highest durable mark of the valid frames.
    pub(crate) in_order: Option<DurableMark>,
    /// The highest durable mark after them, of headers whose LSN fits the valid frames'.
    pub(crate) probed_in_place: Option<DurableMark>,
    /// The highest durable mark after them, of all headers valid in CRC and epoch. One in
    /// the wrong place is still truthful: only this epoch could seal it.
    pub(crate) probed: Option<DurableMark>,
    /// There is a valid header behind `stop_offset`.
    pub(crate) has_later_header: bool,
    /// File offset after the last sector from `stop_offset` on that is not all zeros.
    pub(crate) nonzero_end: Option<u64>,
}

impl Scan {
    /// Returns whether a frame is in it, wherever.
    pub(crate) fn has_frames(&self) -> bool {
        self.frames > 0 || self.probed.is_some()
    }

    /// Returns a scan that has read nothing yet.
    fn starting_at(offset: u64, frame_runs: FrameRuns) -> Self {
        Self {
            first: None,
            last: None,
            stop_offset: offset,
            stop: End::Ceiling,
            frames: 0,
            entries: 0,
            last_entry: None,
            data_end: None,
            waypoints: Vec::new(),
            frame_runs,
            in_order: None,
            probed_in_place: None,
            probed: None,
            has_later_header: false,
            nonzero_end: None,
        }
    }

    /// Returns the segment's base, as far as its frames or its start tell.
    pub(crate) fn base(&self, start: Start, sector: u32) -> Option<Lsn> {
        match start {
            Start::At { base, .. } | Start::EpochStart { base, .. } => Some(base),
            Start::FirstFrame => {
                let last = self.last?;
                let used = match self.stop {
                    End::Rotated => self.stop_offset.checked_sub(2 * u64::from(sector)),
                    _ => self.stop_offset.checked_sub(u64::from(sector)),
                };
                last.lsn.0.checked_sub(used?).map(Lsn)
            }
        }
    }
}

/// The right to hold a frame in memory that is longer than the read buffer: of concurrent
/// scans only one has it.
#[derive(Debug, Default)]
pub(crate) struct LongFrames(Mutex<()>);

impl LongFrames {
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Scans one segment. Only in the newest epoch it probes what follows the frames: durable
/// marks of older epochs count no further than the epoch start that replaces them, and the
/// frames must reach that anyway. Returns `None` when the frames end with damage and the file
/// is not `trusted` to be what is on the disk.
pub(crate) fn scan(
    read_buffer: ReadBuffer,
    segment: &PlannedSegment,
    bodies: Bodies,
    trusted: bool,
    (long_frames, frame_runs): (&LongFrames, FrameRuns),
    progress: &mut Stretch<'_>,
) -> Result<Option<Scan>> {
    let read_buffer = match bodies {
        Bodies::Checked => read_buffer,
        Bodies::Unread => read_buffer.with_chunk(u64::from(MAX_SECTOR)),
    };
    let PlannedSegment { header, start, end_lsn, newest, .. } = segment;
    let waypoint_every = READ_LEN.max(read_buffer.len() / WAYPOINTS);
    let mut frames = FrameReader::new(read_buffer, header, *start, *end_lsn);
    let mut scan = Scan::starting_at(frames.offset(), frame_runs);
    let mut last_start = None;
    loop {
        progress.reach(frames.offset())?;
        let (located, last_entry) = match next(&mut frames, header, bodies, long_frames)? {
            Ok(valid) => valid,
            Err(End::Damage(_)) if !trusted => return Ok(None),
            Err(end) => {
                scan.stop = end;
                break;
            }
        };
        let Located { frame, offset, before, after } = located;
        scan.frame_runs.push(&located, frame.disk_len(header.sector));
        let first = *scan.first.get_or_insert(before);
        let waypoint = scan.waypoints.last().unwrap_or(&first).lsn;
        if before.lsn.distance_from(waypoint) >= waypoint_every {
            scan.waypoints.push(before);
        }
        last_start = Some(before);
        scan.last = Some(after);
        scan.frames += 1;
        scan.entries += u64::from(frame.entry_count);
        scan.last_entry = last_entry.or(scan.last_entry);
        if frame.kind == FrameKind::Data {
            scan.data_end = Some(after.lsn);
        }
        raise(&mut scan.in_order, durable_mark(&frame, offset));
    }
    scan.waypoints.extend(last_start);
    scan.stop_offset = frames.offset();
    if faults::read::is_probed(*newest) {
        probe_rest(&mut frames, header, *start, &mut scan, progress)?;
    }
    Ok(Some(scan))
}

/// A valid frame, and its last user entry if its body was read.
type Valid = (Located, Option<(Lsn, Seq)>);

/// Reads the next frame, or says why there is none.
fn next(
    frames: &mut FrameReader,
    header: &Header,
    bodies: Bodies,
    long_frames: &LongFrames,
) -> Result<Result<Valid, End>> {
    let frame = frames.peek()?;
    // A frame without entries is not longer than what is read for its header.
    if bodies == Bodies::Unread && matches!(frame, Ok(frame) if frame.kind == FrameKind::Data) {
        let located = frames.skip()?;
        // Where frames are short, reading only headers takes more reads for the same bytes.
        let next_is_far =
            matches!(located, Ok(located) if located.frame.disk_len(header.sector) >= LONG_FRAME);
        let chunk = if next_is_far { u64::from(MAX_SECTOR) } else { READ_LEN };
        frames.read_buffer.set_chunk(chunk);
        return Ok(located.map(|located| (located, None)));
    }
    let is_long = matches!(frame, Ok(frame) if frame.disk_len(header.sector) > READ_LEN);
    let turn = is_long.then(|| long_frames.turn());
    let next = match frames.step()? {
        Step::Frame(Found { frame, offset, before, after, last_entry, .. }) => {
            Ok((Located { frame, offset, before, after }, last_entry))
        }
        Step::End(end) => Err(end),
    };
    if turn.is_some() {
        frames.read_buffer.shrink();
    }
    Ok(next)
}

/// Probes every sector boundary after the valid frames.
fn probe_rest(
    frames: &mut FrameReader,
    header: &Header,
    start: Start,
    scan: &mut Scan,
    progress: &mut Stretch<'_>,
) -> Result<()> {
    let sector = u64::from(header.sector);
    let base = scan.base(start, header.sector);
    let seed = frames.seed();
    let mut at = scan.stop_offset;
    loop {
        progress.reach(at)?;
        let chunk = frames.read_buffer.bytes(at, READ_LEN)?;
        if chunk.is_empty() {
            return Ok(());
        }
        let len = chunk.len() as u64;
        if !all_zero(chunk) {
            for (index, bytes) in chunk.chunks(to_usize(sector)).enumerate() {
                if all_zero(bytes) {
                    continue;
                }
                let offset = at + index as u64 * sector;
                scan.nonzero_end = Some(offset + bytes.len() as u64);
                let Ok((frame, _)) = Frame::decode(bytes, seed, header.epoch, header.sector) else {
                    continue;
                };
                let Some(implied) = frame.lsn.0.checked_sub(offset - sector) else { continue };
                let mark = durable_mark(&frame, offset);
                raise(&mut scan.probed, mark);
                scan.has_later_header |= offset > scan.stop_offset;
                if base == Some(Lsn(implied)) {
                    raise(&mut scan.probed_in_place, mark);
                }
            }
        }
        at += len;
    }
}

fn durable_mark(frame: &Frame, offset: u64) -> DurableMark {
    DurableMark { durable: frame.durable_lsn, offset, lsn: frame.lsn }
}

fn raise(highest: &mut Option<DurableMark>, mark: DurableMark) {
    if highest.is_none_or(|highest| mark.durable > highest.durable) {
        *highest = Some(mark);
    }
}
