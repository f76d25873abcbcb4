//! The measurements: that they are made, and leave nothing behind.

use crate::common::{Dir, code, interrupted_leaves_nothing, is_empty, json, run};

#[test]
fn every_test_is_measured_or_says_why_not_and_nothing_is_left_behind() {
    let dir = Dir::new("doctor");
    let (report, exit) = json("doctor DIR --seconds 0.02", &dir.join(""));
    assert_eq!(exit, 0);
    assert!(is_empty(&dir.join("")));
    let tests = report["tests"].as_array().expect("tests");
    // Four ways in three sizes; logs of each backend with one and with several writers.
    assert!(tests.len() >= 16, "{report}");
    for test in tests {
        let measured = test["operations"].as_u64() > Some(0)
            && test["p50_ns"].as_u64() <= test["p99_ns"].as_u64()
            && test["p50_lowest_ns"].as_u64() <= test["p50_ns"].as_u64()
            && test["p50_ns"].as_u64() <= test["p50_highest_ns"].as_u64()
            && test["p99_ns"].as_u64() <= test["max_ns"].as_u64();
        assert!(measured != test["not_measured"].is_string(), "{test}");
    }
    let loops = tests.iter().filter(|test| test["test"] == "write + fdatasync, growing file");
    assert_eq!(loops.map(|test| &test["bytes"]).collect::<Vec<_>>(), [4096, 16_384, 1_048_576]);
    assert!(report["recommended"]["backend"].is_string(), "{report}");
    assert_eq!(code(&run("doctor DIR", &dir.join("not-there"))), 1);
    assert_eq!(code(&run("doctor DIR --seconds 61", &dir.join(""))), 2);
}

#[test]
fn interrupted_doctor_leaves_nothing_behind() {
    interrupted_leaves_nothing("doctor-interrupted", &["doctor", "--seconds", "30"]);
}
