//! Every command as a program: what it prints, and how it exits.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use crate::common::{Dir, append, bulla, code, few_flights, json, run, stderr, stdout};

const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;

#[test]
fn loaded_flights_are_found_by_id_and_by_filter() {
    let dir = Dir::new("load");
    let (file, store) = (few_flights(&dir, 500), dir.join("store"));
    let loaded = bulla()
        .arg("load")
        .arg(&file)
        .arg(&store)
        .args(["--format", "json"])
        .output()
        .expect("runs");
    assert_eq!(code(&loaded), 0, "{}", stderr(&loaded));
    let summary: serde_json::Value = serde_json::from_slice(&loaded.stdout).expect("JSON");
    assert_eq!((&summary["rows"], &summary["tokens"]), (&500.into(), &500.into()));

    let (token, exit) = json("get DIR 1 --type event", &store);
    assert_eq!(exit, 0);
    assert_eq!(token["weight"], 28.0);
    assert_eq!(token["timestamp"], "2013-01-01T10:15:00Z");
    assert_eq!(token["physical"][0], 29.98);
    let missing = run("get DIR 501 --type event", &store);
    assert_eq!(code(&missing), 1);
    assert!(stderr(&missing).contains("no token has id 501"));

    let (tokens, _) = json("scan DIR --min-weight 90", &store);
    let tokens = tokens.as_array().expect("array");
    assert!(!tokens.is_empty() && tokens.len() < 500);
    assert!(tokens.iter().all(|token| token["weight"].as_f64() >= Some(90.0)));
    let lines = stdout(&run("scan DIR --within 1.y=-200..-150 --format jsonl", &store));
    assert!(lines.lines().count() > 0, "flights to Hawaii");
    assert_eq!(stdout(&run("scan DIR --limit 3", &store)).lines().count(), 4);

    // Again: the same ids, the same tokens.
    let again = bulla().arg("load").arg(&file).arg(&store).output().expect("runs");
    assert_eq!(code(&again), 0);
    assert_eq!(json("scan DIR", &store).0.as_array().map(Vec::len), Some(500));
}

#[test]
fn flights_load_from_a_zip_archive_and_with_a_mapping_of_ones_own() {
    let dir = Dir::new("zip");
    let text = std::fs::read(few_flights(&dir, 50)).expect("read");
    let path = dir.join("flights.csv.zip");
    let mut archive = zip::ZipWriter::new(std::fs::File::create(&path).expect("created"));
    let options = zip::write::SimpleFileOptions::default();
    archive.start_file("flights.csv", options).expect("started");
    archive.write_all(&text).expect("written");
    archive.finish().expect("finished");

    let store = dir.join("store");
    let mapping = ["--map", "weight=distance:0.01", "--map", "7.x=dep_delay", "--domain", "2"];
    let loaded = bulla().arg("load").arg(&path).arg(&store).args(mapping).output().expect("runs");
    assert_eq!(code(&loaded), 0, "{}", stderr(&loaded));
    let (token, _) = json("get DIR 2 --type event --domain 2", &store);
    assert_eq!(token["weight"].to_string(), "14.16", "the shortest form of the f32");
    assert_eq!(token["temporal"][0], 4.0);
}

#[test]
fn mistyped_file_mapping_or_first_row_leaves_no_log_behind() {
    let dir = Dir::new("typo");
    let (file, store) = (few_flights(&dir, 5), dir.join("store"));
    let bad = dir.join("bad.csv");
    std::fs::write(&bad, "a\nfive\n").expect("written");
    let none = dir.join("flihgts.csv");
    for (file, mapping, exit) in
        [(&none, None, 1), (&file, Some("weight=mass"), 2), (&bad, Some("weight=a"), 1)]
    {
        let mapping = mapping.into_iter().flat_map(|rule| ["--map", rule]);
        let output =
            bulla().arg("load").arg(file).arg(&store).args(mapping).output().expect("runs");
        assert_eq!(code(&output), exit, "{}", stderr(&output));
        assert!(!store.exists(), "{}", stderr(&output));
    }
}

#[test]
fn dry_run_refuses_what_the_load_refuses_with_the_same_words() {
    let dir = Dir::new("too-far-ahead");
    let (file, store) = (dir.join("ahead.csv"), dir.join("store"));
    let now = jiff::Timestamp::now().as_second();
    for (ahead, exit) in [(3_600, 0), (3 * 86_400, 1)] {
        std::fs::write(&file, format!("t\n{now}\n{}\n", now + ahead)).expect("written");
        let load = |words: &[&str]| {
            let mut command = bulla();
            command.arg("load").arg(&file).args(["--map", "timestamp=t"]).args(words);
            command.output().expect("runs")
        };
        let dry = load(&["--dry-run"]);
        assert!(!store.exists());
        let real = load(&[store.to_str().expect("UTF-8")]);
        assert_eq!((code(&dry), code(&real)), (exit, exit), "{dry:?} {real:?}");
        let refusal = |words: &str| {
            let words = words.split("is more than").nth(1).map(|rest| rest.split(',').next());
            words.flatten().map(str::to_owned)
        };
        assert_eq!(refusal(&stderr(&dry)), refusal(&stderr(&real)));
        assert_eq!(refusal(&stderr(&dry)).is_some(), exit == 1, "{}", stderr(&dry));
        assert_eq!(stderr(&dry).contains("do: a time is seconds"), exit == 1);
        let _ = std::fs::remove_dir_all(&store);
    }
}

#[test]
fn log_is_made_in_a_directory_of_its_own_and_nowhere_else() {
    let dir = Dir::new("place");
    let file = few_flights(&dir, 5);
    let load = |to: &std::path::Path| bulla().arg("load").arg(&file).arg(to).output();
    std::fs::create_dir(dir.join("full")).expect("made");
    std::fs::write(dir.join("full/precious"), "data").expect("written");
    std::fs::create_dir(dir.join("empty")).expect("made");
    std::fs::create_dir(dir.join("empty/lost+found")).expect("made");

    for (to, why) in [("full", "precious"), ("not/there", "does not exist")] {
        for output in [run("append DIR", &dir.join(to)), load(&dir.join(to)).expect("runs")] {
            assert_eq!(code(&output), 1, "{to}");
            let words = stderr(&output);
            assert!(words.contains(why) && words.contains("do: "), "{words}");
        }
    }
    assert!(!dir.join("not").exists());
    assert_eq!(std::fs::read_dir(dir.join("full")).expect("listed").count(), 1);

    for (to, line) in [("empty", "append DIR"), ("new", "append DIR --level strict")] {
        let made = run(line, &dir.join(to));
        assert_eq!(code(&made), 0, "{}", stderr(&made));
        assert!(stderr(&made).contains("created a new log in"), "{}", stderr(&made));
        let opened = run(line, &dir.join(to));
        assert_eq!((code(&opened), stderr(&opened).as_str()), (0, ""));
    }
}

#[test]
fn completions_and_manual_pages_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let output = bulla().args(["completions", shell]).output().expect("runs");
        assert_eq!(code(&output), 0);
        assert!(stdout(&output).contains("segments"), "{shell}");
    }
    let all = stdout(&bulla().arg("man").output().expect("runs"));
    assert!(
        all.starts_with(".ie")
            && all.contains("repair")
            && all.contains("purge")
            && !all.contains("drill\\-child")
    );
    let one = stdout(&bulla().args(["man", "repair"]).output().expect("runs"));
    assert!(one.contains("cut\\-at"), "{one}");
    assert_eq!(code(&bulla().args(["man", "frobnicate"]).output().expect("runs")), 2);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_right() {
    let dir = Dir::new("usage");
    let file = few_flights(&dir, 5);
    let store = dir.join("store");
    let backend = run("append DIR --backend floppy", &store);
    assert_eq!(code(&backend), 2);
    for name in ["auto", "direct", "buffered", "uring"] {
        assert!(stderr(&backend).contains(name), "{}", stderr(&backend));
    }
    assert_eq!(code(&run("frobnicate", &store)), 2);
    assert_eq!(code(&run("append DIR --segment-size 1XB", &store)), 2);
    assert_eq!(code(&run("append DIR --kind 65280", &store)), 2);
    assert_eq!(code(&run("append DIR --segment-size 5000", &store)), 2);
    let column = bulla()
        .arg("load")
        .arg(&file)
        .arg(&store)
        .args(["--map", "weight=mass"])
        .output()
        .expect("runs");
    assert_eq!(code(&column), 2);
    assert!(stderr(&column).contains(r#"no column "mass""#), "{}", stderr(&column));
}

#[test]
fn backend_that_can_not_be_had_is_told_and_stood_in_for() {
    let dir = Dir::new("no-ring");
    let log = dir.join("log");
    let mut command = bulla();
    command.args(["append", "--backend", "uring", "--level", "strict"]).arg(&log);
    command.stdin(std::fs::File::open(few_flights(&dir, 5)).expect("opens"));
    bulla_tests::seccomp::refuse_io_uring(&mut command, libc::EPERM);
    match command.output() {
        Ok(output) => {
            assert_eq!(code(&output), 0, "{}", stderr(&output));
            let said = stderr(&output);
            assert_eq!(said.matches("--backend uring is not available").count(), 1, "{said}");
            assert!(said.contains("using std"), "{said}");
            assert!(stdout(&output).contains("ack 1 "), "{}", stdout(&output));
        }
        Err(error) => bulla_tests::skipped(format_args!("this machine refuses seccomp: {error}")),
    }
    assert_eq!(code(&run("verify DIR", &log)), 0);
}

#[test]
fn errors_exit_with_1_and_tell_their_cause_and_what_to_do() {
    let dir = Dir::new("errors");
    let none = run("verify DIR", &dir.join("none"));
    assert_eq!(code(&none), 1);
    assert!(stderr(&none).contains("do: "), "{}", stderr(&none));
    let lines = dir.join("lines");
    append(&lines, "balanced", "a line\n");
    let refused = run("scan DIR", &lines);
    assert_eq!(code(&refused), 1);
    let words = stderr(&refused);
    assert!(words.contains("holds plain entries") && words.contains("bulla verify"), "{words}");
    let file = dir.join("bad.csv");
    std::fs::write(&file, "a\n1\nfive\n").expect("written");
    let row = bulla()
        .arg("load")
        .arg(&file)
        .arg(dir.join("bad"))
        .args(["--map", "weight=a"])
        .output()
        .expect("runs");
    assert_eq!(code(&row), 1);
    assert!(stderr(&row).contains("row 2"), "{}", stderr(&row));
}

#[test]
fn appended_lines_are_acknowledged_in_order_and_dumped_byte_for_byte() {
    let dir = Dir::new("append");
    for level in ["relaxed", "balanced", "strict"] {
        let log = dir.join(level);
        let lines: String = (1..=1000).map(|n| format!("line {n} \u{e9}\n")).collect();
        let acks = append(&log, level, &(lines.clone() + "\nlast, without a newline"));
        let acks: Vec<Vec<_>> = acks.lines().map(|ack| ack.split(' ').collect()).collect();
        assert_eq!(acks.len(), 1002);
        for (seq, ack) in (1..).zip(&acks) {
            assert_eq!((ack[0], ack[1]), ("ack", seq.to_string().as_str()));
        }
        let dumped = stdout(&run("dump DIR --format jsonl", &log));
        let mut text = Vec::new();
        for (line, ack) in dumped.lines().zip(&acks) {
            let entry: serde_json::Value = serde_json::from_str(line).expect("JSON");
            assert_eq!(entry["seq"].to_string(), ack[1]);
            assert_eq!(entry["lsn"].to_string(), ack[2]);
            assert_eq!(entry["kind"], 0);
            let hex = entry["payload_hex"].as_str().expect("text");
            let bytes =
                (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
            text.extend(bytes.map(|byte| byte.expect("hex")));
            text.push(b'\n');
        }
        assert_eq!(String::from_utf8(text).expect("UTF-8"), lines + "\nlast, without a newline\n");
        let (report, exit) = json("verify DIR", &log);
        assert_eq!((report["status"].as_str(), exit), (Some("clean"), 0));
        assert_eq!(report["entries"], 1002);
    }
    let more = append(&dir.join("strict"), "strict", "more\n");
    assert!(more.starts_with("ack 1003 "), "{more}");
    let some =
        stdout(&run("dump DIR --from-seq 1002 --to-seq 1003 --format jsonl", &dir.join("strict")));
    assert_eq!(some.lines().count(), 1);
}

#[test]
fn replay_to_a_time_shows_where_a_repair_goes_back_to_it() {
    let dir = Dir::new("time");
    let log = dir.join("log");
    append(&log, "strict", "one\n");
    let (report, _) = json("replay DIR --dry-run", &log);
    let middle = report["replayed_time"].as_str().expect("a time").to_owned();
    let middle_ns = middle.parse::<jiff::Timestamp>().expect("RFC 3339").as_nanosecond();
    let after = middle_ns + 1;
    append(&log, "strict", "two\n");

    let none = json(&format!("replay DIR --dry-run --to-time {middle}"), &log).0;
    assert_eq!(none["replayed_entries"], 0, "the end is exclusive");
    let (part, exit) = json(&format!("replay DIR --dry-run --to-time {after}"), &log);
    assert_eq!((exit, &part["replayed_entries"], &part["entries"]), (0, &1.into(), &2.into()));
    assert_eq!(part["replayed_time"], middle);
    for line in ["--to-seq 2", "--to seq:2"] {
        let same = json(&format!("replay DIR --dry-run {line}"), &log).0;
        assert_eq!(same["replayed_end"], part["replayed_end"], "{line}");
    }
    assert_eq!(code(&run("replay DIR --to-seq 3 --to 8192", &log)), 2);
    assert_eq!(code(&run("replay DIR --to-time yesterday", &log)), 2);

    let (done, exit) = json(&format!("repair DIR --yes --cut-at {}", part["replayed_end"]), &log);
    assert_eq!((exit, &done["repaired"]), (0, &true.into()));
    assert_eq!(json("verify DIR", &log).0["entries"], 1);
    assert!(append(&log, "strict", "another\n").starts_with("ack 2 "));
}

#[test]
fn line_that_is_too_long_is_refused_after_the_lines_before_it() {
    let dir = Dir::new("long");
    let log = dir.join("log");
    let mut child = bulla()
        .args(["append", "--ring-size", "64KiB", "--segment-size", "64KiB"])
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut input = child.stdin.take().expect("piped");
    // Never a newline: what is read of it is bounded, or this does not end.
    let endless = std::thread::spawn(move || {
        let _ = input.write_all(b"one\n");
        while input.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let output = child.wait_with_output().expect("ends");
    endless.join().expect("writes until nobody reads");
    assert_eq!(code(&output), 1);
    assert!(stdout(&output).starts_with("ack 1 "), "{output:?}");
    assert!(stderr(&output).contains("entry too large"), "{}", stderr(&output));
    assert_eq!(json("verify DIR", &log).0["entries"], 1);
}

#[test]
fn acknowledgement_comes_while_standard_input_stays_open() {
    let dir = Dir::new("live");
    let log = dir.join("log");
    let mut child = bulla()
        .args(["append", "--level", "strict"])
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut input = child.stdin.take().expect("piped");
    let mut acks = BufReader::new(child.stdout.take().expect("piped")).lines();
    for n in 1..=3 {
        writeln!(input, "{n}").expect("written");
        let ack = acks.next().expect("an acknowledgement").expect("text");
        assert!(ack.starts_with(&format!("ack {n} ")), "{ack}");
    }
    // A killed process loses none of them.
    child.kill().expect("killed");
    child.wait().expect("ended");
    let (report, _) = json("verify DIR", &log);
    assert_eq!(report["entries"], 3);
}

#[test]
fn ctrl_c_closes_the_log_and_ends_by_the_signal() {
    let dir = Dir::new("ctrl-c");
    let log = dir.join("log");
    let mut child = bulla()
        .arg("append")
        .arg(&log)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut input = child.stdin.take().expect("piped");
    writeln!(input, "one").expect("written");
    let mut acks = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert!(acks.next().expect("an acknowledgement").is_ok());
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(child.wait().expect("ended").signal(), Some(SIGINT));
    let (report, exit) = json("verify DIR", &log);
    assert_eq!((report["entries"].as_u64(), exit), (Some(1), 0));
    assert!(report["evidence"].to_string().contains("closed cleanly"), "{report}");
}

#[test]
fn reader_that_goes_away_ends_it_by_sigpipe_without_a_word() {
    let dir = Dir::new("pipe");
    let log = dir.join("log");
    append(&log, "relaxed", &"a line of some length, many times\n".repeat(5000));
    let mut child = bulla()
        .args(["dump", "--format", "jsonl"])
        .arg(&log)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.signal(), Some(SIGPIPE));
    assert_eq!(stderr(&output), "");
}

#[test]
fn glossary_is_help_a_command_and_a_page_of_the_manual() {
    let dir = Dir::new("glossary");
    let words = json("glossary torn", &dir.join("")).0;
    assert_eq!((words.as_array().map(Vec::len), &words[0]["word"]), (Some(1), &"torn tail".into()));
    let meaning = words[0]["meaning"].as_str().expect("words").split(". ").next().expect("one");
    // The same text, wrapped by each in its own way.
    let flat =
        |text: String| text.replace("\\-", "-").split_whitespace().collect::<Vec<_>>().join(" ");
    for line in ["help glossary", "glossary --help", "man glossary", "glossary"] {
        let output = run(line, &dir.join(""));
        assert_eq!(code(&output), 0, "{line}");
        assert!(flat(stdout(&output)).contains(meaning), "{line}: {}", stdout(&output));
    }
    assert_eq!(code(&run("glossary nonsense", &dir.join(""))), 2);
    assert!(stdout(&run("help", &dir.join(""))).contains("bulla help glossary"));
}
