//! Cuts of a real file system under a log that is written, against the campaign's model.
//!
//! Every outcome is checked by the same `Model` as those of the simulated disk: what
//! really happens must be among what it allows. Under a store: [`store`].

pub mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bulla_recovery::{Recovery, Status};
use bulla_storage::io::Io;
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_wal::{Error, Level, Log, Lsn, Method, Options, Receipt};

use crate::image::{Cut, Image, Scissors};
use crate::model::{Model, Shown, Violation};
use crate::rng::Rng;
use crate::wrap::WrapIo;

/// The most microseconds before a cut.
const LONGEST_LIFE_US: u64 = 60_000;
/// The same of an open.
const LONGEST_OPEN_US: u64 = 3_000;
/// Entries of a life at most: it ends with the cut.
const MAX_ENTRIES: u64 = 20_000;
/// Opens that are cut themselves, before one is let through.
const CUT_OPENS: u64 = 2;
/// Balanced entries in this many bytes may be unsynced.
const MAX_UNSYNCED: u64 = 64 * 1024;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Cuts.
    pub cuts: u64,
    /// Of these, those that struck an open.
    pub cuts_in_open: u64,
    /// Entries appended.
    pub appended: u64,
    /// Strict receipts that were ready before the cut.
    pub strict: u64,
    /// Balanced receipts that were ready before the cut.
    pub balanced: u64,
    /// Entries that a cut took, as it may.
    pub lost: u64,
    /// Recoveries that cut a torn tail.
    pub torn: u64,
    /// Recoveries that copied a tail into a new segment.
    pub rewritten: u64,
    /// Segments filled.
    pub rotations: u64,
}

/// Cuts a file system `cuts` times under a log, and checks what is left each time.
///
/// With `lies` the syncs that acknowledgements wait for are not passed on: a run that finds
/// nothing then would find nothing ever.
///
/// # Errors
/// The first violation, with the seed and the number of the cut.
pub fn run(image: &mut Image, seed: u64, cuts: u64, lies: bool) -> Result<Tally, String> {
    let mut world = World {
        image,
        rng: Rng::new(seed),
        model: Model::default(),
        tally: Tally::default(),
        lies,
    };
    while world.tally.cuts < cuts {
        let number = world.tally.cuts;
        world.life().map_err(|violation| format!("seed {seed}, cut {number}: {violation}"))?;
    }
    let options = world.options();
    let log = world.open(&options)?.map_err(|error| format!("in the end: {error}"))?;
    log.close().map_err(|error| error.to_string())?;
    Ok(world.tally)
}

fn log_options(rng: &mut Rng, lies: bool) -> Options {
    let inner: Arc<dyn Io> =
        if rng.one_in(3) { Arc::new(UringIo::new()) } else { Arc::new(StdIo::new()) };
    let (io, knobs) = WrapIo::over(inner);
    knobs.lie.store(lies, Ordering::Relaxed);
    let direct = !lies && rng.one_in(2);
    Options::new()
        .io(io)
        .segment_len(64 * 1024)
        .ring_len(128 * 1024)
        .method(if direct { Method::Direct } else { Method::Buffered })
        .balanced_interval(Duration::from_millis(rng.within(5, 20)))
        .flush_interval(Duration::from_millis(2))
        .idle_mark(Duration::from_millis(3))
        .balanced_max_unsynced(MAX_UNSYNCED)
}

/// A cut that is to come.
struct Cutter {
    scissors: Scissors,
    cut: Cut,
    after: Duration,
}

impl Cutter {
    /// After a time that is drawn.
    fn new(image: &Image, rng: &mut Rng, longest_us: u64) -> Result<Self, Violation> {
        let after = Duration::from_micros(rng.below(longest_us));
        let cut = if rng.one_in(4) { Cut::Data } else { Cut::Everything };
        let scissors = image.scissors();
        let scissors = scissors.map_err(|error| format!("there is nothing to cut: {error}"))?;
        Ok(Self { scissors, cut, after })
    }

    /// Does something while another thread waits and cuts.
    fn during<T>(self, work: impl FnOnce(&AtomicBool) -> T) -> Result<T, Violation> {
        let is_cut = AtomicBool::new(false);
        let (done, result) = thread::scope(|scope| {
            let signal = &is_cut;
            let cutter = scope.spawn(move || {
                thread::sleep(self.after);
                let result = self.scissors.cut(self.cut);
                signal.store(true, Ordering::Release);
                result
            });
            let done = work(&is_cut);
            (done, cutter.join().expect("it only sleeps and cuts"))
        });
        result.map_err(|error| format!("the file system can't be cut: {error}"))?;
        Ok(done)
    }
}

struct World<'a> {
    image: &'a mut Image,
    rng: Rng,
    model: Model,
    tally: Tally,
    lies: bool,
}

impl World<'_> {
    /// Opens the log, perhaps cut while it does, writes until a cut, and mounts again.
    fn life(&mut self) -> Result<(), Violation> {
        let options = self.options();
        for _ in 0..CUT_OPENS {
            if !self.rng.one_in(4) {
                break;
            }
            let cutter = Cutter::new(self.image, &mut self.rng, LONGEST_OPEN_US)?;
            let opened = cutter.during(|_| self.open(&options))??;
            self.cut();
            self.tally.cuts_in_open += u64::from(opened.is_err());
            drop(opened);
            self.image.mount_again()?;
        }
        let log = self.open(&options)?.map_err(|error| format!("open failed: {error:?}"))?;
        let cutter = Cutter::new(self.image, &mut self.rng, LONGEST_LIFE_US)?;
        cutter.during(|is_cut| self.write(&log, is_cut))??;
        self.cut();
        self.tally.rotations += log.stats().rotations;
        drop(log);
        self.image.mount_again()
    }

    fn cut(&mut self) {
        self.tally.cuts += 1;
        self.model.power_lost();
    }

    fn options(&mut self) -> Options {
        log_options(&mut self.rng, self.lies)
    }

    /// Opens the log: a failure is an error of the log, a violation one of the run.
    fn open(&mut self, options: &Options) -> Result<Result<Log, bulla_recovery::Error>, Violation> {
        let dir = self.image.root().join("log");
        let recovery = match Recovery::run(&dir, options) {
            Ok(recovery) => recovery,
            Err(Error::NotALog { .. }) => {
                return Ok(Log::create(&dir, options));
            }
            Err(error) if is_corruption(&error) => {
                return Err(format!("an undamaged log is refused: {error}"));
            }
            Err(error) => return Ok(Err(error)),
        };
        let shown = match Shown::read(&recovery) {
            Ok(shown) => shown,
            Err(error) => return Ok(Err(error)),
        };
        let report = recovery.report();
        self.tally.torn += u64::from(report.status == Status::TornTail);
        self.tally.rewritten += u64::from(report.rewritten.is_some());
        let before = self.model.entries.len() as u64;
        self.model.recovered(&shown, None)?;
        self.tally.lost += before - self.model.entries.len() as u64;
        Ok(Log::start(recovery.into_recovered()))
    }

    /// Appends and takes down what is acknowledged, until the cut or what it makes fail.
    fn write(&mut self, log: &Log, is_cut: &AtomicBool) -> Result<(), Violation> {
        let mut receipts = Vec::new();
        for _ in 0..MAX_ENTRIES {
            match self.operate(log, &mut receipts)? {
                Ok(()) => {}
                Err(
                    Error::Poisoned { .. }
                    | Error::Io { .. }
                    | Error::NoSpace(_)
                    | Error::NoSegment(_),
                ) => break,
                Err(error) => return Err(format!("unexpected error: {error:?}")),
            }
            self.look(log, &mut receipts)?;
            if is_cut.load(Ordering::Acquire) {
                break;
            }
        }
        self.look(log, &mut receipts)
    }

    fn operate(
        &mut self,
        log: &Log,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Result<(), Error>, Violation> {
        Ok(match self.rng.below(40) {
            0 => {
                // Below what is durable now: more may be when the log looks itself.
                let keep = Lsn(log.durable().0 * self.rng.below(8) / 8);
                self.model.purge_allowed(self.model.first_at_or_after(keep));
                log.purge(keep).map(drop)
            }
            1 => log.sync().map(drop),
            2 => {
                thread::sleep(Duration::from_millis(self.rng.below(8)));
                Ok(())
            }
            3..=9 => receipts.last().map_or(Ok(()), |last| log.wait(*last)),
            _ => return self.append(log, receipts),
        })
    }

    fn append(
        &mut self,
        log: &Log,
        receipts: &mut Vec<Receipt>,
    ) -> Result<Result<(), Error>, Violation> {
        let level = Level::ALL[self.rng.below(3) as usize];
        let batch = self.rng.entries(|rng| if rng.one_in(10) { 20_000 } else { 300 });
        let entries: Vec<(u16, &[u8])> =
            batch.iter().map(|(kind, payload)| (*kind, payload.as_slice())).collect();
        let receipt = match log.append_batch(&entries, level) {
            Ok(receipt) => receipt.last(),
            Err(error) => return Ok(Err(error)),
        };
        self.tally.appended += batch.len() as u64;
        self.model.appended(batch, receipt)?;
        receipts.push(receipt);
        Ok(Ok(()))
    }

    fn look(&mut self, log: &Log, receipts: &mut Vec<Receipt>) -> Result<(), Violation> {
        // In this order: a watermark that moves in between only gets higher.
        let durable = log.durable();
        self.model.watermarks(log.written(), durable)?;
        let mut violation = None;
        receipts.retain(|receipt| {
            if !matches!(log.is_ready(*receipt), Ok(true)) {
                return true;
            }
            match receipt.level {
                Level::Strict => self.tally.strict += 1,
                Level::Balanced => self.tally.balanced += 1,
                Level::Relaxed => {}
            }
            if let Err(broken) = self.model.ready(*receipt, log.durable(), MAX_UNSYNCED) {
                violation = Some(broken);
            }
            false
        });
        violation.map_or(Ok(()), Err)
    }
}

fn is_corruption(error: &bulla_recovery::Error) -> bool {
    matches!(error, Error::Corrupt(_))
}
