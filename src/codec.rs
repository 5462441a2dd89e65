//! Compression of segments. The only module that knows zstd.

use crate::class::Compression;

/// The compressed form of a segment, if it saves at least an eighth; else `None`: it is stored as it is.
pub fn compress(_compression: Compression, _segment: &[u8]) -> Option<Vec<u8>> {
    None
}

/// The segment of `raw_bytes` bytes that was compressed to `body`; `None` if it is not exactly that.
pub fn decompress(_body: &[u8], _raw_bytes: usize) -> Option<Vec<u8>> {
    None
}
