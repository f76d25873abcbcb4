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
    for package in ["wal", "recovery", "engine", "cli", "examples", "tests", "benches", "fuzz"] {
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
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the document");
    let section = text.split("\n## Invariants\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let invariants: Vec<&str> = section.split("\n- **I").skip(1).collect();
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

/// Numbers of invariants at the start of what the oracle says.
fn reported(source: &str) -> impl Iterator<Item = &str> {
    source.split('"').filter_map(|text| {
        let (number, _) = text.split_once(": ")?;
        let digits = number.strip_prefix('I')?.trim_end_matches(|c: char| c.is_ascii_lowercase());
        (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
    })
}

#[test]
fn every_violation_of_the_oracle_has_the_number_of_an_invariant() {
    let sources = sources();
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("the document");
    let mut all = BTreeSet::new();
    for file in ["tests/src/model.rs", "tests/src/campaign.rs"] {
        let source = &sources[file];
        let violations = source.matches("Err(format!(").count() + source.matches("Err(\"").count();
        let numbers: Vec<&str> = reported(source).collect();
        assert!(numbers.len() >= violations, "{file}: {violations} violations, {numbers:?}");
        all.extend(numbers);
    }
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
    for heading in ["Promised", "Detected and refused", "Tolerated"] {
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
    for name in ["CONTRIBUTING.md", "docs/TESTING.md", "docs/FAULT_MODEL.md"] {
        let text = fs::read_to_string(root().join(name)).expect("the document");
        for (number, line) in text.lines().enumerate() {
            check(line, &sources).unwrap_or_else(|error| panic!("{name}:{}: {error}", number + 1));
        }
    }
}
