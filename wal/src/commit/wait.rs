//! Who waits for what: parked threads and tasks, released by position.
//!
//! Owns the lists of waiters and wakes exactly those whose watermark has passed them.
//! Never decides whether something is durable: it compares with what it is given. A
//! waiter registers, looks at the watermark again, and only then parks: so either the
//! waiter sees the advance, or the advance sees the waiter (loom checks this).

use std::collections::VecDeque;
use std::task::Waker;

use super::core::Watermarks;
use crate::position::Lsn;
use crate::sync::{Mutex, Thread, lock, thread};

/// Which watermark somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mark {
    Balanced,
    Synced,
}

#[derive(Debug)]
enum Who {
    Thread(Thread),
    Task(Waker),
}

impl Who {
    fn wake(self) {
        match self {
            Self::Thread(thread) => thread.unpark(),
            Self::Task(waker) => waker.wake(),
        }
    }
}

#[derive(Debug)]
struct Parked {
    lsn: Lsn,
    id: u64,
    who: Who,
}

/// Identifies a registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    mark: Mark,
    lsn: Lsn,
    id: u64,
}

/// Waiters for whom there is memory from the start.
const WAITERS: usize = 256;
/// So many are woken at once.
const WAKE_BATCH: usize = 32;

#[derive(Debug)]
pub(crate) struct Waiters {
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    next_id: u64,
    /// Ordered by LSN; their memory is reused.
    balanced: VecDeque<Parked>,
    synced: VecDeque<Parked>,
    /// Appenders that wait for room, in no order.
    room: Vec<Thread>,
    /// How many of those in the two ordered lists are threads.
    threads: usize,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            lists: Mutex::new(Lists {
                next_id: 0,
                balanced: VecDeque::with_capacity(WAITERS),
                synced: VecDeque::with_capacity(WAITERS),
                room: Vec::with_capacity(WAITERS),
                threads: 0,
            }),
        }
    }

    /// Registers this thread as waiting until `lsn` is below the watermark.
    pub(crate) fn register(&self, mark: Mark, lsn: Lsn) -> Registration {
        lock(&self.lists).insert(mark, lsn, Who::Thread(thread::current()))
    }

    /// Registers a task, or renews its waker.
    pub(crate) fn register_task(
        &self,
        mark: Mark,
        lsn: Lsn,
        waker: &Waker,
        earlier: Option<Registration>,
    ) -> Registration {
        let who = Who::Task(waker.clone());
        let mut lists = lock(&self.lists);
        if let Some((earlier, parked)) =
            earlier.and_then(|earlier| Some((earlier, lists.find(earlier)?)))
        {
            let stale = std::mem::replace(&mut parked.who, who);
            // Dropped only when the lists are free, as in `release`.
            drop(lists);
            drop(stale);
            return earlier;
        }
        lists.insert(mark, lsn, who)
    }

    /// Takes a registration back; it may be gone already.
    pub(crate) fn cancel(&self, registration: Registration) {
        let mut lists = lock(&self.lists);
        let index = lists.index(registration);
        let parked = index.and_then(|index| lists.list(registration.mark).remove(index));
        lists.removed(parked.as_ref());
        drop(lists);
        drop(parked);
    }

    /// Registers this thread as waiting for room in the ring.
    pub(crate) fn register_for_room(&self) {
        lock(&self.lists).room.push(thread::current());
    }

    /// This thread no longer waits for room.
    pub(crate) fn cancel_for_room(&self) {
        let this = thread::current().id();
        lock(&self.lists).room.retain(|thread| thread.id() != this);
    }

    /// Wakes those that wait for room.
    pub(crate) fn release_room(&self) {
        for thread in lock(&self.lists).room.drain(..) {
            thread.unpark();
        }
    }

    /// Wakes those whose watermark has passed them, and no one else.
    ///
    /// Wakers are others' code: woken (and dropped) only when the lists are free, as one
    /// may drop a task, and with it a future that takes its registration back.
    pub(crate) fn release(&self, marks: &Watermarks) {
        for (mark, upto) in [(Mark::Synced, marks.synced), (Mark::Balanced, marks.balanced)] {
            let mut full = true;
            while full {
                let mut batch = [const { None }; WAKE_BATCH];
                full = lock(&self.lists).take_below(mark, upto, &mut batch);
                batch.into_iter().flatten().for_each(Who::wake);
            }
        }
    }

    /// Wakes everyone.
    pub(crate) fn release_all(&self) {
        let everything = std::mem::take(&mut *lock(&self.lists));
        for parked in everything.balanced.into_iter().chain(everything.synced) {
            parked.who.wake();
        }
        for thread in everything.room {
            thread.unpark();
        }
    }

    /// Wakes one parked thread to drive what is left; it stays registered.
    pub(crate) fn wake_next_driver(&self) -> Left {
        let lists = lock(&self.lists);
        // With futures alone, of which there may be many, there is nobody to look for.
        if lists.threads > 0 {
            for parked in [&lists.synced, &lists.balanced].into_iter().flatten() {
                if let Who::Thread(thread) = &parked.who {
                    thread.unpark();
                    return Left::Woken;
                }
            }
        }
        if let Some(thread) = lists.room.first() {
            thread.unpark();
        }
        let lists = [lists.synced.is_empty(), lists.balanced.is_empty(), lists.room.is_empty()];
        if lists == [true; 3] { Left::Nobody } else { Left::Others }
    }
}

/// Who is left to drive when a driver leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// A thread, which was woken.
    Woken,
    /// Only tasks, which can't drive, and appenders, which may find room and go.
    Others,
    Nobody,
}

impl Lists {
    /// Fills `batch` with waiters below `upto`; gives whether there may be more.
    fn take_below(&mut self, mark: Mark, upto: Lsn, batch: &mut [Option<Who>]) -> bool {
        for slot in batch {
            if self.list(mark).front().is_none_or(|parked| parked.lsn >= upto) {
                return false;
            }
            let parked = self.list(mark).pop_front();
            self.removed(parked.as_ref());
            *slot = parked.map(|parked| parked.who);
        }
        true
    }

    fn list(&mut self, mark: Mark) -> &mut VecDeque<Parked> {
        match mark {
            Mark::Balanced => &mut self.balanced,
            Mark::Synced => &mut self.synced,
        }
    }

    fn removed(&mut self, parked: Option<&Parked>) {
        self.threads -= usize::from(parked.is_some_and(|p| matches!(p.who, Who::Thread(_))));
    }

    fn insert(&mut self, mark: Mark, lsn: Lsn, who: Who) -> Registration {
        self.next_id += 1;
        let id = self.next_id;
        self.threads += usize::from(matches!(who, Who::Thread(_)));
        let list = self.list(mark);
        let index = list.partition_point(|parked| parked.lsn <= lsn);
        list.insert(index, Parked { lsn, id, who });
        Registration { mark, lsn, id }
    }

    fn index(&mut self, registration: Registration) -> Option<usize> {
        let list = self.list(registration.mark);
        let first = list.partition_point(|parked| parked.lsn < registration.lsn);
        list.range(first..)
            .take_while(|parked| parked.lsn == registration.lsn)
            .position(|parked| parked.id == registration.id)
            .map(|offset| first + offset)
    }

    fn find(&mut self, registration: Registration) -> Option<&mut Parked> {
        let index = self.index(registration)?;
        self.list(registration.mark).get_mut(index)
    }
}
