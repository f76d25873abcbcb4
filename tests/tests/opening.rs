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

#[test]
fn full_disk_never_loses_anything_and_stops_no_open_that_has_a_segment() {
    opening::full_disk_loses_nothing().unwrap();
}
