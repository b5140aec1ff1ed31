//! Requests made up from a seed, in every dialect.
//!
//! Prompts are made of common words and differ in length as prompts do: most near the median, a
//! few many times as long. One seed gives one sequence of requests.

use std::f64::consts::TAU;

use http::Method;
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{Entry, Operation, Request};

/// Of a thousand streams in the OpenAI dialect, those that ask for usage.
const USAGE_ASKED_PER_MILLE: u32 = 750;

/// A seeded source of requests. Each user, or each call of an open loop, has its own.
pub struct Synthetic {
    random: SmallRng,
}

impl Synthetic {
    /// The source number `stream` under `seed`.
    pub fn new(seed: u64, stream: u64) -> Self {
        // The golden ratio spreads neighbouring numbers over all bits.
        let mixed = seed ^ stream.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self { random: SmallRng::seed_from_u64(mixed) }
    }

    /// A place between 0 and 1, for [`Mix::at`](super::Mix::at).
    pub fn place(&mut self) -> f64 {
        self.random.random()
    }

    /// The next request of this kind.
    pub fn request(&mut self, entry: &Entry) -> Request {
        let prompt = self.prompt(f64::from(entry.input_tokens.get()));
        let (path, body) = match entry.call {
            Operation::OpenAiChat => ("/v1/chat/completions".to_owned(), self.chat(entry, prompt)),
            Operation::OpenAiCompletions => ("/v1/completions".to_owned(), {
                let mut body = json!({
                    "model": entry.model,
                    "prompt": prompt,
                    "max_tokens": entry.output_tokens,
                });
                self.streamed_with_usage(entry, &mut body);
                body
            }),
            Operation::OpenAiEmbeddings => (
                "/v1/embeddings".to_owned(),
                json!({ "model": entry.model, "input": prompt, "encoding_format": "float" }),
            ),
            Operation::OpenAiResponses => (
                "/v1/responses".to_owned(),
                streamed(
                    entry,
                    json!({
                        "model": entry.model,
                        "input": prompt,
                        "max_output_tokens": entry.output_tokens,
                    }),
                ),
            ),
            Operation::AnthropicMessages => {
                let mut body = streamed(entry, messages(entry, prompt));
                body["model"] = json!(entry.model);
                ("/v1/messages".to_owned(), body)
            }
            Operation::GeminiGenerateContent => (
                format!("/v1beta/models/{}:{}", entry.model, generate_verb(entry)),
                contents(entry, prompt),
            ),
            Operation::GeminiCountTokens => {
                (format!("/v1beta/models/{}:countTokens", entry.model), counted(prompt))
            }
            Operation::VertexGenerateContent => (
                format!(
                    "{VERTEX}/publishers/google/models/{}:{}",
                    entry.model,
                    generate_verb(entry)
                ),
                contents(entry, prompt),
            ),
            Operation::VertexCountTokens => (
                format!("{VERTEX}/publishers/google/models/{}:countTokens", entry.model),
                counted(prompt),
            ),
            Operation::VertexClaude => {
                let verb = if entry.stream { "streamRawPredict" } else { "rawPredict" };
                let mut body = streamed(entry, messages(entry, prompt));
                body["anthropic_version"] = json!("vertex-2023-10-16");
                (format!("{VERTEX}/publishers/anthropic/models/{}:{verb}", entry.model), body)
            }
            Operation::VertexOpenAiChat => {
                (format!("{VERTEX}/endpoints/openapi/chat/completions"), self.chat(entry, prompt))
            }
            Operation::BedrockConverse => {
                let verb = if entry.stream { "converse-stream" } else { "converse" };
                (
                    bedrock_path(entry, verb),
                    json!({
                        "messages": [{ "role": "user", "content": [{ "text": prompt }] }],
                        "inferenceConfig": { "maxTokens": entry.output_tokens },
                    }),
                )
            }
            Operation::BedrockInvoke => {
                let verb = if entry.stream { "invoke-with-response-stream" } else { "invoke" };
                (bedrock_path(entry, verb), invoked(entry, prompt))
            }
            Operation::GeneratePrompt => (
                "/generate".to_owned(),
                streamed(entry, json!({ "prompt": prompt, "max_tokens": entry.output_tokens })),
            ),
            Operation::GenerateInstances => (
                "/generate".to_owned(),
                streamed(
                    entry,
                    json!({
                        "instances": [{
                            "prompt": prompt,
                            "max_tokens": entry.output_tokens,
                            "raw_response": true,
                        }],
                    }),
                ),
            ),
            Operation::GenerateV1 => (
                "/v1/generate".to_owned(),
                json!({ "input": prompt, "max_tokens": entry.output_tokens }),
            ),
        };
        Request {
            method: Method::POST,
            path,
            headers: headers(entry.call),
            body: body.to_string().into(),
            dialect: entry.call.dialect(),
            label: entry.label(),
            route: entry.route(),
            stream: entry.stream,
        }
    }

    fn chat(&mut self, entry: &Entry, prompt: String) -> Value {
        let mut body = json!({
            "model": entry.model,
            "messages": [
                { "role": "system", "content": "You answer briefly." },
                { "role": "user", "content": prompt },
            ],
            "max_tokens": entry.output_tokens,
        });
        self.streamed_with_usage(entry, &mut body);
        body
    }

    fn streamed_with_usage(&mut self, entry: &Entry, body: &mut Value) {
        if entry.stream {
            body["stream"] = json!(true);
            if self.random.random_ratio(USAGE_ASKED_PER_MILLE, 1000) {
                body["stream_options"] = json!({ "include_usage": true });
            }
        }
    }

    /// Words worth about as many tokens as a draw around the median says.
    fn prompt(&mut self, median_tokens: f64) -> String {
        let tokens =
            (median_tokens * (0.6 * self.normal()).exp()).clamp(1.0, 20.0 * median_tokens) as usize;
        let mut prompt = String::with_capacity(tokens * 6);
        for _ in 0..tokens {
            if !prompt.is_empty() {
                prompt.push(' ');
            }
            prompt.push_str(WORDS[self.random.random_range(0..WORDS.len())]);
        }
        prompt
    }

    /// A draw from the standard normal distribution (Box and Muller).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.random.random::<f64>()).ln()).sqrt();
        radius * (TAU * self.random.random::<f64>()).cos()
    }
}

/// A project and a location, as every path of Vertex AI names them.
const VERTEX: &str = "/v1/projects/load-test/locations/us-central1";

fn headers(call: Operation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if call == Operation::AnthropicMessages {
        headers.insert(
            HeaderName::from_static("anthropic-version"),
            HeaderValue::from_static("2023-06-01"),
        );
    }
    headers
}

fn streamed(entry: &Entry, mut body: Value) -> Value {
    if entry.stream {
        body["stream"] = json!(true);
    }
    body
}

/// Anthropic's body without what differs by the way to the model.
fn messages(entry: &Entry, prompt: String) -> Value {
    json!({
        "max_tokens": entry.output_tokens,
        "messages": [{ "role": "user", "content": prompt }],
    })
}

fn contents(entry: &Entry, prompt: String) -> Value {
    json!({
        "contents": [{ "role": "user", "parts": [{ "text": prompt }] }],
        "generationConfig": { "maxOutputTokens": entry.output_tokens },
    })
}

fn counted(prompt: String) -> Value {
    json!({ "contents": [{ "role": "user", "parts": [{ "text": prompt }] }] })
}

fn generate_verb(entry: &Entry) -> &'static str {
    match (entry.stream, entry.array) {
        (false, _) => "generateContent",
        (true, false) => "streamGenerateContent?alt=sse",
        (true, true) => "streamGenerateContent",
    }
}

/// boto's way to write a model id: the colon encoded.
fn bedrock_path(entry: &Entry, verb: &str) -> String {
    format!("/model/{}/{verb}", entry.model.replace(':', "%3A").replace('/', "%2F"))
}

/// Every family of models has its own body under InvokeModel.
fn invoked(entry: &Entry, prompt: String) -> Value {
    let tokens = entry.output_tokens;
    let model = &*entry.model;
    if model.contains("meta.llama") {
        json!({ "prompt": prompt, "max_gen_len": tokens })
    } else if model.contains("amazon.titan-embed") {
        json!({ "inputText": prompt })
    } else if model.contains("amazon.titan") {
        json!({ "inputText": prompt, "textGenerationConfig": { "maxTokenCount": tokens } })
    } else if model.contains("amazon.nova") {
        json!({
            "schemaVersion": "messages-v1",
            "messages": [{ "role": "user", "content": [{ "text": prompt }] }],
            "inferenceConfig": { "maxTokens": tokens },
        })
    } else if model.contains("mistral.") {
        json!({ "prompt": prompt, "max_tokens": tokens })
    } else {
        let mut body = messages(entry, prompt);
        body["anthropic_version"] = json!("bedrock-2023-05-31");
        body
    }
}

/// Common words of about one token each, plain enough to need no escape in JSON.
const WORDS: [&str; 96] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with",
    "they", "at", "be", "this", "have", "from", "or", "one", "had", "by", "word", "but", "not",
    "what", "all", "were", "we", "when", "your", "can", "said", "there", "use", "an", "each",
    "which", "she", "do", "how", "their", "if", "will", "up", "other", "about", "out", "many",
    "then", "them", "these", "so", "some", "her", "would", "make", "like", "him", "into", "time",
    "has", "look", "two", "more", "write", "go", "see", "number", "no", "way", "could", "people",
    "my", "than", "first", "water", "been", "call", "who", "oil", "its", "now", "find", "long",
    "down", "day", "did", "get", "come", "made", "may", "part", "tide",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Mix;

    #[test]
    fn one_seed_gives_one_sequence() {
        let mix = Mix::default();
        let bodies = |seed| {
            let mut source = Synthetic::new(seed, 7);
            mix.entries().iter().map(|entry| source.request(entry).body).collect::<Vec<_>>()
        };
        assert_eq!(bodies(1), bodies(1));
        assert_ne!(bodies(1), bodies(2));
    }

    #[test]
    fn every_path_of_the_default_mix_reads_as_the_dialect_that_was_meant() {
        let mut source = Synthetic::new(1, 0);
        for entry in Mix::default().entries() {
            let request = source.request(entry);
            let shape = crate::client::shape(&request, None);
            assert_eq!(shape.dialect, request.dialect, "{}", request.path);
            if let Some(stream) = shape.stream {
                assert_eq!(stream, request.stream, "{}", request.path);
            }
            if let Some(model) = shape.model {
                assert_eq!(*model, *entry.model, "{}", request.path);
            }
        }
    }

    #[test]
    fn prompts_vary_around_the_median() {
        let mut source = Synthetic::new(1, 0);
        let mut lengths: Vec<_> =
            (0..999).map(|_| source.prompt(200.0).split(' ').count()).collect();
        lengths.sort_unstable();
        assert!((180..220).contains(&lengths[499]), "median {}", lengths[499]);
        assert!(lengths[0] < 80 && lengths[998] > 600, "{} to {}", lengths[0], lengths[998]);
    }
}
