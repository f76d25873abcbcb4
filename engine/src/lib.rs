//! Bulla: engine.
