//! A few real kills of a real store; `cargo run --bin kills` does many.

use std::process::Command;

use bulla_tests::kills::{self, During};

#[test]
fn store_keeps_what_it_acknowledged_when_it_is_killed_in_checkpoint_purge_and_reclaim() {
    let kills = std::env::var("BULLA_STORE_KILLS").ok().and_then(|text| text.parse().ok());
    let kills = kills.unwrap_or(6);
    for during in During::ALL {
        let dir = bulla_tests::temp_dir(during.name());
        let child = || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_kills"));
            command.arg("child");
            command
        };
        let killed = kills::run(dir.path(), during, kills, 7, child).unwrap_or_else(|broken| {
            // Kept, to be looked into.
            panic!("{} in {}: {broken}", during.name(), dir.keep().display());
        });
        assert_eq!(killed.kills, kills);
        assert!(killed.acknowledged > 0 && killed.opened_from_checkpoints > 0, "{killed:?}");
    }
}
