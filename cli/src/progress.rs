//! Progress on standard error: the only place that makes progress bars.
//!
//! Nothing is drawn unless standard error is a terminal and `--quiet` is absent. A bar
//! disappears when it is dropped, so that an error is printed on a line of its own.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bulla_recovery::storage::progress::{Phase, Progress};
use bulla_wal::Options;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};

use crate::numbers::size;
use crate::terminal;

/// How often the display of work that reports no progress is refreshed.
const TICK: Duration = Duration::from_millis(100);

/// A wait that lasts longer is told.
const NOTED_MS: u64 = 500;

/// Returns a bar of `len` bytes.
pub(crate) fn bytes(len: u64) -> ProgressBar {
    let template = "{bar:30} {bytes} of {total_bytes}, {bytes_per_sec}, {eta} left";
    bar(Some(len), template)
}

/// Returns a bar of `len` things, such as `entries`.
pub(crate) fn count(len: u64, unit: &str) -> ProgressBar {
    bar(Some(len), "{bar:30} {human_pos} of {human_len} {msg}, {eta} left")
        .with_message(unit.to_owned())
}

/// Returns the display of work whose end is unknown. It shows what is done, for how long, and
/// how many bytes the process has read meanwhile.
pub(crate) fn reading(work: &str) -> ProgressBar {
    let bar = bar(None, "{spinner} {msg}: {read} read, {elapsed}").with_message(work.to_owned());
    if !bar.is_hidden() {
        bar.enable_steady_tick(TICK);
    }
    bar
}

/// Returns the display of work that begins with a log being read, and options that make the log
/// tell it how much there is to read: then it shows how long that will still take.
pub(crate) fn reading_log(options: Options, work: &str) -> (Options, ProgressBar) {
    let bar = reading(work);
    if bar.is_hidden() {
        return (options.on_progress(note_of_waiting()), bar);
    }
    // The options outlive the display, which disappears with its last owner.
    let shown = bar.downgrade();
    let (phase, work) = (Mutex::new(None), work.to_owned());
    let options = options.on_progress(move |progress| {
        if let Some(bar) = shown.upgrade() {
            let now = Some((progress.phase, progress.total));
            let before =
                std::mem::replace(&mut *phase.lock().unwrap_or_else(PoisonError::into_inner), now);
            if progress.phase == Phase::Wait {
                bar.set_message("waiting for the program that has it open");
                return ControlFlow::Continue(());
            }
            if before != now {
                bar.set_message(work.clone());
                bar.set_style(style("{bar:30} {msg}: {bytes} of {total_bytes}, {eta} left"));
                bar.set_length(progress.total);
                bar.reset_eta();
            }
            match progress.phase {
                Phase::Replay => bar.set_message("applying"),
                Phase::Copy => bar.set_message("copying"),
                Phase::Verify => bar.set_message("reading back"),
                _ => {}
            }
            bar.set_position(progress.done);
        }
        ControlFlow::Continue(())
    });
    (options, bar)
}

/// Says once that an open waits for another program, where no bar shows it.
fn note_of_waiting() -> impl Fn(Progress) -> ControlFlow<()> + Send + Sync + 'static {
    let said = AtomicBool::new(false);
    move |progress| {
        let is_long = progress.phase == Phase::Wait && progress.done >= NOTED_MS;
        if is_long && !said.swap(true, Ordering::Relaxed) {
            terminal::note(format_args!(
                "Waiting for the program that has it open, {} s at most.",
                progress.total.div_ceil(1_000)
            ));
        }
        ControlFlow::Continue(())
    }
}

fn bar(len: Option<u64>, template: &str) -> ProgressBar {
    if !terminal::shows_progress() {
        return ProgressBar::hidden();
    }
    ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr())
        .with_style(style(template))
        .with_finish(ProgressFinish::AndClear)
}

fn style(template: &str) -> ProgressStyle {
    let before = bytes_read();
    let read = move |_: &ProgressState, to: &mut dyn Write| {
        // What can't be written can't be reported either.
        let _ = to.write_str(&size(bytes_read().saturating_sub(before)));
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("read", read)
}

/// Returns how many bytes this process has read from files; 0 where the kernel does not say.
fn bytes_read() -> u64 {
    let io = procfs::process::Process::myself().and_then(|process| process.io());
    io.map_or(0, |io| io.rchar)
}
