//! Torn tails and corruption: what is said, how it exits, and that nothing gets worse.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

use crate::common::{Dir, append, code, image, json, run, segment_file, stderr, stdout, write};

const SECTOR: u64 = 4096;

/// A closed log of a few frames in segment 1; returns its path and the end of its frames.
fn log(dir: &Dir) -> (PathBuf, u64) {
    let log = dir.join("log");
    for _ in 0..3 {
        // One entry at a time: how several share frames is a matter of time.
        append(&log, "strict", "an entry\n");
    }
    let end = json("verify DIR", &log).0["last_lsn"].as_u64().expect("a position");
    (log, end)
}

/// The segment that holds the end of the log, and where that is in its file.
fn end_of(log: &Path) -> (PathBuf, u64) {
    let (report, _) = json("verify DIR", log);
    let end = report["last_lsn"].as_u64().expect("a position");
    let segments = report["segment_list"].as_array().expect("segments");
    let live = segments.iter().rfind(|segment| segment["state"] == "live").expect("a live one");
    let offset = SECTOR + end - live["base_lsn"].as_u64().expect("a position");
    (segment_file(log, live["segment"].as_u64().expect("a number")), offset)
}

/// As [`end_of`], of the last entry's frame: where its file has it, and its position. Behind it
/// there may be a durable mark, if the log was idle for a moment before it was closed.
fn last_entry_of(log: &Path) -> (PathBuf, u64, u64) {
    let (file, end) = end_of(log);
    let (report, _) = json("verify DIR", log);
    let bytes = std::fs::read(&file).expect("read");
    let has_entry = |offset: &u64| {
        let sector = usize::try_from(*offset).expect("small");
        bytes[sector..sector + 4096].windows(8).any(|part| part == b"an entry")
    };
    let sectors = (SECTOR..end).step_by(4096);
    let offset = sectors.filter(has_entry).last().expect("an entry");
    (file, offset, report["last_lsn"].as_u64().expect("a position") - (end - offset))
}

#[test]
fn garbage_behind_the_end_is_a_torn_tail_and_replay_cuts_it() {
    let dir = Dir::new("torn");
    let (log, end) = log(&dir);
    let (file, offset) = end_of(&log);
    write(&file, b"half a frame", offset);
    let before = image(&log);

    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["status"].as_str(), exit), (Some("torn_tail"), 3));
    assert_eq!(report["case"], "torn_tail");
    let text = stdout(&run("verify DIR", &log));
    assert!(text.lines().any(|line| line.starts_with("case ") && line.ends_with("torn_tail")));
    assert_eq!((&report["last_lsn"], &report["entries"]), (&end.into(), &3.into()));
    assert!(report["evidence"].as_array().is_some_and(|evidence| !evidence.is_empty()));
    assert_eq!(code(&run("replay DIR --dry-run", &log)), 3);
    let dump = run("dump DIR --format jsonl", &log);
    assert_eq!((code(&dump), stdout(&dump).lines().count()), (0, 3));
    assert!(stderr(&dump).contains("torn tail"));
    for line in ["stat DIR", "repair DIR", "segments DIR"] {
        assert_eq!(code(&run(line, &log)), 0, "{line}");
    }
    assert_eq!(image(&log), before, "looking changes nothing");

    let (report, exit) = json("replay DIR", &log);
    assert_eq!((exit, &report["replayed_entries"]), (0, &3.into()));
    assert!(report["cut_bytes"].as_u64() >= Some(12), "{report}");
    let kept = image(&log.join("quarantine"));
    assert!(kept.values().any(|bytes| bytes.windows(12).any(|part| part == b"half a frame")));
    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["status"].as_str(), exit), (Some("clean"), 0));
    assert!(append(&log, "strict", "after\n").starts_with("ack 4 "));
}

#[test]
fn truncated_tail_is_torn_or_clean_but_never_less_than_was_acknowledged() {
    let dir = Dir::new("truncated");
    let (log, end) = log(&dir);
    let (file, offset) = end_of(&log);
    // The seal and nothing else: whole frames are below it.
    OpenOptions::new()
        .write(true)
        .open(&file)
        .and_then(|file| file.set_len(offset - 1))
        .expect("cut");
    let (report, exit) = json("verify DIR", &log);
    assert!(matches!(exit, 0 | 3), "{report}");
    assert_eq!(report["last_lsn"], end - SECTOR);
    assert_eq!(report["entries"], 3);
}

#[test]
fn damage_below_the_durable_watermark_is_corruption_and_repair_keeps_copies() {
    let dir = Dir::new("corrupt");
    let (log, _) = log(&dir);
    let (file, offset, lsn) = last_entry_of(&log);
    write(&file, b"X", offset + 80);
    let before = image(&log);

    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["status"].as_str(), exit), (Some("corrupt"), 4));
    let replay = run("replay DIR", &log);
    assert_eq!(code(&replay), 4);
    assert!(stderr(&replay).contains("segment") && stderr(&replay).contains("bulla repair"));
    for line in ["replay DIR --dry-run", "dump DIR", "stat DIR --kinds", "repair DIR --dry-run"] {
        assert_eq!(code(&run(line, &log)), 4, "{line}");
    }
    let (plan, exit) = json("repair DIR", &log);
    assert_eq!((exit, &plan["repaired"], &plan["cut_at"]), (4, &false.into(), &lsn.into()));
    assert_eq!((&plan["would_keep"], &plan["first_lost_seq"]), (&2.into(), &3.into()));
    assert!(plan["would_cut"].as_array().is_some_and(|files| !files.is_empty()), "{plan}");
    assert_eq!(image(&log), before, "a refusal changes nothing, nor does a plan");
    assert!(stderr(&run("repair DIR", &log)).contains("--yes"));

    let (done, exit) = json("repair DIR --yes", &log);
    assert_eq!((exit, &done["repaired"], &done["cut_at"]), (0, &true.into(), &lsn.into()));
    let copies = image(&log.join("quarantine"));
    assert!(
        copies.values().any(|copy| Some(copy) == before.get(&file)),
        "the damaged file is kept"
    );
    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["status"].as_str(), exit), (Some("clean"), 0));
    assert_eq!(report["entries"], 2);
    let (again, exit) = json("repair DIR --yes", &log);
    assert_eq!((exit, &again["repaired"]), (0, &false.into()));
}

#[test]
fn undone_repair_leaves_every_byte_as_it_was() {
    let dir = Dir::new("undo");
    let (log, _) = log(&dir);
    let (file, offset, _) = last_entry_of(&log);
    write(&file, b"X", offset + 80);
    let before = image(&log);
    for line in ["repair --undo DIR", "repair --undo DIR --yes"] {
        let refused = run(line, &log);
        assert_eq!(code(&refused), 1);
        assert!(stderr(&refused).contains("no repair of this log"), "{}", stderr(&refused));
    }
    assert_eq!(image(&log), before, "a refusal changes nothing");
    let repaired = run("repair DIR --yes", &log);
    let words = stderr(&repaired);
    assert!(words.contains(&format!("bulla repair --undo {} --yes", log.display())), "{words}");

    let as_repaired = image(&log);
    let (plan, exit) = json("repair --undo DIR", &log);
    assert_eq!((exit, &plan["undone"]), (0, &false.into()), "{plan}");
    assert!(stderr(&run("repair --undo DIR", &log)).contains("--yes"));
    assert_eq!(image(&log), as_repaired, "a plan changes nothing");
    let (done, exit) = json("repair --undo DIR --yes", &log);
    assert_eq!((exit, &done["undone"]), (0, &true.into()));
    let rest = |plan: &serde_json::Value| {
        (plan["restored_segments"].clone(), plan["removed_segments"].clone())
    };
    assert_eq!(rest(&done), rest(&plan));
    assert_eq!(image(&log), before);
    assert_eq!(code(&run("verify DIR", &log)), 4);

    // With an entry since, it would lose that.
    assert_eq!(code(&run("repair DIR --yes", &log)), 0);
    append(&log, "strict", "since\n");
    let as_written = image(&log);
    let refused = run("repair --undo DIR --yes", &log);
    assert_eq!(code(&refused), 1);
    assert!(stderr(&refused).contains("entries were written after it, the first with number 3"));
    assert_eq!(image(&log), as_written);
}

#[test]
fn plan_of_a_repair_counts_what_is_intact_behind_the_damage() {
    let dir = Dir::new("behind");
    let (log, _) = log(&dir);
    let (report, _) = json("verify DIR", &log);
    let first = report["segment_list"]
        .as_array()
        .expect("segments")
        .iter()
        .find(|segment| segment["entries"].as_u64().is_some_and(|entries| entries > 0));
    let first = first.and_then(|segment| segment["segment"].as_u64()).expect("one with an entry");
    write(&segment_file(&log, first), b"X", SECTOR + 80);
    let (plan, exit) = json("repair DIR", &log);
    assert_eq!((exit, &plan["would_keep"]), (4, &0.into()));
    assert_eq!((&plan["would_lose"], &plan["would_lose_intact"]), (&3.into(), &2.into()), "{plan}");
    let text = stdout(&run("repair DIR", &log));
    assert!(text.contains("3 entries") && text.contains("2 of them are intact"), "{text}");
}

#[test]
fn what_a_copy_of_a_growing_log_misses_is_told_as_that() {
    let dir = Dir::new("copied");
    let (log, _) = log(&dir);
    let (file, offset, _) = last_entry_of(&log);
    // As if the copy had read this frame before it was written, and the one behind it after.
    write(&file, &[0; 4096], offset);
    let verify = run("verify DIR", &log);
    assert_eq!(code(&verify), 4);
    assert!(stderr(&verify).contains("bulla backup"), "{}", stderr(&verify));
}

#[test]
fn part_of_a_log_is_shown_without_a_look_at_the_rest() {
    let dir = Dir::new("part");
    let (log, _) = log(&dir);
    let (file, offset, _) = last_entry_of(&log);
    write(&file, b"X", offset + 80);
    assert_eq!(code(&run("dump DIR", &log)), 4);
    for line in ["dump DIR --limit 2", "dump DIR --to-seq 3", "dump DIR --from-seq 2 --limit 1"] {
        assert_eq!(code(&run(line, &log)), 0, "{line}");
    }
    // These would show the damaged one.
    for line in ["dump DIR --limit 3", "dump DIR --from-seq 3 --to-seq 4"] {
        let dump = run(line, &log);
        assert_eq!(code(&dump), 4, "{line}: {}", stderr(&dump));
    }
    assert_eq!(stdout(&run("dump DIR --limit 3 --format jsonl", &log)).lines().count(), 2);
    let (stat, exit) = json("stat DIR", &log);
    assert_eq!((exit, &stat["checked"], &stat["entries"]), (0, &"headers".into(), &3.into()));
}

#[test]
fn log_without_readable_control_is_corrupt_in_json_too() {
    let dir = Dir::new("control");
    let (log, _) = log(&dir);
    std::fs::write(log.join("CONTROL"), [7; 100]).expect("written");
    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["status"].as_str(), exit), (Some("corrupt"), 4));
    std::fs::remove_file(log.join("CONTROL")).expect("removed");
    assert_eq!(json("verify DIR", &log).1, 4);
    for line in ["verify DIR", "repair DIR", "repair DIR --yes"] {
        let refused = run(line, &log);
        assert_eq!(code(&refused), 4);
        let words = stderr(&refused);
        assert!(words.contains("restore a copy") && !words.contains("bulla repair DIR"), "{words}");
    }
}

#[test]
fn map_of_segments_adds_up_and_shows_what_is_torn() {
    let dir = Dir::new("segments");
    let (log, _) = log(&dir);
    let (file, offset) = end_of(&log);
    write(&file, &[b'h'; 4096], offset);
    let lines = stdout(&run("segments DIR --format jsonl", &log));
    let mut torn = 0;
    for line in lines.lines() {
        let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let len = |name: &str| row[format!("{name}_bytes")].as_u64().expect("a length");
        let parts = ["header", "live", "dead", "torn", "unread", "zero"].map(len);
        assert_eq!(parts.iter().sum::<u64>(), len("file"), "{row}");
        assert!(len("allocated") >= len("file"), "every segment is written wholly: {row}");
        torn += len("torn");
    }
    assert_eq!(torn, SECTOR);
    assert!(stderr(&run("segments DIR", &log)).contains("torn tail"));
    write(&file, b"X", offset - 2 * SECTOR + 80);
    assert_eq!(code(&run("segments DIR", &log)), 4);
}
