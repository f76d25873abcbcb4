//! One seed of readers: a log that is written, purged, crashed and opened again, while
//! readers of all sorts follow it.
//!
//! What must hold: a reader shows what was appended, in order, without a hole or a
//! duplicate; never more than its watermark; durable entries survive every crash; a
//! reader that went past what a crash took says so, and no other does.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use bulla_recovery::Recovery;
use bulla_storage::io::sim::{FaultOp, SimConfig, SimDisk};
use bulla_wal::{
    Epoch, Error, Level, Log, Lsn, Method, Options, Position, Reader, Receipt, Visibility,
};

use crate::model::Violation;
use crate::rng::Rng;
use crate::seeds::{self, Campaign, Failure, Trace};

const DIR: &str = "/log";

tally! {
    /// What a seed did, for the campaign's totals.
    pub struct Tally {
        /// Entries that readers showed.
        pub shown: u64,
        /// Of these, to readers in another process.
        pub shown_elsewhere: u64,
        /// Readers that went on after the log was opened again, without being made anew.
        pub followed_on: u64,
        /// Readers that went on from the position that they kept.
        pub resumed: u64,
        /// Readers that were told that they went past a loss.
        pub diverged: u64,
        /// Readers that were told that their next entry was purged.
        pub purged: u64,
        /// Readers that were told of the poison.
        pub poisoned: u64,
        /// Entries read by their position.
        pub random: u64,
    }
}

impl Tally {
    /// How often the rarest of these happened.
    #[must_use]
    pub fn rarest(&self) -> u64 {
        let Self { shown, shown_elsewhere, followed_on, resumed, .. } = *self;
        let Self { diverged, purged, poisoned, random, .. } = *self;
        [shown, shown_elsewhere, followed_on, resumed, diverged, purged, poisoned, random]
            .into_iter()
            .min()
            .unwrap_or(0)
    }
}

/// Plays one seed.
///
/// # Errors
/// The first violation.
pub fn run(seed: u64) -> Result<Tally, Box<Failure>> {
    seeds::run::<World>(seed)
}

pub(crate) struct World {
    rng: Rng,
    disk: SimDisk,
    options: Options,
    /// What was appended and not lost, by number from 1 on.
    entries: Vec<(u16, Vec<u8>)>,
    receipts: Vec<Receipt>,
    /// How many of them a durable reader has returned.
    durable: u64,
    followers: Vec<Follower>,
    faulty: bool,
    poisoned: bool,
    tally: Tally,
    trace: Trace,
}

struct Follower {
    elsewhere: bool,
    visibility: Visibility,
    reader: Option<Reader>,
    position: Option<(Epoch, Lsn)>,
    /// The number of the next entry, if that is known.
    next: Option<u64>,
}

impl seeds::World for World {
    const CAMPAIGN: Campaign = Campaign::Readers;
    type Tally = Tally;

    fn new(mut rng: Rng) -> Self {
        let config = SimConfig {
            step_ns: rng.within(1_000, 200_000),
            late_completion_ppm: if rng.one_in(2) { 500_000 } else { 0 },
            short_write_ppm: if rng.one_in(4) { 50_000 } else { 0 },
            shorn_sector_ppm: if rng.one_in(2) { 200_000 } else { 0 },
            short_read_ppm: if rng.one_in(4) { 50_000 } else { 0 },
            ..SimConfig::default()
        };
        let disk = SimDisk::with_config(rng.bits(), config);
        let options = Options::new()
            .sector(512)
            .segment_len(16 * 1024)
            .ring_len(16 * 1024)
            .method(if rng.one_in(2) { Method::Direct } else { Method::Buffered })
            .depth(rng.within(1, 6) as usize)
            .balanced_entries(rng.within(5, 60))
            .lock_timeout(Duration::ZERO)
            .manual();
        let follower = |index: u32| Follower {
            elsewhere: index & 1 == 1,
            visibility: if index & 2 == 2 { Visibility::Written } else { Visibility::Durable },
            reader: None,
            position: None,
            next: None,
        };
        Self {
            rng,
            disk,
            options,
            entries: Vec::new(),
            receipts: Vec::new(),
            durable: 0,
            followers: (0..6).map(follower).collect(),
            faulty: false,
            poisoned: false,
            tally: Tally::default(),
            trace: Trace::default(),
        }
    }

    fn play(&mut self) -> Result<(), Violation> {
        let lives = self.rng.within(2, 5);
        for life in 0..lives {
            let log = self.open()?;
            self.greet(&log)?;
            let last = life + 1 == lives;
            self.faulty = !last && self.rng.one_in(4);
            self.poisoned = false;
            if self.faulty {
                let after = self.rng.below(40);
                self.note(format_args!("fault: a write of *.seg after {after}"));
                self.disk.fail_next(FaultOp::Write, std::io::ErrorKind::Other, ".seg", after);
            }
            for _ in 0..self.rng.within(10, 200) {
                if !self.rng.leaves_out() && !self.operate(&log)? {
                    break;
                }
            }
            self.rng.end_part();
            if self.poisoned {
                for index in 0..self.followers.len() {
                    self.follow(index, &log, 100)?;
                    self.read_one_again(&log)?;
                }
            }
            if last {
                return self.read_all(&log);
            }
            self.leave(log);
        }
        Ok(())
    }

    fn end(self) -> (Rng, Trace, Tally) {
        (self.rng, self.trace, self.tally)
    }
}

impl World {
    fn note(&mut self, line: fmt::Arguments<'_>) {
        self.trace.step(&self.disk, line);
    }

    /// Opens the log, and forgets what was lost.
    fn open(&mut self) -> Result<Log, Violation> {
        let shown = self.look()?;
        let options = self.options.clone().io(self.disk.process());
        let dir = Path::new(DIR);
        let recovered = match Recovery::run(dir, &options) {
            Err(Error::NotALog { .. }) => {
                return Log::create(dir, &options)
                    .map_err(|error| format!("I20h: creating: {error:?}"));
            }
            recovery => recovery.map_err(|error| format!("I20h: opening: {error:?}"))?,
        };
        let survived = recovered.report().next_seq.0 - 1;
        self.note(format_args!("opened: {survived} entries of {}", self.entries.len()));
        if survived < self.durable {
            return Err(format!("I24: entry {} was shown as durable, is lost", self.durable));
        }
        if survived < shown {
            return Err(format!("I24: entry {shown} was shown after a crash, {survived} survived"));
        }
        self.entries.truncate(survived as usize);
        self.receipts.retain(|receipt| receipt.seq.0 <= survived);
        Log::start(recovered.into_recovered()).map_err(|error| format!("I20h: starting: {error:?}"))
    }

    /// The number of the last entry that readers show before the log is recovered: one
    /// that recovery keeps.
    fn look(&mut self) -> Result<u64, Violation> {
        let mut shown = 0;
        for visibility in [Visibility::Durable, Visibility::Written] {
            let receipt = self.receipts.last().copied();
            let from = match (self.rng.below(3), receipt) {
                (0, Some(Receipt { lsn, .. })) => Position::Lsn { epoch: None, lsn },
                (1, Some(Receipt { seq, .. })) => Position::Seq(seq),
                _ => Position::Start,
            };
            let reader = Reader::open(self.disk.process(), Path::new(DIR), from, visibility);
            let mut reader = match reader {
                Err(Error::NotALog { .. }) => return Ok(0),
                reader => reader.map_err(|error| format!("I20h: after a crash: {error:?}"))?,
            };
            while let Some(entry) =
                reader.next().map_err(|error| format!("I20h: looking: {error:?}"))?
            {
                let appended = self.entries.get(entry.seq.0 as usize - 1);
                if appended.is_none_or(|(_, payload)| payload != entry.payload) {
                    return Err(format!("I24: entry {} is not what was appended", entry.seq));
                }
                shown = shown.max(entry.seq.0);
            }
        }
        Ok(shown)
    }

    /// All followers go on: those that lived through it as they are, the others from the
    /// position that they kept.
    fn greet(&mut self, log: &Log) -> Result<(), Violation> {
        for index in 0..self.followers.len() {
            let follower = &mut self.followers[index];
            if follower.elsewhere && follower.reader.is_some() {
                self.tally.followed_on += 1;
            } else {
                self.attach(index, log)?;
            }
        }
        Ok(())
    }

    fn attach(&mut self, index: usize, log: &Log) -> Result<(), Violation> {
        let from = match self.followers[index].position {
            Some((epoch, lsn)) => Position::Lsn { epoch: Some(epoch), lsn },
            None => Position::Start,
        };
        match self.make(index, log, from) {
            Ok(reader) => {
                self.followers[index].reader = Some(reader);
                self.tally.resumed += u64::from(from != Position::Start);
                Ok(())
            }
            Err(error) => self.refused(index, log, error),
        }
    }

    fn make(&self, index: usize, log: &Log, from: Position) -> Result<Reader, Error> {
        let follower = &self.followers[index];
        if follower.elsewhere {
            Reader::open(self.disk.process(), Path::new(DIR), from, follower.visibility)
        } else {
            log.reader(from, follower.visibility)
        }
    }

    /// An error of a reader must be true. Then it begins anew.
    fn refused(&mut self, index: usize, log: &Log, error: Error) -> Result<(), Violation> {
        let survived = self.entries.len() as u64;
        let follower = &mut self.followers[index];
        let read = follower.next.map_or(0, |next| next - 1);
        self.trace.step(&self.disk, format_args!("reader {index} after {read} entries: {error}"));
        let (_, position) = follower
            .reader
            .as_ref()
            .map(Reader::position)
            .or(follower.position)
            .unwrap_or((Epoch(0), Lsn(0)));
        match error {
            Error::Purged { .. } if position < log.low_water() => self.tally.purged += 1,
            Error::Diverged { .. } if follower.visibility == Visibility::Written => {
                self.tally.diverged += 1;
            }
            Error::Poisoned { durable, .. } if !follower.elsewhere && self.faulty => {
                if durable != log.durable() || position < durable {
                    return Err(format!("I4: poisoned at {position}, durable {durable}"));
                }
                self.tally.poisoned += 1;
                return Ok(());
            }
            Error::Io { .. } if self.faulty => return Ok(()),
            Error::Diverged { .. } => {
                return Err(format!(
                    "I26: reader {index} at {position} has read {read}: {error:?}"
                ));
            }
            error => {
                return Err(format!(
                    "I20h: reader {index} at {position} has read {read} of {survived}, log starts at {}: {error:?}",
                    log.low_water()
                ));
            }
        }
        follower.position = None;
        follower.next = None;
        let from = Position::Start;
        let reader =
            self.make(index, log, from).map_err(|error| format!("I20h: anew: {error:?}"))?;
        self.followers[index].reader = Some(reader);
        Ok(())
    }

    /// False when the log is done for.
    fn operate(&mut self, log: &Log) -> Result<bool, Violation> {
        match self.rng.below(16) {
            0..=4 => return self.append(log),
            5 | 6 => drop(log.step()),
            7 => {
                self.disk.advance(self.rng.within(1, 150) * 1_000_000);
                log.step();
            }
            8 => {
                let synced = log.sync();
                self.note(format_args!("sync: {synced:?}"));
                self.poisoned = matches!(synced, Err(Error::Poisoned { .. }));
                return Ok(synced.is_ok());
            }
            9 if self.rng.one_in(4) => {
                let keep = Lsn(log.end().0 * self.rng.below(8) / 8);
                let purged = log.purge(keep);
                self.note(format_args!("purge below {keep}: {purged:?}"));
                return Ok(purged.is_ok());
            }
            10 => self.read_one_again(log)?,
            11 => {
                let index = self.rng.below(self.followers.len() as u64) as usize;
                self.attach(index, log)?;
            }
            _ => {
                let index = self.rng.below(self.followers.len() as u64) as usize;
                let most = self.rng.within(1, 30);
                self.follow(index, log, most)?;
            }
        }
        Ok(true)
    }

    fn append(&mut self, log: &Log) -> Result<bool, Violation> {
        let longest = if self.rng.one_in(10) { 3_000 } else { 200 };
        let len = self.rng.below(longest) as usize;
        let kind = self.rng.below(0xFF00) as u16;
        let payload = vec![self.rng.bits() as u8; len];
        let level = Level::ALL[self.rng.below(3) as usize];
        let receipt = log.append_with(kind, &payload, level);
        self.note(format_args!("append {len} bytes: {receipt:?}"));
        match receipt {
            Ok(receipt) => {
                self.entries.push((kind, payload));
                if receipt.seq.0 != self.entries.len() as u64 {
                    return Err(format!(
                        "I5: number {} for entry {}",
                        receipt.seq,
                        self.entries.len()
                    ));
                }
                self.receipts.push(receipt);
                Ok(true)
            }
            Err(error) if self.faulty => {
                self.poisoned = matches!(error, Error::Poisoned { .. });
                Ok(false)
            }
            Err(error) => Err(format!("I20h: append: {error:?}")),
        }
    }

    /// Reads on, and compares. Returns whether the end was reached.
    fn follow(&mut self, index: usize, log: &Log, most: u64) -> Result<bool, Violation> {
        for _ in 0..most {
            let follower = &mut self.followers[index];
            let Some(reader) = &mut follower.reader else { return Ok(true) };
            let entry = match reader.next() {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    follower.position = Some(reader.position());
                    return Ok(true);
                }
                Err(error) => {
                    self.refused(index, log, error)?;
                    return Ok(false);
                }
            };
            let bound = match follower.visibility {
                Visibility::Durable => log.durable(),
                // Elsewhere a write is seen before the log hears of its completion.
                Visibility::Written if follower.elsewhere => log.end(),
                Visibility::Written if self.poisoned => log.durable(),
                Visibility::Written => log.written(),
            };
            if entry.lsn >= bound {
                return Err(format!("I24: entry at {} is shown, the bound is {bound}", entry.lsn));
            }
            let seq = entry.seq.0;
            if follower.next.is_some_and(|next| next != seq) {
                return Err(format!(
                    "I24: reader {index} got {seq} instead of {:?}",
                    follower.next
                ));
            }
            let appended = self.entries.get(seq as usize - 1);
            if appended
                .is_none_or(|(kind, payload)| (*kind, &payload[..]) != (entry.kind, entry.payload))
            {
                return Err(format!("I24: reader {index}: entry {seq} is not what was appended"));
            }
            if follower.visibility == Visibility::Durable {
                self.durable = self.durable.max(seq);
            }
            self.tally.shown += 1;
            self.tally.shown_elsewhere += u64::from(follower.elsewhere);
            follower.next = Some(seq + 1);
            follower.position = Some(reader.position());
            self.trace.step(&self.disk, format_args!("reader {index} shows entry {seq}"));
        }
        Ok(false)
    }

    /// Reads an entry by its receipt, and a place that is none.
    fn read_one_again(&mut self, log: &Log) -> Result<(), Violation> {
        if self.receipts.is_empty() {
            return Ok(());
        }
        let receipt = self.receipts[self.rng.below(self.receipts.len() as u64) as usize];
        let index = self.rng.below(self.followers.len() as u64) as usize;
        let follower = &mut self.followers[index];
        let Some(reader) = &mut follower.reader else { return Ok(()) };
        let before = reader.position();
        let (kind, payload) = &self.entries[receipt.seq.0 as usize - 1];
        match reader.read(receipt.epoch, receipt.lsn) {
            Ok(Some(_)) if self.poisoned && receipt.lsn >= log.durable() => {
                return Err(format!("I4: {receipt:?} is shown after the poison"));
            }
            Ok(None) if follower.elsewhere || receipt.lsn >= log.durable() => {}
            Ok(Some(entry)) if (entry.seq, entry.kind) == (receipt.seq, *kind) => {
                if entry.payload != payload || entry.lsn != receipt.lsn {
                    return Err(format!("I24: {receipt:?} is not what was appended"));
                }
                self.tally.random += 1;
            }
            Err(Error::Purged { .. }) if receipt.lsn < log.low_water() => return Ok(()),
            Err(Error::Poisoned { .. }) if self.faulty => return Ok(()),
            other => return Err(format!("I24: read of {receipt:?} gave {other:?}")),
        }
        match reader.read(receipt.epoch, Lsn(receipt.lsn.0 + 1)) {
            Err(Error::NoEntry { .. } | Error::Poisoned { .. } | Error::Purged { .. })
            | Ok(None) => {}
            other => return Err(format!("I24: a place that is no entry's gave {other:?}")),
        }
        if reader.position() != before {
            return Err("I24: a random read moved the reader".to_owned());
        }
        Ok(())
    }

    /// Once all is durable and the log says so, every reader gets everything.
    fn read_all(&mut self, log: &Log) -> Result<(), Violation> {
        // A full segment has no room for the mark: then one more entry.
        if !(self.is_marked(log)? || self.is_marked(log)?) {
            return Err("I25: a log that idles does not say what is durable".to_owned());
        }
        for index in 0..self.followers.len() {
            while !self.follow(index, log, 1_000)? {}
            let next = self.followers[index].next;
            if next.is_some_and(|next| next != self.entries.len() as u64 + 1) {
                return Err(format!(
                    "I24: reader {index} ends before {next:?}, {} entries are durable",
                    self.entries.len()
                ));
            }
        }
        Ok(())
    }

    /// Appends an entry, and lets the log idle: does it say that all is durable?
    fn is_marked(&mut self, log: &Log) -> Result<bool, Violation> {
        let failed = |error: Error| format!("I20h: the last entry: {error:?}");
        let receipt = log.append_with(1, b"", Level::Strict).map_err(failed)?;
        self.entries.push((1, Vec::new()));
        let end = log.end();
        log.wait(receipt).map_err(failed)?;
        log.sync().map_err(failed)?;
        self.disk.advance(60_000_000);
        for _ in 0..100 {
            log.step();
        }
        Ok(log.end() > end)
    }

    /// The writer goes away, alone or with the machine.
    fn leave(&mut self, log: Log) {
        let how = self.rng.below(4);
        let name = ["killed", "power is lost", "closed", "dropped"][how as usize];
        self.note(format_args!("{name}"));
        match how {
            0 => self.disk.kill(),
            1 => self.disk.power_loss(),
            2 => drop(log.close()),
            _ => drop(log),
        }
        self.disk.clear_faults();
        let crashed = self.disk.is_crashed();
        for follower in &mut self.followers {
            if crashed || !follower.elsewhere {
                follower.reader = None;
            }
        }
    }
}
