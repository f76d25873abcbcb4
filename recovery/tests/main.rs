//! The tests of this package in one program, which is linked once.

mod files;
mod landmarks;
mod with_log;
