//! The tests of this package in one program, which is linked once.

mod anchors;
mod files;
mod progress;
mod with_log;
