//! Metrics: what the page says is what the volume does, in process and over TCP from a real mount.

use crate::compare::root_user;
use crate::real::{self, pattern, wait};
use crate::rig::{Rig, run};
use ironfs::disk::Disk;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, ROOT_INO};
use ironfs::volume::Volume;
use ironfs::volume::status::Status;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

const O_RDWR: i32 = 0o2;
const FILES: [&[u8]; 3] = [b"a", b"b", b"c"];
/// More than the eighth of a stripe, so that nobody packs them.
const FILE_BYTES: usize = 8 << 20;
/// Long enough for every keeper to have done what it has to.
const SETTLED: Duration = Duration::from_secs(20);

/// Names that dashboards rely on.
const PROMISED: [&str; 25] = [
    "erasure_encode_duration_seconds",
    "erasure_decode_duration_seconds",
    "erasure_shards_total",
    "erasure_shards_missing",
    "erasure_recovery_operations_total",
    "erasure_storage_efficiency",
    "storage_repair_attempts_total",
    "storage_repair_failures_total",
    "storage_repair_bytes_total",
    "ironfs_moved_bytes_total",
    "ironfs_stripes_margin",
    "ironfs_request_duration_seconds",
    "ironfs_cache_hits_total",
    "ironfs_cache_misses_total",
    "ironfs_dirty_bytes",
    "ironfs_hot_bytes",
    "ironfs_log_position",
    "ironfs_checkpoints_total",
    "ironfs_disks",
    "ironfs_disk_job_duration_seconds",
    "ironfs_scrub_last_finished_timestamp_seconds",
    "ironfs_repair_queue_length",
    "ironfs_build_info",
    "ironfs_writable",
    "ironfs_metadata_readable",
];

const ENCODED: &str = "erasure_encode_duration_seconds_count{coder=\"4+2\",compression=\"none\"}";
const DECODED: &str = "erasure_decode_duration_seconds_count{coder=\"4+2\",compression=\"none\"}";

/// The value of one series.
pub(crate) fn value(page: &str, series: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

fn page(volume: &Arc<Volume>) -> String {
    volume.metrics_page().unwrap()
}

async fn write_files(volume: &Volume) {
    let fs = volume.fs();
    for (seed, name) in FILES.into_iter().enumerate() {
        let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
        let (made, opened) = fs.create(&root_user(), ROOT_INO, name, new, O_RDWR).await.unwrap();
        let (open, content) = ((made.ino, opened.handle), pattern(seed as u64, FILE_BYTES));
        let written = fs.write(&root_user(), open, 0, &content, WriteHow::default()).await;
        assert_eq!(written.unwrap() as usize, FILE_BYTES);
        fs.release(made.ino, opened.handle).await.unwrap();
        // Each gets a stripe of its own.
        volume.sync().await.unwrap();
    }
}

async fn read_files(volume: &Volume) {
    let fs = volume.fs();
    for (seed, name) in FILES.into_iter().enumerate() {
        let ino = fs.lookup(ROOT_INO, name).await.unwrap().ino;
        let opened = fs.open(&root_user(), ino, 0).await.unwrap();
        let length = u32::try_from(FILE_BYTES).unwrap();
        let read = fs.read(ino, opened.handle, 0, length, 0).await.unwrap();
        assert!(read == pattern(seed as u64, FILE_BYTES), "file {seed} differs");
        fs.release(ino, opened.handle).await.unwrap();
    }
}

/// Removes all shards of a disk, and its list of them; answers how many there were.
fn remove_shards(disk: &dyn Disk) -> u64 {
    fn below(disk: &dyn Disk, directory: &str) -> u64 {
        let mut removed = 0;
        for entry in disk.list(directory).unwrap() {
            let path = format!("{directory}/{}", entry.name);
            if entry.is_dir {
                removed += below(disk, &path);
            } else {
                disk.remove(&path).unwrap();
                removed += 1;
            }
        }
        disk.sync_dir(directory).unwrap();
        removed
    }
    disk.remove("index.redb").unwrap();
    disk.sync_dir("").unwrap();
    below(disk, "shards")
}

/// What a healthy volume says of itself after the files were written and read; answers its number of stripes.
fn check_healthy(volume: &Arc<Volume>) -> f64 {
    let full = page(volume);
    for name in PROMISED {
        assert!(full.contains(&format!("# TYPE {name} ")), "no {name} in\n{full}");
    }
    let stripes = value(&full, "ironfs_stripes");
    assert!(stripes >= FILES.len() as f64, "{full}");
    assert_eq!(value(&full, "erasure_shards_total"), 6.0 * stripes);
    assert_eq!(value(&full, "erasure_shards_missing"), 0.0);
    assert_eq!(value(&full, "ironfs_stripes_margin{margin=\"2\"}"), stripes);
    let efficiency = value(&full, "erasure_storage_efficiency");
    assert!((0.6..=4.0 / 6.0).contains(&efficiency), "{efficiency}");
    let rows = FILES.len() as f64 * FILE_BYTES as f64 / (4.0 * 65536.0);
    assert!(value(&full, ENCODED) >= rows, "{full}");
    assert_eq!(value(&full, DECODED), 0.0);
    assert_eq!(value(&full, "ironfs_dirty_bytes"), 0.0);
    assert!(value(&full, "ironfs_checkpoints_total") >= 1.0);
    let position = |point| value(&full, &format!("ironfs_log_position{{point=\"{point}\"}}"));
    assert!(position("applied") > 0.0);
    assert_eq!(position("applied"), position("checkpointed"));
    assert_eq!(value(&full, "ironfs_disks{state=\"healthy\"}"), 6.0);
    assert_eq!(value(&full, "ironfs_disks{state=\"down\"}"), 0.0);
    assert_eq!(value(&full, "ironfs_disk_up{disk=\"6\"}"), 1.0);
    assert_eq!(value(&full, "ironfs_disk_full{disk=\"6\"}"), 0.0);
    assert!(value(&full, "ironfs_disk_job_duration_seconds_count{disk=\"3\"}") > 0.0);
    let looked_up = value(&full, "ironfs_cache_hits_total{cache=\"chunks\"}")
        + value(&full, "ironfs_cache_misses_total{cache=\"chunks\"}");
    assert!(looked_up >= FILES.len() as f64);
    assert!(volume.status().disks.iter().all(|disk| disk.latency_p99_ms.is_some()));
    stripes
}

#[test]
fn the_page_follows_shards_that_are_lost_and_repaired() {
    run(async {
        let rig = Rig::new(5, 6);
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        let empty = page(&volume);
        assert!(value(&empty, "erasure_storage_efficiency").is_nan());
        assert_eq!(value(&empty, "ironfs_stripes_margin{margin=\"2\"}"), 0.0);
        write_files(&volume).await;
        read_files(&volume).await;
        tokio::time::sleep(SETTLED).await;
        let stripes = check_healthy(&volume);
        volume.shutdown().await.unwrap();
        drop(volume);

        rig.machine.settle();
        let removed: u64 = [1, 4].map(|disk| remove_shards(&*rig.machine.disk(disk))).iter().sum();
        let volume = rig.open().await.unwrap();
        volume.pause_repair(true);
        tokio::time::sleep(SETTLED).await;
        read_files(&volume).await;
        let lossy = page(&volume);
        assert_eq!(removed as f64, 2.0 * stripes);
        assert_eq!(value(&lossy, "erasure_shards_missing"), removed as f64);
        assert_eq!(value(&lossy, "erasure_shards_total"), 6.0 * stripes);
        assert_eq!(value(&lossy, "ironfs_stripes_margin{margin=\"0\"}"), stripes);
        assert_eq!(value(&lossy, "ironfs_repair_queue_length"), stripes);
        assert_eq!(value(&lossy, "ironfs_repair_paused"), 1.0);
        assert!(value(&lossy, "erasure_recovery_operations_total{purpose=\"read\"}") > 0.0);
        assert!(value(&lossy, DECODED) > 0.0);
        assert_eq!(value(&lossy, "storage_repair_attempts_total{status=\"done\"}"), 0.0);

        volume.pause_repair(false);
        tokio::time::sleep(SETTLED).await;
        let healed = page(&volume);
        assert_eq!(value(&healed, "erasure_shards_missing"), 0.0);
        assert_eq!(value(&healed, "ironfs_stripes_margin{margin=\"2\"}"), stripes);
        assert_eq!(value(&healed, "ironfs_repair_queue_length"), 0.0);
        assert_eq!(value(&healed, "storage_repair_attempts_total{status=\"done\"}"), stripes);
        let bytes = value(&healed, "storage_repair_bytes_total");
        assert!(bytes >= removed as f64 * FILE_BYTES as f64 / 4.0 / 2.0, "{bytes}");
        assert!(value(&healed, "erasure_recovery_operations_total{purpose=\"repair\"}") > 0.0);

        // A disk that is away.
        rig.machine.set_offline(2, true);
        tokio::time::sleep(SETTLED).await;
        let away = page(&volume);
        assert_eq!(value(&away, "ironfs_disks{state=\"down\"}"), 1.0);
        assert_eq!(value(&away, "ironfs_disk_up{disk=\"3\"}"), 0.0);
        assert!(value(&away, "ironfs_disk_errors_total{disk=\"3\"}") >= 1.0);
        assert_eq!(value(&away, "erasure_shards_missing"), stripes);
        assert_eq!(value(&away, "ironfs_stripes_margin{margin=\"1\"}"), stripes);
        volume.shutdown().await.unwrap();
    });
}

/// Makes so many files that the metadata would have to be written out, where it cannot be.
async fn outgrow_cache(volume: &Volume) {
    let (fs, user, name) = (volume.fs(), root_user(), "n".repeat(200));
    for number in 0..10_000 {
        let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
        let name = format!("{name}{number}");
        let made = fs.create(&user, ROOT_INO, name.as_bytes(), new, O_RDWR);
        if !matches!(tokio::time::timeout(Duration::from_secs(1), made).await, Ok(Ok(_made))) {
            return;
        }
    }
    panic!("everything is in memory");
}

#[test]
fn while_the_metadata_is_away_status_and_page_tell_the_rest() {
    run(async {
        let rig = Rig::new(7, 6);
        rig.format("4+2").await.unwrap();
        let volume = rig.open().await.unwrap();
        write_files(&volume).await;
        let before = volume.status();
        assert!(before.metadata.is_some(), "{before:?}");
        (0..6).for_each(|disk| rig.machine.set_offline(disk, true));
        outgrow_cache(&volume).await;
        tokio::time::sleep(SETTLED).await;

        let status = volume.status();
        assert_eq!(status.state, "waiting", "{status:?}");
        assert_eq!(status.metadata, None);
        assert!(status.disks.iter().all(|disk| disk.state == "down"), "{status:?}");
        assert_eq!(status.log.durable, before.log.durable);
        let told = serde_json::to_value(&status).unwrap();
        assert!(told.get("stripes_by_margin").is_none() && told["problems"][0].is_string());
        assert_eq!(serde_json::from_value::<Status>(told).unwrap(), status);
        let error = volume.class_spaces().unwrap_err().to_string();
        assert!(error.contains("waits for disks"), "{error}");

        let away = page(&volume);
        assert_eq!(value(&away, "ironfs_metadata_readable"), 0.0);
        assert_eq!(value(&away, "ironfs_writable"), 0.0);
        assert_eq!(value(&away, "ironfs_disks{state=\"down\"}"), 6.0);
        assert!(value(&away, ENCODED) > 0.0);
        assert!(!away.contains("ironfs_inodes"), "{away}");

        (0..6).for_each(|disk| rig.machine.set_offline(disk, false));
        tokio::time::sleep(SETTLED).await;
        let after = volume.status();
        assert_eq!(after.state, "healthy", "{after:?}");
        let margins = |status: &Status| status.metadata.clone().unwrap().stripes_by_margin;
        assert_eq!(margins(&after), margins(&before));
        assert_eq!(value(&page(&volume), "ironfs_metadata_readable"), 1.0);
        read_files(&volume).await;
        volume.shutdown().await.unwrap();
    });
}

#[test]
fn readme_names_every_metric() {
    let text = run(async {
        let rig = Rig::new(6, 3);
        rig.format("2+1").await.unwrap();
        let volume = rig.open().await.unwrap();
        let text = page(&volume);
        volume.shutdown().await.unwrap();
        text
    });
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let named = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let named: Vec<&str> = named.collect();
    assert!(named.len() >= PROMISED.len(), "{named:?}");
    for name in &named {
        assert!(readme.contains(&format!("`{name}`")), "README does not name {name}");
    }
    let table = readme.split("\n## Metrics\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let told = table.split('`').filter(|word| {
        ["ironfs_", "erasure_", "storage_"].iter().any(|prefix| word.starts_with(prefix))
    });
    for name in told {
        assert!(named.contains(&name), "README names {name}, which is not there");
    }
}

/// The code and the body of the answer to a GET.
pub(crate) fn get(stream: impl Read + Write, path: &str) -> (u16, String) {
    try_get(stream, path).unwrap()
}

fn try_get(mut stream: impl Read + Write, path: &str) -> io::Result<(u16, String)> {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let parts = answer
        .split_once("\r\n\r\n")
        .and_then(|(head, body)| Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned())));
    parts.ok_or_else(|| io::Error::other(answer))
}

#[test]
fn an_address_that_is_taken_is_used_when_it_is_free_and_serves_nothing_else() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();
    let volume = real::Volume::format("2+1", 3);
    let config = fs::read_to_string(volume.config()).unwrap();
    let config =
        config.replacen("disks = ", &format!("metrics_listen = \"{address}\"\ndisks = "), 1);
    fs::write(volume.config(), config).unwrap();
    volume.mount();
    fs::write(volume.mnt().join("f"), pattern(1, 3_000_000)).unwrap();
    volume.sync();
    drop(taken);
    // A program that another test is just starting may have the socket that was taken for a moment longer, and be connected to.
    wait("metrics are served", || {
        TcpStream::connect(address).and_then(|stream| try_get(stream, "/health")).is_ok()
    });
    let ask = |path| get(TcpStream::connect(address).unwrap(), path);
    let (code, page) = ask("/metrics");
    assert_eq!(code, 200, "{page}");
    assert!(value(&page, "ironfs_request_duration_seconds_count{operation=\"write\"}") >= 3.0);
    assert!(value(&page, "ironfs_request_duration_seconds_count{operation=\"create\"}") >= 1.0);
    assert!(value(&page, "ironfs_request_duration_seconds_sum{operation=\"write\"}") > 0.0);
    assert!(value(&page, "ironfs_disk_job_duration_seconds_sum{disk=\"1\"}") > 0.0);
    assert_eq!(ask("/health").0, 200);
    for path in ["/status", "/df", "/info?ino=1", "/scrub", "/repair/history?limit=1", "/"] {
        assert_eq!(ask(path).0, 404, "{path}");
    }
    assert_eq!(value(&volume.metrics(), "ironfs_writable"), 1.0);
    let status = volume.status();
    let disk = &status["disks"][0];
    let (median, p99) = (&disk["latency_median_ms"], &disk["latency_p99_ms"]);
    assert!(median.as_f64().unwrap() > 0.0 && p99.as_f64() >= median.as_f64(), "{status}");
    // A client that says nothing does not keep the mount from ending.
    let silent = TcpStream::connect(address).unwrap();
    volume.umount();
    wait("the address is free again", || TcpListener::bind(address).is_ok());
    drop(silent);
    volume.fsck();
}
