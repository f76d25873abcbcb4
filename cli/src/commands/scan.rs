//! `bulla scan`: the tokens that fit. Read-only.

use std::path::PathBuf;
use std::str::FromStr;

use bulla_engine::{Axis, EntityType, Flags, Space, Token};

use super::get::snapshot;
use crate::Outcome;
use crate::error::Result;
use crate::mapping::{entity_type, utc_seconds};
use crate::output::{Format, Out, grouped};
use crate::tokens;

/// Show the tokens that fit all filters, in order of their ids.
///
/// Changes nothing.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla scan /var/lib/flights --limit 10\n  bulla scan /var/lib/flights --within 1.x=40..45 --since 2013-01-02 --format jsonl"
)]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    /// Only this entity type.
    #[arg(long = "type", value_parser = entity_type, value_name = "TYPE")]
    entity_type: Option<EntityType>,
    /// Only this domain.
    #[arg(long, value_name = "N")]
    domain: Option<u8>,
    /// Only with this flag set, such as ACTIVE; more than one: all of them.
    #[arg(long = "flag", value_parser = flag, value_name = "NAME")]
    flags: Vec<Flags>,
    /// Only from this weight on.
    #[arg(long, value_name = "WEIGHT")]
    min_weight: Option<f32>,
    /// Only up to this weight.
    #[arg(long, value_name = "WEIGHT")]
    max_weight: Option<f32>,
    /// Only from this time on: seconds since 1970, or 2013-01-02 or 2013-01-02T10:00:00Z.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    since: Option<i64>,
    /// Only before this time.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    until: Option<i64>,
    /// Only with a coordinate in a range: SPACE.AXIS=MIN..MAX, either end may be left out.
    #[arg(long, value_name = "1.x=MIN..MAX", allow_hyphen_values = true)]
    within: Vec<Within>,
    /// At most so many tokens.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let snapshot = snapshot(&args.dir)?;
    let format = out.format();
    let mut rows = out.rows();
    let mut shown = 0;
    for token in snapshot.iter().filter(|token| args.fits(token)) {
        if shown == args.limit {
            break;
        }
        rows.push(tokens::row(&token, format))?;
        shown += 1;
    }
    rows.end()?;
    if format == Format::Table {
        out.flush()?;
        eprintln!("{} of {} tokens", grouped(shown), grouped(snapshot.len() as u64));
    }
    Ok(Outcome::Clean)
}

impl Args {
    fn fits(&self, token: &Token) -> bool {
        let time = i64::from(token.timestamp());
        self.entity_type.is_none_or(|wanted| token.id().entity_type() == wanted)
            && self.domain.is_none_or(|wanted| token.id().domain() == wanted)
            && self.flags.iter().all(|flag| token.flags().contains(*flag))
            && self.min_weight.is_none_or(|min| token.weight() >= min)
            && self.max_weight.is_none_or(|max| token.weight() <= max)
            && self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && self.within.iter().all(|within| within.fits(token))
    }
}

/// A range of one coordinate, both ends inclusive.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Within {
    space: Space,
    axis: Axis,
    min: f64,
    max: f64,
}

impl Within {
    fn fits(&self, token: &Token) -> bool {
        let value = token.coordinates(self.space)[self.axis as usize];
        (self.min..=self.max).contains(&value)
    }
}

impl FromStr for Within {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (at, range) = text.split_once('=')?;
            let (space, axis) = at.split_once('.')?;
            let (min, max) = range.split_once("..")?;
            let end =
                |text: &str, open| if text.is_empty() { Some(open) } else { text.parse().ok() };
            Some(Self {
                space: Space::ALL
                    .into_iter()
                    .find(|s| s.name() == space || s.level().to_string() == space)?,
                axis: Axis::ALL.into_iter().find(|a| a.name() == axis)?,
                min: end(min, f64::NEG_INFINITY)?,
                max: end(max, f64::INFINITY)?,
            })
        };
        parse().ok_or_else(|| format!("{text:?} is not like 1.x=40..45 or temporal.y=..3"))
    }
}

fn flag(text: &str) -> Result<Flags, String> {
    let found = Flags::from_name(&text.to_ascii_uppercase());
    found.ok_or_else(|| {
        let names: Vec<_> = Flags::all().names().collect();
        format!("use one of {}", names.join(", "))
    })
}

fn seconds(text: &str) -> Result<i64, String> {
    text.parse()
        .ok()
        .or_else(|| utc_seconds(text))
        .ok_or_else(|| format!("{text:?} is neither seconds nor a time like 2013-01-02T10:00:00Z"))
}
