//! Who waits for what: parked threads and tasks, released by position.
//!
//! Owns the lists of waiters and wakes exactly those whose watermark has passed them.
//! Never decides whether something is durable: it compares with what it is given. A
//! waiter registers, looks at the watermark again, and only then parks: so either the
//! waiter sees the advance, or the advance sees the waiter (loom checks this).

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use super::core::Watermarks;
use crate::position::Lsn;
use crate::reader::Visibility;
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
    /// Readers that wait for entries, in no order. They never drive.
    readers: Vec<(Visibility, Lsn, Thread)>,
    /// How many of those in the two ordered lists are threads.
    threads: usize,
    /// Tasks that are ready, to be woken when nothing is locked.
    ready: VecDeque<Waker>,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            lists: Mutex::new(Lists {
                next_id: 0,
                balanced: VecDeque::with_capacity(WAITERS),
                synced: VecDeque::with_capacity(WAITERS),
                room: Vec::with_capacity(WAITERS),
                readers: Vec::new(),
                threads: 0,
                ready: VecDeque::with_capacity(WAITERS),
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
            // Dropped only when the lists are free, as in `wake_tasks`.
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

    /// Registers this thread as waiting to read at `lsn`.
    pub(crate) fn register_reader(&self, visibility: Visibility, lsn: Lsn) {
        lock(&self.lists).readers.push((visibility, lsn, thread::current()));
    }

    /// This thread no longer waits to read.
    pub(crate) fn cancel_reader(&self) {
        let this = thread::current().id();
        lock(&self.lists).readers.retain(|(_, _, thread)| thread.id() != this);
    }

    /// Wakes all readers: there is nothing more to come.
    pub(crate) fn release_all_readers(&self) {
        for (_, _, thread) in lock(&self.lists).readers.drain(..) {
            thread.unpark();
        }
    }

    /// Wakes readers that have something to read.
    fn release_readers(&self, marks: &Watermarks) {
        lock(&self.lists).readers.retain(|(visibility, lsn, thread)| {
            let mark = match visibility {
                Visibility::Durable => marks.synced,
                Visibility::Written => marks.written,
            };
            if *lsn < mark {
                thread.unpark();
            }
            *lsn >= mark
        });
    }

    /// Wakes the threads whose watermark has passed them, and no one else. Such tasks
    /// are left to [`wake_tasks`](Self::wake_tasks); gives whether there are any.
    pub(crate) fn release(&self, marks: &Watermarks) -> bool {
        let mut tasks = false;
        for (mark, upto) in [(Mark::Synced, marks.synced), (Mark::Balanced, marks.balanced)] {
            let mut full = true;
            while full {
                // Woken when the lists are free: each thread goes to them first.
                let mut batch = [const { None }; WAKE_BATCH];
                let mut lists = lock(&self.lists);
                full = lists.take_below(mark, upto, &mut batch);
                tasks |= !lists.ready.is_empty();
                drop(lists);
                batch.iter().flatten().for_each(Thread::unpark);
            }
        }
        self.release_readers(marks);
        tasks
    }

    /// Wakes every thread; gives whether there are tasks to be woken, as
    /// [`release`](Self::release) does.
    pub(crate) fn release_all(&self) -> bool {
        let mut lists = lock(&self.lists);
        let Lists { balanced, synced, room, readers, ready, threads, .. } = &mut *lists;
        for parked in balanced.drain(..).chain(synced.drain(..)) {
            match parked.who {
                Who::Thread(thread) => thread.unpark(),
                Who::Task(waker) => ready.push_back(waker),
            }
        }
        *threads = 0;
        let readers = readers.drain(..).map(|(_, _, thread)| thread);
        for thread in room.drain(..).chain(readers) {
            thread.unpark();
        }
        !ready.is_empty()
    }

    /// Wakes the tasks that were found ready.
    ///
    /// Wakers are others' code, which may do anything: run the task at once, wait for
    /// this log, drop the last handle of it. So nothing may be locked by the caller, and
    /// nothing is here. One that panics keeps no other from being woken.
    pub(crate) fn wake_tasks(&self) {
        let mut full = true;
        while full {
            let mut batch = [const { None }; WAKE_BATCH];
            {
                let mut lists = lock(&self.lists);
                batch.fill_with(|| lists.ready.pop_front());
            }
            full = batch.iter().all(Option::is_some);
            for waker in batch.into_iter().flatten() {
                // The panic has been reported where it happened; it is not the log's.
                let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
            }
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
    /// Takes out waiters below `upto`: threads into `batch`, tasks to those that are
    /// ready. Gives whether there may be more.
    fn take_below(&mut self, mark: Mark, upto: Lsn, batch: &mut [Option<Thread>]) -> bool {
        for slot in batch {
            if self.list(mark).front().is_none_or(|parked| parked.lsn >= upto) {
                return false;
            }
            let parked = self.list(mark).pop_front();
            self.removed(parked.as_ref());
            match parked.map(|parked| parked.who) {
                Some(Who::Thread(thread)) => *slot = Some(thread),
                Some(Who::Task(waker)) => self.ready.push_back(waker),
                None => {}
            }
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
