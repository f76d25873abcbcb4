//! Every crash of every short workload. `cargo run --release -p bulla-tests --bin enumerate --
//! --operations 3` goes further.

use bulla_tests::enumeration::{Case, Enumeration};

const OPERATIONS: u32 = 2;
/// What it has gone through, or it has missed what it is for.
const FEWEST_STATES: u64 = 100_000;

#[test]
fn every_crash_of_every_two_operations_keeps_the_contract() {
    let enumeration = Enumeration::new(OPERATIONS, 1);
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
    assert!(totals.states >= FEWEST_STATES, "{totals:#?}");
}

#[test]
fn text_of_a_case_is_read_back() {
    for text in ["direct::0:done:killed:", "buffered-full:rotate,kill:17:not:unpowered:0.2.1"] {
        let case: Case = text.parse().unwrap();
        assert_eq!(case.to_string(), text);
    }
    for text in ["", "direct:rotate:1:done:killed", "direct:rot:1:done:killed:"] {
        assert!(text.parse::<Case>().is_err(), "{text}");
    }
}
