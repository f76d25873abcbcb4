//! From segment headers and scans to the live log: which bytes count, where the
//! frames end (X), what was promised (D), and what contradicts the format's rules.
//!
//! Pure: no I/O, no clock. Owns the rules of epochs (what a later opening supersedes),
//! of numbers and nonces, and of segments that end without a seal.

use std::ops::Range;

use bulla_storage::Corruption;
use bulla_storage::CorruptionKind;
use bulla_storage::Epoch;
use bulla_storage::FrameDamage;
use bulla_storage::Lsn;
use bulla_storage::SegmentNumber;
use bulla_storage::faults::mutants::{Bug, either, planted};
use bulla_storage::files::dir::SegmentFile;
use bulla_storage::format::{Control, Header, LowWater, Opening};
use bulla_storage::frames::anchor::Landmark;
use bulla_storage::io::FileKind;

use crate::report::Proof;
use crate::scan::{Promise, Scan};
use crate::verdict::Rest;
use bulla_storage::frames::reader::{Cursor, End, Start};
use bulla_storage::frames::timeline::History;

/// A segment whose header fits its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: SegmentNumber,
    pub(crate) file_len: u64,
    pub(crate) header: Header,
    pub(crate) start: Start,
    /// From here on its epoch's frames are superseded.
    pub(crate) ceiling: Lsn,
    /// Is all of it superseded?
    pub(crate) superseded: bool,
    /// Is it of the newest epoch?
    pub(crate) newest: bool,
}

/// What the headers alone tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) low_water: LowWater,
    /// Where the frames are looked at from: the low-water mark, or a landmark above it.
    pub(crate) start: Cursor,
    /// Index of the segment in which that is.
    pub(crate) first: usize,
    /// Where that segment starts.
    pub(crate) first_start: LowWater,
    /// The segments from the low-water mark on, to the first that does not fit.
    pub(crate) segments: Vec<Segment>,
    /// What does not fit.
    pub(crate) fault: Option<Corruption>,
}

/// Checks headers and works out what is to be scanned.
///
/// `files` and `headers` go together, from the low-water mark on, in order of number.
/// No segment of this log is of a later epoch than `control`.
pub(crate) fn plan(
    control: &Control,
    files: &[SegmentFile],
    headers: Vec<Result<Header, CorruptionKind>>,
) -> Plan {
    let low_water = control.low_water;
    let ceilings = Ceilings::new(control, files, &headers);
    let mut segments: Vec<Segment> = Vec::new();
    let mut fault = None;
    let mut expected = low_water.segment;
    for (file, header) in files.iter().zip(headers) {
        let previous = segments.last();
        let checked = if file.number == expected {
            check_header(control, file, header, previous.map(|segment| &segment.header))
        } else {
            Err(CorruptionKind::SegmentMissing)
        };
        let header = match checked {
            Ok(header) => header,
            Err(kind) => {
                fault = Some(segment_fault(expected, kind));
                break;
            }
        };
        let start = start_of(&low_water, previous.is_none(), &header);
        let ceiling = ceilings.above(header.epoch);
        let superseded = match start {
            // The rest of an epoch that is superseded from its opening on is, too.
            Start::FirstFrame => previous.is_some_and(|previous| previous.superseded),
            Start::At { cursor, .. } => cursor.lsn >= ceiling,
            Start::Opening { base, .. } => base >= ceiling,
        };
        let number = file.number;
        segments.push(Segment {
            number,
            file_len: file.len,
            header,
            start,
            ceiling,
            superseded,
            newest: false,
        });
        let Some(next) = number.0.checked_add(1) else {
            fault = Some(segment_fault(number, CorruptionKind::SegmentNumber));
            break;
        };
        expected = SegmentNumber(next);
    }
    let newest = segments.last().map(|segment| segment.header.epoch);
    for segment in &mut segments {
        segment.newest = Some(segment.header.epoch) == newest;
    }
    let start = Cursor::from(&low_water);
    Plan { low_water, start, first: 0, first_start: low_water, segments, fault }
}

impl Plan {
    /// The segment of a landmark, if the headers say nothing against it.
    pub(crate) fn place_of(&self, landmark: &Landmark) -> Option<(usize, &Segment)> {
        let number = landmark.segment.segment;
        let index = self.segments.iter().position(|segment| segment.number == number)?;
        let segment = self.segments.get(index)?;
        let headers = self.segments.iter().map(|segment| &segment.header);
        let history = History::new(self.low_water, headers);
        let stands = landmark.at.lsn >= self.low_water.lsn
            && landmark.at.lsn <= segment.ceiling
            && history.check_read(landmark.epoch, landmark.upto).is_ok();
        stands.then_some((index, segment))
    }

    /// Leaves out what is below a landmark in the segment with this index.
    pub(crate) fn start_at(&mut self, index: usize, landmark: &Landmark) {
        (self.first, self.first_start, self.start) = (index, landmark.segment, landmark.at);
        if let Some(segment) = self.segments.get_mut(index) {
            segment.start = Start::At { base: landmark.segment.lsn, cursor: landmark.at };
        }
    }
}

fn segment_fault(number: SegmentNumber, kind: CorruptionKind) -> Corruption {
    Corruption { segment: Some(number), offset: None, lsn: None, durable: None, kind }
}

fn check_header(
    control: &Control,
    file: &SegmentFile,
    header: Result<Header, CorruptionKind>,
    previous: Option<&Header>,
) -> Result<Header, CorruptionKind> {
    if file.kind != FileKind::Regular {
        return Err(CorruptionKind::NotAFile);
    }
    let header = header?;
    if header.log_id != control.log_id {
        return Err(CorruptionKind::ForeignSegment);
    }
    if header.number != file.number {
        return Err(CorruptionKind::SegmentNumber);
    }
    if header.sector != control.sector {
        return Err(CorruptionKind::SectorSize);
    }
    if !planted(Bug::StaleEpochAccepted)
        && header.epoch == control.epoch
        && header.nonce != control.nonce
    {
        return Err(CorruptionKind::Epoch);
    }
    let low_water = &control.low_water;
    let fits = match previous {
        None => header.epoch == low_water.epoch,
        Some(_) if planted(Bug::StaleEpochAccepted) => true,
        Some(previous) if previous.nonce != header.previous_nonce => false,
        Some(previous) if previous.epoch == header.epoch => {
            previous.nonce == header.nonce && header.opening.is_none()
        }
        Some(previous) => previous.epoch < header.epoch && header.opening.is_some(),
    };
    if !fits {
        return Err(CorruptionKind::Epoch);
    }
    if let Some(opening) = &header.opening {
        let in_place = match previous {
            None => opening.base == low_water.lsn,
            Some(_) => opening.base >= low_water.lsn,
        };
        if !in_place {
            return Err(CorruptionKind::Opening);
        }
    }
    Ok(header)
}

fn start_of(low_water: &LowWater, first: bool, header: &Header) -> Start {
    match &header.opening {
        // Purge removes whole segments: the mark is where one begins.
        _ if first => Start::At { base: low_water.lsn, cursor: Cursor::from(low_water) },
        Some(opening) => Start::Opening { base: opening.base, seq: opening.first_seq },
        None => Start::FirstFrame,
    }
}

/// From where on the openings of later epochs supersede an epoch.
struct Ceilings {
    /// Sorted by epoch; each with the lowest `supersedes_from` of it and all later ones.
    openings: Vec<(Epoch, Lsn)>,
}

impl Ceilings {
    /// Openings behind a segment that does not fit count, too: what they supersede was
    /// superseded when they were written.
    fn new(
        control: &Control,
        files: &[SegmentFile],
        headers: &[Result<Header, CorruptionKind>],
    ) -> Self {
        let mut openings: Vec<(Epoch, Lsn)> = files
            .iter()
            .zip(headers)
            .filter_map(|(file, header)| {
                let header = header.as_ref().ok()?;
                let opening: &Opening = header.opening.as_ref()?;
                let ours = header.log_id == control.log_id && header.number == file.number;
                ours.then_some((header.epoch, opening.supersedes_from))
            })
            .collect();
        openings.sort_unstable();
        let mut lowest = Lsn::MAX;
        for (_, from) in openings.iter_mut().rev() {
            lowest = lowest.min(*from);
            *from = lowest;
        }
        Self { openings }
    }

    fn above(&self, epoch: Epoch) -> Lsn {
        let later = self.openings.partition_point(|(opened, _)| *opened <= epoch);
        self.openings.get(later).map_or(Lsn::MAX, |(_, from)| *from)
    }
}

/// Live frames of one segment, contiguous with those of the span before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Span {
    /// Index of the segment in the plan.
    pub(crate) index: usize,
    /// LSN of the segment's byte `sector`.
    pub(crate) base: Lsn,
    pub(crate) start: Cursor,
    pub(crate) end: Cursor,
}

/// Where the frames end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// Index of the segment in the plan.
    pub(crate) index: usize,
    pub(crate) offset: u64,
}

/// The live log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) spans: Vec<Span>,
    /// X: what the next frame would have to continue.
    pub(crate) end: Cursor,
    /// Where it would have to be; none in a log without segments.
    pub(crate) place: Option<Place>,
    /// Why it is not there.
    pub(crate) damage: FrameDamage,
    /// D, and what proves it.
    pub(crate) durable: Lsn,
    pub(crate) proof: Proof,
    /// What follows X.
    pub(crate) rest: Rest,
    /// Was the log closed in order?
    pub(crate) closed: bool,
    /// Bytes behind the frames of a segment that has a successor: a damaged seal.
    pub(crate) ignored: Vec<(Place, FrameDamage)>,
    /// What contradicts the rules, apart from X < D.
    pub(crate) fault: Option<Corruption>,
}

/// Joins the scans. `scans` go with the plan's segments; wholly superseded ones have none.
pub(crate) fn join(plan: &Plan, scans: &[Option<Scan>], sector: u32) -> Chain {
    let start = plan.start;
    let mut chain = Chain {
        spans: Vec::new(),
        end: start,
        place: None,
        damage: FrameDamage::EndOfFile,
        durable: start.lsn,
        proof: if start.lsn > plan.low_water.lsn { Proof::Landmark } else { Proof::LowWater },
        rest: Rest::Zeros,
        closed: false,
        ignored: Vec::new(),
        fault: plan.fault.clone(),
    };
    let joint = Joint { plan, scans, sector };
    let groups = groups(&plan.segments, plan.first);
    let newest = groups.len().saturating_sub(1);
    for (index, group) in groups.into_iter().enumerate() {
        if !joint.group(&mut chain, group, index == newest) {
            break;
        }
    }
    chain
}

/// The plan's segments from `first` on by epoch.
fn groups(segments: &[Segment], first: usize) -> Vec<Range<usize>> {
    let mut at = first;
    segments
        .get(first..)
        .unwrap_or(&[])
        .chunk_by(|left, right| left.header.epoch == right.header.epoch)
        .map(|group| {
            let start = at;
            at += group.len();
            start..at
        })
        .collect()
}

#[derive(Clone, Copy)]
struct Joint<'a> {
    plan: &'a Plan,
    scans: &'a [Option<Scan>],
    sector: u32,
}

impl Joint<'_> {
    /// Takes in the segments of one epoch; false when the log ends there.
    fn group(&self, chain: &mut Chain, group: Range<usize>, newest: bool) -> bool {
        let Some(opener) = self.plan.segments.get(group.start) else { return false };
        if opener.superseded {
            return true;
        }
        if !opening_fits(opener, chain.end) {
            let mut fault = segment_fault(opener.number, CorruptionKind::Opening);
            fault.lsn = Some(chain.end.lsn);
            chain.fault.get_or_insert(fault);
            return false;
        }
        self.walk_group(chain, group.clone());
        if newest {
            self.judge_newest(chain, group);
            return true;
        }
        if chain.end.lsn == opener.ceiling {
            return true;
        }
        // The later opening exists, so everything below it was durable then.
        chain.durable = opener.ceiling;
        chain.proof = Proof::Superseded { by: opener.ceiling };
        let fault = self.frame_fault(chain);
        chain.fault = Some(fault);
        false
    }

    fn walk_group(&self, chain: &mut Chain, group: Range<usize>) {
        let sector = u64::from(self.sector);
        let mut sealed = false;
        for index in group.clone() {
            let Some((segment, Some(scan))) =
                self.plan.segments.get(index).zip(self.scans.get(index))
            else {
                return;
            };
            let opener = index == group.start;
            let mismatch = match &scan.first {
                Some(first) => first.mismatch(&chain.end),
                // An opening may have no frame yet and a successor none the less.
                None if opener => None,
                None => Some(stop_damage(scan)),
            };
            if let Some(damage) = mismatch {
                if opener || sealed {
                    chain.damage = damage;
                    chain.place = Some(Place { index, offset: sector });
                }
                return;
            }
            if let Some((place, damage)) =
                chain.place.filter(|_| !opener).map(|p| (p, chain.damage))
                && !sealed
                && damage != FrameDamage::Zeros
                && damage != FrameDamage::EndOfFile
            {
                chain.ignored.push((place, damage));
            }
            let start = chain.end;
            if let Some(last) = scan.last {
                chain.end = Cursor { wall_ns: start.wall_ns.max(last.wall_ns), ..last };
            }
            if let Some(base) = scan.base(segment.start, self.sector) {
                chain.spans.push(Span { index, base, start, end: chain.end });
            }
            chain.place = Some(Place { index, offset: scan.stop_offset });
            chain.damage = stop_damage(scan);
            sealed = scan.stop == End::Rotated;
            chain.closed = scan.stop == End::Closed;
            if chain.closed || scan.stop == End::Ceiling {
                return;
            }
        }
        if sealed {
            // A rotated seal is written only when its successor is durable.
            let last = group.end.checked_sub(1).and_then(|last| self.plan.segments.get(last));
            if let Some(last) = last {
                let mut fault = segment_fault(last.number.next(), CorruptionKind::SegmentMissing);
                fault.lsn = Some(chain.end.lsn);
                fault.durable = Some(chain.end.lsn);
                chain.fault.get_or_insert(fault);
            }
        }
    }

    /// The highest promise of the newest epoch, and what follows its frames.
    fn judge_newest(&self, chain: &mut Chain, group: Range<usize>) {
        let Some(place) = chain.place else { return };
        if let Some(segment) = self.plan.segments.get(group.start)
            && let Some(opening) = &segment.header.opening
        {
            let cut_at = either(opening.cut_at, Bug::OpeningPromisesNothing, opening.base);
            chain.prove(cut_at, Proof::Opening { segment: segment.number });
        }
        for index in group {
            let Some((segment, Some(scan))) =
                self.plan.segments.get(index).zip(self.scans.get(index))
            else {
                continue;
            };
            let connected = chain.spans.iter().any(|span| span.index == index);
            let probed = if connected { scan.probed_in_place } else { scan.probed };
            for Promise { promise, offset, lsn } in scan.walked.into_iter().chain(probed) {
                let torn = offset >= scan.stop_offset;
                chain.prove(promise, Proof::Frame { segment: segment.number, offset, lsn, torn });
            }
            // Behind X nothing may be but zeros. Valid frames there are something, too.
            let from = match index.cmp(&place.index) {
                std::cmp::Ordering::Less => continue,
                std::cmp::Ordering::Equal => place.offset,
                std::cmp::Ordering::Greater => u64::from(self.sector),
            };
            if scan.stop_offset > from || scan.nonzero_end.is_some() {
                chain.rest = Rest::Something;
            }
        }
    }

    fn frame_fault(&self, chain: &Chain) -> Corruption {
        frame_fault(self.plan, chain)
    }
}

impl Chain {
    fn prove(&mut self, durable: Lsn, proof: Proof) {
        if durable > self.durable {
            self.durable = durable;
            self.proof = proof;
        }
    }
}

/// The corruption that X below D is.
pub(crate) fn frame_fault(plan: &Plan, chain: &Chain) -> Corruption {
    let segment = chain.place.and_then(|place| plan.segments.get(place.index));
    Corruption {
        segment: segment.map(|segment| segment.number),
        offset: chain.place.map(|place| place.offset),
        lsn: Some(chain.end.lsn),
        durable: Some(chain.durable),
        kind: CorruptionKind::Frame(chain.damage),
    }
}

/// Does the epoch begin where the log before it ends?
fn opening_fits(segment: &Segment, end: Cursor) -> bool {
    match segment.start {
        Start::At { cursor, .. } => cursor.mismatch(&end).is_none(),
        Start::Opening { base, seq } => base == end.lsn && seq == end.seq,
        Start::FirstFrame => false,
    }
}

fn stop_damage(scan: &Scan) -> FrameDamage {
    match scan.stop {
        End::Damage(damage) => damage,
        End::Ceiling | End::Rotated | End::Closed => FrameDamage::Boundary,
    }
}
