//! Group commit by hand: a mutex, a queue, and whoever finds nobody leading leads.
//!
//! Records gather in a queue. A committing thread that finds no leader takes the whole
//! queue, writes it and syncs, without the lock; the others wait. [`FileSink`] is the
//! hand-made log; another log that leaves grouping to its user is a [`Sink`] too.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard};

use crate::log::{Log, Plan, Result, Writer};

/// Appenders write when so much has gathered.
const WRITE_AT: usize = 1 << 20;
/// And no more gathers than this.
const QUEUE_LIMIT: usize = 8 << 20;

/// What a group is written to.
pub(crate) trait Sink: Send {
    /// Writes records, one after the other in `records`.
    fn write(&mut self, records: &[u8]) -> Result<()>;
    /// Makes what was written durable.
    fn sync(&mut self) -> Result<()>;
}

/// A log that commits in groups.
pub(crate) struct Grouped<S> {
    queue: Mutex<Queue>,
    changed: Condvar,
    sink: Mutex<S>,
}

/// Positions count bytes of records from the log's beginning.
#[derive(Default)]
struct Queue {
    /// Records that nobody has taken, and an empty buffer to go on with.
    records: Vec<u8>,
    spare: Vec<u8>,
    /// Where the last record ends.
    end: u64,
    /// What is durable ends here.
    synced: u64,
    is_led: bool,
    has_failed: bool,
}

impl<S: Sink> Grouped<S> {
    pub(crate) fn new(sink: S) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new(), sink: Mutex::new(sink) }
    }

    fn lock(&self) -> Result<MutexGuard<'_, Queue>> {
        self.queue.lock().map_err(|_| "a thread panicked".into())
    }

    fn push(&self, record: &[u8]) -> Result<(MutexGuard<'_, Queue>, u64)> {
        let mut queue = self.lock()?;
        while queue.records.len() >= QUEUE_LIMIT {
            queue = self.turn(queue, false)?;
        }
        queue.records.extend_from_slice(record);
        queue.end += record.len() as u64;
        let end = queue.end;
        Ok((queue, end))
    }

    /// Returns when everything up to `target` is durable.
    fn sync_to<'a>(&'a self, mut queue: MutexGuard<'a, Queue>, target: u64) -> Result<()> {
        while queue.synced < target {
            queue = self.turn(queue, true)?;
        }
        Ok(())
    }

    /// Leads, or waits until somebody has.
    fn turn<'a>(
        &'a self,
        queue: MutexGuard<'a, Queue>,
        sync: bool,
    ) -> Result<MutexGuard<'a, Queue>> {
        if queue.has_failed {
            return Err("a write or sync failed".into());
        }
        if queue.is_led {
            return self.changed.wait(queue).map_err(|_| "a thread panicked".into());
        }
        self.lead(queue, sync)
    }

    /// Writes what has gathered, and syncs it if asked to.
    fn lead<'a>(
        &'a self,
        mut queue: MutexGuard<'a, Queue>,
        sync: bool,
    ) -> Result<MutexGuard<'a, Queue>> {
        queue.is_led = true;
        let spare = std::mem::take(&mut queue.spare);
        let mut records = std::mem::replace(&mut queue.records, spare);
        let end = queue.end;
        drop(queue);
        let done = self.write(&records, sync);
        records.clear();
        let mut queue = self.lock()?;
        queue.spare = records;
        queue.is_led = false;
        queue.has_failed |= done.is_err();
        if sync && done.is_ok() {
            queue.synced = end;
        }
        self.changed.notify_all();
        done.map(|()| queue)
    }

    fn write(&self, records: &[u8], sync: bool) -> Result<()> {
        let mut sink = self.sink.lock().map_err(|_| "a thread panicked")?;
        if !records.is_empty() {
            sink.write(records)?;
        }
        if sync { sink.sync() } else { Ok(()) }
    }
}

impl<S: Sink> Log for Grouped<S> {
    type Writer<'a>
        = &'a Grouped<S>
    where
        S: 'a;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    fn sync(&self) -> Result<()> {
        let queue = self.lock()?;
        let end = queue.end;
        self.sync_to(queue, end)
    }

    fn close(self) -> Result<()> {
        self.sync()
    }
}

impl<S: Sink> Writer for &Grouped<S> {
    type Ticket = u64;

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.submit(record)?;
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let (queue, end) = self.push(record)?;
        self.sync_to(queue, end)
    }

    fn submit(&mut self, record: &[u8]) -> Result<u64> {
        let (queue, end) = self.push(record)?;
        if queue.records.len() >= WRITE_AT && !queue.is_led {
            drop(self.lead(queue, false)?);
        }
        Ok(end)
    }

    fn is_durable(&mut self, end: u64) -> Result<bool> {
        Ok(self.lock()?.synced >= end)
    }

    fn wait(&mut self, end: u64) -> Result<()> {
        self.sync_to(self.lock()?, end)
    }
}

/// A file that was written with zeros before; records with length and checksum.
pub(crate) struct FileSink {
    file: File,
    offset: u64,
    record_len: usize,
    framed: Vec<u8>,
}

/// Length and CRC-32.
const FRAME: usize = 8;

pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<Grouped<FileSink>> {
    let file = zeroed_file(&dir.join("grouped.log"), plan.bytes(FRAME))?;
    let framed = Vec::new();
    Ok(Grouped::new(FileSink { file, offset: 0, record_len: plan.record_len, framed }))
}

/// A durable file of zeros, so that writing to it changes no metadata.
pub(crate) fn zeroed_file(path: &Path, len: u64) -> Result<File> {
    const CHUNK: usize = 1 << 20;
    let file = File::options().read(true).write(true).create_new(true).open(path)?;
    let zeros = vec![0; CHUNK];
    for chunk in 0..len.div_ceil(CHUNK as u64) {
        file.write_all_at(&zeros, chunk * CHUNK as u64)?;
    }
    file.sync_all()?;
    Ok(file)
}

impl Sink for FileSink {
    fn write(&mut self, records: &[u8]) -> Result<()> {
        self.framed.clear();
        for record in records.chunks_exact(self.record_len) {
            let len = u32::try_from(record.len())?;
            self.framed.extend_from_slice(&len.to_le_bytes());
            self.framed.extend_from_slice(&crc32fast::hash(record).to_le_bytes());
            self.framed.extend_from_slice(record);
        }
        self.file.write_all_at(&self.framed, self.offset)?;
        self.offset += self.framed.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.file.sync_data()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So slow that the queue fills up.
    struct Slow(u64);

    impl Sink for Slow {
        fn write(&mut self, records: &[u8]) -> Result<()> {
            assert!(records.len() <= QUEUE_LIMIT, "the queue is longer than its limit");
            self.0 += records.len() as u64;
            std::thread::sleep(std::time::Duration::from_millis(10));
            Ok(())
        }

        fn sync(&mut self) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn full_queue_is_written_by_one_of_those_who_fill_it() {
        const RECORD: usize = 64 * 1024;
        const RECORDS: usize = 1024;
        let log = Grouped::new(Slow(0));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..RECORDS {
                        (&log).append(&[7; RECORD]).expect("append");
                    }
                });
            }
        });
        log.sync().expect("sync");
        assert_eq!(log.sink.lock().expect("sink").0, (2 * RECORDS * RECORD) as u64);
    }
}
