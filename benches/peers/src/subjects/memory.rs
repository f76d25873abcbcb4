//! `memcpy` into a ring of memory: what an append can't be faster than.

use std::path::Path;

use crate::log::{Log, Plan, Result, Writer};

/// Bytes of each thread's ring.
const RING: usize = 4 << 20;

pub(crate) struct Memory;

pub(crate) fn create(_dir: &Path, _plan: &Plan) -> Result<Memory> {
    Ok(Memory)
}

impl Log for Memory {
    type Writer<'a> = MemoryWriter;

    fn writer(&self, _thread: u64) -> Result<MemoryWriter> {
        Ok(MemoryWriter { ring: vec![1; RING], next: 0 })
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn close(self) -> Result<()> {
        Ok(())
    }
}

pub(crate) struct MemoryWriter {
    ring: Vec<u8>,
    next: usize,
}

impl Writer for MemoryWriter {
    type Ticket = ();

    fn append(&mut self, record: &[u8]) -> Result<()> {
        if self.next + record.len() > RING {
            self.next = 0;
        }
        self.ring[self.next..self.next + record.len()].copy_from_slice(record);
        self.next += record.len();
        std::hint::black_box(&self.ring);
        Ok(())
    }
}
