//! A restore: from a chain of backups to a log that opens.
//!
//! Owns the order of its steps. CONTROL comes last: without it the directory is no log, and
//! [`RESTORING`] tells the next restore that it may begin anew there. The restored log begins a
//! new epoch at its end, as a recovery does, so that all that was restored counts as durable and
//! what was left out is not taken for a part of it. Tested by `tests/tests/backups.rs`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::control::{CREATED, ControlFile};
use bulla_storage::files::dir::{
    CHECKPOINTS, CONTROL, Directory, LOCK, RESTORING, parse_segment_name, segment_name,
};
use bulla_storage::files::recovered::{check_device, random_nonce};
use bulla_storage::files::segment::{self, NewSegment};
use bulla_storage::format::{
    BackedUpCheckpoint, BackupId, Control, EpochStart, Header, LogId, LowWater, Manifest,
};
use bulla_storage::frames::reader::Cursor;
use bulla_storage::io::{Access, FileKind, Io};
use bulla_storage::progress::{Meter, Phase};
use bulla_storage::{Epoch, Error, Lsn, Options, Position, Result, SegmentNumber, Seq};

use super::copy::{self, Expected, PartWriter};
use super::cut;
use super::error::{BackupError, PartDamage};
use super::folder::{
    Backup, BackupChain, SEGMENTS, SegmentPiece, checkpoint_name, empty_folder, part_name,
};
use crate::analysis::Analysis;
use crate::faults;
use crate::log_dir::{LogDir, Piece};
use crate::report::Status;
use crate::scan::Bodies;
use crate::tail_rewrite::clip;
use crate::trim::keep_len;

/// The temporary name of CONTROL.
const CONTROL_TEMPORARY: &str = "CONTROL.tmp";
/// Checkpoints of a store that are restored: the newest, and one in case it is damaged.
const MAX_CHECKPOINTS: usize = 2;

/// Epochs between that of the backup and that of the restored log: the original may have begun some
/// since, and a position that names one of them must not fit the restored log.
const SKIPPED_EPOCHS: u32 = 1 << 16;

/// How a backup is restored.
#[derive(Clone, Debug)]
pub struct RestoreOptions {
    log: Options,
    to: Position,
}

impl Default for RestoreOptions {
    fn default() -> Self {
        Self { log: Options::new(), to: Position::End }
    }
}

impl RestoreOptions {
    /// Returns the defaults: everything is restored.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how files are accessed, and who is told of the progress.
    #[must_use]
    pub fn log(mut self, log: Options) -> Self {
        self.log = log;
        self
    }

    /// Sets where the restored log ends: with the last whole frame that has nothing at or after
    /// this position.
    #[must_use]
    pub fn to(mut self, to: impl Into<Position>) -> Self {
        self.to = to.into();
        self
    }
}

/// What was restored.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RestoreReport {
    /// The backup.
    pub id: BackupId,
    /// Which log it is.
    pub log_id: LogId,
    /// Where the log starts.
    pub first_lsn: Lsn,
    /// Where it ends.
    pub end_lsn: Lsn,
    /// The number of the next entry.
    pub next_seq: Seq,
    /// When its last frame was sealed, in ns since 1970.
    pub wall_ns: u64,
    /// The epoch that begins at its end.
    pub epoch: Epoch,
    /// Whether the backup holds more.
    pub is_cut: bool,
    /// Bytes that were written.
    pub written_bytes: u64,
    /// The backups that were read, this one included.
    pub backups: u64,
    /// The checkpoints of a store, the newest first.
    pub checkpoints: Vec<u64>,
}

/// Restores a backup to `dir`, which is made, or is empty, or holds what is left of a restore that
/// did not end.
///
/// On return the log is durable, and opens. It has the identity of the log that was backed up, and
/// no holds.
///
/// # Errors
/// [`BackupError`]. Then `dir` is no log; the next call begins anew.
pub fn restore(
    backup: &Path,
    dir: &Path,
    options: &RestoreOptions,
) -> Result<RestoreReport, BackupError> {
    let io = options.log.io.as_ref();
    let chain = BackupChain::open(io, backup)?;
    let manifest = chain.newest().ok_or_else(|| not_a_backup(backup))?;
    let log_options = options.log.checked(manifest.sector)?;
    let target = open_target(io, dir)?;
    check_device(&target, &log_options)?;
    let _lock = target.lock(io, Duration::ZERO)?;
    begin(&target)?;
    Restorer { chain: &chain, manifest, target: &target, options: &log_options }.run(options.to)
}

fn not_a_backup(path: &Path) -> BackupError {
    BackupError::NotABackup { path: path.to_owned() }
}

fn open_target(io: &dyn Io, dir: &Path) -> Result<Directory> {
    io.create_dir(dir).map_err(Error::io("create", dir))?;
    let target = Directory::open(io, dir)?;
    if let Some(parent) = dir.parent().filter(|_| !skip(Failpoint::RestoreFolderSync)) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Directory::open(io, parent)?.sync()?;
    }
    Ok(target)
}

/// Marks the directory as one that is restored, and removes what an earlier restore left in it.
fn begin(target: &Directory) -> Result<(), BackupError> {
    let entries = target.entries()?;
    let has = |name: &str| entries.iter().any(|entry| entry.name == name);
    if has(CONTROL) {
        return Err(Error::AlreadyExists { path: target.path().to_owned() }.into());
    }
    if has(RESTORING) {
        for entry in entries.iter().filter(|entry| entry.kind == FileKind::Regular) {
            let is_ours = parse_segment_name(&entry.name).is_some()
                || entry.name == CONTROL_TEMPORARY
                || entry.name.ends_with(".seg.tmp");
            if is_ours {
                target.remove(&entry.name)?;
            }
        }
        if has(CHECKPOINTS) {
            empty_folder(target, CHECKPOINTS)?;
        }
        return Ok(());
    }
    if let Some(other) = entries.iter().find(|entry| entry.name != LOCK) {
        let (path, name) = (target.path().to_owned(), other.name.clone());
        return Err(BackupError::NotEmpty { path, name });
    }
    target.create(RESTORING, false)?;
    Ok(target.sync()?)
}

struct Restorer<'a> {
    chain: &'a BackupChain,
    manifest: &'a Manifest,
    target: &'a Directory,
    options: &'a Options,
}

impl Restorer<'_> {
    fn run(&self, to: Position) -> Result<RestoreReport, BackupError> {
        let segments = self.chain.segments()?;
        let lens = segments.values().filter_map(|pieces| Some(pieces.last()?.part.len));
        let total = lens.fold(0, u64::saturating_add);
        if faults::backup::writes_control_first() {
            ControlFile::create(self.target, self.source_control())?;
        }
        let meter = Meter::new(self.options.on_progress.as_ref(), Phase::Copy, total);
        for (number, pieces) in &segments {
            self.write_segment(*number, pieces, &meter)?;
        }
        let mut log = LogDir::locked(self.target, self.options);
        let (source, whole) = (self.source_control(), self.manifest.end_lsn);
        let analysis = self.analysis(&mut log, source, whole, Bodies::Checked)?;
        let end = cut::boundary(&log, &analysis, to)?;
        let checkpoints = self.checkpoints(&analysis, end.lsn)?;
        let pieces = clip(&analysis.pieces(), analysis.start(), end);
        let last = self.cut(&analysis, &pieces)?;
        let mut written_bytes = self.written_bytes()?;
        if !checkpoints.is_empty() {
            let folder = empty_folder(self.target, CHECKPOINTS)?;
            for (backup, part) in &checkpoints {
                self.write_checkpoint(backup, part, &folder)?;
                written_bytes += part.len;
            }
            if !skip(Failpoint::RestoreFolderSync) {
                folder.sync()?;
            }
        }
        let control = self.begin_epoch(&analysis, end, last)?;
        // Every name is durable before CONTROL makes the directory a log.
        if !skip(Failpoint::RestoreFolderSync) {
            self.target.sync()?;
        }
        let mut log = LogDir::locked(self.target, self.options);
        self.analysis(&mut log, control, end.lsn, Bodies::Unread)?;
        if !faults::backup::writes_control_first() {
            ControlFile::create(self.target, control)?;
        }
        self.target.remove(RESTORING)?;
        self.target.sync()?;
        Ok(RestoreReport {
            id: self.manifest.id,
            log_id: self.manifest.log_id,
            first_lsn: analysis.start().lsn,
            end_lsn: end.lsn,
            next_seq: end.seq,
            wall_ns: end.wall_ns,
            epoch: control.epoch,
            is_cut: end.lsn < self.manifest.end_lsn,
            written_bytes,
            backups: self.chain.0.len() as u64,
            checkpoints: checkpoints.iter().map(|(_, part)| part.number).collect(),
        })
    }

    /// Returns where the log starts: where that of the full backup did.
    fn low_water(&self) -> LowWater {
        self.chain.0.first().map_or(self.manifest.low_water, |full| full.manifest.low_water)
    }

    /// Returns CONTROL as it was for what was backed up.
    fn source_control(&self) -> Control {
        Control {
            counter: CREATED + 1,
            log_id: self.manifest.log_id,
            sector: self.manifest.sector,
            epoch: self.manifest.epoch,
            nonce: self.manifest.nonce,
            compatible: 0,
            low_water: self.low_water(),
            content: self.manifest.content,
        }
    }

    /// Writes a segment from its parts, each of which is checked.
    fn write_segment(
        &self,
        number: SegmentNumber,
        pieces: &[SegmentPiece],
        meter: &Meter<'_>,
    ) -> Result<(), BackupError> {
        let Some(len) = pieces.last().map(|piece| piece.part.len) else { return Ok(()) };
        let mut writer = PartWriter::create(self.target, &segment_name(number))?;
        let mut left = len;
        for SegmentPiece { backup, part } in
            pieces.iter().filter(|piece| piece.part.from < piece.part.len)
        {
            let Some(Backup { dir, .. }) = self.chain.0.get(*backup) else { continue };
            let folder = dir.subdirectory(SEGMENTS)?;
            let expected = Expected { len: part.len - part.from, crc: part.crc };
            let name = part_name(number, part.from);
            copy::read(&folder, &name, expected, meter, |bytes| {
                let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                left -= count as u64;
                writer.push(bytes.get(..count).unwrap_or(&[]))
            })?;
        }
        let (written, _) = writer.finish(Failpoint::RestorePartSync)?;
        if written == len {
            Ok(())
        } else {
            let path = self.target.path_of(&segment_name(number));
            Err(BackupError::Part { path, damage: PartDamage::Chain })
        }
    }

    /// Analyses what was written, which must be a whole log that ends at `end`.
    fn analysis(
        &self,
        log: &mut LogDir,
        control: Control,
        end: Lsn,
        bodies: Bodies,
    ) -> Result<Analysis, BackupError> {
        let analysis = Analysis::read_from(log, control, &[], bodies)?;
        if let Status::Corrupt(corruption) = analysis.status() {
            return Err(Error::from(corruption).into());
        }
        if analysis.chain.valid_end.lsn != end {
            let path = self.target.path().to_owned();
            return Err(BackupError::Part { path, damage: PartDamage::Chain });
        }
        Ok(analysis)
    }

    /// Returns the checkpoints that fit a log that ends at `end`, the newest first, each with the
    /// backup that holds it.
    fn checkpoints(
        &self,
        analysis: &Analysis,
        end: Lsn,
    ) -> Result<Vec<(&Directory, BackedUpCheckpoint)>, BackupError> {
        // One that belongs to the very end may have been taken in a segment that is cut off there:
        // the manifest does not say.
        let is_split = starts_a_cut_segment(analysis, end);
        let fits = |part: &BackedUpCheckpoint| part.upto < end || (part.upto == end && !is_split);
        let mut found = BTreeMap::new();
        let mut is_store = self.manifest.content.is_of_store();
        for Backup { dir, manifest, .. } in &self.chain.0 {
            is_store |= !manifest.checkpoints.is_empty();
            let here = manifest.checkpoints.iter().filter(|part| part.is_here && fits(part));
            found.extend(here.map(|part| ((part.upto, part.number), (dir, *part))));
        }
        if is_store && found.is_empty() && self.low_water().seq > Seq(1) {
            return Err(BackupError::NoCheckpoint { first: end });
        }
        Ok(found.into_values().rev().take(MAX_CHECKPOINTS).collect())
    }

    fn write_checkpoint(
        &self,
        backup: &Directory,
        part: &BackedUpCheckpoint,
        folder: &Directory,
    ) -> Result<(), BackupError> {
        let name = checkpoint_name(part.number);
        let mut writer = PartWriter::create(folder, &name)?;
        let expected = Expected { len: part.len, crc: part.crc };
        let meter = Meter::new(self.options.on_progress.as_ref(), Phase::Copy, part.len);
        let source = backup.subdirectory(CHECKPOINTS)?;
        copy::read(&source, &name, expected, &meter, |bytes| writer.push(bytes))?;
        writer.finish(Failpoint::RestorePartSync)?;
        Ok(())
    }

    /// Shortens the segments to `pieces`, and removes those behind them. Returns the last that
    /// stays.
    fn cut(&self, analysis: &Analysis, pieces: &[Piece]) -> Result<Option<SegmentNumber>> {
        let segments = &analysis.plan.segments;
        let last = pieces.last().map(|piece| piece.header.number);
        // A log without any entry keeps the segment that it starts with.
        let last = last.or(segments.first().map(|segment| segment.number));
        for segment in segments {
            let name = segment_name(segment.number);
            if Some(segment.number) > last {
                self.target.remove(&name)?;
                continue;
            }
            let keep = keep_len(pieces, segment.number, self.manifest.sector);
            if segment.file_len > keep {
                let path = self.target.path_of(&name);
                let file = self.target.file(&name, Access::WRITE)?;
                file.set_len(keep).map_err(Error::io("truncate", &path))?;
                if !skip(Failpoint::RestorePartSync) {
                    file.sync().map_err(Error::io("sync", &path))?;
                }
            }
        }
        Ok(last)
    }

    fn written_bytes(&self) -> Result<u64> {
        let listing = self.target.list()?;
        Ok(listing.segments.iter().map(|segment| segment.len).sum())
    }

    /// Makes the segment that begins a new epoch at the end of what was restored; returns the
    /// CONTROL that goes with it.
    fn begin_epoch(
        &self,
        analysis: &Analysis,
        end: Cursor,
        last: Option<SegmentNumber>,
    ) -> Result<Control> {
        let source = self.source_control();
        if faults::backup::keeps_epoch() {
            return Ok(source);
        }
        let epoch = source.epoch.0.checked_add(SKIPPED_EPOCHS).ok_or(Error::EpochsExhausted)?;
        let segments = &analysis.plan.segments;
        let before = segments.iter().find(|segment| Some(segment.number) == last);
        let header = Header {
            log_id: source.log_id,
            number: before.map_or(source.low_water.segment, |before| before.number.next()),
            epoch: Epoch(epoch),
            nonce: random_nonce(self.options, self.target)?,
            previous_nonce: before.map_or(0, |before| before.header.nonce),
            sector: source.sector,
            wall_ns: self.options.io.wall_ns(),
            epoch_start: Some(EpochStart {
                base: end.lsn,
                first_seq: end.seq,
                replaces_from: end.lsn,
                truncated_at: end.lsn,
                truncations: analysis.timeline().truncations(),
            }),
        };
        let sector = u64::from(source.sector);
        let new = NewSegment {
            header: &header,
            // Nothing is appended to it: the next open begins an epoch of its own.
            len: sector,
            direct: false,
            zeroed: true,
            replaces: false,
            is_wanted: &|| true,
        };
        segment::create(self.target, &new, |_| Ok(sector))?;
        let low_water = match before {
            None => LowWater { epoch: header.epoch, ..source.low_water },
            Some(_) => source.low_water,
        };
        Ok(Control { epoch: header.epoch, nonce: header.nonce, low_water, ..source })
    }
}

/// Returns whether a segment starts at `end` that a restore to there cuts off.
fn starts_a_cut_segment(analysis: &Analysis, end: Lsn) -> bool {
    let pieces = analysis.pieces();
    let last = pieces.iter().rfind(|piece| piece.start.lsn < end);
    if last.is_some_and(|last| last.end.lsn > end) {
        return false;
    }
    let segments = &analysis.plan.segments;
    let kept = last.map(|last| last.header.number);
    let kept = kept.or(segments.first().map(|segment| segment.number));
    segments.last().map(|segment| segment.number) > kept
}
