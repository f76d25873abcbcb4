//! `SQLite` by rusqlite, with its write-ahead log. `synchronous = OFF` while records are
//! put; at the end a checkpoint with `FULL` syncs log and file.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension};

use crate::log::{Plan, Result};
use crate::store::{Bytes, Store, missing};

pub(crate) struct Sqlite(Connection);

const PUT: &str = "INSERT OR REPLACE INTO records (id, record) VALUES (?1, ?2)";

impl Store for Sqlite {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        let connection = Connection::open(dir.join("sqlite"))?;
        connection.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF;
             CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, record BLOB NOT NULL);",
        )?;
        Ok(Self(connection))
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.0.prepare_cached(PUT)?.execute((id, record))?;
        Ok(())
    }

    fn put_batch(&mut self, first: u32, records: &[Bytes]) -> Result<()> {
        let txn = self.0.transaction()?;
        {
            let mut put = txn.prepare_cached(PUT)?;
            for (id, record) in (first..).zip(records) {
                put.execute((id, record))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn sync(&mut self) -> Result<()> {
        self.0.execute_batch("PRAGMA synchronous = FULL")?;
        let busy: i64 = self.0.query_row("PRAGMA wal_checkpoint(FULL)", [], |row| row.get(0))?;
        self.0.execute_batch("PRAGMA synchronous = OFF")?;
        if busy == 0 { Ok(()) } else { Err("the checkpoint was kept from its end".into()) }
    }

    fn get(&self, ids: impl Iterator<Item = u32>, mut visit: impl FnMut(&[u8])) -> Result<()> {
        // In one transaction, as the others' reads are.
        let txn = self.0.unchecked_transaction()?;
        {
            let mut get = txn.prepare_cached("SELECT record FROM records WHERE id = ?1")?;
            for id in ids {
                let found = get.query_row([id], |row| {
                    visit(row.get_ref(0)?.as_blob()?);
                    Ok(())
                });
                found.optional()?.ok_or_else(|| missing(id))?;
            }
        }
        Ok(txn.commit()?)
    }

    fn scan(&self, mut visit: impl FnMut(&[u8])) -> Result<()> {
        let mut all = self.0.prepare_cached("SELECT record FROM records ORDER BY id")?;
        let mut rows = all.query([])?;
        while let Some(row) = rows.next()? {
            visit(row.get_ref(0)?.as_blob()?);
        }
        Ok(())
    }

    fn close(self) -> Result<()> {
        self.0.close().map_err(|(_, error)| error.into())
    }
}
