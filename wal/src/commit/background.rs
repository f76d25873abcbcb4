//! What the threads of a log do: the flusher and the spare maker.
//!
//! The flusher keeps the time bounds and does what async waiters and relaxed appends need; the
//! spare maker makes segments and memory ready before anybody waits for them. Both sleep when
//! there is nothing to do, and end when the log is stopped.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::leader::Leadership;
use crate::faults::SpareMaker;
use crate::sync::{park, thread};
use bulla_storage::files::dir::segment_name;
use bulla_storage::files::segment::CreateError;
use bulla_storage::io::Io;
use bulla_storage::{Error, SegmentNumber};

/// The flusher wakes no more often than this.
pub(crate) const SHORTEST_TICK: Duration = Duration::from_micros(100);

/// Starts both threads.
pub(crate) fn start(
    leadership: &Arc<Leadership>,
    io: &Arc<dyn Io>,
    flush_interval: Duration,
    maker: SpareMaker,
) -> io::Result<Vec<thread::JoinHandle<()>>> {
    let published = leadership.published();
    let flusher = {
        let (leadership, io) = (Arc::clone(leadership), Arc::clone(io));
        let tick = (flush_interval / 2).max(SHORTEST_TICK);
        thread::Builder::new()
            .name("bulla-flush".to_owned())
            .spawn(move || run_flusher(&leadership, io.as_ref(), tick))?
    };
    let spare_maker = {
        let leadership = Arc::clone(leadership);
        let spawned = thread::Builder::new()
            .name("bulla-prepare".to_owned())
            .spawn(move || run_spare_maker(&leadership, &maker));
        match spawned {
            Ok(spare_maker) => spare_maker,
            Err(error) => {
                published.stop();
                flusher.thread().unpark();
                return Err(error);
            }
        }
    };
    published.set_threads(flusher.thread().clone(), spare_maker.thread().clone());
    // Both may have gone to sleep before they could be found.
    flusher.thread().unpark();
    spare_maker.thread().unpark();
    Ok(vec![flusher, spare_maker])
}

/// Keeps the time bounds, and does what async waiters and durable marks need; sleeps when there
/// is nothing to do.
fn run_flusher(leadership: &Leadership, io: &dyn Io, tick: Duration) {
    let published = leadership.published();
    let mut deadline = Some(0);
    while !published.is_stopped() {
        // Those that an append has left to us.
        published.waiters.wake_async_waiters();
        if published.is_poisoned() {
            park(None);
            continue;
        }
        // A leader keeps the bounds itself. To stand in its way would cost a lone writer a
        // hand-over; only a bound that is due is worth that.
        let is_due = deadline.is_none_or(|at_ns| at_ns <= io.now_ns());
        let leader = if is_due { Some(leadership.lead()) } else { leadership.try_lead() };
        let Some(mut leader) = leader else {
            park(Some(tick));
            continue;
        };
        leader.run_until_idle();
        deadline = leader.core.deadline();
        // What others have begun, they go on with; but they may leave what follows to us.
        let busy = leader.is_busy();
        // Decided while nobody else can take an entry out of the ring and leave the rest
        // of its way to us.
        let asleep = !busy && deadline.is_none() && published.ring.flusher_sleeps();
        drop(leader);
        match deadline {
            _ if busy => park(Some(tick)),
            Some(at_ns) => {
                let left = Duration::from_nanos(at_ns.saturating_sub(io.now_ns()));
                park(Some(left.min(tick)));
            }
            None if asleep => park(None),
            None => {}
        }
    }
}

fn panicked(number: SegmentNumber) -> Error {
    Error::io("make", segment_name(number))(io::Error::other("it panicked"))
}

/// Makes spare segments and the ring's memory, so that nobody waits for them.
fn run_spare_maker(leadership: &Leadership, maker: &SpareMaker) {
    let published = leadership.published();
    // Both are for a log that is appended to, which wants a segment first.
    let mut populate = None;
    while !published.is_stopped() {
        match published.take_spare_request() {
            None => {
                if populate.as_mut().and_then(Iterator::next).is_none() {
                    park(None);
                }
            }
            Some(request) => {
                populate.get_or_insert_with(|| published.ring.populate());
                let is_wanted = || !published.is_stopped();
                // Appends that need the segment must not wait for a thread that is gone.
                let made = catch_unwind(AssertUnwindSafe(|| maker.make(request, &is_wanted)))
                    .unwrap_or_else(|_| Err(CreateError::Other(panicked(request.number))));
                let mut leader = leadership.lead();
                leader.prepared(made);
                leader.pump();
            }
        }
    }
}
