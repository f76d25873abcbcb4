//! `bulla drill`: kills a writer again and again, and checks what it had acknowledged.
//!
//! Owns the course of a drill: runs of the child, kills, recoveries. The ledger decides what
//! is right (`ledger.rs`), the feed what a client sends (`feed.rs`).

mod args;
pub(crate) mod child;
mod feed;
mod ledger;
mod report;
mod victim;
mod wire;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bulla_engine::{StoreInspection, Token};
use bulla_recovery::{Range, Recovery};
use bulla_wal::{Lsn, Options, Seq};
use tempfile::TempDir;

pub(crate) use self::args::Args;
use self::feed::Feed;
use self::ledger::{Findings, Ledger, Recovered, Run};
use self::report::{Checked, Kill, Totals};
use self::victim::{Aim, Fall, Victim};
use crate::args::LogArgs;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::random::Random;
use crate::signals::Interrupt;
use crate::{input, progress, terminal};

/// Small, so that segments are filled in every run.
const SEGMENT_LEN: u64 = 1 << 20;
/// Small, so that a loss of more than the ring would show.
const RING_LEN: u64 = 1 << 20;
/// The most kills in a row without a completed recovery between them.
const MAX_NESTED: u64 = 3;

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let picture = args.html.destination()?;
    let interrupt = Interrupt::catch()?;
    let mut records = Vec::new();
    input::tokens(&args.input, &args.mapping, |token, _| {
        records.push(token);
        Ok(())
    })?;
    if records.is_empty() {
        return Err(Error::Input { path: args.input.clone(), reason: "the file has no rows" });
    }
    let mut log = args.log.clone();
    let ring_len = *log.ring_size.get_or_insert(RING_LEN);
    log.segment_size.get_or_insert(SEGMENT_LEN);
    let mut place = Place::make(args.dir.as_deref())?;
    let feed = Feed::new(records, args.clients);
    feed.save(&place.records)?;
    let drill = Drill {
        args,
        options: log.options(),
        log,
        log_dir: place.log.clone(),
        records: place.records.clone(),
        interrupt,
        random: Random::new(args.seed),
        ledger: Ledger::new(&feed, args.clients, ring_len),
        open_time: Duration::from_millis(30),
        totals: Totals::new(ring_len),
    };
    match drill.run() {
        Ok(totals) => {
            let outcome = totals.outcome();
            let kept = outcome != Outcome::Clean || args.dir.is_some();
            let kept = kept.then(|| place.keep());
            report::print(&totals, args, &feed, kept.as_deref(), out)?;
            if let Some(picture) = picture {
                out.flush()?;
                picture.save(&totals.page(args))?;
            }
            if kept.is_none() {
                place.remove()?;
            }
            Ok(outcome)
        }
        Err(Error::Interrupted) => {
            place.remove()?;
            Err(Error::Interrupted)
        }
        Err(error) => {
            terminal::warn(format_args!("the log is kept in {}", place.keep().display()));
            Err(error)
        }
    }
}

/// The drill's files: the log, and the records for the child.
#[derive(Debug)]
struct Place {
    /// Unless the user named a directory.
    temporary: Option<TempDir>,
    root: PathBuf,
    log: PathBuf,
    records: PathBuf,
}

impl Place {
    fn make(dir: Option<&Path>) -> Result<Self> {
        let (temporary, root) = match dir {
            Some(dir) => (None, dir.to_owned()),
            None => {
                let made = tempfile::Builder::new().prefix("bulla-drill-").tempdir();
                let made = made.map_err(|source| Error::System {
                    what: "create a temporary directory",
                    source,
                })?;
                let root = made.path().to_owned();
                (Some(made), root)
            }
        };
        std::fs::create_dir_all(&root).map_err(Error::file("create", &root))?;
        if std::fs::read_dir(&root).map_err(Error::file("list", &root))?.next().is_some() {
            let reason = "a drill needs a directory that is empty, or not there yet";
            return Err(Error::Input { path: root, reason });
        }
        Ok(Self { temporary, log: root.join("log"), records: root.join("records"), root })
    }

    /// Leaves the files where they are; returns the path of the log.
    fn keep(&mut self) -> PathBuf {
        if let Some(temporary) = self.temporary.take() {
            let _ = temporary.keep();
        }
        self.log.clone()
    }

    fn remove(&self) -> Result<()> {
        let removed = match std::fs::remove_dir_all(&self.log) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        };
        removed
            .and_then(|()| std::fs::remove_file(&self.records))
            .and_then(|()| std::fs::remove_dir(&self.root))
            .map_err(Error::file("remove", &self.root))
    }
}

struct Drill<'a> {
    args: &'a Args,
    log: LogArgs,
    options: Options,
    log_dir: PathBuf,
    records: PathBuf,
    interrupt: Interrupt,
    random: Random,
    ledger: Ledger<'a>,
    /// Estimate of the time that a child takes to open its log.
    open_time: Duration,
    totals: Totals,
}

impl Drill<'_> {
    fn run(mut self) -> Result<Totals> {
        let start = Instant::now();
        let bar = progress::count(self.args.kills, "kills");
        let mut run = Run::default();
        let mut nested = 0;
        for number in 1..=self.args.kills {
            let fall = self.kill(nested > 0)?;
            bar.inc(1);
            self.totals.kills.push(Kill::new(number, &fall));
            run.merge(fall.run);
            // One at least, however few kills there are.
            let again = nested < MAX_NESTED && (self.random.below(5) == 0 || number == 3);
            if again && number < self.args.kills {
                nested += 1;
                continue;
            }
            nested = 0;
            if !self.check(std::mem::take(&mut run))? {
                break;
            }
        }
        if self.totals.corruption.is_none() && self.args.kills > 0 {
            self.check_store()?;
        }
        drop(bar);
        self.totals.seconds = start.elapsed().as_secs_f64();
        Ok(self.totals)
    }

    /// Runs one child, and kills it.
    fn kill(&mut self, recovering: bool) -> Result<Fall> {
        if self.interrupt.is_set() {
            return Err(Error::Interrupted);
        }
        // A little longer than an open takes, to hit the first appends too.
        let micros = u64::try_from(self.open_time.as_micros()).unwrap_or(u64::MAX);
        let while_opening = Duration::from_micros(self.random.below(1 + micros + micros / 4));
        let aim = if recovering {
            Aim::Recovering(while_opening)
        } else if self.totals.kills.is_empty() {
            // Long enough for an acknowledgement, or the drill would show nothing.
            Aim::Appending(Duration::from_millis(self.args.max_life_ms))
        } else if self.random.below(4) == 0 || self.totals.kills.len() == 1 {
            Aim::EpochStart(while_opening)
        } else {
            let micros = self.random.below(1 + self.args.max_life_ms * 1000);
            Aim::Appending(Duration::from_micros(micros))
        };
        let child = child::Args {
            dir: self.log_dir.clone(),
            records: self.records.clone(),
            level: self.args.level,
            seed: self.random.next(),
            next: self.ledger.next_indexes().to_vec(),
            keep: self.args.keep,
            only_open: recovering,
            log: self.log.clone(),
        };
        let fall = match Victim::spawn(&child)?.kill(aim) {
            // Ctrl-C also ends the child.
            Err(Error::Child { .. }) if self.interrupt.is_set() => return Err(Error::Interrupted),
            fall => fall?,
        };
        if let Some(took) = fall.opened_after {
            self.open_time = (self.open_time * 3 + took) / 4;
        }
        Ok(fall)
    }

    /// Recovers and checks; returns `false` when the log is corrupt.
    fn check(&mut self, run: Run) -> Result<bool> {
        let opened = match Recovery::run(&self.log_dir, &self.options) {
            Ok(recovery) => Some(recovery),
            // The child was killed before it had created one.
            Err(bulla_wal::Error::NotALog { .. } | bulla_wal::Error::Io { .. })
                if !self.log_dir.join("CONTROL").exists() =>
            {
                None
            }
            Err(error) => return self.corrupt(error),
        };
        let recovered = opened.as_ref().map_or(
            Recovered { first_seq: Seq(1), next_seq: Seq(1), end: Lsn(0) },
            |recovery| {
                let report = recovery.report();
                Recovered {
                    first_seq: report.first_seq,
                    next_seq: report.next_seq,
                    end: report.last_lsn,
                }
            },
        );
        let mut check = self.ledger.check(run, recovered);
        if let Some(recovery) = &opened {
            let replayed = recovery.replay(Range::ALL, |entry| {
                check.entry(entry.lsn, entry.seq, entry.kind, entry.payload);
                std::ops::ControlFlow::Continue(())
            });
            if let Err(error) = replayed {
                return self.corrupt(error);
            }
        }
        let findings = check.finish();
        let report = opened.as_ref().map(Recovery::report);
        self.totals.add(Checked::new(findings, recovered, report));
        Ok(true)
    }

    fn corrupt(&mut self, error: bulla_recovery::Error) -> Result<bool> {
        let Some(corruption) = error.corruption() else { return Err(error.into()) };
        self.totals.corruption = Some(corruption.to_string());
        let mut findings = Findings::default();
        findings.corrupt(corruption);
        self.totals.total(&findings);
        Ok(false)
    }

    /// Checks that the store holds exactly the tokens of the log.
    fn check_store(&mut self) -> Result<()> {
        let expected: BTreeMap<_, _> =
            self.ledger.tokens().map(|token| (token.id(), token)).collect();
        let snapshot = match StoreInspection::<Token>::read_log(&self.log_dir, &self.options) {
            Err(bulla_engine::Error::Log(_)) if expected.is_empty() => return Ok(()),
            snapshot => snapshot?,
        };
        let mut findings = Findings::default();
        if !snapshot.iter().eq(expected.values().copied()) {
            findings.store(expected.len(), snapshot.len());
        }
        self.totals.total(&findings);
        self.totals.tokens = snapshot.len() as u64;
        Ok(())
    }
}

impl Run {
    /// Adds the run after this one, when nothing was checked between them.
    fn merge(&mut self, next: Self) {
        self.acks.extend(next.acks);
        self.opened = self.opened.max(next.opened);
        self.written = self.written.max(next.written);
        self.durable = self.durable.max(next.durable);
        self.keep_from = self.keep_from.max(next.keep_from);
    }
}
