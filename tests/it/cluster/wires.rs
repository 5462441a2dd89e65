//! Nodes in network namespaces, each behind a cable of its own that is pulled, that flaps, carries one direction only, or
//! little.

use super::Cluster;
use super::loss::wait_whole;
use crate::loss::{check_files, drop_caches, fsynced_write, write_files};
use crate::real::{Volume, pattern, succeed, wait};
use std::fs;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a read may take that meets a cable which was pulled just now.
const FIRST_READ: Duration = Duration::from_secs(2);
/// How often that is tried: beside other tests that keep all processors busy, anything may take seconds once.
const TRIES: usize = 3;
/// Bytes of one read.
const PIECE_BYTES: usize = 256 << 10;
/// Port of a node; each has an address of its own.
const PORT: u16 = 7440;

/// A network namespace behind a pair of virtual interfaces.
pub(super) struct Wire {
    space: String,
    near: String,
    /// Address of the other end.
    pub(super) far: String,
}

fn ip(words: &[&str]) {
    succeed(Command::new("ip").args(words));
}

impl Wire {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let (space, near) = (format!("ironfs-{pid}-{number}"), format!("if{pid}n{number}"));
        // Two runs of the tests may meet on one machine.
        let net = format!("10.{}.{}", 100 + pid % 100, (pid / 100 + number) % 256);
        let (here, far) = (format!("{net}.1"), format!("{net}.2"));
        ip(&["netns", "add", &space]);
        ip(&["link", "add", &near, "type", "veth", "peer", "name", "eth0", "netns", &space]);
        ip(&["addr", "add", &format!("{here}/24"), "dev", &near]);
        ip(&["link", "set", &near, "up"]);
        for words in [
            ["addr", "add", &format!("{far}/24"), "dev", "eth0"].as_slice(),
            &["link", "set", "eth0", "up"],
            &["link", "set", "lo", "up"],
        ] {
            ip(&[["-n", &space].as_slice(), words].concat());
        }
        Self { space, near, far }
    }

    /// Runs a program at the other end.
    pub(super) fn command(&self, program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space]).arg(program);
        command
    }

    fn pull(&self) {
        ip(&["link", "set", &self.near, "down"]);
    }

    fn plug_in(&self) {
        ip(&["link", "set", &self.near, "up"]);
    }

    /// What the node sends is lost; it hears everything.
    fn mute(&self) {
        ip(&["-n", &self.space, "route", "add", "blackhole", "default"]);
        ip(&["-n", &self.space, "addr", "flush", "dev", "eth0", "scope", "global"]);
        ip(&["-n", &self.space, "addr", "add", &format!("{}/32", self.far), "dev", "eth0"]);
    }

    fn unmute(&self) {
        ip(&["-n", &self.space, "addr", "flush", "dev", "eth0", "scope", "global"]);
        ip(&["-n", &self.space, "addr", "add", &format!("{}/24", self.far), "dev", "eth0"]);
        ip(&["-n", &self.space, "route", "del", "blackhole", "default"]);
    }

    /// The node sends no more than `rate` (`20mbit`).
    fn narrow(&self, rate: &str) {
        let mut command = self.command("tc".as_ref());
        command.args(["qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate]);
        succeed(command.args(["burst", "64kb", "latency", "400ms"]));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // The interface outside goes with its other end.
        succeed(Command::new("ip").args(["netns", "del", &self.space]));
    }
}

/// Six disks on three nodes, each behind a wire, mounted, with files.
fn cluster() -> Cluster {
    let cluster = Cluster::format_behind_wires("4+2", 3, 6, PORT);
    cluster.volume.mount();
    write_files(&cluster.volume.mnt());
    cluster.volume.remount();
    cluster
}

fn wires(cluster: &Cluster) -> Vec<&Wire> {
    cluster.nodes.iter().map(|node| node.wire.as_ref().unwrap()).collect()
}

fn wait_down(volume: &Volume, disks: usize) {
    volume.wait_status("the disks of a node are down", |status| {
        let all = status["disks"].as_array().unwrap();
        all.iter().filter(|disk| disk["state"] == "down").count() == disks
    });
}

/// Reads all files in pieces, and answers how long the slowest call took.
fn slowest_read(mnt: &Path) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut timed = |start: Instant| slowest = slowest.max(start.elapsed());
    for entry in fs::read_dir(mnt).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let start = Instant::now();
            let mut file = fs::File::open(&path).unwrap();
            timed(start);
            let mut piece = vec![0; PIECE_BYTES];
            loop {
                let start = Instant::now();
                let read = file.read(&mut piece).unwrap();
                timed(start);
                if read == 0 {
                    break;
                }
            }
        }
    }
    slowest
}

/// Makes a node fall silent and reads around it at once, until that was quick.
fn read_at_silence(cluster: &Cluster, silence: impl Fn(), end: impl Fn()) {
    let mut slowest = Vec::new();
    loop {
        silence();
        drop_caches();
        slowest.push(slowest_read(&cluster.volume.mnt()));
        if slowest.last() < Some(&FIRST_READ) {
            return;
        }
        assert!(slowest.len() < TRIES, "reads took {slowest:?}");
        end();
        wait_whole(&cluster.volume);
    }
}

#[test]
fn a_cable_is_pulled_and_plugged_in() {
    let cluster = cluster();
    let mnt = cluster.volume.mnt();
    for (number, wire) in wires(&cluster).into_iter().take(2).enumerate() {
        read_at_silence(&cluster, || wire.pull(), || wire.plug_in());
        wait_down(&cluster.volume, 2);
        drop_caches();
        check_files(&mnt);
        let name = mnt.join(format!("despite{number}"));
        fsynced_write(&name, &pattern(number as u64, 2_000_000));
        wire.plug_in();
        wait_whole(&cluster.volume);
        assert!(fs::read(&name).unwrap() == pattern(number as u64, 2_000_000));
    }
    check_files(&mnt);
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn all_cables_are_pulled_for_a_while() {
    let cluster = cluster();
    let mnt = cluster.volume.mnt();
    wires(&cluster).into_iter().for_each(Wire::pull);
    let name = mnt.join("over");
    let writer = std::thread::spawn(move || fsynced_write(&name, &pattern(5, 300_000)));
    // Longer than a lease.
    std::thread::sleep(Duration::from_secs(12));
    wires(&cluster).into_iter().for_each(Wire::plug_in);
    writer.join().unwrap();
    wait_whole(&cluster.volume);
    drop_caches();
    check_files(&mnt);
    assert!(fs::read(mnt.join("over")).unwrap() == pattern(5, 300_000));
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn a_cable_flaps_while_files_are_written() {
    let cluster = cluster();
    let mnt = cluster.volume.mnt();
    let wire = wires(&cluster)[1];
    std::thread::scope(|scope| {
        let flapping = scope.spawn(|| {
            for round in 0..6u64 {
                wire.pull();
                std::thread::sleep(Duration::from_millis(300 + 700 * (round % 3)));
                wire.plug_in();
                std::thread::sleep(Duration::from_millis(1500 - 500 * (round % 3)));
            }
        });
        let mut number = 0;
        while !flapping.is_finished() {
            fsynced_write(&mnt.join(format!("f{}", 100 + number)), &pattern(number, 200_000));
            number += 1;
        }
        assert!(number > 2, "{number} files were written");
        drop_caches();
        for number in 0..number {
            let found = fs::read(mnt.join(format!("f{}", 100 + number))).unwrap();
            assert!(found == pattern(number, 200_000), "file {number}");
        }
    });
    wait_whole(&cluster.volume);
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn a_node_that_hears_and_is_not_heard_holds_nobody_up() {
    let cluster = cluster();
    let mnt = cluster.volume.mnt();
    let wire = wires(&cluster)[2];
    read_at_silence(&cluster, || wire.mute(), || wire.unmute());
    fsynced_write(&mnt.join("despite"), &pattern(4, 2_000_000));
    wait_down(&cluster.volume, 2);
    wire.unmute();
    wait_whole(&cluster.volume);
    drop_caches();
    check_files(&mnt);
    assert!(fs::read(mnt.join("despite")).unwrap() == pattern(4, 2_000_000));
    cluster.volume.umount();
    cluster.volume.fsck();
}

#[test]
fn a_narrow_link_does_not_slow_down_all_reads() {
    let cluster = cluster();
    let mnt = cluster.volume.mnt();
    let content = pattern(7, 16 << 20);
    fsynced_write(&mnt.join("large"), &content);
    // The two disks behind it hold a third of all shards: 8 MB take half a minute there.
    wires(&cluster)[0].narrow("2mbit");
    wait("large files are read around the narrow link", || {
        drop_caches();
        let start = Instant::now();
        assert!(fs::read(mnt.join("large")).unwrap() == content);
        start.elapsed() < Duration::from_secs(4)
    });
    cluster.volume.umount();
}
