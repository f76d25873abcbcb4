//! The main job on a small scale: real records, real kills, nothing lost.

use crate::common::{Dir, bulla, code, flights, stderr};

fn drill(level: &str, backend: &str, dir: &Dir) -> serde_json::Value {
    let log = dir.join(&format!("{level}-{backend}"));
    let output = bulla()
        .args(["drill", "--kills", "3", "--seed", "7", "--max-life-ms", "80", "--format", "json"])
        .args(["--level", level, "--backend", backend, "--input"])
        .arg(flights())
        .arg("--dir")
        .arg(&log)
        .output()
        .expect("runs");
    assert_eq!(
        code(&output),
        0,
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        stderr(&output)
    );
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["kills"], 3);
    assert_eq!((&report["lost_forbidden"], &report["prefix_violations"]), (&0.into(), &0.into()));
    assert!(report["acknowledged"].as_u64() > Some(0), "{report}");
    assert!(report["kills_while_opening"].as_u64() > Some(0), "{report}");
    assert_eq!(report["timeline"].as_array().map(Vec::len), Some(3));
    report
}

#[test]
fn balanced_and_strict_lose_nothing_and_relaxed_at_most_the_ring() {
    let dir = Dir::new("drill");
    for backend in ["direct", "buffered", "uring"] {
        for level in ["balanced", "strict"] {
            let report = drill(level, backend, &dir);
            assert_eq!(report["lost_allowed"], 0);
            assert!(report["recovered"].as_u64() >= report["acknowledged"].as_u64());
        }
        let report = drill("relaxed", backend, &dir);
        assert!(report["max_lost_bytes"].as_u64() <= report["ring_bytes"].as_u64());
    }
}

#[test]
fn drill_does_not_touch_a_directory_that_holds_something() {
    let dir = Dir::new("drill-full");
    std::fs::write(dir.join("precious"), "data").expect("written");
    let output = bulla()
        .args(["drill", "--input"])
        .arg(flights())
        .arg("--dir")
        .arg(dir.join(""))
        .output()
        .expect("runs");
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("empty"), "{}", stderr(&output));
    assert!(dir.join("precious").exists());
}
