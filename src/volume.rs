//! A volume that is open: the one place that wires disks, metadata, stripes, file system and keepers together.

mod absence;
mod advice;
mod census;
mod find;
pub mod format;
pub mod fsck;
mod healing;
pub mod info;
mod jobs;
mod keepers;
pub mod labels;
mod lifecycle;
mod measures;
mod membership;
mod nodes;
mod prober;
mod repair_log;
mod report;
mod space;
mod spaces;
pub mod status;
pub mod what_if;

pub use lifecycle::Losing;

use crate::config::{Config, Limits, Place};
use crate::cpu::Cpu;
use crate::disk::Disk;
use crate::disk::local::LocalDisk;
use crate::disk::set::{DiskHandle, DiskSet};
use crate::disk::superblock::MemberState;
use crate::error::{Error, Result};
use crate::fs::data::{Data, DataLimits, DataParts};
use crate::fs::{AtimeMode, Clock, Fs, FsOptions, FsParts};
use crate::load::Latencies;
use crate::meta::client::MetaClient;
use crate::meta::local::LocalLog;
use crate::meta::recover::{self, OpenOptions};
use crate::metrics::Metrics;
use crate::net::Peers;
use crate::net::remote::Nodes;
use crate::net::tls::Identity;
use crate::shard::serve::LocalPeers;
use crate::shard::store::{ShardStore, StoreLimits};
use crate::stripe::reader::{Finding, StripeReader};
use crate::stripe::writer::StripeWriter;
use crate::sync::{Arc, Mutex};
use crate::types::{DiskId, MountId, VolumeId};
use crate::worker::Shards;
use crate::worker::rebalance::Rebalance;
use crate::worker::repair::Repair;
use census::LastCensus;
use find::Remotes;
use futures_util::future::join_all;
use keepers::Keepers;
use membership::{RingPlacer, SetMembers};
use spaces::Spaces;
use status::Remount;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tokio::sync::mpsc;

const MIB: u64 = 1 << 20;
/// Findings of readers that wait for repair; more are found again by later reads.
const FINDINGS_MAX: usize = 256;

/// Opens the directory of a disk. Blocks.
pub type Opener = Arc<dyn Fn(&Path) -> Result<OpenDisk> + Send + Sync>;

/// A directory that was opened.
#[derive(Clone, Debug)]
pub struct OpenDisk {
    /// Its files.
    pub disk: Arc<dyn Disk>,
    /// Where requests for its shards go, if another process serves it.
    pub remote: Option<Arc<dyn Peers>>,
}

impl From<Arc<dyn Disk>> for OpenDisk {
    fn from(disk: Arc<dyn Disk>) -> Self {
        Self { disk, remote: None }
    }
}

/// How one mount opens a volume.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "a clock has nothing to show")]
pub struct VolumeOptions {
    /// Nothing is changed, on disks neither.
    pub read_only: bool,
    /// When reading updates access times.
    pub atime: AtimeMode,
    /// Directories keep theirs.
    pub nodiratime: bool,
    /// Wall clock.
    pub clock: Clock,
    /// Who holds the disks, for whoever is refused.
    pub holder: String,
}

/// Where disks come from, and how their work is run.
#[derive(Clone)]
#[expect(missing_debug_implementations, reason = "an opener has nothing to show")]
pub struct World {
    /// Opens a directory.
    pub opener: Opener,
    /// Disks answer in the calling task: simulated ones.
    pub inline: bool,
    /// What the opener knows of nodes, if it learns of more.
    pub nodes: Option<Arc<Nodes>>,
}

impl World {
    /// Local directories.
    pub fn local() -> Self {
        Self { opener: Arc::new(open_here), inline: false, nodes: None }
    }

    /// Local directories, and those of nodes, which know this process by `identity`: of those in `config`, and of those that
    /// it learns of from the disks.
    ///
    /// Errors: `Refused` if the identity is unfit.
    pub fn reaching(config: &Config, identity: Option<Identity>) -> Result<Self> {
        let Some(identity) = identity else { return Ok(Self::local()) };
        let mut number = [0; 8];
        getrandom::fill(&mut number)
            .map_err(|error| Error::internal(format!("draw the number of the mount: {error}")))?;
        let mount = MountId(u64::from_le_bytes(number));
        let nodes = Arc::new(Nodes::start(identity, mount, &config.addresses())?);
        let known = nodes.clone();
        let opener = move |path: &Path| match Place::of(path) {
            Place::Here(path) => open_here(path),
            Place::Node { node, path } => {
                let (disk, remote) = known.open(node, path)?;
                Ok(OpenDisk { disk: Arc::new(disk), remote: Some(remote) })
            }
        };
        Ok(Self { opener: Arc::new(opener), inline: false, nodes: Some(nodes) })
    }
}

fn open_here(path: &Path) -> Result<OpenDisk> {
    Ok(OpenDisk::from(Arc::new(LocalDisk::open(path)?) as Arc<dyn Disk>))
}

/// A volume that is open.
pub struct Volume {
    id: VolumeId,
    config: Config,
    options: VolumeOptions,
    world: World,
    disks: Arc<DiskSet>,
    log: Arc<LocalLog>,
    meta: MetaClient,
    peers: Arc<LocalPeers>,
    spaces: Arc<Spaces>,
    cpu: Arc<Cpu>,
    data: Arc<Data>,
    fs: Arc<Fs>,
    repair: Arc<Repair>,
    rebalance: Arc<Rebalance>,
    keepers: Keepers,
    /// Disks that are down and being looked for.
    looking: Mutex<BTreeSet<DiskId>>,
    /// It has given its disks back, because another mount has taken the volume.
    left: AtomicBool,
    metrics: Metrics,
    census: LastCensus,
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Volume {
    /// Opens the volume of `config` in `world`.
    ///
    /// Errors: `Refused` with a sentence for whoever has to put it right.
    pub async fn open(config: &Config, options: VolumeOptions, world: World) -> Result<Arc<Self>> {
        let (present, remotes) = find::disks(config, &options, &world).await?;
        let limits = &config.limits;
        let opened = recover::open(present, open_options(config, options.read_only)).await?;
        let meta = MetaClient::new(opened.log.clone(), opened.log.clone());
        let peers = open_stores(&opened, remotes, limits, options.read_only).await;

        let (cpu, metrics) = (computations(limits, &world)?, Metrics::default());
        let (set, log, nodes) = (opened.disks.clone(), opened.log.clone(), world.nodes.clone());
        let members = SetMembers::new(set, log, nodes, config);
        let members = Arc::new(members);
        let net: Arc<dyn Peers> = peers.clone();
        let (reader, writer, found) = stripe_ends(&net, &cpu, members.clone(), &metrics);
        let (disks, log) = (opened.disks.clone(), opened.log.clone());
        let placer = Arc::new(RingPlacer::new(disks, log, opened.incarnation, config));
        let spaces = Arc::new(Spaces::new(opened.disks.clone(), opened.log.clone(), config));
        spaces.refresh().await?;
        let load = Arc::new(Latencies::default());
        let data = Data::new(DataParts {
            meta: meta.clone(),
            reader: reader.clone(),
            load: load.clone(),
            writer: writer.clone(),
            placer: placer.clone(),
            space: spaces.clone(),
            limits: data_limits(limits),
        });
        let fs = Arc::new(Fs::new(FsParts {
            meta: meta.clone(),
            data: data.clone(),
            clock: options.clock.clone(),
            space: spaces.clone(),
            options: fs_options(&options),
        })?);
        let shards = Shards::new(net, members);
        let healing = healing::workers(healing::Parts {
            meta: meta.clone(),
            reader: reader.clone(),
            shards: shards.clone(),
            placer: placer.clone(),
            now: options.clock.clone(),
            load,
            limits,
            metrics: &metrics,
        });
        let volume = Arc::new(Self {
            id: opened.volume,
            config: config.clone(),
            options,
            world,
            disks: opened.disks,
            log: opened.log,
            meta,
            peers,
            spaces,
            cpu,
            data,
            fs,
            repair: healing.repair.clone(),
            rebalance: healing.rebalance.clone(),
            keepers: Keepers::default(),
            looking: Mutex::default(),
            left: AtomicBool::new(false),
            metrics,
            census: LastCensus::default(),
        });
        volume.note_nodes().await;
        let parts = keepers::Parts { reader, writer, placer, shards, found, healing };
        volume.start(parts, (opened.incarnation, opened.complete));
        Ok(volume)
    }

    /// The file system.
    pub fn fs(&self) -> Arc<Fs> {
        Arc::clone(&self.fs)
    }

    /// Where heavy computation goes.
    pub fn cpu(&self) -> Arc<Cpu> {
        Arc::clone(&self.cpu)
    }

    /// Makes everything durable that was done before.
    pub async fn sync(&self) -> Result<()> {
        if self.fs.read_only() { Ok(()) } else { self.fs.sync_all().await }
    }

    /// Makes everything durable, metadata checkpoint included: what recovery would have to do is done.
    pub async fn checkpoint(&self) -> Result<()> {
        self.sync().await?;
        self.log.checkpoint().await
    }

    /// Changes how the mount behaves.
    ///
    /// Errors: `Refused` when a volume that was opened read-only is to be written: recovery did not prepare it.
    pub async fn remount(&self, remount: Remount) -> Result<()> {
        let Remount { read_only, atime, nodiratime } = remount;
        if self.options.read_only && !read_only {
            return Err(Error::refused(
                "it was mounted read-only: unmount it and mount it again to write",
            ));
        }
        if read_only && !self.fs.read_only() {
            self.fs.sync_all().await?;
            self.fs.set_read_only(true);
            // What slipped in between.
            self.fs.sync_all().await?;
        }
        self.fs.set_read_only(read_only);
        self.fs.set_atime_mode(atime, nodiratime);
        Ok(())
    }

    /// Stops the keepers, makes everything durable and closes all files. What cannot be written out, because too many
    /// disks are away, waits for them as all changes do. The caller has stopped all operations. Later calls fail.
    ///
    /// Errors: what is lost, and why; all files are closed then, too.
    pub async fn shutdown(&self) -> Result<()> {
        self.keepers.work.stop().await;
        let written = self.write_out().await;
        self.keepers.looks.stop().await;
        let closed = self.log.shutdown().await;
        // Only now it is certain what has become durable.
        let ended = written.and(closed).or_else(|error| self.is_lost(&error));
        for (id, store) in self.peers.stores() {
            if let Some(handle) = self.disks.get(id) {
                let closing = handle.queue.run(move || {
                    store.close();
                    Ok(())
                });
                if let Err(error) = closing.await {
                    tracing::warn!(disk = id.get(), %error, "the index of shards was not closed");
                }
            }
        }
        self.release_disks().await;
        ended
    }

    /// Makes everything durable, or as much as can be: what cannot be written in one class, or of one file, keeps no other
    /// back.
    ///
    /// Errors: why something cannot.
    async fn write_out(&self) -> Result<()> {
        let written = self.fs.shutdown().await;
        let log = self.log.status();
        if written.is_err()
            && log.waiting.is_none()
            && log.read_only.is_none()
            && let Err(error) = self.data.write_out_each().await
        {
            tracing::warn!("write out file by file: {error}");
        }
        if written.is_ok() && self.data.total_dirty_bytes() > 0 {
            return Err(Error::unavailable("the mount has become read-only before"));
        }
        written
    }

    /// What is not durable and never will be, because of `reason`; it was not synced.
    ///
    /// Errors: the sentence that says so, unless it is nothing.
    fn is_lost(&self, reason: &Error) -> Result<()> {
        let (bytes, log) = (self.data.total_dirty_bytes(), self.log.status());
        let changes = log.applied.get().saturating_sub(log.durable.get()) + self.fs.late() as u64;
        if bytes == 0 && changes == 0 {
            tracing::warn!(
                "the volume was not closed in order, which the next mount makes up for: {reason}"
            );
            return Ok(());
        }
        let context = format!(
            "what was written last and not synced is lost, {bytes} bytes of data and {changes} changes of metadata"
        );
        Err(reason.clone().while_doing(context))
    }

    /// Gives the disks back to whoever waits for them.
    async fn release_disks(&self) {
        let release = self.disks.healthy().into_iter().map(|handle| async move {
            let disk = Arc::clone(&handle.disk);
            let released = handle.queue.run(move || {
                disk.release();
                Ok(())
            });
            if let Err(error) = released.await {
                tracing::warn!(disk = handle.id.get(), %error, "a disk was not given back");
            }
        });
        join_all(release).await;
    }

    /// The path of a disk as configured or, for one that came later, as the member list says.
    fn disk_path(&self, id: DiskId) -> Result<PathBuf> {
        let members = self.log.members();
        let member = members.member(id);
        let member = member.ok_or_else(|| Error::refused(format!("there is no disk {id}")))?;
        Ok(PathBuf::from(&member.path))
    }

    /// Takes a disk into use (again): its shards are believed as far as the metadata names them.
    async fn admit_disk(
        &self,
        handle: Arc<DiskHandle>,
        remote: Option<Arc<dyn Peers>>,
    ) -> Result<()> {
        let id = handle.id;
        match remote {
            Some(remote) => self.peers.add_remote(id, remote),
            None => {
                let (limits, read_only) = (&self.config.limits, self.options.read_only);
                self.peers.add_store(id, open_store(self.id, &handle, limits, read_only).await?);
            }
        }
        self.disks.admit(handle);
        if let Err(error) = self.note_healthy(id).await {
            // It is used all the same, and the prober tries again.
            tracing::debug!("disk {id} is not yet called healthy: {error}");
        }
        self.keepers.look_through(id);
        self.look_again();
        Ok(())
    }

    /// Has the member list say that a disk is in use, unless it drains.
    async fn note_healthy(&self, id: DiskId) -> Result<()> {
        let state = self.log.members().member(id).map(|member| member.state);
        match state {
            Some(MemberState::Down | MemberState::Out) if !self.options.read_only => {
                self.log.set_disk_state(id, MemberState::Healthy).await
            }
            _ => Ok(()),
        }
    }

    /// The disks that are there, or may be used, are others than before.
    fn look_again(&self) {
        self.repair.look_again();
        self.rebalance.look_again();
    }
}

const fn fs_options(options: &VolumeOptions) -> FsOptions {
    FsOptions {
        read_only: options.read_only,
        atime: options.atime,
        nodiratime: options.nodiratime,
        writeback: true,
    }
}

/// Who reads and who writes stripes, and what readers find.
fn stripe_ends(
    net: &Arc<dyn Peers>,
    cpu: &Arc<Cpu>,
    members: Arc<SetMembers>,
    metrics: &Metrics,
) -> (StripeReader, StripeWriter, mpsc::Receiver<Finding>) {
    let (findings, found) = mpsc::channel(FINDINGS_MAX);
    let coding = &metrics.coding;
    let reader = StripeReader::new(net.clone(), cpu.clone(), members, findings, coding.clone());
    (reader, StripeWriter::new(net.clone(), cpu.clone(), coding.clone()), found)
}

fn bytes(mib: u32) -> usize {
    usize::try_from(u64::from(mib) * MIB).unwrap_or(usize::MAX)
}

/// Where heavy computations run: in a simulated world nothing may leave the paused clock.
fn computations(limits: &Limits, world: &World) -> Result<Arc<Cpu>> {
    let concurrency = threads(limits.cpu_threads);
    let cpu = if world.inline { Cpu::inline() } else { Cpu::with_background(concurrency)? };
    Ok(Arc::new(cpu))
}

fn threads(configured: u32) -> usize {
    match usize::try_from(configured) {
        Ok(0) | Err(_) => std::thread::available_parallelism().map_or(1, Into::into),
        Ok(threads) => threads,
    }
}

fn open_options(config: &Config, read_only: bool) -> OpenOptions {
    let limits = &config.limits;
    OpenOptions {
        read_only,
        shared: !config.peer.is_empty(),
        cache_bytes: bytes(limits.metadata_cache_mib),
        segment_bytes: u64::from(limits.log_segment_mib) * MIB,
        flush_every: Duration::from_millis(limits.log_flush_ms.into()),
        checkpoint_every: Duration::from_secs(limits.checkpoint_s.into()),
        checkpoint_bytes: u64::from(limits.checkpoint_mib) * MIB,
        patience: Duration::from_secs(limits.outage_s.into()),
        ..OpenOptions::default()
    }
}

fn data_limits(limits: &Limits) -> DataLimits {
    DataLimits {
        dirty_bytes: u64::from(limits.dirty_mib) * MIB,
        read_cache_bytes: u64::from(limits.read_cache_mib) * MIB,
        extent_cache_bytes: u64::from(limits.extent_cache_mib) * MIB,
        hot_fsync_bytes: limits.hot_fsync_kib * 1024,
        hot_bytes: 2 * u64::from(limits.hot_mib) * MIB,
        flush_age: Duration::from_millis(u64::from(limits.flush_age_ms)),
        stripes_in_flight: usize::try_from(limits.stripes_in_flight).unwrap_or(1),
        patience: Duration::from_secs(limits.outage_s.into()),
    }
}

/// The way to the shards of all disks that are there. A disk whose shards cannot be opened goes out of use.
async fn open_stores(
    opened: &recover::Opened,
    remotes: Remotes,
    limits: &Limits,
    read_only: bool,
) -> Arc<LocalPeers> {
    let peers = LocalPeers::new(opened.disks.clone());
    peers.set_epoch(opened.log.epoch());
    remotes.into_iter().for_each(|(disk, remote)| peers.add_remote(disk, remote));
    let open = |handle: Arc<DiskHandle>| async move {
        let store = open_store(opened.volume, &handle, limits, read_only).await;
        (handle.id, store)
    };
    let here = opened.disks.healthy().into_iter().filter(|handle| !peers.is_remote(handle.id));
    for (id, store) in join_all(here.map(open)).await {
        match store {
            Ok(store) => peers.add_store(id, store),
            Err(error) => opened.disks.fail(id, &error),
        }
    }
    Arc::new(peers)
}

async fn open_store(
    volume: VolumeId,
    handle: &DiskHandle,
    limits: &Limits,
    read_only: bool,
) -> Result<Arc<ShardStore>> {
    let (id, disk) = (handle.id, Arc::clone(&handle.disk));
    let limits = StoreLimits {
        footer_bytes: u64::from(limits.footer_cache_mib) * MIB,
        open_files: usize::try_from(limits.open_shards).unwrap_or(usize::MAX),
    };
    let open = move || ShardStore::open(volume, id, disk, limits, read_only).map(Arc::new);
    handle.queue.run(open).await
}
