//! fjall: an LSM tree behind a journal. Each change goes to the journal's file before it
//! returns, as by default; `persist(SyncData)` at the end syncs that.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::log::{Plan, Result};
use crate::store::{Bytes, Store, missing};

pub(crate) struct Fjall {
    database: Database,
    records: Keyspace,
}

impl Store for Fjall {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        let database = Database::builder(dir).open()?;
        let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(Self { database, records })
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        Ok(self.records.insert(id.to_be_bytes(), record.as_slice())?)
    }

    fn put_batch(&mut self, first: u32, records: &[Bytes]) -> Result<()> {
        let mut batch = self.database.batch();
        for (id, record) in (first..).zip(records) {
            batch.insert(&self.records, id.to_be_bytes(), record.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncData)?)
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        for id in ids {
            visit(&self.records.get(id.to_be_bytes())?.ok_or_else(|| missing(id))?);
        }
        Ok(())
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        for item in self.records.iter() {
            visit(&item.value()?);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
