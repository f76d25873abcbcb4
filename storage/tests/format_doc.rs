//! `docs/FORMAT.md` says what the structs say: every field, offset, size and constant.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use bulla_storage::format::layout::Structure;
use bulla_storage::format::tables::{CONSTANTS, STRUCTURES};

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FORMAT.md");
    std::fs::read_to_string(path).unwrap()
}

/// The rows of the first table below the heading that names `name`, cell by cell.
fn rows<'a>(document: &'a str, name: &str) -> Vec<Vec<&'a str>> {
    let is_heading = |line: &&str| line.starts_with('#') && line.contains(&format!("`{name}`"));
    let below = document.lines().skip_while(|line| !is_heading(line)).skip(1);
    below
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'))
        .skip(2) // The header and the rule below it.
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect()
}

fn number(cell: &str) -> u64 {
    let digits = cell.replace(',', "");
    let parsed = match digits.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => digits.parse(),
    };
    parsed.unwrap_or_else(|_| panic!("{cell:?} is not a number"))
}

/// What the document says of one structure: name, offset and size of each field.
fn described<'a>(document: &'a str, structure: &Structure) -> Vec<(&'a str, u64, u64)> {
    rows(document, structure.name)
        .iter()
        .map(|cells| (cells[2].trim_matches('`'), number(cells[0]), number(cells[1])))
        .collect()
}

#[test]
fn every_byte_in_the_document_is_where_the_structs_have_it() {
    let document = document();
    for structure in &STRUCTURES {
        let fields: Vec<_> = structure
            .fields
            .iter()
            .map(|(name, offset, len)| (*name, *offset as u64, *len as u64))
            .collect();
        assert_eq!(described(&document, structure), fields, "{}", structure.name);
    }
}

#[test]
fn fields_leave_no_byte_out() {
    for structure in &STRUCTURES {
        let end = structure.fields.iter().fold(0, |end, (name, offset, len)| {
            assert_eq!(*offset, end, "a gap before {}.{name}", structure.name);
            end + len
        });
        assert_eq!(end, structure.len, "bytes after the last field of {}", structure.name);
    }
}

#[test]
fn every_constant_in_the_document_has_the_value_in_the_source() {
    let document = document();
    let described: Vec<_> = rows(&document, "CONSTANTS")
        .iter()
        .map(|cells| (cells[0].trim_matches('`'), number(cells[1])))
        .collect();
    assert_eq!(described, CONSTANTS);
}
