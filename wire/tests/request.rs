//! What an observer makes of the bodies of requests, by dialect and however they are cut.

use std::time::Duration;

use http::HeaderMap;
use serde_json::{Map, Value, json};
use tidegate_wire::{Ending, HeadView, Observer, Record, Shape};

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const GEMINI: &str = "/v1beta/models/gemini-large:generateContent";
const VERTEX: &str = "/v1/projects/p/locations/l/publishers/google/models";
const CONVERSE: &str = "/model/nova/converse";
const INVOKE: &str = "/model/claude/invoke";

/// 5 bytes, with padding.
const FIVE: &str = "aGVsbG8=";

#[test]
fn each_dialect_asks_in_its_own_words() {
    let all = json!({
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "gen_ai.request.stop_sequences": ["END"],
    });
    for (path, body) in [
        (CHAT, json!({"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": "END"})),
        (
            CHAT,
            json!({"max_completion_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}),
        ),
        (
            "/v1/completions",
            json!({"prompt": "hi", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}),
        ),
        (
            MESSAGES,
            json!({"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"]}),
        ),
        (
            GEMINI,
            json!({"generationConfig": {"maxOutputTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}}),
        ),
        (
            GEMINI,
            json!({"generation_config": {"max_output_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"]}}),
        ),
        (
            CONVERSE,
            json!({"inferenceConfig": {"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}}),
        ),
        (
            INVOKE,
            json!({"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"]}),
        ),
        (
            "/model/titan/invoke",
            json!({"textGenerationConfig": {"maxTokenCount": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}}),
        ),
        (
            "/model/nova/invoke",
            json!({"inferenceConfig": {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stopSequences": ["END"]}}),
        ),
        (
            "/model/llama/invoke",
            json!({"max_gen_len": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}),
        ),
        (
            "/model/cohere/invoke",
            json!({"max_tokens": 9, "temperature": 0.5, "p": 0.9, "stop_sequences": ["END"]}),
        ),
        (
            "/model/ai21.j2/invoke",
            json!({"maxTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}),
        ),
        (
            "/generate",
            json!({"prompt": "hi", "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}),
        ),
        (
            "/generate",
            json!({"inputs": "hi", "parameters": {"max_new_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}}),
        ),
        (
            "/api/generate",
            json!({"options": {"num_predict": 9, "temperature": 0.5, "top_p": 0.9, "stop": ["END"]}}),
        ),
        (
            "/v1/projects/p/locations/l/publishers/google/models/m:predict",
            json!({"instances": [], "parameters": {"maxOutputTokens": 9, "temperature": 0.5, "topP": 0.9, "stopSequences": ["END"]}}),
        ),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/m:rawPredict",
            json!({"max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "stop_sequences": ["END"]}),
        ),
    ] {
        assert_eq!(asked(path, &body), all, "{path} {body}");
    }
}

#[test]
fn what_only_some_dialects_have_is_read_where_it_stands() {
    for (path, body, expected) in [
        (
            CHAT,
            json!({"n": 2, "seed": -7, "frequency_penalty": -0.5, "presence_penalty": 2, "service_tier": "flex", "response_format": {"type": "json_schema"}}),
            json!({"gen_ai.request.choice.count": 2, "gen_ai.request.seed": -7, "gen_ai.request.frequency_penalty": -0.5, "gen_ai.request.presence_penalty": 2.0, "openai.request.service_tier": "flex", "gen_ai.output.type": "json"}),
        ),
        (CHAT, json!({"modalities": ["text", "audio"]}), json!({"gen_ai.output.type": "speech"})),
        (
            RESPONSES,
            json!({"max_output_tokens": 9, "conversation": "conv_1", "text": {"format": {"type": "text"}}, "input": "hi"}),
            json!({"gen_ai.request.max_tokens": 9, "gen_ai.conversation.id": "conv_1", "gen_ai.output.type": "text"}),
        ),
        (
            RESPONSES,
            json!({"conversation": {"id": "conv_2"}, "input": [{}, {}], "tools": [{"type": "mcp"}]}),
            json!({"gen_ai.conversation.id": "conv_2", "tidegate.request.messages": 2, "tidegate.request.tools": 1}),
        ),
        (
            "/v1/embeddings",
            json!({"input": ["a", "b"], "dimensions": 256, "encoding_format": "base64"}),
            json!({"gen_ai.embeddings.dimension.count": 256, "gen_ai.request.encoding_formats": ["base64"]}),
        ),
        (
            MESSAGES,
            json!({"top_k": 40, "messages": [{"content": "a"}, {"content": "b"}], "tools": [{}, {}]}),
            json!({"gen_ai.request.top_k": 40.0, "tidegate.request.messages": 2, "tidegate.request.tools": 2}),
        ),
        (
            GEMINI,
            json!({"contents": [{}], "generationConfig": {"candidateCount": 3, "seed": 5, "responseMimeType": "application/json", "topK": 4}}),
            json!({"tidegate.request.messages": 1, "gen_ai.request.choice.count": 3, "gen_ai.request.seed": 5, "gen_ai.output.type": "json", "gen_ai.request.top_k": 4.0}),
        ),
        (
            GEMINI,
            json!({"generationConfig": {"responseModalities": ["TEXT", "IMAGE"], "presencePenalty": 0.5, "frequencyPenalty": 1}}),
            json!({"gen_ai.output.type": "image", "gen_ai.request.presence_penalty": 0.5, "gen_ai.request.frequency_penalty": 1.0}),
        ),
        (
            GEMINI,
            json!({"tools": [{"functionDeclarations": [{}, {}], "googleSearch": {}}, {"code_execution": {}}, {"somethingNew": {}}, {"functionDeclarations": []}]}),
            json!({"tidegate.request.tools": 5}),
        ),
        (
            CONVERSE,
            json!({"guardrailConfig": {"guardrailIdentifier": "g-1"}, "messages": [{}], "toolConfig": {"tools": [{"toolSpec": {}}, {"cachePoint": {}}]}}),
            json!({"aws.bedrock.guardrail.id": "g-1", "tidegate.request.messages": 1, "tidegate.request.tools": 1}),
        ),
        (
            "/model/cohere/invoke",
            json!({"k": 3, "num_generations": 4}),
            json!({"gen_ai.request.top_k": 3.0, "gen_ai.request.choice.count": 4}),
        ),
        (
            "/api/generate",
            json!({"format": "json", "options": {"num_predict": -1, "seed": 1}}),
            json!({"gen_ai.output.type": "json", "gen_ai.request.seed": 1}),
        ),
    ] {
        assert_eq!(asked(path, &body), expected, "{path} {body}");
    }
}

#[test]
fn what_is_not_stated_or_of_the_wrong_type_is_absent() {
    for body in [
        json!({}),
        json!({"messages": "no list", "tools": {}, "stop": 5, "n": 1}),
        json!({"messages": [], "tools": [], "stop": [], "modalities": []}),
        json!({"max_tokens": "9", "temperature": "hot", "top_p": null, "seed": 1.5, "n": -2}),
        json!({"max_tokens": 1.5, "temperature": [1], "top_k": {"a": 1}, "conversation": 3}),
        json!({"max_tokens": -1, "seed": true, "response_format": "json", "service_tier": ""}),
        json!({"response_format": {"type": "a new one"}, "stop": ""}),
    ] {
        assert_eq!(asked(CHAT, &body), json!({}), "{body}");
    }
}

#[test]
fn a_number_that_json_cannot_hold_is_absent() {
    let record = observe(CHAT, br#"{"temperature":1e999,"max_tokens":99999999999999999999999}"#);
    assert_eq!(record.asked, None);
}

#[test]
fn lists_and_texts_are_bounded() {
    let stops: Vec<_> = (0..100).map(|_| "\u{fc}".repeat(500)).collect();
    let conversation = "c".repeat(5_000);
    let body = json!({"stop": stops, "conversation": conversation, "service_tier": conversation});
    let asked = *observe(RESPONSES, body.to_string().as_bytes()).asked.expect("it asks");
    assert_eq!(asked.stop_sequences, vec!["\u{fc}".repeat(32); 8]);
    assert_eq!(asked.conversation_id.expect("an id").len(), 256);
    assert_eq!(asked.service_tier.expect("a tier").len(), 64);
}

#[test]
fn a_header_names_the_guardrail_of_an_invocation() {
    let mut headers = HeaderMap::new();
    headers.insert("x-amzn-bedrock-guardrailidentifier", "g-2".parse().expect("a value"));
    let mut observer = Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path: INVOKE,
        query: None,
        headers: &headers,
    }));
    observer.request(b"{}");
    let asked = finish(observer).asked.expect("the head asks");
    assert_eq!(asked.guardrail_id.as_deref(), Some("g-2"));
}

#[test]
fn media_count_by_kind_and_decoded_bytes_whatever_the_order_of_keys() {
    let image = json!({"tidegate.input.images": 1, "tidegate.input.image_bytes": 5});
    let link = json!({"tidegate.input.images": 1});
    let audio = json!({"tidegate.input.audios": 1, "tidegate.input.audio_bytes": 5});
    let video = json!({"tidegate.input.videos": 1, "tidegate.input.video_bytes": 5});
    let document = json!({"tidegate.input.documents": 1, "tidegate.input.document_bytes": 5});
    let url = |kind: &str| format!("data:{kind};base64,{FIVE}");
    let part =
        |part: Value| json!({"messages": [{"content": [part, {"type": "text", "text": "hi"}]}]});
    let input = |part: Value| json!({"input": [{"content": [part]}]});
    let gemini = |part: Value| json!({"contents": [{"parts": [{"text": "hi"}, part]}]});
    let instance = |instance: Value| json!({"instances": [instance]});
    for (path, body, expected) in [
        (CHAT, part(json!({"type": "image_url", "image_url": {"url": url("image/png")}})), &image),
        (
            CHAT,
            part(
                json!({"image_url": {"detail": "low", "url": "https://a/b.png"}, "type": "image_url"}),
            ),
            &link,
        ),
        (
            CHAT,
            part(json!({"type": "input_audio", "input_audio": {"data": FIVE, "format": "wav"}})),
            &audio,
        ),
        (
            CHAT,
            part(
                json!({"type": "file", "file": {"filename": "a.pdf", "file_data": url("application/pdf")}}),
            ),
            &document,
        ),
        (CHAT, part(json!({"type": "video_url", "video_url": {"url": url("video/mp4")}})), &video),
        (RESPONSES, input(json!({"image_url": url("image/png"), "type": "input_image"})), &image),
        (RESPONSES, input(json!({"type": "input_image", "file_id": "file-1"})), &link),
        (RESPONSES, input(json!({"type": "input_file", "file_data": FIVE})), &document),
        (
            RESPONSES,
            json!({"input": [{"type": "function_call_output", "output": [{"type": "input_image", "image_url": url("image/png")}]}]}),
            &image,
        ),
        (
            MESSAGES,
            part(
                json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": FIVE}}),
            ),
            &image,
        ),
        (
            MESSAGES,
            part(
                json!({"source": {"data": FIVE, "media_type": "image/png", "type": "base64"}, "type": "image"}),
            ),
            &image,
        ),
        (
            MESSAGES,
            part(json!({"type": "image", "source": {"type": "url", "url": "https://a/b"}})),
            &link,
        ),
        (
            MESSAGES,
            part(
                json!({"type": "document", "source": {"data": "hello", "type": "text", "media_type": "text/plain"}}),
            ),
            &document,
        ),
        (
            MESSAGES,
            part(
                json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64", "data": FIVE}}]}),
            ),
            &image,
        ),
        (GEMINI, gemini(json!({"inlineData": {"data": FIVE, "mimeType": "image/png"}})), &image),
        (GEMINI, gemini(json!({"inline_data": {"mime_type": "AUDIO/wav", "data": FIVE}})), &audio),
        (GEMINI, gemini(json!({"inlineData": {"data": FIVE, "mimeType": "video/mp4"}})), &video),
        (
            GEMINI,
            gemini(json!({"inlineData": {"data": FIVE, "mimeType": "application/pdf"}})),
            &document,
        ),
        (
            GEMINI,
            gemini(json!({"fileData": {"fileUri": "gs://a/b", "mimeType": "image/png"}})),
            &link,
        ),
        (CONVERSE, part(json!({"image": {"format": "png", "source": {"bytes": FIVE}}})), &image),
        (
            CONVERSE,
            part(
                json!({"image": {"source": {"s3Location": {"uri": "s3://a/b"}}, "format": "png"}}),
            ),
            &link,
        ),
        (CONVERSE, part(json!({"video": {"source": {"bytes": FIVE}, "format": "mp4"}})), &video),
        (CONVERSE, part(json!({"audio": {"source": {"bytes": FIVE}}})), &audio),
        (CONVERSE, part(json!({"document": {"source": {"bytes": FIVE}, "name": "a"}})), &document),
        (
            CONVERSE,
            part(json!({"toolResult": {"content": [{"image": {"source": {"bytes": FIVE}}}]}})),
            &image,
        ),
        ("/api/generate", json!({"images": [FIVE]}), &image),
        (
            &format!("{VERTEX}/m:predict"),
            instance(json!({"image": {"bytesBase64Encoded": FIVE}})),
            &image,
        ),
        (&format!("{VERTEX}/m:predict"), instance(json!({"image": {"gcsUri": "gs://a/b"}})), &link),
        (
            &format!("{VERTEX}/veo-3:predictLongRunning"),
            instance(json!({"lastFrame": {"bytesBase64Encoded": FIVE}})),
            &image,
        ),
        (
            &format!("{VERTEX}/veo-3:predictLongRunning"),
            instance(json!({"video": {"bytesBase64Encoded": FIVE}})),
            &video,
        ),
        (
            &format!("{VERTEX}/veo-3:predict"),
            instance(json!({"parameters": {"initImage": FIVE}})),
            &image,
        ),
        (
            &format!("{VERTEX}/veo-3:predict"),
            instance(json!({"parameters": {"initImage": "gs://bucket/a.png"}})),
            &link,
        ),
    ] {
        assert_eq!(&media(path, &body), expected, "{path} {body}");
    }
}

#[test]
fn several_media_add_up() {
    let url = format!("data:image/png;base64,{FIVE}");
    let image = json!({"type": "image_url", "image_url": {"url": url}});
    let link = json!({"type": "image_url", "image_url": {"url": "https://a/b"}});
    let file = json!({"type": "file", "file": {"file_id": "file-1"}});
    let body = json!({"messages": [
        {"role": "user", "content": [image, link, {"type": "text", "text": "a"}]},
        {"role": "user", "content": "no parts"},
        {"role": "user", "content": [file, image]},
    ]});
    let expected = json!({
        "tidegate.input.images": 3,
        "tidegate.input.image_bytes": 10,
        "tidegate.input.documents": 1,
    });
    assert_eq!(media(CHAT, &body), expected);

    let body = json!({"images": [FIVE, "", FIVE]});
    let expected = json!({"tidegate.input.images": 2, "tidegate.input.image_bytes": 10});
    assert_eq!(media("/api/generate", &body), expected);
}

#[test]
fn base64_with_escapes_and_line_ends_counts_as_what_it_stands_for() {
    for data in [r"a\/\/sbG8=", r"aGVs\nbG8=", r"aGVs\r\nbG8\u003d", r"aG\u0056sbG8="] {
        let body = format!(
            r#"{{"contents":[{{"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}]}}]}}"#
        );
        for size in [1, 2, 7, 1000] {
            let mut observer = observer(GEMINI);
            body.as_bytes().chunks(size).for_each(|piece| observer.request(piece));
            let media = finish(observer).media.expect("there is an image");
            assert_eq!((media.images, media.image_bytes), (Some(1), Some(5)), "{data} by {size}");
        }
    }
}

#[test]
fn of_a_body_that_breaks_off_nobody_knows_how_much_it_was() {
    let body = json!({"max_tokens": 9, "messages": [{"content": [{"type": "image_url", "image_url": {"url": "https://a"}}]}], "tools": [{}]});
    let body = body.to_string();
    for length in 0..body.len() {
        let record = observe(CHAT, &body.as_bytes()[..length]);
        assert_eq!(record.media, None, "{length}");
        let asked = record.asked.map(|asked| *asked).unwrap_or_default();
        assert_eq!((asked.messages, asked.tools), (None, None), "{length}");
    }
}

#[test]
fn where_a_request_is_cut_changes_nothing() {
    let body = json!({
        "model": "m", "max_tokens": 9, "temperature": 0.25, "stop": ["a\n", "\u{fc}\u{1F600}"],
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{FIVE}")}},
            {"input_audio": {"data": FIVE}, "type": "input_audio"},
            {"type": "image_url", "image_url": {"url": "https://a"}},
        ]}],
        "tools": [{}, {}], "response_format": {"type": "json_object"},
    })
    .to_string();
    let whole = observe(CHAT, body.as_bytes());
    assert!(whole.asked.is_some() && whole.media.is_some());
    for at in 0..body.len() {
        let mut observer = observer(CHAT);
        observer.request(&body.as_bytes()[..at]);
        observer.request(&body.as_bytes()[at..]);
        assert_eq!(finish(observer), whole, "cut at {at}");
    }
    let mut observer = observer(CHAT);
    body.as_bytes().chunks(1).for_each(|byte| observer.request(byte));
    assert_eq!(finish(observer), whole, "byte by byte");
}

#[test]
fn no_wrong_byte_makes_it_panic_or_depend_on_where_it_is_cut() {
    let bodies = [
        (
            CHAT,
            json!({"model": "m", "stop": ["a"], "messages": [{"content": [{"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{FIVE}")}}]}]}),
        ),
        (
            MESSAGES,
            json!({"max_tokens": 9, "messages": [{"content": [{"type": "document", "source": {"type": "text", "data": "a\u{fc}\n"}}]}]}),
        ),
        (
            GEMINI,
            json!({"contents": [{"parts": [{"inlineData": {"data": FIVE, "mimeType": "image/png"}}]}], "tools": [{"functionDeclarations": [{}]}]}),
        ),
        (
            "/v1/projects/p/locations/l/publishers/google/models/veo:predictLongRunning",
            json!({"instances": [{"image": {"bytesBase64Encoded": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAAAAAA"}}], "parameters": {"durationSeconds": "9s", "sampleCount": 2}}),
        ),
    ];
    for (path, body) in bodies {
        let body = body.to_string().into_bytes();
        for at in 0..body.len() {
            for wrong in [0, b'"', b'{', b']', b'\\', b'=', b',', 0xFF] {
                let mut body = body.clone();
                body[at] = wrong;
                let whole = observe(path, &body);
                let mut observer = observer(path);
                body.chunks(3).for_each(|piece| observer.request(piece));
                assert_eq!(finish(observer), whole, "{}", String::from_utf8_lossy(&body));
            }
        }
    }
}

#[test]
fn a_small_picture_and_a_long_video_are_warned_of() {
    let png = |width: u32, height: u32| {
        use base64::Engine;
        let head = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
        let png = [head, &width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 6, 0, 0, 0, 1, 2]];
        base64::engine::general_purpose::STANDARD.encode(png.concat())
    };
    let image = |image: String| json!({"instances": [{"prompt": "a", "image": {"bytesBase64Encoded": image}}]});
    let length =
        |length: Value| json!({"instances": [{}], "parameters": {"durationSeconds": length}});
    let submit = format!("{VERTEX}/veo-3:predictLongRunning");
    let at_once = format!("{VERTEX}/veo-3:predict");
    for (path, body, expected) in [
        (&submit, image(png(511, 1280)), vec!["image_under_512px"]),
        (&submit, image(png(1280, 511)), vec!["image_under_512px"]),
        (&submit, image(png(512, 512)), vec![]),
        (&submit, image("bm8gcGljdHVyZQ==".to_owned()), vec![]),
        (&submit, image("data".repeat(100)), vec![]),
        (
            &submit,
            json!({"instances": [{"lastFrame": {"bytesBase64Encoded": png(1, 1)}}]}),
            vec!["image_under_512px"],
        ),
        (&submit, length(json!(9)), vec!["video_over_8s"]),
        (&submit, length(json!("9")), vec!["video_over_8s"]),
        (&submit, length(json!(8)), vec![]),
        (&submit, length(json!("soon")), vec![]),
        (
            &at_once,
            json!({"instances": [{"parameters": {"videoLength": 10, "initImage": png(64, 64)}}]}),
            vec!["image_under_512px", "video_over_8s"],
        ),
        (
            &"/async-invoke".to_owned(),
            json!({"modelInput": {"videoGenerationConfig": {"durationSeconds": 12}}}),
            vec![],
        ),
        (&format!("{VERTEX}/imagen-4:predict"), image(png(1, 1)), vec![]),
        (
            &GEMINI.to_owned(),
            json!({"contents": [{"parts": [{"inlineData": {"mimeType": "image/png", "data": png(1, 1)}}]}]}),
            vec![],
        ),
    ] {
        let text = body.to_string();
        for size in [1, 5, text.len()] {
            let mut observer = observer(path);
            text.as_bytes().chunks(size).for_each(|piece| observer.request(piece));
            let warnings = finish(observer).warnings;
            let warnings: Vec<_> = warnings.iter().map(|warning| &**warning).collect();
            assert_eq!(warnings, expected, "{path} {body}");
        }
    }
}

#[test]
fn a_path_that_names_the_model_knows_better_than_the_body() {
    let path = format!("{VERTEX}/m:streamRawPredict").replace("google", "anthropic");
    let record = observe(&path, br#"{"model":"other","stream":false}"#);
    assert_eq!((record.request_model.as_deref(), record.stream), (Some("m"), Some(true)));
    let record = observe("/api/generate", br#"{"model":"llama"}"#);
    assert_eq!(record.request_model.as_deref(), Some("llama"));
}

fn asked(path: &str, body: &Value) -> Value {
    let record = observe(path, body.to_string().as_bytes());
    keys(&record, |key| !key.starts_with("tidegate.input.") && !WHO.contains(&key))
}

fn media(path: &str, body: &Value) -> Value {
    let record = observe(path, body.to_string().as_bytes());
    keys(&record, |key| key.starts_with("tidegate.input."))
}

/// What is no part of what is asked for.
const WHO: [&str; 11] = [
    "time",
    "trace_id",
    "span_id",
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.request.stream",
    "cloud.region",
    "gcp.project_id",
    "tidegate.outcome",
    "tidegate.duration_s",
];

fn keys(record: &Record, wanted: impl Fn(&str) -> bool) -> Value {
    let record = serde_json::to_value(record).expect("a record serialises");
    let keys = record.as_object().expect("to an object").clone();
    keys.into_iter().filter(|(key, _)| wanted(key)).collect::<Map<_, _>>().into()
}

fn observe(path: &str, body: &[u8]) -> Record {
    let mut observer = observer(path);
    observer.request(body);
    finish(observer)
}

fn observer(path: &str) -> Observer {
    Observer::new(Shape::read(&HeadView {
        method: "POST",
        host: Some("localhost"),
        path,
        query: None,
        headers: &HeaderMap::new(),
    }))
}

fn finish(observer: Observer) -> Record {
    let mut record = Record::default();
    observer.finish(Ending::CallerLeft, Duration::ZERO, &mut record);
    record
}
