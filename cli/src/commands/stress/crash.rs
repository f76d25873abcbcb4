//! The crash: kills a process that puts tokens, opens its store, and checks it.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bulla_engine::Store;

use super::child::{self, MESSAGE_LEN};
use super::parts::{ENTRY_LEN, RING_LEN, open, quota_for};
use super::work::{Watch, Work};
use crate::args::{LevelArg, LogArgs};
use crate::error::{Error, Result};
use crate::random::Random;

/// What a crash left, compared with what was acknowledged before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Crash {
    pub(super) level: LevelArg,
    /// Tokens known to be acknowledged when it was killed.
    pub(super) acknowledged: u64,
    pub(super) recovered: u64,
    /// Acknowledged tokens that are missing.
    pub(super) lost: u64,
    /// The most that a crash may lose at this level.
    pub(super) may_lose: u64,
    /// Tokens that are there, but not as they were put.
    pub(super) wrong: u64,
    /// Tokens that are there, though an earlier one of the same thread is missing.
    pub(super) out_of_order: u64,
    /// The time until the store was open.
    pub(super) open: Duration,
}

impl Crash {
    pub(super) const fn is_ok(&self) -> bool {
        self.lost <= self.may_lose && self.wrong == 0 && self.out_of_order == 0
    }

    /// Puts, kills, opens and checks, in a directory that is not there yet.
    pub(super) fn run(
        work: &Work,
        log: &LogArgs,
        level: LevelArg,
        dir: &Path,
        watch: Watch<'_>,
    ) -> Result<Self> {
        let acknowledged = kill_midway(work, log, level, dir, watch)?;
        let start = Instant::now();
        let store = open(dir, log, quota_for(work))?;
        let open = start.elapsed();
        let ring = log.ring_size.unwrap_or(RING_LEN);
        let mut crash = Self {
            level,
            acknowledged: acknowledged.iter().sum(),
            recovered: store.len() as u64,
            lost: 0,
            may_lose: if level == LevelArg::Relaxed { ring / ENTRY_LEN } else { 0 },
            wrong: 0,
            out_of_order: 0,
            open,
        };
        crash.check(work, &store, &acknowledged, watch)?;
        store.close()?;
        Ok(crash)
    }

    /// Checks that the tokens of each thread are the first ones that it put.
    fn check(
        &mut self,
        work: &Work,
        store: &Store,
        acknowledged: &[u64],
        watch: Watch<'_>,
    ) -> Result<()> {
        watch.bar.set_position(0);
        watch.bar.set_message("checked");
        let mut in_order = 0;
        for (share, acknowledged) in work.shares().zip(acknowledged) {
            let first = share.start;
            let mut there = 0;
            for number in share {
                let token = work.token(number)?;
                let Some(found) = store.get(token.id())? else { break };
                self.wrong += u64::from(found != token);
                there = number - first + 1;
                if there.is_multiple_of(1 << 16) {
                    watch.done(1 << 16)?;
                }
            }
            in_order += there;
            self.lost += acknowledged.saturating_sub(there);
        }
        self.out_of_order = self.recovered.saturating_sub(in_order);
        Ok(())
    }
}

/// A process that is killed when dropped.
struct Victim(Child);

impl Victim {
    fn kill(&mut self) -> Result<()> {
        let system = |source| Error::System { what: "kill the child process", source };
        self.0.kill().map_err(system)?;
        let status = self.0.wait().map_err(system)?;
        if status.signal() == Some(signal_hook::consts::SIGKILL) {
            Ok(())
        } else {
            Err(Error::Child { status })
        }
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // Both fail if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Kills a child in the second half of its work; returns how many tokens of each of its
/// threads were acknowledged.
fn kill_midway(
    work: &Work,
    log: &LogArgs,
    level: LevelArg,
    dir: &Path,
    Watch { bar, interrupt }: Watch<'_>,
) -> Result<Vec<u64>> {
    let system = |what| move |source| Error::System { what, source };
    let program = std::env::current_exe().map_err(system("find this program's file"))?;
    let mut child = Command::new(program)
        .arg("stress-child")
        .args([format!("--records={}", work.records), format!("--threads={}", work.threads)])
        .args([format!("--seed={}", work.seed), format!("--level={}", level.name())])
        .args(log.words())
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(system("start the child process"))?;
    let pipe = child.stdout.take();
    let mut victim = Victim(child);
    let mut acknowledged: Vec<u64> = work.shares().map(|_| 0).collect();
    let Some(mut pipe) = pipe else { return Ok(acknowledged) };
    let half = work.records / 2;
    let aim = half + Random::new(work.seed ^ level as u64).below(work.records - half);
    let mut killed = false;
    let mut message = [0; MESSAGE_LEN];
    loop {
        match pipe.read_exact(&mut message) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(system("listen to the child process")(error)),
        }
        if interrupt.is_set() {
            return Err(Error::Interrupted);
        }
        let (thread, count) = child::decode(message);
        if let Some(slot) = acknowledged.get_mut(thread) {
            *slot += count;
        }
        let sum = acknowledged.iter().sum::<u64>();
        bar.set_position(sum);
        if !killed && sum >= aim {
            victim.kill()?;
            killed = true;
        }
    }
    match (killed, interrupt.is_set()) {
        (true, _) => Ok(acknowledged),
        // Ctrl-C also ends the child.
        (false, true) => Err(Error::Interrupted),
        (false, false) => {
            let status = victim.0.wait().map_err(system("wait for the child process"))?;
            Err(Error::Child { status })
        }
    }
}

#[cfg(test)]
mod tests {
    use bulla_engine::{Level, StoreOptions};
    use indicatif::ProgressBar;

    use super::*;
    use crate::signals::Interrupt;

    #[test]
    fn loss_change_and_hole_are_each_found() {
        let temporary = tempfile::tempdir().expect("made");
        let dir = temporary.path().join("store");
        let (bar, interrupt) = (ProgressBar::hidden(), Interrupt::catch().expect("signals"));
        let watch = Watch { bar: &bar, interrupt: &interrupt };
        let work = Work { records: 10, threads: 1, seed: 1 };
        let other = Work { seed: 2, ..work };
        let store = Store::open(&dir, &StoreOptions::new()).expect("made");
        for number in [0, 1, 2, 3, 4, 5, 6, 8, 9] {
            let token = if number == 5 { other.token(number) } else { work.token(number) };
            store.at(Level::Relaxed).put(&token.expect("a token")).expect("put");
        }
        let unchecked = Crash {
            level: LevelArg::Balanced,
            acknowledged: 9,
            recovered: 9,
            lost: 0,
            may_lose: 0,
            wrong: 0,
            out_of_order: 0,
            open: Duration::ZERO,
        };
        let mut crash = unchecked;
        crash.check(&work, &store, &[9], watch).expect("checked");
        assert_eq!((crash.lost, crash.wrong, crash.out_of_order), (2, 1, 2));
        assert!(!crash.is_ok());
        for found in [
            Crash { lost: 1, ..unchecked },
            Crash { wrong: 1, ..unchecked },
            Crash { out_of_order: 1, ..unchecked },
        ] {
            assert!(!found.is_ok(), "{found:?}");
        }
        assert!(Crash { lost: 5, may_lose: 5, ..unchecked }.is_ok());
        store.close().expect("closed");
    }
}
