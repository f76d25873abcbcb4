//! Holds keep their place, and a purge that breaks one says so.

use bulla_tests::holds;

#[test]
fn holds_keep_their_place_through_every_power_loss() {
    holds::holds_keep_their_place_through_every_power_loss().unwrap();
}

#[test]
fn purges_and_owners_are_told_of_broken_damaged_and_purged_holds() {
    holds::purges_and_owners_are_told().unwrap();
}

#[test]
fn hold_taken_beside_a_purge_keeps_its_place() {
    holds::hold_taken_beside_a_purge_keeps_its_place().unwrap();
}
