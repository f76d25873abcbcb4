//! Spares with a wrong number, or a wrong header.

use std::sync::Arc;

use crate::commit::spare::{self, ReadySegment, SpareRequest};
use bulla_storage::faults::mutants::{Mutant, either, planted};
use bulla_storage::files::dir::Directory;
use bulla_storage::files::segment::CreateError;
use bulla_storage::format::Header;
use bulla_storage::io::Io;

#[derive(Clone, Debug)]
pub(crate) struct SpareMaker(spare::SpareMaker);

impl SpareMaker {
    pub(crate) fn new(
        io: Arc<dyn Io>,
        dir: Directory,
        epoch_start: &Header,
        len: u64,
        direct: bool,
    ) -> Self {
        let mut maker = spare::SpareMaker::new(io, dir, epoch_start, len, direct);
        if planted(Mutant::SpareForgetsPredecessor) {
            maker.header.previous_nonce = 0;
        }
        Self(maker)
    }

    pub(crate) fn make(
        &self,
        request: SpareRequest,
        is_wanted: &dyn Fn() -> bool,
    ) -> Result<ReadySegment, CreateError> {
        let SpareRequest { number, zeroed } = request;
        let number = either(number, Mutant::SpareSkipsNumber, number.next());
        self.0.make(SpareRequest { number, zeroed }, is_wanted)
    }
}
