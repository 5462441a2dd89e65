//! Compression of segments. The only module that knows zstd.

use crate::class::Compression;
use crate::limits::SEGMENT_BYTES;
use std::cell::RefCell;
use zstd::bulk::{Compressor, Decompressor};

#[cfg(test)]
mod tests;

/// A compressed body is kept if it takes at most 7/8 of the segment: less is not worth a decoder on every read.
const KEPT_NUMERATOR: usize = 7;
const KEPT_DENOMINATOR: usize = 8;

thread_local! {
    // A zstd context is hundreds of KiB and costs more to make than a segment to compress.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The compressed form of a segment, if it saves at least an eighth; else `None`: it is stored as it is.
pub fn compress(compression: Compression, segment: &[u8]) -> Option<Vec<u8>> {
    let Compression::Zstd(level) = compression else { return None };
    let level = i32::from(level);
    let body = COMPRESSOR.with_borrow_mut(|slot| {
        // If zstd cannot get memory the segment is stored as it is, which is always right.
        let compressor = match slot {
            Some(compressor) => compressor,
            None => slot.insert(Compressor::new(level).ok()?),
        };
        compressor.set_compression_level(level).ok()?;
        compressor.compress(segment).ok()
    })?;
    (body.len() * KEPT_DENOMINATOR <= segment.len() * KEPT_NUMERATOR).then_some(body)
}

/// The first `raw_bytes` bytes of the segment that was compressed to `body`: all of it, unless a truncate has cut
/// what the extent shows. `None` if `body` is no compressed segment of at least that length and at most
/// `SEGMENT_BYTES`, more than which is never allocated.
pub fn decompress(body: &[u8], raw_bytes: usize) -> Option<Vec<u8>> {
    let most = usize::try_from(SEGMENT_BYTES).ok()?;
    if raw_bytes > most {
        return None;
    }
    let mut segment = DECOMPRESSOR.with_borrow_mut(|slot| {
        let decompressor = match slot {
            Some(decompressor) => decompressor,
            None => slot.insert(Decompressor::new().ok()?),
        };
        decompressor.decompress(body, most).ok()
    })?;
    if segment.len() < raw_bytes {
        return None;
    }
    segment.truncate(raw_bytes);
    Some(segment)
}
