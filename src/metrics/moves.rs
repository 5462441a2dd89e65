//! File data that workers have moved to new stripes, by why.

use super::Page;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why file data was written to a new stripe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    /// Much of its stripe was dead.
    Clean,
    /// Its stripe was short, like others that it is now together with.
    Merge,
    /// It was hot: in the metadata.
    Pack,
}

impl Move {
    const ALL: [(Self, &str); 3] =
        [(Self::Clean, "clean"), (Self::Merge, "merge"), (Self::Pack, "pack")];
}

/// Bytes that were moved, by why.
#[derive(Debug, Default)]
pub struct MoveMetrics([AtomicU64; Move::ALL.len()]);

impl MoveMetrics {
    /// So many bytes of file data, before compression, are in a new stripe that the metadata know.
    pub fn note(&self, why: Move, bytes: u64) {
        self.0[why as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that were moved for this reason so far.
    pub fn bytes(&self, why: Move) -> u64 {
        self.0[why as usize].load(Ordering::Relaxed)
    }

    /// Puts them on the page.
    pub fn write(&self, page: &mut Page) {
        page.counters(
            "ironfs_moved_bytes_total",
            "Bytes of file data that were written to new stripes: out of those that were mostly dead (clean) or short \
             (merge), and out of the metadata (pack).",
            ["reason"],
            Move::ALL.iter().map(|(why, name)| ([*name], self.bytes(*why))),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::Move;

    #[test]
    fn moves_are_counted_where_they_are_listed() {
        for (number, (why, _name)) in Move::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, number, "{why:?}");
        }
    }
}
