//! What a log must offer to be compared, and what it may leave out.

use std::fmt;
use std::path::Path;

/// Any error: a comparison reports it and goes on with the next log.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The result of an operation of a log.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The log has no such operation; the workload is left out for it.
#[derive(Debug)]
pub(crate) struct Unsupported;

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the log has no such operation")
    }
}

impl std::error::Error for Unsupported {}

fn unsupported<T>() -> Result<T> {
    Err(Box::new(Unsupported))
}

/// What will be written, so that a log that can prepare for it does.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// Records in all, the warm-up included.
    pub(crate) records: u64,
    /// Bytes of each.
    pub(crate) record_len: usize,
}

impl Plan {
    /// Bytes of all records, each with `overhead` bytes more.
    pub(crate) fn bytes(&self, overhead: usize) -> u64 {
        self.records * (self.record_len + overhead) as u64
    }
}

/// A log that was created in an empty directory.
pub(crate) trait Log: Sync + Sized {
    /// One thread's way to append.
    type Writer<'a>: Writer + Send
    where
        Self: 'a;

    /// One thread does the work of all: what a machine can do at best has no hand-over.
    const STANDS_FOR_ALL: bool = false;

    /// A writer for one thread; threads are numbered from 0.
    fn writer(&self, thread: u64) -> Result<Self::Writer<'_>>;

    /// Everything appended before is durable on return.
    fn sync(&self) -> Result<()>;

    /// What it prepares in the background is there on return.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// Durable operations so far that don't pass through the C library's functions.
    fn unseen_syncs(&self) -> u64 {
        0
    }

    /// Ends the log; its records stay.
    fn close(self) -> Result<()>;
}

/// One thread's way to append. Each operation that a log lacks is left as it is here.
pub(crate) trait Writer {
    /// Stands for a record that is not durable yet.
    type Ticket: Copy;

    /// Appends a record by a call of its own; nothing is promised of its durability.
    fn append(&mut self, _record: &[u8]) -> Result<()> {
        unsupported()
    }

    /// Appends records that are recovered together or not at all.
    fn append_batch(&mut self, _records: &[&[u8]]) -> Result<()> {
        unsupported()
    }

    /// Appends a record; it is durable on return.
    fn commit(&mut self, _record: &[u8]) -> Result<()> {
        unsupported()
    }

    /// Appends a record whose durability can be asked for later.
    fn submit(&mut self, _record: &[u8]) -> Result<Self::Ticket> {
        unsupported()
    }

    /// Is it durable? Never waits.
    fn is_durable(&mut self, _ticket: Self::Ticket) -> Result<bool> {
        unsupported()
    }

    /// It is durable on return.
    fn wait(&mut self, _ticket: Self::Ticket) -> Result<()> {
        unsupported()
    }

    /// Returns the log what the writer itself has kept back.
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Counts what a replay visits, and adds up the stamps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Tally {
    /// Records seen.
    pub(crate) records: u64,
    /// The sum of their stamps, modulo 2^64.
    pub(crate) stamps: u64,
}

impl Tally {
    /// Visits one record.
    pub(crate) fn visit(&mut self, record: &[u8]) {
        self.records += 1;
        self.stamps = self.stamps.wrapping_add(stamp_of(record));
    }

    /// What a replay of records stamped 1, 2, ... must give.
    pub(crate) fn of_first(records: u64) -> Self {
        Self { records, stamps: records.wrapping_mul(records + 1) / 2 }
    }
}

/// A record's number: its first eight bytes.
pub(crate) fn stamp_of(record: &[u8]) -> u64 {
    record.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Opens a log in an empty directory.
pub(crate) type Open<L> = fn(&Path, &Plan) -> Result<L>;

/// Reads a closed log from its directory to its last record, every checksum verified.
pub(crate) type Replay = fn(&Path, &Plan, &mut Tally) -> Result<()>;
