//! The report of an analysis: evidence, segments, and the place of a corruption.
//!
//! Owns how a decision is told to people. Decides nothing.

use bulla_storage::files::dir::SegmentFile;
use bulla_storage::{Corruption, CorruptionKind, FrameDamage};

use crate::analysis::Analysis;
use crate::plan::PlannedSegment;
use crate::report::{Evidence, Report, Seal, SegmentReport, SegmentState, Status};
use crate::scan::Scan;
use crate::verdict::{LastFrame, Rest, Verdict, Witness};
use bulla_storage::frames::reader::End;

/// Bytes behind the valid end that are cut off.
#[derive(Clone, Copy)]
struct TailBytes {
    /// Index of the segment in the plan.
    index: usize,
    offset: u64,
    len: u64,
}

impl Analysis {
    /// Returns the decision, with the place of a corruption.
    pub(crate) fn status(&self) -> Status {
        match self.decision.verdict {
            Verdict::New | Verdict::Clean => Status::Clean,
            Verdict::TornTail => Status::TornTail,
            Verdict::Corrupt(witness) => Status::Corrupt(self.fault_of(witness)),
        }
    }

    /// Returns where a witness is. One that has no place of its own is where the frames end.
    fn fault_of(&self, witness: Witness) -> Corruption {
        let fault = match witness {
            Witness::Header => self.plan.misfit.as_ref().map(|misfit| &misfit.fault),
            Witness::ControlBehind => self.plan.control_behind.as_ref(),
            Witness::Successor => self.chain.successor_fault.as_ref(),
            Witness::EpochStart => self.chain.opening_fault.as_ref(),
            Witness::FrameMissing | Witness::DurableMark => None,
        };
        if let Some(damage) = self.control_damage
            && let Some(fault) = fault.filter(|fault| self.is_of_control(witness, fault))
        {
            if self.plan.control_behind.is_none() {
                return Corruption { kind: CorruptionKind::ControlOrSegment(damage), ..*fault };
            }
            // The segments are those of the slot that is damaged: none of them is at fault.
            let kind = CorruptionKind::ControlSlot(damage);
            return Corruption { segment: None, offset: None, kind, ..*fault };
        }
        let mut fault = fault.cloned().unwrap_or_else(|| self.frame_fault());
        if witness == Witness::DurableMark {
            fault.lsn = Some(self.chain.durable_end);
            fault.kind = CorruptionKind::Frame(FrameDamage::Boundary);
        }
        fault
    }

    /// Returns whether a misfit of the segments can follow from an outdated CONTROL: it does not know
    /// their epoch, or the start that a purge gave to the log. Only an epoch that it does not know
    /// proves that it is outdated; a first segment may also be lost.
    fn is_of_control(&self, witness: Witness, fault: &Corruption) -> bool {
        match witness {
            Witness::ControlBehind => true,
            Witness::Header => {
                fault.segment == Some(self.plan.low_water.segment)
                    && fault.kind == CorruptionKind::SegmentMissing
            }
            _ => false,
        }
    }

    fn frame_fault(&self) -> Corruption {
        let chain = &self.chain;
        let segment = chain.place.and_then(|place| self.plan.segments.get(place.index));
        Corruption {
            segment: segment.map(|segment| segment.number),
            offset: chain.place.map(|place| place.offset),
            lsn: Some(chain.valid_end.lsn),
            durable: Some(chain.durable_end),
            kind: CorruptionKind::Frame(chain.damage),
        }
    }

    fn tail(&self) -> Vec<TailBytes> {
        let Some(place) = self.chain.place else { return Vec::new() };
        let scans = self.scans.iter().enumerate().skip(place.index);
        scans
            .filter_map(|(index, scan)| {
                let scan = scan.as_ref()?;
                let offset = self.cut_from(index)?;
                let end = scan.nonzero_end.unwrap_or(0).max(scan.stop_offset);
                (end > offset).then(|| TailBytes { index, offset, len: end - offset })
            })
            .collect()
    }

    /// Returns what the analysis found.
    pub(crate) fn report(&self) -> Report {
        let chain = &self.chain;
        let connected = chain.spans.iter().filter_map(|span| self.scans.get(span.index)?.as_ref());
        let tail = self.tail();
        Report {
            status: self.status(),
            case: self.decision.case,
            log_id: self.control.log_id,
            content: self.control.content,
            sector: self.control.sector,
            epoch: self.control.epoch,
            first_lsn: self.plan.low_water.lsn,
            scanned_from: self.plan.start.lsn,
            last_lsn: chain.valid_end.lsn,
            durable_lsn: chain.durable_end,
            first_seq: self.plan.low_water.seq,
            next_seq: chain.valid_end.seq,
            last_entry: connected.clone().filter_map(|scan| scan.last_entry).next_back(),
            entries: connected.map(|scan| scan.entries).sum(),
            wall_ns: chain.valid_end.wall_ns,
            segments: self.segment_reports(),
            evidence: self.evidence(&tail),
            bytes_cut: tail.iter().map(|bytes| bytes.len).sum(),
            rewritten: None,
            quarantine: None,
            timeline: self.timeline(),
        }
    }

    fn evidence(&self, tail: &[TailBytes]) -> Vec<Evidence> {
        let chain = &self.chain;
        let mut evidence = Vec::new();
        if self.is_new() {
            evidence.push(Evidence::CreationUnfinished);
            return evidence;
        }
        evidence.push(Evidence::DurableMark { durable: chain.durable_end, proof: chain.proof });
        if let Some(damage) = self.control_damage {
            evidence.push(Evidence::ControlSlot { damage });
        }
        if let Status::Corrupt(corruption) = self.status() {
            evidence.push(Evidence::Fault(corruption));
        }
        for (place, damage) in &chain.ignored {
            if let Some(segment) = self.plan.segments.get(place.index) {
                let (segment, offset) = (segment.number, place.offset);
                evidence.push(Evidence::Ignored { segment, offset, damage: *damage });
            }
        }
        let Some(place) = chain.place else { return evidence };
        if chain.last_frame == LastFrame::Shutdown {
            evidence.push(Evidence::Closed { at: chain.valid_end.lsn });
        }
        let below = chain.valid_end.lsn < chain.durable_end;
        if chain.rest == Rest::Zeros && !below {
            evidence.push(Evidence::OnlyZeros { after: chain.valid_end.lsn });
        } else if let Some(segment) = self.plan.segments.get(place.index) {
            evidence.push(Evidence::Damaged {
                segment: segment.number,
                offset: place.offset,
                lsn: chain.valid_end.lsn,
                damage: chain.damage,
            });
        }
        for TailBytes { index, offset, len } in tail.iter().copied().filter(|_| !below) {
            if let Some(segment) = self.plan.segments.get(index) {
                let segment = segment.number;
                evidence.push(Evidence::Tail { segment, offset, bytes: len });
            }
        }
        evidence
    }

    fn segment_reports(&self) -> Vec<SegmentReport> {
        let first = self.plan.low_water.segment;
        let (dead, live): (Vec<&SegmentFile>, Vec<&SegmentFile>) =
            self.listing.segments.iter().partition(|file| file.number < first);
        let unknown = |file: &SegmentFile, state| SegmentReport {
            number: file.number,
            epoch: None,
            base: None,
            live: None,
            frames: 0,
            entries: 0,
            seal: None,
            file_len: file.len,
            state,
        };
        let mut reports: Vec<SegmentReport> =
            dead.into_iter().map(|file| unknown(file, SegmentState::Dead)).collect();
        let first = self.plan.segments.first().map_or(first, |segment| segment.number);
        let below = live.iter().take_while(|file| file.number < first).count();
        for (place, file) in live.into_iter().enumerate() {
            let index = place.checked_sub(below);
            let planned = index.and_then(|index| Some((index, self.plan.segments.get(index)?)));
            reports.push(match planned {
                Some((index, segment)) => self.segment_report(index, segment),
                None => unknown(file, SegmentState::Unread),
            });
        }
        reports
    }

    fn segment_report(&self, index: usize, segment: &PlannedSegment) -> SegmentReport {
        let scan = self.scans.get(index).and_then(Option::as_ref);
        let span = self.chain.spans.iter().find(|span| span.index == index);
        let active = self.chain.place.is_some_and(|place| place.index == index);
        // No chain reaches what lies behind damage, so what it is to the log is not known.
        let behind = self.is_corrupt()
            && span.is_none()
            && !segment.replaced
            && self.chain.place.is_none_or(|place| index > place.index);
        // What a later epoch replaced is behind its ceiling, or was cut off.
        let is_cut = segment.file_len <= u64::from(self.control.sector);
        let holds_replaced =
            scan.is_some_and(|scan| scan.frames == 0 && (scan.stop == End::Ceiling || is_cut));
        let state = match span {
            _ if index < self.plan.first => SegmentState::Covered,
            Some(span) if span.start.lsn < span.end.lsn => SegmentState::Live,
            _ if active && (segment.newest || self.is_corrupt() && !holds_replaced) => {
                SegmentState::Live
            }
            // Behind the damage, it holds frames that nothing connects with the log.
            _ if segment.newest && self.is_corrupt() && scan.is_some_and(Scan::has_frames) => {
                SegmentState::Unread
            }
            _ if !segment.newest && behind && !holds_replaced => SegmentState::Unread,
            _ if segment.newest => SegmentState::Spare,
            _ => SegmentState::Replaced,
        };
        SegmentReport {
            number: segment.number,
            epoch: Some(segment.header.epoch),
            base: span.map(|span| span.base).or_else(|| {
                segment.header.epoch_start.as_ref().map(|epoch_start| epoch_start.base)
            }),
            live: span.map(|span| (span.start.lsn, span.end.lsn)),
            frames: scan.map_or(0, |scan| scan.frames),
            entries: scan.map_or(0, |scan| scan.entries),
            seal: scan.filter(|_| span.is_some()).and_then(|scan| match scan.stop {
                End::Rotated => Some(Seal::Rotated),
                End::Closed => Some(Seal::Closed),
                End::Damage(_) | End::Ceiling => None,
            }),
            file_len: segment.file_len,
            state,
        }
    }
}
