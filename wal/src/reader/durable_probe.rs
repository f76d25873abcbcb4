//! Finds how far another process's log is durable: scans headers, ahead of the reader.
//!
//! Every frame says what was durable when it was sealed, and an idle log says so in a
//! frame of its own. So what may be shown is learned from the log itself, without a page
//! shared with its writer. Owns where the frames end now, and the highest durable mark.

use super::cursor::ReadCursor;
use super::index::Begin;
use super::index::{Disk, SMALL_CHUNK, SegmentIndex};
use crate::faults;
use bulla_storage::format::Frame;
use bulla_storage::frames::read_buffer::{READ_LEN, to_usize};
use bulla_storage::frames::reader::End;
use bulla_storage::{FrameDamage, Lsn, Result, SegmentNumber};

/// After this many scans in vain, the bytes behind zeros are probed now and then, too.
const ZEROS_ARE_DOUBTED: u64 = 64;

#[derive(Debug)]
pub(super) struct DurableProbe {
    cursor: ReadCursor,
    /// Everything below it is durable.
    durable: Lsn,
    /// Looks in vain since the last frame.
    idle: u64,
    /// The rest after a first end was probed.
    probed: bool,
}

impl DurableProbe {
    /// None when the segment is gone.
    pub(super) fn open(disk: &Disk, index: &SegmentIndex, begin: Begin) -> Result<Option<Self>> {
        let cursor = ReadCursor::open(disk, index, begin, SMALL_CHUNK)?;
        let durable = index.durable();
        Ok(cursor.map(|cursor| Self { cursor, durable, idle: 0, probed: false }))
    }

    /// Everything below it is durable, as far as was looked.
    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    /// Valid headers follow one another up to here, as far as was looked.
    pub(super) fn seen(&self) -> Lsn {
        self.cursor.lsn()
    }

    /// Goes on until it is `enough`, or until there is no frame (yet). Ends early when
    /// there is a new epoch, too: the index's generation tells.
    pub(super) fn look(
        &mut self,
        disk: &Disk,
        index: &mut SegmentIndex,
        enough: impl Fn(&Self) -> bool,
    ) -> Result<()> {
        let generation = index.generation;
        let mut fresh = false;
        while !enough(self) {
            match self.cursor.frame_reader.skip()? {
                Ok(located) => {
                    let (durable_lsn, end) = (located.frame.durable_lsn, located.after.lsn);
                    self.durable = self.durable.max(faults::reader::mark(durable_lsn, end));
                    (self.idle, fresh) = (0, false);
                }
                Err(_) if self.cursor.cross(disk, index)? => fresh = false,
                Err(_) if index.refresh(disk)? => {
                    if index.generation != generation {
                        return Ok(());
                    }
                }
                Err(End::Damage(_)) if !fresh => {
                    self.cursor.frame_reader.read_buffer.forget();
                    fresh = true;
                }
                Err(end) => return self.in_vain(disk, index, end),
            }
        }
        Ok(())
    }

    /// No frame is here. If a durable mark is further on, one was: the reader will find out.
    ///
    /// What is no frame is probed at once, zeros are believed: they are how every log
    /// ends. Only at the first end, and ever more rarely after that, is the rest probed.
    fn in_vain(&mut self, disk: &Disk, index: &SegmentIndex, end: End) -> Result<()> {
        self.idle += 1;
        let usual = match end {
            End::Damage(damage) => matches!(damage, FrameDamage::Zeros | FrameDamage::EndOfFile),
            // The successor is there, but not its first frame.
            End::Rotated => true,
            // Only another epoch goes on here, and its epoch-start segment tells.
            End::Ceiling | End::Closed => return Ok(()),
        };
        let again = !usual || self.idle >= ZEROS_ARE_DOUBTED;
        if (again && self.idle.is_power_of_two()) || !self.probed {
            self.probed = true;
            self.probe(disk, index)?;
        }
        Ok(())
    }

    /// Searches for headers behind this place whose durable mark is above it.
    fn probe(&mut self, disk: &Disk, index: &SegmentIndex) -> Result<()> {
        let sector = u64::from(index.sector());
        let mut number = self.cursor.number();
        let mut offset = self.cursor.frame_reader.offset() + sector;
        while self.durable <= self.cursor.lsn()
            && index.header(number).is_some_and(|header| header.epoch == self.cursor.epoch)
        {
            if let Some(durable_lsn) = self.probe_segment(disk, index, number, offset)? {
                self.durable = self.durable.max(durable_lsn);
            }
            (number, offset) = (number.next(), sector);
        }
        Ok(())
    }

    /// Returns the first durable mark from `offset` on that is above this place.
    fn probe_segment(
        &self,
        disk: &Disk,
        index: &SegmentIndex,
        number: SegmentNumber,
        mut offset: u64,
    ) -> Result<Option<Lsn>> {
        let Some(header) = index.header(number) else { return Ok(None) };
        let Some(mut read_buffer) = disk.read_buffer(number, READ_LEN)? else { return Ok(None) };
        loop {
            let bytes = read_buffer.bytes(offset, READ_LEN)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let durable_marks = bytes
                .chunks(to_usize(u64::from(header.sector)))
                .filter_map(|sector| {
                    Frame::decode(sector, header.seed(), header.epoch, header.sector).ok()
                })
                .map(|(frame, _)| frame.durable_lsn);
            if let Some(durable_lsn) =
                { durable_marks }.find(|durable_lsn| *durable_lsn > self.cursor.lsn())
            {
                return Ok(Some(durable_lsn));
            }
            offset += bytes.len() as u64;
        }
    }
}
