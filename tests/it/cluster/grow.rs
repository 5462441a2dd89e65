//! A volume on directories of one machine becomes one over nodes, and the other way round, without a byte being copied.

use super::Cluster;
use crate::loss::{check_files, write_files};
use crate::real::{ironfs, pattern, succeed};
use rustix::process::Signal;
use std::fs;

#[test]
fn an_embedded_volume_grows_into_a_cluster_and_back() {
    let mut cluster = Cluster::prepare(3, 6);
    cluster.nodes.iter_mut().for_each(|node| node.end(Signal::TERM));
    // Embedded.
    cluster.volume.format_disks("4+2", &["--allow-same-device"]);
    let embedded = fs::read_to_string(cluster.volume.config()).unwrap();
    cluster.volume.mount();
    write_files(&cluster.volume.mnt());
    cluster.volume.umount();
    let shards = || {
        let found =
            succeed(std::process::Command::new("find").args(cluster.volume.disks.iter()).args([
                "-path",
                "*/shards/*",
                "-type",
                "f",
                "-printf",
                "%p %i %s\\n",
            ]));
        let text = String::from_utf8(found.stdout).unwrap();
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let before = shards();
    assert!(!before.is_empty());

    // The same directories, served by nodes: only the configuration changes.
    let mut text = embedded.clone();
    for (disk, place) in cluster.volume.disks.iter().zip(cluster.places()) {
        let (disk, place) = (disk.display().to_string(), place.display().to_string());
        text = text.replace(&format!("\"{disk}\""), &format!("\"{place}\""));
    }
    let identity = super::identity(cluster.volume.root(), "desk");
    text = format!("identity = \"{}\"\n{text}", identity.display());
    for node in &cluster.nodes {
        text.push_str(&format!("\n[peer.{}]\naddress = \"{}\"\n", node.name, node.address));
    }
    fs::write(cluster.volume.config(), text).unwrap();
    cluster.nodes.iter_mut().for_each(super::Node::start);
    cluster.volume.mount();
    check_files(&cluster.volume.mnt());
    let status = cluster.volume.status();
    assert_eq!(status["state"], "healthy");
    let survives = status["survives"].as_str().unwrap();
    assert!(survives.contains("any one node"), "the nodes are known: {survives}");
    fs::write(cluster.volume.mnt().join("clustered"), pattern(5, 1_000_000)).unwrap();
    cluster.volume.umount();
    cluster.volume.fsck();
    let after = shards();
    assert!(before.iter().all(|shard| after.contains(shard)), "shards stay where they are");

    // And back: nodes end, the directories are local again.
    cluster.nodes.iter_mut().for_each(|node| node.end(Signal::TERM));
    fs::write(cluster.volume.config(), embedded).unwrap();
    cluster.volume.mount();
    check_files(&cluster.volume.mnt());
    let found = fs::read(cluster.volume.mnt().join("clustered")).unwrap();
    assert!(found == pattern(5, 1_000_000));
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn a_directory_has_one_server() {
    let cluster = Cluster::format("2+1", 3, 3);
    // Its node holds it: neither another node nor an embedded mount gets it.
    let said = crate::real::fail(&mut cluster.nodes[0].command(), 2);
    assert!(said.contains("in use by ironfs-shardd"), "{said}");
    let local = cluster.volume.root().join("local.toml");
    let dirs: Vec<String> = cluster
        .nodes
        .iter()
        .map(|node| format!("{:?}", node.dirs[0].display().to_string()))
        .collect();
    let text = format!("name = \"{}\"\ndisks = [{}]\n", cluster.volume.name, dirs.join(", "));
    fs::write(&local, text).unwrap();
    let said = crate::real::fail(ironfs().arg("fsck").arg(&local), 2);
    assert!(said.contains("in use by ironfs-shardd"), "{said}");
}

#[test]
fn nodes_refuse_copies_and_foreign_disks() {
    let mut cluster = Cluster::format("2+1", 3, 3);
    cluster.nodes.iter_mut().for_each(|node| node.end(Signal::TERM));
    let copy = cluster.volume.root().join("copy");
    succeed(std::process::Command::new("cp").arg("-a").arg(&cluster.nodes[0].dirs[0]).arg(&copy));
    let refuses = |cluster: &mut Cluster, dir: &std::path::Path, says: &str| {
        cluster.nodes[0].dirs.push(dir.to_path_buf());
        let said = crate::real::fail(&mut cluster.nodes[0].command(), 2);
        assert!(said.contains(says), "{said}");
        cluster.nodes[0].dirs.pop();
    };
    refuses(&mut cluster, &copy, "one is a copy");
    let foreign = crate::real::Volume::format("replica:2", 2);
    refuses(&mut cluster, &foreign.disks[0], "belong to two volumes");
    // A newer superblock: of the version after next, with sums that fit.
    let superblock = copy.join("superblock");
    let mut bytes = fs::read(&superblock).unwrap();
    for slot in bytes.chunks_mut(64 * 1024) {
        slot[8] = 99;
        slot[16..24].fill(0);
        let sum = ironfs::sum::xxh3(slot);
        slot[16..24].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(&superblock, bytes).unwrap();
    refuses(&mut cluster, &copy, "newer");
    // One that is not there is waited for.
    let late = cluster.volume.root().join("late");
    cluster.nodes[0].dirs.push(late);
    cluster.nodes[0].start();
    assert!(cluster.nodes[0].said().contains("is not there"));
}
