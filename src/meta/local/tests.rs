use super::*;
use crate::class::Class;
use crate::config::labels::Labels;
use crate::disk::local::LocalDisk;
use crate::disk::queue::DiskQueue;
use crate::disk::superblock;
use crate::disk::{Disk, Space};
use crate::error::Posix;
use crate::meta::command::NewNode;
use crate::meta::recover::{NewVolume, OpenOptions, Opened, PresentDisk, format, open};
use crate::types::{FileKind, Ino, ROOT_INO, Timestamp, VolumeId};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

fn disks(root: &Path) -> Vec<(Arc<dyn Disk>, DiskQueue)> {
    let disk = |number: u32| -> (Arc<dyn Disk>, DiskQueue) {
        let path = root.join(number.to_string());
        std::fs::create_dir_all(&path).unwrap();
        let disk = Arc::new(LocalDisk::open(&path).unwrap());
        (disk, DiskQueue::threads(&format!("d{number}"), 2, 16).unwrap())
    };
    (1..=4).map(disk).collect()
}

/// A new volume, mounted.
async fn formatted() -> (tempfile::TempDir, Opened) {
    let root = tempfile::tempdir().unwrap();
    let class = Class::new("2+1".parse().unwrap());
    let (volume, name) = (VolumeId([4; 16]), String::from("threads"));
    let (time, nodes) = (Timestamp::default(), BTreeMap::new());
    let new = NewVolume { volume, name, class, uid: 0, gid: 0, time, nodes };
    let plain =
        disks(root.path()).into_iter().map(|(disk, queue)| (disk, queue, Labels::default()));
    format(plain.collect(), new).await.unwrap();
    let opened = mount(root.path()).await;
    (root, opened)
}

async fn mount(root: &Path) -> Opened {
    let present = disks(root).into_iter().map(|(disk, queue)| {
        let superblock = superblock::read(&*disk).unwrap().unwrap();
        PresentDisk { disk, queue, superblock, device: None }
    });
    let options = OpenOptions { segment_bytes: 64 << 10, buffer_bytes: 2000, ..Default::default() };
    open(present.collect(), options).await.unwrap()
}

fn create(ino: u64) -> Command {
    let node = NewNode::new(Ino(ino), FileKind::File, 0o600);
    let name = ino.to_string().into_bytes();
    Command::Create { parent: ROOT_INO, name, node, time: Timestamp::default() }
}

/// Proposers, rounds and ticks at once, on real threads and files, with a buffer that makes proposers wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_proposers_share_rounds_on_real_disks() {
    let (root, opened) = formatted().await;
    let mut tasks = tokio::task::JoinSet::new();
    for proposer in 0..8 {
        let log = opened.log.clone();
        tasks.spawn(async move {
            for number in 0..25 {
                // Numbers rise within a proposer only; those that came too late are refused by a reply.
                let (replies, end) = log.propose(vec![create(100 + number * 8 + proposer)]).await?;
                assert_eq!(replies.len(), 1);
                if number % 5 == 0 {
                    log.sync().await?;
                    assert!(log.durable() >= end);
                }
            }
            Ok::<_, Error>(())
        });
    }
    let log = opened.log.clone();
    tasks.spawn(async move {
        for _ in 0..10 {
            log.tick().await?;
            log.checkpoint().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap().unwrap();
    }
    let totals = opened.log.view().unwrap().totals().unwrap();
    let applied = opened.log.applied();
    opened.log.shutdown().await.unwrap();
    assert_eq!(opened.log.status().checkpointed, applied);
    drop(opened);
    let opened = mount(root.path()).await;
    assert!(opened.clean);
    assert_eq!(opened.log.view().unwrap().totals().unwrap().inodes, totals.inodes);
    assert_eq!(opened.log.applied(), applied.advance(1), "the start of this mount");
}

#[tokio::test]
async fn where_nodes_are_outlives_the_mount() {
    let (root, opened) = formatted().await;
    let log = opened.log.clone();
    let told = |nodes: &[(&str, &str)]| -> BTreeMap<String, String> {
        let node = |(name, address): &(&str, &str)| ((*name).to_owned(), (*address).to_owned());
        nodes.iter().map(node).collect()
    };
    let epoch = log.epoch();
    log.set_addresses(told(&[("a", "10.0.0.1:1"), ("b", "10.0.0.2:1")])).await.unwrap();
    log.set_addresses(told(&[("b", "10.0.0.2:1")])).await.unwrap();
    assert_eq!(log.epoch(), epoch.next(), "what is known makes no list");
    log.set_addresses(told(&[("b", "10.0.0.3:1")])).await.unwrap();
    let many = (0..200).map(|number| (format!("n{number}"), String::from("10.0.0.4:1"))).collect();
    for bad in [many, told(&[("c", "nowhere")]), told(&[("C", "10.0.0.4:1")])] {
        let error = log.set_addresses(bad).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
    let expected = told(&[("a", "10.0.0.1:1"), ("b", "10.0.0.3:1")]);
    for (disk, _queue) in disks(root.path()) {
        let found = superblock::read(&*disk).unwrap().unwrap().members;
        assert_eq!((&found.nodes, found.epoch), (&expected, epoch.next().next()));
    }
    log.shutdown().await.unwrap();
    drop((log, opened));
    assert_eq!(mount(root.path()).await.log.members().nodes, expected);
}

/// From the moment that a disk is where other machines reach it too.
#[tokio::test]
async fn a_disk_at_a_node_makes_the_majority_count() {
    let (_root, opened) = formatted().await;
    let mut list = opened.log.members();
    assert_eq!(opened.log.shared.majority(&list), 0);
    list.disks[2].path = "beta:/srv/d0".into();
    assert_eq!(opened.log.shared.majority(&list), 3);
}

/// Another mount has taken the volume, say: there is nothing to wait for any more.
#[tokio::test]
async fn whoever_waits_for_disks_learns_at_once_that_the_log_has_stopped() {
    let (_root, opened) = formatted().await;
    let log = opened.log;
    log.shared.pause("none is there");
    let stop = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        log.shared.stop("it is over");
        log.shared.pause("none is there");
    };
    let (answer, put_off) = oneshot::channel();
    let command = create(7);
    let encoded = vec![state::encode(&command)];
    log.shared.submit(Proposal { commands: vec![command], encoded, answer, deferred: true });
    let all = async { tokio::join!(log.propose(vec![create(8)]), put_off, stop) };
    let (new, put_off, ()) = tokio::time::timeout(Duration::from_secs(10), all).await.unwrap();
    for answer in [new, put_off.unwrap()] {
        let error = answer.unwrap_err();
        assert!(error.is(Posix::ReadOnly) && error.to_string().contains("it is over"), "{error}");
    }
    assert!(log.status().waiting.is_none());
}

/// Whoever asked over the admin socket may go away at any moment, and threads that serve the kernel apply what they propose
/// themselves.
#[tokio::test]
async fn a_proposer_that_goes_away_leaves_the_gate_shut_while_its_commands_are_applied() {
    let (_root, opened) = formatted().await;
    let (log, shared) = (opened.log.clone(), opened.log.shared.clone());
    let (release, held) = crate::sync::mpsc::channel::<()>();
    let (mut busy, mut proposers) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
    let occupied = shared.clone();
    let wait = move || {
        held.recv().unwrap();
        Ok(())
    };
    busy.spawn(async move { occupied.queue.run(wait).await });
    tokio::task::yield_now().await;
    proposers.spawn(async move { log.propose(vec![create(7)]).await });
    while shared.gate.try_lock().is_ok() {
        tokio::task::yield_now().await;
    }
    proposers.abort_all();
    assert!(proposers.join_next().await.unwrap().unwrap_err().is_cancelled());
    assert!(shared.gate.try_lock().is_err(), "its commands are still to be applied");
    let before = opened.log.applied();
    release.send(()).unwrap();
    busy.join_next().await.unwrap().unwrap().unwrap();
    drop(shared.gate.lock().await);
    assert_eq!(opened.log.applied(), before.advance(1));
}

#[tokio::test]
async fn the_log_settles_unless_an_outage_may_put_something_off() {
    let (_root, opened) = formatted().await;
    let log = opened.log;
    log.settle().await.unwrap();
    let (answer, put_off) = oneshot::channel();
    let command = create(7);
    let encoded = vec![state::encode(&command)];
    let proposal = Proposal { commands: vec![command], encoded, answer, deferred: false };
    log.shared.submit(proposal);
    log.settle().await.unwrap();
    assert_eq!(put_off.await.unwrap().unwrap().0.len(), 1, "it was applied");
    log.shared.pause("none is there");
    assert_eq!(log.settle().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

/// What takes away needs pages of the state too, so nothing new is accepted before they are used up.
#[tokio::test]
async fn nothing_new_is_accepted_when_the_state_can_hardly_grow() {
    let (_root, opened) = formatted().await;
    let (log, mut ino) = (opened.log.clone(), 100);
    let mirror = log.shared.state().mirror.unwrap();
    loop {
        let (bytes, unused, _alive) = mirror.look().unwrap();
        assert!(unused <= bytes && ino < 100_000);
        if unused < bytes / 8 {
            break;
        }
        log.propose((ino..ino + 20).map(create).collect()).await.unwrap();
        log.checkpoint().await.unwrap();
        ino += 20;
    }
    let note = |free_bytes: u64| {
        let space = Space { total_bytes: 1 << 40, free_bytes, device: 1 };
        log.members().disks.iter().for_each(|member| opened.disks.note_space(member.disk, space));
    };
    for (free_bytes, cramped) in [(1 << 39, false), (1 << 10, true), (1 << 39, false)] {
        note(free_bytes);
        tokio::time::sleep(reopen::LOOK).await;
        log.tick().await.unwrap();
        assert_eq!(log.status().cramped, cramped, "{free_bytes} bytes are free");
        let made = log.propose(vec![create(ino)]).await;
        assert_eq!(made.is_err_and(|error| error.is(Posix::NoSpace)), cramped);
        let name = ino.to_string().into_bytes();
        let time = Timestamp::default();
        let remove = Command::Unlink { parent: ROOT_INO, name, keep: false, time };
        log.propose(vec![remove]).await.unwrap();
        ino += 1;
    }
}

#[test]
fn closing_is_noted_and_damage_of_the_note_is_seen() {
    let root = tempfile::tempdir().unwrap();
    let (disk, _queue) = disks(root.path()).remove(0);
    drop(state::create_copy(&*disk).unwrap());
    assert_eq!(state::read_clean(&*disk), None);
    state::write_clean(&*disk, Epoch(3), LogPosition(7)).unwrap();
    state::write_clean(&*disk, Epoch(4), LogPosition(9)).unwrap();
    assert_eq!(state::read_clean(&*disk), Some((Epoch(4), LogPosition(9))));
    let note = root.path().join("1/meta/clean");
    let mut bytes = std::fs::read(&note).unwrap();
    bytes[3] ^= 1;
    std::fs::write(&note, bytes).unwrap();
    assert_eq!(state::read_clean(&*disk), None);
}

/// Epoch, position and XXH3-64 of both: what a closed volume leaves on its disks.
#[test]
fn the_note_of_a_clean_end_is_pinned() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("meta")).unwrap();
    let disk = LocalDisk::open(root.path()).unwrap();
    state::write_clean(&disk, Epoch(3), LogPosition(0x0102_0304)).unwrap();
    let found = std::fs::read(root.path().join("meta/clean")).unwrap();
    let fields = [3, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1, 0, 0, 0, 0];
    let sum = [204, 31, 228, 243, 2, 55, 48, 203];
    assert_eq!(found, [&fields[..], &sum].concat());
}
