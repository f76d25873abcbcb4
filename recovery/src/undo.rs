//! The undo of a repair: sets aside what the repair will change, and brings it back byte for byte.
//!
//! Owns what a repair notes of itself, the check that nothing was written since, and the order of
//! the undo's writes. It first writes everything under temporary names, which is all the space that
//! it needs. Then it removes CONTROL: without it nothing opens the log, and nothing writes to it.
//! CONTROL is put back last; that rename is the commit point. An undo that was cut short can be
//! run again from any step. Tested by `tests/src/undos.rs`.

use std::path::{Path, PathBuf};

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::control;
use bulla_storage::files::dir::{
    CHECKPOINTS, CONTROL, Directory, LOCK, QUARANTINE, SegmentFile, segment_name,
    segment_temporary_name,
};
use bulla_storage::files::holds;
use bulla_storage::format::{
    Control, Fate, Frame, Header, MAX_REPAIR_LEN, MAX_SECTOR, RepairRecord, RepairedSegment,
    all_zero,
};
use bulla_storage::frames::read_buffer::ReadBuffer;
use bulla_storage::io::{FileKind, write_full};
use bulla_storage::{Epoch, Error, Lsn, Options, Result, SegmentNumber};

use crate::analysis::Analysis;
use crate::error::{RepairError, UndoRefused};
use crate::log_dir::{LogDir, open_dir};
use crate::quarantine::{Quarantine, copy_bytes};
use crate::tail_rewrite::Tail;

const CONTROL_TEMPORARY: &str = "CONTROL.tmp";
/// The end of the name of what a repair notes of itself.
const NOTE: &str = ".undo";
/// A segment that the undo reads is read in parts of this many bytes.
const CHUNK: u64 = 1024 * 1024;

/// What an undo does, or would do.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct UndoReport {
    /// The epoch that the repair began, which ends.
    pub epoch: Epoch,
    /// Where the repair had cut the log.
    pub cut_at: Lsn,
    /// Segments that it brings back as they were before the repair.
    pub restored: Vec<SegmentNumber>,
    /// Segments that were made by the repair or since, without an entry of their own: it removes
    /// them.
    pub removed: Vec<SegmentNumber>,
}

fn stem(before: Epoch) -> String {
    format!("repair-{before}")
}

fn control_copy(stem: &str) -> String {
    format!("{stem}-{CONTROL}")
}

fn segment_copy(stem: &str, number: SegmentNumber) -> String {
    format!("{stem}-{number}.seg")
}

/// Copies every file that a repair will change or remove, and notes what it will do: it shortens
/// the segments in `cut` to a length, and removes or replaces those in `unread`. On return both are
/// durable.
pub(crate) fn set_aside(
    log: &LogDir,
    analysis: &Analysis,
    tail: Tail,
    cut: &[(SegmentNumber, u64)],
    unread: &[SegmentFile],
) -> Result<Vec<PathBuf>> {
    let stem = stem(analysis.control.epoch);
    let note_name = format!("{stem}{NOTE}");
    // First, so that a folder that can't be read fails the repair before it copied anything.
    let folders_crc = folders_crc(&log.dir)?;
    let mut quarantine = Quarantine::new(log);
    // That of a repair which was cut short, or undone, before it did anything.
    quarantine.folder()?.remove(&note_name)?;
    let (control_len, control_crc) = quarantine.keep_file(CONTROL, &control_copy(&stem))?;
    let mut segments = Vec::new();
    for segment in &analysis.plan.segments {
        let (number, from_len) = (segment.number, segment.file_len);
        let fate = match cut.iter().find(|(cut, _)| *cut == number) {
            Some((_, to_len)) => {
                let crc = quarantine.keep_file(&segment_name(number), &segment_copy(&stem, number));
                Fate::Cut { to_len: *to_len, crc: crc?.1 }
            }
            None => Fate::Left,
        };
        segments.push(RepairedSegment { number, from_len, fate });
    }
    for file in unread.iter().filter(|file| file.kind == FileKind::Regular) {
        let number = file.number;
        let kept = quarantine.keep_file(&segment_name(number), &segment_copy(&stem, number))?;
        let (from_len, fate) = (kept.0, Fate::Gone { crc: kept.1 });
        segments.push(RepairedSegment { number, from_len, fate });
    }
    let note = RepairRecord {
        log_id: analysis.control.log_id,
        epoch: Epoch(analysis.control.epoch.0.saturating_add(1)),
        cut_at: tail.end.lsn,
        next_seq: tail.end.seq,
        control_len,
        control_crc,
        folders_crc,
        segments,
    };
    let folder = quarantine.folder()?;
    let copies = quarantine.finish()?;
    write_note(&folder, &note_name, &note)?;
    Ok(copies)
}

fn write_note(folder: &Directory, name: &str, note: &RepairRecord) -> Result<()> {
    let temporary = format!("{name}.tmp");
    folder.remove(&temporary)?;
    let file = folder.create(&temporary, false)?;
    let path = folder.path_of(&temporary);
    write_full(file.as_ref(), &note.encode(), 0).map_err(Error::io("write", &path))?;
    if !skip(Failpoint::RepairNoteSync) {
        file.sync().map_err(Error::io("sync", &path))?;
    }
    folder.rename(&temporary, name)?;
    if skip(Failpoint::RepairNoteDirSync) { Ok(()) } else { folder.sync() }
}

/// Returns a CRC of the names and lengths of the log's checkpoints and holds. Others' folders, which
/// the log's user may not be able to open, and what only reserves space, are not part of it.
fn folders_crc(dir: &Directory) -> Result<u32> {
    let mut lines = Vec::new();
    for folder in dir.entries()?.into_iter().filter(|entry| entry.kind == FileKind::Directory) {
        let suffix = match folder.name.as_str() {
            CHECKPOINTS => ".ckpt",
            holds::FOLDER => ".hold",
            _ => continue,
        };
        for file in dir.subdirectory(&folder.name)?.entries()? {
            if file.kind == FileKind::Regular && file.name.ends_with(suffix) {
                lines.push(format!("{}/{} {}\n", folder.name, file.name, file.len));
            }
        }
    }
    lines.sort_unstable();
    Ok(crc32fast::hash(lines.concat().as_bytes()))
}

/// Returns what [`undo_repair`] would do. Takes no lock, changes nothing.
///
/// # Errors
/// Those of [`undo_repair`].
pub fn preview_undo(path: &Path, options: &Options) -> Result<UndoReport, RepairError> {
    let dir = open_dir(path, options)?;
    Undo::read(&dir)?.check()
}

/// Undoes the last [`repair`](crate::repair): the log is as it was before, byte for byte, and what
/// the repair had set aside is no longer in `quarantine/`.
///
/// On return that is durable. If the undo is cut short, the log can't be opened until it was run
/// again, from whatever step. It needs as much space as the files that it brings back; when there
/// is less, nothing is changed.
///
/// # Errors
/// [`Undo`](RepairError::Undo) when there is nothing to undo, or when an undo would lose what was
/// written since: nothing was changed. [`Locked`](Error::Locked), [`Linked`](Error::Linked) and
/// [`Io`](Error::Io), as [`repair`](crate::repair).
pub fn undo_repair(path: &Path, options: &Options) -> Result<UndoReport, RepairError> {
    let dir = open_dir(path, options)?;
    // A directory without a repair gets no lock file.
    Undo::read(&dir)?;
    let has_control = dir.has(CONTROL)?;
    let owned = if has_control { CONTROL } else { LOCK };
    if has_control || dir.has(LOCK)? {
        dir.handle()
            .create_as(owned)
            .map_err(Error::io("create files for the owner of", dir.path_of(owned)))?;
    }
    let _lock = dir.lock_for(options)?;
    if let Some(name) = dir.list()?.linked {
        return Err(Error::Linked { path: dir.path_of(&name) }.into());
    }
    let undo = Undo::read(&dir)?;
    let report = undo.check()?;
    if let Err(error) = undo.prepare() {
        undo.remove_temporaries()?;
        return Err(error);
    }
    undo.put_back(&report)?;
    undo.remove_copies()?;
    Ok(report)
}

/// A repair that may be undone.
struct Undo<'a> {
    dir: &'a Directory,
    folder: Directory,
    stem: String,
    note: RepairRecord,
    /// CONTROL as it was before the repair.
    control: Control,
}

impl<'a> Undo<'a> {
    /// Reads what the last repair noted.
    fn read(dir: &'a Directory) -> Result<Self, RepairError> {
        let none = || UndoRefused::NoRepair(dir.path_of(QUARANTINE));
        let folder = match dir.subdirectory(QUARANTINE) {
            Err(error) if error.is_not_found() => return Err(none().into()),
            folder => folder?,
        };
        let epochs = folder.entries()?.into_iter().filter_map(|entry| {
            let epoch = entry.name.strip_suffix(NOTE)?.strip_prefix("repair-")?;
            epoch.parse().ok().map(Epoch)
        });
        let stem = stem(epochs.max().ok_or_else(none)?);
        let name = format!("{stem}{NOTE}");
        let refuse = || UndoRefused::Copy(folder.path_of(&name));
        let bytes = read_file(&folder, &name, MAX_REPAIR_LEN)?.ok_or_else(refuse)?;
        let note = RepairRecord::decode(&bytes).map_err(|_| refuse())?;
        let copy = control_copy(&stem);
        let refuse = || UndoRefused::Copy(folder.path_of(&copy));
        let bytes = read_file(&folder, &copy, note.control_len)?.ok_or_else(refuse)?;
        if (bytes.len() as u64, crc32fast::hash(&bytes)) != (note.control_len, note.control_crc) {
            return Err(refuse().into());
        }
        let control = control::read_in(&folder, &copy).map_err(|_| refuse())?;
        let undo = Self { dir, folder, stem, note, control };
        // A log that a restore or a copy put here would be another one.
        match control::read(dir) {
            Ok(now) if now.log_id != undo.note.log_id => Err(none().into()),
            Ok(_) | Err(Error::Corrupt(_)) => Ok(undo),
            Err(error) if error.is_not_found() => Ok(undo),
            Err(error) => Err(error.into()),
        }
    }

    fn copied(&self) -> impl Iterator<Item = (&RepairedSegment, u32)> {
        self.note.segments.iter().filter_map(|segment| match segment.fate {
            Fate::Left => None,
            Fate::Cut { crc, .. } | Fate::Gone { crc } => Some((segment, crc)),
        })
    }

    /// Checks that the undo loses nothing, and returns what it does.
    fn check(&self) -> Result<UndoReport, RepairError> {
        for (segment, crc) in self.copied() {
            let name = segment_copy(&self.stem, segment.number);
            if self.crc_of(&self.folder, &name)? != Some((segment.from_len, crc)) {
                return Err(UndoRefused::Copy(self.folder.path_of(&name)).into());
            }
        }
        if folders_crc(self.dir)? != self.note.folders_crc {
            return Err(UndoRefused::Folders(self.dir.path().to_owned()).into());
        }
        let changed = |number| UndoRefused::Changed(self.dir.path_of(&segment_name(number)));
        let listing = self.dir.list()?.segments;
        let mut removed = Vec::new();
        for segment in &self.note.segments {
            let file = listing.iter().find(|file| file.number == segment.number);
            let len = file.map(|file| file.len);
            let is_as_left = match segment.fate {
                Fate::Left => len == Some(segment.from_len),
                Fate::Cut { to_len, .. } => len == Some(to_len),
                Fate::Gone { .. } => len.is_none(),
            };
            if is_as_left || self.is_as_before(segment)? {
                continue;
            }
            match (segment.fate, file) {
                (Fate::Gone { .. }, Some(file)) => self.check_made_since(file)?,
                _ => return Err(changed(segment.number).into()),
            }
        }
        let first = self.control.low_water.segment;
        let is_noted = |number| self.note.segments.iter().any(|segment| segment.number == number);
        for file in listing.iter().filter(|file| file.number >= first && !is_noted(file.number)) {
            self.check_made_since(file)?;
            removed.push(file.number);
        }
        Ok(UndoReport {
            epoch: self.note.epoch,
            cut_at: self.note.cut_at,
            restored: self.copied().map(|(segment, _)| segment.number).collect(),
            removed,
        })
    }

    /// Returns whether a segment is as it was before the repair, which was cut short, or whose undo
    /// was.
    fn is_as_before(&self, segment: &RepairedSegment) -> Result<bool> {
        let (Fate::Cut { crc, .. } | Fate::Gone { crc }) = segment.fate else { return Ok(false) };
        let name = segment_name(segment.number);
        Ok(self.crc_of(self.dir, &name)? == Some((segment.from_len, crc)))
    }

    /// Returns the length and CRC of a file, if it is there.
    fn crc_of(&self, dir: &Directory, name: &str) -> Result<Option<(u64, u32)>> {
        let mut read_buffer = match ReadBuffer::open(dir, name, false) {
            Err(error) if error.is_not_found() => return Ok(None),
            opened => opened?,
        };
        let (mut crc, mut at) = (crc32fast::Hasher::new(), 0);
        loop {
            let bytes = read_buffer.bytes(at, CHUNK)?;
            if bytes.is_empty() {
                return Ok(Some((at, crc.finalize())));
            }
            crc.update(bytes);
            at += bytes.len() as u64;
        }
    }

    /// Checks that a segment which the repair made, or an open since, has no entry that is not in
    /// the copies: nothing but whole frames without one, and zeros.
    fn check_made_since(&self, file: &SegmentFile) -> Result<(), RepairError> {
        let name = segment_name(file.number);
        let changed = || UndoRefused::Changed(self.dir.path_of(&name));
        if file.kind != FileKind::Regular {
            return Err(changed().into());
        }
        let mut read_buffer = ReadBuffer::open(self.dir, &name, false)?;
        let header = Header::decode(read_buffer.bytes(0, u64::from(MAX_SECTOR))?);
        let header = header.map_err(|_| changed())?;
        let control = &self.control;
        let is_ours = (header.log_id, header.number, header.sector)
            == (control.log_id, file.number, control.sector);
        if !is_ours || header.epoch < self.note.epoch {
            return Err(changed().into());
        }
        let (seed, sector) = (header.seed(), u64::from(header.sector));
        let mut offset = sector;
        while offset < file.len {
            let bytes = read_buffer.bytes(offset, sector)?;
            if bytes.is_empty() {
                break;
            }
            if all_zero(bytes) {
                offset += sector;
                continue;
            }
            let Ok((frame, _)) = Frame::decode(bytes, seed, header.epoch, header.sector) else {
                return Err(changed().into());
            };
            if frame.entry_count > 0 && frame.next_seq() > self.note.next_seq {
                let path = self.dir.path_of(&name);
                let first = frame.first_seq.max(self.note.next_seq);
                return Err(UndoRefused::Written { path, first }.into());
            }
            offset += frame.disk_len(header.sector);
        }
        Ok(())
    }

    /// Writes everything that comes back under temporary names.
    fn prepare(&self) -> Result<(), RepairError> {
        for (segment, crc) in self.copied() {
            let (number, noted) = (segment.number, (segment.from_len, crc));
            self.copy(&segment_copy(&self.stem, number), &segment_temporary_name(number), noted)?;
        }
        let noted = (self.note.control_len, self.note.control_crc);
        self.copy(&control_copy(&self.stem), CONTROL_TEMPORARY, noted)
    }

    /// Copies a file that the repair set aside, whose length and CRC it noted. [`check`](Self::check)
    /// compared another read of it; the copy is removed when it has served, so it must be this one.
    fn copy(&self, from: &str, to: &str, noted: (u64, u32)) -> Result<(), RepairError> {
        let mut read_buffer = ReadBuffer::open(&self.folder, from, false)?;
        let len = read_buffer.len();
        self.dir.remove(to)?;
        let file = self.dir.create(to, false)?;
        let path = self.dir.path_of(to);
        if copy_bytes(&mut read_buffer, 0..len, file.as_ref(), &path)? != noted {
            return Err(UndoRefused::Copy(self.folder.path_of(from)).into());
        }
        if !skip(Failpoint::UndoCopySync) {
            file.sync().map_err(Error::io("sync", path))?;
        }
        Ok(())
    }

    fn remove_temporaries(&self) -> Result<()> {
        self.dir.remove(CONTROL_TEMPORARY)?;
        self.copied()
            .try_for_each(|(segment, _)| self.dir.remove(&segment_temporary_name(segment.number)))
    }

    /// Puts the files in their places, CONTROL last.
    fn put_back(&self, report: &UndoReport) -> Result<()> {
        self.dir.remove(CONTROL)?;
        // Before anything else changes, nothing can open the log any more.
        if !skip(Failpoint::UndoBeginDirSync) {
            self.dir.sync()?;
        }
        for (segment, _) in self.copied() {
            let number = segment.number;
            self.dir.rename(&segment_temporary_name(number), &segment_name(number))?;
        }
        for number in &report.removed {
            self.dir.remove(&segment_name(*number))?;
        }
        if !skip(Failpoint::UndoDirSync) {
            self.dir.sync()?;
        }
        self.dir.rename(CONTROL_TEMPORARY, CONTROL)?;
        if skip(Failpoint::UndoEndDirSync) { Ok(()) } else { self.dir.sync() }
    }

    /// Removes what the repair had set aside, now that it is back.
    fn remove_copies(&self) -> Result<()> {
        // Without it, the rest means nothing.
        self.folder.remove(&format!("{}{NOTE}", self.stem))?;
        self.folder.sync()?;
        for (segment, _) in self.copied() {
            self.folder.remove(&segment_copy(&self.stem, segment.number))?;
        }
        self.folder.remove(&control_copy(&self.stem))
    }
}

/// Reads a whole file of at most `max` bytes. `None` where there is none, or a longer one.
fn read_file(dir: &Directory, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
    let mut read_buffer = match ReadBuffer::open(dir, name, false) {
        Err(error) if error.is_not_found() => return Ok(None),
        opened => opened?,
    };
    let len = read_buffer.len();
    if len > max {
        return Ok(None);
    }
    Ok(Some(read_buffer.bytes(0, len)?.to_vec()))
}
