//! `Disk` over a real directory. Everything is opened relative to the root that was opened at the start, so a path
//! that later leads elsewhere cannot divert a write; the root is never created. The only module that opens files of
//! a disk by system calls; it knows nothing of what they hold.

use crate::disk::{Disk, DiskEntry, DiskFile, DiskIdentity, LOCK_FILE, OpenMode, Space};
use crate::error::{Error, ErrorKind, Posix, Result};
use crate::sync::{Arc, Mutex, PoisonError};
use rustix::fs::{
    AtFlags, Dir, FallocateFlags, FileType, FlockOperation, Mode, OFlags, Stat, fallocate,
    fdatasync, flock, fstat, fstatfs, fstatvfs, fsync, ftruncate, mkdirat, openat, renameat, stat,
    statat, unlinkat,
};
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2, pwrite, retry_on_intr};
use std::io::IoSliceMut;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// Longest text of a lock holder that is read for a message.
const HOLDER_BYTES_MAX: usize = 256;

/// A directory of this machine.
#[derive(Debug)]
pub struct LocalDisk {
    root: OwnedFd,
    path: PathBuf,
    label: Arc<str>,
    identity: DiskIdentity,
    /// The files are in memory, so reading them waits for no device.
    in_memory: bool,
    /// Held open while this disk is locked.
    lock: Mutex<Option<OwnedFd>>,
}

#[derive(Debug)]
struct LocalFile {
    file: OwnedFd,
    name: String,
    label: Arc<str>,
    in_memory: bool,
}

/// `f_type` of file systems in memory (statfs(2)). They know no `RWF_NOWAIT`.
const IN_MEMORY: [u32; 2] = [0x0102_1994, 0x8584_58f6];

impl LocalDisk {
    /// Opens the directory at `path`, which must exist.
    ///
    /// Errors: `NotFound` if there is nothing, `Refused` if it is not a directory.
    pub fn open(path: &Path) -> Result<Self> {
        let label: Arc<str> = path.display().to_string().into();
        let context = || format!("open disk {label}");
        let path = std::path::absolute(path).map_err(|error| Error::from_io(context(), error))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(root) => root,
            Err(Errno::NOTDIR) => {
                return Err(Error::refused(format!("{}: it is not a directory", context())));
            }
            Err(errno) => return Err(failed(context(), errno)),
        };
        let found = fstat(&root).map_err(|errno| failed(context(), errno))?;
        let identity = identity_of(&found);
        let kind = fstatfs(&root).map_err(|errno| failed(context(), errno))?.f_type;
        let in_memory = u32::try_from(kind).is_ok_and(|kind| IN_MEMORY.contains(&kind));
        Ok(Self { root, path, label, identity, in_memory, lock: Mutex::new(None) })
    }

    fn context(&self, action: &str, name: &str) -> String {
        format!("{action} {}: disk {}", if name.is_empty() { "." } else { name }, self.label)
    }

    /// Names come from our own stores: a bad one is our mistake, and must never reach outside the root.
    fn check(&self, name: &str) -> Result<()> {
        let bad =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.contains('\0');
        if name.split('/').any(bad) {
            return Err(Error::internal(format!("bad file name {name:?}: disk {}", self.label)));
        }
        Ok(())
    }

    fn open_dir(&self, name: &str, action: &str) -> Result<OwnedFd> {
        if !name.is_empty() {
            self.check(name)?;
        }
        let path = if name.is_empty() { "." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        retry_on_intr(|| openat(&self.root, path, flags, Mode::empty()))
            .map_err(|errno| failed(self.context(action, name), errno))
    }

    fn is_dir(&self, dir: &OwnedFd, entry: &rustix::fs::DirEntry) -> Result<bool, Errno> {
        match entry.file_type() {
            // Some file systems do not tell the type with the name.
            FileType::Unknown => {
                let found = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(FileType::from_raw_mode(found.st_mode) == FileType::Directory)
            }
            known => Ok(known == FileType::Directory),
        }
    }
}

impl Disk for LocalDisk {
    fn open(&self, name: &str, mode: OpenMode) -> Result<Arc<dyn DiskFile>> {
        self.check(name)?;
        let (access, action) = match mode {
            OpenMode::Read => (OFlags::RDONLY, "open"),
            OpenMode::Write => (OFlags::RDWR, "open for writing"),
            OpenMode::CreateNew => (OFlags::RDWR | OFlags::CREATE | OFlags::EXCL, "create"),
        };
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = retry_on_intr(|| openat(&self.root, name, flags, Mode::RUSR | Mode::WUSR))
            .map_err(|errno| failed(self.context(action, name), errno))?;
        let (name, label) = (name.to_owned(), self.label.clone());
        Ok(Arc::new(LocalFile { file, name, label, in_memory: self.in_memory }))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.check(name)?;
        unlinkat(&self.root, name, AtFlags::empty())
            .map_err(|errno| failed(self.context("remove", name), errno))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.check(from)?;
        self.check(to)?;
        renameat(&self.root, from, &self.root, to)
            .map_err(|errno| failed(self.context(&format!("rename {from} to"), to), errno))
    }

    fn create_dir(&self, name: &str) -> Result<()> {
        self.check(name)?;
        mkdirat(&self.root, name, Mode::RWXU)
            .map_err(|errno| failed(self.context("create directory", name), errno))
    }

    fn list(&self, dir: &str) -> Result<Vec<DiskEntry>> {
        let fd = self.open_dir(dir, "list")?;
        let context = |errno| failed(self.context("list", dir), errno);
        let mut entries = Vec::new();
        for entry in Dir::read_from(&fd).map_err(context)? {
            let entry = entry.map_err(context)?;
            // A name that is not UTF-8 is none of ours; it is shown with a replacement character.
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "." || name == ".." {
                continue;
            }
            match self.is_dir(&fd, &entry) {
                Ok(is_dir) => entries.push(DiskEntry { name, is_dir }),
                Err(Errno::NOENT) => {} // removed since
                Err(errno) => return Err(context(errno)),
            }
        }
        entries.sort();
        Ok(entries)
    }

    fn sync_dir(&self, dir: &str) -> Result<()> {
        let fd = self.open_dir(dir, "sync directory")?;
        fsync(&fd).map_err(|errno| failed(self.context("sync directory", dir), errno))
    }

    fn space(&self) -> Result<Space> {
        let context = |errno| failed(self.context("measure space of", ""), errno);
        let found = retry_on_intr(|| fstatvfs(&self.root)).map_err(context)?;
        Ok(Space {
            total_bytes: found.f_blocks.saturating_mul(found.f_frsize),
            free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
            device: self.identity.device,
        })
    }

    fn identity(&self) -> Result<DiskIdentity> {
        let context = || format!("disk {} is gone from its path", self.label);
        // Whatever the reason, NotFound included: the disk is not where it should be.
        let found = retry_on_intr(|| stat(&self.path))
            .map_err(|errno| Error::with_source(ErrorKind::Unavailable, context(), errno))?;
        let identity = identity_of(&found);
        if identity != self.identity {
            return Err(Error::unavailable(format!(
                "{}: expected inode {} of device {}, found inode {} of device {}",
                context(),
                self.identity.inode,
                self.identity.device,
                identity.inode,
                identity.device
            )));
        }
        Ok(identity)
    }

    fn lock(&self, holder: &str) -> Result<()> {
        let context = |errno| failed(self.context("lock", LOCK_FILE), errno);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            openat(&self.root, LOCK_FILE, flags, Mode::RUSR | Mode::WUSR).map_err(context)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut text = [0; HOLDER_BYTES_MAX];
                let length = pread(&file, &mut text, 0).map_err(context)?;
                let holder = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
                let holder = if holder.is_empty() { "another process".into() } else { holder };
                return Err(Error::refused(format!("disk {} is in use by {holder}", self.label)));
            }
            Err(errno) => return Err(context(errno)),
        }
        let text = holder.as_bytes();
        let text = text.get(..HOLDER_BYTES_MAX).unwrap_or(text);
        let written = ftruncate(&file, 0).and_then(|()| pwrite(&file, text, 0));
        if let Err(errno) = written {
            // The lock itself holds; only the message for others is missing, as on a full device.
            tracing::warn!(path = %self.label, %errno, "cannot note the holder of the lock");
        }
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
        Ok(())
    }

    fn label(&self) -> String {
        self.label.to_string()
    }
}

impl LocalFile {
    fn context(&self, action: &str) -> String {
        format!("{action} {}: disk {}", self.name, self.label)
    }

    fn size(&self) -> Result<u64> {
        let found = fstat(&self.file).map_err(|errno| failed(self.context("stat"), errno))?;
        u64::try_from(found.st_size)
            .map_err(|_e| Error::corrupt(format!("{}: negative size", self.context("stat"))))
    }
}

impl DiskFile for LocalFile {
    fn len(&self) -> Result<u64> {
        self.size()
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let wanted = buffer.len();
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let position = offset + done as u64;
            match pread(&self.file, rest, position) {
                Ok(0) => {
                    return Err(Error::corrupt(format!(
                        "{}: the file ends at {position}, expected {wanted} bytes at {offset}",
                        self.context("read")
                    )));
                }
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(self.context("read"), errno)),
            }
        }
        Ok(())
    }

    fn read_now(&self, offset: u64, buffer: &mut [u8]) -> bool {
        let wanted = buffer.len();
        let read = if self.in_memory {
            pread(&self.file, buffer, offset)
        } else {
            preadv2(&self.file, &mut [IoSliceMut::new(buffer)], offset, ReadWriteFlags::NOWAIT)
        };
        // EAGAIN, a part, or a file system that does not know the flag: whoever may wait reads it.
        read == Ok(wanted)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<()> {
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            match pwrite(&self.file, rest, offset + done as u64) {
                Ok(0) => return Err(failed(self.context("write"), Errno::IO)),
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) => return Err(failed(self.context("write"), errno)),
            }
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<()> {
        let context = |errno| failed(self.context("set the length of"), errno);
        let before = self.size()?;
        if length > before {
            let grow = || fallocate(&self.file, FallocateFlags::empty(), before, length - before);
            match retry_on_intr(grow) {
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(errno) => {
                    // A device that runs full half way may have grown the file: cut it back.
                    ftruncate(&self.file, before).map_err(context)?;
                    return Err(context(errno));
                }
            }
        }
        retry_on_intr(|| ftruncate(&self.file, length)).map_err(context)
    }

    fn sync_data(&self) -> Result<()> {
        // Not repeated on EINTR: after any error the kernel may have dropped the pages.
        fdatasync(&self.file).map_err(|errno| failed(self.context("sync"), errno))
    }
}

const fn identity_of(found: &Stat) -> DiskIdentity {
    DiskIdentity { device: found.st_dev, inode: found.st_ino }
}

fn failed(context: String, errno: Errno) -> Error {
    match errno {
        Errno::EXIST => Error::with_source(ErrorKind::Posix(Posix::Exists), context, errno),
        // The process ran out of something: no fault of the disk, which stays in use.
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => {
            Error::with_source(ErrorKind::Internal, context, errno)
        }
        _ => Error::from_io(context, errno.into()),
    }
}
