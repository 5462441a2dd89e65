//! ironfs: a POSIX file system whose file data is Reed-Solomon coded.

extern crate self as ironfs;

pub mod admin;
pub mod class;
pub mod cli;
pub mod codec;
pub mod config;
pub mod cpu;
pub mod disk;
pub mod erasure;
pub mod error;
pub mod extent;
pub mod format;
pub mod fs;
pub mod identity;
pub mod lane;
pub mod limits;
pub mod load;
pub mod meta;
pub mod metrics;
#[path = "../mountd/mountd.rs"]
pub mod mountd;
pub mod net;
pub mod placement;
pub mod process;
pub mod shard;
#[path = "../shardd/shardd.rs"]
pub mod shardd;
pub mod stripe;
pub mod sum;
pub mod sync;
pub mod types;
pub mod volume;
pub mod worker;

/// Pages of 4 KiB come and go on many threads all the time; the allocator of glibc takes a third of the server's time
/// for them, and more the longer it runs.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
