//! A child process: starts it, listens to it, kills it.

use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::child;
use super::ledger::Run;
use super::wire::{self, Message};
use crate::error::{Error, Result};

/// When to kill.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Aim {
    /// This long after the start: while it opens the log, or begins to append.
    EpochStart(Duration),
    /// This long after the start of a child that only opens what an earlier kill left.
    Recovering(Duration),
    /// This long after it began to append.
    Appending(Duration),
}

impl Aim {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::EpochStart(_) => "opening",
            Self::Recovering(_) => "recovering",
            Self::Appending(_) => "appending",
        }
    }
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Fall {
    pub(super) aim: Aim,
    /// From its start to the kill.
    pub(super) age: Duration,
    /// From its start until the log was open, if it ever was.
    pub(super) opened_after: Option<Duration>,
    pub(super) run: Run,
}

/// A running child.
#[derive(Debug)]
pub(super) struct Victim {
    child: Child,
    start: Instant,
    opened: Receiver<Instant>,
    listener: JoinHandle<std::io::Result<Run>>,
}

const OPEN_TIMEOUT: Duration = Duration::from_secs(60);

impl Victim {
    pub(super) fn spawn(args: &child::Args) -> Result<Self> {
        let system = |what| move |source| Error::System { what, source };
        let program = std::env::current_exe().map_err(system("find this program's file"))?;
        let start = Instant::now();
        let mut child = Command::new(program)
            .args(words(args))
            .arg("--dir")
            .arg(&args.dir)
            .arg("--records")
            .arg(&args.records)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(system("start the drill's child"))?;
        let pipe = child.stdout.take();
        let (say_opened, opened) = channel();
        let listener = std::thread::spawn(move || {
            let mut run = Run::default();
            let Some(pipe) = pipe else { return Ok(run) };
            wire::read(pipe, |message| match message {
                Message::Opened { next_seq, end } => {
                    run.opened = Some((next_seq, end));
                    let _ = say_opened.send(Instant::now());
                }
                Message::Ack(ack) => run.acks.push(ack),
                Message::Watermarks { durable, written } => {
                    run.durable = run.durable.max(durable);
                    run.written = run.written.max(written);
                }
                Message::Purge { keep_from } => run.keep_from = keep_from,
            })?;
            Ok(run)
        });
        Ok(Self { child, start, opened, listener })
    }

    /// Kills it at the given moment, and returns what it reported.
    pub(super) fn kill(mut self, aim: Aim) -> Result<Fall> {
        let mut opened = None;
        let waited = match aim {
            Aim::EpochStart(delay) | Aim::Recovering(delay) => {
                std::thread::sleep(delay.saturating_sub(self.start.elapsed()));
                Ok(())
            }
            Aim::Appending(delay) => match self.opened.recv_timeout(OPEN_TIMEOUT) {
                Ok(at) => {
                    opened = Some(at);
                    std::thread::sleep(delay);
                    Ok(())
                }
                Err(RecvTimeoutError::Timeout) => {
                    Err(Error::ChildStuck { seconds: OPEN_TIMEOUT.as_secs() })
                }
                // It has ended by itself: its status says why.
                Err(RecvTimeoutError::Disconnected) => Ok(()),
            },
        };
        let age = self.start.elapsed();
        let system = |source| Error::System { what: "kill the drill's child", source };
        self.child.kill().map_err(system)?;
        let status = self.child.wait().map_err(system)?;
        waited?;
        if status.signal() != Some(SIGKILL) {
            return Err(Error::Child { status });
        }
        let run = match self.listener.join() {
            Ok(run) => {
                run.map_err(|source| Error::System { what: "listen to the child", source })?
            }
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let opened = opened.or_else(|| self.opened.try_recv().ok());
        let opened_after = opened.map(|at| at.duration_since(self.start));
        Ok(Fall { aim, age, opened_after, run })
    }
}

/// `Child::kill` sends it.
const SIGKILL: i32 = signal_hook::consts::SIGKILL;

/// Returns the child's command line, without the paths.
fn words(args: &child::Args) -> Vec<String> {
    let next: Vec<_> = args.next.iter().map(u64::to_string).collect();
    let mut words = vec![
        "drill-child".to_owned(),
        format!("--level={}", args.level.name()),
        format!("--seed={}", args.seed),
        format!("--next={}", next.join(",")),
        format!("--keep={}", args.keep),
    ];
    if args.only_open {
        words.push("--only-open".to_owned());
    }
    words.extend(args.log.words());
    words
}
