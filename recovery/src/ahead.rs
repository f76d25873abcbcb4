//! Frames of many segments in order, read and checked ahead by several threads.
//!
//! Owns the threads and the bounded set of batches that go round between them. One at a
//! time reads the next batch and follows the chain of its headers; bodies are checked side
//! by side; the caller alone is given frames, in order, and reads and checks too when it
//! would wait. What they hold together is bounded. With one thread (as in a simulation) it does all, one batch after the
//! other. What is wrong with the log is told in its place, after the frames before it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bulla_storage::format::MAX_FRAME_LEN;

use crate::analysis::{LogDir, Piece};
use crate::error::{Error, Result};
use crate::replay::{damage, not_there_any_more};
use bulla_storage::frames::read_buffer::WINDOW_LEN;
use bulla_storage::frames::reader::{Batch, Located, Walk};

/// More threads than this would wait for the memory.
const MAX_THREADS: usize = 4;
/// Batches for each thread. A batch is at most a window's chunk and one frame long.
const BATCHES_PER_THREAD: usize = 3;
/// The next batch is read while all batches together hold no more than this: two with the
/// longest frame, then, or all that there are with usual ones.
const MAX_HELD: u64 = MAX_FRAME_LEN + 2 * WINDOW_LEN;

/// Gives every frame of `pieces`, in order, with its body and padding. Of each the header at
/// least was validated before; all of it is now.
///
/// # Errors
/// Corruption when a frame is not valid.
pub(crate) fn frames(
    log: &LogDir,
    pieces: Vec<&Piece>,
    mut each: impl FnMut(&Located, &[u8]) -> ControlFlow<()>,
) -> Result<()> {
    let len: u64 = pieces.iter().map(|piece| piece.end.lsn.distance_from(piece.start.lsn)).sum();
    let batches = usize::try_from(len / WINDOW_LEN).unwrap_or(usize::MAX);
    let threads = log.threads().min(MAX_THREADS).min(batches.max(1));
    let ahead = Ahead {
        source: Mutex::new(Source { log, pieces: pieces.into_iter(), walk: None, next: Some(0) }),
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
        return ahead.give(&mut each);
    }
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| ahead.help());
        }
        ahead.give(&mut each)
    })
}

/// A batch, and what is known about it.
#[derive(Debug, Default)]
struct Checked<'a> {
    batch: Batch,
    piece: Option<&'a Piece>,
    /// So many of its frames are valid.
    valid: usize,
    /// What comes after them instead of a frame.
    failure: Option<Error>,
}

impl Checked<'_> {
    /// Looks at the bodies. What is wrong with one comes before what else was found.
    fn check(&mut self) {
        self.valid = 0;
        for located in &self.batch.frames {
            if let Err(damage) = self.batch.check(located) {
                let found =
                    |piece| not_there_any_more(piece, located.offset, located.before.lsn, damage);
                self.failure = self.piece.map(found);
                return;
            }
            self.valid += 1;
        }
    }
}

/// Where the next batch comes from; whoever has it reads.
struct Source<'a> {
    log: &'a LogDir,
    pieces: std::vec::IntoIter<&'a Piece>,
    walk: Option<(&'a Piece, Walk)>,
    /// Number of the next batch; none after the last one.
    next: Option<u64>,
}

struct State<'a> {
    spare: Vec<Checked<'a>>,
    /// By number.
    ready: BTreeMap<u64, Checked<'a>>,
    /// So many are being read or checked.
    working: usize,
    /// Bytes of memory of all batches, the spare ones included.
    held: u64,
    /// There is no more to be read, or no need for it.
    over: bool,
}

impl<'a> State<'a> {
    /// Must nobody read now? When nothing is ready and nobody works, all batches were given
    /// back, and so this is false: the caller always finds something to do.
    fn is_full(&self) -> bool {
        self.held > MAX_HELD
    }

    /// A batch to be read into and checked.
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
    Give(Checked<'a>),
    Work(Checked<'a>),
    Nothing,
}

impl<'a> Ahead<'a> {
    /// Gives the frames in order, until they end or the caller has enough.
    fn give(&self, each: &mut impl FnMut(&Located, &[u8]) -> ControlFlow<()>) -> Result<()> {
        // Also when the caller panics, so that no thread waits for a batch for ever.
        let _over = Over(self);
        let mut next = 0;
        loop {
            match self.turn(next) {
                Turn::Nothing => return Ok(()),
                Turn::Work(checked) => self.work(checked),
                Turn::Give(mut checked) => {
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
                    self.give_back(checked);
                }
            }
        }
    }

    fn turn(&self, next: u64) -> Turn<'a> {
        let mut state = self.state();
        loop {
            if let Some(checked) = state.ready.remove(&next) {
                return Turn::Give(checked);
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

    /// What the other threads do.
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
        // A panic in here is one of the caller, too: it must not wait for this batch.
        let working = Working(self);
        let before = checked.batch.memory_len();
        let mut source = lock(&self.source);
        // Others may have read since the batch was taken; only one reads at a time.
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

    /// Takes back a batch that was given, but not its memory when all hold too much.
    fn give_back(&self, mut checked: Checked<'a>) {
        let mut state = self.state();
        let mut given_up = None;
        if state.is_full() {
            state.held -= checked.batch.memory_len();
            given_up = Some(std::mem::take(&mut checked.batch));
        }
        state.spare.push(checked);
        drop(state);
        self.changed.notify_all();
        drop(given_up);
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

/// One that reads or checks.
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
    /// Reads the next batch; gives its number, or none after the last one. An error is the
    /// end of the last one.
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

    /// Fills a batch with frames of one piece; false when there are no more.
    fn gather(&mut self, checked: &mut Checked<'a>) -> Result<bool> {
        loop {
            let (piece, walk) = match &mut self.walk {
                Some(open) => open,
                none => match self.pieces.next() {
                    Some(piece) => none.insert((piece, self.log.walk(piece)?)),
                    None => return Ok(false),
                },
            };
            checked.piece = Some(piece);
            let Some(end) = walk.gather(&mut checked.batch)? else { return Ok(true) };
            let at = walk.at().map_or(piece.start.lsn, |at| at.lsn);
            if at != piece.end.lsn {
                let damage = damage(end);
                return Err(not_there_any_more(piece, walk.offset(), at, damage));
            }
            self.walk = None;
            if !checked.batch.frames.is_empty() {
                return Ok(true);
            }
        }
    }
}
