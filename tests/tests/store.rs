//! The store's campaign. `BULLA_STORE_SEEDS` sets how many seeds (default 500).

use bulla_tests::store::{self, Tally};

#[test]
fn any_one_checkpoint_is_enough_after_every_crash() {
    if let Err(violation) = store::any_one_checkpoint_is_enough_after_every_crash() {
        panic!("{violation}");
    }
}

#[test]
fn first_checkpoints_outlive_every_power_loss_after_a_purge() {
    if let Err(violation) = store::first_checkpoints_outlive_every_power_loss_after_a_purge() {
        panic!("{violation}");
    }
}

#[test]
fn store_is_what_its_log_says_under_crashes_and_quotas() {
    let seeds = std::env::var("BULLA_STORE_SEEDS").ok().and_then(|text| text.parse().ok());
    let seeds = seeds.unwrap_or(500_u64);
    let mut total = Tally::default();
    for seed in 0..seeds {
        match store::run(seed) {
            Ok(tally) => total.add(&tally),
            Err(violation) => panic!("{violation}"),
        }
    }
    println!("{total:#?}");
    // A campaign that never meets what it is for proves nothing.
    if seeds >= 500 {
        let rarest = [
            total.crashes,
            total.lost_operations,
            total.acknowledged,
            total.changes,
            total.batches,
            total.swaps,
            total.swaps_refused,
            total.updates_that_panicked,
            total.expired,
            total.refused_for_records,
            total.refused_for_bytes,
            total.reclaimed,
            total.refused_by_the_ring,
            total.crashes_in_opens,
            total.checkpoints,
            total.opened_from_checkpoints,
            total.opened_from_older_ones,
            total.slabs_built_again,
            total.opened_on_purged_logs,
            total.snapshots,
            total.pages_kept,
            total.changes_amid_checkpoints,
            total.clock_jumps_back,
            total.opened_above_quotas,
        ];
        assert!(rarest.iter().all(|count| *count > seeds / 20), "{total:#?}");
        let faults = [
            total.poisoned,
            total.no_space,
            total.checkpoints_failed,
            total.reserves_used,
            total.opens_failed,
        ];
        assert!(faults.iter().all(|count| *count > seeds / 50), "{total:#?}");
    }
}
