//! Reading a segment's frames: the same rules for readers, recovery and repair.
//!
//! ```text
//! reader       frames of one segment in order, each validated
//! read_buffer  the bounded window of a file that frames are read through
//! timeline     which positions of earlier epochs are still valid
//! anchor       a frame boundary that can be recognised again
//! ```

pub mod anchor;
pub mod read_buffer;
pub mod reader;
pub mod timeline;

use crate::position::{Epoch, Lsn, Seq};

/// An entry, as readers and replay show it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EntryView<'a> {
    /// Its position: that of the receipt.
    pub lsn: Lsn,
    /// Its number.
    pub seq: Seq,
    /// The kind its writer gave it.
    pub kind: u16,
    /// Its writer's bytes.
    pub payload: &'a [u8],
    /// The epoch under which it is stored (higher than its receipt's after a re-homing).
    pub epoch: Epoch,
    /// When its frame was sealed, in ns since 1970.
    pub wall_ns: u64,
}
