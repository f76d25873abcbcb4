//! What the store's tests share: a directory that goes away, small options, plain tokens.

use bulla_engine::{StoreOptions, Token, TokenId};
use bulla_wal::Options;
use tempfile::TempDir;

pub(crate) fn temp_dir(name: &str) -> TempDir {
    TempDir::with_prefix(format!("bulla-store-{name}-")).expect("a temporary directory")
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions::new().log(Options::new().segment_len(1 << 20).ring_len(1 << 20))
}

pub(crate) fn token(id: u32, weight: f32) -> Token {
    Token::builder(TokenId(id)).weight(weight).build().expect("valid")
}
