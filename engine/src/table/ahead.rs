//! The next slab, made before it is needed.
//!
//! Owns one slab that nobody has yet, and the thread that makes it: a system finds and clears
//! the memory of a slab in the time of thousands of puts. What it made is in no use, so no
//! quota counts it; there is one at most.

use std::mem;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use super::Slab;
use crate::sync::lock;

/// A slab ahead of a table.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    turn: Arc<(Mutex<Turn>, Condvar)>,
    /// Begun when the first slab is wanted; none where there can't be one.
    thread: OnceLock<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
enum Turn {
    #[default]
    Idle,
    Wanted,
    Ready(Slab),
    Stopped,
}

impl Ahead {
    /// The slab that was made ahead, if there is one; has the next one made.
    pub(super) fn next(&self) -> Option<Slab> {
        let thread = self.thread.get_or_init(|| {
            let turn = Arc::clone(&self.turn);
            let builder = std::thread::Builder::new().name("bulla-slab".to_owned());
            builder.spawn(move || run(&turn)).ok()
        });
        thread.as_ref()?;
        let (turn, changed) = &*self.turn;
        let before = mem::replace(&mut *lock(turn), Turn::Wanted);
        changed.notify_one();
        match before {
            Turn::Ready(slab) => Some(slab),
            Turn::Idle | Turn::Wanted | Turn::Stopped => None,
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let (turn, changed) = &*self.turn;
        *lock(turn) = Turn::Stopped;
        changed.notify_one();
        if let Some(Some(thread)) = self.thread.take() {
            // A panic in it was reported when it happened, and costs nobody a slab.
            let _ = thread.join();
        }
    }
}

fn run((turn, changed): &(Mutex<Turn>, Condvar)) {
    let mut now = lock(turn);
    loop {
        match *now {
            Turn::Stopped => return,
            Turn::Wanted => {}
            Turn::Idle | Turn::Ready(_) => {
                now = changed.wait(now).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
        }
        drop(now);
        // Without memory the table finds out itself.
        let made = Slab::populated().map_or(Turn::Idle, Turn::Ready);
        now = lock(turn);
        if matches!(*now, Turn::Wanted) {
            *now = made;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn slab_is_made_once_one_was_wanted_and_is_given_once() {
        let ahead = Ahead::default();
        let wait_until_ready = || {
            let start = Instant::now();
            while !matches!(*lock(&ahead.turn.0), Turn::Ready(_)) {
                assert!(start.elapsed() < Duration::from_secs(20), "no slab was made");
                std::thread::yield_now();
            }
        };
        for _ in 0..3 {
            assert!(ahead.next().is_none(), "none is made before it is wanted");
            wait_until_ready();
            assert!(ahead.next().is_some_and(|slab| slab.is_empty()));
            wait_until_ready();
            *lock(&ahead.turn.0) = Turn::Idle;
        }
    }
}
