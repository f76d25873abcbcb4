//! One seed of the campaign: a workload, crashes, recoveries, and the oracle.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bulla_recovery::{Inspection, Range, Recovery};
use bulla_storage::io::sim::{CrashKind, FaultOp, SimConfig, SimDisk};
use bulla_wal::{Error, Level, Log, Lsn, Method, Options, Overflow, Receipt, SegmentNumber, Seq};

use crate::model::{Model, Opened, Shown, Violation, open};
use crate::rng::Rng;
use crate::seeds::{self, Campaign, Failure, Trace};

const DIR: &str = "/log";
/// Recoveries that crash themselves, one inside the other, before one is let through.
const NESTED_CRASHES: u64 = 3;

tally! {
    /// What a seed did, for the campaign's totals.
    pub struct Tally {
        /// Lives of the simulated process.
        pub lives: u64,
        /// Power losses and kills that struck.
        pub crashes: u64,
        /// Of these, the ones that struck a recovery.
        pub crashes_in_recovery: u64,
        /// Opens in which the recovery crashed three times, one inside the other.
        pub crashes_three_deep: u64,
        /// Of all crashes, those that struck while several writes of the log were in flight.
        pub crashes_during_writes: u64,
        /// Writes of the log that were submitted while another was in flight.
        pub overlapping_writes: u64,
        /// Entries appended.
        pub entries: u64,
        /// Strict receipts that were ready.
        pub strict: u64,
        /// Balanced receipts that were ready.
        pub balanced: u64,
        /// Segments filled.
        pub rotations: u64,
        /// Of the crashes, those that struck a log that had rotated into a segment without zeros
        /// written ahead.
        pub crashes_after_reserved: u64,
        /// Purges that removed something.
        pub purges: u64,
        /// Those of them that did so while the log was not open.
        pub purges_of_closed: u64,
        /// Logs poisoned by an injected fault.
        pub poisoned: u64,
        /// Appends refused because the disk was full.
        pub no_space: u64,
        /// Recoveries that cut a torn tail.
        pub torn: u64,
        /// Recoveries that copied a tail into a new segment.
        pub rewritten: u64,
        /// Damaged logs that were refused as they must be.
        pub refused: u64,
    }
}

/// Plays one seed.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64) -> Result<Tally, Box<Failure>> {
    seeds::run::<World>(seed)
}

/// Plays what a script says instead of a seed: every choice is read from its bytes.
///
/// # Errors
/// The first violation, with the steps that led to it.
pub fn run_script(script: &[u8]) -> Result<Tally, String> {
    seeds::run_script::<World>(script)
}

pub(crate) struct World {
    rng: Rng,
    disk: SimDisk,
    options: Options,
    bound: u64,
    /// Long entries, and no bound on their number: what binds is the bound in bytes.
    bulky: bool,
    ring: u64,
    model: Model,
    tally: Tally,
    trace: Trace,
    /// Injected faults make errors expected.
    faulty: bool,
    /// What an armed crash will be.
    armed: CrashKind,
}

/// How a life ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Crashed(CrashKind),
    /// Closed or dropped, by a process that goes on.
    Left,
}

impl seeds::World for World {
    const CAMPAIGN: Campaign = Campaign::Log;
    type Tally = Tally;

    fn new(mut rng: Rng) -> Self {
        let config = SimConfig {
            step_ns: rng.within(1_000, 200_000),
            late_completion_ppm: if rng.one_in(2) { 500_000 } else { 0 },
            slow_sync_ppm: if rng.one_in(3) { 950_000 } else { 0 },
            stale_block_ppm: if rng.one_in(3) { 300_000 } else { 0 },
            short_write_ppm: if rng.one_in(4) { 50_000 } else { 0 },
            shorn_sector_ppm: if rng.one_in(2) { 200_000 } else { 0 },
            short_read_ppm: if rng.one_in(8) { 50_000 } else { 0 },
            ..SimConfig::default()
        };
        let disk = SimDisk::with_config(rng.bits(), config);
        let ring = [16, 32, 64][rng.below(3) as usize] * 1024;
        let bound = rng.within(1, 6) * 16 * 1024;
        let bulky = rng.one_in(3);
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(ring)
            .method(if rng.one_in(2) { Method::Direct } else { Method::Buffered })
            .overflow(if rng.one_in(4) { Overflow::Full } else { Overflow::Block })
            .depth(rng.within(1, 6) as usize)
            .balanced_entries(if bulky { u64::MAX } else { rng.within(5, 60) })
            .balanced_max_unsynced(bound)
            .lock_timeout(Duration::ZERO)
            .manual();
        // A bound that no sync, some, or every sync of so short segments exceeds.
        let zeros_pay_below = [u64::MAX, rng.below(4 * 1024), 0][rng.below(3) as usize];
        let options = options.zeros_pay_below(zeros_pay_below);
        Self {
            rng,
            disk,
            options,
            bound,
            bulky,
            ring,
            model: Model::default(),
            tally: Tally::default(),
            trace: Trace::default(),
            faulty: false,
            armed: CrashKind::PowerLoss,
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        let lives = self.rng.within(2, 6);
        let mut killed = None;
        for life in 0..lives {
            self.tally.lives += 1;
            if self.rng.one_in(4) {
                let offset_ns = self.rng.below(3_600_000_000_000) as i64 - 1_800_000_000_000;
                self.set_clock(offset_ns);
            }
            let last = life + 1 == lives;
            if !last {
                let kind = self.random_crash();
                let longest = if self.rng.one_in(3) { 1_000 } else { 150 };
                let steps = self.rng.below(longest);
                self.arm(kind, steps);
                self.plant_fault();
            } else {
                self.disk.disarm();
                self.disk.clear_faults();
            }
            let Some(log) = self.open(&mut killed)? else { continue };
            killed = None;
            let end = self.live(log)?;
            self.note(format_args!("life {life} ended: {end:?}"));
            if let End::Crashed(kind) = end {
                killed = self.crashed(kind);
            }
        }
        self.disk.disarm();
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        self.faulty = false;
        let other = self.disk.fork(self.rng.bits());
        let Some(log) = self.open(&mut killed)? else {
            return Err("I20h: the log can't be opened in the end".to_owned());
        };
        self.last_life(log, &other)?;
        let counts = self.disk.counts();
        self.tally.overlapping_writes = counts.overlapping_writes;
        self.tally.crashes_during_writes = counts.crashes_during_writes;
        Ok(())
    }

    fn end(self) -> (Rng, Trace, Tally) {
        (self.rng, self.trace, self.tally)
    }
}

impl World {
    fn arm(&mut self, kind: CrashKind, steps: u64) {
        self.note(format_args!("{kind:?} after {steps} steps"));
        self.armed = kind;
        self.disk.crash_after(steps, kind);
    }

    fn random_crash(&mut self) -> CrashKind {
        if self.rng.one_in(2) { CrashKind::Kill } else { CrashKind::PowerLoss }
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.step(&self.disk, line);
    }

    /// In the end the log is closed, or writes its idle mark: from then on any damage to
    /// what it holds must be refused. `other` is the same disk before this life.
    fn last_life(&mut self, log: Log, other: &SimDisk) -> Result<(), Violation> {
        // The steps below suffice for a durable mark and its sync.
        self.disk.configure(|config| config.slow_sync_ppm = 0);
        for _ in 0..self.rng.below(4) {
            log.append_with(1, b"at last", Level::Strict)
                .and_then(|receipt| log.wait(receipt))
                .map_err(|error| format!("I20h: the last entries: {error:?}"))?;
        }
        let end = log.end();
        if self.rng.one_in(2) {
            log.close().map_err(|error| format!("I20h: the last close: {error:?}"))?;
        } else {
            self.disk.advance(60_000_000);
            // A completion may be late: one step that does nothing is not the end.
            for _ in 0..100 {
                log.step();
            }
            self.disk.kill();
        }
        self.disk.drop_pending();
        self.damage_is_refused(end, other)
    }

    /// Makes some lives meet an I/O error or a full disk.
    fn plant_fault(&mut self) {
        self.disk.clear_faults();
        self.disk.set_capacity(None);
        self.faulty = false;
        if self.rng.one_in(4) {
            let op = [
                FaultOp::Write,
                FaultOp::Sync,
                FaultOp::SyncDir,
                FaultOp::Create,
                FaultOp::Rename,
                FaultOp::Read,
            ][self.rng.below(6) as usize];
            // Of what is done seldom, one of the first times.
            let (path, most) = match (op, self.rng.below(4)) {
                (FaultOp::SyncDir, _) => ("", 4),
                (_, 0) => (".seg.tmp", 3),
                (_, 1) => ("CONTROL", 3),
                _ => ("", 40),
            };
            let after = self.rng.below(most);
            self.note(format_args!("fault: {op:?} of *{path} after {after}"));
            self.disk.fail_next(op, std::io::ErrorKind::Other, path, after);
            self.faulty = true;
        } else if self.rng.one_in(6) {
            let used: u64 =
                self.disk.paths().iter().map(|path| self.disk.read_file(path).len() as u64).sum();
            let capacity = used + self.rng.within(0, 6) * 16 * 1024;
            self.note(format_args!("capacity: {capacity}"));
            self.disk.set_capacity(Some(capacity));
            self.faulty = true;
        }
    }

    /// Returns the most bytes that this crash may have taken, if there is such a bound.
    fn crashed(&mut self, kind: CrashKind) -> Option<u64> {
        self.tally.crashes += 1;
        if kind == CrashKind::PowerLoss {
            self.model.power_lost();
            return None;
        }
        Some(self.ring)
    }

    /// Purges the log without opening it, as a crash left it.
    fn purge_closed(&mut self, killed: &mut Option<u64>) -> Result<(), Violation> {
        let options = self.options.clone().io(self.disk.process());
        let keep = Seq(self.rng.within(1, self.model.entries.len() as u64 + 1));
        self.model.purge_allowed(keep);
        match bulla_recovery::purge(DIR, keep, &options) {
            Ok(purged) => {
                self.tally.purges_of_closed += u64::from(!purged.segments.is_empty());
                self.note(format_args!("purged below entry {keep}: {} gone", purged.entries));
            }
            Err(error) if self.disk.is_crashed() => {
                self.note(format_args!("purge crashed: {error}"));
                let bound = self.crashed(self.armed);
                *killed = killed.and(bound);
            }
            Err(Error::NotALog { .. }) => {}
            Err(error) if is_corruption(&error) => {
                return Err(format!("I20h: an undamaged log is not purged: {error}"));
            }
            Err(error) if self.faulty => {
                self.note(format_args!("purge failed: {error}"));
                self.disk.clear_faults();
            }
            Err(error) => return Err(format!("I20h: a purge failed: {error:?}")),
        }
        Ok(())
    }

    /// Opens the log, through crashes of the recovery itself. One that is a power loss
    /// ends the bound on what was lost, also for opens after this one.
    fn open(&mut self, killed: &mut Option<u64>) -> Result<Option<Log>, Violation> {
        // A script was written for the other steps alone.
        if !self.rng.is_scripted() && self.rng.one_in(6) {
            self.purge_closed(killed)?;
        }
        let mut crashes = 0;
        for depth in 0..=NESTED_CRASHES {
            let options = self.options.clone().io(self.disk.process());
            let looked = Inspection::read(Path::new(DIR), &options).ok();
            let looked = looked.map(|inspection| inspection.report().last_lsn);
            let passed = bulla_recovery::replay(Path::new(DIR), &options, Range::ALL, |_| {
                ControlFlow::Continue(())
            });
            match self.open_once(&options) {
                Ok((log, shown)) => {
                    self.note(format_args!(
                        "opened: epoch {}, entries {}..+{}, end {}",
                        shown.epoch,
                        shown.first_seq,
                        shown.entries.len(),
                        shown.last_lsn
                    ));
                    self.model.recovered(&shown, *killed)?;
                    match passed {
                        Ok(stats)
                            if stats.entries == shown.entries.len() as u64
                                && stats.last.is_none_or(|(lsn, _)| lsn < shown.last_lsn) => {}
                        Err(Error::Io { .. } | Error::NotALog { .. }) => {}
                        other => return Err(format!("I29: a replay in one pass gave {other:?}")),
                    }
                    if looked.is_some_and(|looked| looked != shown.last_lsn) {
                        return Err(format!(
                            "I28: a look showed {looked:?}, the recovery {}",
                            shown.last_lsn
                        ));
                    }
                    return Ok(Some(log));
                }
                Err(error) if self.disk.is_crashed() => {
                    self.note(format_args!("open crashed: {error}"));
                    crashes += 1;
                    self.tally.crashes_in_recovery += 1;
                    self.tally.crashes_three_deep += u64::from(crashes == NESTED_CRASHES);
                    let bound = self.crashed(self.armed);
                    *killed = killed.and(bound);
                    if depth + 1 < NESTED_CRASHES {
                        let kind = self.random_crash();
                        let steps = self.rng.below(60);
                        self.arm(kind, steps);
                    } else {
                        self.disk.disarm();
                    }
                }
                Err(error) if is_corruption(&error) => {
                    return Err(format!("I20h: an undamaged log is refused: {error}"));
                }
                Err(error) if self.faulty => {
                    self.note(format_args!("open failed: {error}"));
                    self.disk.clear_faults();
                    self.disk.set_capacity(None);
                }
                Err(error) => return Err(format!("I20h: open failed: {error:?}")),
            }
        }
        Ok(None)
    }

    fn open_once(&mut self, options: &Options) -> Result<(Log, Shown), bulla_recovery::Error> {
        let Opened { log, shown, report } = open(Path::new(DIR), options)?;
        if let Some(report) = report {
            self.tally.torn += u64::from(report.status == bulla_recovery::Status::TornTail);
            self.tally.rewritten += u64::from(report.rewritten.is_some());
        }
        Ok((log, shown))
    }

    /// Works with the log until it is closed, dropped, or the machine crashes.
    fn live(&mut self, log: Log) -> Result<End, Violation> {
        let mut receipts: Vec<Receipt> = Vec::new();
        let most = if self.rng.one_in(4) { 400 } else { 100 };
        let operations = self.rng.within(5, most);
        for _ in 0..operations {
            if self.rng.leaves_out() {
                continue;
            }
            let result = self.operate(&log, &mut receipts)?;
            if self.disk.is_crashed() {
                break;
            }
            self.look(&log, &mut receipts)?;
            if let Err(error) = result {
                self.note(format_args!("failed: {error}"));
                match error {
                    Error::Full => {}
                    Error::NoSegment(_) if self.faulty => {}
                    Error::NoSpace(_) => {
                        self.tally.no_space += 1;
                        if self.rng.one_in(3) {
                            self.disk.set_capacity(None);
                        }
                    }
                    Error::Poisoned { .. } if self.faulty => {
                        self.poisoned(&log)?;
                        break;
                    }
                    Error::Io { .. } if self.faulty => {}
                    error => return Err(format!("I20h: unexpected error: {error:?}")),
                }
            }
        }
        self.rng.end_part();
        let stats = log.stats();
        self.tally.rotations += stats.rotations;
        let reserved = u64::from(stats.reserved_rotations > 0);
        if !self.disk.is_crashed() {
            match self.rng.below(4) {
                0 => self.close(log)?,
                1 => drop(log),
                _ => {
                    let kind = self.random_crash();
                    match kind {
                        CrashKind::Kill => self.disk.kill(),
                        CrashKind::PowerLoss => self.disk.power_loss(),
                    }
                    self.tally.crashes_after_reserved += reserved;
                    return Ok(End::Crashed(kind));
                }
            }
        }
        if !self.disk.is_crashed() {
            return Ok(End::Left);
        }
        self.tally.crashes_after_reserved += reserved;
        Ok(End::Crashed(self.armed))
    }

    fn close(&mut self, log: Log) -> Result<(), Violation> {
        let end = log.end();
        match log.close() {
            Ok(()) => {
                self.note(format_args!("closed at {end}"));
                self.model.all_durable(end);
                Ok(())
            }
            Err(_) if self.faulty || self.disk.is_crashed() => Ok(()),
            Err(error) => Err(format!("I20h: close failed: {error:?}")),
        }
    }

    fn operate(
        &mut self,
        log: &Log,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Result<(), Error>, Violation> {
        Ok(match self.rng.below(16) {
            0..=6 => return self.append(log, receipts),
            7 | 8 => match receipts.get(self.rng.below(receipts.len().max(1) as u64) as usize) {
                Some(receipt) => {
                    let receipt = *receipt;
                    self.note(format_args!("wait for {receipt:?}"));
                    log.wait(receipt)
                }
                None => Ok(()),
            },
            9..=11 => {
                log.step();
                Ok(())
            }
            12 => {
                let ms = self.rng.within(1, 150);
                self.disk.advance(ms * 1_000_000);
                // Not drawn for itself: what bytes stand for stays what it was.
                if ms > 120 {
                    self.set_clock((ms as i64 - 135) * 120_000_000_000);
                }
                log.step();
                Ok(())
            }
            13 => {
                self.note(format_args!("sync"));
                let end = log.end();
                log.sync().map(|_| self.model.all_durable(end))
            }
            14 => {
                self.disk.advance(1_100_000_000);
                log.step();
                Ok(())
            }
            _ => return self.purge(log),
        })
    }

    /// Somebody sets the wall clock.
    fn set_clock(&mut self, offset_ns: i64) {
        self.note(format_args!("the wall clock is off by {offset_ns} ns"));
        self.disk.set_wall_offset(offset_ns);
    }

    fn append(
        &mut self,
        log: &Log,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Result<(), Error>, Violation> {
        let level = Level::ALL[self.rng.below(3) as usize];
        let bulky = self.bulky;
        let batch = self.rng.entries(|rng| if bulky || rng.one_in(10) { 3_000 } else { 200 });
        let entries: Vec<(u16, &[u8])> =
            batch.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        let before = log.end();
        let receipt = match log.append_batch(&entries, level) {
            Ok(receipt) => receipt.last(),
            Err(error) => {
                if matches!(error, Error::Full | Error::NoSpace(_) | Error::NoSegment(_))
                    && log.end() < before
                {
                    return Err("I5: a refused append moved the end back".to_owned());
                }
                return Ok(Err(error));
            }
        };
        self.note(format_args!("append {} {level}: {receipt:?}", batch.len()));
        self.tally.entries += batch.len() as u64;
        self.model.appended(batch, receipt)?;
        receipts.push(receipt);
        Ok(Ok(()))
    }

    fn purge(&mut self, log: &Log) -> Result<Result<(), Error>, Violation> {
        // Often more than may go.
        let keep = Lsn(log.end().0 * self.rng.within(1, 6) / 4);
        let before = log.low_water();
        // Whatever happens from here on, entries below may be gone.
        let seq = self.model.first_at_or_after(keep.min(log.durable()));
        self.model.purge_allowed(seq);
        match log.purge(keep) {
            Ok(low_water) => {
                self.tally.purges += u64::from(low_water > before);
                self.note(format_args!("purged below {keep}: low water {before} -> {low_water}"));
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Takes down everything that the log shows now.
    fn look(&mut self, log: &Log, receipts: &mut Vec<Receipt>) -> Result<(), Violation> {
        self.model.watermarks(log.written(), log.durable())?;
        let bound = self.bound;
        let mut violation = None;
        receipts.retain(|receipt| match log.is_ready(*receipt) {
            Ok(true) => {
                match receipt.level {
                    Level::Strict => self.tally.strict += 1,
                    Level::Balanced => self.tally.balanced += 1,
                    Level::Relaxed => {}
                }
                if let Err(broken) = self.model.ready(*receipt, log.durable(), bound) {
                    violation = Some(broken);
                }
                false
            }
            Ok(false) => true,
            Err(_) => true,
        });
        violation.map_or(Ok(()), Err)
    }

    /// After a failure nothing is acknowledged, and everything says so.
    fn poisoned(&mut self, log: &Log) -> Result<(), Violation> {
        self.tally.poisoned += 1;
        let (written, durable) = (log.written(), log.durable());
        for _ in 0..3 {
            self.disk.advance(2_000_000_000);
            log.step();
        }
        match log.append_with(1, b"after", Level::Strict) {
            Err(Error::Poisoned { .. }) => {}
            other => return Err(format!("I4: append to a poisoned log: {other:?}")),
        }
        if log.end() > durable && !matches!(log.sync(), Err(Error::Poisoned { .. })) {
            return Err("I4: sync of a poisoned log says nothing".to_owned());
        }
        if (written, durable) != (log.written(), log.durable()) {
            return Err("I4: a watermark of a poisoned log moved".to_owned());
        }
        Ok(())
    }

    /// Damage below `durable`, where a durable mark is on disk, is refused, and the refusal
    /// changes nothing.
    fn damage_is_refused(&mut self, durable: Lsn, other: &SimDisk) -> Result<(), Violation> {
        let options = self.options.clone().io(self.disk.process());
        let Ok(inspection) = Inspection::read(Path::new(DIR), &options) else {
            return Err("I20h: the log can't be read in the end".to_owned());
        };
        let live: Vec<_> = inspection
            .segments()
            .iter()
            .filter_map(|segment| {
                let (start, end) = segment.live?;
                let end = end.min(durable);
                (start < end).then_some((segment.number, segment.base?, start, end))
            })
            .collect();
        if live.is_empty() {
            // Everything may be purged.
            return Ok(());
        }
        let last = live.iter().map(|(number, ..)| *number).max();
        let (number, base, start, end) = live[self.rng.below(live.len() as u64) as usize];
        let at = start.0 + self.rng.below(end.distance_from(start));
        let damaged = (number, 512 + (at - base.0));
        let damage = self.damage(&inspection, damaged, last, other)?;
        self.note(format_args!("{damage}"));
        let before = self.image();
        match bulla_recovery::replay(Path::new(DIR), &options, Range::ALL, |_| {
            ControlFlow::Continue(())
        }) {
            Err(error) if is_corruption(&error) => {}
            other => return Err(format!("I12: {damage}, LSN {at}, is replayed: {other:?}")),
        }
        match Recovery::run(Path::new(DIR), &options) {
            Err(error) if is_corruption(&error) => {}
            other => {
                return Err(format!(
                    "I12: {damage}, LSN {at}, is not refused: {:?}",
                    other.map(|recovery| recovery.report().status.clone())
                ));
            }
        }
        if before != self.image() {
            return Err("I13: a refusal changed the log".to_owned());
        }
        self.tally.refused += 1;
        Ok(())
    }

    /// Damages a segment at an offset, one way or another; says how.
    fn damage(
        &mut self,
        inspection: &Inspection,
        (number, offset): (SegmentNumber, u64),
        last: Option<SegmentNumber>,
        other: &SimDisk,
    ) -> Result<String, Violation> {
        let path = |number| bulla_storage::files::dir::segment_path(Path::new(DIR), number);
        let bytes = self.disk.read_file(path(number));
        let others: Vec<SegmentNumber> = inspection
            .segments()
            .iter()
            .map(|segment| segment.number)
            .filter(|other| *other != number)
            .collect();
        let newest = others.iter().all(|other| *other < number);
        Ok(match self.rng.below(8) {
            // The last one may have lost its durable marks, too.
            0 if Some(number) < last => {
                self.disk.write_file(path(number), &bytes[..offset as usize]);
                format!("segment {number} ends at {offset}")
            }
            // Without the newest segment the log may be an older one.
            1 if !newest => {
                self.disk.remove_file(path(number));
                format!("segment {number} is removed")
            }
            2 if !others.is_empty() => {
                let other = others[self.rng.below(others.len() as u64) as usize];
                let others = self.disk.read_file(path(other));
                self.disk.write_file(path(other), &bytes);
                self.disk.write_file(path(number), &others);
                format!("segments {number} and {other} are exchanged")
            }
            3 => self.exchange_with(other, inspection)?,
            _ => {
                self.disk.flip(path(number), offset, 1 << self.rng.below(8));
                format!("segment {number} has a wrong bit at {offset}")
            }
        })
    }

    /// Puts the segment that opened this epoch in another course of events, which began on the
    /// same disk, in the place of this one's.
    fn exchange_with(
        &mut self,
        other: &SimDisk,
        inspection: &Inspection,
    ) -> Result<String, Violation> {
        let options = self.options.clone().io(other.process());
        let opened = open(Path::new(DIR), &options)
            .map_err(|error| format!("I20h: another course of events: {error:?}"))?;
        opened
            .log
            .append_with(1, b"elsewhere", Level::Strict)
            .and_then(|receipt| opened.log.wait(receipt))
            .and_then(|_| opened.log.close())
            .map_err(|error| format!("I20h: another course of events: {error:?}"))?;
        let epoch = inspection.report().epoch;
        let opening = inspection.segments().iter().find(|segment| segment.epoch == Some(epoch));
        let number = opening.ok_or("I20h: no segment has the newest epoch")?.number;
        let path = bulla_storage::files::dir::segment_path(Path::new(DIR), number);
        self.disk.write_file(&path, &other.read_file(&path));
        Ok(format!("segment {number} is of another epoch {epoch}"))
    }

    fn image(&self) -> Vec<(std::path::PathBuf, Vec<u8>)> {
        let files = self.disk.paths().into_iter();
        files.map(|path| (path.clone(), self.disk.read_file(path))).collect()
    }
}

fn is_corruption(error: &bulla_recovery::Error) -> bool {
    matches!(error, Error::Corrupt(_))
}
