//! The rules of the house that a program can check: one-way imports, file sizes, hidden items,
//! where wrong code is, the length of ARCHITECTURE.md, and the words that readers stumbled over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The crates of the product, from the lowest to the highest.
const CRATES: [&str; 5] = ["storage", "recovery", "wal", "engine", "cli"];
/// A file without its tests has at most this many lines.
const MAX_LINES: usize = 600;
/// The simulated disk is one state machine in several files.
const ONE_STATE_MACHINE: &str = "storage/src/io/sim/";
const MAX_HIDDEN: usize = 5;
const MAX_ARCHITECTURE_LEN: usize = 8 * 1024;

/// Private terms, each with the standard term to use in its place. A word in all lower case
/// matches whole words in any case, `word*` also what begins with it.
const BANNED: &[(&str, &str)] = &[
    ("rehome*", "tail rewrite"),
    ("re-home*", "tail rewrite"),
    ("rehoming", "tail rewrite"),
    ("re-homing", "tail rewrite"),
    ("whoever", "name the actor"),
    ("scout*", "durable probe"),
    ("hands over", "passes"),
    ("is to be", "an active verb"),
    ("are to be", "an active verb"),
    ("comes to be", "becomes"),
    ("come to be", "become"),
    ("can so only", "rephrase"),
    ("look whether", "check whether"),
    ("looks whether", "checks whether"),
    ("promise*", "durable mark, or guarantee"),
    ("landmark*", "anchor"),
    ("supersedes_from", "replaces_from"),
    ("low_chain", "low_prev_crc"),
    ("amid", "during"),
    ("so many", "name the number"),
    ("uncovered", "unsynced"),
    ("three deep", "nested"),
    ("closed in order", "closed cleanly"),
    ("is none of tokens", "does not hold tokens"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn files_below(dir: &str, extension: &str) -> BTreeMap<String, String> {
    fn collect(dir: &Path, extension: &str, found: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(dir).expect("a folder of the workspace") {
            let path = entry.expect("an entry").path();
            if path.is_dir() && !path.ends_with("target") {
                collect(&path, extension, found);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).expect("below the root").display().to_string();
                found.insert(name, fs::read_to_string(&path).expect("a text file"));
            }
        }
    }
    let mut found = BTreeMap::new();
    collect(&root().join(dir), extension, &mut found);
    found
}

/// The sources of the product, each without its tests, which come last in a file.
fn product() -> BTreeMap<String, String> {
    let all = CRATES.iter().flat_map(|name| files_below(&format!("{name}/src"), "rs"));
    let mut product = BTreeMap::new();
    for (name, text) in all {
        if name.ends_with("tests.rs") || name.ends_with("/model.rs") {
            continue;
        }
        let end = text.find("\n#[cfg(test)]\nmod ").into_iter();
        let end = end.chain(text.find("\n#[cfg(all(test")).min().unwrap_or(text.len());
        product.insert(name, text.get(..end).unwrap_or_default().to_owned());
    }
    product
}

fn without_comments(text: &str) -> String {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// The paths that a source imports or names, `use` trees written out.
fn paths(code: &str, prefix: &str) -> Vec<Vec<String>> {
    fn expand(rest: &str, before: &[String], found: &mut Vec<Vec<String>>) -> usize {
        let mut path = before.to_vec();
        let mut at = 0;
        loop {
            let tail = rest.get(at..).unwrap_or_default();
            if let Some(inner) = tail.strip_prefix('{') {
                at += 1;
                let mut left = inner;
                loop {
                    let trimmed = left.trim_start_matches([' ', '\n', ',']);
                    at += left.len() - trimmed.len();
                    if trimmed.is_empty() || trimmed.starts_with('}') {
                        return at + 1;
                    }
                    let used = expand(trimmed, &path, found).max(1);
                    at += used;
                    left = trimmed.get(used..).unwrap_or_default();
                    let end = left.find([',', '}', '{']).unwrap_or(left.len());
                    at += end;
                    left = left.get(end..).unwrap_or_default();
                }
            }
            let word = tail.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(tail.len());
            path.push(tail.get(..word).unwrap_or_default().to_owned());
            at += word;
            if !rest.get(at..).unwrap_or_default().starts_with("::") {
                found.push(path);
                return at;
            }
            at += 2;
        }
    }
    let mut found = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code.get(..at).unwrap_or_default();
        if !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':') {
            expand(code.get(at + prefix.len()..).unwrap_or_default(), &[], &mut found);
        }
    }
    found
}

/// The modules of a crate by their paths, each with its file.
type Modules<'a> = BTreeMap<Vec<String>, &'a str>;

fn module_of(file: &str) -> Vec<String> {
    let inside = file.split_once("/src/").map_or(file, |(_, inside)| inside);
    let mut path: Vec<_> = inside.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    if matches!(path.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        path.pop();
    }
    path
}

/// The file that defines what a path names: a re-export is followed to its definition.
fn defined_in<'a>(
    modules: &Modules<'a>,
    sources: &BTreeMap<String, String>,
    path: &[String],
    depth: usize,
) -> Option<&'a str> {
    let len = (0..=path.len()).rev().find(|len| modules.contains_key(&path[..*len]))?;
    let file = modules[&path[..len]];
    let (Some(item), true) = (path.get(len), depth < 4) else { return Some(file) };
    let code = without_comments(&sources[file]);
    for statement in code.split(';').filter(|part| part.contains("use ")) {
        let after = statement.rsplit_once("use ").map_or("", |(_, after)| after);
        let after = after.trim_start_matches("self::").trim_start_matches("crate::");
        for used in paths(&format!("\0{after}"), "\0") {
            if used.last() == Some(item) && used.len() > 1 {
                let mut inner = path[..len].to_vec();
                inner.extend(used);
                if modules.keys().any(|module| module.len() > len && inner.starts_with(module)) {
                    return defined_in(modules, sources, &inner, depth + 1);
                }
            }
        }
    }
    Some(file)
}

/// Which files each file imports from, within its crate. A module's re-exports are no imports.
fn imports(name: &str) -> BTreeMap<String, BTreeSet<String>> {
    let sources: BTreeMap<_, _> =
        product().into_iter().filter(|(file, _)| file.starts_with(&format!("{name}/"))).collect();
    let modules: Modules<'_> =
        sources.keys().map(|file| (module_of(file), file.as_str())).collect();
    let mut imports = BTreeMap::new();
    for (file, text) in &sources {
        let code: String = without_comments(text)
            .split_inclusive(';')
            .filter(|part| !part.trim_start().starts_with("pub use "))
            .collect();
        let own = module_of(file);
        let parent = own.split_last().map_or(&[][..], |(_, parent)| parent).to_vec();
        let bases = [("crate::", Vec::new()), ("super::", parent), ("self::", own)];
        let mut targets = BTreeSet::new();
        for (prefix, base) in bases {
            for path in paths(&code, prefix) {
                let whole: Vec<_> = base.iter().cloned().chain(path).collect();
                targets.extend(defined_in(&modules, &sources, &whole, 0).map(str::to_owned));
            }
        }
        targets.remove(file);
        imports.insert(file.clone(), targets);
    }
    imports
}

/// Files from which imports lead back to themselves.
fn in_circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let reached = |from: &String| {
        let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
        while let Some(file) = open.pop() {
            open.extend(imports[file].iter().filter(|next| seen.insert((*next).clone())));
        }
        seen
    };
    imports.keys().filter(|file| reached(file).contains(*file)).cloned().collect()
}

#[test]
fn no_file_imports_from_itself_by_way_of_others() {
    for name in CRATES {
        let imports = imports(name);
        assert!(imports.values().any(|targets| !targets.is_empty()), "{name}: nothing was read");
        let mut circles = in_circles(&imports);
        circles.retain(|file| !file.starts_with(ONE_STATE_MACHINE));
        assert!(circles.is_empty(), "{name}: {circles:#?}");
    }
}

#[test]
fn crates_depend_on_lower_ones_only() {
    for (index, name) in CRATES.iter().enumerate() {
        for (file, text) in
            product().iter().filter(|(file, _)| file.starts_with(&format!("{name}/")))
        {
            for higher in &CRATES[index + 1..] {
                let named = without_comments(text).contains(&format!("bulla_{higher}::"));
                assert!(!named, "{file} names bulla_{higher}");
            }
        }
    }
}

#[test]
fn no_file_holds_more_than_one_idea() {
    for (file, text) in product() {
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{file} has {lines} lines without its tests");
    }
}

#[test]
fn wrong_code_is_in_the_folders_of_faults_alone() {
    let names_a_mutant = |(file, text): &(String, String)| {
        let code = without_comments(text);
        !file.contains("/src/faults/") && (code.contains("Mutant::") || code.contains("planted("))
    };
    let found: Vec<_> =
        product().into_iter().filter(names_a_mutant).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn few_items_are_public_and_hidden() {
    let hidden: usize = product().values().map(|text| text.matches("#[doc(hidden)]").count()).sum();
    assert!(hidden <= MAX_HIDDEN, "{hidden} hidden items");
}

#[test]
fn architecture_fits_on_a_page() {
    let len = fs::read(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md").len();
    assert!(len <= MAX_ARCHITECTURE_LEN, "{len} bytes");
}

/// A text in lower case, each run of white space and comment marks one space: so that a term
/// is found where a line ends in it.
fn flat(text: &str) -> String {
    let words = text
        .split(|c: char| c.is_whitespace())
        .filter(|w| !matches!(*w, "" | "//" | "///" | "//!"));
    words.collect::<Vec<_>>().join(" ").to_lowercase()
}

fn holds(flat: &str, term: &str) -> bool {
    let (word, open) = term.strip_suffix('*').map_or((term, false), |word| (word, true));
    let is_word = |c: char| c.is_alphanumeric();
    flat.match_indices(word).any(|(at, _)| {
        let before = flat.get(..at).unwrap_or_default();
        let after = flat.get(at + word.len()..).unwrap_or_default();
        !before.ends_with(is_word) && (open || !after.starts_with(is_word))
    })
}

#[test]
fn terms_that_readers_stumbled_over_do_not_come_back() {
    let documents = files_below("docs", "md");
    let top = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"];
    let top = top
        .map(|name| (name.to_owned(), fs::read_to_string(root().join(name)).expect("a document")));
    let mut found = Vec::new();
    for (file, text) in product().into_iter().chain(documents).chain(top) {
        let flat = flat(&text);
        for (term, better) in BANNED.iter().filter(|(term, _)| holds(&flat, term)) {
            found.push(format!("{file}: \"{term}\" ({better})"));
        }
    }
    assert!(found.is_empty(), "{} banned terms:\n{}", found.len(), found.join("\n"));
}

#[test]
fn checks_of_this_file_find_what_they_look_for() {
    let tree = |pairs: &[(&str, &str)]| -> BTreeMap<String, BTreeSet<String>> {
        let mut imports: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (from, to) in pairs {
            imports.entry((*from).to_owned()).or_default().insert((*to).to_owned());
            imports.entry((*to).to_owned()).or_default();
        }
        imports
    };
    assert_eq!(
        in_circles(&tree(&[("a", "b"), ("b", "c"), ("c", "a"), ("d", "a")])),
        ["a", "b", "c"]
    );
    assert!(in_circles(&tree(&[("a", "b"), ("a", "c"), ("b", "c")])).is_empty());
    let found = paths("use crate::{a::{B, c::D}, e};\nlet x = crate::f::g();", "crate::");
    let found: Vec<_> = found.iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "a::c::D", "e", "f::g"]);
    assert!(holds(&flat("What is\n/// to be done"), "is to be"));
    assert!(holds("the promised land", "promise*") && !holds("compromise", "promise*"));
    assert!(!holds("the landmarks", "landmark"));
}
