//! Group commit: from a frame in the ring to watermarks that tell what is durable.
//!
//! ```text
//! leader      who drives, and who follows     background  the threads' bodies
//! driver      carries out the core's actions  in_flight   between driver and queue
//! published   what everybody sees             waiters     who sleeps until when
//! core        decides, and does nothing       spare       segments made ahead
//!                                             reader_tasks    async readers
//! ```
//!
//! Each file uses those below it alone: `leader` uses `driver`, which uses `published`, which
//! uses `core`.

pub(crate) mod background;
pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod frame_times;
pub(crate) mod in_flight;
pub(crate) mod leader;
pub(crate) mod published;
pub(crate) mod reader_tasks;
pub(crate) mod spare;
mod start;
pub(crate) mod waiters;
pub(crate) mod worker;

#[cfg(test)]
mod core_tests;

pub(crate) use start::Commit;
