//! Records of 64 bytes, in memory by id, with a crash-safe log behind them.
//!
//! Owns the record ([`Token`]), the encoding of changes as log entries ([`entries`])
//! and the table. It never writes to a disk itself: that is the log's job, and
//! recovery's.

#![forbid(unsafe_code)]

pub mod token;

pub use token::{
    Axis, EntityType, Flags, SPACES, Space, TOKEN_LEN, Token, TokenBuilder, TokenError, TokenId,
};
