//! How a model is asked and how it answers, dialect by dialect.
//!
//! A dialect knows its paths, reads a prompt, and writes an answer that is already decided. It knows
//! nothing of time, capacity or sockets. A new one is a file here and its line in [`DIALECTS`].

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use serde_json::Value;

use super::generation::{Ask, Generation, mix};
use super::playback::Script;
use jobs::Jobs;

mod anthropic;
mod bedrock;
mod gemini;
mod generate;
pub(super) mod jobs;
mod ollama;
mod openai;
mod predict;

/// Every dialect that the simulator speaks. Their paths do not overlap.
const DIALECTS: [&dyn Dialect; 7] = [
    &openai::OpenAi,
    &anthropic::Anthropic,
    &gemini::Gemini,
    &bedrock::Bedrock,
    &generate::Generate,
    &predict::Predict,
    &ollama::Ollama,
];

/// A picture of one dot, in base64.
const PICTURE: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// One way of talking to a model.
pub(super) trait Dialect: Sync {
    /// Its name in `by_dialect`.
    fn name(&self) -> &'static str;

    /// Whether a path asks for one of its operations, whatever prefix stands before.
    fn claims(&self, target: &Target) -> bool;

    /// How the operations of a path are asked for.
    fn method(&self, _: &Target) -> Method {
        Method::POST
    }

    /// Reads what is asked for, and knows from then on how to answer it.
    fn read(&self, call: &Call<'_>) -> Result<Answer, Unreadable>;

    /// An answer that is an error.
    fn refuse(&self, target: &Target, refusal: &Refusal) -> Reply;

    /// The errors that are usual here. The first one says that there is no capacity.
    fn failures(&self) -> &'static [u16];

    /// The header that names this call in every answer.
    fn request_id(&self, _id: &str) -> Option<(&'static str, String)> {
        None
    }

    /// The headers that say how much may still be asked for.
    fn limits(&self, _: &Target, _: StatusCode) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

/// A whole answer.
pub(super) type Reply = Response<Bytes>;

/// What stands in the place of an answer.
pub(super) enum Answer {
    /// An answer that needs no model, such as a count of tokens.
    Ready(Reply),
    /// The prompt goes through the model and no token comes out: embeddings.
    Pass { ask: Ask, reply: Reply },
    /// Text, in one piece.
    Whole { ask: Ask, write: Box<dyn FnOnce(&Generation) -> Reply + Send> },
    /// Text, token by token.
    Stream { ask: Ask, write: Box<dyn FnOnce(&Generation) -> Script + Send> },
}

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Target(Uri);

/// A request that one of the dialects claims.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) target: &'a Target,
    pub(super) headers: &'a HeaderMap,
    pub(super) body: Bytes,
    /// Unique within a run.
    pub(super) id: u128,
    /// What was begun and is asked for later.
    pub(super) jobs: &'a Jobs,
    /// How often a job that begins now is asked for before it is done.
    pub(super) polls: u64,
}

/// Why a request cannot be answered, for its sender.
#[derive(Debug)]
pub(super) struct Unreadable(pub(super) String);

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
    /// The id of the call that is refused.
    pub(super) id: String,
}

/// The dialect that a request belongs to.
pub(super) fn of(method: &Method, target: &Target) -> Option<&'static dyn Dialect> {
    let mut dialects = DIALECTS.into_iter();
    dialects.find(|dialect| dialect.claims(target) && dialect.method(target) == *method)
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(body.into());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// Sets a header whose value we have made ourselves.
pub(super) fn set(headers: &mut HeaderMap, name: &'static str, value: impl ToString) {
    if let Ok(value) = HeaderValue::from_str(&value.to_string()) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

/// The name of the first tool, where a request brings some.
fn tool(body: &Value, name: &str) -> Option<String> {
    body.pointer(name)?.as_str().map(str::to_owned)
}

/// Says when to come back, where the error is one of those that pass.
fn retry_later(reply: &mut Reply) {
    if matches!(reply.status().as_u16(), 429 | 503 | 529) {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    }
}

/// An embedding of a text, of length 1. Texts that have many words in common point nearly the same way.
fn vector_of(text: &str, length: usize) -> Vec<f32> {
    /// Places of an embedding that a word adds to.
    const PLACES: u64 = 8;
    // What all texts have in common is little.
    let mut values: Vec<f32> = vector(length).map(|value| value / 10.0).collect();
    let words = text.split(|letter: char| !letter.is_alphanumeric());
    for word in words.filter(|word| !word.is_empty()) {
        let seed = word.bytes().fold(0, |seed, byte| mix(seed, byte.to_ascii_lowercase().into()));
        for drawn in (0..PLACES).map(|place| mix(seed, place)) {
            values[(drawn >> 1) as usize % length] += if drawn & 1 == 0 { 1.0 } else { -1.0 };
        }
    }
    let squares: f32 = values.iter().map(|value| value * value).sum();
    values.iter_mut().for_each(|value| *value /= squares.sqrt().max(f32::MIN_POSITIVE));
    values
}

/// An embedding that is the same for every text, of dialects whose embeddings nobody compares.
fn vector(length: usize) -> impl Iterator<Item = f32> {
    (0..length as u64).map(|index| (mix(0, index) % 20_001) as f32 / 200_000.0 - 0.05)
}

fn vector_as_json(length: usize) -> String {
    numbers_as_json(vector(length))
}

fn numbers_as_json(numbers: impl IntoIterator<Item = f32>) -> String {
    let numbers: Vec<_> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("[{}]", numbers.join(","))
}

// === impl Target ===

impl Target {
    pub(super) fn new(uri: Uri) -> Self {
        Self(uri)
    }

    /// Path and query.
    pub(super) fn as_sent(&self) -> &str {
        self.0.path_and_query().map_or("/", |target| target.as_str())
    }

    pub(super) fn path(&self) -> &str {
        self.0.path()
    }

    pub(super) fn query(&self) -> &str {
        self.0.query().unwrap_or_default()
    }

    /// Whether the path ends in these segments.
    fn ends_in(&self, segments: &str) -> bool {
        self.path().strip_suffix(segments).is_some_and(|prefix| prefix.ends_with('/'))
    }

    /// Model and verb, of a path that ends in `{model}:{verb}`.
    fn model_and_verb(&self) -> Option<(&str, &str)> {
        self.path().rsplit('/').next()?.rsplit_once(':')
    }

    /// Whether the path is one of Vertex AI.
    pub(super) fn is_vertex(&self) -> bool {
        self.path().contains("/publishers/") || self.path().contains("/projects/")
    }
}

// === impl Call ===

impl Call<'_> {
    /// The body, as JSON.
    fn json(&self) -> Result<Value, Unreadable> {
        serde_json::from_slice(&self.body)
            .map_err(|error| Unreadable(format!("the body is not JSON: {error}")))
    }
}
