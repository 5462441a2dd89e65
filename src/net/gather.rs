//! What a node is asked to make out of what other nodes hold: cells of a shard, so that their sources do not pass through
//! whoever asks. Words only; knows no socket and no disk.

use super::ShardHeader;
use crate::erasure::Scheme;
use crate::error::{Error, Result};
use crate::limits::{CELL_BYTES, DATA_SHARDS_MAX, FRAME_ALIGN_BYTES};
use crate::types::{DiskId, ShardIndex};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Most bytes that one request has a node fetch, from all sources together: over any network that is of use they are there
/// long before whoever asks gives up, and many requests at once take little memory.
pub const GATHER_BYTES_MAX: u64 = 4 << 20;

// One row always fits.
const _: () = assert!(DATA_SHARDS_MAX as u64 * CELL_BYTES as u64 <= GATHER_BYTES_MAX);

/// How long the node of a source may take, the way to it included: whoever has something gathered waits longer.
pub const SOURCE_TIMEOUT: Duration = Duration::from_secs(5);

/// Where other nodes find a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct NodeAddress {
    /// Name that its certificate has.
    pub name: String,
    /// `host:port`.
    pub address: String,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

/// A shard to make others of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Which of the stripe's shards.
    pub index: ShardIndex,
    /// The disk that holds it.
    pub disk: DiskId,
    /// The node that serves this disk.
    pub node: NodeAddress,
}

/// The next rows of a shard, and what they are made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gather {
    /// The shard. Where `columns` are its first ones it begins with them, and not before they are there: it may replace one
    /// that is partly good.
    pub header: ShardHeader,
    /// The code of its stripe.
    pub scheme: Scheme,
    /// Bytes of its cells (offset 0 is the first byte of row 0's cell): whole rows, behind those that it has.
    pub columns: Range<u64>,
    /// The shard itself, which is copied, or k others, of which it is computed.
    pub sources: Vec<Source>,
}

impl Gather {
    /// Rows of one request that has `sources` sources, with cells of `cell_bytes`. At least one.
    pub fn rows(sources: usize, cell_bytes: u32) -> u64 {
        let row = (sources as u64).saturating_mul(cell_bytes.into());
        (GATHER_BYTES_MAX / row.max(1)).max(1)
    }

    /// Whether the shard is copied.
    pub fn is_copy(&self) -> bool {
        matches!(self.sources.as_slice(), [source] if source.index == self.header.key.index)
    }

    /// Bytes that have to be fetched.
    pub fn bytes(&self) -> u64 {
        let each = self.columns.end.saturating_sub(self.columns.start);
        each.saturating_mul(self.sources.len() as u64)
    }

    /// Refuses what cannot be carried out: it may come from anybody.
    pub fn check(&self) -> Result<()> {
        let Some(what) = self.wrong() else { return Ok(()) };
        let key = self.header.key;
        Err(Error::refused(format!("gather shard {}.{}: {what}", key.stripe, key.index)))
    }

    fn wrong(&self) -> Option<&'static str> {
        let Self { header, scheme, columns, sources } = self;
        let (own, cell_bytes) = (header.key.index, header.cell_bytes);
        let counts = (header.data_shards, header.parity_shards) == (scheme.k(), scheme.m());
        if !counts || scheme.validate().is_err() || own.0 >= scheme.n() {
            return Some("its scheme is not valid");
        }
        let is_cell = (FRAME_ALIGN_BYTES..=CELL_BYTES).contains(&cell_bytes);
        if !is_cell || !cell_bytes.is_multiple_of(FRAME_ALIGN_BYTES) {
            return Some("its cell size is not valid");
        }
        let begins = columns.start.is_multiple_of(cell_bytes.into());
        let ends = columns.end.is_multiple_of(FRAME_ALIGN_BYTES.into());
        let fits = columns.start < columns.end && self.bytes() <= GATHER_BYTES_MAX;
        if !(begins && ends && fits) {
            return Some("its columns are not whole rows, or too many");
        }
        let indexes: BTreeSet<ShardIndex> = sources.iter().map(|source| source.index).collect();
        let different = indexes.len() == sources.len();
        let there = indexes.iter().all(|index| index.0 < scheme.n());
        let enough = sources.len() == usize::from(scheme.k()) && !indexes.contains(&own);
        if !(self.is_copy() || different && there && enough) {
            return Some("its sources are neither itself nor as many others as it takes");
        }
        None
    }
}
