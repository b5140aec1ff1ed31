//! A kept answer on its way to a caller, piece by piece as it came.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::entry::Entry;
use crate::exchange::Notes;

/// The body of a kept answer.
#[derive(Debug)]
pub(crate) struct Replay {
    entry: Arc<Entry>,
    /// Pieces that have gone.
    gone: usize,
    notes: Rc<Notes>,
}

impl Replay {
    pub(crate) fn new(entry: Arc<Entry>, notes: Rc<Notes>) -> Self {
        Self { entry, gone: 0, notes }
    }

    /// The next piece; `None` is the end.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
        let end = self.entry.pieces.get(self.gone)?.end as usize;
        let start = self.gone.checked_sub(1).map_or(0, |at| self.entry.pieces[at].end as usize);
        self.gone += 1;
        let piece = self.entry.body.slice(start..end);
        self.notes.replayed(&piece);
        Some(piece)
    }
}
