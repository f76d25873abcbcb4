//! Compares Bulla with other logs and stores on the same work in the same run.
//!
//! ```text
//! workload    what is done, what is timed      subjects   the logs, one module each
//! log         what a log must offer            syncs      counts fsync and the like
//! comparison  rounds, order, one run           report     table, Markdown, JSON
//! store       what a store must offer          stores     the stores, one module each
//! store_work  what is done with stores
//! ```
//!
//! Run: `cd benches/peers && cargo run --release --ignore-rust-version -- --dir DIR`; see
//! `docs/PERFORMANCE.md`.

mod comparison;
mod log;
mod machine;
mod report;
mod statistics;
mod store;
mod store_work;
mod stores;
mod subjects;
mod syncs;
mod workload;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use comparison::Comparison;
use workload::Workload;

/// Compares Bulla with other logs and stores, round by round on the same machine.
#[derive(Parser, Debug)]
#[command(after_help = "Logs and workloads are listed with --list. Exit code 1: a log failed.")]
struct Arguments {
    /// Directory to work in, on the disk that is meant; what is made in it is removed.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Only logs whose name contains one of these (the reference always runs too).
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Only workloads with one of these names, or whose names begin with it.
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    workload: Vec<String>,
    /// Rounds; each runs every log once, in an order of its own.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where the orders of the rounds come from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Records of the workloads of stores, instead of 9,500,000.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..=16_000_000))]
    records: Option<u64>,
    /// A fiftieth of the work: shows that everything works, measures nothing.
    #[arg(long)]
    quick: bool,
    /// Run on a file system in memory, where nothing is durable.
    #[arg(long)]
    allow_tmpfs: bool,
    /// What is printed.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// List logs and workloads, and do nothing.
    #[arg(long)]
    list: bool,
}

/// Form of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Format {
    /// For a terminal.
    Table,
    /// For docs/PERFORMANCE.md.
    Markdown,
    /// Everything, every round.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        list();
        return ExitCode::SUCCESS;
    }
    match compare(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn list() {
    for subject in subjects::all() {
        println!("log       {:<28} {}", subject.name, subject.group.name());
    }
    for workload in workload::ALL {
        println!("workload  {:<28} {}", workload.name, workload.about);
    }
}

/// Runs what was asked for and prints it; `false` when a log failed.
fn compare(arguments: &Arguments) -> log::Result<bool> {
    let comparison = Comparison::new(
        &arguments.dir,
        chosen_subjects(&arguments.only)?,
        chosen_workloads(&arguments.workload, arguments.records, arguments.quick)?,
        arguments.allow_tmpfs,
    )?;
    let outcome = comparison.run(arguments.rounds, arguments.seed, arguments.quick)?;
    let text = match arguments.format {
        Format::Table => report::table(&outcome),
        Format::Markdown => report::markdown(&outcome),
        Format::Json => report::json(&outcome),
    };
    print!("{text}");
    Ok(!outcome.has_failed())
}

/// A name that is a log's or a store's stands for it alone; others for all that contain them.
fn chosen_subjects(only: &[String]) -> log::Result<Vec<subjects::Subject>> {
    let mut chosen = subjects::all();
    let names: Vec<_> = chosen.iter().map(|subject| subject.name).collect();
    let is_meant = |subject: &str, name: &str| {
        subject == name || (!names.contains(&name) && subject.contains(name))
    };
    for name in only {
        if !names.iter().any(|subject| is_meant(subject, name)) {
            return Err(format!("no log's name contains {name:?}; see --list").into());
        }
    }
    if !only.is_empty() {
        chosen.retain(|subject| {
            subjects::REFERENCES.contains(&subject.name)
                || only.iter().any(|name| is_meant(subject.name, name))
        });
    }
    Ok(chosen)
}

/// A name that is a workload's stands for it alone; others for all that begin with them.
fn chosen_workloads(
    names: &[String],
    records: Option<u64>,
    quick: bool,
) -> log::Result<Vec<Workload>> {
    let is_exact = |name: &str| workload::ALL.iter().any(|workload| workload.name == name);
    let is_meant = |workload: &Workload, name: &str| {
        workload.name == name || (!is_exact(name) && workload.name.starts_with(name))
    };
    for name in names {
        if !workload::ALL.iter().any(|workload| is_meant(workload, name)) {
            return Err(format!("no workload's name begins with {name:?}; see --list").into());
        }
    }
    Ok(workload::ALL
        .iter()
        .filter(|workload| names.is_empty() || names.iter().any(|name| is_meant(workload, name)))
        .map(|workload| workload.with_records(records))
        .map(|workload| if quick { workload.quick() } else { workload })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_of_a_workload_does_not_choose_those_that_begin_with_it() {
        let names = |asked: &str| -> Vec<_> {
            let chosen = chosen_workloads(&[asked.to_owned()], None, false).expect("workloads");
            chosen.iter().map(|workload| workload.name).collect()
        };
        assert_eq!(names("strict-1"), ["strict-1"]);
        assert_eq!(names("strict"), ["strict-1", "strict-8", "strict-32", "strict-128"]);
        assert!(chosen_workloads(&["nothing".to_owned()], None, false).is_err());
    }
}
