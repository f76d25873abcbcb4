//! The structures and constants of the format as tables, for documents and their tests.

use super::{
    ENTRY_ALIGN, FIRST_INTERNAL_KIND, MAX_FRAME_LEN, MAX_SECTOR, MAX_START, MIN_SECTOR,
    SLOT_STRIDE, VERSION, control, entry, frame, hold, layout::Structure, manifest, repair,
    segment,
};

/// Every structure of the format.
pub const STRUCTURES: [Structure; 12] = [
    control::CONTROL_SLOT,
    segment::SEGMENT_HEADER,
    segment::OPENING_HEADER,
    segment::EPOCH_CUT,
    frame::FRAME_HEADER,
    entry::ENTRY_HEADER,
    hold::HOLD_FILE,
    manifest::MANIFEST_HEADER,
    manifest::SEGMENT_PART,
    manifest::CHECKPOINT_PART,
    repair::REPAIR_HEADER,
    repair::REPAIR_PART,
];

/// The numbers that the format fixes.
pub const CONSTANTS: [(&str, u64); 8] = [
    ("VERSION", VERSION as u64),
    ("MIN_SECTOR", MIN_SECTOR as u64),
    ("MAX_SECTOR", MAX_SECTOR as u64),
    ("SLOT_STRIDE", SLOT_STRIDE),
    ("MAX_FRAME_LEN", MAX_FRAME_LEN),
    ("MAX_START", MAX_START),
    ("ENTRY_ALIGN", ENTRY_ALIGN),
    ("FIRST_INTERNAL_KIND", FIRST_INTERNAL_KIND as u64),
];
