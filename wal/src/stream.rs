//! A reader that an executor polls.
//!
//! Owns nothing but its reader and its place among those that wait to read: the thread that
//! moves the log's watermark wakes it. Never starts a thread, never sleeps.

use std::sync::Arc;
use std::task::{Context, Poll};

use crate::commit::published::Published;
use crate::commit::reader_tasks::ReaderTask;
use crate::log::Log;
use crate::reader::Reader;
use bulla_storage::{Entry, Range, Result, Visibility};

/// The entries of a log in this process, with a wait for those to come. With the feature
/// `stream` it is a `futures_core::Stream`.
///
/// It ends with its range, when the log was closed and everything was read, and after an
/// error; [`into_reader`](Self::into_reader) returns the reader, which goes on where the
/// stream was. A poll may read from the disk, and blocks its thread as long.
#[derive(Debug)]
#[must_use = "a stream does nothing unless it is polled"]
pub struct EntryStream {
    reader: Reader,
    place: Place,
    ended: bool,
}

/// The place among those that wait to read.
#[derive(Debug)]
struct Place {
    published: Arc<Published>,
    task: Option<ReaderTask>,
}

impl Log {
    /// Returns a stream of this log's entries: a [`reader`](Self::reader) that an executor
    /// polls. The log wakes it when there is more to read, as it wakes
    /// [`ready`](Self::ready) futures.
    ///
    /// # Errors
    /// As [`reader`](Self::reader).
    pub fn stream(&self, range: impl Into<Range>, visibility: Visibility) -> Result<EntryStream> {
        let reader = self.reader(range, visibility)?;
        let place = Place { published: Arc::clone(&self.published), task: None };
        Ok(EntryStream { reader, place, ended: false })
    }
}

impl EntryStream {
    /// Polls for the next entry; `None` is the end. Has the task woken when there may be
    /// one, or when there never will be.
    pub fn poll_entry(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let next = self.read_or_register(context);
        self.ended = matches!(next, Poll::Ready(None | Some(Err(_))));
        next
    }

    /// Returns whether the stream has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Returns the reader, which goes on with the next entry.
    #[must_use]
    pub fn into_reader(self) -> Reader {
        self.reader
    }

    fn read_or_register(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Entry>>> {
        let Self { reader, place, .. } = self;
        loop {
            // Asked before the read, so that nothing is missed that was written then.
            let is_last = place.published.is_stopped();
            match reader.next_owned() {
                Ok(Some(entry)) => return Poll::Ready(Some(Ok(entry))),
                Err(error) => return Poll::Ready(Some(Err(error))),
                Ok(None) if is_last || reader.is_finished() => return Poll::Ready(None),
                Ok(None) => {}
            }
            let (visibility, lsn) = reader.waits_for();
            place.task = Some(place.published.waiters.register_reader_task(
                visibility,
                lsn,
                context.waker(),
                place.task,
            ));
            // Registered before this check: either we see the change, or it sees us.
            if !place.published.may_read(visibility, lsn) {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(task) = self.task {
            self.published.waiters.cancel_reader_task(task);
        }
    }
}

#[cfg(feature = "stream")]
impl futures_core::Stream for EntryStream {
    type Item = Result<Entry>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Entry>>> {
        self.poll_entry(context)
    }
}

#[cfg(feature = "stream")]
impl futures_core::stream::FusedStream for EntryStream {
    fn is_terminated(&self) -> bool {
        self.ended
    }
}
