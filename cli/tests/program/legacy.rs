//! `bulla load --from legacy`: each defect of the old log, in files made by its rules.

use std::path::{Path, PathBuf};
use std::process::Output;

use bulla_tests::legacy::{TOKEN_CREATED, created, record, token};
use serde_json::Value;

use crate::common::{Dir, bulla, code, json, run, stderr, stdout};

fn load(file: &Path, more: &[&str]) -> Output {
    let words = ["load", "--from", "legacy", "--format", "json"];
    bulla().args(words).arg(file).args(more).output().expect("runs")
}

/// Writes the parts as one file, loads it and gives the report and the ids of the store.
fn loaded(dir: &Dir, parts: &[Vec<u8>], more: &[&str]) -> (Value, Vec<u64>) {
    let (file, store) = (dir.join("old.wal"), dir.join("store"));
    let bytes = parts.concat();
    std::fs::write(&file, &bytes).expect("written");
    let path = store.to_str().expect("UTF-8");
    let output = load(&file, &[&[path], more].concat());
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert_eq!(std::fs::read(&file).expect("read"), bytes, "the file is never touched");
    (serde_json::from_slice(&output.stdout).expect("JSON"), ids(&store))
}

fn ids(store: &Path) -> Vec<u64> {
    let tokens = json("scan DIR", store).0;
    let tokens = tokens.as_array().expect("a list");
    tokens.iter().filter_map(|token| token["local_id"].as_u64()).collect()
}

/// What was skipped for one reason: how often, bytes, where first.
fn skipped<'a>(report: &'a Value, why: &str) -> Option<[&'a Value; 3]> {
    let list = report["skipped"].as_array().expect("a list");
    let found = list.iter().find(|skipped| skipped["why"] == why)?;
    Some(["count", "bytes", "first_at"].map(|name| &found[name]))
}

fn write(dir: &Dir, bytes: &[u8]) -> PathBuf {
    let file = dir.join("old.wal");
    std::fs::write(&file, bytes).expect("written");
    file
}

#[test]
fn last_record_of_an_id_is_loaded_and_loading_again_changes_nothing() {
    let dir = Dir::new("legacy");
    let newer = record(TOKEN_CREATED, token(2, 9.5).as_bytes());
    let parts = [created(1), created(2), newer, created(3)];
    let (report, ids) = loaded(&dir, &parts, &["--level", "strict"]);
    assert_eq!(ids, [1, 2, 3]);
    assert_eq!((&report["records"], &report["loaded"]), (&4.into(), &4.into()));
    assert_eq!(report["skipped"], Value::Array(vec![]));
    assert_eq!(report["first_time"], "2013-01-01T10:00:00.000001Z");
    let (found, _) = json("get DIR 2 --type event", &dir.join("store"));
    assert_eq!(
        (&found["weight"], &found["timestamp"]),
        (&9.5.into(), &"2106-02-07T06:28:15Z".into())
    );
    let (again, _) = loaded(&dir, &parts, &[]);
    assert_eq!((&again["tokens_before"], &again["tokens"]), (&3.into(), &3.into()));
}

#[test]
fn partial_payload_at_the_tail_costs_nothing_before_it() {
    let dir = Dir::new("legacy-torn");
    let (report, ids) = loaded(&dir, &[created(1), created(2), created(3)[..50].to_vec()], &[]);
    assert_eq!(ids, [1, 2]);
    assert_eq!(skipped(&report, "torn tail"), Some([&1.into(), &50.into(), &184.into()]));
    assert_eq!(report["complete"], true);
}

#[test]
fn zero_filled_tail_costs_nothing_before_it() {
    let dir = Dir::new("legacy-zeros");
    let (report, ids) = loaded(&dir, &[created(1), vec![0; 1 << 20]], &[]);
    assert_eq!(ids, [1]);
    let zeros = [&1.into(), &(1 << 20).into(), &92.into()];
    assert_eq!(skipped(&report, "zeros at the end"), Some(zeros));
}

#[test]
fn records_appended_after_a_torn_tail_are_loaded() {
    let dir = Dir::new("legacy-behind");
    let torn = |local| created(local)[..91].to_vec();
    let parts = [created(1), torn(2), created(3), torn(4), created(5), torn(6)];
    let (report, ids) = loaded(&dir, &parts, &[]);
    assert_eq!(ids, [1, 3, 5]);
    assert_eq!(skipped(&report, "cut short"), Some([&2.into(), &182.into(), &92.into()]));
    assert_eq!(skipped(&report, "torn tail"), Some([&1.into(), &91.into(), &458.into()]));
}

#[test]
fn other_kinds_are_passed_over_and_a_snapshot_hides_nothing_before_it() {
    let dir = Dir::new("legacy-kinds");
    let parts = [
        created(1),
        record(2, b"an experience"),
        record(3, b""),
        record(4, &[7; 100_000]),
        record(77, b"of a kind that nobody knows"),
        record(TOKEN_CREATED, b"not 64 bytes"),
        created(2),
    ];
    let (report, ids) = loaded(&dir, &parts, &[]);
    assert_eq!(ids, [1, 2]);
    assert_eq!(report["records"], 7);
    for (why, bytes) in [
        ("experience added", 13),
        ("connection updated", 0),
        ("snapshot", 100_000),
        ("unknown kind", 27),
        ("token of another length", 12),
    ] {
        let found = skipped(&report, why).map(|[count, bytes, _]| [count, bytes]);
        assert_eq!(found, Some([&1.into(), &bytes.into()]), "{why}");
    }
}

#[test]
fn tokens_that_can_not_be_are_reported_and_not_loaded() {
    let dir = Dir::new("legacy-nan");
    let broken = |at: usize, with: &[u8]| {
        let mut bytes = *token(7, 1.0).as_bytes();
        bytes[at..at + with.len()].copy_from_slice(with);
        record(TOKEN_CREATED, &bytes)
    };
    let parts = [broken(54, &f32::NAN.to_le_bytes()), broken(48, &[0; 4]), created(2)];
    let (report, ids) = loaded(&dir, &parts, &[]);
    assert_eq!(ids, [2]);
    assert_eq!(skipped(&report, "invalid token"), Some([&2.into(), &128.into(), &0.into()]));
    assert_eq!(report["skipped"][0]["first"], "weight NaN is not within 0 and 100");
}

#[test]
fn damage_where_tokens_can_have_been_loads_nothing_unless_asked_to() {
    let dir = Dir::new("legacy-damage");
    let mut damaged = created(2);
    damaged[30] ^= 1;
    let mut huge = created(4);
    huge[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    let parts = [created(1), damaged, created(3), huge, created(5)];
    let file = write(&dir, &parts.concat());
    let store = dir.join("store");
    let refused = load(&file, &[store.to_str().expect("UTF-8")]);
    assert_eq!(code(&refused), 4, "{}", stderr(&refused));
    let words = stderr(&refused);
    assert!(words.contains("2 places") && words.contains("first at byte 92"), "{words}");
    assert!(words.contains("do: ") && words.contains("--skip-damaged"), "{words}");
    assert!(!store.exists(), "nothing is made before all is known");

    let (report, ids) = loaded(&dir, &parts, &["--skip-damaged"]);
    assert_eq!(ids, [1, 3, 5]);
    assert_eq!(skipped(&report, "damaged"), Some([&2.into(), &184.into(), &92.into()]));
}

#[test]
fn dry_run_tells_everything_by_report_and_exit_code_and_makes_nothing() {
    let dir = Dir::new("legacy-dry");
    let torn = created(2)[..20].to_vec();
    let mut damaged = created(2);
    damaged[0] ^= 1;
    for (parts, exit) in [
        (vec![], 0),
        (vec![created(1)], 0),
        (vec![created(1), torn.clone(), created(3)], 0),
        (vec![created(1), torn.clone()], 3),
        (vec![created(1), vec![0; 10]], 3),
        (vec![created(1), damaged, created(3), torn], 4),
    ] {
        let file = write(&dir, &parts.concat());
        let store = dir.join("store");
        for more in [&[][..], &[store.to_str().expect("UTF-8")][..]] {
            let output = load(&file, &[&["--dry-run"][..], more].concat());
            assert_eq!(code(&output), exit, "{}", stderr(&output));
            let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            assert_eq!(report["bytes"], parts.concat().len());
            assert!(!store.exists());
        }
    }
    let said = stdout(&run("load --from legacy --dry-run DIR", &dir.join("old.wal")));
    assert!(said.contains("1 x damaged, 92 bytes, the first at byte 92"), "{said}");
}

#[test]
fn file_that_grows_while_it_is_read_is_an_error() {
    let dir = Dir::new("legacy-grows");
    let one = created(1);
    let file = write(&dir, &one.repeat(300_000));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write as _;
            let mut file = std::fs::File::options().append(true).open(&file).expect("opened");
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all(&one).expect("appended");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        });
        let output = load(&file, &["--dry-run"]);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(code(&output), 1, "{}", stderr(&output));
        assert!(stderr(&output).contains("changed while it was being read"), "{}", stderr(&output));
    });
}

#[test]
fn what_is_no_legacy_log_is_told_from_a_damaged_one() {
    let dir = Dir::new("legacy-none");
    let file = write(&dir, &b"year,month,day\n".repeat(100));
    let output = load(&file, &["--dry-run"]);
    assert_eq!(code(&output), 1);
    assert!(stderr(&output).contains("holds no intact record"), "{}", stderr(&output));
    let store = dir.join("store");
    assert_eq!(code(&load(&dir.join("none"), &["--dry-run"])), 1);
    let mapped = load(&file, &[store.to_str().expect("UTF-8"), "--map", "weight=a"]);
    assert_eq!(code(&mapped), 2, "{}", stderr(&mapped));
    assert_eq!(code(&run("load --from legacy DIR", &file)), 2, "neither a store nor --dry-run");
    assert!(!store.exists());
}

#[test]
fn dry_run_of_a_csv_file_counts_its_rows_and_makes_nothing() {
    let dir = Dir::new("csv-dry");
    let file = crate::common::few_flights(&dir, 20);
    let output = bulla().args(["load", "--dry-run", "--format", "json"]).arg(&file).output();
    let output = output.expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(report["rows"], 20);
}
