//! The files of a backup: parts of segments, checkpoints; and how they are read back.
//!
//! Owns what is copied of a segment: its header, and frames that the frame reader has checked. A
//! copy is durable before its CRC is used, and is then read from the disk.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::files::dir::Directory;
use bulla_storage::format::{BackedUpSegment, Header};
use bulla_storage::frames::read_buffer::{READ_LEN, ReadBuffer};
use bulla_storage::frames::reader::{End, Step};
use bulla_storage::io::{AlignedBuf, File, read_full, write_full};
use bulla_storage::progress::{Meter, Stretch};
use bulla_storage::{Corruption, CorruptionKind, Error, Result};

use super::error::{BackupError, PartDamage};
use super::folder::part_name;
use super::source::SourceSegment;
use crate::faults;
use crate::log_dir::{LogDir, damage, no_longer_valid};

/// Bytes that are written at once.
const CHUNK: usize = 1024 * 1024;

/// A file that is written from its start, with a CRC over all of it.
pub(super) struct PartWriter {
    file: Arc<dyn File>,
    path: std::path::PathBuf,
    buf: AlignedBuf,
    used: usize,
    offset: u64,
    crc: crc32fast::Hasher,
}

impl PartWriter {
    /// Creates the file, which must not exist.
    pub(super) fn create(dir: &Directory, name: &str) -> Result<Self> {
        Ok(Self {
            file: dir.create(name, false)?,
            path: dir.path_of(name),
            buf: AlignedBuf::zeroed(CHUNK),
            used: 0,
            offset: 0,
            crc: crc32fast::Hasher::new(),
        })
    }

    /// Appends bytes.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        while !bytes.is_empty() {
            let room = self.buf.get_mut(self.used..).unwrap_or(&mut []);
            let (now, later) = bytes.split_at(room.len().min(bytes.len()));
            if let Some(room) = room.get_mut(..now.len()) {
                room.copy_from_slice(now);
            }
            self.used += now.len();
            bytes = later;
            if self.used == self.buf.len() {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        write_full(self.file.as_ref(), self.buf.get(..self.used).unwrap_or(&[]), self.offset)
            .map_err(Error::io("write", &self.path))?;
        self.offset += self.used as u64;
        self.used = 0;
        Ok(())
    }

    /// Makes the file durable; returns its length and its CRC. Its name is durable once its folder
    /// is synced.
    pub(super) fn finish(mut self, failpoint: Failpoint) -> Result<(u64, u32)> {
        self.flush()?;
        if !skip(failpoint) {
            self.file.sync().map_err(Error::io("sync", &self.path))?;
        }
        Ok((self.offset, self.crc.finalize()))
    }
}

/// Copies a segment from `from` on, which is a frame boundary, or 0.
pub(super) fn segment(
    log: &LogDir,
    source: &SourceSegment<'_>,
    from: u64,
    folder: &Directory,
    meter: &Meter<'_>,
) -> Result<BackedUpSegment, BackupError> {
    let Header { number, nonce, epoch, sector, .. } = *source.header;
    let mut part = BackedUpSegment { number, nonce, epoch, len: source.len, from, crc: 0 };
    if from >= source.len {
        part.from = part.len;
        return Ok(part);
    }
    let mut writer = PartWriter::create(folder, &part_name(number, from))?;
    let sector = u64::from(sector);
    if from == 0 {
        let mut read_buffer = log.one_sector(number)?;
        let bytes = read_buffer.bytes(0, sector)?;
        // Nobody changes a segment's header once it has its name.
        if Header::decode(bytes).as_ref() != Ok(source.header) {
            return Err(Error::from(Corruption {
                segment: Some(number),
                offset: Some(0),
                lsn: None,
                durable: None,
                kind: CorruptionKind::Epoch,
            })
            .into());
        }
        writer.push(bytes)?;
    }
    if let Some(piece) = source.piece {
        let mut frames = log.frames_of(piece)?;
        let mut stretch = Stretch::new(meter, from);
        loop {
            let offset = frames.offset();
            let at = frames.at().map_or(piece.start.lsn, |at| at.lsn);
            let invalid = |end: End| no_longer_valid(piece, offset, at, damage(end));
            if offset < from {
                if let Err(end) = frames.skip()? {
                    return Err(invalid(end).into());
                }
                continue;
            }
            let len = match frames.step()? {
                Step::Frame(found) => found.frame.disk_len(source.header.sector),
                Step::End(_) if at == piece.end.lsn => break,
                Step::End(end) => return Err(invalid(end).into()),
            };
            // They are in memory, and were checked there.
            writer.push(frames.read_buffer.bytes(offset, len)?)?;
            stretch.reach(offset + len)?;
        }
        stretch.end(source.len)?;
    }
    let (len, crc) = writer.finish(Failpoint::BackupPartSync)?;
    if len != source.len - from {
        return Err(BackupError::NotContinued {
            end: source.piece.map_or(bulla_storage::Lsn(0), |piece| piece.end.lsn),
        });
    }
    part.crc = crc;
    Ok(part)
}

/// Copies a whole file, of which nothing else is known; returns its CRC.
pub(super) fn file(
    (source, path): (&dyn File, &Path),
    len: u64,
    to: (&Directory, &str),
    failpoint: Failpoint,
    meter: &Meter<'_>,
) -> Result<u32> {
    let mut writer = PartWriter::create(to.0, to.1)?;
    let mut stretch = Stretch::new(meter, 0);
    let mut buf = AlignedBuf::zeroed(CHUNK);
    let mut at = 0;
    while at < len {
        let want = usize::try_from(len - at).unwrap_or(CHUNK).min(CHUNK);
        let chunk = buf.get_mut(..want).unwrap_or(&mut []);
        let count = read_full(source, chunk, at).map_err(Error::io("read", path))?;
        if count < want {
            let ended = io::ErrorKind::UnexpectedEof.into();
            return Err(Error::io("read", path)(ended));
        }
        writer.push(chunk)?;
        at += count as u64;
        stretch.reach(at)?;
    }
    stretch.end(len)?;
    Ok(writer.finish(failpoint)?.1)
}

/// What the manifest says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected {
    pub(super) len: u64,
    pub(super) crc: u32,
}

/// Reads a file of a backup, from the disk where that is possible, and checks it; passes its bytes
/// to `each`.
pub(super) fn read(
    folder: &Directory,
    name: &str,
    expected: Expected,
    meter: &Meter<'_>,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<(), BackupError> {
    let path = folder.path_of(name);
    let damaged = |damage| BackupError::Part { path: path.clone(), damage };
    let mut read_buffer = match ReadBuffer::open(folder, name, true) {
        Err(error) if error.is_not_found() => return Err(damaged(PartDamage::Missing)),
        opened => opened?,
    };
    if read_buffer.len() != expected.len {
        return Err(damaged(PartDamage::Length));
    }
    let (mut crc, mut at) = (crc32fast::Hasher::new(), 0);
    let mut stretch = Stretch::new(meter, 0);
    while at < expected.len {
        let bytes = read_buffer.bytes(at, READ_LEN.min(expected.len - at))?;
        if bytes.is_empty() {
            return Err(damaged(PartDamage::Length));
        }
        crc.update(bytes);
        each(bytes)?;
        at += bytes.len() as u64;
        stretch.reach(at)?;
    }
    stretch.end(expected.len)?;
    if faults::backup::part_crc(crc.finalize(), expected.crc) == expected.crc {
        Ok(())
    } else {
        Err(damaged(PartDamage::Crc))
    }
}
