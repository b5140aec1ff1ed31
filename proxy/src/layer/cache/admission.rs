//! Which calls may have an answer that was given before, and which answers are kept for that.
//!
//! An answer is kept only where nobody could tell it from the one that the upstream would give now:
//! it is whole and good, by all that its record says of it, and what was asked leaves no traces.

use tidegate_wire::{Dialect, DrainEnd, Outcome, Record};

use super::canonical::{Document, Unclear};
use super::config::{Allow, CacheConfig};
use super::key;
use crate::call::{Call, RequestBody};
use crate::exchange::Notes;
use crate::head::ResponseHead;

/// Why a call or its answer is none for a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It does not ask a model, or begins something that goes on by itself.
    Operation,
    /// It has no body, or one that is encoded.
    Encoded,
    /// It asks for a part of an answer.
    Range,
    /// Its caller signed it, and only the upstream can tell whether that is true.
    Signed,
    /// Its caller wants it so.
    NoStore,
    /// Its body is too large to be held.
    BodyTooLarge,
    /// Its body is no JSON object.
    NotJson,
    /// Its body says something twice.
    DuplicateKey,
    /// Its body is too deep, or has too many keys.
    TooComplex,
    /// It leaves something with its provider, or goes by what was left there.
    Stateful,
    /// It may have another answer each time.
    NotDeterministic,
    /// The answer is an error, or part of one.
    Status,
    /// The upstream says that the answer must not be kept.
    UpstreamNoStore,
    /// The answer depends on more than is compared.
    Vary,
    /// The answer is too large.
    AnswerTooLarge,
    /// What is on its way to be kept takes all the room.
    Busy,
    /// The answer did not come to a good end.
    Incomplete,
    /// The answer could not be read, or says nothing of its end.
    NotUnderstood,
    /// The answer was filtered, refused, or ended for a reason that nobody here knows.
    BadEnd,
    /// The answer ended because it might be no longer.
    CutOff,
    /// The answer calls a tool.
    ToolCall,
    /// The answer is that of another target.
    Fallback,
}

/// Operations that ask a model and leave nothing behind.
const ASKING: [&str; 9] = [
    "chat",
    "text_completion",
    "generate_content",
    "generate_image",
    "predict",
    "raw_predict",
    "embeddings",
    "rerank",
    "count_tokens",
];
/// Of these, the ones whose answer is the same each time.
const CALCULATING: [&str; 4] = ["embeddings", "rerank", "count_tokens", "compute_tokens"];
/// Of these, the ones whose answer is made up of words, and says why it ended.
pub(super) const TELLING: [&str; 3] = ["chat", "text_completion", "generate_content"];

/// Members of a body that leave something with a provider, or go by what was left.
const STATEFUL: [&str; 5] =
    ["previous_response_id", "conversation", "conversation_id", "container", "prompt_id"];

/// Words of all providers for an end that is one, in lower case.
const GOOD_ENDS: [&str; 14] = [
    "stop",
    "end_turn",
    "stop_sequence",
    "complete",
    "completed",
    "finish",
    "finished",
    "eos",
    "eos_token",
    "endoftext",
    "end_of_text",
    "stop_criteria_met",
    "stop_words",
    "done",
];
/// Words for an end that came because there might be no more.
const CUT_ENDS: [&str; 6] =
    ["length", "max_tokens", "max_output_tokens", "model_length", "max_length", "incomplete"];
/// Words for an end that calls a tool.
const TOOL_ENDS: [&str; 4] = ["tool_calls", "tool_use", "tool_call", "function_call"];

impl Reason {
    /// All of them.
    pub(crate) const ALL: [Self; 22] = [
        Self::Operation,
        Self::Encoded,
        Self::Range,
        Self::Signed,
        Self::NoStore,
        Self::BodyTooLarge,
        Self::NotJson,
        Self::DuplicateKey,
        Self::TooComplex,
        Self::Stateful,
        Self::NotDeterministic,
        Self::Status,
        Self::UpstreamNoStore,
        Self::Vary,
        Self::AnswerTooLarge,
        Self::Busy,
        Self::Incomplete,
        Self::NotUnderstood,
        Self::BadEnd,
        Self::CutOff,
        Self::ToolCall,
        Self::Fallback,
    ];

    /// The word that stands in records and metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Operation => "operation",
            Self::Encoded => "encoded",
            Self::Range => "range",
            Self::Signed => "signed_by_caller",
            Self::NoStore => "no_store",
            Self::BodyTooLarge => "body_too_large",
            Self::NotJson => "not_json",
            Self::DuplicateKey => "duplicate_key",
            Self::TooComplex => "too_complex",
            Self::Stateful => "stateful",
            Self::NotDeterministic => "not_deterministic",
            Self::Status => "status",
            Self::UpstreamNoStore => "upstream_no_store",
            Self::Vary => "vary",
            Self::AnswerTooLarge => "answer_too_large",
            Self::Busy => "busy",
            Self::Incomplete => "incomplete",
            Self::NotUnderstood => "not_understood",
            Self::BadEnd => "finish_reason",
            Self::CutOff => "cut_off",
            Self::ToolCall => "tool_call",
            Self::Fallback => "fallback",
        }
    }
}

impl From<Unclear> for Reason {
    fn from(unclear: Unclear) -> Self {
        match unclear {
            Unclear::NotJson => Self::NotJson,
            Unclear::DuplicateKey => Self::DuplicateKey,
            Unclear::TooComplex => Self::TooComplex,
        }
    }
}

/// Whether a call may have a kept answer, as far as its head says; `is_signed_here` where no caller's
/// credential gets to the upstream.
pub(crate) fn of_head(call: &Call, is_signed_here: bool) -> Result<(), Reason> {
    let fields = &call.head.fields;
    let is_encoded = fields
        .get("content-encoding")
        .is_some_and(|coding| !coding.trim_ascii().eq_ignore_ascii_case(b"identity"));
    let is_signed = || {
        let mut said =
            fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"authorization"));
        said.any(|(_, value)| key::is_signature(value))
    };
    match () {
        () if call.head.method != http::Method::POST || call.head.upgrades => {
            Err(Reason::Operation)
        }
        () if call.is_grpc() || !asks(call) => Err(Reason::Operation),
        () if matches!(*call.body, RequestBody::Empty) || is_encoded => Err(Reason::Encoded),
        () if fields.get("range").is_some() => Err(Reason::Range),
        () if !is_signed_here && is_signed() => Err(Reason::Signed),
        () => Ok(()),
    }
}

fn asks(call: &Call) -> bool {
    call.notes.observer(|observer| {
        let operation = observer.shape().operation.as_deref();
        operation.is_some_and(|operation| {
            ASKING.contains(&operation) || CALCULATING.contains(&operation)
        })
    })
}

/// The same, as far as its notes say, which have seen its body.
pub(crate) fn of_notes(notes: &Notes, allow: Allow) -> Result<(), Reason> {
    let is_same_each_time = || {
        notes.observer(|observer| {
            let operation = observer.shape().operation.as_deref().unwrap_or_default();
            CALCULATING.contains(&operation)
                || observer.asked().is_some_and(|asked| {
                    let is_greedy = asked.temperature == Some(0.0) || asked.top_k == Some(1.0);
                    is_greedy || asked.seed.is_some()
                })
        })
    };
    match allow {
        Allow::Deterministic if !is_same_each_time() => Err(Reason::NotDeterministic),
        Allow::Deterministic | Allow::All => Ok(()),
    }
}

/// The same, as far as its body says, of a call to this path.
pub(crate) fn of_body(path: &str, body: &Document) -> Result<(), Reason> {
    let says = |key: &str, value: &[u8]| body.member(key) == Some(value);
    let is_said = |key: &str| body.member(key).is_some_and(|value| value != b"null");
    let stores_unasked = path.ends_with("/responses") && !says("store", b"false");
    if says("store", b"true") || says("background", b"true") || stores_unasked {
        return Err(Reason::Stateful);
    }
    match STATEFUL.iter().any(|key| is_said(key)) {
        true => Err(Reason::Stateful),
        false => Ok(()),
    }
}

/// Whether an answer may be kept, as far as its head says.
pub(crate) fn of_answer(head: &ResponseHead, most: u64) -> Result<(), Reason> {
    // 202 has no answer as yet, and 206 has a part of one.
    if !(200..300).contains(&head.status) || matches!(head.status, 202 | 204..=206) {
        return Err(Reason::Status);
    }
    let length = head.fields.get("content-length");
    let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        return Err(Reason::AnswerTooLarge);
    }
    let mut values = head.fields.iter().flat_map(|(name, value)| {
        value.split(|byte| *byte == b',').map(move |value| (name, value.trim_ascii()))
    });
    values.try_for_each(|(name, value)| {
        if name.eq_ignore_ascii_case(b"cache-control") && value.eq_ignore_ascii_case(b"no-store") {
            return Err(Reason::UpstreamNoStore);
        }
        if name.eq_ignore_ascii_case(b"vary") && !key::counts(value) {
            return Err(Reason::Vary);
        }
        Ok(())
    })
}

/// Whether an answer may be kept, by all that its record says of it.
pub(crate) fn of_record(
    record: &Record,
    dialect: Dialect,
    config: &CacheConfig,
) -> Result<(), Reason> {
    // What was read on without its caller is as good, if it was read to its end.
    let read_on = record.drain.as_ref().and_then(|drain| drain.end);
    let is_whole = match record.outcome {
        Some(Outcome::Completed) => true,
        Some(Outcome::Abandoned) => read_on == Some(DrainEnd::Whole),
        _ => false,
    };
    if !is_whole || record.error_type.is_some() {
        return Err(Reason::Incomplete);
    }
    if record.fallback.is_some() {
        return Err(Reason::Fallback);
    }
    let operation = record.operation.as_deref().unwrap_or_default();
    // The demo server of vLLM never says why it ended.
    let must_tell = TELLING.contains(&operation) && dialect != Dialect::Generate;
    let is_silent = record.finish_reasons.is_empty() && must_tell;
    if record.not_understood.is_some() || is_silent {
        return Err(Reason::NotUnderstood);
    }
    if record.block_reason.is_some() {
        return Err(Reason::BadEnd);
    }
    record.finish_reasons.iter().try_for_each(|reason| of_end(reason, config))?;
    match record.calls_tool && !config.tool_calls {
        true => Err(Reason::ToolCall),
        false => Ok(()),
    }
}

fn of_end(reason: &str, config: &CacheConfig) -> Result<(), Reason> {
    let is_one_of = |words: &[&str]| words.iter().any(|word| word.eq_ignore_ascii_case(reason));
    match () {
        () if is_one_of(&GOOD_ENDS) => Ok(()),
        () if is_one_of(&CUT_ENDS) && config.cut_off => Ok(()),
        () if is_one_of(&CUT_ENDS) => Err(Reason::CutOff),
        () if is_one_of(&TOOL_ENDS) && config.tool_calls => Ok(()),
        () if is_one_of(&TOOL_ENDS) => Err(Reason::ToolCall),
        () => Err(Reason::BadEnd),
    }
}
