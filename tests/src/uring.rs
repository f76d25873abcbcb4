//! What the ring of `io_uring` must tell of writes that go wrong, on files that make them, and
//! what it must hold while a write takes its time, on pipes that are full.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bulla_storage::io::sim::ByPath;
use bulla_storage::io::std::StdIo;
use bulla_storage::io::uring::UringIo;
use bulla_storage::io::{AlignedBuf, Completion, File, Io, Queue, Request, Ticket};
use bulla_wal::RingBytes;
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use crate::temp_dir;

/// Long enough to be put into the ring at once, and longer than a pipe takes.
const LONG: usize = 1 << 20;

/// Failed and short writes in the ring are told as such, each to its ticket.
///
/// # Errors
/// What was told instead.
pub fn failed_and_short_writes_are_told() -> Result<(), String> {
    if let Some(reason) = UringIo::refusal() {
        crate::skipped(reason);
        return Ok(());
    }
    let mut queue = UringIo::new().queue(4).map_err(|error| error.to_string())?;
    let full = OpenOptions::new().write(true).open("/dev/full").map_err(|e| e.to_string())?;
    let flags = PipeFlags::NONBLOCK | PipeFlags::CLOEXEC;
    let (_reader, pipe) = pipe_with(flags).map_err(|error| error.to_string())?;
    let null = OpenOptions::new().write(true).open("/dev/null").map_err(|e| e.to_string())?;
    for (ticket, fd) in [(0, full.into()), (1, pipe), (2, null.into())] {
        queue.submit(Ticket(ticket), long_write(fd));
    }
    let mut results: Vec<_> = std::iter::from_fn(|| queue.complete(true)).collect();
    results.sort_by_key(|done| done.ticket);
    let [full, pipe, null] = &results[..] else {
        return Err(format!("3 writes, and {} completions", results.len()));
    };
    expect(
        "a full device",
        full,
        |result| matches!(result, Err(error) if error.kind() == io::ErrorKind::StorageFull),
    )?;
    expect(
        "a pipe",
        pipe,
        |result| matches!(result, Ok(count) if (1..LONG as u64).contains(count)),
    )?;
    expect("a device", null, |result| matches!(result, Ok(count) if *count == LONG as u64))
}

/// A queue that puts everything into the ring, or a line that says why there is none.
fn eager_queue() -> Option<Box<dyn Queue>> {
    if let Some(reason) = UringIo::refusal() {
        crate::skipped(reason);
        return None;
    }
    Some(UringIo::eager().queue(2).expect("there is a ring"))
}

/// The log can't be opened by another process while writes of this one could still land.
///
/// # Panics
/// When that does not hold.
pub fn ring_holds_the_lock_until_it_is_gone() {
    let dir = temp_dir("lock");
    let Some(mut queue) = eager_queue() else { return };
    let io = StdIo::new();
    let path = dir.path().join("LOCK");
    let try_lock = || io.try_lock(&path).expect("a file of ours");
    let lock = try_lock().expect("free");
    queue.keep(lock.as_ref()).expect("it has room for it");
    drop(lock);
    assert!(try_lock().is_none(), "its writes could still land");
    drop(queue);
    assert!(try_lock().is_some());
}

/// What a write refers to is not given back before the kernel is done with it.
///
/// # Panics
/// When that does not hold.
pub fn ring_is_gone_only_when_its_writes_are_done() {
    let Some(mut queue) = eager_queue() else { return };
    let (pipe, file) = FullPipe::new();
    queue.submit(Ticket(0), block_write(&file));
    let is_gone = Arc::new(AtomicBool::new(false));
    let dropping = {
        let is_gone = Arc::clone(&is_gone);
        std::thread::spawn(move || {
            drop(queue);
            is_gone.store(true, Ordering::Release);
        })
    };
    std::thread::sleep(Duration::from_millis(200));
    assert!(!is_gone.load(Ordering::Acquire), "its write waits for room in the pipe");
    pipe.make_room();
    dropping.join().expect("the thread that drops it");
    assert!(pipe.take(BLOCK) == [7; BLOCK]);
}

/// The kernel cancels what a thread that has ended left in the ring.
///
/// # Panics
/// When such a write is told as done and is not.
pub fn write_of_a_thread_that_is_gone_is_done_when_it_is_told_so() {
    let Some(mut queue) = eager_queue() else { return };
    let (pipe, file) = FullPipe::new();
    let mut queue = std::thread::spawn(move || {
        queue.submit(Ticket(0), block_write(&file));
        queue
    })
    .join()
    .expect("the thread that submits");
    pipe.make_room();
    let done = queue.complete(true).expect("in flight");
    assert_eq!(done.result.expect("written"), BLOCK as u64);
    assert!(pipe.take(BLOCK) == [7; BLOCK], "told as done, and not there");
}

fn expect(
    what: &str,
    done: &Completion,
    is_right: impl Fn(&io::Result<u64>) -> bool,
) -> Result<(), String> {
    if is_right(&done.result) {
        return Ok(());
    }
    Err(format!("the write of {LONG} bytes to {what} ended with {:?}", done.result))
}

fn long_write(fd: OwnedFd) -> Request {
    let bytes = RingBytes::from_heap(AlignedBuf::zeroed(LONG));
    Request::Write { file: Arc::new(Descriptor(fd)), offset: 0, bytes, dsync: false }
}

/// A block of sevens.
pub const BLOCK: usize = 4096;

/// The write of a block of sevens to the beginning of a file.
pub fn block_write(file: &Arc<dyn File>) -> Request {
    let bytes = RingBytes::from_heap(AlignedBuf::copy_of(&[7; BLOCK]));
    Request::Write { file: Arc::clone(file), offset: 0, bytes, dsync: false }
}

/// A pipe without room: the kernel keeps a write to it until there is some.
#[derive(Debug)]
pub struct FullPipe {
    reader: OwnedFd,
    len: usize,
}

impl FullPipe {
    /// A pipe, and its end to write to.
    ///
    /// # Panics
    /// When the system gives none.
    #[must_use]
    pub fn new() -> (Self, Arc<dyn File>) {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).expect("a pipe");
        fcntl_setfl(&reader, OFlags::NONBLOCK).expect("its own flags");
        let len = fcntl_getpipe_size(&writer).expect("its length");
        assert_eq!(rustix::io::write(&writer, &vec![0; len]), Ok(len));
        (Self { reader, len }, Arc::new(Descriptor(writer)))
    }

    /// Takes what filled it.
    ///
    /// # Panics
    /// When something else is in it.
    pub fn make_room(&self) {
        assert!(self.take(self.len) == vec![0; self.len]);
    }

    /// The next bytes; fewer if they don't come within a second.
    #[must_use]
    pub fn take(&self, len: usize) -> Vec<u8> {
        let mut taken = Vec::with_capacity(len);
        for _ in 0..1000 {
            let mut bytes = vec![0; len - taken.len()];
            match rustix::io::read(&self.reader, &mut bytes) {
                Ok(count) => taken.extend_from_slice(&bytes[..count]),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
            if taken.len() == len {
                break;
            }
        }
        taken
    }
}

/// A file that only a ring can write to: calls by the thread itself are `Unsupported`.
#[derive(Debug)]
pub struct Descriptor(pub OwnedFd);

impl File for Descriptor {
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.0.as_fd())
    }

    fn is_direct(&self) -> bool {
        false
    }

    fn len(&self) -> io::Result<u64> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn read_at(&self, _bytes: &mut [u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn write_pieces_at(&self, _: [&[u8]; 2], _offset: u64, _dsync: bool) -> io::Result<usize> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn set_len(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn preallocate(&self, _len: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
