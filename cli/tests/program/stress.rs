//! `bulla stress`: that every part is measured, the crash checked, and nothing left behind.

use std::path::Path;

use crate::common::{Dir, code, interrupted_leaves_nothing, is_empty, json, run, stderr};

#[test]
fn every_part_is_measured_every_crash_checked_and_nothing_left_behind() {
    let dir = Dir::new("stress");
    let line = "stress DIR --records 20000 --threads 3 --rounds 2 --seed 5 --allow-tmpfs";
    let (report, exit) = json(line, &dir.join(""));
    assert_eq!(exit, 0, "{report}");
    assert!(is_empty(&dir.join("")));
    assert_eq!((&report["records"], &report["seed"]), (&20_000.into(), &5.into()));
    let parts = report["parts"].as_array().expect("parts");
    let levels = ["relaxed", "balanced", "strict"];
    let mut expected = vec![("memory: a Vec", None), ("quota: refused puts", None)];
    expected.extend(levels.map(|level| ("log", Some(level))));
    expected.extend(levels.map(|level| ("store: table, quota, log", Some(level))));
    let names: Vec<_> = parts
        .iter()
        .map(|part| (part["part"].as_str().unwrap_or_default(), part["level"].as_str()))
        .collect();
    assert_eq!(names, expected);
    assert_eq!(parts[0]["ratio"], 1.0);
    for part in parts {
        assert_eq!(part["all_seconds"].as_array().map(Vec::len), Some(2), "{part}");
        assert!(part["records_per_second"].as_u64() > Some(0), "{part}");
        // What is logged strictly is synced by the log itself, whatever else is.
        assert!(part["level"] != "strict" || part["syncs"].as_u64() > Some(0), "{part}");
    }
    let crashes = report["crashes"].as_array().expect("crashes");
    assert_eq!(crashes.len(), 3);
    for crash in crashes {
        assert!(crash["acknowledged"].as_u64() >= Some(10_000), "{crash}");
        let exact = ["wrong", "out_of_order"].iter().all(|name| crash[*name] == 0);
        assert!(exact && crash["ok"] == true, "{crash}");
        if crash["kill_9_at_level"] != "relaxed" {
            assert!(crash["recovered"].as_u64() >= crash["acknowledged"].as_u64(), "{crash}");
        }
    }
}

#[test]
fn file_system_in_memory_is_refused_unless_allowed() {
    let shm = Path::new("/dev/shm");
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if !mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq(["/dev/shm", "tmpfs"])) {
        bulla_tests::skipped("/dev/shm is no file system in memory");
        return;
    }
    let refused = run("stress DIR --records 100", shm);
    assert_eq!(code(&refused), 1);
    let words = stderr(&refused);
    assert!(words.contains("tmpfs") && words.contains("--allow-tmpfs"), "{words}");
}

#[test]
fn interrupted_stress_leaves_nothing_behind() {
    interrupted_leaves_nothing(
        "stress-interrupted",
        &["stress", "--allow-tmpfs", "--records", "1000000", "--rounds", "100"],
    );
}
