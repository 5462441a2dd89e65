//! Redundancy classes: the named policy of a directory. Knows no disk and no file.

use crate::erasure::Scheme;

/// How segments are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// zstd at this level (1..=19), kept where it saves at least an eighth.
    Zstd(i8),
}

/// A redundancy class. Its text form, for the CLI and the xattr `user.ironfs.class`, is the scheme followed by
/// options: `4+2`, `replica:3`, `6+3,zstd`, `4+2,zstd:9`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Redundancy.
    pub scheme: Scheme,
    /// Compression.
    pub compression: Compression,
    /// Full cell size in bytes, a multiple of 64.
    pub cell_bytes: u32,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.scheme)
    }
}

impl std::str::FromStr for Class {
    type Err = crate::error::Error;
    fn from_str(_text: &str) -> Result<Self, Self::Err> {
        Err(crate::error::Error::refused("class"))
    }
}
