//! Bulla: cli.
