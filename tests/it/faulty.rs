//! A simulated disk as a real directory: a FUSE file system over the `Disk` of the simulation, so that the real program in
//! its own process can be shown a medium that loses what was not synced, tears writes, answers EIO, fills up, or is slow.
//! Nothing is kept by the kernel: every call arrives.

use crate::real::wait;
use crate::sim::disk::SimMachine;
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use ironfs::disk::{Disk, DiskFile, OpenMode};
use ironfs::error::{Error, ErrorKind, Posix, Result};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

const BLOCK_BYTES: u32 = 4096;
/// Nothing is believed for any time.
const TTL: Duration = Duration::ZERO;
const ROOT: u64 = 1;
const MAX_WRITE: u32 = 1 << 20;

/// The disks of a machine, each mounted on a directory until this is dropped.
pub(crate) struct Medium {
    disks: Vec<Arc<Faulty>>,
    sessions: Vec<(PathBuf, BackgroundSession)>,
}

impl Medium {
    pub(crate) fn mount(machine: &SimMachine, directories: &[impl AsRef<Path>]) -> Self {
        let (mut disks, mut sessions) = (Vec::new(), Vec::new());
        for (disk, directory) in machine.disks().into_iter().zip(directories) {
            let faulty = Arc::new(Faulty {
                delay_us: AtomicU64::new(0),
                table: Mutex::new(Table::new(disk)),
            });
            let mut config = Config::default();
            config.n_threads = Some(2);
            let view = View(Arc::clone(&faulty));
            let session = fuser::spawn_mount(view, directory, &config).unwrap();
            sessions.push((directory.as_ref().to_path_buf(), session));
            disks.push(faulty);
        }
        Self { disks, sessions }
    }

    /// The power was off: what is there now is what `machine` has. Nobody may use the directories meanwhile.
    pub(crate) fn replace(&self, machine: &SimMachine) {
        for (faulty, disk) in self.disks.iter().zip(machine.disks()) {
            faulty.table().disk = disk;
        }
    }

    /// Each call of a disk takes so much longer.
    pub(crate) fn delay(&self, disk: usize, delay: Duration) {
        let micros = u64::try_from(delay.as_micros()).unwrap();
        self.disks[disk].delay_us.store(micros, Ordering::Relaxed);
    }

    /// Ends it. Whoever used the directories may be about to end, and children of other tests may hold copies of
    /// descriptors for a moment.
    pub(crate) fn unmount(self) {
        for (directory, session) in self.sessions {
            wait("the medium is unmounted", || {
                let flags = rustix::mount::UnmountFlags::empty();
                rustix::mount::unmount(&directory, flags).is_ok()
            });
            session.join().unwrap();
        }
    }
}

struct Faulty {
    delay_us: AtomicU64,
    table: Mutex<Table>,
}

impl Faulty {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    fn wait(&self) {
        let delay = self.delay_us.load(Ordering::Relaxed);
        if delay > 0 {
            std::thread::sleep(Duration::from_micros(delay));
        }
    }
}

/// Numbers of names and of open files.
struct Table {
    disk: Arc<dyn Disk>,
    paths: BTreeMap<u64, String>,
    numbers: BTreeMap<String, u64>,
    files: BTreeMap<u64, Arc<dyn DiskFile>>,
    next: u64,
}

impl Table {
    fn new(disk: Arc<dyn Disk>) -> Self {
        let (paths, numbers) = (BTreeMap::from([(ROOT, String::new())]), BTreeMap::new());
        Self { disk, paths, numbers, files: BTreeMap::new(), next: ROOT + 1 }
    }

    fn path(&self, ino: INodeNo) -> Result<String> {
        self.paths.get(&ino.0).cloned().ok_or_else(|| Posix::Stale.into())
    }

    fn below(&self, parent: INodeNo, name: &OsStr) -> Result<String> {
        let (parent, name) = (self.path(parent)?, name.to_str().ok_or(Posix::Invalid)?);
        Ok(if parent.is_empty() { name.to_owned() } else { format!("{parent}/{name}") })
    }

    fn number(&mut self, path: &str) -> u64 {
        if let Some(number) = self.numbers.get(path) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        self.numbers.insert(path.to_owned(), number);
        self.paths.insert(number, path.to_owned());
        number
    }

    fn forget(&mut self, path: &str) {
        if let Some(number) = self.numbers.remove(path) {
            self.paths.remove(&number);
        }
    }

    fn renamed(&mut self, from: &str, to: &str) {
        self.forget(to);
        if let Some(number) = self.numbers.remove(from) {
            self.numbers.insert(to.to_owned(), number);
            self.paths.insert(number, to.to_owned());
        }
    }

    fn keep(&mut self, file: Arc<dyn DiskFile>) -> FileHandle {
        let number = self.next;
        self.next += 1;
        self.files.insert(number, file);
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<dyn DiskFile>> {
        self.files.get(&handle.0).cloned().ok_or_else(|| Posix::BadHandle.into())
    }

    fn attributes(&mut self, path: &str) -> Result<FileAttr> {
        if path.is_empty() {
            return Ok(attributes(ROOT, FileType::Directory, 0));
        }
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let entries = self.disk.list(parent)?;
        let entry = entries.iter().find(|entry| entry.name == name).ok_or(Posix::NotFound)?;
        let (kind, size) = if entry.is_dir {
            (FileType::Directory, 0)
        } else {
            (FileType::RegularFile, self.disk.open(path, OpenMode::Read)?.len()?)
        };
        Ok(attributes(self.number(path), kind, size))
    }
}

fn attributes(ino: u64, kind: FileType, size: u64) -> FileAttr {
    let time = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm: if kind == FileType::Directory { 0o700 } else { 0o600 },
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

fn errno(error: &Error) -> Errno {
    match error.kind() {
        ErrorKind::Posix(Posix::NotFound) => Errno::ENOENT,
        ErrorKind::Posix(Posix::Exists) => Errno::EEXIST,
        ErrorKind::Posix(Posix::NoSpace) => Errno::ENOSPC,
        ErrorKind::Posix(Posix::NotEmpty) => Errno::ENOTEMPTY,
        ErrorKind::Posix(Posix::Stale) => Errno::ESTALE,
        ErrorKind::Posix(_)
        | ErrorKind::Unavailable
        | ErrorKind::Corrupt
        | ErrorKind::Fenced
        | ErrorKind::Superseded
        | ErrorKind::Refused
        | ErrorKind::Internal => Errno::EIO,
    }
}

/// What the kernel asks.
struct View(Arc<Faulty>);

/// Answers with what `$work` gives, or its error.
macro_rules! answer {
    ($reply:expr, $work:expr, $good:expr) => {
        match $work {
            Ok(value) => $good($reply, value),
            Err(error) => $reply.error(errno(&error)),
        }
    };
}

impl View {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.wait();
        self.0.table()
    }

    fn open_file(&self, path: &str) -> Result<FileHandle> {
        let mut table = self.table();
        let file = table.disk.open(path, OpenMode::Write)?;
        Ok(table.keep(file))
    }

    fn read_file(&self, handle: FileHandle, offset: u64, size: u32) -> Result<Vec<u8>> {
        let file = self.table().file(handle)?;
        let left = file.len()?.saturating_sub(offset);
        let mut buffer = vec![0; usize::try_from(left.min(u64::from(size))).unwrap()];
        file.read(offset, &mut buffer)?;
        Ok(buffer)
    }
}

impl Filesystem for View {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        config
            .set_max_write(MAX_WRITE)
            .map_err(|_most| std::io::ErrorKind::InvalidInput.into())
            .map(|_before| ())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut table = self.table();
        let found = table.below(parent, name).and_then(|path| table.attributes(&path));
        answer!(reply, found, |reply: ReplyEntry, found| reply.entry(&TTL, &found, Generation(0)));
    }

    fn getattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        handle: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let mut table = self.table();
        let found = match handle.map(|handle| table.file(handle)) {
            // Also of a file that has no name any more.
            Some(Ok(file)) => file.len().map(|size| attributes(ino.0, FileType::RegularFile, size)),
            _ => table.path(ino).and_then(|path| table.attributes(&path)),
        };
        answer!(reply, found, |reply: ReplyAttr, found| reply.attr(&TTL, &found));
    }

    fn setattr(
        &self,
        _request: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut table = self.table();
        let change = |table: &mut Table| {
            let file = match handle {
                Some(handle) => table.file(handle)?,
                None => table.disk.open(&table.path(ino)?, OpenMode::Write)?,
            };
            if let Some(size) = size {
                file.set_len(size)?;
            }
            Ok(attributes(ino.0, FileType::RegularFile, file.len()?))
        };
        let found: Result<FileAttr> = change(&mut table);
        answer!(reply, found, |reply: ReplyAttr, found| reply.attr(&TTL, &found));
    }

    fn mkdir(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let mut table = self.table();
        let made = table.below(parent, name).and_then(|path| {
            table.disk.create_dir(&path)?;
            table.attributes(&path)
        });
        answer!(reply, made, |reply: ReplyEntry, made| reply.entry(&TTL, &made, Generation(0)));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut table = self.table();
        let removed = table.below(parent, name).and_then(|path| {
            table.disk.remove(&path)?;
            table.forget(&path);
            Ok(())
        });
        answer!(reply, removed, |reply: ReplyEmpty, ()| reply.ok());
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut table = self.table();
        let mut rename = || {
            let (from, to) = (table.below(parent, name)?, table.below(new_parent, new_name)?);
            table.disk.rename(&from, &to)?;
            table.renamed(&from, &to);
            Ok(())
        };
        let renamed: Result<()> = rename();
        answer!(reply, renamed, |reply: ReplyEmpty, ()| reply.ok());
    }

    fn open(&self, _request: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let path = self.0.table().path(ino);
        let opened = path.and_then(|path| self.open_file(&path));
        answer!(reply, opened, |reply: ReplyOpen, handle| {
            reply.opened(handle, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let mut table = self.table();
        let made = table.below(parent, name).and_then(|path| {
            let file = table.disk.open(&path, OpenMode::CreateNew)?;
            Ok((table.attributes(&path)?, table.keep(file)))
        });
        answer!(reply, made, |reply: ReplyCreate, (made, handle)| {
            reply.created(&TTL, &made, Generation(0), handle, FopenFlags::FOPEN_DIRECT_IO);
        });
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let read = self.read_file(handle, offset, size);
        answer!(reply, read, |reply: ReplyData, bytes: Vec<u8>| reply.data(&bytes));
    }

    fn write(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let file = self.table().file(handle);
        let written = file.and_then(|file| file.write(offset, data));
        let count = u32::try_from(data.len()).unwrap();
        answer!(reply, written, |reply: ReplyWrite, ()| reply.written(count));
    }

    fn release(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let closed = self.0.table().files.remove(&handle.0);
        // Outside the lock: closing takes that of the machine.
        drop(closed);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        _ino: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let file = self.table().file(handle);
        answer!(reply, file.and_then(|file| file.sync_data()), |reply: ReplyEmpty, ()| reply.ok());
    }

    fn readdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut table = self.table();
        let listed = table.path(ino).and_then(|path| Ok((table.disk.list(&path)?, path)));
        let (entries, path) = match listed {
            Ok(listed) => listed,
            Err(error) => return reply.error(errno(&error)),
        };
        for (at, entry) in (1..).zip(&entries).skip(usize::try_from(offset).unwrap()) {
            let kind = if entry.is_dir { FileType::Directory } else { FileType::RegularFile };
            let below =
                if path.is_empty() { entry.name.clone() } else { format!("{path}/{}", entry.name) };
            if reply.add(INodeNo(table.number(&below)), at, kind, &entry.name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        ino: INodeNo,
        _handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let table = self.table();
        let synced = table.path(ino).and_then(|path| table.disk.sync_dir(&path));
        answer!(reply, synced, |reply: ReplyEmpty, ()| reply.ok());
    }

    fn statfs(&self, _request: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let space = self.table().disk.space();
        answer!(reply, space, |reply: ReplyStatfs, space: ironfs::disk::Space| {
            let blocks = |bytes: u64| bytes / u64::from(BLOCK_BYTES);
            let (total, free) = (blocks(space.total_bytes), blocks(space.free_bytes));
            reply.statfs(total, free, free, 0, 0, BLOCK_BYTES, 255, BLOCK_BYTES);
        });
    }
}
