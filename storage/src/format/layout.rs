//! How a structure of the format is described: its fields, offsets and sizes.
//!
//! `docs/FORMAT.md` describes the bytes for people; `storage/tests/format_doc.rs` compares
//! that description with the table in `tables.rs`, so that it cannot drift from the structs.
//! Each struct has its row beside it, made by `structure!`, which does not compile if a field
//! is missing.

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
