//! The simulated world: production code runs on it unchanged, from one seed.

pub mod disk;
