//! Random writes, cuts, clones, disk failures and worker steps beside plain vectors of bytes.

use crate::error::Posix;
use crate::meta::command::{Command, FileUpdate, SetAttributes};
use crate::types::{DiskId, Incarnation, Ino};
use crate::worker::clean::{Clean, CleanLimits};
use crate::worker::delete::{Delete, GRACE};
use crate::worker::pack::{Pack, PackLimits};
use crate::worker::reap::Reap;
use crate::worker::repair::{Depth, Repair, RepairReport};
use crate::worker::testing::{Plenty, Rig, noise, settle};
use crate::worker::{Step, Worker};
use std::sync::Arc;
use std::time::Duration;

const SEGMENT: usize = 64 * 1024;
const SEGMENTS_MAX: u64 = 6;
const OPERATIONS: usize = 120;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

struct World {
    seed: u64,
    rig: Rig,
    dice: Dice,
    files: Vec<(Ino, Vec<u8>)>,
    workers: Vec<Box<dyn Worker>>,
    repair: Repair,
}

impl World {
    async fn new(seed: u64) -> Self {
        let rig = Rig::new(if seed.is_multiple_of(2) { "2+1" } else { "2+1,zstd" }, 4);
        let (meta, reader, shards) = (&rig.meta, &rig.reader, &rig.shards);
        let limits = PackLimits { hot_bytes: 9000, idle: Duration::from_secs(30), idle_bytes: 100 };
        let workers: Vec<Box<dyn Worker>> = vec![
            Box::new(Reap::new(meta.clone())),
            Box::new(Delete::new(meta.clone(), reader.clone(), shards.clone(), GRACE)),
            Box::new(Clean::new(
                meta.clone(),
                rig.mover(),
                Arc::new(Plenty),
                CleanLimits::default(),
            )),
            Box::new(Pack::new(meta.clone(), rig.mover(), limits)),
        ];
        let repair = rig.repair();
        let mut files = Vec::new();
        for _ in 0..3 {
            files.push((rig.create().await, Vec::new()));
        }
        Self { seed, rig, dice: Dice(seed), files, workers, repair }
    }

    async fn operate(&mut self) {
        let which = usize::try_from(self.dice.roll(3)).unwrap();
        let (ino, kind) = (self.files[which].0, self.dice.roll(9));
        let first = self.dice.roll(SEGMENTS_MAX);
        let count = 1 + self.dice.roll(SEGMENTS_MAX - first);
        let (start, length) = (first as usize * SEGMENT, count as usize * SEGMENT);
        match kind {
            0 | 1 => {
                let mut data = noise(self.dice.roll(1 << 30), length);
                data[..length / 2].fill(5);
                self.rig.write(ino, first, &data).await;
                self.overlay(which, start, &data);
            }
            2 | 3 => {
                let at = start + self.dice.roll(60_000) as usize;
                let data = noise(self.dice.roll(1 << 30), 1 + self.dice.roll(4000) as usize);
                self.rig.write_hot(ino, at as u64, &data).await;
                self.overlay(which, at, &data);
            }
            4 => {
                let size = self.dice.roll(SEGMENTS_MAX * SEGMENT as u64);
                let set = SetAttributes::default();
                self.rig.meta.propose(Command::Truncate { ino, size, set }).await.unwrap();
                self.files[which].1.resize(size as usize, 0);
            }
            5 => {
                let set = SetAttributes::default();
                self.rig.meta.propose(Command::Punch { ino, first, count, set }).await.unwrap();
                let content = &mut self.files[which].1;
                let end = content.len();
                content[start.min(end)..(start + length).min(end)].fill(0);
            }
            6 => self.clone_segments(which, first, count).await,
            7 => self.lose_a_disk().await,
            _ => tokio::time::advance(Duration::from_secs(self.dice.roll(20))).await,
        }
    }

    fn overlay(&mut self, which: usize, at: usize, data: &[u8]) {
        let content = &mut self.files[which].1;
        content.resize(content.len().max(at + data.len()), 0);
        content[at..at + data.len()].copy_from_slice(data);
    }

    async fn clone_segments(&mut self, which: usize, first: u64, count: u64) {
        let (from, source) = &self.files[which];
        let count = count.min((source.len() / SEGMENT) as u64);
        if count == 0 {
            return;
        }
        let data = source[..count as usize * SEGMENT].to_vec();
        let (to, target) = &self.files[(which + 1) % self.files.len()];
        let size = (target.len() as u64).max((first + count) * SEGMENT as u64);
        let file = FileUpdate { ino: *to, size, mtime: None, ctime: None };
        let (from, to) = (*from, *to);
        let command =
            Command::CloneExtents { from, from_first: 0, to, to_first: first, count, file };
        match self.rig.meta.propose(command).await {
            Ok(_answer) => self.overlay((which + 1) % 3, first as usize * SEGMENT, &data),
            Err(error) => assert!(error.is(Posix::Again), "{error}"),
        }
    }

    async fn lose_a_disk(&mut self) {
        let disk = u32::try_from(self.dice.roll(4)).unwrap();
        self.rig.fail_disk(disk);
        self.check().await;
        let report = self.repair.sweep(Depth::Shallow).await.unwrap();
        assert_eq!(report.failures, Vec::<String>::new());
        self.rig.admit_disk(disk);
    }

    async fn check(&self) {
        for (ino, content) in &self.files {
            assert!(self.rig.read(*ino).await == *content, "seed {}: inode {ino}", self.seed);
        }
    }
}

async fn run(seed: u64) {
    let mut world = World::new(seed).await;
    for number in 0..OPERATIONS {
        world.operate().await;
        let worker = usize::try_from(world.dice.roll(5)).unwrap();
        if let Some(worker) = world.workers.get(worker) {
            worker.step().await.unwrap();
        }
        if number % 8 == 0 {
            world.check().await;
        }
    }
    for _ in 0..8 {
        tokio::time::advance(Duration::from_secs(31)).await;
        for worker in &world.workers {
            settle(worker.as_ref()).await;
        }
    }
    world.check().await;
    let rig = &world.rig;
    assert!(rig.dead().is_empty());
    let orphans = rig.orphans(Incarnation(1), true);
    (0..4).for_each(|disk| orphans.request(DiskId(disk)));
    assert_eq!(settle(&orphans).await, Step::Idle);
    let report = world.repair.sweep(Depth::Deep).await.unwrap();
    let stripes_checked = report.stripes_checked;
    assert_eq!(report, RepairReport { stripes_checked, ..RepairReport::default() });
    assert_eq!(rig.shard_count().await, 3 * rig.stripes().len(), "nothing is left over");
    world.check().await;
}

#[tokio::test(start_paused = true)]
async fn workers_never_change_what_files_hold() {
    for seed in 1..=6 {
        run(seed).await;
    }
}
