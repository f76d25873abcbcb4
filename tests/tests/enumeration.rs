//! Every crash of every short workload. `cargo run --release -p bulla-tests --bin enumerate`
//! goes further.

use bulla_tests::enumeration::{Case, Enumeration, Meddle, Subject};

/// Plays all workloads up to a length, which must reach at least a number of
/// states, or it has missed what it is for.
fn go_through(subject: Subject, operations: u32, fewest_states: u64) {
    all_of(&Enumeration::new(subject, operations, 1), fewest_states);
}

fn all_of(enumeration: &Enumeration, fewest_states: u64) {
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| enumeration.work());
        }
    });
    let (totals, failures) = enumeration.result();
    println!("{totals:#?}");
    if let Some(failure) = failures.first() {
        panic!("{failure}");
    }
    assert_eq!(totals.workloads, enumeration.workloads() as u64);
    assert!(totals.states >= fewest_states, "{totals:#?}");
}

#[test]
fn every_crash_of_every_two_operations_keeps_the_contract() {
    go_through(Subject::Log, 2, 100_000);
}

#[test]
fn every_crash_of_every_two_operations_of_a_store_leaves_what_it_was() {
    go_through(Subject::Store, 2, 130_000);
}

/// At every step of the last operation its directory is moved away, and another log into its
/// place: what was acknowledged is in the directory that was opened, and the other log is intact.
#[test]
fn log_whose_directory_is_swapped_at_any_step_goes_on_in_the_one_it_opened() {
    all_of(&Enumeration::new(Subject::Log, 2, 1).meddle(Meddle::Swap), 1_000);
}

#[test]
fn store_whose_directory_is_swapped_at_any_step_goes_on_in_the_one_it_opened() {
    all_of(&Enumeration::new(Subject::Store, 2, 1).meddle(Meddle::Swap), 1_000);
}

#[test]
fn log_whose_lock_file_is_removed_at_any_step_lets_no_second_writer_in() {
    all_of(&Enumeration::new(Subject::Log, 2, 1).meddle(Meddle::RemoveLock), 1_000);
}

#[test]
fn text_of_a_case_is_read_back() {
    for text in [
        "direct::0:done:killed:",
        "buffered-full:rotate,kill:17:not:unpowered:0.2.1",
        "store-reclaims:checkpoint,expire:9:not:unpowered:1",
    ] {
        let case: Case = text.parse().unwrap();
        assert_eq!(case.to_string(), text);
    }
    let wrong = [
        "",
        "direct:rotate:1:done:killed",
        "direct:rot:1:done:killed:",
        "store-new:rotate:1:done:killed:",
    ];
    for text in wrong {
        assert!(text.parse::<Case>().is_err(), "{text}");
    }
}
