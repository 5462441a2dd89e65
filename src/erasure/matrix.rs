//! Matrices that turn k good cells into lost ones, one for each pattern of losses, made once and kept. Knows nothing of
//! how the code is defined: what the general decoder makes of unit vectors is the matrix.

use super::Scheme;
use super::gf::{BLOCK_BYTES, Map, units};
use super::simd::{Kernel, Product};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::{Arc, LazyLock};

/// Most bytes that kept matrices take: the 129 patterns of 6+3 take 0.3 MiB.
const CACHE_BYTES: u64 = 8 << 20;
/// What a matrix takes beside its tables.
const ENTRY_BYTES: u64 = 256;
/// Patterns that are expected: for the size of the table.
const USUAL_PATTERNS: usize = 256;

/// A pattern: which cells are used (bit i is shard i), and which are to be made of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Pattern {
    /// The scheme.
    pub(super) scheme: Scheme,
    /// The k cells that are there.
    pub(super) sources: u64,
    /// The cells to make.
    pub(super) lost: u64,
}

impl Pattern {
    /// Indexes of the cells with bits in `mask`.
    pub(super) fn indexes(mask: u64) -> impl Iterator<Item = usize> {
        (0..64).filter(move |index| mask >> index & 1 == 1)
    }
}

#[derive(Clone)]
struct ByTables;

impl Weighter<Pattern, Arc<Product>> for ByTables {
    fn weight(&self, _pattern: &Pattern, product: &Arc<Product>) -> u64 {
        ENTRY_BYTES + product.bytes() as u64
    }
}

static PRODUCTS: LazyLock<Cache<Pattern, Arc<Product>, ByTables>> =
    LazyLock::new(|| Cache::with_weighter(USUAL_PATTERNS, CACHE_BYTES, ByTables));

/// The product that makes the lost cells, in order of their indexes, of the sources, in order of theirs. `decode` is
/// the general decoder: n cells with the sources in place, to the lost cells.
pub(super) fn product(
    pattern: Pattern,
    decode: impl FnOnce(&[Option<&[u8]>]) -> Vec<Vec<u8>>,
) -> Arc<Product> {
    if let Some(product) = PRODUCTS.get(&pattern) {
        return product;
    }
    let product = Arc::new(Product::new(Kernel::best(), &maps(pattern, decode)));
    PRODUCTS.insert(pattern, Arc::clone(&product));
    product
}

/// For each lost cell the map of each source: source j has unit vectors in block j and is zero elsewhere, so block j of
/// what is decoded shows the map of source j alone.
fn maps(pattern: Pattern, decode: impl FnOnce(&[Option<&[u8]>]) -> Vec<Vec<u8>>) -> Vec<Vec<Map>> {
    let k = usize::from(pattern.scheme.k());
    let cell = |number: usize| {
        let mut cell = vec![0; k * BLOCK_BYTES];
        cell[number * BLOCK_BYTES..][..BLOCK_BYTES].copy_from_slice(&units());
        cell
    };
    let unit_cells: Vec<_> = (0..k).map(cell).collect();
    let mut cells = vec![None; usize::from(pattern.scheme.n())];
    for (index, cell) in Pattern::indexes(pattern.sources).zip(&unit_cells) {
        cells[index] = Some(cell.as_slice());
    }
    let row = |cell: Vec<u8>| cell.chunks_exact(BLOCK_BYTES).map(Map::of_image).collect();
    decode(&cells).into_iter().map(row).collect()
}
