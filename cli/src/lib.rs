//! The command `bulla`: load, inspect, verify, repair, purge and drill Bulla logs.
//!
//! Owns words and exit codes. Data goes to standard output, everything else to standard
//! error. It knows files and formats of the outside world (CSV, zip, JSON); what a log
//! is, it leaves to the crates below. One file per command in `commands/`, tested as a
//! program in `cli/tests/`.

#![forbid(unsafe_code)]

mod args;
mod commands;
mod error;
mod facts;
mod failure;
mod input;
mod legacy;
mod mapping;
mod numbers;
mod outcome;
mod output;
mod parts;
mod picture;
mod place;
mod progress;
mod random;
mod signals;
mod terminal;
mod times;
mod tokens;
mod version;

use std::process::ExitCode;
use std::time::Instant;

use bulla_engine::Token;
use clap::error::ErrorKind;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::{Format, Out};
use crate::terminal::TerminalArgs;

/// Load, inspect, verify, repair, purge and drill crash-safe logs of 64-byte tokens.
///
/// Exit codes: 0 clean, 1 error, 2 wrong usage, 3 torn tail (bytes at the end that were
/// never acknowledged as durable; `verify` and dry runs), 4 corruption (damage to data that
/// had been durable). `bulla help glossary` explains the words of messages.
#[derive(Parser, Debug)]
#[command(
    name = "bulla",
    disable_version_flag = true,
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Cli {
    /// How data is printed: tables for people, JSON for programs.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT",
        help_heading = "Output"
    )]
    format: Format,
    #[command(flatten)]
    terminal: TerminalArgs,
    /// Print the version; with --verbose also the commit, the format version, features, target.
    #[arg(short = 'V', long, action = ArgAction::SetTrue)]
    version: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Load(commands::load::Args),
    Append(commands::append::Args),
    Put(commands::put::Args),
    Delete(commands::delete::Args),
    Get(commands::get::Args),
    Scan(commands::scan::Args),
    Checkpoint(commands::checkpoint::Args),
    Backup(commands::backup::Args),
    Restore(commands::restore::Args),
    Hold(commands::hold::Args),
    Holds(commands::holds::Args),
    Release(commands::hold::ReleaseArgs),
    Replay(commands::replay::Args),
    Verify(commands::verify::Args),
    Repair(commands::repair::Args),
    Purge(commands::purge::Args),
    Dump(commands::dump::Args),
    Stat(commands::stat::Args),
    Segments(commands::segments::Args),
    Doctor(commands::doctor::Args),
    Drill(commands::drill::Args),
    Stress(commands::stress::Args),
    Glossary(commands::glossary::Args),
    Completions(commands::completions::Args),
    Man(commands::completions::ManArgs),
    #[command(hide = true)]
    DrillChild(commands::drill::child::Args),
    #[command(hide = true)]
    StressChild(commands::stress::child::Args),
}

/// Does what the command line says, and returns the exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|error| error.exit());
    cli.terminal.apply();
    signals::survive_file_limit();
    let mut out = Out::new(cli.format);
    let start = Instant::now();
    let result = match cli.command {
        _ if cli.version => version::print(&mut out).map(|()| Outcome::Clean),
        Some(command) => run(command, &mut out),
        None => {
            let words = "a command is required: `bulla --help` lists them";
            command().error(ErrorKind::MissingSubcommand, words).exit()
        }
    };
    let result = result.and_then(|outcome| {
        out.flush()?;
        Ok(outcome)
    });
    match result {
        Ok(outcome) => {
            terminal::detail(format_args!("took {:.3} s", start.elapsed().as_secs_f64()));
            ExitCode::from(outcome.code())
        }
        Err(Error::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            signals::die_of_broken_pipe()
        }
        Err(error) => {
            // What was printed before the error counts; that it can't be printed does not.
            let _ = out.flush();
            failure::report(&error);
            if matches!(error, Error::Interrupted) {
                signals::die_of_interrupt();
            }
            ExitCode::from(failure::code(&error))
        }
    }
}

/// Returns the definition of the command line. Its help and its errors are coloured as
/// `--color` says.
fn command() -> clap::Command {
    Cli::command().color(terminal::color_of(std::env::args_os()))
}

fn run(command: Command, out: &mut Out) -> Result<Outcome> {
    match command {
        Command::Load(args) => commands::load::run(&args, out),
        Command::Append(args) => commands::append::run(&args, out),
        Command::Put(args) => commands::put::run(&args, out),
        Command::Delete(args) => commands::delete::run(&args, out),
        Command::Get(args) => commands::get::run(&args, out),
        Command::Scan(args) => commands::scan::run(&args, out),
        Command::Checkpoint(args) => commands::checkpoint::run(&args, out),
        Command::Backup(args) => commands::backup::run(&args, out),
        Command::Restore(args) => commands::restore::run(&args, out),
        Command::Hold(args) => commands::hold::run(&args, out),
        Command::Holds(args) => commands::holds::run(&args, out),
        Command::Release(args) => commands::hold::release(&args, out),
        Command::Replay(args) => commands::replay::run(&args, out),
        Command::Verify(args) => commands::verify::run(&args, out),
        Command::Repair(args) => commands::repair::run(&args, out),
        Command::Purge(args) => commands::purge::run(&args, out),
        Command::Dump(args) => commands::dump::run(&args, out),
        Command::Stat(args) => commands::stat::run(&args, out),
        Command::Segments(args) => commands::segments::run(&args, out),
        Command::Doctor(args) => commands::doctor::run(&args, out),
        Command::Drill(args) => commands::drill::run(&args, out),
        Command::Stress(args) => commands::stress::run(&args, out),
        Command::Glossary(args) => commands::glossary::run(&args, out),
        Command::Completions(args) => commands::completions::run(&args, Cli::command(), out),
        Command::Man(args) => commands::completions::man(&args, Cli::command(), out),
        Command::DrillChild(args) => commands::drill::child::run(&args),
        Command::StressChild(args) => commands::stress::child::run(&args),
    }
}

/// Returns the tokens that `bulla load` makes of a CSV file with these contents, under these
/// options of its column mapping (`--map`, `--clamp` and so on).
///
/// # Errors
/// The errors of `bulla load`: wrong options, a mapping that does not fit the file's columns, a
/// row that does not make a token.
pub fn tokens_of_csv(
    options: &[String],
    csv: &[u8],
) -> Result<Vec<Token>, Box<dyn std::error::Error>> {
    #[derive(Parser)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        mapping: mapping::MappingArgs,
    }
    let line = Line::try_parse_from(options)?;
    let mut tokens = Vec::new();
    input::tokens_of(csv, &line.mapping, |token| tokens.push(token))?;
    Ok(tokens)
}

/// A part of a file, as `bulla load --from legacy` reads it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct LegacyPart {
    /// Offset of its first byte in the file.
    pub at: u64,
    /// Its length in bytes.
    pub len: u64,
    /// Whether it is an intact record. Otherwise no record begins in it.
    pub is_record: bool,
    /// The token of the record, if that holds a valid one.
    pub token: Option<Token>,
}

/// Returns what `bulla load --from legacy` makes of a file with these contents, part by part.
///
/// # Errors
/// None: bytes in memory can always be read.
pub fn parts_of_legacy(file: &[u8]) -> std::io::Result<Vec<LegacyPart>> {
    use crate::legacy::{Body, Part, Reader, Record};
    let mut reader = Reader::over(file, file.len() as u64);
    let mut parts = Vec::new();
    while let Some((at, part)) = reader.next()? {
        let token = match &part {
            Part::Record(Record { body: Body::Token(token), .. }) => Some(*token),
            _ => None,
        };
        let is_record = matches!(part, Part::Record(_));
        parts.push(LegacyPart { at, len: part.len(), is_record, token });
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_an_example_and_every_example_is_understood() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let name = sub.get_name();
            let after = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            let (_, text) = after.split_once("Example").unwrap_or_else(|| panic!("{name}"));
            let examples: Vec<_> =
                text.lines().filter_map(|line| line.split_once("bulla ")).collect();
            assert!(!examples.is_empty(), "{name}");
            for (_, example) in examples {
                // The rest is for the shell.
                let own = example.split(['>', '|', '<', '#']).next().unwrap_or_default();
                let words = std::iter::once("bulla").chain(own.split_whitespace());
                let parsed = Cli::try_parse_from(words);
                assert!(own.starts_with(&format!("{name} ")), "{name}: {example}");
                assert!(
                    parsed.is_ok(),
                    "{example}: {}",
                    parsed.err().map_or_else(String::new, |error| error.to_string())
                );
            }
        }
    }
}
