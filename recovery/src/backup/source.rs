//! Where a copy of a log may end.
//!
//! Owns that rule. Of a log that a program writes, a copy ends at a durable mark that covers all
//! that was written when the backup began: so it has everything that was acknowledged before at
//! Balanced and Strict, of Relaxed what had been written, and nothing that a crash can take. Nobody
//! writes the others; of them it has all. A scan during which a program opened the log counts for
//! nothing: it may have missed what that open moved.

use bulla_storage::files::dir::{Directory, LOCK};
use bulla_storage::format::{Control, Header, LowWater};
use bulla_storage::frames::reader::Cursor;
use bulla_storage::{Error, Lsn, Options, Result};

use super::error::BackupError;
use crate::analysis::Analysis;
use crate::faults;
use crate::inspect::undisturbed;
use crate::log_dir::{LogDir, Piece, read_control};
use crate::report::Status;
use crate::scan::Bodies;
use crate::tail_rewrite::clip;
use crate::trim::keep_len;

/// How long the durable mark may take to cover what was written.
const MARK_TIMEOUT_NS: u64 = 30_000_000_000;
const POLL_NS: u64 = 20_000_000;
/// Scans of a log that is opened during each of them.
const MAX_SCANS: u32 = 8;

/// A log that can be copied.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) log: LogDir,
    pub(super) analysis: Analysis,
    /// Where the copy ends.
    pub(super) end: Cursor,
    /// The frames below that.
    pub(super) pieces: Vec<Piece>,
}

impl Source {
    /// Scans the log until a copy of it may end where the scan ends, or at a durable mark.
    pub(super) fn read(dir: &Directory, options: &Options) -> Result<Self, BackupError> {
        let io = options.io.as_ref();
        let deadline = io.now_ns().saturating_add(MARK_TIMEOUT_NS);
        let mut written = None;
        let mut disturbed = 0;
        loop {
            let control = read_control(dir)?;
            // Before the scan: what the scan finds of a log that nobody writes is all there is.
            let is_written = is_written(dir)?;
            let (log, analysis) = undisturbed(dir, options, Bodies::Unread)?;
            let (valid_end, durable) = (analysis.chain.valid_end, analysis.chain.durable_end);
            if was_opened(&log, &control, &analysis)? {
                disturbed += 1;
                if disturbed == MAX_SCANS {
                    return Err(Error::Changed { lsn: valid_end.lsn }.into());
                }
                continue;
            }
            if let Status::Corrupt(corruption) = analysis.status() {
                return Err(Error::from(corruption).into());
            }
            let earlier = written;
            let written = *written.get_or_insert_with(|| data_end(&analysis));
            // What an earlier scan found is there, also where its writer is gone.
            if !is_written && earlier.is_none_or(|earlier| earlier <= valid_end.lsn) {
                return Ok(Self::new(log, analysis, valid_end));
            }
            if faults::backup::is_covered(durable >= written) {
                let (Ok(end) | Err(end)) = analysis.boundary_at(&log, durable)?;
                return Ok(Self::new(log, analysis, end));
            }
            if io.now_ns() >= deadline {
                return Err(BackupError::NotDurable { durable, written });
            }
            io.sleep_ns(POLL_NS);
        }
    }

    fn new(log: LogDir, analysis: Analysis, end: Cursor) -> Self {
        let pieces = clip(&analysis.pieces(), analysis.start(), end);
        Self { log, analysis, end, pieces }
    }

    /// Returns where the log starts.
    pub(super) fn low_water(&self) -> LowWater {
        LowWater {
            // As a recovery of a log whose creation was cut short before its first segment.
            epoch: if self.analysis.plan.segments.is_empty() {
                self.analysis.control.epoch
            } else {
                self.analysis.plan.low_water.epoch
            },
            ..self.analysis.plan.low_water
        }
    }

    /// Returns the log's segments, to the last that has frames, each with its header, the bytes
    /// of it that count, and its frames.
    pub(super) fn segments(&self) -> Vec<SourceSegment<'_>> {
        let sector = self.analysis.control.sector;
        let last = self.pieces.last().map(|piece| piece.header.number);
        let planned = &self.analysis.plan.segments;
        let count = planned.iter().position(|segment| Some(segment.number) == last);
        let count = count.map_or(1, |index| index + 1);
        let segment = |header| SourceSegment {
            header,
            len: keep_len(&self.pieces, header.number, sector),
            piece: self.pieces.iter().find(|piece| piece.header.number == header.number),
        };
        planned.iter().take(count).map(|planned| segment(&planned.header)).collect()
    }

    /// Returns the epoch that wrote the last frame.
    pub(super) fn end_epoch(&self) -> bulla_storage::Epoch {
        self.pieces.last().map_or(self.low_water().epoch, |piece| piece.header.epoch)
    }

    /// Checks that the log continues what a backup holds that ends at `end`.
    pub(super) fn check_continues(
        &self,
        epoch: bulla_storage::Epoch,
        end: Lsn,
    ) -> Result<(), BackupError> {
        let stands = self.analysis.timeline().check_read(epoch, end).is_ok();
        if stands && end <= self.end.lsn { Ok(()) } else { Err(BackupError::NotContinued { end }) }
    }
}

/// A segment to copy.
#[derive(Debug)]
pub(super) struct SourceSegment<'a> {
    pub(super) header: &'a bulla_storage::format::Header,
    /// Bytes of it that count, with the header.
    pub(super) len: u64,
    /// Its frames, if it has any that count.
    pub(super) piece: Option<&'a Piece>,
}

/// Returns where the last entries end. A frame behind them may hold the mark that covers them.
fn data_end(analysis: &Analysis) -> Lsn {
    let ends = analysis.scans.iter().flatten().filter_map(|scan| scan.data_end);
    ends.max().unwrap_or(analysis.start().lsn)
}

/// Returns whether a program opened the log since `control` was read, and may have moved what the
/// analysis should have found: an open names its epoch in CONTROL, then the epoch's first segment,
/// and only then shortens the older ones.
fn was_opened(log: &LogDir, control: &Control, analysis: &Analysis) -> Result<bool> {
    let now = read_control(&log.dir)?;
    if (now.epoch, now.nonce) != (control.epoch, control.nonce) {
        return Ok(true);
    }
    let last = analysis.plan.segments.last();
    let is_new = |header: &Header| last.is_none_or(|last| header.epoch > last.header.epoch);
    let listed = log.dir.list()?.segments;
    let behind = analysis.listing.segments.last().map(|last| last.number);
    for file in listed.iter().filter(|file| Some(file.number) > behind) {
        let mut read_buffer = match log.one_sector(file.number) {
            Err(error) if error.is_not_found() => return Ok(true),
            read_buffer => read_buffer?,
        };
        // What else is wrong with a header, a later analysis tells.
        let header = Header::decode(read_buffer.bytes(0, u64::from(control.sector))?);
        if header.is_ok_and(|header| header.log_id == control.log_id && is_new(&header)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns whether a program has the log open for writing.
fn is_written(dir: &Directory) -> Result<bool> {
    let lock = dir.handle().try_lock(LOCK).map_err(Error::io("lock", dir.path_of(LOCK)))?;
    Ok(lock.is_none())
}
