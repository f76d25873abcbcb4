//! Reads and checks the frames of many segments ahead of the visitor, with several threads.
//!
//! Owns the threads and the bounded set of batches that circulate between them. One thread at
//! a time reads the next batch and validates its headers in order; any thread checks bodies.
//! Only the caller's thread passes frames on, in order, and it reads and checks while it would
//! otherwise wait. The memory of all batches together is bounded. With one thread (as in a
//! simulation) the caller does everything, one batch after the other. Damage is reported in
//! its place, after the frames before it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bulla_storage::format::MAX_FRAME_LEN;

use crate::log_dir::{LogDir, Piece, damage, no_longer_valid};
use bulla_storage::frames::read_buffer::READ_LEN;
use bulla_storage::frames::reader::{Batch, FrameReader, Located};
use bulla_storage::{Error, Result};

/// More threads than this would wait for the memory.
const MAX_THREADS: usize = 4;
/// Batches for each thread. A batch is at most a window's chunk and one frame long.
const BATCHES_PER_THREAD: usize = 3;
/// The next batch is read while all batches together hold no more than this: two with the
/// longest frame, then, or all that there are with usual ones.
const MAX_HELD: u64 = MAX_FRAME_LEN + 2 * READ_LEN;

/// Passes every frame of `pieces` to `each`, in order, with its body and padding. The scan
/// validated at least the header of each; here all of it is validated.
///
/// # Errors
/// Corruption when a frame is not valid.
pub(super) fn frames(
    log: &LogDir,
    pieces: Vec<&Piece>,
    mut each: impl FnMut(&Located, &[u8]) -> ControlFlow<()>,
) -> Result<()> {
    let len: u64 = pieces.iter().map(|piece| piece.end.lsn.distance_from(piece.start.lsn)).sum();
    let batches = usize::try_from(len / READ_LEN).unwrap_or(usize::MAX);
    let threads = log.threads().min(MAX_THREADS).min(batches.max(1));
    let ahead = Ahead {
        source: Mutex::new(Source { log, pieces: pieces.into_iter(), frames: None, next: Some(0) }),
        state: Mutex::new(State {
            spare: (0..threads * BATCHES_PER_THREAD).map(|_| Checked::default()).collect(),
            ready: BTreeMap::new(),
            working: 0,
            held: 0,
            over: false,
        }),
        changed: Condvar::new(),
    };
    if threads == 1 {
        return ahead.pass_on(&mut each);
    }
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| ahead.help());
        }
        ahead.pass_on(&mut each)
    })
}

/// A batch, and what is known about it.
#[derive(Debug, Default)]
struct Checked<'a> {
    batch: Batch,
    piece: Option<&'a Piece>,
    /// How many of its frames are valid, counted from the first.
    valid: usize,
    /// What follows them instead of a frame.
    failure: Option<Error>,
}

impl Checked<'_> {
    /// Checks the bodies. Damage to one comes before whatever ended the batch.
    fn check(&mut self) {
        self.valid = 0;
        for located in &self.batch.frames {
            if let Err(damage) = self.batch.check(located) {
                let fault =
                    |piece| no_longer_valid(piece, located.offset, located.before.lsn, damage);
                self.failure = self.piece.map(fault);
                return;
            }
            self.valid += 1;
        }
    }
}

/// Where the next batch comes from. The thread that holds it reads.
struct Source<'a> {
    log: &'a LogDir,
    pieces: std::vec::IntoIter<&'a Piece>,
    frames: Option<(&'a Piece, FrameReader)>,
    /// Number of the next batch; none after the last one.
    next: Option<u64>,
}

struct State<'a> {
    spare: Vec<Checked<'a>>,
    /// By number.
    ready: BTreeMap<u64, Checked<'a>>,
    /// How many are being read or checked.
    working: usize,
    /// Bytes of memory of all batches, the spare ones included.
    held: u64,
    /// Everything was read, or the rest is not needed.
    over: bool,
}

impl<'a> State<'a> {
    /// Returns whether no thread may read now. When no batch is ready and no thread works, all
    /// batches were returned, so this is false: the caller always finds something to do.
    fn is_full(&self) -> bool {
        self.held > MAX_HELD
    }

    /// Takes a batch to read into and check.
    fn take_spare(&mut self) -> Option<Checked<'a>> {
        if self.is_full() {
            return None;
        }
        let checked = self.spare.pop()?;
        self.working += 1;
        Some(checked)
    }
}

struct Ahead<'a> {
    source: Mutex<Source<'a>>,
    state: Mutex<State<'a>>,
    /// A batch became ready or spare, or it is over.
    changed: Condvar,
}

/// What the caller does next.
enum Turn<'a> {
    Pass(Checked<'a>),
    Work(Checked<'a>),
    Nothing,
}

impl<'a> Ahead<'a> {
    /// Passes the frames on in order, until they end or `each` stops.
    fn pass_on(&self, each: &mut impl FnMut(&Located, &[u8]) -> ControlFlow<()>) -> Result<()> {
        // Also when `each` panics, so that no thread waits for a batch for ever.
        let _over = Over(self);
        let mut next = 0;
        loop {
            match self.turn(next) {
                Turn::Nothing => return Ok(()),
                Turn::Work(checked) => self.work(checked),
                Turn::Pass(mut checked) => {
                    for located in checked.batch.frames.iter().take(checked.valid) {
                        let body = checked.batch.body(located).unwrap_or(&[]);
                        if each(located, body).is_break() {
                            return Ok(());
                        }
                    }
                    if let Some(error) = checked.failure.take() {
                        return Err(error);
                    }
                    next += 1;
                    self.put_back(checked);
                }
            }
        }
    }

    fn turn(&self, next: u64) -> Turn<'a> {
        let mut state = self.state();
        loop {
            if let Some(checked) = state.ready.remove(&next) {
                return Turn::Pass(checked);
            }
            if !state.over
                && let Some(checked) = state.take_spare()
            {
                return Turn::Work(checked);
            }
            if state.over && state.working == 0 {
                return Turn::Nothing;
            }
            state = self.wait(state);
        }
    }

    /// Reads and checks until all is done: what the other threads do.
    fn help(&self) {
        let mut state = self.state();
        while !state.over {
            let Some(checked) = state.take_spare() else {
                state = self.wait(state);
                continue;
            };
            drop(state);
            self.work(checked);
            state = self.state();
        }
    }

    fn work(&self, mut checked: Checked<'a>) {
        // A panic in here must not leave the caller waiting for this batch.
        let working = Working(self);
        let before = checked.batch.memory_len();
        let mut source = lock(&self.source);
        // Another thread may have read since the batch was taken.
        if self.state().is_full() {
            drop(source);
            self.state().spare.push(checked);
            return;
        }
        let number = source.read(&mut checked);
        self.state().held += checked.batch.memory_len() - before;
        drop(source);
        if number.is_some() {
            checked.check();
        }
        let mut state = self.state();
        match number {
            Some(number) => drop(state.ready.insert(number, checked)),
            None => state.over = true,
        }
        drop(state);
        drop(working);
    }

    /// Takes back a batch whose frames were passed on, without its memory when the batches
    /// together hold too much.
    fn put_back(&self, mut checked: Checked<'a>) {
        let mut state = self.state();
        let mut freed = None;
        if state.is_full() {
            state.held -= checked.batch.memory_len();
            freed = Some(std::mem::take(&mut checked.batch));
        }
        state.spare.push(checked);
        drop(state);
        self.changed.notify_all();
        drop(freed);
    }

    fn state(&self) -> MutexGuard<'_, State<'a>> {
        lock(&self.state)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State<'a>>) -> MutexGuard<'s, State<'a>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the work when it is dropped.
struct Over<'s, 'a>(&'s Ahead<'a>);

impl Drop for Over<'_, '_> {
    fn drop(&mut self) {
        self.0.state().over = true;
        self.0.changed.notify_all();
    }
}

/// A thread that reads or checks.
struct Working<'s, 'a>(&'s Ahead<'a>);

impl Drop for Working<'_, '_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.working -= 1;
        state.over |= std::thread::panicking();
        drop(state);
        self.0.changed.notify_all();
    }
}

impl<'a> Source<'a> {
    /// Reads the next batch and returns its number, or `None` after the last one. An error
    /// ends the last batch.
    fn read(&mut self, checked: &mut Checked<'a>) -> Option<u64> {
        let number = self.next.take()?;
        checked.batch.frames.clear();
        match self.gather(checked) {
            Ok(true) => self.next = Some(number + 1),
            Ok(false) => return None,
            Err(error) => checked.failure = Some(error),
        }
        Some(number)
    }

    /// Fills a batch with frames of one piece. Returns false when there are no more.
    fn gather(&mut self, checked: &mut Checked<'a>) -> Result<bool> {
        loop {
            let (piece, frames) = match &mut self.frames {
                Some(open) => open,
                none => match self.pieces.next() {
                    Some(piece) => none.insert((piece, self.log.frames_of(piece)?)),
                    None => return Ok(false),
                },
            };
            checked.piece = Some(piece);
            let Some(end) = frames.gather(&mut checked.batch)? else { return Ok(true) };
            let at = frames.at().map_or(piece.start.lsn, |at| at.lsn);
            if at != piece.end.lsn {
                let damage = damage(end);
                return Err(no_longer_valid(piece, frames.offset(), at, damage));
            }
            self.frames = None;
            if !checked.batch.frames.is_empty() {
                return Ok(true);
            }
        }
    }
}
