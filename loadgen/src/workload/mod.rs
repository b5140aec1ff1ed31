//! What to ask: requests, ready to be sent.

mod conversation;
mod lengths;
mod mix;
mod picture;
mod recording;
mod synthetic;
mod written;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tidegate_wire::Dialect;

use crate::figures::Key;

pub use mix::{Entry, Mix, Operation};
pub use recording::{Error as RecordingError, Format, Recording};
pub use synthetic::Synthetic;

pub(crate) use conversation::{Answer, Conversation};
pub(crate) use recording::{Asked, Row};

/// Where calls come from.
#[derive(Clone, Debug)]
pub enum Workload {
    /// They are made up.
    Mix(Mix),
    /// They were made before, or their prompts are at hand.
    Recording {
        /// The file.
        recording: Recording,
        /// How what does not say it itself is asked, and of whom.
        mix: Mix,
    },
}

/// One call to be made, but for the address that it goes to.
#[derive(Clone, Debug)]
pub struct Request {
    /// `POST`, mostly.
    pub method: Method,
    /// Path and query, percent-encoded as they go onto the wire.
    pub path: String,
    /// The headers beside those that the transport itself sets.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Whose interface it speaks.
    pub dialect: Dialect,
    /// The name under which the call is counted: its model, even where the wire names none.
    pub label: Arc<str>,
    /// The route under which the call is counted.
    pub route: Arc<str>,
    /// Whether the answer is asked for as a stream.
    pub stream: bool,
    /// What it comes to if all is as it was, or as is asked for at most.
    pub(crate) expected: Expected,
    /// What is said next, where this is part of a conversation.
    pub(crate) then: Option<Arc<Conversation>>,
}

/// What a call comes to; absent where that is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Expected {
    pub(crate) input_tokens: Option<u64>,
    pub(crate) output_tokens: Option<u64>,
}

/// Bytes of a prompt that one token has, about.
const BYTES_OF_TOKEN: u64 = 4;
/// Tokens of an answer of which nothing is known.
const TYPICAL_OUTPUT: u64 = 256;

// === impl Request ===

impl Request {
    /// One of which only this is known.
    pub(crate) fn bare(target: &str, body: Bytes) -> Self {
        Self {
            method: Method::POST,
            path: target.to_owned(),
            headers: HeaderMap::new(),
            body,
            dialect: Dialect::Other,
            label: "".into(),
            route: "".into(),
            stream: false,
            expected: Expected::default(),
            then: None,
        }
    }

    /// Tokens of what is asked and of what is answered, about, and the latter rather at most.
    pub(crate) fn tokens(&self) -> (u64, u64) {
        let by_size = self.body.len() as u64 / BYTES_OF_TOKEN;
        let Expected { input_tokens, output_tokens } = self.expected;
        (input_tokens.unwrap_or(by_size), output_tokens.unwrap_or(TYPICAL_OUTPUT))
    }
}

// === impl Workload ===

impl Workload {
    /// How things are asked that do not say it themselves.
    pub fn mix(&self) -> &Mix {
        match self {
            Self::Mix(mix) | Self::Recording { mix, .. } => mix,
        }
    }

    /// The file of calls, where there is one.
    pub fn recording(&self) -> Option<&Recording> {
        match self {
            Self::Mix(_) => None,
            Self::Recording { recording, .. } => Some(recording),
        }
    }

    /// The kinds of calls as the report names them: none where the calls say themselves what they are.
    pub(crate) fn entries(&self) -> &[Entry] {
        match self.recording() {
            Some(recording) if recording.is_captured() => &[],
            _ => self.mix().entries(),
        }
    }

    /// The names under which its calls are counted.
    pub(crate) fn keys(&self, stage: &str) -> Vec<Key> {
        match self.recording() {
            Some(recording) if recording.is_captured() => {
                recording.survey().keys.iter().cloned().collect()
            }
            _ => Key::of_mix(self.mix(), stage),
        }
    }
}
