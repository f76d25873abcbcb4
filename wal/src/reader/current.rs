//! The frame that a reader is in, and what is wrong when a durable one is not there.

use super::cursor::ReadCursor;
use bulla_storage::format::{Entries, EntriesAt, FRAME_HEADER_LEN, Frame};
use bulla_storage::frames::reader::End;
use bulla_storage::{Corruption, CorruptionKind, EntryView, Error, FrameDamage, Lsn, Result};

/// The frame whose entries the reader shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) frame: Frame,
    pub(super) offset: u64,
    pub(super) at: EntriesAt,
}

impl Current {
    /// Returns the next entry, of a body that was checked.
    pub(super) fn next<'a>(&mut self, body: &'a [u8]) -> Option<EntryView<'a>> {
        let mut entries = Entries::resume(body, self.at);
        let entry = entries.next()?.ok()?;
        self.at = entries.at();
        Some(EntryView {
            lsn: entry.lsn,
            seq: entry.seq,
            kind: entry.kind,
            payload: entry.payload,
            epoch: self.frame.epoch,
            wall_ns: self.frame.wall_ns,
        })
    }
}

/// Returns the entries' bytes, which the frame reader has just checked and holds in memory.
pub(super) fn body<'a>(cursor: &'a mut ReadCursor, current: &Current) -> Result<&'a [u8]> {
    let len = u64::from(current.frame.body_len);
    cursor.frame_reader.read_buffer.bytes(current.offset + FRAME_HEADER_LEN, len)
}

/// Returns the corruption of what was durable and is not there.
pub(super) fn damaged(cursor: &ReadCursor, durable: Lsn, end: End) -> Error {
    let (segment, offset) = match end {
        // The successor's first frame is damaged.
        End::Rotated => (cursor.number().next(), cursor.first_offset()),
        _ => (cursor.number(), cursor.frame_reader.offset()),
    };
    let damage = match end {
        End::Damage(damage) => damage,
        End::Ceiling | End::Rotated | End::Closed => FrameDamage::Boundary,
    };
    Error::from(Box::new(Corruption {
        segment: Some(segment),
        offset: Some(offset),
        lsn: Some(cursor.lsn()),
        durable: Some(durable),
        kind: CorruptionKind::Frame(damage),
    }))
}
