//! Operations on files by their paths, for programs that are tried on the simulated disk.
//!
//! Each opens the directory and does the operation in it. The product never does: what it opened
//! must stay the same directory.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::io::{Access, Dir, DirEntry, File, Io, Lock};

/// The operations of a [`Dir`], by path.
pub trait ByPath: Io {
    /// Lists a directory.
    ///
    /// # Errors
    /// The system's, as those of all that follow.
    fn list_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.open_dir(path)?.list()
    }

    /// Makes the entries of a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }

    /// Renames within one directory, replacing the target atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a rename across directories"));
        }
        let (dir, from) = open_parent(self, from)?;
        dir.rename(from, name(to)?)
    }

    /// Removes a file's name.
    fn unlink(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = open_parent(self, path)?;
        dir.unlink(name)
    }

    /// Creates a file that must not exist.
    fn create(&self, path: &Path, direct: bool) -> io::Result<Arc<dyn File>> {
        let (dir, name) = open_parent(self, path)?;
        dir.create(name, direct)
    }

    /// Opens a regular file.
    fn open(&self, path: &Path, access: Access) -> io::Result<Arc<dyn File>> {
        let (dir, name) = open_parent(self, path)?;
        dir.open(name, access)
    }

    /// Tries to take the writer's lock.
    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let (dir, name) = open_parent(self, path)?;
        dir.try_lock(name)
    }

    /// Tries to lock a file alone.
    fn try_lock_file(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        let (dir, name) = open_parent(self, path)?;
        dir.try_lock_file(name)
    }

    /// Returns the physical sector of the device below a directory.
    fn physical_sector(&self, path: &Path) -> Option<u32> {
        self.open_dir(path).ok()?.physical_sector()
    }
}

impl<T: Io + ?Sized> ByPath for T {}

fn open_parent<'a, T: Io + ?Sized>(io: &T, path: &'a Path) -> io::Result<(Arc<dyn Dir>, &'a str)> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    Ok((io.open_dir(parent.unwrap_or(Path::new(".")))?, name(path)?))
}

fn name(path: &Path) -> io::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    name.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}
