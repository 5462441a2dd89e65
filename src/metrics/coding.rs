//! How long parity and lost cells take to compute, by the code that does it.

use super::{COMPUTATIONS, Durations, Page};
use crate::class::{Class, Compression};
use crate::erasure::Scheme;
use crate::limits::{DATA_SHARDS_MAX, PARITY_SHARDS_MAX};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `replica:1` and so on.
const REPLICAS: usize = PARITY_SHARDS_MAX as usize + 1;
/// All schemes that there may be.
const SCHEMES: usize = REPLICAS + DATA_SHARDS_MAX as usize * PARITY_SHARDS_MAX as usize;
/// Whether segments are compressed before.
const COMPRESSIONS: [&str; 2] = ["none", "zstd"];

/// What lost cells are computed for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// A reader waits for them.
    Read,
    /// They are placed anew.
    Repair,
}

impl Purpose {
    const ALL: [(Self, &str); 2] = [(Self::Read, "read"), (Self::Repair, "repair")];
}

/// Durations for each code. Each has a place of its own, so that finding it takes neither a lock nor a table; those of
/// codes that are not used take no memory beyond that.
#[derive(Debug)]
struct ByCode(Box<[OnceLock<Durations>]>);

impl ByCode {
    fn new() -> Self {
        Self((0..SCHEMES * COMPRESSIONS.len()).map(|_place| OnceLock::new()).collect())
    }

    fn of(&self, class: &Class) -> Durations {
        let new = || Durations::new(COMPUTATIONS);
        match self.0.get(place(class.scheme, class.compression)) {
            Some(held) => held.get_or_init(new).clone(),
            // No scheme that is valid lies outside.
            None => new(),
        }
    }

    fn write(&self, page: &mut Page, name: &'static str, help: &'static str) {
        let codes =
            schemes().flat_map(|scheme| COMPRESSIONS.map(|compression| (scheme, compression)));
        let used = codes.zip(self.0.iter()).filter_map(|((scheme, compression), durations)| {
            Some(([scheme.to_string(), compression.to_owned()], durations.get()?))
        });
        page.histograms(name, help, ["coder", "compression"], used);
    }
}

/// All schemes in the order of their places.
fn schemes() -> impl Iterator<Item = Scheme> {
    let coded = (1..=DATA_SHARDS_MAX)
        .flat_map(|k| (1..=PARITY_SHARDS_MAX).map(move |m| Scheme::ReedSolomon { k, m }));
    (1..=PARITY_SHARDS_MAX + 1).map(Scheme::Replica).chain(coded)
}

/// Where the durations of a code are.
fn place(scheme: Scheme, compression: Compression) -> usize {
    let before = |count: u8| usize::from(count.saturating_sub(1));
    let number = match scheme {
        Scheme::Replica(copies) => before(copies),
        Scheme::ReedSolomon { k, m } => {
            REPLICAS + before(k) * usize::from(PARITY_SHARDS_MAX) + before(m)
        }
    };
    number * COMPRESSIONS.len() + usize::from(compression != Compression::None)
}

/// Encoding, decoding, and how often data was computed from what is left.
#[derive(Debug)]
pub struct CodingMetrics {
    encode: ByCode,
    decode: ByCode,
    recoveries: [AtomicU64; Purpose::ALL.len()],
    /// Bytes of shards that nodes made among themselves.
    gathered: AtomicU64,
}

impl Default for CodingMetrics {
    fn default() -> Self {
        Self {
            encode: ByCode::new(),
            decode: ByCode::new(),
            recoveries: Default::default(),
            gathered: AtomicU64::new(0),
        }
    }
}

impl CodingMetrics {
    /// How long the parity of one row takes. To be kept while a stripe is written.
    pub fn encode(&self, class: &Class) -> Durations {
        self.encode.of(class)
    }

    /// How long lost cells, or parts of them, take that one call computes.
    pub fn decode(&self, class: &Class) -> Durations {
        self.decode.of(class)
    }

    /// Lost cells have been computed.
    pub fn recovered(&self, purpose: Purpose) {
        self.recoveries[purpose as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Nodes have made, or moved, so many bytes of shards among themselves.
    pub fn gathered(&self, bytes: u64) {
        self.gathered.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Shows a class from the beginning, also while nothing of it is coded: a rate needs a value to begin at.
    pub fn announce(&self, class: &Class) {
        drop((self.encode.of(class), self.decode.of(class)));
    }

    /// Puts them on the page.
    pub fn write(&self, page: &mut Page) {
        let encode = "Time to compute the parity of one row of a stripe.";
        self.encode.write(page, "erasure_encode_duration_seconds", encode);
        let decode = "Time to compute lost cells, or parts of them, from those that are left.";
        self.decode.write(page, "erasure_decode_duration_seconds", decode);
        let count = |purpose: Purpose| self.recoveries[purpose as usize].load(Ordering::Relaxed);
        page.counters(
            "erasure_recovery_operations_total",
            "How often cells that were lost were computed from those that are left.",
            ["purpose"],
            Purpose::ALL.iter().map(|(purpose, name)| ([*name], count(*purpose))),
        );
        page.counter(
            "ironfs_gathered_bytes_total",
            "Bytes of shards that nodes rebuilt or moved among themselves, past this machine.",
            self.gathered.load(Ordering::Relaxed),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::{ByCode, COMPRESSIONS, place, schemes};
    use crate::class::Compression;

    #[test]
    fn each_code_has_the_place_that_it_is_listed_at() {
        let mut expected = 0;
        for scheme in schemes() {
            scheme.validate().unwrap();
            assert_eq!(place(scheme, Compression::None), expected, "{scheme}");
            assert_eq!(place(scheme, Compression::Zstd(9)), expected + 1, "{scheme}");
            expected += COMPRESSIONS.len();
        }
        assert_eq!(ByCode::new().0.len(), expected);
    }
}
