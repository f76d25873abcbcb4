//! Bulla: benches.
