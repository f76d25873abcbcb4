//! Bounded reads of one file: a window of aligned memory that moves over it.
//!
//! Owns how a file is read (direct access where the log uses it: a page that a
//! buffered reader caches would fail a running writer's next sync). Never holds more
//! than it was asked for, or its chunk; never reads past its limit. A read error is an
//! error, never an end.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::align_up;
use crate::io::{Access, AlignedBuf, DIRECT_ALIGN, File, Io};

/// Bytes read at once when nothing longer is asked for.
pub const WINDOW_LEN: u64 = 1024 * 1024;
const ALIGN: u64 = DIRECT_ALIGN as u64;
/// How often a direct read that is too short to go on is tried again.
const MAX_STALLS: u32 = 64;

/// A file, and the part of it that is in memory.
#[derive(Debug)]
pub struct Window {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    /// Bytes read at once when no more are asked for.
    chunk: u64,
    /// Nothing at or after this offset is kept: it may still change.
    limit: u64,
    buf: AlignedBuf,
    start: u64,
    filled: usize,
}

impl Window {
    /// Opens a regular file for reading; `direct` past the page cache, if that can be.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(io: &dyn Io, path: &Path, direct: bool) -> Result<Self> {
        let file =
            io.open(path, Access { write: false, direct }).map_err(Error::io("open", path))?;
        let len = file.len().map_err(Error::io("get the length of", path))?;
        Ok(Self {
            file,
            path: path.to_owned(),
            len,
            chunk: WINDOW_LEN,
            limit: u64::MAX,
            buf: AlignedBuf::zeroed(0),
            start: 0,
            filled: 0,
        })
    }

    /// The same, reading `chunk` bytes at once instead of [`WINDOW_LEN`].
    #[must_use]
    pub fn with_chunk(mut self, chunk: u64) -> Self {
        self.chunk = chunk;
        self
    }

    /// The file's length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Is the file empty?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// From now on bytes below `limit` may be read; those that are in memory stay. It
    /// must not go down.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Forgets what is in memory: the file may have changed.
    pub fn forget(&mut self) {
        self.filled = 0;
    }

    /// `len` bytes at `offset`, fewer at the end of the file and at the limit. The caller
    /// bounds `len`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = offset.saturating_add(len).min(self.len).min(self.limit);
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

    fn file_len(&self) -> Result<u64> {
        self.file.len().map_err(Error::io("get the length of", &self.path))
    }

    fn load(&mut self, offset: u64, end: u64) -> Result<()> {
        let start = offset / ALIGN * ALIGN;
        let to_end = self.len.min(self.limit) - start;
        let want = align_up((end - start).max(self.chunk).min(to_end), ALIGN);
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
                    if next < reached && start + reached as u64 >= self.file_len()? {
                        // The file was cut short meanwhile.
                        done = reached;
                        break;
                    }
                    if stalls > MAX_STALLS {
                        let error = std::io::ErrorKind::UnexpectedEof.into();
                        return Err(Error::io("read", &self.path)(error));
                    }
                    done = next;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::io("read", &self.path)(error)),
            }
        }
        self.filled = done.min(to_usize(to_end));
        Ok(())
    }
}

/// Lengths in memory; the crate's target is 64-bit (asserted by the format).
#[must_use]
pub fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}
