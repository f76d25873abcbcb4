//! The record type of a store: plain records of 64 bytes, each with an id of its own.
//!
//! Owns the contract between the store and a record type. The store knows a record's bytes and
//! what the methods below return, nothing more. [`Token`](crate::Token) is the record type that
//! comes with it.

use std::fmt;
use std::hash::Hash;

use bulla_storage::format::Content;

/// Bytes of a record.
pub const RECORD_LEN: usize = 64;

/// A plain record of 64 bytes with an id.
///
/// A value is always valid: bytes are checked when they become one. `from_bytes` of `as_bytes`
/// returns an equal record with the same id; bytes and id of a value never change.
///
/// Declare an alignment of 8, with a field of 8 bytes or `#[repr(C, align(8))]`: the compiler
/// copies records of bytes alone in odd pieces, which makes gets slower.
///
/// # Examples
/// ```
/// use bulla_engine::{RECORD_LEN, Record};
/// use zerocopy::little_endian::{U32, U64};
/// use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};
///
/// #[derive(Clone, Copy, PartialEq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
/// #[repr(C, align(8))]
/// struct Account {
///     id: U32,
///     currency: [u8; 4],
///     cents: U64,
///     reserved: [u8; 48],
/// }
///
/// impl Record for Account {
///     const NAME: &'static str = "example.com/account";
///     const SCHEMA: &'static str = "id u32, currency [u8; 4], cents u64";
///     type Id = u32;
///     type Invalid = std::convert::Infallible;
///
///     fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
///         Ok(zerocopy::transmute!(*bytes))
///     }
///     fn as_bytes(&self) -> &[u8; RECORD_LEN] {
///         zerocopy::transmute_ref!(self)
///     }
///     fn id(&self) -> u32 {
///         self.id.get()
///     }
/// }
/// ```
pub trait Record: Copy + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// The name of the record type: 1 to 32 characters of printable ASCII without spaces. A store
    /// keeps it, with [`VERSION`](Self::VERSION) and a checksum of [`SCHEMA`](Self::SCHEMA), and
    /// is not opened as one of other records.
    const NAME: &'static str;

    /// The version of what a record's bytes mean, from 1 on.
    const VERSION: u32 = 1;

    /// Describes the bytes, in words or as a declaration: so that a change of it that has no new
    /// version is noticed.
    const SCHEMA: &'static str = "";

    /// Identifies a record in its store; 0 stands for none. Ids are ordered as their numbers.
    type Id: Copy + Ord + Hash + fmt::Debug + Send + Sync + From<u32> + Into<u32>;

    /// Why bytes are not a record.
    type Invalid: std::error::Error + Send + Sync + 'static;

    /// Returns the record with these bytes.
    ///
    /// # Errors
    /// What is wrong with the bytes. The store refuses id 0 itself.
    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid>;

    /// Returns its bytes, as they are logged.
    fn as_bytes(&self) -> &[u8; RECORD_LEN];

    /// Returns its id.
    fn id(&self) -> Self::Id;

    /// Returns its time in seconds since 1970, if it has one: a store refuses one that is too far
    /// ahead, and evicts the oldest first among records of equal weight.
    fn timestamp(&self) -> Option<u32> {
        None
    }

    /// Returns how valuable it is: a full store that may evict evicts the lightest first.
    fn weight(&self) -> f32 {
        0.0
    }

    /// Returns whether it must never be evicted.
    fn is_persistent(&self) -> bool {
        false
    }
}

/// Returns what the log of a store of these records says of its entries.
#[must_use]
pub fn content_of<R: Record>() -> Content {
    let schema = if R::SCHEMA.is_empty() { 0 } else { crc32fast::hash(R::SCHEMA.as_bytes()) };
    Content::records(R::NAME, const { checked_version::<R>() }, schema)
}

/// Returns the version, in a constant that does not compile if name or version are none.
const fn checked_version<R: Record>() -> u32 {
    Content::new(R::NAME, R::VERSION, 0).version()
}
