//! Cuts of a real file system under a store with checkpoints.
//!
//! One thread writes, one takes checkpoints, one cuts. What an open shows after that must be, to
//! the byte, what the store held after one of its changes, and none may be missing that was
//! acknowledged at Strict.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use bulla_engine::{CheckpointError, Error, Level, Store, StoreOptions, Token, TokenId};

use super::{CUT_OPENS, Cutter, LONGEST_LIFE_US, LONGEST_OPEN_US, log_options};
use crate::image::Image;
use crate::model::Violation;
use crate::rng::Rng;

/// Changes of a life at most: it ends with the cut.
const MAX_CHANGES: u64 = 20_000;

/// What a run did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Tally {
    pub cuts: u64,
    pub cuts_in_open: u64,
    pub changes: u64,
    pub strict: u64,
    pub lost: u64,
    pub checkpoints: u64,
    pub opened_from_checkpoints: u64,
    pub checkpoints_refused: u64,
}

type Map = BTreeMap<u32, Token>;

/// Cuts a file system `cuts` times under a store, and checks what is left each time. With
/// `lies` the syncs are not passed on.
///
/// # Errors
/// The first violation, with the seed and the number of the cut.
pub fn run(image: &mut Image, seed: u64, cuts: u64, lies: bool) -> Result<Tally, String> {
    let mut world = World {
        image,
        rng: Rng::new(seed),
        lies,
        map: Map::new(),
        changes: Vec::new(),
        first: 0,
        durable: 0,
        tally: Tally::default(),
    };
    while world.tally.cuts < cuts {
        let number = world.tally.cuts;
        world.life().map_err(|violation| format!("seed {seed}, cut {number}: {violation}"))?;
    }
    let options = world.options();
    let store = world.open(&options)?.map_err(|error| format!("in the end: {error}"))?;
    store.close().map_err(|error| error.to_string())?;
    Ok(world.tally)
}

struct World<'a> {
    image: &'a mut Image,
    rng: Rng,
    lies: bool,
    /// What the last open showed, and the changes since then.
    map: Map,
    changes: Vec<(u32, Option<Token>)>,
    /// The number of the log's last entry before them.
    first: u64,
    /// No entry up to this one may be lost.
    durable: u64,
    tally: Tally,
}

impl World<'_> {
    fn life(&mut self) -> Result<(), Violation> {
        let options = self.options();
        for _ in 0..CUT_OPENS {
            if !self.rng.one_in(4) {
                break;
            }
            let cutter = Cutter::new(self.image, &mut self.rng, LONGEST_OPEN_US)?;
            let opened = cutter.during(|_| self.open(&options))??;
            self.tally.cuts += 1;
            self.tally.cuts_in_open += u64::from(opened.is_err());
            drop(opened);
            self.image.mount_again()?;
        }
        let store = self.open(&options)?.map_err(|error| format!("open failed: {error:?}"))?;
        let cutter = Cutter::new(self.image, &mut self.rng, LONGEST_LIFE_US)?;
        cutter.during(|is_cut| self.live(&store, is_cut))??;
        self.tally.cuts += 1;
        self.tally.checkpoints += store.stats().checkpoints.taken;
        drop(store);
        self.image.mount_again()
    }

    fn options(&mut self) -> StoreOptions {
        let log = log_options(&mut self.rng, self.lies);
        StoreOptions::new().log(log).checkpoint_close_bytes(None)
    }

    /// Opens the store: a failure is an error of the store, a violation one of the run.
    fn open(&mut self, options: &StoreOptions) -> Result<Result<Store, Error>, Violation> {
        let store = match Store::open(self.image.root().join("store"), options) {
            Ok(store) => store,
            Err(Error::Log(bulla_wal::Error::Corrupt(found))) => {
                return Err(format!("an undamaged store is refused: {found}"));
            }
            Err(error @ Error::Checkpoint(_)) => {
                return Err(format!("an undamaged store is refused: {error}"));
            }
            Err(error) => return Ok(Err(error)),
        };
        let shown = match store.iter() {
            Ok(records) => records.map(|token| (token.id().0, token)).collect::<Map>(),
            Err(error) => return Ok(Err(error)),
        };
        let from = store.opened_from();
        self.tally.opened_from_checkpoints += u64::from(from.checkpoint.is_some());
        self.tally.checkpoints_refused += from.refused.len() as u64;
        self.compare(store.recovered().map_or(0, |report| report.next_seq.0 - 1), shown)?;
        Ok(Ok(store))
    }

    fn compare(&mut self, seq: u64, shown: Map) -> Result<(), Violation> {
        if seq < self.durable {
            return Err(format!("entry {} was durable, recovered is only {seq}", self.durable));
        }
        let kept = seq.checked_sub(self.first).filter(|kept| *kept <= self.changes.len() as u64);
        let kept = kept.ok_or_else(|| format!("entry {seq} was never appended"))?;
        for (id, token) in &self.changes[..kept as usize] {
            match token {
                Some(token) => self.map.insert(*id, *token),
                None => self.map.remove(id),
            };
        }
        if shown != self.map {
            return Err(format!("after entry {seq} it shows {shown:?}, not {:?}", self.map));
        }
        self.tally.lost += self.changes.len() as u64 - kept;
        self.changes.clear();
        (self.first, self.durable) = (seq, seq);
        Ok(())
    }

    /// Writes, with checkpoints meanwhile, until the cut or what it makes fail.
    fn live(&mut self, store: &Store, is_cut: &AtomicBool) -> Result<(), Violation> {
        let has_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let checkpoints = scope.spawn(|| {
                while !has_ended.load(Ordering::Acquire) {
                    match store.checkpoint() {
                        Ok(_) | Err(Error::Checkpoint(CheckpointError::NotMarked { .. })) => {}
                        Err(error) if fails_with_the_disk(&error) => return Ok(()),
                        Err(error) => return Err(format!("checkpoint failed: {error:?}")),
                    }
                    thread::sleep(Duration::from_millis(2));
                }
                Ok(())
            });
            let written = self.write(store, is_cut);
            has_ended.store(true, Ordering::Release);
            written.and(checkpoints.join().expect("it does not panic"))
        })
    }

    fn write(&mut self, store: &Store, is_cut: &AtomicBool) -> Result<(), Violation> {
        for _ in 0..MAX_CHANGES {
            match self.change(store) {
                Ok(()) => {}
                Err(error) if fails_with_the_disk(&error) => break,
                Err(error) => return Err(format!("unexpected error: {error:?}")),
            }
            if is_cut.load(Ordering::Acquire) {
                break;
            }
        }
        Ok(())
    }

    fn change(&mut self, store: &Store) -> Result<(), Error> {
        // Of a few slabs and pages.
        let number = self.rng.below(200) as u32;
        let id = number % 4 * 70_000 + number * 8 + 1;
        let level = Level::ALL[self.rng.below(3) as usize];
        let token = (!self.rng.one_in(5)).then(|| {
            let weight = self.rng.below(100) as f32;
            Token::builder(TokenId(id)).weight(weight).build().expect("in range")
        });
        let receipt = match &token {
            Some(token) => Some(store.at(level).begin().put(token)?),
            None => store.at(level).begin().delete(TokenId(id))?,
        };
        let Some(receipt) = receipt else { return Ok(()) };
        self.changes.push((id, token));
        self.tally.changes += 1;
        if level != Level::Relaxed && self.rng.one_in(4) {
            store.wait(receipt)?;
            if level == Level::Strict {
                self.tally.strict += 1;
                self.durable = self.durable.max(receipt.seq.0);
            }
        }
        Ok(())
    }
}

/// Is it what a file system that is cut makes of an operation?
fn fails_with_the_disk(error: &Error) -> bool {
    use bulla_wal::Error::{Io, NoSegment, NoSpace, Poisoned};
    matches!(error, Error::Log(Poisoned { .. } | Io { .. } | NoSpace(_) | NoSegment(_)))
        || matches!(error, Error::Checkpoint(CheckpointError::Io { .. }))
}
