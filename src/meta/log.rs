//! The record log on several disks in parallel. Knows the bytes of commands, not what they do.

/// Size of a log file: large enough that rolling over is rare, small enough to trim in small pieces.
pub const SEGMENT_BYTES: u64 = 16 << 20;
/// Most bytes that wait for a sync: bounds memory and the length of one round.
pub const BUFFER_BYTES: usize = 64 << 20;
