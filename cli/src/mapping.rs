//! From rows of a CSV file to tokens.
//!
//! Owns the language of `--map` and the presets. Every target of a token is a sum of
//! columns times factors; a missing value (empty or `NA`) adds nothing.
//!
//! | preset `flights` | from | unit |
//! |---|---|---|
//! | id | number of the row from 1, entity type event | |
//! | 1 physical x, y, z | destination: latitude, longitude, altitude | degrees, degrees, 100 feet |
//! | 2 sensory x, y, z | origin: latitude, longitude, altitude | 100 degrees, 100 degrees, 10,000 feet |
//! | 3 motor x, y | air time, distance | hours, 1,000 miles |
//! | 4 emotional x, y | delay of departure, of arrival | days; 0 when cancelled |
//! | 7 temporal x, y, z | month, day, scheduled hour, local | z in hours with fraction |
//! | 8 abstract x | flight number | 10,000 |
//! | weight | distance | 50 miles: the longest is 99.7 |
//! | timestamp | scheduled departure, UTC (`time_hour` and `minute`) | seconds |
//! | flag ACTIVE | set when the flight left (has a `dep_time`) | |

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::str::FromStr;

use bulla_engine::{Axis, EntityType, Flags, Space, Token, TokenId};
use clap::{Args, ValueEnum};
use csv::StringRecord;
use jiff::civil::DateTime;
use jiff::fmt::temporal::Pieces;

use crate::error::{Result, RowError};

/// How columns become tokens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Columns")]
pub(crate) struct MappingArgs {
    /// A mapping that is ready made. `auto` takes the one whose columns the file has.
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    preset: Preset,
    /// Fill a part of the token from a column, as in `4.x=dep_delay:1/1440`. Targets: 1.x to 8.z
    /// (coordinates), weight, timestamp, radius, strength, id, active (a flag, set where
    /// the column has a value). Several columns for one target are added up; they replace
    /// what the preset says of it. Factors: 0.01 or 1/60.
    #[arg(long = "map", value_name = "TARGET=COLUMN[:FACTOR]")]
    map: Vec<Rule>,
    /// Look a column's values up in another CSV file, in its column KEY: adds the columns
    /// COLUMN.NAME for each NAME in that file.
    #[arg(long = "join", value_name = "COLUMN=FILE:KEY")]
    join: Vec<JoinArg>,
    /// Cut values to the range of their field instead of refusing them.
    #[arg(long)]
    clamp: bool,
    /// Entity type of the tokens, in id and flags.
    #[arg(long, value_parser = entity_type, default_value = "event", value_name = "TYPE")]
    entity_type: EntityType,
    /// Domain of the ids, 0 to 15.
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..16), default_value_t = 0, value_name = "N")]
    domain: u8,
    /// Local id of the first row, when no column is mapped to the id.
    #[arg(long, default_value_t = 1, value_name = "N")]
    first_id: u32,
}

/// A ready made mapping.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Preset {
    /// `flights` if the file has its columns, else none.
    #[default]
    Auto,
    /// Flights as in nycflights13; airports are known.
    Flights,
    /// Only what --map says.
    None,
}

const FLIGHTS: [&str; 19] = [
    "1.x=dest.lat",
    "1.y=dest.lon",
    "1.z=dest.alt:0.01",
    "2.x=origin.lat:0.01",
    "2.y=origin.lon:0.01",
    "2.z=origin.alt:0.0001",
    "3.x=air_time:1/60",
    "3.y=distance:0.001",
    "4.x=dep_delay:1/1440",
    "4.y=arr_delay:1/1440",
    "7.x=month",
    "7.y=day",
    "7.z=hour",
    "7.z=minute:1/60",
    "8.x=flight:0.0001",
    "weight=distance:0.02",
    "timestamp=time_hour",
    "timestamp=minute:60",
    "active=dep_time",
];

/// Of nycflights13 (CC0), as the sample of flights.
const AIRPORTS: &str = include_str!("../../data/airports.csv");
const AIRPORTS_KEY: &str = "faa";

/// Part of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Target {
    Coordinate(Space, Axis),
    Weight,
    Timestamp,
    Radius,
    Strength,
    Id,
    Active,
}

impl FromStr for Target {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let unknown = || MappingError::Target(text.to_owned());
        Ok(match text {
            "weight" => Self::Weight,
            "timestamp" => Self::Timestamp,
            "radius" => Self::Radius,
            "strength" => Self::Strength,
            "id" => Self::Id,
            "active" => Self::Active,
            _ => {
                let (space, axis) = text.split_once('.').ok_or_else(unknown)?;
                let space = Space::ALL
                    .into_iter()
                    .find(|s| s.name() == space || s.level().to_string() == space)
                    .ok_or_else(unknown)?;
                let axis = Axis::ALL.into_iter().find(|a| a.name() == axis).ok_or_else(unknown)?;
                Self::Coordinate(space, axis)
            }
        })
    }
}

/// One `--map`.
#[derive(Clone, PartialEq, Debug)]
struct Rule {
    target: Target,
    column: String,
    factor: f64,
}

impl FromStr for Rule {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let (target, source) =
            text.split_once('=').ok_or_else(|| MappingError::Rule(text.to_owned()))?;
        let (column, factor) = match source.rsplit_once(':') {
            Some((column, factor)) => (column, parse_factor(factor)?),
            None => (source, 1.0),
        };
        if column.is_empty() {
            return Err(MappingError::Rule(text.to_owned()));
        }
        Ok(Self { target: target.parse()?, column: column.to_owned(), factor })
    }
}

fn parse_factor(text: &str) -> Result<f64, MappingError> {
    let wrong = || MappingError::Factor(text.to_owned());
    let number = |text: &str| text.trim().parse::<f64>().map_err(|_| wrong());
    let factor = match text.split_once('/') {
        Some((above, below)) => number(above)? / number(below)?,
        None => number(text)?,
    };
    if factor.is_finite() { Ok(factor) } else { Err(wrong()) }
}

/// One `--join`.
#[derive(Clone, PartialEq, Eq, Debug)]
struct JoinArg {
    column: String,
    file: PathBuf,
    key: String,
}

impl FromStr for JoinArg {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self, MappingError> {
        let parts = || {
            let (column, rest) = text.split_once('=')?;
            let (file, key) = rest.rsplit_once(':')?;
            Some(Self { column: column.to_owned(), file: file.into(), key: key.to_owned() })
        };
        parts().ok_or_else(|| MappingError::Join(text.to_owned()))
    }
}

pub(crate) fn entity_type(text: &str) -> Result<EntityType, String> {
    EntityType::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<_> = EntityType::ALL.iter().map(|kind| kind.name()).collect();
        format!("use one of {}", names.join(", "))
    })
}

/// What is wrong with a mapping.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("{0:?} is not TARGET=COLUMN or TARGET=COLUMN:FACTOR")]
    Rule(String),
    #[error(
        "{0:?} is no part of a token: use 1.x to 8.z, weight, timestamp, radius, strength, id \
         or active"
    )]
    Target(String),
    #[error("{0:?} is no factor: use a number such as 0.01, or 1/60")]
    Factor(String),
    #[error("{0:?} is not COLUMN=FILE:KEY")]
    Join(String),
    #[error("there is no column {column:?}; there are {there}")]
    Column { column: String, there: String },
    #[error("nothing is mapped: name columns with --map, or a --preset")]
    Nothing,
    #[error("{file} has no column {key:?}")]
    JoinKey { file: String, key: String },
    #[error("read the file to join")]
    JoinFile(#[source] csv::Error),
}

/// A mapping that fits the columns of a file.
#[derive(Debug)]
pub(crate) struct Mapping {
    terms: Vec<Term>,
    tables: Vec<Table>,
    clamp: bool,
    entity_type: EntityType,
    domain: u8,
    first_id: u32,
}

#[derive(Debug)]
struct Term {
    target: Target,
    source: Source,
    name: String,
    factor: f64,
}

/// Where a term's value is.
#[derive(Clone, Copy, Debug)]
enum Source {
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
struct Table {
    columns: Vec<String>,
    rows: HashMap<String, StringRecord>,
}

impl Table {
    fn read<R: std::io::Read>(
        mut from: csv::Reader<R>,
        file: &str,
        key: &str,
    ) -> Result<Self, MappingError> {
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

impl MappingArgs {
    /// An option that was given, for input that has no columns.
    pub(crate) fn given(&self) -> Option<&'static str> {
        [
            ("--preset", self.preset != Preset::Auto),
            ("--map", !self.map.is_empty()),
            ("--join", !self.join.is_empty()),
            ("--clamp", self.clamp),
            ("--entity-type", self.entity_type != EntityType::Event),
            ("--domain", self.domain != 0),
            ("--first-id", self.first_id != 1),
        ]
        .into_iter()
        .find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// Fits the mapping to a file's columns.
    pub(crate) fn resolve(&self, headers: &StringRecord) -> Result<Mapping, MappingError> {
        let mut joins: Vec<(String, usize)> = Vec::new();
        let mut tables = Vec::new();
        for join in &self.join {
            let file = join.file.display().to_string();
            let opened = File::open(&join.file)
                .map_err(|source| MappingError::JoinFile(csv::Error::from(source)))?;
            tables.push(Table::read(csv::Reader::from_reader(opened), &file, &join.key)?);
            joins.push((join.column.clone(), tables.len() - 1));
        }
        let has = |column: &&str| headers.iter().any(|there| there == *column);
        let preset = match self.preset {
            Preset::Flights => true,
            Preset::None => false,
            Preset::Auto => {
                ["dep_delay", "time_hour", "origin", "dest", "distance"].iter().all(has)
            }
        };
        let mut rules = Vec::new();
        if preset {
            let airports = csv::Reader::from_reader(AIRPORTS.as_bytes());
            tables.push(Table::read(airports, "the built-in list of airports", AIRPORTS_KEY)?);
            joins.extend(["origin", "dest"].map(|column| (column.to_owned(), tables.len() - 1)));
            for rule in FLIGHTS {
                let rule: Rule = rule.parse()?;
                if self.map.iter().all(|own| own.target != rule.target) {
                    rules.push(rule);
                }
            }
        }
        rules.extend(self.map.iter().cloned());
        if rules.is_empty() {
            return Err(MappingError::Nothing);
        }
        let terms = rules
            .into_iter()
            .map(|rule| {
                let source = find(&rule.column, headers, &joins, &tables)?;
                Ok(Term { target: rule.target, source, name: rule.column, factor: rule.factor })
            })
            .collect::<Result<_, MappingError>>()?;
        Ok(Mapping {
            terms,
            tables,
            clamp: self.clamp,
            entity_type: self.entity_type,
            domain: self.domain,
            first_id: self.first_id,
        })
    }
}

fn find(
    name: &str,
    headers: &StringRecord,
    joins: &[(String, usize)],
    tables: &[Table],
) -> Result<Source, MappingError> {
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
    /// The token of a row; `row` counts from 0.
    pub(crate) fn token(&self, record: &StringRecord, row: u64) -> Result<Token, RowError> {
        let mut sums: Vec<(Target, f64)> = Vec::with_capacity(self.terms.len());
        let mut active = false;
        for term in &self.terms {
            let Some(text) = self.text(term.source, record) else { continue };
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
            Some((_, id)) => whole(*id, TokenId::MAX_LOCAL).ok_or(RowError::Id(*id))?,
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
            token = match target {
                Target::Coordinate(space, axis) => {
                    let max = space.limit();
                    token.coordinate(space, axis, self.within(value, -max, max))
                }
                #[expect(clippy::cast_possible_truncation, reason = "rounded to its field")]
                Target::Weight => token.weight(self.within(value, 0.0, 100.0) as f32),
                Target::Timestamp => {
                    let value = self.within(value, 0.0, f64::from(u32::MAX));
                    token.timestamp(whole(value, u32::MAX).ok_or(RowError::Timestamp(value))?)
                }
                Target::Radius => token.field_radius(self.within(value, 0.0, 2.55)),
                Target::Strength => token.field_strength(self.within(value, 0.0, 1.0)),
                Target::Id | Target::Active => token,
            };
        }
        Ok(token.build()?)
    }

    fn within(&self, value: f64, min: f64, max: f64) -> f64 {
        if self.clamp { value.clamp(min, max) } else { value }
    }

    /// The text of a term in a row, unless it is missing.
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

/// The value rounded to a whole number, if it is within 0 and `max`.
fn whole(value: f64, max: u32) -> Option<u32> {
    let value = value.round();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole, and in range"
    )]
    (0.0..=f64::from(max)).contains(&value).then_some(value as u32)
}

/// A number, or a time such as `2013-01-01T10:00:00Z` in seconds since 1970.
fn number(text: &str) -> Option<f64> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Some(value),
        Ok(_) => None,
        #[expect(clippy::cast_precision_loss, reason = "seconds fit into 53 bits")]
        Err(_) => utc_seconds(text).map(|seconds| seconds as f64),
    }
}

/// Seconds since 1970 of a date, or of a date and time, as in ISO 8601; in UTC, where it has no offset
/// of its own.
pub(crate) fn utc_seconds(text: &str) -> Option<i64> {
    let pieces = Pieces::parse(text).ok()?;
    let offset = match pieces.to_numeric_offset() {
        Some(offset) => i64::from(offset.seconds()),
        // What a place's clocks showed then is not known here.
        None if pieces.time_zone_annotation().is_some() => return None,
        None => 0,
    };
    let time = pieces.date().to_datetime(pieces.time().unwrap_or_default());
    Some(time.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs() - offset)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        mapping: MappingArgs,
    }

    fn mapping(args: &[&str], headers: &[&str]) -> Result<Mapping, MappingError> {
        let line = Line::parse_from([&["line"], args].concat());
        line.mapping.resolve(&StringRecord::from(headers.to_vec()))
    }

    #[test]
    fn times_are_seconds_since_1970() {
        assert_eq!(utc_seconds("1970-01-01"), Some(0));
        assert_eq!(utc_seconds("2013-01-01T10:00:00Z"), Some(1_357_034_400));
        assert_eq!(utc_seconds("2024-02-29 00:00:01"), Some(1_709_164_801));
        assert_eq!(utc_seconds("2013-01-01T12:00:00.7+02:00"), Some(1_357_034_400));
        assert_eq!(utc_seconds("1969-12-31T23:00:00-01:00"), Some(0));
        // For ever, to many programs.
        assert_eq!(utc_seconds("9999-12-31 23:59:59"), Some(253_402_300_799));
        let wrong = [
            "",
            "2013-13-01",
            "2013-02-29",
            "2013-01-01T25:00:00Z",
            "2013-01-01T10:00:00[America/New_York]",
            "12024-2013-00000000000000000008386636944162947072",
            "2013-01-99999999999999999",
            "EWR",
            "1-2-3-4",
        ];
        for wrong in wrong {
            assert_eq!(utc_seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn columns_of_one_target_are_added_up_and_missing_ones_are_zero() {
        let mapping = mapping(
            &["--map", "7.z=hour", "--map", "7.z=minute:1/60", "--map", "weight=w:0.01"],
            &["hour", "minute", "w"],
        )
        .expect("fits");
        let token = mapping.token(&StringRecord::from(vec!["5", "15", "2800"]), 6).expect("token");
        assert_eq!(token.coordinates(Space::Temporal), [0.0, 0.0, 5.25]);
        assert_eq!((token.weight(), token.id().local()), (28.0, 7));
        let token = mapping.token(&StringRecord::from(vec!["5", "NA", ""]), 0).expect("token");
        assert_eq!((token.coordinates(Space::Temporal)[2], token.weight()), (5.0, 0.0));
        let refused = mapping.token(&StringRecord::from(vec!["five", "0", "0"]), 0);
        assert!(matches!(refused, Err(RowError::Value { .. })));
        let refused = mapping.token(&StringRecord::from(vec!["5", "0", "10001"]), 0);
        assert!(matches!(refused, Err(RowError::Token(_))));
    }

    #[test]
    fn clamp_cuts_to_the_range() {
        let mapping = mapping(&["--map", "4.x=a", "--clamp"], &["a"]).expect("fits");
        let token = mapping.token(&StringRecord::from(vec!["7"]), 0).expect("token");
        assert_eq!(token.coordinates(Space::Emotional)[0], 3.2767);
    }

    #[test]
    fn a_rule_replaces_what_the_preset_says_of_its_target() {
        let headers = AIRPORTLESS.split(',').collect::<Vec<_>>();
        let row = StringRecord::from(ROW.split(',').collect::<Vec<_>>());
        let mapped = mapping(&["--map", "weight=day"], &headers).expect("fits");
        assert_eq!(mapped.token(&row, 0).expect("token").weight(), 1.0);
        let preset = mapping(&[], &headers).expect("fits").token(&row, 0).expect("token");
        assert_eq!(preset.weight(), 28.0);
        assert_eq!(preset.timestamp(), 1_357_034_400 + 15 * 60);
        assert_eq!(preset.coordinates(Space::Physical), [29.98, -95.34, 0.97]);
        assert!(preset.flags().contains(Flags::ACTIVE));
        assert_eq!(preset.id().entity_type(), EntityType::Event);
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let there = ["a", "b"];
        let missing = mapping(&["--map", "weight=c"], &there).expect_err("no column");
        assert_eq!(missing.to_string(), r#"there is no column "c"; there are a, b"#);
        assert!(matches!(mapping(&[], &there), Err(MappingError::Nothing)));
        for wrong in ["weight", "9.x=a", "1.w=a", "mass=a", "weight=a:x", "weight=a:1/0"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }

    const AIRPORTLESS: &str = "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,\
        sched_arr_time,arr_delay,carrier,flight,tailnum,origin,dest,air_time,distance,hour,minute,\
        time_hour";
    const ROW: &str = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,\
        2013-01-01T10:00:00Z";
}
