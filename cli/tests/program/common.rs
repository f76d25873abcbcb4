//! The program `bulla`, run as a user would.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use bulla_engine::{RECORD_LEN, Record};
use serde_json::Value;
use signal_hook::consts::SIGINT;
use tempfile::TempDir;

/// A record that is no token.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Account(pub(crate) [u8; RECORD_LEN]);

impl Record for Account {
    const NAME: &'static str = "example.com/account";
    type Id = u32;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
        Ok(Self(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        &self.0
    }

    fn id(&self) -> u32 {
        u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]])
    }
}

/// A directory that is removed with the test.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let made = tempfile::Builder::new().prefix(&format!("bulla-cli-{name}-")).tempdir();
        Self(made.expect("temporary directory"))
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

pub(crate) fn bulla() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bulla"));
    command.stdin(Stdio::null());
    command
}

/// Runs a command line; words are separated by spaces, `DIR` stands for the path.
pub(crate) fn run(line: &str, dir: &Path) -> Output {
    let words = line.split(' ').map(|word| match word {
        "DIR" => dir.as_os_str(),
        word => word.as_ref(),
    });
    bulla().args(words).output().expect("bulla runs")
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("ended by a signal: {output:?}"))
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("UTF-8")
}

/// Runs a command line that prints one JSON document; returns it and the exit code.
pub(crate) fn json(line: &str, dir: &Path) -> (Value, i32) {
    let output = run(&format!("{line} --format json"), dir);
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (value, code(&output))
}

/// Appends lines; returns what was printed.
pub(crate) fn append(dir: &Path, level: &str, lines: &str) -> String {
    let mut child = bulla()
        .args(["append", "--level", level, "--segment-size", "1MiB"])
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bulla runs");
    child.stdin.take().expect("piped").write_all(lines.as_bytes()).expect("written");
    let output = child.wait_with_output().expect("ends");
    assert_eq!(code(&output), 0);
    stdout(&output)
}

/// The sample of flights in the repository.
pub(crate) fn flights() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/flights-sample.csv")
}

/// The first rows of the sample, as a file of its own.
pub(crate) fn few_flights(dir: &Dir, rows: usize) -> PathBuf {
    let all = std::fs::read_to_string(flights()).expect("sample");
    let text: String = all.split_inclusive('\n').take(rows + 1).collect();
    let path = dir.join("flights.csv");
    std::fs::write(&path, text).expect("written");
    path
}

/// Runs a command in a directory of its own until something is there, and interrupts it: it
/// must end by the signal and leave nothing behind.
pub(crate) fn interrupted_leaves_nothing(name: &str, words: &[&str]) {
    let dir = Dir::new(name);
    let mut command = bulla();
    command.args(words).arg(dir.join("")).stderr(Stdio::null());
    let mut child = command.spawn().expect("runs");
    let start = Instant::now();
    while is_empty(&dir.join("")) {
        assert!(start.elapsed() < Duration::from_secs(60), "it never begins");
        std::thread::sleep(Duration::from_millis(5));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.expect("kill runs").success());
    assert_eq!(child.wait().expect("ended").signal(), Some(SIGINT));
    assert!(is_empty(&dir.join("")));
}

/// Is there nothing in the directory?
pub(crate) fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).expect("a directory").next().is_none()
}

/// The file of a segment.
pub(crate) fn segment_file(log: &Path, number: u64) -> PathBuf {
    let files = std::fs::read_dir(log).expect("listed").map(|entry| entry.expect("entry").path());
    let is_it = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "seg")
            && path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()) == Some(number)
    };
    files.into_iter().find(is_it).expect("the segment's file")
}

/// Writes bytes into a file that is there.
pub(crate) fn write(path: &Path, bytes: &[u8], offset: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("opened");
    file.write_all_at(bytes, offset).expect("written");
}

/// All files and their bytes.
pub(crate) fn image(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("listed") {
        let path = entry.expect("entry").path();
        if path.is_file() {
            files.insert(path.clone(), std::fs::read(&path).expect("read"));
        } else {
            files.extend(image(&path));
        }
    }
    files
}
