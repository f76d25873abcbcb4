//! wal-db: one file that grows; every append is a write of its own.
//!
//! Threads that sync at the same time share one `fdatasync`. Its position stands for a
//! receipt: a thread with many records outstanding calls `sync`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use wal_db::Wal;

use crate::log::{Log, Plan, Result, Tally, Writer};

pub(crate) struct WalDb {
    wal: Wal,
    /// Everything appended before is durable.
    durable: AtomicU64,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("log.wal")
}

pub(crate) fn create(dir: &Path, _plan: &Plan) -> Result<WalDb> {
    Ok(WalDb { wal: Wal::open(path(dir))?, durable: AtomicU64::new(0) })
}

/// Opening scans the file; the iterator reads and verifies it again.
pub(crate) fn replay(dir: &Path, _plan: &Plan, tally: &mut Tally) -> Result<()> {
    let wal = Wal::open(path(dir))?;
    for record in wal.iter()? {
        tally.visit(record?.data());
    }
    Ok(())
}

impl Log for WalDb {
    type Writer<'a> = &'a WalDb;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    fn sync(&self) -> Result<()> {
        let end = self.wal.len();
        self.wal.sync()?;
        self.durable.fetch_max(end, Ordering::Relaxed);
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Writer for &WalDb {
    type Ticket = u64;

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let _lsn = self.wal.append(record)?;
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let _lsn = self.wal.append_and_sync(record)?;
        Ok(())
    }

    fn submit(&mut self, record: &[u8]) -> Result<u64> {
        Ok(self.wal.append(record)?.get())
    }

    fn is_durable(&mut self, lsn: u64) -> Result<bool> {
        Ok(lsn < self.durable.load(Ordering::Relaxed))
    }

    fn wait(&mut self, _lsn: u64) -> Result<()> {
        self.sync()
    }
}
