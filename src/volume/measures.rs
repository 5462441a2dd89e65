//! The metrics of a volume on one page: the instruments, and what is known elsewhere, asked for now. Costs no look at every
//! stripe (see `census`).

use super::Volume;
use super::status::DiskStatus;
use crate::error::Result;
use crate::meta::local::LogStatus;
use crate::meta::store::{Totals, View};
use crate::metrics::{Page, RequestMetrics};
use crate::types::DiskId;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a disk may be, as `status` says it: those that no disk is are told as 0.
const DISK_STATES: [&str; 7] = ["healthy", "suspect", "full", "draining", "down", "out", "removed"];

impl Volume {
    /// How long requests take, for whoever serves them.
    pub fn request_metrics(&self) -> Arc<RequestMetrics> {
        Arc::clone(&self.metrics.requests)
    }

    /// All metrics in the text format of Prometheus; without those of the metadata while it cannot be read.
    pub fn metrics_page(self: &Arc<Self>) -> Result<String> {
        let mut page = Page::default();
        self.write_volume(&mut page);
        let told = self.view().and_then(|view| self.write_metadata(&mut page, &view));
        if let Err(error) = &told {
            tracing::debug!(%error, "metrics without those of the metadata");
        }
        page.gauge(
            "ironfs_metadata_readable",
            "Whether the metadata can be read; the metrics that are in it are absent otherwise.",
            u64::from(told.is_ok()),
        );
        self.metrics.coding.write(&mut page);
        self.metrics.requests.write(&mut page);
        self.write_memory(&mut page);
        let log = self.log.status();
        self.write_log(&mut page, &log);
        self.write_disks(&mut page, &self.disk_statuses(&log.disks));
        self.metrics.moves.write(&mut page);
        self.metrics.repairs.write(&mut page);
        self.write_repair(&mut page);
        page.text()
    }

    fn write_metadata(self: &Arc<Self>, page: &mut Page, view: &View) -> Result<()> {
        let totals = view.totals()?;
        self.write_contents(page, view, &totals)?;
        self.write_stripes(page, view, &totals)?;
        self.write_scrub(page, view)
    }

    fn write_volume(&self, page: &mut Page) {
        page.gauges(
            "ironfs_build_info",
            "Always 1; the labels say which program serves the volume.",
            ["version"],
            [([env!("CARGO_PKG_VERSION")], 1)],
        );
        page.gauges(
            "ironfs_volume_info",
            "Always 1; the labels say which volume it is.",
            ["name", "volume"],
            [([self.config.name.clone(), self.id.to_string()], 1)],
        );
        let writable = self.health().is_ok() && !self.fs.read_only();
        page.gauge("ironfs_writable", "Whether changes are taken.", u64::from(writable));
    }

    fn write_contents(&self, page: &mut Page, view: &View, totals: &Totals) -> Result<()> {
        page.gauge("ironfs_inodes", "Inodes in use.", totals.inodes);
        let space = self.root_space(view)?;
        page.gauge(
            "ironfs_size_bytes",
            "Bytes that fit into the volume, in the class of its root directory.",
            space.total_bytes,
        );
        page.gauge(
            "ironfs_available_bytes",
            "Bytes that can still be written, in the class of the root directory.",
            space.available_bytes,
        );
        let hot = "Bytes of small data in the log and metadata.";
        page.gauge("ironfs_hot_bytes", hot, totals.hot_bytes);
        let noted = "Stripes with shards that were found bad, or with attempts that failed.";
        page.gauge("ironfs_repair_noted_stripes", noted, view.repair_count()?);
        Ok(())
    }

    fn write_stripes(
        self: &Arc<Self>,
        page: &mut Page,
        view: &View,
        totals: &Totals,
    ) -> Result<()> {
        let classes = view.classes()?;
        classes.iter().for_each(|(_id, class)| self.metrics.coding.announce(class));
        // Without a stripe there is no share, and 0/0 says so.
        let raw_bytes = totals.stripe_bytes + totals.dead_bytes;
        page.fractions(
            "erasure_storage_efficiency",
            "Bytes of live file data in stripes, as compressed, for each byte of shards on the disks.",
            [],
            [([""; 0], totals.live_bytes as f64 / raw_bytes as f64)],
        );
        page.gauge("ironfs_stripes", "Stripes that are live.", totals.stripes);
        let Some(taken) = self.census(view)? else { return Ok(()) };
        page.untyped(
            "erasure_shards_total",
            "Shards that there should be, of all live stripes.",
            taken.census.shards,
        );
        page.gauge(
            "erasure_shards_missing",
            "Shards that were never placed, are noted as bad, or are on disks that are not in use.",
            taken.census.missing,
        );
        // Margins without a stripe are told as 0, so that a series does not end when it should say so.
        let most = classes.iter().map(|(_id, class)| class.scheme.m()).max().unwrap_or(0);
        let mut margins: BTreeMap<i64, u64> = (0..=i64::from(most)).map(|m| (m, 0)).collect();
        margins.extend(&taken.census.margins);
        page.gauges(
            "ironfs_stripes_margin",
            "Stripes by how many more shards each may lose; below 0 they cannot be read.",
            ["margin"],
            margins.into_iter().map(|(margin, count)| ([margin.to_string()], count)),
        );
        page.fractions(
            "ironfs_census_age_seconds",
            "How old the counts of shards and margins are.",
            [],
            [([""; 0], taken.at.elapsed().as_secs_f64())],
        );
        Ok(())
    }

    fn write_memory(&self, page: &mut Page) {
        let dirty = "Written bytes that are not yet durable.";
        page.gauge("ironfs_dirty_bytes", dirty, self.data.total_dirty_bytes());
        let lookups = self.data.lookups().map(|(cache, lookups)| (cache, lookups.counts()));
        page.counters(
            "ironfs_cache_hits_total",
            "Look-ups that a cache could answer.",
            ["cache"],
            lookups.iter().map(|(cache, (hits, _misses))| ([*cache], *hits)),
        );
        page.counters(
            "ironfs_cache_misses_total",
            "Look-ups that a cache could not answer.",
            ["cache"],
            lookups.iter().map(|(cache, (_hits, misses))| ([*cache], *misses)),
        );
    }

    fn write_log(&self, page: &mut Page, log: &LogStatus) {
        let points = [
            ("applied", log.applied),
            ("durable", log.durable),
            ("checkpointed", log.checkpointed),
        ];
        page.gauges(
            "ironfs_log_position",
            "Commands of the log that are applied, durable, and in a durable state.",
            ["point"],
            points.map(|(point, position)| ([point], position.get())),
        );
        page.counter(
            "ironfs_checkpoints_total",
            "Checkpoints of the metadata since the mount.",
            log.checkpoints,
        );
        let disks =
            [("present", self.log_disks(log).count() as u64), ("wanted", log.wanted as u64)];
        page.gauges(
            "ironfs_log_disks",
            "Disks that keep the log and the metadata, and how many should.",
            ["which"],
            disks.map(|(which, count)| ([which], count)),
        );
        let epoch = "Version of the member list; it rises with every change of a disk's state.";
        page.gauge("ironfs_epoch", epoch, self.log.epoch().get());
    }

    fn write_disks(&self, page: &mut Page, disks: &[DiskStatus]) {
        let mut states: BTreeMap<&str, u64> = DISK_STATES.map(|state| (state, 0)).into();
        for disk in disks {
            *states.entry(&disk.state).or_default() += 1;
        }
        page.gauges(
            "ironfs_disks",
            "Disks by state.",
            ["state"],
            states.into_iter().map(|(state, count)| ([state], count)),
        );
        page.gauges(
            "ironfs_disk_info",
            "Always 1; the labels say where a disk is.",
            ["disk", "path"],
            disks.iter().map(|disk| ([disk.id.to_string(), disk.path.clone()], 1)),
        );
        let is = |disk: &DiskStatus, yes: bool| ([disk.id.to_string()], u64::from(yes));
        let up = disks.iter().map(|disk| is(disk, self.disks.get(DiskId(disk.id)).is_some()));
        page.gauges("ironfs_disk_up", "Whether the disk is in use.", ["disk"], up);
        let full = disks.iter().map(|disk| is(disk, self.disks.is_full(DiskId(disk.id))));
        page.gauges("ironfs_disk_full", "Whether it is out of space.", ["disk"], full);
        let of = |value: fn(&DiskStatus) -> u64| {
            disks.iter().map(move |disk| ([disk.id.to_string()], value(disk)))
        };
        let size = of(|disk| disk.total_bytes);
        page.gauges("ironfs_disk_size_bytes", "Size of its device.", ["disk"], size);
        let free = of(|disk| disk.free_bytes);
        page.gauges("ironfs_disk_free_bytes", "Free on its device.", ["disk"], free);
        let errors = of(|disk| disk.errors);
        page.counters(
            "ironfs_disk_errors_total",
            "Failed calls since the mount.",
            ["disk"],
            errors,
        );
        let handles: Vec<_> =
            disks.iter().filter_map(|disk| self.disks.get(DiskId(disk.id))).collect();
        page.histograms(
            "ironfs_disk_job_duration_seconds",
            "Time that the jobs of a disk took since it is in use, not counting that in its queue.",
            ["disk"],
            handles.iter().map(|handle| ([handle.id.to_string()], handle.queue.times().all())),
        );
    }

    fn write_repair(&self, page: &mut Page) {
        page.gauge(
            "ironfs_repair_queue_length",
            "Stripes that wait for their repair and can be repaired now.",
            self.repair.waiting() as u64,
        );
        let paused = u64::from(self.repair.is_paused());
        page.gauge("ironfs_repair_paused", "Whether repair is held.", paused);
    }

    fn write_scrub(&self, page: &mut Page, view: &View) -> Result<()> {
        let scrub = self.scrub_state(view)?;
        let running = u64::from(scrub.running && !scrub.paused);
        page.gauge("ironfs_scrub_running", "Whether a pass of scrub is under way.", running);
        let checked = "Stripes read in the latest pass of scrub.";
        page.gauge("ironfs_scrub_checked_stripes", checked, scrub.stripes);
        let bytes = "Bytes of shards read in it.";
        page.gauge("ironfs_scrub_checked_bytes", bytes, scrub.bytes);
        let damaged = "Shards found bad in it.";
        page.gauge("ironfs_scrub_damaged_shards", damaged, scrub.damaged);
        let passes = "Passes of scrub that were completed since the volume was made.";
        page.counter("ironfs_scrub_passes_total", passes, scrub.passes);
        let finished = scrub.finished.and_then(|time| u64::try_from(time.seconds).ok());
        page.gauge(
            "ironfs_scrub_last_finished_timestamp_seconds",
            "When the latest completed pass ended, in seconds since 1970; 0 for never.",
            finished.unwrap_or(0),
        );
        Ok(())
    }
}
