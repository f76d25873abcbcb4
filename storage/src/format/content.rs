//! What the entries of a log are: a name that CONTROL keeps.

use std::fmt;

use super::FormatError;

/// Bytes of a name in CONTROL.
pub(super) const NAME_LEN: usize = 32;

/// What the entries of a log are, as its creator said: CONTROL keeps it for good.
///
/// The program that opens the log for writing says what it expects
/// ([`Options::content`](crate::Options::content)), and is refused if that differs. So a store of
/// other records, or a program that appends lines, can't write to a log that it does not
/// understand.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Content {
    /// Zeros at the end; all zeros stand for plain entries.
    pub(super) name: [u8; NAME_LEN],
    pub(super) version: u32,
    pub(super) schema: u32,
    /// 0 for entries of the name's meaning, [`RECORDS`] for a store of records.
    pub(super) form: u32,
}

const RECORDS: u32 = 1;

impl Content {
    /// Entries that the log's creator said nothing of.
    pub const PLAIN: Self = Self { name: [0; NAME_LEN], version: 0, schema: 0, form: 0 };

    /// Returns the entries of a store of records: as [`new`](Self::new) does of the record type.
    ///
    /// # Panics
    /// As [`new`](Self::new).
    #[must_use]
    pub const fn records(name: &str, version: u32, schema: u32) -> Self {
        Self { form: RECORDS, ..Self::new(name, version, schema) }
    }

    /// Returns content of this name, at most 32 characters of printable ASCII without spaces; of
    /// this version, at least 1; and with this checksum of what describes it, if anything does.
    ///
    /// # Panics
    /// When name or version are none. In a constant that is an error of the compiler.
    #[must_use]
    pub const fn new(name: &str, version: u32, schema: u32) -> Self {
        let bytes = name.as_bytes();
        assert!(!bytes.is_empty() && bytes.len() <= NAME_LEN, "a name has 1 to 32 characters");
        assert!(version > 0, "versions begin with 1");
        let mut content = Self { name: [0; NAME_LEN], version, schema, form: 0 };
        content.name.split_at_mut(bytes.len()).0.copy_from_slice(bytes);
        assert!(content.has_name(), "a name is of printable ASCII characters without spaces");
        content
    }

    /// Returns content as CONTROL says it.
    pub(super) fn decode(
        name: [u8; NAME_LEN],
        (version, schema, form): (u32, u32, u32),
    ) -> Result<Self, FormatError> {
        let content = Self { name, version, schema, form };
        let is_named = content.has_name() && version > 0 && form <= RECORDS;
        if content == Self::PLAIN || is_named {
            Ok(content)
        } else {
            Err(FormatError::Field("content"))
        }
    }

    /// Returns the name; empty for [`PLAIN`](Self::PLAIN).
    #[must_use]
    pub fn name(&self) -> &str {
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(NAME_LEN);
        let name = self.name.get(..len).unwrap_or_default();
        // It is of ASCII characters.
        str::from_utf8(name).unwrap_or_default()
    }

    /// Returns the version; 0 for [`PLAIN`](Self::PLAIN).
    #[must_use]
    pub const fn version(&self) -> u32 {
        self.version
    }

    /// Returns the checksum of what describes it.
    #[must_use]
    pub const fn schema(&self) -> u32 {
        self.schema
    }

    /// Returns whether the log is that of a store.
    #[must_use]
    pub const fn is_of_store(&self) -> bool {
        self.form == RECORDS
    }

    /// Returns whether there is a name, and nothing behind it.
    const fn has_name(&self) -> bool {
        let mut rest: &[u8] = &self.name;
        let mut len = 0;
        while let [byte, after @ ..] = rest
            && byte.is_ascii_graphic()
        {
            (rest, len) = (after, len + 1);
        }
        while let [0, after @ ..] = rest {
            rest = after;
        }
        len > 0 && rest.is_empty()
    }
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::PLAIN {
            return f.write_str("plain entries");
        }
        if self.is_of_store() {
            f.write_str("records of ")?;
        }
        write!(f, "{} version {}", self.name(), self.version)?;
        if self.schema != 0 {
            write!(f, " (schema {:08x})", self.schema)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_printable_and_fills_its_place_from_the_front() {
        let content = Content::new("example.com/account", 3, 7);
        let Content { name, version, schema, form } = content;
        assert_eq!(Content::decode(name, (version, schema, form)), Ok(content));
        let records = Content::records("account", 1, 0);
        assert_eq!(records.to_string(), "records of account version 1");
        assert!(records.is_of_store() && !content.is_of_store());
        assert_eq!(Content::decode(records.name, (1, 0, 1)), Ok(records));
        assert_eq!(content.to_string(), "example.com/account version 3 (schema 00000007)");
        assert_eq!(Content::new(&"n".repeat(32), 1, 0).name().len(), 32);
        assert_eq!(Content::decode([0; 32], (0, 0, 0)), Ok(Content::PLAIN));
        assert_eq!(
            (Content::PLAIN.name(), Content::PLAIN.to_string()),
            ("", "plain entries".into())
        );
        let named = |text: &[u8]| {
            let mut name = [0; 32];
            name.split_at_mut(text.len()).0.copy_from_slice(text);
            name
        };
        for (name, version) in
            [(&b"a b"[..], 1), (b"a\0b", 1), (b"\0a", 1), (b"\x80", 1), (b"account", 0), (b"", 1)]
        {
            let refused = Content::decode(named(name), (version, 0, 0));
            assert_eq!(refused, Err(FormatError::Field("content")), "{name:?}");
        }
        assert!(Content::decode([0; 32], (0, 1, 0)).is_err());
        assert!(Content::decode([0; 32], (0, 0, 1)).is_err());
        assert!(Content::decode(named(b"a"), (1, 0, 2)).is_err());
    }
}
