//! A sealer that does not wait for the threads that still copy their entries.

#[cfg(not(any(bulla_broken, loom)))]
pub(crate) use crate::ring::slots::Slots;

#[cfg(any(bulla_broken, loom))]
pub(crate) use self::interposed::Slots;

#[cfg(any(bulla_broken, loom))]
mod interposed {
    use std::ops::Deref;

    use crate::ring::slots;
    use bulla_storage::Lsn;
    use bulla_storage::faults::mutants::{Mutant, planted};

    #[derive(Debug)]
    pub(crate) struct Slots(slots::Slots);

    impl Slots {
        pub(crate) fn new() -> Self {
            Self(slots::Slots::new())
        }

        pub(crate) fn wait_until_copied(&self, end: Lsn) {
            if !planted(Mutant::SealerDoesNotWait) {
                self.0.wait_until_copied(end);
            }
        }
    }

    impl Deref for Slots {
        type Target = slots::Slots;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}
