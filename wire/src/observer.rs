//! One call as it goes by: chunks and times in, the keys of a record out.

use std::sync::Arc;
use std::time::Duration;

use crate::dialect::grpc::predict;
use crate::dialect::{Count, Usage};
use crate::facts::{self, Facts, without_namespace};
use crate::grpc::{Ongoing, Status};
use crate::hints;
use crate::left::{Left, Whole};
use crate::reply::Reply;
use crate::request::Request;
use crate::times::Times;
use crate::words::{bounded, word};
use crate::{
    Asked, Ending, ErrorOrigin, Headers, Outcome, RateLimits, Record, Shape, UsageSource, job, size,
};

/// `error.type` of an error in band that names neither type nor code.
const OTHER_ERROR: &str = "_OTHER";
/// `error.type` where no response head came, and the carrier does not know better.
const NO_ANSWER: &str = "no_answer";
/// The status that ends HTTP on a connection.
const SWITCHING: u16 = 101;
/// `error.type` of a truncated call, where the carrier does not know better.
const TRUNCATED: &str = "truncated";

/// Reads a call beside its bytes. Never fails: what it cannot read it leaves out, and says so.
///
/// All times are offsets from the start of the call.
#[derive(Debug)]
pub struct Observer {
    shape: Shape,
    request: Request,
    head: Option<Head>,
    reply: Option<Reply>,
    /// What makes a gRPC call one.
    grpc: Option<Box<Ongoing>>,
    keeps_token_times: bool,
    /// Once nobody gets what still comes.
    left: Option<Left>,
    /// Only the answer told how it reads.
    is_recognised: bool,
}

/// How far an answer has come, for whoever may still choose another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is no head yet.
    None,
    /// It has begun, and means nothing yet: a head, a role, a ping.
    Begun,
    /// A token has come.
    Token,
    /// It says that it failed, by its status or in band.
    Failed,
    /// It says that it is over, without a token.
    Over,
    /// Nobody here can read it.
    Unread,
}

/// An error as an answer states it.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// The status of the answer; 200 where the error came in band.
    pub status: u16,
    /// The provider's type, else its code, else the status.
    pub kind: String,
    /// The provider's code.
    pub code: Option<String>,
    /// Whose fault it is.
    pub origin: ErrorOrigin,
    /// Seconds after which to try again, where the answer says so.
    pub retry_after_s: Option<f64>,
    /// Whether to try again at all, where the answer says so (`x-should-retry`).
    pub should_retry: Option<bool>,
}

/// What the head of the response said.
#[derive(Debug)]
struct Head {
    status: u16,
    at: Duration,
    error_kind: Option<String>,
    retry_after: Option<f64>,
    should_retry: Option<bool>,
    limits: RateLimits,
}

// === impl Observer ===

impl Observer {
    /// An observer for a call of this shape.
    pub fn new(shape: Shape) -> Self {
        let request = Request::new(&shape);
        let grpc = shape.grpc.map(|method| Box::new(Ongoing::new(method)));
        Self {
            shape,
            request,
            head: None,
            reply: None,
            grpc,
            keeps_token_times: false,
            left: None,
            is_recognised: false,
        }
    }

    /// What the head said.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// A piece of the request body (without transfer coding).
    pub fn request(&mut self, bytes: &[u8]) {
        self.request.chunk(bytes);
        if let Some(grpc) = &mut self.grpc {
            grpc.request(bytes);
        }
    }

    /// Whether more of the request body could still say something; once false, it stays so.
    pub fn reads_request(&self) -> bool {
        self.request.reads() || self.names_resource()
    }

    /// Whether the first message of a gRPC call may still say whom it is for.
    fn names_resource(&self) -> bool {
        self.grpc.as_ref().is_some_and(|grpc| grpc.reads())
    }

    /// Whether routing may still learn the model from more of the request body.
    pub fn awaits_model(&self) -> bool {
        (self.request.awaits_model() || self.names_resource()) && self.shape.model.is_none()
    }

    /// The model as requested, once it is known.
    pub fn model(&self) -> Option<&str> {
        let named = self.grpc.as_ref().and_then(|grpc| grpc.named.model.as_deref());
        self.request.model().or(self.shape.model.as_deref()).or(named)
    }

    /// The parameters that the request has stated so far.
    pub fn asked(&self) -> Option<&Asked> {
        self.request.asked()
    }

    /// The most output tokens that the request asks for, all choices together, as far as it has
    /// been read.
    pub fn max_output_tokens(&self) -> Option<u64> {
        self.request.max_output_tokens()
    }

    /// The location that the call names, as far as it has been read.
    pub fn location(&self) -> Option<&str> {
        let named = self.grpc.as_ref().and_then(|grpc| grpc.named.location.as_deref());
        named.or(self.shape.region.as_deref())
    }

    /// The response head (the final one, not a 1xx).
    pub fn head(&mut self, status: u16, headers: &dyn Headers, at: Duration) {
        self.head = Some(Head::read(status, headers, at));
        if self.shape.reading.is_none() {
            self.shape.recognise_reply(headers);
            self.is_recognised = self.shape.reading.is_some();
        }
        self.trailers(headers);
        let messages = self.shape.grpc.and_then(|method| method.reply);
        // What follows a change of protocol is no HTTP body.
        let reading = self.shape.reading.filter(|_| status != SWITCHING);
        self.reply = reading.map(|reading| {
            let mut times = Times::default();
            if self.keeps_token_times {
                times.keep();
            }
            Reply::new(reading, messages, headers, times)
        });
    }

    /// A piece of the response body (without transfer coding), and when it was read.
    pub fn chunk(&mut self, bytes: &[u8], at: Duration) {
        if let Some(reply) = &mut self.reply {
            reply.chunk(bytes, at);
        }
    }

    /// Forgets the answer so far: the call is made again.
    pub fn again(&mut self) {
        self.head = None;
        self.reply = None;
        if let Some(grpc) = &mut self.grpc {
            grpc.status = None;
        }
        if std::mem::take(&mut self.is_recognised) {
            self.shape.reading = None;
        }
    }

    /// How far the answer has come.
    pub fn progress(&self) -> Progress {
        let Some(head) = &self.head else { return Progress::None };
        let facts = self.facts();
        match (&self.reply, facts) {
            _ if head.status >= 400 => Progress::Failed,
            // What came first counts: an error behind a token is one of a stream that died.
            (_, Some(facts)) if facts.times.has_token() => Progress::Token,
            _ if self.says_error() => Progress::Failed,
            (_, Some(facts)) if facts.is_over() => Progress::Over,
            (Some(reply), _) if reply.is_read() => Progress::Begun,
            _ => Progress::Unread,
        }
    }

    fn says_error(&self) -> bool {
        self.facts().is_some_and(|facts| facts.error.is_some())
            || self.grpc_status().is_some_and(Status::is_error)
    }

    /// The error that the answer states, as far as it has come; absent where it states none.
    pub fn fault(&self) -> Option<Fault> {
        let head = self.head.as_ref()?;
        if let Some(status) = self.grpc_status().filter(|status| status.is_error()) {
            return Some(Fault {
                status: head.status,
                kind: status.name(),
                code: Some(status.code.to_string()),
                origin: status.origin(),
                retry_after_s: status.retry_after,
                should_retry: head.should_retry,
            });
        }
        if head.status < 400 && !self.says_error() {
            return None;
        }
        let body = self.facts().map(Facts::fault).unwrap_or_default();
        let said = facts::Fault { kind: head.error_kind.clone().or(body.kind), code: body.code };
        let origin = origin(head.status, &said);
        let status = (head.status >= 400).then(|| head.status.to_string());
        let code = said.code.clone();
        let kind = said.kind.or(said.code).or(status).unwrap_or_else(|| OTHER_ERROR.to_owned());
        let stated = self.facts().and_then(|facts| facts.retry_after);
        let retry_after_s = head.retry_after.or(stated);
        let should_retry = head.should_retry;
        Some(Fault { status: head.status, kind, code, origin, retry_after_s, should_retry })
    }

    /// When the first token came.
    pub fn first_token(&self) -> Option<Duration> {
        self.facts().and_then(|facts| facts.times.first_token())
    }

    /// Whether this is a stream, as far as request and answer say.
    pub fn is_stream(&self) -> bool {
        self.asked_stream() == Some(true)
            || self.reply.as_ref().is_some_and(|reply| reply.is_stream())
    }

    /// The fields behind the response body.
    pub fn trailers(&mut self, trailers: &dyn Headers) {
        if let Some(grpc) = &mut self.grpc {
            grpc.trailers(trailers);
        }
    }

    /// Keeps the offset of every token chunk from here on; [`Observer::token_times`] hands them out.
    pub fn keep_token_times(&mut self) {
        self.keeps_token_times = true;
        if let Some(reply) = &mut self.reply {
            reply.facts_mut().times.keep();
        }
    }

    /// The offsets of the token chunks, where they were kept.
    pub fn token_times(&self) -> &[Duration] {
        let reply = self.reply.as_ref().filter(|_| self.is_stream());
        reply.map_or(&[], |reply| reply.facts().times.kept())
    }

    /// The gaps between them, as the record means them.
    pub fn token_gaps(&self) -> impl Iterator<Item = Duration> {
        self.token_times().windows(2).map(|pair| pair[1].saturating_sub(pair[0]))
    }

    /// The caller has left, but the answer is read on: the call is abandoned, whatever still comes.
    /// What others wait for is not wasted.
    pub fn caller_left(&mut self, is_awaited: bool) {
        let stated = |facts: &Facts| (self.shape.reading?.usage)(&facts.counts).output;
        let current = self.facts().filter(|facts| facts.has_counted_all());
        self.left = Some(Left {
            had_head: self.head.is_some(),
            had_failed: self.has_failed(),
            chunks: self.facts().map_or(0, |facts| facts.times.chunks()),
            tokens: current.and_then(stated),
            is_awaited,
        });
    }

    /// The end. Fills in everything that the wire says, the outcome among it, and leaves what only
    /// the carrier knows (ids, route, bytes, waits) as it is.
    pub fn finish(mut self, ending: Ending, at: Duration, record: &mut Record) {
        if let Some(reply) = &mut self.reply {
            reply.end();
        }
        let of_answer = self.outcome(ending);
        let outcome = self.left.map_or(of_answer, |left| match left.had_failed {
            true => Outcome::Failed,
            false => Outcome::Abandoned,
        });
        record.outcome = Some(outcome);
        record.duration_s = Some(at.as_secs_f64());
        self.fill_request(record);
        self.request.fill(self.shape.guardrail.as_deref(), record);
        if let Some(head) = &mut self.head {
            record.limits = std::mem::take(&mut head.limits);
            if self.left.is_none_or(|left| left.had_head) {
                record.status.get_or_insert(head.status);
            }
            record.time_to_first_byte_s = Some(head.at.as_secs_f64());
        }
        if let Some(reply) = &self.reply {
            self.fill_reply(reply, of_answer, record);
        }
        self.fill_waste(record);
        self.fill_job(record);
        self.fill_error(ending, outcome, record);
    }

    fn fill_job(&self, record: &mut Record) {
        let facts = self.facts();
        let job = facts.and_then(|facts| facts.job.as_deref());
        let named = self.request.job_name().or(self.shape.job.as_deref());
        let has_error = facts.is_some_and(|facts| facts.error.is_some());
        job::fill(job, named, self.request.video(), has_error, record);
    }

    /// The first cause wins: an error that the reply states came before whatever ended it.
    fn outcome(&self, ending: Ending) -> Outcome {
        match ending {
            Ending::Refused => Outcome::Refused,
            Ending::NoAnswer => Outcome::Failed,
            _ if self.has_failed() => Outcome::Failed,
            Ending::CallerLeft => Outcome::Abandoned,
            Ending::Broken => Outcome::Truncated,
            Ending::Clean if self.is_cut_short() || self.lacks_status() => Outcome::Truncated,
            Ending::Clean => Outcome::Completed,
        }
    }

    fn has_failed(&self) -> bool {
        self.head.as_ref().is_some_and(|head| head.status >= 400) || self.says_error()
    }

    /// Whether a clean end came too early: within a message, or before a stream said why it ended.
    fn is_cut_short(&self) -> bool {
        let (Some(reply), Some(reading)) = (&self.reply, self.shape.reading) else { return false };
        let facts = reply.facts();
        let is_open = reading.has_end && !facts.is_over();
        let needs_end = reply.is_stream() || self.is_stream() && reply.is_blank();
        reply.is_cut() || reply.is_read() && (needs_end && is_open || facts.goes_on && !facts.ended)
    }

    /// Whether this is a gRPC call whose server has not said how it ended.
    fn lacks_status(&self) -> bool {
        self.shape.is_grpc() && self.grpc_status().is_none()
    }

    fn grpc_status(&self) -> Option<&Status> {
        self.grpc.as_ref()?.status.as_ref()
    }

    fn asked_stream(&self) -> Option<bool> {
        self.shape.stream.or_else(|| self.request.stream(self.shape.streams_unasked))
    }

    fn facts(&self) -> Option<&Facts> {
        self.reply.as_ref().map(|reply| reply.facts())
    }

    fn fill_request(&self, record: &mut Record) {
        let shape = &self.shape;
        fill(&mut record.operation, || self.operation());
        record.is_provider_assumed = record.provider.is_none() && shape.is_provider_assumed;
        fill(&mut record.provider, || shape.provider.clone());
        fill(&mut record.region, || shape.region.clone());
        fill(&mut record.project, || shape.project.clone());
        if let Some(grpc) = &self.grpc {
            fill(&mut record.region, || grpc.named.location.as_deref().map(word));
            fill(&mut record.project, || grpc.named.project.clone());
            fill(&mut record.grpc_status, || grpc.status.map(|status| status.code));
        }
        record.client_retries = shape.client_retries;
        fill(&mut record.request_model, || self.model().map(str::to_owned));
        let came_as_stream = self.is_stream().then_some(true);
        fill(&mut record.stream, || self.asked_stream().or(came_as_stream));
    }

    fn operation(&self) -> Option<Arc<str>> {
        let operation = self.shape.operation.clone();
        match operation.as_deref() {
            Some("predict") if self.shape.is_grpc() => Some(word(predict(self.model()))),
            _ => operation,
        }
    }

    fn fill_reply(&self, reply: &Reply, outcome: Outcome, record: &mut Record) {
        let facts = reply.facts();
        record.response_model = said(&facts.model);
        record.response_id = said(&facts.id);
        record.finish_reasons = facts.reasons();
        record.calls_tool = facts.calls_tool;
        record.block_reason = facts.block_reason.clone().or(record.block_reason.take());
        record.counted_tokens = facts.counts.value(Count::Counted);
        record.service_tier = said(&facts.service_tier);
        record.system_fingerprint = said(&facts.fingerprint);
        if let Some(images) = facts.counts.value(Count::Images) {
            record.media.get_or_insert_default().images_made = Some(images);
        }
        record.not_understood = reply.not_understood().map(|reason| word(reason.as_str()));
        self.fill_usage(facts, outcome, record);
        if self.is_stream() {
            facts.times.fill(record);
        }
    }

    fn fill_usage(&self, facts: &Facts, outcome: Outcome, record: &mut Record) {
        let Some(reading) = self.shape.reading else { return };
        let usage = (reading.usage)(&facts.counts);
        let is_final = outcome == Outcome::Completed || facts.ended || facts.counted_at_end;
        if usage != Usage::default() {
            let source = if is_final { UsageSource::Reported } else { UsageSource::Partial };
            record.usage_source = Some(source);
        }
        record.input_tokens = usage.input;
        record.size_class = usage.input.map(size::class);
        record.output_tokens = usage.output;
        record.cache_read_tokens = usage.cache_read;
        record.cache_creation_tokens = usage.cache_creation;
        record.reasoning_tokens = usage.reasoning;
        record.has_long_cache_write =
            facts.counts.value(Count::CacheWriteLong).is_some_and(|tokens| tokens > 0);
    }

    /// How many tokens nobody got; nothing where the answer has not said its last word on them.
    fn fill_waste(&self, record: &mut Record) {
        let (Some(left), Some(facts)) = (&self.left, self.facts()) else { return };
        let is_final = record.usage_source == Some(UsageSource::Reported) && !left.is_awaited;
        if let Some(tokens) = record.output_tokens.filter(|_| is_final) {
            let (is_stream, chunks) = (self.is_stream(), facts.times.chunks());
            let drain = record.drain.get_or_insert_default();
            left.fill(&Whole { is_stream, chunks, tokens }, drain);
        }
    }

    fn fill_error(&self, ending: Ending, outcome: Outcome, record: &mut Record) {
        match outcome {
            Outcome::Failed if ending == Ending::NoAnswer => {
                fill(&mut record.error_type, || Some(NO_ANSWER.to_owned()));
                fill(&mut record.error_origin, || Some(ErrorOrigin::Upstream));
            }
            Outcome::Failed => self.fill_fault(record),
            Outcome::Truncated => {
                fill(&mut record.error_type, || Some(TRUNCATED.to_owned()));
                fill(&mut record.error_origin, || Some(ErrorOrigin::Upstream));
            }
            Outcome::Completed | Outcome::Refused | Outcome::Abandoned => {}
        }
    }

    /// What the reply says of its own failure.
    fn fill_fault(&self, record: &mut Record) {
        let Some(fault) = self.fault() else { return };
        fill(&mut record.error_code, || fault.code);
        fill(&mut record.error_type, || Some(fault.kind));
        fill(&mut record.error_origin, || Some(fault.origin));
        fill(&mut record.retry_after_s, || fault.retry_after_s);
    }
}

// === impl Head ===

impl Head {
    fn read(status: u16, headers: &dyn Headers, at: Duration) -> Self {
        let limits = hints::rate_limits(headers);
        let (error_kind, retry_after, should_retry) = (None, None, None);
        let mut head = Self { status, at, error_kind, retry_after, should_retry, limits };
        if status >= 400 {
            head.error_kind = headers
                .value("x-amzn-errortype")
                .map(|kind| String::from_utf8_lossy(without_namespace(kind)).into_owned())
                .map(bounded);
            head.retry_after = hints::retry_after(headers);
            head.should_retry = hints::should_retry(headers);
        }
        head
    }
}

/// Whose fault it is: by the type where that is telling, else by the status.
fn origin(status: u16, fault: &facts::Fault) -> ErrorOrigin {
    const QUOTA: [&str; 5] = ["quota", "rate_limit", "throttling", "resource_exhausted", "429"];
    const UPSTREAM: [&str; 4] = ["overloaded", "modeltimeout", "modelerror", "modelstreamerror"];
    const CLIENT: [&str; 4] = ["invalid", "validation", "not_found", "authentication"];
    let words = [fault.kind.as_deref(), fault.code.as_deref()];
    let says = |known: &[&str]| {
        words.iter().flatten().any(|word| {
            let word = word.to_ascii_lowercase();
            known.iter().any(|known| word.contains(known))
        })
    };
    match status {
        429 => ErrorOrigin::Quota,
        500.. => ErrorOrigin::Upstream,
        _ if says(&QUOTA) => ErrorOrigin::Quota,
        _ if says(&UPSTREAM) => ErrorOrigin::Upstream,
        400.. => ErrorOrigin::Client,
        _ if says(&CLIENT) || says_client_status(fault) => ErrorOrigin::Client,
        _ => ErrorOrigin::Upstream,
    }
}

/// An error in band may carry the status that it would have had.
fn says_client_status(fault: &facts::Fault) -> bool {
    let code = fault.code.as_deref().and_then(|code| code.parse::<u16>().ok());
    code.is_some_and(|code| (400..500).contains(&code))
}

/// Fills what the carrier has not said already: it knows better.
fn fill<T>(slot: &mut Option<T>, value: impl FnOnce() -> Option<T>) {
    if slot.is_none() {
        *slot = value();
    }
}

fn said(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
