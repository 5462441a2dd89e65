//! Bounded little-endian reading and writing of stored values. Every decoder of foreign bytes goes through
//! `Reader`, which checks each length before anything is allocated. Knows nothing of what is stored.
#![deny(clippy::indexing_slicing)]

use crate::error::Error;
use bytes::Bytes;
use std::fmt;

#[cfg(test)]
mod tests;

/// Why bytes could not be decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// The bytes end before the value does.
    Short,
    /// A value is outside its range, named by the field.
    Invalid(&'static str),
    /// The version is newer than this program.
    Newer {
        /// Newest version that this program knows.
        known: u16,
        /// Version found.
        found: u16,
    },
    /// The checksum does not fit the bytes.
    Sum,
    /// Bytes are left over behind the value.
    Trailing,
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Short => f.write_str("the bytes end too early"),
            Self::Invalid(field) => write!(f, "{field} is out of range"),
            Self::Newer { known, found } => {
                write!(f, "format version {found} is newer than {known}, which this program knows")
            }
            Self::Sum => f.write_str("the checksum does not fit"),
            Self::Trailing => f.write_str("bytes are left over"),
        }
    }
}

impl std::error::Error for FormatError {}

impl From<FormatError> for Error {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Newer { .. } => Self::refused(error.to_string()),
            FormatError::Short
            | FormatError::Invalid(_)
            | FormatError::Sum
            | FormatError::Trailing => Self::corrupt(error.to_string()),
        }
    }
}

/// Result of decoding.
pub type Decoded<T> = Result<T, FormatError>;

/// Reads fixed-width little-endian values from the front of a byte slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub const fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(FormatError::Short)?;
        self.rest = tail;
        Ok(head)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Short)?;
        self.rest = tail;
        Ok(*head)
    }

    /// An unsigned byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// A 16-bit value.
    pub fn u16(&mut self) -> Decoded<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    /// A 32-bit value.
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A 64-bit value.
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// A signed 64-bit value.
    pub fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// A flag: 0 or 1.
    pub fn flag(&mut self, field: &'static str) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FormatError::Invalid(field)),
        }
    }

    /// Bytes behind a 32-bit length of at most `most`.
    pub fn bytes(&mut self, most: usize, field: &'static str) -> Decoded<&'a [u8]> {
        let count = usize::try_from(self.u32()?).map_err(|_e| FormatError::Invalid(field))?;
        if count > most {
            return Err(FormatError::Invalid(field));
        }
        self.take(count)
    }

    /// Bytes behind a 32-bit length of at most `most`, copied.
    pub fn owned(&mut self, most: usize, field: &'static str) -> Decoded<Bytes> {
        Ok(Bytes::copy_from_slice(self.bytes(most, field)?))
    }

    /// A 32-bit count of things that each take at least `each_bytes`: a count that the remaining bytes cannot
    /// hold is refused before anyone allocates for it.
    pub fn count(&mut self, each_bytes: usize, field: &'static str) -> Decoded<usize> {
        let count = usize::try_from(self.u32()?).map_err(|_e| FormatError::Invalid(field))?;
        if count.checked_mul(each_bytes.max(1)).is_none_or(|needed| needed > self.rest.len()) {
            return Err(FormatError::Invalid(field));
        }
        Ok(count)
    }

    /// Ends reading; an error if bytes are left.
    pub const fn finish(self) -> Decoded<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(FormatError::Trailing) }
    }
}

/// Appends fixed-width little-endian values to a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: Vec::new() }
    }

    /// An empty buffer with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self { bytes: Vec::with_capacity(capacity) }
    }

    /// An unsigned byte.
    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// A 16-bit value.
    pub fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A 32-bit value.
    pub fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A 64-bit value.
    pub fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A signed 64-bit value.
    pub fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// A flag.
    pub fn flag(&mut self, value: bool) {
        self.bytes.push(u8::from(value));
    }

    /// Bytes as they are.
    pub fn raw(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Bytes behind a 32-bit length.
    pub fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.raw(value);
    }

    /// A 32-bit count.
    pub fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("every stored list is bounded far below 2^32"));
    }

    /// Zeros up to `length` bytes in all.
    pub fn pad_to(&mut self, length: usize) {
        debug_assert!(self.bytes.len() <= length);
        self.bytes.resize(length, 0);
    }

    /// Bytes written so far.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of bytes written so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The buffer.
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}
