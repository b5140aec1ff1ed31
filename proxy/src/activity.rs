//! Whether calls are in flight, and when the last one came: what a drain waits for.

use std::sync::OnceLock;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// The calls of one worker.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    open: AtomicUsize,
    opened_ms: AtomicU64,
    cut: AtomicBool,
    leaving: AtomicBool,
    leaves: Notify,
}

impl Activity {
    pub(crate) fn opened(&self) {
        self.open.fetch_add(1, Relaxed);
        self.opened_ms.store(since_start().as_millis() as u64, Relaxed);
    }

    /// Something came that is no call.
    pub(crate) fn noticed(&self) {
        self.opened_ms.store(since_start().as_millis() as u64, Relaxed);
    }

    pub(crate) fn closed(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// From here on, callers are asked to make their next call elsewhere.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Release);
        self.leaves.notify_waiters();
    }

    /// Whether callers are to make their next call elsewhere.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.load(Acquire)
    }

    /// Ends once they are.
    pub(crate) async fn left(&self) {
        let mut leaves = std::pin::pin!(self.leaves.notified());
        // Heard from here on, so that it cannot be told between the look and the wait.
        leaves.as_mut().enable();
        if !self.is_leaving() {
            leaves.await;
        }
    }

    /// From here on, a call that ends is one that we let go of.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Whether the worker is letting go of its calls.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Calls in flight.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Relaxed)
    }

    /// How long no new call has come.
    pub(crate) fn quiet_for(&self) -> Duration {
        since_start().saturating_sub(Duration::from_millis(self.opened_ms.load(Relaxed)))
    }
}

fn since_start() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}
