//! Cells of a shard that are made here of what other nodes hold: fetched from them, computed, appended. Knows no volume: what
//! is to be made of what comes with each request.

use super::server::Server;
use super::slot::Slot;
use crate::erasure::coder;
use crate::error::{Error, Result};
use crate::net::gather::{GATHER_BYTES_MAX, Gather, NodeAddress, SOURCE_TIMEOUT, Source};
use crate::net::{Operation, Peers, Priority, Request, Response, ShardKey};
use crate::sync::Arc;
use crate::types::{Epoch, MountId, NodeId, ShardIndex};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::ops::Range;

#[cfg(test)]
mod tests;

/// Bytes that are fetched at once; other requests wait. Those that fetch are not among them, or two nodes that gather from
/// each other would wait for each other.
pub(super) const FETCHED_BYTES_MAX: usize = 64 << 20;

const _: () = assert!(GATHER_BYTES_MAX <= FETCHED_BYTES_MAX as u64);

/// The way to the disks of another node.
pub type Reach = Arc<dyn Fn(&NodeAddress) -> Result<Arc<dyn Peers>> + Send + Sync>;

/// Who has something gathered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) mount: MountId,
    pub(super) epoch: Epoch,
    pub(super) priority: Priority,
}

impl Server {
    /// Appends to a shard of `slot` what other nodes give. While they are waited for the lease of the disk may go over to
    /// another mount; then nothing is appended. May be cancelled.
    pub(super) async fn gather(
        &self,
        slot: &Slot,
        asker: Asker,
        gather: Gather,
    ) -> Result<Response> {
        gather.check()?;
        let Asker { mount, epoch, priority } = asker;
        slot.may_change(mount, epoch)?;
        let closed = |_closed| Error::internal("gather: the gate is closed");
        let bytes = u32::try_from(gather.bytes()).unwrap_or(u32::MAX);
        let _room = self.fetched.acquire_many(bytes).await.map_err(closed)?;
        let fetches = gather.sources.iter().map(|source| self.fetch(&gather, source, asker));
        let columns = match try_join_all(fetches).await {
            Ok(columns) => columns,
            Err((index, error)) => {
                tracing::debug!(%error, "cells could not be gathered");
                return Ok(Response::Lacking { index, error });
            }
        };
        let place = (gather.header, gather.columns.start);
        slot.grow((mount, epoch), priority, place, move || cells(&gather, &columns)).await?;
        Ok(Response::Done)
    }

    /// The columns of one source.
    async fn fetch(
        &self,
        gather: &Gather,
        source: &Source,
        asker: Asker,
    ) -> Result<Bytes, (ShardIndex, Error)> {
        let key = ShardKey { index: source.index, ..gather.header.key };
        let request = Request {
            disk: source.disk,
            epoch: asker.epoch,
            priority: asker.priority,
            operation: Operation::Fetch(key, vec![gather.columns.clone()]),
        };
        let late = |_late| Err(Error::unavailable(format!("no answer for {SOURCE_TIMEOUT:?}")));
        let asked = tokio::time::timeout(SOURCE_TIMEOUT, self.ask(&source.node, request)).await;
        let length = gather.columns.end - gather.columns.start;
        let fetched = asked.unwrap_or_else(late).and_then(|response| only_range(&response, length));
        fetched.map_err(|error| {
            let (disk, node) = (source.disk, &source.node);
            let context =
                format!("fetch shard {}.{} from disk {disk} of node {node}", key.stripe, key.index);
            (source.index, error.while_doing(context))
        })
    }

    /// Sends a request to the node that serves its disk, which may be this one.
    async fn ask(&self, node: &NodeAddress, request: Request) -> Result<Response> {
        match self.slot_with(request.disk) {
            Some(slot) => {
                let Request { epoch, priority, operation, .. } = request;
                slot.shard((None, epoch), priority, operation).await
            }
            None => (self.reach)(node)?.call(NodeId::default(), request).await,
        }
    }
}

/// The one range of an answer, which has `length` bytes.
fn only_range(response: &Response, length: u64) -> Result<Bytes> {
    let odd = || Error::corrupt("the answer has something else than was asked for");
    let Response::Bytes(ranges) = response else { return Err(odd()) };
    match ranges.as_slice() {
        [bytes] if bytes.len() as u64 == length => Ok(bytes.clone()),
        _ => Err(odd()),
    }
}

/// The cells that are to be made, out of the columns of the sources in their order.
fn cells(gather: &Gather, columns: &[Bytes]) -> Result<Vec<Bytes>> {
    let length = columns.first().map_or(0, Bytes::len);
    let cell_bytes = gather.header.cell_bytes as usize;
    let rows = (0..length).step_by(cell_bytes);
    let rows = rows.map(|start| start..length.min(start + cell_bytes));
    match columns {
        [column] if gather.is_copy() => Ok(rows.map(|row| column.slice(row)).collect()),
        _ => rows.map(|row| cell(gather, columns, &row)).collect(),
    }
}

/// The cell of one row.
fn cell(gather: &Gather, columns: &[Bytes], row: &Range<usize>) -> Result<Bytes> {
    let mut cells = vec![None; usize::from(gather.scheme.n())];
    for (source, column) in gather.sources.iter().zip(columns) {
        if let Some(cell) = cells.get_mut(usize::from(source.index.0)) {
            *cell = column.get(row.clone());
        }
    }
    let made = coder(gather.scheme).reconstruct(&cells, &[gather.header.key.index]);
    let made = made.map_err(|few| Error::internal(format!("gather: {few}")))?;
    made.into_iter().next().map(Bytes::from).ok_or_else(|| Error::internal("gather: no cell"))
}
