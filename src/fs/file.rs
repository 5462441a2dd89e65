//! Open files: open, read, write and what else works on content. The bytes themselves are `fs::data`'s.

use crate::error::{Posix, Result};
use crate::fs::data::Seek;
use crate::fs::handle::Handle;
use crate::fs::node::Node;
use crate::fs::privilege::without_privileges;
use crate::fs::{Caller, Fs};
use crate::limits::FILE_BYTES_MAX;
use crate::meta::command::{FileUpdate, SetAttributes};
use crate::types::{FileKind, HandleId, Ino, Timestamp};
use bytes::Bytes;
use std::sync::Arc;

// Open flags and modes of Linux on all 64-bit targets; `fs` takes them as the kernel sends them.
const O_ACCMODE: i32 = 0o3;
const O_WRONLY: i32 = 0o1;
const O_TRUNC: i32 = 0o1000;
const O_APPEND: i32 = 0o2000;
const O_NOATIME: i32 = 0o1_000_000;
const SEEK_DATA: i32 = 3;
const SEEK_HOLE: i32 = 4;
const FALLOC_FL_KEEP_SIZE: i32 = 0x01;
const FALLOC_FL_PUNCH_HOLE: i32 = 0x02;
const FALLOC_FL_ZERO_RANGE: i32 = 0x10;

/// Below this much room new opens bypass the kernel's cache, so that ENOSPC shows at write() and not later: twice
/// what the dirty buffers may hold by default.
const LOW_SPACE_BYTES: u64 = 512 * 1024 * 1024;
/// Most that one copy_file_range answers (its answer has 32 bits); the caller asks again for the rest.
const COPY_BYTES_MAX: u64 = 1 << 30;

/// Answer of open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Opened {
    /// Handle to read and write with.
    pub handle: HandleId,
    /// The kernel may go on using what it has cached.
    pub keep_cache: bool,
    /// The kernel must pass every read and write through.
    pub direct_io: bool,
}

/// Circumstances of a write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteHow {
    /// The kernel writes back its cache: the caller means nothing.
    pub from_cache: bool,
    /// suid and sgid have to go.
    pub kill_suid: bool,
    /// Flags that the file was opened with.
    pub flags: i32,
}

impl Fs {
    /// Opens a file; O_TRUNC cuts it.
    pub async fn open(&self, caller: &Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let node = self.node(ino)?;
        let writes = flags & O_ACCMODE != 0 || flags & O_TRUNC != 0;
        if writes {
            self.check_writable()?;
        }
        match node.kind() {
            FileKind::Directory if writes => return Err(Posix::IsDirectory.into()),
            FileKind::Symlink => return Err(Posix::Invalid.into()),
            _ => {}
        }
        let truncates = flags & O_TRUNC != 0 && node.kind() == FileKind::File;
        if truncates {
            self.truncate_at_open(&node, caller).await?;
        }
        let reads = flags & O_ACCMODE != O_WRONLY && flags & O_NOATIME == 0;
        let now = self.now();
        let keep_cache = !(reads && self.is_atime_due(&node.locked(), now));
        let direct_io = writes && self.is_space_low(&node);
        let handle = Handle { direct: direct_io, truncated: truncates, ..Handle::new(node) };
        Ok(Opened { handle: self.handles.insert(handle), keep_cache, direct_io })
    }

    async fn truncate_at_open(&self, node: &Arc<Node>, caller: &Caller) -> Result<()> {
        let time = self.now();
        let order = node.order.lock().await;
        let mode = {
            let inode = &node.locked().inode;
            let kept = if caller.keeps_privileges() {
                inode.mode
            } else {
                without_privileges(inode.mode, inode.gid, caller)
            };
            (kept != inode.mode).then_some(kept)
        };
        let set = SetAttributes { mode, ..changed(time) };
        self.set_size(node, 0, set).await?;
        self.drop_capability(node, time).await?;
        if mode.is_some() {
            self.tell_stale(node.ino);
        }
        drop(order);
        Ok(())
    }

    /// Whether new opens of a file should bypass the kernel's cache.
    pub(super) fn is_space_low(&self, node: &Node) -> bool {
        let class = node.locked().inode.class;
        let available = self.space.space(class).available_bytes;
        self.writeback && available.saturating_sub(self.data.total_dirty_bytes()) < LOW_SPACE_BYTES
    }

    /// Reads up to `size` bytes at `offset`; short only at the end of file.
    pub async fn read(
        &self,
        ino: Ino,
        handle: HandleId,
        offset: u64,
        size: u32,
        flags: i32,
    ) -> Result<Bytes> {
        let node = self.file_of(ino, handle)?;
        let bytes = self.data.read(&node, offset, size).await?;
        self.touch(&node, flags);
        Ok(bytes)
    }

    /// Writes at `offset`, or at the end if the file was opened to append and the kernel passes writes through.
    /// Short only at the largest file.
    pub async fn write(
        &self,
        caller: &Caller,
        (ino, handle): (Ino, HandleId),
        offset: u64,
        data: &[u8],
        how: WriteHow,
    ) -> Result<u32> {
        self.check_writable()?;
        let node = self.file_of(ino, handle)?;
        let now = self.now();
        if how.kill_suid {
            self.drop_set_id(&node, &Caller { cap_fsetid: false, ..caller.clone() }, now).await?;
        }
        self.drop_capability(&node, now).await?;
        let time = self.time_of_write(how);
        if self.appends(handle, how) {
            let order = node.order.lock().await;
            let end = node.locked().size;
            let written = self.write_with_room(&node, end, data, time).await;
            drop(order);
            return written;
        }
        self.write_with_room(&node, offset, data, time).await
    }

    async fn write_with_room(
        &self,
        node: &Arc<Node>,
        offset: u64,
        data: &[u8],
        time: Option<Timestamp>,
    ) -> Result<u32> {
        let (data, length) = within_largest_file(offset, data)?;
        let mut looks = 0;
        loop {
            let written = self.data.write(node, offset, data, time).await;
            if !self.gives_back_room(&written, &mut looks).await {
                return written.map(|()| length);
            }
        }
    }

    /// As `write`, if it has to wait for nothing. With `None` nothing has happened, and `write` has to do it.
    pub fn write_now(
        &self,
        (ino, handle): (Ino, HandleId),
        offset: u64,
        data: &[u8],
        how: WriteHow,
    ) -> Option<u32> {
        self.check_writable().ok()?;
        let node = self.file_of(ino, handle).ok()?;
        let (data, length) = within_largest_file(offset, data).ok()?;
        let plain = !how.kill_suid && node.locked().capability == Some(false);
        if !plain || self.appends(handle, how) {
            return None;
        }
        self.data.write_now(&node, offset, data, self.time_of_write(how)).map(|()| length)
    }

    /// What a writer waits for after `write_now`: that older data is on its way to the disks.
    pub async fn pace(&self) -> Result<()> {
        self.data.pace().await
    }

    /// The time that a write stamps; a kernel that writes back its cache tells the times by setattr.
    fn time_of_write(&self, how: WriteHow) -> Option<Timestamp> {
        (!(self.writeback && how.from_cache)).then(|| self.now())
    }

    /// Whether a write goes to the end of the file, wherever that is.
    fn appends(&self, handle: HandleId, how: WriteHow) -> bool {
        let direct = self.handles.get(handle).is_some_and(|handle| handle.direct);
        how.flags & O_APPEND != 0 && !how.from_cache && (direct || !self.writeback)
    }

    /// The last descriptor of a handle is closed. After O_TRUNC what was written since enters the log now: a crash some
    /// time after the close does not leave an empty file. An error is of no use to anybody, the handle is gone anyway:
    /// the data stays dirty, and fsync tells.
    pub async fn release(&self, ino: Ino, handle: HandleId) -> Result<()> {
        let open = self.handles.get(handle).filter(|open| open.node.ino == ino);
        let open = open.ok_or(Posix::BadHandle)?;
        let flushed = if open.truncated { self.data.flush(&open.node).await } else { Ok(()) };
        self.handles.remove(handle);
        self.settle(&open.node);
        flushed
    }

    /// Makes data, size, times and everything before in the log durable.
    pub async fn fsync(&self, ino: Ino, handle: HandleId, _datasync: bool) -> Result<()> {
        let node = self.node_of(ino, Some(handle))?;
        if self.read_only() {
            return Ok(());
        }
        if node.kind() != FileKind::File {
            return self.meta.sync().await;
        }
        if self.data.dirty_bytes(&node) == 0 {
            self.flush_node_times(&node).await?;
        }
        self.data.sync(&node).await
    }

    /// Reserves (mode 0, KEEP_SIZE), punches or zeroes a range; `mode` as in fallocate(2).
    pub async fn fallocate(
        &self,
        caller: &Caller,
        (ino, handle): (Ino, HandleId),
        offset: u64,
        length: u64,
        mode: i32,
    ) -> Result<()> {
        self.check_writable()?;
        let keeps_size = mode & FALLOC_FL_KEEP_SIZE != 0;
        let work = mode & !FALLOC_FL_KEEP_SIZE;
        if ![0, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_ZERO_RANGE].contains(&work)
            || work == FALLOC_FL_PUNCH_HOLE && !keeps_size
        {
            return Err(Posix::NotSupported.into());
        }
        if length == 0 {
            return Err(Posix::Invalid.into());
        }
        let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(Posix::FileTooBig)?;
        let node = self.file_of(ino, handle)?;
        let time = self.now();
        let order = node.order.lock().await;
        self.change_content(&node, caller, time).await?;
        if work != FALLOC_FL_PUNCH_HOLE {
            let present = node.locked().size;
            let size = if keeps_size { present } else { present.max(end) };
            let update = FileUpdate { ino, size, mtime: Some(time), ctime: Some(time) };
            let mut looks = 0;
            loop {
                let reserved = self.data.reserve(&node, offset..end, work != 0, Some(update)).await;
                if !self.gives_back_room(&reserved, &mut looks).await {
                    break reserved?;
                }
            }
        }
        if work != 0 {
            self.data.punch(&node, offset, length, changed(time)).await?;
        }
        drop(order);
        Ok(())
    }

    /// Next data or hole from `offset` on; `whence` as in lseek(2).
    pub async fn lseek(&self, ino: Ino, handle: HandleId, offset: i64, whence: i32) -> Result<i64> {
        let node = self.file_of(ino, handle)?;
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return Err(Posix::Invalid.into()),
        };
        let offset = u64::try_from(offset).map_err(|_negative| Posix::NoSuchAddress)?;
        if offset >= node.locked().size {
            return Err(Posix::NoSuchAddress.into());
        }
        let found = self.data.seek(&node, offset, what).await?;
        i64::try_from(found).map_err(|_too_far| Posix::NoSuchAddress.into())
    }

    /// Copies up to `length` bytes between files, each given with its handle and offset; answers how many. Short at
    /// the end of the source.
    pub async fn copy_file_range(
        &self,
        caller: &Caller,
        (ino_in, handle_in, offset_in): (Ino, HandleId, u64),
        (ino_out, handle_out, offset_out): (Ino, HandleId, u64),
        length: u64,
    ) -> Result<u32> {
        self.check_writable()?;
        let from = self.file_of(ino_in, handle_in)?;
        let to = self.file_of(ino_out, handle_out)?;
        let available = from.locked().size.saturating_sub(offset_in);
        let length = length.min(available).min(COPY_BYTES_MAX);
        if length == 0 {
            return Ok(0);
        }
        if offset_out.checked_add(length).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(Posix::FileTooBig.into());
        }
        if ino_in == ino_out && offset_in.abs_diff(offset_out) < length {
            return Err(Posix::Invalid.into());
        }
        let time = self.now();
        let order = to.order.lock().await;
        self.change_content(&to, caller, time).await?;
        let copied = self.data.copy((&from, offset_in), (&to, offset_out), length, time).await?;
        drop(order);
        u32::try_from(copied).map_err(|_too_much| Posix::Invalid.into())
    }

    /// What every change of content does to privileges, where the kernel does not ask for it.
    async fn change_content(&self, node: &Node, caller: &Caller, time: Timestamp) -> Result<()> {
        if !caller.keeps_privileges() {
            self.drop_set_id(node, caller, time).await?;
        }
        self.drop_capability(node, time).await
    }

    /// The regular file that an operation means.
    fn file_of(&self, ino: Ino, handle: HandleId) -> Result<Arc<Node>> {
        let node = self.node_of(ino, Some(handle))?;
        Posix::unless_file(node.kind())?;
        Ok(node)
    }
}

/// Times that every change of content sets.
fn changed(time: Timestamp) -> SetAttributes {
    SetAttributes { mtime: Some(time), ctime: Some(time), ..SetAttributes::default() }
}

/// What of a write at `offset` is before the end of the largest file, and how much that is.
fn within_largest_file(offset: u64, data: &[u8]) -> Result<(&[u8], u32)> {
    let room = FILE_BYTES_MAX.saturating_sub(offset);
    if room == 0 && !data.is_empty() {
        return Err(Posix::FileTooBig.into());
    }
    let length = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
    let (data, _behind_the_end) = data.split_at(length);
    let length = u32::try_from(length).map_err(|_too_long| Posix::Invalid)?;
    Ok((data, length))
}
