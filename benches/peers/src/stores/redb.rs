//! redb: a copy-on-write B+ tree in a file. It has no log: a change of its own is a
//! transaction, kept in its cache as long as no commit is durable.
//!
//! All transactions but the last have `Durability::None`; the last one syncs the file.

use std::path::Path;

use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use crate::log::{Plan, Result};
use crate::store::{Bytes, Store, missing};

const RECORDS: TableDefinition<'static, u32, &Bytes> = TableDefinition::new("records");

pub(crate) struct Redb(Database);

impl Redb {
    fn commit(&self, durability: Durability, first: u32, records: &[Bytes]) -> Result<()> {
        let mut txn = self.0.begin_write()?;
        txn.set_durability(durability)?;
        {
            let mut table = txn.open_table(RECORDS)?;
            for (id, record) in (first..).zip(records) {
                table.insert(id, record)?;
            }
        }
        Ok(txn.commit()?)
    }
}

impl Store for Redb {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        Ok(Self(Database::create(dir.join("redb"))?))
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.commit(Durability::None, id, std::slice::from_ref(record))
    }

    fn put_batch(&mut self, first: u32, records: &[Bytes]) -> Result<()> {
        self.commit(Durability::None, first, records)
    }

    fn sync(&mut self) -> Result<()> {
        self.commit(Durability::Immediate, 0, &[])
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let table = self.0.begin_read()?.open_table(RECORDS)?;
        for id in ids {
            visit(table.get(id)?.ok_or_else(|| missing(id))?.value());
        }
        Ok(())
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let table = self.0.begin_read()?.open_table(RECORDS)?;
        for item in table.iter()? {
            visit(item?.1.value());
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}
