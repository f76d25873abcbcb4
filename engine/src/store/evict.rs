//! Eviction: of records whose time has come and, in a full store, of the least valuable ones;
//! and of page versions that snapshots retain.
//!
//! Owns the choice. A record that is chosen is deleted as by any user: if it is still what was
//! chosen, and by an entry in the log, so that replay needs no policy.

use bulla_wal::Level;

use super::Store;
use super::commit::WriteRequest;
use super::priority::{Evictor, Priority, RankedPage, Stays, filter, rank};
use crate::entries::DELETE;
use crate::error::Result;
use crate::faults::{self, Step, pass};
use crate::quota::{Growth, QuotaError, Resource};
use crate::record::Record;
use crate::state::{LOAD_THREADS, decode};
use crate::sync::Ordering;
use crate::table::{Found, PageId, TableOp, index};

/// How often a write makes room for itself in vain because others take it.
const MAX_VAIN_ATTEMPTS: u64 = 100;
/// Records that one eviction deletes at most.
const BATCH: usize = 64;
/// One eviction deletes at most this part of the records that the store may hold.
const PART: u64 = 16;
/// A sample of pages for the lightest records: this many runs, each of this many pages.
const SAMPLE_RUNS: usize = 4;
const SAMPLE_RUN_PAGES: usize = 4;
/// Pages that are searched in order when the sample has nothing to evict.
const WALK_PAGES: usize = 256;

/// A pass over the records that expire. Only an error or a panic drops it.
struct Pass<'a>(&'a Evictor);

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        // Some were not visited: the next pass visits them.
        self.0.next_due.store(0, Ordering::Relaxed);
    }
}

impl<R: Record> Store<R> {
    /// Deletes records whose time has come, at most `limit`; returns how many it deleted.
    ///
    /// Until then they are there: a store reads the clock only here and when it is full. The
    /// deletions are logged at the level Relaxed; [`sync`](Self::sync) makes them durable. Costs
    /// nothing while none is due.
    ///
    /// # Errors
    /// As [`Begin::delete`](crate::Begin::delete); what was deleted before stays deleted.
    pub fn expire_due(&self, limit: usize) -> Result<usize> {
        let expired = self.state.panics.watch(|| self.delete_due(limit, |_| true))?;
        self.state.usage.expired.fetch_add(expired as u64, Ordering::Relaxed);
        Ok(expired)
    }

    /// Evicts records for a write that was refused, no more than it needs; returns `false` if
    /// it can't have room. `attempts` are those that are left to the write, `None` before the
    /// first: then it deletes nothing unless enough may go, and the log takes the write.
    pub(super) fn make_room(
        &self,
        (refused, growth): (&QuotaError, Growth),
        request: WriteRequest<'_>,
        attempts: &mut Option<u64>,
    ) -> Result<bool> {
        if !self.state.usage.quota().evicts() {
            return Ok(false);
        }
        let missing = refused.missing();
        let stays = Stays::new(request.ops);
        let left = match *attempts {
            Some(left) => left,
            None => {
                self.log.check_batch(request.entries)?;
                if !self.has_evictable(self.state.usage.missing(growth), &stays)? {
                    return Ok(false);
                }
                // Each one that is not in vain deletes something.
                missing.saturating_add(MAX_VAIN_ATTEMPTS)
            }
        };
        *attempts = left.checked_sub(1);
        Ok(attempts.is_some() && self.evict(refused.resource, missing, &stays)?)
    }

    /// Returns whether at least that many records and pages of them may go. A single one is not
    /// looked for: the eviction itself finds it, or deletes nothing.
    fn has_evictable(&self, (records, pages): (u64, u64), stays: &Stays) -> Result<bool> {
        if records + pages <= 1 {
            return Ok(true);
        }
        Ok(self.has(Resource::Records, records, stays)?
            && self.has(Resource::Bytes, pages, stays)?)
    }

    fn has(&self, resource: Resource, count: u64, stays: &Stays) -> Result<bool> {
        if count == 0 {
            return Ok(true);
        }
        self.state.load_all(LOAD_THREADS)?;
        let mut copies = Vec::with_capacity(BATCH);
        let mut from = Some(PageId::FIRST);
        let mut found = 0;
        while let Some(page) = from.and_then(|from| self.state.table.copy_from(from, &mut copies)) {
            let mut pages = vec![rank::<R>(&copies)];
            filter(&mut pages, resource, stays);
            found += match resource {
                Resource::Records => pages.iter().map(|page| page.len() as u64).sum(),
                Resource::Bytes => pages.len() as u64,
            };
            if found >= count {
                return Ok(true);
            }
            from = page.next();
        }
        Ok(false)
    }

    /// Evicts at most `limit` records (or a page of them) to make room, but for those that
    /// stay; returns `false` if none may go. Another thread may have deleted those that it chose
    /// before: then there was room at some moment.
    fn evict(&self, resource: Resource, limit: u64, stays: &Stays) -> Result<bool> {
        // The choice is among all records.
        self.state.load_all(LOAD_THREADS)?;
        let may_go = |found: &Found| {
            !stays.contains(found.id)
                && decode::<R>(found.record)
                    .is_some_and(|r| faults::evict::may_go(!r.is_persistent()))
        };
        let mut evicted = self.delete_due(BATCH, may_go)?;
        let mut found = evicted > 0;
        // Records that expired may leave their pages in use.
        if evicted == 0 || resource == Resource::Bytes {
            let victims = self.victims(resource, limit, stays);
            found |= !victims.is_empty();
            pass(Step::Chosen);
            for victim in victims {
                evicted += usize::from(self.delete_found(&victim)?);
            }
        }
        self.state.usage.evicted.fetch_add(evicted as u64, Ordering::Relaxed);
        self.evictor.set_backoff(found);
        Ok(found)
    }

    /// Evicts a few records when the store is nearly full and may evict, but none that the
    /// write that led here has just put.
    pub(super) fn evict_ahead(&self, ops: &[TableOp<'_>]) {
        if self.state.usage.wants_eviction() && !self.evictor.backs_off() {
            // The write is made. A log that fails fails the next one.
            let _ = self.evict(self.state.usage.scarce(), BATCH as u64, &Stays::new(ops));
        }
    }

    /// Frees page versions that snapshots retain, after a write that did not fit; returns
    /// whether it may fit now. The caller has locked no page.
    pub(super) fn free_retained(&self, refused: &QuotaError) -> bool {
        let may_fit = self.state.usage.may_fit(refused);
        if may_fit && !self.state.views.free_one() {
            // Another thread is just about to retain a page, or to drop one.
            std::thread::yield_now();
        }
        may_fit
    }

    /// Deletes a record if it is still what was found, at the level Relaxed.
    fn delete_found(&self, found: &Found) -> Result<bool> {
        let id = found.id;
        let request = WriteRequest {
            entries: &[(DELETE, &id.to_le_bytes())],
            ops: &[TableOp::Delete(id)],
            level: Level::Relaxed,
            reads: None,
        };
        let deleted = faults::evict::delete(self, &[PageId::of(id)], request, |guards| {
            guards[0].read(index(id)) == Some(found.record)
                && guards[0].expiry(index(id)) == found.expiry
        })?;
        Ok(deleted.is_some())
    }

    fn delete_due(&self, limit: usize, may_go: impl Fn(&Found) -> bool) -> Result<usize> {
        let now = self.now_ms();
        if self.evictor.next_due.load(Ordering::Relaxed) > now {
            return Ok(0);
        }
        // A time that is set from here on lowers it again.
        self.evictor.next_due.swap(u64::MAX, Ordering::Acquire);
        let pass_over = Pass(&self.evictor);
        pass(Step::DueForgotten);
        let deleted = self.delete_before(now, limit, may_go)?;
        std::mem::forget(pass_over);
        Ok(deleted)
    }

    /// Visits every record that expires: deletes it, or notes when it will expire.
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
                if !at.shares_slab_with(slab) {
                    break;
                }
                for found in page.iter().filter(|found| found.expiry != 0) {
                    if found.expiry <= now && deleted < limit && may_go(found) {
                        deleted += usize::from(self.delete_found(found)?);
                    } else {
                        self.evictor.expires(faults::evict::later_expiry(found.expiry));
                    }
                }
                from = at.next();
            }
        }
        Ok(deleted)
    }

    /// Returns at most `limit` records that may go, those with the lowest priority first.
    fn victims(&self, resource: Resource, limit: u64, stays: &Stays) -> Vec<Found> {
        let mut pages = self.sample();
        filter(&mut pages, resource, stays);
        if pages.is_empty() {
            pages = self.walk(resource, stays);
        }
        match resource {
            Resource::Records => {
                let mut all: Vec<_> = pages.into_iter().flatten().collect();
                all.sort_unstable_by_key(|(priority, _)| *priority);
                all.truncate(self.batch().min(usize::try_from(limit).unwrap_or(BATCH)));
                all.into_iter().map(|(_, found)| found).collect()
            }
            Resource::Bytes => {
                // The page whose best record has the lowest priority.
                let best = |page: &RankedPage| -> Option<Priority> {
                    page.iter().map(|(priority, _)| *priority).max()
                };
                let worst = pages.into_iter().min_by_key(best).unwrap_or_default();
                worst.into_iter().map(|(_, found)| found).collect()
            }
        }
    }

    fn batch(&self) -> usize {
        let part = self.state.usage.stats().max_records / PART;
        usize::try_from(part).unwrap_or(BATCH).clamp(1, BATCH)
    }

    /// Returns runs of pages from random places on, each page once. Runs, because an empty place
    /// leads to the page after it, which a sample of single pages would take again and again.
    fn sample(&self) -> Vec<RankedPage> {
        let table = &self.state.table;
        let slabs = table.slabs(false);
        let mut taken: Vec<PageId> = Vec::with_capacity(SAMPLE_RUNS * SAMPLE_RUN_PAGES);
        let mut pages = Vec::with_capacity(SAMPLE_RUNS * SAMPLE_RUN_PAGES);
        let mut copies = Vec::new();
        for _ in 0..SAMPLE_RUNS {
            let random = self.evictor.random();
            #[expect(clippy::cast_possible_truncation, reason = "below a length")]
            let Some(slab) = slabs.get((random % slabs.len().max(1) as u64) as usize) else {
                break;
            };
            let mut from = slab.wrapping_add(random >> 32);
            for _ in 0..SAMPLE_RUN_PAGES {
                let page = table.copy_from(from, &mut copies);
                let page = page.or_else(|| table.copy_from(PageId::FIRST, &mut copies));
                let Some(page) = page else { break };
                if !taken.contains(&page) {
                    taken.push(page);
                    pages.push(rank::<R>(&copies));
                }
                from = page.next().unwrap_or(PageId::FIRST);
            }
        }
        pages
    }

    /// Searches the next pages in order, up to the first with a record that may go.
    fn walk(&self, resource: Resource, stays: &Stays) -> Vec<RankedPage> {
        let mut copies = Vec::new();
        #[expect(clippy::cast_possible_truncation, reason = "the id of a page")]
        let mut from = PageId::of(self.evictor.cursor.load(Ordering::Relaxed) as u32);
        let mut first = None;
        let mut ends = 0;
        for _ in 0..WALK_PAGES {
            let page = self.state.table.copy_from(from, &mut copies);
            ends += u32::from(page.is_none());
            // Once around a small store is enough.
            if ends > 1 || page.is_some() && page == first {
                break;
            }
            first = first.or(page);
            from = page.and_then(PageId::next).unwrap_or(PageId::FIRST);
            self.evictor.cursor.store(from.first_id().into(), Ordering::Relaxed);
            let mut pages = vec![rank::<R>(&copies)];
            filter(&mut pages, resource, stays);
            if !pages.is_empty() {
                return pages;
            }
        }
        Vec::new()
    }
}
