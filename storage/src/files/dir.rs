//! A log's directory: its files, their names, and who may write.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::io::{FileKind, Io, Lock};
use crate::position::SegmentNumber;

/// Name of the control file.
pub const CONTROL: &str = "CONTROL";
/// Name of the lock file, which is never removed.
pub const LOCK: &str = "LOCK";
/// Name of the folder in which recovery keeps the bytes that it truncates.
pub const QUARANTINE: &str = "quarantine";
const LOCK_RETRY_NS: u64 = 10_000_000;

/// Returns `DIR/N.seg`.
#[must_use]
pub fn segment_path(dir: &Path, number: SegmentNumber) -> PathBuf {
    dir.join(format!("{:020}.seg", number.0))
}

/// Returns the temporary name of a segment that is not complete.
#[must_use]
pub fn segment_temporary_path(dir: &Path, number: SegmentNumber) -> PathBuf {
    dir.join(format!("{:020}.seg.tmp", number.0))
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
    /// Temporary files of a creation or recovery that did not finish.
    pub temporaries: Vec<PathBuf>,
}

/// Lists a log's directory.
///
/// # Errors
/// [`Error::Io`].
pub fn list(io: &dyn Io, dir: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    for entry in io.list_dir(dir).map_err(Error::io("list", dir))? {
        if entry.name == CONTROL {
            listing.has_control = true;
        } else if let Some(number) = parse_segment_name(&entry.name) {
            listing.segments.push(SegmentFile { number, kind: entry.kind, len: entry.len });
        } else if entry.name.ends_with(".tmp") && entry.kind == FileKind::Regular {
            listing.temporaries.push(dir.join(&entry.name));
        }
    }
    listing.segments.sort_by_key(|segment| segment.number);
    Ok(listing)
}

/// Takes the writer's lock, and retries until `timeout` has passed.
///
/// # Errors
/// [`Error::Locked`], [`Error::Io`].
pub fn lock(io: &dyn Io, dir: &Path, timeout: Duration) -> Result<Box<dyn Lock>> {
    let path = dir.join(LOCK);
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let deadline = io.now_ns().saturating_add(timeout_ns);
    loop {
        if let Some(lock) = io.try_lock(&path).map_err(Error::io("lock", &path))? {
            return Ok(lock);
        }
        if io.now_ns() >= deadline {
            return Err(Error::Locked { path });
        }
        io.sleep_ns(LOCK_RETRY_NS);
    }
}
