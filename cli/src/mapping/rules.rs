//! The language of `--map` and `--join`.

use std::path::PathBuf;
use std::str::FromStr;

use super::error::MappingError;
use crate::parts::Part;

type Result<T, E = MappingError> = std::result::Result<T, E>;

/// What a column fills.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Target {
    Part(Part),
    Id,
    Active,
}

impl FromStr for Target {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "id" => Ok(Self::Id),
            "active" => Ok(Self::Active),
            text => {
                let part = text.parse().map_err(|_| MappingError::Target(text.to_owned()))?;
                Ok(Self::Part(part))
            }
        }
    }
}

/// One `--map`.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Rule {
    pub(super) target: Target,
    pub(super) column: String,
    pub(super) factor: f64,
}

impl FromStr for Rule {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self> {
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

fn parse_factor(text: &str) -> Result<f64> {
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
pub(super) struct Join {
    pub(super) column: String,
    pub(super) file: PathBuf,
    pub(super) key: String,
}

impl FromStr for Join {
    type Err = MappingError;

    fn from_str(text: &str) -> Result<Self> {
        let parts = || {
            let (column, rest) = text.split_once('=')?;
            let (file, key) = rest.rsplit_once(':')?;
            Some(Self { column: column.to_owned(), file: file.into(), key: key.to_owned() })
        };
        parts().ok_or_else(|| MappingError::Join(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_that_is_not_one_is_refused() {
        for wrong in ["weight", "9.x=a", "1.w=a", "mass=a", "weight=a:x", "weight=a:1/0"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong}");
        }
    }
}
