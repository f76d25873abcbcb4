//! `bulla put`: one token into a store.

use std::path::PathBuf;
use std::str::FromStr;

use bulla_engine::{Flags, StoreOptions, Token, TokenId};

use super::written::Writer;
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;
use crate::parts::{Part, flag};
use crate::times;
use crate::tokens::IdKindArgs;

/// Put one token into a store; it replaces the token with the same id.
///
/// Parts that are not set are 0, and the timestamp is now. A value outside the range of its
/// part is refused, and nothing is changed: coordinates of the spaces 1 and 7 reach 327.67,
/// of 3 32.767, of the others 3.2767; weight is 0 to 100, radius 0 to 2.55, strength 0 to 1.
///
/// Prints the token's place in the log, and up to where the log is durable.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla put /var/lib/flights --id 42 --type event --set weight=28 --set 1.x=40.69\n  bulla put /var/lib/flights --id 42 --type event --set timestamp=2013-01-01T10:00:00Z --flag ACTIVE\n  bulla put /var/lib/flights --id 33554474 --set 7.z=-5.25 --level balanced --format json"
)]
pub(crate) struct Args {
    /// The store's directory; created if there is none, in an existing directory.
    dir: PathBuf,
    /// The id: all 32 bits of it, or the local id when --type is given.
    #[arg(long, value_name = "ID")]
    id: u32,
    #[command(flatten)]
    kind: IdKindArgs,
    /// Set a part: 1.x to 8.z (coordinates), weight, radius, strength, or timestamp (seconds
    /// since 1970, or 2013-01-02T10:00:00Z). Several times for several parts.
    #[arg(long = "set", value_name = "PART=VALUE")]
    values: Vec<Setting>,
    /// Set a flag, such as ACTIVE. Several times for several flags.
    #[arg(long = "flag", value_parser = flag, value_name = "NAME")]
    flags: Vec<Flags>,
    /// How durable the token must be before the command reports it.
    #[arg(long, value_enum, default_value_t = LevelArg::Strict, value_name = "LEVEL")]
    level: LevelArg,
    #[command(flatten)]
    log: LogArgs,
}

/// One `--set`.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Setting {
    part: Part,
    value: f64,
}

impl FromStr for Setting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} is not PART=VALUE, such as weight=28"))?;
        let part: Part = name.parse().map_err(|_| {
            format!(
                "{name:?} is not a part of a token: use 1.x to 8.z, weight, timestamp, radius or \
                 strength"
            )
        })?;
        #[expect(clippy::cast_precision_loss, reason = "seconds fit into 53 bits")]
        let number = match part {
            Part::Timestamp => times::seconds(value)? as f64,
            _ => value.parse().map_err(|_| format!("{value:?} is not a number"))?,
        };
        let (min, max) = part.range();
        // A NaN is in no range.
        if (min..=max).contains(&number) {
            Ok(Self { part, value: number })
        } else {
            Err(format!("{name} is {value}, and must be within {min} and {max}"))
        }
    }
}

pub(crate) fn run(args: &Args, out: &mut Out) -> Result<Outcome> {
    let id = args.kind.id(args.id)?;
    let token = args.token(id)?;
    // Before a store is created for a token that it would refuse.
    StoreOptions::new().check(&token)?;
    let writer = Writer::open(&args.dir, args.level, &args.log, true)?;
    let done = if writer.store.get(id)?.is_some() { "replaced" } else { "put" };
    let receipt = writer.store.at(args.level.level()).begin().put(&token)?;
    writer.finish(done, id, receipt, out)?;
    Ok(Outcome::Clean)
}

impl Args {
    fn token(&self, id: TokenId) -> Result<Token> {
        let flags = self.flags.iter().copied().collect();
        let mut token = Token::builder(id).flags(flags).timestamp(times::now_seconds());
        for (index, Setting { part, value }) in self.values.iter().enumerate() {
            if self.values.iter().take(index).any(|before| before.part == *part) {
                return Err(Error::SetTwice);
            }
            // Its range was checked when it was parsed.
            token = part.set(token.clone(), *value).unwrap_or(token);
        }
        Ok(token.build()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_parts_and_values_in_their_range() {
        for right in ["weight=28", "1.x=-327.67", "physical.y=1", "radius=2.55", "timestamp=7"] {
            assert!(right.parse::<Setting>().is_ok(), "{right}");
        }
        let time: Setting = "timestamp=2013-01-01T10:00:00Z".parse().expect("a time");
        assert_eq!(time.value, 1_357_034_400.0);
        for wrong in [
            "weight",
            "weight=",
            "weight=heavy",
            "weight=NaN",
            "weight=inf",
            "weight=100.5",
            "1.x=400",
            "9.x=1",
            "1.w=1",
            "mass=1",
            "id=7",
            "timestamp=-1",
            "timestamp=2107-01-01",
            "timestamp=1.5",
            "=1",
        ] {
            assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
        }
    }
}
