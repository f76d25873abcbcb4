//! Checkpoints of the store's campaign: how they are taken, and damaged. And smaller ones of their
//! own: every crash of one checkpoint, and what a power loss leaves of the first two.

use std::path::Path;
use std::time::Duration;

use bulla_engine::{CheckpointInfo, Error, Level, Store, StoreOptions, Token, TokenId};
use bulla_recovery::Recovery;
use bulla_storage::io::sim::{CrashKind, SimDisk};
use bulla_wal::Options;

use super::oracle::read;
use super::{DIR, Moment, World};
use crate::model::Violation;

/// A kill at every step of a checkpoint, an open after it, a power loss after that, which takes
/// what was pending, or leaves it, or decides otherwise on one part of it: any one checkpoint may
/// then be damaged, and the store shows the same.
///
/// # Errors
/// The first of these that is broken, with the crash before it.
pub fn any_one_checkpoint_is_enough_after_every_crash() -> Result<(), String> {
    /// What a kill strikes was done, or not.
    const SEEDS: u64 = 4;
    let dir = Path::new(DIR);
    let log = |disk: &SimDisk| {
        let log = Options::new().sector(512).segment_len(16 * 1024).ring_len(16 * 1024);
        log.io(disk.process()).lock_timeout(Duration::ZERO).manual()
    };
    let options = |disk: &SimDisk| StoreOptions::new().log(log(disk)).checkpoint_close_bytes(None);
    let failed = |error: Error| format!("I37: {error:?}");
    for (step, seed) in (0..400_u64).flat_map(|step| (0..SEEDS).map(move |seed| (step, seed))) {
        let disk = SimDisk::new(seed);
        let store = Store::open(dir, &options(&disk)).map_err(failed)?;
        let fill = |store: &Store, weight: f32| {
            (1..100_u32).try_for_each(|id| {
                let token = Token::builder(TokenId(id)).weight(weight).build()?;
                store.at(Level::Strict).begin().put(&token).map(drop)
            })
        };
        for weight in [1.0, 2.0, 3.0] {
            fill(&store, weight).map_err(failed)?;
            store.checkpoint().map_err(failed)?;
        }
        fill(&store, 4.0).map_err(failed)?;
        store.sync().map_err(failed)?;
        disk.crash_after(step, CrashKind::Kill);
        let ended = store.checkpoint().is_ok();
        disk.disarm();
        disk.kill();
        drop(store);
        let all_stand = |disk: &SimDisk| {
            let store = Store::open(dir, &options(disk));
            let store = store.map_err(|error| format!("I37: step {step}: {error:?}"))?;
            let opened = store.opened_from();
            if opened.refused.is_empty() {
                Ok(())
            } else {
                Err(format!("I37: step {step}: {opened}"))
            }
        };
        // A recovery that knows of no checkpoint moves no frame below one.
        let fork = disk.fork(seed);
        fork.power_loss();
        let recovery = Recovery::run(dir, &log(&fork).any_content());
        drop(recovery.map_err(|error| format!("I37: step {step}: {error:?}"))?);
        all_stand(&fork)?;
        all_stand(&disk)?;
        disk.halt();
        for ends in ends_but_for_one(&disk.open_ends(CrashKind::PowerLoss)) {
            let disk = disk.end(seed, CrashKind::PowerLoss, &ends);
            each_checkpoint_can_be_spared(&disk, |disk| {
                let store = Store::open(dir, &options(disk)).map_err(failed)?;
                let is_right = |token: Token| token.weight() == 4.0;
                let all = read(store.iter())?.all(is_right) && store.len() == 99;
                if all { Ok(()) } else { Err("I37: other records".to_owned()) }
            })
            .map_err(|violation| format!("{violation}, seed {seed}, step {step}, {ends:?}"))?;
        }
        if ended && seed == SEEDS - 1 {
            return Ok(());
        }
    }
    Err("I37: a checkpoint takes more steps than were tried".to_owned())
}

/// Two checkpoints in one segment, the first ones of a store, which let the log before them go:
/// whatever a power loss then takes of what is pending, the store shows the same. No segment
/// begins between them, whose name would make theirs durable, too.
///
/// # Errors
/// The end that shows something else, or what of this the store did not do.
pub fn first_checkpoints_outlive_every_power_loss_after_a_purge() -> Result<(), String> {
    const SEED: u64 = 1;
    let dir = Path::new(DIR);
    let options = |disk: &SimDisk| {
        let log = Options::new().sector(512).segment_len(16 * 1024).ring_len(16 * 1024);
        let log = log.io(disk.process()).lock_timeout(Duration::ZERO).manual();
        StoreOptions::new().log(log).checkpoint_close_bytes(None)
    };
    let failed = |error: Error| format!("I37: {error:?}");
    let disk = SimDisk::new(SEED);
    let store = Store::open(dir, &options(&disk)).map_err(failed)?;
    let put = |id| {
        let token = Token::builder(TokenId(id)).build().expect("in range");
        store.at(Level::Strict).put(&token).map_err(failed)
    };
    let segments = || disk.paths().iter().filter(|path| is_segment(path)).count();
    let mut id = 0;
    // The third has just begun, and the spare for the fourth is there.
    while segments() < 4 {
        id += 1;
        put(id)?;
    }
    store.checkpoint().map_err(failed)?;
    put(id + 1)?;
    store.checkpoint().map_err(failed)?;
    if segments() > 2 {
        return Err(format!("I39: {} segments are left: nothing was purged", segments()));
    }
    disk.halt();
    drop(store);
    for ends in ends_but_for_one(&disk.open_ends(CrashKind::PowerLoss)) {
        let disk = disk.end(SEED, CrashKind::PowerLoss, &ends);
        let store = Store::open(dir, &options(&disk))
            .map_err(|error| format!("I37: {ends:?}: {error:?}"))?;
        if store.len() != id as usize + 1 {
            return Err(format!("I37: {ends:?}: {} records of {}", store.len(), id + 1));
        }
    }
    Ok(())
}

fn is_segment(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "seg")
}

/// Every piece lost, or every piece as it was written last; and each of these but for one.
fn ends_but_for_one(open: &[usize]) -> Vec<Vec<usize>> {
    let lost = vec![0; open.len()];
    let kept: Vec<_> = open.iter().map(|count| count - 1).collect();
    let mut all = vec![lost.clone(), kept.clone()];
    for at in 0..open.len() {
        for (ends, other) in [(&lost, &kept), (&kept, &lost)] {
            let mut ends = ends.clone();
            ends[at] = other[at];
            all.push(ends);
        }
    }
    all
}

/// Damages each checkpoint in turn, and looks at the store then.
fn each_checkpoint_can_be_spared(
    disk: &SimDisk,
    look: impl Fn(&SimDisk) -> Result<(), String>,
) -> Result<(), String> {
    let mut names = disk.paths();
    names.retain(|path| path.to_string_lossy().ends_with(".ckpt"));
    names.iter().try_for_each(|name| {
        let disk = disk.fork(1);
        disk.flip(name, 20, 1);
        look(&disk).map_err(|violation| format!("{violation}, {} damaged", name.display()))
    })
}

impl World {
    /// Damages one of the checkpoints, if the two newest are whole.
    pub(super) fn damage(&mut self) {
        let mut names = self.disk.paths();
        names.retain(|path| path.to_string_lossy().ends_with(".ckpt"));
        if !self.two_stand || names.is_empty() || !self.rng.one_in(3) {
            return;
        }
        let name = names.swap_remove(self.rng.below(names.len() as u64) as usize);
        let len = self.disk.read_file(&name).len() as u64;
        if len == 0 || self.rng.one_in(4) {
            self.note(format_args!("{} is removed", name.display()));
            self.disk.remove_file(&name);
        } else {
            let (at, bit) = (self.rng.below(len), self.rng.below(8));
            self.note(format_args!("bit {bit} of byte {at} of {} is flipped", name.display()));
            self.disk.flip(&name, at, 1 << bit);
            self.damaged.insert(name);
        }
        self.two_stand = false;
    }

    /// Only a checkpoint that was damaged is refused.
    pub(super) fn look_at_checkpoints(&mut self, store: &Store) -> Result<(), Violation> {
        let opened = store.opened_from();
        self.tally.opened_from_checkpoints += u64::from(opened.checkpoint.is_some());
        self.tally.opened_from_older_ones +=
            u64::from(opened.checkpoint.is_some() && !opened.refused.is_empty());
        let purged = store.recovered().is_some_and(|report| report.first_seq.0 > 1);
        self.tally.opened_on_purged_logs += u64::from(purged);
        match opened.refused.iter().find(|refused| !self.damaged.contains(&refused.path)) {
            Some(_) => Err(format!("I37: a whole checkpoint was refused: {opened}")),
            None => Ok(()),
        }
    }

    pub(super) fn checkpoint(&mut self, store: &Store) -> Result<(), Violation> {
        let seq = self.seq(store);
        let reserved = |store: &Store| store.stats().checkpoints.reserved_bytes > 0;
        let kept = reserved(store);
        let taken = if self.rng.one_in(2) {
            self.checkpoint_amid_changes(store)?
        } else {
            store.checkpoint()
        };
        self.note(format_args!("checkpoint: {taken:?}"));
        let were = |taken: &CheckpointInfo, then: &Moment| {
            then.seq >= seq && then.map.len() as u64 == taken.records
        };
        match taken {
            Ok(taken) if !self.timeline.iter().any(|then| were(&taken, then)) => {
                Err(format!("I35: {taken:?}, but there are {}", self.map.len()))
            }
            Ok(_) => {
                // Its durable mark covers them.
                (self.durable, self.written) = (self.durable.max(seq), self.written.max(seq));
                self.tally.checkpoints += 1;
                self.tally.reserves_used += u64::from(kept && !reserved(store));
                Ok(())
            }
            Err(error) if self.is_checkpoint_excused(&error) => Ok(()),
            Err(error) => Err(format!("I20h: checkpoint failed: {error:?}")),
        }
    }
}
