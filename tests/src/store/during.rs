//! A checkpoint of the store's campaign that takes turns with a writer: before each operation on
//! its files and their names some changes are made, as the seed says, and a crash may strike there.

use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bulla_engine::{CheckpointInfo, Error, Store};

use super::World;
use crate::model::Violation;
use crate::seeds::caught;
use crate::wrap::MeddleWith;

/// Changes before one operation of a checkpoint, at most.
const MOST_CHANGES: u64 = 2;

/// How a checkpoint ended, if that was not by a panic.
type Taken = Result<Result<CheckpointInfo, Error>, Violation>;

/// What the thread that takes a checkpoint says to the one that writes.
enum Turn {
    /// It waits until it may go on.
    Yours,
    Ended(Taken),
}

impl World {
    /// Takes a checkpoint on a thread of its own. It and this one never run at the same time: the
    /// seed decides what is between two operations of the checkpoint.
    pub(super) fn checkpoint_amid_changes(&mut self, store: &Store) -> Taken {
        // Several threads would read in it what was not read yet: no seed could order them.
        if let Err(error) = store.load(1) {
            return Ok(Err(error));
        }
        let knobs = Arc::clone(&self.knobs);
        let (turns, told) = channel();
        let (go_on, may_go_on) = channel();
        thread::scope(|scope| {
            let taker = scope.spawn(move || {
                knobs.meddle.by(Some(give_turns(turns.clone(), may_go_on)));
                let taken = caught(|| Ok(store.checkpoint()));
                knobs.meddle.by(None);
                let _ = turns.send(Turn::Ended(taken));
            });
            let mut result = Ok(());
            while let Ok(turn) = told.recv() {
                match turn {
                    Turn::Yours => {
                        result = result.and_then(|()| caught(|| self.change_amid(store)));
                        let _ = go_on.send(());
                    }
                    Turn::Ended(taken) => {
                        // A scope waits for what a thread does, not for its end: what it would
                        // still have to drop looks like a leak to a sanitizer.
                        taker.join().map_err(|_| "I41: the checkpoint's thread panicked")?;
                        return result.and(taken);
                    }
                }
            }
            Err("I41: the checkpoint has no end".to_owned())
        })
    }

    fn change_amid(&mut self, store: &Store) -> Result<(), Violation> {
        for _ in 0..self.rng.below(MOST_CHANGES + 1) {
            if self.disk.is_crashed() || self.poisoned {
                break;
            }
            self.act(store, Self::operate_amid)?;
            self.tally.changes_amid_checkpoints += 1;
        }
        Ok(())
    }
}

/// Returns the other thread its turn before each operation on a checkpoint of the thread that calls
/// this.
fn give_turns(turns: Sender<Turn>, may_go_on: Receiver<()>) -> Arc<MeddleWith> {
    let (taker, may_go_on) = (thread::current().id(), Mutex::new(may_go_on));
    Arc::new(move |path: &Path| {
        if thread::current().id() == taker && path.to_string_lossy().contains("checkpoints") {
            let _ = turns.send(Turn::Yours);
            let _ = may_go_on.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
    })
}
