//! Suites in a form that tells what it found: for the campaigns that break the code on purpose.

use crate::enumeration::{Enumeration, Meddle, Subject};
use crate::seeds::{Failure, caught};
use crate::{
    backups, campaign, checkpoints, clock, full_disk, holds, opening, reading, real_threads, store,
    undos, uring,
};

/// One suite.
#[derive(Clone, Copy, Debug)]
pub struct Suite {
    /// Its name, as `cargo test` shows it.
    pub name: &'static str,
    /// Runs it.
    pub run: fn() -> Result<(), String>,
}

const fn suite(name: &'static str, run: fn() -> Result<(), String>) -> Suite {
    Suite { name, run }
}

/// All of them, the quickest first; those of threads, which may wait for good, before the long ones.
pub const ALL: &[Suite] = &[
    suite("uring::failed_and_short_writes_are_told", uring::failed_and_short_writes_are_told),
    suite("uring::ring_holds_the_lock_until_it_is_gone", || {
        uring::ring_holds_the_lock_until_it_is_gone();
        Ok(())
    }),
    suite("uring::ring_is_gone_only_when_its_writes_are_done", || {
        uring::ring_is_gone_only_when_its_writes_are_done();
        Ok(())
    }),
    suite("uring::write_of_a_thread_that_is_gone_is_done_when_it_is_told_so", || {
        uring::write_of_a_thread_that_is_gone_is_done_when_it_is_told_so();
        Ok(())
    }),
    suite("opening::cut_bytes_are_kept_through_power_losses", opening::cut_bytes_are_kept),
    suite(
        "undos::undo_brings_every_byte_back_through_every_power_loss",
        undos::undo_brings_every_byte_back_through_every_power_loss,
    ),
    suite(
        "undos::repair_that_was_cut_short_can_be_undone",
        undos::repair_that_was_cut_short_can_be_undone,
    ),
    suite(
        "undos::undo_is_refused_where_it_would_lose_an_entry",
        undos::undo_is_refused_where_it_would_lose_an_entry,
    ),
    suite(
        "full_disk::purge_of_a_log_is_cut_short_at_every_step",
        full_disk::purge_of_a_log_is_cut_short_at_every_step,
    ),
    suite(
        "full_disk::purge_of_a_store_is_cut_short_at_every_step",
        full_disk::purge_of_a_store_is_cut_short_at_every_step,
    ),
    suite(
        "full_disk::log_on_a_full_disk_is_read_purged_and_closed",
        full_disk::log_on_a_full_disk_is_read_purged_and_closed,
    ),
    suite("clock::times_go_back_between_segments_only", clock::times_go_back_between_segments_only),
    suite(
        "holds::purges_and_owners_are_told_of_broken_damaged_and_purged_holds",
        holds::purges_and_owners_are_told,
    ),
    suite(
        "holds::holds_keep_their_place_through_every_power_loss",
        holds::holds_keep_their_place_through_every_power_loss,
    ),
    suite(
        "backups::backups_of_changing_logs_are_whole_or_refused",
        backups::backups_of_changing_logs_are_whole_or_refused,
    ),
    suite(
        "backups::restores_end_where_they_should_and_refuse_damage",
        backups::restores_end_where_they_should_and_refuse_damage,
    ),
    suite("backups::backups_survive_every_power_loss", backups::backups_survive_every_power_loss),
    suite("backups::restores_survive_every_power_loss", backups::restores_survive_every_power_loss),
    suite(CAMPAIGN, || campaign_seeds(0, FIRST_SEEDS)),
    suite("readers::readers_show_what_was_appended_and_never_more_than_their_watermark", || {
        each(0, READER_SEEDS, reading::run)
    }),
    suite(STORE, || store_seeds(0, FIRST_STORE_SEEDS)),
    suite(
        "store::any_one_checkpoint_is_enough_after_every_crash",
        store::any_one_checkpoint_is_enough_after_every_crash,
    ),
    suite(
        "store::first_checkpoints_outlive_every_power_loss_after_a_purge",
        store::first_checkpoints_outlive_every_power_loss_after_a_purge,
    ),
    suite(
        "checkpoints::changes_amid_a_checkpoint_are_in_it_or_in_the_log",
        checkpoints::changes_amid_a_checkpoint_are_in_it_or_in_the_log,
    ),
    suite(
        "checkpoints::checkpoint_of_another_history_changes_nothing",
        checkpoints::checkpoint_of_another_history_changes_nothing,
    ),
    suite(
        "checkpoints::kept_space_outlives_a_checkpoint_that_fails",
        checkpoints::kept_space_outlives_a_checkpoint_that_fails,
    ),
    suite(
        "checkpoints::slab_that_is_changed_while_it_is_read_is_there_once",
        checkpoints::slab_that_is_changed_while_it_is_read_is_there_once,
    ),
    suite(ENUMERATION, || enumerate(Subject::Log, 1)),
    suite(
        "enumeration::log_whose_directory_is_swapped_at_any_step_goes_on_in_the_one_it_opened",
        || explore(&Enumeration::new(Subject::Log, 1, 1).meddle(Meddle::Swap)),
    ),
    suite(
        "enumeration::log_whose_lock_file_is_removed_at_any_step_lets_no_second_writer_in",
        || explore(&Enumeration::new(Subject::Log, 1, 1).meddle(Meddle::RemoveLock)),
    ),
    suite(
        "holds::hold_taken_beside_a_purge_keeps_its_place",
        holds::hold_taken_beside_a_purge_keeps_its_place,
    ),
    suite("threads::threads_at_mixed_levels_are_all_recovered_in_order", || {
        // What threads do wrong shows now and then.
        (0..THREAD_ROUNDS)
            .for_each(|_| real_threads::threads_at_mixed_levels_are_all_recovered_in_order());
        Ok(())
    }),
    suite("threads::future_of_a_receipt_is_woken_without_anyone_waiting", || {
        real_threads::future_of_a_receipt_is_woken_without_anyone_waiting();
        Ok(())
    }),
    suite("threads::flusher_that_has_ended_starts_again", || {
        real_threads::flusher_that_has_ended_starts_again();
        Ok(())
    }),
    suite("threads::failed_write_wakes_every_waiter_and_nothing_is_acknowledged_after", || {
        real_threads::failed_write_wakes_every_waiter_and_nothing_is_acknowledged_after();
        Ok(())
    }),
    suite(STORE, || store_seeds(FIRST_STORE_SEEDS, STORE_SEEDS - FIRST_STORE_SEEDS)),
    suite(CAMPAIGN, || campaign_seeds(FIRST_SEEDS, CAMPAIGN_SEEDS - FIRST_SEEDS)),
    suite("opening::every_pair_of_crashes_is_survived", opening::every_pair_of_crashes),
    suite(STORE_ENUMERATION, || enumerate(Subject::Store, 1)),
    suite(ENUMERATION, || enumerate(Subject::Log, 2)),
];

const ENUMERATION: &str = "enumeration::every_crash_of_every_two_operations_keeps_the_contract";
const STORE_ENUMERATION: &str =
    "enumeration::every_crash_of_every_two_operations_of_a_store_leaves_what_it_was";
const STORE: &str = "store::store_is_what_its_log_says_under_crashes_and_quotas";
const CAMPAIGN: &str = "simulation::every_invariant_holds_under_crashes_and_faults";
/// Seeds that are played before a slower suite is tried: most defects show in them.
const FIRST_SEEDS: u64 = 300;
/// Seeds of the campaign that are tried before a defect counts as missed by it.
pub const CAMPAIGN_SEEDS: u64 = 10_000;
const READER_SEEDS: u64 = 300;
const THREAD_ROUNDS: u32 = 12;
const FIRST_STORE_SEEDS: u64 = 200;
/// Seeds of the store's campaign that are tried before a defect counts as missed by it.
const STORE_SEEDS: u64 = 1_500;

impl Suite {
    /// Runs it; returns the first line of what it found, if anything.
    #[must_use]
    pub fn catch(&self) -> Option<String> {
        caught(self.run).err().map(|found| found.lines().next().unwrap_or_default().to_owned())
    }
}

fn enumerate(subject: Subject, operations: u32) -> Result<(), String> {
    explore(&Enumeration::new(subject, operations, 1))
}

fn explore(enumeration: &Enumeration) -> Result<(), String> {
    enumeration.work();
    enumeration.result().1.first().map_or(Ok(()), |failure| Err(failure.to_string()))
}

fn store_seeds(start: u64, count: u64) -> Result<(), String> {
    each(start, count, store::run)
}

/// Plays seeds until one fails.
///
/// # Errors
/// The first violation.
pub fn campaign_seeds(start: u64, count: u64) -> Result<(), String> {
    each(start, count, campaign::run)
}

fn each<T>(
    start: u64,
    count: u64,
    run: impl Fn(u64) -> Result<T, Box<Failure>>,
) -> Result<(), String> {
    let play = |seed| run(seed).map(drop).map_err(|failure| failure.to_string());
    (start..start + count).try_for_each(play)
}
