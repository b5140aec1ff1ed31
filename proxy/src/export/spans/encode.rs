//! A record as a span in the messages of OTLP.
//!
//! Attributes are the keys of the record, by the names that [`Conventions`] give them: what a
//! record learns to say, spans say too.

use std::fmt;

use serde::Deserializer;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use tidegate_wire::content::Content;
use tidegate_wire::{Attempt, Outcome, Record, SpanId};

use super::content;
use crate::export::names::{self, Conventions};
use crate::export::otlp::protobuf::{self, Value};

/// Numbers of the fields of `opentelemetry.proto.trace.v1.Span` and what it holds.
pub(super) mod field {
    pub(in crate::export::spans) const TRACE_ID: u32 = 1;
    pub(in crate::export::spans) const SPAN_ID: u32 = 2;
    pub(in crate::export::spans) const PARENT_SPAN_ID: u32 = 4;
    pub(in crate::export::spans) const NAME: u32 = 5;
    pub(in crate::export::spans) const KIND: u32 = 6;
    pub(in crate::export::spans) const START: u32 = 7;
    pub(in crate::export::spans) const END: u32 = 8;
    pub(in crate::export::spans) const ATTRIBUTES: u32 = 9;
    pub(in crate::export::spans) const EVENTS: u32 = 11;
    pub(in crate::export::spans) const STATUS: u32 = 15;
    pub(in crate::export::spans) const FLAGS: u32 = 16;

    pub(in crate::export::spans) const EVENT_TIME: u32 = 1;
    pub(in crate::export::spans) const EVENT_NAME: u32 = 2;
    pub(in crate::export::spans) const EVENT_ATTRIBUTES: u32 = 3;

    pub(in crate::export::spans) const STATUS_MESSAGE: u32 = 2;
    pub(in crate::export::spans) const STATUS_CODE: u32 = 3;
}

const KIND_CLIENT: u64 = 3;
const STATUS_ERROR: u64 = 2;
/// The span is sampled, and it is known whether its parent is of another process.
const FLAGS: u32 = 0x101;
/// Its parent is.
const REMOTE_PARENT: u32 = 0x200;

/// Methods that may name a span; whatever else callers send may not.
const METHODS: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];

/// Encodes records one after the other.
#[derive(Debug)]
pub(in crate::export) struct Encoder {
    conventions: Conventions,
    /// The record at hand as JSON.
    line: Vec<u8>,
}

// === impl Encoder ===

impl Encoder {
    pub(in crate::export) fn new(conventions: Conventions) -> Self {
        Self { conventions, line: Vec::new() }
    }

    /// The message `Span` of a call.
    pub(super) fn span(&mut self, record: &Record) -> Vec<u8> {
        let mut out = Vec::with_capacity(2048);
        let start = u64::try_from(record.time.as_nanosecond()).unwrap_or(0);
        protobuf::bytes(&mut out, field::TRACE_ID, &record.trace_id.0);
        protobuf::bytes(&mut out, field::SPAN_ID, &record.span_id.0);
        if let Some(parent) = record.parent_span_id {
            protobuf::bytes(&mut out, field::PARENT_SPAN_ID, &parent.0);
        }
        protobuf::bytes(&mut out, field::NAME, name(record).as_bytes());
        protobuf::number(&mut out, field::KIND, KIND_CLIENT);
        protobuf::fixed64(&mut out, field::START, start);
        protobuf::fixed64(&mut out, field::END, at(start, record.duration_s.unwrap_or(0.0)));
        self.attributes(&mut out, record, field::ATTRIBUTES);
        let content = record.content.as_deref().map(Content::messages);
        if let Some(messages) = &content {
            content::attributes(&mut out, messages, self.conventions);
        }
        for event in events(record) {
            protobuf::message(&mut out, field::EVENTS, |out| event.write(out, start));
        }
        if let (Some(messages), true) = (&content, self.conventions.shows_v1_36()) {
            let system = record.provider.as_deref().map(names::system);
            let end = at(start, record.duration_s.unwrap_or(0.0));
            content::events(&mut out, messages, system, start, end);
        }
        if let Some(Outcome::Failed | Outcome::Truncated) = record.outcome {
            protobuf::message(&mut out, field::STATUS, |out| status(out, record));
        }
        let remote = record.parent_span_id.map_or(0, |_| REMOTE_PARENT);
        protobuf::fixed32(&mut out, field::FLAGS, FLAGS | remote);
        out
    }

    /// The message `Span` of one attempt of a call, by the conventions of HTTP: the one at this place.
    pub(super) fn attempt(&self, record: &Record, place: usize, attempt: &Attempt) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        let start = u64::try_from(record.time.as_nanosecond()).unwrap_or(0);
        let method = record.method.as_deref().filter(|method| METHODS.contains(method));
        protobuf::bytes(&mut out, field::TRACE_ID, &record.trace_id.0);
        protobuf::bytes(&mut out, field::SPAN_ID, &SpanId::of_child(record.span_id, place).0);
        protobuf::bytes(&mut out, field::PARENT_SPAN_ID, &record.span_id.0);
        protobuf::bytes(&mut out, field::NAME, method.unwrap_or("HTTP").as_bytes());
        protobuf::number(&mut out, field::KIND, KIND_CLIENT);
        protobuf::fixed64(&mut out, field::START, at(start, attempt.began_s));
        protobuf::fixed64(&mut out, field::END, at(start, attempt.ended_s));
        let texts = [
            ("http.request.method", record.method.as_deref()),
            ("server.address", attempt.server_address.as_deref()),
            ("cloud.region", attempt.region.as_deref()),
            ("tidegate.upstream", attempt.upstream.as_deref()),
            ("error.type", attempt.error_type.as_deref()),
        ];
        let numbers = [
            ("server.port", attempt.server_port.map(i64::from)),
            ("http.response.status_code", attempt.status.map(i64::from)),
            ("http.request.resend_count", i64::try_from(place).ok().filter(|place| *place > 0)),
        ];
        let texts = texts.into_iter().filter_map(|(name, text)| Some((name, Value::Text(text?))));
        let numbers = numbers.into_iter().filter_map(|(name, n)| Some((name, Value::Int(n?))));
        for (name, value) in texts.chain(numbers) {
            protobuf::attribute(&mut out, field::ATTRIBUTES, name, value);
        }
        if let Some(kind) = &attempt.error_type {
            protobuf::message(&mut out, field::STATUS, |out| {
                protobuf::bytes(out, field::STATUS_MESSAGE, kind.as_bytes());
                protobuf::number(out, field::STATUS_CODE, STATUS_ERROR);
            });
        }
        protobuf::fixed32(&mut out, field::FLAGS, FLAGS);
        out
    }

    /// The keys of a record as attributes in this field.
    pub(in crate::export) fn attributes(&mut self, out: &mut Vec<u8>, record: &Record, field: u32) {
        self.line.clear();
        record.write_json(&mut self.line);
        let attributes = Attributes { out, field, conventions: self.conventions };
        let read = serde_json::Deserializer::from_slice(&self.line).deserialize_map(attributes);
        debug_assert!(read.is_ok(), "a record is an object: {read:?}");
        if let (Some(kind), true) = (openai_api(record), self.conventions.shows_latest()) {
            protobuf::attribute(out, field, "openai.api.type", Value::Text(kind));
        }
    }
}

/// What the conventions call a call. One that is no model call has the few words of HTTP.
fn name(record: &Record) -> String {
    match (&record.operation, &record.request_model, &record.method) {
        (Some(operation), Some(model), _) => format!("{operation} {model}"),
        (Some(operation), None, _) => operation.to_string(),
        (None, _, Some(method)) if METHODS.contains(&&**method) => method.to_string(),
        (None, _, _) => "HTTP".to_owned(),
    }
}

/// Which of OpenAI's interfaces was called.
fn openai_api(record: &Record) -> Option<&'static str> {
    let path = record.path.as_deref()?;
    match record.operation.as_deref()? {
        "chat" if path.ends_with("/chat/completions") => Some("chat_completions"),
        "chat" if path.ends_with("/responses") => Some("responses"),
        _ => None,
    }
}

fn status(out: &mut Vec<u8>, record: &Record) {
    if let Some(kind) = &record.error_type {
        protobuf::bytes(out, field::STATUS_MESSAGE, kind.as_bytes());
    }
    protobuf::number(out, field::STATUS_CODE, STATUS_ERROR);
}

/// Nanoseconds since 1970 of a moment within a call.
fn at(start: u64, seconds: f64) -> u64 {
    // A cast from a float keeps to the bounds of its type.
    start.saturating_add((seconds * 1e9) as u64)
}

/// Something that happened during a call.
struct Event {
    name: &'static str,
    at_s: f64,
    waited_s: Option<f64>,
}

/// What happened during a call, in the order in which it did.
fn events(record: &Record) -> Vec<Event> {
    let waits = record.moments.iter().filter_map(|moment| {
        let name = match moment.name {
            "pool" => "tidegate.wait.pool",
            "dns" => "tidegate.wait.dns",
            "connect" => "tidegate.wait.connect",
            "tls" => "tidegate.wait.tls",
            "queue" => "tidegate.wait.queue",
            "retry" => "tidegate.wait.retry",
            _ => return None,
        };
        Some(Event { name, at_s: moment.at_s, waited_s: Some(moment.lasted_s) })
    });
    let visible = record.time_to_first_visible_token_s;
    let moments = [
        ("tidegate.request.sent", record.sent_s),
        ("tidegate.response.head", record.time_to_first_byte_s),
        ("tidegate.first_token", record.time_to_first_token_s),
        (
            "tidegate.first_visible_token",
            visible.filter(|_| visible != record.time_to_first_token_s),
        ),
        ("tidegate.last_token", record.time_to_last_token_s),
    ];
    let moments = moments
        .into_iter()
        .filter_map(|(name, at_s)| Some(Event { name, at_s: at_s?, waited_s: None }));
    let mut events: Vec<_> = waits.chain(moments).collect();
    events.sort_by(|one, other| one.at_s.total_cmp(&other.at_s));
    events
}

impl Event {
    fn write(&self, out: &mut Vec<u8>, start: u64) {
        protobuf::fixed64(out, field::EVENT_TIME, at(start, self.at_s));
        protobuf::bytes(out, field::EVENT_NAME, self.name.as_bytes());
        if let Some(waited_s) = self.waited_s {
            let value = Value::Double(waited_s);
            protobuf::attribute(out, field::EVENT_ATTRIBUTES, "tidegate.wait_s", value);
        }
    }
}

/// Writes each key of a record as an attribute.
struct Attributes<'a> {
    out: &'a mut Vec<u8>,
    field: u32,
    conventions: Conventions,
}

/// Writes the value of one key.
struct Attribute<'a> {
    out: &'a mut Vec<u8>,
    field: u32,
    name: &'a str,
    other_name: Option<&'a str>,
}

// === impl Attributes ===

impl Attributes<'_> {
    /// What a span says otherwise than by an attribute.
    fn is_part_of_span(key: &str) -> bool {
        matches!(key, "time" | "trace_id" | "span_id" | "parent_span_id" | "tidegate.duration_s")
    }
}

impl<'de> Visitor<'de> for Attributes<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<&str>()? {
            if Self::is_part_of_span(key) {
                map.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let (name, other_name) = self.conventions.names(key);
            map.next_value_seed(Attribute {
                out: &mut *self.out,
                field: self.field,
                name,
                other_name,
            })?;
        }
        Ok(())
    }
}

// === impl Attribute ===

impl Attribute<'_> {
    fn put(&mut self, value: Value<'_>) {
        for name in std::iter::once(self.name).chain(self.other_name) {
            let value = match value {
                Value::Text(provider) if name == names::SYSTEM => {
                    Value::Text(names::system(provider))
                }
                // The conventions: present if, and only if, the answer is asked for as a stream.
                Value::Bool(false) if name.ends_with(".request.stream") => continue,
                value => value,
            };
            protobuf::attribute(self.out, self.field, name, value);
        }
    }
}

impl<'de> DeserializeSeed<'de> for Attribute<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Attribute<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of a record")
    }

    fn visit_bool<E>(mut self, value: bool) -> Result<(), E> {
        self.put(Value::Bool(value));
        Ok(())
    }

    fn visit_i64<E>(mut self, value: i64) -> Result<(), E> {
        self.put(Value::Int(value));
        Ok(())
    }

    fn visit_u64<E>(mut self, value: u64) -> Result<(), E> {
        self.put(Value::Int(i64::try_from(value).unwrap_or(i64::MAX)));
        Ok(())
    }

    fn visit_f64<E>(mut self, value: f64) -> Result<(), E> {
        self.put(Value::Double(value));
        Ok(())
    }

    fn visit_str<E>(mut self, value: &str) -> Result<(), E> {
        self.put(Value::Text(value));
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let mut texts = Vec::new();
        while let Some(text) = seq.next_element::<String>()? {
            texts.push(text);
        }
        self.put(Value::List(&texts));
        Ok(())
    }
}
