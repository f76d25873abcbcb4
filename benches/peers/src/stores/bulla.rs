//! Bulla's store, with its defaults but for what is said below. A put is an entry of the log and a change of the
//! table; sync is the log's. Either it returns when the entry is in the log's ring
//! (Relaxed), or when it is written (Balanced), as those of peers that write at each put.

use std::path::Path;

use bulla_engine::{Batch, Level, Quota, RECORD_LEN, Record, StoreOptions};
use bulla_wal::{Method, Options};

use crate::log::{Plan, Result};
use crate::store::{Bytes, Store, missing};

/// A record as it is, with the id in its first bytes.
#[derive(Clone, Copy, PartialEq, Debug)]
#[repr(C, align(8))]
struct Plain(Bytes);

impl Record for Plain {
    const NAME: &'static str = "plain";

    type Id = u32;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> std::result::Result<Self, Self::Invalid> {
        Ok(Self(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        &self.0
    }

    fn id(&self) -> u32 {
        self.0.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }
}

pub(crate) struct Bulla<const WRITTEN: bool> {
    store: bulla_engine::Store<Plain>,
    batch: Batch<Plain>,
}

impl<const WRITTEN: bool> Bulla<WRITTEN> {
    const LEVEL: Level = if WRITTEN { Level::Balanced } else { Level::Relaxed };
}

impl<const WRITTEN: bool> Store for Bulla<WRITTEN> {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        let mut options = StoreOptions::new().quota(Quota::unlimited());
        if WRITTEN {
            // Each put is a write of its own: to the page cache, as the peers' are.
            options = options.log(Options::new().method(Method::Buffered));
        }
        let store = bulla_engine::Store::open_records(dir, &options)?;
        Ok(Self { store, batch: Batch::new() })
    }

    fn put(&mut self, _id: u32, record: &Bytes) -> Result<()> {
        Ok(self.store.at(Self::LEVEL).put(&Plain(*record))?)
    }

    fn put_batch(&mut self, _first: u32, records: &[Bytes]) -> Result<()> {
        self.batch.clear();
        for record in records {
            self.batch.put(&Plain(*record));
        }
        Ok(self.store.at(Self::LEVEL).apply(&self.batch)?)
    }

    fn sync(&mut self) -> Result<()> {
        self.store.sync()?;
        Ok(())
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        for id in ids {
            visit(&self.store.get(id)?.ok_or_else(|| missing(id))?.0);
        }
        Ok(())
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        self.store.iter()?.for_each(|record| visit(&record.0));
        Ok(())
    }

    /// DSYNC writes and syncs of segments; the making of segments ahead is not in them.
    fn unseen_syncs(&self) -> u64 {
        self.store.stats().log.durable_operations()
    }

    fn close(self) -> Result<()> {
        Ok(self.store.close()?)
    }
}
