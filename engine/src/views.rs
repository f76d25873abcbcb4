//! Views: positions in the log as of which pages are kept.
//!
//! Owns which views there are, and what they keep. A view begins as a position: a page
//! whose last change is before it is still as the view has it. Whoever is about to change
//! such a page keeps a copy for the view, once. Knows nothing of records and quotas, and
//! never keeps a writer waiting for a reader. Tested by `engine/tests/snapshot.rs` and by
//! the loom models in `engine/tests/loom.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::steps::{Step, pass};
use crate::sync::{
    AtomicBool, AtomicU64, Mutex, Ordering, RwLock, RwLockWriteGuard, lock, read, write,
};

/// Views that live at once.
pub(crate) const MAX_VIEWS: usize = 16;
/// Parts of a view's pages, so that writers of different pages seldom meet.
const SHARDS: u32 = 16;
/// Stands for the position of a view that is being taken.
const UNKNOWN: u64 = u64::MAX;

/// The views that there are; `P` is a copy of a page.
#[derive(Debug)]
pub(crate) struct Views<P> {
    /// The position of the newest that lives, 0 when there is none.
    newest: AtomicU64,
    /// Those that live, in order of their positions.
    live: RwLock<Vec<Arc<View<P>>>>,
}

/// What is kept as of one position.
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

    /// Takes a view as of the position that `cut` gives. All changes are logged before it
    /// or at or after it, and a thread that logs one at or after it sees what ours did
    /// before `cut`. `None` when there are [`MAX_VIEWS`].
    pub(crate) fn take(&self, cut: impl FnOnce() -> u64) -> Option<Arc<View<P>>> {
        let mut changing = self.change();
        if changing.live.len() == MAX_VIEWS {
            return None;
        }
        // Whoever logs at or after the cut sees this, or what is stored later, and keeps
        // what it changes. It waits for our lock, which we have for this moment only.
        self.newest.store(UNKNOWN, Ordering::Relaxed);
        pass(Step::Announced);
        let view = Arc::new(View::new(cut()));
        pass(Step::Cut);
        changing.live.push(Arc::clone(&view));
        Some(view)
    }

    /// Ends a view; what it kept goes.
    pub(crate) fn end(&self, view: &Arc<View<P>>) {
        self.change().live.retain(|live| !Arc::ptr_eq(live, view));
        pass(Step::Ended);
        view.expire();
        view.clear();
    }

    fn change(&self) -> Changing<'_, P> {
        Changing { newest: &self.newest, live: write(&self.live) }
    }

    /// May a page whose last change is at `last` have to be kept before its next?
    #[inline]
    pub(crate) fn want(&self, last: u64) -> bool {
        // Relaxed: see `take` for what the caller's append makes it see.
        last < self.newest.load(Ordering::Relaxed)
    }

    /// Keeps `image` of a page for the views after its last change at `last` and not after
    /// its next, which is logged at `lsn` and not yet made. The caller has the page locked.
    /// Those views expire if there is none.
    #[cold]
    pub(crate) fn keep(
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

    /// Lets views that keep something expire, the oldest first, until one copy of a page is
    /// gone; `false` if none is. The caller has no page locked.
    pub(crate) fn give_way(&self) -> bool {
        let live = read(&self.live).clone();
        let (expired, others): (Vec<_>, Vec<_>) =
            live.iter().filter(|view| view.keeps_any()).partition(|view| view.has_expired());
        expired.into_iter().chain(others).any(|view| {
            view.expire();
            pass(Step::Expired);
            view.clear() > 0
        })
    }

    /// Lets all views expire.
    pub(crate) fn expire(&self) {
        read(&self.live).iter().for_each(|view| view.expire());
    }
}

/// The right to change which views there are.
struct Changing<'a, P> {
    newest: &'a AtomicU64,
    live: RwLockWriteGuard<'a, Vec<Arc<View<P>>>>,
}

impl<P> Drop for Changing<'_, P> {
    fn drop(&mut self) {
        // Relaxed: who sees an older one looks in vain.
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

    /// Is something of it lost?
    pub(crate) fn has_expired(&self) -> bool {
        // Acquire pairs with the Release of `expire`.
        self.has_expired.load(Ordering::Acquire)
    }

    /// The copy of a page. Of one that was changed at or after the view's position there is
    /// none if nothing was in it, or if the view has expired: look at that afterwards.
    pub(crate) fn kept(&self, page: u32) -> Option<Arc<P>> {
        lock(self.shard(page)).get(&page).cloned()
    }

    /// Drops what it keeps, after it has expired; gives how many copies are gone.
    pub(crate) fn clear(&self) -> usize {
        let take = |shard: &Mutex<_>| std::mem::take(&mut *lock(shard));
        let pages = self.shards.iter().flat_map(take);
        // Some are kept for other views, too, or just being read.
        pages.filter_map(|(_, image)| Arc::into_inner(image)).count()
    }

    fn keeps_any(&self) -> bool {
        self.shards.iter().any(|shard| !lock(shard).is_empty())
    }

    fn insert(&self, page: u32, image: &Arc<P>) {
        let mut pages = lock(self.shard(page));
        // Whoever clears the shard has let the view expire before.
        if !self.has_expired() {
            pages.insert(page, Arc::clone(image));
        }
    }

    fn expire(&self) {
        // Release: it comes before the change for which nothing was kept is seen.
        self.has_expired.store(true, Ordering::Release);
    }

    fn shard(&self, page: u32) -> &Mutex<BTreeMap<u32, Arc<P>>> {
        // The bits below are the same for all.
        let number = page.wrapping_mul(0x9E37_79B1) >> (u32::BITS - SHARDS.trailing_zeros());
        &self.shards[number as usize]
    }
}
