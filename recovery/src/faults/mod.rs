//! The seam of this crate at which a test build can be wrong on purpose.
//!
//! Each function changes a value where it passes from one module to another, or puts a step
//! before a step, if a [mutant](bulla_storage::faults::mutants) is switched on. In an ordinary
//! build it returns its argument, and the compiler removes it. So the modules hold no wrong
//! code.

pub(crate) mod backup;
pub(crate) mod epoch;
pub(crate) mod order;
pub(crate) mod read;
