//! What is asked and what is answered.
//!
//! Both ends know every byte: the mock compares what reaches it with the request, the client what
//! reaches it with the reply, so that a proxy that changes anything is caught.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};

/// Digits of a stamp: nanoseconds since the run began. An event's own stands in the place of a
/// fingerprint, that of the first event of its stream in the place of the answer's id, so that
/// whoever records that id records the truth about the first token with it.
const STAMP_DIGITS: usize = 15;
const ID: &str = "chatcmpl-";

/// One kind of call.
#[derive(Debug)]
pub struct Workload {
    /// What `x-workload` says.
    pub name: &'static str,
    /// What is asked.
    pub request: Request,
    /// What is answered.
    pub reply: Reply,
}

/// One request.
#[derive(Debug)]
pub struct Request {
    /// Head and body, as the client sends them in one write.
    pub bytes: Vec<u8>,
    head_length: usize,
}

impl Request {
    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.head_length..]
    }
}

/// One answer.
#[derive(Debug)]
pub enum Reply {
    /// One JSON body.
    Whole(Vec<u8>),
    /// Server-sent events, each so long after the one before.
    Stream {
        /// The events, the end mark among them.
        events: Vec<Event>,
        /// From one to the next.
        gap: Duration,
    },
}

impl Reply {
    /// Events of one reply; none where it comes whole.
    pub fn events(&self) -> u64 {
        match self {
            Self::Whole(_) => 0,
            Self::Stream { events, .. } => events.len() as u64,
        }
    }

    /// How long the reply takes where nothing is in its way.
    pub fn length(&self) -> Duration {
        match self {
            Self::Whole(_) => Duration::ZERO,
            Self::Stream { events, gap } => *gap * events.len() as u32,
        }
    }
}

/// One server-sent event, as it stands in the body.
#[derive(Clone, Debug)]
pub struct Event {
    /// With the empty line at its end.
    pub bytes: Vec<u8>,
    /// Where its stamps begin; `[DONE]` has none.
    stamps: Option<Stamps>,
}

/// Where an event says when it was written, and when the first of its stream was.
#[derive(Clone, Copy, Debug)]
struct Stamps {
    first: usize,
    own: usize,
}

impl Event {
    fn new(text: String) -> Self {
        let after = |word: &str| text.find(word).map(|at| at + word.len());
        let stamps = after(ID).zip(after("fp_")).map(|(first, own)| Stamps { first, own });
        Self { bytes: text.into_bytes(), stamps }
    }

    /// Appends the event with the time now in it; `first` is the time in the stream's first event.
    pub fn write_stamped(&self, buffer: &mut Vec<u8>, first: &mut Option<u64>) {
        let begin = buffer.len();
        buffer.extend_from_slice(&self.bytes);
        if let Some(stamps) = self.stamps {
            let now = nanos_now();
            write_digits(&mut buffer[begin + stamps.first..], *first.get_or_insert(now));
            write_digits(&mut buffer[begin + stamps.own..], now);
        }
    }

    /// Checks that `seen` is this event and gives the stamp in it.
    pub fn compare(&self, seen: &[u8]) -> Result<Option<u64>> {
        let Some(Stamps { first, own }) = self.stamps else {
            ensure!(seen == self.bytes, "an event differs from what was sent");
            return Ok(None);
        };
        let same = seen.len() == self.bytes.len()
            && seen[..first] == self.bytes[..first]
            && seen[first + STAMP_DIGITS..own] == self.bytes[first + STAMP_DIGITS..own]
            && seen[own + STAMP_DIGITS..] == self.bytes[own + STAMP_DIGITS..];
        ensure!(same, "an event differs from what was sent");
        let digits = std::str::from_utf8(&seen[own..own + STAMP_DIGITS])?;
        Ok(Some(digits.parse()?))
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place[..STAMP_DIGITS].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// When the first event of the stream with this id was written, by the wall clock, in nanoseconds.
pub fn first_written(id: &str) -> Option<i128> {
    let digits = id.strip_prefix(ID)?;
    let nanos: u64 = digits.parse().ok().filter(|_| digits.len() == STAMP_DIGITS)?;
    let (_, begin) = *BEGIN;
    let begin = begin.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    Some(begin as i128 + i128::from(nanos))
}

/// When the run began, by both clocks.
static BEGIN: LazyLock<(Instant, SystemTime)> =
    LazyLock::new(|| (Instant::now(), SystemTime::now()));

/// Nanoseconds since the run began; mock and client are one process and share this clock.
pub fn nanos_now() -> u64 {
    let (begin, _) = *BEGIN;
    begin.elapsed().as_nanos() as u64
}

/// The workload of that name, if there is one.
pub fn named(name: &str) -> Option<&'static Workload> {
    WORKLOADS.iter().find(|workload| workload.name == name)
}

static WORKLOADS: LazyLock<Vec<Workload>> = LazyLock::new(|| {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let millis = Duration::from_millis;
    vec![
        whole("plain", KIB),
        Workload { request: request("hit", KIB, SAME, ""), ..whole("hit", KIB) },
        whole("request-1m", MIB),
        whole("request-20m", 20 * MIB),
        stream("burst", 100, Duration::ZERO),
        Workload {
            request: request("hit-burst", KIB, SAME, STREAM),
            ..stream("hit-burst", 100, Duration::ZERO)
        },
        stream("paced", 50, millis(20)),
        stream("counted", 100, millis(5)),
        stream("spoken", 20, millis(100)),
    ]
});

/// Temperatures: that of most calls, and that of those that ask for the same answer each time.
const USUAL: &str = "0.2";
const SAME: &str = "0";
/// What asks for a stream.
const STREAM: &str = r#","stream":true,"stream_options":{"include_usage":true}"#;

fn whole(name: &'static str, request_bytes: usize) -> Workload {
    Workload {
        name,
        request: request(name, request_bytes, USUAL, ""),
        reply: Reply::Whole(completion(2048)),
    }
}

fn stream(name: &'static str, chunks: usize, gap: Duration) -> Workload {
    Workload {
        name,
        request: request(name, 1024, USUAL, STREAM),
        reply: Reply::Stream { events: events(chunks), gap },
    }
}

/// A chat request as an SDK sends it, its body exactly `length` bytes long.
fn request(workload: &str, length: usize, temperature: &str, options: &str) -> Request {
    let before = r#"{"messages":[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":""#;
    let after = format!(
        r#""}}],"model":"gpt-4o-mini","max_tokens":512,"temperature":{temperature}{options}}}"#
    );
    let prompt = prose(length - before.len() - after.len());
    let body = format!("{before}{prompt}{after}");
    debug_assert_eq!(body.len(), length);
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\n\
         Host: 127.0.0.1\r\n\
         Accept-Encoding: gzip, deflate\r\n\
         Connection: keep-alive\r\n\
         Accept: application/json\r\n\
         Content-Type: application/json\r\n\
         User-Agent: OpenAI/Python 2.8.1\r\n\
         X-Stainless-Lang: python\r\n\
         X-Stainless-Package-Version: 2.8.1\r\n\
         X-Stainless-OS: Linux\r\n\
         X-Stainless-Arch: x64\r\n\
         X-Stainless-Runtime: CPython\r\n\
         Authorization: Bearer sk-bench-0123456789abcdef0123456789abcdef\r\n\
         X-Workload: {workload}\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    Request { head_length: head.len(), bytes: [head.into_bytes(), body.into_bytes()].concat() }
}

/// A chat completion with usage, exactly `length` bytes long.
fn completion(length: usize) -> Vec<u8> {
    let before = r#"{"id":"chatcmpl-Bm3k0aXv2cTzq8h1","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":{"role":"assistant","content":""#;
    let after = r#"","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":182,"completion_tokens":311,"total_tokens":493,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}},"service_tier":"default","system_fingerprint":"fp_560af6e559"}"#;
    let text = prose(length - before.len() - after.len());
    format!("{before}{text}{after}").into_bytes()
}

/// `chunks` chunks with text, one that finishes, one with the usage, and the end mark.
fn events(chunks: usize) -> Vec<Event> {
    let event = |choices: &str, usage: &str| {
        Event::new(format!(
            "data: {{\"id\":\"{ID}{:0STAMP_DIGITS$}\",\"object\":\"chat.completion.chunk\",\"created\":1760000000,\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_{:0STAMP_DIGITS$}\",\"choices\":[{choices}],\"usage\":{usage}}}\n\n",
            0, 0
        ))
    };
    let text = r#"{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}"#;
    let finish = r#"{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}"#;
    let usage = r#"{"prompt_tokens":182,"completion_tokens":100,"total_tokens":282,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0}}"#;
    let mut events = vec![event(text, "null"); chunks];
    events.push(event(finish, "null"));
    events.push(event("", usage));
    events.push(Event::new("data: [DONE]\n\n".to_owned()));
    events
}

/// Text that needs no escape in JSON.
fn prose(length: usize) -> String {
    "The tide rises, the tide falls, the twilight darkens, the curlew calls. "
        .chars()
        .cycle()
        .take(length)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_is_json() {
        for workload in WORKLOADS.iter() {
            let _: serde_json::Value = serde_json::from_slice(workload.request.body())
                .unwrap_or_else(|error| panic!("{}: {error}", workload.name));
            if let Reply::Whole(body) = &workload.reply {
                let _: serde_json::Value = serde_json::from_slice(body).expect("the reply is JSON");
            }
        }
    }

    #[test]
    fn a_stamp_comes_back_from_an_event_and_a_changed_byte_is_caught() {
        let event = &events(1)[0];
        let mut sent = Vec::new();
        let mut first = None;
        let before = nanos_now();
        event.write_stamped(&mut sent, &mut first);
        let stamp = event.compare(&sent).expect("nothing was changed").expect("it has a stamp");
        assert!((before..=nanos_now()).contains(&stamp));
        assert_eq!(first, Some(stamp));
        sent[10] ^= 1;
        event.compare(&sent).expect_err("a byte was changed");
    }
}
