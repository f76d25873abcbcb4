//! Copies what recovery cuts off, and syncs the copies before the originals are trimmed.
//!
//! Owns the folder `quarantine/`. A copy appears under its name only when it is whole;
//! making it again after a crash replaces it. Recovery never removes one; the undo of a repair
//! removes the repair's.

use std::ops::Range;
use std::path::{Path, PathBuf};

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::dir::{Directory, QUARANTINE};
use bulla_storage::format::all_zero;
use bulla_storage::io::{File, write_full};

use crate::log_dir::LogDir;
use bulla_storage::frames::read_buffer::{READ_LEN, ReadBuffer};
use bulla_storage::{Error, Result};

/// The folder, created with the first copy.
#[derive(Debug)]
pub(crate) struct Quarantine<'a> {
    log: &'a LogDir,
    folder: Option<Directory>,
    copies: Vec<PathBuf>,
}

impl<'a> Quarantine<'a> {
    pub(crate) fn new(log: &'a LogDir) -> Self {
        Self { log, folder: None, copies: Vec::new() }
    }

    /// Copies the bytes from `from` to the last one that is not zero; nothing when all are
    /// zeros.
    pub(crate) fn keep_rest(&mut self, source: &str, from: u64, name: &str) -> Result<()> {
        let mut read_buffer = self.read_buffer(source)?;
        match nonzero_end(&mut read_buffer, from)? {
            Some(end) => self.copy(&mut read_buffer, from, end, name).map(drop),
            None => Ok(()),
        }
    }

    /// Copies a whole file. Returns its length and its CRC.
    pub(crate) fn keep_file(&mut self, source: &str, name: &str) -> Result<(u64, u32)> {
        let mut read_buffer = self.read_buffer(source)?;
        let len = read_buffer.len();
        self.copy(&mut read_buffer, 0, len, name)
    }

    /// Returns the folder.
    pub(crate) fn folder(&mut self) -> Result<Directory> {
        if let Some(folder) = &self.folder {
            return Ok(folder.clone());
        }
        let folder = self.log.dir.create_subdirectory(QUARANTINE)?;
        self.folder = Some(folder.clone());
        Ok(folder)
    }

    fn read_buffer(&self, source: &str) -> Result<ReadBuffer> {
        ReadBuffer::open(&self.log.dir, source, self.log.options.is_direct())
    }

    fn copy(
        &mut self,
        read_buffer: &mut ReadBuffer,
        from: u64,
        to: u64,
        name: &str,
    ) -> Result<(u64, u32)> {
        let folder = self.folder()?;
        let temporary = format!("{name}.tmp");
        folder.remove(&temporary)?;
        let file = folder.create(&temporary, false)?;
        let copied = copy_bytes(read_buffer, from..to, file.as_ref(), &folder.path_of(&temporary))?;
        if !skip(Failpoint::QuarantineSync) {
            file.sync().map_err(Error::io("sync", folder.path_of(&temporary)))?;
        }
        folder.rename(&temporary, name)?;
        let path = folder.path_of(name);
        self.copies.push(path);
        Ok(copied)
    }

    /// Makes the copies durable under their names and returns them. Then the originals may go.
    pub(crate) fn finish(self) -> Result<Vec<PathBuf>> {
        if let Some(folder) = self.folder.filter(|_| !skip(Failpoint::QuarantineDirSync)) {
            folder.sync()?;
            self.log.dir.sync()?;
        }
        Ok(self.copies)
    }
}

/// Copies a part of a file to the start of another one, or as much as there is of it. Returns the
/// length and the CRC of that.
pub(crate) fn copy_bytes(
    read_buffer: &mut ReadBuffer,
    part: Range<u64>,
    to: &dyn File,
    path: &Path,
) -> Result<(u64, u32)> {
    let mut crc = crc32fast::Hasher::new();
    let mut at = part.start;
    while at < part.end {
        let bytes = read_buffer.bytes(at, (part.end - at).min(READ_LEN))?;
        if bytes.is_empty() {
            break;
        }
        write_full(to, bytes, at - part.start).map_err(Error::io("write", path))?;
        crc.update(bytes);
        at += bytes.len() as u64;
    }
    Ok((at - part.start, crc.finalize()))
}

/// Returns the offset after the last byte from `from` on that is not zero.
fn nonzero_end(read_buffer: &mut ReadBuffer, from: u64) -> Result<Option<u64>> {
    let mut end = None;
    let mut at = from;
    loop {
        let bytes = read_buffer.bytes(at, READ_LEN)?;
        if bytes.is_empty() {
            return Ok(end);
        }
        if !all_zero(bytes) {
            let last = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0);
            end = Some(at + last as u64 + 1);
        }
        at += bytes.len() as u64;
    }
}
