//! okaywal: an entry is a list of chunks, and each commit of an entry syncs.
//!
//! Threads that commit at the same time share one `fdatasync`. The segment file is
//! written with zeros ahead, long enough that no checkpoint is due while it is measured.
//! It has no append without a sync, and no receipt.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use okaywal::{
    Configuration, Entry, LogManager, LogVoid, ReadChunkResult, SegmentReader, WriteAheadLog,
};

use crate::log::{Log, Plan, Result, Tally, Writer};

/// Bytes beyond the payload: entry header and end, chunk header and checksum.
const OVERHEAD: usize = 9 + 1 + 5 + 4;
const MIB: u64 = 1 << 20;

pub(crate) struct OkayWal(WriteAheadLog);

fn configuration(dir: &Path, plan: &Plan) -> Result<Configuration> {
    let len = plan.bytes(OVERHEAD).next_multiple_of(MIB) + MIB;
    Ok(Configuration::default_for(dir)
        .preallocate_bytes(u32::try_from(len)?)
        .checkpoint_after_bytes(len)
        .buffer_bytes(256 * 1024))
}

pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<OkayWal> {
    Ok(OkayWal(configuration(dir, plan)?.open(LogVoid)?))
}

/// Opening is its only way to read entries in order.
pub(crate) fn replay(dir: &Path, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let visited = Arc::new(Mutex::new(Tally::default()));
    let visitor = Visitor { tally: Arc::clone(&visited), record: Vec::new() };
    configuration(dir, plan)?.open(visitor)?.shutdown()?;
    *tally = *visited.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(())
}

#[derive(Debug)]
struct Visitor {
    tally: Arc<Mutex<Tally>>,
    record: Vec<u8>,
}

impl LogManager for Visitor {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match entry.read_chunk()? {
                ReadChunkResult::Chunk(mut chunk) => {
                    self.record.resize(chunk.bytes_remaining() as usize, 0);
                    io::Read::read_exact(&mut chunk, &mut self.record)?;
                    if !chunk.check_crc()? {
                        return Err(io::Error::other("a chunk's checksum is wrong"));
                    }
                    tally.visit(&self.record);
                }
                ReadChunkResult::EndOfEntry => return Ok(()),
                ReadChunkResult::AbortedEntry => return Err(io::Error::other("aborted entry")),
            }
        }
    }

    fn checkpoint_to(
        &mut self,
        _last: okaywal::EntryId,
        _entries: &mut SegmentReader,
        _wal: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

impl Log for OkayWal {
    type Writer<'a> = &'a OkayWal;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    /// Each commit has synced.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(self.0.shutdown()?)
    }
}

impl Writer for &OkayWal {
    type Ticket = ();

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut entry = self.0.begin_entry()?;
        for record in records {
            entry.write_chunk(record)?;
        }
        entry.commit()?;
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.append_batch(&[record])
    }
}
