//! Tasks that wait to read, beside the threads that do.
//!
//! They are kept apart from the tasks that wait for receipts: nobody has to drive for them,
//! and what they wait for may be far off.

use std::task::Waker;

use super::core::Watermarks;
use bulla_storage::{Lsn, Visibility};

/// Identifies a task that waits to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ReaderTask(u64);

#[derive(Debug)]
struct Waiting {
    task: ReaderTask,
    visibility: Visibility,
    lsn: Lsn,
    waker: Waker,
}

/// The tasks, in no order.
#[derive(Debug, Default)]
pub(super) struct ReaderTasks {
    next_id: u64,
    waiting: Vec<Waiting>,
}

impl ReaderTasks {
    /// Adds a task that waits until `lsn` may be read. The earlier registration of the
    /// same task is taken back; its waker is returned, to be dropped when nothing is locked.
    pub(super) fn register(
        &mut self,
        visibility: Visibility,
        lsn: Lsn,
        waker: Waker,
        earlier: Option<ReaderTask>,
    ) -> (ReaderTask, Option<Waker>) {
        let stale = earlier.and_then(|earlier| self.cancel(earlier));
        self.next_id += 1;
        let task = ReaderTask(self.next_id);
        self.waiting.push(Waiting { task, visibility, lsn, waker });
        (task, stale)
    }

    /// Takes a registration back; it may be gone already.
    pub(super) fn cancel(&mut self, task: ReaderTask) -> Option<Waker> {
        let index = self.waiting.iter().position(|waiting| waiting.task == task)?;
        Some(self.waiting.swap_remove(index).waker)
    }

    /// Takes out the tasks that have something to read.
    pub(super) fn take_readable(&mut self, marks: &Watermarks) -> impl Iterator<Item = Waker> {
        let is_readable = |waiting: &mut Waiting| {
            let mark = match waiting.visibility {
                Visibility::Durable => marks.synced,
                Visibility::Written => marks.written,
            };
            waiting.lsn < mark
        };
        self.waiting.extract_if(.., is_readable).map(|waiting| waiting.waker)
    }

    /// Takes out all tasks: there is nothing more to come.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = Waker> {
        self.waiting.drain(..).map(|waiting| waiting.waker)
    }
}
