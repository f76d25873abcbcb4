//! What is wrong with a mapping of columns, or with a row.

use bulla_engine::TokenError;

/// Why a mapping can't be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("{0:?} is not TARGET=COLUMN or TARGET=COLUMN:FACTOR")]
    Rule(String),
    #[error(
        "{0:?} is not a part of a token: use 1.x to 8.z, weight, timestamp, radius, strength, id \
         or active"
    )]
    Target(String),
    #[error("{0:?} is not a factor: use a number such as 0.01, or 1/60")]
    Factor(String),
    #[error("{0:?} is not COLUMN=FILE:KEY")]
    Join(String),
    #[error("the file is empty: it has no line with the names of the columns")]
    Empty,
    #[error("there is no column {column:?}; there are {there}")]
    Column { column: String, there: String },
    #[error("nothing is mapped: name columns with --map, or a --preset")]
    Nothing,
    #[error("{file} has no column {key:?}")]
    JoinKey { file: String, key: String },
    #[error("could not read the file to join")]
    JoinFile(#[source] csv::Error),
}

/// Why a row of the input does not make a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    #[error("column {column}: {value:?} is neither a number nor a time like 2013-01-01T10:00:00Z")]
    Value { column: String, value: String },
    #[error("the id {0} is not a whole number from 0 to 16777215")]
    Id(f64),
    #[error("column {column} has no id")]
    NoId { column: String },
    #[error("the timestamp {0} is not within 1970 and 2106")]
    Timestamp(f64),
    #[error(transparent)]
    Token(#[from] TokenError),
}
