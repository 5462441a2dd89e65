//! Redundancy classes: the named policy of a directory. Knows no disk and no file.
//!
//! # Stored form, version 1
//!
//! | offset | width | name | meaning |
//! |---|---|---|---|
//! | 0 | 1 | version | 1 |
//! | 1 | 1 | kind | 1: whole copies, 2: Reed-Solomon |
//! | 2 | 1 | k | data shards |
//! | 3 | 1 | m | parity shards |
//! | 4 | 1 | compression | 0: none, 1: zstd |
//! | 5 | 1 | level | of zstd, else 0 |
//! | 6 | 4 | cell | full cell size in bytes |
//! | 10 | 1 | rule | placement: 0 ring, 1 random, 2 round-robin, 3 local-first |
//! | 11 | 1 | avoid_bytes | length of the next, at most 16 |
//! | 12 | avoid_bytes | avoid | tag of disks that are not used |
//! | | 1 | apart_bytes | length of the next, at most 16 |
//! | | apart_bytes | apart | key of tags: disks with one value are kept apart |
#![deny(clippy::indexing_slicing)]

use crate::config::labels::TAG_BYTES_MAX;
use crate::erasure::Scheme;
use crate::error::Error;
use crate::format::{Decoded, FormatError, Reader, Writer};
use crate::limits::{CELL_BYTES, FRAME_ALIGN_BYTES};
use crate::placement::Wanted;
use crate::placement::policy::Policy;
use std::fmt;
use std::ops::RangeInclusive;

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "a test may panic")]
mod tests;

/// Version of the stored form.
const FORMAT: u8 = 1;
/// Level of `zstd` without a number: the library's own default.
const ZSTD_LEVEL: i8 = 3;
/// Levels that need no more than a few MiB of working space.
const ZSTD_LEVELS: RangeInclusive<i8> = 1..=19;

/// How segments are compressed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Compression {
    /// Stored as they are.
    None,
    /// zstd at this level (1..=19), kept where it saves at least an eighth.
    Zstd(i8),
}

/// A redundancy class. Its text form, for the CLI and the xattr `user.ironfs.class`, is the scheme followed by
/// options: `4+2`, `replica:3`, `6+3,zstd`, `4+2,zstd:9`, `4+2,cell:16448`, `4+2,place:round-robin`,
/// `4+2,avoid:smr,apart:psu`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Class {
    /// Redundancy.
    pub scheme: Scheme,
    /// Compression.
    pub compression: Compression,
    /// Full cell size in bytes, a multiple of 64.
    pub cell_bytes: u32,
    /// Which disks take its stripes.
    pub placement: Policy,
}

impl Class {
    /// Most bytes of the stored form.
    pub const STORED_BYTES_MAX: usize = 13 + 2 * TAG_BYTES_MAX;

    /// A class of this scheme with everything else at its default: no compression, cells of one raw frame, the ring.
    pub const fn new(scheme: Scheme) -> Self {
        let (compression, placement) = (Compression::None, Policy::RING);
        Self { scheme, compression, cell_bytes: CELL_BYTES, placement }
    }

    /// What its stripes ask of a placement, on the node `here`.
    pub fn wanted(&self, here: &str) -> Wanted {
        let Self { scheme, placement: policy, .. } = *self;
        Wanted { n: scheme.n(), m: scheme.m(), policy, here: here.to_owned() }
    }

    /// Itself, if all its parts are within their limits. Error: `Refused`, a sentence for the user.
    pub fn validate(self) -> Result<Self, Error> {
        self.scheme.validate()?;
        match self.compression {
            Compression::Zstd(level) if !ZSTD_LEVELS.contains(&level) => Err(bad_level(&level)),
            _ if !is_cell(self.cell_bytes) => Err(bad_cell(&self.cell_bytes)),
            Compression::None | Compression::Zstd(_) => Ok(self),
        }
    }

    /// Appends the stored form.
    pub fn encode(&self, writer: &mut Writer) {
        let kind = match self.scheme {
            Scheme::Replica(_) => 1,
            Scheme::ReedSolomon { .. } => 2,
        };
        let (compression, level) = match self.compression {
            Compression::None => (0, 0),
            Compression::Zstd(level) => (1, level.cast_unsigned()),
        };
        writer.u8(FORMAT);
        writer.u8(kind);
        writer.u8(self.scheme.k());
        writer.u8(self.scheme.m());
        writer.u8(compression);
        writer.u8(level);
        writer.u32(self.cell_bytes);
        self.placement.encode(writer);
    }

    /// Reads the stored form.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        match reader.u8()? {
            FORMAT => {}
            0 => return Err(FormatError::Invalid("version of a class")),
            found => {
                return Err(FormatError::Newer {
                    known: u16::from(FORMAT),
                    found: u16::from(found),
                });
            }
        }
        let scheme = match (reader.u8()?, reader.u8()?, reader.u8()?) {
            (1, 1, m) => m.checked_add(1).map(Scheme::Replica),
            (2, k, m) => Some(Scheme::ReedSolomon { k, m }),
            _ => None,
        };
        let scheme = scheme.ok_or(FormatError::Invalid("scheme of a class"))?;
        let compression = match (reader.u8()?, reader.u8()?) {
            (0, 0) => Compression::None,
            (1, level) => Compression::Zstd(level.cast_signed()),
            _ => return Err(FormatError::Invalid("compression of a class")),
        };
        let cell_bytes = reader.u32()?;
        let placement = Policy::decode(reader)?;
        let class = Self { scheme, compression, cell_bytes, placement };
        class.validate().map_err(|_sentence| FormatError::Invalid("value of a class"))
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.scheme)?;
        match self.compression {
            Compression::None => {}
            Compression::Zstd(ZSTD_LEVEL) => f.write_str(",zstd")?,
            Compression::Zstd(level) => write!(f, ",zstd:{level}")?,
        }
        if self.cell_bytes != CELL_BYTES {
            write!(f, ",cell:{}", self.cell_bytes)?;
        }
        self.placement.fmt(f)
    }
}

impl std::str::FromStr for Class {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut parts = text.split(',');
        let mut class = Self::new(parts.next().unwrap_or_default().parse()?);
        let mut seen = Vec::new();
        for option in parts {
            let (name, value) = match option.split_once(':') {
                Some((name, value)) => (name, Some(value)),
                None => (option, None),
            };
            // `none` and `zstd` answer the same question.
            let question = if name == "none" { "zstd" } else { name };
            if seen.contains(&question) {
                return Err(Error::refused(format!("{text:?} says {question} more than once")));
            }
            seen.push(question);
            match (name, value) {
                ("none", None) => class.compression = Compression::None,
                ("zstd", None) => class.compression = Compression::Zstd(ZSTD_LEVEL),
                ("zstd", Some(level)) => {
                    let level = number(level).ok_or_else(|| bad_level(&level))?;
                    class.compression = Compression::Zstd(level);
                }
                ("cell", Some(bytes)) => {
                    class.cell_bytes = number(bytes).ok_or_else(|| bad_cell(&bytes))?;
                }
                (name, Some(value)) if class.placement.set(name, value)? => {}
                _ => return Err(bad_option(option)),
            }
        }
        class.validate()
    }
}

/// A number of digits only: `parse` alone would take a sign.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    digits.parse().ok().filter(|_number| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_cell(bytes: u32) -> bool {
    (FRAME_ALIGN_BYTES..=CELL_BYTES).contains(&bytes) && bytes.is_multiple_of(FRAME_ALIGN_BYTES)
}

fn bad_option(option: &str) -> Error {
    Error::refused(format!(
        "{option:?} is no option of a class: there are none, zstd, zstd:LEVEL, cell:BYTES, place:RULE, avoid:TAG \
         and apart:KEY, behind the scheme and a comma, such as 4+2,zstd:9"
    ))
}

fn bad_level(level: &dyn fmt::Display) -> Error {
    let (low, high) = (ZSTD_LEVELS.start(), ZSTD_LEVELS.end());
    Error::refused(format!("zstd level {level} is not one of {low} to {high}"))
}

fn bad_cell(bytes: &dyn fmt::Display) -> Error {
    Error::refused(format!(
        "cell size {bytes} is not a multiple of {FRAME_ALIGN_BYTES} up to {CELL_BYTES}"
    ))
}
