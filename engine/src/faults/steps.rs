//! Named steps of the store's operations, at which a test can have it panic, to show that
//! nothing is left locked, reserved or half done.
//!
//! With feature `steps` only; in an ordinary build nothing is left of them.

/// A step of an operation: what has just been done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[non_exhaustive]
pub enum Step {
    /// Code of the user was called: a method of the record type or of its id, a closure.
    User,
    /// A slab was made.
    SlabMade,
    /// A page was locked.
    Locked,
    /// What a change adds is known.
    Planned,
    /// It was reserved.
    Reserved,
    /// The change was logged.
    Logged,
    /// A page was copied for snapshots.
    PageCopied,
    /// The copy was kept for a snapshot.
    PageKept,
    /// Pages are about to change, and readers wait.
    Begun,
    /// One edit was made.
    Edited,
    /// All were made.
    Made,
    /// The pages were unlocked.
    Unlocked,
    /// What is no more in use was given back to the quota.
    GivenBack,
    /// Pages that share memory, all of which looked empty, were locked.
    SharedLocked,
    /// Records that may go were chosen.
    Chosen,
    /// When the next record expires was forgotten, to be found out.
    DueForgotten,
    /// Writers know that a snapshot is being taken.
    Announced,
    /// The log was cut.
    Cut,
    /// A snapshot was taken out of those that live.
    Ended,
    /// A snapshot expired, so that its pages make way.
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
        Self::Cut,
        Self::Ended,
        Self::Expired,
    ];
}

/// A step is done.
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
        /// Steps to the panic, 0 for none.
        static LEFT: Cell<usize> = const { Cell::new(0) };
        /// Nothing where nobody counts.
        static PASSED: RefCell<Option<Vec<Step>>> = const { RefCell::new(None) };
    }

    /// From now on the steps of this thread are counted, and `at` is the number of the one
    /// that panics, from 1; 0 for none.
    pub fn arm(at: usize) {
        LEFT.set(at);
        PASSED.set(Some(Vec::new()));
    }

    /// The steps since [`arm`]; no later one panics or is counted.
    #[must_use]
    pub fn passed() -> Vec<Step> {
        LEFT.set(0);
        PASSED.take().unwrap_or_default()
    }

    /// A step is done.
    ///
    /// # Panics
    /// If it was armed.
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
