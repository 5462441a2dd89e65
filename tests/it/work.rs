//! What the workers of a volume have done, as its metrics tell.

use crate::metrics::value;
use ironfs::volume::Volume;
use std::sync::Arc;

/// Kinds of work, and the series that count them.
pub(crate) const WORK: [(&str, &str); 5] = [
    ("Clean", "ironfs_moved_bytes_total{reason=\"clean\"}"),
    ("Merge", "ironfs_moved_bytes_total{reason=\"merge\"}"),
    ("Pack", "ironfs_moved_bytes_total{reason=\"pack\"}"),
    ("Repair", "storage_repair_attempts_total{status=\"done\"}"),
    ("Checkpoint", "ironfs_checkpoints_total"),
];

/// What has been seen of the work of one mount: nothing at first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work([f64; WORK.len()]);

impl Work {
    /// Kinds of work that were done since the last look.
    pub(crate) fn done(&mut self, volume: &Arc<Volume>) -> Vec<&'static str> {
        let page = volume.metrics_page().unwrap();
        let counts = WORK.iter().zip(&mut self.0).filter_map(|((kind, series), seen)| {
            let count = value(&page, series);
            (std::mem::replace(seen, count) < count).then_some(*kind)
        });
        counts.collect()
    }
}
