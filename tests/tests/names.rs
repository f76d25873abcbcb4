//! What the documents say of tests is true: every test that they name is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Rows and invariants that name these are shown by more than one test.
const SUITES: [&str; 2] = ["Campaign", "`broken`"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every source file of the workspace, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for package in
        ["storage", "recovery", "wal", "engine", "cli", "examples", "tests", "benches", "fuzz"]
    {
        collect(&root().join(package), &mut found);
    }
    found
}

fn collect(dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            found.insert(name, fs::read_to_string(&path).expect("a source file"));
        }
    }
}

/// The pieces of a text in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn is_path(piece: &str) -> bool {
    piece.ends_with(".rs") && !piece.contains(char::is_whitespace)
}

/// A name of a test: at least four words. `..._with_x` stands for a name that ends so.
fn is_test_name(piece: &str) -> bool {
    let name = piece.trim_start_matches('.');
    name.split('_').filter(|word| !word.is_empty()).count() >= if piece == name { 4 } else { 1 }
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Is there a test of this name in this source?
fn has_test(source: &str, piece: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    lines.iter().enumerate().any(|(at, line)| {
        let Some((_, rest)) = line.split_once("fn ") else { return false };
        let name = rest.split('(').next().unwrap_or_default();
        let fits = match piece.strip_prefix("...") {
            Some(end) => name.ends_with(end),
            None => name == piece,
        };
        let above = lines[at.saturating_sub(4)..at].iter();
        fits && (above.clone().any(|line| line.contains("#[test]"))
            || lines[..at].iter().rev().take(30).any(|line| line.contains("quickcheck!")))
    })
}

/// Checks every test that a text names, after the file that it is said to be in, and gives
/// how many there are.
fn check(text: &str, sources: &BTreeMap<String, String>) -> Result<usize, String> {
    let (mut file, mut tests) = (None, 0);
    for piece in quoted(text) {
        if is_path(piece) {
            // `core_tests.rs` stands for the one path that ends so.
            let fits = |path: &&String| *path == piece || path.ends_with(&format!("/{piece}"));
            let paths: Vec<&String> = sources.keys().filter(fits).collect();
            file = Some(piece);
            if paths.is_empty() {
                return Err(format!("there is no {piece}"));
            }
        } else if is_test_name(piece) {
            let there = sources.iter().any(|(path, source)| {
                file.is_none_or(|file| path.ends_with(file)) && has_test(source, piece)
            });
            if !there {
                return Err(format!("there is no test {piece} in {file:?}"));
            }
            tests += 1;
        }
    }
    Ok(tests)
}

#[test]
fn every_invariant_names_tests_that_exist() {
    let sources = sources();
    let text = fs::read_to_string(root().join("docs/INVARIANTS.md")).expect("the document");
    let invariants: Vec<&str> = text.split("\n- **I").skip(1).collect();
    assert!(invariants.len() > 30, "{} invariants are found", invariants.len());
    for invariant in invariants {
        let tests =
            check(invariant, &sources).unwrap_or_else(|error| panic!("I{invariant}: {error}"));
        let named = tests > 0
            || quoted(invariant).any(is_path)
            || SUITES.iter().any(|suite| invariant.contains(suite));
        assert!(named, "no test is named: I{invariant}");
    }
}

/// What an oracle finds broken, and the number of the invariant at its start, if it has one.
fn violations(source: &str) -> impl Iterator<Item = (&str, Option<&str>)> {
    const BEGIN: [&str; 5] = ["Err(", "Err(format!(", "| format!(", "|", "ok_or("];
    let texts = source.match_indices('"').filter_map(|(at, _)| {
        let before = source[..at].trim_end();
        let is_told = BEGIN.iter().any(|begin| before.ends_with(begin));
        let text = source[at + 1..].split('"').next().unwrap_or_default();
        // Another one, with more to it.
        (is_told && !text.starts_with("{violation}")).then_some(text)
    });
    texts.map(|text| (text, text.split_once(": ").map(|(number, _)| number).filter(is_number)))
}

fn is_number(text: &&str) -> bool {
    let digits = text.strip_prefix('I').unwrap_or_default();
    let digits = digits.trim_end_matches(|c: char| c.is_ascii_lowercase());
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[test]
fn every_violation_of_the_oracle_has_the_number_of_an_invariant() {
    let sources = sources();
    let text = fs::read_to_string(root().join("docs/INVARIANTS.md")).expect("the document");
    let mut all = BTreeSet::new();
    const ORACLES: [&str; 3] =
        ["tests/src/model.rs", "tests/src/campaign.rs", "tests/src/reading.rs"];
    let of_a_store = sources.keys().filter(|file| file.starts_with("tests/src/store/"));
    let files: Vec<&str> = ORACLES.into_iter().chain(of_a_store.map(String::as_str)).collect();
    assert_eq!(files.len(), 3 + 6, "{files:?}");
    let mut without = Vec::new();
    for file in files {
        let source = &sources[file];
        assert!(violations(source).count() > 0, "{file} finds nothing");
        assert!(!source.contains(".to_string())?"), "{file}: an error alone has no number");
        for (text, number) in violations(source) {
            match number {
                Some(number) => drop(all.insert(number)),
                None => without.push((file, text)),
            }
        }
    }
    assert!(without.is_empty(), "no number: {without:#?}");
    for number in &all {
        assert!(text.contains(&format!("**{number}**")), "there is no invariant {number}");
    }
    for letter in 'a'..='h' {
        assert!(all.contains(format!("I20{letter}").as_str()), "nothing reports I20{letter}");
    }
}

#[test]
fn every_fault_names_tests_that_exist() {
    let sources = sources();
    let text = fs::read_to_string(root().join("docs/FAULT_MODEL.md")).expect("the document");
    let mut faults = 0;
    for heading in ["Guarantees", "Detected and refused", "Tolerated"] {
        let section = text.split(&format!("\n## {heading}\n")).nth(1).expect("the section");
        let section = section.split("\n## ").next().expect("its text");
        let rows = section.lines().filter(|line| line.starts_with("| ") && line.contains('`'));
        for row in rows {
            let tests = check(row, &sources).unwrap_or_else(|error| panic!("{row}: {error}"));
            let named = tests > 0
                || quoted(row).any(is_path)
                || SUITES.iter().any(|suite| row.contains(suite));
            assert!(named, "no test is named: {row}");
            faults += 1;
        }
    }
    assert!(faults > 30, "{faults} faults are found");
}

#[test]
fn every_test_that_a_document_names_exists() {
    let sources = sources();
    const DOCUMENTS: [&str; 7] = [
        "CONTRIBUTING.md",
        "docs/DECISIONS.md",
        "docs/FAULT_MODEL.md",
        "docs/FORMAT.md",
        "docs/INVARIANTS.md",
        "docs/PERFORMANCE.md",
        "docs/TESTING.md",
    ];
    for name in DOCUMENTS {
        let text = fs::read_to_string(root().join(name)).expect("the document");
        for (number, line) in text.lines().enumerate() {
            check(line, &sources).unwrap_or_else(|error| panic!("{name}:{}: {error}", number + 1));
        }
    }
}

/// The test programs of a package, by its manifest, and the modules of its `main`.
fn programs(package: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let read = |file: &str| fs::read_to_string(root().join(package).join(file)).expect("a file");
    let manifest = read("Cargo.toml");
    let targets = manifest.split("\n[[test]]\nname = \"").skip(1);
    let names = targets.filter_map(|rest| rest.split('"').next().map(str::to_owned)).collect();
    let main = read("tests/main.rs");
    let modules = main.lines().filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
    (names, modules.map(str::to_owned).collect())
}

/// Those whose tests are modules of one program.
const MERGED: [&str; 4] = ["wal", "recovery", "engine", "tests"];

#[test]
fn every_file_of_tests_is_in_a_program() {
    for package in MERGED {
        let (programs, modules) = programs(package);
        let there: BTreeSet<String> = fs::read_dir(root().join(package).join("tests"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| {
                path.extension().is_some_and(|rs| rs == "rs") || path.join("mod.rs").exists()
            })
            .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
            .collect();
        let named: BTreeSet<String> = programs.union(&modules).cloned().collect();
        assert_eq!(there, named, "{package}");
    }
}

/// Checks the test program that a command starts, and the modules that it picks of it.
fn check_command(package: &str, rest: &str) -> Result<(), String> {
    let (programs, modules) = programs(package);
    let mut words = rest.split_whitespace().map(|word| word.trim_end_matches([',', ';', '.']));
    let program = words.next().unwrap_or_default();
    if !programs.contains(program) {
        return Err(format!("{package} has no test program {program}"));
    }
    let picked = words.filter_map(|word| word.split_once("::")).map(|(module, _)| module);
    match picked.into_iter().find(|module| !modules.contains(*module)) {
        Some(module) => Err(format!("{program} of {package} has no module {module}")),
        None => Ok(()),
    }
}

#[test]
fn every_test_program_that_a_document_starts_exists() {
    let mut started = 0;
    for name in ["CONTRIBUTING.md", "docs/TESTING.md", "fuzz/README.md", ".ci/run"] {
        let text = fs::read_to_string(root().join(name)).expect("the document");
        // Lines that are continued are one.
        for line in text.replace("\\\n", " ").lines() {
            for command in line.split("-p bulla-").skip(1) {
                let command = command.split('`').next().unwrap_or_default();
                let package = command.split_whitespace().next().unwrap_or_default();
                if !MERGED.contains(&package) {
                    continue;
                }
                for rest in command.split("--test").skip(1) {
                    check_command(package, rest.trim_start_matches('='))
                        .unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
                    started += 1;
                }
            }
        }
    }
    assert!(started > 20, "{started} commands are found");
}
