//! Who waits for what: threads that sleep and async waiters, released by position.
//!
//! Owns where threads sleep and the wakers of async waiters, and wakes those whose watermark
//! has passed them. Threads sleep on one word for each watermark, so that one system call
//! wakes a group; bits keep the threads of the next group asleep. Never decides whether
//! something is durable: it compares with what it is given. A waiter enters, checks the
//! watermark again, and only then sleeps: so either the waiter sees the advance, or the
//! advance finds the waiter (loom checks this).

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;
use std::time::Duration;

use super::core::Watermarks;
use super::reader_tasks::{ReaderTask, ReaderTasks};
use crate::sync::{AtomicU32, AtomicU64, Futex, Mutex, Ordering, Thread, fence, lock, thread};
use bulla_storage::{Lsn, Visibility};

/// Which watermark somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Watermark {
    Balanced,
    Synced,
}

#[derive(Debug)]
struct WakerSlot {
    lsn: Lsn,
    id: u64,
    waker: Waker,
}

/// Identifies an async waiter's registration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registration {
    watermark: Watermark,
    lsn: Lsn,
    id: u64,
}

/// Waiters for whom there is memory from the start.
const WAITERS: usize = 256;
/// How many async waiters are woken at once.
const WAKE_BATCH: usize = 32;

/// As many as there are; the kernel takes it as a signed number.
const ALL: u32 = i32::MAX as u32;
/// Who sleeps for any position.
const ANYONE: NonZeroU32 = NonZeroU32::MAX;
/// Positions in the same block are woken together. Frames begin at multiples of it, so
/// those who wait for the next one sleep on, unless it is [`BLOCKS`] blocks ahead.
const BLOCK_SHIFT: u32 = 12;
const BLOCKS: u64 = 32;

/// Where threads sleep until a watermark has passed them.
#[derive(Debug)]
struct Parker {
    futex: Futex,
    /// Threads between entering and leaving, asleep or not.
    threads: AtomicU32,
    /// What was released already; written by the driver alone.
    released: AtomicU64,
}

impl Parker {
    fn new() -> Self {
        Self { futex: Futex::new(), threads: AtomicU32::new(0), released: AtomicU64::new(0) }
    }

    /// Wakes those whose position is below `upto`.
    fn release(&self, upto: Lsn) {
        let from = self.released.load(Ordering::Relaxed);
        if upto.0 > from {
            self.released.store(upto.0, Ordering::Relaxed);
            self.wake(ALL, blocks(from, upto.0));
        }
    }

    /// Wakes `most` threads at most; returns whether any slept.
    fn wake(&self, most: u32, bits: NonZeroU32) -> bool {
        self.futex.bump();
        // Pairs with the fence of `enter`: either this sees the thread that entered, or
        // that sees the word bumped, and all that was done before.
        fence(Ordering::SeqCst);
        self.threads.load(Ordering::Relaxed) > 0 && self.futex.wake(most, bits) > 0
    }
}

/// A bit for each block of the positions from `from` to below `upto`, which is above it.
fn blocks(from: u64, upto: u64) -> NonZeroU32 {
    let (first, last) = (from >> BLOCK_SHIFT, (upto - 1) >> BLOCK_SHIFT);
    if last - first >= BLOCKS - 1 {
        return ANYONE;
    }
    let count = last - first + 1;
    let run = (1_u32 << count) - 1;
    NonZeroU32::new(run.rotate_left((first % BLOCKS) as u32)).unwrap_or(ANYONE)
}

/// A thread that waits, until this is dropped. A leader that changes what it waits for from
/// here on, or releases the driver's lock, keeps it from sleeping, or wakes it.
#[derive(Debug)]
pub(crate) struct Follower<'a> {
    parker: &'a Parker,
    lsn: Lsn,
    seen: u32,
}

impl Follower<'_> {
    /// Sleeps until the watermark has passed, the lead is handed over, or the time has
    /// passed; may return early.
    pub(crate) fn sleep(&self, timeout: Option<Duration>) {
        self.parker.futex.sleep(self.seen, blocks(self.lsn.0, self.lsn.0 + 1), timeout);
    }
}

impl Drop for Follower<'_> {
    fn drop(&mut self) {
        self.parker.threads.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Debug)]
pub(crate) struct Waiters {
    balanced: Parker,
    synced: Parker,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    next_id: u64,
    /// Async waiters, ordered by LSN; their memory is reused.
    balanced: VecDeque<WakerSlot>,
    synced: VecDeque<WakerSlot>,
    /// Appenders that wait for room, in no order.
    room: Vec<Thread>,
    /// Readers that wait for entries, in no order. They never lead.
    readers: Vec<(Visibility, Lsn, Thread)>,
    /// Async readers that wait for entries. Nor do they lead.
    reader_tasks: ReaderTasks,
    /// Async waiters that are ready, to be woken when nothing is locked.
    ready: VecDeque<Waker>,
}

impl Waiters {
    pub(crate) fn new() -> Self {
        Self {
            balanced: Parker::new(),
            synced: Parker::new(),
            lists: Mutex::new(Lists {
                next_id: 0,
                balanced: VecDeque::with_capacity(WAITERS),
                synced: VecDeque::with_capacity(WAITERS),
                room: Vec::with_capacity(WAITERS),
                readers: Vec::new(),
                reader_tasks: ReaderTasks::default(),
                ready: VecDeque::with_capacity(WAITERS),
            }),
        }
    }

    /// Begins to wait, in this thread, until `lsn` is below the watermark.
    pub(crate) fn enter(&self, watermark: Watermark, lsn: Lsn) -> Follower<'_> {
        let parker = match watermark {
            Watermark::Balanced => &self.balanced,
            Watermark::Synced => &self.synced,
        };
        parker.threads.fetch_add(1, Ordering::Relaxed);
        // Pairs with the fence of `Parker::wake`.
        fence(Ordering::SeqCst);
        Follower { parker, lsn, seen: parker.futex.load() }
    }

    /// Registers an async waiter, or renews its waker.
    pub(crate) fn register_async(
        &self,
        watermark: Watermark,
        lsn: Lsn,
        waker: &Waker,
        earlier: Option<Registration>,
    ) -> Registration {
        let waker = waker.clone();
        let mut lists = lock(&self.lists);
        if let Some((earlier, slot)) =
            earlier.and_then(|earlier| Some((earlier, lists.find(earlier)?)))
        {
            let stale = std::mem::replace(&mut slot.waker, waker);
            // Dropped only when the lists are free, as in `wake_async_waiters`.
            drop(lists);
            drop(stale);
            return earlier;
        }
        lists.insert(watermark, lsn, waker)
    }

    /// Takes a registration back; it may be gone already.
    pub(crate) fn cancel(&self, registration: Registration) {
        let mut lists = lock(&self.lists);
        let index = lists.index(registration);
        let slot = index.and_then(|index| lists.list(registration.watermark).remove(index));
        drop(lists);
        drop(slot);
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

    /// Registers a task that waits to read at `lsn`, in the place of its earlier
    /// registration.
    pub(crate) fn register_reader_task(
        &self,
        visibility: Visibility,
        lsn: Lsn,
        waker: &Waker,
        earlier: Option<ReaderTask>,
    ) -> ReaderTask {
        let waker = waker.clone();
        let mut lists = lock(&self.lists);
        let (task, stale) = lists.reader_tasks.register(visibility, lsn, waker, earlier);
        drop(lists);
        drop(stale);
        task
    }

    /// Takes a reader task's registration back; it may be gone already.
    pub(crate) fn cancel_reader_task(&self, task: ReaderTask) {
        let stale = lock(&self.lists).reader_tasks.cancel(task);
        drop(stale);
    }

    /// Wakes the threads that wait to read: there is nothing more to come. Such tasks are
    /// left to [`wake_async_waiters`](Self::wake_async_waiters).
    pub(crate) fn release_all_readers(&self) {
        let mut lists = lock(&self.lists);
        let Lists { readers, reader_tasks, ready, .. } = &mut *lists;
        for (_, _, thread) in readers.drain(..) {
            thread.unpark();
        }
        ready.extend(reader_tasks.take_all());
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

    /// Wakes the threads whose watermark has passed them, and no one else. Async waiters
    /// are left to [`wake_async_waiters`](Self::wake_async_waiters); returns whether there are
    /// any.
    pub(crate) fn release(&self, marks: &Watermarks) -> bool {
        self.synced.release(marks.synced);
        self.balanced.release(marks.balanced);
        let mut lists = lock(&self.lists);
        lists.take_below(Watermark::Synced, marks.synced);
        lists.take_below(Watermark::Balanced, marks.balanced);
        let Lists { reader_tasks, ready, .. } = &mut *lists;
        ready.extend(reader_tasks.take_readable(marks));
        let ready = !ready.is_empty();
        drop(lists);
        self.release_readers(marks);
        ready
    }

    /// Wakes every thread; returns whether there are async waiters to be woken, as
    /// [`release`](Self::release) does.
    pub(crate) fn release_all(&self) -> bool {
        for parker in [&self.synced, &self.balanced] {
            parker.wake(ALL, ANYONE);
        }
        let mut lists = lock(&self.lists);
        let Lists { balanced, synced, room, readers, reader_tasks, ready, .. } = &mut *lists;
        ready.extend(balanced.drain(..).chain(synced.drain(..)).map(|slot| slot.waker));
        ready.extend(reader_tasks.take_all());
        let readers = readers.drain(..).map(|(_, _, thread)| thread);
        for thread in room.drain(..).chain(readers) {
            thread.unpark();
        }
        !ready.is_empty()
    }

    /// Wakes the async waiters that were found ready.
    ///
    /// Wakers are others' code, which may do anything: run the task at once, wait for
    /// this log, drop the last handle of it. So nothing may be locked by the caller, and
    /// nothing is here. One that panics keeps no other from being woken.
    pub(crate) fn wake_async_waiters(&self) {
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

    /// Wakes one thread that sleeps, to lead; it waits on. One that is about to sleep is kept
    /// from it, and tries the driver's lock itself.
    pub(crate) fn wake_next_leader(&self) -> Handoff {
        if [&self.synced, &self.balanced].into_iter().any(|parker| parker.wake(1, ANYONE)) {
            return Handoff::Woken;
        }
        let lists = lock(&self.lists);
        if let Some(thread) = lists.room.first() {
            thread.unpark();
        }
        let lists = [lists.synced.is_empty(), lists.balanced.is_empty(), lists.room.is_empty()];
        if lists == [true; 3] { Handoff::Nobody } else { Handoff::Others }
    }
}

/// Who is left to lead when a leader leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Handoff {
    /// A thread, which was woken.
    Woken,
    /// Only async waiters, which can't lead, and appenders, which may find room and go.
    Others,
    Nobody,
}

impl Lists {
    /// Finds the async waiters below `upto` ready.
    fn take_below(&mut self, watermark: Watermark, upto: Lsn) {
        while self.list(watermark).front().is_some_and(|slot| slot.lsn < upto)
            && let Some(slot) = self.list(watermark).pop_front()
        {
            self.ready.push_back(slot.waker);
        }
    }

    fn list(&mut self, watermark: Watermark) -> &mut VecDeque<WakerSlot> {
        match watermark {
            Watermark::Balanced => &mut self.balanced,
            Watermark::Synced => &mut self.synced,
        }
    }

    fn insert(&mut self, watermark: Watermark, lsn: Lsn, waker: Waker) -> Registration {
        self.next_id += 1;
        let id = self.next_id;
        let list = self.list(watermark);
        let index = list.partition_point(|slot| slot.lsn <= lsn);
        list.insert(index, WakerSlot { lsn, id, waker });
        Registration { watermark, lsn, id }
    }

    fn index(&mut self, registration: Registration) -> Option<usize> {
        let list = self.list(registration.watermark);
        let first = list.partition_point(|slot| slot.lsn < registration.lsn);
        list.range(first..)
            .take_while(|slot| slot.lsn == registration.lsn)
            .position(|slot| slot.id == registration.id)
            .map(|offset| first + offset)
    }

    fn find(&mut self, registration: Registration) -> Option<&mut WakerSlot> {
        let index = self.index(registration)?;
        self.list(registration.watermark).get_mut(index)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_a_range_hold_its_positions_and_not_the_next_block() {
        const BLOCK: u64 = 1 << BLOCK_SHIFT;
        for (from, upto) in [(0, 1), (0, BLOCK), (1, BLOCK + 1), (40 * BLOCK, 71 * BLOCK)] {
            let bits = blocks(from, upto).get();
            for lsn in [from, from.midpoint(upto - 1), upto - 1] {
                assert_ne!(bits & blocks(lsn, lsn + 1).get(), 0, "{lsn} in {from}..{upto}");
            }
            let next = upto.next_multiple_of(BLOCK);
            assert_eq!(bits & blocks(next, next + 1).get(), 0, "{next} after {from}..{upto}");
        }
        for upto in [32, 33, 1000] {
            assert_eq!(blocks(5, upto * BLOCK), ANYONE, "{upto} blocks");
        }
        assert_eq!(blocks(0, u64::MAX), ANYONE);
    }

    /// Counts how often it is woken.
    #[derive(Default)]
    struct Count(std::sync::atomic::AtomicU32);

    impl std::task::Wake for Count {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn newest_waker_of_each_async_waiter_is_woken_once_and_none_that_was_taken_back() {
        let counts: [std::sync::Arc<Count>; 4] = std::array::from_fn(|_| Default::default());
        let wakers = counts.clone().map(Waker::from);
        let waiters = Waiters::new();
        let register = |waker: usize, earlier| {
            waiters.register_async(Watermark::Synced, Lsn(5), &wakers[waker], earlier)
        };
        // All at one position, so that they are told apart by their numbers alone.
        let first = register(0, None);
        let second = register(1, None);
        register(2, None);
        register(3, Some(first));
        waiters.cancel(second);
        let marks = |synced| Watermarks { synced: Lsn(synced), ..Watermarks::default() };
        assert!(!waiters.release(&marks(5)), "nothing is below");
        assert!(waiters.release(&marks(6)));
        waiters.wake_async_waiters();
        assert!(!waiters.release(&marks(7)), "all were woken");
        let woken = counts.map(|count| count.0.load(Ordering::Relaxed));
        assert_eq!(woken, [0, 0, 1, 1]);
    }

    #[test]
    fn release_of_all_finds_every_async_waiter_ready_and_tells_whether_there_is_one() {
        let waiters = Waiters::new();
        assert!(!waiters.release_all());
        let count = std::sync::Arc::new(Count::default());
        let waker = Waker::from(std::sync::Arc::clone(&count));
        for watermark in [Watermark::Balanced, Watermark::Synced] {
            waiters.register_async(watermark, Lsn(u64::MAX), &waker, None);
        }
        assert!(waiters.release_all());
        waiters.wake_async_waiters();
        assert_eq!(count.0.load(Ordering::Relaxed), 2);
        assert!(!waiters.release_all());
    }

    #[test]
    fn async_waiters_below_the_mark_are_woken_in_whatever_order_they_came() {
        let counts: [std::sync::Arc<Count>; 4] = std::array::from_fn(|_| Default::default());
        let wakers = counts.clone().map(Waker::from);
        let waiters = Waiters::new();
        let register =
            |(lsn, waker)| waiters.register_async(Watermark::Synced, Lsn(lsn), waker, None);
        let tasks: Vec<Registration> =
            [9, 3, 7, 5].into_iter().zip(&wakers).map(register).collect();
        waiters.cancel(tasks[2]);
        let woken_below = |synced| {
            waiters.release(&Watermarks { synced: Lsn(synced), ..Watermarks::default() });
            waiters.wake_async_waiters();
            counts.clone().map(|count| count.0.load(Ordering::Relaxed))
        };
        assert_eq!(woken_below(4), [0, 1, 0, 0]);
        assert_eq!(woken_below(8), [0, 1, 0, 1]);
        assert_eq!(woken_below(10), [1, 1, 0, 1]);
    }

    #[test]
    fn who_is_left_to_lead_is_told_by_who_waits() {
        let waiters = Waiters::new();
        assert_eq!(waiters.wake_next_leader(), Handoff::Nobody);
        for watermark in [Watermark::Balanced, Watermark::Synced] {
            let task = waiters.register_async(watermark, Lsn(1), Waker::noop(), None);
            assert_eq!(waiters.wake_next_leader(), Handoff::Others);
            waiters.cancel(task);
            assert_eq!(waiters.wake_next_leader(), Handoff::Nobody);
        }
        waiters.register_for_room();
        assert_eq!(waiters.wake_next_leader(), Handoff::Others);
        waiters.cancel_for_room();
        assert_eq!(waiters.wake_next_leader(), Handoff::Nobody);
        waiters.register_for_room();
        waiters.release_room();
        assert_eq!(waiters.wake_next_leader(), Handoff::Nobody);
    }

    #[test]
    fn leader_that_leaves_wakes_who_sleeps_and_counts_on_no_one_who_does_not() {
        let waiters = Waiters::new();
        let follower = waiters.enter(Watermark::Balanced, Lsn(0));
        assert_eq!(waiters.wake_next_leader(), Handoff::Nobody, "nobody is asleep yet");
        drop(follower);
        let (start, net) = (std::time::Instant::now(), Duration::from_secs(60));
        let woken = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while start.elapsed() < net {
                    let follower = waiters.enter(Watermark::Balanced, Lsn(0));
                    if woken.load(Ordering::SeqCst) {
                        break;
                    }
                    follower.sleep(Some(net));
                }
            });
            while waiters.wake_next_leader() != Handoff::Woken {
                assert!(start.elapsed() < net, "a thread that sleeps was not woken");
                std::thread::yield_now();
            }
            woken.store(true, Ordering::SeqCst);
            waiters.release_all();
        });
    }

    #[test]
    fn reader_is_woken_when_its_own_mark_has_passed_it_and_leaves_the_list() {
        let waiters = Waiters::new();
        let waiting = || lock(&waiters.lists).readers.len();
        let is_unparked = || {
            let (start, net) = (std::time::Instant::now(), Duration::from_secs(60));
            std::thread::park_timeout(net);
            start.elapsed() < net
        };
        let marks = |synced, written| Watermarks {
            synced: Lsn(synced),
            written: Lsn(written),
            ..Watermarks::default()
        };
        waiters.register_reader(Visibility::Durable, Lsn(5));
        waiters.register_reader(Visibility::Written, Lsn(5));
        std::thread::scope(|scope| {
            scope.spawn(|| waiters.register_reader(Visibility::Durable, Lsn(9)));
        });
        waiters.release(&marks(5, 5));
        assert_eq!(waiting(), 3);
        waiters.release(&marks(5, 6));
        assert_eq!(waiting(), 2);
        assert!(is_unparked());
        waiters.release(&marks(6, 6));
        assert_eq!(waiting(), 1);
        assert!(is_unparked());
        waiters.register_reader(Visibility::Durable, Lsn(9));
        waiters.register_reader(Visibility::Written, Lsn(9));
        waiters.cancel_reader();
        assert_eq!(waiting(), 1, "only its own");
        waiters.register_reader(Visibility::Durable, Lsn(9));
        waiters.release_all_readers();
        assert_eq!(waiting(), 0);
        assert!(is_unparked());
    }

    #[test]
    fn release_wakes_every_thread_that_sleeps_below() {
        let waiters = Waiters::new();
        let net = Duration::from_secs(60);
        let start = std::time::Instant::now();
        std::thread::scope(|scope| {
            for lsn in 0..8 {
                let follower = waiters.enter(Watermark::Synced, Lsn(lsn));
                scope.spawn(move || follower.sleep(Some(net)));
            }
            // Those that sleep by now must be woken, the others kept from sleeping.
            std::thread::sleep(Duration::from_millis(100));
            waiters.synced.release(Lsn(8));
        });
        assert!(start.elapsed() < net, "a thread slept on");
        assert_eq!(waiters.synced.threads.load(Ordering::Relaxed), 0);
    }
}
