//! What a model says in words, read as it comes: of the bytes of a stream most are packing, and only the words
//! are kept.
//!
//! For who goes on from an answer. A sidecar keeps [`Content`](super::Content) instead, which costs it
//! nothing while a call goes by.

use std::fmt;

use super::message::Choices;
use super::{Budget, Collected, Interface, MAX_TYPE};
use crate::Headers;
use crate::coding::{Coding, Decoder};
use crate::frame::{Framing, NotUnderstood, Pieces};

/// Bytes that are kept of one answer: the words, and the JSON at hand. The longest answers that models give have
/// some 128,000 tokens of four or five bytes.
pub const MAX_SPOKEN: usize = 1 << 20;

/// The answer to one call, as far as it has come.
pub struct Spoken {
    coding: Coding,
    framing: Framing,
    words: Words,
}

/// What was said so far.
struct Words {
    interface: &'static Interface,
    choices: Choices,
    /// Bytes of the first choice.
    said: usize,
    /// The JSON at hand.
    pending: Vec<u8>,
    budget: Budget,
    /// Bytes of the budget that are taken.
    held: usize,
    is_truncated: bool,
}

// === impl Spoken ===

impl Spoken {
    /// What is said in answer to a call to this path; absent where the path is of no interface in which
    /// anything is said.
    pub fn of(path: &str, budget: &Budget) -> Option<Self> {
        let words = Words {
            interface: Interface::of(path)?,
            choices: Choices::default(),
            said: 0,
            pending: Vec::new(),
            budget: budget.clone(),
            held: 0,
            is_truncated: false,
        };
        Some(Self { coding: Coding::Identity, framing: Framing::announced(None), words })
    }

    /// The response head.
    pub fn head(&mut self, headers: &dyn Headers) {
        self.coding = Coding::read(headers.value("content-encoding"));
        let kind = headers.value("content-type");
        self.framing = Framing::announced(kind.map(|kind| &kind[..kind.len().min(MAX_TYPE)]));
    }

    /// A piece of the response body.
    pub fn response(&mut self, bytes: &[u8]) {
        if self.words.is_truncated {
            return;
        }
        let Self { coding, framing, words } = self;
        let read = match coding {
            Coding::Identity => framing.feed(bytes, words),
            Coding::Encoded(decoder) => decode(&mut **decoder, bytes, framing, words),
            Coding::Unknown => Err(NotUnderstood::Encoded),
        };
        // What came before it is good.
        words.is_truncated |= read.is_err();
    }

    /// What was said in words, and whether that is all of it.
    pub fn finish(mut self) -> (String, bool) {
        match self.words.is_truncated {
            // What came of the JSON at hand can be read.
            true => self.words.end(),
            false => _ = self.framing.end(&mut self.words),
        }
        let is_whole = !self.words.is_truncated;
        (std::mem::take(&mut self.words.choices).into_text(), is_whole)
    }
}

fn decode(
    decoder: &mut dyn Decoder,
    bytes: &[u8],
    framing: &mut Framing,
    words: &mut Words,
) -> Result<(), NotUnderstood> {
    decoder.decode(bytes, &mut |decoded| match words.is_truncated {
        // A few bytes may decode to any number of them.
        true => Err(NotUnderstood::DecodedTooLarge),
        false => framing.feed(decoded, words),
    })
}

impl fmt::Debug for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl Words ===

impl Words {
    /// Takes so many bytes of the budget in place of those that are taken; or says that there are too few.
    fn hold(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.held);
        if bytes > MAX_SPOKEN || more > 0 && !self.budget.take(more) {
            self.is_truncated = true;
            return false;
        }
        self.budget.give_back(self.held + more - bytes);
        self.held = bytes;
        true
    }
}

impl Pieces for Words {
    fn payload(&mut self, bytes: &[u8]) {
        if !self.is_truncated && self.hold(self.said + self.pending.len() + bytes.len()) {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn end(&mut self) {
        let mut collected = Collected::default();
        collected.json(&self.pending);
        self.pending.clear();
        for value in &collected.values {
            (self.interface.reply)(value, &mut self.choices);
        }
        self.said = self.choices.only_words();
        self.hold(self.said);
    }

    fn name(&mut self, _: &[u8]) {}

    fn header(&mut self, _: &[u8], _: &[u8]) {}

    fn done(&mut self) {}
}

impl Drop for Words {
    fn drop(&mut self) {
        self.budget.give_back(self.held);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::{HeaderMap, HeaderValue};
    use serde_json::{Value, json};

    use super::*;

    const TOKENS: usize = 5_000;
    const CHAT: &str = "/v1/chat/completions";

    /// One event for each token, with about as much packing as providers use.
    fn stream(event: impl Fn(&str) -> Value) -> (String, String) {
        let words: Vec<_> = (0..TOKENS).map(|number| format!("w{number} ")).collect();
        let events = words.iter().map(|word| format!("data: {}\n\n", event(word)));
        (words.concat(), events.collect())
    }

    fn chunk(word: &str) -> Value {
        let id = "chatcmpl-0123456789abcdef0123456789abcdef";
        json!({ "id": id, "object": "chat.completion.chunk", "created": 1_700_000_000,
                "model": "gpt-4o-2024-08-06", "system_fingerprint": "fp_0123456789",
                "choices": [{ "index": 0, "delta": { "content": word }, "finish_reason": null }] })
    }

    fn delta(word: &str) -> Value {
        json!({ "type": "content_block_delta", "index": 1,
                "delta": { "type": "text_delta", "text": word } })
    }

    fn heard(path: &str, encoding: &str, body: &[u8], budget: &Budget) -> (String, bool) {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/event-stream"));
        headers.insert("content-encoding", encoding.parse().expect("a value"));
        let mut spoken = Spoken::of(path, budget).expect("something is said there");
        spoken.head(&headers);
        body.chunks(1000).for_each(|piece| spoken.response(piece));
        spoken.finish()
    }

    #[test]
    fn a_long_stream_is_kept_whole_and_takes_no_more_than_its_words() {
        let begin = |index: u64| {
            json!({ "type": "content_block_start", "index": index,
                    "content_block": { "type": "text", "text": "" } })
        };
        let thought = json!({ "type": "content_block_delta", "index": 0,
                              "delta": { "type": "thinking_delta", "thinking": "hm".repeat(40_000) } });
        let before = format!("data: {}\n\ndata: {thought}\n\ndata: {}\n\n", begin(0), begin(1));
        let (said, events) = stream(delta);
        // So much as the longest event and the words, and no room for the stream.
        let budget = Budget::new(100_000);
        assert_eq!(heard("/v1/messages", "", (before + &events).as_bytes(), &budget), (said, true));
        let (said, events) = stream(chunk);
        assert!(events.len() > 10 * (64 << 10), "{}", events.len());
        let budget = Budget::new(40_000);
        assert_eq!(heard(CHAT, "identity", events.as_bytes(), &budget), (said.clone(), true));
        assert_eq!(budget.left(), 40_000, "all is given back");

        let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
        gzip.write_all(events.as_bytes()).expect("memory takes it");
        let body = gzip.finish().expect("memory takes it");
        assert_eq!(heard(CHAT, "gzip", &body, &budget), (said.clone(), true));
        assert_eq!(heard(CHAT, "compress", &body, &budget), (String::new(), false));
    }

    #[test]
    fn what_is_too_long_keeps_its_beginning() {
        let (said, events) = stream(chunk);
        let budget = Budget::new(10_000);
        let (text, is_whole) = heard(CHAT, "", events.as_bytes(), &budget);
        assert!(!is_whole && said.starts_with(&text), "{text}");
        assert!((9_000..10_000).contains(&text.len()), "{}", text.len());
        assert_eq!(budget.left(), 10_000);

        let long = "a".repeat(2 * MAX_SPOKEN);
        let whole = json!({ "choices": [{ "message": { "content": long } }] }).to_string();
        let (text, is_whole) = heard(CHAT, "", whole.as_bytes(), &Budget::new(usize::MAX));
        assert!(!is_whole && text.len() > MAX_SPOKEN - 2000 && text.len() < MAX_SPOKEN);
    }

    #[test]
    fn only_the_words_of_the_first_choice_are_heard() {
        let events = [
            json!({ "choices": [{ "index": 1, "delta": { "content": "no" } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "reasoning_content": "why" } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "content": "the " } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "tool_calls": [
                { "index": 0, "id": "c", "function": { "name": "f", "arguments": "{" } }] } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "content": [
                { "type": "text", "text": "tide" }] } }] }),
            json!({ "choices": [{ "index": 0, "delta": { "content": " is in" } }] }),
            json!({ "choices": [{ "index": 1, "delta": { "content": "no" } }] }),
        ];
        let body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
        let heard = heard(CHAT, "", body.as_bytes(), &Budget::new(1000));
        assert_eq!(heard, ("the tide is in".to_owned(), true));
        assert!(Spoken::of("/v1/embeddings", &Budget::new(1)).is_none());
    }
}
