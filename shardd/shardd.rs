//! The process that serves the disks of a storage machine: sockets, signals, leases. Knows shards and files of a disk;
//! what they mean is known to whoever mounts the volume.

pub mod daemon;
pub mod gather;
pub mod lease;
pub mod server;
pub mod slot;
#[cfg(test)]
mod testing;
