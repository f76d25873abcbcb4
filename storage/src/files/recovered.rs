//! What recovery passes to the log: the only way to obtain a log that accepts appends.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::faults::failpoints::{Failpoint, skip};
use crate::files::control::{self, ControlFile};
use crate::files::dir::{CONTROL, Directory};
use crate::files::segment::{self, CreateError, NewSegment};
use crate::format::{Content, Control, EpochStart, Header, LogId, LowWater};
use crate::io::{File, Lock};
use crate::options::Options;
use crate::position::{Epoch, Lsn, SegmentNumber, Seq};

/// A segment that holds live entries, for purging.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LiveSegment {
    /// The low-water mark once everything before this segment is purged.
    pub start: LowWater,
}

/// A log that was recovered (or just created): locked, its active segment durable.
///
/// Made by the recovery crate and by [`create`]; consumed by
/// `Log::start`. This typestate keeps a log that was not recovered from
/// accepting appends.
#[derive(Debug)]
pub struct Recovered {
    /// Options, checked, with the log's own sector.
    pub options: Options,
    /// The log's directory, open.
    pub dir: Directory,
    /// The writer's lock.
    pub lock: Box<dyn Lock>,
    /// CONTROL, with the new epoch.
    pub control: ControlFile,
    /// The header of the epoch-start segment.
    pub header: Header,
    /// That segment, open for writing.
    pub file: Arc<dyn File>,
    /// Its file's length in bytes.
    pub file_len: u64,
    /// The position of the next frame. Everything below it is durable.
    pub next_lsn: Lsn,
    /// The number of the next entry.
    pub next_seq: Seq,
    /// Header CRC of the last non-seal frame; 0 when there is none.
    pub prev_crc: u32,
    /// Wall time of the last frame, in ns since 1970.
    pub wall_ns: u64,
    /// The live segments in order; the last is the epoch-start segment.
    pub live: Vec<LiveSegment>,
}

/// Creates a log in a directory, and the directory itself if it does not exist.
///
/// On return the empty log is durable.
///
/// # Errors
/// [`Error::AlreadyExists`] when there is a log, [`Error::Corrupt`] when there are
/// segments without CONTROL, [`Error::Locked`], [`Error::Options`],
/// [`Error::SectorTooSmall`]; [`Error::NotCreated`]: there is no space, and nothing stops another
/// try; [`Error::NoSpaceToOpen`]: the log was created, and there was no space to end that: open it;
/// [`Error::Io`]: there may be a log, too.
pub fn create(path: &Path, options: &Options) -> Result<Recovered> {
    try_create(path, options).map_err(|failed| failed.into_error(path))
}

/// Why a creation failed, and what it left.
enum Failed {
    /// There is no log.
    Before(Error),
    /// The first segment has its name: there is a log, which the next open goes on with.
    Begun(Error),
}

impl<E: Into<Error>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Before(error.into())
    }
}

impl Failed {
    /// Returns the error of a creation; of its causes, those that have to do with space are told
    /// apart.
    fn into_error(self, path: &Path) -> Error {
        let path = path.to_owned();
        match self {
            Self::Before(error) if is_limit(&error) || error.is_out_of_space() => {
                Error::NotCreated { path, cause: Arc::new(error) }
            }
            Self::Begun(error) if error.is_out_of_space() => {
                Error::NoSpaceToOpen { path, cause: Arc::new(error) }
            }
            Self::Before(error) | Self::Begun(error) => error,
        }
    }
}

fn is_limit(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == ErrorKind::FileTooLarge)
}

fn try_create(path: &Path, options: &Options) -> Result<Recovered, Failed> {
    let options = options.checked(options.sector)?;
    let io = Arc::clone(&options.io);
    io.create_dir(path).map_err(Error::io("create", path))?;
    let dir = Directory::open(io.as_ref(), path)?;
    if let Some(parent) = parent(path).filter(|_| !skip(Failpoint::ParentDirSync)) {
        Directory::open(io.as_ref(), parent)?.sync()?;
    }
    check_device(&dir, &options)?;
    let lock = dir.lock_for(&options)?;
    let listing = dir.list()?;
    if listing.has_control {
        return Err(Error::AlreadyExists { path: path.to_owned() }.into());
    }
    if listing.of_backup {
        return Err(Error::OfBackup { path: path.to_owned() }.into());
    }
    if let Some(segment) = listing.segments.first() {
        return Err(Error::from(Box::new(Corruption {
            segment: Some(segment.number),
            offset: None,
            lsn: None,
            durable: None,
            kind: CorruptionKind::ControlMissing,
        }))
        .into());
    }
    let mut log_id = [0; 16];
    io.random(&mut log_id).map_err(Error::io("get randomness for", path))?;
    // Version 4 of RFC 9562.
    log_id[6] = log_id[6] & 0x0F | 0x40;
    log_id[8] = log_id[8] & 0x3F | 0x80;
    let control = Control {
        counter: 0,
        log_id: LogId(log_id),
        sector: options.sector,
        epoch: Epoch(1),
        nonce: random_nonce(&options, &dir)?,
        compatible: 0,
        low_water: LowWater::START,
        content: options.content.unwrap_or(Content::PLAIN),
    };
    let begun = ControlFile::create(&dir, control).map_err(Failed::from).and_then(|mut control| {
        let first = first_segment(&dir, &options, &mut control)?;
        Ok((control, first))
    });
    let (control, (header, file)) = begun.inspect_err(|_| undo(&dir))?;
    Ok(new_log(dir, options, lock, control, header, file))
}

/// Removes what a creation left that failed before its first segment had its name, so that the
/// next one is as free in its options as this one was. The lock is held.
fn undo(dir: &Directory) {
    // With its segment it is a log. Where this fails, the next open goes on from what is left.
    if dir.list().is_ok_and(|listing| listing.segments.is_empty()) {
        for name in [control::TEMPORARY, CONTROL] {
            let _ = dir.remove(name);
        }
    }
}

/// Makes the first segment of a log that already has CONTROL: the last step of a creation,
/// also of one that a crash interrupted.
///
/// # Errors
/// [`Error::NotCreated`]; [`Error::NoSpaceToOpen`] when the segment has its name already;
/// [`Error::Io`].
pub fn begin(
    dir: Directory,
    options: Options,
    lock: Box<dyn Lock>,
    mut control: ControlFile,
) -> Result<Recovered> {
    let (header, file) = first_segment(&dir, &options, &mut control)
        .map_err(|failed| failed.into_error(dir.path()))?;
    Ok(new_log(dir, options, lock, control, header, file))
}

fn first_segment(
    dir: &Directory,
    options: &Options,
    control: &mut ControlFile,
) -> Result<(Header, Arc<dyn File>), Failed> {
    let io = Arc::clone(&options.io);
    let current = *control.current();
    let header = Header {
        log_id: current.log_id,
        number: SegmentNumber(1),
        epoch: current.epoch,
        nonce: current.nonce,
        previous_nonce: 0,
        sector: current.sector,
        wall_ns: io.wall_ns(),
        epoch_start: Some(EpochStart {
            base: Lsn(0),
            first_seq: Seq(1),
            replaces_from: Lsn(0),
            truncated_at: Lsn(0),
            truncations: Vec::new(),
        }),
    };
    let new = NewSegment {
        header: &header,
        len: options.epoch_start_len(0),
        direct: options.is_direct(),
        zeroed: true,
        replaces: false,
        is_wanted: &|| true,
    };
    let sector = u64::from(current.sector);
    let unnamed = segment::write(dir, &new, |_| Ok(sector))?;
    let file = unnamed.name().map_err(|error| match error {
        // It has its name, whether that is durable or not.
        CreateError::Sync(error) => Failed::Begun(error),
        error => error.into(),
    })?;
    let noted = control.note_begun().map_err(Error::io("write", control.path()));
    noted.map_err(Failed::Begun)?;
    Ok((header, file))
}

fn new_log(
    dir: Directory,
    options: Options,
    lock: Box<dyn Lock>,
    control: ControlFile,
    header: Header,
    file: Arc<dyn File>,
) -> Recovered {
    Recovered {
        file_len: options.epoch_start_len(0),
        dir,
        lock,
        control,
        file,
        next_lsn: Lsn(0),
        next_seq: Seq(1),
        prev_crc: 0,
        wall_ns: header.wall_ns,
        live: vec![LiveSegment { start: LowWater::START }],
        header,
        options,
    }
}

/// Returns a nonce for a new epoch.
///
/// # Errors
/// [`Error::Io`].
pub fn random_nonce(options: &Options, dir: &Directory) -> Result<u64> {
    let mut nonce = [0; 8];
    options.io.random(&mut nonce).map_err(Error::io("get randomness for", dir.path()))?;
    Ok(u64::from_le_bytes(nonce))
}

/// Refuses a device whose physical sector is larger than the log's.
///
/// # Errors
/// [`Error::SectorTooSmall`].
pub fn check_device(dir: &Directory, options: &Options) -> Result<()> {
    match dir.handle().physical_sector() {
        Some(device) if device > options.sector => {
            Err(Error::SectorTooSmall { device, log: options.sector })
        }
        _ => Ok(()),
    }
}

fn parent(path: &Path) -> Option<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Some(Path::new(".")),
        parent => parent,
    }
}
