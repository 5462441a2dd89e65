//! Counts the running reads of each stripe. Knows nothing else of stripes.

use crate::sync::{Arc, Mutex, PoisonError};
use crate::types::StripeId;
use std::collections::BTreeMap;

/// Stripes in use.
#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<BTreeMap<StripeId, u64>>);

/// One use of a stripe; ends when dropped.
#[derive(Debug)]
pub(in crate::stripe) struct Pin {
    pins: Arc<Pins>,
    stripe: StripeId,
}

impl Pins {
    /// Begins a use.
    pub(super) fn hold(self: &Arc<Self>, stripe: StripeId) -> Pin {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(stripe).or_default() += 1;
        Pin { pins: Arc::clone(self), stripe }
    }

    /// Whether a stripe is in use.
    pub(super) fn holds(&self, stripe: StripeId) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&stripe)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut counts = self.pins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.stripe) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.stripe);
            }
        }
    }
}
