//! LMDB by heed: a B+ tree in a memory map. It has no log: a change of its own is a
//! transaction that writes its pages.
//!
//! `NO_SYNC` leaves the sync of each commit out; at the end `force_sync` does one
//! `fdatasync` of the file.

use std::path::Path;

use heed::byteorder::BE;
use heed::types::{Bytes as Slice, U32};
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions};

use crate::log::{Plan, Result};
use crate::store::{Bytes, Store, missing};

pub(crate) struct Lmdb {
    env: Env,
    records: Database<'static, U32<BE>, Slice>,
}

/// Address space for a record, with the pages that a copy-on-write tree leaves behind.
const BYTES_PER_RECORD: u64 = 512;
const LEAST_BYTES: u64 = 64 << 20;

impl Store for Lmdb {
    fn open(dir: &Path, plan: &Plan) -> Result<Self> {
        let mut options = EnvOpenOptions::new();
        let size = plan.records * BYTES_PER_RECORD + LEAST_BYTES;
        options.map_size(usize::try_from(size)?);
        // SAFETY: NO_SYNC risks the file at a power loss only, which no run outlives.
        unsafe { options.flags(EnvFlags::NO_SYNC) };
        // SAFETY: the directory is this run's own: nobody else opens or changes the file.
        let env = unsafe { options.open(dir)? };
        let txn = env.write_txn()?;
        let records = env
            .create_databases_and_commit(txn, |opener, txn| {
                opener
                    .create_database::<U32<BE>, Slice>(txn, None)
                    .map(CommitOrAbort::<_, ()>::Commit)
            })?
            .unwrap_commit();
        Ok(Self { env, records })
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.put_batch(id, std::slice::from_ref(record))
    }

    fn put_batch(&mut self, first: u32, records: &[Bytes]) -> Result<()> {
        let mut txn = self.env.write_txn()?;
        for (id, record) in (first..).zip(records) {
            self.records.put(&mut txn, &id, record)?;
        }
        Ok(txn.commit()?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let txn = self.env.read_txn()?;
        for id in ids {
            visit(self.records.get(&txn, &id)?.ok_or_else(|| missing(id))?);
        }
        Ok(())
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let txn = self.env.read_txn()?;
        for item in self.records.iter(&txn)? {
            visit(item?.1);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}
