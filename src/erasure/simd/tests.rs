use super::{Kernel, Product};
use crate::erasure::gf::{BLOCK_BYTES, BLOCK_SYMBOLS, Map};

/// Pseudo-random numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn cell(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_byte| self.next().to_le_bytes()[3]).collect()
    }

    fn map(&mut self) -> Map {
        Map(std::array::from_fn(|_bit| {
            let bytes = self.next().to_le_bytes();
            u16::from_le_bytes([bytes[2], bytes[5]])
        }))
    }
}

/// The product symbol by symbol.
fn expected(rows: &[Vec<Map>], cells: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let length = cells[0].len();
    let make = |row: &Vec<Map>| {
        let mut made = vec![0; length];
        for (map, cell) in row.iter().zip(cells) {
            for block in (0..length).step_by(BLOCK_BYTES) {
                for low in block..block + BLOCK_SYMBOLS {
                    let high = low + BLOCK_SYMBOLS;
                    let image = map.apply(u16::from_le_bytes([cell[low], cell[high]]));
                    made[low] ^= image.to_le_bytes()[0];
                    made[high] ^= image.to_le_bytes()[1];
                }
            }
        }
        made
    };
    rows.iter().map(make).collect()
}

#[test]
fn every_kernel_multiplies_as_bit_by_bit() {
    let mut numbers = Numbers(0x1234_5678_9abc_def1);
    for kernel in Kernel::available() {
        for (outputs, inputs) in [(1, 1), (1, 4), (2, 4), (3, 6), (16, 32)] {
            let rows: Vec<Vec<Map>> = (0..outputs)
                .map(|_row| (0..inputs).map(|_column| numbers.map()).collect())
                .collect();
            let product = Product::new(kernel, &rows);
            for length in [64, 128, 192, 4096, 4160] {
                let cells: Vec<_> = (0..inputs).map(|_cell| numbers.cell(length)).collect();
                let slices: Vec<_> = cells.iter().map(Vec::as_slice).collect();
                let made = product.apply(&slices);
                assert_eq!(made, expected(&rows, &cells), "{kernel:?} {outputs}x{inputs} {length}");
            }
        }
    }
}

#[test]
fn a_kernel_is_found_on_every_processor() {
    assert_eq!(Kernel::available().last(), Some(&Kernel::Portable));
    assert_eq!(Kernel::available().first(), Some(&Kernel::best()));
}

#[test]
#[should_panic(expected = "cells of one length")]
fn cells_of_two_lengths_are_refused() {
    let rows = [vec![Map::default(); 2]];
    Product::new(Kernel::best(), &rows).apply(&[&[0; 128], &[0; 64]]);
}
