//! Whole copies. Knows no arithmetic.

use super::{ErasureCoder, Scheme, TooFewCells, common_length, plan_any_k};
use crate::types::ShardIndex;

/// Coder of `replica:N`.
#[derive(Debug)]
pub(super) struct Replica(Scheme);

impl Replica {
    pub(super) const fn new(scheme: Scheme) -> Self {
        Self(scheme)
    }
}

impl ErasureCoder for Replica {
    fn scheme(&self) -> Scheme {
        self.0
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!((data.len(), parity.len()), (1, usize::from(self.0.m())), "cells of a row");
        for copy in parity {
            copy.copy_from_slice(data[0]);
        }
    }

    fn reconstruct(
        &self,
        cells: &[Option<&[u8]>],
        wanted: &[ShardIndex],
    ) -> Result<Vec<Vec<u8>>, TooFewCells> {
        assert_eq!(cells.len(), usize::from(self.0.n()), "cells of a row");
        assert!(wanted.iter().all(|shard| shard.0 < self.0.n()), "shards beyond n");
        let Some(any) = cells.iter().flatten().next() else {
            return Err(TooFewCells { needed: 1, found: 0 });
        };
        common_length(cells.iter().flatten().copied());
        Ok(wanted.iter().map(|shard| cells[usize::from(shard.0)].unwrap_or(any).to_vec()).collect())
    }

    fn plan(&self, available: u64, wanted: &[ShardIndex]) -> Option<Vec<ShardIndex>> {
        plan_any_k(self.0, available, wanted)
    }
}
