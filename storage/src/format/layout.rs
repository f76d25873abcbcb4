//! The structures of the format as a table: their fields, offsets and sizes.
//!
//! `docs/FORMAT.md` describes the bytes for people; `storage/tests/format_doc.rs` compares
//! that description with this table, so that it cannot drift from the structs. Each struct
//! has its row beside it, made by `structure!`, which does not compile if a field is missing.

use super::{
    ENTRY_ALIGN, FIRST_INTERNAL_KIND, MAX_FRAME_LEN, MAX_SECTOR, MAX_START, MIN_SECTOR,
    SLOT_STRIDE, VERSION, control, entry, frame, segment,
};

/// One structure of the format.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// The struct's name.
    pub name: &'static str,
    /// Bytes on disk.
    pub len: usize,
    /// The name, offset and size in bytes of every field, in order.
    pub fields: &'static [(&'static str, usize, usize)],
}

/// Every structure of the format.
pub const STRUCTURES: [Structure; 6] = [
    control::CONTROL_SLOT,
    segment::SEGMENT_HEADER,
    segment::OPENING_HEADER,
    segment::EPOCH_CUT,
    frame::FRAME_HEADER,
    entry::ENTRY_HEADER,
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

/// Describes a struct by all of its fields.
macro_rules! structure {
    ($name:ident { $($field:ident),* $(,)? }) => {{
        // Names every field, so that leaving one out is an error.
        const _: fn($name) = |$name { $($field: _),* }| ();
        $crate::format::layout::Structure {
            name: stringify!($name),
            len: ::std::mem::size_of::<$name>(),
            fields: &[$((
                stringify!($field),
                ::std::mem::offset_of!($name, $field),
                $crate::format::layout::field_len::<$name, _>(|structure| &structure.$field),
            )),*],
        }
    }};
}
pub(super) use structure;

/// Returns the size in bytes of the field that the function borrows.
pub(super) const fn field_len<S, T>(_: fn(&S) -> &T) -> usize {
    size_of::<T>()
}
