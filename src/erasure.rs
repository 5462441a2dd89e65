//! Redundancy schemes and their coders: k data cells in, m parity cells out, and back. Pure arithmetic.
#![warn(missing_docs)]

pub mod replica;
pub mod rs;

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

use crate::types::ShardIndex;
use std::fmt::Debug;
use std::sync::Arc;

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
            Self::Replica(copies) => copies - 1,
            Self::ReedSolomon { m, .. } => m,
        }
    }

    /// All shards.
    pub const fn n(self) -> u8 {
        self.k() + self.m()
    }
}

/// Too few good cells to reconstruct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TooFewCells {
    /// Cells needed.
    pub needed: u8,
    /// Good cells given.
    pub found: u8,
}

/// Arithmetic of one scheme. All cells of a call have one length, a multiple of 64.
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

/// The coder of a scheme.
pub fn coder(scheme: Scheme) -> Arc<dyn ErasureCoder> {
    match scheme {
        Scheme::Replica(_) => Arc::new(replica::Replica::new(scheme)),
        Scheme::ReedSolomon { .. } => Arc::new(rs::ReedSolomon::new(scheme)),
    }
}
