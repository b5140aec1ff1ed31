//! What is counted of calls: how many, how long, what they used and what that cost.

use tidegate_wire::{OUTPUT_CLASSES, SIZE_CLASSES};

use super::labels::{
    CALLER, ERROR_ORIGIN, INPUT_SIZE, MEDIA_KIND, MODEL, OPERATION, OUTCOME, OUTPUT_SIZE, PROVIDER,
    REGION, ROUTE, SPLIT, STATUS, STREAM, TYPE, UPSTREAM, WAIT, is_model_call,
};
use super::{Family, Kind, Label};
use crate::export::metrics::Counted;

/// The types of [`TOKENS`], in the order in which a series keeps them.
pub(in crate::export) const TOKEN_TYPES: [&str; 5] =
    ["input", "output", "cache_read", "cache_creation", "reasoning"];

/// The kinds of [`INPUT_MEDIA`], likewise.
pub(in crate::export) const MEDIA_KINDS: [&str; 4] = ["image", "audio", "video", "document"];

/// What calls of [`WAIT_TIME`] wait for, likewise.
pub(in crate::export) const WAITS: [&str; 6] = ["pool", "dns", "connect", "tls", "queue", "retry"];

/// The types of [`UNPRICED_TOKENS`], likewise.
pub(in crate::export) const UNPRICED_TYPES: [&str; 2] = ["input", "output"];

/// Calls that have ended.
pub static CALLS: Family = Family {
    name: "tidegate.calls",
    prometheus: "tidegate_calls_total",
    unit: "{call}",
    help: "Calls that have ended.",
    kind: Kind::Counter,
    labels: &[
        &MODEL,
        &PROVIDER,
        &OPERATION,
        &REGION,
        &ROUTE,
        &UPSTREAM,
        &STREAM,
        &STATUS,
        &OUTCOME,
        &ERROR_ORIGIN,
        &CALLER,
        &SPLIT,
    ],
    read: |_, series, put| put("", Counted::Counter(series.calls)),
};

const TIMED: &[&Label] =
    &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &STREAM, &OUTCOME, &SPLIT];

/// How long calls took, from end to end.
pub static CALL_DURATION: Family = Family {
    name: "tidegate.call.duration",
    prometheus: "tidegate_call_duration_seconds",
    unit: "s",
    help: "Time from the request head to the last byte of the response.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Counted::Histogram(&series.duration)),
};

/// How long streams took to their first token.
pub static TIME_TO_FIRST_TOKEN: Family = Family {
    name: "tidegate.time_to_first_token",
    prometheus: "tidegate_time_to_first_token_seconds",
    unit: "s",
    help: "Time from the request head to the first token of a stream.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Counted::Histogram(&series.time_to_first_token)),
};

/// How long each further token of a stream took.
pub static TIME_PER_OUTPUT_TOKEN: Family = Family {
    name: "tidegate.time_per_output_token",
    prometheus: "tidegate_time_per_output_token_seconds",
    unit: "s",
    help: "Time between the first and the last token of a stream, by the tokens after the first.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Counted::Histogram(&series.time_per_output_token)),
};

/// What the sidecar itself costs.
pub static OVERHEAD: Family = Family {
    name: "tidegate.overhead",
    prometheus: "tidegate_overhead_seconds",
    unit: "s",
    help: "Time that Tidegate itself added to a call.",
    kind: Kind::Histogram,
    labels: &[&ROUTE],
    read: |_, series, put| put("", Counted::Histogram(&series.overhead)),
};

/// Tokens as providers state them.
pub static TOKENS: Family = Family {
    name: "tidegate.tokens",
    prometheus: "tidegate_tokens_total",
    unit: "{token}",
    help: "Tokens as stated by the provider. Input includes cached, output includes reasoning.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &CALLER, &SPLIT, &TYPE],
    read: |_, series, put| {
        for (part, tokens) in TOKEN_TYPES.into_iter().zip(series.tokens) {
            if let Some(tokens) = tokens {
                put(part, Counted::Counter(tokens));
            }
        }
    },
};

/// Answers that should have stated tokens and did not.
pub static USAGE_ABSENT: Family = Family {
    name: "tidegate.usage.absent",
    prometheus: "tidegate_usage_absent_total",
    unit: "{call}",
    help: "Completed model calls whose answer states no token numbers.",
    kind: Kind::Counter,
    labels: &[&MODEL],
    read: |_, series, put| put("", Counted::Counter(series.usage_absent)),
};

/// How long streams took to their first token, by the size of the prompt.
pub static TIME_TO_FIRST_TOKEN_BY_INPUT: Family = Family {
    name: "tidegate.time_to_first_token_by_input",
    prometheus: "tidegate_time_to_first_token_by_input_seconds",
    unit: "s",
    help: "Time from the request head to the first token of a stream, by input tokens as reported.",
    kind: Kind::Histogram,
    labels: &[&MODEL, &INPUT_SIZE],
    read: |_, series, put| {
        for (class, times) in SIZE_CLASSES.into_iter().zip(series.by_input.iter()) {
            put(class, Counted::Histogram(times));
        }
    },
};

/// How long calls took, by the size of the answer.
pub static CALL_DURATION_BY_OUTPUT: Family = Family {
    name: "tidegate.call.duration_by_output",
    prometheus: "tidegate_call_duration_by_output_seconds",
    unit: "s",
    help: "Time from the request head to the last byte of a completed response, by output tokens as reported.",
    kind: Kind::Histogram,
    labels: &[&MODEL, &OUTPUT_SIZE],
    read: |_, series, put| {
        for (class, times) in OUTPUT_CLASSES.into_iter().zip(series.by_output.iter()) {
            put(class, Counted::Histogram(times));
        }
    },
};

const STREAMED: &[&Label] = &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM];

/// How long streams fell silent at the most.
pub static LONGEST_GAP: Family = Family {
    name: "tidegate.longest_gap",
    prometheus: "tidegate_longest_gap_seconds",
    unit: "s",
    help: "Of each stream, the longest time between two chunks that bear tokens.",
    kind: Kind::Histogram,
    labels: STREAMED,
    read: |_, series, put| put("", Counted::Histogram(&series.longest_gap)),
};

/// How often streams fell silent.
pub static STALLS: Family = Family {
    name: "tidegate.stalls",
    prometheus: "tidegate_stalls_total",
    unit: "{stall}",
    help: "Times over 1 s between two chunks of a stream that bear tokens.",
    kind: Kind::Counter,
    labels: STREAMED,
    read: |_, series, put| {
        if series.longest_gap.count() > 0 {
            put("", Counted::Counter(series.stalls));
        }
    },
};

/// What calls waited for on their way to the upstream.
pub static WAIT_TIME: Family = Family {
    name: "tidegate.wait",
    prometheus: "tidegate_wait_seconds",
    unit: "s",
    help: "Time that a call waited for a connection, for its place in a queue, or to be made again.",
    kind: Kind::Histogram,
    labels: &[&ROUTE, &UPSTREAM, &WAIT],
    read: |_, series, put| {
        for (wait, times) in WAITS.into_iter().zip(series.waits.iter()) {
            put(wait, Counted::Histogram(times));
        }
    },
};

/// What requests carried beside text.
pub static INPUT_MEDIA: Family = Family {
    name: "tidegate.input.media",
    prometheus: "tidegate_input_media_total",
    unit: "{item}",
    help: "Images, recordings, videos and documents in requests.",
    kind: Kind::Counter,
    labels: &[&MODEL, &MEDIA_KIND],
    read: |_, series, put| {
        for (kind, count) in MEDIA_KINDS.into_iter().zip(series.media) {
            if count > 0 {
                put(kind, Counted::Counter(count));
            }
        }
    },
};

/// What calls cost.
pub static COST: Family = Family {
    name: "tidegate.cost.usd",
    prometheus: "tidegate_cost_usd_total",
    unit: "{USD}",
    help: "Cost of calls by the price table, in US dollars; calls without a price are left out.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &CALLER, &SPLIT],
    read: |_, series, put| {
        if let Some(cost) = series.cost {
            put("", Counted::Amount(cost));
        }
    },
};

/// Calls that the cost leaves out.
pub static UNPRICED_CALLS: Family = Family {
    name: "tidegate.unpriced.calls",
    prometheus: "tidegate_unpriced_calls_total",
    unit: "{call}",
    help: "Calls that used something which the price table has no price for.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER],
    read: |labels, series, put| {
        if is_model_call(labels) {
            put("", Counted::Counter(series.unpriced));
        }
    },
};

/// Tokens that the cost leaves out.
pub static UNPRICED_TOKENS: Family = Family {
    name: "tidegate.unpriced.tokens",
    prometheus: "tidegate_unpriced_tokens_total",
    unit: "{token}",
    help: "Tokens of calls that used something which the price table has no price for.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &TYPE],
    read: |_, series, put| {
        for (part, tokens) in UNPRICED_TYPES.into_iter().zip(series.unpriced_tokens) {
            if series.unpriced > 0 {
                put(part, Counted::Counter(tokens));
            }
        }
    },
};

/// Calls that have not ended yet.
pub static CALLS_IN_FLIGHT: Family = Family {
    name: "tidegate.calls.in_flight",
    prometheus: "tidegate_calls_in_flight",
    unit: "{call}",
    help: "Calls that have been routed and have not ended.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};
