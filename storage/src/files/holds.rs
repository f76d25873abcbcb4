//! Holds: places in a log that purges keep, each a small durable file with a name and a quota.
//!
//! Owns the folder `holds`, and the lock that orders holds and purges. A process that takes or
//! changes a hold has that lock, and so has a purge from when it reads the holds until CONTROL
//! says durably where the log starts: a hold that was taken keeps its place from then on, also
//! where another process writes the log. A file that can't be read is never taken for none.

use std::io;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::faults;
use crate::faults::failpoints::{Failpoint, skip};
use crate::files::control;
use crate::files::dir::{CONTROL, Directory};
use crate::files::purge::Floor;
use crate::format::{Control, FormatError, HOLD_LEN, HoldRecord, LowWater};
use crate::io::{Access, FileKind, Io, Lock, read_full, write_full};
use crate::position::{Lsn, SegmentNumber};
use crate::range::Position;

/// Name of the folder in a log's directory.
pub const FOLDER: &str = "holds";
/// The most holds that a log has.
pub const MAX_HOLDS: usize = 64;
/// The longest name of a hold.
const MAX_NAME_LEN: usize = 64;
const SUFFIX: &str = ".hold";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// A place in a log that purges keep, with all that follows.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Hold {
    /// Its name.
    pub name: String,
    /// What it keeps.
    pub floor: Floor,
    /// Bytes of log that it may keep: from its position to the log's end.
    pub quota_bytes: u64,
    /// When it was taken, in ns since 1970.
    pub taken_ns: u64,
    /// When it was broken because it kept more than that, in ns since 1970. A broken hold keeps
    /// nothing.
    pub broken_ns: Option<u64>,
}

/// A file in the folder of holds.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct HoldFile {
    /// The hold's name.
    pub name: String,
    /// The hold, or what is wrong with its file.
    pub hold: Result<Hold, FormatError>,
}

/// Where a hold is taken, and what it may keep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// What it keeps.
    pub floor: Floor,
    /// Bytes of log that it may keep.
    pub quota_bytes: u64,
}

impl Floor {
    /// Returns the floor of a position, whatever segment it is in.
    #[must_use]
    pub const fn at(lsn: Lsn) -> Self {
        Self { lsn, segment: SegmentNumber::MAX }
    }

    /// Returns whether a log that starts at `low_water` has no longer all that the floor keeps.
    #[must_use]
    pub fn is_purged(&self, low_water: &LowWater) -> bool {
        self.lsn < low_water.lsn || self.segment < low_water.segment
    }
}

impl Hold {
    /// Returns the bytes that it keeps of a log that ends at `end`.
    #[must_use]
    pub fn kept_bytes(&self, end: Lsn) -> u64 {
        if self.broken_ns.is_some() { 0 } else { end.0.saturating_sub(self.floor.lsn.0) }
    }

    fn broken(&self) -> Error {
        let Self { name, floor, quota_bytes, .. } = self;
        Error::HoldBroken { name: name.clone(), lsn: floor.lsn, quota_bytes: *quota_bytes }
    }
}

/// What a purge keeps because of holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Floors {
    /// The places that stay.
    pub floors: Vec<Floor>,
    /// Holds that are broken to let the purge go on.
    pub broken: Vec<Hold>,
}

/// Reads the holds of a log, in order of their names. Takes no lock, changes nothing.
///
/// # Errors
/// [`Error::Io`].
pub fn list(dir: &Directory, control: &Control) -> Result<Vec<HoldFile>> {
    let folder = match dir.subdirectory(FOLDER) {
        Err(error) if error.is_not_found() => return Ok(Vec::new()),
        folder => folder?,
    };
    let mut holds = Vec::new();
    for entry in folder.entries()? {
        let Some(name) = entry.name.strip_suffix(SUFFIX) else { continue };
        let hold = match read_file(&folder, name, entry.kind, control) {
            // Another process released it.
            Err(error) if error.is_not_found() => continue,
            hold => hold?,
        };
        holds.push(HoldFile { name: name.to_owned(), hold });
    }
    holds.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(holds)
}

/// Returns what [`Holds::floors`] would return, and changes nothing: its broken holds are those
/// that would be broken.
///
/// # Errors
/// [`Error::HoldDamaged`], [`Error::Io`].
pub fn planned_floors(
    dir: &Directory,
    control: &Control,
    keep_from: Lsn,
    end: Lsn,
) -> Result<Floors> {
    let mut found = Floors::default();
    let mut over = Vec::new();
    for HoldFile { name, hold } in list(dir, control)? {
        let hold = match hold {
            Ok(hold) => hold,
            Err(_) if faults::holds::is_ignored() => continue,
            Err(reason) => return Err(damaged(dir, &name, reason)),
        };
        if faults::holds::is_over(hold.kept_bytes(end) > hold.quota_bytes) {
            over.push(hold);
        } else if hold.broken_ns.is_none() {
            found.floors.push(hold.floor);
        }
    }
    // Where the others stop the purge, to break one above that frees nothing.
    let lowest = found.floors.iter().map(|floor| floor.lsn).fold(keep_from, Lsn::min);
    let (broken, kept) = over.into_iter().partition(|hold| hold.floor.lsn < lowest);
    found.broken = broken;
    found.floors.extend(kept.iter().map(|hold: &Hold| hold.floor));
    Ok(found)
}

fn damaged(dir: &Directory, name: &str, reason: FormatError) -> Error {
    Error::HoldDamaged { path: dir.path_of(FOLDER).join(file_name(name)), reason }
}

fn read_file(
    folder: &Directory,
    name: &str,
    kind: FileKind,
    control: &Control,
) -> Result<Result<Hold, FormatError>> {
    if kind != FileKind::Regular || check_name(name).is_err() {
        return Ok(Err(FormatError::Field("name")));
    }
    let file_name = file_name(name);
    let file = folder.file(&file_name, Access::READ)?;
    let mut bytes = [0; HOLD_LEN + 1];
    let count = read_full(file.as_ref(), &mut bytes, 0)
        .map_err(Error::io("read", folder.path_of(&file_name)))?;
    let record = match HoldRecord::decode(bytes.get(..count).unwrap_or(&[])) {
        Ok(record) if record.log_id == control.log_id => record,
        Ok(_) => return Ok(Err(FormatError::Field("log_id"))),
        Err(reason) => return Ok(Err(reason)),
    };
    Ok(Ok(Hold {
        name: name.to_owned(),
        floor: Floor { lsn: record.lsn, segment: record.segment },
        quota_bytes: record.quota_bytes,
        taken_ns: record.taken_ns,
        broken_ns: Some(record.broken_ns).filter(|ns| *ns > 0),
    }))
}

fn file_name(name: &str) -> String {
    format!("{name}{SUFFIX}")
}

/// Returns whether a hold can have this name.
///
/// # Errors
/// [`Error::HoldName`].
pub fn check_name(name: &str) -> Result<()> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(fits) {
        Ok(())
    } else {
        Err(Error::HoldName { name: name.to_owned() })
    }
}

/// The holds of a log, locked: no other process takes one, and no purge begins, until this is
/// dropped.
#[derive(Debug)]
pub struct Holds<'a> {
    dir: &'a Directory,
    io: &'a dyn Io,
    control: Control,
    _lock: Option<Box<dyn Lock>>,
}

impl<'a> Holds<'a> {
    /// Locks the holds of a log, and reads where the log starts.
    ///
    /// # Errors
    /// [`Error::NotALog`]; [`Error::Locked`] when another process has them for longer than
    /// `timeout`; [`Error::Corrupt`], [`Error::Unsupported`], [`Error::Io`].
    pub fn lock(dir: &'a Directory, io: &'a dyn Io, timeout: Duration) -> Result<Self> {
        let lock =
            faults::holds::lock(|| dir.lock_file(io, CONTROL, timeout)).map_err(|error| {
                if error.is_not_found() {
                    Error::NotALog { path: dir.path().to_owned() }
                } else {
                    error
                }
            })?;
        let control = control::read(dir)?;
        Ok(Self { dir, io, control, _lock: lock })
    }

    /// Returns CONTROL, which no purge changes now.
    #[must_use]
    pub fn control(&self) -> &Control {
        &self.control
    }

    /// Reads the holds, in order of their names.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<HoldFile>> {
        list(self.dir, &self.control)
    }

    /// Takes a hold that has a new name. On return it is durable.
    ///
    /// # Errors
    /// [`Error::HoldExists`], [`Error::Purged`] when the log starts above its place,
    /// [`Error::HoldName`], [`Error::TooManyHolds`], [`Error::Io`].
    pub fn take(&self, name: &str, place: Place) -> Result<Hold> {
        if self.list()?.iter().any(|found| found.name == name) {
            return Err(Error::HoldExists { name: name.to_owned() });
        }
        self.replace(name, place)
    }

    /// Takes a hold, whether there is one of this name or not. On return it is durable.
    ///
    /// # Errors
    /// As [`take`](Self::take), but for [`Error::HoldExists`].
    pub fn replace(&self, name: &str, place: Place) -> Result<Hold> {
        check_name(name)?;
        let low_water = &self.control.low_water;
        if faults::holds::is_purged(place.floor.is_purged(low_water)) {
            let position = Position::Lsn { epoch: None, lsn: place.floor.lsn };
            return Err(Error::Purged { position, low_water: low_water.lsn });
        }
        let others = self.list()?.iter().filter(|found| found.name != name).count();
        if others >= MAX_HOLDS {
            return Err(Error::TooManyHolds { max: MAX_HOLDS });
        }
        let hold = Hold {
            name: name.to_owned(),
            floor: place.floor,
            quota_bytes: place.quota_bytes,
            taken_ns: self.io.wall_ns(),
            broken_ns: None,
        };
        self.put(&hold)?;
        Ok(hold)
    }

    /// Returns a hold that still keeps its place.
    ///
    /// # Errors
    /// [`Error::NoHold`], [`Error::HoldBroken`], [`Error::HoldDamaged`], [`Error::Io`].
    pub fn get(&self, name: &str) -> Result<Hold> {
        check_name(name)?;
        let found = self.list()?.into_iter().find(|found| found.name == name);
        let found = found.ok_or_else(|| Error::NoHold { name: name.to_owned() })?;
        let hold = found.hold.map_err(|reason| damaged(self.dir, name, reason))?;
        // That it was broken may not have reached the disk, when the purge did.
        let broken = hold.broken_ns.is_some() || hold.floor.is_purged(&self.control.low_water);
        if faults::holds::is_broken(broken) { Err(hold.broken()) } else { Ok(hold) }
    }

    /// Moves a hold up to `to`, or leaves it where it is above that. On return that is durable.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub fn advance(&self, name: &str, to: Floor) -> Result<Hold> {
        let mut hold = self.get(name)?;
        if (to.lsn, to.segment) > (hold.floor.lsn, hold.floor.segment) {
            hold.floor = to;
            self.put(&hold)?;
        }
        Ok(hold)
    }

    /// Removes a hold, whatever its file says. On return that is durable.
    ///
    /// # Errors
    /// [`Error::NoHold`], [`Error::HoldName`], [`Error::Io`].
    pub fn release(&self, name: &str) -> Result<()> {
        // A file whose name no hold can have stops purges, too.
        if name.is_empty() || name.contains(['/', '\0']) {
            return Err(Error::HoldName { name: name.to_owned() });
        }
        let missing = |error: Error| {
            if error.is_not_found() { Error::NoHold { name: name.to_owned() } } else { error }
        };
        let folder = self.dir.subdirectory(FOLDER).map_err(missing)?;
        let file_name = file_name(name);
        folder
            .handle()
            .unlink(&file_name)
            .map_err(|error| missing(Error::io("remove", folder.path_of(&file_name))(error)))?;
        sync_folder(&folder)
    }

    /// Returns what a purge keeps that wants to remove everything below `keep_from`, of a log that
    /// ends at `end`. Holds that are in its way and keep more than their quota are broken first,
    /// durably. The caller keeps the lock until the new start of the log is durable.
    ///
    /// # Errors
    /// [`Error::HoldDamaged`], [`Error::Io`]: then nothing may be purged.
    pub fn floors(&self, keep_from: Lsn, end: Lsn) -> Result<Floors> {
        let mut found = planned_floors(self.dir, &self.control, keep_from, end)?;
        for hold in &mut found.broken {
            hold.broken_ns = Some(self.io.wall_ns().max(1));
            self.put_in_place(hold)?;
        }
        Ok(found)
    }

    /// Writes a hold's file where it is: a purge makes room on a full disk, and must not need any.
    /// A file that a crash leaves damaged stops the next purge.
    fn put_in_place(&self, hold: &Hold) -> Result<()> {
        let folder = self.dir.subdirectory(FOLDER)?;
        let name = file_name(&hold.name);
        let file = folder.file(&name, Access::WRITE)?;
        let record = self.record(hold).encode();
        let written = write_full(file.as_ref(), &record, 0).and_then(|()| file.sync());
        written.map_err(Error::io("write", folder.path_of(&name)))
    }

    fn record(&self, hold: &Hold) -> HoldRecord {
        HoldRecord {
            log_id: self.control.log_id,
            lsn: hold.floor.lsn,
            segment: hold.floor.segment,
            quota_bytes: hold.quota_bytes,
            taken_ns: hold.taken_ns,
            broken_ns: hold.broken_ns.unwrap_or(0),
        }
    }

    /// Writes a hold's file. On return it is durable under its name.
    fn put(&self, hold: &Hold) -> Result<()> {
        // Where another user's process takes it, the log's writer must be able to read it.
        self.dir.create_as_owner()?;
        let folder = self.dir.create_subdirectory(FOLDER)?;
        // That the folder is there does not tell that its name is durable.
        if !skip(Failpoint::HoldFolderSync) {
            self.dir.sync()?;
        }
        let (name, temporary) = (file_name(&hold.name), format!("{}{TEMPORARY_SUFFIX}", hold.name));
        folder.remove(&temporary)?;
        let file = folder.create(&temporary, false)?;
        let path = folder.path_of(&temporary);
        let write = || -> io::Result<()> {
            write_full(file.as_ref(), &self.record(hold).encode(), 0)?;
            if skip(Failpoint::HoldSync) { Ok(()) } else { file.sync() }
        };
        write().map_err(Error::io("write", path))?;
        folder.rename(&temporary, &name)?;
        sync_folder(&folder)
    }
}

fn sync_folder(folder: &Directory) -> Result<()> {
    if skip(Failpoint::HoldDirSync) { Ok(()) } else { folder.sync() }
}
