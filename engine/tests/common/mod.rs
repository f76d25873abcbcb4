//! What the store's tests share: a directory that goes away, small options, plain tokens.

use std::path::PathBuf;

use bulla_engine::{StoreOptions, Token, TokenId};
use bulla_wal::Options;

pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bulla-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        Self(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn options() -> StoreOptions {
    StoreOptions::new().log(Options::new().segment_len(1 << 20).ring_len(1 << 20))
}

pub(crate) fn token(id: u32, weight: f32) -> Token {
    Token::builder(TokenId(id)).weight(weight).build().expect("valid")
}
