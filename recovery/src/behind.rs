//! What lies behind a cut: frames that a repair gives up, also intact ones that nothing connects
//! with the rest of the log.
//!
//! Reads the segments once more, whatever the frames before a frame are like. Changes nothing, and
//! decides nothing: `repair` tells the operator.

use std::ops::ControlFlow;

use bulla_storage::format::{Entries, FRAME_HEADER_BYTES, Frame, Header, MAX_SECTOR};
use bulla_storage::frames::reader::Cursor;
use bulla_storage::io::FileKind;
use bulla_storage::{Epoch, Lsn, Result, Seq};

use crate::analysis::Analysis;
use crate::log_dir::LogDir;
use crate::replay::EntryView;

/// What was found behind a cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Behind {
    /// Entries in frames that are intact.
    pub(crate) intact_entries: u64,
    /// The lowest number of an entry in a frame whose header is intact.
    pub(crate) first_seq: Option<Seq>,
    /// The end of the numbers of entries, as far as intact headers tell.
    pub(crate) end_seq: Seq,
    /// The end of the positions, likewise.
    pub(crate) end_lsn: Lsn,
}

/// Reads what lies behind a cut in all segments of the log. Passes the entries that are intact to
/// `visitor`, in the order of their segments, until that stops.
pub(crate) fn behind(
    log: &LogDir,
    analysis: &Analysis,
    cut: Cursor,
    mut visitor: impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<Behind> {
    let first = analysis.plan.low_water.segment;
    let files = analysis.listing.segments.iter();
    let files = files.filter(|file| file.number >= first && file.kind == FileKind::Regular);
    let headers = files.map(|file| {
        let mut read_buffer = match log.one_sector(file.number) {
            // A running log has purged it.
            Err(error) if error.is_not_found() => return Ok(None),
            read_buffer => read_buffer?,
        };
        let header = Header::decode(read_buffer.bytes(0, u64::from(MAX_SECTOR))?).ok();
        let control = &analysis.control;
        Ok(header.filter(|header| {
            (header.log_id, header.number, header.sector)
                == (control.log_id, file.number, control.sector)
        }))
    });
    let headers: Vec<Header> = headers.filter_map(Result::transpose).collect::<Result<_>>()?;
    let mut behind =
        Behind { intact_entries: 0, first_seq: None, end_seq: cut.seq, end_lsn: cut.lsn };
    for header in &headers {
        let end_lsn = end_of(&headers, header.epoch);
        match read_segment(log, header, cut.lsn..end_lsn, &mut behind, &mut visitor) {
            // A running log has purged it.
            Err(error) if error.is_not_found() => {}
            Ok(ControlFlow::Break(())) => break,
            read => drop(read?),
        }
    }
    Ok(behind)
}

/// Returns where later epochs replace the frames of one.
fn end_of(headers: &[Header], epoch: Epoch) -> Lsn {
    let later = headers.iter().filter(|header| header.epoch > epoch);
    let starts = later.filter_map(|header| header.epoch_start.as_ref());
    starts.map(|start| start.replaces_from).min().unwrap_or(Lsn::MAX)
}

fn read_segment(
    log: &LogDir,
    header: &Header,
    range: std::ops::Range<Lsn>,
    behind: &mut Behind,
    visitor: &mut impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>> {
    let (seed, sector) = (header.seed(), u64::from(header.sector));
    let mut read_buffer = log.segment(header.number, log.options.is_direct())?;
    let mut base = header.epoch_start.as_ref().map(|start| start.base);
    let mut offset = sector;
    while offset < read_buffer.len() {
        let bytes = read_buffer.bytes(offset, sector)?;
        let frame = Frame::decode(bytes, seed, header.epoch, header.sector).ok();
        // A copy of a frame may lie in an entry: only one place is its own.
        let in_place = frame.map(|(frame, _)| frame).filter(|frame| {
            let start = frame.lsn.0.checked_sub(offset - sector).map(Lsn);
            start.is_some_and(|start| *base.get_or_insert(start) == start)
        });
        let Some(frame) = in_place else {
            offset += sector;
            continue;
        };
        let len = frame.disk_len(header.sector);
        // The header's CRC confirms the length. The file may be shorter.
        let body_len = len.min(read_buffer.len().saturating_sub(offset));
        let bytes = read_buffer.bytes(offset, body_len)?;
        let body = bytes.get(FRAME_HEADER_BYTES..).unwrap_or_default();
        let is_intact = bytes.len() as u64 == len && seed.body_crc(&[body]) == frame.body_crc;
        if range.contains(&frame.lsn) {
            let first_seq =
                behind.first_seq.map_or(frame.first_seq, |first| first.min(frame.first_seq));
            behind.first_seq = Some(first_seq);
            behind.end_seq = behind.end_seq.max(frame.next_seq());
            behind.end_lsn = behind.end_lsn.max(frame.end(header.sector));
            behind.intact_entries += if is_intact { u64::from(frame.entry_count) } else { 0 };
            if is_intact && visit(&frame, body, visitor).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        offset += len;
    }
    Ok(ControlFlow::Continue(()))
}

fn visit(
    frame: &Frame,
    body: &[u8],
    visitor: &mut impl FnMut(&EntryView<'_>) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let (epoch, wall_ns) = (frame.epoch, frame.wall_ns);
    Entries::new(frame, body).flatten().try_for_each(|entry| {
        let (lsn, seq, kind, payload) = (entry.lsn, entry.seq, entry.kind, entry.payload);
        visitor(&EntryView { lsn, seq, kind, payload, epoch, wall_ns })
    })
}
