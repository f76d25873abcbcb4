//! What the tests of the backends and those of the simulated disk share: bytes, and requests.

use std::sync::Arc;

use bulla_storage::io::{AlignedBuf, Completion, File, Queue, Request, RingBytes};

pub(crate) const BLOCK: usize = 4096;

/// Blocks whose bytes all differ from their neighbours'.
pub(crate) fn pattern(blocks: usize, salt: u8) -> AlignedBuf {
    let mut bytes = AlignedBuf::zeroed(blocks * BLOCK);
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::try_from(at % 251).expect("below 251") ^ salt;
    }
    bytes
}

pub(crate) fn write_request(
    file: &Arc<dyn File>,
    offset: u64,
    bytes: &[u8],
    dsync: bool,
) -> Request {
    let bytes = RingBytes::from_heap(AlignedBuf::copy_of(bytes));
    Request::Write { file: Arc::clone(file), offset, bytes, dsync }
}

pub(crate) fn reap(queue: &mut dyn Queue) -> Vec<Completion> {
    std::iter::from_fn(|| queue.complete(true)).collect()
}
