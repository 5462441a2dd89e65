//! The orders in which threads can run, as shuttle finds them: whoever waits is woken, answers are right, and what was
//! acknowledged is there after a power cut. Built only with the feature `shuttle` (`tests/suites/shuttle`).

use crate::compare::{read_all, root_user};
use crate::rig::Rig;
use crate::sim::disk::{Choice, Image};
use ironfs::disk::DiskFile;
use ironfs::disk::behind::BehindFile;
use ironfs::error::{Posix, Result};
use ironfs::fs::Fs;
use ironfs::fs::attr::SetAttr;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::lane::{Lane, Urgency};
use ironfs::meta::command::{Command, Inode, SetAttributes};
use ironfs::meta::store::Store;
use ironfs::sync::{Arc, Mutex, thread};
use ironfs::types::{FileKind, HandleId, Ino, LogPosition, ROOT_INO, Timestamp};
use redb::backends::InMemoryBackend;
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};
use std::sync::OnceLock;
use std::time::Duration;

/// Orders of each test, for each of the two ways to choose them.
const ORDERS: usize = 1000;
/// Of one order; what takes more goes round in circles.
const STEPS_MAX: usize = 5_000_000;
/// Points at which the second way changes its mind.
const DEPTH: usize = 3;
/// Of a simulated thread; the calls of a debug build nest deeply.
const STACK_BYTES: usize = 16 << 20;
/// Time stands still here.
const SILENT: Duration = Duration::from_secs(3600);
const CLASS: &str = "2+1";
const DISKS: usize = 4;
const O_RDWR: i32 = 0o2;
const SEGMENT: u64 = 64 << 10;

/// Runs `body` in many orders of its threads. `IRONFS_ORDERS` sets how many.
fn in_many_orders(share: usize, body: impl Fn() + Clone + Send + Sync + 'static) {
    let orders = std::env::var("IRONFS_ORDERS").ok().and_then(|text| text.parse().ok());
    let count = orders.unwrap_or(ORDERS) / share;
    let config = || {
        let mut config = Config::new();
        config.stack_size = STACK_BYTES;
        config.max_steps = shuttle::MaxSteps::FailAfter(STEPS_MAX);
        config
    };
    Runner::new(RandomScheduler::new(count), config()).run(body.clone());
    Runner::new(PctScheduler::new(DEPTH, count), config()).run(body);
    println!("{} orders", 2 * count);
}

/// A file in memory that knows what of it is durable, and fails from a write on.
#[derive(Debug, Default)]
struct Medium(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    writes: u32,
    fails_at: Option<u32>,
}

impl DiskFile for Medium {
    fn len(&self) -> Result<u64> {
        Ok(self.0.lock().unwrap().live.len() as u64)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let start = usize::try_from(offset).unwrap();
        buffer.copy_from_slice(&self.0.lock().unwrap().live[start..start + buffer.len()]);
        Ok(())
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.read(offset, buffer).is_ok()
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut content = self.0.lock().unwrap();
        content.writes += 1;
        if content.fails_at.is_some_and(|at| content.writes >= at) {
            return Err(Posix::NoSpace.into());
        }
        let start = usize::try_from(offset).unwrap();
        content.live[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.0.lock().unwrap().live.resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<()> {
        let mut content = self.0.lock().unwrap();
        content.durable = content.live.clone();
        Ok(())
    }
}

/// Each thread writes, reads and syncs a byte of its own; answers which of them were refused something.
fn write_behind(fails_at: Option<u32>) -> Vec<bool> {
    let medium = Arc::new(Medium::default());
    medium.0.lock().unwrap().fails_at = fails_at;
    let file = Arc::new(BehindFile::start("t", medium.clone(), SILENT).unwrap());
    file.set_len(3).unwrap();
    let writer = |place: u8| {
        let (file, medium) = (file.clone(), medium.clone());
        let (offset, index) = (u64::from(place), usize::from(place));
        let work = move || -> Result<()> {
            for value in 1..=2 {
                file.write(offset, &[value])?;
                let mut read = [0];
                file.read(offset, &mut read)?;
                assert_eq!(read, [value], "what was written is read");
            }
            file.sync_data()?;
            assert_eq!(medium.0.lock().unwrap().durable[index], 2, "what was synced is durable");
            Ok(())
        };
        thread::spawn(move || work().is_err())
    };
    let writers: Vec<_> = (0..3).map(writer).collect();
    let refused = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
    drop(file);
    if fails_at.is_none() {
        // Else nobody waits for it: its device may hang.
        assert_eq!(Arc::strong_count(&medium), 1, "its thread has ended");
    }
    refused
}

#[test]
fn a_file_with_a_thread_keeps_its_promises() {
    in_many_orders(1, || assert_eq!(write_behind(None), [false; 3]));
}

#[test]
fn a_file_with_a_thread_tells_everybody_of_a_failure() {
    in_many_orders(1, || {
        let refused = write_behind(Some(4));
        assert!(refused.contains(&true), "a write failed and nobody was told");
    });
}

#[test]
fn a_file_with_a_thread_is_dropped_with_writes_that_wait() {
    in_many_orders(1, || {
        let medium = Arc::new(Medium::default());
        let file = BehindFile::start("t", medium.clone(), SILENT).unwrap();
        file.set_len(1).unwrap();
        (0..5).for_each(|value| file.write(0, &[value]).unwrap());
        drop(file);
        assert_eq!(Arc::strong_count(&medium), 1, "its thread has ended");
    });
}

#[test]
fn jobs_of_a_lane_are_all_answered() {
    in_many_orders(1, || {
        let lane = Arc::new(Lane::start("t", 2, 1, Urgency::Foreground).unwrap());
        let client = |number: u32| {
            let lane = lane.clone();
            thread::spawn(move || {
                for turn in 0..2 {
                    let job = move || Ok(number * 10 + turn);
                    assert_eq!(block_on(lane.run(job)).unwrap(), number * 10 + turn);
                }
            })
        };
        let clients: Vec<_> = (0..3).map(client).collect();
        clients.into_iter().for_each(|client| client.join().unwrap());
    });
}

#[test]
fn the_last_owner_of_a_lane_may_be_its_job() {
    in_many_orders(1, || {
        let lane = Arc::new(Lane::start("t", 1, 2, Urgency::Foreground).unwrap());
        let inside = lane.clone();
        let client = thread::spawn(move || {
            let owner = inside.clone();
            let job = move || {
                drop(owner);
                Ok(())
            };
            block_on(inside.run(job)).unwrap();
        });
        drop(lane);
        client.join().unwrap();
    });
}

/// What the state at a position says of the root's mode: set by each command but the third, which is a large one.
const MODES: [u32; 6] = [0, 0o755, 1, 2, 2, 3];

/// Looks at the root in both ways: neither is older than what was answered before, or mixes two positions.
fn look_at_root(store: &Store, answered: &Mutex<LogPosition>) {
    let at_least = *answered.lock().unwrap();
    let check = |inode: Option<Inode>, position: LogPosition| {
        assert!(position >= at_least, "{position} was shown after {at_least} was answered");
        assert_eq!(inode.unwrap().mode, MODES[usize::try_from(position.get()).unwrap()]);
    };
    let (inode, position) = store.inode(ROOT_INO).unwrap();
    check(inode, position);
    let view = store.view().unwrap();
    check(view.inode(ROOT_INO).unwrap(), view.applied().unwrap());
}

/// A transaction stays open over commands: whoever looks still sees what was answered, whole.
#[test]
fn what_was_applied_is_seen_by_whoever_looks_afterwards() {
    in_many_orders(1, || {
        let store = Arc::new(Store::open(InMemoryBackend::new(), 1 << 20).unwrap());
        let (class, time) = (CLASS.parse().unwrap(), Timestamp::default());
        let genesis = Command::Genesis { class, uid: 0, gid: 0, time };
        store.apply(LogPosition(0), &[genesis]).unwrap();
        let answered = Arc::new(Mutex::new(store.applied()));
        let lookers = (0..2).map(|_| (store.clone(), answered.clone())).map(|(store, answered)| {
            thread::spawn(move || (0..3).for_each(|_turn| look_at_root(&store, &answered)))
        });
        let lookers: Vec<_> = lookers.collect();
        let keeper = store.clone();
        let keeper = thread::spawn(move || keeper.checkpoint().map(drop).unwrap());
        for (position, mode) in (1_u64..).zip([Some(1), Some(2), None, Some(3)]) {
            let set = SetAttributes { mode, ..SetAttributes::default() };
            let command = match mode {
                Some(_) => Command::SetAttributes { ino: ROOT_INO, set },
                None => Command::Reap { chunks: 1 },
            };
            store.apply(LogPosition(position), &[command]).unwrap();
            *answered.lock().unwrap() = store.applied();
        }
        look_at_root(&store, &answered);
        lookers.into_iter().chain([keeper]).for_each(|thread| thread.join().unwrap());
    });
}

/// Disks as `format` leaves them.
fn formatted() -> Image {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let rig = Rig::new(1, DISKS);
        block_on(rig.format(CLASS)).unwrap();
        rig.machine.live_image()
    });
    image.clone()
}

/// What a thread was promised: this byte fills a place of a file, or did when the journal was so long.
#[derive(Clone, Copy, Debug)]
struct Promise {
    place: u64,
    value: u8,
    at: usize,
}

/// A file that several threads use.
#[derive(Clone)]
struct Shared {
    rig: Rig,
    fs: Arc<Fs>,
    open: (Ino, HandleId),
    /// Bytes of each place: with one segment an fsync goes into the log, with more it builds a stripe.
    bytes: u64,
    promises: Arc<std::sync::Mutex<Vec<Promise>>>,
}

impl Shared {
    async fn write(&self, place: u64, value: u8) {
        let bytes = vec![value; usize::try_from(self.bytes).unwrap()];
        let (offset, how) = (place * self.bytes, WriteHow::default());
        if self.fs.write_now(self.open, offset, &bytes, how).is_none() {
            self.fs.write(&root_user(), self.open, offset, &bytes, how).await.unwrap();
        }
    }

    /// Writes a place several times, each with an fsync.
    async fn work(self, place: u64) {
        for value in 1..=2 {
            self.write(place, value).await;
            self.fs.fsync(self.open.0, self.open.1, value == 2).await.unwrap();
            let at = self.rig.machine.journal_len();
            self.promises.lock().unwrap().push(Promise { place, value, at });
        }
    }

    /// Reads what the others write: no byte ever goes back.
    async fn look(self, places: [u64; 2]) {
        let mut seen = [[0; 2]; 2];
        for _turn in 0..2 {
            for (place, seen) in places.into_iter().zip(&mut seen) {
                let length = u32::try_from(self.bytes).unwrap();
                let (ino, handle) = self.open;
                let read = self.fs.read(ino, handle, place * self.bytes, length, 0).await.unwrap();
                let found = [read[0], read[read.len() - 1]];
                assert!(found >= *seen, "place {place}: {found:?} after {seen:?}");
                *seen = found;
            }
        }
    }

    /// Cuts and extends the file behind all that the others write.
    async fn cut(self, end: u64) {
        for size in [end * self.bytes + 10, end * self.bytes] {
            let set = SetAttr { size: Some(size), handle: Some(self.open.1), ..SetAttr::default() };
            self.fs.setattr(&root_user(), self.open.0, set).await.unwrap();
        }
    }
}

/// Opens what a power cut at `at` leaves at the least, and compares.
async fn check(rig: &Rig, at: usize, promises: &[Promise], bytes: u64) {
    let state = rig.machine.crash(at, &mut |_disk, _op| Choice::Lost);
    let rig = rig.after_crash(state.image);
    let volume = rig.open().await.unwrap();
    let fs = volume.fs();
    let ino = fs.lookup(ROOT_INO, b"f").await.unwrap().ino;
    let handle = fs.open(&root_user(), ino, O_RDWR).await.unwrap().handle;
    let content = read_all(&fs, ino, handle).await.unwrap();
    for promise in promises.iter().filter(|promise| promise.at <= at) {
        let start = usize::try_from(promise.place * bytes).unwrap();
        let found = &content[start..start + usize::try_from(bytes).unwrap()];
        let good = found[0] >= promise.value && found.iter().all(|byte| *byte == found[0]);
        assert!(good, "power cut at {at}: {promise:?}, found {}", found[0]);
    }
    rig.machine.release_locks();
}

/// Threads that write a place of so many bytes each, fsync, cut and checkpoint; then the power is cut at each promise.
fn side_by_side(bytes: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    // Only for its timers, which never fire, and for tasks of the volume, which never run.
    let _inside = runtime.enter();
    let rig = Rig::new(1, DISKS).after_crash(formatted());
    let volume = block_on(rig.open()).unwrap();
    let fs = volume.fs();
    let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
    let made = block_on(fs.create(&root_user(), ROOT_INO, b"f", new, O_RDWR)).unwrap();
    let open = (made.0.ino, made.1.handle);
    let shared = Shared { rig: rig.clone(), fs, open, bytes, promises: Arc::default() };
    block_on(shared.write(3, 0));
    let mut threads = Vec::new();
    for place in [0, 1] {
        let shared = shared.clone();
        threads.push(thread::spawn(move || block_on(shared.work(place))));
    }
    let cutter = shared.clone();
    threads.push(thread::spawn(move || block_on(cutter.cut(3))));
    let reader = shared.clone();
    threads.push(thread::spawn(move || block_on(reader.look([0, 1]))));
    let keeper = volume.clone();
    threads.push(thread::spawn(move || {
        block_on(keeper.sync()).unwrap();
        block_on(keeper.checkpoint()).unwrap();
    }));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    block_on(volume.sync()).unwrap();
    assert_eq!(shared.fs.dirty_bytes(open.0), 0);
    let content = block_on(read_all(&shared.fs, open.0, open.1)).unwrap();
    assert_eq!(content.len() as u64, 3 * bytes);
    assert_eq!((content[0], content[content.len() / 2]), (2, 2));
    let promises = shared.promises.lock().unwrap().clone();
    assert_eq!(promises.len(), 4);
    rig.machine.release_locks();
    for promise in &promises {
        block_on(check(&rig, promise.at, &promises, bytes));
    }
}

/// Group commit, dirty buffers and the room for them.
#[test]
fn what_was_synced_beside_others_is_there_after_a_power_cut() {
    in_many_orders(10, || side_by_side(SEGMENT));
}

/// The same with what builds stripes: encoding, puts and commits beside each other.
#[test]
fn stripes_that_were_built_side_by_side_are_there_after_a_power_cut() {
    in_many_orders(20, || side_by_side(3 * SEGMENT));
}
