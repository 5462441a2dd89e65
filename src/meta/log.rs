//! The record log on several disks in parallel: files, batches, trimming. Knows the bytes of commands, not what
//! they do.
//!
//! A disk holds files `log/{base:016x}-{first:016x}.log`. Files of one *base* are one chain: the log as one mount has
//! begun it, complete from the first file on. `base` is the epoch of that beginning, `first` the position of the first
//! record. A chain above the epoch in force belongs to a mount that never came to serve, and is not believed.
//!
//! A file is as long as it will ever be before its first record is written: a full device cannot stop a commit. It
//! begins with one sector (`record::Header`). Batches follow, each on a sector boundary and written and synced in one
//! piece on all disks before the next one begins. So every record names the first position of its batch, and any good
//! record proves that all before its batch was durable: that tells damage from a tail that a crash has torn.
//!
//! Trimmed files are kept as spares, `log/spare-{n}`, and become the next ones: to write over blocks that are there
//! spares the file system a commit of its own for each sync. What is left in them is older than any file that they
//! become, by position or by chain, and so it is never taken for new. One spare is kept for the day when the device is full: the
//! log then goes on until space is freed.
//!
//! Versions: 1 is the first.
//!
//! Assumed of the medium: a sector of 512 bytes is written whole or not at all; a sync that succeeded is true. Within
//! a batch that was not synced, any sector may be missing.

use crate::disk::set::DiskHandle;
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::lane::drop_apart;
use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::{DiskId, Epoch, LogPosition, VolumeId};
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use std::ops::Range;
use std::time::Duration;

pub mod merge;
pub mod record;
pub mod scan;
#[cfg(test)]
mod tests;

use record::{Batch, Header, SECTOR_BYTES};

/// Size of a log file: large enough that rolling over is rare, small enough to trim in small pieces.
pub const SEGMENT_BYTES: u64 = 8 << 20;
/// Most bytes that wait for a sync: bounds memory and the length of one round.
pub const BUFFER_BYTES: usize = 64 << 20;
/// A log disk that does not answer for so long is replaced.
pub const SILENT: Duration = Duration::from_secs(10);
/// Directory of the log on a disk.
pub const LOG_DIR: &str = "log";

/// Most spare files: what is freed by a checkpoint that comes early.
const SPARES_MAX: usize = 4;
/// Share of a disk that spares may take beside the first one.
const SPARES_SHARE: u64 = 100;

fn spare_name(number: usize) -> String {
    format!("{LOG_DIR}/spare-{number}")
}

/// Which log a file belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chain {
    /// Volume, part of all sums.
    pub volume: VolumeId,
    /// Epoch at which the chain was begun.
    pub base: Epoch,
}

impl Chain {
    /// Name of the file that starts at `first`.
    pub fn file_name(self, first: LogPosition) -> String {
        format!("{LOG_DIR}/{:016x}-{:016x}.log", self.base.get(), first.get())
    }
}

/// The log as one disk holds it, open for appending.
#[derive(Debug)]
pub struct LogWriter {
    disk: Arc<dyn Disk>,
    chain: Chain,
    segment_bytes: u64,
    /// Spare files: those with smaller numbers. The first is for a full device.
    spares: usize,
    spares_max: usize,
    /// First positions of all files, in order; the last one is being written.
    files: Vec<LogPosition>,
    current: Option<Current>,
    /// A batch was begun of which is not known whether it is there: nothing may be written behind it.
    unanswered: bool,
}

#[derive(Debug)]
struct Current {
    file: Arc<dyn DiskFile>,
    offset: u64,
    capacity: u64,
}

impl LogWriter {
    /// Begins `chain` on a disk, after removing every other file of that name space but the chain `keep`. Durable
    /// once the first batch is.
    pub fn begin(
        disk: Arc<dyn Disk>,
        chain: Chain,
        segment_bytes: u64,
        keep: Option<Epoch>,
    ) -> Result<Self> {
        make_dir(&*disk, LOG_DIR)?;
        remove_chains(&*disk, |base| Some(base) != keep)?;
        Self::start(disk, chain, segment_bytes, Vec::new())
    }

    /// Writes a batch behind the last one; durable on return. After an error the disk has left the log.
    pub fn append(&mut self, batch: &Batch) -> Result<()> {
        if self.unanswered {
            let context = format!("{}: the batch before was not answered", self.disk.label());
            return Err(Error::unavailable(context));
        }
        let length = batch.bytes().len() as u64;
        let current = match self.current.take() {
            Some(current) if current.offset + length <= current.capacity => current,
            // Nothing but empty batches is in this file, and the next one would have the same name.
            Some(current) if self.files.last() == Some(&batch.first()) => {
                let capacity = current.offset + length;
                current.file.set_len(capacity)?;
                Current { capacity, ..current }
            }
            Some(_) | None => self.roll(batch, length)?,
        };
        current.file.write_durably(current.offset, batch.bytes())?;
        self.current = Some(Current { offset: current.offset + length, ..current });
        Ok(())
    }

    /// As `append`, as something to wait for that blocks no thread; `appended` must follow when it is done. `None` where only
    /// `append` can do it.
    fn begin_append(&mut self, batch: &Batch) -> Option<BoxFuture<'static, Result<()>>> {
        let length = batch.bytes().len() as u64;
        let current = self.current.as_mut().filter(|_current| !self.unanswered)?;
        if current.offset + length > current.capacity {
            return None;
        }
        let writing = current.file.durable_write(current.offset, batch.bytes())?;
        current.offset += length;
        self.unanswered = true;
        Some(writing)
    }

    /// What was begun is durable.
    const fn appended(&mut self) {
        self.unanswered = false;
    }

    /// Goes on with `chain` on a disk that was away: it has all of `needed`, and nothing behind that counts. The next batch
    /// begins a new file: a write of before that hangs still may come later, and must not meet one that counts.
    ///
    /// Errors: those of the disk; `Corrupt` if a record of `needed` is not there.
    pub fn resume(
        disk: Arc<dyn Disk>,
        chain: Chain,
        segment_bytes: u64,
        needed: Range<LogPosition>,
    ) -> Result<Self> {
        let copy = scan::scan(&*disk, chain.volume, chain.base)?;
        let copy = copy.filter(|copy| copy.base == chain.base);
        let has = |position: &u64| {
            copy.as_ref().is_some_and(|copy| copy.records.contains_key(&LogPosition(*position)))
        };
        if let Some(absent) = (needed.start.get()..needed.end.get()).find(|at| !has(at)) {
            let context = format!("{}: record {absent} of the log is not there", disk.label());
            return Err(Error::corrupt(context));
        }
        let ours = list_files(&*disk)?.into_iter();
        let ours = ours.filter(|(_name, base, _first)| *base == chain.base);
        let (behind, files): (Vec<_>, Vec<_>) =
            ours.map(|(_name, _base, first)| first).partition(|first| *first >= needed.end);
        for first in &behind {
            ignore_absent(disk.remove(&chain.file_name(*first)))?;
        }
        if !behind.is_empty() {
            disk.sync_dir(LOG_DIR)?;
        }
        Self::start(disk, chain, segment_bytes, files)
    }

    fn start(
        disk: Arc<dyn Disk>,
        chain: Chain,
        segment_bytes: u64,
        files: Vec<LogPosition>,
    ) -> Result<Self> {
        let room = disk.space()?.total_bytes / SPARES_SHARE / segment_bytes.max(1);
        let spares_max =
            usize::try_from(room).unwrap_or(usize::MAX).saturating_add(1).min(SPARES_MAX);
        let mut writer = Self {
            disk,
            chain,
            segment_bytes,
            spares: 0,
            spares_max,
            files,
            current: None,
            unanswered: false,
        };
        match writer.prepare_spares() {
            // A device that is full already goes without.
            Err(error) if !error.is(Posix::NoSpace) => Err(error),
            Ok(()) | Err(_) => Ok(writer),
        }
    }

    /// Removes files whose records are all before `position`.
    pub fn trim(&mut self, position: LogPosition) -> Result<()> {
        let mut removed = false;
        while let [first, second, ..] = self.files.as_slice()
            && *second <= position
        {
            let name = self.chain.file_name(*first);
            let fits = self.length(&name).is_ok_and(|length| length == self.segment_bytes);
            if fits && self.spares < self.spares_max {
                // Its records are all before those of any later file, so nobody takes them for new ones.
                self.disk.rename(&name, &spare_name(self.spares))?;
                self.spares += 1;
            } else {
                ignore_absent(self.disk.remove(&name))?;
            }
            self.files.remove(0);
            removed = true;
        }
        if removed { self.disk.sync_dir(LOG_DIR) } else { Ok(()) }
    }

    /// A new file, complete and durable with its name before anything is written behind its header.
    fn roll(&mut self, batch: &Batch, length: u64) -> Result<Current> {
        let first = batch.first();
        let name = self.chain.file_name(first);
        let capacity = self.segment_bytes.max(SECTOR_BYTES as u64 + length);
        let file = self.next_file(&name, capacity)?;
        let capacity = file.len()?;
        let header = Header::new(self.chain, batch.epoch(), first);
        file.write(0, &header.encode())?;
        file.sync_data()?;
        self.disk.sync_dir(LOG_DIR)?;
        self.files.push(first);
        Ok(Current { file, offset: SECTOR_BYTES as u64, capacity })
    }
}

impl LogWriter {
    /// A file under a new name: a spare if it is long enough. The first spare only goes where there is no room.
    fn next_file(&mut self, name: &str, capacity: u64) -> Result<Arc<dyn DiskFile>> {
        let fits = capacity == self.segment_bytes;
        if fits && self.spares > 1 {
            return self.take_spare(name);
        }
        match self.allocate(name, capacity) {
            Err(error) if error.is(Posix::NoSpace) && fits && self.spares > 0 => {
                self.take_spare(name)
            }
            other => other,
        }
    }

    fn allocate(&self, name: &str, capacity: u64) -> Result<Arc<dyn DiskFile>> {
        let file = self.disk.open(name, OpenMode::CreateNew)?;
        if let Err(error) = file.set_len(capacity) {
            ignore_absent(self.disk.remove(name))?;
            return Err(error);
        }
        Ok(file)
    }

    /// The last spare file under its new name. There must be one.
    fn take_spare(&mut self, name: &str) -> Result<Arc<dyn DiskFile>> {
        let spare = spare_name(self.spares.saturating_sub(1));
        let file = self.disk.open(&spare, OpenMode::Write)?;
        self.disk.rename(&spare, name)?;
        self.spares -= 1;
        Ok(file)
    }

    fn length(&self, name: &str) -> Result<u64> {
        self.disk.open(name, OpenMode::Read)?.len()
    }

    /// Finds the spares of an earlier chain, removes what is not in their order, and makes the first if there is none.
    fn prepare_spares(&mut self) -> Result<()> {
        for number in 0..SPARES_MAX {
            let name = spare_name(number);
            let fits = self.length(&name).is_ok_and(|length| length == self.segment_bytes);
            if fits && number == self.spares && number < self.spares_max {
                self.spares += 1;
            } else {
                ignore_absent(self.disk.remove(&name))?;
            }
        }
        if self.spares == 0 {
            self.allocate(&spare_name(0), self.segment_bytes)?.sync_data()?;
            self.spares = 1;
        }
        Ok(())
    }
}

/// The log on all its disks.
#[derive(Clone, Debug, Default)]
pub struct SegmentLog {
    members: Vec<LogDisk>,
}

/// One disk of the log.
#[derive(Clone, Debug)]
pub struct LogDisk {
    handle: Arc<DiskHandle>,
    writer: Arc<Mutex<LogWriter>>,
}

impl LogDisk {
    /// The log on the disk of `handle`.
    pub fn new(handle: Arc<DiskHandle>, writer: LogWriter) -> Self {
        Self { handle, writer: Arc::new(Mutex::new(writer)) }
    }

    /// The disk.
    pub fn id(&self) -> DiskId {
        self.handle.id
    }

    /// Appends a batch; durable on return.
    pub async fn append(&self, batch: Arc<Batch>) -> Result<()> {
        let context = format!("append to the log at {} on disk {}", batch.first(), self.id());
        let begun = self.begin_append(&batch);
        let answer = match begun {
            Some(writing) => self.handle.queue.times().follow(writing).await.inspect(|()| {
                self.writer.lock().unwrap_or_else(PoisonError::into_inner).appended();
            }),
            None => self.work(move |writer| writer.append(&batch)).await,
        };
        answer.map_err(|error| error.while_doing(context))
    }

    /// What blocks no thread; never while a thread is at work on the same files.
    fn begin_append(&self, batch: &Batch) -> Option<BoxFuture<'static, Result<()>>> {
        self.writer.try_lock().ok()?.begin_append(batch)
    }

    /// Whether it is on the disk of `handle`.
    pub fn is_on(&self, handle: &Arc<DiskHandle>) -> bool {
        Arc::ptr_eq(&self.handle, handle)
    }

    async fn work(
        &self,
        job: impl FnOnce(&mut LogWriter) -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let writer = self.writer.clone();
        // A panic inside leaves at worst a file without its latest batch, and that disk out of the log.
        let job = move || job(&mut writer.lock().unwrap_or_else(PoisonError::into_inner));
        self.handle.queue.run(job).await
    }
}

/// Forgets the log on a disk; what is under way there does not matter any more.
pub fn forget(member: LogDisk) {
    if !member.handle.queue.is_inline() {
        drop_apart(member);
    }
}

impl SegmentLog {
    /// The log on `members`.
    pub const fn new(members: Vec<LogDisk>) -> Self {
        Self { members }
    }

    /// The disks of the log.
    pub fn disks(&self) -> Vec<DiskId> {
        self.members.iter().map(LogDisk::id).collect()
    }

    /// Adds a disk whose log is complete.
    pub fn add(&mut self, member: LogDisk) {
        self.members.push(member);
    }

    /// The log on one disk.
    pub fn get(&self, disk: DiskId) -> Option<&LogDisk> {
        self.members.iter().find(|member| member.id() == disk)
    }

    /// Takes a disk out: nothing more is written there.
    pub fn remove(&mut self, disk: DiskId) -> Option<LogDisk> {
        let at = self.members.iter().position(|member| member.id() == disk)?;
        Some(self.members.remove(at))
    }

    /// Appends a batch on all disks at once. Answers with the disks on which it is not durable: those that failed, and
    /// those that were silent while another one has it. While all are silent they are waited for: nothing would be
    /// gained without them.
    pub async fn append(&self, batch: Arc<Batch>) -> Vec<(DiskId, Error)> {
        let append = |member: &LogDisk| {
            let (member, batch) = (member.clone(), batch.clone());
            async move { (member.id(), member.append(batch).await) }
        };
        let mut appends: FuturesUnordered<_> = self.members.iter().map(append).collect();
        let mut silence = std::pin::pin!(tokio::time::sleep(SILENT));
        let mut answers = Vec::new();
        loop {
            let has_one = answers.iter().any(|(_disk, answer): &(_, Result<()>)| answer.is_ok());
            tokio::select! {
                biased;
                answer = appends.next() => match answer {
                    Some(answer) => answers.push(answer),
                    None => break,
                },
                () = &mut silence, if has_one => break,
            }
        }
        let answered = |disk: DiskId| answers.iter().any(|(other, _answer)| *other == disk);
        let silent = self.disks().into_iter().filter(|disk| !answered(*disk));
        let silent: Vec<_> = silent.map(|disk| (disk, Err(self::silent("a batch")))).collect();
        answers.extend(silent);
        failures(answers)
    }

    /// Frees what is before `position` on all disks. Answers with the disks where that failed.
    pub async fn trim(&self, position: LogPosition) -> Vec<(DiskId, Error)> {
        let trim = |member: &LogDisk| {
            let member = member.clone();
            async move {
                let work = member.work(move |writer| writer.trim(position));
                let answer = tokio::time::timeout(SILENT, work).await;
                (member.id(), answer.unwrap_or_else(|_elapsed| Err(silent("a trim"))))
            }
        };
        failures(join_all(self.members.iter().map(trim)).await)
    }
}

/// Makes a directory in the root of a disk, durably; it may be there.
pub fn make_dir(disk: &dyn Disk, dir: &str) -> Result<()> {
    match disk.create_dir(dir) {
        Ok(()) => {}
        Err(error) if error.is(Posix::Exists) => {}
        Err(error) => return Err(error),
    }
    disk.sync_dir("")
}

/// Removes the log files whose base `drop_base` names, durably.
pub fn remove_chains(disk: &dyn Disk, drop_base: impl Fn(Epoch) -> bool) -> Result<()> {
    let mut removed = false;
    for (name, base, _first) in list_files(disk)? {
        if drop_base(base) {
            ignore_absent(disk.remove(&format!("{LOG_DIR}/{name}")))?;
            removed = true;
        }
    }
    if removed { disk.sync_dir(LOG_DIR) } else { Ok(()) }
}

/// Log files of a disk: name, base, first position; in the order of the last two.
fn list_files(disk: &dyn Disk) -> Result<Vec<(String, Epoch, LogPosition)>> {
    let entries = match disk.list(LOG_DIR) {
        Ok(entries) => entries,
        Err(error) if error.is(Posix::NotFound) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let parse = |name: String| {
        let (base, first) = name.strip_suffix(".log")?.split_once('-')?;
        let number = |text: &str| (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok());
        let (base, first) = (number(base)??, number(first)??);
        Some((name, Epoch(base), LogPosition(first)))
    };
    // Names sort as their numbers do.
    Ok(entries.into_iter().filter_map(|entry| parse(entry.name)).collect())
}

fn silent(what: &str) -> Error {
    Error::unavailable(format!("no answer to {what} for {SILENT:?}"))
}

fn failures(answers: Vec<(DiskId, Result<()>)>) -> Vec<(DiskId, Error)> {
    answers.into_iter().filter_map(|(disk, answer)| Some((disk, answer.err()?))).collect()
}

fn ignore_absent(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::Posix(Posix::NotFound) => Ok(()),
        other => other,
    }
}
