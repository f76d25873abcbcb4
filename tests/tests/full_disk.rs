//! Full disks, and purges of logs that are not open, step by step.

use bulla_tests::full_disk;

#[test]
fn log_lacks_space_at_any_step_and_loses_nothing() {
    full_disk::log_lacks_space_at_any_step().unwrap();
}

#[test]
fn log_on_a_full_disk_is_read_purged_and_closed() {
    full_disk::log_on_a_full_disk_is_read_purged_and_closed().unwrap();
}

#[test]
fn store_lacks_space_at_any_step_and_loses_nothing() {
    full_disk::store_lacks_space_at_any_step().unwrap();
}

#[test]
fn purge_of_a_log_is_cut_short_at_every_step() {
    full_disk::purge_of_a_log_is_cut_short_at_every_step().unwrap();
}

#[test]
fn purge_of_a_store_is_cut_short_at_every_step() {
    full_disk::purge_of_a_store_is_cut_short_at_every_step().unwrap();
}
