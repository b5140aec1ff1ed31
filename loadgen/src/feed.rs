//! Calls of a file on their way to the users: read ahead, within bounds, by a thread of its own.
//!
//! Reading a file and its JSON takes time that no user has while calls are due.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::tickets::{Ticket, Tickets};
use crate::workload::RecordingError;

/// Calls that are read ahead.
const AHEAD: usize = 1024;
/// Bytes of them; a single call may have more.
const AHEAD_BYTES: usize = 64 << 20;

/// Calls of a file, each taken once.
pub(crate) struct Feed {
    calls: Mutex<mpsc::Receiver<Fed>>,
    is_ready: watch::Receiver<bool>,
    is_broken: Arc<AtomicBool>,
}

/// A call, and its room among what is read ahead: others may have that once the call is taken.
type Fed = (Ticket, OwnedSemaphorePermit);

/// What reads ahead.
struct Reader {
    tickets: Tickets,
    calls: mpsc::Sender<Fed>,
    is_ready: watch::Sender<bool>,
    room: Arc<Semaphore>,
    runtime: Handle,
}

// === impl Feed ===

impl Feed {
    /// Begins to read. Must be called on a runtime.
    pub(crate) fn start(tickets: Tickets) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let is_broken = Arc::new(AtomicBool::new(false));
        let room = Arc::new(Semaphore::new(AHEAD_BYTES));
        let (ready, is_ready) = watch::channel(false);
        let runtime = Handle::current();
        let reader = Reader { tickets, calls: sender, is_ready: ready, room, runtime };
        let broken = is_broken.clone();
        std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
            if let Err(error) = reader.read() {
                broken.store(true, Relaxed);
                tracing::error!(%error, "cannot read on");
            }
        })?;
        Ok(Self { calls: Mutex::new(receiver), is_ready, is_broken })
    }

    /// Waits until as much is read ahead as may be: to put the first calls of a file in order may take
    /// a while.
    pub(crate) async fn ready(&self) {
        // Where the reader is gone, there is nothing to wait for.
        let _ = self.is_ready.clone().wait_for(|is_ready| *is_ready).await;
    }

    /// The next call; none where there are no more.
    pub(crate) async fn next(&self) -> Option<Ticket> {
        let (ticket, _) = self.calls.lock().await.recv().await?;
        Some(ticket)
    }

    /// How many of those that nobody took were due before this.
    pub(crate) async fn due_before(&self, end: Duration) -> u64 {
        let mut unsent = 0;
        while let Some(Ticket { due: Some(due), .. }) = self.next().await {
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
    /// Reads as long as there is something to read and somebody to take it.
    fn read(mut self) -> Result<(), RecordingError> {
        while let Some(ticket) = self.tickets.next().transpose()? {
            if !self.hand_over(ticket) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until there is room. Says whether anybody still wants calls.
    fn hand_over(&self, ticket: Ticket) -> bool {
        let bytes = ticket.asked.as_ref().map_or(0, |asked| asked.bytes());
        let bytes = bytes.clamp(1, AHEAD_BYTES) as u32;
        if self.calls.capacity() == 0 || self.room.available_permits() < bytes as usize {
            self.is_ready.send_replace(true);
        }
        let room = self.runtime.block_on(self.room.clone().acquire_many_owned(bytes));
        let room = room.expect("it is never closed");
        self.calls.blocking_send((ticket, room)).is_ok()
    }
}
