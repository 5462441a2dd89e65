//! Reads frames of stripes: plans which shards to fetch, verifies end to end, decodes around what is bad.

use crate::cpu::Cpu;
use crate::erasure::coder;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::extent::FrameRef;
use crate::metrics::{CodingMetrics, Purpose};
use crate::net::gather::NodeAddress;
use crate::net::{Operation, Peers, Priority, Response, ShardKey};
use crate::stripe::layout::{NO_DISK, StripeRecord, merge};
use crate::stripe::put::Channel;
use crate::stripe::rebuild::Resting;
use crate::stripe::slots::SlotTable;
use crate::types::{DiskId, Epoch, NodeId, ShardIndex, StripeId};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::{FuturesUnordered, StreamExt};
use hedges::{Hedges, Late};
use pins::{Pin, Pins};
use plan::{Columns, ReadPlan};
pub(super) use sources::Sources;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

mod hedges;
mod pins;
mod plan;
mod sources;

/// A piece of one frame's segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The frame.
    pub frame: FrameRef,
    /// First byte of the segment that is wanted.
    pub offset: u32,
    /// Bytes wanted; `offset + length <= frame.raw_bytes`.
    pub length: u32,
}

/// Something that a reader noticed and repair should know.
#[derive(Clone, Debug)]
pub struct Finding {
    /// The stripe.
    pub stripe: StripeId,
    /// Its shard that was not good.
    pub shard: ShardIndex,
    /// Where it should have been.
    pub disk: DiskId,
    /// What was wrong.
    pub error: Error,
}

/// Whether a disk of the volume can be counted on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Presence {
    /// It is in use.
    Here,
    /// It is in use, and to be emptied: it takes nothing new.
    Leaving,
    /// It does not answer, and may come back with all it holds.
    Away,
    /// It is given up: what it holds is to be placed anew.
    Out,
}

/// Looks up what a reader needs beside the record: who serves a disk, and the present epoch.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// Node that serves `disk`, and `None` while it is known to be down.
    fn node(&self, disk: DiskId) -> Option<NodeId>;
    /// Where other nodes find the one that serves `disk`; `None` if this process serves it, or it is known to be down.
    fn address(&self, _disk: DiskId) -> Option<NodeAddress> {
        None
    }
    /// Present epoch.
    fn epoch(&self) -> Epoch;
    /// All disks of the volume. One that is not among them is out.
    fn disks(&self) -> BTreeMap<DiskId, Presence>;
    /// Whether `disk` is slow to answer: it is asked only when others do not suffice.
    fn is_suspect(&self, disk: DiskId) -> bool;
    /// How long an answer may take before others are asked.
    fn patience(&self) -> Duration;
    /// `disk` has not answered for longer than any disk in order takes: others are asked until it shows that it answers.
    fn note_silent(&self, disk: DiskId);
    /// Whether there is room on `disk` beyond what is kept for repair, cleaning and deletion.
    fn has_room(&self, disk: DiskId) -> bool;
}

/// Up to this much is verified in the calling task: that takes less time than another thread needs to wake up.
const OPEN_HERE_BYTES_MAX: u64 = 64 * 1024;
/// How long a disk may take to answer a fetch before its shard is decoded around.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Reads stripes through the peers. Clones share their pins, and what they know of nodes.
#[derive(Clone, Debug)]
pub struct StripeReader {
    pub(super) peers: Arc<dyn Peers>,
    pub(super) cpu: Arc<Cpu>,
    pub(super) members: Arc<dyn Members>,
    findings: Sender<Finding>,
    pub(super) metrics: Arc<CodingMetrics>,
    pins: Arc<Pins>,
    hedges: Arc<Hedges>,
    pub(super) resting: Arc<Resting>,
    pub(super) timeout: Duration,
}

/// What is to be reconstructed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lack<'a> {
    /// These shards ...
    pub(super) lost: &'a [ShardIndex],
    /// ... at these ranges of their columns, each aligned,
    pub(super) ranges: &'a [Range<u64>],
    /// without the shards with these bits.
    pub(super) excluded: u64,
    /// Priority of the fetches.
    pub(super) priority: Priority,
}

impl StripeReader {
    /// Reads through `peers`, decoding timed by `metrics`. Findings that do not fit into `findings` are dropped: a later
    /// read finds them again.
    pub fn new(
        peers: Arc<dyn Peers>,
        cpu: Arc<Cpu>,
        members: Arc<dyn Members>,
        findings: Sender<Finding>,
        metrics: Arc<CodingMetrics>,
    ) -> Self {
        Self {
            peers,
            cpu,
            members,
            findings,
            metrics,
            pins: Arc::default(),
            hedges: Arc::default(),
            resting: Arc::default(),
            timeout: CALL_TIMEOUT,
        }
    }

    /// The same reader, which gives up on a fetch after `timeout`.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether a read of this stripe runs: its shards must not be deleted now.
    pub fn pinned(&self, stripe: StripeId) -> bool {
        self.pins.holds(stripe)
    }

    /// Reads the wanted pieces of one stripe, in order. Each is verified against its frame's header sum and the
    /// block sums in the header. A failed, slow or bad shard is decoded around and reported as a `Finding`, unless
    /// that is known: its disk is down, or the record says that it is missing.
    ///
    /// Errors: `Corrupt` when no combination of shards gives bytes that verify; `Unavailable` when fewer
    /// than k shards answer; `NotFound` when no shard is there at all (the caller reads the extents once more).
    pub async fn read(&self, record: &StripeRecord, pieces: &[Piece]) -> Result<Vec<Bytes>> {
        let _pin = self.pin(record.id);
        let plan = Arc::new(ReadPlan::new(record, pieces)?);
        let mut sources = self.sources(record);
        let result = self.read_verified(record, &plan, &mut sources).await;
        let gone = matches!(&result, Err(error) if error.is(Posix::NotFound));
        if !gone {
            self.report(record, &sources);
        }
        result.map_err(|error| error.while_doing(format!("read stripe {}", record.id)))
    }

    /// The slot table of a stripe, from the first shard whose footer fits the record.
    ///
    /// Errors: as for `read`.
    pub async fn slots(&self, record: &StripeRecord) -> Result<SlotTable> {
        let _pin = self.pin(record.id);
        self.slot_table(record).await.map(|(_bytes, table)| table)
    }

    /// The slot table with its encoded form.
    pub(super) async fn slot_table(&self, record: &StripeRecord) -> Result<(Bytes, SlotTable)> {
        let mut sources = self.sources(record);
        // Those that are asked last come into play when the others have failed.
        for index in record.shards().chain(record.shards()) {
            if !sources.is_usable(index) {
                continue;
            }
            match self.stat(record, index).await {
                Ok(found) => {
                    self.report(record, &sources);
                    return Ok(found);
                }
                Err(error) => sources.fail(index, error),
            }
        }
        let error = sources.verdict();
        if !error.is(Posix::NotFound) {
            self.report(record, &sources);
        }
        Err(error.while_doing(format!("read the slots of stripe {}", record.id)))
    }

    async fn stat(&self, record: &StripeRecord, index: ShardIndex) -> Result<(Bytes, SlotTable)> {
        let channel = self.channel(record, index, Priority::Read)?;
        let key = ShardKey { stripe: record.id, index };
        let Response::Footer(footer) = channel.call(Operation::Stat(key)).await? else {
            return Err(channel.confused());
        };
        let table = SlotTable::decode(&footer.slot_table)?;
        let fits = footer.header.key == key
            && footer.payload_bytes == record.payload_bytes
            && table.payload_bytes() == record.payload_bytes
            && u32::try_from(table.slots.len()) == Ok(record.slots);
        if !fits {
            let doing = format!("the footer of shard {}.{index} is of another stripe", record.id);
            return Err(Error::corrupt(doing));
        }
        Ok((footer.slot_table, table))
    }

    /// Gathers, verifies, and leaves out shards in turn if what came does not verify.
    async fn read_verified(
        &self,
        record: &StripeRecord,
        plan: &Arc<ReadPlan>,
        sources: &mut Sources,
    ) -> Result<Vec<Bytes>> {
        let columns = self.gather(record, plan, 0, sources).await?;
        let first = match self.open(plan, columns).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => error,
            other => return other,
        };
        for excluded in sources.suspects() {
            let Ok(columns) = self.gather(record, plan, excluded, sources).await else { continue };
            if let Ok(pieces) = self.open(plan, columns).await {
                for index in record.shards().filter(|index| excluded >> index.0 & 1 == 1) {
                    sources.fail(index, first.clone());
                }
                return Ok(pieces);
            }
        }
        Err(first)
    }

    async fn open(&self, plan: &Arc<ReadPlan>, columns: Columns) -> Result<Vec<Bytes>> {
        if plan.bytes() <= OPEN_HERE_BYTES_MAX {
            return plan.open(&columns);
        }
        let plan = Arc::clone(plan);
        self.cpu.run(move || plan.open(&columns)).await
    }

    /// Everything that the plan needs: fetched, and where that fails reconstructed, without the `excluded` shards.
    async fn gather(
        &self,
        record: &StripeRecord,
        plan: &ReadPlan,
        excluded: u64,
        sources: &mut Sources,
    ) -> Result<Columns> {
        if (sources.usable() & !excluded).count_ones() < u32::from(record.class.scheme.k()) {
            sources.call_reserve();
        }
        let mut columns = Columns::default();
        // Who lies is found by asking the same ones each time, so not the first that answer.
        while excluded != 0 || !sources.is_patient() {
            let direct: Vec<_> = plan
                .wanted
                .iter()
                .filter(|(index, _ranges)| !columns.has(**index))
                .filter(|(index, _ranges)| {
                    sources.is_usable(**index) && excluded >> index.0 & 1 == 0
                })
                .map(|(index, ranges)| (*index, ranges.clone()))
                .collect();
            if direct.is_empty() {
                break;
            }
            // When one fails, others that were spared may have to be asked.
            self.fetch_all(record, direct, Priority::Read, sources, &mut columns).await;
        }
        let lost: Vec<ShardIndex> =
            plan.wanted.keys().copied().filter(|index| !columns.has(*index)).collect();
        if lost.is_empty() {
            return Ok(columns);
        }
        let ranges = lost.iter().filter_map(|index| plan.wanted.get(index)).flatten().cloned();
        let ranges = merge(ranges.collect(), 0);
        let lack = Lack { lost: &lost, ranges: &ranges, excluded, priority: Priority::Read };
        let rebuilt = self.reconstruct(record, lack, sources).await?;
        for (index, cells) in lost.into_iter().zip(rebuilt) {
            columns.insert(index, ranges.iter().cloned().zip(cells).collect());
        }
        Ok(columns)
    }

    /// Fetches ranges of several shards side by side. What fails is noted in `sources`.
    async fn fetch_all(
        &self,
        record: &StripeRecord,
        wanted: Vec<(ShardIndex, Vec<Range<u64>>)>,
        priority: Priority,
        sources: &mut Sources,
        columns: &mut Columns,
    ) {
        let patient = sources.is_patient() || priority == Priority::Background;
        let fetches = wanted.into_iter().map(|(index, ranges)| async move {
            let fetch = self.fetch(record, index, &ranges, priority);
            let result = if patient {
                Ok(fetch.await)
            } else {
                self.hedges.follow(fetch, self.members.patience()).await
            };
            (index, ranges, result)
        });
        for (index, ranges, result) in join_all(fetches).await {
            match result {
                Ok(Ok(bytes)) => {
                    sources.answered(index);
                    columns.insert(index, ranges.into_iter().zip(bytes).collect());
                }
                Ok(Err(error)) => sources.fail(index, error),
                Err(late) => {
                    if let (Late::Silent, Some(disk)) =
                        (late, record.disks.get(usize::from(index.0)))
                    {
                        self.members.note_silent(*disk);
                    }
                    sources.put_off(index);
                }
            }
        }
    }

    pub(super) async fn fetch(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        ranges: &[Range<u64>],
        priority: Priority,
    ) -> Result<Vec<Bytes>> {
        let channel = self.channel(record, index, priority)?;
        let key = ShardKey { stripe: record.id, index };
        let Response::Bytes(bytes) = channel.call(Operation::Fetch(key, ranges.to_vec())).await?
        else {
            return Err(channel.confused());
        };
        let fits = bytes.len() == ranges.len()
            && ranges
                .iter()
                .zip(&bytes)
                .all(|(range, bytes)| u64::try_from(bytes.len()) == Ok(range.end - range.start));
        if fits { Ok(bytes) } else { Err(channel.confused()) }
    }

    /// Asks all shards that may be asked, also those that were late, until any k have answered, or those that lack: one
    /// that keeps silent is waited for only where nobody can take its place.
    async fn fetch_first(
        &self,
        record: &StripeRecord,
        lack: Lack<'_>,
        sources: &mut Sources,
        columns: &mut Columns,
    ) -> Result<()> {
        let Lack { lost, ranges, priority, .. } = lack;
        let k = usize::from(record.class.scheme.k());
        let able: Vec<_> = record.shards().filter(|index| sources.is_usable(*index)).collect();
        // If each of k has to answer, it is enough to ask those that lack.
        let only_lost = able.len() == k && lost.iter().all(|index| able.contains(index));
        let asked = if only_lost { lost } else { &able };
        let asked = asked.iter().copied().filter(|index| !columns.has(*index));
        let fetch =
            async |index: ShardIndex| (index, self.fetch(record, index, ranges, priority).await);
        let mut fetches: FuturesUnordered<_> = asked.map(fetch).collect();
        while let Some((index, result)) = fetches.next().await {
            match result {
                Ok(bytes) => {
                    sources.answered(index);
                    columns.insert(index, ranges.iter().cloned().zip(bytes).collect());
                }
                Err(error) => sources.fail(index, error),
            }
            if columns.shards().len() >= k || lost.iter().all(|index| columns.has(*index)) {
                return Ok(());
            }
        }
        Err(sources.verdict())
    }

    /// What lacks, from any k other shards: for each lost shard the bytes of each range.
    pub(super) async fn reconstruct(
        &self,
        record: &StripeRecord,
        lack: Lack<'_>,
        sources: &mut Sources,
    ) -> Result<Vec<Vec<Bytes>>> {
        let Lack { lost, ranges, excluded, priority } = lack;
        let coder = coder(record.class.scheme);
        let without = lost.iter().fold(excluded, |mask, index| mask | 1 << index.0);
        let mut columns = Columns::default();
        let chosen = loop {
            if sources.is_patient() && excluded == 0 && priority != Priority::Background {
                self.fetch_first(record, lack, sources, &mut columns).await?;
                break columns.shards();
            }
            let Some(chosen) = coder.plan(sources.usable() & !without, lost) else {
                if sources.call_reserve() {
                    continue;
                }
                return Err(sources.verdict());
            };
            let open = chosen.iter().filter(|index| !columns.has(**index));
            let open: Vec<_> = open.map(|index| (*index, ranges.to_vec())).collect();
            if open.is_empty() {
                break chosen;
            }
            self.fetch_all(record, open, priority, sources, &mut columns).await;
        };
        let (n, lost) = (usize::from(record.class.scheme.n()), lost.to_vec());
        let ranges = ranges.len();
        let decoding = self.metrics.decode(&record.class);
        let decode = move || -> Result<Vec<Vec<Bytes>>> {
            let timer = decoding.start();
            let mut rebuilt = vec![Vec::with_capacity(ranges); lost.len()];
            for number in 0..ranges {
                let mut cells: Vec<Option<&[u8]>> = vec![None; n];
                for index in &chosen {
                    if let Some(cell) = cells.get_mut(usize::from(index.0)) {
                        *cell = columns.nth(*index, number);
                    }
                }
                let decoded = coder
                    .reconstruct(&cells, &lost)
                    .map_err(|few| Error::with_source(ErrorKind::Unavailable, "decode", few))?;
                for (all, bytes) in rebuilt.iter_mut().zip(decoded) {
                    all.push(Bytes::from(bytes));
                }
            }
            timer.stop();
            Ok(rebuilt)
        };
        let (rebuilt, purpose) = match priority {
            Priority::Sync | Priority::Read => (self.cpu.run(decode).await?, Purpose::Read),
            Priority::Background => (self.cpu.run_background(decode).await?, Purpose::Repair),
        };
        self.metrics.recovered(purpose);
        Ok(rebuilt)
    }

    /// The way to a shard. Error: `Unavailable` if its disk is down or unknown.
    pub(super) fn channel(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        priority: Priority,
    ) -> Result<Channel> {
        let disk = record.disks.get(usize::from(index.0)).copied().unwrap_or(NO_DISK);
        let node = self.members.node(disk);
        let node = node.ok_or_else(|| Error::unavailable(format!("disk {disk} is down")))?;
        Ok(Channel {
            peers: Arc::clone(&self.peers),
            node,
            disk,
            epoch: self.members.epoch(),
            priority,
            timeout: self.timeout,
        })
    }

    /// The shards of a record that may be asked.
    pub(super) fn sources(&self, record: &StripeRecord) -> Sources {
        let reachable = |index: &ShardIndex| {
            let disk = record.disks.get(usize::from(index.0)).copied().unwrap_or(NO_DISK);
            !record.is_missing(*index) && disk != NO_DISK && self.members.node(disk).is_some()
        };
        let mask = |mask: u64, index: ShardIndex| mask | 1 << index.0;
        let slow = |index: &ShardIndex| {
            let disk = record.disks.get(usize::from(index.0));
            disk.is_some_and(|disk| self.members.is_suspect(*disk))
        };
        let usable = record.shards().filter(reachable).fold(0, mask);
        let slow = record.shards().filter(slow).fold(0, mask);
        Sources::new(record.class.scheme, usable).spare(slow)
    }

    /// Tells repair of the shards that failed.
    pub(super) fn report(&self, record: &StripeRecord, sources: &Sources) {
        for (shard, error) in sources.failed() {
            let disk = record.disks.get(usize::from(shard.0)).copied().unwrap_or(NO_DISK);
            let finding = Finding { stripe: record.id, shard: *shard, disk, error: error.clone() };
            if self.findings.try_send(finding).is_err() {
                tracing::debug!(stripe = %record.id, shard = shard.0, "no room for a finding");
            }
        }
    }

    /// Pins a stripe for as long as the answer lives.
    pub(super) fn pin(&self, stripe: StripeId) -> Pin {
        self.pins.hold(stripe)
    }
}

#[cfg(test)]
mod tests;
