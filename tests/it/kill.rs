//! kill -9 of the server under a verifying writer: what was fsynced is there, names are a prefix.

use crate::corrupt::shards;
use crate::real::{Volume, pattern};
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Rounds of kill -9; the soak run sets IRONFS_CASES.
pub(crate) fn rounds() -> u64 {
    std::env::var_os("IRONFS_CASES")
        .and_then(|cases| cases.to_str().and_then(|cases| cases.parse().ok()))
        .unwrap_or(10)
}

/// What a writer has been told is durable.
#[derive(Default)]
pub(crate) struct Acknowledged {
    /// Files `a/N` below this number were written whole and fsynced, in order.
    files: AtomicU64,
    /// Length of `log` that was fsynced; byte i is i % 251.
    appended: AtomicU64,
    /// Version of `current` whose rename was made durable by an fsync of the directory.
    renamed: AtomicU64,
}

/// Writes until something fails (the server was killed) or `stop` is set.
fn write(mnt: &Path, round: u64, stop: &AtomicBool, done: &Acknowledged) -> std::io::Result<()> {
    let dir = mnt.join("a");
    let mut log = fs::OpenOptions::new().append(true).open(mnt.join("log"))?;
    while !stop.load(Ordering::Relaxed) {
        let number = done.files.load(Ordering::Relaxed);
        let size = 1 + usize::try_from(number * 7919 % 200_000).unwrap();
        let mut file = fs::File::create(dir.join(format!("{number}")))?;
        file.write_all(&pattern(number, size))?;
        file.sync_all()?;
        fs::File::open(&dir)?.sync_all()?;
        done.files.store(number + 1, Ordering::Relaxed);

        let length = done.appended.load(Ordering::Relaxed);
        let more: Vec<u8> = (length..length + 777).map(|at| (at % 251) as u8).collect();
        log.write_all(&more)?;
        log.sync_data()?;
        done.appended.store(length + 777, Ordering::Relaxed);

        let version = done.renamed.load(Ordering::Relaxed) + 1;
        fs::write(mnt.join("next"), format!("{version:0>5000}"))?;
        fs::rename(mnt.join("next"), mnt.join("current"))?;
        if version.is_multiple_of(3) {
            fs::File::open(mnt)?.sync_all()?;
            done.renamed.store(version, Ordering::Relaxed);
        }
        let gone = fs::File::create(mnt.join(format!("gone{round}")))?;
        fs::remove_file(mnt.join(format!("gone{round}")))?;
        (&gone).write_all(&pattern(1, 50_000))?;
    }
    Ok(())
}

fn verify(mnt: &Path, done: &Acknowledged) {
    let files = done.files.load(Ordering::Relaxed);
    for number in files.saturating_sub(60)..files {
        let size = 1 + usize::try_from(number * 7919 % 200_000).unwrap();
        let read = fs::read(mnt.join(format!("a/{number}"))).unwrap();
        assert!(read == pattern(number, size), "file {number} was fsynced and differs");
    }
    // A name after the last acknowledged one may be there or not; none after a missing one may be.
    let names = fs::read_dir(mnt.join("a")).unwrap().count() as u64;
    assert!((files..=files + 1).contains(&names), "{names} names, {files} acknowledged");
    let mut log = Vec::new();
    fs::File::open(mnt.join("log")).unwrap().read_to_end(&mut log).unwrap();
    let appended = done.appended.load(Ordering::Relaxed);
    assert!(log.len() as u64 >= appended, "{} of {appended} appended bytes", log.len());
    for (at, byte) in log.iter().enumerate().take(usize::try_from(appended).unwrap()) {
        assert_eq!(usize::from(*byte), at % 251, "byte {at} of the log");
    }
    let renamed = done.renamed.load(Ordering::Relaxed);
    if renamed > 0 {
        let current = fs::read_to_string(mnt.join("current")).unwrap();
        assert_eq!(current.len(), 5000, "a renamed file is never empty");
        let version: u64 = current.trim_start_matches('0').parse().unwrap();
        assert!(version >= renamed, "version {version} of {renamed}");
    }
    let left = fs::read_dir(mnt)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("gone"));
    assert!(left.count() <= 1, "unlinked files come back");
}

/// A mounted volume with the files that a writer expects.
pub(crate) fn begin(volume: &Volume) -> Arc<Acknowledged> {
    fs::create_dir(volume.mnt().join("a")).unwrap();
    fs::File::create(volume.mnt().join("log")).unwrap().sync_all().unwrap();
    fs::File::open(volume.mnt()).unwrap().sync_all().unwrap();
    Arc::default()
}

/// Writes for a while and kills the server; `after` happens before it is mounted again and looked through.
pub(crate) fn round(volume: &Volume, done: &Arc<Acknowledged>, round: u64, after: impl FnOnce()) {
    let stop = Arc::new(AtomicBool::new(false));
    let (mnt, seen, ended) = (volume.mnt(), Arc::clone(done), Arc::clone(&stop));
    let writer = std::thread::spawn(move || write(&mnt, round, &ended, &seen));
    std::thread::sleep(Duration::from_millis(150 + round * 97 % 700));
    volume.kill();
    stop.store(true, Ordering::Relaxed);
    // An error is expected: the server is gone.
    drop(writer.join().unwrap());
    after();
    volume.mount();
    verify(&volume.mnt(), done);
    // The writer starts from what is there: what was not acknowledged may be there or not.
    let length = fs::metadata(volume.mnt().join("log")).unwrap().len();
    if length > done.appended.load(Ordering::Relaxed) {
        let file = fs::OpenOptions::new().write(true).open(volume.mnt().join("log")).unwrap();
        file.set_len(done.appended.load(Ordering::Relaxed)).unwrap();
        file.sync_all().unwrap();
    }
}

#[test]
fn what_was_fsynced_survives_kill_9() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let done = begin(&volume);
    (0..rounds()).for_each(|number| round(&volume, &done, number, || ()));
    // What the killed servers had put and not committed is collected.
    volume.wait_status("every shard belongs to a stripe", |status| {
        let margins = status["stripes_by_margin"].as_object().unwrap().values();
        let stripes: u64 = margins.map(|count| count.as_u64().unwrap()).sum();
        let shards: usize = volume.disks.iter().map(|disk| shards(disk).len()).sum();
        shards as u64 == 6 * stripes
    });
    volume.umount();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = mounts.contains(&*volume.mnt().to_string_lossy());
    assert!(!left, "the mounts of killed servers were detached");
    volume.fsck();
}

#[test]
fn overwritten_pages_are_old_or_new_after_a_kill() {
    let volume = Volume::format("4+2", 6);
    volume.mount();
    let path = volume.mnt().join("pages");
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(&vec![1u8; 4 << 20]).unwrap();
    file.sync_all().unwrap();
    for page in 0..1024u64 {
        file.seek(SeekFrom::Start(page * 4096)).unwrap();
        file.write_all(&[2u8; 4096]).unwrap();
    }
    volume.kill();
    volume.mount();
    let read = fs::read(&path).unwrap();
    assert_eq!(read.len(), 4 << 20);
    for page in read.chunks(4096) {
        let first = page[0];
        assert!(first == 1 || first == 2);
        assert!(page.iter().all(|byte| *byte == first), "a page is a mixture");
    }
}
