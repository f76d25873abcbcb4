//! Which segments a log has, by their headers: what readers know of its structure.
//!
//! Owns the rules of numbers, nonces and epochs that a reader needs: where a later epoch
//! replaces an earlier one, and in which segment a position is. It is read without a
//! lock, while a writer may add segments, purge them, or open the log again.

use std::collections::VecDeque;
use std::sync::Arc;

use bulla_storage::files::control;
use bulla_storage::files::dir::{Directory, segment_name};
use bulla_storage::format::{Control, EpochStart, Header, LowWater, MAX_SECTOR};
use bulla_storage::frames::read_buffer::ReadBuffer;
use bulla_storage::frames::reader::{Cursor, FrameReader, Start};
use bulla_storage::frames::timeline::Timeline;
use bulla_storage::io::Io;
use bulla_storage::{
    Corruption, CorruptionKind, Epoch, Error, Lsn, Position, Result, SegmentNumber,
};

/// A log that changes while it is looked at is looked at so often at most.
pub(super) const MAX_LOOKS: u32 = 100;
/// Bytes read at once where only headers are wanted.
pub(super) const SMALL_CHUNK: u64 = 64 * 1024;

/// Where a cursor begins: at a frame of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Begin {
    pub(super) number: SegmentNumber,
    /// LSN of the segment's first byte after the header.
    pub(super) base: Lsn,
    pub(super) cursor: Cursor,
}

/// A log's directory, and how its segments are read.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    pub(super) io: Arc<dyn Io>,
    pub(super) dir: Directory,
    /// Ask for direct access: a page that a reader caches of a segment that is being
    /// written directly would fail the writer's next sync.
    pub(super) direct: bool,
}

impl Disk {
    /// A window on a segment; none when there is no such file (any more).
    pub(super) fn read_buffer(
        &self,
        number: SegmentNumber,
        chunk: u64,
    ) -> Result<Option<ReadBuffer>> {
        match ReadBuffer::open(&self.dir, &segment_name(number), self.direct) {
            Err(error) if error.is_not_found() => Ok(None),
            read_buffer => Ok(Some(read_buffer?.with_chunk(chunk))),
        }
    }

    fn header(&self, number: SegmentNumber) -> Result<Option<Header>> {
        let max = u64::from(MAX_SECTOR);
        let Some(mut read_buffer) = self.read_buffer(number, max)? else { return Ok(None) };
        let header = Header::decode(read_buffer.bytes(0, max)?);
        header.map(Some).map_err(|error| fault(number, CorruptionKind::SegmentHeader(error)))
    }

    fn not_a_log(&self) -> Error {
        Error::NotALog { path: self.dir.path().to_owned() }
    }

    fn control(&self) -> Result<Control> {
        match control::read(&self.dir) {
            Err(error) if error.is_not_found() => Err(self.not_a_log()),
            control => control,
        }
    }
}

/// A segment that is not there, or nothing that is whole.
#[derive(Debug)]
struct Missing {
    error: Error,
    /// As it was read before that was noticed.
    control: Control,
}

/// One segment's header, and its first frame once it was seen.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) header: Header,
    first: Option<Cursor>,
}

/// The live segments: one header each.
#[derive(Debug)]
pub(super) struct SegmentIndex {
    pub(super) control: Control,
    /// Where `segments` begin: at the low-water mark, or after the damage.
    start: LowWater,
    /// What is damaged or missing below that.
    damage: Option<Corruption>,
    /// Those that follow one another, up to the last.
    segments: VecDeque<Segment>,
    /// One more whenever an epoch is found that was not known before.
    pub(super) generation: u64,
}

impl SegmentIndex {
    pub(super) fn read(disk: &Disk) -> Result<Self> {
        let mut looks = 1;
        let mut before = None;
        loop {
            let Missing { error, control } = match Self::look(disk)? {
                Ok(index) => return Ok(index),
                Err(missing) => *missing,
            };
            // A segment was purged after CONTROL was read: then that has changed. Or it is missing.
            if before == Some(control.counter) {
                return Err(error);
            }
            if looks == MAX_LOOKS {
                return Err(Error::Changed { lsn: control.low_water.lsn });
            }
            before = Some(control.counter);
            looks += 1;
        }
    }

    /// Fails softly when a segment is not there.
    fn look(disk: &Disk) -> Result<Result<Self, Box<Missing>>> {
        // In this order: what the listing lacks is below the mark in CONTROL, or missing.
        let listing = disk.dir.list()?;
        let control = disk.control()?;
        let (first, start) = (control.low_water.segment, control.low_water);
        let segments = VecDeque::new();
        let mut index = Self { control, start, damage: None, segments, generation: 0 };
        let missing = |error| Ok(Err(Box::new(Missing { error, control })));
        for file in listing.segments.iter().filter(|file| file.number >= first) {
            let expected = index.next_number();
            if file.number != expected {
                index.begin_after(fault(expected, CorruptionKind::SegmentMissing), file.number)?;
            }
            let added = match disk.header(file.number) {
                Ok(Some(header)) => index.push(header),
                Ok(None) => return missing(fault(file.number, CorruptionKind::SegmentMissing)),
                Err(error) => Err(error),
            };
            if let Err(damage) = added {
                // It may be intact, and not what follows: then it is the first that is.
                index.begin_after(damage, file.number)?;
                let header = disk.header(file.number).ok().flatten();
                if header.is_none_or(|header| index.push(header).is_err()) {
                    index.start.segment = file.number.next();
                }
            }
        }
        if index.segments.is_empty() {
            return missing(match (index.damage, control.counter) {
                (Some(damage), _) => damage.into(),
                // Its creation has not come to its first segment.
                (None, control::CREATED) => disk.not_a_log(),
                (None, _) => fault(first, CorruptionKind::SegmentMissing),
            });
        }
        match index.find_start(disk)? {
            Ok(()) => Ok(Ok(index)),
            Err(error) => missing(error),
        }
    }

    /// Begins anew after damage with the segment of this number.
    ///
    /// # Errors
    /// The error, if it is none of the log.
    fn begin_after(&mut self, error: Error, number: SegmentNumber) -> Result<()> {
        let Error::Corrupt(damage) = error else { return Err(error) };
        self.damage.get_or_insert(*damage);
        self.segments.clear();
        self.start.segment = number;
        Ok(())
    }

    /// Finds where the segments begin that follow damage, if there is any: with the first whose
    /// frames count. Fails softly when there is none.
    fn find_start(&mut self, disk: &Disk) -> Result<Result<()>> {
        let Some(damage) = self.damage.clone() else { return Ok(Ok(())) };
        loop {
            let first = self.first(disk, 0)?;
            let Some(Segment { header, .. }) = self.segments.front() else {
                return Ok(Err(damage.into()));
            };
            let (segment, epoch) = (header.number, header.epoch);
            match first.filter(|first| first.lsn < self.end_lsn(epoch)) {
                Some(Cursor { lsn, seq, prev_crc, wall_ns }) => {
                    self.start = LowWater { segment, lsn, seq, prev_crc, epoch, wall_ns };
                    return Ok(Ok(()));
                }
                None => drop(self.segments.pop_front()),
            }
        }
    }

    /// Returns that a range from here on begins in the damage or before it, if it does.
    pub(super) fn gap_at(&self, from: Position) -> Option<Error> {
        let damage = self.damage.as_ref()?;
        let LowWater { lsn, seq, wall_ns, .. } = self.start;
        let is_below = match from {
            Position::Start => true,
            // A frame in the gap may have the time of the last one before its end.
            Position::Time(_) => from.lower_limit().wall_ns.is_none_or(|from| from <= wall_ns),
            _ => from.is_purged(lsn, seq),
        };
        let gap = || Error::Gap { fault: Box::new(damage.clone()), whole_from: lsn };
        is_below.then(gap)
    }

    /// Looks for what is new since; true when there is something.
    pub(super) fn refresh(&mut self, disk: &Disk) -> Result<bool> {
        let control = disk.control()?;
        let newer = control.counter > self.control.counter;
        if newer && control.epoch != self.control.epoch {
            let generation = self.generation + 1;
            *self = Self { generation, ..Self::read(disk)? };
            return Ok(true);
        }
        if newer {
            self.control = control;
            if control.low_water.segment >= self.start.segment {
                (self.start, self.damage) = (control.low_water, None);
            }
            while self
                .segments
                .front()
                .is_some_and(|segment| segment.header.number < self.start.segment)
            {
                self.segments.pop_front();
            }
        }
        let mut found = false;
        while let Some(header) = disk.header(self.next_number())? {
            self.generation += u64::from(header.epoch_start.is_some());
            self.push(header)?;
            found = true;
        }
        Ok(found)
    }

    fn next_number(&self) -> SegmentNumber {
        self.segments.back().map_or(self.start.segment, |last| last.header.number.next())
    }

    fn push(&mut self, header: Header) -> Result<()> {
        let number = self.next_number();
        let previous = self.segments.back().map(|segment| &segment.header);
        let first_epoch = self.damage.is_none().then_some(self.start.epoch);
        if let Some(kind) = misfit(&self.control, first_epoch, &header, number, previous) {
            return Err(fault(number, kind));
        }
        self.segments.push_back(Segment { header, first: None });
        Ok(())
    }

    pub(super) fn sector(&self) -> u32 {
        self.control.sector
    }

    pub(super) fn low_water(&self) -> Lsn {
        self.control.low_water.lsn
    }

    pub(super) fn header(&self, number: SegmentNumber) -> Option<&Header> {
        let first = self.segments.front()?.header.number;
        let index = usize::try_from(number.0.checked_sub(first.0)?).ok()?;
        self.segments.get(index).map(|segment| &segment.header)
    }

    fn epoch_starts(&self) -> impl DoubleEndedIterator<Item = (&Header, &EpochStart)> {
        self.segments.iter().filter_map(|segment| {
            let header = &segment.header;
            header.epoch_start.as_ref().map(|epoch_start| (header, epoch_start))
        })
    }

    /// From here on later epochs replace what `epoch` wrote.
    pub(super) fn end_lsn(&self, epoch: Epoch) -> Lsn {
        let later = self.epoch_starts().filter(|(header, _)| header.epoch > epoch);
        later.map(|(_, epoch_start)| epoch_start.replaces_from).min().unwrap_or(Lsn::MAX)
    }

    /// The segment that opens the last of the epochs that begin at `lsn`.
    pub(super) fn epoch_start_at(&self, lsn: Lsn) -> Option<SegmentNumber> {
        let mut newest_first = self.epoch_starts().rev();
        newest_first
            .find(|(_, epoch_start)| epoch_start.base == lsn)
            .map(|(header, _)| header.number)
    }

    /// Everything below it is durable, whatever the frames' durable marks say.
    pub(super) fn durable(&self) -> Lsn {
        let newest =
            self.epoch_starts().next_back().map(|(_, epoch_start)| epoch_start.truncated_at);
        newest.map_or(self.low_water(), |truncated_at| truncated_at.max(self.low_water()))
    }

    pub(super) fn timeline(&self) -> Timeline {
        let headers = self.segments.iter().map(|segment| &segment.header);
        Timeline::new(self.start, headers)
    }

    /// The last live segment whose first frame fits, or the first live one. With
    /// `one_before`, the one before it, unless it opens an epoch: so that a walk from
    /// there shows whether the two are connected.
    pub(super) fn locate(
        &mut self,
        disk: &Disk,
        one_before: bool,
        fits: impl Fn(&Cursor) -> bool,
    ) -> Result<Begin> {
        let mut wanted = false;
        for index in (0..self.segments.len()).rev() {
            let Some(first) = self.first(disk, index)? else { continue };
            let Some(Segment { header, .. }) = self.segments.get(index) else { continue };
            let (number, opens) = (header.number, header.epoch_start.is_some());
            if first.lsn >= self.end_lsn(header.epoch) {
                continue;
            }
            if wanted || (fits(&first) && (opens || !one_before)) {
                return Ok(Begin { number, base: first.lsn, cursor: first });
            }
            wanted = fits(&first);
        }
        let low_water = &self.start;
        let cursor = Cursor::from(low_water);
        let replaced = low_water.lsn >= self.end_lsn(low_water.epoch);
        let epoch_start = if replaced { self.epoch_start_at(low_water.lsn) } else { None };
        let number = epoch_start.unwrap_or(low_water.segment);
        Ok(Begin { number, base: cursor.lsn, cursor })
    }

    /// A segment's first frame; none when it has none yet.
    fn first(&mut self, disk: &Disk, index: usize) -> Result<Option<Cursor>> {
        let (start, is_known) = (self.start, self.damage.is_none());
        let Some(segment) = self.segments.get_mut(index) else { return Ok(None) };
        if segment.header.number == start.segment && is_known {
            segment.first = Some(Cursor::from(&start));
        }
        if segment.first.is_none() {
            let number = segment.header.number;
            let Some(read_buffer) = disk.read_buffer(number, u64::from(MAX_SECTOR))? else {
                return Ok(None);
            };
            let mut frame_reader =
                FrameReader::new(read_buffer, &segment.header, Start::FirstFrame, Lsn::MAX);
            segment.first = frame_reader.peek()?.ok().map(|frame| Cursor {
                lsn: frame.lsn,
                seq: frame.first_seq,
                prev_crc: frame.prev_crc,
                wall_ns: frame.wall_ns,
            });
        }
        Ok(segment.first)
    }
}

pub(super) fn fault(number: SegmentNumber, kind: CorruptionKind) -> Error {
    Error::from(Box::new(Corruption {
        segment: Some(number),
        offset: None,
        lsn: None,
        durable: None,
        kind,
    }))
}

/// Why a header does not fit its place. The first one has `first_epoch`, where that is known.
fn misfit(
    control: &Control,
    first_epoch: Option<Epoch>,
    header: &Header,
    number: SegmentNumber,
    previous: Option<&Header>,
) -> Option<CorruptionKind> {
    if header.log_id != control.log_id {
        return Some(CorruptionKind::ForeignSegment);
    }
    if header.number != number {
        return Some(CorruptionKind::SegmentNumber);
    }
    if header.sector != control.sector {
        return Some(CorruptionKind::SectorSize);
    }
    let fits = match previous {
        None => first_epoch.is_none_or(|epoch| header.epoch == epoch),
        Some(previous) if previous.nonce != header.previous_nonce => false,
        Some(previous) if previous.epoch == header.epoch => {
            previous.nonce == header.nonce && header.epoch_start.is_none()
        }
        Some(previous) => previous.epoch < header.epoch && header.epoch_start.is_some(),
    };
    (!fits).then_some(CorruptionKind::Epoch)
}
