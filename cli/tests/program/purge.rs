//! `bulla purge`: what it says, what it removes, what it refuses.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use bulla_tests::image::Image;
use serde_json::Value;

use crate::common::{
    Dir, bulla, code, few_flights, image, json, run, segment_file, stderr, stdout, write,
};

const SMALL: &str = "--segment-size 64KiB --ring-size 64KiB";
const LINES: u64 = 2_000;

/// Returns a log of [`LINES`] lines, in several segments.
fn lines(log: &Path) {
    let mut command = bulla();
    command.arg("append").arg(log).args(SMALL.split(' '));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("runs");
    let mut input = child.stdin.take().expect("piped");
    for line in 1..=LINES {
        writeln!(input, "{line:0>200}").expect("written");
    }
    drop(input);
    assert!(child.wait().expect("ends").success());
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {value}"))
}

#[test]
fn purge_shows_what_it_would_remove_and_removes_it_with_yes() {
    let dir = Dir::new("purge");
    let log = dir.join("log");
    lines(&log);
    let before = image(&log);
    let (shown, exit) = json("purge DIR --keep-from seq:1000", &log);
    assert_eq!((exit, &shown["purged"]), (0, &false.into()), "{shown}");
    let table = run("purge DIR --keep-from seq:1000", &log);
    assert!(stderr(&table).contains("add --yes"), "{}", stderr(&table));
    assert!(stdout(&table).contains("removed segments"), "{}", stdout(&table));
    assert!(image(&log) == before, "it changed something");
    let (done, exit) = json("purge DIR --keep-from seq:1000 --yes", &log);
    assert_eq!((exit, &done["purged"]), (0, &true.into()), "{done}");
    for field in ["first_lsn", "first_seq", "removed_segment_list", "removed_entries"] {
        assert_eq!(done[field], shown[field], "{field}");
    }
    let first = number(&done, "first_seq");
    assert!(first > 500 && first <= 1000, "{done}");
    assert_eq!(number(&done, "removed_entries") + number(&done, "kept_entries"), LINES);
    let removed = number(&done, "removed_segments");
    assert_eq!(number(&done, "removed_bytes"), removed * 64 * 1024);
    let (verified, exit) = json("verify DIR", &log);
    assert_eq!((exit, &verified["first_seq"]), (0, &done["first_seq"]));
    assert_eq!(verified["epoch"], 1, "a purge opens nothing");
    let again = run("purge DIR --keep-from seq:1000 --yes", &log);
    assert!(stderr(&again).contains("nothing to purge"), "{}", stderr(&again));
    let (all, _) = json("purge DIR --keep-from end --yes", &log);
    assert!(number(&all, "first_seq") > first);
    assert_eq!(json("replay DIR", &log).0["next_seq"], LINES + 1);
}

#[test]
fn positions_of_a_purge_are_lsns_numbers_and_times() {
    let dir = Dir::new("purge-positions");
    let log = dir.join("log");
    lines(&log);
    let at = |keep_from: &str| json(&format!("purge DIR --keep-from {keep_from}"), &log).0;
    let by_number = at("seq:1000");
    let first = number(&by_number, "first_lsn");
    assert_eq!(at(&first.to_string())["first_seq"], by_number["first_seq"]);
    assert_eq!(at(&format!("lsn:{first}"))["first_seq"], by_number["first_seq"]);
    assert!(number(&at(&(first - 1).to_string()), "first_lsn") < first);
    assert_eq!(at("2013-01-01T00:00:00Z")["first_seq"], 1);
    assert_eq!(at("2100-01-01T00:00:00Z")["first_seq"], at("end")["first_seq"]);
    for wrong in ["noon", "seq:0", "start"] {
        assert_eq!(code(&run(&format!("purge DIR --keep-from {wrong}"), &log)), 2, "{wrong}");
    }
    assert_eq!(code(&run("purge DIR", &log)), 2);
    assert_eq!(code(&run("purge DIR --keep-from end --yes --dry-run", &log)), 2);
}

#[test]
fn corrupt_log_and_missing_log_are_not_purged() {
    let dir = Dir::new("purge-corrupt");
    let log = dir.join("log");
    lines(&log);
    write(&segment_file(&log, 2), &[0xFF; 16], 8192);
    let before = image(&log);
    for yes in ["", " --yes"] {
        let refused = run(&format!("purge DIR --keep-from end{yes}"), &log);
        assert_eq!(code(&refused), 4, "{}", stderr(&refused));
        assert!(stderr(&refused).contains("do: "), "{}", stderr(&refused));
        assert_eq!(code(&run(&format!("purge DIR --keep-from end{yes}"), &dir.join("none"))), 1);
    }
    assert!(image(&log) == before);
}

#[test]
fn purge_of_a_store_stops_at_what_its_checkpoints_need() {
    let dir = Dir::new("purge-store");
    let store = dir.join("store");
    let load = || {
        let mut command = bulla();
        command.arg("load").arg(few_flights(&dir, 500)).arg(&store).args(SMALL.split(' '));
        let output = command.output().expect("runs");
        assert_eq!(code(&output), 0, "{}", stderr(&output));
    };
    let refused = |keep_from: &str| {
        let refused = run(&format!("purge DIR --keep-from {keep_from} --yes"), &store);
        assert_eq!(code(&refused), 1, "{}", stderr(&refused));
        stderr(&refused)
    };
    for _ in 0..3 {
        load();
    }
    assert!(refused("2100-01-01T00:00:00Z").contains("needs its log from LSN 0 on"));
    for _ in 0..2 {
        let taken = run(&format!("checkpoint DIR --keep-log {SMALL}"), &store);
        assert_eq!(code(&taken), 0, "{}", stderr(&taken));
        load();
    }
    let words = refused("2100-01-01T00:00:00Z");
    assert!(words.contains("needs its log from LSN") && words.contains("do: "), "{words}");
    let tokens = stdout(&run("scan DIR --format jsonl", &store));
    let (done, exit) = json("purge DIR --keep-from end --yes", &store);
    assert_eq!((exit, &done["purged"]), (0, &true.into()), "{done}");
    assert_eq!(stdout(&run("scan DIR --format jsonl", &store)), tokens);
    let (verified, exit) = json("verify DIR", &store);
    assert_eq!(exit, 0, "{verified}");
    let usable = verified["checkpoint_list"].as_array().expect("rows").iter();
    assert!(usable.clone().count() == 2 && usable.clone().all(|row| row["usable"] == true));
}

#[test]
fn full_disk_is_told_at_an_open_and_a_purge_makes_room() {
    let disk = match Image::new("cli-full", 16 << 20) {
        Ok(disk) => disk,
        Err(reason) => return bulla_tests::skipped(reason),
    };
    let log = disk.root().join("log");
    lines(&log);
    let mut filler = std::fs::File::create(disk.root().join("filler")).expect("created");
    for len in [256 * 1024, 4096] {
        while filler.write_all(&vec![1; len]).and_then(|()| filler.sync_data()).is_ok() {}
    }
    let refused = run("replay DIR", &log);
    assert_eq!(code(&refused), 1, "{}", stdout(&refused));
    let words = stderr(&refused);
    assert!(words.contains("no space to open") && words.contains("bulla purge"), "{words}");
    for line in ["stat DIR", "verify DIR", "dump DIR --limit 1", "replay DIR --dry-run"] {
        assert_eq!(code(&run(line, &log)), 0, "{line}");
    }
    let (purged, exit) = json("purge DIR --keep-from end --yes", &log);
    assert_eq!((exit, &purged["purged"]), (0, &true.into()), "{purged}");
    // A new segment of the usual length would need more than that.
    let (opened, exit) = json(&format!("replay DIR {SMALL}"), &log);
    assert_eq!((exit, &opened["next_seq"]), (0, &(LINES + 1).into()), "{opened}");
}

#[test]
fn new_log_on_a_full_disk_says_what_to_do_and_is_created_later() {
    let disk = match Image::new("cli-new", 16 << 20) {
        Ok(disk) => disk,
        Err(reason) => return bulla_tests::skipped(reason),
    };
    let log = disk.root().join("log");
    let filler = disk.root().join("filler");
    let mut file = std::fs::File::create(&filler).expect("created");
    for len in [256 * 1024, 4096] {
        while file.write_all(&vec![1; len]).and_then(|()| file.sync_data()).is_ok() {}
    }
    for line in ["append DIR", "put DIR --id 1"] {
        let refused = run(line, &log);
        assert_eq!(code(&refused), 1, "{}", stdout(&refused));
        let words = stderr(&refused);
        assert!(words.contains("no log was created") && words.contains("df -i"), "{words}");
    }
    drop(file);
    std::fs::remove_file(&filler).expect("removed");
    // The first of them was of a log, this one is of a store.
    let stored = run(&format!("put DIR --id 1 {SMALL}"), &log);
    assert_eq!(code(&stored), 0, "{}", stderr(&stored));
}

#[test]
fn limit_of_a_files_length_is_told_and_kills_nobody() {
    let dir = Dir::new("limit");
    let log = dir.join("log");
    let limited = |limit: &str| {
        let mut shell = std::process::Command::new("sh");
        let script = format!("ulimit -f {limit}; exec \"$0\" append \"$1\" </dev/null");
        shell.arg("-c").arg(script).arg(env!("CARGO_BIN_EXE_bulla")).arg(&log);
        shell.output().expect("runs")
    };
    for _ in 0..2 {
        let refused = limited("1000");
        assert_eq!(code(&refused), 1, "{}", stderr(&refused));
        let words = stderr(&refused);
        assert!(words.contains("no log was created") && words.contains("ulimit"), "{words}");
    }
    let appended = limited("unlimited");
    assert_eq!(code(&appended), 0, "{}", stderr(&appended));
}
