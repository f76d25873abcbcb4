//! A log's directory: its files, their names, and who may write.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::{Access, Dir, DirEntry, File, FileKind, Io, Lock};
use crate::options::Options;
use crate::position::SegmentNumber;
use crate::progress::{Meter, OnProgress, Phase};

/// Name of the control file.
pub const CONTROL: &str = "CONTROL";
/// Name of the lock file. Bulla never removes it, and locks the directory, too.
pub const LOCK: &str = "LOCK";
/// Name of the folder in which recovery keeps the bytes that it truncates.
pub const QUARANTINE: &str = "quarantine";
/// Name of the folder in which a store keeps its checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// Name of a backup's list of its parts.
pub const MANIFEST: &str = "MANIFEST";
/// The mark of a directory in which a restore did not end. An open removes it, like any temporary
/// file.
pub const RESTORING: &str = "RESTORING.tmp";
const LOCK_RETRY_NS: u64 = 10_000_000;
const NS_PER_MS: u64 = 1_000_000;

/// Returns `N.seg`.
#[must_use]
pub fn segment_name(number: SegmentNumber) -> String {
    format!("{:020}.seg", number.0)
}

/// Returns `DIR/N.seg`, for messages and for programs that examine the files.
#[must_use]
pub fn segment_path(dir: &Path, number: SegmentNumber) -> PathBuf {
    dir.join(segment_name(number))
}

/// Returns the temporary name of a segment that is not complete.
#[must_use]
pub fn segment_temporary_name(number: SegmentNumber) -> String {
    format!("{:020}.seg.tmp", number.0)
}

/// Returns the number in a segment's file name, or `None` for any other name.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<SegmentNumber> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number > 0).map(SegmentNumber)
}

/// A file in a log's directory that has a segment's name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SegmentFile {
    /// The number in its name.
    pub number: SegmentNumber,
    /// What the name stands for.
    pub kind: FileKind,
    /// Length in bytes.
    pub len: u64,
}

/// What a log's directory holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Listing {
    /// Whether there is a CONTROL file.
    pub has_control: bool,
    /// Every file with a segment's name, in the order of the numbers.
    pub segments: Vec<SegmentFile>,
    /// A file of these that has another name, too, if there is one.
    pub linked: Option<String>,
    /// Temporary files of a creation or recovery that did not finish.
    pub temporaries: Vec<String>,
    /// Whether there is a file of a backup, or the mark of a restore.
    pub of_backup: bool,
}

/// An open directory of a log or a store. Every access to its files goes through it, so that a
/// path that comes to mean another directory changes nothing.
#[derive(Clone, Debug)]
pub struct Directory {
    handle: Arc<dyn Dir>,
    /// What it was opened as, for messages.
    path: PathBuf,
}

impl Directory {
    /// Opens a directory.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(io: &dyn Io, path: &Path) -> Result<Self> {
        let handle = io.open_dir(path).map_err(Error::io("open", path))?;
        Ok(Self { handle, path: path.to_owned() })
    }

    /// Opens the directory of a log that should exist.
    ///
    /// # Errors
    /// [`Error::NotALog`] when nothing has that path, [`Error::Io`].
    pub fn of_log(io: &dyn Io, path: &Path) -> Result<Self> {
        match Self::open(io, path) {
            Err(error) if error.is_not_found() => Err(Error::NotALog { path: path.to_owned() }),
            opened => opened,
        }
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn subdirectory(&self, name: &str) -> Result<Self> {
        let path = self.path_of(name);
        let handle = self.handle.open_dir(name).map_err(Error::io("open", &path))?;
        Ok(Self { handle, path })
    }

    /// Creates a directory in this one, or opens the one that exists. Its name is durable after
    /// a [`sync`](Self::sync).
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_subdirectory(&self, name: &str) -> Result<Self> {
        self.handle.create_dir(name).map_err(Error::io("create", self.path_of(name)))?;
        self.subdirectory(name)
    }

    /// Returns the path with which it was opened. It may mean another directory by now.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of a file, for messages.
    #[must_use]
    pub fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Returns the directory itself.
    #[must_use]
    pub fn handle(&self) -> &dyn Dir {
        self.handle.as_ref()
    }

    /// Opens a regular file.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn file(&self, name: &str, access: Access) -> Result<Arc<dyn File>> {
        self.handle.open(name, access).map_err(Error::io("open", self.path_of(name)))
    }

    /// Creates a file that must not exist.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(&self, name: &str, direct: bool) -> Result<Arc<dyn File>> {
        self.handle.create(name, direct).map_err(Error::io("create", self.path_of(name)))
    }

    /// Returns whether something has this name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has(&self, name: &str) -> Result<bool> {
        match self.file(name, Access::READ) {
            Err(error) if error.is_not_found() => Ok(false),
            // It is there, whatever it is.
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::InvalidInput => {
                Ok(true)
            }
            opened => opened.map(|_| true),
        }
    }

    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.handle.rename(from, to).map_err(Error::io("rename", self.path_of(from)))
    }

    /// Renames a file to a name that nothing has.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn rename_new(&self, from: &str, to: &str) -> Result<()> {
        self.handle.rename_new(from, to).map_err(Error::io("rename", self.path_of(from)))
    }

    /// Removes a file, if it is there.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove(&self, name: &str) -> Result<()> {
        match self.handle.unlink(name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io("remove", self.path_of(name))(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes its entries durable.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn sync(&self) -> Result<()> {
        self.handle.sync().map_err(Error::io("sync", &self.path))
    }

    /// Lists every entry.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn entries(&self) -> Result<Vec<DirEntry>> {
        self.handle.list().map_err(Error::io("list", &self.path))
    }

    /// Returns the name of a file that neither a creation of a log, interrupted or in progress,
    /// nor a file system makes in a new directory, if there is one: a log is not created among
    /// others' files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn first_foreign(&self) -> Result<Option<String>> {
        const HARMLESS: [&str; 4] = [LOCK, CONTROL, "CONTROL.tmp", "lost+found"];
        let is_segment =
            |name: &str| parse_segment_name(name.strip_suffix(".tmp").unwrap_or(name)).is_some();
        let names = self.entries()?.into_iter().map(|entry| entry.name);
        Ok(names.filter(|name| !HARMLESS.contains(&name.as_str()) && !is_segment(name)).min())
    }

    /// Lists a log's files.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        for entry in self.entries()? {
            let is_ours = entry.name == CONTROL || parse_segment_name(&entry.name).is_some();
            if is_ours && entry.is_linked {
                listing.linked.get_or_insert_with(|| entry.name.clone());
            }
            listing.of_backup |= entry.name == MANIFEST || entry.name == RESTORING;
            if entry.name == CONTROL {
                listing.has_control = true;
            } else if let Some(number) = parse_segment_name(&entry.name) {
                listing.segments.push(SegmentFile { number, kind: entry.kind, len: entry.len });
            } else if entry.name.ends_with(".tmp") && entry.kind == FileKind::Regular {
                listing.temporaries.push(entry.name);
            }
        }
        listing.segments.sort_by_key(|segment| segment.number);
        Ok(listing)
    }

    /// Makes files that are created from now on belong to the owner of CONTROL.
    ///
    /// # Errors
    /// [`Error::Io`] when this process may not do so.
    pub fn create_as_owner(&self) -> Result<()> {
        let operation = "create files for the owner of";
        self.handle.create_as(CONTROL).map_err(Error::io(operation, self.path_of(CONTROL)))
    }

    /// Takes the writer's lock, and retries until `timeout` has passed.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn lock(&self, io: &dyn Io, timeout: Duration) -> Result<Box<dyn Lock>> {
        self.retry(io, timeout, None, LOCK, || self.handle.try_lock(LOCK))
    }

    /// Does what [`lock`](Self::lock) does for an open with these options, and tells their
    /// [`on_progress`](Options::on_progress) while it waits.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`], [`Error::Cancelled`].
    pub fn lock_for(&self, options: &Options) -> Result<Box<dyn Lock>> {
        let (io, timeout) = (options.io.as_ref(), options.lock_timeout);
        let told = options.on_progress.as_ref();
        self.retry(io, timeout, told, LOCK, || self.handle.try_lock(LOCK))
    }

    /// Locks a file alone, which exists, and retries until `timeout` has passed.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::Io`].
    pub fn lock_file(&self, io: &dyn Io, name: &str, timeout: Duration) -> Result<Box<dyn Lock>> {
        self.retry(io, timeout, None, name, || self.handle.try_lock_file(name))
    }

    fn retry(
        &self,
        io: &dyn Io,
        timeout: Duration,
        told: Option<&OnProgress>,
        name: &str,
        try_lock: impl Fn() -> std::io::Result<Option<Box<dyn Lock>>>,
    ) -> Result<Box<dyn Lock>> {
        let path = self.path_of(name);
        let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        let begun = io.now_ns();
        let (mut waited, mut told_ms) = (0, 0);
        let meter = Meter::new(told, Phase::Wait, timeout_ns / NS_PER_MS);
        loop {
            if let Some(lock) = try_lock().map_err(Error::io("lock", &path))? {
                return Ok(lock);
            }
            if waited >= timeout_ns {
                return Err(Error::Locked { path });
            }
            meter.add(waited / NS_PER_MS - told_ms)?;
            told_ms = waited / NS_PER_MS;
            io.sleep_ns(LOCK_RETRY_NS);
            waited = io.now_ns().saturating_sub(begun);
        }
    }
}
