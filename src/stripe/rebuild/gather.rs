//! Shards that nodes make among themselves: what they are made of goes from node to node, and not through this machine. Says
//! which shards may be made so, and asks for them piece by piece. Knows no metadata.

use super::{Job, Origin, Output};
use crate::erasure::coder;
use crate::error::{Error, ErrorKind, Result};
use crate::net::gather::{Gather, SOURCE_TIMEOUT, Source};
use crate::net::{Operation, Response, Seal};
use crate::stripe::layout::StripeRecord;
use crate::stripe::put::Channel;
use crate::stripe::reader::StripeReader;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::ShardIndex;
use futures_util::future::join_all;
use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;
use tokio::time::Instant;

#[cfg(test)]
mod tests;

/// How long a node may take for one piece, for what others give and for its own disk.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node is not asked again that could not reach another one, or did not answer: each attempt may cost its time
/// limit, and nodes that cannot reach each other now mostly never can.
const REST: Duration = Duration::from_secs(60);

// Or the answer that a source cannot be had would come too late.
const _: () = assert!(PIECE_TIMEOUT.as_secs() > SOURCE_TIMEOUT.as_secs());

/// Nodes that are not asked to make shards for now, each with the end of that.
#[derive(Debug, Default)]
pub(in crate::stripe) struct Resting(Mutex<BTreeMap<String, Instant>>);

impl Resting {
    fn begin(&self, node: &str, why: &Error) {
        let before = self.nodes().insert(node.to_owned(), Instant::now() + REST);
        if before.is_none() {
            tracing::info!(
                node,
                error = %why,
                "a node could not make a shard of what others hold: for {REST:?} it is made here; see that \
                 nodes reach each other"
            );
        }
    }

    fn holds(&self, node: &str) -> bool {
        let now = Instant::now();
        let mut nodes = self.nodes();
        nodes.retain(|_node, end| *end > now);
        nodes.contains_key(node)
    }

    // Nothing that holds it leaves it half changed: a poisoned lock is good.
    fn nodes(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StripeReader {
    /// Whether nodes make the lost shards of a stripe among themselves: then each shard costs the reading of k others.
    pub fn gathers(&self, record: &StripeRecord) -> bool {
        let mut here = record.disks.iter().filter(|disk| self.members.node(**disk).is_some());
        here.all(|disk| self.members.address(*disk).is_some())
    }
}

/// One shard that a node is asked to make.
struct Errand<'a> {
    output: &'a Output,
    /// Who makes it.
    node: String,
    /// Out of what.
    sources: Vec<Source>,
}

impl Job<'_> {
    /// As `run`, by the nodes that the shards are for, out of shards with bits in `usable`. Answers the roots, which are
    /// those of the record. `None` if it cannot be done so, or has failed, and then nothing of it is left: `run` may fare
    /// better, and finds out who is to blame.
    ///
    /// Errors: `Fenced` and `Superseded`, with which `run` would not fare better.
    pub(super) async fn gather(&self, seal: &Seal, usable: u64) -> Result<Option<Vec<[u8; 32]>>> {
        let Some(errands) = self.errands(usable) else { return Ok(None) };
        if let Err(error) = self.grow(&errands).await {
            // Not more than that: as long as nothing was begun, there may be one that is partly good.
            join_all(self.outputs.iter().map(|output| output.channel.abort(output.key))).await;
            return otherwise(error);
        }
        let error = match self.seal(seal).await {
            Ok(roots) if self.fits(&roots) => {
                let bytes = self.outputs.len() as u64 * self.record.geometry().shard_bytes();
                self.reader.metrics.gathered(bytes);
                return Ok(Some(roots));
            }
            Ok(_wrong) => {
                let id = self.record.id;
                Error::corrupt(format!("gather shards of {id}: a root is not that of the record"))
            }
            Err(error) => error,
        };
        self.discard().await;
        otherwise(error)
    }

    /// What each node is to do; `None` if a disk is not one of a node, too few shards are there, or a node rests.
    fn errands(&self, usable: u64) -> Option<Vec<Errand<'_>>> {
        let outputs = self.outputs.iter();
        match self.from {
            Origin::Itself => {
                outputs.map(|output| self.errand(output, &[output.key.index])).collect()
            }
            Origin::Others { excluded } => {
                let lost: Vec<ShardIndex> = outputs.clone().map(|o| o.key.index).collect();
                let without = lost.iter().fold(excluded, |mask, index| mask | 1 << index.0);
                let coder = coder(self.record.class.scheme);
                let chosen = coder.plan(usable & !without, &lost)?;
                outputs.map(|output| self.errand(output, &chosen)).collect()
            }
        }
    }

    fn errand<'s>(&'s self, output: &'s Output, of: &[ShardIndex]) -> Option<Errand<'s>> {
        let node = self.reader.members.address(output.channel.disk)?.name;
        if self.reader.resting.holds(&node) {
            return None;
        }
        let sources = of.iter().map(|index| self.source(*index)).collect::<Option<_>>()?;
        Some(Errand { output, node, sources })
    }

    fn source(&self, index: ShardIndex) -> Option<Source> {
        let disk = self.record.disks.get(usize::from(index.0)).copied()?;
        let node = self.reader.members.address(disk)?;
        (!self.record.is_missing(index)).then_some(Source { index, disk, node })
    }

    /// Has all cells made, some rows at a time, of all shards together: what one has read the next may find in memory.
    async fn grow(&self, errands: &[Errand<'_>]) -> Result<()> {
        let geometry = self.record.geometry();
        let sources = errands.iter().map(|errand| errand.sources.len()).max().unwrap_or(1);
        let rows = Gather::rows(sources, self.record.class.cell_bytes);
        let mut row = 0;
        while row < geometry.rows() {
            let next = (row + rows).min(geometry.rows());
            let columns = geometry.columns_of(row).start..geometry.columns_of(next - 1).end;
            let pieces = errands.iter().map(|errand| self.piece(errand, columns.clone()));
            // All are waited for: what was given up might begin a shard after it was taken back.
            join_all(pieces).await.into_iter().collect::<Result<()>>()?;
            row = next;
        }
        Ok(())
    }

    async fn piece(&self, errand: &Errand<'_>, columns: Range<u64>) -> Result<()> {
        let Errand { output, node, sources } = errand;
        let (header, scheme) = (self.header(output.key), self.record.class.scheme);
        let gather = Gather { header, scheme, columns, sources: sources.clone() };
        let channel = Channel { timeout: PIECE_TIMEOUT, ..output.channel.clone() };
        let (error, rests) = match channel.call(Operation::Gather(gather)).await {
            Ok(Response::Done) => return Ok(()),
            Ok(Response::Lacking { error, .. }) => {
                // That a shard is not good says nothing about the node.
                let rests = matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Refused);
                let lacks = "a source cannot be had";
                (Error::with_source(ErrorKind::Unavailable, lacks, error), rests)
            }
            Ok(_other) => (channel.confused(), true),
            Err(error) => {
                let rests = !is_final(&error) && !matches!(error.kind(), ErrorKind::Posix(_));
                (error, rests)
            }
        };
        if rests {
            self.reader.resting.begin(node, &error);
        }
        let (stripe, index) = (output.key.stripe, output.key.index);
        Err(error.while_doing(format!("have node {node} make shard {stripe}.{index}")))
    }
}

/// Whether no other way would do better.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Fenced | ErrorKind::Superseded)
}

fn otherwise(error: Error) -> Result<Option<Vec<[u8; 32]>>> {
    if is_final(&error) {
        return Err(error);
    }
    tracing::debug!(%error, "shards are made here, not by nodes");
    Ok(None)
}
