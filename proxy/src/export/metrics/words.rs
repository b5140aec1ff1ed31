//! The words that become label values: so many, and no more.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use rustc_hash::{FxHashMap, FxHashSet};

use super::OTHER;

/// Longer words never become label values.
const WORD_BYTES: usize = 128;
/// Words of one kind that a worker counts; who writes them into records has fewer.
const WORDS: usize = 32;

/// Words that may become label values: those known from the start, and a number of others.
#[derive(Debug)]
pub(crate) struct Names {
    admitted: RwLock<FxHashSet<Arc<str>>>,
    limit: AtomicUsize,
}

/// What one worker knows of [`Names`], so that workers do not meet at every call.
#[derive(Debug)]
pub(super) struct LocalNames {
    shared: Arc<Names>,
    admitted: FxHashSet<Arc<str>>,
    other: Arc<str>,
}

/// How often a record had which word of a small vocabulary.
#[derive(Debug, Default)]
pub(super) struct Words(FxHashMap<Arc<str>, u64>);

// === impl Names ===

impl Names {
    pub(super) fn new(known: impl IntoIterator<Item = Arc<str>>, others: usize) -> Self {
        let known: FxHashSet<_> = known.into_iter().collect();
        Self { limit: AtomicUsize::new(known.len() + others), admitted: RwLock::new(known) }
    }

    /// From now on these are known, too, and take no other's room.
    pub(super) fn know(&self, words: impl IntoIterator<Item = Arc<str>>) {
        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        for word in words {
            if admitted.insert(word) {
                self.limit.fetch_add(1, Relaxed);
            }
        }
    }

    /// The word, if it is admitted or, where it may `join`, there still is room.
    pub(crate) fn admit(&self, word: &str, join: bool) -> Option<Arc<str>> {
        let admitted = self.admitted.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = admitted.get(word) {
            return Some(name.clone());
        }
        if !join || word.len() > WORD_BYTES || admitted.len() >= self.limit.load(Relaxed) {
            return None;
        }
        drop(admitted);

        let mut admitted = self.admitted.write().unwrap_or_else(PoisonError::into_inner);
        if !admitted.contains(word) && admitted.len() >= self.limit.load(Relaxed) {
            return None;
        }
        let name: Arc<str> = word.into();
        admitted.insert(name.clone());
        Some(name)
    }
}

// === impl LocalNames ===

impl LocalNames {
    pub(super) fn new(shared: Arc<Names>) -> Self {
        Self { shared, admitted: FxHashSet::default(), other: OTHER.into() }
    }

    /// The label value for this word, which may `join` the others if there is room.
    pub(super) fn value(&mut self, word: &str, join: bool) -> &str {
        if !self.admitted.contains(word) {
            match self.shared.admit(word, join) {
                Some(name) => _ = self.admitted.insert(name),
                None => return &self.other,
            }
        }
        self.admitted.get(word).expect("it was there or has been inserted")
    }
}

// === impl Words ===

impl Words {
    pub(super) fn count(&mut self, word: &Arc<str>) {
        let words = &mut self.0;
        if let Some(count) = words.get_mut(word) {
            *count += 1;
        } else if words.len() < WORDS {
            words.insert(word.clone(), 1);
        } else {
            *words.entry(OTHER.into()).or_default() += 1;
        }
    }

    pub(super) fn counts(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(word, count)| (&**word, *count))
    }
}
