//! Reading a segment's frames: the same rules for readers, recovery and repair.
//!
//! ```text
//! reader       frames of one segment in order, each validated
//! read_buffer  the bounded buffer through which frames are read
//! timeline     which positions of earlier epochs are still valid
//! anchor       a frame boundary that can be recognised again
//! ```

pub mod anchor;
pub mod read_buffer;
pub mod reader;
pub mod timeline;

use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::position::{Epoch, Lsn, Seq};

/// An entry, as readers and replay return it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryView<'a> {
    /// Its position, the same as in the receipt.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The kind that its writer chose.
    pub kind: u16,
    /// Its writer's bytes.
    pub payload: &'a [u8],
    /// The epoch under which it is stored (higher than its receipt's after a tail rewrite).
    pub epoch: Epoch,
    /// When its frame was sealed, in ns since 1970.
    pub wall_ns: u64,
}

impl EntryView<'_> {
    /// Returns when the entry's frame was sealed.
    #[must_use]
    pub fn wall_time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.wall_ns)
    }
}

/// An entry that is no longer tied to its reader: it can be kept, or sent to another thread.
///
/// Its payload is a slice of the buffer through which its frame was read, which it keeps
/// alive: all of a long frame, or up to 1 MiB of short ones. Copy the payload to keep an
/// entry without its neighbours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Its position, the same as in the receipt.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The kind that its writer chose.
    pub kind: u16,
    /// Its writer's bytes.
    pub payload: Bytes,
    /// The epoch under which it is stored (higher than its receipt's after a tail rewrite).
    pub epoch: Epoch,
    /// When its frame was sealed, in ns since 1970.
    pub wall_ns: u64,
}

impl Entry {
    /// Returns the entry with its payload borrowed.
    #[must_use]
    pub fn view(&self) -> EntryView<'_> {
        EntryView {
            lsn: self.lsn,
            seq: self.seq,
            kind: self.kind,
            payload: &self.payload,
            epoch: self.epoch,
            wall_ns: self.wall_ns,
        }
    }

    /// Returns when the entry's frame was sealed.
    #[must_use]
    pub fn wall_time(&self) -> SystemTime {
        self.view().wall_time()
    }
}

impl From<EntryView<'_>> for Entry {
    /// Copies the payload.
    fn from(view: EntryView<'_>) -> Self {
        Self {
            lsn: view.lsn,
            seq: view.seq,
            kind: view.kind,
            payload: Bytes::copy_from_slice(view.payload),
            epoch: view.epoch,
            wall_ns: view.wall_ns,
        }
    }
}
