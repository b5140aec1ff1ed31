//! What a reply has said so far.
//!
//! The common meaning of all dialects' fields: how totals merge, when a reason counts, what makes
//! an event a token.

use std::time::Duration;

use crate::dialect::{Count, Counts, Field, Reading};
use crate::job::{JobFact, JobFacts};
use crate::json::{Scalar, Sink};
use crate::nested::Nested;
use crate::times::Times;

/// More choices than anybody asks for.
const MAX_CHOICES: u64 = 128;
/// Longer than the reason of any provider.
const MAX_REASON: usize = 128;

/// What a reply has said so far.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) model: String,
    pub(crate) id: String,
    pub(crate) counts: Counts,
    pub(crate) times: Times,
    pub(crate) error: Option<Fault>,
    /// How the reply came to its end in its own words, by choice.
    pub(crate) finish_reasons: Vec<String>,
    /// The state of the whole answer.
    pub(crate) status: String,
    pub(crate) block_reason: Option<String>,
    pub(crate) service_tier: String,
    pub(crate) fingerprint: String,
    pub(crate) job: Option<Box<JobFacts>>,
    pub(crate) retry_after: Option<f64>,
    /// The dialect's end mark has come.
    pub(crate) ended: bool,
    /// An item has said that it is not the last.
    pub(crate) goes_on: bool,
    /// Counts have come with or after the reason of the end: these are the final ones.
    pub(crate) counted_at_end: bool,
    /// Chunks with tokens that had come when counts last did.
    counted_chunks: u64,
    /// It calls a tool.
    pub(crate) calls_tool: bool,
    /// Nested JSON was broken.
    pub(crate) is_broken: bool,
    flat: Fault,
    choice: Choice,
    part: Part,
    item: Item,
    nested: Option<Box<Nested>>,
    /// When what is being read came.
    now: Duration,
}

/// An error, as far as the reply names it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fault {
    pub(crate) kind: Option<String>,
    pub(crate) code: Option<String>,
}

/// The choice at hand.
#[derive(Debug, Default)]
struct Choice {
    index: Option<u64>,
    reason: String,
}

/// The part at hand.
#[derive(Debug, Default)]
struct Part {
    has_text: bool,
    is_thought: bool,
    /// It carries media: an image, unless its type says otherwise.
    has_media: bool,
    is_no_image: bool,
}

/// The event at hand.
#[derive(Debug, Default)]
struct Item {
    has_text: bool,
    has_reasoning: bool,
    has_delta: bool,
    is_about_reasoning: bool,
    has_counts: bool,
}

// === impl Facts ===

impl Facts {
    pub(crate) fn new(reading: &'static Reading, times: Times) -> Self {
        let nested = reading.nested.map(|table| Box::new(Nested::new(table)));
        Self { times, nested, ..Self::default() }
    }

    /// What is read from here on came at this time.
    pub(crate) fn came(&mut self, at: Duration) {
        self.now = at;
        self.times.byte(at);
    }

    /// The reply says that it failed.
    pub(crate) fn fail(&mut self) -> &mut Fault {
        self.error.get_or_insert_default()
    }

    /// A message of an event stream names the error that it is.
    pub(crate) fn exception(&mut self, name: &[u8]) {
        let mut kind = String::from_utf8_lossy(without_namespace(name)).into_owned();
        // Events name the member, headers of whole replies name the type.
        if let Some(first) = kind.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        self.fail().kind = Some(kind);
    }

    /// The error with what a flat body says of it.
    pub(crate) fn fault(&self) -> Fault {
        let error = self.error.clone().unwrap_or_default();
        Fault {
            kind: error.kind.or_else(|| self.flat.kind.clone()),
            code: error.code.or_else(|| self.flat.code.clone()),
        }
    }

    /// Why it ended, by choice; where that is all there is, the state of the whole.
    pub(crate) fn reasons(&self) -> Vec<String> {
        let reasons = self.finish_reasons.iter().filter(|reason| !reason.is_empty());
        let reasons: Vec<_> = reasons.cloned().collect();
        if reasons.is_empty() && self.has_final_status() {
            return vec![self.status.clone()];
        }
        reasons
    }

    /// Whether anything said why it ended.
    pub(crate) fn has_finished(&self) -> bool {
        self.has_final_status()
            || self.block_reason.is_some()
            || self.finish_reasons.iter().any(|reason| !reason.is_empty())
    }

    /// Whether a stream has come to its end, by its end mark or a reason.
    pub(crate) fn is_over(&self) -> bool {
        self.ended || self.has_finished()
    }

    /// Whether the counts so far are about all that has come.
    pub(crate) fn has_counted_all(&self) -> bool {
        self.counted_chunks == self.times.chunks()
    }

    fn has_final_status(&self) -> bool {
        !matches!(self.status.as_str(), "" | "queued" | "in_progress")
    }

    fn text(&mut self, field: Field, text: &[u8]) {
        match field {
            Field::Model => replace(&mut self.model, text),
            Field::Id => replace(&mut self.id, text),
            Field::MessageId if text.starts_with(b"msg_") => replace(&mut self.id, text),
            Field::Finish => replace(&mut self.choice.reason, text),
            Field::Stop => self.finish(0, text),
            Field::Status => self.status(text),
            Field::Tier => replace(&mut self.service_tier, text),
            Field::Fingerprint => replace(&mut self.fingerprint, text),
            Field::MimeType => self.part.is_no_image = !text.starts_with(b"image/"),
            Field::Type => self.event(text),
            Field::ItemType => self.calls_tool |= text.ends_with(b"_call"),
            Field::Object if text == b"error" => drop(self.fail()),
            Field::ErrorType => self.fail().kind = kept(text),
            Field::ErrorStatus => self.error_status(text),
            Field::ErrorCode => self.fail().code = kept(text),
            Field::FlatType => self.flat.kind = kept(without_namespace(text)),
            Field::FlatCode => self.flat.code = kept(text),
            Field::RetryDelay => self.retry_after = seconds(text),
            Field::BlockReason => self.block_reason = kept(text),
            _ => {}
        }
    }

    fn number(&mut self, field: Field, number: Scalar<'_>, text: &[u8]) {
        match (field, number.count()) {
            (Field::Count(count), Some(value)) => {
                self.counts.set(count, value);
                self.item.has_counts = true;
            }
            (Field::Add(count), Some(value)) => self.counts.add(count, value),
            (Field::Index, index) => self.choice.index = index,
            (Field::More, _) => self.goes_on = true,
            (
                Field::Finish
                | Field::Stop
                | Field::BlockReason
                | Field::ErrorCode
                | Field::FlatCode,
                _,
            ) => self.text(field, text),
            _ => {}
        }
    }

    /// What the type of an event says by itself.
    pub(crate) fn event(&mut self, kind: &[u8]) {
        match kind {
            b"error" => drop(self.fail()),
            b"message_stop"
            | b"response.completed"
            | b"response.incomplete"
            | b"response.failed" => self.ended = true,
            b"image_generation.completed" | b"image_edit.completed" => {
                self.counts.add(Count::Images, 1);
                self.ended = true;
            }
            _ if is_about_reasoning(kind) => {
                self.item.is_about_reasoning = true;
            }
            _ => {}
        }
    }

    fn error_status(&mut self, text: &[u8]) {
        let fault = self.fail();
        if fault.kind.is_none() {
            fault.kind = kept(text);
        }
    }

    fn status(&mut self, text: &[u8]) {
        replace(&mut self.status, text);
        if text == b"failed" {
            self.fail();
        }
    }

    fn job(&mut self, fact: JobFact, value: Scalar<'_>) {
        let job = self.job.get_or_insert_default();
        job.value(fact, value);
        if job.has_failed() {
            self.fail();
        }
    }

    fn finish(&mut self, index: u64, reason: &[u8]) {
        if reason.is_empty() || index >= MAX_CHOICES {
            return;
        }
        let index = index as usize;
        if self.finish_reasons.len() <= index {
            self.finish_reasons.resize_with(index + 1, String::new);
        }
        let reason = &reason[..reason.len().min(MAX_REASON)];
        replace(&mut self.finish_reasons[index], reason);
    }

    fn choice_closed(&mut self, at: u32) {
        let index = self.choice.index.take().unwrap_or(u64::from(at));
        let mut reason = std::mem::take(&mut self.choice.reason);
        self.finish(index, reason.as_bytes());
        reason.clear();
        self.choice.reason = reason;
    }

    fn part_closed(&mut self) {
        let part = std::mem::take(&mut self.part);
        let has_output = part.has_text || part.has_media;
        self.item.has_text |= has_output && !part.is_thought;
        self.item.has_reasoning |= has_output && part.is_thought;
        if part.has_media && !part.is_no_image && !part.is_thought {
            self.counts.add(Count::Images, 1);
        }
    }

    /// The JSON text at hand is whole, or will never be.
    pub(crate) fn piece_ended(&mut self) {
        let Some(mut nested) = self.nested.take() else { return };
        self.is_broken |= nested.end(self).is_none();
        self.nested = Some(nested);
    }
}

impl Sink<Field> for Facts {
    fn value(&mut self, field: Field, value: Scalar<'_>) {
        if let Field::Job(fact) = field {
            return self.job(fact, value);
        }
        match value {
            Scalar::Text(text) => self.text(field, text),
            Scalar::Number(text) => self.number(field, value, text),
            Scalar::Bool(is_last) if field == Field::Done => {
                self.ended |= is_last;
                self.goes_on = !is_last;
            }
            Scalar::Bool(_) | Scalar::Null => {}
        }
    }

    fn seen(&mut self, field: Field) {
        match field {
            Field::Text => self.item.has_text = true,
            Field::Reasoning => self.item.has_reasoning = true,
            Field::Delta => self.item.has_delta = true,
            Field::PartText => self.part.has_text = true,
            Field::PartThought => self.part.is_thought = true,
            Field::PartTool => {
                self.part.has_text = true;
                self.calls_tool = true;
            }
            Field::Tool => self.calls_tool = true,
            Field::Image => self.part.has_media = true,
            Field::Images => self.counts.add(Count::Images, 1),
            Field::Error => drop(self.fail()),
            Field::Job(fact) => self.job.get_or_insert_default().seen(fact),
            Field::End => self.ended = true,
            _ => {}
        }
    }

    fn fragment(&mut self, _: Field, bytes: &[u8]) {
        let Some(mut nested) = self.nested.take() else { return };
        self.is_broken |= nested.feed(bytes, self).is_none();
        self.nested = Some(nested);
    }

    fn closed(&mut self, field: Field, at: u32) {
        match field {
            Field::Choice => self.choice_closed(at),
            Field::Part => self.part_closed(),
            _ => {}
        }
    }

    fn item(&mut self) {
        let item = std::mem::take(&mut self.item);
        self.times.event(self.now);
        let is_reasoning = item.has_reasoning || item.has_delta && item.is_about_reasoning;
        let is_visible = item.has_text || item.has_delta && !item.is_about_reasoning;
        if is_reasoning || is_visible {
            self.times.token(self.now, is_visible);
        }
        if item.has_counts {
            self.counted_chunks = self.times.chunks();
            self.counted_at_end |= self.has_finished();
        }
    }
}

/// Keeps the last text that is not empty, without an allocation where it is the same again.
fn replace(kept: &mut String, text: &[u8]) {
    if !text.is_empty() && kept.as_bytes() != text {
        kept.clear();
        kept.push_str(&String::from_utf8_lossy(text));
    }
}

fn kept(text: &[u8]) -> Option<String> {
    (!text.is_empty()).then(|| String::from_utf8_lossy(text).into_owned())
}

/// Every event has a type: a search that is set up for each costs more than it finds.
fn is_about_reasoning(kind: &[u8]) -> bool {
    memchr::memchr_iter(b'r', kind).any(|at| kind[at..].starts_with(b"reasoning"))
}

/// AWS puts a namespace in front of its types, and a link behind.
pub(crate) fn without_namespace(kind: &[u8]) -> &[u8] {
    let kind = kind.split(|byte| *byte == b':').next().unwrap_or(kind);
    kind.rsplit(|byte| *byte == b'#').next().unwrap_or(kind)
}

/// `48s`, `1.5s`.
fn seconds(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('s')?;
    text.parse().ok().filter(|seconds: &f64| seconds.is_finite() && *seconds >= 0.0)
}
