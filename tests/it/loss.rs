//! Disks that go away, live and before mounting, in every pair; and come back.

use crate::metrics::value;
use crate::real::{Volume, fail, ironfs, pattern, succeed, wait};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

/// Sizes that meet every way to store a file: inline, packed, one row, several rows, more than a chunk.
const SIZES: [usize; 6] = [100, 4096, 70_000, 300_000, 5_000_000, 40_000_000];

pub(crate) fn write_files(mnt: &Path) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        fs::write(mnt.join(format!("f{seed}")), pattern(seed as u64, size)).unwrap();
    }
}

pub(crate) fn check_files(mnt: &Path) {
    for (seed, size) in SIZES.into_iter().enumerate() {
        let read = fs::read(mnt.join(format!("f{seed}"))).unwrap();
        assert!(read == pattern(seed as u64, size), "file of {size} bytes differs");
    }
}

pub(crate) fn drop_caches() {
    fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

pub(crate) fn fsynced_write(path: &Path, content: &[u8]) {
    let mut file = fs::File::create(path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
}

#[test]
fn every_pair_of_disks_before_mounting() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.umount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for first in 0..6 {
        for second in first + 1..6 {
            for disk in [first, second] {
                fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
            }
            volume.mount();
            check_files(&volume.mnt());
            fsynced_write(&volume.mnt().join("while-away"), &pattern(first as u64, 100_000));
            volume.umount();
            for disk in [first, second] {
                fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
            }
            volume.mount();
            check_files(&volume.mnt());
            let read = fs::read(volume.mnt().join("while-away")).unwrap();
            assert!(read == pattern(first as u64, 100_000), "pair {first} {second}");
            volume.umount();
        }
    }
    volume.fsck();
}

#[test]
fn a_pair_renamed_away_live() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for pair in [[0usize, 1], [1, 4], [3, 5]] {
        for disk in pair {
            fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
        }
        let down = |status: &serde_json::Value| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == "down")
        };
        // The server may not have noticed yet: an fsync goes on all the same.
        fsynced_write(&volume.mnt().join("just-then"), &pattern(9, 3_000_000));
        let start = std::time::Instant::now();
        volume.wait_status("both disks are seen to be down", down);
        assert!(start.elapsed() < Duration::from_secs(2), "a loss shows within 2 s");
        drop_caches();
        check_files(&volume.mnt());
        fsynced_write(&volume.mnt().join("live"), &pattern(pair[0] as u64, 3_000_000));
        fsynced_write(&volume.mnt().join("small"), b"small");
        for disk in pair {
            fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
        }
        let up = |status: &serde_json::Value| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == "healthy")
        };
        volume.wait_status("both disks are back", up);
        drop_caches();
        check_files(&volume.mnt());
        let read = fs::read(volume.mnt().join("live")).unwrap();
        assert!(read == pattern(pair[0] as u64, 3_000_000));
    }
    volume.remount();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

/// Pairs of six disks: all 15 in a soak run, else three that share no role.
fn pairs() -> Vec<[usize; 2]> {
    if std::env::var_os("IRONFS_CASES").is_none() {
        return vec![[0, 1], [2, 4], [3, 5]];
    }
    (0..6).flat_map(|first| (first + 1..6).map(move |second| [first, second])).collect()
}

/// A way in which disks are lost under a mounted volume, and come back.
pub(crate) struct Way<'a> {
    pub(crate) lose: &'a dyn Fn(&Volume, usize),
    /// How `status` shows such a disk.
    pub(crate) state: &'a str,
    pub(crate) bring_back: &'a dyn Fn(&Volume, usize),
}

/// Loses each pair in turn: reads are right, writes and fsyncs go on, `status` shows it within 2 s, and when the disks are
/// back nothing else has to be done.
pub(crate) fn lose_pairs_live(volume: &Volume, way: &Way<'_>) {
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    for (round, pair) in pairs().into_iter().enumerate() {
        let is = |wanted: &str, status: &serde_json::Value| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == *wanted)
        };
        for disk in pair {
            (way.lose)(volume, disk);
        }
        let start = std::time::Instant::now();
        volume.wait_status("the loss shows", |status| is(way.state, status));
        assert!(start.elapsed() < Duration::from_secs(2), "a loss shows within 2 s");
        if way.state == "down" {
            let status = volume.status();
            let survives = status["survives"].as_str().unwrap();
            assert!(survives.starts_with("the loss of no "), "{status}");
        }
        drop_caches();
        check_files(&volume.mnt());
        let content = pattern(round as u64, 3_000_000);
        fsynced_write(&volume.mnt().join("large"), &content);
        fsynced_write(&volume.mnt().join("small"), b"small");
        drop_caches();
        assert!(fs::read(volume.mnt().join("large")).unwrap() == content, "pair {pair:?}");
        for disk in pair {
            (way.bring_back)(volume, disk);
        }
        volume.wait_status("both disks are back", |status| is("healthy", status));
        drop_caches();
        check_files(&volume.mnt());
        assert!(fs::read(volume.mnt().join("large")).unwrap() == content, "pair {pair:?}");
        // What was written while the pair was away is whole again before another pair goes.
        succeed(ironfs().args(["repair", "run"]).arg(volume.mnt()));
    }
    volume.remount();
    check_files(&volume.mnt());
    assert_eq!(fs::read(volume.mnt().join("small")).unwrap(), b"small");
    volume.umount();
    volume.fsck();
}

#[test]
fn a_pair_of_full_devices_live() {
    let volume = Volume::format_devices("4+2", &[160; 6]);
    let fill = |volume: &Volume, disk: usize| drop(volume.devices[disk].fill());
    let empty = |volume: &Volume, disk: usize| {
        fs::remove_file(volume.disks[disk].join("foreign")).unwrap();
    };
    lose_pairs_live(&volume, &Way { lose: &fill, state: "full", bring_back: &empty });
}

#[test]
fn a_pair_of_devices_lazily_unmounted() {
    let volume = Volume::format_devices("4+2", &[160; 6]);
    let detach = |volume: &Volume, disk: usize| volume.devices[disk].detach();
    let again = |volume: &Volume, disk: usize| volume.devices[disk].mount_again();
    lose_pairs_live(&volume, &Way { lose: &detach, state: "down", bring_back: &again });
}

/// Moves everything that lies in one directory to another.
fn move_content(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn the_contents_of_a_pair_removed() {
    let volume = Volume::format("4+2", 6);
    let aside = |volume: &Volume, disk: usize| volume.root().join(format!("content{disk}"));
    let remove = |volume: &Volume, disk: usize| {
        fs::create_dir_all(aside(volume, disk)).unwrap();
        move_content(&volume.disks[disk], &aside(volume, disk));
    };
    let restore = |volume: &Volume, disk: usize| {
        move_content(&aside(volume, disk), &volume.disks[disk]);
    };
    lose_pairs_live(&volume, &Way { lose: &remove, state: "down", bring_back: &restore });
}

#[test]
fn pairs_of_eight_disks_of_two_sizes() {
    let volume = Volume::format_devices("4+2", &[240, 240, 240, 240, 120, 120, 120, 120]);
    volume.mount();
    let capacity = volume.status()["space"]["total_bytes"].as_u64().unwrap();
    // Two thirds of all bytes, as no disk is larger than a sixth of them; the file systems take a little.
    assert!(capacity > (1440 << 20) / 3 * 2 / 100 * 85, "{capacity} bytes");
    write_files(&volume.mnt());
    for number in 0..6 {
        fs::write(volume.mnt().join(format!("more{number}")), pattern(100 + number, 8_000_000))
            .unwrap();
    }
    volume.sync();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for pair in [[0usize, 1], [0, 7], [4, 6], [2, 5]] {
        for disk in pair {
            volume.devices[disk].detach();
        }
        volume.wait_status("both disks are down", |status| {
            pair.iter().all(|disk| status["disks"][disk]["state"] == "down")
        });
        drop_caches();
        check_files(&volume.mnt());
        // Six others are left: what is written now misses nothing.
        fsynced_write(&volume.mnt().join("live"), &pattern(pair[0] as u64, 3_000_000));
        for disk in pair {
            volume.devices[disk].mount_again();
        }
        volume.wait_status("all disks are back", |status| status["state"] == "healthy");
        drop_caches();
        check_files(&volume.mnt());
        let read = fs::read(volume.mnt().join("live")).unwrap();
        assert!(read == pattern(pair[0] as u64, 3_000_000));
    }
    let margins = volume.status()["stripes_by_margin"].clone();
    assert!(margins.as_object().unwrap().keys().all(|margin| margin == "2"), "{margins}");
    volume.umount();
    volume.fsck();
}

#[test]
fn without_any_log_disk_changes_wait_fail_and_go_on_with_them() {
    let volume = Volume::format("4+2", 6);
    volume.set_limit("outage_s", 60, 4);
    volume.mount();
    write_files(&volume.mnt());
    fsynced_write(&volume.mnt().join("last"), b"acknowledged");
    volume.sync();
    let status = volume.status();
    let log = status["log"]["disks"].as_array().unwrap();
    let log: Vec<usize> =
        log.iter().map(|disk| usize::try_from(disk.as_u64().unwrap() - 1).unwrap()).collect();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    // All at once: between two renames another disk would rightly join the log, and nothing be lost.
    volume.stopped(|| {
        for disk in &log {
            fs::rename(&volume.disks[*disk], aside.join(format!("d{disk}"))).unwrap();
        }
    });
    volume.wait_status("changes wait", |status| status["state"] == "waiting");
    assert_eq!(value(&volume.metrics(), "ironfs_writable"), 0.0);
    wait("metrics tell which disks are away", || {
        value(&volume.metrics(), "ironfs_disks{state=\"down\"}") == log.len() as f64
    });
    let error = fs::write(volume.mnt().join("new"), b"x").expect_err("nothing can be changed");
    assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
    let waits = volume.mnt().join("waits");
    let waiting = std::thread::spawn(move || fsynced_write(&waits, b"when they are back"));
    for disk in &log {
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[*disk]).unwrap();
    }
    waiting.join().unwrap();
    volume.wait_status("all is well", |status| status["state"] == "healthy");
    check_files(&volume.mnt());
    assert_eq!(fs::read(volume.mnt().join("last")).unwrap(), b"acknowledged");
    fsynced_write(&volume.mnt().join("new"), b"writable again");

    // Unmounted while they are away, it says so, and hangs for no longer than it waits for them.
    volume.stopped(|| {
        for disk in &log {
            fs::rename(&volume.disks[*disk], aside.join(format!("d{disk}"))).unwrap();
        }
    });
    volume.wait_status("changes wait", |status| status["state"] == "waiting");
    drop(ironfs().arg("umount").arg(volume.mnt()).output().unwrap());
    for disk in &log {
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[*disk]).unwrap();
    }
    volume.mount();
    check_files(&volume.mnt());
    assert_eq!(fs::read(volume.mnt().join("new")).unwrap(), b"writable again");
    volume.umount();
    volume.fsck();
}

/// The disks with the log, and the others.
fn by_log(volume: &Volume) -> (Vec<usize>, Vec<usize>) {
    let status = volume.status();
    let log = status["log"]["disks"].as_array().unwrap();
    let keeps_log = |disk: &usize| log.iter().any(|id| id.as_u64() == Some(*disk as u64 + 1));
    (0..volume.disks.len()).partition(keeps_log)
}

fn is_mounted(directory: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(directory.to_str().unwrap())
}

#[test]
fn an_unmount_waits_for_disks_and_tells_what_is_lost() {
    let volume = Volume::format("4+2", 6);
    volume.set_limit("outage_s", 60, 16);
    volume.mount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    let rename_all = |away: bool| {
        for (index, disk) in volume.disks.iter().enumerate() {
            let aside = aside.join(format!("d{index}"));
            let (from, to) = if away { (disk, &aside) } else { (&aside, disk) };
            fs::rename(from, to).unwrap();
        }
    };
    let unmount = || {
        let mut command = ironfs();
        command.arg("umount").arg(volume.mnt()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let lose_all = |name: &str| {
        fs::write(volume.mnt().join(name), pattern(3, 3_000_000)).unwrap();
        volume.stopped(|| rename_all(true));
        volume.wait_status("changes wait", |status| status["state"] == "waiting");
    };

    lose_all("kept");
    let mut ending = unmount();
    wait("the mount is gone", || !is_mounted(&volume.mnt()));
    // They are not locked while they are away; what the server holds would be lost to who comes first.
    let mut fsck = ironfs().arg("fsck").arg(volume.config()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    rename_all(false);
    assert!(ending.wait().unwrap().success(), "it was written out when the disks were back");
    assert!(fsck.wait().unwrap().success(), "it waited for the server");
    volume.mount();
    assert!(fs::read(volume.mnt().join("kept")).unwrap() == pattern(3, 3_000_000));

    lose_all("lost");
    let ending = unmount();
    wait("the mount is gone", || !is_mounted(&volume.mnt()));
    let said = fail(ironfs().arg("fsck").arg(volume.config()), 2);
    assert!(said.contains("is being unmounted"), "{said}");
    let ended = ending.wait_with_output().unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("changes wait: "), "{said}");
    assert!(said.contains("is lost, 3000000 bytes of data"), "{said}");
    rename_all(false);
    volume.mount();
    assert!(fs::read(volume.mnt().join("kept")).unwrap() == pattern(3, 3_000_000));
    volume.umount();
    volume.fsck();
}

#[test]
fn a_class_that_cannot_be_written_keeps_no_other_back() {
    let volume = Volume::format("6+2", 8);
    volume.set_limit("outage_s", 60, 4);
    volume.mount();
    let narrow = volume.mnt().join("narrow");
    fs::create_dir(&narrow).unwrap();
    succeed(ironfs().args(["class", "set"]).arg(&narrow).arg("3+2"));
    let (_log, mut others) = by_log(&volume);
    others.truncate(3);
    let aside = |disk: usize| volume.root().join(format!("aside{disk}"));
    fs::write(volume.mnt().join("wide"), pattern(1, 3_000_000)).unwrap();
    fs::write(narrow.join("f"), pattern(2, 3_000_000)).unwrap();
    volume.stopped(|| {
        others.iter().for_each(|disk| fs::rename(&volume.disks[*disk], aside(*disk)).unwrap());
    });
    volume.wait_status("too few are left for the class", |status| status["state"] == "waiting");
    let said = fail(ironfs().arg("umount").arg(volume.mnt()), 1);
    // Its times are lost with it if the kernel has told them.
    assert!(said.contains("is lost, 3000000 bytes of data"), "{said}");
    others.iter().for_each(|disk| fs::rename(aside(*disk), &volume.disks[*disk]).unwrap());
    volume.mount();
    assert!(fs::read(narrow.join("f")).unwrap() == pattern(2, 3_000_000));
    volume.umount();
    volume.fsck();
}

#[test]
fn three_away_is_eio_and_never_wrong_bytes() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.remount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for disk in [3, 4, 5] {
        fs::rename(&volume.disks[disk], aside.join(format!("d{disk}"))).unwrap();
    }
    volume.wait_status("three disks are down", |status| {
        [3, 4, 5].iter().all(|disk| status["disks"][*disk]["state"] == "down")
    });
    drop_caches();
    let room = rustix::fs::statvfs(volume.mnt()).unwrap();
    let (used, left) = ((room.f_blocks - room.f_bfree) * room.f_frsize, room.f_bavail);
    assert!(left == 0 && used > SIZES[5] as u64, "{used} bytes used, {left} blocks left");
    let error = fs::read(volume.mnt().join("f5")).expect_err("too few shards are there");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    fs::rename(aside.join("d4"), &volume.disks[4]).unwrap();
    wait("the file reads again", || {
        fs::read(volume.mnt().join("f5")).is_ok_and(|read| read == pattern(5, SIZES[5]))
    });
    for disk in [3, 5] {
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[disk]).unwrap();
    }
    volume.umount();
    volume.mount();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn a_mount_without_any_log_disk_is_refused() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    fsynced_write(&volume.mnt().join("f"), b"content");
    let log: Vec<u64> = volume.status()["log"]["disks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|disk| disk.as_u64().unwrap())
        .collect();
    volume.umount();
    let aside = volume.root().join("aside");
    fs::create_dir(&aside).unwrap();
    for disk in &log {
        let index = usize::try_from(*disk - 1).unwrap();
        fs::rename(&volume.disks[index], aside.join(format!("d{disk}"))).unwrap();
    }
    let said = fail(&mut volume.mount_command(""), 2);
    assert!(said.contains("disk"), "{said}");
    for disk in &log {
        let index = usize::try_from(*disk - 1).unwrap();
        fs::rename(aside.join(format!("d{disk}")), &volume.disks[index]).unwrap();
    }
    volume.mount();
    assert_eq!(fs::read(volume.mnt().join("f")).unwrap(), b"content");
}

#[test]
fn a_dead_disk_is_replaced_and_the_volume_is_whole_again() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    fs::remove_dir_all(&volume.disks[2]).unwrap();
    volume.wait_status("the disk is down", |status| status["disks"][2]["state"] == "down");
    let new = volume.root().join("new");
    fs::create_dir(&new).unwrap();
    succeed(
        ironfs()
            .args(["disk", "replace", "--yes", "--allow-same-device", "--volume"])
            .arg(volume.mnt())
            .arg(&volume.disks[2])
            .arg(&new),
    );
    let status = volume.status();
    let margins = status["stripes_by_margin"].as_object().unwrap();
    assert!(margins.keys().all(|margin| margin == "2"), "{status}");
    assert_eq!(status["survives_disks"], 2, "{status}");
    assert_eq!(status["state"], "healthy", "{status}");
    drop_caches();
    check_files(&volume.mnt());
}

#[test]
fn disks_that_stripes_need_are_let_go_only_when_told_so() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let (log, others) = by_log(&volume);
    let [first, second, third] = others.try_into().unwrap();
    let place = |disk: usize| volume.root().join(format!("aside{disk}"));
    let away = |disk: usize| fs::rename(&volume.disks[disk], place(disk)).unwrap();
    let replace_by = |old: &Path, new: &str, options: &[&str]| {
        let new = volume.root().join(new);
        fs::create_dir_all(&new).unwrap();
        let mut command = ironfs();
        command.args(["disk", "replace", "--yes", "--allow-same-device", "--volume"]);
        command.arg(volume.mnt()).args(options).arg(old).arg(new);
        command
    };
    let replace = |disk: usize, options: &[&str]| {
        replace_by(&volume.disks[disk], &format!("new{disk}"), options)
    };
    let offers = |status: &serde_json::Value| status["actions"].to_string().contains("replace");

    [first, second, third].into_iter().for_each(away);
    volume.wait_status("three are down", |status| {
        [first, second, third].iter().all(|disk| status["disks"][*disk]["state"] == "down")
    });
    let status = volume.status();
    assert_eq!(status["state"], "waiting", "{status}");
    assert!(status["problems"].to_string().contains("data cannot be written"), "{status}");
    assert!(status["problems"].to_string().contains("cannot be read while"), "{status}");
    assert!(!offers(&status), "{status}");
    assert_eq!(value(&volume.metrics(), "ironfs_writable"), 0.0);
    for disk in [first, second, third] {
        let said = fail(&mut replace(disk, &[]), 2);
        assert!(said.contains("cannot be read without") && said.contains(" shards on "), "{said}");
    }
    assert_eq!(volume.status()["disks"].as_array().unwrap().len(), 6, "nothing came");

    // With one of them all can be read again, so the others may go, and none that is left.
    fs::rename(place(first), &volume.disks[first]).unwrap();
    volume.wait_status("it can be written", |status| status["state"] == "degraded");
    assert!(offers(&volume.status()));
    let said = fail(&mut replace(log[0], &[]), 2);
    assert!(said.contains("--lose-data gives them up"), "{said}");
    let said = fail(&mut replace(second, &[]), 1);
    assert!(said.contains("no disk can take it"), "the third is away still: {said}");
    drop_caches();
    check_files(&volume.mnt());

    // Told so it gives up what cannot be read without them.
    let new = volume.root().join(format!("new{second}"));
    away(first);
    fs::rename(&new, volume.root().join("late")).unwrap();
    volume.wait_status("three are down again", |status| status["state"] == "waiting");
    let lost = |status: &serde_json::Value| status["problems"].to_string().contains("are lost");
    for disk in [first, third] {
        let said = fail(&mut replace(disk, &["--lose-data"]), 1);
        assert!(said.contains("3 good shards, 4 needed"), "{said}");
        assert!(!lost(&volume.status()), "the last one may still come back");
    }
    fail(&mut replace_by(&new, "other", &["--lose-data"]), 1);
    let status = volume.status();
    assert!(lost(&status), "{status}");
    assert!(!status["problems"].to_string().contains("away"), "{status}");
    drop_caches();
    let read = fs::read(volume.mnt().join("f5")).map(|read| read.len());
    let error = read.expect_err("it was given up");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read(volume.mnt().join("f0")).unwrap(), pattern(0, SIZES[0]));
    fsynced_write(&volume.mnt().join("after"), &pattern(9, 3_000_000));

    // What is lost anyway holds no disk.
    let said = fail(&mut replace(log[0], &[]), 1);
    assert!(said.contains("good shards, 4 needed"), "{said}");
    drop_caches();
    assert!(fs::read(volume.mnt().join("after")).unwrap() == pattern(9, 3_000_000));
}
