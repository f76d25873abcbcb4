//! What the threads of a log do: the flusher and the spare maker.
//!
//! The flusher keeps the time bounds and does what async waiters and relaxed appends need; the
//! spare maker makes segments and memory ready before anybody waits for them. Both start when
//! there is something to do, and end when there is nothing (the flusher, when that lasts), or
//! when the log is stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::leader::Leadership;
use super::worker::Worker;
use crate::faults::SpareMaker;
use bulla_storage::files::dir::segment_name;
use bulla_storage::files::segment::CreateError;
use bulla_storage::io::Io;
use bulla_storage::{Error, SegmentNumber};

/// The flusher wakes no more often than this.
pub(crate) const SHORTEST_TICK: Duration = Duration::from_micros(100);
/// How long the flusher waits for more to do: to start it takes longer than to wake it.
const LINGER: Duration = Duration::from_secs(1);

/// Gives both threads their jobs. They start with the first append.
pub(crate) fn employ(
    leadership: &Arc<Leadership>,
    io: &Arc<dyn Io>,
    flush_interval: Duration,
    maker: SpareMaker,
) {
    let published = leadership.published();
    {
        let (leadership, io) = (Arc::clone(leadership), Arc::clone(io));
        let tick = (flush_interval / 2).max(SHORTEST_TICK);
        published.flusher.employ(move |worker| run_flusher(&leadership, worker, io.as_ref(), tick));
    }
    let leadership = Arc::clone(leadership);
    published.spare_maker.employ(move |worker| run_spare_maker(&leadership, worker, &maker));
}

/// Keeps the time bounds, and does what async waiters and durable marks need; sleeps when there
/// is nothing to do, and ends when that lasts.
fn run_flusher(leadership: &Leadership, worker: &Worker, io: &dyn Io, tick: Duration) {
    let published = leadership.published();
    let mut deadline = Some(0);
    while !published.is_stopped() {
        // Those that an append has left to us.
        published.waiters.wake_async_waiters();
        if published.is_poisoned() {
            if !worker.sleep(Some(LINGER)) && worker.end() {
                return;
            }
            continue;
        }
        // A leader keeps the bounds itself. To stand in its way would cost a lone writer a
        // hand-over; only a bound that is due is worth that.
        let is_due = deadline.is_none_or(|at_ns| at_ns <= io.now_ns());
        let leader = if is_due { Some(leadership.lead()) } else { leadership.try_lead() };
        let Some(mut leader) = leader else {
            worker.sleep(Some(tick));
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
            _ if busy => {
                worker.sleep(Some(tick));
            }
            Some(at_ns) => {
                let left = Duration::from_nanos(at_ns.saturating_sub(io.now_ns()));
                worker.sleep(Some(left.min(tick)));
            }
            // The next append wakes us, or starts another one of us.
            None if asleep && !worker.sleep(Some(LINGER)) => {
                published.ring.give_memory_back();
                if worker.end() {
                    return;
                }
            }
            None => {}
        }
    }
}

fn panicked(number: SegmentNumber) -> Error {
    Error::io("make", segment_name(number))(std::io::Error::other("it panicked"))
}

/// Makes spare segments and the ring's memory, so that nobody waits for them.
fn run_spare_maker(leadership: &Leadership, worker: &Worker, maker: &SpareMaker) {
    let published = leadership.published();
    while !published.is_stopped() {
        match published.take_spare_request() {
            None => {
                // It is needed once for a segment: then to start it takes no time that counts.
                if !published.ring.populate_next() && worker.end() {
                    return;
                }
            }
            Some(request) => {
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
