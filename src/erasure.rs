//! Redundancy schemes and their coders: k data cells in, m parity cells out, and back. Pure arithmetic.
#![warn(missing_docs)]

use crate::error::Error;
use crate::limits::{DATA_SHARDS_MAX, FRAME_ALIGN_BYTES, PARITY_SHARDS_MAX};
use crate::types::ShardIndex;
use std::fmt::{self, Debug};
use std::sync::Arc;

mod gf;
mod matrix;
mod replica;
mod rs;
mod simd;
#[cfg(test)]
mod tests;

/// How the payload of a stripe is made redundant. `k` data and `m` parity shards, n = k + m.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scheme {
    /// N whole copies: k = 1, m = N - 1. `replica:N`, 1 <= N <= 17.
    Replica(u8),
    /// Reed-Solomon `k+m`, 1 <= k <= 32, 1 <= m <= 16.
    ReedSolomon {
        /// Data shards.
        k: u8,
        /// Parity shards.
        m: u8,
    },
}

impl Scheme {
    /// Data shards.
    pub const fn k(self) -> u8 {
        match self {
            Self::Replica(_) => 1,
            Self::ReedSolomon { k, .. } => k,
        }
    }

    /// Parity shards; also how many losses the scheme always survives.
    pub const fn m(self) -> u8 {
        match self {
            Self::Replica(copies) => copies.saturating_sub(1),
            Self::ReedSolomon { m, .. } => m,
        }
    }

    /// All shards.
    pub const fn n(self) -> u8 {
        self.k() + self.m()
    }

    /// Itself, if its counts are within the limits. Error: `Refused`, a sentence for the user.
    pub fn validate(self) -> Result<Self, Error> {
        let good = match self {
            Self::Replica(copies) => (1..=PARITY_SHARDS_MAX + 1).contains(&copies),
            Self::ReedSolomon { k, m } => {
                (1..=DATA_SHARDS_MAX).contains(&k) && (1..=PARITY_SHARDS_MAX).contains(&m)
            }
        };
        if good { Ok(self) } else { Err(bad_scheme(&self.to_string())) }
    }
}

/// The text form: `4+2`, `replica:3`.
impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replica(copies) => write!(f, "replica:{copies}"),
            Self::ReedSolomon { k, m } => write!(f, "{k}+{m}"),
        }
    }
}

impl std::str::FromStr for Scheme {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let scheme = if let Some(copies) = text.strip_prefix("replica:") {
            count(copies).map(Self::Replica)
        } else {
            text.split_once('+')
                .and_then(|(k, m)| Some(Self::ReedSolomon { k: count(k)?, m: count(m)? }))
        };
        scheme.ok_or_else(|| bad_scheme(text))?.validate()
    }
}

/// A number as `Display` writes it: digits without a leading zero.
fn count(digits: &str) -> Option<u8> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_number| plain)
}

fn bad_scheme(text: &str) -> Error {
    Error::refused(format!(
        "{text:?} is no redundancy scheme: it is K+M with 1 to {DATA_SHARDS_MAX} data and 1 to \
         {PARITY_SHARDS_MAX} parity shards, such as 4+2, or replica:N with 1 to {} copies",
        PARITY_SHARDS_MAX + 1
    ))
}

/// Too few good cells to reconstruct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFewCells {
    /// Cells needed.
    pub needed: u8,
    /// Good cells given.
    pub found: u8,
}

impl fmt::Display for TooFewCells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "too few good cells: expected {}, found {}", self.needed, self.found)
    }
}

impl std::error::Error for TooFewCells {}

/// Arithmetic of one scheme. All cells of a call have one length, a multiple of 64 and not 0; a call that breaks
/// this, or that names a shard beyond n, is a programmer's error and panics.
pub trait ErasureCoder: Send + Sync + Debug {
    /// The scheme.
    fn scheme(&self) -> Scheme;
    /// Fills the m `parity` cells from the k `data` cells.
    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]);
    /// The cells `wanted`, in that order, from the good ones: `cells` has n entries, `None` is missing.
    fn reconstruct(
        &self,
        cells: &[Option<&[u8]>],
        wanted: &[ShardIndex],
    ) -> Result<Vec<Vec<u8>>, TooFewCells>;
    /// Which shards to fetch to get `wanted`, when bit i of `available` says that shard i may be had: the wanted
    /// ones themselves if all are there, else enough to reconstruct. `None` if that is impossible.
    fn plan(&self, available: u64, wanted: &[ShardIndex]) -> Option<Vec<ShardIndex>>;
}

/// The coder of a valid scheme. Cheap: what is expensive to make is kept per thread.
pub fn coder(scheme: Scheme) -> Arc<dyn ErasureCoder> {
    match scheme {
        Scheme::Replica(_) => Arc::new(replica::Replica::new(scheme)),
        Scheme::ReedSolomon { .. } => Arc::new(rs::ReedSolomon::new(scheme)),
    }
}

/// The sources for `wanted` where any k shards give all others: the wanted ones that are there come first, then data
/// before parity, as many as needed, in order of their indexes.
fn plan_any_k(scheme: Scheme, available: u64, wanted: &[ShardIndex]) -> Option<Vec<ShardIndex>> {
    let there = |shard: &ShardIndex| available >> shard.0 & 1 == 1;
    if wanted.iter().all(there) {
        return Some(wanted.to_vec());
    }
    let needed = usize::from(scheme.k());
    let mut sources: Vec<_> = wanted.iter().copied().filter(there).collect();
    sources.sort_unstable();
    sources.dedup();
    for shard in (0..scheme.n()).map(ShardIndex).filter(there) {
        if sources.len() < needed && !sources.contains(&shard) {
            sources.push(shard);
        }
    }
    sources.sort_unstable();
    (sources.len() >= needed).then_some(sources)
}

/// Length of the cells, checked against the contract of `ErasureCoder`.
fn common_length<'a>(cells: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let mut lengths = cells.into_iter().map(<[u8]>::len);
    let first = lengths.next().unwrap_or(0);
    assert!(lengths.all(|length| length == first), "cells of one row have one length");
    let unit = usize::try_from(FRAME_ALIGN_BYTES).expect("64 fits");
    assert!(first > 0 && first.is_multiple_of(unit), "a cell of {first} bytes");
    first
}
