//! Recoveries that are cut short, step by step.

use bulla_tests::opening;

#[test]
fn every_pair_of_crashes_is_survived() {
    opening::every_pair_of_crashes().unwrap();
}

#[test]
fn cut_bytes_are_kept_through_power_losses() {
    opening::cut_bytes_are_kept().unwrap();
}
