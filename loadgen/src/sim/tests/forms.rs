//! What an answer may hold besides text: thoughts, calls of tools, several choices; and what is no
//! text at all: embeddings, pictures, films.

use super::*;

const THOUGHTS: u64 = 2;

/// A way to ask, with a tool called `measure`, and where things stand in the objects that come back.
struct Form {
    path: String,
    body: Value,
    framing: Framing,
    thought: &'static str,
    text: &'static str,
    /// Where the name of a tool stands, and what it is given; an object where it comes whole.
    tool: &'static str,
    arguments: &'static str,
    /// All that was put out, and the part of it that was thought; empty where that is not told.
    output: &'static [&'static str],
    reasoning: &'static str,
    called: &'static str,
}

fn forms() -> Vec<Form> {
    use Framing::*;
    let messages = json!([{"role": "user", "content": "hello there"}]);
    let schema = json!({"type": "object"});
    let function = json!({"name": "measure", "parameters": schema});
    let chat = |stream: bool| {
        json!({"messages": messages, "tools": [{"type": "function", "function": function}],
            "stream": stream, "stream_options": {"include_usage": true}})
    };
    let response = |stream: bool| {
        json!({"input": "hello there", "stream": stream,
            "tools": [{"type": "function", "name": "measure", "parameters": schema}]})
    };
    let claude = |stream: bool| {
        json!({"messages": messages, "max_tokens": 99, "stream": stream,
            "tools": [{"name": "measure", "input_schema": schema}]})
    };
    let gemini = json!({"contents": [{"parts": [{"text": "hello there"}]}],
        "tools": [{"functionDeclarations": [function]}]});
    let converse = json!({"messages": [{"content": [{"text": "hello there"}]}],
        "toolConfig": {"tools": [{"toolSpec": {"name": "measure"}}]}});

    let chat_form = |framing, stream, body| Form {
        path: "/v1/chat/completions".to_owned(),
        body,
        framing,
        thought: if stream {
            "/choices/0/delta/reasoning_content"
        } else {
            "/choices/0/message/reasoning_content"
        },
        text: if stream { "/choices/0/delta/content" } else { "/choices/0/message/content" },
        tool: if stream {
            "/choices/0/delta/tool_calls/0/function/name"
        } else {
            "/choices/0/message/tool_calls/0/function/name"
        },
        arguments: if stream {
            "/choices/0/delta/tool_calls/0/function/arguments"
        } else {
            "/choices/0/message/tool_calls/0/function/arguments"
        },
        output: &["/usage/completion_tokens"],
        reasoning: "/usage/completion_tokens_details/reasoning_tokens",
        called: "tool_calls",
    };
    let gemini_form = |path: String, framing| Form {
        path,
        body: gemini.clone(),
        framing,
        thought: "/candidates/0/content/parts/0/text",
        text: "/candidates/0/content/parts/0/text",
        tool: "/candidates/0/content/parts/0/functionCall/name",
        arguments: "/candidates/0/content/parts/0/functionCall/args",
        output: &["/usageMetadata/candidatesTokenCount", "/usageMetadata/thoughtsTokenCount"],
        reasoning: "/usageMetadata/thoughtsTokenCount",
        called: "STOP",
    };
    let claude_stream = |path: String, body, framing| Form {
        path,
        body,
        framing,
        thought: "/delta/thinking",
        text: "/delta/text",
        tool: "/content_block/name",
        arguments: "/delta/partial_json",
        output: &["/usage/output_tokens"],
        reasoning: "/usage/output_tokens_details/thinking_tokens",
        called: "tool_use",
    };
    vec![
        chat_form(One, false, chat(false)),
        chat_form(Sse, true, chat(true)),
        Form {
            path: "/v1/responses".to_owned(),
            body: response(false),
            framing: One,
            thought: "/output/0/summary/0/text",
            text: "/output/1/content/0/text",
            tool: "/output/1/name",
            arguments: "/output/1/arguments",
            output: &["/usage/output_tokens"],
            reasoning: "/usage/output_tokens_details/reasoning_tokens",
            called: "function_call",
        },
        Form {
            path: "/v1/responses".to_owned(),
            body: response(true),
            framing: Sse,
            thought: "",
            text: "",
            tool: "/item/name",
            arguments: "/delta",
            output: &["/response/usage/output_tokens"],
            reasoning: "/response/usage/output_tokens_details/reasoning_tokens",
            called: "function_call",
        },
        Form {
            path: "/v1/messages".to_owned(),
            body: claude(false),
            framing: One,
            thought: "/content/0/thinking",
            text: "/content/1/text",
            tool: "/content/1/name",
            arguments: "/content/1/input",
            output: &["/usage/output_tokens"],
            reasoning: "/usage/output_tokens_details/thinking_tokens",
            called: "tool_use",
        },
        claude_stream("/v1/messages".to_owned(), claude(true), Sse),
        claude_stream(format!("{CLAUDE}/invoke-with-response-stream"), claude(false), Chunks),
        gemini_form("/v1beta/models/g:streamGenerateContent?alt=sse".to_owned(), Sse),
        gemini_form(format!("{VERTEX}/google/models/g:streamGenerateContent"), Array),
        Form {
            path: format!("{CLAUDE}/converse"),
            body: converse.clone(),
            framing: One,
            thought: "/output/message/content/0/reasoningContent/reasoningText/text",
            text: "/output/message/content/1/text",
            tool: "/output/message/content/1/toolUse/name",
            arguments: "/output/message/content/1/toolUse/input",
            output: &["/usage/outputTokens"],
            reasoning: "",
            called: "tool_use",
        },
        Form {
            path: format!("{CLAUDE}/converse-stream"),
            body: converse,
            framing: EventStream,
            thought: "/delta/reasoningContent/text",
            text: "/delta/text",
            tool: "/start/toolUse/name",
            arguments: "/delta/toolUse/input",
            output: &["/usage/outputTokens"],
            reasoning: "",
            called: "tool_use",
        },
        Form {
            path: "/api/chat".to_owned(),
            body: chat(true),
            framing: Lines,
            thought: "/message/thinking",
            text: "/message/content",
            tool: "/message/tool_calls/0/function/name",
            arguments: "/message/tool_calls/0/function/arguments",
            output: &["/eval_count"],
            reasoning: "",
            called: "stop",
        },
    ]
}

impl Form {
    async fn ask(&self, sim: &Running, headers: &[(&str, u64)]) -> Vec<Value> {
        let mut request = sim.post(&self.path, &self.body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.expect("it answers");
        assert_eq!(answer.status(), 200, "{}", self.path);
        self.framing.cut(&answer.bytes().await.expect("it ends well"))
    }
}

/// The last number at a place; 0 where there is none.
fn number(objects: &[Value], pointer: &str) -> u64 {
    let numbers = objects.iter().rev();
    numbers.filter_map(|object| object.pointer(pointer)?.as_u64()).next().unwrap_or(0)
}

fn texts<'a>(objects: &'a [Value], pointer: &str) -> Vec<&'a str> {
    let texts = objects.iter().filter_map(|object| object.pointer(pointer)?.as_str());
    texts.filter(|text| !text.is_empty()).collect()
}

fn words(texts: &[&str]) -> u64 {
    texts.iter().map(|text| text.split_whitespace().count() as u64).sum()
}

#[tokio::test]
async fn thoughts_come_first_and_are_counted() {
    let sim = Running::start(quick()).await;
    for form in forms() {
        let path = &form.path;
        let objects = form.ask(&sim, &[("x-sim-reasoning-tokens", THOUGHTS)]).await;
        let output: u64 = form.output.iter().map(|pointer| number(&objects, pointer)).sum();
        assert_eq!(output, THOUGHTS + OUTPUT, "{path}");
        if !form.reasoning.is_empty() {
            assert_eq!(number(&objects, form.reasoning), THOUGHTS, "{path}");
        }
        if form.thought.is_empty() {
            continue;
        }
        let (thought, text) = (texts(&objects, form.thought), texts(&objects, form.text));
        if form.thought == form.text {
            assert_eq!(words(&thought), THOUGHTS + OUTPUT, "{path}");
            let marks =
                objects.iter().filter(|object| object.to_string().contains("\"thought\":true"));
            assert_eq!(marks.count() as u64, THOUGHTS, "{path}");
        } else {
            assert_eq!((words(&thought), words(&text)), (THOUGHTS, OUTPUT), "{path}");
        }
    }
    let served = sim.served().await;
    assert_eq!(served["output_tokens"], forms().len() as u64 * (THOUGHTS + OUTPUT));
}

#[tokio::test]
async fn a_tool_is_called_where_that_is_wished_for() {
    let sim = Running::start(quick()).await;
    let wishes = [("x-sim-tools", 1), ("x-sim-reasoning-tokens", THOUGHTS)];
    for form in forms() {
        let path = &form.path;
        let objects = form.ask(&sim, &wishes).await;
        assert_eq!(texts(&objects, form.tool).first(), Some(&"measure"), "{path}");
        let given =
            match objects.iter().find_map(|object| object.pointer(form.arguments)?.as_object()) {
                Some(given) if !given.is_empty() => Value::Object(given.clone()),
                _ => {
                    let thoughts = if form.arguments == "/delta" { THOUGHTS as usize } else { 0 };
                    let parts = texts(&objects, form.arguments).split_off(thoughts).concat();
                    serde_json::from_str(&parts)
                        .unwrap_or_else(|error| panic!("{path}: {error} {parts}"))
                }
            };
        let text = given["text"].as_str().expect("a text");
        assert_eq!(words(&[text]), OUTPUT, "{path}");
        let all = Value::from(objects.clone()).to_string();
        assert!(all.contains(&format!("\"{}\"", form.called)), "{path}: {all}");
        let output: u64 = form.output.iter().map(|pointer| number(&objects, pointer)).sum();
        assert_eq!(output, THOUGHTS + OUTPUT, "{path}");
    }
    let served = sim.served().await;
    assert_eq!(served["output_tokens"], forms().len() as u64 * (THOUGHTS + OUTPUT));
}

#[tokio::test]
async fn without_a_tool_or_the_wish_none_is_called() {
    let sim = Running::start(quick()).await;
    let call =
        sim.post("/v1/chat/completions", &json!({"messages": []})).header("x-sim-tools", "1");
    let answer = body(call.send().await.expect("it answers")).await;
    assert!(answer["choices"][0]["message"]["content"].is_string());
    let tools = json!({"messages": [], "tools": [{"function": {"name": "measure"}}]});
    let answer = sim.json("/v1/chat/completions", &tools).await;
    assert!(answer["choices"][0]["message"]["content"].is_string());
}

#[tokio::test]
async fn several_choices_are_told_apart_and_counted_together() {
    let sim = Running::start(quick()).await;
    let chat = json!({"messages": [], "n": 3});
    let answer = sim.json("/v1/chat/completions", &chat).await;
    let choices = answer["choices"].as_array().expect("a list");
    assert_eq!(choices.len(), 3);
    for choice in choices {
        let text = choice["message"]["content"].as_str().expect("a text");
        assert_eq!(words(&[text]), OUTPUT);
    }
    assert_eq!(answer["usage"]["completion_tokens"], 3 * OUTPUT);

    let streamed = [
        (
            "/v1/chat/completions",
            json!({"messages": [], "n": 3, "stream": true}),
            "/choices/0/delta/content",
            "choices",
        ),
        (
            "/v1/completions",
            json!({"prompt": "", "n": 3, "stream": true}),
            "/choices/0/text",
            "choices",
        ),
        (
            "/v1beta/models/g:streamGenerateContent?alt=sse",
            json!({"contents": [], "generationConfig": {"candidateCount": 3}}),
            "/candidates/0/content/parts/0/text",
            "candidates",
        ),
    ];
    for (path, asked, text, list) in &streamed {
        let answer = sim.post(path, asked).send().await.expect("it answers");
        let objects = Framing::Sse.cut(&answer.bytes().await.expect("it ends well"));
        assert_eq!(texts(&objects, text).len() as u64, 3 * OUTPUT, "{path}");
        for choice in 0..3u64 {
            let mine = objects.iter().filter(|object| object[list][0]["index"] == choice);
            let ends = mine.filter(|object| {
                let choice = &object[list][0];
                choice["finish_reason"].is_string() || choice["finishReason"].is_string()
            });
            assert_eq!(ends.count(), 1, "{path} {choice}");
        }
    }
    let served = sim.served().await;
    assert_eq!(served["output_tokens"], (1 + streamed.len() as u64) * 3 * OUTPUT);
}

#[tokio::test]
async fn limits_are_told_in_the_headers_of_each_provider() {
    let sim = Running::start(quick()).await;
    let ask = async |path: &str, fault: Option<&str>| {
        let call = sim.post(path, &json!({}));
        let call = match fault {
            Some(fault) => call.header("x-sim-fault", fault),
            None => call,
        };
        call.send().await.expect("it answers").headers().clone()
    };
    let openai = ask("/v1/chat/completions", None).await;
    assert_eq!(openai["x-ratelimit-remaining-requests"], "9999");
    assert!(!openai.contains_key("retry-after"));
    let spent = ask("/v1/chat/completions", Some("429")).await;
    assert_eq!(
        (&spent["x-ratelimit-remaining-tokens"], &spent["retry-after"]),
        (&"0".parse().expect("a value"), &"1".parse().expect("a value"))
    );
    let azure = ask("/openai/deployments/d/chat/completions", Some("429")).await;
    assert_eq!(azure["x-ratelimit-reset-requests"], "1");

    let anthropic = ask("/v1/messages", None).await;
    let reset = anthropic["anthropic-ratelimit-requests-reset"].to_str().expect("a time");
    reset.parse::<jiff::Timestamp>().expect("a time");
    let vertex = ask(&format!("{VERTEX}/anthropic/models/c:rawPredict"), None).await;
    assert!(!vertex.contains_key("anthropic-ratelimit-requests-reset"), "Google has none");
}

#[tokio::test]
async fn a_film_is_done_after_some_polls() {
    let sim = Running::start(quick()).await;
    let asked = json!({"instances": [{"prompt": "the tide"}], "parameters": {"sampleCount": 2}});
    let begin = async |path: &str, polls: &str| {
        let call = sim.post(path, &asked).header("x-sim-polls", polls);
        let name = body(call.send().await.expect("it answers")).await["name"].clone();
        name.as_str().expect("a name").to_owned()
    };
    let path = format!("{VERTEX}/google/models/veo-3");
    let name = begin(&format!("{path}:predictLongRunning"), "1").await;
    assert!(name.starts_with("projects/p/locations/l/publishers/google/models/veo-3/operations/"));
    let poll = json!({"operationName": name});
    let path = format!("{path}:fetchPredictOperation");
    assert_eq!(sim.json(&path, &poll).await, json!({"name": name}));
    let done = sim.json(&path, &poll).await;
    assert_eq!(done["done"], true);
    assert_eq!(done["response"]["videos"].as_array().map(Vec::len), Some(2));
    let unknown = sim.post(&path, &json!({"operationName": "x"})).send().await;
    assert_eq!(unknown.expect("it answers").status(), 400);

    let name = begin("/v1beta/models/veo-3:predictLongRunning", "0").await;
    let done = sim.get(&format!("/v1beta/{name}")).await;
    let samples = &done["response"]["generateVideoResponse"]["generatedSamples"];
    assert_eq!(samples.as_array().map(Vec::len), Some(2));
    assert_eq!(sim.served().await["calls"], 6);
}

#[tokio::test]
async fn what_is_no_text_is_answered_in_its_own_form() {
    let sim = Running::start(quick()).await;
    let path = format!("{VERTEX}/google/models/text-embedding-005:predict");
    let texts = json!({"instances": [{"content": "hello there"}, {"content": "hello"}]});
    let embedded = sim.json(&path, &texts).await;
    let count =
        |index: usize| &embedded["predictions"][index]["embeddings"]["statistics"]["token_count"];
    assert_eq!((count(0), count(1)), (&json!(3), &json!(2)));

    let content = json!({"content": {"parts": [{"text": "hello there"}]}});
    let many = json!({"requests": [content, content]});
    let embedded = sim.json("/v1beta/models/e:batchEmbedContents", &many).await;
    assert_eq!(embedded["embeddings"].as_array().map(Vec::len), Some(2));

    let path = format!("{VERTEX}/google/models/imagen-4:predict");
    let picture = json!({"instances": [{"prompt": "the tide"}], "parameters": {"sampleCount": 3}});
    let made = sim.json(&path, &picture).await;
    assert_eq!(made["predictions"].as_array().map(Vec::len), Some(3));

    let picture = json!({"model": "gpt-image-1", "prompt": "the tide", "n": 2});
    let made = sim.json("/v1/images/generations", &picture).await;
    assert_eq!(made["data"].as_array().map(Vec::len), Some(2));
    assert_eq!(made["usage"]["output_tokens"], OUTPUT);
    let picture = json!({"model": "dall-e-3", "prompt": "the tide"});
    assert!(sim.json("/v1/images/generations", &picture).await["usage"].is_null());

    let served = sim.served().await;
    assert_eq!((&served["calls"], &served["output_tokens"]), (&json!(5), &json!(OUTPUT)));
    assert_eq!(served["input_tokens"], 5 + 6 + 2 + 2 + 2);
}
