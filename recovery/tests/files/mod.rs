//! Recovery of logs made by hand: damaged, hostile, cut short, repaired.

#![expect(clippy::cast_possible_truncation, reason = "images of a few KiB")]

mod cases;
mod crashes;
mod every_flip;
mod hostile;
pub(crate) mod image;
mod maps;
mod purges;
mod repairs;
mod replays;
