//! What people see beside the data: notes, warnings and advice on standard error, in colour.
//!
//! Owns the rules of `--quiet`, `--verbose` and `--color`. Warnings and errors always appear;
//! notes disappear with `--quiet`, details appear with `--verbose`. `anstream` decides whether
//! colour is used: `--color`, then `NO_COLOR` and `CLICOLOR_FORCE`, then whether the stream is
//! a terminal. Nothing here writes to standard output.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU8, Ordering};

use anstyle::{AnsiColor, Style};
use clap::{Args, ColorChoice, ValueEnum};

/// Titles of columns and names of fields.
pub(crate) const HEADING: Style = Style::new().bold();
/// The word before advice.
pub(crate) const ADVICE: Style = AnsiColor::Cyan.on_default().bold();
/// A state that needs nothing.
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
/// A state that the next open mends, or that deserves attention.
pub(crate) const WARNING: Style = AnsiColor::Yellow.on_default();
/// Damage, and errors.
pub(crate) const BAD: Style = AnsiColor::Red.on_default().bold();

/// How much is printed, and in what colour.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct TerminalArgs {
    /// Print data, warnings and errors only: no notes, no progress.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// Also print details: the I/O backend in use, what a store was opened from, the time taken.
    #[arg(short, long, global = true)]
    pub(crate) verbose: bool,
    /// When to use colour. `auto` uses it on a terminal, and honours `NO_COLOR` and
    /// `CLICOLOR_FORCE`.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    color: ColorChoice,
}

const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

/// One for the process, as standard error is; set once, before the command runs.
static VERBOSITY: AtomicU8 = AtomicU8::new(NORMAL);

impl TerminalArgs {
    /// Makes the choice hold for the process.
    pub(crate) fn apply(self) {
        let verbosity = match (self.quiet, self.verbose) {
            (true, _) => QUIET,
            (false, true) => VERBOSE,
            (false, false) => NORMAL,
        };
        // Pairs with nothing: no other thread runs yet.
        VERBOSITY.store(verbosity, Ordering::Relaxed);
        match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Returns the value of `--color` among the words of a command line, before they are parsed: the
/// parser itself prints help and errors. A wrong value is for the parser to refuse.
pub(crate) fn color_of(words: impl IntoIterator<Item = OsString>) -> ColorChoice {
    let words = words.into_iter().map(|word| word.into_string().unwrap_or_default());
    let mut words = words.take_while(|word| word != "--");
    while let Some(word) = words.next() {
        let value = match word.strip_prefix("--color") {
            Some("") => words.next(),
            Some(value) => value.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        if let Some(value) = value {
            return ColorChoice::from_str(&value, false).unwrap_or_default();
        }
    }
    ColorChoice::default()
}

fn verbosity() -> u8 {
    VERBOSITY.load(Ordering::Relaxed)
}

/// Returns whether `--verbose` was given.
pub(crate) fn is_verbose() -> bool {
    verbosity() == VERBOSE
}

/// Returns whether progress may be drawn on standard error.
pub(crate) fn shows_progress() -> bool {
    verbosity() > QUIET && std::io::stderr().is_terminal()
}

/// Prints how a command ended, or what it did on the way.
pub(crate) fn note(words: impl Display) {
    if verbosity() > QUIET {
        anstream::eprintln!("{words}");
    }
}

/// Prints what only somebody who asks for details wants to know.
pub(crate) fn detail(words: impl Display) {
    if is_verbose() {
        anstream::eprintln!("bulla: {words}");
    }
}

/// Prints what must not be missed, though the command goes on.
pub(crate) fn warn(words: impl Display) {
    anstream::eprintln!("{WARNING}bulla:{WARNING:#} {words}");
}

/// Prints what the user can do about what was printed before.
pub(crate) fn advise(words: impl Display) {
    if verbosity() > QUIET {
        print_advice(words);
    }
}

/// Prints an error, its causes and advice.
pub(crate) fn error(words: impl Display, causes: &[String], advice: Option<impl Display>) {
    anstream::eprintln!("{BAD}bulla:{BAD:#} {words}");
    for cause in causes {
        anstream::eprintln!("  because: {cause}");
    }
    if let Some(advice) = advice {
        print_advice(advice);
    }
}

fn print_advice(words: impl Display) {
    anstream::eprintln!("  {ADVICE}do:{ADVICE:#} {words}");
}

/// Returns the style of a word that names a state, such as `clean`, `torn_tail` or, of a
/// checkpoint, `3 damaged`.
pub(crate) fn style_of_state(words: &str) -> Option<Style> {
    let word = words.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let starts_with = |words: &[&str]| words.iter().any(|start| word.starts_with(start));
    if starts_with(&["clean", "whole", "ok", "yes"]) {
        Some(GOOD)
    } else if starts_with(&["torn", "unusable", "killed again"]) {
        Some(WARNING)
    } else if starts_with(&["corrupt", "damaged", "can't", "BROKEN", "no"]) {
        Some(BAD)
    } else {
        None
    }
}
