//! Machines that mount one volume in turns, over a network that fails and nodes that die: whatever one has acknowledged the
//! next one has, and one that has lost the volume acknowledges nothing any more.

use crate::away::{content, read, write};
use crate::bus::{Bus, Fault};
use crate::compare::Checked;
use crate::rig::{Budget, Rig, run};
use crate::sim::disk::SimRng;
use ironfs::error::Error;
use ironfs::types::MountId;
use ironfs::volume::Volume;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Seconds that the harness runs in `cargo test`.
const SECONDS: u64 = 12;
const CLASS: &str = "4+2";
const NODES: usize = 6;
const STEPS: usize = 30;
/// Disks that may be away, and so nodes: each has one.
const TOLERATED: usize = 2;
/// Long enough for disks to be missed and found again, for repair, and for the metadata to be copied elsewhere.
const SETTLING: Duration = Duration::from_secs(90);
/// Bytes of files: inline, packed, a stripe of its own.
const SIZES: [usize; 4] = [100, 5000, 70_000, 900_000];

#[test]
fn takeover() {
    let budget = Budget::new("takeover::takeover", SECONDS);
    let mut changes = 0;
    budget.spend(|seed| {
        changes += run(history(seed))?;
        Ok(())
    });
    println!("takeover: the volume went over to another mount {changes} times");
}

/// A process that has the volume mounted, or believes so.
struct Mount {
    volume: Arc<Volume>,
    id: MountId,
}

struct History {
    rig: Rig,
    bus: Bus,
    rng: SimRng,
    current: Mount,
    before: Vec<Mount>,
    /// Files that were acknowledged, and what is in them.
    acknowledged: BTreeMap<String, (usize, usize)>,
    files: usize,
    /// Nodes that the current mount does not reach well, or that are dead.
    faulty: BTreeSet<usize>,
    killed: BTreeSet<usize>,
    changes: u64,
}

fn told(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what}: {error}")
}

async fn history(seed: u64) -> Checked<u64> {
    let (rig, bus) = Rig::over_nodes(seed, NODES, NODES);
    rig.format(CLASS).await.map_err(told("format"))?;
    let current = open(&rig).await.map_err(told("open"))?;
    let mut history = History {
        rig,
        bus,
        rng: SimRng::new(seed),
        current,
        before: Vec::new(),
        acknowledged: BTreeMap::new(),
        files: 0,
        faulty: BTreeSet::new(),
        killed: BTreeSet::new(),
        changes: 0,
    };
    for step in 0..STEPS {
        history.step().await.map_err(|wrong| format!("step {step}: {wrong}"))?;
    }
    history.finish().await
}

async fn open(rig: &Rig) -> ironfs::error::Result<Mount> {
    let volume = rig.open().await?;
    Ok(Mount { volume, id: rig.mount_id() })
}

impl History {
    async fn step(&mut self) -> Checked {
        match self.rng.below(12) {
            0..=4 => self.write().await,
            5 => self.check().await,
            6 => {
                self.disturb();
                Ok(())
            }
            7 => {
                self.kill_node();
                Ok(())
            }
            8 => self.heal().await,
            9 => self.outage().await,
            10 => self.take_over().await,
            _ => {
                tokio::time::sleep(Duration::from_secs(self.rng.below(20))).await;
                Ok(())
            }
        }
    }

    /// As many nodes are away as the volume survives, so nothing may fail.
    async fn write(&mut self) -> Checked {
        self.files += 1;
        let (name, size) = (format!("f{}", self.files), SIZES[self.files % SIZES.len()]);
        let written = write(&self.current.volume.fs(), &name, &content(self.files, size)).await;
        written.map_err(|error| format!("write {name} with {:?} away: {error}", self.faulty))?;
        self.acknowledged.insert(name, (self.files, size));
        for mount in &self.before {
            let name = format!("late{}", self.files);
            if write(&mount.volume.fs(), &name, b"late").await.is_ok() {
                return Err(format!("{name}: a mount that has lost the volume acknowledged it"));
            }
        }
        Ok(())
    }

    async fn check(&self) -> Checked {
        let fs = self.current.volume.fs();
        for (name, (seed, size)) in &self.acknowledged {
            let read = read(&fs, name, &content(*seed, *size)).await;
            read.map_err(|error| format!("read {name} with {:?} away: {error}", self.faulty))?;
        }
        Ok(())
    }

    fn disturb(&mut self) {
        let node = usize::try_from(self.rng.below(NODES as u64)).unwrap();
        if self.faulty.len() >= TOLERATED && !self.faulty.contains(&node) {
            return;
        }
        let fault = match self.rng.below(4) {
            0 => Fault { there: true, ..Fault::default() },
            1 => Fault { back: true, ..Fault::default() },
            2 => Fault { there: true, back: true, slow: false },
            _ => Fault { slow: true, ..Fault::default() },
        };
        self.bus.set_fault(self.current.id, node, fault);
        self.faulty.insert(node);
    }

    fn kill_node(&mut self) {
        let node = usize::try_from(self.rng.below(NODES as u64)).unwrap();
        if self.faulty.len() < TOLERATED || self.faulty.contains(&node) {
            self.bus.kill(node);
            self.killed.insert(node);
            self.faulty.insert(node);
        }
    }

    /// Everything is well again, and there is time to notice.
    async fn heal(&mut self) -> Checked {
        self.bus.heal();
        for node in std::mem::take(&mut self.killed) {
            self.bus.start(node);
        }
        self.faulty.clear();
        tokio::time::sleep(SETTLING).await;
        Ok(())
    }

    /// All nodes are away, or dead, for less time than changes wait.
    async fn outage(&mut self) -> Checked {
        let kill = self.rng.below(2) == 0;
        for node in 0..NODES {
            match kill {
                true => self.bus.kill(node),
                false => {
                    let fault = Fault { there: true, back: true, slow: false };
                    self.bus.set_fault(self.current.id, node, fault);
                }
            }
        }
        let fs = self.current.volume.fs();
        self.files += 1;
        let (seed, name) = (self.files, format!("f{}", self.files));
        let away = Duration::from_secs(1 + self.rng.below(25));
        let bus = self.bus.clone();
        let back = async {
            tokio::time::sleep(away).await;
            bus.heal();
            (0..NODES).for_each(|node| bus.start(node));
        };
        let bytes = content(seed, 5000);
        let (written, ()) = tokio::join!(write(&fs, &name, &bytes), back);
        written.map_err(|error| format!("{name}, written while all were away: {error}"))?;
        self.acknowledged.insert(name, (seed, 5000));
        self.killed.clear();
        self.faulty.clear();
        tokio::time::sleep(SETTLING).await;
        Ok(())
    }

    /// Nobody hears of the mount any more, or only some nodes do, and another machine mounts.
    async fn take_over(&mut self) -> Checked {
        self.heal().await?;
        let heard = usize::try_from(self.rng.below(TOLERATED as u64 + 1)).unwrap();
        let first = usize::try_from(self.rng.below(NODES as u64)).unwrap();
        let fault = Fault { there: true, back: true, slow: false };
        for node in (0..NODES - heard).map(|node| (first + node) % NODES) {
            self.bus.set_fault(self.current.id, node, fault);
        }
        if self.rng.below(2) == 0 {
            // What it does meanwhile is not acknowledged, as it reaches too few; it fails in the end.
            let fs = self.current.volume.fs();
            let written = write(&fs, &format!("lost{}", self.files), b"lost").await;
            if written.is_ok() {
                return Err("a mount that reaches too few disks acknowledged a write".to_owned());
            }
        }
        let next = loop {
            match open(&self.rig).await {
                Ok(next) => break next,
                // The nodes that still hear of the mount before keep its leases.
                Err(error) if heard > 0 => {
                    let fault = Fault { there: true, back: true, slow: false };
                    (0..NODES).for_each(|node| self.bus.set_fault(self.current.id, node, fault));
                    tracing::debug!(%error, "not yet");
                }
                Err(error) => return Err(format!("take over: {error}")),
            }
        };
        self.before.push(std::mem::replace(&mut self.current, next));
        self.changes += 1;
        self.check().await?;
        if self.rng.below(2) == 0 {
            self.bus.heal();
        }
        Ok(())
    }

    async fn finish(mut self) -> Checked<u64> {
        self.heal().await?;
        self.check().await?;
        for mount in self.before.drain(..) {
            // It has nothing to say any more.
            drop(mount.volume.shutdown().await);
        }
        self.current.volume.shutdown().await.map_err(told("shutdown"))?;
        self.current = open(&self.rig).await.map_err(told("open again"))?;
        tokio::time::sleep(SETTLING).await;
        self.check().await?;
        self.current.volume.shutdown().await.map_err(told("shutdown again"))?;
        self.rig.fsck_clean().await?;
        Ok(self.changes)
    }
}
