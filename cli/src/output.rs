//! Standard output: tables for people, JSON for programs.
//!
//! What is printed is a type that serializes, the same for both. A table shows a field by the
//! rules of [`text`]: a field whose name ends in `_bytes` is a size.

use std::io::{self, BufWriter, StdoutLock, Write};

use anstyle::Style;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::numbers::{grouped, size};
use crate::terminal::{HEADING, style_of_state};

/// How data is printed.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// Returns whether the reader of standard output has gone away. Known of pipes and sockets only.
pub(crate) fn is_stdout_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

type Fields = Map<String, Value>;

/// Returns what serializes as an object, field by field.
fn fields(value: &impl Serialize) -> Result<Fields> {
    match serde_json::to_value(value).map_err(unserializable)? {
        Value::Object(fields) => Ok(fields),
        _ => Err(Error::Output(io::Error::other("a row must have fields"))),
    }
}

fn unserializable(error: serde_json::Error) -> Error {
    Error::Output(error.into())
}

/// Standard output.
pub(crate) struct Out {
    format: Format,
    is_coloured: bool,
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        let stdout = io::stdout().lock();
        let colour = anstream::AutoStream::choice(&stdout);
        Self {
            format,
            is_coloured: format == Format::Table && colour != anstream::ColorChoice::Never,
            to: BufWriter::with_capacity(64 * 1024, stdout),
        }
    }

    /// Returns whether output is for people.
    pub(crate) fn is_table(&self) -> bool {
        self.format == Format::Table
    }

    /// Returns the text in a style, where colour is used.
    pub(crate) fn painted(&self, style: Style, text: &str) -> String {
        if self.is_coloured && !text.is_empty() {
            format!("{style}{text}{style:#}")
        } else {
            text.to_owned()
        }
    }

    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        writeln!(self.to, "{line}").map_err(Error::Output)
    }

    /// Prints finished text unchanged.
    pub(crate) fn bytes(&mut self, text: &[u8]) -> Result<()> {
        self.to.write_all(text).map_err(Error::Output)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(Error::Output)
    }

    /// Prints one report: a line per field, or an object.
    pub(crate) fn report(&mut self, report: &impl Serialize) -> Result<()> {
        match self.format {
            Format::Table => self.table_of(&fields(report)?),
            Format::Json => {
                let text = serde_json::to_string_pretty(report).map_err(unserializable)?;
                self.line(text)
            }
            Format::Jsonl => self.compact(report),
        }
    }

    /// Prints an object on one line.
    pub(crate) fn compact(&mut self, object: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.to, object).map_err(unserializable)?;
        self.line("")
    }

    fn table_of(&mut self, fields: &Fields) -> Result<()> {
        let width = fields.keys().map(|name| label(name).chars().count()).max().unwrap_or(0);
        for (name, value) in fields {
            let mut head = label(name);
            let lines = match value {
                Value::Array(lines) if lines.iter().any(is_long) => {
                    lines.iter().map(|line| text(name, line)).collect()
                }
                value => vec![text(name, value)],
            };
            for line in lines {
                let head = self.painted(HEADING, &format!("{:width$}", std::mem::take(&mut head)));
                let line = self.cell(name, &line);
                self.line(format!("{head}  {line}").trim_end())?;
            }
        }
        Ok(())
    }

    /// Returns a value, coloured where it is the name of a state.
    fn cell(&self, name: &str, padded: &str) -> String {
        match style_of_state(padded.trim_start()).filter(|_| is_state(name)) {
            Some(style) => self.painted(style, padded),
            None => padded.to_owned(),
        }
    }

    /// Starts a list of rows.
    pub(crate) fn rows(&mut self) -> Rows<'_> {
        Rows { out: self, head: Vec::new(), waiting: Vec::new(), count: 0, started: false }
    }
}

/// Returns whether an item of a list gets a line of its own.
fn is_long(item: &Value) -> bool {
    item.is_object() || item.as_str().is_some_and(|text| text.contains([' ', '/']))
}

/// Returns whether a field names a state.
fn is_state(name: &str) -> bool {
    const NAMES: [&str; 8] = [
        "status",
        "status_before",
        "state",
        "checkpoints",
        "verdict",
        "usable",
        "ok",
        "store_opens_after",
    ];
    NAMES.contains(&name)
}

/// Rows that are printed as they come. A table takes its widths from its first rows.
pub(crate) struct Rows<'a> {
    out: &'a mut Out,
    head: Vec<(String, usize)>,
    waiting: Vec<Fields>,
    count: u64,
    started: bool,
}

/// Rows from which a table takes its widths.
const WIDTH_ROWS: usize = 200;

impl Rows<'_> {
    pub(crate) const fn format(&self) -> Format {
        self.out.format
    }

    pub(crate) fn push(&mut self, row: &impl Serialize) -> Result<()> {
        let first = self.count == 0;
        self.count += 1;
        match self.out.format {
            Format::Jsonl => self.out.compact(row),
            Format::Json => {
                self.out.bytes(if first { b"[\n" } else { b",\n" })?;
                serde_json::to_writer(&mut self.out.to, row).map_err(unserializable)
            }
            Format::Table => self.push_fields(fields(row)?),
        }
    }

    fn push_fields(&mut self, row: Fields) -> Result<()> {
        if self.started {
            return self.table_row(&row);
        }
        self.waiting.push(row);
        if self.waiting.len() < WIDTH_ROWS { Ok(()) } else { self.start_table() }
    }

    /// Prints the rows that are there, for a reader who waits for them.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.start_table()?;
        }
        self.out.flush()
    }

    /// Ends the list; returns the number of rows.
    pub(crate) fn end(mut self) -> Result<u64> {
        match self.out.format {
            Format::Table if !self.started => self.start_table()?,
            Format::Json => self.out.line(if self.count == 0 { "[]" } else { "\n]" })?,
            Format::Table | Format::Jsonl => {}
        }
        Ok(self.count)
    }

    fn start_table(&mut self) -> Result<()> {
        self.started = true;
        let rows = std::mem::take(&mut self.waiting);
        let Some(first) = rows.first() else { return Ok(()) };
        self.head = first
            .keys()
            .map(|name| {
                let cells = rows.iter().filter_map(|row| row.get(name));
                let longest = cells.map(|cell| text(name, cell).chars().count()).max();
                (name.clone(), longest.unwrap_or(0).max(label(name).chars().count()))
            })
            .collect();
        let titles = self.head.iter().map(|(name, width)| {
            let title = align(&label(name), *width, is_right(first, name));
            self.out.painted(HEADING, &title)
        });
        let titles = titles.collect::<Vec<_>>().join("  ");
        self.out.line(titles.trim_end())?;
        rows.iter().try_for_each(|row| self.table_row(row))
    }

    fn table_row(&mut self, row: &Fields) -> Result<()> {
        let cells: Vec<_> = self
            .head
            .iter()
            .map(|(name, width)| {
                let cell = row.get(name).map(|value| text(name, value)).unwrap_or_default();
                self.out.cell(name, &align(&cell, *width, is_right(row, name)))
            })
            .collect();
        self.out.line(cells.join("  ").trim_end())
    }
}

fn is_right(row: &Fields, name: &str) -> bool {
    row.get(name).is_some_and(Value::is_number)
}

fn align(cell: &str, width: usize, right: bool) -> String {
    if right { format!("{cell:>width$}") } else { format!("{cell:width$}") }
}

/// A field with this end is a size.
const SIZE: &str = "_bytes";

/// Returns the name of a field for people.
fn label(name: &str) -> String {
    name.strip_suffix(SIZE).unwrap_or(name).replace('_', " ")
}

/// Returns a value for people: without quotes, large numbers grouped, sizes with a unit.
fn text(name: &str, value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match number.as_u64() {
            Some(len) if name.ends_with(SIZE) => size(len),
            // Not grouped: it is typed again, to `bulla get`.
            Some(number) if name != "id" => grouped(number),
            _ => number.to_string(),
        },
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => {
            items.iter().map(|item| text(name, item)).collect::<Vec<_>>().join(" ")
        }
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{} {}", label(name), text(name, value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_for_people() {
        for (name, value, words) in [
            ("file_bytes", serde_json::json!(1536), "1.5 KiB"),
            ("last_lsn", serde_json::json!(1_234_567), "1,234,567"),
            ("id", serde_json::json!(1_234_567), "1234567"),
            ("physical", serde_json::json!([1.5, 2.0, -3.25]), "1.5 2.0 -3.25"),
            ("model", Value::Null, "-"),
            ("kinds", serde_json::json!({"kind": 1, "payload_bytes": 64}), "kind 1, payload 64 B"),
        ] {
            assert_eq!(text(name, &value), words, "{name}");
        }
        assert_eq!(label("proved_durable_lsn"), "proved durable lsn");
        assert_eq!(label("file_bytes"), "file");
    }
}
