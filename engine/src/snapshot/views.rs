//! Views: positions in the log for which page versions are retained.
//!
//! Owns the live views and the page versions that they retain. A view begins as a position: a
//! page whose last change is before it is still as the view has it. A writer that is about to
//! change such a page retains a copy for the view, once. Views know nothing of records and
//! quotas, and never make a writer wait for a reader. Tested by `engine/tests/snapshot.rs` and
//! by the loom models in `engine/tests/loom.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::faults::{Step, pass};
use crate::sync::{
    AtomicBool, AtomicU64, Mutex, Ordering, RwLock, RwLockWriteGuard, lock, read, write,
};

/// The most views that live at once.
pub(crate) const MAX_VIEWS: usize = 16;
/// Parts of a view's pages, so that writers of different pages seldom contend.
const SHARDS: u32 = 16;
/// The position of a view that is being taken.
const UNKNOWN: u64 = u64::MAX;

/// The live views; `P` is a copy of a page.
#[derive(Debug)]
pub(crate) struct Views<P> {
    /// The position of the newest, 0 when there is none.
    newest: AtomicU64,
    /// In order of their positions.
    live: RwLock<Vec<Arc<View<P>>>>,
}

/// What is retained for one position.
#[derive(Debug)]
pub(crate) struct View<P> {
    lsn: u64,
    has_expired: AtomicBool,
    /// By the page's first id.
    shards: [Mutex<BTreeMap<u32, Arc<P>>>; SHARDS as usize],
}

impl<P> Views<P> {
    pub(crate) fn new() -> Self {
        Self { newest: AtomicU64::new(0), live: RwLock::new(Vec::new()) }
    }

    pub(crate) fn len(&self) -> usize {
        read(&self.live).len()
    }

    /// Takes a view as of the position that `cut` returns; returns `None` when there are
    /// [`MAX_VIEWS`]. Every change is logged either before that position or at or after it, and
    /// a thread that logs one at or after it sees what this thread did before `cut`.
    pub(crate) fn take(&self, cut: impl FnOnce() -> u64) -> Option<Arc<View<P>>> {
        let mut changing = self.change();
        if changing.live.len() == MAX_VIEWS {
            return None;
        }
        // A writer that logs at or after the cut sees this, or what is stored later, and retains
        // what it changes. It waits for this lock, which is held for this moment only.
        self.newest.store(UNKNOWN, Ordering::Relaxed);
        pass(Step::Announced);
        let view = Arc::new(View::new(cut()));
        pass(Step::Truncation);
        changing.live.push(Arc::clone(&view));
        Some(view)
    }

    /// Ends a view, and drops what it retained.
    pub(crate) fn end(&self, view: &Arc<View<P>>) {
        self.change().live.retain(|live| !Arc::ptr_eq(live, view));
        pass(Step::Ended);
        view.expire();
        view.clear();
    }

    fn change(&self) -> Changing<'_, P> {
        Changing { newest: &self.newest, live: write(&self.live) }
    }

    /// Returns whether a view may need the page whose last change is at `last` before its next.
    #[inline]
    pub(crate) fn may_need(&self, last: u64) -> bool {
        // Relaxed: see `take` for what the caller's append makes it see.
        last < self.newest.load(Ordering::Relaxed)
    }

    /// Retains `image` of a page for the views between its last change at `last` and its next,
    /// which is logged at `lsn` and not yet applied. The caller has locked the page. Those views
    /// expire if `image` returns `None`.
    #[cold]
    pub(crate) fn retain(
        &self,
        page: u32,
        last: u64,
        lsn: u64,
        image: impl FnOnce() -> Option<Arc<P>>,
    ) {
        let live = read(&self.live);
        let is_between = |view: &&Arc<View<P>>| last < view.lsn && view.lsn <= lsn;
        let mut views =
            live.iter().filter(is_between).filter(|view| !view.has_expired()).peekable();
        if views.peek().is_none() {
            return;
        }
        let image = image();
        pass(Step::PageCopied);
        for view in views {
            match &image {
                Some(image) => view.insert(page, image),
                None => view.expire(),
            }
            pass(Step::PageKept);
        }
    }

    /// Expires views that retain something, the oldest first, until one copy of a page is freed;
    /// returns `false` if none is. The caller has locked no page.
    pub(crate) fn free_one(&self) -> bool {
        let live = read(&self.live).clone();
        let (expired, others): (Vec<_>, Vec<_>) =
            live.iter().filter(|view| view.retains_any()).partition(|view| view.has_expired());
        expired.into_iter().chain(others).any(|view| {
            view.expire();
            pass(Step::Expired);
            view.clear() > 0
        })
    }

    /// Expires all views.
    pub(crate) fn expire(&self) {
        read(&self.live).iter().for_each(|view| view.expire());
    }
}

/// The right to change which views are live.
struct Changing<'a, P> {
    newest: &'a AtomicU64,
    live: RwLockWriteGuard<'a, Vec<Arc<View<P>>>>,
}

impl<P> Drop for Changing<'_, P> {
    fn drop(&mut self) {
        // Relaxed: a writer that sees an older value checks the views for nothing.
        self.newest.store(self.live.last().map_or(0, |view| view.lsn), Ordering::Relaxed);
    }
}

impl<P> View<P> {
    fn new(lsn: u64) -> Self {
        let shards = std::array::from_fn(|_| Mutex::new(BTreeMap::new()));
        Self { lsn, has_expired: AtomicBool::new(false), shards }
    }

    pub(crate) const fn lsn(&self) -> u64 {
        self.lsn
    }

    /// Returns whether a page of the view is lost.
    pub(crate) fn has_expired(&self) -> bool {
        // Acquire pairs with the Release of `expire`.
        self.has_expired.load(Ordering::Acquire)
    }

    /// Returns the retained copy of a page. A page that was changed at or after the view's
    /// position has none if it was empty, or if the view has expired: the caller checks that
    /// afterwards.
    pub(crate) fn retained(&self, page: u32) -> Option<Arc<P>> {
        lock(self.shard(page)).get(&page).cloned()
    }

    /// Drops what the view retains, after it has expired; returns how many copies are freed.
    pub(crate) fn clear(&self) -> usize {
        let take = |shard: &Mutex<_>| std::mem::take(&mut *lock(shard));
        let pages = self.shards.iter().flat_map(take);
        // Other views retain some of them, too, or a reader is reading one.
        pages.filter_map(|(_, image)| Arc::into_inner(image)).count()
    }

    fn retains_any(&self) -> bool {
        self.shards.iter().any(|shard| !lock(shard).is_empty())
    }

    fn insert(&self, page: u32, image: &Arc<P>) {
        let mut pages = lock(self.shard(page));
        // A thread that clears the shard has expired the view before.
        if !self.has_expired() {
            pages.insert(page, Arc::clone(image));
        }
    }

    fn expire(&self) {
        // Release: a reader sees it before the change for which nothing was retained.
        self.has_expired.store(true, Ordering::Release);
    }

    fn shard(&self, page: u32) -> &Mutex<BTreeMap<u32, Arc<P>>> {
        // The bits below are the same for all pages.
        let number = page.wrapping_mul(0x9E37_79B1) >> (u32::BITS - SHARDS.trailing_zeros());
        &self.shards[number as usize]
    }
}
