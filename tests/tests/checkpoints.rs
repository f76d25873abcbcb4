//! Checkpoints during changes, beside files of other histories, and on full disks.

use bulla_tests::checkpoints;

#[test]
fn changes_amid_a_checkpoint_are_in_it_or_in_the_log() {
    checkpoints::changes_amid_a_checkpoint_are_in_it_or_in_the_log().unwrap();
}

#[test]
fn checkpoint_of_another_history_changes_nothing() {
    checkpoints::checkpoint_of_another_history_changes_nothing().unwrap();
}

#[test]
fn kept_space_outlives_a_checkpoint_that_fails() {
    checkpoints::kept_space_outlives_a_checkpoint_that_fails().unwrap();
}

#[test]
fn slab_that_is_changed_while_it_is_read_is_there_once() {
    checkpoints::slab_that_is_changed_while_it_is_read_is_there_once().unwrap();
}
