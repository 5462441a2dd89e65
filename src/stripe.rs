//! Stripes: immutable objects that hold segments of files as frames, coded into shards. Writes and reads them;
//! never commits: a writer returns a record that its caller commits.

pub mod flight;
pub mod frame;
pub mod layout;
pub mod pack;
mod payload;
mod put;
pub mod reader;
pub mod rebuild;
pub mod slots;
#[cfg(test)]
mod testing;
pub mod writer;
