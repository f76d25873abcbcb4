//! Events for `tracing`, behind the feature of that name: one per opening, commit group,
//! purge, broken hold and end of a log, none per append.
//!
//! Events of commit groups and of the poison are given while the log's driver is locked: a
//! subscriber must not use the log.

#[cfg(feature = "tracing")]
mod events {
    use std::path::Path;

    use bulla_storage::files::holds::Hold;
    use bulla_storage::{Epoch, Lsn, PoisonCause};

    pub(crate) fn opened(dir: &Path, epoch: Epoch, next: Lsn) {
        tracing::info!(dir = %dir.display(), epoch = epoch.0, next_lsn = next.0, "log opened");
    }

    pub(crate) fn committed(written: Lsn, durable: Lsn) {
        tracing::trace!(written = written.0, durable = durable.0, "commit group done");
    }

    pub(crate) fn purged(dir: &Path, low_water: Lsn) {
        tracing::info!(dir = %dir.display(), low_water = low_water.0, "log purged");
    }

    pub(crate) fn hold_broken(dir: &Path, hold: &Hold) {
        let Hold { name, floor, quota_bytes, .. } = hold;
        tracing::warn!(dir = %dir.display(), name, lsn = floor.lsn.0, quota_bytes, "hold broken");
    }

    pub(crate) fn poisoned(durable: Lsn, cause: &PoisonCause) {
        tracing::error!(durable = durable.0, %cause, "log poisoned");
    }

    pub(crate) fn closed(dir: &Path, end: Lsn, drained: bool) {
        tracing::info!(dir = %dir.display(), end = end.0, drained, "log closed");
    }
}

#[cfg(not(feature = "tracing"))]
mod events {
    use std::path::Path;

    use bulla_storage::files::holds::Hold;
    use bulla_storage::{Epoch, Lsn, PoisonCause};

    pub(crate) const fn opened(_dir: &Path, _epoch: Epoch, _next: Lsn) {}
    pub(crate) const fn committed(_written: Lsn, _durable: Lsn) {}
    pub(crate) const fn purged(_dir: &Path, _low_water: Lsn) {}
    pub(crate) const fn hold_broken(_dir: &Path, _hold: &Hold) {}
    pub(crate) const fn poisoned(_durable: Lsn, _cause: &PoisonCause) {}
    pub(crate) const fn closed(_dir: &Path, _end: Lsn, _drained: bool) {}
}

pub(crate) use events::{closed, committed, hold_broken, opened, poisoned, purged};
