//! Shards that nodes rebuild and move among themselves: the machine that mounts says what is to be done, and no byte of them
//! passes through it.

use super::Cluster;
use super::loss::wait_whole;
use crate::loss::{check_files, drop_caches, write_files};
use crate::metrics::value;
use crate::real::wait;
use rustix::process::Signal;

fn gathered(page: &str) -> f64 {
    value(page, "ironfs_gathered_bytes_total")
}

#[test]
fn a_lost_disk_is_rebuilt_from_node_to_node() {
    let mut cluster = Cluster::format("4+2", 7, 7);
    cluster.volume.set_limit("disk_out_s", 600, 1);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    cluster.volume.sync();
    assert_eq!(gathered(&cluster.volume.metrics()), 0.0);

    cluster.nodes[2].end(Signal::KILL);
    cluster
        .volume
        .wait_status("its disk is given up", |status| status["disks"][2]["state"] == "out");
    cluster.volume.wait_status("every stripe has its full margin", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap();
        margins.keys().all(|margin| margin == "2")
    });
    let rebuilt = cluster.volume.metrics();
    let repaired = value(&rebuilt, "storage_repair_bytes_total");
    assert!(repaired > 0.0 && gathered(&rebuilt) >= repaired, "{rebuilt}");
    let computed = "erasure_recovery_operations_total{purpose=\"repair\"}";
    assert_eq!(value(&rebuilt, computed), 0.0, "{rebuilt}");
    let said = |what: &str| cluster.nodes.iter().any(|node| node.said().contains(what));
    assert!(said("a peer has come peer=node n"), "nodes have asked each other");
    drop_caches();
    check_files(&mnt);

    // It comes back, and what belongs there is moved to it.
    cluster.nodes[2].start();
    wait_whole(&cluster.volume);
    wait("shards are moved to it", || gathered(&cluster.volume.metrics()) > gathered(&rebuilt));
    drop_caches();
    check_files(&mnt);
    cluster.volume.umount();
    cluster.volume.fsck();
}
