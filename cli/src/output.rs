//! Standard output: tables for people, JSON for programs.

use std::io::{self, BufWriter, StdoutLock, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// How data are printed.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// One JSON document.
    Json,
    /// A JSON object a line.
    Jsonl,
}

/// Has whoever read standard output gone away? Known of pipes and sockets only.
pub(crate) fn is_stdout_closed() -> bool {
    let stdout = io::stdout();
    let mut polled = [PollFd::new(&stdout, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok_and(|ready| ready > 0)
}

/// Fields of a row or a report, in the order in which they are shown.
pub(crate) type Fields = Map<String, Value>;

/// Makes `Fields`.
#[macro_export]
macro_rules! fields {
    ($($name:literal: $value:expr),* $(,)?) => {{
        let mut fields = $crate::output::Fields::new();
        $(fields.insert($name.to_owned(), serde_json::json!($value));)*
        fields
    }};
}

/// Standard output.
pub(crate) struct Out {
    format: Format,
    to: BufWriter<StdoutLock<'static>>,
}

impl Out {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, to: BufWriter::with_capacity(64 * 1024, io::stdout().lock()) }
    }

    pub(crate) const fn format(&self) -> Format {
        self.format
    }

    pub(crate) fn line(&mut self, line: impl std::fmt::Display) -> Result<()> {
        writeln!(self.to, "{line}").map_err(Error::Output)
    }

    /// Prints text that was made elsewhere, as it is.
    pub(crate) fn bytes(&mut self, text: &[u8]) -> Result<()> {
        self.to.write_all(text).map_err(Error::Output)
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        self.to.flush().map_err(Error::Output)
    }

    /// Prints one report: a line per field, or an object.
    pub(crate) fn report(&mut self, fields: &Fields) -> Result<()> {
        match self.format {
            Format::Table => {
                let width = fields.keys().map(|name| name.chars().count()).max().unwrap_or(0);
                for (name, value) in fields {
                    let name = name.replace('_', " ");
                    match value {
                        Value::Array(lines) if lines.iter().any(Value::is_string) => {
                            let mut head = name.as_str();
                            for line in lines {
                                self.line(format_args!("{head:width$}  {}", text(line)))?;
                                head = "";
                            }
                        }
                        value => self.line(format_args!("{name:width$}  {}", text(value)))?,
                    }
                }
                Ok(())
            }
            Format::Json => self.line(format_args!("{:#}", Value::from(fields.clone()))),
            Format::Jsonl => self.line(Value::from(fields.clone())),
        }
    }

    /// Starts a list of rows.
    pub(crate) fn rows(&mut self) -> Rows<'_> {
        Rows { out: self, head: Vec::new(), waiting: Vec::new(), count: 0, started: false }
    }
}

/// Rows that are printed as they come. A table takes its widths from its first rows.
pub(crate) struct Rows<'a> {
    out: &'a mut Out,
    head: Vec<(String, usize)>,
    waiting: Vec<Fields>,
    count: u64,
    started: bool,
}

/// Rows of a table that are looked at for its widths.
const WIDTH_ROWS: usize = 200;

impl Rows<'_> {
    pub(crate) fn push(&mut self, row: Fields) -> Result<()> {
        let first = self.count == 0;
        self.count += 1;
        match self.out.format {
            Format::Jsonl => self.out.line(Value::from(row)),
            Format::Json => {
                let before = if first { "[" } else { "," };
                write!(self.out.to, "{before}\n{}", Value::from(row)).map_err(Error::Output)
            }
            Format::Table if self.started => self.table_row(&row),
            Format::Table => {
                self.waiting.push(row);
                if self.waiting.len() < WIDTH_ROWS { Ok(()) } else { self.start_table() }
            }
        }
    }

    /// Prints what is there of it, for somebody who waits for it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.start_table()?;
        }
        self.out.flush()
    }

    /// Ends the list; gives the number of rows.
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
                let longest = cells.map(|cell| text(cell).chars().count()).max().unwrap_or(0);
                (name.clone(), longest.max(name.chars().count()))
            })
            .collect();
        let head: Vec<_> = self
            .head
            .iter()
            .map(|(name, width)| align(&name.replace('_', " "), *width, is_right(first, name)))
            .collect();
        self.out.line(head.join("  ").trim_end())?;
        rows.iter().try_for_each(|row| self.table_row(row))
    }

    fn table_row(&mut self, row: &Fields) -> Result<()> {
        let cells: Vec<_> = self
            .head
            .iter()
            .map(|(name, width)| {
                let cell = row.get(name).map(text).unwrap_or_default();
                align(&cell, *width, is_right(row, name))
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

/// A value for people: without quotes, large numbers grouped.
pub(crate) fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| format!("{} {}", name.replace('_', " "), text(value)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// 1234567 as `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes with a binary unit: `1.5 MiB`.
pub(crate) fn bytes(len: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if len < 1024 {
        return format!("{len} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = len as f64 / 1024.0;
    let mut units = UNITS.into_iter();
    let mut unit = units.next().unwrap_or_default();
    while value >= 1024.0 {
        let Some(next) = units.next() else { break };
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1023, 1536, 64 << 20].map(bytes), ["0 B", "1023 B", "1.5 KiB", "64.0 MiB"]);
    }
}
