//! Calls that must be refused, each with its error, and that change nothing.

use crate::compare::root_user;
use ironfs::error::{Error, Posix};
use ironfs::fs::Fs;
use ironfs::fs::attr::SetAttr;
use ironfs::fs::file::WriteHow;
use ironfs::fs::namespace::NewFile;
use ironfs::limits::{FILE_BYTES_MAX, NAME_BYTES_MAX, XATTR_NAME_BYTES_MAX, XATTR_VALUE_BYTES_MAX};
use ironfs::types::{FileKind, HandleId, Ino};

const O_RDWR: i32 = 0o2;
const SEEK_DATA: i32 = 3;
const FALLOC_PUNCH_HOLE: i32 = 2;
const FALLOC_COLLAPSE_RANGE: i32 = 8;
const RENAME_UNKNOWN: u32 = 64;

/// An open file and a directory that are there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Here {
    pub(super) file: (Ino, HandleId),
    pub(super) directory: Ino,
}

/// Does the `raw`-th wrong call; answers what came of it and what has to.
pub(super) async fn call(fs: &Fs, here: Here, raw: u64) -> (Result<(), Error>, Posix) {
    match raw % 3 {
        0 => names(fs, here, raw / 3).await,
        1 => content(fs, here, raw / 3).await,
        _ => attributes(fs, here, raw / 3).await,
    }
}

async fn names(fs: &Fs, here: Here, raw: u64) -> (Result<(), Error>, Posix) {
    let (caller, dir, file) = (root_user(), here.directory, here.file.0);
    let long = vec![b'n'; NAME_BYTES_MAX + 1];
    let new = NewFile { kind: FileKind::File, mode: 0o644, umask: 0, rdev: 0 };
    match raw % 9 {
        0 => {
            let made = fs.create(&caller, dir, &long, new, O_RDWR).await;
            (made.map(drop), Posix::NameTooLong)
        }
        1 => (fs.mkdir(&caller, file, b"x", 0o755, 0).await.map(drop), Posix::NotDirectory),
        2 => (fs.symlink(&caller, file, b"x", b"to").await.map(drop), Posix::NotDirectory),
        3 => (fs.unlink(dir, b"is not there").await, Posix::NotFound),
        4 => (fs.rmdir(dir, b"is not there").await, Posix::NotFound),
        5 => (fs.link(file, dir, &long).await.map(drop), Posix::NameTooLong),
        6 => (fs.readlink(file).await.map(drop), Posix::Invalid),
        7 => {
            let there = fs.rename(&caller, (dir, b"is not there"), (dir, b"x"), 0).await;
            (there, Posix::NotFound)
        }
        _ => {
            let flags = RENAME_UNKNOWN;
            let renamed = fs.rename(&caller, (dir, b"is not there"), (dir, b"x"), flags).await;
            (renamed, Posix::Invalid)
        }
    }
}

async fn content(fs: &Fs, here: Here, raw: u64) -> (Result<(), Error>, Posix) {
    let (caller, open) = (root_user(), here.file);
    match raw % 10 {
        0 => {
            let how = WriteHow::default();
            let written = fs.write(&caller, open, FILE_BYTES_MAX, b"x", how).await;
            (written.map(drop), Posix::FileTooBig)
        }
        1 => {
            let set = SetAttr { size: Some(FILE_BYTES_MAX + 1), ..SetAttr::default() };
            (fs.setattr(&caller, open.0, set).await.map(drop), Posix::FileTooBig)
        }
        2 => (fs.fallocate(&caller, open, FILE_BYTES_MAX, 1, 0).await, Posix::FileTooBig),
        3 => (fs.fallocate(&caller, open, 0, 0, 0).await, Posix::Invalid),
        4 => (fs.fallocate(&caller, open, 0, 1, FALLOC_COLLAPSE_RANGE).await, Posix::NotSupported),
        5 => (fs.fallocate(&caller, open, 0, 1, FALLOC_PUNCH_HOLE).await, Posix::NotSupported),
        7 => (fs.releasedir(here.directory, HandleId(u64::MAX)).await, Posix::BadHandle),
        8 => (fs.getattr(Ino(u64::MAX >> 1), None).await.map(drop), Posix::Stale),
        6 => (fs.lseek(open.0, open.1, i64::MAX, SEEK_DATA).await.map(drop), Posix::NoSuchAddress),
        _ => {
            let set = SetAttr { size: Some(1), ..SetAttr::default() };
            (fs.setattr(&caller, here.directory, set).await.map(drop), Posix::IsDirectory)
        }
    }
}

async fn attributes(fs: &Fs, here: Here, raw: u64) -> (Result<(), Error>, Posix) {
    let (caller, ino) = (root_user(), here.file.0);
    let long = [b"user.".as_slice(), &vec![b'n'; XATTR_NAME_BYTES_MAX]].concat();
    match raw % 7 {
        0 => (fs.setxattr(&caller, ino, &long, b"", 0).await, Posix::Range),
        1 => {
            let large = vec![0; XATTR_VALUE_BYTES_MAX + 1];
            (fs.setxattr(&caller, ino, b"user.c", &large, 0).await, Posix::TooBig)
        }
        2 => (fs.setxattr(&caller, ino, b"nowhere", b"", 0).await, Posix::NotSupported),
        3 => (fs.setxattr(&caller, ino, b"user.c", b"", 3).await, Posix::Invalid),
        4 => (fs.getxattr(ino, b"user.none").await.map(drop), Posix::NoData),
        5 => (fs.removexattr(&caller, ino, b"user.none").await, Posix::NoData),
        _ => {
            let set = fs.setxattr(&caller, ino, b"user.ironfs.class", b"no class", 0).await;
            (set, Posix::Invalid)
        }
    }
}
