//! Shards that nodes rebuild and move among themselves, over a simulated network: their bytes do not pass through the mount,
//! unless nodes do not reach each other.

use crate::away::{content, read, write};
use crate::bus::Bus;
use crate::metrics::value;
use crate::rig::{Rig, run};
use ironfs::volume::Volume;
use std::sync::Arc;
use std::time::Duration;

const NODES: usize = 7;
/// Small, stripes that nodes make in one piece, and one in several.
const SIZES: [usize; 6] = [20_000, 300_000, 900_000, 2_200_000, 700_000, 9_000_000];
/// The node that goes.
const GOES: usize = 2;
const OUT_SECONDS: u32 = 20;
/// Long enough for a disk to be given up, or found again, and for its shards to be where they belong.
const SETTLING: Duration = Duration::from_secs(180);

const GATHERED: &str = "ironfs_gathered_bytes_total";
const REPAIRED: &str = "storage_repair_bytes_total";
const COMPUTED: &str = "erasure_recovery_operations_total{purpose=\"repair\"}";

/// A volume over nodes, with files.
async fn written(seed: u64) -> (Rig, Bus, Arc<Volume>) {
    let (mut rig, bus) = Rig::over_nodes(seed, NODES, NODES);
    rig.config.limits.disk_out_s = OUT_SECONDS;
    rig.format("4+2").await.unwrap();
    let volume = rig.open().await.unwrap();
    for (number, size) in SIZES.into_iter().enumerate() {
        write(&volume.fs(), &format!("f{number}"), &content(number, size)).await.unwrap();
    }
    (rig, bus, volume)
}

async fn check(volume: &Volume) {
    for (number, size) in SIZES.into_iter().enumerate() {
        read(&volume.fs(), &format!("f{number}"), &content(number, size)).await.unwrap();
    }
    let margins = volume.status().metadata.unwrap().stripes_by_margin;
    assert_eq!(margins.keys().collect::<Vec<_>>(), ["2"], "{margins:?}");
}

fn values<const N: usize>(volume: &Arc<Volume>, series: [&str; N]) -> [f64; N] {
    let page = volume.metrics_page().unwrap();
    series.map(|series| value(&page, series))
}

#[test]
fn nodes_rebuild_and_move_shards_among_themselves() {
    run(async {
        let (rig, bus, volume) = written(3).await;
        assert_eq!(values(&volume, [GATHERED, COMPUTED]), [0.0, 0.0]);
        bus.kill(GOES);
        tokio::time::sleep(SETTLING).await;
        assert_eq!(volume.status().disks[GOES].state, "out");
        check(&volume).await;
        let [gathered, repaired, computed] = values(&volume, [GATHERED, REPAIRED, COMPUTED]);
        assert!(repaired > 0.0 && gathered >= repaired, "{gathered} of {repaired}");
        assert_eq!(computed, 0.0);

        // It comes back, and what belongs there is moved to it.
        bus.start(GOES);
        tokio::time::sleep(SETTLING).await;
        check(&volume).await;
        let [moved, computed] = values(&volume, [GATHERED, COMPUTED]);
        assert!(moved > gathered, "{moved}");
        assert_eq!(computed, 0.0);

        // So is what another one has, when it is to leave.
        volume.drain_disk("1").await.unwrap();
        tokio::time::sleep(SETTLING).await;
        assert_eq!(volume.status().disks[0].state, "removed");
        check(&volume).await;
        assert!(values(&volume, [GATHERED])[0] > moved);
        volume.shutdown().await.unwrap();
        drop(volume);
        rig.fsck_clean().await.unwrap();
    });
}

#[test]
fn where_nodes_do_not_reach_each_other_the_mount_does_it() {
    run(async {
        let (rig, bus, volume) = written(4).await;
        bus.set_apart();
        bus.kill(GOES);
        tokio::time::sleep(SETTLING).await;
        check(&volume).await;
        let [gathered, repaired, computed] = values(&volume, [GATHERED, REPAIRED, COMPUTED]);
        assert!(repaired > 0.0 && computed > 0.0, "{repaired}");
        assert_eq!(gathered, 0.0);
        bus.start(GOES);
        tokio::time::sleep(SETTLING).await;
        check(&volume).await;
        assert_eq!(values(&volume, [GATHERED]), [0.0]);
        volume.shutdown().await.unwrap();
        drop(volume);
        rig.fsck_clean().await.unwrap();
    });
}
