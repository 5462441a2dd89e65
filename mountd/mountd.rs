//! The mounting process: everything that touches the kernel. Knows FUSE, mount(2) and signals; what is stored, and how,
//! is the volume's.

pub mod daemon;
pub mod fuse;
pub mod mount;
pub mod options;
