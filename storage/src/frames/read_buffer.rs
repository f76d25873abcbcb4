//! Bounded reads of one file: a read buffer of aligned memory that moves over it.
//!
//! Owns how a file is read (direct access where the log uses it: a page that a buffered
//! reader caches would fail a running writer's next sync). Never holds more than it was asked
//! for, or its chunk; never reads a byte twice that it still holds; never reads past its
//! limit; never writes memory of which a caller still holds a slice. A read error is an
//! error, never an end.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::faults;
use crate::files::dir::Directory;
use crate::format::align_up;
use crate::io::{Access, AlignedBuf, DIRECT_ALIGN, File};

/// Bytes read at once when no more are requested.
pub const READ_LEN: u64 = 1024 * 1024;
const ALIGN: u64 = DIRECT_ALIGN as u64;
/// How often a direct read that is too short to continue from is retried.
const MAX_STALLS: u32 = 64;

/// A file, and the part of it that is in memory.
#[derive(Debug)]
pub struct ReadBuffer {
    file: Arc<dyn File>,
    path: PathBuf,
    len: u64,
    /// Bytes read at once when no more are requested.
    chunk: u64,
    /// Nothing at or after this offset is kept: it may still change.
    limit: u64,
    buffer: Buffer,
}

/// The bytes of a file that are in memory: one contiguous part of it.
#[derive(Debug)]
pub struct Buffer {
    bytes: Arc<AlignedBuf>,
    /// All of `bytes`, once a slice of them was returned.
    shared: Option<Bytes>,
    /// Offset in the file of the first byte.
    start: u64,
    filled: usize,
}

/// A buffer's memory, as the owner of the slices that were returned.
struct SharedMemory(Arc<AlignedBuf>);

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Buffer {
    /// Creates a buffer without any bytes yet.
    #[must_use]
    pub fn new() -> Self {
        Self { bytes: Arc::new(AlignedBuf::zeroed(0)), shared: None, start: 0, filled: 0 }
    }

    /// Returns the bytes of memory, used or not.
    #[must_use]
    pub fn memory_len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Returns `len` bytes of the file at `offset`, or fewer where no more of them are in
    /// memory.
    #[must_use]
    pub fn get(&self, offset: u64, len: u64) -> &[u8] {
        let Some(from) = offset.checked_sub(self.start) else { return &[] };
        let to = to_usize(from.saturating_add(len)).min(self.filled);
        self.bytes.get(to_usize(from)..to).unwrap_or(&[])
    }

    /// Returns the same as [`get`](Self::get), but the slice keeps the whole memory alive,
    /// and may outlive the buffer. The first slice of what was read allocates a reference
    /// count; later ones allocate nothing.
    pub fn share(&mut self, offset: u64, len: u64) -> Bytes {
        let Some(from) = offset.checked_sub(self.start) else { return Bytes::new() };
        let to = to_usize(from.saturating_add(len)).min(self.filled);
        let from = to_usize(from).min(to);
        let memory = &self.bytes;
        let shared =
            self.shared.get_or_insert_with(|| Bytes::from_owner(SharedMemory(Arc::clone(memory))));
        shared.slice(from..to)
    }

    /// Drops what is before `start` and makes room for `len` bytes from there; returns how
    /// many of them are in memory, in whole blocks of [`DIRECT_ALIGN`]. On return nobody else
    /// holds the memory.
    fn keep(&mut self, start: u64, len: usize) -> usize {
        let (mut skip, mut kept) = (0, 0);
        if let Some(before) = start.checked_sub(self.start)
            && let Some(rest) = self.filled.checked_sub(to_usize(before))
        {
            (skip, kept) = (to_usize(before), (rest / DIRECT_ALIGN * DIRECT_ALIGN).min(len));
        }
        self.shared = None;
        match Arc::get_mut(&mut self.bytes).filter(|bytes| bytes.len() >= len) {
            Some(bytes) if skip > 0 && kept > 0 => bytes.copy_within(skip..skip + kept, 0),
            Some(_) => {}
            // It is too short, or somebody holds a slice of it.
            None => {
                let mut bytes = AlignedBuf::zeroed(len);
                let old = self.bytes.get(skip..skip + kept);
                if let Some((new, old)) = bytes.get_mut(..kept).zip(old) {
                    new.copy_from_slice(old);
                }
                self.bytes = Arc::new(bytes);
            }
        }
        (self.start, self.filled) = (start, kept);
        kept
    }

    /// Returns the memory from `from` to `to`, for a read after [`keep`](Self::keep).
    fn rest(&mut self, from: usize, to: usize) -> Option<&mut [u8]> {
        let bytes = Arc::get_mut(&mut self.bytes);
        debug_assert!(bytes.is_some(), "`keep` left it to us alone");
        bytes?.get_mut(from..to)
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Self::new()
    }
}

impl ReadBuffer {
    /// Opens a regular file for reading; `direct` bypasses the page cache, where the file
    /// system can.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(dir: &Directory, name: &str, direct: bool) -> Result<Self> {
        let file = dir.file(name, Access { write: false, direct })?;
        let path = dir.path_of(name);
        let len = file.len().map_err(Error::io("get the length of", &path))?;
        Ok(Self { file, path, len, chunk: READ_LEN, limit: u64::MAX, buffer: Buffer::new() })
    }

    /// Returns the same buffer, which reads `chunk` bytes at once instead of [`READ_LEN`].
    #[must_use]
    pub fn with_chunk(mut self, chunk: u64) -> Self {
        self.chunk = chunk;
        self
    }

    /// Sets how many bytes are read at once from now on.
    pub fn set_chunk(&mut self, chunk: u64) {
        self.chunk = chunk;
    }

    /// Bytes read at once when no more are requested.
    #[must_use]
    pub fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Returns the file's length in bytes when it was opened.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the file is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Allows reads below `limit` from now on; the bytes in memory stay. The limit must not
    /// go down.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Forgets what is in memory: the file may have changed.
    pub fn forget(&mut self) {
        self.buffer.filled = 0;
    }

    /// Forgets what is in memory, and frees the memory where it is much longer than the
    /// chunk.
    pub fn shrink(&mut self) {
        self.forget();
        if self.buffer.memory_len() > 2 * self.chunk {
            self.buffer = Buffer::new();
        }
    }

    /// Exchanges what is in memory, and the memory itself. The caller passes a buffer of the
    /// same file, or forgets its bytes.
    pub fn swap(&mut self, buffer: &mut Buffer) {
        std::mem::swap(&mut self.buffer, buffer);
    }

    /// Returns `len` bytes at `offset`, or fewer at the end of the file and at the limit. The
    /// caller bounds `len`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn bytes(&mut self, offset: u64, len: u64) -> Result<&[u8]> {
        let end = self.end_of(offset, len);
        if !self.holds(offset, len) {
            self.load(offset, end)?;
        }
        Ok(self.buffer.get(offset, end.saturating_sub(offset)))
    }

    /// Returns the same as [`bytes`](Self::bytes), but the slice keeps the memory alive, with
    /// everything that was read into it, and may outlive the buffer.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn share(&mut self, offset: u64, len: u64) -> Result<Bytes> {
        let end = self.end_of(offset, len);
        if !self.holds(offset, len) {
            self.load(offset, end)?;
        }
        Ok(self.buffer.share(offset, end.saturating_sub(offset)))
    }

    /// Returns whether everything that [`bytes`](Self::bytes) would return is in memory.
    #[must_use]
    pub fn holds(&self, offset: u64, len: u64) -> bool {
        let end = self.end_of(offset, len);
        let Buffer { start, filled, .. } = self.buffer;
        offset >= end || (offset >= start && end <= start + filled as u64)
    }

    /// Reads on, so that [`bytes`](Self::bytes) at `offset` are in memory together with
    /// everything that already is; `offset` is not before that. The caller bounds the sum.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn extend(&mut self, offset: u64, len: u64) -> Result<()> {
        if self.holds(offset, len) {
            return Ok(());
        }
        let start = if self.buffer.filled == 0 { offset } else { self.buffer.start.min(offset) };
        self.load(start, self.end_of(offset, len))
    }

    fn end_of(&self, offset: u64, len: u64) -> u64 {
        offset.saturating_add(len).min(self.len).min(self.limit)
    }

    fn file_len(&self) -> Result<u64> {
        self.file.len().map_err(Error::io("get the length of", &self.path))
    }

    fn load(&mut self, offset: u64, end: u64) -> Result<()> {
        let start = offset / ALIGN * ALIGN;
        let to_end = self.len.min(self.limit) - start;
        let want = align_up((end - start).max(self.chunk).min(to_end), ALIGN);
        let want = to_usize(want);
        let (mut done, mut stalls) = (self.buffer.keep(start, want), 0);
        while let Some(rest) = self.buffer.rest(done, want).filter(|rest| !rest.is_empty()) {
            match faults::files::read(self.file.read_at(rest, start + done as u64)) {
                Ok(0) => break,
                Ok(count) => {
                    let reached = done + count;
                    if start + reached as u64 >= self.len {
                        done = reached;
                        break;
                    }
                    // Direct reads continue only at an aligned offset.
                    let aligned = reached / DIRECT_ALIGN * DIRECT_ALIGN;
                    let next = if self.file.is_direct() { aligned } else { reached };
                    stalls += u32::from(next == done);
                    if next < reached && start + reached as u64 >= self.file_len()? {
                        // The file was truncated meanwhile.
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
        self.buffer.filled = done.min(to_usize(to_end));
        Ok(())
    }
}

/// Converts to a length in memory; the target is 64-bit (asserted by the format).
#[must_use]
pub fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

#[cfg(all(test, feature = "sim"))]
mod tests {
    use std::path::Path;

    use super::{Buffer, ReadBuffer, to_usize};
    use crate::files::dir::Directory;
    use crate::io::Io;
    use crate::io::sim::SimDisk;

    /// Odd, so that it ends within a sector.
    const LEN: u64 = 100_003;

    /// Returns a generator of arbitrary numbers, always the same.
    fn numbers() -> impl FnMut(u64) -> u64 {
        let mut state = 1_u64;
        move |end| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) % end
        }
    }

    fn contents() -> Vec<u8> {
        let mut next = numbers();
        (0..LEN).map(|_| u8::try_from(next(256)).expect("below 256")).collect()
    }

    fn open(io: &dyn Io, direct: bool) -> ReadBuffer {
        let dir = Directory::open(io, Path::new("/")).expect("the root");
        ReadBuffer::open(&dir, "file", direct).expect("the file")
    }

    fn slice(bytes: &[u8], offset: u64, len: u64, limit: u64) -> &[u8] {
        let end = (offset + len).min(LEN).min(limit);
        bytes.get(to_usize(offset)..to_usize(end)).unwrap_or(&[])
    }

    #[test]
    fn buffer_returns_the_bytes_of_its_file_wherever_it_was_before() {
        let path = Path::new("/file");
        let bytes = contents();
        for direct in [false, true] {
            let disk = SimDisk::new(1);
            disk.write_file(path, &bytes);
            let io = disk.process();
            let mut read_buffer = open(io.as_ref(), direct);
            read_buffer = read_buffer.with_chunk(8 * 1024);
            read_buffer.set_limit(1);
            let (mut next, mut limit, mut other) = (numbers(), 1, Buffer::new());
            let mut held = std::collections::VecDeque::new();
            for _ in 0..20_000 {
                let (offset, len) = (next(LEN + 10), next(20_000));
                match next(10) {
                    0 => read_buffer.forget(),
                    1 => read_buffer.swap(&mut other),
                    2 => {
                        limit = (limit + next(100)).min(LEN);
                        read_buffer.set_limit(limit);
                    }
                    3..6 => {
                        let near = offset.min(limit);
                        read_buffer.extend(near, len).unwrap();
                        assert!(read_buffer.holds(near, len));
                    }
                    _ => {}
                }
                let expected = slice(&bytes, offset, len, limit);
                let found = read_buffer.bytes(offset, len).unwrap();
                assert!(found == expected, "{len} at {offset}, {limit}");
                if next(3) == 0 {
                    held.push_back((read_buffer.share(offset, len).unwrap(), expected));
                }
                // Hold it for a while, or drop it at once.
                held.drain(..held.len().saturating_sub(to_usize(next(8))));
                for (shared, expected) in &held {
                    assert!(shared == expected, "{len} at {offset}, {limit}");
                }
            }
        }
    }

    #[test]
    fn memory_is_read_into_again_once_its_slices_are_gone_and_not_before() {
        let path = Path::new("/file");
        let disk = SimDisk::new(1);
        disk.write_file(path, &contents());
        let io = disk.process();
        let mut read_buffer = open(io.as_ref(), true);
        read_buffer = read_buffer.with_chunk(8 * 1024);
        let first = read_buffer.share(0, 8 * 1024).unwrap();
        let second = read_buffer.share(100, 8).unwrap();
        assert_eq!(first[100..108].as_ptr(), second.as_ptr(), "no copy");
        let other = read_buffer.share(16 * 1024, 8 * 1024).unwrap();
        assert_ne!(other.as_ptr(), first.as_ptr());
        let before = other.as_ptr();
        drop(other);
        let again = read_buffer.share(32 * 1024, 8 * 1024).unwrap();
        assert_eq!(again.as_ptr(), before, "nobody had it any more");
    }

    #[test]
    fn buffer_reads_nothing_again_that_it_holds() {
        let path = Path::new("/file");
        let (old, new) = (contents(), vec![0; to_usize(LEN)]);
        let disk = SimDisk::new(1);
        let io = disk.process();
        let mut next = numbers();
        for _ in 0..2_000 {
            disk.write_file(path, &old);
            let mut read_buffer = open(io.as_ref(), true);
            read_buffer = read_buffer.with_chunk(8 * 1024);
            let (first, len) = (next(LEN / 2), 8 * 1024 + next(10_000));
            assert!(read_buffer.bytes(first, len).unwrap() == slice(&old, first, len, LEN));
            disk.write_file(path, &new);
            let held = (first + len).next_multiple_of(4096);
            let (offset, end) = (first + next(held - first), held + 1 + next(10_000));
            if next(2) == 0 {
                read_buffer.extend(first, end - first).unwrap();
                assert!(read_buffer.bytes(first, 1).unwrap() == slice(&old, first, 1, LEN));
            }
            let found = read_buffer.bytes(offset, end - offset).unwrap();
            let (found_old, found_new) = found.split_at(to_usize(held - offset));
            assert!(found_old == slice(&old, offset, held - offset, LEN));
            assert!(found_new == slice(&new, held, end - held, LEN));
        }
    }
}
