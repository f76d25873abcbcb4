//! The machine's limit: one loop that writes and syncs, into blocks written before.
//!
//! No checksum, no header, no lock, no hand-over. Where other logs have `n` threads that
//! wait for their commits, this has one that puts `n` records into each write.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bulla_storage::io::AlignedBuf;

use super::grouped::zeroed_file;
use crate::log::{Log, Plan, Result, Tally, Writer};

/// Bytes of the longest write.
const BUFFER: usize = 1 << 20;
/// Writes are as long as a multiple of this.
const BLOCK: usize = 4096;
/// The file is at least so long; what doesn't fit begins again at its start.
const SHORTEST_FILE: u64 = 64 << 20;

pub(crate) struct Bare {
    file: File,
    /// For writes that are durable by themselves; without it, `fdatasync`.
    durable: Option<File>,
    len: u64,
    durable_writes: AtomicU64,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("bare.log")
}

fn file_len(plan: &Plan) -> u64 {
    plan.bytes(0).next_multiple_of(BUFFER as u64).max(SHORTEST_FILE)
}

/// `O_DIRECT`, and `O_DSYNC` for the writes that must be durable.
pub(crate) fn create_direct(dir: &Path, plan: &Plan) -> Result<Bare> {
    zeroed_file(&path(dir), file_len(plan))?;
    let open = |flags| File::options().write(true).custom_flags(flags).open(path(dir));
    Ok(Bare {
        file: open(libc::O_DIRECT)?,
        durable: Some(open(libc::O_DIRECT | libc::O_DSYNC)?),
        len: file_len(plan),
        durable_writes: AtomicU64::new(0),
    })
}

/// Through the page cache, with `fdatasync`.
pub(crate) fn create_buffered(dir: &Path, plan: &Plan) -> Result<Bare> {
    let file = zeroed_file(&path(dir), file_len(plan))?;
    Ok(Bare { file, durable: None, len: file_len(plan), durable_writes: AtomicU64::new(0) })
}

/// Reads and checksums a MiB at a time, and looks at every record.
pub(crate) fn replay(dir: &Path, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let file = File::open(path(dir))?;
    let mut bytes = vec![0; BUFFER / plan.record_len * plan.record_len];
    let mut checksum = 0;
    let mut offset = 0;
    while offset < plan.bytes(0) {
        let len = bytes.len().min(usize::try_from(plan.bytes(0) - offset)?);
        file.read_exact_at(&mut bytes[..len], offset)?;
        checksum ^= crc32fast::hash(&bytes[..len]);
        for record in bytes[..len].chunks_exact(plan.record_len) {
            tally.visit(record);
        }
        offset += len as u64;
    }
    std::hint::black_box(checksum);
    Ok(())
}

impl Log for Bare {
    type Writer<'a> = BareWriter<'a>;
    const STANDS_FOR_ALL: bool = true;

    fn writer(&self, _thread: u64) -> Result<BareWriter<'_>> {
        Ok(BareWriter {
            bare: self,
            buffer: AlignedBuf::zeroed(BUFFER),
            used: 0,
            offset: 0,
            is_unsynced: false,
            durable: 0,
            submitted: 0,
        })
    }

    fn sync(&self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }

    fn unseen_syncs(&self) -> u64 {
        self.durable_writes.load(Ordering::Relaxed)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct BareWriter<'a> {
    bare: &'a Bare,
    buffer: AlignedBuf,
    used: usize,
    offset: u64,
    /// A write that was not durable by itself has not been synced since.
    is_unsynced: bool,
    /// How many of the submitted records are durable.
    durable: u64,
    submitted: u64,
}

impl BareWriter<'_> {
    /// Writes the buffer, padded to a block; the next write begins after it.
    fn write(&mut self, durable: bool) -> Result<()> {
        let len = self.used.next_multiple_of(BLOCK);
        if self.offset + len as u64 > self.bare.len {
            self.offset = 0;
        }
        let bytes = &self.buffer[..len];
        match &self.bare.durable {
            Some(file) if durable => {
                file.write_all_at(bytes, self.offset)?;
                self.bare.durable_writes.fetch_add(1, Ordering::Relaxed);
            }
            _ => {
                self.bare.file.write_all_at(bytes, self.offset)?;
                self.is_unsynced = true;
            }
        }
        if durable && self.is_unsynced {
            self.bare.file.sync_data()?;
            self.is_unsynced = false;
        }
        self.offset += len as u64;
        self.used = 0;
        Ok(())
    }
}

impl Writer for BareWriter<'_> {
    type Ticket = u64;

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let mut rest = record;
        while !rest.is_empty() {
            let len = rest.len().min(BUFFER - self.used);
            self.buffer[self.used..self.used + len].copy_from_slice(&rest[..len]);
            self.used += len;
            rest = &rest[len..];
            if self.used == BUFFER {
                self.write(false)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append(record)?;
        self.write(true)
    }

    fn submit(&mut self, record: &[u8]) -> Result<u64> {
        self.append(record)?;
        self.submitted += 1;
        Ok(self.submitted)
    }

    fn is_durable(&mut self, ticket: u64) -> Result<bool> {
        Ok(ticket <= self.durable)
    }

    fn wait(&mut self, ticket: u64) -> Result<()> {
        if ticket > self.durable {
            self.write(true)?;
            self.durable = self.submitted;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<()> {
        if self.used > 0 { self.write(false) } else { Ok(()) }
    }
}
