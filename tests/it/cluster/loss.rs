//! Nodes that go: killed, stopped, restarted. Reads and writes go on, and all is whole again afterwards.

use super::{Cluster, Node};
use crate::loss::{check_files, drop_caches, fsynced_write, write_files};
use crate::real::{Volume, pattern};
use rustix::process::Signal;
use std::fs;
use std::time::{Duration, Instant};

pub(super) fn wait_whole(volume: &Volume) {
    volume.wait_status("all disks are used, and all stripes are whole", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap();
        status["state"] == "healthy" && margins.keys().all(|margin| margin == "2")
    });
}

#[test]
fn a_node_that_is_killed_is_read_around_and_written_past() {
    let mut cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    cluster.volume.remount();
    check_files(&mnt);
    let status = cluster.volume.status();
    assert!(status["survives"].as_str().unwrap().contains("any one node"), "{status}");

    cluster.nodes[1].end(Signal::KILL);
    drop_caches();
    check_files(&mnt);
    fsynced_write(&mnt.join("despite"), &pattern(3, 3_000_000));
    cluster.volume.wait_status("two disks are down", |status| {
        let disks = status["disks"].as_array().unwrap();
        disks.iter().filter(|disk| disk["state"] == "down").count() == 2
    });
    // Whoever mounts dies too: what was synced is on the nodes that are left.
    cluster.volume.kill();
    cluster.volume.mount();
    check_files(&mnt);
    assert!(fs::read(mnt.join("despite")).unwrap() == pattern(3, 3_000_000));

    cluster.nodes[1].start();
    wait_whole(&cluster.volume);
    // Another one goes: what was rebuilt counts.
    cluster.nodes[2].end(Signal::KILL);
    drop_caches();
    check_files(&mnt);
    assert!(fs::read(mnt.join("despite")).unwrap() == pattern(3, 3_000_000));
    cluster.nodes[2].start();
    wait_whole(&cluster.volume);
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn a_node_that_falls_silent_holds_nobody_up() {
    let cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    cluster.volume.remount();
    cluster.nodes[0].signal(Signal::STOP);
    let start = Instant::now();
    check_files(&mnt);
    // All of them, the first with its wait included.
    let first = start.elapsed();
    assert!(first < Duration::from_secs(4), "reads took {first:?}");
    cluster.volume.wait_status("two disks are down", |status| {
        let disks = status["disks"].as_array().unwrap();
        disks.iter().filter(|disk| disk["state"] == "down").count() == 2
    });
    drop_caches();
    let start = Instant::now();
    check_files(&mnt);
    let later = start.elapsed();
    assert!(later < Duration::from_secs(2), "later reads took {later:?}");
    fsynced_write(&mnt.join("despite"), &pattern(4, 1_000_000));
    cluster.nodes[0].signal(Signal::CONT);
    wait_whole(&cluster.volume);
    check_files(&mnt);
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn nodes_that_end_in_turn_lose_nothing() {
    let mut cluster = Cluster::format("4+2", 6, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    for number in [0, 3, 5] {
        let signal = if number % 2 == 0 { Signal::TERM } else { Signal::KILL };
        cluster.nodes[number].end(signal);
        let content = pattern(number as u64, 700_000);
        fsynced_write(&mnt.join(format!("f{number}")), &content);
        cluster.nodes[number].start();
        wait_whole(&cluster.volume);
    }
    drop_caches();
    for number in [0, 3, 5] {
        let found = fs::read(mnt.join(format!("f{number}"))).unwrap();
        assert!(found == pattern(number, 700_000), "f{number}");
    }
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn disks_are_added_over_the_network() {
    use crate::real::{ironfs, succeed};
    let mut cluster = Cluster::prepare(4, 4);
    // Three of the four are formatted; the fourth joins later.
    let places = cluster.places();
    let all = std::mem::replace(&mut cluster.volume.disks, places[..3].to_vec());
    let options = cluster.options("desk");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    cluster.volume.format_disks("2+1", &options);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    let added = ["disk", "add", &cluster.volume.name, "--allow-same-device"];
    succeed(ironfs().args(added).arg(&places[3]));
    let labels = |status: &serde_json::Value| status["disks"][3]["labels"].to_string();
    assert!(labels(&cluster.volume.status()).contains("n3"), "{}", cluster.volume.status());
    // Two of four nodes are one too many for 2+1; any one is not.
    cluster.nodes[0].end(Signal::KILL);
    drop_caches();
    check_files(&mnt);
    fsynced_write(&mnt.join("more"), &pattern(9, 2_000_000));
    cluster.nodes[0].start();
    cluster.volume.wait_status("all disks are used", |status| status["state"] == "healthy");
    cluster.volume.remount();
    check_files(&mnt);
    cluster.volume.umount();
    cluster.volume.fsck();
    assert_eq!(all.len(), 4);
}

/// As a power cut of all machines but the one that mounts.
#[test]
fn all_nodes_may_be_away_for_a_while() {
    let mut cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    fsynced_write(&mnt.join("before"), &pattern(1, 100_000));
    fs::write(mnt.join("dirty"), pattern(2, 3_000_000)).unwrap();
    cluster.nodes.iter_mut().for_each(|node| node.end(Signal::KILL));
    cluster.volume.wait_status("changes wait", |status| status["state"] == "waiting");
    let late = mnt.join("late");
    let writer = std::thread::spawn(move || fsynced_write(&late, &pattern(9, 200_000)));
    std::thread::sleep(Duration::from_secs(2));
    assert!(!writer.is_finished(), "nobody can have taken this");
    cluster.nodes.iter_mut().for_each(Node::start);
    writer.join().unwrap();
    wait_whole(&cluster.volume);
    // What nobody has synced may be gone with the mount.
    cluster.volume.sync();
    drop_caches();
    check_files(&mnt);
    assert!(fs::read(mnt.join("dirty")).unwrap() == pattern(2, 3_000_000));
    // What was acknowledged in between is there for whoever comes.
    cluster.volume.kill();
    cluster.volume.mount();
    check_files(&mnt);
    for (name, content) in [("before", pattern(1, 100_000)), ("late", pattern(9, 200_000))] {
        assert!(fs::read(mnt.join(name)).unwrap() == content, "{name}");
    }
    cluster.volume.umount();
    cluster.volume.fsck();
}
