//! Progress on standard error: the only place that makes progress bars.
//!
//! Nothing is drawn unless standard error is a terminal and `--quiet` is absent. A bar
//! disappears when it is dropped, so that an error is printed on a line of its own.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressState, ProgressStyle};

use crate::numbers::size;
use crate::terminal;

/// How often the display of work that reports no progress is refreshed.
const TICK: Duration = Duration::from_millis(100);

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

fn bar(len: Option<u64>, template: &str) -> ProgressBar {
    if !terminal::shows_progress() {
        return ProgressBar::hidden();
    }
    let before = bytes_read();
    let read = move |_: &ProgressState, to: &mut dyn Write| {
        // What can't be written can't be reported either.
        let _ = to.write_str(&size(bytes_read().saturating_sub(before)));
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
        .with_key("read", read);
    ProgressBar::with_draw_target(len, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_finish(ProgressFinish::AndClear)
}

/// Returns how many bytes this process has read from files; 0 where the kernel does not say.
fn bytes_read() -> u64 {
    let io = procfs::process::Process::myself().and_then(|process| process.io());
    io.map_or(0, |io| io.rchar)
}
