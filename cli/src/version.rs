//! `bulla --version`, and with `--verbose` what it was built from.

use bulla_storage::format;
use serde::Serialize;

use crate::error::Result;
use crate::output::Out;
use crate::terminal;

/// What identifies a build.
#[derive(Serialize)]
struct Build {
    version: &'static str,
    /// `None` when it was not built from a checkout.
    commit: Option<&'static str>,
    /// Version of the on-disk format that it reads and writes.
    format_version: u32,
    /// The cargo features that it was built with.
    features: Vec<&'static str>,
    target: &'static str,
}

/// Prints the version: a line, or with `--verbose` a report.
pub(crate) fn print(out: &mut Out) -> Result<()> {
    let build = Build {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("BULLA_COMMIT"),
        format_version: format::VERSION,
        features: env!("BULLA_FEATURES").split_terminator(' ').collect(),
        target: env!("BULLA_TARGET"),
    };
    if terminal::is_verbose() || !out.is_table() {
        out.report(&build)?;
    } else {
        out.line(format_args!("bulla {}", build.version))?;
    }
    out.flush()
}
