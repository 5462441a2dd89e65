//! Shards that are rebuilt and moved, and the power goes: at every moment that is tried nothing is lost, and the next mount
//! brings the rest to its end by itself, with nothing left behind.

use crate::compare::{Checked, first_difference, list, read_all, root_user};
use crate::real::pattern;
use crate::rig::{Budget, Rig, run};
use crate::sim::disk::{Call, SimRng};
use ironfs::fs::Fs;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::types::{FileKind, ROOT_INO};
use ironfs::volume::Volume;
use std::time::Duration;

/// Seconds that each harness runs in `cargo test`.
const SECONDS: u64 = 12;
/// Moments of a history at which the power is cut.
const CUTS: u64 = 8;
/// States that are tried of each: nothing and everything of what was in doubt, and parts of it.
const STATES: usize = 4;
/// Histories within which a planted bug has to be found.
const PLANTED_HISTORIES: u64 = 20;
const CLASS: &str = "4+2";
const DISKS: usize = 7;
/// Each is a stripe of its own, because it is synced before the next one is written.
const SIZES: [usize; 5] = [1_500_000, 300_000, 900_000, 2_200_000, 700_000];
/// Long enough for repair, moves, the grace of deleted shards and two looks at orphans.
const SETTLING: Duration = Duration::from_secs(150);
const O_RDWR: i32 = 0o2;
const O_NOATIME: i32 = 0o1_000_000;

/// What is interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Job {
    /// The shards of two disks have gone, and are rebuilt.
    Rebuild,
    /// A disk is drained.
    Drain,
}

#[test]
fn rebuild() {
    interrupt("mend::rebuild", Job::Rebuild);
}

#[test]
fn drain() {
    interrupt("mend::drain", Job::Drain);
}

/// The harness must notice shards that are not made durable before the metadata names them.
#[test]
fn notices_shards_that_are_not_synced() {
    let found = (1..=PLANTED_HISTORIES).find_map(|seed| {
        let rig = run(written(seed)).unwrap();
        (0..DISKS).for_each(|disk| rig.machine.skip_syncs(disk, Call::SyncData, u32::MAX));
        cuts(&rig, Job::Drain, seed).err()
    });
    let found = found.expect("the planted bug has to be found");
    println!("{}", found.lines().next().unwrap_or_default());
}

fn interrupt(name: &'static str, job: Job) {
    let budget = Budget::new(name, SECONDS);
    let mut states = 0;
    budget.spend(|seed| {
        let rig = run(written(seed))?;
        states += cuts(&rig, job, seed)?;
        Ok(())
    });
    println!("{name}: {states} states after a power cut");
}

/// Has the job done, and cuts the power at some moments of it; answers how many states were tried.
fn cuts(rig: &Rig, job: Job, seed: u64) -> Checked<u64> {
    let (first, last) = run(at_work(rig, job, seed))?;
    let points = rig.machine.sync_points().into_iter();
    let points: Vec<usize> = points.filter(|at| (first..=last).contains(at)).collect();
    let (mut rng, mut tried) = (SimRng::new(!seed), 0);
    for _cut in 0..CUTS {
        let any = first as u64 + rng.below((last - first) as u64 + 1);
        let at = match rng.below(4) {
            0 => usize::try_from(any).unwrap(),
            _ => points[usize::try_from(rng.below(points.len() as u64)).unwrap()],
        };
        for (number, state) in rig.machine.crash_states(at, STATES, rng.next()).enumerate() {
            tried += 1;
            let after = rig.after_crash(state.image);
            run(recovers(&after)).map_err(|wrong| {
                format!("{job:?}, power cut at {at} of {first}..{last}, state {number}: {wrong}")
            })?;
        }
    }
    Ok(tried)
}

/// A volume with files, all of it durable, and not mounted. Of every third seed it is over nodes, which rebuild and move
/// shards among themselves.
async fn written(seed: u64) -> Checked<Rig> {
    let failed = |error: ironfs::error::Error| format!("set-up: {error}");
    let (rig, bus) = match seed % 3 {
        0 => {
            let (rig, bus) = Rig::over_nodes(seed, DISKS, DISKS);
            (rig, Some(bus))
        }
        _ => (Rig::new(seed, DISKS), None),
    };
    rig.format(CLASS).await.map_err(failed)?;
    let volume = rig.open().await.map_err(failed)?;
    let fs = volume.fs();
    for (number, size) in SIZES.iter().enumerate() {
        let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
        let name = format!("f{number}");
        let (made, opened) = fs
            .create(&root_user(), ROOT_INO, name.as_bytes(), new, O_RDWR)
            .await
            .map_err(failed)?;
        let (open, bytes) = ((made.ino, opened.handle), pattern(number as u64, *size));
        for (at, part) in bytes.chunks(1 << 20).enumerate() {
            let at = (at << 20) as u64;
            fs.write(&root_user(), open, at, part, WriteHow::default()).await.map_err(failed)?;
        }
        fs.release(made.ino, opened.handle).await.map_err(failed)?;
        fs.forget(made.ino, 1);
        volume.sync().await.map_err(failed)?;
    }
    drop(fs);
    volume.shutdown().await.map_err(failed)?;
    drop(volume);
    rig.machine.settle();
    if let Some(bus) = bus {
        // They begin anew with the next mount, which is in another runtime.
        (0..DISKS).for_each(|node| bus.kill(node));
        (0..DISKS).for_each(|node| bus.start(node));
    }
    Ok(rig)
}

/// Mounts, and lets the job be done. Answers between which operations of the journal it was.
async fn at_work(rig: &Rig, job: Job, seed: u64) -> Checked<(usize, usize)> {
    let failed = |error: ironfs::error::Error| format!("at work: {error}");
    let one = usize::try_from(seed % DISKS as u64).unwrap();
    if job == Job::Rebuild {
        for disk in [one, (one + 1 + usize::try_from(seed / 7 % 6).unwrap()) % DISKS] {
            let shards = rig.machine.file_names(disk).into_iter();
            for shard in shards.filter(|name| name.starts_with("shards/")) {
                rig.machine.disk(disk).remove(&shard).map_err(failed)?;
            }
        }
        rig.machine.settle();
    }
    let volume = rig.open().await.map_err(failed)?;
    let first = rig.machine.journal_len();
    match job {
        Job::Rebuild => {
            let report = volume.repair_run().await.map_err(failed)?;
            if !report.failures.is_empty() {
                return Err(format!("{:?}", report.failures));
            }
        }
        Job::Drain => {
            volume.drain_disk(&(one + 1).to_string()).await.map_err(failed)?;
            tokio::time::sleep(SETTLING).await;
            let state = volume.status().disks.swap_remove(one).state;
            if state != "removed" {
                return Err(format!("disk {} is {state}, not drained", one + 1));
            }
        }
    }
    let last = rig.machine.journal_len();
    files_are_right(&volume.fs()).await?;
    rig.kill(volume).await;
    Ok((first, last))
}

/// Mounts what a power cut has left, twice: at once and when everything has come to rest, each file is right.
async fn recovers(rig: &Rig) -> Checked {
    let failed = |error: ironfs::error::Error| format!("after the cut: {error}");
    let volume = rig.open().await.map_err(failed)?;
    files_are_right(&volume.fs()).await?;
    tokio::time::sleep(SETTLING).await;
    files_are_right(&volume.fs()).await?;
    at_rest(&volume)?;
    volume.shutdown().await.map_err(failed)?;
    drop(volume);
    let report = rig.fsck_clean().await?;
    let surplus = report.notes.iter().find(|note| note.contains("no stripe names"));
    surplus.map_or(Ok(()), |note| Err(note.clone()))
}

/// Nothing is left to be done.
fn at_rest(volume: &Volume) -> Checked {
    let metadata = volume.status().metadata.ok_or("status: the metadata cannot be read")?;
    let margins: Vec<&String> = metadata.stripes_by_margin.keys().collect();
    if margins != ["2"] {
        return Err(format!("margins are {margins:?}"));
    }
    let jobs = volume.jobs().map_err(|error| format!("jobs: {error}"))?;
    let busy = jobs.iter().find(|job| job.left_bytes > 0 && job.name != "scrub");
    busy.map_or(Ok(()), |job| Err(format!("{job:?} is not done")))
}

async fn files_are_right(fs: &Fs) -> Checked {
    let names = list(fs, ROOT_INO).await?;
    for (number, size) in SIZES.iter().enumerate() {
        let name = format!("f{number}");
        let ino = *names.get(name.as_bytes()).ok_or_else(|| format!("{name} is gone"))?;
        let opened = fs.open(&root_user(), ino, O_NOATIME).await;
        let handle = opened.map_err(|error| format!("open {name}: {error}"))?.handle;
        let content =
            read_all(fs, ino, handle).await.map_err(|wrong| format!("{name}: {wrong}"))?;
        fs.release(ino, handle).await.map_err(|error| format!("release: {error}"))?;
        if let Some(wrong) = first_difference(&content, &pattern(number as u64, *size)) {
            return Err(format!("{name}: {wrong}"));
        }
    }
    Ok(())
}
