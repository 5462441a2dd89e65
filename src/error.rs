//! The one error type: a kind for each thing that a caller can do next, plus what was being done.
#![warn(missing_docs)]

use crate::types::FileKind;
use std::fmt;

/// Result with ironfs's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Errors that the manual pages prescribe. Stored in replies and sent to peers: codes are fixed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Posix {
    /// EPERM
    NotPermitted = 1,
    /// ENOENT
    NotFound = 2,
    /// EIO
    Io = 3,
    /// EBADF
    BadHandle = 4,
    /// EACCES
    Access = 5,
    /// EEXIST
    Exists = 6,
    /// EXDEV
    CrossDevice = 7,
    /// ENOTDIR
    NotDirectory = 8,
    /// EISDIR
    IsDirectory = 9,
    /// EINVAL
    Invalid = 10,
    /// EFBIG
    FileTooBig = 11,
    /// ENOSPC
    NoSpace = 12,
    /// EROFS
    ReadOnly = 13,
    /// EMLINK
    TooManyLinks = 14,
    /// ERANGE
    Range = 15,
    /// ENAMETOOLONG
    NameTooLong = 16,
    /// ENOTEMPTY
    NotEmpty = 17,
    /// ENODATA
    NoData = 18,
    /// EOPNOTSUPP
    NotSupported = 19,
    /// ESTALE
    Stale = 20,
    /// ENXIO
    NoSuchAddress = 21,
    /// E2BIG
    TooBig = 22,
    /// ENOTTY
    NotTty = 23,
    /// ENOSYS
    NotImplemented = 24,
    /// EAGAIN; also "do the pending step first" between `fs` and the state machine
    Again = 25,
    /// EINTR
    Interrupted = 26,
    /// ETXTBSY
    TextBusy = 27,
    /// EDQUOT
    Quota = 28,
}

impl Posix {
    /// All errors, in the order of their codes.
    pub const ALL: [Self; 28] = [
        Self::NotPermitted,
        Self::NotFound,
        Self::Io,
        Self::BadHandle,
        Self::Access,
        Self::Exists,
        Self::CrossDevice,
        Self::NotDirectory,
        Self::IsDirectory,
        Self::Invalid,
        Self::FileTooBig,
        Self::NoSpace,
        Self::ReadOnly,
        Self::TooManyLinks,
        Self::Range,
        Self::NameTooLong,
        Self::NotEmpty,
        Self::NoData,
        Self::NotSupported,
        Self::Stale,
        Self::NoSuchAddress,
        Self::TooBig,
        Self::NotTty,
        Self::NotImplemented,
        Self::Again,
        Self::Interrupted,
        Self::TextBusy,
        Self::Quota,
    ];

    /// The error with this stored code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|posix| *posix as u8 == code)
    }

    /// What an operation on file content answers for an inode that is no regular file.
    pub const fn unless_file(kind: FileKind) -> Result<(), Self> {
        match kind {
            FileKind::File => Ok(()),
            FileKind::Directory => Err(Self::IsDirectory),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => Err(Self::Invalid),
        }
    }

    /// The code under which the error is stored and sent.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

/// What the caller does next.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorKind {
    /// The answer that the man page prescribes: hand it to the application.
    Posix(Posix),
    /// Too few disks or nodes answer: retry until the deadline, then EIO.
    Unavailable,
    /// My epoch, session or lease is old: refresh, retry once.
    Fenced,
    /// Another mount has taken the volume: stop for good.
    Superseded,
    /// Bytes fail their check: use another shard, queue a repair; EIO if too few are good.
    Corrupt,
    /// Bad configuration, foreign disk, newer format: stop, tell the operator.
    Refused,
    /// A broken invariant: stop.
    Internal,
}

/// An error: its kind, what was being done (present tense, with ids), and its source.
#[derive(Debug, Clone)]
pub struct Error {
    kind: ErrorKind,
    detail: Option<std::sync::Arc<Detail>>,
}

#[derive(Debug)]
struct Detail {
    context: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with its `context`: what was being done, and expected against found.
    pub fn new(kind: ErrorKind, context: impl Into<String>) -> Self {
        let detail = Detail { context: context.into(), source: None };
        Self { kind, detail: Some(std::sync::Arc::new(detail)) }
    }

    /// Bytes that fail their check.
    pub fn corrupt(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Corrupt, context)
    }

    /// Something that an operator has to put right.
    pub fn refused(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Refused, context)
    }

    /// Too few disks or nodes.
    pub fn unavailable(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, context)
    }

    /// A broken invariant.
    pub fn internal(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, context)
    }

    /// The operating system's answer to a file operation on a disk. ENOSPC and EDQUOT become
    /// `NoSpace`, ENOENT `NotFound`; everything else means that the disk is unavailable.
    pub fn from_io(context: impl Into<String>, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ErrorKind::Posix(Posix::NoSpace)
            }
            std::io::ErrorKind::NotFound => ErrorKind::Posix(Posix::NotFound),
            _ => ErrorKind::Unavailable,
        };
        Self::with_source(kind, context, source)
    }

    /// An error of `kind` that another one caused.
    pub fn with_source(
        kind: ErrorKind,
        context: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        let detail = Detail { context: context.into(), source: Some(Box::new(source)) };
        Self { kind, detail: Some(std::sync::Arc::new(detail)) }
    }

    /// What the caller does next.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The same error, seen while doing `context`.
    #[must_use]
    pub fn while_doing(self, context: impl Into<String>) -> Self {
        let kind = self.kind;
        Self::with_source(kind, context, self)
    }

    /// Whether this is the given POSIX answer.
    pub fn is(&self, posix: Posix) -> bool {
        self.kind == ErrorKind::Posix(posix)
    }

    /// The POSIX answer that an application gets.
    pub const fn posix(&self) -> Posix {
        match self.kind {
            ErrorKind::Posix(posix) => posix,
            ErrorKind::Unavailable
            | ErrorKind::Fenced
            | ErrorKind::Superseded
            | ErrorKind::Corrupt
            | ErrorKind::Refused
            | ErrorKind::Internal => Posix::Io,
        }
    }
}

impl From<Posix> for Error {
    /// Allocates nothing: a failed lookup is a normal answer.
    fn from(posix: Posix) -> Self {
        Self { kind: ErrorKind::Posix(posix), detail: None }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.detail {
            None => write!(f, "{:?}", self.kind),
            Some(detail) => match &detail.source {
                None => f.write_str(&detail.context),
                Some(source) => write!(f, "{}: {source}", detail.context),
            },
        }
    }
}

impl std::error::Error for Error {}
