//! The tests of this package in one program, which is linked once. Apart are `memory`, which reads
//! what the kernel says of the whole process, and the loom models, which need another build of
//! everything.

mod backups;
mod changes;
mod checkpoint;
mod common;
mod numbers;
mod progress;
mod purge;
mod quota;
mod snapshot;
mod store;
mod threads;
mod times;
mod transactions;
