//! Repair, scrub and moves of one volume: what they are made of, and how people hurry, hold and look at them.

use super::membership::RingPlacer;
use super::repair_log::{self, RepairLog};
use super::status::{self, RepairLine};
use super::{MIB, Volume};
use crate::config::Limits;
use crate::error::{Error, Result};
use crate::load::Latencies;
use crate::meta::client::MetaClient;
use crate::meta::command::ScrubState;
use crate::meta::store::View;
use crate::metrics::Metrics;
use crate::stripe::reader::StripeReader;
use crate::types::StripeId;
use crate::worker::Shards;
use crate::worker::rebalance::{Rebalance, RebalanceParts};
use crate::worker::repair::{Depth, Now, Repair, RepairParts, RepairReport};
use crate::worker::scrub::Scrub;
use crate::worker::throttle::{Caps, Throttle};
use std::sync::Arc;
use tokio::sync::mpsc::Receiver;

/// What the workers are made of.
pub(super) struct Parts<'a> {
    pub(super) meta: MetaClient,
    pub(super) reader: StripeReader,
    pub(super) shards: Shards,
    pub(super) placer: Arc<RingPlacer>,
    pub(super) now: Now,
    pub(super) load: Arc<Latencies>,
    pub(super) limits: &'a Limits,
    pub(super) metrics: &'a Metrics,
}

/// The workers that move shards, what paces them, and the lines that repair has for its log.
pub(super) struct Workers {
    pub(super) repair: Arc<Repair>,
    pub(super) rebalance: Arc<Rebalance>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) lines: Receiver<RepairLine>,
}

pub(super) fn workers(parts: Parts<'_>) -> Workers {
    let Parts { meta, reader, shards, placer, now, load, limits, metrics } = parts;
    let throttle = Arc::new(Throttle::new(caps(limits), load));
    let (journal, lines) = RepairLog::new(metrics.repairs.clone());
    let repair = Arc::new(Repair::new(RepairParts {
        meta: meta.clone(),
        reader,
        shards: shards.clone(),
        placer: placer.clone(),
        now,
        journal: Arc::new(journal),
        throttle: throttle.clone(),
        concurrency: usize::try_from(limits.repair_stripes).unwrap_or(1),
    }));
    let rebalance = Arc::new(Rebalance::new(RebalanceParts {
        meta,
        shards,
        placer,
        repair: repair.clone(),
        throttle: throttle.clone(),
    }));
    Workers { repair, rebalance, throttle, lines }
}

fn caps(limits: &Limits) -> Caps {
    let cap = |mib: u32| (mib > 0).then(|| u64::from(mib) * MIB);
    Caps { all: cap(limits.repair_mib_s), disk: cap(limits.repair_disk_mib_s) }
}

impl Volume {
    /// Copies the metadata to as many disks as should have it, then rebuilds missing shards in one sweep.
    pub async fn repair_run(&self) -> Result<status::RepairReport> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: nothing can be repaired"));
        }
        let copied = self.log.restore_copies().await?;
        let mut report = report_of(self.repair.sweep(Depth::Shallow).await?);
        if !copied {
            let failure = "the metadata could not be copied to another disk; see the log";
            report.failures.insert(0, failure.into());
            report.failure_count += 1;
        }
        Ok(report)
    }

    /// Looks at one stripe and repairs it; with `force` all its shards are written anew.
    pub async fn repair_stripe(&self, id: StripeId, force: bool) -> Result<status::RepairReport> {
        if self.fs.read_only() {
            return Err(Error::refused("the mount is read-only: nothing can be repaired"));
        }
        self.repair.stripe(id, force).await.map(report_of)
    }

    /// Holds repair, or lets it go on.
    pub fn pause_repair(&self, paused: bool) {
        self.repair.set_paused(paused);
    }

    /// Begins to read every byte of every shard, as fast as the limit allows.
    pub async fn start_scrub(&self) -> Result<()> {
        self.scrub()?.start().await
    }

    /// Holds scrub, or lets it go on.
    pub async fn pause_scrub(&self, paused: bool) -> Result<()> {
        self.scrub()?.set_paused(paused).await
    }

    fn scrub(&self) -> Result<&Arc<Scrub>> {
        let refused = || Error::refused("the mount is read-only: nothing can be scrubbed");
        self.keepers.scrub().filter(|_scrub| !self.fs.read_only()).ok_or_else(refused)
    }

    /// Bytes of shards that scrub reads in a second, of late.
    pub(super) fn scrub_rate(&self) -> u64 {
        self.keepers.scrub().map_or(0, |scrub| scrub.rate())
    }

    /// Where scrubbing is.
    pub fn scrub_status(&self) -> Result<status::ScrubStatus> {
        let view = self.view()?;
        let (totals, state) = (view.totals()?, self.scrub_state(&view)?);
        let name = match (state.paused, state.running) {
            (true, _) => "paused",
            (false, true) => "running",
            (false, false) => "idle",
        };
        let begun = state.running || state.passes > 0;
        Ok(status::ScrubStatus {
            state: name.into(),
            under_way: state.running,
            passes: state.passes,
            started: begun.then(|| repair_log::text(state.started)),
            finished: state.finished.map(repair_log::text),
            stripes_checked: state.stripes,
            stripes: totals.stripes,
            bytes_checked: state.bytes,
            bytes: totals.stripe_bytes,
            damaged: state.damaged,
        })
    }

    /// The same as it is kept.
    pub(super) fn scrub_state(&self, view: &View) -> Result<ScrubState> {
        match self.keepers.scrub() {
            Some(scrub) => scrub.state(),
            None => view.scrub(),
        }
    }

    /// The last `limit` attempts to repair a stripe, as far as the disks with the repair log can be read.
    pub async fn repair_history(&self, limit: usize) -> status::RepairHistory {
        repair_log::history(&self.disks, &self.log.members(), limit).await
    }
}

fn report_of(report: RepairReport) -> status::RepairReport {
    status::RepairReport {
        stripes_checked: report.stripes_checked,
        stripes_touched: report.stripes_touched,
        shards_restored: report.shards_restored,
        bytes_restored: report.bytes_restored,
        failures: report.failures,
        failure_count: report.failure_count,
    }
}
