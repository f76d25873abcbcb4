//! Reading and writing files: alignment, space, short counts, torn and failed writes.
//!
//! Owns the space that files take up. The inode decides what happens to the bytes. Tested by
//! `storage/tests/sim_disk.rs`.

use std::io;

use super::config::{FaultOp, Lie};
use super::disk::{Disk, OpenFile, Strike, Undecided};
use super::index;
use super::inode::Stamp;
use super::names::NodeId;

/// A longer file is refused, lest a wild offset take the memory of the test machine.
const MAX_FILE_LEN: u64 = 1 << 32;

/// A write; its bytes may be in two pieces.
pub(super) struct Write<'a> {
    pub(super) file: OpenFile,
    pub(super) offset: u64,
    pub(super) pieces: [&'a [u8]; 2],
    pub(super) dsync: bool,
}
impl Disk {
    pub(super) fn read(
        &mut self,
        file: OpenFile,
        bytes: &mut [u8],
        offset: u64,
    ) -> io::Result<usize> {
        self.counts.reads += 1;
        // As on Linux, the end of the file is reported before anything is checked.
        if offset >= self.file(file.node)?.cached().len() as u64 {
            return self.fail_file(FaultOp::Read, file.node).map(|()| 0);
        }
        self.check_alignment(file, offset, bytes.len(), [bytes, &[]])?;
        self.fail_file(FaultOp::Read, file.node)?;
        let unit = if file.direct { self.config.sector } else { 1 };
        let cut = self.rng.chance(self.config.short_read_ppm);
        let asked = if cut { self.shorten(bytes.len(), unit) } else { bytes.len() };
        let cached = self.file(file.node)?.cached();
        let start = index(offset);
        let count = asked.min(cached.len() - start);
        bytes[..count].copy_from_slice(&cached[start..start + count]);
        if count > 0 && self.lies(Lie::RottenRead, file.node) {
            bytes[count / 2] ^= 1;
        }
        self.counts.read_bytes += count as u64;
        Ok(count)
    }

    /// Writes; a strike leaves open which of the sectors are written.
    pub(super) fn write(&mut self, write: &Write<'_>, strike: Option<Strike>) -> io::Result<usize> {
        let Write { file, offset, pieces: [first, second], dsync } = *write;
        if dsync {
            self.counts.dsync_writes += 1;
        } else {
            self.counts.writes += 1;
        }
        let asked = first.len() + second.len();
        self.check_write(file, offset, asked, write.pieces)?;
        if asked == 0 {
            return Ok(0);
        }
        let offset = index(offset);
        match strike {
            None => {}
            Some(Strike::Crash(_)) => {
                self.tear(file.node, offset, [first, second])?;
                return Ok(0);
            }
            Some(Strike::Halt { .. }) => {
                let bytes = [first, second].concat().into();
                self.undecided.push(Undecided { node: file.node, offset, bytes });
                return Ok(0);
            }
        }
        if let Err(error) = self.fail_file(FaultOp::Write, file.node) {
            if error.kind() != io::ErrorKind::Interrupted {
                self.tear(file.node, offset, [first, second])?;
            }
            return Err(error);
        }
        if self.lies(Lie::LostWrite, file.node) {
            return Ok(asked);
        }
        let astray = self.lies(Lie::MisdirectedWrite, file.node);
        let offset = if astray { offset + self.config.sector } else { offset };
        let unit = if file.direct { self.config.sector } else { 1 };
        let cut = self.rng.chance(self.config.short_write_ppm);
        let len = if cut { self.shorten(asked, unit) } else { asked };
        let len = self.allocate(file.node, offset, len)?;
        let first = &first[..first.len().min(len)];
        let second = &second[..len - first.len()];
        let stamp = self.next_stamp();
        let dsync = dsync && !self.rng.chance(self.config.lost_sync_ppm);
        let inode = self.file_mut(file.node)?;
        inode.write(offset, [first, second], stamp);
        if dsync && len > 0 {
            inode.make_durable(offset, len);
        }
        self.counts.written_bytes += len as u64;
        Ok(len)
    }

    /// Checks what must hold of a write before anything is done.
    pub(super) fn check_write(
        &self,
        file: OpenFile,
        offset: u64,
        len: usize,
        pieces: [&[u8]; 2],
    ) -> io::Result<()> {
        if !file.write {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if offset.saturating_add(len as u64) > MAX_FILE_LEN {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.check_alignment(file, offset, len, pieces)
    }

    fn check_alignment(
        &self,
        file: OpenFile,
        offset: u64,
        len: usize,
        pieces: [&[u8]; 2],
    ) -> io::Result<()> {
        let sector = self.config.sector;
        let aligned = index(offset).is_multiple_of(sector)
            && len.is_multiple_of(sector)
            && pieces.iter().all(|piece| {
                piece.is_empty()
                    || piece.as_ptr().addr().is_multiple_of(sector)
                        && piece.len().is_multiple_of(sector)
            });
        if file.direct && !aligned {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "unaligned direct access"));
        }
        Ok(())
    }

    /// Writes a random subset of a write's sectors to the cache.
    pub(super) fn tear(
        &mut self,
        node: NodeId,
        offset: usize,
        pieces: [&[u8]; 2],
    ) -> io::Result<()> {
        let bytes = pieces.concat();
        let len = self.allocate(node, offset, bytes.len()).unwrap_or(0);
        let survival = self.rng.survival(self.config.lose_all_ppm, self.config.lose_none_ppm);
        let mut rng = self.rng.clone();
        let stamp = self.next_stamp();
        let inode = self.file_mut(node)?;
        inode.write_some(offset, &bytes[..len], stamp, || rng.survives(survival));
        self.rng = rng;
        Ok(())
    }

    pub(super) fn sync(&mut self, node: NodeId, cover: Stamp) -> io::Result<()> {
        self.counts.syncs += 1;
        match self.fail_file(FaultOp::Sync, node) {
            Ok(()) if self.lies(Lie::LostSync, node) => {}
            Ok(()) if self.rng.chance(self.config.lost_sync_ppm) => {}
            Ok(()) => self.file_mut(node)?.sync(cover),
            Err(error) => {
                if error.kind() != io::ErrorKind::Interrupted {
                    self.file_mut(node)?.fail_sync(cover);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, file: OpenFile, len: u64) -> io::Result<()> {
        self.counts.set_lens += 1;
        if !file.write || len > MAX_FILE_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let stamp = self.next_stamp();
        let named = self.node(file.node)?.named;
        let inode = self.file_mut(file.node)?;
        inode.set_len(index(len), stamp);
        let freed = inode.deallocate_beyond(index(len));
        if named {
            self.allocated_sectors -= freed;
        }
        Ok(())
    }

    pub(super) fn preallocate(&mut self, file: OpenFile, len: u64) -> io::Result<()> {
        self.counts.preallocates += 1;
        if !self.config.preallocate {
            return Err(io::ErrorKind::Unsupported.into());
        }
        if !file.write || len > MAX_FILE_LEN {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.fail_file(FaultOp::Preallocate, file.node)?;
        let sectors = 0..index(len).div_ceil(self.config.sector);
        if self.file(file.node)?.unallocated(sectors.clone()) > self.free_sectors() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.config.stale_block_ppm > 0 {
            self.file_mut(file.node)?.reserve_raw(sectors.len());
        }
        self.allocate(file.node, 0, index(len))?;
        let stamp = self.next_stamp();
        let inode = self.file_mut(file.node)?;
        if inode.cached().len() < index(len) {
            inode.set_len(index(len), stamp);
        }
        Ok(())
    }

    /// Returns the stamp of the latest change: a sync submitted now covers up to it.
    pub(super) fn latest_stamp(&self) -> Stamp {
        self.stamp
    }

    pub(super) fn next_stamp(&mut self) -> Stamp {
        self.stamp += 1;
        self.stamp
    }

    fn free_sectors(&self) -> usize {
        self.config.capacity.map_or(usize::MAX, |capacity| {
            (index(capacity) / self.config.sector).saturating_sub(self.allocated_sectors)
        })
    }

    /// Takes space for a range of a file; returns how much of it there is space for.
    pub(super) fn allocate(
        &mut self,
        node: NodeId,
        offset: usize,
        len: usize,
    ) -> io::Result<usize> {
        let size = self.config.sector;
        let named = self.node(node)?.named;
        let free = if named { self.free_sectors() } else { usize::MAX };
        let sectors = offset / size..(offset + len).div_ceil(size);
        let (taken, full) = self.file_mut(node)?.allocate(sectors, free);
        if named {
            self.allocated_sectors += taken;
        }
        match full.map(|sector| (sector * size).saturating_sub(offset)) {
            Some(0) => Err(io::ErrorKind::StorageFull.into()),
            Some(fits) => Ok(fits),
            None => Ok(len),
        }
    }

    /// Returns a shorter length, not zero, or the same length where there is none.
    fn shorten(&mut self, len: usize, unit: usize) -> usize {
        let units = len / unit;
        if units < 2 { len } else { (1 + self.rng.below(units - 1)) * unit }
    }
}
