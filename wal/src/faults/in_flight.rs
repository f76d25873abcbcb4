//! Requests and completions that are changed on their way: writes to wrong places, errors and
//! short counts that are not seen, a sync that is tried again.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::commit::core::Op;
use crate::commit::in_flight;
use bulla_storage::faults::failpoints::{Failpoint, skip};
use bulla_storage::faults::mutants::{Mutant, planted};
use bulla_storage::io::{Completion, File, Queue, Request};

#[derive(Debug)]
pub(crate) struct InFlight {
    in_flight: in_flight::InFlight,
    /// Where the writes in flight began.
    writes: BTreeMap<Op, u64>,
    /// The syncs in flight.
    syncs: BTreeMap<Op, Arc<dyn File>>,
    /// The segments that were written to, how far, and by how much their writes are displaced.
    segments: Vec<(Arc<dyn File>, u64, u64)>,
    /// A failed sync was tried again.
    retried: bool,
}

impl InFlight {
    pub(crate) fn new(queue: Box<dyn Queue>) -> Self {
        Self {
            in_flight: in_flight::InFlight::new(queue),
            writes: BTreeMap::new(),
            syncs: BTreeMap::new(),
            segments: Vec::new(),
            retried: false,
        }
    }

    pub(crate) fn submit(&mut self, op: Op, mut request: Request) {
        match &mut request {
            Request::Sync { file } => {
                self.syncs.insert(op, Arc::clone(file));
            }
            Request::Write { file, offset, bytes, .. } => {
                let begin = *self.writes.entry(op).or_insert(*offset);
                if planted(Mutant::ShortWriteStaysPut) {
                    *offset = begin;
                }
                if planted(Mutant::RotationKeepsBase) {
                    *offset += self.displacement(file, *offset + bytes.len() as u64);
                }
            }
        }
        self.in_flight.submit(op, request);
    }

    /// Returns how many bytes lie in the segments before that of `file`, which is written up to
    /// `end`.
    fn displacement(&mut self, file: &Arc<dyn File>, end: u64) -> u64 {
        let is_known = |(known, ..): &(Arc<dyn File>, u64, u64)| {
            std::ptr::addr_eq(Arc::as_ptr(known), Arc::as_ptr(file))
        };
        if !self.segments.iter().any(is_known) {
            let before = self.segments.last().map_or(0, |(_, written, before)| written + before);
            self.segments.push((Arc::clone(file), 0, before));
        }
        let segment = self.segments.iter_mut().find(|segment| is_known(segment));
        let (_, written, before) = segment.expect("it was added, if need be");
        *written = end.max(*written);
        *before
    }

    pub(crate) fn complete(&mut self, wait: bool) -> Option<Completion> {
        let completion = self.in_flight.complete(wait)?;
        Some(self.change(completion))
    }

    pub(crate) fn returned(&mut self, completion: Completion) -> Completion {
        let completion = self.in_flight.returned(completion);
        self.change(completion)
    }

    fn change(&mut self, Completion { ticket, result }: Completion) -> Completion {
        /// As many bytes as there are.
        const ALL: u64 = u64::MAX;
        let op = Op(ticket.0);
        let result = match (self.syncs.remove(&op), result) {
            (Some(_), Err(_)) if skip(Failpoint::SyncErrorCheck) => Ok(0),
            (Some(file), Err(_)) if skip(Failpoint::PoisonLatch) && !self.retried => {
                self.retried = true;
                file.sync().map(|()| 0)
            }
            (None, Err(_)) if skip(Failpoint::WriteErrorCheck) => Ok(ALL),
            (None, Ok(_)) if skip(Failpoint::WriteShortCheck) => Ok(ALL),
            (_, result) => result,
        };
        self.forget_writes_before(op);
        Completion { ticket, result }
    }

    /// Keeps the memory bounded: a write that long ago has completed.
    fn forget_writes_before(&mut self, op: Op) {
        const MOST: u64 = 1024;
        while self.writes.first_key_value().is_some_and(|(first, _)| first.0 + MOST < op.0) {
            self.writes.pop_first();
        }
    }
}

impl Deref for InFlight {
    type Target = in_flight::InFlight;

    fn deref(&self) -> &Self::Target {
        &self.in_flight
    }
}

impl DerefMut for InFlight {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.in_flight
    }
}
