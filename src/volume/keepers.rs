//! The tasks that keep an open volume going: the log's ticks, looks at disks, flushing, and the workers.

use super::Volume;
use super::membership::RingPlacer;
use super::prober::PROBE_PERIOD;
use crate::error::Error;
use crate::stripe::reader::{Finding, StripeReader};
use crate::stripe::writer::StripeWriter;
use crate::types::{DiskId, Incarnation};
use crate::worker::clean::{Clean, CleanLimits, Mover};
use crate::worker::delete::{Delete, GRACE};
use crate::worker::orphans::Orphans;
use crate::worker::pack::{Pack, PackLimits};
use crate::worker::reap::Reap;
use crate::worker::{Runner, Shards};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How often the log looks for what is due.
const LOG_TICK: Duration = Duration::from_millis(100);

/// Running tasks of one volume.
#[derive(Debug, Default)]
pub(super) struct Keepers {
    tasks: TaskTracker,
    stop: CancellationToken,
    orphans: OnceLock<Arc<Orphans>>,
}

impl Keepers {
    /// Stops all tasks and waits for them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// A disk is in use again: what it holds may be out of date.
    pub(super) fn disk_returned(&self, disk: DiskId) {
        if let Some(orphans) = self.orphans.get() {
            orphans.request(disk);
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
}

impl Volume {
    /// Starts all tasks; a read-only mount only looks at its disks.
    pub(super) fn start(
        self: &Arc<Self>,
        parts: Parts,
        (incarnation, complete): (Incarnation, bool),
    ) {
        let (tasks, stop) = (&self.keepers.tasks, &self.keepers.stop);
        tasks.spawn(probe(Arc::downgrade(self), stop.clone()));
        if self.options.read_only {
            return;
        }
        tasks.spawn(tick(Arc::downgrade(self), stop.clone()));
        tasks.spawn(self.fs.clone().run_keeper(stop.clone()));
        tasks.spawn(self.data.clone().run_flusher(stop.clone()));
        tasks.spawn(collect(Arc::downgrade(self), parts.found, stop.clone()));

        let Parts { reader, writer, placer, shards, .. } = parts;
        let meta = || self.meta.clone();
        let pack = PackLimits {
            hot_bytes: u64::from(self.config.limits.hot_mib) << 20,
            ..PackLimits::default()
        };
        let mover =
            Mover { reader: reader.clone(), writer: writer.clone(), placer: placer.clone() };
        let orphans = Arc::new(Orphans::new(meta(), shards.clone(), incarnation, complete));
        for handle in self.disks.healthy() {
            orphans.request(handle.id);
        }
        let runner = Runner::new(tasks.clone(), stop.clone());
        runner.start(Arc::new(Reap::new(meta())));
        runner.start(Arc::new(Delete::new(meta(), reader.clone(), shards, GRACE)));
        runner.start(Arc::new(Clean::new(meta(), mover, CleanLimits::default())));
        runner.start(Arc::new(Pack::new(meta(), reader, writer, placer, pack)));
        runner.start(orphans.clone());
        runner.start(self.repair.clone());
        // It is set once: this is the only place.
        drop(self.keepers.orphans.set(orphans));
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
    let mut told = Told::default();
    while next(&mut interval, &stop).await {
        let Some(volume) = volume.upgrade() else { return };
        volume.probe_disks().await;
        told.tell("look at the room of the disks", volume.spaces.refresh().await.err());
    }
}

/// Lets the log do what is due.
async fn tick(volume: std::sync::Weak<Volume>, stop: CancellationToken) {
    let mut interval = every(LOG_TICK);
    let mut told = Told::default();
    while next(&mut interval, &stop).await {
        let Some(volume) = volume.upgrade() else { return };
        told.tell("keep the metadata log", volume.log.tick().await.err());
        volume.peers.set_epoch(volume.log.epoch());
    }
}

/// Hands to repair what readers met.
async fn collect(
    volume: std::sync::Weak<Volume>,
    mut found: mpsc::Receiver<Finding>,
    stop: CancellationToken,
) {
    loop {
        let finding = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            finding = found.recv() => finding,
        };
        let (Some(finding), Some(volume)) = (finding, volume.upgrade()) else { return };
        tracing::warn!(
            stripe = %finding.stripe,
            shard = finding.shard.0,
            disk = finding.disk.0,
            "a shard was not good ({}); it was read around and will be repaired",
            finding.error
        );
        if !volume.fs.read_only() {
            volume.repair.request(finding.stripe);
        }
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
