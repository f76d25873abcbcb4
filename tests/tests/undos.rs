//! Repairs and their undo, cut short at every step.

use bulla_tests::undos;

#[test]
fn undo_brings_every_byte_back_through_every_power_loss() {
    undos::undo_brings_every_byte_back_through_every_power_loss().unwrap();
}

#[test]
fn repair_that_was_cut_short_can_be_undone() {
    undos::repair_that_was_cut_short_can_be_undone().unwrap();
}

#[test]
fn undo_is_refused_where_it_would_lose_an_entry() {
    undos::undo_is_refused_where_it_would_lose_an_entry().unwrap();
}

#[test]
fn only_checkpoints_and_holds_of_later_stop_an_undo() {
    undos::only_checkpoints_and_holds_of_later_stop_an_undo().unwrap();
}

#[test]
fn undo_puts_back_nothing_that_was_read_wrongly() {
    undos::undo_puts_back_nothing_that_was_read_wrongly().unwrap();
}
