//! One file per command: its options, its words, its outcome.

pub(crate) mod append;
pub(crate) mod backup;
pub(crate) mod checkpoint;
pub(crate) mod completions;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod drill;
pub(crate) mod dump;
pub(crate) mod get;
pub(crate) mod glossary;
pub(crate) mod hold;
pub(crate) mod holds;
pub(crate) mod inspection;
pub(crate) mod load;
pub(crate) mod purge;
pub(crate) mod put;
pub(crate) mod repair;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod restore;
pub(crate) mod scan;
pub(crate) mod segments;
pub(crate) mod stat;
pub(crate) mod stress;
pub(crate) mod verify;
mod written;
