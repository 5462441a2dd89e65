//! Orphan collection: shards that nothing names, nor will, leave their disks: puts that never were committed, copies that
//! repair has replaced, stripes that died while their disk was away. Knows no file.
//!
//! What is on its way (`Flights`) is asked for after the shards are listed: a stripe of this mount that is not has had its
//! commit proposed, or never will. Then the log settles, and the view shows that commit. Nothing goes before the state of
//! that view is durable.

use super::shards::Claim;
use super::{Shards, Step, Worker};
use crate::error::{Error, ErrorKind, Result};
use crate::meta::client::MetaClient;
use crate::meta::store::View;
use crate::net::{ADOPT_PARTS, Operation, Response, ShardKey};
use crate::stripe::flight::Flights;
use crate::sync::{Mutex, MutexGuard, PoisonError};
use crate::types::{DiskId, Incarnation, StripeId};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Shards of one step: one page of a disk's index.
const PAGE: usize = 1024;
/// Removals at once: keeps the queue of the disk short for foreground work.
const CONCURRENCY: usize = 8;

/// Compares what disks hold with what the metadata names.
#[derive(Debug)]
pub struct Orphans {
    meta: MetaClient,
    shards: Shards,
    flights: Flights,
    incarnation: Incarnation,
    complete: bool,
    disks: Mutex<BTreeMap<DiskId, Place>>,
}

/// Where it is on a disk that it goes through.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The index takes in what lies in this part of the directories first.
    Adopting(u16),
    /// Behind this shard of the index.
    Listing(Option<ShardKey>),
}

/// What stands in the way of a step.
#[derive(Debug)]
enum Trouble {
    /// A call to the disk has failed.
    Disk(Error),
    /// The log cannot tell now what is an orphan.
    Log(Error),
}

/// What a step has come to.
type Went<T> = std::result::Result<T, Trouble>;

impl Orphans {
    /// Collects shards of mounts up to `incarnation`, the present one, but for `flights`. Unless the recovery of this mount
    /// saw the newest epoch `complete`, nothing is ever collected: the metadata may not know a stripe that was committed.
    pub fn new(
        meta: MetaClient,
        shards: Shards,
        flights: Flights,
        (incarnation, complete): (Incarnation, bool),
    ) -> Self {
        Self { meta, shards, flights, incarnation, complete, disks: Mutex::default() }
    }

    /// Goes through `disk` from its start: after the mount, and when it has come back.
    pub fn request(&self, disk: DiskId) {
        if self.complete {
            self.disks().insert(disk, Place::Listing(None));
        }
    }

    /// As `request`, and does not believe the index of the disk to list all that is there.
    pub fn request_all(&self, disk: DiskId) {
        if self.complete {
            self.disks().insert(disk, Place::Adopting(0));
        }
    }

    fn disks(&self) -> MutexGuard<'_, BTreeMap<DiskId, Place>> {
        self.disks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn collect(&self) -> Result<Step> {
        let Some((disk, place)) = self.disks().pop_first() else { return Ok(Step::Idle) };
        if self.shards.node(disk).is_none() {
            // It is requested again when it comes back.
            return Ok(Step::Busy);
        }
        let page = match place {
            Place::Adopting(part) => self.adopt(disk, part).await.map(Some),
            Place::Listing(after) => {
                self.page(disk, after).await.map(|last| last.map(|last| Place::Listing(Some(last))))
            }
        };
        let (again, result) = match page {
            Ok(None) => return Ok(Step::Busy),
            Ok(Some(next)) => (next, Ok(Step::Busy)),
            // The disk has just failed. Nothing else of it must hold up the others.
            Err(Trouble::Disk(error)) if error.kind() == ErrorKind::Unavailable => {
                return Ok(Step::Busy);
            }
            Err(Trouble::Disk(error) | Trouble::Log(error)) => (place, Err(error)),
        };
        // A request that came meanwhile goes before: it starts at the front.
        self.disks().entry(disk).or_insert(again);
        result
    }

    async fn adopt(&self, disk: DiskId, part: u16) -> Went<Place> {
        self.shards.call(disk, Operation::Adopt { part }).await.map_err(Trouble::Disk)?;
        let next = part + 1;
        Ok(if next < ADOPT_PARTS { Place::Adopting(next) } else { Place::Listing(None) })
    }

    /// Goes through one page; answers its last shard, and `None` at the end.
    async fn page(&self, disk: DiskId, after: Option<ShardKey>) -> Went<Option<ShardKey>> {
        let keys = self.list(disk, after).await.map_err(Trouble::Disk)?;
        let Some(last) = keys.last().copied() else { return Ok(None) };
        let orphans = self.orphans_among(disk, keys).await.map_err(Trouble::Log)?;
        self.remove(disk, orphans).await.map_err(Trouble::Disk)?;
        Ok(Some(last))
    }

    async fn list(&self, disk: DiskId, after: Option<ShardKey>) -> Result<Vec<ShardKey>> {
        let list = Operation::List { after, limit: PAGE, seen: false };
        let doing = |error: Error| error.while_doing(format!("list the shards of disk {disk}"));
        match self.shards.call(disk, list).await.map_err(doing)? {
            Response::Keys(keys) => Ok(keys),
            other => Err(Error::internal(format!("disk {disk}: a list gives {other:?}"))),
        }
    }

    /// Those of `keys`, just listed, that nothing names, nor will even after a power cut.
    async fn orphans_among(
        &self,
        disk: DiskId,
        keys: Vec<ShardKey>,
    ) -> Result<Vec<(ShardKey, Claim)>> {
        let unnamed = {
            let view = self.meta.view()?;
            let ended = |key: &ShardKey| {
                key.stripe.incarnation() <= self.incarnation && !self.flights.contains(key.stripe)
            };
            let mut unnamed = Vec::new();
            for key in keys.into_iter().filter(ended) {
                if !names(&view, disk, key)? {
                    unnamed.push(key);
                }
            }
            unnamed
        };
        // Claimed before the view is taken: what repair has put and committed in between is named in that view, and
        // what it is about to put cannot be claimed.
        let claims: Vec<_> = unnamed
            .into_iter()
            .filter_map(|key| Some((key, self.shards.claim(disk, key)?)))
            .collect();
        if claims.is_empty() {
            return Ok(Vec::new());
        }
        self.meta.settle().await?;
        let orphans = {
            let view = self.meta.view()?;
            let dead = dead_among(&view, claims.iter().map(|(key, _claim)| key.stripe))?;
            let mut orphans = Vec::new();
            for (key, claim) in claims {
                if !dead.contains(&key.stripe) && !names(&view, disk, key)? {
                    orphans.push((key, claim));
                }
            }
            orphans
        };
        if !orphans.is_empty() {
            // A power cut must not bring back a state that names them.
            self.meta.sync().await?;
        }
        Ok(orphans)
    }

    async fn remove(&self, disk: DiskId, orphans: Vec<(ShardKey, Claim)>) -> Result<()> {
        let count = orphans.len();
        let removals = orphans.into_iter().map(|(key, claim)| async move {
            let result = self.shards.call(disk, Operation::Delete(key)).await;
            drop(claim);
            result.map(drop).map_err(|error| {
                let shard = format!("{}.{}", key.stripe, key.index);
                error.while_doing(format!("collect orphan {shard} on disk {disk}"))
            })
        });
        let results: Vec<_> =
            futures_util::stream::iter(removals).buffer_unordered(CONCURRENCY).collect().await;
        results.into_iter().collect::<Result<()>>()?;
        if count > 0 {
            tracing::info!(disk = disk.get(), count, "orphaned shards collected");
        }
        Ok(())
    }
}

/// Whether a live stripe names this shard on this disk.
pub(super) fn names(view: &View, disk: DiskId, key: ShardKey) -> Result<bool> {
    let Some(record) = view.stripe(key.stripe)? else { return Ok(false) };
    let at = record.disks.get(usize::from(key.index.0));
    Ok(at == Some(&disk) && !record.is_missing(key.index))
}

/// Which of these stripes, in ascending order, are in the delete queue: their shards go another way.
fn dead_among(
    view: &View,
    stripes: impl Iterator<Item = StripeId> + Clone,
) -> Result<BTreeSet<StripeId>> {
    let mut dead = BTreeSet::new();
    let Some(last) = stripes.clone().last() else { return Ok(dead) };
    let mut after = stripes.clone().next().and_then(|id| id.0.checked_sub(1)).map(StripeId);
    loop {
        let page = view.dead_stripes(after, PAGE)?;
        let Some(end) = page.last().map(|record| record.id) else { return Ok(dead) };
        dead.extend(page.iter().map(|record| record.id));
        if end >= last {
            return Ok(dead);
        }
        after = Some(end);
    }
}

impl Worker for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.collect())
    }
}
