//! Recovery of logs made by hand: damaged, hostile, cut short, repaired.

mod crashes;
mod every_flip;
mod hostile;
mod image;
mod repairs;
mod replays;
