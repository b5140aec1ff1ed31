//! The simulator over real sockets: what a client gets, by each dialect.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::{Options, Simulator};

mod faults;
mod forms;
mod metrics;

/// Tokens of an answer, and of the prompt `hello there`.
const OUTPUT: u64 = 5;
const INPUT: u64 = 3;

const CLAUDE: &str = "/model/us.anthropic.claude-sonnet-4-20250514-v1%3A0";
const NOVA: &str = "/model/amazon.nova-pro-v1:0";
const TITAN: &str = "/model/amazon.titan-text-express-v1";
const LLAMA: &str = "/model/meta.llama3-8b-instruct-v1:0";
const VERTEX: &str = "/v1/projects/p/locations/l/publishers";

/// A way to ask, and where the answer stands in the objects that come back.
struct Case {
    path: String,
    body: Value,
    framing: Framing,
    text: &'static str,
    input: &'static str,
    output: &'static str,
}

#[derive(Clone, Copy)]
enum Framing {
    One,
    Sse,
    Array,
    Nul,
    Lines,
    EventStream,
    /// An event stream of objects in base64.
    Chunks,
}

impl Case {
    fn new(path: impl Into<String>, body: &Value, framing: Framing) -> Self {
        Self { path: path.into(), body: body.clone(), framing, text: "", input: "", output: "" }
    }

    fn reads(mut self, text: &'static str, input: &'static str, output: &'static str) -> Self {
        (self.text, self.input, self.output) = (text, input, output);
        self
    }
}

fn cases() -> Vec<Case> {
    use Framing::*;
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let blocks = json!([{"role": "user", "content": [{"text": "hello there"}]}]);
    let chat = json!({"model": "m", "messages": messages});
    let told = json!({"include_usage": true});
    let chat_stream =
        json!({"model": "m", "messages": messages, "stream": true, "stream_options": told});
    let text = json!({"model": "m", "prompt": "hello there"});
    let text_stream =
        json!({"model": "m", "prompt": "hello there", "stream": true, "stream_options": told});
    let response = json!({"model": "m", "input": "hello there"});
    let response_stream = json!({"model": "m", "input": "hello there", "stream": true});
    let claude = json!({"model": "c", "max_tokens": 99, "messages": messages});
    let claude_stream =
        json!({"model": "c", "max_tokens": 99, "messages": messages, "stream": true});
    let gemini = json!({"contents": [{"role": "user", "parts": [{"text": "hello there"}]}]});
    let converse = json!({"messages": blocks});
    let titan = json!({"inputText": "hello there"});
    let llama = json!({"prompt": "hello there"});

    let gemini_path = "/v1beta/models/gemini-2.5-flash:";
    let vertex_path = format!("{VERTEX}/google/models/gemini-2.5-flash:");
    let claude_path = format!("{VERTEX}/anthropic/models/claude-sonnet-4@20250514:");
    let candidate = "/candidates/0/content/parts/0/text";
    let counts = ("/usageMetadata/promptTokenCount", "/usageMetadata/candidatesTokenCount");
    let metrics = (
        "/amazon-bedrock-invocationMetrics/inputTokenCount",
        "/amazon-bedrock-invocationMetrics/outputTokenCount",
    );
    let invoked = "invoke-with-response-stream";

    vec![
        Case::new("/v1/chat/completions", &chat, One).reads(
            "/choices/0/message/content",
            "/usage/prompt_tokens",
            "/usage/completion_tokens",
        ),
        Case::new("/v1/chat/completions", &chat_stream, Sse).reads(
            "/choices/0/delta/content",
            "/usage/prompt_tokens",
            "/usage/completion_tokens",
        ),
        Case::new("/v1/completions", &text, One).reads(
            "/choices/0/text",
            "/usage/prompt_tokens",
            "/usage/completion_tokens",
        ),
        Case::new("/v1/completions", &text_stream, Sse).reads(
            "/choices/0/text",
            "/usage/prompt_tokens",
            "/usage/completion_tokens",
        ),
        Case::new("/v1/responses", &response, One).reads(
            "/output/0/content/0/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new("/openai/v1/responses", &response_stream, Sse).reads(
            "/delta",
            "/response/usage/input_tokens",
            "/response/usage/output_tokens",
        ),
        Case::new("/v1/messages", &claude, One).reads(
            "/content/0/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new("/v1/messages?beta=true", &claude_stream, Sse).reads(
            "/delta/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new(format!("{claude_path}rawPredict"), &claude, One).reads(
            "/content/0/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new(format!("{claude_path}streamRawPredict"), &claude, Sse).reads(
            "/delta/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new(format!("{gemini_path}generateContent"), &gemini, One)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{gemini_path}streamGenerateContent?alt=sse"), &gemini, Sse)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{gemini_path}streamGenerateContent"), &gemini, Array)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{vertex_path}generateContent"), &gemini, One)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{vertex_path}streamGenerateContent?alt=sse"), &gemini, Sse)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{vertex_path}streamGenerateContent"), &gemini, Array)
            .reads(candidate, counts.0, counts.1),
        Case::new(format!("{CLAUDE}/converse"), &converse, One).reads(
            "/output/message/content/0/text",
            "/usage/inputTokens",
            "/usage/outputTokens",
        ),
        Case::new(format!("{CLAUDE}/converse-stream"), &converse, EventStream).reads(
            "/delta/text",
            "/usage/inputTokens",
            "/usage/outputTokens",
        ),
        Case::new(format!("{CLAUDE}/invoke"), &claude, One).reads(
            "/content/0/text",
            "/usage/input_tokens",
            "/usage/output_tokens",
        ),
        Case::new(format!("{CLAUDE}/{invoked}"), &claude, Chunks).reads(
            "/delta/text",
            metrics.0,
            metrics.1,
        ),
        Case::new(format!("{NOVA}/invoke"), &converse, One).reads(
            "/output/message/content/0/text",
            "/usage/inputTokens",
            "/usage/outputTokens",
        ),
        Case::new(format!("{NOVA}/{invoked}"), &converse, Chunks).reads(
            "/contentBlockDelta/delta/text",
            metrics.0,
            metrics.1,
        ),
        Case::new(format!("{TITAN}/invoke"), &titan, One).reads(
            "/results/0/outputText",
            "/inputTextTokenCount",
            "/results/0/tokenCount",
        ),
        Case::new(format!("{TITAN}/{invoked}"), &titan, Chunks).reads(
            "/outputText",
            metrics.0,
            metrics.1,
        ),
        Case::new(format!("{LLAMA}/invoke"), &llama, One).reads(
            "/generation",
            "/prompt_token_count",
            "/generation_token_count",
        ),
        Case::new(format!("{LLAMA}/{invoked}"), &llama, Chunks).reads(
            "/generation",
            metrics.0,
            metrics.1,
        ),
        Case::new("/generate", &json!({"prompt": "hello there", "stream": true}), Nul).reads(
            "/predictions/0",
            "",
            "",
        ),
        Case::new("/v1/generate", &llama, One).reads("/output", "", ""),
    ]
}

#[tokio::test]
async fn every_answer_has_the_tokens_that_it_states() {
    let sim = Running::start(quick()).await;
    for case in cases() {
        let path = &case.path;
        let response = sim.post(path, &case.body).send().await.expect("it answers");
        assert_eq!(response.status(), 200, "{path}");
        let objects = case.framing.cut(&response.bytes().await.expect("it ends well"));

        let texts = objects.iter().filter_map(|object| object.pointer(case.text)?.as_str());
        let texts: Vec<_> = texts.filter(|text| !text.is_empty()).collect();
        let words: usize = texts.iter().map(|text| text.split_whitespace().count()).sum();
        assert_eq!(words as u64, OUTPUT, "{path}: {texts:?}");
        if !matches!(case.framing, Framing::One) {
            assert_eq!(texts.len() as u64, OUTPUT, "{path}: {texts:?}");
        }

        let stated =
            |pointer| objects.iter().rev().find_map(|object| object.pointer(pointer)?.as_u64());
        if !case.output.is_empty() {
            assert_eq!(stated(case.input), Some(INPUT), "{path}");
            assert_eq!(stated(case.output), Some(OUTPUT), "{path}");
        }
    }

    let served = sim.served().await;
    let calls = cases().len() as u64;
    assert_eq!(served["calls"], calls);
    assert_eq!(served["errors"], 0);
    assert_eq!(served["input_tokens"], calls * INPUT);
    assert_eq!(served["output_tokens"], calls * OUTPUT);
    assert_eq!(
        served["by_dialect"],
        json!({"openai": 6, "anthropic": 2, "vertex": 5, "gemini": 3, "bedrock": 10, "generate": 2})
    );
}

#[tokio::test]
async fn a_limit_of_the_caller_ends_the_answer_and_is_the_reason() {
    let sim = Running::start(quick()).await;
    let body = json!({"messages": [], "max_tokens": 2});

    let chat = sim.json("/v1/chat/completions", &body).await;
    assert_eq!(chat["usage"]["completion_tokens"], 2);
    assert_eq!(chat["choices"][0]["finish_reason"], "length");

    let message = sim.json("/v1/messages", &body).await;
    assert_eq!(message["usage"]["output_tokens"], 2);
    assert_eq!(message["stop_reason"], "max_tokens");
}

#[tokio::test]
async fn a_stream_tells_its_usage_only_to_those_who_ask() {
    let sim = Running::start(quick()).await;
    let body = json!({"model": "m", "messages": [], "stream": true});
    let answer = sim.post("/v1/chat/completions", &body).send().await.expect("it answers");
    let text = answer.text().await.expect("it ends well");
    assert!(!text.contains("usage"));
    assert!(text.ends_with("data: [DONE]\n\n"));
}

#[tokio::test]
async fn counts_and_embeddings_bring_out_no_tokens() {
    let sim = Running::start(quick()).await;
    let messages = json!({"model": "m", "messages": [{"role": "user", "content": "hello there"}]});
    let contents = json!({"contents": [{"parts": [{"text": "hello there"}]}]});
    let converse =
        json!({"input": {"converse": {"messages": [{"content": [{"text": "hello there"}]}]}}});
    let embed = json!({"model": "m", "input": ["hello", "there"], "dimensions": 8});

    let counted = sim.json("/v1/messages/count_tokens", &messages).await;
    assert_eq!(counted["input_tokens"], INPUT);
    let path = format!("{VERTEX}/anthropic/models/count-tokens:rawPredict");
    assert_eq!(sim.json(&path, &messages).await["input_tokens"], INPUT);
    let counted = sim.json("/v1beta/models/gemini-2.5-flash:countTokens", &contents).await;
    assert_eq!(counted["totalTokens"], INPUT);
    assert_eq!(sim.json(&format!("{CLAUDE}/count-tokens"), &converse).await["inputTokens"], INPUT);

    let embedded = sim.json("/v1/embeddings", &embed).await;
    assert_eq!(embedded["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(embedded["data"][1]["embedding"].as_array().map(Vec::len), Some(8));
    assert_eq!(embedded["usage"]["prompt_tokens"], INPUT);

    let served = sim.served().await;
    assert_eq!((&served["calls"], &served["output_tokens"]), (&json!(5), &json!(0)));
    assert_eq!(served["input_tokens"], INPUT);
}

#[tokio::test]
async fn what_neither_runs_nor_fits_the_queue_is_refused_until_a_client_leaves() {
    let forever = Duration::from_secs(3600);
    let sim = Running::start(Options { capacity: 2, queue: 1, ttft: forever, ..quick() }).await;
    let ask = || sim.post("/v1/chat/completions", &json!({"messages": [], "stream": true})).send();

    // A stream has its head as soon as it has a slot.
    let first = ask().await.expect("the first runs");
    let _second = ask().await.expect("the second runs");
    let (mut third, mut fourth) = (Box::pin(ask()), Box::pin(ask()));
    let (refused, waiting) = tokio::select! {
        refused = &mut third => (refused, fourth),
        refused = &mut fourth => (refused, third),
    };
    assert_eq!(refused.expect("it is answered").status(), 429);

    drop(first);
    assert_eq!(waiting.await.expect("the slot came free").status(), 200);
}

#[tokio::test]
async fn a_caller_who_hangs_up_before_the_answer_frees_its_slot() {
    let forever = Duration::from_secs(3600);
    let sim = Running::start(Options { capacity: 1, queue: 1, ttft: forever, ..quick() }).await;
    let ask = |stream: bool| {
        sim.post("/v1/chat/completions", &json!({"messages": [], "stream": stream})).send()
    };
    let mut first = Box::pin(ask(false));
    while sim.served().await["calls"] == 0 {
        assert!(timeout(Duration::from_millis(1), &mut first).await.is_err(), "it runs for hours");
    }
    let mut second = Box::pin(ask(true));
    assert!(timeout(Duration::from_millis(20), &mut second).await.is_err(), "it waits");

    drop(first);
    assert_eq!(second.await.expect("the slot came free").status(), 200);
}

#[tokio::test]
async fn an_overload_is_told_in_the_words_of_each_dialect() {
    let sim = Running::start(quick()).await;
    let fail =
        |path: &str, status: &str| sim.post(path, &json!({})).header("x-sim-fault", status).send();

    let openai = fail("/v1/chat/completions", "429").await.expect("it answers");
    assert_eq!(openai.status(), 429);
    assert_eq!(openai.headers()["retry-after"], "1");
    assert_eq!(body(openai).await["error"]["code"], "rate_limit_exceeded");

    let anthropic = fail("/v1/messages", "529").await.expect("it answers");
    assert_eq!(anthropic.status(), 529);
    assert_eq!(body(anthropic).await["error"]["type"], "overloaded_error");

    let path = "/v1beta/models/g:streamGenerateContent?alt=sse";
    let gemini = fail(path, "429").await.expect("it answers");
    assert_eq!(gemini.headers()["content-type"], "text/event-stream");
    assert_eq!(body(gemini).await["error"]["status"], "RESOURCE_EXHAUSTED");

    let bedrock = fail(&format!("{CLAUDE}/converse"), "429").await.expect("it answers");
    let kind = bedrock.headers()["x-amzn-errortype"].to_str().expect("it is text");
    assert!(kind.starts_with("ThrottlingException:"), "{kind}");

    let generate = fail("/generate", "503").await.expect("it answers");
    assert!(body(generate).await["detail"].is_string());
    assert_eq!(sim.served().await["errors"], 5);
}

#[tokio::test]
async fn a_cut_breaks_the_answer_off_after_its_half() {
    let sim = Running::start(quick()).await;
    for stream in [true, false] {
        let body = json!({"messages": [], "stream": stream});
        let cut = sim.post("/v1/chat/completions", &body).header("x-sim-fault", "cut");
        let mut cut = cut.send().await.expect("the head comes");
        assert_eq!(cut.status(), 200);
        let mut received = Vec::new();
        let end = loop {
            match cut.chunk().await {
                Ok(Some(chunk)) => received.extend_from_slice(&chunk),
                end => break end,
            }
        };
        assert!(end.is_err(), "the end is no clean one");
        assert!(!received.is_empty());
    }
    let served = sim.served().await;
    assert_eq!((&served["errors"], &served["output_tokens"]), (&json!(2), &json!(OUTPUT / 2)));
}

#[tokio::test]
async fn a_stall_sends_half_and_then_nothing() {
    let sim = Running::start(quick()).await;
    let body = json!({"messages": [], "stream": true});
    let stalled = sim.post("/v1/messages", &body).header("x-sim-fault", "stall");
    let mut stalled = stalled.send().await.expect("the head comes");
    let mut text = String::new();
    while (text.matches("text_delta").count() as u64) < OUTPUT / 2 {
        let chunk = stalled.chunk().await.expect("it is not broken").expect("it has not ended");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(timeout(Duration::from_millis(50), stalled.chunk()).await.is_err(), "no more comes");
}

#[tokio::test]
async fn an_error_in_band_ends_a_stream_of_status_200() {
    let sim = Running::start(quick()).await;
    for case in cases().into_iter().filter(|case| !matches!(case.framing, Framing::One)) {
        let answer = sim.post(&case.path, &case.body).header("x-sim-fault", "error-event");
        let answer = answer.send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{}", case.path);
        let bytes = answer.bytes().await.expect("it ends well");
        let objects = case.framing.cut(&bytes);
        let texts = objects.iter().filter_map(|object| object.pointer(case.text)?.as_str());
        let texts = texts.filter(|text| !text.is_empty()).count();
        assert_eq!(texts as u64, OUTPUT / 2, "{}", case.path);
        let last = objects.last().expect("the error is an object").to_string();
        assert!(last.contains("error") || last.contains("failed"), "{}: {last}", case.path);
    }
}

#[tokio::test]
async fn headers_of_a_request_go_before_the_options() {
    let hour = Duration::from_secs(3600);
    let sim = Running::start(Options { ttft: hour, tpot: hour, ..quick() }).await;
    let answer = sim
        .post("/v1/chat/completions", &json!({"messages": []}))
        .header("x-sim-ttft", "1ms")
        .header("x-sim-tpot", "0s")
        .header("x-sim-output-tokens", "7");
    let answer = body(answer.send().await.expect("it answers")).await;
    assert_eq!(answer["usage"]["completion_tokens"], 7);

    let wrong = sim.post("/v1/chat/completions", &json!({})).header("x-sim-ttft", "soon");
    assert_eq!(wrong.send().await.expect("it answers").status(), 400);
}

#[tokio::test]
async fn errors_come_at_their_rate_and_the_same_for_one_seed() {
    let options = Options { error_rate: 0.5, ..quick() };
    let mut runs = Vec::new();
    for _ in 0..2 {
        let sim = Running::start(options.clone()).await;
        let mut statuses = Vec::new();
        for _ in 0..40 {
            let answer = sim.post("/v1/chat/completions", &json!({"messages": []})).send().await;
            statuses.push(answer.expect("it answers").status().as_u16());
        }
        runs.push(statuses);
    }
    assert_eq!(runs[0], runs[1]);
    let errors = runs[0].iter().filter(|status| **status != 200).count();
    assert!((10..=30).contains(&errors), "{errors} of 40");
}

#[tokio::test]
async fn times_are_found_by_the_trace_of_the_request() {
    let sim = Running::start(quick()).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let call = sim
        .post("/v1/chat/completions", &json!({"messages": [], "stream": true}))
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    call.send().await.expect("it answers").bytes().await.expect("it ends well");
    sim.json("/v1/chat/completions", &json!({"messages": []})).await;

    let stamps = sim.get("/-/stamps").await;
    let times: Vec<u64> = serde_json::from_value(stamps[trace].clone()).expect("a list of times");
    assert_eq!(times.len() as u64, OUTPUT);
    assert!(times.is_sorted());
    assert_eq!(stamps.as_object().map(|stamps| stamps.len()), Some(1));

    sim.post("/-/reset", &json!({})).send().await.expect("it answers");
    assert_eq!(sim.get("/-/stamps").await, json!({}));
    assert_eq!(sim.served().await["calls"], 0);
}

#[tokio::test]
async fn what_is_no_model_call_is_not_counted() {
    let sim = Running::start(quick()).await;
    assert_eq!(sim.get("/health").await["status"], "ok");
    assert_eq!(sim.get("/v1/models").await["object"], "list");
    let unknown = sim.post("/v1/nothing", &json!({})).send().await.expect("it answers");
    assert_eq!(unknown.status(), 404);
    assert!(body(unknown).await["error"].is_object());
    assert_eq!(sim.served().await["calls"], 0);
}

#[tokio::test]
async fn http2_is_spoken_to_those_who_begin_with_it() {
    let sim = Running::start(quick()).await;
    let client = Client::builder().http2_prior_knowledge().build().expect("a client");
    let url = format!("http://{}/v1/chat/completions", sim.address);
    let body = json!({"messages": [], "stream": true}).to_string();
    let answer = client.post(url).body(body).send().await.expect("it answers");
    assert_eq!(answer.version(), http::Version::HTTP_2);
    assert!(answer.text().await.expect("it ends well").ends_with("[DONE]\n\n"));
}

fn quick() -> Options {
    Options {
        listen: ([127, 0, 0, 1], 0).into(),
        ttft: Duration::from_millis(2),
        tpot: Duration::from_millis(1),
        output_tokens: OUTPUT,
        ..Options::default()
    }
}

/// A simulator that ends with its test.
struct Running {
    address: std::net::SocketAddr,
    client: Client,
    server: AbortHandle,
}

impl Running {
    async fn start(options: Options) -> Self {
        let simulator = Simulator::bind(options).await.expect("a port is free");
        let address = simulator.addr();
        let server = tokio::spawn(simulator.serve(std::future::pending())).abort_handle();
        Self { address, client: Client::new(), server }
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.client.post(format!("http://{}{path}", self.address)).body(body.to_string())
    }

    async fn json(&self, path: &str, request: &Value) -> Value {
        body(self.post(path, request).send().await.expect("it answers")).await
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("http://{}{path}", self.address)).send().await;
        body(answer.expect("it answers")).await
    }

    async fn served(&self) -> Value {
        self.get("/-/served").await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn body(response: Response) -> Value {
    let bytes = response.bytes().await.expect("it ends well");
    serde_json::from_slice(&bytes).expect("it is JSON")
}

impl Framing {
    /// The objects of an answer, in order.
    fn cut(self, bytes: &[u8]) -> Vec<Value> {
        let object = |text: &str| serde_json::from_str(text).expect("it is JSON");
        let text = || std::str::from_utf8(bytes).expect("it is text");
        match self {
            Self::One => vec![object(text())],
            Self::Array => serde_json::from_slice(bytes).expect("it is an array"),
            Self::Lines => text().lines().map(object).collect(),
            Self::Nul => text().split_terminator('\0').map(object).collect(),
            Self::Sse => {
                let data = text().lines().filter_map(|line| line.strip_prefix("data: "));
                data.filter(|data| *data != "[DONE]").map(object).collect()
            }
            Self::EventStream => messages(bytes),
            Self::Chunks => {
                let inner = |message: &Value| match message["bytes"].as_str() {
                    Some(inner) => {
                        let inner = BASE64_STANDARD.decode(inner).expect("it is base64");
                        serde_json::from_slice(&inner).expect("it is JSON")
                    }
                    None => message.clone(),
                };
                messages(bytes).iter().map(inner).collect()
            }
        }
    }
}

/// The payloads of an event stream whose checksums are right.
fn messages(mut bytes: &[u8]) -> Vec<Value> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    let mut payloads = Vec::new();
    while !bytes.is_empty() {
        let length = number(&bytes[..4]) as usize;
        let headers = number(&bytes[4..8]) as usize;
        assert_eq!(number(&bytes[8..12]), crc32fast::hash(&bytes[..8]));
        let (message, rest) = bytes.split_at(length);
        assert_eq!(number(&message[length - 4..]), crc32fast::hash(&message[..length - 4]));
        let payload = &message[12 + headers..length - 4];
        payloads.push(serde_json::from_slice(payload).expect("it is JSON"));
        bytes = rest;
    }
    payloads
}
