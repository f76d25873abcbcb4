//! Bulla: recovery.
