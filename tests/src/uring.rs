//! What the ring of `io_uring` must tell of writes that go wrong, on files that make them.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use bulla_wal::RingBytes;
use bulla_wal::io::uring::UringIo;
use bulla_wal::io::{AlignedBuf, Completion, File, Io, Request, Ticket};
use rustix::pipe::{PipeFlags, pipe_with};

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
