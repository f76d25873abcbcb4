//! raft-engine: a log for many Raft groups, with an index of all entries in memory.
//!
//! Each thread writes to a group of its own. Concurrent writes form a queue; the first
//! writes for all in it and calls `fdatasync` once if any asked for it. It is measured as
//! it runs after a while: the active file is a recycled one, whose blocks were written
//! before. Compression is off: the records don't compress.

use std::path::Path;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use crate::log::{Log, Plan, Result, Tally, Writer, stamp_of};

/// Bytes beyond the payload of a batch of one entry: header, footer, index; no less.
const OVERHEAD: usize = 96;
const MIB: u64 = 1 << 20;
/// The group of what fills the first file.
const FILLER: u64 = u64::MAX;
/// The groups of threads are the numbers from here.
const FIRST_GROUP: u64 = 1;

/// An entry is its payload; the stamp in it is its index.
struct Record;

impl MessageExt for Record {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        stamp_of(&entry.value)
    }
}

pub(crate) struct RaftEngine(Engine);

fn config(dir: &Path, plan: &Plan) -> Result<Config> {
    let file = ReadableSize(plan.bytes(OVERHEAD).next_multiple_of(MIB) + 8 * MIB);
    Ok(Config {
        dir: dir.to_str().ok_or("the directory's name is not UTF-8")?.to_owned(),
        batch_compression_threshold: ReadableSize(0),
        target_file_size: file,
        prefill_for_recycle: true,
        prefill_limit: Some(file),
        ..Config::default()
    })
}

pub(crate) fn create(dir: &Path, plan: &Plan) -> Result<RaftEngine> {
    let config = config(dir, plan)?;
    let filler_len = config.target_file_size.0;
    let engine = RaftEngine(Engine::open(config)?);
    let mut writer = RaftWriter::new(&engine, FILLER);
    let mut filler = vec![0x5A; 4 * MIB as usize];
    for stamp in 1..=filler_len.div_ceil(4 * MIB) {
        filler[..8].copy_from_slice(&stamp.to_le_bytes());
        writer.write(&[&filler], false)?;
    }
    Ok(engine)
}

/// Opening builds the index; then every entry is fetched.
pub(crate) fn replay(dir: &Path, plan: &Plan, tally: &mut Tally) -> Result<()> {
    const FETCHED_AT_ONCE: u64 = 1024;
    let engine = Engine::open(config(dir, plan)?)?;
    let mut entries = Vec::new();
    let first = engine.first_index(FIRST_GROUP).ok_or("no entries")?;
    let end = engine.last_index(FIRST_GROUP).ok_or("no entries")? + 1;
    let mut next = first;
    while next < end {
        let to = end.min(next + FETCHED_AT_ONCE);
        entries.clear();
        engine.fetch_entries_to::<Record>(FIRST_GROUP, next, to, None, &mut entries)?;
        for entry in &entries {
            tally.visit(&entry.value);
        }
        next = to;
    }
    Ok(())
}

impl Log for RaftEngine {
    type Writer<'a> = RaftWriter<'a>;

    fn writer(&self, thread: u64) -> Result<Self::Writer<'_>> {
        Ok(RaftWriter::new(self, FIRST_GROUP + thread))
    }

    /// `Engine::sync` writes an empty batch, which returns before it syncs; so a key is
    /// written that is not empty.
    fn sync(&self) -> Result<()> {
        let mut batch = LogBatch::default();
        batch.put(FILLER, b"synced".to_vec(), b"yes".to_vec())?;
        self.0.write(&mut batch, true)?;
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct RaftWriter<'a> {
    engine: &'a Engine,
    group: u64,
    batch: LogBatch,
    entries: Vec<BytesValue>,
}

impl<'a> RaftWriter<'a> {
    fn new(engine: &'a RaftEngine, group: u64) -> Self {
        Self { engine: &engine.0, group, batch: LogBatch::default(), entries: Vec::new() }
    }

    fn write(&mut self, records: &[&[u8]], sync: bool) -> Result<()> {
        self.entries.clear();
        self.entries.extend(records.iter().map(|record| {
            let mut entry = BytesValue::new();
            entry.set_value(record.to_vec());
            entry
        }));
        self.batch.add_entries::<Record>(self.group, &self.entries)?;
        self.engine.write(&mut self.batch, sync)?;
        Ok(())
    }
}

impl Writer for RaftWriter<'_> {
    type Ticket = ();

    fn append(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], false)
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        self.write(records, false)
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        self.write(&[record], true)
    }
}
