//! Locks, channels, atomics and threads: those of std, or with the feature `shuttle` those of shuttle, which tries the orders in
//! which threads can run (`tests/suites/shuttle`). Knows nothing else.
//!
//! Shuttle knows no time: a wait with a timeout lasts until it is woken.

#[cfg(feature = "shuttle")]
pub use shuttle::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak, atomic, mpsc,
    },
    thread,
};
#[cfg(not(feature = "shuttle"))]
pub use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        Weak, atomic, mpsc,
    },
    thread,
};
