//! What a piece says, by dialect.
//!
//! A dialect recognises its calls by their heads, lists which JSON paths of a reply mean what,
//! and says how the provider's counts add up. Everything else is common to all.

mod anthropic;
mod bedrock;
mod cohere;
mod generate;
mod google;
pub(crate) mod grpc;
mod ollama;
mod openai;
mod path;
mod realtime;
mod videos;

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::job::JobFact;
use crate::json::Table;
use crate::{Dialect, HeadView};

pub(crate) use generate::recognise_reply;
pub(crate) use path::Path;

/// All dialects, the ones with the most telling paths first.
pub(crate) static DIALECTS: [fn(&HeadView<'_>, &Path<'_>) -> Option<Call>; 9] = [
    bedrock::recognise,
    google::recognise,
    anthropic::recognise,
    ollama::recognise,
    generate::recognise,
    cohere::recognise,
    openai::recognise,
    realtime::recognise,
    videos::recognise,
];

/// A call as a dialect recognised it.
pub(crate) struct Call {
    pub(crate) dialect: Dialect,
    pub(crate) operation: &'static str,
    /// Who serves it, if the host does not say.
    pub(crate) provider: Option<&'static str>,
    pub(crate) model: Option<String>,
    pub(crate) region: Option<String>,
    pub(crate) project: Option<String>,
    pub(crate) stream: Option<bool>,
    /// Whether it is a stream that comes where the request does not say.
    pub(crate) streams_unasked: bool,
    pub(crate) asks: Asks,
    pub(crate) reading: &'static Reading,
}

/// What the body of the request may say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    pub(crate) model: bool,
    pub(crate) stream: bool,
}

/// How replies of one kind read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// The paths that mean something.
    pub(crate) paths: LazyLock<Table<Field>>,
    /// The paths within JSON that comes as base64 within the JSON ([`Field::Nested`]).
    pub(crate) nested: Option<&'static LazyLock<Table<Field>>>,
    /// How the provider's counts add up.
    pub(crate) usage: fn(&Counts) -> Usage,
    /// A whole stream shows a finish reason or an end mark.
    pub(crate) has_end: bool,
    /// Headers that count tokens.
    pub(crate) count_headers: &'static [(&'static str, Count)],
}

/// What a JSON path means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// The model that answered.
    Model,
    /// The id of the answer.
    Id,
    /// Its id if it is Anthropic's; other families on Bedrock repeat the platform's request id.
    MessageId,
    /// A running or final total: the last one holds.
    Count(Count),
    /// One of several parts of a total.
    Add(Count),
    /// Why the choice at hand ended; counts when the choice closes.
    Finish,
    /// The index of the choice at hand.
    Index,
    /// The end of a choice.
    Choice,
    /// Why the only choice ended.
    Stop,
    /// The state of the whole answer; a finish reason unless a better one comes.
    Status,
    /// What the caller will see.
    Text,
    /// What the model thinks.
    Reasoning,
    /// A piece of something; the event's type says of what.
    Delta,
    /// The text of a part.
    PartText,
    /// Whether the part is a thought.
    PartThought,
    /// The part is the call of a tool, which counts as text.
    PartTool,
    /// The end of a part.
    Part,
    /// The call of a tool.
    Tool,
    /// The type of an item of the answer, which may be the call of a tool.
    ItemType,
    /// The type of the event.
    Type,
    /// The type of an object; that of a flat error is `error`.
    Object,
    /// There is an error.
    Error,
    /// Its type.
    ErrorType,
    /// Its type, where no other is stated.
    ErrorStatus,
    /// Its code.
    ErrorCode,
    /// Its type, where a flat error is all there is.
    FlatType,
    /// Its code, likewise.
    FlatCode,
    /// How long to wait, with its unit.
    RetryDelay,
    /// Why the prompt was blocked.
    BlockReason,
    /// An image, where the part at hand turns out to be one.
    Image,
    /// What the media of the part at hand are.
    MimeType,
    /// An image that stands by itself.
    Images,
    /// The service tier that served the call.
    Tier,
    /// The fingerprint of the system that served it.
    Fingerprint,
    /// Whether this is the last of many items.
    Done,
    /// One of many items, of which the last is told by [`Field::End`].
    More,
    /// What it says of a long-running job.
    Job(JobFact),
    /// JSON as base64.
    Nested,
    /// The stream shows this only at its end.
    End,
}

/// The providers' counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    /// Input, cached tokens included.
    Prompt,
    /// Input, cached tokens not included.
    Input,
    /// Input that server-side tools fed back, in no other count.
    ToolPrompt,
    /// Output; reasoning may be inside or beside.
    Output,
    /// Output, reasoning not included.
    Visible,
    /// Everything.
    Total,
    /// Input read from a cache.
    CacheRead,
    /// The same, in a place that counts only where no other states it.
    CacheReadElsewhere,
    /// Input written to a cache.
    CacheWrite,
    /// Of that, what is kept for an hour instead of minutes: it has a price of its own.
    CacheWriteLong,
    /// Output spent on reasoning.
    Reasoning,
    /// The same, in a place that counts only where no other states it.
    ReasoningElsewhere,
    /// The platform's own count of what the model counts too.
    MeteredInput,
    /// Likewise.
    MeteredOutput,
    /// Likewise.
    MeteredCacheRead,
    /// Likewise.
    MeteredCacheWrite,
    /// The answer of a call that counts tokens.
    Counted,
    /// Images made.
    Images,
}

const COUNTS: usize = Count::Images as usize + 1;

/// The most that a call can count. What is more is nonsense, and would spoil every sum that it went
/// into.
const MOST_COUNTED: u64 = 1 << 40;

/// The last value of each count that was seen.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    values: [u64; COUNTS],
    known: u32,
}

/// What a call used, in the words of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) input: Option<u64>,
    pub(crate) output: Option<u64>,
    pub(crate) cache_read: Option<u64>,
    pub(crate) cache_creation: Option<u64>,
    pub(crate) reasoning: Option<u64>,
}

// === impl Asks ===

impl Asks {
    const NOTHING: Self = Self { model: false, stream: false };
    const ALL: Self = Self { model: true, stream: true };
}

// === impl Counts ===

impl Counts {
    /// A value that is nonsense is as none.
    pub(crate) fn set(&mut self, count: Count, value: u64) {
        if value <= MOST_COUNTED {
            self.values[count as usize] = value;
            self.known |= 1 << count as u32;
        }
    }

    pub(crate) fn add(&mut self, count: Count, value: u64) {
        self.set(count, self.values[count as usize].saturating_add(value));
    }

    pub(crate) fn value(&self, count: Count) -> Option<u64> {
        (self.known >> count as u32 & 1 == 1).then(|| self.values[count as usize])
    }

    /// The first of these that is known.
    fn first(&self, counts: &[Count]) -> Option<u64> {
        counts.iter().find_map(|count| self.value(*count))
    }

    /// The sum of those that are known.
    fn sum(&self, counts: &[Count]) -> Option<u64> {
        counts.iter().filter_map(|count| self.value(*count)).reduce(u64::saturating_add)
    }

    /// The sum, if the first is known: the others are parts that it leaves out.
    fn with(&self, first: Count, others: &[Count]) -> Option<u64> {
        let others = self.sum(others).unwrap_or(0);
        self.value(first).map(|first| first.saturating_add(others))
    }
}

/// Percent-decodes one path segment.
pub(crate) fn decoded(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        bytes.push(match (first, hexadecimal(tail)) {
            (b'%', Some(byte)) => {
                rest = &tail[2..];
                byte
            }
            _ => *first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned().into()
}

fn hexadecimal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..2)?).ok()?;
    u8::from_str_radix(digits, 16).ok()
}
