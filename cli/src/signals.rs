//! Signals: a broken pipe and Ctrl-C end the program as they end others; a limit on the length of
//! files does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGPIPE, SIGTERM, SIGXFSZ};

use crate::error::{Error, Result};

/// Keeps a write beyond the limit of a file's length from killing the program, so that it gets an
/// error which says so.
pub(crate) fn survive_file_limit() {
    // A handler that does nothing of note; without it such a write kills, as it does elsewhere.
    let _ = signal_hook::flag::register(SIGXFSZ, Arc::default());
}

/// Dies of SIGPIPE, as a program that does not ignore it would.
pub(crate) fn die_of_broken_pipe() -> ! {
    die_of(SIGPIPE)
}

/// Dies of SIGINT, so that a shell that runs a script stops too.
pub(crate) fn die_of_interrupt() -> ! {
    die_of(SIGINT)
}

fn die_of(signal: i32) -> ! {
    let _ = signal_hook::low_level::emulate_default_handler(signal);
    std::process::exit(128 + signal)
}

/// Set once the user asks the program to end; a second Ctrl-C ends it at once.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches Ctrl-C and SIGTERM from now on.
    pub(crate) fn catch() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag unset, then sets it.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(|source| Error::System { what: "catch signals", source })?;
        }
        Ok(Self(flag))
    }

    /// # Errors
    /// [`Error::Interrupted`] once it is set.
    pub(crate) fn check(&self) -> Result<()> {
        if self.is_set() { Err(Error::Interrupted) } else { Ok(()) }
    }

    pub(crate) fn is_set(&self) -> bool {
        // Pairs with nothing: the flag carries no data.
        self.0.load(Ordering::Relaxed)
    }
}
