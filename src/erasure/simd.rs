//! Products of a matrix of linear maps with cells, by the widest instructions that the processor has. Each kernel is
//! tested against `gf::Map::apply`.
//!
//! A symbol's image has four parts, from each half of the symbol to each half of the image. GFNI multiplies bytes by
//! 8 x 8 matrices of bits, one instruction for a part (Intel SDM, GF2P8AFFINEQB); AVX2 looks up the image of each
//! nibble by PSHUFB (Plank, Greenan, Miller: "Screaming Fast Galois Field Arithmetic Using Intel SIMD Instructions",
//! FAST 2013); elsewhere the image of each half comes from a table.
#![cfg_attr(
    target_arch = "x86_64",
    expect(unsafe_code, reason = "vector loads and stores, and calls that need a checked feature")
)]

use super::gf::{BLOCK_BYTES, BLOCK_SYMBOLS, Map};
#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    __m256i, __m512i, _mm_loadu_si128, _mm256_and_si256, _mm256_broadcastsi128_si256,
    _mm256_loadu_si256, _mm256_set1_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8,
    _mm256_srli_epi16, _mm256_storeu_si256, _mm256_xor_si256, _mm512_gf2p8affine_epi64_epi8,
    _mm512_loadu_si512, _mm512_setzero_si512, _mm512_shuffle_i64x2, _mm512_storeu_si512,
    _mm512_ternarylogic_epi64,
};
use std::sync::LazyLock;

#[cfg(test)]
mod tests;

/// Which instructions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kernel {
    /// GFNI on 512 bits.
    #[cfg(target_arch = "x86_64")]
    Gfni,
    /// Nibble tables on 256 bits.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Tables of 256 symbols for each half.
    Portable,
}

impl Kernel {
    /// Those that this processor can run, the fastest first.
    pub(super) fn available() -> Vec<Self> {
        let mut kernels = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512f") {
                kernels.push(Self::Gfni);
            }
            if is_x86_feature_detected!("avx2") {
                kernels.push(Self::Avx2);
            }
        }
        kernels.push(Self::Portable);
        kernels
    }

    /// The fastest.
    pub(super) fn best() -> Self {
        static BEST: LazyLock<Kernel> =
            LazyLock::new(|| Kernel::available().first().copied().unwrap_or(Kernel::Portable));
        *BEST
    }
}

/// Tables of one map for each kernel.
#[derive(Debug)]
enum Tables {
    /// Per map: lo to lo four times, hi to hi four times; hi to lo four times, lo to hi four times.
    #[cfg(target_arch = "x86_64")]
    Affine(Vec<[u64; 16]>),
    /// Per map and nibble of the symbol, from the lowest: low bytes of its images, high bytes.
    #[cfg(target_arch = "x86_64")]
    Nibbles(Vec<[[u8; 16]; 8]>),
    /// Per map: images of the low halves, of the high halves.
    Halves(Vec<[[u16; 256]; 2]>),
}

/// A matrix of maps, ready to be multiplied with cells.
#[derive(Debug)]
pub(super) struct Product {
    inputs: usize,
    outputs: usize,
    /// Row by row.
    tables: Tables,
}

impl Product {
    /// `rows` has for each cell to make the map of each cell to read. `kernel` must be `available`.
    pub(super) fn new(kernel: Kernel, rows: &[Vec<Map>]) -> Self {
        let inputs = rows.first().map_or(0, Vec::len);
        assert!(rows.iter().all(|row| row.len() == inputs), "a matrix has rows of one length");
        assert!(Kernel::available().contains(&kernel), "{kernel:?} needs another processor");
        let maps = rows.iter().flatten();
        let tables = match kernel {
            #[cfg(target_arch = "x86_64")]
            Kernel::Gfni => Tables::Affine(maps.map(affine).collect()),
            #[cfg(target_arch = "x86_64")]
            Kernel::Avx2 => Tables::Nibbles(maps.map(nibbles).collect()),
            Kernel::Portable => Tables::Halves(maps.map(halves).collect()),
        };
        Self { inputs, outputs: rows.len(), tables }
    }

    /// Size of the tables.
    pub(super) fn bytes(&self) -> usize {
        match &self.tables {
            #[cfg(target_arch = "x86_64")]
            Tables::Affine(tables) => size_of_val(tables.as_slice()),
            #[cfg(target_arch = "x86_64")]
            Tables::Nibbles(tables) => size_of_val(tables.as_slice()),
            Tables::Halves(tables) => size_of_val(tables.as_slice()),
        }
    }

    /// The cells that the matrix makes of `cells`, all of one length, a multiple of 64.
    pub(super) fn apply(&self, cells: &[&[u8]]) -> Vec<Vec<u8>> {
        let length = cells.first().map_or(0, |cell| cell.len());
        assert_eq!(cells.len(), self.inputs, "as many cells as the matrix has columns");
        assert!(cells.iter().all(|cell| cell.len() == length), "cells of one length");
        assert!(length.is_multiple_of(BLOCK_BYTES), "a cell of {length} bytes");
        // Not zeroed where a kernel stores each byte: that would cost an eighth of all time.
        let mut made: Vec<_> = (0..self.outputs).map(|_row| Vec::with_capacity(length)).collect();
        match &self.tables {
            #[cfg(target_arch = "x86_64")]
            Tables::Affine(tables) => {
                // SAFETY: `new` has seen that the processor has GFNI and AVX-512; lengths were checked above.
                unsafe { multiply_affine(tables, cells, &mut made, length) };
            }
            #[cfg(target_arch = "x86_64")]
            Tables::Nibbles(tables) => {
                // SAFETY: `new` has seen that the processor has AVX2; lengths were checked above.
                unsafe { multiply_nibbles(tables, cells, &mut made, length) };
            }
            Tables::Halves(tables) => {
                for (row, made) in tables.chunks(self.inputs).zip(&mut made) {
                    made.resize(length, 0);
                    multiply_halves(row, cells, made);
                }
            }
        }
        made
    }
}

/// Matrices of bits for GF2P8AFFINEQB: byte 7 - i is the mask of input bits whose sum is output bit i.
#[cfg(target_arch = "x86_64")]
fn affine(map: &Map) -> [u64; 16] {
    let part = |from: usize, to: usize| {
        let row = |bit: usize| {
            let into = |input: usize| u64::from(map.0[8 * from + input] >> (8 * to + bit) & 1);
            (0..8).map(|input| into(input) << input).sum::<u64>()
        };
        (0..8).map(|bit| row(bit) << (8 * (7 - bit))).sum::<u64>()
    };
    let (low, high) = (0, 1);
    let quarters = [part(low, low), part(high, high), part(high, low), part(low, high)];
    std::array::from_fn(|word| quarters[word / 4])
}

#[cfg(target_arch = "x86_64")]
fn nibbles(map: &Map) -> [[u8; 16]; 8] {
    let image = |nibble: usize, value: usize| {
        let value = u16::try_from(value).unwrap_or_default();
        map.apply(value << (4 * nibble)).to_le_bytes()
    };
    std::array::from_fn(|table| std::array::from_fn(|value| image(table / 2, value)[table % 2]))
}

fn halves(map: &Map) -> [[u16; 256]; 2] {
    let image = |half: usize, value: usize| {
        map.apply(u16::try_from(value).unwrap_or_default() << (8 * half))
    };
    std::array::from_fn(|half| std::array::from_fn(|value| image(half, value)))
}

/// `made` is zero at first.
fn multiply_halves(row: &[[[u16; 256]; 2]], cells: &[&[u8]], made: &mut [u8]) {
    for (tables, cell) in row.iter().zip(cells) {
        let blocks = cell.chunks_exact(BLOCK_BYTES).zip(made.chunks_exact_mut(BLOCK_BYTES));
        for (from, to) in blocks {
            let (from_low, from_high) = from.split_at(BLOCK_SYMBOLS);
            let (to_low, to_high) = to.split_at_mut(BLOCK_SYMBOLS);
            let symbols = from_low.iter().zip(from_high).zip(to_low.iter_mut().zip(to_high));
            for ((low, high), (to_low, to_high)) in symbols {
                let image = tables[0][usize::from(*low)] ^ tables[1][usize::from(*high)];
                let [low, high] = image.to_le_bytes();
                *to_low ^= low;
                *to_high ^= high;
            }
        }
    }
}

/// Two rows of the matrix at once, so that each cell is read once for both.
///
/// # Safety
/// The processor has GFNI and AVX-512F; all cells have `length` bytes, a multiple of 64, and those made room for them;
/// `tables` has a table for each row and cell.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "gfni,avx512f")]
unsafe fn multiply_affine(
    tables: &[[u64; 16]],
    cells: &[&[u8]],
    made: &mut [Vec<u8>],
    length: usize,
) {
    for (rows, made) in tables.chunks(2 * cells.len()).zip(made.chunks_mut(2)) {
        match made {
            // SAFETY: the caller's word.
            [first, second] => unsafe { affine_rows(rows, cells, [first, second], length) },
            // SAFETY: the caller's word.
            [last] => unsafe { affine_rows(rows, cells, [last], length) },
            _ => {}
        }
    }
}

/// `N` rows of the matrix.
///
/// # Safety
/// As for `multiply_affine`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "gfni,avx512f")]
unsafe fn affine_rows<const N: usize>(
    tables: &[[u64; 16]],
    cells: &[&[u8]],
    mut made: [&mut Vec<u8>; N],
    length: usize,
) {
    let mut at = 0;
    while at + 2 * BLOCK_BYTES <= length {
        // SAFETY: two blocks lie behind `at`; the rest is the caller's word.
        unsafe { affine_blocks::<N, 2>(tables, cells, &mut made, at) };
        at += 2 * BLOCK_BYTES;
    }
    if at < length {
        // SAFETY: as above, with one block.
        unsafe { affine_blocks::<N, 1>(tables, cells, &mut made, at) };
    }
    for made in made {
        // SAFETY: all of them were stored.
        unsafe { made.set_len(length) };
    }
}

/// # Safety
/// As for `multiply_affine`, and `B` blocks lie behind `at`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "gfni,avx512f")]
#[inline]
unsafe fn affine_blocks<const N: usize, const B: usize>(
    tables: &[[u64; 16]],
    cells: &[&[u8]],
    made: &mut [&mut Vec<u8>; N],
    at: usize,
) {
    /// Exchanges the halves of 512 bits.
    const SWAP: i32 = 0b01_00_11_10;
    /// a ^ b ^ c.
    const XOR: i32 = 0x96;
    let mut sums = [[_mm512_setzero_si512(); B]; N];
    for (number, cell) in cells.iter().enumerate() {
        let mut straight = [_mm512_setzero_si512(); B];
        let mut crossed = straight;
        for block in 0..B {
            // SAFETY: `at + (block + 1) * 64` is at most the length of the cell.
            let bytes = unsafe { load_512(cell.as_ptr().add(at + block * BLOCK_BYTES)) };
            straight[block] = bytes;
            crossed[block] = _mm512_shuffle_i64x2::<SWAP>(bytes, bytes);
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let table = tables[row * cells.len() + number].as_ptr();
            // SAFETY: a table has 128 bytes.
            let (direct, cross) =
                unsafe { (load_512(table.cast()), load_512(table.add(8).cast())) };
            for block in 0..B {
                let one = _mm512_gf2p8affine_epi64_epi8::<0>(straight[block], direct);
                let two = _mm512_gf2p8affine_epi64_epi8::<0>(crossed[block], cross);
                sums[block] = _mm512_ternarylogic_epi64::<XOR>(sums[block], one, two);
            }
        }
    }
    for (made, sums) in made.iter_mut().zip(sums) {
        for (block, sum) in sums.into_iter().enumerate() {
            // SAFETY: what is made has room for as much as the cells have.
            unsafe {
                _mm512_storeu_si512(made.as_mut_ptr().add(at + block * BLOCK_BYTES).cast(), sum);
            }
        }
    }
}

/// # Safety
/// 64 bytes lie behind `from`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
#[inline]
unsafe fn load_512(from: *const u8) -> __m512i {
    // SAFETY: the caller's word.
    unsafe { _mm512_loadu_si512(from.cast()) }
}

/// Up to three rows of the matrix at once, as many as 16 registers hold the sums of, so that each cell is loaded and cut
/// into nibbles once for all of them.
///
/// # Safety
/// The processor has AVX2; all cells have `length` bytes, a multiple of 64, and those made room for them; `tables` has a
/// table for each row and cell.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn multiply_nibbles(
    tables: &[[[u8; 16]; 8]],
    cells: &[&[u8]],
    made: &mut [Vec<u8>],
    length: usize,
) {
    for (rows, made) in tables.chunks(3 * cells.len()).zip(made.chunks_mut(3)) {
        match made {
            // SAFETY: the caller's word.
            [first, second, third] => unsafe {
                nibble_rows::<3, 1>(rows, cells, [first, second, third], length);
            },
            // SAFETY: the caller's word.
            [first, second] => unsafe { nibble_rows::<2, 1>(rows, cells, [first, second], length) },
            // SAFETY: the caller's word.
            [last] => unsafe { nibble_rows::<1, 2>(rows, cells, [last], length) },
            _ => {}
        }
    }
}

/// `N` rows of the matrix, `B` blocks at a time.
///
/// # Safety
/// As for `multiply_nibbles`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn nibble_rows<const N: usize, const B: usize>(
    tables: &[[[u8; 16]; 8]],
    cells: &[&[u8]],
    mut made: [&mut Vec<u8>; N],
    length: usize,
) {
    let mut at = 0;
    while at + B * BLOCK_BYTES <= length {
        // SAFETY: `B` blocks lie behind `at`; the rest is the caller's word.
        unsafe { nibble_blocks::<N, B>(tables, cells, &mut made, at) };
        at += B * BLOCK_BYTES;
    }
    while at < length {
        // SAFETY: as above, with one block.
        unsafe { nibble_blocks::<N, 1>(tables, cells, &mut made, at) };
        at += BLOCK_BYTES;
    }
    for made in made {
        // SAFETY: all of them were stored.
        unsafe { made.set_len(length) };
    }
}

/// # Safety
/// As for `multiply_nibbles`, and `B` blocks lie behind `at`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn nibble_blocks<const N: usize, const B: usize>(
    tables: &[[[u8; 16]; 8]],
    cells: &[&[u8]],
    made: &mut [&mut Vec<u8>; N],
    at: usize,
) {
    // Loops count, and arrays are taken by index, so that the compiler unrolls all of it and keeps it in registers.
    let mut sums = [[[_mm256_setzero_si256(); 2]; B]; N];
    for (number, cell) in cells.iter().enumerate() {
        let mut nibbles = [[_mm256_setzero_si256(); 4]; B];
        for (block, nibbles) in nibbles.iter_mut().enumerate() {
            // SAFETY: `at + (block + 1) * 64` is at most the length of the cell.
            *nibbles = unsafe { load_nibbles(cell.as_ptr().add(at + block * BLOCK_BYTES)) };
        }
        for (row, sums) in sums.iter_mut().enumerate() {
            let tables = &tables[row * cells.len() + number];
            for (number, table) in tables.iter().enumerate() {
                // SAFETY: a table has 16 bytes.
                let table = unsafe { _mm_loadu_si128(table.as_ptr().cast()) };
                let table = _mm256_broadcastsi128_si256(table);
                for block in 0..B {
                    let image = _mm256_shuffle_epi8(table, nibbles[block][number / 2]);
                    let sum = &mut sums[block][number % 2];
                    *sum = _mm256_xor_si256(*sum, image);
                }
            }
        }
    }
    for (made, sums) in made.iter_mut().zip(sums) {
        for (half, sum) in sums.as_flattened().iter().enumerate() {
            // SAFETY: what is made has room for as much as the cells have.
            unsafe {
                let to = made.as_mut_ptr().add(at + half * BLOCK_SYMBOLS);
                _mm256_storeu_si256(to.cast(), *sum);
            }
        }
    }
}

/// The nibbles of 32 symbols, from the lowest, each in the low half of its byte.
///
/// # Safety
/// 64 bytes lie behind `from`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
#[inline]
unsafe fn load_nibbles(from: *const u8) -> [__m256i; 4] {
    let mask = _mm256_set1_epi8(0x0f);
    // SAFETY: the caller's word.
    let (low, high) = unsafe {
        (_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(BLOCK_SYMBOLS).cast()))
    };
    let upper = |bytes| _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
    [_mm256_and_si256(low, mask), upper(low), _mm256_and_si256(high, mask), upper(high)]
}
