//! Checks a volume that is not mounted: metadata against itself, and against the shards. Changes nothing.

use super::{Volume, VolumeOptions, World};
use crate::config::Config;
use crate::disk::set::DiskState;
use crate::disk::superblock::MemberState;
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::fs::AtimeMode;
use crate::meta::check::check;
use crate::net::{Operation, Peers, Priority, Request, Response, ShardKey};
use crate::stripe::layout::StripeRecord;
use crate::types::{DiskId, NodeId, ShardIndex, StripeId, Timestamp};
use futures_util::StreamExt;
use futures_util::stream;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Stripes read at once, and shards listed at once.
const PAGE: usize = 512;
/// Shards looked at together.
const CONCURRENCY: usize = 16;
/// Most findings that are listed.
const FINDINGS_MAX: usize = 1000;

/// What a check found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FsckReport {
    /// Inodes.
    pub inodes: u64,
    /// Live stripes.
    pub stripes: u64,
    /// Shards that were looked at.
    pub shards_checked: u64,
    /// Bytes of shards that were read and verified.
    pub bytes_read: u64,
    /// Log position that was checked.
    pub position: u64,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// What is wrong.
    pub findings: Vec<String>,
}

impl FsckReport {
    fn find(&mut self, finding: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding);
        }
    }
}

/// Checks the volume of `config`, which must not be mounted, in `world`; with `read_data` every byte of every shard.
///
/// Errors: as opening it read-only.
pub async fn check_in(
    config: &Config,
    read_data: bool,
    time: Timestamp,
    world: World,
) -> Result<FsckReport> {
    let options = VolumeOptions {
        read_only: true,
        atime: AtimeMode::Never,
        nodiratime: true,
        clock: Arc::new(move || time),
        holder: format!("ironfs fsck, pid {}", std::process::id()),
    };
    let volume = Volume::open(config, options, world).await?;
    let report = volume.check(read_data).await;
    let closed = volume.shutdown().await;
    let report = report?;
    closed?;
    Ok(report)
}

impl Volume {
    /// Checks what is committed. Right only while nothing changes.
    pub(super) async fn check(&self, read_data: bool) -> Result<FsckReport> {
        let view = self.meta.view()?;
        let totals = view.totals()?;
        let mut report = FsckReport {
            inodes: totals.inodes,
            stripes: totals.stripes,
            position: view.applied()?.get(),
            ..FsckReport::default()
        };
        let findings = check(&view)?;
        if findings.count > findings.list.len() {
            report
                .notes
                .push(format!("{} findings in the metadata, some not listed", findings.count));
        }
        findings.list.into_iter().for_each(|finding| report.find(finding));
        if totals.hot_bytes > 0 {
            report
                .notes
                .push(format!("{} bytes of small data are in the metadata", totals.hot_bytes));
        }
        // Their bytes tell, if they are read; else it counts what was found before.
        let noted = if read_data { BTreeMap::new() } else { self.noted()? };
        let shards: u32 = noted.values().map(|bad| bad.count_ones()).sum();
        if shards > 0 {
            report.notes.push(format!("{shards} shards are noted as damaged, and wait for repair"));
        }
        let mut after = None;
        loop {
            let page = view.stripes(after, PAGE)?;
            let Some((last, _live)) = page.last() else { break };
            after = Some(last.id);
            self.check_stripes(&page, (read_data, &noted), &mut report).await;
        }
        for handle in self.disks.healthy() {
            self.check_surplus(handle.id, &mut report).await?;
        }
        let members = self.log.members();
        let has_left = |disk: DiskId| {
            members.member(disk).is_some_and(|member| member.state == MemberState::Removed)
        };
        for status in self.disks.states().into_iter().filter(|status| !has_left(status.id)) {
            if let DiskState::Down(reason) = status.state {
                report.notes.push(format!("{} was not checked: {reason}", status.label));
            }
        }
        Ok(report)
    }

    async fn check_stripes(
        &self,
        page: &[(StripeRecord, u64)],
        (read_data, noted): (bool, &BTreeMap<StripeId, u64>),
        report: &mut FsckReport,
    ) {
        let shards = page
            .iter()
            .flat_map(|(record, _live)| record.shards().map(move |index| (record, index)))
            .filter(|(record, index)| {
                noted.get(&record.id).is_none_or(|bad| bad >> index.0 & 1 == 0)
            });
        let looks = shards.map(|(record, index)| async move {
            (record, index, self.check_shard(record, index, read_data).await)
        });
        let mut looks = stream::iter(looks).buffer_unordered(CONCURRENCY);
        let mut good: BTreeMap<u64, usize> = BTreeMap::new();
        while let Some((record, index, found)) = looks.next().await {
            let count = good.entry(record.id.get()).or_default();
            match found {
                Ok(None) => {}
                Ok(Some(bytes)) => {
                    *count += 1;
                    report.shards_checked += 1;
                    report.bytes_read += bytes;
                }
                Err(error) => {
                    report.find(format!("shard {} of stripe {}: {error}", index.0, record.id));
                }
            }
        }
        for (record, _live) in page {
            let (found, k) =
                (good.get(&record.id.get()).copied().unwrap_or(0), record.class.scheme.k());
            if found < usize::from(k) {
                report.find(format!("stripe {} has {found} good shards and needs {k}", record.id));
            }
        }
    }

    /// Looks at one shard: bytes read if it is good, `None` if it is known not to be there.
    async fn check_shard(
        &self,
        record: &StripeRecord,
        index: ShardIndex,
        read_data: bool,
    ) -> Result<Option<u64>> {
        let at = usize::from(index.0);
        let disk = record.disks.get(at).copied().filter(|disk| self.disks.get(*disk).is_some());
        let Some(disk) = disk.filter(|_disk| !record.is_missing(index)) else { return Ok(None) };
        let key = ShardKey { stripe: record.id, index };
        let Response::Footer(footer) = self.ask(disk, Operation::Stat(key)).await? else {
            return Err(Error::internal("a shard answered something else"));
        };
        if footer.payload_bytes != record.payload_bytes
            || Some(&footer.root) != record.shard_roots.get(at)
        {
            return Err(Error::corrupt(format!(
                "disk {disk} holds another shard than was committed"
            )));
        }
        if !read_data {
            return Ok(Some(0));
        }
        self.ask(disk, Operation::Verify(key)).await?;
        Ok(Some(footer.cells_bytes))
    }

    /// Notes shards that no stripe names: what was written and not committed, or not yet deleted.
    async fn check_surplus(&self, disk: DiskId, report: &mut FsckReport) -> Result<()> {
        let view = self.meta.view()?;
        let (mut after, mut surplus) = (None, 0_u64);
        loop {
            let Response::Keys(keys) =
                self.ask(disk, Operation::List { after, limit: PAGE, seen: false }).await?
            else {
                return Err(Error::internal("a disk answered something else"));
            };
            let Some(last) = keys.last() else { break };
            after = Some(*last);
            for key in keys {
                let named = view.stripe(key.stripe)?.is_some_and(|record| {
                    record.disks.get(usize::from(key.index.0)) == Some(&disk)
                        && !record.is_missing(key.index)
                });
                surplus += u64::from(!named);
            }
        }
        if surplus > 0 {
            report.notes.push(format!(
                "disk {disk} has {surplus} shards that no stripe names; the next mount deletes them"
            ));
        }
        Ok(())
    }

    async fn ask(&self, disk: DiskId, operation: Operation) -> Result<Response> {
        let request =
            Request { disk, epoch: self.log.epoch(), priority: Priority::Background, operation };
        let answer = self.peers.call(NodeId(0), request).await;
        answer.map_err(|error| match error.kind() {
            ErrorKind::Posix(Posix::NotFound) => {
                Error::corrupt(format!("it is not on disk {disk}"))
            }
            _ => error,
        })
    }
}
