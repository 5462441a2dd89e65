//! Repair: shards that are missing, gone or damaged are computed from the others and placed anew. Knows no file.

use super::orphans::names;
use super::shards::Claim;
use super::{Shards, Step, Worker};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::meta::client::MetaClient;
use crate::meta::command::Command;
use crate::net::{Operation, Priority, Response, ShardKey};
use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::StripeReader;
use crate::stripe::writer::Placer;
use crate::types::{DiskId, NodeId, ShardIndex, StripeId};
use futures_util::future::{BoxFuture, join_all};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(test)]
mod tests;

/// Stripes of one page of a sweep.
const PAGE: usize = 256;
/// Most stripes that wait for a repair after a bad read; more are found by the next sweep.
const REQUESTS_MAX: usize = 64 * 1024;
/// Most failures that a report tells in words.
const FAILURES_MAX: usize = 100;
/// Disks that are tried for one shard.
const TRIES: usize = 3;
/// How often a shard is begun whose member list changes before it is complete.
const FENCED_TRIES: usize = 5;

/// How closely shards are looked at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Depth {
    /// Whether each shard is there, with a footer that belongs to the stripe.
    Shallow,
    /// Every byte of each shard.
    Deep,
}

/// What a sweep did.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RepairReport {
    /// Stripes that were looked at.
    pub stripes_checked: u64,
    /// Stripes that had a bad shard.
    pub stripes_touched: u64,
    /// Shards that were placed anew.
    pub shards_restored: u64,
    /// Bytes of the cells of those shards.
    pub bytes_restored: u64,
    /// What could not be done, the first hundred in words.
    pub failures: Vec<String>,
    /// How much could not be done.
    pub failure_count: u64,
}

impl RepairReport {
    fn fail(&mut self, error: &Error) {
        self.failure_count += 1;
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(error.to_string());
        }
    }
}

/// Restores redundancy.
#[derive(Debug)]
pub struct Repair {
    meta: MetaClient,
    reader: StripeReader,
    shards: Shards,
    placer: Arc<dyn Placer>,
    requests: Mutex<BTreeSet<StripeId>>,
    /// One stripe at a time: what was found out about its shards must hold until they are restored.
    turn: tokio::sync::Mutex<()>,
}

/// A shard as it was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Found {
    Good,
    /// Nothing of use is there.
    Absent,
    /// Some of its bytes may still be good.
    Damaged,
    /// Its disk does not answer.
    Away,
}

impl Repair {
    /// Repairs stripes of this volume onto disks of `placer`, computing from what `reader` can read. Only for read-write mounts.
    pub fn new(
        meta: MetaClient,
        reader: StripeReader,
        shards: Shards,
        placer: Arc<dyn Placer>,
    ) -> Self {
        Self {
            meta,
            reader,
            shards,
            placer,
            requests: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        }
    }

    /// Has this stripe looked at soon, deeply: a read has met a bad shard of it.
    pub fn request(&self, stripe: StripeId) {
        let mut requests = self.requests();
        if requests.len() < REQUESTS_MAX {
            requests.insert(stripe);
        }
    }

    fn requests(&self) -> MutexGuard<'_, BTreeSet<StripeId>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes through all stripes and restores every shard that is not good. What cannot be restored is in the report; an
    /// error means that the sweep itself ended early. Must not be cancelled.
    pub async fn sweep(&self, depth: Depth) -> Result<RepairReport> {
        let mut report = RepairReport::default();
        let mut after = None;
        loop {
            let page = self.meta.view()?.stripes(after, PAGE)?;
            let Some((last, _live)) = page.last() else { return Ok(report) };
            after = Some(last.id);
            for (record, _live) in page {
                self.repair(record.id, depth, &mut report).await?;
            }
        }
    }

    async fn repair(&self, id: StripeId, depth: Depth, report: &mut RepairReport) -> Result<()> {
        let _turn = self.turn.lock().await;
        // Anew for each: a stripe may have died or moved a shard since the page was read.
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(()) };
        report.stripes_checked += 1;
        let checks = record.shards().map(|index| self.check(&record, index, depth));
        let found = join_all(checks).await;
        if found.iter().all(|found| *found == Found::Good) {
            return Ok(());
        }
        report.stripes_touched += 1;
        let good = found.iter().filter(|found| **found == Found::Good).count();
        if good < usize::from(record.class.scheme.k()) {
            report.fail(&Error::unavailable(format!(
                "repair stripe {id}: {good} good shards, {} needed",
                record.class.scheme.k()
            )));
            return Ok(());
        }
        for (index, found) in record.shards().zip(found) {
            if found == Found::Good {
                continue;
            }
            match self.restore(id, index, found).await {
                Ok(bytes) => {
                    report.shards_restored += u64::from(bytes.is_some());
                    report.bytes_restored += bytes.unwrap_or(0);
                }
                Err(error) => {
                    report.fail(&error.while_doing(format!("repair shard {id}.{index}")));
                }
            }
        }
        Ok(())
    }

    /// How a shard is.
    async fn check(&self, record: &StripeRecord, index: ShardIndex, depth: Depth) -> Found {
        let place = usize::from(index.0);
        let (Some(disk), Some(root)) = (record.disks.get(place), record.shard_roots.get(place))
        else {
            return Found::Absent;
        };
        if *disk == NO_DISK || record.is_missing(index) {
            return Found::Absent;
        }
        if depth == Depth::Deep {
            let verified = self.reader.verify_shard(record, index).await;
            return verified.map_or_else(|error| how(&error), |()| Found::Good);
        }
        let key = ShardKey { stripe: record.id, index };
        let found = match self.shards.call(*disk, Operation::Stat(key)).await {
            Ok(Response::Footer(footer)) => {
                footer.header.key == key
                    && footer.payload_bytes == record.payload_bytes
                    && footer.root == *root
            }
            Ok(_other) => false,
            Err(error) => return how(&error),
        };
        if found { Found::Good } else { Found::Damaged }
    }

    /// Computes a shard and places it; answers the bytes of its cells, and `None` if the stripe has changed meanwhile.
    async fn restore(&self, id: StripeId, index: ShardIndex, found: Found) -> Result<Option<u64>> {
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(None) };
        let Some(from) = record.disks.get(usize::from(index.0)).copied() else { return Ok(None) };
        let key = ShardKey { stripe: id, index };
        let mut last = Error::unavailable("no disk can take it: each holds a shard of the stripe");
        for (node, disk) in self.targets(&record, from, found)?.into_iter().take(TRIES) {
            let Some(claim) = self.shards.claim(disk, key) else { continue };
            match self.rebuild(&record, index, (node, disk)).await {
                Ok(root) => {
                    let command = Command::PlaceShard { stripe: id, index, from, disk, root };
                    return self.place(command, &claim, (disk, key), &record).await;
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Puts one shard on a disk; anew when the member list changes under it, which refuses what began before.
    async fn rebuild(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        to: (NodeId, DiskId),
    ) -> Result<[u8; 32]> {
        for _try in 1..FENCED_TRIES {
            match self.reader.rebuild_shard(record, index, to, Priority::Background).await {
                Err(error) if error.kind() == ErrorKind::Fenced => {}
                result => return result,
            }
        }
        self.reader.rebuild_shard(record, index, to, Priority::Background).await
    }

    /// Commits a shard that is on its new disk, and removes the one that it replaces.
    async fn place(
        &self,
        command: Command,
        _claim: &Claim,
        (disk, key): (DiskId, ShardKey),
        record: &StripeRecord,
    ) -> Result<Option<u64>> {
        match self.meta.propose(command).await {
            Ok(_done) => {
                let (stripe, shard) = (key.stripe, key.index.get());
                tracing::info!(%stripe, shard, disk = disk.get(), "shard restored");
                self.remove_replaced(record, disk, key).await?;
                Ok(Some(record.geometry().shard_bytes()))
            }
            Err(error) if error.is(Posix::Stale) || error.is(Posix::NotFound) => {
                // The stripe died or another repair was first.
                if !names(&self.meta.view()?, disk, key)? {
                    self.remove(disk, key).await;
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Removes the bad shard that one on `disk` has replaced, once that is durable. On a disk that is away it stays until
    /// orphans are collected there.
    async fn remove_replaced(
        &self,
        record: &StripeRecord,
        disk: DiskId,
        key: ShardKey,
    ) -> Result<()> {
        let Some(from) = record.disks.get(usize::from(key.index.0)).copied() else { return Ok(()) };
        if from == disk || from == NO_DISK || self.shards.node(from).is_none() {
            return Ok(());
        }
        self.meta.sync().await?;
        if let Some(_claim) = self.shards.claim(from, key) {
            self.remove(from, key).await;
        }
        Ok(())
    }

    /// Removes a shard that nothing names. One that cannot be removed is collected as an orphan later.
    async fn remove(&self, disk: DiskId, key: ShardKey) {
        if let Err(error) = self.shards.call(disk, Operation::Delete(key)).await {
            tracing::debug!(disk = disk.get(), %error, "a shard that is not needed stays for now");
        }
    }

    /// Disks that may take a shard of `record`: its own if it answers and nothing of use is there, then disks without
    /// a shard of this stripe, at last its own, damaged or not: the others have just been found to suffice.
    fn targets(
        &self,
        record: &StripeRecord,
        from: DiskId,
        found: Found,
    ) -> Result<Vec<(NodeId, DiskId)>> {
        let target = self.placer.target(record.class_id, record.class, Priority::Background)?;
        let own = self.shards.node(from).map(|node| (node, from)).filter(|_| found != Found::Away);
        let others = target.disks.into_iter().filter(|(_node, disk)| !record.disks.contains(disk));
        let mut targets: Vec<_> = others.collect();
        match (own, found) {
            (Some(own), Found::Absent) => targets.insert(0, own),
            (Some(own), _) => targets.push(own),
            (None, _) => {}
        }
        Ok(targets)
    }

    async fn repair_next(&self) -> Result<Step> {
        let Some(id) = self.requests().pop_first() else { return Ok(Step::Idle) };
        let mut report = RepairReport::default();
        self.repair(id, Depth::Deep, &mut report).await?;
        for failure in &report.failures {
            tracing::warn!("{failure}; the next sweep tries again");
        }
        Ok(Step::Busy)
    }
}

/// How a shard is whose check answered with an error.
fn how(error: &Error) -> Found {
    match error.kind() {
        ErrorKind::Posix(Posix::NotFound) => Found::Absent,
        ErrorKind::Corrupt => Found::Damaged,
        ErrorKind::Posix(_)
        | ErrorKind::Unavailable
        | ErrorKind::Fenced
        | ErrorKind::Refused
        | ErrorKind::Internal => Found::Away,
    }
}

impl Worker for Repair {
    fn name(&self) -> &'static str {
        "repair"
    }

    fn step(&self) -> BoxFuture<'_, Result<Step>> {
        Box::pin(self.repair_next())
    }
}
