//! Puts the commit path of a log together.

use std::sync::Arc;
use std::time::Duration;

use super::background;
use super::core::Config;
use super::driver::{Driver, Parts};
use super::leader::Leadership;
use super::published::Published;
use crate::faults::{Core, Ring, SpareMaker};
use crate::ring::Start;
use crate::stats::{Counters, Stats};
use bulla_storage::files::control::ControlFile;
use bulla_storage::files::recovered::Recovered;
use bulla_storage::io::Queue;
use bulla_storage::{Error, Lsn, Method, Options, Result};

/// Spare segments kept ready.
const SPARES: usize = 1;

/// The commit path of a log that runs.
pub(crate) struct Commit {
    pub(crate) published: Arc<Published>,
    pub(crate) leadership: Arc<Leadership>,
}

impl Commit {
    /// Starts the commit path of a log that was recovered; returns its CONTROL file, too.
    ///
    /// # Errors
    /// [`Error::Io`] when there is no memory for the ring.
    pub(crate) fn start(recovered: Recovered) -> Result<(Self, ControlFile)> {
        let Recovered { options, dir, lock, control, header, file, file_len, .. } = recovered;
        let io = Arc::clone(&options.io);
        let room = file_len - 2 * u64::from(header.sector);
        let start = Start {
            lsn: recovered.next_lsn,
            seq: recovered.next_seq,
            segment: header.number,
            base: header.epoch_start.as_ref().map_or(Lsn::ZERO, |epoch_start| epoch_start.base),
            room,
        };
        let ring = Ring::new(&options, start).map_err(Error::io("map memory for", dir.path()))?;
        let write_through = file.is_direct();
        let mut queue =
            io.queue(options.wanted_depth()).map_err(Error::io("make a queue for", dir.path()))?;
        queue.keep(lock.as_ref()).map_err(Error::io("keep the lock of", dir.path()))?;
        let depth = options.wanted_depth().min(queue.depth());
        let config = config(&options, write_through, depth);
        let maker = SpareMaker::new(
            Arc::clone(&io),
            dir.clone(),
            &header,
            options.segment_len,
            write_through,
        );
        let published = Arc::new(Published::new(ring, start.lsn));
        let driver = Driver::new(Parts {
            published: Arc::clone(&published),
            core: Core::new(config, start.lsn, start.segment, io.now_ns()),
            counters: Counters::new(stats(&options, queue.as_ref(), write_through, depth)),
            live: recovered.live,
            queue,
            io: Arc::clone(&io),
            inline_maker: options.is_manual().then(|| maker.clone()),
            header,
            file,
            room,
            prev_crc: recovered.prev_crc,
            wall_ns: recovered.wall_ns,
            zeros_pay_below: options.zeros_pay_below,
            lock,
        });
        let leadership = Arc::new(Leadership::new(Arc::clone(&published), driver));
        if !options.is_manual() {
            background::employ(&leadership, &io, options.flush_interval, maker);
        }
        Ok((Self { published, leadership }, control))
    }
}

fn config(options: &Options, write_through: bool, depth: usize) -> Config {
    let ns = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    Config {
        write_through,
        depth,
        flush_interval: ns(options.flush_interval),
        sync_interval: ns(options.sync_interval),
        balanced_interval: ns(options.balanced_interval),
        balanced_entries: options.balanced_entries,
        balanced_max_unsynced: options.balanced_max_unsynced,
        idle_mark: ns(options.idle_mark),
        spares: SPARES,
    }
}

/// Returns statistics of nothing yet: which backend and method were found, and why not others.
fn stats(options: &Options, queue: &dyn Queue, write_through: bool, depth: usize) -> Stats {
    let method = (options.method == Method::Direct && !write_through)
        .then_some("the file system refuses O_DIRECT");
    let backend = queue.fallback();
    let reasons: Vec<_> = backend.map(|f| f.reason).into_iter().chain(method).collect();
    Stats {
        backend: backend.map_or(options.io.name(), |fallback| fallback.backend),
        method: if write_through { Method::Direct } else { Method::Buffered }.name(),
        fallback: (!reasons.is_empty()).then(|| reasons.join("; ")),
        depth,
        ..Stats::default()
    }
}
