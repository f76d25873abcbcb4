//! The ring: writes that the kernel works on while we do other things.
//!
//! Owns, in a slot per write, every buffer, iovec and file that was passed to the kernel,
//! until the kernel reports the end of the write: also across errors and panics, and if
//! necessary for ever. Must never report an operation twice, nor free a slot whose end the
//! kernel has not reported. Holds the `unsafe` of handing memory to the kernel. Tested by
//! `storage/tests/io_conformance.rs`, `tests/tests/uring.rs` and below.
//!
//! A small write while nothing is in the ring, and every sync, is a blocking call of the
//! leader: with nothing to overlap it with, a ring only adds thread switches. (A sync in the
//! ring goes to a kernel thread, which may refuse it when the thread that requested it has
//! ended; and a sync must never be requested twice.)

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use rustix::io::{Errno, ReadWriteFlags};

use crate::faults;
use crate::io::{Completion, Lock, Queue, Request, Ticket};

/// How often a write that the kernel did not do is resubmitted.
const MAX_RESUBMISSIONS: u32 = 16;
/// How often the kernel may refuse to take or to wait before the ring counts as broken, and
/// how long we wait each time.
const MAX_REFUSALS: u32 = 1000;
const REFUSAL_PAUSE: Duration = Duration::from_millis(1);
/// How often `drop` polls a broken ring before it leaks its memory.
const MAX_LAST_LOOKS: u32 = 5000;
/// A write of at least this many bytes always goes into the ring: the next frame is sealed
/// meanwhile.
pub(super) const LONG_WRITE: usize = 64 * 1024;
/// The longest single write; the rest follows as after a short one.
const MAX_WRITE: usize = 1 << 30;
/// The offset in the ring's table of files at which the lock is.
const LOCK_SLOT: u32 = 0;

pub(super) struct UringQueue {
    /// Freed by `drop` only when the kernel has nothing; else leaked.
    ring: ManuallyDrop<IoUring>,
    /// As `ring`. Never grows, so that iovecs in it stay where they are. One per entry of
    /// the submission queue.
    slots: ManuallyDrop<Box<[Slot]>>,
    /// A write of at least this many bytes is long.
    long_write: usize,
    /// Operations that blocking calls perform.
    waiting: VecDeque<(Ticket, Request)>,
    done: VecDeque<Completion>,
    depth: usize,
    /// Counts writes, so that no completion is taken for another's.
    next_tag: u32,
    /// Why the ring takes no more operations; `None` while it does.
    broken: Option<Errno>,
}

#[derive(Debug, Default)]
struct Slot {
    operation: Option<Operation>,
    pieces: [Piece; 2],
    /// The kernel may use the contents of this slot. Set before the entry is pushed, and
    /// cleared only when its completion was taken.
    is_kernels: bool,
}

#[derive(Debug)]
struct Operation {
    ticket: Ticket,
    request: Request,
    tag: u32,
    resubmissions: u32,
    /// Its end was reported as the error that broke the ring; the kernel may still be working
    /// on it.
    reported: bool,
}

/// `struct iovec`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Piece {
    base: *const u8,
    len: usize,
}

const _: () = assert!(size_of::<Piece>() == 2 * size_of::<usize>());

impl Default for Piece {
    fn default() -> Self {
        Self { base: std::ptr::null(), len: 0 }
    }
}

// SAFETY: the pointer is only ever read by the kernel, and points into the `RingBytes` of
// the slot's own operation, which is `Send` and moves with it.
unsafe impl Send for Piece {}

impl UringQueue {
    /// Sets a ring up and runs one operation through it: a filter may allow a ring's creation
    /// and refuse its use.
    pub(super) fn new(depth: usize, long_write: usize) -> io::Result<Self> {
        let depth = depth.max(1);
        let entries = u32::try_from(depth).map_err(|_| Errno::INVAL)?;
        // No IORING_SETUP_SINGLE_ISSUER: the threads that wait take turns as leader. And no
        // IORING_SETUP_COOP_TASKRUN: the thread that submitted may be busy elsewhere for
        // long, while another one waits for the completion.
        let ring = IoUring::builder().dontfork().setup_clamp().build(entries)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Write::CODE) || !probe.is_supported(opcode::Writev::CODE) {
            return Err(Errno::OPNOTSUPP.into());
        }
        // Room for the lock, which `keep` puts there.
        ring.submitter().register_files(&[-1])?;
        let entries = ring.params().sq_entries() as usize;
        let mut queue = Self {
            slots: ManuallyDrop::new((0..entries).map(|_| Slot::default()).collect()),
            long_write,
            waiting: VecDeque::new(),
            done: VecDeque::with_capacity(entries),
            depth: depth.min(entries),
            next_tag: 0,
            broken: None,
            ring: ManuallyDrop::new(ring),
        };
        queue.try_out()?;
        Ok(queue)
    }

    fn try_out(&mut self) -> io::Result<()> {
        let nop = opcode::Nop::new().build();
        // SAFETY: a NOP refers to no memory.
        unsafe { self.ring.submission().push(&nop) }.map_err(|_| Errno::INVAL)?;
        loop {
            self.enter(1)?;
            if let Some(entry) = self.ring.completion().next() {
                return count(entry.result()).map(drop);
            }
        }
    }

    /// Returns whether the kernel has any of our memory.
    fn is_kernels(&self) -> bool {
        faults::uring::is_kernels(self.slots.iter().any(|slot| slot.is_kernels))
    }

    /// Returns whether the ring holds an operation that was not reported.
    fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| slot.operation.as_ref().is_some_and(|o| !o.reported))
    }

    /// Submits what was pushed to the kernel, and waits for `want` completions, or for fewer
    /// when a signal arrives.
    fn enter(&mut self, want: usize) -> io::Result<()> {
        for _ in 0..MAX_REFUSALS {
            match self.ring.submit_and_wait(want) {
                Ok(_) if self.ring.submission().is_empty() => return Ok(()),
                // An operation that the kernel rejected ended the batch (and is completed).
                Ok(_) => {}
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) if self.ring.submission().is_empty() => return Ok(()),
                    Some(Errno::INTR) => {}
                    // It lacks memory, or needs us to take completions first.
                    Some(Errno::AGAIN | Errno::BUSY) => {
                        if !self.ring.completion().is_empty() {
                            return Ok(());
                        }
                        std::thread::sleep(REFUSAL_PAUSE);
                    }
                    _ => return Err(error),
                },
            }
        }
        Err(Errno::AGAIN.into())
    }

    /// Enters; a permanent refusal ends the use of the ring.
    fn enter_or_break(&mut self, want: usize) {
        if let Err(error) = self.enter(want) {
            self.break_down(Errno::from_io_error(&error).unwrap_or(Errno::IO));
        }
    }

    /// Reports all operations in flight as failed. The slots stay: the kernel may have them.
    fn break_down(&mut self, errno: Errno) {
        self.broken = Some(errno);
        let in_ring = self.slots.iter_mut().filter_map(|slot| slot.operation.as_mut());
        for operation in in_ring {
            if !std::mem::replace(&mut operation.reported, true) {
                let result = Err(errno.into());
                self.done.push_back(Completion { ticket: operation.ticket, result });
            }
        }
    }

    /// Puts a write into the ring, once there is a place, and starts it.
    fn start(&mut self, ticket: Ticket, request: Request) {
        let mut free = self.free_slot();
        while free.is_none() && self.broken.is_none() {
            self.enter_or_break(1);
            self.take_completions();
            free = self.free_slot();
        }
        let slot = free.and_then(|index| Some((index, self.slots.get_mut(index)?)));
        let (Some((index, slot)), None) = (slot, self.broken) else {
            let result = Err(self.broken.unwrap_or(Errno::BUSY).into());
            self.done.push_back(Completion { ticket, result });
            return;
        };
        let tag = self.next_tag;
        self.next_tag = tag.wrapping_add(1);
        slot.operation =
            Some(Operation { ticket, request, tag, resubmissions: 0, reported: false });
        self.push(index, false);
        self.enter_or_break(0);
    }

    fn free_slot(&self) -> Option<usize> {
        let free = self.slots.iter().position(|slot| slot.operation.is_none());
        faults::uring::next_slot(free)
    }

    /// Pushes the operation of a slot; with `worker`, a kernel thread, which may block,
    /// performs it.
    fn push(&mut self, index: usize, worker: bool) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(entry) = slot.entry(index) else {
            self.finish(index, -Errno::BADF.raw_os_error());
            return;
        };
        let entry = if worker { entry.flags(squeue::Flags::ASYNC) } else { entry };
        slot.is_kernels = true;
        // SAFETY: the entry refers to the bytes, the iovecs and the file of this slot. The
        // slot keeps them, unmoved and unchanged, as long as `is_kernels` is set: `start`
        // fills an empty slot only, and `finish` empties one only after `take_completions`
        // has seen the completion that carries its index and tag. `RingBytes` are not
        // written while they exist. The slots are a boxed slice, whose heap memory stays
        // when the queue moves, and `drop` leaks it when a completion is missing.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // There are as many entries as slots, and each has at most one in the queue.
            debug_assert!(false, "the submission queue is full");
            self.break_down(Errno::BUSY);
        }
    }

    /// Takes all available completions.
    fn take_completions(&mut self) {
        while let Some(entry) = { self.ring.completion().next() } {
            let (index, tag) = from_user_data(entry.user_data());
            let index = faults::uring::completed_slot(index);
            let slot = self.slots.get_mut(index);
            let is_ours = |slot: &&mut Slot| {
                slot.is_kernels && slot.operation.as_ref().is_some_and(|o| o.tag == tag)
            };
            match slot.filter(is_ours) {
                Some(slot) => {
                    slot.is_kernels = false;
                    self.finish(index, entry.result());
                }
                None => {
                    debug_assert!(false, "a completion of nothing that the kernel has");
                    self.break_down(Errno::IO);
                }
            }
        }
    }

    /// Finishes a slot that the kernel is done with.
    fn finish(&mut self, index: usize, result: i32) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(mut operation) = slot.operation.take() else { return };
        let result = faults::uring::result(result, operation.len());
        if self.broken.is_none() && operation.may_be_done_again(result) {
            operation.resubmissions += 1;
            slot.operation = Some(operation);
            self.push(index, true);
        } else if !operation.reported {
            let result = operation.result(result);
            self.done.push_back(Completion { ticket: operation.ticket, result });
        }
    }
}

impl Slot {
    /// Returns the submission entry of the write; it refers to this slot.
    fn entry(&mut self, index: usize) -> Option<squeue::Entry> {
        let operation = self.operation.as_ref()?;
        let Request::Write { file, offset, bytes, dsync } = &operation.request else {
            return None;
        };
        let fd = types::Fd(file.as_fd()?.as_raw_fd());
        let flags = if *dsync { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
        let flags = flags.bits().cast_signed();
        let [first, second] = bytes.pieces();
        let entry = if second.is_empty() {
            let len = u32::try_from(first.len().min(MAX_WRITE)).unwrap_or(u32::MAX);
            opcode::Write::new(fd, first.as_ptr(), len).offset(*offset).rw_flags(flags).build()
        } else {
            self.pieces = faults::uring::pieces([first, second])
                .map(|piece| Piece { base: piece.as_ptr(), len: piece.len() });
            let pieces = self.pieces.as_ptr().cast();
            opcode::Writev::new(fd, pieces, 2).offset(*offset).rw_flags(flags).build()
        };
        Some(entry.user_data(user_data(index, operation.tag)))
    }
}

impl Operation {
    /// Returns how many bytes it writes.
    fn len(&self) -> usize {
        match &self.request {
            Request::Write { bytes, .. } => bytes.len(),
            Request::Sync { .. } => 0,
        }
    }

    /// Returns whether the kernel only failed to start the operation, so that the same bytes
    /// may be written to the same place again.
    fn may_be_done_again(&self, result: i32) -> bool {
        // Cancelled: the thread that submitted it ended before a worker began.
        let transient = [Errno::INTR, Errno::AGAIN, Errno::CANCELED];
        transient.iter().any(|errno| result == -errno.raw_os_error())
            && self.resubmissions < MAX_RESUBMISSIONS
    }

    /// Returns what the kernel's result means.
    fn result(&self, result: i32) -> io::Result<u64> {
        match count(result) {
            Ok(count) if count > self.len() as u64 => {
                Err(io::Error::other("io_uring wrote more than it was asked to"))
            }
            result => result,
        }
    }
}

/// Returns the count in a completion, or the error.
fn count(result: i32) -> io::Result<u64> {
    u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()))
}

fn user_data(index: usize, tag: u32) -> u64 {
    index as u64 | u64::from(tag) << 32
}

fn from_user_data(user_data: u64) -> (usize, u32) {
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    ((user_data & u64::from(u32::MAX)) as usize, (user_data >> 32) as u32)
}

// SAFETY: `done` gets a success from `finish` alone, which takes the operation out of its slot
// after the kernel has reported its end, and drops it before `complete` can report it. What is
// `waiting` is as in `StdQueue`. `break_down` reports errors only.
unsafe impl Queue for UringQueue {
    fn depth(&self) -> usize {
        self.depth
    }

    fn keep(&mut self, lock: &dyn Lock) -> io::Result<()> {
        if let Some(fd) = faults::uring::lock(lock.as_fd()) {
            // Nothing uses the registered file: the ring only holds it, and the kernel keeps
            // the ring until its last write has ended, even when the process has died.
            self.ring.submitter().register_files_update(LOCK_SLOT, &[fd.as_raw_fd()])?;
        }
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, request: Request) {
        if let Some(errno) = self.broken {
            self.done.push_back(Completion { ticket, result: Err(errno.into()) });
            return;
        }
        let goes_into_ring = match &request {
            Request::Write { file, bytes, .. } => {
                file.as_fd().is_some() && (bytes.len() >= self.long_write || self.is_busy())
            }
            Request::Sync { .. } => false,
        };
        if goes_into_ring {
            self.start(ticket, request);
        } else {
            self.waiting.push_back((ticket, request));
        }
    }

    fn take(&mut self) -> Option<(Ticket, Request)> {
        self.waiting.pop_front()
    }

    fn complete(&mut self, wait: bool) -> Option<Completion> {
        if self.done.is_empty() {
            self.take_completions();
        }
        if wait
            && self.done.is_empty()
            && let Some((ticket, request)) = self.waiting.pop_front()
        {
            return Some(Completion { ticket, result: request.perform() });
        }
        while wait && self.done.is_empty() && self.is_busy() {
            self.enter_or_break(1);
            self.take_completions();
        }
        self.done.pop_front()
    }
}

impl Drop for UringQueue {
    /// Completes everything. What the kernel does not return is never freed: neither the
    /// memory nor the ring, which then holds the lock until the process ends.
    fn drop(&mut self) {
        while let Some((_, request)) = self.waiting.pop_front() {
            // Nobody is left to report it to.
            let _ = request.perform();
        }
        while self.is_kernels() && self.broken.is_none() {
            self.enter_or_break(1);
            self.take_completions();
        }
        for _ in 0..MAX_LAST_LOOKS {
            if !self.is_kernels() {
                break;
            }
            std::thread::sleep(REFUSAL_PAUSE);
            self.take_completions();
        }
        if self.is_kernels() {
            return;
        }
        // The kernel takes a closed ring down in its own time; the lock is needed now. After
        // a failure the kernel releases it in its own time.
        let _ = self.ring.submitter().unregister_files();
        // SAFETY: neither is used after this, and the kernel has nothing of the slots.
        unsafe {
            ManuallyDrop::drop(&mut self.ring);
            ManuallyDrop::drop(&mut self.slots);
        }
    }
}

impl fmt::Debug for UringQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UringQueue")
            .field("depth", &self.depth)
            .field("slots", &self.slots)
            .field("done", &self.done)
            .field("broken", &self.broken)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;
    use crate::RingBytes;
    use crate::io::std::StdIo;
    use crate::io::{AlignedBuf, Io};

    const WRITES: usize = 64;
    const BLOCK: usize = 4096;

    /// The kernel cancels what its workers did not begin when the thread that they work for
    /// ends.
    #[test]
    fn write_that_a_dead_thread_left_to_a_worker_is_done_all_the_same() {
        let mut queue = match UringQueue::new(WRITES, 0) {
            Ok(queue) => queue,
            Err(error) => {
                let _ = writeln!(std::io::stderr(), "SKIPPED: no io_uring here: {error}");
                return;
            }
        };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let opened = StdIo::new().open_dir(dir.path()).expect("our own");
        let file = opened.create("file", true).expect("a new file");
        let writer = std::thread::spawn(move || {
            for (index, slot) in (0_u32..).zip(queue.slots.iter_mut()) {
                slot.operation = Some(Operation {
                    ticket: Ticket(u64::from(index)),
                    request: Request::Write {
                        file: Arc::clone(&file),
                        offset: u64::from(index) * BLOCK as u64,
                        bytes: RingBytes::from_heap(AlignedBuf::copy_of(&[7; BLOCK])),
                        dsync: false,
                    },
                    tag: index,
                    resubmissions: 0,
                    reported: false,
                });
            }
            (0..WRITES).for_each(|index| queue.push(index, true));
            queue.enter_or_break(0);
            queue
        });
        let mut queue = writer.join().expect("the writer's thread");
        for _ in 0..WRITES {
            let done = queue.complete(true).expect("in flight");
            assert_eq!(done.result.expect("written"), BLOCK as u64);
        }
        assert!(std::fs::read(dir.path().join("file")).expect("our own") == [7; WRITES * BLOCK]);
    }
}
