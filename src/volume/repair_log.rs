//! The repair log: one JSON line for each attempt to restore a stripe, in `repair_log/` of one disk, a file for each day
//! (UTC), the last fourteen. It is for people: nothing depends on it, and a line may be lost with a crash.

use super::status::{RepairHistory, RepairLine};
use crate::disk::set::{DiskHandle, DiskSet};
use crate::disk::superblock::{MemberList, MemberState};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Error, Posix, Result};
use crate::metrics::{RepairMetrics, RepairResult};
use crate::types::{DiskId, Timestamp};
use crate::worker::repair::{Attempt, Journal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc::{Receiver, Sender, channel};

#[cfg(test)]
mod tests;

/// Directory on a disk.
const DIRECTORY: &str = "repair_log";
const SUFFIX: &str = ".jsonl";
/// Files that are kept on a disk.
const FILES_MAX: usize = 14;
/// Attempts that wait to be written.
const WAITING_MAX: usize = 4096;
/// Lines that are written at once.
const LINES_MAX: usize = 256;
/// Most bytes of one file that are read for the history.
const READ_BYTES_MAX: u64 = 16 << 20;

/// Takes attempts, counts them, and hands them to the task that writes.
#[derive(Debug)]
pub(super) struct RepairLog {
    lines: Sender<RepairLine>,
    metrics: Arc<RepairMetrics>,
    lost: AtomicU64,
}

impl RepairLog {
    /// The log, and what its task has to write.
    pub(super) fn new(metrics: Arc<RepairMetrics>) -> (Self, Receiver<RepairLine>) {
        let (lines, waiting) = channel(WAITING_MAX);
        (Self { lines, metrics, lost: AtomicU64::new(0) }, waiting)
    }
}

impl Journal for RepairLog {
    fn record(&self, attempt: Attempt) {
        self.metrics.note(result(&attempt), attempt.error_kind, attempt.bytes);
        if self.lines.try_send(line(attempt)).is_err() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(lost, "the repair log is slower than repair");
        }
    }
}

fn result(attempt: &Attempt) -> RepairResult {
    match (&attempt.error, attempt.placed.is_empty()) {
        (None, _) => RepairResult::Done,
        (Some(_), false) => RepairResult::Partial,
        (Some(_), true) if attempt.retry.is_some() => RepairResult::Skipped,
        (Some(_), true) => RepairResult::Failed,
    }
}

fn line(attempt: Attempt) -> RepairLine {
    let result = result(&attempt).name();
    RepairLine {
        time: text(attempt.time),
        stripe: attempt.stripe.to_string(),
        class: attempt.class.to_string(),
        missing_shards: attempt.lost.iter().map(|shard| shard.0).collect(),
        action: "rebuild".into(),
        bytes: attempt.bytes,
        source_disks: attempt.sources.iter().map(|disk| disk.0).collect(),
        target_disks: attempt.placed.iter().map(|(_shard, disk)| disk.0).collect(),
        milliseconds: u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX),
        result: result.into(),
        error: attempt.error,
        next_retry: attempt.retry.map(text),
    }
}

/// RFC 3339, in UTC.
pub(super) fn text(time: Timestamp) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(time.seconds, nanoseconds).unwrap_or_default().to_string()
}

/// The file that is being written.
struct Open {
    disk: DiskId,
    name: String,
    file: Arc<dyn DiskFile>,
    length: u64,
}

/// Writes lines until the log is dropped. Trouble with a disk moves it to another.
pub(super) async fn write_lines(disks: Arc<DiskSet>, mut waiting: Receiver<RepairLine>) {
    let mut open: Option<Open> = None;
    let mut batch = Vec::new();
    while waiting.recv_many(&mut batch, LINES_MAX).await > 0 {
        for day in batch.chunk_by(|a, b| day_of(a) == day_of(b)) {
            open = append(&disks, open.take(), day).await;
        }
        batch.clear();
    }
}

fn day_of(line: &RepairLine) -> &str {
    line.time.get(..10).unwrap_or_default()
}

async fn append(disks: &DiskSet, open: Option<Open>, lines: &[RepairLine]) -> Option<Open> {
    let mut text = String::new();
    for line in lines {
        match serde_json::to_string(line) {
            Ok(json) => text.extend([json.as_str(), "\n"]),
            Err(error) => tracing::warn!(%error, "a line of the repair log cannot be told"),
        }
    }
    let name = format!("{DIRECTORY}/{}{SUFFIX}", lines.first().map_or("", day_of));
    let first = disks.healthy().into_iter().next()?;
    let held = open.filter(|open| open.disk == first.id && open.name == name);
    let (disk, id) = (Arc::clone(&first.disk), first.id);
    let write = move || {
        let mut open = match held {
            Some(open) => open,
            None => open_file(&*disk, id, name)?,
        };
        open.file.write(open.length, text.as_bytes())?;
        open.length += text.len() as u64;
        Ok(open)
    };
    match first.queue.run_background(write).await {
        Ok(open) => Some(open),
        Err(error) => {
            disks.report(id, &error);
            tracing::warn!(disk = id.get(), %error, "lines of the repair log are lost");
            None
        }
    }
}

/// The file of a day, made if need be; the oldest go.
fn open_file(disk: &dyn Disk, id: DiskId, name: String) -> Result<Open> {
    match disk.create_dir(DIRECTORY) {
        Err(error) if !error.is(Posix::Exists) => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let file = match disk.open(&name, OpenMode::Write) {
        Err(error) if error.is(Posix::NotFound) => disk.open(&name, OpenMode::CreateNew)?,
        other => other?,
    };
    let files = files(disk)?;
    for old in files.iter().rev().skip(FILES_MAX) {
        disk.remove(&format!("{DIRECTORY}/{old}"))?;
    }
    let length = file.len()?;
    Ok(Open { disk: id, name, file, length })
}

/// Names of the files of a disk, the oldest first.
fn files(disk: &dyn Disk) -> Result<Vec<String>> {
    match disk.list(DIRECTORY) {
        Ok(entries) => {
            let names = entries.into_iter().map(|entry| entry.name);
            Ok(names.filter(|name| name.ends_with(SUFFIX)).collect())
        }
        Err(error) if error.is(Posix::NotFound) => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The last `limit` attempts that the disks of the volume tell, the latest first, and which disks do not tell.
pub(super) async fn history(disks: &DiskSet, members: &MemberList, limit: usize) -> RepairHistory {
    let mut history = RepairHistory::default();
    for member in members.disks.iter().filter(|member| member.state != MemberState::Removed) {
        let lines = match disks.get(member.disk) {
            Some(handle) => of_disk(disks, &handle, limit).await,
            None => None,
        };
        match lines {
            Some(lines) => history.lines.extend(lines),
            None => history.unread.push(member.path.clone()),
        }
    }
    history.lines.sort_by(|a, b| b.time.cmp(&a.time));
    history.lines.truncate(limit);
    history
}

/// `None` if it cannot be read.
async fn of_disk(disks: &DiskSet, handle: &DiskHandle, limit: usize) -> Option<Vec<RepairLine>> {
    let disk = Arc::clone(&handle.disk);
    let read = move || {
        let mut lines = Vec::new();
        for name in files(&*disk)?.iter().rev() {
            if lines.len() >= limit {
                break;
            }
            lines.extend(last_lines(&*disk, name, limit - lines.len())?);
        }
        Ok(lines)
    };
    let read = handle.queue.run_background(read).await;
    if let Err(error) = &read {
        disks.report(handle.id, error);
        tracing::debug!(disk = handle.id.get(), %error, "the repair log of a disk cannot be read");
    }
    read.ok()
}

/// The last lines of a file, the latest first. What a crash left of a line is passed over.
fn last_lines(disk: &dyn Disk, name: &str, limit: usize) -> Result<Vec<RepairLine>> {
    let file = disk.open(&format!("{DIRECTORY}/{name}"), OpenMode::Read)?;
    let length = file.len()?;
    let start = length.saturating_sub(READ_BYTES_MAX);
    let size = usize::try_from(length - start).map_err(|_long| Error::internal("a long log"))?;
    let mut bytes = vec![0; size];
    file.read(start, &mut bytes)?;
    let lines = bytes.rsplit(|byte| *byte == b'\n');
    Ok(lines.filter_map(|line| serde_json::from_slice(line).ok()).take(limit).collect())
}
