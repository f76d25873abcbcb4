//! `--html FILE`: pages of healthy and damaged logs. Each is well-formed, small, says what the
//! command's own report says, and shows nothing that a name or a content could smuggle in.
//!
//! `BULLA_PICTURES=DIR` keeps the pages there, and takes screenshots of them if there is a
//! Chromium: `BULLA_PICTURES=/tmp/pictures cargo test -p bulla-cli --test main picture::`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use roxmltree::{Document, Node, ParsingOptions};
use serde_json::Value;

use crate::common::{
    Dir, bulla, code, few_flights, image, json, run, segment_file, stderr, stdout, write,
};

/// The bound that the manual states.
const MAX_LEN: usize = 512 * 1024;
const SECTOR: u64 = 4096;

/// Appends lines of about 100 bytes to a log of small segments.
fn append(log: &Path, level: &str, lines: usize, segment: &str) {
    let mut child = bulla()
        .args(["append", "--level", level, "--ring-size", "16KiB"])
        .args(["--segment-size", segment])
        .arg(log)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("bulla runs");
    let text: String = (0..lines).map(|line| format!("line {line:07} {:086}\n", 0)).collect();
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("written");
    assert!(child.wait().expect("ends").success());
}

/// A closed log of a few segments and two epochs.
fn log(dir: &Dir, name: &str) -> PathBuf {
    let log = dir.join(name);
    append(&log, "balanced", 3_000, "64KiB");
    append(&log, "strict", 1_000, "64KiB");
    log
}

/// A store with checkpoints and a hold.
fn store(dir: &Dir, name: &str) -> PathBuf {
    let store = dir.join(name);
    let small = ["--segment-size", "64KiB", "--ring-size", "64KiB"];
    for _ in 0..3 {
        for rows in [500, 200] {
            let rows = few_flights(dir, rows);
            let loaded = bulla().arg("load").arg(rows).arg(&store).args(small).output();
            assert!(loaded.expect("runs").status.success());
        }
        let taken = bulla().arg("checkpoint").arg(&store).args(small).output();
        assert!(taken.expect("runs").status.success());
    }
    let end = json("stat DIR", &store).0["last_lsn"].clone();
    let held = run(&format!("hold DIR replica --from {end} --quota 1GiB"), &store);
    assert_eq!(code(&held), 0, "{}", stderr(&held));
    store
}

/// Where pages go: to a directory that stays, if one is named.
fn page_of(dir: &Dir, name: &str) -> PathBuf {
    match std::env::var_os("BULLA_PICTURES") {
        Some(kept) => {
            std::fs::create_dir_all(&kept).expect("made");
            Path::new(&kept).join(format!("{name}.html"))
        }
        None => dir.join(&format!("{name}.html")),
    }
}

/// Draws a log, and checks what must be right of every page; returns its text and the report.
fn drawn(dir: &Dir, name: &str, command: &str, log: &Path, exit: i32) -> (String, Value) {
    let page = page_of(dir, name);
    let before = image(log);
    let plain = run(&format!("{command} DIR"), log);
    let output = bulla().arg(command).arg(log).arg("--html").arg(&page).output().expect("runs");
    assert_eq!(code(&output), exit, "{}", stderr(&output));
    assert_eq!(stdout(&output), stdout(&plain), "{name}: what is printed is the same");
    assert_eq!(image(log), before, "{name}: drawing changes nothing");
    let text = std::fs::read_to_string(&page).expect("written");
    check(name, &text);
    screenshot(&page);
    let report = json(&format!("{command} DIR"), log).0;
    agrees(name, &text, &report);
    (text, report)
}

fn parsed(text: &str) -> Document<'_> {
    let options = ParsingOptions { allow_dtd: true, ..ParsingOptions::default() };
    Document::parse_with_options(text, options).unwrap_or_else(|error| panic!("{error}:\n{text}"))
}

/// What must be right of every page.
fn check(name: &str, text: &str) {
    assert!(text.len() <= MAX_LEN, "{name}: {} bytes", text.len());
    let page = parsed(text);
    for node in page.descendants().filter(Node::is_element) {
        let tag = node.tag_name().name();
        assert!(!["script", "link", "img", "iframe", "object"].contains(&tag), "{name}: {tag}");
        for attribute in node.attributes() {
            let (key, value) = (attribute.name(), attribute.value());
            assert!(!key.starts_with("on") && key != "href" && key != "src", "{name}: {key}");
            assert!(!value.contains("NaN") && !value.contains("inf"), "{name}: {key}={value}");
        }
        // Nothing is drawn outside.
        if tag == "rect" {
            let number = |key| node.attribute(key).unwrap_or("0").parse::<f64>().expect("a number");
            let (x, width) = (number("x"), number("width"));
            assert!(x >= 0.0 && width >= 0.0 && x + width <= 1200.1, "{name}: {node:?}");
            assert!(number("y") >= 0.0 && number("height") > 0.0, "{name}: {node:?}");
        }
        if tag == "svg" && node.attribute("aria-hidden").is_none() {
            assert_eq!(node.attribute("role"), Some("img"), "{name}");
            let named = node.attribute("aria-labelledby").expect("a name").split(' ');
            for id in named {
                assert!(page.descendants().any(|node| node.attribute("id") == Some(id)), "{id}");
            }
        }
    }
    assert!(!text.contains("http://") || text.matches("http://www.w3.org/").count() > 0);
    let other = text.replace("http://www.w3.org/", "");
    assert!(!other.contains("http") || other.contains("http-equiv"), "{name}: an address");
}

fn text_of<'a>(page: &'a Document<'_>, id: &str) -> &'a str {
    let node = page.descendants().find(|node| node.attribute("id") == Some(id));
    node.and_then(|node| node.text()).unwrap_or_else(|| panic!("no {id}"))
}

fn grouped(number: &Value) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    let groups: Vec<_> =
        groups.iter().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

/// Every figure of the page is that of the report.
fn agrees(name: &str, text: &str, report: &Value) {
    if report["last_lsn"].is_null() {
        return;
    }
    let page = parsed(text);
    assert_eq!(text_of(&page, "entries"), grouped(&report["entries"]), "{name}");
    assert_eq!(text_of(&page, "first-lsn"), grouped(&report["first_lsn"]), "{name}");
    let lsn = |field: &str| format!("LSN {}", grouped(&report[field]));
    assert_eq!(text_of(&page, "last-lsn"), lsn("last_lsn"), "{name}");
    assert_eq!(text_of(&page, "durable-lsn"), lsn("proved_durable_lsn"), "{name}");
    assert_eq!(text_of(&page, "segments"), grouped(&report["segments"]), "{name}");
    assert_eq!(text_of(&page, "case"), report["case"], "{name}");
    // What the segments add up to is what the table adds up to.
    let sum = |column: usize| -> u64 {
        let rows = rows(&page, "segment-table");
        let number = |row: &Vec<String>| row[column].replace(',', "").parse::<u64>();
        rows.iter()
            .filter(|row| row[1] != "missing")
            .map(|row| number(row).expect("a number"))
            .sum()
    };
    let list = report["segment_list"].as_array().expect("segments");
    for (field, column) in [("frames", 5), ("entries", 6)] {
        let expected: u64 = list.iter().filter_map(|segment| segment[field].as_u64()).sum();
        assert_eq!(sum(column), expected, "{name}: {field}");
    }
    let evidence = report["evidence"].as_array().expect("evidence");
    for line in evidence.iter().take(8) {
        assert!(text.contains(&escaped(line.as_str().expect("words"))), "{name}: {line}");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&#38;").replace('<', "&#60;").replace('>', "&#62;")
}

/// The cells of a table's body.
fn rows(page: &Document<'_>, id: &str) -> Vec<Vec<String>> {
    let table = page.descendants().find(|node| node.attribute("id") == Some(id));
    let Some(table) = table else { return Vec::new() };
    let rows = table
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "tr")));
    let cells = |row: Node<'_, '_>| {
        let cells = row.children().filter(|cell| cell.tag_name().name() == "td");
        cells.map(|cell| cell.text().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    rows.map(cells).filter(|cells| !cells.is_empty()).collect()
}

/// How many shapes of a class a page has, legends aside.
fn shapes(text: &str, class: &str) -> usize {
    let page = parsed(text);
    let pictures = page.descendants().filter(|node| node.attribute("role") == Some("img"));
    let rects = pictures.flat_map(|picture| picture.descendants());
    rects.filter(|node| node.attribute("class") == Some(class)).count()
}

fn screenshot(page: &Path) {
    if std::env::var_os("BULLA_PICTURES").is_none() {
        return;
    }
    for (theme, option) in [("light", ""), ("dark", "--force-dark-mode")] {
        let target = page.with_extension(format!("{theme}.png"));
        let mut browser = Command::new("chromium");
        browser.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        browser.args(["--window-size=1280,1500", "--blink-settings=preferredColorScheme=1"]);
        if !option.is_empty() {
            browser.args([option, "--blink-settings=preferredColorScheme=0"]);
        }
        browser.arg(format!("--screenshot={}", target.display()));
        browser.arg(format!("file://{}", page.display())).stderr(Stdio::null());
        match browser.status() {
            Ok(status) => assert!(status.success() && target.is_file(), "{status}"),
            Err(error) => println!("SKIPPED: screenshots: no chromium ({error})"),
        }
    }
}

#[test]
fn picture_of_a_whole_log_shows_no_damage() {
    let dir = Dir::new("picture-whole");
    let log = log(&dir, "log");
    let (text, report) = drawn(&dir, "whole", "verify", &log, 0);
    for class in ["flag-bad", "flag-warn", "lost", "missing", "behind", "torn"] {
        assert_eq!(shapes(&text, class), 0, "{class}");
    }
    assert!(shapes(&text, "live") > 4 && shapes(&text, "frame") > 10 && shapes(&text, "mark") > 4);
    assert!(text.contains("The log is whole: 4,000 entries") && report["entries"] == 4_000);
    // It reads headers, and says so.
    let (text, _) = drawn(&dir, "stat", "stat", &log, 0);
    assert!(text.contains("It had read: headers"));
}

#[test]
fn picture_of_a_store_shows_what_checkpoints_stand_for_and_holds_keep() {
    let dir = Dir::new("picture-store");
    let store = store(&dir, "store");
    let (text, report) = drawn(&dir, "store", "verify", &store, 0);
    assert_eq!((shapes(&text, "checkpoint"), shapes(&text, "hold")), (2, 1));
    let page = parsed(&text);
    let list = report["checkpoint_list"].as_array().expect("checkpoints");
    for (row, checkpoint) in rows(&page, "checkpoint-table").iter().zip(list) {
        assert_eq!(row[0], checkpoint["checkpoint"].to_string());
        assert_eq!(row[2..4], [grouped(&checkpoint["lsn"]), grouped(&checkpoint["tokens"])]);
        let words = format!("stands for everything below LSN {}", row[2]);
        assert!(text.contains(&words), "{words}");
    }
    assert_eq!(rows(&page, "hold-table")[0][..2], ["replica", "ok"]);

    let newest = image(&store.join("checkpoints")).into_keys().max().expect("a checkpoint");
    write(&newest, b"X", 100);
    let (text, _) = drawn(&dir, "checkpoint-damaged", "verify", &store, 1);
    assert_eq!((shapes(&text, "checkpoint-damaged"), shapes(&text, "checkpoint")), (1, 1));
    assert!(text.contains("checkpoint damaged"));
}

#[test]
fn picture_of_damage_shows_it_where_it_is() {
    let dir = Dir::new("picture-damage");
    let log = log(&dir, "log");
    let middle = segment_file(&log, 2);
    write(&middle, b"X", 6 * SECTOR + 70);
    let (text, report) = drawn(&dir, "flipped", "verify", &log, 4);
    assert!(shapes(&text, "lost") >= 2, "in the timeline and in the file");
    assert!(shapes(&text, "flag-bad") >= 2 && shapes(&text, "behind") >= 1);
    let page = parsed(&text);
    let damaged = rows(&page, "segment-table").into_iter().find(|row| row[0] == "segment 2");
    assert_eq!(damaged.expect("a row of its own")[4], grouped(&report["last_lsn"]));

    let behind = |row: &&Vec<String>| row[1].starts_with("behind the damage");
    assert!(rows(&page, "segment-table").iter().any(|row| behind(&row)), "{text}");

    // What is kept of it, once it is cut.
    assert_eq!(code(&run("repair DIR --yes", &log)), 0);
    let (text, _) = drawn(&dir, "repaired", "verify", &log, 0);
    let page = parsed(&text);
    let kept = image(&log.join("quarantine"));
    assert_eq!(rows(&page, "quarantine-table").len(), kept.len());
    assert!(shapes(&text, "cut") >= 1 && shapes(&text, "flag-bad") == 0);
}

#[test]
fn picture_of_a_torn_tail_shows_what_is_cut() {
    let dir = Dir::new("picture-torn");
    let log = log(&dir, "log");
    let (report, _) = json("verify DIR", &log);
    let segments = report["segment_list"].as_array().expect("segments");
    let live = segments.iter().rfind(|segment| segment["state"] == "live").expect("a live one");
    let (base, end) = (live["base_lsn"].as_u64(), report["last_lsn"].as_u64());
    let offset = SECTOR + end.zip(base).map(|(end, base)| end - base).expect("positions");
    let file = segment_file(&log, live["segment"].as_u64().expect("a number"));
    let opened = OpenOptions::new().write(true).open(&file).expect("opened");
    opened.set_len(offset + 4 * SECTOR).expect("longer");
    write(&file, &[b'h'; 9_000], offset);
    let (text, report) = drawn(&dir, "torn", "verify", &log, 3);
    assert!(shapes(&text, "torn") >= 2 && shapes(&text, "flag-warn") >= 1);
    assert_eq!(shapes(&text, "flag-bad"), 0);
    assert!(report["cut_bytes"].as_u64() >= Some(8_000), "{report}");
}

#[test]
fn picture_of_a_missing_segment_and_of_a_missing_control_says_so() {
    let dir = Dir::new("picture-missing");
    let whole = log(&dir, "log");
    std::fs::remove_file(segment_file(&whole, 2)).expect("removed");
    let (text, _) = drawn(&dir, "missing", "verify", &whole, 4);
    assert_eq!(shapes(&text, "missing"), 2, "in the timeline and among the files");
    assert!(text.contains("segment 2 is missing"));

    let other = log(&dir, "other");
    let control = std::fs::read(other.join("CONTROL")).expect("read");
    for slot in [0, 16_384] {
        write(&other.join("CONTROL"), b"damage", slot + 8);
        let exit = code(&run("verify DIR", &other));
        assert_ne!(exit, 0, "damage is told, in either copy");
        let (text, _) = drawn(&dir, &format!("control-slot-{slot}"), "verify", &other, exit);
        assert_eq!(shapes(&text, "torn") + shapes(&text, "lost"), 1, "CONTROL among the files");
        assert!(text.contains(">CONTROL</text>"));
        std::fs::write(other.join("CONTROL"), &control).expect("written");
    }
    std::fs::write(other.join("CONTROL"), [7; 100]).expect("written");
    let (text, _) = drawn(&dir, "control", "verify", &other, 4);
    assert!(text.contains("CONTROL can&#39;t be read"));
}

#[test]
fn picture_of_a_thousand_segments_is_small_and_still_shows_the_damage() {
    let dir = Dir::new("picture-long");
    let log = dir.join("log");
    append(&log, "relaxed", 75_000, "16KiB");
    let (text, report) = drawn(&dir, "thousand", "verify", &log, 0);
    assert!(report["segments"].as_u64() >= Some(1_000), "{}", report["segments"]);
    assert!(text.len() < MAX_LEN / 2, "{} bytes", text.len());
    assert!(rows(&parsed(&text), "segment-table").len() <= 10);
    write(&segment_file(&log, 700), b"X", SECTOR + 70);
    let (text, _) = drawn(&dir, "thousand-damaged", "verify", &log, 4);
    assert!(rows(&parsed(&text), "segment-table").iter().any(|row| row[0] == "segment 700"));
    assert!(shapes(&text, "flag-bad") >= 2);
}

#[test]
fn names_are_shown_and_never_run() {
    let dir = Dir::new("picture-hostile");
    let name = "<script>alert('1')</script>&\"\u{202e}\u{1b}[31m\n";
    let hostile = dir.join("hostile");
    std::fs::create_dir(&hostile).expect("made");
    let log = hostile.join(name.replace('/', "\u{2215}"));
    append(&log, "strict", 3, "32KiB");
    std::fs::create_dir(log.join("quarantine")).expect("made");
    std::fs::write(
        log.join("quarantine")
            .join("</svg><img src=x onerror=alert(1)>.bin".replace('/', "\u{2215}")),
        b"x",
    )
    .expect("written");
    let (text, _) = drawn(&dir, "hostile", "verify", &log, 0);
    assert!(!text.contains("<script") && !text.contains("<img"));
    assert!(!text.contains('\u{202e}') && !text.contains('\u{1b}'));
    assert!(text.contains("&#60;script&#62;") && text.contains("\\u{202e}"));
}

#[test]
fn picture_of_a_drill_has_a_line_for_every_kill() {
    let dir = Dir::new("picture-drill");
    let page = page_of(&dir, "drill");
    let drilled = bulla()
        .args(["drill", "--kills", "4", "--level", "relaxed", "--format", "json", "--input"])
        .arg(few_flights(&dir, 300))
        .arg("--html")
        .arg(&page)
        .output()
        .expect("runs");
    assert_eq!(code(&drilled), 0, "{}", stderr(&drilled));
    let report: Value = serde_json::from_slice(&drilled.stdout).expect("one document, as without");
    let text = std::fs::read_to_string(&page).expect("written");
    check("drill", &text);
    screenshot(&page);
    let parsed = parsed(&text);
    let rows = rows(&parsed, "kill-table");
    let timeline = report["timeline"].as_array().expect("kills");
    assert_eq!((rows.len(), timeline.len()), (4, 4));
    for (row, kill) in rows.iter().zip(timeline) {
        assert_eq!(row[3], grouped(&kill["acknowledged"]));
        let cut = &kill["cut_lsn"];
        assert_eq!(row[8], if cut.is_null() { "–".to_owned() } else { grouped(cut) });
    }
    assert_eq!(text_of(&parsed, "acknowledged"), grouped(&report["acknowledged"]));
    assert_eq!(text_of(&parsed, "lost-forbidden"), "0");
}

#[test]
fn picture_replaces_a_file_and_nothing_else() {
    let dir = Dir::new("picture-file");
    let log = log(&dir, "log");
    let before = image(&log);
    let refused = |page: &Path| {
        let output =
            bulla().arg("verify").arg(&log).arg("--html").arg(page).output().expect("runs");
        assert_eq!(code(&output), 1, "{}", page.display());
        assert_eq!(stdout(&output), "", "refused before the work");
        stderr(&output)
    };
    std::fs::create_dir(dir.join("folder")).expect("made");
    std::os::unix::fs::symlink(log.join("CONTROL"), dir.join("link")).expect("linked");
    for name in ["folder", "link"] {
        assert!(refused(&dir.join(name)).contains("regular file"), "{name}");
    }
    refused(Path::new("/dev/null"));
    refused(&dir.join("nowhere/page.html"));
    // A page would replace a segment.
    for name in ["new.html", "CONTROL", "./page.html"] {
        assert!(refused(&log.join(name)).contains("directory of a log"), "{name}");
    }
    refused(&segment_file(&log, 1));
    assert_eq!(image(&log), before);
    let page = dir.join("page.html");
    std::fs::write(&page, "an older one").expect("written");
    assert_eq!(
        code(&bulla().arg("stat").arg(&log).arg("--html").arg(&page).output().expect("runs")),
        0
    );
    assert!(std::fs::read_to_string(&page).expect("read").starts_with("<!DOCTYPE html>"));
    // Nothing else is left behind.
    let left: Vec<_> = std::fs::read_dir(dir.join(""))
        .expect("listed")
        .map(|entry| entry.expect("entry").file_name())
        .collect();
    assert_eq!(left.len(), 4, "{left:?}");
}
