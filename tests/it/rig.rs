//! A volume in one process over simulated disks, on one thread with a paused clock: what the harnesses drive. And how
//! much time a harness has. Knows no operation of the file system.

use crate::bus::Bus;
use crate::sim::disk::{Image, SimMachine};
use ironfs::config::{Config, Limits};
use ironfs::error::{Error, Result};
use ironfs::fs::{AtimeMode, Clock};
use ironfs::types::{MountId, Timestamp};
use ironfs::volume::format::{FormatRequest, format_in};
use ironfs::volume::fsck::{FsckReport, check_in};
use ironfs::volume::{OpenDisk, Volume, VolumeOptions, World};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// Seconds since 1970 at which the wall clock of every history begins.
const EPOCH_SECONDS: i64 = 1_700_000_000;

/// A machine with its disks, and the configuration of the volume on them.
#[derive(Clone)]
pub(crate) struct Rig {
    pub(crate) machine: SimMachine,
    pub(crate) config: Config,
    clock: Arc<AtomicI64>,
    /// What is between the disks and a mount, if they are not its own.
    bus: Option<Bus>,
    /// Number of the latest mount on it.
    mount: Arc<AtomicU64>,
}

impl Rig {
    /// Empty disks.
    pub(crate) fn new(seed: u64, disks: usize) -> Self {
        Self::over(SimMachine::new(seed, disks))
    }

    /// Empty disks that `nodes` nodes serve in turns, and the network.
    pub(crate) fn over_nodes(seed: u64, disks: usize, nodes: usize) -> (Self, Bus) {
        let mut rig = Self::new(seed, disks);
        let bus = Bus::new(rig.machine.clone(), nodes, seed);
        rig.config.disks = (0..disks).map(|disk| bus.disk_path(disk)).collect();
        rig.config.peer = bus.peers();
        rig.bus = Some(bus.clone());
        (rig, bus)
    }

    /// What a power cut of everything has left.
    pub(crate) fn after_crash(&self, image: Image) -> Self {
        let machine = SimMachine::from_image(image);
        let bus = self.bus.as_ref().map(|bus| bus.over(machine.clone()));
        Self { machine, bus, ..self.clone() }
    }

    /// Whether the disks are those of nodes.
    pub(crate) const fn is_over_nodes(&self) -> bool {
        self.bus.is_some()
    }

    /// Number of the latest mount over a network.
    pub(crate) fn mount_id(&self) -> MountId {
        MountId(self.mount.load(Ordering::Relaxed))
    }

    fn over(machine: SimMachine) -> Self {
        let disks = (0..machine.disk_count()).map(disk_path).collect();
        // Small bounds: so every keeper has something to do in a short history.
        let limits = Limits {
            dirty_mib: 64,
            read_cache_mib: 1,
            metadata_cache_mib: 4,
            footer_cache_mib: 1,
            open_shards: 16,
            checkpoint_mib: 1,
            log_segment_mib: 1,
            cpu_threads: 1,
            hot_mib: 1,
            disk_wait_s: 1,
            // Disks that are full are small too.
            reserve_percent: 50,
            ..Limits::default()
        };
        let config = Config { limits, ..Config::new("sim", disks) };
        let clock = Arc::new(AtomicI64::new(EPOCH_SECONDS));
        Self { machine, config, clock, bus: None, mount: Arc::default() }
    }

    fn world(&self) -> World {
        if let Some(bus) = &self.bus {
            let (world, mount) = bus.world();
            self.mount.store(mount.get(), Ordering::Relaxed);
            return world;
        }
        let machine = self.machine.clone();
        let opener = move |path: &Path| -> Result<OpenDisk> {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let index = name.strip_prefix('d').and_then(|digits| digits.parse().ok());
            let index =
                index.ok_or_else(|| Error::refused(format!("{}: no such disk", path.display())))?;
            Ok(OpenDisk::from(machine.disk(index)))
        };
        World { opener: Arc::new(opener), inline: true, nodes: None }
    }

    fn clock(&self) -> Clock {
        let clock = Arc::clone(&self.clock);
        Arc::new(move || Timestamp {
            seconds: clock.fetch_add(1, Ordering::Relaxed),
            nanoseconds: 0,
        })
    }

    /// Makes the volume; all of it is durable afterwards.
    pub(crate) async fn format(&self, class: &str) -> Result<()> {
        let request = FormatRequest {
            config: self.config.clone(),
            class: class.parse()?,
            allow_same_device: true,
            uid: 0,
            gid: 0,
            time: (self.clock())(),
        };
        format_in(request, &self.world()).await?;
        self.machine.settle();
        Ok(())
    }

    pub(crate) async fn open(&self) -> Result<Arc<Volume>> {
        let world = self.world();
        let options = VolumeOptions {
            read_only: false,
            atime: AtimeMode::Relative,
            nodiratime: false,
            clock: self.clock(),
            holder: format!("mount {}", self.mount_id()),
        };
        Volume::open(&self.config, options, world).await
    }

    /// Checks the volume, which is not open, every byte of it.
    pub(crate) async fn fsck(&self) -> Result<FsckReport> {
        check_in(&self.config, true, (self.clock())(), self.world()).await
    }

    /// As `fsck`; what is wrong is an error.
    pub(crate) async fn fsck_clean(&self) -> std::result::Result<FsckReport, String> {
        let report = self.fsck().await.map_err(|error| format!("fsck: {error}"))?;
        match report.findings.as_slice() {
            [] => Ok(report),
            findings => Err(format!("fsck finds {findings:#?}")),
        }
    }

    /// The process dies: nothing more reaches the disks, and what was written stays as it is in the page cache.
    pub(crate) async fn kill(&self, volume: Arc<Volume>) {
        match &self.bus {
            Some(bus) => bus.die(self.mount_id()),
            None => self.machine.release_locks(),
        }
        // It can no longer change anything; this only ends its tasks.
        drop(volume.shutdown().await);
    }
}

fn disk_path(index: usize) -> PathBuf {
    PathBuf::from(format!("/sim/d{index}"))
}

/// Runs `work` on this thread, with a clock that jumps to the next timer when nothing else is to do.
pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

/// Seeds that have failed once: the harness, the seed, a sentence on what it was. They run first, for ever.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// A run of this length meets what there is to meet.
const LONG: Duration = Duration::from_secs(300);

/// How long a harness runs, and with which seeds.
#[derive(Debug)]
pub(crate) struct Budget {
    name: &'static str,
    started: std::time::Instant,
    time: Duration,
    cases: Option<u64>,
    first: u64,
}

#[expect(clippy::disallowed_methods, reason = "a harness runs for real seconds")]
fn real_now() -> std::time::Instant {
    std::time::Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "harnesses are told by the environment how long to run"
)]
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

impl Budget {
    /// `seconds`, unless the environment says otherwise: `IRONFS_SOAK_SECS` sets the time, `IRONFS_CASES` the number
    /// of histories, `IRONFS_SEED` the first seed (and then it is one history).
    pub(crate) fn new(name: &'static str, seconds: u64) -> Self {
        let (seed, soak) = (number("IRONFS_SEED"), number("IRONFS_SOAK_SECS"));
        let cases = number("IRONFS_CASES").or_else(|| seed.filter(|_| soak.is_none()).map(|_| 1));
        let time = if cases.is_some() { u64::MAX } else { soak.unwrap_or(seconds) };
        let time = Duration::from_secs(time);
        Self { name, started: real_now(), time, cases, first: seed.unwrap_or(1) }
    }

    /// Whether it has so much time that rare things have to happen.
    pub(crate) fn is_long(&self) -> bool {
        self.cases.is_none() && self.time >= LONG
    }

    /// Whether the time is up.
    pub(crate) fn is_over(&self) -> bool {
        real_now().duration_since(self.started) >= self.time
    }

    fn regressions(&self) -> impl Iterator<Item = u64> {
        let lines = REGRESSIONS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            let (name, seed) = (words.next()?, words.next()?.parse().expect(line));
            (name == self.name).then_some(seed)
        })
    }

    /// Runs `history` with the seeds that failed before, then with one after the other; panics with what to do about the first that fails.
    pub(crate) fn spend(&self, mut history: impl FnMut(u64) -> std::result::Result<(), String>) {
        let mut run = |seed| {
            if let Err(failure) = history(seed) {
                panic!(
                    "{failure}\n\nseed {seed}; to run it again:\n  IRONFS_SEED={seed} cargo test --test it {}\n",
                    self.name
                );
            }
        };
        if self.cases.is_none() {
            self.regressions().for_each(&mut run);
        }
        let mut count = 0;
        while self.cases.map_or_else(|| !self.is_over(), |cases| count < cases) {
            run(self.first + count);
            count += 1;
        }
        println!(
            "{}: {count} histories from seed {} in {:.1} s",
            self.name,
            self.first,
            real_now().duration_since(self.started).as_secs_f64()
        );
    }
}
