//! What happens to a request, from its head to its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::body::Incoming;
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::Options;
use super::capacity::{Capacity, Overloaded, Slot};
use super::dialect::jobs::Jobs;
use super::dialect::{self, Answer, Call, Dialect, Refusal, Reply, Target, Unreadable, json, set};
use super::generation::{Ask, Generation, mix};
use super::metrics;
use super::overrides::{Break, Fault, Overrides};
use super::playback::{Playback, Script};
use super::tally::{Entry, Tally};
use super::trouble::Troubles;

/// The most that a request may hold.
const BODY_LIMIT_BYTES: usize = 64 << 20;

/// The most that a request of administration may hold.
const WISH_LIMIT_BYTES: usize = 4 << 10;

/// The most tokens of one answer, whoever wishes for more.
const MOST_TOKENS: u64 = 1_000_000;

/// How often a job is asked for before it is done.
const POLLS: u64 = 2;

/// The most answers to one call; OpenAI gives as many.
const MOST_CHOICES: u64 = 128;

/// The longest time before or between tokens.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The one model behind all the dialects.
#[derive(Debug)]
pub(super) struct Model {
    options: Options,
    capacity: Capacity,
    tally: Arc<Tally>,
    calls: AtomicU64,
    jobs: Jobs,
    troubles: Troubles,
}

type Body = Either<Full<Bytes>, Playback>;

/// Why a call gets an error for an answer.
enum Stop {
    /// The model has no place for it.
    Overloaded,
    /// It failed by chance or by wish.
    Failed {
        status: StatusCode,
        retry_after: Option<u32>,
    },
    Unreadable(String),
    /// The body is too large, or did not come to its end.
    BodyLost,
}

/// A generation that has its slot.
struct Sequence {
    slot: Slot,
    start: Instant,
    generation: Generation,
}

impl Model {
    pub(super) fn new(options: Options) -> Self {
        Self {
            capacity: Capacity::new(options.capacity, options.queue),
            tally: Arc::default(),
            calls: AtomicU64::new(0),
            jobs: Jobs::default(),
            troubles: Troubles::default(),
            options,
        }
    }

    pub(super) async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let target = Target::new(head.uri.clone());
        match dialect::of(&head.method, &target) {
            Some(dialect) => self.call(dialect, target, head, body).await,
            None => self.administer(&head.method, &target, body).await.map(whole),
        }
    }

    /// A model call. It is counted here, once, whatever becomes of it.
    async fn call(
        &self,
        dialect: &dyn Dialect,
        target: Target,
        head: Parts,
        body: Incoming,
    ) -> Response<Body> {
        let name = if target.is_vertex() { "vertex" } else { dialect.name() };
        let entry = self.tally.open(name, trace_id(&head.headers));
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:032x}", self.id(number));

        let answered = self.run(dialect, &target, &head.headers, body, number, entry).await;
        let mut response = answered.unwrap_or_else(|stop| {
            self.tally.fail();
            let retry_after = stop.retry_after();
            let mut refusal = dialect.refuse(&target, &stop.refusal(dialect, id.clone()));
            if let Some(seconds) = retry_after {
                set(refusal.headers_mut(), "retry-after", seconds);
            }
            refusal.map(whole)
        });
        for (name, value) in dialect.limits(&target, response.status()) {
            set(response.headers_mut(), name, value);
        }
        if let Some((name, id)) = dialect.request_id(&id) {
            set(response.headers_mut(), name, id);
        }
        response
    }

    async fn run(
        &self,
        dialect: &dyn Dialect,
        target: &Target,
        headers: &HeaderMap,
        body: Incoming,
        number: u64,
        mut entry: Entry,
    ) -> Result<Response<Body>, Stop> {
        let mut overrides = Overrides::read(headers).map_err(Stop::Unreadable)?;
        self.troubles.strike(&mut overrides, part(mix(self.options.seed.rotate_left(32), number)));
        // Read first, even if only to fail: an error sent early would meet a caller who still sends.
        let body = Limited::new(body, BODY_LIMIT_BYTES).collect().await;
        let body = body.map_err(|_| Stop::BodyLost)?.to_bytes();
        if let Some(recorded) = &self.options.recorded {
            recorded.apply(&mut overrides, target.as_sent(), &body);
        }
        if let Some(status) = self.failure(dialect, &overrides, number) {
            return Err(Stop::Failed { status, retry_after: overrides.retry_after });
        }

        let fault = overrides.midway();
        let polls = overrides.polls.unwrap_or(POLLS);
        let (id, jobs) = (self.id(number), &self.jobs);
        match dialect.read(&Call { target, headers, body, id, jobs, polls })? {
            Answer::Ready(reply) => Ok(reply.map(whole)),
            Answer::Pass { ask, reply } => {
                let sequence = self.begin(ask, &overrides, number, &mut entry).await?;
                sleep_until(sequence.start + sequence.generation.ttft).await;
                in_one_piece(reply, sequence, fault, entry)
            }
            Answer::Whole { ask, write } => {
                let sequence = self.begin(ask, &overrides, number, &mut entry).await?;
                sleep_until(sequence.start + sequence.generation.latency()).await;
                if fault.is_none() {
                    entry.first_token(sequence.start + sequence.generation.ttft);
                    entry.give_out(sequence.generation.output_tokens);
                }
                in_one_piece(write(&sequence.generation), sequence, fault, entry)
            }
            Answer::Stream { ask, write } => {
                let sequence = self.begin(ask, &overrides, number, &mut entry).await?;
                entry.stream();
                let script = write(&sequence.generation);
                Ok(played(stream_head(&script), script, sequence, fault, entry))
            }
        }
    }

    /// Takes a slot, and decides what the answer will be.
    async fn begin(
        &self,
        ask: Ask,
        overrides: &Overrides,
        number: u64,
        entry: &mut Entry,
    ) -> Result<Sequence, Stop> {
        let slot = self.capacity.admit().await?;
        entry.take_in(ask.input_tokens);
        let choices = ask.choices.unwrap_or(1).clamp(1, MOST_CHOICES);
        let most = MOST_TOKENS / choices;
        let visible = overrides.output_tokens.unwrap_or(self.options.output_tokens).clamp(1, most);
        let reasoning = overrides.reasoning_tokens.filter(|_| ask.thinks).unwrap_or(0);
        let length = reasoning.saturating_add(visible).min(most);
        let limit = ask.limit.unwrap_or(u64::MAX).max(1);
        // Something is always said: an answer of reasoning alone is one that no dialect can end.
        let reasoning = reasoning.min(length.min(limit) - 1);
        let tokens = length.min(limit) * choices;
        let generation = Generation {
            id: self.id(number),
            model: ask.model,
            input_tokens: ask.input_tokens,
            output_tokens: tokens,
            reasoning_tokens: reasoning * choices,
            choices,
            tool: ask.tool.filter(|_| overrides.tools),
            breaks_at: overrides.midway().map_or(tokens, |fault| fault.at(tokens)),
            capped: limit < length,
            created: Timestamp::now(),
            ttft: overrides.ttft.unwrap_or(self.options.ttft).min(LONGEST),
            tpot: overrides.tpot.unwrap_or(self.options.tpot).min(LONGEST),
        };
        Ok(Sequence { slot, start: Instant::now(), generation })
    }

    fn id(&self, number: u64) -> u128 {
        let high = mix(self.options.seed, 2 * number);
        let low = mix(self.options.seed, 2 * number + 1);
        u128::from(high) << 64 | u128::from(low)
    }

    /// The status of a call that is to fail, by wish or by chance.
    fn failure(
        &self,
        dialect: &dyn Dialect,
        overrides: &Overrides,
        number: u64,
    ) -> Option<StatusCode> {
        if let Some(Fault::Status(status)) = overrides.fault {
            return Some(status);
        }
        let drawn = mix(!self.options.seed, number);
        let usual = dialect.failures();
        let status = usual[(drawn % usual.len() as u64) as usize];
        StatusCode::from_u16(status).ok().filter(|_| part(drawn) < self.options.error_rate)
    }

    async fn administer(&self, method: &Method, target: &Target, body: Incoming) -> Reply {
        match (method.as_str(), target.path()) {
            ("GET", "/health") => json(StatusCode::OK, r#"{"status":"ok"}"#),
            ("GET", "/v1/models") => json(StatusCode::OK, MODELS),
            ("GET", "/metrics") => self.metrics(),
            ("GET", "/-/served") => serialised(&self.tally.served()),
            ("GET", "/-/stamps") => {
                serialised(&self.tally.stamps(target.query().strip_prefix("trace_id=")))
            }
            ("POST", "/-/reset") => {
                self.tally.reset();
                json(StatusCode::OK, "{}")
            }
            ("POST", "/-/fault") => self.set_fault(body).await,
            _ => json(StatusCode::NOT_FOUND, NOT_FOUND),
        }
    }

    fn metrics(&self) -> Reply {
        let text = metrics::text(self.tally.engine(), self.capacity.load());
        let mut reply = Response::new(Bytes::from(text));
        set(reply.headers_mut(), "content-type", "text/plain; version=0.0.4; charset=utf-8");
        reply
    }

    async fn set_fault(&self, body: Incoming) -> Reply {
        let wish = Limited::new(body, WISH_LIMIT_BYTES).collect().await;
        let wish = wish.map_err(|error| error.to_string());
        match wish.and_then(|wish| self.troubles.set(&wish.to_bytes())) {
            Ok(()) => json(StatusCode::OK, "{}"),
            Err(error) => {
                let error = serde_json::json!({ "error": { "message": error } });
                json(StatusCode::BAD_REQUEST, error.to_string())
            }
        }
    }
}

/// A number from 0 to 1 of what was drawn.
fn part(drawn: u64) -> f64 {
    (drawn >> 11) as f64 / (1u64 << 53) as f64
}

const MODELS: &str = r#"{"object":"list","data":[{"id":"sim","object":"model","created":1767225600,"owned_by":"tidegate"}]}"#;

const NOT_FOUND: &str = r#"{"error":{"message":"no model answers here","type":"invalid_request_error","param":null,"code":"not_found"}}"#;

fn whole(body: Bytes) -> Body {
    Either::Left(Full::new(body))
}

fn serialised(value: &impl serde::Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(body) => json(StatusCode::OK, body),
        Err(error) => json(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// The trace that a request belongs to, by its `traceparent`.
fn trace_id(headers: &HeaderMap) -> Option<String> {
    let mut fields = headers.get("traceparent")?.to_str().ok()?.split('-');
    let trace_id = fields.nth(1)?;
    (trace_id.len() == 32).then(|| trace_id.to_owned())
}

fn stream_head(script: &Script) -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(script.content_type));
    for (name, value) in script.headers {
        set(head.headers_mut(), name, value);
    }
    head
}

fn played(
    head: Response<()>,
    script: Script,
    sequence: Sequence,
    fault: Option<Break>,
    entry: Entry,
) -> Response<Body> {
    let Sequence { slot, start, generation } = sequence;
    head.map(|()| Either::Right(Playback::new(script, generation, start, fault, (slot, entry))))
}

fn in_one_piece(
    reply: Reply,
    sequence: Sequence,
    fault: Option<Break>,
    mut entry: Entry,
) -> Result<Response<Body>, Stop> {
    match fault {
        None => {
            entry.finish(sequence.generation.reason("stop", "length"));
            Ok(reply.map(whole))
        }
        Some(Break::ErrorEvent) => {
            Err(Stop::Failed { status: StatusCode::INTERNAL_SERVER_ERROR, retry_after: None })
        }
        Some(Break::Overload) => Err(Stop::Overloaded),
        Some(Break::Cut | Break::Stall) => Ok(half(reply, sequence, fault, entry)),
    }
}

/// An answer that promises its length and breaks after half of it.
fn half(
    reply: Reply,
    mut sequence: Sequence,
    fault: Option<Break>,
    entry: Entry,
) -> Response<Body> {
    let (mut head, body) = reply.into_parts();
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    (sequence.generation.output_tokens, sequence.generation.breaks_at) = (0, 0);
    let script = Script {
        content_type: "",
        headers: &[],
        opening: body[..body.len() / 2].to_vec(),
        token: Box::new(|_| Vec::new()),
        ending: Vec::new(),
        error: Vec::new(),
    };
    played(Response::from_parts(head, ()), script, sequence, fault, entry)
}

// === impl Stop ===

impl Stop {
    /// When to come back, in seconds, where that was said in particular.
    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::Failed { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn refusal(self, dialect: &dyn Dialect, id: String) -> Refusal {
        let (status, message) = match self {
            Self::Overloaded => {
                let status = StatusCode::from_u16(dialect.failures()[0]);
                let status = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
                (status, "every sequence of the simulator runs and its queue is full".to_owned())
            }
            Self::Failed { status, .. } => (status, "the simulator fails on purpose".to_owned()),
            Self::Unreadable(message) => (StatusCode::BAD_REQUEST, message),
            Self::BodyLost => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "the body is over 64 MiB, or ended early".to_owned(),
            ),
        };
        Refusal { status, message, id }
    }
}

impl From<Overloaded> for Stop {
    fn from(_: Overloaded) -> Self {
        Self::Overloaded
    }
}

impl From<Unreadable> for Stop {
    fn from(Unreadable(message): Unreadable) -> Self {
        Self::Unreadable(message)
    }
}
