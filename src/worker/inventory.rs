//! Inventory of a disk: what the metadata names there and the disk does not have is noted for repair. Orphan collection
//! looks the other way. Reads lists only, no shard. Knows no file.

use super::orphans::names;
use super::repair::Repair;
use super::{Shards, Step, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::client::MetaClient;
use crate::net::{Operation, Response, ShardKey};
use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, ShardIndex, StripeId};
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Stripes of one step.
const PAGE: usize = 1024;
/// Shards of one answer of a disk.
const LIST: usize = 4096;

/// Compares what the metadata names with what disks hold.
#[derive(Debug)]
pub struct Inventory {
    meta: MetaClient,
    shards: Shards,
    repair: Arc<Repair>,
    /// Disks to go through, each with the last stripe that was looked at.
    disks: Mutex<BTreeMap<DiskId, Option<StripeId>>>,
}

impl Inventory {
    /// Notes what is absent with `repair`.
    pub fn new(meta: MetaClient, shards: Shards, repair: Arc<Repair>) -> Self {
        Self { meta, shards, repair, disks: Mutex::default() }
    }

    /// Goes through `disk` from its start: after the mount, when it has come back, and when its files were seen to be gone.
    pub fn request(&self, disk: DiskId) {
        self.disks().insert(disk, None);
    }

    fn disks(&self) -> MutexGuard<'_, BTreeMap<DiskId, Option<StripeId>>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self) -> Result<Step> {
        let Some((disk, after)) = self.disks().pop_first() else { return Ok(Step::Idle) };
        if self.shards.node(disk).is_none() {
            // It is requested again when it comes back.
            return Ok(Step::Busy);
        }
        let page = self.page(disk, after).await;
        let again = match &page {
            Ok(None) => return Ok(Step::Busy),
            Ok(Some(last)) => Some(*last),
            // The disk has just failed.
            Err(error) if error.kind() == ErrorKind::Unavailable => return Ok(Step::Busy),
            Err(_) => after,
        };
        // A request that came meanwhile goes before: it starts at the front.
        self.disks().entry(disk).or_insert(again);
        page.map(|_last| Step::Busy)
    }

    /// Goes through one page of stripes; answers the last, and `None` at the end.
    async fn page(&self, disk: DiskId, after: Option<StripeId>) -> Result<Option<StripeId>> {
        // The view is taken before the list: what it names was on the disk before.
        let page = self.meta.view()?.stripes(after, PAGE)?;
        let Some(last) = page.last().map(|(record, _live)| record.id) else { return Ok(None) };
        let named: Vec<ShardKey> = page
            .iter()
            .flat_map(|(record, _live)| {
                let here = record.shards().zip(&record.disks);
                let here = here.filter(|(index, at)| **at == disk && !record.is_missing(*index));
                here.map(|(index, _at)| ShardKey { stripe: record.id, index })
            })
            .collect();
        if named.is_empty() {
            return Ok(Some(last));
        }
        let held = self.held(disk, after, last).await?;
        let view = self.meta.view()?;
        let mut absent = Vec::new();
        for key in named.into_iter().filter(|key| !held.contains(key)) {
            // Repair may have moved it meanwhile.
            if names(&view, disk, key)? {
                absent.push((key.stripe, key.index));
            }
        }
        drop(view);
        if !absent.is_empty() {
            let count = absent.len();
            tracing::warn!(
                disk = disk.get(),
                count,
                "shards are not on their disk; they will be repaired"
            );
            self.repair.note(absent).await?;
        }
        Ok(Some(last))
    }

    /// What the disk has of the stripes behind `after`, up to `last`.
    async fn held(
        &self,
        disk: DiskId,
        after: Option<StripeId>,
        last: StripeId,
    ) -> Result<BTreeSet<ShardKey>> {
        let mut held = BTreeSet::new();
        let mut cursor = after.map(|stripe| ShardKey { stripe, index: ShardIndex(u8::MAX) });
        loop {
            let list = Operation::List { after: cursor, limit: LIST, seen: true };
            let doing = |error: Error| error.while_doing(format!("list the shards of disk {disk}"));
            let keys = match self.shards.call(disk, list).await.map_err(doing)? {
                Response::Keys(keys) => keys,
                other => {
                    return Err(Error::internal(format!("disk {disk}: a list gives {other:?}")));
                }
            };
            cursor = keys.last().copied();
            let past = cursor.is_none_or(|key| key.stripe > last);
            held.extend(keys);
            if past {
                return Ok(held);
            }
        }
    }
}

impl Worker for Inventory {
    fn name(&self) -> &'static str {
        "inventory"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.take())
    }
}
