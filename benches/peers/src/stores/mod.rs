//! The stores that are compared.

pub(crate) mod bulla;
pub(crate) mod fjall;
pub(crate) mod lmdb;
pub(crate) mod memory;
pub(crate) mod naive;
pub(crate) mod redb;
pub(crate) mod sqlite;
