//! Spans pushed by OTLP: one for each call, from its record.
//!
//! A record is encoded on the exporters' thread and waits, encoded, in a bounded queue; a task
//! beside the data path pushes what waits in batches. A collector that is away holds nothing up:
//! a batch is tried for a bounded time, then lost and counted, and so is what does not fit the
//! queue meanwhile.

mod content;
mod encode;
mod sampler;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tidegate_wire::Record;
use tokio::sync::{Notify, oneshot};
use tracing::{info, warn};

pub(super) use self::encode::Encoder;
pub(crate) use self::sampler::Sampler;
use super::metrics::lock;
use super::names::Conventions;
use super::otlp::protobuf::{self, Value};
use super::otlp::{
    Client, Environment, Error, OtlpConfig, PushError, Signal, Transport, accepted, causes,
};
use super::{Exporter, catalog};
use crate::config::Span;

pub use self::content::captures_content;
pub use self::sampler::SamplerName;

/// The value of the label `exporter`.
pub const NAME: &str = "otlp_spans";

/// Bytes of spans that may wait: with captured content a span is no longer small.
const QUEUE_BYTES: usize = 8 << 20;
/// Bytes of one push, below what collectors take at most by gRPC (4 MiB).
const BATCH_BYTES: usize = 2 << 20;
/// Who wants no delay gets this one: looking at an empty queue all the time helps nobody.
const MIN_DELAY: Duration = Duration::from_millis(10);
/// How long the first try again waits; each further one twice as long.
const BACKOFF: Duration = Duration::from_millis(200);

/// Which calls become spans, and how these are pushed. The collector is that of the metrics.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TracesConfig {
    /// Whether spans are pushed, where there is an endpoint.
    pub enabled: bool,
    /// Which calls become spans.
    pub sampler: SamplerName,
    /// Of all traces, where the sampler goes by a ratio: 0 to 1.
    pub ratio: f64,
    /// Whether calls that failed or broke off, other than by their callers' fault, become spans even
    /// where the sampler leaves them out.
    pub errors: bool,
    /// Calls become spans likewise whose callers waited for longer: to the first token of a stream,
    /// to the end of any other.
    pub slow: Span,
    /// Spans that may wait for a push.
    pub queue: NonZeroU32,
    /// Spans of one push.
    pub batch: NonZeroU32,
    /// How long a span waits for others to be pushed with.
    #[serde(with = "jiff::fmt::serde::unsigned_duration::friendly::compact::required")]
    #[schemars(with = "crate::config::Span")]
    pub delay: Duration,
}

/// Which calls become spans and where these are pushed, with nothing left open.
#[derive(Clone, Debug)]
pub struct Traces {
    transport: Transport,
    conventions: Conventions,
    sampler: Sampler,
    queue: usize,
    batch: usize,
    delay: Duration,
    /// How long one batch is tried.
    limit: Duration,
    resource: BTreeMap<String, String>,
}

/// Encodes records and has them wait.
#[derive(Debug)]
pub struct SpanExporter {
    sampler: Sampler,
    encoder: Encoder,
    queue: Arc<Queue>,
}

/// Pushes what waits, spans or log events, until it is told to stop.
#[derive(Debug)]
pub struct Pusher {
    /// What it pushes, as people call it.
    what: &'static str,
    transport: Transport,
    queue: Arc<Queue>,
    delay: Duration,
    limit: Duration,
    /// All that stands around the spans of a push.
    envelope: Envelope,
    /// What is being pushed.
    batch: Vec<Vec<u8>>,
    lost: Arc<AtomicU64>,
    /// Whether the last push failed: said once, not for every push.
    failing: bool,
}

/// Encoded spans that wait.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    spans: usize,
    batch: usize,
    /// A batch is together.
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    spans: VecDeque<Vec<u8>>,
    bytes: usize,
}

/// Resource, scope and schema, encoded once.
#[derive(Debug)]
pub(super) struct Envelope {
    resource: Vec<u8>,
    scope: Vec<u8>,
    schema_url: &'static str,
}

// === impl TracesConfig ===

impl Default for TracesConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            sampler: SamplerName::default(),
            ratio: 1.0,
            errors: true,
            slow: Span(Duration::from_secs(10)),
            queue: NonZeroU32::new(2048).expect("not zero"),
            batch: NonZeroU32::new(512).expect("not zero"),
            delay: Duration::from_secs(5),
        }
    }
}

impl TracesConfig {
    /// What one key cannot say of itself.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (0.0..=1.0).contains(&self.ratio) {
            true => Ok(()),
            false => Err(format!("ratio: {} is not between 0 and 1", self.ratio)),
        }
    }
}

// === impl Traces ===

impl Traces {
    /// Settles configuration and environment; absent where no spans are to be pushed.
    pub fn settle(
        config: &OtlpConfig,
        conventions: Conventions,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, Error> {
        let environment = Environment { variable: &variable, signal: Signal::Traces };
        let traces = &config.traces;
        if !traces.enabled && !environment.is_on() {
            return Ok(None);
        }
        let Some(transport) = Transport::settle(config, &environment)? else { return Ok(None) };
        let count = |name: &str, configured: NonZeroU32| {
            let read = environment.read(name, |text| text.parse::<NonZeroU32>().ok());
            read.unwrap_or(configured).get() as usize
        };
        let named = environment.read("OTEL_TRACES_SAMPLER", SamplerName::read);
        // The argument is that of the sampler which the variable names.
        let argument = named.and_then(|_| environment.read("OTEL_TRACES_SAMPLER_ARG", ratio));
        let ratio = argument.unwrap_or(if named.is_some() { 1.0 } else { traces.ratio });
        let queue = count("OTEL_BSP_MAX_QUEUE_SIZE", traces.queue);
        Ok(Some(Self {
            conventions,
            sampler: Sampler::new(named.unwrap_or(traces.sampler), ratio)
                .with_always(traces.errors, traces.slow.0),
            queue,
            batch: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", traces.batch).min(queue),
            delay: environment
                .milliseconds("OTEL_BSP_SCHEDULE_DELAY")
                .unwrap_or(traces.delay)
                .max(MIN_DELAY),
            limit: environment.milliseconds("OTEL_BSP_EXPORT_TIMEOUT").unwrap_or(transport.timeout),
            resource: environment.resource(),
            transport,
        }))
    }

    /// Which calls become spans.
    pub(crate) fn sampler(&self) -> Sampler {
        self.sampler
    }

    /// The two halves: what takes records, and what pushes spans and counts those that it loses.
    pub fn start(self, lost: Arc<AtomicU64>) -> (SpanExporter, Pusher) {
        let queue = Arc::new(Queue::new(self.queue, self.batch));
        let exporter = SpanExporter {
            sampler: self.sampler,
            encoder: Encoder::new(self.conventions),
            queue: queue.clone(),
        };
        let envelope = Envelope::new(&self.resource, self.conventions);
        let pusher =
            Pusher::new("spans", self.transport, queue, envelope, self.delay, self.limit, lost);
        (exporter, pusher)
    }
}

fn ratio(text: &str) -> Option<f64> {
    text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio))
}

// === impl SpanExporter ===

impl Exporter for SpanExporter {
    fn name(&self) -> &'static str {
        NAME
    }

    fn export(&mut self, records: &[Record]) -> u64 {
        let sampler = self.sampler;
        let taken = records.iter().filter(|record| sampler.takes(record));
        taken.map(|record| self.offer(record)).sum()
    }
}

impl SpanExporter {
    /// The span of a call, and one for each attempt where there were several; how many are lost.
    fn offer(&mut self, record: &Record) -> u64 {
        // What finds no room need not be encoded.
        let mut lost =
            u64::from(!self.queue.has_room() || !self.queue.offer(self.encoder.span(record)));
        for (place, attempt) in record.attempts_made.iter().enumerate() {
            let encode = || self.encoder.attempt(record, place, attempt);
            lost += u64::from(!self.queue.has_room() || !self.queue.offer(encode()));
        }
        lost
    }
}

// === impl Queue ===

impl Queue {
    pub(super) fn new(spans: usize, batch: usize) -> Self {
        Self { waiting: Mutex::default(), spans, batch, filled: Notify::new() }
    }

    pub(super) fn has_room(&self) -> bool {
        lock(&self.waiting).spans.len() < self.spans
    }

    /// Only the exporters' thread offers, so room that was there is there still, but for bytes.
    pub(super) fn offer(&self, span: Vec<u8>) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.bytes + span.len() > QUEUE_BYTES {
            return false;
        }
        waiting.bytes += span.len();
        waiting.spans.push_back(span);
        if waiting.spans.len() >= self.batch {
            self.filled.notify_one();
        }
        true
    }

    /// The next batch, oldest first; empty where nothing waits.
    fn take(&self) -> Vec<Vec<u8>> {
        let mut waiting = lock(&self.waiting);
        let mut bytes = 0;
        let fits = waiting.spans.iter().take(self.batch).take_while(|span| {
            let is_first = bytes == 0;
            bytes += span.len();
            is_first || bytes <= BATCH_BYTES
        });
        let count = fits.count();
        let batch: Vec<_> = waiting.spans.drain(..count).collect();
        waiting.bytes -= batch.iter().map(Vec::len).sum::<usize>();
        batch
    }

    fn len(&self) -> usize {
        lock(&self.waiting).spans.len()
    }
}

// === impl Pusher ===

impl Pusher {
    pub(super) fn new(
        what: &'static str,
        transport: Transport,
        queue: Arc<Queue>,
        envelope: Envelope,
        delay: Duration,
        limit: Duration,
        lost: Arc<AtomicU64>,
    ) -> Self {
        let (batch, failing) = (Vec::new(), false);
        Self { what, transport, queue, delay, limit, envelope, batch, lost, failing }
    }

    /// Pushes batches as they fill or wait for long enough, and all that waits when it is told to
    /// stop, and until when it may.
    pub async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let mut client = match self.transport.connect() {
            Ok(client) => client,
            Err(error) => {
                warn!(error = %causes(&error), "{} are not pushed", self.what);
                _ = stop.await;
                return;
            }
        };
        info!(endpoint = %self.transport.endpoint, "{} are pushed", self.what);
        let deadline = tokio::select! {
            deadline = &mut stop => deadline,
            () = self.push_on(&mut client) => return,
        };
        let Ok(deadline) = deadline else { return };
        // A batch that was on its way is still here, and goes once more.
        let rest = self.push_all(&mut client);
        if tokio::time::timeout_at(deadline.into(), rest).await.is_err() {
            let count = self.batch.len() + self.queue.len();
            self.lost.fetch_add(count as u64, Ordering::Relaxed);
            warn!(count, endpoint = %self.transport.endpoint, "{} were not pushed in time", self.what);
        }
    }

    async fn push_on(&mut self, client: &mut Client) {
        loop {
            tokio::select! {
                () = self.queue.filled.notified() => {}
                () = tokio::time::sleep(self.delay) => {}
            }
            self.push_all(client).await;
        }
    }

    async fn push_all(&mut self, client: &mut Client) {
        loop {
            if self.batch.is_empty() {
                self.batch = self.queue.take();
            }
            if self.batch.is_empty() {
                return;
            }
            let result = self.push(client).await;
            let all = self.batch.len() as u64;
            let lost = match &result {
                Ok(()) => 0,
                Err(PushError::Rejected { rejected, .. }) => rejected.cast_unsigned().min(all),
                Err(_) => all,
            };
            self.lost.fetch_add(lost, Ordering::Relaxed);
            self.batch.clear();
            self.tell(result);
        }
    }

    /// Pushes the batch at hand, again and again for a bounded time where that may help.
    async fn push(&self, client: &mut Client) -> Result<(), PushError> {
        let request = self.envelope.around(&self.batch);
        let end = Instant::now() + self.limit;
        let mut wait = BACKOFF;
        loop {
            let push = tokio::time::timeout_at(end.into(), client.push(request.clone()));
            let result = push.await.unwrap_or(Err(PushError::Timeout));
            match result.and_then(|answer| accepted(&answer)) {
                Err(error) if error.is_passing() && Instant::now() + wait < end => {
                    tokio::time::sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
                    wait *= 2;
                }
                result => return result,
            }
        }
    }

    fn tell(&mut self, result: Result<(), PushError>) {
        let endpoint = &self.transport.endpoint;
        match result {
            Err(error) if !self.failing => {
                let error = causes(&error);
                warn!(%endpoint, %error, "{} cannot be pushed and are dropped", self.what);
                self.failing = true;
            }
            Ok(()) if self.failing => {
                info!(%endpoint, "{} are pushed again", self.what);
                self.failing = false;
            }
            _ => {}
        }
    }
}

// === impl Envelope ===

impl Envelope {
    pub(super) fn new(resource: &BTreeMap<String, String>, conventions: Conventions) -> Self {
        let mut encoded = Vec::new();
        for (name, value) in resource {
            protobuf::attribute(&mut encoded, 1, name, Value::Text(value));
        }
        let mut scope = Vec::new();
        protobuf::bytes(&mut scope, 1, b"tidegate");
        protobuf::bytes(&mut scope, 2, catalog::VERSION.as_bytes());
        Self { resource: encoded, scope, schema_url: conventions.schema_url() }
    }

    /// The message `ExportTraceServiceRequest`, or that of logs, which has the same form.
    fn around(&self, spans: &[Vec<u8>]) -> Bytes {
        let mut out = Vec::with_capacity(spans.iter().map(|span| span.len() + 8).sum());
        protobuf::message(&mut out, 1, |out| {
            protobuf::bytes(out, 1, &self.resource);
            protobuf::message(out, 2, |out| {
                protobuf::bytes(out, 1, &self.scope);
                spans.iter().for_each(|span| protobuf::bytes(out, 2, span));
                protobuf::bytes(out, 3, self.schema_url.as_bytes());
            });
        });
        out.into()
    }
}

#[cfg(test)]
mod tests;
