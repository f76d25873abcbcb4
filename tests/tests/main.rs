//! The tests that span the crates, in one program: each program links everything again.
//!
//! Programs of their own, in files beside this one, are those that need a process for themselves:
//! `counts` and `memory` have an allocator that counts, `idle` and `population` read what the kernel
//! says of the whole process, `forks` forks, and `panics` sets the process's panic hook. `names` checks that no file is
//! left out.

mod backups;
mod checkpoints;
mod clock;
mod codecs;
mod corpus;
mod devices;
mod driving;
mod enumeration;
mod full_disk;
mod holds;
mod house;
mod kills;
mod live;
mod names;
mod opening;
mod operators;
mod readers;
mod real;
mod replay;
mod simulation;
mod store;
mod threads;
mod undos;
mod uring;
