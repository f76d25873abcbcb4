//! Several pages, locked at the same time.
//!
//! Owns the order of the locks, and what stands for the lock of a page that has no memory.

use std::io;

use super::{Copied, PageGuard, PageId, Table, index};
use crate::faults::{Step, pass};
use crate::sync::RwLockReadGuard;

/// Pages that are locked at the same time: those that a write changes, and those that it only
/// reads.
#[derive(Debug)]
pub(crate) struct LockedPages<'p, 't> {
    written: &'p [PageId],
    read: &'p [PageId],
    /// The guards of the pages that are written.
    pub(crate) guards: Vec<PageGuard<'t>>,
    /// Those of the others; `None` where a page has no memory, so that it has no record.
    others: Vec<Option<PageGuard<'t>>>,
    /// Held where a page has no memory: it gets none before this is dropped, so that a write into
    /// it comes later in the log, too.
    _absence: Option<RwLockReadGuard<'t, ()>>,
}

impl<'p, 't> LockedPages<'p, 't> {
    /// Locks pages. Both lists are in order, and no page is in both. A page that is only read gets
    /// no memory by that: the table would keep its slab for good, and no quota counts it.
    ///
    /// # Errors
    /// When the system has no memory for a page that is written.
    pub(crate) fn lock(
        table: &'t Table,
        written: &'p [PageId],
        read: &'p [PageId],
    ) -> io::Result<Self> {
        loop {
            let mut guards = Vec::with_capacity(written.len());
            let mut others = Vec::with_capacity(read.len());
            let lock = |page: &PageId| {
                let guard = table.lock(*page);
                pass(Step::Locked);
                guard
            };
            let mut rest = written.iter().peekable();
            for page in read {
                while let Some(before) = rest.next_if(|before| *before < page) {
                    guards.push(lock(before)?);
                }
                others.push(table.lock_existing(*page));
            }
            for page in rest {
                guards.push(lock(page)?);
            }
            let absent = || read.iter().zip(&others).filter(|(_, guard)| guard.is_none());
            // The last lock: a thread that has it waits for no page.
            let absence = absent().next().map(|_| table.lock_absence());
            let has_appeared = absent().any(|(page, _)| table.has(page.slab_number()));
            // Each slab appears once, so this ends.
            if !has_appeared {
                return Ok(Self { written, read, guards, others, _absence: absence });
            }
        }
    }

    /// Returns a record, if it is there. Its page is one of these.
    pub(crate) fn read(&self, id: u32) -> Option<Copied> {
        let page = PageId::of(id);
        let guard = match self.written.binary_search(&page) {
            Ok(at) => &self.guards[at],
            Err(_) => {
                let at = self.read.binary_search(&page).expect("its page is locked");
                self.others[at].as_ref()?
            }
        };
        guard.read(index(id))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    use super::*;

    #[test]
    fn page_without_memory_gets_none_and_stays_without_while_it_is_locked() {
        let table = Table::new(false);
        let pages = [PageId::of(1), PageId::of(5_000_000), PageId::of(9_000_000)];
        let locked = LockedPages::lock(&table, &pages[..1], &pages[1..]).expect("memory");
        assert_eq!(pages.map(|page| table.has(page.slab_number())), [true, false, false]);
        assert_eq!((locked.guards.len(), locked.read(5_000_000)), (1, None));
        std::thread::scope(|scope| {
            let (locks, has_locked) = channel();
            let table = &table;
            scope.spawn(move || {
                drop(table.lock(pages[1]).expect("memory"));
                locks.send(()).expect("somebody waits");
            });
            let early = has_locked.recv_timeout(Duration::from_millis(50));
            assert_eq!(early, Err(RecvTimeoutError::Timeout));
            assert!(!table.has(pages[1].slab_number()));
            drop(locked);
            has_locked.recv_timeout(Duration::from_secs(20)).expect("the page is free");
        });
    }
}
