//! The files of a log: names, CONTROL, segments, and how each is created durably.
//!
//! ```text
//! dir        names and listing of the directory, the writer's lock
//! control    CONTROL: two slots, written in turn
//! holds      what keeps a purge from removing segments
//! purge      moves the log's start up, and removes segments below it
//! segment    makes a segment: complete, synced and named before it is used
//! recovered  a log that is ready to be appended to
//! ```

pub mod control;
pub mod dir;
pub mod holds;
pub mod purge;
pub mod recovered;
pub mod segment;
