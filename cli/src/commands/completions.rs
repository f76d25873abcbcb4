//! `bulla completions` and `bulla man`: files for shells and for `man`.

use clap::Command;
use clap_complete::Shell;

use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::output::Out;

/// Print a shell completion script.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla completions bash > ~/.local/share/bash-completion/completions/bulla\n  bulla completions zsh > \"${fpath[1]}/_bulla\"\n  bulla completions fish > ~/.config/fish/completions/bulla.fish"
)]
pub(crate) struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args, mut program: Command, out: &mut Out) -> Result<Outcome> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut program, "bulla", &mut text);
    out.bytes(&text)?;
    Ok(Outcome::Clean)
}

/// Print the manual page of `bulla`, or of one of its commands.
#[derive(clap::Args, Debug)]
#[command(
    after_help = "Examples:\n  bulla man > ~/.local/share/man/man1/bulla.1\n  bulla man repair | man -l -"
)]
pub(crate) struct ManArgs {
    /// The command; without it, the page of the whole program.
    command: Option<String>,
}

pub(crate) fn man(args: &ManArgs, mut program: Command, out: &mut Out) -> Result<Outcome> {
    // Sets the full names of the commands, and adds the global options.
    program.build();
    let command = match &args.command {
        None => program,
        Some(name) => program
            .get_subcommands()
            .find(|command| command.get_name() == name && !command.is_hide_set())
            .ok_or_else(|| Error::NoCommand(name.clone()))?
            .clone(),
    };
    let mut text = Vec::new();
    clap_mangen::Man::new(command).render(&mut text).map_err(Error::Output)?;
    out.bytes(&text)?;
    Ok(Outcome::Clean)
}
