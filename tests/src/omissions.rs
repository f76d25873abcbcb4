//! Which suites are to notice that a sync or a check was left out.

use std::panic::{AssertUnwindSafe, catch_unwind};

use bulla_wal::io::uring::UringIo;
use bulla_wal::omit::Point;

use crate::{campaign, opening, uring};

/// One suite, in a form that tells what it found.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name, as `cargo test` shows it.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Result<(), String>,
}

/// The suites, the quickest first.
pub const SUITES: &[Suite] = &[
    Suite {
        name: "uring::failed_and_short_writes_are_told",
        run: uring::failed_and_short_writes_are_told,
    },
    Suite {
        name: "opening::cut_bytes_are_kept_through_power_losses",
        run: opening::cut_bytes_are_kept,
    },
    Suite { name: CAMPAIGN, run: || campaign_seeds(0, FIRST_SEEDS) },
    Suite {
        name: "opening::every_pair_of_crashes_is_survived",
        run: opening::every_pair_of_crashes,
    },
    Suite { name: CAMPAIGN, run: || campaign_seeds(FIRST_SEEDS, CAMPAIGN_SEEDS - FIRST_SEEDS) },
];

const CAMPAIGN: &str = "simulation::every_promise_holds_under_crashes_and_faults";
/// Seeds that are played before a slower suite is tried: most omissions show in them.
const FIRST_SEEDS: u64 = 300;
/// Seeds of the campaign that are tried before an omission counts as missed by it.
pub const CAMPAIGN_SEEDS: u64 = 10_000;

/// Why no suite can notice this point on this machine, if so.
#[must_use]
pub fn not_here(point: Point) -> Option<&'static str> {
    match point {
        Point::UringErrorCheck | Point::UringShortCheck => UringIo::refusal(),
        _ => None,
    }
}

/// Runs a suite; gives the first line of what it found, if anything.
#[must_use]
pub fn catch(suite: &Suite) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(suite.run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    });
    outcome.err().map(|found| found.lines().next().unwrap_or_default().to_owned())
}

/// Plays seeds until one fails.
///
/// # Errors
/// The first violation.
pub fn campaign_seeds(start: u64, count: u64) -> Result<(), String> {
    for seed in start..start + count {
        campaign::run(seed).map_err(|failure| failure.to_string())?;
    }
    Ok(())
}
