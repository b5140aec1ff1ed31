//! Calls of a file on their way to the users: read ahead, within bounds, by a thread of its own.
//!
//! Reading a file and its JSON takes time that no user has while calls are due.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::run::Plan;
use crate::schedule::{Arrivals, Schedule};
use crate::workload::{Asked, Recording, RecordingError};

/// Calls that are read ahead.
const AHEAD: usize = 1024;
/// Bytes of them; a single call may have more.
const AHEAD_BYTES: usize = 64 << 20;

/// Calls of a file, each taken once.
pub(crate) struct Feed {
    calls: Mutex<mpsc::Receiver<Fed>>,
    is_broken: Arc<AtomicBool>,
}

/// A call that is to be made.
pub(crate) struct Fed {
    /// Which one it is of all calls of the load, counted from 0.
    pub(crate) number: u64,
    /// When it is due, where time decides that.
    pub(crate) due: Option<Duration>,
    pub(crate) asked: Asked,
    /// Room among what is read ahead; others may have it once the call is taken.
    _room: OwnedSemaphorePermit,
}

/// What reads ahead.
struct Reader {
    recording: Recording,
    plan: Plan,
    arrivals: Option<Arrivals>,
    calls: mpsc::Sender<Fed>,
    room: Arc<Semaphore>,
    runtime: Handle,
}

// === impl Feed ===

impl Feed {
    /// Begins to read. Must be called on a runtime.
    pub(crate) fn start(recording: Recording, plan: Plan) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let is_broken = Arc::new(AtomicBool::new(false));
        let arrivals = plan.schedule.arrivals(plan.seed);
        let room = Arc::new(Semaphore::new(AHEAD_BYTES));
        let runtime = Handle::current();
        let reader = Reader { recording, plan, arrivals, calls: sender, room, runtime };
        let broken = is_broken.clone();
        std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
            if let Err(error) = reader.read() {
                broken.store(true, Relaxed);
                tracing::error!(%error, "cannot read on");
            }
        })?;
        Ok(Self { calls: Mutex::new(receiver), is_broken })
    }

    /// The next call; none where there are no more.
    pub(crate) async fn next(&self) -> Option<Fed> {
        self.calls.lock().await.recv().await
    }

    /// How many of those that nobody took were due before this.
    pub(crate) async fn due_before(&self, end: Duration) -> u64 {
        let mut unsent = 0;
        while let Some(Fed { due: Some(due), .. }) = self.next().await {
            if due >= end {
                break;
            }
            unsent += 1;
        }
        unsent
    }

    /// Whether the file could not be read to its end.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Relaxed)
    }
}

// === impl Reader ===

impl Reader {
    /// Reads as long as there is something to read and somebody to take it. Where the file does not say
    /// when, it begins again at its end.
    fn read(mut self) -> Result<(), RecordingError> {
        let begins_again = !matches!(self.plan.schedule, Schedule::Recorded { .. });
        let mut number = 0;
        loop {
            for row in self.recording.replay() {
                let row = row?;
                let due = self.due(row.at);
                let is_over = due.is_some_and(|due| due >= self.plan.duration);
                let is_ours = self.plan.shard.takes(number);
                if is_over || is_ours && !self.hand_over(number, due, row.asked) {
                    return Ok(());
                }
                number += 1;
            }
            if !begins_again {
                return Ok(());
            }
        }
    }

    fn due(&mut self, at: Option<i64>) -> Option<Duration> {
        match self.plan.schedule {
            Schedule::Recorded { speed } => Some(self.recording.offset(at?).div_f64(speed)),
            _ => self.arrivals.as_mut()?.next(),
        }
    }

    /// Waits until there is room. Says whether anybody still wants calls.
    fn hand_over(&self, number: u64, due: Option<Duration>, asked: Asked) -> bool {
        let bytes = asked.bytes().clamp(1, AHEAD_BYTES) as u32;
        let room = self.runtime.block_on(self.room.clone().acquire_many_owned(bytes));
        let room = room.expect("it is never closed");
        self.calls.blocking_send(Fed { number, due, asked, _room: room }).is_ok()
    }
}
