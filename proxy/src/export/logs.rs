//! Calls as log events by OTLP, for who looks for what went wrong among logs.
//!
//! Off unless asked for: a span says the same and more. By default an event is made of each call that did
//! not end well, whether or not its trace is sampled: refused, failed, truncated or abandoned, and
//! `error.type` tells what is wrong with it. Nothing of what was said in a call stands in it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::{ErrorOrigin, Outcome, Record};

use super::Exporter;
use super::names::Conventions;
use super::otlp::protobuf::{self, Value};
use super::otlp::{Environment, Error, OtlpConfig, Signal, Transport};
use super::spans::{Encoder, Envelope, Pusher, Queue};

/// The value of the label `exporter`.
pub const NAME: &str = "otlp_logs";

/// Events that may wait, and those of one push, as OpenTelemetry has them by default.
const QUEUE: usize = 2048;
const BATCH: usize = 512;
/// How long an event waits for others to be pushed with.
const DELAY: Duration = Duration::from_secs(1);
const MIN_DELAY: Duration = Duration::from_millis(10);

/// Numbers of the fields of `opentelemetry.proto.logs.v1.LogRecord`.
mod field {
    pub(super) const TIME: u32 = 1;
    pub(super) const SEVERITY: u32 = 2;
    pub(super) const SEVERITY_TEXT: u32 = 3;
    pub(super) const BODY: u32 = 5;
    pub(super) const ATTRIBUTES: u32 = 6;
    pub(super) const TRACE_ID: u32 = 9;
    pub(super) const SPAN_ID: u32 = 10;
    pub(super) const OBSERVED: u32 = 11;
    pub(super) const EVENT_NAME: u32 = 12;
}

/// Which calls become log events. The collector is that of the metrics.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogsConfig {
    /// Whether events are pushed, where there is an endpoint; `OTEL_LOGS_EXPORTER=otlp` says so, too.
    pub enabled: bool,
    /// `faults`: calls that did not end well. `all`: every call.
    pub calls: LoggedCalls,
}

/// Which calls become log events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LoggedCalls {
    /// Those that did not end well.
    #[default]
    Faults,
    /// Every one.
    All,
}

/// Which calls become events and where these are pushed, with nothing left open.
#[derive(Clone, Debug)]
pub struct Logs {
    transport: Transport,
    conventions: Conventions,
    calls: LoggedCalls,
    queue: usize,
    batch: usize,
    delay: Duration,
    limit: Duration,
    resource: BTreeMap<String, String>,
}

/// Encodes records and has them wait.
#[derive(Debug)]
pub(crate) struct LogExporter {
    calls: LoggedCalls,
    encoder: Encoder,
    queue: Arc<Queue>,
}

// === impl LoggedCalls ===

impl LoggedCalls {
    fn takes(self) -> fn(&Record) -> bool {
        match self {
            Self::Faults => |record| record.outcome != Some(Outcome::Completed),
            Self::All => |_| true,
        }
    }
}

// === impl Logs ===

impl Logs {
    /// Settles configuration and environment; absent where no events are to be pushed.
    pub fn settle(
        config: &OtlpConfig,
        conventions: Conventions,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let environment = Environment { variable: &variable, signal: Signal::Logs };
        if !config.logs.enabled && !environment.is_on() {
            return Ok(None);
        }
        let Some(transport) = Transport::settle(config, &environment)? else { return Ok(None) };
        let count = |name: &str, default| {
            let read = |text: &str| text.parse().ok().filter(|count: &usize| *count > 0);
            environment.read(name, read).unwrap_or(default)
        };
        let queue = count("OTEL_BLRP_MAX_QUEUE_SIZE", QUEUE);
        let delay = environment.milliseconds("OTEL_BLRP_SCHEDULE_DELAY");
        let limit = environment.milliseconds("OTEL_BLRP_EXPORT_TIMEOUT");
        Ok(Some(Self {
            conventions,
            calls: config.logs.calls,
            queue,
            batch: count("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", BATCH).min(queue),
            delay: delay.unwrap_or(DELAY).max(MIN_DELAY),
            limit: limit.unwrap_or(transport.timeout),
            resource: environment.resource(),
            transport,
        }))
    }

    /// The two halves: what takes records, and what pushes events and counts those that it loses.
    pub(crate) fn start(self, lost: Arc<AtomicU64>) -> (LogExporter, Pusher) {
        let queue = Arc::new(Queue::new(self.queue, self.batch));
        let encoder = Encoder::new(self.conventions);
        let exporter = LogExporter { calls: self.calls, encoder, queue: queue.clone() };
        let envelope = Envelope::new(&self.resource, self.conventions);
        let pusher =
            Pusher::new("logs", self.transport, queue, envelope, self.delay, self.limit, lost);
        (exporter, pusher)
    }
}

// === impl LogExporter ===

impl Exporter for LogExporter {
    fn name(&self) -> &'static str {
        NAME
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        let takes = self.calls.takes();
        let taken = records.iter().filter(|record| takes(record));
        taken.map(|record| u64::from(!self.keep(record))).sum()
    }

    fn takes(&self) -> fn(&Record) -> bool {
        self.calls.takes()
    }
}

impl LogExporter {
    /// Has it wait for a push; whether there was room.
    fn keep(&mut self, record: &Record) -> bool {
        // What finds no room need not be encoded.
        if !self.queue.has_room() {
            return false;
        }
        let event = self.event(record);
        self.queue.offer(event)
    }

    /// The message `LogRecord` of a call.
    fn event(&mut self, record: &Record) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        let began = u64::try_from(record.time.as_nanosecond()).unwrap_or(0);
        let lasted = record.duration_s.unwrap_or(0.0) * 1e9;
        let ended = began.saturating_add(lasted as u64);
        let (severity, word) = severity(record);
        let outcome = record.outcome.map_or("ended", Outcome::as_str);
        protobuf::fixed64(&mut out, field::TIME, ended);
        protobuf::fixed64(&mut out, field::OBSERVED, ended);
        protobuf::number(&mut out, field::SEVERITY, severity);
        protobuf::bytes(&mut out, field::SEVERITY_TEXT, word.as_bytes());
        protobuf::message(&mut out, field::BODY, |out| {
            protobuf::bytes(out, 1, body(record, outcome).as_bytes());
        });
        self.encoder.attributes(&mut out, record, field::ATTRIBUTES);
        if let Some(seconds) = record.duration_s {
            let value = Value::Double(seconds);
            protobuf::attribute(&mut out, field::ATTRIBUTES, "tidegate.duration_s", value);
        }
        protobuf::bytes(&mut out, field::TRACE_ID, &record.trace_id.0);
        protobuf::bytes(&mut out, field::SPAN_ID, &record.span_id.0);
        protobuf::bytes(&mut out, field::EVENT_NAME, format!("tidegate.call.{outcome}").as_bytes());
        out
    }
}

/// What a person reads: few words, none of them anybody else's but for the name of a model.
fn body(record: &Record, outcome: &str) -> String {
    let what = record.operation.as_deref().unwrap_or("call");
    let model = record.request_model.as_deref().map(|model| format!(" {model}"));
    let why = record.error_type.as_deref().map(|kind| format!(": {kind}"));
    format!("{what}{} {outcome}{}", model.unwrap_or_default(), why.unwrap_or_default())
}

/// By OpenTelemetry's numbers: whose fault it is tells how bad it is.
fn severity(record: &Record) -> (u64, &'static str) {
    match (record.outcome, record.error_origin) {
        (Some(Outcome::Completed | Outcome::Abandoned) | None, _) => (9, "INFO"),
        (Some(Outcome::Refused), _) | (_, Some(ErrorOrigin::Client)) => (13, "WARN"),
        (Some(Outcome::Failed | Outcome::Truncated), _) => (17, "ERROR"),
    }
}
