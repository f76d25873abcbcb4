//! The measurements: that they are made, and leave nothing behind.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::{Dir, bulla, code, json, run};

fn is_empty(dir: &std::path::Path) -> bool {
    std::fs::read_dir(dir).expect("listed").next().is_none()
}

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
    let dir = Dir::new("doctor-interrupted");
    let mut child = bulla()
        .args(["doctor", "--seconds", "30"])
        .arg(dir.join(""))
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    let start = Instant::now();
    while is_empty(&dir.join("")) {
        assert!(start.elapsed() < Duration::from_secs(60), "it never begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(child.wait().expect("ended").signal(), Some(2));
    assert!(is_empty(&dir.join("")));
}
