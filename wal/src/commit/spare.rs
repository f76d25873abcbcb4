//! Spare segments: which one is asked for, and how it is made.
//!
//! A spare is complete, synced and named before a frame can claim room in it. Making one takes
//! as long as dozens of commits, so a thread of its own does it, without the driver's lock.

use std::sync::Arc;

use bulla_storage::SegmentNumber;
use bulla_storage::files::dir::Directory;
use bulla_storage::files::segment::{self, CreateError, NewSegment};
use bulla_storage::format::{Header, Seed};
use bulla_storage::io::{File, Io};

/// A segment to be made ready.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpareRequest {
    pub(crate) number: SegmentNumber,
    /// Write zeros to all of it ahead.
    pub(crate) zeroed: bool,
}

/// A segment that was made ready.
#[derive(Debug)]
pub(crate) struct ReadySegment {
    pub(crate) number: SegmentNumber,
    pub(crate) file: Arc<dyn File>,
    pub(crate) seed: Seed,
    /// Bytes of frames it holds, the sector of its end mark left out.
    pub(crate) room: u64,
    /// It was written with zeros ahead.
    pub(crate) zeroed: bool,
}

/// Makes spare segments, in any thread.
#[derive(Clone, Debug)]
pub(crate) struct SpareMaker {
    io: Arc<dyn Io>,
    dir: Directory,
    /// Of every spare, but for its number and its time.
    pub(crate) header: Header,
    len: u64,
    direct: bool,
}

impl SpareMaker {
    /// Returns a maker of segments of `len` bytes that continue the epoch of `opening`, the
    /// header of the epoch's first segment.
    pub(crate) fn new(
        io: Arc<dyn Io>,
        dir: Directory,
        epoch_start: &Header,
        len: u64,
        direct: bool,
    ) -> Self {
        let header =
            Header { previous_nonce: epoch_start.nonce, epoch_start: None, ..epoch_start.clone() };
        Self { io, dir, header, len, direct }
    }

    /// Makes a segment, unless `is_wanted` says in between that nobody needs it any more. On
    /// return it is durable under its name.
    pub(crate) fn make(
        &self,
        request: SpareRequest,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<ReadySegment, CreateError> {
        let SpareRequest { number, zeroed } = request;
        let header = Header { number, wall_ns: self.io.wall_ns(), ..self.header.clone() };
        let sector = u64::from(header.sector);
        let new = NewSegment {
            header: &header,
            len: self.len,
            direct: self.direct,
            zeroed,
            replaces: false,
            is_wanted,
        };
        let file = segment::create(&self.dir, &new, |_| Ok(sector))?;
        let room = self.len - 2 * sector;
        Ok(ReadySegment { number, file, seed: header.seed(), room, zeroed })
    }
}
