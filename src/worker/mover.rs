//! What moves file data to new stripes.

use crate::metrics::MoveMetrics;
use crate::stripe::reader::StripeReader;
use crate::stripe::writer::{Placer, StripeWriter};
use crate::sync::Arc;

/// What cleaning and packing read and write with.
#[derive(Clone, Debug)]
pub struct Mover {
    /// Reads live segments.
    pub reader: StripeReader,
    /// Writes new stripes.
    pub writer: StripeWriter,
    /// Says where they go.
    pub placer: Arc<dyn Placer>,
    /// Counts what was moved.
    pub moves: Arc<MoveMetrics>,
}
