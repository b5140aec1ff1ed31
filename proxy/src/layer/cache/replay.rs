//! A kept stream on its way to a caller: piece by piece at once, or event by event at a set pace.

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use memchr::memmem;
use tokio::time::Instant;

use super::entry::Entry;
use crate::exchange::Notes;
use crate::timer::Timer;

/// The body of a kept answer.
#[derive(Debug)]
pub(crate) struct Replay {
    entry: Arc<Entry>,
    /// Bytes that have gone.
    gone: usize,
    notes: Rc<Notes>,
    pace: Option<Pace>,
}

/// When the next event may go.
#[derive(Debug)]
struct Pace {
    between: Duration,
    next: Timer,
    /// Whether events stand in the body as they are.
    is_plain_sse: bool,
}

impl Replay {
    /// All of it at once, or with so long between two events.
    pub(crate) fn new(entry: Arc<Entry>, notes: Rc<Notes>, between: Option<Duration>) -> Self {
        let is_plain_sse = is_plain_sse(&entry);
        let pace = between.map(|between| {
            let next = Timer::at(Instant::now());
            Pace { between, next, is_plain_sse }
        });
        Self { entry, gone: 0, notes, pace }
    }

    /// The next piece, once it may go; `None` is the end.
    pub(crate) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(end) = self.next_end() else { return Poll::Ready(None) };
        if let Some(pace) = &mut self.pace {
            ready!(pace.next.poll(cx));
            pace.next = Timer::at(Instant::now() + pace.between);
        }
        let piece = self.entry.body.slice(self.gone..end);
        self.gone = end;
        self.notes.replayed(&piece);
        Poll::Ready(Some(piece))
    }

    /// Where the next piece ends, if there is one: as it came, or with an event.
    fn next_end(&self) -> Option<usize> {
        let Entry { body, pieces, .. } = &*self.entry;
        if self.gone == body.len() {
            return None;
        }
        if self.pace.as_ref().is_some_and(|pace| pace.is_plain_sse) {
            let event = event_end(&body[self.gone..]);
            return Some(self.gone + event);
        }
        let at = pieces.partition_point(|piece| piece.end as usize <= self.gone);
        Some(pieces.get(at).map_or(body.len(), |piece| piece.end as usize))
    }
}

/// Whether the events of a stream can be told apart without decoding anything.
fn is_plain_sse(entry: &Entry) -> bool {
    let fields = &entry.head.fields;
    let kind = fields.get("content-type").unwrap_or_default();
    kind.starts_with(b"text/event-stream") && fields.get("content-encoding").is_none()
}

/// Where the first event ends: behind an empty line (HTML Standard, 9.2.6), else where all does.
fn event_end(bytes: &[u8]) -> usize {
    let ends = [&b"\n\n"[..], b"\r\n\r\n", b"\r\r"];
    let found = ends.iter().filter_map(|end| Some(memmem::find(bytes, end)? + end.len()));
    found.min().unwrap_or(bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_ends_behind_an_empty_line_however_lines_end() {
        for (bytes, event) in [
            ("data: a\n\ndata: b\n\n", "data: a\n\n"),
            ("data: a\r\n\r\ndata: b\n\n", "data: a\r\n\r\n"),
            ("data: a\r\rdata: b\n\n", "data: a\r\r"),
            ("event: x\ndata: a\n\n", "event: x\ndata: a\n\n"),
            ("data: cut", "data: cut"),
        ] {
            assert_eq!(event_end(bytes.as_bytes()), event.len(), "{bytes:?}");
        }
    }
}
