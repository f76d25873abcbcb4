//! How many records and bytes a store may hold, and how many it holds.
//!
//! Owns one number: records and pages in use. A write reserves what it adds before it
//! is logged, and gives it back if it fails: one atomic operation, no system call, and
//! never above the limit for a moment. What a store does when it is full is not
//! decided here. Tested by `engine/tests/quota.rs`.

use bulla_storage::faults::mutants::{Bug, either, planted};

use crate::sync::{AtomicU64, Ordering};
use crate::table::PAGE_LEN;

/// What a write does that would exceed the quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnExceed {
    /// It is refused with [`Error::Quota`](crate::Error::Quota).
    #[default]
    Reject,
    /// Records are deleted to make room, never persistent ones: those that have
    /// expired, then the lightest of a sample, of equal weight the oldest. The deletions
    /// are logged like any other. Refused is what still does not fit.
    Reclaim,
}

/// The most that a store may hold.
///
/// Memory is counted in pages of 4 KiB, which hold the records of 64 consecutive ids: a
/// record alone in its page counts as 4096 bytes. Pages that are kept for a
/// [`Snapshot`](crate::Snapshot) count, too, and make way for those of records. What the
/// log holds in its ring is not part of it.
#[derive(Clone, Copy, PartialEq, Debug)]
#[must_use]
pub struct Quota {
    max_records: u64,
    max_bytes: u64,
    warn_at: f64,
    clean_at: f64,
    on_exceed: OnExceed,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            max_records: 10_000_000,
            max_bytes: 1_024_000_000,
            warn_at: 0.8,
            clean_at: 0.95,
            on_exceed: OnExceed::Reject,
        }
    }
}

impl Quota {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// No limit but those of ids and memory.
    pub fn unlimited() -> Self {
        Self::default().max_records(u64::MAX).max_bytes(u64::MAX)
    }

    /// The most records. Default: 10,000,000.
    pub fn max_records(mut self, max_records: u64) -> Self {
        self.max_records = max_records;
        self
    }

    /// The most bytes of pages; what is no whole page does not count. Default:
    /// 1,024,000,000.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The part of either limit, from 0 to 1, above which [`QuotaStats::pressure`] says
    /// [`Pressure::Warning`]. Default: 0.8.
    pub fn warn_at(mut self, part: f64) -> Self {
        self.warn_at = part;
        self
    }

    /// The part of either limit, from 0 to 1, above which it says [`Pressure::Cleanup`];
    /// with [`OnExceed::Reclaim`] a write that ends up there deletes a few records, so that
    /// later ones need not wait for it. Default: 0.95.
    pub fn clean_at(mut self, part: f64) -> Self {
        self.clean_at = part;
        self
    }

    /// What a write does that would exceed it. Default: [`OnExceed::Reject`].
    pub fn on_exceed(mut self, on_exceed: OnExceed) -> Self {
        self.on_exceed = on_exceed;
        self
    }

    /// May records be deleted to make room?
    pub(crate) fn reclaims(&self) -> bool {
        self.on_exceed == OnExceed::Reclaim
    }

    const fn max_pages(&self) -> u64 {
        self.max_bytes / PAGE_LEN as u64
    }

    #[expect(clippy::cast_precision_loss, reason = "a threshold is no exact number")]
    fn is_above(&self, part: f64, used: Used) -> bool {
        let above = |used: u64, max: u64| used as f64 > max as f64 * part;
        above(used.records, self.max_records) || above(used.pages, self.max_pages())
    }

    fn pressure(&self, used: Used) -> Pressure {
        if self.is_above(self.clean_at, used) {
            Pressure::Cleanup
        } else if self.is_above(self.warn_at, used) {
            Pressure::Warning
        } else {
            Pressure::Normal
        }
    }
}

/// How near a store is to its quota.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Pressure {
    /// Below both thresholds.
    #[default]
    Normal,
    /// Above [`Quota::warn_at`].
    Warning,
    /// Above [`Quota::clean_at`].
    Cleanup,
}

/// What a write would have had too much of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resource {
    /// Records.
    Records,
    /// Bytes of pages.
    Bytes,
}

/// A write did not fit into the quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{used} of {max} {unit} are in use, {wanted} more don't fit", unit = self.unit())]
#[non_exhaustive]
pub struct QuotaError {
    /// Of what there was not enough.
    pub resource: Resource,
    /// How much was in use.
    pub used: u64,
    /// How much there may be.
    pub max: u64,
    /// How much the write would have added.
    pub wanted: u64,
}

impl QuotaError {
    const fn unit(&self) -> &'static str {
        match self.resource {
            Resource::Records => "records",
            Resource::Bytes => "bytes",
        }
    }
}

/// Numbers of a store's quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct QuotaStats {
    /// Records in use, those of writes under way among them.
    pub records: u64,
    /// The most that there may be.
    pub max_records: u64,
    /// The most that there were since the store was opened.
    pub records_high: u64,
    /// Bytes of the pages in use, those kept for snapshots among them.
    pub bytes: u64,
    /// Bytes of the pages that are kept for snapshots.
    pub kept_bytes: u64,
    /// The most that there may be.
    pub max_bytes: u64,
    /// The most that there were since the store was opened.
    pub bytes_high: u64,
    /// Writes that were refused.
    pub rejected: u64,
    /// Records that were deleted to make room.
    pub reclaimed: u64,
    /// Records that were deleted because their time had come.
    pub expired: u64,
    /// How near the quota is, without what is kept for snapshots.
    pub pressure: Pressure,
}

/// What is in use, against a quota.
#[derive(Debug)]
pub(crate) struct Usage {
    quota: Quota,
    /// Records in the lower half, pages in the upper: there are less than 2^32 of either,
    /// with 2^26 pages in the table, and as many at most for each snapshot.
    used: AtomicU64,
    /// Pages of them that are kept for snapshots, or that are about to be.
    kept: AtomicU64,
    records_high: AtomicU64,
    pages_high: AtomicU64,
    rejected: AtomicU64,
    pub(crate) reclaimed: AtomicU64,
    pub(crate) expired: AtomicU64,
}

#[derive(Clone, Copy)]
struct Used {
    records: u64,
    pages: u64,
}

impl Used {
    const fn of(word: u64) -> Self {
        Self { records: word & 0xFFFF_FFFF, pages: word >> 32 }
    }

    const fn word(self) -> u64 {
        self.records | self.pages << 32
    }
}

/// What a change adds to records and pages in use; negative where it takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Growth {
    pub(crate) records: i64,
    pub(crate) pages: i64,
}

impl Growth {
    fn added(self) -> Used {
        let Self { records, pages } = self;
        Used { records: records.max(0).unsigned_abs(), pages: pages.max(0).unsigned_abs() }
    }

    fn taken_away(self) -> Used {
        let Self { records, pages } = self;
        Used { records: records.min(0).unsigned_abs(), pages: pages.min(0).unsigned_abs() }
    }
}

impl Usage {
    pub(crate) fn new(quota: Quota) -> Self {
        Self {
            quota,
            used: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            records_high: AtomicU64::new(0),
            pages_high: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            reclaimed: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    pub(crate) const fn quota(&self) -> &Quota {
        &self.quota
    }

    pub(crate) fn records(&self) -> u64 {
        self.load().records
    }

    /// Nothing yet.
    pub(crate) fn reservation(&self) -> Reservation<'_> {
        Reservation { usage: self, growth: Growth { records: 0, pages: 0 }, is_made: false }
    }

    /// Counts what a checkpoint has, or what replay made of that, whether it fits or not:
    /// what the log says is so. The high-water marks begin there.
    pub(crate) fn replayed(&self, growth: Growth) {
        let before = self.load();
        let used = Used {
            records: before.records.saturating_add_signed(growth.records),
            pages: before.pages.saturating_add_signed(growth.pages),
        };
        self.used.store(used.word(), Ordering::Relaxed);
        self.records_high.store(used.records, Ordering::Relaxed);
        self.pages_high.store(used.pages, Ordering::Relaxed);
    }

    /// The change that was reserved for is made, and what it takes away is gone.
    fn commit(&self, growth: Growth) {
        if !planted(Bug::QuotaNotGivenBack) {
            self.give_back(growth.taken_away());
        }
    }

    /// The change that was reserved for is not made.
    fn release(&self, growth: Growth) {
        self.give_back(growth.added());
        if planted(Bug::QuotaReleasedTwice) {
            self.give_back(growth.added());
        }
    }

    /// Reserves a page to be kept for snapshots; `false` if it does not fit.
    pub(crate) fn keep(&self) -> bool {
        // First, and taken back last: where none is kept, none takes room.
        self.kept.fetch_add(1, Ordering::Relaxed);
        let fits = self.add(Growth { records: 0, pages: 1 }).is_ok();
        if !fits {
            self.kept.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    /// A page is kept no more.
    pub(crate) fn unkeep(&self) {
        self.give_back(Used { records: 0, pages: either(1, Bug::KeptNotGivenBack, 0) });
        // Release pairs with the Acquire in `may_fit`: who sees it gone sees its room, too.
        self.kept.fetch_sub(1, Ordering::Release);
    }

    /// Could a write that was refused fit now, because of pages that were kept then?
    pub(crate) fn may_fit(&self, refused: &QuotaError) -> bool {
        // What `add` has acquired, and this, leave no moment at which neither is seen.
        refused.resource == Resource::Bytes
            && (self.kept.load(Ordering::Acquire) > 0 || self.stats().bytes < refused.used)
    }

    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Is so much in use that a few records should go?
    pub(crate) fn wants_cleanup(&self) -> bool {
        self.quota.reclaims() && self.quota.is_above(self.quota.clean_at, self.of_records())
    }

    /// Are it the pages that are above the threshold, not the records?
    pub(crate) fn scarce(&self) -> Resource {
        let only_records = Used { pages: 0, ..self.load() };
        if self.quota.is_above(self.quota.clean_at, only_records) {
            Resource::Records
        } else {
            Resource::Bytes
        }
    }

    pub(crate) fn stats(&self) -> QuotaStats {
        let used = self.load();
        self.raise(used);
        let bytes = |pages: u64| pages * PAGE_LEN as u64;
        QuotaStats {
            records: used.records,
            max_records: self.quota.max_records,
            records_high: self.records_high.load(Ordering::Relaxed),
            bytes: bytes(used.pages),
            kept_bytes: bytes(self.kept.load(Ordering::Relaxed)),
            max_bytes: self.quota.max_bytes,
            bytes_high: bytes(self.pages_high.load(Ordering::Relaxed)),
            rejected: self.rejected.load(Ordering::Relaxed),
            reclaimed: self.reclaimed.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            pressure: self.quota.pressure(self.of_records()),
        }
    }

    fn load(&self) -> Used {
        Used::of(self.used.load(Ordering::Relaxed))
    }

    /// Without what is kept for snapshots. What is about to be kept may be left out twice.
    fn of_records(&self) -> Used {
        let used = self.load();
        let kept = self.kept.load(Ordering::Relaxed);
        Used { pages: used.pages.saturating_sub(kept), ..used }
    }

    // Relaxed is enough for the number to be exact. Release and Acquire pair with each other:
    // a write that is refused because of a page that is kept sees that one is, see `may_fit`.
    fn add(&self, growth: Growth) -> Result<(), QuotaError> {
        let added = growth.added();
        if added.word() == 0 {
            return Ok(());
        }
        let mut word = self.used.load(Ordering::Acquire);
        loop {
            let used = Used::of(word);
            let next =
                Used { records: used.records + added.records, pages: used.pages + added.pages };
            self.check(used, next)?;
            let swapped = self.used.compare_exchange_weak(
                word,
                next.word(),
                Ordering::Release,
                Ordering::Acquire,
            );
            match swapped {
                Ok(_) => return Ok(()),
                Err(now) => word = now,
            }
        }
    }

    fn check(&self, used: Used, next: Used) -> Result<(), QuotaError> {
        let page = PAGE_LEN as u64;
        let max_records = self.quota.max_records + either(0, Bug::QuotaOffByOne, 1);
        let (resource, used, next, max) = if next.records > used.records.max(max_records) {
            (Resource::Records, used.records, next.records, self.quota.max_records)
        } else if next.pages > used.pages.max(self.quota.max_pages()) {
            let bytes = (used.pages * page, next.pages * page);
            (Resource::Bytes, bytes.0, bytes.1, self.quota.max_bytes)
        } else {
            return Ok(());
        };
        Err(QuotaError { resource, used, max, wanted: next - used })
    }

    /// So much is in use no more.
    fn give_back(&self, given: Used) {
        if given.word() != 0 {
            self.raise(Used::of(self.used.fetch_sub(given.word(), Ordering::Relaxed)));
        }
    }

    /// Raises the high-water marks. It is enough to do so with what was in use just before
    /// something is given back, and when somebody asks: growth pays nothing for them.
    fn raise(&self, used: Used) {
        raise(&self.records_high, used.records);
        raise(&self.pages_high, used.pages);
    }
}

/// What a change has reserved. Dropped when its pages are unlocked: if the change was made,
/// what it took away is given back, else what it was to add.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    usage: &'a Usage,
    growth: Growth,
    is_made: bool,
}

impl Reservation<'_> {
    /// Reserves what the change adds. Once.
    pub(crate) fn reserve(&mut self, growth: Growth) -> Result<(), QuotaError> {
        debug_assert_eq!(self.growth, Growth { records: 0, pages: 0 });
        self.usage.add(growth)?;
        self.growth = growth;
        Ok(())
    }

    /// The change is logged, and will be made.
    pub(crate) fn made(&mut self) {
        self.is_made = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.is_made {
            self.usage.commit(self.growth);
        } else {
            self.usage.release(self.growth);
        }
    }
}

/// Raises a high-water mark without writing to memory that others read, when it holds.
fn raise(mark: &AtomicU64, to: u64) {
    if mark.load(Ordering::Relaxed) < to {
        mark.fetch_max(to, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn refused_write_may_fit_once_what_was_kept_is_gone_and_not_before_anything_is() {
        let page = Growth { records: 1, pages: 1 };
        let usage = Usage::new(Quota::new().max_bytes(2 * PAGE_LEN as u64));
        usage.add(page).expect("the first of two");
        assert!(usage.keep());
        let refused = usage.add(page).expect_err("both are in use");
        assert!(usage.may_fit(&refused), "what is kept makes way");
        // Another thread drops it before this one has looked.
        usage.unkeep();
        assert!(usage.may_fit(&refused), "it has made way");
        usage.add(page).expect("the second of two");
        let refused = usage.add(page).expect_err("both are records'");
        assert!(!usage.may_fit(&refused));
    }
}
