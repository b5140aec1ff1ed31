//! What a store was asked, what came of it, and how long that took.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::trouble::Trouble;
use crate::export::metrics::{Histogram, SECONDS_ADDED, lock};

/// What a store is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    CacheGet,
    CachePut,
    QuotaAdmit,
    QuotaSettle,
}

/// The counts of one store.
#[derive(Debug)]
pub(super) struct Tally([OfOperation; Operation::ALL.len()]);

#[derive(Debug)]
struct OfOperation {
    answered: AtomicU64,
    /// It was not asked, for it is not well or too much waits for it.
    skipped: AtomicU64,
    failed: [AtomicU64; Trouble::ALL.len()],
    took: Mutex<Histogram>,
}

impl Operation {
    pub(super) const ALL: [Self; 4] =
        [Self::CacheGet, Self::CachePut, Self::QuotaAdmit, Self::QuotaSettle];

    /// The word of metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::CacheGet => "cache_get",
            Self::CachePut => "cache_put",
            Self::QuotaAdmit => "quota_admit",
            Self::QuotaSettle => "quota_settle",
        }
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self(Operation::ALL.map(|_| OfOperation {
            answered: AtomicU64::default(),
            skipped: AtomicU64::default(),
            failed: Default::default(),
            took: Mutex::new(Histogram::new(SECONDS_ADDED)),
        }))
    }
}

impl Tally {
    /// It was asked, and answered or not after so long.
    pub(super) fn count(&self, operation: Operation, result: Result<(), Trouble>, took: Duration) {
        let of = &self.0[operation as usize];
        let count = match result {
            Ok(()) => &of.answered,
            Err(trouble) => &of.failed[trouble as usize],
        };
        count.fetch_add(1, Relaxed);
        lock(&of.took).observe(Some(took.as_secs_f64()));
    }

    /// It was not asked.
    pub(super) fn skip(&self, operation: Operation) {
        self.0[operation as usize].skipped.fetch_add(1, Relaxed);
    }

    /// How often what came of what; whatever never happened is not among it.
    pub(super) fn all(&self) -> impl Iterator<Item = (Operation, &'static str, u64)> {
        Operation::ALL.into_iter().zip(&self.0).flat_map(|(operation, of)| {
            let own = [("ok", &of.answered), ("skipped", &of.skipped)].into_iter();
            let failed = Trouble::ALL.into_iter().map(Trouble::as_str).zip(&of.failed);
            let all =
                own.chain(failed).map(move |(word, count)| (operation, word, count.load(Relaxed)));
            all.filter(|(_, _, count)| *count > 0)
        })
    }

    /// How long each took.
    pub(super) fn times(&self) -> impl Iterator<Item = (Operation, Histogram)> {
        Operation::ALL
            .into_iter()
            .zip(&self.0)
            .map(|(operation, of)| (operation, lock(&of.took).clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_result_of_each_operation_has_a_count_of_its_own() {
        let tally = Tally::default();
        for (operation, times) in Operation::ALL.into_iter().zip(1..) {
            (0..times).for_each(|_| tally.skip(operation));
            tally.count(operation, Ok(()), Duration::ZERO);
            for trouble in Trouble::ALL {
                tally.count(operation, Err(trouble), Duration::ZERO);
            }
        }
        let all: Vec<_> = tally.all().collect();
        assert_eq!(all.len(), Operation::ALL.len() * (Trouble::ALL.len() + 2));
        let skipped =
            all.iter().filter(|(_, word, _)| *word == "skipped").map(|(.., count)| *count);
        assert_eq!(skipped.collect::<Vec<_>>(), [1, 2, 3, 4]);
        let words: std::collections::BTreeSet<_> = all.iter().map(|(_, word, _)| *word).collect();
        assert_eq!(words.len(), Trouble::ALL.len() + 2);
    }
}
