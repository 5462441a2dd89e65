//! Makes a lost shard anew from k others, copies one that is good, and checks a shard against its record. Knows no
//! metadata: its caller commits where the shard is now.

use crate::error::{Error, ErrorKind, Result};
use crate::net::{Operation, Priority, Response, Seal, ShardHeader, ShardKey};
use crate::stripe::layout::StripeRecord;
use crate::stripe::put::Channel;
use crate::stripe::reader::{Lack, Sources, StripeReader};
use crate::types::{DiskId, NodeId, ShardIndex};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

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
        let mut combinations = vec![0];
        combinations.extend(sources.suspects());
        let mut last = None;
        for excluded in combinations {
            let from = Origin::Others { excluded };
            let job = Job { reader: self, record, key, channel: &channel, from };
            let result = job.run(&seal, &mut sources).await;
            match result {
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
        let expected = record.shard_roots.get(usize::from(index.0)).copied();
        let copied = async {
            let _pin = self.pin(record.id);
            let channel = self.put_channel(to, priority);
            let (slot_table, _slots) = self.slot_table(record).await?;
            let seal = Seal { payload_bytes: record.payload_bytes, slot_table };
            let key = ShardKey { stripe: record.id, index };
            let job = Job { reader: self, record, key, channel: &channel, from: Origin::Itself };
            let root = job.run(&seal, &mut self.sources(record)).await?;
            if expected == Some(root) && root != NO_ROOT {
                return Ok(root);
            }
            channel.discard(key).await;
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

/// One attempt to write a shard anew.
struct Job<'a> {
    reader: &'a StripeReader,
    record: &'a StripeRecord,
    key: ShardKey,
    channel: &'a Channel,
    from: Origin,
}

/// Where its bytes come from.
#[derive(Clone, Copy, Debug)]
enum Origin {
    /// Computed from others, without those with these bits.
    Others { excluded: u64 },
    /// The shard where it is now.
    Itself,
}

impl Job<'_> {
    /// Leaves nothing behind if it fails.
    async fn run(&self, seal: &Seal, sources: &mut Sources) -> Result<[u8; 32]> {
        let mut begun = false;
        let result = self.copy(seal, sources, &mut begun).await;
        if begun && result.is_err() {
            self.channel.discard(self.key).await;
        }
        result
    }

    async fn copy(&self, seal: &Seal, sources: &mut Sources, begun: &mut bool) -> Result<[u8; 32]> {
        let scheme = self.record.class.scheme;
        let header = ShardHeader {
            key: self.key,
            class: self.record.class_id,
            data_shards: scheme.k(),
            parity_shards: scheme.m(),
            cell_bytes: self.record.class.cell_bytes,
            epoch: self.record.epoch,
        };
        let geometry = self.record.geometry();
        for row in 0..geometry.rows() {
            let cell = self.cell(geometry.columns_of(row), sources).await?;
            if row == 0 {
                // Not earlier: it may replace a shard that is partly good.
                *begun = true;
                self.channel.begin(header).await?;
            }
            self.channel.append(self.key, vec![cell]).await?;
        }
        self.channel.seal(self.key, seal.clone()).await
    }

    async fn cell(&self, columns: Range<u64>, sources: &mut Sources) -> Result<Bytes> {
        let (index, priority) = (self.key.index, self.channel.priority);
        let cells = match self.from {
            Origin::Itself => self.reader.fetch(self.record, index, &[columns], priority).await?,
            Origin::Others { excluded } => {
                let lack = Lack { lost: &[index], ranges: &[columns], excluded, priority };
                let rebuilt = self.reader.reconstruct(self.record, lack, sources).await?;
                rebuilt.into_iter().flatten().collect()
            }
        };
        Ok(cells.into_iter().next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
