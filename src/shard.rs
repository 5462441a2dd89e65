//! What one disk keeps of stripes: shard files and an index of them. Keeps the slot table as bytes; knows no inode
//! and no other disk.

pub mod file;
pub mod index;
pub mod serve;
pub mod store;
