//! A backup from its hold to its manifest: the order of its steps.
//!
//! Owns that order. The hold comes first, so that nothing that is copied can be purged; the
//! manifest comes last, once everything else is durable and was read back. A backup that ends
//! before leaves a folder without a manifest, in which the next one begins anew. Tested by
//! `tests/tests/backups.rs`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::dir::{CHECKPOINTS, Directory};
use bulla_storage::files::holds::{Hold, Holds, Place};
use bulla_storage::files::purge::Floor;
use bulla_storage::format::{
    BackedUpCheckpoint, BackedUpSegment, BackupId, BaseBackup, Control, LogId, Manifest,
};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::{File, Io};
use bulla_storage::progress::{Meter, Phase};
use bulla_storage::{Error, Lsn, Options, Position, Result, Seq};

use super::copy::{self, Expected};
use super::error::BackupError;
use super::folder::{
    BackupChain, SEGMENTS, check_unfinished, checkpoint_name, empty_folder, part_name,
    path_to_base, publish,
};
use super::source::{Source, SourceSegment};
use crate::faults;

/// How much a log may grow during a backup before the backup's hold is broken, by default.
const USUAL_QUOTA: u64 = 16 * 1024 * 1024 * 1024;
/// Attempts to copy a log that a program opens meanwhile.
const MAX_ATTEMPTS: u32 = 3;

/// How a log is backed up.
#[derive(Clone, Debug)]
pub struct BackupOptions {
    log: Options,
    since: Option<PathBuf>,
    hold: Option<String>,
    quota_bytes: u64,
}

impl Default for BackupOptions {
    fn default() -> Self {
        Self { log: Options::new(), since: None, hold: None, quota_bytes: USUAL_QUOTA }
    }
}

impl BackupOptions {
    /// Returns the defaults: a full backup.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how the log is read, and who is told of the progress.
    #[must_use]
    pub fn log(mut self, log: Options) -> Self {
        self.log = log;
        self
    }

    /// Copies only what is not in another backup of the log.
    #[must_use]
    pub fn since(mut self, backup: impl Into<PathBuf>) -> Self {
        self.since = Some(backup.into());
        self
    }

    /// Keeps the hold after the backup, under this name and at its end, so that the next backup
    /// finds everything that comes after. A hold of this name is taken over; a backup that fails
    /// puts it back where it was.
    #[must_use]
    pub fn keep_hold(mut self, name: impl Into<String>) -> Self {
        self.hold = Some(name.into());
        self
    }

    /// Sets how many bytes the log may grow before the backup's hold is broken (default: 16 GiB).
    #[must_use]
    pub fn quota_bytes(mut self, quota_bytes: u64) -> Self {
        self.quota_bytes = quota_bytes;
        self
    }
}

/// A checkpoint that can be copied into a backup of its store's log.
pub struct CheckpointCopy {
    /// Its number.
    pub number: u64,
    /// Its file, open: it can be read even after the store has removed it.
    pub file: Arc<dyn File>,
    /// Bytes of the file.
    pub len: u64,
    /// The place in the log that it belongs to.
    pub anchor: Anchor,
    /// Reads all of it, and returns whether it is intact.
    pub is_whole: Box<dyn Fn() -> bool>,
}

impl fmt::Debug for CheckpointCopy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CheckpointCopy").field("number", &self.number).finish_non_exhaustive()
    }
}

/// What a backup holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackupReport {
    /// Which backup it is.
    pub id: BackupId,
    /// The backup on which it builds.
    pub base: Option<BackupId>,
    /// Which log it is of.
    pub log_id: LogId,
    /// Where the log started.
    pub first_lsn: Lsn,
    /// Where what was copied ends. It has everything below, and what it builds on.
    pub end_lsn: Lsn,
    /// The number of the first entry at or after that.
    pub next_seq: Seq,
    /// Segments of the log.
    pub segments: u64,
    /// Segments of which something was copied.
    pub copied_segments: u64,
    /// Bytes that were copied.
    pub copied_bytes: u64,
    /// The checkpoint of a store.
    pub checkpoint: Option<u64>,
    /// The hold that was kept.
    pub hold: Option<String>,
}

/// Copies the log in `dir`, which a program may have open, to `dest`: a directory that is made, or
/// is empty, or holds a backup that did not end. `checkpoints` returns those of a store, the newest
/// first; of them the first that fits the log and is whole is copied.
///
/// On return the backup is durable and was read back. It has everything that was acknowledged
/// before the call at Balanced and Strict, and of Relaxed what had been written.
///
/// # Errors
/// [`BackupError`]. Then `dest` holds no backup, and the next call begins anew. With
/// [`BackupError::Exists`] and [`BackupError::Hold`] it holds a whole one.
pub fn backup(
    dir: &Path,
    dest: &Path,
    options: &BackupOptions,
    checkpoints: impl FnOnce(&Directory) -> Result<Vec<CheckpointCopy>>,
) -> Result<BackupReport, BackupError> {
    let io = options.log.io.as_ref();
    let source_dir = Directory::of_log(io, dir)?;
    let base = options.since.as_ref().map(|path| BackupChain::open_base(io, path)).transpose()?;
    let dest_dir = open_dest(io, dest)?;
    let _lock = dest_dir.lock(io, Duration::ZERO)?;
    if let Err(error) = check_unfinished(&dest_dir) {
        if matches!(error, BackupError::Exists { .. }) && options.hold.is_none() {
            // The backup that ended there may have been killed before it released its hold.
            let holds = Holds::lock(&source_dir, io, options.log.lock_timeout)?;
            let _ = holds.release(&usual_name(dest));
        }
        return Err(error);
    }
    let hold = Held::take(&source_dir, dest, options, base.as_ref())?;
    let taken = Taker {
        options,
        source_dir: &source_dir,
        dest: (dest, &dest_dir),
        base: base.as_ref(),
        checkpoints: checkpoints(&source_dir)?,
        begun_ns: io.wall_ns(),
    }
    .run();
    match taken {
        Ok((report, end)) => {
            let kept = hold.keep_or_release(end);
            let kept = kept.map_err(|error| BackupError::Hold {
                path: dest.to_owned(),
                error: Box::new(error),
            })?;
            Ok(BackupReport { hold: kept, ..report })
        }
        // What was missing may have been purged, if the hold was broken.
        Err(error) => Err(hold.error().unwrap_or(error)),
    }
}

fn open_dest(io: &dyn Io, dest: &Path) -> Result<Directory> {
    io.create_dir(dest).map_err(Error::io("create", dest))?;
    let dir = Directory::open(io, dest)?;
    if let Some(parent) = dest.parent().filter(|_| !skip(Failpoint::BackupFolderSync)) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Directory::open(io, parent)?.sync()?;
    }
    Ok(dir)
}

/// The hold of a backup. When it is dropped, it is released, or put back where it was before.
struct Held<'a> {
    dir: &'a Directory,
    options: &'a BackupOptions,
    name: String,
    /// The hold of that name that was taken over.
    before: Option<Hold>,
    is_kept: bool,
}

impl<'a> Held<'a> {
    fn take(
        dir: &'a Directory,
        dest: &Path,
        options: &'a BackupOptions,
        base: Option<&BackupChain>,
    ) -> Result<Self, BackupError> {
        // The same one for the same folder: a backup that was killed leaves its hold to the next.
        let name = options.hold.clone().unwrap_or_else(|| usual_name(dest));
        let mut held = Self { dir, options, name, before: None, is_kept: true };
        let holds = held.lock()?;
        let control = *holds.control();
        if options.hold.is_some() {
            held.before = holds.get(&held.name).ok();
        }
        if let Some(base) = base.and_then(BackupChain::newest) {
            if base.log_id != control.log_id {
                return Err(BackupError::OtherLog { backup: base.log_id, log: control.log_id });
            }
            // Its owner must know if the hold of the backup before did not hold.
            match holds.get(&held.name) {
                Err(error @ Error::HoldBroken { .. }) if options.hold.is_some() => {
                    return Err(error.into());
                }
                _ => {}
            }
            if Floor::at(base.end_lsn).is_purged(&control.low_water) {
                let position = Position::Lsn { epoch: None, lsn: base.end_lsn };
                let low_water = control.low_water.lsn;
                return Err(Error::Purged { position, low_water }.into());
            }
        }
        // All of the log, also where the base has a part of it: the scan must find what CONTROL says.
        let Control { low_water, .. } = control;
        let floor = Floor { lsn: low_water.lsn, segment: low_water.segment };
        // Where the log ends is not known yet: not beyond its files.
        let files = dir.list()?.segments.into_iter();
        let files = files.filter(|file| file.number >= control.low_water.segment);
        let len = files.map(|file| file.len).fold(0, u64::saturating_add);
        let quota_bytes = options.quota_bytes.saturating_add(len);
        if !faults::backup::takes_no_hold() {
            holds.replace(&held.name, Place { floor, quota_bytes })?;
        }
        drop(holds);
        held.is_kept = false;
        Ok(held)
    }

    fn lock(&self) -> Result<Holds<'a>> {
        let options = &self.options.log;
        Holds::lock(self.dir, options.io.as_ref(), options.lock_timeout)
    }

    /// Returns why it no longer holds, if it does not.
    fn error(&self) -> Option<BackupError> {
        let found = self.lock().and_then(|holds| holds.get(&self.name));
        found.err().filter(|error| matches!(error, Error::HoldBroken { .. })).map(Into::into)
    }

    /// Ends the hold, or moves it to the end of the backup if it is to stay; returns its name then.
    fn keep_or_release(mut self, end: Floor) -> Result<Option<String>> {
        self.is_kept = true;
        let holds = self.lock()?;
        if self.options.hold.is_none() {
            return match holds.release(&self.name) {
                // A purge has broken it meanwhile, and somebody released it.
                Ok(()) | Err(Error::NoHold { .. }) => Ok(None),
                Err(error) => Err(error),
            };
        }
        let place = Place { floor: end, quota_bytes: self.options.quota_bytes };
        holds.replace(&self.name, place)?;
        Ok(Some(self.name.clone()))
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        // Where that fails, the next backup takes it over: until then it keeps more than it must.
        let _ = self.lock().and_then(|holds| match &self.before {
            // It is what the backup before left, or what somebody took for the first one.
            Some(Hold { floor, quota_bytes, .. }) => {
                let place = Place { floor: *floor, quota_bytes: *quota_bytes };
                holds.replace(&self.name, place).map(drop)
            }
            None => holds.release(&self.name),
        });
    }
}

fn usual_name(dest: &Path) -> String {
    let dest = std::path::absolute(dest).unwrap_or_else(|_| dest.to_owned());
    format!("backup-{:08x}", crc32fast::hash(dest.as_os_str().as_encoded_bytes()))
}

/// What is copied, and where.
struct Taker<'a> {
    options: &'a BackupOptions,
    source_dir: &'a Directory,
    dest: (&'a Path, &'a Directory),
    base: Option<&'a BackupChain>,
    checkpoints: Vec<CheckpointCopy>,
    begun_ns: u64,
}

impl Taker<'_> {
    /// Returns what the backup holds, and what of the log the next one needs.
    fn run(&self) -> Result<(BackupReport, Floor), BackupError> {
        let mut attempts = 1;
        loop {
            let source = Source::read(self.source_dir, &self.options.log)?;
            match self.copy(&source) {
                // A program has opened the log, and moved what no durable mark covered.
                Err(BackupError::Log(error))
                    if attempts < MAX_ATTEMPTS
                        && source.end.lsn > source.analysis.chain.durable_end
                        && (error.is_not_found() || error.corruption().is_some()) =>
                {
                    attempts += 1;
                }
                copied => return copied,
            }
        }
    }

    fn copy(&self, source: &Source) -> Result<(BackupReport, Floor), BackupError> {
        let io = self.options.log.io.as_ref();
        let dest = self.dest.1;
        if let Some(base) = self.base.and_then(BackupChain::newest) {
            source.check_continues(base.end_epoch, base.end_lsn)?;
        }
        let segments = source.segments();
        let starts = self.starts(&segments)?;
        self.check_joins(source, &segments)?;
        let checkpoint = self.checkpoint(source, &segments)?;
        let of_base = checkpoint.and_then(|copy| self.checkpoint_in_base(copy));
        let total = segments.iter().zip(&starts).map(|(segment, from)| segment.len - from);
        let of_checkpoint = checkpoint.filter(|_| of_base.is_none()).map_or(0, |copy| copy.len);
        let total = total.sum::<u64>().saturating_add(of_checkpoint);

        let meter = Meter::new(self.options.log.on_progress.as_ref(), Phase::Copy, total);
        let folder = empty_folder(dest, SEGMENTS)?;
        let mut parts: Vec<BackedUpSegment> = Vec::new();
        for (segment, from) in segments.iter().zip(starts) {
            parts.push(copy::segment(&source.log, segment, from, &folder, &meter)?);
        }
        let checkpoints_folder = empty_folder(dest, CHECKPOINTS)?;
        let checkpoint = match (checkpoint, of_base) {
            (Some(_), Some(part)) => Some(BackedUpCheckpoint { is_here: false, ..part }),
            (Some(copy), None) => {
                let name = checkpoint_name(copy.number);
                let path = self.source_dir.path_of(CHECKPOINTS).join(&name);
                let (from, to) = ((&*copy.file, &*path), (&checkpoints_folder, &*name));
                let crc = copy::file(from, copy.len, to, Failpoint::BackupPartSync, &meter)?;
                let CheckpointCopy { number, len, anchor, .. } = *copy;
                Some(BackedUpCheckpoint { number, len, upto: anchor.upto, crc, is_here: true })
            }
            (None, _) => None,
        };
        if !skip(Failpoint::BackupFolderSync) {
            folder.sync()?;
            checkpoints_folder.sync()?;
            dest.sync()?;
        }
        let mut id = [0; 16];
        io.random(&mut id).map_err(Error::io("get randomness for", self.dest.0))?;
        let control = source.analysis.control;
        let manifest = Manifest {
            id: BackupId(id),
            log_id: control.log_id,
            base: self.base_backup(),
            sector: control.sector,
            epoch: control.epoch,
            nonce: control.nonce,
            low_water: source.low_water(),
            content: control.content,
            end_lsn: source.end.lsn,
            end_seq: source.end.seq,
            end_epoch: source.end_epoch(),
            wall_ns: self.begun_ns,
            segments: parts,
            checkpoints: checkpoint.into_iter().collect(),
        };
        self.verify(&manifest, &folder, &checkpoints_folder, total)?;
        publish(dest, &manifest)?;
        let last = manifest.segments.last().map(|part| part.number);
        let segment = last.unwrap_or(manifest.low_water.segment);
        Ok((report(&manifest, total), Floor { lsn: manifest.end_lsn, segment }))
    }

    /// Returns the offset from which on each segment is copied: the base has what comes before.
    fn starts(&self, segments: &[SourceSegment<'_>]) -> Result<Vec<u64>, BackupError> {
        let Some((base, manifest)) = self.base.zip(self.base.and_then(BackupChain::newest)) else {
            return Ok(vec![0; segments.len()]);
        };
        let (in_base, end) = (base.segments()?, manifest.end_lsn);
        let start = |segment: &SourceSegment<'_>| {
            let last = in_base.get(&segment.header.number).and_then(|pieces| pieces.last());
            match last.map(|last| last.part) {
                None => Ok(0),
                Some(part) if part.nonce == segment.header.nonce => Ok(part.len.min(segment.len)),
                Some(_) => Err(BackupError::NotContinued { end }),
            }
        };
        segments.iter().map(start).collect()
    }

    /// Checks that the segments follow those of the base without a gap, also where its hold was
    /// broken or released.
    fn check_joins(
        &self,
        source: &Source,
        segments: &[SourceSegment<'_>],
    ) -> Result<(), BackupError> {
        let Some((base, manifest)) = self.base.zip(self.base.and_then(BackupChain::newest)) else {
            return Ok(());
        };
        let (low_water, end) = (source.low_water(), manifest.end_lsn);
        let in_base = base.segments()?;
        let last = in_base.last_key_value();
        let next = last.map_or(manifest.low_water.segment, |(number, _)| number.next());
        if low_water.lsn > end || low_water.segment > next {
            let position = Position::Lsn { epoch: None, lsn: end };
            return Err(Error::Purged { position, low_water: low_water.lsn }.into());
        }
        let Some((number, pieces)) = last else { return Ok(()) };
        let nonce = pieces.last().map(|piece| piece.part.nonce);
        // Of the segments that both have, the nonces were compared.
        let joins = segments.iter().any(|segment| segment.header.number == *number)
            || segments.first().is_some_and(|first| {
                first.header.number == next && Some(first.header.previous_nonce) == nonce
            });
        if joins { Ok(()) } else { Err(BackupError::NotContinued { end }) }
    }

    fn checkpoint(
        &self,
        source: &Source,
        segments: &[SourceSegment<'_>],
    ) -> Result<Option<&CheckpointCopy>, BackupError> {
        for copy in &self.checkpoints {
            // A program that has written nothing yet may have taken it in a segment that is not
            // copied.
            let anchor = copy.anchor.segment.segment;
            let fits = copy.anchor.upto <= source.end.lsn
                && segments.last().is_some_and(|last| anchor <= last.header.number);
            if fits && source.analysis.holds(&source.log, &copy.anchor)? && (copy.is_whole)() {
                return Ok(Some(copy));
            }
        }
        let low_water = source.low_water();
        let is_store = source.analysis.control.content.is_of_store();
        if low_water.seq > Seq(1) && (is_store || !self.checkpoints.is_empty()) {
            return Err(BackupError::NoCheckpoint { first: low_water.lsn });
        }
        Ok(None)
    }

    fn checkpoint_in_base(&self, copy: &CheckpointCopy) -> Option<BackedUpCheckpoint> {
        let mut backups = self.base?.0.iter();
        let same = |part: &&BackedUpCheckpoint| {
            part.number == copy.number && part.len == copy.len && part.upto == copy.anchor.upto
        };
        backups.find_map(|backup| backup.manifest.checkpoints.iter().find(same).copied())
    }

    fn base_backup(&self) -> Option<BaseBackup> {
        let (path, base) = self.options.since.as_ref().zip(self.base?.newest())?;
        let path = path_to_base(self.dest.0, path);
        Some(BaseBackup { id: base.id, path: path.to_string_lossy().into_owned() })
    }

    /// Reads everything back that was copied.
    fn verify(
        &self,
        manifest: &Manifest,
        segments: &Directory,
        checkpoints: &Directory,
        total: u64,
    ) -> Result<(), BackupError> {
        let meter = Meter::new(self.options.log.on_progress.as_ref(), Phase::Verify, total);
        for part in manifest.segments.iter().filter(|part| part.from < part.len) {
            let expected = Expected { len: part.len - part.from, crc: part.crc };
            copy::read(segments, &part_name(part.number, part.from), expected, &meter, |_| Ok(()))?;
        }
        for part in manifest.checkpoints.iter().filter(|part| part.is_here) {
            let expected = Expected { len: part.len, crc: part.crc };
            copy::read(checkpoints, &checkpoint_name(part.number), expected, &meter, |_| Ok(()))?;
        }
        Ok(())
    }
}

fn report(manifest: &Manifest, copied_bytes: u64) -> BackupReport {
    let is_copied = |part: &&BackedUpSegment| part.from < part.len;
    BackupReport {
        id: manifest.id,
        base: manifest.base.as_ref().map(|base| base.id),
        log_id: manifest.log_id,
        first_lsn: manifest.low_water.lsn,
        end_lsn: manifest.end_lsn,
        next_seq: manifest.end_seq,
        segments: manifest.segments.len() as u64,
        copied_segments: manifest.segments.iter().filter(is_copied).count() as u64,
        copied_bytes,
        checkpoint: manifest.checkpoints.first().map(|part| part.number),
        hold: None,
    }
}
