//! Writes stripes: frames, rows, parity, shards on their disks, sealed and durable. Never commits.

use crate::class::Class;
use crate::cpu::Cpu;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::extent::FrameRef;
use crate::metrics::CodingMetrics;
use crate::net::{Peers, Priority, Seal, ShardHeader, ShardKey};
use crate::stripe::flight::Flight;
use crate::stripe::layout::{NO_DISK, StripeRecord};
use crate::stripe::payload::Payload;
use crate::stripe::put::Channel;
use crate::types::{ClassId, DiskId, Epoch, NodeId, SegmentAddress, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::stream::{self, StreamExt as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// A segment to be written.
#[derive(Clone, Debug)]
pub struct NewSegment {
    /// Owner.
    pub address: SegmentAddress,
    /// Content, 1..=65536 bytes; a shorter one reads as zeros behind its end.
    pub data: Bytes,
}

/// Where and how a stripe is to be written.
#[derive(Clone, Debug)]
pub struct Target {
    /// Fresh stripe id.
    pub id: StripeId,
    /// Says that it is on its way.
    pub flight: Arc<Flight>,
    /// Class of the data.
    pub class_id: ClassId,
    /// Its policy.
    pub class: Class,
    /// Epoch of the placement.
    pub epoch: Epoch,
    /// At least k+1 disks (k if the volume has no more): the first n take the shards in order, the others are
    /// spares for those that fail. With fewer than n, the shards without a disk are recorded as missing.
    pub disks: Vec<(NodeId, DiskId)>,
    /// Priority of the puts.
    pub priority: Priority,
    /// Whether it is not to be written where one of these disks turns out to be full and no spare takes its shard: nothing
    /// was lost that would excuse a smaller margin.
    pub whole: bool,
}

/// Says where new stripes go: gives each a fresh id and walks the ring for it.
pub trait Placer: Send + Sync + std::fmt::Debug {
    /// A target for one new stripe of this class.
    ///
    /// Errors: `NoSpace` when too many disks are full, `Unavailable` when too few answer.
    fn target(&self, class_id: ClassId, class: Class, priority: Priority) -> Result<Target>;

    /// Where the shards of a stripe belong by the present member list, room and absences aside: the first n disks hold
    /// them, the others are spares in the order in which they should stand in.
    fn home(&self, id: StripeId, class: Class) -> Vec<DiskId>;

    /// Disks without a shard of `record` that may take one while its shards on `kept` stay where they are, the best
    /// first: full ones last, and before them those that would stand too close to the others.
    fn beside(&self, record: &StripeRecord, kept: &[DiskId]) -> Vec<(NodeId, DiskId)>;
}

/// A written stripe, durable but not committed.
#[derive(Clone, Debug)]
pub struct Written {
    /// Record to commit.
    pub record: StripeRecord,
    /// To be held until the log has answered the commit: without it the shards are orphans.
    pub flight: Arc<Flight>,
    /// Frame of each segment; slot i holds segment i.
    pub frames: Vec<FrameRef>,
}

/// How long a disk may be silent before another takes its shard.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Rows that are computed, and handed to the disks, at once: enough to outweigh the cost of waking a thread for them.
const ROWS_PER_TASK: usize = 4;
/// Tasks' cells that wait for one shard while the others go on.
const TASKS_AHEAD: usize = 2;

/// Writes stripes through the peers.
#[derive(Clone, Debug)]
pub struct StripeWriter {
    peers: Arc<dyn Peers>,
    cpu: Arc<Cpu>,
    metrics: Arc<CodingMetrics>,
    timeout: Duration,
}

/// A shard and the disk that is to take it.
#[derive(Clone, Copy, Debug)]
struct Assignment {
    index: ShardIndex,
    node: NodeId,
    disk: DiskId,
}

/// What became of the shards so far.
#[derive(Debug)]
struct Progress {
    disks: Vec<DiskId>,
    /// Where each good shard is and its root.
    good: Vec<Option<(Assignment, [u8; 32])>>,
    /// Why puts failed.
    errors: Vec<Error>,
}

impl StripeWriter {
    /// Writes through `peers`, computing on `cpu`, timed by `metrics`.
    pub fn new(peers: Arc<dyn Peers>, cpu: Arc<Cpu>, metrics: Arc<CodingMetrics>) -> Self {
        Self { peers, cpu, metrics, timeout: CALL_TIMEOUT }
    }

    /// The same writer, which gives up on a call after `timeout`.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Writes `segments` (not empty; payload within `STRIPE_PAYLOAD_BYTES_MAX`, slots within
    /// `SLOTS_PER_STRIPE_MAX`) as one stripe. On return every shard that is not recorded missing is durable on its
    /// disk, directories included. Rows are encoded as they fill: besides the segments it holds a few rows.
    /// May be cancelled: what was put is an orphan.
    ///
    /// Errors: `Fenced` when the member list has changed since the target was made and disks refuse shards for that:
    /// those of the new list may take them all; `NoSpace` when disks are full and too few others remain, or one fewer than
    /// it needs to be whole; `Unavailable` when fewer than k + 1 shards (k where no more than k disks exist) can be
    /// made durable.
    pub async fn write(&self, target: Target, segments: Vec<NewSegment>) -> Result<Written> {
        let payload = Payload::seal(&self.cpu, &self.metrics, target.class, segments).await?;
        let payload = Arc::new(payload);
        let seal = Seal {
            payload_bytes: payload.table.payload_bytes(),
            slot_table: Bytes::from(payload.table.encode()),
        };
        let progress = self.put_all(&target, &payload, &seal).await;
        if let Err(error) = enough(&target, &progress) {
            let good = progress.good.iter().flatten();
            join_all(good.map(|(assignment, _root)| self.discard(&target, *assignment))).await;
            return Err(error);
        }
        for error in &progress.errors {
            tracing::warn!(stripe = %target.id, %error, "a shard could not be put");
        }
        let frames = payload.references();
        let missing = (0..).zip(&progress.good).filter(|(_bit, good)| good.is_none());
        let record = StripeRecord {
            id: target.id,
            class_id: target.class_id,
            class: target.class,
            epoch: target.epoch,
            payload_bytes: seal.payload_bytes,
            slots: u32::try_from(frames.len()).unwrap_or(u32::MAX),
            missing: missing.fold(0, |mask, (bit, _none)| mask | 1 << bit),
            shard_roots: progress
                .good
                .iter()
                .map(|good| good.map_or([0; 32], |(_place, root)| root))
                .collect(),
            disks: progress.disks,
        };
        Ok(Written { record, flight: target.flight, frames })
    }

    /// Puts all shards, those that fail once more on the spare disks, until these are used up.
    async fn put_all(&self, target: &Target, payload: &Arc<Payload>, seal: &Seal) -> Progress {
        let n = usize::from(target.class.scheme.n());
        let mut progress =
            Progress { disks: vec![NO_DISK; n], good: vec![None; n], errors: Vec::new() };
        let mut spares = target.disks.iter();
        loop {
            let open = (0..).map(ShardIndex).zip(&progress.good).filter(|(_, good)| good.is_none());
            let open: Vec<ShardIndex> = open.map(|(index, _none)| index).collect();
            let round: Vec<Assignment> = open
                .into_iter()
                .zip(&mut spares)
                .map(|(index, (node, disk))| Assignment { index, node: *node, disk: *disk })
                .collect();
            if round.is_empty() {
                return progress;
            }
            let results = self.put_round(target, payload, seal, &round).await;
            let fenced = results.iter().any(|result| result.as_ref().is_err_and(is_fenced));
            for (assignment, result) in round.into_iter().zip(results) {
                let at = usize::from(assignment.index.0);
                progress.disks[at] = assignment.disk;
                match result {
                    Ok(root) => progress.good[at] = Some((assignment, root)),
                    Err(error) => progress.errors.push(error),
                }
            }
            if fenced {
                // The spares would refuse it too.
                return progress;
            }
        }
    }

    /// Encodes the payload once and puts the assigned shards side by side.
    async fn put_round(
        &self,
        target: &Target,
        payload: &Arc<Payload>,
        seal: &Seal,
        round: &[Assignment],
    ) -> Vec<Result<[u8; 32]>> {
        let mut senders = Vec::new();
        let mut puts = Vec::new();
        for assignment in round {
            let (sender, cells) = mpsc::channel(TASKS_AHEAD);
            senders.push((usize::from(assignment.index.0), sender));
            puts.push(self.put_shard(target, *assignment, cells, seal));
        }
        let encode = async move {
            let rows = payload.geometry.rows();
            for first in (0..rows).step_by(ROWS_PER_TASK) {
                let source = Arc::clone(payload);
                let task = first..rows.min(first + ROWS_PER_TASK as u64);
                let mut cells = self.cpu.run(move || source.rows(task)).await;
                // A shard that failed does not listen any more.
                senders.retain(|(_index, sender)| !sender.is_closed());
                let sends = senders
                    .iter()
                    .map(|(index, sender)| sender.send(std::mem::take(&mut cells[*index])));
                join_all(sends.collect::<Vec<_>>()).await;
            }
        };
        join(encode, join_all(puts)).await.1
    }

    async fn put_shard(
        &self,
        target: &Target,
        assignment: Assignment,
        mut cells: mpsc::Receiver<Vec<Bytes>>,
        seal: &Seal,
    ) -> Result<[u8; 32]> {
        let channel = self.channel(target, assignment);
        let scheme = target.class.scheme;
        let key = ShardKey { stripe: target.id, index: assignment.index };
        let header = ShardHeader {
            key,
            class: target.class_id,
            data_shards: scheme.k(),
            parity_shards: scheme.m(),
            cell_bytes: target.class.cell_bytes,
            epoch: target.epoch,
        };
        let cells = stream::poll_fn(move |context| cells.poll_recv(context)).boxed();
        let result = channel.put(header, cells, seal.clone()).await;
        if result.is_err() {
            channel.discard(key).await;
        }
        result.map_err(|error| {
            let doing = format!("put shard {}.{} on disk {}", key.stripe, key.index, channel.disk);
            error.while_doing(doing)
        })
    }

    async fn discard(&self, target: &Target, assignment: Assignment) {
        let key = ShardKey { stripe: target.id, index: assignment.index };
        self.channel(target, assignment).discard(key).await;
    }

    fn channel(&self, target: &Target, assignment: Assignment) -> Channel {
        Channel {
            peers: Arc::clone(&self.peers),
            node: assignment.node,
            disk: assignment.disk,
            epoch: target.epoch,
            priority: target.priority,
            timeout: self.timeout,
        }
    }
}

/// Whether a disk goes by another member list.
fn is_fenced(error: &Error) -> bool {
    error.kind() == ErrorKind::Fenced
}

/// Whether as many shards are durable as a stripe needs to be committed.
fn enough(target: &Target, progress: &Progress) -> Result<()> {
    let (k, n) = (usize::from(target.class.scheme.k()), usize::from(target.class.scheme.n()));
    let needed = if target.disks.len() > k { (k + 1).min(n) } else { k };
    let good = progress.good.iter().flatten().count();
    let fenced = progress.errors.iter().any(is_fenced);
    let full = progress.errors.iter().filter(|error| error.is(Posix::NoSpace)).count();
    let lacks_room = target.whole && full > 0 && good < n.min(target.disks.len());
    // A disk that goes by the new list is in order: the stripe shall not be without its shard.
    if good >= needed && !fenced && !lacks_room {
        return Ok(());
    }
    let kind = if fenced {
        ErrorKind::Fenced
    } else if good + full >= needed {
        ErrorKind::Posix(Posix::NoSpace)
    } else {
        ErrorKind::Unavailable
    };
    let doing = format!("write stripe {}: {good} of {needed} needed shards", target.id);
    Err(match progress.errors.last() {
        Some(error) => Error::with_source(kind, doing, error.clone()),
        None => Error::new(kind, doing),
    })
}

#[cfg(test)]
mod tests;
