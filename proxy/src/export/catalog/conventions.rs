//! The metrics of the GenAI conventions, read off the same calls.

use super::labels::{
    ERROR_TYPE, GEN_AI_MODEL, GEN_AI_OPERATION, GEN_AI_PROVIDER, GEN_AI_SYSTEM, GEN_AI_TOKEN_TYPE,
    is_model_call,
};
use super::{Family, Kind};
use crate::export::metrics::Counted;

/// `gen_ai.client.operation.duration` of the GenAI conventions.
pub static CLIENT_OPERATION_DURATION: Family = Family {
    name: "gen_ai.client.operation.duration",
    prometheus: "gen_ai_client_operation_duration_seconds",
    unit: "s",
    help: "GenAI operation duration.",
    kind: Kind::Histogram,
    labels: &[&GEN_AI_OPERATION, &GEN_AI_PROVIDER, &GEN_AI_SYSTEM, &GEN_AI_MODEL, &ERROR_TYPE],
    read: |labels, series, put| {
        if is_model_call(labels) {
            put("", Counted::Histogram(&series.duration));
        }
    },
};

/// `gen_ai.client.token.usage` of the GenAI conventions.
pub static CLIENT_TOKEN_USAGE: Family = Family {
    name: "gen_ai.client.token.usage",
    prometheus: "gen_ai_client_token_usage",
    unit: "{token}",
    help: "Number of input and output tokens used.",
    kind: Kind::Histogram,
    labels: &[
        &GEN_AI_OPERATION,
        &GEN_AI_PROVIDER,
        &GEN_AI_SYSTEM,
        &GEN_AI_MODEL,
        &GEN_AI_TOKEN_TYPE,
    ],
    read: |labels, series, put| {
        if is_model_call(labels) {
            put("input", Counted::Histogram(&series.input_usage));
            put("output", Counted::Histogram(&series.output_usage));
        }
    },
};

/// `gen_ai.server.time_to_first_token` of the GenAI conventions.
pub static SERVER_TIME_TO_FIRST_TOKEN: Family = Family {
    name: "gen_ai.server.time_to_first_token",
    prometheus: "gen_ai_server_time_to_first_token_seconds",
    unit: "s",
    help: "Time to generate the first token of a stream.",
    kind: Kind::Histogram,
    labels: &[&GEN_AI_OPERATION, &GEN_AI_PROVIDER, &GEN_AI_SYSTEM, &GEN_AI_MODEL],
    read: |labels, series, put| {
        if is_model_call(labels) {
            put("", Counted::Histogram(&series.time_to_first_token));
        }
    },
};

/// `gen_ai.server.time_per_output_token` of the GenAI conventions.
pub static SERVER_TIME_PER_OUTPUT_TOKEN: Family = Family {
    name: "gen_ai.server.time_per_output_token",
    prometheus: "gen_ai_server_time_per_output_token_seconds",
    unit: "s",
    help: "Time per output token of a stream, after the first.",
    kind: Kind::Histogram,
    labels: &[&GEN_AI_OPERATION, &GEN_AI_PROVIDER, &GEN_AI_SYSTEM, &GEN_AI_MODEL],
    read: |labels, series, put| {
        if is_model_call(labels) {
            put("", Counted::Histogram(&series.time_per_output_token));
        }
    },
};
