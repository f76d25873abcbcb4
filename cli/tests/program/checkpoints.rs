//! Stores with checkpoints, and logs that were purged by them: what every command says, how it
//! exits, and what a repair costs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use bulla_engine::{Store, StoreOptions};
use bulla_tests::image::Image;
use serde_json::Value;

use crate::common::{
    Dir, append, bulla, code, few_flights, image, json, run, segment_file, stderr, stdout, write,
};

const ROWS: usize = 500;
const SMALL: &str = "--segment-size 64KiB --ring-size 64KiB";

/// Loads the first rows of the sample; the same tokens again if they are there.
fn load(dir: &Dir, store: &Path, rows: usize) {
    let file = few_flights(dir, rows);
    let mut command = bulla();
    command.arg("load").arg(file).arg(store).args(SMALL.split(' '));
    let output = command.output().expect("runs");
    assert_eq!(code(&output), 0, "{}", stderr(&output));
}

fn checkpoint(store: &Path) -> Value {
    let (taken, exit) = json(&format!("checkpoint DIR {SMALL}"), store);
    assert_eq!(exit, 0, "{taken}");
    taken
}

/// A store of [`ROWS`] tokens with some checkpoints, and changes after each.
fn store(dir: &Dir, checkpoints: u64) -> PathBuf {
    let store = dir.join("store");
    load(dir, &store, ROWS);
    for number in 1..=checkpoints {
        assert_eq!(checkpoint(&store)["number"], number);
        load(dir, &store, ROWS);
    }
    store
}

fn checkpoint_files(store: &Path) -> Vec<PathBuf> {
    let files = image(&store.join("checkpoints")).into_keys();
    files.filter(|path| path.extension().is_some_and(|extension| extension == "ckpt")).collect()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field}: {value}"))
}

/// The numbers of the checkpoints in a report of which a field is true.
fn those(report: &Value, field: &str) -> Vec<u64> {
    let list = report["checkpoint_list"].as_array().unwrap_or_else(|| panic!("{report}"));
    let those = list.iter().filter(|row| row[field] == true);
    those.map(|row| number(row, "checkpoint")).collect()
}

/// All tokens that the store shows.
fn tokens(store: &Path) -> Value {
    let (tokens, exit) = json("scan DIR", store);
    assert_eq!(exit, 0);
    tokens
}

#[test]
fn checkpoint_says_which_it_took_and_what_is_left_of_the_log() {
    let dir = Dir::new("checkpoint");
    let store = store(&dir, 0);
    let before = tokens(&store);
    let first = checkpoint(&store);
    assert_eq!((&first["number"], &first["new"]), (&1.into(), &true.into()));
    assert_eq!((&first["tokens"], &first["first_lsn"]), (&ROWS.into(), &0.into()));
    assert_eq!(
        first["file_bytes"],
        std::fs::metadata(&checkpoint_files(&store)[0]).expect("there").len()
    );

    // Without a change none is taken, and it says so; to people in words.
    let again = checkpoint(&store);
    assert_eq!((&again["number"], &again["new"]), (&1.into(), &false.into()));
    let words = run("checkpoint DIR", &store);
    assert_eq!(code(&words), 0);
    assert!(stderr(&words).contains("nothing has changed since"), "{}", stderr(&words));
    assert!(stdout(&words).contains("first lsn"), "{}", stdout(&words));

    load(&dir, &store, ROWS);
    let words = run(&format!("checkpoint DIR {SMALL}"), &store);
    assert!(stderr(&words).contains("The checkpoint is durable"), "{}", stderr(&words));
    // The second one lets go what the first does not need.
    let log_from = |store: &Path| number(&json("stat DIR", store).0, "first_lsn");
    let from = log_from(&store);
    assert!(from > 0 && from <= number(&first, "lsn"), "{from} {first}");
    load(&dir, &store, ROWS);
    let kept = json(&format!("checkpoint DIR --keep-log {SMALL}"), &store).0;
    assert_eq!((number(&kept, "number"), number(&kept, "first_lsn")), (3, from));
    load(&dir, &store, ROWS);
    let purged = checkpoint(&store);
    assert!(number(&purged, "first_lsn") > number(&first, "lsn"), "{purged}");
    assert_eq!(number(&purged, "first_lsn"), log_from(&store));
    assert_eq!(checkpoint_files(&store).len(), 2);
    assert_eq!(tokens(&store), before);
    let help = stdout(&run("checkpoint --help", &store));
    assert!(help.contains("bulla checkpoint /var/lib/flights"), "{help}");
}

#[test]
fn checkpoint_is_refused_with_a_reason_and_something_to_do() {
    let dir = Dir::new("refused");
    let (file, lines) = (few_flights(&dir, 5), dir.join("lines"));
    append(&lines, "strict", "a line\n");
    std::fs::create_dir(dir.join("empty")).expect("made");
    let cases = [
        (dir.join("none"), "holds no log"),
        (dir.join("empty"), "holds no log"),
        (file, "Not a directory"),
        (lines, "holds plain entries"),
    ];
    for (path, why) in cases {
        let refused = run("checkpoint DIR", &path);
        assert_eq!(code(&refused), 1, "{}", path.display());
        let words = stderr(&refused);
        assert!(words.contains(why) && words.contains("  do: "), "{words}");
        assert!(stdout(&refused).is_empty() && !path.join("checkpoints").exists());
    }
    assert!(!dir.join("none").exists());

    let store = store(&dir, 1);
    let open = Store::open(&store, &StoreOptions::new()).expect("open");
    let locked = run("checkpoint DIR", &store);
    assert_eq!(code(&locked), 1);
    let words = stderr(&locked);
    assert!(words.contains("locked") && words.contains("stop the program"), "{words}");
    assert!(words.contains("Waiting for the program that has it open, 5 s at most."), "{words}");
    drop(open);

    write(&segment_file(&store, last_segment(&store)), b"X", 4096 + 80);
    let before = image(&store);
    let corrupt = run("checkpoint DIR", &store);
    assert_eq!(code(&corrupt), 4, "{}", stderr(&corrupt));
    assert_eq!(image(&store), before, "a refusal changes nothing");
}

/// The last segment with entries in it.
fn last_segment(store: &Path) -> u64 {
    let (report, _) = json("stat DIR", store);
    let segments = report["segment_list"].as_array().expect("segments");
    let last = segments.iter().rfind(|segment| number(segment, "entries") > 0);
    number(last.expect("one with entries"), "segment")
}

#[test]
fn store_on_a_read_only_file_system_is_read_and_no_checkpoint_is_taken_of_it() {
    let mut disk = match Image::new("cli-read-only", 16 << 20) {
        Ok(disk) => disk,
        Err(reason) => return bulla_tests::skipped(reason),
    };
    let dir = Dir::new("read-only");
    let made = store(&dir, 3);
    let to = disk.root().join("store");
    let copied = std::process::Command::new("cp").arg("-r").arg(&made).arg(&to).status();
    assert!(copied.expect("cp runs").success());
    disk.unmount().expect("unmounted");
    disk.mount(true).expect("mounted");
    let refused = run("checkpoint DIR", &to);
    assert_eq!(code(&refused), 1);
    let words = stderr(&refused);
    assert!(words.contains("Read-only") && words.contains("for writing"), "{words}");
    assert_eq!(tokens(&to), tokens(&made));
    for line in ["stat DIR", "verify DIR", "dump DIR", "segments DIR", "replay DIR --dry-run"] {
        assert_eq!(code(&run(line, &to)), 0, "{line}");
    }
}

#[test]
fn every_command_that_reads_knows_a_log_that_was_purged() {
    let dir = Dir::new("purged");
    let store = store(&dir, 3);
    let before = image(&store);

    let (stat, exit) = json("stat DIR --kinds", &store);
    let (first, first_seq) = (number(&stat, "first_lsn"), number(&stat, "first_seq"));
    let entries = number(&stat, "entries");
    assert_eq!((exit, stat["status"].as_str()), (0, Some("clean")));
    assert!(first > 0 && first_seq > 1, "{stat}");
    assert_eq!(entries, number(&stat, "next_seq") - first_seq);
    assert_eq!(those(&stat, "usable"), [3, 2]);
    assert_eq!(stat["kinds"][0]["entries"], entries);

    let (verify, exit) = json("verify DIR", &store);
    assert_eq!((exit, those(&verify, "usable")), (0, vec![3, 2]));
    assert_eq!((&verify["first_lsn"], &verify["entries"]), (&first.into(), &entries.into()));
    assert!(stdout(&run("verify DIR", &store)).contains("3 whole"));

    // All of the tokens, though most entries that made them are gone.
    let shown = tokens(&store);
    let ids: BTreeSet<_> =
        shown.as_array().expect("rows").iter().map(|row| number(row, "id")).collect();
    assert_eq!(ids.len(), ROWS);
    let (token, exit) = json("get DIR 1 --type event", &store);
    assert_eq!((exit, &token), (0, &shown[0]));
    assert_eq!(code(&run(&format!("get DIR {} --type event", ROWS + 1), &store)), 1);

    let dump = stdout(&run("dump DIR --format jsonl", &store));
    let rows: Vec<Value> =
        dump.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let seqs: Vec<_> = rows.iter().map(|row| number(row, "seq")).collect();
    assert_eq!(seqs, (first_seq..first_seq + entries).collect::<Vec<_>>());
    let follow = stdout(&run("dump DIR --follow --limit 1 --format jsonl", &store));
    assert_eq!(follow.lines().next(), dump.lines().next());

    let segments = stdout(&run("segments DIR --format jsonl", &store));
    let segments: Vec<Value> =
        segments.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(
        number(&segments[0], "segment") > 1 && segments[0]["base_lsn"] == first,
        "{segments:?}"
    );
    assert!(segments.iter().all(|segment| segment["dead_bytes"] == 0), "{segments:?}");
    assert_eq!(segments.iter().map(|segment| number(segment, "entries")).sum::<u64>(), entries);

    let (replay, exit) = json("replay DIR --dry-run", &store);
    assert_eq!((exit, &replay["replayed_entries"]), (0, &entries.into()));
    assert_eq!(replay["replayed_first"]["seq"], first_seq);

    for line in [
        "dump DIR --from-seq 1",
        "dump DIR --from-lsn 64",
        "dump DIR --follow --from-seq 1",
        "replay DIR --dry-run --from seq:1",
    ] {
        let refused = run(line, &store);
        assert_eq!(code(&refused), 1, "{line}");
        let words = stderr(&refused);
        assert!(words.contains("purged") && words.contains("`bulla stat DIR`"), "{words}");
    }
    let plan = run("repair DIR", &store);
    assert_eq!(code(&plan), 0);
    assert!(stderr(&plan).contains("needs no repair"), "{}", stderr(&plan));
    assert_eq!(image(&store), before, "looking changes nothing");

    // What opens it changes nothing of what is told.
    let (replay, exit) = json(&format!("replay DIR {SMALL}"), &store);
    assert_eq!((exit, &replay["replayed_entries"]), (0, &entries.into()));
    assert_eq!(code(&run("doctor DIR --seconds 0.01", &store)), 0);
    assert_eq!(tokens(&store), shown);
    assert_eq!(json("verify DIR", &store).1, 0);
}

#[test]
fn damaged_checkpoint_is_told_by_every_command_and_two_are_a_corruption() {
    let dir = Dir::new("damaged-checkpoints");
    let store = store(&dir, 3);
    let shown = tokens(&store);
    let files = checkpoint_files(&store);
    let [older, newest] = &files[..] else { panic!("{files:?}") };
    let (older_bytes, newest_bytes) =
        [older, newest].map(|path| std::fs::read(path).expect("read")).into();

    write(newest, b"X", 100);
    let (verify, exit) = json("verify DIR", &store);
    assert_eq!((exit, those(&verify, "usable")), (1, vec![2]));
    assert!(
        verify["checkpoint_list"][0]["state"]
            .as_str()
            .is_some_and(|state| state.contains("damaged"))
    );
    assert_eq!(those(&json("stat DIR", &store).0, "usable"), [2]);
    assert_eq!(tokens(&store), shown);
    // Another is made of the older one; and says what it did without.
    let copy = dir.join("copy");
    copy_of(&store, &copy);
    let taken = run(&format!("checkpoint DIR {SMALL}"), &copy);
    assert_eq!(code(&taken), 0);
    assert!(stderr(&taken).contains("not used: "), "{}", stderr(&taken));
    assert_eq!(json("verify DIR", &copy).1, 0);
    assert_eq!(tokens(&copy), shown);

    write(older, b"X", 100);
    let before = image(&store);
    let (verify, exit) = json("verify DIR", &store);
    assert_eq!((exit, verify["status"].as_str()), (4, Some("clean")), "the log itself is");
    assert!(those(&verify, "usable").is_empty());
    assert!(stderr(&run("verify DIR", &store)).contains("a store can't be opened here"));
    for line in ["get DIR 1 --type event", "scan DIR"] {
        let refused = run(line, &store);
        assert_eq!(code(&refused), 4, "{line}");
        let words = stderr(&refused);
        assert!(
            words.contains("no checkpoint replaces")
                && words.contains("Restore") | words.contains("restore"),
            "{words}"
        );
    }
    assert!(stderr(&run("repair DIR", &store)).contains("a store can't be opened here"));
    assert_eq!(image(&store), before, "looking changes nothing");
    assert_eq!(code(&run("checkpoint DIR", &store)), 4);
    assert_eq!(code(&run("dump DIR", &store)), 0, "what is left of the log can be read");

    // Either of them, brought back, is enough.
    std::fs::write(older, older_bytes).expect("written");
    assert_eq!(tokens(&store), shown);
    std::fs::write(older, b"").expect("written");
    std::fs::write(newest, newest_bytes).expect("written");
    assert_eq!(tokens(&store), shown);
}

fn copy_of(store: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(store).arg(to).status();
    assert!(copied.expect("cp runs").success());
}

#[test]
fn repair_says_which_checkpoints_it_costs_before_it_is_done() {
    let dir = Dir::new("repair-checkpoints");
    let made = store(&dir, 3);
    let (stat, _) = json("stat DIR", &made);
    let lsns: Vec<_> = stat["checkpoint_list"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| number(row, "lsn"))
        .collect();
    let first = number(&stat, "first_lsn");
    for (cut_at, usable) in [(lsns[0], vec![3, 2]), (lsns[1], vec![2]), (first, vec![])] {
        let store = dir.join(&format!("cut-{cut_at}"));
        copy_of(&made, &store);
        let before = image(&store);
        let (plan, exit) = json(&format!("repair DIR --cut-at {cut_at}"), &store);
        assert_eq!((exit, those(&plan, "usable")), (0, vec![3, 2]), "{plan}");
        assert_eq!(those(&plan, "usable_after"), usable);
        assert_eq!(plan["store_opens_after"], !usable.is_empty());
        let people = run(&format!("repair DIR --cut-at {cut_at}"), &store);
        for number in [3, 2] {
            let can = if usable.contains(&number) { "can" } else { "can't" };
            let said = stdout(&people).lines().any(|line| {
                line.contains(&format!("{number} at LSN"))
                    && line.contains(&format!(" {can} be used after"))
            });
            assert!(said, "{}", stdout(&people));
        }
        let warned = stderr(&people).contains("a store can't be opened here after this cut");
        assert_eq!(warned, usable.is_empty(), "{}", stderr(&people));
        assert_eq!(image(&store), before, "a plan changes nothing");

        let (done, exit) = json(&format!("repair DIR --cut-at {cut_at} --yes {SMALL}"), &store);
        assert_eq!((exit, those(&done, "usable_after")), (0, usable.clone()), "{done}");
        let opened = run("scan DIR --format jsonl", &store);
        assert_eq!(code(&opened), if usable.is_empty() { 4 } else { 0 }, "{}", stderr(&opened));
        let tokens = stdout(&opened).lines().count();
        assert_eq!(tokens, if usable.is_empty() { 0 } else { ROWS });
    }
}

#[test]
fn damage_below_the_newest_checkpoint_is_no_reason_to_cut_a_store() {
    let dir = Dir::new("below");
    let store = store(&dir, 3);
    let shown = tokens(&store);
    // Between the two checkpoints, where no open looks.
    let (stat, _) = json("stat DIR", &store);
    let newest = number(&stat["checkpoint_list"][0], "lsn");
    let segments = stat["segment_list"].as_array().expect("segments");
    let below = segments.iter().find(|segment| {
        number(segment, "entries") > 0 && segment["live_to"].as_u64().is_some_and(|to| to < newest)
    });
    write(&segment_file(&store, number(below.expect("one below"), "segment")), b"X", 4096 + 80);

    let verify = run("verify DIR", &store);
    assert_eq!(code(&verify), 4);
    let advice = "do NOT repair if this is a store: it opens from checkpoint 3";
    assert!(stderr(&verify).contains(advice), "{}", stderr(&verify));
    let plan = run("repair DIR", &store);
    assert_eq!(code(&plan), 4);
    assert!(stderr(&plan).contains(advice), "{}", stderr(&plan));
    let (plan, _) = json("repair DIR", &store);
    assert_eq!((those(&plan, "usable"), those(&plan, "usable_after")), (vec![3, 2], vec![2]));
    assert_eq!(tokens(&store), shown);

    two_checkpoints_help(&dir, &store, &shown);
}

/// What the advice says to do with damage below a checkpoint helps, and costs nothing.
fn two_checkpoints_help(dir: &Dir, store: &Path, shown: &Value) {
    for _ in 0..2 {
        assert_eq!(checkpoint(store)["new"], true);
        load(dir, store, ROWS);
    }
    assert_eq!(json("verify DIR", store).1, 0);
    assert_eq!(tokens(store), *shown);
}

#[test]
fn segment_that_is_gone_below_a_checkpoint_is_no_reason_to_cut_a_store() {
    let dir = Dir::new("gone-below");
    let store = store(&dir, 3);
    let shown = tokens(&store);
    let (stat, _) = json("stat DIR", &store);
    let first = number(&stat["segment_list"][0], "segment");
    std::fs::remove_file(segment_file(&store, first)).expect("removed");

    let advice = "do NOT repair if this is a store: it opens from checkpoint 3";
    for line in ["verify DIR", "stat DIR", "repair DIR", "replay DIR", "replay DIR --dry-run"] {
        let told = run(line, &store);
        assert_eq!(code(&told), 4, "{line}");
        assert!(stderr(&told).contains(advice), "{line}: {}", stderr(&told));
    }
    let before = image(&store);
    let refused = run("repair DIR --yes", &store);
    assert_eq!(code(&refused), 1);
    let words = stderr(&refused);
    assert!(words.contains("opens from checkpoint 3") && words.contains("--cut-at"), "{words}");
    assert_eq!(image(&store), before, "nothing was changed");
    assert_eq!(tokens(&store), shown);
    two_checkpoints_help(&dir, &store, &shown);
}

#[test]
fn purged_store_without_its_checkpoints_is_corrupt_to_every_command() {
    let dir = Dir::new("no-checkpoints");
    let store = store(&dir, 4);
    std::fs::rename(store.join("checkpoints"), dir.join("elsewhere")).expect("moved");
    for line in [
        "verify DIR",
        "stat DIR",
        "replay DIR --dry-run",
        "replay DIR",
        "repair DIR",
        "scan DIR",
        "checkpoint DIR",
    ] {
        let told = run(line, &store);
        assert_eq!(code(&told), 4, "{line}: {}", stderr(&told));
        assert!(stderr(&told).contains("restore a copy"), "{line}: {}", stderr(&told));
    }
}

#[test]
fn damage_above_the_newest_checkpoint_is_cut_and_the_store_opens_from_it() {
    let dir = Dir::new("above");
    let store = store(&dir, 3);
    let (stat, _) = json("stat DIR", &store);
    let newest = number(&stat["checkpoint_list"][0], "lsn");
    let segments = stat["segment_list"].as_array().expect("segments");
    let above = segments.iter().find(|segment| {
        number(segment, "entries") > 0
            && segment["live_from"].as_u64().is_some_and(|from| from >= newest)
    });
    write(&segment_file(&store, number(above.expect("one above"), "segment")), b"X", 4096 + 80);

    let advice = "damaged after checkpoint 3, and a store opens with everything before the damage";
    for line in ["verify DIR", "repair DIR", "replay DIR --dry-run", "replay DIR"] {
        let told = run(line, &store);
        assert_eq!(code(&told), 4);
        let words = stderr(&told);
        assert!(words.contains(advice) && !words.contains("can't be opened"), "{words}");
    }
    assert!(stdout(&run("verify DIR", &store)).contains("the log after it is damaged"));
    let (plan, _) = json("repair DIR", &store);
    assert_eq!((those(&plan, "usable"), those(&plan, "usable_after")), (vec![], vec![3, 2]));
    assert_eq!(plan["store_opens_after"], true);
    let (done, exit) = json("repair DIR --yes", &store);
    assert_eq!((exit, those(&done, "usable")), (0, vec![3, 2]));
    assert_eq!(json("verify DIR", &store).1, 0);
    assert!(tokens(&store).as_array().is_some_and(|tokens| !tokens.is_empty()));
}
