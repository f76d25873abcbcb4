//! Wake-ups that do not come.

use std::ops::Deref;

use crate::commit::waiters;
use bulla_storage::faults::mutants::{Mutant, planted};

#[derive(Debug)]
pub(crate) struct Waiters(waiters::Waiters);

impl Waiters {
    pub(crate) fn new() -> Self {
        Self(waiters::Waiters::new())
    }

    pub(crate) fn release_all(&self) -> bool {
        !planted(Mutant::PoisonWakesNobody) && self.0.release_all()
    }

    pub(crate) fn wake_async_waiters(&self) {
        if !planted(Mutant::TasksNotWoken) {
            self.0.wake_async_waiters();
        }
    }
}

impl Deref for Waiters {
    type Target = waiters::Waiters;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
