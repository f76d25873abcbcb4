//! From segment headers to a plan: which segments are the log's, where each starts, and where
//! a later epoch replaces it.
//!
//! Pure: no I/O, no clock. Owns the rules of epochs, numbers and nonces. Says what does not
//! fit; what that means, `verdict` decides.

use bulla_storage::files::dir::SegmentFile;
use bulla_storage::format::{Control, EpochStart, Header, LowWater};
use bulla_storage::frames::anchor::Anchor;
use bulla_storage::io::FileKind;
use bulla_storage::{Corruption, CorruptionKind, Epoch, Lsn, SegmentNumber};

use crate::faults;
use crate::verdict::{ControlEpoch, Headers};
use bulla_storage::frames::reader::{Cursor, Start};
use bulla_storage::frames::timeline::Timeline;

/// A segment whose header fits its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedSegment {
    pub(crate) number: SegmentNumber,
    pub(crate) file_len: u64,
    pub(crate) header: Header,
    pub(crate) start: Start,
    /// The exclusive end of its epoch's frames: from here on a later epoch replaces them.
    pub(crate) end_lsn: Lsn,
    /// A later epoch replaces all of it.
    pub(crate) replaced: bool,
    /// It is of the newest epoch.
    pub(crate) newest: bool,
}

/// The first thing that does not fit among the headers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub(crate) headers: Headers,
    pub(crate) fault: Corruption,
}

/// What the headers alone tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) low_water: LowWater,
    /// Where the scan starts: the low-water mark, or an anchor above it.
    pub(crate) start: Cursor,
    /// Index of the segment in which that is.
    pub(crate) first: usize,
    /// Where that segment starts.
    pub(crate) first_start: LowWater,
    /// The segments from the low-water mark on, to the first that does not fit. Where one below
    /// an anchor does not fit: those from the segment on of that anchor, or of an older one above it.
    pub(crate) segments: Vec<PlannedSegment>,
    /// Set where something below an anchor does not fit.
    pub(crate) restart: Option<Restart>,
    pub(crate) misfit: Option<Misfit>,
    /// The segment of a later epoch than CONTROL's.
    pub(crate) control_behind: Option<Corruption>,
    /// There is no segment, and CONTROL is as the log's creation wrote it.
    pub(crate) is_new: bool,
}

/// What is known of a log below the segments of its plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    /// Where they start: the segment of an anchor.
    start: LowWater,
    /// The headers before it that are intact: they tell where epochs truncated the log.
    below: Vec<Header>,
}

/// A segment's header, or what is wrong with it, as far as the header itself tells.
pub(crate) type ReadHeader = Result<Header, (Headers, CorruptionKind)>;

/// Checks headers and plans what to scan.
///
/// `files` and `headers` go together, from the low-water mark on, in order of number.
/// `control` is raised to the highest epoch that a segment of this log has. What is below the first
/// of `anchors` need not fit: nothing there is read. Where it does not, the plan has what follows it
/// from one of the others on, if that fits.
pub(crate) fn plan(
    control: &mut Control,
    files: &[SegmentFile],
    headers: &[ReadHeader],
    anchors: &[Anchor],
) -> Plan {
    // A damaged newest slot leaves CONTROL behind its segments. That is a fault, but no reason
    // to call what they hold unreadable.
    let behind = epoch_ahead(control, files, headers);
    if let Some((epoch, nonce, _)) = &behind {
        (control.epoch, control.nonce) = (*epoch, *nonce);
    }
    let low_water = control.low_water;
    let (mut segments, mut misfit) = fitting(control, &low_water, files, headers);
    let mut restart = None;
    if misfit.is_some()
        && let Some(anchor) = anchors.first().map(|anchor| anchor.segment.segment)
        && segments.last().is_none_or(|last| last.number < anchor)
    {
        let mut starts: Vec<LowWater> = anchors.iter().map(|anchor| anchor.segment).collect();
        starts.retain(|start| start.segment <= anchor);
        starts.sort_by_key(|start| start.segment);
        let above = |start: &LowWater| {
            let below = files.partition_point(|file| file.number < start.segment);
            let above = files.get(below..).zip(headers.get(below..)).unwrap_or_default();
            fitting(control, start, above.0, above.1)
        };
        let reaches =
            |segments: &[PlannedSegment]| segments.last().is_some_and(|last| last.number >= anchor);
        let whole = starts.iter().map(|start| (*start, above(start)));
        if let Some((start, fitting)) = whole.into_iter().find(|(_, found)| reaches(&found.0)) {
            (segments, misfit) = fitting;
            let below = ours(control, files, headers);
            let below = below.take_while(|header| header.number < start.segment);
            restart = Some(Restart { start, below: below.cloned().collect() });
        }
    }
    Plan {
        low_water,
        start: Cursor::from(&low_water),
        first: 0,
        first_start: low_water,
        segments,
        restart,
        misfit,
        control_behind: behind.map(|(_, _, fault)| fault),
        is_new: false,
    }
}

/// Returns the segments that fit, and what is wrong with the first that does not.
fn fitting(
    control: &Control,
    low_water: &LowWater,
    files: &[SegmentFile],
    headers: &[ReadHeader],
) -> (Vec<PlannedSegment>, Option<Misfit>) {
    let replacing = ReplacingOpenings::new(control, files, headers);
    let mut segments: Vec<PlannedSegment> = Vec::new();
    let mut misfit = None;
    let mut expected = low_water.segment;
    for (file, header) in files.iter().zip(headers) {
        let previous = segments.last();
        let checked = if file.number == expected {
            let previous = previous.map(|segment| &segment.header);
            check_header(control, low_water, file, header.clone(), previous)
        } else {
            Err((Headers::Gap, CorruptionKind::SegmentMissing))
        };
        let header = match checked {
            Ok(header) => header,
            Err((headers, kind)) => {
                misfit = Some(Misfit { headers, fault: segment_fault(expected, kind) });
                break;
            }
        };
        let start = start_of(low_water, previous.is_none(), &header);
        let end_lsn = replacing.end_of(header.epoch);
        let replaced = match start {
            // If an epoch is replaced from its start on, the rest of it is replaced too.
            Start::FirstFrame => previous.is_some_and(|previous| previous.replaced),
            Start::At { cursor, .. } => cursor.lsn >= end_lsn,
            Start::EpochStart { base, .. } => base >= end_lsn,
        };
        let number = file.number;
        segments.push(PlannedSegment {
            number,
            file_len: file.len,
            header,
            start,
            end_lsn,
            replaced,
            newest: false,
        });
        let Some(next) = number.0.checked_add(1) else {
            let fault = segment_fault(number, CorruptionKind::SegmentNumber);
            misfit = Some(Misfit { headers: Headers::Misnumbered, fault });
            break;
        };
        expected = SegmentNumber(next);
    }
    let newest = segments.last().map(|segment| segment.header.epoch);
    for segment in &mut segments {
        segment.newest = Some(segment.header.epoch) == newest;
    }
    (segments, misfit)
}

impl Plan {
    /// Notes that there is no segment: in a new log, or in one that lost them.
    pub(crate) fn note_empty(&mut self, is_new: bool) {
        self.is_new = is_new;
        if !is_new {
            let fault = Corruption {
                segment: Some(self.low_water.segment),
                offset: None,
                lsn: Some(self.low_water.lsn),
                durable: Some(self.low_water.lsn),
                kind: CorruptionKind::SegmentMissing,
            };
            self.misfit.get_or_insert(Misfit { headers: Headers::NoneLeft, fault });
        }
    }

    /// What the headers say, as a fact for the verdict.
    pub(crate) fn headers(&self) -> Headers {
        match &self.misfit {
            Some(misfit) => misfit.headers,
            None if self.is_new => Headers::NoneYet,
            None => Headers::Fit,
        }
    }

    /// What the headers say of CONTROL, as a fact for the verdict.
    pub(crate) fn control(&self) -> ControlEpoch {
        match self.control_behind {
            Some(_) => ControlEpoch::Behind,
            None => ControlEpoch::Newest,
        }
    }

    pub(crate) fn timeline(&self) -> Timeline {
        let planned = self.segments.iter().map(|segment| &segment.header);
        let Some(Restart { start, below }) = &self.restart else {
            return Timeline::new(self.low_water, planned);
        };
        let mut timeline = Timeline::new(self.low_water, below.iter().chain(planned));
        timeline.note_start(start);
        timeline
    }

    /// Finds the segment of an anchor, unless the headers contradict the anchor.
    pub(crate) fn place_of(&self, anchor: &Anchor) -> Option<(usize, &PlannedSegment)> {
        let number = anchor.segment.segment;
        let index = self.segments.iter().position(|segment| segment.number == number)?;
        let segment = self.segments.get(index)?;
        let stands = anchor.at.lsn >= self.low_water.lsn
            && anchor.at.lsn <= segment.end_lsn
            && self.timeline().check_read(anchor.epoch, anchor.upto).is_ok();
        stands.then_some((index, segment))
    }

    /// Leaves out what is below an anchor in the segment with this index.
    pub(crate) fn start_at(&mut self, index: usize, anchor: &Anchor) {
        (self.first, self.first_start, self.start) = (index, anchor.segment, anchor.at);
        if let Some(segment) = self.segments.get_mut(index) {
            segment.start = Start::At { base: anchor.segment.lsn, cursor: anchor.at };
        }
    }
}

pub(crate) fn segment_fault(number: SegmentNumber, kind: CorruptionKind) -> Corruption {
    Corruption { segment: Some(number), offset: None, lsn: None, durable: None, kind }
}

/// Finds the first segment of the highest epoch above CONTROL's, with its epoch and nonce.
fn epoch_ahead(
    control: &Control,
    files: &[SegmentFile],
    headers: &[ReadHeader],
) -> Option<(Epoch, u64, Corruption)> {
    let ours = ours(control, files, headers).filter(|header| header.epoch > control.epoch);
    let highest = ours.clone().map(|header| header.epoch).max()?;
    let header = ours.into_iter().find(|header| header.epoch == highest)?;
    let mut fault = segment_fault(header.number, CorruptionKind::Epoch);
    fault.offset = Some(0);
    Some((highest, header.nonce, fault))
}

/// Returns the headers that are intact and of this log, in their places.
fn ours<'a>(
    control: &Control,
    files: &'a [SegmentFile],
    headers: &'a [ReadHeader],
) -> impl Iterator<Item = &'a Header> + Clone {
    let log_id = control.log_id;
    files.iter().zip(headers).filter_map(move |(file, header)| {
        let header = header.as_ref().ok()?;
        (header.log_id == log_id && header.number == file.number).then_some(header)
    })
}

fn check_header(
    control: &Control,
    low_water: &LowWater,
    file: &SegmentFile,
    header: ReadHeader,
    previous: Option<&Header>,
) -> ReadHeader {
    if file.kind != FileKind::Regular {
        return Err((Headers::NotAFile, CorruptionKind::NotAFile));
    }
    let header = header?;
    if header.log_id != control.log_id {
        return Err((Headers::Foreign, CorruptionKind::ForeignSegment));
    }
    if header.number != file.number {
        return Err((Headers::Misnumbered, CorruptionKind::SegmentNumber));
    }
    if header.sector != control.sector {
        return Err((Headers::SectorSize, CorruptionKind::SectorSize));
    }
    if !faults::read::epoch_fits(epoch_fits(control, low_water, &header, previous)) {
        return Err((Headers::Epoch, CorruptionKind::Epoch));
    }
    if let Some(epoch_start) = &header.epoch_start {
        let in_place = match previous {
            None => epoch_start.base == low_water.lsn,
            Some(_) => epoch_start.base >= low_water.lsn,
        };
        if !in_place {
            return Err((Headers::OpeningOutOfLog, CorruptionKind::EpochStart));
        }
    }
    Ok(header)
}

/// Returns whether a segment's epoch and nonces fit CONTROL and the segment before.
fn epoch_fits(
    control: &Control,
    low_water: &LowWater,
    header: &Header,
    previous: Option<&Header>,
) -> bool {
    if header.epoch == control.epoch && header.nonce != control.nonce {
        return false;
    }
    match previous {
        None => header.epoch == low_water.epoch,
        Some(previous) if previous.nonce != header.previous_nonce => false,
        Some(previous) if previous.epoch == header.epoch => {
            previous.nonce == header.nonce && header.epoch_start.is_none()
        }
        Some(previous) => previous.epoch < header.epoch && header.epoch_start.is_some(),
    }
}

fn start_of(low_water: &LowWater, first: bool, header: &Header) -> Start {
    match &header.epoch_start {
        // Purge removes whole segments: the mark is where one begins.
        _ if first => Start::At { base: low_water.lsn, cursor: Cursor::from(low_water) },
        Some(epoch_start) => {
            Start::EpochStart { base: epoch_start.base, seq: epoch_start.first_seq }
        }
        None => Start::FirstFrame,
    }
}

/// Where the frames of each epoch end because later epochs replace them.
struct ReplacingOpenings {
    /// Sorted by epoch; each with the lowest `replaces_from` of it and all later ones.
    epoch_starts: Vec<(Epoch, Lsn)>,
}

impl ReplacingOpenings {
    /// Collects the epoch starts, also those behind a segment that does not fit: what they
    /// replace was replaced when they were written.
    fn new(control: &Control, files: &[SegmentFile], headers: &[ReadHeader]) -> Self {
        let mut epoch_starts: Vec<(Epoch, Lsn)> = files
            .iter()
            .zip(headers)
            .filter_map(|(file, header)| {
                let header = header.as_ref().ok()?;
                let epoch_start: &EpochStart = header.epoch_start.as_ref()?;
                let ours = header.log_id == control.log_id && header.number == file.number;
                ours.then_some((header.epoch, epoch_start.replaces_from))
            })
            .collect();
        epoch_starts.sort_unstable();
        let mut lowest = Lsn::MAX;
        for (_, from) in epoch_starts.iter_mut().rev() {
            lowest = lowest.min(*from);
            *from = lowest;
        }
        Self { epoch_starts }
    }

    /// Returns the exclusive end of an epoch's frames.
    fn end_of(&self, epoch: Epoch) -> Lsn {
        let later = self.epoch_starts.partition_point(|(opened, _)| *opened <= epoch);
        self.epoch_starts.get(later).map_or(Lsn::MAX, |(_, from)| *from)
    }
}
