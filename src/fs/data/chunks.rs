//! Chunks and stripe records as the metadata has them, kept decoded for reading again. An entry is used only while the
//! counter of changes that was looked at before it was read still stands.

use crate::error::{Posix, Result};
use crate::meta::client::MetaClient;
use crate::meta::store::ChunkView;
use crate::metrics::Lookups;
use crate::stripe::layout::StripeRecord;
use crate::types::{ChunkIndex, Ino, StripeId};
use bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use std::sync::Arc;

/// What a place of a segment takes in memory, about.
const PLACE_BYTES: u64 = 64;
/// What an entry weighs beside its places and hot bytes.
const ENTRY_BYTES: u64 = 256;
/// Usual size of an entry: for the size of the table.
const USUAL_BYTES: u64 = 8 * 1024;
/// Share of the bytes that stripe records may take.
const RECORDS_SHARE: u64 = 8;

/// One chunk of a file.
#[derive(Debug)]
pub(super) struct Chunk {
    /// Inline content of the file (first chunk).
    pub(super) inline: Bytes,
    /// Extents and hot bytes.
    pub(super) content: ChunkView,
}

/// Something and the count of changes at which it was read.
type Counted<T> = (u64, Arc<T>);

#[derive(Clone)]
struct BySize;

impl Weighter<(Ino, ChunkIndex), Counted<Chunk>> for BySize {
    fn weight(&self, _key: &(Ino, ChunkIndex), (_count, chunk): &Counted<Chunk>) -> u64 {
        let hot: usize = chunk.content.hot.iter().map(|hot| hot.data.len()).sum();
        let bytes = chunk.inline.len() + hot;
        ENTRY_BYTES + chunk.content.map.len() as u64 * PLACE_BYTES + bytes as u64
    }
}

/// Decoded chunks and stripe records.
pub(super) struct ChunkCache {
    chunks: Cache<(Ino, ChunkIndex), Counted<Chunk>, BySize>,
    records: Cache<StripeId, Counted<StripeRecord>>,
    /// How often a chunk was asked for; what is out of date counts as a miss.
    pub(super) chunk_lookups: Lookups,
    /// How often a record was.
    pub(super) record_lookups: Lookups,
}

impl ChunkCache {
    /// Holds at most about `bytes`.
    pub(super) fn new(bytes: u64) -> Self {
        let items = usize::try_from(bytes / USUAL_BYTES).unwrap_or(usize::MAX).clamp(16, 1 << 20);
        let records = usize::try_from(bytes / RECORDS_SHARE / ENTRY_BYTES).unwrap_or(usize::MAX);
        let chunk_bytes = bytes - bytes / RECORDS_SHARE;
        Self {
            chunks: Cache::with_weighter(items, chunk_bytes, BySize),
            records: Cache::new(records.clamp(16, 1 << 20)),
            chunk_lookups: Lookups::default(),
            record_lookups: Lookups::default(),
        }
    }

    /// A chunk of a file.
    ///
    /// Errors: `Stale` if the inode is gone.
    pub(super) fn chunk(
        &self,
        meta: &MetaClient,
        ino: Ino,
        chunk: ChunkIndex,
    ) -> Result<Arc<Chunk>> {
        // The count comes before the view: what changes between the two makes the entry out of date at worst. A view
        // that was opened earlier, for another chunk, would be kept under a count that it has not seen.
        let count = meta.changes().of_content(ino);
        if let Some((at, known)) = self.chunks.get(&(ino, chunk))
            && at == count
        {
            self.chunk_lookups.note(true);
            return Ok(known);
        }
        self.chunk_lookups.note(false);
        let view = meta.view()?;
        let inode = view.inode(ino)?.ok_or(Posix::Stale)?;
        let content = view.chunk(&inode, chunk)?;
        let inline = if chunk == ChunkIndex(0) { inode.inline } else { Bytes::new() };
        let read = Arc::new(Chunk { inline, content });
        self.chunks.insert((ino, chunk), (count, Arc::clone(&read)));
        Ok(read)
    }

    /// The record of a stripe.
    ///
    /// Errors: `NotFound` if there is none: an extent that names it has moved.
    pub(super) fn record(&self, meta: &MetaClient, stripe: StripeId) -> Result<Arc<StripeRecord>> {
        let count = meta.changes().of_stripes();
        if let Some((at, known)) = self.records.get(&stripe)
            && at == count
        {
            self.record_lookups.note(true);
            return Ok(known);
        }
        self.record_lookups.note(false);
        let record = Arc::new(meta.view()?.stripe(stripe)?.ok_or(Posix::NotFound)?);
        self.records.insert(stripe, (count, Arc::clone(&record)));
        Ok(record)
    }
}

#[cfg(test)]
mod tests;
