//! A limit in time that moves with every chunk, at the cost of a store.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The runtime's timer is armed at most so far ahead. A limit that moves on is noticed when that
/// fires, so moving it touches no timer wheel.
const TICK: Duration = Duration::from_secs(15);

/// A limit that can be moved.
#[derive(Debug)]
pub(crate) struct Timer {
    sleep: Pin<Box<Sleep>>,
    due: Instant,
}

impl Timer {
    /// A limit at that time.
    pub(crate) fn at(due: Instant) -> Self {
        let armed = due.min(Instant::now() + TICK);
        Self { sleep: Box::pin(sleep_until(armed)), due }
    }

    /// Moves the limit.
    pub(crate) fn set(&mut self, due: Instant) {
        self.due = due;
        if due < self.sleep.deadline() {
            self.sleep.as_mut().reset(due);
        }
    }

    /// Resolves when the limit has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.sleep.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now >= self.due {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.due.min(now + TICK));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_fires_when_it_is_due_however_often_it_was_moved() {
        let start = Instant::now();
        let mut timer = Timer::at(start + Duration::from_secs(900));
        timer.set(start + Duration::from_secs(10));
        timer.set(start + Duration::from_secs(100));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(100));
        timer.set(start + Duration::from_secs(101));
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(Instant::now() - start, Duration::from_secs(101));
    }
}
