//! What an open volume tells of itself: status, room, files.

use super::Volume;
use super::advice::{Advice, Seen};
use super::census::{Census, good_disks};
use super::info::{ChunkInfo, FileInfo, ShardInfo, StripeInfo};
use super::labels::Together;
use super::membership::candidates;
use super::status::{ClassSpace, DiskStatus, LogStatus, MetadataStatus, RepairStatus, Status};
use crate::class::Class;
use crate::disk::set::DiskState;
use crate::disk::superblock::MemberState;
use crate::error::{Error, Posix, Result};
use crate::fs::statfs::SpaceSource;
use crate::meta::local;
use crate::meta::model::FIRST_CLASS;
use crate::meta::store::View;
use crate::placement::Ring;
use crate::stripe::layout::StripeRecord;
use crate::types::{ChunkIndex, ClassId, DiskId, FileKind, Ino, ROOT_INO};
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

/// Stripes read at once.
const PAGE: usize = 1024;
/// Most chunks, and most stripes, that a file's description lists.
const LIST_MAX: usize = 4096;

/// What a volume survives that may lose so many disks, in words.
pub(super) fn survives(tolerance: u64, shared_device: bool) -> String {
    match (tolerance, shared_device) {
        (0, false) => "the loss of no disk".into(),
        (0, true) => "the loss of no directory".into(),
        (1, false) => "any 1 disk".into(),
        (1, true) => "any 1 directory; not the loss of this device".into(),
        (many, false) => format!("any {many} disks"),
        (many, true) => format!("any {many} directories; not the loss of this device"),
    }
}

/// The class of the root directory.
pub(super) fn root_class(view: &View) -> Result<(ClassId, Class)> {
    let id = view.inode(ROOT_INO)?.map_or(FIRST_CLASS, |root| root.class);
    let class = view.class(id)?;
    Ok((id, class.ok_or_else(|| Error::corrupt(format!("class {id} is not defined")))?))
}

/// What is known while the metadata can be read.
struct Known {
    metadata: MetadataStatus,
    census: Census,
    unplaced: Option<Class>,
}

impl Volume {
    /// What it survives at least, in words, going by the class of the root directory and the disks that are away. `status`
    /// knows better: it looks at every stripe.
    pub fn survives(&self) -> String {
        let class = self.meta.view().and_then(|view| Ok(root_class(&view)?.1));
        let tolerance = class.map_or(0, |class| u64::from(class.scheme.m()));
        let members = self.log.members();
        let used = members.disks.iter().filter(|member| member.state.is_expected());
        let away = used.filter(|member| self.disks.get(member.disk).is_none()).count() as u64;
        survives(tolerance.saturating_sub(away), self.has_shared_device())
    }

    fn has_shared_device(&self) -> bool {
        let mut devices = BTreeSet::new();
        let members = self.log.members();
        let used = members.disks.iter().filter(|member| member.state.counts());
        used.into_iter().any(|member| !devices.insert(member.device))
    }

    /// Whether changes are taken.
    ///
    /// Errors: the reason why not.
    pub fn health(&self) -> Result<()> {
        let log = self.log.status();
        if let Some(reason) = log.waiting {
            return Err(Error::unavailable(format!("the volume waits for disks: {reason}")));
        }
        match log.read_only {
            Some(reason) if !self.options.read_only => {
                Err(Error::unavailable(format!("the volume is read-only: {reason}")))
            }
            Some(_) | None => match self.too_few() {
                Some(reason) => {
                    Err(Error::unavailable(format!("data cannot be written: {reason}")))
                }
                None => Ok(()),
            },
        }
    }

    /// Why no data can be written in the class of the root directory, if that is so and nothing else is in the way.
    fn too_few(&self) -> Option<String> {
        let log = self.log.status();
        let view =
            self.meta.view().ok().filter(|_view| log.waiting.is_none() && !self.fs.read_only())?;
        self.too_few_disks(&view).ok().flatten()
    }

    /// The disks in use that keep the log.
    pub(super) fn log_disks(&self, log: &local::LogStatus) -> impl Iterator<Item = DiskId> {
        log.disks.iter().copied().filter(|disk| self.disks.get(*disk).is_some())
    }

    /// The metadata, to be read.
    ///
    /// Errors: why not; while all disks with it are away, that the volume waits for them.
    pub(super) fn view(&self) -> Result<View> {
        self.meta.view().map_err(|error| self.health().err().unwrap_or(error))
    }

    /// The volume at a glance. Always answers: without what is in the metadata while that cannot be read.
    pub fn status(&self) -> Status {
        let log = self.log.status();
        let disks = self.disk_statuses(&log.disks);
        let known = self.view().and_then(|view| self.known(&view, &log, &disks));
        let too_few = self.too_few();
        let Advice { mut problems, actions } = self.advice(&Seen {
            log: &log,
            disks: &disks,
            census: known.as_ref().ok().map(|known| &known.census),
            too_few: too_few.as_deref(),
            unplaced: known.as_ref().ok().and_then(|known| known.unplaced),
        });
        problems.extend(known.as_ref().err().map(|error| match &log.waiting {
            Some(_reason) => "the metadata cannot be read until then".to_owned(),
            None => format!("the metadata cannot be read: {error}"),
        }));
        let state = if log.read_only.is_some() || self.fs.read_only() {
            "read-only"
        } else if log.waiting.is_some() || too_few.is_some() {
            "waiting"
        } else if problems.is_empty() {
            "healthy"
        } else {
            "degraded"
        };
        Status {
            name: self.config.name.clone(),
            volume: self.id.to_string(),
            state: state.into(),
            problems,
            actions,
            mount: None,
            pid: Some(std::process::id()),
            epoch: self.log.epoch().get(),
            metadata: known.ok().map(|known| known.metadata),
            shared_device: self.has_shared_device(),
            disks,
            dirty_bytes: self.data.total_dirty_bytes(),
            log: LogStatus {
                applied: log.applied.get(),
                durable: log.durable.get(),
                disks: self.log_disks(&log).map(DiskId::get).collect(),
                wanted: u32::try_from(log.wanted).unwrap_or(u32::MAX),
            },
        }
    }

    /// What the metadata tells, and the look at all stripes that it took.
    fn known(&self, view: &View, log: &local::LogStatus, disks: &[DiskStatus]) -> Result<Known> {
        let (totals, (_id, class)) = (view.totals()?, root_class(view)?);
        let census = self.count_stripes(view)?;
        let log_margin = count(self.log_disks(log).count()) - 1;
        let in_use = ["healthy", "full", "suspect", "draining"];
        let in_use = disks.iter().filter(|disk| in_use.contains(&disk.state.as_str()));
        let spare = count(in_use.count()) - i64::from(class.scheme.k());
        let survives_disks = census
            .worst()
            .unwrap_or_else(|| spare.min(i64::from(class.scheme.m())))
            .min(log_margin)
            .max(0);
        let metadata = MetadataStatus {
            class: class.to_string(),
            survives_disks,
            survives: self.survives_together(survives_disks.unsigned_abs(), &class, log)?,
            stripes_by_margin: census
                .margins
                .iter()
                .map(|(margin, count)| (margin.to_string(), *count))
                .collect(),
            hot_bytes: totals.hot_bytes,
            repair: RepairStatus {
                waiting: self.repair.waiting() as u64,
                noted: view.repair_count()?,
                paused: self.repair.is_paused(),
                full_margin_seconds: self.full_margin_in().map(|time| time.as_secs()),
            },
            space: self.root_space(view)?,
            inodes: totals.inodes,
        };
        Ok(Known { metadata, unplaced: self.unplaced(view, &census)?, census })
    }

    /// What it survives that may lose so many disks, in words, disks that go together included.
    fn survives_together(
        &self,
        tolerance: u64,
        class: &Class,
        log: &local::LogStatus,
    ) -> Result<String> {
        let survives = survives(tolerance, self.has_shared_device());
        if tolerance == 0 {
            return Ok(survives);
        }
        let mut together = Together::new(&self.log.members());
        let copies: Vec<DiskId> = self.log_disks(log).collect();
        together.note(&copies, count(copies.len()) - 1);
        self.note_together(&mut together)?;
        let domain = together.survived().filter(|_kind| self.is_spread(class));
        Ok(match (domain, survives.split_once(';')) {
            (None, _) => survives,
            (Some(kind), None) => format!("{survives}, and any one {kind}"),
            (Some(kind), Some((disks, not))) => format!("{disks}, and any one {kind};{not}"),
        })
    }

    /// One disk.
    ///
    /// Errors: `Refused` if there is no such disk.
    pub fn disk_status(&self, disk: DiskId) -> Result<DiskStatus> {
        let statuses = self.disk_statuses(&self.log.status().disks);
        let found = statuses.into_iter().find(|status| status.id == disk.get());
        found.ok_or_else(|| Error::refused(format!("there is no disk {disk}")))
    }

    /// Each disk as it is.
    pub(super) fn disk_statuses(&self, log: &[DiskId]) -> Vec<DiskStatus> {
        let members = self.log.members();
        let states = self.disks.states().into_iter();
        let held =
            self.rebalance.is_paused().then(|| "it is held: ironfs jobs --resume rebalance".into());
        let shown = states.filter(|status| members.member(status.id).is_some()).map(|status| {
            let member = members.member(status.id).map(|member| member.state);
            let (state, reason) = match (&status.state, member) {
                (_, Some(MemberState::Removed)) => ("removed", None),
                (DiskState::Down(reason), Some(MemberState::Out)) => ("out", Some(reason.clone())),
                (_, Some(MemberState::Out)) => ("out", None),
                (DiskState::Down(reason), _) => ("down", Some(reason.clone())),
                (_, Some(MemberState::Draining)) => ("draining", held.clone()),
                (DiskState::Suspect, _) => ("suspect", Some("it is slow to answer".into())),
                (DiskState::Healthy, _) if status.full => ("full", None),
                (DiskState::Healthy, _) => ("healthy", None),
            };
            let space = self.spaces.disk(status.id);
            let handle = self.disks.get(status.id);
            let latency = handle.and_then(|handle| handle.queue.times().of_late(Instant::now()));
            DiskStatus {
                id: status.id.get(),
                path: status.label,
                state: state.into(),
                reason,
                total_bytes: space.map_or(0, |space| space.total_bytes),
                free_bytes: space.map_or(0, |space| space.free_bytes),
                errors: status.errors,
                latency_median_ms: latency.map(|latency| milliseconds(latency.median)),
                latency_p99_ms: latency.map(|latency| milliseconds(latency.p99)),
                labels: members.member(status.id).map(|m| m.labels.clone()).unwrap_or_default(),
                log: log.contains(&status.id),
            }
        });
        shown.collect()
    }

    /// How many more shards a stripe may lose of which `bad` are noted.
    pub(super) fn margin(&self, record: &StripeRecord, bad: u64) -> i64 {
        let good = good_disks(record, bad, |disk| self.disks.get(disk).is_some()).count();
        count(good) - i64::from(record.class.scheme.k())
    }

    /// Whether new stripes of a class put no more into a zone, rack or node than may be lost, where there are several.
    fn is_spread(&self, class: &Class) -> bool {
        let found = candidates(&self.disks, &self.log.members(), 0).into_iter();
        let found: Vec<_> = found.map(|(disk, _full)| disk).collect();
        let [.., node] = Ring::new(&found, &class.wanted(&self.config.node)).most_together();
        node <= usize::from(class.scheme.m())
    }

    /// Room for the class of the root directory.
    pub(super) fn root_space(&self, view: &View) -> Result<ClassSpace> {
        let (id, class) = root_class(view)?;
        Ok(self.class_space(id, &class))
    }

    /// Room of each class.
    pub fn class_spaces(&self) -> Result<Vec<ClassSpace>> {
        let classes = self.view()?.classes()?;
        Ok(classes.iter().map(|(id, class)| self.class_space(*id, class)).collect())
    }

    fn class_space(&self, id: ClassId, class: &Class) -> ClassSpace {
        let (space, shares) = (self.spaces.space(id), self.spaces.shares());
        ClassSpace {
            class: class.to_string(),
            total_bytes: space.total_bytes,
            used_bytes: space.total_bytes.saturating_sub(space.free_bytes),
            available_bytes: space.available_bytes,
            raw_total_bytes: shares.iter().map(|share| share.total_bytes).sum(),
            raw_free_bytes: shares.iter().map(|share| share.free_bytes).sum(),
            raw_reserved_bytes: shares.iter().map(|share| share.reserved_bytes).sum(),
        }
    }

    /// A file, explained.
    pub fn file_info(&self, ino: Ino) -> Result<FileInfo> {
        let view = self.view()?;
        let inode = view.inode(ino)?.ok_or(Posix::NotFound)?;
        let class = view.class(inode.class)?.map_or_else(String::new, |class| class.to_string());
        let is_file = inode.kind == FileKind::File;
        let (mut chunks, mut stripes) = (Vec::new(), BTreeSet::new());
        let mut next = is_file.then_some(ChunkIndex(0));
        let mut hot_bytes = 0;
        while let Some(from) = next.filter(|_chunk| chunks.len() < LIST_MAX) {
            let page = view.data_chunks(&inode, from, PAGE.min(LIST_MAX - chunks.len()))?;
            next = page.last().and_then(|last| last.0.checked_add(1)).map(ChunkIndex);
            for chunk in page {
                let content = view.chunk(&inode, chunk)?;
                stripes.extend(content.map.iter().map(|(_segment, place)| place.stripe));
                let hot: u64 = content.hot.iter().map(|hot| hot.data.len() as u64).sum();
                hot_bytes += hot;
                let segments = u32::try_from(content.map.len()).unwrap_or(u32::MAX);
                chunks.push(ChunkInfo { chunk: chunk.0, segments, hot_bytes: hot });
            }
        }
        let truncated = next.is_some() || stripes.len() > LIST_MAX;
        let mut shown = Vec::new();
        for id in stripes.into_iter().take(LIST_MAX) {
            let bad = view.repair(id)?.map_or(0, |entry| entry.bad);
            shown.extend(view.stripe(id)?.map(|record| self.stripe_info(&record, bad)));
        }
        Ok(FileInfo {
            ino: ino.0,
            kind: kind_name(inode.kind).into(),
            class,
            size: self.fs.size(ino).unwrap_or(inode.size),
            allocated_bytes: inode.allocated_bytes,
            reserved_bytes: inode.reserved_bytes,
            inline_bytes: if is_file { inode.inline.len() as u64 } else { 0 },
            hot_bytes,
            dirty_bytes: self.fs.dirty_bytes(ino),
            margin: shown.iter().map(|stripe| stripe.margin).min(),
            chunks,
            stripes: shown,
            truncated,
        })
    }

    fn stripe_info(&self, record: &StripeRecord, bad: u64) -> StripeInfo {
        let members = self.log.members();
        let shards = record.shards().zip(&record.disks).map(|(index, disk)| {
            let state = match (record.is_missing(index), self.disks.get(*disk)) {
                (true, _) => "missing",
                (false, Some(_)) if bad >> index.0 & 1 == 1 => "bad",
                (false, Some(_)) => "good",
                (false, None) => "down",
            };
            let role = if index.0 < record.class.scheme.k() { "data" } else { "parity" };
            let path = members.member(*disk).map_or_else(String::new, |member| member.path.clone());
            ShardInfo {
                index: index.0,
                role: role.into(),
                disk: disk.get(),
                path,
                state: state.into(),
            }
        });
        StripeInfo {
            stripe: record.id.to_string(),
            class: record.class.to_string(),
            payload_bytes: record.payload_bytes,
            margin: self.margin(record, bad),
            shards: shards.collect(),
        }
    }
}

/// Milliseconds to the microsecond.
fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// A count to subtract from.
fn count(items: usize) -> i64 {
    i64::try_from(items).unwrap_or(i64::MAX)
}

const fn kind_name(kind: FileKind) -> &'static str {
    match kind {
        FileKind::File => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
    }
}
