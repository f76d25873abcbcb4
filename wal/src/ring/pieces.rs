//! Appending an entry whose payload lies in several pieces.

use std::io::IoSlice;

use bulla_storage::format::{ENTRY_HEADER_LEN, EntryHeader, FIRST_INTERNAL_KIND, entry_len};
use bulla_storage::{Error, Level, Lsn, Result};
use zerocopy::IntoBytes;

use super::open_frame::{Addition, Reserved};
use super::{Appended, Refused, Ring};

/// An entry of a user in pieces, which fits into one frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces<'a> {
    kind: u16,
    pieces: &'a [IoSlice<'a>],
    /// The sum of their lengths.
    len: u64,
}

impl Pieces<'_> {
    /// Returns the length of the payload.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}

impl Ring {
    /// Checks that an entry can be appended whose payload lies in `pieces`.
    ///
    /// # Errors
    /// [`Error::ReservedKind`], [`Error::TooLarge`].
    pub(crate) fn pieces<'a>(&self, kind: u16, pieces: &'a [IoSlice<'a>]) -> Result<Pieces<'a>> {
        if kind >= FIRST_INTERNAL_KIND {
            return Err(Error::ReservedKind(kind));
        }
        // Of slices: what is copied is what is counted here, whatever a payload says of its
        // length.
        let len = pieces.iter().map(|piece| piece.len() as u64).sum();
        let max = self.max_entries_len();
        if entry_len(len) > max {
            return Err(Error::TooLarge { len: entry_len(len), max });
        }
        Ok(Pieces { kind, pieces, len })
    }

    /// Appends one entry.
    pub(crate) fn append_pieces(
        &self,
        entry: Pieces<'_>,
        level: Level,
    ) -> Result<Appended, Refused> {
        let Pieces { kind, pieces, len } = entry;
        debug_assert!(len <= self.max_payload(), "made by `pieces`");
        let bound = level != Level::Relaxed;
        let addition = Addition { len: entry_len(len), entries: 1, bound };
        let slot = self.slots.mine();
        // No code of others runs from here on until the entry is published.
        let (Reserved { at, last }, wake_flusher) = match self.open.reserve(&slot, addition) {
            Some(reserved) => (reserved, false),
            None => self.reserve_slowly(&slot, addition)?,
        };
        self.put_pieces(at, kind, pieces, len);
        slot.publish(len);
        Ok(Appended { lsn: at, seq: last, wake_flusher })
    }

    /// Copies an entry to where it was reserved.
    fn put_pieces(&self, start: Lsn, kind: u16, pieces: &[IoSlice<'_>], len: u64) {
        // Lengths were checked against the frame's, which fits in 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "bounded by the frame's length")]
        let header = EntryHeader::new(len as u32, kind);
        let mut at = start.plus(ENTRY_HEADER_LEN);
        let end = start.plus(entry_len(len));
        // SAFETY: our caller reserved `start..end`, so that no other appender has it. The
        // frame's sealer reads it only once our slot says that it is copied. And it was
        // reserved within `freed + len`, so no frame not yet written is there. The pieces
        // are slices that are borrowed here, and `len` is the sum of their lengths: what
        // is written fills exactly the range.
        #[expect(clippy::cast_possible_truncation, reason = "padding is below 8 bytes")]
        unsafe {
            self.memory.write(start, header.as_bytes());
            for piece in pieces {
                self.memory.write(at, piece);
                at = at.plus(piece.len() as u64);
            }
            self.memory.zero(at, end.distance_from(at) as usize);
        }
    }
}
