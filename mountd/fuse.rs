//! The FUSE edge: decode a request, call `fs`, turn the answer into a reply. The only module that knows fuser.
//!
//! Each request's future is polled once on the loop thread: what is in memory is answered there and then, and so is a
//! change of metadata that no other is in the way of. What has to wait moves to a task with its reply, so no loop thread
//! waits for a lock, a sync or a stripe.

use crate::error::Result;
use crate::fs::attr::{SetAttr, SetTime};
use crate::fs::file::{Opened, WriteHow};
use crate::fs::namespace::NewFile;
use crate::fs::{Attributes, Caller, Fs};
use crate::metrics::{Operation, RequestMetrics};
use crate::types::{HandleId, Ino};
use convert::{file_attr, ino};
use fuser::{
    CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use notify::Notifications;
use reply::{TTL, attr_reply, empty_reply, entry_reply, generation, xattr_reply};
use serve::answer_of;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

mod convert;
mod credentials;
mod handshake;
mod notify;
mod reply;
mod serve;

/// The file system as the FUSE crate wants to see it.
#[derive(Debug)]
pub struct FuseFs {
    fs: Arc<Fs>,
    runtime: Handle,
    tasks: TaskTracker,
    notifications: Arc<Notifications>,
    metrics: Arc<RequestMetrics>,
}

impl FuseFs {
    /// Serves `fs`; requests that wait run as tasks of `runtime`, counted by `tasks`. All are timed by `metrics`.
    pub fn new(
        fs: Arc<Fs>,
        runtime: Handle,
        tasks: TaskTracker,
        metrics: Arc<RequestMetrics>,
    ) -> Self {
        Self { fs, runtime, tasks, notifications: Arc::new(Notifications::new()), metrics }
    }

    /// Starts sending invalidations through the session's notifier once it exists: call the result.
    pub fn notifications(&self) -> impl FnOnce(fuser::Notifier) -> std::io::Result<()> + use<> {
        let notifications = Arc::clone(&self.notifications);
        let (fs, hooked) = (Arc::clone(&self.fs), Arc::clone(&self.notifications));
        move |notifier| {
            fs.on_stale(Box::new(move |ino| hooked.outdate(INodeNo(ino.0))));
            notifications.start(notifier)
        }
    }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), ..Caller::default() }
}

/// The caller with groups and capabilities, for operations where the kernel leaves the rule to us.
fn full_caller(request: &Request) -> Caller {
    credentials::of_process(request.pid(), caller(request))
}

fn name(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}

const fn handle(handle: FileHandle) -> HandleId {
    HandleId(handle.0)
}

fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(convert::timestamp(time)),
    }
}

fn open_flags(opened: &Opened, directory: bool) -> FopenFlags {
    let mut flags = FopenFlags::empty();
    flags.set(FopenFlags::FOPEN_KEEP_CACHE, opened.keep_cache);
    flags.set(FopenFlags::FOPEN_CACHE_DIR, directory && opened.keep_cache);
    flags.set(FopenFlags::FOPEN_DIRECT_IO, opened.direct_io);
    flags
}

impl Filesystem for FuseFs {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        handshake::ask(config)
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let timer = self.arrived(Operation::Lookup);
        let (fs, child) = (Arc::clone(&self.fs), name(child));
        let answer = move |answer: Result<Attributes, Errno>| match answer {
            Ok(found) => reply.entry(&TTL, &file_attr(&found), generation(&found)),
            // A negative entry: the kernel remembers that the name is not there.
            Err(errno) if errno == Errno::ENOENT => {
                reply.entry(&TTL, &convert::no_such_entry(), Generation(0));
            }
            Err(errno) => reply.error(errno),
        };
        self.serve(timer, async move { fs.lookup(ino(parent), &child).await }, answer);
    }

    fn forget(&self, _request: &Request, node: INodeNo, count: u64) {
        self.fs.forget(ino(node), count);
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        file: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let timer = self.arrived(Operation::Getattr);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.getattr(ino(node), file.map(handle)).await };
        self.serve(timer, request, attr_reply(reply));
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let timer = self.arrived(Operation::Setattr);
        let set = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(convert::timestamp),
            handle: file.map(handle),
        };
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let request = async move { fs.setattr(&caller, ino(node), set).await };
        self.serve(timer, request, attr_reply(reply));
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let timer = self.arrived(Operation::Readlink);
        let fs = Arc::clone(&self.fs);
        self.serve(
            timer,
            async move { fs.readlink(ino(node)).await },
            move |answer| match answer {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let timer = self.arrived(Operation::Mknod);
        let Some(kind) = convert::kind_of_mode(mode) else { return reply.error(Errno::EINVAL) };
        let new = NewFile { kind, mode: mode & 0o7777, umask, rdev };
        let (fs, caller, child) = (Arc::clone(&self.fs), caller(request), name(child));
        let request = async move { fs.mknod(&caller, ino(parent), &child, new).await };
        self.serve(timer, request, entry_reply(reply));
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let timer = self.arrived(Operation::Mkdir);
        let (fs, caller, child) = (Arc::clone(&self.fs), caller(request), name(child));
        let request =
            async move { fs.mkdir(&caller, ino(parent), &child, mode & 0o7777, umask).await };
        self.serve(timer, request, entry_reply(reply));
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let timer = self.arrived(Operation::Unlink);
        let (fs, child) = (Arc::clone(&self.fs), name(child));
        self.serve(timer, async move { fs.unlink(ino(parent), &child).await }, empty_reply(reply));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let timer = self.arrived(Operation::Rmdir);
        let (fs, child) = (Arc::clone(&self.fs), name(child));
        self.serve(timer, async move { fs.rmdir(ino(parent), &child).await }, empty_reply(reply));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let timer = self.arrived(Operation::Symlink);
        let (fs, caller, child) = (Arc::clone(&self.fs), caller(request), name(child));
        let target = name(target.as_os_str());
        let request = async move { fs.symlink(&caller, ino(parent), &child, &target).await };
        self.serve(timer, request, entry_reply(reply));
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        new_parent: INodeNo,
        new_child: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Rename);
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let (from, to) = ((ino(parent), name(child)), (ino(new_parent), name(new_child)));
        let request =
            async move { fs.rename(&caller, (from.0, &from.1), (to.0, &to.1), flags.bits()).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn link(
        &self,
        _request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_child: &OsStr,
        reply: ReplyEntry,
    ) {
        let timer = self.arrived(Operation::Link);
        let (fs, child) = (Arc::clone(&self.fs), name(new_child));
        let request = async move { fs.link(ino(node), ino(new_parent), &child).await };
        self.serve(timer, request, entry_reply(reply));
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let timer = self.arrived(Operation::Open);
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let request = async move { fs.open(&caller, ino(node), flags.0).await };
        self.serve(timer, request, move |answer| match answer {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), open_flags(&opened, false)),
            Err(errno) => reply.error(errno),
        });
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let timer = self.arrived(Operation::Read);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.read(ino(node), handle(file), offset, size, flags.0).await };
        self.serve(timer, request, move |answer| match answer {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(errno),
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let timer = self.arrived(Operation::Write);
        let how = WriteHow {
            from_cache: write_flags.contains(WriteFlags::FUSE_WRITE_CACHE),
            kill_suid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID),
            flags: flags.0,
        };
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let open = (ino(node), handle(file));
        let answer = move |answer: Result<u32, Errno>| match answer {
            Ok(written) => reply.written(written),
            Err(errno) => reply.error(errno),
        };
        if let Some(written) = fs.write_now(open, offset, data, how) {
            let paced = async move { fs.pace().await.map(|()| written) };
            return self.serve(timer, paced, answer);
        }
        // The payload lies in the loop thread's buffer: a write that has to wait needs its own.
        let data = bytes::Bytes::copy_from_slice(data);
        self.serve(timer, async move { fs.write(&caller, open, offset, &data, how).await }, answer);
    }

    /// "Not implemented": the kernel then never asks again, which saves a request for every close. Nothing is lost by it:
    /// before it would ask it has written back the file and told the errors of that; locks are its own; and a close
    /// after O_TRUNC ends in `release`.
    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Release);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.release(ino(node), handle(file)).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn fsync(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        datasync: bool,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Fsync);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.fsync(ino(node), handle(file), datasync).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn opendir(&self, _request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let timer = self.arrived(Operation::Opendir);
        let fs = Arc::clone(&self.fs);
        self.serve(timer, async move { fs.opendir(ino(node)).await }, move |answer| match answer {
            Ok(opened) => reply.opened(FileHandle(opened.handle.0), open_flags(&opened, true)),
            Err(errno) => reply.error(errno),
        });
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        dir: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let timer = self.arrived(Operation::Readdir);
        let fs = Arc::clone(&self.fs);
        let request = async move {
            let result = fs
                .readdir(ino(node), handle(dir), offset, false, &mut |item| {
                    let kind = convert::file_type(item.kind);
                    reply.add(INodeNo(item.ino.0), item.cookie, kind, OsStr::from_bytes(item.name))
                })
                .await;
            Ok((reply, result))
        };
        self.serve(timer, request, |answer| {
            if let Ok((reply, result)) = answer {
                match result {
                    Ok(()) => reply.ok(),
                    Err(error) => reply.error(answer_of(&error)),
                }
            }
        });
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        dir: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let timer = self.arrived(Operation::Readdirplus);
        let fs = Arc::clone(&self.fs);
        let request = async move {
            let result = fs
                .readdir(ino(node), handle(dir), offset, true, &mut |item| {
                    let attr = item.attributes.map_or_else(
                        || convert::entry_without_node(item.ino, item.kind),
                        |attributes| file_attr(&attributes),
                    );
                    let generation = item.attributes.map_or(Generation(0), |a| generation(&a));
                    let child = OsStr::from_bytes(item.name);
                    reply.add(INodeNo(item.ino.0), item.cookie, child, &TTL, &attr, generation)
                })
                .await;
            Ok((reply, result))
        };
        self.serve(timer, request, |answer| {
            if let Ok((reply, result)) = answer {
                match result {
                    Ok(()) => reply.ok(),
                    Err(error) => reply.error(answer_of(&error)),
                }
            }
        });
    }

    fn releasedir(
        &self,
        _request: &Request,
        node: INodeNo,
        dir: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Releasedir);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.releasedir(ino(node), handle(dir)).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        node: INodeNo,
        dir: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Fsyncdir);
        let fs = Arc::clone(&self.fs);
        let request = async move { fs.fsyncdir(ino(node), handle(dir)).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let timer = self.arrived(Operation::Statfs);
        let fs = Arc::clone(&self.fs);
        self.serve(timer, async move { fs.statfs(ino(node)).await }, move |answer| match answer {
            Ok(stat) => reply.statfs(
                stat.blocks,
                stat.free,
                stat.available,
                stat.files,
                stat.files_free,
                stat.block_bytes,
                stat.name_bytes,
                stat.block_bytes,
            ),
            Err(errno) => reply.error(errno),
        });
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        attribute: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Setxattr);
        let (fs, caller) = (Arc::clone(&self.fs), full_caller(request));
        let (attribute, value) = (name(attribute), value.to_vec());
        let request =
            async move { fs.setxattr(&caller, ino(node), &attribute, &value, flags).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        attribute: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let timer = self.arrived(Operation::Getxattr);
        let (fs, attribute) = (Arc::clone(&self.fs), name(attribute));
        let request = async move { fs.getxattr(ino(node), &attribute).await };
        self.serve(timer, request, xattr_reply(size, reply));
    }

    fn listxattr(&self, request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let timer = self.arrived(Operation::Listxattr);
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let request = async move { fs.listxattr(&caller, ino(node)).await };
        self.serve(timer, request, xattr_reply(size, reply));
    }

    fn removexattr(&self, request: &Request, node: INodeNo, attribute: &OsStr, reply: ReplyEmpty) {
        let timer = self.arrived(Operation::Removexattr);
        let (fs, caller) = (Arc::clone(&self.fs), caller(request));
        let attribute = name(attribute);
        let request = async move { fs.removexattr(&caller, ino(node), &attribute).await };
        self.serve(timer, request, empty_reply(reply));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let timer = self.arrived(Operation::Create);
        let (fs, caller, child) = (Arc::clone(&self.fs), caller(request), name(child));
        let new =
            NewFile { kind: crate::types::FileKind::File, mode: mode & 0o7777, umask, rdev: 0 };
        let request = async move { fs.create(&caller, ino(parent), &child, new, flags).await };
        self.serve(timer, request, move |answer| match answer {
            Ok((attributes, opened)) => reply.created(
                &TTL,
                &file_attr(&attributes),
                generation(&attributes),
                FileHandle(opened.handle.0),
                open_flags(&opened, false),
            ),
            Err(errno) => reply.error(errno),
        });
    }

    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _out_size: u32,
        reply: ReplyIoctl,
    ) {
        // No attribute flags are enforced yet, so none are accepted.
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let timer = self.arrived(Operation::Fallocate);
        let (fs, caller) = (Arc::clone(&self.fs), full_caller(request));
        let request = async move {
            fs.fallocate(&caller, (ino(node), handle(file)), offset, length, mode).await
        };
        self.serve(timer, request, empty_reply(reply));
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let timer = self.arrived(Operation::Lseek);
        let (fs, notifications) = (Arc::clone(&self.fs), Arc::clone(&self.notifications));
        let request = async move {
            // The kernel asks without writing back its dirty pages: without them data would look like holes.
            notifications.write_back(node).await;
            fs.lseek(ino(node), handle(file), offset, whence).await
        };
        self.serve(timer, request, move |answer| match answer {
            Ok(offset) => reply.offset(offset),
            Err(errno) => reply.error(errno),
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        node_in: INodeNo,
        file_in: FileHandle,
        offset_in: u64,
        node_out: INodeNo,
        file_out: FileHandle,
        offset_out: u64,
        length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let timer = self.arrived(Operation::CopyFileRange);
        let (fs, caller) = (Arc::clone(&self.fs), full_caller(request));
        let from: (Ino, HandleId, u64) = (ino(node_in), handle(file_in), offset_in);
        let to: (Ino, HandleId, u64) = (ino(node_out), handle(file_out), offset_out);
        let request = async move { fs.copy_file_range(&caller, from, to, length).await };
        self.serve(timer, request, move |answer| match answer {
            Ok(copied) => reply.written(copied),
            Err(errno) => reply.error(errno),
        });
    }
}
