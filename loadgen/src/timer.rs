//! Waking when a call is due, to some ten microseconds.
//!
//! The timers of tokio have milliseconds, and every call would be as late as they are. The kernel's own
//! are exact, and wake the same poll as the sockets do (timerfd_create(2)), so they need no thread.

use tokio::time::Instant;

/// What one user waits with; it costs nothing before it is first used.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    #[cfg(target_os = "linux")]
    exact: Option<linux::Exact>,
}

// === impl Timer ===

impl Timer {
    /// Waits until that moment.
    pub(crate) async fn sleep_until(&mut self, due: Instant) {
        #[cfg(target_os = "linux")]
        if self.wait(due).await.is_ok() {
            return;
        }
        // Without a descriptor to spare a call is a millisecond late, and that is reported as its lag.
        tokio::time::sleep_until(due).await;
    }

    #[cfg(target_os = "linux")]
    async fn wait(&mut self, due: Instant) -> std::io::Result<()> {
        let exact = match self.exact.take() {
            Some(exact) => exact,
            None => linux::Exact::new()?,
        };
        self.exact.insert(exact).wait(due).await
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;
    use tokio::time::Instant;

    /// A timer of the kernel.
    #[derive(Debug)]
    pub(super) struct Exact(AsyncFd<OwnedFd>);

    impl Exact {
        #[allow(
            deprecated,
            reason = "what takes its place is unsafe for descriptors that are replaced"
        )]
        pub(super) fn new() -> io::Result<Self> {
            let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            AsyncFd::with_interest(timer, Interest::READABLE).map(Self)
        }

        pub(super) async fn wait(&self, due: Instant) -> io::Result<()> {
            loop {
                let left = due.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(());
                }
                let it_value = Timespec::try_from(left).map_err(io::Error::other)?;
                let it_interval = Timespec { tv_sec: 0, tv_nsec: 0 };
                let once = Itimerspec { it_interval, it_value };
                timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &once)?;
                // What is ready may be so from a wait that was given up; then it is waited again. Each
                // expiry wakes anew, so how often it expired need not be read.
                self.0.readable().await?.clear_ready();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn nobody_wakes_before_it_is_time() {
        let mut timer = Timer::default();
        for micros in [0, 1, 300, 1_700, 20_000] {
            let due = Instant::now() + Duration::from_micros(micros);
            timer.sleep_until(due).await;
            assert!(Instant::now() >= due, "after {micros} µs");
        }
    }

    #[tokio::test]
    async fn a_wait_that_was_given_up_does_not_end_the_next_one() {
        let mut timer = Timer::default();
        let now = Instant::now();
        let given_up = timer.sleep_until(now + Duration::from_millis(5));
        timeout(Duration::from_millis(1), given_up).await.expect_err("it was given up");
        tokio::time::sleep(Duration::from_millis(10)).await;
        let due = Instant::now() + Duration::from_millis(20);
        timer.sleep_until(due).await;
        assert!(Instant::now() >= due);
    }
}
