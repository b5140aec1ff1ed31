//! Plays a streamed answer: each chunk at its time, until the end or the fault.
//!
//! The times are a schedule from one start, so a slow reader delays what he does not read and
//! nothing after it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame};
use tokio::time::{Instant, Sleep, sleep_until};

use super::capacity::Slot;
use super::generation::{Generation, Token};
use super::overrides::Break;
use super::tally::Entry;

/// How long what was sent before a cut has to leave. A connection that breaks forgets what it holds.
const LAST_WORDS: Duration = Duration::from_millis(5);

/// Everything that a stream says, written by a dialect before it starts.
pub(super) struct Script {
    pub(super) content_type: &'static str,
    pub(super) headers: &'static [(&'static str, &'static str)],
    /// What comes with the head, before any token.
    pub(super) opening: Vec<u8>,
    /// The chunk that carries a token; empty where that waits for the next.
    pub(super) token: Box<dyn FnMut(Token) -> Vec<u8> + Send>,
    /// What follows the last token at once.
    pub(super) ending: Vec<u8>,
    /// What stands in the place of the rest if the model fails midway.
    pub(super) error: Vec<u8>,
}

/// A streamed answer on its way.
pub(super) struct Playback {
    script: Script,
    generation: Generation,
    start: Instant,
    timer: Pin<Box<Sleep>>,
    next: Step,
    fault: Option<Break>,
    /// Whether the fault has struck.
    is_broken: bool,
    /// Tokens that wait for the chunk they leave in: what a tool is given comes whole in some dialects.
    waiting: u64,
    /// What the call holds while it runs; given back with the last chunk, or when the caller leaves.
    held: Option<(Slot, Entry)>,
}

/// What is sent next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Opening,
    Token(u64),
    Ending,
    Broken,
    Stalled,
    Over,
}

/// The simulator broke the answer off, as it was told to.
#[derive(Debug, thiserror::Error)]
#[error("answer cut off on purpose")]
pub(super) struct CutOff;

impl Playback {
    pub(super) fn new(
        script: Script,
        generation: Generation,
        start: Instant,
        fault: Option<Break>,
        held: (Slot, Entry),
    ) -> Self {
        Self {
            timer: Box::pin(sleep_until(start + generation.due(0))),
            next: Step::Opening,
            waiting: 0,
            held: Some(held),
            script,
            generation,
            start,
            fault,
            is_broken: false,
        }
    }

    /// The chunk with this token, and what comes after it.
    fn token(&mut self, index: u64) -> Vec<u8> {
        let token = self.generation.token(index);
        self.next = if token.last { Step::Ending } else { Step::Token(index + 1) };
        if !token.last {
            self.timer.as_mut().reset(self.start + self.generation.due(index + 1));
        }
        let chunk = (self.script.token)(token);
        self.waiting += 1;
        if let Some((_, entry)) = self.held.as_mut().filter(|_| !chunk.is_empty()) {
            entry.give_out(std::mem::take(&mut self.waiting));
        }
        chunk
    }

    /// Goes wrong as the caller wished.
    fn break_off(&mut self, fault: Break) {
        if let Some((_, entry)) = &self.held {
            entry.fail();
        }
        self.is_broken = true;
        self.next = match fault {
            Break::Cut => {
                self.timer.as_mut().reset(Instant::now() + LAST_WORDS);
                Step::Broken
            }
            Break::Stall => Step::Stalled,
            Break::ErrorEvent | Break::Overload => {
                self.script.ending = std::mem::take(&mut self.script.error);
                Step::Ending
            }
        };
    }
}

impl Body for Playback {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let this = self.get_mut();
        loop {
            let chunk = match this.next {
                Step::Opening => {
                    this.next = Step::Token(0);
                    std::mem::take(&mut this.script.opening)
                }
                Step::Token(index) => {
                    ready!(this.timer.as_mut().poll(cx));
                    match this.fault.take_if(|_| index >= this.generation.breaks_at) {
                        Some(fault) => {
                            this.break_off(fault);
                            continue;
                        }
                        None => this.token(index),
                    }
                }
                Step::Ending => {
                    this.next = Step::Over;
                    let reason = this.generation.reason("stop", "length");
                    if let Some((_, mut entry)) = this.held.take().filter(|_| !this.is_broken) {
                        entry.finish(reason);
                    }
                    std::mem::take(&mut this.script.ending)
                }
                Step::Broken => {
                    ready!(this.timer.as_mut().poll(cx));
                    this.next = Step::Over;
                    this.held = None;
                    return Poll::Ready(Some(Err(CutOff)));
                }
                // Nothing wakes this but the connection, when the caller has had enough.
                Step::Stalled => return Poll::Pending,
                Step::Over => return Poll::Ready(None),
            };
            if !chunk.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(chunk.into()))));
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.next == Step::Over
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http_body_util::BodyExt;
    use jiff::Timestamp;

    use super::*;
    use crate::sim::capacity::Capacity;
    use crate::sim::tally::Tally;

    const TTFT: Duration = Duration::from_millis(200);
    const TPOT: Duration = Duration::from_millis(20);

    async fn playback(tally: &Arc<Tally>, fault: Option<Break>) -> Playback {
        let script = Script {
            content_type: "",
            headers: &[],
            opening: b"opening".to_vec(),
            token: Box::new(|token| token.index.to_string().into_bytes()),
            ending: b"ending".to_vec(),
            error: b"error".to_vec(),
        };
        let generation = Generation {
            id: 1,
            model: String::new(),
            input_tokens: 1,
            output_tokens: 4,
            reasoning_tokens: 0,
            choices: 1,
            tool: None,
            breaks_at: 2,
            capped: false,
            created: Timestamp::UNIX_EPOCH,
            ttft: TTFT,
            tpot: TPOT,
        };
        let slot = Capacity::new(1, 0).admit().await.expect("it is empty");
        Playback::new(script, generation, Instant::now(), fault, (slot, tally.open("", None)))
    }

    /// The chunks, each with the milliseconds since the start.
    async fn play(mut playback: Playback) -> Vec<(String, u128)> {
        let start = Instant::now();
        let mut chunks = Vec::new();
        while let Some(frame) = playback.frame().await {
            let Ok(chunk) = frame.map(Frame::into_data) else { break };
            let chunk = chunk.expect("it is data").to_vec();
            let chunk = String::from_utf8(chunk).expect("it is text");
            chunks.push((chunk, start.elapsed().as_millis()));
        }
        chunks
    }

    fn at(chunks: &[(&str, u128)]) -> Vec<(String, u128)> {
        chunks.iter().map(|(chunk, time)| ((*chunk).to_owned(), *time)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn chunks_leave_on_schedule() {
        let tally = Arc::default();
        let chunks = play(playback(&tally, None).await).await;
        let expected =
            [("opening", 0), ("0", 200), ("1", 220), ("2", 240), ("3", 260), ("ending", 260)];
        assert_eq!(chunks, at(&expected));
        assert_eq!((tally.served().output_tokens, tally.served().errors), (4, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_was_late_once_is_late_no_more() {
        let tally = Arc::default();
        let mut playback = playback(&tally, None).await;
        playback.frame().await;
        tokio::time::advance(Duration::from_millis(225)).await;
        let times: Vec<_> = play(playback).await.into_iter().map(|(_, time)| time).collect();
        assert_eq!(times, [0, 0, 15, 35, 35]);
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_takes_the_place_of_the_second_half() {
        let tally = Arc::default();
        let chunks = play(playback(&tally, Some(Break::ErrorEvent)).await).await;
        assert_eq!(chunks, at(&[("opening", 0), ("0", 200), ("1", 220), ("error", 240)]));
        assert_eq!((tally.served().output_tokens, tally.served().errors), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_who_leaves_settles_the_call() {
        let tally = Arc::default();
        let mut playback = playback(&tally, None).await;
        playback.frame().await;
        playback.frame().await;
        drop(playback);
        assert_eq!((tally.served().output_tokens, tally.served().errors), (1, 0));
    }
}
