//! A vector and a log made by hand: a CRC and the record through a buffer of 1 MiB, one
//! `fdatasync` at the end. No recovery: a record that does not fit its CRC is an error.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use super::memory::Plain;
use crate::log::{Plan, Result};
use crate::store::{Bytes, RECORD_LEN, Store};

pub(crate) struct Naive {
    records: Plain,
    log: BufWriter<File>,
}

const BUFFER: usize = 1 << 20;
const CRC_LEN: usize = 4;

fn id_of(record: &Bytes) -> u32 {
    record.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

impl Store for Naive {
    fn open(dir: &Path, _plan: &Plan) -> Result<Self> {
        let mut file =
            File::options().read(true).append(true).create(true).open(dir.join("log"))?;
        let mut records = Plain::default();
        let mut reader = BufReader::with_capacity(BUFFER, &mut file);
        let mut entry = [0; CRC_LEN + RECORD_LEN];
        while !reader.fill_buf()?.is_empty() {
            reader.read_exact(&mut entry)?;
            let (crc, record) = entry.split_at(CRC_LEN);
            if crc != crc32fast::hash(record).to_le_bytes() {
                return Err("an entry of the log is damaged".into());
            }
            let record = record.try_into()?;
            records.set(id_of(record), record);
        }
        Ok(Self { records, log: BufWriter::with_capacity(BUFFER, file) })
    }

    fn put(&mut self, id: u32, record: &Bytes) -> Result<()> {
        self.log.write_all(&crc32fast::hash(record).to_le_bytes())?;
        self.log.write_all(record)?;
        self.records.set(id, record);
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.log.flush()?;
        Ok(self.log.get_ref().sync_data()?)
    }

    fn get(&self, ids: impl Iterator<Item = u32>, visit: impl FnMut(&[u8])) -> Result<()> {
        self.records.get(ids, visit)
    }

    fn scan(&self, visit: impl FnMut(&[u8])) -> Result<()> {
        self.records.scan(visit)
    }

    fn close(mut self) -> Result<()> {
        Ok(self.log.flush()?)
    }
}
