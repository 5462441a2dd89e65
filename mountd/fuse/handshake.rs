//! What a mount asks the kernel for when it begins. Serves no request.

use fuser::{InitFlags, KernelConfig};
use std::io;
use std::time::Duration;

/// Largest WRITE: what the default `fs.fuse.max_pages_limit` allows.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;
/// Requests that the kernel may have under way without a caller waiting: read-ahead and write-back. Each write-back holds
/// up to 1 MiB here while it waits for room among the dirty buffers, so this bounds memory beside them.
const BACKGROUND_MAX: u16 = 64;
/// Background requests from which on the kernel thinks twice.
const CONGESTION_THRESHOLD: u16 = 48;

/// Asks for all of it; what the kernel does not offer is done without.
pub(super) fn ask(config: &mut KernelConfig) -> io::Result<()> {
    let granted = wanted_capabilities() & config.capabilities();
    config.add_capabilities(granted).map_err(|missing| {
        io::Error::other(format!("the kernel took back the capabilities {missing:?}"))
    })?;
    // Each setter answers with the nearest value that the kernel allows; then that one holds.
    if let Err(nearest) = config.set_max_write(WRITE_BYTES_MAX) {
        config.set_max_write(nearest).map_err(|_nearest| io::Error::other("max_write"))?;
    }
    for set in [
        config.set_max_background(BACKGROUND_MAX),
        config.set_congestion_threshold(CONGESTION_THRESHOLD),
    ] {
        set.map_err(|_nearest| io::Error::other("the limits of background requests"))?;
    }
    config
        .set_time_granularity(Duration::from_nanos(1))
        .map_err(|_nearest| io::Error::other("the time granularity"))?;
    Ok(())
}

/// What a mount of its own asks the kernel for (FUSE.md 3); only what the kernel offers is requested.
fn wanted_capabilities() -> InitFlags {
    InitFlags::FUSE_ASYNC_READ
        | InitFlags::FUSE_BIG_WRITES
        | InitFlags::FUSE_MAX_PAGES
        | InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_READDIRPLUS_AUTO
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_CACHE_SYMLINKS
        | InitFlags::FUSE_HANDLE_KILLPRIV_V2
        | InitFlags::FUSE_DONT_MASK
        | InitFlags::FUSE_POSIX_ACL
        | InitFlags::FUSE_EXPORT_SUPPORT
        | InitFlags::FUSE_HAS_IOCTL_DIR
        | InitFlags::FUSE_ABORT_ERROR
        | InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP
        | InitFlags::FUSE_WRITEBACK_CACHE
        | InitFlags::FUSE_EXPLICIT_INVAL_DATA
}
