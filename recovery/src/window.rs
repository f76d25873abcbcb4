//! Bounded reads of one file: a window of aligned memory that moves over it.
//!
//! Owns how a file is read (direct access where the log uses it: a page that a
//! buffered reader caches would fail a running writer's next sync). Never holds more
//! than it was asked for, or [`WINDOW_LEN`]. A read error is an error, never an end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bulla_wal::format::align_up;
use bulla_wal::io::{Access, AlignedBuf, DIRECT_ALIGN, File, Io};
use bulla_wal::{Error as LogError, Result};

/// Bytes read at once when nothing longer is asked for.
pub(crate) const WINDOW_LEN: u64 = 1024 * 1024;
const ALIGN: u64 = DIRECT_ALIGN as u64;
/// How often a direct read that is too short to go on is tried again.
const MAX_STALLS: u32 = 64;

/// A file, and the part of it that is in memory.
#[derive(Debug)]
pub(crate) struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    buf: AlignedBuf,
    start: u64,
    filled: usize,
}

impl Window {
    /// Opens a regular file for reading.
    pub(crate) fn open(io: &dyn Io, path: &Path, direct: bool) -> Result<Self> {
        let file =
            io.open(path, Access { write: false, direct }).map_err(LogError::io("open", path))?;
        let len = file.len().map_err(LogError::io("get the length of", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            len,
            buf: AlignedBuf::zeroed(0),
            start: 0,
            filled: 0,
        })
    }

    /// The file's length in bytes when it was opened.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// `len` bytes at `offset`, fewer at the end of the file. The caller bounds `len`.
    pub(crate) fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = offset.saturating_add(len).min(self.len);
        if offset >= end {
            return Ok(&[]);
        }
        if offset < self.start || end > self.start + self.filled as u64 {
            self.load(offset, end)?;
        }
        let from = to_usize(offset - self.start).min(self.filled);
        let to = to_usize(end - self.start).min(self.filled);
        Ok(self.buf.get(from..to).unwrap_or(&[]))
    }

    fn load(&mut self, offset: u64, end: u64) -> Result<()> {
        let start = offset / ALIGN * ALIGN;
        let to_end = self.len - start;
        let want = align_up((end - start).max(WINDOW_LEN).min(to_end), ALIGN);
        let want = to_usize(want);
        if self.buf.len() < want {
            self.buf = AlignedBuf::zeroed(want);
        }
        self.filled = 0;
        self.start = start;
        let (mut done, mut stalls) = (0, 0);
        while let Some(rest) = self.buf.get_mut(done..want).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, start + done as u64) {
                Ok(0) => break,
                Ok(count) => {
                    let reached = done + count;
                    if start + reached as u64 >= self.len {
                        done = reached;
                        break;
                    }
                    // Direct reads go on at an aligned place only.
                    let aligned = reached / DIRECT_ALIGN * DIRECT_ALIGN;
                    let next = if self.file.is_direct() { aligned } else { reached };
                    stalls += u32::from(next == done);
                    if stalls > MAX_STALLS {
                        let error = std::io::ErrorKind::UnexpectedEof.into();
                        return Err(LogError::io("read", &self.path)(error));
                    }
                    done = next;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LogError::io("read", &self.path)(error)),
            }
        }
        self.filled = done;
        Ok(())
    }
}

/// Lengths in memory; the crate's target is 64-bit (asserted by the format).
pub(crate) fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
