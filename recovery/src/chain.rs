//! From scans to the live log: which frames count, where they end, and what was marked durable.
//!
//! Pure: no I/O, no clock. Owns the order in which segments join, across epochs and across
//! segments that end without a seal. Gathers facts; `verdict` decides what they mean.

use std::cmp::Ordering;
use std::ops::Range;

use bulla_storage::{Corruption, CorruptionKind, FrameDamage, Lsn};

use crate::faults;
use crate::log_dir::damage;
use crate::plan::{Plan, PlannedSegment, segment_fault};
use crate::report::Proof;
use crate::scan::{DurableMark, Scan};
use crate::verdict::{Epochs, LastFrame, Rest, Successor};
use bulla_storage::frames::reader::{Cursor, End, Start};

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

/// The live log, and the facts that the verdict takes from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) spans: Vec<Span>,
    /// The end of the frames that can be read in order: what the next one must continue.
    pub(crate) valid_end: Cursor,
    /// Where the next frame must be; `None` in a log without segments.
    pub(crate) place: Option<Place>,
    /// Why it is not there.
    pub(crate) damage: FrameDamage,
    /// The highest durable mark, and what proves it.
    pub(crate) durable_end: Lsn,
    pub(crate) proof: Proof,
    /// Bytes behind the frames of a segment that has a successor: a damaged seal.
    pub(crate) ignored: Vec<(Place, FrameDamage)>,
    pub(crate) epochs: Epochs,
    /// The segment whose opening does not fit.
    pub(crate) opening_fault: Option<Corruption>,
    pub(crate) successor: Successor,
    /// The successor that is missing.
    pub(crate) successor_fault: Option<Corruption>,
    pub(crate) rest: Rest,
    pub(crate) last_frame: LastFrame,
}

/// Joins the scans. `scans` go with the plan's segments; replaced ones have none.
pub(crate) fn join(plan: &Plan, scans: &[Option<Scan>], sector: u32) -> Chain {
    let start = plan.start;
    let mut chain = Chain {
        spans: Vec::new(),
        valid_end: start,
        place: None,
        damage: FrameDamage::EndOfFile,
        durable_end: start.lsn,
        proof: if start.lsn > plan.low_water.lsn { Proof::Anchor } else { Proof::LowWater },
        ignored: Vec::new(),
        epochs: Epochs::Joined,
        opening_fault: None,
        successor: Successor::Settled,
        successor_fault: None,
        rest: Rest::Zeros,
        last_frame: LastFrame::Running,
    };
    let joiner = Joiner { plan, scans, sector };
    let epochs = by_epoch(&plan.segments, plan.first);
    let newest = epochs.len().saturating_sub(1);
    for (index, epoch) in epochs.into_iter().enumerate() {
        if !joiner.join_epoch(&mut chain, epoch, index == newest) {
            break;
        }
    }
    chain
}

/// Groups the plan's segments from `first` on by epoch.
fn by_epoch(segments: &[PlannedSegment], first: usize) -> Vec<Range<usize>> {
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
struct Joiner<'a> {
    plan: &'a Plan,
    scans: &'a [Option<Scan>],
    sector: u32,
}

impl Joiner<'_> {
    /// Joins the segments of one epoch. Returns false when the log ends there.
    fn join_epoch(&self, chain: &mut Chain, epoch: Range<usize>, newest: bool) -> bool {
        let Some(opener) = self.plan.segments.get(epoch.start) else { return false };
        if opener.replaced {
            return true;
        }
        if !epoch_start_fits(opener, chain.valid_end) {
            let mut fault = segment_fault(opener.number, CorruptionKind::EpochStart);
            fault.lsn = Some(chain.valid_end.lsn);
            (chain.epochs, chain.opening_fault) = (Epochs::OpeningMisfit, Some(fault));
            return false;
        }
        let sealed = self.join_segments(chain, epoch.clone());
        if sealed {
            self.note_missing_successor(chain, &epoch);
        }
        if newest {
            self.read_marks(chain, epoch);
            return true;
        }
        if chain.valid_end.lsn == opener.end_lsn {
            return true;
        }
        // The later epoch start exists, so everything below it was durable then.
        chain.durable_end = opener.end_lsn;
        chain.proof = Proof::LaterEpoch { starts_at: opener.end_lsn };
        chain.epochs = Epochs::CutShort;
        false
    }

    /// Joins segments as long as each continues the one before. Returns whether the last one
    /// ends with a rotated seal.
    fn join_segments(&self, chain: &mut Chain, epoch: Range<usize>) -> bool {
        let mut sealed = false;
        for index in epoch.clone() {
            let Some((segment, Some(scan))) =
                self.plan.segments.get(index).zip(self.scans.get(index))
            else {
                return false;
            };
            let opener = index == epoch.start;
            if let Some(damage) = mismatch(scan, opener, chain.valid_end) {
                if opener || sealed {
                    chain.damage = damage;
                    chain.place = Some(Place { index, offset: u64::from(self.sector) });
                }
                return false;
            }
            if !opener && !sealed {
                chain.note_ignored();
            }
            self.append(chain, index, segment, scan);
            sealed = scan.stop == End::Rotated;
            if matches!(scan.stop, End::Closed | End::Ceiling) {
                return false;
            }
        }
        sealed
    }

    /// Appends the frames of a segment that continues the chain.
    fn append(&self, chain: &mut Chain, index: usize, segment: &PlannedSegment, scan: &Scan) {
        let start = chain.valid_end;
        if let Some(last) = scan.last {
            chain.valid_end = last;
        }
        if let Some(base) = scan.base(segment.start, self.sector) {
            chain.spans.push(Span { index, base, start, end: chain.valid_end });
        }
        chain.place = Some(Place { index, offset: scan.stop_offset });
        chain.damage = damage(scan.stop);
        chain.last_frame = match scan.stop {
            End::Closed => LastFrame::Shutdown,
            End::Damage(_) | End::Ceiling | End::Rotated => LastFrame::Running,
        };
    }

    fn note_missing_successor(&self, chain: &mut Chain, epoch: &Range<usize>) {
        let last = epoch.end.checked_sub(1).and_then(|last| self.plan.segments.get(last));
        if let Some(last) = last.filter(|_| chain.successor_fault.is_none()) {
            let mut fault = segment_fault(last.number.next(), CorruptionKind::SegmentMissing);
            fault.lsn = Some(chain.valid_end.lsn);
            fault.durable = Some(chain.valid_end.lsn);
            (chain.successor, chain.successor_fault) = (Successor::Missing, Some(fault));
        }
    }

    /// Finds the highest durable mark of the newest epoch, and what follows its frames.
    fn read_marks(&self, chain: &mut Chain, epoch: Range<usize>) {
        let Some(place) = chain.place else { return };
        if let Some(segment) = self.plan.segments.get(epoch.start)
            && let Some(epoch_start) = &segment.header.epoch_start
        {
            let mark = faults::read::epoch_start_mark(epoch_start);
            chain.prove(mark, Proof::EpochStart { segment: segment.number });
        }
        for index in epoch {
            let Some((segment, Some(scan))) =
                self.plan.segments.get(index).zip(self.scans.get(index))
            else {
                continue;
            };
            let joined = chain.spans.iter().any(|span| span.index == index);
            let probed = if joined { scan.probed_in_place } else { scan.probed };
            for DurableMark { durable, offset, lsn } in scan.in_order.into_iter().chain(probed) {
                let torn = offset >= scan.stop_offset;
                chain.prove(durable, Proof::Frame { segment: segment.number, offset, lsn, torn });
            }
            chain.note_rest(place, index, scan, self.sector);
        }
    }
}

impl Chain {
    fn prove(&mut self, durable: Lsn, proof: Proof) {
        if durable > self.durable_end {
            self.durable_end = durable;
            self.proof = proof;
        }
    }

    /// Notes what ends an unsealed segment that the next one continues.
    fn note_ignored(&mut self) {
        let ends_in_nothing = matches!(self.damage, FrameDamage::Zeros | FrameDamage::EndOfFile);
        self.ignored.extend(self.place.filter(|_| !ends_in_nothing).map(|p| (p, self.damage)));
    }

    /// Takes in what one segment has behind the end of the frames, which is at `place`.
    fn note_rest(&mut self, place: Place, index: usize, scan: &Scan, sector: u32) {
        let from = match index.cmp(&place.index) {
            Ordering::Less => return,
            Ordering::Equal => place.offset,
            Ordering::Greater => u64::from(sector),
        };
        // Valid frames there do not continue the log.
        let later_segment = index > place.index && scan.probed.is_some();
        if scan.stop_offset > from || scan.has_later_header || later_segment {
            self.rest = Rest::LaterFrames;
        } else if scan.nonzero_end.is_some() && self.rest == Rest::Zeros {
            self.rest = Rest::Bytes;
        }
    }
}

/// Returns why a segment does not continue what ends with `end`.
fn mismatch(scan: &Scan, opener: bool, end: Cursor) -> Option<FrameDamage> {
    match &scan.first {
        Some(first) => first.mismatch(&end),
        // An opening may have no frame yet and a successor none the less.
        None if opener => None,
        None => Some(damage(scan.stop)),
    }
}

/// Returns whether an epoch opens where the log before it ends.
fn epoch_start_fits(segment: &PlannedSegment, end: Cursor) -> bool {
    match segment.start {
        Start::At { cursor, .. } => cursor.mismatch(&end).is_none(),
        Start::EpochStart { base, seq } => base == end.lsn && seq == end.seq,
        Start::FirstFrame => false,
    }
}
