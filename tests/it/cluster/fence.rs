//! One mount at a time: a mount that fell silent loses the volume to the next one, for good.

use super::Cluster;
use crate::loss::fsynced_write;
use crate::real::{fail, ironfs, pattern, succeed};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::Write as _;
use std::process::Command;

/// Mounts of other tests must not live on in this place when they are unmounted there.
const UNMOUNT_OTHERS: &str = "grep -E 'ironfs|/dev/fuse|loop' /proc/self/mounts | cut -d' ' -f2 | xargs -r -n1 umount -l || true";

/// Runs a script where the runtime directory and mounts are its own: as on another machine. It gets the program, the
/// configuration and a mount point.
fn elsewhere(cluster: &Cluster, script: &str) -> Command {
    let place = cluster.volume.root().join("elsewhere");
    fs::create_dir_all(&place).unwrap();
    let mut command = Command::new("unshare");
    let script = format!(
        "set -e; {UNMOUNT_OTHERS}; mkdir -p /run/ironfs; mount -t tmpfs tmpfs /run/ironfs; {script}"
    );
    command.args(["-m", "sh", "-c", &script, "sh"]).arg(ironfs().get_program());
    command.arg(cluster.volume.config()).arg(place);
    command
}

#[test]
fn a_mount_that_fell_silent_is_fenced() {
    let cluster = Cluster::format("4+2", 3, 6);
    cluster.volume.mount();
    let mnt = cluster.volume.mnt();
    fsynced_write(&mnt.join("before"), &pattern(1, 500_000));
    // While it lives, nobody else gets the disks.
    let mount = "\"$1\" mount \"$2\" \"$3\"";
    let said = fail(&mut elsewhere(&cluster, mount), 2);
    assert!(said.contains("in use by pid"), "{said}");

    let pid = Pid::from_raw(cluster.volume.pid()).unwrap();
    let mut open = fs::File::create(mnt.join("late")).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    let taken_over = format!(
        "{mount}; cat \"$3/before\" >/dev/null; echo taken >\"$3/after\"; sync \"$3/after\"; \"$1\" umount \"$3\""
    );
    succeed(&mut elsewhere(&cluster, &taken_over));
    kill_process(pid, Signal::CONT).unwrap();

    // What the old one writes now is never acknowledged, nor does it reach the volume.
    let late = open.write_all(b"late").and_then(|()| open.sync_all());
    assert!(late.is_err(), "a fenced mount has acknowledged a write");
    assert!(fsync_fails(&mnt.join("later")), "and another one");
    drop(open);
    // It says what has happened, and ends.
    let status = cluster.volume.status();
    assert!(status.to_string().contains("another mount has taken"), "{status}");
    succeed(ironfs().args(["umount", "--lazy"]).arg(&mnt));
    crate::real::wait("the fenced server ends", || {
        !std::path::Path::new(&format!("/proc/{}", pid.as_raw_nonzero())).exists()
    });
    cluster.volume.mount();
    assert_eq!(fs::read(mnt.join("after")).unwrap(), b"taken\n");
    assert!(fs::read(mnt.join("before")).unwrap() == pattern(1, 500_000));
    assert!(!mnt.join("later").exists());
    cluster.volume.umount();
    cluster.volume.fsck();
}

fn fsync_fails(path: &std::path::Path) -> bool {
    let written = fs::File::create(path).and_then(|mut file| {
        file.write_all(b"x")?;
        file.sync_all()
    });
    written.is_err()
}

#[test]
fn a_mount_needs_more_than_half_of_the_disks() {
    let mut cluster = Cluster::format("replica:3", 4, 4);
    cluster.volume.mount();
    fsynced_write(&cluster.volume.mnt().join("f"), b"x");
    cluster.volume.umount();
    // Three replicas survive two losses; two of four disks are not more than half.
    cluster.nodes[0].end(Signal::KILL);
    cluster.nodes[1].end(Signal::KILL);
    let said = fail(&mut cluster.volume.mount_command(""), 2);
    assert!(said.contains("more than half must"), "{said}");
    cluster.volume.mount_with("ro");
    assert_eq!(fs::read(cluster.volume.mnt().join("f")).unwrap(), b"x");
    cluster.volume.umount();
    cluster.nodes[1].start();
    cluster.volume.mount();
    fsynced_write(&cluster.volume.mnt().join("g"), b"y");
    cluster.volume.umount();
    cluster.nodes[0].start();
    cluster.volume.fsck();
}
