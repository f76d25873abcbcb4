//! commitlog: segments with an index mapped into memory.
//!
//! `flush` calls `File::flush`, which does nothing for a file, on the segment, and
//! `msync` on the index: the records themselves are never synced. One writer; threads
//! share it under a mutex.

use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use commitlog::message::{MessageBuf, MessageSet};
use commitlog::{CommitLog as Inner, LogOptions, ReadLimit};

use crate::log::{Failure, Log, Plan, Result, Tally, Writer};

pub(crate) struct CommitLog(Mutex<Inner>);

fn open(dir: &Path, plan: &Plan) -> Result<Inner> {
    let mut options = LogOptions::new(dir);
    options.index_max_items(usize::try_from(plan.records)? + 1);
    Ok(Inner::new(options)?)
}

pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<CommitLog> {
    Ok(CommitLog(Mutex::new(open(dir, plan)?)))
}

/// Reads a MiB at a time, which verifies its checksums.
pub(crate) fn replay(dir: &Path, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let log = open(dir, plan)?;
    let mut next = 0;
    loop {
        let messages = log.read(next, ReadLimit::max_bytes(1 << 20)).map_err(failure)?;
        let Some(last) = messages.iter().last() else { return Ok(()) };
        next = last.offset() + 1;
        for message in messages.iter() {
            tally.visit(message.payload());
        }
    }
}

/// Its errors are not `Sync`.
fn failure(error: impl std::fmt::Display) -> Failure {
    error.to_string().into()
}

impl CommitLog {
    fn lock(&self) -> Result<MutexGuard<'_, Inner>> {
        self.0.lock().map_err(failure)
    }
}

impl Log for CommitLog {
    type Writer<'a> = &'a CommitLog;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    fn sync(&self) -> Result<()> {
        Ok(self.lock()?.flush()?)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Writer for &CommitLog {
    type Ticket = ();

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.lock()?.append_msg(record).map_err(failure)?;
        Ok(())
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut batch = MessageBuf::default();
        for record in records {
            batch.push(record).map_err(|_| "a record is too long")?;
        }
        self.lock()?.append(&mut batch).map_err(failure)?;
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let mut log = self.lock()?;
        log.append_msg(record).map_err(failure)?;
        Ok(log.flush()?)
    }
}
