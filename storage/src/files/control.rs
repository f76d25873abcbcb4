//! The CONTROL file: two slots written in turn, so that one is always intact.
//!
//! Owns which slot is the newest and when it is durable. Never decides its contents:
//! creation, recovery and purge do. Tested by the simulator's suites.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Corruption, CorruptionKind, Error, Result};
use crate::faults;
use crate::faults::failpoints::{Failpoint, skip};
use crate::files::dir::{CONTROL, Directory};
use crate::format::{CONTROL_LEN, Control, FormatError, MAX_SECTOR};
use crate::io::{Access, AlignedBuf, File, read_full, write_full};

/// The name under which CONTROL is written first.
pub(crate) const TEMPORARY: &str = "CONTROL.tmp";

/// An open CONTROL file and its newest contents.
#[derive(Debug)]
pub struct ControlFile {
    file: Arc<dyn File>,
    path: PathBuf,
    current: Control,
    /// What was wrong with the other slot when the file was opened.
    damage: Option<FormatError>,
}

/// The counter of a CONTROL file whose log has no segment yet.
pub const CREATED: u64 = 1;

/// Reads CONTROL without changing it.
///
/// # Errors
/// [`Error::Unsupported`], [`Error::Corrupt`], [`Error::Io`].
pub fn read(dir: &Directory) -> Result<Control> {
    read_in(dir, CONTROL)
}

/// Reads a copy of CONTROL, which has another name.
///
/// # Errors
/// As [`read`].
pub fn read_in(dir: &Directory, name: &str) -> Result<Control> {
    let file = dir.file(name, Access::READ)?;
    Ok(newest(file.as_ref(), &dir.path_of(name))?.0)
}

/// Reads CONTROL without changing it, and what is wrong with the slot that is damaged, if one is:
/// a crash tore it, or the disk damaged it.
///
/// # Errors
/// As [`read`].
pub fn read_both(dir: &Directory) -> Result<(Control, Option<FormatError>)> {
    let (file, path) = (dir.file(CONTROL, Access::READ)?, dir.path_of(CONTROL));
    match newest(file.as_ref(), &path)? {
        // A writer was perhaps writing it.
        (_, Some(_)) => newest(file.as_ref(), &path),
        whole => Ok(whole),
    }
}

fn newest(file: &dyn File, path: &Path) -> Result<(Control, Option<FormatError>)> {
    let mut slots = Vec::new();
    let mut damage = None;
    for counter in 0..2 {
        let mut bytes = AlignedBuf::zeroed(MAX_SECTOR as usize);
        let count = read_full(file, &mut bytes, Control::slot_offset(counter))
            .map_err(Error::io("read", path))?;
        match Control::decode(bytes.get(..count).unwrap_or(&[])) {
            Ok(control) if control.counter % 2 == counter => slots.push(control),
            Ok(_) => damage = Some(FormatError::Field("counter")),
            Err(reason @ (FormatError::Version(_) | FormatError::Features(_))) => {
                return Err(Error::Unsupported { path: path.to_owned(), reason });
            }
            Err(reason) => damage = Some(reason),
        }
    }
    let slots = faults::files::intact_slots(slots);
    let newest = slots.into_iter().max_by_key(|slot| slot.counter);
    newest.map(|newest| (newest, damage)).ok_or_else(|| {
        let kind = CorruptionKind::Control(damage.unwrap_or(FormatError::TooShort));
        Error::from(Box::new(Corruption {
            segment: None,
            offset: None,
            lsn: None,
            durable: None,
            kind,
        }))
    })
}

impl ControlFile {
    /// Creates CONTROL, durable under its name, both slots alike.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create(dir: &Directory, mut control: Control) -> Result<Self> {
        dir.remove(TEMPORARY)?;
        let file = dir.create(TEMPORARY, false)?;
        let temporary = dir.path_of(TEMPORARY);
        for counter in 0..=CREATED {
            control.counter = counter;
            write_full(file.as_ref(), &control.encode(), Control::slot_offset(counter))
                .map_err(Error::io("write", &temporary))?;
        }
        file.set_len(CONTROL_LEN).map_err(Error::io("extend", &temporary))?;
        if !skip(Failpoint::ControlCreateSync) {
            file.sync().map_err(Error::io("sync", &temporary))?;
        }
        dir.rename_new(TEMPORARY, CONTROL)?;
        if !skip(Failpoint::ControlCreateDirSync) {
            dir.sync()?;
        }
        Ok(Self { file, path: dir.path_of(CONTROL), current: control, damage: None })
    }

    /// Opens CONTROL and makes its contents durable: what is visible after a kill may not be
    /// on disk, and nothing may be built on it until it is.
    ///
    /// # Errors
    /// [`Error::Unsupported`], [`Error::Corrupt`], [`Error::Io`].
    pub fn open(dir: &Directory) -> Result<Self> {
        let path = dir.path_of(CONTROL);
        let file = dir.file(CONTROL, Access::WRITE)?;
        let (current, damage) = newest(file.as_ref(), &path)?;
        let control = Self { file, path, current, damage };
        if !skip(Failpoint::ControlRewrite) {
            control.put(&current, false).map_err(Error::io("write", &control.path))?;
        }
        Ok(control)
    }

    /// Returns the newest contents, which are durable.
    #[must_use]
    pub fn current(&self) -> &Control {
        &self.current
    }

    /// Returns what was wrong with the other slot when the file was opened.
    #[must_use]
    pub fn damage(&self) -> Option<FormatError> {
        self.damage
    }

    /// Writes new contents into the other slot; on return they are durable.
    ///
    /// `failpoint` names the sync, so that a test build can skip it.
    ///
    /// # Errors
    /// The system's. Then it is unknown which contents a recovery will find: both are
    /// intact, but nothing may be built on the new ones.
    pub fn store(&mut self, control: Control, failpoint: Failpoint) -> std::io::Result<()> {
        let counter = self.current.counter + 1;
        let next = faults::files::next_contents(Control { counter, ..control });
        self.put(&next, skip(failpoint))?;
        self.current = next;
        Ok(())
    }

    /// Notes that the log has its first segment, without waiting for the disk: so that a log
    /// that lost all its segments is not taken for one that never had any.
    ///
    /// # Errors
    /// The system's.
    pub fn note_begun(&mut self) -> std::io::Result<()> {
        let next = Control { counter: self.current.counter + 1, ..self.current };
        self.put(&next, true)?;
        self.current = next;
        Ok(())
    }

    /// Returns the file's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn put(&self, control: &Control, leave_sync_out: bool) -> std::io::Result<()> {
        write_full(self.file.as_ref(), &control.encode(), Control::slot_offset(control.counter))?;
        if leave_sync_out { Ok(()) } else { self.file.sync() }
    }
}
