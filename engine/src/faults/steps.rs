//! Named steps of the store's operations. A test can raise a panic at any of them, to show that
//! nothing stays locked, reserved or half done.
//!
//! Only with feature `steps`; an ordinary build has none of it.

/// A step of an operation, named after what has just been done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Step {
    /// The user's code was called: a method of the record type or of its id, a closure.
    User,
    /// A slab was allocated.
    SlabMade,
    /// A page was locked.
    Locked,
    /// A write has computed what it adds.
    Planned,
    /// The write has reserved it.
    Reserved,
    /// The write was logged.
    Logged,
    /// A page was copied for snapshots.
    PageCopied,
    /// A snapshot has retained the copy.
    PageKept,
    /// Pages are about to change, and readers wait.
    Begun,
    /// One change was applied.
    Edited,
    /// All changes were applied.
    Made,
    /// The pages were unlocked.
    Unlocked,
    /// The quota was told what is no longer in use.
    GivenBack,
    /// Pages that share memory, all of which looked empty, were locked.
    SharedLocked,
    /// Records to evict were chosen.
    Chosen,
    /// The time of the next expiry was reset, before it is computed anew.
    DueForgotten,
    /// Writers were told that a snapshot is being taken.
    Announced,
    /// The log was cut.
    Truncation,
    /// A snapshot was removed from the live ones.
    Ended,
    /// A snapshot expired, to free its pages.
    Expired,
}

impl Step {
    /// Every step.
    pub const ALL: &'static [Self] = &[
        Self::User,
        Self::SlabMade,
        Self::Locked,
        Self::Planned,
        Self::Reserved,
        Self::Logged,
        Self::PageCopied,
        Self::PageKept,
        Self::Begun,
        Self::Edited,
        Self::Made,
        Self::Unlocked,
        Self::GivenBack,
        Self::SharedLocked,
        Self::Chosen,
        Self::DueForgotten,
        Self::Announced,
        Self::Truncation,
        Self::Ended,
        Self::Expired,
    ];
}

/// Passes a step.
#[cfg(not(feature = "steps"))]
#[inline]
pub const fn pass(_step: Step) {}

#[cfg(feature = "steps")]
pub use armed::{arm, pass, passed};

#[cfg(feature = "steps")]
mod armed {
    use std::cell::{Cell, RefCell};

    use super::Step;

    thread_local! {
        /// Steps until the panic, 0 for none.
        static LEFT: Cell<usize> = const { Cell::new(0) };
        /// `None` where no test counts.
        static PASSED: RefCell<Option<Vec<Step>>> = const { RefCell::new(None) };
    }

    /// Counts the steps of this thread from here on, and panics at step number `at`, from 1; 0
    /// for none.
    pub fn arm(at: usize) {
        LEFT.set(at);
        PASSED.set(Some(Vec::new()));
    }

    /// Returns the steps since [`arm`]; later ones neither panic nor count.
    #[must_use]
    pub fn passed() -> Vec<Step> {
        LEFT.set(0);
        PASSED.take().unwrap_or_default()
    }

    /// Passes a step.
    ///
    /// # Panics
    /// If [`arm`] chose this step.
    pub fn pass(step: Step) {
        if std::thread::panicking() {
            return;
        }
        PASSED.with_borrow_mut(|passed| passed.iter_mut().for_each(|passed| passed.push(step)));
        let left = LEFT.get();
        LEFT.set(left.saturating_sub(1));
        assert!(left != 1, "at step {step:?}, on purpose");
    }
}
