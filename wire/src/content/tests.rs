//! What is read of the bodies of calls.

use std::io::Write;

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::*;

const PLENTY: usize = 1 << 20;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields
        .iter()
        .map(|(name, value)| (name.parse().expect("a name"), HeaderValue::from_static(value)))
        .collect()
}

fn call(path: &str, request: &[u8], kind: &'static str, response: &[u8]) -> Messages {
    let budget = Budget::new(PLENTY);
    let json = headers(&[("content-type", "application/json")]);
    let mut content = Content::of(path, &json, &budget).expect("it has content");
    request.chunks(7).for_each(|chunk| content.request(chunk));
    content.head(&headers(&[("content-type", kind)]));
    response.chunks(5).for_each(|chunk| content.response(chunk));
    content.messages()
}

fn asked(path: &str, request: &Value) -> Messages {
    call(path, request.to_string().as_bytes(), "application/json", b"")
}

fn answered(path: &str, response: &Value) -> Vec<Value> {
    show(&call(path, b"{}", "application/json", response.to_string().as_bytes()).output)
}

fn streamed(path: &str, events: &[Value]) -> Vec<Value> {
    let stream: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    show(&call(path, b"{}", "text/event-stream", stream.as_bytes()).output)
}

fn show(messages: &[Message]) -> Vec<Value> {
    messages.iter().map(Message::to_json).collect()
}

fn answer(parts: Value, reason: &str) -> Vec<Value> {
    vec![json!({ "role": "assistant", "parts": parts, "finish_reason": reason })]
}

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/openai/v1/responses";
const ANTHROPIC: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/gemini-3-flash:generateContent";
const CONVERSE: &str = "/model/amazon.nova-lite-v1%3A0/converse";

#[test]
fn a_chat_of_openai_is_read() {
    let messages = asked(
        CHAT,
        &json!({
            "model": "m",
            "messages": [
                { "role": "developer", "content": "Be brief." },
                { "role": "user", "content": [
                    { "type": "text", "text": "What is this?" },
                    { "type": "image_url", "image_url": { "url": "https://a.b/c.png?sig=secret" } },
                    { "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } },
                ] },
                { "role": "assistant", "content": null, "tool_calls": [
                    { "id": "1", "type": "function", "function": { "name": "look", "arguments": "{\"at\": 1}" } },
                ] },
                { "role": "tool", "tool_call_id": "1", "content": "a cat" },
            ],
            "tools": [
                { "type": "function", "function": { "name": "look", "description": "Looks.", "parameters": {} } },
                { "type": "mcp", "server_label": "x", "authorization": "secret", "headers": { "k": "secret" } },
            ],
        }),
    );
    assert_eq!(
        show(&messages.input),
        [
            json!({ "role": "system", "parts": [{ "type": "text", "content": "Be brief." }] }),
            json!({ "role": "user", "parts": [
                { "type": "text", "content": "What is this?" },
                { "type": "uri", "modality": "image", "uri": "https://a.b/c.png" },
                { "type": "blob", "modality": "image", "mime_type": "image/png", "content": "" },
            ] }),
            json!({ "role": "assistant", "parts": [
                { "type": "tool_call", "id": "1", "name": "look", "arguments": { "at": 1 } },
            ] }),
            json!({ "role": "tool", "parts": [
                { "type": "tool_call_response", "id": "1", "response": "a cat" },
            ] }),
        ]
    );
    assert_eq!(
        messages.tools,
        [
            json!({ "type": "function", "name": "look", "description": "Looks.", "parameters": {} }),
            json!({ "type": "mcp" }),
        ]
    );
    assert!(!messages.is_truncated);
}

#[test]
fn an_answer_of_openai_is_read_whole_and_in_pieces() {
    let expected = answer(
        json!([
            { "type": "reasoning", "content": "Let me see." },
            { "type": "text", "content": "A cat." },
            { "type": "tool_call", "id": "a", "name": "look", "arguments": { "at": 2 } },
            { "type": "tool_call", "id": "b", "name": "pet", "arguments": {} },
        ]),
        "tool_calls",
    );
    let call = |id: &str, name: &str, arguments: &str| json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } });
    let whole = json!({ "choices": [{ "index": 0, "finish_reason": "tool_calls", "message": {
        "role": "assistant", "reasoning_content": "Let me see.", "content": "A cat.",
        "tool_calls": [call("a", "look", "{\"at\": 2}"), call("b", "pet", "{}")],
    } }] });
    assert_eq!(answered(CHAT, &whole), expected);

    let delta = |delta: Value| json!({ "choices": [{ "index": 0, "delta": delta }] });
    let more = |index: u64, arguments: &str| {
        delta(json!({ "tool_calls": [{ "index": index, "function": { "arguments": arguments } }] }))
    };
    let begin = |index: u64, id: &str, name: &str| {
        delta(json!({ "tool_calls": [
            { "index": index, "id": id, "function": { "name": name, "arguments": "" } },
        ] }))
    };
    let pieces = [
        delta(json!({ "role": "assistant", "content": "" })),
        delta(json!({ "reasoning_content": "Let me " })),
        delta(json!({ "reasoning_content": "see." })),
        delta(json!({ "content": "A " })),
        delta(json!({ "content": "cat." })),
        begin(0, "a", "look"),
        begin(1, "b", "pet"),
        more(0, "{\"at\""),
        more(1, "{}"),
        more(0, ": 2}"),
        json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "tool_calls" }] }),
        json!({ "choices": [], "usage": {} }),
    ];
    assert_eq!(streamed(CHAT, &pieces), expected);
}

#[test]
fn several_choices_are_several_messages() {
    let piece = |index: u64, text: &str| json!({ "choices": [{ "index": index, "delta": { "content": text } }] });
    let output = streamed(CHAT, &[piece(1, "b"), piece(0, "a"), piece(1, "B")]);
    let said: Vec<_> = output.iter().map(|message| &message["parts"][0]["content"]).collect();
    assert_eq!(said, ["a", "bB"]);
}

#[test]
fn responses_of_openai_are_read() {
    let messages = asked(
        RESPONSES,
        &json!({
            "instructions": "Be brief.",
            "input": [
                { "role": "user", "content": [
                    { "type": "input_text", "text": "What?" },
                    { "type": "input_image", "file_id": "file-1" },
                ] },
                { "type": "function_call", "call_id": "1", "name": "look", "arguments": "{}" },
                { "type": "function_call_output", "call_id": "1", "output": "a cat" },
            ],
            "tools": [{ "type": "function", "name": "look", "parameters": {} }],
        }),
    );
    assert_eq!(messages.system, [Part::Text("Be brief.".into())]);
    let roles: Vec<_> = messages.input.iter().map(|message| &*message.role).collect();
    assert_eq!(roles, ["user", "assistant", "tool"]);
    assert_eq!(messages.input[0].parts[1], Part::file("image", "file-1"));
    assert_eq!(messages.tools[0]["name"], "look");
    assert_eq!(
        asked(RESPONSES, &json!({ "input": "Why?" })).input[0].parts,
        [Part::Text("Why?".into())]
    );

    let expected = answer(
        json!([
            { "type": "reasoning", "content": "Hm." },
            { "type": "text", "content": "A cat." },
            { "type": "tool_call", "id": "1", "name": "look", "arguments": {} },
        ]),
        "completed",
    );
    let whole = json!({ "object": "response", "status": "completed", "output": [
        { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "Hm." }] },
        { "type": "message", "content": [{ "type": "output_text", "text": "A cat." }] },
        { "type": "function_call", "call_id": "1", "name": "look", "arguments": "{}" },
    ] });
    assert_eq!(answered(RESPONSES, &whole), expected);

    let event = |kind: &str, at: u64, delta: &str| json!({ "type": format!("response.{kind}"), "output_index": at, "delta": delta });
    let pieces = [
        json!({ "type": "response.created", "response": { "output": [] } }),
        event("reasoning_summary_text.delta", 0, "Hm."),
        event("output_text.delta", 1, "A "),
        event("output_text.delta", 1, "cat."),
        json!({ "type": "response.output_item.added", "output_index": 2, "item":
            { "type": "function_call", "call_id": "1", "name": "look", "arguments": "" } }),
        event("function_call_arguments.delta", 2, "{}"),
    ];
    let mut unfinished = expected.clone();
    unfinished[0].as_object_mut().expect("an object").remove("finish_reason");
    assert_eq!(streamed(RESPONSES, &pieces), unfinished);
    let end = json!({ "type": "response.completed", "response": whole });
    assert_eq!(streamed(RESPONSES, &[&pieces[..], &[end]].concat()), expected);
}

#[test]
fn a_prompt_of_completions_is_read() {
    let path = "/v1/completions";
    assert_eq!(asked(path, &json!({ "prompt": "Why" })).input[0].parts, [Part::Text("Why".into())]);
    let piece = |text: &str| json!({ "choices": [{ "index": 0, "text": text }] });
    assert_eq!(streamed(path, &[piece("be"), piece("cause")])[0]["parts"][0]["content"], "because");
}

#[test]
fn messages_of_anthropic_are_read() {
    let messages = asked(
        ANTHROPIC,
        &json!({
            "system": [{ "type": "text", "text": "Be brief." }],
            "messages": [
                { "role": "user", "content": "What?" },
                { "role": "assistant", "content": [
                    { "type": "thinking", "thinking": "Hm.", "signature": "x" },
                    { "type": "tool_use", "id": "1", "name": "look", "input": { "at": 1 } },
                ] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "1", "content": [{ "type": "text", "text": "a cat" }] },
                    { "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "AAAA" } },
                ] },
            ],
            "tools": [{ "name": "look", "description": "Looks.", "input_schema": {} }],
        }),
    );
    assert_eq!(messages.system, [Part::Text("Be brief.".into())]);
    assert_eq!(
        show(&messages.input),
        [
            json!({ "role": "user", "parts": [{ "type": "text", "content": "What?" }] }),
            json!({ "role": "assistant", "parts": [
                { "type": "reasoning", "content": "Hm." },
                { "type": "tool_call", "id": "1", "name": "look", "arguments": { "at": 1 } },
            ] }),
            json!({ "role": "user", "parts": [
                { "type": "tool_call_response", "id": "1", "response": [{ "type": "text", "content": "a cat" }] },
                { "type": "blob", "modality": "image", "mime_type": "image/png", "content": "" },
            ] }),
        ]
    );
    assert_eq!(
        messages.tools,
        [json!({ "type": "function", "name": "look", "description": "Looks.", "parameters": {} })]
    );
}

/// An answer of Anthropic, whole and in pieces.
fn anthropic_answer() -> (Vec<Value>, Value, Vec<Value>) {
    let expected = answer(
        json!([
            { "type": "reasoning", "content": "Hm." },
            { "type": "text", "content": "A cat." },
            { "type": "tool_call", "id": "1", "name": "look", "arguments": { "at": 1 } },
        ]),
        "tool_use",
    );
    let whole = json!({ "type": "message", "role": "assistant", "stop_reason": "tool_use", "content": [
        { "type": "thinking", "thinking": "Hm.", "signature": "x" },
        { "type": "text", "text": "A cat." },
        { "type": "tool_use", "id": "1", "name": "look", "input": { "at": 1 } },
    ] });
    let begin = |index: u64, block: Value| json!({ "type": "content_block_start", "index": index, "content_block": block });
    let delta = |index: u64, delta: Value| json!({ "type": "content_block_delta", "index": index, "delta": delta });
    let pieces = vec![
        json!({ "type": "message_start", "message": { "role": "assistant", "content": [] } }),
        begin(0, json!({ "type": "thinking", "thinking": "" })),
        delta(0, json!({ "type": "thinking_delta", "thinking": "Hm." })),
        delta(0, json!({ "type": "signature_delta", "signature": "x" })),
        begin(1, json!({ "type": "text", "text": "" })),
        json!({ "type": "ping" }),
        delta(1, json!({ "type": "text_delta", "text": "A " })),
        delta(1, json!({ "type": "text_delta", "text": "cat." })),
        begin(2, json!({ "type": "tool_use", "id": "1", "name": "look", "input": {} })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": "{\"at\"" })),
        delta(2, json!({ "type": "input_json_delta", "partial_json": ": 1}" })),
        json!({ "type": "message_delta", "delta": { "stop_reason": "tool_use" } }),
        json!({ "type": "message_stop" }),
    ];
    (expected, whole, pieces)
}

#[test]
fn an_answer_of_anthropic_is_read_wherever_it_is_served() {
    let (expected, whole, pieces) = anthropic_answer();
    for path in [
        ANTHROPIC,
        "/v1/projects/p/locations/l/publishers/anthropic/models/claude:streamRawPredict",
        "/model/anthropic.claude-haiku/invoke",
    ] {
        assert_eq!(answered(path, &whole), expected, "{path}");
        assert_eq!(streamed(path, &pieces), expected, "{path}");
    }
    let nested: Vec<_> = pieces
        .iter()
        .map(|piece| {
            let digits = base64::engine::general_purpose::STANDARD.encode(piece.to_string());
            json!({ "bytes": digits, "p": "abc" })
        })
        .collect();
    let path = "/model/us.anthropic.claude-haiku/invoke-with-response-stream";
    assert_eq!(event_stream(path, &nested), expected);
}

#[test]
fn contents_of_gemini_are_read() {
    let messages = asked(
        GEMINI,
        &json!({
            "systemInstruction": { "parts": [{ "text": "Be brief." }] },
            "contents": [
                { "role": "user", "parts": [
                    { "text": "What?" },
                    { "inlineData": { "mimeType": "image/png", "data": "AAAA" } },
                    { "file_data": { "mime_type": "video/mp4", "file_uri": "gs://a/b.mp4" } },
                ] },
                { "role": "model", "parts": [{ "functionCall": { "name": "look", "args": { "at": 1 } } }] },
                { "role": "user", "parts": [{ "functionResponse": { "name": "look", "response": { "is": "cat" } } }] },
            ],
            "tools": [{ "functionDeclarations": [{ "name": "look", "parameters": {} }] }, { "googleSearch": {} }],
        }),
    );
    assert_eq!(messages.system, [Part::Text("Be brief.".into())]);
    assert_eq!(
        show(&messages.input),
        [
            json!({ "role": "user", "parts": [
                { "type": "text", "content": "What?" },
                { "type": "blob", "modality": "image", "mime_type": "image/png", "content": "" },
                { "type": "uri", "modality": "video", "mime_type": "video/mp4", "uri": "gs://a/b.mp4" },
            ] }),
            json!({ "role": "assistant", "parts": [
                { "type": "tool_call", "name": "look", "arguments": { "at": 1 } },
            ] }),
            json!({ "role": "user", "parts": [
                { "type": "tool_call_response", "id": "look", "response": { "is": "cat" } },
            ] }),
        ]
    );
    assert_eq!(messages.tools, [json!({ "type": "function", "name": "look", "parameters": {} })]);
}

#[test]
fn an_answer_of_gemini_is_read_however_it_is_framed() {
    let chunk = |parts: Value| json!({ "candidates": [{ "content": { "role": "model", "parts": parts } }] });
    let pieces = [
        chunk(json!([{ "text": "Hm.", "thought": true }])),
        chunk(json!([{ "text": "A " }])),
        chunk(json!([{ "text": "cat." }])),
        json!({ "candidates": [{ "content": { "parts": [
            { "functionCall": { "name": "look", "args": {} } },
        ] }, "finishReason": "STOP" }] }),
    ];
    let expected = answer(
        json!([
            { "type": "reasoning", "content": "Hm." },
            { "type": "text", "content": "A cat." },
            { "type": "tool_call", "name": "look", "arguments": {} },
        ]),
        "STOP",
    );
    assert_eq!(streamed(GEMINI, &pieces), expected);
    assert_eq!(answered(GEMINI, &json!(pieces)), expected);
}

#[test]
fn converse_of_bedrock_is_read() {
    let messages = asked(
        CONVERSE,
        &json!({
            "system": [{ "text": "Be brief." }],
            "messages": [
                { "role": "user", "content": [
                    { "text": "What?" },
                    { "image": { "format": "png", "source": { "bytes": "AAAA" } } },
                ] },
                { "role": "assistant", "content": [{ "toolUse": { "toolUseId": "1", "name": "look", "input": {} } }] },
                { "role": "user", "content": [{ "toolResult": { "toolUseId": "1", "content": [{ "json": { "is": "cat" } }] } }] },
            ],
            "toolConfig": { "tools": [{ "toolSpec": { "name": "look", "inputSchema": { "json": {} } } }] },
        }),
    );
    assert_eq!(messages.system, [Part::Text("Be brief.".into())]);
    assert_eq!(messages.input[0].parts[1], Part::blob("image", Some("image/png")));
    assert_eq!(
        messages.input[2].parts,
        [Part::ToolResponse { id: Some("1".into()), response: json!([{ "is": "cat" }]) }]
    );
    assert_eq!(messages.tools, [json!({ "type": "function", "name": "look", "parameters": {} })]);

    let expected = answer(
        json!([
            { "type": "text", "content": "A cat." },
            { "type": "tool_call", "id": "1", "name": "look", "arguments": { "at": 1 } },
        ]),
        "tool_use",
    );
    let whole = json!({ "stopReason": "tool_use", "output": { "message": { "role": "assistant", "content": [
        { "text": "A cat." },
        { "toolUse": { "toolUseId": "1", "name": "look", "input": { "at": 1 } } },
    ] } } });
    assert_eq!(answered(CONVERSE, &whole), expected);
    let delta = |at: u64, delta: Value| json!({ "contentBlockIndex": at, "delta": delta });
    let pieces = [
        json!({ "role": "assistant" }),
        delta(0, json!({ "text": "A " })),
        delta(0, json!({ "text": "cat." })),
        json!({ "contentBlockIndex": 0 }),
        json!({ "contentBlockIndex": 1, "start": { "toolUse": { "toolUseId": "1", "name": "look" } } }),
        delta(1, json!({ "toolUse": { "input": "{\"at\": 1}" } })),
        json!({ "stopReason": "tool_use" }),
        json!({ "usage": {}, "metrics": {} }),
    ];
    assert_eq!(event_stream("/model/m/converse-stream", &pieces), expected);
}

/// What an AWS event stream of these messages says.
fn event_stream(path: &str, payloads: &[Value]) -> Vec<Value> {
    let message = |payload: &Value| {
        let payload = payload.to_string();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&((16 + payload.len()) as u32).to_be_bytes());
        bytes.extend_from_slice(&0_u32.to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes.extend_from_slice(payload.as_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        bytes
    };
    let stream: Vec<u8> = payloads.iter().flat_map(message).collect();
    show(&call(path, b"{}", "application/vnd.amazon.eventstream", &stream).output)
}

#[test]
fn a_prompt_without_a_conversation_is_read_and_so_is_its_answer() {
    let asked = |path: &str, body: Value| asked(path, &body).input[0].parts.clone();
    let why = [Part::Text("Why?".into())];
    assert_eq!(asked("/generate", json!({ "prompt": "Why?" })), why);
    assert_eq!(asked("/generate", json!({ "instances": [{ "prompt": "Why?" }] })), why);
    assert_eq!(asked("/model/amazon.titan-text/invoke", json!({ "inputText": "Why?" })), why);
    let chat = json!({ "messages": [{ "role": "user", "content": "Why?" }] });
    assert_eq!(asked("/model/openai.gpt-oss/invoke", chat), why);

    for (path, reply) in [
        ("/generate", json!({ "text": ["So."] })),
        ("/v1/generate", json!({ "output": "So." })),
        ("/generate", json!({ "predictions": ["So."] })),
        ("/model/cohere.command/invoke", json!({ "generations": [{ "text": "So." }] })),
        ("/model/meta.llama/invoke", json!({ "generation": "So." })),
        ("/model/mistral.mistral/invoke", json!({ "outputs": [{ "text": "So." }] })),
        (
            "/model/openai.gpt-oss/invoke",
            json!({ "choices": [{ "message": { "content": "So." } }] }),
        ),
    ] {
        assert_eq!(answered(path, &reply)[0]["parts"][0]["content"], "So.", "{path}: {reply}");
    }
    let titan = json!({ "results": [{ "outputText": "So.", "completionReason": "LENGTH" }] });
    let so = json!([{ "type": "text", "content": "So." }]);
    assert_eq!(answered("/model/amazon.titan-text/invoke", &titan), answer(so, "LENGTH"));

    let pieces = [json!({ "generation": "So" }), json!({ "generation": "." })];
    let path = "/model/meta.llama/invoke-with-response-stream";
    assert_eq!(event_stream(path, &pieces)[0]["parts"][0]["content"], "So.");
    // Here each event has all that there is so far.
    let stream = b"{\"text\": [\"So\"]}\0{\"text\": [\"So.\"]}\0";
    let output = call("/generate", b"{}", "application/json", stream).output;
    assert_eq!(show(&output)[0]["parts"], json!([{ "type": "text", "content": "So." }]));
}

#[test]
fn a_body_that_is_too_long_says_its_beginning_and_that_there_was_more() {
    let long = "x".repeat(MAX_BODY);
    let request = json!({ "messages": [
        { "role": "user", "content": "first" },
        { "role": "user", "content": long },
        { "role": "user", "content": "last" },
    ] });
    let messages = asked(CHAT, &request);
    assert!(messages.is_truncated);
    let said: Vec<_> = messages.input.iter().map(|message| &message.parts[0]).collect();
    assert_eq!(said[0], &Part::Text("first".into()));
    let [_, Part::Text(cut)] = said[..] else { panic!("two messages, not {}", said.len()) };
    assert!(cut.len() > MAX_BODY / 2 && cut.len() < MAX_BODY);
}

#[test]
fn a_body_in_gzip_is_read_and_one_in_another_encoding_is_left_out() {
    let reply = json!({ "choices": [{ "message": { "content": "A cat." } }] }).to_string();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(reply.as_bytes()).expect("memory takes everything");
    let gzip = encoder.finish().expect("memory takes everything");
    for (coding, said, is_truncated) in [("gzip", 1, false), ("br", 0, true)] {
        let mut content = Content::of(CHAT, &headers(&[]), &Budget::new(PLENTY)).expect("a chat");
        content.head(&headers(&[("content-encoding", coding)]));
        content.response(&gzip);
        let messages = content.messages();
        assert_eq!(
            (messages.output.len(), messages.is_truncated),
            (said, is_truncated),
            "{coding}"
        );
    }
}

#[test]
fn all_bodies_together_have_a_bound_that_what_ends_gives_back() {
    let budget = Budget::new(100);
    let request = |content: &mut Content, bytes| {
        content.request(&vec![b' '; bytes]);
        content.messages().is_truncated
    };
    let mut one = Content::of(CHAT, &headers(&[]), &budget).expect("a chat");
    let mut other = Content::of(CHAT, &headers(&[]), &budget).expect("a chat");
    assert!(!request(&mut one, 60));
    assert!(request(&mut other, 60));
    drop((one, other));
    assert_eq!(budget.left(), 100);
}

#[test]
fn bytes_that_are_no_json_say_nothing_and_harm_nothing() {
    for body in [&b""[..], b"{", b"[[[[", b"\xff\xfe", b"null", b"{\"choices\": 7}", b"data: {\n\n"]
    {
        for path in [CHAT, RESPONSES, ANTHROPIC, GEMINI, CONVERSE, "/v1/completions"] {
            for kind in
                ["application/json", "text/event-stream", "application/vnd.amazon.eventstream"]
            {
                let messages = call(path, body, kind, body);
                assert_eq!(
                    (messages.input.len(), messages.output.len()),
                    (0, 0),
                    "{path} {body:?}"
                );
            }
        }
    }
}

#[test]
fn a_call_without_content_keeps_none_and_content_is_never_shown() {
    let budget = Budget::new(PLENTY);
    for path in ["/", "", "/v1/embeddings", "/v1/models", "/v1/chat"] {
        assert!(Content::of(path, &headers(&[]), &budget).is_none(), "{path}");
    }
    let mut content = Content::of(CHAT, &headers(&[]), &budget).expect("a chat");
    content.request(b"hush");
    assert_eq!(format!("{content:?}"), "***");
}

#[test]
fn a_content_type_without_end_takes_no_room_that_is_not_budgeted() {
    let mut fields = HeaderMap::new();
    let long = format!("text/event-stream;{}", "x".repeat(60_000));
    fields.insert("content-type", long.parse().expect("a value"));
    let mut content = Content::of(CHAT, &fields, &Budget::new(PLENTY)).expect("a chat");
    content.head(&fields);
    for body in [&content.request, &content.response] {
        assert!(body.content_type.as_ref().is_some_and(|kind| kind.capacity() <= MAX_TYPE));
    }
    content.response(b"data: {\"choices\":[{\"message\":{\"content\":\"hi\"}}]}\n\n");
    assert_eq!(content.messages().output.len(), 1);
}
