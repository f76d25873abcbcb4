//! Backups of logs, restored.

use std::process::Command;

use bulla_tests::{backups, live_backups};

#[test]
fn backups_survive_every_power_loss() {
    backups::backups_survive_every_power_loss().unwrap();
}

#[test]
fn restores_survive_every_power_loss() {
    backups::restores_survive_every_power_loss().unwrap();
}

#[test]
fn restores_end_where_they_should_and_refuse_damage() {
    backups::restores_end_where_they_should_and_refuse_damage().unwrap();
}

#[test]
fn backups_of_changing_logs_are_whole_or_refused() {
    backups::backups_of_changing_logs_are_whole_or_refused().unwrap();
}

#[test]
fn chains_of_backups_have_no_gap() {
    backups::chains_of_backups_have_no_gap().unwrap();
}

#[test]
fn backups_that_cannot_be_restored_are_refused() {
    backups::backups_that_cannot_be_restored_are_refused().unwrap();
}

#[test]
fn backups_that_race_an_open_are_whole() {
    backups::backups_that_race_an_open_are_whole().unwrap();
}

/// `--bin backups -- incremental DIR` does so with 1 GiB.
#[test]
fn next_backup_copies_what_is_new_and_little_more() {
    const MIB: u64 = 1024 * 1024;
    // What begins or ends in a segment, and what a frame adds to its entries.
    const MORE: u64 = MIB / 4;
    let dir = bulla_tests::temp_dir("increments");
    let growth = [MIB, 0, 3 * MIB];
    let found = live_backups::incremental(dir.path(), 24 * MIB, &growth).unwrap();
    assert_eq!(found.len(), 1 + growth.len());
    for increment in found {
        assert_eq!(increment.copied_bytes, increment.file_bytes, "{increment}");
        // A frame that holds only a durable mark comes with the next one.
        let least = increment.new_bytes.saturating_sub(8 * 1024);
        let copied = least..=increment.new_bytes + MORE;
        assert!(copied.contains(&increment.copied_bytes), "{increment}");
    }
}

#[test]
fn backups_of_a_store_under_full_load_hold_what_was_acknowledged() {
    let count = std::env::var("BULLA_BACKUPS").ok().and_then(|text| text.parse().ok());
    let count = count.unwrap_or(6);
    let dir = bulla_tests::temp_dir("backups");
    let child = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backups"));
        command.arg("child");
        command
    };
    let found = live_backups::run(dir.path(), count, child).unwrap_or_else(|broken| {
        // Kept, to be looked into.
        panic!("in {}: {broken}", dir.keep().display());
    });
    assert_eq!(found.backups, count);
    assert!(found.from_checkpoints > 0 && found.purges > 0, "{found:?}");
}
