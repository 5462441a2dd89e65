#![expect(clippy::indexing_slicing, reason = "a test may panic")]

use super::merge::Merged;
use super::record::{Batch, Found, Header, Record, SECTOR_BYTES, find, seed};
use super::scan::{Copy, scan};
use super::{Chain, LogDisk, LogWriter, SegmentLog};
use crate::disk::queue::DiskQueue;
use crate::disk::set::DiskHandle;
use crate::disk::sim::{Call, Choice, SimMachine};
use crate::disk::{Disk, DiskEntry, DiskFile, DiskIdentity, OpenMode, Space};
use crate::error::{ErrorKind, Posix, Result};
use crate::types::{DiskId, Epoch, LogPosition, VolumeId};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio_util::task::TaskTracker;

const VOLUME: VolumeId = VolumeId([7; 16]);
const CHAIN: Chain = Chain { volume: VOLUME, base: Epoch(3) };
const SEGMENT: u64 = 2048;

fn command(position: u64, length: usize) -> Bytes {
    let start = position.to_le_bytes();
    let bytes: Vec<u8> = start.into_iter().chain(std::iter::repeat(0xa5)).take(length).collect();
    bytes.into()
}

fn batch(first: u64, count: u64) -> Batch {
    batch_of(CHAIN, Epoch(4), first, count)
}

fn batch_of(chain: Chain, epoch: Epoch, first: u64, count: u64) -> Batch {
    let commands: Vec<_> = (first..first + count).map(|at| command(at, 100)).collect();
    Batch::seal(chain, epoch, LogPosition(first), &commands)
}

fn writer(disk: &Arc<dyn Disk>) -> LogWriter {
    LogWriter::begin(disk.clone(), CHAIN, SEGMENT, None).unwrap()
}

fn copy(disk: &Arc<dyn Disk>) -> Copy {
    scan(&**disk, VOLUME, Epoch(9)).unwrap().unwrap()
}

fn log_files(machine: &SimMachine, disk: usize) -> Vec<String> {
    machine.file_names(disk).into_iter().filter(|name| name.ends_with(".log")).collect()
}

fn positions(copy: &Copy) -> Vec<u64> {
    copy.records.keys().map(|position| position.get()).collect()
}

/// Batches of 1, 2, 3, 4, 5 records in files of 2 KiB.
fn filled(machine: &SimMachine, disk: usize) -> (Arc<dyn Disk>, LogWriter) {
    let disk = machine.disk(disk);
    let mut writer = writer(&disk);
    let mut first = 0;
    for count in 1..=5 {
        writer.append(&batch(first, count)).unwrap();
        first += count;
    }
    (disk, writer)
}

/// A log on disks 0 and 1, each behind a queue, and what holds up the queue of each until it is dropped.
async fn two_queues(
    machine: &SimMachine,
    tasks: &TaskTracker,
) -> (SegmentLog, Vec<Option<crate::sync::mpsc::Sender<()>>>) {
    let (mut members, mut gates) = (Vec::new(), Vec::new());
    for number in 0..2 {
        let disk = machine.disk(number);
        let writer = writer(&disk);
        let queue = DiskQueue::threads("t", 1, 8).unwrap();
        let (gate, wait) = crate::sync::mpsc::channel::<()>();
        let id = DiskId(u32::try_from(number).unwrap());
        let handle = Arc::new(DiskHandle { id, disk, queue });
        let held = handle.clone();
        tasks.spawn(async move {
            let hold = move || {
                wait.recv().unwrap_err();
                Ok(())
            };
            held.queue.run(hold).await
        });
        tokio::task::yield_now().await;
        members.push(LogDisk::new(handle, writer));
        gates.push(Some(gate));
    }
    (SegmentLog::new(members), gates)
}

#[tokio::test(start_paused = true)]
async fn a_silent_disk_is_left_out_once_another_has_the_batch() {
    let (machine, tasks) = (SimMachine::new(1, 2), TaskTracker::new());
    let (log, mut gates) = two_queues(&machine, &tasks).await;
    gates[0] = None;
    let failed = log.append(Arc::new(batch(0, 1))).await;
    assert_eq!(failed.iter().map(|(disk, _error)| *disk).collect::<Vec<_>>(), [DiskId(1)]);
    assert_eq!(failed[0].1.kind(), ErrorKind::Unavailable);
    assert!(failed[0].1.to_string().contains("no answer"), "{}", failed[0].1);
}

#[tokio::test(start_paused = true)]
async fn disks_that_are_all_silent_are_waited_for() {
    let (machine, tasks) = (SimMachine::new(1, 2), TaskTracker::new());
    let (log, mut gates) = two_queues(&machine, &tasks).await;
    let appending = tasks.spawn(async move { log.append(Arc::new(batch(0, 1))).await });
    tokio::time::sleep(super::SILENT * 100).await;
    assert!(!appending.is_finished());
    gates[1] = None;
    let failed = appending.await.unwrap();
    assert_eq!(failed.iter().map(|(disk, _error)| *disk).collect::<Vec<_>>(), [DiskId(0)]);
    assert_eq!(positions(&copy(&machine.disk(1))), [0]);
}

/// A disk on another machine, whose writes are waited for until it is let go.
#[derive(Debug)]
struct Far {
    disk: Arc<dyn Disk>,
    open: Arc<tokio::sync::Semaphore>,
}

#[derive(Debug)]
struct FarFile {
    file: Arc<dyn DiskFile>,
    open: Arc<tokio::sync::Semaphore>,
}

impl DiskFile for FarFile {
    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.file.read(offset, buffer)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        self.file.write(offset, data)
    }

    fn durable_write(&self, offset: u64, data: &Bytes) -> Option<BoxFuture<'static, Result<()>>> {
        let (file, open, data) = (self.file.clone(), self.open.clone(), data.clone());
        Some(Box::pin(async move {
            let _turn = open.acquire().await.unwrap();
            file.write_durably(offset, &data)
        }))
    }

    fn set_len(&self, length: u64) -> Result<()> {
        self.file.set_len(length)
    }

    fn sync_data(&self) -> Result<()> {
        self.file.sync_data()
    }
}

impl Disk for Far {
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FarFile { file: self.disk.open(name, mode)?, open: self.open.clone() }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.disk.remove(name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.disk.rename(from, to)
    }

    fn create_dir(&self, name: &str) -> Result<()> {
        self.disk.create_dir(name)
    }

    fn list(&self, dir: &str) -> Result<Vec<DiskEntry>> {
        self.disk.list(dir)
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        self.disk.sync_dir(dir)
    }

    fn space(&self) -> Result<Space> {
        self.disk.space()
    }

    fn identity(&self) -> Result<DiskIdentity> {
        self.disk.identity()
    }

    fn lock(&self, holder: &str) -> Result<()> {
        self.disk.lock(holder)
    }

    fn label(&self) -> String {
        self.disk.label()
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_behind_a_batch_without_an_answer() {
    let machine = SimMachine::new(1, 1);
    let open = Arc::new(tokio::sync::Semaphore::new(1));
    let disk: Arc<dyn Disk> = Arc::new(Far { disk: machine.disk(0), open: open.clone() });
    let handle = DiskHandle { id: DiskId(0), disk: disk.clone(), queue: DiskQueue::inline() };
    let log = LogDisk::new(Arc::new(handle), writer(&disk));
    // The first makes a file, the second is written into it without a thread.
    log.append(Arc::new(batch(0, 1))).await.unwrap();
    log.append(Arc::new(batch(1, 1))).await.unwrap();
    assert_eq!(positions(&copy(&disk)), [0, 1]);
    let silent = open.acquire().await.unwrap();
    let late = tokio::time::timeout(super::SILENT, log.append(Arc::new(batch(2, 1)))).await;
    late.unwrap_err();
    drop(silent);
    let error = log.append(Arc::new(batch(3, 1))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("was not answered"), "{error}");
    assert_eq!(positions(&copy(&disk)), [0, 1]);
}

#[test]
fn bytes_of_a_file_are_pinned() {
    let header = Header::new(CHAIN, Epoch(4), LogPosition(5)).encode();
    assert_eq!(header.len(), SECTOR_BYTES);
    assert_eq!(header[..8], [b'I', b'F', b'L', b'G', 1, 0, 1, 0]);
    assert_eq!(header[8..24], [7; 16]);
    assert_eq!(
        header[24..48],
        [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
    );
    let batch = Batch::seal(CHAIN, Epoch(4), LogPosition(5), &[Bytes::from_static(b"abc")]);
    assert_eq!(batch.bytes().len(), SECTOR_BYTES);
    assert_eq!(batch.bytes()[12..16], [3, 0, 0, 0]);
    assert_eq!(
        batch.bytes()[16..40],
        [5, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(batch.bytes()[40..48], [b'a', b'b', b'c', 0, 0, 0, 0, 0]);
    assert_eq!(CHAIN.file_name(LogPosition(10)), "log/0000000000000003-000000000000000a.log");
}

#[test]
fn headers_are_checked() {
    let header = Header::new(CHAIN, Epoch(4), LogPosition(5));
    let bytes = header.encode();
    assert_eq!(Header::decode(&bytes).unwrap(), header);
    for at in 0..56 {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Header::decode(&bad).is_err(), "byte {at}");
    }
    assert!(Header::decode(&bytes[..50]).is_err());
}

#[test]
fn records_of_another_chain_or_volume_do_not_pass() {
    let batch = batch(5, 1);
    let expected = Record {
        position: LogPosition(5),
        epoch: Epoch(4),
        batch: LogPosition(5),
        command: command(5, 100),
    };
    assert_eq!(find(batch.bytes(), seed(CHAIN)), Found::Record(expected, 144));
    let others = [Chain { base: Epoch(2), ..CHAIN }, Chain { volume: VolumeId([8; 16]), ..CHAIN }];
    for other in others {
        assert_eq!(find(batch.bytes(), seed(other)), Found::Nothing);
    }
    for at in 0..140 {
        let mut bad = batch.bytes().to_vec();
        bad[at] ^= 0x10;
        assert!(!matches!(find(&bad, seed(CHAIN)), Found::Record(..)), "byte {at}");
    }
}

#[test]
fn batches_roll_over_files_and_are_read_back() {
    let machine = SimMachine::new(1, 1);
    let (disk, _writer) = filled(&machine, 0);
    assert!(log_files(&machine, 0).len() > 1);
    let found = copy(&disk);
    assert_eq!(positions(&found), (0..15).collect::<Vec<_>>());
    assert_eq!((found.base, found.first, found.damaged), (Epoch(3), LogPosition(0), 0));
    assert_eq!(found.records[&LogPosition(4)].command, command(4, 100));
    assert_eq!(found.records[&LogPosition(4)].batch, LogPosition(3));
}

#[test]
fn a_batch_larger_than_a_file_gets_a_file_of_its_own() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let mut writer = writer(&disk);
    writer.append(&batch(0, 100)).unwrap();
    writer.append(&batch(100, 1)).unwrap();
    assert_eq!(log_files(&machine, 0).len(), 2);
    assert_eq!(copy(&disk).records.len(), 101);
}

#[test]
fn trimming_frees_whole_files_only() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut writer) = filled(&machine, 0);
    let files = log_files(&machine, 0).len();
    let second = writer.files[1].get();
    writer.trim(LogPosition(second - 1)).unwrap();
    assert_eq!(log_files(&machine, 0).len(), files);
    writer.trim(LogPosition(second)).unwrap();
    assert_eq!(log_files(&machine, 0).len(), files - 1);
    assert_eq!(copy(&disk).first, LogPosition(second));
    assert_eq!(positions(&copy(&disk)), (second..15).collect::<Vec<_>>());
    writer.trim(LogPosition(1000)).unwrap();
    assert_eq!(log_files(&machine, 0).len(), 1, "the file being written stays");
}

#[test]
fn chains_above_the_epoch_are_not_believed() {
    let machine = SimMachine::new(1, 1);
    let (disk, _writer) = filled(&machine, 0);
    let later = Chain { base: Epoch(5), ..CHAIN };
    let mut next = LogWriter::begin(disk.clone(), later, SEGMENT, Some(Epoch(3))).unwrap();
    next.append(&batch_of(later, Epoch(5), 9, 1)).unwrap();
    assert_eq!(scan(&*disk, VOLUME, Epoch(4)).unwrap().unwrap().base, Epoch(3));
    assert_eq!(positions(&scan(&*disk, VOLUME, Epoch(5)).unwrap().unwrap()), [9]);
    assert_eq!(scan(&*disk, VOLUME, Epoch(2)).unwrap(), None);
    let _again = LogWriter::begin(disk.clone(), later, SEGMENT, None).unwrap();
    assert_eq!(scan(&*disk, VOLUME, Epoch(9)).unwrap(), None);
}

#[test]
fn one_copy_may_be_damaged_anywhere() {
    let machine = SimMachine::new(1, 2);
    let (first, _w) = filled(&machine, 0);
    let (second, _w) = filled(&machine, 1);
    let good = Merged::new(vec![copy(&second)]).tail(LogPosition(0)).unwrap();
    for name in log_files(&machine, 0) {
        for sector in 0..SEGMENT / 512 {
            for offset in [0, 15, 44, 300] {
                machine.flip(0, &name, sector * 512 + offset);
            }
            let merged = Merged::new(vec![copy(&first), copy(&second)]);
            assert_eq!(merged.tail(LogPosition(0)).unwrap(), good, "{name}, sector {sector}");
            for offset in [0, 15, 44, 300] {
                machine.flip(0, &name, sector * 512 + offset);
            }
        }
        machine.zero(0, &name, 0, SEGMENT);
        let merged = Merged::new(vec![copy(&first), copy(&second)]);
        assert_eq!(merged.tail(LogPosition(0)).unwrap(), good, "{name}, all of it");
    }
}

#[test]
fn damage_in_every_copy_is_told_from_a_torn_tail() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut writer) = filled(&machine, 0);
    // The last batch (10..15) is torn in the middle: that is a crash.
    let name = log_files(&machine, 0).pop().unwrap();
    let sector = machine.contents(0, &name).unwrap().chunks(512).rposition(|s| s != [0; 512]);
    let inside = u64::try_from(sector.unwrap()).unwrap() * 512;
    machine.flip(0, &name, inside - 512 + 200);
    let tail = Merged::new(vec![copy(&disk)]).tail(LogPosition(0)).unwrap();
    assert!((10..15).contains(&tail.len()), "{}", tail.len());
    // One more batch proves that the last one was durable.
    writer.append(&batch(15, 1)).unwrap();
    let merged = Merged::new(vec![copy(&disk)]);
    assert_eq!(merged.tail(LogPosition(0)).unwrap_err().kind(), ErrorKind::Corrupt);
    // A state behind the damage does not need it.
    assert_eq!(merged.tail(LogPosition(15)).unwrap().len(), 1);
    assert!(merged.tail(LogPosition(16)).unwrap().is_empty());
}

#[test]
fn states_ahead_of_the_log_or_before_it_are_refused() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut writer) = filled(&machine, 0);
    let merged = Merged::new(vec![copy(&disk)]);
    assert!(merged.tail(LogPosition(15)).unwrap().is_empty());
    assert_eq!(merged.tail(LogPosition(16)).unwrap_err().kind(), ErrorKind::Corrupt);
    writer.trim(LogPosition(15)).unwrap();
    let merged = Merged::new(vec![copy(&disk)]);
    assert_eq!(merged.tail(LogPosition(0)).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_empty_chain_starts_where_its_file_does() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let mut writer = writer(&disk);
    writer.append(&Batch::seal(CHAIN, Epoch(4), LogPosition(50), &[])).unwrap();
    let merged = Merged::new(vec![copy(&disk)]);
    assert!(merged.tail(LogPosition(50)).unwrap().is_empty());
    assert_eq!(merged.tail(LogPosition(51)).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_log_of_another_apply_version_is_refused_unless_it_is_closed() {
    let machine = SimMachine::new(1, 1);
    let (disk, _writer) = filled(&machine, 0);
    let mut found = copy(&disk);
    found.apply_versions[0] = 99;
    let merged = Merged::new(vec![found]);
    assert_eq!(merged.tail(LogPosition(3)).unwrap_err().kind(), ErrorKind::Refused);
    assert!(merged.tail(LogPosition(15)).unwrap().is_empty());
}

/// A power cut at any moment leaves a prefix with everything whose append had returned.
#[test]
fn power_cuts_leave_a_prefix() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let mut writer = writer(&disk);
    let mut durable = vec![(machine.journal_len(), 0)];
    let mut first = 0;
    for count in [1, 9, 3, 20, 2] {
        writer.append(&batch(first, count)).unwrap();
        first += count;
        durable.push((machine.journal_len(), first));
    }
    for at in durable[0].0..=machine.journal_len() {
        let acknowledged = durable.iter().rev().find(|(moment, _p)| *moment <= at).unwrap().1;
        for state in machine.crash_states(at, 40, 5) {
            let rebooted = SimMachine::from_image(state.image);
            let found = scan(&*rebooted.disk(0), VOLUME, Epoch(9)).unwrap();
            let tail = match found {
                Some(found) => Merged::new(vec![found]).tail(LogPosition(0)).unwrap(),
                None => Vec::new(),
            };
            assert!(tail.len() as u64 >= acknowledged, "cut at {at}: {}", tail.len());
            let expected: Vec<_> = (0..tail.len() as u64).map(|at| command(at, 100)).collect();
            assert_eq!(tail, expected);
        }
    }
}

/// The same where files are written over trimmed ones.
#[test]
fn power_cuts_in_files_that_are_used_again_leave_a_prefix() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let mut writer = writer(&disk);
    let mut moments = vec![(machine.journal_len(), 0, 0)];
    let (mut first, mut trimmed, mut reused) = (0, 0, 0);
    for round in 0..24 {
        let count = [1, 4, 2, 9, 3][round % 5];
        let spares = writer.spares;
        writer.append(&batch(first, count)).unwrap();
        reused += spares.saturating_sub(writer.spares);
        first += count;
        moments.push((machine.journal_len(), first, trimmed));
        if round % 6 == 5 {
            // The state is durable up to here before anything is trimmed.
            trimmed = first - count;
            moments.push((machine.journal_len(), first, trimmed));
            writer.trim(LogPosition(trimmed)).unwrap();
        }
    }
    assert_eq!(writer.spares_max, super::SPARES_MAX);
    assert!(reused > 4, "{reused} files");
    for at in moments[0].0..=machine.journal_len() {
        let moment = moments.iter().rev().find(|(moment, _p, _t)| *moment <= at);
        let (_moment, acknowledged, state_at) = *moment.unwrap();
        for state in machine.crash_states(at, 20, 5) {
            let rebooted = SimMachine::from_image(state.image);
            let found = scan(&*rebooted.disk(0), VOLUME, Epoch(9)).unwrap();
            let tail = match found {
                Some(found) => Merged::new(vec![found]).tail(LogPosition(state_at)).unwrap(),
                None => Vec::new(),
            };
            let end = state_at + tail.len() as u64;
            assert!(end >= acknowledged, "cut at {at}: {end} < {acknowledged}");
            let expected: Vec<_> = (state_at..end).map(|at| command(at, 100)).collect();
            assert_eq!(tail, expected);
        }
    }
}

/// A small disk keeps one file for the day when it is full, and no more.
#[test]
fn spares_take_a_hundredth_of_a_disk() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let total = disk.space().unwrap().total_bytes;
    for (segment, expected) in
        [(total / 50, 1), (total / 250, 3), (total / 1000, super::SPARES_MAX)]
    {
        let writer = LogWriter::begin(disk.clone(), CHAIN, segment, None).unwrap();
        assert_eq!((writer.spares, writer.spares_max), (1, expected));
    }
}

/// The test above would see a sync that does nothing.
#[test]
fn a_skipped_sync_loses_records() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut writer) = filled(&machine, 0);
    machine.skip_syncs(0, Call::SyncData, 1);
    writer.append(&batch(15, 1)).unwrap();
    assert_eq!(copy(&disk).records.len(), 16);
    let state = machine.crash(machine.journal_len(), &mut |_disk, _op| Choice::Lost);
    let rebooted = SimMachine::from_image(state.image);
    assert_eq!(copy(&rebooted.disk(0)).records.len(), 15);
}

#[tokio::test(start_paused = true)]
async fn a_failing_disk_is_named_and_the_others_go_on() {
    let machine = SimMachine::new(1, 3);
    let member = |index: usize| {
        let disk = machine.disk(index);
        let writer = LogWriter::begin(disk.clone(), CHAIN, 2 * SEGMENT, None).unwrap();
        let id = DiskId(u32::try_from(index).unwrap() + 1);
        LogDisk::new(Arc::new(DiskHandle { id, disk, queue: DiskQueue::inline() }), writer)
    };
    let mut log = SegmentLog::new((0..3).map(member).collect());
    assert!(log.append(Arc::new(batch(0, 2))).await.is_empty());
    machine.set_offline(1, true);
    let failed = log.append(Arc::new(batch(2, 2))).await;
    assert_eq!(failed.iter().map(|(disk, _e)| *disk).collect::<Vec<_>>(), [DiskId(2)]);
    assert_eq!(failed[0].1.kind(), ErrorKind::Unavailable);
    log.remove(DiskId(2));
    assert_eq!(log.disks(), [DiskId(1), DiskId(3)]);
    assert!(log.append(Arc::new(batch(4, 1))).await.is_empty());
    assert!(log.trim(LogPosition(4)).await.is_empty());
    assert_eq!(positions(&copy(&machine.disk(2))), [0, 1, 2, 3, 4]);
    // A full device cannot stop a commit into a file that is there already.
    machine.full(0, 0);
    assert!(log.append(Arc::new(batch(5, 1))).await.is_empty());
    let failed = log.append(Arc::new(batch(6, 40))).await;
    assert!(failed[0].1.is(Posix::NoSpace));
}

#[test]
fn a_full_device_takes_one_more_file_and_trimming_gives_it_back() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut writer) = filled(&machine, 0);
    machine.full(0, 0);
    for at in 15..17 {
        writer.append(&batch(at, 1)).unwrap();
    }
    assert_eq!(writer.spares, 0, "it is in use");
    writer.trim(LogPosition(15)).unwrap();
    assert!(writer.spares > 0);
    for at in 17..20 {
        writer.append(&batch(at, 1)).unwrap();
    }
    assert_eq!(positions(&copy(&disk)).last(), Some(&19));
    assert_eq!(Merged::new(vec![copy(&disk)]).tail(LogPosition(15)).unwrap().len(), 5);
    assert!(writer.append(&batch(20, 90)).unwrap_err().is(Posix::NoSpace));
}

#[test]
fn a_disk_that_was_away_goes_on_in_a_new_file() {
    let machine = SimMachine::new(1, 1);
    let (disk, mut before) = filled(&machine, 0);
    // Acknowledged are 15 records; the last batch was not, and is there all the same.
    let needed = LogPosition(0)..LogPosition(15);
    before.append(&batch(15, 3)).unwrap();
    let files = log_files(&machine, 0);
    let mut after = LogWriter::resume(disk.clone(), CHAIN, SEGMENT, needed).unwrap();
    after.append(&batch(15, 5)).unwrap();
    assert_eq!(positions(&copy(&disk)), (0..20).collect::<Vec<_>>());
    assert_eq!(log_files(&machine, 0).len(), files.len() + 1, "{files:?}");
    // A write of before comes late: what counts by now is in another file.
    before.append(&batch(18, 1)).unwrap();
    after.append(&batch(20, 1)).unwrap();
    let copy = copy(&disk);
    assert_eq!(positions(&copy), (0..21).collect::<Vec<_>>());
    let tail = Merged::new(vec![copy]).tail(LogPosition(0)).unwrap();
    assert_eq!(tail[18..], [command(18, 100), command(19, 100), command(20, 100)]);
    // Trimmed as any other.
    after.trim(LogPosition(20)).unwrap();
    assert!(log_files(&machine, 0).len() < files.len());
}

#[test]
fn a_file_that_nothing_acknowledged_is_in_is_made_anew() {
    let machine = SimMachine::new(1, 1);
    let disk = machine.disk(0);
    let mut before = writer(&disk);
    before.append(&batch(0, 1)).unwrap();
    let needed = LogPosition(0)..LogPosition(0);
    let mut after = LogWriter::resume(disk.clone(), CHAIN, SEGMENT, needed).unwrap();
    assert_eq!(log_files(&machine, 0), Vec::<String>::new());
    after.append(&batch(0, 2)).unwrap();
    assert_eq!(positions(&copy(&disk)), [0, 1]);
}

#[test]
fn a_disk_that_has_lost_a_record_does_not_go_on() {
    let machine = SimMachine::new(1, 1);
    let (disk, _before) = filled(&machine, 0);
    let resume = |chain, needed| LogWriter::resume(disk.clone(), chain, SEGMENT, needed);
    let needed = LogPosition(0)..LogPosition(15);
    let other = Chain { base: Epoch(2), ..CHAIN };
    assert_eq!(resume(other, needed.clone()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(
        resume(CHAIN, LogPosition(0)..LogPosition(16)).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    let first = log_files(&machine, 0)[0].clone();
    assert!(machine.zero(0, &first, SECTOR_BYTES as u64, 1 << 20));
    assert_eq!(resume(CHAIN, needed).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(positions(&copy(&disk)).last(), Some(&14), "what is there stays");
}
