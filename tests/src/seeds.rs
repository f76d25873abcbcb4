//! What the campaigns of seeds have in common: a seed that fails says how to play it again, and a
//! panic is a failure, too.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::model::Violation;

/// A campaign that plays seeds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Campaign {
    /// [`crate::campaign`]: a log.
    Log,
    /// [`crate::store`].
    Store,
    /// [`crate::reading`]: readers of a log.
    Readers,
}

/// A broken promise, with what led to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whose seed it is.
    pub campaign: Campaign,
    /// Plays it again.
    pub seed: u64,
    /// What was broken.
    pub violation: String,
    /// What was done, a line per step; empty where that is not written down.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { campaign, seed, violation, .. } = self;
        let arguments = match campaign {
            Campaign::Log => format!("--seed {seed} --trace"),
            Campaign::Store => format!("--store --seed {seed}"),
            Campaign::Readers => format!("--readers --seed {seed}"),
        };
        write!(
            f,
            "seed {seed}: {violation}\n\
             play it again: cargo run -p bulla-tests --bin sim -- {arguments}"
        )
    }
}

impl std::error::Error for Failure {}

impl Campaign {
    /// A seed of it broke a promise.
    #[must_use]
    pub(crate) fn failed(self, seed: u64, violation: Violation, trace: &str) -> Box<Failure> {
        Box::new(Failure { campaign: self, seed, violation, trace: trace.to_owned() })
    }
}

/// Plays; a panic is a broken promise like any other.
///
/// # Errors
/// What is broken.
pub(crate) fn caught<T>(play: impl FnOnce() -> Result<T, Violation>) -> Result<T, Violation> {
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| Err(told(panic.as_ref())))
}

/// What a panic said.
fn told(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::{Campaign, caught};

    #[test]
    fn panic_of_a_seed_is_told_with_the_command_that_plays_it_again() {
        let number = std::hint::black_box(3);
        let panicked = caught(|| -> Result<(), _> { panic!("{number} is too many") });
        let violation = panicked.unwrap_err();
        assert_eq!(violation, "panic: 3 is too many");
        let failure = Campaign::Store.failed(17, violation, "");
        assert_eq!(
            failure.to_string(),
            "seed 17: panic: 3 is too many\n\
             play it again: cargo run -p bulla-tests --bin sim -- --store --seed 17"
        );
    }
}
