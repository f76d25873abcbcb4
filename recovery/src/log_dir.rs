//! A log's directory and how its files are read.
//!
//! Owns the choice between the page cache and the disk, how many threads may read, and what
//! a live part of a segment is ([`Piece`]). Judges nothing and writes nothing.

use std::path::Path;
use std::sync::Arc;

use bulla_storage::files::control;
use bulla_storage::files::dir::{Directory, Listing, segment_name};
use bulla_storage::format::{Control, FormatError, Header, MAX_SECTOR};
use bulla_storage::io::Io;
use bulla_storage::{Corruption, CorruptionKind, FrameDamage, Lsn, Options, SegmentNumber};

use bulla_storage::frames::read_buffer::ReadBuffer;
use bulla_storage::frames::reader::{Cursor, End, FrameReader, Start};
use bulla_storage::{Error, Result};

/// A log's directory, and how it is read.
#[derive(Debug)]
pub(crate) struct LogDir {
    pub(crate) io: Arc<dyn Io>,
    pub(crate) dir: Directory,
    pub(crate) options: Options,
    /// Segments of the newest epoch from this number on may be written during the scan. In a
    /// log with direct access they are read with direct access too: a page that is cached
    /// while it is written would fail the writer's next sync. The others come from the page
    /// cache.
    pub(crate) written_from: SegmentNumber,
    /// What is wrong with one of the two slots of CONTROL.
    pub(crate) control_damage: Option<FormatError>,
}

/// Live frames of one segment, with all that is needed to read them again.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) header: Header,
    /// LSN of the segment's first byte after the header.
    pub(crate) base: Lsn,
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
    /// The segment ends without a seal. It may still be written, or have been when the log
    /// failed: then the disk has the truth, and the page cache perhaps not.
    pub(crate) unsealed: bool,
}

impl Piece {
    /// Returns the file offset after the last live frame.
    pub(crate) fn end_offset(&self) -> u64 {
        u64::from(self.header.sector).saturating_add(self.end.lsn.distance_from(self.base))
    }
}

impl LogDir {
    pub(crate) fn new(dir: &Directory, options: &Options) -> Self {
        let io = Arc::clone(&options.io);
        let written_from = SegmentNumber::ZERO;
        let options = options.clone();
        Self { io, dir: dir.clone(), options, written_from, control_damage: None }
    }

    /// Returns a log whose lock is held: nobody writes to it.
    pub(crate) fn locked(dir: &Directory, options: &Options) -> Self {
        Self { written_from: SegmentNumber::MAX, ..Self::new(dir, options) }
    }

    /// Opens a segment's file for reading.
    pub(crate) fn segment(&self, number: SegmentNumber, direct: bool) -> Result<ReadBuffer> {
        ReadBuffer::open(&self.dir, &segment_name(number), direct)
    }

    /// Opens a segment's file to read one sector of it, as it is on the disk.
    pub(crate) fn one_sector(&self, number: SegmentNumber) -> Result<ReadBuffer> {
        Ok(self.segment(number, self.options.is_direct())?.with_chunk(u64::from(MAX_SECTOR)))
    }

    /// Reads the live frames of one segment.
    pub(crate) fn frames_of(&self, piece: &Piece) -> Result<FrameReader> {
        let start = Start::At { base: piece.base, cursor: piece.start };
        let direct = piece.unsealed && self.options.is_direct();
        let read_buffer = self.segment(piece.header.number, direct)?;
        Ok(FrameReader::new(read_buffer, &piece.header, start, piece.end.lsn))
    }

    /// Returns how many threads may read at once: one where the order of reads must be
    /// reproducible.
    pub(crate) fn threads(&self) -> usize {
        if self.io.is_deterministic() {
            return 1;
        }
        std::thread::available_parallelism().map_or(1, usize::from)
    }
}

/// Opens the directory of a log.
pub(crate) fn open_dir(path: &Path, options: &Options) -> Result<Directory> {
    Directory::of_log(options.io.as_ref(), path)
}

/// Reads CONTROL, and tells a directory without a log from a log whose CONTROL is gone.
pub(crate) fn read_control(dir: &Directory) -> Result<Control> {
    Ok(read_listing(dir)?.1)
}

/// Lists the files of a log, then reads CONTROL, and tells what is wrong with one of its slots. In
/// this order, because a purge says in CONTROL what it removes before it removes it: a segment that
/// the listing lacks is below the low-water mark in CONTROL, or is missing.
pub(crate) fn read_listing(dir: &Directory) -> Result<(Listing, Control, Option<FormatError>)> {
    let listing = dir.list()?;
    if listing.has_control {
        let (control, damage) = control::read_both(dir)?;
        return Ok((listing, control, damage));
    }
    if listing.of_backup {
        return Err(Error::OfBackup { path: dir.path().to_owned() });
    }
    match listing.segments.first() {
        None => Err(Error::NotALog { path: dir.path().to_owned() }),
        Some(segment) => Err(Corruption {
            segment: Some(segment.number),
            offset: None,
            lsn: None,
            durable: None,
            kind: CorruptionKind::ControlMissing,
        }
        .into()),
    }
}

/// Returns what is wrong where the frames of a segment end.
pub(crate) fn damage(end: End) -> FrameDamage {
    match end {
        End::Damage(damage) => damage,
        End::Ceiling | End::Rotated | End::Closed => FrameDamage::Boundary,
    }
}

/// Returns the corruption of a frame that the scan found valid and that is not any more.
pub(crate) fn no_longer_valid(piece: &Piece, offset: u64, lsn: Lsn, damage: FrameDamage) -> Error {
    Error::from(Corruption {
        segment: Some(piece.header.number),
        offset: Some(offset),
        lsn: Some(lsn),
        durable: Some(piece.end.lsn),
        kind: CorruptionKind::Frame(damage),
    })
}
