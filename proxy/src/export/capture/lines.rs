//! A file of lines, which a thread of its own syncs: a slow disk holds up nobody.
//!
//! Lines that are to be sealed are held until they are synced, or are as many as one message holds:
//! what sealing costs is shared by all of a round. A crash takes what is held, as it may take what was
//! written and not synced.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_seal::Recipients;
use tidegate_wire::capture::write_sealed;
use tracing::{info, warn};

use crate::export::metrics::lock;
use crate::export::rotating::{Rotating, Torn, count_lines, whole_lines};
use crate::export::stand_back;

/// Lines are written when so many bytes are together.
const BUFFER_BYTES: usize = 64 << 10;

/// The file and its thread.
#[derive(Debug)]
pub(super) struct Lines {
    shared: Arc<Shared>,
    /// Taken when it ends.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    woken: Condvar,
}

/// What was not written yet, and what was written and not synced.
#[derive(Debug)]
pub(super) struct State {
    file: Rotating,
    /// Who can open what is written; whoever may read the file, where absent.
    recipients: Option<Recipients>,
    /// Whole lines.
    buffer: Vec<u8>,
    /// Where lines are counted that were lost.
    lost: Arc<AtomicU64>,
    /// Whether the last write failed: said once, not for every batch.
    failing: bool,
    /// Each file once, by how often the file had been opened.
    unsynced: Vec<(u64, File)>,
    is_over: bool,
}

// === impl Lines ===

impl Lines {
    /// Goes on with this file, and syncs it so often.
    pub(super) fn start(
        file: Rotating,
        recipients: Option<Recipients>,
        interval: Duration,
    ) -> io::Result<Self> {
        let state = State {
            file,
            recipients,
            buffer: Vec::new(),
            lost: Arc::default(),
            failing: false,
            unsynced: Vec::new(),
            is_over: false,
        };
        let shared = Arc::new(Shared { state: Mutex::new(state), woken: Condvar::new() });
        let theirs = shared.clone();
        let sync = move || {
            stand_back();
            while let Some(files) = theirs.round(interval) {
                for error in files.iter().filter_map(|(_, file)| file.sync_data().err()) {
                    warn!(%error, "the capture cannot be synced");
                }
            }
        };
        let thread = std::thread::Builder::new().name("capture".to_owned()).spawn(sync)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Has what is added here synced with the next round.
    pub(super) fn add_to(&self, add: impl FnOnce(&mut State)) {
        let mut state = self.state();
        let was_idle = state.is_idle();
        add(&mut state);
        if state.recipients.is_none() {
            state.flush();
        }
        // Where it was not, a round has begun already.
        if was_idle && !state.is_idle() {
            self.shared.woken.notify_one();
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.state().is_over = true;
        self.shared.woken.notify_one();
        _ = self.thread.take().map(JoinHandle::join);
    }
}

// === impl Shared ===

impl Shared {
    /// Waits until there is something to sync, and for so long after it, for more to come. Nothing
    /// where all is synced and no more will come.
    fn round(&self, interval: Duration) -> Option<Vec<(u64, File)>> {
        let waited = self.woken.wait_while(lock(&self.state), |state| state.is_idle());
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        let waited = self.woken.wait_timeout_while(state, interval, |state| !state.is_over);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.flush();
        let files = std::mem::take(&mut state.unsynced);
        (!files.is_empty() || !state.is_over).then_some(files)
    }
}

// === impl State ===

impl State {
    /// Adds one whole line.
    pub(super) fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush();
        }
    }

    /// Counts there what is lost from now on.
    pub(super) fn count_in(&mut self, lost: Arc<AtomicU64>) {
        self.lost = lost;
    }

    pub(super) fn reopen(&mut self) {
        self.file.reopen();
    }

    fn is_idle(&self) -> bool {
        self.unsynced.is_empty() && self.buffer.is_empty() && !self.is_over
    }

    /// Writes what the buffer holds.
    fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        // Should this panic, the next round does not begin with what it panicked at.
        let mut lines = std::mem::take(&mut self.buffer);
        let result = self.write(&lines);
        if let Err(torn) = &result {
            let kept = whole_lines(&lines[..torn.written]);
            self.lost.fetch_add(count_lines(&lines[kept..]), Ordering::Relaxed);
        }
        lines.clear();
        self.buffer = lines;
        self.tell(result);
        let is_there = |(opened, _): &(u64, File)| *opened == self.file.opened();
        if let Some(handle) = self.file.handle().filter(|_| !self.unsynced.iter().any(is_there)) {
            self.unsynced.push((self.file.opened(), handle));
        }
    }

    /// Sealed lines are one line, which is there whole or not at all.
    fn write(&mut self, lines: &[u8]) -> Result<(), Torn> {
        let Some(recipients) = &self.recipients else { return self.file.write(lines) };
        let nothing_written = |error| Torn { written: 0, error };
        let message = recipients.seal(lines).map_err(nothing_written)?;
        let mut line = Vec::new();
        write_sealed(&message, &mut line);
        self.file.write(&line).map_err(|torn| nothing_written(torn.error))
    }

    fn tell(&mut self, result: Result<(), Torn>) {
        let file = self.file.path.display();
        match result {
            Err(Torn { error, .. }) if !self.failing => {
                warn!(%error, %file, "calls cannot be captured and are dropped");
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(%file, "calls are captured again");
                self.failing = false;
            }
            _ => {}
        }
    }
}
