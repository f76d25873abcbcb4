//! A file before another one, for what a test does to some of its calls.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;

use bulla_storage::io::File;

/// The calls of a [`File`]: those that are not written anew go to the file behind it.
#[expect(clippy::len_without_is_empty, reason = "as of a file, which has it")]
pub trait Layer: fmt::Debug + Send + Sync {
    /// The file behind it.
    fn file(&self) -> &dyn File;

    /// As of [`File`].
    fn len(&self) -> io::Result<u64> {
        self.file().len()
    }

    /// As of [`File`].
    fn is_direct(&self) -> bool {
        self.file().is_direct()
    }

    /// As of [`File`].
    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file().read_at(bytes, offset)
    }

    /// As of [`File`].
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.file().write_at(bytes, offset)
    }

    /// As of [`File`].
    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.file().write_pieces_at(pieces, offset, dsync)
    }

    /// As of [`File`].
    fn sync(&self) -> io::Result<()> {
        self.file().sync()
    }

    /// As of [`File`].
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file().set_len(len)
    }

    /// As of [`File`].
    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.file().preallocate(len)
    }

    /// As of [`File`]. None, unless the layer says so: a queue would write past it.
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// A file that consists of a layer and of what is behind it.
#[derive(Debug)]
pub struct Layered<L>(pub L);

impl<L: Layer> File for Layered<L> {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn is_direct(&self) -> bool {
        self.0.is_direct()
    }

    fn read_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(bytes, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn write_pieces_at(&self, pieces: [&[u8]; 2], offset: u64, dsync: bool) -> io::Result<usize> {
        self.0.write_pieces_at(pieces, offset, dsync)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn preallocate(&self, len: u64) -> io::Result<()> {
        self.0.preallocate(len)
    }

    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.as_fd()
    }
}
