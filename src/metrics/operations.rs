//! Requests of the kernel, by what they ask for.

use super::{Durations, Page, WAITS};

/// What a request of the kernel asks for. What is answered without being looked at (flush, ioctl) and what gets no answer
/// (forget) is not among them.
#[expect(missing_docs, reason = "they have the names of the FUSE operations")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    Lookup,
    Getattr,
    Setattr,
    Readlink,
    Mknod,
    Mkdir,
    Unlink,
    Rmdir,
    Symlink,
    Rename,
    Link,
    Open,
    Create,
    Read,
    Write,
    Release,
    Fsync,
    Opendir,
    Readdir,
    Readdirplus,
    Releasedir,
    Fsyncdir,
    Statfs,
    Setxattr,
    Getxattr,
    Listxattr,
    Removexattr,
    Fallocate,
    Lseek,
    CopyFileRange,
}

impl Operation {
    /// All of them in their order, with the names that people see.
    pub const ALL: [(Self, &str); 30] = [
        (Self::Lookup, "lookup"),
        (Self::Getattr, "getattr"),
        (Self::Setattr, "setattr"),
        (Self::Readlink, "readlink"),
        (Self::Mknod, "mknod"),
        (Self::Mkdir, "mkdir"),
        (Self::Unlink, "unlink"),
        (Self::Rmdir, "rmdir"),
        (Self::Symlink, "symlink"),
        (Self::Rename, "rename"),
        (Self::Link, "link"),
        (Self::Open, "open"),
        (Self::Create, "create"),
        (Self::Read, "read"),
        (Self::Write, "write"),
        (Self::Release, "release"),
        (Self::Fsync, "fsync"),
        (Self::Opendir, "opendir"),
        (Self::Readdir, "readdir"),
        (Self::Readdirplus, "readdirplus"),
        (Self::Releasedir, "releasedir"),
        (Self::Fsyncdir, "fsyncdir"),
        (Self::Statfs, "statfs"),
        (Self::Setxattr, "setxattr"),
        (Self::Getxattr, "getxattr"),
        (Self::Listxattr, "listxattr"),
        (Self::Removexattr, "removexattr"),
        (Self::Fallocate, "fallocate"),
        (Self::Lseek, "lseek"),
        (Self::CopyFileRange, "copy_file_range"),
    ];
}

/// How long requests take from their arrival to their answer.
#[derive(Debug)]
pub struct RequestMetrics([Durations; Operation::ALL.len()]);

impl Default for RequestMetrics {
    fn default() -> Self {
        Self(std::array::from_fn(|_operation| Durations::new(WAITS)))
    }
}

impl RequestMetrics {
    /// Those of one operation.
    pub fn of(&self, operation: Operation) -> &Durations {
        &self.0[operation as usize]
    }

    /// Puts them on the page.
    pub fn write(&self, page: &mut Page) {
        let of = Operation::ALL.iter().map(|(operation, name)| ([*name], self.of(*operation)));
        page.histograms(
            "ironfs_request_duration_seconds",
            "Time from the arrival of a request of the kernel to its answer.",
            ["operation"],
            of,
        );
    }
}
