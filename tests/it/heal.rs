//! Redundancy that comes back by itself: nothing here asks for a repair.

use crate::loss::{check_files, drop_caches, fsynced_write, write_files};
use crate::real::{DEADLINE, Volume, fail, ironfs, pattern, succeed, wait};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Waits until no stripe may lose fewer than `margin` shards.
fn wait_margin(volume: &Volume, margin: &str) {
    wait_margin_for(DEADLINE, volume, margin);
}

fn wait_margin_for(deadline: Duration, volume: &Volume, margin: &str) {
    volume.wait_status_for(deadline, "every stripe has its full margin", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap();
        !margins.is_empty() && margins.keys().all(|found| found == margin)
    });
}

fn wait_state(volume: &Volume, disk: usize, state: &str) {
    volume.wait_status(&format!("disk {disk} is {state}"), |status| {
        status["disks"][disk]["state"] == state
    });
}

/// Moves disks out of sight, or back.
fn aside(volume: &Volume, disks: &[usize], away: bool) {
    let place = volume.root().join("aside");
    fs::create_dir_all(&place).unwrap();
    for disk in disks {
        let (home, other) = (volume.disks[*disk].clone(), place.join(format!("d{disk}")));
        let (from, to): (PathBuf, PathBuf) = if away { (home, other) } else { (other, home) };
        fs::rename(from, to).unwrap();
    }
}

#[test]
fn disks_that_return_get_what_was_written_without_them() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    aside(&volume, &[1, 4], true);
    for disk in [1, 4] {
        wait_state(&volume, disk, "down");
    }
    write_files(&volume.mnt());
    volume.sync();
    wait_margin(&volume, "0");
    aside(&volume, &[1, 4], false);
    wait_margin(&volume, "2");
    // Two others may go now, at once.
    aside(&volume, &[0, 5], true);
    drop_caches();
    check_files(&volume.mnt());
    aside(&volume, &[0, 5], false);
    volume.wait_status("all disks are back", |status| status["state"] == "healthy");
    volume.umount();
    volume.fsck();
}

#[test]
fn a_disk_that_stays_away_is_given_up_and_used_again_when_it_returns() {
    let volume = Volume::format("4+2", 8);
    volume.set_limit("disk_out_s", 600, 1);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    aside(&volume, &[2, 3], true);
    for disk in [2, 3] {
        wait_state(&volume, disk, "out");
    }
    wait_margin(&volume, "2");
    // No more than six are left: the next ones are waited for.
    aside(&volume, &[5], true);
    wait_state(&volume, 5, "down");
    fsynced_write(&volume.mnt().join("late"), &pattern(9, 3_000_000));
    std::thread::sleep(Duration::from_secs(3));
    wait_state(&volume, 5, "down");
    drop_caches();
    check_files(&volume.mnt());
    aside(&volume, &[2, 3, 5], false);
    volume.wait_status("all disks are used again", |status| {
        status["state"] == "healthy" && status["survives_disks"] == 2
    });
    wait_margin(&volume, "2");
    volume.remount();
    drop_caches();
    check_files(&volume.mnt());
    assert!(fs::read(volume.mnt().join("late")).unwrap() == pattern(9, 3_000_000));
    volume.umount();
    volume.fsck();
}

/// Users delete while a machine is down, and the volume stays mounted for years.
#[test]
fn what_was_deleted_while_a_disk_was_away_leaves_it_when_it_is_back() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let shards = |disk: usize| walk(&volume.disks[disk].join("shards")).len();
    let all = shards(2);
    aside(&volume, &[2], true);
    wait_state(&volume, 2, "down");
    fs::remove_file(volume.mnt().join("f5")).unwrap();
    wait("its shards leave the others", || shards(0) < all);
    aside(&volume, &[2], false);
    wait("they leave the disk that is back", || shards(2) == shards(0));
    wait_margin(&volume, "2");
    fs::write(volume.mnt().join("f5"), pattern(5, 40_000_000)).unwrap();
    volume.remount();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn shards_that_are_deleted_come_back() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    // Live, all the shards of two disks; then, between two mounts, some of one.
    for disk in [0, 3] {
        fs::remove_dir_all(volume.disks[disk].join("shards")).unwrap();
    }
    let full = |disk: usize| {
        let shards = volume.disks[disk].join("shards");
        walk(&shards).len()
    };
    wait("the shards are there again", || full(0) == full(1) && full(3) == full(1));
    volume.umount();
    for shard in walk(&volume.disks[2].join("shards")).iter().step_by(2) {
        fs::remove_file(shard).unwrap();
    }
    volume.mount();
    wait("the shards are there again", || full(2) == full(1));
    volume.umount();
    volume.fsck();
}

#[test]
fn a_repair_without_room_goes_on_when_there_is_some() {
    let volume = Volume::format_devices("4+2", &[120; 7]);
    volume.set_limit("disk_out_s", 600, 1);
    volume.mount();
    write_files(&volume.mnt());
    let mut filler = Vec::new();
    for number in 0.. {
        let path = volume.mnt().join(format!("filler{number}"));
        match fs::write(&path, pattern(number, 4_000_000))
            .and_then(|()| fs::File::open(&path)?.sync_all())
        {
            Ok(()) => filler.push((number, path)),
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{error}");
                fs::remove_file(&path).unwrap();
                break;
            }
        }
    }
    volume.sync();
    wait_margin(&volume, "2");
    volume.devices[3].detach();
    wait_state(&volume, 3, "out");
    // The others have no room for what it held: the repair fails, stripe by stripe, and is tried again later.
    volume.wait_status("what has been tried in vain is noted", |status| {
        status["repair"]["noted"].as_u64().unwrap() > 0
    });
    std::thread::sleep(Duration::from_secs(3));
    let status = volume.status();
    assert_ne!(status["state"], "read-only", "{status}");
    assert!(status["stripes_by_margin"]["1"].as_u64().unwrap() > 0, "{status}");
    // It leaves the metadata room; where that is not kept only the index of the shards takes some of it.
    let others = status["disks"].as_array().unwrap().iter().filter(|disk| disk["log"] == false);
    for disk in others.filter(|disk| disk["state"] != "out") {
        let bytes = |field: &str| disk[field].as_u64().unwrap();
        assert!(bytes("free_bytes") >= bytes("total_bytes") / 256, "{disk}");
    }
    let history = succeed(ironfs().args(["repair", "history", "--json"]).arg(volume.mnt()));
    let history = String::from_utf8_lossy(&history.stdout).into_owned();
    assert!(history.contains("skipped"), "{history}");
    drop_caches();
    check_files(&volume.mnt());
    for (number, path) in &filler {
        assert!(fs::read(path).unwrap() == pattern(*number, 4_000_000), "{}", path.display());
    }
    // With room it goes on by itself, in a new mount as well.
    let (gone, kept) = filler.split_at(filler.len() / 2);
    for (_number, path) in gone {
        fs::remove_file(path).unwrap();
    }
    volume.remount();
    // On a slow machine three attempts have failed by now, and the next is due 40 s after the last.
    wait_margin_for(Duration::from_secs(80), &volume, "2");
    drop_caches();
    check_files(&volume.mnt());
    for (number, path) in kept {
        assert!(fs::read(path).unwrap() == pattern(*number, 4_000_000), "{}", path.display());
    }
    fsynced_write(&volume.mnt().join("after"), &pattern(1, 3_000_000));
    volume.umount();
    volume.fsck();
}

#[test]
fn scrub_finds_rot_of_every_kind_and_repair_mends_it() {
    let volume = Volume::format("4+2", 6);
    volume.set_limit("scrub_days", 14, 0);
    volume.mount();
    write_files(&volume.mnt());
    volume.remount();
    let shards = |disk: usize| walk(&volume.disks[disk].join("shards"));
    // A bit of rot, a shard cut short, two that are swapped: of no stripe more than two.
    let (first, second) = (shards(0)[0].clone(), shards(1)[1].clone());
    let mut rotten = fs::read(&first).unwrap();
    rotten[9000] ^= 0x10;
    fs::write(&first, rotten).unwrap();
    let cut = fs::OpenOptions::new().write(true).open(&second).unwrap();
    cut.set_len(fs::metadata(&second).unwrap().len() / 2).unwrap();
    let [one, other, ..] = &shards(2)[..] else { panic!("two shards") };
    let swapped = (fs::read(one).unwrap(), fs::read(other).unwrap());
    fs::write(one, swapped.1).unwrap();
    fs::write(other, swapped.0).unwrap();
    let scrub = |what: &str| succeed(ironfs().args(["scrub", what]).arg(volume.mnt()));
    let state = || -> serde_json::Value {
        let output = succeed(ironfs().args(["scrub", "status", "--json"]).arg(volume.mnt()));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    scrub("start");
    wait("everything was read", || state()["passes"].as_u64() > Some(0));
    assert!(state()["damaged"].as_u64() >= Some(4), "{}", state());
    volume.wait_status("what was found is repaired", |status| status["repair"]["noted"] == 0);
    wait_margin(&volume, "2");
    let history = succeed(ironfs().args(["repair", "history", "--json"]).arg(volume.mnt()));
    let history: serde_json::Value = serde_json::from_slice(&history.stdout).unwrap();
    let done = history.as_array().unwrap().iter().filter(|line| line["result"] == "done");
    assert!(done.count() >= 2, "{history}");
    let passes = state()["passes"].as_u64();
    scrub("start");
    wait("everything was read again", || state()["passes"].as_u64() > passes);
    assert_eq!(state()["damaged"], 0);
    drop_caches();
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

/// A new directory beside the disks.
fn fresh(volume: &Volume, name: &str) -> String {
    let path = volume.root().join(name);
    fs::create_dir_all(&path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn left(volume: &Volume) -> u64 {
    let output = succeed(ironfs().args(["jobs", "--json"]).arg(volume.mnt()));
    let jobs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    jobs.as_array().unwrap().iter().map(|job| job["left_bytes"].as_u64().unwrap()).sum()
}

#[test]
fn a_disk_is_added_and_another_drained_while_files_are_written() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let new = fresh(&volume, "new");
    let add = |path: &str| {
        let mut command = ironfs();
        command.args(["disk", "add"]).arg(volume.mnt()).arg(path).arg("--allow-same-device");
        command
    };
    let first = volume.disks[0].to_str().unwrap().to_owned();
    let drain = |wait: bool| {
        let mut command = ironfs();
        command.args(["disk", "remove", "--drain", &first]).arg("--volume").arg(volume.mnt());
        if !wait {
            command.arg("--no-wait");
        }
        command
    };
    let refused = fail(&mut drain(false), 2);
    assert!(refused.contains("class 4+2 needs 6 disks"), "{refused}");
    succeed(&mut add(&new));
    let again = fail(&mut add(&new), 2);
    assert!(again.contains("choose an empty directory"), "{again}");
    let new_shards = || walk(&PathBuf::from(&new).join("shards")).len();
    wait("shards are moved to the new disk", || new_shards() > 0 && left(&volume) == 0);
    // It takes part in what is written from now on, and the old one leaves meanwhile.
    fsynced_write(&volume.mnt().join("before"), &pattern(5, 9_000_000));
    succeed(&mut drain(false));
    fsynced_write(&volume.mnt().join("during"), &pattern(6, 9_000_000));
    // It waits for the end, unless that has come already.
    let waited = drain(true).output().unwrap();
    let said = String::from_utf8_lossy(&waited.stderr);
    assert!(waited.status.success() || said.contains("has left the volume already"), "{said}");
    wait_state(&volume, 0, "removed");
    fs::remove_dir_all(&first).unwrap();
    drop_caches();
    check_files(&volume.mnt());
    volume.wait_status("two more may be lost", |status| {
        status["state"] == "healthy" && status["survives_disks"] == 2
    });
    aside(&volume, &[2, 5], true);
    drop_caches();
    check_files(&volume.mnt());
    for (name, seed) in [("before", 5), ("during", 6)] {
        assert!(fs::read(volume.mnt().join(name)).unwrap() == pattern(seed, 9_000_000), "{name}");
    }
    aside(&volume, &[2, 5], false);
    volume.wait_status("all are back", |status| status["state"] == "healthy");
    // The volume knows the new one, and does not miss the one that left.
    volume.remount();
    volume.wait_status("nothing is missed", |status| status["state"] == "healthy");
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn a_class_without_stripes_holds_no_disk() {
    let volume = Volume::format("4+2", 8);
    volume.mount();
    let wide = volume.mnt().join("wide");
    fs::create_dir(&wide).unwrap();
    succeed(ironfs().args(["class", "set"]).arg(&wide).arg("6+2"));
    fs::write(wide.join("f"), pattern(1, 3_000_000)).unwrap();
    write_files(&volume.mnt());
    volume.sync();
    let remove = || {
        let mut command = ironfs();
        command.args(["disk", "remove", "--drain", "--volume"]);
        command.arg(volume.mnt()).arg(&volume.disks[7]);
        command
    };
    let said = fail(&mut remove(), 2);
    assert!(said.contains("class 6+2 needs 8 disks"), "{said}");
    fs::remove_dir_all(&wide).unwrap();
    volume.sync();
    wait("its stripes are gone", || remove().output().unwrap().status.success());
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn a_drain_survives_kill_and_can_be_called_off() {
    let volume = Volume::format("4+2", 7);
    volume.set_limit("repair_mib_s", 0, 1);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let leaving = volume.disks[3].to_str().unwrap().to_owned();
    let remove = |flag: &[&str]| {
        let mut command = ironfs();
        command.args(["disk", "remove"]).args(flag).arg(&leaving).arg("--volume").arg(volume.mnt());
        command
    };
    succeed(&mut remove(&["--drain", "--no-wait"]));
    wait_state(&volume, 3, "draining");
    volume.kill();
    volume.mount();
    wait_state(&volume, 3, "draining");
    succeed(&mut remove(&["--cancel"]));
    wait_state(&volume, 3, "healthy");
    let refused = fail(&mut remove(&["--cancel"]), 2);
    assert!(refused.contains("does not drain"), "{refused}");
    volume.umount();
    volume.set_limit("repair_mib_s", 1, 0);
    volume.mount();
    // One that is gone is removed at once, and what it held is rebuilt without a wait for it.
    aside(&volume, &[3], true);
    wait_state(&volume, 3, "down");
    succeed(&mut remove(&["--yes"]));
    wait_state(&volume, 3, "removed");
    wait_margin(&volume, "2");
    aside(&volume, &[3], false);
    std::thread::sleep(Duration::from_secs(2));
    wait_state(&volume, 3, "removed");
    drop_caches();
    check_files(&volume.mnt());
    volume.remount();
    wait_state(&volume, 3, "removed");
    check_files(&volume.mnt());
    volume.umount();
    volume.fsck();
}

#[test]
fn a_disk_that_hangs_is_passed_over_and_used_again() {
    // Below one disk lies another mount, whose server can stand still: then every call on that disk hangs.
    let below = Volume::format("2+1", 3);
    below.mount();
    let mut volume = Volume::prepare(6, &std::env::temp_dir());
    volume.disks[0] = below.mnt().join("disk");
    fs::create_dir(&volume.disks[0]).unwrap();
    volume.format_disks("4+2", &["--allow-same-device"]);
    volume.mount();
    write_files(&volume.mnt());
    volume.sync();
    let keeps_metadata = |disk: usize| volume.disks[disk].join("meta/state.redb").exists();
    assert!(keeps_metadata(0), "the test is about a disk with the log and a copy of the state");
    // The disk is called silent after ten seconds at most, and the others are used.
    let longest = Duration::from_secs(20);
    below.stopped(|| {
        let start = Instant::now();
        for number in 0..50 {
            fsynced_write(&volume.mnt().join(format!("during{number}")), &pattern(number, 300_000));
        }
        fs::rename(volume.mnt().join("during1"), volume.mnt().join("renamed")).unwrap();
        fs::File::open(volume.mnt()).unwrap().sync_all().unwrap();
        assert!(start.elapsed() < longest, "it took {:?}", start.elapsed());
        wait_state(&volume, 0, "down");
        // A checkpoint, and reads of all that is there, with the disk hanging still.
        let start = Instant::now();
        volume.sync();
        drop_caches();
        check_files(&volume.mnt());
        assert!(start.elapsed() < longest, "it took {:?}", start.elapsed());
    });
    volume.wait_status("the disk is used again", |status| status["state"] == "healthy");
    wait_margin(&volume, "2");
    aside(&volume, &[2, 3], true);
    check_files(&volume.mnt());
    for number in [0, 7, 49] {
        let found = fs::read(volume.mnt().join(format!("during{number}"))).unwrap();
        assert!(found == pattern(number, 300_000), "{number}");
    }
    aside(&volume, &[2, 3], false);
    volume.wait_status("all are back", |status| status["state"] == "healthy");
    volume.umount();
    volume.fsck();
    below.umount();
    below.fsck();
}

#[test]
fn disks_that_are_full_of_shards_end_the_room_and_not_the_redundancy() {
    let volume = Volume::format_devices("4+2", &[150, 150, 300, 300, 300, 300]);
    volume.mount();
    let available = volume.status()["space"]["available_bytes"].as_u64().unwrap();
    let mut stored = 0;
    let full = (0..).find_map(|number| {
        let path = volume.mnt().join(format!("f{number}"));
        let written = fs::write(&path, pattern(number, 4_000_000)).and_then(|()| {
            let file = fs::File::open(&path)?;
            file.sync_all()
        });
        match written {
            Ok(()) => stored += 4_000_000,
            Err(error) => return Some(error),
        }
        assert!(stored < 3 * available, "it takes data without end");
        None
    });
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    let share = stored as f64 / available as f64;
    assert!(share > 0.9 && share < 1.1, "{stored} bytes were taken, {available} were told");
    wait_margin(&volume, "2");
    // Those that are large have room, and the class has not: removing something makes room.
    fs::remove_file(volume.mnt().join("f0")).unwrap();
    fs::remove_file(volume.mnt().join("f1")).unwrap();
    wait("there is room again", || {
        let path = volume.mnt().join("again");
        fs::write(&path, pattern(7, 4_000_000))
            .and_then(|()| fs::File::open(&path)?.sync_all())
            .is_ok()
    });
    wait_margin(&volume, "2");
    drop_caches();
    for number in (2..stored / 4_000_000).step_by(7) {
        let found = fs::read(volume.mnt().join(format!("f{number}"))).unwrap();
        assert!(found == pattern(number, 4_000_000), "{number}");
    }
    volume.umount();
    volume.fsck();
}

#[test]
fn repair_keeps_within_its_cap() {
    const STRIPES: u64 = 10;
    const FILE_BYTES: usize = 3_000_000;
    const CAP_MIB: u32 = 10;
    let volume = Volume::format("4+2", 6);
    volume.set_limit("repair_mib_s", 0, CAP_MIB);
    volume.mount();
    for number in 0..STRIPES {
        fs::write(volume.mnt().join(format!("f{number}")), pattern(number, FILE_BYTES)).unwrap();
        volume.sync();
    }
    let full = |disk: usize| walk(&volume.disks[disk].join("shards")).len();
    assert!(full(1) as u64 >= STRIPES);
    let start = Instant::now();
    for disk in [0, 3] {
        fs::remove_dir_all(volume.disks[disk].join("shards")).unwrap();
    }
    wait("the shards are there again", || full(0) == full(1) && full(3) == full(1));
    // Four shards of each stripe are read and two written, and the first stripe is paid for afterwards.
    let bytes = (STRIPES - 1) * FILE_BYTES as u64 / 4 * 6;
    let least = Duration::from_millis(bytes * 1000 / (u64::from(CAP_MIB) << 20)) * 9 / 10;
    assert!(start.elapsed() > least, "{bytes} bytes in {:?}", start.elapsed());
    volume.umount();
    volume.fsck();
}

/// All files below a directory, in order; none if it is not there.
fn walk(directory: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}
