//! What is under way, for whoever waits before a terminal.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is under way; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<Mutex<Vec<(String, Instant)>>>);

/// Is under way for as long as it is held.
#[derive(Debug)]
pub(super) struct UnderWay {
    progress: Progress,
    what: String,
}

impl Progress {
    /// What takes longer than this, and for how long it has.
    pub fn slower_than(&self, limit: Duration) -> Vec<(String, Duration)> {
        let taking = |(what, start): &(String, Instant)| (what.clone(), start.elapsed());
        self.with(|all| all.iter().map(taking).filter(|(_, taken)| *taken > limit).collect())
    }

    /// Something begins: `vertex: connect`.
    pub(super) fn begin(&self, what: String) -> UnderWay {
        self.with(|all| all.push((what.clone(), Instant::now())));
        UnderWay { progress: self.clone(), what }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Vec<(String, Instant)>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.progress.with(|all| {
            if let Some(at) = all.iter().position(|(what, _)| *what == self.what) {
                all.remove(at);
            }
        });
    }
}
