//! Bulla itself, on any backend and method.
//!
//! Its second segment is there before the timing, as other logs' prepared files are. The
//! third and later ones are made inside it, by its own thread.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bulla_recovery::Range;
use bulla_storage::files::dir::Directory;
use bulla_storage::io::Io;
use bulla_wal::{Level, Log as Wal, Method, Options, Receipt};

use crate::log::{Log, Result, Tally, Writer};

/// The kind of every entry.
const KIND: u16 = 1;

pub(crate) struct Bulla {
    log: Wal,
    dir: PathBuf,
    io: Arc<dyn Io>,
}

/// How long the second segment may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// With the defaults, but for the backend and the method.
pub(crate) fn create(dir: &Path, io: Arc<dyn Io>, method: Method) -> Result<Bulla> {
    let log = Wal::create(dir, &Options::new().io(Arc::clone(&io)).method(method))?;
    if log.stats().method != method.name() {
        return Err(format!("the file system refuses the method {}", method.name()).into());
    }
    if log.stats().backend != io.name() {
        return Err(format!("this machine refuses the backend {}", io.name()).into());
    }
    Ok(Bulla { log, dir: dir.to_owned(), io })
}

/// The read-only way, in one pass: every frame is verified before its entries are visited.
pub(crate) fn replay(dir: &Path, method: Method, tally: &mut Tally) -> Result<()> {
    let options = Options::new().method(method);
    bulla_recovery::replay(dir, &options, Range::ALL, |entry| {
        tally.visit(entry.payload);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

impl Log for Bulla {
    type Writer<'a> = &'a Bulla;

    fn writer(&self, _thread: u64) -> Result<Self::Writer<'_>> {
        Ok(self)
    }

    fn sync(&self) -> Result<()> {
        self.log.sync()?;
        Ok(())
    }

    /// The second segment is made once something was appended; it gets its name when it is
    /// whole.
    fn settle(&self) -> Result<()> {
        let start = Instant::now();
        while Directory::open(self.io.as_ref(), &self.dir)?.list()?.segments.len() < 2 {
            if start.elapsed() > PATIENCE {
                return Err("the second segment is not there".into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// DSYNC writes and syncs of segments; the making of segments ahead is not in them.
    fn unseen_syncs(&self) -> u64 {
        self.log.stats().durable_operations()
    }

    fn close(self) -> Result<()> {
        Ok(self.log.close()?)
    }
}

impl Writer for &Bulla {
    type Ticket = Receipt;

    fn append(&mut self, record: &[u8]) -> Result<()> {
        let _ = self.log.append_with(KIND, record, Level::Relaxed)?;
        Ok(())
    }

    fn append_batch(&mut self, records: &[&[u8]]) -> Result<()> {
        let entries: Vec<(u16, &[u8])> = records.iter().map(|record| (KIND, *record)).collect();
        let _ = self.log.append_batch(&entries, Level::Relaxed)?;
        Ok(())
    }

    fn commit(&mut self, record: &[u8]) -> Result<()> {
        let receipt = self.log.append_with(KIND, record, Level::Strict)?;
        Ok(self.log.wait(receipt)?)
    }

    fn submit(&mut self, record: &[u8]) -> Result<Receipt> {
        Ok(self.log.append_with(KIND, record, Level::Strict)?)
    }

    fn is_durable(&mut self, receipt: Receipt) -> Result<bool> {
        Ok(self.log.is_ready(receipt)?)
    }

    fn wait(&mut self, receipt: Receipt) -> Result<()> {
        Ok(self.log.wait(receipt)?)
    }
}
