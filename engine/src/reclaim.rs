//! What goes by itself: records whose time has come, and, in a store that is full, those
//! that are worth least.
//!
//! Owns the choice. Everything chosen is deleted like by any user: if it is still what was
//! chosen, and by an entry in the log, so that replay needs no policy.

use std::cmp::Ordering as Order;

use bulla_storage::faults::mutants::{Bug, planted};

use crate::error::Result;
use crate::quota::Resource;
use crate::record::Record;
use crate::steps::{Step, pass};
use crate::store::{LOAD_THREADS, Store, decode};
use crate::sync::{AtomicU64, Ordering};
use crate::table::{Found, PageId};

/// Records that make way at a time, in a store that is large enough.
const BATCH: usize = 64;
/// A store gives up at most this part of what it may hold at a time.
const PART: u64 = 16;
/// Pages that are looked at for the lightest records: so many runs of so many.
const SAMPLE_RUNS: usize = 4;
const SAMPLE_RUN_PAGES: usize = 4;
/// Pages that are looked at in order when the sample has nothing that may go.
const WALK_PAGES: usize = 256;
/// Writes above the threshold that don't look again after one that found nothing.
const REST: u64 = 1_000;

/// What is known of records that may go.
#[derive(Debug)]
pub(crate) struct Reclaimer {
    /// No record expires before this time (ms since 1970).
    next_due: AtomicU64,
    random: AtomicU64,
    /// Where the walk in order goes on.
    cursor: AtomicU64,
    rest: AtomicU64,
}

impl Reclaimer {
    pub(crate) fn new() -> Self {
        // Of records that were replayed nothing is known yet: the first look will tell.
        let zero = || AtomicU64::new(0);
        Self { next_due: zero(), random: zero(), cursor: zero(), rest: zero() }
    }

    /// A record will expire at this time (0: never).
    pub(crate) fn expires(&self, at: u64) {
        if at != 0 {
            // Release pairs with the Acquire of `delete_due`, which then sees the record.
            self.next_due.fetch_min(at, Ordering::Release);
        }
    }

    /// Steele, Lea and Flood's `SplitMix64`.
    fn random(&self) -> u64 {
        let mut bits = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Is it this write's turn to look for what may go?
    fn is_rested(&self) -> bool {
        let less = |rest: u64| rest.checked_sub(1);
        self.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_err()
    }
}

/// A look at what expires, dropped only if it fails or panics.
struct Look<'a>(&'a Reclaimer);

impl Drop for Look<'_> {
    fn drop(&mut self) {
        // Some were not looked at: the next look will.
        self.0.next_due.store(0, Ordering::Relaxed);
    }
}

impl<R: Record> Store<R> {
    /// Deletes records whose time has come, at most `limit`; gives how many it deleted.
    ///
    /// Until then they are there: a store reads no clock but here and when it is full. The
    /// deletions are logged at the level Relaxed; [`sync`](Self::sync) makes them
    /// durable. Costs nothing while none is due.
    ///
    /// # Errors
    /// As [`delete_async`](Self::delete_async); what was deleted before stays deleted.
    pub fn expire_due(&self, limit: usize) -> Result<usize> {
        let expired = self.state.panics.watch(|| self.delete_due(limit, |_| true))?;
        self.state.usage.expired.fetch_add(expired as u64, Ordering::Relaxed);
        Ok(expired)
    }

    /// Deletes records to make room; `false` if none may go. Those that it chose may have been
    /// deleted by another thread before: then there was room at some moment.
    pub(crate) fn reclaim(&self, resource: Resource) -> Result<bool> {
        if !self.state.usage.quota().reclaims() {
            return Ok(false);
        }
        // What may go is chosen among all.
        self.state.load_all(LOAD_THREADS)?;
        let may_go = |found: &Found| {
            decode::<R>(found.record)
                .is_some_and(|r| !r.is_persistent() || planted(Bug::ReclaimTakesPersistent))
        };
        let mut reclaimed = self.delete_due(BATCH, may_go)?;
        let mut found = reclaimed > 0;
        // Records that expired may leave their pages in use.
        if reclaimed == 0 || resource == Resource::Bytes {
            let victims = self.victims(resource);
            found |= !victims.is_empty();
            pass(Step::Chosen);
            for victim in victims {
                reclaimed += usize::from(self.delete_found(&victim)?);
            }
        }
        self.state.usage.reclaimed.fetch_add(reclaimed as u64, Ordering::Relaxed);
        let rest = if found { 0 } else { REST };
        self.reclaimer.rest.store(rest, Ordering::Relaxed);
        Ok(found)
    }

    /// Deletes a few records when the store is nearly full and may do so.
    pub(crate) fn relieve(&self) {
        if self.state.usage.wants_cleanup() && self.reclaimer.is_rested() {
            // The write that brought us here is made. A log that fails will tell the next.
            let _ = self.reclaim(self.state.usage.scarce());
        }
    }

    fn delete_due(&self, limit: usize, may_go: impl Fn(&Found) -> bool) -> Result<usize> {
        let now = self.now_ms();
        if self.reclaimer.next_due.load(Ordering::Relaxed) > now {
            return Ok(0);
        }
        // What is set from here on lowers it again.
        self.reclaimer.next_due.swap(u64::MAX, Ordering::Acquire);
        let look = Look(&self.reclaimer);
        pass(Step::DueForgotten);
        let deleted = self.delete_before(now, limit, may_go)?;
        std::mem::forget(look);
        Ok(deleted)
    }

    /// Looks at every record that expires: deletes it, or takes down when it will.
    fn delete_before(
        &self,
        now: u64,
        limit: usize,
        may_go: impl Fn(&Found) -> bool,
    ) -> Result<usize> {
        self.state.load_expiring()?;
        let mut deleted = 0;
        let mut page = Vec::with_capacity(BATCH);
        for slab in self.state.table.slabs(true) {
            let mut from = Some(slab);
            while let Some(at) = from.and_then(|from| self.state.table.copy_from(from, &mut page)) {
                if !at.is_beside(slab) {
                    break;
                }
                for found in page.iter().filter(|found| found.expiry != 0) {
                    if found.expiry <= now && deleted < limit && may_go(found) {
                        deleted += usize::from(self.delete_found(found)?);
                    } else if !planted(Bug::LaterExpiryForgotten) {
                        self.reclaimer.expires(found.expiry);
                    }
                }
                from = at.next();
            }
        }
        Ok(deleted)
    }

    /// Records that may go, those first that are worth least.
    fn victims(&self, resource: Resource) -> Vec<Found> {
        let mut pages = self.sample();
        sift(&mut pages, resource);
        if pages.is_empty() {
            pages = self.walk(resource);
        }
        match resource {
            Resource::Records => {
                let mut all: Vec<_> = pages.into_iter().flatten().collect();
                all.sort_unstable_by_key(|(worth, _)| *worth);
                all.truncate(self.batch());
                all.into_iter().map(|(_, found)| found).collect()
            }
            Resource::Bytes => {
                // The page whose best record is worth least.
                let best = |page: &Vec<(Worth, Found)>| page.iter().map(|(worth, _)| *worth).max();
                let worst = pages.into_iter().min_by_key(best).unwrap_or_default();
                worst.into_iter().map(|(_, found)| found).collect()
            }
        }
    }

    fn batch(&self) -> usize {
        let part = self.state.usage.stats().max_records / PART;
        usize::try_from(part).unwrap_or(BATCH).clamp(1, BATCH)
    }

    /// Runs of pages from random places on, each page once. Runs, because a place where
    /// nothing is stands for the page after it, which would be taken again and again.
    fn sample(&self) -> Vec<Vec<(Worth, Found)>> {
        let table = &self.state.table;
        let slabs = table.slabs(false);
        let mut taken: Vec<PageId> = Vec::with_capacity(SAMPLE_RUNS * SAMPLE_RUN_PAGES);
        let mut pages = Vec::with_capacity(SAMPLE_RUNS * SAMPLE_RUN_PAGES);
        let mut copies = Vec::new();
        for _ in 0..SAMPLE_RUNS {
            let random = self.reclaimer.random();
            #[expect(clippy::cast_possible_truncation, reason = "below a length")]
            let Some(slab) = slabs.get((random % slabs.len().max(1) as u64) as usize) else {
                break;
            };
            let mut from = slab.around(random >> 32);
            for _ in 0..SAMPLE_RUN_PAGES {
                let page = table.copy_from(from, &mut copies);
                let page = page.or_else(|| table.copy_from(PageId::of(0), &mut copies));
                let Some(page) = page else { break };
                if !taken.contains(&page) {
                    taken.push(page);
                    pages.push(valued::<R>(&copies));
                }
                from = page.next().unwrap_or(PageId::of(0));
            }
        }
        pages
    }

    /// The next pages in order, up to the first with a record that may go.
    fn walk(&self, resource: Resource) -> Vec<Vec<(Worth, Found)>> {
        let mut copies = Vec::new();
        #[expect(clippy::cast_possible_truncation, reason = "the id of a page")]
        let mut from = PageId::of(self.reclaimer.cursor.load(Ordering::Relaxed) as u32);
        for _ in 0..WALK_PAGES {
            let page = self.state.table.copy_from(from, &mut copies);
            from = page.and_then(PageId::next).unwrap_or(PageId::of(0));
            self.reclaimer.cursor.store(from.first_id().into(), Ordering::Relaxed);
            let mut pages = vec![valued::<R>(&copies)];
            sift(&mut pages, resource);
            if !pages.is_empty() {
                return pages;
            }
        }
        Vec::new()
    }
}

/// Leaves out what may not go: persistent records; to free bytes, pages with one.
fn sift(pages: &mut Vec<Vec<(Worth, Found)>>, resource: Resource) {
    if resource == Resource::Records {
        for page in pages.iter_mut() {
            page.retain(|(worth, _)| !worth.is_persistent);
        }
    }
    pages.retain(|page| !page.is_empty() && page.iter().all(|(worth, _)| !worth.is_persistent));
}

fn valued<R: Record>(copies: &[Found]) -> Vec<(Worth, Found)> {
    let worth = |found: &Found| {
        let record: R = decode(found.record)?;
        let worth = Worth {
            is_persistent: record.is_persistent(),
            weight: record.weight(),
            timestamp: record.timestamp().unwrap_or(0),
        };
        Some((worth, *found))
    };
    copies.iter().filter_map(worth).collect()
}

/// What a record is worth: by weight, then by time.
#[derive(Clone, Copy, Debug)]
struct Worth {
    is_persistent: bool,
    weight: f32,
    timestamp: u32,
}

impl Ord for Worth {
    fn cmp(&self, other: &Self) -> Order {
        self.weight.total_cmp(&other.weight).then(self.timestamp.cmp(&other.timestamp))
    }
}

impl PartialOrd for Worth {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Worth {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Worth {}
