//! Why calls of one route got no kept answer, and why answers were not kept.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::admission::Reason;

/// The counts of one route, of all workers.
#[derive(Debug, Default)]
pub(crate) struct Tally([AtomicU64; Reason::ALL.len()]);

impl Tally {
    pub(crate) fn count(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// Each reason that there was, and how often.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Reason, u64)> {
        let count = |reason: Reason| (reason, self.0[reason as usize].load(Relaxed));
        Reason::ALL.into_iter().map(count).filter(|(_, count)| *count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_count_and_a_word_of_its_own() {
        let tally = Tally::default();
        for (times, reason) in Reason::ALL.into_iter().enumerate() {
            (0..=times).for_each(|_| tally.count(reason));
        }
        let counts: Vec<_> = tally.all().collect();
        let expected: Vec<_> = Reason::ALL.into_iter().zip(1..).collect();
        assert_eq!(counts, expected);
        let words: std::collections::BTreeSet<_> = Reason::ALL.map(Reason::as_str).into();
        assert_eq!(words.len(), Reason::ALL.len());
    }
}
