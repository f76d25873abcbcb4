//! The folder of a backup: its names, its manifest, and the backups on which it builds.
//!
//! Owns when a folder is a backup: from the durable rename of its manifest on.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::dir::{CHECKPOINTS, Directory, LOCK, MANIFEST};
use bulla_storage::format::{BackedUpSegment, MAX_MANIFEST_LEN, Manifest};
use bulla_storage::io::{Access, FileKind, Io, read_full, write_full};
use bulla_storage::{Error, Result, SegmentNumber};

use super::error::{BackupError, PartDamage};

const MANIFEST_TEMPORARY: &str = "MANIFEST.tmp";
/// The folder of the parts of segments.
pub(super) const SEGMENTS: &str = "segments";
/// The most backups that build on one another.
const MAX_CHAIN: usize = 1000;
/// The most bytes that their manifests have together.
const MAX_MANIFESTS_LEN: u64 = 16 * MAX_MANIFEST_LEN;

/// Returns the name of what a backup holds of a segment.
pub(super) fn part_name(number: SegmentNumber, from: u64) -> String {
    let kind = if from == 0 { "seg" } else { "tail" };
    format!("{:020}.{kind}", number.0)
}

/// Returns the name of a checkpoint, in a backup and in a store.
pub(super) fn checkpoint_name(number: u64) -> String {
    format!("{number:020}.ckpt")
}

/// Checks that a directory can become a backup: it is empty, or what it holds was left by one
/// that did not end.
pub(super) fn check_unfinished(dir: &Directory) -> Result<(), BackupError> {
    for entry in dir.entries()? {
        let is_folder = entry.kind == FileKind::Directory;
        match entry.name.as_str() {
            MANIFEST => return Err(BackupError::Exists { path: dir.path().to_owned() }),
            SEGMENTS | CHECKPOINTS if is_folder => {}
            MANIFEST_TEMPORARY | LOCK if !is_folder => {}
            _ => {
                let path = dir.path().to_owned();
                return Err(BackupError::NotEmpty { path, name: entry.name });
            }
        }
    }
    Ok(())
}

/// Creates a folder in a directory, and empties one that is left.
pub(super) fn empty_folder(dir: &Directory, name: &str) -> Result<Directory> {
    let folder = dir.create_subdirectory(name)?;
    for entry in folder.entries()? {
        if entry.kind == FileKind::Regular {
            folder.remove(&entry.name)?;
        }
    }
    Ok(folder)
}

/// Writes the manifest. On return it is durable under its name, and the folder is a backup.
pub(super) fn publish(dir: &Directory, manifest: &Manifest) -> Result<()> {
    dir.remove(MANIFEST_TEMPORARY)?;
    let file = dir.create(MANIFEST_TEMPORARY, false)?;
    let path = dir.path_of(MANIFEST_TEMPORARY);
    write_full(file.as_ref(), &manifest.encode(), 0).map_err(Error::io("write", &path))?;
    if !skip(Failpoint::ManifestSync) {
        file.sync().map_err(Error::io("sync", &path))?;
    }
    dir.rename_new(MANIFEST_TEMPORARY, MANIFEST)?;
    if skip(Failpoint::ManifestDirSync) { Ok(()) } else { dir.sync() }
}

/// A backup that is read.
#[derive(Debug)]
pub(super) struct Backup {
    pub(super) dir: Directory,
    pub(super) manifest: Manifest,
    manifest_len: u64,
}

impl Backup {
    /// Opens a backup and reads its manifest.
    pub(super) fn open(io: &dyn Io, path: &Path) -> Result<Self, BackupError> {
        let missing = |error: Error| {
            if error.is_not_found() {
                BackupError::NotABackup { path: path.to_owned() }
            } else {
                error.into()
            }
        };
        let dir = Directory::open(io, path).map_err(missing)?;
        let file = dir.file(MANIFEST, Access::READ).map_err(missing)?;
        let path = dir.path_of(MANIFEST);
        let len = file.len().map_err(Error::io("get the length of", &path))?;
        let damaged = |reason| BackupError::Manifest { path: path.clone(), reason };
        if len > MAX_MANIFEST_LEN {
            return Err(damaged(bulla_storage::format::FormatError::Field("length")));
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let count = read_full(file.as_ref(), &mut bytes, 0).map_err(Error::io("read", &path))?;
        let manifest = Manifest::decode(bytes.get(..count).unwrap_or(&[])).map_err(damaged)?;
        Ok(Self { dir, manifest, manifest_len: len })
    }
}

/// A backup and those on which it builds, the full one first.
#[derive(Debug)]
pub(super) struct BackupChain(pub(super) Vec<Backup>);

/// A part of a segment: the backup that holds it, by its place in the chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct SegmentPiece {
    pub(super) backup: usize,
    pub(super) part: BackedUpSegment,
}

impl BackupChain {
    /// Opens a backup on which another one is to build, and all on which it builds itself.
    pub(super) fn open_base(io: &dyn Io, path: &Path) -> Result<Self, BackupError> {
        let chain = Self::open(io, path)?;
        if chain.0.len() >= MAX_CHAIN {
            return Err(BackupError::TooLong { max: MAX_CHAIN });
        }
        check_manifests_len(chain.manifests_len().saturating_add(MAX_MANIFEST_LEN))?;
        Ok(chain)
    }

    fn manifests_len(&self) -> u64 {
        self.0.iter().map(|backup| backup.manifest_len).fold(0, u64::saturating_add)
    }

    /// Opens a backup and all on which it builds.
    pub(super) fn open(io: &dyn Io, path: &Path) -> Result<Self, BackupError> {
        let mut chain = vec![Backup::open(io, path)?];
        let mut manifests_len = chain.first().map_or(0, |newest| newest.manifest_len);
        while let Some(Backup { dir, manifest, .. }) = chain.last()
            && let Some(base) = &manifest.base
        {
            if chain.len() == MAX_CHAIN {
                return Err(BackupError::TooLong { max: MAX_CHAIN });
            }
            let path = lexically_joined(dir.path(), Path::new(&base.path));
            let missing = || BackupError::BaseMissing { path: path.clone(), id: base.id };
            let found = match Backup::open(io, &path) {
                Err(BackupError::NotABackup { .. }) => return Err(missing()),
                found => found?,
            };
            if found.manifest.id != base.id || found.manifest.log_id != manifest.log_id {
                return Err(missing());
            }
            if chain.iter().any(|newer| newer.manifest.id == base.id) {
                return Err(BackupError::Part { path, damage: PartDamage::Chain });
            }
            manifests_len = manifests_len.saturating_add(found.manifest_len);
            check_manifests_len(manifests_len)?;
            if found.manifest.end_lsn < manifest.low_water.lsn
                || found.manifest.end_lsn > manifest.end_lsn
                || found.manifest.sector != manifest.sector
            {
                return Err(BackupError::Part { path, damage: PartDamage::Chain });
            }
            chain.push(found);
        }
        chain.reverse();
        Ok(Self(chain))
    }

    /// Returns the newest manifest.
    pub(super) fn newest(&self) -> Option<&Manifest> {
        self.0.last().map(|backup| &backup.manifest)
    }

    /// Returns the segments of the log as the newest backup has them, each with its parts in
    /// order.
    ///
    /// Those that were purged since an older backup are as that one has them.
    pub(super) fn segments(
        &self,
    ) -> Result<BTreeMap<SegmentNumber, Vec<SegmentPiece>>, BackupError> {
        let mut segments: BTreeMap<SegmentNumber, Vec<SegmentPiece>> = BTreeMap::new();
        for (backup, Backup { dir, manifest, .. }) in self.0.iter().enumerate() {
            for part in &manifest.segments {
                let pieces = segments.entry(part.number).or_default();
                let before = pieces.last().map_or(0, |piece| piece.part.len);
                let same = pieces.iter().all(|piece| piece.part.nonce == part.nonce);
                // A part that follows what is there, or none of a segment that is no longer now.
                let fits = part.from == before || (part.from == part.len && part.len <= before);
                if !same || !fits {
                    let path = dir.path_of(&part_name(part.number, part.from));
                    return Err(BackupError::Part { path, damage: PartDamage::Chain });
                }
                pieces.push(SegmentPiece { backup, part: *part });
            }
        }
        Ok(segments)
    }
}

fn check_manifests_len(len: u64) -> Result<(), BackupError> {
    if len <= MAX_MANIFESTS_LEN {
        Ok(())
    } else {
        Err(BackupError::TooLarge { max: MAX_MANIFESTS_LEN })
    }
}

/// Returns what an incremental backup in `dest` notes of where its base is: a path from the folder
/// that both are in, if they are in one, so that both can be moved together.
pub(super) fn path_to_base(dest: &Path, base: &Path) -> PathBuf {
    let (dest, base) = (absolute(dest), absolute(base));
    match (dest.parent(), base.parent(), base.file_name()) {
        (Some(left), Some(right), Some(name)) if left == right => Path::new("..").join(name),
        _ => base,
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Returns `path` as seen from `dir`, where each `..` takes one component away.
fn lexically_joined(dir: &Path, path: &Path) -> PathBuf {
    let mut joined = absolute(dir);
    for component in path.components() {
        match component {
            Component::ParentDir => drop(joined.pop()),
            // An absolute path begins anew here.
            component => joined.push(component),
        }
    }
    joined
}
