//! Readers of a log that another process writes: in the test's own process, and as
//! `bulla dump --follow`.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bulla_storage::io::std::StdIo;
use bulla_wal::{Position, Reader, Visibility};
use serde_json::Value;
use signal_hook::consts::{SIGINT, SIGPIPE};

use crate::common::{Dir, append, bulla, code, run, stderr, stdout};

/// Far beyond what any of this needs, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A process whose lines are read as they come.
struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Process {
    fn start(line: &str, dir: &Path) -> Self {
        let mut command = bulla();
        command.args(line.split(' ').map(|word| match word {
            "DIR" => dir.as_os_str(),
            word => word.as_ref(),
        }));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("runs");
        let lines = lines(child.stdout.take().expect("piped"));
        Self { stdin: child.stdin.take(), child, lines }
    }

    fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{line}").expect("written");
        stdin.flush().expect("flushed");
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line within a minute")
    }

    fn row(&self) -> Value {
        serde_json::from_str(&self.line()).expect("JSON")
    }

    /// Sends it a signal, once it is ready for it: who started these tests in the background
    /// may have it ignored until then.
    fn signal(&self, signal: i32) {
        while !self.catches(signal) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        let signal = rustix::process::Signal::from_named_raw(signal).expect("a signal");
        rustix::process::kill_process(pid, signal).expect("sent");
    }

    /// Does it catch the signal, or has it ended, or can none catch it?
    fn catches(&self, signal: i32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.unwrap_or_default();
        let field = |name| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let caught = field("SigCgt:").and_then(|mask| u64::from_str_radix(mask, 16).ok());
        signal != SIGINT
            || field("State:").is_none_or(|state| state.starts_with('Z'))
            || caught.is_none_or(|mask| mask & (1 << (signal - 1)) != 0)
    }

    /// The signal that ended it, and its words.
    fn ended(self) -> (Option<i32>, String) {
        drop(self.stdin);
        let output = self.child.wait_with_output().expect("ends");
        (output.status.signal(), stderr(&output))
    }
}

fn lines(stdout: ChildStdout) -> Receiver<String> {
    let (to, from) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if to.send(line.expect("UTF-8")).is_err() {
                return;
            }
        }
    });
    from
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn follower_shows_every_entry_while_another_process_writes_them() {
    let dir = Dir::new("follow");
    for backend in ["direct", "buffered"] {
        let log = dir.join(backend);
        let line = format!("append DIR --level strict --backend {backend} --segment-size 64KiB");
        let mut writer = Process::start(&line, &log);
        writer.say("line 1");
        assert!(writer.line().starts_with("ack 1 "));
        let follower = Process::start("dump DIR --follow --format jsonl", &log);
        let table = Process::start("dump DIR -f --written", &log);
        assert!(table.line().contains("payload"), "a head");
        for number in 1..=40 {
            if number > 1 {
                writer.say(&format!("line {number}"));
                assert!(writer.line().starts_with(&format!("ack {number} ")));
            }
            // Which it must see without any later entry.
            let row = follower.row();
            assert_eq!(row["seq"], number);
            assert_eq!(row["payload_hex"], hex(&format!("line {number}")));
            assert!(table.line().contains(&format!("line {number}")));
        }
        follower.signal(SIGINT);
        let (signal, words) = follower.ended();
        assert_eq!((signal, words.as_str()), (Some(SIGINT), "bulla: interrupted\n"));
        table.signal(SIGINT);
        assert_eq!(table.ended().0, Some(SIGINT));
        drop(writer.stdin.take());
        // A reader must not have harmed the writer.
        assert!(writer.child.wait().expect("ends").success());
    }
}

#[test]
fn readers_go_on_through_killed_writers_without_a_hole_or_a_duplicate() {
    let dir = Dir::new("killed");
    for backend in ["direct", "buffered"] {
        let log = dir.join(backend);
        let line = format!("append DIR --level balanced --backend {backend} --segment-size 64KiB");
        append(&log, "strict", "line 1\n");
        let mut readers = [Visibility::Durable, Visibility::Written].map(|visibility| {
            Reader::open(Arc::new(StdIo::new()), &log, Position::Start, visibility).expect("opens")
        });
        let mut read = [0; 2];
        let mut number = 1;
        for _ in 0..8 {
            let mut writer = Process::start(&line, &log);
            for _ in 0..100 {
                number += 1;
                writer.say(&format!("line {number}"));
                assert!(writer.line().starts_with(&format!("ack {number} ")));
                for (reader, read) in readers.iter_mut().zip(&mut read) {
                    while let Some(entry) = reader.next().expect("no error") {
                        *read += 1;
                        assert_eq!(entry.seq.0, *read);
                        assert_eq!(entry.payload, format!("line {read}").as_bytes());
                    }
                }
            }
            // SIGKILL: what was acknowledged is written, and not all of it durable.
            writer.child.kill().expect("killed");
            let _ = writer.child.wait();
        }
        // Nothing more is marked durable now: the next open marks all that it keeps.
        append(&log, "strict", "at last\n");
        for (reader, mut read) in readers.iter_mut().zip(read) {
            while read < number {
                let entry = reader.wait_next(PATIENCE).expect("no error").expect("in time");
                read += 1;
                assert_eq!(entry.payload, format!("line {read}").as_bytes());
            }
            let entry = reader.wait_next(PATIENCE).expect("no error").expect("in time");
            assert_eq!((entry.seq.0, entry.payload), (number + 1, &b"at last"[..]));
            assert_eq!(entry.epoch.0, 10, "eight killed writers between two that were not");
        }
    }
}

#[test]
fn follower_ends_at_once_when_nobody_reads_any_more() {
    let dir = Dir::new("nobody");
    let log = dir.join("log");
    append(&log, "strict", "a line\n");
    let mut child = bulla()
        .args(["dump", "--follow", "--format", "jsonl"])
        .arg(&log)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut first = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut first).expect("a line");
    let start = Instant::now();
    // Not a byte is written from here on.
    let output = child.wait_with_output().expect("ends");
    assert_eq!(output.status.signal(), Some(SIGPIPE));
    assert_eq!(stderr(&output), "");
    assert!(start.elapsed() < PATIENCE);
}

#[test]
fn filters_show_the_same_with_and_without_following() {
    let dir = Dir::new("filters");
    let log = dir.join("log");
    let acks = append(&log, "strict", "one\ntwo\nthree\n");
    let kind = bulla()
        .args(["append", "--kind", "7"])
        .arg(&log)
        .stdin(std::fs::File::open("/dev/null").expect("opens"))
        .output();
    assert_eq!(code(&kind.expect("runs")), 0);
    let mut writer = Process::start("append DIR --kind 7", &log);
    writer.say("four");
    writer.line();
    assert_eq!(writer.ended(), (None, String::new()));
    let lsn = acks.lines().nth(1).and_then(|ack| ack.split(' ').nth(2)).expect("a position");
    let cases = [
        (String::new(), "1 2 3 4"),
        ("--from-seq 2".to_owned(), "2 3 4"),
        (format!("--from-lsn {lsn} --to-seq 4"), "2 3"),
        (format!("--to-lsn {lsn}"), "1"),
        ("--kind 7".to_owned(), "4"),
        ("--kind 7 --kind 0 --limit 2".to_owned(), "1 2"),
        ("--from-time 2013-01-01T00:00:00Z --limit 1".to_owned(), "1"),
        ("--to-time 2013-01-01T10:00:00Z".to_owned(), ""),
        ("--from-time 2100-01-01T00:00:00Z".to_owned(), ""),
    ];
    for (filter, expected) in cases {
        let line = format!("dump DIR {filter} --format jsonl").replace("  ", " ");
        let output = run(&line, &log);
        assert_eq!(code(&output), 0, "{filter}: {output:?}");
        assert_eq!(seqs(stdout(&output).lines()), expected, "{filter}");
        let follower = Process::start(&format!("{line} --follow"), &log);
        let count = expected.split_whitespace().count();
        let shown: Vec<_> = (0..count).map(|_| follower.line()).collect();
        assert_eq!(seqs(shown.iter().map(String::as_str)), expected, "{filter}, following");
        follower.signal(SIGINT);
        let (signal, _) = follower.ended();
        // One that has come to its end has gone before.
        assert!(matches!(signal, None | Some(SIGINT)), "{filter}");
    }
    for wrong in ["--from-seq 1 --from-lsn 0", "--written", "--from-time noon"] {
        assert_eq!(code(&run(&format!("dump DIR {wrong}"), &log)), 2, "{wrong}");
    }
}

fn seqs<'a>(rows: impl Iterator<Item = &'a str>) -> String {
    let seqs = rows.map(|row| {
        let row: Value = serde_json::from_str(row).expect("JSON");
        row["seq"].to_string()
    });
    seqs.collect::<Vec<_>>().join(" ")
}

#[test]
fn interrupted_follower_leaves_a_whole_json_document() {
    let dir = Dir::new("document");
    let log = dir.join("log");
    append(&log, "strict", "one\ntwo\n");
    let follower = Process::start("dump DIR --follow --format json", &log);
    assert_eq!(follower.line(), "[");
    let mut text = "[".to_owned() + &follower.line();
    // Shown before the end, as it is flushed when nothing more is there.
    assert!(text.contains("\"seq\":1"), "{text}");
    follower.signal(SIGINT);
    while let Ok(line) = follower.lines.recv_timeout(PATIENCE) {
        text += &line;
    }
    let rows: Value = serde_json::from_str(&text).expect("a whole document");
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    assert_eq!(follower.ended().0, Some(SIGINT));
}
