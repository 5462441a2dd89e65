//! Which stripes are on their way: they have an id, disks may hold shards of them, and nothing names them yet.

use crate::sync::{Arc, Mutex, MutexGuard, PoisonError};
use crate::types::StripeId;
use std::collections::BTreeSet;

/// The stripes of this mount that may still be committed; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Flights(Arc<Mutex<BTreeSet<StripeId>>>);

impl Flights {
    /// From now on `id` is on its way, until the answer is dropped.
    pub fn begin(&self, id: StripeId) -> Arc<Flight> {
        self.lock().insert(id);
        Arc::new(Flight { all: self.clone(), id })
    }

    /// Whether `id` is on its way. If not, its commit was proposed, or never will be.
    pub fn contains(&self, id: StripeId) -> bool {
        self.lock().contains(&id)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<StripeId>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of them. Whoever writes it holds this until the log has answered its commit.
#[derive(Debug)]
pub struct Flight {
    all: Flights,
    id: StripeId,
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.all.lock().remove(&self.id);
    }
}
