//! Values of the FUSE crate to values of the file system and back: times, kinds, attributes, errors.

use crate::error::Posix;
use crate::fs::Attributes;
use crate::types::{FileKind, Ino, Timestamp};
use fuser::{Errno, FileAttr, FileType, INodeNo};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Undoes the decoding of fuser 0.18, which turns seconds before 1970 with nanoseconds into a time that is up to
/// two seconds off: `(seconds < 0, nanoseconds)` arrives as the epoch minus both.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => Timestamp {
            seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: since.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            Timestamp {
                seconds: 0i64.checked_sub_unsigned(before.as_secs()).unwrap_or(i64::MIN),
                nanoseconds: before.subsec_nanos(),
            }
        }
    }
}

/// The time as the crate sends it; one that it cannot hold becomes the epoch.
pub(super) fn system_time(time: Timestamp) -> SystemTime {
    let whole = Duration::from_secs(time.seconds.unsigned_abs());
    let base = if time.seconds < 0 {
        UNIX_EPOCH.checked_sub(whole)
    } else {
        UNIX_EPOCH.checked_add(whole)
    };
    let nanoseconds = Duration::from_nanos(u64::from(time.nanoseconds));
    base.and_then(|base| base.checked_add(nanoseconds)).unwrap_or(UNIX_EPOCH)
}

pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// The kind in the file type bits of a mode, as mknod gives it; no bits mean a regular file.
pub(super) fn kind_of_mode(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        libc::S_IFREG | 0 => Some(FileKind::File),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

pub(super) fn file_attr(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.ino.0),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: u16::try_from(attributes.mode & 0o7777).unwrap_or_default(),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.rdev,
        blksize: BLOCK_BYTES_REPORTED,
        flags: 0,
    }
}

/// The attributes of "there is no such name, remember that": inode number 0.
pub(super) fn no_such_entry() -> FileAttr {
    entry_without_node(Ino(0), FileKind::File)
}

/// The attributes of `.` and `..` in a listing: no node comes with them.
pub(super) fn entry_without_node(ino: Ino, kind: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino.0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

/// `st_blksize`: a whole segment, so that programs write in units that need no reading back.
const BLOCK_BYTES_REPORTED: u32 = crate::limits::SEGMENT_BYTES;

pub(super) const fn ino(node: INodeNo) -> Ino {
    Ino(node.0)
}

/// The answer of the file system as the number that the kernel knows.
pub(super) const fn errno(posix: Posix) -> Errno {
    match posix {
        Posix::NotPermitted => Errno::EPERM,
        Posix::NotFound => Errno::ENOENT,
        Posix::Io => Errno::EIO,
        Posix::BadHandle => Errno::EBADF,
        Posix::Access => Errno::EACCES,
        Posix::Exists => Errno::EEXIST,
        Posix::CrossDevice => Errno::EXDEV,
        Posix::NotDirectory => Errno::ENOTDIR,
        Posix::IsDirectory => Errno::EISDIR,
        Posix::Invalid => Errno::EINVAL,
        Posix::FileTooBig => Errno::EFBIG,
        Posix::NoSpace => Errno::ENOSPC,
        Posix::ReadOnly => Errno::EROFS,
        Posix::TooManyLinks => Errno::EMLINK,
        Posix::Range => Errno::ERANGE,
        Posix::NameTooLong => Errno::ENAMETOOLONG,
        Posix::NotEmpty => Errno::ENOTEMPTY,
        Posix::NoData => Errno::ENODATA,
        Posix::NotSupported => Errno::EOPNOTSUPP,
        Posix::Stale => Errno::ESTALE,
        Posix::NoSuchAddress => Errno::ENXIO,
        Posix::TooBig => Errno::E2BIG,
        Posix::NotTty => Errno::ENOTTY,
        Posix::NotImplemented => Errno::ENOSYS,
        Posix::Again => Errno::EAGAIN,
        Posix::Interrupted => Errno::EINTR,
        Posix::TextBusy => Errno::ETXTBSY,
        Posix::Quota => Errno::EDQUOT,
    }
}

#[cfg(test)]
mod tests {
    use super::{system_time, timestamp};
    use crate::types::Timestamp;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn times_before_1970_are_recovered_from_the_crates_decoding() {
        // What fuser 0.18 makes of (-2 s, 250 ms).
        let decoded = UNIX_EPOCH - Duration::new(2, 250_000_000);
        assert_eq!(timestamp(decoded), Timestamp { seconds: -2, nanoseconds: 250_000_000 });
    }

    #[test]
    fn every_stored_time_has_an_answer() {
        for seconds in [i64::MIN, -1, 0, 1, 4_294_967_296, i64::MAX] {
            let time = Timestamp { seconds, nanoseconds: 999_999_999 };
            let answer = system_time(time);
            if (0..i64::MAX).contains(&seconds) {
                assert_eq!(timestamp(answer), time);
            }
        }
    }
}
