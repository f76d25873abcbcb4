//! How an id names a slab, a page and a place in that page.

use super::memory::{PAGE_RECORDS, SLAB_PAGES, SLAB_RECORDS};

/// The low bits of an id that name its place in the page.
pub(crate) const PAGE_SHIFT: u32 = PAGE_RECORDS.trailing_zeros();

/// A page of 64 records: the number of its first id, divided by 64.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct PageId(u32);

impl PageId {
    /// The page that holds the lowest ids.
    pub(crate) const FIRST: Self = Self(0);

    /// Returns the page of an id.
    pub(crate) const fn of(id: u32) -> Self {
        Self(id >> PAGE_SHIFT)
    }

    /// Returns page `page` of a slab.
    #[expect(clippy::cast_possible_truncation, reason = "there are 2^26 pages")]
    pub(crate) const fn at(slab: usize, page: usize) -> Self {
        Self((slab * SLAB_PAGES + page) as u32)
    }

    pub(crate) const fn first_id(self) -> u32 {
        self.0 << PAGE_SHIFT
    }

    pub(crate) const fn slab(self) -> usize {
        self.0 as usize / SLAB_PAGES
    }

    /// Returns the number of its slab, as checkpoints write it.
    pub(crate) const fn slab_number(self) -> u32 {
        self.0 >> SLAB_PAGES.trailing_zeros()
    }

    pub(crate) const fn in_slab(self) -> usize {
        self.0 as usize % SLAB_PAGES
    }

    /// Returns the page after this one; `None` after the last.
    pub(crate) fn next(self) -> Option<Self> {
        let next = Self(self.0 + 1);
        (next <= Self::of(u32::MAX)).then_some(next)
    }

    /// Returns whether both pages lie in the same slab.
    pub(crate) const fn shares_slab_with(self, other: Self) -> bool {
        self.slab() == other.slab()
    }

    /// Returns the page `count` places further in the same slab, wrapping at its end.
    #[expect(clippy::cast_possible_truncation, reason = "below 512")]
    pub(crate) const fn wrapping_add(self, count: u64) -> Self {
        Self::at(self.slab(), ((self.in_slab() as u64 + count) % SLAB_PAGES as u64) as usize)
    }
}

/// Returns the id of place `slot` of a slab.
#[expect(clippy::cast_possible_truncation, reason = "below 32,768")]
pub(crate) const fn id_in_slab(slab: u32, slot: usize) -> u32 {
    slab << SLAB_RECORDS.trailing_zeros() | slot as u32
}

/// Returns the place of an id in its page.
pub(crate) const fn index(id: u32) -> usize {
    id as usize % PAGE_RECORDS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_wraps_within_the_slab() {
        let pages = SLAB_PAGES as u64;
        let page = |number| PageId::at(3, number);
        assert_eq!(page(5).wrapping_add(0), page(5));
        assert_eq!(page(5).wrapping_add(pages - 6), page(SLAB_PAGES - 1));
        assert_eq!(page(5).wrapping_add(pages - 5), page(0));
        assert_eq!(page(5).wrapping_add(2 * pages + 7), page(12));
    }
}
