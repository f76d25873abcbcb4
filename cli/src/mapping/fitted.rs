//! A mapping that fits the columns of a file, and makes tokens of its rows.

use std::collections::HashMap;

use bulla_engine::{EntityType, Flags, Token, TokenId};
use csv::StringRecord;

use super::error::{MappingError, RowError};
use super::rules::Target;
use crate::parts::{Part, whole};
use crate::times::utc_seconds;

type Result<T, E = MappingError> = std::result::Result<T, E>;

/// A mapping that fits the columns of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(super) terms: Vec<Term>,
    pub(super) tables: Vec<Table>,
    pub(super) clamp: bool,
    pub(super) entity_type: EntityType,
    pub(super) domain: u8,
    pub(super) first_id: u32,
}

#[derive(Debug)]
pub(super) struct Term {
    pub(super) target: Target,
    pub(super) source: Source,
    pub(super) name: String,
    pub(super) factor: f64,
}

/// Where a term's value is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Column(usize),
    /// In a joined table, found by the value of a column.
    Joined {
        table: usize,
        by: usize,
        column: usize,
    },
}

/// Another CSV file, by the values of its key.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<String>,
    rows: HashMap<String, StringRecord>,
}

impl Table {
    pub(super) fn read<R: std::io::Read>(
        mut from: csv::Reader<R>,
        file: &str,
        key: &str,
    ) -> Result<Self> {
        let headers = from.headers().map_err(MappingError::JoinFile)?;
        let columns: Vec<_> = headers.iter().map(str::to_owned).collect();
        let key_at = columns
            .iter()
            .position(|column| column == key)
            .ok_or_else(|| MappingError::JoinKey { file: file.to_owned(), key: key.to_owned() })?;
        let mut rows = HashMap::new();
        for row in from.into_records() {
            let row = row.map_err(MappingError::JoinFile)?;
            rows.insert(row.get(key_at).unwrap_or_default().to_owned(), row);
        }
        Ok(Self { columns, rows })
    }
}

/// Finds a column of the file, or of a joined table.
pub(super) fn find(
    name: &str,
    headers: &StringRecord,
    joins: &[(String, usize)],
    tables: &[Table],
) -> Result<Source> {
    let position = |name: &str| headers.iter().position(|there| there == name);
    let joined = || {
        let (by, column) = name.split_once('.')?;
        let (_, table) = joins.iter().find(|(joined, _)| joined == by)?;
        let column = tables.get(*table)?.columns.iter().position(|there| there == column)?;
        Some(Source::Joined { table: *table, by: position(by)?, column })
    };
    position(name).map(Source::Column).or_else(joined).ok_or_else(|| MappingError::Column {
        column: name.to_owned(),
        there: headers.iter().collect::<Vec<_>>().join(", "),
    })
}

impl Mapping {
    /// Returns the token of a row; `row` counts from 0.
    pub(crate) fn token(&self, record: &StringRecord, row: u64) -> Result<Token, RowError> {
        let mut sums: Vec<(Target, f64)> = Vec::with_capacity(self.terms.len());
        let mut active = false;
        for term in &self.terms {
            let Some(text) = self.text(term.source, record) else {
                // A number of its own would make another token of the row.
                if term.target == Target::Id {
                    return Err(RowError::NoId { column: term.name.clone() });
                }
                continue;
            };
            if term.target == Target::Active {
                active = true;
                continue;
            }
            let value = number(text).ok_or_else(|| RowError::Value {
                column: term.name.clone(),
                value: text.to_owned(),
            })?;
            let value = value * term.factor;
            match sums.iter_mut().find(|(target, _)| *target == term.target) {
                Some((_, sum)) => *sum += value,
                None => sums.push((term.target, value)),
            }
        }
        let id = match sums.iter().find(|(target, _)| *target == Target::Id) {
            Some((_, id)) => {
                let whole = whole(*id, TokenId::MAX_LOCAL).filter(|whole| is_same(*whole, *id));
                whole.ok_or(RowError::Id(*id))?
            }
            None => u32::try_from(row)
                .ok()
                .and_then(|row| self.first_id.checked_add(row))
                .unwrap_or(u32::MAX),
        };
        let id = TokenId::new(id, self.entity_type, self.domain)?;
        let mut token = Token::builder(id);
        if active {
            token = token.flags(Flags::ACTIVE);
        }
        for (target, value) in sums {
            let Target::Part(part) = target else { continue };
            let value = self.within(value, part);
            token = part.set(token, value).ok_or(RowError::Timestamp(value))?;
        }
        Ok(token.build()?)
    }

    fn within(&self, value: f64, part: Part) -> f64 {
        let (min, max) = part.range();
        if self.clamp { value.clamp(min, max) } else { value }
    }

    /// Returns the text of a term in a row, unless it is missing.
    fn text<'a>(&'a self, source: Source, record: &'a StringRecord) -> Option<&'a str> {
        let text = match source {
            Source::Column(column) => record.get(column)?,
            Source::Joined { table, by, column } => {
                self.tables.get(table)?.rows.get(record.get(by)?)?.get(column)?
            }
        };
        (!text.is_empty() && text != "NA").then_some(text)
    }
}

/// Returns whether a value is a whole number, but for what a factor rounded.
fn is_same(whole: u32, value: f64) -> bool {
    (f64::from(whole) - value).abs() <= 1e-9 * value.abs().max(1.0)
}

/// Returns a number, or a time such as `2013-01-01T10:00:00Z` in seconds since 1970.
fn number(text: &str) -> Option<f64> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Some(value),
        Ok(_) => None,
        #[expect(clippy::cast_precision_loss, reason = "seconds fit into 53 bits")]
        Err(_) => utc_seconds(text).map(|seconds| seconds as f64),
    }
}
