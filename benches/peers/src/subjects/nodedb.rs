//! nodedb-wal: `O_DIRECT` writes of padded groups, then `fsync`.
//!
//! Its writer belongs to one thread and leaves grouping to its user, so it is measured
//! under the group commit made by hand. By default everything is also written, and
//! synced, to a second file first (the double-write buffer).

use std::path::{Path, PathBuf};

use nodedb_wal::WalWriter;
use nodedb_wal::double_write::DwbMode;
use nodedb_wal::mmap_reader::MmapWalReader;
use nodedb_wal::record::RecordType;
use nodedb_wal::writer::WalWriterConfig;

use super::grouped::{Grouped, Sink};
use crate::log::{Plan, Result, Tally};

pub(crate) struct NodeSink {
    writer: WalWriter,
    record_len: usize,
}

fn path(dir: &Path) -> PathBuf {
    dir.join("log.wal")
}

pub(crate) fn create(dir: &Path, plan: &Plan, double_write: DwbMode) -> Result<Grouped<NodeSink>> {
    let config = WalWriterConfig { dwb_mode: Some(double_write), ..WalWriterConfig::default() };
    let writer = WalWriter::open(&path(dir), config)?;
    Ok(Grouped::new(NodeSink { writer, record_len: plan.record_len }))
}

/// With the reader that maps the file, the faster of its two.
pub(crate) fn replay(dir: &Path, _plan: &Plan, tally: &mut Tally) -> Result<()> {
    let mut reader = MmapWalReader::open(&path(dir), None)?;
    while let Some(record) = reader.next_record()? {
        tally.visit(&record.payload);
    }
    Ok(())
}

impl Sink for NodeSink {
    fn write(&mut self, records: &[u8]) -> Result<()> {
        for record in records.chunks_exact(self.record_len) {
            self.writer.append(RecordType::Put as u32, 1, 0, 0, record)?;
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.writer.sync()?)
    }
}
