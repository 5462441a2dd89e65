//! Linear maps of the coder's symbols. Knows how symbols lie in a cell, not what they mean: multiplication by a constant
//! of GF(2^16) is linear over GF(2) whatever basis the field is written in, so its matrix of bits is all that is needed.
//!
//! A cell is a row of blocks of 64 bytes with 32 symbols each: byte i is the low half of symbol i, byte 32 + i its high
//! half (the layout of `reed-solomon-simd`).

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 64;
/// Symbols in a block.
pub(super) const BLOCK_SYMBOLS: usize = BLOCK_BYTES / 2;
/// Bits of a symbol.
pub(super) const SYMBOL_BITS: usize = 16;

/// A linear map of symbols: the images of the 16 unit vectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Map(pub(super) [u16; SYMBOL_BITS]);

impl Map {
    /// The map that took `units` to `block`.
    pub(super) fn of_image(block: &[u8]) -> Self {
        let (low, high) = block.split_at(BLOCK_SYMBOLS);
        let mut images = [0; SYMBOL_BITS];
        for (image, (low, high)) in images.iter_mut().zip(low.iter().zip(high)) {
            *image = u16::from_le_bytes([*low, *high]);
        }
        Self(images)
    }

    /// Image of a symbol, bit by bit: what every kernel must agree with.
    pub(super) fn apply(&self, symbol: u16) -> u16 {
        let set = |(bit, image): (usize, &u16)| if symbol >> bit & 1 == 1 { *image } else { 0 };
        self.0.iter().enumerate().map(set).fold(0, |sum, image| sum ^ image)
    }
}

/// A block whose first 16 symbols are the unit vectors.
pub(super) fn units() -> [u8; BLOCK_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    let (low, high) = block.split_at_mut(BLOCK_SYMBOLS);
    for bit in 0..SYMBOL_BITS / 2 {
        low[bit] = 1 << bit;
        high[SYMBOL_BITS / 2 + bit] = 1 << bit;
    }
    block
}
