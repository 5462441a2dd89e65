//! Disks of nodes that are full, fail calls or are slow: what the real program does with local ones holds behind a network.

use super::Cluster;
use super::loss::wait_whole;
use crate::device::Device;
use crate::faulty::Medium;
use crate::loss::{Way, check_files, drop_caches, fsynced_write, lose_pairs_live, write_files};
use crate::real::{Volume, pattern};
use crate::sim::disk::{Call, SimMachine};
use rustix::process::Signal;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const DISKS: usize = 6;
const NODES: usize = 3;
const DEVICE_MIB: u64 = 160;

/// Ends the nodes: their directories are to be unmounted.
fn end_nodes(cluster: &mut Cluster) {
    cluster.nodes.iter_mut().for_each(|node| node.end(Signal::TERM));
}

#[test]
fn a_pair_of_full_devices_of_nodes() {
    let mut volume = Volume::prepare(DISKS, &std::env::temp_dir());
    let directories: Vec<PathBuf> = volume.disks.clone();
    for directory in &directories {
        let device = Device::ext4(&directory.with_extension("image"), DEVICE_MIB, directory);
        volume.devices.push(device);
    }
    let mut cluster = Cluster::over(volume, NODES).formatted("4+2");
    let fill = |volume: &Volume, disk: usize| drop(volume.devices[disk].fill());
    let empty =
        |_volume: &Volume, disk: usize| fs::remove_file(directories[disk].join("foreign")).unwrap();
    lose_pairs_live(&cluster.volume, &Way { lose: &fill, state: "full", bring_back: &empty });
    end_nodes(&mut cluster);
}

#[test]
fn disks_of_nodes_that_answer_eio_or_are_slow() {
    let machine = SimMachine::new(1, DISKS);
    let volume = Volume::prepare(DISKS, &std::env::temp_dir());
    let medium = Medium::mount(&machine, &volume.disks);
    let mut cluster = Cluster::over(volume, NODES).formatted("4+2");
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    write_files(&mnt);
    cluster.volume.sync();
    // A slow disk is waited for, or passed over; nothing is wrong.
    medium.delay(4, Duration::from_millis(30));
    fsynced_write(&mnt.join("slow"), &pattern(3, 2_000_000));
    drop_caches();
    check_files(&mnt);
    medium.delay(4, Duration::ZERO);
    // Two disks fail syncs, writes and reads in turn: each call goes on with the others.
    let calls = [Call::SyncData, Call::Write, Call::Read, Call::SyncDir];
    for (number, call) in (0_u64..).zip(calls) {
        for disk in [1, 2] {
            machine.fail_next(disk, call, 3);
        }
        let (path, content) = (mnt.join(format!("despite{number}")), pattern(number, 2_000_000));
        fsynced_write(&path, &content);
        drop_caches();
        check_files(&mnt);
        assert!(fs::read(&path).unwrap() == content, "{call:?}");
        (0..DISKS).for_each(|disk| machine.heal(disk));
        wait_whole(&cluster.volume);
    }
    cluster.volume.umount();
    cluster.volume.fsck();
    end_nodes(&mut cluster);
    drop(cluster);
    medium.unmount();
}
