//! What the log must hold, kept apart from the log: the oracle of the campaign.

use std::ops::ControlFlow;
use std::path::Path;

use bulla_recovery::{Range, Recovery, Report, Timeline};
use bulla_wal::{Epoch, Error, Level, Log, Lsn, Options, Receipt, Seq};

/// A violation of the contract: of a campaign the number that it has in
/// docs/INVARIANTS.md, and what was seen.
pub(crate) type Violation = String;

/// One entry that was appended.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Entry {
    pub(crate) kind: u16,
    pub(crate) payload: Vec<u8>,
    /// Of a batch: the number of its last entry.
    pub(crate) batch_end: u64,
    /// Where it is, and in which epoch it was appended, when a receipt told (of a batch the
    /// last one).
    pub(crate) position: Option<(Epoch, Lsn)>,
}

/// Everything that was appended and not known to be lost, by number from 1 on.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Model {
    pub(crate) entries: Vec<Entry>,
    /// Below this number a power loss may take nothing.
    durable: u64,
    /// Below this number a kill may take nothing.
    written: u64,
    /// The same as positions: the highest watermarks that were shown.
    durable_lsn: Lsn,
    written_lsn: Lsn,
    /// Entries below this number are purged.
    pub(crate) purged: u64,
    /// The highest position that an append reported in this life.
    end: Lsn,
    /// The last epoch that an open reported.
    epoch: Epoch,
    /// Positions of entries that a crash took.
    lost: Vec<(Epoch, Lsn)>,
}

/// What a recovery showed.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) entries: Vec<(Seq, Lsn, u16, Vec<u8>)>,
    pub(crate) first_seq: Seq,
    pub(crate) last_lsn: Lsn,
    pub(crate) epoch: Epoch,
    /// None of a log that was created.
    pub(crate) timeline: Option<Timeline>,
    /// An entry that is older than the one before it, and must not be.
    pub(crate) older: Option<Seq>,
}

/// A log that was opened, and everything that it showed.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) shown: Shown,
    /// None when there was no log, and one was created.
    pub(crate) report: Option<Report>,
}

/// Recovers a log, or creates it where there is none.
pub(crate) fn open(dir: &Path, options: &Options) -> Result<Opened, bulla_recovery::Error> {
    let recovery = match Recovery::run(dir, options) {
        Ok(recovery) => recovery,
        Err(Error::NotALog { .. }) => {
            let log = Log::create(dir, options)?;
            let shown = Shown { first_seq: Seq(1), epoch: log.epoch(), ..Shown::default() };
            return Ok(Opened { log, shown, report: None });
        }
        Err(error) => return Err(error),
    };
    let shown = Shown::read(&recovery)?;
    let report = Some(recovery.report().clone());
    Ok(Opened { log: Log::start(recovery.into_recovered())?, shown, report })
}

/// Times may go back by more, from one segment to the next.
const HOUR_NS: u64 = 3_600_000_000_000;

/// Returns whether a segment starts between two entries. What was rewritten is in one.
fn begins_segment(report: &Report, before: Lsn, after: Lsn) -> bool {
    let rewritten = report.rewritten.map_or(Lsn::MAX, |(start, _)| start);
    let live = report.segments.iter().filter_map(|segment| segment.live);
    let starts = live.map(|(start, _)| start).filter(|start| *start < rewritten);
    starts.chain([rewritten]).any(|start| before < start && start <= after)
}

impl Shown {
    /// All that a recovery shows.
    pub(crate) fn read(recovery: &Recovery) -> Result<Self, bulla_recovery::Error> {
        let report = recovery.report();
        let mut shown = Self {
            first_seq: report.first_seq,
            last_lsn: report.last_lsn,
            epoch: report.epoch,
            timeline: Some(report.timeline.clone()),
            ..Self::default()
        };
        let mut last = (Lsn::ZERO, 0);
        recovery.replay(Range::ALL, |entry| {
            let now = (entry.lsn, entry.wall_ns);
            if now.1 < last.1
                && !(last.1 - now.1 > HOUR_NS && begins_segment(report, last.0, now.0))
            {
                shown.older = Some(entry.seq);
            }
            last = now;
            shown.entries.push((entry.seq, entry.lsn, entry.kind, entry.payload.to_vec()));
            ControlFlow::Continue(())
        })?;
        Ok(shown)
    }
}

impl Model {
    pub(crate) fn appended(
        &mut self,
        batch: Vec<(u16, Vec<u8>)>,
        receipt: Receipt,
    ) -> Result<(), Violation> {
        let batch_end = (self.entries.len() + batch.len()) as u64;
        if receipt.seq.0 != batch_end {
            return Err(format!("I5: append got number {}, expected {batch_end}", receipt.seq));
        }
        if receipt.lsn < self.durable_lsn {
            return Err(format!("I17: position {} was durable and is given again", receipt.lsn));
        }
        let last = batch.len() - 1;
        for (index, (kind, payload)) in batch.into_iter().enumerate() {
            let position = (index == last).then_some((receipt.epoch, receipt.lsn));
            self.entries.push(Entry { kind, payload, batch_end, position });
        }
        self.end = self.end.max(receipt.lsn);
        Ok(())
    }

    /// A receipt was ready while the log showed these watermarks.
    pub(crate) fn ready(
        &mut self,
        receipt: Receipt,
        durable: Lsn,
        balanced_bound: u64,
    ) -> Result<(), Violation> {
        match receipt.level {
            Level::Relaxed => {}
            Level::Balanced => {
                self.written = self.written.max(receipt.seq.0);
                if receipt.lsn >= durable.plus(balanced_bound) {
                    return Err(format!(
                        "I20e: Balanced entry at {} is ready, durable is only {durable}",
                        receipt.lsn
                    ));
                }
            }
            Level::Strict => {
                self.durable = self.durable.max(receipt.seq.0);
                self.written = self.written.max(receipt.seq.0);
            }
        }
        Ok(())
    }

    pub(crate) fn watermarks(&mut self, written: Lsn, durable: Lsn) -> Result<(), Violation> {
        if durable > written {
            return Err(format!("I1: durable {durable} is above written {written}"));
        }
        self.written_lsn = self.written_lsn.max(written);
        self.durable_lsn = self.durable_lsn.max(durable);
        Ok(())
    }

    pub(crate) fn power_lost(&mut self) {
        self.written = self.durable;
        self.written_lsn = self.durable_lsn;
    }

    /// The log was closed, or synced: all of it is durable.
    pub(crate) fn all_durable(&mut self, end: Lsn) {
        self.durable = self.entries.len() as u64;
        self.written = self.durable;
        self.durable_lsn = self.durable_lsn.max(end);
        self.written_lsn = self.written_lsn.max(end);
    }

    /// The number of the first entry that is known to start at or after `lsn`, or of the
    /// next one.
    pub(crate) fn first_at_or_after(&self, lsn: Lsn) -> Seq {
        let below =
            self.entries.iter().rposition(|entry| entry.position.is_some_and(|(_, at)| at < lsn));
        Seq(below.map_or(1, |index| index as u64 + 2))
    }

    /// Entries below the entry that starts at or after `lsn` may be gone.
    pub(crate) fn purge_allowed(&mut self, first_seq: Seq) {
        self.purged = self.purged.max(first_seq.0 - 1);
    }

    /// Compares what a recovery shows with what it must, and goes on from it.
    pub(crate) fn recovered(
        &mut self,
        shown: &Shown,
        killed_with_ring: Option<u64>,
    ) -> Result<(), Violation> {
        let first = shown.first_seq.0;
        for (index, (seq, lsn, kind, payload)) in shown.entries.iter().enumerate() {
            let expected = first + index as u64;
            if seq.0 != expected {
                return Err(format!(
                    "I20a: entry {seq} where {expected} must be: a hole or a duplicate"
                ));
            }
            let Some(entry) = self.entries.get(index_of(expected)) else {
                return Err(format!("I20a: entry {seq} was never appended"));
            };
            if entry.kind != *kind || entry.payload != *payload {
                return Err(format!("I20a: entry {seq} is not what was appended"));
            }
            if let Some((_, appended)) = entry.position.filter(|(_, appended)| appended != lsn) {
                return Err(format!("I20a: entry {seq} is at {lsn}, its receipt said {appended}"));
            }
        }
        let end = first - 1 + shown.entries.len() as u64;
        if first - 1 > self.purged {
            return Err(format!("I20g: the log starts at {first}, purged is only {}", self.purged));
        }
        if end < self.durable {
            return Err(format!(
                "I20b: entry {} was durable, recovered is only {end}",
                self.durable
            ));
        }
        if shown.last_lsn < self.durable_lsn {
            return Err(format!(
                "I20b: durable was {}, recovered ends at {}",
                self.durable_lsn, shown.last_lsn
            ));
        }
        if end < self.written {
            return Err(format!(
                "I20c: entry {} was written before a kill, recovered is only {end}",
                self.written
            ));
        }
        if shown.last_lsn < self.written_lsn {
            return Err(format!(
                "I20c: written was {}, recovered ends at {}",
                self.written_lsn, shown.last_lsn
            ));
        }
        if let Some(entry) = end.checked_sub(1).and_then(|last| self.entries.get(last as usize))
            && entry.batch_end > end
        {
            return Err(format!(
                "I20d: the batch that ends at {} is cut at {end}",
                entry.batch_end
            ));
        }
        if let Some(ring) = killed_with_ring
            && self.end.distance_from(shown.last_lsn) > ring
        {
            return Err(format!(
                "I20c: a kill took {} bytes, the ring has {ring}",
                self.end.distance_from(shown.last_lsn)
            ));
        }
        if shown.epoch <= self.epoch {
            return Err(format!("I20f: epoch {} after epoch {}", shown.epoch, self.epoch));
        }
        self.epoch = shown.epoch;
        if let Some(seq) = shown.older {
            return Err(format!("I59: entry {seq} is older than the one before it"));
        }
        // What was shown is durable, and positions go on from there.
        let lost = self.entries.drain(index_of(end + 1)..);
        self.lost.extend(lost.filter_map(|entry| entry.position));
        self.check_positions(shown)?;
        self.durable = end;
        self.written = end;
        self.durable_lsn = shown.last_lsn;
        self.written_lsn = shown.last_lsn;
        self.end = shown.last_lsn;
        Ok(())
    }

    /// Positions of what was lost are refused, and those of what is shown are not.
    fn check_positions(&self, shown: &Shown) -> Result<(), Violation> {
        let Some(timeline) = &shown.timeline else { return Ok(()) };
        let kept = self.entries.iter().skip(index_of(shown.first_seq.0));
        for (epoch, lsn) in kept.filter_map(|entry| entry.position) {
            timeline
                .check(epoch, lsn)
                .map_err(|error| format!("I17: a position is refused: {error}"))?;
        }
        match self.lost.iter().find(|(epoch, lsn)| timeline.check(*epoch, *lsn).is_ok()) {
            Some((epoch, lsn)) => Err(format!("I17: ({epoch}, {lsn}) was lost and is not refused")),
            None => Ok(()),
        }
    }
}

fn index_of(seq: u64) -> usize {
    usize::try_from(seq - 1).expect("numbers of the model are small")
}
