//! The repair of one stripe: how its shards are, and a shard computed and placed anew. Knows neither queue nor order.

use super::{Depth, Now};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::meta::client::MetaClient;
use crate::meta::command::Command;
use crate::net::{Operation, Priority, Response, ShardKey};
use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::reader::StripeReader;
use crate::stripe::writer::Placer;
use crate::types::{DiskId, NodeId, ShardIndex, StripeId};
use crate::worker::Shards;
use crate::worker::orphans::names;
use crate::worker::shards::Claim;
use futures_util::future::join_all;
use std::fmt;
use std::sync::Arc;
use tokio::sync::MutexGuard;

/// Disks that are tried for one shard.
const TRIES: usize = 3;
/// How often a shard is begun whose member list changes before it is complete.
const FENCED_TRIES: usize = 5;
/// Stripes are repaired one at a time among those that share one of these.
const TURNS: usize = 64;

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

/// Looks at stripes and restores their shards.
pub(super) struct Restorer {
    pub(super) meta: MetaClient,
    pub(super) reader: StripeReader,
    pub(super) shards: Shards,
    pub(super) placer: Arc<dyn Placer>,
    now: Now,
    /// What was found out about the shards of a stripe must hold until they are restored.
    turns: [tokio::sync::Mutex<()>; TURNS],
}

impl fmt::Debug for Restorer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Restorer").field("shards", &self.shards).finish_non_exhaustive()
    }
}

/// How the repair of a stripe went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The stripe as it was.
    pub(super) record: StripeRecord,
    /// Shards that were good, a bit each.
    pub(super) good: u64,
    /// Shards that were to be restored.
    pub(super) lost: Vec<ShardIndex>,
    /// Those that are restored, and where.
    pub(super) placed: Vec<(ShardIndex, DiskId)>,
    /// Why others are not.
    pub(super) failures: Vec<Error>,
}

impl Outcome {
    /// Bytes of the cells of all shards that were restored.
    pub(super) fn bytes(&self) -> u64 {
        self.placed.len() as u64 * self.record.geometry().shard_bytes()
    }
}

/// Where the bytes of a shard come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Put {
    /// From others of its stripe.
    Rebuild,
    /// From where it is, if it is good there.
    Copy,
}

/// Which of the shards that are not good are restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Scope {
    /// All: also those on disks that are only away.
    All,
    /// All shards, good ones too.
    Every,
    /// These, a bit each, and what is absent or damaged on disks that are there.
    Known(u64),
}

impl Restorer {
    pub(super) fn new(
        meta: MetaClient,
        reader: StripeReader,
        shards: Shards,
        placer: Arc<dyn Placer>,
        now: Now,
    ) -> Self {
        let turns = std::array::from_fn(|_turn| tokio::sync::Mutex::default());
        Self { meta, reader, shards, placer, now, turns }
    }

    /// Looks at all shards of a stripe and restores those that are not good. `None` if it is not live. Must not be cancelled.
    pub(super) async fn repair(
        &self,
        id: StripeId,
        depth: Depth,
        scope: Scope,
    ) -> Result<Option<Outcome>> {
        let _turn = self.turn(id).await?;
        // Anew for each: a stripe may have died or moved a shard since it was listed.
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(None) };
        let checks = record.shards().map(|index| self.check(&record, index, depth));
        let found = join_all(checks).await;
        let good = record.shards().zip(&found).filter(|(_index, found)| **found == Found::Good);
        let good = good.fold(0_u64, |mask, (index, _found)| mask | 1 << index.0);
        let wanted = |index: ShardIndex, found: Found| match (found, scope) {
            (_, Scope::Every) => true,
            (Found::Good, _) => false,
            (Found::Away, Scope::Known(known)) => known >> index.0 & 1 == 1,
            (_, _) => true,
        };
        let wanted: Vec<(ShardIndex, Found)> =
            record.shards().zip(found).filter(|(index, found)| wanted(*index, *found)).collect();
        let lost = wanted.iter().map(|(index, _found)| *index).collect();
        let mut outcome = Outcome { record, good, lost, placed: Vec::new(), failures: Vec::new() };
        let k = u32::from(outcome.record.class.scheme.k());
        if !wanted.is_empty() && good.count_ones() < k {
            outcome.failures.push(Error::unavailable(format!(
                "repair stripe {id}: {} good shards, {k} needed",
                good.count_ones()
            )));
            return Ok(Some(outcome));
        }
        let together = wanted.len() > 1 && scope != Scope::Every;
        if together && self.restore_together(&wanted, &mut outcome).await {
            return Ok(Some(outcome));
        }
        for (index, found) in wanted {
            match self.restore(id, index, found).await {
                Ok(placed) => outcome.placed.extend(placed.map(|disk| (index, disk))),
                Err(error) => {
                    outcome.failures.push(error.while_doing(format!("repair shard {id}.{index}")));
                }
            }
        }
        Ok(Some(outcome))
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

    /// Restores several shards at once, so that what they are computed from is read once. Answers false if that is not
    /// possible, and nothing was done: one after the other may be. A damaged shard is never overwritten here: were two of
    /// them, what is good in the one might be needed for the other.
    async fn restore_together(
        &self,
        wanted: &[(ShardIndex, Found)],
        outcome: &mut Outcome,
    ) -> bool {
        let (record, id) = (outcome.record.clone(), outcome.record.id);
        let mut planned = record.clone();
        let mut lost: Vec<(ShardIndex, (NodeId, DiskId))> = Vec::new();
        let mut claims = Vec::new();
        for (index, found) in wanted {
            let Some(from) = record.disks.get(usize::from(index.0)).copied() else { return false };
            let targets = self.targets(&planned, from, *found);
            let fresh = |(_node, disk): &&(NodeId, DiskId)| {
                !lost.iter().any(|(_index, (_node, taken))| taken == disk)
            };
            let Some((node, disk)) = targets.iter().find(fresh).copied() else { return false };
            if disk == from && *found == Found::Damaged {
                return false;
            }
            let Some(claim) = self.shards.claim(disk, ShardKey { stripe: id, index: *index })
            else {
                return false;
            };
            lost.push((*index, (node, disk)));
            // The next one is to stand apart from this one too.
            if let Some(place) = planned.disks.get_mut(usize::from(index.0)) {
                *place = disk;
            }
            claims.push(claim);
        }
        let targets: Vec<_> = lost.iter().map(|(index, (_node, disk))| (*index, *disk)).collect();
        let rebuilt = async {
            self.doubt(&record, &targets).await?;
            self.reader.rebuild_shards(&record, &lost, Priority::Background).await
        };
        let roots = match rebuilt.await {
            Ok(roots) => roots,
            Err(error) => {
                tracing::debug!(%error, "shards are rebuilt one after the other");
                return false;
            }
        };
        for (((index, (_node, disk)), root), claim) in lost.into_iter().zip(roots).zip(claims) {
            let Some(from) = record.disks.get(usize::from(index.0)).copied() else { continue };
            let command = Command::PlaceShard { stripe: id, index, from, disk, root };
            let key = ShardKey { stripe: id, index };
            match self.place(command, &claim, (disk, key), &record).await {
                Ok(placed) => outcome.placed.extend(placed.map(|disk| (index, disk))),
                Err(error) => {
                    outcome.failures.push(error.while_doing(format!("repair shard {id}.{index}")));
                }
            }
        }
        true
    }

    /// Computes a shard and places it; answers where, and `None` if the stripe has changed meanwhile.
    async fn restore(
        &self,
        id: StripeId,
        index: ShardIndex,
        found: Found,
    ) -> Result<Option<DiskId>> {
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(None) };
        let Some(from) = record.disks.get(usize::from(index.0)).copied() else { return Ok(None) };
        let key = ShardKey { stripe: id, index };
        let mut last = Error::unavailable("no disk can take it: each holds a shard of the stripe");
        for (node, disk) in self.targets(&record, from, found).into_iter().take(TRIES) {
            let Some(claim) = self.shards.claim(disk, key) else { continue };
            self.doubt(&record, &[(index, disk)]).await?;
            match self.put(&record, index, (node, disk), Put::Rebuild).await {
                Ok(root) => {
                    let command = Command::PlaceShard { stripe: id, index, from, disk, root };
                    return self.place(command, &claim, (disk, key), &record).await;
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Notes, durably, that those of these shards are bad that will be written where the metadata believe them to be: a power
    /// cut may leave the footer of one and not its cells, and nobody would look any closer. Placing them takes the note away.
    async fn doubt(&self, record: &StripeRecord, targets: &[(ShardIndex, DiskId)]) -> Result<()> {
        let mut news = written_over(record, targets);
        if news.is_empty() {
            return Ok(());
        }
        let noted = self.meta.view()?.repair(record.id)?.map_or(0, |entry| entry.bad);
        news.retain(|(_stripe, index)| noted >> index.0 & 1 == 0);
        if !news.is_empty() {
            let command = Command::NoteDamage { shards: news, time: (self.now)() };
            self.meta.propose(command).await?;
        }
        self.meta.sync().await
    }

    /// Moves a shard of a stripe from one disk to another that holds none of it. Answers false if it is not there, or
    /// something else is at the other. Must not be cancelled.
    pub(super) async fn relocate(
        &self,
        id: StripeId,
        index: ShardIndex,
        (from, to): (DiskId, DiskId),
    ) -> Result<bool> {
        let _turn = self.turn(id).await?;
        let Some(record) = self.meta.view()?.stripe(id)? else { return Ok(false) };
        let there = record.disks.get(usize::from(index.0)) == Some(&from);
        let key = ShardKey { stripe: id, index };
        let (Some(node), Some(claim)) = (self.shards.node(to), self.shards.claim(to, key)) else {
            return Ok(false);
        };
        if !there || record.is_missing(index) || record.disks.contains(&to) {
            return Ok(false);
        }
        let root = self.put(&record, index, (node, to), Put::Copy).await?;
        let command = Command::PlaceShard { stripe: id, index, from, disk: to, root };
        let placed = self.place(command, &claim, (to, key), &record).await?;
        Ok(placed.is_some())
    }

    /// The turn of a stripe.
    async fn turn(&self, id: StripeId) -> Result<MutexGuard<'_, ()>> {
        let turn = usize::try_from(id.get() % TURNS as u64).unwrap_or(0);
        match self.turns.get(turn) {
            Some(turn) => Ok(turn.lock().await),
            None => Err(Error::internal("a stripe without a turn")),
        }
    }

    /// Puts one shard on a disk; anew when the member list changes under it, which refuses what began before.
    async fn put(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        to: (NodeId, DiskId),
        how: Put,
    ) -> Result<[u8; 32]> {
        let mut tries = 1;
        loop {
            let result = match how {
                Put::Rebuild => {
                    self.reader.rebuild_shard(record, index, to, Priority::Background).await
                }
                Put::Copy => self.reader.copy_shard(record, index, to, Priority::Background).await,
            };
            match result {
                Err(error) if error.kind() == ErrorKind::Fenced && tries < FENCED_TRIES => {
                    tries += 1;
                }
                result => return result,
            }
        }
    }

    /// Commits a shard that is on its new disk, and removes the one that it replaces.
    async fn place(
        &self,
        command: Command,
        _claim: &Claim,
        (disk, key): (DiskId, ShardKey),
        record: &StripeRecord,
    ) -> Result<Option<DiskId>> {
        match self.meta.propose(command).await {
            Ok(_done) => {
                let (stripe, shard) = (key.stripe, key.index.get());
                tracing::debug!(%stripe, shard, disk = disk.get(), "shard placed");
                self.remove_replaced(record, disk, key).await?;
                Ok(Some(disk))
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
    fn targets(&self, record: &StripeRecord, from: DiskId, found: Found) -> Vec<(NodeId, DiskId)> {
        let kept: Vec<DiskId> =
            record.disks.iter().copied().filter(|disk| *disk != from && *disk != NO_DISK).collect();
        let own = self.shards.node(from).map(|node| (node, from)).filter(|_| found != Found::Away);
        let mut targets = self.placer.beside(record, &kept);
        match (own, found) {
            (Some(own), Found::Absent) => targets.insert(0, own),
            (Some(own), _) => targets.push(own),
            (None, _) => {}
        }
        targets
    }
}

/// Those of `targets` at which the metadata believe the shard to be.
fn written_over(
    record: &StripeRecord,
    targets: &[(ShardIndex, DiskId)],
) -> Vec<(StripeId, ShardIndex)> {
    let believed = |(index, disk): &&(ShardIndex, DiskId)| {
        record.disks.get(usize::from(index.0)) == Some(disk) && !record.is_missing(*index)
    };
    targets.iter().filter(believed).map(|(index, _disk)| (record.id, *index)).collect()
}

/// How a shard is whose check answered with an error.
fn how(error: &Error) -> Found {
    match error.kind() {
        ErrorKind::Posix(Posix::NotFound) => Found::Absent,
        ErrorKind::Corrupt => Found::Damaged,
        ErrorKind::Posix(_)
        | ErrorKind::Unavailable
        | ErrorKind::Fenced
        | ErrorKind::Superseded
        | ErrorKind::Refused
        | ErrorKind::Internal => Found::Away,
    }
}
