//! Group commit: the pure core, the driver that carries out its actions, the waiters.

pub(crate) mod core;
pub(crate) mod driver;
pub(crate) mod shared;
pub(crate) mod wait;

#[cfg(test)]
mod core_tests;
