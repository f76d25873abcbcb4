//! Which records to evict first, and what is known of those that expire.

use std::cmp::Ordering as Order;

use crate::quota::Resource;
use crate::record::Record;
use crate::state::decode;
use crate::sync::{AtomicU64, Ordering};
use crate::table::{Found, PageId, TableOp};

/// Writes that skip eviction after one that found nothing to evict.
const BACKOFF: u64 = 1_000;

/// The records of one page, each with its priority.
pub(super) type RankedPage = Vec<(Priority, Found)>;

/// What is known of records that may be evicted or that expire.
#[derive(Debug)]
pub(super) struct Evictor {
    /// No record expires before this time (ms since 1970).
    pub(super) next_due: AtomicU64,
    random: AtomicU64,
    /// Where the walk in order continues.
    pub(super) cursor: AtomicU64,
    backoff: AtomicU64,
}

impl Evictor {
    pub(super) fn new() -> Self {
        // Nothing is known yet of records that were replayed: the first pass finds out.
        let zero = || AtomicU64::new(0);
        Self { next_due: zero(), random: zero(), cursor: zero(), backoff: zero() }
    }

    /// Notes that a record expires at this time (0: never).
    pub(super) fn expires(&self, at: u64) {
        if at != 0 {
            // Release pairs with the Acquire of `delete_due`, which then sees the record.
            self.next_due.fetch_min(at, Ordering::Release);
        }
    }

    /// Returns a random number, by Steele, Lea and Flood's `SplitMix64`.
    pub(super) fn random(&self) -> u64 {
        let mut bits = self.random.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    /// Returns whether this write skips eviction because an earlier one found nothing to evict.
    pub(super) fn backs_off(&self) -> bool {
        let less = |left: u64| left.checked_sub(1);
        self.backoff.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    /// Sets whether the next writes skip eviction: they do if none was `found`.
    pub(super) fn set_backoff(&self, found: bool) {
        let writes = if found { 0 } else { BACKOFF };
        self.backoff.store(writes, Ordering::Relaxed);
    }
}

/// Ranks the records of a page.
pub(super) fn rank<R: Record>(copies: &[Found]) -> RankedPage {
    let ranked = |found: &Found| {
        let record: R = decode(found.record)?;
        let priority = Priority {
            is_persistent: record.is_persistent(),
            weight: record.weight(),
            timestamp: record.timestamp().unwrap_or(0),
        };
        Some((priority, *found))
    };
    copies.iter().filter_map(ranked).collect()
}

/// Removes what may not be evicted: persistent records and those that stay; to free bytes,
/// pages with one.
pub(super) fn filter(pages: &mut Vec<RankedPage>, resource: Resource, stays: &Stays) {
    let may_go = |(priority, found): &(Priority, Found)| {
        !priority.is_persistent && !stays.contains(found.id)
    };
    match resource {
        Resource::Records => {
            pages.iter_mut().for_each(|page| page.retain(may_go));
            pages.retain(|page| !page.is_empty());
        }
        Resource::Bytes => pages.retain(|page| {
            let first = page.first();
            first.is_some_and(|(_, found)| !stays.touches_page_of(found.id))
                && page.iter().all(may_go)
        }),
    }
}

/// The records of a write: no eviction for that write takes them.
#[derive(Debug)]
pub(super) struct Stays {
    /// In order.
    ids: Vec<u32>,
}

impl Stays {
    pub(super) fn new(ops: &[TableOp<'_>]) -> Self {
        let mut ids: Vec<_> = ops.iter().map(TableOp::id).collect();
        ids.sort_unstable();
        Self { ids }
    }

    pub(super) fn contains(&self, id: u32) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// Returns whether the write needs the page of an id.
    fn touches_page_of(&self, id: u32) -> bool {
        self.ids.binary_search_by_key(&PageId::of(id), |id| PageId::of(*id)).is_ok()
    }
}

/// How much a record is worth keeping: by weight, then by time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Priority {
    is_persistent: bool,
    weight: f32,
    timestamp: u32,
}

impl Ord for Priority {
    fn cmp(&self, other: &Self) -> Order {
        self.weight.total_cmp(&other.weight).then(self.timestamp.cmp(&other.timestamp))
    }
}

impl PartialOrd for Priority {
    fn partial_cmp(&self, other: &Self) -> Option<Order> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Priority {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Order::Equal
    }
}

impl Eq for Priority {}
