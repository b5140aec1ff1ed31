//! How much the simulated server can do: so many sequences at once, then a queue, then no more.
//!
//! First come, first served. A place is held by a [`Slot`] and given back when that is dropped, so
//! a caller who leaves, waiting or served, frees it at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Room for sequences that run and for calls that wait.
#[derive(Debug)]
pub(super) struct Capacity {
    /// Who may be inside at all: running or waiting.
    places: Arc<Semaphore>,
    /// Who may run. The semaphore serves its waiters in order.
    running: Arc<Semaphore>,
    /// How many may run, and how many may be inside.
    sizes: (usize, usize),
}

/// How much of it is taken at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Sequences that could run.
    pub(super) sequences: usize,
    /// Sequences that run.
    pub(super) running: usize,
    /// Calls that wait.
    pub(super) waiting: usize,
}

/// The right to run one sequence.
#[derive(Debug)]
pub(super) struct Slot {
    _running: OwnedSemaphorePermit,
    _place: OwnedSemaphorePermit,
}

/// Every sequence runs and the queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overloaded;

impl Capacity {
    pub(super) fn new(sequences: usize, queue: usize) -> Self {
        let sequences = sequences.clamp(1, Semaphore::MAX_PERMITS);
        let places = sequences.saturating_add(queue).min(Semaphore::MAX_PERMITS);
        Self {
            places: Arc::new(Semaphore::new(places)),
            running: Arc::new(Semaphore::new(sequences)),
            sizes: (sequences, places),
        }
    }

    /// How much of it is taken. One that has just been let in may still count as waiting.
    pub(super) fn load(&self) -> Load {
        let (sequences, places) = self.sizes;
        let running = sequences - self.running.available_permits();
        let inside = places - self.places.available_permits();
        Load { sequences, running, waiting: inside.saturating_sub(running) }
    }

    /// Waits for a slot, unless too many wait already.
    pub(super) async fn admit(&self) -> Result<Slot, Overloaded> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Overloaded)?;
        let running = self.running.clone().acquire_owned().await.map_err(|_| Overloaded)?;
        Ok(Slot { _running: running, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn one_call_more_than_fits_is_refused_at_once() {
        let capacity = Capacity::new(1, 1);
        let _running = capacity.admit().await.expect("the first runs");
        let mut waiting = Box::pin(capacity.admit());
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err(), "the second waits");

        assert_eq!(capacity.admit().await.expect_err("the third is refused"), Overloaded);
        assert_eq!(capacity.load(), Load { sequences: 1, running: 1, waiting: 1 });
    }

    #[tokio::test(start_paused = true)]
    async fn the_queue_moves_in_order_as_slots_come_free() {
        let capacity = Arc::new(Capacity::new(1, 8));
        let start = Instant::now();
        let calls: Vec<_> = (0..4)
            .map(|_| {
                let capacity = capacity.clone();
                tokio::spawn(async move {
                    let _slot = capacity.admit().await.expect("there is room to wait");
                    sleep(Duration::from_secs(1)).await;
                    start.elapsed().as_secs()
                })
            })
            .collect();

        let mut ended = Vec::new();
        for call in calls {
            ended.push(call.await.expect("no call panics"));
        }
        assert_eq!(ended, [1, 2, 3, 4]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_stops_waiting_leaves_the_queue() {
        let capacity = Capacity::new(1, 1);
        let _running = capacity.admit().await.expect("the first runs");
        let left = timeout(Duration::from_secs(1), capacity.admit()).await;
        assert!(left.is_err(), "the second never ran");

        let waited = timeout(Duration::from_secs(1), capacity.admit()).await;
        assert!(waited.is_err(), "the place in the queue is free, so the third waits");
    }
}
