//! Every damage, to every kind of log and store, seen by every command: what it says, exits with and
//! changes. The whole table is in `table.txt`, and was reviewed line by line; `BULLA_BLESS=1` writes
//! it anew.
//!
//! Checked by machine, against what was written down while the logs were made: a command that exits
//! with 0 loses nothing that is intact, one that is refused changes nothing, each figure is that of
//! a recount, what a repair keeps and gives up makes all, and its undo restores every byte.

mod damages;
mod recount;
mod subjects;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Dir, bulla, image, stderr, stdout};

use self::damages::{ALL, Damage};
use self::recount::Recount;
use self::subjects::{Kind, Subject};

/// What a command is given so that its files are as small as those of the table.
const SMALL: &str = "--segment-size 64KiB --ring-size 64KiB";

/// Commands that change nothing, whatever they find.
const READING: [&str; 9] = [
    "verify DIR",
    "stat DIR",
    "replay DIR --dry-run",
    "dump DIR",
    "segments DIR",
    "scan DIR",
    "get DIR 1 --type event",
    "repair DIR",
    "purge DIR --keep-from end",
];

#[test]
fn every_damage_is_told_as_it_is_by_every_command() {
    let dir = Dir::new("table");
    let subjects = subjects::all(&dir.join(""));
    let cases: Vec<(&Subject, &str, Damage)> = subjects
        .iter()
        .flat_map(|subject| ALL.iter().map(move |(name, damage)| (subject, *name, *damage)))
        .filter(|(subject, _, damage)| damage.fits(subject))
        .collect();
    let next = AtomicUsize::new(0);
    let sections = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    let Some((subject, name, damage)) = cases.get(place) else { break };
                    let section = Case::new(&dir, place, subject, name, *damage).section();
                    sections.lock().expect("not poisoned").insert(place, section);
                }
            });
        }
    });
    let sections = sections.into_inner().expect("not poisoned");
    assert_eq!(sections.len(), cases.len());
    let (table, broken): (Vec<String>, Vec<Vec<String>>) = sections.into_values().unzip();
    let (table, broken) = (table.concat(), broken.concat());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/table/table.txt");
    if std::env::var_os("BULLA_BLESS").is_some() {
        std::fs::write(&path, &table).expect("written");
    }
    assert!(broken.is_empty(), "{} rules are broken:\n{}", broken.len(), broken.join("\n"));
    let reviewed = std::fs::read_to_string(&path).expect("the table is in the repository");
    let differing =
        table.lines().zip(reviewed.lines()).enumerate().find(|(_, (new, old))| new != old);
    assert!(
        table == reviewed,
        "the table is not as it was reviewed, from here on (line, new, reviewed): {differing:?}"
    );
}

/// A subject with a damage.
struct Case<'a> {
    subject: &'a Subject,
    /// Damaged, and left as it is.
    dir: PathBuf,
    /// Copies of it are made beside it.
    beside: PathBuf,
    recount: Recount<'a>,
    name: String,
    shown: RefCell<Vec<(String, Said)>>,
    /// What the table must not show.
    broken: RefCell<Vec<String>>,
}

/// What a command did.
struct Done {
    code: i32,
    stdout: String,
    stderr: String,
    /// Names of files that it changed, made or removed.
    changed: Vec<String>,
}

impl<'a> Case<'a> {
    fn new(dir: &Dir, place: usize, subject: &'a Subject, name: &str, damage: Damage) -> Self {
        let beside = dir.join(&format!("case-{place}"));
        std::fs::create_dir(&beside).expect("made");
        let damaged = beside.join("dir");
        copy(&subject.dir, &damaged);
        let destroyed = damage.apply(subject, &damaged);
        let recount = Recount::new(subject, destroyed);
        let name = format!("{}: {name}", subject.name);
        Self {
            subject,
            dir: damaged,
            beside,
            recount,
            name,
            shown: RefCell::default(),
            broken: RefCell::default(),
        }
    }

    /// Notes what is wrong, if anything is.
    fn rule(&self, line: &str, checked: Result<(), String>) {
        if let Err(why) = checked {
            self.broken.borrow_mut().push(format!("{}: {line}: {why}", self.name));
        }
    }

    /// Returns the section of the table, and what is wrong in it.
    fn section(self) -> (String, Vec<String>) {
        for line in READING {
            let done = run(line, &self.dir, "");
            self.show(line, &done);
            let json = run(&format!("{line} --format jsonl"), &self.dir, "");
            self.rule(line, same("changed files", &done.changed, &Vec::new()));
            self.rule(line, same("exit code as JSON", &json.code, &done.code));
            self.rule(line, self.recount.check(line, &json));
        }
        self.changing();
        self.repair_and_undo();
        self.back_up();
        std::fs::remove_dir_all(&self.beside).expect("removed");
        let mut section = format!("== {}\n", self.name);
        // Commands that say the same are shown together.
        let mut left = self.shown.into_inner();
        while !left.is_empty() {
            let (_, said) = left[0].clone();
            let (together, others) = left.into_iter().partition(|(_, other)| *other == said);
            left = others;
            let together: Vec<(String, Said)> = together;
            let lines: Vec<_> = together.into_iter().map(|(line, _)| line).collect();
            writeln!(section, "{}: {}", said.0, lines.join(", ")).expect("written");
            section.push_str(&said.1);
        }
        (section, self.broken.into_inner())
    }

    /// Runs commands that change something, each on a copy.
    fn changing(&self) {
        let writes = match self.subject.kind {
            Kind::Log => format!("append DIR --level strict {SMALL}"),
            Kind::Tokens | Kind::Others => "put DIR --id 9999 --type event".to_owned(),
        };
        let lines = [
            format!("replay DIR {SMALL}"),
            format!("checkpoint DIR {SMALL}"),
            writes,
            "purge DIR --keep-from end --yes".to_owned(),
        ];
        for line in lines {
            let copy = self.copy();
            let done = run(&line, &copy, "another\n");
            self.show(&line, &done);
            self.rule(&line, self.recount.check_after(&line, &done, &copy));
            if done.code != 0 {
                self.rule(&line, same("changed files", &done.changed, &Vec::new()));
            }
        }
    }

    fn repair_and_undo(&self) {
        let copy = self.copy();
        let before = files(&copy);
        let line = format!("repair DIR --yes {SMALL}");
        let repaired = run(&line, &copy, "");
        self.show(&line, &repaired);
        self.rule(&line, self.recount.check_after(&line, &repaired, &copy));
        if repaired.changed.is_empty() {
            return;
        }
        let verified = run("verify DIR", &copy, "");
        self.show("verify DIR (repaired)", &verified);
        for line in ["repair --undo DIR", "repair --undo DIR --yes"] {
            let done = run(line, &copy, "");
            self.show(line, &done);
            self.rule(line, same("exit code", &done.code, &0));
        }
        self.rule("repair --undo", same("all bytes", &(files(&copy) == before), &true));
    }

    fn back_up(&self) {
        let copy = self.copy();
        let (backup, restored) = (self.beside.join("backup"), self.beside.join("restored"));
        let line = format!("backup DIR {}", backup.display());
        let done = run(&line, &copy, "");
        self.show("backup DIR DEST", &done);
        if done.code == 0 {
            let line = format!("restore {} DIR", backup.display());
            let done = run(&line, &restored, "");
            self.rule(&line, same("exit code", &done.code, &0));
            self.rule("restore", self.recount.check_after("restore", &done, &restored));
            std::fs::remove_dir_all(&restored).ok();
        }
        std::fs::remove_dir_all(&backup).ok();
    }

    fn copy(&self) -> PathBuf {
        let to = self.beside.join("copy");
        std::fs::remove_dir_all(&to).ok();
        copy(&self.dir, &to);
        to
    }

    /// Notes what a command said, without what differs from run to run.
    fn show(&self, line: &str, done: &Done) {
        let line = line.replace(&format!(" {SMALL}"), "").replace(" DIR", "");
        let command = line.split(' ').next().unwrap_or_default();
        let mut said = String::new();
        match command {
            "dump" | "scan" | "get" if done.code != 1 => {
                let rows = done.stdout.lines().count().saturating_sub(1);
                writeln!(said, "  ({rows} rows)").expect("written");
            }
            _ => {}
        }
        let fields = done.stdout.lines().filter({
            let mut is_shown = false;
            move |line| {
                // A line without a name continues the field before.
                if !line.starts_with(' ') {
                    is_shown =
                        FIELDS.iter().any(|(of, field)| *of == command && line.starts_with(field));
                }
                is_shown
            }
        });
        let fields = fields.map(|line| format!("  {line}"));
        let told = done.stderr.lines().map(|line| format!("  | {line}"));
        for line in fields.chain(told) {
            writeln!(said, "{}", self.neutral(&line)).expect("written");
        }
        // A spare segment is made ahead in the background, or not yet.
        let kinds: BTreeSet<&str> = done.changed.iter().map(|name| kind_of(name)).collect();
        if !kinds.is_empty() {
            let kinds: Vec<_> = kinds.into_iter().collect();
            writeln!(said, "  changed: {}", kinds.join(" ")).expect("written");
        }
        self.shown.borrow_mut().push((line, (done.code, said)));
    }

    fn neutral(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for (path, name) in [
            (self.beside.join("copy"), "DIR"),
            (self.dir.clone(), "DIR"),
            (self.beside.clone(), "BESIDE"),
        ] {
            line = line.replace(&path.display().to_string(), name);
        }
        // An idle mark may come before the end, or not.
        if let Some((words, _)) = line.split_once(", below LSN ") {
            return format!("{words}, below LSN N.");
        }
        line.trim_end().to_owned()
    }
}

/// Returns what a file is: a folder's, a segment, or one with a name of its own.
fn kind_of(name: &str) -> &str {
    match name.split_once('/') {
        Some((folder, _)) => folder,
        None if name.ends_with(".seg") => "segments",
        None => name,
    }
}

/// Says what differs.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<(), String> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("{what}: {found:?}, not {expected:?}")),
    }
}

/// The fields of the commands' reports that are shown. Of the others the machine checks the figures.
const FIELDS: [(&str, &str); 17] = [
    ("verify", "status"),
    ("verify", "case"),
    ("verify", "entries"),
    ("verify", "evidence"),
    ("verify", "checkpoints"),
    ("repair", "cut at"),
    ("repair", "would"),
    ("repair", "checkpoints"),
    ("repair", "store opens"),
    ("repair", "repaired"),
    ("repair", "removed"),
    ("repair", "undone"),
    ("repair", "restored"),
    ("purge", "removed entries"),
    ("purge", "kept entries"),
    ("replay", "replayed entries"),
    ("backup", "checkpoint"),
];

/// An exit code, and what was said with it.
type Said = (i32, String);

fn run(line: &str, dir: &Path, stdin: &str) -> Done {
    let before = files(dir);
    let words = line.split(' ').map(|word| match word {
        "DIR" => dir.as_os_str(),
        word => word.as_ref(),
    });
    let input = tempfile(stdin);
    let output = bulla().args(words).stdin(input).output().expect("runs");
    let after = files(dir);
    let mut changed: Vec<String> = before
        .keys()
        .chain(after.keys())
        .filter(|name| before.get(*name) != after.get(*name))
        .cloned()
        .collect();
    changed.sort();
    changed.dedup();
    let code = crate::common::code(&output);
    Done { code, stdout: stdout(&output), stderr: stderr(&output), changed }
}

fn tempfile(text: &str) -> std::process::Stdio {
    use std::io::{Seek, Write};
    let mut file = ::tempfile::tempfile().expect("made");
    file.write_all(text.as_bytes()).expect("written");
    file.rewind().expect("rewound");
    file.into()
}

/// All files below a directory, by their names in it.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    if !dir.exists() {
        return BTreeMap::new();
    }
    let named = |(path, bytes): (PathBuf, Vec<u8>)| {
        let name = path.strip_prefix(dir).expect("in it").display().to_string();
        (name.trim_start_matches('0').to_owned(), bytes)
    };
    image(dir).into_iter().map(named).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(to).status();
    assert!(copied.expect("cp runs").success());
}
