//! Callers and directories for the tests of this module.

use crate::disk::local::LocalDisk;
use crate::disk::superblock::{self, MemberList, Superblock};
use crate::error::Result;
use crate::net::authority::Role;
use crate::net::quic::listener::Caller;
use crate::net::tls::PeerIdentity;
use crate::types::{DiskId, Epoch, VolumeId};
use std::path::Path;

/// Somebody whose certificate has this role.
pub(super) fn caller(role: Role) -> Caller {
    let peer = PeerIdentity { name: "somebody".to_owned(), role, serial: Vec::new() };
    Caller { peer, address: "127.0.0.1:1".parse().unwrap() }
}

/// Makes an empty directory a disk.
pub(super) fn make_disk(directory: &Path, disk: DiskId) {
    let superblock = Superblock {
        volume: VolumeId([3; 16]),
        name: "lab".to_owned(),
        disk,
        sequence: 1,
        members: MemberList { epoch: Epoch(1), ..MemberList::default() },
    };
    superblock::create(&LocalDisk::open(directory).unwrap(), &superblock).unwrap();
}

/// Why something has failed.
pub(super) fn kind<T>(result: Result<T>) -> Option<crate::error::ErrorKind> {
    result.err().map(|error| error.kind())
}
