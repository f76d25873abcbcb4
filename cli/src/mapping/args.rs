//! The options of a mapping, the presets, and how both are fitted to the columns of a file.

use std::fs::File;

use bulla_engine::EntityType;
use clap::{Args, ValueEnum};
use csv::StringRecord;

use super::error::MappingError;
use super::fitted::{Mapping, Table, Term, find};
use super::rules::{Join, Rule};
use crate::parts::entity_type;

type Result<T, E = MappingError> = std::result::Result<T, E>;

/// How columns become tokens.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Columns")]
pub(crate) struct MappingArgs {
    /// A ready-made mapping. `auto` takes the one whose columns the file has.
    #[arg(long, value_enum, default_value_t, value_name = "NAME")]
    preset: Preset,
    /// Fill a part of the token from a column, as in `4.x=dep_delay:1/1440`. Targets: 1.x to 8.z
    /// (coordinates), weight, timestamp, radius, strength, id, active (a flag, set where
    /// the column has a value). Several columns for one target are added up; they replace
    /// what the preset says about it. Factors: 0.01 or 1/60.
    #[arg(long = "map", value_name = "TARGET=COLUMN[:FACTOR]")]
    map: Vec<Rule>,
    /// Look a column's values up in another CSV file, in its column KEY: adds the columns
    /// COLUMN.NAME for each NAME in that file.
    #[arg(long = "join", value_name = "COLUMN=FILE:KEY")]
    join: Vec<Join>,
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

/// A ready-made mapping.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Preset {
    /// `flights` if the file has its columns, else none.
    #[default]
    Auto,
    /// Flights as in nycflights13; the airports are built in.
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

/// From nycflights13 (CC0), like the sample of flights.
const AIRPORTS: &str = include_str!("airports.csv");
const AIRPORTS_KEY: &str = "faa";

/// Tables to look values up in, and the columns whose values are looked up there.
#[derive(Default)]
struct Joins {
    tables: Vec<Table>,
    columns: Vec<(String, usize)>,
}

impl Joins {
    /// Reads a table and joins columns with it.
    fn add<R: std::io::Read>(
        &mut self,
        from: csv::Reader<R>,
        file: &str,
        key: &str,
        columns: &[&str],
    ) -> Result<()> {
        self.tables.push(Table::read(from, file, key)?);
        let table = self.tables.len() - 1;
        self.columns.extend(columns.iter().map(|column| ((*column).to_owned(), table)));
        Ok(())
    }
}

impl MappingArgs {
    /// Returns an option that was given, for input that has no columns.
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
    pub(crate) fn resolve(&self, headers: &StringRecord) -> Result<Mapping> {
        if headers.is_empty() {
            return Err(MappingError::Empty);
        }
        let mut joins = Joins::default();
        for Join { column, file, key } in &self.join {
            let opened =
                File::open(file).map_err(|source| MappingError::JoinFile(source.into()))?;
            let reader = csv::Reader::from_reader(opened);
            joins.add(reader, &file.display().to_string(), key, &[column])?;
        }
        let rules = self.rules(headers, &mut joins)?;
        let terms = rules
            .into_iter()
            .map(|Rule { target, column, factor }| {
                let source = find(&column, headers, &joins.columns, &joins.tables)?;
                Ok(Term { target, source, name: column, factor })
            })
            .collect::<Result<_>>()?;
        Ok(Mapping {
            terms,
            tables: joins.tables,
            clamp: self.clamp,
            entity_type: self.entity_type,
            domain: self.domain,
            first_id: self.first_id,
        })
    }

    /// Returns the rules of the preset that --map does not replace, and those of --map.
    fn rules(&self, headers: &StringRecord, joins: &mut Joins) -> Result<Vec<Rule>> {
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
            let file = "the built-in list of airports";
            joins.add(airports, file, AIRPORTS_KEY, &["origin", "dest"])?;
            for rule in FLIGHTS {
                let rule: Rule = rule.parse()?;
                if self.map.iter().all(|own| own.target != rule.target) {
                    rules.push(rule);
                }
            }
        }
        rules.extend(self.map.iter().cloned());
        if rules.is_empty() { Err(MappingError::Nothing) } else { Ok(rules) }
    }
}
