//! What many programs do: a `BufWriter`, a checksum, and one `fdatasync` at the end.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use crate::log::{Log, Plan, Result, Tally, Writer};

/// Bytes of the buffer.
const BUFFER: usize = 1 << 20;

pub(crate) struct Buffered(Mutex<BufWriter<File>>);

fn path(dir: &Path) -> PathBuf {
    dir.join("buffered.log")
}

pub(crate) fn create(dir: &Path, _plan: &Plan) -> Result<Buffered> {
    let file = File::create_new(path(dir))?;
    Ok(Buffered(Mutex::new(BufWriter::with_capacity(BUFFER, file))))
}

pub(crate) fn replay(dir: &Path, plan: &Plan, tally: &mut Tally) -> Result<()> {
    let mut file = BufReader::with_capacity(BUFFER, File::open(path(dir))?);
    let mut record = Vec::new();
    for _ in 0..plan.records {
        let (mut len, mut crc) = ([0; 4], [0; 4]);
        file.read_exact(&mut len)?;
        file.read_exact(&mut crc)?;
        let len = u32::from_le_bytes(len) as usize;
        if len > plan.record_len {
            return Err("a length is wrong".into());
        }
        record.resize(len, 0);
        file.read_exact(&mut record)?;
        if crc32fast::hash(&record) != u32::from_le_bytes(crc) {
            return Err("a checksum is wrong".into());
        }
        tally.visit(&record);
    }
    Ok(())
}

impl Buffered {
    fn lock(&self) -> Result<MutexGuard<'_, BufWriter<File>>> {
        self.0.lock().map_err(|_| "a thread panicked".into())
    }
}

impl Log for Buffered {
    type Writer<'a> = &'a Buffered;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    fn sync(&self) -> Result<()> {
        let mut file = self.lock()?;
        file.flush()?;
        Ok(file.get_ref().sync_data()?)
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

impl Writer for &Buffered {
    type Ticket = ();

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let crc = crc32fast::hash(record);
        let mut file = self.lock()?;
        file.write_all(&u32::try_from(record.len())?.to_le_bytes())?;
        file.write_all(&crc.to_le_bytes())?;
        Ok(file.write_all(record)?)
    }
}
