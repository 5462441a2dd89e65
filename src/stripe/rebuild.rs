//! Makes a lost shard anew from k others, copies one that is good, and checks a shard against its record. Nodes do it among
//! themselves where they can; else the bytes go through here. Knows no metadata: its caller commits where the shard is now.

use crate::error::{Error, ErrorKind, Result};
use crate::net::{Operation, Priority, Response, Seal, ShardHeader, ShardKey};
use crate::stripe::layout::StripeRecord;
use crate::stripe::put::Channel;
use crate::stripe::reader::{Lack, Sources, StripeReader};
use crate::types::{DiskId, NodeId, ShardIndex};
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

mod gather;

pub(super) use gather::Resting;

/// How long a call that writes may take.
const PUT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long reading a whole shard may take.
const VERIFY_TIMEOUT: Duration = Duration::from_secs(60);
/// Root of a shard that was never acknowledged.
const NO_ROOT: [u8; 32] = [0; 32];

impl StripeReader {
    /// Writes shard `index` of a stripe to the disk `to`, row by row, and answers the root of its cell hashes. On
    /// return it is durable. The root is that of the record, unless the record has none. Sources that fail are
    /// replaced by others; sources that lie are found because the root is wrong. May be cancelled: what was
    /// written is an orphan.
    ///
    /// Errors: those of `read`; `NoSpace` and `Unavailable` of the target.
    pub async fn rebuild_shard(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        to: (NodeId, DiskId),
        priority: Priority,
    ) -> Result<[u8; 32]> {
        let _pin = self.pin(record.id);
        let doing = || format!("rebuild shard {}.{index} on disk {}", record.id, to.1);
        let expected = record
            .shard_roots
            .get(usize::from(index.0))
            .copied()
            .ok_or_else(|| Error::internal(format!("{}: there is no such shard", doing())))?;
        let channel = self.put_channel(to, priority);
        let (slot_table, _slots) = self.slot_table(record).await?;
        let seal = Seal { payload_bytes: record.payload_bytes, slot_table };
        let key = ShardKey { stripe: record.id, index };
        let mut sources = self.sources(record);
        // What is there now under this index is what is to be replaced.
        sources.leave_out(index);
        let outputs = [Output { key, channel: channel.clone() }];
        let from = Origin::Others { excluded: 0 };
        let job = Job { reader: self, record, outputs: &outputs, from };
        let gathered = job.gather(&seal, sources.usable()).await;
        if let Some(roots) = gathered.map_err(|error| error.while_doing(doing()))? {
            return first(roots);
        }
        let mut combinations = vec![0];
        combinations.extend(sources.suspects());
        let mut last = None;
        for excluded in combinations {
            let job = Job { from: Origin::Others { excluded }, ..job };
            let result = job.run(&seal, &mut sources).await;
            match result.and_then(first) {
                Ok(root) if root == expected || expected == NO_ROOT => {
                    if root == expected {
                        let liars = record.shards().filter(|shard| excluded >> shard.0 & 1 == 1);
                        liars.for_each(|shard| sources.fail(shard, Error::corrupt(doing())));
                    }
                    self.report(record, &sources);
                    return Ok(root);
                }
                Ok(_wrong_root) => {
                    channel.discard(key).await;
                    let text = format!("{}: its root is not that of the record", doing());
                    last = Some(Error::corrupt(text));
                }
                Err(error) => {
                    if last.is_none() {
                        self.report(record, &sources);
                        return Err(error.while_doing(doing()));
                    }
                }
            }
        }
        self.report(record, &sources);
        Err(last.unwrap_or_else(|| Error::new(ErrorKind::Corrupt, doing())))
    }

    /// As `rebuild_shard` for several shards, each with its disk: what they are computed from is read once. Answers their
    /// roots in order, or none is there.
    ///
    /// Errors: as `rebuild_shard`, and `Corrupt` if a source lies: `rebuild_shard` finds out which.
    pub async fn rebuild_shards(
        &self,
        record: &StripeRecord,
        lost: &[(ShardIndex, (NodeId, DiskId))],
        priority: Priority,
    ) -> Result<Vec<[u8; 32]>> {
        let _pin = self.pin(record.id);
        let (slot_table, _slots) = self.slot_table(record).await?;
        let seal = Seal { payload_bytes: record.payload_bytes, slot_table };
        let mut sources = self.sources(record);
        let output = |(index, to): &(ShardIndex, (NodeId, DiskId))| Output {
            key: ShardKey { stripe: record.id, index: *index },
            channel: self.put_channel(*to, priority),
        };
        let outputs: Vec<Output> = lost.iter().map(output).collect();
        lost.iter().for_each(|(index, _to)| sources.leave_out(*index));
        let from = Origin::Others { excluded: 0 };
        let job = Job { reader: self, record, outputs: &outputs, from };
        if let Some(roots) = job.gather(&seal, sources.usable()).await? {
            return Ok(roots);
        }
        let result = job.run(&seal, &mut sources).await;
        self.report(record, &sources);
        let roots = result?;
        if job.fits(&roots) {
            return Ok(roots);
        }
        job.discard().await;
        Err(Error::corrupt(format!(
            "rebuild shards of {}: a root is not that of the record",
            record.id
        )))
    }

    /// As `rebuild_shard`, but the bytes come from where the record says the shard is, which reads it once instead of k
    /// others. If it is not good there, it is rebuilt.
    ///
    /// Errors: as `rebuild_shard`.
    pub async fn copy_shard(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        to: (NodeId, DiskId),
        priority: Priority,
    ) -> Result<[u8; 32]> {
        let copied = async {
            let _pin = self.pin(record.id);
            let (slot_table, _slots) = self.slot_table(record).await?;
            let seal = Seal { payload_bytes: record.payload_bytes, slot_table };
            let key = ShardKey { stripe: record.id, index };
            let outputs = [Output { key, channel: self.put_channel(to, priority) }];
            let job = Job { reader: self, record, outputs: &outputs, from: Origin::Itself };
            let mut sources = self.sources(record);
            if let Some(roots) = job.gather(&seal, sources.usable()).await? {
                return first(roots);
            }
            let roots = job.run(&seal, &mut sources).await?;
            if job.fits(&roots) {
                return first(roots);
            }
            job.discard().await;
            Err(Error::corrupt(format!("copy shard {}.{index}: it has another root", record.id)))
        };
        match copied.await {
            Err(error) if matches!(error.kind(), ErrorKind::Fenced) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "a shard is rebuilt, not copied");
                self.rebuild_shard(record, index, to, priority).await
            }
            copied => copied,
        }
    }

    fn put_channel(&self, to: (NodeId, DiskId), priority: Priority) -> Channel {
        Channel {
            peers: Arc::clone(&self.peers),
            node: to.0,
            disk: to.1,
            epoch: self.members.epoch(),
            priority,
            timeout: PUT_TIMEOUT,
        }
    }

    /// Checks a shard where the record says it is: every block CRC and cell hash, and its footer against the record.
    ///
    /// Errors: `Corrupt`, `NotFound`, `Unavailable`.
    pub async fn verify_shard(&self, record: &StripeRecord, index: ShardIndex) -> Result<()> {
        let _pin = self.pin(record.id);
        let channel = self.channel(record, index, Priority::Background)?;
        let channel = Channel { timeout: VERIFY_TIMEOUT, ..channel };
        let key = ShardKey { stripe: record.id, index };
        let Response::Footer(footer) = channel.call(Operation::Stat(key)).await? else {
            return Err(channel.confused());
        };
        let root = record.shard_roots.get(usize::from(index.0));
        let fits = footer.header.key == key
            && footer.payload_bytes == record.payload_bytes
            && footer.cells_bytes == record.geometry().shard_bytes()
            && root == Some(&footer.root);
        if !fits {
            return Err(Error::corrupt(format!(
                "verify shard {}.{index} on disk {}: its footer does not fit the record",
                record.id, channel.disk
            )));
        }
        channel.call(Operation::Verify(key)).await.map(drop)
    }
}

/// A shard that is written anew, and where.
struct Output {
    key: ShardKey,
    channel: Channel,
}

/// One attempt to write shards of a stripe anew.
#[derive(Clone, Copy)]
struct Job<'a> {
    reader: &'a StripeReader,
    record: &'a StripeRecord,
    outputs: &'a [Output],
    from: Origin,
}

/// Where their bytes come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// Computed from others, without those with these bits.
    Others { excluded: u64 },
    /// The shards where they are now.
    Itself,
}

impl Job<'_> {
    /// Answers the roots; leaves nothing behind if it fails.
    async fn run(&self, seal: &Seal, sources: &mut Sources) -> Result<Vec<[u8; 32]>> {
        let mut begun = false;
        let result = self.copy(seal, sources, &mut begun).await;
        if begun && result.is_err() {
            self.discard().await;
        }
        result
    }

    async fn discard(&self) {
        join_all(self.outputs.iter().map(|output| output.channel.discard(output.key))).await;
    }

    async fn copy(
        &self,
        seal: &Seal,
        sources: &mut Sources,
        begun: &mut bool,
    ) -> Result<Vec<[u8; 32]>> {
        let geometry = self.record.geometry();
        for row in 0..geometry.rows() {
            let cells = self.cells(geometry.columns_of(row), sources).await?;
            if row == 0 {
                // Not earlier: they may replace shards that are partly good.
                *begun = true;
                let begins =
                    self.outputs.iter().map(|output| output.channel.begin(self.header(output.key)));
                try_join_all(begins).await?;
            }
            let appends = self.outputs.iter().zip(cells);
            let appends =
                appends.map(|(output, cell)| output.channel.append(output.key, vec![cell]));
            try_join_all(appends).await?;
        }
        self.seal(seal).await
    }

    /// Ends all of them; answers their roots.
    async fn seal(&self, seal: &Seal) -> Result<Vec<[u8; 32]>> {
        let seals = self.outputs.iter().map(|output| output.channel.seal(output.key, seal.clone()));
        try_join_all(seals).await
    }

    /// Whether the roots are those of the record. It has none of a shard that was never acknowledged: what is computed
    /// for it is taken as it is.
    fn fits(&self, roots: &[[u8; 32]]) -> bool {
        self.outputs.iter().zip(roots).all(|(output, root)| {
            match self.record.shard_roots.get(usize::from(output.key.index.0)) {
                Some(&NO_ROOT) => matches!(self.from, Origin::Others { .. }),
                known => known == Some(root),
            }
        })
    }

    fn header(&self, key: ShardKey) -> ShardHeader {
        let scheme = self.record.class.scheme;
        ShardHeader {
            key,
            class: self.record.class_id,
            data_shards: scheme.k(),
            parity_shards: scheme.m(),
            cell_bytes: self.record.class.cell_bytes,
            epoch: self.record.epoch,
        }
    }

    /// One cell for each output.
    async fn cells(&self, columns: Range<u64>, sources: &mut Sources) -> Result<Vec<Bytes>> {
        let lost: Vec<ShardIndex> = self.outputs.iter().map(|output| output.key.index).collect();
        let priority = self.outputs.first().map_or(Priority::Background, |o| o.channel.priority);
        match self.from {
            Origin::Itself => {
                let columns = [columns];
                let fetches = lost
                    .iter()
                    .map(|index| self.reader.fetch(self.record, *index, &columns, priority));
                Ok(try_join_all(fetches).await?.into_iter().flatten().collect())
            }
            Origin::Others { excluded } => {
                let lack = Lack { lost: &lost, ranges: &[columns], excluded, priority };
                let rebuilt = self.reader.reconstruct(self.record, lack, sources).await?;
                Ok(rebuilt.into_iter().flatten().collect())
            }
        }
    }
}

/// The root of the one shard of a job.
fn first(roots: Vec<[u8; 32]>) -> Result<[u8; 32]> {
    roots.into_iter().next().ok_or_else(|| Error::internal("a shard without a root"))
}

#[cfg(test)]
mod tests;
