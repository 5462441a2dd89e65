//! Locks, channels, atomics and threads: those of std, or under `--cfg shuttle` those of shuttle, which tries the orders in
//! which threads can run (`tests/suites/shuttle`). Knows nothing else.
//!
//! Shuttle knows no time: a wait with a timeout lasts until it is woken.

#[cfg(shuttle)]
pub use shuttle::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak, atomic, mpsc,
    },
    thread,
};
#[cfg(not(shuttle))]
pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak, atomic, mpsc,
    },
    thread,
};
