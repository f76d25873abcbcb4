//! How many records and bytes a store may hold, and how many it holds.
//!
//! Owns one word: records and pages in use. A write reserves what it adds before it is logged,
//! and releases it if it fails: one atomic operation, no system call, and never above the limit
//! even for a moment. What a store does when it is full is decided elsewhere. Tested by
//! `engine/tests/quota.rs`.

use std::ops::Add;

use crate::faults;
use crate::sync::{AtomicU64, Ordering};
use crate::table::PAGE_LEN;

/// What happens to a write that would exceed the quota.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum OnExceed {
    /// The store refuses it with [`Error::Quota`](crate::Error::Quota).
    #[default]
    Reject,
    /// The store evicts records to make room, never persistent ones, nor those of the write
    /// itself: those that have expired, then the lightest of a sample, of equal weight the
    /// oldest. It logs the deletions like any other. A write that can't fit is refused before
    /// anything is deleted for it.
    ///
    /// A write that ends above [`Quota::clean_at`] evicts, too: a store of other than persistent
    /// records holds that part of its quota, by default 95 %. See
    /// [`QuotaStats::evicts_above_records`].
    Evict,
}

/// The most that a store may hold.
///
/// Memory is counted in pages of 4 KiB, which hold the records of 64 consecutive ids: a
/// record alone in its page counts as 4096 bytes. Pages that a
/// [`Snapshot`](crate::Snapshot) retains count, too, until records need their memory. The log's
/// ring does not count.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
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
    /// Returns the defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns a quota without limits: only ids and memory bound the store.
    pub fn unlimited() -> Self {
        Self::default().max_records(u64::MAX).max_bytes(u64::MAX)
    }

    /// Sets the most records. Default: 10,000,000.
    pub fn max_records(mut self, max_records: u64) -> Self {
        self.max_records = max_records;
        self
    }

    /// Sets the most bytes of pages, rounded down to whole pages. Default:
    /// 1,024,000,000.
    pub fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// Sets the part of either limit, from 0 to 1, above which [`QuotaStats::pressure`] is
    /// [`Pressure::Warning`]. Default: 0.8.
    pub fn warn_at(mut self, part: f64) -> Self {
        self.warn_at = part;
        self
    }

    /// Sets the part of either limit, from 0 to 1, above which it is [`Pressure::Cleanup`]; with
    /// [`OnExceed::Evict`] a write that ends above it evicts a few records, so that later ones
    /// need not wait for that. Default: 0.95.
    pub fn clean_at(mut self, part: f64) -> Self {
        self.clean_at = part;
        self
    }

    /// Sets what happens to a write that would exceed the quota. Default: [`OnExceed::Reject`].
    pub fn on_exceed(mut self, on_exceed: OnExceed) -> Self {
        self.on_exceed = on_exceed;
        self
    }

    /// Returns whether records may be evicted to make room.
    pub(crate) fn evicts(&self) -> bool {
        self.on_exceed == OnExceed::Evict
    }

    const fn max_pages(&self) -> u64 {
        self.max_bytes / PAGE_LEN as u64
    }

    #[expect(clippy::cast_precision_loss, reason = "a threshold is not an exact number")]
    fn is_above(&self, part: f64, used: Used) -> bool {
        let above = |used: u64, max: u64| used as f64 > max as f64 * part;
        above(used.records, self.max_records) || above(used.pages, self.max_pages())
    }

    /// Returns the most of a limit that a store which evicts keeps in use.
    #[expect(clippy::cast_precision_loss, reason = "a threshold is not an exact number")]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    fn evicts_above(&self, max: u64) -> u64 {
        let part = (max as f64 * self.clean_at) as u64;
        if self.evicts() { part.min(max) } else { max }
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
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Pressure {
    /// Below both thresholds.
    #[default]
    Normal,
    /// Above [`Quota::warn_at`].
    Warning,
    /// Above [`Quota::clean_at`].
    Cleanup,
}

/// What a quota limits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Resource {
    /// The number of records.
    Records,
    /// Bytes of pages.
    Bytes,
}

/// A write did not fit into the quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{used} of {max} {unit} are in use, {wanted} more don't fit", unit = self.unit())]
#[non_exhaustive]
pub struct QuotaError {
    /// What was short.
    pub resource: Resource,
    /// How much was in use.
    pub used: u64,
    /// The limit.
    pub max: u64,
    /// How much the write would have added.
    pub wanted: u64,
}

impl QuotaError {
    /// Returns whether the write can't fit, however much makes way for it.
    pub(crate) const fn is_final(&self) -> bool {
        self.wanted > self.max
    }

    /// Returns how many records, or pages, must go before the write fits.
    pub(crate) fn missing(&self) -> u64 {
        let missing = self.used.saturating_add(self.wanted).saturating_sub(self.max);
        match self.resource {
            Resource::Records => missing,
            Resource::Bytes => missing.div_ceil(PAGE_LEN as u64),
        }
    }

    const fn unit(&self) -> &'static str {
        match self.resource {
            Resource::Records => "records",
            Resource::Bytes => "bytes",
        }
    }
}

/// Statistics of a store's quota.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct QuotaStats {
    /// Records in use, including those of writes in progress.
    pub records: u64,
    /// The most records allowed.
    pub max_records: u64,
    /// The records above which a write evicts others, with [`OnExceed::Evict`].
    pub evicts_above_records: u64,
    /// The most records in use at once since the store opened.
    pub records_high: u64,
    /// Bytes of the pages in use, including those that snapshots retain.
    pub bytes: u64,
    /// Bytes of the pages that snapshots retain.
    pub retained_bytes: u64,
    /// The most bytes allowed.
    pub max_bytes: u64,
    /// The bytes above which a write evicts other pages, with [`OnExceed::Evict`].
    pub evicts_above_bytes: u64,
    /// The most bytes in use at once since the store opened.
    pub bytes_high: u64,
    /// Writes that were refused.
    pub rejected: u64,
    /// Records that were evicted to make room.
    pub evicted: u64,
    /// Records that were deleted because their time had come.
    pub expired: u64,
    /// How near the quota is, without the pages that snapshots retain.
    pub pressure: Pressure,
}

/// What is in use, against a quota.
#[derive(Debug)]
pub(crate) struct Usage {
    quota: Quota,
    /// Records in the lower half, pages in the upper. There are fewer than 2^32 of either: the
    /// table has 2^26 pages, and each snapshot retains at most as many.
    used: AtomicU64,
    /// Pages of them that snapshots retain, or are about to retain.
    retained: AtomicU64,
    records_high: AtomicU64,
    pages_high: AtomicU64,
    rejected: AtomicU64,
    pub(crate) evicted: AtomicU64,
    pub(crate) expired: AtomicU64,
}

#[derive(Clone, Copy, Default)]
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

impl Add for Used {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { records: self.records + other.records, pages: self.pages + other.pages }
    }
}

/// What a change adds to records and pages in use; negative where it takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
            retained: AtomicU64::new(0),
            records_high: AtomicU64::new(0),
            pages_high: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    pub(crate) const fn quota(&self) -> &Quota {
        &self.quota
    }

    pub(crate) fn records(&self) -> u64 {
        self.load().records
    }

    /// Returns a reservation of nothing yet.
    pub(crate) fn reservation(&self) -> Reservation<'_> {
        Reservation { usage: self, growth: Growth { records: 0, pages: 0 }, is_made: false }
    }

    /// Counts what a checkpoint holds, or what replay has added to that, whether it fits or not:
    /// no quota refuses what was logged. The high-water marks begin there.
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

    /// Returns how many records, and how many pages, must go before a change fits.
    pub(crate) fn missing(&self, growth: Growth) -> (u64, u64) {
        let next = self.load() + growth.added();
        let records = next.records.saturating_sub(self.quota.max_records);
        (records, next.pages.saturating_sub(self.quota.max_pages()))
    }

    /// Releases what a change that was made took away.
    fn commit(&self, growth: Growth) {
        self.subtract(faults::quota::taken_away(growth.taken_away()));
    }

    /// Releases what a change that was not made would have added.
    fn release(&self, growth: Growth) {
        self.subtract(faults::quota::refused(growth.added()));
    }

    /// Reserves a page for a snapshot to retain; returns `false` if it does not fit.
    pub(crate) fn retain_page(&self) -> bool {
        // Counted first and subtracted last: where none is counted, none uses memory.
        self.retained.fetch_add(1, Ordering::Relaxed);
        let fits = self.add(Growth { records: 0, pages: 1 }).is_ok();
        if !fits {
            self.retained.fetch_sub(1, Ordering::Relaxed);
        }
        fits
    }

    /// Releases a page that no snapshot retains any longer.
    pub(crate) fn release_page(&self) {
        self.subtract(faults::quota::released_page(Used { records: 0, pages: 1 }));
        // Release pairs with the Acquire in `may_fit`: a thread that sees the page gone sees the
        // memory free, too.
        self.retained.fetch_sub(1, Ordering::Release);
    }

    /// Returns whether a refused write could fit now because of pages that were retained then.
    pub(crate) fn may_fit(&self, refused: &QuotaError) -> bool {
        // With the Acquire in `add` there is no moment at which a thread sees neither the page
        // retained nor its memory free.
        refused.resource == Resource::Bytes
            && (self.retained.load(Ordering::Acquire) > 0 || self.stats().bytes < refused.used)
    }

    pub(crate) fn reject(&self) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns whether so much is in use that a few records should be evicted.
    pub(crate) fn wants_eviction(&self) -> bool {
        self.quota.evicts() && self.quota.is_above(self.quota.clean_at, self.of_records())
    }

    /// Returns what is above the threshold: the records if they alone are, else the pages.
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
            evicts_above_records: self.quota.evicts_above(self.quota.max_records),
            records_high: self.records_high.load(Ordering::Relaxed),
            bytes: bytes(used.pages),
            retained_bytes: bytes(self.retained.load(Ordering::Relaxed)),
            max_bytes: self.quota.max_bytes,
            evicts_above_bytes: bytes(self.quota.evicts_above(self.quota.max_pages())),
            bytes_high: bytes(self.pages_high.load(Ordering::Relaxed)),
            rejected: self.rejected.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
            expired: self.expired.load(Ordering::Relaxed),
            pressure: self.quota.pressure(self.of_records()),
        }
    }

    fn load(&self) -> Used {
        Used::of(self.used.load(Ordering::Relaxed))
    }

    /// Returns what records use, without retained pages. A page that a snapshot is about to retain
    /// may be subtracted twice.
    fn of_records(&self) -> Used {
        let used = self.load();
        let retained = self.retained.load(Ordering::Relaxed);
        Used { pages: used.pages.saturating_sub(retained), ..used }
    }

    // Relaxed would keep the number exact. Release and Acquire pair with each other: a write that
    // is refused because of a retained page sees that one is retained, see `may_fit`.
    fn add(&self, growth: Growth) -> Result<(), QuotaError> {
        let added = growth.added();
        if added.word() == 0 {
            return Ok(());
        }
        let mut word = self.used.load(Ordering::Acquire);
        loop {
            let used = Used::of(word);
            let next = used + added;
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
        let max_records = faults::quota::max_records(self.quota.max_records);
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

    /// Subtracts what is no longer in use.
    fn subtract(&self, released: Used) {
        if released.word() != 0 {
            self.raise(Used::of(self.used.fetch_sub(released.word(), Ordering::Relaxed)));
        }
    }

    /// Raises the high-water marks. It suffices to do so with what was in use just before a
    /// decrease, and when the statistics are read: growth pays nothing for them.
    fn raise(&self, used: Used) {
        raise(&self.records_high, used.records);
        raise(&self.pages_high, used.pages);
    }
}

/// What a change has reserved. Dropped when its pages are unlocked: it then releases what a
/// change that was made took away, or what one that was not made would have added.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    usage: &'a Usage,
    growth: Growth,
    is_made: bool,
}

impl Reservation<'_> {
    /// Reserves what the change adds. Called once.
    pub(crate) fn reserve(&mut self, growth: Growth) -> Result<(), QuotaError> {
        debug_assert_eq!(self.growth, Growth { records: 0, pages: 0 });
        self.usage.add(growth)?;
        self.growth = growth;
        Ok(())
    }

    /// Notes that the change is logged, and will be made.
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
    fn refused_write_may_fit_once_a_retained_page_is_freed_and_never_without_one() {
        let page = Growth { records: 1, pages: 1 };
        let usage = Usage::new(Quota::new().max_bytes(2 * PAGE_LEN as u64));
        usage.add(page).expect("the first of two");
        assert!(usage.retain_page());
        let refused = usage.add(page).expect_err("both are in use");
        assert!(usage.may_fit(&refused), "the retained page can be freed");
        // Another thread drops it before this one has checked.
        usage.release_page();
        assert!(usage.may_fit(&refused), "it was freed");
        usage.add(page).expect("the second of two");
        let refused = usage.add(page).expect_err("both are records'");
        assert!(!usage.may_fit(&refused));
    }
}
