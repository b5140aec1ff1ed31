//! Every metric that there is: its names, its labels, and how it is read off what was counted.
//!
//! Prometheus and OTLP show this one list, so they cannot disagree.

use tidegate_wire::{Outcome, SIZE_CLASSES};

use super::metrics::{Labels, Series, Value};
use super::names::{self, Conventions};

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit of this build, where the build was told.
pub const REVISION: &str = match option_env!("TIDEGATE_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// Every metric, in the order of the contract.
pub static FAMILIES: &[&Family] = &[
    &CALLS,
    &CALL_DURATION,
    &TIME_TO_FIRST_TOKEN,
    &TIME_PER_OUTPUT_TOKEN,
    &OVERHEAD,
    &TOKENS,
    &USAGE_ABSENT,
    &TIME_TO_FIRST_TOKEN_BY_INPUT,
    &INPUT_MEDIA,
    &JOBS,
    &JOB_DURATION,
    &JOB_POLLS,
    &JOBS_OPEN,
    &JOBS_FORGOTTEN,
    &VIDEO_SECONDS,
    &COST,
    &UNPRICED_CALLS,
    &UNPRICED_TOKENS,
    &CALLS_IN_FLIGHT,
    &BREAKER_STATE,
    &BREAKER_TRANSITIONS,
    &BREAKER_REFUSALS,
    &RATE_GATE_CLOSED,
    &LIMIT,
    &LIMIT_IN_USE,
    &LIMIT_QUEUE,
    &LIMIT_SHED,
    &BYPASS,
    &RETRIES,
    &RETRIES_DENIED,
    &FALLBACKS,
    &UPSTREAM_ADDRESSES,
    &UPSTREAM_USES_ALL,
    &UPSTREAM_FORCED_CALLS,
    &UPSTREAM_EJECTIONS,
    &UPSTREAM_EJECTIONS_SPARED,
    &UPSTREAM_CHECK_FAILURES,
    &UPSTREAM_LOOKUP_FAILURES,
    &UPSTREAM_STEERING_FAILURES,
    &CREDENTIAL_AGE,
    &CREDENTIAL_FAILURES,
    &CONFIG_RELOADS,
    &CONFIG_LAST_RELOAD_GOOD,
    &CONFIG_LOADED,
    &RECORDS_DROPPED,
    &NOT_UNDERSTOOD,
    &WARNINGS,
    &BUILD_INFO,
    &CLIENT_OPERATION_DURATION,
    &CLIENT_TOKEN_USAGE,
    &SERVER_TIME_TO_FIRST_TOKEN,
    &SERVER_TIME_PER_OUTPUT_TOKEN,
];

/// The types of [`TOKENS`], in the order in which a series keeps them.
pub(super) const TOKEN_TYPES: [&str; 5] =
    ["input", "output", "cache_read", "cache_creation", "reasoning"];

/// The kinds of [`INPUT_MEDIA`], likewise.
pub(super) const MEDIA_KINDS: [&str; 4] = ["image", "audio", "video", "document"];

/// The types of [`UNPRICED_TOKENS`], likewise.
pub(super) const UNPRICED_TYPES: [&str; 2] = ["input", "output"];

/// One metric.
#[derive(Debug)]
pub struct Family {
    /// Its name in OTLP.
    pub name: &'static str,
    /// Its name in Prometheus.
    pub prometheus: &'static str,
    /// Its unit, as UCUM writes it.
    pub unit: &'static str,
    /// What it counts.
    pub help: &'static str,
    /// What kind of metric it is.
    pub kind: Kind,
    /// What tells its series apart.
    pub labels: &'static [&'static Label],
    /// Reads it off a series of calls, in parts where it has a type.
    pub(super) read: Read,
}

/// What kind of metric it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It counts sizes.
    Histogram,
}

/// What tells series apart.
#[derive(Debug)]
pub struct Label {
    /// Its name in OTLP.
    pub name: &'static str,
    /// Its name in Prometheus.
    pub prometheus: &'static str,
    /// Its value for a series of calls, and the part of it that is read.
    pub(super) value: fn(&Labels, &'static str) -> String,
}

impl Family {
    /// The labels that it has under these conventions.
    pub(super) fn shown(&self, conventions: Conventions) -> impl Iterator<Item = &'static Label> {
        self.labels.iter().copied().filter(move |label| conventions.shows(label.name))
    }
}

type Read = fn(&Labels, &Series, &mut dyn FnMut(&'static str, Value));

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
    ],
    read: |_, series, put| put("", Value::Counter(series.calls)),
};

const TIMED: &[&Label] = &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &STREAM, &OUTCOME];

/// How long calls took, from end to end.
pub static CALL_DURATION: Family = Family {
    name: "tidegate.call.duration",
    prometheus: "tidegate_call_duration_seconds",
    unit: "s",
    help: "Time from the request head to the last byte of the response.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Value::Histogram(series.duration.clone())),
};

/// How long streams took to their first token.
pub static TIME_TO_FIRST_TOKEN: Family = Family {
    name: "tidegate.time_to_first_token",
    prometheus: "tidegate_time_to_first_token_seconds",
    unit: "s",
    help: "Time from the request head to the first token of a stream.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Value::Histogram(series.time_to_first_token.clone())),
};

/// How long each further token of a stream took.
pub static TIME_PER_OUTPUT_TOKEN: Family = Family {
    name: "tidegate.time_per_output_token",
    prometheus: "tidegate_time_per_output_token_seconds",
    unit: "s",
    help: "Time between the first and the last token of a stream, by the tokens after the first.",
    kind: Kind::Histogram,
    labels: TIMED,
    read: |_, series, put| put("", Value::Histogram(series.time_per_output_token.clone())),
};

/// What the sidecar itself costs.
pub static OVERHEAD: Family = Family {
    name: "tidegate.overhead",
    prometheus: "tidegate_overhead_seconds",
    unit: "s",
    help: "Time that Tidegate itself added to a call.",
    kind: Kind::Histogram,
    labels: &[&ROUTE],
    read: |_, series, put| put("", Value::Histogram(series.overhead.clone())),
};

/// Tokens as providers state them.
pub static TOKENS: Family = Family {
    name: "tidegate.tokens",
    prometheus: "tidegate_tokens_total",
    unit: "{token}",
    help: "Tokens as stated by the provider. Input includes cached, output includes reasoning.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM, &TYPE],
    read: |_, series, put| {
        for (part, tokens) in TOKEN_TYPES.into_iter().zip(series.tokens) {
            if let Some(tokens) = tokens {
                put(part, Value::Counter(tokens));
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
    read: |_, series, put| put("", Value::Counter(series.usage_absent)),
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
        let classes = series.by_input.as_deref().into_iter().flatten();
        for (class, times) in SIZE_CLASSES.into_iter().zip(classes) {
            put(class, Value::Histogram(times.clone()));
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
                put(kind, Value::Counter(count));
            }
        }
    },
};

const JOB: &[&Label] = &[&MODEL, &PROVIDER, &REGION];
const JOB_ENDED: &[&Label] = &[&MODEL, &PROVIDER, &REGION, &OUTCOME];

/// Long-running jobs that have ended.
pub static JOBS: Family = Family {
    name: "tidegate.jobs",
    prometheus: "tidegate_jobs_total",
    unit: "{job}",
    help: "Long-running jobs that were seen done (succeeded, failed, filtered) or are no longer polled (abandoned).",
    kind: Kind::Counter,
    labels: JOB_ENDED,
    read: |_, _, _| {},
};

/// How long jobs took.
pub static JOB_DURATION: Family = Family {
    name: "tidegate.job.duration",
    prometheus: "tidegate_job_duration_seconds",
    unit: "s",
    help: "Time from the submit of a job to its end, as it states it, else as seen here.",
    kind: Kind::Histogram,
    labels: JOB_ENDED,
    read: |_, _, _| {},
};

/// Looks at jobs.
pub static JOB_POLLS: Family = Family {
    name: "tidegate.job.polls",
    prometheus: "tidegate_job_polls_total",
    unit: "{call}",
    help: "Polls of long-running jobs.",
    kind: Kind::Counter,
    labels: JOB,
    read: |_, _, _| {},
};

/// Jobs whose end has not been seen.
pub static JOBS_OPEN: Family = Family {
    name: "tidegate.jobs.open",
    prometheus: "tidegate_jobs_open",
    unit: "{job}",
    help: "Long-running jobs that were seen here and not yet seen done.",
    kind: Kind::Gauge,
    labels: JOB,
    read: |_, _, _| {},
};

/// Jobs that had to make room.
pub static JOBS_FORGOTTEN: Family = Family {
    name: "tidegate.jobs.forgotten",
    prometheus: "tidegate_jobs_forgotten_total",
    unit: "{job}",
    help: "Open jobs that are no longer kept in mind, for there were too many.",
    kind: Kind::Counter,
    labels: &[],
    read: |_, _, _| {},
};

/// What was made.
pub static VIDEO_SECONDS: Family = Family {
    name: "tidegate.video",
    prometheus: "tidegate_video_seconds_total",
    unit: "s",
    help: "Length of the videos that jobs have made, as asked for.",
    kind: Kind::Counter,
    labels: JOB,
    read: |_, _, _| {},
};

/// What calls cost.
pub static COST: Family = Family {
    name: "tidegate.cost.usd",
    prometheus: "tidegate_cost_usd_total",
    unit: "{USD}",
    help: "Cost of calls by the price table, in US dollars; calls without a price are left out.",
    kind: Kind::Counter,
    labels: &[&MODEL, &PROVIDER, &REGION, &ROUTE, &UPSTREAM],
    read: |_, series, put| {
        if let Some(cost) = series.cost {
            put("", Value::Amount(cost));
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
            put("", Value::Counter(series.unpriced));
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
                put(part, Value::Counter(tokens));
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

/// Records that an exporter lost.
pub static RECORDS_DROPPED: Family = Family {
    name: "tidegate.records.dropped",
    prometheus: "tidegate_records_dropped_total",
    unit: "{record}",
    help: "Records that this exporter lost, to a full queue or a failed write.",
    kind: Kind::Counter,
    labels: &[&EXPORTER],
    read: |_, _, _| {},
};

/// Bodies that were forwarded without being read to their end.
pub static NOT_UNDERSTOOD: Family = Family {
    name: "tidegate.not_understood",
    prometheus: "tidegate_not_understood_total",
    unit: "{call}",
    help: "Calls whose body was forwarded, but could not be read.",
    kind: Kind::Counter,
    labels: &[&REASON],
    read: |_, _, _| {},
};

/// What will go wrong in silence.
pub static WARNINGS: Family = Family {
    name: "tidegate.warnings",
    prometheus: "tidegate_warnings_total",
    unit: "{warning}",
    help: "Warnings in the records of calls: what will go wrong in silence.",
    kind: Kind::Counter,
    labels: &[&WARNING],
    read: |_, _, _| {},
};

/// Where the circuit breakers stand.
pub static BREAKER_STATE: Family = Family {
    name: "tidegate.breaker.state",
    prometheus: "tidegate_breaker_state",
    unit: "1",
    help: "Circuit breakers: 0 closed, 1 half-open, 2 open. `other` is for models without one of their own.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &REGION, &MODEL],
    read: |_, _, _| {},
};

/// What circuit breakers did.
pub static BREAKER_TRANSITIONS: Family = Family {
    name: "tidegate.breaker.transitions",
    prometheus: "tidegate_breaker_transitions_total",
    unit: "{transition}",
    help: "Transitions of circuit breakers, by the state that they led to.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REGION, &MODEL, &TO],
    read: |_, _, _| {},
};

/// Attempts that were kept out.
pub static BREAKER_REFUSALS: Family = Family {
    name: "tidegate.breaker.refusals",
    prometheus: "tidegate_breaker_refusals_total",
    unit: "{attempt}",
    help: "Attempts at an upstream that its circuit breaker or its rate gate kept out.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REGION, &MODEL, &BY],
    read: |_, _, _| {},
};

/// Rate gates that are closed.
pub static RATE_GATE_CLOSED: Family = Family {
    name: "tidegate.rate_gate.closed",
    prometheus: "tidegate_rate_gate_closed",
    unit: "{account}",
    help: "Accounts that wait until a time named with a 429.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &REGION, &MODEL],
    read: |_, _, _| {},
};

/// How the addresses of upstreams are.
pub static UPSTREAM_ADDRESSES: Family = Family {
    name: "tidegate.upstream.addresses",
    prometheus: "tidegate_upstream_addresses",
    unit: "{address}",
    help: "Addresses of an upstream that has several: in_use, ejected (calls failed), unhealthy (checks fail), draining (gone from DNS).",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM, &STATE],
    read: |_, _, _| {},
};

/// Whether there is no good choice.
pub static UPSTREAM_USES_ALL: Family = Family {
    name: "tidegate.upstream.uses_all",
    prometheus: "tidegate_upstream_uses_all",
    unit: "",
    help: "1 while no address of the upstream is fit for use, and so all are used.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Calls without a good choice.
pub static UPSTREAM_FORCED_CALLS: Family = Family {
    name: "tidegate.upstream.forced_calls",
    prometheus: "tidegate_upstream_forced_calls_total",
    unit: "{attempt}",
    help: "Attempts at an address that was not fit for use, because none was.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Addresses that were passed over for a while.
pub static UPSTREAM_EJECTIONS: Family = Family {
    name: "tidegate.upstream.ejections",
    prometheus: "tidegate_upstream_ejections_total",
    unit: "{ejection}",
    help: "Addresses ejected for a while, because their calls failed in a row.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Addresses that should have been.
pub static UPSTREAM_EJECTIONS_SPARED: Family = Family {
    name: "tidegate.upstream.ejections_spared",
    prometheus: "tidegate_upstream_ejections_spared_total",
    unit: "{failure}",
    help: "Failures that would have ejected an address, had that not left too few.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Health checks without a good answer.
pub static UPSTREAM_CHECK_FAILURES: Family = Family {
    name: "tidegate.upstream.check_failures",
    prometheus: "tidegate_upstream_check_failures_total",
    unit: "{check}",
    help: "Health checks of an address that failed.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Names that could not be resolved.
pub static UPSTREAM_LOOKUP_FAILURES: Family = Family {
    name: "tidegate.upstream.lookup_failures",
    prometheus: "tidegate_upstream_lookup_failures_total",
    unit: "{lookup}",
    help: "Look-ups of an upstream's name that failed; its last addresses serve for a while.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Servers that did not tell their load.
pub static UPSTREAM_STEERING_FAILURES: Family = Family {
    name: "tidegate.upstream.steering_failures",
    prometheus: "tidegate_upstream_steering_failures_total",
    unit: "{lookup}",
    help: "Times that an address did not tell its load, where it is asked for it.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Whether the policies act.
pub static BYPASS: Family = Family {
    name: "tidegate.bypass",
    prometheus: "tidegate_bypass",
    unit: "",
    help: "1 while `bypass` is on and calls pass all policies by.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// Calls made again.
pub static RETRIES: Family = Family {
    name: "tidegate.retries",
    prometheus: "tidegate_retries_total",
    unit: "{attempt}",
    help: "Attempts made after a first one that failed, by upstream and reason.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// Calls not made again.
pub static RETRIES_DENIED: Family = Family {
    name: "tidegate.retries.denied",
    prometheus: "tidegate_retries_denied_total",
    unit: "{call}",
    help: "Calls that failed and were not made again, for want of a budget, time or the body.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// Calls that went elsewhere.
pub static FALLBACKS: Family = Family {
    name: "tidegate.fallbacks",
    prometheus: "tidegate_fallbacks_total",
    unit: "{call}",
    help: "Calls that came to this upstream because another target would not do.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that an upstream may have at a time.
pub static LIMIT: Family = Family {
    name: "tidegate.limit",
    prometheus: "tidegate_limit",
    unit: "{call}",
    help: "Calls that an upstream may have at a time; without a model where all models share.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that an upstream has.
pub static LIMIT_IN_USE: Family = Family {
    name: "tidegate.limit.in_use",
    prometheus: "tidegate_limit_in_use",
    unit: "{call}",
    help: "Calls that an upstream with a limit has now.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that wait.
pub static LIMIT_QUEUE: Family = Family {
    name: "tidegate.limit.queue",
    prometheus: "tidegate_limit_queue",
    unit: "{call}",
    help: "Calls that wait here until an upstream may have them.",
    kind: Kind::Gauge,
    labels: &[&MODEL, &UPSTREAM],
    read: |_, _, _| {},
};

/// Calls that were sent away.
pub static LIMIT_SHED: Family = Family {
    name: "tidegate.limit.shed",
    prometheus: "tidegate_limit_shed_total",
    unit: "{call}",
    help: "Calls that an upstream's limit kept from it: its queue was full, or they waited too long.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM, &REASON],
    read: |_, _, _| {},
};

/// How old the credentials are.
pub static CREDENTIAL_AGE: Family = Family {
    name: "tidegate.credential.age",
    prometheus: "tidegate_credential_age_seconds",
    unit: "s",
    help: "Time since the credential in use was fetched, for upstreams whose credential can change.",
    kind: Kind::Gauge,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Readings of the configuration after the first.
pub static CONFIG_RELOADS: Family = Family {
    name: "tidegate.config.reloads",
    prometheus: "tidegate_config_reloads_total",
    unit: "{reload}",
    help: "How often the configuration was read anew; a bad one changes nothing.",
    kind: Kind::Counter,
    labels: &[&RESULT],
    read: |_, _, _| {},
};

/// Whether what stands in the file is what is in use.
pub static CONFIG_LAST_RELOAD_GOOD: Family = Family {
    name: "tidegate.config.last_reload_good",
    prometheus: "tidegate_config_last_reload_good",
    unit: "1",
    help: "1 if the configuration was good when it was last read, 0 if an older one is in use.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// When the configuration in use was read.
pub static CONFIG_LOADED: Family = Family {
    name: "tidegate.config.loaded.timestamp",
    prometheus: "tidegate_config_loaded_timestamp_seconds",
    unit: "s",
    help: "When the configuration in use was read, in seconds since 1970.",
    kind: Kind::Gauge,
    labels: &[],
    read: |_, _, _| {},
};

/// Credentials that could not be fetched.
pub static CREDENTIAL_FAILURES: Family = Family {
    name: "tidegate.credential.failures",
    prometheus: "tidegate_credential_failures_total",
    unit: "{fetch}",
    help: "Times that a credential could not be fetched; the last good one serves until it expires.",
    kind: Kind::Counter,
    labels: &[&UPSTREAM],
    read: |_, _, _| {},
};

/// Which build this is.
pub static BUILD_INFO: Family = Family {
    name: "tidegate.build_info",
    prometheus: "tidegate_build_info",
    unit: "",
    help: "Always 1; the labels say which build this is.",
    kind: Kind::Gauge,
    labels: &[&BUILD_VERSION, &BUILD_REVISION],
    read: |_, _, _| {},
};

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
            put("", Value::Histogram(series.duration.clone()));
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
            put("input", Value::Histogram(series.input_usage.clone()));
            put("output", Value::Histogram(series.output_usage.clone()));
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
            put("", Value::Histogram(series.time_to_first_token.clone()));
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
            put("", Value::Histogram(series.time_per_output_token.clone()));
        }
    },
};

static MODEL: Label = Label::same("model", |labels, _| labels.model.to_string());
static PROVIDER: Label = Label::same("provider", |labels, _| labels.provider.to_string());
static OPERATION: Label = Label::same("operation", |labels, _| labels.operation.to_string());
static REGION: Label = Label::same("region", |labels, _| labels.region.to_string());
static ROUTE: Label = Label::same("route", |labels, _| labels.route.to_string());
static UPSTREAM: Label = Label::same("upstream", |labels, _| labels.upstream.to_string());
static TO: Label = Label::same("to", |_, part| part.to_owned());
static BY: Label = Label::same("by", |_, part| part.to_owned());
static STREAM: Label = Label::same("stream", |labels, _| text(labels.stream));
static STATUS: Label = Label::same("status", |labels, _| text(labels.status));
static OUTCOME: Label =
    Label::same("outcome", |labels, _| text(labels.outcome.map(Outcome::as_str)));
static ERROR_ORIGIN: Label = Label::same("error_origin", |labels, _| {
    text(labels.error_origin.map(tidegate_wire::ErrorOrigin::as_str))
});
static TYPE: Label = Label::same("type", |_, part| part.into());
static INPUT_SIZE: Label = Label::same("input_size", |_, part| part.into());
static MEDIA_KIND: Label = Label::same("kind", |_, part| part.into());
// These families are not read off series of calls: the registry names their values itself.
static EXPORTER: Label = Label::same("exporter", |_, part| part.into());
static RESULT: Label = Label::same("result", |_, part| part.into());
static REASON: Label = Label::same("reason", |_, part| part.into());
static STATE: Label = Label::same("state", |_, part| part.into());
static WARNING: Label = Label::same("warning", |_, part| part.into());
static BUILD_VERSION: Label = Label::same("version", |_, part| part.into());
static BUILD_REVISION: Label = Label::same("revision", |_, part| part.into());

static GEN_AI_OPERATION: Label = Label {
    name: "gen_ai.operation.name",
    prometheus: "gen_ai_operation_name",
    value: OPERATION.value,
};
static GEN_AI_PROVIDER: Label =
    Label { name: names::PROVIDER, prometheus: "gen_ai_provider_name", value: PROVIDER.value };
// Of these two, the conventions that are followed show one or both.
static GEN_AI_SYSTEM: Label = Label {
    name: names::SYSTEM,
    prometheus: "gen_ai_system",
    value: |labels, _| names::system(&labels.provider).to_owned(),
};
static GEN_AI_MODEL: Label =
    Label { name: "gen_ai.request.model", prometheus: "gen_ai_request_model", value: MODEL.value };
static GEN_AI_TOKEN_TYPE: Label =
    Label { name: "gen_ai.token.type", prometheus: "gen_ai_token_type", value: TYPE.value };
static ERROR_TYPE: Label =
    Label { name: "error.type", prometheus: "error_type", value: |labels, _| error_type(labels) };

impl Label {
    const fn same(name: &'static str, value: fn(&Labels, &'static str) -> String) -> Self {
        Self { name, prometheus: name, value }
    }
}

fn is_model_call(labels: &Labels) -> bool {
    !labels.operation.is_empty()
}

/// The status where it is an error, else the outcome where it is none; nothing on success. The
/// provider's own words stay in the records: they are not ours to bound.
fn error_type(labels: &Labels) -> String {
    match (labels.outcome, labels.status) {
        (None | Some(Outcome::Completed), _) => String::new(),
        (Some(_), Some(status)) if status >= 400 => status.to_string(),
        (Some(outcome), _) => outcome.as_str().into(),
    }
}

fn text(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_names_the_provider_names_it_under_all_conventions() {
        for family in FAMILIES {
            let has = |name: &str| family.labels.iter().any(|label| label.name == name);
            assert_eq!(has(names::PROVIDER), has(names::SYSTEM), "{}", family.name);
        }
    }
}
