//! What time it is, for windows that slide and for those of the calendar.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

/// One moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Milliseconds since this process began to count: a clock that nobody sets.
    pub(crate) steady: i64,
    /// The date and time.
    pub(crate) wall: Timestamp,
}

/// Where the time comes from.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Now + Send + Sync>);

impl Clock {
    /// The system's time.
    pub(crate) fn system() -> Self {
        let start = Instant::now();
        Self::new(move || Now {
            steady: i64::try_from(start.elapsed().as_millis()).unwrap_or(i64::MAX),
            wall: Timestamp::now(),
        })
    }

    /// The time that this says.
    pub(crate) fn new(now: impl Fn() -> Now + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    pub(crate) fn now(&self) -> Now {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
