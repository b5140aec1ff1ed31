//! Answers that are kept in memory, of all routes and workers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::sync::Cache;
use rustc_hash::FxBuildHasher;

use super::entry::Entry;
use super::key::{Id, Key};

/// Answers by the keys of their calls, up to so many bytes; of those that are asked for least often
/// the oldest go first.
#[derive(Debug)]
pub(crate) struct Memory {
    // The keys are as good as random: to hash them again would mix nothing better.
    entries: Cache<Id, Arc<Entry>, FxBuildHasher>,
    evictions: Arc<Evictions>,
}

/// How many answers are gone, and why.
#[derive(Debug, Default)]
pub(crate) struct Evictions {
    size: AtomicU64,
    expired: AtomicU64,
}

/// Each answer is kept as long as its route says, from when it was given for the first time: one that
/// comes from elsewhere is no younger for that.
struct Keep;

impl Memory {
    pub(crate) fn new(bytes: u64) -> Self {
        let evictions = Arc::new(Evictions::default());
        let counts = evictions.clone();
        let weight = |_: &Id, entry: &Arc<Entry>| u32::try_from(entry.size()).unwrap_or(u32::MAX);
        let entries = Cache::builder()
            .max_capacity(bytes)
            .weigher(weight)
            .expire_after(Keep)
            .eviction_listener(move |_, _, cause| counts.count(cause))
            .build_with_hasher(FxBuildHasher);
        Self { entries, evictions }
    }

    /// The answer to a call of this key.
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        self.entries.get(&key.id).filter(|entry| entry.is_for(key))
    }

    /// Keeps an answer.
    pub(crate) fn put(&self, key: &Key, entry: Arc<Entry>) {
        self.entries.insert(key.id, entry);
    }

    /// Answers that are kept, and the bytes that they take.
    pub(crate) fn size(&self) -> (u64, u64) {
        // What was put or has gone since the last look is not counted otherwise.
        self.entries.run_pending_tasks();
        (self.entries.entry_count(), self.entries.weighted_size())
    }

    /// How many answers are gone, by the word for the reason.
    pub(crate) fn evictions(&self) -> [(&'static str, u64); 2] {
        let Evictions { size, expired } = &*self.evictions;
        [("size", size.load(Relaxed)), ("expired", expired.load(Relaxed))]
    }
}

impl Evictions {
    fn count(&self, cause: RemovalCause) {
        match cause {
            RemovalCause::Size => _ = self.size.fetch_add(1, Relaxed),
            RemovalCause::Expired => _ = self.expired.fetch_add(1, Relaxed),
            // Another answer took its place.
            RemovalCause::Replaced | RemovalCause::Explicit => {}
        }
    }
}

impl Expiry<Id, Arc<Entry>> for Keep {
    fn expire_after_create(&self, _: &Id, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(entry.left())
    }

    fn expire_after_update(
        &self,
        _: &Id,
        entry: &Arc<Entry>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.left())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::head::ResponseHead;

    #[test]
    fn what_was_kept_elsewhere_is_kept_for_what_is_left_of_its_time() {
        let key = Key { id: [1; 32], check: [1; 32] };
        let keep = Duration::from_secs(60);
        let left = |age| {
            let head =
                ResponseHead { status: 200, reason: "OK".into(), fields: Default::default() };
            let (body, pieces, told) = Default::default();
            let entry = Entry::kept_elsewhere(key, age, keep, head, body, pieces, false, told);
            Keep.expire_after_create(&key.id, &entry.into(), Instant::now()).expect("it ends")
        };
        let near = |time: Duration, expected: u64| time.as_secs_f64().round() as u64 == expected;
        assert!(near(left(Duration::ZERO), 60));
        assert!(near(left(Duration::from_secs(50)), 10));
        assert_eq!(left(Duration::from_secs(70)), Duration::ZERO);
    }
}
