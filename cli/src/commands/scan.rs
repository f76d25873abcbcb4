//! `bulla scan`: the tokens that match. Read-only.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;

use bulla_engine::{Axis, EntityType, Flags, Space, Token};
use indicatif::ProgressBar;

use super::get::snapshot;
use crate::error::Result;
use crate::numbers::grouped;
use crate::outcome::Outcome;
use crate::output::Out;
use crate::parts::{coordinate, entity_type, flag};
use crate::times::seconds;
use crate::{progress, terminal, tokens};

/// Show the tokens that match all filters, in the order of their ids.
///
/// Changes nothing.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla scan /var/lib/flights --limit 10\n  bulla scan /var/lib/flights --within 1.x=40..45 --since 2013-01-02 --format jsonl"
)]
pub(crate) struct Args {
    /// The store's directory.
    dir: PathBuf,
    /// Only tokens of this entity type.
    #[arg(long = "type", value_parser = entity_type, value_name = "TYPE")]
    entity_type: Option<EntityType>,
    /// Only tokens of this domain.
    #[arg(long, value_name = "N")]
    domain: Option<u8>,
    /// Only tokens with this flag, such as ACTIVE. Given several times: with all of them.
    #[arg(long = "flag", value_parser = flag, value_name = "NAME")]
    flags: Vec<Flags>,
    /// Only tokens of at least this weight.
    #[arg(long, value_name = "WEIGHT")]
    min_weight: Option<f32>,
    /// Only tokens of at most this weight.
    #[arg(long, value_name = "WEIGHT")]
    max_weight: Option<f32>,
    /// Only tokens of this time or later: seconds since 1970, 2013-01-02 or 2013-01-02T10:00:00Z.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    since: Option<i64>,
    /// Only tokens from before this time.
    #[arg(long, value_parser = seconds, value_name = "TIME")]
    until: Option<i64>,
    /// Only tokens with a coordinate in a range: SPACE.AXIS=MIN..MAX; either end may be left out.
    #[arg(long, value_name = "1.x=MIN..MAX", allow_hyphen_values = true)]
    within: Vec<Within>,
    /// Show at most this many tokens.
    #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
    limit: u64,
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let snapshot = snapshot(&args.dir)?;
    let tokens = snapshot.len() as u64;
    // Drawn only where the rows go elsewhere: both would write over each other.
    let bar = if std::io::stdout().is_terminal() {
        ProgressBar::hidden()
    } else {
        progress::count(tokens, "tokens")
    };
    let mut rows = out.rows();
    let mut shown = 0;
    for token in bar.wrap_iter(snapshot.iter()).filter(|token| args.matches(token)) {
        if shown == args.limit {
            break;
        }
        tokens::push(&mut rows, &token)?;
        shown += 1;
    }
    rows.end()?;
    drop(bar);
    if out.is_table() {
        out.flush()?;
        terminal::note(format_args!("{} of {} tokens", grouped(shown), grouped(tokens)));
    }
    Ok(Outcome::Clean)
}

impl Args {
    fn matches(&self, token: &Token) -> bool {
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

/// A range of one coordinate, with both ends.
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
            let (space, axis) = coordinate(at)?;
            let (min, max) = range.split_once("..")?;
            let end =
                |text: &str, open| if text.is_empty() { Some(open) } else { text.parse().ok() };
            Some(Self {
                space,
                axis,
                min: end(min, f64::NEG_INFINITY)?,
                max: end(max, f64::INFINITY)?,
            })
        };
        parse().ok_or_else(|| format!("{text:?} is not like 1.x=40..45 or temporal.y=..3"))
    }
}
