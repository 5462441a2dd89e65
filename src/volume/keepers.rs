//! The tasks that keep an open volume going: the log's ticks, looks at disks, flushing, and the workers.

use super::Volume;
use super::absence::Absence;
use super::healing::Workers;
use super::membership::RingPlacer;
use super::prober::PROBE_PERIOD;
use super::repair_log;
use super::status::RepairLine;
use crate::config::Limits;
use crate::disk::set::DiskSet;
use crate::error::{Error, Result};
use crate::meta::client::Views;
use crate::stripe::reader::{Finding, StripeReader};
use crate::stripe::writer::StripeWriter;
use crate::types::{DiskId, Epoch, Incarnation, ShardIndex, StripeId};
use crate::worker::clean::{Clean, CleanLimits};
use crate::worker::delete::{Delete, GRACE};
use crate::worker::inventory::Inventory;
use crate::worker::orphans::Orphans;
use crate::worker::pack::{Pack, PackLimits};
use crate::worker::reap::Reap;
use crate::worker::scrub::{Scrub, ScrubLimits, ScrubParts};
use crate::worker::{Mover, Runner, Shards};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the log looks for what is due.
const LOG_TICK: Duration = Duration::from_millis(100);

/// Tasks that end together.
#[derive(Debug, Default)]
pub(super) struct Group {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Group {
    /// Stops all of them and waits for that.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Runs work that may be cut off wherever it waits: stopping does that.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

/// Running tasks of one volume.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    /// What looks for disks, and has the log go on with those that come back.
    pub(super) looks: Group,
    /// Everything else: it ends first, as what is written out at the end may have to wait for disks.
    pub(super) work: Group,
    /// Those that go through what a disk holds.
    lists: OnceLock<(Arc<Orphans>, Arc<Inventory>)>,
    scrub: OnceLock<Arc<Scrub>>,
}

impl Keepers {
    /// Reads everything, unless the mount is read-only.
    pub(super) fn scrub(&self) -> Option<&Arc<Scrub>> {
        self.scrub.get()
    }

    /// A disk is in use again, or has lost files: it may hold what is out of date, and not what it should.
    pub(super) fn look_through(&self, disk: DiskId) {
        if let Some((orphans, inventory)) = self.lists.get() {
            orphans.request(disk);
            inventory.request(disk);
        }
    }
}

/// What the workers are made of.
pub(super) struct Parts {
    pub(super) reader: StripeReader,
    pub(super) writer: StripeWriter,
    pub(super) placer: Arc<RingPlacer>,
    pub(super) shards: Shards,
    pub(super) found: mpsc::Receiver<Finding>,
    pub(super) healing: Workers,
}

impl Volume {
    /// Whether a live stripe has this shard on this disk.
    fn is_named(&self, stripe: StripeId, shard: ShardIndex, disk: DiskId) -> Result<bool> {
        let record = self.meta.view()?.stripe(stripe)?;
        let place = record.and_then(|record| record.disks.get(usize::from(shard.0)).copied());
        Ok(place == Some(disk))
    }

    /// Starts all tasks; a read-only mount only looks at its disks.
    pub(super) fn start(
        self: &Arc<Self>,
        parts: Parts,
        (incarnation, complete): (Incarnation, bool),
    ) {
        let Group { tasks, stop } = &self.keepers.looks;
        tasks.spawn(probe(Arc::downgrade(self), stop.clone()));
        if self.options.read_only {
            return;
        }
        tasks.spawn(tick(Arc::downgrade(self), stop.clone()));
        let Group { tasks, stop } = &self.keepers.work;
        tasks.spawn(self.fs.clone().run_keeper(stop.clone()));
        tasks.spawn(self.data.clone().run_flusher(stop.clone()));
        tasks.spawn(collect(Arc::downgrade(self), parts.found, stop.clone()));

        let Parts {
            reader, writer, placer, shards, healing: Workers { throttle, lines, .. }, ..
        } = parts;
        tasks.spawn(write_repair_log(self.disks.clone(), lines, stop.clone()));
        let meta = || self.meta.clone();
        let pack = PackLimits {
            hot_bytes: u64::from(self.config.limits.hot_mib) << 20,
            ..PackLimits::default()
        };
        let moves = self.metrics.moves.clone();
        let flights = placer.flights().clone();
        let mover = Mover { reader: reader.clone(), writer, placer, moves };
        let orphans = Orphans::new(meta(), shards.clone(), flights, (incarnation, complete));
        let orphans = Arc::new(orphans);
        let scrub_shards = shards.clone();
        let inventory = Inventory::new(meta(), shards.clone(), self.repair.clone());
        let inventory = Arc::new(inventory);
        let runner = Runner::new(tasks.clone(), stop.clone());
        runner.start(Arc::new(Reap::new(meta())));
        runner.start(Arc::new(Delete::new(meta(), reader.clone(), shards, GRACE)));
        runner.start(Arc::new(Clean::new(
            meta(),
            mover.clone(),
            self.spaces.clone(),
            CleanLimits::default(),
        )));
        runner.start(Arc::new(Pack::new(meta(), mover, pack)));
        runner.start(orphans.clone());
        runner.start(inventory.clone());
        runner.start(self.repair.clone());
        runner.start(self.rebalance.clone());
        let scrub = Arc::new(Scrub::new(ScrubParts {
            meta: meta(),
            reader,
            shards: scrub_shards,
            repair: self.repair.clone(),
            orphans: orphans.clone(),
            inventory: inventory.clone(),
            now: self.options.clock.clone(),
            limits: scrub_limits(&self.config.limits),
            throttle,
        }));
        runner.start(scrub.clone());
        // It is set once: this is the only place.
        drop(self.keepers.lists.set((orphans, inventory)));
        drop(self.keepers.scrub.set(scrub));
        for handle in self.disks.healthy() {
            self.keepers.look_through(handle.id);
        }
    }
}

fn scrub_limits(limits: &Limits) -> ScrubLimits {
    let days = u64::from(limits.scrub_days);
    ScrubLimits {
        period: (days > 0).then(|| Duration::from_secs(days * 24 * 3600)),
        bytes_per_second: u64::from(limits.scrub_mib_s) << 20,
    }
}

/// Waits for the next period; answers false when it is time to stop.
async fn next(interval: &mut tokio::time::Interval, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        _at = interval.tick() => true,
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Looks at the disks and at their room.
async fn probe(volume: std::sync::Weak<Volume>, stop: CancellationToken) {
    let mut interval = every(PROBE_PERIOD);
    let (mut told, mut told_out) = (Told::default(), Told::default());
    let mut told_drained = Told::default();
    let mut absence = Absence::default();
    let mut degraded = 0;
    while next(&mut interval, &stop).await {
        let Some(volume) = volume.upgrade() else { return };
        volume.probe_disks().await;
        let now = volume.log.changes().of_degraded();
        if std::mem::replace(&mut degraded, now) != now {
            // Its disks may be there again by now, and then no change of theirs tells.
            volume.repair.look_again();
        }
        if !volume.options.read_only {
            told_out.tell("give up a disk", volume.give_up_absent(&mut absence).await.err());
            told_drained.tell("let a disk go", volume.release_drained().await.err());
        }
        told.tell("look at the room of the disks", volume.look_at_room().await.err());
    }
}

/// Lets the log do what is due.
async fn tick(volume: std::sync::Weak<Volume>, stop: CancellationToken) {
    let mut interval = every(LOG_TICK);
    let mut told = Told::default();
    let mut epoch = Epoch::default();
    while next(&mut interval, &stop).await {
        let Some(volume) = volume.upgrade() else { return };
        told.tell("keep the metadata log", volume.log.tick().await.err());
        let now = volume.log.epoch();
        volume.peers.set_epoch(now);
        if std::mem::replace(&mut epoch, now) != now {
            // A disk may have been added or given up.
            volume.look_again();
        }
    }
}

/// Hands to repair what readers met.
async fn collect(
    volume: std::sync::Weak<Volume>,
    mut found: mpsc::Receiver<Finding>,
    stop: CancellationToken,
) {
    let mut told = Told::default();
    loop {
        let finding = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            finding = found.recv() => finding,
        };
        let (Some(finding), Some(volume)) = (finding, volume.upgrade()) else { return };
        match volume.is_named(finding.stripe, finding.shard, finding.disk) {
            Ok(true) => {}
            // It was moved, or the stripe has died, while it was read.
            Ok(false) => continue,
            Err(error) => {
                told.tell("look for a bad shard", Some(error));
                continue;
            }
        }
        tracing::warn!(
            stripe = %finding.stripe,
            shard = finding.shard.0,
            disk = finding.disk.0,
            "a shard was not good ({}); it was read around and will be repaired",
            finding.error
        );
        if !volume.fs.read_only() {
            let noted = volume.repair.note(vec![(finding.stripe, finding.shard)]).await;
            told.tell("note a bad shard", noted.err());
        }
    }
}

/// Writes the repair log.
async fn write_repair_log(
    disks: Arc<DiskSet>,
    lines: mpsc::Receiver<RepairLine>,
    stop: CancellationToken,
) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = repair_log::write_lines(disks, lines) => {}
    }
}

/// Says each trouble once, not at every tick.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn tell(&mut self, what: &str, error: Option<Error>) {
        let text = error.map(|error| error.to_string());
        if text != self.0 {
            if let Some(text) = &text {
                tracing::error!("{what}: {text}");
            }
            self.0 = text;
        }
    }
}
