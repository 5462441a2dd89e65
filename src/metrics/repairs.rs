//! Attempts to restore stripes, by how they ended.

use super::Page;
use crate::error::{ErrorKind, Posix};
use std::sync::atomic::{AtomicU64, Ordering};

/// How an attempt to restore a stripe ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RepairResult {
    /// All its shards are good.
    Done,
    /// Some are.
    Partial,
    /// Nothing was restored; it is tried again.
    Skipped,
    /// Nothing was restored.
    Failed,
}

impl RepairResult {
    const ALL: [Self; 4] = [Self::Done, Self::Partial, Self::Skipped, Self::Failed];

    /// The word for it, in the repair log too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Partial => "partial",
            Self::Skipped => "skipped",
            Self::Failed => "failed",
        }
    }
}

/// What kept shards from being restored: few words, whatever the error says.
const CAUSES: [&str; 9] = [
    "unavailable",
    "corrupt",
    "no_space",
    "not_found",
    "fenced",
    "refused",
    "internal",
    "superseded",
    "other",
];

/// Which of `CAUSES` an error is.
const fn cause(kind: ErrorKind) -> usize {
    match kind {
        ErrorKind::Unavailable => 0,
        ErrorKind::Corrupt => 1,
        ErrorKind::Posix(Posix::NoSpace) => 2,
        ErrorKind::Posix(Posix::NotFound) => 3,
        ErrorKind::Fenced => 4,
        ErrorKind::Refused => 5,
        ErrorKind::Internal => 6,
        ErrorKind::Superseded => 7,
        ErrorKind::Posix(_) => 8,
    }
}

/// Counts of attempts.
#[derive(Debug, Default)]
pub struct RepairMetrics {
    attempts: [AtomicU64; RepairResult::ALL.len()],
    failures: [AtomicU64; CAUSES.len()],
    bytes: AtomicU64,
}

impl RepairMetrics {
    /// One more attempt has ended: how, why not all was done, and bytes of the shards that were restored.
    pub fn note(&self, result: RepairResult, error: Option<ErrorKind>, bytes: u64) {
        self.attempts[result as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(kind) = error {
            self.failures[cause(kind)].fetch_add(1, Ordering::Relaxed);
        }
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Puts them on the page.
    pub fn write(&self, page: &mut Page) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        page.counters(
            "storage_repair_attempts_total",
            "Attempts to restore a stripe, by how they ended.",
            ["status"],
            RepairResult::ALL
                .iter()
                .zip(&self.attempts)
                .map(|(result, n)| ([result.name()], load(n))),
        );
        page.counters(
            "storage_repair_failures_total",
            "Attempts that did not restore all of a stripe, by the kind of the first error.",
            ["error"],
            CAUSES.iter().zip(&self.failures).map(|(name, count)| ([*name], load(count))),
        );
        let help = "Bytes of shards that were restored.";
        page.counter("storage_repair_bytes_total", help, load(&self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::{CAUSES, RepairResult, cause};
    use crate::error::{ErrorKind, Posix};

    #[test]
    fn every_error_has_a_word() {
        let check = |kind, word| assert_eq!(CAUSES[cause(kind)], word, "{kind:?}");
        check(ErrorKind::Unavailable, "unavailable");
        check(ErrorKind::Fenced, "fenced");
        check(ErrorKind::Superseded, "superseded");
        check(ErrorKind::Corrupt, "corrupt");
        check(ErrorKind::Refused, "refused");
        check(ErrorKind::Internal, "internal");
        for posix in Posix::ALL {
            let word = match posix {
                Posix::NoSpace => "no_space",
                Posix::NotFound => "not_found",
                _ => "other",
            };
            check(ErrorKind::Posix(posix), word);
        }
    }

    #[test]
    fn results_are_counted_where_they_are_listed() {
        for (number, result) in RepairResult::ALL.into_iter().enumerate() {
            assert_eq!(result as usize, number, "{result:?}");
        }
    }
}
