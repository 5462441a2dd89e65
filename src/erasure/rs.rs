//! Reed-Solomon. The only module that knows `reed-solomon-simd`, whose output is pinned by golden vectors: the
//! code of stripes on disk must never change under us.

use super::matrix::{self, Pattern};
use super::simd::Kernel;
use super::{ErasureCoder, Scheme, TooFewCells, common_length, plan_any_k};
use crate::types::ShardIndex;
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};
use std::cell::RefCell;

#[cfg(test)]
mod tests;

thread_local! {
    // Their working space is larger than a row and slow to allocate, so each thread keeps one of each and resets it.
    static ENCODER: RefCell<Option<ReedSolomonEncoder>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<ReedSolomonDecoder>> = const { RefCell::new(None) };
}

/// Why no call of the library can fail here.
const CHECKED: &str = "counts and lengths were checked against the limits";

/// Longest cells that a matrix is faster for than the general decoder where no vector instructions look up its tables.
const PORTABLE_BYTES_MAX: usize = 8 * 1024;

/// Whether cells of `length` are better made by a matrix.
fn prefers_matrix(length: usize) -> bool {
    Kernel::best() != Kernel::Portable || length <= PORTABLE_BYTES_MAX
}

/// Coder of `k+m`.
#[derive(Debug)]
pub(super) struct ReedSolomon {
    scheme: Scheme,
    k: usize,
    m: usize,
}

impl ReedSolomon {
    pub(super) fn new(scheme: Scheme) -> Self {
        Self { scheme, k: usize::from(scheme.k()), m: usize::from(scheme.m()) }
    }

    /// The missing data cells, by index, out of k good cells.
    fn restore(&self, cells: &[Option<&[u8]>], length: usize) -> Vec<(usize, Vec<u8>)> {
        let (data, parity) = cells.split_at(self.k);
        let missing: Vec<_> = (0..self.k).filter(|index| data[*index].is_none()).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        DECODER.with_borrow_mut(|slot| {
            let decoder = match slot {
                Some(decoder) => {
                    decoder.reset(self.k, self.m, length).expect(CHECKED);
                    decoder
                }
                None => {
                    slot.insert(ReedSolomonDecoder::new(self.k, self.m, length).expect(CHECKED))
                }
            };
            for (index, cell) in data.iter().enumerate() {
                if let Some(cell) = cell {
                    decoder.add_original_shard(index, cell).expect(CHECKED);
                }
            }
            let good =
                parity.iter().enumerate().filter_map(|(index, cell)| Some((index, (*cell)?)));
            for (index, cell) in good.take(missing.len()) {
                decoder.add_recovery_shard(index, cell).expect(CHECKED);
            }
            let restored = decoder.decode().expect(CHECKED);
            let cell = |index| restored.restored_original(index).expect(CHECKED).to_vec();
            missing.into_iter().map(|index| (index, cell(index))).collect()
        })
    }

    /// The lost cells, in order of their indexes, out of k good ones, by the general decoder.
    fn decode(&self, cells: &[Option<&[u8]>], lost: u64) -> Vec<Vec<u8>> {
        let length = common_length(cells.iter().flatten().copied());
        let restored = self.restore(cells, length);
        let mut all = cells.to_vec();
        for (index, cell) in &restored {
            all[*index] = Some(cell);
        }
        let mut parity = vec![Vec::new(); self.m];
        if lost >> self.k != 0 {
            let data: Vec<_> = all[..self.k].iter().flatten().copied().collect();
            self.encode_each(&data, |index, cell| parity[index] = cell.to_vec());
        }
        let cell = |index: usize| {
            all[index].map_or_else(|| parity[index - self.k].clone(), <[u8]>::to_vec)
        };
        Pattern::indexes(lost).map(cell).collect()
    }

    /// Hands parity cell after parity cell to `take`.
    fn encode_each(&self, data: &[&[u8]], mut take: impl FnMut(usize, &[u8])) {
        let length = common_length(data.iter().copied());
        ENCODER.with_borrow_mut(|slot| {
            let encoder = match slot {
                Some(encoder) => {
                    encoder.reset(self.k, self.m, length).expect(CHECKED);
                    encoder
                }
                None => {
                    slot.insert(ReedSolomonEncoder::new(self.k, self.m, length).expect(CHECKED))
                }
            };
            for cell in data {
                encoder.add_original_shard(cell).expect(CHECKED);
            }
            let encoded = encoder.encode().expect(CHECKED);
            for (index, cell) in encoded.recovery_iter().enumerate() {
                take(index, cell);
            }
        });
    }
}

impl ErasureCoder for ReedSolomon {
    fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn encode(&self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert_eq!((data.len(), parity.len()), (self.k, self.m), "cells of a row");
        self.encode_each(data, |index, cell| parity[index].copy_from_slice(cell));
    }

    fn reconstruct(
        &self,
        cells: &[Option<&[u8]>],
        wanted: &[ShardIndex],
    ) -> Result<Vec<Vec<u8>>, TooFewCells> {
        assert_eq!(cells.len(), self.k + self.m, "cells of a row");
        assert!(wanted.iter().all(|shard| shard.0 < self.scheme.n()), "shards beyond n");
        let wanted = || wanted.iter().map(|shard| usize::from(shard.0));
        if wanted().all(|index| cells[index].is_some()) {
            return Ok(wanted().filter_map(|index| cells[index]).map(<[u8]>::to_vec).collect());
        }
        let found = cells.iter().flatten().count();
        if found < self.k {
            let found = u8::try_from(found).expect("fewer than k");
            return Err(TooFewCells { needed: self.scheme.k(), found });
        }
        let length = common_length(cells.iter().flatten().copied());
        let here = cells.iter().map(Option::is_some);
        let here = here.enumerate().fold(0, |mask, (index, here)| mask | u64::from(here) << index);
        let lost = wanted().fold(0, |mask, index| mask | 1 << index) & !here;
        let made = if prefers_matrix(length) {
            let sources =
                Pattern::indexes(here).take(self.k).fold(0, |mask, index| mask | 1 << index);
            let used: Vec<_> = Pattern::indexes(sources).filter_map(|index| cells[index]).collect();
            let pattern = Pattern { scheme: self.scheme, sources, lost };
            matrix::product(pattern, |units| self.decode(units, lost)).apply(&used)
        } else {
            self.decode(cells, lost)
        };
        if wanted().eq(Pattern::indexes(lost)) {
            // What everybody asks for: no copy.
            return Ok(made);
        }
        let place = |index: usize| (lost & ((1 << index) - 1)).count_ones() as usize;
        let cell =
            |index: usize| cells[index].map_or_else(|| made[place(index)].clone(), <[u8]>::to_vec);
        Ok(wanted().map(cell).collect())
    }

    fn plan(&self, available: u64, wanted: &[ShardIndex]) -> Option<Vec<ShardIndex>> {
        plan_any_k(self.scheme, available, wanted)
    }
}
