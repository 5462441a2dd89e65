//! Nodes that join a volume while it is mounted: told once, they are found at each mount without a word in the configuration.

use super::loss::wait_whole;
use super::{Cluster, Node, ca, free_address, identity};
use crate::loss::{check_files, drop_caches, fsynced_write, write_files};
use crate::real::{Volume, fail, ironfs, pattern, succeed, wait};
use rustix::process::Signal;
use std::fs;
use std::net::UdpSocket;
use std::process::Command;

/// A mounted volume over `n0`, `n1` and `n2`, and beside it `n3`, of which it knows nothing. Each has two directories.
fn three_and_one() -> Cluster {
    let mut cluster = Cluster::prepare(4, 8);
    let fourth = cluster.nodes.pop().unwrap();
    cluster.volume.disks.retain(|disk| !fourth.dirs.contains(disk));
    let mut cluster = cluster.formatted("4+2");
    cluster.nodes.push(fourth);
    cluster.volume.mount();
    cluster
}

/// `ironfs node add`.
fn add(volume: &Volume, node: &str) -> Command {
    let mut command = ironfs();
    command.args(["node", "add", &volume.name, node]);
    command
}

/// What it says of a node at this address.
fn added(volume: &Volume, name: &str, address: &str) -> String {
    String::from_utf8(succeed(&mut add(volume, &format!("{name}={address}"))).stdout).unwrap()
}

/// What `ironfs node list` says of all nodes.
fn list(volume: &Volume) -> serde_json::Value {
    let output = succeed(ironfs().args(["node", "list", "--json", &volume.name]));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What it says of one.
fn listed(volume: &Volume, name: &str) -> Option<serde_json::Value> {
    list(volume).as_array().unwrap().iter().find(|node| node["name"] == name).cloned()
}

/// The directories of a node as whoever mounts names them.
fn places(node: &Node) -> Vec<String> {
    node.dirs.iter().map(|dir| format!("{}:{}", node.name, dir.display())).collect()
}

/// Waits until the node answers where it is, and all its disks are used.
fn wait_used(volume: &Volume, node: &Node) {
    let expected: Vec<String> =
        places(node).iter().map(|place| format!("{place} healthy")).collect();
    wait("a node and its disks are used", || {
        let found = listed(volume, &node.name).unwrap();
        let disks = found["disks"].as_array().unwrap().iter();
        let word = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let disks = disks.map(|disk| format!("{} {}", word(&disk["path"]), word(&disk["state"])));
        let here = found["reachable"] == true && found["address"] == node.address.as_str();
        here && disks.eq(expected.iter().cloned())
    });
}

fn wait_all_used(cluster: &Cluster) {
    cluster.nodes.iter().for_each(|node| wait_used(&cluster.volume, node));
}

#[test]
fn a_node_joins_moves_and_is_found_at_each_mount() {
    let mut cluster = three_and_one();
    let (name, mnt) = (cluster.volume.name.clone(), cluster.volume.mnt());
    let config = fs::read_to_string(cluster.volume.config()).unwrap();
    write_files(&mnt);
    let new = places(&cluster.nodes[3]);
    let disk_add = |place: &str| {
        let mut command = ironfs();
        command.args(["disk", "add", &name, "--allow-same-device", place]);
        command
    };
    let said = fail(&mut disk_add(&new[0]), 2);
    assert!(said.contains("nobody has said where node n3 is: `ironfs node add"), "{said}");

    let address = cluster.nodes[3].address.clone();
    let next: String =
        new.iter().map(|place| format!("next: ironfs disk add {name} {place}\n")).collect();
    let said = added(&cluster.volume, "n3", &address);
    assert_eq!(said, format!("n3 is at {address}\n{next}"));
    let node = listed(&cluster.volume, "n3").unwrap();
    assert_eq!((&node["reachable"], &node["reason"]), (&true.into(), &().into()));
    assert_eq!((&node["disks"], &node["spare"]), (&serde_json::json!([]), &new.clone().into()));
    for place in &new {
        succeed(&mut disk_add(place));
    }
    wait_all_used(&cluster);
    fsynced_write(&mnt.join("joined"), &pattern(7, 9_000_000));

    cluster.volume.remount();
    let after = fs::read_to_string(cluster.volume.config()).unwrap();
    assert_eq!(after, config, "nobody has to write it");
    wait_all_used(&cluster);
    check_files(&mnt);

    // It goes, and comes back elsewhere.
    cluster.nodes[3].end(Signal::KILL);
    drop_caches();
    check_files(&mnt);
    wait("the node is called away", || {
        let node = listed(&cluster.volume, "n3").unwrap();
        node["reachable"] == false && node["disks"][1]["state"] == "down"
    });
    cluster.nodes[3].address = free_address();
    cluster.nodes[3].start();
    let moved = cluster.nodes[3].address.clone();
    let said = added(&cluster.volume, "n3", &moved);
    assert_eq!(said, format!("n3 is at {moved}, and no longer at {address}\n"));
    wait_whole(&cluster.volume);
    cluster.volume.remount();
    wait_all_used(&cluster);
    check_files(&mnt);
    assert!(fs::read(mnt.join("joined")).unwrap() == pattern(7, 9_000_000));
    cluster.volume.umount();
    cluster.volume.fsck();

    // Its disks say where all nodes are.
    let scanned = succeed(ironfs().arg("scan").args(&cluster.nodes[3].dirs));
    let scanned = String::from_utf8(scanned.stdout).unwrap();
    for Node { name, address, .. } in &cluster.nodes {
        let peer = format!("[peer.{name}]\naddress = \"{address}\"\n");
        assert!(scanned.contains(&peer), "{scanned}");
    }
}

/// A configuration that knows of one node only.
fn mount_by(cluster: &Cluster, node: &Node) {
    let client = identity(cluster.volume.root(), "desk");
    let text = format!(
        "name = {:?}\nidentity = {client:?}\ndisks = {:?}\n[peer.{}]\naddress = {:?}\n",
        cluster.volume.name,
        places(node),
        node.name,
        node.address
    );
    let config = cluster.volume.root().join(format!("{}.toml", node.name));
    fs::write(&config, text).unwrap();
    succeed(ironfs().arg("mount").arg(&config).arg(cluster.volume.mnt()));
}

#[test]
fn one_node_in_the_configuration_leads_to_the_others() {
    let mut cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    write_files(&cluster.volume.mnt());
    cluster.volume.umount();
    // What the configuration says counts, and is known to the disks from then on.
    cluster.nodes[0].end(Signal::TERM);
    cluster.nodes[0].address = free_address();
    cluster.nodes[0].start();
    for node in [0, 1] {
        mount_by(&cluster, &cluster.nodes[node]);
        wait_all_used(&cluster);
        check_files(&cluster.volume.mnt());
        cluster.volume.umount();
    }
    // A node that is in the configuration may be told another address for this mount only.
    mount_by(&cluster, &cluster.nodes[2]);
    let before = cluster.nodes[2].address.clone();
    cluster.nodes[2].end(Signal::TERM);
    cluster.nodes[2].address = free_address();
    cluster.nodes[2].start();
    let word = format!("n2={}", cluster.nodes[2].address);
    let output = succeed(add(&cluster.volume, &word).arg("--json"));
    let added: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(added["node"]["address"], cluster.nodes[2].address.as_str());
    assert_eq!((&added["before"], &added["configured"]), (&before.clone().into(), &before.into()));
    wait_whole(&cluster.volume);
    cluster.volume.umount();
    mount_by(&cluster, &cluster.nodes[1]);
    wait_all_used(&cluster);
    check_files(&cluster.volume.mnt());
    cluster.volume.umount();
}

/// Nothing can be written before they are found, and they are not found before they are told.
#[test]
fn all_nodes_may_move_at_once() {
    let mut cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    fs::write(mnt.join("dirty"), pattern(2, 3_000_000)).unwrap();
    for node in &mut cluster.nodes {
        node.end(Signal::KILL);
        node.address = free_address();
    }
    cluster.volume.wait_status("changes wait", |status| status["state"] == "waiting");
    cluster.nodes.iter_mut().for_each(Node::start);
    let word = |node: &Node| format!("{}={}", node.name, node.address);
    let said = fail(&mut add(&cluster.volume, &word(&cluster.nodes[0])), 1);
    assert!(said.contains("is looked for at") && said.contains("waits for disks"), "{said}");
    for node in &cluster.nodes[1..] {
        // Enough may be back by then.
        add(&cluster.volume, &word(node)).output().unwrap();
    }
    wait_whole(&cluster.volume);
    fs::File::open(mnt.join("dirty")).unwrap().sync_all().unwrap();
    for node in &cluster.nodes {
        let said = added(&cluster.volume, &node.name, &node.address);
        assert!(said.starts_with(&format!("{} is at {}\n", node.name, node.address)), "{said}");
    }
    cluster.volume.umount();
    mount_by(&cluster, &cluster.nodes[0]);
    wait_all_used(&cluster);
    check_files(&mnt);
    assert!(fs::read(mnt.join("dirty")).unwrap() == pattern(2, 3_000_000));
    cluster.volume.umount();
}

#[test]
fn who_is_not_the_node_does_not_join() {
    let cluster = three_and_one();
    let fails = |volume: &Volume, word: &str, code: i32, says: &str| {
        let said = fail(&mut add(volume, word), code);
        assert!(said.contains(says), "{word}: {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{word}: one sentence: {said}");
    };
    let refuses = |volume: &Volume, word: &str, says: &str| fails(volume, word, 2, says);
    let (volume, root) = (&cluster.volume, cluster.volume.root());
    refuses(volume, "n3=", "is no address");
    refuses(volume, "n3=a b", "is no address");
    refuses(volume, "A/b=10.0.0.3:7440", "cannot name a node");
    let address = &cluster.nodes[3].address;
    refuses(volume, &format!("n4={address}"), "not valid for name \"n4\"");
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let word = format!("n3={}", silent.local_addr().unwrap());
    fails(volume, &word, 1, "no answer for 3s: start ironfs-shardd there, or correct the address");
    // A certificate of the authority for something else.
    ca(root, &["issue", "--role", "client", "--name", "n5"]);
    let dirs = vec![root.join("own")];
    fs::create_dir(&dirs[0]).unwrap();
    let (address, log) = (free_address(), root.join("n5.log"));
    let identity = identity(root, "n5");
    let mut client =
        Node { name: "n5".into(), address, dirs, identity, log, child: None, wire: None };
    client.start();
    refuses(volume, &format!("n5={}", client.address), "its certificate says client n5");

    let known = list(volume);
    let names: Vec<_> = known.as_array().unwrap().iter().map(|node| &node["name"]).collect();
    assert_eq!(names, ["n0", "n1", "n2"]);
    let table = succeed(ironfs().args(["node", "list", &volume.name])).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains("REACHABLE") && table.contains("healthy  n2:/"), "{table}");
    volume.umount();
    volume.mount_with("ro");
    refuses(volume, &format!("n3={}", cluster.nodes[3].address), "the mount is read-only");
    cluster.nodes.iter().take(3).for_each(|node| wait_used(volume, node));
    volume.umount();

    // Without an identity there is no way to any.
    let embedded = Volume::format("replica:2", 2);
    embedded.mount();
    refuses(&embedded, "n3=10.0.0.3:7440", "set identity in the configuration");
    assert_eq!(list(&embedded), serde_json::json!([]));
    embedded.umount();
}
