//! Failure domains in process: shards of a stripe stand in different zones, a zone may be lost, and `what-if` foretells
//! what becomes of each file when disks are really taken away.

use crate::compare::{first_difference, root_user};
use crate::rig::{Rig, run};
use crate::sim::disk::SimRng;
use ironfs::config::labels::Labels;
use ironfs::error::Result;
use ironfs::fs::Fs;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, ROOT_INO};
use ironfs::volume::Volume;
use ironfs::volume::labels::LabelChange;
use ironfs::volume::what_if::{WhatIf, WhatIfReport};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const O_RDWR: i32 = 0o2;
const O_NOATIME: i32 = 0o1_000_000;
/// One stripe each.
const BYTES: usize = 300_000;
const FILES: usize = 24;

fn content(seed: usize) -> Vec<u8> {
    let mut rng = SimRng::new(seed as u64);
    (0..BYTES / 8).flat_map(|_word| rng.next().to_le_bytes()).collect()
}

/// Disks with these labels; `.` for none.
fn rig(seed: u64, labels: &[&str]) -> Rig {
    let mut rig = Rig::new(seed, labels.len());
    for (path, labels) in rig.config.disks.clone().into_iter().zip(labels) {
        if *labels != "." {
            rig.config.disk.insert(path, Labels::parse(labels).unwrap());
        }
    }
    rig
}

async fn write(fs: &Fs, name: &str, bytes: &[u8]) -> Result<()> {
    let (caller, name) = (root_user(), name.as_bytes());
    let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
    let (made, opened) = fs.create(&caller, ROOT_INO, name, new, O_RDWR).await?;
    fs.write(&caller, (made.ino, opened.handle), 0, bytes, WriteHow::default()).await?;
    let synced = fs.fsync(made.ino, opened.handle, false).await;
    fs.release(made.ino, opened.handle).await?;
    synced
}

/// Whether a file could be read; wrong bytes end the test.
async fn read(fs: &Fs, name: &str, wanted: &[u8]) -> Result<()> {
    let found = fs.lookup(ROOT_INO, name.as_bytes()).await?;
    let opened = fs.open(&root_user(), found.ino, O_NOATIME).await?;
    let size = u32::try_from(wanted.len()).unwrap();
    let read = fs.read(found.ino, opened.handle, 0, size, O_NOATIME).await;
    fs.release(found.ino, opened.handle).await?;
    assert_eq!(first_difference(&read?, wanted), None, "{name}");
    Ok(())
}

async fn write_all(volume: &Volume) {
    for seed in 0..FILES {
        write(&volume.fs(), &format!("f{seed}"), &content(seed)).await.unwrap();
    }
    write(&volume.fs(), "small", b"small").await.unwrap();
    volume.sync().await.unwrap();
}

/// Paths of the files that cannot be read.
async fn unreadable(volume: &Volume) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for seed in 0..FILES {
        let name = format!("f{seed}");
        if read(&volume.fs(), &name, &content(seed)).await.is_err() {
            names.insert(format!("/{name}"));
        }
    }
    assert_eq!(first_read(volume).await.as_deref(), Ok("small"), "it is in the metadata");
    names
}

async fn first_read(volume: &Volume) -> std::result::Result<String, String> {
    let read = read(&volume.fs(), "small", b"small").await;
    read.map(|()| "small".to_owned()).map_err(|error| error.to_string())
}

async fn ask(volume: &Arc<Volume>, lose: &str) -> WhatIfReport {
    let lose = lose.split(',').map(str::to_owned).collect();
    volume.what_if(&WhatIf { lose, limit: 1000 }).await.unwrap()
}

fn listed(report: &WhatIfReport, state: &str) -> BTreeSet<String> {
    let files = report.listed.iter().filter(|file| file.state == state);
    files.map(|file| file.path.clone()).collect()
}

const ZONES: [&str; 9] =
    ["zone=a", "zone=b", "zone=c", "zone=a", "zone=b", "zone=c", "zone=a", "zone=b", "zone=c"];

#[test]
fn a_zone_is_lost_and_everything_can_be_read_and_written() {
    let rig = rig(11, &ZONES);
    run(async {
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        write_all(&volume).await;
        let status = volume.status();
        let metadata = status.metadata.as_ref().unwrap();
        assert_eq!(metadata.survives, "any 2 disks, and any one zone");
        assert_eq!(status.disks[1].labels.zone, "b");
        // The metadata is on three disks, one of each zone.
        let zones: BTreeSet<usize> =
            status.log.disks.iter().map(|disk| *disk as usize % 3).collect();
        assert_eq!(zones.len(), 3, "{:?}", status.log.disks);
        let told = ask(&volume, "zone:b").await;
        assert_eq!(told.lose.iter().map(|disk| disk.id).collect::<Vec<_>>(), [2, 5, 8]);
        assert_eq!((told.files.lost, told.files.degraded, told.files.checked), (0, 24, 25));
        let fate = told.classes["4+2"];
        assert_eq!((fate.writable, fate.new_margin, fate.lost_stripes), (true, 2, 0));
        assert_eq!((fate.stripes, fate.degraded_stripes), (24, 24));
        // Three disks away are more than a mount takes.
        assert!(!told.mountable && !told.safe, "{}", told.verdict);
        for disk in [1, 4, 7] {
            rig.machine.set_offline(disk, true);
        }
        assert_eq!(unreadable(&volume).await, BTreeSet::new());
        write(&volume.fs(), "later", &content(99)).await.unwrap();
        read(&volume.fs(), "later", &content(99)).await.unwrap();
        // As soon as the loss is known: later all has been packed anew, on the disks that are left.
        let mut told = ask(&volume, "disk:1").await;
        while told.away.len() < 3 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            told = ask(&volume, "disk:1").await;
        }
        assert_eq!(told.away.iter().map(|disk| disk.id).collect::<Vec<_>>(), [2, 5, 8]);
        assert_eq!(told.verdict.split(':').next(), Some("Not safe"), "{}", told.verdict);
        assert!(told.files.lost > 0 && told.classes["4+2"].lost_already == 0, "{told:?}");
        rig.kill(volume).await;
    });
}

#[test]
fn repair_keeps_zones_apart() {
    let rig = rig(17, &ZONES);
    run(async {
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        write_all(&volume).await;
        rig.machine.set_offline(3, true);
        // It is given up after ten minutes, and what it held is placed anew.
        tokio::time::sleep(Duration::from_secs(900)).await;
        let status = volume.status();
        assert_eq!(status.disks[3].state, "out");
        // Small stripes have been packed meanwhile.
        let metadata = status.metadata.as_ref().unwrap();
        assert_eq!(metadata.stripes_by_margin.keys().collect::<Vec<_>>(), ["2"]);
        assert_eq!(metadata.survives, "any 2 disks, and any one zone");
        for zone in ["zone:a", "zone:b", "zone:c"] {
            assert_eq!(ask(&volume, zone).await.files.lost, 0, "{zone}");
        }
        volume.shutdown().await.unwrap();
    });
}

#[test]
fn rules_of_classes_place_what_is_written() {
    let classes = ["place:random", "place:round-robin", "place:local-first", "avoid:smr"];
    for rule in classes {
        let class = format!("2+1,{rule}");
        let nodes = rule == "place:local-first";
        let (second, third) = if nodes { ("node=n2", "node=n3") } else { (".", ".") };
        let rig = rig(18, &[".", second, ".", "tag=smr", third]);
        run(async {
            rig.format(&class).await.unwrap();
            let volume = rig.open().await.unwrap();
            write_all(&volume).await;
            assert_eq!(unreadable(&volume).await, BTreeSet::new());
            let mut held = Vec::new();
            for disk in 1..=5 {
                let told = ask(&volume, &format!("disk:{disk}")).await;
                assert!(told.files.lost == 0, "{class}: {}", told.verdict);
                held.push(told.classes[&class].degraded_stripes);
            }
            assert_eq!(held.iter().sum::<u64>(), 24 * 3, "{class}: {held:?}");
            match rule {
                "place:round-robin" => {
                    assert!(held.iter().all(|held| held.abs_diff(14) <= 2), "{held:?}");
                }
                "avoid:smr" => assert_eq!(held[3], 0),
                // One shard may be lost, so one goes to the node that mounts and one to each other.
                "place:local-first" => assert_eq!((held[1], held[4]), (24, 24), "{held:?}"),
                _ => assert!(held.iter().all(|held| *held > 0), "{held:?}"),
            }
            volume.shutdown().await.unwrap();
        });
    }
}

#[test]
fn what_is_foretold_to_be_lost_is_lost_and_nothing_else() {
    for lose in ["disk:1,disk:2,disk:6", "zone:a,disk:2", "disk:4,disk:5,disk:6,disk:9"] {
        let rig = rig(12, &ZONES);
        run(async {
            rig.format("4+2").await.unwrap();
            let volume = rig.open().await.unwrap();
            write_all(&volume).await;
            volume.shutdown().await.unwrap();
            drop(volume);
            // With empty caches.
            let volume = rig.open().await.unwrap();
            let told = ask(&volume, lose).await;
            let lost = listed(&told, "lost");
            assert_eq!(lost.len() as u64, told.files.lost);
            assert_eq!(listed(&told, "degraded").len() as u64, told.files.degraded);
            assert!(!lost.is_empty() && lost.len() < FILES, "{lose}: {lost:?}");
            assert_eq!(told.files.lost_bytes, (lost.len() * BYTES) as u64);
            assert!(!told.safe && told.verdict.contains("would be lost"), "{}", told.verdict);
            for disk in &told.lose {
                rig.machine.set_offline(disk.id as usize - 1, true);
            }
            assert_eq!(unreadable(&volume).await, lost, "{lose}");
            rig.kill(volume).await;
        });
    }
}

#[test]
fn a_class_without_disks_is_foretold_to_be_read_only() {
    let labels = [
        "zone=a",
        "zone=a",
        "zone=a",
        "zone=a",
        "zone=b,tag=smr",
        "zone=b,tag=smr",
        "zone=b,tag=smr",
    ];
    let rig = rig(13, &labels);
    run(async {
        rig.format("2+2,avoid:smr").await.unwrap();
        let volume = rig.open().await.unwrap();
        write(&volume.fs(), "small", b"small").await.unwrap();
        assert_eq!(volume.status().log.disks, [1, 2, 5]);
        let told = ask(&volume, "disk:6,disk:7").await;
        assert!(told.safe, "{}", told.verdict);
        assert_eq!(told.verdict, "Safe: every file keeps all of its redundancy.");
        let told = ask(&volume, "disk:1,disk:2,disk:3").await;
        assert!(!told.safe && !told.classes["2+2,avoid:smr"].writable, "{told:?}");
        assert!(
            told.verdict.contains("nothing could be written in class 2+2,avoid:smr"),
            "{}",
            told.verdict
        );
        let told_log = ask(&volume, "disk:1,disk:2,disk:5").await;
        assert!(told_log.verdict.contains("all copies of the metadata"), "{}", told_log.verdict);
        assert_eq!(told_log.files.lost, 1, "a file in the metadata goes with it");

        for disk in [0, 1, 2] {
            rig.machine.set_offline(disk, true);
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        first_read(&volume).await.unwrap();
        assert!(write(&volume.fs(), "big", &content(1)).await.is_err());
        rig.kill(volume).await;
    });
}

#[test]
fn labels_change_where_new_stripes_go() {
    let rig = rig(14, &["."; 6]);
    run(async {
        rig.format("1+1").await.unwrap();
        let volume = rig.open().await.unwrap();
        let epoch = volume.status().epoch;
        for disk in 1..=6_u32 {
            let zone = Some(if disk < 6 { "old" } else { "new" }.to_owned());
            let change = LabelChange { disk: disk.to_string(), zone, ..LabelChange::default() };
            let told = volume.label_disk(&change).await.unwrap();
            assert_eq!((told.id, told.labels.zone.len()), (disk, 3));
        }
        assert_eq!(volume.status().epoch, epoch + 6, "a list for each");
        write_all(&volume).await;
        // Each stripe has one of its two shards on the only disk of the new zone.
        let told = ask(&volume, "zone:new").await;
        assert_eq!((told.classes["1+1"].degraded_stripes, told.files.lost), (24, 0));
        assert!(told.safe, "{}", told.verdict);
        let refused =
            LabelChange { disk: "6".into(), tags: Some(vec!["a b".into()]), ..Default::default() };
        assert!(
            volume.label_disk(&refused).await.unwrap_err().to_string().contains("cannot be a tag")
        );
        volume.shutdown().await.unwrap();
        drop(volume);
        let volume = rig.open().await.unwrap();
        let status = volume.status();
        assert_eq!(status.disks[5].labels, Labels::parse("zone=new").unwrap());
        volume.shutdown().await.unwrap();
        drop(volume);
        rig.fsck_clean().await.unwrap();
    });
}

#[test]
fn a_class_that_its_labels_do_not_allow_is_refused() {
    let rig = rig(15, &["tag=psu=1", "tag=psu=1", "tag=psu=2", "tag=psu=2", "tag=smr", "."]);
    run(async {
        let refused = rig.format("2+1,apart:psu,avoid:smr").await;
        assert!(refused.is_ok(), "two supplies and one disk of its own: {refused:?}");
    });
    let rig = self::rig(16, &["tag=psu=1", "tag=psu=1", "tag=psu=2", "tag=psu=2"]);
    run(async {
        let refused = rig.format("2+1,apart:psu").await.unwrap_err();
        assert!(refused.to_string().contains("needs 3 disks that it allows"), "{refused}");
    });
}
